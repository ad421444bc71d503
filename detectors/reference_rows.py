"""A sample of a reference's rows, for detectors that look at all numeric features together; and how it is stored.

Only a reference that is built for such detectors has one: it is part of its content, and so of its id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

SECTION, NAMES = "row_sample", "row_sample"


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceRows:
    """A sample of a reference's rows: values F64[r, f], NaN where there is none, of f numeric features by name, ascending.

    The rows come in random order.
    """

    names: tuple[str, ...]
    values: F64

    def of(self, names: Sequence[str]) -> ReferenceRows:
        """Of those features that are among `names`."""
        places = [place for place, name in enumerate(self.names) if name in names]
        return ReferenceRows(tuple(self.names[place] for place in places), self.values[:, places])


def rows_content(rows: ReferenceRows | None) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """(part of a profile's header, section); nothing of a profile without, which keeps its id."""
    if rows is None:
        return {}, {}
    return {NAMES: list(rows.names)}, {SECTION: rows.values.astype("<f8")}


def rows_from(header: Mapping[str, Any], sections: Mapping[str, NDArray[Any]]) -> ReferenceRows | None:
    """Inverse of `rows_content`."""
    if NAMES not in header:
        return None
    values = sections[SECTION].astype(np.float64)
    return ReferenceRows(tuple(header[NAMES]), values.reshape(-1, len(header[NAMES])))
