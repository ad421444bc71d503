"""`tolerance: auto`: the tube of a target is widened until it holds what the reference's own days do.

A day (or another stretch of the clock: a block) may have a law of its own, without any drift. Windows of one day then resemble
each other more than those of another, no window length mends that, and the rank layer promises nothing. The tube still does,
if it is wide enough for the law of a block to lie inside: false alarms are left to the blocks beyond it.

    size      for each cut j of a numeric target, each share of a categorical one, and the shares of missing and invalid values:
              e_b = probit(F_b(j)) - probit(F(j)) of block b (F of its strata, where there are any), with sampling variance
              v_b = F (1 - F) / (n_b phi(probit F)^2).
              s_j^2 = the variance of e_b beyond v_b, by moments [1]; 0 unless Cochran's Q is above its 5 % limit, divided by
              the number of series. s = the largest: so an effect on scale, tails or shape counts as one on location does
    trend     where e_b moves steadily over the reference, by more than TREND_SIGMAS standard errors of the blocks' own scatter,
              the straight line is taken out first: it is no effect that comes and goes. A tube that held it would hold its
              going on, which is drift; a reference with a trend bears no promise either way, and check-reference says so
    blocks    by the clock (UTC), a day long, or the longest length of which the reference has at least BLOCKS_MIN; halves and
              quarters of it are looked at, too, for days may begin at any hour. Of these the longest whose s is within a tenth
              of the largest. With fewer blocks nothing is said
    tolerance the least tau >= max(configured, 2 s) with E[alarms of a block] <= 1/2 length / (budget x cells): all blocks
              together cause at most half of the false alarms that are accepted (they come in clusters, one bad day several,
              and the blocks inside have their own). The effect e of one more block has Student's law
              (normal effects whose s is known from so many blocks [2]). Beyond the tube by d = |e| - tau, the evidence of its n
              events grows by x^2 / 2 +- x, x = d sqrt(n), at most: with a margin for chance, y = x^2 / 2 + 1.64 x. It crosses,
              from a block's time at most, when y >= l = log(budget x cells / length), then at most y / l times, and never more
              often than there are windows. 2 s alone, whatever the budget, broke the bound 2-fold at s = .2, 200-fold for 200
              cells. Some 3 to 5 s at usual budgets

Assumes  block effects that are independent and normal, and that live blocks are like the reference's. Blocks longer than
         those looked at are not seen. Cost: milliseconds a target of 5,000 windows
Source   [1] DerSimonian and Laird 1986, Controlled Clinical Trials 7; Cochran 1954, Biometrics 10
         [2] Hahn and Meeker 1991, Statistical Intervals, 4.8
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.binning import Binning, Kind
from detectors.normal import pdf_all, ppf, ppf_all
from detectors.reference import BlockEffects, fold

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
BLOCKS_MS = tuple(
    [h * HOUR_MS for h in (24, 12, 8, 6, 4, 3, 2, 1)] + [m * MINUTE_MS for m in (30, 20, 15, 10, 5, 2, 1)]
)
"""Lengths of blocks, the longest first: all divide a day."""
SIGMAS_95 = 1.645
BLOCKS_MIN = 20  # a standard deviation from fewer is not known to a fifth
PARTS = (1, 2, 4)  # of the longest length are looked at
WINDOWS_PER_BLOCK_MIN = 2  # below it a block is a window, and its effect the window's own chance
COUNT_MIN = 25.0  # n F (1 - F) of a typical block: with fewer a probit is no normal variable
BLOCKS_SHARE = 0.5  # of the false alarms that are accepted may be caused by blocks beyond the tube
SIZES_MIN = 2.0  # standard deviations that the tube holds in any case: blocks less far outside could add up
SIGNIFICANT = 0.05
NEAR = 0.9  # of the largest effect
TREND_SIGMAS = 3.5  # one series in 2,000 without a trend passes it, and then its effects are only a little smaller
DIGITS = 6  # of sizes
PRECISION = 1e-4  # of tolerances
STEPS = np.linspace(0.0, 12.0, 481)  # beyond the tube, in standard deviations


class Tolerances(NamedTuple):
    """In force for one target, in probit units: `values` (of a categorical target its shares), `absent` (missing, invalid)."""

    values: float
    absent: float


def block_effects(
    binning: Binning, windows: I64, start_ms: I64, every_ms: int, stratum: I64 | None = None
) -> BlockEffects | None:
    """Effects of blocks on windows I64[m, b + 2] that began at start_ms I64[m] (ascending), one every `every_ms` or more.

    stratum I64[m]: windows are compared with those of their stratum. None: too few blocks.
    """
    lengths = _lengths(start_ms, every_ms)
    if not lengths:
        return None
    series = _series(binning, windows, np.zeros(len(windows), np.int64) if stratum is None else stratum)
    found = [_sizes(binning, series, start_ms // length) for length in lengths]
    largest = max(values for values, _ in found), max(absent for _, absent in found)
    kind = 0 if largest[0] > 0.0 else 1
    at = next(i for i, sizes in enumerate(found) if sizes[kind] >= NEAR * largest[kind])
    blocks = len(np.unique(start_ms // lengths[0]))  # halves and quarters of a day are not known to be independent
    block = start_ms // lengths[at]
    return BlockEffects(
        length_ms=lengths[at],
        events=int(_added(windows.sum(axis=1), block).max()),
        windows=int(np.unique(block, return_counts=True)[1].max()),
        blocks=blocks,
        values=round(largest[0], DIGITS),
        absent=round(largest[1], DIGITS),
    )


def _lengths(start_ms: I64, every_ms: int) -> list[int]:
    """Lengths to look at, the longest first; none where the reference is too short."""
    shortest = WINDOWS_PER_BLOCK_MIN * max(every_ms, 1)
    for length in BLOCKS_MS:
        if length < shortest:
            break
        if len(np.unique(start_ms // length)) >= BLOCKS_MIN:
            return [length // part for part in PARTS if part == 1 or length // part >= shortest]
    return []


@dataclass(frozen=True, slots=True)
class _Shares:
    """counts I64[m, j] of `total` I64[m] events of each window, and how many were to be expected, F64[m, j]."""

    counts: I64
    total: I64
    expected: F64


def _added(of_windows: NDArray[Any], block: I64) -> NDArray[Any]:
    """Sums over the windows of each block; block I64[m] ascending."""
    _, first = np.unique(block, return_index=True)
    added: NDArray[Any] = np.add.reduceat(of_windows, first, axis=0)
    return added


def _series(binning: Binning, windows: I64, stratum: I64) -> tuple[_Shares, _Shares]:
    """(values: at the cuts of a numeric target, else of each category, missing and invalid; missing and invalid)."""
    folded = fold(binning, windows)
    everything = folded.sum(axis=1)
    absent = _expected(folded[:, -2:], everything, stratum)
    if binning.kind is not Kind.NUMERIC:
        return _expected(folded, everything, stratum), absent
    below = np.cumsum(folded[:, :-2], axis=1)
    return _expected(below[:, :-1], below[:, -1], stratum), absent


def _expected(counts: I64, total: I64, stratum: I64) -> _Shares:
    """With the shares of each window's stratum."""
    _, place = np.unique(stratum, return_inverse=True)
    sums = np.zeros((int(place.max()) + 1, counts.shape[1]))
    events = np.zeros(len(sums))
    np.add.at(sums, place, counts)
    np.add.at(events, place, total)
    share = sums / np.maximum(events, 1.0)[:, np.newaxis]
    return _Shares(counts, total, total[:, np.newaxis] * share[place])


