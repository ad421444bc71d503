"""Limits that a reference makes of an operator's words: "3 std", or "1 per 30d". Pure.

Whatever a series is, its values scatter more in small windows than in large ones, and distances are larger in them without any
drift. So a limit belongs to a size of window: the reference's own windows are brought to the live window's size
(detectors/reference_kept.py), the series is computed of each with the code that computes the live one, and the limit is made of
these values. That is done for sizes that are SIZE_STEP apart; between them limits are straight in 1 / sqrt(size), within 1 %.

    "3 std"       mean +- 3 standard deviations of those values
    "1 per 30d"   p = duration of the window / (30 d x targets of the threshold), the share of such windows that may pass. With u the
                  (k + 1)-th largest of m values, k = m / 10, and S the sum of what the k above exceed it by:
                      limit = u + S (((k + 1) / (m + 1) / p)^(1 / k) - 1)
                  which chance passes with probability p, the estimate's own error included, where exceedances of u are
                  exponential [1]; seldomer where the tail is lighter (normal), oftener where it is heavier, or live windows are not
                  like the reference's. No limit is below u: at most every tenth window

A share (of missing values and the like) is never alarmed about for what Poisson counts of the reference's share, one event
added, do with probability p: where the reference has none at all, the first one proves nothing.

Counted are windows beyond a limit; an incident of many windows is one alert. Limits know no hours: a season makes them wider.

Cost    some 10 ms a target and size, when a window of that size is seen first; 150 bytes a target, series and size
Source  [1] Pickands 1975, Ann. Statist. 3 (exceedances); the gamma-exponential ratio S'/S: Lawless 2003, Statistical Models and
        Methods for Lifetime Data, ch. 3.1
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from detectors import REGISTRY
from detectors.reference import ReferenceProfile, TargetReference
from detectors.reference_kept import POOLS_MIN, Resized, resize_seed, resized, sizes
from detectors.registry import Family
from stream.columns import F64
from stream.registers import Registers
from stream.tally import Tally
from stream.window_series import QUALITY, FromReference, Limit, Threshold
from stream.window_statistics import Lens

SIZE_STEP = 2.0**0.5
TAIL_SHARE = 10  # one in so many values is in the tail
TAIL_MIN = 10  # values
LENS_TARGETS = 50  # windows of one target that are computed at once, as if they were targets
LOG_P_MAX = 700.0  # -log of the smallest p that a float holds
ROUNDING = 1e-9  # relative: a constant series is not above itself
RARE_EVENTS = 100.0  # a share of fewer expected events is judged by Poisson counts, too


@dataclass(frozen=True, slots=True)
class Tail:
    """Values beyond u: k of m, which exceed it by `excess` in all."""

    u: float
    excess: float
    k: int
    m: int

    @classmethod
    def of(cls, values: F64) -> Tail:
        """Of the largest values F64[m], m > TAIL_MIN."""
        ordered = np.sort(values)[::-1]
        k = max(TAIL_MIN, len(ordered) // TAIL_SHARE)
        u = float(ordered[k])
        return cls(u, float((ordered[:k] - u).sum()), k, len(ordered))

    def limit(self, p: float) -> float:
        """What a new value is above with probability p; u where that is too often to be in the tail."""
        share = (self.k + 1) / (self.m + 1)
        return self.u + self.excess * ((share / p) ** (1.0 / self.k) - 1.0) if p < share else self.u


@dataclass(frozen=True, slots=True)
class Spread:
    """A series of one target in the reference's windows of `size` events. low: of the negated values; those of a test: -log p."""

    size: int
    mean: float
    std: float
    high: Tail
    low: Tail
    rare: float | None = None  # events in a window of this size, of a share

    def above(self, limit: FromReference, p: float) -> float:
        if limit.deviations is not None:
            found = self.mean + limit.deviations * self.std
        else:
            found = self.high.limit(p)
            if self.rare is not None and self.rare < RARE_EVENTS:
                found = max(found, poisson_limit(self.rare, p) / self.size)
        return found + ROUNDING * abs(found)

    def below(self, limit: FromReference, p: float) -> float:
        found = self.mean - limit.deviations * self.std if limit.deviations is not None else -self.low.limit(p)
        return found - ROUNDING * abs(found)


@dataclass(frozen=True, slots=True)
class Between:
    """A series of one target in windows of `size` events: `share` of what windows of the next larger step show, the rest of the other."""

    size: int
    share: float
    smaller: Spread
    larger: Spread

    def between(self, of: Callable[[Spread], float]) -> float:
        return (1.0 - self.share) * of(self.smaller) + self.share * of(self.larger)

    @property
    def mean(self) -> float:
        return self.between(lambda spread: spread.mean)

    @property
    def std(self) -> float:
        return self.between(lambda spread: spread.std)


@dataclass(frozen=True, slots=True)
class Sides:
    """The limits of one window; None: there is none. `size`: of the reference's windows that made them, 0 = they are configured."""

    above: float | None = None
    below: float | None = None
    size: int = 0


