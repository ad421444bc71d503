"""The difference of two distribution functions along the values, for the distances that know where bins are.

Within a bin both laws are taken as uniform; the outermost bins that hold anything end at the smallest and largest value of
reference and window together. So F - G is a straight line in each bin: exact at every cut.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detectors.distance.bins import ReferenceBins, WindowBins
from detectors.distance.ragged import F64, shares, totals


class Lines(NamedTuple):
    """F - G over all ordered bins [n]: at the bin's left and right end, the bin's width, the shares of both sides in it."""

    left: F64
    right: F64
    width: F64
    p: F64
    q: F64


def lines(reference: ReferenceBins, window: WindowBins) -> Lines:
    """NaN throughout a target that has no value on either side. O(ordered bins)."""
    start, places = reference.ordered_start, reference.places
    p, q = shares(reference.counts[places], start), shares(window.counts[places], start)
    bins = np.diff(start)
    gap = np.where(np.isfinite(p - q), p - q, 0.0)
    total = np.cumsum(gap)
    before = np.repeat(np.concatenate(([0.0], total))[start[:-1]], bins)
    right = total - before
    has = np.isfinite(p - q)
    width = _widths(reference, window)
    return Lines(np.where(has, right - gap, np.nan), np.where(has, right, np.nan), width, p, q)


def _widths(reference: ReferenceBins, window: WindowBins) -> F64:
    """Width of every ordered bin, cut off at the extremes; an open bin without known extremes has none."""
    start = reference.ordered_start
    bins = np.diff(start)
    number = np.cumsum(bins > 0) - 1  # of the numeric target that a target is
    shift = np.repeat(number, bins)
    index = np.arange(int(start[-1])) + shift
    lower, upper = reference.ends[index], reference.ends[index + 1]
    low = np.repeat(np.fmin(reference.minimum, window.minimum), bins)
    high = np.repeat(np.fmax(reference.maximum, window.maximum), bins)
    low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
    lower, upper = np.clip(lower, low, high), np.clip(upper, low, high)
    finite = np.isfinite(lower) & np.isfinite(upper)
    return np.where(finite, np.where(finite, upper, 0.0) - np.where(finite, lower, 0.0), 0.0)


def scaled(distance: F64, reference: ReferenceBins, scale: str, root: bool) -> F64:
    """`distance` in units of the reference's standard deviation (its root, for an energy distance), NaN where that is 0."""
    if scale == "value":
        return distance
    unit = np.where(reference.std > 0, reference.std, np.nan)
    return distance / (np.sqrt(unit) if root else unit)


def summed(values: F64, reference: ReferenceBins) -> F64:
    """Sum over the bins of each target; NaN for a target without ordered bins."""
    start = reference.ordered_start
    return np.where(np.diff(start) > 0, totals(values, start), np.nan)
