"""Laws of the join, against join_oracle.py, which reads whole logs event by event.

1. What is given out, each pane once at every horizon and age, and all counters equal the recount, whatever the interleaving of
   the topics and the batches; 2. a snapshot at any place, incremental, loaded elsewhere, goes on as if nothing had happened.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import join_oracle as oracle
from join_oracle import END, Event, Prediction, Stream, Tick

from stream.join import Join, JoinPlan, Matured
from stream.join_feedback import Feedback, FeedbackKind, FeedbackStream
from stream.join_groups import NO_GROUP, Group
from stream.join_index import Predictions

GROUPS = [Group("m", "1", ("site=a",)), Group("m", "2", ()), Group("n", "1", ("site=b",))]
LOWEST = -(1 << 62)
KINDS = (("clicks", "click"), ("conversions", "conversion"), ("labels", "label"))
SEEDS = 15  # of each block


@dataclass
class World:
    resolution: int
    skew: int
    lateness: int
    predictions: list[Any]
    streams: list[tuple[Stream, list[Any]]]
    chunk_rows: int
    seed: int


def world_of(seed: int) -> World:
    g = np.random.default_rng(seed)

    def one_of(*values: int) -> int:
        return int(g.choice(np.array(values)))

    resolution = one_of(1, 10, 50)
    n, step, start = int(g.integers(0, 61)), one_of(0, 3, 12, 400), one_of(-100, 0, 1 << 40)
    predictions: list[Any] = []
    clock = start
    for _ in range(n):
        clock += int(g.integers(0, step + 1))
        time = clock - int(g.exponential(8)) + (int(g.integers(0, 60)) if g.random() < 0.05 else 0)
        group = GROUPS[int(g.integers(0, 3))]
        predictions.append(Prediction(time, random_id(g), float(g.random()), float(g.integers(0, 2)), group))
    streams = []
    for name, kind in KINDS[: one_of(1, 2, 3)]:
        horizons = tuple(sorted({resolution * int(k) for k in g.choice([1, 2, 5, 40], size=int(g.integers(1, 4)))}))
        low, high = [(-np.inf, np.inf), (0.0, np.inf), (-1.0, 3.0), (0.0, 3.0)][int(g.integers(0, 4))]
        stream = Stream(name, kind, horizons, one_of(0, 5, 25, 200), low, high)
        ages = {resolution * int(k) for k in g.choice([1, 2, 3, 4, 20], size=int(g.integers(0, 3)))}
        stream.ages = tuple(sorted(age for age in ages if age < horizons[-1]))
        streams.append((stream, feedback_log(g, stream, predictions, clock, int(g.integers(0, 61)))))
    for log in (predictions, *(log for _, log in streams)):
        times = [event.time for event in log] or [start]
        for _ in range(one_of(0, 1, 2)):
            tick = Tick(times[int(g.integers(0, len(times)))] + int(g.integers(-60, 200)))
            log.insert(int(g.integers(0, len(log) + 1)), tick)
        if g.random() < 0.5:
            log.append(Tick(one_of(clock + 300, END)))
    return World(resolution, 90, one_of(0, 25, 200), predictions, streams, one_of(1, 3, 8, 64), seed)


def feedback_log(g: np.random.Generator, stream: Stream, predictions: list[Any], clock: int, n: int) -> list[Any]:
    """Mostly of known predictions, soon after them; repeated, retracted, out of range, before their prediction, carrying it."""
    drawn = []
    for _ in range(n):
        value = [float(g.integers(0, 3)), float(g.normal()) * 3, np.inf, np.nan][
            int(g.choice(4, p=[0.6, 0.3, 0.05, 0.05]))
        ]
        if predictions and g.random() < 0.9:
            known = predictions[int(g.integers(0, min(len(predictions), 12 if g.random() < 0.4 else 60)))]
            delay = int(g.exponential(stream.horizons[int(g.integers(0, len(stream.horizons)))]))
            time, ident = known.time + delay - (int(g.integers(0, 20)) if g.random() < 0.2 else 0), known.id
        else:
            time, ident = clock - int(g.integers(0, 300)), random_id(g)
        carries = (
            (GROUPS[int(g.integers(0, 3))], float(g.integers(0, 2)), float(g.random())) if g.random() < 0.2 else None
        )
        retracts = bool(g.random() < 0.12)
        record = time - 100 if g.random() < 0.03 else time + 50
        drawn.append((time + int(g.exponential(10)), Event(time, ident, value, retracts, carries, record)))
    drawn.sort(key=lambda pair: pair[0])
    log: list[Any] = []
    for _, event in drawn:
        log += [event] * (2 if g.random() < 0.1 else 1)
    return log


def random_id(g: np.random.Generator) -> int:
    """96 bits; some agree in the upper 64, and all in those that choose the first slot of the table."""
    return (int(g.integers(0, 4) if g.random() < 0.1 else g.integers(0, 40)) << 75) | int(g.integers(0, 2))


@pytest.fixture(autouse=True, scope="module")
def _small_spans() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stream.join.SPAN_CHUNKS", 1)
        patch.setattr("stream.join_feedback.SPAN_EVENTS", 4)
        patch.setattr("stream.column_log.MERGED_BLOBS", 3)
        yield


# -- the product, driven


def plan_of(world: World) -> JoinPlan:
    streams = tuple(
        FeedbackStream(s.name, FeedbackKind(s.kind), s.horizons, s.lateness, s.low, s.high, ages_ms=s.ages)
        for s, _ in world.streams
    )
    return JoinPlan(world.resolution, streams, world.skew, 1 << 30, 1 << 30, 1, world.chunk_rows)


def prediction_batch(join: Join, rows: list[Prediction]) -> Predictions:
    return Predictions(
        np.array([p.time for p in rows], np.int64), *ids(rows), np.array([[p.score] for p in rows]).reshape(-1, 1),
        np.array([p.predicted for p in rows]), np.array([join.group_code(p.group) for p in rows], np.uint32),
    )  # fmt: skip


def ids(rows: list[Any]) -> tuple[Any, Any]:
    return np.array([r.id >> 32 for r in rows], np.uint64), np.array([r.id & 0xFFFFFFFF for r in rows], np.uint32)


def feedback_batch(rows: list[Event]) -> Feedback:
    codes = [NO_GROUP if e.carries is None else GROUPS.index(e.carries[0]) for e in rows]
    context = [(0.0, 0.0) if e.carries is None else e.carries[1:] for e in rows]
    return Feedback(
        np.array([e.time for e in rows], np.int64), np.array([e.record_time for e in rows], np.int64), *ids(rows),
        np.array([e.value for e in rows]), np.array([e.retracts for e in rows], bool), np.array(codes, np.uint32),
        np.array([c[0] for c in context]), np.array([[c[1]] for c in context]).reshape(-1, 1), tuple(GROUPS),
    )  # fmt: skip


def rows_of(matured: Matured) -> list[Any]:
    return [
        (int(t), matured.groups[int(c)], float(p), float(s[0]), bool(o), float(v), int(d))
        for t, c, p, s, o, v, d in zip(
            matured.event_time_ms, matured.group, matured.predicted, matured.score, matured.observed, matured.outcome,
            matured.delay_ms, strict=True,
        )
    ]  # fmt: skip


class Driver:
    """Feeds the logs in an interleaving of `generator`'s; may go through snapshots."""

    def __init__(self, world: World, generator: np.random.Generator, *, snapshots: bool) -> None:
        self.world, self.g, self.snapshots = world, generator, snapshots
        self.join = Join(plan_of(world))
        self.panes: dict[tuple[str, int, int], list[Any]] = {}
        self.blobs: dict[str, bytes] = {}
        self.largest = self.floor = LOWEST
        self.seen: set[tuple[int, int]] = set()

    def run(self) -> None:
        logs = {"": self.world.predictions} | {s.name: log for s, log in self.world.streams}
        place = dict.fromkeys(logs, 0)
        while open_logs := [name for name in logs if place[name] < len(logs[name])]:
            name = open_logs[int(self.g.integers(0, len(open_logs)))]
            first, stop = place[name], place[name] + int(self.g.choice([1, 2, 7, 30]))
            batch: list[Any] = []
            for event in logs[name][first:stop]:
                if isinstance(event, Tick):
                    self.feed(name, batch)
                    self.tick(name, event.until)
                    batch = []
                else:
                    batch.append(event)
            self.feed(name, batch)
            place[name] = min(stop, len(logs[name]))
            if self.g.random() < 0.7:
                self.join.advance(self.sink)
            if self.snapshots and self.g.random() < 0.4:
                self.snapshot()
        self.join.advance(self.sink)

    def feed(self, name: str, batch: list[Any]) -> None:
        if name:
            self.join.add_feedback(name, feedback_batch(batch))
            return
        accepted = []  # what a collector would hand over
        for p in batch:
            late = p.time < max(self.largest - self.world.lateness, self.floor)
            if not late:
                self.largest = max(self.largest, p.time)
            if not late and (p.time // self.world.resolution, p.id) not in self.seen:
                self.seen.add((p.time // self.world.resolution, p.id))
                accepted.append(p)
        self.join.add_predictions(prediction_batch(self.join, accepted), self.watermark)

    @property
    def watermark(self) -> int:
        return max(self.largest - self.world.lateness, self.floor)

    def tick(self, name: str, until: int) -> None:
        if name:
            self.join.tick(name, until)
        else:
            self.floor = max(self.floor, until)
            self.join.add_predictions(prediction_batch(self.join, []), self.watermark)

    def sink(self, matured: Matured) -> None:
        key = (matured.stream, matured.horizon_ms, matured.edge_ms)
        assert key not in self.panes, f"{key} was given twice"
        assert not matured.incomplete
        self.panes[key] = rows_of(matured)

    def snapshot(self) -> None:
        for name, blob in self.join.changed_blobs().items():
            if blob is None:
                del self.blobs[name]
            else:
                self.blobs[name] = blob
        assert self.join.changed_blobs() == {}
        if self.g.random() < 0.6:
            before = self.join.whole_blobs()
            self.join = Join(plan_of(self.world))
            self.join.load(self.blobs)
            assert self.join.whole_blobs() == before


def check(world: World, *, snapshots: bool) -> None:
    expected = oracle.recount(world.predictions, world.lateness, world.streams, world.resolution, world.skew)
    for turn in range(2):
        driver = Driver(world, np.random.default_rng([world.seed, turn]), snapshots=snapshots)
        driver.run()
        assert driver.panes == expected.panes
        for name, counts in expected.counters.items():
            got = asdict(driver.join.streams[name].counters)
            assert got == dict.fromkeys(got, 0) | counts
            parts = sum(got[k] for k in got if k not in {"consumed", "revised"})
            assert got["consumed"] == parts + driver.join.streams[name].waiting
        done = {name: driver.join.streams[name].done_ms for name in expected.done}
        assert all(done[name] == expected.done[name] or expected.done[name] <= LOWEST for name in done)


@pytest.mark.parametrize("block", range(10))
def test_any_interleaving_gives_the_recount(block: int) -> None:
    for seed in range(block * SEEDS, (block + 1) * SEEDS):
        check(world_of(seed), snapshots=False)


@pytest.mark.parametrize("block", range(10))
def test_snapshots_anywhere_change_nothing(block: int) -> None:
    for seed in range(block * SEEDS, (block + 1) * SEEDS):
        check(world_of(100_000 + seed), snapshots=True)
