"""What an operator says of metrics that need more than their name: refused where it makes no sense, and what comes of it."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import orjson
import pytest
from ruamel.yaml import YAML

sys.path.insert(0, str(Path(__file__).parents[1]))

from told_kit import MODEL, settings

from detectors.performance import Layout, PerformanceSums
from detectors.reference_performance import reference_performance
from stream.alerts import NO_TARGET
from stream.config import Config
from stream.config_checks import check
from stream.config_errors import ConfigError
from stream.config_loader import load_config
from stream.config_schema import json_schema
from stream.config_told import AMOUNT_MAX
from stream.events import AlertEvent, ComparisonEvent, PerformanceEvent
from stream.feedback_planning import feedback_deciding
from stream.join_feedback import FeedbackKind
from stream.monitor_settings import ModelSettings
from stream.performance_cells import cells_of
from stream.performance_contrasts import contrast_outputs
from stream.performance_detection import Chosen, PerformanceDetection, PerformanceLimit
from stream.performance_merging import Horizon
from stream.performance_plan import ModelPerformance, StreamPerformance
from stream.performance_records import Measured, ReferenceTest, performance_outputs
from stream.performance_told import Told, metric_of, quantile_of
from stream.performance_watch import PerformanceWatch
from stream.plan import ALL
from stream.planning import monitor_settings
from stream.window_log import Closed

MINUTE, LEARNING, ROWS = 60_000, 50, 200
AT = Horizon("labels", 2 * MINUTE)
LOSSES = {"metrics": ["quantile_loss", "mae"], "quantiles": [0.5, 0.9]}
PLAIN = {"metrics": ["mae"]}
VALUES = {"true_positive": 40, "false_positive": -3.5, "false_negative": -25, "true_negative": 0}
WORTH = {"metrics": ["business_value", "accuracy"], "business_value": {"unit": "EUR", "values": VALUES}}
REVENUE = {"proxies": ["kpi", "kpi_to_target"], "kpi": {"name": "revenue", "target": 1.0, "unit": "EUR"}}
DEARER = WORTH | {"business_value": {"unit": "EUR", "values": VALUES | {"false_negative": -500}}}


def configured(own: dict[str, Any], topic: str = "labels") -> Config:
    found = settings(own, topic)
    assert list(check(found)) == []
    return found


def plan_of(own: dict[str, Any], topic: str = "labels") -> ModelPerformance:
    plan = monitor_settings(configured(own, topic)).models[MODEL].performance
    assert plan is not None
    return plan


def watch_of(plan: ModelPerformance, *limits: PerformanceLimit) -> PerformanceWatch:
    detection = PerformanceDetection(LEARNING, limits=limits)
    return PerformanceWatch(ModelSettings(MODEL, performance=replace(plan, detection=detection), resolve_after=3))


def errors(seed: int, shift: float = 0.0) -> PerformanceSums:
    g, sums = np.random.default_rng(seed), PerformanceSums(Layout(errors=True))
    label = g.gamma(2.0, 5.0, ROWS)
    sums.add_errors(np.full(ROWS, 19.0 + shift), label)
    return sums


def decided(seed: int, right: float = 0.95) -> PerformanceSums:
    """Labels of two classes, of which a share is predicted right."""
    g, sums = np.random.default_rng(seed), PerformanceSums(Layout(classes=2, scores=True))
    label = (g.random(ROWS) < 0.3).astype(np.int64)
    predicted = np.where(g.random(ROWS) < right, label, 1 - label)
    sums.add_classes(predicted, label)
    sums.add_scores(predicted.astype(float), label)
    return sums


def sales(seed: int, mean: float) -> PerformanceSums:
    """Every tenth prediction brings something."""
    g, sums = np.random.default_rng(seed), PerformanceSums(Layout(proxies=True))
    bought = np.arange(ROWS) % 10 == 0
    amount = np.where(bought, g.gamma(8.0, 10.0 * mean / 8.0, ROWS), 0.0)
    sums.add_proxies(~bought, bought, amount, np.full(ROWS, np.nan))
    return sums


def measured(number: int, sums: PerformanceSums, plan: ModelPerformance, version: str = "1") -> Measured:
    stream = plan.streams[0]
    window = Closed(number * MINUTE, (number + 1) * MINUTE, ROWS, lost=False)
    return Measured(
        MODEL, version, ALL, stream.stream, 2 * MINUTE, "k", window, stream.kind.value, ROWS, ROWS, True, (), sums, told=plan.told
    )  # fmt: skip


def fed(watch: PerformanceWatch, plan: ModelPerformance, parts: list[PerformanceSums], first: int = 0) -> list[Any]:
    """Alerts of one window after the other; each has the shape that the wire contract promises."""
    found = []
    for number, sums in enumerate(parts, first):
        one = measured(number, sums, plan)
        at = Horizon(one.stream, one.horizon_ms)
        outputs = watch.window(at, one.window, [one], whole=True)[1]
        for output in outputs:
            AlertEvent.model_validate_json(output.value or b"")
        found += [orjson.loads(output.value or b"")["data"] for output in outputs]
    return found


@pytest.mark.parametrize(("own", "why"), [
    ({"metrics": ["quantile_loss"]}, "of no quantile"),
    ({"metrics": ["mae"], "quantiles": [0.5]}, "and no quantile_loss"),
    ({"metrics": ["quantile_loss"], "quantiles": [0.5, 0.5]}, "stands twice"),
    ({"metrics": ["quantile_loss"], "quantiles": [1.0]}, "DL-C014"),
    ({"metrics": ["quantile_loss"], "quantiles": [i / 11 for i in range(1, 11)]}, "10 entries"),
    (LOSSES | {"detectors": [{"type": "quantile_loss", "threshold": 1, "quantiles": [0.1]}]}, "0.1 is none of its"),
    (PLAIN | {"detectors": [{"type": "mae", "threshold": 1, "quantiles": [0.1]}]}, "mae is of no quantile"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(own: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        settings(own)


@pytest.mark.parametrize(("changes", "why"), [
    ({"metrics": ["accuracy"]}, "business_value, and no such metric"),
    ({"business_value": None}, "no values of business_value"),
    ({"business_value": {"unit": "EUR"}}, "neither values nor matrix"),
    ({"business_value": {"values": VALUES, "matrix": {"0": {"0": 1, "1": 0}, "1": {"0": 0, "1": 1}}}}, "both values"),
    ({"business_value": {"values": VALUES | {"true_positve": 1}}}, "true_positive"),
    ({"business_value": {"values": {"true_positive": 1}}}, "DL-C010"),
    ({"business_value": {"values": VALUES | {"true_positive": 1e50}}}, "at most 1000000000000.*DL-C014"),
    ({"business_value": {"values": VALUES | {"false_negative": -2e12}}}, "DL-C014"),
    ({"business_value": {"matrix": {"0": {"0": 1, "1": 2e12}, "1": {"0": 0, "1": 1}}}}, "DL-C014"),
    ({"business_value": {"values": VALUES | {"true_positive": float("inf")}}}, "DL-C014"),
    ({"classes": ["a", "b", "c"]}, "values are of two classes, there are 3"),
    ({"business_value": {"matrix": {"0": {"0": 1, "1": 0}}}}, "matrix: 1 is not there"),
    ({"business_value": {"matrix": {"0": {"0": 1, "1": 0}, "1": {"0": 1, "2": 0}}}}, "matrix.1: 1 is not there"),
    ({"business_value": {"matrix": {"0": {"0": 1, "1": 0}, "1": {"0": 1, "1": 1, "2": 0}}}}, "2 is none of the"),
])  # fmt: skip
def test_what_is_worth_nothing_that_can_be_counted_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        settings({name: each for name, each in (WORTH | changes).items() if each is not None})


@pytest.mark.parametrize(("changes", "why"), [
    ({"proxies": ["cvr"]}, "kpi, and no such proxy"),
    ({"kpi": None}, "nothing said of the kpi"),
    ({"kpi": {"name": "revenue"}}, "kpi_to_target, and no target"),
    ({"kpi": {"target": 1.0}}, "DL-C010"),
    ({"kpi": {"name": "revenue", "target": float("inf")}}, "DL-C014"),
    ({"kpi": {"name": "revenue", "target": 1e50}}, "at most 1000000000000.*DL-C014"),
    ({"kpi": {"name": "revenue", "target": -2e12}}, "DL-C014"),
    ({"kpi": {"name": "revenue", "target": 1.0, "per": "click"}}, "DL-C013"),
])  # fmt: skip
def test_a_kpi_of_which_too_little_is_said_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        settings({name: each for name, each in (REVENUE | changes).items() if each is not None}, "conversions")


@pytest.mark.parametrize("target", [0.0, 1.25, -AMOUNT_MAX, AMOUNT_MAX])
def test_a_kpi_to_its_target_tells_values_apart_beside_every_target(target: float) -> None:
    told = plan_of(REVENUE | {"kpi": {"name": "revenue", "target": target}}, "conversions").told
    low, high = (told.measure("kpi_to_target", sales(1, mean)).value for mean in (1.0, 1.001))
    assert low is not None
    assert high is not None
    assert high - low == pytest.approx(0.001, abs=0.0002)


@pytest.mark.parametrize("large", [AMOUNT_MAX, -AMOUNT_MAX])
def test_what_rows_are_worth_tells_amounts_apart_beside_every_other(large: float) -> None:
    own = WORTH["business_value"] | {"values": VALUES | {"true_positive": large}}
    sums = PerformanceSums(Layout(classes=2, scores=True))
    sums.add_classes(np.array([1, 1]), np.array([1, 0]))  # one of the amount that is large, one of -3.5
    estimates = [plan_of(WORTH | {"business_value": each}).told.measure("business_value", sums) for each in (
        own, own | {"values": own["values"] | {"false_positive": -3.501}},
    )]  # fmt: skip
    one, other = (estimate.value for estimate in estimates)
    assert one is not None
    assert other is not None
    assert one - other == pytest.approx(0.0005, abs=0.0002)
    assert all(np.isfinite([estimate.low, estimate.high]).all() for estimate in estimates)


def test_a_kpi_needs_a_topic_of_conversions() -> None:
    found = list(check(settings(REVENUE | {"metrics": ["mae"]})))
    assert {read for _, _, read, _ in found} == {
        f"{each} is of conversions, and there is no topic of them" for each in ("kpi", "kpi_to_target")
    }


@pytest.mark.parametrize(("own", "topic"), [(LOSSES, "labels"), (WORTH, "labels"), (REVENUE, "conversions")])
def test_the_schema_of_the_file_knows_it(own: dict[str, Any], topic: str) -> None:
    configured(own, topic)
    plain = {
        "kafka": {"bootstrap_servers": "a:1"},
        "topics": {"predictions": "p", topic: "l"},
        "models": {MODEL: {"reference": {"first": 5000}, "performance": {"horizons": ["2m"], **own}}},
    }
    jsonschema.validate(plain, json_schema())
    for name in own.keys() - {"metrics", "proxies"}:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(plain, _without(name))


MATRICES = {
    "numbers": ("[0, 1]", "{0: {0: 1, 1: -2}, 1: {0: -5, 1: 3}}"),
    "quoted": ("[0, 1]", '{"0": {"0": 1, "1": -2}, 1: {0: -5, "1": 3}}'),
    "true": ("[false, true]", "{false: {false: 1, true: -2}, true: {false: -5, true: 3}}"),
}


def of_keys(classes: str, performance: str) -> str:
    return f"""\
