"""Topics that are keyed otherwise, on the real broker: copies by prediction_id, killed in between; performance equals a recount."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from stream.admin import compare_topics, create_topics
from stream.chunks import Plain, from_plain
from stream.cluster import Cluster
from stream.copied import read_origins
from stream.copy_session import Session
from stream.failpoints import FAILPOINTS_ENV
from stream.kernels.murmur import partitions_of
from stream.letter_desk import read_book, retry
from stream.letters import Wanted
from stream.metrics import Metrics
from stream.supervisor import Exit

_spec = spec_from_file_location("feedback_bench", Path(__file__).with_name("feedback_bench.py"))
feedback_bench = sys.modules["feedback_bench"] = module_from_spec(_spec)
_spec.loader.exec_module(feedback_bench)
FeedbackBench, assert_performance = feedback_bench.FeedbackBench, feedback_bench.assert_performance
children, kill, until = (getattr(feedback_bench.bench_module, name) for name in ("children", "kill", "until"))

ARRAY_EVERY = 40  # clicks that are several events in one record


class RekeyedBench(FeedbackBench):
    """The bench, with topics that have other numbers of partitions and are keyed by customer. `counts`: of those that are."""

    counts: dict[str, int]

    @classmethod
    def on(cls, kafka, prefix, folder, counts: dict[str, int], partitions: int, rekey: str = "true") -> RekeyedBench:
        for name, count in ({"predictions": partitions} | counts).items():
            kafka.create_topic(f"{prefix}in.{name}", count)
        b = cls(kafka.bootstrap_servers, prefix, folder, partitions=partitions)
        text = b.config_path.read_text()
        for name in counts:
            text = text.replace(f"{{name: {prefix}in.{name}, ", f"{{name: {prefix}in.{name}, rekey: {rekey}, ")
        assert text.count(f"rekey: {rekey}") == len(counts)
        b.config_path.write_text(text)
        b.config, b.counts = feedback_bench.load(b.config_path).config, counts
        create_topics(b.config)
        return b

    def made(self, n: int) -> list[tuple[str, int, int, bytes]]:
        found = []
        for topic, at, _, value in super().made(n):
            data = value
            if topic.endswith("in.clicks") and self.r.randrange(ARRAY_EVERY) == 0:
                data = b"[" + value + b"]"
            found.append((topic, at, self.r.randrange(self.counts.get(topic.rpartition(".")[2], 1)), data))
        return found

    async def _send(self, records) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.servers, linger_ms=20)
        await producer.start()
        for topic, _, partition, value in records:
            if topic.rpartition(".")[2] in self.counts:
                await producer.send(topic, value, key=b"customer", partition=partition)
            else:  # an ordinary producer, by id
                await producer.send(topic, value, key=json.loads(value)["prediction_id"].encode())
        await producer.stop()

    def copies(self, name: str) -> str:
        return f"{self.prefix}rekeyed.{self.prefix}in.{name}"

    def id_of(self, body: dict) -> str | None:
        return body.get("prediction_id")

    def assert_copied(self) -> int:
        """Every record is copied, to the partition of its id, with its bytes; how many were copied twice."""
        twice = 0
        for name in self.counts:
            originals = {(record.partition, record.offset): record for record in self.read(f"{self.prefix}in.{name}")}
            seen: Counter[tuple[int, int]] = Counter()
            for copy in self.read(self.copies(name)):
                plain = Plain(0, 0, copy.key, copy.value, tuple(copy.headers), 0, 1)
                (origin,), valid = read_origins(from_plain([plain]))
                assert valid.all()
                place = int(origin["partition"]), int(origin["offset"])
                seen[place] += 1
                original = originals[place]
                assert (copy.key, copy.value) == (original.key, original.value)
                assert int(origin["timestamp_ms"]) == original.timestamp
                body = json.loads(copy.value)
                wanted = self.id_of(body) if isinstance(body, dict) else None
                if wanted is not None:
                    assert copy.partition == partitions_of([wanted.encode()], self.partitions)[0]
            assert set(seen) == set(originals)
            twice += sum(seen.values()) - len(seen)
        return twice

    def assert_letters_name_the_originals(self) -> int:
        letters = [dict(letter.headers) for letter in self.read(f"{self.prefix}dead-letters")]
        told = {(int(h["dlq.partition"]), int(h["dlq.offset"])) for h in letters}
        assert {h["dlq.topic"].decode() for h in letters} == {f"{self.prefix}in.clicks"}
        bad = set()
        for record in self.read(f"{self.prefix}in.clicks"):
            body = json.loads(record.value)
            if not (isinstance(body, dict) and "prediction_id" in body):
                bad.add((record.partition, record.offset))
        assert told == bad
        return len(bad)


@pytest.mark.kafka
def test_copies_that_are_cut_off_anywhere_leave_performance_as_a_recount_has_it(kafka, prefix, tmp_path, monkeypatch):
    b = RekeyedBench.on(kafka, prefix, tmp_path, {"clicks": 2, "labels": 7}, partitions=4)
    b.send(b.made(4_000))
    for place in ("copy.sent@4", "copy.acknowledged@1", "copy.taken@2"):
        monkeypatch.setenv(FAILPOINTS_ENV, f"{place}=kill")
        with b.running() as process:
            b.send(b.made(1_500))
            assert process.wait(240) == -signal.SIGKILL, process.log.read_text()[-3000:]
    monkeypatch.delenv(FAILPOINTS_ENV)
    with b.running() as process:
        b.send(b.made(1_500))
        total = len(b.read(f"{prefix}in.labels"))
        until(
            lambda: b.committed(f"{prefix}in.labels", "rekey") == total,
            why=lambda: (total, process.log.read_text()[-3000:]),
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, process.log.read_text()[-3000:]
    b.send(b.made(500))
    b.drain()
    assert b.assert_copied() > 0
    assert_performance(b)
    assert b.assert_letters_name_the_originals() > 0
    book = read_book(b.config, Wanted(reasons=("not_an_object",)))
    before = len(b.read(f"{prefix}in.clicks"))
    outcomes = list(retry(b.config, book, dry_run=False))
    assert {outcome.state for outcome in outcomes} == {"retried"}
    assert len(b.read(f"{prefix}in.clicks")) == before + len(outcomes)


@pytest.mark.kafka
def test_two_workers_share_topics_that_are_all_keyed_otherwise(kafka, prefix, tmp_path):
    b = RekeyedBench.on(kafka, prefix, tmp_path, {"predictions": 3, "clicks": 5, "labels": 2}, partitions=3)
    command = [sys.executable, "-m", "stream.cli", "run", "--config", str(b.config_path), "--workers", "2"]
    with b.running(command=command) as process:
        why = lambda: process.log.read_text()[-3000:]  # noqa: E731
        until(lambda: len(children(process)) == 2, why=why)
        for victim in (0, 1):
            b.send(b.made(2_500))
            saved = b.committed(b.copies("predictions"))
            until(lambda known=saved: b.committed(b.copies("predictions")) > known, why=why)
            kill(children(process)[victim])
            until(lambda: len(children(process)) == 2, why=why)
        b.send(b.made(1_000))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, why()
    b.drain()
    b.assert_copied()
    assert_performance(b)
    assert [state.detail for state in compare_topics(b.config) if state.difference] == []


@pytest.mark.kafka
def test_a_topic_that_was_made_anew_is_another_log_though_it_ends_where_the_other_did(kafka, prefix, tmp_path):
    """Whether Kafka has forgotten the group's offsets with the topic, as it does, or has kept them."""
    b = RekeyedBench.on(kafka, prefix, tmp_path, {"clicks": 1, "labels": 2}, partitions=2)
    labels = f"{prefix}in.labels"
    places = [TopicPartition(labels, p) for p in range(2)]

    def like_before(room: Counter[int]) -> list:
        found = []
        for each in b.made(800):
            room[each[2]] -= each[0] == labels
            if each[0] != labels or room[each[2]] >= 0:
                found.append(each)
        return found

    def made_anew() -> None:
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=b.servers)) as admin:
            admin.delete_topics([labels])
            until(lambda: labels not in admin.list_topics())
        kafka.create_topic(labels, 2)
        b.send(like_before(Counter({place.partition: told[place].offset for place in places})))
        assert consumer.end_offsets(places) == {place: told[place].offset for place in places}

    b.send(b.made(500))
    b.drain()
    with contextlib.closing(
        KafkaConsumer(bootstrap_servers=b.servers, group_id=f"{prefix}rekey", enable_auto_commit=False)
    ) as consumer:
        told = {place: consumer.committed(place, metadata=True) for place in places}
        made_anew()
        b.drain()
        made_anew()
        consumer.commit(told)
        with b.running("--drain") as process:
            assert process.wait(120) == Exit.REFUSED, process.log.read_text()[-3000:]
            assert f"{labels}-0 was deleted and made again: it was copied up to {told[places[0]].offset}" in (
                process.log.read_text()
            )
        b.config_path.write_text(b.config_path.read_text() + "on_data_loss: reset\n")
        b.drain()
    logs: Counter[int] = Counter()
    for copy in b.read(b.copies("labels")):
        (origin,), _ = read_origins(from_plain([Plain(0, 0, copy.key, copy.value, tuple(copy.headers), 0, 1)]))
        logs[int(origin["log"])] += 1
    assert list(logs.values()) == [sum(each.offset for each in told.values())] * 3


