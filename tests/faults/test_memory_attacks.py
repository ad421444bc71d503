"""Cardinality attacks on a whole worker (F31, B41, B42, B66): half a million names of everything, and its memory before
and after.

Events are packed into batches beforehand; what the worker holds is read from the kernel.
"""

from __future__ import annotations

import asyncio
import json
import random

import psutil
import pytest
from aiokafka import AIOKafkaProducer

from stream.broker import free_port
from tests.faults.fault_bench import FaultBench, until
from tests.integration.worker_bench import RESOLUTION_MS, event

pytestmark = pytest.mark.kafka
MB = 1e6
NAMES = 500_000  # of unknown models; and as many each of versions, segment values and texts of a categorical target
RSS_GROWTH_MB_MAX = 90.0  # ids of the open panes, wider panes of 20 versions, buffers at full speed
SETTLE_S = 80.0
SETTINGS = "models: {m: {reference: {file: train.parquet, time: timestamp}, segments: {region: [north, south]}}}\n"


class Attacked(FaultBench):
    """The bench with a model that has segments, and ready batches for a topic of two partitions."""

    def segmented(self) -> Attacked:
        kept = [line for line in self.config_path.read_text().splitlines() if not line.startswith("models:")]
        self.config_path.write_text("\n".join(kept) + "\n" + SETTINGS)
        return self

    def send_packed(self, values, *, compression: str | None = None, batch_bytes: int = 900_000) -> None:
        asyncio.run(self._send_packed(values, compression, batch_bytes))

    async def _send_packed(self, values, compression, batch_bytes) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self.servers, compression_type=compression, max_batch_size=batch_bytes,
            max_request_size=batch_bytes + 1_000_000,
        )  # fmt: skip
        await producer.start()
        waiting, turn, batch = [], 0, producer.create_batch()
        try:
            for value in values:
                if batch.append(key=None, value=value, timestamp=None) is None:
                    batch.close()
                    waiting.append(await producer.send_batch(batch, self.topic, partition=turn % self.partitions))
                    turn, batch = turn + 1, producer.create_batch()
                    assert batch.append(key=None, value=value, timestamp=None) is not None
            batch.close()
            waiting.append(await producer.send_batch(batch, self.topic, partition=turn % self.partitions))
            await asyncio.gather(*waiting)
        finally:
            await producer.stop()

    def template(self) -> tuple[bytes, ...]:
        """The pieces between id, version, region and country of an event of the watched model at the bench's time."""
        body = event(0, self.clock_ms, random.Random(1), prediction_id="<0>", version="<0>", segments={"region": "<0>"})
        body["features"]["country"] = "<0>"
        return tuple(json.dumps(body).encode().split(b"<0>"))


@pytest.fixture(scope="module")
def attacked(kafka, tmp_path_factory):
    bench = Attacked(kafka.bootstrap_servers, "attacks.", tmp_path_factory.mktemp("attacks"), partitions=2).segmented()
    with bench.worker(free_port()) as worker:
        worker.until_ready()
        bench.produce(bench.events(4_000), compressions=(None,))
        _applied(bench, worker)
        yield bench, worker, psutil.Process(worker.process.pid)


def _consumed(worker) -> float:
    return worker.metric("consumed_events_total")


def _applied(bench, worker) -> None:
    """Wait until everything that was produced is consumed, and two more panes are closed."""
    until(lambda: _consumed(worker) >= sum(bench.ends().values()), SETTLE_S, why=lambda: worker.log()[-3000:])


def _grown_mb(bench, worker, process, values, **how) -> tuple[float, float]:
    """(growth of RSS once all is consumed, events that the worker took as applied)."""
    before, applied = process.memory_info().rss / MB, worker.metric("applied_events_total")
    bench.send_packed(values, **how)
    _applied(bench, worker)
    bench.clock_ms += 10 * RESOLUTION_MS  # what was open closes
    bench.produce(bench.events(200), compressions=(None,))
    _applied(bench, worker)
    return process.memory_info().rss / MB - before, worker.metric("applied_events_total") - applied


def _many_models(bench):
    a, b, c, d, e = bench.template()
    rest = b.replace(b'"model": "m"', b'"model": "unknown-%d"') + b"1" + c + b"north" + d + b"de" + e
    assert b"unknown" in rest
    return (b"%s%d%s" % (a, i, rest % i) for i in range(NAMES))


def _many_values(bench):
    """A version, a segment value and a text of its own in every event of the watched model."""
    pieces = bench.template()
    return (b"%d".join(pieces) % ((i,) * (len(pieces) - 1)) for i in range(NAMES, 2 * NAMES))


def _many_features(bench):
    """20 events with 9,000 features each, then 20,000 with one of a new name each."""
    for i in range(20):
        body = event(f"wide-{i}", bench.clock_ms, bench.r)
        body["features"] |= {f"explosion_{i}_{k}": 1 for k in range(9_000)}
        yield json.dumps(body).encode()
    for i in range(20_000):
        body = event(f"new-{i}", bench.clock_ms, bench.r)
        body["features"][f"never_seen_{i}"] = i
        yield json.dumps(body).encode()


@pytest.mark.parametrize(
    ("values", "events"),
    [
        pytest.param(_many_models, NAMES, id="F31-B41-half-a-million-models"),
        pytest.param(_many_values, NAMES, id="F31-B41-B66-half-a-million-versions-segments-and-texts"),
        pytest.param(_many_features, 20_020, id="F31-B42-feature-explosion"),
    ],
)
def test_names_do_not_cost_memory(attacked, values, events):
    bench, worker, process = attacked
    grown_mb, applied = _grown_mb(bench, worker, process, values(bench))
    assert applied >= events, worker.log()[-2000:]
    assert grown_mb < RSS_GROWTH_MB_MAX, f"{grown_mb:.0f} MB more"
    lines = worker.get("/metrics")[1].splitlines()
    assert len(lines) < 20_000, "a series for each name"


def test_b31_a_value_of_200_mb_in_a_small_batch_costs_memory_for_a_moment_only(attacked):
    bench, worker, process = attacked
    before = process.memory_info().rss
    letters = worker.metric("dead_letter_events_total")
    bench.send_packed(
        [b'{"prediction_id": "bomb", "blob": "' + b"x" * 200_000_000 + b'"}'],
        compression="zstd",
        batch_bytes=210_000_000,
    )
    until(lambda: worker.metric("dead_letter_events_total") == letters + 1, SETTLE_S, why=lambda: worker.log()[-3000:])
    until(
        lambda: process.memory_info().rss < 1.2 * before, 30,
        why=lambda: f"{before / MB:.0f} MB before, {process.memory_info().rss / MB:.0f} now",
    )  # fmt: skip
