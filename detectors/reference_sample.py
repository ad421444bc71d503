"""The sample of rows that a reference keeps of its file for detectors that look at all numeric features together, or at arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.binning import Kind
from detectors.column_values import VALID, read_column
from detectors.reference_rows import ReferenceRows
from detectors.reference_windows import shuffled

ROWS_KEPT = 2000  # an AUROC against 500 rows of a window has a deviation of .02 then; 16 KB a feature
ArraysOf = Callable[[NDArray[np.int64]], NDArray[np.float32]]  # the valid arrays of these rows, F32[k, length]


def sampled_rows(
    columns: Mapping[str, NDArray[Any]],
    roles: Mapping[str, str],
    kinds: Mapping[str, str],
    role: str,
    arrays: Mapping[str, ArraysOf] | None = None,
) -> ReferenceRows:
    """ROWS_KEPT rows of a file, chosen by a hash of their number: of the columns of this role that are numeric; and of `arrays`, by
    name, as many of the rows that have one, whose norm in `columns` is finite.
    """
    everywhere = shuffled(len(next(iter(columns.values()))))
    order = everywhere[:ROWS_KEPT]
    found = {}
    for name in sorted(columns):
        if roles[name] == role:
            column = read_column(name, columns[name], roles[name], kinds.get(name))
            if column.kind is Kind.NUMERIC:
                found[name] = np.where(column.state == VALID, column.value, np.nan)[order]
    values = np.stack(list(found.values()), axis=1) if found else np.empty((len(order), 0))
    kept = {}
    for name, of in (arrays or {}).items():
        valid = everywhere[np.isfinite(columns[name])[everywhere]]
        kept[name] = of(valid[:ROWS_KEPT])
    return ReferenceRows(tuple(found), values, kept)
