"""Layer 1: the rank of a window's statistic among the reference windows (exact at any reference size).

A window's rank bin k is where its pair (statistic, uniform) falls among the reference's kept order statistics. With alpha_k
the number of reference ranks in bin k and N_k how often live windows fell there, p(k) = (alpha_k + N_k) / (m + 1 + t) is the
probability of bin k given the past, when live windows are exchangeable with the reference's. For a bet h >= 0 on rank bins

    L = h(k) / sum_l p(l) h(l)            E[L | past ranks] = 1 exactly            R <- (R + w) L

so E[R_t] = sum of the weights: an e-SR process [1]; the number of times that R passes A is at most T / A in expectation.
The adaptive bets replace h by (ew + n0 p) / ((ewn + n0) p), with exponentially weighted counts ew of the rank bins, ewn their sum.

What a window adds beyond the threshold A buys nothing: a crossing pays A and starts again. So before the window is seen, all of
a statistic's evidence is raised by the factor b >= 1 for which E[min(b (R + w) L, A) | past ranks] = R + w still [2]: the
probabilities p(k) are known. A x crossings + R then grows by no more than w a window on average: the same bound, spent to the end.

Evidence is kept in float32, rounded down (by less than 3e-7 of it a window): what is kept is never above the process, so the
bound holds as it stands. Statistics and tie-breaks are float32 on both sides: a function of one window, as exchangeable as
the window itself.

Source [1] Shin, Ramdas, Rinaldo 2023, "E-detectors"; ranks as in Vovk et al. on conformal test martingales.
Source [2] Fischer and Ramdas 2024, "Improving the (approximate) sequential probability ratio test by avoiding overshoot".
"""

# ruff: noqa: PLR0917 - compiled kernels take their arrays one by one

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import compiled
from detectors.lanes import row_of, weighted
from detectors.lanes import total as total_of
from detectors.normal import cdf_all, ppf_all

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_LOWER = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45)
# Ranks 1 and m stand for "record": a window beyond every one of the reference has a bin of its own.
RANK_PROBABILITIES = (0.0, *_LOWER, 0.5, *(1.0 - p for p in reversed(_LOWER)), 1.0)

# Bets per statistic (location, scale, tails, shape): the shift of the ranks' normal scores that is expected, and in which share
# of the windows. A few windows that show a change, and the others not, are what rare events give that are far out.
LOCATION_BETS = tuple((s, 1.0) for size in (0.25, 0.5, 0.9, 1.5, 2.5, 4.0) for s in (size, -size))
SCALE_BETS = (*((s, 1.0) for s in (0.3, -0.3, 0.7, -0.7, 1.4, -1.4, 2.5)), (2.5, 0.3))
# A tail that thins or a law that fits better is no news.
TAIL_BETS = ((0.6, 1.0), (1.2, 1.0), (3.0, 0.1), (2.5, 0.3), (3.5, 0.3))
SHAPE_BETS = tuple((s, 1.0) for s in (0.3, 0.6, 1.1, 1.9, 3.0))
BETS = (LOCATION_BETS, SCALE_BETS, TAIL_BETS, TAIL_BETS, SHAPE_BETS)

ADAPTIVE_SHARE = 0.08
ADAPTIVE_DECAY = np.array([0.9, 0.98])  # memories of 10 and 50 windows
ADAPTIVE_PRIOR = 30.0  # windows' worth of the null in an adaptive bet
BOOST_REACH = (
    1024.0  # a statistic's evidence below the threshold over this is not raised: one window seldom brings so much
)
BOOST_SHORT = 1.0 - 1e-9  # times the factor: the rounding of its sums never raises it above the exact one
EVIDENCE_MAX = 1e250  # evidence of one window saturates here: far above any threshold, far below overflow
KEPT_MAX = 1e37  # and what is kept of it here: above any threshold, too, and what reaches a threshold starts again at 0
# What is smaller is 0: float32 numbers below 1.2e-38 are up to a hundred times as slow, and one that decays stays there for good.
# No result changes by it: beside the weight of a window, and the counts of the last one, it is below half a unit of a float64.
KEPT_MIN = 1e-30
ROUND_DOWN = 1.0 - 2.0**-23  # times it, then to the nearest float32: never above the number itself


