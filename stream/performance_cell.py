"""One series of performance that is judged: a metric of a version and segment at a horizon, window after window. Pure.

Default detector: detectors/sequential/rank_alone.py, by the series' own first windows. A window with too few rows is carried into the
next, added up: its time counts in the weight. So is one in which the metric has no value or no interval, for at most CARRIED_MAX
windows; if the next one has them alone, it is judged alone.

Online detectors see the same windows. Those of errors are given the window's rows, 0 or 1, in an order that the window's hash draws:
sums do not know in which order rows came, and any order that they do not know is as likely as another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors import REGISTRY, load
from detectors.online import Online, restored, started
from detectors.performance import METRICS, PerformanceSums, merged
from detectors.performance.judged import COUNTED, errors_of, number_of
from detectors.registry import Reads
from detectors.sequential.rank_alone import Level, Number, RankAlone, Settings, Verdict
from detectors.sequential.uniforms import seed_prefix, window_seed
from detectors.verdict import BadValue
from stream.limits import limit
from stream.performance_detection import PerformanceLimit
from stream.performance_panes import cuts_section, layout_from, layout_header, sums_from, sums_sections
from stream.performance_records import Measured
from stream.reference_limits import Sides, Tail
from stream.tally import Sections
from stream.watchers import Said, Watcher
from stream.window_series import FromReference, Limit

CARRIED_MAX = 100  # windows of a number that are added up before they are given up: counted, and said in `judged`
ERRORS_MAX = limit(
    "performance_errors_max",
    20_000,
    "errors of one window that an online detector is given, about 2.5 us each; of more a sample",
)
ROUNDING = 1e-6  # relative to a standard error: learnt deviations have 32 bits


@dataclass(slots=True)
class Carried:
    """Windows that were too small: what they add up to. `sums` None: a share, counts are enough."""

    start_ms: int
    windows: int
    hits: int
    rows: int
    sums: PerformanceSums | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """One window, with those that were carried into it."""

    start_ms: int
    number: Number
    verdict: Verdict
    online: tuple[Said, ...]


class Cell:
    """State. `kept`: what its sums are of; weight_ms: time since the last window that was taken, times the version's share."""

    __slots__ = ("_prefix", "carried", "given_up", "kept", "metric", "online", "ranks", "watchers", "weight_ms")

    def __init__(self, name: str, metric: str, kept: str, settings: Settings, watchers: Sequence[Watcher]) -> None:
        self.metric, self.kept = metric, kept
        self.ranks = RankAlone(settings)
        self.watchers = tuple(watchers)
        for watcher in self.watchers:
            load(watcher.type)
        self.online: list[Online] = [started(each.type, dict(each.parameters)) for each in self.watchers]
        self.carried: Carried | None = None
        self.given_up = 0  # windows that were carried and never judged
        self.weight_ms = 0.0
        self._prefix = seed_prefix(name, kept)

    def feed(self, measured: Measured) -> Judgement | None:
        """One window of which nothing was lost; None: it is carried."""
        number, start_ms = self._together(measured)
        if number is None or number.rows < self.ranks.least_rows():
            self._carry(measured)
            return None
        if self.carried is not None and start_ms == measured.window.start_ms:
            self.given_up += self.carried.windows
        self.carried = None
        seed = window_seed(self._prefix, start_ms)
        verdict = self.ranks.update(number, self.weight_ms, start_ms, seed)
        self.weight_ms = 0.0
        return Judgement(start_ms, number, verdict, self._watch(number, seed))

    def _together(self, measured: Measured) -> tuple[Number | None, int]:
        """The window with what is carried, and where that begins."""
        alone, start_ms = number_of(self.metric, measured.estimate(self.metric)), measured.window.start_ms
        carried = self.carried
        if carried is None:
            return alone, start_ms
        if carried.sums is None:
            assert alone is not None  # a share has counts always
            return Number.share(carried.hits + alone.hits, carried.rows + alone.rows), carried.start_ms
        both = merged(measured.sums.layout, [carried.sums, measured.sums])
        together = number_of(self.metric, measured.told.measure(self.metric, both))
        least = self.ranks.least_rows()
        if (together is None or together.rows < least) and alone is not None and alone.rows >= least:
            return alone, start_ms
        return together, carried.start_ms

    def _carry(self, measured: Measured) -> None:
        counted = self.metric in COUNTED
        before = self.carried or Carried(measured.window.start_ms, 0, 0, 0, None)
        if not counted and before.windows >= CARRIED_MAX:
            self.given_up += before.windows
            before = Carried(measured.window.start_ms, 0, 0, 0, None)
        if counted:
            alone = number_of(self.metric, measured.estimate(self.metric))
            assert alone is not None
            hits, rows = before.hits + alone.hits, before.rows + alone.rows
            self.carried = Carried(before.start_ms, before.windows + 1, hits, rows, None)
        else:
            parts = [measured.sums] if before.sums is None else [before.sums, measured.sums]
            sums = merged(measured.sums.layout, parts)
            self.carried = Carried(before.start_ms, before.windows + 1, 0, 0, sums)

    def _watch(self, number: Number, seed: int) -> tuple[Said, ...]:
        found = []
        for watcher, online in zip(self.watchers, self.online, strict=True):
            values: Sequence[float] = [number.value]
            if REGISTRY[watcher.type].reads is Reads.ERRORS:
                values = errors_of(METRICS[self.metric], number, ERRORS_MAX, seed).tolist()
            fired, statistic = False, None
            try:
                for value in values:
                    step = online.update(value)
                    fired, statistic = fired or step.fired, step.statistic
                found.append(Said(watcher, number.value, statistic, fired))
            except BadValue as error:
                found.append(Said(watcher, number.value, None, refused=str(error)))
        return tuple(found)

    def sides(self, limit: PerformanceLimit, judgement: Judgement, duration_ms: int, cells: int) -> Sides:
        """An operator's limits for one window: as configured, or made of the learnt windows and brought to this one's standard error."""
        above = self._side(limit.above, judgement, duration_ms, cells, high=True)
        return Sides(above, self._side(limit.below, judgement, duration_ms, cells, high=False))

    def _side(
        self, limit: Limit | None, judgement: Judgement, duration_ms: int, cells: int, *, high: bool
    ) -> float | None:
        if not isinstance(limit, FromReference):
            return limit
        ranks = self.ranks
        if not ranks.complete or judgement.verdict.level is not Level.JUDGED:
            return None
        sign = 1.0 if high else -1.0
        deviations = sign * ranks.deviations.astype(np.float64)
        if limit.deviations is not None:
            far = float(deviations.mean() + limit.deviations * deviations.std(ddof=1))
        else:
            assert limit.period_ms is not None
            far = Tail.of(deviations).limit(min(duration_ms / (limit.period_ms * max(cells, 1)), 1.0))
        far += ROUNDING * (1.0 + abs(far))
        return ranks.centre + sign * far * ranks.standard_error(judgement.number)

    @property
    def level(self) -> Level:
        """How the last window was taken."""
        if self.carried is not None:
            return Level.CARRIED
        return Level.JUDGED if self.ranks.complete else Level.LEARNING

    # ---- snapshot ---------------------------------------------------------------------------------------------------

    def to_sections(self) -> tuple[dict[str, Any], Sections]:
        head, arrays = self.ranks.to_sections()
        header: dict[str, Any] = {"kept": self.kept, "weight_ms": self.weight_ms, "ranks": head, "carried": None}
        sections: Sections = {f"ranks.{name}": each for name, each in arrays.items()}
        if self.carried is not None:
            own = self.carried
            header["carried"] = [own.start_ms, own.windows, own.hits, own.rows]
            if own.sums is not None:
                header["layout"] = layout_header(own.sums.layout)
                parts = sums_sections(own.sums) | cuts_section(own.sums.layout)
                sections |= {f"carried.{name}": each for name, each in parts.items()}
        if self.given_up:
            header["given_up"] = self.given_up
        header["online"] = []
        for place, online in enumerate(self.online):
            said, states = online.sections()
            header["online"].append(said)
            sections |= {f"online.{place}.{name}": each for name, each in states.items()}
        return header, sections

    def load(self, header: Mapping[str, Any], sections: Mapping[str, Any], *, same: bool) -> None:
        """Become what `to_sections` said. `same` False: detection is another one; what was learnt stays, evidence begins anew."""
        own = _parts(sections)
        settings = self.ranks.settings
        self.ranks = RankAlone.from_sections(settings, header["ranks"], own.get("ranks", {}))
        self.weight_ms = header["weight_ms"]
        self.given_up = header.get("given_up", 0)
        if header["carried"] is not None:
            sums = None
            if "layout" in header:
                parts = own["carried"]
                layout = layout_from(header["layout"], parts)
                sums = sums_from(layout, {name: each for name, each in parts.items() if name != "cuts"})
            start_ms, windows, hits, rows = header["carried"]
            self.carried = Carried(start_ms, windows, hits, rows, sums)
        if not same:
            self.ranks.restart(settings)
            return
        for place, (watcher, said) in enumerate(zip(self.watchers, header["online"], strict=True)):
            states = own.get("online", {})
            arrays = {name.partition(".")[2]: each for name, each in states.items() if name.startswith(f"{place}.")}
            self.online[place] = restored(watcher.type, said, arrays, dict(watcher.parameters))


