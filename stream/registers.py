"""Distinct registers of those targets of a plan that have any; and what the bins alone say about them.

Memory: REGISTERS bytes for each target with a value, none for the others. The estimator is detectors.sketches.distinct.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.sketches.distinct import REGISTERS, place_and_rank
from stream.columns import I32, I64, U8, U64


@dataclass(frozen=True, slots=True)
class Registers:
    """`rows` U8[k, m] are those of `targets` I64[k], ascending; no row is all zero. m = 0: nothing was to be counted.

    Nobody writes into either, so objects may share them.
    """

    targets: I64
    rows: U8

    @classmethod
    def none(cls) -> Registers:
        """Of a segment, or of a model without categories."""
        return cls(np.empty(0, np.int64), np.empty((0, 0), np.uint8))

    @classmethod
    def of(cls, targets: I64, rows: U8) -> Registers:
        """Rows of these targets (ascending), in which nothing may have been counted."""
        some = rows.any(axis=1)
        return cls(targets, rows) if some.all() else cls(targets[some], rows[some])

    @property
    def width(self) -> int:
        """Registers of one target."""
        return int(self.rows.shape[1])

    @property
    def nbytes(self) -> int:
        return self.targets.nbytes + self.rows.nbytes

    def by_target(self) -> dict[int, U8]:
        """Target -> its registers U8[m]."""
        return dict(zip(self.targets.tolist(), self.rows, strict=True))

    def union(self, other: Registers) -> Registers:
        """The maximum of both, register by register."""
        if not len(other.targets) or not self.width:
            return self if other.width == 0 or self.width else other
        if np.array_equal(self.targets, other.targets):
            return Registers(self.targets, np.maximum(self.rows, other.rows))
        targets = np.union1d(self.targets, other.targets)
        rows = np.zeros((len(targets), self.width), np.uint8)
        rows[np.searchsorted(targets, self.targets)] = self.rows
        place = np.searchsorted(targets, other.targets)
        rows[place] = np.maximum(rows[place], other.rows)
        return Registers(targets, rows)

    def select(self, targets: I64) -> Registers:
        """Those of these targets, which are numbered anew in this order."""
        place = np.searchsorted(self.targets, targets)
        found = np.flatnonzero(np.isin(targets, self.targets))
        return Registers(found, self.rows[place[found]])

    def between(self, first: int, stop: int) -> Registers:
        """Those of targets [first, stop), numbered from 0."""
        begin, end = np.searchsorted(self.targets, (first, stop))
        return Registers(self.targets[begin:end] - first, self.rows[begin:end])

    @classmethod
    def joined(cls, parts: Sequence[Registers], targets: Sequence[int]) -> Registers:
        """Inverse of `between` for blocks of so many targets; a block without any row may have another width."""
        width = max(part.width for part in parts)
        firsts = np.cumsum([0, *targets[:-1]])
        rows = [part.rows if part.width == width else np.zeros((0, width), np.uint8) for part in parts]
        moved = [part.targets + first for part, first in zip(parts, firsts, strict=True)]
        return cls(np.concatenate(moved).astype(np.int64), np.concatenate(rows))


class OwnBins:
    """The categories of a plan that have a bin of their own: that it was counted says that the value was there.

    bin I32[n]: the bin, of all targets end to end; at I32[n]: register, of all tracked targets end to end; rank U8[n].
    """

    __slots__ = ("at", "bin", "rank", "tracked")

    def __init__(self, keys: U64, bins: I64, row: I64, tracked: int) -> None:
        """Keys U64[n] in bins I64[n], of the tracked targets row I64[n]."""
        place, self.rank = place_and_rank(keys)
        self.bin: I32 = bins.astype(np.int32)
        self.at: I32 = (row * REGISTERS + place).astype(np.int32)
        self.tracked = tracked

    @property
    def nbytes(self) -> int:
        return self.bin.nbytes + self.at.nbytes + self.rank.nbytes

    def registers(self, bins: NDArray[Any]) -> U8:
        """U8[tracked, REGISTERS] of the values that these counts show."""
        found = np.zeros(self.tracked * REGISTERS, np.uint8)
        here = bins[self.bin] > 0
        np.maximum.at(found, self.at[here], self.rank[here])
        return found.reshape(self.tracked, REGISTERS)


def shared_codes(code: I32, bins: int) -> U8:
    """U8[n]: 1 where a key's bin is not its alone, the last one (unseen) always among them."""
    keys = np.bincount(code, minlength=bins)
    keys[bins - 1] += 2
    return (keys[code] > 1).astype(np.uint8)
