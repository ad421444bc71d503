"""Rivals whose one threshold is set so that they alarm once in A events on clean normal data: what is left is how fast they are.

    PageHinkley     m_t - min m of sums of z -+ delta, z standardised by the reference; the larger of both sides [1]
    SlidingKS       largest |F_window - F_reference| over the last W values, at every event [2]
    QTEWMA          sum over K bins of (Z_k - 1/K)^2 K, Z_k an exponentially weighted share of the bin, K equal parts of the reference [3]
    Adwin           river's; its threshold is delta

The first three are told what the reference knows, which helps them. Each starts afresh after an alarm, so the mean number of events
until its first alarm is its rate: A is met where alarms / events watched until the first of each run = 1 / A, over CLEAN_RUNS
independent runs with references of their own, none of which any other figure is made of.

[1] Page 1954, Biometrika 41. [2] the statistic of KSWIN: Raab, Heusinger, Schleif 2020, Neurocomputing 416.
[3] Frittoli, Carrera, Boracchi 2022, IEEE TNNLS.
"""

# ruff: noqa: PLR0917 - compiled kernels take their arrays one by one

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from river import drift

from detectors.compiled import compiled
from load_tests.detection.contenders import SETTINGS, Contender, River
from load_tests.detection.streams import BY_NAME, Rows

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

BUDGET = SETTINGS[0].budget
CLEAN_RUNS = 100
CLEAN_EVENTS = 2 * int(BUDGET)  # of a run: some 86 of 100 end with an alarm, so that the rate is known to a tenth
DELTAS = (0.006, 0.02, 0.06, 0.2)  # of ADWIN; between them its rate is log-linear
ADWIN_RUNS = (
    25  # of the clean ones: some 7 us an event; with each delta it sees them whole, not until its first alarm only
)


@compiled
def page_hinkley(z: F64, slack: float, first: int, threshold: float, out: F64) -> int:
    """Statistic of every event from `first` on, started there, up to the first above `threshold`: that event, or -1."""
    up, down, lowest, highest = 0.0, 0.0, 0.0, 0.0
    for i in range(first, len(z)):
        up += z[i] - slack
        down += z[i] + slack
        lowest, highest = min(lowest, up), max(highest, down)
        out[i] = max(up - lowest, highest - down)
        if out[i] > threshold:
            return i
    return -1


@compiled
def sliding_ks(u: F64, window: int, first: int, threshold: float, out: F64) -> int:
    """As page_hinkley; u: the reference's distribution function at the values; 0 until the window is full."""
    ordered = np.empty(window)
    for i in range(first, len(u)):
        n = i - first
        if n >= window:  # the oldest leaves
            n = window
            at = np.searchsorted(ordered, u[i - window])
            for k in range(at, window - 1):
                ordered[k] = ordered[k + 1]
            n -= 1
        at = np.searchsorted(ordered[:n], u[i])
        for k in range(n, at, -1):
            ordered[k] = ordered[k - 1]
        ordered[at] = u[i]
        largest = 0.0
        if n + 1 == window:
            for k in range(window):
                largest = max(largest, (k + 1) / window - ordered[k], ordered[k] - k / window)
        out[i] = largest
        if largest > threshold:
            return i
    return -1


@compiled
def qt_ewma(part: I64, parts: int, weight: float, first: int, threshold: float, out: F64) -> int:
    """As page_hinkley. Shares decay together: kept as share / scale, so that an event costs O(1)."""
    share = np.full(parts, 1.0 / parts)
    scale, squares = 1.0, 1.0 / parts
    for i in range(first, len(part)):
        k = part[i]
        before = share[k] * scale * (1.0 - weight)
        squares = squares * (1.0 - weight) ** 2 + 2.0 * weight * before + weight * weight
        scale *= 1.0 - weight
        share[k] += weight / scale
        if scale < 1e-100:
            share *= scale
            scale = 1.0
        out[i] = parts * squares - 1.0
        if out[i] > threshold:
            return i
    return -1


class Rival(Protocol):
    """A detector with one threshold. `statistics` fills out F64[n] from event `first` on, started there, until one is above it."""

    name: str

    def fit(self, reference: F64) -> None:
        """Learn what is normal."""

    def prepare(self, live: F64) -> NDArray[Any]:
        """What every start needs of the live values."""

    def statistics(self, prepared: NDArray[Any], first: int, out: F64, threshold: float = math.inf) -> int:
        """The first event from `first` on that is above `threshold`, -1 = none."""


class PageHinkley:
    def __init__(self, slack: float) -> None:
        self.name, self.slack = f"Page-Hinkley delta={slack:g}", slack

    def fit(self, reference: F64) -> None:
        self.mean, self.std = float(reference.mean()), float(reference.std())

    def prepare(self, live: F64) -> NDArray[Any]:
        return (live - self.mean) / self.std

    def statistics(self, prepared: NDArray[Any], first: int, out: F64, threshold: float = math.inf) -> int:
        return page_hinkley(prepared, self.slack, first, threshold, out)


class SlidingKS:
    def __init__(self, window: int) -> None:
        self.name, self.window = f"sliding KS W={window}", window

    def fit(self, reference: F64) -> None:
        self.ordered = np.sort(reference)

    def prepare(self, live: F64) -> NDArray[Any]:
        return np.searchsorted(self.ordered, live, side="right") / len(self.ordered)

    def statistics(self, prepared: NDArray[Any], first: int, out: F64, threshold: float = math.inf) -> int:
        return sliding_ks(prepared, self.window, first, threshold, out)


