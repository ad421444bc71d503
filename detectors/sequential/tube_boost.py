"""What a window would add to the tube's evidence beyond the threshold, given back before the window is seen.

A crossing pays the threshold A and starts again: what is beyond it buys nothing. So all evidence of the tube is raised by a factor
b >= 1 for which E[min(b evidence after, A)] is at most the evidence before, whatever laws of the tube the window's events have [1].

The bets that lead (those of all sizes on one side, say) grow with the place of an event's bin in one order of the bins. Over the
tube the events that are beyond a place are at most as likely as its gates allow, P(place >= r) <= p(r), and min(b sum, A) grows
with each event's place: so its mean is largest when all events are drawn from p, however the laws change from event to event.
Of all other bets nothing is used but that their mean does not grow. Under p the bins are put together to three levels (two, where
a window has many events) with the mean of each bet over them: that lowers the spread, which raises the mean of what is cut at A.
So b is never too large; the three levels keep most of what it could be.

b is of how many events the window has, and for bets on values of how many of them have one. So the tube's promise is: the law of
an event's value is inside, given those before it and how many of the window's values are missing or invalid.

Cost: only above A / REACH; there some 20 us.    Source [1] Fischer and Ramdas 2024, as rank_layer.py; the bound is our own.
"""

# ruff: noqa: PLR0917 - compiled kernels take their arrays one by one

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import compiled
from detectors.lanes import EXPONENT_MAX, total
from detectors.sequential.rank_layer import largest_factor

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

REACH = 64.0  # evidence below the threshold over this is not raised: a window seldom brings so much, and most streams never come here
THREE_LEVELS_MAX = 45  # events: some 1,100 ways in which they can fall into three levels
TWO_LEVELS_MAX = 1000  # events; a window of more has all of a change in it, or none


@compiled
def largest_law(order: I64, lo: F64, hi: F64) -> F64:
    """Masses F64[K] of the places in `order` I64[K] (bins): P(place >= r) is what a law of the tube can have at most. O(K^2)."""
    bins = len(order)
    inside, masses = np.zeros(bins), np.zeros(bins)
    before = 0.0
    for r in range(bins - 1, -1, -1):
        inside[order[r]] = 1.0
        most = inside[bins - 1]
        for k in range(bins - 1):
            step = inside[k] - inside[k + 1]
            most += step * hi[k] if step > 0.0 else step * lo[k]
        most = min(max(most, before), 1.0)
        masses[r] = most - before
        before = most
    return masses


@compiled
def cuts(masses: F64, h: F64, three: bool) -> tuple[int, int]:
    """Places at which levels begin, 0 < a < b (b = K: two levels), that keep most of the variance of a bet h F64[K]; (0, 0): none."""
    bins = len(masses)
    mass, grown = np.zeros(bins + 1), np.zeros(bins + 1)
    for r in range(bins):
        mass[r + 1] = mass[r] + masses[r]
        grown[r + 1] = grown[r] + masses[r] * h[r]
    best, first, second = -1.0, 0, 0
    for a in range(1, bins):
        if mass[a] <= 0.0:
            continue
        for b in range(a + 1 if three else bins, bins + 1):
            middle, last = mass[b] - mass[a], mass[bins] - mass[b]
            if middle <= 0.0 or (b < bins and last <= 0.0):
                continue
            kept = grown[a] ** 2 / mass[a] + (grown[b] - grown[a]) ** 2 / middle
            if b < bins:
                kept += (grown[bins] - grown[b]) ** 2 / last
            if kept > best:
                best, first, second = kept, a, b
    return first, second


@compiled
def order_of(bet: F64) -> I64:
    """Bins in the order of a bet F64[K]; equal ones by their number, along with the bet from end to end."""
    bins = len(bet)
    along = np.empty(bins, np.int64)
    for k in range(bins):
        along[k] = k if bet[bins - 1] >= bet[0] else bins - 1 - k
    return along[np.argsort(bet[along], kind="mergesort")]


@compiled
def level_means(
    order: I64, masses: F64, first: int, second: int, log_h: F64, stakes: F64, level: F64
) -> tuple[F64, F64]:
    """(h F64[m, 3]: mean on each level, stakes F64[m]) of the m bets of log_h F64[K, M] that grow along `order`; `level` F64[3] = its
    masses, filled.
    """
    bins, bets = log_h.shape
    means, own, count = np.zeros((bets, 3)), np.zeros(bets), 0
    level[:] = 0.0
    for r in range(bins):
        level[(r >= first) + (r >= second)] += masses[r]
    for i in range(bets):
        grows = stakes[i] > 0.0
        for r in range(1, bins):
            grows = grows and log_h[order[r], i] >= log_h[order[r - 1], i]
        if not grows:
            continue
        for r in range(bins):
            at = (r >= first) + (r >= second)
            means[count, at] += masses[r] * math.exp(log_h[order[r], i]) / level[at]
        own[count] = stakes[i]
        count += 1
    return means[:count], own[:count]


