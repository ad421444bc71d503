"""Raw record batches through Faust: one engine message per partition and chunk, no Python object per event.

What Faust keeps: group membership, assignment, heartbeats, timers, shutdown. What is replaced, each with a contract test
in tests/integration/test_transport_hooks.py that fails when an upgrade of Faust or aiokafka moves it:

1. aiokafka's fetcher keeps the fetched bytes of raw topics (raw_fetch.py: one method of one instance).
2. `Consumer.getmany` yields chunks; the schema passes them through undecoded.
3. Faust's own bookkeeping of offsets is off (`_read_offset`, `_add_gap`, `_new_offset`): which chunk is next is known by the
   state's offset vector alone, and offsets are committed only as a numbered step of a snapshot.
4. `perform_seek` goes to the vectors of the restored states.
5. `commit_fenced` says whether the broker accepted a commit in a given generation; Faust's would crash the app on some
   errors and report success for partitions that are gone.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import faust
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from stream import chunks
from stream.chunks import Chunk, Piece
from stream.damage import Damage
from stream.raw_fetch import install_raw_fetch
from stream.snapshots import patient

EVENTS_PER_CHUNK = 4000  # a step of some 10-20 ms; events
FETCH_WAIT_MS = 200  # a waiting fetch holds back the partitions that join it; Faust's 1500 costs latency
METADATA_AGE_MS = 10_000  # a topic that is gone and back is assigned again so soon; aiokafka's 5 min are idle ones
POLL_S = 0.2
SUBSCRIBE_POLL_S = 0.02
STAY_S = 0.5
FULL_SLEEP_S = 0.01  # all buffers full: Faust would sleep a whole second
ASSIGNORS = (RangePartitionAssignor,)
"""Gives each partition number of topics with equally many to one member; Faust without tables takes round robin, which splits
them unless the members divide their number. One only: of two, aiokafka 0.14 joins once with the first alone and again with both,
each of which is a rebalance, and two members that do so at the same time may go on for minutes.
"""
READ_COMMITTED = "read_committed"


class RawConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Faust's consumer thread over a raw fetcher, with a commit that tells the truth."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = READ_COMMITTED  # noqa: SLF001  predictions of aborted transactions never happened
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # noqa: SLF001
        consumer._partition_assignment_strategy = ASSIGNORS  # noqa: SLF001
        consumer._client._metadata_max_age_ms = METADATA_AGE_MS  # noqa: SLF001
        patient(consumer._client)  # noqa: SLF001
        return consumer

    async def on_start(self) -> None:
        await super().on_start()
        install_raw_fetch(self._consumer._fetcher, self.app.raw_topics, self.app.damage)  # noqa: SLF001

    async def _beside(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run in the thread's loop without queueing behind fetches: Faust's method queue has two places."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.thread_loop))

    async def commit_fenced(self, offsets: Mapping[TP, int], metadata: str, generation: int) -> bool:
        """Commit in the group generation `generation`; False when this member does not own the partitions (any more).

        Raises KafkaError for whatever else the broker refuses: an owner that took that for its end would leave the
        partition to nobody until the next rebalance.
        """
        return bool(await self._beside(self._commit_fenced(offsets, metadata, generation)))

    async def _commit_fenced(self, offsets: Mapping[TP, int], metadata: str, generation: int) -> bool:
        consumer = self._ensure_consumer()
        coordinator = consumer._coordinator  # noqa: SLF001
        if coordinator.generation != generation or not set(offsets) <= self.assignment():
            return False
        wanted = {TopicPartition(tp.topic, tp.partition): OffsetAndMetadata(at, metadata) for tp, at in offsets.items()}
        try:
            await consumer.commit(wanted)
        except (CommitFailedError, IllegalStateError):
            return False
        # generations only grow: unchanged before and after means that the request carried this one
        return bool(coordinator.generation == generation)

    async def bounds(self, tps: Iterable[TP]) -> dict[TP, tuple[int, int]]:
        """Beginning and end of each partition, as a reader of committed records sees them."""
        return dict(await self._beside(self._bounds(list(tps))))

    async def _bounds(self, tps: list[TP]) -> dict[TP, tuple[int, int]]:
        consumer = self._ensure_consumer()
        plain = {tp: TopicPartition(tp.topic, tp.partition) for tp in tps}
        begins = await consumer.beginning_offsets(plain.values())
        ends = await consumer.end_offsets(plain.values())
        return {tp: (begins[at], ends[at]) for tp, at in plain.items()}

    async def committed(self, tp: TP) -> tuple[int, str] | None:
        """The group's committed offset of a partition and its metadata; None = nothing was committed."""
        coordinator = self._ensure_consumer()._coordinator  # noqa: SLF001
        plain = TopicPartition(tp.topic, tp.partition)
        found = (await self._beside(coordinator.fetch_committed_offsets([plain]))).get(plain)
        return None if found is None or found.offset < 0 else (found.offset, found.metadata)

    async def stay(self) -> None:
        """A sign of life, and the group's errors. Raises KafkaError.

        To the client only a fetch is a sign of life, and without one for five minutes it leaves the group and joins no more: that is who
        has no partition, none that may go on, or a restore that is long. An error of the group brings all joining to an end until it is
        asked for; Faust hears of it only while a fetch waits.
        """
        await self._beside(self._stay())

    async def _stay(self) -> None:
        consumer = self._ensure_consumer()
        with consumer._subscription.fetch_context():  # noqa: SLF001
            consumer._coordinator.check_errors()  # noqa: SLF001

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Off: Faust looks at acknowledged events; the worker has a liveness probe on positions of its own."""


class Unfiltered(dict[Any, Any]):
    """Faust's read offsets, answering None: it then neither drops a message nor invents a gap."""

    def __getitem__(self, key: Any) -> None:
        return None


