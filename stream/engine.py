"""The consumer side of one worker: the Faust app with the settings that were found to work, and what the worker asks of it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import faust
from aiokafka.errors import StaleMetadata, UnknownTopicOrPartitionError
from faust.types import TP

from stream.cluster import Cluster, TopicView
from stream.config import Config
from stream.config_kafka import Kafka
from stream.connection import aiokafka_settings
from stream.protocol import Extent
from stream.rights import group_id
from stream.snapshots import LogReader
from stream.supervisor import Exit
from stream.topics import INPUTS, TopicRole
from stream.transport import RawApp

log = logging.getLogger(__name__)

BUFFER_CHUNKS = 4
FETCH_BYTES = 1 << 20  # per partition; with the queued chunks some 30 MB at 8 partitions


def make_app(config: Config) -> RawApp:
    """The app with the settings that were found to work; nothing of it listens anywhere, nothing of it is on disk."""
    kafka = config.kafka
    app = RawApp(
        group_id(config),
        raw_topics=[config.source(role) for role in INPUTS if role in config.roles()],
        broker=[f"kafka://{server}" for server in kafka.bootstrap_servers],
        broker_credentials=_credentials(kafka),
        web_enabled=False,
        datadir=os.devnull,
        store="memory://",
        processing_guarantee="at_least_once",
        autodiscover=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_wait_empty=True,
        stream_buffer_maxsize=BUFFER_CHUNKS,
        stream_recovery_delay=0.0,
        table_standby_replicas=0,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=FETCH_BYTES,
        broker_commit_interval=5.0,
        broker_session_timeout=10.0,
        broker_heartbeat_interval=2.0,
        broker_request_timeout=20.0,
        broker_rebalance_timeout=10.0,
        broker_max_poll_interval=300.0,
    )
    if config.topics.predictions.damaged_batches == "skip":
        app.damage.skip = frozenset([config.source(TopicRole.PREDICTIONS)])
    app._create_directories = lambda: None  # type: ignore[method-assign]  # noqa: SLF001
    return app


def _credentials(kafka: Kafka) -> Any:
    """Faust's kinds of credentials, made of what every other client gets."""
    settings = aiokafka_settings(kafka)
    context = settings.get("ssl_context")
    if (provider := settings.get("sasl_oauth_token_provider")) is not None:
        return faust.auth.OAuthCredentials(oauth_cb=provider, ssl_context=context)
    if (mechanism := settings.get("sasl_mechanism")) is not None:
        return faust.SASLCredentials(
            username=settings["sasl_plain_username"],
            password=settings["sasl_plain_password"],
            ssl_context=context,
            mechanism=mechanism,
        )
    return faust.SSLCredentials(context) if context is not None else None


class FaustEngine:
    """worker.Engine and snapshots.GroupPort over the app's consumer."""

    def __init__(self, app: RawApp, config: Config, cluster: Cluster) -> None:
        self.app = app
        self.cluster = cluster
        self._config = config
        self.stopped = asyncio.Event()
        self.code: int = Exit.OK

    def topic_of(self, role: str) -> str:
        return self._config.source(TopicRole(role))

    @property
    def generation(self) -> int:
        return int(self.app.rebalancing_count)

    @property
    def rebalancing(self) -> bool:
        return bool(self.app.rebalancing)

    async def seek(self, source: str, partition: int, offset: int) -> None:
        await self.app.seek({TP(self.topic_of(source), partition): offset})

    def seek_number(self, source: str, partition: int) -> int:
        return int(self.app.seeks[TP(self.topic_of(source), partition)])

    def stop(self, code: int, reason: str) -> None:
        """End the worker; the first reason counts."""
        if not self.stopped.is_set():
            self.code = code
            log.log(logging.INFO if code == Exit.OK else logging.ERROR, "stopping: %s", reason)
            self.stopped.set()

    def group(self) -> Group:
        return Group(self, int(self.app.consumer_generation_id))


class Group:
    """snapshots.GroupPort of one generation."""

    def __init__(self, engine: FaustEngine, generation: int) -> None:
        self._engine = engine
        self._thread = engine.app.consumer._thread  # noqa: SLF001
        self._generation = generation

    def _tp(self, source: str, partition: int) -> TP:
        return TP(self._engine.topic_of(source), partition)

    async def commit(self, vector: Mapping[str, int], partition: int, metadata: str) -> bool:
        offsets = {self._tp(source, partition): offset for source, offset in vector.items()}
        return bool(await self._thread.commit_fenced(offsets, metadata, self._generation))

    async def metadata(self, source: str, partition: int) -> str:
        found = await self._thread.committed(self._tp(source, partition))
        return "" if found is None else str(found[1])

    async def bounds(self, sources: Sequence[str], partition: int) -> dict[str, Extent]:
        places = {source: self._tp(source, partition) for source in sources}
        before = await self._views(places.values())
        found = await self._thread.bounds(places.values())
        if await self._views(places.values()) != before:
            raise StaleMetadata("a topic was made anew while its offsets were asked for")
        return {
            source: Extent(found[tp][0], found[tp][1], before[tp.topic].id, tp.topic) for source, tp in places.items()
        }

    async def _views(self, places: Iterable[TP]) -> dict[str, TopicView]:
        """Id and size of each topic. Raises UnknownTopicOrPartitionError."""
        names = {tp.topic for tp in places}
        views = await self._engine.cluster.topics(names)
        if missing := sorted(names - set(views)):
            raise UnknownTopicOrPartitionError(f"there is no topic {', '.join(missing)}")
        return views


class RoleLogs:
    """upkeep.Logs: a LogReader that is asked by role, of inputs that are re-keyed for their copies."""

    def __init__(self, reader: LogReader, cluster: Cluster, config: Config) -> None:
        self._reader = reader
        self._cluster = cluster
        self._config = config

    async def topics(self) -> dict[str, TopicView]:
        roles = {name: role for role, name in self._config.watched().items()}
        return {roles[name]: view for name, view in (await self._cluster.topics(roles)).items()}

    async def answers(self) -> bool:
        return await self._cluster.answers()

    async def stretch(self, role: str, partition: int, start: int | None, tail: int | None = None) -> Any:
        return await self._reader.stretch(self._config.source(TopicRole(role)), partition, start, tail=tail)

    async def ends(self, role: str, partitions: int) -> dict[int, int]:
        return await self._reader.ends(self._config.source(TopicRole(role)), partitions)
