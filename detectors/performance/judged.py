"""Which metrics are judged over time, and as what: a share of counted rows, or a number with its standard error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import compiled
from detectors.performance.estimate import Estimate, critical_value
from detectors.performance.metric import Direction, Metric
from detectors.performance.proxies import NO_CONVERSIONS
from detectors.sequential.rank_alone import Number
from detectors.sequential.thinning import hypergeometric
from detectors.sequential.uniforms import uniform

U8 = NDArray[np.uint8]

COUNTED = frozenset({
    "accuracy", "precision", "recall", "specificity", "false_positive_rate", "prevalence", "share_over_predicted", "ctr", "cvr",
})  # fmt: skip
"""Shares: value x events is a count of rows, and rows are 0 or 1."""

NOT_JUDGED = frozenset({
    "expected_ctr", "expected_rate", "selection_rate",
})  # fmt: skip
"""What scores and predictions alone say is watched as their own targets."""

FIRST_UNIFORM = 1 << 22  # of a window's seed: below it are tie-breaks and thinning


def number_of(name: str, estimate: Estimate) -> Number | None:
    """A metric of one window as the detector takes it. None: it has no value, or no interval; but when conversions stop altogether
    that is a number as far from normal as can be.
    """
    if name in COUNTED:
        value = 0.0 if estimate.value is None else estimate.value
        return Number.share(round(value * estimate.events), estimate.events if estimate.defined else 0)
    if estimate.value is not None and estimate.reason == NO_CONVERSIONS:
        return Number(estimate.value, estimate.events, 0.0)
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return None
    unit = (estimate.high - estimate.low) / (2.0 * critical_value(estimate.confidence))
    return Number(estimate.value, estimate.events, unit)


def worse(direction: Direction, before: float, now: float) -> bool | None:
    """Whether a model got worse as a metric moved; None where neither way is better."""
    if direction is Direction.NEITHER:
        return None
    if direction in (Direction.HIGHER, Direction.LOWER):
        return (now < before) == (direction is Direction.HIGHER)
    aim = 1.0 if direction is Direction.ONE else 0.0
    return abs(now - aim) > abs(before - aim)


def errors_of(metric: Metric, number: Number, most: int, seed: int) -> U8:
    """Rows of one window as errors: 1 = a row that speaks against the model, U8[<= most].

    Sums have lost the rows' order. What is given is one of all orders, each as likely as the other, drawn by the hash of the window:
    the same however rows arrived. Of more than `most` rows so many are drawn, without replacement.
    """
    bad = number.rows - number.hits if metric.direction is Direction.HIGHER else number.hits
    rows = min(number.rows, most)
    found = np.zeros(rows, np.uint8)
    _shuffled(bad, number.rows, np.uint64(seed), FIRST_UNIFORM, found)
    return found


@compiled
def _shuffled(ones: int, total: int, seed: np.uint64, first: int, out: U8) -> None:
    """Fill out U8[<= total] with draws of `total` rows, of which `ones` are 1, without replacement."""
    rows = len(out)
    left = ones if rows == total else hypergeometric(ones, total - ones, rows, uniform(seed, first))
    for i in range(rows):
        if uniform(seed, first + 1 + i) * (rows - i) < left:
            out[i] = 1
            left -= 1
