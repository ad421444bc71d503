"""Detection delay of the default detector, through its public functions, beside what it has to keep.

    python -m load_tests.detector_delay --reps 64 --seed 0                  windows of exactly 20 events
    python -m load_tests.detector_delay --reps 64 --window auto             Poisson arrivals, panes of a minute, `window: auto`
    python -m load_tests.detector_delay --kind season --kind values --window auto --cells 1 --cells 200

Normal data, then shares, or (window auto) normal data whose mean swings by .5 sd and whose traffic tenfold over the day, with
strata; one target, reference of 100,000 rows; a change after 10,000 quiet events. With auto everything is the default, and
the streams are those of load_tests.detection. Delays are in events, from the change to the end of the alarming window; what
is not found within 30,000 events (shares: 60,000) counts as not found. d cells: the threshold of d, on one target.
A repetition takes a second or two; the standard error of a mean over 32 is 5 to 8 %.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.column_values import read_column
from detectors.reference import ReferenceProfile, WindowRule
from detectors.reference_build import build_reference
from detectors.reference_windows import bins_of
from detectors.sequential.default import DetectionSettings, prepare, start, update
from detectors.verdict import Level
from load_tests.detection import measure as streams
from load_tests.detection.contenders import delay as delay_of
from load_tests.detection.contenders import judge, live_judged, reference_of
from load_tests.detection.streams import CASES, EVENT_MS, SIX

F64 = NDArray[np.float64]
Generator = np.random.Generator

WINDOW = 20
REFERENCE_ROWS, QUIET_EVENTS, CHANGED_EVENTS = 100_000, 10_000, 30_000
CHANGES: dict[str, Callable[[F64, Generator], F64]] = {
    ".25 sd": lambda x, _: x + 0.25,
    ".5 sd": lambda x, _: x + 0.5,
    "1 sd": lambda x, _: x + 1.0,
    "var x1.5": lambda x, _: x * math.sqrt(1.5),
    "2 % tail": lambda x, g: np.where(g.random(len(x)) < 0.02, g.normal(4.0, 1.0, len(x)), x),
    "ramp 20k": lambda x, _: x + np.minimum(np.arange(len(x)) / 20_000, 1.0),
}
SHARES = (0.5, 0.3, 0.15, 0.029, 0.02)  # of the categories a to e; the rest, .001, is missing
SHARE_CHANGES: dict[str, tuple[float, ...]] = {  # shares of a to e and of a new one; the rest is missing
    "2 to 3 %": (0.49, 0.3, 0.15, 0.029, 0.03, 0.0),
    "unseen .5 %": (0.495, 0.3, 0.15, 0.029, 0.02, 0.005),
    "missing 1 %": (0.491, 0.3, 0.15, 0.029, 0.02, 0.0),
}
VALUES, CATEGORIES, SEASON = "values", "categories", "season"
AUTO = "auto"
AUTO_CASES = {
    VALUES: SIX,
    SEASON: (".25 sd in a season", ".5 sd in a season", "1 sd in a season"),
    CATEGORIES: ("category 2 to 3 %", "unseen 0 to .5 %", "missing category 1 %"),
}
#: (budget in events, tolerance) -> delays not to be exceeded by one target, in the order of CHANGES and SHARE_CHANGES
GOALS: dict[str, dict[tuple[float, float], tuple[int, ...]]] = {
    VALUES: {(1e5, 0.03): (361, 112, 44, 263, 416, 3302), (3e7, 0.05): (790, 190, 70, 540, 780, 4700)},
    CATEGORIES: {(1e5, 0.03): (4496, 271, 670), (3e7, 0.05): (12268, 518, 1104)},
    SEASON: {(1e5, 0.03): (), (3e7, 0.05): ()},  # a quarter more than without one
}
Delays = dict[tuple[float, float, int], dict[str, list[float]]]


def draw_shares(g: Generator, count: int, shares: Sequence[float]) -> NDArray[np.object_]:
    """Texts a to f by their shares, None for the rest."""
    known = [*shares, 1.0 - sum(shares)]
    return np.array([*"abcdef"[: len(shares)], None], object)[
        g.choice(len(known), count, p=np.array(known) / sum(known))
    ]


def reference(seed: int, kind: str) -> ReferenceProfile:
    """A reference in windows of WINDOW events, one event a millisecond."""
    g = np.random.default_rng([seed, 1])
    rows = g.normal(size=REFERENCE_ROWS) if kind == VALUES else draw_shares(g, REFERENCE_ROWS, SHARES)
    rule = WindowRule(auto=False, every_ms=WINDOW, min_events=WINDOW, resolution_ms=WINDOW)
    return build_reference("m", {"x": rows}, {"x": "feature"}, time_ms=np.arange(REFERENCE_ROWS), window=rule)


def stream(g: Generator, kind: str, change: str) -> NDArray[Any]:
    """Quiet values, then changed ones."""
    if kind == VALUES:
        values = g.normal(size=QUIET_EVENTS + CHANGED_EVENTS)
        values[QUIET_EVENTS:] = CHANGES[change](values[QUIET_EVENTS:], g)
        return values
    changed = draw_shares(g, 2 * CHANGED_EVENTS, SHARE_CHANGES[change])
    return np.concatenate([draw_shares(g, QUIET_EVENTS, SHARES), changed])


def windows(profile: ReferenceProfile, values: NDArray[Any]) -> Iterator[NDArray[np.int64]]:
    """Counts of successive windows of WINDOW values."""
    binning = profile.targets[0].binning
    for row in bins_of(binning, read_column("x", values, "feature")).reshape(-1, WINDOW):
        yield np.bincount(row, minlength=binning.bins + 2).astype(np.int64)


def delay(profile: ReferenceProfile, values: NDArray[Any], settings: DetectionSettings) -> float:
    """Events from the change to the end of the first alarming window that has any of them; NaN = none."""
    prepared = prepare(profile.targets[0], settings, profile.id)
    state = start(prepared)
    for i, counts in enumerate(windows(profile, values)):
        verdict = update(prepared, state, counts, float(WINDOW), i * WINDOW)
        events = (i + 1) * WINDOW - QUIET_EVENTS
        if verdict.level is Level.ALARM and events > 0:
            return float(events)
    return math.nan


def names_of(kind: str, window: str) -> tuple[str, ...]:
    """Changes of a kind, in the order of GOALS."""
    if window == AUTO:
        return AUTO_CASES[kind]
    return tuple(CHANGES if kind == VALUES else SHARE_CHANGES)


def delays_auto(name: str, rep: int, seed: int, settings: Sequence[DetectionSettings]) -> list[float]:
    """The same of a change of load_tests.detection, with `window: auto` and all other defaults."""
    case = next(case for case in CASES if case.name == name)
    first, live = streams.changed(case, streams.FULL, seed, rep)
    profile = reference_of(first)
    cut = live_judged(profile, live)
    runs = [judge(profile, cut, one, after=streams.QUIET_EVENTS) for one in settings]
    return [delay_of(np.array(run.alarms, np.int64), streams.QUIET_EVENTS) for run in runs]


def measure(kind: str, seed: int, reps: int, cells: Sequence[int], window: str) -> Delays:
    """Delays of every repetition, by (budget, tolerance, cells) and change."""
    names = names_of(kind, window)
    found: Delays = {(*key, d): {name: [] for name in names} for key in GOALS[kind] for d in cells}
    # A budget is a time: of so many events a ms, or of load_tests.detection's.
    unit = EVENT_MS if window == AUTO else 1.0
    settings = [DetectionSettings(tau, a * unit, d, auto=window == AUTO) for a, tau, d in found]
    for rep in range(seed, seed + reps):
        profile = None if window == AUTO else reference(rep, kind)
        for number, name in enumerate(names):
            if profile is None:
                delays = delays_auto(name, rep, seed, settings)
            else:
                values = stream(np.random.default_rng([rep, 2, number]), kind, name)
                delays = [delay(profile, values, one) for one in settings]
            for key, one in zip(found, delays, strict=True):
                found[key][name].append(one)
    return found


def show(kind: str, found: Delays) -> None:
    """The measured means with their standard errors over what they must not exceed."""
    print(f"{kind:34}" + "".join(f"{name:>26}" for name in next(iter(found.values()))))
    for (budget, tolerance, d), of in found.items():
        cells = []
        for values in of.values():
            delays = np.array(values)
            missed = int(np.isnan(delays).sum())
            seen = delays[~np.isnan(delays)]
            cell = f"{seen.mean():.0f}±{seen.std() / math.sqrt(len(seen)):.0f}" if len(seen) else "-"
            cells.append(cell + (f" ({missed} missed)" if missed else ""))
        print(f"{f'A = {budget:g}, tolerance {tolerance:g}, d = {d}':34}" + "".join(f"{cell:>26}" for cell in cells))
        if d == 1 and GOALS[kind][budget, tolerance]:
            print(f"{'  not to be exceeded':34}" + "".join(f"{goal:>26}" for goal in GOALS[kind][budget, tolerance]))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reps", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", type=int, action="append", help="d, may be given several times; 1 unless said")
    parser.add_argument("--kind", choices=(VALUES, CATEGORIES, SEASON), action="append")
    parser.add_argument("--window", choices=(str(WINDOW), AUTO), default=str(WINDOW))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    kinds, cells = args.kind or [VALUES, CATEGORIES], args.cells or [1]
    if SEASON in kinds and args.window != AUTO:
        parser.error("a season needs --window auto: events have times there")
    found = {kind: measure(kind, args.seed, args.reps, cells, args.window) for kind in kinds}
    if args.json:
        whole = {kind: {f"{a:g}/{tau:g}/{d}": of for (a, tau, d), of in by.items()} for kind, by in found.items()}
        print(json.dumps(whole))
        return
    print(f"mean delay in events ± standard error, {args.reps} repetitions, seed {args.seed}, windows: {args.window}")
    for kind in kinds:
        show(kind, found[kind])


if __name__ == "__main__":
    main()
