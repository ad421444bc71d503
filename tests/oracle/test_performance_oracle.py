"""Realised performance against scikit-learn and SciPy on the same rows: sums to 1e-9, histograms within their stated error."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binomtest, ks_2samp, t
from sklearn import metrics as sk

from detectors.normal import ppf
from detectors.performance import Layout, MetricSettings, PerformanceSums, confusion_matrix, measure, score_cuts
from detectors.performance.estimate import student_value
from detectors.performance.intervals import difference, wilson
from detectors.performance.paired import PairedSums
from detectors.performance.ranking import auroc_of

SIZES = (3, 40, 1000, 50_000)


def classified(n: int, seed: int, shape: str = "middle") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(score, predicted, label) of both classes."""
    g = np.random.default_rng(seed)
    score = {
        "middle": lambda: 1 / (1 + np.exp(-g.normal(0, 1.5, n))),
        "rare": lambda: g.beta(0.5, 200.0, n),
        "sure": lambda: np.where(g.random(n) < 0.5, g.beta(0.3, 30, n), g.beta(30, 0.3, n)),
        "ties": lambda: g.integers(0, 11, n) / 10.0,
    }[shape]()
    label = (g.random(n) < score).astype(np.int64)
    label[:2] = 0, 1
    return score, (score > np.median(score)).astype(np.int64), label


def binary(
    score: np.ndarray, predicted: np.ndarray, label: np.ndarray, layout: Layout | None = None
) -> PerformanceSums:
    sums = PerformanceSums(layout or Layout(classes=2, scores=True))
    sums.add_classes(predicted, label)
    sums.add_scores(score, label)
    return sums


SHAPES = ("middle", "rare", "sure", "ties")


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_classification_equals_scikit_learn(n: int, shape: str) -> None:
    score, predicted, label = classified(n, n, shape)
    sums = binary(score, predicted, label)
    matrix = sk.confusion_matrix(label, predicted, labels=[0, 1])
    np.testing.assert_array_equal(confusion_matrix(sums), matrix)
    worth = np.array([[0.5, -2.0], [-7.0, 3.0]])
    exact = {
        "accuracy": sk.accuracy_score(label, predicted),
        "recall": sk.recall_score(label, predicted),
        "specificity": sk.recall_score(label, predicted, pos_label=0),
        "false_positive_rate": 1 - sk.recall_score(label, predicted, pos_label=0),
        "f1": sk.f1_score(label, predicted),
        "log_loss": sk.log_loss(label, score),
        "brier": sk.brier_score_loss(label, score),
        "expected_rate": score.mean(),
        "prevalence": label.mean(),
        "selection_rate": predicted.mean(),
        "observed_over_expected": label.sum() / score.sum(),
        "calibration_gap": (score - label).mean(),
        "calibration_error": sum(
            abs((score - label)[np.minimum((score * 10).astype(int), 9) == b].sum()) / n for b in range(10)
        ),
        "business_value": (matrix * worth).sum() / n,
        "macro_f1": sk.f1_score(label, predicted, average="macro"),
        "macro_recall": sk.balanced_accuracy_score(label, predicted),
    }
    if predicted.any():
        exact["precision"] = sk.precision_score(label, predicted)
        exact["macro_precision"] = sk.precision_score(label, predicted, average="macro", zero_division=0)
    for name, value in exact.items():
        found = measure(name, sums, MetricSettings(value=worth))
        assert found.value == pytest.approx(value, rel=1e-9, abs=1e-12), name


def best_lift(score: np.ndarray, label: np.ndarray) -> float:
    """Of the tenth with the highest scores; equal scores at its edge count in part."""
    order = np.argsort(-score, kind="stable")
    s, y, wanted = score[order], label[order], 0.1 * len(score)
    edge = s[min(math.ceil(wanted) - 1, len(s) - 1)]
    above, tied = s > edge, s == edge
    hits = y[above].sum() + (wanted - above.sum()) * y[tied].mean()
    return float(hits / y.sum() / 0.1)


