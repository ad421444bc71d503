"""Configuration of the user's own topics, and of what is said of a model's performance by those of feedback."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from detectors.performance.disparity import LEAST_EVENTS
from detectors.performance.layout import CLASSES_MAX, CLASSES_SCORED_MAX, QUANTILES_MAX
from detectors.performance.sums import VALUE_MAX
from stream.config_kafka import NAME_MAX, Name, Section, TopicName
from stream.config_performance import PerformanceDetector
from stream.config_provisional import Provisional, fitting
from stream.config_told import BusinessValue, ClassName, Kpi
from stream.join_index import CHUNK_ROWS
from stream.mapping import CONSTANT, RECORD_TIME, Keys, MappingError, split
from stream.performance_plan import LABEL_METRICS, PROXY_TOPICS, of_class_scores
from stream.performance_told import BUSINESS_VALUE, KPI, KPI_TO_TARGET, QUANTILE_LOSS
from stream.quantities import Duration, refusal
from stream.topics import TopicRole

HORIZONS_MAX = 10
CLASS_METRICS = of_class_scores(LABEL_METRICS)
NATIVE = "native"
Unit = Literal["rfc3339", "s", "ms", "us", "ns", "auto"]
Number = Annotated[float, Field(allow_inf_nan=False)]
Value = Annotated[float, Field(allow_inf_nan=False, ge=-VALUE_MAX, le=VALUE_MAX)]  # beyond it no sum takes it


def _named(key: str) -> BeforeValidator:
    """A bare text stands for {key: text}."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


def _native_or_object(value: Any) -> Any:
    return {} if value == NATIVE else value


Quantile = Annotated[Number, Field(gt=0, lt=1)]
PathText = Annotated[str, Field(max_length=NAME_MAX)]


class MappingSettings(Section):
    """Where things stand in an event: dotted paths, or constants written "=text"."""

    prediction_id: Name = Field(default="prediction_id", description="path of the id, the only identity of an event")
    model: Name = Field(default="model", description='path of the model\'s name, or a constant: "=fraud"')
    version: Name = Field(default="version", description="path of the model's version, or a constant")
    timestamp: Name = Field(default="timestamp", description='path of the event time, or "$record" for Kafka\'s own')
    timestamp_unit: Literal["rfc3339", "s", "ms", "us", "ns", "auto"] = Field(
        default="auto", description="unit of a numeric timestamp; text is always RFC 3339, and auto reads text only"
    )
    features: PathText = Field(
        default="features", description='path of the object that holds the features; "" = the event itself'
    )
    prediction: Name = Field(default="prediction", description="path of the decision")
    scores: dict[Name, Name] = Field(default={"score": "score"}, description="name of each score and its path")
    segments: PathText = Field(
        default="segments", description='path of the object that holds segment values; "" = the event itself'
    )
    request_id: Name | None = Field(
        default=None,
        description="path of what predictions of several models about one request have in common, to compare them in pairs",
    )
    strict_duplicate_keys: bool = Field(
        default=False,
        description="refuse an event whose id, model, version or timestamp stands twice; otherwise the last one counts",
    )
    unknown_models: Literal["count", "dlq"] = Field(
        default="count",
        description="events of models that are not configured: counted under __unknown__, or dead letters",
    )


REKEY = (
    "the topic is keyed otherwise, or has another number of partitions: its events are copied to an internal topic, by their"
    " prediction_id, or by what stands at this dotted path; that one is read in its place"
)


class RekeyedTopic(Section):
    """A topic of the user's."""

    name: TopicName = Field(description="name of the topic")
    rekey: bool | PathText = Field(default=False, description=REKEY)

    @property
    def keyed_by(self) -> Keys:
        """Keys of the path of what copies are keyed by; () = there are none."""
        own: Any = self.mapping  # type: ignore[attr-defined]
        if isinstance(self.rekey, str):
            return split(self.rekey)
        return split(own.prediction_id) if self.rekey else ()

    @field_validator("rekey")
    @classmethod
    def _is_path(cls, value: bool | str) -> bool | str:
        if isinstance(value, str):
            try:
                whole = bool(split(value)) and not value.startswith((CONSTANT, "$"))
            except MappingError:
                whole = False
            if not whole:
                raise refusal("DL-C026", f"{value!r} is no path", "true, or a dotted path without empty keys")
        return value


