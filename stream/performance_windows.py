"""Realised performance of one model: complete edges of every series become metrics of the windows of the model's one list.

An edge counts in the first window that ends after it. That is the window its predictions were counted in; feedback which brought
its prediction with it, and became known while no window was open, counts in the next one. A window is given out, once, when the
series is complete up to its end; then nothing that belongs to it can come. A series that is an age of longer horizons is said as their
running value, too; one that is nothing else is neither judged nor compared.

Memory: the window that each series is at (about 9 kB of each version and segment), and 32 bytes of each closed window that some
series has still to reach, at most WINDOWS_WAITING_MAX; beyond it the oldest go unreported, counted in `windows_dropped`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detectors.reference import ReferenceProfile
from stream import container
from stream.limits import limit
from stream.panes import EDGE_MIN
from stream.performance_arrivals import Arrivals
from stream.performance_contrasts import contrast_outputs, paired_outputs, serving_version
from stream.performance_merging import Counted, Groups, Horizon, PerformanceGroup
from stream.performance_panes import (
    cuts_section,
    layout_from,
    layout_header,
    paired_sums_from,
    sums_from,
    sums_sections,
)
from stream.performance_plan import ModelPerformance
from stream.performance_records import Judged, Measured, ReferenceTest, performance_outputs
from stream.performance_told import NOTHING
from stream.performance_watch import PerformanceWatch
from stream.plan import ALL
from stream.stage import Output
from stream.window_log import Closed, WindowLog
from stream.windows import Window

KIND = "performance-windows"
GROUPS_KIND = "performance-groups"
VERSION = 1
GROUPS_PER_BLOB = 64  # with 60 sections each they fit a container
WINDOWS_WAITING_MAX = limit(
    "performance_windows_waiting_max",
    100_000,
    "closed windows of a model that wait for feedback: 69 days of minutes, 3 MB",
)

Lost = Callable[[Horizon, int, int], bool]


@dataclass(slots=True)
class At:
    """Where one series is: `window`: number of the first window that was not given out; `groups`: what it has of it so far;
    `serving`: version that served in the last window, "" = none yet.
    """

    window: int = 0
    groups: Groups = field(default_factory=dict)
    serving: str = ""


class PerformanceWindows:
    """State of one model. `plan` None or without streams: the model has no feedback, nothing is kept.

    `profile`: gives the reference that is in force when records are written; `watch`: judges them.
    """

    profile: Callable[[], ReferenceProfile | None]

    def __init__(self, model: str, plan: ModelPerformance | None, watch: PerformanceWatch | None = None) -> None:
        self.model = model
        self.watch = watch
        self.plan = plan
        self.profile = lambda: None
        self.metrics = {stream.stream: stream.metrics for stream in plan.streams} if plan is not None else {}
        wanted = horizons_of(plan)
        self.series = {each: At() for each in wanted}
        self.arrivals = Arrivals(plan)
        self._final = set(horizons_of(plan, final=True))
        self.log = WindowLog()
        self.origin_ms = EDGE_MIN  # windows before it are not known: edges below count nowhere
        self.windows_dropped = 0
        self.rows_dropped = 0
        self.log_ms = 0  # LogAppendTime of the marker that is being applied
        self.changed = bool(wanted)

    def close(self, window: Window, *, lost: bool) -> None:
        """One more window of the model's list; `lost`: events of it were lost before they were counted."""
        if not self.series:
            return
        self.changed = True
        self.log.append(window, lost=lost)
        if len(self.log) > WINDOWS_WAITING_MAX:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self.origin_ms = self.log[self.log.first].end_ms
        self.windows_dropped += 1
        self.log.drop(self.log.first + 1)
        for at in self.series.values():
            if at.window < self.log.first:
                self.rows_dropped += _rows(at.groups)
                at.window, at.groups = self.log.first, {}

    def unwatched(self, window: Window, *, late: bool) -> Sequence[Output]:
        """The end of incidents of what left the configuration; after `close`."""
        return self.watch.unwatched(window.end_ms, late=late) if self.watch is not None else ()

    def add(self, series: Horizon, edge_ms: int, groups: Groups, lost: Lost) -> Iterator[Output]:
        """One complete edge of a series; before it all windows that end there or earlier are given out."""
        at = self.series.get(series)
        if at is None:
            return
        yield from self.advance(series, edge_ms, lost)
        self.changed = True
        if edge_ms < self.origin_ms:
            self.rows_dropped += _rows(groups)
            return
        for group, counted in groups.items():
            if group in at.groups:
                at.groups[group].add(counted)
            else:
                at.groups[group] = counted

    def advance(self, series: Horizon, until_ms: int, lost: Lost) -> Iterator[Output]:
        """The series is complete before `until_ms`, and so is the list of windows."""
        at = self.series.get(series)
        if at is None:
            return
        while at.window < self.log.count and self.log[at.window].end_ms <= until_ms:
            window = self.log[at.window]
            groups, at.groups = at.groups, {}
            at.window += 1
            self.changed = True
            yield from self._outputs(series, window, groups, lost)
        self.log.drop(min(each.window for each in self.series.values()))
        self.arrivals.drop()

    def ends(self, series: Horizon, until_ms: int) -> Iterator[int]:
        """Ends of the windows that `advance` would give out."""
        at = self.series.get(series)
        for number in range(at.window, self.log.count) if at is not None else ():
            if self.log[number].end_ms > until_ms:
                return
            yield self.log[number].end_ms

    def start_ms(self, series: Horizon) -> int | None:
        """Where the first closed window begins that the series has not reached; None = it has reached all."""
        at = self.series.get(series)
        return self.log[at.window].start_ms if at is not None and at.window < self.log.count else None

    def _outputs(self, series: Horizon, window: Closed, groups: Groups, lost: Lost) -> Iterator[Output]:
        """Of a joined series every event of the window must be there; what brought its prediction with it is not of the window."""
        whole = not window.lost and not lost(series, window.start_ms, window.end_ms)
        if series.horizon_ms and _rows(groups) != window.events:
            whole = False
        before, serving = self._serve(self.series[series], groups)
        found: list[Measured] = []
        pairs: list[Measured] = []
        told = self.plan.told if self.plan is not None else NOTHING
        for group in sorted(groups, key=lambda group: (group.version, group.segment != ALL, group.segment, group.kept)):
            counted = groups[group]
            measured = Measured(
                self.model, group.version, group.segment, series.stream, series.horizon_ms, group.kept, window, counted.kind,
                counted.rows, counted.observed, whole and counted.complete, counted.classes, counted.sums, serving,
                before if before != serving else "", counted.against, told, self.arrivals.revision(series),
            )  # fmt: skip
            (pairs if counted.against else found).append(measured)
        asked, test = self.metrics[series.stream], self._test()
        yield from self._running(series, window, found, whole=whole)
        if series not in self._final:
            return
        judged, alerts = self._judge(series, window, found, whole=whole)
        for measured in found:
            yield from performance_outputs(measured, asked, test, judged)
        if self.plan is not None:
            yield from contrast_outputs(found, self.plan, asked, test)
            yield from paired_outputs(pairs, found, self.plan, asked)
        yield from alerts

    def _running(self, series: Horizon, window: Closed, found: Sequence[Measured], *, whole: bool) -> Iterator[Output]:
        """What the series says as the running value of longer horizons."""
        observed = sum(measured.observed for measured in found if measured.segment == ALL)
        whole = whole and all(measured.whole for measured in found)
        self.arrivals.note(series, self.series[series].window - 1, window, observed, whole=whole)
        for running in self.arrivals.provisional(series, window):
            for measured in found:
                yield from performance_outputs(measured, self.metrics[series.stream], self._test(), running=running)

    def _judge(
        self, series: Horizon, window: Closed, found: Sequence[Measured], *, whole: bool
    ) -> tuple[Judged, Sequence[Output]]:
        """How the values are judged, and alerts."""
        if self.watch is None:
            return {}, ()
        self.watch.log_ms = self.log_ms
        return self.watch.window(series, window, found, whole=whole)

    def _serve(self, at: At, groups: Groups) -> tuple[str, str]:
        """(version that served in the window before, in this one)."""
        now: dict[str, int] = {}
        for group, counted in groups.items():
            if group.segment == ALL and not counted.against:
                now[group.version] = now.get(group.version, 0) + counted.rows
        before, at.serving = at.serving, serving_version(at.serving, now)
        return before, at.serving

    def _test(self) -> ReferenceTest | None:
        profile = self.profile()
        if profile is None or profile.performance is None:
            return None
        return ReferenceTest(profile.id, profile.performance)

    # ---- snapshot ---------------------------------------------------------------------------------------------------

    def blobs(self, prefix: str) -> dict[str, bytes | None]:
        """Blobs that changed, and every one of the windows that are being filled; `names` says which are live."""
        watch = self.watch.blobs(f"{prefix}/watch") if self.watch is not None else {}
        if not self.series:
            return watch
        self.changed = False
        header = {
            "log": [self.log.first, self.log.count],
            "origin_ms": self.origin_ms,
            "dropped": [self.windows_dropped, self.rows_dropped],
            "series": [[*series, at.window, at.serving] for series, at in self.series.items()],
            "arrivals": self.arrivals.header(),
        }
        blobs: dict[str, bytes | None] = {prefix: container.encode(KIND, VERSION, header, {})}
        for number, part in enumerate(self._filling()):
            blobs[f"{prefix}/groups/{number:04d}"] = _encoded(part)
        return blobs | watch | self.log.blobs(f"{prefix}/windows") | self.arrivals.blobs(f"{prefix}/arrivals")

    def names(self, prefix: str) -> set[str]:
        """Of all live blobs."""
        watch = self.watch.names_of(f"{prefix}/watch") if self.watch is not None else set()
        if not self.series:
            return watch
        groups = {f"{prefix}/groups/{number:04d}" for number, _ in enumerate(self._filling())}
        arrivals = self.arrivals.names(f"{prefix}/arrivals")
        return {prefix} | groups | watch | arrivals | self.log.names(f"{prefix}/windows")

    def _filling(self) -> Iterator[Sequence[tuple[Horizon, PerformanceGroup, Counted]]]:
        found = [
            (series, *each) for series, at in self.series.items() for each in sorted(at.groups.items(), key=_by_group)
        ]
        for first in range(0, len(found), GROUPS_PER_BLOB):
            yield found[first : first + GROUPS_PER_BLOB]

    def load(self, prefix: str, blobs: Mapping[str, bytes], known_ms: int, *, same: bool = True) -> None:
        """Become what the blobs say. `known_ms`: the list of windows is known from here on where they say nothing; `same`: the
        settings of detection are those that they were saved with.

        Series may be others than the state's: new ones begin with the windows that are kept, what is gone is forgotten.
        """
        if self.watch is not None:
            self.watch.load(f"{prefix}/watch", blobs, same=same)
        if not self.series:
            return
        if prefix not in blobs:
            self.origin_ms, self.changed = known_ms, True
            return
        header = container.decode(blobs[prefix]).expect(KIND, (VERSION,), ()).header
        first, count = header["log"]
        self.log.load(f"{prefix}/windows", first, count, blobs)
        self.arrivals.load(f"{prefix}/arrivals", header.get("arrivals", ()), blobs)
        self.origin_ms = header["origin_ms"]
        self.windows_dropped, self.rows_dropped = header["dropped"]
        stored = {Horizon(stream, horizon_ms): state for stream, horizon_ms, *state in header["series"]}
        self.changed = stored.keys() != self.series.keys()
        for series, at in self.series.items():
            at.window, *served = stored.get(series, [self.log.first])
            at.serving = served[0] if served else ""  # the first version did not say it
        for name, data in blobs.items():
            if name.startswith(f"{prefix}/groups/"):
                for series, group, counted in _decoded(data):
                    if series in self.series:
                        self.series[series].groups[group] = counted


