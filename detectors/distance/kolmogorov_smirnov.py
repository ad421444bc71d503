"""Two-sample Kolmogorov-Smirnov statistic, on bins [1].

D = max over cuts c of |F(c) - G(c)|, with F the reference's and G the window's share of values below c.

Reads      ordered bins of numeric targets (no missing values, no categories); Output F64[t] in [0, 1], NaN where either side has no value
Guarantee  exact at the cuts: at most the statistic of the raw values, below it by at most the largest min(p, q)
           of any bin
Cost       O(bins), about .05 ms for 200 targets of 80 bins
Source     [1] Smirnov 1939; Hollander, Wolfe, Chicken 2014, ch. 5.4
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from detectors.compiled import compiled
from detectors.distance.bins import Measure, ReferenceBins, Traits, WindowBins
from detectors.distance.ragged import F64, I64
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


def kolmogorov_smirnov(reference: F64 | I64, counts: F64 | I64, start: I64, stop: I64 | None = None) -> F64:
    """D of every target. Input reference and window counts [n]; start I64[t+1], and stop I64[t] where the bins of a target do not
    end at the next one's start. O(n).
    """
    stop = start[1:] if stop is None else stop
    return _all(np.asarray(reference, np.float64), np.asarray(counts, np.float64), start, stop)


@compiled
def _all(reference: F64, counts: F64, start: I64, stop: I64) -> F64:
    distance, longest = np.empty(len(stop)), 0
    for t in range(len(distance)):
        longest = max(longest, stop[t] - start[t])
    p, q = np.empty(longest), np.empty(longest)
    for t in range(len(distance)):
        first, bins = start[t], stop[t] - start[t]
        below_p, below_q, largest = 0.0, 0.0, 0.0
        for i in range(bins):
            below_p += reference[first + i]
            below_q += counts[first + i]
            p[i], q[i] = below_p, below_q
        if below_p == 0.0 or below_q == 0.0:
            distance[t] = np.nan
            continue
        for i in range(bins):  # apart from the sums, so that several quotients are made at once
            p[i] = abs(p[i] / below_p - q[i] / below_q)
        for i in range(bins):
            largest = max(largest, p[i])
        distance[t] = largest
    return distance