class PredictionsTopic(RekeyedTopic):
    """The topic that the model's predictions are read from."""

    mapping: Annotated[
        MappingSettings,
        BeforeValidator(_native_or_object),
    ] = Field(
        default=MappingSettings(), description="how an event is read: native, or the paths of this topic's own shape"
    )
    damaged_batches: Literal["wait", "skip"] = Field(
        default="wait",
        description="a batch with a wrong checksum or unknown compression: its partition waits, or goes on after some tries",
    )
    lateness: Duration = Field(
        default=Duration(60_000), description="how far behind the newest event another may be and still count"
    )


class ClickMapping(Section):
    """Where things stand in a click: dotted paths."""

    prediction_id: Name = Field(default="prediction_id", description="path of the prediction's id")
    timestamp: Name = Field(
        default="timestamp", description='path of when it became known, or "$record" for Kafka\'s own time'
    )
    timestamp_unit: Unit = Field(
        default="auto", description="unit of a numeric timestamp; text is always RFC 3339, and auto reads text only"
    )


class ConversionMapping(ClickMapping):
    """Where things stand in a conversion."""

    value: Name = Field(default="value", description="path of the amount; null retracts what was said before")


class LabelMapping(ClickMapping):
    """Where things stand in a label."""

    timestamp: Name = Field(
        default=RECORD_TIME,
        description='path of when it became known; "$record": when it was written. Not when the outcome happened',
    )
    value: Name = Field(default="label", description="path of the label; null retracts what was said before")
    model: Name | None = Field(
        default=None,
        description="where labels bring the prediction that they are of, so that it need not wait for them: path of the model's name,"
        " or a constant. They are counted when they become known",
    )
    version: Name | None = Field(default=None, description="path of the model's version, or a constant, of such labels")
    prediction: Name | None = Field(
        default=None, description="path of the decision, of such labels; needed where `model` is"
    )
    score: Name | None = Field(default=None, description="path of the score, of such labels")

    @model_validator(mode="after")
    def _brings_whole(self) -> Self:
        if self.model is None and (self.version, self.prediction, self.score) != (None, None, None):
            raise refusal("DL-C020", "labels that bring their prediction, and no path of its model", "model")
        if self.model is not None and self.prediction is None:
            raise refusal("DL-C020", "labels that bring their model and no prediction", "prediction")
        return self


class FeedbackTopic(RekeyedTopic):
    """A topic of feedback, by prediction_id as its key, with as many partitions as the predictions topic; or with `rekey`."""

    lateness: Duration = Field(
        default=Duration(600_000), description="how far behind the newest event another may be and still count"
    )
    mapping: Annotated[ClickMapping, BeforeValidator(_native_or_object)] = Field(
        default=ClickMapping(), description="how an event is read: native, or the paths of this topic's own shape"
    )


class ClicksTopic(FeedbackTopic):
    """Clicks, or any other sign that comes once or not at all."""


class _Ranged(FeedbackTopic):
    """A topic whose events have values."""

    range: tuple[Value, Value] = Field(
        default=(-VALUE_MAX, VALUE_MAX), description="[low, high]; an event with a value outside is a dead letter"
    )

    @model_validator(mode="after")
    def _low_first(self) -> Self:
        if not self.range[0] < self.range[1]:
            raise refusal("DL-C020", f"[{self.range[0]:g}, {self.range[1]:g}] is empty", "the lower limit first")
        return self


class ConversionsTopic(_Ranged):
    """Conversions with their value; those of one prediction add up."""

    mapping: Annotated[ConversionMapping, BeforeValidator(_native_or_object)] = Field(
        default=ConversionMapping(), description="how an event is read: native, or the paths of this topic's own shape"
    )
    range: tuple[Value, Value] = Field(
        default=(0.0, VALUE_MAX), description="[low, high]; an event with a value outside is a dead letter"
    )


class LabelsTopic(_Ranged):
    """Labels; the last one of a prediction counts."""

    mapping: Annotated[LabelMapping, BeforeValidator(_native_or_object)] = Field(
        default=LabelMapping(), description="how an event is read: native, or the paths of this topic's own shape"
    )


