"""Intervals: of a rate, of a mean, of functions of them, and of differences and ratios of two estimates.

Assumed throughout: rows are independent and of one law, given the window. Where rows of one user or one hour hang together, the
true coverage is lower; `python -m load_tests.interval_coverage` measures it where the assumption holds.

Source  Wilson 1927; Newcombe 1998 (Stat. Med. 17: 873 differences, 2635 pairs), and its generalisation to any two estimates with
        intervals: Zou & Donner 2008 (MOVER), on logarithms for ratios: Donner & Zou 2012; Student 1908 where the variance is the
        rows' own
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.performance.estimate import CONFIDENCE, Estimate, checked, critical_value, student_value, undefined

F64 = NDArray[np.float64]

LOGIT_MARGIN = 1e-12  # nearer to 0 or 1 a logit has no interval


def wilson(successes: int, total: int, confidence: float = CONFIDENCE) -> Estimate:
    """A rate and its score interval. `total` > 0."""
    z = critical_value(confidence)
    p, zz = successes / total, z * z
    middle = (p + zz / (2 * total)) / (1 + zz / total)
    half = z / (1 + zz / total) * math.sqrt(p * (1 - p) / total + zz / (4 * total * total))
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == total else min(1.0, middle + half)
    return Estimate(p, low, high, confidence, total)


def around(
    value: float, variance: float, events: int, confidence: float = CONFIDENCE, *, error: float = 0.0
) -> Estimate:
    """Value ± t · √variance: the central limit theorem, or the delta method; Student's t, as the variance is the rows' own."""
    checked(value, "the value")
    if not (math.isfinite(variance) and variance >= 0.0):
        why = "one row has no interval" if events == 1 else "the variance has no digits left on these rows"
        return Estimate(value, None, None, confidence, events, error, why)
    half = _spread(variance, events, confidence)
    return Estimate(value, value - half, value + half, confidence, events, error)


def positive(value: float, variance: float, events: int, confidence: float = CONFIDENCE) -> Estimate:
    """Of something positive: the delta method on the logarithm, so that the interval stays above 0."""
    plain = around(value, variance, events, confidence)
    if value <= 0.0 or plain.low is None:
        return plain
    spread = math.exp(min(_spread(variance, events, confidence) / value, 700.0))
    return Estimate(value, value / spread, value * spread, confidence, events)


def share(
    value: float, variance: float, events: int, confidence: float = CONFIDENCE, *, error: float = 0.0
) -> Estimate:
    """Of something between 0 and 1: the delta method on the logit; at 0 or 1, where that has no width, Wilson's with `events`."""
    plain = around(value, variance, events, confidence, error=error)
    if plain.low is None:
        return plain
    if min(value, 1.0 - value) < LOGIT_MARGIN or variance == 0.0:
        bound = wilson(round(value * events), events, confidence)
        low, high = bound.low or 0.0, 1.0 if bound.high is None else bound.high
        return Estimate(value, min(low, value), max(high, value), confidence, events, error)
    logit = math.log(value / (1.0 - value))
    half = _spread(variance, events, confidence) / (value * (1.0 - value))
    ends = [1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, x)))) for x in (logit - half, logit + half)]
    return Estimate(value, ends[0], ends[1], confidence, events, error)


def _spread(variance: float, events: int, confidence: float) -> float:
    """Half of an interval, from a variance that was estimated of so many rows."""
    return student_value(confidence, max(events - 1, 1)) * math.sqrt(variance)


def average(parts: Sequence[Estimate], correlations: F64 | None = None) -> Estimate:
    """Mean of estimates with their intervals: sums of squares of the distances to the ends, as of a difference (Zou & Donner 2008).
    `correlations` F64[k, k] of the estimators; None: they are of different rows.
    """
    below, above = np.zeros(len(parts)), np.zeros(len(parts))
    for k, x in enumerate(parts):
        assert x.value is not None
        assert x.low is not None
        assert x.high is not None
        below[k], above[k] = x.value - x.low, x.high - x.value
    together = np.eye(len(parts)) if correlations is None else correlations
    value = math.fsum(x.value or 0.0 for x in parts) / len(parts)
    ends = [math.sqrt(max(float(side @ together @ side), 0.0)) / len(parts) for side in (below, above)]
    events = sum(x.events for x in parts)
    return Estimate(value, value - ends[0], value + ends[1], parts[0].confidence, events)


