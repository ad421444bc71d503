"""Snapshot blobs of a collector.

meta              position, watermark, floor, marked edge, counters, plan schedule, open edges
plan/<hash>       one plan, immutable
pane/<edge>       the open panes of one edge
ids/<edge>/<n>    ids in order of arrival, append-only: each holds what is new since the one before
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stream import container
from stream.accounting import Ledger, counters_header
from stream.copied import Seen
from stream.edge_state import EdgeState, decode_edge, encode_edge, encode_ids, load_ids
from stream.panes import Counters
from stream.plan_book import NO_PLAN
from stream.plan_codec import Columns, bind, decode_plan, encode_plan

if TYPE_CHECKING:
    from stream.collector import Collector

KIND = "collector"
VERSION = 1
VERSIONS = (VERSION,)
META = "meta"


class ResolutionChangedError(ValueError):
    """The state was made with another resolution: its edges are not edges of this configuration."""


@dataclass(slots=True)
class Saved:
    """What earlier snapshots hold: names of live blobs. `changed`: anything since."""

    names: set[str] = field(default_factory=set)
    changed: bool = False


def encode_blobs(state: Collector, saved: Saved, *, whole: bool = False) -> dict[str, bytes | None]:
    """Blobs that `saved` lacks or that changed, None for those that are gone; `saved` is brought up to date.

    `whole`: everything, ids in one blob, and no trace left in the state.
    """
    blobs: dict[str, bytes | None] = {}
    live = {META}
    if not saved.changed:
        return blobs
    plans = state.book.needed()
    open_edges = []
    for edge_ms in sorted(state.edges):
        edge = state.edges[edge_ms]
        plans |= {pane.tables.plan.hash for pane in edge.panes.values()}
        name = f"pane/{edge_ms}"
        live.add(name)
        if edge.changed or whole:
            blobs[name] = encode_edge(edge)
        id_blobs = _encode_new_ids(edge, blobs, whole=whole)
        live |= {_ids_name(edge_ms, n) for n in range(id_blobs)}
        open_edges.append([edge_ms, id_blobs])
        if not whole:
            edge.changed = False
    for plan_hash in sorted(plans - {NO_PLAN}):
        name = f"plan/{plan_hash}"
        live.add(name)
        if name not in saved.names:
            blobs[name] = encode_plan(state.book.tables(plan_hash).plan)
    blobs[META] = _encode_meta(state, open_edges)
    blobs |= dict.fromkeys(sorted(saved.names - live))
    saved.names, saved.changed = live, False
    return blobs


def _encode_new_ids(edge: EdgeState, blobs: dict[str, bytes | None], *, whole: bool) -> int:
    """Returns the number of id blobs of the edge."""
    if whole:
        if edge.ids.count:
            blobs[_ids_name(edge.edge_ms, 0)] = encode_ids(edge.ids, 0)
        return int(edge.ids.count > 0)
    if edge.ids.count > edge.ids.saved:
        blobs[_ids_name(edge.edge_ms, edge.id_blobs)] = encode_ids(edge.ids, edge.ids.saved)
        edge.ids.saved = edge.ids.count
        edge.id_blobs += 1
    return edge.id_blobs


def _ids_name(edge_ms: int, n: int) -> str:
    return f"ids/{edge_ms}/{n}"


def _encode_meta(state: Collector, open_edges: list[list[int]]) -> bytes:
    header: dict[str, Any] = {
        "resolution_ms": state.resolution_ms,
        "next_offset": state.next_offset,
        "largest_ms": state.largest_ms,
        "floor_ms": state.floor_ms,
        "marked_ms": state.marked_ms,
        "counters": counters_header(state.ledger.counters),
        "schedule": state.book.header(),
        "open": open_edges,
    }
    if state.copied:
        header["copied"] = {source: seen.header() for source, seen in sorted(state.copied.items())}
    if state.joining is not None:
        header["feedback"] = state.joining.header()
    return container.encode(KIND, VERSION, header, {})


def restore(state: Collector, blobs: Mapping[str, bytes], columns: Columns, *, dedup: bool) -> Mapping[str, Any] | None:
    """Fill an empty collector, but for the join: what joining.header gave is returned. `columns`: where the running layout has each
    target.

    Raises ContainerError (a blob that is damaged, missing or foreign is named), ResolutionChangedError.
    """
    header = container.decode(_blob(blobs, META)).expect(KIND, VERSIONS, ()).header
    if header["resolution_ms"] != state.resolution_ms:
        raise ResolutionChangedError(
            f"the state was made with resolution {header['resolution_ms']} ms, the configuration says {state.resolution_ms} ms"
        )
    state.next_offset = header["next_offset"]
    state.largest_ms, state.floor_ms, state.marked_ms = header["largest_ms"], header["floor_ms"], header["marked_ms"]
    state.ledger = Ledger(Counters(**header["counters"]))
    state.copied = {source: Seen.of(seen) for source, seen in header.get("copied", {}).items()}
    names = {META}
    for name in blobs:
        if name.startswith("plan/"):
            names.add(name)
            state.book.offer(bind(decode_plan(blobs[name]), columns))
    state.book.restore(header["schedule"])
    for edge_ms, id_blobs in header["open"]:
        name = f"pane/{edge_ms}"
        edge = state.edges[edge_ms] = decode_edge(_blob(blobs, name), state.book.tables)
        names.add(name)
        edge.id_blobs = id_blobs
        for n in range(id_blobs):
            name = _ids_name(edge_ms, n)
            names.add(name)
            if dedup:
                load_ids(edge.ids, _blob(blobs, name))
    foreign = sorted(set(blobs) - names)
    if foreign:
        raise container.UnknownSection(KIND, foreign[0], "unknown")
    state.saved.names, state.saved.changed = names, False
    feedback: Mapping[str, Any] | None = header.get("feedback")
    return feedback


def _blob(blobs: Mapping[str, bytes], name: str) -> bytes:
    if name not in blobs:
        raise container.UnknownSection(KIND, name, "missing")
    return blobs[name]
