"""A worker holds a partition back that is far ahead, and reads it again from its position once the others have come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stream.assignment import COLLECTOR
from stream.chunks import Chunk, hole, refused_batch
from stream.decode import NATIVE, Layout
from stream.metrics import Metrics
from stream.plan import CollectorPlan
from stream.sizing import ahead_ms_max
from stream.worker import Worker

SOURCES = 2
PLAN = CollectorPlan((), 1000, 0, 0)
SLACK_MS = ahead_ms_max(PLAN, SOURCES)


class Owners:
    def __init__(self) -> None:
        self.slots = [
            SimpleNamespace(
                stage=COLLECTOR, partition=p, source="predictions", position=7, ahead=False, full=set(), usable=True,
                owner=SimpleNamespace(stage=SimpleNamespace(marked_ms=0), vector={"predictions": 7}), lane=SimpleNamespace(blocked=False),
            )
            for p in range(SOURCES)
        ]  # fmt: skip

    def of(self, _stage: str) -> list[Any]:
        return self.slots

    def get(self, _stage: str, partition: int) -> Any:
        return self.slots[partition]


class Engine:
    rebalancing = False
    generation = 1

    def __init__(self) -> None:
        self.sought: list[tuple[str, int, int]] = []

    async def seek(self, source: str, partition: int, offset: int) -> None:
        self.sought.append((source, partition, offset))


def worker() -> tuple[Any, Owners, Engine, list[int]]:
    owners, engine, applied = Owners(), Engine(), []
    setup = SimpleNamespace(plan=PLAN, sources=SOURCES, feedback={})
    it: Any = Worker(setup, owners, engine, None, None)  # type: ignore[arg-type]

    async def follows(slot: Any, _chunk: Chunk, _source: str) -> bool:
        applied.append(slot.partition)
        return False

    it._follows = follows
    return it, owners, engine, applied


def chunk(partition: int) -> Chunk:
    return Chunk("predictions", partition, (hole(7, 8),), 0)


async def test_one_far_ahead_is_held_back_until_the_slowest_has_come() -> None:
    it, owners, engine, applied = worker()
    fast, slow = owners.slots
    fast.owner.stage.marked_ms = SLACK_MS
    await it.handle(COLLECTOR, chunk(0))
    assert applied == [0]
    fast.owner.stage.marked_ms = SLACK_MS + 1000
    await it.handle(COLLECTOR, chunk(0))
    await it.handle(COLLECTOR, chunk(1))
    assert applied == [0, 1]
    assert it.held_back() == [fast]
    await it.release()
    assert it.held_back() == [fast]
    assert engine.sought == []
    slow.owner.stage.marked_ms = 1000
    await it.handle(COLLECTOR, chunk(0))  # what was under way belongs behind what was dropped
    assert applied == [0, 1]
    await it.release()
    assert it.held_back() == []
    assert engine.sought == [("predictions", 0, 7)]
    await it.handle(COLLECTOR, chunk(0))
    assert applied == [0, 1, 0]


async def test_the_marks_of_other_workers_count() -> None:
    it, owners, _, _ = worker()
    owners.slots.pop()
    owners.slots[0].owner.stage.marked_ms = SLACK_MS + 2000
    it.watch.marked_ms[1] = 1000
    await it.handle(COLLECTOR, chunk(0))
    assert it.held_back() == owners.slots
    it.watch.marked_ms[1] = 2000
    await it.release()
    assert it.held_back() == []


async def test_one_whose_outputs_are_not_taken_is_held_back_alone_until_they_are() -> None:
    it, owners, engine, applied = worker()
    stuck = owners.slots[0]
    stuck.lane.blocked = True
    await it.handle(COLLECTOR, chunk(0))
    await it.handle(COLLECTOR, chunk(1))
    assert applied == [1]
    await it.release()
    assert it.held_back() == [stuck]
    stuck.lane.blocked = False
    await it.release()
    assert it.held_back() == []
    assert engine.sought == [("predictions", 0, 7)]


@pytest.mark.parametrize(("code", "held"), [("damaged_batch", True), ("too_large", False)])
async def test_what_depends_on_this_workers_tries_is_held_until_it_is_saved(code: str, held: bool) -> None:
    it, owners, _, _ = worker()
    slot, seen = owners.slots[0], []
    slot.owner.apply = lambda source, columns, following, *, hold: seen.append(
        (columns.rejects[0].code, following, hold)
    )
    slot.flush = lambda: None
    it.setup.rekeyed = frozenset()
    it.setup.layout = Layout.compile(NATIVE, ["fraud"], [])
    it.metrics = Metrics()
    await it._collect(slot, Chunk("predictions", 0, (refused_batch(7, (7, 9, 0), b"", (code, "")),), 0), "predictions")
    assert seen == [(code, 9, held)]
