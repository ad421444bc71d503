"""One open pane: the arrays of one (model, version, segment) over one edge, allocated on first touch.

Memory: 2 bytes a bin and 38 a target, while no count can exceed 65,535 (then 4 and 44, later 8 and 56), and 2 KiB of distinct
registers for each categorical target of segment "all" that had a value without a bin of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from detectors.binning import Binning, Kind
from detectors.sketches.distinct import REGISTER_BITS, REGISTERS
from detectors.sketches.sample import bottom
from stream.columns import F64, I32, I64, U8, U32, U64, Tag
from stream.kernels import accumulate as kernel
from stream.kernels.accumulate import ASKED_FOR, NO_ROW, accumulate, register
from stream.panes import Pane, Sample
from stream.plan import ALL, ModelPlan, Role
from stream.registers import OwnBins, Registers, shared_codes
from stream.row_sums import Arrays, RowSums, RowSumTables
from stream.sample_texts import Texts, TextsOf, carried, entered
from stream.schema_sample import Expected, FeaturesOf, JsonType, SchemaSample, known_types, nothing
from stream.sizing import PANE_OBJECTS_BYTES

COUNT_DTYPES = (np.uint16, np.int32, np.int64)  # narrowest first: no count exceeds a pane's events
TEXT_BYTES = 150  # of a text's dictionary entry, its key and its object


class PlanInvalidError(ValueError):
    """A plan whose tables contradict each other; counting with it would write outside its bins."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What the kernels read of one chunk of n events.

    number F64[n, c], cell U64[n, c], tag U8[n, c]   Columns.cell as floats and as bits; at least one column
    category U64[n, c]                               in columns that are read as categories, the hash of every scalar
    model I32[n], version U64[n]                     the version is 0 where no model is known
    texts_of                                         hash -> text of one row's TEXT cells, read again from its record
    features_of                                      one row's features, read again likewise; None = not to be had
    arrays                                           Columns.arrays
    """

    number: F64
    cell: U64
    category: U64
    tag: U8
    id_high: U64
    id_low: U32
    model: I32
    version: U64
    version_names: dict[int, str]
    texts_of: TextsOf
    features_of: FeaturesOf = nothing
    arrays: Arrays = field(default_factory=dict)


class PlanTables:
    """One plan as the kernels read it: tables of all targets end to end. Nothing writes them; `tables_of` shares them."""

    __slots__ = (
        "__weakref__",
        "bin_start",
        "category_columns",
        "codes",
        "column_max",
        "cuts",
        "expected",
        "keys",
        "names",
        "own",
        "plan",
        "rank",
        "row_sums",
        "scale",
        "shape",
        "shared",
        "tracked",
    )

    def __init__(self, plan: ModelPlan) -> None:
        self.plan = plan
        self.names = tuple(target.name for target in plan.targets)
        shape = np.zeros((len(plan.targets), kernel.SHAPE_COLUMNS), np.int64)
        scale = np.zeros((len(plan.targets), 3))
        cuts: list[F64] = [np.empty(0)]
        keys: list[U64] = [np.empty(0, np.uint64)]
        codes: list[I32] = [np.empty(0, np.int32)]
        shared: list[U8] = [np.empty(0, np.uint8)]
        cut = key = first = tracked = 0
        for i, target in enumerate(plan.targets):
            binning = target.binning
            if plan.learning:
                shape[i] = (target.column, kernel.UNBINNED, 0, 0, first, -1)
                continue
            _check(plan, i)
            if binning.kind is Kind.NUMERIC:
                shape[i] = (target.column, kernel.NUMERIC, cut, cut + len(binning.cuts), first, -1)
                scale[i] = (binning.centre, binning.low, binning.high)
                cuts.append(binning.cuts)
                cut += len(binning.cuts)
            else:
                shape[i] = (target.column, kernel.CATEGORICAL, key, key + len(binning.key), first, tracked)
                keys.append(binning.key)
                codes.append(binning.code)
                shared.append(shared_codes(binning.code, binning.bins))
                key += len(binning.key)
                tracked += 1
            first += binning.bins
        self.shape: I64 = shape
        self.scale: F64 = scale
        self.cuts: F64 = np.concatenate(cuts)
        self.keys: U64 = np.concatenate(keys)
        self.codes: I32 = np.concatenate(codes)
        self.shared: U8 = np.concatenate(shared)
        self.bin_start: I64 = np.append(shape[:, kernel.FIRST_BIN], first)
        self.tracked: I64 = np.flatnonzero(shape[:, kernel.REGISTER_ROW] >= 0) if tracked else np.empty(0, np.int64)
        self.own = self._own_bins()
        columns = [target.column for target in plan.targets] + [segment.column for segment in plan.segments]
        self.column_max = max(columns, default=-1)
        self.rank = segment_ranks(plan)
        self.row_sums = RowSumTables(plan.row_sums, [target.column for target in plan.targets])
        self.category_columns = _category_columns(plan)
        self.expected = _expected(plan)

    def _own_bins(self) -> OwnBins:
        of_target = self.shape[self.tracked]
        keys = of_target[:, kernel.TABLE_STOP] - of_target[:, kernel.TABLE_START]
        own = self.shared == 0
        first, row = (np.repeat(of_target[:, column], keys)[own] for column in (kernel.FIRST_BIN, kernel.REGISTER_ROW))
        return OwnBins(self.keys[own], first + self.codes[own], row, len(self.tracked))

    @property
    def nbytes(self) -> int:
        arrays = (self.shape, self.scale, self.cuts, self.keys, self.codes, self.shared, self.bin_start)
        return sum(array.nbytes for array in arrays) + self.own.nbytes + 100 * len(self.names)


def _category_columns(plan: ModelPlan) -> frozenset[int]:
    """Columns whose numbers and bools are looked up as categories."""
    columns = {segment.column for segment in plan.segments}
    if not plan.learning:
        columns |= {target.column for target in plan.targets if target.binning.kind is Kind.CATEGORICAL}
    return frozenset(columns - {-1})


def _expected(plan: ModelPlan) -> Expected | None:
    """What the schema of the events is compared with; None: nothing, for there is no reference yet, or no feature in it."""
    places = [i for i, t in enumerate(plan.targets) if t.role is Role.FEATURE and t.column >= 0]
    if plan.learning or not plan.reference or not places:
        return None
    allowed = np.zeros((len(places), len(Tag)), np.bool_)
    allowed[:, Tag.MISSING] = True
    for row, place in enumerate(places):
        allowed[row, _allowed(plan.targets[place].binning)] = True
    return Expected(
        places=tuple(places),
        names=tuple(plan.targets[place].name for place in places),
        column=np.array([plan.targets[place].column for place in places], np.int64),
        allowed=allowed,
        known=frozenset((*plan.known, *(target.name for target in plan.targets))),
    )


def _allowed(binning: Binning) -> list[Tag]:
    """Tags of values of this kind: of categories those that the reference's can have come from."""
    if binning.kind is Kind.NUMERIC:
        return [Tag.NUMBER]
    tags = {JsonType.NUMBER: Tag.NUMBER, JsonType.TEXT: Tag.TEXT, JsonType.BOOL: Tag.BOOL}
    types = known_types(binning.labels[:-2])  # the last two are those of rare and of unseen ones
    return [tags[each] for each in sorted(types or tags)]


