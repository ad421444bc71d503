"""Records of one window's performance against another's: of a segment against the reference group of its key, and of a version
against the champion. Written to the performance topic beside the metrics, once, when they are final; for the same segments,
versions, windows and horizons.

    driftline.disparity.v1    difference and ratio of the rates in detectors.performance.disparity, group against reference group
    driftline.comparison.v1   difference of every metric that was asked for, version against champion; and of another model
                              against this one, over the requests that both predicted

Rows of groups and versions are different predictions, so the two sides are taken as independent. Versions that see the same
requests (shadow traffic) go together, which makes the interval too wide, never too narrow. Pairs know how they go together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from detectors.performance import Estimate, Part, measure, undefined
from detectors.performance.disparity import DISPARITIES, Disparity, contrast, disparity_of
from detectors.performance.estimate import CONFIDENCE
from detectors.performance.paired import COMPARED
from stream.performance_plan import ModelPerformance
from stream.performance_records import Measured, ReferenceTest, estimated, event_output
from stream.performance_told import metric_of
from stream.plan import ALL
from stream.stage import Output

DISPARITY_TYPE = "driftline.disparity.v1"
COMPARISON_TYPE = "driftline.comparison.v1"
SERVING_FACTOR = (
    2  # so many times the predictions of the version that serves make another one serve: a split never swings
)
VERSIONS = ("version", "champion")
MODELS = ("challenger", "champion")

Key = tuple[str, str, str]  # version, segment, kept


def serving_version(before: str, now: Mapping[str, int]) -> str:
    """The version that serves, from that of the window before ("" = none) and the predictions of each in this one."""
    most = min(now, key=lambda version: (-now[version], version), default=before)
    return most if not before or now.get(most, 0) >= SERVING_FACTOR * max(now.get(before, 0), 1) else before


def contrast_outputs(
    measured: Sequence[Measured], plan: ModelPerformance, asked: Sequence[str], test: ReferenceTest | None = None
) -> Iterator[Output]:
    """Of everything that one window of a series has: disparities, then comparisons, in the order of `measured`."""
    found = {(each.version, each.segment, each.kept): each for each in measured}
    for each in measured:
        yield from _disparities(each, found, plan, test)
    for each in measured:
        yield from _comparisons(each, found, plan, asked)


# ---- disparity ----------------------------------------------------------------------------------------------------------


def _disparities(
    group: Measured, found: Mapping[Key, Measured], plan: ModelPerformance, test: ReferenceTest | None
) -> Iterator[Output]:
    key, _, value = group.segment.partition("=")
    chosen = dict(plan.disparity).get(key)
    layout = group.sums.layout
    if group.segment == ALL or chosen in {None, value} or layout.classes != 2 or Part.SCORES not in layout.parts:
        return
    against = f"{key}={chosen}"
    other = found.get((group.version, against, group.kept))
    for name in DISPARITIES:
        said: dict[str, Any] = {"reference_segment": against}
        said |= _told(disparity_of(name, _measure_of(group), _measure_of(other), plan.least_events))
        for side, each in (("group", group), ("reference", other)):
            said[side] |= {"predictions": each.rows if each else 0, "observed": each.observed if each else 0}
        if test is not None:
            then = disparity_of(
                name,
                partial(_of_test, test, group, group.segment),
                partial(_of_test, test, group, against),
                plan.least_events,
            )
            if then.group.defined and then.reference.defined:
                said["test"] = _told(then) | {"reference_id": test.reference}
        said["incomplete"] = not (group.whole and (other is None or other.whole))
        yield event_output(DISPARITY_TYPE, group, name, (against,), said)


def _measure_of(side: Measured | None) -> Callable[[str], Estimate]:
    """What gives the metrics of one side; of nobody: undefined."""
    if side is None:
        return lambda _: undefined("no predictions", CONFIDENCE)
    return partial(_measured, side)


def _measured(side: Measured, metric: str) -> Estimate:
    return measure(metric, side.sums)


def _of_test(test: ReferenceTest, live: Measured, segment: str, metric: str) -> Estimate:
    return test.estimate(live, metric, segment) or undefined("the reference has no value of it", CONFIDENCE)


def _told(found: Disparity) -> dict[str, Any]:
    sides = {"group": found.group, "reference": found.reference}
    return {
        name: estimated(each) for name, each in (sides | {"difference": found.difference, "ratio": found.ratio}).items()
    }


# ---- versions -----------------------------------------------------------------------------------------------------------


def _comparisons(
    one: Measured, found: Mapping[Key, Measured], plan: ModelPerformance, asked: Sequence[str]
) -> Iterator[Output]:
    champion = plan.champion or one.serving
    other = found.get((champion, one.segment, one.kept))
    if other is None or one.version == champion:
        return
    for series in one.wanted(asked):
        sides = [each.estimate(series) for each in (one, other)]
        said: dict[str, Any] = {
            "challenger_model": one.model,
            "challenger_version": one.version,
            "champion_version": champion,
            "samples": "independent",
        }
        for side, each, value in zip(("challenger", "champion"), (one, other), sides, strict=True):
            said[side] = estimated(value) | {"predictions": each.rows, "observed": each.observed}
        difference = contrast(sides[0], sides[1], plan.least_events, VERSIONS)
        said |= one.told.beside(series)
        said |= {"difference": estimated(difference), "incomplete": not (one.whole and other.whole)}
        quantile = said.get("quantile")
        about = (champion,) if quantile is None else (champion, str(quantile))
        yield event_output(COMPARISON_TYPE, one, metric_of(series), about, said)


# ---- models in pairs ----------------------------------------------------------------------------------------------------


def paired_outputs(
    pairs: Sequence[Measured], measured: Sequence[Measured], plan: ModelPerformance, asked: Sequence[str]
) -> Iterator[Output]:
    """What the common requests of this model (champion) and each challenger say; `measured`: all predictions of this model."""
    rows: dict[tuple[str, str], int] = {}
    for each in measured:
        rows[each.version, each.segment] = rows.get((each.version, each.segment), 0) + each.rows
    for each in pairs:
        model, version = each.against
        about: dict[str, Any] = {
            "challenger_model": model,
            "challenger_version": version,
            "champion_version": each.version,
            "samples": "paired",
            "pairs": each.rows,
            "paired_share": each.rows / max(rows.get((each.version, each.segment), 0), each.rows),
            "incomplete": not each.whole,
        }
        for name in each.wanted(asked):
            if name in COMPARED:
                said = about | _paired(each, name, plan.least_events)
                yield event_output(COMPARISON_TYPE, each, name, ("paired", model, version), said)


def _paired(pair: Measured, name: str, least_events: int) -> dict[str, Any]:
    sides = {"challenger": measure(name, pair.sums.a), "champion": measure(name, pair.sums.b)}
    said = {
        side: estimated(each) | {"predictions": pair.rows, "observed": pair.observed} for side, each in sides.items()
    }
    few = contrast(sides["challenger"], sides["champion"], least_events, MODELS)
    return said | {"difference": estimated(pair.sums.compare(name) if few.defined else few)}
