"""`tolerance: auto`: the tube of a target is widened until it holds what the reference's own days do.

A day (or another stretch of the clock: a block) may have a law of its own, without any drift. Windows of one day then resemble
each other more than those of another, no window length mends that, and the rank layer promises nothing. The tube still does,
if it is wide enough for the law of a block to lie inside: false alarms are left to the blocks beyond it.

    size      for each cut j of a numeric target, each share of a categorical one, and the shares of missing and invalid values:
              e_b = probit(F_b(j)) - probit(F(j)) of block b, with sampling variance v_b = F (1 - F) / (n_b phi(probit F)^2).
              s_j^2 = the variance of e_b beyond v_b, by moments [1]; 0 unless Cochran's Q is above its 5 % limit, divided by
              the number of series. s = the largest: so an effect on scale, tails or shape counts as one on location does
    blocks    by the clock (UTC), a day long, or the longest length of which the reference has at least BLOCKS_MIN; halves and
              quarters of it are looked at, too, for days may begin at any hour. Of these the longest whose s is within a tenth
              of the largest. With fewer blocks nothing is said
    tolerance the least tau >= max(configured, 2 s) with E[alarms of a block] <= 1/2 length / (budget x cells): all blocks
              together cause at most half of the false alarms that are accepted (they come in clusters, one bad day several,
              and the blocks inside have their own). The effect e of one more block has Student's law
              (normal effects whose s is known from so many blocks [2]). Beyond the tube by d = |e| - tau, the evidence of its n
              events grows by x^2 / 2 +- x, x = d sqrt(n), at most: with a margin for chance, y = x^2 / 2 + 1.64 x. It crosses,
              from a block's time at most, when y >= l = log(budget x cells / length), then at most y / l times, and never more
              often than there are windows. 2 s alone, whatever the budget, broke the bound 3-fold at s = .2, 300-fold for 200
              cells. Some 3 to 5 s at usual budgets

Assumes  block effects that are independent and normal, and that live blocks are like the reference's. Blocks longer than
         those looked at are not seen. Cost: milliseconds a target of 5,000 windows
Source   [1] DerSimonian and Laird 1986, Controlled Clinical Trials 7; Cochran 1954, Biometrics 10
         [2] Hahn and Meeker 1991, Statistical Intervals, 4.8
"""

from __future__ import annotations

import math
from typing import NamedTuple

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
DIGITS = 6  # of sizes
PRECISION = 1e-4  # of tolerances
STEPS = np.linspace(0.0, 12.0, 481)  # beyond the tube, in standard deviations


class Tolerances(NamedTuple):
    """In force for one target, in probit units: `values` (of a categorical target its shares), `absent` (missing, invalid)."""

    values: float
    absent: float


def block_effects(binning: Binning, windows: I64, start_ms: I64, every_ms: int) -> BlockEffects | None:
    """Effects of blocks on windows I64[m, b + 2] that began at start_ms I64[m] (ascending), one every `every_ms` or more.

    None: too few blocks.
    """
    lengths = _lengths(start_ms, every_ms)
    if not lengths:
        return None
    added = [_added(windows, start_ms, length) for length in lengths]
    found = [_sizes(binning, blocks) for blocks in added]
    largest = max(values for values, _ in found), max(absent for _, absent in found)
    kind = 0 if largest[0] > 0.0 else 1
    at = next(i for i, sizes in enumerate(found) if sizes[kind] >= NEAR * largest[kind])
    blocks = len(np.unique(start_ms // lengths[0]))  # halves and quarters of a day are not known to be independent
    events = int(added[at].sum(axis=1).max())
    most = int(np.unique(start_ms // lengths[at], return_counts=True)[1].max())
    return BlockEffects(lengths[at], events, most, blocks, round(largest[0], DIGITS), round(largest[1], DIGITS))


def _lengths(start_ms: I64, every_ms: int) -> list[int]:
    """Lengths to look at, the longest first; none where the reference is too short."""
    shortest = WINDOWS_PER_BLOCK_MIN * max(every_ms, 1)
    for length in BLOCKS_MS:
        if length < shortest:
            break
        if len(np.unique(start_ms // length)) >= BLOCKS_MIN:
            return [length // part for part in PARTS if part == 1 or length // part >= shortest]
    return []


def _added(windows: I64, start_ms: I64, length_ms: int) -> I64:
    """Counts of each block: of the windows that began in it."""
    _, first = np.unique(start_ms // length_ms, return_index=True)
    added: I64 = np.add.reduceat(windows, first, axis=0)
    return added


def _sizes(binning: Binning, blocks: I64) -> tuple[float, float]:
    """Standard deviation of the effects on values, and on missing and invalid, of counts I64[blocks, b + 2]."""
    folded = fold(binning, blocks)
    everything = folded.sum(axis=1)
    shares, absent = folded[:, :-2], folded[:, -2:]
    if binning.kind is Kind.NUMERIC:
        below, of = np.cumsum(shares, axis=1)[:, :-1], shares.sum(axis=1)
    else:
        below, of = folded, everything
    series = [_effects(counts, total) for counts, total in ((below, of), (absent, everything))]
    tests = max(1, sum(len(each) for each in series))
    sizes = [max((_excess(*one, tests) for one in each), default=0.0) for each in series]
    return (sizes[0], sizes[1]) if binning.kind is Kind.NUMERIC else (sizes[0], sizes[0])


def _effects(counts: I64, total: I64) -> list[tuple[F64, F64]]:
    """(effect, sampling variance) F64[blocks] of each share counts[:, j] / total that is known well enough."""
    kept = total > 0
    counts, total = counts[kept], total[kept]
    if len(total) < 2:
        return []
    whole = counts.sum(axis=0) / total.sum()
    known = np.flatnonzero(np.median(total) * whole * (1.0 - whole) >= COUNT_MIN)
    found = []
    for j in known.tolist():
        share, centre = (counts[:, j] + 0.5) / (total + 1.0), ppf_all(whole[j : j + 1])
        variance = whole[j] * (1.0 - whole[j]) / (total * pdf_all(centre) ** 2)
        found.append((ppf_all(share) - centre, variance))
    return found


def _excess(effect: F64, variance: F64, tests: int) -> float:
    """Standard deviation of the effects beyond their sampling variance; 0 = not told from it, among so many series."""
    weight = 1.0 / variance
    total = float(weight.sum())
    centred = effect - float(weight @ effect) / total
    q, freedom = float(weight @ centred**2), len(effect) - 1
    if q <= chi_squared_limit(SIGNIFICANT / tests, freedom):
        return 0.0
    return math.sqrt((q - freedom) / (total - float(weight @ weight) / total))


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
