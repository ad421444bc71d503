"""Whether a reference's windows look exchangeable, target by target: what the bound on false alarms rests on.

On the ranks of the window statistics, which are what the rank layer bets on:

    dependence   the variance ratios of `window: auto` over all tested statistics (windows_auto)
    alternation  lag-1 autocorrelation of the normal scores of the first statistic, standard error m^-1/2 for independent
                 windows. Below -.2 windows alternate (day, night, day): a variance ratio is blind to that
    trend        Spearman's correlation of the first statistic with time; its standard error, (m - 1)^-1/2 for independent
                 windows, is widened by the square root of the worst variance ratio: what wanders has a chance trend

Does not see   changes slower than the blocks looked at (of 400 windows at most 4 make a block), and anything that the live
               stream does and the reference did not. Cost: milliseconds a target of 1,000 windows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from detectors.reference import TargetReference, WindowInfo
from detectors.reference_targets import group_starts, tested_statistics
from detectors.sequential.reference_ranks import grouped
from detectors.sequential.size_strata import size_strata
from detectors.sequential.strata import Season, hours_of
from detectors.sequential.windows_auto import (
    PAIR_LIMIT,
    SIGMAS_95,
    WINDOWS_MIN,
    Block,
    block_ratios,
    normal_scores,
    ranks,
)

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

LAG_MAX = PAIR_LIMIT - 1.0  # a variance ratio of pairs is 1 + lag-1: the same limit on the other side
SIGMAS_CERTAIN = 3.0  # for "no": .27 % by chance, times the targets and statistics looked at


class Exchangeable(StrEnum):
    """`unknown`: without time there is no order to look at, and a few windows show nothing."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Cause(StrEnum):
    """Why windows are not, or not known to be, exchangeable."""

    DEPENDENCE = "dependence"
    ALTERNATION = "alternation"
    TREND = "trend"
    TOO_FEW = "too_few_windows"
    NO_TIME = "no_time"


@dataclass(frozen=True, slots=True)
class TargetCheck:
    """One target's windows. `group`: list windows that it takes as one; without time the figures are None and blocks empty."""

    name: str
    exchangeable: Exchangeable
    causes: tuple[Cause, ...]
    windows: int
    group: int
    size_median: int
    lag1: float | None = None
    lag1_error: float | None = None
    trend: float | None = None
    trend_error: float | None = None
    blocks: tuple[Block, ...] = ()

    @property
    def worst(self) -> Block | None:
        """The block whose upper limit is furthest above what it may be, or nearest to it."""
        return max(self.blocks, key=lambda block: block.upper / block.allowed, default=None)


def autocorrelation(x: F64) -> float:
    """Of x F64[m] with itself one later."""
    centred = x - x.mean()
    return float(centred[1:] @ centred[:-1]) / float(centred @ centred)


def rank_trend(rank: F64) -> float:
    """Spearman's correlation of ranks F64[m] (1 .. m, no ties) with their order."""
    m = len(rank)
    difference = rank - np.arange(1, m + 1)
    return 1.0 - 6.0 * float(difference @ difference) / (m * (m * m - 1.0))


def check_target(target: TargetReference, windows: I64, info: WindowInfo, start_ms: I64 | None) -> TargetCheck:
    """Look at the list windows I64[m, b + 2] of one target, in time order, as its reference was made of them. start_ms I64[m].

    Where it has strata: at the ranks within them.
    """
    unknown = Exchangeable.UNKNOWN
    if not info.checked:
        causes = (Cause.NO_TIME,)
        return TargetCheck(target.name, unknown, causes, target.windows, target.group, target.size_median)
    judged = grouped(windows, target.group)
    statistics, ties = tested_statistics(target, judged)
    m, sizes = len(statistics), judged.sum(axis=1)
    stratum = None
    if target.strata is not None and start_ms is not None:
        if target.strata.by_clock:
            stratum = hours_of(Season(target.strata.by), group_starts(start_ms, target.group))
        else:
            stratum = size_strata(target.strata.bounds, sizes)
    blocks = block_ratios(statistics, ties, info.every_ms * target.group, stratum)
    score = normal_scores(statistics[:, 0], ties[:, 0], stratum)
    trend = rank_trend(ranks(score, ties[:, 0]))
    trend_error = math.sqrt(max(1.0, *(block.ratio for block in blocks)) / (m - 1.0))
    lag1, lag1_error = autocorrelation(score), m**-0.5
    found = []
    if any(b.ratio > max(b.allowed, 1.0 + SIGMAS_CERTAIN * b.error) for b in blocks):
        found.append(Cause.DEPENDENCE)
    if -lag1 > max(LAG_MAX, SIGMAS_CERTAIN * lag1_error):
        found.append(Cause.ALTERNATION)
    if abs(trend) > SIGMAS_CERTAIN * trend_error:
        found.append(Cause.TREND)
    verdict = Exchangeable.NO if found else Exchangeable.YES
    shown = m >= WINDOWS_MIN and all(b.upper <= b.allowed for b in blocks) and SIGMAS_95 * lag1_error - lag1 <= LAG_MAX
    if not found and not shown:
        verdict, found = unknown, [Cause.TOO_FEW]
    return TargetCheck(
        name=target.name,
        exchangeable=verdict,
        causes=tuple(found),
        windows=m,
        group=target.group,
        size_median=target.size_median,
        lag1=lag1,
        lag1_error=lag1_error,
        trend=trend,
        trend_error=trend_error,
        blocks=blocks,
    )
