"""Shares: one count statistic per category, for unseen, missing and invalid values; both layers.

A share is the number c of a window's n events that fall in one bin. Its statistic is the randomised distribution value
U = P(X < c) + u P(X = c) of X ~ Binomial(n, p), written so that neither tail saturates:
    log(2 U) below the median, -log(2 (1 - U)) above.
For windows of one size it orders them as (c, u) does, so the ranks are exact; for windows of different sizes it is on one
scale, so that traffic alone does not move a rare category's rank. p = (n + 1/2) / (m + 1) from the rows that chose the cuts.

Rank bets are the binomial likelihood ratios of other shares, spread over the rank bins through U, and spikes on the upper
record bin: a category that the reference has never seen keeps its exact probability there, whatever p was assumed. Of a share
so rare that hardly a window of the reference holds any they are spikes alone: one event of it makes a spike's evidence that of
all time that the reference and the stream have lasted, whatever rate the spike is made for.
They are kept as codes of 8 bits, steps of 1/8 octave: the kernel divides by the mass of the very bets that it reads, so the
rounding (at most 4.5 %) costs no validity; it costs a bet some .0003 nats a window, where the weakest earns .04.

Tube of a share: Phi(probit(p0) -+ tau); of all shares together: p* = clip(c q, lo, hi) with c so that it sums to 1 (the
minimiser of KL(q || p)). Merged statistics (largest or chi-squared) missed 2 -> 3 % in 14 of 16 runs.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import compiled
from detectors.normal import cdf, log_cdf, pdf, ppf
from detectors.sequential.rank_layer import fading
from detectors.sequential.tube import PLUG_IN_DECAY, PLUG_IN_PRIOR, share_edges

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]

UP_SHIFTS = (0.3, 0.6, 1.1, 1.9, 3.0, 5.0)  # of the expected count, in its standard deviations
DOWN_SHIFTS = (0.3, 0.6, 1.1, 1.9)
# Where fewer than RARE_COUNT are expected in a window: no falls, and rises to some 4 .. 50 times of a share of a thousandth.
RARE_SHIFTS = (0.4, 0.6, 0.75, 0.9, 1.05, 1.2, 1.4, 1.6, 2.0, 3.0, 6.0)
RARE_COUNT = 0.05
SPIKES = (0.02, 0.2)  # probability that the bet puts on a record
RARE_SPIKES = (0.05,)
# Where at most RECORD_WINDOWS of the ranked windows are expected to hold any, every rise is a series of records, that often.
RECORD_SPIKES = (0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5)
RECORD_WINDOWS = 5.0
RANK_BETS = len(RECORD_SPIKES)  # of every share, with equal weights: what is likelier has more bets near it
RARE_SHARE = 1e-4  # below it no fall can be told in any sensible time (a nat takes 1 / share events): no bets on it
# Probit; small ones just beyond the usual tolerances, 2.5: rare -> some per cent. Rises are worth more nats than falls, and so
# are those that take long: small ones, and of a rare share some ten times its size.
TUBE_SHIFTS = (0.18, -0.18, 0.3, -0.3, 0.5, -0.5, 0.8, -0.8, 1.5, -1.5, 2.5)
TUBE_WEIGHTS = np.array([3.5, 0.6, 1.5, 0.4, 0.7, 0.2, 0.5, 0.1, 0.3, 0.1, 0.1])
TUBE_RARE_WEIGHTS = np.array([0.3, 0.05, 0.7, 0.1, 2.0, 0.1, 3.2, 0.1, 1.2, 0.1, 0.3])
TUBE_RARE_SHARE = 0.01
# Of a share below RARE_SHARE the shares that it rises to: one event of a category that was never seen says as much for each of them.
TUBE_NEW_SHARES = (3e-5, 1e-4, 3e-4, 7e-4, 1.5e-3, 3e-3, 6e-3, 1.2e-2, 3e-2, 0.1, 0.3)
TUBE_NEW_WEIGHTS = np.array([0.1, 0.5, 1.0, 1.5, 1.5, 1.5, 1.5, 1.2, 0.7, 0.3, 0.2])
GROWTH_MIN = (
    2e-5  # nats an event under the target itself: a bet that earns less finds nothing within some million events
)

# How a categorical target's false alarms are shared out. One value that was never seen, or two, should be enough, so the unseen
# have most; more in the rank layer, where the first of them is worth at most as many events as the reference has.
EMPTY_PORTION = 0.005  # invalid values, and other known categories where there are none
PLUG_IN_PORTION = 0.04  # of the tube
INFORMATION_SHARE = 0.01  # a category counts as at least so frequent


class Portions(NamedTuple):
    """Of unseen and of missing values; the categories have the rest."""

    unseen: float
    missing: float


RANK_PORTIONS, TUBE_PORTIONS = Portions(0.43, 0.30), Portions(0.30, 0.27)

NORMAL_VARIANCE_MIN = 1000.0  # of the count: above it the normal law is within 1 % of the binomial's tail odds at 3 sd
BET_STEPS = 8  # codes an octave
BET_LOW = -12.0  # log2 of the smallest bet above 0; the largest is 2^19.75
BET_VALUES = np.concatenate([[0.0], 2.0 ** (BET_LOW + np.arange(255) / BET_STEPS)])  # F64[256]: what a code stands for
SCORE_ROUNDING = 2.0**20  # libraries' last digits differ between machines; ids of references must not
TERM_MIN = 1e-17  # relative: what is left of a geometric series
PROJECTION_STEPS = 60  # bisections: c to 2^-60 of its range


@compiled
def count_score(c: int, n: int, p: float, u: float) -> float:
    """The statistic of `c` of `n` events at reference share `p`, 0 < p < 1, tie-break 0 < u < 1. Finite. O(sqrt(n p) + 1)."""
    variance = n * p * (1.0 - p)
    log_2 = math.log(2.0)
    if variance > NORMAL_VARIANCE_MIN:
        z = (c + u - 0.5 - n * p) / math.sqrt(variance)
        score = log_2 + log_cdf(z) if z < 0.0 else -(log_2 + log_cdf(-z))
        return round(score * SCORE_ROUNDING) / SCORE_ROUNDING
    odds = p / (1.0 - p)
    if c == 0:  # the same, without its zeros: by far the most of missing and invalid values
        log_mass = n * math.log1p(-p)
    else:
        log_mass = math.lgamma(n + 1.0) - math.lgamma(c + 1.0) - math.lgamma(n - c + 1.0)
        log_mass += c * math.log(p) + (n - c) * math.log1p(-p)
    lower = c <= n * p
    series, term, i = 0.0, 1.0, c
    while term > TERM_MIN:
        if lower:
            if i == 0:
                break
            term *= i / ((n - i + 1) * odds)
            i -= 1
        else:
            if i == n:
                break
            term *= (n - i) * odds / (i + 1)
            i += 1
        series += term
    log_tail = log_2 + log_mass + math.log((u if lower else 1.0 - u) + series)
    if log_tail > 0.0:  # this tail holds more than half: say it by the other one
        other = max(2.0 - math.exp(log_tail), 1e-15)
        log_tail = math.log(other)
        lower = not lower
    score = log_tail if lower else -log_tail
    return round(score * SCORE_ROUNDING) / SCORE_ROUNDING


@compiled
def share_cdf(n: int, p: float, q: float, x: F64, out: F64) -> None:
    """Out F64[r]: probability under Binomial(n, q) that the U of share p is at most x (ascending, inside (0, 1))."""
    variance = n * p * (1.0 - p)
    if variance > NORMAL_VARIANCE_MIN:
        for i in range(len(x)):
            out[i] = cdf((ppf(x[i]) * math.sqrt(variance) + n * (p - q)) / math.sqrt(n * q * (1.0 - q)))
        return
    out[:] = 1.0
    c = max(0, int(n * p - 15.0 * math.sqrt(variance) - 15.0))  # less than 1e-20 lies below
    head = math.lgamma(n + 1.0) - math.lgamma(c + 1.0) - math.lgamma(n - c + 1.0)
    mass_p = math.exp(head + c * math.log(p) + (n - c) * math.log1p(-p))
    mass_q = math.exp(head + c * math.log(q) + (n - c) * math.log1p(-q))
    below_p, below_q, i = 0.0, 0.0, 0
    while i < len(x) and c <= n:
        while i < len(x) and x[i] <= below_p + mass_p:
            out[i] = min(below_q + mass_q * (x[i] - below_p) / mass_p, 1.0) if mass_p > 0.0 else below_q
            i += 1
        below_p += mass_p
        below_q += mass_q
        ratio = (n - c) / (c + 1.0)
        mass_p *= ratio * p / (1.0 - p)
        mass_q *= ratio * q / (1.0 - q)
        c += 1


def portions(shares: F64, of: Portions, *, others: bool) -> F64:
    """How much of a categorical target's false alarms each of shares F64[q] may use: categories, other, unseen, missing, invalid.

    Sum 1. Categories by the root of 1 / I, I = phi(probit p)^2 / (p (1 - p)) the information of an event on a shift by probits:
    halfway between equal parts and those that make the sum of the delays least, as rare ones are slow to show. `others`: there
    are known categories without a share of their own.
    """
    part = np.array([1.0 / math.sqrt(_information(p)) for p in shares.tolist()])
    part[[-3, -2, -1]] = 0.0
    if not others:
        part[-4] = 0.0
    fixed = np.where(part > 0.0, 0.0, EMPTY_PORTION)
    fixed[-3], fixed[-2] = of.unseen, of.missing
    total = float(part.sum())
    shared = fixed + part * ((1.0 - fixed.sum()) / total) if total > 0.0 else fixed
    found: F64 = shared / shared.sum()
    return found


def _information(p: float) -> float:
    """Of one event on a shift of share p by probits."""
    p = min(max(p, INFORMATION_SHARE), 1.0 - INFORMATION_SHARE)
    return float(pdf(ppf(p))) ** 2 / (p * (1.0 - p))


def other_shares(p: float, n: int) -> list[float]:
    """The shares that the rank bets expect: the rarer side's count moved by so many standard deviations."""
    rare = min(p, 1.0 - p)
    sd = math.sqrt(rare * (1.0 - rare) / n)
    if n * rare < RARE_COUNT:
        others = [min(rare + s * sd, 0.5 * (1.0 + rare)) for s in RARE_SHIFTS]
    else:
        others = [min(rare + s * sd, 0.5 * (1.0 + rare)) for s in UP_SHIFTS]
        others += [rare / (1.0 + s * sd / rare) for s in DOWN_SHIFTS]
    return others if p <= 0.5 else [1.0 - q for q in others]