class RequestBench(RekeyedBench):
    """By a request, which several predictions share, with what becomes of them."""

    def made(self, n: int) -> list[tuple[str, int, int, bytes]]:
        found = []
        for topic, at, partition, value in super().made(n):
            body = json.loads(value)
            if isinstance(body, dict):
                request = int(body.get("prediction_id", "id-0").removeprefix("id-")) // 3
                value = json.dumps(body | {"request": {"id": f"r-{request}"}}).encode()  # noqa: PLW2901
            found.append((topic, at, partition, value))
        return found

    def id_of(self, body: dict) -> str | None:
        return body["request"]["id"]


@pytest.mark.kafka
def test_topics_are_keyed_by_a_path_and_one_that_lost_its_end_is_refused_or_copied_anew(kafka, prefix, tmp_path):
    counts = {"predictions": 2, "clicks": 1, "labels": 3}
    b = RequestBench.on(kafka, prefix, tmp_path, counts, partitions=2, rekey="request.id")
    b.send(b.made(500))
    b.drain()
    assert b.assert_copied() == 0
    assert_performance(b)
    labels, group = f"{prefix}in.labels", f"{prefix}rekey"
    with contextlib.closing(
        KafkaConsumer(bootstrap_servers=b.servers, group_id=group, enable_auto_commit=False)
    ) as consumer:
        place = TopicPartition(labels, 1)
        end, told = consumer.end_offsets([place])[place], consumer.committed(place, metadata=True)
        assert told.offset == end
        consumer.commit({place: told._replace(offset=end + 50)})
        with b.running("--drain") as process:
            assert process.wait(60) == Exit.REFUSED
            said = f"{labels}-1 has lost its end: it was copied up to {end + 50}, it holds 0 to {end}"
            assert said in process.log.read_text()
        b.config_path.write_text(b.config_path.read_text() + "on_data_loss: reset\n")
        b.drain()
        again = consumer.committed(place, metadata=True)
        assert (again.offset, json.loads(again.metadata)) == (end, [json.loads(told.metadata)[0], 1])
    assert b.assert_copied() == end  # once more, in another log
    b.drain()
    assert b.assert_copied() == end


