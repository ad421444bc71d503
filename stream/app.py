"""The Faust app of one worker, and `run_worker`: both stages in one consumer group, from start to exit code.

Order of a start: topics compared, references ensured, plans made (all before anything runs); then producer, app, and at
the first assignment the restores; then the clockwork. Order of a stop: no chunk is taken any more, the clockwork ends,
every state is saved, the group is left. Both are bounded; a second signal ends the process at once, which is a crash
like any other.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from faust.types import TP

from detectors.compiled import UNCACHED
from detectors.reference import BadReference
from stream.admin import AdminError, TopicState, compare_topics
from stream.assignment import COLLECTOR, MONITOR, SOURCES, Owners, Refused
from stream.cluster import Cluster
from stream.config import Config
from stream.connection import KafkaRefusedError, KafkaUnreachableError, aiokafka_settings
from stream.copier import Copier
from stream.engine import FaustEngine, RoleLogs, make_app
from stream.failpoints import reach
from stream.metrics import Endpoint, Metrics
from stream.output_counts import count_output
from stream.owner_record import OwnerError, take_ownership
from stream.planning import PlanningError
from stream.references import SAMPLE_RECORDS_MAX, ReferencesError, ensure_references, read_control
from stream.rights import Use, group_id
from stream.rights_check import require_rights
from stream.snapshots import Executor, Lane, LogReader, first_values, is_transient, open_producer, sender_of
from stream.supervisor import Exit
from stream.tables import TableError
from stream.together import apart, stays
from stream.topics import INPUTS, TopicRole, growth_refusal
from stream.transport import RawApp
from stream.upkeep import Rhythm, Upkeep
from stream.warm_up import warm_up
from stream.worker import Setup, Worker

log = logging.getLogger(__name__)

SAVE_S = 5.0  # at a revocation and at the end
LEAVE_S = 1.5  # with upkeep.STOP_S and SAVE_S: a stop takes at most 10 s
CLOSE_S = 0.5
SILENT_S = 30.0  # no sign of life from the loop
ABSENT_SAY_S = 30.0  # how often a start says that it waits for the predictions topic
ABSENT_POLL_S = 2.0
COLLECT_OBJECTS = 10_000  # that were made and not freed; the collector's own 700 are some 60 dead letters
AWAY_S = 10.0  # no answer from the broker; it is asked every 5 s or oftener


class Session:
    """One run of a worker: everything that is opened is closed here."""

    def __init__(self, setup: Setup, app: RawApp, rhythm: Rhythm, *, drain: bool, metrics: Metrics) -> None:
        self.setup = setup
        self.app = app
        self.metrics = metrics
        settings = aiokafka_settings(setup.config.kafka)
        self.cluster = Cluster(settings)
        self.engine = FaustEngine(app, setup.config, self.cluster)
        self._settings = settings
        self.reader = LogReader(settings)
        self.producer: AIOKafkaProducer | None = None
        self.owners = Owners(
            setup.make_stage,
            self._lane,
            begin=setup.begin,
            is_transient=is_transient,
            monitors=setup.config.monitors,
            metrics=metrics,
            on_data_loss=setup.config.on_data_loss,
            home=setup.owner.cluster if setup.owner is not None else "",
            feedback=tuple(setup.feedback),
        )
        self.worker = Worker(setup, self.owners, self.engine, self._reference, metrics)
        self.copier = (
            Copier(setup.config, setup.sources, settings, metrics, self.engine.stop) if setup.config.rekeyed() else None
        )
        logs = RoleLogs(self.reader, self.cluster, setup.config)
        self.upkeep = Upkeep(self.worker, logs, metrics, rhythm, drain=drain, copier=self.copier)
        self._apart: set[TP] = set()  # that lack others of their number
        self._waits: asyncio.Future[None] | None = None
        self._kept = self._connect()

    async def _reference(self, name: str) -> Any:
        return await self.upkeep.reference(name)

    def _lane(self, _stage: str, partition: int, _generation: int) -> Lane:
        assert self.producer is not None
        sender = sender_of(
            self.producer, self.engine.topic_of, lambda output: count_output(self.metrics, partition, output)
        )
        return Lane(sender, Executor(self.reader, sender, self.engine.group(), self.engine.topic_of))

    def _connect(self) -> list[Any]:
        """The app's hooks. Faust holds signal handlers weakly, so they are returned to be kept."""
        app, sources = self.app, {self.engine.topic_of(source): (stage, source) for stage, source in SOURCES.items()}
        sources |= {self.engine.topic_of(stream): (COLLECTOR, stream) for stream in self.setup.feedback}

        async def restore(_app: Any, **_: Any) -> None:
            assigned = {(*sources[tp.topic], tp.partition) for tp in app.consumer.assignment() if tp.topic in sources}
            count = app.rebalancing_count
            self.metrics.add("rebalances_total")
            reach("rebalance.assigned")
            try:
                self._require_partitions((stage, partition) for stage, _, partition in assigned)
                await self.owners.restore(self._whole(assigned, count), count, lambda: self._holds(count))
            except Refused as refusal:
                self.worker.refuse(refusal)
            reach("rebalance.restored")

        async def positions(tps: set[TP]) -> dict[TP, int]:
            slots = {tp: self.owners.get(sources[tp.topic][0], tp.partition) for tp in tps if tp.topic in sources}
            return {tp: slot.owner.vector[sources[tp.topic][1]] for tp, slot in slots.items() if slot is not None}

        app.positions = positions
        app.held_back = self._held_back
        app.damage.on_fault = lambda place, tries, error: self._damaged(sources[place[0]][0], place, tries, error)
        app.before_revocation = lambda _revoked: self._give_up()
        app.on_rebalance_complete.connect(restore)
        agents = [
            app.agent(app.chunk_topic(topic), name=stage if source in SOURCES.values() else source, concurrency=1)(
                self._agent(stage, source)
            )
            for topic, (stage, source) in sources.items()
        ]
        return [restore, *agents]

    def _held_back(self) -> set[TP]:
        found = {TP(self.engine.topic_of(slot.source), slot.partition) for slot in self.worker.held_back()}
        feedback = {TP(self.engine.topic_of(source), slot.partition) for slot, source in self.worker.held_feedback()}
        return found | feedback | self._apart

    def _whole(self, assigned: Iterable[tuple[str, str, int]], count: int) -> set[tuple[str, int]]:
        """Stages and numbers that can be worked on: a collector's state reads all its topics together."""
        needed = {SOURCES[COLLECTOR], *self.setup.feedback}
        lack = apart(((source, p) for stage, source, p in assigned if stage == COLLECTOR), needed)
        self._apart = {TP(self.engine.topic_of(source), p) for p in lack for source in needed}
        if lack:
            names = sorted({self.engine.topic_of(source) for sources in lack.values() for source in sources})
            said = f"partitions {', '.join(map(str, lack))} were assigned without {', '.join(names)}"
            self._waits = asyncio.ensure_future(self._refuse_apart(names, said, count))
        return {(stage, p) for stage, _, p in assigned if stage != COLLECTOR or p not in lack}

    async def _refuse_apart(self, names: list[str], said: str, count: int) -> None:
        def say() -> None:
            log.warning("%s; they wait for another assignment", said)

        if await stays(names, self.cluster.topics, lambda: self._holds(count), say):
            stop = "Stop all workers of this prefix, then start them with one configuration"
            self.worker.refuse(Refused(f"{said}: other members of the group read other topics. {stop}"))

    def _holds(self, count: int) -> bool:
        """Whether an assignment is still in force."""
        return bool(self.app.rebalancing_count == count) and not self.engine.stopped.is_set()

    def _require_partitions(self, wanted: Iterable[tuple[str, int]]) -> None:
        """Raises Refused where a source topic has more partitions than at the start."""
        counts = {COLLECTOR: self.setup.sources, MONITOR: self.setup.config.monitors}
        for stage, partition in wanted:
            if partition >= counts[stage]:
                topic = self.engine.topic_of(SOURCES[stage])
                raise Refused(growth_refusal(topic, counts[stage], partition + 1))

    def _damaged(self, stage: str, place: tuple[str, int], tries: int, error: Exception) -> None:
        """A batch cannot be opened; its partition waits between the tries, and that is no stall."""
        log.error("%s-%d: %s (%s), try %d", *place, error, type(error).__name__, tries)
        self.metrics.add("damaged_batches_total", stage=stage, partition=place[1])
        slot = self.owners.get(stage, place[1])
        if slot is not None:
            slot.damaged = True

    def _agent(self, stage: str, source: str) -> Any:
        async def agent(stream: Any) -> None:
            async for chunk in stream:
                await self.worker.handle(stage, chunk, source)

        return agent

    async def _give_up(self) -> None:
        reach("rebalance.revoked")
        await self._save("revocation")
        reach("rebalance.saved")

    async def _save(self, why: str) -> None:
        """Every state saved, then given up; bounded, because a partition is waited for by its next owner."""
        try:
            await asyncio.wait_for(self.owners.save_all(), SAVE_S)
        except Exception as error:  # noqa: BLE001  the next owner repeats what was not saved
            log.warning("not everything could be saved at the %s: %r", why, error)
        await self.owners.close()

    async def run(self) -> int:
        """Until `engine.stop`; the exit code."""
        try:
            self.producer = await open_producer(self._settings)
        except (KafkaError, OSError) as error:
            self.engine.stop(Exit.UNREACHABLE, f"cannot start: {error!r}")
            await self._close()
            return self.engine.code
        starting = asyncio.ensure_future(self.app.start())  # ends with the first assignment's restores
        crashed = asyncio.ensure_future(self.app._crashed.wait())  # noqa: SLF001
        asked = asyncio.ensure_future(self.engine.stopped.wait())
        self.upkeep.start()
        if self.copier is not None:
            self.copier.start()
        await asyncio.wait({starting, crashed, asked}, return_when=asyncio.FIRST_COMPLETED)
        failure = starting.exception() if starting.done() else None
        if failure is not None:
            unreachable = isinstance(failure, KafkaError | OSError)
            self.engine.stop(Exit.UNREACHABLE if unreachable else Exit.CRASHED, f"cannot start: {failure!r}")
        await asyncio.wait({crashed, asked}, return_when=asyncio.FIRST_COMPLETED)
        if crashed.done():
            self.engine.stop(Exit.CRASHED, f"the engine crashed: {self.app.crash_reason!r}")
        await self._close()
        for waiting in (starting, crashed, asked):
            waiting.cancel()
        return self.engine.code

    async def _close(self) -> None:
        reach("stop.began")
        self.worker.stopping = True
        await asyncio.gather(self.upkeep.stop(), *([] if self.copier is None else [self.copier.stop()]))
        await self._save("end")
        reach("stop.saved")
        closing: list[tuple[Awaitable[Any], float]] = [(self.app.stop(), LEAVE_S), (self.reader.close(), CLOSE_S)]
        closing.append((self.cluster.close(), CLOSE_S))
        if self.producer is not None:
            closing.append((self.producer.stop(), CLOSE_S))
        for step, seconds in closing:
            with suppress(Exception):
                await asyncio.wait_for(step, seconds)

    # -- probes, asked from another thread

    def live(self) -> tuple[bool, str]:
        silent = time.monotonic() - self.upkeep.beat
        return silent < SILENT_S, "live" if silent < SILENT_S else f"no sign of life for {silent:.0f} s"

    def ready(self) -> tuple[bool, str]:
        if self.engine.rebalancing or not self.app.consumer_generation_id:
            return False, "waiting for an assignment"
        away = time.monotonic() - self.upkeep.broker_seen
        if away > AWAY_S:
            return False, f"no answer from the broker for {away:.0f} s"
        counts = {stage: len(self.owners.of(stage)) for stage in (COLLECTOR, MONITOR)}
        return True, f"ready: {counts[COLLECTOR]} source partitions, {counts[MONITOR]} monitor partitions"


