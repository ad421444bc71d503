"""One topic of feedback in the join: what waits for the watermarks, and what it changed on predictions.

Rules (join-and-state.md: determinism; contracts.md: time)
1. An event is late below its own log's running maximum before it minus the stream's `lateness`, or below the floor that ticks
   raised. Its time is when it became known.
2. It waits until both watermarks, the predictions' and its own, have passed the end of its slice (as long as a pane). Then
   all events of the slice are there, and so are all predictions before the slice's end: they are taken in order of (time,
   place in the log), and what becomes of them is a function of sets.
3. It belongs to the newest prediction of its id that is not after it and less than the last horizon before it. Without
   one it is `before_prediction` where the prediction follows within the slice, else `carried` where it says itself what was
   predicted, else an `orphan`: of an unknown id, or past the last horizon, which cannot be told apart.
4. A click counts once. Conversions of other times add up; the same time again is a duplicate (another value: contradictory,
   the first in the log counts). The last label counts; another one before it made it contradictory. A record without a value
   retracts what there is. What changed after a horizon of the prediction had passed with the old outcome is counted `revised`:
   the value of that horizon is what was known within it, and stays.
5. Events that carry model, version, prediction and score are counted in the slice in which they became known as well, the
   last of each id there, whether or not their prediction waits: a series of its own, which does not depend on what waits. A
   retraction does not reach them. Of each slice and model the first `versions_max` versions in the log are told apart, the
   others are counted as OTHER.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream import container
from stream.column_log import ColumnLog
from stream.columns import F64, I64, U8, U32, U64
from stream.feedback_outcomes import FeedbackCounters
from stream.join_groups import NO_GROUP, Group, Groups, Versions, last_of_each
from stream.join_index import NONE, JoinIndex, narrowed, widened
from stream.kernels import join_table, timeline
from stream.kernels.timeline import APPLIED, FUTURE, LATE
from stream.label_values import ABSURD, NEGATIVE, UNKNOWN_LABEL, value_status
from stream.panes import EDGE_MIN

OVERFLOW = UNKNOWN_LABEL + 1  # what became of an event on arrival, beside those of timeline and label_values
CARRIED = 0  # the horizon of feedback that needs no join: counted in the slice in which it became known
SPAN_EVENTS = 1 << 18  # taken at once, to the end of a slice


class FeedbackKind(StrEnum):
    CLICK = "click"
    CONVERSION = "conversion"
    LABEL = "label"


_CODE = {
    FeedbackKind.CLICK: join_table.CLICK,
    FeedbackKind.CONVERSION: join_table.CONVERSION,
    FeedbackKind.LABEL: join_table.LABEL,
}
_REFUSED = {"late": LATE, "future": FUTURE, "negative": NEGATIVE, "absurd": ABSURD}
_REFUSED |= {"unknown_label": UNKNOWN_LABEL, "overflow": OVERFLOW}


@dataclass(frozen=True, slots=True)
class FeedbackStream:
    """One topic of feedback. `horizons_ms` ascending, multiples of the resolution; `ages_ms`: between them, at which panes are
    given out as well, of what was known so far; `low`, `high`: the declared range of values, ends included. A negative value
    outside of it is counted apart. `carries`: events may carry their prediction.
    `classes`, `numbers`: of labels, see label_values.value_status.
    """

    name: str
    kind: FeedbackKind
    horizons_ms: tuple[int, ...]
    lateness_ms: int
    low: float = -math.inf
    high: float = math.inf
    carries: bool = False
    classes: tuple[float, ...] | None = None
    numbers: bool = True
    ages_ms: tuple[int, ...] = ()

    @property
    def points_ms(self) -> tuple[int, ...]:
        """How long after it a pane is given out, ascending: at its ages and horizons."""
        return tuple(sorted({*self.horizons_ms, *self.ages_ms}))

    @property
    def reach_ms(self) -> int:
        return self.horizons_ms[-1]

    @property
    def series_ms(self) -> tuple[int, ...]:
        """The horizons of all its series, ascending; an age is the horizon of its own."""
        return (CARRIED, *self.points_ms) if self.carries else self.points_ms


@dataclass(frozen=True, slots=True)
class Feedback:
    """n events of one stream in log order.

    event_time_ms: when it became known; record_time_ms: Kafka's, both I64[n]; id_high U64[n], id_low U32[n]; value F64[n]:
    a label (a value, or the code of a class) or an amount, not read of clicks; retracts bool[n]: a record without a value.
    group U32[n]: NO_GROUP, or a place in `groups` where the event carries predicted F64[n] and score F64[n, k].
    """

    event_time_ms: I64
    record_time_ms: I64
    id_high: U64
    id_low: U32
    value: F64
    retracts: NDArray[np.bool_]
    group: U32
    predicted: F64
    score: F64
    groups: tuple[Group, ...] = ()

    def __len__(self) -> int:
        return len(self.event_time_ms)


@dataclass(frozen=True, slots=True)
class Carried:
    """Events that needed no join, by slice: the columns of Feedback."""

    event_time_ms: I64
    value: F64
    group: U32
    predicted: F64
    score: F64


class FeedbackState:
    """`done_ms`: everything before it was taken. `starts_ms`: first edge of each horizon."""

    def __init__(
        self, plan: FeedbackStream, place: int, scores: int, *, waiting_max: int, versions_max: int, chunk_rows: int
    ) -> None:
        self.plan = plan
        self.counters = FeedbackCounters()
        self.largest_ms = self.floor_ms = self.done_ms = EDGE_MIN
        self.starts_ms = dict.fromkeys(plan.points_ms, EDGE_MIN)
        self.waiting = 0
        columns = {
            "event_time_ms": "<i8", "id_high": "<u8", "id_low": "<u4", "value": "<f8", "retracts": "|b1",
            "group": "<u4", "predicted": "<f8", "score": ("<f8", scores),
        }  # fmt: skip
        self.log = ColumnLog(f"join-waiting.{plan.name}", columns, chunk_rows)
        changes = {"row": "<i8", "delay_ms": "<i8", "value": "<f8", "present": "|u1", "previous": "<u4"}
        self.changes = ColumnLog(f"join-changes.{plan.name}", changes, chunk_rows, derived=frozenset({"previous"}))
        self.groups = Groups(f"join-groups.{plan.name}")
        self._place = place
        self._waiting_max = waiting_max
        self._versions = Versions(self.groups, versions_max)
        self._span: dict[int, tuple[int, int]] = {}  # chunk -> its first and last event time

    @property
    def watermark_ms(self) -> int:
        return max(self.largest_ms - self.plan.lateness_ms, self.floor_ms)

    @property
    def nbytes(self) -> int:
        return self.log.nbytes + self.changes.nbytes

    # -- arrival

    def take(self, batch: Feedback, resolution_ms: int, skew_ms: int) -> U8:
        """Judge by time and value, keep what is to be joined. Returns the status of every event."""
        status = np.empty(len(batch), np.uint8)
        unused = (np.empty(len(batch), np.int64) for _ in range(3))
        largest, _ = timeline.judge(
            np.require(batch.event_time_ms, np.int64, ["C", "W"]), np.require(batch.record_time_ms, np.int64, ["C", "W"]),
            self.largest_ms, self.floor_ms, EDGE_MIN // resolution_ms * resolution_ms, resolution_ms,
            self.plan.lateness_ms, skew_ms, status, *unused,
        )  # fmt: skip
        self.largest_ms = int(largest)
        if self.plan.kind is not FeedbackKind.CLICK:
            judged, plan = (status == APPLIED) & ~batch.retracts, self.plan
            values = batch.value[judged]
            status[judged] = value_status(values, plan.low, plan.high, plan.classes, numbers=plan.numbers)
        rows = np.flatnonzero(status == APPLIED)
        room = max(self._waiting_max - self.waiting, 0)
        status[rows[room:]] = OVERFLOW
        rows = rows[:room]
        counts = np.bincount(status, minlength=OVERFLOW + 1).tolist()
        self.counters.consumed += len(batch)
        for name, code in _REFUSED.items():
            setattr(self.counters, name, getattr(self.counters, name) + counts[code])
        if len(rows):
            self.waiting += len(rows)
            arrays = {name: getattr(batch, name)[rows] for name in self.log.columns}
            slices = batch.event_time_ms[rows] // resolution_ms
            arrays["group"] = self._versions.codes(
                batch.groups, batch.group[rows], slices, self.log.count // self.log.chunk_rows
            )
            if self.plan.kind is FeedbackKind.CLICK:
                arrays["value"] = np.ones(len(rows))
            self._enter(self.log.append(arrays))
        return status

    def _enter(self, filled: list[tuple[int, int, int]]) -> None:
        for index, first, stop in filled:
            columns = self.log.chunks[index]
            times = columns["event_time_ms"][first:stop]
            low, high = self._span.get(index, (int(times[0]), int(times[0])))
            self._span[index] = min(low, int(times.min())), max(high, int(times.max()))
            self.groups.touch(columns["group"][first:stop], index)

    # -- the join

    def join(self, index: JoinIndex, until_ms: int, resolution_ms: int) -> Carried:
        """Take every event before `until_ms`, the end of a slice. Cost: 6 µs an event of a burst over 10M predictions, closing included."""
        numbers, times = self._due(until_ms)
        slices = times // resolution_ms
        parts, first = [], 0
        while first < len(numbers):
            stop = first + SPAN_EVENTS
            if stop < len(numbers):  # to the end of the slice
                stop = int(np.searchsorted(slices, slices[stop - 1], side="right"))
            parts.append(self._join(index, numbers[first:stop], resolution_ms))
            first = stop
        self.waiting -= len(numbers)
        self.done_ms = until_ms
        self._versions.forget(until_ms // resolution_ms)
        names = Carried.__slots__
        none = self.log.gather(np.empty(0, np.int64), *names)
        joined = [[none[k], *(getattr(part, name) for part in parts)] for k, name in enumerate(names)]
        return Carried(*(np.concatenate(column) for column in joined))

    def _due(self, until_ms: int) -> tuple[I64, I64]:
        """Numbers and times of the events of [done, until), by (time, place in the log)."""
        numbers, times = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for index in sorted(self._span):
            low, high = self._span[index]
            if low < until_ms and high >= self.done_ms:
                time = self.log.chunks[index]["event_time_ms"][: self.log.filled(index)]
                places = np.flatnonzero((time >= self.done_ms) & (time < until_ms))
                numbers.append(places + index * self.log.chunk_rows)
                times.append(time[places])
        time = np.concatenate(times)
        order = np.argsort(time, kind="stable")
        return np.concatenate(numbers)[order], time[order]

    def drop_taken(self) -> None:
        """Drop events that were joined, and groups that none of the others has; what `join` returned has been read."""
        while self.log.chunks:
            index = min(self.log.chunks)
            if not self.log.is_full(index) or self._span[index][1] >= self.done_ms:
                return
            self.log.drop(index)
            del self._span[index]
            self.groups.prune(index + 1)

    def _join(self, index: JoinIndex, numbers: I64, resolution_ms: int) -> Carried:
        """Join whole slices of events in canonical order; returns those that carry their prediction."""
        names = ("event_time_ms", "id_high", "id_low", "value", "retracts", "group")
        time, high, low, value, retracts, group = self.log.gather(numbers, *names)
        slice_end = (time // resolution_ms + 1) * resolution_ms
        row, at, after = index.find(high, low, time, slice_end, self.plan.reach_ms)
        hit = np.flatnonzero(row >= 0)
        self._change(index, row[hit], time[hit] - at[hit], value[hit], retracts[hit])
        carrying = np.flatnonzero((group != NO_GROUP) & ~retracts)
        kept = carrying[last_of_each(slice_end[carrying], high[carrying], low[carrying])]
        lost = row < 0
        follows = lost & (after == 1)
        alone = np.zeros(len(row), bool)
        alone[carrying] = (lost & ~follows)[carrying]
        winner = np.zeros(len(row), bool)
        winner[kept] = True
        counters = self.counters
        counters.before_prediction += int(follows.sum())
        counters.carried += int((alone & winner).sum())
        counters.duplicate += int((alone & ~winner).sum())
        counters.orphan += int((lost & ~follows & ~alone).sum())
        predicted, score = self.log.gather(numbers[kept], "predicted", "score")
        return Carried(time[kept], value[kept], group[kept], predicted, score)

    def _change(self, index: JoinIndex, rows: I64, delay: I64, value: F64, retracts: NDArray[np.bool_]) -> None:
        """What these events, in canonical order, change on their predictions."""
        if not len(rows):
            return
        distinct, slot = np.unique(rows, return_inverse=True)
        tail = self.changes.tail
        number = index.newest(self._place, distinct, tail)
        known = np.flatnonzero(number >= 0)
        n, counts = len(rows), np.zeros(join_table.CHANGES, np.int64)
        state: list[NDArray[Any]] = [np.zeros(len(distinct), dtype) for dtype in (np.int64, np.uint8, np.float64)]
        for array, found in zip(state, self.changes.gather(number[known], "delay_ms", "present", "value"), strict=True):
            array[known] = found
        made_slot, made_delay, previous = (np.empty(n, np.int64) for _ in range(3))
        present, made_value = np.empty(n, np.uint8), np.empty(n)
        made = join_table.resolve(
            _CODE[self.plan.kind], np.array(self.plan.horizons_ms, np.int64), slot, delay, value, retracts,
            number, *state, self.changes.count, made_slot, made_delay, present, made_value, previous, counts,
        )  # fmt: skip
        changed = distinct[made_slot[:made]]
        first = self.changes.count
        arrays: dict[str, NDArray[Any]] = {
            "row": changed,
            "delay_ms": made_delay[:made],
            "value": made_value[:made],
            "present": present[:made],
        }
        self.changes.append(arrays | {"previous": narrowed(previous[:made])})
        index.set_newest(self._place, changed, np.arange(first, first + made))
        counters = self.counters
        for name in ("matched", "contradictory", "retracted", "duplicate", "revised"):
            setattr(counters, name, getattr(counters, name) + int(counts[getattr(join_table, name.upper())]))

    def outcomes(self, index: JoinIndex, rows: I64, horizon_ms: int) -> tuple[NDArray[np.bool_], F64, I64]:
        """(whether there is one, value, ms after the prediction) as known within the horizon, of each row."""
        tail = self.changes.tail
        number = index.newest(self._place, rows, tail)
        active = np.flatnonzero(number >= 0)
        while len(active):
            delay, previous = self.changes.gather(number[active], "delay_ms", "previous")
            after = delay >= horizon_ms
            active = active[after]
            number[active] = widened(previous[after], tail)
            active = active[number[active] >= 0]
        hit = np.flatnonzero(number >= 0)
        present, known, delay = self.changes.gather(number[hit], "present", "value", "delay_ms")
        hit, known, delay = hit[present == 1], known[present == 1], delay[present == 1]
        observed, value, after_ms = np.zeros(len(rows), bool), np.zeros(len(rows)), np.zeros(len(rows), np.int64)
        observed[hit], value[hit], after_ms[hit] = True, known, delay
        return observed, value, after_ms

    def expire(self, rows_tail: int) -> None:
        """Drop changes of predictions that are no longer held."""
        while self.changes.chunks:
            index = min(self.changes.chunks)
            if not self.changes.is_full(index) or int(self.changes.chunks[index]["row"].max()) >= rows_tail:
                return
            self.changes.drop(index)

    # -- snapshots

    def header(self) -> dict[str, Any]:
        """For a snapshot."""
        return {
            "name": self.plan.name,
            "kind": self.plan.kind.value,
            "largest_ms": self.largest_ms,
            "floor_ms": self.floor_ms,
            "done_ms": self.done_ms,
            "starts_ms": [[horizon, start] for horizon, start in sorted(self.starts_ms.items())],
            "events": [self.log.tail, self.log.count, self.waiting],
            "changes": [self.changes.tail, self.changes.count],
            "counters": asdict(self.counters),
        }

    def load(self, header: Mapping[str, Any], blobs: Mapping[str, bytes], index: JoinIndex, resolution_ms: int) -> None:
        """Fill an empty state; a horizon that is new begins with the first pane that nothing was taken for.

        Raises ContainerError.
        """
        self.largest_ms, self.floor_ms = header["largest_ms"], header["floor_ms"]
        self.done_ms = header["done_ms"]
        known = dict(header["starts_ms"])
        self.starts_ms = {horizon: known.get(horizon, self.done_ms) for horizon in self.plan.points_ms}
        self.counters = FeedbackCounters(**header["counters"])
        tail, count, self.waiting = header["events"]
        if self.groups.name not in blobs:
            raise container.UnknownSection("join", self.groups.name, "missing")
        self.groups.load(blobs[self.groups.name], tail // self.log.chunk_rows)
        self._enter(self.log.load(blobs, tail, count))
        for number, columns in self.log.chunks.items():  # every event of a slice waits until all of it is taken
            waits = columns["event_time_ms"][: self.log.filled(number)] >= self.done_ms
            times, group = (columns[name][: self.log.filled(number)][waits] for name in ("event_time_ms", "group"))
            self._versions.know(times // resolution_ms, group)
        for chunk, first, stop in self.changes.load(blobs, *header["changes"]):
            self._link(index, chunk, first, stop)

    def _link(self, index: JoinIndex, chunk: int, first: int, stop: int) -> None:
        """Tell the predictions of loaded changes.

        What stood before a change is not asked for any more: one beyond a horizon lies in a slice whose end closes the
        pane at that horizon, so a horizon that is still open has all its changes within it.
        """
        columns = self.changes.chunks[chunk]
        columns["previous"][first:stop] = NONE
        held = np.flatnonzero(columns["row"][first:stop] >= index.log.tail) + first
        index.set_newest(self._place, columns["row"][held], held + chunk * self.changes.chunk_rows)
