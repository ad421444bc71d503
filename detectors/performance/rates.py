"""Metrics of the confusion matrix: of two classes, and averages over more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.performance.estimate import Estimate, Undefined
from detectors.performance.intervals import around, average, wilson
from detectors.performance.layout import Part
from detectors.performance.metric import Direction, Metric, MetricSettings, Task, some
from detectors.performance.sums import PerformanceSums
from detectors.verdict import BadSettings

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


class Confusion(NamedTuple):
    """Of two classes. tp: labelled and predicted positive; fp: predicted positive only; fn: labelled positive only."""

    tp: int
    fp: int
    fn: int
    tn: int


def confusion_matrix(sums: PerformanceSums) -> I64:
    """I64[k, k]: rows are labels, columns predictions, as scikit-learn's. A copy."""
    return sums.count(Part.CONFUSION, "matrix").copy()


def confusion(sums: PerformanceSums) -> Confusion:
    yes = sums.layout.positive
    matrix = confusion_matrix(sums).tolist()
    return Confusion(matrix[yes][yes], matrix[1 - yes][yes], matrix[yes][1 - yes], matrix[1 - yes][1 - yes])


def accuracy(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    matrix = confusion_matrix(sums)
    return wilson(int(np.trace(matrix)), some(int(matrix.sum())), settings.confidence)


def precision(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    c = confusion(sums)
    return wilson(c.tp, some(c.tp + c.fp, "row with a label is predicted positive"), settings.confidence)


def recall(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    c = confusion(sums)
    return wilson(c.tp, some(c.tp + c.fn, "positive labels"), settings.confidence)


def specificity(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    c = confusion(sums)
    return wilson(c.tn, some(c.tn + c.fp, "negative labels"), settings.confidence)


def false_positive_rate(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    c = confusion(sums)
    return wilson(c.fp, some(c.tn + c.fp, "negative labels"), settings.confidence)


def f1(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    """f1 = 2 t / (1 + t), t = tp / (tp + fp + fn): growing in t, so that Wilson's ends of t become ends of f1."""
    c = confusion(sums)
    return _f1(wilson(c.tp, some(c.tp + c.fp + c.fn, "positive label and no positive prediction"), settings.confidence))


def _f1(t: Estimate) -> Estimate:
    value, low, high = (2.0 * x / (1.0 + x) for x in (t.value or 0.0, t.low or 0.0, 1.0 if t.high is None else t.high))
    return Estimate(value, low, high, t.confidence, t.events)


def selection_rate(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    predicted = sums.count(Part.CONFUSION, "predicted")
    total = some(int(predicted.sum()), "predictions")
    return wilson(int(predicted[sums.layout.positive]), total, settings.confidence)


def prevalence(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    matrix = confusion_matrix(sums)
    return wilson(int(matrix[sums.layout.positive].sum()), some(int(matrix.sum())), settings.confidence)


def business_value(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    """Mean of value[label, predicted]. Raises BadSettings without a value of the matrix's shape."""
    matrix, value = confusion_matrix(sums), settings.value
    if value is None or value.shape != matrix.shape or not np.isfinite(value).all():
        raise BadSettings(f"business_value: a finite value for each of {len(matrix)} x {len(matrix)} cells is needed")
    n = some(int(matrix.sum()))
    mean = float((matrix * value).sum() / n)
    variance = float((matrix * (value - mean) ** 2).sum() / (n * (n - 1))) if n > 1 else float("nan")
    return around(mean, variance, n, settings.confidence)


def _labelled(matrix: I64) -> NDArray[np.bool_]:
    """Classes that a macro average is over: those with labels. Of others nobody knows how well they are found."""
    there: NDArray[np.bool_] = matrix.sum(axis=1) > 0
    if not there.any():
        raise Undefined("no labelled rows")
    return there


def _divided(part: F64 | I64, whole: F64 | I64) -> F64:
    """Part / whole, 0 where whole is 0: a class that is never predicted has precision 0, as in scikit-learn."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def macro_precision(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    matrix = confusion_matrix(sums)
    return _macro(matrix, np.diag(matrix), matrix.sum(axis=0), settings.confidence)


def macro_recall(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    matrix = confusion_matrix(sums)
    return _macro(matrix, np.diag(matrix), matrix.sum(axis=1), settings.confidence)


def _macro(matrix: I64, hits: I64, of: I64, confidence: float) -> Estimate:
    """Mean of hits / of over the classes with labels: given the denominators they are of different rows."""
    there = _labelled(matrix)
    rates = [
        _of_class(hit, total, confidence) for hit, total in zip(hits[there].tolist(), of[there].tolist(), strict=True)
    ]
    return replace(average(rates), events=int(matrix.sum()))


def _of_class(hits: int, total: int, confidence: float) -> Estimate:
    return wilson(hits, total, confidence) if total else Estimate(0.0, 0.0, 0.0, confidence, 0)


def macro_f1(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    """Mean of the classes' f1, each with the interval of `f1`. An error is in two classes, so they go together: a cell (i, j) moves
    f1 of class k = 2 m_kk / (row + column) by 2 / both on its diagonal, and by -f / both for each of i = k and j = k.
    """
    matrix = confusion_matrix(sums)
    there = _labelled(matrix)
    hits, both = np.diag(matrix), matrix.sum(axis=0) + matrix.sum(axis=1)
    parts = [
        _f1(_of_class(hit, total - hit, settings.confidence))
        for hit, total in zip(hits[there].tolist(), both[there].tolist(), strict=True)
    ]
    gain, f = _divided(np.full(len(both), 2.0), both), _divided(2 * hits, both)
    loss = _divided(f, both)
    covariance = np.outer(loss, loss) * (matrix + matrix.T)
    np.fill_diagonal(covariance, hits * (gain - 2.0 * loss) ** 2 + loss**2 * (both - 2 * hits))
    spread = np.sqrt(np.diag(covariance))
    scale = np.outer(spread, spread)
    correlations = np.divide(covariance, scale, out=np.eye(len(spread)), where=scale > 0.0)
    return replace(average(parts, correlations[np.ix_(there, there)]), events=int(matrix.sum()))


_WILSON = "Wilson's score interval, given the denominator"
_BINARY, _ANY, _UP, _DOWN, _NEITHER = (
    Task.BINARY,
    Task.CLASSIFICATION,
    Direction.HIGHER,
    Direction.LOWER,
    Direction.NEITHER,
)
_P = Part.CONFUSION
_RATE = "share"
_COUNTS = "exact: integers"
_MACRO = "mean over the classes that have labels; one that is never predicted counts 0"
_SKLEARN = "scikit-learn {}_score".format
_MOVER = "of the classes' Wilson intervals by squares (Zou & Donner 2008), {}".format


def _rate(name: str, title: str, direction: Direction, *rest: Any) -> Metric:
    """Of two classes; `rest`: undefined, source, function."""
    undefined, source, function = rest
    return Metric(name, title, _BINARY, direction, _P, _WILSON, undefined, source, function, _RATE, _COUNTS)


METRICS = (
    Metric("accuracy", "share of labels that were predicted", _ANY, _UP, _P, _WILSON, "no labels", _SKLEARN("accuracy"),
           accuracy, _RATE, _COUNTS),
    _rate("precision", "share of positive predictions that are right", _UP, "nothing predicted positive",
          _SKLEARN("precision"), precision),
    _rate("recall", "share of positive labels that are predicted (true positive rate)", _UP, "no positive label",
          _SKLEARN("recall"), recall),
    _rate("specificity", "share of negative labels that are predicted", _UP, "no negative label",
          "scikit-learn recall_score of the negative class", specificity),
    _rate("false_positive_rate", "share of negative labels that are predicted positive", _DOWN, "no negative label",
          "1 - specificity", false_positive_rate),
    Metric("f1", "harmonic mean of precision and recall", _BINARY, _UP, _P,
           "Wilson's of tp / (tp + fp + fn), of which it is a growing function", "neither positive label nor prediction",
           _SKLEARN("f1"), f1, _RATE, _COUNTS),
    _rate("selection_rate", "share of all predictions that are positive, labelled or not", _NEITHER, "no predictions",
          "fairlearn selection_rate", selection_rate),
    _rate("prevalence", "share of labels that are positive", _NEITHER, "no labels", "mean label", prevalence),
    Metric("business_value", "mean of what a row is worth by its label and prediction", _ANY, _UP, _P,
           "central limit theorem", "no labels", "sum of matrix x value / rows", business_value, "the value's", _COUNTS,
           ("value",)),
    Metric("macro_precision", f"precision, {_MACRO}", _ANY, _UP, _P, _MOVER("given the predictions of each class"), "no labels",
           "scikit-learn precision_score, average=macro, labels with rows", macro_precision, _RATE, _COUNTS),
    Metric("macro_recall", f"recall, {_MACRO}", _ANY, _UP, _P, _MOVER("given the labels of each class"), "no labels",
           "scikit-learn balanced_accuracy_score", macro_recall, _RATE, _COUNTS),
    Metric("macro_f1", f"f1, {_MACRO}", _ANY, _UP, _P, _MOVER("their correlation by the delta method over the cells"), "no labels",
           "scikit-learn f1_score, average=macro, labels with rows", macro_f1, _RATE, _COUNTS),
)  # fmt: skip
