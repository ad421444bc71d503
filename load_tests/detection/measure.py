"""The measurements: false alarms without a change, the one-step factor, and delays. One function is one task of one process."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from load_tests.detection.calibrated import CLEAN_EVENTS, CLEAN_RUNS, calibrated
from load_tests.detection.contenders import (
    CELLS,
    SETTINGS,
    AlwaysFires,
    Contender,
    Ours,
    River,
    Run,
    Setting,
    delay,
    judge,
    live_judged,
    reference_of,
    river_defaults,
    settings_of,
)
from load_tests.detection.streams import BY_NAME, CASES, EXCHANGEABLE, Case, Rows, Stream

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

REFERENCE_ROWS = 288_000  # sixty days
FINITE_REFERENCE = 200_000  # of a finite table; live rows are drawn from the rest
QUIET_EVENTS = 10_000  # before the change
LAYERS = ("rank layer alone", "tube alone")


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    live         events of a pair; with d cells `longer` times as many for the small budget. d = 200 needs 671 A of a feature's
                 time for an upper limit of 1.1 T / A to be possible at all, three times as much to survive some alarms
    slow_pairs   pairs at most for river's detectors, calibrated or not: some 7 us an event, and their defaults show themselves
    kswin_events events of a pair for KSWIN, .2 to .5 ms each; `kswin_delays` seeds of a change, of each `kswin_quiet` events before
                 (it knows of 100) and `kswin_changed` after: what is not found in them is its miss
    clean_runs   of `clean_events` events each, to calibrate rivals on
    budget       in events, of the smaller of the two settings
    """

    pairs: int
    live: int
    reference: int
    delays: int
    slow_pairs: int
    kswin_events: int
    kswin_delays: int
    kswin_quiet: int = 1_000
    kswin_changed: int = 5_000
    clean_runs: int = CLEAN_RUNS
    clean_events: int = CLEAN_EVENTS
    longer: tuple[tuple[int, int], ...] = ((1, 1), (20, 1), (200, 10))
    budget: float = SETTINGS[0].budget

    @property
    def settings(self) -> tuple[Setting, Setting]:
        """Of our detector."""
        return settings_of(self.budget)

    def events(self, cells: int, stream: Stream) -> int:
        """Live events of a pair."""
        wanted = self.live * dict(self.longer)[cells]
        return min(wanted, stream.rows_max - self.reference_rows(stream)) if stream.rows_max else wanted

    def pairs_of(self, stream: Stream) -> int:
        """More pairs where a finite table makes them shorter."""
        return self.pairs * math.ceil(self.live * max(n for _, n in self.longer) / self.longest(stream))

    def reference_rows(self, stream: Stream) -> int:
        return min(self.reference, FINITE_REFERENCE) if stream.rows_max else self.reference

    def longest(self, stream: Stream) -> int:
        return max(self.events(cells, stream) for cells in CELLS)


FULL = Size(200, 100_000, REFERENCE_ROWS, 64, 20, 3_000, 16)
QUICK = Size(2, 100_000, 100_000, 2, 1, 1_000, 1, clean_runs=4, longer=((1, 1), (20, 1), (200, 1)))


def generator(seed: int, name: str, number: int) -> np.random.Generator:
    """The same rows for every detector, whichever process draws them."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), number])


@lru_cache(maxsize=1)  # a task draws it for us and for the others
def pair(stream: Stream, size: Size, seed: int, number: int, live: int) -> tuple[Rows, Rows]:
    """Reference and live rows, one piece of the stream."""
    first = size.reference_rows(stream)
    rows = stream.draw(generator(seed, stream.name, number), first + live)
    return rows.cut(0, first), rows.cut(first, first + live)


def inside(stream: Stream, live: Rows, tolerance: float) -> Rows:
    """Half the tolerance of drift, if the stream is about that. The reference's standard deviation is 1 there."""
    return Rows(live.time_ms, live.value + 0.5 * tolerance) if stream.inside else live


def is_slow(contender: Contender) -> bool:
    """An interpreted loop over events."""
    return isinstance(contender, River)


def is_kswin(contender: Contender) -> bool:
    return contender.name.endswith("KSWIN")


def others(thresholds: Mapping[str, float]) -> list[Contender]:
    """Those that promise nothing; `thresholds`: of the calibrated ones."""
    return [AlwaysFires(), *river_defaults(), *calibrated(thresholds)]


