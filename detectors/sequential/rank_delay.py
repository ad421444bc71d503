"""How many windows a lasting shift takes until the rank layer finds it: what few reference windows cost.

Along the expected path of the ranks, from the first window of a stream on: q(k) the probability of rank bin k under the shift,
alpha_k the reference's ranks in it, m its windows, t the live windows that were ranked among them before, all of them shifted:

    log L = sum_k q(k) log h(k) - log sum_k p(k) h(k),    p(k) = (alpha_k + t q(k)) / (m + 1 + t)

for every bet h of the statistic, adaptive ones with their expected counts; evidence grows as in rank_layer.py, but is not raised
near the threshold as it is there, which would find the shift somewhat sooner. Live windows that
are all beyond the reference's m gain no more than log C(m + t, t) together: a shift that is not found before it has become
usual is never found. Windows before the shift would make m larger, so a later shift is found no later.

Source [1] rank_layer.py; C(m + t, t) orders of t windows among m are equally likely when they are exchangeable
"""

# ruff: noqa: PLR0917 - compiled kernels take their arrays one by one

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import compiled
from detectors.sequential.rank_layer import ADAPTIVE_PRIOR

F64 = NDArray[np.float64]

LOG_MIN = -9.0  # of a bet's h: below it a code of a bet on shares is 0
STEPS_MAX = 20_000  # some 20 ms: only shifts that are never found among the windows of one hour take so many
FINENESS = 16  # steps to the threshold, and to a doubling of the windows seen
MEMORY_WINDOWS = 200  # after which the adaptive bets have learnt what there is


@compiled
def _adaptive_growth(q: F64, alpha: F64, ranked: int, seen: int, decay: float) -> float:
    """Nats of the next window: `ranked` windows among these ranks and `seen` in all were as q F64[r + 1] before it."""
    total, growth = alpha.sum() + ranked, 0.0
    recent = (1.0 - decay**seen) / (1.0 - decay)
    for k in range(len(q)):
        if q[k] > 0.0:
            null = (alpha[k] + ranked * q[k]) / total
            growth += q[k] * math.log((recent * q[k] + ADAPTIVE_PRIOR * null) / ((recent + ADAPTIVE_PRIOR) * null))
    return growth


@compiled
def windows_until(
    q: F64, alpha: F64, bets: F64, shares: F64, decay: F64, threshold: float,
    hour: int, hours: int, latch: int, others: float,
) -> float:  # fmt: skip
    """Windows until both layers alarm, inf: never. O(steps (M + 2 r)).

    q, alpha F64[r + 1]; bets F64[r + 1, M]; shares F64[M + Q] of the bets and of the adaptive ones with decay F64[Q].
    threshold of their sum, in windows' weights. `hour` windows in a row are ranked among the same, of `hours` strata in turn;
    hours 1: always the same. The other layer crosses every `others` windows; a crossing is remembered for `latch` windows.
    """
    bins, fixed = bets.shape
    gain, at_first, at_last = np.zeros(fixed), np.zeros(fixed), np.zeros(fixed)
    for i in range(fixed):
        for k in range(bins):
            gain[i] += q[k] * (max(math.log(bets[k, i]), LOG_MIN) if bets[k, i] > 0.0 else LOG_MIN)
            at_first[i] += alpha[k] * bets[k, i]
            at_last[i] += q[k] * bets[k, i]
    windows, needed = alpha.sum(), math.log(threshold)
    evidence, growth = np.full(len(shares), -np.inf), np.empty(len(shares))
    seen = 0
    for _ in range(STEPS_MAX):
        ranked, left = seen, 1 << 40
        if hours > 1:
            ranked = seen // (hour * hours) * hour + seen % hour
            left = hour - seen % hour
        for i in range(fixed):
            growth[i] = gain[i] - math.log((at_first[i] + ranked * at_last[i]) / (windows + ranked))
        for i in range(len(decay)):
            growth[fixed + i] = _adaptive_growth(q, alpha, ranked, seen, decay[i])
        best = growth.max()
        if seen > threshold or (hours == 1 and best <= 0.0 and seen > MEMORY_WINDOWS):
            return np.inf
        step = min(left, 1 + ranked // FINENESS)
        if best > 0.0:
            step = max(min(step, int(needed / (FINENESS * best))), 1)
        seen += step
        total = 0.0
        for i in range(len(shares)):
            evidence[i] = step * growth[i] + np.logaddexp(evidence[i], math.log(step))
            total += shares[i] * math.exp(min(evidence[i], 500.0))
        if total >= threshold:
            evidence[:] = -np.inf
            crossed = max(math.floor((seen - latch) / others) + 1.0, 1.0) * others
            if crossed - seen < latch:
                return max(crossed, float(seen))
    return np.inf
