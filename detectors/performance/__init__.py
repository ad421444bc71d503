"""Realised performance: metrics of predictions whose feedback has come, from sums that merge in any order.

    layout = Layout(classes=2, scores=True)          what is kept, decided once for a model
    sums = PerformanceSums(layout)                   of one pane and horizon; add_*, merge, to_sections
    measure("auroc", sums)                           an Estimate: value, interval, error of the bins; or why there is none

`disparity` compares groups, `PairedSums` two models on the same requests, `difference` and `ratio` any two estimates of different
rows. A metric is one function and one entry in its module's METRICS.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from detectors.performance import probabilities, proxies, ranking, rates, regression
from detectors.performance.estimate import Estimate, Undefined, undefined
from detectors.performance.intervals import difference, ratio
from detectors.performance.layout import Layout, Part, default_score_cuts, score_cuts
from detectors.performance.metric import DEFAULTS, Direction, Metric, MetricSettings, Task
from detectors.performance.rates import confusion_matrix
from detectors.performance.sums import PerformanceSums, from_sections, merged
from detectors.verdict import BadSettings

__all__ = [
    "METRICS", "Direction", "Estimate", "Layout", "Metric", "MetricSettings", "Part", "PerformanceSums", "Task", "Undefined",
    "confusion_matrix", "default_score_cuts", "difference", "from_sections", "kept", "measure", "merged", "ratio", "schema",
    "score_cuts", "undefined",
]  # fmt: skip

METRICS: dict[str, Metric] = {
    metric.name: metric for module in (rates, ranking, probabilities, regression, proxies) for metric in module.METRICS
}
"""Every metric by name, in the order of the documents."""


@lru_cache(256)
def kept(layout: Layout) -> tuple[str, ...]:
    """Names of the metrics that a layout has what they need for."""
    return tuple(name for name, metric in METRICS.items() if not _lacks(metric, layout))


def _lacks(metric: Metric, layout: Layout) -> str:
    if metric.needs not in layout.parts:
        return f"it needs {metric.needs}, which is not kept"
    return "it needs two classes" if metric.task is Task.BINARY and layout.classes != 2 else ""


def measure(name: str, sums: PerformanceSums, settings: MetricSettings = DEFAULTS) -> Estimate:
    """A metric of these sums; undefined, with the reason, where it has no value on them.

    Raises BadSettings for an unknown name, sums that lack what it needs, and settings that it cannot use. O(bins).
    """
    if name not in METRICS:
        raise BadSettings(f"{name!r} is no metric; known: {', '.join(METRICS)}")
    metric = METRICS[name]
    lacking = _lacks(metric, sums.layout)
    if lacking:
        raise BadSettings(f"{name}: {lacking}")
    try:
        return metric.function(sums, settings)
    except Undefined as why:
        return undefined(str(why), settings.confidence)


def schema() -> dict[str, Any]:
    """JSON Schema of a metric's name."""
    return {"type": "string", "oneOf": [{"const": x.name, "description": x.title} for x in METRICS.values()]}
