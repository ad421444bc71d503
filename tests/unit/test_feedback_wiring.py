"""Feedback from bytes to panes: what is read, refused and counted; a configuration that changes over a state; idle topics."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stream.admin import NeededTopic, _compare
from stream.collector import Collector
from stream.columns import Records
from stream.config import Config, config_from
from stream.config_checks import check
from stream.config_errors import ConfigError
from stream.decode import decode, records_from_lines
from stream.decode_feedback import decode_feedback
from stream.feedback_planning import feedback_layouts
from stream.label_values import text_value
from stream.limits import EVENT_TIME_MS_MIN
from stream.panes import EDGE_END, EDGE_MIN, INPUTS, Marker, decode_record
from stream.performance_panes import PerformancePane
from stream.planning import collector_plan
from stream.replay import ReplayError, replay
from stream.stage import Decision
from stream.topics import TopicRole
from stream.watch import FeedbackIdle, IdleRule, MarkerWatch

LABELS = {"name": "labels", "mapping": {"timestamp": "timestamp"}, "range": [0, 1]}
PERFORMANCE = {"horizons": ["2m"], "proxies": ["ctr"], "metrics": ["accuracy"]}


def config(**changes: Any) -> Config:
    performance = changes.pop("performance", PERFORMANCE)
    topics = {"predictions": "predictions", "clicks": "clicks", "labels": LABELS} | changes.pop("topics", {})
    model: dict[str, Any] = {"reference": {"first": 5000}, "targets": {"amount": {"kind": "numeric"}}}
    if performance is not None:
        model["performance"] = performance
    if "segments" in changes:
        model["segments"] = changes.pop("segments")
    return config_from(
        {"kafka": {"bootstrap_servers": "unused:9092"}, "models": {"fraud": model}}
        | {"topics": {name: topic for name, topic in topics.items() if topic is not None}, **changes}
    )


def stamp(second: int) -> str:
    return f"2026-11-22T10:{second // 60:02d}:{second % 60:02d}Z"


def prediction(number: int, second: int) -> bytes:
    body = {"prediction_id": str(number), "model": "fraud", "timestamp": stamp(second), "features": {}}
    return json.dumps(body | {"prediction": number % 2, "score": 0.5}).encode()


def collector(own: Config) -> Collector:
    plan, _ = collector_plan(own, {"fraud": None})
    topics = {role.value: topic.name for role, topic in own.topics.feedback().items()}
    return Collector(0, plan, monitors=1, topic="predictions", config_hash="c", app_version="1", feedback_topics=topics)


def feed(state: Collector, own: Config, lines: list[bytes]) -> None:
    columns = decode(records_from_lines(lines, state.next_offset), collector_plan(own, {"fraud": None})[1])
    state.apply("predictions", replace(columns, record_time_ms=columns.event_time_ms))


def feed_back(state: Collector, own: Config, stream: str, bodies: list[Any]) -> None:
    assert state.joining is not None
    lines = [json.dumps(body).encode() for body in bodies]
    columns = decode_feedback(records_from_lines(lines, state.joining.position[stream]), feedback_layouts(own)[stream])
    times = replace(columns.feedback, record_time_ms=columns.feedback.event_time_ms)
    state.apply(stream, replace(columns, feedback=times))


def end(state: Collector) -> list[PerformancePane]:
    """The panes of performance of everything so far."""
    state.decide(Decision(1, "tick", {}, {"until_ms": EDGE_END}))
    for stream in state.joining.position if state.joining is not None else ():
        state.decide(Decision(2, "tick", {}, {"until_ms": EDGE_END, "stream": stream}))
    bodies = [decode_record(output.value or b"") for output in state.outbox if output.topic == TopicRole.PANES]
    return [body for body in bodies if isinstance(body, PerformancePane)]


def test_values_retractions_and_what_is_neither() -> None:
    layout = feedback_layouts(config())["labels"]
    bodies = [{"label": 1}, {"label": True}, {"label": "fraud"}, {"label": None}, {}, {"label": [1]}, {"label": 0.5}]
    lines = [json.dumps({"prediction_id": "7", "timestamp": stamp(0)} | body).encode() for body in bodies]
    found = decode_feedback(records_from_lines(lines, 0), layout)
    assert found.offset.tolist() == [0, 1, 2, 3, 6]
    assert found.feedback.value[[0, 1, 4]].tolist() == [1.0, 1.0, 0.5]
    assert found.feedback.value[2] >= text_value(np.array([0], np.uint64))[0]
    assert found.feedback.retracts.tolist() == [False, False, False, True, False]
    assert [(reject.offset, reject.code, reject.path) for reject in found.rejects] == [
        (4, "missing_field", "/label"),
        (5, "type", "/label"),
    ]


def test_a_record_without_a_value_retracts_what_its_key_names() -> None:
    value = json.dumps({"prediction_id": "7", "timestamp": stamp(0), "label": 1}).encode()
    data, at_ms = b"7" + value, EVENT_TIME_MS_MIN
    records = Records(
        np.frombuffer(data, np.uint8), np.array([4, 5, 6]), at_ms + np.array([9, 10, 11]), np.array([0, 0, 0]),
        np.array([1, 1, -1]), np.array([1, 0, 0]), np.array([len(value), -1, -1]), 7,
    )  # fmt: skip
    found = decode_feedback(records, feedback_layouts(config())["labels"])
    assert found.offset.tolist() == [4, 5]
    assert found.feedback.retracts.tolist() == [False, True]
    assert found.feedback.id_high[0] == found.feedback.id_high[1]
    assert found.feedback.id_low[0] == found.feedback.id_low[1]
    assert found.event_time_ms.tolist()[1] == at_ms + 10
    assert [(reject.offset, reject.code) for reject in found.rejects] == [(6, "bad_id")]


def test_negative_and_absurd_values_are_dead_letters_and_counted() -> None:
    own = config()
    state = collector(own)
    feed(state, own, [prediction(1, 0)])
    bodies = [{"prediction_id": "1", "timestamp": stamp(1), "label": label} for label in (-1, 7, 1)]
    feed_back(state, own, "labels", bodies)
    letters = [dict(output.headers) for output in state.outbox if output.topic == TopicRole.DEAD_LETTERS]
    assert [(h["dlq.reason"], h["dlq.topic"], h["dlq.offset"]) for h in letters] == [
        (b"negative_value", b"labels", b"0"),
        (b"value_out_of_range", b"labels", b"1"),
    ]
    assert state.joining is not None
    counters = state.joining.counters("labels")
    assert [counters[name] for name in ("consumed", "negative", "absurd", "waiting")] == [3, 1, 1, 1]
    assert counters["reason:negative_value"] == counters["reason:value_out_of_range"] == 1


def test_labels_that_stall_delay_no_input_pane() -> None:
    own = config()
    state = collector(own)
    feed(state, own, [prediction(number, number) for number in range(0, 600, 5)])
    markers = [decode_record(output.value or b"") for output in state.outbox if output.barrier]
    inputs = [marker.edge_ms for marker in markers if isinstance(marker, Marker) and marker.stream == INPUTS]
    assert inputs[-1] == state.marked_ms > EDGE_MIN
    assert not [marker for marker in markers if isinstance(marker, Marker) and marker.stream != INPUTS]
    assert len(state.joining.join.index) == 120  # type: ignore[union-attr]


def test_performance_that_is_new_to_a_state_begins_with_a_pane_that_it_has_whole() -> None:
    before, own = config(performance=None, topics={"clicks": None, "labels": None}), config()
    old = collector(before)
    feed(old, before, [prediction(number, number) for number in range(30)])  # of a pane that stays open
    state = collector(own)
    state.load(old.full_blobs())
    feed(state, own, [prediction(number, number) for number in range(30, 90)])
    panes = end(state)
    assert {(pane.stream, pane.rows) for pane in panes} == {("clicks", 30), ("labels", 30)}  # none of the first pane
    again = collector(own)
    again.load(state.full_blobs())
    assert again.full_blobs() == state.full_blobs()


def test_a_state_forgets_a_join_that_is_configured_no_more() -> None:
    before, own = config(performance=None, topics={"clicks": None, "labels": None}), config()
    state = collector(own)
    feed(state, own, [prediction(number, number) for number in range(30)])
    joined = {name for name in state.full_blobs() if name.startswith("join")}
    plain = collector(before)
    plain.load(state.full_blobs())
    assert joined
    assert {name for name, blob in plain.changed_blobs().items() if blob is None} == joined
    assert end(plain) == []


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no topic": ({"topics": {"clicks": None}}, "ctr is of clicks"),
    "nobody asks": ({"performance": PERFORMANCE | {"proxies": []}}, "no model asks for anything of clicks"),
    "half a pane of age": ({"performance": PERFORMANCE | {"provisional": ["90s"]}}, "90s is no whole number of panes"),
    "half a pane": ({"performance": PERFORMANCE | {"horizons": ["90s"]}}, "90s is no whole number of panes"),
    "two kinds": ({"performance": PERFORMANCE | {"metrics": ["accuracy", "mae"]}}, "some are of classes"),
    "three classes": (
        {"performance": PERFORMANCE | {"metrics": ["auroc"], "classes": ["a", "b", "c"]}},
        "auroc is of two classes",
    ),
    "no positive": ({"performance": PERFORMANCE | {"positive": "2"}}, "2 is none of the classes"),
    "one topic twice": ({"topics": {"clicks": "predictions"}}, "predictions is the predictions topic"),
    "no segment key": ({"performance": PERFORMANCE | {"disparity": {"country": "DE"}}}, "country is no segment key"),
    "no value that is followed": (
        {"performance": PERFORMANCE | {"disparity": {"country": "IT"}}, "segments": {"country": ["DE", "FR"]}},
        "IT is no value of country",
    ),
    "disparity of numbers": (
        {
            "performance": PERFORMANCE | {"metrics": ["mae"], "disparity": {"country": "DE"}},
            "segments": {"country": ["DE", "FR"]},
        },
        "rates of groups need labels of two classes",
    ),
    "disparity without labels": (
        {
            "performance": {"horizons": ["2m"], "proxies": ["ctr"], "disparity": {"country": "DE"}},
            "topics": {"labels": None},
            "segments": {"country": ["DE", "FR"]},
        },
        "rates of groups need labels of two classes",
    ),
    "no rows at all": ({"performance": PERFORMANCE | {"least_events": 0}}, "least_events"),
    "unknown metric": ({"performance": PERFORMANCE | {"metrics": ["rmsprop"]}}, "rmsprop"),
    "empty range": ({"topics": {"labels": LABELS | {"range": [1, 0]}}}, "is empty"),
    "range beyond what sums take": ({"topics": {"labels": LABELS | {"range": [0, 1e60]}}}, "DL-C014"),
}


@pytest.mark.parametrize("name", BAD)
def test_configurations_that_contradict_themselves_are_refused(name: str) -> None:
    changes, said = BAD[name]
    try:
        found = [read for _, _, read, _ in check(config(**changes))]
    except ConfigError as error:
        found = [str(error)]
    assert len(found) == 1
    assert said in found[0]


def test_a_configuration_with_feedback_is_in_order() -> None:
    assert not list(check(config()))


@pytest.mark.parametrize(
    ("count", "mends"), [(2, "--alter --topic clicks --partitions 4"), (9, "--create --topic NAME")]
)
def test_another_number_of_partitions_is_refused_with_both_and_the_way_out(count: int, mends: str) -> None:
    needed = NeededTopic(TopicRole.CLICKS, "clicks", 4, {}, "clicks, by prediction_id")
    state = _compare(needed, count, {}, 4)
    assert state.difference == "partitions"
    assert f"has {count} partitions, must have 4" in state.detail
    assert mends in state.detail


def test_a_topic_in_which_nothing_comes_ticks_behind_the_predictions() -> None:
    watch = MarkerWatch(2)
    idle = FeedbackIdle(IdleRule(watch, 60.0, 0, 1_000), 10_000)
    idle.see({0: 5}, 0.0)
    assert idle.tick_ms(0, 5, 0, 100.0) is None  # no marker was seen
    watch.add(1, Marker(1, INPUTS, 90_000, {}, {}, {}, 95_500))
    assert idle.tick_ms(0, 5, EDGE_MIN, 59.0) is None  # not for long enough
    assert idle.tick_ms(0, 4, EDGE_MIN, 100.0) is None  # not wholly read
    assert idle.tick_ms(0, 5, EDGE_MIN, 100.0) == 85_000
    assert idle.tick_ms(0, 5, 85_000, 100.0) is None  # nothing new
    idle.see({0: 6}, 101.0)
    assert idle.tick_ms(0, 6, EDGE_MIN, 102.0) is None


def test_replay_names_what_it_cannot_read() -> None:
    with pytest.raises(ReplayError, match=r"no topics\.conversions"):
        replay(config(), [], feedback={"conversions": []})
    with pytest.raises(ReplayError, match="record time"):
        replay(config(topics={"labels": "labels"}), [], feedback={"labels": []})