@pytest.mark.parametrize("cuts", ["default", "reference"])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_histograms_are_within_their_stated_error(n: int, shape: str, cuts: str) -> None:
    score, predicted, label = classified(n, n + 1, shape)
    layout = Layout(classes=2, scores=True)
    if cuts == "reference":
        layout = Layout(classes=2, scores=True, cuts=score_cuts(classified(20_000, 5, shape)[0]))
    sums = binary(score, predicted, label, layout)
    # equal scores are one threshold for scikit-learn, for us orders of which the bound holds the best and the worst
    exact = {
        "auroc": sk.roc_auc_score(label, score),
        "gini": 2 * sk.roc_auc_score(label, score) - 1,
        "average_precision": sk.average_precision_score(label, score),
        "ks_of_classes": ks_2samp(score[label == 0], score[label == 1]).statistic,
        "lift_at_top_decile": best_lift(score, label),
    }
    for name, value in exact.items():
        found = measure(name, sums)
        assert abs(found.value - value) <= found.error + 1e-12, (name, found, value)


@pytest.mark.parametrize("values", [2, 5, 40])
def test_average_precision_of_many_equal_scores_is_within_its_error(values: int) -> None:
    """Also where a later tie holds more positives than what is before it: no order of its rows has the precision of the tie."""
    g = np.random.default_rng(values)
    beyond = 0
    for _ in range(200):
        score = g.integers(0, values, 60) / 50.0
        label = (g.random(60) < g.random(values)[(score * 50).astype(int)]).astype(int)
        if not 0 < label.sum() < 60:
            continue
        layout = Layout(classes=2, scores=True, cuts=np.arange(0.03, 0.8, 0.06))
        found = measure("average_precision", binary(score, label, label, layout))
        exact = sk.average_precision_score(label, score)
        assert abs(found.value - exact) <= found.error + 1e-12
        beyond += exact > found.value
    assert beyond > 10


@pytest.mark.parametrize("shape", ["middle", "rare", "sure"])
def test_what_256_bins_cost(shape: str) -> None:
    """Figures of the documents: 100,000 rows, cuts from a reference of 20,000."""
    worst = {"auroc": 0.0, "average_precision": 0.0}
    for seed in range(5):
        score, predicted, label = classified(100_000, seed, shape)
        layout = Layout(classes=2, scores=True, cuts=score_cuts(classified(20_000, 99, shape)[0]))
        sums = binary(score, predicted, label, layout)
        exact = {"auroc": sk.roc_auc_score(label, score), "average_precision": sk.average_precision_score(label, score)}
        for name, value in exact.items():
            worst[name] = max(worst[name], abs(measure(name, sums).value - value))
    limits = {"middle": (2e-5, 2e-4), "rare": (2.5e-4, 2.5e-3), "sure": (2e-5, 2e-5)}  # rare: 250 positive labels
    assert worst["auroc"] < limits[shape][0]
    assert worst["average_precision"] < limits[shape][1]


def test_four_times_as_many_bins_bring_the_bound_down() -> None:
    score, predicted, label = classified(50_000, 3)
    errors = []
    for bins in (64, 256, 1024):
        sums = binary(score, predicted, label, Layout(classes=2, scores=True, cuts=score_cuts(score, bins)))
        errors.append([measure(name, sums).error for name in ("auroc", "average_precision", "ks_of_classes")])
    for coarse, fine in itertools.pairwise(errors):
        assert all(0 < f < 0.5 * c for c, f in zip(coarse, fine, strict=True)), errors


def test_delong_is_the_variance_of_auroc() -> None:
    """Against DeLong's own sums over rows, of scores that are the bins themselves."""
    g = np.random.default_rng(4)
    score = g.integers(0, 20, 300)
    label = (g.random(300) < (score + 2) / 25).astype(int)
    positives, negatives = score[label == 1][:, None], score[label == 0][None, :]
    beaten = (positives > negatives) + 0.5 * (positives == negatives)
    exact = np.var(beaten.mean(axis=1), ddof=1) / len(positives) + np.var(beaten.mean(axis=0), ddof=1) / negatives.size
    counts = [np.bincount(score[label == y], minlength=20).astype(float) for y in (0, 1)]
    found = auroc_of(*counts)
    assert found.value == pytest.approx(beaten.mean(), rel=1e-12)
    assert found.variance(counts[1], counts[0]) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(("hits", "total"), [(0, 5), (5, 5), (1, 7), (40, 1000), (999, 1000)])
def test_wilson_equals_scipy(hits: int, total: int) -> None:
    exact = binomtest(hits, total).proportion_ci(0.95, "wilson")
    found = wilson(hits, total)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), rel=1e-9, abs=1e-12)


