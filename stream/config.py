"""The configuration: what may stand in monitor.yaml, with types, limits, defaults and one description of every key.

The models are frozen; reading them from YAML, with places and all problems at once, is config_loader.load_config.
`driftline schema` prints the JSON Schema that these classes generate, and `driftline explain` their descriptions.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    GetPydanticSchema,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import core_schema

from detectors.verdict import AUTO_EVENTS_MIN, TOLERANCE_MAX
from stream.config_detectors import Detector
from stream.config_kafka import NAME_MAX, File, Kafka, Name, Section, TopicName
from stream.config_topics import Feedback, Performance, Topics
from stream.limits import ARRAY_NUMBERS_MAX
from stream.quantities import Duration, Rate, Size, refusal, shown
from stream.topics import FEEDBACK, TopicRole, rekeyed_name, topic_name

MODELS_MAX = 50  # labels of metrics are bounded by it
SEGMENT_VALUES_MAX = 50
TARGETS_MAX = 2000
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)+", re.DOTALL)

AUTO: Literal["auto"] = "auto"
Season = Literal["auto", "none", "hour_of_day", "hour_of_week"]  # detectors.sequential.strata.Season
TOLERANCE_LEAST = 0.05  # of `tolerance: auto` where no number is given further out


def _auto_or_object(value: Any) -> Any:
    return {} if value == AUTO else value


def _scalar_text(value: Any) -> Any:
    """Segment values as their text: a bare 1 or true in YAML is the value that JSON writes the same way."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else value


def _auto_or_number(value: Any, number: ValidatorFunctionWrapHandler) -> Any:
    if isinstance(value, str) and value != AUTO:
        raise refusal("DL-C013", f"{shown(value)} is no tolerance", f"auto, or a number from 0 to {TOLERANCE_MAX:g}")
    return AUTO if value == AUTO else number(value)


Tolerance = Annotated[
    float | Literal["auto"],
    GetPydanticSchema(
        lambda _, handler: core_schema.no_info_wrap_validator_function(
            _auto_or_number,
            handler.generate_schema(ToleranceNumber),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value),
        )
    ),
]
Number = Annotated[float, Field(allow_inf_nan=False)]
ToleranceNumber = Annotated[float, Field(allow_inf_nan=False, ge=0, le=TOLERANCE_MAX)]
Share = Annotated[float, Field(allow_inf_nan=False, gt=0, le=1)]
SegmentValue = Annotated[str, BeforeValidator(_scalar_text), WithJsonSchema({"type": ["string", "integer", "boolean"]})]


def _pointer(value: Any) -> Any:
    if isinstance(value, str) and _POINTER.fullmatch(value) is None:
        raise refusal("DL-C014", f"{shown(value)} is no JSON pointer", "RFC 6901: /key/key, with ~0 for ~ and ~1 for /")
    return value


Pointer = Annotated[str, Field(max_length=NAME_MAX), BeforeValidator(_pointer)]


class Window(Section):
    """How long a window is. `auto` (no `every`) takes the shortest length at which the reference's windows are exchangeable."""

    every: Duration | None = Field(
        default=None, description="shortest length of a window, a multiple of `resolution`; without it: auto"
    )
    min_events: Annotated[int, Field(ge=1, le=100_000_000)] | None = Field(
        default=None,
        description=f"a window stays open until it has as many events; default 500, with auto {AUTO_EVENTS_MIN} where a reference "
        "file with times shows how long windows must be and no `detectors` of your own look at them",
    )
    max_duration: Duration | None = Field(
        default=None, description="…but no longer than this (default 12 × every): insufficient data"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.every is not None and self.max_duration is not None and self.max_duration < self.every:
            raise refusal(
                "DL-C020",
                f"max_duration {self.max_duration} is shorter than every {self.every}",
                f"at least {self.every}",
            )
        return self


WindowField = Annotated[Window, BeforeValidator(_auto_or_object)]


class Defaults(Section):
    """What holds for every model that does not say otherwise."""

    false_alarms: Rate = Field(
        default=Rate(1.0, Duration(30 * 86_400_000)),
        description="false alarms per model, all targets and versions together",
    )
    tolerance: Tolerance = Field(
        default=AUTO,
        description="shift that does not matter, in reference standard deviations; "
        "auto: 0.05, and where the reference's own days move more, as much as holds them",
    )
    window: WindowField = Field(default=Window(), description="auto, or {every, min_events, max_duration}")
    season: Season = Field(
        default="auto",
        description="windows are compared with the reference's of the same hour (UTC); auto: of the week, else of the day, where a "
        "target differs between hours and the reference file carries it. A reference that is learnt has no hours. "
        "Without hours, where windows' sizes come in runs: with those of about the same number of events",
    )


class Reference(Section):
    """What normal is: a file of training or validation rows, or the first events of the stream."""

    file: File | None = Field(default=None, description="Parquet or CSV file with one row per prediction")
    first: Annotated[int, Field(ge=5_000, le=1_000_000_000)] | None = Field(
        default=None, description="learn from the first N events"
    )
    time: Name | None = Field(
        default=None, description="column with the event time; without it rows are shuffled (seeded) into windows"
    )
    label: Name | None = Field(default=None, description="column with the outcome: no feature")
    prediction: Name | None = Field(
        default=None, description="column with the decision; without it the column `prediction`, if there is one"
    )
    score: Name | None = Field(
        default=None, description="column with the score; without it the column `score`, if there is one"
    )
    ignore: tuple[Name, ...] = Field(default=(), description="columns that are no features")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("file", "first") if getattr(self, name) is not None]
        if len(given) != 1:
            raise refusal(
                "DL-C020", "both file and first" if given else "neither file nor first", "exactly one of file, first"
            )
        columns = [name for name in ("time", "label", "prediction", "score", "ignore") if getattr(self, name)]
        if self.file is None and columns:
            raise refusal("DL-C020", f"{columns[0]} names a column of a file, and there is none", "file, or no columns")
        return self