class RawConsumer(driver.Consumer):  # type: ignore[misc]
    """Faust's consumer, yielding chunks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = Unfiltered()
        self._dropped: set[TP] = set()  # fetched and not passed on, as a rebalance came between

    def _new_consumer_thread(self) -> RawConsumerThread:
        return RawConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @faust.Service.task  # type: ignore[untyped-decorator]
    async def _stays(self) -> None:
        """From the worker's own loop, not the client's: who hangs does not stay."""
        while not self.should_stop:
            await self.sleep(STAY_S)
            if not self.should_stop:
                await self._thread.stay()

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:  # noqa: ASYNC109
        """One round of fetched chunks, partitions in turn. After a rebalance the rest is dropped: positions are sought anew."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        if self._dropped:
            await self._seek_dropped()
        active = self._get_active_partitions() - self._held_back()  # a copy: Faust changes the set that it gives
        if not active:
            await asyncio.sleep(FULL_SLEEP_S)
            return
        generation = self.app.consumer_generation_id
        seeks = dict(self.app.seeks)
        fetched = await self._getmany(active, min(timeout, POLL_S))
        queues = [self._chunks_of(driver_tp, pieces, seeks) for driver_tp, pieces in (fetched or {}).items()]
        while queues:
            for queue in list(queues):
                chunk = next(queue, None)
                if chunk is None:
                    queues.remove(queue)
                    continue
                if self.should_stop or not self.flow_active or self.app.consumer_generation_id != generation:
                    self._dropped.update(TP(each.topic, each.partition) for each in fetched or {})
                    return
                tp = TP(chunk.topic, chunk.partition)
                yield tp, _message(tp, chunk, generation)

    async def _seek_dropped(self) -> None:
        """Once more to where this assignment began: a fetch that was waiting when the rebalance came may have returned what lies
        there already, and nothing was passed on since. Whoever is revoked meanwhile has to wait for the next assignment.
        """
        generation = self.app.consumer_generation_id
        with suppress(IllegalStateError):
            await self.app.seek({tp: at for tp, at in self.app.sought.items() if tp in self._dropped})
        if self.flow_active and self.app.consumer_generation_id == generation:
            self._dropped.clear()

    def _held_back(self) -> set[TP]:
        damaged = {TP(*place) for place in self.app.damage.waiting(time.monotonic())}
        return set(self.app.held_back()) | damaged

    def _chunks_of(self, tp: Any, pieces: list[Piece], seeks: Mapping[TP, int]) -> Iterator[Chunk]:
        seek = seeks.get(TP(tp.topic, tp.partition), 0)
        return chunks.chunks(tp.topic, tp.partition, pieces, self.app.events_per_chunk, seek)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Off: a chunk's offset is its last record's."""

    def _new_offset(self, tp: TP) -> int | None:
        """Off: offsets are committed by snapshots only. What Faust has collected is forgotten."""
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return None

    async def subscribe(self, topics: Iterable[str]) -> None:
        """To all topics at once: Faust does so once its agents were started, whether or not their streams have told their topics. A
        member that joins with some of them gets partitions without the others' topics.
        """
        found = set(topics)
        while self.app.chunk_topics - found and not self.should_stop:
            await asyncio.sleep(SUBSCRIBE_POLL_S)
            found = set(await self.app.topics._update_indices())  # noqa: SLF001
        await super().subscribe(found)

    async def perform_seek(self) -> None:
        """Go to where the restored states stand."""
        positions: dict[TP, int] = await self.app.positions(self.assignment())
        await self.app.seek(positions)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self.app.sought.clear()  # the client gives all up before it joins again
        await super().on_partitions_revoked(revoked)
        await self.app.before_revocation(revoked)


def _message(tp: TP, chunk: Chunk, generation: int) -> ConsumerMessage:
    return ConsumerMessage(
        tp.topic,
        tp.partition,
        chunk.next_offset - 1,
        None,
        0,
        None,
        None,
        chunk,
        None,
        0,
        0,
        tp,
        generation_id=generation,
    )


class RawTransport(driver.Transport):  # type: ignore[misc]
    Consumer = RawConsumer


class ChunkSchema(faust.Schema):  # type: ignore[misc]
    """Passes the chunk through Faust's decoding untouched."""

    def loads_key(self, _app: Any, _message: Any, **_: Any) -> None:
        return None

    def loads_value(self, _app: Any, message: Any, **_: Any) -> Any:
        return message.value


