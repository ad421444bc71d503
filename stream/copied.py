"""What a re-keyed topic holds, and how it is read: copies of the user's records, each told apart from its own repeats. Pure.

A copy has key, value and headers of its original, and before these a header that says where that stands and when it was
written: source partition, offset, record time, and `log`, a name of the log that it was read from (another one once the user's
topic is made anew). It lies in the partition of the event's id (copying.py).

Why the largest offset that was seen tells repeats exactly. Every writer of one source partition begins at an offset below
which everything is in the re-keyed topic (offsets are committed once copies are acknowledged), and writes in ascending order, one
batch of each target partition at a time. So whoever wrote a copy, and however writers that are cut off, revived or fenced are mixed:
before it stand, in its partition of the re-keyed topic, copies of all originals of its log and source partition that are below it and
belong there. What is not above all that was seen has therefore been seen. tests/simulation/test_rekey_simulation.py tries
it; what it rests on is that acknowledged records stay (acks=all, no unclean leader election) and that one original always
goes to the same partition (stop all workers before `rekey` or its path is changed).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.columns import I64, Copies, Origins, Records
from stream.deadletter import REASONS
from stream.original_headers import DROPPED_BYTES, ORIGIN_HEADER, REFUSED_HEADER, header_value

VERSION = 1
LOG_APPEND, REFUSED = 1, 2  # flags
ORIGIN = np.dtype([
    ("version", "u1"), ("flags", "u1"), ("partition", ">i4"), ("offset", ">i8"), ("timestamp_ms", ">i8"), ("log", ">u8"),
    ("dropped", f">u{DROPPED_BYTES}"),
])  # fmt: skip
"""The header's value; dropped: headers of the original that the copy has not."""
_PACK = struct.Struct(">BBiqqQH").pack  # the same
_NAME = ORIGIN_HEADER.encode()
_HEAD = bytes([2 * len(_NAME)]) + _NAME + bytes([2 * ORIGIN.itemsize])
"""What stands before the value, as a record carries it: the lengths are zigzag varints of one byte."""
COUNT_BYTES_MAX = 5
FOREIGN = ("foreign_record", "driftline has not written it: its first header does not say what it is a copy of")
NOT_COPIED = -1


def origin_header(place: tuple[int, int], time_ms: int, log: int, *, flags: int, dropped: int) -> bytes:
    """The header's value. place: source partition and offset."""
    most = (1 << 8 * DROPPED_BYTES) - 1
    return _PACK(VERSION, flags, *place, time_ms, log, min(dropped, most))


def read_origins(records: Records) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The header's value of each record, ORIGIN[n], and whether there is one. About .2 us a record."""
    buffer, end = records.buffer, records.value_start + np.maximum(records.value_length, 0)
    size = len(_HEAD) + ORIGIN.itemsize
    last = len(buffer) - 1
    if not records.framed or not len(records) or last < size:
        return np.zeros(len(records), ORIGIN), np.zeros(len(records), np.bool_)
    at, more = end.copy(), np.ones(len(end), np.bool_)  # behind the varint that counts the headers
    for _ in range(COUNT_BYTES_MAX):
        byte = buffer[np.minimum(at, last)]
        at += more
        more &= byte >= 0x80
    inside = (at + size <= len(buffer)) & (buffer[np.minimum(end, last)] != 0)
    head = np.frombuffer(_HEAD, np.uint8)
    found = buffer[np.minimum(at[:, None] + np.arange(size), last)]
    origins = np.ascontiguousarray(found[:, len(_HEAD) :]).view(ORIGIN)[:, 0]
    valid = inside & (found[:, : len(_HEAD)] == head).all(axis=1)
    return origins, valid & (origins["version"] == VERSION) & (origins["partition"] >= 0)