class Target(Section):
    """What is known of one feature, of `prediction`, or of a score."""

    kind: Literal["numeric", "categorical"] | None = Field(
        default=None, description="how values are counted; without it the reference says"
    )
    tolerance: Tolerance | None = Field(
        default=None,
        description="shift that does not matter, in reference standard deviations; auto: at least the model's, and as much as "
        "holds the reference's own days",
    )
    range: tuple[Number, Number] | None = Field(
        default=None, description="[low, high]; values outside count as out of range"
    )
    watch: bool = Field(default=True, description="false: not read, not counted")
    coerce: bool = Field(
        default=False,
        description='a text that is a JSON number ("12.5") counts as that number, for every model of the topic; it is slow',
    )
    dimension: Annotated[int, Field(ge=1, le=ARRAY_NUMBERS_MAX)] | None = Field(
        default=None,
        description="the feature is an array of so many numbers, an embedding: its norm is watched as a number, any other value is "
        "invalid, and mmd_random_features can be asked for with it as its target",
    )

    @field_validator("range")
    @classmethod
    def _low_first(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not value[0] < value[1]:
            raise refusal("DL-C020", f"[{value[0]:g}, {value[1]:g}] is empty", "the lower limit first")
        return value

    @model_validator(mode="after")
    def _numeric_range(self) -> Self:
        if self.kind == "categorical" and self.range is not None:
            raise refusal("DL-C020", "a categorical target has no range", "kind: numeric, or no range")
        if self.dimension is not None and (self.kind is not None or self.range is not None or self.coerce):
            raise refusal("DL-C020", "an array is no number and no text", "dimension without kind, range and coerce")
        return self


class Model(Section):
    """One watched model, by the name that its events carry."""

    reference: Reference = Field(description="what normal is: {file: ...} or {first: N}")
    owner: Name | None = Field(default=None, description="team that alerts name")
    runbook: Name | None = Field(default=None, description="link that alerts carry")
    criticality: Literal["low", "medium", "high"] = Field(
        default="medium", description="raises or lowers the severity of alerts"
    )
    targets: Annotated[dict[Name, Target], Field(max_length=TARGETS_MAX)] = Field(
        default={}, description="settings of single targets"
    )
    segments: Annotated[
        dict[Name, Annotated[tuple[SegmentValue, ...], Field(min_length=1, max_length=SEGMENT_VALUES_MAX)]],
        Field(max_length=20),
    ] = Field(default={}, description="segment keys and the values that are followed; the rest is counted as __other__")
    detectors: tuple[Detector, ...] = Field(
        default=(), description="window series that page beyond a threshold, or when an online detector fires"
    )
    performance: Performance | None = Field(
        default=None, description="what is said of it by clicks, conversions and labels, once it is final"
    )
    traffic: Literal["shadow", "split"] = Field(
        default="shadow",
        description="split: each request reaches one version, so versions are pooled; shadow: several may see the same request",
    )
    false_alarms: Rate | None = Field(default=None, description="instead of defaults.false_alarms")
    tolerance: Tolerance | None = Field(
        default=None, description="instead of defaults.tolerance; auto: at least that, if it is a number"
    )
    window: WindowField | None = Field(default=None, description="instead of defaults.window")
    season: Season | None = Field(default=None, description="instead of defaults.season")


class Metrics(Section):
    """Prometheus metrics and health, on loopback."""

    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=9464, description="port of the first worker, the next ones take the next ports; 0: none"
    )


class DeadLetters(Section):
    """What of a refused event is written down."""

    payload: Literal["full", "truncated", "hash"] = Field(
        default="full",
        description="full: up to 64 KiB as it came; truncated: the first KiB; hash: only sha256 and length, no key, no headers",
    )
    redact: Annotated[tuple[Pointer, ...], Field(max_length=100)] = Field(
        default=(),
        description="JSON pointers of values to leave out, as /features/email; what is no JSON object is kept as hash then",
    )


