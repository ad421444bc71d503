"""From columns to panes: categories, duplicates, groups of rows, and the kernels' calls. No Python work per event."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from stream.category import category_hash, number_category_hash
from stream.columns import I32, I64, U8, U64, Columns, Tag
from stream.edge_state import EdgeState
from stream.kernels import timeline
from stream.kernels.timeline import APPLIED, DUPLICATE, UNKNOWN
from stream.pane_state import Chunk, PlanTables, segment_name
from stream.plan import ALL, UNKNOWN_MODEL, SegmentPlan
from stream.plan_book import UNKNOWN_TABLES, PlanBook
from stream.sample_texts import Texts
from stream.schema_sample import Features

_BOOLS = np.array([category_hash(False), category_hash(True)], np.uint64)


def prepare(columns: Columns, category_columns: Sequence[int]) -> Chunk:
    """The kernels' view of a chunk: contiguous, writable arrays (which most are already), numbers as categories hashed."""
    cell = np.require(columns.cell, np.uint64, ["C", "W"])
    tag = np.require(columns.tag, np.uint8, ["C", "W"])
    if not cell.shape[1]:
        cell, tag = np.zeros((len(cell), 1), np.uint64), np.zeros((len(cell), 1), np.uint8)
    model = np.require(columns.model, np.int32, ["C", "W"])
    return Chunk(
        number=cell.view(np.float64),
        cell=cell,
        category=_categories(cell, tag, category_columns),
        tag=tag,
        id_high=np.require(columns.id_high, np.uint64, ["C", "W"]),
        id_low=np.require(columns.id_low, np.uint32, ["C", "W"]),
        model=model,
        version=np.where(model < 0, np.uint64(0), columns.version),
        version_names=columns.version_names,
        texts_of=partial(_texts_of, columns),
        features_of=partial(_features_of, columns),
        arrays=columns.arrays,
    )


def _texts_of(columns: Columns, row: int) -> Texts:
    return {} if columns.texts is None else columns.texts(int(columns.offset[row]), int(columns.row[row]))


def _features_of(columns: Columns, row: int) -> Features | None:
    return None if columns.features is None else columns.features(int(columns.offset[row]), int(columns.row[row]))


def _categories(cell: U64, tag: U8, columns: Sequence[int]) -> U64:
    """`cell` with the numbers and bools of these columns replaced by their category hashes; itself where there are none."""
    found = cell
    for column in columns:
        numbers = np.flatnonzero(tag[:, column] == Tag.NUMBER)
        bools = np.flatnonzero(tag[:, column] == Tag.BOOL)
        if found is cell and len(numbers) + len(bools):
            found = cell.copy()
        if len(numbers):
            distinct, place = np.unique(cell[numbers, column], return_inverse=True)
            hashes = [number_category_hash(number) for number in distinct.view(np.float64).tolist()]
            found[numbers, column] = np.array(hashes, np.uint64)[place]
        if len(bools):
            found[bools, column] = _BOOLS[cell[bools, column].astype(np.int64)]
    return found


@dataclass(frozen=True, slots=True)
class Slot:
    """Where events of one (edge, model, version) are counted."""

    edge: EdgeState
    model: str
    version: str
    tables: PlanTables


