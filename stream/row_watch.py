"""Alerts about all features together, or about arrays: thresholds on row series, and online detectors of them, in each judged
window. Pure.

They page outside the promise of `false_alarms`, as everything that an operator sets. All that are about all features share one
incident of the model, whose target is `__features__`, and those about the arrays of one feature another, `NAME[]`: they are
evidence inside, as any detector is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors.reference import ReferenceProfile
from stream import container
from stream.alerts import INSIDE, NO_TARGET, AlertBook, Breach, Incident, Kind, Observation, Transition
from stream.columns import F64
from stream.monitor_settings import digest
from stream.plan import ALL
from stream.row_series import ALL_FEATURES, NoRowsError, RowSeries, array_of, names_rows, series_of, target_of, wanted
from stream.stage import Output
from stream.tally import Tally
from stream.watchers import Said, Watcher, Watchers
from stream.window_records import window_body
from stream.window_series import FromReference, Threshold, passed
from stream.windows import Window
from stream.wording import since

KIND = "rows"
VERSION = 1


@dataclass(frozen=True, slots=True)
class RowValues:
    """Numbers of a window by series, as watchers read them: of one target, the arrays of this feature ("" = all features)."""

    values: Mapping[str, float]
    array: str

    def series(self, name: str) -> F64:
        of = (self.array,) if self.array else ()
        return np.array([self.values.get(series_of(Watcher("", name, of)), math.nan)])


class RowWatch:
    """The row series of one model: those about all features, and those about arrays, each with incidents of their own."""

    def __init__(self, book: AlertBook) -> None:
        self._book = book
        asked = book.settings.rows
        self._parts = {array: _RowPart(book, array) for array in sorted(set(map(array_of, asked)))}

    @property
    def asked(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._parts)

    def observe(
        self, window: Window, whole: Tally, profile: ReferenceProfile, versions: Sequence[str], *, historical: bool
    ) -> tuple[dict[str, Any], list[Output]]:
        """One judged window of segment `all`: (what its record says, alerts). 10 ms and less a series."""
        body: dict[str, Any] = {}
        outputs: list[Output] = []
        for part in self._parts.values():
            said, alerts = part.observe(window, whole, profile, versions, historical=historical)
            body |= said
            outputs += alerts
        return body, outputs

    def unasked(self, window: Window, whole: Tally, profile: ReferenceProfile, *, historical: bool) -> list[Output]:
        """Ends incidents of row series that only another configuration asked for, with the first judged window after the change."""
        found = [each for each in self._book.open.at(profile.id, ALL) if names_rows(each.target)]
        if not found:  # as in nearly every window
            return []
        here = {*whole.names, *map(target_of, self._book.settings.rows)}
        ended = []
        for incident in sorted((each for each in found if each.target not in here), key=lambda each: each.key):
            del self._book.open[incident.key]
            data = incident.data | {"historical": historical}
            ended.append(self._book.resolved(incident, NO_TARGET, window.end_ms, data))
        return ended

    def blobs(self, name: str) -> dict[str, bytes]:
        """Nothing where nothing is asked for."""
        found: dict[str, bytes] = {}
        for array, part in self._parts.items():
            found |= part.blobs(_part_name(name, array))
        return found

    def load(self, name: str, blobs: Mapping[str, bytes]) -> None:
        """Inverse of `blobs`, of the same settings. Raises BadState, ContainerError."""
        for array, part in self._parts.items():
            part.load(_part_name(name, array), blobs)


def _part_name(name: str, array: str) -> str:
    return f"{name}/array/{digest(array)}" if array else name


class _RowPart:
    """The row series about one thing, and what the online detectors of them remember."""

    def __init__(self, book: AlertBook, array: str) -> None:
        self._book = book
        self._array = array
        self._asked = tuple(each for each in book.settings.rows if array_of(each) == array)
        self._target = target_of(self._asked[0])
        self._of: tuple[str, tuple[str, ...]] = ("", ())  # the reference and the targets that all is about
        self._start()

    def _start(self) -> None:
        self._series: RowSeries | None = None
        self._refused = ""
        watchers = [each for each in self._asked if isinstance(each, Watcher)]
        self._watchers = Watchers(watchers, (self._array or ALL_FEATURES,))

    def observe(
        self, window: Window, whole: Tally, profile: ReferenceProfile, versions: Sequence[str], *, historical: bool
    ) -> tuple[dict[str, Any], list[Output]]:
        if self._of != (profile.id, whole.names):
            self._of = profile.id, whole.names
            self._start()
        values = self._values(whole, profile)
        if self._refused:
            return {series: {"refused": self._refused} for series in wanted(self._asked)}, []
        said = self._watchers.feed(RowValues(values, self._array)).get(0, ())
        breaches = tuple(self._breaches(values, said))
        seen = Observation(
            kind=Kind.FEATURE_DRIFT,
            series=profile.id,
            segment=ALL,
            target=self._target,
            end_ms=window.end_ms,
            since_ms=window.start_ms,
            alarm=False,
            quiet=not breaches,
            effect=0.0,
            breaches=breaches,
        )
        change = self._book.observe(seen)
        body: dict[str, Any] = {name: {"value": value} for name, value in values.items()}
        for each in said:
            online = body[series_of(each.watcher)].setdefault("online", {})
            online[each.watcher.name] = {"refused": each.refused} if each.refused else _online(each)
        if change is None:
            return body, []
        change[1].versions = tuple(versions)
        data = self._data(breaches, window, whole, values) | {"historical": historical}
        return body, [self._told(*change, seen, data)]

    @property
    def _unit(self) -> str:
        return f"all numbers of {self._array} together" if self._array else "all features together"

    def _values(self, whole: Tally, profile: ReferenceProfile) -> dict[str, float]:
        """Of a reference from before they were configured, whose windows may still come, there are none: that stops nothing."""
        if self._series is None and not self._refused:
            try:
                self._series = RowSeries(self._asked, profile, whole.names)
            except NoRowsError as error:
                self._refused = str(error)
        return {} if self._series is None else self._series.values(whole)

    def _breaches(self, values: Mapping[str, float], said: Sequence[Said]) -> Iterator[Breach]:
        for limit in self._asked:
            if isinstance(limit, Threshold):
                above, below = limit.above, limit.below
                assert not isinstance(above, FromReference)  # the configuration refuses it
                assert not isinstance(below, FromReference)
                beyond = passed(values[limit.series], above, below)
                if beyond is not None:
                    yield Breach(limit.series, values[limit.series], beyond)
        for each in said:
            if each.fired and each.statistic is not None:
                yield Breach(each.watcher.name, each.statistic, None)

    def _told(self, transition: Transition, incident: Incident, seen: Observation, data: dict[str, Any]) -> Output:
        if transition is Transition.RESOLVED:
            return self._book.resolved(incident, INSIDE, seen.end_ms, data)
        what = "; ".join(each.text for each in seen.breaches)
        when = since(incident.since_ms, seen.end_ms, data["events"])
        data["summary"] = (
            f"{self._unit[0].upper()}{self._unit[1:]}: {what}; nothing is promised about false alarms; {when}."
        )
        return self._book.event(transition, incident, seen.end_ms, data)

    def _data(
        self, breaches: Sequence[Breach], window: Window, whole: Tally, values: Mapping[str, float]
    ) -> dict[str, Any]:
        """What every event of the incident says, in the shape of all alerts."""
        limits = [
            {"type": b.type, "value": b.value, "threshold": b.threshold} for b in breaches if b.threshold is not None
        ]
        found = [{"type": b.type, "statistic": b.value} for b in breaches if b.threshold is None]
        first = breaches[0] if breaches else None
        return {
            "onset": "sudden",
            "evidence": {
                "statistic": first.value if first is not None else 0.0,
                "threshold": first.threshold if first is not None and first.threshold is not None else 0.0,
                "false_alarms": "not limited",
                "promise": "none: an operator's threshold",
                "tolerance": 0.0,
                "thresholds": limits,
                "online": found,
            },
            "effect": {
                "shift": None,
                "unit": self._unit,
                "reference": {},
                "now": {name: value for name, value in values.items() if math.isfinite(value)},
            },
            "largest_changes": [],
            "consequence": {"verdict": "unknown", "why": "no labels yet"},
            "events": whole.events,
            "window": window_body(window),
            "reference": self._of[0],
        }

    # ---- snapshot -----------------------------------------------------------------------------------------------------

    def blobs(self, name: str) -> dict[str, bytes]:
        reference, names = self._of
        head = container.encode(KIND, VERSION, {"reference": reference, "names": list(names)}, {})
        return {name: head} | self._watchers.blobs(name)

    def load(self, name: str, blobs: Mapping[str, bytes]) -> None:
        if name not in blobs:
            return
        header = container.decode(blobs[name]).expect(KIND, (VERSION,), ()).header
        self._of = header["reference"], tuple(header["names"])
        self._start()
        for own in sorted(self._watchers.names(name)):
            self._watchers.load(container.decode(blobs[own]))


def _online(said: Said) -> dict[str, Any]:
    return {"statistic": said.statistic, "fired": said.fired}
