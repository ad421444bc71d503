"""The one window list of a model: where windows start and end. It depends on event counts per pane edge alone.

A window starts at the first non-empty edge after the last one ended. It ends at the first edge by which `every_ms` has
passed and `min_events` are in it, or after `longest_ms` as insufficient data, or where it is cut. Edges come in
ascending order, each once all partitions have sent it: so batching and arrival cannot move a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from detectors.reference import WindowInfo, WindowRule


class WindowOrderError(Exception):
    """A pane arrived for a window that is closed: an invariant of the markers is broken, nothing may go on."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """A window rule in whole panes: all in ms, `min_events` of the model's `all` counts; longest_ms None = no limit."""

    every_ms: int
    min_events: int
    longest_ms: int | None

    @classmethod
    def of(cls, rule: WindowRule | WindowInfo, resolution_ms: int) -> Lengths:
        """Lengths rounded up to whole panes, the longest not below `every_ms`."""
        every_ms = max(1, -(-rule.every_ms // resolution_ms)) * resolution_ms
        longest_ms = -(-rule.max_duration_ms // resolution_ms) * resolution_ms
        return cls(every_ms, max(1, rule.min_events), max(every_ms, longest_ms) if longest_ms else None)


@dataclass(frozen=True, slots=True)
class Window:
    """One closed window [start_ms, end_ms). `sufficient`: it has min_events and was not cut."""

    start_ms: int
    end_ms: int
    events: int
    sufficient: bool


@dataclass(slots=True)
class WindowList:
    """State: the open window, if any. start_ms None = none is open."""

    start_ms: int | None = None
    last_ms: int = 0  # end of the last edge that was added to the open window
    events: int = 0
    closed_ms: int = -(1 << 62)  # end of the last closed window

    def due(self, until_ms: int, lengths: Lengths) -> Iterator[Window]:
        """Close what ends at or before `until_ms`: at most one window, for a next one starts with its first events."""
        if self.start_ms is None:
            return
        enough = self.events >= lengths.min_events
        if enough:
            end_ms = max(self.start_ms + lengths.every_ms, self.last_ms)
        elif lengths.longest_ms is not None:
            end_ms = self.start_ms + lengths.longest_ms
        else:
            return
        if end_ms <= until_ms:
            yield self._close(end_ms, sufficient=enough)

    def add(self, edge_ms: int, resolution_ms: int, events: int) -> None:
        """Count one complete edge with events. Raises WindowOrderError if its window is closed."""
        if edge_ms < self.closed_ms or (self.start_ms is not None and edge_ms < self.last_ms):
            raise WindowOrderError(
                f"pane at {edge_ms} after a window that ended at {max(self.closed_ms, self.last_ms)}"
            )
        if self.start_ms is None:
            self.start_ms = edge_ms
        self.last_ms = edge_ms + resolution_ms
        self.events += events

    def cut(self, edge_ms: int) -> Iterator[Window]:
        """End the open window at `edge_ms`, unjudged: what follows was counted differently."""
        if self.start_ms is not None:
            yield self._close(edge_ms, sufficient=False)

    def _close(self, end_ms: int, *, sufficient: bool) -> Window:
        assert self.start_ms is not None
        window = Window(self.start_ms, end_ms, self.events, sufficient)
        self.start_ms, self.events, self.closed_ms = None, 0, end_ms
        return window
