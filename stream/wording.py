"""Sentences for people: what, which way, how much, since when, on how many events, and what chance would do.

Never a bare p-value, never "drift detected". Times are UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from detectors.verdict import Change

DAY_MS = 86_400_000
UNITS = ((DAY_MS, "day"), (3_600_000, "hour"), (60_000, "minute"), (1000, "second"))
MISSING, INVALID, UNSEEN, OTHER = "missing", "invalid", "__unseen__", "__other__"
INSTANTS_KEPT = 256  # a window's ends are in each of its records
SPREAD_RATIO_MIN = 1.1  # below it "1.0 times the reference's" would say nothing


@dataclass(frozen=True, slots=True)
class Movement:
    """How a target differs from its reference, in what a sentence can use.

    shift in reference standard deviations, signed; direction as in detectors.verdict.Verdict; share: the category, "missing" or
    "invalid", whose share changed, "" = the values did; std_ratio: now over reference, None where there is none; changes:
    largest first.
    """

    target: str
    shift: float
    direction: str
    share: str
    std_ratio: float | None
    changes: Sequence[Change]


@lru_cache(INSTANTS_KEPT)
def instant(time_ms: int) -> str:
    """RFC 3339 in UTC, with a fraction only where there is one: 2026-11-22T10:20:00Z."""
    seconds, rest = divmod(time_ms, 1000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:03d}Z" if rest else f"{text}Z"


def clock(time_ms: int, now_ms: int) -> str:
    """Time of day as of `now_ms`: seconds only where they are not zero, the date only where it is another day."""
    then = datetime.fromtimestamp(time_ms / 1000, UTC)
    text = then.strftime("%H:%M:%S" if then.second else "%H:%M")
    return text if time_ms // DAY_MS == now_ms // DAY_MS else f"{then:%Y-%m-%d} {text}"


def percent(share: float) -> str:
    """Two digits that matter: 0.1 %, 3.1 %, 4 %, 11 %, 99.6 %."""
    value = 100 * share
    if value > 99:
        return f"{_trimmed(value, 1)} %"
    if value >= 9.95:
        return f"{value:.0f} %"
    return f"{_trimmed(value, 1 if value >= 0.095 else 3 if value >= 0.00095 else 5)} %"


def period(time_ms: float) -> str:
    """A length of time in its largest fitting unit: 30 days, 3.5 days, 12 hours, 1 minute."""
    unit_ms, name = next((unit for unit in UNITS if time_ms >= unit[0]), UNITS[-1])
    count = _trimmed(time_ms / unit_ms, 1)
    return f"{count} {name}" if count == "1" else f"{count} {name}s"


def quantity(value: float) -> str:
    """A multiple or a shift: two digits, 0.6, 1.5, 12."""
    return (
        _trimmed(value, 1)
        if abs(value) < 9.95 and abs(value) >= 0.1
        else f"{value:.2g}"
        if abs(value) < 0.1
        else f"{value:.0f}"
    )


def movement(moved: Movement) -> str:
    """What changed, which way and how much: "amount moved up by about 0.6 reference standard deviations"."""
    name = moved.target
    if moved.share:
        change = next((each for each in moved.changes if each.bin == moved.share), None)
        return _share(name, change) if change is not None else f"share of '{moved.share}' in {name} changed"
    if moved.direction in ("up", "down"):
        return f"{name} moved {moved.direction} by about {quantity(abs(moved.shift))} reference standard deviations"
    if _spread_is_confirmed(moved):
        verb = "spread out" if moved.direction == "spread" else "became narrower"
        return f"{name} {verb}: standard deviation {quantity(moved.std_ratio or 0)} times the reference's"
    return f"{name} changed its shape{_largest(moved.changes)}"


def _spread_is_confirmed(moved: Movement) -> bool:
    """The detector's direction is of the ranks; it is said where the values agree, for a reader checks it against them."""
    ratio = moved.std_ratio
    if moved.direction not in ("spread", "narrow") or ratio is None or max(ratio, 1 / ratio) < SPREAD_RATIO_MIN:
        return False
    return (ratio > 1) == (moved.direction == "spread")


def since(since_ms: int, end_ms: int, events: int) -> str:
    return f"since {clock(since_ms, end_ms)}; {events:,} events"


def chance(budget_ms: float) -> str:
    """What the promise allows."""
    return f"one such alarm in {period(budget_ms)} is what chance may do"


def _largest(changes: Sequence[Change]) -> str:
    if not changes:
        return ""
    change = changes[0]
    return f": share of {change.bin} {_rose(change)}"


def _share(name: str, change: Change) -> str:
    subjects = {
        MISSING: f"missing values of {name}",
        INVALID: f"invalid values of {name}",
        UNSEEN: f"values of {name} that the reference does not know",
        OTHER: f"rare values of {name}",
    }
    subject = subjects.get(change.bin, f"share of '{change.bin}' in {name}")
    return f"{subject} {_rose(change)}"


def _rose(change: Change) -> str:
    verb = "rose" if change.now >= change.reference else "fell"
    return f"{verb} from {percent(change.reference)} to {percent(change.now)}"


def _trimmed(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