kafka: {{bootstrap_servers: a:1}}
topics: {{predictions: {{name: p, mapping: {{scores: {{p0: a, p1: b, p2: c}}}}}}, labels: l}}
models:
  m: {{reference: {{first: 5000}}, performance: {{horizons: [2m], classes: {classes}, {performance}}}}}
"""


@pytest.mark.parametrize(("classes", "matrix"), MATRICES.values(), ids=MATRICES)
def test_classes_that_are_numbers_are_keys_without_quotes(tmp_path: Path, classes: str, matrix: str) -> None:
    path = tmp_path / "monitor.yaml"
    path.write_text(text := of_keys(classes, f"metrics: [business_value], business_value: {{matrix: {matrix}}}"))
    own = load_config(path).models["m"].performance
    assert own is not None
    assert own.business_value is not None
    assert own.business_value.worth(own.classes, 1) == ((1, -2), (-5, 3))
    jsonschema.validate(YAML(typ="safe", pure=True).load(text), json_schema())
    path.write_text(of_keys("[0, 1, 2]", "metrics: [macro_auroc], class_scores: {0: p0, 1: p1, 2: p2}"))
    own = load_config(path).models["m"].performance
    assert own is not None
    assert own.class_scores == {"0": "p0", "1": "p1", "2": "p2"}


@pytest.mark.parametrize(("performance", "why"), [
    ("business_value: {matrix: {0: {0: 1, '0': 2}}}", r"matrix\.0\.0: the key stands twice .* DL-C005"),
    ("business_value: {matrix: {0.5: {0: 1}}}", r"the key 0\.5 is not text .* DL-C008"),
    (f"business_value: {{matrix: {{{'9' * 41}: {{0: 1}}}}}}", "is not text .* DL-C008"),
    ("business_value: {matrix: {0x_: {0: 1}}}", "0x_ is no number .* DL-C004"),
    ("business_value: {matrix: {[0]: {0: 1}}}", "a list or mapping as a key is not text .* DL-C008"),
    ("business_value: {matrix: {0: {0: {1: 1}}}}", "the key 1 is not text .* DL-C008"),
    ("business_value: {1: {0: 1}}", "the key 1 is not text .* DL-C008"),
    ("disparity: {1: a}", "the key 1 is not text .* DL-C008"),
])  # fmt: skip
def test_other_keys_are_text(tmp_path: Path, performance: str, why: str) -> None:
    path = tmp_path / "monitor.yaml"
    path.write_text(of_keys("[0, 1]", performance))
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    assert any(re.search(why, f"{p.path}: {p.read} {p.expected} {p.code}") for p in refused.value.problems)


def _without(name: str) -> dict[str, Any]:
    schema = json_schema()
    del schema["$defs"]["Performance"]["properties"][name]
    return schema


def test_a_series_has_its_metric_and_its_quantile() -> None:
    told = Told(quantiles=(0.05, 0.9))
    assert told.series("quantile_loss") == ("quantile_loss_0.05", "quantile_loss_0.9")
    assert (Told().series("quantile_loss"), Told().series("mae")) == ((), ("mae",))
    assert (metric_of("quantile_loss_0.9"), quantile_of("quantile_loss_0.9")) == ("quantile_loss", 0.9)
    assert (metric_of("mae"), quantile_of("mae")) == ("mae", None)


def test_each_quantile_is_a_cell_and_limits_may_choose_among_them() -> None:
    limits = [
        {"type": "quantile_loss", "threshold": 3, "quantiles": [0.9], "horizons": ["2m"]},
        {"type": "quantile_loss", "threshold": "3 std"},
        {"type": "cusum", "series": "quantile_loss", "quantiles": [0.5]},
    ]
    plan = plan_of(LOSSES | {"detectors": limits})
    assert [cell.metric for cell in cells_of(plan)] == ["mae", "quantile_loss_0.5", "quantile_loss_0.9"]
    one, both = (limit.chosen for limit in plan.detection.limits)
    (watcher,) = (each.chosen for each in plan.detection.watchers)
    meant = [[c.means(cell.metric, c_ms, ALL) for cell in cells_of(plan)] for c, c_ms in ((one, 120_000), (both, 1))]
    assert meant == [[False, False, True], [False, True, True]]
    assert [watcher.means(cell.metric, 1, ALL) for cell in cells_of(plan)] == [False, True, False]


def test_quantiles_are_no_concern_of_the_collectors_and_decide_about_alarms() -> None:
    one, other = (configured(LOSSES | {"quantiles": own}) for own in ([0.5], [0.5, 0.9]))
    assert feedback_deciding(one) == feedback_deciding(other)
    assert "quantiles" not in orjson.dumps(feedback_deciding(one)).decode()
    hashes = {monitor_settings(each).models[MODEL].detection_hash() for each in (one, other)}
    assert len(hashes) == 2


def test_a_kpi_is_no_concern_of_the_collectors_and_its_target_decides_about_alarms() -> None:
    one, other = (
        configured(REVENUE | {"kpi": {"name": "revenue", "target": target}}, "conversions") for target in (1.0, 2.0)
    )
    assert feedback_deciding(one) == feedback_deciding(other)
    assert "revenue" not in orjson.dumps(feedback_deciding(one)).decode()
    first, second = (monitor_settings(each).models[MODEL] for each in (one, other))
    assert first.detection_hash() != second.detection_hash()
    assert [cell.metric for cell in cells_of(first.performance)] == ["kpi", "kpi_to_target"]


def test_what_rows_are_worth_is_no_concern_of_the_collectors_and_decides_about_alarms() -> None:
    one, other = configured(WORTH), configured(DEARER)
    assert feedback_deciding(one) == feedback_deciding(other)
    assert "worth" not in (said := orjson.dumps(feedback_deciding(one)).decode())
    assert "EUR" not in said
    first, second = (monitor_settings(each).models[MODEL] for each in (one, other))
    assert first.detection_hash() != second.detection_hash()
    assert cells_of(first.performance) == cells_of(second.performance)


def test_a_limit_on_one_quantile_pages_for_it_alone() -> None:
    plan = plan_of(LOSSES)
    limit = PerformanceLimit(Chosen("quantile_loss", quantiles=(0.9,)), 1.0)
    (alert,) = fed(watch_of(plan, limit), plan, [errors(1)])
    assert (alert["target"], alert["metric"], alert["quantile"]) == ("quantile_loss_0.9@2m", "quantile_loss", 0.9)
    assert "quantile_loss_0.9" in alert["summary"]


def test_the_default_detector_finds_predictions_that_leave_their_quantile_and_restarts_change_nothing() -> None:
    plan = plan_of(LOSSES | {"metrics": ["quantile_loss"], "quantiles": [0.9]})
    watch = watch_of(plan)
    parts = [errors(seed) for seed in range(LEARNING + 10)] + [errors(seed, -10.0) for seed in range(100, 130)]
    assert fed(watch, plan, parts[:LEARNING]) == []
    again = watch_of(plan)
    again.load("w", {name: blob for name, blob in watch.blobs("w").items() if blob is not None}, same=True)
    found, restored = (fed(each, plan, parts[LEARNING:], LEARNING) for each in (watch, again))
    assert restored == found
    assert found[0]["target"] == "quantile_loss_0.9@2m"
    assert found[0]["consequence"]["verdict"] == "worse"
    assert found[0]["evidence"]["promise"].startswith("windows exchangeable")


def test_an_incident_of_a_quantile_that_is_gone_ends() -> None:
    plan = plan_of(LOSSES)
    watch = watch_of(plan, PerformanceLimit(Chosen("quantile_loss", quantiles=(0.9,)), 1.0))
    assert len(fed(watch, plan, [errors(1)])) == 1
    fewer = plan_of(LOSSES | {"quantiles": [0.5]})
    later = watch_of(fewer)
    later.load("w", {name: blob for name, blob in watch.blobs("w").items() if blob is not None}, same=False)
    (ended,) = fed(later, fewer, [errors(2)], 1)
    assert (ended["target"], ended["reason"]) == ("quantile_loss_0.9@2m", NO_TARGET)


def test_a_limit_on_business_value_says_the_unit() -> None:
    plan = plan_of(WORTH)
    watch = watch_of(plan, PerformanceLimit(Chosen("business_value"), None, 8.0))
    (alert,) = fed(watch, plan, [decided(1, right=0.6)])
    assert (alert["target"], alert["unit"]) == ("business_value@2m", "EUR")
    assert alert["effect"]["now"]["business_value"] < 8.0
    assert f"business_value {alert['effect']['now']['business_value']:.4g} EUR within 2m" in alert["summary"]


def test_business_value_is_judged_and_begins_anew_where_rows_are_worth_something_else() -> None:
    plan, dearer = plan_of(WORTH), plan_of(DEARER)
    watch = watch_of(plan)
    assert fed(watch, plan, [decided(seed) for seed in range(LEARNING)]) == []
    saved = {name: blob for name, blob in watch.blobs("w").items() if blob is not None}
    worse = fed(watch, plan, [decided(seed, right=0.8) for seed in range(100, 130)], LEARNING)
    assert {each["target"] for each in worse} == {"business_value@2m", "accuracy@2m"}
    first = next(each for each in worse if each["target"] == "business_value@2m")
    assert first["consequence"]["verdict"] == "worse"
    assert " EUR of its first windows" in first["consequence"]["why"]
    later = watch_of(dearer)
    later.load("w", saved, same=False)
    one = measured(LEARNING, decided(99), dearer)
    states, _ = later.window(AT, one.window, [one], whole=True)
    found = {metric: state for (_, _, metric), state in states.items()}
    assert (found["business_value"]["learnt"], found["accuracy"]["state"]) == (1, "judged")


def test_a_kpi_below_its_target_pages_where_a_limit_says_so() -> None:
    plan = plan_of(REVENUE, "conversions")
    watch = watch_of(plan, PerformanceLimit(Chosen("kpi_to_target"), None, -0.3))
    assert fed(watch, plan, [sales(1, 1.0)]) == []
    (alert,) = fed(watch, plan, [sales(2, 0.5)], 1)
    assert (alert["target"], alert["kpi"], alert["target_value"]) == ("kpi_to_target@2m", "revenue", 1.0)
    assert alert["summary"].startswith("kpi_to_target revenue -0.")
    assert " EUR within 2m" in alert["summary"]


@pytest.mark.parametrize(("better", "verdict"), [("higher", "worse"), ("lower", "better")])
def test_a_kpi_is_judged_and_says_whether_it_got_worse(better: str, verdict: str) -> None:
    plan = plan_of(REVENUE | {"kpi": REVENUE["kpi"] | {"better": better}}, "conversions")
    watch = watch_of(plan)
    assert fed(watch, plan, [sales(seed, 1.0) for seed in range(LEARNING)]) == []
    found = fed(watch, plan, [sales(seed, 0.5) for seed in range(100, 140)], LEARNING)
    assert {each["target"] for each in found} == {"kpi@2m", "kpi_to_target@2m"}
    assert {each["consequence"]["verdict"] for each in found} == {verdict}


def test_another_target_begins_the_gap_anew_and_keeps_the_kpi() -> None:
    plan, other = (
        plan_of(REVENUE | {"kpi": REVENUE["kpi"] | {"target": target}}, "conversions") for target in (1.0, 2.0)
    )
    watch, later = watch_of(plan), watch_of(other)
    fed(watch, plan, [sales(seed, 1.0) for seed in range(LEARNING)])
    later.load("w", {name: blob for name, blob in watch.blobs("w").items() if blob is not None}, same=False)
    one = measured(LEARNING, sales(99, 1.0), other)
    states, _ = later.window(Horizon("conversions", 2 * MINUTE), one.window, [one], whole=True)
    found = {metric: state for (_, _, metric), state in states.items()}
    assert (found["kpi_to_target"]["learnt"], found["kpi"]["state"]) == (1, "judged")


def test_the_test_value_is_shown_only_where_rows_were_worth_the_same() -> None:
    plan, dearer = plan_of(WORTH), plan_of(DEARER)
    sums = decided(5)
    name = plan.told.stored("business_value")
    kept = reference_performance("k", (name,), {"all": sums}, lambda _, each: plan.told.measure("business_value", each))
    test = ReferenceTest("r", kept)
    (said,) = said_of(measured(0, sums, plan), test)
    assert said["test"]["value"] == pytest.approx(said["value"], rel=1e-9)
    assert said["live_over_test"]["value"] == pytest.approx(1.0, rel=1e-9)
    (said,) = said_of(measured(0, sums, dearer), test)
    assert "test" not in said


def said_of(one: Measured, test: ReferenceTest) -> list[dict[str, Any]]:
    """Data of the records of business_value."""
    outputs = performance_outputs(one, ("business_value",), test)
    found = [PerformanceEvent.model_validate_json(output.value or b"") for output in outputs]
    return [each.data.model_dump(exclude_none=True) for each in found if each.data.metric == "business_value"]


def test_versions_are_compared_at_each_quantile() -> None:
    plan = plan_of(LOSSES)
    both = [measured(0, errors(1), plan), measured(0, errors(2, 5.0), plan, "2")]
    outputs = list(contrast_outputs(both, replace(plan, champion="1"), ("quantile_loss",)))
    found = [ComparisonEvent.model_validate_json(output.value or b"") for output in outputs]
    assert [(event.data.metric, event.data.quantile) for event in found] == [
        ("quantile_loss", 0.5),
        ("quantile_loss", 0.9),
    ]
    assert len({event.id for event in found}) == 2
    for event in found:
        sides = [each.estimate(f"quantile_loss_{event.data.quantile}").value for each in both]
        assert event.data.difference.value == pytest.approx(sides[1] - sides[0])


def test_streams_of_classes_have_no_quantiles() -> None:
    stream = StreamPerformance("labels", FeedbackKind.LABEL, (60_000,), (), Layout(classes=2, scores=True))
    plan = ModelPerformance(MODEL, ("0", "1"), 1, (stream,), told=Told(quantiles=(0.5,)))
    assert not [cell for cell in cells_of(plan) if cell.metric.startswith("quantile_loss")]
