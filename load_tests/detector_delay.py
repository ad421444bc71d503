"""Detection delay of the default detector, through its public functions, beside the figures it was designed to.

    python -m load_tests.detector_delay --reps 32 --seed 0

Normal data, reference of 100,000 rows, windows of 20 events, one target; a change after 10,000 quiet events. Delays are in
events, from the change to the end of the alarming window; what is not found within 30,000 events counts as not found.
A command takes some minutes; the standard error of a mean over 32 repetitions is 5 to 8 %.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.binning import assign_bins
from detectors.reference import ReferenceProfile, WindowRule
from detectors.reference_build import build_reference
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
#: (budget in events, tolerance) -> the design's delays, in the order of CHANGES (default-detector.md, 7)
DESIGN: dict[tuple[float, float], tuple[int, ...]] = {
    (1e5, 0.03): (361, 112, 44, 263, 416, 3302),
    (3e7, 0.05): (719, 174, 63, 488, 707, 4347),
}


def reference(seed: int) -> ReferenceProfile:
    """A reference of normal rows in windows of WINDOW events, one event a millisecond."""
    rows = np.random.default_rng([seed, 1]).normal(size=REFERENCE_ROWS)
    rule = WindowRule(auto=False, every_ms=WINDOW, min_events=WINDOW, resolution_ms=WINDOW)
    return build_reference("m", {"x": rows}, {"x": "feature"}, time_ms=np.arange(REFERENCE_ROWS), window=rule)


def windows(profile: ReferenceProfile, values: F64) -> Iterator[NDArray[np.int64]]:
    """Counts of successive windows of WINDOW values."""
    binning = profile.targets[0].binning
    bins = assign_bins(binning, values).reshape(-1, WINDOW)
    for row in bins:
        yield np.bincount(row, minlength=binning.bins + 2).astype(np.int64)


def delay(profile: ReferenceProfile, values: F64, settings: DetectionSettings) -> float:
    """Events from the change to the end of the first alarming window that has any of them; NaN = none."""
    prepared = prepare(profile.targets[0], settings, profile.id)
    state = start(prepared)
    for i, counts in enumerate(windows(profile, values)):
        verdict = update(prepared, state, counts, float(WINDOW), i * WINDOW)
        events = (i + 1) * WINDOW - QUIET_EVENTS
        if verdict.level is Level.ALARM and events > 0:
            return float(events)
    return math.nan


def measure(
    seed: int, reps: int, settings: Sequence[DetectionSettings]
) -> dict[tuple[float, float], dict[str, list[float]]]:
    """Delays of every repetition, by (budget, tolerance) and change."""
    found: dict[tuple[float, float], dict[str, list[float]]] = {
        (s.budget_ms, s.tolerance): {name: [] for name in CHANGES} for s in settings
    }
    for rep in range(reps):
        profile = reference(seed + rep)
        for number, (name, change) in enumerate(CHANGES.items()):
            g = np.random.default_rng([seed + rep, 2, number])
            values = g.normal(size=QUIET_EVENTS + CHANGED_EVENTS)
            values[QUIET_EVENTS:] = change(values[QUIET_EVENTS:], g)
            for s in settings:
                found[s.budget_ms, s.tolerance][name].append(delay(profile, values, s))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reps", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", type=int, default=1, help="d; the design's figures are for 1")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    settings = [DetectionSettings(tolerance, budget, args.cells) for budget, tolerance in DESIGN]
    found = measure(args.seed, args.reps, settings)
    if args.json:
        print(json.dumps({f"{a:g}/{tau:g}": delays for (a, tau), delays in found.items()}))
        return
    print(f"mean delay in events, {args.reps} repetitions, seed {args.seed}, d = {args.cells}, windows of {WINDOW}")
    print(f"{'':34}" + "".join(f"{name:>14}" for name in CHANGES))
    for key, design in DESIGN.items():
        cells = []
        for name in CHANGES:
            delays = np.array(found[key][name])
            missed = int(np.isnan(delays).sum())
            error = float(np.nanstd(delays) / math.sqrt(max(len(delays) - missed, 1)))
            cells.append(f"{np.nanmean(delays):.0f}±{error:.0f}" + (f" ({missed} missed)" if missed else ""))
        title = f"A = {key[0]:g} events, tolerance {key[1]:g}"
        print(f"{title:34}" + "".join(f"{cell:>14}" for cell in cells))
        print(f"{'  design':34}" + "".join(f"{value:>14}" for value in design))


if __name__ == "__main__":
    main()
