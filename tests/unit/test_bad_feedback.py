"""Feedback that is late, repeated, of nobody, contradictory, negative, absurd: from bytes, each has its dead letter or its counter.

The rows of the fault list and of the bad-input table that speak of feedback. What becomes of it in the join in any interleaving:
tests/laws/test_join_laws.py.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from detectors.performance import Part
from stream.collector import Collector
from stream.columns import Records
from stream.config import Config
from stream.decode import decode, records_from_lines
from stream.decode_feedback import decode_feedback
from stream.feedback_counts import count_feedback
from stream.feedback_planning import feedback_layouts
from stream.label_values import TEXT_VALUE_END, TEXT_VALUE_MIN, is_text
from stream.limits import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN
from stream.metrics import Metrics
from stream.performance_panes import PerformancePane
from stream.planning import collector_plan
from tests.unit.test_feedback_wiring import collector, config, end, feed, feed_back, prediction, stamp

CONVERSIONS = {"name": "conversions", "mapping": {"value": "amount"}, "range": [0, 500], "lateness": "1m"}
LABELS = {"name": "labels", "mapping": {"timestamp": "timestamp"}, "lateness": "1m"}
CLICKS = {"name": "clicks", "lateness": "1m"}


def watched(**performance: Any) -> Config:
    asked = {
        "horizons": ["10m"],
        "provisional": "none",
        "proxies": ["ctr", "cvr", "value_per_prediction"],
        "metrics": ["accuracy"],
    }
    topics = {"clicks": CLICKS, "conversions": CONVERSIONS, "labels": LABELS}
    return config(topics=topics, performance=asked | performance)


def event(ident: Any, second: int, **more: Any) -> dict[str, Any]:
    return {"prediction_id": ident, "timestamp": stamp(second)} | more


def after(
    own: Config, stream: str, bodies: list[Any]
) -> tuple[dict[str, int], list[tuple[str, str, int]], PerformancePane]:
    """What is not zero of the counters, dead letters (reason, path, offset) of one stream, and its pane: of the predictions 1 and 2, made
    in second 60, beside those of 180 and 1,500, which close it.
    """
    state = collector(own)
    feed(state, own, [prediction(1, 60), prediction(2, 60), prediction(3, 180)])
    feed_back(state, own, stream, bodies)
    feed(state, own, [prediction(4, 1_500)])
    letters = [dict(output.headers) for output in state.outbox if output.topic == "dead-letters"]
    panes = [pane for pane in end(state) if pane.stream == stream and pane.rows == 2]
    assert state.joining is not None
    counters = state.joining.counters(stream)
    said = {name: n for name, n in counters.items() if n and not name.startswith("reason:")}
    reasons = [
        (letter["dlq.reason"].decode(), letter["dlq.path"].decode(), int(letter["dlq.offset"])) for letter in letters
    ]
    assert {name.removeprefix("reason:"): n for name, n in counters.items() if name.startswith("reason:")} == {
        reason: sum(each[0] == reason for each in reasons) for reason, _, _ in reasons
    }
    assert_everything_is_counted(said, reasons, bodies, state, stream)
    (pane,) = panes
    return said, reasons, pane


def assert_everything_is_counted(
    said: dict[str, int], reasons: list[Any], bodies: list[Any], state: Collector, stream: str
) -> None:
    """Every event is in one term: unreadable, or of the join's; and the metrics have what the counters have."""
    beside = {"consumed", "revised", "gap", "resets"}
    unread = len(bodies) - said.get("consumed", 0)
    assert said.get("consumed", 0) == sum(n for name, n in said.items() if name not in beside)
    refused = sum(said.get(name, 0) for name in ("future", "negative", "absurd", "unknown_label"))
    assert len(reasons) == unread + refused
    metrics = Metrics()
    count_feedback(metrics, state.joining, 0)
    for name, n in said.items():
        if name not in {"consumed", "waiting", "gap", "resets"}:
            found = metrics.get("feedback_outcomes_total", partition=0, feedback=stream, outcome=name)
            assert found == n, name
    for reason in {each[0] for each in reasons}:
        found = metrics.get("feedback_dead_letters_total", partition=0, feedback=stream, reason=reason)
        assert found == sum(each[0] == reason for each in reasons), reason


