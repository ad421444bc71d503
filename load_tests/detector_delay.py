"""Detection delay of the default detector, through its public functions, beside the figures it was designed to.

    python -m load_tests.detector_delay --reps 32 --seed 0

Normal data, then shares; reference of 100,000 rows, windows of 20 events, one target; a change after 10,000 quiet events.
Delays are in events, from the change to the end of the alarming window; what is not found within 30,000 events (shares:
60,000) counts as not found. The design does not say how many categories its shares had; here they are five.
A command takes some minutes; the standard error of a mean over 32 repetitions is 5 to 8 %.
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
VALUES, CATEGORIES = "values", "categories"
#: (budget in events, tolerance) -> the design's delays, in the order of CHANGES and SHARE_CHANGES (default-detector.md, 5, 7)
DESIGN: dict[str, dict[tuple[float, float], tuple[int, ...]]] = {
    VALUES: {(1e5, 0.03): (361, 112, 44, 263, 416, 3302), (3e7, 0.05): (719, 174, 63, 488, 707, 4347)},
    CATEGORIES: {(1e5, 0.03): (4496, 271, 670), (3e7, 0.05): (12268, 518, 1104)},
}


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


def measure(kind: str, seed: int, reps: int, cells: int) -> dict[tuple[float, float], dict[str, list[float]]]:
    """Delays of every repetition, by (budget, tolerance) and change."""
    names = list(CHANGES if kind == VALUES else SHARE_CHANGES)
    found: dict[tuple[float, float], dict[str, list[float]]] = {
        key: {name: [] for name in names} for key in DESIGN[kind]
    }
    for rep in range(seed, seed + reps):
        profile = reference(rep, kind)
        for number, name in enumerate(names):
            values = stream(np.random.default_rng([rep, 2, number]), kind, name)
            for budget, tolerance in DESIGN[kind]:
                settings = DetectionSettings(tolerance, budget, cells)
                found[budget, tolerance][name].append(delay(profile, values, settings))
    return found


def show(kind: str, found: dict[tuple[float, float], dict[str, list[float]]]) -> None:
    """The measured means with their standard errors over the design's figures."""
    print(f"{kind:34}" + "".join(f"{name:>18}" for name in next(iter(found.values()))))
    for key, design in DESIGN[kind].items():
        cells = []
        for values in found[key].values():
            delays = np.array(values)
            missed = int(np.isnan(delays).sum())
            seen = delays[~np.isnan(delays)]
            cell = f"{seen.mean():.0f}±{seen.std() / math.sqrt(len(seen)):.0f}" if len(seen) else "-"
            cells.append(cell + (f" ({missed} missed)" if missed else ""))
        title = f"A = {key[0]:g} events, tolerance {key[1]:g}"
        print(f"{title:34}" + "".join(f"{cell:>18}" for cell in cells))
        print(f"{'  design':34}" + "".join(f"{value:>18}" for value in design))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reps", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", type=int, default=1, help="d; the design's figures are for 1")
    parser.add_argument("--kind", choices=(VALUES, CATEGORIES), action="append")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    kinds = args.kind or [VALUES, CATEGORIES]
    found = {kind: measure(kind, args.seed, args.reps, args.cells) for kind in kinds}
    if args.json:
        print(json.dumps({kind: {f"{a:g}/{tau:g}": d for (a, tau), d in of.items()} for kind, of in found.items()}))
        return
    print(f"mean delay in events, {args.reps} repetitions, seed {args.seed}, d = {args.cells}, windows of {WINDOW}")
    for kind in kinds:
        show(kind, found[kind])


if __name__ == "__main__":
    main()