_SHARED: WeakValueDictionary[tuple[str, tuple[int, ...]], PlanTables] = WeakValueDictionary()


def tables_of(plan: ModelPlan) -> PlanTables:
    """The tables of a sealed plan; one object for all partitions of a process that count with it. Raises PlanInvalidError."""
    columns = *(target.column for target in plan.targets), *(segment.column for segment in plan.segments)
    key = (plan.hash, columns)
    found = _SHARED.get(key)
    if found is None:
        found = _SHARED[key] = PlanTables(plan)
    return found


def segment_ranks(plan: ModelPlan) -> dict[str, int]:
    """Canonical order of a plan's segments: all, then key by key its values and key=__other__."""
    names = [ALL]
    for segment in plan.segments:
        names += [segment_name(segment.key, value) for value in segment.values] + [segment_name(segment.key, None)]
    return {name: rank for rank, name in enumerate(names)}


def segment_name(key: str, value: str | None) -> str:
    """Name of one segment; None = every value that is not configured, and none."""
    return f"{key}=__other__" if value is None else f"{key}={value}"


def _check(plan: ModelPlan, index: int) -> None:
    target = plan.targets[index]
    binning = target.binning
    problem = ""
    if binning.bins < 1:
        problem = "has no bins"
    elif binning.kind is Kind.NUMERIC:
        if len(binning.cuts) and not (np.isfinite(binning.cuts).all() and (np.diff(binning.cuts) > 0).all()):
            problem = "has cuts that are not finite and increasing"
        elif not np.isfinite(binning.centre):
            problem = "has no finite centre"
    elif len(binning.key) != len(binning.code) or (binning.key[1:] <= binning.key[:-1]).any():
        problem = "has category keys that are not increasing, or not as many as codes"
    elif len(binning.code) and not (binning.code.min() >= 0 and binning.code.max() < binning.bins):
        problem = f"has category codes outside its {binning.bins} bins"
    if problem:
        raise PlanInvalidError(f"plan of model {plan.model!r}: target {target.name!r} {problem}")