def matrix(pane: PerformancePane) -> list[list[int]]:
    found: list[list[int]] = pane.sums.count(Part.CONFUSION, "matrix").tolist()
    return found


# -- F19: labels before predictions, two labels, a retraction, a click without impression, a conversion before its click


def test_f19_labels_that_arrive_before_their_predictions_wait_for_them() -> None:
    own = watched()
    state = collector(own)
    feed_back(state, own, "labels", [event("1", 61, label=1), event("2", 61, label=1), event("3", 1_600, label=1)])
    feed(state, own, [prediction(1, 60), prediction(2, 60), prediction(3, 1_500)])
    (pane,) = [pane for pane in end(state) if pane.stream == "labels" and pane.rows == 2]
    assert (pane.observed, matrix(pane)) == (2, [[0, 0], [1, 1]])


def test_f19_what_was_known_before_the_prediction_was_made_is_none_of_it() -> None:
    bodies = [event("1", 30, label=1), event("3", 179, label=1)]
    said, letters, pane = after(watched(), "labels", bodies)
    assert said == {"consumed": 2, "orphan": 2}
    assert not letters
    assert pane.observed == 0
    said, _, _ = after(watched(), "labels", [event("4", 1_499, label=1), event("4", 1_500, label=1)])
    assert said == {"consumed": 2, "orphan": 1, "matched": 1}


def test_f19_the_later_of_two_labels_counts_and_is_told() -> None:
    said, _, pane = after(
        watched(), "labels", [event("1", 70, label=0), event("1", 80, label=1), event("2", 80, label=0)]
    )
    assert said == {"consumed": 3, "matched": 2, "contradictory": 1}
    assert matrix(pane) == [[1, 0], [0, 1]]


def test_f19_b4_a_null_retracts_and_so_does_a_record_without_a_value() -> None:
    said, _, pane = after(
        watched(), "labels", [event("1", 70, label=0), event("1", 80, label=None), event("9", 80, label=None)]
    )
    assert said == {"consumed": 3, "matched": 1, "retracted": 1, "orphan": 1}
    assert pane.observed == 0
    own = watched()
    state = collector(own)
    feed(state, own, [prediction(1, 60)])
    feed_back(state, own, "labels", [event("1", 70, label=0)])
    at = np.array([state.largest_ms + 20_000])
    zero, one = np.array([0]), np.array([1])
    tombstone = Records(np.frombuffer(b"1", np.uint8), one, at, zero, one, zero, -one, 2)
    state.apply("labels", decode_feedback(tombstone, feedback_layouts(own)["labels"]))
    (pane,) = [pane for pane in end(state) if pane.stream == "labels"]
    assert pane.observed == 0
    assert state.joining is not None
    assert state.joining.counters("labels")["retracted"] == 1


def test_f19_a_click_without_an_impression_is_an_orphan() -> None:
    said, letters, pane = after(watched(), "clicks", [event("nobody", 70), event("1", 70)])
    assert said == {"consumed": 2, "matched": 1, "orphan": 1}
    assert not letters
    assert (pane.rows, pane.observed) == (2, 1)


def test_f19_a_conversion_needs_no_click() -> None:
    own = watched()
    state = collector(own)
    feed(state, own, [prediction(1, 60), prediction(2, 60)])
    feed_back(state, own, "conversions", [event("1", 70, amount=20)])
    feed_back(state, own, "clicks", [event("1", 90)])
    feed(state, own, [prediction(3, 1_500)])
    panes = {pane.stream: pane.observed for pane in end(state) if pane.rows == 2}
    assert panes == {"clicks": 1, "conversions": 1, "labels": 0}


# -- late, of the future, repeated


def test_f19_late_feedback_and_that_of_the_future_are_told_apart() -> None:
    own = watched()
    state = collector(own)
    feed(state, own, [prediction(1, 60)])
    late_and_not = [event("1", 300), event("1", 239), event("1", 240)]
    feed_back(state, own, "clicks", late_and_not)
    assert state.joining is not None
    assert {n: c for n, c in state.joining.counters("clicks").items() if c} == {"consumed": 3, "late": 1, "waiting": 2}
    columns = decode_feedback(records_of([event("1", 1_000)], at_second=300), feedback_layouts(own)["clicks"])
    state.apply("clicks", columns)
    counters = state.joining.counters("clicks")
    assert (counters["future"], counters["reason:future_timestamp"]) == (1, 1)


