"""Laws of counting in little memory: registers that are made late, and counts that begin narrow, say what plain ones say."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.binning import Binning, Kind
from detectors.sketches.distinct import REGISTERS, add
from stream import container
from stream.columns import I64, U8, U64, Tag
from stream.container import Malformed
from stream.edge_state import EdgeState, decode_edge, encode_edge
from stream.pane_state import Chunk, PaneState, PlanTables
from stream.panes import decode_record, encode_pane
from stream.plan import ALL, ModelPlan, Role, SegmentPlan, TargetPlan
from stream.plan_codec import sealed
from stream.registers import Registers
from stream.sparse import dense, sparse
from stream.tally import Tally

HASHES = np.random.default_rng(7).integers(0, 1 << 63, 40).astype(np.uint64) * np.uint64(2)
# codes of the first hashes: alone, alone, two in "other", one in "unseen", which no value has for itself
TARGETS = ([0, 1, 2, 2, 3], [0], [], [0, 0], [1])
LABELS = (4, 3, 2, 2, 2)
SEGMENT = "country=__other__"


def binning(codes: list[int], bins: int) -> Binning:
    order = np.argsort(HASHES[: len(codes)])
    names = tuple(str(i) for i in range(bins))
    found = np.array(codes, np.int32)[order]
    return Binning(Kind.CATEGORICAL, np.empty(0), (0, 0), 0.0, 0.0, 0.0, HASHES[: len(codes)][order], found, names)


def tables() -> PlanTables:
    targets = [TargetPlan(f"c{i}", Role.FEATURE, i, binning(c, LABELS[i])) for i, c in enumerate(TARGETS)]
    numeric = Binning(
        Kind.NUMERIC, np.array([0.0]), (0, 1), 0.0, -1.0, 1.0, HASHES[:0], np.empty(0, np.int32), ()
    )  # between them, so that places of targets and of tracked targets differ
    targets.insert(1, TargetPlan("x", Role.FEATURE, len(TARGETS), numeric))
    segment = SegmentPlan("country", 0, (), HASHES[:0])
    return PlanTables(sealed(ModelPlan("m", "r", tuple(targets), (segment,))))


TABLES = tables()
COLUMNS = [target.column for target in TABLES.plan.targets]


def chunk(value: U64, tag: U8) -> Chunk:
    rows = len(value)
    return Chunk(
        number=value.view(np.float64), cell=value, category=value, tag=tag, id_high=np.zeros(rows, np.uint64),
        id_low=np.zeros(rows, np.uint32), model=np.zeros(rows, np.int32), version=np.zeros(rows, np.uint64),
        version_names={}, texts_of=lambda _: {},
    )  # fmt: skip


@dataclass
class Rows:
    value: U64
    tag: U8
    cuts: list[int]


@st.composite
def rows(draw: st.DrawFn) -> Rows:
    """Values of few or of many hashes, so that some targets have nothing but values with a bin of their own."""
    n = draw(st.integers(0, 150))
    g = np.random.default_rng(draw(st.integers(0, 1 << 20)))
    most = np.array(draw(st.lists(st.sampled_from([1, 2, 4, 40]), min_size=6, max_size=6)))
    value = HASHES[(g.random((n, 6)) * most).astype(np.int64)]
    tag = g.choice(np.array([Tag.TEXT, Tag.TEXT, Tag.TEXT, Tag.MISSING, Tag.INVALID], np.uint8), (n, 6))
    return Rows(value, tag, sorted(draw(st.lists(st.integers(0, n), max_size=5))))


def eager(drawn: Rows) -> U8:
    """Registers of every value of every categorical target, U8[tracked, REGISTERS]."""
    found = np.zeros((len(TARGETS), REGISTERS), np.uint8)
    for i in range(len(TARGETS)):
        add(found[i], drawn.value[drawn.tag[:, i] == Tag.TEXT, i])
    return found


def apart(drawn: Rows) -> list[int]:
    """Tracked targets that had a value without a bin of its own."""
    found = []
    for i, codes in enumerate(TARGETS):
        own = {int(HASHES[k]) for k, code in enumerate(codes) if codes.count(code) == 1 and code != LABELS[i] - 1}
        if set(drawn.value[drawn.tag[:, i] == Tag.TEXT, i].tolist()) - own:
            found.append(i)
    return found


def counted(drawn: Rows, cuts: list[int], *, restored: bool = False) -> EdgeState:
    """The rows in the pane "all", every other one in a segment's too, cut into chunks, moved by a snapshot after each."""
    edge = EdgeState(0)
    whole = chunk(drawn.value, drawn.tag)
    n = len(drawn.value)
    for first, stop in zip([0, *cuts], [*cuts, n], strict=True):
        place: I64 = np.arange(first, stop)
        edge.pane(TABLES, "m", "1", ALL).count(place, whole)
        edge.pane(TABLES, "m", "1", SEGMENT).count(place[place % 2 == 0], whole)
        if restored:
            edge = decode_edge(encode_edge(edge), lambda _: TABLES)
    return edge


