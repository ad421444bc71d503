"""Inputs that are compacted and written in transactions, on the real broker: offsets that are gone, aborted records, logs that end with
markers. Nothing waits for an offset that no record has, and what counts is what a recount of all committed records says.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
import zlib
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from kafka import KafkaConsumer, TopicPartition

from stream.admin import create_topics
from stream.chunks import Plain, from_plain
from stream.copied import read_origins
from stream.panes import INPUTS, Marker, decode_record

_spec = spec_from_file_location("feedback_bench", Path(__file__).with_name("feedback_bench.py"))
feedback_bench = sys.modules["feedback_bench"] = module_from_spec(_spec)
_spec.loader.exec_module(feedback_bench)
FeedbackBench, assert_performance = feedback_bench.FeedbackBench, feedback_bench.assert_performance
until = feedback_bench.bench_module.until

SEGMENT_S = 0.5
COMPACTED = {
    "cleanup.policy": "compact", "segment.ms": f"{SEGMENT_S * 1000:.0f}", "min.cleanable.dirty.ratio": "0.001",
    "min.compaction.lag.ms": "0", "max.compaction.lag.ms": "1000", "delete.retention.ms": "0",
}  # fmt: skip
PARTITIONS = 2
TRANSACTION = 400  # records
NAMES = ("predictions", "clicks", "labels")


class CompactedBench(FeedbackBench):
    """Every record that can be read is there twice under one key, so that compaction takes the first one; aborted ones stand between and
    at the end. `counts`: partitions of the topics that are re-keyed. `sent`: committed records, by topic and key.
    """

    counts: dict[str, int]
    sent: dict[str, dict[bytes, bytes]]

    @classmethod
    def on(cls, kafka, prefix, folder, counts: dict[str, int]) -> CompactedBench:
        for name in NAMES:
            kafka.create_topic(f"{prefix}in.{name}", counts.get(name, PARTITIONS), COMPACTED)
        b = cls(kafka.bootstrap_servers, prefix, folder, partitions=PARTITIONS)
        text = b.config_path.read_text()
        for name in counts:
            text = text.replace(f"{{name: {prefix}in.{name}, ", f"{{name: {prefix}in.{name}, rekey: true, ")
        assert text.count("rekey: true") == len(counts)
        b.config_path.write_text(text)
        b.config, b.counts = feedback_bench.load(b.config_path).config, counts
        b.sent = {f"{prefix}in.{name}": {} for name in NAMES}
        create_topics(b.config)
        return b

    async def _send(self, records) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.servers, transactional_id=f"{self.prefix}tx", linger_ms=5)
        await producer.start()
        for start in range(0, len(records), TRANSACTION):
            part = records[start : start + TRANSACTION]
            async with producer.transaction():
                for again in (False, True):
                    for topic, _, _, value in part:
                        key = self.key_of(value)
                        if again and key.startswith(b"bad"):
                            continue
                        await producer.send(topic, value, key=key, partition=self.place_of(topic, key))
                        assert self.sent[topic].setdefault(key, value) == value
            with contextlib.suppress(RuntimeError):
                async with producer.transaction():
                    for topic, _, _, value in part[:20]:
                        body = json.loads(value) | {"prediction_id": f"aborted-{start}"}
                        for data in (json.dumps(body).encode(), b"{torn"):
                            await producer.send(topic, data, key=b"aborted", partition=0)
                    raise RuntimeError
        await producer.stop()

    def key_of(self, value: bytes) -> bytes:
        return json.loads(value).get("prediction_id", f"bad-{zlib.crc32(value)}").encode()

    def place_of(self, topic: str, key: bytes) -> int | None:
        """By key, or anywhere."""
        count = self.counts.get(topic.rpartition(".")[2])
        return None if count is None else sum(key) % count

    async def _read(self, topic: str) -> list:
        """What is committed; of an input what was, of which compaction has taken some."""
        if topic in self.sent:
            return [Plain(0, 0, key, value, (), 0, 1) for key, value in self.sent[topic].items()]
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=self.servers, auto_offset_reset="earliest", isolation_level="read_committed"
        )
        await consumer.start()
        try:
            places = sorted(consumer.assignment())
            records, ends = [], await consumer.end_offsets(places)
            while any([await consumer.position(place) < ends[place] for place in places]):
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    records += batch
            return records
        finally:
            await consumer.stop()

    def left(self, topic: str) -> int:
        """Records that compaction has left, aborted ones without."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.servers, isolation_level="read_committed", enable_auto_commit=False
        )
        with contextlib.closing(consumer):
            places = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)]
            consumer.assign(places)
            consumer.seek_to_beginning()
            ends, count = consumer.end_offsets(places), 0
            while any(consumer.position(place) < ends[place] for place in places):
                count += sum(map(len, consumer.poll(timeout_ms=200).values()))
        return count

    def compact(self) -> None:
        """A little more of everything closes the segments; then until most of what was there twice is there once."""
        time.sleep(SEGMENT_S * 2)
        self.send(self.made(100))
        for topic in self.sent:
            until(lambda t=topic: self.left(t) < 1.3 * len(self.sent[t]), 90, why=lambda t=topic: (t, self.left(t)))

    def assert_copied(self, name: str) -> None:
        """Each place once, nothing but what was committed, and all of it."""
        sent, places, keys = self.sent[f"{self.prefix}in.{name}"], Counter(), set()
        for copy in self.read(f"{self.prefix}rekeyed.{self.prefix}in.{name}"):
            (origin,), valid = read_origins(from_plain([Plain(0, 0, copy.key, copy.value, tuple(copy.headers), 0, 1)]))
            assert valid.all()
            assert sent.get(copy.key) == copy.value
            places[int(origin["partition"]), int(origin["offset"])] += 1
            keys.add(copy.key)
        assert set(places.values()) == {1}
        assert keys == set(sent)
        assert len(places) < 2 * len(sent)  # some were gone before