def share_rank_bets(p: float, n: int, rank: I64, windows: int) -> F32:
    """H F32[r + 1, RANK_BETS] for a share p in windows of about n >= 1 events; any h >= 0 keeps E[L] = 1."""
    x = rank / (windows + 1.0)
    null = np.diff(np.concatenate([[0.0], x, [1.0]]))
    columns: list[F64] = []
    spikes: tuple[float, ...] = RECORD_SPIKES
    if n * p * windows > RECORD_WINDOWS:
        for q in other_shares(p, n):
            at_most = np.empty(len(x))
            share_cdf(n, p, q, x, at_most)
            columns.append(np.diff(np.concatenate([[0.0], np.maximum.accumulate(at_most), [1.0]])) / null)
        spikes = (SPIKES, RARE_SPIKES)[len(columns) == len(RARE_SHIFTS)]
    for spike in spikes:
        h = np.full(len(null), 1.0 - spike)
        h[-1] += spike / null[-1]
        columns.append(h)
    return np.ascontiguousarray(np.column_stack(columns), dtype=np.float32)


def bet_codes(bets: NDArray[Any]) -> U8:
    """U8 like `bets`, any h >= 0: the nearest in BET_VALUES by ratio; what is beyond either end becomes that end, 2^-13 nothing."""
    with np.errstate(divide="ignore"):
        steps = np.round((np.log2(bets) - BET_LOW) * BET_STEPS)
    return np.where(steps < -BET_STEPS, 0, np.clip(steps + 1, 1, 255)).astype(np.uint8)


