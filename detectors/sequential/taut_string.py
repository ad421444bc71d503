"""The law of the tolerance tube that is nearest to a target law: the taut string [1].

The tube is every law p with lo_j <= P_j <= hi_j at the cuts (P = cumulative). For a target q the minimiser p* of KL(q || p)
over the tube is the shortest string from (0, 0) to (1, 1) through the gates (Q_j, [lo_j, hi_j]): its slope over bin k is
p*_k / q_k. With h = q / p* = 1 / slope the first-order condition of the minimum says E_p[h] <= 1 for every p in the tube:
h is an e-value of "the law is inside the tube", the one that grows fastest when q is true.

Cost: O(K) while the string bends seldom, O(K^2) at worst.    Source [1] Davies and Kovac 2001, Annals of Statistics 29.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import compiled

F64 = NDArray[np.float64]

SLOPE_MIN = 1e-12  # h is capped at 1e12: a smaller h stays an e-value, an infinite one would not be a number
WIDTH_MIN = 1e-300  # of a bin without mass under q, so that its slopes stay finite


@compiled
def taut_string(q: F64, lo: F64, hi: F64, log_h: F64) -> None:
    """Fill log_h F64[K] with log(q / p*). q F64[K] >= 0, its sum need not be 1; lo, hi F64[K] (the last of each is not read)."""
    bins = len(q)
    total = 0.0
    for k in range(bins):
        total += q[k]
    for k in range(bins):  # their place is free until their slope is settled
        log_h[k] = q[k] / total
    done = -1  # the last bin whose slope is settled
    height = 0.0  # of the string there: exactly a gate's edge
    while done < bins - 1:
        # Widen the view to the right until the gates leave no single slope: the string then bends at the tightest gate.
        slope_floor, slope_ceiling = -1e300, 1e300
        at_floor, at_ceiling = -1, -1
        bend, slope, bend_height = bins - 1, 0.0, 1.0
        bent = False
        width = 0.0
        for j in range(done + 1, bins):
            width += log_h[j]
            low = 1.0 if j == bins - 1 else lo[j]
            high = 1.0 if j == bins - 1 else hi[j]
            steepness = 1.0 / max(width, WIDTH_MIN)
            slope_low = (low - height) * steepness
            slope_high = (high - height) * steepness
            if slope_low > slope_ceiling:
                bend, slope, bend_height, bent = at_ceiling, slope_ceiling, hi[at_ceiling], True
                break
            if slope_high < slope_floor:
                bend, slope, bend_height, bent = at_floor, slope_floor, lo[at_floor], True
                break
            if slope_low >= slope_floor:
                slope_floor, at_floor = slope_low, j
            if slope_high <= slope_ceiling:
                slope_ceiling, at_ceiling = slope_high, j
        if not bent:
            slope = (1.0 - height) / max(width, WIDTH_MIN)
        value = -np.log(max(slope, SLOPE_MIN))
        for k in range(done + 1, bend + 1):
            log_h[k] = value
        height = bend_height
        done = bend
