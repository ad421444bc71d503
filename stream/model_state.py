"""State of the monitor of one model, and its snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detectors.reference import ReferenceProfile
from stream import container
from stream.alerts import AlertBook, historical
from stream.columns import I64
from stream.learning import Learner
from stream.limits import VERSIONS_FOLLOWED_MAX
from stream.merging import Group, Hole
from stream.monitor_settings import ModelSettings, MonitorSettings, digest
from stream.performance_watch import PerformanceWatch
from stream.performance_windows import PerformanceWindows
from stream.plan import ALL
from stream.reference_records import decode_reference, encode_reference
from stream.row_watch import RowWatch
from stream.schema_watch import SchemaWatch
from stream.series import Series, SeriesKey, split_targets
from stream.stage import Output
from stream.tally import Sections, Tally
from stream.volume_watch import VolumeWatch
from stream.window_records import State
from stream.windows import Window, WindowList

VERSION = 1
WINDOW_VERSION = 2  # 1: a row of registers for every target
GROUPS_PER_BLOB = 256  # a container holds at most 4096 sections, a tally up to 14
SERIES_NAME_SLASHES = 3  # model/<digest>/series/<digest>; detectors follow after another one


@dataclass(slots=True)
class Previous:
    """The window before: when it began, and how many events each version had."""

    start_ms: int
    events: dict[str, int]


@dataclass(frozen=True, slots=True)
class Context:
    """What all series of one plan share in a window."""

    window: Window
    plan: str
    reference: str
    profile: ReferenceProfile | None
    state: State
    holes: Sequence[Hole]
    rows: Mapping[str, Any] = field(default_factory=dict)  # what series of all features together say (row_watch.py)


class ModelState:
    """Everything that a restored monitor needs to go on with one model."""

    def __init__(self, settings: MonitorSettings, model: str) -> None:
        self.model = model
        self.settings: ModelSettings = settings.model(model)
        self.detection = self.settings.detection_hash()
        self.windows = WindowList()
        self.groups: dict[Group, Tally] = {}  # of the open window
        self.steady: str | None = None  # the plan that all partitions count with; None = a transition
        self.names: tuple[str, ...] = ()
        self.reference = ""
        self.previous: Previous | None = None
        self.series: dict[SeriesKey, Series] = {}
        self.book = AlertBook(self.settings)
        self.schema = SchemaWatch(self.book)
        self.volume = VolumeWatch(self.settings)
        self.rows = RowWatch(self.book)
        self.performance = PerformanceWindows(model, self.settings.performance, PerformanceWatch(self.settings))
        self.learner: Learner | None = None
        self.learnt: ReferenceProfile | None = None  # with cut points only, or complete: this model's own
        self.revision = 0  # of the control record of the reference
        self.log_ms = 0  # LogAppendTime of the marker that is being applied
        self.changed = True
        self.changed_series: set[SeriesKey] = set()
        self.resumable: dict[str, bytes] | None = None  # series of a loaded state, until their references are there
        self._saved: set[str] = set()  # names of all live blobs
        self._split: tuple[Any, Any] = (None, None)

    def knows(self, reference: str) -> bool:
        """Whether this reference was learnt here, so that nobody else need have it."""
        return self.learnt is not None and self.learnt.id == reference

    def split(self, names: tuple[str, ...], profile: ReferenceProfile) -> tuple[I64, I64]:
        """`split_targets`; those of the last window are kept."""
        if self._split[0] != (profile.id, names):
            self._split = (profile.id, names), split_targets(names, profile)
        found: tuple[I64, I64] = self._split[1]
        return found

    @property
    def unjudged_ms(self) -> int | None:
        """Start of the first window, or stretch of silence, of which it will still be asked what it lacks; None = there is none."""
        return self.volume.silent_ms if self.windows.start_ms is None else self.windows.start_ms

    def follows(self, key: SeriesKey) -> bool:
        """Whether this series may be judged: of output series a model has those of so many versions, the first that came.

        The windows of the others are recorded. A version that is silent for 30 days makes room.
        """
        if not key.outputs or key in self.series:
            return True
        versions = {known.version for known in self.series if known.outputs}
        return key.version in versions or len(versions) < VERSIONS_FOLLOWED_MAX

    def state_of(self, window: Window, profile: ReferenceProfile | None, holes: Sequence[Hole]) -> State:
        """What becomes of a window that lacks `holes`."""
        if self.steady is None:
            return State.TRANSITION
        if holes:
            return State.INCOMPLETE
        if profile is None:
            return State.LEARNING if self.settings.learn_first else State.RECORDED
        if not profile.complete:
            return State.LEARNING
        return State.JUDGED if window.sufficient else State.INSUFFICIENT_DATA

    def pages(self, key: SeriesKey) -> bool:
        """Whether this is a cell: `all`, and the inputs of the segments that were asked for."""
        return key.segment == ALL or (not key.outputs and key.segment in self.settings.segments)

    def see_rows(
        self, context: Context, versions: Sequence[str], whole: Tally
    ) -> tuple[Mapping[str, Any], Sequence[Output]]:
        """Of the inputs of a judged window: what its record says of all features together, and alerts."""
        window, profile = context.window, context.profile
        if profile is None or context.state is not State.JUDGED:
            return {}, ()
        late = self._late(window.end_ms)
        ended = self.rows.unasked(window, whole, profile, historical=late)
        if not self.rows.asked:
            return {}, ended
        said, alerts = self.rows.observe(window, whole, profile, versions, historical=late)
        return said, [*ended, *alerts]

    def _late(self, end_ms: int) -> bool:
        """Whether a window that ended then was history when the marker that closed it was written."""
        return historical(end_ms, self.log_ms)

    @property
    def _name(self) -> str:
        return f"model/{digest(self.model)}"

    def required(self) -> set[str]:
        """References without which nothing can go on."""
        names = {self.reference} | {group.reference for group in self.groups}
        return {name for name in names if name and not self.knows(name)}

    def changed_blobs(self) -> dict[str, bytes | None]:
        """Blobs that changed since the last call; None = gone."""
        if self.resumable is not None or not (self.changed or self.changed_series or self.performance.changed):
            return {}
        blobs: dict[str, bytes | None] = {
            self._name: container.encode("model", VERSION, self._header(), self.schema.sections())
        }
        blobs |= self._open_blobs() | self.rows.blobs(f"{self._name}/rows")
        blobs |= self.volume.blobs(f"{self._name}/volume")
        blobs |= self.performance.blobs(f"{self._name}/performance")
        live = set(blobs) | self.performance.names(f"{self._name}/performance")
        for key, series in sorted(self.series.items()):
            name = f"{self._name}/series/{digest(*key)}"
            live |= series.names(name)
            if key in self.changed_series:
                blobs |= series.blobs(name)
        if self.learner is not None:
            live |= self.learner.names(f"{self._name}/learner")
            blobs |= self.learner.blobs(f"{self._name}/learner")
        if self.learnt is not None:
            name = f"{self._name}/learnt/{'complete' if self.learnt.complete else 'cuts'}"
            live.add(name)
            if name not in self._saved:
                blobs[name] = encode_reference(self.learnt)
        blobs |= dict.fromkeys(sorted(self._saved - live))
        self._saved, self.changed = live, False
        self.changed_series.clear()
        return blobs

    def _header(self) -> dict[str, Any]:
        previous, windows = self.previous, self.windows
        return {
            "model": self.model,
            "detection": self.detection,
            "steady": self.steady,
            "names": list(self.names),
            "reference": self.reference,
            "previous": None if previous is None else [previous.start_ms, previous.events],
            "windows": [windows.start_ms, windows.last_ms, windows.events, windows.closed_ms],
            "revision": self.revision,
            "incidents": self.book.to_header(),
            "schema": self.schema.header(),
            "volume": self.volume.header(),
        }

    def _open_blobs(self) -> dict[str, bytes | None]:
        """Tallies of the open window, so many to a blob that a container can hold them."""
        blobs: dict[str, bytes | None] = {}
        groups = list(self.groups.items())
        for first in range(0, len(groups), GROUPS_PER_BLOB):
            heads: list[Any] = []
            sections: Sections = {}
            for index, (group, tally) in enumerate(groups[first : first + GROUPS_PER_BLOB]):
                head, parts = tally.to_sections(f"{index}.")
                heads.append([list(group), head])
                sections |= parts
            data = container.encode("window", WINDOW_VERSION, {"groups": heads}, sections)
            blobs[f"{self._name}/open/{first // GROUPS_PER_BLOB:04d}"] = data
        return blobs

    def load(self, blobs: Mapping[str, bytes]) -> None:
        """Become what these blobs (all live ones of the stage) say; series follow in `resume`, once references are there."""
        own = {name: blobs[name] for name in sorted(blobs) if name == self._name or name.startswith(f"{self._name}/")}
        saved = container.decode(own[self._name]).expect("model", (VERSION,))
        header = saved.header
        self.steady, self.names, self.reference = header["steady"], tuple(header["names"]), header["reference"]
        self.previous = None if header["previous"] is None else Previous(*header["previous"])
        self.windows = WindowList(*header["windows"])
        self.revision = header["revision"]
        self.book.load(header["incidents"])
        same = header["detection"] == self.detection
        if "schema" in header:  # the first version had none
            self.schema.load(header["schema"], saved.sections)
            prefix = f"{self._name}/volume/"
            states = [data for name, data in own.items() if same and name.startswith(prefix)]
            self.volume.load(header["volume"], states)
        self.groups = {}
        for name in (name for name in own if name.startswith(f"{self._name}/open/")):
            saved = container.decode(own[name]).expect("window", (1, WINDOW_VERSION))
            for index, (group, head) in enumerate(saved.header["groups"]):
                self.groups[Group(*group)] = Tally.from_sections(head, saved.sections, f"{index}.")
        learnt = [data for name, data in own.items() if name.startswith(f"{self._name}/learnt/")]
        self.learnt = decode_reference(learnt[0]) if learnt else None
        if f"{self._name}/learner" in own:
            self.learner = Learner.load(self.settings, f"{self._name}/learner", own, self.learnt)
        windows = self.windows
        known_ms = windows.closed_ms if windows.start_ms is None else windows.start_ms
        self.performance.load(f"{self._name}/performance", own, known_ms, same=same)
        self._saved = set(own)
        if same:
            self.rows.load(f"{self._name}/rows", own)
        self.changed = not same
        prefix = f"{self._name}/series/"
        self.resumable = {name: data for name, data in own.items() if same and name.startswith(prefix)}
