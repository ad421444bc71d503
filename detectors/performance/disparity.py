"""Disparity of a group to a reference group: difference and ratio of rates, with intervals and a least count.

Guarantee  intervals cover the true difference or ratio in 95 % of windows, within 2 points (`python -m load_tests.interval_coverage`)
Assumed    rows independent, and in one group only: the reference group must not contain the other (not `all`)
Source     Newcombe 1998 for differences of rates, logarithms for ratios (detectors.performance.intervals)
"""

from __future__ import annotations

from dataclasses import dataclass

from detectors.performance import measure
from detectors.performance.estimate import Estimate, undefined
from detectors.performance.intervals import difference, ratio
from detectors.performance.metric import DEFAULTS, MetricSettings
from detectors.performance.sums import PerformanceSums
from detectors.verdict import BadSettings

DISPARITIES = {
    "selection_rate": ("selection_rate", "selection_rate"),
    "recall": ("recall", "recall"),
    "false_positive_rate": ("false_positive_rate", "false_positive_rate"),
    "precision": ("precision", "precision"),
    "calibration": ("calibration_gap", "observed_over_expected"),
}
"""Name -> the metric whose difference and the one whose ratio is taken."""
LEAST_EVENTS = (
    30  # in either denominator: below it the intervals say little, and a small group would be in the news every window
)


@dataclass(frozen=True, slots=True)
class Disparity:
    """`difference` = group - reference, `ratio` = group / reference; undefined, with the reason, where one side is."""

    name: str
    group: Estimate
    reference: Estimate
    difference: Estimate
    ratio: Estimate


def disparity(
    name: str,
    group: PerformanceSums,
    reference: PerformanceSums,
    settings: MetricSettings = DEFAULTS,
    least_events: int = LEAST_EVENTS,
) -> Disparity:
    """Raises BadSettings for a name that is not in DISPARITIES, and as `measure`."""
    if name not in DISPARITIES:
        raise BadSettings(f"{name!r} is no disparity; known: {', '.join(DISPARITIES)}")
    (a, over_a), (b, over_b) = (
        [measure(metric, sums, settings) for metric in DISPARITIES[name]] for sums in (group, reference)
    )
    few, few_over = _few(a, b, least_events), _few(over_a, over_b, least_events)
    return Disparity(
        name,
        a,
        b,
        undefined(few, settings.confidence) if few else difference(a, b),
        undefined(few_over, settings.confidence) if few_over else ratio(over_a, over_b),
    )


def _few(a: Estimate, b: Estimate, least_events: int) -> str:
    """Why two estimates are not compared; empty if they are."""
    for side, x in (("group", a), ("reference group", b)):
        if not x.defined:
            return f"{side}: {x.reason}"
        if x.events < least_events:
            return f"{side}: {x.events} events, at least {least_events} are needed"
    return ""
