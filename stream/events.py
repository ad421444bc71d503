"""What goes over the wire, typed once: the prediction event, the alert, a dead letter's headers. JSON Schemas are derived.

The decoder does not use these models (it reads columns, decode.py); tests hold the two to the same examples. Times in
JSON are RFC 3339 texts in UTC.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from stream.deadletter import REASONS
from stream.limits import ID_BYTES_MAX, NAME_BYTES_MAX

Scalar = str | bool | int | float | None
Rfc3339 = Annotated[
    str,
    Field(
        pattern=r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$",
        json_schema_extra={"format": "date-time"},
    ),
]
Name = Annotated[str, Field(min_length=1, max_length=NAME_BYTES_MAX)]

Kind = Literal[
    "feature_drift",
    "prediction_drift",
    "score_drift",
    "label_drift",
    "data_quality",
    "skew",
    "performance",
    "concept_drift",
    "job",
]
Severity = Literal["info", "warning", "critical"]
Transition = Literal["driftline.alert.opened.v1", "driftline.alert.escalated.v1", "driftline.alert.resolved.v1"]


class PredictionEvent(BaseModel):
    """One model output, in the native shape (mapping.NATIVE). Unknown fields are ignored."""

    model_config = ConfigDict(extra="allow", title="driftline prediction event")

    prediction_id: Annotated[str, Field(min_length=1, max_length=ID_BYTES_MAX)] | int | float
    model: Name | int | float
    version: Annotated[str, Field(max_length=NAME_BYTES_MAX)] | int | float | None = None
    timestamp: Rfc3339 | int | float = Field(
        description="when it was predicted; a number needs timestamp_unit in the mapping"
    )
    features: dict[str, Any] | None = Field(
        description="scalars are watched; anything else counts as invalid on its feature"
    )
    prediction: str | bool | int | float | None = None
    score: float | None = None
    segments: dict[str, Scalar] | None = None
    latency_ms: float | None = None
    error: Any = None


class Closed(BaseModel):
    """A part of an alert: fields are added, never silently renamed."""

    model_config = ConfigDict(extra="allow")


class Evidence(Closed):
    """What the detector said. `promise` names the assumption that `false_alarms` rests on."""

    statistic: float
    threshold: float
    false_alarms: str
    promise: str
    tolerance: float


class Summary(Closed):
    """Window statistics shown beside each other; absent for categorical targets."""

    mean: float | None = None
    p50: float | None = None
    p99: float | None = None
    missing: float | None = None


class Effect(Closed):
    """How much: `shift` in `unit`, and typical values then and now."""

    shift: float | None
    unit: str
    reference: Summary
    now: Summary


class BinChange(Closed):
    """One bin's share of the events, in the reference and now."""

    bin: str
    reference: float
    now: float


class Consequence(Closed):
    """Whether the model got worse, as far as it is known."""

    verdict: str
    why: str


class WindowSpan(Closed):
    """The window that decided."""

    start: Rfc3339
    end: Rfc3339
    events: int


class AlertData(Closed):
    """The body of an alert; no wall clock, host or offset is in it."""

    incident: str
    kind: Kind
    severity: Severity
    model: str | None = Field(default=None, description="absent where kind is job: those are of a topic")
    topic: str | None = Field(default=None, description="source topic of an alert whose kind is job")
    versions: list[str]
    segment: str
    target: str
    summary: str
    since: Rfc3339
    onset: Literal["sudden", "gradual"]
    historical: bool
    evidence: Evidence
    effect: Effect
    largest_changes: list[BinChange]
    consequence: Consequence
    window: WindowSpan
    owner: str | None = None
    runbook: str | None = None
    reference: str
    detection: str


class AlertEvent(BaseModel):
    """One transition of an incident: CloudEvents 1.0, structured JSON, key = model, or the topic where kind is job.

    `time` is the window's end.
    """

    model_config = ConfigDict(extra="allow", title="driftline alert")

    specversion: Literal["1.0"] = "1.0"
    type: Transition
    source: Annotated[str, Field(pattern=r"^driftline/.+")]
    id: Annotated[str, Field(min_length=1)]
    time: Rfc3339
    subject: Annotated[str, Field(pattern=r"^[a-z_]+/.+")]
    datacontenttype: Literal["application/json"] = "application/json"
    data: AlertData


