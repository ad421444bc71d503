"""Sums over rows: what the multivariate detectors of a plan add up while it is counted, and how it is stored. Pure.

They are whole numbers, so that panes, partitions and versions add up to the same, in any order. Only segment "all" has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stream import container
from stream.columns import F64, I64, U8, ArrayCells, Tag

if TYPE_CHECKING:
    from detectors.multivariate import RowDetector
    from stream.plan import RowSumsPlan

RowSums = dict[str, I64]  # by series
Arrays = Mapping[tuple[int, int], ArrayCells]  # by column and length
SECTION = "row_sums"


class RowSumTables:
    """What a plan sums over rows: `of` sums by series."""

    def __init__(self, plans: Sequence[RowSumsPlan], columns: Sequence[int]) -> None:
        """`columns`: of the plan's targets."""
        self._detectors: dict[str, RowDetector] = {}
        if plans:
            from detectors.multivariate import summing

            self._detectors = {each.series: summing(each.detector, each.tables) for each in plans}
        self._columns = {each.series: np.array([columns[place] for place in each.places], np.int64) for each in plans}
        self._lengths = {each.series: each.length for each in plans}

    def __len__(self) -> int:
        return len(self._detectors)

    def nothing(self) -> RowSums:
        """The sums of no row."""
        return {series: np.zeros(detector.width, np.int64) for series, detector in self._detectors.items()}

    def add(self, sums: RowSums, rows: I64, number: F64, tag: U8, arrays: Arrays) -> None:
        """Add `rows` of a chunk's cells, number F64[n, c] and tag U8[n, c], or of its arrays, in place."""
        for series, detector in self._detectors.items():
            columns = self._columns[series]
            values = (
                self._arrays(series, rows, arrays) if self._lengths[series] else _values(rows, columns, number, tag)
            )
            sums[series] += detector.summed(values)

    def _arrays(self, series: str, rows: I64, arrays: Arrays) -> F64:
        """F64[m, length] of the rows that have such an array; none in a column that is not read so, or in another length."""
        length = self._lengths[series]
        cells = arrays.get((int(self._columns[series][0]), length))
        if cells is None:
            return np.empty((0, length))
        places = cells.place[rows]
        found: F64 = cells.values[places[places >= 0]]
        return found


def _values(rows: I64, columns: I64, number: F64, tag: U8) -> F64:
    """F64[n, f]: NaN for what is no number, or in a column that is not read."""
    here = (rows[:, None], columns[None, :])
    found: F64 = np.where((tag[here] == Tag.NUMBER) & (columns >= 0), number[here], np.nan)
    return found


def added(left: RowSums, right: RowSums) -> RowSums:
    """The sums of both. What one of them lacks, of another configuration, would be the sum of a part: it is left out."""
    return {series: sums + right[series] for series, sums in left.items() if series in right}


def to_section(sums: RowSums) -> tuple[list[list[Any]], I64]:
    """(series and length of each, all sums end to end)."""
    flat = np.concatenate([np.empty(0, np.int64), *sums.values()])
    return [[series, len(each)] for series, each in sums.items()], flat


def from_section(heads: Sequence[Sequence[Any]], sections: Mapping[str, Any], name: str = SECTION) -> RowSums:
    """Inverse of `to_section`; {} of a record without. Copies. Raises Malformed."""
    found: RowSums = {}
    first = 0
    for series, length in heads:
        found[series] = sections[name][first : first + length].astype(np.int64)
        first += length
    if heads and first != len(sections[name]):
        raise container.Malformed(f"{len(sections[name])} sums over rows, expected {first}")
    return found
