"""Layer 2: the tolerance tube. Drift that is practically irrelevant never alarms, however long it is watched.

tau is the tolerance in probit units (about reference standard deviations). Inside the tube is every law p of the values with
Phi(probit(F0_j) - tau) <= F_p(j) <= Phi(probit(F0_j) + tau) at every cut j. For each target law q, h = q / p* with p* the
nearest law of the tube (taut_string), and

    T <- (T + w) prod_k h(k)^c_k            E_p[h] <= 1 for every p in the tube: an e-SR process over the events

Targets: shifts, scales, 2 % in a tail, and a plug-in that follows the stream (exponentially weighted, one window behind).
"""

# ruff: noqa: PLR0917 - compiled kernels take their arrays one by one

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import compiled
from detectors.normal import cdf, cdf_all, ppf, ppf_all
from detectors.sequential.rank_layer import EVIDENCE_MAX
from detectors.sequential.scores import tail_masses
from detectors.sequential.taut_string import taut_string

F64 = NDArray[np.float64]

SHIFTS = (0.15, 0.25, 0.45, 0.8, 1.5)
SCALES = (0.6, 0.8, 1.2, 1.5)
TAIL_STARTS = (0.95, 0.99, 0.999)
TAIL_SHARE = 0.02
SHARE_SHIFTS, SHARE_SCALES, SHARE_TAILS, SHARE_PLUG_IN = 0.50, 0.25, 0.15, 0.10
PLUG_IN_DECAY = 0.99  # per window
PLUG_IN_PRIOR = 200.0  # events' worth of the reference in the plug-in
MASS_MIN = 1e-15  # of a bin under a target law
EXPONENT_MAX = 500.0  # of one window's growth: with EVIDENCE_MAX above it, nothing overflows


def tube_edges(cumulative: F64, tolerance: float) -> tuple[F64, F64]:
    """lo, hi F64[K] of the cumulative masses; `cumulative` F64[K - 1] at the cuts. The last gate is exactly 1."""
    probit = ppf_all(cumulative)
    lo, hi = cdf_all(probit - tolerance), cdf_all(probit + tolerance)
    return np.append(lo, 1.0), np.append(hi, 1.0)


def share_edges(mass: float, tolerance: float) -> tuple[float, float]:
    """The same for a single share, 0 < mass < 1."""
    probit = ppf(mass)
    return cdf(probit - tolerance), cdf(probit + tolerance)


def normal_masses(cumulative: F64, shift: float, scale: float = 1.0) -> F64:
    """Masses of N(shift, scale) over the bins, on the probit scale of the reference."""
    upper = cdf_all((ppf_all(cumulative) - shift) / scale)
    return np.diff(np.concatenate([[0.0], upper, [1.0]]))


def target_laws(masses: F64) -> list[tuple[F64, float]]:
    """(target law F64[K], weight); the weights sum to 1 - SHARE_PLUG_IN. masses F64[K] = the reference's p0."""
    cumulative = np.cumsum(masses)[:-1]
    edges = np.concatenate([[0.0], cumulative, [1.0]])
    laws = [
        (normal_masses(cumulative, sign * s), SHARE_SHIFTS / (2 * len(SHIFTS))) for s in SHIFTS for sign in (1.0, -1.0)
    ]
    laws += [(normal_masses(cumulative, 0.0, s), SHARE_SCALES / len(SCALES)) for s in SCALES]
    tails = [tail_masses(edges, c, upper=upper) for c in TAIL_STARTS for upper in (True, False)]
    tails.append(0.5 * (tail_masses(edges, 0.99, upper=True) + tail_masses(edges, 0.99, upper=False)))
    laws += [((1.0 - TAIL_SHARE) * masses + TAIL_SHARE * tail, SHARE_TAILS / len(tails)) for tail in tails]
    return laws


def tube_bets(masses: F64, lo: F64, hi: F64) -> tuple[F64, F64]:
    """Log h F64[K, M] of the fixed targets, and their weights F64[M]."""
    laws = target_laws(masses)
    log_h = np.empty((len(laws), len(masses)))
    for i, (law, _) in enumerate(laws):
        taut_string(np.maximum(law, MASS_MIN), lo, hi, log_h[i])
    return np.ascontiguousarray(log_h.T), np.array([weight for _, weight in laws])


@compiled
def plug_in(counts: NDArray[np.int64], masses: F64, lo: F64, hi: F64, recent: F64, recent_total: F64) -> float:
    """Log likelihood ratio of one window under the plug-in bet; `recent` F64[K] and recent_total F64[1] are moved on. O(K)."""
    bins = len(counts)
    exponent = 0.0
    if recent_total[0] > 0.0:
        law, log_h = np.empty(bins), np.empty(bins)
        for k in range(bins):
            law[k] = (recent[k] + PLUG_IN_PRIOR * masses[k]) / (recent_total[0] + PLUG_IN_PRIOR)
        taut_string(law, lo, hi, log_h)
        for k in range(bins):
            if counts[k] > 0:
                exponent += counts[k] * log_h[k]
    total = 0
    for k in range(bins):
        total += counts[k]
        recent[k] = recent[k] * PLUG_IN_DECAY + counts[k]
    recent_total[0] = recent_total[0] * PLUG_IN_DECAY + total
    return exponent


@compiled
def grow(evidence: float, weight: float, exponent: float) -> float:
    """(T + w) exp(exponent), capped."""
    return min((evidence + weight) * math.exp(min(exponent, EXPONENT_MAX)), EVIDENCE_MAX)
