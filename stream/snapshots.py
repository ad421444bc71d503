"""Executes the effects of the ownership protocol over Kafka: logs read whole, outputs sent in order, barriers, commits.

The rules are protocol.py's. Here stands only how each effect is done with aiokafka:

- a log is read by a consumer without a group and with auto_offset_reset="earliest", from an explicit offset to the end
  offset as of the start; nothing is concluded unless the position got there (aiokafka: with "latest" a reader that is
  assigned and then sought to the beginning starts at the end 93 times of 100);
- outputs of one owner go through one `Sender`: first in, first out per partition, a barrier waits for every
  acknowledgement before it, a failed send is repeated (readers drop what they have seen), never skipped;
- a commit names the group generation that the owner was made for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, errors
from aiokafka.errors import KafkaError

from stream.failpoints import reach
from stream.protocol import (
    Acknowledged,
    Append,
    Bounds,
    ClaimsLost,
    Commit,
    Effect,
    Extent,
    LogIncomplete,
    LogRecord,
    LogSlice,
    ReadAt,
    ReadLog,
    ReadMetadata,
    Restored,
    Saved,
    Steps,
)
from stream.sender import Parcel, Sender, SenderClosedError
from stream.stage import Output
from stream.topics import TopicRole

T = TypeVar("T")

READERS_MAX = 4
NO_BROKER_PAUSE_S = 0.5
METADATA_PAUSE_S = 0.1  # between two answers
REQUEST_TIMEOUT_MS = 10_000  # of a reader: a connection that has died silently is opened anew
RESTORE_STEP_S = 60.0  # any step of a restore but reading, which has READ_STALL_S
READ_STALL_S = 60.0  # a reader that gets nowhere for so long gives up: never hang in a restore
COMMIT_TIMEOUT_S = 15.0
RECORD_BYTES_MAX = 1_048_576

Settings = Mapping[str, Any]
TopicOf = Callable[[str], str]


class GroupPort(Protocol):
    """What the group's consumer answers; the transport's consumer thread does."""

    async def commit(self, vector: Mapping[str, int], partition: int, metadata: str) -> bool: ...

    async def metadata(self, source: str, partition: int) -> str: ...

    async def bounds(self, sources: Sequence[str], partition: int) -> dict[str, Extent]: ...


def patient(client: Any) -> None:
    """Keep one aiokafka client from asking for metadata without a pause: 4,000 times a second while no broker answers,
    400 times while a topic is missing that it writes to.
    """
    update = client._metadata_update  # noqa: SLF001
    asked_s = float("-inf")

    async def with_pause(cluster: Any, topics: Any) -> bool:
        nonlocal asked_s
        updated: bool = await update(cluster, topics)
        now_s = asyncio.get_running_loop().time()
        if not updated:
            await asyncio.sleep(NO_BROKER_PAUSE_S)
        elif now_s - asked_s < METADATA_PAUSE_S:
            await asyncio.sleep(METADATA_PAUSE_S)
        asked_s = asyncio.get_running_loop().time()
        return updated

    client._metadata_update = with_pause  # noqa: SLF001


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a reader saw of a log: as protocol.LogSlice, the records are aiokafka's."""

    beginning: int
    end: int
    start: int
    position: int
    records: Sequence[Any]


