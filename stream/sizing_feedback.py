"""What waits for feedback, and what it costs: arithmetic of the join for `check-config`. Pure.

A prediction waits until it is final for every topic: the longest horizon and the larger lateness after it, and its own pane. Each
log of a partition (predictions, and of every topic events and what they changed) is made of chunks that are allocated whole and
go whole: up to one of what nobody waits for any more is held, and the last is not full. At low rates that is nearly all, some 7 MB
a partition, and 10 to 12 for each topic. Costs are bounds of it: the most that is allocated at a time. What no plan says is assumed:
events are spread evenly over models and partitions, every prediction gets a label, and every fifth a click and a conversion
(FEEDBACK_SHARE).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from stream.join import JoinPlan
from stream.join_feedback import FeedbackKind, FeedbackStream
from stream.performance_arrivals import WINDOWS_COUNTED
from stream.performance_plan import ModelPerformance
from stream.plan import CollectorPlan

FEEDBACK_SHARE = {FeedbackKind.CLICK: 0.2, FeedbackKind.CONVERSION: 0.2, FeedbackKind.LABEL: 1.0}
ROW_BYTES = 40  # of a prediction with one score: time, id, score, decision, group
REQUEST_BYTES = 8  # more, where models are compared in pairs
CLASS_BYTES = 8  # more, for each class whose score is kept
TABLE_BYTES = 4 * 4 / 3  # a table is three quarters full
NEWEST_BYTES = 4  # of a prediction, for every topic
CHANGE_BYTES = 29  # of an event that changed a prediction
EVENT_BYTES = 49  # of one that waits
WINDOW_GROUP_BYTES = 9_000  # of the open window of one series, version and segment, in the monitor
CLOSED_WINDOW_BYTES = 32  # of one that a series has still to reach, or that shares are counted from
PANE_WIRE_BYTES = 1_000  # of a pane of some hundred rows


@dataclass(frozen=True, slots=True)
class Waits:
    """What one partition holds of one kind: `needed` at the rate, at most `most`. `name`: of the topic, "" = predictions.

    bytes_each   of one in its log                  gone      so many more may be held that nobody waits for
    chunk_rows   of all logs                        changes   shares of them that each topic changes, once
    """

    name: str
    needed: int
    most: int
    bytes_each: float
    chunk_rows: int
    gone: int = 0
    changes: tuple[float, ...] = ()

    @property
    def nbytes(self) -> int:
        return self._bytes(min(self.needed + self.gone, self._held_most))

    @property
    def most_bytes(self) -> int:
        return self._bytes(self._held_most)

    @property
    def _held_most(self) -> int:
        """A step may begin a chunk before the oldest goes."""
        return self.most + self.chunk_rows

    def _bytes(self, held: int) -> int:
        changes = sum(self._whole(math.ceil(held * share) + self.chunk_rows) for share in self.changes)
        return round(self._whole(held) * self.bytes_each) + changes * CHANGE_BYTES

    def _whole(self, entries: int) -> int:
        """Places of the chunks of so many, the first of which begins a chunk."""
        return -(-entries // self.chunk_rows) * self.chunk_rows


def waits(plan: CollectorPlan, partitions: int, events_per_s: float) -> Iterator[Waits]:
    """Predictions first, then the events of each topic; nothing where no feedback is joined."""
    if plan.feedback is None:
        return
    join = plan.feedback.join
    each_s = _joined_per_s(plan, partitions, events_per_s)
    row_bytes = _columns_bytes(join) + TABLE_BYTES + NEWEST_BYTES * len(join.streams)
    needed = math.ceil(each_s * reach_ms(plan) / 1000) + join.chunk_rows
    changes = tuple(FEEDBACK_SHARE[stream.kind] for stream in join.streams)
    yield Waits("", needed, join.rows_max, row_bytes, join.chunk_rows, changes=changes)
    for stream in join.streams:
        held_ms = _behind_ms(plan, stream) + join.resolution_ms
        share, chunk = FEEDBACK_SHARE[stream.kind], join.chunk_rows
        events = math.ceil(each_s * share * held_ms / 1000)
        yield Waits(stream.name, events, join.waiting_max, EVENT_BYTES, chunk, gone=chunk)


def reach_ms(plan: CollectorPlan) -> int:
    """How long a prediction waits."""
    assert plan.feedback is not None
    join = plan.feedback.join
    return max(stream.reach_ms + _behind_ms(plan, stream) for stream in join.streams) + join.resolution_ms


def kept_ms(plan: CollectorPlan, partitions: int, events_per_s: float) -> int:
    """How old predictions are when the cap drops them."""
    assert plan.feedback is not None
    return int(plan.feedback.join.rows_max * 1000 / _joined_per_s(plan, partitions, events_per_s))


def saved_bytes_per_s(plan: CollectorPlan, events_per_s: float) -> float:
    """What the join adds to snapshots, all partitions: new rows, changes and events, each once."""
    if plan.feedback is None:
        return 0.0
    shares = sum(FEEDBACK_SHARE[stream.kind] for stream in plan.feedback.join.streams)
    return _joined_per_s(plan, 1, events_per_s) * (
        _columns_bytes(plan.feedback.join) + (CHANGE_BYTES + EVENT_BYTES) * shares
    )


def _columns_bytes(join: JoinPlan) -> int:
    """Of one prediction that waits."""
    return ROW_BYTES + (REQUEST_BYTES if join.requests else 0) + CLASS_BYTES * join.class_scores[0]


def monitor_bytes(plan: CollectorPlan) -> int:
    """What the monitors hold of performance: open windows of every series, one version each; closed ones up to the longest horizon,
    at most one a pane, once in the list and once at every point that shares of provisional values are counted from.
    """
    found = 0
    for model in plan.feedback.models.values() if plan.feedback is not None else ():
        for stream in model.streams:
            logs = 1 + len({point for pair in stream.ages for point in pair})
            found += len(stream.points_ms) * _groups(model) * WINDOW_GROUP_BYTES
            found += logs * (stream.horizons_ms[-1] // plan.resolution_ms + WINDOWS_COUNTED) * CLOSED_WINDOW_BYTES
    return found


def panes_bytes_per_s(plan: CollectorPlan, partitions: int) -> int:
    """What all collectors send of performance, where every pane has rows of every segment, of one version."""
    if plan.feedback is None:
        return 0
    series = sum(len(s.points_ms) * _groups(model) for model in plan.feedback.models.values() for s in model.streams)
    return round(series * partitions * PANE_WIRE_BYTES * 1000 / plan.resolution_ms)


def _groups(model: ModelPerformance) -> int:
    return 1 + sum(len(segment.values) + 1 for segment in model.segments)


def _behind_ms(plan: CollectorPlan, stream: FeedbackStream) -> int:
    """How far the slower of the two watermarks is behind the newest event, where nothing is late."""
    return max(plan.lateness_ms, stream.lateness_ms)


def _joined_per_s(plan: CollectorPlan, partitions: int, events_per_s: float) -> float:
    assert plan.feedback is not None
    return events_per_s * len(plan.feedback.models) / max(len(plan.models), 1) / max(partitions, 1)
