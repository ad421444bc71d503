"""When an idle partition ticks, and to which event time (contracts.md, Time). Pure: the clock comes as an argument.

A partition is idle when its log has not grown for `idle_timeout`. One that is idle and wholly read ticks
- while others are not idle: to the smallest edge that those have marked, so that it holds nobody up;
- when all are idle: to the largest event time that any marker names, plus the idle wall time, minus the lateness.
A tick is a decision: what it was is in the journal, so nothing here needs to be exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stream.panes import EDGE_END, EDGE_MIN, INPUTS, Announcement, Body, Marker
from stream.plan import CollectorPlan


@dataclass
class MarkerWatch:
    """What the markers in one panes partition say of each source partition; every marker reaches every panes partition.

    Times are of the inputs. `series`: names of the series of performance that must end besides.
    """

    sources: int
    marked_ms: dict[int, int] = field(default_factory=dict)
    largest_ms: dict[int, int] = field(default_factory=dict)
    series: frozenset[str] = frozenset()
    _epoch: dict[int, int] = field(default_factory=dict)
    _ended: set[tuple[int, str]] = field(default_factory=set)

    def add(self, epoch: int, body: Body) -> None:
        if not isinstance(body, Marker | Announcement) or epoch < self._epoch.get(body.partition, 0):
            return
        self._epoch[body.partition] = epoch
        if isinstance(body, Marker) and body.stream != INPUTS:
            if body.edge_ms == EDGE_END:
                self._ended.add((body.partition, body.stream))
        elif isinstance(body, Marker):
            self.marked_ms[body.partition] = max(self.marked_ms.get(body.partition, EDGE_MIN), body.edge_ms)
            self.largest_ms[body.partition] = max(self.largest_ms.get(body.partition, EDGE_MIN), body.largest_ms)

    @property
    def ended(self) -> bool:
        """Whether every source partition has marked the end of a bounded input, in every series."""
        inputs = all(self.marked_ms.get(source) == EDGE_END for source in range(self.sources))
        return inputs and all((source, name) in self._ended for source in range(self.sources) for name in self.series)


@dataclass
class FeedbackIdle:
    """Judges the partitions of one topic of feedback: one that is wholly read and has not grown for `idle_timeout` ticks to the
    largest event time that any marker of the predictions names, plus the idle wall time where these are idle, too, minus the
    topic's lateness. It holds back nothing but its own series, so how far the topic's other partitions are does not matter.
    """

    rule: IdleRule
    lateness_ms: int
    _ends: dict[int, tuple[int, float]] = field(default_factory=dict)

    def see(self, ends: Mapping[int, int], now_s: float, *, growing: bool = False) -> None:
        """The end offset of each partition, at `now_s` of a monotonic clock; growing: as if all had grown since."""
        for partition, end in ends.items():
            if growing or partition not in self._ends or self._ends[partition][0] != end:
                self._ends[partition] = (end, now_s)

    def tick_ms(self, partition: int, position: int, watermark_ms: int, now_s: float) -> int | None:
        """Event time to which a partition, read to `position`, ticks now; None = it does not."""
        if partition not in self._ends:
            return None
        end, since_s = self._ends[partition]
        largest_ms = max(self.rule.watch.largest_ms.values(), default=EDGE_MIN)
        if position < end or now_s - since_s < self.rule.idle_timeout_s or largest_ms == EDGE_MIN:
            return None
        until_ms = largest_ms + int(self.rule.all_idle_s(now_s) * 1000) - self.lateness_ms
        until_ms -= until_ms % self.rule.resolution_ms
        return until_ms if until_ms > watermark_ms else None


@dataclass
class IdleRule:
    """Judges idleness from the ends of the source partitions, seen again and again."""

    watch: MarkerWatch
    idle_timeout_s: float
    lateness_ms: int
    resolution_ms: int
    _ends: dict[int, tuple[int, float]] = field(default_factory=dict)

    def see(self, ends: Mapping[int, int], now_s: float, *, growing: bool = False) -> None:
        """The end offset of each source partition, at `now_s` of a monotonic clock; growing: as if all had grown since."""
        for source, end in ends.items():
            if growing or source not in self._ends or self._ends[source][0] != end:
                self._ends[source] = (end, now_s)

    def end(self, source: int) -> int | None:
        return self._ends[source][0] if source in self._ends else None

    def idle_s(self, source: int, now_s: float) -> float:
        """How long the log has not grown, as far as it was watched."""
        return now_s - self._ends[source][1] if source in self._ends else 0.0

    def all_idle_s(self, now_s: float) -> float:
        """How long no partition has grown; 0 = while any is not idle."""
        waited_s = min((self.idle_s(source, now_s) for source in range(self.watch.sources)), default=0.0)
        return waited_s if waited_s >= self.idle_timeout_s else 0.0

    def tick_ms(self, source: int, position: int, now_s: float) -> int | None:
        """Event time to which `source`, read to `position`, ticks now; None = it does not."""
        end = self.end(source)
        if end is None or position < end or self.idle_s(source, now_s) < self.idle_timeout_s:
            return None
        everyone = range(self.watch.sources)
        active = [other for other in everyone if self.idle_s(other, now_s) < self.idle_timeout_s]
        if active:
            if any(other not in self.watch.marked_ms for other in active):
                return None
            until = min(self.watch.marked_ms[other] for other in active)
        else:
            largest = max(self.watch.largest_ms.values(), default=EDGE_MIN)
            if largest == EDGE_MIN:
                return None
            waited_s = min(self.idle_s(other, now_s) for other in everyone)
            until = largest + int(waited_s * 1000) - self.lateness_ms
        if until != EDGE_END:
            until -= until % self.resolution_ms  # between two edges a tick would close nothing
        return until if until > self.watch.marked_ms.get(source, EDGE_MIN) else None


def feedback_idle(rule: IdleRule, plan: CollectorPlan) -> dict[str, FeedbackIdle]:
    """One judge for each topic of feedback."""
    streams = () if plan.feedback is None else plan.feedback.join.streams
    return {stream.name: FeedbackIdle(rule, stream.lateness_ms) for stream in streams}