Positions = Callable[[set[TP]], Awaitable[Mapping[TP, int]]]
Revocation = Callable[[set[TP]], Awaitable[None]]


class RawApp(faust.App):  # type: ignore[misc]
    """A Faust app over raw chunks. `positions` and `before_revocation` are the owner's, set before it starts."""

    positions: Positions
    before_revocation: Revocation
    events_per_chunk = EVENTS_PER_CHUNK

    def __init__(self, *args: Any, raw_topics: Iterable[str] = (), **kwargs: Any) -> None:
        self.raw_topics = frozenset(raw_topics)
        self.seeks: Counter[TP] = Counter()
        self.sought: dict[TP, int] = {}  # where the last seek of each went, of this assignment
        self.held_back: Callable[[], set[TP]] = set
        self.damage = Damage()
        self.chunk_topics: set[str] = set()
        super().__init__(*args, **kwargs)

    def _new_transport(self) -> RawTransport:
        return RawTransport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """None: there are no tables."""

    def chunk_topic(self, name: str) -> Any:
        """A topic whose messages are `Chunk`s: bytes when it is one of `raw_topics`, else records with their headers."""
        self.chunk_topics.add(name)
        return self.topic(name, schema=ChunkSchema())

    async def seek(self, positions: Mapping[TP, int]) -> None:
        """Read these partitions from other offsets. Chunks already under way still arrive: `Chunk.seek` tells them."""
        here = {tp: offset for tp, offset in positions.items() if tp in self.consumer.assignment()}
        if here:
            await self.consumer.seek_wait(here)
            self.seeks.update(here.keys())
            self.sought.update(here)
