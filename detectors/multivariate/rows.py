"""Rows of numeric features: those of a reference, and how any row becomes standard units. Shared by the detectors of this folder.

Tables are the same on every machine: means and deviations are exactly rounded sums, and what linear algebra gives is rounded
to 2^-24, far above its error. So two workers sum the same integers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import compiled
from detectors.reference import BadReference
from detectors.reference_rows import ReferenceRows

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Tables = Mapping[str, F64]

FIXED = 2.0**20  # units of a sum in fixed point: an event adds a rounding error of 2^-21 at most
STANDARD_MAX = 100.0  # deviations; what is further out counts as so far, that one broken value is not the window
TABLE_UNIT = 2.0**-24
ROWS_MIN = 50  # of a reference: fewer show no direction


class BadRows(BadReference):
    """Rows of a reference that give no multivariate detector."""


@dataclass(frozen=True, slots=True, eq=False)
class RowWindow:
    """What a window kept for one detector: its sums I64[width], and its sample of rows F64[k, f]."""

    sums: I64
    rows: F64


def scaling(reference: ReferenceRows) -> dict[str, F64]:
    """Tables "centre" and "inverse", F64[f]: mean and 1 / standard deviation (of the population) of the valid values.

    A feature that is constant, or never valid, has inverse 0: it says nothing. Raises BadRows where that leaves none.
    """
    values = reference.values
    if len(values) < ROWS_MIN:
        raise BadRows(f"{len(values)} rows of the reference are kept; {ROWS_MIN} are needed")
    centre, inverse = np.zeros(len(reference.names)), np.zeros(len(reference.names))
    for place in range(len(reference.names)):
        column = values[:, place]
        some = column[np.isfinite(column)]
        if not len(some):
            continue
        mean = math.fsum(some.tolist()) / len(some)
        deviation = math.sqrt(math.fsum(((some - mean) ** 2).tolist()) / len(some))
        centre[place] = mean
        if deviation > 0 and math.isfinite(1.0 / deviation):
            inverse[place] = 1.0 / deviation
    if not inverse.any():
        raise BadRows("no numeric feature of the reference varies")
    return {"centre": centre, "inverse": inverse}


def rounded(values: F64, unit: float = TABLE_UNIT) -> F64:
    """The nearest multiples of `unit`."""
    found: F64 = np.rint(values / unit) * unit
    return found


@compiled
def standardised(values: F64, centre: F64, inverse: F64) -> tuple[F64, int]:
    """(rows F64[m, f] in standard units, m): those of the n that have any valid value, 0 where one is not."""
    rows, features = values.shape
    out = np.zeros((rows, features))
    count = 0
    for i in range(rows):
        some = False
        for j in range(features):
            x = values[i, j]
            if math.isfinite(x):
                some = True
                out[count, j] = min(max((x - centre[j]) * inverse[j], -STANDARD_MAX), STANDARD_MAX)
            else:
                out[count, j] = 0.0
        if some:
            count += 1
    return out[:count], count
