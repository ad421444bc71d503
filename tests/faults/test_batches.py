"""Batches that a worker must not open, or cannot: a bomb (B31), and one whose bytes have changed on the broker's disk (B33)."""

from __future__ import annotations

import asyncio

import psutil
import pytest
from aiokafka import AIOKafkaProducer

from stream.broker import Broker, free_port
from stream.chunks import HEADER, LOG_OVERHEAD
from tests.faults.fault_bench import FaultBench, until

pytestmark = pytest.mark.kafka
BOMB_BYTES = 200_000_000  # some 200 kB once gzip has packed it
EVENTS = 2_000
PATIENCE_S = 60.0  # a damaged batch is tried for some 10 s


@pytest.fixture(scope="module")
def broker():
    """One of this module's own: its log is damaged."""
    with Broker() as running:
        yield running


@pytest.fixture(scope="module")
def bench(broker, tmp_path_factory):
    """Some batches of good and bad events, the second one damaged while the broker was down; damaged_batches: skip."""
    bench = FaultBench(broker.bootstrap_servers, "batches.", tmp_path_factory.mktemp("batches"), partitions=1)
    text = bench.config_path.read_text()
    bench.config_path.write_text(text.replace(f"name: {bench.topic},", f"name: {bench.topic}, damaged_batches: skip,"))
    assert "skip" in bench.config_path.read_text()
    bench.produce(bench.events(EVENTS), compressions=(None,))
    broker.stop()
    bench.damaged = damage_second_batch(broker.folder / "data" / f"{bench.topic}-0" / f"{0:020}.log")
    broker.start()
    return bench


@pytest.fixture(scope="module")
def worker(bench):
    with bench.worker(free_port()) as running:
        yield running.until_ready()


def damage_second_batch(segment) -> tuple[int, int]:
    """Change one byte in the middle of its records; its first offset and its number of records."""
    data = bytearray(segment.read_bytes())
    at = LOG_OVERHEAD + HEADER.unpack_from(data, 0)[1]
    base, length, *_, count = HEADER.unpack_from(data, at)
    assert count > 1
    assert at + LOG_OVERHEAD + length < len(data), "nothing behind it that would have to count"
    data[at + (LOG_OVERHEAD + HEADER.size + length) // 2] ^= 0x20
    segment.write_bytes(data)
    return base, count


def letters(bench, reason: str) -> list:
    return [r for r in bench.read(f"{bench.prefix}dead-letters") if dict(r.headers)["dlq.reason"] == reason.encode()]


def test_b33_a_batch_damaged_on_the_brokers_disk_is_one_dead_letter_and_the_rest_counts(bench, worker):
    base, count = bench.damaged
    bench.settle(worker, seconds=PATIENCE_S)
    until(lambda: len(letters(bench, "damaged_batch")) == 1, why=lambda: worker.log()[-3000:])
    (letter,) = letters(bench, "damaged_batch")
    headers = dict(letter.headers)
    assert headers["dlq.offset"] == str(base).encode()
    assert f"offsets {base} to {base + count - 1}".encode() in headers["dlq.detail"]
    assert b"checksum" in headers["dlq.detail"]
    everything = bench.ends()[0] - count + 1  # a batch that cannot be opened is one event
    until(lambda: worker.metric("consumed_events_total") == everything, why=lambda: worker.log()[-3000:])
    assert worker.metric("applied_events_total") > 0.8 * (EVENTS - count)


def test_b31_a_gzip_bomb_is_one_dead_letter_costs_no_memory_afterwards_and_the_next_events_count(bench, worker):
    process = psutil.Process(worker.process.pid)
    before, applied = process.memory_info().rss, worker.metric("applied_events_total")
    size = asyncio.run(send_bomb(bench))
    assert size < 300_000
    bench.produce(bench.events(400), compressions=(None,))
    bench.settle(worker, seconds=PATIENCE_S)
    until(lambda: worker.metric("applied_events_total") > applied + 350, PATIENCE_S, why=lambda: worker.log()[-3000:])
    (letter,) = letters(bench, "too_large")
    assert len(letter.value) < 1_000_000
    until(
        lambda: process.memory_info().rss < 1.2 * before, 30,
        why=lambda: f"{before / 1e6:.0f} MB before, {process.memory_info().rss / 1e6:.0f} now",
    )  # fmt: skip


async def send_bomb(bench) -> int:
    """One record of 200 MB in a gzip batch; the batch's bytes."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bench.servers, compression_type="gzip", max_batch_size=BOMB_BYTES + 1_000_000,
        max_request_size=BOMB_BYTES + 2_000_000,
    )  # fmt: skip
    await producer.start()
    try:
        batch = producer.create_batch()
        value = b'{"prediction_id": "bomb", "blob": "' + b"x" * BOMB_BYTES + b'"}'
        assert batch.append(key=None, value=value, timestamp=None) is not None
        batch.close()
        await (await producer.send_batch(batch, bench.topic, partition=0))
        return batch.size()
    finally:
        await producer.stop()
