"""What one row adds to a sum, compiled one row after the other: a library's vector logarithm may round by a row's place in its batch."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import compiled

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

PROBABILITY_MIN = float(
    np.finfo(np.float64).eps
)  # log loss of less, and of more than 1 minus this: as of this (scikit-learn's)
SHARES_TOLERANCE = (
    1e-3  # how far scores of all classes may sum up from 1: float32 softmax of many classes, rounded texts
)


@compiled
def places(cuts: F64, score: F64) -> I64:
    """The bin of every score: how many cuts are at or below it."""
    return np.searchsorted(cuts, score, side="right").astype(np.int64)


@compiled
def log_losses(p: F64, y: I64) -> F64:
    """-log of the probability that was given to what came, p F64[n] of y = 1."""
    out = np.empty(len(p))
    for i in range(len(p)):
        q = min(max(p[i], PROBABILITY_MIN), 1.0 - PROBABILITY_MIN)
        out[i] = -math.log(q) if y[i] == 1 else -math.log(1.0 - q)
    return out


@compiled
def class_losses(p: F64, y: I64) -> tuple[F64, F64]:
    """(log loss F64[n], squared error F64[n] summed over classes) of probabilities p F64[n, k] of classes y I64[n]."""
    rows, classes = p.shape
    loss, square = np.empty(rows), np.empty(rows)
    for i in range(rows):
        whole = 0.0
        for c in range(classes):
            whole += p[i, c]
        loss[i] = -math.log(min(max(p[i, y[i]], PROBABILITY_MIN), 1.0 - PROBABILITY_MIN) / whole)
        total = 0.0
        for c in range(classes):
            d = p[i, c] - (1.0 if y[i] == c else 0.0)
            total += d * d
        square[i] = total
    return loss, square


@compiled
def log_errors(p: F64, y: F64) -> F64:
    """log(1 + p) - log(1 + y), both at least 0."""
    out = np.empty(len(p))
    for i in range(len(p)):
        out[i] = math.log1p(p[i]) - math.log1p(y[i])
    return out