def product(rate: Estimate, size: Estimate) -> Estimate:
    """Rate x size, of estimates that do not go together: of what is nothing but in a share of the rows, the mean.

    On logarithms where both intervals are above 0 (Zou, Huo & Taleban 2009 for lognormal sizes, Donner & Zou 2012); else the
    distances to the ends, each times the other value (the delta method). No interval where one has none.
    """
    assert rate.value is not None
    assert size.value is not None
    value = rate.value * size.value
    if rate.low is None or rate.high is None or size.low is None or size.high is None:
        return Estimate(value, None, None, rate.confidence, rate.events, reason=rate.reason or size.reason)
    if min(rate.low, size.low) > 0.0:
        down = math.hypot(math.log(rate.value / rate.low), math.log(size.value / size.low))
        up = math.hypot(math.log(rate.high / rate.value), math.log(size.high / size.value))
        ends = [value * math.exp(-min(down, 700.0)), value * math.exp(min(up, 700.0))]
    else:
        fewer, more = size.value * (rate.low - rate.value), size.value * (rate.high - rate.value)
        down = math.hypot(min(fewer, more), rate.value * (size.low - size.value))
        up = math.hypot(max(fewer, more), rate.value * (size.high - size.value))
        ends = [value - down, value + up]
    return Estimate(value, ends[0], ends[1], rate.confidence, rate.events)


def difference(a: Estimate, b: Estimate, correlation: float = 0.0) -> Estimate:
    """A - b with interval, from theirs. `correlation` of the two estimators: 0 for different rows. For rates with Wilson's
    intervals this is Newcombe's. Undefined where one is, or has no interval, or their confidences differ.
    """
    reason = _unfit(a, b)
    if reason or a.value is None or b.value is None:
        return undefined(reason, a.confidence, min(a.events, b.events))
    assert a.low is not None
    assert a.high is not None
    assert b.low is not None
    assert b.high is not None
    value = a.value - b.value
    below = _joined(a.value - a.low, b.high - b.value, correlation)
    above = _joined(a.high - a.value, b.value - b.low, correlation)
    return Estimate(value, value - below, value + above, a.confidence, min(a.events, b.events), a.error + b.error)


def ratio(a: Estimate, b: Estimate) -> Estimate:
    """A / b of different rows: the difference of their logarithms. Undefined as `difference`, and unless both are above 0."""
    reason = _unfit(a, b)
    if reason:
        return undefined(reason, a.confidence, min(a.events, b.events))
    assert a.value is not None
    assert b.value is not None
    if min(a.value, b.value) <= 0.0:
        return undefined("a ratio needs both to be above 0", a.confidence, min(a.events, b.events))
    if not (a.low and b.low and min(a.low, b.low) > 0.0):
        return undefined("a ratio needs intervals that stay above 0", a.confidence, min(a.events, b.events))
    logs = difference(_logarithm(a), _logarithm(b))
    assert logs.value is not None
    assert logs.low is not None
    assert logs.high is not None
    value = a.value / b.value
    error = value * (a.error / a.value + b.error / b.value)
    ends = [math.exp(min(end, 700.0)) for end in (logs.low, logs.high)]
    return Estimate(value, ends[0], ends[1], a.confidence, min(a.events, b.events), error)


def _joined(x: float, y: float, correlation: float) -> float:
    return math.sqrt(max(0.0, x * x - 2.0 * correlation * x * y + y * y))


def _logarithm(x: Estimate) -> Estimate:
    assert x.value is not None
    assert x.low is not None
    assert x.high is not None
    return Estimate(math.log(x.value), math.log(x.low), math.log(x.high), x.confidence, x.events)


def _unfit(a: Estimate, b: Estimate) -> str:
    """Why two estimates cannot be compared; empty if they can."""
    for x in (a, b):
        if x.value is None or x.low is None or x.high is None:
            return x.reason
    return "" if a.confidence == b.confidence else f"confidences differ: {a.confidence:g} and {b.confidence:g}"
