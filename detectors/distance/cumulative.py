"""The difference of two distribution functions along the values, for the distances that know where bins are.

Within a bin both laws are taken as uniform; the outermost bins that hold anything end at the smallest and largest value of
reference and window together. So F - G is a straight line in each bin: exact at every cut. Unless both sides' extremes are known
the open bins have no width: what lies in them counts as at their cut.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detectors.distance.bins import ReferenceBins, WindowBins
from detectors.distance.ragged import F64, I64, shares, totals


class Axis(NamedTuple):
    """What does not change with the window, over all ordered bins: whose they are I64[n], their ends, the reference's shares."""

    reference: ReferenceBins
    target: I64
    lower: F64
    upper: F64
    p: F64


class Lines(NamedTuple):
    """F - G over all ordered bins [n]: at the bin's left and right end; the bin's width, and the shares of both sides in it."""

    left: F64
    right: F64
    width: F64
    p: F64
    q: F64


def axis(reference: ReferenceBins) -> Axis:
    """Once per reference. O(ordered bins)."""
    bins = np.diff(reference.ordered_start)
    number = np.cumsum(bins > 0) - 1  # which of the numeric targets a target is
    index = np.arange(int(reference.ordered_start[-1])) + np.repeat(number, bins)
    return Axis(
        reference,
        np.repeat(np.arange(len(bins)), bins),
        reference.ends[index],
        reference.ends[index + 1],
        shares(reference.counts[reference.places], reference.ordered_start),
    )


def lines(along: Axis, window: WindowBins) -> Lines:
    """NaN throughout a target that has no value on either side. O(ordered bins)."""
    reference, p = along.reference, along.p
    q = shares(window.counts[reference.places], reference.ordered_start)
    gap = p - q
    has = np.isfinite(gap)
    right = np.cumsum(np.where(has, gap, 0.0))  # through all targets: each one's differences add up to 0
    right[~has] = np.nan
    low, high = np.minimum(reference.minimum, window.minimum), np.maximum(reference.maximum, window.maximum)
    low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
    lower = np.clip(along.lower, low[along.target], high[along.target])
    upper = np.clip(along.upper, low[along.target], high[along.target])
    closed = np.isfinite(lower) & np.isfinite(upper)
    width = np.subtract(upper, lower, out=np.zeros(len(q)), where=closed)
    return Lines(right - gap, right, width, p, q)


def scaled(distance: F64, reference: ReferenceBins, scale: str, *, root: bool) -> F64:
    """`distance` in units of the reference's standard deviation (its root, for an energy distance), NaN where that is 0."""
    if scale == "value":
        return distance
    unit = np.where(reference.std > 0, reference.std, np.nan)
    return distance / (np.sqrt(unit) if root else unit)


def summed(values: F64, reference: ReferenceBins) -> F64:
    """Sum over the bins of each target; NaN for a target without ordered bins."""
    start = reference.ordered_start
    return np.where(np.diff(start) > 0, totals(values, start), np.nan)
