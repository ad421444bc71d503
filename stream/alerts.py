"""Alerts: the state machine of incidents, and their CloudEvents.

    (none)  --alarm, or an operator's threshold or detector->  opened
    open    --effect passes the next step, two windows-->      escalated      (still open; further alarms only update)
    open    --r windows inside the tube without a crossing-->  resolved "inside the tolerance again"
    open    --new reference, target no longer watched-->       resolved with that reason

An incident is one (model, version or reference, segment, target), of the data's law or of their quality; detectors are
evidence inside. Ids are hashes of what happened, so that a restored monitor says the same again under the same id. Bodies
hold no wall clock, host or offset; `historical` alone depends on when the log was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import quote

import orjson

from stream.monitor_settings import ModelSettings, digest
from stream.stage import Output
from stream.topics import TopicRole
from stream.wording import clock, instant

STEP_UNITS = tuple(5.0 * 2**k for k in range(12))  # effect sizes, in tolerances, that are worth saying again
STEP_MARGIN = 1.5  # an effect just below a step must not escalate by the next window's sampling error
TOLERANCE_MIN = 0.01  # unit of effects where the tolerance is smaller: steps need a unit
HISTORICAL_MS = 3_600_000
SEVERITY = {  # criticality -> severity of an opened, of an escalated alert
    "low": ("info", "warning"),
    "medium": ("warning", "warning"),
    "high": ("warning", "critical"),
}


Key = tuple[str, str, str, bool]


class Kind(StrEnum):
    """A closed list."""

    FEATURE_DRIFT = "feature_drift"
    PREDICTION_DRIFT = "prediction_drift"
    SCORE_DRIFT = "score_drift"
    SKEW = "skew"
    DATA_QUALITY = "data_quality"
    PERFORMANCE = "performance"
    JOB = "job"


class Transition(StrEnum):
    OPENED = "opened"
    ESCALATED = "escalated"
    RESOLVED = "resolved"


INSIDE = "inside the tolerance again"
NEW_REFERENCE = "a new reference is in force"
NO_TARGET = "the target is no longer watched"
RETIRED = "the version has been silent for 30 days"


@dataclass(frozen=True, slots=True)
class Breach:
    """A window series beyond an operator's threshold; None: an online detector has found a change, `value` is its statistic.

    `made`: how the reference made the threshold; "": it is as configured.
    """

    type: str
    value: float
    threshold: float | None
    made: str = ""

    @property
    def text(self) -> str:
        if self.threshold is None:
            return f"{self.type} has found a change"
        side = "above" if self.value > self.threshold else "below"
        limit = f"{self.threshold:.2g} ({self.made})" if self.made else f"the configured {self.threshold:g}"
        return f"{self.type} {self.value:.2g} is {side} {limit}"


def breach_evidence(breaches: Sequence[Breach]) -> dict[str, Any]:
    """What operators' limits and online detectors said: `thresholds` and `online`, each where there is any."""
    beyond = [
        {"type": each.type, "value": each.value, "threshold": each.threshold}
        | ({"made": each.made} if each.made else {})
        for each in breaches
        if each.threshold is not None
    ]
    online = [{"type": each.type, "statistic": each.value} for each in breaches if each.threshold is None]
    return ({"thresholds": beyond} if beyond else {}) | ({"online": online} if online else {})


@dataclass(frozen=True, slots=True)
class Observation:
    """One judged window of one target. `effect`: |shift| in tolerances; `quiet`: inside the tube, no crossing, no breach.

    `judged` False: the detector only collected the window, so that it has no effect; a limit was passed.
    """

    kind: Kind
    series: str
    segment: str
    target: str
    end_ms: int
    since_ms: int
    alarm: bool
    quiet: bool
    effect: float
    breaches: tuple[Breach, ...] = ()
    judged: bool = True

    @property
    def key(self) -> Key:
        return self.series, self.segment, self.target, self.kind is Kind.DATA_QUALITY


@dataclass(slots=True)
class Incident:
    """An open alert. `promised`: opened by the detector whose false alarms are bounded, not by an operator's threshold.

    next_step: index into STEP_UNITS that escalates; over, quiet: windows in a row past it, windows in a row inside the
    tolerance; data: what its last event said, so that one that ends without a judged window says something, too.
    """

    id: str
    kind: Kind
    series: str
    segment: str
    target: str
    opened_ms: int
    since_ms: int
    promised: bool
    next_step: int
    over: int = 0
    quiet: int = 0
    versions: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.series, self.segment, self.target, self.kind is Kind.DATA_QUALITY


class OpenIncidents(MutableMapping[Key, Incident]):
    """Incidents by (series, segment): each of them is asked for in every window, and thousands of segments may have one."""

    def __init__(self, incidents: Iterable[Incident] = ()) -> None:
        self._places: dict[tuple[str, str], dict[tuple[str, bool], Incident]] = {}
        for each in incidents:
            self[each.key] = each

    def at(self, series: str, segment: str) -> Iterable[Incident]:
        """What is open there."""
        return self._places.get((series, segment), {}).values()

    def __contains__(self, key: object) -> bool:
        return isinstance(key, tuple) and key[2:] in self._places.get(key[:2], ())

    def __getitem__(self, key: Key) -> Incident:
        return self._places[key[:2]][key[2:]]

    def __setitem__(self, key: Key, incident: Incident) -> None:
        self._places.setdefault(key[:2], {})[key[2:]] = incident

    def __delitem__(self, key: Key) -> None:
        own = self._places[key[:2]]
        del own[key[2:]]
        if not own:
            del self._places[key[:2]]

    def __iter__(self) -> Iterator[Key]:
        return ((*place, *what) for place, own in self._places.items() for what in own)

    def __len__(self) -> int:
        return sum(map(len, self._places.values()))