class PerformanceEstimate(Closed):
    """A metric of some rows: value and interval, null where there is none, and then `undefined` says why."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    error: float | None = Field(default=None, description="how far bins of scores can have moved the value; 0 = exact")
    undefined: str | None = None


class PerformanceCounts(Closed):
    """Predictions of the window, those of them with feedback within the horizon, and the rows that the value is made of."""

    predictions: int
    observed: int
    used: int


class PerformanceJudged(Closed):
    """How the default detector took the value: learnt from, carried into the next window, or judged, with what it has for evidence."""

    state: Literal["learning", "carried", "judged"]
    carried_windows: int | None = Field(default=None, description="windows that are added up, this one included")
    given_up_windows: int | None = Field(default=None, description="windows so far that were carried, never judged")
    learnt: int | None = Field(default=None, description="windows so far, of `of`")
    of: int | None = None
    normal: float | None = Field(default=None, description="the metric in the windows that were learnt")
    shift: float | None = Field(default=None, description="from it, in standard deviations of one row")
    log10_evidence: float | None = None
    log10_threshold: float | None = None
    alarm: bool | None = Field(default=None, description="true: an alarm; it opened an alert unless one was open")


class ReferenceEstimate(PerformanceEstimate):
    """The same metric of the reference's labelled rows, where it has some; shown beside, not tested against."""

    reference_id: str


class PerformanceAbout(Closed):
    """One window, version, segment and horizon."""

    model: str
    version: str
    segment: str
    metric: str
    feedback: str = Field(description="the topic's role: clicks, conversions or labels")
    horizon_ms: int = Field(description="0: of labels that brought their prediction, by when they became known")
    window: WindowSpan
    serving: str = Field(description="the version that serves: with most predictions, until another has twice as many")
    promoted_from: str | None = Field(default=None, description="the version that served before, in the first window")
    final: bool
    revision: int = Field(description="of the value: one with a higher number replaces it")
    incomplete: bool = Field(description="something that belongs to the window was lost before it was counted")


class ShareIn(Closed):
    """Of the feedback that came within the horizon, what had come at this age: in the windows finished most recently, all versions.
    Feedback that was taken back makes it more than 1.
    """

    value: float | None = None
    observed: int = Field(description="predictions of those windows with feedback at this age")
    observed_finally: int = Field(description="and at the horizon")
    windows: int = Field(description="that were counted")
    undefined: str | None = Field(default=None, description="why there is no value")


class PerformanceData(PerformanceEstimate, PerformanceAbout):
    """One metric. `provisional`: the running value of the horizon, `age_ms` after the window; nothing judges it."""

    provisional: bool
    age_ms: int | None = Field(
        default=None, description="how long after a prediction the feedback of a provisional value counts"
    )
    share_in: ShareIn | None = Field(
        default=None, description="of a provisional value: how much of the feedback it may have"
    )
    counts: PerformanceCounts
    quantile: float | None = Field(default=None, description="of quantile_loss")
    unit: str | None = Field(default=None, description="of the value, where the configuration says one")
    kpi: str | None = Field(default=None, description="of kpi and kpi_to_target: its name")
    target_value: float | None = Field(default=None, description="what the kpi should be, where it has a target")
    matrix: list[list[int]] | None = Field(
        default=None, description="of confusion_matrix: rows are labels, columns predictions"
    )
    classes: list[str] | None = Field(default=None, description="in the order of the matrix")
    expected: PerformanceEstimate | None = Field(default=None, description="what the scores let expect")
    observed_over_expected: PerformanceEstimate | None = None
    judged: PerformanceJudged | None = Field(default=None, description="absent: of no series that pages, or not judged")
    test: ReferenceEstimate | None = None
    live_over_test: PerformanceEstimate | None = Field(default=None, description="value over test value")


class Side(PerformanceEstimate):
    """One of the two that are compared."""

    used: int | None = Field(default=None, description="rows that the value is made of")
    predictions: int | None = None
    observed: int | None = None


class Contrast(Closed):
    """A rate of a group, of its reference group, their difference (group - reference) and ratio (group / reference)."""

    group: Side
    reference: Side
    difference: PerformanceEstimate
    ratio: PerformanceEstimate


class ReferenceContrast(Contrast):
    """The same of the reference's labelled rows."""

    reference_id: str


class DisparityData(Contrast, PerformanceAbout):
    """How a segment fares against the reference group of its key; `metric`: selection_rate, recall, …"""

    reference_segment: str
    test: ReferenceContrast | None = None


class ComparisonData(PerformanceAbout):
    """A version, or another model (challenger), against the champion; difference = challenger - champion."""

    challenger_model: str
    challenger_version: str
    champion_version: str
    samples: Literal["independent", "paired"] = Field(description="paired: both models predicted each of the requests")
    quantile: float | None = Field(default=None, description="of quantile_loss")
    unit: str | None = Field(default=None, description="of the values, where the configuration says one")
    kpi: str | None = Field(default=None, description="of kpi and kpi_to_target: its name")
    target_value: float | None = Field(default=None, description="what the kpi should be, where it has a target")
    pairs: int | None = Field(default=None, description="requests of the window that both predicted")
    paired_share: float | None = Field(default=None, description="of the champion's predictions, those with a pair")
    challenger: Side
    champion: Side
    difference: PerformanceEstimate


