"""Job alerts: what is wrong with a source topic rather than with a model. No cell of the budget, no promise: fixed limits.

    dead_letters       more than `dead_letter_share` of the events could not be read (`future_timestamp` counted below)
    future_timestamps  more than `future_share` of the events are ahead of their own record's time: a producer's clock
    late_events        more than `late_share` of the events came too late to be counted
    data_loss          the broker had deleted events before they were read, or panes before a monitor had them

They are of the topic, not of a model: its models share one lateness, and a dead letter often has no model. Every marker
reaches every monitor, so one alone speaks: the partition of the topic's name.

Stretches. Event time is cut at multiples of `every_ms`; a stretch ends at the first cut by which `min_events` were
consumed, over all source partitions, each as of its first marker at or after the cut. So it is a function of what each
partition marked, whatever order the markers of different partitions came in. A limit passed in one stretch opens an
incident; `resolve_after` stretches in a row within it resolve it. Lost events open theirs at the next cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote

from stream.alerts import Kind, Transition, cloud_event, historical
from stream.merging import LOST_PANES, Merger
from stream.monitor_settings import JobSettings, digest
from stream.panes import EDGE_END, EDGE_MIN, REASON_PREFIX
from stream.plan import ALL
from stream.stage import Output
from stream.window_records import window_body
from stream.windows import Window
from stream.wording import clock, percent, since

DEAD_LETTERS, FUTURE, LATE, LOSS = "dead_letters", "future_timestamps", "late_events", "data_loss"
FUTURE_REASON = REASON_PREFIX + "future_timestamp"
AGAIN = "within its limit again"
REASONS_SHOWN = 5

Totals = dict[str, int]


@dataclass(frozen=True, slots=True)
class Finding:
    """One target in one stretch: `value` against `limit`; `text` says what, `facts` are added to the alert's data."""

    target: str
    value: float
    limit: float
    text: str
    facts: Mapping[str, Any]


@dataclass(slots=True)
class JobIncident:
    """An open job alert. `quiet`: stretches in a row within the limit."""

    id: str
    target: str
    opened_ms: int
    since_ms: int
    quiet: int = 0


@dataclass(slots=True)
class JobState:
    """next_ms: the cut that is judged next, None = no marker was seen; start_ms, base: the stretch that is open, and the
    topic's counters as of its start; lost: what was known to be lost at the cut before.
    """

    next_ms: int | None = None
    start_ms: int = 0
    base: Totals = field(default_factory=dict)
    lost: Totals = field(default_factory=dict)
    open: dict[str, JobIncident] = field(default_factory=dict)