@compiled
def decode_bets(codes: U8, bets: F64) -> None:
    """Fill bets F64[r + 1, M] from codes U8[r + 1, M]."""
    for l in range(codes.shape[0]):
        for i in range(codes.shape[1]):
            bets[l, i] = BET_VALUES[codes[l, i]]


def share_tube_bets(p: float, tolerance: float) -> tuple[F64, F64]:
    """Log h of an event inside and outside the category, F64[len(TUBE_SHIFTS)] each; 0 for a target inside the tube, or one
    so rare that no stream is long enough for it.
    """
    lo, hi = share_edges(p, tolerance)
    if p < RARE_SHARE:
        target = np.maximum(TUBE_NEW_SHARES, p)
    else:
        probit = ppf(p)
        target = np.array([min(max(cdf(probit + s), 1e-15), 1.0 - 1e-15) for s in TUBE_SHIFTS])
    nearest = np.clip(target, lo, hi)
    inside, outside = np.log(target / nearest), np.log1p(-target) - np.log1p(-nearest)
    found = target * inside + (1.0 - target) * outside >= GROWTH_MIN
    return np.where(found, inside, 0.0), np.where(found, outside, 0.0)


def tube_weights(p: float) -> F64:
    """Weights F64[len(TUBE_SHIFTS)] of the bets on share p; sum 1."""
    weights: F64 = TUBE_RARE_WEIGHTS if p < TUBE_RARE_SHARE else TUBE_WEIGHTS
    if p < RARE_SHARE:
        weights = TUBE_NEW_WEIGHTS
    shares: F64 = weights / weights.sum()
    return shares