async def test_a_worker_without_a_topic_stays_in_the_group_and_takes_over(kafka, prefix, tmp_path):
    """Longer than the client lets anyone be in a group without fetching."""
    b = RekeyedBench.on(kafka, prefix, tmp_path, {"clicks": 2}, partitions=2)
    settings = {"bootstrap_servers": b.servers}
    clusters = [Cluster(settings), Cluster(settings)]
    sessions = [Session(b.config, 2, settings, cluster, Metrics()) for cluster in clusters]

    async def rounds(session, until_s):
        while time.monotonic() < until_s:
            await session.round()

    for session in sessions:
        session.consumer._max_poll_interval_ms = 2_000
        await session.open()
    try:
        now_s = time.monotonic()
        await asyncio.gather(*(rounds(session, now_s + 12) for session in sessions))
        with_topic = [bool(session.consumer.assignment()) for session in sessions]
        assert sorted(with_topic) == [False, True]
        holder, idle = sessions if with_topic[0] else sessions[::-1]
        await holder.close()
        until_s = time.monotonic() + 20
        while not idle.consumer.assignment() and time.monotonic() < until_s:
            await rounds(idle, time.monotonic() + 0.5)
        assert {each.topic for each in idle.consumer.assignment()} == {f"{prefix}in.clicks"}
    finally:
        for session in sessions:
            await session.close()
        for cluster in clusters:
            await cluster.close()
