"""A whole cluster in one process and one seed: logs, group generations, owners that die between any two effects.

Everything that a real broker and real processes may do to the protocol happens here by a seeded generator: crashes before
and after every effect and in the middle of an append, replies that never come, records that arrive twice or much later or
in another order where no barrier stands between them, records of a dying writer that are torn, owners that go on working
after they were replaced, several replacements at once, compaction, clocks of producers and brokers that jump by a leap
second, an hour or days and back. The owners and stages are the product's.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from stream.epochs import epoch_of
from stream.merging import PaneRecord
from stream.ownership import PartitionOwner
from stream.panes import INPUTS, Marker, decode_record
from stream.protocol import (
    Acknowledged,
    Append,
    Bounds,
    Commit,
    Effect,
    Fenced,
    LogRecord,
    LogSlice,
    ReadAt,
    ReadLog,
    ReadMetadata,
)
from stream.snapshot_format import parse_key
from stream.stage import Output, StageWaits

Slot = tuple[str, int]
COLLECTOR, MONITOR = "collector", "monitor"
IDLE_AFTER = 3  # rounds without traffic until a partition counts as idle
IDLE_WALL_MS = 4_000
GHOSTS_MAX = 60
JUMPS_MS = (1_000, 3_600_000, 3 * 86_400_000)
TORN = 0.2  # share of the state records of a dying writer that land cut short
COMPACTION_LAG_MS = 20_000  # min.compaction.lag.ms: longer than a claim takes to be read back, as in production


class BrokenReplyError(Exception):
    """An effect whose outcome its caller does not learn."""


@dataclass(slots=True)
class Log:
    """One topic partition. `removed` by compaction; offsets never change."""

    records: list[tuple[int, Output, int]] = field(default_factory=list)  # offset, output, append time
    end: int = 0

    def append(self, output: Output, now_ms: int) -> int:
        self.records.append((self.end, output, now_ms))
        self.end += 1
        return self.end - 1

    def compact(self, now_ms: int, *, tombstones: bool) -> None:
        """What is older than COMPACTION_LAG_MS keeps the last record of every key, and perhaps loses its tombstones."""
        old = [record for record in self.records if record[2] <= now_ms - COMPACTION_LAG_MS]
        last = {output.key: offset for offset, output, _ in old}
        kept = [r for r in old if last[r[1].key] == r[0] and (r[1].value is not None or not tombstones)]
        self.records = kept + self.records[len(old) :]


@dataclass(slots=True)
class Entry:
    """One output on its way."""

    output: Output
    ticket: int
    offset: int | None = None


class Actor:
    """One owner in one process and generation, and its sender."""

    def __init__(self, world: World, slot: Slot, generation: int) -> None:
        self.world, self.slot, self.generation = world, slot, generation
        self.owner = world.make_owner(slot)
        self.name = self.owner.writer
        self.steps: Any = self.owner.restore()
        self.effect: Effect | None = next(self.steps)
        self.entries: deque[Entry] = deque()
        self.waiting: list[Entry] | None = None
        self.decides = True

    # -- effects

    def advance(self) -> None:
        """Do one thing for the generator that waits: execute its effect, or a part of it."""
        effect = self.effect
        assert effect is not None
        try:
            if isinstance(effect, Append):
                if self.waiting is None:
                    self.waiting = self.enqueue(effect.outputs)
                self.send()
                if any(entry.offset is None for entry in self.waiting):
                    return
                reply: Any = tuple(entry.offset for entry in self.waiting)
                self.waiting = None
            elif isinstance(effect, Acknowledged):
                self.send()
                if self.entries:
                    return
                reply = None
            else:
                reply = self.world.execute(self, effect)
            self.world.done(self, effect)
            self.effect = self.steps.send(reply)
        except StopIteration as stop:
            self.effect = self.steps = None
            self.world.finished(self, stop.value)

    def fail(self) -> None:
        """The effect's outcome stays unknown: the owner must be dead after that."""
        try:
            self.steps.throw(BrokenReplyError())
        except BrokenReplyError:
            assert self.owner.dead
            return
        raise AssertionError("the generator went on after a failed effect")

    # -- sender

    def enqueue(self, outputs: tuple[Output, ...]) -> list[Entry]:
        entries = [Entry(output, self.world.ticket()) for output in outputs]
        self.entries.extend(entries)
        return entries

    def sendable(self, most: int | None = None) -> list[Entry]:
        """Entries that may be under way: all but barriers with anything before them, their own run left out. `most`: the first."""
        if not self.world.rules.barrier:
            return list(islice(self.entries, most))
        ready: list[Entry] = []
        clear = True  # nothing but barriers so far
        for entry in self.entries:
            if len(ready) == most:
                break
            clear = clear and entry.output.barrier
            if clear or not entry.output.barrier:
                ready.append(entry)
        return ready

    def send(self) -> None:
        """Some of those under way arrive, in any order; some of them twice."""
        world = self.world
        for _ in range(world.random.choice((1, 2, 4, 16))):
            ready = self.sendable(8)
            if not ready:
                return
            entry = world.random.choice(ready)
            entry.offset = world.append(entry.output)
            if world.random.random() < 0.03:
                world.ghost(entry.output)
            self.entries.remove(entry)

    def drop(self) -> None:
        """The process is gone: what was under way arrives now, later or never."""
        for entry in self.sendable():
            fate = self.world.random.random()
            if self.may_tear(entry.output) and self.world.random.random() < TORN:
                self.world.tear(entry.output)
            elif fate < 0.3:
                self.world.append(entry.output)
            elif fate < 0.6:
                self.world.ghost(entry.output)
        self.entries.clear()
        if self.steps is not None:
            self.steps.close()

    def may_tear(self, output: Output) -> bool:
        """Whether an older state can stand for this record if it is damaged. Not for a manifest that holds new decisions:
        it may have been committed before it was damaged, and what left under them could not be repeated (StateCorrupt).
        """
        if not output.topic.startswith("state.") or output.value is None:
            return False
        key = parse_key(output.key or b"")
        assert key is not None
        log = self.owner._log
        return key.kind == "b" or (key.kind == "m" and log is not None and key.decided == log.saved.decided)


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules that can be left out, to see that the verdict then turns red."""

    claim_check: bool = True
    announce: bool = True
    catch_up: bool = True
    hold: bool = True
    deduplicate: bool = True
    barrier: bool = True


class World:
    """`kit` makes stages and events (kits.py). Everything random comes from `seed`."""

    def __init__(self, seed: int, make_kit: Callable[[random.Random, Rules], Any], rules: Rules = Rules()) -> None:
        self.random = random.Random(seed)
        self.rules = rules
        self.kit = make_kit(self.random, rules)
        self.kit.world = self
        self.now_ms = 1_000_000  # true time: compaction, order
        self.clocks = {"producer": 0, "broker": 0}  # what each is ahead, ms
        self.logs: dict[tuple[str, int], Log] = {}
        self.stamped_ms: dict[tuple[str, int, int], int] = {}  # LogAppendTime by topic, partition and offset
        self.sources: list[list[Any]] = [[] for _ in range(self.kit.partitions)]
        self.feedback: dict[str, list[list[Any]]] = {
            stream: [[] for _ in range(self.kit.partitions)] for stream in self.kit.feedback
        }
        self.quiet = [0] * self.kit.partitions
        self.generations: Counter[Slot] = Counter()
        self.commits: dict[Slot, tuple[dict[str, int], str]] = {}
        self.current: dict[Slot, Actor] = {}
        self.zombies: list[Actor] = []
        self.ghosts: list[Output] = []
        self.markers: dict[int, Marker] = {}
        self.largest_ms = 0
        self.steps: Counter[str] = Counter()
        self.crashes: Counter[tuple[str, str]] = Counter()
        self.counts: Counter[str] = Counter()
        self._tickets = 0
        self.slots: list[Slot] = [(COLLECTOR, p) for p in range(self.kit.partitions)]
        self.slots += [(MONITOR, m) for m in range(self.kit.monitors)]
        for slot in self.slots:
            self.replace(slot)

    # -- the broker

    def ticket(self) -> int:
        self._tickets += 1
        return self._tickets

    def log(self, topic: str, partition: int) -> Log:
        return self.logs.setdefault((topic, partition), Log())

    def append(self, output: Output) -> int:
        partition = output.partition
        if partition is None:
            partition = self.kit.partition_of(output)
        offset = self.log(output.topic, partition).append(output, self.now_ms)
        self.stamped_ms[output.topic, partition, offset] = self.kit.wall_ms(self.now_ms + self.clocks["broker"])
        if output.topic == "panes" and partition == 0 and output.value is not None and output.barrier:
            self._watch(output.value)
        return offset

    def _watch(self, value: bytes) -> None:
        """What a worker reads of others' progress: one panes partition is enough for that."""
        body = decode_record(value)
        if isinstance(body, Marker) and body.stream == INPUTS:
            seen = self.markers.get(body.partition)
            if seen is None or body.edge_ms > seen.edge_ms:
                self.markers[body.partition] = body
            self.largest_ms = max(self.largest_ms, body.largest_ms)

    def tear(self, output: Output) -> None:
        """It arrives without its end, or with a bit turned."""
        assert output.value is not None
        value = bytearray(output.value)
        if self.random.random() < 0.5:
            del value[self.random.randrange(len(value)) :]
        else:
            value[self.random.randrange(len(value))] ^= 1 << self.random.randrange(8)
        self.append(output._replace(value=bytes(value)))
        self.counts["torn"] += 1

    def ghost(self, output: Output) -> None:
        if len(self.ghosts) < GHOSTS_MAX:
            self.ghosts.append(output)

    def execute(self, actor: Actor, effect: Effect) -> Any:
        if isinstance(effect, ReadMetadata):
            return self.commits.get(actor.slot, ({}, ""))[1]
        if isinstance(effect, ReadLog):
            log = self.log(effect.topic, effect.partition)
            start = effect.start or 0
            found = [LogRecord(at, o.key or b"", o.value) for at, o, _ in log.records if at >= start]
            return LogSlice(0, log.end, start, max(log.end, start), found)
        if isinstance(effect, ReadAt):
            values = {at: output.value for at, output, _ in self.log(effect.topic, effect.partition).records}
            return tuple(values.get(offset) for offset in effect.offsets)
        if isinstance(effect, Bounds):
            return {source: (0, self.end(source, effect.partition)) for source in effect.sources}
        assert isinstance(effect, Commit), effect
        if self.generations[actor.slot] != actor.generation:
            return False
        self.commits[actor.slot] = (effect.vector, effect.metadata)
        return True

    def end(self, source: str, partition: int) -> int:
        if source in self.feedback:
            return len(self.feedback[source][partition])
        return len(self.sources[partition]) if source == "predictions" else self.log(source, partition).end

    # -- processes

    def make_owner(self, slot: Slot) -> PartitionOwner:
        stage, partition = slot
        writer = f"w{self.ticket()}"
        owner = self.kit.owner(stage, partition, writer)
        if not self.rules.hold:
            record = owner._record

            def forget_to_hold(decision: Any) -> None:
                record(decision)
                owner._hold = owner._busy  # what a running snapshot sends stays in order

            owner._record = forget_to_hold
        if not self.rules.claim_check:
            owner._claimant._won = lambda *_: True
        if not self.rules.catch_up:
            owner.may_decide = lambda: owner.ready and not owner.dead
        return owner

    def replace(self, slot: Slot, *, zombie: bool = False, same_generation: bool = False) -> None:
        """A new owner for `slot`. The old one is gone, or goes on as if nothing had happened."""
        old = self.current.get(slot)
        if not same_generation:
            self.generations[slot] += 1
        if old is not None:
            if zombie and not old.owner.dead and len(self.zombies) < 6:
                self.zombies.append(old)
                old.decides = self.random.random() < 0.3  # one that does is silent from then on
            else:
                old.drop()
        self.current[slot] = Actor(self, slot, self.generations[slot])

    def done(self, actor: Actor, effect: Effect) -> None:
        self.steps[effect.step] += 1

    def finished(self, actor: Actor, result: Any) -> None:
        self.counts["restores" if hasattr(result, "attempts") else "snapshots"] += 1
        self.counts["claims lost"] += getattr(result, "attempts", 1) - 1
        self.counts["outputs resent"] += getattr(result, "held", 0)

    def gone(self, actor: Actor) -> None:
        """`actor` has ended: a zombie disappears, an owner is followed by another in the same process."""
        if self.current.get(actor.slot) is actor:
            self.replace(actor.slot, same_generation=True)
        else:
            actor.drop()
            if actor in self.zombies:
                self.zombies.remove(actor)

    # -- what an owner does

    def advance(self, actor: Actor) -> None:
        try:
            actor.advance()
        except Fenced:
            assert actor.owner.dead
            self.counts["fenced"] += 1
            assert self.current.get(actor.slot) is not actor, "the owner of the newest generation was fenced"
            self.gone(actor)

    def crash(self, actor: Actor) -> None:
        """The process dies, or the effect fails: before, in the middle of, or after it."""
        effect = actor.effect
        if effect is None:
            where = ("idle", "")
        else:
            draw = self.random.random()
            if draw < 0.4 or isinstance(effect, Acknowledged):
                where = (effect.step, "before")
            elif isinstance(effect, Append):
                if actor.waiting is None:
                    actor.waiting = actor.enqueue(effect.outputs)
                for _ in range(self.random.randrange(6)):
                    actor.send()
                whole = all(entry.offset is not None for entry in actor.waiting)
                where = (effect.step, "after" if whole else "in the middle")
            else:
                self.execute(actor, effect)
                where = (effect.step, "after")
        self.crashes[where] += 1
        if effect is not None and self.random.random() < 0.3:
            actor.fail()
            self.replace(actor.slot, same_generation=True)
        else:
            self.replace(actor.slot)

    def act(self, actor: Actor) -> None:
        """One thing that a live owner may do; a zombie does the same, slower in what would end it."""
        patience = 0.1 if actor in self.zombies else 0.5
        if actor.effect is not None and (not actor.owner.ready or self.random.random() < patience):
            self.advance(actor)
            return
        draw = self.random.random()
        if draw < 0.35:
            self.work(actor, self.random.choice((1, 3, 10, 40)) * self.kit.burst)
            if self.kit.eager and actor.decides:
                self.switch(actor)
        elif draw < 0.60:
            self.forward(actor)
        elif draw < 0.83:
            if actor.decides:
                self.tick(actor)
        elif draw < 0.88:
            if actor.decides:
                self.switch(actor)
        elif draw < 0.93 and actor.effect is None:
            self.begin_snapshot(actor)

    def begin_snapshot(self, actor: Actor) -> None:
        steps = actor.owner.snapshot()
        try:
            actor.effect, actor.steps = next(steps), steps
        except StopIteration:
            return

    def forward(self, actor: Actor) -> None:
        actor.enqueue(actor.owner.take_outputs())
        actor.send()

    def work(self, actor: Actor, count: int) -> bool:
        """Apply up to `count` records; False when there are none."""
        stage, partition = actor.slot
        owner = actor.owner
        if stage == COLLECTOR:
            return self.read_inputs(owner, partition, count)
        log = self.log("panes", partition)
        start = owner.vector["panes"]
        stop = min(start + count, log.end)
        if start < stop:
            try:
                owner.apply("panes", [self.pane_record(partition, at) for at in range(start, stop)], stop)
            except StageWaits as waits:
                self.kit.provide(actor.owner.stage, waits)
        return start < stop

    def read_inputs(self, owner: PartitionOwner, partition: int, count: int) -> bool:
        """Up to `count` records of one of the inputs that have any; False when none has."""
        inputs = {"predictions": self.sources[partition]}
        inputs |= {stream: logs[partition] for stream, logs in self.feedback.items()}
        left = [source for source, log in inputs.items() if owner.vector[source] < len(log)]
        if not left:
            return False
        source = self.random.choice(left) if len(inputs) > 1 else "predictions"
        if "predictions" in left and len(inputs) > 1 and self.random.random() < 0.5:
            source = "predictions"  # or it is seldom read to its end, and never idle
        start = owner.vector[source]
        stop = min(start + count, len(inputs[source]))
        batch = self.kit.batch if source == "predictions" else partial(self.kit.feedback_batch, source)
        owner.apply(source, batch(inputs[source], start, stop), stop)
        return True

    def pane_record(self, partition: int, place: int) -> PaneRecord:
        offset, output, _ = self.log("panes", partition).records[place]
        assert output.value is not None
        at_ms = self.stamped_ms["panes", partition, offset]
        return PaneRecord(offset, at_ms, epoch_of(output.headers), self.kit.body(output.value))

    def tick(self, actor: Actor) -> None:
        """By the rule of contracts.md, Time: T = the smallest edge of the others that are not idle; all idle: the clock."""
        stage, partition = actor.slot
        if stage != COLLECTOR or not actor.owner.may_decide():
            return
        idle = self.idle(actor, partition)
        if self.feedback and (not idle or self.random.random() < 0.2):
            self.tick_feedback(actor, partition)
            return
        if not idle:
            return
        others = [q for q in range(self.kit.partitions) if q != partition and self.quiet[q] <= IDLE_AFTER]
        if others:
            if not all(q in self.markers for q in others):
                return
            until = min(self.markers[q].edge_ms for q in others)
        else:
            until = self.largest_ms + IDLE_WALL_MS * self.kit.scale - self.kit.lateness_ms
        if until > self.kit.watermark_ms(actor.owner.stage):
            actor.owner.decide("tick", {"until_ms": until})
            self.counts["ticks"] += 1

    def tick_feedback(self, actor: Actor, partition: int) -> None:
        """A topic of feedback that is wholly read is taken to be complete up to where the predictions are."""
        stream = self.random.choice(sorted(self.feedback))
        if actor.owner.vector[stream] < len(self.feedback[stream][partition]) or not self.largest_ms:
            return
        until = self.largest_ms - self.kit.feedback_lateness_ms
        if until > actor.owner.stage.joining.join.streams[stream].watermark_ms:
            actor.owner.decide("tick", {"until_ms": until, "stream": stream})
            self.counts["feedback ticks"] += 1

    def idle(self, actor: Actor, partition: int) -> bool:
        at_end = actor.owner.vector["predictions"] >= len(self.sources[partition])
        return at_end and self.quiet[partition] > IDLE_AFTER

    def switch(self, actor: Actor) -> None:
        if actor.slot[0] == COLLECTOR and actor.owner.may_decide() and self.kit.switch(actor.owner, self.random):
            self.counts["switches"] += 1

    # -- the run

    def produce(self) -> None:
        """Bursts on most partitions; the last one speaks seldom, so that it is idle and then active again."""
        partition = self.random.randrange(self.kit.partitions)
        burst = self.random.choice((0, 1, 1, 3, 8))
        if partition == self.kit.partitions - 1 and self.random.random() < 0.85:
            burst = 0
        for _ in range(burst * self.kit.burst):
            clocks = [self.now_ms + self.clocks[name] for name in ("producer", "broker")]
            self.sources[partition].append(self.kit.event(self.random, *clocks, self.sources[partition]))
        for place, (stream, logs) in enumerate(self.feedback.items()):
            if partition == place and self.random.random() < 0.8:
                continue  # one that speaks seldom
            for _ in range(self.random.choice((0, 0, 1, 2, 6))):
                clocks = [self.now_ms + self.clocks[name] for name in ("producer", "broker")]
                logs[partition].append(self.kit.feedback_event(stream, self.random, *clocks, self.sources[partition]))
        self.quiet[partition] = 0 if burst else self.quiet[partition] + 1
        self.now_ms += self.random.choice((0, 100, 400, 1_500))

    def run(self, steps: int, emphasis: Mapping[str, float] | None = None) -> None:
        """`steps` random things, one after another. How wild a run is, is drawn once per seed; `emphasis`: other chances."""
        fault = self.random.choice((0.01, 0.03, 0.08))
        chances = {
            "produce": 0.25,
            "act_one": 0.6,
            "act_zombie": 0.12,
            "land_ghost": 0.03,
            "crash_one": fault,
            "replace_one": fault,
            "race": fault / 4,
            "rebalance": fault / 10,
            "compact": 0.01,
            "jump": 0.001,
            "end_zombie": fault / 2,
        } | dict(emphasis or {})
        for thing in self.random.choices(list(chances), list(chances.values()), k=steps):
            getattr(self, thing)()

    def act_one(self) -> None:
        actor = self.current[self.random.choice(self.slots)]
        for _ in range(self.random.choice((1, 2, 4))):
            if self.current[actor.slot] is actor:
                self.act(actor)

    def act_zombie(self) -> None:
        if self.zombies:
            actor = self.random.choice(self.zombies)
            for _ in range(self.random.choice((1, 3, 9))):
                if actor in self.zombies:
                    self.act(actor)

    def end_zombie(self) -> None:
        if self.zombies:
            self.gone(self.random.choice(self.zombies))

    def crash_one(self) -> None:
        """More often while something is under way than in between."""
        busy = [actor for actor in self.current.values() if actor.effect is not None]
        if busy and self.random.random() < 0.8:
            self.crash(self.random.choice(busy))
        else:
            self.crash(self.current[self.random.choice(self.slots)])

    def replace_one(self) -> None:
        """Another member gets the partition, and perhaps the old one has not noticed."""
        self.replace(self.random.choice(self.slots), zombie=self.random.random() < 0.7)

    def race(self) -> None:
        """Two assignments in a row: the first owner is about to claim when the second one loads."""
        slot = self.random.choice(self.slots)
        self.replace(slot)
        first = self.current[slot]
        while first.effect is not None and first.effect.step != "restore.4-claim":
            self.advance(first)
        self.replace(slot, zombie=True)
        second = self.current[slot]
        for _ in range(self.random.randrange(8)):
            if second.effect is not None:
                self.advance(second)
        for _ in range(self.random.randrange(8)):
            if first in self.zombies and first.effect is not None:
                self.advance(first)
        for _ in range(self.random.randrange(60)):
            if self.current[slot] is second:
                self.act(second)

    def rebalance(self) -> None:
        self.counts["rebalances"] += 1
        for slot in self.slots:
            self.replace(slot, zombie=self.random.random() < 0.5)

    def compact(self) -> None:
        stage, partition = self.random.choice(self.slots)
        log = self.log(f"state.{stage}", partition)
        log.compact(self.now_ms, tombstones=self.random.random() < 0.3)

    def jump(self) -> None:
        """A clock is set: forwards, backwards, or right again."""
        name = self.random.choice(sorted(self.clocks))
        wrong = self.random.choice((-1, 1)) * self.random.choice(JUMPS_MS)
        self.clocks[name] = wrong if self.clocks[name] == 0 else 0
        self.counts["clock jumps"] += 1

    def land_ghost(self) -> None:
        if self.ghosts:
            self.append(self.ghosts.pop(self.random.randrange(len(self.ghosts))))

    def drain(self) -> None:
        """No more faults: everything is read, the input ends, everything that is due is written."""
        for zombie in list(self.zombies):
            self.gone(zombie)
        while self.ghosts:
            self.land_ghost()
        collectors = [slot for slot in self.slots if slot[0] == COLLECTOR]
        for slot in collectors:
            self.settle(slot)
            owner = self.current[slot].owner
            owner.decide("tick", {"until_ms": self.kit.end_ms})
            for stream in self.feedback:
                owner.decide("tick", {"until_ms": self.kit.end_ms, "stream": stream})
            self.settle(slot)
        for slot in self.slots:
            if slot[0] == MONITOR:
                self.settle(slot)

    def settle(self, slot: Slot) -> None:
        """Until `slot` has read everything, saved it, and sent what it had to say."""
        actor = self.current[slot]
        for _ in range(100_000):
            if actor.effect is not None:
                self.advance(actor)
            elif self.work(actor, 500):
                continue
            elif actor.owner.changed:
                self.begin_snapshot(actor)
            elif actor.entries:
                actor.send()
            else:
                return
        raise AssertionError(f"{slot} does not come to rest")
