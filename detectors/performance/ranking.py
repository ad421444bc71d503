"""Metrics of how scores order the classes, from histograms of them: each with a bound on what the bins hide.

Within a bin every order of its rows is taken as equally likely, for equal scores as for different ones: the value is the mean
over these orders, and `error` the distance to the furthest of them. Of average precision it also holds what scikit-learn says,
which gives all positives of equal scores the precision at their last row: at most that of the bin's positives without its negatives.
Source  DeLong et al. 1988 (the variance of auroc); delta method over the bins' counts (average precision, lift)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.performance.estimate import Estimate, Undefined
from detectors.performance.intervals import difference, share, wilson
from detectors.performance.layout import Part
from detectors.performance.metric import Direction, Metric, MetricSettings, Task
from detectors.performance.sums import PerformanceSums

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

TOP = 0.1  # the top decile
EDGE = (0.5, 1.5)  # ranks, relative to where the tenth ends, whose positives say how dense they are there
STEP = 1e-4  # of a numeric derivative, relative to a count
HARMONIC_SHIFT = 8  # from where on the asymptotic series of harmonic numbers has 12 digits


class Ranking(NamedTuple):
    """A metric of a histogram: its value, the bound of the bins, and its derivative by one row more of either class in each bin, F64[b],
    lowest bin first, rows of all bins weighted to 0.
    """

    value: float
    error: float
    by_positive: F64
    by_negative: F64

    def variance(self, positives: F64, negatives: F64) -> float:
        p, n = positives.sum(), negatives.sum()
        first, second = float((positives * self.by_positive**2).sum()), float((negatives * self.by_negative**2).sum())
        return float(first * p / max(p - 1.0, 1.0) + second * n / max(n - 1.0, 1.0))


def both_classes(bins: NDArray[np.generic]) -> tuple[F64, F64]:
    """(negatives, positives) F64[b] of bins [2, b]. Raises Undefined unless there are both."""
    negatives, positives = (row.astype(np.float64) for row in bins)
    if not positives.any() or not negatives.any():
        found = "positive" if positives.any() else "negative"
        raise Undefined(
            f"only {found} labels with a score" if (positives.any() or negatives.any()) else "no scored labels"
        )
    return negatives, positives


def auroc_of(negatives: F64, positives: F64) -> Ranking:
    """Counts by bin, lowest first. The share of pairs in order, half of those in one bin."""
    p, n = positives.sum(), negatives.sum()
    beaten = (np.cumsum(negatives) - 0.5 * negatives) / n
    beating = (p - np.cumsum(positives) + 0.5 * positives) / p
    value = float((positives * beaten).sum() / p)
    error = float((positives * negatives).sum() / (2.0 * p * n))
    return Ranking(value, error, (beaten - value) / p, (beating - value) / n)


def _harmonic(x: F64) -> F64:
    """1 + 1/2 + ... + 1/x, up to a constant; for real x >= 0 as the digamma function has it."""
    y = x + HARMONIC_SHIFT
    series = np.log(y) + 0.5 / y - (1.0 - (0.1 - 1.0 / (21.0 * y * y)) / (y * y)) / (12.0 * y * y)
    for k in range(1, HARMONIC_SHIFT + 1):
        series = series - 1.0 / (x + k)
    found: F64 = series
    return found


def average_precision_of(negatives: F64, positives: F64) -> Ranking:
    """Counts by bin, lowest first. Mean precision at the positives; expected over the orders within bins, in closed form.

    Within a bin of p and q rows, with `a` positives of `s` rows above it, the k-th row is positive with p / (p + q), and then
    (k - 1) r, r = (p - 1) / (p + q - 1), positives are expected before it: p / d Σ_k (a + 1 + (k - 1) r) / (s + k).
    """
    p, q = positives[::-1], negatives[::-1]
    a, c = np.cumsum(p) - p, np.cumsum(q) - q
    d, s, total = p + q, a + c, p.sum()
    r = np.divide(p - 1.0, d - 1.0, out=np.zeros(len(p)), where=d > 1.0)
    harmonic = _harmonic(s + d) - _harmonic(s)
    mean = np.divide(p, d, out=np.zeros(len(p)), where=d > 0.0) * (r * d + (a + 1.0 - r - r * s) * harmonic)
    best = p * np.divide(a + p, a + p + c, out=np.zeros(len(p)), where=p > 0.0)
    worst = p - (c + q) * (_harmonic(s + d) - _harmonic(s + q))
    value = float(mean.sum() / total)
    error = max(float(best.sum() / total) - value, value - float(worst.sum() / total), 0.0)
    by = [_slope(a, c, p, q, which) for which in range(4)]
    below_p, below_c = (np.cumsum(x[::-1])[::-1] - x for x in by[:2])  # a row adds to `a` or `c` of every bin below
    by_positive = (by[2] + below_p - value) / total
    by_negative = (by[3] + below_c) / total
    return Ranking(value, error, by_positive[::-1], by_negative[::-1])


def _slope(a: F64, c: F64, p: F64, q: F64, which: int) -> F64:
    """Derivative of a bin's part by one of a, c, p, q, in the limit of many rows."""
    at = [a, c, p, q]
    step = STEP * (1.0 + at[which])
    more = [x + step if i == which else x for i, x in enumerate(at)]
    found: F64 = (_limit(*more) - _limit(*at)) / step
    return found


