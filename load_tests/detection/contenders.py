"""The detectors under test, behind one small interface: learn from reference rows, then say at which live events they alarm.

Ours goes the product's way: rows -> build_reference -> the window list's rule -> prepare, start, and the compiled step of every
window (passes.py). What is left out is transport: panes, markers, snapshots. An alarm belongs to the last event of its window (the
product says it when the watermark passes). Nothing is set per stream: window, tolerance, budget and cells come from the setting alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from numpy.typing import NDArray
from river import drift

from detectors.binning import Binning
from detectors.column_values import read_column
from detectors.reference import ReferenceProfile, WindowRule
from detectors.reference_build import build_reference
from detectors.reference_windows import bins_of, count_windows, window_ends, windows_in_time
from detectors.sequential import default_kernel as kernel
from detectors.sequential.default import DetectionSettings, Prepared, prepare, start
from detectors.sequential.rank_layer import ADAPTIVE_SHARE, BETS
from detectors.sequential.strata import Season
from detectors.sequential.windows_auto import reserve
from load_tests.detection.passes import Judged, Pass, Steps, Windows, judged
from load_tests.detection.streams import EVENT_MS, Rows

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

TARGET, ROLE = "x", "feature"
RESOLUTION_MS = 60_000
PLAIN_EVENTS = 50
UNTIL_FOUND = 512  # windows at a time where the first alarm is waited for


class Contender(Protocol):
    """`budget`: the number of events in which it promises one false alarm, None = it promises nothing."""

    name: str
    numeric_only: bool

    def fit(self, reference: Rows) -> None:
        """Learn what is normal."""

    def alarms(self, live: Rows, after: int | None = None) -> I64:
        """Indices of the events that alarm, ascending. `after`: the caller needs the first one at or after it and none later."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A named setting: budget A in events, tolerance in probit units, the least of `tolerance: auto` unless that is left out."""

    name: str
    budget: float
    tolerance: float

    def settings(self, cells: int, *, auto: bool = True) -> DetectionSettings:
        return DetectionSettings(self.tolerance, self.budget * EVENT_MS, cells, auto=auto)


SETTINGS = (Setting("A=1e5 tau=.03", 1e5, 0.03), Setting("A=3e7 tau=.05", 3e7, 0.05))


def settings_of(budget: float) -> tuple[Setting, Setting]:
    """The two named settings, with another budget in events for the smaller one."""
    small, large = SETTINGS
    if budget == small.budget:
        return SETTINGS
    name = f"A={budget:.3g} {small.name.split()[1]}".replace("e+0", "e")
    return Setting(name, budget, small.tolerance), large


CELLS = (1, 20, 200)


# ---- ours ---------------------------------------------------------------------------------------------------------------


def live_windows(profile: ReferenceProfile, live: Rows) -> Windows:
    """Cut as the collector and the monitor do."""
    info = profile.windows
    rule = WindowRule(False, info.every_ms, info.min_events, info.max_duration_ms, info.resolution_ms)
    of_row, count = windows_in_time(live.time_ms, rule, info.every_ms)
    inside = np.flatnonzero(of_row >= 0)
    numbers = np.arange(count)
    first = inside[np.searchsorted(of_row[inside], numbers)]
    last = inside[np.searchsorted(of_row[inside], numbers, side="right") - 1]
    binning = profile.targets[0].binning
    bins = live_bins(binning, live.value)
    counts = count_windows(bins, binning.bins + 2, of_row, count)
    starts = live.time_ms[first] // info.resolution_ms * info.resolution_ms
    ends = window_ends(live.time_ms, of_row, count, info.every_ms, info.resolution_ms)
    return Windows(counts, starts, ends, last)


def live_bins(binning: Binning, values: NDArray[Any]) -> I64:
    """Bin of every live value; texts are read once each, as a collector's table of texts does."""
    if values.dtype != object:
        return bins_of(binning, read_column(TARGET, values, ROLE, binning.kind))
    codes, distinct = pd.factorize(values, use_na_sentinel=False)
    found: I64 = bins_of(binning, read_column(TARGET, distinct, ROLE, binning.kind))[codes]
    return found


def live_judged(profile: ReferenceProfile, live: Rows) -> Judged:
    """What of the live rows is judged as one."""
    return judged(profile, live_windows(profile, live))


def reference_of(rows: Rows, *, plain: bool = False) -> ReferenceProfile:
    """`window: auto`, as by default; `plain`: windows of 50 events whatever the reference shows, no season, and the tolerance as it is."""
    rule = WindowRule(False, RESOLUTION_MS, PLAIN_EVENTS) if plain else WindowRule()
    season = Season.NONE if plain else Season.AUTO
    return build_reference("m", {TARGET: rows.value}, {TARGET: ROLE}, time_ms=rows.time_ms, window=rule, season=season)


@dataclass(slots=True)
class Run:
    """What one pass of our detector over live windows gave: events of alarms and of each layer's own crossings.

    factor   asked for: the steps of the one-step factor
    """

    alarms: list[int]
    rank_crossings: list[int]
    tube_crossings: list[int]
    factor: Factor | None = None