@dataclass(slots=True)
class Seen:
    """Part of a collector's state. marks: as of Copies; repeats: records that were left out."""

    marks: dict[tuple[int, int], int] = field(default_factory=dict)
    repeats: int = 0

    def take(self, copies: Copies) -> None:
        """The chunk that the copies came in is applied."""
        self.marks |= copies.marks
        self.repeats += copies.repeats

    def header(self) -> dict[str, Any]:
        """For a snapshot."""
        marks = [[log, partition, offset] for (log, partition), offset in sorted(self.marks.items())]
        return {"marks": marks, "repeats": self.repeats}

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> Seen:
        return cls({(log, partition): offset for log, partition, offset in header["marks"]}, header["repeats"])


def first_seen(
    marks: Mapping[tuple[int, int], int], log: NDArray[np.uint64], partition: I64, offset: I64
) -> tuple[NDArray[np.bool_], dict[tuple[int, int], int]]:
    """Which of n copies, in log order, are above all copies of their log and source partition before them, and the marks
    afterwards of those that occur.
    """
    fresh, after = np.zeros(len(offset), np.bool_), {}
    logs, of_log = np.unique(log, return_inverse=True)
    places, of_place = np.unique(of_log * (int(partition.max(initial=0)) + 1) + partition, return_inverse=True)
    for place in range(len(places)):
        rows = np.flatnonzero(of_place == place)
        key = (int(logs[of_log[rows[0]]]), int(partition[rows[0]]))
        highest = np.maximum.accumulate(np.concatenate([[marks.get(key, -1)], offset[rows]]))
        fresh[rows] = offset[rows] > highest[:-1]
        after[key] = int(highest[-1])
    return fresh, after


def originals(records: Records, marks: Mapping[tuple[int, int], int]) -> tuple[Records, Copies]:
    """Records of a re-keyed topic as those that they are copies of, without those that were seen: offsets stay their own, times
    are the originals', `origin` says where those stand. What is no copy is refused.
    """
    told, valid = read_origins(records)
    places = np.flatnonzero(valid)
    copies = told[places]
    log, partition, offset = (
        copies["log"].astype(np.uint64), copies["partition"].astype(np.int64), copies["offset"].astype(np.int64)
    )  # fmt: skip
    fresh, after = first_seen(marks, log, partition, offset)
    kept = ~valid
    kept[places] = fresh
    origin = Origins(np.full(len(records), NOT_COPIED, np.int64), records.offset.copy())
    origin.partition[places], origin.offset[places] = partition, offset
    time_ms = records.timestamp_ms.copy()
    time_ms[places] = copies["timestamp_ms"]
    append = np.zeros(len(records), np.bool_) if records.log_append is None else records.log_append.copy()
    append[places] = (copies["flags"] & LOG_APPEND) != 0
    refused = dict(records.refused) | dict.fromkeys(records.offset[~valid].tolist(), FOREIGN)
    for place in places[(copies["flags"] & REFUSED) != 0].tolist():
        refused[int(records.offset[place])] = _why(records, place)
    rows = np.flatnonzero(kept)
    lengths = records.value_length.copy()
    lengths[~valid] = np.maximum(lengths[~valid], 0)  # a null value would be a tombstone
    read = replace(
        records,
        offset=records.offset[rows],
        timestamp_ms=time_ms[rows],
        key_start=records.key_start[rows],
        key_length=records.key_length[rows],
        value_start=records.value_start[rows],
        value_length=lengths[rows],
        log_append=append[rows],
        refused=refused,
        origin=Origins(origin.partition[rows], origin.offset[rows]),
    )
    return read, Copies(after, len(records) - len(rows))


def _why(records: Records, place: int) -> tuple[str, str]:
    """Reason and detail of what was refused when it was copied."""
    end = int(records.value_start[place]) + max(int(records.value_length[place]), 0)
    code, _, detail = (header_value(records.buffer.data, end, REFUSED_HEADER) or b"").decode().partition("\n")
    return (code, detail) if code in REASONS else FOREIGN
