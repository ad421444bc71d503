"""Strata by the clock: a window is ranked among the reference's windows of the same hour, and has that hour's tube.

Where the law of a stream follows the clock (a season, traffic that swells by day), windows of different hours are no
exchangeable ones, those of one hour are. Hours are UTC, by the start of the window; a window that
reaches into another hour is of none: how much of it is of which hour depends on when the windows began, which the reference's and
live ones share as little as a phase. It is left out of the reference's strata, and live its L is 1. A target's strata are the
hours of the week, else the hours of the day, else sizes of windows (size_strata.py) or none:

    carried   a stratum needs WINDOWS_MIN windows; those that have so many must hold CARRIED_SHARE of all windows, in a reference of
              at least CYCLES_MIN cycles, with windows of at most LENGTH_MAX_MS (so that of two in a row one is within an hour,
              whenever they begin)
    needed    some statistic, or how widely it spreads, differs between the hours. On normal scores x of the ranks, and on x^2,
                  (m - 1) SS_between / SS_total      about chi-squared, hours - 1 degrees of freedom [1]
              at a level of LEVEL, divided by the number of series. Hours of the week are tested within the hours of the day, and
              must leave windows that follow each other as if independent (windows_auto): days that differ at random look like a
              week to the test. Strata that are not needed would cost memory, and delay where they are small

A target of a setting other than `auto` has the strata it names as soon as one of them has enough windows. What is chosen follows from
the reference alone; under exchangeable windows it depends on their order, and the ranks of later windows do not.

Does not see   a season of less than about a tenth of a window's standard deviation (in 5,000 windows), and the clock of a time
               zone that shifts by an hour twice a year
Source         [1] Kruskal and Wallis 1952, JASA 47; van der Waerden's scores; Wilson and Hilferty 1931, PNAS 17 (quantiles)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detectors.normal import ppf
from detectors.sequential.windows_auto import DAY_MS, HOUR_MS, dependence, normal_scores

if TYPE_CHECKING:
    from detectors.reference_strata import Strata

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

WINDOWS_MIN = 20  # of a stratum: below it a rank says next to nothing
CARRIED_SHARE = 0.95
CYCLES_MIN = 3  # of fewer, the effect of a day could not be told from that of an hour
LEVEL = 0.001
LENGTH_MAX_MS = HOUR_MS // 2
THURSDAY = 3  # 1970 began on one; the week's hours begin on Monday


class Season(StrEnum):
    """What an operator may ask for."""

    AUTO = "auto"
    NONE = "none"
    HOUR_OF_DAY = "hour_of_day"
    HOUR_OF_WEEK = "hour_of_week"


HOURS = {Season.HOUR_OF_DAY: 24, Season.HOUR_OF_WEEK: 168}


@dataclass(frozen=True, slots=True)
class Chosen:
    """`season`: NONE, HOUR_OF_DAY or HOUR_OF_WEEK; `stratum` I64[m] of each window, None without strata."""

    season: Season
    stratum: I64 | None = None


def hour_of(season: Season, start_ms: int) -> int:
    """Stratum of a window that starts then."""
    hours = start_ms // HOUR_MS
    return int((hours + 24 * THURSDAY) % 168 if season is Season.HOUR_OF_WEEK else hours % 24)


def hours_of(season: Season, start_ms: I64) -> I64:
    """`hour_of` each."""
    hours = start_ms // HOUR_MS
    found: I64 = (hours + 24 * THURSDAY) % 168 if season is Season.HOUR_OF_WEEK else hours % 24
    return found


def within_hour(start_ms: int, end_ms: int) -> bool:
    """Whether [start_ms, end_ms) is of one hour."""
    return start_ms // HOUR_MS == (end_ms - 1) // HOUR_MS


def within_hours(start_ms: I64, end_ms: I64) -> NDArray[np.bool_]:
    """`within_hour` each."""
    found: NDArray[np.bool_] = start_ms // HOUR_MS == (end_ms - 1) // HOUR_MS
    return found


def hour_counts(strata: Strata, start_ms: int) -> NDArray[Any] | None:
    """Int[b + 2]: counts of the reference's windows of that hour; None where it has too few of them, or strata by size."""
    if not strata.by_clock:
        return None
    hour, judged = hour_of(Season(strata.by), start_ms), strata.windows >= WINDOWS_MIN
    return strata.counts[int(judged[:hour].sum())] if judged[hour] else None


def enough(season: Season, stratum: I64) -> NDArray[np.bool_]:
    """Bool[hours]: which strata have enough windows."""
    return np.bincount(stratum, minlength=HOURS[season]) >= WINDOWS_MIN


def carries(season: Season, start_ms: I64, length_ms: int) -> bool:
    """Whether windows of so long, starting at start_ms I64[m] (ascending) and within their hours, fill the strata."""
    if not len(start_ms) or length_ms > LENGTH_MAX_MS:
        return False
    if start_ms[-1] - start_ms[0] < CYCLES_MIN * HOURS[season] * HOUR_MS - DAY_MS // 2:
        return False
    stratum = hours_of(season, start_ms)
    filled = enough(season, stratum)
    return int(filled.sum()) > 1 and float(filled[stratum].mean()) >= CARRIED_SHARE


def chi_squared_quantile(degrees: int, tail: float) -> float:
    """Above which a chi-squared variable is with probability `tail`; within 1 % for tail >= 1e-6 and 10 degrees."""
    spread = 2.0 / (9.0 * degrees)
    return float(degrees * (1.0 - spread - ppf(tail) * math.sqrt(spread)) ** 3)


def differs(statistics: F64, ties: F64, stratum: I64, within: I64 | None) -> bool:
    """Whether statistics F64[m, s] differ between strata, beyond the coarser ones of `within`."""
    count = np.bincount(stratum)
    groups = int(np.count_nonzero(count))
    degrees = groups - (1 if within is None else len(np.unique(within)))
    if degrees < 1:
        return False
    limit = chi_squared_quantile(degrees, LEVEL / (2 * statistics.shape[1]))
    for j in range(statistics.shape[1]):
        score = normal_scores(statistics[:, j], ties[:, j], within)
        for x in (score, score**2):
            centred = x - x.mean()
            if within is not None:  # squares of small strata's scores have other means
                sums = np.bincount(within, centred) / np.maximum(np.bincount(within), 1)
                centred = centred - sums[within]
            between = float((np.bincount(stratum, centred) ** 2 / np.maximum(count, 1)).sum())
            if (len(x) - 1) * between > limit * float(centred @ centred):
                return True
    return False


def choose(wanted: Season, start_ms: I64 | None, statistics: F64, ties: F64, length_ms: int) -> Chosen:
    """Strata of windows with statistics and ties F64[m, s], starting at start_ms I64[m] (None: without time). O(m s log m)."""
    none = Chosen(Season.NONE)
    if wanted is Season.NONE or start_ms is None or not len(start_ms) or length_ms > LENGTH_MAX_MS:
        return none
    if wanted is not Season.AUTO:
        stratum = hours_of(wanted, start_ms)
        return Chosen(wanted, stratum) if enough(wanted, stratum).any() else none
    week, day = Season.HOUR_OF_WEEK, Season.HOUR_OF_DAY
    of_day = hours_of(day, start_ms)
    if carries(week, start_ms, length_ms):
        of_week = hours_of(week, start_ms)
        if (
            differs(statistics, ties, of_week, of_day)
            and dependence(statistics, ties, length_ms, of_week).excess <= 1.0
        ):
            return Chosen(week, of_week)
    if carries(day, start_ms, length_ms) and differs(statistics, ties, of_day, None):
        return Chosen(day, of_day)
    return none
