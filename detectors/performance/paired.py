"""Two models on the same requests: the difference of a metric, with an interval that knows how the two go together.

Rows are joined by request id before they come here: row i of both models is one request, and has one label. Kept are the sums of
either model over these rows, and what tells how the two estimates go together: counts of (label, prediction of a, of b), sums of
products of losses, and how both scores are distributed together (detectors.performance.joint).

The interval of a rate is Newcombe's, of either side's. That of a mean or a ranking is the difference ± t times its deviation: the
models' own intervals lie to one side, each on its own scale, and of models that hardly differ nothing of that is left in the
difference; made of them, it would be up to half as wide again, and hold the truth in 99 % of windows.

Guarantee  the difference is exact as the two metrics are; sums merge in any order, as PerformanceSums
Source     Newcombe 1998, method 10, generalised (Zou & Donner 2008) for rates; Student's paired t for means, of rmse by the delta
           method; DeLong et al. 1988 for auroc, the same with its influences for average precision
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from detectors.performance import exact, joint, measure, terms
from detectors.performance.estimate import Estimate, undefined
from detectors.performance.intervals import around, difference
from detectors.performance.layout import Layout, Part
from detectors.performance.metric import DEFAULTS, MetricSettings, spread
from detectors.performance.ranking import Ranking, auroc_of, average_precision_of, both_classes
from detectors.performance.sums import VALUE_MAX, PerformanceSums, from_sections
from detectors.verdict import BadCounts, BadSettings, BadState

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

BOXES = "scores"  # counts of an older form, in the place of "joint"
LOSSES = ("log_loss", "squared_error", "gap", "error", "absolute_error", "error_2")
MOMENTS = ("n", "a", "b", "aa", "bb", "ab")

_RATES: dict[
    str, Callable[[float, float, float], float]
] = {  # a row's influence, up to a factor: label, prediction, the metric
    "accuracy": lambda y, p, m: float(y == p) - m,
    "precision": lambda y, p, m: p * (y - m),
    "recall": lambda y, p, m: y * (p - m),
    "specificity": lambda y, p, m: (1.0 - y) * (1.0 - p - m),
    "false_positive_rate": lambda y, p, m: (1.0 - y) * (p - m),
    "f1": lambda y, p, m: 2.0 * y * p - m * (y + p),
}
_PROPORTIONS = {"accuracy", "recall", "specificity", "false_positive_rate"}  # both of the same rows
CONTINUITY = 0.5  # rows less in a positive covariance of proportions: Newcombe's, where few rows tell the two apart
_MEANS = {  # metric -> the loss that it is a growing function of the mean of
    "log_loss": "log_loss",
    "brier": "squared_error",
    "calibration_gap": "gap",
    "mean_signed_error": "error",
    "mae": "absolute_error",
    "mse": "error_2",
    "rmse": "error_2",
}
_RANKINGS: dict[str, Callable[[F64, F64], Ranking]] = {
    "auroc": auroc_of,
    "gini": auroc_of,
    "average_precision": average_precision_of,
}
_SCALE = {"gini": 2.0}  # times the ranking's own value, which is between 0 and 1
COMPARED = (*_RATES, *_MEANS, *_RANKINGS)
"""Metrics that can be compared in pairs."""


class PairedSums:
    """What is kept of two models' common requests. `layouts`: theirs, of two classes or of numeric errors; cuts may differ."""

    def __init__(self, a: Layout, b: Layout) -> None:
        """Raises BadSettings for layouts that keep different parts or classes."""
        if (a.parts, a.classes, a.positive) != (b.parts, b.classes, b.positive) or a.classes not in (0, 2):
            raise BadSettings("paired: both models need the same parts, and two classes or numeric errors")
        self.a, self.b = PerformanceSums(a), PerformanceSums(b)
        self.counts: dict[str, I64] = {
            "cells": np.zeros((2, 2, 2), np.int64),
            "joint": np.zeros(joint.SHAPE, np.int64),
        }
        self.hats = joint.hats_of(a.cuts), joint.hats_of(b.cuts)
        self.sums = np.zeros((len(LOSSES) * len(MOMENTS), exact.LIMBS), np.int64)

    @property
    def layout(self) -> Layout:
        """What is kept of either model; the cuts are b's."""
        return self.b.layout

    def add_classes(self, predicted_a: I64, predicted_b: I64, label: I64) -> None:
        """Codes I64[n]; a row counts if all three are a class."""
        self.a._needs(Part.CONFUSION, len(label), a=predicted_a, b=predicted_b, label=label)  # noqa: SLF001 - one module's
        both = np.ones(len(label), bool)
        for codes in (predicted_a, predicted_b, label):
            both &= (codes == 0) | (codes == 1)
        p, q, y = predicted_a[both], predicted_b[both], label[both]
        self.a.add_classes(p, y)
        self.b.add_classes(q, y)
        yes = self.a.layout.positive
        cell = (y == yes) * 4 + (p == yes) * 2 + (q == yes)
        self.counts["cells"] += np.bincount(cell, minlength=8).reshape(2, 2, 2)

    def add_scores(self, score_a: F64, score_b: F64, label: I64) -> None:
        """Scores F64[n] of either model, labels I64[n]; a row counts if both scores are in 0 to 1 and the label is a class."""
        if score_a.shape != label.shape or score_b.shape != label.shape:
            raise BadCounts("score_a, score_b, label: one length")
        both = ((label == 0) | (label == 1)) & (score_a >= 0) & (score_a <= 1) & (score_b >= 0) & (score_b <= 1)
        p, q, codes = score_a[both], score_b[both], label[both]
        self.a.add_scores(p, codes)
        self.b.add_scores(q, codes)
        y = (codes == self.a.layout.positive).astype(np.int64)
        self.counts["joint"] += joint.products(*self.hats, p, q, y)
        self._products("log_loss", terms.log_losses(p, y), terms.log_losses(q, y))
        self._products("squared_error", (p - y) ** 2, (q - y) ** 2)
        self._products("gap", p - y, q - y)

    def add_errors(self, value_a: F64, value_b: F64, label: F64) -> None:
        """Numeric predictions of either model and labels, F64[n]; a row counts if all three are usable numbers."""
        if value_a.shape != label.shape or value_b.shape != label.shape:
            raise BadCounts("value_a, value_b, label: one length")
        both = (np.abs(value_a) <= VALUE_MAX) & (np.abs(value_b) <= VALUE_MAX) & (np.abs(label) <= VALUE_MAX)
        p, q, y = value_a[both], value_b[both], label[both]
        self.a.add_errors(p, y)
        self.b.add_errors(q, y)
        self._products("error", p - y, q - y)
        self._products("absolute_error", np.abs(p - y), np.abs(q - y))
        self._products("error_2", (p - y) ** 2, (q - y) ** 2)

    def _products(self, loss: str, a: F64, b: F64) -> None:
        first = LOSSES.index(loss) * len(MOMENTS)
        for place, each in enumerate((np.ones(len(a)), a, b, a * a, b * b, a * b)):
            exact.add(self.sums[first + place], np.ascontiguousarray(each))

    def merge(self, other: PairedSums) -> None:
        """Self += other. Raises BadState for other layouts."""
        self.a.merge(other.a)
        self.b.merge(other.b)
        for name, each in other.counts.items():
            self.counts[name] += each
        exact.merge(self.sums, other.sums)

    def to_sections(self) -> dict[str, I64]:
        """Those of either model under "a." and "b.", and "paired.*"."""
        own = {f"paired.{name}": each.ravel().astype("<i8") for name, each in self.counts.items()}
        models = {f"{m}.{name}": each for m in ("a", "b") for name, each in getattr(self, m).to_sections().items()}
        return {**models, **own, "paired.sums": exact.pack(self.sums)}

    def compare(self, metric: str, settings: MetricSettings = DEFAULTS) -> Estimate:
        """Metric of a minus that of b. Undefined where either is. Raises BadSettings for one that is not in COMPARED."""
        if metric not in COMPARED:
            raise BadSettings(f"{metric!r} cannot be compared in pairs; known: {', '.join(COMPARED)}")
        found = [measure(metric, sums, settings) for sums in (self.a, self.b)]
        for side, each in zip("ab", found, strict=True):
            if not each.defined:
                return undefined(f"{side}: {each.reason}", settings.confidence, each.events)
        if metric in _RATES:
            correlation = self._of_rates(metric, [x.value or 0.0 for x in found])
            return difference(found[0], found[1], correlation)
        apart = difference(found[0], found[1])
        variance = self._of_means(metric, found) if metric in _MEANS else self._of_rankings(metric)
        if apart.value is None or variance is None:  # a perfect order has no deviation: as of different rows
            return apart
        ends = around(apart.value, variance, apart.events, settings.confidence, error=apart.error)
        if ends.low is None or ends.high is None or metric not in _RANKINGS:
            return ends
        most = _SCALE.get(metric, 1.0)
        return replace(ends, low=max(ends.low, -most), high=min(ends.high, most))

    def _of_rates(self, metric: str, values: list[float]) -> float:
        """The correlation of the two estimates, over windows."""
        influence, moments = _RATES[metric], np.zeros(3)
        for (y, p, q), count in np.ndenumerate(self.counts["cells"]):
            u, v = influence(y, p, values[0]), influence(y, q, values[1])
            moments += count * np.array([u * u, v * v, u * v])
        aa, bb, ab = moments.tolist()
        return joint.of_moments(aa, bb, ab if metric not in _PROPORTIONS else min(ab, max(ab - CONTINUITY, 0.0)))

    def _of_means(self, metric: str, found: list[Estimate]) -> float:
        """Variance of the difference; negative where the squares have no digits left, NaN of one row."""
        first = LOSSES.index(_MEANS[metric]) * len(MOMENTS)
        n, a, b, aa, bb, ab = (exact.fraction(row) for row in self.sums[first : first + len(MOMENTS)])
        u, v = (Fraction(1), Fraction(1)) if metric != "rmse" else (_root_slope(x.value or 0.0) for x in found)
        own = u * u * aa + v * v * bb
        return spread(u * a - v * b, own - 2 * u * v * ab, int(n), rounded=own)

    def _of_rankings(self, metric: str) -> float | None:
        """DeLong's variance of the difference; None where one of the two does not vary."""
        bins = self.a.count(Part.SCORES, "bins"), self.b.count(Part.SCORES, "bins")
        rows = [both_classes(each) for each in bins]
        a, b = (_RANKINGS[metric](*each) for each in rows)
        aa, bb = (each.variance(p, n) for each, (n, p) in zip((a, b), rows, strict=True))
        if min(aa, bb) <= 0.0:
            return None
        together = joint.correlation(self.counts["joint"], self.hats, (a, b), bins)
        return _SCALE.get(metric, 1.0) ** 2 * max(aa + bb - 2.0 * together * math.sqrt(aa * bb), 0.0)


