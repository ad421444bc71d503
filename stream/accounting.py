"""The accounting identity, kept as of every record: consumed = applied + dead letters + duplicates + late + tombstones.

And consumed + gap = offsets passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Protocol

import numpy as np

from stream.columns import I32, I64, Records, Reject
from stream.kernels.timeline import APPLIED, DUPLICATE, LATE, UNKNOWN
from stream.original_headers import original_headers
from stream.panes import REASON_PREFIX, Counters

NAMES = tuple(field.name for field in fields(Counters) if field.name != "reasons")


class Ledger:
    """The counters of one partition while a chunk's rejects and tombstones are merged with its rows, in log order."""

    __slots__ = ("_rejects", "_seen", "_tombstones", "_tombstones_seen", "counters")

    def __init__(self, counters: Counters | None = None) -> None:
        self.counters = counters or Counters()
        self.open((), np.empty(0, np.int64))

    def open(self, rejects: Sequence[Reject], tombstones: I64) -> None:
        """Begin a chunk: its rejects (future events included) in log order, and the offsets of its tombstones."""
        self._rejects, self._seen = rejects, 0
        self._tombstones, self._tombstones_seen = tombstones, 0

    def add_rows(self, counts: I64) -> None:
        """Count rows by status, I64[STATUSES]; FUTURE ones are counted as rejects."""
        counters = self.counters
        applied = int(counts[APPLIED] + counts[UNKNOWN])
        counters.applied += applied
        counters.unknown_model += int(counts[UNKNOWN])
        counters.late += int(counts[LATE])
        counters.duplicates += int(counts[DUPLICATE])
        counters.consumed += applied + int(counts[LATE] + counts[DUPLICATE])

    def pass_to(self, offset: int, row: int) -> Sequence[Reject]:
        """Count what stands before the event at (offset, row); the rejects among it, in order."""
        first = self._seen
        while self._seen < len(self._rejects):
            reject = self._rejects[self._seen]
            if (reject.offset, reject.row) >= (offset, row):
                break
            self._seen += 1
        passed = self._rejects[first : self._seen]
        reasons = self.counters.reasons
        for reject in passed:
            reasons[reject.code] = reasons.get(reject.code, 0) + 1
        place = int(np.searchsorted(self._tombstones, offset))
        tombstones, self._tombstones_seen = place - self._tombstones_seen, place
        self.counters.tombstones += tombstones
        self.counters.dead_letters += len(passed)
        self.counters.consumed += tombstones + len(passed)
        return passed

    def snapshot(self) -> Counters:
        """A copy."""
        return replace(self.counters, reasons=dict(self.counters.reasons))

    def as_dict(self) -> dict[str, int]:
        """The counters by name, the reasons by code, as a marker carries them."""
        reasons = {REASON_PREFIX + code: self.counters.reasons[code] for code in sorted(self.counters.reasons)}
        return {name: getattr(self.counters, name) for name in NAMES} | reasons


def counters_header(counters: Counters) -> dict[str, Any]:
    """For a snapshot."""
    return {name: getattr(counters, name) for name in NAMES} | {"reasons": dict(counters.reasons)}


class Judged(Protocol):
    """Columns of predictions or of feedback."""

    @property
    def offset(self) -> I64: ...
    @property
    def row(self) -> I32: ...
    @property
    def event_time_ms(self) -> I64: ...
    @property
    def record_time_ms(self) -> I64: ...
    @property
    def records(self) -> Records | None: ...


def future_rejects(columns: Judged, future: I64, skew_ms: int) -> list[Reject]:
    """Dead letters of the rows `future`, with their original key and value where the columns carry the records."""
    found = []
    for i in future.tolist():
        offset, time_ms, record_ms = (
            int(columns.offset[i]), int(columns.event_time_ms[i]), int(columns.record_time_ms[i])
        )  # fmt: skip
        detail = f"the event time is {time_ms - record_ms} ms after the record's own, at most {skew_ms}"
        if record_ms < 0:  # a clock that is wrong by a year would pass unseen
            detail = "the record has no time of its own that the event's could be compared with"
        where = (offset, int(columns.row[i]), "future_timestamp", detail, "")
        found.append(reject_of(columns.records, where, record_ms))
    return found


def reject_of(records: Records | None, where: tuple[int, int, str, str, str], record_ms: int) -> Reject:
    """A dead letter of the event at `where`: offset, row, reason, detail, path; with its key and value if they are at hand."""
    if records is None:
        return Reject(*where, None, None, record_ms)
    offset = where[0]
    i = int(np.searchsorted(records.offset, offset))
    parts = []
    for start, length in (
        (records.key_start[i], records.key_length[i]),
        (records.value_start[i], records.value_length[i]),
    ):
        parts.append(None if length < 0 else records.buffer[int(start) : int(start + length)].tobytes())
    append = records.log_append is not None and bool(records.log_append[i])
    return Reject(*where, parts[0], parts[1], record_ms, original_headers(records, i), append, origin_of(records, i))


def origin_of(records: Records, place: int) -> tuple[int, int] | None:
    """Partition and offset of what the record at `place` is a copy of."""
    origin = records.origin
    return None if origin is None else (int(origin.partition[place]), int(origin.offset[place]))
