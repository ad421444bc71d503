"""The partitions that this worker owns: restored after every rebalance, saved before every revocation, reloaded on errors.

A `Slot` is one partition of one stage: its PartitionOwner, the sender of its outputs, the executor of its effects. Slots
live as long as one group generation; a reload makes a new owner in the same slot's place. No Kafka client is named here.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from stream.claims import REFUSE_LOSS
from stream.metrics import Metrics
from stream.ownership import PartitionOwner
from stream.panes import Announcement, encode_announcement
from stream.protocol import (
    Fenced,
    ForeignState,
    InputLost,
    ManifestTooLarge,
    NewerState,
    Restored,
    Saved,
    StateCorrupt,
    StateLost,
    Steps,
)
from stream.stage import Output, Stage
from stream.topics import TopicRole

log = logging.getLogger(__name__)

COLLECTOR = "collector"
MONITOR = "monitor"
SOURCES = {COLLECTOR: TopicRole.PREDICTIONS.value, MONITOR: TopicRole.PANES.value}
"""What each stage reads first; a collector reads the topics of feedback besides."""
REFUSALS = (NewerState, ForeignState, StateLost, StateCorrupt, InputLost, ManifestTooLarge)
"""What a restart does not mend: the operator must know the name and decide."""

RETRY_FIRST_S = 0.5
RETRY_MAX_S = 5.0
RELOADS_MAX = 3  # without any progress in between: the same record fails again and again

Key = tuple[str, int]


def stage_name(key: Key) -> str:
    return f"{key[0]} {key[1]}"


class Refused(Exception):  # noqa: N818 - a verdict, with the reason as its cause
    """A partition cannot be processed and no restart will change that."""


class LogReplaced(Exception):  # noqa: N818 - handled by a restore, which refuses or resets
    """A topic is not the one any more that its partitions' states have read."""


class Lane(Protocol):
    """How one owner reaches the outside: its sender and executor (snapshots.py)."""

    async def drive_restore(self, steps: Steps[Restored]) -> Restored: ...

    async def drive_snapshot(self, steps: Steps[Saved | None]) -> Saved | None: ...

    def post(self, outputs: Sequence[Output]) -> None: ...

    async def room(self) -> None: ...

    @property
    def blocked(self) -> bool: ...

    async def close(self) -> None: ...


@dataclass
class Slot:
    """One owned partition of one stage."""

    stage: str
    partition: int
    owner: PartitionOwner
    lane: Lane
    generation: int
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    closed: bool = False
    error: BaseException | None = None  # why the last snapshot failed
    waiting: bool = False  # for a reference; whoever fetches it gives up by name
    ahead: bool = False  # held back: too far before the slowest partition
    full: set[str] = field(default_factory=set)  # topics of feedback that are held back: what waits is enough
    damaged: bool = False  # the next batch cannot be opened
    hole: dict[str, int] = field(
        default_factory=dict
    )  # where a log went on after the last seek, if not at the position
    reloads: int = 0
    reload_at: int = -1

    @property
    def source(self) -> str:
        return SOURCES[self.stage]

    @property
    def position(self) -> int:
        return self.owner.vector[self.source]

    @property
    def usable(self) -> bool:
        return not self.closed and self.owner.ready

    def is_short_of(self, goal: Mapping[str, int]) -> bool:
        """Whether an input has not been read to its offset."""
        return any(self.owner.vector[source] < end for source, end in goal.items())

    def flush(self) -> None:
        """Hand over what may leave."""
        outputs = self.owner.take_outputs()
        if outputs:
            self.lane.post(outputs)


