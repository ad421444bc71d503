"""One consumer and one producer that copy to re-keyed topics: the group, positions, and what is copied next.

The workers of a prefix share these topics in a consumer group of their own, so that the assignment of the collectors' topics stays as
it is. One worker has a topic whole: its partitions are read side by side by record time. An offset is committed once all copies
before it are acknowledged; it carries the id of the topic, so that one made anew under the same name is told from one that
grew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import CommitFailedError, IllegalStateError, UnknownTopicOrPartitionError
from aiokafka.structs import OffsetAndMetadata

from stream.chunks import Chunk, records_of
from stream.cluster import Cluster
from stream.config import Config
from stream.copy_commits import Beginning, Committed, CopiedLog, beginning
from stream.copying import Copy, Waiting, copies_of
from stream.damage import Damage
from stream.failpoints import reach
from stream.metrics import Metrics
from stream.raw_fetch import install_raw_fetch
from stream.rights import copy_group_id
from stream.snapshots import patient
from stream.topics import TopicRole

log = logging.getLogger(__name__)

FETCH_BYTES = 1 << 20  # of each partition
FETCH_WAIT_MS = 200
BATCH_BYTES = 512 << 10
POLL_MS = 100
COMMIT_S = 1.0
ROUND_S = 1.0  # that a topic is copied on end: commits and a rebalance wait for it
ANSWER_S = 60.0  # without an answer the client is opened anew
STANDS_S = 60.0  # likewise where the log goes on and nothing comes
GIVE_UP_S = 5.0  # what a rebalance waits for the copies that are under way
STOP_S = 2.0
COPY = "copy"  # among the stages, in metrics


class LogMoved(Exception):  # noqa: N818 - the client is opened anew, which tells what has happened
    """A partition goes on at another offset than the position."""


class WholeTopics(RangePartitionAssignor):  # type: ignore[misc]
    """Every topic to one member, topics in turn."""

    name = "driftline-whole-topics"

    @classmethod
    def assign(cls, cluster: Any, members: Mapping[str, Any]) -> dict[str, Any]:
        readers: dict[str, list[str]] = {}
        for member, told in sorted(members.items()):
            for topic in told.subscription:
                readers.setdefault(topic, []).append(member)
        given: dict[str, list[tuple[str, list[int]]]] = {member: [] for member in members}
        for turn, (topic, own) in enumerate(sorted(readers.items())):
            partitions = cluster.partitions_for_topic(topic)
            if partitions:
                given[own[turn % len(own)]].append((topic, sorted(partitions)))
        return {member: ConsumerProtocolMemberAssignment(cls.version, own, b"") for member, own in given.items()}


class Session(ConsumerRebalanceListener):  # type: ignore[misc]
    """One consumer and one producer. The lock is held while copies are under way: an assignment is given up between them."""

    def __init__(
        self, config: Config, partitions: int, settings: Mapping[str, Any], cluster: Cluster, metrics: Metrics
    ) -> None:
        self._config, self._partitions, self._cluster, self._metrics = config, partitions, cluster, metrics
        self._roles = {config.topic(role): role for role in config.rekeyed()}
        self._keys = config.rekeyed()
        self.consumer = AIOKafkaConsumer(
            **settings,
            group_id=copy_group_id(self._config),
            partition_assignment_strategy=(WholeTopics,),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            metadata_max_age_ms=10_000,
            session_timeout_ms=10_000,
            heartbeat_interval_ms=2_000,
            request_timeout_ms=20_000,
            rebalance_timeout_ms=10_000,
        )
        self.producer = AIOKafkaProducer(**settings, acks="all", linger_ms=0, max_batch_size=BATCH_BYTES)
        self._damage = Damage(self._skipped())
        self._damage.on_fault = self._damaged
        self._lock = asyncio.Lock()
        self._assigned: frozenset[TopicPartition] | None = None  # of which the positions are not known yet
        self._waiting: dict[str, Waiting] = {}
        self._logs: dict[TopicPartition, CopiedLog] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._commit_s = self._moved_s = time.monotonic()
        self._cut = False  # the last round ended with copies that could have been made

    def _skipped(self) -> frozenset[str]:
        skip = self._config.topics.predictions.damaged_batches == "skip"
        return frozenset([self._config.topic(TopicRole.PREDICTIONS)] if skip else [])

    def _damaged(self, place: tuple[str, int], tries: int, error: Exception) -> None:
        """A batch cannot be opened: its partition waits between the tries, and the others for it."""
        log.error("%s-%d: %s (%s), try %d", *place, error, type(error).__name__, tries)
        self._metrics.add("damaged_batches_total", stage=COPY, partition=place[1])

    async def open(self) -> None:
        """Raises KafkaError, OSError."""
        patient(self.consumer._client)  # noqa: SLF001
        patient(self.producer.client)
        await self.producer.start()
        await self.consumer.start()
        install_raw_fetch(self.consumer._fetcher, frozenset(self._roles), self._damage)  # noqa: SLF001
        self.consumer.subscribe(topics=list(self._roles), listener=self)

    async def close(self) -> None:
        for client in (self.consumer, self.producer):
            with suppress(Exception):
                await asyncio.wait_for(client.stop(), STOP_S)

    # -- the group

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Others go on from what is committed here."""
        del revoked
        try:
            await asyncio.wait_for(self._give_up(), GIVE_UP_S)
        except Exception as error:  # noqa: BLE001  the next owner repeats what was not committed
            log.warning("copies of re-keyed topics: not everything could be committed: %r", error)
        self._waiting, self._assigned = {}, None

    async def _give_up(self) -> None:
        async with self._lock:
            await self.commit()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._waiting, self._assigned = {}, frozenset(assigned)

    async def commits(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, Committed]:
        """What the group has committed of these."""
        found = await self.consumer._coordinator.fetch_committed_offsets(list(places))  # noqa: SLF001
        return {place: Committed(each.offset, each.metadata or "") for place, each in found.items() if each.offset >= 0}

    async def commit(self) -> None:
        """Where everything before is acknowledged."""
        offsets = {
            TopicPartition(topic, partition): position
            for topic, waiting in self._waiting.items()
            for partition, position in waiting.positions.items()
        }
        changed = {place: at for place, at in offsets.items() if self._committed.get(place) != at}
        self._commit_s = time.monotonic()
        if not changed:
            return
        reach("copy.acknowledged")
        if await self._tell(changed):
            self._committed |= changed
        reach("copy.committed")

    async def _tell(self, positions: Mapping[TopicPartition, int]) -> bool:
        """Commit these, with the names of their logs; False where another member owns them: it copies from before."""
        told = {place: OffsetAndMetadata(at, self._logs[place].metadata()) for place, at in positions.items()}
        try:
            await self.consumer.commit(told)
        except (CommitFailedError, IllegalStateError):
            return False
        return True

    # -- positions

    async def _begin(self, assigned: frozenset[TopicPartition]) -> None:
        """Go to what is committed. That it is another log or offset is committed before anything of it is copied: later the log may have
        grown beyond what was copied of the one before, and would be taken for it, or what is gone would be counted again. Raises LogLost.
        """
        names = {place.topic for place in assigned}
        views = await self._cluster.topics(names)
        if missing := sorted(names - set(views)):
            raise UnknownTopicOrPartitionError(f"there is no topic {', '.join(missing)}")
        begins, ends = await self.consumer.beginning_offsets(assigned), await self.consumer.end_offsets(assigned)
        committed = await self.commits(list(assigned))
        if assigned != self._assigned:  # a rebalance meanwhile
            return
        found = {
            place: beginning(
                f"{place.topic}-{place.partition}", committed.get(place), views[place.topic].id, (begins[place], ends[place]),
                give_up=self._config.on_data_loss == "reset",
            )
            for place in sorted(assigned)
        }  # fmt: skip
        self._logs |= {place: each.log for place, each in found.items()}
        self._committed = {place: each.offset for place, each in committed.items()}
        anew = {
            place: found[place].offset
            for place, each in committed.items()
            if (each.offset, each.log) != (found[place].offset, found[place].log)
        }
        if anew:
            if not await self._tell(anew):
                await asyncio.sleep(POLL_MS / 1000)  # until the rebalance comes
                return
            self._committed |= anew
        self._say(found)
        if assigned != self._assigned:
            return
        waiting: dict[str, Waiting] = {}
        for place, each in found.items():
            waiting.setdefault(place.topic, Waiting()).positions[place.partition] = each.offset
            self.consumer.seek(place, each.offset)
        self._waiting, self._assigned = waiting, None
        self._moved_s = time.monotonic()

    def _say(self, found: Mapping[TopicPartition, Beginning]) -> None:
        """Once it is committed: whoever begins later has nothing more to say of it."""
        for place, each in found.items():
            for said in each.said:
                log.error("%s", said)
            if each.lost:
                self._metrics.add("rekey_gap_events_total", each.lost, input=self._roles[place.topic].value)

    # -- copying

    async def round(self) -> None:
        """Fetch what is missing, copy what is known to be next, commit now and then. Raises the group's errors."""
        self._stay()
        assigned = self._assigned
        if assigned is not None:
            await self._begin(assigned)
            return
        waiting = self._waiting
        damaged = self._damage.waiting(time.monotonic())
        wanted = [
            TopicPartition(topic, partition)
            for topic, each in waiting.items()
            for partition in each.empty
            if (topic, partition) not in damaged
        ]
        poll_ms, self._cut = 0 if self._cut else POLL_MS, False
        if not wanted:
            await asyncio.sleep(poll_ms / 1000)
        fetched = await self.consumer.getmany(*wanted, timeout_ms=poll_ms) if wanted else {}
        if fetched or time.monotonic() - self._commit_s > COMMIT_S:
            await self._require_logs(waiting)
        async with self._lock:
            if self._waiting is not waiting:
                return
            for place, pieces in fetched.items():
                self._add(place, pieces)
            copied = 0
            for topic, each in waiting.items():
                copied += await self._copy_topic(topic, each)
            if time.monotonic() - self._commit_s > COMMIT_S:
                await self.commit()
        await self._watch(copied or len(fetched), wanted)

    async def _require_logs(self, topics: Collection[str]) -> None:
        """What was fetched before this was asked is of the logs that are copied: ids do not come back. Offsets do, in a topic that was
        made anew and has grown; in one that has not nothing would ever be fetched. Raises LogMoved, and as `Cluster.topics`.
        """
        views = await self._cluster.topics(topics)
        for place, log in self._logs.items():
            if place.topic in topics and (place.topic not in views or log.is_another(views[place.topic].id)):
                raise LogMoved(f"{place.topic} was deleted, and perhaps made again, while it was copied")

    def _stay(self) -> None:
        """To the client only a fetch is a sign of life, and only a fetch brings up errors of the group: who has no topic, or waits for
        a lock or a batch, would leave the group for good after five minutes.
        """
        with self.consumer._subscription.fetch_context():  # noqa: SLF001
            self.consumer._coordinator.check_errors()  # noqa: SLF001

    def _add(self, place: TopicPartition, pieces: Sequence[Any]) -> None:
        """What was fetched of a partition. Raises LogMoved."""
        each = self._waiting[place.topic]
        if place.partition not in each.empty:
            return
        position = each.positions[place.partition]
        chunk = Chunk(place.topic, place.partition, tuple(pieces), 0)
        if chunk.first_offset != position:
            raise LogMoved(
                f"{place.topic}-{place.partition} goes on at {chunk.first_offset}, its copies are at {position}"
            )
        records = records_of(chunk, position)
        each.add(place.partition, [records], chunk.next_offset, int(time.time() * 1000))

    async def _copy_topic(self, topic: str, waiting: Waiting) -> int:
        """What is next in record time, for ROUND_S: fetches that were compressed may hold millions of events, and a round that took
        longer than ANSWER_S would be thrown away, each time anew. How many records.
        """
        count, role = 0, self._roles[topic]
        keys, target = self._keys[role], self._config.source(role)
        until_s = time.monotonic() + ROUND_S
        while waiting.held:
            runs = waiting.take(await self._ended(topic, waiting))
            if not runs:
                break
            made = [
                copy
                for partition, records, rows in runs
                for copy in copies_of(records, rows, keys, self._partitions, self._place(topic, partition))
            ]
            reach("copy.taken")
            by_target: dict[int, list[Copy]] = {}
            for copy in made:
                by_target.setdefault(copy.target, []).append(copy)
            await asyncio.gather(*(self._write(target, p, own) for p, own in by_target.items()))
            waiting.copied(runs)
            count += len(made)
            self._metrics.add("rekey_copied_events_total", len(made), input=role.value)
            if time.monotonic() >= until_s and waiting.held:
                self._cut = True
                break
        self._metrics.set("rekey_held_partitions", len(waiting.held), input=role.value)
        return count

    def _place(self, topic: str, partition: int) -> tuple[int, int]:
        """Partition and name of the log."""
        return partition, self._logs[TopicPartition(topic, partition)].name(topic)

    async def _ended(self, topic: str, waiting: Waiting) -> dict[int, bool]:
        """Of the partitions of which nothing waits: whether their logs end there, as of now."""
        if not waiting.empty:
            return {}
        ends = await self.consumer.end_offsets([TopicPartition(topic, partition) for partition in waiting.empty])
        return {place.partition: waiting.positions[place.partition] >= end for place, end in ends.items()}

    async def _write(self, topic: str, partition: int, copies: Sequence[Copy]) -> None:
        """In their order, each batch once the one before is acknowledged: what is lost in between must not be overtaken."""
        batch, first = self.producer.create_batch(), True
        for copy in copies:
            made = {"timestamp": None, "key": copy.key, "value": copy.value, "headers": list(copy.headers)}
            if batch.append(**made) is None:
                await self._send(batch, topic, partition)
                batch, first = self.producer.create_batch(), True
                if batch.append(**made) is None:
                    raise ValueError(f"a copy of {len(copy.value or b'')} bytes does not fit a batch")
            first = False
        if not first:
            await self._send(batch, topic, partition)

    async def _send(self, batch: Any, topic: str, partition: int) -> None:
        batch.close()
        future = await self.producer.send_batch(batch, topic, partition=partition)
        await future
        reach("copy.sent")

    async def _watch(self, moved: int, wanted: Sequence[TopicPartition]) -> None:
        """A client that brings nothing of logs that go on is stuck. Raises TimeoutError."""
        now_s = time.monotonic()
        if moved or not wanted:
            self._moved_s = now_s
        elif now_s - self._moved_s > STANDS_S:
            ends = await self.consumer.end_offsets(wanted)
            behind = [
                place for place, end in ends.items()
                if place.topic in self._waiting and self._waiting[place.topic].positions.get(place.partition, end) < end
            ]  # fmt: skip
            self._moved_s = now_s
            if behind:
                raise TimeoutError(
                    f"{behind[0].topic}-{behind[0].partition} goes on, and nothing comes for {STANDS_S:.0f} s"
                )
