"""The 2 x bins table of reference and window, with sparse bins put together: what chi-squared and G are computed from.

A bin is sparse if fewer than `expected_min` events are expected in the smaller sample, going by both samples together. The
sparse bins of a target are one cell; if that is sparse too, it joins the smallest other cell, so nothing is left out and a
category that the reference never had still counts. Which bins are sparse depends on the sums only, which are given under
the hypothesis: choosing them costs the test nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.distance.bins import Outcome, ReferenceBins, WindowBins
from detectors.distance.ragged import F64, I64, smallest, totals
from detectors.distributions import chi_squared_tails
from detectors.parameters import Base, number


@dataclass(frozen=True)
class Parameters(Base):
    expected_min: float = number(
        5.0, 0.0, 1000.0, "bins of which fewer events are expected are put together; 0 = none are"
    )


class Table(NamedTuple):
    """Cells F64[n + t], every bin and one cell a target for its sparse ones: observed and expected on both sides, whose they are.

    Empty cells have 0 everywhere; what is expected of a target without events on either side is NaN.
    """

    reference: F64
    window: F64
    reference_expected: F64
    window_expected: F64
    target: I64


def table(reference: ReferenceBins, parameters: Parameters, window: WindowBins) -> Table:
    """O(bins)."""
    start, size, t = reference.start, int(reference.start[-1]), len(reference.start) - 1
    width = np.diff(start)
    target = np.repeat(np.arange(t), width)
    m, n = totals(reference.counts, start), totals(window.counts, start)
    both = np.where((m > 0) & (n > 0), m + n, np.nan)
    together = reference.counts + window.counts
    expected = together * (np.minimum(m, n) / both)[target]
    kept = expected >= parameters.expected_min
    rest = totals(np.where(kept, 0.0, expected), start)
    place = np.where(kept, np.arange(size), size + target)
    least = smallest(np.where(kept & (together > 0), expected, np.inf), start)
    joins = (rest > 0) & (rest < parameters.expected_min) & np.isfinite(least)
    if joins.any():
        first = np.flatnonzero(kept & (expected == least[target]) & joins[target])
        home = np.zeros(t, np.int64)
        home[target[first[::-1]]] = first[::-1]  # the first of equal ones
        place = np.where(~kept & joins[target], home[target], place)
    whose = np.concatenate((target, np.arange(t)))
    r, c = _sums(place, reference.counts, size + t), _sums(place, window.counts, size + t)
    return Table(r, c, (r + c) * (m / both)[whose], (r + c) * (n / both)[whose], whose)


def _sums(place: I64, values: NDArray[Any], size: int) -> F64:
    return np.bincount(place, values, size).astype(np.float64, copy=False)


def outcome(cells: F64, of: Table, t: int) -> Outcome:
    """Sum of each target's cells against chi-squared with one degree of freedom less than it has cells that hold something."""
    statistic = _sums(of.target, cells, t)
    degrees = _sums(of.target, of.reference + of.window > 0, t) - 1.0
    possible = np.isfinite(statistic) & (degrees >= 1)
    statistic = np.where(possible, np.maximum(statistic, 0.0), np.nan)
    degrees = np.where(possible, degrees, np.nan)
    return Outcome(statistic, degrees, chi_squared_tails(statistic, degrees))
