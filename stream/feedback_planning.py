"""From the configuration to what is joined and said of performance. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from xxhash import xxh3_64_hexdigest, xxh3_64_intdigest

from detectors.performance import Layout
from stream.config import Config
from stream.config_checks import feedback_paths
from stream.config_topics import ClicksTopic, LabelsTopic, Performance
from stream.decode_feedback import feedback_layout
from stream.join import JoinPlan
from stream.join_feedback import FeedbackKind, FeedbackStream
from stream.mapping import CONSTANT, PREDICTION, REQUEST, SEGMENTS
from stream.mapping import Layout as EventLayout
from stream.performance_detection import PerformanceDetection, PerformanceLimit, PerformanceWatcher
from stream.performance_plan import (
    KINDS,
    PROXY_TOPICS,
    FeedbackPlan,
    ModelPerformance,
    StreamPerformance,
    label_layout,
)
from stream.performance_told import Told
from stream.plan import SegmentPlan
from stream.plan_codec import NO_COLUMN
from stream.topics import TopicRole

AUTO_AGES = (8, 2)  # parts of a horizon: early, where clicks come, and late enough to have half of a uniform delay
TOLD = ("quantiles", "business_value", "kpi")
SAID = {"disparity", "champion", "least_events", "learning", "tolerance", "detectors", *TOLD}
"""What is said of what was counted: collectors do not depend on it."""


def performance_of(config: Config, model: str, columns: Mapping[str, int] | None = None) -> ModelPerformance | None:
    """What is kept of one model. `columns`: path -> column of the layout of predictions, where rows are read."""
    known = columns or {}
    settings = config.models[model]
    own = settings.performance
    if own is None:
        return None
    return ModelPerformance(
        model=model,
        classes=own.classes,
        positive=_positive(own),
        streams=tuple(
            _stream(own, role, _ages(own, config.resolution.ms), carries=_carries(config, role, model))
            for role in KINDS
            if _asked(own, role)
        ),
        detection=_detection(own),
        segments=tuple(
            segment_plan(key, values, known.get(f"{SEGMENTS}.{key}", NO_COLUMN))
            for key, values in settings.segments.items()
        ),
        disparity=tuple(sorted(own.disparity.items())),
        champion=own.champion,
        least_events=own.least_events,
        challengers=own.challengers,
        told=_told(own),
        class_scores=(names := _class_scores(own)),
        class_columns=tuple(known.get(name, NO_COLUMN) for name in names),
    )


def _class_scores(own: Performance) -> tuple[str, ...]:
    """Names of the scores, in the order of the classes."""
    return tuple(own.class_scores[each] for each in own.classes) if own.class_scores else ()


def _class_meaning(models: Iterable[ModelPerformance]) -> tuple[int, str]:
    """(scores of classes that a prediction may have, what names their meaning)."""
    found = sorted((model.model, *model.classes) for model in models if model.class_scores)
    return max((len(each) - 1 for each in found), default=0), xxh3_64_hexdigest(repr(found).encode()) if found else ""


def _detection(own: Performance) -> PerformanceDetection:
    read = [detector.read() for detector in own.detectors]
    limits = tuple(each for each in read if isinstance(each, PerformanceLimit))
    watchers = tuple(each for each in read if isinstance(each, PerformanceWatcher))
    return PerformanceDetection(own.learning, own.tolerance, limits=limits, watchers=watchers)


def _told(own: Performance) -> Told:
    value = own.business_value
    worth = () if value is None else value.worth(own.classes, _positive(own))
    unit = value.unit or "" if value is not None else ""
    return Told(own.quantiles, worth, unit, own.kpi.read() if own.kpi is not None else None)


def _positive(own: Performance) -> int:
    return len(own.classes) - 1 if own.positive is None else own.classes.index(own.positive)


def _asked(own: Performance, role: TopicRole) -> tuple[str, ...]:
    """Proxies or metrics of one topic."""
    return (
        own.metrics if role is TopicRole.LABELS else tuple(name for name in own.proxies if PROXY_TOPICS[name] is role)
    )


def _carries(config: Config, role: TopicRole, model: str = "") -> bool:
    """Whether events of a topic may carry predictions, of this model where one is named."""
    topic = config.topics.feedback().get(role)
    source = topic.mapping.model if isinstance(topic, LabelsTopic) else None
    return source is not None and (not model or source == CONSTANT + model or not source.startswith(CONSTANT))


def _stream(
    own: Performance, role: TopicRole, ages: tuple[tuple[int, int], ...], *, carries: bool
) -> StreamPerformance:
    asked = _asked(own, role)
    layout = Layout(proxies=True)
    if role is TopicRole.LABELS:
        layout = label_layout(asked, len(own.classes), _positive(own))
    return StreamPerformance(role.value, KINDS[role], _horizons(own), asked, layout, carries, ages)


def _horizons(own: Performance) -> tuple[int, ...]:
    return tuple(sorted(horizon.ms for horizon in own.horizons))


def _ages(own: Performance, resolution_ms: int) -> tuple[tuple[int, int], ...]:
    """(horizon, age at which its running value is said), ascending. AUTO_AGES where nobody says."""
    found = set()
    for horizon in _horizons(own):
        if not isinstance(own.provisional, str):
            ages = [age.ms for age in own.provisional]
        else:
            parts = AUTO_AGES if own.provisional == "auto" else ()
            ages = [-(-horizon // (part * resolution_ms)) * resolution_ms for part in parts]
        found |= {(horizon, age) for age in ages if age < horizon}
    return tuple(sorted(found))


def segment_plan(key: str, values: Sequence[str], column: int) -> SegmentPlan:
    """One configured segment key, read from `column`."""
    hashes = np.array([xxh3_64_intdigest(value.encode()) for value in values], np.uint64)
    return SegmentPlan(key, column, tuple(values), hashes)


def performance_paths(config: Config) -> list[str]:
    """Cells of a prediction that joining needs, beside those of segments."""
    if not config.topics.feedback():
        return []
    asked = [model.performance for model in config.models.values() if model.performance is not None]
    scores = [score_of(config), *(name for own in asked for name in _class_scores(own))]
    return [PREDICTION, *scores, *([REQUEST] if pairs(config) else [])]


def pairs(config: Config) -> bool:
    """Whether models are compared in pairs of predictions of one request."""
    return any(model.performance is not None and model.performance.challengers for model in config.models.values())


def score_of(config: Config) -> str:
    """The score that performance is judged by: the first that the mapping names."""
    return next(iter(config.topics.predictions.mapping.scores), PREDICTION)


def _values(models: Iterable[ModelPerformance]) -> dict[str, Any]:
    """What labels may be: classes of some model, numbers where some model's labels are."""
    layouts = [(model, each.layout) for model in models for each in model.streams if each.kind is FeedbackKind.LABEL]
    classes = {value for model, layout in layouts if layout.classes for value in model.class_values}
    return {"classes": tuple(sorted(classes)), "numbers": any(not layout.classes for _, layout in layouts)}


