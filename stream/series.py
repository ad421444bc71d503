"""Series: what feeds the detectors of one (model, reference or version, segment), and what they remember of it.

Input series belong to a reference, output series (prediction, scores) to a version. A window that is too small to be
judged is carried into the next; the time since the last judged one goes into its weight, carried windows and gaps included.

    w_t = time since the previous window began x the series' share of the model's events in that window

so that all series of a cell together spend one budget. Excursions: while a detector sees one (`Verdict.since_ms`), the
counts since its start are kept, so that an alert can say how much has changed on how many events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from detectors.reference import ReferenceProfile
from detectors.sequential import default
from detectors.verdict import Verdict
from stream import container
from stream.columns import F64, I64
from stream.plan import Role
from stream.tally import Sections, Tally
from stream.window_statistics import Lens, Statistics
from stream.windows import Window

VERSION = 1
NEVER = -(1 << 62)  # `since` of a target without an excursion
MEMORY = 8  # windows at either end of an excursion whose effect is kept, to tell sudden from gradual
SKEW_WINDOWS = 3  # an excursion that began in the first three judged windows was there from the start
TARGETS_PER_BLOB = 64  # a container holds at most 4096 sections
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
    """One window as a series saw it. `verdicts` None: not judged; `statistics` None: there is no reference yet."""

    tally: Tally
    statistics: Statistics | None
    verdicts: tuple[Verdict, ...] | None


class Series:
    """One series that may page. `prepared`: one for each of its targets, in their order."""

    def __init__(
        self,
        key: SeriesKey,
        profile: ReferenceProfile,
        lens: Lens,
        promise: Promise,
        prepared: Sequence[default.Prepared],
    ) -> None:
        self.key = key
        self.profile = profile
        self.lens = lens
        self.promise = promise
        self.prepared = list(prepared)
        self.states = [default.start(each) for each in self.prepared]
        self.carried: Tally | None = None
        self.carried_weight_ms = 0.0
        self.carried_start_ms = 0
        self.first_starts: list[int] = []  # of the first SKEW_WINDOWS judged windows
        self.last_ms = NEVER
        count = len(lens.names)
        self.since: I64 = np.full(count, NEVER)
        self.since_events: I64 = np.zeros(count, np.int64)
        self.since_windows: I64 = np.zeros(count, np.int64)
        self.early: F64 = np.zeros((count, MEMORY))
        self.late: F64 = np.zeros((count, MEMORY))
        self.pool: Tally | None = None

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
        verdicts = tuple(
            default.update(prepared, state, whole.counts_of(index), weight_ms, start_ms)
            for index, (prepared, state) in enumerate(zip(self.prepared, self.states, strict=True))
        )
        self._follow(whole, verdicts, start_ms)
        return Judgement(tally, statistics, verdicts)

    def effect(self, target: int) -> tuple[default.Effect, Statistics, int]:
        """Effect and statistics of everything since the target's excursion began, and its number of events."""
        assert self.pool is not None
        counts = self.pool.counts_of(target)
        events = int(self.since_events[target])
        alone = self.pool.select(np.array([target]))
        alone.events = events
        return (
            default.describe(self.prepared[target], counts),
            Lens([self.lens.names[target]], self.profile).statistics(alone),
            events,
        )

    def onset(self, target: int) -> str:
        """Either "sudden" or "gradual": how large the effect was in the first quarter of the excursion, against its last."""
        windows = int(self.since_windows[target])
        quarter = min(MEMORY, max(1, windows // 4))
        first = float(self.early[target, :quarter].mean())
        last = float(self.late[target, -quarter:].mean())
        return "sudden" if first * np.sign(last) >= SUDDEN_SHARE * abs(last) else "gradual"

    def from_the_start(self, target: int) -> bool:
        """Whether the excursion began in the very first windows that were judged against this reference."""
        return bool(self.since[target] <= self.first_starts[-1])

    def _follow(self, whole: Tally, verdicts: Sequence[Verdict], start_ms: int) -> None:
        if len(self.first_starts) < SKEW_WINDOWS:
            self.first_starts.append(start_ms)
        began = np.array([NEVER if each.since_ms is None else each.since_ms for each in verdicts])
        anew = (began != self.since) | (began == NEVER)  # without an excursion: this window alone
        if self.pool is None:
            self.pool = whole.empty()
        self.pool.reset(anew)
        self.pool.add(whole)
        self.since = began
        self.since_events = np.where(anew, 0, self.since_events) + whole.events
        self.since_windows = np.where(anew, 0, self.since_windows) + 1
        shift = np.array([each.shift for each in verdicts])
        place = np.minimum(self.since_windows - 1, MEMORY - 1)
        rows = np.flatnonzero(self.since_windows <= MEMORY)
        self.early[rows, place[rows]] = shift[rows]
        self.late = np.concatenate((self.late[:, 1:], shift[:, None]), axis=1)

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
        }
        sections: Sections = {part: getattr(self, part) for part in _PARTS}
        for part, tally in (("carried", self.carried), ("pool", self.pool)):
            header[part] = None
            if tally is not None:
                header[part], parts = tally.to_sections(f"{part}.")
                sections |= parts
        blobs = {name: container.encode("series", VERSION, header, sections)}
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
        return blobs

    def names(self, name: str) -> set[str]:
        """Names of all its blobs."""
        return {name} | {
            f"{name}/{first // TARGETS_PER_BLOB}" for first in range(0, len(self.states), TARGETS_PER_BLOB)
        }

    @staticmethod
    def key_of(data: bytes) -> tuple[SeriesKey, tuple[str, ...]]:
        """Key and targets of a saved series: what has to be known before it can be built and loaded."""
        header = container.decode(data).expect("series", (VERSION,)).header
        return SeriesKey(*header["key"]), tuple(header["names"])

    def load(self, data: bytes, detectors: Sequence[bytes]) -> None:
        """Become what `blobs` saved, of a series with this key and these targets; `detectors` in any order."""
        saved = container.decode(data).expect("series", (VERSION,))
        header, sections = saved.header, saved.sections
        for part in _PARTS:
            setattr(self, part, sections[part].copy())
        self.carried_weight_ms = header["carried_weight_ms"]
        self.carried_start_ms = header["carried_start_ms"]
        self.first_starts = header["first_starts"]
        self.last_ms = header["last_ms"]
        if header["carried"] is not None:
            self.carried = Tally.from_sections(header["carried"], sections, "carried.")
        if header["pool"] is not None:
            self.pool = Tally.from_sections(header["pool"], sections, "pool.")
        for blob in detectors:
            states = container.decode(blob).expect("detectors", (VERSION,))
            for index, head in enumerate(states.header["states"], states.header["first"]):
                prefix = f"{index:05d}."
                arrays = {
                    name[len(prefix) :]: each for name, each in states.sections.items() if name.startswith(prefix)
                }
                self.states[index] = default.state_from_sections(self.prepared[index], head, arrays)


_PARTS = ("since", "since_events", "since_windows", "early", "late")


def split_targets(names: Sequence[str], profile: ReferenceProfile) -> tuple[I64, I64]:
    """Places of the features and of the outputs (prediction, scores) among a plan's targets."""
    roles = {target.name: target.role for target in profile.targets}
    features = [place for place, name in enumerate(names) if roles.get(name) == Role.FEATURE]
    outputs = [place for place, name in enumerate(names) if name in roles and roles[name] != Role.FEATURE]
    return np.array(features, np.int64), np.array(outputs, np.int64)


def feeding_version(previous: Mapping[str, int], now: Mapping[str, int]) -> str:
    """The version that had most events in the previous window, else in this one; the first by name among equals."""
    counts = previous if any(previous.values()) else now
    return min(counts, key=lambda version: (-counts[version], version))
