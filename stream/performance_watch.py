"""Alerts on realised performance of one model: every final window of every series goes through its cell. Pure.

w_t of a cell = time since the window before began x the version's share of the model's predictions in it, fixed before the window's
content is seen, so that all versions of a cell together spend one budget. Windows of which something was lost are recorded and
not judged: their time is in the weight of the next one.

Everything is of one series (stream and horizon) at a time, in the order of the model's windows: how the logs of several series
mix changes nothing but the order between their alerts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from stream import container
from stream.alerts import INSIDE, NEW_REFERENCE, NO_TARGET, RETIRED, AlertBook, Breach, Transition, historical
from stream.container import SECTIONS_MAX
from stream.limits import VERSIONS_FOLLOWED_MAX
from stream.monitor_settings import RETIRED_MS, ModelSettings
from stream.performance_alerts import Seen, observation, performance_data, series_of_version, target_of
from stream.performance_cell import Cell, Judgement, state_of
from stream.performance_cells import CellName, cells_of, meant, rank_settings
from stream.performance_detection import PerformanceDetection
from stream.performance_merging import Horizon
from stream.performance_records import Measured
from stream.plan import ALL
from stream.stage import Output
from stream.tally import Sections
from stream.traffic import Traffic
from stream.window_log import Closed
from stream.window_series import FromReference, passed

KIND = "performance-watch"
CELLS_KIND = "performance-cells"
VERSION = 1
CELLS_PER_BLOB = 32  # at most
CELL_SECTIONS, ONLINE_SECTIONS = 80, 6  # of a cell that carries sums, and of each of its online detectors, at most


class CellKey(NamedTuple):
    """A cell of one version, within its series."""

    version: str
    segment: str
    metric: str


@dataclass(slots=True)
class Followed:
    """One series: its cells, its window before (start, predictions of each version), and when each version was seen last.
    `not_followed`: versions of the last window for which there was no room; 0 after a restart until the next one.
    """

    cells: dict[CellKey, Cell] = field(default_factory=dict)
    previous: tuple[int, dict[str, int]] | None = None
    last_ms: dict[str, int] = field(default_factory=dict)
    not_followed: int = 0


States = dict[tuple[str, str, str], dict[str, Any]]
"""(version, segment, metric) -> what a record says of how its value was judged."""


class PerformanceWatch:
    """State of one model. `log_ms`: LogAppendTime of the marker that is being applied."""

    def __init__(self, settings: ModelSettings) -> None:
        plan = settings.performance
        self.settings = settings
        self.names = cells_of(plan)
        self.detection = plan.detection if plan is not None else PerformanceDetection()
        self.ranks = rank_settings(plan, settings.budget_ms) if plan is not None else None
        self.book = AlertBook(settings)
        self.log_ms = 0
        self.given_up = 0  # windows of all cells, also of those that are gone
        self._by_segment: dict[tuple[Horizon, str], list[CellName]] = {}
        for name in self.names:
            self._by_segment.setdefault((Horizon(name.stream, name.horizon_ms), name.segment), []).append(name)
        self._watched = {(name.segment, target_of(name)) for name in self.names}
        self.followed = {series: Followed() for series in dict.fromkeys(series for series, _ in self._by_segment)}
        self._dirty: set[Horizon] = set()
        online = max((len(self._watchers(name)) for name in self.names), default=0)
        self._per_blob = max(1, min(CELLS_PER_BLOB, SECTIONS_MAX // (CELL_SECTIONS + ONLINE_SECTIONS * online)))

    def window(
        self, series: Horizon, window: Closed, found: Sequence[Measured], *, whole: bool
    ) -> tuple[States, list[Output]]:
        """One final window of a series, of all versions and segments; `whole`: nothing of it was lost. Alerts are in the order of
        `found`.
        """
        own = self.followed.get(series)
        if own is None or not whole or not all(measured.whole for measured in found):
            return {}, []
        self._dirty.add(series)
        states: States = {}
        outputs = self.unwatched(window.end_ms, late=historical(window.end_ms + series.horizon_ms, self.log_ms))
        now: dict[str, int] = {}
        for measured in found:
            if measured.segment == ALL:
                now[measured.version] = now.get(measured.version, 0) + measured.rows
        start_ms, before = own.previous or (window.start_ms - (window.end_ms - window.start_ms), now)
        traffic = Traffic(window.start_ms - start_ms, before, now)
        own.previous = (window.start_ms, now)
        for key, cell in own.cells.items():
            cell.weight_ms += traffic.weight(key.version)
        twice = _twice(found)
        left_out: set[str] = set()
        for measured in found:
            names = self._by_segment.get((series, measured.segment), ())
            if (measured.version, measured.segment) in twice:
                continue
            if not self._follows(own, measured.version):
                left_out.add(measured.version)
                continue
            own.last_ms[measured.version] = window.end_ms
            for name in names:
                outputs += self._cell(own, name, measured, traffic, states)
        own.not_followed = len(left_out)
        return states, [*outputs, *self._retire(series, own, window.end_ms)]

    def _follows(self, own: Followed, version: str) -> bool:
        return version in own.last_ms or len(own.last_ms) < VERSIONS_FOLLOWED_MAX

    def _cell(
        self, own: Followed, name: CellName, measured: Measured, traffic: Traffic, states: States
    ) -> Iterator[Output]:
        key = CellKey(measured.version, name.segment, name.metric)
        cell = own.cells.get(key)
        kept = measured.kept_as(name.metric)
        if cell is None or cell.kept != kept:
            if cell is not None:  # other classes, or another worth of them: nothing that was learnt is of them
                yield from self._end(NEW_REFERENCE, measured.window.end_ms, measured.version, [name])
            cell = own.cells[key] = self._new(key, name, kept)
            cell.weight_ms = traffic.weight(measured.version)
        before = cell.given_up
        judgement = cell.feed(measured)
        self.given_up += cell.given_up - before
        states[key] = state_of(cell, judgement)
        if judgement is not None:
            yield from self._observe(
                Seen(name, key.version, measured, cell, judgement, self._breaches(name, cell, judgement, measured))
            )

    def _new(self, key: CellKey, name: CellName, kept: str) -> Cell:
        assert self.ranks is not None
        watchers = [each.watcher for each in self._watchers(name)]
        text = "/".join((name.stream, str(name.horizon_ms), *key))
        return Cell(text, name.metric, kept, self.ranks, watchers)

    def _watchers(self, name: CellName) -> list[Any]:
        return [
            each for each in self.detection.watchers if each.chosen.means(name.metric, name.horizon_ms, name.segment)
        ]

    def _breaches(self, name: CellName, cell: Cell, judgement: Judgement, measured: Measured) -> tuple[Breach, ...]:
        found = []
        value, duration_ms = judgement.number.value, measured.window.end_ms - judgement.start_ms
        for limit in self.detection.limits:
            if not limit.chosen.means(name.metric, name.horizon_ms, name.segment):
                continue
            sides = cell.sides(limit, judgement, duration_ms, meant(limit.chosen, self.names))
            beyond = passed(value, sides.above, sides.below)
            if beyond is not None:
                asked = limit.above if beyond == sides.above else limit.below
                made = (
                    f"{asked.text} by {cell.ranks.windows} learnt windows" if isinstance(asked, FromReference) else ""
                )
                found.append(Breach(name.metric, value, beyond, made))
        found += [Breach(said.watcher.name, said.statistic or 0.0, None) for said in judgement.online if said.fired]
        return tuple(found)

    def _observe(self, seen: Seen) -> Iterator[Output]:
        told = observation(seen)
        if not (told.alarm or told.breaches or told.key in self.book.open):
            return
        change = self.book.observe(told)
        if change is None:
            return
        transition, incident = change
        incident.versions = (seen.version,)
        data = performance_data(
            seen, incident, transition, self.settings, historical=self._late(seen.name, told.end_ms)
        )
        if transition is Transition.RESOLVED:
            yield self.book.resolved(incident, INSIDE, told.end_ms, data)
        else:
            yield self.book.event(transition, incident, told.end_ms, data)

    def _late(self, name: CellName, end_ms: int) -> bool:
        """A window's performance is there when its horizon has passed: that is no history."""
        return historical(end_ms + name.horizon_ms, self.log_ms)

    # ---- what is no longer there ------------------------------------------------------------------------------------

    def _end(self, reason: str, end_ms: int, version: str, names: Iterable[CellName]) -> list[Output]:
        ended = []
        for name in names:
            late = self._late(name, end_ms)
            for incident in [each for each in self.book.open.values() if each.segment == name.segment]:
                if (incident.series, incident.target) == (series_of_version(version), target_of(name)):
                    del self.book.open[incident.key]
                    ended.append(self.book.resolved(incident, reason, end_ms, incident.data | {"historical": late}))
        return ended

    def unwatched(self, end_ms: int, *, late: bool) -> list[Output]:
        """Ends incidents of metrics, horizons and segments that another configuration has not. With the first window after the change, the
        model's or one of a series: the latter may be a horizon away, and of neither may another one come.
        """
        gone = [each for each in self.book.open.values() if (each.segment, each.target) not in self._watched]
        ended = []
        for incident in sorted(gone, key=lambda each: each.key):
            del self.book.open[incident.key]
            ended.append(self.book.resolved(incident, NO_TARGET, end_ms, incident.data | {"historical": late}))
        return ended

    def _retire(self, series: Horizon, own: Followed, end_ms: int) -> list[Output]:
        ended: list[Output] = []
        for version in sorted(v for v, last_ms in own.last_ms.items() if end_ms - last_ms > RETIRED_MS):
            del own.last_ms[version]
            own.cells = {key: cell for key, cell in own.cells.items() if key.version != version}
            names = [name for name in self.names if Horizon(name.stream, name.horizon_ms) == series]
            ended += self._end(RETIRED, end_ms, version, names)
        return ended

    # ---- snapshot ---------------------------------------------------------------------------------------------------

    def blobs(self, prefix: str) -> dict[str, bytes | None]:
        """`prefix` with everything but the cells, and the cells of every series that changed since the last call. Nothing where nothing
        is judged and no incident is open.
        """
        if not self._kept():
            return {}
        header = {
            "incidents": self.book.to_header(),
            "given_up": self.given_up,
            "series": [[*series, own.previous, own.last_ms] for series, own in self.followed.items()],
        }
        blobs: dict[str, bytes | None] = {prefix: container.encode(KIND, VERSION, header, {})}
        for series in sorted(self._dirty):
            keys = sorted(self.followed[series].cells)
            for name, first in _parts(prefix, series, len(keys), self._per_blob):
                part = keys[first : first + self._per_blob]
                blobs[name] = _encoded(series, [(key, self.followed[series].cells[key]) for key in part])
        self._dirty.clear()
        return blobs

    def names_of(self, prefix: str) -> set[str]:
        """Of all live blobs."""
        if not self._kept():
            return set()
        per = self._per_blob
        return {
            prefix,
            *(name for s, own in self.followed.items() for name, _ in _parts(prefix, s, len(own.cells), per)),
        }

    def _kept(self) -> bool:
        return bool(self.names or self.book.open)

    def load(self, prefix: str, blobs: Mapping[str, bytes], *, same: bool) -> None:
        """Become what the blobs say, as far as there are such cells still. `same`: detection is what it was."""
        if prefix not in blobs:
            return
        header = container.decode(blobs[prefix]).expect(KIND, (VERSION,), ()).header
        self.book.load(header["incidents"])
        self.given_up = header.get("given_up", 0)  # the first version did not count them
        for stream, horizon_ms, previous, last_ms in header["series"]:
            own = self.followed.get(Horizon(stream, horizon_ms))
            if own is not None:
                own.previous = None if previous is None else (previous[0], previous[1])
                own.last_ms = last_ms
        there = set(self.names)
        for name, data in sorted(blobs.items()):
            if not name.startswith(f"{prefix}/"):
                continue
            saved = container.decode(data).expect(CELLS_KIND, (VERSION,))
            series = Horizon(*saved.header["series"])
            for place, (key, head) in enumerate(saved.header["cells"]):
                self._load(series, CellKey(*key), head, _within(saved.sections, place), there, same=same)
        if not same:
            self._dirty = set(self.followed)

    def _load(
        self,
        series: Horizon,
        key: CellKey,
        head: Mapping[str, Any],
        sections: Sections,
        there: set[CellName],
        *,
        same: bool,
    ) -> None:
        name = CellName(*series, key.segment, key.metric)
        if name in there:
            cell = self._new(key, name, head["kept"])
            cell.load(head, sections, same=same)
            self.followed[series].cells[key] = cell


