"""The collector by hand-computed numbers: time, closing, rejects, plans, layouts, limits, refusals."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import xxhash

from detectors.binning import Binning, Kind
from stream import container
from stream.collector import Collector, LayoutMismatchError
from stream.collector_state import ResolutionChangedError
from stream.columns import Columns, Records, Tag
from stream.pane_state import COUNT_DTYPES, PlanInvalidError, count_dtype
from stream.panes import EDGE_END, EDGE_MIN, Marker, Pane, decode_record
from stream.plan import CollectorPlan, ModelPlan, Role, SegmentPlan, TargetPlan
from stream.plan_book import UnknownPlanError
from stream.plan_codec import decode_plan, encode_plan, plan_hash, sealed
from stream.stage import Decision

CUTS = np.array([0.0, 1.0, 2.0])


def hashed(*texts: str) -> np.ndarray:
    return np.array([xxhash.xxh3_64_intdigest(t.encode()) for t in texts], np.uint64)


def numeric(cuts: np.ndarray = CUTS, **changes: object) -> Binning:
    whole = Binning(Kind.NUMERIC, cuts, (0, len(cuts)), 0.5, -1.0, 3.0, hashed(), np.empty(0, np.int32), ())
    return replace(whole, **changes)


def categorical(*labels: str, **changes: object) -> Binning:
    order = np.argsort(hashed(*labels))
    names = (*labels, "__other__", "__unseen__")
    whole = Binning(
        Kind.CATEGORICAL, np.empty(0), (0, 0), 0.0, 0.0, 0.0, hashed(*labels)[order], order.astype(np.int32), names
    )
    return replace(whole, **changes)


def model(name: str = "fraud", **changes: object) -> ModelPlan:
    targets = (
        TargetPlan("amount", Role.FEATURE, 0, numeric()),
        TargetPlan("country", Role.FEATURE, 1, categorical("DE", "FR")),
    )
    return replace(ModelPlan(name, "ref", targets), **changes)


def collector(*models: ModelPlan, partition: int = 0, **rules: object) -> Collector:
    plan = CollectorPlan(models or (model(),), resolution_ms=100, lateness_ms=50, max_future_skew_ms=1_000)
    return Collector(
        partition, replace(plan, **rules), monitors=2, topic="predictions", config_hash="c", app_version="1"
    )


def events(times: list[int], first: int = 0, **parts: object) -> Columns:
    """One event per time; amount 0.5, country DE."""
    n = len(times)
    cell = np.empty((n, 2), np.uint64)
    cell[:, 0] = np.float64(0.5).view(np.uint64)
    cell[:, 1] = hashed("DE")
    whole = Columns(
        next_offset=first + n,
        offset=np.arange(first, first + n),
        row=np.zeros(n, np.int32),
        event_time_ms=np.array(times, np.int64),
        record_time_ms=np.array(times, np.int64),
        id_high=np.arange(first, first + n).astype(np.uint64) << np.uint64(32),
        id_low=np.zeros(n, np.uint32),
        model=np.zeros(n, np.int32),
        version=np.zeros(n, np.uint64),
        cell=cell,
        tag=np.tile(np.array([Tag.NUMBER, Tag.TEXT], np.uint8), (n, 1)),
    )
    return replace(whole, **parts)


def sent(state: Collector) -> list[Pane | Marker]:
    """Panes, and markers once."""
    bodies = [
        decode_record(o.value) for o in state.outbox if (o.topic == "panes" and o.partition == 0) or not o.barrier
    ]  # type: ignore[arg-type]
    state.outbox.clear()
    return bodies  # type: ignore[return-value]


def tick(state: Collector, until_ms: int) -> None:
    state.decide(Decision(1, "tick", {"predictions": state.next_offset}, {"until_ms": until_ms}))


def test_a_pane_closes_on_the_record_that_lifts_the_watermark_to_its_end() -> None:
    state = collector()
    state.apply("predictions", events([10, 30, 149, 150, 120]))
    first, passed, pane, second = sent(state)
    assert isinstance(first, Marker)
    assert passed.edge_ms == 0
    assert (first.edge_ms, first.largest_ms, first.next_offset) == (-100, 10, {"predictions": 1})
    assert isinstance(pane, Pane)
    assert (pane.edge_ms, pane.events, pane.model, pane.version, pane.segment) == (0, 2, "fraud", "", "all")
    assert pane.bins.tolist() == [0, 2, 0, 0, 2, 0, 0, 0]
    assert pane.sums[0].tolist() == [0.0, 0.0]
    assert pane.extremes[0].tolist() == [0.5, 0.5]
    assert np.isnan(pane.extremes[1]).all()
    assert isinstance(second, Marker)
    assert (second.edge_ms, second.largest_ms, second.next_offset) == (100, 150, {"predictions": 4})
    assert second.counters["applied"] == second.counters["consumed"] == 4


def test_late_is_judged_against_the_log_not_against_the_panes() -> None:
    state = collector()
    state.apply("predictions", events([190, 139, 140, 190]))
    counters = state.accounting()
    assert (counters.late, counters.applied) == (1, 3)
    tick(state, 175)  # closes nothing, and judges stragglers all the same
    state.apply("predictions", events([174, 175], first=4))
    assert state.accounting().late == 2


def test_an_advance_over_many_empty_edges_gives_one_marker_to_every_monitor() -> None:
    state = collector()
    state.apply("predictions", events([0, 10_000_000]))
    assert [o.partition for o in state.outbox if o.barrier] == [0, 1, 0, 1]
    assert [b.edge_ms for b in sent(state)] == [-100, 0, 9_999_900]


def test_ticks_close_mark_and_end() -> None:
    state = collector()
    state.apply("predictions", events([10]))
    state.outbox.clear()
    tick(state, 99)
    marker = sent(state)[-1]
    assert isinstance(marker, Marker)
    assert (marker.edge_ms, marker.idle) == (0, True)
    tick(state, 90)
    assert sent(state) == []
    tick(state, EDGE_END)
    pane, marker = sent(state)
    assert (pane.edge_ms, marker.edge_ms) == (0, EDGE_END)
    assert isinstance(marker, Marker)
    assert not marker.idle
    state.apply("predictions", events([1 << 40], first=1))
    assert state.accounting().late == 1


def test_a_future_event_is_a_dead_letter_with_its_bytes_and_moves_nothing() -> None:
    text = b"key-value!"
    records = Records(
        buffer=np.frombuffer(text, np.uint8),
        offset=np.array([7, 8]),
        timestamp_ms=np.array([100, 100]),
        key_start=np.array([0, 0]),
        key_length=np.array([3, -1]),
        value_start=np.array([4, 4]),
        value_length=np.array([6, 6]),
        next_offset=9,
    )
    part = events([1_101, 1_100], first=7, record_time_ms=np.array([100, 100]), records=records)
    state = collector(partition=3)
    state.apply("predictions", part)
    letter = state.outbox[0]
    assert (letter.topic, letter.partition, letter.key, letter.value) == ("dead-letters", 3, b"key", b"value!")
    assert dict(letter.headers)["dlq.reason"] == b"future_timestamp"
    counters = state.accounting()
    assert (counters.dead_letters, counters.applied, counters.reasons) == (1, 1, {"future_timestamp": 1})
    assert state.largest_ms == 1_100


def test_bools_and_numbers_are_categories_by_their_text_and_no_numbers() -> None:
    state = collector(
        model(targets=(model().targets[0], replace(model().targets[1], binning=categorical("7", "true"))))
    )
    part = events([1, 2, 3, 4])
    part.cell[:, 1] = [np.float64(7.0).view(np.uint64), 1, 0, np.float64(7.5).view(np.uint64)]
    part.tag[:, 1] = [Tag.NUMBER, Tag.BOOL, Tag.BOOL, Tag.NUMBER]
    part.tag[:, 0] = [Tag.BOOL, Tag.TEXT, Tag.INVALID, Tag.MISSING]
    state.apply("predictions", part)
    tick(state, EDGE_END)
    pane = sent(state)[1]
    assert isinstance(pane, Pane)
    assert pane.bins.tolist() == [0, 0, 0, 0, 1, 1, 0, 2]
    assert (pane.invalid.tolist(), pane.missing.tolist()) == ([3, 0], [1, 0])
    assert np.count_nonzero(pane.distinct.by_target()[1]) == 4


def test_versions_beyond_the_limit_are_counted_together() -> None:
    names = {int(hashed(v)[0]): v for v in ("a", "b", "c", "__other__")}
    part = events([1, 2, 3, 4, 5], version=hashed("b", "a", "c", "b", "__other__"), version_names=names)
    state = collector(versions_max=2)
    state.apply("predictions", part)
    tick(state, EDGE_END)
    assert [(p.version, p.events) for p in sent(state) if isinstance(p, Pane)] == [("__other__", 2), ("a", 1), ("b", 2)]


def test_segments_come_in_the_order_of_the_plan_and_add_up() -> None:
    segment = SegmentPlan("country", 1, ("FR", "DE"), hashed("FR", "DE"))
    state = collector(model(segments=(segment,)))
    part = events([1, 2, 3, 4])
    part.cell[:2, 1] = hashed("FR", "IT")
    part.tag[3, 1] = Tag.MISSING
    state.apply("predictions", part)
    tick(state, EDGE_END)
    panes = [p for p in sent(state) if isinstance(p, Pane)]
    assert [(p.segment, p.events) for p in panes] == [
        ("all", 4), ("country=FR", 1), ("country=DE", 1), ("country=__other__", 2)
    ]  # fmt: skip
    assert [p.distinct.width for p in panes] == [2048, 0, 0, 0]


def test_a_plan_is_in_force_from_the_first_edge_that_no_pane_has_reached() -> None:
    state = collector(lateness_ms=1_000)
    new = sealed(model(targets=model().targets[:1]))
    assert state.next_plan_edge("fraud") == EDGE_MIN
    state.apply("predictions", events([10, 250]))
    state.offer(new)
    assert state.next_plan_edge("fraud") == 300
    state.decide(Decision(1, "plan", {}, {"model": "fraud", "plan": new.hash}))
    state.apply("predictions", events([150, 299, 300], first=2))
    tick(state, EDGE_END)
    panes = [p for p in sent(state) if isinstance(p, Pane)]
    assert [(p.edge_ms, p.plan == new.hash) for p in panes] == [(0, False), (100, False), (200, False), (300, True)]
    with pytest.raises(UnknownPlanError, match="offer it first"):
        state.decide(Decision(2, "plan", {}, {"model": "fraud", "plan": "nothing"}))
    with pytest.raises(UnknownPlanError, match="of model 'fraud', not 'other'"):
        state.decide(Decision(2, "plan", {}, {"model": "other", "plan": new.hash}))


def test_plans_survive_as_bytes_and_are_named_by_what_they_count() -> None:
    plan = sealed(model(segments=(SegmentPlan("country", 1, ("FR",), hashed("FR")),), sample_rows=3))
    again = decode_plan(encode_plan(plan))
    assert again.hash == plan.hash == plan_hash(again)
    assert encode_plan(again) == encode_plan(plan)
    assert {t.column for t in again.targets} == {-1}
    moved = replace(plan, targets=tuple(replace(t, column=t.column + 5) for t in plan.targets))
    assert plan_hash(moved) == plan.hash
    assert plan_hash(replace(plan, reference="other")) != plan.hash


def test_a_restored_plan_reads_the_columns_of_the_running_layout() -> None:
    old = collector()
    old.apply("predictions", events([10]))
    turned = model(targets=tuple(replace(t, column=1 - t.column) for t in model().targets))
    new = collector(turned)
    new.load(old.full_blobs())
    part = events([20], first=1)
    new.apply("predictions", replace(part, cell=part.cell[:, ::-1], tag=part.tag[:, ::-1]))
    tick(new, EDGE_END)
    pane = next(p for p in sent(new) if isinstance(p, Pane))
    assert pane.bins.tolist() == [0, 2, 0, 0, 2, 0, 0, 0]
    without = collector(model(targets=turned.targets[:1]))
    without.load(old.full_blobs())
    without.apply("predictions", events([20], first=1))
    assert [p.tally.tolist() for p in without.edges[0].panes.values()] == [
        [[0, 1, 0], [0, 0, 0]]
    ]  # not read, not missing


@pytest.mark.parametrize("narrow", [0, 1])
def test_counts_beyond_16_and_32_bits_are_exact(narrow: int) -> None:
    most = np.iinfo(COUNT_DTYPES[narrow]).max
    state = collector()
    state.apply("predictions", events([10, 20]))
    pane = next(iter(state.edges[0].panes.values()))
    pane.bins, pane.tally = (counts.astype(COUNT_DTYPES[narrow]) for counts in (pane.bins, pane.tally))
    pane.events = pane.bins[1] = pane.tally[0, 0] = most
    before = collector()
    before.load(state.full_blobs())
    kept = next(iter(before.edges[0].panes.values()))
    assert kept.bins.dtype == kept.tally.dtype == count_dtype(most) == COUNT_DTYPES[narrow]
    state.apply("predictions", events([30, 40], first=2))
    again = collector()
    again.load(state.full_blobs())
    assert again.full_blobs() == state.full_blobs()
    tick(again, EDGE_END)
    closed = next(p for p in sent(again) if isinstance(p, Pane))
    assert closed.events == closed.bins[1] == most + 2
    assert closed.missing[0] == most


def test_thousands_of_edges_in_one_chunk_stay_within_bounds() -> None:
    state = collector()
    state.apply("predictions", events(list(range(0, 300_000, 100))))
    panes = [b for b in sent(state) if isinstance(b, Pane)]
    assert [p.edge_ms for p in panes] == list(range(0, 299_800, 100))
    assert len(state.edges) == 2
    assert state.memory_bytes() < 60_000


def test_memory_is_stated_honestly() -> None:
    wide = model(targets=tuple(replace(model().targets[i % 2], name=f"t{i}") for i in range(60)))
    state = collector(wide)
    state.apply("predictions", events([10]))  # compiles
    tracemalloc.start()
    try:
        before, stated = tracemalloc.get_traced_memory()[0], state.memory_bytes()
        for i in range(40):
            part = events([150 + i % 100] * 200, first=1 + 200 * i)
            state.apply("predictions", replace(part, model=np.full(200, 0, np.int32)))
        state.outbox.clear()
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.5 < (state.memory_bytes() - stated) / used < 2.0


def test_only_what_changed_is_saved() -> None:
    state = collector()
    state.apply("predictions", events([10, 20]))
    assert sorted(state.changed_blobs()) == ["ids/0/0", "meta", "pane/0", f"plan/{sealed(model()).hash}"]
    state.apply("predictions", events([30], first=2))
    blobs = state.changed_blobs()
    assert sorted(blobs) == ["ids/0/1", "meta", "pane/0"]
    assert len(container.decode(blobs["ids/0/1"] or b"").sections["high"]) == 1
    state.apply("predictions", events([130], first=3))
    assert sorted(state.changed_blobs()) == ["ids/100/0", "meta", "pane/100"]
    tick(state, 200)
    gone = state.changed_blobs()
    assert {name for name, blob in gone.items() if blob is None} == {
        "ids/0/0",
        "ids/0/1",
        "ids/100/0",
        "pane/0",
        "pane/100",
    }
    assert state.changed_blobs() == {}


def test_foreign_missing_and_damaged_blobs_are_refused_by_name() -> None:
    state = collector()
    state.apply("predictions", events([10, 20]))
    blobs = state.full_blobs()
    with pytest.raises(container.UnknownSection, match="unknown section 'more'"):
        collector().load({**blobs, "more": b""})
    with pytest.raises(container.UnknownSection, match="missing section 'ids/0/0'"):
        collector().load({n: b for n, b in blobs.items() if not n.startswith("ids")})
    with pytest.raises(container.BadChecksum):
        collector().load({**blobs, "pane/0": blobs["pane/0"][:-1]})
    with pytest.raises(container.UnknownVersion, match="collector version 2"):
        collector().load({**blobs, "meta": container.encode("collector", 2, {}, {})})
    with pytest.raises(ResolutionChangedError, match="100 ms, the configuration says 60 ms"):
        collector(resolution_ms=60).load(blobs)


@pytest.mark.parametrize(
    ("binning", "problem"),
    [
        (numeric(np.array([1.0, 1.0])), "not finite and increasing"),
        (numeric(np.array([1.0, np.nan])), "not finite and increasing"),
        (numeric(centre=np.inf), "no finite centre"),
        (categorical("a", code=np.array([9], np.int32)), "outside its 3 bins"),
        (categorical("a", labels=()), "no bins"),
        (categorical("a", "b", code=np.zeros(1, np.int32)), "not as many as codes"),
    ],
)
def test_a_plan_that_would_write_outside_its_bins_is_refused(binning: Binning, problem: str) -> None:
    with pytest.raises(PlanInvalidError, match=problem):
        collector(model(targets=(TargetPlan("amount", Role.FEATURE, 0, binning),)))


def test_what_a_collector_does_not_know_is_refused() -> None:
    state = collector()
    with pytest.raises(ValueError, match="reads predictions, not 'clicks'"):
        state.apply("clicks", events([1]))
    with pytest.raises(ValueError, match="no decision 'other'"):
        state.decide(Decision(1, "other", {}, {}))
    part = events([1])
    with pytest.raises(LayoutMismatchError, match="column 1, the chunk has 1"):
        state.apply("predictions", replace(part, cell=part.cell[:, :1], tag=part.tag[:, :1]))