def _sizes(binning: Binning, series: tuple[_Shares, _Shares], block: I64) -> tuple[float, float]:
    """Standard deviation of the effects of blocks on values, and on missing and invalid."""
    effects = [_effects(shares, block) for shares in series]
    tests = max(1, sum(len(each) for each in effects))
    values, absent = (max((_excess(*one, tests) for one in each), default=0.0) for each in effects)
    return (values, absent) if binning.kind is Kind.NUMERIC else (values, values)


def _effects(shares: _Shares, block: I64) -> list[tuple[F64, F64]]:
    """(effect, sampling variance) F64[blocks] of each share that is known well enough."""
    counts, total, expected = (_added(part, block) for part in (shares.counts, shares.total, shares.expected))
    kept = total > 0
    counts, total, expected = counts[kept], total[kept], expected[kept]
    if len(total) < 2:
        return []
    usual = expected / total[:, np.newaxis]
    found = []
    for j in np.flatnonzero(np.median(expected * (1.0 - usual), axis=0) >= COUNT_MIN).tolist():
        share = usual[:, j]
        spread = share * (1.0 - share)
        inside = spread > 0.0  # not the blocks in whose strata there is nothing to vary
        share, events, seen = share[inside], total[inside], counts[inside, j]
        centre = ppf_all(share)
        variance = share * (1.0 - share) / (events * pdf_all(centre) ** 2)
        found.append((ppf_all((seen + 0.5) / (events + 1.0)) - centre, variance))
    return found


