"""One window of one number through the rank layer, compiled: rank_alone.py."""

# ruff: noqa: PLR0917 - compiled kernels take their arrays one by one

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import compiled
from detectors.sequential.categories import count_score
from detectors.sequential.rank_layer import ADAPTIVE_SHARE, bet, bet_adaptively, rank_bin
from detectors.sequential.thinning import thin
from detectors.sequential.uniforms import uniform

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

GAIN_MAX = 60.0  # nats of a bet's running gain
HELD_MAX = 8.0  # nats that are left of what was found, at most
SCORE_MAX = 1e30  # a float32 must hold a score
UNIT_MIN = 1e-12  # least standard error, relative to the number: all rows alike
THIN_FIRST_UNIFORM = 1 << 20
# Fields of `out`: evidence over threshold, whether it crossed, place of the leading bet.
RATIO, CROSSED, LEADING, FIELDS = 0, 1, 2, 3


@compiled
def score(
    value: float, unit: float, rows: int, hits: int, centre: float, rows_max: int, seed: np.uint64
) -> tuple[float, float]:
    """(statistic, tie-break) of one window. rows_max 0: no limit."""
    tie = uniform(seed, 0)
    if hits < 0:
        least = UNIT_MIN * max(abs(value), abs(centre), 1e-300)
        return min(max((value - centre) / max(unit, least), -SCORE_MAX), SCORE_MAX), tie
    if 0 < rows_max < rows:
        counts, kept = np.empty(2, np.int64), np.empty(2, np.int64)
        counts[0], counts[1] = hits, rows - hits
        thin(counts, rows_max, seed, THIN_FIRST_UNIFORM, kept)
        hits, rows = kept[0], rows_max
    return count_score(hits, rows, centre, tie), tie


@compiled
def judge(
    statistic: float, tie: float, weight: float, start_ms: int, threshold: float, order: F32, order_tie: F32,
    alpha: F64, bets: F64, log_bets: F64, decay: F64,
    evidence: F32, adaptive: F32, recent: F32, seen: I64, gain: F64, gain_start: I64, held: F64, out: F64,
) -> None:  # fmt: skip
    """Move the bets on by one window. held F64[2]: nats that are left of what was found last, and the place of its bet (-1: none)."""
    k = rank_bin(statistic, tie, order, order_tie)
    present = alpha + seen
    scratch = np.empty(bets.shape[1])
    windows = present.sum()
    remembered = np.empty(len(decay))
    for i in range(len(decay)):
        remembered[i] = 0.0
        for l in range(len(present)):
            remembered[i] += recent[i, l]
    total = bet(k, weight, present, windows, bets, (1.0 - ADAPTIVE_SHARE) / bets.shape[1], evidence, scratch)
    share = ADAPTIVE_SHARE / len(decay)
    total += bet_adaptively(k, weight, present[k] / windows, recent, remembered, decay, share, adaptive)
    seen[k] += 1
    for i in range(len(gain)):
        if gain[i] <= 0.0:
            gain[i] = 0.0
            gain_start[i] = start_ms
        gain[i] = min(gain[i] + log_bets[k, i], GAIN_MAX)
    leading = int(np.argmax(gain))
    if held[1] >= 0.0:
        held[0] = min(max(held[0] + log_bets[k, int(held[1])], 0.0), HELD_MAX)
    out[RATIO], out[CROSSED], out[LEADING] = total / threshold, 0.0, leading
    if total >= threshold:
        out[CROSSED] = 1.0
        held[0], held[1] = HELD_MAX, float(np.argmax(evidence))
        evidence[:] = 0.0
        adaptive[:] = 0.0
