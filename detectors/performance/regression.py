"""Metrics of numeric predictions. An error is prediction minus label: positive = predicted too high."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

from detectors.performance import exact
from detectors.performance.estimate import Estimate, Undefined
from detectors.performance.intervals import positive, wilson
from detectors.performance.layout import Part, loss_names
from detectors.performance.metric import Direction, Metric, MetricSettings, Task, mean, some, spread
from detectors.performance.sums import PerformanceSums
from detectors.verdict import BadSettings

_E = Part.ERRORS


def _rows(sums: PerformanceSums) -> int:
    return some(int(sums.count(_E, "rows")[0]))


def _root(square: Estimate) -> Estimate:
    """Of a mean square: the root of it and of its ends."""
    value, low, high = (None if x is None else math.sqrt(x) for x in (square.value, square.low, square.high))
    return replace(square, value=value, low=low, high=high)


def mae(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    return mean(sums, _E, "absolute_error", _rows(sums), settings.confidence)


def mse(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    return mean(sums, _E, "error_2", _rows(sums), settings.confidence)


def rmse(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    return _root(mse(sums, settings))


def mean_signed_error(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    return mean(sums, _E, "error", _rows(sums), settings.confidence, signed=True)


def _no_zeros(sums: PerformanceSums) -> int:
    rows, zeros = _rows(sums), int(sums.count(_E, "zero")[0])
    if zeros:
        raise Undefined(f"{zeros} of {rows} labels are 0: an error has no percentage of them")
    return rows


def mape(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    return mean(sums, _E, "absolute_relative", _no_zeros(sums), settings.confidence)


def mean_signed_percentage_error(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    return mean(sums, _E, "relative", _no_zeros(sums), settings.confidence, signed=True)


def wape(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    """Σ|error| / Σ|label|: residual |error| - ratio · |label|."""
    rows, size = _rows(sums), sums.total(_E, "absolute_label")
    if size == 0.0:
        raise Undefined("all labels are 0")
    ratio = sums.total(_E, "absolute_error") / size
    squares, mixed, labels = (sums.total(_E, name) for name in ("error_2", "absolute_error_label", "label_2"))
    residuals = max(squares - 2.0 * ratio * mixed + ratio * ratio * labels, 0.0)
    return positive(ratio, residuals / size**2, rows, settings.confidence)


def rmsle(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    rows, negative = _rows(sums), int(sums.count(_E, "negative")[0])
    if negative:
        raise Undefined(f"{negative} of {rows} labels or predictions are negative: no logarithm of them")
    return _root(mean(sums, _E, "log_2", rows, settings.confidence))


def r2(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    """1 - q, q = Σ e² / Σ (y - mean)². Delta method on the logarithm of q, residual e² - q (y - mean)²."""
    n = _rows(sums)
    y, yy, ee, eeee = (exact.fraction(sums.limbs(_E, each)) for each in ("label", "label_2", "error_2", "error_4"))
    around_mean = yy - y * y / n
    if around_mean <= 0:
        raise Undefined("all labels are equal")
    q = ee / around_mean
    cubes, fourths, mixed, mixed_2 = (
        exact.fraction(sums.limbs(_E, each)) for each in ("label_3", "label_4", "error_2_label", "error_2_label_2")
    )
    c = Fraction(sums.layout.centre)
    m = y / n - c  # mean of z = y - centre, of which the other sums are
    zz = yy - 2 * c * y + n * c * c
    errors_and_labels = mixed_2 - 2 * m * mixed + m * m * ee
    labels = fourths - 4 * m * cubes + 6 * m * m * zz - 3 * n * m**4
    residuals = float((eeee - 2 * q * errors_and_labels + q * q * labels) / (around_mean * around_mean))
    lost = max(abs(float(m)), 1e-300) ** 4 * n * 1e-15 > abs(float(labels))  # digits that cancelled
    variance = math.nan if lost or residuals < 0.0 else residuals
    return positive(float(q), variance, n, settings.confidence).scaled(-1.0, 1.0)


def quantile_loss(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    """Of any quantile: what is not kept as a sum follows from those of errors, of their sizes, and of two losses that are kept.

    Raises BadSettings for a quantile outside 0 to 1, and where no two losses are kept that tell the sides apart.
    """
    q, quantiles, rows = settings.quantile, sums.layout.quantiles, _rows(sums)
    if q in quantiles:
        return mean(sums, _E, loss_names([q])[0], rows, settings.confidence)
    if not 0.0 < q < 1.0:
        raise BadSettings(f"quantile_loss: {q!r} is not between 0 and 1")
    size, error = (exact.fraction(sums.limbs(_E, name)) for name in ("absolute_error", "error"))
    share = Fraction(q)
    total = ((1 - share) * (size + error) + share * (size - error)) / 2
    above, below = _squares_by_side(sums)
    squares = (1 - share) ** 2 * above + share**2 * below
    return positive(float(total / rows), spread(total, squares, rows), rows, settings.confidence)


def _squares_by_side(sums: PerformanceSums) -> tuple[Fraction, Fraction]:
    """Sums of squared errors of what is over-predicted, and of what is under-predicted, from two pinball losses' squares: of the
    quantile q it is (1 - q)² above + q² below. Raises BadSettings.
    """
    one, other = min(sums.layout.quantiles, default=0.0), max(sums.layout.quantiles, default=0.0)
    p, q = Fraction(one), Fraction(other)
    apart = (1 - p) ** 2 * q**2 - (1 - q) ** 2 * p**2
    if not apart:
        raise BadSettings("quantile_loss: losses of two quantiles must be kept for those of others")
    first, second = (exact.fraction(sums.limbs(_E, f"{name}_2")) for name in loss_names([one, other]))
    above = (q**2 * first - p**2 * second) / apart
    below = ((1 - p) ** 2 * second - (1 - q) ** 2 * first) / apart
    return max(above, Fraction(0)), max(below, Fraction(0))  # losses were rounded row by row


def share_over_predicted(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    """Rows that are predicted exactly are in the denominator only."""
    return wilson(int(sums.count(_E, "over")[0]), _rows(sums), settings.confidence)


_T, _DOWN, _ZERO = Task.REGRESSION, Direction.LOWER, Direction.ZERO
_CLT = "central limit theorem{}: needs fourth moments".format
_LOG = _CLT(", on the logarithm")
_TAIL = "labels near 0 make a heavy tail: 91 % instead of 95 % in one such case"
_NO = "no labels"
_LABEL, _SHARE = "the label's", "of the label"
_SK = "scikit-learn {}".format

METRICS = (
    Metric("mae", "mean absolute error", _T, _DOWN, _E, "central limit theorem, on the logarithm", _NO, _SK("mean_absolute_error"),
           mae, _LABEL),
    Metric("mse", "mean squared error", _T, _DOWN, _E, _LOG, _NO, _SK("mean_squared_error"), mse, "the label's, squared"),
    Metric("rmse", "root of the mean squared error", _T, _DOWN, _E, f"root of mse's; {_LOG}", _NO, _SK("root_mean_squared_error"),
           rmse, _LABEL),
    Metric("mape", "mean absolute error in shares of the label", _T, _DOWN, _E, "central limit theorem, on the logarithm",
           "a label of 0", _SK("mean_absolute_percentage_error"), mape, _SHARE),
    Metric("wape", "sum of absolute errors over sum of absolute labels", _T, _DOWN, _E,
           "delta method of a ratio, on the logarithm", "all labels 0", "mean_absolute_error / mean(|label|)", wape, _SHARE),
    Metric("rmsle", "root of the mean squared error of log(1 + x)", _T, _DOWN, _E, f"root of the mean's; {_LOG}; {_TAIL}",
           "a negative label or prediction", _SK("root_mean_squared_log_error"), rmsle),
    Metric("r2", "share of the labels' variance that is explained", _T, Direction.HIGHER, _E,
           "delta method on the logarithm of 1 - r2; needs the layout's centre within some 1,000 deviations of the labels; of 60 rows 92 %",
           "all labels equal", _SK("r2_score"), r2),
    Metric("quantile_loss", "pinball loss of a quantile, mean: least where predictions are that quantile", _T, _DOWN, _E,
           "central limit theorem, on the logarithm", _NO, _SK("mean_pinball_loss"), quantile_loss, _LABEL, settings=("quantile",)),
    Metric("mean_signed_error", "mean of prediction minus label", _T, _ZERO, _E, "central limit theorem", _NO,
           "mean(prediction - label)", mean_signed_error, _LABEL),
    Metric("mean_signed_percentage_error", "mean of prediction minus label, in shares of the label", _T, _ZERO, _E,
           "central limit theorem", "a label of 0", "mean((prediction - label) / label)", mean_signed_percentage_error, _SHARE),
    Metric("share_over_predicted", "share of rows predicted above their label", _T, Direction.NEITHER, _E,
           "Wilson's score interval", _NO, "mean(prediction > label)", share_over_predicted, "share", "exact: integers"),
)  # fmt: skip
