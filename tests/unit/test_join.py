"""Feedback that is late, repeated, unknown, contradictory, retracted or absurd: each has its counter. And the join's caps."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from join_oracle import END, Event

from stream.container import ContainerError
from stream.join import CARRIED, Join, JoinPlan, JoinPlanError, Matured
from stream.join_feedback import ABSURD, NEGATIVE, Feedback, FeedbackKind, FeedbackStream
from stream.join_groups import NO_GROUP, Group
from stream.join_index import Predictions, narrowed, widened
from stream.kernels.join_table import REUSES_MAX
from stream.kernels.timeline import APPLIED, FUTURE, LATE

RESOLUTION, HORIZON = 10, 50
GROUP = Group("m", "1", ("country=DE",))
PLAN = JoinPlan(
    RESOLUTION,
    (
        FeedbackStream("clicks", FeedbackKind.CLICK, (HORIZON,), 0),
        FeedbackStream("conversions", FeedbackKind.CONVERSION, (HORIZON, 2 * HORIZON), 0, 0.0, 1e6),
        FeedbackStream("labels", FeedbackKind.LABEL, (HORIZON, 2 * HORIZON), 0),
    ),
    max_future_skew_ms=1_000,
    rows_max=16,
    waiting_max=100,
    chunk_rows=8,
)


def predictions(join: Join, rows: list[tuple[int, int]], watermark_ms: int) -> None:
    """Rows of (time, id)."""
    n, time, ident = len(rows), [row[0] for row in rows], [row[1] for row in rows]
    code = join.group_code(GROUP)
    join.add_predictions(
        Predictions(
            np.array(time, np.int64), np.array(ident, np.uint64), np.zeros(n, np.uint32), np.full((n, 1), 0.5), np.ones(n),
            np.full(n, code, np.uint32),
        ),
        watermark_ms,
    )  # fmt: skip


def feedback(join: Join, stream: str, events: list[Event]) -> list[int]:
    n = len(events)
    codes = [NO_GROUP if e.carries is None else place for place, e in enumerate(events)]
    groups = tuple(GROUP if e.carries is None else e.carries[0] for e in events)
    carried = [(0.0, 0.0) if e.carries is None else e.carries[1:] for e in events]
    status = join.add_feedback(
        stream,
        Feedback(
            np.array([e.time for e in events], np.int64), np.array([e.record_time for e in events], np.int64),
            np.array([e.id for e in events], np.uint64), np.zeros(n, np.uint32), np.array([e.value for e in events]),
            np.array([e.retracts for e in events], bool), np.array(codes, np.uint32),
            np.array([c[0] for c in carried]), np.array([[c[1]] for c in carried]).reshape(-1, 1), groups,
        ),
    )  # fmt: skip
    found: list[int] = status.tolist()
    return found


def finished(join: Join) -> dict[tuple[str, int, int], Matured]:
    """All panes, at the end of time."""
    panes: dict[tuple[str, int, int], Matured] = {}
    predictions(join, [], END)
    for stream in join.streams:
        join.tick(stream, END)
    join.advance(lambda m: panes.update({(m.stream, m.horizon_ms, m.edge_ms): m}))
    return panes


def counted(join: Join, stream: str) -> dict[str, int]:
    """The counters that are not zero, `consumed` left out."""
    return {name: n for name, n in asdict(join.streams[stream].counters).items() if n and name != "consumed"}


def joined(stream: str, events: list[Event], horizon: int = HORIZON) -> tuple[dict[str, int], list[Any]]:
    """Counters and outcomes (None = not observed) of predictions 1, 2 at times 3, 4 and of `events`."""
    join = Join(PLAN)
    feedback(join, stream, events)
    predictions(join, [(3, 1), (4, 2)], 5)
    pane = finished(join)[stream, horizon, 0]
    return counted(join, stream), [v if o else None for v, o in zip(pane.outcome.tolist(), pane.observed, strict=True)]


def test_a_click_counts_once_though_a_thousand_come() -> None:
    assert joined("clicks", [Event(5, 1, 0.0)] * 1_000 + [Event(6, 1, 0.0)]) == (
        {"overflow": 901, "matched": 1, "duplicate": 99},
        [1.0, None],
    )


def test_feedback_of_an_unknown_id_is_an_orphan_and_so_is_what_comes_after_the_last_horizon() -> None:
    assert joined("clicks", [Event(5, 9, 0.0), Event(3 + HORIZON - 1, 1, 0.0), Event(4 + HORIZON, 2, 0.0)]) == (
        {"orphan": 2, "matched": 1},
        [1.0, None],
    )


def test_feedback_before_its_prediction_is_counted_apart_within_its_slice() -> None:
    assert joined("labels", [Event(-1, 1, 1.0), Event(2, 1, 1.0)]) == (
        {"orphan": 1, "before_prediction": 1},
        [None, None],
    )


def test_the_last_label_counts_and_the_one_before_was_contradicted() -> None:
    assert joined("labels", [Event(5, 1, 1.0), Event(5, 1, 0.0), Event(7, 1, 0.0)]) == (
        {"matched": 1, "contradictory": 1, "duplicate": 1},
        [0.0, None],
    )


def test_a_retraction_takes_back_and_after_a_final_horizon_is_a_revision() -> None:
    early = [Event(5, 1, 1.0), Event(6, 1, np.nan, retracts=True), Event(8, 2, 1.0)]
    assert joined("labels", early) == ({"matched": 2, "retracted": 1}, [None, 1.0])
    late = [Event(5, 1, 1.0), Event(3 + HORIZON, 1, np.nan, retracts=True)]
    assert joined("labels", late) == ({"matched": 1, "retracted": 1, "revised": 1}, [1.0, None])
    assert joined("labels", late, 2 * HORIZON) == ({"matched": 1, "retracted": 1, "revised": 1}, [None, None])


def test_a_retraction_of_nothing_changes_nothing() -> None:
    assert joined("labels", [Event(5, 1, np.nan, retracts=True), Event(5, 9, np.nan, retracts=True)]) == (
        {"duplicate": 1, "orphan": 1},
        [None, None],
    )


def test_conversions_of_other_times_add_up() -> None:
    events = [Event(5, 1, 2.0), Event(5, 1, 2.0), Event(5, 1, 7.0), Event(6, 1, 3.0)]
    assert joined("conversions", events) == ({"matched": 2, "duplicate": 1, "contradictory": 1}, [5.0, None])


def test_what_is_refused_on_arrival_says_why() -> None:
    join = Join(PLAN)
    events = [
        Event(50, 1, 2.0), Event(49, 1, 2.0), Event(51, 1, -2.0), Event(51, 1, 1e18), Event(51, 1, np.inf),
        Event(51, 1, np.nan), Event(51, 1, np.nan, retracts=True), Event(5_000, 1, 2.0, record_time=60),
    ]  # fmt: skip
    wanted = [APPLIED, LATE, NEGATIVE, ABSURD, ABSURD, ABSURD, APPLIED, FUTURE]
    assert feedback(join, "conversions", events) == wanted
    assert counted(join, "conversions") == {"late": 1, "future": 1, "negative": 1, "absurd": 3}
    assert join.streams["conversions"].waiting == 2


def test_a_label_after_a_year_brings_its_prediction() -> None:
    join = Join(PLAN)
    predictions(join, [(3, 1)], 5)
    context = (GROUP, 1.0, 0.7)
    feedback(
        join, "labels", [Event(31_536_000_000, 1, 0.0, carries=context), Event(31_536_000_004, 1, 1.0, carries=context)]
    )
    panes = finished(join)
    pane = panes["labels", CARRIED, 31_536_000_000]
    assert (pane.outcome.tolist(), pane.predicted.tolist(), pane.score.tolist()) == ([1.0], [1.0], [[0.7]])
    assert [group for group, _ in pane.parts()] == [GROUP]
    assert counted(join, "labels") == {"carried": 1, "duplicate": 1}


def test_a_stream_that_stalls_costs_memory_up_to_the_cap_and_its_own_panes() -> None:
    join, panes = Join(PLAN), []
    for minute in range(200):
        time = 10 * minute
        predictions(join, [(time + 1, minute), (time + 2, 1_000 + minute)], time + 10)
        feedback(join, "clicks", [Event(time + 5, minute, 0.0), Event(time + 9, -1 % 2**64, 0.0)])
        join.tick("clicks", time + 10)
        join.tick("conversions", time + 10)
        join.advance(panes.append)
        assert len(join.index) <= PLAN.rows_max
    clicks = [m for m in panes if m.stream == "clicks"]
    assert len(clicks) == 200 - HORIZON // RESOLUTION
    assert all(m.observed.tolist() == [True, False] and not m.incomplete for m in clicks)
    assert not [m for m in panes if m.stream == "labels"]
    held = len(join.index)
    assert join.evicted == 400 - held
    whole = [m for m in finished(join).values() if m.stream == "labels"]
    assert sum(map(len, whole)) == 2 * held  # at two horizons
    assert not any(m.incomplete for m in whole)  # what went, went with whole panes here


def test_a_pane_that_lost_rows_to_the_cap_says_so() -> None:
    join = Join(PLAN)
    predictions(join, [(5, i) for i in range(20)] + [(15, i) for i in range(20)], 20)
    join.advance(lambda m: pytest.fail(f"{m} was given"))
    assert (join.evicted, len(join.index)) == (24, 16)
    pane = finished(join)["labels", HORIZON, 10]
    assert (len(pane), pane.incomplete) == (16, True)


def test_an_id_that_everything_shares_is_looked_up_a_few_times_only() -> None:
    join = Join(replace(PLAN, chunk_rows=64, rows_max=128))
    predictions(join, [(10 * i, 7) for i in range(50)], 500)
    assert join.index.left_out == 50 - REUSES_MAX
    feedback(join, "clicks", [Event(10 * i + 1, 7, 0.0) for i in range(50)])
    panes = finished(join)
    assert sum(int(m.observed.sum()) for m in panes.values() if m.stream == "clicks") == REUSES_MAX
    assert sum(len(m) for m in panes.values() if m.stream == "clicks") == 50
    loaded = Join(join.plan)
    loaded.load(join.whole_blobs())
    assert loaded.index.left_out == 50 - REUSES_MAX


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"streams": ()}, "without feedback"),
        ({"streams": (PLAN.streams[0], PLAN.streams[0])}, "one name"),
        ({"streams": (replace(PLAN.streams[0], name="a/b"),)}, "slash"),
        ({"streams": (replace(PLAN.streams[0], horizons_ms=(50, 50)),)}, "ascending"),
        ({"streams": (replace(PLAN.streams[0], horizons_ms=()),)}, "ascending"),
        ({"streams": (replace(PLAN.streams[0], horizons_ms=(55,)),)}, "no multiple of the resolution, 10 ms"),
        ({"streams": (replace(PLAN.streams[0], ages_ms=(5,)),)}, "no multiple of the resolution, 10 ms"),
        ({"streams": (replace(PLAN.streams[0], ages_ms=(HORIZON,)),)}, "not below its last horizon"),
        ({"streams": (replace(PLAN.streams[0], ages_ms=(0,)),)}, "not below its last horizon"),
        ({"rows_max": 15}, "at least 16"),
    ],
)
def test_a_plan_that_cannot_be_joined_by_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(JoinPlanError, match=said):
        Join(replace(PLAN, **changed))


def stored() -> dict[str, bytes]:
    """The state of a join with something in all parts."""
    join = Join(PLAN)
    predictions(join, [(10 * i + 3, i) for i in range(12)], 130)
    for name in join.streams:
        feedback(join, name, [Event(20, 1, 1.0), Event(95, 8, 1.0), Event(300, 9, 1.0, carries=(GROUP, 1.0, 0.5))])
    join.advance(lambda _: None)
    return join.whole_blobs()


@pytest.mark.parametrize(
    "changed",
    [{"resolution_ms": 5}, {"scores": 2}, {"chunk_rows": 4}, {"streams": (replace(PLAN.streams[2], name="clicks"),)}],
)
def test_a_state_of_another_plan_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(JoinPlanError, match=r"made with|held clicks"):
        Join(replace(PLAN, **changed)).load(stored())


@pytest.mark.parametrize("name", sorted(stored()))
def test_a_state_that_lacks_a_part_is_refused(name: str) -> None:
    blobs = stored()
    del blobs[name]
    with pytest.raises(ContainerError):
        Join(PLAN).load(blobs)


def test_streams_and_horizons_may_come_and_go() -> None:
    longer = replace(PLAN.streams[0], horizons_ms=(HORIZON, 4 * HORIZON))
    new = replace(PLAN.streams[2], name="returns")
    join = Join(replace(PLAN, streams=(longer, PLAN.streams[1], new)))
    join.load(stored())
    gone = [name for name, blob in join.changed_blobs().items() if blob is None]
    assert sorted(gone) == ["join-changes.labels/0", "join-groups.labels", "join-waiting.labels/0"]
    predictions(join, [(10 * i + 3, i) for i in range(13, 40)], 400)
    feedback(join, "returns", [Event(131, 11, 1.0), Event(145, 13, 1.0)])
    panes = finished(join)
    first = {key: min(m.edge_ms for k, m in panes.items() if k[:2] == key) for key in {k[:2] for k in panes}}
    assert first["clicks", HORIZON] == 80  # as if nothing had happened: what was taken up to 130 closed those before
    assert first["clicks", 4 * HORIZON] == 130  # panes for which feedback beyond the old horizon was not dropped
    assert first["returns", HORIZON] == 130  # panes of which no prediction had gone
    assert panes["returns", HORIZON, 130].observed.tolist() == [True]


def test_numbers_of_changes_in_32_bits() -> None:
    for tail in (0, 5, 0xFFFFFFFE, 0xFFFFFFFF, (1 << 40) + 3):
        numbers = tail + np.array([0, 1, 1_000, 0xFFFFFFFE])
        np.testing.assert_array_equal(widened(narrowed(numbers), tail), numbers)
    np.testing.assert_array_equal(widened(narrowed(np.array([-1])), 77), [-1])


def test_a_restored_state_knows_what_each_prediction_has() -> None:
    join = Join(PLAN)
    predictions(join, [(3, 1), (4, 2)], 5)
    feedback(join, "labels", [Event(5, 1, 1.0), Event(7, 2, 1.0), Event(8, 1, 0.0)])
    predictions(join, [], 20)
    join.tick("labels", 10)
    join.advance(lambda m: pytest.fail(f"{m} was given"))
    loaded = Join(PLAN)
    loaded.load(join.whole_blobs())
    feedback(loaded, "labels", [Event(12, 1, 0.0), Event(13, 2, 5.0)])
    pane = finished(loaded)["labels", HORIZON, 0]
    assert (pane.outcome.tolist(), pane.delay_ms.tolist()) == ([0.0, 5.0], [5, 9])
    assert counted(loaded, "labels") == {"matched": 2, "contradictory": 2, "duplicate": 1}