def pane(edge: EdgeState, segment: str = ALL) -> PaneState:
    return edge.panes["m", "1", segment]


@settings(max_examples=200, deadline=None)
@given(rows())
def test_late_registers_are_those_of_all_values_in_any_batching_and_through_snapshots(drawn: Rows) -> None:
    whole = counted(drawn, [])
    expected = eager(drawn)
    tracked = [i for i, column in enumerate(COLUMNS) if column < len(TARGETS)]
    wanted = {place: row.tolist() for place, row in zip(tracked, expected, strict=True) if row.any()}
    for edge in (whole, counted(drawn, drawn.cuts), counted(drawn, drawn.cuts, restored=True)):
        np.testing.assert_array_equal(pane(edge).all_registers(), expected)
        for record in encode_pane(pane(edge).to_pane(0, 0)):
            sent = decode_record(record)
            assert {place: row.tolist() for place, row in sent.distinct.by_target().items()} == wanted  # type: ignore[union-attr]
        assert encode_edge(edge) == encode_edge(whole)
        assert pane(edge, SEGMENT).to_pane(0, 0).distinct.width == len(pane(edge, SEGMENT).registers) == 0
    assert np.flatnonzero(pane(whole).register_row >= 0).tolist() == apart(drawn)
    assert len(pane(whole).registers) == len(apart(drawn))


@settings(max_examples=60, deadline=None)
@given(rows())
def test_a_snapshot_holds_the_registers_of_all_values_as_it_always_did(drawn: Rows) -> None:
    data = encode_edge(counted(drawn, drawn.cuts))
    stored = container.decode(data)
    before = sparse("registers", eager(drawn).reshape(-1))
    sections = {name: part for name, part in stored.sections.items() if not name.startswith("registers")}
    assert container.encode(stored.kind, stored.version, stored.header, sections | before) == data
    flat = {"registers": eager(drawn).reshape(-1)}  # as a blob of many values has them
    again = decode_edge(container.encode(stored.kind, stored.version, stored.header, sections | flat), lambda _: TABLES)
    assert encode_edge(again) == data
    assert len(pane(again).registers) <= len(apart(drawn))


def test_registers_of_a_snapshot_that_do_not_fit_its_panes_are_refused() -> None:
    stored = container.decode(
        encode_edge(counted(Rows(HASHES[:12].reshape(2, 6), np.full((2, 6), 2, np.uint8), []), []))
    )
    size = len(TARGETS) * REGISTERS
    for at in ([size], [5, 4], [5, 5]):
        bad = {"registers": np.ones(len(at), np.uint8), "registers_at": np.array(at, np.uint32)}
        with pytest.raises(Malformed, match="registers"):
            decode_edge(container.encode(stored.kind, 1, stored.header, stored.sections | bad), lambda _: TABLES)
    short = {name: part for name, part in stored.sections.items() if name != "registers_at"}
    with pytest.raises(Malformed, match="registers"):
        decode_edge(container.encode(stored.kind, 1, stored.header, short), lambda _: TABLES)


@pytest.mark.parametrize("cuts", [[], [65_535], [65_534, 65_536], [30_000, 69_000]])
@pytest.mark.parametrize("restored", [False, True])
def test_counts_that_outgrow_16_bits_are_exact(cuts: list[int], restored: bool) -> None:
    n = 70_000
    value = np.repeat(HASHES[:1], n * 6).reshape(n, 6)
    tag = np.full((n, 6), Tag.TEXT, np.uint8)
    tag[:, 1] = Tag.MISSING
    edge = counted(Rows(value, tag, []), cuts, restored=restored)
    state = pane(edge)
    assert (state.bins.dtype, pane(edge, SEGMENT).bins.dtype) == (np.int32, np.uint16)
    first = TABLES.bin_start[0]
    assert state.bins[first] == n
    assert state.tally[:, 0].tolist() == [0, 0, n, 0, 0, 0]
    assert pane(edge, SEGMENT).bins[first] == n // 2