class ReferenceLimits:
    """Limits of the thresholds of one model's targets, made as windows come. What it remembers follows from the reference alone."""

    def __init__(self, profile: ReferenceProfile, thresholds: Sequence[Threshold]) -> None:
        self.profile = profile
        self._made = [each for each in thresholds if each.made]
        self._targets = {target.name: target for target in profile.targets}
        self._range: dict[str, tuple[int, int]] = {}
        self._spreads: dict[tuple[str, int], dict[str, Spread]] = {}

    def of(self, threshold: Threshold, target: str, events: int, duration_ms: int) -> Sides:
        """Of a window of so many events and so long."""
        if not threshold.made:
            above, below = threshold.above, threshold.below
            assert not isinstance(above, FromReference)
            assert not isinstance(below, FromReference)
            return Sides(above, below)
        spread = self.spread(threshold, target, events)
        above, below = (self._side(threshold, side, spread, duration_ms) for side in ("above", "below"))
        return Sides(above, below, 0 if spread is None else spread.size)

    def spread(self, threshold: Threshold, target: str, events: int) -> Between | None:
        """Of a threshold's series in the reference's windows of so many events, as near as they go; None: there are none, or too few."""
        found = self._targets[target]
        if found.kept is None:
            return None
        if target not in self._range:
            self._range[target] = sizes(found.kept, self.profile.windows.count)
        low, high = self._range[target]
        size = min(max(events, low), high)
        smaller, larger = steps_around(size, low, high)
        ends = [self._at(found, step).get(threshold.series) for step in (smaller, larger)]
        if ends[0] is None or ends[1] is None:
            return None
        share = 0.0 if smaller == larger else (smaller**-0.5 - size**-0.5) / (smaller**-0.5 - larger**-0.5)
        return Between(size, share, ends[0], ends[1])

    def _at(self, target: TargetReference, size: int) -> dict[str, Spread]:
        if (target.name, size) not in self._spreads:
            self._spreads[target.name, size] = dict(self._computed(target, size))
        return self._spreads[target.name, size]

    def _side(self, threshold: Threshold, side: str, spread: Between | None, duration_ms: int) -> float | None:
        limit: Limit | None = getattr(threshold, side)
        if not isinstance(limit, FromReference):
            return limit
        if spread is None:
            return None
        p = 0.0
        if limit.period_ms is not None:
            p = duration_ms / (limit.period_ms * (len(threshold.targets) or len(self.profile.targets)))
        if is_test(threshold):
            return math.exp(-min(spread.between(lambda end: end.above(limit, p)), LOG_P_MAX))
        return spread.between(lambda end: end.above(limit, p) if side == "above" else end.below(limit, p))

    def _computed(self, target: TargetReference, size: int) -> Iterable[tuple[str, Spread]]:
        wanted = [each for each in self._made if not each.targets or target.name in each.targets]
        assert target.kept is not None
        seed = resize_seed(target.name, self.profile.id, size)
        windows = resized(target.kept, target.binning, self.profile.windows.count, size, seed)
        values = series_of(self.profile, target.name, windows, size, wanted)
        for threshold in wanted:
            found = values[threshold.series]
            found = found[np.isfinite(found)]
            if len(found) < POOLS_MIN:
                continue
            if is_test(threshold):
                found = np.minimum(-np.log(np.maximum(found, np.finfo(np.float64).tiny)), LOG_P_MAX)
            rare = None
            if threshold.type in QUALITY:
                rare = (float(found.sum()) * size + 1.0) / len(found)
            yield (
                threshold.series,
                Spread(size, float(found.mean()), float(found.std(ddof=1)), Tail.of(found), Tail.of(-found), rare),
            )


def series_of(
    profile: ReferenceProfile, target: str, windows: Resized, size: int, thresholds: Sequence[Threshold]
) -> dict[str, F64]:
    """Series of the thresholds -> F64[g] of the windows, by the code that computes the live ones."""
    many = len(windows.counts)
    lens = Lens([target] * min(LENS_TARGETS, many), profile, thresholds)
    parts: dict[str, list[F64]] = {threshold.series: [] for threshold in thresholds}
    for first in range(0, many, LENS_TARGETS):
        rows = np.minimum(np.arange(first, first + len(lens.names)), many - 1)  # the last one again, to fill up
        tally = Tally(
            names=lens.names,
            events=size,
            start=lens.start,
            counts=windows.counts[rows].reshape(-1),
            sums=windows.sums[rows],
            extremes=windows.extremes[rows],
            out_of_range=windows.out_of_range[rows],
            distinct=Registers.none(),
        )
        statistics = lens.statistics(tally)
        for series, found in parts.items():
            found.append(statistics.series(series)[: many - first])
    return {series: np.concatenate(found) if found else np.empty(0) for series, found in parts.items()}


def made_words(threshold: Threshold, *, above: bool, size: int) -> str:
    """How a limit was made, for alerts; "" if it is as configured."""
    limit = threshold.above if above else threshold.below
    return f"{limit.text} by the reference's windows of {size:,} events" if isinstance(limit, FromReference) else ""


def is_test(threshold: Threshold) -> bool:
    """Whether its number is a p-value."""
    return threshold.type in REGISTRY and REGISTRY[threshold.type].family is Family.TEST


def steps_around(size: int, low: int, high: int) -> tuple[int, int]:
    """The largest step at or below `size` and the smallest at or above it; low and high are steps."""
    smaller, steps = low, 0
    while True:
        steps += 1
        larger = min(max(round(low * SIZE_STEP**steps), smaller + 1), high)
        if size <= smaller or larger <= smaller:
            return smaller, smaller
        if size < larger:
            return smaller, larger
        smaller = larger


def poisson_limit(mean: float, p: float) -> int:
    """The smallest number that a Poisson count of this mean is above with probability at most p."""
    mass = math.exp(-mean)
    below, count = mass, 0
    while 1.0 - below > p and mass > 0.0:
        count += 1
        mass *= mean / count
        below += mass
    return count


def without_windows(profile: ReferenceProfile, but: Collection[str] = ()) -> ReferenceProfile:
    """The same profile without the windows that its targets keep, but for those of `but`: 40 KB a target. Not to be written."""
    targets = (each if each.name in but else replace(each, kept=None) for each in profile.targets)
    return replace(profile, targets=tuple(targets))
