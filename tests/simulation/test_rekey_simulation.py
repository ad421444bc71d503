"""Writers of a re-keyed topic that are killed, cut off, revived and mixed at random: what the filter lets through is every original
once, in the order of its source partition.

The model has what the proof in copied.py rests on and nothing more: a writer begins at the committed offset, writes a source
partition's records in ascending order, the next batch of a target once the one before was acknowledged, and commits what is
acknowledged in all targets. A write may be applied and its answer lost, and it may be applied at any later time again (a request
that lingers in the network), by a writer long dead.
"""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np
import pytest

from stream.copied import Seen, first_seen

SOURCES, TARGETS, RECORDS = 3, 2, 25
Batch = tuple[int, tuple[tuple[int, int], ...]]
"""A target, and (source partition, offset) of its records."""


class World:
    def __init__(self, seed: int, *, commits_early: bool = False, skips_failed: bool = False) -> None:
        self.r = random.Random(seed)
        self.commits_early, self.skips_failed = commits_early, skips_failed
        self.target = {(s, o): self.r.randrange(TARGETS) for s in range(SOURCES) for o in range(RECORDS)}
        self.logs: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.committed = dict.fromkeys(range(SOURCES), 0)
        self.lingering: list[Batch] = []  # requests that may still arrive
        self.writers = [Writer(self)]

    def apply(self, batch: Batch) -> None:
        self.logs[batch[0]] += batch[1]

    def step(self) -> None:
        chance = self.r.random()
        if chance < 0.01:  # a new owner; those before go on for a while
            self.writers = [*self.writers[-2:], Writer(self)]
        elif chance < 0.04 and self.lingering:
            self.apply(self.r.choice(self.lingering))
        else:
            self.r.choice([*self.writers, self.writers[-1]]).step()

    @property
    def done(self) -> bool:
        return all(offset == RECORDS for offset in self.committed.values())


class Writer:
    def __init__(self, world: World) -> None:
        self.world = world
        self.position = dict(world.committed)
        self.queue: dict[int, list[Batch]] = {}
        self.until: dict[int, int] = dict(self.position)

    def step(self) -> None:
        world, r = self.world, self.world.r
        if not any(self.queue.values()):
            self.position = dict(self.until)
            if self is world.writers[-1] and r.random() < 0.5:  # the commits of others are refused
                world.committed = dict(self.position)
                return
            self._take()
            if world.commits_early and self is world.writers[-1]:
                world.committed = dict(self.until)
            return
        target = r.choice([target for target, batches in self.queue.items() if batches])
        batch = self.queue[target][0]
        applied, answered = r.random() < 0.8, r.random() < 0.8
        if applied:
            world.apply(batch)
        if r.random() < 0.3:
            world.lingering.append(batch)
        if (applied and answered) or (world.skips_failed and not applied):
            self.queue[target].pop(0)

    def _take(self) -> None:
        """One step: some records of each source partition in some order over partitions, as batches by target."""
        r, rows = self.world.r, []
        for source, position in self.position.items():
            self.until[source] = min(position + r.randrange(6), RECORDS)
            rows += [(source, offset) for offset in range(position, self.until[source])]
        r.shuffle(rows)
        rows.sort(key=lambda row: row[1])
        for target in range(TARGETS):
            own = [row for row in rows if self.world.target[row] == target]
            size = r.randrange(1, 4)
            self.queue[target] = [(target, tuple(own[at : at + size])) for at in range(0, len(own), size)]


def let_through(log: list[tuple[int, int]], r: random.Random) -> tuple[list[tuple[int, int]], Seen]:
    """What a collector counts, read in chunks of any size."""
    seen, found, at = Seen(), [], 0
    while at < len(log):
        part = log[at : at + r.randrange(1, 9)]
        at += len(part)
        places = np.array(part, np.int64)
        fresh, marks = first_seen(seen.marks, np.ones(len(part), np.uint64), places[:, 0], places[:, 1])
        seen.marks |= marks
        seen.repeats += int((~fresh).sum())
        found += [row for row, new in zip(part, fresh.tolist(), strict=True) if new]
    return found, seen


def run(seed: int, **broken: bool) -> tuple[bool, int]:
    """Whether every original was let through once and in order, and how many repeats there were."""
    world = World(seed, **broken)
    while not world.done:
        world.step()
    for batch in world.lingering:  # everything that may still arrive does
        world.apply(batch)
    right, repeats = True, 0
    for target in range(TARGETS):
        found, seen = let_through(world.logs[target], world.r)
        repeats += seen.repeats
        for source in range(SOURCES):
            expected = [o for o in range(RECORDS) if world.target[source, o] == target]
            right &= [o for s, o in found if s == source] == expected
    return right, repeats


@pytest.mark.parametrize("seeds", [range(start, start + 50) for start in range(0, 200, 50)], ids=str)
def test_every_record_counts_once_whatever_happens_to_its_writers(seeds: range) -> None:
    found = [run(seed) for seed in seeds]
    assert all(right for right, _ in found)
    assert sum(repeats for _, repeats in found) > 1_000


@pytest.mark.parametrize("broken", ["commits_early", "skips_failed"])
def test_the_model_finds_writers_that_break_the_rules(broken: str) -> None:
    assert not all(run(seed, **{broken: True})[0] for seed in range(40))