def _twice(found: Sequence[Measured]) -> set[tuple[str, str]]:
    """Versions and segments of which there are two sorts of sums: the window in which classes changed. Neither is all of it."""
    seen: set[tuple[str, str]] = set()
    twice: set[tuple[str, str]] = set()
    for measured in found:
        group = (measured.version, measured.segment)
        (twice if group in seen else seen).add(group)
    return twice


def _parts(prefix: str, series: Horizon, cells: int, per_blob: int) -> Iterator[tuple[str, int]]:
    for number, first in enumerate(range(0, cells, per_blob)):
        yield f"{prefix}/{series.stream}/{series.horizon_ms}/{number:04d}", first


def _encoded(series: Horizon, cells: Sequence[tuple[CellKey, Cell]]) -> bytes:
    heads: list[Any] = []
    sections: Sections = {}
    for place, (key, cell) in enumerate(cells):
        head, own = cell.to_sections()
        heads.append([list(key), head])
        sections |= {f"{place}.{name}": each for name, each in own.items()}
    return container.encode(CELLS_KIND, VERSION, {"series": list(series), "cells": heads}, sections)


def _within(sections: Sections, place: int) -> Sections:
    start = f"{place}."
    return {name[len(start) :]: each for name, each in sections.items() if name.startswith(start)}
