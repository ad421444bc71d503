"""Carries out the plan of a chaos run on its cluster and workers, from the first start to the drained end."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from load_tests.chaos.cluster import MODELS, Cluster
from load_tests.chaos.faults import HIDDEN, LONG, Arm, Fault, Plan
from load_tests.chaos.traffic import BEHIND_S, Source, Traffic
from load_tests.chaos.workers import POLL_S, Place, Tally
from stream.supervisor import Exit
from stream.topics import TopicRole

T = TypeVar("T")
EMPTY_S = 30.0  # until the group has forgotten its members
DRAIN_S = 300.0
PREPARE_S = 900.0
OVERTIME = 1.3  # a long run goes on with so many times its kills while a failpoint is short of hits
JOIN_READY_S = 10.0
RESTORED_S = 35.0  # after a hide, until the restores have met it
TRIES = 10
FAULTS_LOG = "faults.log"
PAUSE_S = 2.0  # between two faults from outside


class Director:
    """One run. `notes` holds what was done, with seconds since the start: the story of a failure."""

    def __init__(self, cluster: Cluster, plan: Plan, workers: int, snapshot_s: float) -> None:
        self.cluster = cluster
        self.plan = plan
        self.tally = Tally()
        self.notes: list[str] = []
        self.broker_restarts = 0
        self.hidden = 0
        self.drained: list[int | None] = []
        self._forced: dict[int, deque[Arm]] = {i: deque() for i in range(workers + 1)}
        self._began = time.monotonic()
        self.places = [self._place(i, snapshot_s) for i in range(workers)]
        self._extra = self._place(workers, snapshot_s)
        self._guests: set[asyncio.Task[None]] = set()
        start_ms = (int(time.time()) - BEHIND_S) * 1000
        self.traffic = Traffic(
            cluster.servers, cluster.config.topic(TopicRole.PREDICTIONS), Source(plan.seed, start_ms)
        )

    def _place(self, index: int, snapshot_s: float) -> Place:
        return Place(
            index, self.cluster.config_path, self.cluster.port, self.tally,
            self._next_arm, self.plan.put_back, self._on_death, snapshot_s,
        )  # fmt: skip

    def note(self, text: str) -> None:
        line = f"{time.monotonic() - self._began:7.1f} s  {self.tally.kills:3} kills  {text}"
        self.notes.append(line)
        with (self.cluster.folder / FAULTS_LOG).open("a") as file:
            file.write(line + "\n")

    # -- what the workers ask

    def _next_arm(self, place: Place) -> Arm:
        forced = self._forced[place.index]
        hits, kills = self.tally.hits, self.tally.kills
        arm = forced.popleft() if forced else self.plan.with_rare(self.plan.next_arm(hits), hits, kills)
        self.note(f"worker {place.index} starts, armed: {arm.text}")
        return arm

    def _on_death(self, place: Place, hit: Arm | None) -> None:
        assert place.process is not None
        self.note(f"worker {place.index} ended, {place.process.returncode}, {'at ' + hit.name if hit else 'elsewhere'}")
        if hit is not None and hit.then:
            for other in self.places:
                other.kill()
                self._forced[other.index] = deque([Arm(hit.then)])

    # -- the run

    async def run(self) -> None:
        """Traffic, workers and faults until the plan is done; then everything drained."""
        self.places[0].start(
            None, "--prepare"
        )  # compiles the kernels where they are not yet: no start may wait for that
        if await self.places[0].ended(PREPARE_S) != Exit.OK:
            raise RuntimeError("a worker cannot prepare; see worker-0.log")
        self._began = time.monotonic()
        traffic = asyncio.create_task(self.traffic.run())
        places = [asyncio.create_task(place.run()) for place in self.places]
        for place in self.places:
            place.wanted.set()
        try:
            await self._follow(places, traffic)
        finally:
            self.traffic.stop()
            await asyncio.gather(*self._guests, return_exceptions=True)
            for task in places:
                task.cancel()
            await asyncio.gather(*places, return_exceptions=True)
        await traffic
        self.note("the faults end")
        for place in (*self.places, self._extra):
            await place.stop()
        await self._drain()

    async def _follow(self, places: list[asyncio.Task[None]], traffic: asyncio.Task[None]) -> None:
        async def alive() -> None:
            await asyncio.sleep(POLL_S)
            for task in (*places, traffic):
                if task.done():
                    task.result()
                    raise RuntimeError(f"{task} ended early")

        for fault in self.plan.faults:
            while self.tally.kills < fault.at_kill:
                await alive()
            await self.apply(fault)
            await asyncio.sleep(PAUSE_S)
        while not self._enough():
            await alive()
            if self._overtime() and set(self.plan.short_of(self.tally.hits)) & set(HIDDEN):
                await self.apply(Fault(self.tally.kills, "hide", 0.0, 0, self.tally.kills))

    def _overtime(self) -> bool:
        return self.tally.kills >= self.plan.kills >= LONG

    def _enough(self) -> bool:
        kills, wanted = self.tally.kills, self.plan.kills
        if kills < wanted:
            return False
        return wanted < LONG or not self.plan.short_of(self.tally.hits) or kills >= OVERTIME * wanted

    async def _drain(self) -> None:
        for place in self.places:
            place.start(None, "--drain")
        self.drained = list(await asyncio.gather(*(place.ended(DRAIN_S) for place in self.places)))
        self.note(f"drained: exit codes {self.drained}")

    # -- the faults

    async def apply(self, fault: Fault) -> None:
        """One fault, until it is over; a guest's stay is not waited for."""
        self.note(f"{fault.kind}, worker {fault.worker}, {fault.seconds:.1f} s")
        place = self.places[fault.worker]
        match fault.kind:
            case "kill":
                place.kill()
            case "kill-all":
                for each in self.places:
                    each.kill()
            case "term":
                await place.stop()
            case "freeze":
                await place.freeze(fault.seconds)
            case "leave":
                place.wanted.clear()
                await place.stop()
                await asyncio.sleep(fault.seconds)
                place.wanted.set()
            case "join":
                guest = asyncio.create_task(self._guest(fault.seconds))
                self._guests.add(guest)
                guest.add_done_callback(self._guests.discard)
            case "switch":
                model = MODELS[fault.seed % len(MODELS)]
                await self._patiently(lambda: asyncio.to_thread(self.cluster.switch, model))
            case "hide":
                await self._hide(fault)
            case "broker-kill" | "broker-term":
                await self._broker(fault)
        self.tally.disturbed_at = time.monotonic()

    async def _patiently(self, act: Callable[[], Awaitable[T]]) -> T:
        """An act of our own on the broker, which may have come back a moment ago."""
        for _ in range(TRIES - 1):
            try:
                return await act()
            except Exception as error:  # noqa: BLE001  whatever the clients raise; the last one is shown
                self.note(f"not now: {error!r}")
                await asyncio.sleep(PAUSE_S)
        return await act()

    async def _guest(self, seconds: float) -> None:
        """One more worker, not armed, for a while."""
        if self._extra.alive:
            return
        self._extra.start(None)
        await asyncio.sleep(JOIN_READY_S + seconds)
        await self._extra.stop()
        self.tally.disturbed_at = time.monotonic()

    async def _hide(self, fault: Fault) -> None:
        """All workers stop, and the group's metadata points behind what their successors need."""
        for place in self.places:
            place.wanted.clear()
        await asyncio.gather(*self._guests)
        await asyncio.gather(*(place.stop() for place in self.places))
        deadline = time.monotonic() + EMPTY_S
        while not await self.cluster.group_is_empty():
            if time.monotonic() > deadline:
                self.note("the group did not become empty; nothing is hidden")
                break
            await asyncio.sleep(0.5)
        else:
            self.hidden += await self._patiently(lambda: self.cluster.hide(random.Random(fault.seed)))
            for place, name in zip(self.places, HIDDEN * len(self.places), strict=False):
                self._forced[place.index] = deque([Arm(name)])
        for place in self.places:
            place.wanted.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._met(sum(self.tally.hits[name] for name in HIDDEN) + 2), RESTORED_S)

    async def _met(self, hits: int) -> None:
        """Until so many restores have read a whole log because something was hidden."""
        while sum(self.tally.hits[name] for name in HIDDEN) < hits:  # noqa: ASYNC110  a counter has no event
            await asyncio.sleep(POLL_S)

    async def _broker(self, fault: Fault) -> None:
        broker = self.cluster.broker
        self.tally.disturbed_at = time.monotonic() + 1e6
        await asyncio.to_thread(broker.kill if fault.kind == "broker-kill" else broker.stop)
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(broker.start)
        self.broker_restarts += 1
        self.note("the broker answers again")

    def end(self) -> None:
        """Kill what is left of the workers."""
        for place in (*self.places, self._extra):
            place.kill()
            if place.process is not None:
                place.process.wait()
