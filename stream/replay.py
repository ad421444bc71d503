"""The same pipeline in one process, without a broker: events in, alerts out. For tuning, for tests, for notebooks.

>>> from stream.config import config_from
>>> from stream.replay import replay
>>> config = config_from({
...     "kafka": {"bootstrap_servers": "unused:9092"}, "topics": {"predictions": "predictions"},
...     "defaults": {"window": {"every": "1m", "min_events": 1}},
...     "models": {"fraud": {"reference": {"first": 5000}}},
... })
>>> event = {"prediction_id": "1", "model": "fraud", "timestamp": "2026-11-22T10:15:03Z", "features": {"amount": 3.5}}
>>> result = replay(config, [event, event])
>>> result.accounting.applied, result.accounting.duplicates, result.alerts
(1, 1, ())

One source partition, one monitor; the end of the source closes all windows. The result is a function of configuration,
references and events alone: an event's record time is taken to be its event time, so nothing is "in the future".
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from detectors.reference import ReferenceProfile
from stream.collector import Collector
from stream.config import Config
from stream.config_checks import mapping_of
from stream.config_topics import MappingSettings
from stream.decode import decode
from stream.decode_feedback import decode_feedback
from stream.discover import discover
from stream.feedback_planning import feedback_layouts
from stream.kernels.framing import records_from_lines
from stream.left_out import not_watched
from stream.mapping import RECORD_TIME
from stream.merging import PaneRecord
from stream.monitor import Monitor
from stream.panes import EDGE_END, Counters, Marker, decode_record
from stream.planning import DeclaredTarget, collector_hash, collector_plan, model_plan, monitor_settings
from stream.preflight import build_from_file
from stream.reference_records import ReferenceLog
from stream.stage import Decision, Output
from stream.tables import table_events
from stream.topics import TopicRole

log = logging.getLogger(__name__)

CHUNK_EVENTS = 4_096  # about what one fetch brings; only where a learnt reference comes into force depends on it
SAMPLE_LINES_MAX = 20_000  # read ahead to find out what a learning model's events look like
PARTITION = 0
EPOCH = 1

Event = bytes | str | Mapping[str, Any]


class ReplayError(ValueError):
    """What cannot be replayed as it is configured."""


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """Everything that a run would have written, in order.

    alerts       CloudEvents (opened, escalated, resolved)      windows   one record a model, series, segment and window
    dead_letters reason, detail, path and offset of each        references   by model, those in force at the end
    accounting   consumed = applied + dead_letters + duplicates + late + tombstones, exactly
    performance  CloudEvents, one a metric, model, version, segment, window and horizon
    feedback     counters of each topic of feedback, by clicks, conversions, labels
    """

    alerts: tuple[dict[str, Any], ...]
    windows: tuple[dict[str, Any], ...]
    dead_letters: tuple[dict[str, str], ...]
    accounting: Counters
    references: dict[str, ReferenceProfile] = field(default_factory=dict)
    performance: tuple[dict[str, Any], ...] = ()
    feedback: dict[str, dict[str, int]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain values; of the references their ids."""
        return {
            "alerts": list(self.alerts),
            "windows": list(self.windows),
            "dead_letters": list(self.dead_letters),
            "accounting": asdict(self.accounting),
            "references": {model: profile.id for model, profile in self.references.items()},
            "performance": list(self.performance),
            "feedback": self.feedback,
        }

    def summary(self) -> str:
        """What was counted, and what was refused by reason."""
        counts = self.accounting
        consumed = (
            f"{counts.consumed:,} events: {counts.applied:,} applied ({counts.unknown_model:,} of unknown models), "
            f"{counts.dead_letters:,} dead letters, {counts.duplicates:,} duplicates, {counts.late:,} late, "
            f"{counts.tombstones:,} tombstones"
        )
        lines = [
            consumed,
            f"{len(self.windows):,} windows, {sum(_opened(alert) for alert in self.alerts):,} alerts opened",
        ]
        if self.performance:
            lines.append(f"{len(self.performance):,} records of performance")
        for stream, counters in self.feedback.items():
            told = (f"{counters[name]:,} {name}" for name in ("matched", "duplicate", "orphan", "late"))
            lines.append(f"{stream}: {counters['consumed']:,} events, {', '.join(told)}")
        reasons = Counter(letter["reason"] for letter in self.dead_letters)
        lines += [f"dead letters: {count:,} {reason}" for reason, count in reasons.most_common()]
        return "\n".join(lines)


def _letter(output: Output) -> dict[str, str]:
    headers = {name: (text or b"").decode() for name, text in output.headers}
    return {name: headers[f"dlq.{name}"] for name in ("reason", "detail", "path", "offset")}


def _opened(alert: Mapping[str, Any]) -> bool:
    return ".opened." in str(alert.get("type", ""))