class Counting:
    """Counts rows into open edges. `open_edge` finds or makes the state of an edge."""

    def __init__(
        self,
        models: Sequence[str],
        book: PlanBook,
        open_edge: Callable[[int], EdgeState],
        *,
        dedup: bool,
        versions_max: int,
    ) -> None:
        self._models = tuple(models)
        self._book = book
        self._open_edge = open_edge
        self._dedup = dedup
        self._versions_max = versions_max

    def count(self, chunk: Chunk, status: U8, edge: I64, first: int, stop: int) -> None:
        """Count what is APPLIED of rows [first, stop); status becomes DUPLICATE or UNKNOWN where it is."""
        rows = np.flatnonzero(status[first:stop] == APPLIED) + first
        if self._dedup and len(rows):
            for edge_ms, part in _by_edge(rows, edge):
                self._open_edge(edge_ms).ids.add(part, chunk.id_high, chunk.id_low, status, DUPLICATE)
            rows = rows[status[rows] == APPLIED]
        if not len(rows):
            return
        group_of, first_row = _groups(rows, edge, chunk.model, chunk.version)
        slots, slot_of_group = self._slots(chunk, edge, first_row)
        for slot, part in zip(slots, _split(rows, slot_of_group[group_of], len(slots)), strict=True):
            if slot.tables is UNKNOWN_TABLES:
                status[part] = UNKNOWN
            slot.edge.changed = True
            slot.edge.pane(slot.tables, slot.model, slot.version, ALL).count(part, chunk)
            for segment in slot.tables.plan.segments:
                if segment.column >= 0 and not slot.tables.plan.learning:
                    _count_segment(slot, segment, part, chunk)

    def _slots(self, chunk: Chunk, edge: I64, first_row: I64) -> tuple[list[Slot], I64]:
        """The slots of the groups, and each group's; versions beyond the limit share one."""
        slots: list[Slot] = []
        place: dict[tuple[int, str, str], int] = {}
        slot_of_group = np.empty(len(first_row), np.int64)
        for group, row in enumerate(first_row.tolist()):
            state = self._open_edge(int(edge[row]))
            index = int(chunk.model[row])
            tables = None if index < 0 else self._book.at(self._models[index], state.edge_ms)
            if tables is None:
                model, version, tables = UNKNOWN_MODEL, "", UNKNOWN_TABLES
            else:
                model = self._models[index]
                version = state.label(model, chunk.version_names.get(int(chunk.version[row]), ""), self._versions_max)
            key = (state.edge_ms, model, version)
            if key not in place:
                place[key] = len(slots)
                slots.append(Slot(state, model, version, tables))
            slot_of_group[group] = place[key]
        return slots, slot_of_group


def _count_segment(slot: Slot, segment: SegmentPlan, rows: I64, chunk: Chunk) -> None:
    order = np.argsort(segment.value_hash)
    slot_of = np.empty(len(rows), np.int64)
    timeline.segment_of(
        rows, chunk.category, chunk.tag, segment.column, segment.value_hash[order], order,
        int(Tag.MISSING), int(Tag.INVALID), slot_of,
    )  # fmt: skip
    for i, part in enumerate(_split(rows, slot_of, len(order) + 1)):
        if len(part):
            name = segment_name(segment.key, segment.values[i] if i < len(order) else None)
            slot.edge.pane(slot.tables, slot.model, slot.version, name).count(part, chunk)


def _by_edge(rows: I64, edge: I64) -> Iterator[tuple[int, I64]]:
    edges = edge[rows]
    if edges.min() == edges.max():
        yield int(edges[0]), rows
        return
    group_of, first_row = _groups(rows, edge, np.zeros(len(edge), np.int32), np.zeros(len(edge), np.uint64))
    for row, part in zip(first_row, _split(rows, group_of, len(first_row)), strict=True):
        yield int(edge[row]), part


def _groups(rows: I64, edge: I64, model: I32, version: U64) -> tuple[I64, I64]:
    """Group of each row by (edge, model, version), numbered by first occurrence; and each group's first row."""
    table = np.full(1 << (2 * len(rows)).bit_length(), -1, np.int64)
    group_of = np.empty(len(rows), np.int64)
    first = np.empty(len(rows), np.int64)
    groups = timeline.group(rows, edge, model, version, table, group_of, first)
    return group_of, first[:groups]


def _split(rows: I64, slot_of: I64, slots: int) -> list[I64]:
    """The rows of each slot, ascending."""
    if slots == 1:
        return [rows]
    start = np.zeros(slots + 1, np.int64)
    ordered = np.empty(len(rows), np.int64)
    timeline.order(rows, slot_of, start, ordered)
    bounds = start.tolist()
    return [ordered[a:b] for a, b in pairwise(bounds)]
