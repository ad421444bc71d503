"""Predictions and their feedback: one state per partition number, and what it says of every pane at every horizon.

The rules of one stream of feedback stand in join_feedback.py. Here:
1. The streams do not wait for each other: each is joined up to the minimum of the predictions' watermark and its own, rounded
   down to a slice (as long as a pane). Predictions are never held back for feedback.
2. Pane e at horizon h of a stream is given out once, when that minimum has reached e + resolution + h: nothing that could
   change it is missing then, so it does not depend on how the topics were interleaved or cut into batches.
   An age of a stream is a horizon in this, though nothing is final there: what was known so far, the same for every pane.
3. A pane's rows stand in the order of the predictions' log, so that sums over them are the same bits every time.
4. A prediction is kept until it is final for every stream. Beyond `rows_max` the oldest go: a stream that stalls costs memory
   up to there, and its own panes, which then say `incomplete`; counted in `evicted`. Which rows these are does depend on how
   far the topics were apart.
tests/laws/test_join_laws.py goes red when one of 1 to 3 is broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream import container
from stream.columns import F64, I64, U8, U32, U64
from stream.join_feedback import CARRIED, Carried, Feedback, FeedbackState, FeedbackStream
from stream.join_groups import Group, Groups
from stream.join_index import CHUNK_ROWS, JoinIndex, Predictions
from stream.panes import EDGE_MIN

KIND = "join"
VERSION = 1
VERSIONS = (VERSION,)
META = "join"
GROUPS = "join-groups"
STREAM_PARTS = ("waiting", "changes", "groups")  # blobs of one stream
SPAN_CHUNKS = 8  # of predictions given out at once: bounds what closing a long time costs in memory


class JoinPlanError(ValueError):
    """A plan that cannot be joined by, or that a stored state was not made by."""


@dataclass(frozen=True, slots=True)
class JoinPlan:
    """`scores`: how many each prediction has. `rows_max`: predictions that may wait, at least two chunks; `waiting_max`: events
    of one stream that may wait for the watermarks; `versions_max`: of a model in one pane of feedback that needs no join;
    `requests`: keep which request each prediction is about, 8 bytes more of each; `class_scores`: how many scores of classes, 8 bytes
    each, and what names their meaning.
    """

    resolution_ms: int
    streams: tuple[FeedbackStream, ...]
    max_future_skew_ms: int
    rows_max: int
    waiting_max: int
    scores: int = 1
    chunk_rows: int = CHUNK_ROWS
    requests: bool = False
    versions_max: int = 20
    class_scores: tuple[int, str] = (0, "")


@dataclass(frozen=True, slots=True)
class Matured:
    """One pane at one horizon of one stream: its n predictions in log order, and what is known of each.

    group U32[n]: codes of `groups`; predicted F64[n], score F64[n, k]; observed bool[n], outcome F64[n] (1 of a click, the sum of
    conversions, the label; 0 where not observed), delay_ms I64[n]: the outcome's change, after the prediction.
    class_scores F64[n, c], NaN = none; None: none are kept.
    `incomplete`: the cap of waiting predictions has cost this pane rows, perhaps all of a group.
    horizon_ms CARRIED: events that brought their prediction with them; event_time_ms is when they became known.
    """

    stream: str
    horizon_ms: int
    edge_ms: int
    groups: Mapping[int, Group]
    event_time_ms: I64
    group: U32
    predicted: F64
    score: F64
    observed: NDArray[np.bool_]
    outcome: F64
    delay_ms: I64
    incomplete: bool
    request: U64 | None = None
    class_scores: F64 | None = None

    def __len__(self) -> int:
        return len(self.group)

    def parts(self) -> Iterator[tuple[Group, I64]]:
        """Each group and its rows, ascending; in order of the groups."""
        codes, place = np.unique(self.group, return_inverse=True)
        order = np.argsort(place, kind="stable")
        rows = np.split(order, np.cumsum(np.bincount(place, minlength=len(codes)))[:-1])
        named = [(self.groups[code], part) for code, part in zip(codes.tolist(), rows, strict=True)]
        return iter(sorted(named, key=lambda pair: pair[0]))


Sink = Callable[[Matured], None]


class Join:
    """`watermark_ms`: of the predictions. `evicted`: awaited predictions that the cap cost."""

    def __init__(self, plan: JoinPlan) -> None:
        _check(plan)
        self.plan = plan
        self.watermark_ms = EDGE_MIN
        self.index = JoinIndex(plan.scores, plan.chunk_rows, requests=plan.requests, class_scores=plan.class_scores)
        self.groups = Groups(GROUPS)
        self.streams = {
            stream.name: FeedbackState(
                stream,
                place,
                plan.scores,
                waiting_max=plan.waiting_max,
                versions_max=plan.versions_max,
                chunk_rows=plan.chunk_rows,
            )
            for place, stream in enumerate(plan.streams)
        }
        self.evicted = 0
        self._evicted_until_ms = EDGE_MIN
        self._pruned = 0  # row up to which predictions had gone when tables were cleaned last
        self._changed = True
        self._forgotten: set[str] = set()  # blobs of streams that a loaded state had and the plan has not

    @property
    def nbytes(self) -> int:
        return self.index.nbytes + sum(stream.nbytes for stream in self.streams.values())

    # -- input, in the order of each log

    def group_code(self, group: Group) -> int:
        """Code for Predictions.group; valid for the next `add_predictions` only, as tables forget what is not used."""
        return self.groups.code(group, self.index.log.count // self.plan.chunk_rows)

    def add_predictions(self, batch: Predictions, watermark_ms: int) -> None:
        """Add accepted predictions (none below the watermark before them) and say how far their topic has come."""
        self._changed = True
        self.watermark_ms = max(self.watermark_ms, watermark_ms)
        if len(batch):
            for chunk, first, stop in self.index.add(batch):
                self.groups.touch(self.index.log.chunks[chunk]["group"][first:stop], chunk)

    def add_feedback(self, stream: str, batch: Feedback) -> U8:
        """Take one batch of a stream's log. Returns what became of each event: kernels.timeline.APPLIED, LATE or FUTURE (of
        which the caller makes a dead letter), label_values.NEGATIVE, ABSURD or UNKNOWN_LABEL, join_feedback.OVERFLOW.
        """
        self._changed = True
        return self.streams[stream].take(batch, self.plan.resolution_ms, self.plan.max_future_skew_ms)

    def tick(self, stream: str, until_ms: int) -> None:
        """A decision: the stream's log is complete up to `until_ms`; EDGE_END = for ever."""
        self._changed = True
        state = self.streams[stream]
        state.floor_ms = max(state.floor_ms, until_ms)

    # -- output

    def advance(self, sink: Sink) -> None:
        """Join what the watermarks allow and give every pane that became final to `sink`; call it after every input.

        By stream and horizon, ages among them, in the plan's order, edges ascending; a pane without predictions is not given.
        """
        for state in self.streams.values():
            before, until = state.done_ms, self._reached(state)
            if until <= before:
                continue
            self._changed = True
            for matured in self._carried(state, state.join(self.index, until, self.plan.resolution_ms)):
                sink(matured)
            for horizon in state.plan.points_ms:
                first = max(before - horizon, state.starts_ms[horizon])
                for matured in self._between(state, horizon, first, until - horizon):
                    sink(matured)
            state.drop_taken()
        self._forget_old()

    def closed_ms(self, stream: str, horizon_ms: int) -> int:
        """Panes of that series before this edge are final; those from here on are not."""
        return self.streams[stream].done_ms - horizon_ms

    def _reached(self, state: FeedbackState) -> int:
        resolution = self.plan.resolution_ms
        return min(self.watermark_ms, state.watermark_ms) // resolution * resolution

    def _between(self, state: FeedbackState, horizon_ms: int, first_ms: int, stop_ms: int) -> Iterator[Matured]:
        """The panes of the edges [first, stop)."""
        resolution, log = self.plan.resolution_ms, self.index.log
        for start, end in self._spans(first_ms, stop_ms):
            rows = self.index.between(start, end)
            (time,) = log.gather(rows, "event_time_ms")
            edge = time // resolution * resolution
            if (edge[1:] < edge[:-1]).any():
                order = np.argsort(edge, kind="stable")
                rows, time, edge = rows[order], time[order], edge[order]
            group, predicted, score = log.gather(rows, "group", "predicted", "score")
            (request,) = log.gather(rows, "request") if self.plan.requests else (None,)
            class_scores = self.index.class_scores(rows)
            observed, outcome, delay = state.outcomes(self.index, rows, horizon_ms)
            for a, b in _runs(edge):
                edge_ms = int(edge[a])
                yield Matured(
                    state.plan.name, horizon_ms, edge_ms, self.groups, time[a:b], group[a:b], predicted[a:b], score[a:b],
                    observed[a:b], outcome[a:b], delay[a:b], incomplete=edge_ms < self._evicted_until_ms,
                    request=None if request is None else request[a:b],
                    class_scores=None if class_scores is None else class_scores[a:b],
                )  # fmt: skip

    def _spans(self, first_ms: int, stop_ms: int) -> Iterator[tuple[int, int]]:
        """[first, stop) cut at edges, so that not much more than SPAN_CHUNKS of predictions lie in one piece."""
        resolution = self.plan.resolution_ms
        chunks = self.index.overlapping(first_ms, stop_ms)[SPAN_CHUNKS - 1 :: SPAN_CHUNKS]
        cuts = {self.index.last_ms(chunk) // resolution * resolution + resolution for chunk in chunks}
        for cut in [*sorted(cut for cut in cuts if first_ms < cut < stop_ms), stop_ms]:
            if first_ms < cut:
                yield first_ms, cut
            first_ms = cut

    def _carried(self, state: FeedbackState, events: Carried) -> Iterator[Matured]:
        edge = events.event_time_ms // self.plan.resolution_ms * self.plan.resolution_ms
        for a, b in _runs(edge):
            yes, none = np.ones(b - a, bool), np.zeros(b - a, np.int64)
            yield Matured(
                state.plan.name, CARRIED, int(edge[a]), state.groups, events.event_time_ms[a:b], events.group[a:b],
                events.predicted[a:b], events.score[a:b], yes, events.value[a:b], none, incomplete=False,
            )  # fmt: skip

    def _forget_old(self) -> None:
        """Drop predictions that are final everywhere, then those beyond the cap, and what belonged to them."""
        awaited = min(state.done_ms - state.plan.reach_ms for state in self.streams.values())
        self.index.expire(awaited)
        evicted, until_ms = self.index.evict(self.plan.rows_max, awaited)
        if evicted:
            self.evicted += evicted
            self._evicted_until_ms = max(self._evicted_until_ms, until_ms)
        if self.index.log.tail > self._pruned:
            self._pruned = self.index.log.tail
            self.groups.prune(self._pruned // self.plan.chunk_rows)
            for state in self.streams.values():
                state.expire(self._pruned)

    # -- snapshots

    def changed_blobs(self) -> dict[str, bytes | None]:
        """Every blob that changed since the last call, None for those that are gone. Cost: .1 µs for each new entry."""
        if not self._changed:
            return {}
        self._changed = False
        blobs: dict[str, bytes | None] = dict.fromkeys(sorted(self._forgotten))
        self._forgotten = set()
        blobs[META] = self._meta()
        for part in self._parts():
            blobs |= part.changed_blobs()
        return blobs

    def whole_blobs(self) -> dict[str, bytes]:
        """The state, the same bytes whatever snapshots were made; leaves no trace."""
        blobs = {META: self._meta()}
        for part in self._parts():
            blobs |= part.whole_blobs()
        return blobs

    def _parts(self) -> Iterator[Any]:
        yield self.groups
        yield self.index.log
        for state in self.streams.values():
            yield from (state.groups, state.log, state.changes)

    def _meta(self) -> bytes:
        header = {
            "resolution_ms": self.plan.resolution_ms,
            "scores": self.plan.scores,
            "chunk_rows": self.plan.chunk_rows,
            "watermark_ms": self.watermark_ms,
            "rows": [self.index.log.tail, self.index.log.count],
            "left_out": self.index.left_out,
            "evicted": self.evicted,
            "evicted_until_ms": self._evicted_until_ms,
            "streams": [state.header() for state in self.streams.values()],
        }
        return container.encode(KIND, VERSION, header, {})

    def load(self, blobs: Mapping[str, bytes]) -> None:
        """Become the state that the join's blobs describe; this join is empty.

        Streams and horizons may be others than the state's: what is new begins with panes that are complete for it, what is
        gone is forgotten. Raises JoinPlanError where the state cannot be read so, ContainerError.
        """
        if META not in blobs:
            raise container.UnknownSection(KIND, META, "missing")
        header = container.decode(blobs[META]).expect(KIND, VERSIONS, ()).header
        for name in ("resolution_ms", "scores", "chunk_rows"):
            if header[name] != getattr(self.plan, name):
                raise JoinPlanError(
                    f"the join's state was made with {name} {header[name]}, not {getattr(self.plan, name)}"
                )
        self.watermark_ms, self.evicted = header["watermark_ms"], header["evicted"]
        self._evicted_until_ms = header["evicted_until_ms"]
        tail, count = header["rows"]
        self._pruned = tail
        if GROUPS not in blobs:
            raise container.UnknownSection(KIND, GROUPS, "missing")
        self.groups.load(blobs[GROUPS], tail // self.plan.chunk_rows)
        self.index.load(blobs, tail, count)
        self.index.left_out = header["left_out"]
        for chunk, columns in self.index.log.chunks.items():
            self.groups.touch(columns["group"][: self.index.log.filled(chunk)], chunk)
        stored = {stream["name"]: stream for stream in header["streams"]}
        for name, state in self.streams.items():
            known = stored.get(name)
            if known is None:
                after = -(-self.watermark_ms // self.plan.resolution_ms) * self.plan.resolution_ms
                state.starts_ms = dict.fromkeys(state.plan.points_ms, after)
            elif known["kind"] != state.plan.kind.value:
                raise JoinPlanError(
                    f"{name} held {known['kind']}s, the plan says {state.plan.kind.value}s: give it another name"
                )
            else:
                state.load(known, blobs, self.index, self.plan.resolution_ms)
        gone = {f"join-{part}.{name}" for name in stored.keys() - self.streams.keys() for part in STREAM_PARTS}
        self._forgotten = {name for name in blobs if name.partition("/")[0] in gone}
        self._changed = bool(self._forgotten)


def is_joins(name: str) -> bool:
    """Whether a blob of this name is a join's."""
    return name.startswith(KIND)


def _check(plan: JoinPlan) -> None:
    """Raises JoinPlanError."""
    if not plan.streams:
        raise JoinPlanError("a join without feedback")
    if len({stream.name for stream in plan.streams}) < len(plan.streams):
        raise JoinPlanError("two streams of feedback have one name")
    if plan.rows_max < 2 * plan.chunk_rows:
        raise JoinPlanError(
            f"rows_max {plan.rows_max}, at least {2 * plan.chunk_rows}: predictions go in chunks of {plan.chunk_rows}"
        )
    for stream in plan.streams:
        horizons = stream.horizons_ms
        if "/" in stream.name:
            raise JoinPlanError(f"{stream.name!r} has a slash, which ends the names of blobs")
        if not horizons or horizons[0] <= 0 or any(a >= b for a, b in pairwise(horizons)):
            raise JoinPlanError(f"{stream.name}: horizons {list(horizons)} ms are not ascending and positive")
        if any(not 0 < age < horizons[-1] for age in stream.ages_ms):
            raise JoinPlanError(f"{stream.name}: ages {list(stream.ages_ms)} ms are not below its last horizon")
        for horizon in stream.points_ms:
            if horizon % plan.resolution_ms:
                raise JoinPlanError(
                    f"{stream.name}: horizon {horizon} ms is no multiple of the resolution, {plan.resolution_ms} ms"
                )


def _runs(edge: I64) -> Iterator[tuple[int, int]]:
    """[first, stop) of each run of equal edges."""
    if len(edge):
        bounds = [0, *(np.flatnonzero(edge[1:] != edge[:-1]) + 1).tolist(), len(edge)]
        yield from pairwise(bounds)