def _parts(sections: Mapping[str, Any]) -> dict[str, Sections]:
    """Sections by what stands before their first dot."""
    found: dict[str, Sections] = {}
    for name, each in sections.items():
        first, _, rest = name.partition(".")
        found.setdefault(first, {})[rest] = each
    return found


def state_of(cell: Cell, judgement: Judgement | None) -> dict[str, Any]:
    """What a performance record says of how its value was judged."""
    lost = {"given_up_windows": cell.given_up} if cell.given_up else {}
    if judgement is None:
        assert cell.carried is not None
        return {"state": Level.CARRIED.value, "carried_windows": cell.carried.windows, **lost}
    verdict, ranks = judgement.verdict, cell.ranks
    said: dict[str, Any] = {"state": verdict.level.value, **lost}
    if verdict.level is Level.LEARNING:
        said |= {"learnt": ranks.progress, "of": ranks.settings.learning}
    else:
        said |= {
            "normal": ranks.centre,
            "shift": verdict.shift,
            "log10_evidence": verdict.log10,
            "log10_threshold": verdict.threshold_log10,
        }
        if verdict.alarm:
            said["alarm"] = True
    if judgement.online:
        said["online"] = [_online(each) for each in judgement.online]
    return {name: each for name, each in said.items() if not (isinstance(each, float) and not math.isfinite(each))}


def _online(said: Said) -> dict[str, Any]:
    if said.refused:
        return {"detector": said.watcher.name, "refused": said.refused}
    return {"detector": said.watcher.name, "statistic": said.statistic, "fired": said.fired}
