"""Record batches as the broker sends them: a message set's bytes become batches, a chunk of them becomes `Records`.

No Python object per record exists on this path. Source: Kafka's record batch format v2 (KIP-98); a set with an older
format is not read here, the transport hands it to the client's own reader and its records come in as `Plain`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from crc32c import crc32c

from stream.columns import I64, Records
from stream.kernels.framing import frame, join_log_append
from stream.original_headers import frame_headers
from stream.unpack import BATCH_BYTES_MAX, HEAD_BYTES, DamagedError, TooLargeError, Unpack

Buffer = bytes | memoryview

# baseOffset batchLength leaderEpoch magic crc attributes lastOffsetDelta firstTimestamp maxTimestamp producerId
# producerEpoch baseSequence count
HEADER = struct.Struct(">qiibIhiqqqhii")
LOG_OVERHEAD = 12  # baseOffset and batchLength, which batchLength does not count
CRC_START = 21  # the checksum covers everything from the attributes on
MAGIC_OFFSET = 16
MAGIC = 2
CODEC_MASK = 0x07
LOG_APPEND_TIME = 0x08
CONTROL = 0x20


class CorruptBatchError(ValueError):
    """A batch whose checksum, structure or compression is wrong; the transport fetches it again.

    next_offset   where the log goes on behind it; 0 = that cannot be known
    head          its first bytes, as they came
    """

    def __init__(self, message: str, base_offset: int, next_offset: int = 0, data: Buffer = b"") -> None:
        super().__init__(f"batch at offset {base_offset}: {message}")
        self.base_offset, self.next_offset = base_offset, next_offset
        self.head = bytes(data[:HEAD_BYTES])


@dataclass(frozen=True, slots=True)
class RawBatch:
    """One record batch, decompressed, undecoded.

    `start_offset` is the position before it: records below it were asked for by nobody (a seek can land inside a batch).
    A control batch, or a stretch that holds nothing for the reader, has count 0 and only moves the position.
    """

    payload: Buffer
    base_offset: int
    next_offset: int
    count: int
    first_timestamp_ms: int
    max_timestamp_ms: int
    log_append: bool
    start_offset: int

    @property
    def offset(self) -> int:
        """Offset of the last record, as the client's own record objects name it."""
        return self.next_offset - 1


@dataclass(frozen=True, slots=True)
class Plain:
    """One record that the client's own reader made: topics read record by record, old formats, aborted transactions."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    start_offset: int
    next_offset: int
    log_append: bool = False
    refused: tuple[str, str] | None = None

    count = 1


Piece = RawBatch | Plain


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of one partition's log without a hole: positions [first_offset, next_offset). One message of the engine."""

    topic: str
    partition: int
    pieces: tuple[Piece, ...]
    seek: int  # how many seeks of the partition had finished when this was asked for

    @property
    def first_offset(self) -> int:
        return self.pieces[0].start_offset

    @property
    def next_offset(self) -> int:
        return self.pieces[-1].next_offset

    @property
    def count(self) -> int:
        return sum(piece.count for piece in self.pieces)


Decompress = Mapping[int, Unpack]


def is_current_format(message_set: Buffer) -> bool:
    """Whether every complete batch of the set has format v2; the others go through the client's own reader."""
    view, position = memoryview(message_set), 0
    while len(view) - position > MAGIC_OFFSET:
        if view[position + MAGIC_OFFSET] != MAGIC:
            return False
        position += LOG_OVERHEAD + int.from_bytes(view[position + 8 : position + 12], "big")
    return True


