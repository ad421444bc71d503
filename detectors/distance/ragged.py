"""Sums, maxima and shares over the parts of a flat array, empty parts included."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import compiled

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


def totals(values: NDArray[np.float64] | NDArray[np.int64], start: I64) -> NDArray[np.float64]:
    """Sum of values[start[i]:start[i+1]] for every i. Input values [n], start I64[t+1]; output F64[t]. O(n)."""
    padded = np.concatenate((np.asarray(values, np.float64), np.zeros(1)))
    sums = np.add.reduceat(padded, start[:-1]) if len(start) > 1 else np.zeros(0)
    return np.where(start[:-1] == start[1:], 0.0, sums)


def shares(counts: NDArray[np.float64] | NDArray[np.int64], start: I64) -> F64:
    """Each count over the total of its part; NaN where the total is 0. Output F64[n]."""
    total = totals(counts, start)
    total = np.where(total > 0, total, np.nan)
    return np.asarray(counts, np.float64) / np.repeat(total, np.diff(start))


def largest(values: F64, start: I64) -> F64:
    """Maximum of values[start[i]:start[i+1]] for every i; NaN for an empty part. Output F64[t]. O(n)."""
    found = np.maximum.reduceat(np.append(values, -np.inf), start[:-1]) if len(start) > 1 else np.zeros(0)
    return np.where(start[:-1] == start[1:], np.nan, found)


@compiled
def whole_sum(counts: F64, first: int, stop: int) -> float:
    """Sum of counts[first:stop], four at once: of whole numbers, as counts are, no order changes a bit."""
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    at = first
    while at + 4 <= stop:
        a += counts[at]
        b += counts[at + 1]
        c += counts[at + 2]
        d += counts[at + 3]
        at += 4
    for i in range(at, stop):
        a += counts[i]
    return (a + b) + (c + d)
