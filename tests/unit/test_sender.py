"""The sender of outputs: order, barriers, repeats, lasting failures."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from stream import sender as module
from stream.sender import Sender
from stream.stage import Output


class TransientError(Exception): ...


class FatalError(Exception): ...


class Broker:
    """Records what it is handed; acknowledges when told, or fails as planned."""

    def __init__(self, *, automatic: bool = True) -> None:
        self.handed: list[tuple[bytes, asyncio.Future]] = []
        self.automatic = automatic
        self.plan: list[BaseException | None] = []

    async def hand_over(self, output: Output) -> asyncio.Future:
        future = asyncio.get_running_loop().create_future()
        self.handed.append((output.key, future))
        error = self.plan.pop(0) if self.plan else None
        if error is not None:
            future.set_exception(error)
        elif self.automatic:
            future.set_result(SimpleNamespace(offset=len(self.handed) - 1))
        return future

    @property
    def keys(self) -> list[bytes]:
        return [key for key, _ in self.handed]

    def acknowledge(self) -> None:
        for offset, (_, future) in enumerate(self.handed):
            if not future.done():
                future.set_result(SimpleNamespace(offset=offset))


def make(broker: Broker, sent: list | None = None) -> Sender:
    sent = [] if sent is None else sent
    return Sender(broker.hand_over, lambda error: isinstance(error, TransientError), sent.append)


def output(key: str, *, barrier: bool = False) -> Output:
    return Output("panes", key.encode(), b"", barrier=barrier)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "RESEND_FIRST_S", 0.001)


async def test_a_barrier_waits_for_every_acknowledgement_before_it():
    broker = Broker(automatic=False)
    sender = make(broker)
    sender.post([output("a"), output("b"), output("m", barrier=True)])
    await asyncio.sleep(0.01)
    assert broker.keys == [b"a", b"b"]
    broker.handed[0][1].set_result(SimpleNamespace(offset=0))
    await asyncio.sleep(0.01)
    assert broker.keys == [b"a", b"b"]
    broker.acknowledge()
    await asyncio.sleep(0.01)
    assert broker.keys == [b"a", b"b", b"m"]
    broker.acknowledge()
    await sender.acknowledged()
    await sender.close()


async def test_barriers_side_by_side_go_together_and_what_is_none_passes_a_waiting_one():
    broker = Broker(automatic=False)
    sender = make(broker)
    first = [output("a"), output("m0", barrier=True), output("m1", barrier=True)]
    sender.post([*first, output("b"), output("n", barrier=True)])
    await asyncio.sleep(0.01)
    assert broker.keys == [b"a", b"b"]
    broker.handed[0][1].set_result(SimpleNamespace(offset=0))  # a, not b
    await asyncio.sleep(0.01)
    assert broker.keys == [b"a", b"b", b"m0", b"m1"]
    broker.handed[1][1].set_result(SimpleNamespace(offset=1))
    broker.handed[2][1].set_result(SimpleNamespace(offset=2))
    await asyncio.sleep(0.01)
    assert broker.keys == [b"a", b"b", b"m0", b"m1"]  # n waits for m1 as well
    broker.acknowledge()
    await asyncio.sleep(0.01)
    assert broker.keys[-1] == b"n"
    broker.acknowledge()
    await sender.acknowledged()
    await sender.close()


async def test_a_failed_send_is_repeated_and_holds_the_barrier():
    broker, sent = Broker(), []
    broker.plan = [TransientError(), TransientError()]
    sender = make(broker, sent)
    offsets = await sender.append([output("a"), output("m", barrier=True)])
    assert broker.keys == [b"a", b"a", b"a", b"m"]
    assert offsets == (2, 3)
    assert [one.key for one in sent] == [b"a", b"m"]
    await sender.close()


async def test_a_lasting_failure_is_told_to_whoever_asks_later_and_nothing_follows_it():
    broker = Broker()
    broker.plan = [FatalError("too large")]
    sender = make(broker)
    sender.post([output("a"), output("m", barrier=True)])
    await asyncio.sleep(0.02)
    with pytest.raises(FatalError):
        await sender.acknowledged()
    with pytest.raises(FatalError):
        sender.post([output("b")])
    assert broker.keys == [b"a"]
    await sender.close()


async def test_what_a_closed_sender_had_queued_is_void():
    broker = Broker(automatic=False)
    sender = make(broker)
    waiting = sender.post([output("a"), output("m", barrier=True)])
    await asyncio.sleep(0.01)
    await sender.close()
    assert all(isinstance(done.exception(), module.SenderClosedError) for done in waiting)
    assert broker.keys == [b"a"]


async def test_a_full_queue_holds_its_feeder_back(monkeypatch):
    monkeypatch.setattr(module, "QUEUE_BYTES_MAX", 100)
    broker = Broker(automatic=False)
    sender = make(broker)
    sender.post([output("a"), output("b")])
    room = asyncio.ensure_future(sender.room())
    await asyncio.sleep(0.01)
    assert not room.done()
    broker.acknowledge()
    await asyncio.wait_for(room, 1)
    await sender.close()
