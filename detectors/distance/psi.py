"""Population stability index [1].

psi = sum over groups g of (q_g - p_g) ln(q_g / p_g), with p the reference's and q the window's share.

The usual reading (0.1 = some change, 0.25 = much) is of ten groups. Over the some eighty bins that driftline counts, chance
alone would give (bins - 1)(1/n + 1/m). So the ordered bins are put together into at most ten groups of about a tenth
of the reference each, and what stands apart (missing, invalid, each category) stays a group of its own.

Parameters   EPSILON_COUNT: added to every group's count, so that an empty group has a finite share: half an event, the
             Jeffreys prior of a proportion
Input        counts >= 0, flat, as detectors.distance says
Output       F64[t] >= 0; NaN where either side has no event
Accuracy     exact on the groups; without any drift about (groups - 1)(1/n + 1/m), n and m the events of both sides
Source       [1] Siddiqi 2006, Credit Risk Scorecards, ch. 6; its chance level: Yurdakul 2018, eq. 3.5
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.distance.ragged import F64, I64, totals

EPSILON_COUNT = 0.5
GROUPS = 10


def population_groups(reference: F64 | I64, ordered: NDArray[np.bool_], start: I64) -> tuple[I64, I64]:
    """Group of every bin, numbered through all targets, and where each target's groups start.

    Input reference counts [n], ordered bool[n] (a bin that may be put together with its neighbour), start I64[t+1].
    Output group I64[n] ascending, group_start I64[t+1]. Computed once per reference, O(n).
    """
    group = np.zeros(len(reference), np.int64)
    group_start = np.zeros(len(start), np.int64)
    index = -1
    for target in range(len(start) - 1):
        first, stop = int(start[target]), int(start[target + 1])
        part = np.asarray(reference[first:stop], np.float64)
        ordered_total = float(part[ordered[first:stop]].sum())
        before, last = 0.0, -1
        for position in range(first, stop):
            decile = -1
            if ordered[position]:
                middle = before + 0.5 * float(reference[position])
                decile = min(GROUPS - 1, int(GROUPS * middle / ordered_total)) if ordered_total > 0 else 0
                before += float(reference[position])
            if decile < 0 or decile != last:
                index += 1
            last = decile
            group[position] = index
        group_start[target + 1] = index + 1
    return group, group_start


def psi(reference: F64 | I64, counts: I64, group: I64, group_start: I64) -> F64:
    """PSI of every target. Input reference and window counts [n], groups as `population_groups` gives them. O(n)."""
    size = int(group_start[-1])
    p = np.bincount(group, np.asarray(reference, np.float64), size)[:size]
    q = np.bincount(group, np.asarray(counts, np.float64), size)[:size]
    width = np.diff(group_start)
    total_p, total_q = totals(p, group_start), totals(q, group_start)
    share_p = (p + EPSILON_COUNT) / np.repeat(total_p + EPSILON_COUNT * width, width)
    share_q = (q + EPSILON_COUNT) / np.repeat(total_q + EPSILON_COUNT * width, width)
    distance = totals((share_q - share_p) * np.log(share_q / share_p), group_start)
    return np.where((total_p > 0) & (total_q > 0), distance, np.nan)