def our_alarms(stream: Stream, size: Size, seed: int, number: int) -> dict[str, dict[str, Any]]:
    """One pair through our detector: {contender: {"events", "budget", "cells", "count"}}, and the factor's steps.

    Under the large budget no stream is long enough for alarms to be counted: there the factor is followed. Pairs beyond
    `size.pairs` are for the most cells alone.
    """
    reference, live = pair(stream, size, seed, number, size.longest(stream))
    out: dict[str, dict[str, Any]] = {}
    profile = reference_of(reference)
    small, large = size.settings
    windows = live_judged(profile, inside(stream, live, small.tolerance))
    for cells in CELLS if number < size.pairs else CELLS[-1:]:
        events = size.events(cells, stream)
        out |= _counts(
            Ours(small, cells).name, small, cells, events, judge(profile, windows.until(events), small.settings(cells))
        )
    if number >= size.pairs:
        return out
    events = size.events(1, stream)
    if stream.inside:
        windows = live_judged(profile, inside(stream, live.cut(0, 2 * events), large.tolerance))
    windows = windows.until(events)
    run = judge(profile, windows, large.settings(1), factor=True)
    assert run.factor is not None
    out |= _counts(Ours(large).name, large, 1, events, run)
    out["factor"] = {
        "before": run.factor.before.astype(np.float32),
        "factor": run.factor.factor.astype(np.float32),
        "set_back": run.factor.set_back,
        "every_ms": profile.windows.every_ms,
    }
    if stream.windows != EXCHANGEABLE and not stream.inside:
        profile = reference_of(reference, plain=True)
        windows = live_judged(profile, live.cut(0, 2 * events)).until(events)
        for setting in size.settings:
            name = Ours(setting, plain=True).name
            out |= _counts(name, setting, 1, events, judge(profile, windows, setting.settings(1, auto=False)))
    return out


def _counts(name: str, setting: Setting, cells: int, events: int, run: Run) -> dict[str, dict[str, Any]]:
    """Alarms, and for one cell the crossings that either layer alone would have paged."""
    common = {"events": events, "budget": setting.budget, "cells": cells}
    counts = {name: {"count": len(run.alarms), **common}}
    if cells == 1:
        for layer, found in zip(LAYERS, (run.rank_crossings, run.tube_crossings), strict=True):
            counts[f"{name}, {layer}"] = {"count": len(found), **common}
    return counts


def other_alarms(
    contenders: Sequence[Contender], stream: Stream, size: Size, seed: int, number: int
) -> dict[str, dict[str, Any]]:
    """One pair through detectors that have no budget; the same rows as ours sees at d = 1."""
    if number >= size.pairs:
        return {}
    events = size.events(1, stream)
    reference, live = pair(stream, size, seed, number, size.longest(stream))
    live = inside(stream, live.cut(0, events), SETTINGS[0].tolerance)
    out = {}
    for contender in contenders:
        if contender.numeric_only and not stream.numeric:
            continue
        if is_slow(contender) and number >= size.slow_pairs:
            continue
        some = live.cut(0, min(size.kswin_events, len(live))) if is_kswin(contender) else live
        contender.fit(reference)
        count = len(contender.alarms(some))
        out[contender.name] = {"count": count, "events": len(some), "budget": SETTINGS[0].budget, "cells": 1}
    return out


def changed(case: Case, size: Size, seed: int, number: int) -> tuple[Rows, Rows]:
    """Reference, and live rows that change after QUIET_EVENTS."""
    stream = BY_NAME[case.stream]
    # Other numbers than the pairs without change: delays must not come from rows that false alarms were counted on.
    first, live = pair(stream, size, seed, 1_000_000 + number, QUIET_EVENTS + case.events)
    values = live.value.copy()
    g = generator(seed, f"{case.stream}: {case.name}", number)
    values[QUIET_EVENTS:] = case.change(g, live.cut(QUIET_EVENTS, len(live)))
    return first, Rows(live.time_ms, values)


def delays(
    case: Case, contenders: Sequence[Contender], size: Size, seed: int, number: int, *, ours: bool = False
) -> dict[str, float]:
    """Delay of one seed, in events, by contender; NaN = not found. `ours`: with our detector's settings."""
    reference, live = changed(case, size, seed, number)
    stream = BY_NAME[case.stream]
    out: dict[str, float] = {}
    if ours:
        profile = reference_of(reference)
        windows = live_judged(profile, live)
        for setting in size.settings:
            for cells in CELLS:
                run = judge(profile, windows, setting.settings(cells), after=QUIET_EVENTS)
                out[Ours(setting, cells).name] = delay(np.array(run.alarms, np.int64), QUIET_EVENTS)
    for contender in contenders:
        if contender.numeric_only and not stream.numeric:
            continue
        some, change = live, QUIET_EVENTS
        if is_kswin(contender):
            if number >= size.kswin_delays:
                continue
            change = size.kswin_quiet
            some = live.cut(QUIET_EVENTS - change, QUIET_EVENTS + size.kswin_changed)
        contender.fit(reference)
        out[contender.name] = delay(contender.alarms(some, change), change)
    return out


def alarm_task(
    stream: str, size: Size, seed: int, number: int, thresholds: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    chosen = BY_NAME[stream]
    return our_alarms(chosen, size, seed, number) | other_alarms(others(thresholds), chosen, size, seed, number)


def delay_task(case: int, size: Size, seed: int, number: int, thresholds: Mapping[str, float]) -> dict[str, float]:
    return delays(CASES[case], others(thresholds), size, seed, number, ours=True)
