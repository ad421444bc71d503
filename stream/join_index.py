"""Predictions that wait for feedback: columns in order of arrival, found by id, kept until the last horizon has passed.

Memory of a prediction with one score: 40 bytes of columns, 8 more for each class whose score is kept, 5.3 of the table of its
chunk, and 4 for every stream that has had feedback on any prediction of the chunk (load_tests.join_speed measures it). Tables
are not in snapshots: a restore fills them again. Each chunk has a table of its own, small enough for a processor's cache: a
batch of feedback goes through the chunks that its times allow, one after the other, and expiry drops a table with its chunk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stream.column_log import ColumnLog
from stream.columns import F64, I64, U8, U32, U64
from stream.kernels import join_table

CHUNK_ROWS = 1 << 16
CLASS_SCORES = "class_scores."  # and what they mean: a state that has others has none
NONE = np.uint32(0xFFFFFFFF)  # no change of this stream
NUMBERS = 0xFFFFFFFF  # numbers of changes are kept modulo this: fewer are ever held at once


@dataclass(frozen=True, slots=True)
class Predictions:
    """n accepted predictions in log order, without duplicates.

    event_time_ms I64[n], id_high U64[n], id_low U32[n], score F64[n, k], predicted F64[n] (a value, or the code of a class),
    group U32[n]: codes of the join's `groups`; request U64[n]: hash of the request's id, 0 = none told; None: of none of them;
    class_scores F64[n, c] in the order of each model's classes, NaN = none; None: of none of them.
    """

    event_time_ms: I64
    id_high: U64
    id_low: U32
    score: F64
    predicted: F64
    group: U32
    request: U64 | None = None
    class_scores: F64 | None = None

    def __len__(self) -> int:
        return len(self.event_time_ms)


@dataclass(slots=True)
class _Chunk:
    """What a chunk has beside its columns."""

    table: U32
    first_ms: int
    last_ms: int
    newest: dict[int, U32]  # stream -> number of the newest change of each prediction


class JoinIndex:
    """Waiting predictions. A prediction's row number is its place in the log of those that were added.

    `left_out`: rows that no id finds, as it stood in its chunk join_table.REUSES_MAX times. Theirs are counted like all others.
    """

    def __init__(
        self,
        scores: int,
        chunk_rows: int = CHUNK_ROWS,
        *,
        requests: bool = False,
        class_scores: tuple[int, str] = (0, ""),
    ) -> None:
        if not 0 < chunk_rows <= join_table.CHUNK_ROWS_MAX:
            raise ValueError(f"{chunk_rows} rows a chunk, at most {join_table.CHUNK_ROWS_MAX}")
        columns = {
            "event_time_ms": "<i8",
            "id_high": "<u8",
            "id_low": "<u4",
            "score": ("<f8", scores),
            "predicted": "<f8",
            "group": "<u4",
        } | ({"request": "<u8"} if requests else {})
        width, meaning = class_scores
        self._class_scores = f"{CLASS_SCORES}{meaning}" if width else None
        if self._class_scores is not None:
            columns[self._class_scores] = ("<f8", width)
        self.log = ColumnLog("join-rows", columns, chunk_rows, optional={"request": 0, CLASS_SCORES: math.nan})
        self.left_out = 0
        self._chunks: dict[int, _Chunk] = {}

    def __len__(self) -> int:
        return self.log.count - self.log.tail

    @property
    def nbytes(self) -> int:
        own = (chunk.table.nbytes + sum(a.nbytes for a in chunk.newest.values()) for chunk in self._chunks.values())
        return self.log.nbytes + sum(own)

    def add(self, batch: Predictions) -> list[tuple[int, int, int]]:
        """Append; returns the (chunk, first, stop) of the places that were filled. Cost: .1 µs a prediction."""
        columns = {name: getattr(batch, name.partition(".")[0]) for name in self.log.columns}
        if columns.get("request", 0) is None:
            columns["request"] = np.zeros(len(batch), np.uint64)
        own = self._class_scores
        if own is not None and columns[own] is None:
            columns[own] = np.full((len(batch), self.log.columns[own][1]), math.nan)
        filled = self.log.append(columns)
        self._enter(filled)
        return filled

    def class_scores(self, rows: I64) -> F64 | None:
        """F64[n, c] of rows that are held; None where none are kept."""
        return None if self._class_scores is None else self.log.gather(rows, self._class_scores)[0]

    def load(self, blobs: Mapping[str, bytes], tail: int, count: int) -> None:
        """Fill an empty index. Raises ContainerError."""
        self._enter(self.log.load(blobs, tail, count))

    def _enter(self, filled: list[tuple[int, int, int]]) -> None:
        for index, first, stop in filled:
            columns = self.log.chunks[index]
            times = columns["event_time_ms"][first:stop]
            low, high = int(times.min()), int(times.max())
            chunk = self._chunks.get(index)
            if chunk is None:
                slots = -(-self.log.chunk_rows * 4 // 3)
                chunk = self._chunks[index] = _Chunk(np.zeros(slots, np.uint32), low, high, {})
            chunk.first_ms, chunk.last_ms = min(chunk.first_ms, low), max(chunk.last_ms, high)
            self.left_out += int(
                join_table.insert(chunk.table, columns["id_high"], columns["id_low"], first, stop)
            )  # fmt: skip

    def find(self, id_high: U64, id_low: U32, time_ms: I64, slice_end_ms: I64, reach_ms: int) -> tuple[I64, I64, U8]:
        """(row or -1, its event time, whether one follows within the slice) of each event of feedback, `time_ms` ascending.

        The row is the newest of the same id in (time - reach, time], of equally new ones the first in the log.
        """
        row, at = np.full(len(time_ms), -1, np.int64), np.zeros(len(time_ms), np.int64)
        after = np.zeros(len(time_ms), np.uint8)
        for index in sorted(self._chunks):
            chunk, columns = self._chunks[index], self.log.chunks[index]
            first = int(np.searchsorted(slice_end_ms, chunk.first_ms, side="right"))
            stop = int(np.searchsorted(time_ms - reach_ms, chunk.last_ms, side="left"))
            if first < stop:
                join_table.find(
                    chunk.table, columns["id_high"], columns["id_low"], columns["event_time_ms"],
                    index * self.log.chunk_rows, id_high[first:stop], id_low[first:stop], time_ms[first:stop],
                    slice_end_ms[first:stop], reach_ms, row[first:stop], at[first:stop], after[first:stop],
                )  # fmt: skip
        return row, at, after

    def between(self, first_ms: int, stop_ms: int) -> I64:
        """Row numbers, ascending, of the predictions with first_ms <= time < stop_ms."""
        found = [np.empty(0, np.int64)]
        for index in self.overlapping(first_ms, stop_ms):
            times = self.log.chunks[index]["event_time_ms"][: self.log.filled(index)]
            places = np.flatnonzero((times >= first_ms) & (times < stop_ms))
            found.append(places + index * self.log.chunk_rows)
        return np.concatenate(found)

    def overlapping(self, first_ms: int, stop_ms: int) -> list[int]:
        """Chunks that may hold predictions of these times, ascending."""
        return [
            i
            for i in sorted(self._chunks)
            if self._chunks[i].first_ms < stop_ms and self._chunks[i].last_ms >= first_ms
        ]

    def last_ms(self, index: int) -> int:
        """The largest event time in a chunk."""
        return self._chunks[index].last_ms

    # -- the newest change of each prediction

    def newest(self, stream: int, rows: I64, tail: int) -> I64:
        """Number of the newest change by `stream` of each row, -1 = none; `tail`: the first number that is held."""
        numbers = np.full(len(rows), -1, np.int64)
        index, place = np.divmod(rows, self.log.chunk_rows)
        for each in np.unique(index).tolist():
            kept = self._chunks[each].newest.get(stream)
            if kept is not None:
                here = np.flatnonzero(index == each)
                numbers[here] = widened(kept[place[here]], tail)
        return numbers

    def set_newest(self, stream: int, rows: I64, numbers: I64) -> None:
        """Where a row stands several times, the last counts."""
        index, place = np.divmod(rows, self.log.chunk_rows)
        for each in np.unique(index).tolist():
            newest = self._chunks[each].newest
            if stream not in newest:
                newest[stream] = np.full(self.log.chunk_rows, NONE, np.uint32)
            here = np.flatnonzero(index == each)
            newest[stream][place[here]] = narrowed(numbers[here])

    # -- what goes

    def expire(self, before_ms: int) -> None:
        """Drop full chunks, the oldest first, whose predictions all lie before `before_ms`."""
        while self.log.chunks:
            index = min(self.log.chunks)
            if not self.log.is_full(index) or self._chunks[index].last_ms >= before_ms:
                return
            self._drop(index)

    def evict(self, rows_max: int, awaited_from_ms: int) -> tuple[int, int]:
        """Drop the oldest chunks while more than `rows_max` rows are held, the chunk that is being filled apart.

        Returns (how many of them were awaited: not before `awaited_from_ms`; the end of their times, or awaited_from_ms).
        """
        evicted, until_ms = 0, awaited_from_ms
        while len(self) > rows_max and self.log.is_full(index := min(self.log.chunks)):
            times = self.log.chunks[index]["event_time_ms"]
            evicted += int((times >= awaited_from_ms).sum())
            until_ms = max(until_ms, self._chunks[index].last_ms + 1)
            self._drop(index)
        return evicted, until_ms

    def _drop(self, index: int) -> None:
        self.log.drop(index)
        del self._chunks[index]


def narrowed(numbers: I64) -> U32:
    """Numbers of changes in 32 bits; -1 = none."""
    return np.where(numbers < 0, np.int64(NONE), numbers % NUMBERS).astype(np.uint32)


def widened(kept: U32, tail: int) -> I64:
    """Inverse of `narrowed` for numbers from `tail` on."""
    return np.where(kept == NONE, np.int64(-1), tail + (kept.astype(np.int64) - tail) % NUMBERS)
