"""Volume: events a minute of one model, all versions together, on which an operator may set limits and online detectors. Pure.

Traffic has hours and days of its own, so volume is no cell of the default detector: it is in every windows record, and pages
only where `detectors:` says so, outside the promise. It is judged in every closed window from which nothing was lost, those
with too few events and those of a reference that is being learnt among them: its reference is the operator's.

Silence. Without an event there is no window. While limits are set, time without one is cut into stretches as long as a
window may stay open, from the end of the last window on; each is judged as 0 events a minute once all partitions have passed
its end. Online detectors see closed windows only. A bounded input's end is no silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stream import container
from stream.alerts import INSIDE, AlertBook, Breach, Incident, Kind, Observation, Transition
from stream.columns import F64
from stream.monitor_settings import ModelSettings
from stream.panes import EDGE_END
from stream.plan import ALL
from stream.stage import Output
from stream.watchers import Watchers
from stream.window_records import volume, window_body
from stream.window_series import VOLUME, passed
from stream.windows import Lengths, Window
from stream.wording import quantity, since

NEVER = -(1 << 62)
OPEN_FACTOR = 12  # a window without a longest duration is taken to stay open for 12 times `every`


@dataclass(frozen=True, slots=True)
class _Value:
    """The one number of a window, as watchers read it."""

    value: float

    def series(self, _name: str) -> F64:
        return np.array([self.value])


class VolumeWatch:
    """Volume of one model. `judged_ms`: end of the last window or stretch that was judged."""

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self.book = AlertBook(settings)
        self.watchers = Watchers(settings.volume_watchers, (VOLUME,))
        self.judged_ms = NEVER

    def window(self, window: Window, lengths: Lengths, *, lost: bool, historical: bool) -> Iterator[Output]:
        """One closed window; `lost`: it lacks events."""
        self.judged_ms = window.end_ms
        if lost or window.end_ms - window.start_ms < lengths.every_ms:  # cut short by a new plan
            return
        if not (self.settings.volume_thresholds or self.settings.volume_watchers or self.book.open):
            return  # nobody asks
        value = volume(window.events, window)
        found = list(self._beyond(value))
        online = self.watchers.feed(_Value(value)).get(0, ())
        found += [Breach(said.watcher.name, said.statistic or 0.0, None) for said in online if said.fired]
        yield from self._observe(value, tuple(found), window, historical=historical)

    @property
    def silent_ms(self) -> int | None:
        """Start of the next stretch of silence while no window is open; None = silence is not looked for."""
        return self.judged_ms if self.settings.volume_thresholds and self.judged_ms != NEVER else None

    def silence(
        self, until_ms: int, lengths: Lengths, whole: Callable[[int, int], bool], historical: Callable[[int], bool]
    ) -> Iterator[Output]:
        """No window is open, and everything before `until_ms` is complete; `whole`: nothing was lost in [start_ms, end_ms)."""
        if self.silent_ms is None or until_ms >= EDGE_END:
            return
        stretch_ms = lengths.longest_ms or OPEN_FACTOR * lengths.every_ms
        found = tuple(self._beyond(0.0))
        stretches = (until_ms - self.judged_ms) // stretch_ms
        told = min(stretches, self.settings.resolve_after + 1)  # after these another one changes nothing
        for number in range(told):
            start_ms = self.judged_ms + number * stretch_ms
            stretch = Window(start_ms, start_ms + stretch_ms, 0, sufficient=False)
            if whole(stretch.start_ms, stretch.end_ms):
                yield from self._observe(0.0, found, stretch, historical=historical(stretch.end_ms))
        self.judged_ms += stretches * stretch_ms

    def _beyond(self, value: float) -> Iterator[Breach]:
        for threshold in self.settings.volume_thresholds:
            above, below = (each if isinstance(each, float) else None for each in (threshold.above, threshold.below))
            limit = passed(value, above, below)
            if limit is not None:
                yield Breach(VOLUME, value, limit)

    def _observe(
        self, value: float, found: tuple[Breach, ...], window: Window, *, historical: bool
    ) -> Iterator[Output]:
        seen = Observation(
            kind=Kind.DATA_QUALITY, series=VOLUME, segment=ALL, target=VOLUME, end_ms=window.end_ms, since_ms=window.start_ms,
            alarm=False, quiet=not found, effect=0.0, breaches=found, judged=False,
        )  # fmt: skip
        change = self.book.observe(seen)
        if change is None:
            return
        transition, incident = change
        data = _data(value, found, window) | {"historical": historical}
        if transition is Transition.RESOLVED:
            yield self.book.resolved(incident, INSIDE, window.end_ms, data)
        else:
            summary = _summary(value, found, incident, window)
            yield self.book.event(transition, incident, window.end_ms, data | {"summary": summary})

    # ---- snapshot -----------------------------------------------------------------------------------------------------

    def header(self) -> dict[str, Any]:
        """For the model's own blob; detectors have theirs."""
        return {"judged_ms": self.judged_ms, "incidents": self.book.to_header()}

    def blobs(self, name: str) -> dict[str, bytes]:
        """States of the online detectors."""
        return self.watchers.blobs(name)

    def load(self, header: Mapping[str, Any], states: Iterable[bytes]) -> None:
        """Inverse of both; `states`: none where the detectors are other ones now."""
        self.judged_ms = header["judged_ms"]
        self.book.load(header["incidents"])
        for state in states:
            self.watchers.load(container.decode(state))


def _summary(value: float, found: tuple[Breach, ...], incident: Incident, window: Window) -> str:
    first = found[0]
    if first.threshold is None:
        why = first.text
    else:
        side = "above" if value > first.threshold else "below"
        why = f"{side} the configured {first.threshold:g}"
    when = since(incident.since_ms, window.end_ms, window.events)
    rate = "no event" if value == 0 else f"{_count(value)} events a minute"
    return f"{VOLUME}: {rate}, {why}; nothing is promised about false alarms; {when}."


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else quantity(value)


def _data(value: float, found: tuple[Breach, ...], window: Window) -> dict[str, Any]:
    limits = [
        {"type": each.type, "value": each.value, "threshold": each.threshold}
        for each in found
        if each.threshold is not None
    ]
    online = [{"type": each.type, "statistic": each.value} for each in found if each.threshold is None]
    limit = next((each.threshold for each in found if each.threshold is not None), 0.0)
    evidence: dict[str, Any] = {
        "statistic": value if math.isfinite(value) else 0.0,
        "threshold": limit,
        "false_alarms": "not limited",
        "promise": "none: an operator's threshold",
        "tolerance": 0.0,
    }
    return {
        "onset": "sudden",
        "evidence": evidence | ({"thresholds": limits} if limits else {}) | ({"online": online} if online else {}),
        "effect": {"shift": None, "unit": "events a minute", "reference": {}, "now": {VOLUME: value}},
        "largest_changes": [],
        "consequence": {"verdict": "unknown", "why": "no labels yet"},
        "events": window.events,
        "window": window_body(window),
        "reference": "",
    }
