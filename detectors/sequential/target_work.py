"""The work of a numeric target: what all its windows need of its reference counts, kept where there is room, else made anew each time.

Masses and gates of the core bins, the scales of its statistics, and the log bets of the tube's targets, which are most of it: a
window is closed long after the last one, and what it has to fetch is what it takes. So the bets are of 32 bits.
"""

# ruff: noqa: PLR0917 - compiled kernels take their arrays one by one

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import compiled
from detectors.sequential.scores import core_masses, nominal_ranks
from detectors.sequential.tube import LAWS, core_edges, tube_bets

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

WORK_HEAD = 5  # rows of `work_rows`
ROUND_DOWN_LOG = 2.0**-23  # of a log bet, relative: to the nearest float32 after it, never above the number itself


@compiled
def work_size(core_bins: int) -> int:
    """How many float64 `fill_work` fills: its rows, then the log bets, two in each."""
    return WORK_HEAD * core_bins + (LAWS * core_bins + 1) // 2


@compiled
def work_rows(work: F64, core_bins: int) -> F64:
    """F64[WORK_HEAD, K] of the work: masses, lo, hi, nominal ranks and shape scale (K - 1 of each)."""
    return work[: WORK_HEAD * core_bins].reshape(WORK_HEAD, core_bins)


@compiled
def work_bets(work: F64, core_bins: int) -> F32:
    """F32[K, LAWS] of the work: the log bets of the tube's targets, rounded down, so that E_p[h] <= 1 stays."""
    return work[WORK_HEAD * core_bins :].view(np.float32)[: core_bins * LAWS].reshape(core_bins, LAWS)


@compiled
def fill_work(chose: I64, reference: I64, first: int, core_bins: int, bins: int, tolerance: float, work: F64) -> None:
    """What a numeric target's windows need of its reference counts, work F64[work_size(K)]; some 60 us at 42 bins."""
    if core_bins == 0:
        return
    rows, bets = work_rows(work, core_bins), work_bets(work, core_bins)
    nominal_ranks(core_masses(chose, first, core_bins, bins), rows[3], rows[4])
    rows[0, :] = core_masses(reference, first, core_bins, bins)
    core_edges(rows[0], tolerance, rows[1], rows[2])
    log_h = tube_bets(rows[0], rows[1], rows[2])
    for k in range(core_bins):
        for i in range(LAWS):
            bets[k, i] = log_h[i, k] - ROUND_DOWN_LOG * abs(log_h[i, k])
