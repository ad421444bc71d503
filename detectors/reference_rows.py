"""A sample of a reference's rows, for detectors that look at all numeric features together, or at arrays; and how it is stored.

Only a reference that is built for such detectors has one: it is part of its content, and so of its id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

SECTION, NAMES = "row_sample", "row_sample"
ARRAYS = "row_arrays"  # of the header: [name, length] each; and the section


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceRows:
    """A sample of a reference's rows: values F64[r, f], NaN where there is none, of f numeric features by name, ascending.

    The rows come in random order. arrays: F32[k, length] by feature, of k rows that have a valid one, not of these.
    """

    names: tuple[str, ...]
    values: F64
    arrays: Mapping[str, F32] = field(default_factory=dict)

    def of(self, names: Sequence[str]) -> ReferenceRows:
        """Of those features that are among `names`."""
        places = [place for place, name in enumerate(self.names) if name in names]
        return ReferenceRows(tuple(self.names[place] for place in places), self.values[:, places])

    def of_array(self, name: str) -> ReferenceRows:
        """Of the numbers of one feature's arrays. Raises KeyError."""
        values = self.arrays[name].astype(np.float64)
        return ReferenceRows(tuple(f"{name}[{place}]" for place in range(values.shape[1])), values)


def rows_content(rows: ReferenceRows | None) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """(part of a profile's header, section); nothing of a profile without, which keeps its id."""
    if rows is None:
        return {}, {}
    header: dict[str, Any] = {NAMES: list(rows.names)}
    sections: dict[str, NDArray[Any]] = {SECTION: rows.values.astype("<f8")}
    if rows.arrays:
        header[ARRAYS] = [[name, values.shape[1]] for name, values in sorted(rows.arrays.items())]
        lengths = [len(values) for _, values in sorted(rows.arrays.items())]
        flat = [values.reshape(-1) for _, values in sorted(rows.arrays.items())]
        sections |= {ARRAYS: np.concatenate(flat).astype("<f4"), ARRAYS + ".rows": np.array(lengths, "<i8")}
    return header, sections


def rows_from(header: Mapping[str, Any], sections: Mapping[str, NDArray[Any]]) -> ReferenceRows | None:
    """Inverse of `rows_content`."""
    if NAMES not in header:
        return None
    values = sections[SECTION].astype(np.float64)
    arrays: dict[str, F32] = {}
    first = 0
    for place, (name, length) in enumerate(header.get(ARRAYS, ())):
        stop = first + length * int(sections[ARRAYS + ".rows"][place])
        arrays[name] = sections[ARRAYS][first:stop].astype(np.float32).reshape(-1, length)
        first = stop
    return ReferenceRows(tuple(header[NAMES]), values.reshape(-1, len(header[NAMES])), arrays)
