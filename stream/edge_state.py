"""All open panes of one edge, and their snapshot blob."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from detectors.sketches.distinct import REGISTERS
from stream import container
from stream.columns import U8
from stream.dedup import IdSet
from stream.pane_state import PaneState, PlanTables, count_dtype
from stream.plan import OTHER
from stream.row_sums import SECTION as ROW_SUMS
from stream.sample_texts import SECTIONS, Texts, carried, pack, unpack
from stream.schema_sample import SchemaSample
from stream.sparse import dense, smallest, sparse, sparse_from

KIND = "edge"
IDS_KIND = "ids"
VERSION = 1
VERSIONS = (VERSION,)
_SECTIONS = ("bins", "tally", "sums", "extremes", "registers")
_SAMPLE = ("sample_high", "sample_low", "sample_cell", "sample_tag")
_OPTIONAL = ("bins_at", "registers_at", *_SAMPLE, *SECTIONS, ROW_SUMS)


class EdgeState:
    """Open panes that start at `edge_ms`, the versions that have panes of their own, and the ids seen."""

    __slots__ = ("changed", "edge_ms", "id_blobs", "ids", "panes", "versions")

    def __init__(self, edge_ms: int) -> None:
        self.edge_ms = edge_ms
        self.panes: dict[tuple[str, str, str], PaneState] = {}
        self.versions: dict[str, set[str]] = {}
        self.ids = IdSet()
        self.id_blobs = 0  # append-only blobs that earlier snapshots made of the ids
        self.changed = True

    def label(self, model: str, version: str, versions_max: int) -> str:
        """The version under which an event is counted: its own for the first `versions_max` of this model in the log."""
        known = self.versions.setdefault(model, set())
        if version not in known:
            if len(known) >= versions_max or version == OTHER:
                return OTHER
            known.add(version)
        return version

    def pane(self, tables: PlanTables, model: str, version: str, segment: str) -> PaneState:
        """The open pane, made on first touch."""
        key = (model, version, segment)
        found = self.panes.get(key)
        if found is None:
            found = self.panes[key] = PaneState(tables, model, version, segment)
        return found

    def ordered(self) -> list[PaneState]:
        """Panes in canonical order: model, version, then segments as the plan lists them."""
        return sorted(self.panes.values(), key=lambda p: (p.model, p.version, p.tables.rank[p.segment]))

    @property
    def nbytes(self) -> int:
        return self.ids.nbytes + sum(pane.nbytes for pane in self.panes.values())


def encode_edge(state: EdgeState) -> bytes:
    """The panes of one edge, without ids: the same bytes for the same panes."""
    panes = state.ordered()
    header: dict[str, Any] = {
        "edge_ms": state.edge_ms,
        "panes": [
            [p.model, p.version, p.segment, p.tables.plan.hash, p.events, -1 if p.sample is None else len(p.sample[0])]
            for p in panes
        ],
    }
    if any(p.schema is not None for p in panes):
        header["schema"] = [None if p.schema is None else p.schema.header() for p in panes]
    none = np.empty(0, np.uint8)
    sections: dict[str, Any] = {
        **sparse("bins", np.concatenate([none, *(p.bins for p in panes)])),
        "tally": smallest(np.concatenate([none, *(p.tally.reshape(-1) for p in panes)])),
        "sums": np.concatenate([np.empty(0), *(p.sums.reshape(-1) for p in panes)]),
        "extremes": np.concatenate([np.empty(0), *(p.extremes.reshape(-1) for p in panes)]),
        **_sparse_registers(p.all_registers().reshape(-1) for p in panes),
    }
    row_sums = [sums for p in panes for sums in p.row_sums.values()]
    if row_sums:
        sections[ROW_SUMS] = np.concatenate(row_sums)
    samples = [p.sample for p in panes if p.sample is not None]
    if samples:
        sections["sample_high"] = np.concatenate([s[0] for s in samples])
        sections["sample_low"] = np.concatenate([s[1] for s in samples])
        sections["sample_cell"] = np.concatenate([s[2].reshape(-1) for s in samples])
        sections["sample_tag"] = np.concatenate([s[3].reshape(-1) for s in samples])
        texts = [carried(p.texts, p.sample[2], p.sample[3]) for p in panes if p.sample is not None]
        header["texts"] = [len(own) for own in texts]
        packed = [pack(own) for own in texts]
        sections |= {name: np.concatenate([own[name] for own in packed]) for name in SECTIONS}
    return container.encode(KIND, VERSION, header, sections)


def _sparse_registers(parts: Iterable[U8]) -> dict[str, Any]:
    """The section of all registers, end to end, as `sparse` makes it; one pane's are made at a time, few of them not zero."""
    places, values, first = [np.empty(0, np.int64)], [np.empty(0, np.uint8)], 0
    for part in parts:
        here = np.flatnonzero(part)
        places.append(here + first)
        values.append(part[here])
        first += len(part)
    at, found = np.concatenate(places), np.concatenate(values)
    return sparse_from("registers", at, found, first)


