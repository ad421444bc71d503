"""Window series: one number for each target in each judged window, on which an operator may set thresholds. Pure.

A series is a statistic of the windows records, a distance to the reference, or the p-value of a two-sample test; the two
latter come from the catalogue, by name and with parameters. Thresholds page outside the promise of `false_alarms`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors import REGISTRY, load
from detectors.distance import ReferenceBins, WindowBins, prepared_distance, prepared_test
from detectors.parameters import Base, read
from detectors.reference import TargetReference
from detectors.registry import Family, Reads
from detectors.sketches.distinct import estimate
from stream.columns import F64
from stream.tally import Tally

QUALITY = ("missing", "invalid", "out_of_range", "unseen")
SUMMARY = ("mean", "std", "min", "p01", "p05", "p25", "p50", "p75", "p95", "p99", "max", *QUALITY)
"""Statistics of every windows record, by their names there. Rates are shares of the window's events."""
COMPARISONS = tuple(name for name, entry in REGISTRY.items() if entry.family in (Family.DISTANCE, Family.TEST))
ROWS = tuple(name for name, entry in REGISTRY.items() if entry.family is Family.MULTIVARIATE)
DISTINCT = "distinct"  # of categorical targets, over all events: segments have no registers
OF_CATEGORIES = ("unseen", DISTINCT)  # a number, or an array, has no value of them
OF_NUMBERS = (
    *(name for name in SUMMARY if name not in QUALITY),
    "out_of_range",
    *(name for name in COMPARISONS if REGISTRY[name].reads in (Reads.ORDERED, Reads.POSITIONS)),
)  # a category has no value of them
NAMES = (*SUMMARY, DISTINCT, *COMPARISONS)
VOLUME = "volume"  # events a minute, of the model and not of a target: volume_watch.py
Parameters = tuple[tuple[str, float | str], ...]


@dataclass(frozen=True, slots=True)
class FromReference:
    """A limit that the reference's windows make (reference_limits.py); exactly one is set.

    deviations   so many standard deviations of the series beyond its mean
    period_ms    passed by chance once in so long, over all targets of the threshold
    text         the same as it was configured
    """

    deviations: float | None = None
    period_ms: float | None = None
    text: str = ""

    @property
    def deciding(self) -> list[Any]:
        """As JSON values."""
        return ["reference", self.deviations, self.period_ms]

    def __str__(self) -> str:
        return self.text


Limit = float | FromReference


@dataclass(frozen=True, slots=True)
class Threshold:
    """Pages where the series is above `above` or below `below`, as far as they are set; `targets` empty = all.

    `parameters`: (name, value) of a distance or a test, by name. The number of a test is its p-value. A multivariate detector
    is about the arrays of the one target that it names; without, about all numeric features together.
    """

    type: str
    above: Limit | None
    below: Limit | None = None
    targets: tuple[str, ...] = ()
    parameters: Parameters = ()

    @property
    def series(self) -> str:
        """As records and alerts name it: with its parameters where they are not the defaults, and whose arrays it is about. No two
        series have one name, whatever features are called.
        """
        of = map(_quoted, self.targets) if self.type in ROWS else ()
        said = ", ".join([*of, *(f"{name}={value}" for name, value in self.parameters)])
        return f"{self.type}({said})" if said else self.type

    @property
    def quality(self) -> bool:
        """Whether it is about the data's quality, not their law."""
        return self.type in QUALITY

    @property
    def deciding(self) -> list[Any]:
        """What of it decides about alarms, as JSON values; a plain upper limit says what it always said."""
        above, below = (each.deciding if isinstance(each, FromReference) else each for each in (self.above, self.below))
        more = [] if below is None and not self.parameters else [below, list(map(list, self.parameters))]
        return [self.type, above, list(self.targets), *more]

    @property
    def made(self) -> bool:
        """Whether the reference makes one of its limits."""
        return isinstance(self.above, FromReference) or isinstance(self.below, FromReference)


def _quoted(name: str) -> str:
    """A feature as names of series have it: in JSON's quotes where it could be read as parameters."""
    plain = "," not in name and "=" not in name and not name.startswith('"')
    return name if plain else json.dumps(name, ensure_ascii=False)


def passed(value: float, above: float | None, below: float | None) -> float | None:
    """The limit that `value` is beyond, None if it is within both or has no value."""
    if not math.isfinite(value):
        return None
    if above is not None and value > above:
        return above
    return below if below is not None and value < below else None


def parameters_of(name: str, values: Mapping[str, Any]) -> Parameters:
    """What differs from the defaults of a detector, by name. Raises BadSettings."""
    kind: type[Base] = load(name).Parameters
    chosen, usual = read(kind, values), kind()
    return tuple(
        (each, getattr(chosen, each)) for each in sorted(values) if getattr(chosen, each) != getattr(usual, each)
    )


def named(thresholds: Iterable[Threshold], names: Iterable[str]) -> set[str]:
    """Targets with a limit that the reference makes."""
    wanted = [threshold for threshold in thresholds if threshold.made]
    return {name for name in names if any(not each.targets or name in each.targets for each in wanted)}


def watched(thresholds: Iterable[Threshold], always: Sequence[str]) -> tuple[Threshold, ...]:
    """One threshold of each series that has to be computed for them, in order: what is no statistic and does not run anyway."""
    found = {limit.series: limit for limit in thresholds if limit.type not in (*SUMMARY, *always) or limit.parameters}
    return tuple(found.values())


class Comparisons:
    """Watched distances, tests and distinct counts of the windows of one reference."""

    def __init__(self, limits: Sequence[Threshold], targets: Sequence[TargetReference]) -> None:
        self._distinct = any(limit.type == DISTINCT for limit in limits)
        compared = [limit for limit in limits if limit.type != DISTINCT]
        self._measures: dict[str, Callable[[WindowBins], F64]] = {}
        if compared:
            reference = ReferenceBins.of(targets)
            self._measures = {limit.series: _measure(limit, reference) for limit in compared}

    def values(self, tally: Tally) -> dict[str, F64]:
        """Series -> F64[t], NaN where a target has none. Raises BadCounts."""
        found: dict[str, F64] = {}
        if self._measures:
            low, high = np.ascontiguousarray(tally.extremes.T)
            found = self.measured(WindowBins(tally.counts, low, high))
        if self._distinct:
            found[DISTINCT] = np.full(len(tally.names), np.nan)
            for place, registers in tally.distinct.by_target().items():
                found[DISTINCT][place] = estimate(registers)
        return found

    def measured(self, window: WindowBins) -> dict[str, F64]:
        """The same of bins."""
        return {series: measure(window) for series, measure in self._measures.items()}


def _measure(limit: Threshold, reference: ReferenceBins) -> Callable[[WindowBins], F64]:
    parameters = dict(limit.parameters)
    if REGISTRY[limit.type].family is Family.DISTANCE:
        return prepared_distance(limit.type, reference, parameters)
    test = prepared_test(limit.type, reference, parameters)
    return lambda window: test(window).p_value
