"""Layer 2: the tolerance tube. Drift that is practically irrelevant never alarms, however long it is watched.

tau is the tolerance in probit units (about reference standard deviations). Inside the tube is every law p of the values with
Phi(probit(F0_j) - tau) <= F_p(j) <= Phi(probit(F0_j) + tau) at every cut j. For each target law q, h = q / p* with p* the
nearest law of the tube (taut_string), and

    T <- (T + w) prod_k h(k)^c_k            E_p[h] <= 1 for every p in the tube: an e-SR process over the events

Near the threshold all T are raised by what a window would bring beyond it (tube_boost.py).

Targets: shifts, scales, 2 % in a tail, and a plug-in that follows the stream (exponentially weighted, one window behind).
"""

# ruff: noqa: PLR0917 - compiled kernels take their arrays one by one

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import compiled
from detectors.lanes import total
from detectors.normal import cdf, ppf
from detectors.sequential.rank_layer import fading
from detectors.sequential.taut_string import taut_string

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

SHIFTS = (0.15, 0.25, 0.45, 0.75, 1.2)
SCALES = (0.65, 0.8, 1.25, 1.5)
TAIL_STARTS = (0.99, 0.999, 0.9999)
TAIL_SHARE = 0.02
# What a bet's weight costs is nats, about as many for every size: most go to sizes that take most events and that people ask for.
SHIFT_WEIGHTS = (0.18, 0.26, 0.24, 0.20, 0.12)
SCALE_WEIGHTS = (0.18, 0.27, 0.36, 0.19)
SHARE_SHIFTS, SHARE_SCALES, SHARE_TAILS, SHARE_PLUG_IN = 0.56, 0.22, 0.14, 0.08
PLUG_IN_DECAY = 0.99  # per window
PLUG_IN_PRIOR = 200.0  # events' worth of the reference in the plug-in
BOTH_TAILS = 0  # which of TAIL_STARTS is also watched on both sides at once
_TAILS = 2 * len(TAIL_STARTS) + 1
# Of the target laws, in the order of `laws`: shifts up and down, scales, each tail above and below, both tails.
LAW_WEIGHTS = np.array(
    [0.5 * SHARE_SHIFTS * weight for weight in SHIFT_WEIGHTS for _ in range(2)]
    + [SHARE_SCALES * weight for weight in SCALE_WEIGHTS]
    + [SHARE_TAILS / _TAILS] * _TAILS
)  # sum 1 - SHARE_PLUG_IN
LAWS = len(LAW_WEIGHTS)
MASS_MIN = 1e-15  # of a bin under a target law


@compiled
def core_edges(masses: F64, tolerance: float, lo: F64, hi: F64) -> None:
    """Fill lo, hi F64[K] with the tube's gates for the cumulative masses. masses F64[K]; the last gate is exactly 1."""
    below = 0.0
    for k in range(len(masses) - 1):
        below += masses[k]
        probit = ppf(below)
        lo[k] = cdf(probit - tolerance)
        hi[k] = cdf(probit + tolerance)
    lo[-1] = 1.0
    hi[-1] = 1.0


def share_edges(mass: float, tolerance: float) -> tuple[float, float]:
    """The same for a single share, 0 < mass < 1."""
    probit = ppf(mass)
    return cdf(probit - tolerance), cdf(probit + tolerance)


@compiled
def _normal_law(probit: F64, shift: float, scale: float, law: F64) -> None:
    """Masses F64[K] of N(shift, scale) over the bins; probit F64[K - 1] of the cuts."""
    before = 0.0
    for k in range(len(probit)):
        below = cdf((probit[k] - shift) / scale)
        law[k] = below - before
        before = below
    law[-1] = 1.0 - before


@compiled
def _tail_law(below: F64, start: float, upper: bool, law: F64) -> None:
    """Masses F64[K] of Uniform(start, 1) (upper), or of its mirror image; below F64[K + 1]: the bins' edges, 0 .. 1."""
    before = 0.0
    for k in range(len(below)):
        scaled = (below[k] - start) / (1.0 - start) if upper else below[k] / (1.0 - start)
        scaled = min(max(scaled, 0.0), 1.0)
        if k > 0:
            law[k - 1] = scaled - before
        before = scaled


@compiled
def laws(masses: F64) -> F64:
    """The target laws F64[LAWS, K] for masses F64[K] = the reference's p0. O(K) each."""
    bins, tails = len(masses), 2 * len(TAIL_STARTS)
    below, probit = np.zeros(bins + 1), np.empty(bins - 1)
    for k in range(bins - 1):
        below[k + 1] = below[k] + masses[k]
        probit[k] = ppf(below[k + 1])
    below[bins] = 1.0
    found = np.empty((LAWS, bins))
    at = 0
    for s in SHIFTS:
        _normal_law(probit, s, 1.0, found[at])
        _normal_law(probit, -s, 1.0, found[at + 1])
        at += 2
    for s in SCALES:
        _normal_law(probit, 0.0, s, found[at])
        at += 1
    for i in range(tails):
        _tail_law(below, TAIL_STARTS[i // 2], i % 2 == 0, found[at + i])
    both = found[at + tails]
    pair = at + 2 * BOTH_TAILS
    for k in range(bins):
        both[k] = 0.5 * (found[pair, k] + found[pair + 1, k])
    for i in range(at, at + tails + 1):
        for k in range(bins):
            found[i, k] = (1.0 - TAIL_SHARE) * masses[k] + TAIL_SHARE * found[i, k]
    return found


@compiled
def tube_bets(masses: F64, lo: F64, hi: F64) -> F64:
    """Log h F64[LAWS, K] of the fixed targets. Some 60 us at 42 bins: cheaper than 7 kB a target for good."""
    log_h = laws(masses)
    law = np.empty(len(masses))
    for i in range(len(log_h)):
        for k in range(len(masses)):
            law[k] = max(log_h[i, k], MASS_MIN)
        taut_string(law, lo, hi, log_h[i])
    return log_h


@compiled
def plug_in(counts: F64, masses: F64, lo: F64, hi: F64, recent: F32, room: F64) -> float:
    """Log likelihood ratio of one window under the plug-in bet; `recent` F32[K] is moved on, room F64[>= 2 K] written. O(K)."""
    bins, exponent = len(counts), 0.0
    law, log_h = room[:bins], room[bins : 2 * bins]
    for k in range(bins):
        law[k] = recent[k]
    recent_total = total(law)  # of what is kept, so that the law sums to 1 whatever its rounding
    if recent_total > 0.0:
        for k in range(bins):
            law[k] = (law[k] + PLUG_IN_PRIOR * masses[k]) / (recent_total + PLUG_IN_PRIOR)
        taut_string(law, lo, hi, log_h)
        for k in range(bins):
            log_h[k] *= counts[k]
        exponent = total(log_h)
    for k in range(bins):
        recent[k] = fading(recent[k] * PLUG_IN_DECAY) + counts[k]
    return exponent
