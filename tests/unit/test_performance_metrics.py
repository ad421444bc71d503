"""Realised performance by hand: small numbers, and every case in which a metric has no value."""

from __future__ import annotations

import math

import jsonschema
import numpy as np
import pytest

from detectors.performance import (
    METRICS,
    Estimate,
    Layout,
    MetricSettings,
    PerformanceSums,
    Task,
    confusion_matrix,
    default_score_cuts,
    difference,
    kept,
    measure,
    ratio,
    schema,
    score_cuts,
)
from detectors.performance.disparity import DISPARITIES, disparity
from detectors.performance.layout import Part
from detectors.performance.paired import COMPARED, PairedSums
from detectors.verdict import BadCounts, BadSettings, BadState

BINARY = Layout(classes=2, scores=True)
NUMBERS = Layout(errors=True)


def codes(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def binary(predicted: str, label: str, score: list[float] | None = None, layout: Layout = BINARY) -> PerformanceSums:
    """Digits, "-" = none."""
    p, y = (codes(*(-1 if c == "-" else int(c) for c in text)) for text in (predicted, label))
    sums = PerformanceSums(layout)
    sums.add_classes(p, y)
    sums.add_scores(np.array(score if score is not None else p, np.float64), y)
    return sums


def numbers(predicted: list[float], label: list[float], layout: Layout = NUMBERS) -> PerformanceSums:
    sums = PerformanceSums(layout)
    sums.add_errors(np.array(predicted, np.float64), np.array(label, np.float64))
    return sums


def value(name: str, sums: PerformanceSums, **settings: object) -> float | None:
    return measure(name, sums, MetricSettings(**settings)).value


def test_a_confusion_matrix_by_hand() -> None:
    sums = binary("1110000-012", "110100011--")
    assert confusion_matrix(sums).tolist() == [[3, 1], [2, 2]]
    assert sums.count(Part.CONFUSION, "left_out").tolist() == [2, 0, 1]
    expected = {"accuracy": 5 / 8, "precision": 2 / 3, "recall": 0.5, "specificity": 0.75, "false_positive_rate": 0.25}
    expected |= {"f1": 4 / 7, "prevalence": 0.5, "selection_rate": 4 / 9, "macro_recall": 0.625}
    for name, by_hand in expected.items():
        assert value(name, sums) == pytest.approx(by_hand), name
    worth = np.array([[1.0, -10.0], [-2.0, 5.0]])
    assert value("business_value", sums, value=worth) == pytest.approx((3 - 10 - 4 + 10) / 8)


def test_the_positive_class_may_be_the_other_one() -> None:
    layout = Layout(classes=2, scores=True, positive=0)
    sums = binary("0110", "0010", [0.9, 0.2, 0.1, 0.3], layout)
    assert value("recall", sums) == pytest.approx(2 / 3)
    assert value("precision", sums) == 1.0
    assert value("auroc", sums) == 1.0
    assert value("observed_over_expected", sums) == pytest.approx(3 / 1.5)


def test_rows_left_out_are_counted_one_by_one() -> None:
    sums = binary("11103", "1-701", [math.nan, 0.5, 0.5, math.inf, 1.5])
    assert sums.count(Part.CONFUSION, "left_out").tolist() == [1, 1, 1]
    assert sums.count(Part.SCORES, "left_out").tolist() == [2, 1]
    found = numbers([1.0, 1.0, 1e51, math.nan, 2.0], [math.nan, math.inf, 1.0, 1.0, 3.0])
    assert found.count(Part.ERRORS, "left_out").tolist() == [1, 3]
    assert found.count(Part.ERRORS, "rows").tolist() == [1]
    proxies = PerformanceSums(Layout(proxies=True))
    click = np.array([True, True, False])
    proxies.add_proxies(click, ~click, np.array([1.0, math.nan, 3.0]), np.array([0.5, math.nan, 2.0]))
    assert proxies.count(Part.PROXIES, "rows").tolist() == [3, 2, 1, 1, 1, 1]
    assert value("value_per_prediction", proxies) == 2.0
    assert value("clicks_over_expected", proxies) == 2.0
    assert value("kpi_to_target", proxies, target=2.5) == -0.5


def test_a_kpi_is_of_predictions_or_of_conversions_alone() -> None:
    sums = PerformanceSums(Layout(proxies=True))
    bought = np.array([True, True, True, False, False])
    sums.add_proxies(~bought, bought, np.array([3.0, 6.0, math.inf, 0.0, 0.0]), np.full(5, math.nan))
    assert value("kpi", sums) == value("value_per_prediction", sums) == 9 / 4
    assert value("kpi", sums, per_conversion=True) == 9 / 2
    assert value("kpi_to_target", sums, per_conversion=True, target=5.0) == -0.5
    found = measure("kpi", sums, MetricSettings(per_conversion=True))
    spread = math.exp(12.7062047 * np.std([3.0, 6.0], ddof=1) / 2**0.5 / 4.5)  # Student's, one degree of freedom
    assert (found.low, found.high, found.events) == (pytest.approx(4.5 / spread), pytest.approx(4.5 * spread), 2)


def bought(price: float, times: int, rows: int = 1000) -> PerformanceSums:
    """Of so many predictions, conversions of one price."""
    sums, paid = PerformanceSums(Layout(proxies=True)), np.arange(rows) < times
    sums.add_proxies(~paid, paid, np.where(paid, price, 0.0), np.full(rows, math.nan))
    return sums


def test_conversions_of_one_price_have_an_interval_however_its_square_is_rounded() -> None:
    rate = measure("cvr", bought(1.0, 3))
    for price in (cents / 100 for cents in range(1, 2001, 7)):
        found = measure("value_per_prediction", bought(price, 3))
        assert found.low == pytest.approx(price * (rate.low or 0.0), rel=1e-6)
        assert found.high == pytest.approx(price * (rate.high or 0.0), rel=1e-6)
        of_each = measure("kpi", bought(price, 40), MetricSettings(per_conversion=True))
        assert (of_each.low, of_each.high) == (pytest.approx(price), pytest.approx(price))
    errors = measure("mae", numbers([0.1, 0.8, 0.3], [0.0, 0.7, 0.2]))
    assert errors.low == pytest.approx(0.1)


@pytest.mark.parametrize("price", [1e-37, 1e-60])
def test_values_whose_squares_are_too_small_to_keep_have_no_interval(price: float) -> None:
    for name, settings in (("value_per_prediction", MetricSettings()), ("kpi_to_target", MetricSettings(target=0.0))):
        found = measure(name, bought(price, 3), settings)
        assert found.value == pytest.approx(price * 3 / 1000)
        assert (found.low, found.high) == (None, None)
        assert "no digits left" in found.reason


def test_ranking_by_hand() -> None:
    sums = binary("0000000000", "0001000011", [i / 10 for i in range(10)])
    assert value("auroc", sums) == pytest.approx(17 / 21)
    assert value("gini", sums) == pytest.approx(13 / 21)
    assert value("average_precision", sums) == pytest.approx((1 + 1 + 3 / 7) / 3)
    assert value("ks_of_classes", sums) == pytest.approx(2 / 3)
    assert value("lift_at_top_decile", sums) == pytest.approx(10 / 3)
    assert measure("auroc", sums).error == 0.0


def test_one_bin_hides_the_order_and_says_how_much() -> None:
    layout = Layout(classes=2, scores=True, cuts=np.array([0.99]))
    sums = binary("0000", "0011", [0.1, 0.2, 0.3, 0.4], layout)
    assert measure("auroc", sums).value == measure("auroc", sums).error == 0.5
    found = measure("average_precision", sums)  # of the six orders: 1, 5/6, 3/4, 7/12, 1/2, 5/12
    assert found.value == pytest.approx((1 + 5 / 6 + 3 / 4 + 7 / 12 + 1 / 2 + 5 / 12) / 6)
    assert found.error == pytest.approx(1 - found.value)
    assert measure("ks_of_classes", sums).error == 1.0
    assert measure("lift_at_top_decile", sums).value == pytest.approx(1.0)
    assert measure("lift_at_top_decile", sums).error == pytest.approx(1.0)


def test_a_score_at_a_cut_is_in_the_bin_above() -> None:
    sums = binary("000", "011", [0.4, 0.5, 0.6], Layout(classes=2, scores=True, cuts=np.array([0.5])))
    assert sums.count(Part.SCORES, "bins").tolist() == [[1, 0], [0, 2]]
    assert value("auroc", sums) == 1.0


def test_signed_errors_by_hand() -> None:
    sums = numbers([3.0, 5.0, 2.0, 8.0], [2.0, 5.0, 4.0, 4.0])  # errors 1, 0, -2, 4
    expected = {"mae": 7 / 4, "mse": 21 / 4, "rmse": math.sqrt(21 / 4), "mean_signed_error": 0.75, "wape": 7 / 15}
    expected |= {"share_over_predicted": 0.5, "mean_signed_percentage_error": (0.5 - 0.5 + 1) / 4, "mape": 0.5}
    for name, by_hand in expected.items():
        assert value(name, sums) == pytest.approx(by_hand), name
    assert value("quantile_loss", sums, quantile=0.9) == pytest.approx((0.1 + 1.8 + 0.4) / 4)


def test_a_bias_that_mae_does_not_see_is_in_the_signed_error() -> None:
    """1 % of the target's deviation, where the error's is a tenth of it."""
    g = np.random.default_rng(0)
    label = g.normal(0.0, 1.0, 5000)
    noise = g.normal(0.0, 0.1, 5000)
    quiet, biased = numbers(label + noise, label), numbers(label + noise + 0.01, label)
    found = measure("mean_signed_error", biased)
    assert found.low > 0.0
    assert measure("mean_signed_error", quiet).low < 0.0
    one, other = measure("mae", quiet), measure("mae", biased)
    assert other.low < one.value < other.high


UNDEFINED = [
    ("accuracy", binary("11", "--"), "no labelled rows"),
    ("precision", binary("00", "01"), "no row with a label is predicted positive"),
    ("recall", binary("01", "00"), "no positive labels"),
    ("specificity", binary("01", "11"), "no negative labels"),
    ("f1", binary("00", "00"), "no positive label and no positive prediction"),
    ("selection_rate", binary("-", "1"), "no predictions"),
    ("macro_f1", binary("1", "-"), "no labelled rows"),
    ("auroc", binary("01", "11"), "only positive labels with a score"),
    ("average_precision", binary("01", "00"), "only negative labels with a score"),
    ("ks_of_classes", binary("01", "--"), "no scored labels"),
    ("lift_at_top_decile", binary("01", "11", [math.nan, 0.3]), "only positive labels with a score"),
    ("log_loss", binary("01", "01", [-0.5, 0.5]), "1 of 2 scores are outside 0 to 1: no probabilities"),
    ("brier", binary("01", "--"), "no labelled rows with a score"),
    ("observed_over_expected", binary("01", "01", [0.0, 0.0]), "the scores sum up to 0: nothing was expected"),
    ("mae", numbers([1.0], [math.nan]), "no labelled rows"),
    ("mape", numbers([1.0, 1.0], [0.0, 2.0]), "1 of 2 labels are 0: an error has no percentage of them"),
    (
        "mean_signed_percentage_error",
        numbers([1.0], [1e-17]),
        "1 of 1 labels are 0: an error has no percentage of them",
    ),
    ("wape", numbers([1.0], [0.0]), "all labels are 0"),
    ("rmsle", numbers([-1.0, 1.0], [1.0, 1.0]), "1 of 2 labels or predictions are negative: no logarithm of them"),
    ("r2", numbers([1.0, 2.0], [3.0, 3.0]), "all labels are equal"),
    ("ctr", PerformanceSums(Layout(proxies=True)), "no predictions"),
    ("kpi", PerformanceSums(Layout(proxies=True)), "no predictions"),
]


@pytest.mark.parametrize(("name", "sums", "reason"), UNDEFINED, ids=[f"{x[0]}-{x[2][:12]}" for x in UNDEFINED])
def test_what_is_undefined_says_why(name: str, sums: PerformanceSums, reason: str) -> None:
    found = measure(name, sums)
    assert (found.value, found.low, found.high, found.reason) == (None, None, None, reason)
    assert not found.defined


def test_scores_of_classes_that_are_no_probabilities() -> None:
    layout = Layout(classes=3, class_scores=True)
    sums = PerformanceSums(layout)
    sums.add_class_scores(np.array([[0.5, 0.5, 0.5], [0.2, 0.3, 0.5], [np.nan, 0.5, 0.5]]), codes(0, 2, 1))
    reason = "the scores of 1 of 2 rows are negative or do not sum up to 1: no probabilities"
    assert measure("class_log_loss", sums).reason == reason
    assert value("macro_auroc", sums) == pytest.approx(0.75)
    only = PerformanceSums(layout)
    only.add_class_scores(np.array([[0.2, 0.3, 0.5]]), codes(1))
    assert measure("macro_auroc", only).reason == "labels with scores of fewer than two classes"


def test_one_row_has_a_value_and_no_interval() -> None:
    found = measure("mae", numbers([1.0], [3.0]))
    assert (found.value, found.low, found.reason) == (2.0, None, "one row has no interval")


def test_r2_keeps_its_value_where_its_interval_has_lost_its_digits() -> None:
    g = np.random.default_rng(1)
    label = 1e7 + g.normal(size=500)
    predicted = label + g.normal(0.0, 0.5, 500)
    far, near = numbers(predicted, label), numbers(predicted, label, Layout(errors=True, centre=1e7))
    by_hand = 1 - ((predicted - label) ** 2).sum() / ((label - label.mean()) ** 2).sum()
    assert measure("r2", far).value == pytest.approx(by_hand, rel=1e-9)
    assert measure("r2", far).low is None
    assert measure("r2", near).low < by_hand < measure("r2", near).high
    assert measure("r2", near).value == measure("r2", far).value


def test_a_perfect_model_still_has_a_lower_end() -> None:
    sums = binary("0011" * 25, "0011" * 25, [0.1, 0.2, 0.8, 0.9] * 25)
    for name in ("accuracy", "auroc", "average_precision", "f1", "macro_f1", "gini"):
        found = measure(name, sums)
        assert found.value == pytest.approx(1.0), name
        assert 0.85 < found.low < found.high, name


def test_settings_and_names_that_cannot_be_used() -> None:
    sums, k = binary("01", "01"), PerformanceSums(Layout(proxies=True, classes=3))
    refused = {
        "'auc' is no metric": lambda: measure("auc", sums),
        "it needs errors, which is not kept": lambda: measure("mae", sums),
        "it needs two classes": lambda: measure("recall", k),
        "a target is needed": lambda: measure("kpi_to_target", k),
        "2 x 2 cells": lambda: measure("business_value", sums, MetricSettings(value=np.eye(3))),
        "1.0 is not between 0 and 1": lambda: measure(
            "quantile_loss", numbers([1.0], [1.0]), MetricSettings(quantile=1.0)
        ),
        "confidence": lambda: measure("recall", sums, MetricSettings(confidence=1.0)),
        "is no disparity": lambda: disparity("auroc", sums, sums),
        "cannot be compared in pairs": lambda: PairedSums(BINARY, BINARY).compare("lift_at_top_decile"),
        "both models need": lambda: PairedSums(BINARY, NUMBERS),
        "classes: 1": lambda: Layout(classes=1),
        "where there are two": lambda: Layout(classes=3, scores=True),
        "positive: 2": lambda: Layout(classes=2, scores=True, positive=2),
        "class_scores: of": lambda: Layout(classes=100, class_scores=True),
        "cuts": lambda: Layout(classes=2, cuts=np.array([1.0, 1.0])),
        "quantiles": lambda: Layout(errors=True, quantiles=(1.0,)),
        "centre": lambda: Layout(errors=True, centre=math.nan),
        "keeps nothing": Layout,
        "bins of scores": lambda: score_cuts(np.zeros(3), 1),
    }
    for reason, call in refused.items():
        with pytest.raises(BadSettings, match=reason):
            call()
    with pytest.raises(BadCounts, match="errors is not kept"):
        sums.add_errors(np.zeros(1), np.zeros(1))
    with pytest.raises(BadState):
        PairedSums(BINARY, BINARY).merge(PairedSums(BINARY, Layout(classes=2, scores=True, cuts=np.array([0.5]))))


def test_cuts_of_scores() -> None:
    assert len(default_score_cuts()) == 255
    assert (np.diff(default_score_cuts()) > 0).all()
    assert score_cuts(np.repeat([0.1, 0.5], 500)).tolist() == [0.1, 0.5]
    assert len(score_cuts(np.linspace(0, 1, 10_000))) == 255
    assert score_cuts(np.array([np.nan])).tolist() == default_score_cuts().tolist()


def group(selected: int, right: int, total: int, positives: int) -> PerformanceSums:
    """`right` of the `selected` are positive labels; scores are .25 for all."""
    label = np.zeros(total, np.int64)
    label[:right] = label[total - positives + right :] = 1
    sums = PerformanceSums(BINARY)
    sums.add_classes((np.arange(total) < selected).astype(np.int64), label)
    sums.add_scores(np.full(total, 0.25), label)
    return sums


def test_disparities_by_hand() -> None:
    a, b = group(20, 10, 100, 30), group(80, 60, 200, 100)
    expected = {"selection_rate": (0.2, 0.4), "recall": (1 / 3, 0.6), "precision": (0.5, 0.75)}
    expected |= {"false_positive_rate": (10 / 70, 0.2)}
    for name, (x, y) in expected.items():
        found = disparity(name, a, b, least_events=20)
        assert found.difference.value == pytest.approx(x - y), name
        assert found.ratio.value == pytest.approx(x / y), name
        assert found.difference.low < x - y < found.difference.high
        assert found.ratio.low < x / y < found.ratio.high
    found = disparity("calibration", a, b)
    assert found.difference.value == pytest.approx((0.25 - 0.3) - (0.25 - 0.5))
    assert found.ratio.value == pytest.approx(1.2 / 2.0)


def test_small_groups_and_impossible_ratios_say_so() -> None:
    a, b = group(20, 10, 100, 30), group(80, 60, 200, 100)
    assert disparity("precision", a, b).difference.reason == "group: 20 events, at least 30 are needed"
    assert disparity("precision", b, a).ratio.reason == "reference group: 20 events, at least 30 are needed"
    none = disparity("selection_rate", group(0, 0, 100, 30), b)
    assert none.difference.value == pytest.approx(-0.4)
    assert none.ratio.reason == "a ratio needs both to be above 0"
    assert disparity("precision", group(0, 0, 100, 30), b).difference.reason.startswith("group: no row with a label")
    ninety, other = Estimate(1.0, 0.9, 1.1, 0.9, 5), Estimate(1.0, 0.9, 1.1, 0.95, 5)
    assert difference(ninety, other).reason == ratio(ninety, other).reason == "confidences differ: 0.9 and 0.95"
    assert ratio(other, Estimate(1.0, -1.0, 3.0, 0.95, 5)).reason == "a ratio needs intervals that stay above 0"


def test_pairing_narrows_the_interval_as_much_as_models_agree() -> None:
    g = np.random.default_rng(2)
    x = g.normal(size=3000)
    label = (g.random(3000) < 1 / (1 + np.exp(-x))).astype(np.int64)
    same, noisy = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(-x - g.normal(0, 0.3, 3000)))
    both = PairedSums(BINARY, BINARY)
    both.add_scores(same, noisy, label)
    both.add_classes((same > 0.5).astype(np.int64), (noisy > 0.5).astype(np.int64), label)
    paired = [name for name in COMPARED if METRICS[name].task is not Task.REGRESSION]
    for name in paired:
        found, apart = both.compare(name), difference(measure(name, both.a), measure(name, both.b))
        assert found.value == pytest.approx(apart.value, abs=1e-12)
        assert found.high - found.low < 0.6 * (apart.high - apart.low), name
    twice = PairedSums(BINARY, BINARY)
    twice.add_scores(same, same, label)
    twice.add_classes((same > 0.5).astype(np.int64), (same > 0.5).astype(np.int64), label)
    for name in paired:
        found = twice.compare(name)
        assert found.value == 0.0
        assert found.high - found.low < 4e-3, name  # what is left is how far Wilson's intervals lie to one side
    assert PairedSums(BINARY, BINARY).compare("auroc").reason == "a: no scored labels"


def test_the_registry_says_everything_of_every_metric() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name
        for text in (metric.title, metric.interval, metric.undefined, metric.source, metric.error):
            assert text.strip(), name
    jsonschema.validate("auroc", schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate("auc", schema())
    assert "recall" not in kept(Layout(classes=3))
    assert set(kept(NUMBERS)) == {name for name, metric in METRICS.items() if metric.task is Task.REGRESSION}
    assert {name for pair in DISPARITIES.values() for name in pair} <= set(METRICS)
