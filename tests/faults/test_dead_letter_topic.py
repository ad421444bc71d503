"""The dead-letters topic too small or gone: its partition waits, the others do not, nothing is skipped; and kill -9 amid letters."""

from __future__ import annotations

import contextlib
import json
import re
import signal
from collections import Counter, defaultdict

import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic

from stream.broker import free_port
from tests.faults.fault_bench import FaultBench, until
from tests.integration.worker_bench import assert_equal_to_recount

pytestmark = pytest.mark.kafka
BAD_BYTES = 5_000
PATIENCE_S = 120.0


class Watched(FaultBench):
    """A bench of two partitions, and its dead letters' topic."""

    @property
    def letters_topic(self) -> str:
        return f"{self.prefix}dead-letters"

    def letters(self) -> dict[tuple[bytes, ...], list]:
        return distinct(self.read(self.letters_topic))

    def send(self, good: int, bad: int) -> None:
        """Some `good` events to each partition, none of them a dead letter; `bad` ones, large, to partition 0."""
        values = [
            value for _, value in self.events(good) if value and value.endswith(b"}") and b"prediction_id" in value
        ]
        records = [(p, value) for value in values for p in (0, 1)]
        records += [(0, b'{"cut": "' + b"x" * BAD_BYTES + b"%d" % i) for i in range(bad)]
        self.produce(records, compressions=(None,))

    def limit(self, size: int) -> None:
        wanted = ConfigResource(ConfigResourceType.TOPIC, self.letters_topic, {"max.message.bytes": str(size)})
        with admin(self) as client:
            client.alter_configs([wanted])


def of(worker, name: str, partition: int) -> float:
    return worker.metric(name, stage="collector", partition=partition)


def waits_and_the_other_does_not(bench: Watched, worker) -> None:
    until(lambda: of(worker, "blocked", 0) == 1, PATIENCE_S, why=worker.log)
    lag, snapshots = of(worker, "lag_events", 0), of(worker, "snapshots_total", 1)
    bench.send(400, 20)
    until(lambda: of(worker, "position", 1) == bench.ends()[1], PATIENCE_S, why=worker.log)
    until(lambda: of(worker, "lag_events", 0) > lag, PATIENCE_S, why=worker.log)
    until(lambda: of(worker, "snapshots_total", 1) > snapshots, PATIENCE_S, why=worker.log)
    assert of(worker, "blocked", 0) == 1


def drains(bench: Watched, worker) -> None:
    bench.settle(worker, seconds=PATIENCE_S)
    assert of(worker, "blocked", 0) == 0


def distinct(records) -> dict[tuple[bytes, ...], list]:
    """Letters by what identifies them."""
    found = defaultdict(list)
    for record in records:
        facts = dict(record.headers)
        found[tuple(facts[f"dlq.{name}"] for name in ("topic", "partition", "offset", "row"))].append(record)
    return found


def seconds_of(log: str, needle: str) -> Counter:
    return Counter(line[:19] for line in log.splitlines() if needle in line)


@contextlib.contextmanager
def admin(bench: Watched):
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=bench.servers)) as client:
        yield client


@pytest.fixture
def bench(kafka, prefix, tmp_path):
    return Watched(kafka.bootstrap_servers, prefix, tmp_path, partitions=2)


def test_a_topic_that_is_too_small_holds_its_partition_back_until_it_is_mended(bench):
    bench.limit(20_000)  # takes every letter, and no parcel of them
    bench.send(400, 60)
    with bench.worker(free_port()) as worker:
        until(lambda: len(bench.letters()) >= 60, PATIENCE_S, why=worker.log)
        drains(bench, worker)
        bench.limit(2_000)
        bench.send(0, 20)
        waits_and_the_other_does_not(bench, worker)
        bench.limit(1 << 20)
        drains(bench, worker)
        text = worker.log()
        assert "MessageSizeTooLargeError" in text
        # two lines of a second that the clock rounds differently are no flood
        assert max(seconds_of(text, "output to dead-letters").values()) <= 2
        assert not re.search("Traceback|loaded again", text)
    bench.drain()
    assert_equal_to_recount(bench)


def test_a_topic_that_is_deleted_and_made_again_loses_nothing_refused_meanwhile(bench):
    bench.send(400, 5)
    with bench.worker(free_port()) as worker, admin(bench) as client:
        worker.until_ready()
        drains(bench, worker)
        before = len(bench.letters())
        client.delete_topics([bench.letters_topic])
        until(lambda: bench.letters_topic not in client.list_topics())
        bench.send(0, 20)
        waits_and_the_other_does_not(bench, worker)
        client.create_topics([NewTopic(bench.letters_topic, 2, 1)])
        drains(bench, worker)
        text = worker.log()
        assert max(seconds_of(text, "output to dead-letters").values(), default=0) <= 2
        assert max(seconds_of(text, "WARNING").values()) <= 6
        # what was in the topic went with it; what was refused since is there
        since = sum(counters["dead_letters"] for counters in bench.recount().counters.values()) - before
        until(lambda: len(bench.letters()) == since, PATIENCE_S, why=worker.log)
        worker.send(signal.SIGTERM)
        assert worker.wait(30) == 0, worker.log()


def test_a_kill_between_letter_and_commit_repeats_letters_byte_for_byte(bench):
    bench.produce(bench.events(8_000))
    hits = bench.folder / "failpoints.log"
    for point in ("acknowledged:dead-letters@40=kill", "before:snapshot.6-commit@2=kill"):
        with bench.worker(DRIFTLINE_FAILPOINT_LOG=str(hits), DRIFTLINE_FAILPOINTS=point) as worker:
            assert worker.wait(PATIENCE_S) == -9, worker.log()[-3000:]
    assert len(hits.read_text().splitlines()) == 2
    bench.drain()
    assert_equal_to_recount(bench)
    found = bench.letters()
    expected = bench.recount()
    assert len(found) == sum(counters["dead_letters"] for counters in expected.counters.values())
    assert any(len(same) > 1 for same in found.values()), (
        "nothing was repeated: the kill came too early to show anything"
    )
    for same in found.values():
        assert len({(record.key, record.value, record.headers) for record in same}) == 1
    for partition, counters in expected.counters.items():
        told = bench.markers()[partition].counters
        assert told["consumed"] == sum(counters.values())
        assert json.dumps({name: told[name] for name in counters}, sort_keys=True) == json.dumps(
            counters, sort_keys=True
        )
