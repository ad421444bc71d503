"""Metrics of scores as probabilities: losses, calibration, and what the scores led one to expect."""

from __future__ import annotations

import math

from detectors.performance.estimate import Estimate, Undefined
from detectors.performance.intervals import around, positive, wilson
from detectors.performance.layout import CALIBRATION_BINS, Part
from detectors.performance.metric import Direction, Metric, MetricSettings, Task, mean, some
from detectors.performance.sums import PerformanceSums

_S, _C = Part.SCORES, Part.CLASS_SCORES


def _rows(sums: PerformanceSums) -> tuple[int, int]:
    """(labelled rows with a score, positive labels among them). Raises Undefined if there are none or a score is no probability."""
    outside = int(sums.count(_S, "left_out")[1])
    counts = sums.count(_S, "calibration").sum(axis=0)
    if outside:
        raise Undefined(f"{outside} of {outside + int(counts.sum())} scores are outside 0 to 1: no probabilities")
    return some(int(counts.sum()), "labelled rows with a score"), int(counts[1])


def _class_rows(sums: PerformanceSums) -> int:
    improper, rows = int(sums.count(_C, "left_out")[1]), int(sums.count(_C, "rows")[0])
    if improper:
        raise Undefined(
            f"the scores of {improper} of {improper + rows} rows are negative or do not sum up to 1: no probabilities"
        )
    return some(rows, "labelled rows with a score of each class")


def log_loss(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    return mean(sums, _S, "log_loss", _rows(sums)[0], settings.confidence)


def brier(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    return mean(sums, _S, "squared_error", _rows(sums)[0], settings.confidence)


def class_log_loss(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    return mean(sums, _C, "log_loss", _class_rows(sums), settings.confidence)


def class_brier(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    return mean(sums, _C, "squared_error", _class_rows(sums), settings.confidence)


def expected_rate(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    """What the scores of the labelled rows led one to expect: their mean."""
    rows, _ = _rows(sums)
    return mean(sums, _S, "score", rows, settings.confidence)


def observed_over_expected(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    rows, hits = _rows(sums)
    moments = (sums.total(_S, "score"), sums.total(_S, "score_2"), sums.total(_S, "score_positive"))
    return over_expected(rows, hits, moments, settings.confidence)


def over_expected(rows: int, hits: int, moments: tuple[float, float, float], confidence: float) -> Estimate:
    """The hits over Σ p; moments: Σ p, Σ p², Σ p of the hits.

    Delta method of a ratio of means: residual hit - ratio · p; without any hit Wilson's, given the scores.
    """
    score, score_2, score_hit = moments
    if score <= 0.0:
        raise Undefined("the scores sum up to 0: nothing was expected")
    ratio = hits / score
    if not hits:
        bound = wilson(0, rows, confidence).high
        assert bound is not None
        return Estimate(0.0, 0.0, bound * rows / score, confidence, rows)
    residuals = max(hits - 2.0 * ratio * score_hit + ratio * ratio * score_2, 0.0)
    return positive(ratio, residuals / score**2, rows, confidence)


def calibration_gap(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    """Mean score minus mean label."""
    rows, hits = _rows(sums)
    gap = (sums.total(_S, "score") - hits) / rows
    squares = sums.total(_S, "squared_error") - rows * gap * gap
    variance = max(squares, 0.0) / (rows * (rows - 1)) if rows > 1 else math.nan
    return around(gap, variance, rows, settings.confidence)


def calibration_error(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    """Σ_b |Σ p - Σ y| / n. A row's influence is ±(p - y), by the sign of its bin."""
    rows, _ = _rows(sums)
    hits = sums.count(_S, "calibration")[:, 1].tolist()
    gaps = [abs(sums.total(_S, f"calibration_{i}") - hits[i]) for i in range(CALIBRATION_BINS)]
    value = math.fsum(gaps) / rows
    variance = max(sums.total(_S, "squared_error") / rows - value * value, 0.0) / rows
    found = around(value, variance, rows, settings.confidence)
    assert found.low is not None
    return Estimate(value, max(found.low, 0.0), found.high, settings.confidence, rows)


_DOWN, _ONE, _ZERO, _NEITHER = Direction.LOWER, Direction.ONE, Direction.ZERO, Direction.NEITHER
_CLT = "central limit theorem, on the logarithm"
_NONE = "a score outside 0 to 1"
_NO_CLASS = "scores that are negative or do not sum up to 1 within .001"

METRICS = (
    Metric("log_loss", "minus the logarithm of the probability given to what came, mean", Task.BINARY, _DOWN, _S, _CLT, _NONE,
           "scikit-learn log_loss", log_loss, "nats"),
    Metric("brier", "squared distance of score and label, mean", Task.BINARY, _DOWN, _S, _CLT, _NONE,
           "scikit-learn brier_score_loss", brier),
    Metric("calibration_error", "distance of mean score and mean label in ten bins of equal width, weighted (ECE)", Task.BINARY,
           _DOWN, _S, "delta method, the bins' signs taken as given: too high where calibration is good", _NONE,
           "Naeini et al. 2015", calibration_error, "share"),
    Metric("calibration_gap", "mean score minus mean label", Task.BINARY, _ZERO, _S, "central limit theorem", _NONE,
           "mean(score) - mean(label)", calibration_gap, "share"),
    Metric("expected_rate", "mean score: the rate of positive labels that the scores let expect", Task.BINARY, _NEITHER, _S, _CLT,
           _NONE, "mean(score)", expected_rate, "share"),
    Metric("observed_over_expected", "positive labels over the sum of scores", Task.BINARY, _ONE, _S,
           "delta method of a ratio, on the logarithm", f"{_NONE}; all scores 0", "sum(label) / sum(score)",
           observed_over_expected),
    Metric("class_log_loss", "log_loss of the scores of all classes", Task.CLASSIFICATION, _DOWN, _C, _CLT, _NO_CLASS,
           "scikit-learn log_loss", class_log_loss, "nats"),
    Metric("class_brier", "squared distance of scores and label, summed over classes, mean", Task.CLASSIFICATION, _DOWN, _C, _CLT,
           _NO_CLASS, "scikit-learn brier_score_loss, scale_by_half=False", class_brier),
)  # fmt: skip
