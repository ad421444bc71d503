"""The verdicts of many targets on one window: as arrays, and one by one when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from detectors.verdict import Level, Verdict

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

LEVELS = (Level.OK, Level.CROSSED_RANK, Level.CROSSED_TUBE, Level.ALARM, Level.INSUFFICIENT_DATA)
CODES = {level: code for code, level in enumerate(LEVELS)}


class Verdicts(Sequence[Verdict]):
    """level U8[t]: place in LEVELS; rank_log10, tube_log10: as in Verdict; shift F64[t]. `make` gives the whole of one."""

    def __init__(
        self,
        level: U8,
        rank_log10: Sequence[float],
        tube_log10: Sequence[float],
        shift: F64,
        make: Callable[[int], Verdict],
    ) -> None:
        self.level = level
        self.rank_log10 = rank_log10
        self.tube_log10 = tube_log10
        self.shift = shift
        self._make = make

    @classmethod
    def of(cls, verdicts: Iterable[Verdict]) -> Verdicts:
        """Of such as there are."""
        known = tuple(verdicts)
        level = np.array([CODES[verdict.level] for verdict in known], np.uint8)
        shift = np.array([verdict.shift for verdict in known], np.float64)
        rank, tube = [verdict.rank_log10 for verdict in known], [verdict.tube_log10 for verdict in known]
        return cls(level, rank, tube, shift, known.__getitem__)

    @cached_property
    def levels(self) -> list[str]:
        """Their names."""
        return [NAMES[code] for code in self.level.tolist()]

    def alarms(self) -> list[int]:
        """Places of those that alarm: none, by far the most often."""
        return np.flatnonzero(self.level == CODES[Level.ALARM]).tolist()

    def __len__(self) -> int:
        return len(self.level)

    @overload
    def __getitem__(self, index: int) -> Verdict: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Verdict]: ...
    def __getitem__(self, index: int | slice) -> Verdict | Sequence[Verdict]:
        places = range(len(self))[index]
        return self._make(places) if isinstance(places, int) else tuple(map(self._make, places))

    def __iter__(self) -> Iterator[Verdict]:
        return map(self._make, range(len(self)))


NAMES = tuple(level.value for level in LEVELS)
