"""What a reference says of performance: metrics of its labelled rows, of all and of each segment; and how that is stored.

Only a reference whose rows have labels has it. It is part of the content, and so of the id; numbers are rounded to 10 digits,
so that the id does not depend on a machine. Size: 40 bytes a segment and metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.performance import Estimate, PerformanceSums, measure
from detectors.performance.estimate import CONFIDENCE
from detectors.reference_digest import rounded

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

NAME = "performance"
VALUES, EVENTS = "performance.values", "performance.events"
PARTS = ("value", "low", "high", "error")


@dataclass(frozen=True, slots=True, eq=False)
class ReferencePerformance:
    """`metrics` of `segments` ("all", "key=value") at 95 %.

    kept     names what was measured: classes, and how scores are binned; only its like is comparable
    values   F64[segments, metrics, PARTS]; NaN = there is none
    events   I64[segments, metrics]: rows that each is made of
    """

    kept: str
    segments: tuple[str, ...]
    metrics: tuple[str, ...]
    values: F64
    events: I64

    def estimate(self, segment: str, metric: str) -> Estimate | None:
        """None where nothing was measured, or the metric has no value on these rows."""
        if segment not in self.segments or metric not in self.metrics:
            return None
        at = self.segments.index(segment), self.metrics.index(metric)
        value, low, high, error = (None if math.isnan(x) else x for x in self.values[at].tolist())
        if value is None:
            return None
        reason = "" if low is not None else "the reference has no interval of it"
        return Estimate(value, low, high, CONFIDENCE, int(self.events[at]), error or 0.0, reason)


def reference_performance(
    kept: str,
    metrics: Sequence[str],
    segments: Mapping[str, PerformanceSums],
    measured: Callable[[str, PerformanceSums], Estimate] = measure,
) -> ReferencePerformance:
    """`measured` gives the metric of a name. Raises as it does: `measure` BadSettings."""
    found = [[measured(metric, sums) for metric in metrics] for sums in segments.values()]
    values = [[[_number(getattr(each, part)) for part in PARTS] for each in row] for row in found]
    events = [[each.events for each in row] for row in found]
    shape = (len(segments), len(metrics))
    return ReferencePerformance(
        kept,
        tuple(segments),
        tuple(metrics),
        np.array(values, np.float64).reshape(*shape, len(PARTS)),
        np.array(events, np.int64).reshape(shape),
    )


def _number(x: float | None) -> float:
    return math.nan if x is None else rounded(x)


def performance_content(found: ReferencePerformance | None) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """(part of a profile's header, sections); nothing of a profile without, which keeps its id."""
    if found is None:
        return {}, {}
    header = {"kept": found.kept, "segments": list(found.segments), "metrics": list(found.metrics)}
    return {NAME: header}, {VALUES: found.values.astype("<f8"), EVENTS: found.events.astype("<i8")}


def performance_from(header: Mapping[str, Any], sections: Mapping[str, NDArray[Any]]) -> ReferencePerformance | None:
    """Inverse of `performance_content`."""
    if NAME not in header:
        return None
    own = header[NAME]
    segments, metrics = tuple(own["segments"]), tuple(own["metrics"])
    values = sections[VALUES].astype(np.float64).reshape(len(segments), len(metrics), len(PARTS))
    events = sections[EVENTS].astype(np.int64).reshape(len(segments), len(metrics))
    return ReferencePerformance(own["kept"], segments, metrics, values, events)
