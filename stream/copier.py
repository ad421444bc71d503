"""Copies the user's topics with `rekey` to the re-keyed ones (copying.py has the rules): one task of every worker.

Whatever fails, the client is opened anew and goes on from the commits (copy_session.py): what is copied twice is told by its
reader (copied.py). A topic that was made anew, or that nobody may write to, ends the worker.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError

from stream.cluster import Cluster
from stream.config import Config
from stream.copy_commits import LogLost
from stream.copy_lag import CopyLag
from stream.copy_session import ANSWER_S, STANDS_S, STOP_S, LogMoved, Session
from stream.metrics import Metrics
from stream.snapshots import worth_repeating
from stream.supervisor import Exit

log = logging.getLogger(__name__)

PAUSE_FIRST_S, PAUSE_MAX_S = 0.5, 10.0
NOT_OF_IT = -1  # no offset of a log


class Copier:
    """`stop_worker`: as worker.Engine.stop. `partitions`: of the re-keyed topics."""

    def __init__(
        self, config: Config, partitions: int, settings: Mapping[str, Any], metrics: Metrics,
        stop_worker: Callable[[int, str], None],
    ) -> None:  # fmt: skip
        self.config = config
        self.roles = {config.topic(role): role for role in config.rekeyed()}
        self.lags = {role.value: CopyLag() for role in self.roles.values()}
        self._partitions, self._settings, self._metrics, self._stop_worker = partitions, settings, metrics, stop_worker
        self._cluster = Cluster(settings)
        self._session: Session | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._goal: dict[TopicPartition, int] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="copier")

    async def stop(self) -> None:
        """Commit what is copied and leave the group."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=STOP_S)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._cluster.close()

    async def _run(self) -> None:
        pause_s = PAUSE_FIRST_S
        while not self._stopping.is_set():
            began_s = time.monotonic()
            try:
                await self._copy()
            except LogLost as error:
                self._stop_worker(Exit.REFUSED, str(error))
                return
            except (KafkaError, OSError, TimeoutError, LogMoved) as error:
                if isinstance(error, KafkaError) and not _may_pass(error):
                    self._stop_worker(Exit.REFUSED, f"cannot copy to re-keyed topics: {error!r}")
                    return
                if time.monotonic() - began_s > STANDS_S:
                    pause_s = PAUSE_FIRST_S
                log.warning("copies of re-keyed topics: %r, again in %.1f s", error, pause_s)
                self._metrics.add("rekey_failures_total")
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause_s)
                pause_s = min(pause_s * 2, PAUSE_MAX_S)
            except Exception as error:
                log.exception("the copies of re-keyed topics ended")
                self._stop_worker(Exit.CRASHED, f"copying to re-keyed topics failed: {error!r}")
                return

    async def _copy(self) -> None:
        """One client from start to end."""
        session = Session(self.config, self._partitions, self._settings, self._cluster, self._metrics)
        try:
            await asyncio.wait_for(session.open(), ANSWER_S)
            self._session = session
            while not self._stopping.is_set():
                await asyncio.wait_for(session.round(), ANSWER_S)
            await session.commit()
        finally:
            self._session = None
            await session.close()

    # -- what the worker asks

    async def look(self, now_s: float) -> None:
        """See how far the copies of every topic are, whoever makes them. Raises as a Kafka client does."""
        if self._session is None:
            return
        ends, copied = await self._ends(), await self._copied()
        there = {place.topic for place in ends}
        for topic, role in self.roles.items():
            lag = self.lags[role.value]
            if topic not in there:  # liveness.py says so
                continue
            lag.see(_of(topic, ends), {partition: max(at, 0) for partition, at in _of(topic, copied).items()}, now_s)
            self._metrics.set("rekey_lag_events", lag.events, input=role.value)

    def is_behind(self, source: str, now_s: float, most_s: float) -> bool:
        """Whether a source that is re-keyed may lack copies of what is older than `most_s`."""
        return source in self.lags and self.lags[source].is_behind(now_s, most_s)

    async def drained(self) -> bool:
        """Whether everything that was there at the first call is copied, of a log that lost its end or was made anew what it holds now."""
        if self._session is None:
            return False
        if self._goal is None:
            ends = await self._ends()
            if {place.topic for place in ends} != set(self.roles):
                return False
            self._goal = ends
        copied = await self._copied()
        ends = await self._ends()  # a commit beyond them is of a log that is not there any more
        return all(
            min(end, ends.get(place, end)) <= copied.get(place, 0) <= ends.get(place, NOT_OF_IT)
            for place, end in self._goal.items()
        )

    async def _ends(self) -> dict[TopicPartition, int]:
        session = self._require_session()
        views = await self._cluster.topics(self.roles)
        places = [TopicPartition(topic, p) for topic, view in views.items() for p in range(view.partitions)]
        return dict(await session.consumer.end_offsets(places))

    async def _copied(self) -> dict[TopicPartition, int]:
        """What the group has committed in the logs as they are; NOT_OF_IT where that is known to be an offset of another log, which
        copying has not begun anew yet: by chance the new one may end there.
        """
        session = self._require_session()
        views = await self._cluster.topics(self.roles)
        places = [TopicPartition(topic, p) for topic, view in views.items() for p in range(view.partitions)]
        found = await session.commits(places)
        return {
            place: NOT_OF_IT if each.log and each.log.is_another(views[place.topic].id) else each.offset
            for place, each in found.items()
        }

    def _require_session(self) -> Session:
        if self._session is None:
            raise TimeoutError("the copier has no connection just now")
        return self._session


def _of(topic: str, found: Mapping[TopicPartition, int]) -> dict[int, int]:
    return {place.partition: offset for place, offset in found.items() if place.topic == topic}


def _may_pass(error: KafkaError) -> bool:
    """Whether a later try may do: not where the right to the group, or to write, is missing."""
    return worth_repeating(error) and not isinstance(error, GroupAuthorizationFailedError)
