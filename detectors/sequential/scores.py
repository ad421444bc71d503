"""The five statistics of a window of a numeric target, from its bin counts alone (so they can be merged).

With a_k, b_k the probit edges of bin k and p_k its mass, both from the rows that chose the cuts:
    z_k   = (phi(a_k) - phi(b_k)) / p_k                        mean probit value of the bin: location
    z2_k  = (a_k phi(a_k) - b_k phi(b_k)) / p_k                mean of its square, less 1: scale
    psi_k = log(1 + .02 (t_k / p_k - 1))                       t = mean over c of Uniform(c, 1): upper tail; mirrored: lower
Statistics: sqrt(B) mean of each, and sqrt(B) max over .01 <= F <= .99 of |F_j - F| / sqrt(F (1 - F)): shape.

An atom is a bin like any other: its score is the mean over the probit interval that its nominal ranks cover.
Scores are rounded to 2^-24, so a sum of counts times scores is exact: no order of summation and no machine changes a bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import compiled
from detectors.lanes import total as total_of
from detectors.lanes import weighted
from detectors.normal import pdf_all, ppf_all

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

STATISTICS = ("location", "scale", "upper_tail", "lower_tail", "shape")
TAIL_STARTS = (0.98, 0.99, 0.995, 0.999, 0.9998)
TAIL_SHARE = 0.02
SHAPE_RANGE = (0.01, 0.99)  # outside of it the standardised distance is a Poisson count, not a distance
ROUNDING = 2.0**24


@dataclass(frozen=True, slots=True, eq=False)
class ScoreTable:
    """score F64[K, 4]; nominal F64[K - 1]: F at each cut; shape_scale F64[K - 1]: 1 / sqrt(F (1 - F)), 0 = not used."""

    score: F64
    nominal: F64
    shape_scale: F64


def tail_masses(edges: F64, start: float, *, upper: bool) -> F64:
    """Mass of Uniform(start, 1) (upper), or of its mirror image, in the bins between `edges` (probabilities, 0 .. 1)."""
    scaled = (edges - start) / (1.0 - start) if upper else edges / (1.0 - start)
    return np.diff(np.clip(scaled, 0.0, 1.0))


def smoothed(counts: I64) -> F64:
    """(n + 1/2) / (m + K / 2): positive masses of K bins, summing to 1."""
    raised = counts.astype(np.float64) + 0.5
    masses: F64 = raised / raised.sum()
    return masses


@compiled
def fold_core(counts: I64, first: int, core: int, bins: int, out: F64) -> None:
    """Numeric counts I64[bins + 2] -> core counts F64[core], exact: far bins go to the outer core bins."""
    for k in range(core):
        out[k] = counts[first + k]
    for k in range(first):
        out[0] += counts[k]
    for k in range(first + core, bins):
        out[core - 1] += counts[k]


@compiled
def core_masses(counts: I64, first: int, core: int, bins: int) -> F64:
    """`scores.smoothed` of the core bins of numeric counts I64[bins + 2]."""
    folded, masses = np.empty(core), np.empty(core)
    fold_core(counts, first, core, bins, folded)
    total = folded.sum() + 0.5 * core
    for k in range(core):
        masses[k] = (folded[k] + 0.5) / total
    return masses


@compiled
def nominal_ranks(p: F64, nominal: F64, shape_scale: F64) -> None:
    """Fill nominal, shape_scale F64[K - 1] of `ScoreTable` from masses p F64[K]. O(K)."""
    below = 0.0
    for k in range(len(p) - 1):
        below += p[k]
        nominal[k] = below
        inside = SHAPE_RANGE[0] <= below <= SHAPE_RANGE[1]
        shape_scale[k] = 1.0 / np.sqrt(below * (1.0 - below)) if inside else 0.0


def score_table(first: I64) -> ScoreTable:
    """Scores of K >= 1 core bins from the counts I64[K] of the rows that chose the cuts."""
    p = smoothed(first)
    nominal, shape_scale = np.empty(len(p) - 1), np.empty(len(p) - 1)
    nominal_ranks(p, nominal, shape_scale)
    edges = np.concatenate([[0.0], nominal, [1.0]])
    probit = np.concatenate([[0.0], ppf_all(nominal), [0.0]])  # the outer edges only ever meet a density of 0
    density = np.concatenate([[0.0], pdf_all(probit[1:-1]), [0.0]])
    location = (density[:-1] - density[1:]) / p
    scale = (probit[:-1] * density[:-1] - probit[1:] * density[1:]) / p
    tails = [
        np.log(
            1.0 + TAIL_SHARE * (np.mean([tail_masses(edges, c, upper=upper) for c in TAIL_STARTS], axis=0) / p - 1.0)
        )
        for upper in (True, False)
    ]
    score = np.column_stack([location, scale, *tails])
    return ScoreTable(np.round(score * ROUNDING) / ROUNDING, nominal, shape_scale)


@compiled
def window_statistics(counts: F64, score: F64, nominal: F64, shape_scale: F64, out: F64) -> None:
    """Fill out F64[5] from core counts F64[K]; all 0 without a valid value. O(K)."""
    total = total_of(counts)
    if total == 0.0:
        out[:5] = 0.0
        return
    weighted(counts, score, out)
    below, shape = 0.0, 0.0
    for k in range(len(counts) - 1):
        below += counts[k]
        shape = max(shape, abs(below / total - nominal[k]) * shape_scale[k])
    root = math.sqrt(total)
    for j in range(4):
        out[j] /= root
    out[4] = shape * root
