"""The job alert: too many events come too late to be counted.

All models of a topic share its `lateness`, so the share is the topic's: the late and the consumed events of all source
partitions between two window ends, as of the markers that passed them. A limit, not a detector: no promise, no budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stream.alerts import INSIDE, AlertBook, Breach, Kind, Observation, Transition
from stream.plan import ALL
from stream.stage import Output
from stream.window_records import window_body
from stream.windows import Window
from stream.wording import percent, since

LATE_SHARE_MAX = 0.01  # contracts.md, Time
SERIES, TARGET = "job", "late_events"


@dataclass(slots=True)
class LateEvents:
    """Counters of the topic at the end of the last window."""

    late: int = 0
    consumed: int = 0

    def observe(
        self, book: AlertBook, window: Window, counters: Sequence[Mapping[str, int]], *, historical: bool
    ) -> list[Output]:
        """One more window; `counters` of every source partition at its end."""
        late = sum(each.get("late", 0) for each in counters)
        consumed = sum(each.get("consumed", 0) for each in counters)
        newly_late, events = late - self.late, consumed - self.consumed
        self.late, self.consumed = late, consumed
        share = newly_late / events if events > 0 else 0.0
        over = share > LATE_SHARE_MAX
        seen = Observation(
            kind=Kind.JOB,
            series=SERIES,
            segment=ALL,
            target=TARGET,
            end_ms=window.end_ms,
            since_ms=window.start_ms,
            alarm=False,
            quiet=not over,
            effect=0.0,
            breaches=(Breach("late_share", share, LATE_SHARE_MAX),) if over else (),
        )
        change = book.observe(seen)
        if change is None:
            return []
        transition, incident = change
        data = _data(window, share, newly_late, events, book) | {"historical": historical}
        if transition is Transition.RESOLVED:
            text = f"at most {percent(LATE_SHARE_MAX)} of the events come late again"
            return [book.resolved(incident, INSIDE, window.end_ms, data, text)]
        return [book.event(transition, incident, window.end_ms, data)]


def _data(window: Window, share: float, late: int, events: int, book: AlertBook) -> dict[str, Any]:
    what = f"{percent(share)} of the events of the predictions topic came too late to be counted"
    return {
        "summary": (
            f"{what} {since(window.start_ms, window.end_ms, events)}, {late:,} of them late; either its lateness is set too "
            f"short or a producer's clock is wrong."
        ),
        "onset": "sudden",
        "evidence": {
            "statistic": share,
            "threshold": LATE_SHARE_MAX,
            "false_alarms": book.settings.false_alarms,
            "promise": "none: a fixed limit",
            "tolerance": 0.0,
        },
        "effect": {"shift": None, "unit": "share of the events", "reference": {}, "now": {}},
        "largest_changes": [],
        "consequence": {"verdict": "unknown", "why": "late events are in no window"},
        "window": window_body(window),
        "reference": "",
    }
