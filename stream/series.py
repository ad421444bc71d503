"""Series: what feeds the detectors of one (model, reference or version, segment), and what they remember of it.

Input series belong to a reference, output series (prediction, scores) to a version. A window that is too small to be
judged is carried into the next; the time since the last judged one goes into its weight, carried windows and gaps included.

    w_t = time since the previous window began x the series' share of the model's events in that window

so that all series of a cell together spend one budget. The last judged windows are kept, so that an alert can say how much
has changed since its excursion began, on how many events, and whether it came suddenly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from detectors.reference import ReferenceProfile
from detectors.sequential import batch, default
from detectors.sequential.verdicts import Verdicts
from stream import container, watchers
from stream.columns import F64, I64
from stream.plan import INPUT_ROLES
from stream.series_history import History
from stream.tally import Sections, Tally
from stream.watchers import Said, Watcher, Watchers
from stream.window_statistics import Lens, Statistics
from stream.windows import Window

VERSION = 1
SERIES_VERSION = 2  # 1: a row of registers for every target
SERIES_VERSIONS = (1, SERIES_VERSION)
NEVER = -(1 << 62)
RECENT_WINDOWS = 8  # what "now" means in an alert: the counts of at most so many windows of the excursion
SKEW_WINDOWS = 3  # an excursion that began in the first three judged windows was there from the start
TARGETS_PER_BLOB = 64  # a container holds at most 4096 sections
QUIET_SHARE = 0.2  # of the effect: so little before the change point is chance; a straight ramp has a quarter there
SUDDEN_SHARE = 0.5  # an effect that began with half of what it is now came suddenly


class SeriesKey(NamedTuple):
    """`version` is INPUTS_VERSION for input series."""

    reference: str
    version: str
    segment: str

    @property
    def name(self) -> str:
        """As outputs name it: the reference's id, or "version:<text>"."""
        return f"version:{self.version}" if self.outputs else self.reference

    @property
    def outputs(self) -> bool:
        return self.version != INPUTS_VERSION


INPUTS_VERSION = "\x00inputs"  # no version's text: control characters are refused in events


@dataclass(frozen=True, slots=True)
class Promise:
    """What a cell may spend: A, and d of contracts.md."""

    budget_ms: int
    cells: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """One window as a series saw it. `verdicts` None: not judged; `statistics` None: there is no reference yet.

    `whole`: statistics of all that was judged, the windows that were carried into this one among it.
    """

    tally: Tally
    statistics: Statistics | None
    verdicts: Verdicts | None
    online: Mapping[int, tuple[Said, ...]] = field(default_factory=dict)  # by place of the target
    whole: Statistics | None = None


@dataclass(frozen=True, slots=True)
class Excursion:
    """A target since it left its reference: effect and statistics of the last windows, events of all, "sudden" or "gradual"."""

    effect: default.Effect
    now: Statistics
    events: int
    onset: str