def replay(
    config: Config,
    source: Iterable[Event] | Path | str,
    *,
    references: Mapping[str, ReferenceProfile] | None = None,
    feedback: Mapping[str, Iterable[Event] | Path | str] | None = None,
) -> ReplayResult:
    """Run `source` (a file, or events as JSON bytes, text or mappings, one a line) through the pipeline.

    `feedback`: events of "clicks", "conversions" and "labels" likewise, files as JSON lines; a topic that is configured and not
    given is empty. They are read side by side with the predictions, by their event times.

    `references` replaces the configured ones by model; without it they are built from the configured files, or learnt.
    Raises ReplayError, TableError, PlanningError, BadReference. Cost: about 10 µs an event of 20 features, once warm.
    """
    if isinstance(source, Path | str):
        path = Path(source)
        events: Iterable[Event] = json_lines(path) if is_json(path) else table_events(config, path)
        config = config if is_json(path) else native(config)
    else:
        events = source
    if config.topics.predictions.mapping.timestamp == RECORD_TIME:
        raise ReplayError("the mapping takes Kafka's record time, which a file does not have: map a timestamp")
    others = _feedback_lines(config, feedback or {})
    given = dict(references or {})
    profiles = {name: given[name] if name in given else _configured(config, name) for name in config.models}
    lines = map(_line, events)
    ahead: list[bytes] = []
    discovered: dict[str, tuple[DeclaredTarget, ...]] = {}
    learning = [name for name, profile in profiles.items() if profile is None]
    if learning:
        ahead = list(itertools.islice(lines, SAMPLE_LINES_MAX))
        discovered = discover(ahead, mapping_of(config.topics.predictions.mapping), learning)
    pipeline = Pipeline(config, profiles, discovered)
    rest = itertools.chain(ahead, lines)
    logs = {TopicRole.PREDICTIONS.value: rest, **others}
    while logs:
        behind = min(logs, key=pipeline.reached_ms)  # so that little of one waits for the others
        chunk = list(itertools.islice(logs[behind], CHUNK_EVENTS))
        if not chunk:
            del logs[behind]
        elif behind == TopicRole.PREDICTIONS:
            pipeline.feed(chunk)
        else:
            pipeline.feed_feedback(behind, chunk)
    return pipeline.finish()


def _feedback_lines(config: Config, given: Mapping[str, Iterable[Event] | Path | str]) -> dict[str, Iterator[bytes]]:
    """The events of each stream. Raises ReplayError."""
    topics = {role.value: topic for role, topic in config.topics.feedback().items()}
    found: dict[str, Iterator[bytes]] = {}
    for stream, source in given.items():
        if stream not in topics:
            raise ReplayError(f"{stream}: the configuration has no topics.{stream}")
        if topics[stream].mapping.timestamp == RECORD_TIME:
            raise ReplayError(
                f"topics.{stream}: its mapping takes Kafka's record time, which a file does not have: map a timestamp"
            )
        events: Iterable[Event] = json_lines(Path(source)) if isinstance(source, Path | str) else source
        found[stream] = map(_line, events)
    return found


def is_json(path: Path) -> bool:
    """Everything but Parquet and CSV is read as JSON lines."""
    return path.suffix.lower() not in {".parquet", ".pq", ".csv", ".tsv"}


def json_lines(path: Path) -> Iterator[bytes]:
    """Lines of a file; empty ones are passed over. Raises ReplayError."""
    try:
        with path.open("rb") as file:
            yield from (line for line in file if line.strip())
    except OSError as error:
        raise ReplayError(f"{path}: {error.strerror}") from None


def native(config: Config) -> Config:
    """The same configuration for native events, with the scores under their own names: rows of a table become these."""
    scores = {name: name for name in config.topics.predictions.mapping.scores}
    predictions = config.topics.predictions.model_copy(update={"mapping": MappingSettings(scores=scores)})
    return config.model_copy(update={"topics": config.topics.model_copy(update={"predictions": predictions})})


def _line(event: Event) -> bytes:
    if isinstance(event, bytes):
        return event.rstrip(b"\r\n")
    if isinstance(event, str):
        return event.encode()
    return orjson.dumps(event, option=orjson.OPT_SERIALIZE_NUMPY)


def _configured(config: Config, model: str) -> ReferenceProfile | None:
    """The reference that the configuration names; None = learnt from the events."""
    if config.models[model].reference.file is None:
        return None
    profile = build_from_file(config, model)
    for sentence in not_watched(config, profile):
        log.warning("models.%s: %s", model, sentence)
    return profile


