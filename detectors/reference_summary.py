"""What people are shown of a reference: mean, quantiles, rates. Rounded to 10 digits, so that ids do not depend on a machine."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from detectors.binning import Binning, Kind
from detectors.column_values import INVALID, MISSING, VALID, Column
from detectors.reference_digest import rounded

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

QUANTILES = {"p01": 0.01, "p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}


def column_summary(column: Column) -> tuple[dict[str, float], tuple[float, float]]:
    """(summary, (minimum, maximum)) of all rows of a column with at least one valid value."""
    rows = len(column)
    rates = {
        "missing": rounded(np.count_nonzero(column.state == MISSING) / rows),
        "invalid": rounded(np.count_nonzero(column.state == INVALID) / rows),
    }
    valid = column.state == VALID
    if column.kind is Kind.CATEGORICAL:
        return rates | {"distinct": float(len(np.unique(column.hash[valid])))}, (math.nan, math.nan)
    x = np.sort(column.value[valid])
    # Scaled, so that values near the end of float64 do not overflow in their squares.
    scale = max(abs(float(x[0])), abs(float(x[-1])), 1e-300)
    mean, std = float(np.mean(x / scale)) * scale, float(np.std(x / scale)) * scale
    at = {name: float(x[max(0, math.ceil(q * len(x)) - 1)]) for name, q in QUANTILES.items()}
    summary = {"mean": rounded(mean), "std": rounded(std)} | {name: rounded(v) for name, v in at.items()}
    distinct = float(1 + np.count_nonzero(np.diff(x)))
    return summary | rates | {"distinct": distinct}, (float(x[0]), float(x[-1]))


def counts_summary(
    binning: Binning, counts: I64, sums: F64, extremes: F64
) -> tuple[dict[str, float], tuple[float, float]]:
    """The same from bin counts I64[b + 2], sums (2) of x - centre and its square, extremes F64[windows, 2].

    Quantiles are interpolated within their bin: the error is at most the bin's width.
    """
    rows = max(int(counts.sum()), 1)
    rates = {"missing": rounded(int(counts[-2]) / rows), "invalid": rounded(int(counts[-1]) / rows)}
    valid = int(counts[:-2].sum())
    if binning.kind is Kind.CATEGORICAL:
        return rates | {"distinct": float(np.count_nonzero(counts[:-2]))}, (math.nan, math.nan)
    if not valid:
        return rates | {"distinct": 0.0}, (math.nan, math.nan)
    low, high = float(np.nanmin(extremes[:, 0])), float(np.nanmax(extremes[:, 1]))
    mean = sums[0] / valid
    variance = max(float(sums[1] / valid - mean * mean), 0.0)
    edges = np.concatenate([[low], np.clip(binning.cuts, low, high), [high]])
    cumulative = np.concatenate([[0.0], np.cumsum(counts[:-2])]) / valid
    at = {name: float(np.interp(q, cumulative, edges)) for name, q in QUANTILES.items()}
    summary = {"mean": rounded(binning.centre + float(mean)), "std": rounded(math.sqrt(variance))}
    summary |= {name: rounded(value) for name, value in at.items()}
    return summary | rates | {"distinct": float(np.count_nonzero(counts[:-2]))}, (low, high)
