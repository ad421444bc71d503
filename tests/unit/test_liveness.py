"""When a worker ends itself: only if a fresh connection answers, the log goes on, and a position stands without a reason."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from stream import liveness
from stream.assignment import COLLECTOR, MONITOR, LogReplaced, Refused
from stream.liveness import Liveness
from stream.metrics import Metrics
from stream.supervisor import Exit
from stream.topics import TopicRole

STALLED_S = 60.0


class Slot(SimpleNamespace):
    def __init__(self, stage: str, source: str, position: int) -> None:
        super().__init__(
            stage=stage, source=source, partition=0, position=position, usable=True, ahead=False, damaged=False,
            waiting=False, lane=SimpleNamespace(blocked=False), owner=SimpleNamespace(topics={source: "id"}),
        )  # fmt: skip


class Cluster:
    """One partition of each stage; `clock_s` is what the code under test reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock_s = 1000.0
        monkeypatch.setattr(liveness.time, "monotonic", lambda: self.clock_s)
        self.slots = {(COLLECTOR, 0): Slot(COLLECTOR, "predictions", 5), (MONITOR, 0): Slot(MONITOR, "panes", 7)}
        self.log_ends = {"predictions": 5, "panes": 7}
        self.counts = {"predictions": 1, "panes": 1}
        self.id, self.absent, self.answering = "id", "", True
        self.stops: list[tuple[int, str]] = []
        self.reloads: list[BaseException] = []
        self.watched = {role.value: f"driftline.{role.value}" for role in TopicRole}
        config = SimpleNamespace(
            monitors=1, source=lambda role: f"driftline.{role.value}", watched=lambda: self.watched
        )
        engine = SimpleNamespace(rebalancing=False, generation=1, stop=lambda code, why: self.stops.append((code, why)))
        self.engine = engine
        self.owners = SimpleNamespace(slots=self.slots, restoring=False)
        worker: Any = SimpleNamespace(
            setup=SimpleNamespace(sources=1, config=config, feedback={}),
            owners=self.owners,
            engine=engine,
            reload=self.reload,
        )
        self.liveness = Liveness(worker, self, Metrics(), STALLED_S)

    async def reload(self, _slot: Any, error: BaseException) -> None:
        self.reloads.append(error)

    async def ends(self, role: str, _partitions: int) -> dict[int, int]:
        return {0: self.log_ends[role]}

    async def topics(self) -> dict[str, Any]:
        roles = [role for role in self.watched if role != self.absent]
        return {role: SimpleNamespace(partitions=self.counts.get(role, 1), id=self.id) for role in roles}

    async def answers(self) -> bool:
        return self.answering

    def look(self, after_s: float = 0.0) -> None:
        self.clock_s += after_s
        asyncio.run(self.liveness.look())


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


@pytest.mark.parametrize("stage", [COLLECTOR, MONITOR])
def test_a_position_that_stands_while_its_log_goes_on_ends_the_worker(cluster: Cluster, stage: str) -> None:
    source = cluster.slots[stage, 0].source
    cluster.log_ends[source] += 10
    cluster.look()
    cluster.look(STALLED_S)
    assert cluster.stops == []
    cluster.look(1.0)
    (code, why), *_ = cluster.stops
    assert code == Exit.CRASHED
    assert f"driftline.{source}-0 stands at" in why


def test_nobody_ends_while_it_moves_or_has_nothing_to_read(cluster: Cluster) -> None:
    for turn in range(10):
        cluster.log_ends["predictions"] += 10
        cluster.slots[COLLECTOR, 0].position += 1
        cluster.look(STALLED_S / 2 * (turn > 0))
    assert cluster.stops == []


@pytest.mark.parametrize("reason", ["blocked", "ahead", "damaged", "waiting"])
def test_what_waits_for_something_known_does_not_stand_still(cluster: Cluster, reason: str) -> None:
    slot = cluster.slots[COLLECTOR, 0]
    setattr(slot.lane if reason == "blocked" else slot, reason, True)
    cluster.log_ends["predictions"] += 10
    for _ in range(5):
        cluster.look(STALLED_S)
    assert cluster.stops == []
    setattr(slot.lane if reason == "blocked" else slot, reason, False)
    cluster.look(STALLED_S + 1)
    assert len(cluster.stops) == 1


def test_a_connection_of_its_own_must_answer_first(cluster: Cluster) -> None:
    cluster.answering = False
    cluster.log_ends["predictions"] += 10
    for _ in range(5):
        cluster.look(STALLED_S)
    assert cluster.stops == []


def test_an_assignment_that_never_comes_ends_the_worker_and_a_restore_does_not(cluster: Cluster) -> None:
    cluster.engine.rebalancing = True
    cluster.owners.restoring = True
    for _ in range(3):
        cluster.look(STALLED_S)
    assert cluster.stops == []
    cluster.owners.restoring = False
    cluster.look(STALLED_S + 1)
    assert "no assignment" in cluster.stops[0][1]


def test_another_log_under_the_same_name_is_loaded_again_however_long_it_is(cluster: Cluster) -> None:
    cluster.id = "another"
    cluster.log_ends |= {"predictions": 500, "panes": 500}
    cluster.look()
    assert len(cluster.reloads) == 2
    assert all(isinstance(error, LogReplaced) for error in cluster.reloads)


def test_growth_is_refused_and_a_topic_that_stays_away_too(cluster: Cluster) -> None:
    cluster.counts["predictions"] = 2
    with pytest.raises(Refused, match="predictions"):
        cluster.look()
    cluster.counts["predictions"] = 1
    cluster.absent = "windows"
    cluster.look()
    with pytest.raises(Refused, match=r"driftline\.windows"):
        cluster.look(STALLED_S + 1)
    cluster.absent = "panes"
    with pytest.raises((LogReplaced, Refused)):
        cluster.look()


def test_a_topic_of_which_copies_are_read_may_not_be_gone_either(cluster: Cluster) -> None:
    cluster.watched["rekeyed.predictions"] = "scored"
    cluster.look()
    cluster.absent = "rekeyed.predictions"
    with pytest.raises(LogReplaced, match="no topic scored just now"):
        cluster.look()
    with pytest.raises(Refused, match="no topic scored any more"):
        cluster.look(STALLED_S + 1)
    cluster.absent = ""
    cluster.look()
    cluster.absent = "rekeyed.predictions"  # for a moment only
    with pytest.raises(LogReplaced):
        cluster.look()
