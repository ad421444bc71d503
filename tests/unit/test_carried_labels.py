"""Labels that bring their prediction with them: how they are read, where they count, how many versions of them are told apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from detectors.performance import Part
from stream.collector import Collector
from stream.config import Config
from stream.config_checks import check
from stream.config_errors import ConfigError
from stream.decode import decode_strict, records_from_lines
from stream.decode_feedback import decode_feedback
from stream.feedback_planning import feedback_layouts, feedback_plan, performance_of
from stream.join import Join, JoinPlan
from stream.join_feedback import CARRIED, Feedback, FeedbackKind, FeedbackStream
from stream.join_groups import NO_GROUP, Group
from stream.join_index import Predictions
from stream.joining import Joining
from stream.panes import EDGE_END, Marker, decode_record
from stream.performance_merging import Horizon
from stream.performance_windows import horizons_of
from stream.plan import OTHER
from stream.planning import collector_plan
from stream.replay import replay
from tests.unit.test_feedback_wiring import (
    LABELS,
    PERFORMANCE,
    collector,
    config,
    end,
    feed,
    feed_back,
    prediction,
    stamp,
)

WHERE = {"model": "was.model", "version": "was.version", "prediction": "was.decision", "score": "was.score"}
ONLY_LABELS = {"horizons": ["2m"], "provisional": "none", "metrics": ["accuracy"]}


def carrying(**changes: Any) -> Config:
    mapping = {"timestamp": "timestamp"} | WHERE | changes.pop("mapping", {})
    mapping = {name: path for name, path in mapping.items() if path is not None}
    return config(topics={"clicks": None, "labels": LABELS | {"mapping": mapping}}, performance=ONLY_LABELS, **changes)


def label(ident: str, second: int, value: Any = 1, **was: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"prediction_id": ident, "timestamp": stamp(second), "label": value}
    return body | ({"was": {"model": "fraud", "version": "7", "decision": 1, "score": 0.75} | was} if was else {})


def lines_of(bodies: list[Any]) -> list[bytes]:
    return [json.dumps(body).encode() for body in bodies]


def test_a_label_brings_its_prediction_where_it_has_a_model_that_is_configured_and_a_decision() -> None:
    bodies = [
        label("1", 0), label("2", 0, decision=0), label("3", 0, version="8", score=None), label("4", 0, model="other"),
        label("5", 0, decision=None), label("6", 0, value=None, decision=1), label("7", 0, model=None),
        label("8", 0, version=None, decision="1"), label("9", 0, model="", decision=1),
    ]  # fmt: skip
    layout = feedback_layouts(carrying())["labels"]
    found = decode_feedback(records_from_lines(lines_of(bodies), 0), layout)
    feedback = found.feedback
    assert not found.rejects
    groups = [None if place == NO_GROUP else feedback.groups[place] for place in feedback.group.tolist()]
    assert groups == [
        None, Group("fraud", "7"), Group("fraud", "8"), None, None, None, None, Group("fraud", ""), None
    ]  # fmt: skip
    assert feedback.predicted[[1, 2]].tolist() == [0.0, 1.0]
    np.testing.assert_array_equal(feedback.score[[1, 2], 0], [0.75, np.nan])
    assert feedback.retracts.tolist() == [False] * 5 + [True] + [False] * 3
    strict = decode_strict(records_from_lines(lines_of(bodies), 0), layout)
    assert strict.model.tolist() == [-1, 0, 0, -1, 0, 0, -1, 0, -1]


@pytest.mark.parametrize(
    ("was", "code", "path"),
    [
        ({"decision": [1]}, "type", "/was/decision"),
        ({"score": "high"}, "type", "/was/score"),
        ({"model": True}, "type", "/was/model"),
        ({"version": "v" * 10_000}, "bad_name", "/was/version"),
    ],
)
def test_a_prediction_that_is_none_is_a_dead_letter(was: dict[str, Any], code: str, path: str) -> None:
    lines = lines_of([label("1", 0, **was), label("2", 0, score=1)])
    found = decode_feedback(records_from_lines(lines, 0), feedback_layouts(carrying())["labels"])
    assert [(reject.offset, reject.code, reject.path) for reject in found.rejects] == [(0, code, path)]
    assert found.offset.tolist() == [1]


def test_it_counts_when_it_becomes_known_and_its_prediction_counts_at_its_horizon_besides() -> None:
    own = carrying()
    state = collector(own)
    feed(state, own, [prediction(1, 5), prediction(2, 10), prediction(3, 600)])
    known = [label("1", 61), label("1", 62, value=0, decision=1), label("unknown", 65, decision=1), label("2", 70)]
    feed_back(state, own, "labels", known)
    panes = {(pane.horizon_ms, pane.version): pane for pane in end(state) if pane.observed}
    assert set(panes) == {(CARRIED, "7"), (120_000, "")}
    carried, joined = panes[CARRIED, "7"], panes[120_000, ""]
    assert (carried.edge_ms - joined.edge_ms, carried.rows, carried.observed, carried.segment) == (60_000, 2, 2, "all")
    assert carried.sums.count(Part.CONFUSION, "matrix").tolist() == [[0, 1], [0, 1]]  # [label][decision]
    assert joined.sums.count(Part.CONFUSION, "matrix").tolist() == [[0, 1], [1, 0]]
    assert state.joining is not None
    counters = state.joining.counters("labels")
    assert {name: n for name, n in counters.items() if n} == {
        "consumed": 4, "matched": 2, "contradictory": 1, "carried": 1
    }  # fmt: skip


def test_its_series_ends_with_the_input() -> None:
    state = collector(carrying())
    end(state)
    markers = [decode_record(output.value or b"") for output in state.outbox if output.barrier]
    ended = {marker.stream for marker in markers if isinstance(marker, Marker) and marker.edge_ms == EDGE_END}
    assert ended == {"inputs", "labels@0", "labels@120000"}


def test_a_constant_model_is_the_model_of_all_labels_that_bring_a_decision() -> None:
    own = carrying(mapping={"model": "=fraud", "version": None})
    plan = feedback_plan(own, ["prediction", "score"])
    assert plan is not None
    assert plan.series == (("labels", CARRIED), ("labels", 120_000))
    found = decode_feedback(
        records_from_lines(lines_of([label("1", 0, model=None), label("2", 0)]), 0), feedback_layouts(own)["labels"]
    )
    assert [found.feedback.groups[place] for place in found.feedback.group[:1]] == [Group("fraud", "")]
    assert found.feedback.group[1] == NO_GROUP
    assert horizons_of(performance_of(own, "fraud")) == [Horizon("labels", CARRIED), Horizon("labels", 120_000)]
    assert horizons_of(performance_of(config(), "fraud"), final=True) == [
        Horizon("clicks", 120_000),
        Horizon("labels", 120_000),
    ]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no prediction": ({"prediction": None}, "bring their model and no prediction"),
    "no model": ({"model": None}, "no path of its model"),
    "no such model": ({"model": "=spam"}, "=spam: no such model"),
    "an empty key": ({"score": "was..score"}, "empty key"),
    "a constant decision": ({"prediction": "=1"}, "prediction must be a path"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mapping_that_brings_half_a_prediction_is_refused(name: str) -> None:
    mapping, said = BAD[name]
    try:
        found = [read for _, _, read, _ in check(carrying(mapping=mapping))]
    except ConfigError as error:
        found = [str(error)]
    assert len(found) == 1
    assert said in found[0]


def test_a_series_that_is_new_to_a_state_begins_with_a_slice_of_which_nothing_was_read() -> None:
    before, own = carrying(mapping=dict.fromkeys(WHERE)), carrying()
    state = collector(before)
    feed(state, before, [prediction(1, 5)])
    feed_back(state, before, "labels", [label("1", 20, decision=1), label("1", 65, decision=1)])
    later = collector(own)
    later.load(state.full_blobs())
    feed_back(
        later, own, "labels", [label("x", 50, decision=1), label("y", 70, decision=1), label("z", 125, decision=1)]
    )
    panes = [pane for pane in end(later) if pane.horizon_ms == CARRIED]
    assert [pane.rows for pane in panes] == [1]  # z alone: of the minutes of x and y something was read before
    again = collector(own)
    again.load(later.full_blobs())
    assert again.full_blobs() == later.full_blobs()


def test_nothing_is_said_of_a_model_that_is_configured_no_more() -> None:
    own = carrying()
    state = collector(own)
    feed(state, own, [prediction(1, 5)])
    feed_back(state, own, "labels", [label("1", 20, decision=1)])
    other = own.model_copy(update={"models": {"else": own.models["fraud"]}})
    plan, _ = collector_plan(other, {"else": None})
    later = Collector(
        0, plan, monitors=1, topic="predictions", config_hash="c", app_version="1", feedback_topics={"labels": "labels"}
    )
    later.load(state.full_blobs())
    assert end(later) == []


def test_its_records_say_of_each_window_what_became_known_in_it() -> None:
    """A year after the predictions, nearly; the windows are those of today's."""
    own = carrying(defaults={"window": {"every": "5m", "min_events": 1}})
    lines = [prediction(second, second) for second in range(2_400)]
    right = [second % 3 == 0 for second in range(0, 2_400, 7)]
    labels = [
        label(f"old-{at}", 7 * at, value=1, version="2025", decision=int(good)) for at, good in enumerate(right)
    ] + [label(str(second), second + 30, value=second % 2) for second in range(0, 2_400, 60)]
    labels.sort(key=lambda body: body["timestamp"])
    said = [event["data"] for event in replay(own, lines, feedback={"labels": labels}).performance]
    records = [
        data for data in said if data["horizon_ms"] == CARRIED and data["metric"] == "accuracy" and "value" in data
    ]
    assert {(data["version"], data["segment"], data["incomplete"]) for data in records} == {("2025", "all", False)}
    due: dict[str, list[bool]] = {data["window"]["start"]: [] for data in records}
    for at, good in enumerate(right):
        due[stamp(7 * at // 300 * 300)].append(good)
    assert len(due) == 8
    for data in records:
        known = due[data["window"]["start"]]
        assert data["counts"] == {"predictions": len(known), "observed": len(known), "used": len(known)}
        assert data["value"] == pytest.approx(sum(known) / len(known), abs=1e-12)
    joined = [data for data in said if data["horizon_ms"] and data["metric"] == "accuracy" and "value" in data]
    assert sum(data["counts"]["observed"] for data in joined) == 40
    assert {data["value"] for data in joined} == {1.0}


# -- the cap on versions

GROUPS = (*(Group("m", version) for version in "abcdef"), Group("n", "a"), Group("m", OTHER))
JOIN = JoinPlan(
    10,
    (FeedbackStream("labels", FeedbackKind.LABEL, (50,), 45, carries=True),),
    1_000,
    16,
    100,
    chunk_rows=8,
    versions_max=3,
)


def batch(rows: list[tuple[int, int]], first_id: int = 1) -> Feedback:
    """Rows of (time, place in GROUPS)."""
    n = len(rows)
    time, place = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return Feedback(
        time, time, np.arange(first_id, first_id + n).astype(np.uint64), np.zeros(n, np.uint32), np.ones(n), np.zeros(n, bool),
        place.astype(np.uint32), np.ones(n), np.ones((n, 1)), GROUPS,
    )  # fmt: skip


def versions_of(join: Join) -> dict[int, list[tuple[str, int]]]:
    found: dict[int, list[tuple[str, int]]] = {}

    def sink(matured: Any) -> None:
        found[matured.edge_ms] = [(f"{group.model}{group.version}", len(rows)) for group, rows in matured.parts()]

    none = np.empty(0, np.int64)
    empty = Predictions(
        none, none.astype(np.uint64), none.astype(np.uint32), np.empty((0, 1)), np.empty(0), none.astype(np.uint32)
    )
    join.add_predictions(empty, EDGE_END)
    join.tick("labels", EDGE_END)
    join.advance(sink)
    return found


LOG = [
    (106, 3),
    (104, 5),
    (107, 1),
    (111, 1),
    (105, 0),
    (108, 6),
    (105, 2),
    (106, 3),
    (112, 4),
    (107, 4),
    (108, 7),
    (113, 5),
    (114, 0),
]


@pytest.mark.parametrize("cut", range(len(LOG)))
def test_the_first_versions_of_a_slice_and_model_are_told_apart_however_the_log_is_cut(cut: int) -> None:
    """The second row is late, so its version takes no place."""
    join = Join(JOIN)
    join.add_feedback("labels", batch([(150, 0)], 100))
    for rows, first_id in ((LOG[:cut], 1), (LOG[cut:], 1 + cut)):
        if rows:
            join.add_feedback("labels", batch(rows, first_id))
        restored = Join(JOIN)
        restored.load(join.whole_blobs())
        join = restored
    assert versions_of(join) == {
        100: [(f"m{OTHER}", 3), ("ma", 1), ("mb", 1), ("md", 2), ("na", 1)],
        110: [(f"m{OTHER}", 1), ("mb", 1), ("me", 1), ("mf", 1)],
        150: [("ma", 1)],
    }


def test_a_restore_knows_the_version_of_an_event_at_the_very_time_up_to_which_all_was_taken() -> None:
    join, none = Join(JOIN), np.empty(0, np.int64)
    join.add_feedback("labels", batch([(145, 0)], 100))  # the watermark of labels is at 100
    empty = Predictions(
        none, none.astype(np.uint64), none.astype(np.uint32), np.empty((0, 1)), np.empty(0), none.astype(np.uint32)
    )
    join.add_predictions(empty, 100)
    join.advance(lambda _: None)
    assert join.streams["labels"].done_ms == 100
    join.add_feedback("labels", batch([(100, 0), (101, 1), (102, 2)]))
    restored = Join(JOIN)
    restored.load(join.whole_blobs())
    restored.add_feedback("labels", batch([(103, 3)], 50))
    assert versions_of(restored)[100] == [(f"m{OTHER}", 1), ("ma", 1), ("mb", 1), ("mc", 1)]


@pytest.mark.parametrize(
    ("waiting", "ahead_ms", "full"), [(51, 1, True), (50, 1, False), (51, 0, False), (100, 1, True)]
)
def test_a_topic_is_read_no_more_once_half_of_what_may_wait_waits_for_the_predictions(
    waiting: int, ahead_ms: int, full: bool
) -> None:
    state = SimpleNamespace(waiting=waiting, watermark_ms=10 + ahead_ms)
    join = SimpleNamespace(streams={"labels": state}, watermark_ms=10)
    joining: Any = SimpleNamespace(join=join, plan=SimpleNamespace(join=SimpleNamespace(waiting_max=100)))
    assert Joining.is_full(joining, "labels") is full


def many(n: int) -> Iterator[Feedback]:
    for first in range(0, n, 50):
        groups = tuple(Group("m", f"v{first + at}") for at in range(50))
        yield replace(batch([(100, 0)] * 50), group=np.arange(50, dtype=np.uint32), groups=groups)


def test_a_million_versions_cost_no_memory() -> None:
    join = Join(replace(JOIN, waiting_max=100_000))
    for each in many(10_000):
        join.add_feedback("labels", each)
    assert len(join.streams["labels"].groups) == 4
    for each in many(10_000):  # late ones
        join.add_feedback("labels", replace(each, event_time_ms=each.event_time_ms - 100))
    assert len(join.streams["labels"].groups) == 4


def test_the_performance_of_others_is_as_it_was() -> None:
    assert PERFORMANCE["proxies"]
    plan = feedback_plan(config(), ["prediction", "score"])
    assert plan is not None
    own = ("clicks", "labels")
    assert plan.series == tuple((name, point) for name in own for point in (60_000, 120_000))  # an age and the horizon