class Owners:
    """All slots of a worker. `make_stage(stage, partition)` gives an empty stage, `make_lane(stage, partition, generation)`
    a fresh lane; `begin(slot)` takes the first decisions of a state that starts empty; `feedback`: the topics of feedback that
    collectors read. Who reloads a slot must make the engine read from its positions again.
    """

    def __init__(
        self,
        make_stage: Callable[[str, int], Stage],
        make_lane: Callable[[str, int, int], Lane],
        *,
        begin: Callable[[Slot], None],
        is_transient: Callable[[BaseException], bool],
        monitors: int,
        metrics: Metrics,
        on_data_loss: str = REFUSE_LOSS,
        home: str = "",
        feedback: Sequence[str] = (),
    ) -> None:
        self._feedback = tuple(feedback)
        self._begin = begin
        self._is_transient = is_transient
        self._make_stage = make_stage
        self._make_lane = make_lane
        self._monitors = monitors
        self._on_data_loss = on_data_loss
        self._home = home
        self._metrics = metrics
        self.slots: dict[Key, Slot] = {}
        self._restores = 0  # under way

    @property
    def restoring(self) -> bool:
        """Whether states are being loaded, for the first time or again: they are not among `slots` meanwhile."""
        return self._restores > 0

    def get(self, stage: str, partition: int) -> Slot | None:
        slot = self.slots.get((stage, partition))
        return slot if slot is not None and slot.usable else None

    def of(self, stage: str) -> list[Slot]:
        return [slot for slot in self.slots.values() if slot.stage == stage and slot.usable]

    async def restore(self, wanted: Iterable[Key], generation: int, still: Callable[[], bool]) -> None:
        """Become owner of `wanted`, all anew. `still()` False ends it: the assignment has changed meanwhile.

        Raises Refused.
        """
        await self.close()
        self._restores += 1
        try:
            works = (self._restore(key, generation, still) for key in wanted)
            found = await asyncio.gather(*works, return_exceptions=True)
        finally:
            self._restores -= 1
        for result in found:
            if isinstance(result, BaseException):
                raise result
        for stage in SOURCES:
            self._metrics.set("owned_partitions", len(self.of(stage)), stage=stage)

    async def _restore(self, key: Key, generation: int, still: Callable[[], bool]) -> None:
        """One partition, until it is loaded, refused, or another's. What the broker cannot do now is tried again."""
        pause_s = RETRY_FIRST_S
        while still():
            slot = self._new_slot(key, generation)
            started = time.monotonic()
            try:
                restored = await slot.lane.drive_restore(slot.owner.restore())
                if restored.blobs == 0:
                    self._begin(slot)
                    await slot.lane.drive_snapshot(slot.owner.snapshot())
            except Fenced:
                await slot.lane.close()
                log.info("%s %d belongs to another member now", *key)
                return
            except REFUSALS as error:
                await slot.lane.close()
                raise Refused(f"{type(error).__name__}: {error}") from error
            except Exception as error:
                await slot.lane.close()
                if not self._is_transient(error):
                    log.exception("%s %d cannot be loaded", *key)
                    raise Refused(f"{stage_name(key)} cannot be loaded: {type(error).__name__}: {error}") from error
                log.warning("%s %d not loaded (%r), again in %.1f s", *key, error, pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_MAX_S)
                continue
            if not still():
                await slot.lane.close()
                return
            self.slots[key] = slot
            self._note_restore(slot, restored, time.monotonic() - started)
            return

    def _new_slot(self, key: Key, generation: int) -> Slot:
        stage, partition = key
        owner = PartitionOwner(
            stage,
            partition,
            self._make_stage(stage, partition),
            uuid.uuid4().hex[:12],
            sources=(SOURCES[stage], *self._feedback) if stage == COLLECTOR else (SOURCES[stage],),
            announcements=self._announcements(partition) if stage == COLLECTOR else (),
            on_data_loss=self._on_data_loss,
            home=self._home,
        )
        return Slot(stage, partition, owner, self._make_lane(stage, partition, generation), generation)

    def _announcements(self, partition: int) -> tuple[Output, ...]:
        value = encode_announcement(Announcement(partition))
        return tuple(Output(TopicRole.PANES.value, None, value, place) for place in range(self._monitors))

    def _note_restore(self, slot: Slot, restored: Restored, took_s: float) -> None:
        self._metrics.add("restores_total", stage=slot.stage)
        self._metrics.set("restore_seconds", took_s, stage=slot.stage)
        if restored.corrupt:
            log.error("%s %d: %d damaged or foreign records passed over", slot.stage, slot.partition, restored.corrupt)
            labels: dict[str, object] = {"stage": slot.stage, "partition": slot.partition}
            self._metrics.add("state_corruptions_total", restored.corrupt, **labels)
        for source, missing in restored.gap.items():
            log.error(
                "%s %d: retention took %d records of %s before they were read",
                slot.stage,
                slot.partition,
                missing,
                source,
            )
        for loss in restored.losses:
            log.error("%s %d: %s. on_data_loss: reset, going on there", slot.stage, slot.partition, loss)
            self._metrics.add("input_resets_total", stage=slot.stage, partition=slot.partition)
        log.info(
            "%s %d: epoch %d at %s, %d blobs, %d bytes, at most %d of late, read %d%s, an interval %d, claims %d,"
            " unfinished %d (%d snapshots, %d owners before), %.2f s", slot.stage, slot.partition,
            restored.epoch, restored.vector, restored.blobs, restored.live_bytes, restored.largest_live_bytes,
            restored.read_bytes,
            " (the whole log)" if restored.whole else "", restored.interval_bytes,
            restored.claims_bytes, restored.unfinished_bytes, restored.unfinished, restored.owners_before, took_s,
        )  # fmt: skip

    async def reload(self, slot: Slot, error: BaseException, still: Callable[[], bool]) -> Slot | None:
        """Throw a failed state away and load it again; None = it is another's now. Raises Refused after too many times."""
        replaced = isinstance(error, LogReplaced | InputLost)
        transient = replaced or self._is_transient(error)
        where = f"{slot.stage} {slot.partition} at {slot.owner.vector}"
        if transient:
            log.warning("%s is loaded again: %r", where, error)
        else:
            log.error("%s failed and is loaded again", where, exc_info=error)
        at = slot.owner.vector.get(slot.source, -1)
        fresh_fault = at > slot.reload_at
        reloads = slot.reloads if transient else 1 if fresh_fault else slot.reloads + 1
        if reloads > RELOADS_MAX:
            raise Refused(f"{where} fails again and again: {type(error).__name__}: {error}") from error
        self._metrics.add("reloads_total", stage=slot.stage)
        key = (slot.stage, slot.partition)
        self._restores += 1
        try:
            await self._retire(slot)
            await self._restore(key, slot.generation, still)
        finally:
            self._restores -= 1
        fresh = self.slots.get(key)
        if fresh is not None:
            fresh.reloads, fresh.reload_at = reloads, -1 if replaced else max(at, slot.reload_at)
        return fresh

    async def snapshot(self, slot: Slot) -> bool:
        """Save one state if anything changed. False: it failed or was fenced; the slot is dead then."""
        async with slot.lock:
            if not slot.usable or not slot.owner.changed:
                return slot.usable
            started = time.monotonic()
            try:
                saved = await slot.lane.drive_snapshot(slot.owner.snapshot())
            except Fenced:
                log.warning("%s %d: fenced, another member owns it", slot.stage, slot.partition)
                self._metrics.add("fenced_total", stage=slot.stage)
                slot.closed = True
                return False
            except ManifestTooLarge as error:
                raise Refused(f"{type(error).__name__}: {error}") from error
            except Exception as error:  # noqa: BLE001  the owner is dead and is loaded again by whoever sees it
                log.warning("%s %d: snapshot failed: %r", slot.stage, slot.partition, error)
                slot.error = error
                labels: dict[str, object] = {"stage": slot.stage, "partition": slot.partition}
                self._metrics.add("snapshot_failures_total", **labels)
                return False
            self._note_snapshot(slot, saved, time.monotonic() - started)
            return True

    def _note_snapshot(self, slot: Slot, saved: Saved | None, took_s: float) -> None:
        if saved is None:
            return
        labels: dict[str, object] = {"stage": slot.stage, "partition": slot.partition}
        self._metrics.add("snapshots_total", **labels)
        self._metrics.add("snapshot_bytes_total", saved.written_bytes, **labels)
        self._metrics.set("snapshot_seconds", took_s, **labels)
        self._metrics.set("snapshot_timestamp_seconds", time.time(), **labels)
        log.debug("%s %d: saved %d bytes, %.3f s: %s", slot.stage, slot.partition, saved.written_bytes, took_s, saved)

    async def save_all(self) -> None:
        """A snapshot of every state, side by side."""
        await asyncio.gather(*(self.snapshot(slot) for slot in list(self.slots.values()) if slot.usable))

    async def close(self) -> None:
        """Give everything up; nothing of it is sent or saved any more."""
        for slot in list(self.slots.values()):
            await self._retire(slot)

    async def _retire(self, slot: Slot) -> None:
        slot.closed = True
        await slot.lane.close()
        if self.slots.get((slot.stage, slot.partition)) is slot:
            del self.slots[slot.stage, slot.partition]
        self._metrics.forget(stage=slot.stage, partition=slot.partition)
