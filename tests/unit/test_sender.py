"""The sender of outputs: order, barriers, repeats, lasting failures."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from stream import sender as module
from stream.sender import PARCEL_BYTES_MAX, Parcel, Sender, parcels
from stream.stage import Output


class TransientError(Exception): ...


class FatalError(Exception): ...


class Broker:
    """Records what it is handed; acknowledges when told, or fails as planned."""

    def __init__(self, *, automatic: bool = True) -> None:
        self.handed: list[tuple[bytes, asyncio.Future]] = []
        self.automatic = automatic
        self.plan: list[BaseException | None] = []

    async def hand_over(self, parcel: Parcel) -> asyncio.Future:
        future = asyncio.get_running_loop().create_future()
        self.handed.append((b"+".join(output.key for output in parcel), future))
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


async def test_what_waits_to_be_repeated_is_void_after_the_end(monkeypatch):
    monkeypatch.setattr(module, "RESEND_FIRST_S", 0.03)
    broker = Broker()
    broker.plan = [TransientError()]
    sender = make(broker)
    sender.post([output("a")])
    await asyncio.sleep(0.01)
    await sender.close()
    await asyncio.sleep(0.05)
    assert broker.keys == [b"a"]


async def test_the_rest_of_a_parcel_is_void_after_the_end():
    broker = Broker()
    broker.plan = [FatalError("too large")]
    sender = Sender(broker.hand_over, lambda _: False, lambda _: None, lambda *_: True)
    sender.post([placed("a"), placed("b"), placed("c")])
    await asyncio.sleep(0)
    broker.automatic = False
    await asyncio.sleep(0.02)
    assert broker.keys == [b"a+b+c", b"a"]
    await sender.close()
    broker.acknowledge()
    await asyncio.sleep(0.02)
    assert broker.keys == [b"a+b+c", b"a"]


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


def placed(key: str, size: int = 0, **where) -> Output:
    return Output(
        where.get("topic", "dead-letters"), key.encode(), bytes(size), where.get("partition", 0), headers=(("h", b"1"),)
    )


async def test_neighbours_of_one_partition_travel_together_and_keep_their_offsets():
    broker, sent = Broker(), []
    broker.plan = [TransientError()]
    sender = make(broker, sent)
    elsewhere = placed("c", partition=1)
    offsets = await sender.append(
        [placed("a"), placed("b"), elsewhere, placed("d"), output("m", barrier=True), placed("e")]
    )
    assert broker.keys == [b"a+b", b"c", b"d", b"e", b"a+b", b"m"]
    assert offsets == (4, 5, 1, 2, 5, 3)
    assert sorted(one.key for one in sent) == [b"a", b"b", b"c", b"d", b"e", b"m"]
    await sender.close()


def test_a_parcel_has_a_largest_size_and_never_splits_one_output():
    small, large = PARCEL_BYTES_MAX // 3, 5 * PARCEL_BYTES_MAX
    found = list(parcels([placed(str(i), size) for i, size in enumerate((small, small, small, large, 1))]))
    assert [[one.key for one in parcel] for parcel, _ in found] == [[b"0", b"1"], [b"2"], [b"3"], [b"4"]]
    assert all(size <= PARCEL_BYTES_MAX for parcel, size in found if len(parcel) > 1)
    assert [one.key for parcel, _ in parcels([output("a"), output("b")]) for one in parcel] == [b"a", b"b"]
    assert list(parcels([])) == []


async def test_what_an_operator_can_mend_is_repeated_one_by_one_and_blocks_until_it_is_taken(monkeypatch, caplog):
    monkeypatch.setattr(module, "SAY_S", 60.0)
    monkeypatch.setattr(module._Said, "at_s", float("-inf"))
    taken: list[bytes] = []
    mended = False

    async def hand_over(parcel):
        future = asyncio.get_running_loop().create_future()
        if not mended or len(parcel) > 1:
            future.set_exception(FatalError("too large"))
        else:
            taken.append(parcel[0].key)
            future.set_result(SimpleNamespace(offset=len(taken) - 1))
        return future

    sent: list[Output] = []
    sender = Sender(
        hand_over,
        lambda error: isinstance(error, TransientError),
        sent.append,
        lambda topic, _: topic == "dead-letters",
    )
    letters = [Output("dead-letters", b"%d" % i, b"", 0) for i in range(3)]
    (done,) = sender.post(letters)
    await asyncio.sleep(0.05)
    assert sender.blocked
    assert not done.done()
    mended = True
    assert await asyncio.wait_for(done, 5) == 0
    assert taken == [b"0", b"1", b"2"]
    assert sent == letters
    assert not sender.blocked
    assert len([r for r in caplog.records if "FatalError" in r.getMessage()]) == 1  # SAY_S
    mended = False
    sender.post([Output("panes", b"x", b"")])
    with pytest.raises(FatalError):
        await asyncio.wait_for(sender.acknowledged(), 5)
    await sender.close()


async def test_what_waits_for_too_long_blocks(monkeypatch):
    monkeypatch.setattr(module, "HELD_S", 0.02)
    broker = Broker(automatic=False)
    sender = make(broker)
    sender.post([output("a")])
    assert not sender.blocked
    await asyncio.sleep(0.05)
    assert sender.blocked
    broker.acknowledge()
    await asyncio.sleep(0.01)
    assert not sender.blocked
    await sender.close()
