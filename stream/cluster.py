"""What the brokers say of topics: their ids and numbers of partitions, asked over connections of its own.

A topic that was deleted and made again has its old name and a new id; only the id tells a replaced log from one that grew.
Brokers before Kafka 2.8, and others that speak the protocol without ids, answer "": then only ends can be compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from uuid import UUID

from aiokafka import errors
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest_v5
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

REQUEST_S = 10.0
NO_ID = UUID(int=0)


class Uuid(AbstractType[UUID]):  # type: ignore[misc]  # aiokafka has none
    """16 bytes."""

    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(16))


TAGS = ("tags", TaggedFields)


class MetadataResponseV10(Response):  # type: ignore[misc]
    """Metadata, version 10: the first that tells topic ids."""

    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32), ("host", CompactString()), ("port", Int32), ("rack", CompactString()), TAGS
            ),
        ),
        ("cluster_id", CompactString()),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString()),
                ("topic_id", Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        TAGS,
                    ),
                ),
                ("authorized_operations", Int32),
                TAGS,
            ),
        ),
        ("authorized_operations", Int32),
        TAGS,
    )


class MetadataRequestV10(RequestStruct):  # type: ignore[misc]
    """Names only: ids can be asked by from version 12 on."""

    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = MetadataResponseV10
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", Uuid), ("topic", CompactString()), TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        TAGS,
    )


class TopicsRequest(Request[MetadataRequest_v5 | MetadataRequestV10]):  # type: ignore[misc]
    """Metadata of named topics; the newest version that the broker and this file know."""

    API_KEY = 3

    def __init__(self, names: Iterable[str]) -> None:
        self._names = sorted(names)

    def build(self, request_struct_class: type[Any]) -> Any:
        if request_struct_class is MetadataRequestV10:
            return MetadataRequestV10([(NO_ID, name, {}) for name in self._names], False, False, False, {})
        return MetadataRequest_v5(self._names, False)


@dataclass(frozen=True, slots=True)
class TopicView:
    """A topic as the cluster has it; `id` "" where the broker knows no ids."""

    id: str
    partitions: int


class Cluster:
    """Asks over one connection that is kept, and opened anew after any failure."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = dict(settings)
        self._servers = self._settings.pop("bootstrap_servers")
        self._connection: Any = None
        self._lock = asyncio.Lock()

    async def topics(self, names: Iterable[str]) -> dict[str, TopicView]:
        """The topics among `names` that exist. Raises KafkaError, OSError, TimeoutError."""
        request = TopicsRequest(names)
        async with self._lock:
            try:
                connection = await self._connected()
                answer = await asyncio.wait_for(connection.send(request), REQUEST_S)
            except BaseException:
                self._drop()
                raise
        return dict(_views(answer.topics))

    async def answers(self) -> bool:
        """Whether a connection that is opened now gets an answer."""
        fresh = Cluster({**self._settings, "bootstrap_servers": self._servers})
        try:
            await fresh.topics(())
        except (errors.KafkaError, OSError, TimeoutError):
            return False
        finally:
            await fresh.close()
        return True

    async def close(self) -> None:
        self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def _connected(self) -> Any:
        if self._connection is not None and self._connection.connected():
            return self._connection
        failure: BaseException = errors.KafkaConnectionError("no bootstrap server is named")
        for host, port, _ in collect_hosts(self._servers):
            try:
                opening = create_conn(host, port, request_timeout_ms=int(REQUEST_S * 1000), **self._settings)
                self._connection = await asyncio.wait_for(opening, REQUEST_S)
            except (errors.KafkaError, OSError, TimeoutError) as error:
                failure = error
            else:
                return self._connection
        raise failure


def _views(topics: Iterable[Any]) -> Iterable[tuple[str, TopicView]]:
    for entry in topics:
        if entry[0] == errors.NoError.errno:
            with_id = isinstance(entry[2], UUID)
            yield entry[1], TopicView(str(entry[2]) if with_id else "", len(entry[4 if with_id else 3]))
        elif entry[0] not in (errors.UnknownTopicOrPartitionError.errno, errors.LeaderNotAvailableError.errno):
            raise errors.for_code(entry[0])(entry[1])
