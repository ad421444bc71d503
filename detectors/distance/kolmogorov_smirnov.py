"""Two-sample Kolmogorov-Smirnov statistic, on bins [1].

D = max over cuts c of |F(c) - G(c)|, with F the reference's and G the window's share of values below c.

Reads      ordered bins of numeric targets (no missing values, no categories); Output F64[t] in [0, 1], NaN where either side has no value
Guarantee  exact at the cuts: at most the statistic of the raw values, below it by at most the largest min(p, q)
           of any bin
Cost       O(bins), about .8 ms for 200 targets of 84 bins
Source     [1] Smirnov 1939; Hollander, Wolfe, Chicken 2014, ch. 5.4
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from detectors.distance.bins import Measure, ReferenceBins, Traits, WindowBins
from detectors.distance.ragged import F64, I64, totals
from detectors.parameters import Base

TRAITS = Traits(symmetric=True, upper=1.0)


@dataclass(frozen=True)
class Parameters(Base):
    """None."""


def prepare(reference: ReferenceBins, _: Parameters) -> Measure:
    return partial(_measure, reference)


def _measure(reference: ReferenceBins, window: WindowBins) -> F64:
    places = reference.places
    return kolmogorov_smirnov(reference.counts[places], window.counts[places], reference.ordered_start)


def kolmogorov_smirnov(reference: F64 | I64, counts: I64, start: I64) -> F64:
    """D of every target. Input reference and window counts [n], start I64[t+1]. O(n)."""
    total_p, total_q = totals(reference, start), totals(counts, start)
    valid = (total_p > 0) & (total_q > 0)
    distance = np.full(len(start) - 1, np.nan)
    if not valid.any():
        return distance
    width = np.diff(start)
    before_p, before_q = _before(reference, start), _before(counts, start)
    share_p = (np.cumsum(reference, dtype=np.float64) - np.repeat(before_p, width)) / np.repeat(
        np.where(valid, total_p, 1.0), width
    )
    share_q = (np.cumsum(counts, dtype=np.float64) - np.repeat(before_q, width)) / np.repeat(
        np.where(valid, total_q, 1.0), width
    )
    gap = np.append(np.abs(share_p - share_q), 0.0)
    largest = np.maximum.reduceat(gap, start[:-1])
    distance[valid] = largest[valid]
    return distance


def _before(counts: F64 | I64, start: I64) -> F64:
    """Sum of everything before each target."""
    return np.concatenate((np.zeros(1), np.cumsum(counts, dtype=np.float64)))[start[:-1]]