class LogReader:
    """Reads stretches of a log; a few consumers are kept open and lent out."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._free: list[AIOKafkaConsumer] = []
        self._places = asyncio.Semaphore(READERS_MAX)

    async def close(self) -> None:
        while self._free:
            await self._free.pop().stop()

    @contextlib.asynccontextmanager
    async def _lent(self) -> AsyncIterator[AIOKafkaConsumer]:
        async with self._places:
            consumer = self._free.pop() if self._free else await self._opened()
            try:
                yield consumer
            except BaseException:
                await asyncio.shield(consumer.stop())
                raise
            self._free.append(consumer)

    async def _opened(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            **self._settings,
            group_id=None,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            enable_auto_commit=False,
            max_partition_fetch_bytes=8 << 20,
            fetch_max_wait_ms=50,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
        patient(consumer._client)  # noqa: SLF001
        try:
            await consumer.start()
        except BaseException:
            await consumer.stop()
            raise
        return consumer

    async def read(self, topic: str, partition: int, start: int | None) -> LogSlice:
        """Every record from `start` (None = the beginning) to the end as of now. Raises LogIncomplete when it stalls."""
        stretch = await self.stretch(topic, partition, start)
        records = [LogRecord(record.offset, record.key or b"", record.value) for record in stretch.records]
        return LogSlice(stretch.beginning, stretch.end, stretch.start, stretch.position, records)

    async def stretch(self, topic: str, partition: int, start: int | None, *, tail: int | None = None) -> Stretch:
        """As `read`, with headers and times. `tail`: at most so many offsets before the end."""
        at, records = TopicPartition(topic, partition), []
        async with self._lent() as consumer:
            consumer.assign([at])
            beginning = (await consumer.beginning_offsets([at]))[at]
            end = (await consumer.end_offsets([at]))[at]
            first = beginning if start is None else max(start, beginning)
            if tail is not None:
                first = max(first, end - tail)
            position = first
            if first < end:
                consumer.seek(at, first)
            while position < end:
                try:
                    records += await asyncio.wait_for(_some(consumer, at), READ_STALL_S)
                except TimeoutError:
                    raise LogIncomplete(
                        f"{topic}-{partition}: nothing for {READ_STALL_S:.0f} s at {position}"
                    ) from None
                position = await consumer.position(at)
            if records and records[0].offset < first:
                raise LogIncomplete(f"{topic}-{partition}: asked for {first}, got {records[0].offset}")
        return Stretch(beginning, end, first, position, records)

    async def ends(self, topic: str, partitions: int) -> dict[int, int]:
        """End offsets of a topic's partitions, as a reader of committed records sees them."""
        places = [TopicPartition(topic, partition) for partition in range(partitions)]
        async with self._lent() as consumer:
            return {place.partition: end for place, end in (await consumer.end_offsets(places)).items()}

    async def read_at(self, topic: str, partition: int, offsets: Sequence[int]) -> tuple[bytes | None, ...]:
        """Values at these offsets; None where compaction has removed one."""
        at, found = TopicPartition(topic, partition), {}
        async with self._lent() as consumer:
            consumer.assign([at])
            beginning = (await consumer.beginning_offsets([at]))[at]
            for offset in sorted(set(offsets)):
                if offset in found or offset < beginning:
                    continue
                consumer.seek(at, offset)
                for record in await asyncio.wait_for(_some(consumer, at), READ_STALL_S):
                    found[record.offset] = record.value
        return tuple(found.get(offset) for offset in offsets)


async def _some(consumer: AIOKafkaConsumer, at: TopicPartition) -> list[Any]:
    """The next records, or none when the position moved without any (tombstoned stretches, control records)."""
    before = await consumer.position(at)
    while True:
        found = await consumer.getmany(at, timeout_ms=200)
        if found or await consumer.position(at) != before:
            return list(found.get(at, ()))


class Executor:
    """Executes the effects of one owner."""

    def __init__(self, reader: LogReader, sender: Sender, group: GroupPort, topic_of: TopicOf) -> None:
        self._reader = reader
        self._sender = sender
        self._group = group
        self._topic_of = topic_of

    async def execute(self, effect: Effect) -> Any:
        """The effect's reply."""
        match effect:
            case ReadMetadata(sources=sources, partition=partition):
                return await self._group.metadata(sources[0], partition)
            case ReadLog(topic=topic, partition=partition, start=start):
                return await self._reader.read(self._topic_of(topic), partition, start)
            case ReadAt(topic=topic, partition=partition, offsets=offsets):
                return await self._reader.read_at(self._topic_of(topic), partition, offsets)
            case Bounds(sources=sources, partition=partition):
                return await self._group.bounds(sources, partition)
            case Append(outputs=outputs):
                return await self._sender.append(outputs)
            case Acknowledged():
                return await self._sender.acknowledged()
            case Commit(vector=vector, partition=partition, metadata=metadata):
                return await asyncio.wait_for(self._group.commit(vector, partition, metadata), COMMIT_TIMEOUT_S)
        raise TypeError(f"unknown effect {effect!r}")


async def drive(steps: Steps[T], execute: Callable[[Effect], Awaitable[Any]]) -> T:
    """Run an ownership generator to its end. A failed effect is thrown into it, which ends its owner."""
    reply: Any = None
    try:
        effect = next(steps)
        while True:
            try:
                reach(f"before:{effect.step}")
                reply = await execute(effect)
                reach(f"after:{effect.step}")
            except Exception as error:  # noqa: BLE001  whatever it was, the generator must know
                effect = steps.throw(error)
            else:
                effect = steps.send(reply)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        steps.close()