class Topics(Section):
    """The user's own topics; driftline's are named by `prefix`."""

    predictions: Annotated[PredictionsTopic, _named("name")] = Field(
        description="name of the predictions topic, or its settings"
    )
    clicks: Annotated[ClicksTopic, _named("name")] | None = Field(
        default=None, description="name of the topic of clicks, or its settings"
    )
    conversions: Annotated[ConversionsTopic, _named("name")] | None = Field(
        default=None, description="name of the topic of conversions, or its settings"
    )
    labels: Annotated[LabelsTopic, _named("name")] | None = Field(
        default=None, description="name of the topic of labels, or its settings"
    )

    def feedback(self) -> dict[TopicRole, FeedbackTopic]:
        """The topics of feedback that there are."""
        found = {
            TopicRole.CLICKS: self.clicks,
            TopicRole.CONVERSIONS: self.conversions,
            TopicRole.LABELS: self.labels,
        }
        return {role: topic for role, topic in found.items() if topic is not None}


class Feedback(Section):
    """How much may wait in one partition of the predictions topic."""

    waiting_predictions_max: Annotated[int, Field(ge=2 * CHUNK_ROWS, le=1_000_000_000)] = Field(
        default=4_000_000,
        description="predictions that wait for feedback, some 60 to 90 bytes each; beyond it the oldest go, which is counted, and their"
        " windows say `incomplete`",
    )
    waiting_events_max: Annotated[int, Field(ge=10_000, le=1_000_000_000)] = Field(
        default=1_000_000,
        description="events of one topic of feedback that wait for `lateness` to pass or for the predictions, some 50 bytes each; ahead"
        " of the predictions the topic is not read on from half of it, what is beyond it is dropped and counted",
    )