def _register_parts(sections: container.Sections, lengths: Sequence[int]) -> Iterator[U8]:
    """Inverse: one pane's after the other, U8[length]. Raises Malformed."""
    values, at = sections["registers"], sections.get("registers_at")
    bounds = np.cumsum([0, *lengths])
    if at is None:
        flat = dense("registers", sections, int(bounds[-1]), np.uint8)
        yield from (flat[first:stop] for first, stop in pairwise(bounds))
        return
    if len(at) != len(values) or (len(at) and int(at.max()) >= bounds[-1]) or (at[1:] <= at[:-1]).any():
        raise container.Malformed(f"{KIND}: places of registers beyond {bounds[-1]}, or not ascending")
    within = np.searchsorted(at, bounds)
    for place, length in enumerate(lengths):
        part = np.zeros(length, np.uint8)
        mine = slice(within[place], within[place + 1])
        part[at[mine].astype(np.int64) - bounds[place]] = values[mine]
        yield part


class _Reader:
    """Takes one array after the other out of flat sections."""

    def __init__(self, sections: Mapping[str, Any]) -> None:
        self._sections = sections
        self._place = dict.fromkeys(sections, 0)

    def take(self, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        first = self._place[name]
        stop = self._place[name] = first + int(np.prod(shape, dtype=np.int64))
        if stop > len(self._sections[name]):
            raise container.Malformed(f"{KIND}: {name} ends before its panes do")
        return self._sections[name][first:stop].astype(dtype).reshape(shape)


def decode_edge(data: bytes, tables_of: Callable[[str], PlanTables]) -> EdgeState:
    """Inverse of encode_edge; `tables_of` finds a plan by hash. Raises ContainerError."""
    stored = container.decode(data).expect(KIND, VERSIONS, _SECTIONS, _OPTIONAL)
    state = EdgeState(stored.header["edge_ms"])
    state.changed = False
    panes = []
    for model, version, segment, plan, events, rows in stored.header["panes"]:
        tables = tables_of(plan)
        if segment not in tables.rank:
            raise container.Malformed(f"{KIND}: segment {segment!r} is not in plan {plan}")
        panes.append((state.pane(tables, model, version, segment), rows))
        panes[-1][0].events = events
        if version != OTHER:
            state.versions.setdefault(model, set()).add(version)
    for (pane, _), schema in zip(panes, stored.header.get("schema", ()), strict=False):  # the first version had none
        pane.schema = None if schema is None else SchemaSample.of(schema)
    bins = dense("bins", stored.sections, sum(pane.bins.size for pane, _ in panes))
    reader = _Reader(dict(stored.sections) | {"bins": bins})
    registers = _register_parts(stored.sections, [REGISTERS * len(pane.register_row) for pane, _ in panes])
    texts = iter(stored.header.get("texts", ()))
    for (pane, rows), own in zip(panes, registers, strict=True):
        counts = count_dtype(pane.events)
        pane.bins = reader.take("bins", pane.bins.shape, counts)
        pane.tally = reader.take("tally", pane.tally.shape, counts)
        pane.sums = reader.take("sums", pane.sums.shape, np.float64)
        pane.extremes = reader.take("extremes", pane.extremes.shape, np.float64)
        pane.restore_registers(own.reshape(-1, REGISTERS))
        for series, sums in pane.row_sums.items():
            pane.row_sums[series] = reader.take(ROW_SUMS, sums.shape, np.int64)
        if rows >= 0:
            cells = (rows, len(pane.tables.names))
            pane.sample = (
                reader.take("sample_high", (rows,), np.uint64),
                reader.take("sample_low", (rows,), np.uint32),
                reader.take("sample_cell", cells, np.uint64),
                reader.take("sample_tag", cells, np.uint8),
            )
            pane.texts = _take_texts(reader, next(texts))
    return state


def _take_texts(reader: _Reader, count: int) -> Texts:
    key, length = reader.take("text_hash", (count,), np.uint64), reader.take("text_length", (count,), np.uint32)
    try:
        return unpack(key, length, reader.take("text_bytes", (int(length.sum()),), np.uint8))
    except ValueError as error:
        raise container.Malformed(f"{KIND}: {error}") from None


def encode_ids(ids: IdSet, first: int) -> bytes:
    """The ids from place `first` on: one append-only blob."""
    high, low = ids.ids(first)
    return container.encode(IDS_KIND, VERSION, {"first": first}, {"high": high, "low": low})


def load_ids(ids: IdSet, data: bytes) -> None:
    """Append what `encode_ids` wrote. Raises ContainerError, also where a blob in between is missing."""
    stored = container.decode(data).expect(IDS_KIND, VERSIONS, ("high", "low"))
    if stored.header["first"] != ids.count:
        raise container.Malformed(f"ids continue at {stored.header['first']}, expected {ids.count}")
    ids.extend(stored.sections["high"], stored.sections["low"])