def records_of(bodies: list[Any], at_second: int) -> Records:
    base = 1_795_341_600_000  # 2026-11-22T10:00:00Z
    return records_from_lines([json.dumps(body).encode() for body in bodies], 3, base + 1_000 * at_second)


# -- B48: labels that are none


@pytest.mark.parametrize(
    ("performance", "label", "reason"),
    [
        pytest.param({}, 2, "unknown_label", id="B48-another-number"),
        pytest.param({}, 0.5, "unknown_label", id="B48-between-two-classes"),
        pytest.param({}, "yes", "unknown_label", id="B48-a-text"),
        pytest.param({"classes": ["no", "yes"]}, "YES", "unknown_label", id="B48-another-spelling"),
        pytest.param({"classes": ["no", "yes"]}, 1, "unknown_label", id="B48-a-number-where-classes-are-texts"),
        pytest.param({"metrics": ["mae"]}, "yes", "unknown_label", id="B48-a-text-where-labels-are-numbers"),
        pytest.param({}, [1], "type", id="B48-an-array"),
        pytest.param({}, {"is": 1}, "type", id="B48-an-object"),
        pytest.param({"metrics": ["mae"]}, 1e60, "value_out_of_range", id="B48-absurdly-large"),
    ],
)
def test_b48_a_label_of_no_class_is_a_dead_letter(performance: dict[str, Any], label: Any, reason: str) -> None:
    said, letters, pane = after(watched(**performance), "labels", [event("1", 70, label=label)])
    assert [(code, offset) for code, _, offset in letters] == [(reason, 0)]
    assert not set(said) - {"consumed", "unknown_label", "absurd"}
    assert pane.observed == 0


@pytest.mark.parametrize(
    ("performance", "label"),
    [
        ({}, 1),
        ({}, True),
        ({}, "1"),
        ({"classes": ["no", "yes"]}, "yes"),
        ({"classes": ["false", "true"]}, True),
        ({"metrics": ["mae"]}, -12.5),
    ],
)
def test_b48_a_label_of_a_class_counts_however_it_is_written(performance: dict[str, Any], label: Any) -> None:
    said, letters, pane = after(watched(**performance), "labels", [event("1", 70, label=label)])
    assert (said, letters, pane.observed) == ({"consumed": 1, "matched": 1}, [], 1)


def test_b48_a_label_without_a_value_says_nothing_and_one_of_an_unknown_id_is_an_orphan() -> None:
    said, letters, _ = after(watched(), "labels", [event("1", 70), event("unknown", 70, label=1)])
    assert [letter[:2] for letter in letters] == [("missing_field", "/label")]
    assert said == {"consumed": 1, "orphan": 1}


def test_b48_no_text_is_taken_for_a_number() -> None:
    """A model of numbers beside one of classes in one topic: the other's classes are no numbers of it."""
    own = watched(classes=["no", "yes"])
    numbers = own.models["fraud"].model_copy(
        update={"performance": own.models["fraud"].performance.model_copy(update={"metrics": ("mae",), "proxies": ()})}  # type: ignore[union-attr]
    )
    both = own.model_copy(update={"models": {"classes": own.models["fraud"], "fraud": numbers}})
    plan, layout = collector_plan(both, {"classes": None, "fraud": None})
    assert plan.feedback is not None
    labels = plan.feedback.join.streams[-1]
    assert labels.numbers
    assert len(labels.classes or ()) == 2
    assert is_text(np.array(labels.classes)).all()
    assert is_text(np.array([TEXT_VALUE_MIN, TEXT_VALUE_END, 1e6])).tolist() == [True, False, False]
    state = Collector(
        0, plan, monitors=1, topic="p", config_hash="c", app_version="1",
        feedback_topics={"clicks": "clicks", "conversions": "conversions", "labels": "labels"},
    )  # fmt: skip
    columns = decode(records_from_lines([prediction(1, 60), prediction(2, 60), prediction(3, 1_500)]), layout)
    state.apply("predictions", replace(columns, record_time_ms=columns.event_time_ms))
    feed_back(state, both, "labels", [event("1", 70, label="yes"), event("2", 70, label=3)])
    (pane,) = [pane for pane in end(state) if pane.stream == "labels" and pane.rows == 2]
    assert pane.sums.count(Part.ERRORS, "rows").tolist() == [1]
    assert pane.sums.total(Part.ERRORS, "label") == 3.0


