"""What a worker does by the clock: snapshots, ticks of idle partitions, switches of plan, the drain, probes, counters.

Nothing here decides what an event counts as: a tick or a switch is a decision of the partition's owner, in the journal.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from detectors.reference import ReferenceProfile
from stream import give_back
from stream.assignment import COLLECTOR, MONITOR, Owners, Refused, Slot
from stream.collector import Collector
from stream.collector_counts import count_collector
from stream.container import ContainerError
from stream.copy_lag import Copying
from stream.epochs import epoch_of
from stream.failpoints import reach
from stream.learning_log import LearningLog
from stream.liveness import Liveness, Topics
from stream.metrics import Metrics
from stream.monitor import Monitor
from stream.output_counts import count_performance
from stream.owner_record import OwnerRecord, refusal
from stream.panes import EDGE_END, decode_record
from stream.plan import ModelPlan
from stream.planning import PlanningError, model_plan
from stream.reference_records import ReferenceLog
from stream.references import ControlLog, ReferencesError, for_use
from stream.supervisor import Exit
from stream.topics import TopicRole
from stream.watch import IdleRule, feedback_idle
from stream.worker import Worker

log = logging.getLogger(__name__)

WATCH_TAIL = 4_000  # records of one panes partition that are looked at for the markers at the start
REFERENCE_WAIT_S = 60.0
REFERENCE_PAUSE_S = 0.5
STOP_S = 2.0
SAVE_PATIENCE_S = 5.0  # a snapshot takes a tenth of a second; longer, the broker does not take the partition's outputs
PULSE_S = 0.25
COPY_PATIENCE_S = 2.0  # copies are committed each second, and looked at as often as the rest


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often, in seconds."""

    snapshot_s: float = 10.0
    control_s: float = 2.0
    counters_s: float = 1.0
    drain_s: float = 0.5
    align_s: float = 0.2
    idle_max_s: float = 5.0
    stalled_s: float = 60.0

    def idle_s(self, idle_timeout_s: float) -> float:
        return min(max(idle_timeout_s / 10, 0.25), self.idle_max_s)


class Logs(Topics, Protocol):
    """Reads stretches of logs by role: snapshots.LogReader with the names of the topics."""

    async def stretch(self, role: str, partition: int, start: int | None, tail: int | None = None) -> Any: ...


