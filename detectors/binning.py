"""How the values of one target become bins: cut points, atoms and far cuts, or a table of categories."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
U64 = NDArray[np.uint64]
I32 = NDArray[np.int32]


class Kind(StrEnum):
    NUMERIC = "numeric"
    CATEGORICAL = "categorical"


@dataclass(frozen=True, slots=True)
class Binning:
    """Bins of one target.

    numeric      bin(x) = number of `cuts` <= x; cuts F64 strictly increasing; bins = len(cuts) + 1. `core` = (first, stop):
                 the cuts [first:stop] come from the reference, the others are the geometric far cuts beyond either end.
                 `centre` is subtracted before values are summed. Values outside [low, high] are counted out of range and binned.
    categorical  key U64 sorted hashes, code I32 same length: key[i] -> bin code[i]. Bins 0..len(labels)-1 are named by
                 `labels`; the last but one is "__other__" (known, rare), the last "__unseen__". A number is hashed by its
                 text as `category_text` writes it, a bool as "true"/"false".
    """

    kind: Kind
    cuts: F64
    core: tuple[int, int]
    centre: float
    low: float
    high: float
    key: U64
    code: I32
    labels: tuple[str, ...]

    @property
    def bins(self) -> int:
        """Number of bins, far ones, other and unseen included."""
        return len(self.cuts) + 1 if self.kind is Kind.NUMERIC else len(self.labels)
