"""What a detector says of a window, and the errors by which it refuses one."""
# ruff: noqa: N818 - the errors are named after what is wrong

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

TOLERANCE_MAX = 3.0  # of a tube: beyond it, it holds every law that a detector could tell apart
AUTO_EVENTS_MIN = 10
"""Of a window of `auto`, where nothing else was asked for: a change is found within some windows at best, so larger ones are
slower (1 sd: 51 events in windows of 10, 68 of 20, 140 of 50, at 30M events a false alarm), and among the windows of one hour
of a reference fewer tell less. What a window costs, a record, is bounded by panes: none is shorter than one.
"""


class Level(StrEnum):
    """`CROSSED_*`: that layer's latch is set, the other's is not. `ALARM`: both met in this window, and were cleared."""

    OK = "ok"
    CROSSED_RANK = "crossed_rank"
    CROSSED_TUBE = "crossed_tube"
    ALARM = "alarm"
    INSUFFICIENT_DATA = "insufficient_data"


class Change(NamedTuple):
    """One bin's share of the events: in the reference and now."""

    bin: str
    reference: float
    now: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target, one window.

    rank_log10, tube_log10   evidence of either layer before any reset, on the scale of `threshold_log10` = log10(budget in
                             ms): at or above it the layer crosses. Finite; -300 = nothing yet
    rank_crossed, tube_crossed   the layer crossed in this very window
    inside_tube     the window can be explained by a law inside the tolerance tube (within its own sampling error)
    shift           signed, probit units (about reference standard deviations): of the values, or for a categorical target
                    and for missing or invalid values the largest probit change of a share
    direction       "up" | "down" | "spread" (values further apart) | "narrow" | "mixed" | "none"
    statistic       the statistic with most evidence in the rank layer: "location", "scale", "upper_tail", "lower_tail",
                    "shape", "missing", "invalid", or a category's label
    since_ms        start of the excursion, at any level: the window start from which the leading tube bet has gained. Corrected
                    once, when the excursion is settled, and the same until it is over; then None
    events          events judged (after thinning); thinned: the window was above the reference's largest one
    judged          False = the window was only collected (a slow target takes several list windows as one)
    largest_changes at most 5, largest first; filled unless the level is OK or INSUFFICIENT_DATA
    """

    level: Level
    rank_log10: float
    tube_log10: float
    threshold_log10: float
    rank_crossed: bool = False
    tube_crossed: bool = False
    inside_tube: bool = True
    shift: float = 0.0
    direction: str = "none"
    statistic: str = ""
    since_ms: int | None = None
    events: int = 0
    thinned: bool = False
    judged: bool = True
    largest_changes: tuple[Change, ...] = ()


class DetectorError(ValueError):
    """A detector refuses its input; its state is as before."""


class BadCounts(DetectorError):
    """Counts of the wrong length or dtype, or negative."""


class BadValue(DetectorError):
    """A value of a series that is no number, not finite or out of range, or an error that is neither 0 nor 1."""


class BadWeight(DetectorError):
    """The time since the previous window must be finite and not negative."""


class BadSettings(DetectorError):
    """Tolerance, budget, cells or latch length out of range."""


class IncompleteReference(DetectorError):
    """The reference is still being learnt: it has cut points, but no windows to rank against."""


class BadState(DetectorError):
    """Serialised state that does not belong to this reference, these settings or this version."""
