"""Metrics of what users do after a prediction: they come before labels do."""

from __future__ import annotations

from detectors.performance.estimate import Estimate
from detectors.performance.intervals import product, wilson
from detectors.performance.layout import Part
from detectors.performance.metric import Direction, Metric, MetricSettings, Task, mean, some
from detectors.performance.probabilities import over_expected
from detectors.performance.sums import PerformanceSums
from detectors.verdict import BadSettings

_P = Part.PROXIES
NO_CONVERSIONS = "without conversions nothing says what one is worth"
ENOUGH = 30  # conversions: of fewer, values are taken to be at least 0


def _counts(sums: PerformanceSums) -> tuple[int, int, int, int, int, int]:
    """Predictions, clicks, conversions, predictions with a score, clicks of those, values that are no numbers."""
    a, b, c, d, e, f = sums.count(_P, "rows").tolist()
    return some(a, "predictions"), b, c, d, e, f


def ctr(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    rows, clicks, *_ = _counts(sums)
    return wilson(clicks, rows, settings.confidence)


def cvr(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    rows, _, conversions, *_ = _counts(sums)
    return wilson(conversions, rows, settings.confidence)


def value_per_prediction(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    """Rate of conversions, by Wilson, times what one is worth: most rows are nothing, so that the mean over all of them is far from
    normal where conversions are few (Zou, Huo & Taleban 2009).
    """
    rows, paid = _values(sums)
    some(rows, "usable values")
    if paid < 2:
        why = "one conversion has no interval" if paid else NO_CONVERSIONS
        return Estimate(sums.total(_P, "value") / rows, None, None, settings.confidence, rows, reason=why)
    return product(wilson(paid, rows, settings.confidence), _worth(sums, paid, settings.confidence))


def _values(sums: PerformanceSums) -> tuple[int, int]:
    """Predictions, and conversions, whose value is usable."""
    rows, _, conversions, *_, unusable = _counts(sums)
    return max(rows - unusable, 0), max(conversions - unusable, 0)


def _worth(sums: PerformanceSums, paid: int, confidence: float) -> Estimate:
    """Mean value of so many conversions, on the logarithm; as it is where it may be below 0 and conversions are enough to say so."""
    plain = mean(sums, _P, "value", paid, confidence, signed=True)
    if paid >= ENOUGH and plain.low is not None and plain.low <= 0.0:
        return plain
    return mean(sums, _P, "value", paid, confidence)


def expected_ctr(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    *_, scored, _, _ = _counts(sums)
    return mean(sums, _P, "score", some(scored, "scores in 0 to 1"), settings.confidence)


def clicks_over_expected(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    *_, scored, hits, _ = _counts(sums)
    moments = (sums.total(_P, "score"), sums.total(_P, "score_2"), sums.total(_P, "score_clicked"))
    return over_expected(some(scored, "scores in 0 to 1"), hits, moments, settings.confidence)


def kpi(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    """Of predictions, those without a conversion with 0; or of those alone that have one."""
    if not settings.per_conversion:
        return value_per_prediction(sums, settings)
    return _worth(sums, some(_values(sums)[1], "conversions with usable values"), settings.confidence)


def kpi_to_target(sums: PerformanceSums, settings: MetricSettings) -> Estimate:
    """Raises BadSettings without a target."""
    if settings.target is None:
        raise BadSettings("kpi_to_target: a target is needed")
    return kpi(sums, settings).scaled(1.0, -settings.target)


_T, _UP, _NONE = Task.PROXY, Direction.HIGHER, "no predictions"
_WILSON = "Wilson's score interval"
_WORTH = "Student's t of the conversions' values, on the logarithm (fewer than 30: none below 0)"
_COMPOUND = f"Wilson's of the conversions times {_WORTH}; none of fewer than two conversions"
_KPI = f"per prediction: {_COMPOUND}; per conversion: {_WORTH}"
_COUNTS = "exact: integers"
_USABLE = "no predictions, or no conversions, with usable values"

METRICS = (
    Metric("ctr", "share of predictions that were clicked within the horizon", _T, _UP, _P, _WILSON, _NONE, "clicks / predictions",
           ctr, "share", _COUNTS),
    Metric("cvr", "share of predictions that led to a conversion within the horizon", _T, _UP, _P, _WILSON, _NONE,
           "conversions / predictions", cvr, "share", _COUNTS),
    Metric("value_per_prediction", "value of conversions within the horizon, per prediction", _T, _UP, _P,
           _COMPOUND,
           "no predictions with usable values", "sum(value) / predictions", value_per_prediction, "the value's"),
    Metric("expected_ctr", "mean score: the click rate that the scores let expect", _T, Direction.NEITHER, _P,
           "central limit theorem, on the logarithm", "no scores in 0 to 1", "mean(score)", expected_ctr, "share"),
    Metric("clicks_over_expected", "clicks over the sum of scores, of predictions with a score", _T, Direction.ONE, _P,
           "delta method of a ratio, on the logarithm", "no scores in 0 to 1; all scores 0", "clicks / sum(score)",
           clicks_over_expected),
    Metric("kpi", "value of conversions within the horizon, per prediction or per conversion, as told", _T, _UP, _P, _KPI,
           _USABLE, "sum(value) / predictions, or / conversions", kpi, "the value's", settings=("per_conversion",)),
    Metric("kpi_to_target", "kpi minus its target", _T, _UP, _P, _KPI, _USABLE, "kpi - target", kpi_to_target, "the value's",
           settings=("target", "per_conversion")),
)  # fmt: skip