class AlertBook:
    """All open incidents of one model."""

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self.open = OpenIncidents()

    def observe(self, seen: Observation) -> tuple[Transition, Incident] | None:
        """What one more window changes. A resolved incident is returned, and no longer in the book."""
        key = seen.key
        incident = self.open.get(key)
        if incident is None:
            if not (seen.alarm or seen.breaches):
                return None
            incident = self._opened(seen)
            self.open[key] = incident
            return Transition.OPENED, incident
        incident.quiet = incident.quiet + 1 if seen.quiet else 0
        if incident.quiet >= self.settings.resolve_after:
            del self.open[key]
            return Transition.RESOLVED, incident
        if not seen.judged:
            return None
        incident.over = incident.over + 1 if seen.effect >= _step(incident.next_step) else 0
        if incident.over < 2:
            return None
        incident.next_step, incident.over = _next_step(seen.effect), 0
        return Transition.ESCALATED, incident

    def targets(self, series: str, segment: str, *, quality: bool = True) -> frozenset[str]:
        """What has an open incident there, with or without those of the data's quality."""
        return frozenset(
            each.target for each in self.open.at(series, segment) if quality or each.kind is not Kind.DATA_QUALITY
        )

    def end(
        self, reason: str, end_ms: int, *, historical: bool, series: str | None = None, target: str | None = None
    ) -> list[Output]:
        """Resolve all incidents (of this series, of this target), in canonical order."""
        ended = [
            incident
            for _, incident in sorted(self.open.items())
            if series in (None, incident.series) and target in (None, incident.target)
        ]
        for incident in ended:
            del self.open[incident.key]
        last = {"historical": historical}
        return [self.resolved(incident, reason, end_ms, incident.data | last) for incident in ended]

    def resolved(self, incident: Incident, reason: str, end_ms: int, data: Mapping[str, Any]) -> Output:
        """The event that ends an incident."""
        text = f"{incident.target} is no longer judged as before: {reason}"
        if reason == INSIDE:
            what = "limits" if incident.kind in (Kind.DATA_QUALITY, Kind.PERFORMANCE) else "tolerance"
            text = f"{incident.target} is back inside its {what}, {self.settings.resolve_after} windows in a row"
        said = {"summary": f"{text}; open since {clock(incident.opened_ms, end_ms)}.", "reason": reason}
        return self.event(Transition.RESOLVED, incident, end_ms, {**data, **said})

    def event(self, transition: Transition, incident: Incident, end_ms: int, data: Mapping[str, Any]) -> Output:
        """CloudEvents 1.0, structured JSON. Who owns the model and what names the incident is added to `data`."""
        incident.data = dict(data)
        settings = self.settings
        detection = settings.detection_hash()
        opened, escalated = SEVERITY[settings.criticality]
        body: dict[str, Any] = {
            "incident": incident.id,
            "kind": incident.kind,
            "severity": escalated if transition is Transition.ESCALATED else opened,
            "model": settings.model,
            "versions": list(incident.versions),
            "segment": incident.segment,
            "target": incident.target,
            "since_ms": incident.since_ms,
            "owner": settings.owner,
            "runbook": settings.runbook,
            "detection": detection,
            **data,
        }
        ident = digest(incident.id, transition.value, end_ms, detection)
        source = quote(settings.model, safe="")
        return cloud_event(transition, source=source, key=settings.model, ident=ident, end_ms=end_ms, data=body)

    def _opened(self, seen: Observation) -> Incident:
        parts = (self.settings.model, seen.series, seen.segment, seen.kind.value, seen.target, seen.end_ms)
        return Incident(
            id=digest(*parts),
            kind=seen.kind,
            series=seen.series,
            segment=seen.segment,
            target=seen.target,
            opened_ms=seen.end_ms,
            since_ms=seen.since_ms,
            promised=seen.alarm,
            next_step=_next_step(seen.effect),
        )

    def to_header(self) -> list[dict[str, Any]]:
        return [asdict(incident) | {"kind": incident.kind.value} for _, incident in sorted(self.open.items())]

    def load(self, header: Sequence[Mapping[str, Any]]) -> None:
        incidents = [
            Incident(**{**saved, "kind": Kind(saved["kind"]), "versions": tuple(saved["versions"])}) for saved in header
        ]
        self.open = OpenIncidents(incidents)


def cloud_event(
    transition: Transition, *, source: str, key: str, ident: str, end_ms: int, data: Mapping[str, Any]
) -> Output:
    """CloudEvents 1.0, structured JSON, keyed by what it is about. What is None in `data` is left out."""
    said = {name: value for name, value in data.items() if value is not None}
    said["since"] = instant(said.pop("since_ms"))
    event = {
        "specversion": "1.0",
        "type": f"driftline.alert.{transition}.v1",
        "source": f"driftline/{source}",
        "id": ident,
        "time": instant(end_ms),
        "subject": f"{data['kind']}/{quote(data['target'], safe='')}",
        "datacontenttype": "application/json",
        "data": said,
    }
    value = orjson.dumps(event, option=orjson.OPT_SORT_KEYS)
    headers = (("content-type", b"application/cloudevents+json"),)
    return Output(TopicRole.ALERTS.value, key.encode(), value, headers=headers)


def historical(end_ms: int, log_ms: int) -> bool:
    """Whether a window that ended at `end_ms` was history when the marker that closed it was written."""
    return log_ms - end_ms > HISTORICAL_MS


def _step(index: int) -> float:
    return STEP_UNITS[index] if index < len(STEP_UNITS) else float("inf")


def _next_step(effect: float) -> int:
    """The first step clearly above this effect."""
    return next((index for index, step in enumerate(STEP_UNITS) if step > STEP_MARGIN * effect), len(STEP_UNITS))
