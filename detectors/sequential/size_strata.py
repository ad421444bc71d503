"""Strata by the number of events: a window is ranked among the reference's windows of about its size.

The statistics are standardised, so that their mean and variance are the same at every size; their skewness and tails are not, they
shrink with the square root of it, so that windows of 10 and of 20 events differ most. Where sizes come in runs (traffic that
swells, a burst), live windows of one size follow each other, and are no draw from those of all sizes: their ranks alone would
cross too often. Given the sizes of all windows, those of one size are exchangeable if the events are; so the bound holds within strata,
whatever the traffic does later. What is chosen follows from the sizes alone: those of a reference whose sizes differ by chance only
have no strata, for there ranks among all of its windows are finer.

    when      the clock (strata.py) gives none; of eight windows the second largest and the second smallest are a STEP apart, which is of
              size^-1/2; and sizes follow each other: the variance ratio of pairs (windows_auto.py), 1 + rho_1, of their logarithms is
              above PAIR_MIN, and surely above 1
    which     from the smallest size upwards a STEP each, more until a stratum has WINDOWS_MIN windows and a share of SHARE_MIN

With a rate of 2 % in windows of 10 to 75 events, traffic swinging tenfold in 37 hours, the ranks cross 26 times as often as is promised
without strata, and .9 times with these (load_tests/size_strata.py); with quartiles of the sizes it was 1.5 times.

The tube is that of all windows: it is about events, not windows. A window above the largest size is thinned to it, and so of
the last stratum; one below the smallest is carried.

Does not see   runs of sizes that the reference did not have: live windows that are all larger than it are all thinned to one size
Assumes  that what the events are does not depend on how many there are; else the size is a season without a clock, and what holds
         the promise is the tolerance
Source   Vovk, Lindsay, Nouretdinov, Gammerman 2003, "Mondrian confidence machine" (ranks within classes)
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.sequential.strata import WINDOWS_MIN
from detectors.sequential.windows_auto import ratio_error, variance_ratio

I64 = NDArray[np.int64]

WINDOW_SIZE = "window_size"  # of Strata.by
STEP = 0.014  # 10 events to 11, 20 to 23, 50 to 62, 1,000 to 3,200
SHARE_MIN = 1 / 16  # of the windows, in each: at most 16 strata
PAIR_MIN, SIGMAS = 1.1, 4.0


def size_bounds(sizes: I64) -> I64:
    """I64[n - 1], ascending, of windows with sizes I64[m] >= 1 in time order: those of fewer than bounds[i] events are of strata 0 .. i.
    Empty: none.
    """
    ordered, m = np.sort(sizes), len(sizes)
    bounds: list[int] = []
    if m < 2 * WINDOWS_MIN or ordered[m - 1 - m // 8] < next_size(ordered[m // 8]) or not in_runs(sizes):
        return np.array(bounds, np.int64)
    least, first = max(WINDOWS_MIN, math.ceil(SHARE_MIN * m)), 0
    while first + least < m:
        bound = max(next_size(int(ordered[first])), int(ordered[first + least - 1]) + 1)
        first = int(np.searchsorted(ordered, bound))
        if m - first < least:
            break
        bounds.append(int(ordered[first]))
    return np.array(bounds, np.int64)


def next_size(size: int) -> float:
    """A STEP above a size; infinite beyond the last one."""
    left = max(size, 1) ** -0.5 - STEP
    return left**-2 if left > 0.0 else math.inf


def in_runs(sizes: I64) -> bool:
    """Whether sizes I64[m], m >= 4, that are not all the same, follow each other."""
    ratio, _ = variance_ratio(np.log(np.maximum(sizes, 1)), 2)
    return ratio > max(PAIR_MIN, 1.0 + SIGMAS * ratio_error(len(sizes), 2))


def size_strata(bounds: I64, sizes: I64) -> I64:
    """Stratum I64[m] of each window."""
    return np.searchsorted(bounds, sizes, side="right").astype(np.int64)


def size_stratum(bounds: Sequence[int], events: int) -> int:
    """`size_strata` of one window."""
    return bisect_right(bounds, events)
