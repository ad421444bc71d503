"""What is kept and said of each model's realised performance: derived from the configuration, read by collectors and monitors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import xxhash

from detectors.performance import METRICS, Layout, Part, Task, kept
from detectors.performance.disparity import LEAST_EVENTS
from stream.columns import F64, I64
from stream.join import JoinPlan
from stream.join_feedback import CARRIED, FeedbackKind
from stream.label_values import text_value
from stream.performance_detection import PerformanceDetection
from stream.performance_told import NOTHING, Told, metric_of
from stream.plan import SegmentPlan
from stream.plan_codec import NO_COLUMN
from stream.topics import TopicRole

KINDS: dict[TopicRole, FeedbackKind] = {
    TopicRole.CLICKS: FeedbackKind.CLICK,
    TopicRole.CONVERSIONS: FeedbackKind.CONVERSION,
    TopicRole.LABELS: FeedbackKind.LABEL,
}
"""The topics of feedback, in the order in which series are listed."""

PROXY_TOPICS: dict[str, TopicRole] = {
    "ctr": TopicRole.CLICKS,
    "expected_ctr": TopicRole.CLICKS,
    "clicks_over_expected": TopicRole.CLICKS,
    "cvr": TopicRole.CONVERSIONS,
    "value_per_prediction": TopicRole.CONVERSIONS,
    "kpi": TopicRole.CONVERSIONS,
    "kpi_to_target": TopicRole.CONVERSIONS,
}
"""Proxies, and the topic that each is counted from."""

KIND_METRICS = {
    kind: tuple(name for name, role in PROXY_TOPICS.items() if KINDS[role] is kind)
    for kind in (FeedbackKind.CLICK, FeedbackKind.CONVERSION)
}
"""Of proxies: what a topic of clicks or conversions can say. Labels say everything else."""

LABEL_METRICS: tuple[str, ...] = tuple(name for name, metric in METRICS.items() if metric.task is not Task.PROXY)
"""Metrics of labels: they need the label, the prediction and its score, or the scores of all classes."""

NO_CODE = -1


def possible(kind: str, layout: Layout, told: Told = NOTHING) -> tuple[str, ...]:
    """Series that feedback of this kind, kept so, can say, with what the operator has said."""
    own = KIND_METRICS.get(FeedbackKind(kind))
    others = {name for names in KIND_METRICS.values() for name in names}
    can = (name for name in kept(layout) if (name in own if own is not None else name not in others))
    return tuple(series for name in can for series in told.series(name))


def wanted(kind: str, layout: Layout, asked: Sequence[str], told: Told = NOTHING) -> tuple[str, ...]:
    """Those of `possible` whose metric was asked for; none asked = all."""
    return tuple(name for name in possible(kind, layout, told) if not asked or metric_of(name) in asked)


@dataclass(frozen=True, slots=True)
class StreamPerformance:
    """One topic of feedback of one model. `layout`: what is kept; `metrics`: names of detectors.performance.METRICS. `carries`:
    its events may carry their prediction, which makes one more series, at the horizon join.CARRIED. `ages`: (horizon, age
    below it at which its running value is said), ascending; an age may be a horizon itself.
    """

    stream: str
    kind: FeedbackKind
    horizons_ms: tuple[int, ...]
    metrics: tuple[str, ...]
    layout: Layout
    carries: bool = False
    ages: tuple[tuple[int, int], ...] = ()

    @property
    def series_ms(self) -> tuple[int, ...]:
        """The horizons of its series, ascending: of what is said finally."""
        return (CARRIED, *self.horizons_ms) if self.carries else self.horizons_ms

    @property
    def points_ms(self) -> tuple[int, ...]:
        """`series_ms` and the ages that are no horizon, ascending: at which panes come."""
        return tuple(sorted({*self.series_ms, *(age for _, age in self.ages)}))


@dataclass(frozen=True)
class ModelPerformance:
    """`classes`: texts, their place is their code; none: labels are numbers. `segments`: as the collector follows them.

    class_scores   names of their scores in the order of `classes`, and class_columns their columns in a chunk; () = not kept
    disparity      (key, value of the reference group), ascending
    champion       version that the others are compared with; None: the one that serves
    least_events   rows that both sides of a comparison must have
    challengers    models that are compared with this one, in pairs of predictions of one request
    detection, told   the monitor's; collectors do not heed them
    """

    model: str
    classes: tuple[str, ...]
    positive: int
    streams: tuple[StreamPerformance, ...]
    segments: tuple[SegmentPlan, ...] = ()
    disparity: tuple[tuple[str, str], ...] = ()
    champion: str | None = None
    least_events: int = LEAST_EVENTS
    challengers: tuple[str, ...] = ()
    detection: PerformanceDetection = field(default_factory=PerformanceDetection)
    told: Told = NOTHING
    class_scores: tuple[str, ...] = ()
    class_columns: tuple[int, ...] = ()

    @cached_property
    def _codes(self) -> tuple[F64, I64]:
        found = {}
        for code, text in enumerate(self.classes):
            found[float(text_value(np.array([xxhash.xxh3_64_intdigest(text.encode())], np.uint64))[0])] = code
            number = _number(text)
            if number is not None:
                found[number] = code
        values = sorted(found)
        return np.array(values, np.float64), np.array([found[value] for value in values], np.int64)

    @property
    def class_values(self) -> tuple[float, ...]:
        """What the classes are as values of feedback, ascending."""
        return tuple(self._codes[0].tolist())

    def codes(self, values: F64) -> I64:
        """Code of the class of each value F64[n]; `len(classes)` for one that is no class, NO_CODE for NaN."""
        known, code = self._codes
        place = np.minimum(np.searchsorted(known, values), len(known) - 1)
        found = np.where(known[place] == values, code[place], len(self.classes))
        return np.where(np.isnan(values), NO_CODE, found).astype(np.int64)


@dataclass(frozen=True, slots=True)
class FeedbackPlan:
    """What a collector joins: models by index in Columns.model, and the columns of prediction, score and request in a chunk of
    predictions; NO_COLUMN where requests are not told.
    """

    join: JoinPlan
    models: dict[int, ModelPerformance]
    prediction: int
    score: int
    request: int = NO_COLUMN

    @property
    def series(self) -> tuple[tuple[str, int], ...]:
        """(stream, horizon) of every marker, in order."""
        return tuple((stream.name, horizon) for stream in self.join.streams for horizon in stream.series_ms)


def label_layout(metrics: Sequence[str], classes: int, positive: int) -> Layout:
    """What labels need for these metrics, which are all of classes or all of numbers. Raises BadSettings."""
    if all(METRICS[name].task is Task.REGRESSION for name in metrics):
        return Layout(errors=True)
    return Layout(classes=classes, positive=positive, scores=classes == 2, class_scores=bool(of_class_scores(metrics)))


def of_class_scores(metrics: Sequence[str]) -> tuple[str, ...]:
    """Those that need a score of every class."""
    return tuple(name for name in metrics if METRICS[name].needs is Part.CLASS_SCORES)


def _number(text: str) -> float | None:
    """The number that JSON may write for this class: of true and false, too."""
    if text in {"true", "false"}:
        return float(text == "true")
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