@compiled
def outcomes(events: int, level: F64, means: F64, stakes: F64) -> tuple[F64, F64]:
    """(probability, evidence of the bets together) of every way in which `events` fall into three levels (two: level[2] = 0)."""
    bets, three = len(stakes), level[2] > 0.0
    size = (events + 1) * (events + 2) // 2 if three else events + 1
    probability, grown = np.empty(size), np.zeros(size)
    power = np.ones((bets, 3, events + 1))
    factorial, chance = np.zeros(events + 1), np.zeros((3, events + 1))  # logs
    for c in range(1, events + 1):
        factorial[c] = factorial[c - 1] + math.log(c)
        for l in range(3 if three else 2):
            chance[l, c] = c * math.log(level[l])
            for i in range(bets):
                power[i, l, c] = power[i, l, c - 1] * means[i, l]
    at = 0
    for last in range(events + 1 if three else 1):
        for middle in range(events - last + 1):
            low = events - last - middle
            log_p = factorial[events] - factorial[low] - factorial[middle] - factorial[last]
            probability[at] = math.exp(log_p + chance[0, low] + chance[1, middle] + chance[2, last])
            for i in range(bets):
                grown[at] += stakes[i] * power[i, 0, low] * power[i, 1, middle] * power[i, 2, last]
            at += 1
    return probability, grown


@compiled
def raising(events: int, log_h: F64, stakes: F64, lead: int, lo: F64, hi: F64, rest: float, threshold: float) -> float:
    """The factor for bets log_h F64[K, M] with evidence `stakes` F64[M] before the window, of which `lead` leads; `rest`: all other."""
    before = rest
    for stake in stakes:
        before += stake
    if events < 1 or events > TWO_LEVELS_MAX or before >= threshold:
        return 1.0
    bet = log_h[:, lead].copy()
    order = order_of(bet)
    masses = largest_law(order, lo, hi)
    first, second = cuts(masses, np.exp(bet[order]), events <= THREE_LEVELS_MAX)
    if first == 0:
        return 1.0
    level = np.empty(3)
    means, own = level_means(order, masses, first, second, log_h, stakes, level)
    others = before
    for stake in own:
        others -= stake
    probability, grown = outcomes(events, level, means, own)
    return largest_factor(probability, grown, max(others, 0.0), before, threshold)


@compiled
def tube_factor(
    core: F64, shares: I64, threshold: float, lo: F64, hi: F64, log_h: F64, share_in: F64, share_out: F64,
    share_lo: F64, share_hi: F64, stakes: F64, exponents: F64,
) -> float:  # fmt: skip
    """What the tube's evidence is raised by for this window: bets as in `tube_layer`, the plug-in last; stakes F64[M]: what each
    brings to it, its own weight on its evidence and the window's weight.

    Of the window are used: how many values and shares there are; where a bet on values leads, `exponents` of the shares too, which
    come first then.
    """
    each, bets = share_in.shape[1], len(stakes) - 1
    fixed = bets - each * len(shares)
    rest, lead = stakes[bets], 0
    for i in range(bets):
        lead = i if stakes[i] > stakes[lead] else lead
    events = int(total(core))
    if lead < fixed:
        for i in range(fixed, bets):
            rest += stakes[i] * math.exp(min(exponents[i], EXPONENT_MAX))
        return raising(events, log_h, stakes[:fixed], lead, lo, hi, rest, threshold)
    for c in shares:
        events += c
    s = (lead - fixed) // each
    begin = fixed + s * each
    pair = np.empty((2, each))
    pair[0, :], pair[1, :] = share_out[s], share_in[s]
    own = stakes[begin : begin + each]
    gates_lo, gates_hi = np.array([1.0 - share_hi[s], 1.0]), np.array([1.0 - share_lo[s], 1.0])
    for i in range(bets):
        rest += 0.0 if begin <= i < begin + each else stakes[i]
    return raising(events, pair, own, lead - begin, gates_lo, gates_hi, rest, threshold)