class JobWatch:
    """The job alerts of one topic."""

    def __init__(self, settings: JobSettings, topic: str, resolution_ms: int) -> None:
        self.settings = settings
        self.topic = topic
        self.every_ms = -(-settings.every_ms // resolution_ms) * resolution_ms
        self.detection = settings.detection_hash()
        self.state = JobState()

    def advance(self, merger: Merger, log_ms: int) -> Iterator[Output]:
        """Judge every cut that all source partitions have passed. Before the markers of the passed edges are released."""
        state = self.state
        if merger.low_ms <= EDGE_MIN:
            return
        if state.next_ms is None:
            first_ms = merger.first_mark(EDGE_MIN)
            if first_ms >= EDGE_END:  # the whole input was read before anybody marked anything
                first_ms = max(merger.largest_ms, 0)
            state.next_ms = self._cut(first_ms)
            state.start_ms = state.next_ms - self.every_ms
        while state.next_ms <= merger.low_ms:
            cut_ms = state.next_ms
            yield from self._judge(cut_ms, totals(merger, cut_ms), log_ms)
            state.next_ms = self._cut(merger.first_mark(cut_ms))  # nothing changes before it

    def _cut(self, time_ms: int) -> int:
        """The first cut after `time_ms`."""
        return (time_ms // self.every_ms + 1) * self.every_ms

    def _judge(self, cut_ms: int, now: Totals, log_ms: int) -> Iterator[Output]:
        state = self.state
        grown = {name: now.get(name, 0) - state.base.get(name, 0) for name in now}
        lost = {name: now.get(name, 0) - state.lost.get(name, 0) for name in ("gap", "resets", LOST_PANES)}
        state.lost = {name: now.get(name, 0) for name in lost}
        window = Window(state.start_ms, cut_ms, grown.get("consumed", 0), sufficient=True)
        full = window.events >= self.settings.min_events
        findings = list(self._shares(grown, window.events)) if full else []
        if full or any(lost.values()):
            findings.append(_loss(lost))
        for finding in findings:
            yield from self._observe(finding, window, log_ms)
        if full:
            state.start_ms, state.base = cut_ms, now

    def _shares(self, grown: Totals, events: int) -> Iterator[Finding]:
        settings, topic = self.settings, self.topic
        future = grown.get(FUTURE_REASON, 0)
        letters = grown.get("dead_letters", 0) - future
        reasons = {
            name.removeprefix(REASON_PREFIX): count
            for name, count in sorted(grown.items(), key=lambda item: (-item[1], item[0]))
            if name.startswith(REASON_PREFIX) and name != FUTURE_REASON and count
        }
        shown = dict(list(reasons.items())[:REASONS_SHOWN])
        most = f"most often {next(iter(shown))}; " if shown else ""
        text = f"{percent(letters / events)} of the events of {topic} could not be read"
        why = f"{letters:,} of them are in the dead letters, {most}dlq.reason says why"
        yield Finding(
            DEAD_LETTERS, letters / events, settings.dead_letter_share, f"{text} {{since}}, {why}", {"reasons": shown}
        )
        text = (
            f"{percent(future / events)} of the events of {topic} are further in the future than max_future_skew allows"
        )
        yield Finding(
            FUTURE, future / events, settings.future_share,
            f"{text} {{since}}, {future:,} of them refused; a producer's clock or the unit of its timestamps is wrong", {},
        )  # fmt: skip
        late = grown.get("late", 0)
        text = f"{percent(late / events)} of the events of {topic} came too late to be counted"
        why = "either its lateness is set too short or a producer's clock is wrong"
        yield Finding(LATE, late / events, settings.late_share, f"{text} {{since}}, {late:,} of them late; {why}", {})

    def _observe(self, finding: Finding, window: Window, log_ms: int) -> Iterator[Output]:
        opened = self.state.open
        over = finding.value > finding.limit
        incident = opened.get(finding.target)
        if incident is None:
            if not over:
                return
            ident = digest("job", self.topic, finding.target, window.end_ms)
            incident = opened[finding.target] = JobIncident(ident, finding.target, window.end_ms, window.start_ms)
            transition, text = Transition.OPENED, finding.text.format(since=_since(window))
        else:
            incident.quiet = 0 if over else incident.quiet + 1
            if incident.quiet < self.settings.resolve_after:
                return
            del opened[finding.target]
            transition = Transition.RESOLVED
            since_ms = clock(incident.opened_ms, window.end_ms)
            text = (
                f"{finding.target} of {self.topic}: {AGAIN}, {incident.quiet} stretches in a row; open since {since_ms}"
            )
        resolved = {"reason": AGAIN} if transition is Transition.RESOLVED else {}
        said = {"summary": f"{text}.", "historical": historical(window.end_ms, log_ms), **finding.facts, **resolved}
        yield self._event(transition, incident, finding, window, said)

    def _event(
        self, transition: Transition, incident: JobIncident, finding: Finding, window: Window, said: Mapping[str, Any]
    ) -> Output:
        data = {
            "incident": incident.id,
            "kind": Kind.JOB,
            "severity": "warning",
            "topic": self.topic,
            "versions": [],
            "segment": ALL,
            "target": incident.target,
            "since_ms": incident.since_ms,
            "onset": "sudden",
            "evidence": {
                "statistic": finding.value,
                "threshold": finding.limit,
                "false_alarms": "not limited",
                "promise": "none: a fixed limit",
                "tolerance": 0.0,
            },
            "effect": {"shift": None, "unit": _unit(finding.target), "reference": {}, "now": {}},
            "largest_changes": [],
            "consequence": {"verdict": "unknown", "why": "what was not counted is in no window"},
            "events": window.events,
            "window": window_body(window),
            "reference": "",
            "detection": self.detection,
            **said,
        }
        ident = digest(incident.id, transition.value, window.end_ms, self.detection)
        source = f"topic/{quote(self.topic, safe='')}"
        return cloud_event(transition, source=source, key=self.topic, ident=ident, end_ms=window.end_ms, data=data)

    # ---- snapshot

    def header(self) -> dict[str, Any]:
        """For the monitor's own blob."""
        return asdict(self.state)

    def load(self, header: Mapping[str, Any]) -> None:
        """Inverse of `header`."""
        incidents = {target: JobIncident(**saved) for target, saved in header["open"].items()}
        self.state = JobState(**{**header, "open": incidents})


def totals(merger: Merger, cut_ms: int) -> Totals:
    """Counters of the topic: of all source partitions, each as of its first marker at or after the cut."""
    summed: Totals = {}
    for counters in merger.counters_at(cut_ms):
        for name, count in counters.items():
            summed[name] = summed.get(name, 0) + count
    lost = [counters.get(LOST_PANES, 0) for counters in merger.counters_at(cut_ms)]
    return summed | {LOST_PANES: max(lost, default=0)}  # of the panes partition: each source partition says the same


def _loss(lost: Mapping[str, int]) -> Finding:
    events, resets, panes = lost["gap"], lost["resets"], lost[LOST_PANES]
    parts = [f"{events:,} events were deleted by the broker before they were read"] if events else []
    parts += ["the log was given up for another of its name, whatever it still held"] if resets else []
    parts += [f"{panes:,} records of panes were deleted before a monitor had read them"] if panes else []
    text = f"{' and '.join(parts)} ({{since}}); the windows that they belong to are marked incomplete and not judged"
    facts = {"lost": {"events": events, "pane_records": panes}} if parts else {}
    return Finding(LOSS, float(events + resets + panes), 0.0, text, facts)


def _unit(target: str) -> str:
    return "lost records" if target == LOSS else "share of the events"


def _since(window: Window) -> str:
    return since(window.start_ms, window.end_ms, window.events)
