"""The records of the performance topic: one metric of one window, version, segment and horizon, as CloudEvents 1.0.

Each is written once: when it is final, and at the ages of its horizon, `provisional`, with the value that a horizon of that length has
and the share of the feedback that has come by then. Its id is a hash of what it is about, so a restored monitor writes the same
again under the same id. The confusion matrix is a record of its own, `confusion_matrix`, without a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import orjson

from detectors.performance import (
    METRICS,
    Estimate,
    Part,
    confusion_matrix,
    ratio,
)
from detectors.reference_performance import ReferencePerformance
from stream.join_feedback import FeedbackKind
from stream.monitor_settings import digest
from stream.performance_plan import wanted
from stream.performance_told import NOTHING, Told, metric_of
from stream.stage import Output
from stream.topics import TopicRole
from stream.window_log import Closed
from stream.window_records import window_body
from stream.windows import Window
from stream.wording import instant

TYPE = "driftline.performance.v1"
CONFUSION_MATRIX = "confusion_matrix"
REVISION = 1  # of the value, where there is but one
EXPECTED = {"ctr": ("expected_ctr", "clicks_over_expected"), "prevalence": ("expected_rate", "observed_over_expected")}
"""Metric -> what the scores let expect of it, and the observed over that."""


@dataclass(frozen=True, slots=True)
class Provisional:
    """That a value is the running one of a horizon, at an age below it. `share_in`: of the feedback within the horizon, what has come."""

    horizon_ms: int
    age_ms: int
    revision: int
    share_in: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """What one window of a series has of a version and segment. `whole`: nothing of it was lost; the rest as of a pane.

    against   () or model and version of a challenger, and `sums` are of pairs
    serving   version that serves in this window; `promoted_from`: the one before it, where that is news
    revision  of the final value
    said      metrics that were measured already
    """

    model: str
    version: str
    segment: str
    stream: str
    horizon_ms: int
    kept: str
    window: Closed
    kind: str
    rows: int
    observed: int
    whole: bool
    classes: tuple[str, ...]
    sums: Any  # PerformanceSums, or PairedSums where there is a challenger
    serving: str = ""
    promoted_from: str = ""
    against: tuple[str, ...] = ()
    told: Told = NOTHING
    revision: int = REVISION
    said: dict[str, Estimate] = field(default_factory=dict)

    def estimate(self, series: str) -> Estimate:
        """Of a metric with what was told of it, measured once."""
        if series not in self.said:
            self.said[series] = self.told.measure(series, self.sums)
        return self.said[series]

    def kept_as(self, series: str) -> str:
        """Names what values of the series are of: those of one name may be compared."""
        meaning = self.told.meaning(series)
        return f"{self.kept}\0\0{meaning}" if meaning else self.kept

    def wanted(self, asked: Sequence[str]) -> tuple[str, ...]:
        """Series of the metrics that were asked for, as far as these sums can say them."""
        return wanted(self.kind, self.sums.layout, asked, self.told)


@dataclass(frozen=True, slots=True)
class ReferenceTest:
    """What the reference that is in force says of performance: of its labelled rows, test data as a rule."""

    reference: str
    performance: ReferencePerformance

    def estimate(self, measured: Measured, metric: str, segment: str) -> Estimate | None:
        """None where there is none, or it would be of something else than what was measured."""
        same = measured.kind == FeedbackKind.LABEL.value and self.performance.kept == measured.kept
        return self.performance.estimate(segment, measured.told.stored(metric)) if same else None


Judged = Mapping[tuple[str, str, str], Mapping[str, Any]]
"""(version, segment, metric) -> how its value was judged."""


def performance_outputs(
    measured: Measured,
    asked: Sequence[str],
    test: ReferenceTest | None = None,
    judged: Judged | None = None,
    running: Provisional | None = None,
) -> Iterator[Output]:
    """Every metric that was asked for and can be said, in the order of METRICS; none asked = all. `running`: what is `measured` is
    said of a longer horizon.
    """
    if Part.CONFUSION in measured.sums.layout.parts:
        yield _output(measured, CONFUSION_MATRIX, {"matrix": confusion_matrix(measured.sums).tolist()}, running)
    for series in measured.wanted(asked):
        said = _said(series, measured, test) | measured.told.beside(series)
        state = (judged or {}).get((measured.version, measured.segment, series))
        yield _output(measured, metric_of(series), said if state is None else said | {"judged": state}, running)


def _said(name: str, measured: Measured, test: ReferenceTest | None) -> dict[str, Any]:
    """The metric, where scores let expect something, what, and where the reference has labels, the metric there."""
    live = measured.estimate(name)
    said = estimated(live)
    for beside, other in zip(("expected", "observed_over_expected"), EXPECTED.get(name, ()), strict=False):
        if METRICS[other].needs in measured.sums.layout.parts:
            said[beside] = estimated(measured.estimate(other))
    then = test.estimate(measured, name, measured.segment) if test is not None else None
    if test is not None and then is not None:
        said["test"] = estimated(then) | {"reference_id": test.reference}
        said["live_over_test"] = estimated(ratio(live, then))
    return said


def estimated(found: Estimate) -> dict[str, Any]:
    """Value and interval; `undefined` says why one or both are null."""
    said: dict[str, Any] = {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "confidence": found.confidence,
        "error": found.error,
        "used": found.events,
    }
    return said | ({"undefined": found.reason} if found.reason else {})


def _output(measured: Measured, metric: str, said: dict[str, Any], running: Provisional | None) -> Output:
    counts = {"predictions": measured.rows, "observed": measured.observed}
    counts["used"] = said.pop("used", measured.observed)
    data = {"counts": counts, "incomplete": not measured.whole, **said}
    if measured.classes:
        data["classes"] = list(measured.classes)
    about = [str(said.get("quantile", ""))]
    if running is None:
        return event_output(TYPE, measured, metric, about, data | {"provisional": False, "revision": measured.revision})
    data |= {"final": False, "provisional": True, "revision": running.revision}
    data |= {"horizon_ms": running.horizon_ms, "age_ms": running.age_ms, "share_in": running.share_in}
    return event_output(TYPE, measured, metric, [*about, "provisional", str(running.horizon_ms)], data)


def event_output(kind: str, measured: Measured, metric: str, more: Sequence[str], said: dict[str, Any]) -> Output:
    """One record about `measured`; `more`: what it is about besides, part of its id."""
    window = measured.window
    about = (measured.model, measured.version, measured.segment, measured.stream, measured.horizon_ms, measured.kept)
    ident = digest(kind, *about, metric, *more, window.start_ms, window.end_ms, REVISION)
    data = {
        "model": measured.model,
        "version": measured.version,
        "segment": measured.segment,
        "metric": metric,
        "feedback": measured.stream,
        "horizon_ms": measured.horizon_ms,
        "window": window_body(Window(window.start_ms, window.end_ms, window.events, sufficient=True)),
        "serving": measured.serving,
        "final": True,
        "revision": REVISION,
        **said,
    }
    if measured.promoted_from:
        data["promoted_from"] = measured.promoted_from
    event = {
        "specversion": "1.0",
        "type": kind,
        "source": f"driftline/{quote(measured.model, safe='')}",
        "id": ident,
        "time": instant(window.end_ms),
        "subject": f"{metric}/{measured.stream}",
        "datacontenttype": "application/json",
        "data": data,
    }
    headers = (("content-type", b"application/cloudevents+json"),)
    value = orjson.dumps(event, option=orjson.OPT_SORT_KEYS)
    return Output(TopicRole.PERFORMANCE.value, measured.model.encode(), value, headers=headers)