def paired_from_sections(a: Layout, b: Layout, sections: Mapping[str, NDArray[np.generic]]) -> PairedSums:
    """What `to_sections` had. Raises BadState as `from_sections`."""
    found = PairedSums(a, b)
    parts: dict[str, dict[str, NDArray[np.generic]]] = {"a": {}, "b": {}, "paired": {}}
    for name, each in sections.items():
        part, _, rest = name.partition(".")
        if part not in parts:
            raise BadState(f"section {name} is unknown")
        parts[part][rest] = each
    found.a, found.b = from_sections(a, parts["a"]), from_sections(b, parts["b"])
    own = parts["paired"]
    if BOXES in own and "joint" not in own:
        boxes = own.pop(BOXES)
        if boxes.size != math.prod(joint.SHAPE):
            raise BadState(f"section paired.{BOXES}: {boxes.size} counts, {math.prod(joint.SHAPE)} expected")
        own["joint"] = joint.products_of_boxes(*found.hats, boxes.astype(np.int64).reshape(joint.SHAPE)).ravel()
    if set(own) != {"sums", *found.counts} or any(own[name].size != each.size for name, each in found.counts.items()):
        raise BadState("sections of paired sums are missing, unknown or of another size")
    found.sums = exact.unpack(own["sums"].astype(np.int64), len(found.sums))
    for name, each in found.counts.items():
        each[...] = own[name].astype(np.int64).reshape(each.shape)
    return found


def _root_slope(root: float) -> Fraction:
    """Derivative of a root by its square; of 0, where nothing varies, 0."""
    return 1 / (2 * Fraction(root)) if root > 0.0 else Fraction(0)
