"""What a window record says of every target: moments, quantiles, rates and distances, out of merged bins.

All targets at once: a window of 200 targets costs about a millisecond. Quantiles are interpolated within their bin, whose
ends are the cuts and, outermost, the exact minimum and maximum: the error is at most the bin's mass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors import RECORDED
from detectors.binning import Kind
from detectors.distance import jensen_shannon, kolmogorov_smirnov, population_groups, psi
from detectors.reference import ReferenceProfile, TargetReference
from stream.columns import F64, I64
from stream.sparse import smallest
from stream.tally import APART, PlanMismatchError, Tally
from stream.window_series import Comparisons, Threshold, watched

QUANTILES = {"p01": 0.01, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}


_SAME = ("mean", "std", "missing", "invalid", "out_of_range", "unseen", "psi", "kolmogorov_smirnov", "jensen_shannon")
PLAIN = {"min": "minimum", "max": "maximum"} | {name: name for name in _SAME}  # fields by their names in records


@dataclass(frozen=True, slots=True)
class Statistics:
    """One window, t targets; NaN = has none (no events, or not of this kind). Rates are shares of the events."""

    mean: F64
    std: F64
    minimum: F64
    maximum: F64
    quantiles: dict[str, F64]
    missing: F64
    invalid: F64
    out_of_range: F64
    unseen: F64
    psi: F64
    kolmogorov_smirnov: F64
    jensen_shannon: F64
    compared: Mapping[str, F64] = field(default_factory=dict)  # watched distances and tests

    def series(self, name: str) -> F64:
        """F64[t] of a window series. Raises KeyError."""
        for found in (self.compared, self.quantiles):
            if name in found:
                return found[name]
        value: F64 = getattr(self, PLAIN[name])
        return value

    def named(self) -> dict[str, F64]:
        """Every statistic by its name in records, F64[t] each."""
        return {
            "mean": self.mean,
            "std": self.std,
            "min": self.minimum,
            "max": self.maximum,
            **self.quantiles,
            "missing": self.missing,
            "invalid": self.invalid,
            "out_of_range": self.out_of_range,
            "unseen": self.unseen,
            "psi": self.psi,
            "kolmogorov_smirnov": self.kolmogorov_smirnov,
            "jensen_shannon": self.jensen_shannon,
            **self.compared,
        }


class Lens:
    """Everything about a reference that the statistics of its windows need, laid out flat once. `names`: the plan's targets;
    `thresholds`: whose distances and tests are computed besides those of every record.
    """

    def __init__(self, names: Sequence[str], profile: ReferenceProfile, thresholds: Sequence[Threshold] = ()) -> None:
        known = {target.name: target for target in profile.targets}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise PlanMismatchError(f"reference {profile.id} has no target {unknown[0]!r}")
        self.names = tuple(names)
        self.targets: tuple[TargetReference, ...] = tuple(known[name] for name in names)
        self.labels = {t.name: t.binning.labels for t in self.targets if t.binning.kind is Kind.CATEGORICAL}
        bins = np.array([target.binning.bins for target in self.targets], np.int64)
        self.start: I64 = np.concatenate(([0], np.cumsum(bins + APART))).astype(np.int64)
        self.numeric: NDArray[np.bool_] = np.array([t.binning.kind is Kind.NUMERIC for t in self.targets], np.bool_)
        self.reference = smallest(_flat([target.histogram for target in self.targets], np.int64))
        ordered = np.zeros(int(self.start[-1]), np.bool_)
        for index in np.flatnonzero(self.numeric):
            ordered[self.start[index] : self.start[index + 1] - APART] = True
        group, self._group_start = population_groups(self.reference, ordered, self.start)
        self._group = smallest(group)
        self._ordered = np.flatnonzero(ordered).astype(np.int32)
        width = bins[self.numeric]
        self._start: I64 = np.concatenate(([0], np.cumsum(width))).astype(np.int64)
        cuts = [target.binning.cuts for target in self.targets if target.binning.kind is Kind.NUMERIC]
        # the ends of the k-th numeric target's bins, one more than it has bins: bin i's are at i + k and i + k + 1
        self._ends: F64 = _flat([np.concatenate(([-np.inf], each, [np.inf])) for each in cuts], np.float64)
        self._comparisons = Comparisons(watched(thresholds, RECORDED), self.targets)
        self._centre = np.array([target.binning.centre for target in self.targets], np.float64)

    def statistics(self, tally: Tally) -> Statistics:
        """Raises PlanMismatchError if the tally was counted with other bins."""
        if tally.names != self.names or not np.array_equal(tally.start, self.start):
            raise PlanMismatchError(f"counts of {len(tally.names)} targets do not fit a reference of {len(self.names)}")
        events = float(tally.events) if tally.events else np.nan
        values = np.full(len(self.names), np.nan)
        values[self.numeric] = np.diff(self._before(tally.counts[self._ordered])[self._start])
        values[values == 0] = np.nan
        mean = tally.sums[:, 0] / values
        std = np.sqrt(np.maximum(tally.sums[:, 1] / values - mean**2, 0.0))
        ends = tally.start[1:]
        unseen = np.where(self.numeric, np.nan, tally.counts[ends - APART - 1] / events)
        return Statistics(
            mean=mean + self._centre,
            std=std,
            minimum=tally.extremes[:, 0],
            maximum=tally.extremes[:, 1],
            quantiles=self._quantiles(tally),
            missing=tally.counts[ends - 2] / events,
            invalid=tally.counts[ends - 1] / events,
            out_of_range=np.where(self.numeric, tally.out_of_range / events, np.nan),
            unseen=unseen,
            psi=psi(self.reference, tally.counts, self._group, self._group_start),
            kolmogorov_smirnov=self._kolmogorov_smirnov(tally),
            jensen_shannon=jensen_shannon(self.reference, tally.counts, self.start),
            compared=self._comparisons.values(tally),
        )

    def _kolmogorov_smirnov(self, tally: Tally) -> F64:
        distance = np.full(len(self.names), np.nan)
        reference, now = self.reference[self._ordered], tally.counts[self._ordered]
        distance[self.numeric] = kolmogorov_smirnov(reference, now, self._start)
        return distance

    def _quantiles(self, tally: Tally) -> dict[str, F64]:
        counts = tally.counts[self._ordered]
        before = self._before(counts)
        first, stop = self._start[:-1], self._start[1:]
        total = before[stop] - before[first]
        low, high = tally.extremes[self.numeric].T
        found: dict[str, F64] = {}
        some = total > 0
        rows = np.flatnonzero(self.numeric)[some]
        first, stop, total, low, high = first[some], stop[some], total[some], low[some], high[some]
        target = np.flatnonzero(some)
        for name, share in QUANTILES.items():
            goal = before[first] + share * total
            place = np.clip(np.searchsorted(before[1:], goal, side="left"), first, stop - 1)
            lower = np.fmax(self._ends[place + target], low)
            upper = np.fmin(self._ends[place + target + 1], high)
            inside = (goal - before[place]) / np.maximum(counts[place], 1)
            values = np.full(len(self.names), np.nan)
            values[rows] = lower + np.maximum(upper - lower, 0.0) * inside
            found[name] = values
        return found

    @staticmethod
    def _before(counts: I64) -> F64:
        return np.concatenate((np.zeros(1), np.cumsum(counts, dtype=np.float64)))


def _flat(parts: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)