# -- B64: amounts


@pytest.mark.parametrize(
    ("amount", "reason"),
    [
        pytest.param(-1, "negative_value", id="B64-negative"),
        pytest.param(1e18, "value_out_of_range", id="B64-1e18"),
        pytest.param(500.01, "value_out_of_range", id="B64-just-above-the-range"),
        pytest.param("12.50 EUR", "type", id="B64-a-currency"),
        pytest.param("12.50", "type", id="B64-a-text"),
        pytest.param(True, "type", id="B64-a-bool"),
    ],
)
def test_b64_an_amount_outside_the_range_or_no_number_is_a_dead_letter(amount: Any, reason: str) -> None:
    said, letters, pane = after(watched(), "conversions", [event("1", 70, amount=amount), event("2", 70, amount=0)])
    assert [(code, offset) for code, _, offset in letters] == [(reason, 0)]
    assert said["matched"] == 1  # nothing is an amount, too
    assert (pane.rows, pane.observed) == (2, 1)


# -- B65: a thousand clicks for one impression, values in other units


def test_b65_a_thousand_clicks_of_one_impression_are_one() -> None:
    said, _, pane = after(watched(), "clicks", [event("1", 70 + at % 60) for at in range(1_000)])
    assert said == {"consumed": 1_000, "matched": 1, "duplicate": 999}
    assert (pane.rows, pane.observed) == (2, 1)


def test_b65_amounts_in_another_unit_are_told_by_the_range_or_add_up() -> None:
    bodies = [
        event("1", 70, amount=12.5),
        event("1", 71, amount=1250),
        event("1", 72, amount=12.5),
        event("1", 72, amount=99),
    ]
    said, letters, pane = after(watched(), "conversions", bodies)
    assert [letter[0] for letter in letters] == ["value_out_of_range"]
    assert said == {"consumed": 4, "absurd": 1, "matched": 2, "contradictory": 1}
    assert pane.sums.total(Part.PROXIES, "value") == 25.0


# -- B66: ids without end


def test_b66_feedback_of_a_million_unknown_ids_costs_no_memory() -> None:
    own = watched()
    state = collector(own)
    assert state.joining is not None
    most = 0
    for minute in range(8):
        feed(state, own, [prediction(minute, 60 * minute)])
        feed_back(state, own, "clicks", [event(f"{minute}-{at}", 60 * minute) for at in range(25_000)])
        most = max(most, len(state.joining.join.streams["clicks"].log.chunks))
    counters = state.joining.counters("clicks")
    assert counters["orphan"] + counters["waiting"] == 200_000
    assert counters["waiting"] <= 75_000
    assert most == 2  # of 65,536 events each


@pytest.mark.parametrize("recorded_ms", [-1, EVENT_TIME_MS_MIN - 1, EVENT_TIME_MS_MAX, 1 << 62])
def test_a_retraction_whose_record_time_is_absurd_is_a_dead_letter_and_moves_no_watermark(recorded_ms: int) -> None:
    own = watched()
    state = collector(own)
    feed_back(state, own, "labels", [event("1", 60, label=1)])
    assert state.joining is not None
    before_ms = state.joining.join.streams["labels"].largest_ms
    one, at, zero = np.array([1]), np.array([recorded_ms]), np.array([0])
    tombstone = Records(np.frombuffer(b"1", np.uint8), one, at, zero, one, zero, -one, 2)
    state.apply("labels", decode_feedback(tombstone, feedback_layouts(own)["labels"]))
    assert state.joining.join.streams["labels"].largest_ms == before_ms
    (letter,) = [dict(output.headers) for output in state.outbox if output.topic == "dead-letters"]
    assert (letter["dlq.reason"], letter["dlq.offset"]) == (b"timestamp_range", b"1")
