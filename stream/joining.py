"""The collector's part that joins feedback to predictions and sends what came of it: performance panes and their markers.

Rules (join.py and join_feedback.py have those of the join itself)
1. Predictions reach the join after they were counted, those that count alone; the input panes never wait for feedback.
2. Panes of a series (stream x horizon) are sent when they are final, then one marker to every panes partition, whose edge is
   Join.closed_ms. What they say is a function of the logs and the decisions, whatever the interleaving; how far a marker
   goes at once is not, so a new owner's marker may lie before its predecessor's: what it sends again is dropped.
3. A model's series begin with the first edge of which the join has every prediction: `begins`. A model that is new to a state
   begins with its next unopened pane; its series of labels that carry their prediction, with the next slice in which no label
   has become known: `carries_from`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import xxhash

from detectors.performance import Part, PerformanceSums
from stream.accounting import future_rejects, reject_of
from stream.columns import F64, I64, U8, U64, Reject, Tag
from stream.decode_feedback import FeedbackColumns, values_of
from stream.edge_state import EdgeState
from stream.join import Join, Matured
from stream.join_feedback import CARRIED, FeedbackKind
from stream.join_groups import Group
from stream.join_index import Predictions
from stream.join_pairs import NO_REQUEST, paired_panes, pane_of
from stream.kernels import timeline
from stream.kernels.timeline import APPLIED, FUTURE
from stream.label_values import ABSURD, NEGATIVE, UNKNOWN_LABEL, numbers_of
from stream.pane_state import Chunk, segment_name
from stream.panes import EDGE_END, EDGE_MIN, REASON_PREFIX, Marker, encode_marker
from stream.performance_panes import PerformancePane, encode_performance_pane, series_name
from stream.performance_plan import NO_CODE, FeedbackPlan, ModelPerformance, StreamPerformance
from stream.plan import ALL
from stream.stage import Output
from stream.topics import TopicRole

NUMBER_SALT = np.uint64(0x9E37_79B9_7F4A_7C15)  # 0 is a number, too
NUMBER_END = 2.0**53  # whole numbers below it are told apart
LetterWriter = Callable[[Reject], Output]
Label = Callable[[int, str, str], str]
"""(edge, model, version) -> the version under which it is counted."""


class Joining:
    """`letters`: what writes the dead letters of each stream. `position`: next offset of each stream's log."""

    def __init__(self, partition: int, plan: FeedbackPlan, monitors: int, letters: Mapping[str, LetterWriter]) -> None:
        self.plan = plan
        self.join = Join(plan.join)
        self.position = {stream.name: 0 for stream in plan.join.streams}
        self.rejects: dict[str, dict[str, int]] = {stream.name: {} for stream in plan.join.streams}
        self.gap = {stream.name: 0 for stream in plan.join.streams}
        self.resets = {stream.name: 0 for stream in plan.join.streams}
        self.marked_ms = dict.fromkeys(plan.series, EDGE_MIN)
        self.begins = {model.model: EDGE_MIN for model in plan.models.values()}
        self.carries_from = {
            (stream.stream, model.model): EDGE_MIN
            for model in plan.models.values()
            for stream in model.streams
            if stream.carries
        }
        self._partition = partition
        self._monitors = monitors
        self._letters = letters
        self._named = {model.model: model for model in plan.models.values()}
        self._watched = np.zeros(max(plan.models, default=-1) + 2, bool)  # the last place is that of index -1: no model
        self._watched[list(plan.models)] = True
        self._groups: list[Group] = []
        self._rows: list[tuple[I64, I64]] = []  # rows of the chunk, and the place of each one's group

    # -- predictions

    def take(self, chunk: Chunk, edge: I64, status: U8, span: tuple[int, int], label: Label) -> None:
        """Note rows [first, stop) of a chunk that were counted, while their edges are open."""
        first, stop = span
        rows = np.flatnonzero(status[first:stop] == APPLIED) + first
        model = chunk.model[rows]
        inside = model < len(self._watched) - 1
        rows, model = rows[inside], model[inside]
        rows = rows[self._watched[model]]
        for index in np.unique(chunk.model[rows]).tolist():
            self._take_model(self.plan.models[index], rows[chunk.model[rows] == index], chunk, edge, label)

    def _take_model(self, model: ModelPerformance, rows: I64, chunk: Chunk, edge: I64, label: Label) -> None:
        parts = [edge[rows], chunk.version[rows], *(_segment(chunk, rows, each) for each in model.segments)]
        place = np.zeros(len(rows), np.int64)
        for part in parts:
            values, code = np.unique(part, return_inverse=True)
            place = place * len(values) + code
        _, sample, group_of = np.unique(place, return_index=True, return_inverse=True)
        known: dict[Group, int] = {}
        codes = np.empty(len(sample), np.int64)
        for number, row in enumerate(sample.tolist()):
            version = chunk.version_names.get(int(parts[1][row]), "")
            segments = tuple(
                segment_name(each.key, each.values[at] if (at := int(slots[row])) < len(each.values) else None)
                for each, slots in zip(model.segments, parts[2:], strict=True)
            )
            group = Group(model.model, label(int(parts[0][row]), model.model, version), segments)
            codes[number] = known.setdefault(group, len(self._groups) + len(known))
        self._groups += known
        self._rows.append((rows, codes[group_of]))

    def add(self, chunk: Chunk, event_time_ms: I64, watermark_ms: int) -> None:
        """Give the noted rows to the join, and say how far the predictions have come."""
        rows = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in self._rows)])
        place = np.concatenate([np.empty(0, np.int64), *(place for _, place in self._rows)])
        order = np.argsort(rows, kind="stable")
        rows, place = rows[order], place[order]
        codes = np.array([self.join.group_code(group) for group in self._groups] or [0], np.uint32)
        score = np.full(len(rows), np.nan)
        tag = chunk.tag[rows, self.plan.score]
        score[tag == Tag.NUMBER] = chunk.number[rows, self.plan.score][tag == Tag.NUMBER]
        column = self.plan.prediction
        predicted = values_of(np.ascontiguousarray(chunk.cell[rows, column]), chunk.tag[rows, column])
        request = None if self.plan.request < 0 else _requests(chunk, rows, self.plan.request)
        self._groups, self._rows = [], []
        self.join.add_predictions(
            Predictions(
                event_time_ms[rows], chunk.id_high[rows], chunk.id_low[rows], score.reshape(-1, 1), predicted, codes[place],
                request, self._class_scores(chunk, rows),
            ),
            watermark_ms,
        )  # fmt: skip

    def _class_scores(self, chunk: Chunk, rows: I64) -> F64 | None:
        """F64[n, c] in the order of each row's model's classes, NaN = none; None where no model has them."""
        width, _ = self.plan.join.class_scores
        if not width:
            return None
        found = np.full((len(rows), width), np.nan)
        for index, model in self.plan.models.items():
            mine = np.flatnonzero(chunk.model[rows] == index)
            for place, column in enumerate(model.class_columns):
                numbers = mine[chunk.tag[rows[mine], column] == Tag.NUMBER]
                found[numbers, place] = chunk.number[rows[numbers], column]
        return found

    def move(self, watermark_ms: int) -> None:
        """The predictions' watermark has moved without an event."""
        none = np.empty(0, np.int64)
        empty = Predictions(
            none, none.astype(np.uint64), none.astype(np.uint32), np.empty((0, 1)), np.empty(0), none.astype(np.uint32)
        )
        self.join.add_predictions(empty, watermark_ms)

    # -- feedback

    def feedback(self, stream: str, batch: FeedbackColumns) -> Iterator[Output]:
        """Take one chunk of a stream's log; its dead letters in log order."""
        status = self.join.add_feedback(stream, batch.feedback)
        rejects = [*batch.rejects]
        future = np.flatnonzero(status == FUTURE)
        if len(future):
            rejects += future_rejects(batch, future, self.plan.join.max_future_skew_ms)
        plan = self.join.streams[stream].plan
        for code, reason, what in (
            (NEGATIVE, "negative_value", f"below zero, the range of the topic is [{plan.low:g}, {plan.high:g}]"),
            (UNKNOWN_LABEL, "unknown_label", "of no class of any model that is configured"),
            (ABSURD, "value_out_of_range", f"outside the range of the topic, [{plan.low:g}, {plan.high:g}]"),
        ):
            for row in np.flatnonzero(status == code).tolist():
                where = (int(batch.offset[row]), int(batch.row[row]), reason, what, "")
                rejects.append(reject_of(batch.records, where, int(batch.record_time_ms[row])))
        counts = self.rejects[stream]
        for reject in sorted(rejects, key=lambda reject: (reject.offset, reject.row)):
            counts[reject.code] = counts.get(reject.code, 0) + 1
            yield self._letters[stream](reject)
        self.position[stream] = batch.next_offset

    def is_full(self, stream: str) -> bool:
        """Whether so much of a stream waits for the predictions that no more should be read."""
        state = self.join.streams[stream]
        return state.waiting * 2 > self.plan.join.waiting_max and self.join.watermark_ms < state.watermark_ms

    def counters(self, stream: str) -> dict[str, int]:
        """Of one stream, by name, its dead letters by reason; consumed = dead letters that were not read + those of the join."""
        state = self.join.streams[stream]
        own = asdict(state.counters) | {
            "waiting": state.waiting,
            "gap": self.gap[stream],
            "resets": self.resets[stream],
        }
        return own | {REASON_PREFIX + code: count for code, count in sorted(self.rejects[stream].items())}

    def unended(self) -> list[str]:
        """Topics of feedback that are not at their end for ever, and those with a series that has not said so: of a horizon or an age that
        was added afterwards.
        """
        over = self.join.watermark_ms >= EDGE_END
        silent = {stream for (stream, _), edge_ms in self.marked_ms.items() if over and edge_ms < EDGE_END}
        return [n for n, state in self.join.streams.items() if state.watermark_ms < EDGE_END or n in silent]

    # -- what comes of it

    def outputs(self, next_offset: Mapping[str, int], largest_ms: int) -> Iterator[Output]:
        """Everything that has become final: panes, then the markers of their series. To be exhausted, after every input."""
        found: dict[tuple[str, int], list[PerformancePane]] = {}

        def sink(matured: Matured) -> None:
            found.setdefault((matured.stream, matured.horizon_ms), []).extend(self._panes(matured))

        self.join.advance(sink)
        for stream, horizon_ms in self.plan.series:
            for pane in found.get((stream, horizon_ms), ()):
                key = pane.model.encode()
                target = xxhash.xxh3_64_intdigest(key) % self._monitors
                yield Output(TopicRole.PANES, key, encode_performance_pane(pane), target)
            edge_ms = self._closed_ms(stream, horizon_ms)
            if edge_ms > self.marked_ms[stream, horizon_ms]:
                self.marked_ms[stream, horizon_ms] = edge_ms
                yield from self._marker(stream, horizon_ms, next_offset, largest_ms)

    def _closed_ms(self, stream: str, horizon_ms: int) -> int:
        ended = min(self.join.watermark_ms, self.join.streams[stream].watermark_ms) >= EDGE_END
        return EDGE_END if ended else self.join.closed_ms(stream, horizon_ms)

    def _marker(
        self, stream: str, horizon_ms: int, next_offset: Mapping[str, int], largest_ms: int
    ) -> Iterator[Output]:
        marker = Marker(
            partition=self._partition,
            stream=series_name(stream, horizon_ms),
            edge_ms=self.marked_ms[stream, horizon_ms],
            next_offset=dict(next_offset),
            counters=self.counters(stream),
            plans={},
            largest_ms=largest_ms,
        )
        record = encode_marker(marker)
        return (Output(TopicRole.PANES, None, record, target, barrier=True) for target in range(self._monitors))

    def _panes(self, matured: Matured) -> Iterator[PerformancePane]:
        """Of one pane at one horizon: one for each model, version and segment, in this order."""
        parts: dict[tuple[str, str, int, str], list[I64]] = {}
        models: dict[str, list[tuple[Group, I64]]] = {}
        for group, rows in matured.parts():
            if matured.edge_ms < self._first_ms(matured, group.model):
                continue
            models.setdefault(group.model, []).append((group, rows))
            for place, segment in enumerate((ALL, *group.segments)):
                parts.setdefault((group.model, group.version, place, segment), []).append(rows)
        for model, version, place, segment in sorted(parts):
            plan = self._named[model]
            stream = next((each for each in plan.streams if each.stream == matured.stream), None)
            if stream is None or matured.horizon_ms not in stream.points_ms:
                continue
            rows = np.concatenate(parts[model, version, place, segment])
            observed = int(np.count_nonzero(matured.observed[rows]))
            sums = sums_of(plan, stream, matured, rows)
            pane = pane_of(self._partition, plan, stream, matured, sums=sums, rows=len(rows), observed=observed)
            yield replace(pane, version=version, segment=segment)
        for model in sorted(models):
            yield from paired_panes(self._partition, self._named[model], models, matured)

    def _first_ms(self, matured: Matured, model: str) -> int:
        """The first edge that is said of a model; of one that is configured no more nothing is."""
        if matured.horizon_ms == CARRIED:
            return self.carries_from.get((matured.stream, model), EDGE_END)
        return self.begins.get(model, EDGE_END)

    # -- snapshots

    def header(self) -> dict[str, Any]:
        """For the collector's own blob; the join has blobs of its own."""
        return {
            "position": self.position,
            "rejects": self.rejects,
            "gap": self.gap,
            "resets": self.resets,
            "marked_ms": [[stream, horizon, edge] for (stream, horizon), edge in self.marked_ms.items()],
            "begins": self.begins,
            "carries_from": [[stream, model, edge] for (stream, model), edge in self.carries_from.items()],
        }

    def load(self, header: Mapping[str, Any] | None, blobs: Mapping[str, bytes], next_edge_ms: int) -> None:
        """Become what header and blobs describe, both of an earlier configuration, perhaps without feedback (None).

        Raises JoinPlanError, ContainerError.
        """
        known = header or {"begins": {}, "marked_ms": []}
        if header is not None:
            self.join.load(blobs)
        self.begins = {model: known["begins"].get(model, next_edge_ms) for model in self.begins}
        stored = {(stream, model): edge for stream, model, edge in known.get("carries_from", ())}
        self.carries_from = {each: stored.get(each, self._unread_ms(each[0])) for each in self.carries_from}
        for name in ("position", "rejects", "gap", "resets"):
            own = getattr(self, name)
            own |= {stream: value for stream, value in known.get(name, {}).items() if stream in own}
        for stream, horizon_ms, edge_ms in known["marked_ms"]:
            if (stream, horizon_ms) in self.marked_ms:
                self.marked_ms[stream, horizon_ms] = edge_ms

    def _unread_ms(self, stream: str) -> int:
        """The first edge of which no event was read."""
        largest_ms, resolution_ms = self.join.streams[stream].largest_ms, self.plan.join.resolution_ms
        return EDGE_MIN if largest_ms == EDGE_MIN else (largest_ms // resolution_ms + 1) * resolution_ms


def sums_of(plan: ModelPerformance, stream: StreamPerformance, matured: Matured, rows: I64) -> PerformanceSums:
    """What is kept of these rows of a pane."""
    sums = PerformanceSums(stream.layout)
    observed = matured.observed[rows]
    outcome = np.where(observed, matured.outcome[rows], np.nan)
    score: F64 = np.ascontiguousarray(matured.score[rows, 0])
    if stream.kind is FeedbackKind.CLICK:
        sums.add_proxies(observed, np.zeros(len(rows), bool), np.zeros(len(rows)), score)
    elif stream.kind is FeedbackKind.CONVERSION:
        sums.add_proxies(np.zeros(len(rows), bool), observed, np.where(observed, outcome, 0.0), score)
    elif stream.layout.classes:
        label = np.where(observed, plan.codes(outcome), NO_CODE)
        sums.add_classes(plan.codes(matured.predicted[rows]), label)
        if Part.SCORES in stream.layout.parts:
            sums.add_scores(score, label)
        if Part.CLASS_SCORES in stream.layout.parts:
            sums.add_class_scores(_of_classes(matured, rows, stream.layout.classes), label)
    else:
        sums.add_errors(numbers_of(matured.predicted[rows]), numbers_of(outcome))
    return sums


def _of_classes(matured: Matured, rows: I64, classes: int) -> F64:
    """F64[n, classes] of some rows; what brought its prediction with it has none."""
    if matured.class_scores is None:
        return np.full((len(rows), classes), np.nan)
    return np.ascontiguousarray(matured.class_scores[rows, :classes])


def _requests(chunk: Chunk, rows: I64, column: int) -> U64:
    """Hash of each row's request; NO_REQUEST where the event tells none. A number is not the text that looks like it; from
    2^53 on numbers are read as those beside them, so that they would pair requests that are not the same: they tell none.
    """
    cell, tag = chunk.cell[rows, column], chunk.tag[rows, column]
    found = np.full(len(rows), NO_REQUEST, np.uint64)
    found[tag == Tag.TEXT] = cell[tag == Tag.TEXT]
    exact = (tag == Tag.NUMBER) & (np.abs(chunk.number[rows, column]) < NUMBER_END)
    found[exact] = cell[exact] ^ NUMBER_SALT
    return found


def _segment(chunk: Chunk, rows: I64, segment: Any) -> I64:
    """Place of each row's value among the segment's, their number for any other."""
    found = np.full(len(rows), len(segment.values), np.int64)
    if segment.column >= 0:
        order = np.argsort(segment.value_hash)
        timeline.segment_of(
            rows, chunk.category, chunk.tag, segment.column, segment.value_hash[order], order,
            int(Tag.MISSING), int(Tag.INVALID), found,
        )  # fmt: skip
    return found


def labels_of(edges: Mapping[int, EdgeState], versions_max: int) -> Label:
    """The version under which an event of an open edge is counted."""

    def label(edge_ms: int, model: str, version: str) -> str:
        return edges[edge_ms].label(model, version, versions_max)

    return label
