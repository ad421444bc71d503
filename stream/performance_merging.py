"""From a log of panes of performance and their markers to complete edges, one stream and horizon beside the other.

The rules are merging.py's (epoch, deduplication, completeness), of every series for itself: a series is a stream of feedback at
one horizon, and its edge is complete once the markers of ALL source partitions for it have passed. Sums are exact, so what an
edge adds up to does not depend on how its panes arrived. Panes of series that nobody asked for are passed over.

Memory: the panes between the slowest and the fastest partition of a series, as they came (about 1 kB each), and 16 MB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from detectors.performance import PerformanceSums
from detectors.performance.paired import PairedSums
from stream import container
from stream.merging import PaneRecord, UnknownSourceError
from stream.panes import EDGE_END, EDGE_MIN, Announcement, Marker, decode_record
from stream.performance_panes import PerformancePane, encode_performance_pane, series_of

KIND = "performance-panes"
VERSION = 1
DECODED_BYTES_MAX = 1 << 24  # of panes that were read a moment ago: most become complete soon
BLOB_EDGES = 64  # of one series and source partition: a day of minutes is 23 blobs


class Horizon(NamedTuple):
    """One series: a stream of feedback at one of its horizons."""

    stream: str
    horizon_ms: int


class PerformanceGroup(NamedTuple):
    """Panes of one edge and series that may be added. `kept`: what their sums are of."""

    version: str
    segment: str
    kept: str


@dataclass(slots=True)
class Counted:
    """What the panes of one group add up to; fields as those of a pane."""

    kind: str
    classes: tuple[str, ...]
    rows: int
    observed: int
    complete: bool
    sums: PerformanceSums | PairedSums
    against: tuple[str, ...] = ()

    @classmethod
    def of(cls, pane: PerformancePane) -> Counted:
        return cls(pane.kind, pane.classes, pane.rows, pane.observed, pane.complete, pane.sums, pane.against)

    def add(self, other: Counted) -> None:
        self.rows += other.rows
        self.observed += other.observed
        self.complete &= other.complete
        self.sums.merge(other.sums)  # type: ignore[arg-type]  # groups tell the two apart


Groups = dict[PerformanceGroup, Counted]
PaneKey = tuple[int, str, str, str, str]  # edge, model, version, segment, kept
Loss = tuple[int, int]  # edges [first, stop) of a series of which something may be missing


@dataclass(slots=True)
class Source:
    """One series of one source partition. `panes`: edge -> key -> its record, unmarked and marked but not complete.

    gap, resets: of its last marker; lost_panes, told_panes: records of the panes partition lost so far, and as of its last marker.
    """

    marked_ms: int = EDGE_MIN
    gap: int = 0
    resets: int = 0
    lost_panes: int = 0
    told_panes: int = 0
    panes: dict[int, dict[PaneKey, bytes]] = field(default_factory=dict)


class PerformanceMerger:
    """Collects records, gives out complete edges. `wanted`: the series that there are."""

    def __init__(self, sources: int, wanted: Iterable[Horizon], resolution_ms: int) -> None:
        self.epochs = [0] * sources
        self.series = {each: [Source() for _ in range(sources)] for each in sorted(set(wanted))}
        self.losses: dict[Horizon, list[Loss]] = {each: [] for each in self.series}
        self._blob_ms = BLOB_EDGES * resolution_ms
        self._dirty: set[tuple[Horizon, int, int]] = set()
        self._saved: set[str] = set()  # names of live blobs
        self._read: dict[bytes, PerformancePane] = {}  # by their records, the oldest first; none of pairs
        self._read_bytes = 0

    def takes(self, body: object) -> bool:
        """Whether a record is of performance: of a series of feedback, known or not."""
        return isinstance(body, PerformancePane) or (isinstance(body, Marker) and series_of(body.stream) is not None)

    def add(self, record: PaneRecord) -> bool:
        """Take in a record that `takes`, or an announcement; True when an edge may have become complete.

        Raises UnknownSourceError.
        """
        body = record.body
        if not 0 <= body.partition < len(self.epochs):
            raise UnknownSourceError(
                f"performance of source partition {body.partition}; this monitor was set up for {len(self.epochs)}"
            )
        if record.epoch < self.epochs[body.partition]:
            return False
        if isinstance(body, Announcement):
            if record.epoch > self.epochs[body.partition]:
                self.epochs[body.partition] = record.epoch
                self._forget_unmarked(body.partition)
            return False
        if isinstance(body, PerformancePane):
            self._add_pane(body, record.wire)
            return False
        assert isinstance(body, Marker)
        named = series_of(body.stream)
        assert named is not None
        return self._mark(Horizon(*named), body)

    def _add_pane(self, pane: PerformancePane, wire: bytes) -> None:
        series = Horizon(pane.stream, pane.horizon_ms)
        sources = self.series.get(series)
        if sources is None:
            return
        source, key = sources[pane.partition], pane_key(pane)
        if pane.edge_ms >= source.marked_ms and key not in source.panes.get(pane.edge_ms, ()):
            source.panes.setdefault(pane.edge_ms, {})[key] = wire or encode_performance_pane(pane)
            self._remember(pane, wire)
            self._dirty.add((series, pane.partition, self._block(pane.edge_ms)))

    def _remember(self, pane: PerformancePane, wire: bytes) -> None:
        """So that it need not be decoded twice."""
        if wire and wire not in self._read and not pane.against:
            self._read[wire] = pane
            self._read_bytes += pane.sums.layout.bytes
        while self._read_bytes > DECODED_BYTES_MAX:
            self._read_bytes -= self._read.pop(next(iter(self._read))).sums.layout.bytes

    def _counted(self, wire: bytes) -> tuple[PerformancePane, Counted]:
        """A pane, and what it counts, which is the caller's to add to."""
        pane = self._read.pop(wire, None)
        if pane is None:
            pane = _decoded(wire)
            return pane, Counted.of(pane)
        self._read_bytes -= pane.sums.layout.bytes
        counted = Counted.of(pane)
        assert isinstance(pane.sums, PerformanceSums)
        counted.sums = pane.sums.copy()  # the record's body is its owner's
        return pane, counted

    def _mark(self, series: Horizon, marker: Marker) -> bool:
        sources = self.series.get(series)
        if sources is None or marker.edge_ms <= sources[marker.partition].marked_ms:
            return False
        source, low_ms = sources[marker.partition], self.low_ms(series)
        self._note_loss(series, source, marker)
        source.marked_ms = marker.edge_ms
        return self.low_ms(series) > low_ms

    def _note_loss(self, series: Horizon, source: Source, marker: Marker) -> None:
        """Which edges may lack what was lost between the marker before and this one.

        Lost feedback is of predictions that were not final at the marker before, and made before it became known: no later
        than what lateness may still bring behind the marker's largest time, which is its watermark twice as far.
        """
        gap, resets = marker.counters.get("gap", 0), marker.counters.get("resets", 0)
        feedback, panes = gap > source.gap or resets > source.resets, source.lost_panes > source.told_panes
        if feedback or panes:
            reached_ms = marker.edge_ms + series.horizon_ms
            late_ms = 2 * marker.largest_ms - reached_ms if feedback and marker.edge_ms < EDGE_END else EDGE_MIN
            self.losses[series].append((source.marked_ms, max(marker.edge_ms, late_ms)))
        source.gap, source.resets, source.told_panes = gap, resets, source.lost_panes

    def lose(self, records: int) -> None:
        """So many records of the log were deleted before they were read: any source partition's, of any series."""
        for sources in self.series.values():
            for source in sources:
                source.lost_panes += records

    def lost(self, series: Horizon, start_ms: int, end_ms: int) -> bool:
        """Whether edges in [start_ms, end_ms), all complete, may lack something."""
        return any(first < end_ms and start_ms < stop for first, stop in self.losses[series])

    def low_ms(self, series: Horizon) -> int:
        """Everything of the series before this edge is there."""
        return min(source.marked_ms for source in self.series[series])

    def complete(self, series: Horizon, until_ms: int) -> Iterator[tuple[int, dict[str, Groups]]]:
        """Every complete edge before `until_ms` with panes, ascending: edge, model -> group -> sums, sorted. Each once: it is
        forgotten here.
        """
        stop_ms = min(self.low_ms(series), until_ms)
        sources = self.series[series]
        for edge in sorted({edge for source in sources for edge in source.panes if edge < stop_ms}):
            merged: dict[str, Groups] = {}
            for partition, source in enumerate(sources):
                panes = source.panes.pop(edge, {})
                if panes:
                    self._dirty.add((series, partition, self._block(edge)))
                for pane, counted in map(self._counted, panes.values()):
                    groups = merged.setdefault(pane.model, {})
                    group = PerformanceGroup(pane.version, pane.segment, pane.kept)
                    if group in groups:
                        groups[group].add(counted)
                    else:
                        groups[group] = counted
            yield edge, {model: dict(sorted(merged[model].items())) for model in sorted(merged)}

    def forget_losses(self, series: Horizon, before_ms: int) -> None:
        """No window still to close begins before `before_ms`."""
        self.losses[series] = [loss for loss in self.losses[series] if loss[1] > before_ms]

    def _forget_unmarked(self, partition: int) -> None:
        for series, sources in self.series.items():
            source = sources[partition]
            for edge in [edge for edge in source.panes if edge >= source.marked_ms]:
                del source.panes[edge]
                self._dirty.add((series, partition, self._block(edge)))

    def _block(self, edge_ms: int) -> int:
        return edge_ms // self._blob_ms

    # ---- snapshot: a header, and a blob per series, source partition and BLOB_EDGES with panes -----------------------------

    def header(self) -> dict[str, Any]:
        """Everything but the panes, for the caller's own blob."""
        return {
            "epochs": self.epochs,
            "series": [
                {
                    "series": list(series),
                    "sources": [[s.marked_ms, s.gap, s.resets, s.lost_panes, s.told_panes] for s in sources],
                    "losses": [list(loss) for loss in sorted(self.losses[series])],
                }
                for series, sources in self.series.items()
            ],
        }

    def changed_blobs(self) -> dict[str, bytes | None]:
        """Panes that changed since the last call; None = none left."""
        blobs: dict[str, bytes | None] = {}
        for series, partition, block in sorted(self._dirty):
            name = f"performance-panes/{series.stream}/{series.horizon_ms}/{partition}/{block}"
            panes = self.series[series][partition].panes
            own = {key: wire for edge in panes if self._block(edge) == block for key, wire in panes[edge].items()}
            if own:
                blobs[name] = _encoded(own)
                self._saved.add(name)
            elif name in self._saved:
                blobs[name] = None
                self._saved.remove(name)
        self._dirty.clear()
        for name in [name for name in self._saved if self._unwanted(name)]:
            blobs[name] = None
            self._saved.remove(name)
        return blobs

    def _unwanted(self, name: str) -> bool:
        _, stream, horizon, _, _ = name.split("/")
        return Horizon(stream, int(horizon)) not in self.series

    def load(self, header: Mapping[str, Any] | None, blobs: Mapping[str, bytes]) -> None:
        """Become what `header` and the blobs "performance-panes/..." say; None: a state of before there was performance.

        Series that nobody wants any more are forgotten, new ones begin empty.
        """
        self._dirty.clear()
        self._read, self._read_bytes = {}, 0
        self._saved = {name for name in blobs if name.startswith("performance-panes/")}
        if header is None:
            return
        self.epochs = list(header["epochs"])
        for saved in header["series"]:
            series = Horizon(*saved["series"])
            if series in self.series:
                self.losses[series] = [(first, stop) for first, stop in saved["losses"]]
                self.series[series] = [Source(*fields) for fields in saved["sources"]]
        for name in sorted(self._saved):
            if self._unwanted(name):
                continue
            for wire in _wires(blobs[name]):
                pane = _decoded(wire)
                source = self.series[Horizon(pane.stream, pane.horizon_ms)][pane.partition]
                source.panes.setdefault(pane.edge_ms, {})[pane_key(pane)] = wire


def pane_key(pane: PerformancePane) -> PaneKey:
    """Identity of a pane within its series and source partition."""
    return (pane.edge_ms, pane.model, pane.version, pane.segment, pane.kept)


def _decoded(wire: bytes) -> PerformancePane:
    pane = decode_record(wire)
    assert isinstance(pane, PerformancePane)
    return pane


def _encoded(panes: Mapping[PaneKey, bytes]) -> bytes:
    """Records in the order of their keys, one after the other: equal content gives equal bytes, however they arrived."""
    wires = [panes[key] for key in sorted(panes)]
    sizes = np.array([len(wire) for wire in wires], np.int64)
    return container.encode(KIND, VERSION, {}, {"sizes": sizes, "records": np.frombuffer(b"".join(wires), np.uint8)})


def _wires(data: bytes) -> Iterator[bytes]:
    sections = container.decode(data).expect(KIND, (VERSION,), ("records", "sizes")).sections
    records, start = sections["records"].tobytes(), 0
    for size in sections["sizes"].tolist():
        yield records[start : start + size]
        start += size
