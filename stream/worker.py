"""What one worker does with the chunks, clocks and answers that the engine brings: the shell around the pure stages.

    chunk of predictions -> Records -> Columns -> collector's owner -> outputs to its sender
    chunk of panes       -> PaneRecords        -> monitor's owner   -> outputs to its sender

The state's offset vector alone says which chunk comes next: what lies below it is passed over, a hole is read again once
and then is a gap of the log, which a restore measures and journals. Between an await and the next use of a slot it may
have been given up: every use asks. Nothing here imports a Kafka client; `Engine` is app.py.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Protocol

from detectors.reference import ReferenceProfile
from stream.alignment import Alignment
from stream.assignment import COLLECTOR, SOURCES, Owners, Refused, Slot
from stream.chunks import Chunk, Plain, records_of, split
from stream.collector import Collector
from stream.config import Config
from stream.copied import originals
from stream.decode import decode
from stream.decode_feedback import decode_feedback
from stream.epochs import epoch_of
from stream.failpoints import reach
from stream.feedback_planning import feedback_layouts
from stream.mapping import Layout
from stream.merging import PaneRecord
from stream.metrics import Metrics
from stream.monitor import MissingReference, Monitor
from stream.monitor_settings import MonitorSettings
from stream.owner_record import OwnerRecord
from stream.panes import decode_record
from stream.performance_panes import series_name
from stream.plan import CollectorPlan
from stream.planning import DeclaredTarget, collector_hash, collector_plan, monitor_settings, policy_of
from stream.references import Known
from stream.sizing import ahead_ms_max, step_events
from stream.stage import Stage
from stream.topics import TopicRole
from stream.watch import MarkerWatch

log = logging.getLogger(__name__)

DAMAGED_BATCH = "damaged_batch"  # of deadletter.REASONS: given up after some tries, which is in no log


class LogGap(Exception):  # noqa: N818 - handled by a restore
    """The log goes on behind the position even after a seek: retention has taken what lay between."""


class Engine(Protocol):
    """The consumer side, as the worker sees it."""

    @property
    def generation(self) -> int: ...

    @property
    def rebalancing(self) -> bool: ...

    async def seek(self, source: str, partition: int, offset: int) -> None: ...

    def seek_number(self, source: str, partition: int) -> int: ...

    def stop(self, code: int, reason: str) -> None: ...


@dataclass(frozen=True)
class Setup:
    """What is fixed while a worker runs. `profiles` grows as references are asked for; `sources` is P."""

    config: Config
    sources: int
    plan: CollectorPlan
    layout: Layout
    settings: MonitorSettings
    profiles: dict[str, ReferenceProfile]
    active: dict[str, ReferenceProfile | None]
    discovered: Mapping[str, Sequence[DeclaredTarget]]
    config_hash: str
    app_version: str
    owner: OwnerRecord | None = None
    feedback: Mapping[str, Layout] = field(default_factory=dict)
    """How the events of each topic of feedback are read."""
    rekeyed: frozenset[str] = frozenset()
    """Sources that are read as copies."""

    @classmethod
    def of(cls, config: Config, sources: int, known: Known) -> Setup:
        """Raises PlanningError, MappingError."""
        plan, layout = collector_plan(config, known.active, known.discovered)
        return cls(
            config=config,
            sources=sources,
            plan=plan,
            layout=layout,
            settings=monitor_settings(config, known.discovered),
            profiles=known.profiles,
            active=dict(known.active),
            discovered=known.discovered,
            config_hash=collector_hash(config, plan),
            app_version=version("driftline"),
            feedback=feedback_layouts(config),
            rekeyed=frozenset(role.value for role in config.rekeyed()),
        )

    def begin(self, slot: Slot) -> None:
        """What a new collector counts with is not in its log: decisions, so that its journal and successors know it."""
        if slot.stage == COLLECTOR:
            for plan in self.plan.models:
                slot.owner.begin("plan", {"model": plan.model, "plan": plan.hash})

    def make_stage(self, stage: str, partition: int) -> Stage:
        """An empty stage; a restore loads it."""
        return self.collector(partition) if stage == COLLECTOR else self.monitor(partition)

    def collector(self, partition: int) -> Collector:
        return Collector(
            partition,
            self.plan,
            monitors=self.config.monitors,
            topic=self.config.topic(TopicRole.PREDICTIONS),
            config_hash=self.config_hash,
            app_version=self.app_version,
            policy=policy_of(self.config),
            feedback_topics={stream: self.config.topic(TopicRole(stream)) for stream in self.feedback},
            copied_to={role.value: self.config.source(role) for role in self.config.rekeyed()},
        )

    def monitor(self, partition: int) -> Monitor:
        return Monitor(
            partition,
            sources=self.sources,
            settings=self.settings,
            profiles=self.profiles,
            app_version=self.app_version,
        )


def series_of(plan: CollectorPlan) -> tuple[tuple[str, int], ...]:
    """(stream, horizon) of every series of performance that the collectors mark."""
    return () if plan.feedback is None else plan.feedback.series


FetchReference = Callable[[str], Awaitable[ReferenceProfile]]


class Worker:
    """Applies chunks to the owned partitions."""

    def __init__(
        self, setup: Setup, owners: Owners, engine: Engine, fetch_reference: FetchReference, metrics: Metrics
    ) -> None:
        self.setup = setup
        self.owners = owners
        self.engine = engine
        self.metrics = metrics
        self._fetch_reference = fetch_reference
        self.watch = MarkerWatch(setup.sources, series=frozenset(series_name(*each) for each in series_of(setup.plan)))
        self.alignment = Alignment(setup.sources, ahead_ms_max(setup.plan, setup.sources))
        self.stopping = False

    async def handle(self, stage: str, chunk: Chunk, source: str = "") -> None:
        """Apply one chunk of `source`, the stage's first if it is not named. An error makes the partition's state be thrown away,
        loaded and read again.
        """
        slot = self.owners.get(stage, chunk.partition)
        if slot is None or self.stopping:
            return
        source = source or slot.source
        if source != SOURCES[stage]:
            if source in slot.full or slot.lane.blocked or self._is_full(slot, source):
                slot.full.add(source)
                return
        elif stage == COLLECTOR and (slot.ahead or slot.lane.blocked or self._is_ahead(slot)):
            slot.ahead = True  # what arrives until `release` is read again then
            return
        try:
            if await self._follows(slot, chunk, source):
                slot.damaged = False
                if stage == COLLECTOR:
                    await self._collect(slot, chunk, source)
                else:
                    await self._monitor(slot, chunk)
                if stage != COLLECTOR:  # a collector's is held back alone: all partitions of a stage share this task
                    await slot.lane.room()
        except Exception as error:  # noqa: BLE001  whatever it is, a half-applied state must not live on
            await self.reload(slot, error)

    def _is_full(self, slot: Slot, source: str) -> bool:
        joining = slot.owner.stage.joining  # type: ignore[attr-defined]
        return bool(joining.is_full(source))

    def held_feedback(self) -> list[tuple[Slot, str]]:
        """Topics of feedback that are not fetched for the time being, by partition."""
        return [(slot, source) for slot in self.owners.of(COLLECTOR) for source in sorted(slot.full)]

    def _is_ahead(self, slot: Slot) -> bool:
        return self.alignment.ahead(slot.partition, self.marked())

    def marked(self) -> dict[int, int]:
        """The newest known mark of every source partition: of the own ones by their states, of the others by their markers."""
        own = {slot.partition: slot.owner.stage.marked_ms for slot in self.owners.of(COLLECTOR)}  # type: ignore[attr-defined]
        return self.watch.marked_ms | own

    def held_back(self) -> list[Slot]:
        """Source partitions that are not fetched for the time being."""
        return [slot for slot in self.owners.of(COLLECTOR) if slot.ahead]

    async def release(self) -> None:
        """Let those go on that the others have caught up with, or whose outputs are taken again."""
        for slot in self.held_back():
            if slot.usable and not slot.lane.blocked and not self._is_ahead(slot):
                slot.ahead = False
                await self.engine.seek(slot.source, slot.partition, slot.position)
        for slot, source in self.held_feedback():
            if slot.usable and not slot.lane.blocked and not self._is_full(slot, source):
                slot.full.discard(source)
                await self.engine.seek(source, slot.partition, slot.owner.vector[source])

    def still(self, slot: Slot) -> bool:
        """Whether the slot's assignment holds."""
        return not self.stopping and self.engine.generation == slot.generation

    async def reload(self, slot: Slot, error: BaseException) -> None:
        """Load a failed partition again and read it from there; a refusal ends the worker."""
        if slot.closed or not self.still(slot):
            return
        try:
            fresh = await self.owners.reload(slot, error, lambda: self.still(slot))
        except Refused as refusal:
            self.refuse(refusal)
            return
        if fresh is not None:
            for source, position in list(fresh.owner.vector.items()):
                if source in fresh.owner.sources:
                    await self.engine.seek(source, fresh.partition, position)

    def refuse(self, refusal: Refused) -> None:
        """End the worker with the reason: a restart would meet it again."""
        from stream.supervisor import Exit

        self.engine.stop(Exit.REFUSED, str(refusal))

    async def _follows(self, slot: Slot, chunk: Chunk, source: str) -> bool:
        """Whether the chunk holds what comes next."""
        position = slot.owner.vector[source]
        if chunk.next_offset <= position:
            return False
        if chunk.first_offset <= position:
            slot.hole.pop(source, None)
            return True
        if chunk.seek < self.engine.seek_number(source, slot.partition):
            return False  # it was under way when the partition was sought: what belongs here is coming
        if slot.hole.get(source) == chunk.first_offset:
            raise LogGap(f"{source}-{slot.partition} goes on at {chunk.first_offset}, the state is at {position}")
        slot.hole[source] = chunk.first_offset
        self.metrics.add("rewinds_total", stage=slot.stage)
        await self.engine.seek(source, slot.partition, position)
        return False

    async def _collect(self, slot: Slot, chunk: Chunk, source: str) -> None:
        layout, rekeyed = self.setup.feedback.get(source), source in self.setup.rekeyed
        events_max = step_events(self.setup.layout if layout is None else layout)
        for part in split(records_of(chunk, slot.owner.vector[source]), events_max):
            if not slot.usable:
                return
            started, records, copies = time.perf_counter(), part, None
            if rekeyed:
                seen = slot.owner.stage.copied.get(source)  # type: ignore[attr-defined]
                records, copies = originals(part, {} if seen is None else seen.marks)
            columns = decode(records, self.setup.layout) if layout is None else decode_feedback(records, layout)
            columns = replace(columns, copies=copies)
            reach("ingest.decoded")
            given_up = any(code == DAMAGED_BATCH for code, _ in records.refused.values())
            slot.owner.apply(source, columns, records.next_offset, hold=given_up)
            reach("ingest.applied")
            slot.flush()
            reach("ingest.posted")
            self._note_step(slot, time.perf_counter() - started)

    async def _monitor(self, slot: Slot, chunk: Chunk) -> None:
        records = [_pane_record(piece) for piece in chunk.pieces if isinstance(piece, Plain)]
        while slot.usable:
            started = time.perf_counter()
            position = slot.position
            try:
                slot.owner.apply(slot.source, [r for r in records if r.offset >= position], chunk.next_offset)
            except MissingReference as missing:
                slot.flush()
                slot.waiting = True
                self.setup.profiles[missing.reference] = await self._fetch_reference(missing.reference)
                slot.waiting = False
                continue
            reach("merge.applied")
            slot.flush()
            reach("merge.posted")
            self._note_step(slot, time.perf_counter() - started)
            return

    def _note_step(self, slot: Slot, took_s: float) -> None:
        self.metrics.add("steps_total", stage=slot.stage)
        self.metrics.add("step_seconds_total", took_s, stage=slot.stage)
        self.metrics.raise_to("step_seconds_max", took_s, stage=slot.stage)


def _pane_record(record: Plain) -> PaneRecord:
    value = record.value or b""
    epoch = epoch_of((name, data or b"") for name, data in record.headers)
    return PaneRecord(record.offset, record.timestamp_ms, epoch, decode_record(value), bytes(value))
