"""The plan of a chaos run: which failpoint each start of a worker is armed with, and what happens to all of them when.

A function of seed, number of kills and workers alone. What the plan cannot know is time: an arm that is not reached is
put back, and the run goes on with arms beyond the planned ones until enough processes have been killed.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from stream.failpoints import FAILPOINTS
from stream.protocol import RESTORE_STEPS

HITS_MIN = 3  # of every failpoint, in a long run
LONG = 300  # kills from which on a run must meet every condition
SWITCHES_MIN = IDLES_MIN = 20
PASSES = 4  # how often every failpoint is planned
KILLS_PER_BROKER_FAULT = 25

#: Places that are reached many times a second or once a start: at which time the process ends. All others: the first.
NTH = {
    "ingest.": 40,
    "merge.": 20,
    "send:panes": 60,
    "acknowledged:panes": 60,
    "send:dead-letters": 20,
    "acknowledged:dead-letters": 20,
    "send:windows": 4,
    "acknowledged:windows": 4,
    "decision.taken": 4,
    "before:snapshot.3": 12,
    "after:snapshot.3": 12,
    "before:snapshot.4": 12,
    "after:snapshot.4": 12,
    "before:snapshot.5": 12,
    "after:snapshot.5": 12,
    "before:snapshot.6": 12,
    "after:snapshot.6": 12,
    "before:snapshot.9": 12,
    "after:snapshot.9": 12,
    "before:restore.1-metadata": 3,
    "after:restore.1-metadata": 3,
    "before:restore.2": 3,
    "after:restore.2": 3,
    "before:restore.3": 3,
    "after:restore.3": 3,
    "before:restore.4": 3,
    "after:restore.4": 3,
    "before:restore.5": 3,
    "after:restore.5": 3,
}
#: Reached only after the kill of a process at another place: when every worker falls there and all start with this one.
AFTER = {
    "before:restore.8-journal": "before:snapshot.7-journal",
    "after:restore.8-journal": "after:snapshot.7-journal",
    "before:restore.8-release": "before:snapshot.8-release",
    "after:restore.8-release": "after:snapshot.8-release",
}
HIDDEN = ("before:restore.1-log-whole", "after:restore.1-log-whole")  # reached after Cluster.hide
#: Reached some fifty times an hour, whoever waits for it: a start with one of them alone meets it once in ten. So every start
#: carries one besides its own arm, until it was hit so often in a long run (spread over it: not more by a share of the kills).
RARE = ("send:alerts", "acknowledged:alerts")
RARE_HITS = 8
FREEZE_S = (5.0, 14.0)


@dataclass(frozen=True)
class Arm:
    """What one start of a worker is armed with. `then`: all workers are killed with it, and start again with that one.
    `also`: a rare failpoint that kills it too, if it comes first.
    """

    name: str
    nth: int = 1
    action: str = "kill"
    freeze_s: float = 0.0
    then: str = ""
    also: str = ""

    @property
    def text(self) -> str:
        """As DRIFTLINE_FAILPOINTS names it."""
        return f"{self.name}@{self.nth}={self.action}" + (f", {self.also}=kill" if self.also else "")

    @property
    def names(self) -> tuple[str, ...]:
        """The failpoints that this start tries."""
        return (self.name, self.also) if self.also else (self.name,)


@dataclass(frozen=True)
class Fault:
    """Something from outside, once so many processes have been killed. `seconds`: how long it lasts; `worker`: whom it meets."""

    at_kill: int
    kind: str
    seconds: float
    worker: int
    seed: int


KINDS = ("kill", "kill-all", "term", "freeze", "join", "leave")  # drawn at random, in between the planned ones


@dataclass
class Plan:
    """Arms in their order, faults by the kill that they follow."""

    seed: int
    kills: int
    workers: int
    arms: deque[Arm] = field(default_factory=deque)
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        r = random.Random(f"plan {self.seed}")
        for _ in range(PASSES):
            names = [name for name in FAILPOINTS if name not in HIDDEN]
            r.shuffle(names)
            self.arms.extend(arm(name, r) for name in names)
        self.faults = sorted(self._faults(r), key=lambda fault: fault.at_kill)
        self._later = random.Random(f"later {self.seed}")

    def _faults(self, r: random.Random) -> Iterable[Fault]:
        def fault(at: float, kind: str, seconds: tuple[float, float]) -> Fault:
            return Fault(int(at), kind, r.uniform(*seconds), r.randrange(self.workers), r.randrange(2**32))

        share = self.kills / LONG
        for i in range(switches := max(1, round(1.25 * SWITCHES_MIN * share))):
            yield fault((i + r.random()) * 0.9 * self.kills / switches, "switch", (0.0, 0.0))
        for i in range(hides := max(1, round(4 * share))):
            yield fault((i + 0.2 + 0.6 * r.random()) * 0.9 * self.kills / hides, "hide", (0.0, 0.0))
        for i in range(outages := max(1, self.kills // KILLS_PER_BROKER_FAULT)):
            kind = r.choice(("broker-kill", "broker-term"))
            yield fault((i + r.random()) * 0.9 * self.kills / outages, kind, (0.5, 8.0))
        for i in range(others := max(3, self.kills // 3)):
            kind = KINDS[i % len(KINDS)] if i < len(KINDS) else r.choice(KINDS)
            yield fault((i + r.random()) * 0.95 * self.kills / others, kind, FREEZE_S)

    def next_arm(self, hits: Counter[str]) -> Arm:
        """The next one; beyond the plan, of those that were not reached often enough while there are any."""
        if not self.arms:
            names = [name for name in self.short_of(hits) or FAILPOINTS if name not in HIDDEN] or ["ingest.applied"]
            self._later.shuffle(names)
            self.arms.extend(arm(name, self._later) for name in names)
        return self.arms.popleft()

    def with_rare(self, first: Arm, hits: Counter[str], kills: int) -> Arm:
        """The arm, and with it the rare failpoint that is furthest behind what is due after so many kills, if one is."""
        due = min(RARE_HITS, math.ceil(RARE_HITS * (kills + 1) / max(self.kills, LONG)))
        behind = [name for name in RARE if name != first.name and hits[name] < due]
        return replace(first, also=min(behind, key=lambda name: hits[name])) if behind else first

    def put_back(self, missed: Arm) -> None:
        """An arm that was not reached is tried again, a little later and at the first time that its place is reached."""
        if missed.name in HIDDEN:
            return  # needs another fault first
        if missed.name in RARE and missed.action == "kill":
            return  # other starts carry it
        again = Arm(missed.name, 1, missed.action, missed.freeze_s, missed.then)
        if missed.name in AFTER:
            again = Arm(AFTER[missed.name], then=missed.name)
        self.arms.insert(min(len(self.arms), 2 + self._later.randrange(8)), again)

    def short_of(self, hits: Counter[str]) -> list[str]:
        """Failpoints that were not reached often enough."""
        return [name for name in FAILPOINTS if hits[name] < HITS_MIN]


def arm(name: str, r: random.Random) -> Arm:
    """One seeded arm: mostly a kill, at times a freeze or a SIGTERM at the very place."""
    most = next((most for start, most in NTH.items() if name.startswith(start)), 1)
    action = r.choices(("kill", "freeze", "term"), (10, 1, 1))[0]
    nth, freeze_s = r.randint(1, most), r.uniform(*FREEZE_S)
    if name in AFTER:
        return Arm(AFTER[name], 1, "kill", 0.0, name)
    if name.startswith("stop.") and action == "term":
        action = "kill"  # a second SIGTERM there is a crash; the first one is how it got there
    return Arm(name, nth, action, freeze_s)


def covered(plan: Plan) -> set[str]:
    """Every failpoint that the plan reaches for."""
    hidden = HIDDEN if any(fault.kind == "hide" for fault in plan.faults) else ()
    return {name for a in plan.arms for name in (a.name, a.then) if name} | set(hidden)


assert {name.partition(":")[2] for name in (*AFTER, *HIDDEN)} <= set(RESTORE_STEPS)
