"""What a metric says: a value with its interval, or why there is none. Never NaN."""

# ruff: noqa: N818 - the error is named after what is wrong

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from detectors.normal import ppf
from detectors.verdict import BadSettings, DetectorError

CONFIDENCE = 0.95


class Undefined(DetectorError):
    """The metric has no value on these rows; the text says why, for people."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric of some rows.

    value      finite; None = undefined, and `reason` says why
    low, high  the interval at `confidence`: where the value would be over endlessly many such rows; None = none, and `reason`
               says why
    error      how far `value` can be from the exact metric of the same rows, because scores are kept in bins; 0 = exact
    events     rows that it is made of: the denominator of a rate
    """

    value: float | None
    low: float | None
    high: float | None
    confidence: float
    events: int
    error: float = 0.0
    reason: str = ""

    @property
    def defined(self) -> bool:
        return self.value is not None

    def scaled(self, factor: float, offset: float = 0.0) -> Estimate:
        """The estimate of factor · metric + offset."""
        if self.value is None:
            return self
        value = factor * self.value + offset
        if self.low is None or self.high is None:
            return replace(self, value=value, error=abs(factor) * self.error)
        ends = sorted((factor * self.low + offset, factor * self.high + offset))
        return replace(self, value=value, low=ends[0], high=ends[1], error=abs(factor) * self.error)


def undefined(reason: str, confidence: float, events: int = 0) -> Estimate:
    return Estimate(None, None, None, confidence, events, reason=reason)


def critical_value(confidence: float) -> float:
    """Two-sided, of the normal law. Raises BadSettings unless .5 <= confidence < 1."""
    if not 0.5 <= confidence < 1.0:
        raise BadSettings(f"confidence: {confidence!r} is outside .5 to 1 (exclusive)")
    return ppf(0.5 + 0.5 * confidence)


def checked(value: float, what: str) -> float:
    """`value`; raises Undefined where arithmetic on extreme rows gave no finite number."""
    if not math.isfinite(value):
        raise Undefined(f"{what} is not a finite number on these rows")
    return value
