"""From a log of panes and markers to complete edges: the monitor's side of "From collector to monitor".

The log holds, in any interleaving, what several owners of every source partition wrote, the dead ones included. Rules:

1. Epoch. Every record carries its owner's epoch. A higher one in an announcement makes lower ones void, and what their
   owner had sent without a marker is forgotten: the new owner sends it again.
2. Deduplication. Per source partition: at or below the last marked edge everything is dropped; above it the first record
   of a key counts, key = (edge, model, version, segment, plan, reference, block).
3. Completeness. A marker at edge e says that all panes before e are sent. An edge is complete, and is merged, once the
   markers of ALL source partitions have passed it; edges come out in ascending order, partitions in ascending order.

Dropping rule 1 or 2 makes tests/laws/test_merging_laws.py fail. Memory: the panes between the slowest and the fastest partition,
as they came (a sparse one takes .5 kB, decoded 35); alignment.py bounds how many.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from stream import container
from stream.panes import EDGE_MIN, INPUTS, Announcement, Body, Marker, Pane, decode_record, encode_pane
from stream.performance_panes import PerformancePane
from stream.tally import Tally

VERSION = 1


@dataclass(frozen=True, slots=True)
class PaneRecord:
    """One record of the panes topic. `timestamp_ms` is the broker's LogAppendTime; `epoch` is the owner's, from the header.

    `wire`: the value that `body` was decoded from, if it is at hand.
    """

    offset: int
    timestamp_ms: int
    epoch: int
    body: Body
    wire: bytes = b""


class UnknownSourceError(Exception):
    """A record of a source partition or stream that this monitor does not know: the predictions topic has grown."""


class Group(NamedTuple):
    """Panes of one edge that may be added: made with the same plan, of one version and segment."""

    plan: str
    reference: str
    version: str
    segment: str


BlockKey = tuple[int, str, str, str, str, str, int]
REFERENCE = 5  # place in a BlockKey
LOST_PANES = "lost_panes"  # counter beside the marker's own: records of this panes partition that were never read
Wire = tuple[bytes, ...]


@dataclass(slots=True)
class Marked:
    """What one marker said, kept until every partition has passed its edge."""

    edge_ms: int
    plans: dict[str, str]
    counters: dict[str, int]


class Hole(NamedTuple):
    """What is not complete: everything of `partition` in [start_ms, end_ms). `events`, `pane_records`: how many are lost."""

    start_ms: int
    end_ms: int
    partition: int
    events: int
    pane_records: int


@dataclass(slots=True)
class Source:
    """State of one source partition. `panes`: edge -> block -> its wire records, unmarked and marked but not complete.

    gap, resets: of its last marker; lost_panes, told_panes: records of the panes partition lost so far, and as of its last marker.
    """

    epoch: int = 0
    marked_ms: int = EDGE_MIN
    idle: bool = False
    gap: int = 0
    resets: int = 0
    lost_panes: int = 0
    told_panes: int = 0
    panes: dict[int, dict[BlockKey, Wire]] = field(default_factory=dict)
    markers: list[Marked] = field(default_factory=list)


class Merger:
    """Collects records, gives out complete edges. `low_ms`: everything before it is complete, but for `holes`;
    `largest_ms`: the largest event time of any marker.
    """

    def __init__(self, sources: int) -> None:
        self.sources = [Source() for _ in range(sources)]
        self.low_ms = self.largest_ms = EDGE_MIN
        self.holes: list[Hole] = []
        self._given_ms = EDGE_MIN
        self._plans: dict[str, str] = {}  # of the last marker that had others: nearly all say the same
        self._dirty: set[tuple[int, int]] = set()
        self._saved: set[str] = set()  # names of live blobs

    def add(self, record: PaneRecord) -> bool:
        """Take in one record; True when `low_ms` has moved. Raises UnknownSourceError."""
        body = record.body
        if isinstance(body, PerformancePane):
            raise UnknownSourceError(f"a pane of {body.stream!r} among those of the inputs")
        source = self._source(body)
        if record.epoch < source.epoch:
            return False
        if isinstance(body, Announcement):
            if record.epoch > source.epoch:
                source.epoch = record.epoch
                self._forget_unmarked(body.partition)
            return False
        if isinstance(body, Pane):
            key = block_key(body)
            if body.edge_ms >= source.marked_ms and key not in source.panes.get(body.edge_ms, ()):
                wire = (record.wire,) if record.wire else tuple(encode_pane(body))
                source.panes.setdefault(body.edge_ms, {})[key] = wire
                self._dirty.add((body.partition, body.edge_ms))
            return False
        if body.edge_ms <= source.marked_ms:
            return False
        self._note_hole(source, body)
        source.marked_ms, source.idle = body.edge_ms, body.idle
        self.largest_ms = max(self.largest_ms, body.largest_ms)
        counters = body.counters | {LOST_PANES: source.lost_panes} if source.lost_panes else body.counters
        if body.plans != self._plans:
            self._plans = body.plans
        source.markers.append(Marked(body.edge_ms, self._plans, counters))
        low_ms = min(each.marked_ms for each in self.sources)
        moved = low_ms > self.low_ms
        self.low_ms = low_ms
        return moved

    def _note_hole(self, source: Source, marker: Marker) -> None:
        """Which edges lack events that were lost between the marker before and this one.

        None of them can have belonged to an edge that was marked before: it would have been late. The last of them stood
        before a record at largest_ms or earlier that was not late, so it was below largest_ms + lateness; and lateness is
        less than a pane more than largest_ms - edge_ms, if events and no tick have moved the edge.
        """
        events = marker.counters.get("gap", 0) - source.gap
        reset = marker.counters.get("resets", 0) > source.resets
        records = source.lost_panes - source.told_panes
        if events > 0 or reset or records > 0:
            late = events > 0 or reset
            end_ms = max(marker.edge_ms, 2 * marker.largest_ms - marker.edge_ms) if late else marker.edge_ms
            self.holes.append(Hole(source.marked_ms, end_ms, marker.partition, max(events, 0), records))
        source.gap, source.resets = marker.counters.get("gap", 0), marker.counters.get("resets", 0)
        source.told_panes = source.lost_panes

    def lose(self, records: int) -> None:
        """So many records of the log were deleted before they were read: any source partition's, of any unmarked edge."""
        for source in self.sources:
            source.lost_panes += records

    def holes_in(self, start_ms: int, end_ms: int) -> list[Hole]:
        """Holes that touch [start_ms, end_ms), all of which is before `low_ms`, in canonical order."""
        return sorted(hole for hole in self.holes if hole.start_ms < end_ms and start_ms < hole.end_ms)

    def forget_holes(self, before_ms: int) -> None:
        """No window still to close begins before `before_ms`."""
        self.holes = [hole for hole in self.holes if hole.end_ms > before_ms]

    def first_mark(self, from_ms: int) -> int:
        """The smallest edge that is some source partition's first marker at or after `from_ms`, which all have passed."""
        return min(next(marked.edge_ms for marked in s.markers if marked.edge_ms >= from_ms) for s in self.sources)

    def complete(self) -> Iterator[tuple[int, dict[str, dict[Group, Tally]]]]:
        """Every newly complete edge with panes, ascending: edge, model -> group -> tally, models and groups sorted.

        To be exhausted; `plans_at` and `counters_at` answer for an edge until `release`.
        """
        edges = {edge for source in self.sources for edge in source.panes if self._given_ms <= edge < self.low_ms}
        for edge in sorted(edges):
            yield edge, self._merge(edge)
        self._given_ms = self.low_ms

    def plans_at(self, edge_ms: int, model: str) -> set[str]:
        """Plans in force for `model` in the marker of each partition that passed the pane at `edge_ms`."""
        return {
            next((marked.plans.get(model, "") for marked in source.markers if marked.edge_ms > edge_ms), "")
            for source in self.sources
        }

    def counters_at(self, end_ms: int) -> list[dict[str, int]]:
        """Counters of each partition as of the first marker at or after `end_ms`."""
        return [
            next((marked.counters for marked in source.markers if marked.edge_ms >= end_ms), {})
            for source in self.sources
        ]

    def release(self) -> None:
        """Forget what no edge still to come can ask for."""
        for partition, source in enumerate(self.sources):
            for edge in [edge for edge in source.panes if edge < self.low_ms]:
                del source.panes[edge]
                self._dirty.add((partition, edge))
            source.markers = [marked for marked in source.markers if marked.edge_ms >= self.low_ms]

    def references(self) -> set[str]:
        """References of all panes held."""
        return {str(key[REFERENCE]) for source in self.sources for panes in source.panes.values() for key in panes}

    def _source(self, body: Pane | Marker | Announcement) -> Source:
        if not 0 <= body.partition < len(self.sources):
            raise UnknownSourceError(
                f"source partition {body.partition}; this monitor was set up for {len(self.sources)} (0 to "
                f"{len(self.sources) - 1}): the predictions topic has grown"
            )
        if isinstance(body, Marker) and body.stream != INPUTS:
            raise UnknownSourceError(
                f"marker of stream {body.stream!r} from partition {body.partition}; known: {INPUTS!r}"
            )
        return self.sources[body.partition]

    def _forget_unmarked(self, partition: int) -> None:
        source = self.sources[partition]
        for edge in [edge for edge in source.panes if edge >= source.marked_ms]:
            del source.panes[edge]
            self._dirty.add((partition, edge))

    def _merge(self, edge_ms: int) -> dict[str, dict[Group, Tally]]:
        merged: dict[str, dict[Group, Tally]] = {}
        for source in self.sources:
            blocks: dict[tuple[str, Group], list[Pane]] = {}
            for pane in _panes(source.panes.get(edge_ms, {}).values()):
                group = Group(pane.plan, pane.reference, pane.version, pane.segment)
                blocks.setdefault((pane.model, group), []).append(pane)
            for (model, group), parts in blocks.items():
                groups = merged.setdefault(model, {})
                tally = Tally.of(parts)
                if group in groups:
                    groups[group].add(tally)
                else:
                    groups[group] = tally
        return {model: dict(sorted(merged[model].items())) for model in sorted(merged)}

    # ---- snapshot: "merger" and one blob per (source partition, edge) with panes ------------------------------------

    def header(self) -> dict[str, Any]:
        """Everything but the panes, for the caller's own blob."""
        return {
            "low_ms": self.low_ms,
            "largest_ms": self.largest_ms,
            "holes": [list(hole) for hole in sorted(self.holes)],
            "sources": [
                {
                    "epoch": source.epoch,
                    "marked_ms": source.marked_ms,
                    "idle": source.idle,
                    "gap": [source.gap, source.resets],
                    "lost_panes": [source.lost_panes, source.told_panes],
                    "markers": [[m.edge_ms, m.plans, m.counters] for m in source.markers],
                }
                for source in self.sources
            ],
        }

    def changed_blobs(self) -> dict[str, bytes | None]:
        """Panes that changed since the last call, by (source partition, edge); None = none left."""
        blobs: dict[str, bytes | None] = {}
        for partition, edge in sorted(self._dirty):
            name = f"panes/{partition}/{edge}"
            panes = self.sources[partition].panes.get(edge)
            if panes:
                blobs[name] = _encode_panes(panes)
                self._saved.add(name)
            elif name in self._saved:
                blobs[name] = None
                self._saved.remove(name)
        self._dirty.clear()
        return blobs

    def load(self, header: Mapping[str, Any], blobs: Mapping[str, bytes]) -> None:
        """Become what `header` and the blobs "panes/..." describe."""
        if len(header["sources"]) != len(self.sources):
            raise UnknownSourceError(
                f"the snapshot has {len(header['sources'])} source partitions, the predictions topic {len(self.sources)}"
            )
        self.low_ms = self._given_ms = header["low_ms"]
        self.largest_ms, self.holes = header["largest_ms"], [Hole(*saved) for saved in header["holes"]]
        self._dirty.clear()
        for source, saved in zip(self.sources, header["sources"], strict=True):
            source.epoch, source.marked_ms, source.idle = saved["epoch"], saved["marked_ms"], saved["idle"]
            source.gap, source.resets = saved["gap"]
            source.lost_panes, source.told_panes = saved["lost_panes"]
            source.markers = [Marked(*marked) for marked in saved["markers"]]
            source.panes = {}
        self._saved = {name for name in blobs if name.startswith("panes/")}
        for name in sorted(self._saved):
            for wire in _decode_panes(blobs[name]):
                for pane in _panes([(wire,)]):
                    blocks = self.sources[pane.partition].panes.setdefault(pane.edge_ms, {})
                    blocks[block_key(pane)] = (*blocks.get(block_key(pane), ()), wire)


def block_key(pane: Pane) -> BlockKey:
    """Identity of one record of a pane within its source partition."""
    return (pane.edge_ms, pane.model, pane.version, pane.segment, pane.plan, pane.reference, pane.first_target)


def _panes(wires: Iterable[Wire]) -> Iterator[Pane]:
    for wire in wires:
        for record in wire:
            pane = decode_record(record)
            assert isinstance(pane, Pane)
            yield pane


def _encode_panes(panes: Mapping[BlockKey, Wire]) -> bytes:
    """Panes in the order of their keys: equal content gives equal bytes, however the panes arrived."""
    records = [record for key in sorted(panes) for record in panes[key]]
    sections = {f"pane.{index:06d}": np.frombuffer(record, np.uint8) for index, record in enumerate(records)}
    return container.encode("panes", VERSION, {}, sections)


def _decode_panes(data: bytes) -> list[bytes]:
    sections = container.decode(data).expect("panes", (VERSION,)).sections
    return [sections[name].tobytes() for name in sorted(sections)]