class Upkeep:
    """The periodic tasks of one worker."""

    def __init__(
        self,
        worker: Worker,
        logs: Logs,
        metrics: Metrics,
        rhythm: Rhythm,
        *,
        drain: bool,
        copier: Copying | None = None,
    ) -> None:
        self.copier = copier
        self.worker = worker
        self.owners: Owners = worker.owners
        self.logs = logs
        self.metrics = metrics
        self.rhythm = rhythm
        self.drain = drain
        setup = worker.setup
        self.control = ControlLog()
        self.watch = worker.watch
        self.idle = IdleRule(
            self.watch, setup.config.idle_timeout.ms / 1000, setup.plan.lateness_ms, setup.plan.resolution_ms
        )
        self.feedback_idle = feedback_idle(self.idle, setup.plan)
        self.liveness = Liveness(worker, logs, metrics, rhythm.stalled_s)
        self.beat = time.monotonic()
        self.broker_seen = time.monotonic()
        self._pulse = self.beat
        self._at: dict[str, int] = {}
        self._wanted: dict[str, ModelPlan] = {plan.model: plan for plan in setup.plan.models}
        self._goal: dict[int, dict[str, int]] | None = None
        self._learning = LearningLog()
        self._saving: dict[tuple[str, int], asyncio.Future[bool]] = {}  # snapshots that nobody waits for just now
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = asyncio.Event()

    def start(self) -> None:
        config = self.worker.setup.config
        jobs: list[tuple[Callable[[], Coroutine[Any, Any, None]], float]] = [
            (self.save, self.rhythm.snapshot_s),
            (self.count, self.rhythm.counters_s),
            (self.pulse, PULSE_S),
            (self.follow, self.rhythm.control_s),
            (self.align, self.rhythm.align_s),
            (self.look, self.rhythm.idle_s(config.idle_timeout.ms / 1000)),
        ]
        if self.drain:
            jobs.append((self.finish, self.rhythm.drain_s))
        self._tasks = [asyncio.create_task(self._every(job, pause_s), name=job.__name__) for job, pause_s in jobs]

    async def stop(self) -> None:
        """End the jobs. A snapshot that is under way is waited for: cut short, its state would be lost for a last one."""
        self._ending.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _every(self, job: Callable[[], Awaitable[None]], pause_s: float) -> None:
        """A job that fails is tried again next time: the broker may be away for a while."""
        while not await self._ends_within(pause_s):
            try:
                await job()
            except Refused as refusal:
                self.worker.refuse(refusal)
                return
            except (ReferencesError, PlanningError, ContainerError) as error:
                log.error("%s: %s", getattr(job, "__name__", job), error)  # noqa: TRY400  the text says it all
            except Exception as error:  # noqa: BLE001  see above
                log.warning("%s: %r", getattr(job, "__name__", job), error)

    async def _ends_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._ending.wait(), seconds)
        except TimeoutError:
            return False
        return True

    # -- snapshots

    async def save(self) -> None:
        """Snapshots of what has changed; a state whose snapshot failed is loaded again."""
        for slot in list(self.owners.slots.values()):
            if not slot.usable or not await self._saved(slot):
                await self._revive(slot)
        give_back.trim()  # what the blobs took, and the windows and fetches before them
        give_back.compiler()  # a kernel that only now was needed

    async def _saved(self, slot: Slot) -> bool:
        """owners.snapshot, waited for SAVE_PATIENCE_S at most: one that waits for a topic to be mended goes on, the other
        partitions do too.
        """
        key = (slot.stage, slot.partition)
        saving = self._saving.pop(key, None) or asyncio.ensure_future(self.owners.snapshot(slot))
        done, _ = await asyncio.wait({saving}, timeout=SAVE_PATIENCE_S)
        if not done:
            self._saving[key] = saving
            return True
        return saving.result()

    async def _revive(self, slot: Slot) -> None:
        if not slot.closed and slot.owner.dead:
            await self.worker.reload(slot, slot.error or RuntimeError("it died"))

    # -- ticks

    async def look(self) -> None:
        """See how far the logs and the markers are; tick where a partition is idle; judge whether anything moves at all."""
        ends = await self.liveness.look()
        now = self.broker_seen = time.monotonic()
        if self.copier is not None:
            await self.copier.look(now)
        self.idle.see(ends, now, growing=self._lacks_copies(TopicRole.PREDICTIONS.value, now))
        await self._read_markers()
        if self.drain:
            return
        for stream, ends in self.liveness.feedback_ends.items():
            self.feedback_idle[stream].see(ends, now, growing=self._lacks_copies(stream, now))
        for slot in self.owners.of(COLLECTOR):
            await self._tick(slot, self.idle.tick_ms(slot.partition, slot.position, now))
            await self._tick_feedback(slot, now)

    def _lacks_copies(self, source: str, now_s: float) -> bool:
        """Whether a log that does not grow may do so only because its copies are behind: it is not idle then."""
        most_s = 3 * self.rhythm.idle_s(self.idle.idle_timeout_s) + COPY_PATIENCE_S
        return self.copier is not None and self.copier.is_behind(source, now_s, most_s)

    async def _tick_feedback(self, slot: Slot, now_s: float) -> None:
        """A topic of feedback in which nothing comes holds up its own series no longer than its lateness."""
        collector, taken = slot.owner.stage, False
        assert isinstance(collector, Collector)
        for stream, idle in self.feedback_idle.items():
            if collector.joining is None or not slot.usable or not slot.owner.may_decide() or slot.lane.blocked:
                return
            watermark_ms = collector.joining.join.streams[stream].watermark_ms
            until_ms = idle.tick_ms(slot.partition, slot.owner.vector[stream], watermark_ms, now_s)
            if until_ms is not None:
                self._decide(slot, "tick", {"until_ms": until_ms, "stream": stream})
                taken = True
        if taken and not await self._saved(slot):
            await self._revive(slot)

    async def align(self) -> None:
        """Let partitions go on that were held back, once the slowest has come after them."""
        if self.worker.held_back() or self.worker.held_feedback():
            await self._read_markers()
            await self.worker.release()

    async def _read_markers(self) -> None:
        # markers are sent to the panes partitions in turn, each acknowledged before the next: the last has them last
        place = self.worker.setup.config.monitors - 1
        start = self._at.get("panes")
        seen = await self.logs.stretch(TopicRole.PANES.value, place, start, WATCH_TAIL if start is None else None)
        for record in seen.records:
            if record.key is None:  # panes, which cost more to decode, have their model's name
                self.watch.add(epoch_of(record.headers), decode_record(record.value or b""))
        self._at["panes"] = seen.position

    async def _tick(self, slot: Slot, until_ms: int | None) -> None:
        collector = slot.owner.stage
        assert isinstance(collector, Collector)
        if until_ms is None or until_ms <= collector.marked_ms or not slot.owner.may_decide() or slot.lane.blocked:
            return
        self._decide(slot, "tick", {"until_ms": until_ms})
        if not await self._saved(slot):
            await self._revive(slot)

    def _decide(self, slot: Slot, kind: str, body: dict[str, Any]) -> None:
        slot.owner.decide(kind, body)
        reach("decision.taken")
        self.metrics.add("decisions_total", stage=slot.stage, kind=kind)

    # -- references and plans

    async def follow(self) -> None:
        """Read on in the control topic; switch the collectors to the active references."""
        await self._read_on(TopicRole.CONTROL, self.control.add)
        setup = self.worker.setup
        self._require_owner()
        for model in setup.config.models:
            record = self.control.active.get(model)
            if record is None or record.reference == self._wanted[model].reference:
                continue
            profile = await self._stored(record.reference)
            if profile is None:
                log.warning("models.%s: reference %s is active and not stored", model, record.reference)
                continue
            found, setup.profiles[profile.id] = setup.discovered.get(model, ()), profile
            try:
                self._wanted[model] = model_plan(setup.config, model, profile, setup.layout.paths, found)
            except PlanningError as error:  # the other models go on
                log.error("models.%s: stays with the reference it has: %s", model, error)  # noqa: TRY400  the text says it all
                continue
            log.info("models.%s: switches to reference %s (revision %d)", model, profile.id, record.revision)
        for slot in self.owners.of(COLLECTOR):
            await self._align(slot)

    def _require_owner(self) -> None:
        """Stop if another deployment has taken the topics over: two would go on counting in each other's states."""
        mine, found = self.worker.setup.owner, self.control.owner
        if mine is None or found is None:
            return
        theirs = OwnerRecord.decode(found)
        if theirs != mine:
            raise Refused(str(refusal(theirs, mine, self.worker.setup.config.prefix)))

    async def _read_on(self, role: TopicRole, add: Callable[[bytes | None, bytes | None], object]) -> None:
        seen = await self.logs.stretch(role.value, 0, self._at.get(role.value))
        for record in seen.records:
            add(record.key, record.value)
        self._at[role.value] = seen.position

    async def _align(self, slot: Slot) -> None:
        """Switch one collector's plans to the wanted ones: decisions, in force from its next unopened pane edge."""
        collector = slot.owner.stage
        assert isinstance(collector, Collector)
        in_force = collector.in_force()
        missing = [plan for model, plan in self._wanted.items() if in_force.get(model) != plan.hash]
        gone = [model for model, plan_hash in in_force.items() if plan_hash and model not in self._wanted]
        if not (missing or gone) or not slot.owner.may_decide() or slot.lane.blocked:
            return
        for plan in missing:
            self._decide(slot, "plan", {"model": plan.model, "plan": collector.offer(plan)})
        for model in gone:
            self._decide(slot, "plan", {"model": model, "plan": ""})
        if not await self._saved(slot):
            await self._revive(slot)

    async def reference(self, name: str) -> ReferenceProfile:
        """A stored profile, waiting for it: panes may arrive before the records that this worker follows."""
        deadline = time.monotonic() + REFERENCE_WAIT_S
        while True:
            profile = await self._stored(name)
            if profile is not None:
                return profile
            if time.monotonic() > deadline:
                raise ReferencesError(f"reference {name} is in use and not in the references topic")
            await asyncio.sleep(REFERENCE_PAUSE_S)

    async def _stored(self, name: str) -> ReferenceProfile | None:
        """Read the references topic for one profile, `slim`. It is seldom asked for, and its records cost 6 KB a target to
        keep.
        """
        stored = ReferenceLog()
        for record in (await self.logs.stretch(TopicRole.REFERENCES.value, 0, None)).records:
            if record.key is not None and record.key.startswith(f"{name}/".encode()):
                stored.add(record.key, record.value)
        profile = stored.get(name)
        return None if profile is None else for_use(self.worker.setup.config, profile)

    # -- the end of a bounded input

    async def finish(self) -> None:
        """Close everything once what was in the topic at the start is applied; end when all that follows is written."""
        if self._goal is None and self.copier is not None and not await self.copier.drained():
            return
        inputs, numbers = (TopicRole.PREDICTIONS.value, *self.worker.setup.feedback), range(self.worker.setup.sources)
        found = {source: await self.logs.ends(source, len(numbers)) for source in inputs}
        goal = self._goal or {p: {source: ends[p] for source, ends in found.items()} for p in numbers}
        # a log that was made anew meanwhile may never come to where the one before it ended
        self._goal = {p: {source: min(end, found[source][p]) for source, end in own.items()} for p, own in goal.items()}
        for slot in self.owners.of(COLLECTOR):
            if not slot.is_short_of(self._goal[slot.partition]):
                await self._end(slot)
        await self._read_markers()
        if not self.watch.ended or self.worker.engine.rebalancing or not self.worker.engine.generation:
            return
        ends = await self.logs.ends(TopicRole.PANES.value, self.worker.setup.config.monitors)
        if self._behind(self._goal, ends):
            return
        await self.save()
        ends = await self.logs.ends(TopicRole.PANES.value, self.worker.setup.config.monitors)
        if not self._behind(self._goal, ends) and not any(slot.owner.changed for slot in self.owners.slots.values()):
            self.worker.engine.stop(Exit.OK, "everything that was in the topic is processed")

    async def _end(self, slot: Slot) -> None:
        """Tick every input of a partition to the end."""
        collector = slot.owner.stage
        assert isinstance(collector, Collector)
        streams = collector.joining.unended() if collector.joining is not None else []
        if streams and slot.owner.may_decide() and not slot.lane.blocked:
            for stream in streams:
                self._decide(slot, "tick", {"until_ms": EDGE_END, "stream": stream})
            if collector.marked_ms >= EDGE_END and not await self._saved(slot):
                await self._revive(slot)
        await self._tick(slot, EDGE_END)

    def _behind(self, goal: dict[int, dict[str, int]], ends: dict[int, int]) -> bool:
        """Whether a state has not taken everything. Collectors too: an earlier drain may have ended the markers already; and
        a state that is loaded again, which is in no list meanwhile.
        """
        collectors = any(slot.is_short_of(goal[slot.partition]) for slot in self.owners.of(COLLECTOR))
        monitors = any(slot.position < ends[slot.partition] for slot in self.owners.of(MONITOR))
        return self.owners.restoring or collectors or monitors

    # -- counters

    async def pulse(self) -> None:
        """Measure how long the loop was away: what it does not do in time are heartbeats, and the group goes on without it."""
        now = time.monotonic()
        self.metrics.raise_to("loop_stall_seconds_max", max(now - self._pulse - PULSE_S, 0.0))
        self._pulse = now

    async def count(self) -> None:
        """Copy what the states know into the metrics."""
        self.beat = time.monotonic()
        self.metrics.set("asyncio_tasks", len(asyncio.all_tasks()))
        for slot in self.owners.slots.values():
            if slot.usable:
                self._count_slot(slot)

    def _count_slot(self, slot: Slot) -> None:
        labels: dict[str, object] = {"stage": slot.stage, "partition": slot.partition}
        self.metrics.set("position", slot.position, **labels)
        self.metrics.set("outbox_records", len(slot.owner.held), **labels)
        self.metrics.set("blocked", int(slot.lane.blocked), **labels)
        collector = slot.owner.stage
        if isinstance(collector, Monitor):
            self._learning.say(collector)
            count_performance(self.metrics, collector)
        if isinstance(collector, Collector):
            count_collector(self.metrics, collector, slot.partition)
            self.metrics.set("state_bytes", collector.memory_bytes(), **labels)