def feedback_plan(config: Config, paths: Sequence[str]) -> FeedbackPlan | None:
    """What the collectors join; None where there are no topics of feedback."""
    topics = config.topics.feedback()
    if not topics:
        return None
    column = {path: index for index, path in enumerate(paths)}
    found = {index: performance_of(config, name, column) for index, name in enumerate(config.models)}
    models = {index: model for index, model in found.items() if model is not None}
    streams = []
    for role, topic in topics.items():
        mine = [each for model in models.values() for each in model.streams if each.stream == role.value]
        horizons = sorted({horizon for each in mine for horizon in each.horizons_ms})
        ages = {age for each in mine for _, age in each.ages}.difference(horizons)
        limits = {} if isinstance(topic, ClicksTopic) else {"low": topic.range[0], "high": topic.range[1]}  # type: ignore[attr-defined]
        carries = _carries(config, role)
        values = _values(models.values()) if role is TopicRole.LABELS else {}
        streams.append(
            FeedbackStream(
                role.value,
                KINDS[role],
                tuple(horizons),
                topic.lateness.ms,
                carries=carries,
                ages_ms=tuple(sorted(ages)),
                **values,
                **limits,
            )
        )
    join = JoinPlan(
        config.resolution.ms,
        tuple(streams),
        config.max_future_skew.ms,
        config.feedback.waiting_predictions_max,
        config.feedback.waiting_events_max,
        requests=pairs(config),
        class_scores=_class_meaning(models.values()),
    )
    return FeedbackPlan(join, models, column[PREDICTION], column[score_of(config)], column.get(REQUEST, NO_COLUMN))


def feedback_layouts(config: Config) -> dict[str, EventLayout]:
    """How the events of each stream are read. Raises MappingError."""
    return {
        role.value: feedback_layout(KINDS[role], feedback_paths(topic.mapping), list(config.models))
        for role, topic in config.topics.feedback().items()
    }


def _said(own: Performance) -> set[str]:
    unset = {name for name in ("challengers", "class_scores") if not getattr(own, name)}
    unset |= {"provisional"} if own.provisional == "none" else set()
    return SAID | unset  # a configuration without keeps its hash


def feedback_deciding(config: Config) -> dict[str, Any]:
    """Everything that joining depends on, as plain values: part of what collectors must agree on."""
    return {
        "topics": {
            role.value: topic.model_dump(mode="json", exclude_none=True)
            for role, topic in config.topics.feedback().items()
        },
        "waiting": config.feedback.model_dump(mode="json"),
        "models": {
            name: model.performance.model_dump(mode="json", exclude=_said(model.performance))
            for name, model in config.models.items()
            if model.performance is not None
        },
    }