def judge(
    profile: ReferenceProfile,
    windows: Judged,
    settings: DetectionSettings,
    *,
    after: int | None = None,
    factor: bool = False,
) -> Run:
    """Every window in turn. `after`: until the first alarm at or after that event.
    `factor`: its steps, too, of a pass without `after`.
    """
    told = replace(settings, reserve=reserve(profile.windows.auto, profile.targets[0].group))
    prepared = prepare(profile.targets[0], told, profile.id)
    detector, run = Pass(prepared), Run([], [], [])
    size = max(len(windows), 1) if after is None else UNTIL_FOUND
    for first in range(0, max(len(windows), 1), size):
        steps = detector.take(windows.cut(first, first + size), floats=factor)
        run.alarms += steps.events(kernel.FIRES)
        run.rank_crossings += steps.events(kernel.RANK_CROSSED)
        run.tube_crossings += steps.events(kernel.TUBE_CROSSED)
        if factor:
            run.factor = factors(prepared, steps)
        late = [] if after is None else [event for event in run.alarms if event >= after]
        if late:
            run.alarms = run.alarms[: len(run.alarms) - len(late) + 1]
            break
    return run


class Ours:
    """The default detector with one setting, watching one of d features."""

    numeric_only = False

    def __init__(self, setting: Setting, cells: int = 1, *, plain: bool = False) -> None:
        self.name = f"driftline {setting.name} d={cells}" + (
            f", windows of {PLAIN_EVENTS}, tolerance fixed, no season" if plain else ""
        )
        self.settings = setting.settings(cells, auto=not plain)
        self.plain = plain
        self.profile: ReferenceProfile | None = None

    def fit(self, reference: Rows) -> None:
        self.profile = reference_of(reference, plain=self.plain)

    def alarms(self, live: Rows, after: int | None = None) -> I64:
        assert self.profile is not None, "fit comes first"
        run = judge(self.profile, live_judged(self.profile, live), self.settings, after=after)
        return np.array(run.alarms, np.int64)


@dataclass(frozen=True, slots=True)
class Factor:
    """The one-step factor of each statistic's mixture, L = evidence after / (evidence before + weight), of all steps.

    Its mean is 1 whatever the past, if windows are exchangeable: this is what the bound T / A rests on for any A.
    `before`: evidence before / weight, F64[k]; factor F64[k]; set_back: steps at which a statistic crossed, and no factor can be seen.
    """

    before: F64
    factor: F64
    set_back: int


def factors(prepared: Prepared, steps: Steps) -> Factor:
    """From the state's floats after every window, of a pass from the start."""
    places = start(prepared)
    places.flat[0][:] = np.arange(len(places.flat[0]))  # exact in float32: a state has some hundreds
    floats = steps.floats.astype(np.float64)

    def mean(name: str) -> F64:
        """Of the bets of each statistic, F64[n, statistics]."""
        at = places.real(name).astype(np.int64)
        found: F64 = floats[:, at].mean(axis=2)
        return found

    mixtures = mean("share_evidence")
    fixed = places.real("evidence").astype(np.int64)
    if len(fixed):
        starts = np.cumsum([0, *(len(bets) for bets in BETS)])
        sums = np.add.reduceat(floats[:, fixed], starts[:-1], axis=1) / np.diff(starts)
        values = (1.0 - ADAPTIVE_SHARE) * sums + ADAPTIVE_SHARE * mean("adaptive")
        mixtures = np.concatenate([values, mixtures], axis=1)
    weight = steps.weight[:, None]
    before = np.concatenate([np.zeros_like(mixtures[:1]), mixtures[:-1]])
    seen = mixtures > 0.0
    return Factor((before / weight)[seen], (mixtures / (before + weight))[seen], int((~seen).sum()))


# ---- others -------------------------------------------------------------------------------------------------------------


class AlwaysFires:
    """Says "drift" at every event: what a detector's delays are worth without its false alarms."""

    name = "always fires"
    numeric_only = False

    def fit(self, reference: Rows) -> None:
        """Nothing."""

    def alarms(self, live: Rows, after: int | None = None) -> I64:
        return np.arange(after or 0, len(live), dtype=np.int64)


class River:
    """A detector of river. It never sees the reference: it has none. Missing values are left out, as one NaN would silence it.
    It starts afresh by itself after an alarm.
    """

    numeric_only = True

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self.name, self.make = name, make

    def fit(self, reference: Rows) -> None:
        """Nothing: these detectors compare the stream with its own past."""

    def alarms(self, live: Rows, after: int | None = None) -> I64:
        detector = self.make()
        found = []
        for i, value in enumerate(live.value.tolist()):
            if math.isnan(value):
                continue
            detector.update(value)
            if detector.drift_detected:
                found.append(i)
                if after is not None and i >= after:
                    break
        return np.array(found, np.int64)


KSWIN_SEED = 1  # without one it takes the machine's randomness


def river_defaults() -> list[Contender]:
    """Those that take numbers as they come; ddm, eddm, hddm and fhddm take errors. KSWIN needs some .2-.5 ms an event."""
    return [
        River("river ADWIN", drift.ADWIN),
        River("river Page-Hinkley", drift.PageHinkley),
        River("river KSWIN", lambda: drift.KSWIN(seed=KSWIN_SEED)),
    ]


def delay(alarms: I64, change: int) -> float:
    """Events from the change to the first alarm, the changed event itself the first; NaN = none. Earlier alarms do not count."""
    later = alarms[alarms >= change]
    return float(later[0] - change + 1) if len(later) else math.nan