class QTEWMA:
    def __init__(self, weight: float, parts: int = 32) -> None:
        self.name, self.weight, self.parts = f"QT-EWMA lambda={weight:g}", weight, parts

    def fit(self, reference: F64) -> None:
        self.cuts = np.quantile(reference, np.arange(1, self.parts) / self.parts)

    def prepare(self, live: F64) -> NDArray[Any]:
        return np.searchsorted(self.cuts, live).astype(np.int64)

    def statistics(self, prepared: NDArray[Any], first: int, out: F64, threshold: float = math.inf) -> int:
        return qt_ewma(prepared, self.parts, self.weight, first, threshold, out)


RIVALS: tuple[Callable[[], Rival], ...] = (
    *(partial(PageHinkley, slack) for slack in (0.05, 0.125, 0.25)),
    *(partial(SlidingKS, window) for window in (200, 500)),
    *(partial(QTEWMA, weight) for weight in (0.001, 0.003, 0.01)),
)
ADWIN = "ADWIN"
CALIBRATED = "calibrated"  # how the names of all of them begin


class Calibrated:
    """A rival with its threshold. Missing values are left out."""

    numeric_only = True

    def __init__(self, rival: Rival, threshold: float) -> None:
        self.name = f"{CALIBRATED} {rival.name}"
        self.rival, self.threshold = rival, threshold

    def fit(self, reference: Rows) -> None:
        values = np.asarray(reference.value, np.float64)
        self.rival.fit(values[~np.isnan(values)])

    def alarms(self, live: Rows, after: int | None = None) -> I64:
        values = np.asarray(live.value, np.float64)
        place = np.flatnonzero(~np.isnan(values))
        prepared = self.rival.prepare(values[place])
        statistic, found, first = np.zeros(len(place)), [], 0
        while first < len(place):
            at = self.rival.statistics(prepared, first, statistic, self.threshold)
            if at < 0:
                break
            found.append(int(place[at]))
            if after is not None and found[-1] >= after:
                break
            first = at + 1
        return np.array(found, np.int64)


def adwin(delta: float) -> River:
    return River(f"{CALIBRATED} {ADWIN}", partial(drift.ADWIN, delta))


# ---- calibration --------------------------------------------------------------------------------------------------------


def records(statistic: F64) -> tuple[F64, I64]:
    """Where a statistic is larger than ever before: (value, event), both ascending. First passages of every threshold at once."""
    highest = np.maximum.accumulate(statistic)
    at = np.flatnonzero(np.diff(highest, prepend=-np.inf) > 0)
    return highest[at], at


def clean_task(reference: int, seed: int, number: int, events: int = CLEAN_EVENTS) -> dict[str, Any]:
    """One clean run: records of every rival, and ADWIN's alarms for each of DELTAS."""
    rows = BY_NAME["normal"].draw(np.random.default_rng([seed, 271828, number]), reference + events)
    before, live = rows.cut(0, reference), rows.cut(reference, reference + events)
    found: dict[str, Any] = {}
    for make in RIVALS:
        rival = make()
        rival.fit(np.asarray(before.value))
        statistic = np.zeros(events)
        rival.statistics(rival.prepare(np.asarray(live.value)), 0, statistic)
        found[rival.name] = records(statistic)
    if number < ADWIN_RUNS:
        found[ADWIN] = [len(adwin(delta).alarms(live)) for delta in DELTAS]
    return found


def threshold_of(runs: Sequence[tuple[F64, I64]], events: int, budget: float) -> tuple[float, int]:
    """(threshold, alarms it rests on): the smallest at which first alarms / events until them or the end is at most 1 / budget."""
    low, high = 0.0, max(float(values[-1]) for values, _ in runs)
    alarms = 0
    for _ in range(60):
        middle = 0.5 * (low + high)
        places = [np.searchsorted(values, middle, side="right") for values, _ in runs]
        ends = [at[p] + 1 if p < len(at) else events for p, (_, at) in zip(places, runs, strict=True)]
        count = sum(int(p < len(at)) for p, (_, at) in zip(places, runs, strict=True))
        if count * budget > sum(ends):
            low = middle
        else:
            high, alarms = middle, count
    return high, alarms


def delta_of(counts: Sequence[Sequence[int]], events: int, budget: float) -> float:
    """ADWIN's delta at which it alarms once in `budget` events: between DELTAS, straight in logarithms; the nearest one beyond."""
    rate = np.maximum(np.sum(counts, axis=0), 0.5) / (events * len(counts))
    return float(np.exp(np.interp(-math.log(budget), np.log(np.maximum.accumulate(rate)), np.log(DELTAS))))


def thresholds(runs: Sequence[Mapping[str, Any]], events: int = CLEAN_EVENTS) -> dict[str, float]:
    """Rival -> threshold, from clean runs."""
    found = {}
    for make in RIVALS:
        name = make().name
        found[name], _ = threshold_of([run[name] for run in runs], events, BUDGET)
    found[ADWIN] = delta_of([run[ADWIN] for run in runs if ADWIN in run], events, BUDGET)
    return found


def calibrated(found: Mapping[str, float]) -> list[Contender]:
    """The rivals with these thresholds; none without any."""
    rivals = [make() for make in RIVALS] if found else []
    made: list[Contender] = [Calibrated(rival, found[rival.name]) for rival in rivals]
    return [*made, adwin(found[ADWIN])] if found else made
