"""Stage 1: one partition of a predictions topic, counted into panes.

Rules (contracts.md: time, decisions, from collector to monitor; join-and-state.md: determinism)
1. An event is late below its own log's running maximum before it minus `lateness`, or below the floor that ticks raised;
   it is a dead letter when its time exceeds its record's by more than `max_future_skew`. Nothing else is judged by time.
   The running maximum is of the events that pass this rule, duplicates included: so it needs nothing but times.
2. An event belongs to the pane that starts at its time rounded down to `resolution`. That pane is closed by the record
   that lifts the watermark (running maximum minus lateness, or the floor) to the pane's end, or by a tick.
   An accepted event is never below the watermark before it, so its pane is open: nothing is counted after closing.
3. Hence a pane is a function of the events of its edge alone, and a chunk may be counted whole before its closings are
   sent, each with the counters as of its record. Sums run in log order. How the log is cut changes no byte of any output.
4. The first of equal ids within one edge counts; the others are duplicates.
5. Outputs stand in log order: dead letters before the closing that follows them; panes by edge, model, version, segment;
   then one marker to every panes partition. An advance over many edges gives one marker.
6. A plan is in force from the first edge that no open pane has reached when it is decided.
tests/laws/test_collector_laws.py goes red when any of 1 to 5 is broken.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Any

import numpy as np
import xxhash

from stream.accounting import Ledger, future_rejects
from stream.claims import GAP, RESET
from stream.collector_state import Saved, encode_blobs, restore
from stream.columns import I64, U8, Columns
from stream.copied import Seen
from stream.counting import Counting, prepare
from stream.deadletter import Policy, letter_writer
from stream.decode_feedback import FeedbackColumns
from stream.edge_state import EdgeState
from stream.join import is_joins
from stream.joining import Joining, labels_of
from stream.kernels import timeline
from stream.kernels.timeline import FUTURE, STATUSES
from stream.panes import EDGE_END, EDGE_MIN, INPUTS, Counters, Marker, encode_marker, encode_pane
from stream.plan import CollectorPlan, ModelPlan
from stream.plan_book import PlanBook
from stream.plan_codec import layout_columns, model_columns
from stream.stage import Decision, Output
from stream.topics import TopicRole

SPAN_CLOSINGS = 256  # panes closed by one pass over a chunk: bounds what sparse traffic holds open at once
END_OF_CHUNK = 1 << 62  # beyond every offset
PYTHON_BYTES = 20_000  # of the objects of an empty collector


class LayoutMismatchError(ValueError):
    """A plan reads a column that the decoded chunk does not have."""


class Collector:
    """A `Stage`. Columns.model indexes `plan.models` in order.

    `plan` gives the rules of time and, for a new state, the plans in force; a loaded state keeps its own until a decision
    "plan" replaces them. `monitors`: partitions of the panes topic. `topic`: name of the predictions topic;
    `feedback_topics`: those of the streams of `plan.feedback`, by stream; `copied_to`: of those that are re-keyed, the topics
    that are read in their place.
    """

    def __init__(
        self,
        partition: int,
        plan: CollectorPlan,
        *,
        monitors: int,
        topic: str,
        config_hash: str,
        app_version: str,
        policy: Policy = Policy(),  # noqa: B008  frozen
        feedback_topics: Mapping[str, str] | None = None,
        copied_to: Mapping[str, str] | None = None,
    ) -> None:
        self.outbox: list[Output] = []
        self._forgotten: tuple[str, ...] = ()  # blobs of a join that the loaded state had and the plan has not
        self._partition = partition
        self._plan = plan
        self._monitors = monitors
        letters = {
            source: letter_writer(
                topic=name, partition=partition, config_hash=config_hash, app_version=app_version, policy=policy,
                copied_to=(copied_to or {}).get(source, ""),
            )
            for source, name in {TopicRole.PREDICTIONS.value: topic, **(feedback_topics or {})}.items()
        }  # fmt: skip
        self._letter = letters[TopicRole.PREDICTIONS]
        self._feedback_letters = {stream: letters[stream] for stream in feedback_topics or {}}
        self._columns = layout_columns(plan)
        self._offered: dict[str, ModelPlan] = {}  # what the owner knows, not state: it survives `load`
        self._forget()

    def _forget(self) -> None:
        """The state of a partition of which nothing was read."""
        self.largest_ms = EDGE_MIN
        self.floor_ms = EDGE_MIN
        self.marked_ms = EDGE_MIN
        self.next_offset = 0
        self.ledger = Ledger()
        self.book = PlanBook(self._plan.models)
        for plan in self._offered.values():
            self.book.offer(plan)
        self.edges: dict[int, EdgeState] = {}
        self._ascending: list[int] = []  # a heap of the open edges
        self.saved = Saved()
        self.copied: dict[str, Seen] = {}  # what was read of sources that are re-keyed
        self._counting = Counting(
            [model.model for model in self._plan.models],
            self.book,
            self._open_edge,
            dedup=self._plan.dedup,
            versions_max=self._plan.versions_max,
        )
        feedback = self._plan.feedback
        self.joining = (
            None if feedback is None else Joining(self._partition, feedback, self._monitors, self._feedback_letters)
        )

    # -- what the owner asks

    @property
    def resolution_ms(self) -> int:
        return self._plan.resolution_ms

    @property
    def watermark_ms(self) -> int:
        """No event below it will be counted any more; EDGE_MIN - lateness = none was read."""
        return max(self.largest_ms - self._plan.lateness_ms, self.floor_ms)

    def accounting(self) -> Counters:
        """The counters as of the last record, a copy."""
        return self.ledger.snapshot()

    def in_force(self) -> dict[str, str]:
        """Model -> hash of the plan of its next unopened pane; models not watched any more are left out."""
        return self.book.in_force()

    def next_plan_edge(self, model: str) -> int:
        """The pane edge from which a plan decided now for `model` is in force: the same for every model."""
        del model
        return max([self.marked_ms, *(edge + self.resolution_ms for edge in self.edges)])

    def memory_bytes(self) -> int:
        """Bytes of the open panes, ids and plans, with the Python objects around them."""
        joined = 0 if self.joining is None else self.joining.join.nbytes
        return PYTHON_BYTES + self.book.nbytes + sum(edge.nbytes for edge in self.edges.values()) + joined

    def offer(self, plan: ModelPlan) -> str:
        """Make a plan known, so that a decision can name it by the returned hash. Raises PlanInvalidError."""
        plan_hash = self.book.offer(plan)
        self._columns |= model_columns(plan)
        self._offered[plan_hash] = plan
        return plan_hash

    # -- Stage

    def apply(self, source: str, batch: Columns | FeedbackColumns) -> None:
        """Count one chunk of the log of "predictions", or join one of a stream of feedback.

        Cost: .7 µs a prediction of 22 targets (load_tests.collector_speed); of the join: load_tests.join_speed.
        """
        if batch.copies is not None:
            self.copied.setdefault(source, Seen()).take(batch.copies)
        if isinstance(batch, FeedbackColumns):
            if self.joining is None or source not in self.joining.position:
                raise ValueError(f"this collector joins no {source!r}")
            self.saved.changed = True
            self.outbox.extend(self.joining.feedback(source, batch))
            self._join()
        elif source == TopicRole.PREDICTIONS:
            self._count(batch)
        else:
            raise ValueError(f"a collector reads predictions, not {source!r}")

    def _count(self, batch: Columns) -> None:
        if self.book.column_max >= batch.cell.shape[1]:
            raise LayoutMismatchError(f"plan reads column {self.book.column_max}, the chunk has {batch.cell.shape[1]}")
        self.saved.changed = True
        rows = len(batch)
        status, edge = np.empty(rows, np.uint8), np.zeros(rows, np.int64)
        closing_row, closing_edge = self._judge(batch, status, edge)
        future = np.flatnonzero(status == FUTURE)
        rejects = list(batch.rejects)
        if len(future):
            rejects += future_rejects(batch, future, self._plan.max_future_skew_ms)
            rejects.sort(key=lambda reject: (reject.offset, reject.row))
        self.ledger.open(rejects, batch.tombstone_offset)
        chunk = prepare(batch, self.book.category_columns())
        first = 0
        for start in range(0, len(closing_row) + 1, SPAN_CLOSINGS):
            closed = slice(start, start + SPAN_CLOSINGS)
            last = start + SPAN_CLOSINGS >= len(closing_row)
            stop = rows if last else int(closing_row[closed][-1]) + 1
            self._counting.count(chunk, status, edge, first, stop)
            if self.joining is not None:
                self.joining.take(chunk, edge, status, (first, stop), labels_of(self.edges, self._plan.versions_max))
            self._account(batch, status, first, stop, (closing_row[closed], closing_edge[closed]))
            first = stop
            if last:
                break
        self._dead_letters(END_OF_CHUNK, 0)
        self.next_offset = batch.next_offset
        if self.joining is not None:
            self.joining.add(chunk, _times(batch.event_time_ms), self.watermark_ms)
            self._join()

    def _join(self) -> None:
        """Send what feedback has made final."""
        assert self.joining is not None
        position = {TopicRole.PREDICTIONS.value: self.next_offset} | self.joining.position
        self.outbox.extend(self.joining.outputs(position, self.largest_ms))

    def decide(self, decision: Decision) -> None:
        """Kinds "tick" {"until_ms", "stream": one of feedback; without it the predictions}, "plan" {"model", "plan": a hash that was
        offered, "" = watch no more}, claims.GAP, claims.RESET.

        A gap is only counted: what its events were nobody knows, so neither the watermark nor a pane moves. Nor
        does a reset move them: what the new log repeats is a duplicate in an open pane and late behind the watermark.

        Raises UnknownPlanError, ValueError for another kind; the state is unchanged then.
        """
        self.saved.changed = True
        if decision.kind == "tick":
            self._tick(decision)
        elif decision.kind == "plan":
            model = decision.body["model"]
            self.book.switch(model, decision.body["plan"], self.next_plan_edge(model))
            self.book.fold(self.marked_ms)
        elif decision.kind in {GAP, RESET}:
            for source, body in decision.body.items():
                self._lose(decision.kind, source, body)
        else:
            raise ValueError(f"a collector knows no decision {decision.kind!r}")

    def _tick(self, decision: Decision) -> None:
        until_ms, stream = decision.body["until_ms"], decision.body.get("stream")
        if stream is not None:
            if self.joining is None or stream not in self.joining.position:
                return  # taken under a configuration that joined it
            self.joining.join.tick(stream, until_ms)
            self._join()
            return
        self.floor_ms = max(self.floor_ms, until_ms)
        edge = EDGE_END if self.floor_ms >= EDGE_END else self.watermark_ms // self.resolution_ms * self.resolution_ms
        if edge > self.marked_ms:
            offset = decision.position.get(TopicRole.PREDICTIONS, self.next_offset)
            self._close(edge, self.largest_ms, offset, idle=edge < EDGE_END)
        if self.joining is not None:
            self.joining.move(self.watermark_ms)
            self._join()

    def _lose(self, kind: str, source: str, body: Any) -> None:
        """A source began later than the position, or is another log."""
        to = body[1] if kind == GAP else body["to"]
        if source == TopicRole.PREDICTIONS:
            self.next_offset = to
            if kind == GAP:
                self.ledger.counters.gap += to - body[0]
            else:
                self.ledger.counters.resets += 1
        elif self.joining is not None and source in self.joining.position:
            self.joining.position[source] = to
            if kind == GAP:
                self.joining.gap[source] += to - body[0]
            else:
                self.joining.resets[source] += 1

    def changed_blobs(self) -> dict[str, bytes | None]:
        """Blobs that changed since the last call: meta, plan/<hash>, pane/<edge>, ids/<edge>/<n> (new ids only), the join's."""
        changed = self.saved.changed
        blobs = encode_blobs(self, self.saved)
        if self.joining is not None and changed:  # a state has all its blobs or none
            blobs |= self.joining.join.changed_blobs()
        blobs |= dict.fromkeys(self._forgotten)
        self._forgotten = ()
        return blobs

    def full_blobs(self) -> dict[str, bytes]:
        """The whole state, whatever was saved; the canonical form for comparisons."""
        blobs = encode_blobs(self, Saved(changed=True), whole=True)
        if self.joining is not None:
            blobs |= self.joining.join.whole_blobs()
        return {name: blob for name, blob in blobs.items() if blob is not None}

    def load(self, blobs: Mapping[str, bytes]) -> None:
        """Become the state that the blobs describe. Raises ContainerError, ResolutionChangedError, JoinPlanError."""
        self._forget()
        joined = {name: blob for name, blob in blobs.items() if is_joins(name)}
        own = {name: blob for name, blob in blobs.items() if name not in joined}
        feedback = restore(self, own, self._columns, dedup=self._plan.dedup)
        self._ascending = sorted(self.edges)
        if self.joining is not None:
            self.joining.load(feedback, joined, self.next_plan_edge(""))
        else:
            self._forgotten = tuple(sorted(joined))

    # -- the log

    def _judge(self, batch: Columns, status: U8, edge: I64) -> tuple[I64, I64]:
        """Status and edge of every row, and where panes close: rows, and the edges up to which."""
        rows, edges = np.empty(len(batch), np.int64), np.empty(len(batch), np.int64)
        plan = self._plan
        self.largest_ms, closings = map(
            int,
            timeline.judge(
                _times(batch.event_time_ms), _times(batch.record_time_ms), self.largest_ms, self.floor_ms, self.marked_ms,
                plan.resolution_ms, plan.lateness_ms, plan.max_future_skew_ms, status, edge, rows, edges,
            ),
        )  # fmt: skip
        return rows[:closings], edges[:closings]

    def _account(self, batch: Columns, status: U8, first: int, stop: int, closings: tuple[I64, I64]) -> None:
        """Walk the closings of rows [first, stop): counters, dead letters, panes and markers as of each."""
        closing_row, closing_edge = closings
        stops = np.append(closing_row + 1, stop)
        counts = np.zeros((len(stops), STATUSES), np.int64)
        timeline.tally(status, first, stops, counts)
        counts = np.diff(counts, axis=0, prepend=0)
        for k, row in enumerate(closing_row.tolist()):
            offset = int(batch.offset[row])
            self._dead_letters(offset, int(batch.row[row]))
            self.ledger.add_rows(counts[k])
            self._close(int(closing_edge[k]), int(batch.event_time_ms[row]), offset + 1)
        self.ledger.add_rows(counts[-1])

    def _dead_letters(self, offset: int, row: int) -> None:
        self.outbox.extend(map(self._letter, self.ledger.pass_to(offset, row)))

    def _close(self, edge_ms: int, largest_ms: int, next_offset: int, *, idle: bool = False) -> None:
        """Send every open pane before `edge_ms`, then the marker."""
        while self._ascending and self._ascending[0] < edge_ms:
            closed = self.edges.pop(heapq.heappop(self._ascending))
            for pane in closed.ordered():
                key = pane.model.encode()
                target = xxhash.xxh3_64_intdigest(key) % self._monitors
                for record in encode_pane(pane.to_pane(self._partition, closed.edge_ms)):
                    self.outbox.append(Output(TopicRole.PANES, key, record, target))
        self.marked_ms = edge_ms
        self.book.fold(edge_ms)
        marker = Marker(
            partition=self._partition,
            stream=INPUTS,
            edge_ms=edge_ms,
            next_offset={TopicRole.PREDICTIONS.value: next_offset},
            counters=self.ledger.as_dict(),
            plans=self.book.in_force(),
            largest_ms=largest_ms,
            idle=idle,
        )
        record = encode_marker(marker)
        self.outbox.extend(
            Output(TopicRole.PANES, None, record, target, barrier=True) for target in range(self._monitors)
        )

    def _open_edge(self, edge_ms: int) -> EdgeState:
        found = self.edges.get(edge_ms)
        if found is None:
            found = self.edges[edge_ms] = EdgeState(edge_ms)
            heapq.heappush(self._ascending, edge_ms)
        return found


def _times(times: Any) -> I64:
    return np.require(times, np.int64, ["C", "W"])