def kept_ranks(windows: int) -> I64:
    """Which order statistics of `windows` >= 1 reference windows are kept: I64[r], r <= 35, increasing, 1 .. windows."""
    wanted = np.round(np.array(RANK_PROBABILITIES) * (windows + 1))
    return np.unique(np.clip(wanted, 1, windows)).astype(np.int64)


def order_statistics(values: F64, ties: F64, rank: I64) -> tuple[F64, F64]:
    """The pairs (value, tie) at the kept ranks, ties between equal values broken by `ties`."""
    chosen = np.lexsort((ties, values))[rank - 1]
    return values[chosen], ties[chosen]


def rank_counts(rank: I64, windows: int) -> F64:
    """Alpha F64[r + 1]: ranks of a new window in each rank bin; the sum is windows + 1."""
    return np.diff(np.concatenate([[0], rank, [windows + 1]])).astype(np.float64)


def shift_bets(rank: I64, windows: int, bets: Sequence[tuple[float, float]]) -> F64:
    """H F64[r + 1, len(bets)] of bets (s, share): mass of share N(s, 1) + (1 - share) N(0, 1) on the normal scores of each rank
    bin, over its null mass.
    """
    probit = ppf_all(rank / (windows + 1.0))
    null = rank_counts(rank, windows) / (windows + 1.0)
    columns = [
        1.0 - share + share * np.diff(np.concatenate([[0.0], cdf_all(probit - s), [1.0]])) / null for s, share in bets
    ]
    return np.ascontiguousarray(np.column_stack(columns))


@compiled
def rank_bin(value: float, tie: float, order: F32, ties: F32) -> int:
    """Number of kept pairs (order, ties) before (value, tie), lexicographically, all rounded to float32. O(log r)."""
    x, u = np.float32(value), np.float32(tie)
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        if order[middle] < x or (order[middle] == x and ties[middle] < u):
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def kept(grown: float) -> float:
    """Evidence >= 0 as it goes into a float32: rounded down; to 0 below KEPT_MIN."""
    return min(grown, KEPT_MAX) * ROUND_DOWN if grown > KEPT_MIN else 0.0


@compiled
def fading(memory: float) -> float:
    """A memory >= 0 that decays, as it goes into a float32: 0 below KEPT_MIN."""
    return memory if memory > KEPT_MIN else 0.0


@compiled
def bet(
    k: int, weight: float, present: F64, total: float, bets: F64, share: float, evidence: F32, scratch: F64
) -> float:
    """One window of the fixed bets of one statistic: evidence F32[M] <- (evidence + weight) L; returns share * its sum.

    present F64[r + 1] = alpha + N before this window (not changed), its sum `total`; bets [r + 1, M]; scratch F64[>= M]. O(r M).
    """
    weighted(present, bets, scratch)
    laid, after = row_of(bets, k), scratch[: bets.shape[1]]
    for i in range(len(after)):
        # Every bet has positive mass on some bin with alpha > 0, so the denominator is positive.
        grown = min((evidence[i] + weight) * (laid[i] * total / after[i]), EVIDENCE_MAX)
        evidence[i] = kept(grown)
        after[i] = grown
    return share * total_of(after)


@compiled
def bet_adaptively(
    k: int, weight: float, null: float, recent: F32, totals: F64, decay: F64, share: float, evidence: F32
) -> float:
    """One window of the adaptive bets, `null` the probability of its bin before it: recent F32[Q, r + 1] and
    evidence F32[Q] are moved on; returns share * sum. totals F64[Q]: sums of `recent` before it, of what is kept, so that E[L] = 1
    whatever its rounding.
    """
    statistic, bins = 0.0, recent.shape[1]
    for i in range(len(decay)):
        ratio = (recent[i, k] + ADAPTIVE_PRIOR * null) / ((totals[i] + ADAPTIVE_PRIOR) * null)
        grown = min((evidence[i] + weight) * ratio, EVIDENCE_MAX)
        evidence[i] = kept(grown)
        statistic += share * grown
        for l in range(bins):
            recent[i, l] = fading(recent[i, l] * decay[i])
        recent[i, k] += 1.0
    return statistic


