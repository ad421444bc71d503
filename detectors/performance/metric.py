"""How a metric is registered, and how it is measured: one entry each, from which documents, schema and validation follow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from detectors.performance import exact
from detectors.performance.estimate import CONFIDENCE, Estimate, Undefined
from detectors.performance.intervals import around, positive
from detectors.performance.layout import Part
from detectors.performance.sums import PerformanceSums

F64 = NDArray[np.float64]

ROUNDED = Fraction(1, 1 << 52)  # of a square: how far rounding it may have moved it, twice over


class Task(StrEnum):
    BINARY = "binary"
    CLASSIFICATION = "classification"  # of any number of classes
    REGRESSION = "regression"
    PROXY = "proxy"


class Direction(StrEnum):
    """Which way is better."""

    HIGHER = "higher"
    LOWER = "lower"
    ZERO = "towards 0"
    ONE = "towards 1"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True, eq=False)
class MetricSettings:
    """What a metric may be told.

    confidence  of the interval      quantile  of quantile_loss
    value       F64[k, k], of business_value: what a row is worth, by label and predicted class
    target      of kpi_to_target           per_conversion  of both kpis: the mean is of conversions, not of predictions
    """

    confidence: float = CONFIDENCE
    quantile: float = 0.5
    value: F64 | None = None
    target: float | None = None
    per_conversion: bool = False


DEFAULTS = MetricSettings()


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of the registry.

    unit      "" = a pure number
    error     how far the value can be from a batch recomputation on the same rows (scikit-learn's, where it has the metric)
    interval  the method and what it assumes beyond independent rows
    undefined when there is no value
    settings  the fields of MetricSettings that it needs or heeds, beyond the confidence
    """

    name: str
    title: str
    task: Task
    direction: Direction
    needs: Part
    interval: str
    undefined: str
    source: str
    function: Callable[[PerformanceSums, MetricSettings], Estimate]
    unit: str = ""
    error: str = "exact sums: the last digit"
    settings: tuple[str, ...] = ()


def some(rows: int, of: str = "labelled rows") -> int:
    """`rows`; raises Undefined where there are none."""
    if rows == 0:
        raise Undefined(f"no {of}")
    return rows


def spread(total: Fraction, squares: Fraction, rows: int, *, rounded: Fraction | None = None) -> float:
    """Variance of a mean of `rows` rows; NaN of one row. Exact but for the last rounding.

    Squares were rounded row by row, so that equal rows may seem to vary by less than nothing: as far as rounding explains it that
    is 0 (`rounded`: the squares that were, where `squares` are a difference of them). Below that (squares too small to be kept)
    the result is negative.
    """
    if rows < 2:
        return math.nan
    scatter, least = squares - total * total / rows, -ROUNDED * (squares if rounded is None else rounded)
    return 0.0 if least <= scatter < 0 else float(scatter / (rows * (rows - 1)))


def mean(
    sums: PerformanceSums, part: Part, name: str, rows: int, confidence: float, *, signed: bool = False
) -> Estimate:
    """Mean of what `name` sums, with its interval by the central limit theorem; on the logarithm unless `signed`."""
    total, squares = (exact.fraction(sums.limbs(part, each)) for each in (name, square_of(sums, part, name)))
    return (around if signed else positive)(float(total / rows), spread(total, squares, rows), rows, confidence)


def square_of(sums: PerformanceSums, part: Part, name: str) -> str:
    """The name of the sum of squares of what `name` sums: "x_2", for "error_2" and "log_2" "error_4" and "log_4"; of absolute values as of
    the values themselves.
    """
    name = name.removeprefix("absolute_")
    squares = name.removesuffix("_2") + "_4" if name.endswith("_2") else f"{name}_2"
    assert f"{part}.{squares}" in sums.layout.shape.sums
    return squares