@compiled
def project_shares(q: F64, lo: F64, hi: F64, p: F64) -> None:
    """Fill p with clip(c q, lo, hi), c such that it sums to 1: the nearest law of the tube of shares. q > 0. O(60 q)."""
    low, high = 0.0, 0.0
    for k in range(len(q)):
        high = max(high, hi[k] / q[k])
    for _ in range(PROJECTION_STEPS):
        middle = 0.5 * (low + high)
        total = 0.0
        for k in range(len(q)):
            total += min(max(middle * q[k], lo[k]), hi[k])
        if total < 1.0:
            low = middle
        else:
            high = middle
    for k in range(len(q)):  # the side where the sum is not below 1, so that E_p[q / p*] <= 1 holds after rounding, too
        p[k] = min(max(high * q[k], lo[k]), hi[k])


@compiled
def plug_in_shares(counts: I64, masses: F64, lo: F64, hi: F64, recent: F32) -> float:
    """Log likelihood ratio of one window under the plug-in law of all shares; `recent` is moved on."""
    bins = len(counts)
    exponent, recent_total = 0.0, 0.0
    for k in range(bins):  # of what is kept, so that the law sums to 1 whatever its rounding
        recent_total += recent[k]
    if recent_total > 0.0:
        law, nearest = np.empty(bins), np.empty(bins)
        for k in range(bins):
            law[k] = (recent[k] + PLUG_IN_PRIOR * masses[k]) / (recent_total + PLUG_IN_PRIOR)
        project_shares(law, lo, hi, nearest)
        for k in range(bins):
            if counts[k] > 0:
                exponent += counts[k] * math.log(law[k] / nearest[k])
    for k in range(bins):
        recent[k] = fading(recent[k] * PLUG_IN_DECAY) + counts[k]
    return exponent
