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
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from stream.protocol import (
    Acknowledged,
    Append,
    Bounds,
    Commit,
    Effect,
    LogIncomplete,
    LogRecord,
    LogSlice,
    ReadAt,
    ReadLog,
    ReadMetadata,
    Steps,
)
from stream.stage import Output

log = logging.getLogger(__name__)
T = TypeVar("T")

READERS_MAX = 4
READ_STALL_S = 60.0  # a reader that gets nowhere for so long gives up: never hang in a restore
COMMIT_TIMEOUT_S = 15.0
RESEND_FIRST_S = 0.1
RESEND_MAX_S = 5.0
QUEUE_BYTES_MAX = 32 << 20  # outputs waiting for the broker, per owner; beyond it the partition is held back
RECORD_BYTES_MAX = 1_048_576

Settings = Mapping[str, Any]
TopicOf = Callable[[str], str]


class GroupPort(Protocol):
    """What the group's consumer answers; the transport's consumer thread does."""

    async def commit(self, vector: Mapping[str, int], partition: int, metadata: str) -> bool: ...

    async def metadata(self, source: str, partition: int) -> str: ...

    async def bounds(self, sources: Sequence[str], partition: int) -> dict[str, tuple[int, int]]: ...


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
            enable_auto_commit=False,
            max_partition_fetch_bytes=8 << 20,
            fetch_max_wait_ms=50,
        )
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


@dataclass(slots=True)
class _Item:
    output: Output
    done: asyncio.Future[int]


class Sender:
    """Sends one owner's outputs in order. Never skips: a failed send is repeated until it is acknowledged or closed."""

    def __init__(self, producer: AIOKafkaProducer, topic_of: TopicOf, on_sent: Callable[[Output], None]) -> None:
        self._producer = producer
        self._topic_of = topic_of
        self._on_sent = on_sent
        self._queue: deque[_Item] = deque()
        self._unacknowledged: set[asyncio.Future[int]] = set()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None

    def post(self, outputs: Sequence[Output]) -> list[asyncio.Future[int]]:
        """Queue outputs; the futures tell their offsets."""
        loop = asyncio.get_running_loop()
        if self._task is None:
            self._task = loop.create_task(self._run())
        items = [_Item(output, loop.create_future()) for output in outputs]
        self._queue.extend(items)
        self._bytes += sum(_size(output) for output in outputs)
        if self._bytes > QUEUE_BYTES_MAX:
            self._room.clear()
        self._wake.set()
        return [item.done for item in items]

    async def room(self) -> None:
        """Wait until the queue is short: the partition is held back while its outputs cannot be written."""
        await self._room.wait()

    async def append(self, outputs: Sequence[Output]) -> tuple[int, ...]:
        """Offsets of `outputs`, once all are acknowledged."""
        return tuple(await asyncio.gather(*self.post(outputs)))

    async def acknowledged(self) -> None:
        """Wait for everything that was posted before."""
        waiting = [item.done for item in self._queue] + list(self._unacknowledged)
        if waiting:
            await asyncio.gather(*waiting)

    async def close(self) -> None:
        """Stop sending; what is queued is void (its owner is dead or gone)."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for done in [*(item.done for item in self._queue), *self._unacknowledged]:
            done.cancel()
        self._queue.clear()
        self._room.set()

    async def _run(self) -> None:
        while True:
            while self._queue:
                item = self._queue[0]
                if item.output.barrier and self._unacknowledged:
                    await asyncio.wait(set(self._unacknowledged))
                self._queue.popleft()
                self._unacknowledged.add(item.done)
                item.done.add_done_callback(self._unacknowledged.discard)
                await self._send(item)
            self._wake.clear()
            await self._wake.wait()

    async def _send(self, item: _Item) -> None:
        try:
            sent = await self._hand_over(item)
        except KafkaError as error:
            await self._again(item, error, RESEND_FIRST_S)
            return
        sent.add_done_callback(lambda future: self._on_reply(item, future))

    async def _hand_over(self, item: _Item) -> asyncio.Future[Any]:
        output, topic = item.output, self._topic_of(item.output.topic)
        future: asyncio.Future[Any] = await self._producer.send(
            topic, output.value, key=output.key, partition=output.partition, headers=list(output.headers)
        )
        return future

    def _on_reply(self, item: _Item, future: asyncio.Future[Any]) -> None:
        if item.done.done():
            return
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or error is not None:
            task = asyncio.ensure_future(self._again(item, error, RESEND_FIRST_S))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            return
        self._bytes -= _size(item.output)
        if self._bytes <= QUEUE_BYTES_MAX // 2:
            self._room.set()
        self._on_sent(item.output)
        item.done.set_result(future.result().offset)

    async def _again(self, item: _Item, error: BaseException | None, pause_s: float) -> None:
        """Repeat one output. A record that the broker will never take is the caller's error, not a reason to spin."""
        while not item.done.done():
            if isinstance(error, KafkaError) and not _worth_repeating(error):
                item.done.set_exception(error)
                return
            log.warning("output to %s not acknowledged (%r), again in %.1f s", item.output.topic, error, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RESEND_MAX_S)
            try:
                future = await self._hand_over(item)
                await asyncio.wait([future])
                error = None if future.cancelled() else future.exception()
                if error is None and not future.cancelled():
                    self._on_reply(item, future)
            except KafkaError as failed:
                error = failed


def _worth_repeating(error: KafkaError) -> bool:
    from aiokafka import errors

    fatal = (
        errors.MessageSizeTooLargeError,
        errors.RecordListTooLargeError,
        errors.TopicAuthorizationFailedError,
        errors.InvalidTopicError,
        errors.UnsupportedVersionError,
    )
    return not isinstance(error, fatal)


def _size(output: Output) -> int:
    return len(output.key or b"") + len(output.value or b"") + 64


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
                reply = await execute(effect)
            except Exception as error:  # noqa: BLE001  whatever it was, the generator must know
                effect = steps.throw(error)
            else:
                effect = steps.send(reply)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        steps.close()


async def open_producer(settings: Settings) -> AIOKafkaProducer:
    """The producer that all owners of a worker share. Not idempotent: a resend after a timeout would be refused."""
    producer = AIOKafkaProducer(
        **settings, acks="all", linger_ms=5, max_batch_size=256 << 10, max_request_size=RECORD_BYTES_MAX
    )
    try:
        await producer.start()
    except BaseException:
        await producer.stop()
        raise
    return producer
