"""Moments, quantiles and rates of the windows of all targets in one call, compiled."""
# ruff: noqa: PLR0917 - compiled kernels take their arrays one by one

from __future__ import annotations

import math

import numpy as np

from detectors.compiled import compiled
from detectors.distance.ragged import whole_sum
from stream.columns import F64, I64

MEAN, STD, MISSING, INVALID, OUT_OF_RANGE, UNSEEN, QUANTILE = range(7)  # rows of `out`; the quantiles are the last ones


@compiled
def describe(
    counts: F64, start: I64, stop: I64, end: I64, ends: F64, sums: F64, extremes: F64, out_of_range: I64, events: float,
    centre: F64, share: F64, out: F64,
) -> None:  # fmt: skip
    """Fill out F64[QUANTILE + len(share), t], NaN = has none; everything of a target out of its own numbers alone.

    counts F64[n] in the layout of Tally; the ordered bins of target i at [start[i], stop[i]), none of a categorical one, their ends in
    F64 ends from end[i] on, one more than bins. share F64[q] ascending, each above 0. O(n).
    """
    out[:] = np.nan
    for t in range(len(stop)):
        if events > 0.0:
            out[MISSING, t] = counts[start[t + 1] - 2] / events
            out[INVALID, t] = counts[start[t + 1] - 1] / events
            if stop[t] == start[t]:
                out[UNSEEN, t] = counts[start[t + 1] - 3] / events
            else:
                out[OUT_OF_RANGE, t] = out_of_range[t] / events
        total = whole_sum(counts, start[t], stop[t])
        if total == 0.0:
            continue
        mean = sums[t, 0] / total
        out[MEAN, t] = mean + centre[t]
        out[STD, t] = math.sqrt(max(sums[t, 1] / total - mean * mean, 0.0))
        _quantiles(
            counts[start[t] : stop[t]], total, ends[end[t] :], extremes[t, 0], extremes[t, 1], share, out[QUANTILE:, t]
        )


@compiled
def _quantiles(counts: F64, total: float, ends: F64, low: float, high: float, share: F64, out: F64) -> None:
    """Interpolated within the bin that reaches the share; the ends of the outermost bins are the extremes."""
    below, q = 0.0, 0
    for i in range(len(counts)):
        reached = below + counts[i]
        while q < len(share) and (share[q] * total <= reached or i == len(counts) - 1):
            lower, upper = ends[i], ends[i + 1]
            if low > lower:  # noqa: PLR1730 - one that is NaN changes nothing
                lower = low
            if high < upper:  # noqa: PLR1730
                upper = high
            out[q] = lower + max(upper - lower, 0.0) * ((share[q] * total - below) / max(counts[i], 1.0))
            q += 1
        below = reached
