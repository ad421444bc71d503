"""Kafka's record framing: an uncompressed v2 record-batch body to Records. No Python object per record.

A body is a sequence of records: varint length, attributes, varint timestamp delta, varint offset delta, key, value (varint
length and bytes, -1 = null), headers (skipped: original_headers.py). Varints are zigzag. Every
varint and length is checked against the record's and the body's end before it is used; about .03 us a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.columns import I64, U8, Records
from stream.kernels.jit import kernel

RECORD_BYTES_MIN = 7  # one byte each: length, attributes, two deltas, two lengths, headers

_FAULTS = {
    -1: "a varint runs past the record",
    -2: "a varint is longer than ten bytes",
    -3: "a record runs past the batch",
    -4: "a key or value runs past its record",
    -5: "a length is below -1",
    -6: "offsets do not increase",
    -7: "bytes are left after the last record",
}
PLACE = 1 << 40  # a fault is returned as code * PLACE - position


class FramingError(ValueError):
    """A malformed record batch. `fault` says what, `position` where in the body."""

    def __init__(self, fault: str, position: int) -> None:
        super().__init__(f"malformed record batch: {fault} at byte {position}")
        self.fault, self.position = fault, position


@kernel
def read_varint(buffer: U8, position: int, end: int) -> tuple[Any, Any]:
    """(value, next position) of a zigzag varint; a next position below 0 is a fault."""
    raw = np.uint64(0)
    shift = np.uint64(0)
    while position < end:
        byte = buffer[np.uint64(position)]
        position += 1
        raw |= np.uint64(byte & 0x7F) << shift
        if byte < 0x80:
            return np.int64(raw >> np.uint64(1)) ^ -np.int64(raw & np.uint64(1)), position
        shift += np.uint64(7)
        if shift > 63:
            return 0, -2
    return 0, -1


@kernel
def frame_records(buffer: U8, count: int, base_offset: int, first_timestamp_ms: int, out: I64) -> Any:
    """Fill out[0:6]: offset, timestamp, key start and length, value start and length. 0, or a fault at a position."""
    position = 0
    end = len(buffer)
    last_delta = -1
    for record in range(count):
        start = position
        length, position = read_varint(buffer, position, end)
        if position < 0:
            return position * PLACE - start
        if length < 0 or length > end - position:
            return -3 * PLACE - start
        stop = position + length
        timestamp_delta, position = read_varint(buffer, position + 1, stop)  # one byte of attributes is skipped
        if position < 0:
            return position * PLACE - start
        offset_delta, position = read_varint(buffer, position, stop)
        if position < 0:
            return position * PLACE - start
        if offset_delta <= last_delta:
            return -6 * PLACE - start
        last_delta = offset_delta
        out[0, record] = base_offset + offset_delta
        out[1, record] = first_timestamp_ms + timestamp_delta
        for field in range(2, 6, 2):
            size, position = read_varint(buffer, position, stop)
            if position < 0:
                return position * PLACE - start
            if size < -1:
                return -5 * PLACE - start
            if size > stop - position:
                return -4 * PLACE - start
            out[field, record] = position
            out[field + 1, record] = size
            position += max(size, 0)
        if position >= stop:  # the count of headers is missing
            return -1 * PLACE - start
        position = stop
    return 0 if position == end else -7 * PLACE - position


def read_only(buffer: U8) -> U8:
    """A view that nobody can write through: one type for the kernels, which are compiled once per type of argument."""
    view = buffer.view()
    view.flags.writeable = False
    return view


def frame(
    payload: bytes | memoryview,
    *,
    base_offset: int,
    count: int,
    first_timestamp_ms: int,
    max_timestamp_ms: int,
    log_append: bool,
    start_offset: int,
    next_offset: int | None = None,
) -> Records:
    """Records of one batch body; those below `start_offset` are dropped (a seek can land inside a batch).

    `next_offset`: the position after the batch where it is known from the header (compaction may have removed the last
    records); default: after the last record. Raises FramingError.
    """
    buffer = read_only(np.frombuffer(payload, np.uint8))
    if count < 0 or count * RECORD_BYTES_MIN > len(buffer):
        raise FramingError(f"{count} records cannot fit into {len(buffer)} bytes", 0)
    out = np.empty((6, count), np.int64)
    fault = frame_records(buffer, count, base_offset, first_timestamp_ms, out)
    if fault < 0:
        code = -(-fault // PLACE)
        raise FramingError(_FAULTS[code], code * PLACE - fault)
    if log_append:
        out[1] = max_timestamp_ms
    after = base_offset if count == 0 else int(out[0, -1]) + 1
    out = out[:, np.searchsorted(out[0], start_offset) :]
    append = np.broadcast_to(np.bool_(log_append), out.shape[1])  # no memory: every record of a batch is alike
    return _records(buffer, out, max(start_offset, after if next_offset is None else next_offset), append)


def _records(buffer: U8, out: I64, next_offset: int, log_append: NDArray[np.bool_] | None = None) -> Records:
    framed = log_append is not None
    return Records(buffer, out[0], out[1], out[2], out[3], out[4], out[5], next_offset, framed, log_append)


def records_from_lines(lines: Sequence[bytes], first_offset: int = 0, timestamp_ms: Sequence[int] | int = 0) -> Records:
    """Values without keys as Records, one offset each: replay and tests."""
    count = len(lines)
    length = np.fromiter(map(len, lines), np.int64, count)
    out = np.empty((6, count), np.int64)
    out[0] = np.arange(first_offset, first_offset + count)
    out[1] = timestamp_ms
    out[2], out[3] = 0, -1
    out[4], out[5] = np.cumsum(length) - length, length
    return _records(np.frombuffer(b"".join(lines), np.uint8), out, first_offset + count)


def join_records(parts: Sequence[Records]) -> Records:
    """Consecutive chunks of one log as one (small batches are decoded together): copies the bytes once.

    `parts` is not empty. Raises ValueError where offsets do not increase.
    """
    if len(parts) == 1:
        return parts[0]
    sizes = np.array([len(part.buffer) for part in parts], np.int64)
    shift = np.repeat(np.cumsum(sizes) - sizes, [len(part) for part in parts])
    offset = np.concatenate([part.offset for part in parts])
    if np.any(np.diff(offset) <= 0):
        raise ValueError("chunks are not in log order")
    return Records(
        buffer=np.concatenate([part.buffer for part in parts]),
        offset=offset,
        timestamp_ms=np.concatenate([part.timestamp_ms for part in parts]),
        key_start=np.concatenate([part.key_start for part in parts]) + shift,
        key_length=np.concatenate([part.key_length for part in parts]),
        value_start=np.concatenate([part.value_start for part in parts]) + shift,
        value_length=np.concatenate([part.value_length for part in parts]),
        next_offset=parts[-1].next_offset,
        framed=all(part.framed for part in parts),
        log_append=join_log_append(parts),
    )


def join_log_append(parts: Sequence[Records]) -> NDArray[np.bool_] | None:
    """Column `log_append` of the parts as one."""
    if all(part.log_append is None for part in parts):
        return None
    return np.concatenate(
        [np.zeros(len(part), np.bool_) if part.log_append is None else part.log_append for part in parts]
    )
