"""What distances and tests compare: the bins of t targets in the reference, and the same bins in a window.

Flat ("ragged") arrays: the bins of target i, with its missing and its invalid count behind them, are at
[start[i], start[i + 1]). Everything is vectorised over all targets of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.binning import Kind
from detectors.distance.ragged import F64, I64, totals
from detectors.reference import TargetReference
from detectors.verdict import BadCounts

APART = 2  # after a target's bins: missing, invalid


class Traits(NamedTuple):
    """What holds for every reference and window; the laws check it. `upper`: largest possible value."""

    symmetric: bool
    upper: float


class Outcome(NamedTuple):
    """F64[t] each, NaN = cannot be tested. Degrees of freedom are NaN where the test has none."""

    statistic: F64
    degrees: F64
    p_value: F64


@dataclass(frozen=True, slots=True, eq=False)
class WindowBins:
    """Counts I64[n] of a window (or of several, added); `minimum` and `maximum` F64[t] of its values, NaN = none or unknown."""

    counts: I64
    minimum: F64
    maximum: F64


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceBins:
    """The reference's side, checked: BadCounts for counts that are not finite and >= 0, or of the wrong length.

    start    I64[t + 1]                        counts    F64[n]
    ordered  bool[n]: a bin of a numeric target's values; what stands apart (missing, invalid, categories) is False
    ends     F64[ordered bins + numeric targets]: those of the k-th numeric target's bins, outermost -inf and inf
    minimum, maximum, std   F64[t] of the reference's values, NaN for a categorical target

    places I64[ordered bins], ordered_start I64[t + 1]: where the ordered bins are; a categorical target has none.
    """

    start: I64
    counts: F64
    ordered: NDArray[np.bool_]
    ends: F64
    minimum: F64
    maximum: F64
    std: F64
    places: I64 = field(init=False)
    ordered_start: I64 = field(init=False)

    def __post_init__(self) -> None:
        check_counts("reference", self.counts, self.start)
        object.__setattr__(self, "places", np.flatnonzero(self.ordered))
        width = totals(self.ordered.astype(np.int64), self.start).astype(np.int64)
        object.__setattr__(self, "ordered_start", np.concatenate(([0], np.cumsum(width))).astype(np.int64))

    @classmethod
    def of(cls, targets: Sequence[TargetReference]) -> ReferenceBins:
        """Of these targets of a profile, all rows of the reference. O(bins)."""
        numeric = [target for target in targets if target.binning.kind is Kind.NUMERIC]
        start = np.cumsum([0, *(target.binning.bins + APART for target in targets)]).astype(np.int64)
        ordered = np.zeros(int(start[-1]), np.bool_)
        for target, first, stop in zip(targets, start[:-1], start[1:], strict=True):
            ordered[first : stop - APART] = target.binning.kind is Kind.NUMERIC
        return cls(
            start=start,
            counts=_flat([target.histogram for target in targets]),
            ordered=ordered,
            ends=_flat([np.concatenate(([-np.inf], target.binning.cuts, [np.inf])) for target in numeric]),
            minimum=np.array([target.minimum for target in targets], np.float64),
            maximum=np.array([target.maximum for target in targets], np.float64),
            std=np.array([target.summary.get("std", np.nan) for target in targets], np.float64),
        )


Measure = Callable[[WindowBins], F64]
TwoSample = Callable[[WindowBins], Outcome]


def _flat(parts: Sequence[NDArray[np.generic]]) -> F64:
    return np.concatenate(parts).astype(np.float64) if parts else np.zeros(0)


def check_counts(whose: str, counts: NDArray[np.float64] | NDArray[np.int64], start: I64) -> None:
    """Raises BadCounts: what is wrong, with the target's number and the bin's. O(n)."""
    if counts.shape != (int(start[-1]),):
        raise BadCounts(f"{whose}: {int(start[-1])} counts expected, got an array of shape {counts.shape}")
    if counts.dtype.kind not in "iuf":
        raise BadCounts(f"{whose}: counts are numbers, got {counts.dtype}")
    bad = np.flatnonzero(~(np.isfinite(counts) & (counts >= 0)))
    if len(bad):
        at = int(bad[0])
        target = int(np.searchsorted(start, at, side="right")) - 1
        raise BadCounts(f"{whose}: count {counts[at]} of target {target}, bin {at - int(start[target])}")