def worth_repeating(error: BaseException) -> bool:
    """Whether the broker may take the same record later. Anything but Kafka's errors is a fault of the program."""
    fatal = (
        errors.MessageSizeTooLargeError,
        errors.RecordListTooLargeError,
        errors.TopicAuthorizationFailedError,
        errors.InvalidTopicError,
        errors.UnsupportedVersionError,
    )
    return isinstance(error, KafkaError) and not isinstance(error, fatal)


def to_be_mended(topic: str, error: BaseException) -> bool:
    """Whether an operator can make the broker take it: a dead letter, which fits any sane topic, waits for that."""
    return topic == TopicRole.DEAD_LETTERS and isinstance(error, KafkaError)


def is_transient(error: BaseException) -> bool:
    """Whether a restore that failed so may succeed later: the broker, the network, another claimer; not the program."""
    return isinstance(error, KafkaError | OSError | TimeoutError | LogIncomplete | ClaimsLost | SenderClosedError)


def sender_of(producer: AIOKafkaProducer, topic_of: TopicOf, on_sent: Callable[[Output], None]) -> Sender:
    """A sender over the shared producer."""

    async def hand_over(parcel: Parcel) -> asyncio.Future[Any]:
        output = parcel[0]
        if len(parcel) > 1:
            return await hand_over_batch(parcel)
        future: asyncio.Future[Any] = await producer.send(
            topic_of(output.topic),
            output.value,
            key=output.key,
            partition=output.partition,
            headers=list(output.headers),
        )
        return future

    async def hand_over_batch(parcel: Parcel) -> asyncio.Future[Any]:
        """One record batch: its records stand in the log side by side."""
        batch = producer.create_batch()
        for output in parcel:
            added = batch.append(timestamp=None, key=output.key, value=output.value, headers=list(output.headers))
            if added is None:
                raise ValueError(f"a parcel of {len(parcel)} outputs does not fit a batch")
        batch.close()
        place = parcel[0].partition
        future: asyncio.Future[Any] = await producer.send_batch(batch, topic_of(parcel[0].topic), partition=place)
        return future

    return Sender(hand_over, worth_repeating, on_sent, to_be_mended)


async def first_values(settings: Settings, topic: str, records_max: int) -> AsyncGenerator[list[bytes], None]:
    """Values from the beginning of all partitions, in batches; an empty one for each half second without any."""
    consumer = AIOKafkaConsumer(
        topic, **settings, group_id=None, auto_offset_reset="earliest", isolation_level="read_committed"
    )
    seen = 0
    try:
        await consumer.start()
        while seen < records_max:
            batches = (await consumer.getmany(timeout_ms=500)).values()
            values = [record.value for batch in batches for record in batch if record.value]
            seen += len(values)
            yield values
    finally:
        await consumer.stop()


async def open_producer(settings: Settings) -> AIOKafkaProducer:
    """The producer that all owners of a worker share. Not idempotent: a resend after a timeout would be refused."""
    producer = AIOKafkaProducer(
        **settings, acks="all", linger_ms=0, max_batch_size=256 << 10, max_request_size=RECORD_BYTES_MAX
    )
    patient(producer.client)
    try:
        await producer.start()
    except BaseException:
        await producer.stop()
        raise
    return producer


class Lane:
    """One owner's way to Kafka: assignment.Lane."""

    def __init__(self, sender: Sender, executor: Executor) -> None:
        self._sender = sender
        self._executor = executor

    async def drive_restore(self, steps: Steps[Restored]) -> Restored:
        """Raises TimeoutError where a step gets nowhere: a topic may have gone, and nobody would ever answer."""

        async def bounded(effect: Effect) -> Any:
            limit_s = None if isinstance(effect, ReadLog) else RESTORE_STEP_S
            return await asyncio.wait_for(self._executor.execute(effect), limit_s)

        return await drive(steps, bounded)

    async def drive_snapshot(self, steps: Steps[Saved | None]) -> Saved | None:
        return await drive(steps, self._executor.execute)

    def post(self, outputs: Sequence[Output]) -> None:
        self._sender.post(outputs)

    async def room(self) -> None:
        await self._sender.room()

    @property
    def blocked(self) -> bool:
        return self._sender.blocked

    async def close(self) -> None:
        await self._sender.close()
