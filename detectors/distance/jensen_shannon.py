"""Jensen-Shannon distance, base 2 [1].

js = sqrt(H(m) - (H(p) + H(q)) / 2) = sqrt((KL(p || m) + KL(q || m)) / 2), m = (p + q) / 2, logarithms to base 2.

A metric; 0 = equal shares, 1 = nothing in common. Empty bins need no epsilon: 0 log 0 = 0.

Reads      all bins; Output F64[t] in [0, 1]; NaN where either side has no event
Guarantee  a metric; putting values into bins never raises it, on categories it is exact; without any drift about
           sqrt((bins - 1)(1/n + 1/m) / (8 ln 2)), n and m the events of both sides
Cost       O(bins), about .6 ms for 200 targets of 84 bins
Source     [1] Lin 1991, IEEE Trans. Inf. Theory 37, eq. 4.1; the root is a metric: Endres, Schindelin 2003
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from detectors.distance.bins import Measure, ReferenceBins, Traits, WindowBins
from detectors.distance.ragged import F64, I64, shares, totals
from detectors.parameters import Base

TRAITS = Traits(symmetric=True, upper=1.0)


@dataclass(frozen=True)
class Parameters(Base):
    """None."""


def prepare(reference: ReferenceBins, _: Parameters) -> Measure:
    return partial(_measure, reference)


def _measure(reference: ReferenceBins, window: WindowBins) -> F64:
    return jensen_shannon(reference.counts, window.counts, reference.start)


def jensen_shannon(reference: F64 | I64, counts: I64, start: I64) -> F64:
    """Distance of every target. Input reference and window counts [n], start I64[t+1]. O(n)."""
    p, q = shares(reference, start), shares(counts, start)
    middle = (p + q) / 2
    divergence = (totals(_relative(p, middle), start) + totals(_relative(q, middle), start)) / 2
    empty = (totals(reference, start) == 0) | (totals(counts, start) == 0)
    return np.where(empty, np.nan, np.sqrt(np.clip(divergence, 0.0, 1.0)))


def _relative(p: F64, m: F64) -> F64:
    """P log2(p / m), 0 where p is 0."""
    positive = p > 0
    ratio = np.divide(p, m, out=np.ones_like(p), where=positive)
    return np.where(positive, p * np.log2(ratio), 0.0)
