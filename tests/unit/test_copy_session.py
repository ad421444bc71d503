"""Where copying begins and what is committed of it: a group and one partition's log as doubles, the rest as it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError
from aiokafka.structs import OffsetAndMetadata

from stream import copy_session
from stream.chunks import Plain
from stream.cluster import TopicView
from stream.config import Config, config_from
from stream.copier import Copier
from stream.copy_commits import Committed, CopiedLog, LogLost, beginning
from stream.copy_lag import CopyLag
from stream.copy_session import LogMoved, Session
from stream.damage import Damage
from stream.metrics import Metrics
from stream.topics import TopicRole

PLACE = "chargebacks-0"


def config(loss: str) -> Config:
    model = {"reference": {"first": 5000}, "targets": {"amount": {"kind": "numeric"}}}
    return config_from(
        {
            "kafka": {"bootstrap_servers": "unused:9092"},
            "topics": {"predictions": "predictions", "labels": {"name": "chargebacks", "rekey": True}},
            "on_data_loss": loss,
            "models": {"fraud": model | {"performance": {"horizons": ["1m"], "metrics": ["accuracy"]}}},
        }
    )


@pytest.mark.parametrize("log", [CopiedLog("id", 2), CopiedLog("", 0)])
def test_a_commit_tells_its_log(log: CopiedLog) -> None:
    assert Committed(5, log.metadata()).log == log


@pytest.mark.parametrize(
    "metadata",
    [
        "", "somebody", "5", "null", "true", '"ab"', "[]", "{}", '{"a": 1, "b": 2}', '["id"]', '["id", 1, 2]', '["id", null]',
        '["id", "1"]', '["id", 1.5]', '["id", true]', '["id", -1]', '[["id"], 1]', "[null, 1]", "[1, 2]", "\x00", "[" * 2000,
    ],
)  # fmt: skip
def test_a_commit_of_something_else_is_no_reason_to_end(metadata: str) -> None:
    """Copying goes on at its offset, and says so; offsets that are none of the log are refused as ever."""
    foreign = Committed(50, metadata)
    assert foreign.log is None
    found = beginning(PLACE, foreign, "id", (3, 90), give_up=False)
    assert (found.offset, found.log, found.lost) == (50, CopiedLog("id", 0), 0)
    (said,) = found.said
    assert said.startswith(f"{PLACE}: its offset 50 was committed by something else, with metadata ")
    assert len(said) < 300
    found = beginning(PLACE, foreign, "id", (60, 90), give_up=False)
    assert (found.offset, found.lost, len(found.said)) == (60, 10, 2)
    with pytest.raises(LogLost, match="has lost its end"):
        beginning(PLACE, foreign, "id", (3, 40), give_up=False)


@pytest.mark.parametrize(
    ("topic_id", "end", "said"), [("other", 90, "was deleted and made again"), ("id", 40, "has lost its end")]
)
def test_a_log_that_is_not_the_one_that_was_copied_is_refused_or_begun_anew(topic_id: str, end: int, said: str) -> None:
    committed = Committed(50, CopiedLog("id", 0).metadata())
    with pytest.raises(LogLost, match=said):
        beginning(PLACE, committed, topic_id, (3, end), give_up=False)
    found = beginning(PLACE, committed, topic_id, (3, end), give_up=True)
    assert (found.offset, found.log) == (3, CopiedLog(topic_id, 1))
    assert said in found.said[0]


def test_ids_that_are_not_known_say_nothing_of_a_log() -> None:
    for known, found in (("", "id"), ("id", ""), ("", "")):
        here = beginning(PLACE, Committed(50, CopiedLog(known, 1).metadata()), found, (3, 90), give_up=False)
        assert (here.offset, here.log, here.said) == (50, CopiedLog(found, 1), [])


class Group:
    """What a consumer group and one partition's log of `start` to `end` say; a client that begins is a Session."""

    start = 3

    def __init__(self, end: int) -> None:
        self.metrics = Metrics()
        self.place, self.end, self.topic_id, self.fenced = TopicPartition("chargebacks", 0), end, "id", False
        self.committed = {self.place: OffsetAndMetadata(50, '["id", 0]')}
        self.position, self._coordinator = -1, self

    async def topics(self, names: Any) -> dict[str, TopicView]:
        return {name: TopicView(self.topic_id, 1) for name in names}

    async def beginning_offsets(self, places: Any) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, self.start)

    async def end_offsets(self, places: Any) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, self.end)

    async def fetch_committed_offsets(self, places: Any) -> dict[TopicPartition, OffsetAndMetadata]:
        return {place: self.committed[place] for place in places if place in self.committed}

    async def commit(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        if self.fenced:
            raise CommitFailedError
        self.committed |= offsets

    def seek(self, _place: TopicPartition, position: int) -> None:
        self.position = position

    async def begin(self) -> Session:
        session: Any = Session.__new__(Session)
        session._config, session._logs, session._waiting = config("reset"), {}, {}
        session._cluster = session.consumer = self
        session._metrics, session._roles = self.metrics, {"chargebacks": TopicRole.LABELS}
        session._assigned = frozenset([self.place])
        await session._begin(session._assigned)
        return cast(Session, session)


async def test_that_a_log_was_begun_anew_is_known_to_whoever_comes_next() -> None:
    """Also where it has grown meanwhile beyond what was copied of the one before."""
    group = Group(end=40)
    first = await group.begin()
    assert (group.position, first._logs[group.place]) == (3, CopiedLog("id", 1))
    group.end = 60
    second = await group.begin()  # nothing was copied
    assert (group.position, second._logs[group.place]) == (3, CopiedLog("id", 1))
    assert first._place("chargebacks", 0) == second._place("chargebacks", 0)
    assert second._waiting["chargebacks"].positions == {0: 3}


async def test_nothing_of_a_log_that_was_begun_anew_is_copied_before_that_is_known() -> None:
    group = Group(end=40)
    group.fenced = True
    session = await group.begin()
    assert not session._waiting
    assert session._assigned == {group.place}


def gap(group: Group) -> float:
    return group.metrics.total("rekey_gap_events_total")


async def test_what_retention_took_is_counted_once(caplog: pytest.LogCaptureFixture) -> None:
    """However often copying has to begin, before anything behind the gap was copied too."""
    group = Group(end=90)
    group.start = 60
    group.fenced = True
    for _ in range(3):
        await group.begin()
    assert (gap(group), caplog.messages) == (0, [])
    group.fenced = False
    for _ in range(3):
        session = await group.begin()
        assert session._waiting["chargebacks"].positions == {0: 60}
    assert gap(group) == 10
    assert caplog.messages == ["chargebacks-0: retention has taken 50 to 60 before they were copied"]
    group.start = 61
    await group.begin()
    assert gap(group) == 11


async def test_what_something_else_committed_is_said_once_and_then_ours(caplog: pytest.LogCaptureFixture) -> None:
    group = Group(end=90)
    group.committed = {group.place: OffsetAndMetadata(70, "mirrored")}
    for _ in range(2):
        session = await group.begin()
        assert session._waiting["chargebacks"].positions == {0: 70}
    assert [each for each in caplog.messages if "was committed by something else" in each] == caplog.messages
    assert len(caplog.messages) == 1
    assert group.committed[group.place] == OffsetAndMetadata(70, '["id",0]')


class Backlog(Group):
    """A log of `end` events, fetched at once; a step of copies takes `step_s`."""

    def __init__(self, end: int, step_s: float) -> None:
        super().__init__(end)
        self.step_s, self.now_s, self.copied, self.read_to = step_s, 0.0, 0, self.start
        self._subscription = SimpleNamespace(fetch_context=nullcontext)
        self.committed = {}

    def check_errors(self) -> None: ...

    async def getmany(self, *places: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[Plain]]:
        del timeout_ms
        first = self.read_to
        self.read_to = self.end
        return {
            place: [Plain(i, 1_000, None, b"{}", (), i, i + 1) for i in range(first, self.end)]
            for place in places
            if first < self.end
        }

    async def write(self, _topic: str, _partition: int, copies: Sequence[Any]) -> None:
        self.now_s += self.step_s
        self.copied += len(copies)

    async def session(self) -> Session:
        session: Any = await self.begin()
        session._keys = session._config.rekeyed()
        session._partitions, session._lock = 1, asyncio.Lock()
        session._damage, session._write, session._commit_s = Damage(frozenset()), self.write, 0.0
        session._cut = False
        return cast(Session, session)


async def test_a_backlog_is_committed_while_it_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied whole it may take longer than any answer is waited for, and would begin anew each time."""
    log = Backlog(end=20_003, step_s=0.4)
    monkeypatch.setattr(copy_session, "time", SimpleNamespace(monotonic=lambda: log.now_s, time=time.time))
    session = await log.session()
    seen = []
    while log.copied < 20_000:
        before_s = log.now_s
        await session.round()
        assert log.now_s - before_s < 2 * copy_session.ROUND_S
        seen.append(log.committed[log.place].offset)
    assert seen == [6_003, 12_003, 18_003, 18_003]  # the last round was short
    await session.commit()
    assert log.committed[log.place].offset == 20_003
    assert log.copied == 20_000  # nothing twice


def copier(ends: list[int], committed: Committed | None, topic_id: str = "id") -> Copier:
    """Asked for the ends of its one partition it says these in turn, the last one ever again."""
    place = TopicPartition("chargebacks", 0)

    async def found(_places: Any) -> dict[TopicPartition, int]:
        return {place: ends.pop(0) if len(ends) > 1 else ends[0]}

    async def topics(_names: Any) -> dict[str, TopicView]:
        return {"chargebacks": TopicView(topic_id, 1)}

    async def commits(_places: Any) -> dict[TopicPartition, Committed]:
        return {} if committed is None else {place: committed}

    made: Any = Copier.__new__(Copier)
    made.roles, made._goal = {"chargebacks": TopicRole.LABELS}, None
    made.lags, made._metrics = {"labels": CopyLag()}, Metrics()
    made._cluster = SimpleNamespace(topics=topics)
    made._session = SimpleNamespace(commits=commits, consumer=SimpleNamespace(end_offsets=found))
    return cast(Copier, made)


OURS = CopiedLog("id").metadata()


@pytest.mark.parametrize(("committed", "drained"), [(39, False), (40, True), (45, True), (46, False)])
async def test_a_drain_waits_for_copies_and_not_for_those_of_a_log_that_is_gone(committed: int, drained: bool) -> None:
    """There were 40 records at the first call, 45 at the second."""
    assert await copier([40, 45], Committed(committed, OURS)).drained() is drained


@pytest.mark.parametrize(
    ("metadata", "topic_id", "drained"),
    [(OURS, "id", True), (OURS, "other", False), (OURS, "", True), ("", "other", True), ("[]", "other", True)],
)
async def test_a_topic_that_was_made_anew_and_ends_where_the_one_before_did_is_not_copied(
    metadata: str, topic_id: str, drained: bool
) -> None:
    """Its offsets alone say that it is; so does a broker that knows no ids."""
    own = copier([40], Committed(40, metadata), topic_id)
    assert await own.drained() is drained
    await own.look(10.0)
    assert own.lags["labels"].events == (0 if drained else 40)
    assert own.lags["labels"].is_behind(10.0, 5.0) is not drained
    assert not await copier([0], Committed(40, OURS), "other").drained()  # nor is that it is another one known yet


async def test_a_drain_asks_for_no_more_than_a_log_that_was_made_anew_meanwhile_holds() -> None:
    anew = CopiedLog("other", 1).metadata()
    assert await copier([40, 10], Committed(10, anew), "other").drained()
    assert not await copier([40, 10], Committed(9, anew), "other").drained()
    assert not await copier([40, 60], Committed(39, anew), "other").drained()
    assert await copier([0], None).drained()
    assert not await copier([1], None).drained()


@pytest.mark.parametrize("fetches", [True, False])
async def test_a_topic_that_is_made_anew_while_it_is_copied_is_not_taken_for_the_one_before(fetches: bool) -> None:
    """Whether it has grown beyond the position, so that something comes, or ends at it, so that nothing does."""
    log = Backlog(end=103, step_s=0)
    session = await log.session()
    await session.round()
    assert log.copied == 100
    log.topic_id, log.end = "other", 203 if fetches else 103
    session._commit_s = time.monotonic() if fetches else 0.0
    with pytest.raises(LogMoved, match="chargebacks was deleted"):
        await session.round()
    assert log.copied == 100
