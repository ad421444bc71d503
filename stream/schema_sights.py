"""What the events' features show beside the reference's: names that are new, lost, or of another type. Pure.

    Stretch   judged windows in a row, added up until they have EVENTS_MIN events: fewer say little of shares
    sights    what a stretch shows, and of what it says nothing

Memory of a stretch: 24 bytes a target, and its sample (schema_sample.py). Cost: one sum over the targets a window.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import mul
from typing import Any

import numpy as np

from detectors.binning import Kind as BinKind
from detectors.reference import ReferenceProfile, TargetReference
from detectors.sequential.strata import hour_counts
from stream.columns import I64
from stream.plan import OTHER, Role
from stream.schema_sample import Counts, JsonType, SchemaSample
from stream.sparse import smallest
from stream.tally import Sections, Tally
from stream.windows import Window

NEW_SHARE, CROWD_SHARE = 0.01, 0.05
LOST_SHARE, LOST_REFERENCE_MAX = 0.99, 0.8
RETYPED_SHARE, RETYPED_REFERENCE_MAX = 0.5, 0.25
EVENTS_MIN = 50
SECTION = "schema.apart"
UNSEEN, MISSING, INVALID = range(3)  # columns of Stretch.apart, in the order of a target's last counts
FROM_THE_END = np.array([3, 2, 1])  # where they are


class Change(StrEnum):
    NEW = "new"
    LOST = "lost"
    RETYPED = "retyped"


Key = tuple[Change, str]


@dataclass(slots=True)
class Sight:
    """What one stretch shows. `share` of the events, of a retyped one of its values; was: the same of the reference."""

    share: float
    was: float = 0.0
    types: Counts = field(default_factory=list)


@dataclass(slots=True)
class Stretch:
    """Windows that are added up, all of one reference and of the same t targets.

    windows: (start_ms, events) of each, for hours have references of their own; events: of them all; model_events: as the
    model's windows count them; end_ms: of the last; versions: that fed any of them; apart I64[t, 3]: how many values of a target
    were in its last bin (of a category: unseen), missing and invalid.
    """

    apart: I64
    windows: list[tuple[int, int]] = field(default_factory=list)
    events: int = 0
    model_events: int = 0
    end_ms: int = 0
    versions: tuple[str, ...] = ()
    sample: SchemaSample = field(default_factory=SchemaSample)

    @classmethod
    def of(cls, window: Window, whole: Tally, versions: Iterable[str]) -> Stretch:
        """The first window alone, as most stretches are."""
        stretch = cls(_apart(whole))
        stretch._append(window, whole, versions)
        return stretch

    def add(self, window: Window, whole: Tally, versions: Iterable[str]) -> None:
        """A later window, with everything that was counted of it."""
        self.apart += _apart(whole)
        self._append(window, whole, versions)

    def _append(self, window: Window, whole: Tally, versions: Iterable[str]) -> None:
        self.windows.append((window.start_ms, whole.events))
        self.events += whole.events
        self.model_events += window.events
        self.end_ms = window.end_ms
        self.versions = tuple(sorted({*self.versions, *versions}))
        if whole.schema is not None:
            self.sample.add(whole.schema)

    @property
    def window(self) -> Window:
        """As one."""
        return Window(self.windows[0][0], self.end_ms, self.model_events, sufficient=True)

    def header(self) -> list[Any]:
        """For a container, with `sections`."""
        return [self.windows, self.model_events, self.end_ms, self.versions, self.sample.header()]

    def sections(self) -> Sections:
        return {SECTION: smallest(self.apart)}

    @classmethod
    def from_sections(cls, header: Sequence[Any], sections: Mapping[str, Any]) -> Stretch:
        """Inverse of `header` and `sections`."""
        windows, model_events, end_ms, versions, sample = header
        windows = [(start_ms, events) for start_ms, events in windows]
        events = sum(events for _, events in windows)
        apart = sections[SECTION].astype(np.int64)
        return cls(apart, windows, events, model_events, end_ms, tuple(versions), SchemaSample.of(sample))


def _apart(whole: Tally) -> I64:
    """As Stretch.apart, of one window."""
    found: I64 = whole.counts[whole.start[1:, None] - FROM_THE_END]
    return found


@dataclass(frozen=True, slots=True)
class Known:
    """What is no news. entries: changes that are followed; learnt: names that the events had while their reference was learnt;
    crowd: the most names an event that were beyond those kept in a window of learning.
    """

    entries: frozenset[Key]
    learnt: frozenset[str]
    crowd: float


def sights(
    stretch: Stretch, names: Sequence[str], profile: ReferenceProfile, known: Known
) -> tuple[dict[Key, Sight], set[Key]]:
    """(what is seen, of what this stretch says nothing). names: of its targets."""
    found: dict[Key, Sight] = {}
    sample = stretch.sample
    unknown = {key for key in known.entries if key[0] is not Change.LOST and not sample.looked}
    lost = np.flatnonzero(stretch.apart[:, MISSING] / stretch.events >= LOST_SHARE)
    places = sorted({*lost.tolist(), *(place for place in sample.odd if place < len(names))})
    targets = {target.name: target for target in profile.targets} if places else {}
    for place, name in ((place, names[place]) for place in places):  # of all others there is nothing to say
        target = targets.get(name)
        if target is not None and target.role == Role.FEATURE and name != OTHER:
            seen_of, unknown_of = _of_feature(target, stretch, place)
            found |= seen_of
            unknown |= unknown_of
    unexplained = sample.crowd - known.crowd * sample.looked
    for name, counts in sample.names.items():
        seen = sum(counts)
        if name in known.learnt or name == OTHER:
            continue
        if seen >= NEW_SHARE * sample.looked:
            found[Change.NEW, name] = Sight(seen / sample.looked, types=counts)
        if (Change.NEW, name) not in known.entries:
            unexplained += seen
    if unexplained > 0 and unexplained >= CROWD_SHARE * sample.looked:
        found[Change.NEW, OTHER] = Sight(unexplained / sample.looked)
    return found, unknown


def _of_feature(target: TargetReference, stretch: Stretch, place: int) -> tuple[dict[Key, Sight], set[Key]]:
    """(whether a watched feature is lost or retyped, what missing values hide). Counts are exact, types are of the sample."""
    missing = float(stretch.apart[place, MISSING]) / stretch.events
    was = _was(target, stretch.windows)
    lost, retyped = (Change.LOST, target.name), (Change.RETYPED, target.name)
    if missing >= LOST_SHARE:
        known = was[MISSING] <= LOST_REFERENCE_MAX
        return ({lost: Sight(missing, was[MISSING])}, {retyped}) if known else ({}, {lost, retyped})
    seen = _retyped(target, stretch, place, was) if place in stretch.sample.odd else None
    return ({} if seen is None else {retyped: seen}), set()


def _was(target: TargetReference, windows: Sequence[tuple[int, int]]) -> list[float]:
    """Shares of the reference's rows that were unseen, missing, invalid: of the windows' hours where the target has hours."""
    shares, events = [], [events for _, events in windows]
    for start_ms, _ in windows:
        of_hour = None if target.strata is None else hour_counts(target.strata, start_ms)
        counts = target.histogram if of_hour is None else of_hour.astype(np.int64)
        shares.append((counts[-3:] / max(1, int(counts.sum()))).tolist())
    if all(each == shares[0] for each in shares):
        return list(shares[0])
    return [math.fsum(map(mul, column, events)) / sum(events) for column in zip(*shares, strict=True)]


def _retyped(target: TargetReference, stretch: Stretch, place: int, was: Sequence[float]) -> Sight | None:
    apart, odd = stretch.apart[place].tolist(), stretch.sample.odd[place]
    values, was_values = stretch.events - apart[MISSING], 1.0 - was[MISSING]
    wrong, was_wrong = apart[INVALID], was[INVALID]
    if target.binning.kind is BinKind.CATEGORICAL:
        wrong, was_wrong = wrong + apart[UNSEEN], was_wrong + was[UNSEEN]
        if 2 * sum(odd) < RETYPED_SHARE * stretch.sample.looked * values / stretch.events:
            return None  # they are of its type, but unseen
    if wrong < RETYPED_SHARE * values or was_wrong > RETYPED_REFERENCE_MAX * was_values:
        return None
    if max(JsonType, key=lambda kind: (odd[kind], -kind)) is JsonType.NOT_FINITE:
        return None
    return Sight(wrong / values, was_wrong / was_values if was_values > 0 else 0.0, odd)
