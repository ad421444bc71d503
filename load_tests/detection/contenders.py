"""The detectors under test, behind one small interface: learn from reference rows, then say at which live events they alarm.

Ours goes the product's way: rows -> build_reference -> the window list's rule -> prepare, start, update. What is left out is
transport: panes, markers, snapshots. An alarm belongs to the last event of its window (the product says it when the watermark
passes). Nothing is set per stream: window, tolerance, budget and cells come from the setting alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from river import drift

from detectors.column_values import read_column
from detectors.reference import ReferenceProfile, WindowRule
from detectors.reference_build import build_reference
from detectors.reference_windows import bins_of, count_windows, windows_in_time
from detectors.sequential.default import DetectionSettings, DetectorState, prepare, start, update
from detectors.sequential.rank_layer import ADAPTIVE_SHARE, BETS
from detectors.sequential.strata import Season
from detectors.verdict import Level, Verdict
from load_tests.detection.streams import EVENT_MS, Rows

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

TARGET, ROLE = "x", "feature"
RESOLUTION_MS = 60_000
PLAIN_EVENTS = 50


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
CELLS = (1, 20, 200)


# ---- ours ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Windows of live rows by the rule of the reference: counts I64[w, b + 2], start and last event of each, I64[w]."""

    counts: I64
    start_ms: I64
    last: I64

    def until(self, event: int) -> Windows:
        """Those that ended before this event."""
        kept = int(np.searchsorted(self.last, event))
        return Windows(self.counts[:kept], self.start_ms[:kept], self.last[:kept])


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
    bins = bins_of(binning, read_column(TARGET, live.value, ROLE))
    counts = count_windows(bins, binning.bins + 2, of_row, count)
    return Windows(counts, live.time_ms[first] // info.resolution_ms * info.resolution_ms, last)


def reference_of(rows: Rows, *, plain: bool = False) -> ReferenceProfile:
    """`window: auto`, as by default; `plain`: windows of 50 events whatever the reference shows, no season, and the tolerance as it is."""
    rule = WindowRule(False, RESOLUTION_MS, PLAIN_EVENTS) if plain else WindowRule()
    season = Season.NONE if plain else Season.AUTO
    return build_reference("m", {TARGET: rows.value}, {TARGET: ROLE}, time_ms=rows.time_ms, window=rule, season=season)


@dataclass(slots=True)
class Run:
    """What one pass of our detector over live windows gave: events of alarms and of each layer's own crossings."""

    alarms: list[int]
    rank_crossings: list[int]
    tube_crossings: list[int]


def judge(
    profile: ReferenceProfile,
    windows: Windows,
    settings: DetectionSettings,
    *,
    after: int | None = None,
    each: Callable[[DetectorState, Verdict, float], None] | None = None,
) -> Run:
    """Every window through `update`, one too small carried into the next. `each` sees the state, the verdict and the weight."""
    prepared = prepare(profile.targets[0], settings, profile.id)
    state = start(prepared)
    run = Run([], [], [])
    carried, weight = np.zeros(windows.counts.shape[1], np.int64), 0.0
    starts = windows.start_ms.tolist()
    previous = 2 * starts[0] - starts[1] if len(starts) > 1 else 0  # the first window weighs what the second does
    began: int | None = None
    for counts, start_ms, last in zip(windows.counts, starts, windows.last.tolist(), strict=True):
        weight += start_ms - previous
        previous = start_ms
        began = start_ms if began is None else began
        carried += counts
        if carried.sum() < max(1, profile.windows.size_min):
            continue
        verdict = update(prepared, state, carried.copy(), float(weight), began)
        if each is not None:
            each(state, verdict, weight)
        carried[:] = 0
        weight, began = 0.0, None
        if verdict.rank_crossed:
            run.rank_crossings.append(last)
        if verdict.tube_crossed:
            run.tube_crossings.append(last)
        if verdict.level is Level.ALARM:
            run.alarms.append(last)
            if after is not None and last >= after:
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
        run = judge(self.profile, live_windows(self.profile, live), self.settings, after=after)
        return np.array(run.alarms, np.int64)


class Factors:
    """Follows the one-step factor of each statistic's mixture, L = evidence after / (evidence before + weight), from the state.

    Its mean is 1 whatever the past, if windows are exchangeable: this is what the bound T / A rests on for any A.
    """

    def __init__(self) -> None:
        self.starts = np.cumsum([0, *(len(bets) for bets in BETS)])
        self.held = 0.0  # weight of windows that were only collected
        self.evidence: F64 | None = None
        self.before: list[F64] = []
        self.factor: list[F64] = []
        self.unknown = 0  # steps at which a statistic crossed and was set back: no factor can be seen

    def __call__(self, state: DetectorState, verdict: Verdict, weight: float) -> None:
        self.held += weight
        if not verdict.judged:
            return
        evidence = self._mixtures(state)
        before = np.zeros_like(evidence) if self.evidence is None else self.evidence
        seen = evidence > 0.0
        self.unknown += int((~seen).sum())
        self.before.append((before / self.held)[seen])
        self.factor.append((evidence / (before + self.held))[seen])
        self.evidence, self.held = evidence, 0.0

    def _mixtures(self, state: DetectorState) -> F64:
        """Weighted evidence of each statistic: of the values, then of the shares."""
        fixed = state.real("evidence").astype(np.float64)
        shares: F64 = state.real("share_evidence").astype(np.float64).mean(axis=1)
        if not len(fixed):
            return shares
        adaptive = state.real("adaptive").astype(np.float64).mean(axis=1)
        sums = np.add.reduceat(fixed, self.starts[:-1]) / np.diff(self.starts)
        mixtures: F64 = np.concatenate([(1.0 - ADAPTIVE_SHARE) * sums + ADAPTIVE_SHARE * adaptive, shares])
        return mixtures


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
    """A detector of river with its defaults. It never sees the reference: it has none. Missing values are left out, as
    one NaN would silence it.
    """

    numeric_only = True

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self.name, self.make = f"river {name}", make

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
        River("ADWIN", drift.ADWIN),
        River("Page-Hinkley", drift.PageHinkley),
        River("KSWIN", lambda: drift.KSWIN(seed=KSWIN_SEED)),
    ]


def delay(alarms: I64, change: int) -> float:
    """Events from the change to the first alarm, the changed event itself the first; NaN = none. Earlier alarms do not count."""
    later = alarms[alarms >= change]
    return float(later[0] - change + 1) if len(later) else math.nan