def read_batches(message_set: Buffer, position: int, decompress: Decompress, *, check_crc: bool) -> Iterator[Piece]:
    """Every complete batch of a v2 message set, from `position` on. A last batch that the fetch cut short is left out.

    A batch that unpacks to more than batch_bytes_max is one refused record. Raises CorruptBatchError. Cost: a checksum
    (23 GB/s) and the decompression.
    """
    view, at = memoryview(message_set), 0
    while len(view) - at >= HEADER.size:
        base, length, _, _, crc, attributes, last_delta, first, latest, _, _, _, count = HEADER.unpack_from(view, at)
        end = at + LOG_OVERHEAD + length
        if length < HEADER.size - LOG_OVERHEAD or count < 0 or last_delta < 0:
            raise CorruptBatchError(f"length {length}, count {count}, last delta {last_delta}", base)
        if end > len(view):
            return
        if check_crc and crc32c(view[at + CRC_START : end]) != crc:
            following = _goes_on_at(view[end:], base) or (base + count if count == last_delta + 1 else 0)
            raise CorruptBatchError("wrong checksum", base, following, view[at:end])
        body, next_offset = view[at + HEADER.size : end], base + last_delta + 1
        at = end
        if next_offset <= position:
            continue
        if attributes & CONTROL or count == 0:
            yield hole(position, next_offset)
        else:
            codec = attributes & CODEC_MASK
            append = bool(attributes & LOG_APPEND_TIME)
            try:
                payload: Buffer = decompress[codec](bytes(body), BATCH_BYTES_MAX) if codec else body
            except TooLargeError as error:
                why = f"a batch of {count} records and {len(body)} bytes {error}"
                yield refused_batch(position, (base, next_offset, latest), error.head, ("too_large", why))
            except KeyError:
                raise CorruptBatchError(f"unknown compression {codec}", base, next_offset, body) from None
            except DamagedError as error:
                raise CorruptBatchError(str(error), base, next_offset, body) from None
            else:
                yield RawBatch(payload, base, next_offset, count, first, latest, append, position)
        position = next_offset


def _goes_on_at(view: memoryview, base_offset: int) -> int:
    """Where the whole batch at the beginning of `view` stands, behind one at `base_offset` that says nothing to be believed; 0 =
    there is none.
    """
    if len(view) < HEADER.size:
        return 0
    base, length, _, _, crc, *_ = HEADER.unpack_from(view)
    end = LOG_OVERHEAD + length
    whole = HEADER.size <= end <= len(view) and crc32c(view[CRC_START:end]) == crc
    return base if whole and base > base_offset else 0


def hole(position: int, next_offset: int) -> RawBatch:
    """A stretch that holds nothing for the reader."""
    return RawBatch(b"", next_offset, next_offset, 0, 0, 0, False, position)


def refused_batch(start: int, batch: tuple[int, int, int], head: bytes, refused: tuple[str, str]) -> Plain:
    """The one dead letter of a batch that was not opened. batch: its first offset, the next batch's, its time in ms;
    refused: reason and detail; start: the position before it.
    """
    base_offset, next_offset, timestamp_ms = batch
    reason, detail = refused
    first = max(base_offset, start)  # what stands before the position was counted once
    detail = f"{detail}; offsets {first} to {next_offset - 1}"
    return Plain(first, timestamp_ms, None, head, (), start, next_offset, refused=(reason, detail))


def chunks(topic: str, partition: int, pieces: Sequence[Piece], events_max: int, seek: int) -> Iterator[Chunk]:
    """The pieces of one fetch as chunks of at most `events_max` records (more only where one batch alone has more)."""
    group: list[Piece] = []
    count = 0
    for piece in pieces:
        if group and count + piece.count > events_max:
            yield Chunk(topic, partition, tuple(group), seek)
            group, count = [], 0
        group.append(piece)
        count += piece.count
    if group:
        yield Chunk(topic, partition, tuple(group), seek)