def _excess(effect: F64, variance: F64, tests: int) -> float:
    """Standard deviation of the effects, in the order of time, beyond their sampling variance and a trend; 0 = not told from
    them, among so many series.
    """
    weight = 1.0 / variance
    total = float(weight.sum())
    centred = effect - float(weight @ effect) / total
    freedom, own = len(effect) - 1, total - float(weight @ weight) / total
    time = np.arange(len(effect)) - float(weight @ np.arange(len(effect))) / total
    spread = float(weight @ time**2)
    if freedom > 1 and spread > 0.0:
        slope = float(weight @ (time * centred)) / spread
        rest = centred - slope * time
        scatter = float(weight @ rest**2) / (freedom - 1)
        if abs(slope) > TREND_SIGMAS * math.sqrt(max(scatter, 1.0) / spread):
            centred, freedom, own = rest, freedom - 1, own - float(weight**2 @ time**2) / spread
    q = float(weight @ centred**2)
    if q <= chi_squared_limit(SIGNIFICANT / tests, freedom):
        return 0.0
    return math.sqrt((q - freedom) / own)


def chi_squared_limit(chance: float, freedom: int) -> float:
    """Exceeded by a chi-squared variable with this chance (Wilson and Hilferty 1931: to 1 % from 10 degrees of freedom on)."""
    part = 2.0 / (9.0 * freedom)
    return freedom * (1.0 - part - ppf(chance) * math.sqrt(part)) ** 3


def _alarms(tolerance: float, size: float, effects: BlockEffects, crossing: float) -> float:
    """Expected alarms of one more block, at most."""
    freedom = effects.blocks - 1
    scale = size * math.sqrt(1.0 + 1.0 / effects.blocks)
    beyond = scale * STEPS
    constant = math.exp(math.lgamma(0.5 * (freedom + 1)) - math.lgamma(0.5 * freedom)) / math.sqrt(freedom * math.pi)
    density = constant * (1.0 + ((tolerance + beyond) / scale) ** 2 / freedom) ** (-0.5 * (freedom + 1))
    x = beyond * math.sqrt(effects.events)
    grown = 0.5 * x * x + SIGMAS_95 * x
    alarms = np.where(grown >= crossing, np.minimum(grown / crossing, effects.windows), 0.0)
    return 2.0 * float(density @ alarms) * float(STEPS[1])


def _holding(size: float, effects: BlockEffects, blocks: float, most: float) -> float:
    """The tolerance for effects of this size, when one alarm in so many blocks is accepted. Under a ms."""
    low = SIZES_MIN * size
    if size == 0.0 or low >= most:
        return min(low, most)
    crossing = max(math.log(max(blocks, 1.0)), 1.0)
    high = low
    if _alarms(low, size, effects, crossing) * blocks > BLOCKS_SHARE:
        high = most
        while high - low > PRECISION:
            middle = 0.5 * (low + high)
            low, high = (
                (middle, high) if _alarms(middle, size, effects, crossing) * blocks > BLOCKS_SHARE else (low, middle)
            )
    return min(math.ceil(high / PRECISION) * PRECISION, most)


def tolerances(least: float, effects: BlockEffects | None, budget_ms: float, cells: int, *, most: float) -> Tolerances:
    """What is in force where at least `least` is configured; never above `most`."""
    if effects is None:
        return Tolerances(least, least)
    blocks = budget_ms * cells / effects.length_ms
    values, absent = (max(least, _holding(size, effects, blocks, most)) for size in (effects.values, effects.absent))
    return Tolerances(values, absent)