class Pipeline:
    """Collector and monitor of one partition, with the shell's part done in memory."""

    def __init__(
        self,
        config: Config,
        profiles: Mapping[str, ReferenceProfile | None],
        discovered: Mapping[str, tuple[DeclaredTarget, ...]],
    ) -> None:
        self.config = config
        self.discovered = discovered
        self.active = {model: profile for model, profile in profiles.items() if profile is not None}
        plan, self.layout = collector_plan(config, profiles, discovered)
        program = version("driftline")
        self.collector = Collector(
            PARTITION,
            plan,
            monitors=1,
            topic=config.topics.predictions.name,
            config_hash=collector_hash(config, plan),
            app_version=program,
            feedback_topics={role.value: topic.name for role, topic in config.topics.feedback().items()},
        )
        self._layouts = feedback_layouts(config)
        self._offsets = dict.fromkeys(self._layouts, 0)
        self.performance: list[dict[str, Any]] = []
        self.profiles = {profile.id: profile for profile in self.active.values()}
        settings = replace(monitor_settings(config, discovered), partitions=1)
        self.monitor = Monitor(PARTITION, sources=1, settings=settings, profiles=self.profiles, app_version=program)
        self.alerts: list[dict[str, Any]] = []
        self.windows: list[dict[str, Any]] = []
        self.dead_letters: list[dict[str, str]] = []
        self._references = ReferenceLog()
        self._offset = 0
        self._pane_offset = 0
        self._decisions = 0
        self._now_ms = 0

    def feed(self, lines: list[bytes]) -> None:
        """The next events of the log."""
        columns = decode(records_from_lines(lines, self._offset), self.layout)
        self._offset = columns.next_offset
        self.collector.apply(TopicRole.PREDICTIONS, replace(columns, record_time_ms=columns.event_time_ms))
        self._carry()

    def feed_feedback(self, stream: str, lines: list[bytes]) -> None:
        """The next events of one topic of feedback."""
        columns = decode_feedback(records_from_lines(lines, self._offsets[stream]), self._layouts[stream])
        self._offsets[stream] = columns.next_offset
        in_time = replace(columns.feedback, record_time_ms=columns.event_time_ms)
        self.collector.apply(stream, replace(columns, feedback=in_time))
        self._carry()

    def reached_ms(self, source: str) -> int:
        """The largest event time of one input."""
        if source == TopicRole.PREDICTIONS or self.collector.joining is None:
            return self.collector.largest_ms
        return self.collector.joining.join.streams[source].largest_ms

    def finish(self) -> ReplayResult:
        """The end of the logs closes everything."""
        self._decide("tick", {"until_ms": EDGE_END})
        for stream in self._offsets:
            self._decide("tick", {"until_ms": EDGE_END, "stream": stream})
        self._carry()
        joining = self.collector.joining
        return ReplayResult(
            tuple(self.alerts), tuple(self.windows), tuple(self.dead_letters), self.collector.accounting(), self.active,
            tuple(self.performance), {} if joining is None else {name: joining.counters(name) for name in self._offsets},
        )  # fmt: skip

    def _decide(self, kind: str, body: dict[str, Any]) -> None:
        self._decisions += 1
        position = {TopicRole.PREDICTIONS.value: self._offset} | self._offsets
        self.collector.decide(Decision(self._decisions, kind, position, body))

    def _carry(self) -> None:
        """Panes to the monitor, its outputs to where they belong, until nothing is left."""
        while self.collector.outbox or self.monitor.outbox:
            sent, self.collector.outbox = self.collector.outbox, []
            panes = [self._pane(output) for output in sent if output.topic == TopicRole.PANES]
            self.dead_letters += [_letter(output) for output in sent if output.topic == TopicRole.DEAD_LETTERS]
            if panes:
                self.monitor.apply(TopicRole.PANES, panes)
            written, self.monitor.outbox = self.monitor.outbox, []
            for output in written:
                self._written(output)

    def _pane(self, output: Output) -> PaneRecord:
        assert output.value is not None
        body = decode_record(output.value)
        if isinstance(body, Marker):
            self._now_ms = max(self._now_ms, body.largest_ms)  # history is replayed as it happened
        self._pane_offset += 1
        return PaneRecord(self._pane_offset - 1, self._now_ms, EPOCH, body, output.value)

    def _written(self, output: Output) -> None:
        if output.value is None:
            return
        if output.topic == TopicRole.ALERTS:
            self.alerts.append(orjson.loads(output.value))
        elif output.topic == TopicRole.PERFORMANCE:
            self.performance.append(orjson.loads(output.value))
        elif output.topic == TopicRole.WINDOWS:
            self.windows.append(orjson.loads(output.value))
        elif output.topic == TopicRole.REFERENCES:
            learnt = self._references.add(output.key, output.value)
            profile = None if learnt is None else self._references.get(learnt)
            if profile is not None:
                self.profiles[profile.id] = profile
        elif output.topic == TopicRole.CONTROL:
            self._activated(output)

    def _activated(self, output: Output) -> None:
        """A reference came into force: from its cut points on, the collector counts with them."""
        key = (output.key or b"").decode()
        body = orjson.loads(output.value or b"null")
        kind, _, model = key.partition("/")
        if kind != "learnt" or model not in self.config.models:
            return
        profile = self.profiles[body["reference"]]
        self.active[model] = profile
        plan = model_plan(self.config, model, profile, self.layout.paths, self.discovered.get(model, ()))
        if plan.hash != self.collector.in_force().get(model):
            name = self.collector.offer(plan)
            self._decide("plan", {"model": model, "plan": name})