# -- rows of some targets


@st.composite
def planes(draw: st.DrawFn, targets: int = 6) -> U8:
    """Registers of every target, as they were once kept: U8[targets, 8], or of none."""
    g = np.random.default_rng(draw(st.integers(0, 1 << 20)))
    width = draw(st.sampled_from([8, 8, 0]))
    values = g.integers(0, 5, (targets, width)) * (g.random((targets, 1)) < draw(st.sampled_from([0.0, 0.4, 1.0])))
    return values.astype(np.uint8)


def of(plane: U8) -> Registers:
    return Registers.of(np.arange(len(plane)), plane)


def plain(found: Registers, targets: int, width: int) -> list[Any]:
    assert found.rows.any(axis=1).all()
    assert (np.diff(found.targets) > 0).all()
    assert found.width in (width, 0)
    whole = np.zeros((targets, width), np.uint8)
    whole[found.targets] = found.rows if found.width else 0
    return whole.tolist()


@settings(max_examples=200, deadline=None)
@given(planes(), planes(), planes())
def test_the_union_is_the_maximum_whichever_targets_have_rows(a: U8, b: U8, c: U8) -> None:
    width = max(a.shape[1], b.shape[1], c.shape[1])
    wide = [plane if plane.shape[1] else np.zeros((6, width), np.uint8) for plane in (a, b, c)]
    left, right = of(a).union(of(b)).union(of(c)), of(c).union(of(b).union(of(a)))
    assert plain(left, 6, width) == plain(right, 6, width) == np.max(wide, axis=0).tolist()
    assert plain(left.union(left), 6, width) == plain(left, 6, width)
    assert left.width == width


@given(planes(), st.lists(st.integers(0, 5), max_size=6, unique=True), st.lists(st.integers(0, 6), max_size=3))
def test_selection_and_blocks_are_those_of_the_whole(plane: U8, targets: list[int], cuts: list[int]) -> None:
    chosen = np.array(targets, np.int64)
    assert plain(of(plane).select(chosen), len(chosen), plane.shape[1]) == plane[chosen].tolist()
    bounds = [0, *sorted(cuts), 6]
    parts = [of(plane).between(first, stop) for first, stop in pairwise(bounds)]
    joined = Registers.joined(parts, np.diff(bounds).tolist())
    assert plain(joined, 6, plane.shape[1]) == plane.tolist()


def tally(plane: U8) -> Tally:
    zeros = np.zeros((6, 2))
    counts = np.arange(18)
    return Tally(tuple("abcdef"), 3, np.arange(0, 19, 3), counts, zeros, zeros.copy(), np.zeros(6, np.int64), of(plane))


@given(planes(), planes(), st.booleans())
def test_tallies_add_copy_and_keep_registers_without_sharing_what_is_written(a: U8, b: U8, old: bool) -> None:
    first, second = tally(a), tally(b)
    width = max(a.shape[1], b.shape[1])
    kept = first.copy()
    header, sections = first.to_sections("t.")
    if old:  # the form of the first version: a row for every target, nothing in the header
        header = {name: header[name] for name in ("names", "events")}
        sections.pop("t.distinct_at", None)
        sections["t.distinct"] = a
    stored = container.decode(container.encode("t", 1, header, sections))
    loaded = Tally.from_sections(stored.header, stored.sections, "t.")
    for each in (first, loaded):
        each.add(second)
        wide = [plane if plane.shape[1] else np.zeros((6, width), np.uint8) for plane in (a, b)]
        assert plain(each.distinct, 6, width) == np.max(wide, axis=0).tolist()
    assert plain(kept.distinct, 6, a.shape[1]) == a.tolist()
    assert plain(second.distinct, 6, b.shape[1]) == b.tolist()
    assert not len(first.empty().distinct.targets)
    assert not len(first.remembered().distinct.targets)
    assert dense("t.distinct", second.to_sections("t.")[1], second.distinct.rows.size).sum() == b.sum()