class PerformanceRecord(BaseModel):
    """One record of the performance topic: CloudEvents 1.0, structured JSON, key = model. `time` is the window's end."""

    specversion: Literal["1.0"] = "1.0"
    source: Annotated[str, Field(pattern=r"^driftline/.+")]
    id: Annotated[str, Field(min_length=1)]
    time: Rfc3339
    subject: Annotated[str, Field(pattern=r"^[a-z0-9_]+/.+")]
    datacontenttype: Literal["application/json"] = "application/json"


class PerformanceEvent(PerformanceRecord):
    """A metric of one window."""

    model_config = ConfigDict(extra="allow", title="driftline performance")

    type: Literal["driftline.performance.v1"]
    data: PerformanceData


class DisparityEvent(PerformanceRecord):
    """A segment against the reference group of its key, in one window."""

    model_config = ConfigDict(extra="allow", title="driftline disparity")

    type: Literal["driftline.disparity.v1"]
    data: DisparityData


class ComparisonEvent(PerformanceRecord):
    """A version against the champion, in one window."""

    model_config = ConfigDict(extra="allow", title="driftline comparison")

    type: Literal["driftline.comparison.v1"]
    data: ComparisonData


class DeadLetterHeaders(BaseModel):
    """Kafka headers of a dead letter, as text; the value and key are the original's."""

    model_config = ConfigDict(extra="allow", populate_by_name=True, title="driftline dead letter headers")

    reason: str = Field(
        alias="dlq.reason", description="a code of the table above", json_schema_extra={"enum": [*sorted(REASONS)]}
    )
    detail: str = Field(alias="dlq.detail", description="for people; never a copy of the payload")
    path: str = Field(alias="dlq.path", description="JSON pointer; empty = the whole value")
    topic: str = Field(alias="dlq.topic", description="where it came from; with partition, offset and row its identity")
    partition: Annotated[str, Field(pattern=r"^\d+$")] = Field(alias="dlq.partition", description="of that topic")
    offset: Annotated[str, Field(pattern=r"^\d+$")] = Field(alias="dlq.offset", description="in that partition")
    row: Annotated[str, Field(pattern=r"^\d+$")] = Field(
        alias="dlq.row", description="which event of the record; 0 where a record is one event"
    )
    timestamp: Annotated[str, Field(pattern=r"^-?\d+$")] = Field(alias="dlq.timestamp", description="record time, ms")
    timestamp_type: Literal["CreateTime", "LogAppendTime"] = Field(
        alias="dlq.timestamp_type", description="who set the record time: the producer or the broker"
    )
    app_version: str = Field(alias="dlq.app_version", description="of the worker that refused it")
    config_hash: str = Field(
        alias="dlq.config_hash", description="of the mapping, plans and rules of time it was refused under"
    )
    attempt: Annotated[str, Field(pattern=r"^\d+$")] = Field(
        alias="dlq.attempt", description="how many times it had been published by `dlq retry` before: 0 = never"
    )
    payload: Literal["full", "truncated", "redacted", "hash"] = Field(
        alias="dlq.payload", description="what the value of this record is: only full can be retried"
    )
    value_sha256: str | None = Field(
        default=None, alias="dlq.value_sha256", description="of the original value, where this one is not full"
    )
    value_length: str | None = Field(default=None, alias="dlq.value_length", description="its bytes, likewise")
    key_sha256: str | None = Field(
        default=None, alias="dlq.key_sha256", description="of the original key, where this one is cut or left out"
    )
    key_length: str | None = Field(default=None, alias="dlq.key_length", description="its bytes, likewise")
    headers_dropped: str | None = Field(
        default=None, alias="dlq.headers_dropped", description="original headers not carried as orig.NAME, if any"
    )


WIRE_MODELS: dict[str, type[BaseModel]] = {
    "prediction": PredictionEvent,
    "alert": AlertEvent,
    "performance": PerformanceEvent,
    "disparity": DisparityEvent,
    "comparison": ComparisonEvent,
    "dead-letter-headers": DeadLetterHeaders,
}


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema (draft 2020-12) of every wire contract, by name."""
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {name: draft | model.model_json_schema(by_alias=True) for name, model in WIRE_MODELS.items()}
