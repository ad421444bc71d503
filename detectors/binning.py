"""How the values of one target become bins: cut points, atoms and far cuts, or a table of categories."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np
import xxhash
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


OTHER_LABEL, UNSEEN_LABEL = "__other__", "__unseen__"

# Probabilities of the cut points: about a normal law's spacing, denser in both tails where drift costs most.
_LOWER_CUTS = (
    0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45,
)  # fmt: skip
CUT_PROBABILITIES = (*_LOWER_CUTS, 0.5, *(1.0 - p for p in reversed(_LOWER_CUTS)))
FAR_CUTS = 20  # beyond either end, at the reference's range x 2^k: a unit changed by a million still has quantiles
ATOM_MASS_MIN = 0.01  # a value with this share of the rows gets a bin of its own
INTEGER_TEXT_MAX = 2.0**53  # whole floats below it are written as integers


def category_text(value: str | bool | float) -> str:
    """The text under which a value is a category: bool true/false, whole numbers below 2^53 without a point, else repr.

    A number beyond float64 is no category of its own: OverflowError, as float() raises it.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    number = float(value)
    if number.is_integer() and abs(number) < INTEGER_TEXT_MAX:
        return str(int(number))
    return repr(number)


def category_hash(value: str | bool | float) -> int:
    """xxh3-64 of `category_text`, as the collector hashes a cell. A lone surrogate cannot be hashed: UnicodeEncodeError."""
    return xxhash.xxh3_64_intdigest(category_text(value).encode())


def assign_bins(binning: Binning, values: F64) -> NDArray[np.int64]:
    """Bin of every finite value: the number of cuts <= it. O(n log cuts)."""
    return np.searchsorted(binning.cuts, values, side="right").astype(np.int64)


def assign_categories(binning: Binning, hashes: U64) -> NDArray[np.int64]:
    """Bin of every category hash; a hash that is not in the table is "__unseen__"."""
    unseen = binning.bins - 1
    if not len(binning.key):
        return np.full(len(hashes), unseen, np.int64)
    at = np.minimum(np.searchsorted(binning.key, hashes), len(binning.key) - 1)
    return np.where(binning.key[at] == hashes, binning.code[at], unseen).astype(np.int64)


def far_cuts(low: float, high: float) -> tuple[F64, F64]:
    """(below, above): FAR_CUTS cuts each at the range x 2^k from either end, ascending; those that overflow are left out."""
    with np.errstate(over="ignore"):
        span = max(high - low, abs(high) * 1e-9, 1e-9) if high > low else max(abs(high), 1.0)
        steps = span * 2.0 ** np.arange(FAR_CUTS)
        below, above = np.unique(low - steps), np.unique(high + steps)
    return below[np.isfinite(below) & (below < low)], above[np.isfinite(above) & (above > high)]


def core_cuts(values: F64) -> F64:
    """Cut points of sorted finite values [n >= 1]: their quantiles, and both sides of every atom. Strictly increasing.

    A cut at an order statistic x_(r), r = p (n + 1), puts x_(r) into the upper bin. An atom a lies alone between the cuts
    a and nextafter(a).
    """
    n = len(values)
    rank = np.unique(np.clip(np.round(np.array(CUT_PROBABILITIES) * (n + 1)), 1, n)).astype(np.int64)
    distinct, count = np.unique(values, return_counts=True)
    atoms = distinct[count >= max(ATOM_MASS_MIN * n, 2)]
    with np.errstate(over="ignore"):
        after = np.nextafter(atoms, np.inf)
    cuts = np.unique(np.concatenate([values[rank - 1], atoms, after]))
    finite: F64 = cuts[np.isfinite(cuts)]
    return finite


def numeric_binning(values: F64, limits: tuple[float, float] | None = None) -> Binning:
    """Binning of a numeric target from finite values [n >= 1] in any order; `limits` = the configured range (low, high)."""
    ordered = np.sort(values)
    lowest, highest = float(ordered[0]), float(ordered[-1])
    core = core_cuts(ordered)
    below, above = far_cuts(min(lowest, float(core[0])), max(highest, float(core[-1])))
    low, high = limits if limits is not None else (lowest, highest)
    return Binning(
        kind=Kind.NUMERIC,
        cuts=np.concatenate([below, core, above]),
        core=(len(below), len(below) + len(core)),
        centre=float(ordered[len(ordered) // 2]),
        low=low,
        high=high,
        key=np.empty(0, np.uint64),
        code=np.empty(0, np.int32),
        labels=(),
    )


def bin_labels(binning: Binning) -> tuple[str, ...]:
    """Names of the core bins for people, the far ones folded into the outer; a categorical target's labels."""
    if binning.kind is Kind.CATEGORICAL:
        return binning.labels
    cuts = binning.cuts[binning.core[0] : binning.core[1]].tolist()
    labels = [f"below {cuts[0]:.4g}"]
    for left, right in pairwise(cuts):
        labels.append(f"{left:.6g}" if right == math.nextafter(left, math.inf) else f"{left:.4g} to {right:.4g}")
    return (*labels, f"{cuts[-1]:.4g} and above")
