"""Is anything moving: lag of every owned partition, partitions that stand still, topics that are not what they were.

Asked over connections of its own, not the engine's: a client that hangs must not be the one that says that all is well.
A worker ends itself only when a connection opened for the question answers, the log has records behind its position, and
the position has not moved for `stalled_s`; what waits for something known (a blocked output, a slower partition, a
reference, a restore) does not stand still. While no broker answers nothing is judged, and nobody ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from stream.assignment import COLLECTOR, MONITOR, SOURCES, Key, LogReplaced, Refused, Slot
from stream.claims import what_is_lost
from stream.metrics import Metrics
from stream.protocol import Extent
from stream.supervisor import Exit
from stream.topics import TopicRole, growth_refusal
from stream.worker import Worker

log = logging.getLogger(__name__)

ABSENT_S = 60.0  # a topic that is gone for so long is not being made anew just now


class Topics(Protocol):
    """What liveness asks the cluster, by role."""

    async def ends(self, role: str, partitions: int) -> dict[int, int]: ...

    async def topics(self) -> Mapping[str, Any]:
        """Role, as in Config.watched -> cluster.TopicView of every such topic that exists."""

    async def answers(self) -> bool: ...


@dataclass
class Stalls:
    """How long each key has stood at one position, by a monotonic clock."""

    _moved: dict[Key, tuple[int, float]] = field(default_factory=dict)

    def see(self, key: Key, position: int, now_s: float, *, excused: bool) -> float:
        """Seconds since `key` was first seen at this position without an excuse."""
        before = self._moved.get(key)
        if before is None or before[0] != position or excused:
            self._moved[key] = (position, now_s)
            return 0.0
        return now_s - before[1]


class Liveness:
    """Looks once per `look`; ends the worker through its engine."""

    def __init__(self, worker: Worker, topics: Topics, metrics: Metrics, stalled_s: float) -> None:
        self._worker = worker
        self._topics = topics
        self._metrics = metrics
        self._stalled_s = stalled_s
        self._stalls = Stalls()
        self._absent_since: float | None = None
        setup = worker.setup
        self._counts = {COLLECTOR: setup.sources, MONITOR: setup.config.monitors}
        self.feedback_ends: dict[str, dict[int, int]] = {}  # by stream, as of the last look

    async def look(self) -> dict[int, int]:
        """Ends of the source partitions. Raises Refused; KafkaError, OSError, TimeoutError while no broker answers."""
        owners = self._worker.owners
        views = await self._topics.topics()
        self._require_topics(views, time.monotonic())
        before = {key: slot.position for key, slot in owners.slots.items() if slot.usable}
        streams = self._worker.setup.feedback
        told = {key: dict(slot.owner.vector) for key, slot in owners.slots.items() if slot.usable and streams}
        ends = {stage: await self._topics.ends(source, self._counts[stage]) for stage, source in SOURCES.items()}
        self.feedback_ends = {stream: await self._topics.ends(stream, self._counts[COLLECTOR]) for stream in streams}
        now_s = time.monotonic()
        for key, position in before.items():  # positions move while the ends are asked for
            slot = owners.slots.get(key)
            if slot is not None and slot.usable:
                await self._judge(slot, views, position, ends[slot.stage][slot.partition], now_s)
        for (stage, partition), vector in told.items():
            slot = owners.get(stage, partition)
            if slot is not None and stage == COLLECTOR:
                await self._judge_feedback(slot, views, vector, now_s)
        await self._judge_engine(now_s)
        return ends[COLLECTOR]

    def _require_topics(self, views: Mapping[str, Any], now_s: float) -> None:
        """Counts as at the start, and none missing for long."""
        config = self._worker.setup.config
        for stage, source in SOURCES.items():
            view = views.get(source)
            if view is not None and view.partitions != self._counts[stage]:
                raise Refused(growth_refusal(config.source(TopicRole(source)), self._counts[stage], view.partitions))
        for stream in self._worker.setup.feedback:
            view = views.get(stream)
            if view is not None and view.partitions != self._counts[COLLECTOR]:
                topic = config.source(TopicRole(stream))
                raise Refused(growth_refusal(topic, self._counts[COLLECTOR], view.partitions))
        watched = config.watched()
        missing = [name for role, name in watched.items() if role not in views]
        if not missing:
            self._absent_since = None
            return
        self._absent_since = self._absent_since or now_s
        if now_s - self._absent_since > min(ABSENT_S, self._stalled_s):
            raise Refused(
                f"there is no topic {', '.join(missing)} any more; driftline topics create makes driftline's own"
            )
        said = f"there is no topic {', '.join(missing)} just now"
        copied = {role for role in watched if role.startswith(f"{TopicRole.REKEYED.value}.")}
        if not {*SOURCES.values(), *self._worker.setup.feedback, *copied} <= set(views):
            raise LogReplaced(said)
        log.warning("%s; outputs to it wait", said)

    async def _judge(self, slot: Slot, views: Mapping[str, Any], position: int, end: int, now_s: float) -> None:
        self._metrics.set("lag_events", max(end - slot.position, 0), stage=slot.stage, partition=slot.partition)
        topic = self._worker.setup.config.source(TopicRole(slot.source))
        extent = Extent(0, end, views[slot.source].id, topic)
        loss = what_is_lost(slot.source, slot.partition, position, slot.owner.topics.get(slot.source, ""), extent)
        if loss:
            await self._worker.reload(slot, LogReplaced(loss))
            return
        held = slot.lane.blocked or slot.ahead or slot.damaged or slot.waiting
        excused = end <= slot.position or held
        stood_s = self._stalls.see((slot.stage, slot.partition), slot.position, now_s, excused=excused)
        if stood_s > self._stalled_s and await self._topics.answers():
            self._worker.engine.stop(
                Exit.CRASHED,
                f"{topic}-{slot.partition} stands at {slot.position} for {stood_s:.0f} s, the log goes on to {end}, and the"
                " broker answers: the client is stuck",
            )

    async def _judge_feedback(
        self, slot: Slot, views: Mapping[str, Any], vector: Mapping[str, int], now_s: float
    ) -> None:
        """The topics of feedback of one collector: none made anew, none that stands still."""
        for stream, ends in self.feedback_ends.items():
            end, position = ends[slot.partition], slot.owner.vector[stream]
            self._metrics.set("feedback_lag_events", max(end - position, 0), partition=slot.partition, feedback=stream)
            topic = self._worker.setup.config.source(TopicRole(stream))
            known = slot.owner.topics.get(stream, "")
            extent = Extent(0, end, views[stream].id, topic)
            loss = what_is_lost(stream, slot.partition, vector[stream], known, extent)
            if loss:
                await self._worker.reload(slot, LogReplaced(loss))
                return
            held = slot.lane.blocked or stream in slot.full or slot.damaged
            excused = end <= position or held
            stood_s = self._stalls.see((stream, slot.partition), position, now_s, excused=excused)
            if stood_s > self._stalled_s and await self._topics.answers():
                self._worker.engine.stop(
                    Exit.CRASHED,
                    f"{topic}-{slot.partition} stands at {position} for {stood_s:.0f} s, the log goes on to {end}, and the"
                    " broker answers: the client is stuck",
                )

    async def _judge_engine(self, now_s: float) -> None:
        """A member that never gets its assignment."""
        busy = not self._worker.engine.rebalancing or self._worker.owners.restoring
        stood_s = self._stalls.see(("rebalance", 0), self._worker.engine.generation, now_s, excused=busy)
        if stood_s > self._stalled_s and await self._topics.answers():
            self._worker.engine.stop(
                Exit.CRASHED, f"no assignment for {stood_s:.0f} s, and the broker answers: the client is stuck"
            )
