"""What a series remembers of its last judged windows: when each began, its events, and how far each target was from its reference.

A ring: one more window writes one row, as there are 256 of them and one is added at every close. Who asks gets them in order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream.columns import F64, I64

F32 = NDArray[np.float32]

HISTORY_WINDOWS = 256  # an older excursion has "at least" so many events


class History:
    """The last HISTORY_WINDOWS windows of t targets. Memory: 1 kB a target."""

    def __init__(self, targets: int) -> None:
        self._starts: I64 = np.empty(HISTORY_WINDOWS, np.int64)
        self._events: I64 = np.empty(HISTORY_WINDOWS, np.int64)
        self._shifts: F32 = np.empty((HISTORY_WINDOWS, targets), np.float32)  # only compared with each other
        self._added = 0

    def add(self, start_ms: int, events: int, shifts: F64) -> None:
        """One more window; shifts F64[t]."""
        place = self._added % HISTORY_WINDOWS
        self._starts[place], self._events[place], self._shifts[place] = start_ms, events, shifts
        self._added += 1

    def load(self, starts: I64, events: I64, shifts: NDArray[np.floating]) -> None:
        """Become n <= HISTORY_WINDOWS windows, in order: I64[n], I64[n], [n, t] of any precision."""
        self._added = count = len(starts)
        self._starts[:count], self._events[:count], self._shifts[:count] = starts, events, shifts

    @property
    def _order(self) -> I64:
        """Places of all windows that are kept, the oldest first."""
        first = max(self._added - HISTORY_WINDOWS, 0)
        return np.arange(first, self._added) % HISTORY_WINDOWS

    @property
    def starts(self) -> I64:
        """I64[n], ms, ascending. A copy, as the others are."""
        return self._starts[self._order]

    @property
    def events(self) -> I64:
        """I64[n]."""
        return self._events[self._order]

    @property
    def shifts(self) -> F32:
        """F32[n, t]."""
        return self._shifts[self._order]

    def shifts_of(self, target: int) -> F64:
        """F64[n] of one target."""
        found: F64 = self._shifts[self._order, target].astype(np.float64)
        return found
