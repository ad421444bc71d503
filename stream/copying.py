"""Copies of a user's topic in a re-keyed one: which partition, what record, in which order. Pure; copier.py does it.

- Partition: of the event's id, by the rule of Kafka's own clients (kernels/murmur.py), so that a re-keyed topic lies as one that
  was keyed by id from the start. The id is read as the decoders read it. A record without a value goes by its key, which is the id
  that it retracts; what no id can be read of goes by its key too, or by its offset where it has none: it becomes a dead letter
  wherever it is. All of it is a function of the record and its place: a copy that is made again goes to the same partition.
- Record: key, value and headers as they came, behind one header of our own (copied.py). What is too large for any event, or
  was no whole batch, is copied as its beginning, with the reason of the dead letter that it will be.
- Order: by record time over all partitions of the user's topic, each read on until the others' next records are known. A partition
  that has more to catch up with than the others would else make theirs late.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import orjson

from stream.chunks import merge
from stream.columns import I64, Records
from stream.copied import LOG_APPEND, REFUSED, origin_header
from stream.kernels.murmur import partitions_of
from stream.limits import DEAD_LETTER_BYTES_MAX, EVENT_BYTES_MAX, ID_BYTES_MAX, limit
from stream.mapping import Keys
from stream.original_headers import ATTEMPT_HEADER, NONE, ORIGIN_HEADER, REFUSED_HEADER, Header, read_headers
from stream.strict_json import RefusedError, parse

COPY_BYTES_MAX = limit(
    "copy_bytes_max",
    2_000_000,
    "key and value of a record that is re-keyed; beyond it only the beginning is copied, for its dead letter",
)
STEP_EVENTS = 2_000  # copied in one step; some 20 ms
_ORDINARY = b"\0"  # a count of no headers


class Copy(NamedTuple):
    """One record of a re-keyed topic."""

    target: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]


def id_of(value: bytes, keys: Keys) -> bytes | None:
    """The text of the id at `keys`, as the decoders read it: a text, or a number as it was written; None = none. About 4 us."""
    if len(value) > EVENT_BYTES_MAX:
        return None
    try:
        found = _at(orjson.loads(value), keys)
    except orjson.JSONDecodeError:
        found = ...
    if isinstance(found, bool) or found is None or isinstance(found, dict | list):
        return None
    if not isinstance(found, str) and (
        not isinstance(found, int) or found == 0
    ):  # -0, 1.50, 10^30: as they were written
        try:
            found = _at(parse(value), keys)
        except RefusedError:
            return None
    if not isinstance(found, str | int):
        return None
    text = str(found).encode()
    return text if 0 < len(text) <= ID_BYTES_MAX else None


def _at(event: Any, keys: Keys) -> Any:
    for key in keys:
        event = event.get(key) if isinstance(event, dict) else None
    return event


def copies_of(records: Records, rows: I64, keys: Keys, partitions: int, place: tuple[int, int]) -> Iterator[Copy]:
    """Copies of these rows of one source partition, in their order. place: source partition and log."""
    found = [_Original.of(records, row) for row in rows.tolist()]
    wanted = [original.sort_key(keys) for original in found]
    targets = partitions_of(wanted, partitions)
    for original, key, target in zip(found, wanted, targets.tolist(), strict=True):
        yield original.copy(target if key else original.offset % partitions, *place)


@dataclass(frozen=True, slots=True)
class _Original:
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    dropped: int
    log_append: bool
    refused: tuple[str, str] | None

    @classmethod
    def of(cls, records: Records, row: int) -> _Original:
        data = records.buffer.data
        offset, start = int(records.offset[row]), int(records.value_start[row])
        length, key_start = int(records.value_length[row]), int(records.key_start[row])
        key_length, end = int(records.key_length[row]), start + max(length, 0)
        kept = read_headers(data, end) if records.framed else NONE
        headers = kept.kept
        if kept.attempt:
            headers = ((ATTEMPT_HEADER, b"%d" % kept.attempt), *headers)
        return cls(
            offset,
            int(records.timestamp_ms[row]),
            None if key_length < 0 else bytes(data[key_start : key_start + key_length]),
            None if length < 0 else bytes(data[start:end]),
            headers,
            kept.dropped,
            records.log_append is not None and bool(records.log_append[row]),
            records.refused.get(offset),
        )

    def sort_key(self, keys: Keys) -> bytes:
        """What the partition is chosen by; empty = there is nothing."""
        ident = None if self.value is None or self.refused else id_of(self.value, keys)
        return ident or self.key or b""

    def copy(self, target: int, partition: int, log: int) -> Copy:
        key, value, refused = self.key, self.value, self.refused
        size = len(key or b"") + len(value or b"")
        if refused is None and (len(value or b"") > EVENT_BYTES_MAX or size > COPY_BYTES_MAX):
            refused = ("too_large", f"a record of {size} bytes, more than can be copied")
        headers: tuple[Header, ...] = self.headers
        if refused is not None:
            headers = ((REFUSED_HEADER, "\n".join(refused).encode()), *headers)
            key, value = (key or b"")[:ID_BYTES_MAX] or None, (value or b"")[:DEAD_LETTER_BYTES_MAX]
        flags = LOG_APPEND * self.log_append + REFUSED * (refused is not None)
        told = origin_header((partition, self.offset), self.time_ms, log, flags=flags, dropped=self.dropped)
        return Copy(target, key, value, ((ORIGIN_HEADER, told), *headers))


@dataclass(slots=True)
class _Fetched:
    """What was read of one source partition and not copied. reached_ms: largest record time so far, of each row."""

    records: Records
    reached_ms: I64
    next: int = 0


@dataclass(slots=True)
class Waiting:
    """The partitions of one user's topic side by side. positions: next offset to copy of each, where everything below is copied
    once `copied` was told so.
    """

    positions: dict[int, int] = field(default_factory=dict)
    _fetched: dict[int, _Fetched] = field(default_factory=dict)
    _reached_ms: dict[int, int] = field(default_factory=dict)

    @property
    def empty(self) -> list[int]:
        """Partitions of which nothing waits: to be read on."""
        return [partition for partition in self.positions if partition not in self._fetched]

    @property
    def held(self) -> list[int]:
        """Partitions of which something waits for the others."""
        return list(self._fetched)

    def add(self, partition: int, parts: Sequence[Records], next_offset: int, now_ms: int) -> None:
        """What was fetched of a partition that is `empty`; times beyond `now_ms` count as now: a clock that is wrong by a year must
        not hold its partition back for one.
        """
        records = merge(parts, next_offset)
        if not len(records):
            self.positions[partition] = next_offset
            return
        reached = np.maximum.accumulate(np.minimum(records.timestamp_ms, now_ms))
        reached = np.maximum(reached, self._reached_ms.get(partition, -1))
        self._reached_ms[partition] = int(reached[-1])
        self._fetched[partition] = _Fetched(records, reached)

    def take(self, ended: Mapping[int, bool]) -> list[tuple[int, Records, I64]]:
        """The next rows in order of record time, at most STEP_EVENTS: runs of (partition, records, rows). ended: of each `empty`
        partition, whether its log has nothing more; one that has, and was not fetched yet, is waited for.
        """
        if not self._fetched or not all(ended.get(partition, False) for partition in self.empty):
            return []
        until_ms = min(int(each.reached_ms[-1]) for each in self._fetched.values())
        times, places, rows = [], [], []
        for partition, each in sorted(self._fetched.items()):
            stop = min(int(np.searchsorted(each.reached_ms, until_ms, side="right")), each.next + STEP_EVENTS)
            row = np.arange(each.next, stop)
            times.append(each.reached_ms[row])
            places.append(np.full(len(row), partition))
            rows.append(row)
        order = np.argsort(np.concatenate(times), kind="stable")[:STEP_EVENTS]
        place, row = np.concatenate(places)[order], np.concatenate(rows)[order]
        edges = np.flatnonzero(np.diff(place)) + 1
        return [
            (int(part[0]), self._fetched[int(part[0])].records, run)
            for part, run in zip(np.split(place, edges), np.split(row, edges), strict=True)
        ]

    def copied(self, runs: Sequence[tuple[int, Records, I64]]) -> None:
        """The rows of the last `take` are acknowledged."""
        for partition, records, rows in runs:
            each = self._fetched[partition]
            each.next = int(rows[-1]) + 1
            if each.next == len(records):
                self.positions[partition] = records.next_offset
                del self._fetched[partition]
            else:
                self.positions[partition] = int(records.offset[each.next])