def outcomes(b: CompactedBench) -> Counter[str]:
    """What the last markers of the source partitions count of the predictions."""
    last: dict[int, Marker] = {}
    for record in b.read(f"{b.prefix}panes"):
        body = decode_record(record.value)
        if (
            isinstance(body, Marker)
            and body.stream == INPUTS
            and body.edge_ms >= last.get(body.partition, body).edge_ms
        ):
            last[body.partition] = body
    assert set(last) == set(range(b.partitions))
    return sum((Counter(marker.counters) for marker in last.values()), Counter())


@pytest.mark.kafka
@pytest.mark.parametrize("counts", [{"labels": 3}, {"predictions": 2, "labels": 1, "clicks": 3}], ids=["labels", "all"])
def test_compacted_topics_written_in_transactions_are_counted_as_what_was_committed(kafka, prefix, tmp_path, counts):
    b = CompactedBench.on(kafka, prefix, tmp_path, counts)
    b.send(b.made(2_000))
    b.compact()
    with b.running() as process:  # reads what is compacted, then what is not
        why = lambda: process.log.read_text()[-3000:]  # noqa: E731
        until(b.windows, why=why)
        b.send(b.made(2_000))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, why()
    b.send(b.made(1_000))
    b.compact()  # around where the worker was
    b.drain()
    b.drain()
    found = outcomes(b)
    assert found["applied"] == len(b.sent[b.topic]) == b.number
    assert found["consumed"] == found["applied"] + found["duplicates"] < 2 * b.number
    assert found["dead_letters"] == found["late"] == found["tombstones"] == found["gap"] == found["resets"] == 0
    assert_performance(b)
    letters = [dict(letter.headers)["dlq.topic"].decode() for letter in b.read(f"{prefix}dead-letters")]
    assert set(letters) == {f"{prefix}in.clicks"}
    for name in counts:
        b.assert_copied(name)
