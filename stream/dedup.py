"""The exact set of 96-bit prediction ids of one open pane edge.

Guarantee: an id is a duplicate if and only if the same 96 bits were added before. Memory: 12 bytes an id in the log and 8 to
32 bytes in the table (at most half full), both grown by doubling. The log is append-only, so that a snapshot saves only what
is new since the last one.
"""

from __future__ import annotations

import numpy as np

from stream.columns import I64, U8, U32, U64
from stream.kernels import idset
from stream.limits import limit

IDS_MIN = 32  # first allocation; an edge of sparse traffic holds few ids
IDS_PER_EDGE_MAX = limit(
    "ids_per_edge_max", 1 << 31, "places in the id table have 32 bits; 35M events a second for a minute"
)


class IdSet:
    """Ids in order of arrival, and the table that finds them."""

    __slots__ = ("_high", "_low", "_table", "count", "saved")

    def __init__(self) -> None:
        self.count = 0
        self.saved = 0  # ids that earlier snapshots hold
        self._high = np.empty(IDS_MIN, np.uint64)
        self._low = np.empty(IDS_MIN, np.uint32)
        self._table = np.zeros(2 * IDS_MIN, np.uint64)

    def add(self, rows: I64, high: U64, low: U32, status: U8, duplicate: int) -> None:
        """Add the ids of `rows` in order; status[row] = `duplicate` where the id is known. Raises OverflowError."""
        self._reserve(self.count + len(rows))
        log = (self._high, self._low)
        self.count = int(idset.insert(rows, high, low, self._table, *log, self.count, status, duplicate))

    def ids(self, first: int = 0) -> tuple[U64, U32]:
        """The ids from place `first` on, in order of arrival (views)."""
        return self._high[first : self.count], self._low[first : self.count]

    def extend(self, high: U64, low: U32) -> None:
        """Append ids that a snapshot held: distinct, and known to be saved."""
        first, self.count = self.count, self.count + len(high)
        self._grow_log(self.count)
        self._high[first : self.count] = high
        self._low[first : self.count] = low
        self._grow_table(self.count, rebuild=True)
        self.saved = self.count

    @property
    def nbytes(self) -> int:
        return self._high.nbytes + self._low.nbytes + self._table.nbytes

    def _reserve(self, ids: int) -> None:
        if ids > IDS_PER_EDGE_MAX:
            raise OverflowError(f"{ids} ids in one pane edge, at most {IDS_PER_EDGE_MAX}: choose a finer resolution")
        self._grow_log(ids)
        self._grow_table(ids)

    def _grow_log(self, ids: int) -> None:
        if ids > len(self._high):
            size = max(ids, 2 * len(self._high))
            self._high = np.concatenate([self._high, np.empty(size - len(self._high), np.uint64)])
            self._low = np.concatenate([self._low, np.empty(size - len(self._low), np.uint32)])

    def _grow_table(self, ids: int, *, rebuild: bool = False) -> None:
        size = len(self._table)
        while size < 2 * ids:
            size *= 2
        if rebuild or size > len(self._table):
            self._table = np.zeros(size, np.uint64)
            idset.rebuild(self._table, self._high, min(ids, self.count))
