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


def student_value(confidence: float, degrees: float) -> float:
    """Two-sided, of Student's law with `degrees` >= 1 of freedom; to 1e-5 relative.

    Source: Hill 1970, Algorithm 396 (Comm. ACM 13: 619). Raises BadSettings as `critical_value`.
    """
    z = -critical_value(confidence)
    tails = 1.0 - confidence
    if degrees <= 2.0:  # exact for 1 and 2
        return (
            1.0 / math.tan(0.5 * math.pi * tails) if degrees < 2.0 else math.sqrt(2.0 / (tails * (2.0 - tails)) - 2.0)
        )
    a = 1.0 / (degrees - 0.5)
    b = 48.0 / (a * a)
    c = ((20700.0 * a / b - 98.0) * a - 16.0) * a + 96.36
    d = ((94.5 / (b + c) - 3.0) / b + 1.0) * math.sqrt(0.5 * math.pi * a) * degrees
    y = (d * tails) ** (2.0 / degrees)
    if y > 0.05 + a:
        c += 0.3 * (degrees - 4.5) * (z + 0.6) if degrees < 5.0 else 0.0
        c += (((0.05 * d * z - 5.0) * z - 7.0) * z - 2.0) * z + b
        zz = z * z
        x = (((((0.4 * zz + 6.3) * zz + 36.0) * zz + 94.5) / c - zz - 3.0) / b + 1.0) * z
        y = math.expm1(a * x * x)
    else:
        tail = ((degrees + 6.0) / (degrees * y) - 0.089 * d - 0.822) * (degrees + 2.0) * 3.0
        y = ((1.0 / tail + 0.5 / (degrees + 4.0)) * y - 1.0) * (degrees + 1.0) / (degrees + 2.0) + 1.0 / y
    return math.sqrt(degrees * y)


def checked(value: float, what: str) -> float:
    """`value`; raises Undefined where arithmetic on extreme rows gave no finite number."""
    if not math.isfinite(value):
        raise Undefined(f"{what} is not a finite number on these rows")
    return value