def count_dtype(events: int) -> type[np.integer[Any]]:
    """The narrowest integers that the counts of so many events fit."""
    return next(dtype for dtype in COUNT_DTYPES if events <= np.iinfo(dtype).max)


class PaneState:
    """Statistics of one open pane. Everything is counted in log order; nothing else may write the arrays.

    row_sums: of segment "all", where the plan has multivariate detectors.

    registers U8[k, REGISTERS] are those of the tracked targets whose `register_row` I32[tracked] names one: they lack values
    that have a bin of their own. `register_row` is I32[0] in a segment, where no distinct values are counted.
    """

    __slots__ = (
        "bins",
        "events",
        "extremes",
        "model",
        "register_row",
        "registers",
        "row_sums",
        "sample",
        "schema",
        "segment",
        "sums",
        "tables",
        "tally",
        "texts",
        "version",
    )

    def __init__(self, tables: PlanTables, model: str, version: str, segment: str) -> None:
        targets = len(tables.names)
        self.tables = tables
        self.model = model
        self.version = version
        self.segment = segment
        self.events = 0
        self.bins: NDArray[Any] = np.zeros(int(tables.bin_start[-1]), COUNT_DTYPES[0])
        self.tally: NDArray[Any] = np.zeros((targets, 3), COUNT_DTYPES[0])
        self.sums: F64 = np.zeros((targets, 2))
        self.extremes: F64 = np.tile(np.array([np.inf, -np.inf]), (targets, 1))
        tracked = len(tables.tracked) if segment == ALL else 0
        self.register_row: I32 = np.full(tracked, NO_ROW, np.int32)
        self.registers: U8 = np.empty((0, REGISTERS), np.uint8)
        self.sample: tuple[U64, U32, U64, U8] | None = None
        self.schema = SchemaSample() if segment == ALL and tables.expected is not None else None
        self.row_sums: RowSums = tables.row_sums.nothing() if segment == ALL else {}
        self.texts: Texts = {}  # of the sample's TEXT cells; may hold more than the sample carries
        if tables.plan.sample_rows and segment == ALL:
            none = (0, targets)
            self.sample = (
                np.empty(0, np.uint64), np.empty(0, np.uint32), np.empty(none, np.uint64), np.empty(none, np.uint8)
            )  # fmt: skip

    def count(self, rows: I64, chunk: Chunk) -> None:
        """Count `rows` (ascending) of the chunk."""
        tables = self.tables
        self.events += len(rows)
        counts = count_dtype(self.events)
        if self.bins.dtype != counts:
            self.bins, self.tally = self.bins.astype(counts), self.tally.astype(counts)
        asking = accumulate(
            rows, chunk.number, chunk.category, chunk.tag,
            tables.shape, tables.scale, tables.cuts, tables.keys, tables.codes, tables.shared,
            self.bins, self.tally, self.sums, self.extremes, self.register_row, self.registers, REGISTER_BITS,
        )  # fmt: skip
        if asking:
            self._register(rows, chunk)
        if self.row_sums:
            tables.row_sums.add(self.row_sums, rows, chunk.number, chunk.tag, chunk.arrays)
        if self.sample is not None:
            self._keep(rows, chunk)
        if self.schema is not None and tables.expected is not None:
            self.schema.look(rows, chunk.tag, chunk.id_low, chunk.features_of, tables.expected)

    def _register(self, rows: I64, chunk: Chunk) -> None:
        """Give registers to the targets that ask for them, and enter what `rows` hold."""
        tables = self.tables
        asking = np.flatnonzero(self.register_row == ASKED_FOR)
        had = len(self.registers)
        self.registers = np.concatenate([self.registers, np.zeros((len(asking), REGISTERS), np.uint8)])
        self.register_row[asking] = np.arange(had, had + len(asking))
        register(
            rows, chunk.category, chunk.tag, tables.shape, tables.keys, tables.codes, tables.shared,
            tables.tracked[asking], self.register_row, self.registers, REGISTER_BITS,
        )  # fmt: skip

    def all_registers(self) -> U8:
        """U8[tracked, REGISTERS] of all values, in a segment U8[0, REGISTERS]. Not kept: 2 KiB a tracked target."""
        if not len(self.register_row):
            return np.empty((0, REGISTERS), np.uint8)
        found = self.tables.own.registers(self.bins)
        held = np.flatnonzero(self.register_row >= 0)
        found[held] = np.maximum(found[held], self.registers[self.register_row[held]])
        return found

    def restore_registers(self, registers: U8) -> None:
        """Inverse of `all_registers`, once the bins are there: rows only where these do not say it all."""
        if not len(self.register_row):
            return
        held = np.flatnonzero((registers != self.tables.own.registers(self.bins)).any(axis=1))
        self.register_row[:] = NO_ROW
        self.register_row[held] = np.arange(len(held))
        self.registers = registers[held]

    def _keep(self, rows: I64, chunk: Chunk) -> None:
        """Bottom-k of what was kept and `rows`; in canonical order, so that batching does not show."""
        assert self.sample is not None
        k = self.tables.plan.sample_rows
        high, low, cell, tag = self.sample
        if len(high) == k:
            rows = rows[chunk.id_high[rows] <= high[-1]]
        kept = len(high)
        columns = self.tables.shape[:, kernel.COLUMN]
        here = (rows[:, None], columns[None, :])
        high, low = np.append(high, chunk.id_high[rows]), np.append(low, chunk.id_low[rows])
        tags = np.where(columns < 0, np.uint8(0), chunk.tag[here])
        chosen = bottom(k, high, low)
        cell = np.concatenate([cell, chunk.cell[here]])[chosen]
        tag = np.concatenate([tag, tags])[chosen]
        self.sample = (high[chosen], low[chosen], cell, tag)
        if self.tables.plan.learning:  # categories are to be named
            row = np.append(np.full(kept, -1), rows)[chosen]
            self.texts = entered(self.texts, cell, tag, row, chunk.texts_of)

    def to_pane(self, partition: int, edge_ms: int) -> Pane:
        """The pane as it is sent."""
        tables = self.tables
        distinct = Registers.none()
        if len(self.register_row):
            distinct = Registers.of(tables.tracked, self.all_registers())
        tally = self.tally.astype(np.int64)
        sample = None
        if self.sample is not None:
            hashes, _, cell, tag = self.sample
            limit = 0 if tables.plan.learning else tables.plan.sample_rows  # a learner says itself how many
            sums = {series: each.copy() for series, each in self.row_sums.items()}
            sample = Sample(hashes, cell, tag, carried(self.texts, cell, tag), limit, sums)
        return Pane(
            partition=partition,
            edge_ms=edge_ms,
            model=self.model,
            version=self.version,
            segment=self.segment,
            plan=tables.plan.hash,
            reference=tables.plan.reference,
            events=self.events,
            names=tables.names,
            first_target=0,
            last_block=True,
            bin_start=tables.bin_start,
            bins=self.bins.astype(np.int64),
            sums=self.sums,
            extremes=np.where(np.isfinite(self.extremes), self.extremes, np.nan),
            missing=tally[:, kernel.MISSING],
            invalid=tally[:, kernel.INVALID],
            out_of_range=tally[:, kernel.OUT_OF_RANGE],
            distinct=distinct,
            sample=sample,
            schema=None if self.schema is None else self.schema.copy(),
        )

    @property
    def nbytes(self) -> int:
        arrays = [self.bins, self.tally, self.sums, self.extremes, self.register_row, self.registers]
        arrays += self.row_sums.values()
        if self.sample is not None:
            arrays += self.sample
        texts = sum(TEXT_BYTES + len(text) for text in self.texts.values())
        texts += 0 if self.schema is None else self.schema.nbytes
        return PANE_OBJECTS_BYTES + texts + sum(array.nbytes for array in arrays)