def test_newcombes_own_example() -> None:
    """Newcombe 1998, table II, column (a), method 10: 56/70 - 48/80 is 0.0524 to 0.3339."""
    found = difference(wilson(56, 70), wilson(48, 80))
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_regression_equals_scikit_learn(n: int, offset: float) -> None:
    """Offset: labels that vary by a millionth of themselves, where naive sums of squares have lost every digit of r2."""
    g = np.random.default_rng(n)
    label = offset + g.gamma(4.0, 2.0, n) + 0.1
    predicted = np.maximum(label + g.normal(0.3, 1.0, n), 0.0)
    sums = PerformanceSums(Layout(errors=True, quantiles=(0.1, 0.5)))
    sums.add_errors(predicted, label)
    exact = {
        "mae": sk.mean_absolute_error(label, predicted),
        "mse": sk.mean_squared_error(label, predicted),
        "rmse": sk.root_mean_squared_error(label, predicted),
        "mape": sk.mean_absolute_percentage_error(label, predicted),
        "wape": np.abs(predicted - label).sum() / label.sum(),
        "rmsle": sk.root_mean_squared_log_error(label, predicted),
        "r2": sk.r2_score(label, predicted),
        "mean_signed_error": (predicted - label).mean(),
        "mean_signed_percentage_error": ((predicted - label) / label).mean(),
        "share_over_predicted": (predicted > label).mean(),
    }
    for name, value in exact.items():
        assert measure(name, sums).value == pytest.approx(value, rel=1e-9, abs=1e-13), name
    for q in (0.1, 0.5):
        loss = sk.mean_pinball_loss(label, predicted, alpha=q)
        assert measure("quantile_loss", sums, MetricSettings(quantile=q)).value == pytest.approx(loss, rel=1e-9)


@pytest.mark.parametrize("n", [60, 5000])
def test_classes_equal_scikit_learn(n: int) -> None:
    g = np.random.default_rng(n)
    score = g.dirichlet([1.0, 2.0, 0.5, 1.0], n)
    label = np.array([g.choice(3, p=row[:3] / row[:3].sum()) for row in score])  # the fourth has no labels
    label[:3] = 0, 1, 2
    predicted = score.argmax(axis=1)
    sums = PerformanceSums(Layout(classes=4, class_scores=True))
    sums.add_classes(predicted, label)
    sums.add_class_scores(score, label)
    macro = {"labels": [0, 1, 2], "average": "macro", "zero_division": 0}
    exact = {
        "accuracy": sk.accuracy_score(label, predicted),
        "macro_precision": sk.precision_score(label, predicted, **macro),
        "macro_recall": sk.recall_score(label, predicted, **macro),
        "macro_f1": sk.f1_score(label, predicted, **macro),
        "class_log_loss": sk.log_loss(label, score, labels=[0, 1, 2, 3]),
        "class_brier": ((score - np.eye(4)[label]) ** 2).sum(axis=1).mean(),
    }
    for name, value in exact.items():
        assert measure(name, sums).value == pytest.approx(value, rel=1e-9), name
    found = measure("macro_auroc", sums)
    auroc = np.mean([sk.roc_auc_score(label == c, score[:, c]) for c in range(3)])
    assert abs(found.value - auroc) <= found.error
    assert abs(found.value - auroc) < 1 / n
    assert found.error < 7e-3


def test_a_paired_difference_of_losses_is_the_one_of_the_rows() -> None:
    g = np.random.default_rng(8)
    label = g.normal(size=4000)
    a, b = label + g.normal(size=4000), label + g.normal(size=4000)
    b[:2000] = a[:2000] + 0.1
    both = PairedSums(Layout(errors=True), Layout(errors=True))
    both.add_errors(a, b, label)
    found = both.compare("mean_signed_error")
    d = (a - label) - (b - label)
    half = ppf(0.975) * d.std(ddof=1) / math.sqrt(len(d))
    assert found.value == pytest.approx(d.mean(), rel=1e-9)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=1e-3)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_students_quantile_is_scipys(confidence: float) -> None:
    for degrees in (1, 2, 3, 4, 5, 6, 10, 29, 999, 10**9):
        expected = t.ppf(0.5 + 0.5 * confidence, degrees)
        assert student_value(confidence, degrees) == pytest.approx(expected, rel=1e-5)
