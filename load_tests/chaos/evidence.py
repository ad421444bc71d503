"""Everything that a run has left in Kafka, as it stands there, and as files, so that a run can be judged again."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
from aiokafka import AIOKafkaConsumer, TopicPartition

from stream.config import Config
from stream.connection import aiokafka_settings
from stream.topics import TopicRole

ROLES = (
    TopicRole.PREDICTIONS, TopicRole.PANES, TopicRole.WINDOWS, TopicRole.ALERTS, TopicRole.DEAD_LETTERS,
    TopicRole.JOURNAL, TopicRole.CONTROL, TopicRole.REFERENCES,
)  # fmt: skip
STALL_S = 60.0


class Record(NamedTuple):
    """One record; timestamp as the broker gives it (event producers': CreateTime; panes: LogAppendTime)."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class IncompleteError(RuntimeError):
    """A topic could not be read to its end."""


@dataclass
class Evidence:
    """records: by role, sorted by (partition, offset). begins, ends: by role, of every partition: the first offset that
    the broker still had, and the end of the log.
    """

    records: dict[str, list[Record]] = field(default_factory=dict)
    begins: dict[str, list[int]] = field(default_factory=dict)
    ends: dict[str, list[int]] = field(default_factory=dict)

    def of(self, role: str, partition: int | None = None) -> list[Record]:
        """Records of one topic, or of one of its partitions, in offset order."""
        found = self.records.get(str(role), [])
        return found if partition is None else [record for record in found if record.partition == partition]

    def partitions(self, role: str) -> int:
        return len(self.ends[str(role)])

    def joined(self, earlier: Evidence) -> Evidence:
        """With what an earlier collection has seen and retention has removed since."""
        both = Evidence({}, {role: list(begins) for role, begins in self.begins.items()}, dict(self.ends))
        for role in self.ends:
            own = {record[:2]: record for record in (*earlier.of(role), *self.of(role))}
            both.records[role] = [own[place] for place in sorted(own)]
            for partition, begin in enumerate(earlier.begins.get(role, ())):
                both.begins[role][partition] = min(begin, both.begins[role][partition])
        return both

    def save(self, folder: Path) -> None:
        """One file a topic: gzip of msgpack values, first (begins, ends), then the records."""
        folder.mkdir(parents=True, exist_ok=True)
        for role in self.ends:
            with gzip.open(folder / f"{role}.msgpack.gz", "wb", compresslevel=1) as file:
                file.write(msgpack.packb([self.begins[role], self.ends[role]]))
                for record in self.of(role):
                    file.write(msgpack.packb(record))

    @classmethod
    def load(cls, folder: Path) -> Evidence:
        """Inverse of `save`. Raises FileNotFoundError."""
        evidence = cls()
        for role in map(str, ROLES):
            values = _values(folder / f"{role}.msgpack.gz")
            evidence.begins[role], evidence.ends[role] = next(values)
            evidence.records[role] = [
                Record(*value[:5], tuple((name, bytes(content)) for name, content in value[5])) for value in values
            ]
        return evidence


def _values(path: Path) -> Iterator[Any]:
    with gzip.open(path, "rb") as file:
        yield from msgpack.Unpacker(file, raw=False)


def save(evidence: Evidence, folder: Path) -> None:
    evidence.save(folder)


def load(folder: Path) -> Evidence:
    return Evidence.load(folder)


async def collect(servers: str, config: Config) -> Evidence:
    """Every record of every topic from its beginning to its end as of now, read_committed. Raises IncompleteError."""
    evidence = Evidence()
    settings = aiokafka_settings(config.kafka) | {"bootstrap_servers": servers}
    for role in ROLES:
        begins, ends, records = await _read(settings, config.topic(role))
        evidence.begins[str(role)], evidence.ends[str(role)] = begins, ends
        evidence.records[str(role)] = records
    return evidence


async def _read(settings: dict[str, Any], topic: str) -> tuple[list[int], list[int], list[Record]]:
    consumer = AIOKafkaConsumer(
        **settings, isolation_level="read_committed", auto_offset_reset="earliest", enable_auto_commit=False,
        max_partition_fetch_bytes=4 << 20,
    )  # fmt: skip
    await consumer.start()
    try:
        numbers = sorted(await _partitions(consumer, topic))
        places = [TopicPartition(topic, number) for number in numbers]
        consumer.assign(places)
        begins, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
        await consumer.seek_to_beginning(*places)
        records: list[Record] = []
        moved = asyncio.get_running_loop().time()
        before: list[int] = []
        while (now := [await consumer.position(place) for place in places]) and any(
            position < ends[place] for position, place in zip(now, places, strict=True)
        ):
            for batch in (await consumer.getmany(timeout_ms=500, max_records=50_000)).values():
                records += [
                    Record(r.partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers))
                    for r in batch
                    if r.offset < ends[TopicPartition(topic, r.partition)]
                ]
            if now != before:
                before, moved = now, asyncio.get_running_loop().time()
            elif asyncio.get_running_loop().time() - moved > STALL_S:
                raise IncompleteError(f"{topic}: at {now} of {[ends[place] for place in places]} for {STALL_S:.0f} s")
        records.sort(key=lambda record: record[:2])
        return [begins[place] for place in places], [ends[place] for place in places], records
    finally:
        await consumer.stop()


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    end = asyncio.get_running_loop().time() + STALL_S
    while not (found := consumer.partitions_for_topic(topic)):
        await consumer._client.add_topic(topic)  # nothing that is public asks for one topic
        if asyncio.get_running_loop().time() > end:
            raise IncompleteError(f"{topic}: no such topic")
        await asyncio.sleep(0.2)
    return set(found)