class Performance(Section):
    """What is said of a model's performance, of every window, once the horizon of its predictions has passed."""

    horizons: Annotated[tuple[Duration, ...], Field(min_length=1, max_length=HORIZONS_MAX)] = Field(
        description="how long after a prediction its feedback counts, multiples of `resolution`; each is a series of its own"
    )
    provisional: Provisional = Field(
        default="auto",
        description="ages at which the running value of a window is said: multiples of `resolution`, each of the horizons beyond it;"
        " auto: an eighth and a half of each horizon, rounded up to `resolution`; none: final values alone",
    )
    proxies: tuple[Literal[tuple(PROXY_TOPICS)], ...] = Field(  # type: ignore[valid-type]
        default=(),
        description="of clicks: ctr and what the scores expect; of conversions: cvr, value_per_prediction, "
        "and the kpi that they make up",
    )
    metrics: tuple[Literal[LABEL_METRICS], ...] = Field(default=(), description="of labels")  # type: ignore[valid-type]
    classes: Annotated[tuple[ClassName, ...], Field(min_length=2, max_length=CLASSES_MAX)] = Field(
        default=("0", "1"), description="of predictions and labels, as their events have them; true is 1"
    )
    positive: ClassName | None = Field(
        default=None, description="the class that scores are of, where there are two; default the last one"
    )
    quantiles: Annotated[tuple[Quantile, ...], Field(max_length=QUANTILES_MAX)] = Field(
        default=(),
        description="of quantile_loss, one series each: the quantile that predictions are meant to be, or several losses of the same "
        "predictions",
    )
    business_value: BusinessValue | None = Field(
        default=None, description="of the metric of this name: what a row is worth by its label and prediction"
    )
    kpi: Kpi | None = Field(default=None, description="of the proxies kpi and kpi_to_target: its name and target")
    class_scores: dict[ClassName, Name] = Field(
        default={},
        description="of metrics of the scores of all classes, three or more: each class and the name of its score in "
        "topics.predictions.mapping.scores; 8 bytes more for each of a waiting prediction",
    )
    learning: Annotated[int, Field(ge=50, le=100_000)] = Field(
        default=200,
        description="first windows of each series (version, segment, metric, horizon) that say what is normal: recorded, and only "
        "constants of `detectors` page",
    )
    tolerance: Annotated[Number, Field(ge=0)] = Field(
        default=0.0, description="change that does not matter, in standard deviations of one row: removes alarms"
    )
    detectors: tuple[PerformanceDetector, ...] = Field(
        default=(), description="metrics that page beyond a threshold, or when an online detector fires"
    )
    disparity: dict[Name, ClassName] = Field(
        default={}, description="segment key and the value that is its reference group: the others are compared with it"
    )
    champion: ClassName | None = Field(
        default=None, description="version that the others are compared with; without it the one that serves"
    )
    challengers: tuple[Name, ...] = Field(
        default=(),
        description="other models that see the same requests: compared with this one in pairs of predictions",
    )
    least_events: Annotated[int, Field(ge=1, le=100_000_000)] = Field(
        default=LEAST_EVENTS, description="rows that both sides of a comparison must have in a window"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        lengths = [horizon.ms for horizon in self.horizons]
        if len(set(lengths)) < len(lengths) or len(set(self.classes)) < len(self.classes):
            raise refusal("DL-C020", "a horizon or a class stands twice", "each once")
        fitting(self.provisional, self.horizons)
        if self.positive is not None and self.positive not in self.classes:
            raise refusal("DL-C020", f"positive: {self.positive} is none of the classes", ", ".join(self.classes))
        if not self.proxies and not self.metrics:
            raise refusal("DL-C020", "neither proxies nor metrics", "at least one of them")
        self._told()
        for detector in self.detectors:
            if detector.metric not in (*self.proxies, *self.metrics):
                raise refusal("DL-C020", f"{detector.metric} is not asked for", "one of proxies and metrics")
            strange = [str(each) for each in detector.horizons if each not in self.horizons]
            if strange:
                raise refusal("DL-C020", f"{strange[0]} is no horizon of it", ", ".join(map(str, self.horizons)))
            unknown = [f"{each:g}" for each in detector.quantiles if each not in self.quantiles]
            if unknown:
                known = ", ".join(f"{each:g}" for each in self.quantiles) or "none: those are of quantile_loss"
                raise refusal("DL-C020", f"{unknown[0]} is none of its quantiles", known)
        return self

    def _told(self) -> None:
        """What is said of a metric is of one that is asked for, and the other way round."""
        if bool(self.quantiles) != (QUANTILE_LOSS in self.metrics):
            read = f"quantiles, and no {QUANTILE_LOSS}" if self.quantiles else f"{QUANTILE_LOSS}, and of no quantile"
            raise refusal("DL-C020", read, f"metrics: [{QUANTILE_LOSS}] and quantiles, for instance [0.9]")
        if (self.business_value is not None) != (BUSINESS_VALUE in self.metrics):
            read = f"{BUSINESS_VALUE}, and no such metric" if self.business_value else f"no values of {BUSINESS_VALUE}"
            raise refusal("DL-C020", read, f"metrics: [{BUSINESS_VALUE}] and {BUSINESS_VALUE}: {{values: ...}}")
        if self.business_value is not None:
            self.business_value.check(self.classes)
        self._of_classes()
        asked = {KPI, KPI_TO_TARGET}.intersection(self.proxies)
        if (self.kpi is not None) != bool(asked):
            read = f"{KPI}, and no such proxy" if self.kpi else f"nothing said of the {min(asked)}"
            raise refusal("DL-C020", read, f"proxies: [{KPI_TO_TARGET}] and {KPI}: {{name: revenue, target: 1.2}}")
        if self.kpi is not None and self.kpi.target is None and KPI_TO_TARGET in asked:
            raise refusal("DL-C020", f"{KPI_TO_TARGET}, and no target", f"{KPI}.target")
        if len(set(self.quantiles)) < len(self.quantiles):
            raise refusal("DL-C020", "a quantile stands twice", "each once")

    def _of_classes(self) -> None:
        asked, own = of_class_scores(self.metrics), self.class_scores
        if bool(asked) != bool(own):
            read = "class_scores, and no metric of them" if own else f"{asked[0]}, and no class_scores"
            raise refusal("DL-C020", read, f"metrics: [{asked[0] if asked else CLASS_METRICS[0]}] and class_scores")
        if own and not 3 <= len(self.classes) <= CLASSES_SCORED_MAX:
            read = f"class_scores are of 3 to {CLASSES_SCORED_MAX} classes, there are {len(self.classes)}"
            raise refusal("DL-C020", read, "of two classes their score says everything: auroc, log_loss, brier")
        strange = sorted(set(own) ^ set(self.classes)) if own else []
        if strange:
            read = f"class_scores: {strange[0]} {'is none of the classes' if strange[0] in own else 'is not there'}"
            raise refusal("DL-C020", read, f"each of {', '.join(self.classes)}")
        if len(set(own.values())) < len(own):
            raise refusal("DL-C020", "class_scores: two classes have one score", "a score of each class")
