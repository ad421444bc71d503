"""`reference: {first: N}`: a reference learnt from the stream itself, at complete edges only.

    sampling   panes carry whole rows, no bins: the rows with the smallest id hashes. From .15 N events on (and at least
               5,000) they choose the cut points -> a reference without windows, state "learning"; collectors switch to it
    counting   from the first edge where all partitions bin with those cuts: every closed window is kept, until there are
               N events AND 400 windows -> the same reference, complete, state "pinned"
    pinned     the learner is gone; detection starts with the next window

Events of the first stretch do not count towards N: the cuts must not come from the rows that the windows are made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from detectors.reference import ReferenceProfile, WindowRule
from detectors.reference_build import Cells, WindowCounts, choose_binnings, profile_from_windows
from stream import container
from stream.monitor_settings import ModelSettings
from stream.tally import Sections, Tally
from stream.windows import Window

VERSION = 1
LEARNER_VERSION = 2  # 1: a row of registers for every target
WINDOW_VERSION = 2  # 1: without what is out of range
CUTS_SHARE = 0.15  # of N chooses the cuts (default-detector.md, 1)
CUTS_EVENTS_MIN = 5_000  # the outermost cuts, at .0002, need as many rows
WINDOWS_MIN = 400  # ranks of windows are the yardstick: 1 in 400 is the rarest that a window can be
SAMPLING, COUNTING = "sampling", "counting"


@dataclass(slots=True)
class Learner:
    """What has been learnt of one model so far. `profile` is the one with cut points only, from COUNTING on."""

    settings: ModelSettings
    events: int = 0
    rows: Tally | None = None
    profile: ReferenceProfile | None = None
    windows: list[WindowCounts] = field(default_factory=list)
    _saved: int = 0  # windows that are in blobs already

    @property
    def phase(self) -> str:
        return SAMPLING if self.profile is None else COUNTING

    @property
    def target_events(self) -> int:
        """N; for a reference that another configuration began to learn, only the windows count."""
        return self.settings.learn_first or 0

    def sample(self, tally: Tally) -> ReferenceProfile | None:
        """Rows and events of one complete edge; the reference with the cut points once there are enough."""
        if self.profile is not None or tally.sample is None:
            return None
        self.events += tally.events
        if self.rows is None:
            self.rows = tally.copy()
        else:
            self.rows.add(tally, sample_rows=self.sample_rows)
        if self.events < self.sample_rows:
            return None
        assert self.rows.sample is not None
        sample = self.rows.sample
        columns = {
            name: Cells(np.ascontiguousarray(sample.cell[:, place]), np.ascontiguousarray(sample.tag[:, place]))
            for place, name in enumerate(self.rows.names)
        }
        self.profile = choose_binnings(
            self.settings.model,
            columns,
            {name: self.settings.role_of(name).value for name in self.rows.names},
            kinds={name: kind for name, kind in self.settings.kinds.items() if name in columns},
            texts=sample.texts,
            origin={"first": self.settings.learn_first},
        )
        self.rows, self.events = None, 0
        return self.profile

    @property
    def progress(self) -> dict[str, int | str]:
        """How far it has come, for people: what was counted in this phase, and what ends it (windows only when counting)."""
        sampling = self.profile is None
        return {
            "phase": self.phase,
            "events": self.events,
            "events_needed": self.progress_needed,
            "windows": len(self.windows),
            "windows_needed": 0 if sampling else WINDOWS_MIN,
        }

    @property
    def share(self) -> float:
        """0 to 1: how much of this phase is done."""
        done = min(self.events / max(self.progress_needed, 1), 1.0)
        return done if self.profile is None else min(done, len(self.windows) / WINDOWS_MIN)

    def said(self) -> str:
        """The same in a sentence for the log."""
        events = f"{self.events:,} of {self.progress_needed:,} events"
        if self.profile is None:
            return f"learning its reference: {events} for the cut points"
        return f"learning its reference: {events}, {len(self.windows):,} windows of at least {WINDOWS_MIN:,}"

    @property
    def progress_needed(self) -> int:
        """Events that this phase takes."""
        return self.sample_rows if self.profile is None else self.target_events

    @property
    def sample_rows(self) -> int:
        return max(CUTS_EVENTS_MIN, int(CUTS_SHARE * self.target_events))

    def count(self, window: Window, tally: Tally, rule: WindowRule) -> ReferenceProfile | None:
        """One closed window, cut by `rule` and counted with the learnt cuts; the complete reference once there is enough."""
        if self.profile is None or not window.sufficient or not tally.events:
            return None
        places = {name: place for place, name in enumerate(tally.names)}
        order = np.array([places[target.name] for target in self.profile.targets if target.name in places], np.int64)
        chosen = tally.select(order)
        counts = tuple(chosen.counts_of(place) for place in range(len(order)))
        self.windows.append(
            WindowCounts(
                window.start_ms,
                tally.events,
                counts,
                chosen.sums,
                chosen.extremes,
                chosen.out_of_range.astype(np.int64),
            )
        )
        self.events += tally.events
        if self.events < self.target_events or len(self.windows) < WINDOWS_MIN:
            return None
        return profile_from_windows(self.profile, self.windows, window=rule)

    # ---- snapshot ---------------------------------------------------------------------------------------------------

    def blobs(self, name: str) -> dict[str, bytes]:
        """`name` with everything but the windows, and one blob for each window that is new since the last call.

        The profile is not in them: it is a reference of its own, and the caller keeps it.
        """
        header: dict[str, Any] = {"events": self.events, "windows": len(self.windows), "rows": None}
        sections: Sections = {}
        if self.rows is not None:
            header["rows"], sections = self.rows.to_sections("rows.")
        blobs = {name: container.encode("learner", LEARNER_VERSION, header, sections)}
        for index in range(self._saved, len(self.windows)):
            blobs[f"{name}/{index:06d}"] = _encode_window(self.windows[index])
        self._saved = len(self.windows)
        return blobs

    def names(self, name: str) -> set[str]:
        """Names of all its blobs."""
        return {name} | {f"{name}/{index:06d}" for index in range(len(self.windows))}

    @classmethod
    def load(
        cls, settings: ModelSettings, name: str, blobs: Mapping[str, bytes], profile: ReferenceProfile | None
    ) -> Learner:
        """Inverse of `blobs`, from all live blobs."""
        saved = container.decode(blobs[name]).expect("learner", (1, LEARNER_VERSION))
        learner = cls(settings, saved.header["events"], profile=profile)
        if saved.header["rows"] is not None:
            learner.rows = Tally.from_sections(saved.header["rows"], saved.sections, "rows.")
        for index in range(saved.header["windows"]):
            learner.windows.append(_decode_window(blobs[f"{name}/{index:06d}"]))
        learner._saved = len(learner.windows)
        return learner


def _encode_window(window: WindowCounts) -> bytes:
    length = np.array([len(part) for part in window.counts], np.int64)
    flat = np.concatenate(window.counts) if window.counts else np.zeros(0, np.int64)
    header = {"start_ms": window.start_ms, "events": window.events}
    sections: Sections = {"length": length, "counts": flat, "sums": window.sums, "extremes": window.extremes}
    if window.out_of_range is None:  # as it was read
        return container.encode("learnt-window", VERSION, header, sections)
    sections["out_of_range"] = window.out_of_range
    return container.encode("learnt-window", WINDOW_VERSION, header, sections)


def _decode_window(data: bytes) -> WindowCounts:
    versions = (VERSION, WINDOW_VERSION)
    parts = ("length", "counts", "sums", "extremes")
    saved = container.decode(data).expect("learnt-window", versions, parts, ("out_of_range",))
    sections = saved.sections
    ends = np.cumsum(sections["length"])
    counts = tuple(np.split(sections["counts"], ends[:-1])) if len(ends) else ()
    return WindowCounts(
        saved.header["start_ms"],
        saved.header["events"],
        counts,
        sections["sums"],
        sections["extremes"],
        sections.get("out_of_range"),
    )
