"""Disparity of a group to a reference group: difference and ratio of rates, with intervals and a least count.

Guarantee  intervals cover the true difference or ratio in 95 % of windows, within 2 points (`python -m load_tests.interval_coverage`)
Assumed    rows independent, and in one group only: the reference group must not contain the other (not `all`)
Source     Newcombe 1998 for differences of rates, logarithms for ratios (detectors.performance.intervals)
"""

from __future__ import annotations

from collections.abc import Callable
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
SIDES = ("group", "reference group")
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
    return disparity_of(
        name,
        lambda metric: measure(metric, group, settings),
        lambda metric: measure(metric, reference, settings),
        least_events,
    )


def disparity_of(
    name: str, group: Callable[[str], Estimate], reference: Callable[[str], Estimate], least_events: int = LEAST_EVENTS
) -> Disparity:
    """`disparity` of estimates that were made before: `group` and `reference` give those of a metric.

    Raises BadSettings for a name that is not in DISPARITIES.
    """
    if name not in DISPARITIES:
        raise BadSettings(f"{name!r} is no disparity; known: {', '.join(DISPARITIES)}")
    (a, over_a), (b, over_b) = ([side(metric) for metric in DISPARITIES[name]] for side in (group, reference))
    few = _few(over_a, over_b, least_events, SIDES)
    over = undefined(few, over_a.confidence, min(over_a.events, over_b.events)) if few else ratio(over_a, over_b)
    return Disparity(name, a, b, contrast(a, b, least_events), over)


def contrast(a: Estimate, b: Estimate, least_events: int = LEAST_EVENTS, sides: tuple[str, str] = SIDES) -> Estimate:
    """A - b of different rows; undefined, with the reason, where one is or has fewer than `least_events`."""
    few = _few(a, b, least_events, sides)
    return undefined(few, a.confidence, min(a.events, b.events)) if few else difference(a, b)


def _few(a: Estimate, b: Estimate, least_events: int, sides: tuple[str, str]) -> str:
    """Why two estimates are not compared; empty if they are."""
    for side, x in zip(sides, (a, b), strict=True):
        if not x.defined:
            return f"{side}: {x.reason}"
        if x.events < least_events:
            return f"{side}: {x.events} events, at least {least_events} are needed"
    return ""
