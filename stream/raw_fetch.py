"""Fetched record batches as the bytes they came in: what stands for aiokafka's reading of a fetch response.

`install_raw_fetch` puts it into one fetcher. Contract tests in tests/integration/test_transport_hooks.py fail when an upgrade of
aiokafka moves what it holds on to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any

import aiokafka.consumer.fetcher as aiokafka_fetcher
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.memory_records import MemoryRecords

from stream import chunks
from stream.chunks import Piece, Plain, RawBatch
from stream.damage import Damage
from stream.unpack import BATCH_BYTES_MAX, UNPACK, UNPACKED_BYTES_MAX

LOG_APPEND_TIME = 1  # a record's timestamp type
NO_TIME_MS = -1


class MessageSet:
    """The message set of one partition in one fetch response, as it came."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def has_next(self) -> bool:
        size = len(self.data)
        return size >= chunks.MAGIC_OFFSET + 1 and size >= chunks.LOG_OVERHEAD + int.from_bytes(self.data[8:12], "big")

    def size_in_bytes(self) -> int:
        return len(self.data)


class RawPartitionRecords:
    """Stands for aiokafka's PartitionRecords: iterates over pieces, keeps `next_fetch_offset` as the fetcher expects."""

    def __init__(
        self, rules: tuple[bool, Damage], tp: Any, records: MessageSet, aborted: Any, position: int, *rest: Any
    ) -> None:
        """`rules`: whether the topic's batches stay bytes, and who is told of damage; the rest is aiokafka's."""
        _, _, check_crc, isolation = rest
        raw, self._damage = rules
        self.next_fetch_offset = position
        if raw and not aborted and chunks.is_current_format(records.data):
            self._pieces = self._raw(tp, records.data, check_crc)
        else:
            reader = aiokafka_fetcher.PartitionRecords(
                tp, MemoryRecords(records.data), aborted, position, None, None, check_crc, isolation
            )
            self._pieces = self._plain(tp, reader)

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        piece = next(self._pieces)
        self.next_fetch_offset = piece.next_offset
        return piece

    def _raw(self, tp: Any, data: bytes, check_crc: bool) -> Iterator[Piece]:
        """Ends at a batch that cannot be opened, with the position before it, and behind UNPACKED_BYTES_MAX: the fetcher asks
        for the rest again.
        """
        unpacked = 0
        try:
            for piece in chunks.read_batches(data, self.next_fetch_offset, UNPACK, check_crc=check_crc):
                yield piece
                unpacked += len(piece.payload) if isinstance(piece, RawBatch) else BATCH_BYTES_MAX
                if unpacked > UNPACKED_BYTES_MAX:
                    return
        except chunks.CorruptBatchError as error:
            position, following = self.next_fetch_offset, error.next_offset
            give_up = self._damage.note((tp.topic, tp.partition), error.base_offset, error, time.monotonic())
            if give_up and following > position:
                batch = (error.base_offset, following, NO_TIME_MS)
                yield chunks.refused_batch(position, batch, error.head, ("damaged_batch", str(error)))

    def _plain(self, tp: Any, reader: Any) -> Iterator[Piece]:
        try:
            yield from self._records(reader)
        except (CorruptRecordException, UnsupportedCodecError, ValueError) as error:
            self._damage.note((tp.topic, tp.partition), self.next_fetch_offset, error, time.monotonic())

    def _records(self, reader: Any) -> Iterator[Piece]:
        position = reader.next_fetch_offset
        for record in reader:
            append = record.timestamp_type == LOG_APPEND_TIME
            following = reader.next_fetch_offset
            at, key, value = record.timestamp, record.key, record.value
            yield Plain(record.offset, at, key, value, tuple(record.headers), position, following, append)
            position = following
        if reader.next_fetch_offset > position:  # control batches, aborted ones, what compaction took
            yield chunks.hole(position, reader.next_fetch_offset)


def install_raw_fetch(fetcher: Any, raw_topics: frozenset[str], damage: Damage) -> None:
    """Make one aiokafka fetcher deliver pieces: its response handler, with two names of its module bound to ours.

    Nothing outside this instance changes. Raises RuntimeError when the handler no longer uses those names.
    """
    handler = type(fetcher)._proc_fetch_request  # noqa: SLF001
    needed = {"MemoryRecords", "PartitionRecords"}
    if not needed <= set(handler.__code__.co_names) or handler.__code__.co_freevars:
        raise RuntimeError("this aiokafka reads fetch responses in another way; driftline needs aiokafka 0.14")

    def partition_records(tp: Any, *rest: Any) -> RawPartitionRecords:
        return RawPartitionRecords((tp.topic in raw_topics, damage), tp, *rest)

    names = vars(aiokafka_fetcher) | {"MemoryRecords": MessageSet, "PartitionRecords": partition_records}
    rebound = FunctionType(handler.__code__, names, handler.__name__, handler.__defaults__)
    fetcher._proc_fetch_request = MethodType(rebound, fetcher)  # noqa: SLF001
