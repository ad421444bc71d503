from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import container, panes
from stream.limits import RECORD_BYTES_MAX
from stream.panes import Announcement, BlockMismatchError, Marker, Pane, PaneTooLargeError, Sample
from stream.registers import Registers


def make(targets: int, width: int, registers: int, rows: int | None, seed: int, scale: int = 300) -> Pane:
    g = np.random.default_rng(seed)
    widths = g.integers(0, width + 1, targets)
    start = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
    bins = (g.integers(0, scale, start[-1]) * (g.random(start[-1]) < g.random())).astype(np.int64)
    distinct = np.zeros((targets, registers), np.uint8)
    tracked = g.random(targets) < 0.4
    distinct[tracked] = g.integers(0, 50, (tracked.sum(), registers)) * (
        g.random((tracked.sum(), registers)) < g.random()
    )
    sample = None
    if rows is not None:
        shape = (rows, targets)
        sample = Sample(
            np.sort(g.integers(0, 1 << 63, rows).astype(np.uint64)),
            g.integers(0, 1 << 63, shape).astype(np.uint64),
            g.integers(0, 5, shape).astype(np.uint8),
        )
    return Pane(
        partition=3, edge_ms=-60_000, model="fraud", version="7", segment="all", plan="p", reference="r",
        events=int(bins.sum()), names=tuple(f"f{i}" for i in range(targets)), first_target=0, last_block=True,
        bin_start=start, bins=bins, sums=g.normal(size=(targets, 2)),
        extremes=np.where(g.random((targets, 2)) < 0.2, np.nan, g.normal(size=(targets, 2))),
        missing=g.integers(0, scale, targets), invalid=g.integers(0, scale, targets),
        out_of_range=g.integers(0, scale, targets), distinct=Registers.of(np.arange(targets), distinct), sample=sample,
    )  # fmt: skip


def same(a: Pane, b: Pane) -> None:
    for field in fields(Pane):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype, field.name
            assert x.shape == y.shape, field.name
            np.testing.assert_array_equal(x, y, field.name)
        elif isinstance(x, Sample | Registers):
            for part in ("hash", "cell", "tag") if isinstance(x, Sample) else ("targets", "rows"):
                np.testing.assert_array_equal(getattr(x, part), getattr(y, part))
        else:
            assert x == y, field.name


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 12),
    st.integers(0, 90),
    st.sampled_from([0, 64, 2048]),
    st.none() | st.integers(0, 9),
    st.sampled_from([2, 300, 70_000, 1 << 33]),
    st.integers(0, 999),
)
def test_round_trip(targets: int, width: int, registers: int, rows: int | None, scale: int, seed: int) -> None:
    pane = make(targets, width, registers, rows, seed, scale)
    records = panes.encode_pane(pane)
    assert records == panes.encode_pane(pane)
    same(panes.merge_blocks([panes.decode_record(r) for r in records]), pane)  # type: ignore[misc]


def test_large_panes_become_blocks_below_the_limit() -> None:
    pane = make(300, 900, 2048, 1500, 1, 1 << 33)
    records = panes.encode_pane(pane)
    assert len(records) > 4
    assert max(map(len, records)) < RECORD_BYTES_MAX
    blocks = [panes.decode_record(r) for r in records]
    assert [b.last_block for b in blocks] == [False] * (len(blocks) - 1) + [True]
    assert all(b.events == pane.events for b in blocks)
    same(panes.merge_blocks(blocks), pane)
    for wrong in (blocks[:-1], blocks[1:], [blocks[0], blocks[2]], [blocks[0], replace(blocks[1], version="8")]):
        with pytest.raises(BlockMismatchError):
            panes.merge_blocks(wrong)


def test_many_long_names_are_split_with_their_targets() -> None:
    pane = replace(make(20_000, 1, 0, None, 2), names=tuple(f"{'é' * 60}{i}" for i in range(20_000)))
    records = panes.encode_pane(pane)
    assert max(map(len, records)) < RECORD_BYTES_MAX
    same(panes.merge_blocks([panes.decode_record(r) for r in records]), pane)


def test_a_target_that_cannot_fit_is_named() -> None:
    pane = make(1, 0, 0, None, 1)
    wide = replace(pane, bin_start=np.array([0, 200_000]), bins=np.full(200_000, 1 << 40))
    with pytest.raises(PaneTooLargeError, match="target 'f0'"):
        panes.encode_pane(wide)


def test_sparse_panes_are_small() -> None:
    pane = make(20, 80, 2048, None, 4)
    pane.bins[:] = 0
    pane.bins[::90] = 1
    rows = np.zeros((4, 2048), np.uint8)
    rows[:, 100] = 3
    pane = replace(pane, distinct=Registers(np.arange(1, 5), rows))
    assert len(panes.encode_pane(pane)[0]) < 1500


def test_marker_and_announcement() -> None:
    marker = Marker(
        2, panes.INPUTS, panes.EDGE_END, {"predictions": 9}, {"consumed": 9}, {"m": "h"}, panes.EDGE_MIN, True
    )
    assert panes.decode_record(panes.encode_marker(marker)) == marker
    assert panes.decode_record(panes.encode_announcement(Announcement(5))) == Announcement(5)


def test_foreign_records_are_refused_by_name() -> None:
    with pytest.raises(container.WrongKind, match="'meta', expected 'pane'"):
        panes.decode_record(container.encode("meta", 1, {}, {}))
    with pytest.raises(container.UnknownVersion, match="marker version 2"):
        panes.decode_record(container.encode("marker", 2, {}, {}))
    good = container.decode(panes.encode_pane(make(2, 5, 0, None, 1))[0])
    with pytest.raises(container.UnknownSection, match="unknown section 'extra'"):
        panes.decode_record(container.encode("pane", 1, good.header, {**good.sections, "extra": np.zeros(1)}))
    with pytest.raises(container.Malformed):
        panes.decode_record(container.encode("pane", 1, good.header, {**good.sections, "bins": np.zeros(99, np.uint8)}))
