"""`window: auto`: the shortest windows of the reference that follow each other as if they were independent.

The rank layer needs windows that are exchangeable. On normal scores of the ranks of each statistic (within strata, where a
target has them), the variance ratio [1]

    VR(q) = q Var(mean of q successive windows) / Var(one window)        1 for independent windows, 1 + rho_1 for q = 2

must have an upper 95 % limit of at most 1.2 for blocks of 2 windows, and at most 1.5 for longer blocks up to a cycle (a
day). "Not significant" would reward short references; a limit asks for evidence. And what a long reference shows is not
passed over where a longer window mends it: of 2 windows the ratio itself should be at most 1.03, or what chance gives the worst
of some series (the ranks spend nearly all of the budget, so that a lag 1 of .06 makes four false alarms of three). A target that is
slower than the others takes several list windows as one.

Cost: one pass over the rows per length and target.    Source [1] Lo and MacKinlay 1988, Review of Financial Studies 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.normal import ppf_all

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
LENGTHS_MS = tuple(
    [s * 1000 for s in (1, 2, 5, 10, 30)]
    + [m * MINUTE_MS for m in (1, 2, 5, 10, 15, 30)]
    + [h * HOUR_MS for h in (1, 2, 3, 4, 6, 8, 12, 24)]
)
GROUPS = (1, 2, 3, 4, 6, 8, 12)  # list windows that a slow target may take as one
PAIR_LIMIT, CYCLE_LIMIT = 1.2, 1.5
CYCLE_MS = DAY_MS
PAIR_SEEN, SIGMAS_SEEN = 1.03, 3.0  # the ratio itself should be at most 1.03, or so many standard errors above 1
SIGMAS_95 = 1.645
BLOCKS_MIN = 100  # blocks that a ratio is taken from: fewer, and chance alone passes 1.5
WINDOWS_MIN = 100  # of a length that is tried at all: fewer cannot pass 1.2
SLOW_SHARE_MAX = 0.2  # of the targets may be slower than the list; they take several windows as one
SEEN_SHARE_MAX = 0.5  # of the targets may show some dependence within the limit: among many, chance makes some
DEPENDENCE_RESERVE = (
    1.4  # where shorter windows depended on each other: what is left makes 1.25 times the crossings with AR(.5)
)
SHARES_TESTED = 5  # most frequent categories of a categorical target: the limit is meant for one series, not for thirty


@dataclass(frozen=True, slots=True)
class Ratio:
    """The worst of a target's series: upper limit over its allowed value; at most 1 = independent enough. `pair`: the ratio of
    blocks of 2; seen: over what is passed over; at most 1 = no dependence is seen.
    """

    excess: float
    pair: float
    seen: float = 0.0


@dataclass(frozen=True, slots=True)
class Block:
    """Blocks of `size` windows of one target: the worst variance ratio of its series, its upper 95 % limit, what that may be,
    and the standard error of a ratio of independent windows.
    """

    size: int
    ratio: float
    upper: float
    allowed: float
    error: float


def ranks(values: F64, ties: F64) -> F64:
    """Ranks 1 .. m of values F64[m], ties broken."""
    rank = np.empty(len(values))
    rank[np.lexsort((ties, values))] = np.arange(1, len(values) + 1)
    return rank


def normal_scores(values: F64, ties: F64, stratum: I64 | None = None) -> F64:
    """Normal quantiles of the ranks of values F64[m], ties broken; of the ranks within each stratum, where there are strata."""
    if stratum is None:
        return ppf_all(ranks(values, ties) / (len(values) + 1.0))
    order = np.lexsort((ties, values, stratum))
    count = np.bincount(stratum)
    first = np.cumsum(count) - count
    place = stratum[order]
    rank = np.empty(len(values))
    rank[order] = (np.arange(len(values)) - first[place] + 1) / (count[place] + 1.0)
    return ppf_all(rank)


def ratio_error(m: int, q: int) -> float:
    """Standard error of VR(q) of m independent windows."""
    return math.sqrt(2.0 * (2 * q - 1) * (q - 1) / (3.0 * q * m))


def variance_ratio(x: F64, q: int) -> tuple[float, float]:
    """(VR(q), its upper 95 % limit) of x F64[m], m >= 2 q, from overlapping blocks."""
    m = len(x)
    centred = x - x.mean()
    total = np.concatenate([[0.0], np.cumsum(centred)])
    blocks = total[q:] - total[:-q]
    variance = float(centred @ centred) / m
    ratio = float(blocks @ blocks) / (len(blocks) * q * variance)
    ratio /= 1.0 - q / m  # the mean was taken from the same windows
    return ratio, ratio + SIGMAS_95 * ratio_error(m, q) * max(1.0, ratio)


def block_ratios(statistics: F64, ties: F64, length_ms: int, stratum: I64 | None = None) -> tuple[Block, ...]:
    """Blocks of 2, 4, 8, ... windows, up to a cycle or as many as there are enough blocks for. statistics F64[m, s], m >= 4;
    stratum I64[m] (strata.py): ranks within it.
    """
    m = len(statistics)
    longest = min(max(CYCLE_MS // max(length_ms, 1), 2), m // BLOCKS_MIN)
    series = [normal_scores(statistics[:, j], ties[:, j], stratum) for j in range(statistics.shape[1])]
    found, q = [], 2
    while q <= max(longest, 2):
        ratio, upper = max(variance_ratio(x, q) for x in series)  # the limit grows with the ratio
        found.append(Block(q, ratio, upper, PAIR_LIMIT if q == 2 else CYCLE_LIMIT, ratio_error(m, q)))
        q *= 2
    return tuple(found)


def dependence(statistics: F64, ties: F64, length_ms: int, stratum: I64 | None = None) -> Ratio:
    """Whether windows of one target, statistics F64[m, s], follow each other as if independent."""
    if len(statistics) < WINDOWS_MIN:
        return Ratio(math.inf, math.nan, math.inf)
    blocks = block_ratios(statistics, ties, length_ms, stratum)
    pair = blocks[0]
    seen = pair.ratio / max(PAIR_SEEN, 1.0 + SIGMAS_SEEN * pair.error)
    return Ratio(max(block.upper / block.allowed for block in blocks), pair.ratio, seen)


@dataclass(frozen=True, slots=True)
class Choice:
    """Chosen length; `holds`: the rule is met by all but the slow targets; tried: (length, windows, share of targets that hold)."""

    length_ms: int
    holds: bool
    tried: tuple[tuple[int, int, float], ...]


def choose_window(
    lengths_ms: Sequence[int], judge: Callable[[int], tuple[int, Sequence[Ratio]]], windows_min: int = WINDOWS_MIN
) -> Choice:
    """Shortest of the ascending lengths at which all but SLOW_SHARE_MAX of the targets hold, and at most half show some
    dependence; where more do at each, the longest at which they hold.

    `judge(length)` gives the number of windows and one Ratio a target. Where none holds: the length at which most targets do,
    the shorter of two; lengths with fewer than `windows_min` windows are only taken when there is no other.
    """
    tried: list[tuple[int, int, float]] = []
    within = None
    for length in lengths_ms:
        count, ratios = judge(length)
        share = float(np.mean([r.excess <= 1.0 for r in ratios])) if ratios else 1.0
        tried.append((length, count, round(share, 4)))
        if count < windows_min:
            break
        if share >= 1.0 - SLOW_SHARE_MAX:
            within = length
            if not ratios or np.mean([r.seen > 1.0 for r in ratios]) <= SEEN_SHARE_MAX:
                return Choice(length, True, tuple(tried))
    if within is not None:
        return Choice(within, True, tuple(tried))
    enough = [entry for entry in tried if entry[1] >= windows_min] or tried[:1]
    best = max(enough, key=lambda entry: (entry[2], -entry[0]))
    return Choice(best[0], False, tuple(tried))


def reserve(auto: Mapping[str, Any], group: int) -> float:
    """What the rank layer's thresholds of a target are raised by, from WindowInfo.auto and TargetReference.group. Ranks spend the
    whole budget on windows that are exchangeable; where windows had to be made longer until little dependence was seen, what is
    not seen needs a part of it.
    """
    return DEPENDENCE_RESERVE if group > 1 or len(auto.get("tried", ())) > 1 else 1.0


def choose_group(judge: Callable[[int], Ratio]) -> tuple[int, bool]:
    """(list windows that the target takes as one, whether that many are enough). `judge(k)` has groups of k.

    Where none is enough: the number that depends least, so that the ranks are as honest as they can be.
    """
    best, least = 1, math.inf
    for group in GROUPS:
        excess = judge(group).excess
        if excess <= 1.0:
            return group, True
        if excess < least:
            best, least = group, excess
    return best, False