class JobAlerts(Section):
    """When the predictions topic itself raises an alert: fixed limits on shares of its events, over stretches of event time."""

    dead_letter_share: Share = Field(default=0.05, description="more than this share that cannot be read")
    future_share: Share = Field(default=0.01, description="more than this share further ahead than max_future_skew")
    late_share: Share = Field(default=0.01, description="more than this share too late to be counted")
    min_events: Annotated[int, Field(ge=1, le=100_000_000)] = Field(
        default=1000, description="a stretch goes on until it has as many events"
    )
    every: Duration = Field(default=Duration(60_000), description="shortest length of a stretch, in event time")
    resolve_after: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=3, description="stretches in a row within the limit that end an alert"
    )


class Config(Section):
    """The whole file."""

    kafka: Kafka = Field(description="the cluster")
    topics: Topics = Field(description="what is read")
    models: Annotated[dict[Name, Model], Field(min_length=1, max_length=MODELS_MAX)] = Field(
        description="what is watched"
    )
    prefix: TopicName = Field(default="driftline.", description="start of the names of driftline's own topics")
    defaults: Defaults = Field(default=Defaults(), description="what holds for every model that does not say otherwise")
    resolution: Duration = Field(default=Duration(60_000), description="length of a pane, the unit of windows")
    max_future_skew: Duration = Field(
        default=Duration(300_000), description="an event further ahead of its record time is a dead letter"
    )
    idle_timeout: Duration = Field(
        default=Duration(60_000), description="a partition without news for so long no longer holds the others up"
    )
    dedup: bool = Field(default=True, description="drop events whose prediction_id was seen in the same pane")
    on_data_loss: Literal["refuse", "reset"] = Field(
        default="refuse",
        description="where a topic was made anew, or lost what the state has read: stop with the reason, or go on in the new log",
    )
    monitors: Annotated[int, Field(ge=1, le=256)] = Field(
        default=8, description="partitions of driftline's own topics: models are spread over them"
    )
    dead_letters: DeadLetters = Field(
        default=DeadLetters(), description="how much of a refused event goes to the dead letters"
    )
    job_alerts: JobAlerts = Field(default=JobAlerts(), description="when the topic itself raises an alert")
    metrics: Metrics = Field(default=Metrics(), description="Prometheus metrics and health")
    feedback: Feedback = Field(default=Feedback(), description="how much may wait for feedback")
    memory_budget: Size = Field(
        default=Size(10**9), description="check-config refuses above this estimate of a worker's memory"
    )

    def topic(self, role: TopicRole) -> str:
        """Name of the topic with this role. A topic of feedback that there is none of: KeyError."""
        if role is TopicRole.PREDICTIONS:
            return self.topics.predictions.name
        return self.topics.feedback()[role].name if role in FEEDBACK else topic_name(self.prefix, role)

    def rekeyed(self) -> dict[TopicRole, tuple[str, ...]]:
        """The user's topics that are re-keyed, and the keys of the path that each is keyed by."""
        topics = {TopicRole.PREDICTIONS: self.topics.predictions, **self.topics.feedback()}
        return {role: topic.keyed_by for role, topic in topics.items() if topic.keyed_by}

    def source(self, role: TopicRole) -> str:
        """Name of the topic that the workers read for this role: of one that is re-keyed that of its copies."""
        return rekeyed_name(self.prefix, self.topic(role)) if role in self.rekeyed() else self.topic(role)

    def roles(self) -> tuple[TopicRole, ...]:
        """Of all topics that this configuration has, but for those with copies."""
        here = {*TopicRole} - {*FEEDBACK, TopicRole.REKEYED} | {*self.topics.feedback()}
        return tuple(role for role in TopicRole if role in here)

    def watched(self) -> dict[str, str]:
        """Name, by role, of each topic that must be there while a worker runs; `rekeyed.ROLE`: the user's own, of which copies are
        read.
        """
        here = {role.value: self.source(role) for role in self.roles()}
        return here | {f"{TopicRole.REKEYED.value}.{role.value}": self.topic(role) for role in self.rekeyed()}

    def window_of(self, model: str) -> Window:
        return self.models[model].window or self.defaults.window

    def season_of(self, model: str) -> Season:
        return self.models[model].season or self.defaults.season

    def tolerance_of(self, model: str, target: str | None = None) -> tuple[float, bool]:
        """(least tolerance, whether it is widened): the target's, else the model's, else the default one. The least of `auto` is
        the next number further out.
        """
        settings = self.models[model]
        own = settings.targets[target].tolerance if target in settings.targets else None
        given = [value for value in (own, settings.tolerance, self.defaults.tolerance) if value is not None]
        numbers = [value for value in given if not isinstance(value, str)]
        return numbers[0] if numbers else TOLERANCE_LEAST, given[0] == AUTO

    def false_alarms_of(self, model: str) -> Rate:
        return self.models[model].false_alarms or self.defaults.false_alarms


def config_from(data: dict[str, Any], base: Path | None = None) -> Config:
    """Config from plain values as YAML gives them. Raises ConfigError (config_errors) with every problem, without places."""
    from stream.config_loader import validate

    return validate(data, base=base or Path())
