"""Watchers: online detectors of the catalogue, each on one window series of one target. Pure.

They see judged windows only, in order, and what they find pages outside the promise of `false_alarms`. A window in which a
series has no value is not given; a value that a detector refuses is said in the windows record and changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from detectors import load
from detectors.online import Online, restored, started
from detectors.verdict import BadValue
from stream import container
from stream.columns import F64
from stream.tally import Sections
from stream.window_series import QUALITY, Parameters

VERSION = 1
KIND = "online"
WATCHERS_PER_BLOB = 256  # a container holds at most 4096 sections, a state up to 8


@dataclass(frozen=True, slots=True)
class Watcher:
    """One online detector on one series of these targets; empty = all."""

    type: str
    series: str
    targets: tuple[str, ...] = ()
    parameters: Parameters = ()

    @property
    def name(self) -> str:
        """As records and alerts name it."""
        said = ", ".join([self.series, *(f"{name}={value}" for name, value in self.parameters)])
        return f"{self.type}({said})"

    @property
    def quality(self) -> bool:
        """Whether it is about the data's quality, not their law."""
        return self.series in QUALITY

    @property
    def deciding(self) -> list[Any]:
        """What of it decides about alarms, as JSON values."""
        return [self.type, self.series, list(self.targets), list(map(list, self.parameters))]


@dataclass(frozen=True, slots=True)
class Said:
    """What a watcher said of a window: `value` of the series, and the detector's statistic, or why it was refused."""

    watcher: Watcher
    value: float
    statistic: float | None
    fired: bool = False
    refused: str = ""


class Numbers(Protocol):
    """What has a number of each target by the name of a series: the statistics of a window."""

    def series(self, name: str, /) -> F64: ...


class Watchers:
    """All watchers of the targets of one series, with their states."""

    def __init__(self, watchers: Sequence[Watcher], names: Sequence[str]) -> None:
        self._wanted = [
            (watcher, place)
            for watcher in watchers
            for place, name in enumerate(names)
            if not watcher.targets or name in watcher.targets
        ]
        for watcher in watchers:
            load(watcher.type)
        self._states: list[Online] = [started(watcher.type, dict(watcher.parameters)) for watcher, _ in self._wanted]

    def feed(self, statistics: Numbers) -> dict[int, tuple[Said, ...]]:
        """One judged window: place of a target -> what its watchers say of it. About 1 to 50 us a watcher."""
        found: dict[int, tuple[Said, ...]] = {}
        for (watcher, place), online in zip(self._wanted, self._states, strict=True):
            value = float(statistics.series(watcher.series)[place])
            if math.isnan(value):
                continue
            try:
                step = online.update(value)
                said = Said(watcher, value, step.statistic, step.fired)
            except BadValue as error:
                said = Said(watcher, value, None, refused=str(error))
            found[place] = (*found.get(place, ()), said)
        return found

    # ---- snapshot ---------------------------------------------------------------------------------------------------

    def blobs(self, name: str) -> dict[str, bytes]:
        """Their states, so many to a blob that a container can hold them."""
        return {f"{name}/{KIND}/{number}": self._blob(first) for number, first in self._parts()}

    def names(self, name: str) -> set[str]:
        """Names of all their blobs."""
        return {f"{name}/{KIND}/{number}" for number, _ in self._parts()}

    def load(self, saved: container.Container) -> None:
        """Take over the states of one blob. Raises BadState."""
        header = saved.expect(KIND, (VERSION,)).header
        for index, head in enumerate(header["states"], header["first"]):
            watcher, _ = self._wanted[index]
            prefix = f"{index}."
            arrays = {part[len(prefix) :]: each for part, each in saved.sections.items() if part.startswith(prefix)}
            self._states[index] = restored(watcher.type, head, arrays, dict(watcher.parameters))

    def _parts(self) -> Iterator[tuple[int, int]]:
        return enumerate(range(0, len(self._states), WATCHERS_PER_BLOB))

    def _blob(self, first: int) -> bytes:
        heads: list[Mapping[str, Any]] = []
        arrays: Sections = {}
        for index, online in enumerate(self._states[first : first + WATCHERS_PER_BLOB], first):
            head, parts = online.sections()
            heads.append(head)
            arrays |= {f"{index}.{part}": array for part, array in parts.items()}
        return container.encode(KIND, VERSION, {"first": first, "states": heads}, arrays)
