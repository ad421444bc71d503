"""PCA reconstruction error: how far rows are from the directions in which the reference's rows vary.

Rows in standard deviations of the reference are projected onto its first principal components, as many as are needed for
more than `explained` of its variance, and back; the error of a row is the Euclidean distance to what comes back. Correlations
that break make it grow while every single feature looks as ever.

Reads      numeric features of all events, through two sums
Output     mean error of the window's rows; with unit `reference` divided by that of the reference's rows, 1 = as there
Guarantee  the mean error is scikit-learn's and nannyml's definition to 1e-5; blind to what stays within the kept directions
Cost       .35 us an event of 20 features while counting (all else: .4 us), 16 bytes a pane; nothing to speak of at the end of a window
Differs    values count as at most 100 standard deviations out; categories are left out (nannyml: their frequency)
Source     Jolliffe 2002, Principal component analysis; nannyml 0.13.1, DataReconstructionDriftCalculator
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from detectors.compiled import compiled
from detectors.multivariate.rows import (
    F64,
    FIXED,
    I64,
    RowWindow,
    Tables,
    rounded,
    scaling,
    standardised,
)
from detectors.parameters import Base, choice, number
from detectors.reference_rows import ReferenceRows

CARRIED = ("centre", "inverse", "component")
ARRAYS = False  # which directions are kept is the same on every machine only while they are few


@dataclass(frozen=True)
class Parameters(Base):
    explained: float = number(0.65, 0.05, 0.99, "share of the reference's variance that the kept components pass")
    unit: str = choice(
        "reference", ("reference", "deviation"), "mean error of the reference's rows, or their deviation"
    )


def prepare(reference: ReferenceRows, parameters: Parameters) -> Tables:
    """Tables: scaling, "component" F64[k, f], "unit" F64[1]: what one unit of the output is, in standard deviations."""
    tables = scaling(reference)
    rows, _ = standardised(reference.values, tables["centre"], tables["inverse"])
    tables["component"] = components(rows, parameters.explained)
    tables["unit"] = np.ones(1)
    if parameters.unit == "reference":
        sums = np.zeros(2, np.int64)
        add(tables, reference.values, sums)
        # rows that lie in the kept directions exactly have no error to compare with
        tables["unit"] = np.array([_mean(sums)]) if sums[1] else np.full(1, math.nan)
    return tables


def components(rows: F64, explained: float) -> F64:
    """F64[k, f], largest variance first, the largest entry of each positive; the fewest that pass `explained`."""
    centred = rows - rows.mean(axis=0)
    variance, vectors = np.linalg.eigh(centred.T @ centred / len(rows))
    variance, vectors = np.maximum(variance[::-1], 0.0), vectors[:, ::-1].T
    share = np.cumsum(variance) / variance.sum()
    kept = vectors[: min(int(np.searchsorted(share, explained, side="right")) + 1, len(vectors))]
    largest = kept[np.arange(len(kept)), np.abs(kept).argmax(axis=1)]
    return rounded(np.ascontiguousarray(kept * np.sign(largest)[:, None]))


def width(tables: Tables) -> int:  # noqa: ARG001 - it is asked of all
    return 2


def sample_rows(parameters: Parameters) -> int:  # noqa: ARG001 - it is asked of all
    return 0


def add(tables: Tables, values: F64, sums: I64) -> None:
    """sums: the number of rows, and of their errors in units of 2^-20."""
    rows, count = standardised(values, tables["centre"], tables["inverse"])
    sums[0] += count
    _add(rows, tables["component"], sums)


def measure(tables: Tables, window: RowWindow) -> float:
    """Mean error in the unit; NaN without rows, or where the reference's rows have no error to compare with."""
    return _mean(window.sums) / float(tables["unit"][0])


def _mean(sums: I64) -> float:
    return float(sums[1]) / (float(sums[0]) * FIXED) if sums[0] else math.nan


@compiled
def _add(rows: F64, component: F64, sums: I64) -> None:
    """One row after the other, each sum in one order: a library's matrix product depends on how many rows it is given."""
    features = rows.shape[1]
    rest = np.empty(features)
    for i in range(rows.shape[0]):
        for j in range(features):
            rest[j] = rows[i, j]
        for k in range(component.shape[0]):
            score = 0.0
            for j in range(features):
                score += component[k, j] * rows[i, j]
            for j in range(features):
                rest[j] -= score * component[k, j]
        square = 0.0
        for j in range(features):
            square += rest[j] * rest[j]
        sums[1] += np.int64(math.floor(math.sqrt(square) * FIXED + 0.5))
