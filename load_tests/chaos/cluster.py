"""What a chaos run stands on: its own Apache Kafka, topics that are compacted within seconds, two models, four references."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata

from stream.admin import AdminError, admin_client, needed_topics
from stream.broker import Broker
from stream.config import Config
from stream.config_loader import load
from stream.connection import KafkaUnreachableError
from stream.engine import group_id
from stream.preflight import build_from_file
from stream.references import promote, store
from stream.snapshot_format import commit_metadata, metadata_offset
from stream.topics import TopicRole

PARTITIONS, MONITORS = 4, 2
RESOLUTION_MS, LATENESS_MS, WINDOW_S = 1_000, 2_000, 5
IDLE_TIMEOUT_S = 3
MODELS = ("moving", "steady")
COUNTRIES = ("de", "fr", "it")
REFERENCE_ROWS = 24_000
COMPACTION = {  # at work within seconds; yet a claim is read back long before it may go (protocol.py, rule 3)
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.01",
    "segment.ms": "1000",
    "min.compaction.lag.ms": "20000",
    "max.compaction.lag.ms": "25000",
    "delete.retention.ms": "20000",
}
FAR_OFF = 10**9  # an offset of a state log that no run reaches
PORTS = range(15_000, 20_000)  # below those that development brokers take


def reference_file(path: Path, *, seed: int) -> None:
    """Rows like the traffic's, when nothing drifts."""
    r = random.Random(seed)
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    columns = {
        "amount": [r.gauss(50, 10) for _ in range(REFERENCE_ROWS)],
        "country": [r.choice(COUNTRIES) for _ in range(REFERENCE_ROWS)],
        "score": [r.random() for _ in range(REFERENCE_ROWS)],
        "timestamp": [start + dt.timedelta(milliseconds=12 * i) for i in range(REFERENCE_ROWS)],
    }
    pq.write_table(pa.table(columns), path)


def free_ports(count: int, r: random.Random) -> int:
    """First of `count` neighbouring ports of loopback that nobody listens on."""
    while True:
        first = r.choice(PORTS)
        if all(_is_free(first + i) for i in range(count)):
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Cluster:
    """The broker and what is set up on it. `folder` keeps the configuration and every log; `close` ends the broker."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        self.broker = Broker(
            folder / "kafka", properties={"log.cleaner.backoff.ms": "1000", "log.cleaner.threads": "1"}
        )
        self.port = free_ports(workers + 1, random.SystemRandom())
        self.references: dict[str, list[str]] = {}
        self.switches = 0
        self._active: dict[str, int] = dict.fromkeys(MODELS, 0)

    @property
    def servers(self) -> str:
        return self.broker.bootstrap_servers

    @property
    def config_path(self) -> Path:
        return self.folder / "monitor.yaml"

    def start(self) -> None:
        """Broker, configuration, topics, references: the first of each model is active."""
        self.broker.start()
        self.config = self._configured(1)
        self._create_topics()
        for number in (1, 2):
            config = self._configured(number)
            for seed, model in enumerate(MODELS):
                reference_file(self.folder / f"{model}-{number}.parquet", seed=10 * number + seed)
                profile = build_from_file(config, model)
                store(config, profile)
                self.references.setdefault(model, []).append(profile.id)
        for model in MODELS:
            promote(self.config, model, self.references[model][0])
        self._configured(1)

    def _configured(self, number: int) -> Config:
        models = "".join(
            f"  {model}: {{reference: {{file: {model}-{number}.parquet, time: timestamp}}}}\n" for model in MODELS
        )
        self.config_path.write_text(
            f"kafka: {{bootstrap_servers: '{self.servers}'}}\n"
            f"topics: {{predictions: {{name: chaos.predictions, lateness: {LATENESS_MS}ms}}}}\n"
            f"prefix: chaos.\nresolution: {RESOLUTION_MS}ms\nmonitors: {MONITORS}\nidle_timeout: {IDLE_TIMEOUT_S}s\n"
            f"metrics: {{port: {self.port}}}\n"
            f"defaults: {{false_alarms: 1 per 1h, window: {{every: {WINDOW_S}s, min_events: 100}}}}\n"
            f"models:\n{models}"
        )
        return load(self.config_path).config

    def _create_topics(self) -> None:
        wanted: dict[str, dict[str, object]] = {
            self.config.topic(TopicRole.PREDICTIONS): {"num_partitions": PARTITIONS, "replication_factor": 1}
        }
        for topic in needed_topics(self.config, PARTITIONS):
            compacted = topic.role in {TopicRole.STATE_COLLECTOR, TopicRole.STATE_MONITOR}
            wanted[topic.name] = {
                "num_partitions": topic.partitions,
                "replication_factor": 1,
                "configs": topic.settings | (COMPACTION if compacted else {}),
            }
        with admin_client(self.config.kafka) as client:
            client.create_topics(wanted, wait_for_metadata=True)

    def switch(self, model: str) -> str:
        """Promote the model's other reference; its id."""
        other = 1 - self._active[model]
        record = promote(self.config, model, self.references[model][other])
        self._active[model] = other
        self.switches += 1
        return record.reference

    async def hide(self, r: random.Random) -> int:
        """Commit metadata that names too late a place of the state logs, while the group is empty; how many.

        The group's metadata is a hint, not protected by anything: a restore that finds nothing there reads everything.
        """
        name = group_id(self.config)
        consumer = AIOKafkaConsumer(bootstrap_servers=self.servers, group_id=name, enable_auto_commit=False)
        admin = AIOKafkaAdminClient(bootstrap_servers=self.servers)
        await admin.start()
        await consumer.start()
        try:
            known = await admin.list_consumer_group_offsets(name)
            lies = {
                place: OffsetAndMetadata(known[place].offset, commit_metadata(FAR_OFF + r.randrange(1000)))
                for place in sorted(known)
                if metadata_offset(known[place].metadata) is not None  # else it says: read everything
            }
            consumer.assign(list(lies))
            if lies:
                await consumer.commit(lies)
            return len(lies)
        finally:
            await consumer.stop()
            await admin.close()

    async def group_is_empty(self) -> bool:
        """Whether no member is left, those that were killed included; False while the broker cannot say."""
        try:
            return await asyncio.to_thread(self._group_is_empty)
        except (AdminError, KafkaUnreachableError):  # a coordinator that is being loaded
            return False

    def _group_is_empty(self) -> bool:
        name = group_id(self.config)
        with admin_client(self.config.kafka) as client:
            found = client.describe_groups([name])
        group = found[name] if isinstance(found, dict) else found[0]
        members = group["members"] if isinstance(group, dict) else group.members
        return not members

    def close(self) -> None:
        self.broker.close()