def run_worker(config: Config, *, drain: bool = False, index: int = 0, rhythm: Rhythm | None = None) -> int:
    """Work until told to stop (`drain`: until everything that is in the topic now is processed); the exit code.

    `index` counts the workers of one supervisor: it moves the metrics port. Blocks; call it from the main thread.
    """
    setup = _prepared(config)
    if isinstance(setup, Exit):
        return setup
    settle()
    return asyncio.run(_run(setup, rhythm or Rhythm(), drain=drain, index=index))


def settle() -> None:
    """Keep the garbage collector from what lasts as long as the process: modules, kernels, configuration, references.

    Some 200,000 objects: full collections took a third of the CPU time of a stream of dead letters, a dozen objects each,
    which made one necessary for every few thousand of them. No owner exists yet, so that what is given up later is still collected.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_OBJECTS, *gc.get_threshold()[1:])


def prepare(config: Config) -> int:
    """Everything that a worker would do before it joins, in a process of its own: build and store references, compile.

    Building and compiling take some hundred MB, which a worker would keep for good.
    """
    return setup if isinstance(setup := _prepared(config), Exit) else Exit.OK


def _prepared(config: Config) -> Setup | Exit:
    try:
        return _prepare(config)
    except (
        KafkaUnreachableError,
        AdminError,
        OwnerError,
        ReferencesError,
        PlanningError,
        BadReference,
        TableError,
    ) as error:
        log.error("%s", error)  # noqa: TRY400  the text says it all
        lasting = isinstance(error, KafkaRefusedError) or not isinstance(error, KafkaUnreachableError)
        return Exit.REFUSED if lasting else Exit.UNREACHABLE


def _prepare(config: Config) -> Setup:
    """Everything that can be refused before anything runs."""
    require_rights(config, Use.RUN)
    states = _with_predictions(config)
    wrong = [f"topic {state.name}: {state.detail}" for state in states if state.difference is not None]
    if wrong:
        raise AdminError("\n  ".join(["the topics are not as they must be:", *wrong]))
    owner = take_ownership(config, read_control(config).owner, group_id(config))
    source = config.source(TopicRole.PREDICTIONS)
    sources = next(state.partitions for state in states if state.name == source)
    assert sources is not None
    setup = replace(Setup.of(config, sources, ensure_references(config, lambda: _first_values(config))), owner=owner)
    started = time.monotonic()
    alone = replace(setup, sources=1)
    warm_up(setup.plan, setup.layout, alone.collector(0), alone.monitor(0), setup.profiles.values())
    if UNCACHED:
        log.warning("compiled code could not be cached, the next start compiles again: %s", UNCACHED[0])
    log.info(
        "%d models, %d source partitions, ready to join after %.1f s",
        len(config.models),
        sources,
        time.monotonic() - started,
    )
    return setup


def _with_predictions(config: Config) -> tuple[TopicState, ...]:
    """The topics compared, once the predictions topic is there: its owner may make it later than we start."""
    said_s = -ABSENT_SAY_S
    while True:
        states = compare_topics(config)
        missing = [state.role for state in states if state.difference == "missing"]
        if not missing or not set(missing) <= set(INPUTS):
            return states
        if time.monotonic() - said_s >= ABSENT_SAY_S:
            said_s = time.monotonic()
            names = ", ".join(f"{config.topic(role)} (topics.{role.value})" for role in missing)
            log.info("waiting for the topic %s: there is none on this cluster", names)
        time.sleep(ABSENT_POLL_S)


def _first_values(config: Config) -> Iterator[list[bytes]]:
    """The first events of the topic, for models that learn, before there is a loop to run in."""
    loop = asyncio.new_event_loop()
    batches = first_values(aiokafka_settings(config.kafka), config.topic(TopicRole.PREDICTIONS), SAMPLE_RECORDS_MAX)
    try:
        while True:
            try:
                yield loop.run_until_complete(anext(batches))
            except StopAsyncIteration:
                return
    finally:
        loop.run_until_complete(batches.aclose())
        loop.close()


async def _run(setup: Setup, rhythm: Rhythm, *, drain: bool, index: int) -> int:
    metrics = Metrics()
    metrics.set("build_info", 1, version=setup.app_version, config_hash=setup.config_hash)
    session = Session(setup, make_app(setup.config), rhythm, drain=drain, metrics=metrics)
    _listen(session.engine)
    port = setup.config.metrics.port
    try:
        endpoint = Endpoint(metrics, port + index, live=session.live, ready=session.ready) if port else None
    except OSError as error:
        log.error("metrics.port: nothing can listen on port %d: %s", port + index, error.strerror)  # noqa: TRY400
        return Exit.REFUSED
    if endpoint is not None:
        endpoint.start()
    try:
        return await session.run()
    finally:
        if endpoint is not None:
            endpoint.stop()


def _listen(engine: FaustEngine) -> None:
    """The first signal stops in order, the second at once."""

    def on_signal(number: int) -> None:
        if engine.stopped.is_set():
            os._exit(128 + number)
        engine.stop(Exit.OK, signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