class Series:
    """One series that may page. `prepared`: one for each of its targets, in their order; `watched`: by online detectors."""

    def __init__(
        self,
        key: SeriesKey,
        profile: ReferenceProfile,
        lens: Lens,
        promise: Promise,
        prepared: Sequence[default.Prepared],
        *,
        watched: Sequence[Watcher] = (),
    ) -> None:
        self.key = key
        self.profile = profile
        self.lens = lens
        self.promise = promise
        self.prepared = list(prepared)
        self.states = [default.start(each) for each in self.prepared]
        self._batch: batch.Batch | None = None  # of these states
        self.watchers = Watchers(watched, lens.names)
        self.carried: Tally | None = None
        self.carried_weight_ms = 0.0
        self.carried_start_ms = 0
        self.first_starts: list[int] = []  # of the first SKEW_WINDOWS judged windows
        self.last_ms = NEVER
        self.recent: list[Tally] = []  # the last RECENT_WINDOWS judged windows
        self.history = History(len(lens.names))

    def skip(self, weight_ms: float) -> None:
        """A window in which this series had no event: its time counts all the same."""
        self.carried_weight_ms += weight_ms

    def feed(self, tally: Tally, weight_ms: float, window: Window) -> Judgement:
        """One window of the model's list, with this series' part of it."""
        statistics = self.lens.statistics(tally)
        if tally.events:
            self.last_ms = window.end_ms
        if self.carried is None:
            whole, start_ms = tally, window.start_ms
        else:
            whole, start_ms = self.carried, self.carried_start_ms
            whole.add(tally)
        weight_ms += self.carried_weight_ms
        if not window.sufficient or whole.events < max(1, self.profile.windows.size_min):
            self.carried = tally.copy() if whole is tally else whole
            self.carried_weight_ms, self.carried_start_ms = weight_ms, start_ms
            return Judgement(tally, statistics, verdicts=None)
        self.carried, self.carried_weight_ms = None, 0.0
        self._batch = self._batch or batch.Batch(self.prepared, self.states)
        verdicts = self._batch.update(whole.counts, weight_ms, start_ms, window.end_ms)
        self._remember(whole, verdicts, start_ms)
        judged = statistics if whole is tally else self.lens.statistics(whole)
        return Judgement(tally, statistics, verdicts, self.watchers.feed(judged), judged)

    def effect(self, target: int, since_ms: int) -> Excursion:
        """What has been seen of a target in the windows from `since_ms` on, as far as they are kept."""
        starts, events = self.history.starts, self.history.events
        windows = max(1, int((starts >= since_ms).sum()))
        recent = self.recent[-min(windows, len(self.recent)) :]
        pool = recent[0].select(np.array([target]))
        for tally in recent[1:]:
            pool.add(tally.select(np.array([target])))
        last = slice(-min(windows, len(self.recent)), None)
        parts = list(zip(starts[last].tolist(), events[last].tolist(), strict=True))
        return Excursion(
            effect=default.describe(self.prepared[target], pool.counts, parts),
            now=Lens([self.lens.names[target]], self.profile).statistics(pool),
            events=int(events[-windows:].sum()),
            onset=_onset(self.history.shifts_of(target)[-windows:]),
        )

    def since(self, target: int, since_ms: int) -> int:
        """When what is seen now set in, given when the detector first noticed something.

        Chance may have begun an excursion that a real change continued. The change point of an effect that was 0 before is
        where (sum of the effects after it)^2 / their number is largest; it is taken if little had happened before it.
        """
        starts = self.history.starts
        first = int(np.searchsorted(starts, since_ms))
        effects = self.history.shifts_of(target)[first:]
        if len(effects) < 2:
            return since_ms
        after = np.cumsum(effects[::-1])[::-1]
        place = int(np.argmax(after**2 / np.arange(len(effects), 0, -1)))
        now = after[place] / (len(effects) - place)
        if place and effects[:place].mean() * np.sign(now) < QUIET_SHARE * abs(now):
            return int(starts[first + place])
        return since_ms

    def start_of_last(self, windows: int) -> int:
        """Start of the last so many judged windows, as far as they are kept."""
        starts = self.history.starts
        return int(starts[-min(windows, len(starts))])

    def from_the_start(self, since_ms: int) -> bool:
        """Whether an excursion began in the very first windows that were judged against this reference."""
        return since_ms <= self.first_starts[-1]

    def _remember(self, whole: Tally, verdicts: Verdicts, start_ms: int) -> None:
        if len(self.first_starts) < SKEW_WINDOWS:
            self.first_starts.append(start_ms)
        self.recent = [*self.recent[1 - RECENT_WINDOWS :], whole.remembered()]
        self.history.add(start_ms, whole.events, verdicts.shift)

    # ---- snapshot ---------------------------------------------------------------------------------------------------

    def blobs(self, name: str) -> dict[str, bytes]:
        """`name` with everything but the detectors, and `name`/n with the states of 64 detectors each."""
        header: dict[str, Any] = {
            "key": list(self.key),
            "names": list(self.lens.names),
            "carried_weight_ms": self.carried_weight_ms,
            "carried_start_ms": self.carried_start_ms,
            "first_starts": self.first_starts,
            "last_ms": self.last_ms,
            "recent": len(self.recent),
        }
        sections: Sections = {part: getattr(self.history, part) for part in _PARTS}
        for part, tally in (("carried", self.carried), *((f"recent.{i}", each) for i, each in enumerate(self.recent))):
            header[part] = None
            if tally is not None:
                header[part], parts = tally.to_sections(f"{part}.")
                sections |= parts
        blobs = {name: container.encode("series", SERIES_VERSION, header, sections)}
        for first in range(0, len(self.states), TARGETS_PER_BLOB):
            heads: list[dict[str, Any]] = []
            arrays: Sections = {}
            for index in range(first, min(first + TARGETS_PER_BLOB, len(self.states))):
                head, parts = default.state_to_sections(self.prepared[index], self.states[index])
                heads.append(head)
                arrays |= {f"{index:05d}.{part}": array for part, array in parts.items()}
            blobs[f"{name}/{first // TARGETS_PER_BLOB}"] = container.encode(
                "detectors", VERSION, {"first": first, "states": heads}, arrays
            )
        return blobs | self.watchers.blobs(name)

    def names(self, name: str) -> set[str]:
        """Names of all its blobs."""
        detectors = range(0, len(self.states), TARGETS_PER_BLOB)
        return {name, *(f"{name}/{first // TARGETS_PER_BLOB}" for first in detectors)} | self.watchers.names(name)

    @staticmethod
    def key_of(data: bytes) -> tuple[SeriesKey, tuple[str, ...]]:
        """Key and targets of a saved series: what has to be known before it can be built and loaded."""
        header = container.decode(data).expect("series", SERIES_VERSIONS).header
        return SeriesKey(*header["key"]), tuple(header["names"])

    def load(self, data: bytes, detectors: Sequence[bytes]) -> None:
        """Become what `blobs` saved, of a series with this key and these targets; `detectors` in any order."""
        saved = container.decode(data).expect("series", SERIES_VERSIONS)
        header, sections = saved.header, saved.sections
        self.history.load(*(sections[part] for part in _PARTS))  # shifts once had 64 bits
        self.carried_weight_ms = header["carried_weight_ms"]
        self.carried_start_ms = header["carried_start_ms"]
        self.first_starts = header["first_starts"]
        self.last_ms = header["last_ms"]
        if header["carried"] is not None:
            self.carried = Tally.from_sections(header["carried"], sections, "carried.")
        places = range(header["recent"])
        read = (Tally.from_sections(header[f"recent.{i}"], sections, f"recent.{i}.") for i in places)
        self.recent = [tally.remembered() for tally in read]
        self._batch = None
        for blob in detectors:
            states = container.decode(blob)
            if states.kind == watchers.KIND:
                self.watchers.load(states)
                continue
            states = states.expect("detectors", (VERSION,))
            for index, head in enumerate(states.header["states"], states.header["first"]):
                prefix = f"{index:05d}."
                arrays = {
                    name[len(prefix) :]: each for name, each in states.sections.items() if name.startswith(prefix)
                }
                self.states[index] = default.state_from_sections(self.prepared[index], head, arrays)


_PARTS = ("starts", "events", "shifts")


def split_targets(names: Sequence[str], profile: ReferenceProfile) -> tuple[I64, I64]:
    """Places of the inputs (features, shares of segments) and of the outputs (prediction, scores) among a plan's targets."""
    roles = {target.name: target.role for target in profile.targets}
    features = [place for place, name in enumerate(names) if roles.get(name) in INPUT_ROLES]
    outputs = [place for place, name in enumerate(names) if name in roles and roles[name] not in INPUT_ROLES]
    return np.array(features, np.int64), np.array(outputs, np.int64)


def _onset(shifts: F64) -> str:
    """Sudden, or gradual: how large the effect was in the first quarter of the excursion, against its last."""
    quarter = max(1, len(shifts) // 4)
    first, last = float(shifts[:quarter].mean()), float(shifts[-quarter:].mean())
    return "sudden" if first * np.sign(last) >= SUDDEN_SHARE * abs(last) else "gradual"


def feeding_version(previous: Mapping[str, int], now: Mapping[str, int]) -> str:
    """The version that had most events in the previous window, else in this one; the first by name among equals."""
    counts = previous if any(previous.values()) else now
    return min(counts, key=lambda version: (-counts[version], version))
