"""The 2 x cells table of reference and window that chi-squared and G are computed from, with sparse bins put together.

A cell is sparse if fewer than `expected_min` events of it are expected in the smaller sample, going by both together.
Ordered bins are put together with their neighbours, from the left, until a cell is not sparse; what stands apart and is
sparse (a rare category, missing, invalid) is one cell a target. If even that is sparse it is kept out of the table and judged
alone: the smaller sample's count of it against Poisson's law, which is careful on the upper side (Anderson, Samuels 1967), and p is
twice the smaller one of both. So a category that the reference never had is seen, and does not make the table unreliable.
Which bins are sparse depends on the sums of both samples only: choosing by it costs a test nothing.
"""

# ruff: noqa: PLR0917 - compiled kernels take their arrays one by one

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import compiled
from detectors.distance.bins import Outcome, ReferenceBins, WindowBins
from detectors.distance.ragged import F64, I64
from detectors.distributions import chi_squared_tail, poisson_tail
from detectors.parameters import Base, number


@dataclass(frozen=True)
class Parameters(Base):
    expected_min: float = number(
        5.0, 0.0, 1000.0, "bins of which fewer events are expected are put together; 0 = none are"
    )


def outcome(reference: ReferenceBins, parameters: Parameters, window: WindowBins, *, ratio: bool) -> Outcome:
    """Of every target: `ratio` False = Pearson's statistic, True = G. NaN where a side is empty or one cell is all. O(bins)."""
    counts = np.asarray(window.counts, np.float64)
    found = _judge(reference.start, reference.ordered, reference.counts, counts, parameters.expected_min, ratio)
    return Outcome(found[0], found[1], found[2])


@compiled
def _cell(r: float, c: float, m: float, n: float, ratio: bool) -> float:
    """What one cell adds to the statistic; m and n are the totals of the sides."""
    expected_r, expected_c = (r + c) * (m / (m + n)), (r + c) * (n / (m + n))
    if not ratio:
        return (r - expected_r) ** 2 / expected_r + (c - expected_c) ** 2 / expected_c
    of_r = r * math.log(r / expected_r) if r > 0.0 else 0.0
    return 2.0 * (of_r + (c * math.log(c / expected_c) if c > 0.0 else 0.0))


@compiled
def _put_together(ordered: NDArray[np.bool_], r: F64, c: F64, least: float, cells: F64) -> tuple[int, float, float]:
    """Fills cells[:, :size] with what is not sparse of one target; returns size and both sides' count of the rest."""
    size, left_r, left_c = 0, 0.0, 0.0
    for i in range(len(r)):
        if ordered[i]:
            left_r, left_c = left_r + r[i], left_c + c[i]
            if left_r + left_c >= least and left_r + left_c > 0.0:
                cells[0, size], cells[1, size] = left_r, left_c
                size, left_r, left_c = size + 1, 0.0, 0.0
    if size > 0:
        cells[0, size - 1] += left_r
        cells[1, size - 1] += left_c
        left_r, left_c = 0.0, 0.0
    for i in range(len(r)):
        if ordered[i]:
            continue
        if r[i] + c[i] >= least and r[i] + c[i] > 0.0:
            cells[0, size], cells[1, size] = r[i], c[i]
            size += 1
        else:
            left_r, left_c = left_r + r[i], left_c + c[i]
    if left_r + left_c >= least and left_r + left_c > 0.0:
        cells[0, size], cells[1, size] = left_r, left_c
        size, left_r, left_c = size + 1, 0.0, 0.0
    return size, left_r, left_c


@compiled
def _judge(start: I64, ordered: NDArray[np.bool_], r: F64, c: F64, expected_min: float, ratio: bool) -> F64:
    """F64[3, t]: statistic, degrees of freedom, p."""
    out = np.full((3, len(start) - 1), np.nan)
    cells = np.empty((2, len(r) + 1))
    for target in range(len(start) - 1):
        part = slice(start[target], start[target + 1])
        m, n = r[part].sum(), c[part].sum()
        if m <= 0.0 or n <= 0.0:
            continue
        least = expected_min * (m + n) / min(m, n)  # events of both sides that a cell must have
        size, rest_r, rest_c = _put_together(ordered[part], r[part], c[part], least, cells)
        rest = rest_r + rest_c
        if size == 0 or (size == 1 and rest == 0.0):
            continue
        in_r, in_c = m - rest_r, n - rest_c
        statistic = 0.0
        if in_r > 0.0 and in_c > 0.0:
            for i in range(size):
                statistic += _cell(cells[0, i], cells[1, i], in_r, in_c, ratio)
        p = chi_squared_tail(max(statistic, 0.0), size - 1.0) if size > 1 else 1.0
        if rest > 0.0:
            few = rest_r if m < n else rest_c
            p = min(1.0, 2.0 * min(p, poisson_tail(few, rest * (min(m, n) / (m + n)))))
        out[0, target], out[1, target], out[2, target] = max(statistic, 0.0), size - 1.0, p
    return out