def _limit(a: F64, c: F64, p: F64, q: F64) -> F64:
    """P times the mean of (a + t p) / (a + c + t (p + q)) over t from 0 to 1."""
    s, d = np.maximum(a + c, 0.5), np.maximum(p + q, 1e-9)
    slope = p / d
    return p * (slope + (a - slope * s) / d * np.log1p(d / s))


def _measured(sums: PerformanceSums) -> tuple[F64, F64, int]:
    negatives, positives = both_classes(sums.count(Part.SCORES, "bins"))
    return negatives, positives, int(negatives.sum() + positives.sum())


def auroc(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    negatives, positives, _ = _measured(sums)
    found = auroc_of(negatives, positives)
    few = int(min(negatives.sum(), positives.sum()))
    return share(found.value, found.variance(positives, negatives), few, settings.confidence, error=found.error)


def average_precision(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    negatives, positives, _ = _measured(sums)
    found = average_precision_of(negatives, positives)
    variance, few = found.variance(positives, negatives), int(positives.sum())
    return share(min(found.value, 1.0), variance, few, settings.confidence, error=found.error)


def gini(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    return auroc(sums, settings).scaled(2.0, -1.0)


def ks_of_classes(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    """Largest distance of the two distribution functions, over the cuts; at most `error` more between them."""
    negatives, positives, _ = _measured(sums)
    p, n = int(positives.sum()), int(negatives.sum())
    below_p, below_n = np.cumsum(positives), np.cumsum(negatives)
    gap = below_n / n - below_p / p
    at = int(np.abs(gap).argmax())
    inside = np.maximum(below_n / n - (below_p - positives) / p, below_p / p - (below_n - negatives) / n)
    error = max(float(inside.max()) - abs(float(gap[at])), 0.0)
    shares = [wilson(int(below[at]), total, settings.confidence) for below, total in ((below_n, n), (below_p, p))]
    high, low = shares if gap[at] >= 0 else shares[::-1]
    found = difference(high, low)
    assert found.low is not None
    return Estimate(found.value, max(found.low, 0.0), found.high, settings.confidence, min(p, n), error)


def lift_at_top_decile(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    """Share of the positives in the tenth of rows with the highest scores, divided by a tenth; a bin at its edge counts in part."""
    negatives, positives, rows = _measured(sums)
    p, q = positives[::-1], negatives[::-1]
    wanted, before = TOP * rows, np.cumsum(p + q) - p - q
    at = int(np.searchsorted(before + p + q, wanted))  # the bin in which the tenth ends
    taken, total = wanted - float(before[at]), float(p.sum())
    density = _density(p, p + q, before, (EDGE[0] * wanted, EDGE[1] * wanted))
    above = float(p[:at].sum())
    value = (above + taken * float(p[at] / (p[at] + q[at]))) / total
    ends = (above + max(0.0, taken - float(q[at])), above + min(taken, float(p[at])))
    error = max(ends[1] / total - value, value - ends[0] / total)
    # a row's influence, with that of the edge (Bahadur 1966), is
    # (y in - value y - density (in - TOP)) / positives; `inside` is the part of its bin that is in
    inside = np.zeros(len(p))
    inside[:at], inside[at] = 1.0, taken / float(p[at] + q[at])
    hit = inside * (1.0 - value - density * (1.0 - TOP)) ** 2 + (1.0 - inside) * (density * TOP - value) ** 2
    miss = inside * (density * (1.0 - TOP)) ** 2 + (1.0 - inside) * (density * TOP) ** 2
    variance = float((p * hit).sum() + (q * miss).sum()) / total**2
    return share(min(value, 1.0), variance, int(total), settings.confidence, error=error).scaled(1.0 / TOP)


def _density(positives: F64, rows: F64, before: F64, between: tuple[float, float]) -> float:
    """Share of positives among the rows of these ranks; of a bin at an end its part. The share in one bin alone, of few rows, would
    make the variance, which has its square, too large.
    """
    inside = np.minimum(before + rows, between[1]) - np.maximum(before, between[0])
    part = np.divide(np.maximum(inside, 0.0), rows, out=np.zeros(len(rows)), where=rows > 0.0)
    return float((positives * part).sum() / (rows * part).sum())


def macro_auroc(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    """Mean over the classes that have labels of one against the rest."""
    bins = sums.count(Part.CLASS_SCORES, "bins")
    found, errors = [], []
    for rest, own in (row for row in bins if row[0].any() and row[1].any()):
        negatives, positives = rest.astype(np.float64), own.astype(np.float64)
        found.append(auroc_of(negatives, positives))
        errors.append(found[-1].variance(positives, negatives) ** 0.5)
    if not found:
        raise Undefined("labels with scores of fewer than two classes")
    rows = int(bins[0].sum())
    value, error = float(np.mean([x.value for x in found])), float(np.mean([x.error for x in found]))
    few = int(min(row[1].sum() for row in bins if row[1].any()))
    # of means, the deviation is at most the mean deviation, whatever the dependence
    plain = share(value, float(np.mean(errors)) ** 2, few, settings.confidence, error=error)
    return Estimate(plain.value, plain.low, plain.high, settings.confidence, rows, error, plain.reason)


_ONE = "labels of one class only"
_BINS = "`error`, from the bins: {}"
_FOUND = "found with 256 bins and 100,000 rows, then with 250 positive labels"
_T, _UP, _PART = Task.BINARY, Direction.HIGHER, Part.SCORES

METRICS = (
    Metric("auroc", "share of pairs of a positive and a negative label whose scores are in order", _T, _UP, _PART,
           "DeLong's variance, on the logit; with a perfect order Wilson's of the smaller class", _ONE,
           "scikit-learn roc_auc_score", auroc, "share", _BINS.format(f"half of the pairs within one bin; {_FOUND}: 1e-5, 2e-4")),
    Metric("gini", "2 auroc - 1", _T, _UP, _PART, "of auroc", _ONE, "2 roc_auc_score - 1", gini, "", _BINS.format("twice auroc's")),
    Metric("average_precision", "mean precision at the positive labels, in the order of scores", _T, _UP, _PART,
           "delta method over the bins' counts, on the logit; with 13 positive labels 91 %", _ONE,
           "scikit-learn average_precision_score", average_precision,
           "share", _BINS.format(f"to the best or worst order and ties within them; {_FOUND}: 2e-4, 2e-3")),
    Metric("ks_of_classes", "largest distance of the classes' score distributions", _T, _UP, _PART,
           "Newcombe's, the place of the maximum taken as given: too high where the classes hardly differ", _ONE,
           "scipy ks_2samp", ks_of_classes, "share", _BINS.format("what a bin allows beyond its ends")),
    Metric("lift_at_top_decile", "share of positive labels in the tenth with the highest scores, over the overall share", _T, _UP,
           _PART, "delta method, with the edge of the tenth, on the logit", _ONE, "recall in the top tenth / .1",
           lift_at_top_decile, "", _BINS.format("what the bin at the edge can hide")),
    Metric("macro_auroc", "auroc of each class against the rest, mean over the classes with labels", Task.CLASSIFICATION, _UP,
           Part.CLASS_SCORES, "mean of the classes' DeLong deviations, on the logit: too wide, as their dependence is not kept",
           "labels of fewer than two classes", "scikit-learn roc_auc_score, multi_class=ovr", macro_auroc, "share",
           _BINS.format("mean of the classes'")),
)  # fmt: skip
