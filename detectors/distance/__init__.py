"""Distances and two-sample tests between the bins of a window and the bins of its reference.

All are computed for all targets at once over flat ("ragged") arrays: `bins.ReferenceBins`. A target without any count on
either side has no distance: NaN, never 0. Each file holds one, with its definition, guarantee, cost and source:

    TRAITS       what the laws check                Parameters   frozen, with limits
    prepare(reference: ReferenceBins, parameters) -> measure(window: WindowBins) -> F64[t], of a test Outcome

`prepared_distance` and `prepared_test` are how one is used by its name. They depend on the window's counts (and extremes)
only, and these add up: so the distance of merged panes is the distance of their rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectors.distance.bins import Measure, Outcome, ReferenceBins, TwoSample, WindowBins, check_counts
from detectors.distance.jensen_shannon import jensen_shannon
from detectors.distance.kolmogorov_smirnov import kolmogorov_smirnov
from detectors.distance.psi import Population, population_groups, psi
from detectors.distance.ragged import F64
from detectors.parameters import read
from detectors.registry import Family
from detectors.verdict import BadSettings

__all__ = [
    "Measure",
    "Outcome",
    "Population",
    "ReferenceBins",
    "TwoSample",
    "WindowBins",
    "jensen_shannon",
    "kolmogorov_smirnov",
    "population_groups",
    "prepared_distance",
    "prepared_test",
    "psi",
]


def prepared_distance(name: str, reference: ReferenceBins, parameters: Mapping[str, Any] | None = None) -> Measure:
    """The registered distance of this name. Raises BadSettings; what it returns raises BadCounts."""
    measure: Measure = _prepared(name, Family.DISTANCE, reference, parameters)

    def checked(window: WindowBins) -> F64:
        check_counts(name, window.counts, reference.start)
        return measure(window)

    return checked


def prepared_test(name: str, reference: ReferenceBins, parameters: Mapping[str, Any] | None = None) -> TwoSample:
    """The registered two-sample test of this name. Raises BadSettings; what it returns raises BadCounts."""
    test: TwoSample = _prepared(name, Family.TEST, reference, parameters)

    def checked(window: WindowBins) -> Outcome:
        check_counts(name, window.counts, reference.start)
        return test(window)

    return checked


def _prepared(name: str, family: Family, reference: ReferenceBins, parameters: Mapping[str, Any] | None) -> Any:
    from detectors import REGISTRY, load

    if name not in REGISTRY or REGISTRY[name].family is not family:
        known = ", ".join(sorted(other for other, entry in REGISTRY.items() if entry.family is family))
        raise BadSettings(f"{name!r} is no {family}; known here: {known}")
    module = load(name)
    return module.prepare(reference, read(module.Parameters, parameters or {}))
