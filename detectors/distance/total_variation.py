"""Total variation distance: the share of events that would have to move to another bin [1].

tv = 1/2 sum over bins of |p - q|, p the reference's and q the window's share.

Reads      all bins; Output F64[t] in [0, 1], 1 = nothing in common; NaN where either side has no event
Guarantee  a metric; putting values into bins never raises it, on categories it is exact; without any drift at most
           sqrt((bins - 1)(1/n + 1/m)) / 2 on average, n and m the events of both sides
Cost       O(bins), about .1 ms for 200 targets of 84 bins
Source     [1] Levin, Peres 2017, Markov Chains and Mixing Times, ch. 4.1
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from detectors.distance.bins import Measure, ReferenceBins, Traits, WindowBins
from detectors.distance.ragged import F64, shares, totals
from detectors.parameters import Base

TRAITS = Traits(symmetric=True, upper=1.0)


@dataclass(frozen=True)
class Parameters(Base):
    """None."""


def prepare(reference: ReferenceBins, _: Parameters) -> Measure:
    return partial(_measure, shares(reference.counts, reference.start), reference)


def _measure(p: F64, reference: ReferenceBins, window: WindowBins) -> F64:
    difference = np.abs(p - shares(window.counts, reference.start))
    return np.minimum(0.5 * totals(difference, reference.start), 1.0)
