"""One contract test per private hook of Faust 0.15.3 and aiokafka 0.14: each fails when an upgrade moves it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import re
import threading
from collections import defaultdict

import aiokafka.consumer.fetcher as aiokafka_fetcher
import faust.transport.consumer as faust_consumer
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import CorruptRecordException, GroupAuthorizationFailedError
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from faust.app.base import App
from faust.tables.recovery import Recovery
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from stream import snapshots
from stream.chunks import Plain, RawBatch, records_of
from stream.damage import Damage
from stream.raw_fetch import MessageSet, RawPartitionRecords, install_raw_fetch
from stream.transport import RawApp

READ_COMMITTED = 1


def source(function) -> str:
    return inspect.getsource(function)


# -- hooks, by their text


def test_the_fetch_handler_builds_its_records_from_two_module_names():
    handler = aiokafka_fetcher.Fetcher._proc_fetch_request
    assert {"MemoryRecords", "PartitionRecords"} <= set(handler.__code__.co_names)
    assert not handler.__code__.co_freevars
    text = source(handler)
    assert "records.has_next()" in text
    assert "records.size_in_bytes()" in text
    parameters = list(inspect.signature(aiokafka_fetcher.PartitionRecords).parameters)
    assert parameters == [
        "tp", "records", "aborted_transactions", "fetch_offset", "key_deserializer", "value_deserializer", "check_crcs",
        "isolation_level",
    ]  # fmt: skip


def test_a_fetch_result_asks_its_records_for_the_next_offset_only():
    text = source(aiokafka_fetcher.FetchResult)
    assert set(re.findall(r"_partition_records\.(\w+)", text)) == {"next_fetch_offset"}
    assert aiokafka_fetcher.READ_COMMITTED == READ_COMMITTED


def test_another_fetcher_is_refused_loudly():
    class Other:
        def _proc_fetch_request(self) -> None: ...

    with pytest.raises(RuntimeError, match=r"aiokafka 0\.14"):
        install_raw_fetch(Other(), frozenset(), Damage())


def test_fausts_drain_takes_read_offsets_from_the_mapping_that_we_replace():
    text = source(faust_consumer.Consumer._drain_messages)
    assert "get_read_offset = self._read_offset.__getitem__" in text
    assert "r_offset is None or offset >= r_offset" in text
    assert "getmany(timeout=1.0)" in text


def test_faust_asks_new_offset_before_every_commit_and_seeks_after_the_rebalance_signal():
    assert "self._new_offset(tp)" in source(faust_consumer.Consumer._filter_committable_offsets)
    text = source(Recovery._resume_streams)
    assert text.index("on_rebalance_complete.send()") < text.index("consumer.perform_seek()")
    assert text.index("consumer.perform_seek()") < text.index("consumer.resume_flow()")
    assert "_on_partitions_revoked" in source(faust_consumer.Consumer.on_partitions_revoked)
    assert "self.on_before_shutdown.send()" in source(App.on_stop)


def test_members_that_are_overridden_or_read_still_exist():
    for owner, names in {
        faust_consumer.Consumer: (
            "_add_gap",
            "_get_active_partitions",
            "on_buffer_full",
            "on_buffer_drop",
            "perform_seek",
        ),
        driver.Consumer: ("_new_consumer_thread", "_getmany", "seek_wait"),
        driver.AIOKafkaConsumerThread: ("_create_worker_consumer", "_ensure_consumer", "verify_event_path", "on_start"),
        App: ("_new_transport",),
        GroupCoordinator: ("fetch_committed_offsets",),
    }.items():
        for name in names:
            assert callable(getattr(owner, name)), name
    start = source(AIOKafkaConsumer.__init__)
    assert "self._isolation_level = " in start
    assert "self._fetch_max_wait_ms = " in start


async def test_a_client_without_a_broker_pauses_between_attempts(monkeypatch):
    assert "ret = await self._metadata_update(self.cluster, topics)" in source(AIOKafkaClient._md_synchronizer)
    monkeypatch.setattr(snapshots, "NO_BROKER_PAUSE_S", 0.05)
    client = AIOKafkaClient(bootstrap_servers="127.0.0.1:1")
    snapshots.patient(client)
    attempts = 0
    async with asyncio.timeout(5):
        started = asyncio.get_running_loop().time()
        while attempts < 4:
            assert not await client._metadata_update(client.cluster, None)
            attempts += 1
        assert asyncio.get_running_loop().time() - started >= 0.2
    await client.close()


# -- hooks, by what they do


def partition_records(
    data: bytes, *, raw: bool = True, aborted=None, position: int = 0, check: bool = True, damage=None
):
    rules = (raw, damage or Damage())
    return RawPartitionRecords(
        rules, TP("t", 0), MessageSet(data), aborted, position, None, None, check, READ_COMMITTED
    )


def test_an_old_format_goes_through_the_clients_own_reader():
    builder = LegacyRecordBatchBuilder(1, 0, 1 << 16)
    builder.append(0, 1234, b"k", b"v")
    (piece,) = partition_records(bytes(builder.build()))
    assert isinstance(piece, Plain)
    assert (piece.offset, piece.timestamp_ms, piece.key, piece.value) == (0, 1234, b"k", b"v")


def test_b33_a_wrong_checksum_in_an_old_format_ends_the_fetch_before_it():
    builder = LegacyRecordBatchBuilder(1, 0, 1 << 16)
    builder.append(0, 1234, b"k", b"v")
    data = bytearray(builder.build())
    data[-1] ^= 1
    damage = Damage()
    faults = []
    damage.on_fault = lambda *fault: faults.append(fault)
    assert list(partition_records(bytes(data), damage=damage)) == []
    ((place, tries, error),) = faults
    assert (place, tries) == (("t", 0), 1)
    assert isinstance(error, CorruptRecordException)


class Session:
    """A running RawApp that collects chunks by partition and starts where it is told."""

    def __init__(self, servers: str, group: str, raw: list[str], plain: list[str], tmp_path) -> None:
        self.app = RawApp(
            group, broker=f"kafka://{servers}", raw_topics=raw, web_enabled=False, stream_wait_empty=True,
            stream_buffer_maxsize=8, topic_disable_leader=True, datadir=str(tmp_path), broker_request_timeout=20.0,
            broker_session_timeout=10.0, broker_heartbeat_interval=2.0, broker_rebalance_timeout=10.0,
        )  # fmt: skip
        self.start: dict[TP, int] = {}
        self.seen: dict[TP, list] = defaultdict(list)
        self.revoked: list[set[TP]] = []
        self.app.positions = self._positions
        self.app.before_revocation = self._before_revocation
        for name in [*raw, *plain]:
            self.app.agent(self.app.chunk_topic(name), name=f"agent-{name}")(self._take)

    async def _positions(self, tps):
        return {tp: self.start.get(tp, 0) for tp in tps}

    async def _before_revocation(self, tps):
        self.revoked.append(tps)

    async def _take(self, stream):
        async for chunk in stream:
            self.seen[TP(chunk.topic, chunk.partition)].append(chunk)

    def position(self, tp: TP) -> int:
        return self.seen[tp][-1].next_offset if self.seen[tp] else -1

    async def until(self, condition) -> None:
        for _ in range(1_200):  # a rebalance that waits for a member takes 10 s, and one may follow another
            if condition():
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"waited in vain; at { {tp: self.position(tp) for tp in self.seen} }")

    @property
    def thread(self):
        return self.app.consumer._thread


@contextlib.asynccontextmanager
async def running(*args):
    session = Session(*args)
    await session.app.start()
    try:
        yield session
    finally:
        await session.app.stop()


async def produce(servers: str, topic: str, values, *, compression=None, partition: int = 0, headers=None) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers, compression_type=compression, linger_ms=20)
    await producer.start()
    try:
        futures = [await producer.send(topic, value, partition=partition, headers=headers) for value in values]
        await asyncio.gather(*futures)
    finally:
        await producer.stop()


def values_of(chunks, position: int = 0) -> list[bytes]:
    found = []
    for chunk in chunks:
        records = records_of(chunk, max(position, chunk.first_offset))
        raw = records.buffer.tobytes()
        found += [raw[s : s + n] for s, n in zip(records.value_start, records.value_length, strict=True)]
    return found


async def test_five_compressions_arrive_as_bytes_and_a_seek_may_land_inside_a_batch(kafka, prefix, tmp_path):
    topic, plain = kafka.create_topic(prefix + "raw"), kafka.create_topic(prefix + "plain")
    sent = []
    for compression in (None, "gzip", "snappy", "lz4", "zstd"):
        values = [f"{compression}-{i}".encode() * 5 for i in range(60)]
        await produce(kafka.bootstrap_servers, topic, values, compression=compression)
        sent += values
    await produce(kafka.bootstrap_servers, plain, [b"pane"], headers=[("epoch", b"7")])
    at, beside = TP(topic, 0), TP(plain, 0)
    session = Session(kafka.bootstrap_servers, prefix + "g", [topic], [plain], tmp_path)
    session.start = {at: 7}  # in the middle of the first batch
    await session.app.start()
    try:
        await session.until(lambda: session.position(at) == 300 and session.position(beside) == 1)
        chunks = session.seen[at]
        assert all(isinstance(piece, RawBatch) for chunk in chunks for piece in chunk.pieces)
        assert chunks[0].first_offset == 7
        assert all(a.next_offset == b.first_offset for a, b in itertools.pairwise(chunks))
        assert values_of(chunks, 7) == sent[7:]
        (record,) = session.seen[beside][0].pieces
        assert (record.value, record.headers) == (b"pane", (("epoch", b"7"),))
        # a seek while running; what a fetch under way at that time brings may carry the old number, never wrong offsets
        before, count = session.app.seeks[at], len(chunks)
        await session.app.seek({at: 100})
        assert session.app.seeks[at] == before + 1
        await session.until(lambda: len(session.seen[at]) > count and session.position(at) == 300)
        later = session.seen[at][count:]
        assert later[0].first_offset == 100
        assert values_of(later) == sent[100:]
    finally:
        await session.app.stop()


async def test_aborted_transactions_never_arrive_and_positions_pass_their_markers(kafka, prefix, tmp_path):
    topic = kafka.create_topic(prefix + "raw")
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, transactional_id=prefix + "tx")
    await producer.start()
    async with producer.transaction():
        await producer.send_and_wait(topic, b"kept", partition=0)
    with contextlib.suppress(RuntimeError):
        async with producer.transaction():
            await producer.send_and_wait(topic, b"aborted", partition=0)
            raise RuntimeError
    async with producer.transaction():
        await producer.send_and_wait(topic, b"kept too", partition=0)
    await producer.stop()
    at = TP(topic, 0)
    async with running(kafka.bootstrap_servers, prefix + "g", [topic], [], tmp_path) as session:
        await session.until(lambda: session.position(at) == 6)
        chunks = session.seen[at]
        assert values_of(chunks) == [b"kept", b"kept too"]
        assert all(a.next_offset == b.first_offset for a, b in itertools.pairwise(chunks))
        assert (await session.thread.bounds([at])) == {at: (0, 6)}


async def test_a_commit_tells_whether_this_generation_owns_the_partition(kafka, prefix, tmp_path):
    topic = kafka.create_topic(prefix + "raw")
    at = TP(topic, 0)
    async with running(kafka.bootstrap_servers, prefix + "g", [topic], [], tmp_path) as session:
        thread, generation = session.thread, session.app.consumer_generation_id
        assert await thread.committed(at) is None
        assert await thread.commit_fenced({at: 0}, "state:3", generation)
        assert await thread.committed(at) == (0, "state:3")
        assert not await thread.commit_fenced({at: 1}, "", generation - 1)
        assert not await thread.commit_fenced({TP(topic, 9): 1}, "", generation)
        # Faust's own commit stays away: what its agents acknowledge commits nothing
        await produce(kafka.bootstrap_servers, topic, [b"x"])
        await session.until(lambda: session.position(at) == 1)
        await session.app.consumer.commit()
        assert await thread.committed(at) == (0, "state:3")


async def test_a_second_member_makes_the_first_give_up_and_seek_anew(kafka, prefix, tmp_path):
    topic = kafka.create_topic(prefix + "raw", partitions=2)
    async with running(kafka.bootstrap_servers, prefix + "g", [topic], [], tmp_path / "a") as first:
        generation = first.app.consumer_generation_id
        assert generation == 1  # joined once: another request to join would be another rebalance of everybody
        first.revoked.clear()
        async with running(kafka.bootstrap_servers, prefix + "g", [topic], [], tmp_path / "b") as second:
            await first.until(
                lambda: len(first.app.consumer.assignment()) == len(second.app.consumer.assignment()) == 1
            )
            assert first.revoked == [{TP(topic, 0), TP(topic, 1)}]
            (mine,) = first.app.consumer.assignment()
            # the app hears of its generation a moment after the client has its partitions
            await first.until(lambda: first.app.consumer_generation_id > generation)
            assert first.app.consumer_generation_id == second.app.consumer_generation_id == generation + 1
            assert not await first.thread.commit_fenced({mine: 0}, "", generation)
            for partition in (0, 1):
                await produce(kafka.bootstrap_servers, topic, [b"x"], partition=partition)
            await first.until(lambda: first.position(mine) == 1)
            (other,) = second.app.consumer.assignment()
            await second.until(lambda: second.position(other) == 1)
            assert not first.seen[other]


async def test_what_a_fetch_begun_before_a_rebalance_returns_after_it_is_read_again(
    kafka, prefix, tmp_path, monkeypatch
):
    """The client has passed it by then, and without another record nothing would tell that it is missing."""
    topic = kafka.create_topic(prefix + "raw", partitions=2)
    async with running(kafka.bootstrap_servers, prefix + "g", [topic], [], tmp_path / "a") as first:
        thread, fetch = first.thread, first.thread._fetch_records
        held, go_on, returned = threading.Event(), threading.Event(), []

        async def late(*args, **kwargs):
            if held.is_set():
                return await fetch(*args, **kwargs)
            held.set()
            while not go_on.is_set():  # noqa: ASYNC110  the client's own loop, in another thread
                await asyncio.sleep(0.01)
            returned.append(await fetch(*args, **kwargs))
            return returned[0]

        monkeypatch.setattr(thread, "_fetch_records", late)
        await first.until(held.is_set)
        async with running(kafka.bootstrap_servers, prefix + "g", [topic], [], tmp_path / "b") as second:
            await first.until(
                lambda: len(first.app.consumer.assignment()) == len(second.app.consumer.assignment()) == 1
            )
            (mine,) = first.app.consumer.assignment()
            await first.until(lambda: first.app.seeks[mine] == 2)
            await first.until(lambda: first.app.consumer.flow_active)
            await produce(kafka.bootstrap_servers, topic, [b"x"], partition=mine.partition)
            await first.until(lambda: bool(thread._consumer._fetcher._records))
            go_on.set()
            await first.until(lambda: first.position(mine) == 1)
            assert [list(each) for each in returned] == [[mine]]
            assert first.app.seeks[mine] == 3
            assert values_of(first.seen[mine]) == [b"x"]


async def test_a_member_with_nothing_to_fetch_stays_in_the_group(kafka, prefix, tmp_path):
    """Longer than the client lets anyone be in a group without fetching."""
    topic = kafka.create_topic(prefix + "raw")
    async with (
        running(kafka.bootstrap_servers, prefix + "g", [topic], [], tmp_path / "a") as first,
        running(kafka.bootstrap_servers, prefix + "g", [topic], [], tmp_path / "b") as second,
    ):
        both = (first, second)
        await first.until(lambda: sorted(len(each.app.consumer.assignment()) for each in both) == [0, 1])
        generation = second.app.consumer_generation_id
        for each in both:
            each.thread._consumer._coordinator._max_poll_interval = 2.0
        await asyncio.sleep(6)
        assert [each.app.consumer_generation_id for each in both] == [generation, generation]
        assert not any(each.app.rebalancing for each in both)


async def test_an_error_of_the_group_ends_a_member_that_fetches_nothing(kafka, prefix, tmp_path):
    """The client waits until somebody has asked for it, and joins no more meanwhile."""
    topic = kafka.create_topic(prefix + "raw")
    async with (
        running(kafka.bootstrap_servers, prefix + "g", [topic], [], tmp_path / "a") as first,
        running(kafka.bootstrap_servers, prefix + "g", [topic], [], tmp_path / "b") as second,
    ):
        both = (first, second)
        await first.until(lambda: sorted(len(each.app.consumer.assignment()) for each in both) == [0, 1])
        (idle,) = (each for each in both if not each.app.consumer.assignment())

        async def refused() -> bool:
            raise GroupAuthorizationFailedError(prefix + "g")

        idle.thread._consumer._coordinator._do_heartbeat = refused
        await asyncio.wait_for(idle.app._crashed.wait(), 10)
        assert isinstance(idle.app.crash_reason, GroupAuthorizationFailedError)
