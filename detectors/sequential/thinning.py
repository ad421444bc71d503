"""Thinning: a window above the reference's largest one is cut down to it, without replacement and without a generator.

Events are drawn by bin counts alone (multivariate hypergeometric: bin after bin, each a hypergeometric given what is left).
Each draw inverts the distribution function outward from the mode, driven by one uniform of the window's seed.
Cost: O(bins + sum of the bins' standard deviations); 2,000,000 events to 1,000 in 60 bins: about 20 us.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import compiled
from detectors.sequential.uniforms import uniform

I64 = NDArray[np.int64]


@compiled
def hypergeometric(good: int, bad: int, draws: int, u: float) -> int:
    """Number of good among `draws` <= good + bad without replacement, from one uniform u. O(standard deviation)."""
    lowest, highest = max(0, draws - bad), min(draws, good)
    if lowest == highest:
        return lowest
    mode = int((draws + 1.0) * (good + 1.0) / (good + bad + 2.0))
    mode = min(max(mode, lowest), highest)
    log_mass = (
        math.lgamma(good + 1.0) - math.lgamma(mode + 1.0) - math.lgamma(good - mode + 1.0)
        + math.lgamma(bad + 1.0) - math.lgamma(draws - mode + 1.0) - math.lgamma(bad - draws + mode + 1.0)
        - math.lgamma(good + bad + 1.0) + math.lgamma(draws + 1.0) + math.lgamma(good + bad - draws + 1.0)
    )  # fmt: skip
    mass = math.exp(log_mass)
    left = u - mass
    if left <= 0.0:
        return mode
    below, above = mode, mode
    mass_below, mass_above = mass, mass
    while below > lowest or above < highest:
        if above < highest:
            mass_above *= (good - above) * (draws - above) / ((above + 1.0) * (bad - draws + above + 1.0))
            above += 1
            left -= mass_above
            if left <= 0.0:
                return above
        if below > lowest:
            mass_below *= below * (bad - draws + below) / ((good - below + 1.0) * (draws - below + 1.0))
            below -= 1
            left -= mass_below
            if left <= 0.0:
                return below
        if mass_above + mass_below < 1e-18:
            break
    return mode  # the uniform fell into what rounding left of the total mass, less than 1e-12


@compiled
def thin(counts: I64, size: int, seed: np.uint64, first_index: int, out: I64) -> None:
    """Fill out I64[bins] with `size` <= sum(counts) of the events. Uniforms first_index, first_index + 1, ... of the seed."""
    left = 0
    for k in range(len(counts)):
        left += counts[k]
    wanted = size
    for k in range(len(counts)):
        left -= counts[k]
        drawn = hypergeometric(counts[k], left, wanted, uniform(seed, first_index + k))
        out[k] = drawn
        wanted -= drawn
