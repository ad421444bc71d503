"""What became of the events of one topic of feedback, counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class FeedbackCounters:
    """consumed = late + future + negative + absurd + unknown_label + overflow + those that wait + all from `matched` to `carried`.

    `revised` is counted beside: changes after a horizon was final.
    """

    consumed: int = 0
    late: int = 0
    future: int = 0
    negative: int = 0
    absurd: int = 0
    unknown_label: int = 0
    overflow: int = 0
    matched: int = 0
    contradictory: int = 0
    retracted: int = 0
    duplicate: int = 0
    orphan: int = 0
    before_prediction: int = 0
    carried: int = 0
    revised: int = 0
