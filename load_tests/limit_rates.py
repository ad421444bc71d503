"""How often limits that a reference makes (`1 per ...`) are passed without drift, by law, series and size of window.

    python -m load_tests.limit_rates [--references 12] [--windows 2500]

References of 470 windows of 100 to 1,000 events; live windows of 110, 300 and 900 events of the same law. Printed is how often
a limit of one in WINDOWS_PER_ALARM windows is passed, in that unit: 1 is what was asked for. Some minutes, single process.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from detectors.column_values import read_column
from detectors.reference import ReferenceProfile, WindowRule
from detectors.reference_build import build_reference
from detectors.reference_kept import Resized
from detectors.reference_windows import bins_of, count_windows
from stream.reference_limits import ReferenceLimits, is_test, series_of
from stream.window_series import FromReference, Threshold, passed

F64 = NDArray[np.float64]

WINDOWS_PER_ALARM = 1000
SIZES = (110, 300, 900)
HOUR_MS = 3_600_000
MISSING_SHARE = 0.002
LIMIT = FromReference(period_ms=float(WINDOWS_PER_ALARM * HOUR_MS))
SERIES = ("mean", "std", "p50", "psi", "kolmogorov_smirnov", "jensen_shannon", "wasserstein", "missing", "chi_squared")
LAWS: dict[str, Callable[[np.random.Generator, int], F64]] = {
    "normal": lambda g, n: g.normal(size=n),
    "lognormal": lambda g, n: g.lognormal(size=n),
    "t 2.5": lambda g, n: g.standard_t(2.5, size=n),
}


def values(g: np.random.Generator, law: str, rows: int) -> F64:
    """With a few missing ones."""
    x = LAWS[law](g, rows)
    x[g.random(rows) < MISSING_SHARE] = np.nan
    return x


def reference(g: np.random.Generator, law: str) -> ReferenceProfile:
    events = g.integers(100, 1000, size=470)
    time_ms = np.repeat(np.arange(len(events), dtype=np.int64) * HOUR_MS, events)
    rule = WindowRule(auto=False, every_ms=HOUR_MS, min_events=1, resolution_ms=HOUR_MS)
    x = values(g, law, int(events.sum()))
    return build_reference("m", {"x": x}, {"x": "feature"}, time_ms=time_ms, window=rule)


def live(profile: ReferenceProfile, x: F64, size: int) -> Resized:
    """Live values in windows of `size`."""
    binning, rows = profile.targets[0].binning, x.reshape(-1, size)
    of_row = np.repeat(np.arange(len(rows)), size).astype(np.int32)
    counts = count_windows(bins_of(binning, read_column("x", x, "feature")), binning.bins + 2, of_row, len(rows))
    moved = rows - binning.centre
    return Resized(
        counts,
        np.stack([np.nansum(moved, axis=1), np.nansum(moved**2, axis=1)], axis=1),
        np.stack([np.nanmin(rows, axis=1), np.nanmax(rows, axis=1)], axis=1),
        np.zeros(len(rows), np.int64),
    )


def rates(law: str, references: int, windows: int, seed: int) -> dict[tuple[str, int], float]:
    """(series, size) -> times as often as asked for."""
    g = np.random.default_rng([seed, list(LAWS).index(law)])
    limits = [Threshold(name, LIMIT, None, ("x",)) for name in SERIES]
    limits = [Threshold(each.type, None, LIMIT, ("x",)) if is_test(each) else each for each in limits]
    beyond: Counter[tuple[str, int]] = Counter()
    for _ in range(references):
        profile = reference(g, law)
        made = ReferenceLimits(profile, limits)
        for size in SIZES:
            found = series_of(profile, "x", live(profile, values(g, law, size * windows), size), size, limits)
            for limit in limits:
                sides = made.of(limit, "x", size, HOUR_MS)
                out = [passed(x, sides.above, sides.below) is not None for x in found[limit.series].tolist()]
                beyond[limit.series, size] += sum(out)
    return {key: count * WINDOWS_PER_ALARM / (references * windows) for key, count in beyond.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=int, default=12)
    parser.add_argument("--windows", type=int, default=2_500)
    parser.add_argument("--seed", type=int, default=2026)
    args = parser.parse_args()
    for law in LAWS:
        found = rates(law, args.references, args.windows, args.seed)
        print(
            f"{law}: windows beyond a limit of 1 in {WINDOWS_PER_ALARM}, in windows of {', '.join(map(str, SIZES))} events"
        )
        for series in SERIES:
            print(f"  {series:20}", "  ".join(f"{found[series, size]:5.2f}" for size in SIZES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
