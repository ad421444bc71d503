"""Hellinger distance [1].

h = sqrt(1/2 sum over bins of (sqrt(p) - sqrt(q))^2), p the reference's and q the window's share. Empty bins need no epsilon.

Reads      all bins; Output F64[t] in [0, 1], 1 = nothing in common; NaN where either side has no event
Guarantee  a metric; putting values into bins never raises it, on categories it is exact; without any drift about
           sqrt((bins - 1)(1/n + 1/m) / 8), n and m the events of both sides
Cost       O(bins), about .1 ms for 200 targets of 84 bins
Source     [1] Hellinger 1909; Le Cam, Yang 2000, Asymptotics in Statistics, ch. 3
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
    return partial(_measure, np.sqrt(shares(reference.counts, reference.start)), reference)


def _measure(root: F64, reference: ReferenceBins, window: WindowBins) -> F64:
    difference = root - np.sqrt(shares(window.counts, reference.start))
    return np.minimum(np.sqrt(0.5 * totals(difference * difference, reference.start)), 1.0)
