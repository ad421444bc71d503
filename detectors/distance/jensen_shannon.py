"""Jensen-Shannon distance, base 2 [1].

js = sqrt(H(m) - (H(p) + H(q)) / 2) = sqrt((KL(p || m) + KL(q || m)) / 2), m = (p + q) / 2, logarithms to base 2.

A metric; 0 = equal shares, 1 = nothing in common. Empty bins need no epsilon: 0 log 0 = 0. With d = (p - q) / (p + q) a bin adds
m ((1 + d) log(1 + d) + (1 - d) log(1 - d)), the sum of m d^2k / (k (2k - 1)) over k = 1, 2, ...: where p and q are alike, as in
most bins, a few terms of it are exact to the last digits, which the difference of two logarithms is not.

Reads      all bins; Output F64[t] in [0, 1]; NaN where either side has no event
Guarantee  a metric; putting values into bins never raises it, on categories it is exact; without any drift about
           sqrt((bins - 1)(1/n + 1/m) / (8 ln 2)), n and m the events of both sides
Cost       O(bins), about .05 ms for 200 targets of 80 bins, most of it the logarithms of bins that are not alike
Source     [1] Lin 1991, IEEE Trans. Inf. Theory 37, eq. 4.1; the root is a metric: Endres, Schindelin 2003
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from detectors.compiled import compiled
from detectors.distance.bins import Measure, ReferenceBins, Traits, WindowBins
from detectors.distance.ragged import F64, I64, whole_sum
from detectors.parameters import Base

TRAITS = Traits(symmetric=True, upper=1.0)
ALIKE = 0.3  # |d| up to which the series is used: what it leaves out is below 1e-16 of what it has
LEAST = 1e-300  # beside it any bin is large; one that is empty on both sides is alike
TERMS = np.array([1.0 / (k * (2 * k - 1) * math.log(2.0)) for k in range(15, 0, -1)])


@dataclass(frozen=True)
class Parameters(Base):
    """None."""


def prepare(reference: ReferenceBins, _: Parameters) -> Measure:
    return partial(_measure, reference)


def _measure(reference: ReferenceBins, window: WindowBins) -> F64:
    return jensen_shannon(reference.counts, window.counts, reference.start)


def jensen_shannon(reference: F64 | I64, counts: F64 | I64, start: I64) -> F64:
    """Distance of every target. Input reference and window counts [n], start I64[t+1]. O(n)."""
    return _all(np.asarray(reference, np.float64), np.asarray(counts, np.float64), start)


@compiled
def _all(reference: F64, counts: F64, start: I64) -> F64:
    distance, longest = np.empty(len(start) - 1), 0
    for t in range(len(distance)):
        longest = max(longest, start[t + 1] - start[t])
    apart, both, added = np.empty((3, longest))
    for t in range(len(distance)):
        first, bins = start[t], start[t + 1] - start[t]
        total_p, total_q = whole_sum(reference, first, start[t + 1]), whole_sum(counts, first, start[t + 1])
        if total_p == 0.0 or total_q == 0.0:
            distance[t] = np.nan
            continue
        # Two passes without a branch, so that several bins are made at once; all times total_p total_q.
        for i in range(bins):
            p, q = reference[first + i] * total_q, counts[first + i] * total_p
            both[i] = p + q
            apart[i] = (p - q) / (both[i] + LEAST)
        for i in range(bins):
            square, series = apart[i] * apart[i], 0.0
            for k in range(len(TERMS)):
                series = series * square + TERMS[k]
            alone = (
                both[i] if square == 1.0 else 0.0
            )  # it is twice the middle; of all other bins that are not alike, see below
            added[i] = 0.5 * both[i] * series * square if square <= ALIKE * ALIKE else alone
        total = whole_sum(added, 0, bins)
        for i in range(bins):
            if ALIKE * ALIKE < apart[i] * apart[i] < 1.0:
                more, less = 1.0 + apart[i], 1.0 - apart[i]
                total += 0.5 * both[i] * (more * math.log2(more) + less * math.log2(less))
        total /= total_p * total_q
        distance[t] = math.sqrt(min(max(total / 2.0, 0.0), 1.0))
    return distance
