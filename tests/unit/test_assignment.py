"""Slots: restored, reloaded, refused; with a stage that adds numbers and a state log in memory."""

from __future__ import annotations

from typing import ClassVar

import pytest

from stream import assignment
from stream.assignment import COLLECTOR, Owners, Refused, Slot
from stream.metrics import Metrics
from stream.protocol import Fenced, InputLost, Restored, Saved
from stream.stage import Decision, Output


class Adding:
    """A stage that adds what it is given; refuses 13."""

    def __init__(self) -> None:
        self.outbox: list[Output] = []
        self.total = 0

    def apply(self, source, batch) -> None:
        for number in batch:
            if number == 13:
                raise ValueError("thirteen")
            self.total += number

    def decide(self, decision: Decision) -> None: ...

    def changed_blobs(self):
        return {"meta": str(self.total).encode()}

    def load(self, blobs) -> None:
        self.total = int(blobs["meta"])


class Lane:
    """Runs no generator: makes the owner ready as a restore would, or fails as planned."""

    plan: ClassVar[list[BaseException]] = []
    blocked = False

    def __init__(self) -> None:
        self.closed = False
        self.slot: Slot | None = None

    async def drive_restore(self, steps):
        if Lane.plan:
            raise Lane.plan.pop(0)
        owner = steps.gi_frame.f_locals["self"]
        owner.vector, owner.ready, owner.epoch = {"predictions": 0}, True, 1
        return Restored(1, {"predictions": 0}, 0, 1, 0, 1, 0, 0, 0)

    async def drive_snapshot(self, steps):
        if Lane.plan:
            raise Lane.plan.pop(0)
        return Saved({"predictions": 0}, 1, 1, 10, 10, 0, 0)

    def post(self, outputs) -> None: ...

    async def room(self) -> None: ...

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def owners(monkeypatch):
    monkeypatch.setattr(assignment, "RETRY_FIRST_S", 0.001)
    Lane.plan = []
    return Owners(
        lambda stage, partition: Adding(),
        lambda stage, partition, generation: Lane(),
        begin=lambda slot: None,
        is_transient=lambda error: isinstance(error, OSError),
        monitors=1,
        metrics=Metrics(),
    )


WANTED = [(COLLECTOR, 0)]


async def test_a_broker_that_is_away_is_waited_for(owners):
    Lane.plan = [OSError(), OSError()]
    await owners.restore(WANTED, 1, lambda: True)
    assert owners.get(COLLECTOR, 0) is not None


async def test_what_belongs_to_another_is_left_alone(owners):
    Lane.plan = [Fenced()]
    await owners.restore(WANTED, 1, lambda: True)
    assert owners.get(COLLECTOR, 0) is None


@pytest.mark.parametrize("error", [InputLost("gone"), KeyError("a fault of the program")])
async def test_what_no_restart_mends_is_refused_by_name(owners, error):
    Lane.plan = [error]
    with pytest.raises(Refused, match=type(error).__name__):
        await owners.restore(WANTED, 1, lambda: True)


async def test_an_assignment_that_has_changed_meanwhile_gives_nothing(owners):
    answers = iter([True, False])
    await owners.restore(WANTED, 1, lambda: next(answers))
    assert owners.get(COLLECTOR, 0) is None


async def test_a_record_that_fails_again_and_again_is_refused_but_progress_starts_anew(owners):
    await owners.restore(WANTED, 1, lambda: True)
    for _ in range(assignment.RELOADS_MAX):
        slot = owners.get(COLLECTOR, 0)
        slot.owner.vector["predictions"] = 7
        with pytest.raises(ValueError, match="thirteen"):
            slot.owner.apply("predictions", [1, 13], 9)
        assert owners.get(COLLECTOR, 0) is None  # dead: nothing of it may be used
        await owners.reload(slot, ValueError("thirteen"), lambda: True)
    slot = owners.get(COLLECTOR, 0)
    slot.owner.vector["predictions"] = 8  # one further: another fault
    await owners.reload(slot, ValueError("thirteen"), lambda: True)
    for _ in range(assignment.RELOADS_MAX - 1):
        slot = owners.get(COLLECTOR, 0)
        slot.owner.vector["predictions"] = 8
        await owners.reload(slot, ValueError("thirteen"), lambda: True)
    slot = owners.get(COLLECTOR, 0)
    slot.owner.vector["predictions"] = 8
    with pytest.raises(Refused, match="again and again"):
        await owners.reload(slot, ValueError("thirteen"), lambda: True)


async def test_a_broker_that_flaps_is_no_fault_of_a_record(owners):
    await owners.restore(WANTED, 1, lambda: True)
    for _ in range(3 * assignment.RELOADS_MAX):
        await owners.reload(owners.get(COLLECTOR, 0), OSError(), lambda: True)
    assert owners.get(COLLECTOR, 0) is not None


async def test_a_fenced_snapshot_closes_the_slot_and_a_failed_one_kills_it(owners):
    await owners.restore([(COLLECTOR, 0), (COLLECTOR, 1)], 1, lambda: True)
    first, second = owners.get(COLLECTOR, 0), owners.get(COLLECTOR, 1)
    Lane.plan = [Fenced()]
    assert not await owners.snapshot(first)
    assert owners.get(COLLECTOR, 0) is None
    Lane.plan = [OSError("away")]
    assert not await owners.snapshot(second)
    assert isinstance(second.error, OSError)
