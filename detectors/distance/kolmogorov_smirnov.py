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
    distance = np.empty(len(stop))
    for t in range(len(distance)):
        total_p, total_q = 0.0, 0.0
        for i in range(start[t], stop[t]):
            total_p += reference[i]
            total_q += counts[i]
        if total_p == 0.0 or total_q == 0.0:
            distance[t] = np.nan
            continue
        below_p, below_q, largest = 0.0, 0.0, 0.0
        for i in range(start[t], stop[t]):
            below_p += reference[i]
            below_q += counts[i]
            largest = max(largest, abs(below_p / total_p - below_q / total_q))
        distance[t] = largest
    return distance