def records_of(chunk: Chunk, position: int) -> Records:
    """The chunk's records at or above `position`, in log order. Releases the GIL while framing."""
    parts: list[Records] = []
    run: list[Plain] = []
    for piece in chunk.pieces:
        if piece.next_offset <= position:
            continue
        if isinstance(piece, Plain):
            run.append(piece)
            continue
        if run:
            parts.append(from_plain(run))
            run = []
        if piece.count:
            parts.append(
                frame(
                    piece.payload,
                    base_offset=piece.base_offset,
                    count=piece.count,
                    first_timestamp_ms=piece.first_timestamp_ms,
                    max_timestamp_ms=piece.max_timestamp_ms,
                    log_append=piece.log_append,
                    start_offset=max(piece.start_offset, position),
                    next_offset=piece.next_offset,
                )
            )
    if run:
        parts.append(from_plain(run))
    return merge(parts, chunk.next_offset)


def from_plain(run: Sequence[Plain]) -> Records:
    """Record objects as `Records`: keys, values and headers joined into one buffer."""
    n = len(run)
    parts = [x for record in run for x in (record.key or b"", record.value or b"", frame_headers(record.headers))]
    sizes = np.fromiter(map(len, parts), np.int64, 3 * n)
    starts = np.cumsum(sizes) - sizes
    is_null = np.fromiter((x is None for record in run for x in (record.key, record.value, b"")), np.bool_, 3 * n)
    lengths = np.where(is_null, -1, sizes)
    return Records(
        buffer=np.frombuffer(b"".join(parts), np.uint8),
        offset=np.fromiter((record.offset for record in run), np.int64, n),
        timestamp_ms=np.fromiter((record.timestamp_ms for record in run), np.int64, n),
        key_start=starts[0::3],
        key_length=lengths[0::3],
        value_start=starts[1::3],
        value_length=lengths[1::3],
        next_offset=run[-1].next_offset,
        framed=True,
        log_append=np.fromiter((record.log_append for record in run), np.bool_, n),
        refused={record.offset: record.refused for record in run if record.refused is not None},
    )


def merge(parts: Sequence[Records], next_offset: int) -> Records:
    """Consecutive stretches as one, with one buffer. Cost: one copy of the bytes when there are several parts."""
    if len(parts) == 1:
        only = parts[0]
        places = (only.offset, only.timestamp_ms, only.key_start, only.key_length, only.value_start, only.value_length)
        return Records(only.buffer, *places, next_offset, only.framed, only.log_append, only.refused)
    if not parts:
        none: I64 = np.empty(0, np.int64)
        return Records(np.empty(0, np.uint8), none, none, none, none, none, none, next_offset)
    shifts = np.cumsum([0] + [len(part.buffer) for part in parts[:-1]])
    shifted = [(part.key_start + by, part.value_start + by) for part, by in zip(parts, shifts, strict=True)]
    return Records(
        buffer=np.concatenate([part.buffer for part in parts]),
        offset=np.concatenate([part.offset for part in parts]),
        timestamp_ms=np.concatenate([part.timestamp_ms for part in parts]),
        key_start=np.concatenate([key for key, _ in shifted]),
        key_length=np.concatenate([part.key_length for part in parts]),
        value_start=np.concatenate([value for _, value in shifted]),
        value_length=np.concatenate([part.value_length for part in parts]),
        next_offset=next_offset,
        framed=all(part.framed for part in parts),
        log_append=join_log_append(parts),
        refused={offset: why for part in parts for offset, why in part.refused.items()},
    )


def split(records: Records, events_max: int) -> Iterator[Records]:
    """At most `events_max` records a time, so that a step stays short whatever the producer batches."""
    n = len(records)
    for start in range(0, max(n, 1), events_max):
        stop = min(start + events_max, n)
        yield Records(
            buffer=records.buffer,
            offset=records.offset[start:stop],
            timestamp_ms=records.timestamp_ms[start:stop],
            key_start=records.key_start[start:stop],
            key_length=records.key_length[start:stop],
            value_start=records.value_start[start:stop],
            value_length=records.value_length[start:stop],
            next_offset=records.next_offset if stop == n else int(records.offset[stop]),
            framed=records.framed,
            log_append=None if records.log_append is None else records.log_append[start:stop],
            refused=records.refused,
        )