def horizons_of(plan: ModelPerformance | None, *, final: bool = False) -> list[Horizon]:
    """The series of a model, sorted; `final`: those alone that are no mere age of a horizon."""
    streams = plan.streams if plan is not None else ()
    return sorted(Horizon(each.stream, ms) for each in streams for ms in (each.series_ms if final else each.points_ms))


def _by_group(item: tuple[PerformanceGroup, Counted]) -> PerformanceGroup:
    return item[0]


def _rows(groups: Groups) -> int:
    """Predictions, of all versions, each once."""
    return sum(counted.rows for group, counted in groups.items() if group.segment == ALL and not counted.against)


def _encoded(part: Sequence[tuple[Horizon, PerformanceGroup, Counted]]) -> bytes:
    heads: list[Any] = []
    sections: container.Sections = {}
    for place, (series, group, counted) in enumerate(part):
        layout = counted.sums.layout
        heads.append({
            "series": list(series),
            "group": list(group),
            "kind": counted.kind,
            "classes": list(counted.classes),
            "counts": [counted.rows, counted.observed, counted.complete],
            "layout": layout_header(layout),
            "against": list(counted.against),
        })  # fmt: skip
        own = sums_sections(counted.sums) | cuts_section(layout)
        sections |= {f"{place}.{name}": each for name, each in own.items()}
    return container.encode(GROUPS_KIND, VERSION, {"groups": heads}, sections)


def _decoded(data: bytes) -> Iterator[tuple[Horizon, PerformanceGroup, Counted]]:
    saved = container.decode(data).expect(GROUPS_KIND, (VERSION,))
    parts: dict[int, container.Sections] = {}
    for name, each in saved.sections.items():
        number, _, section = name.partition(".")
        parts.setdefault(int(number), {})[section] = each
    for place, head in enumerate(saved.header["groups"]):
        layout = layout_from(head["layout"], parts[place])
        against = tuple(head.get("against", ()))
        own = {name: each for name, each in parts[place].items() if name != "cuts"}
        sums = (paired_sums_from if against else sums_from)(layout, own)
        rows, observed, complete = head["counts"]
        counted = Counted(head["kind"], tuple(head["classes"]), rows, observed, complete, sums, against)
        yield Horizon(*head["series"]), PerformanceGroup(*head["group"]), counted
