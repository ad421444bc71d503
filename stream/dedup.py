"""The exact set of 96-bit prediction ids of one open pane edge.

Guarantee: an id is a duplicate if and only if the same 96 bits were added before. Memory: 12 to 15 bytes an id in
the log and 11 to 14 in the table (at most three quarters full), both grown by a quarter. The log is append-only, so that a
snapshot saves only what is new since the last one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.columns import I64, U8, U32, U64
from stream.kernels import idset
from stream.limits import limit

IDS_MIN = 32  # first allocation; an edge of sparse traffic holds few ids
GROWTH = 1.25  # an id is put into a new table four times on average; by doubling it would be once, for twice the memory
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
        self._table = np.zeros(_slots(IDS_MIN), np.uint64)

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
        first, stop = self.count, self.count + len(high)
        self._grow_log(stop)
        self.count = stop
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
            size = max(ids, int(GROWTH * len(self._high)))
            self._high, self._low = _longer(self._high, self.count, size), _longer(self._low, self.count, size)

    def _grow_table(self, ids: int, *, rebuild: bool = False) -> None:
        size = len(self._table)
        if size < _slots(ids):
            rebuild, size = True, max(_slots(ids), int(GROWTH * size))
        if rebuild:
            self._table = np.zeros(size, np.uint64)
            idset.rebuild(self._table, self._high, min(ids, self.count))


def _slots(ids: int) -> int:
    """Of a table that holds so many ids."""
    return -(-ids * 4 // 3)


def _longer(array: NDArray[Any], used: int, size: int) -> NDArray[Any]:
    longer = np.empty(size, array.dtype)
    longer[:used] = array[:used]
    return longer