@compiled
def largest_factor(chance: F64, grown: F64, others: float, before: float, threshold: float) -> float:
    """The largest b with others b + E[min(b grown, threshold)] <= before, but for rounding; at least 1. O(n) a step.

    grown F64[n] with probabilities chance F64[n]. Newton from below on a concave function of straight pieces: never beyond the
    root, and soon there.
    """
    factor = 1.0
    for _ in range(len(grown)):
        capped, free = 0.0, others
        for l in range(len(grown)):
            if factor * grown[l] >= threshold:
                capped += chance[l]
            else:
                free += chance[l] * grown[l]
        better = (before - threshold * capped) / free if free > 0.0 else factor
        if better <= factor:
            break
        factor = better
    return max(factor * BOOST_SHORT, 1.0)


@compiled
def boost_factor(
    weight: float, present: F64, bets: F64, share: float, evidence: F32,
    recent: F32, adaptive_share: float, adaptive: F32, before: float, threshold: float,
) -> float:  # fmt: skip
    """The largest b with E[min(b next, threshold)] <= before = the weighted sum of evidence + weight, but for rounding; at least 1.

    `next`: that sum after the window. Arguments as in `boost`. O(r (M + Q + r)).
    """
    bins, total = len(present), 0.0
    for l in range(bins):
        total += present[l]
    grown, chance = np.zeros(bins), np.empty(bins)
    for i in range(bets.shape[1]):
        mean = 0.0
        for l in range(bins):
            mean += present[l] * bets[l, i]
        stake = share * (evidence[i] + weight) * total / mean
        for l in range(bins):
            grown[l] += stake * bets[l, i]
    for i in range(len(adaptive)):
        recent_total = 0.0
        for l in range(bins):
            recent_total += recent[i, l]
        stake = adaptive_share * (adaptive[i] + weight) / (recent_total + ADAPTIVE_PRIOR)
        for l in range(bins):
            grown[l] += stake * (recent[i, l] * total / present[l] + ADAPTIVE_PRIOR)
    for l in range(bins):
        chance[l] = present[l] / total
    return largest_factor(chance, grown, 0.0, before, threshold)


@compiled
def in_reach(before: float, threshold: float) -> bool:
    """Whether evidence is near enough to the threshold, and below it, to be raised."""
    return before * BOOST_REACH >= threshold and before < threshold


@compiled
def boost(
    weight: float, present: F64, bets: F64, share: float, evidence: F32,
    recent: F32, adaptive_share: float, adaptive: F32, threshold: float,
) -> float:  # fmt: skip
    """Raise the evidence of one statistic before its window is seen; returns the weight raised likewise, for `bet` and `bet_adaptively`.

    evidence F32[M] of the fixed bets [r + 1, M], `share` each; adaptive F32[Q] of those with memory recent F32[Q, r + 1],
    `adaptive_share` each (Q = 0: none); present as in `bet`; threshold of their weighted sum. O(M), near the threshold O(r (M + Q + r)).
    """
    before = 0.0
    for i in range(len(evidence)):
        before += share * (evidence[i] + weight)
    for i in range(len(adaptive)):
        before += adaptive_share * (adaptive[i] + weight)
    if not in_reach(before, threshold):
        return weight
    factor = boost_factor(weight, present, bets, share, evidence, recent, adaptive_share, adaptive, before, threshold)
    if factor > 1.0:
        for i in range(len(evidence)):
            evidence[i] = kept(evidence[i] * factor)
        for i in range(len(adaptive)):
            adaptive[i] = kept(adaptive[i] * factor)
    return weight * factor


@compiled
def staked(weight: float, share: float, evidence: F32, scratch: F64) -> float:
    """What the fixed bets F32[M] of a statistic, `share` each, bring to a window. O(M)."""
    for i in range(len(evidence)):
        scratch[i] = evidence[i] + weight
    return share * total_of(scratch[: len(evidence)])


@compiled
def bet_on_share(
    k: int, weight: float, present: F64, total: float, bets: F64, evidence: F32, threshold: float, scratch: F64
) -> float:
    """One window of the bets of one share, weighted alike, none of them adaptive; returns their mean."""
    share, raised = 1.0 / len(evidence), weight
    if in_reach(
        staked(weight, share, evidence, scratch), threshold
    ):  # else `boost` does nothing: spares its many arguments
        none = evidence[:0]
        raised = boost(weight, present, bets, share, evidence, none.reshape((0, len(present))), 0.0, none, threshold)
    return bet(k, raised, present, total, bets, share, evidence, scratch)
