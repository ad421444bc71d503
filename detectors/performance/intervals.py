"""Intervals: of a rate, of a mean, of functions of them, and of differences and ratios of two estimates.

Assumed throughout: rows are independent and of one law, given the window. Where rows of one user or one hour hang together, the
true coverage is lower; `python -m load_tests.interval_coverage` measures it where the assumption holds.

Source  Wilson 1927; Newcombe 1998 (Stat. Med. 17: 873 differences, 2635 pairs), and its generalisation to any two estimates with
        intervals: Zou & Donner 2008 (MOVER), on logarithms for ratios: Donner & Zou 2012
"""

from __future__ import annotations

import math

from detectors.performance.estimate import CONFIDENCE, Estimate, checked, critical_value, undefined

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
    """Value ± z · √variance: the central limit theorem, or the delta method."""
    z = critical_value(confidence)
    checked(value, "the value")
    if not (math.isfinite(variance) and variance >= 0.0):
        why = "one row has no interval" if events == 1 else "the variance has no digits left on these rows"
        return Estimate(value, None, None, confidence, events, error, why)
    half = z * math.sqrt(variance)
    return Estimate(value, value - half, value + half, confidence, events, error)


def positive(value: float, variance: float, events: int, confidence: float = CONFIDENCE) -> Estimate:
    """Of something positive: the delta method on the logarithm, so that the interval stays above 0."""
    plain = around(value, variance, events, confidence)
    if value <= 0.0 or plain.low is None:
        return plain
    spread = math.exp(min(critical_value(confidence) * math.sqrt(variance) / value, 700.0))
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
    half = critical_value(confidence) * math.sqrt(variance) / (value * (1.0 - value))
    ends = [1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, x)))) for x in (logit - half, logit + half)]
    return Estimate(value, ends[0], ends[1], confidence, events, error)


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
