"""References and windows for the tests of the default detector."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from detectors.binning import Kind
from detectors.column_values import read_column
from detectors.reference import ReferenceProfile, TargetReference, WindowRule
from detectors.reference_build import build_reference
from detectors.reference_windows import bins_of, count_windows
from detectors.sequential.default import DetectionSettings, DetectorState, Prepared, prepare, start, update
from detectors.verdict import Verdict

I64 = NDArray[np.int64]
DRAWS = {
    "normal": lambda g, n: g.normal(size=n),
    "lognormal": lambda g, n: g.lognormal(0.0, 1.5, n),
    "poisson": lambda g, n: g.poisson(3.0, n).astype(float),
    "holes": lambda g, n: np.where(g.random(n) < 0.05, np.nan, g.normal(size=n)),
    "constant": lambda _, n: np.full(n, 7.0),
    "categories": lambda g, n: g.choice(
        np.array(["a", "b", "c", "d", None], object), n, p=[0.5, 0.3, 0.15, 0.03, 0.02]
    ),
    "rare": lambda g, n: np.minimum(g.zipf(1.3, n), 10**6).astype(str).astype(object),
}


def autoregressive(g: np.random.Generator, n: int, phi: float) -> NDArray[np.float64]:
    x = np.empty(n)
    noise = g.normal(size=n) * np.sqrt(1 - phi * phi)
    x[0] = g.normal()
    for i in range(1, n):
        x[i] = phi * x[i - 1] + noise[i]
    return x


def build(values: NDArray, size: int = 20, name: str = "x") -> ReferenceProfile:
    """One target, windows of `size` events, one event a millisecond."""
    rule = WindowRule(auto=False, every_ms=size, min_events=size, resolution_ms=1)
    return build_reference("m", {name: values}, {name: "feature"}, time_ms=np.arange(len(values)), window=rule)


@cache
def profile(law: str, rows: int = 20_000, size: int = 20, seed: int = 0) -> ReferenceProfile:
    return build(DRAWS[law](np.random.default_rng([seed, 7]), rows), size, f"x{seed}")


def windows(target: TargetReference, values: NDArray, size: int = 20) -> I64:
    """Counts I64[n // size, b + 2] of successive windows."""
    kind = "categorical" if target.binning.kind is Kind.CATEGORICAL else "numeric"
    bins = bins_of(target.binning, read_column("x", values, target.role, kind))
    count = len(bins) // size
    of_row = (np.arange(len(bins)) // size).astype(np.int32)
    of_row[count * size :] = -1
    return count_windows(bins, target.binning.bins + 2, of_row, count)


def ready(
    found: ReferenceProfile, budget: float = 1e5, tolerance: float = 0.03, cells: int = 1
) -> tuple[Prepared, DetectorState]:
    prepared = prepare(found.targets[0], DetectionSettings(tolerance, budget, cells), found.id)
    return prepared, start(prepared)


def run(prepared: Prepared, state: DetectorState, counts: I64, first: int = 0) -> list[Verdict]:
    """Every window in turn; weight = its events."""
    return [update(prepared, state, row, float(row.sum()), (first + i) * 1000) for i, row in enumerate(counts)]
