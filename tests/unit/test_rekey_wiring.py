"""Re-keying around its core: what may be configured, which topics and rights it needs, who copies, and what the state keeps."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError
from aiokafka.structs import OffsetAndMetadata

from stream import copy_session
from stream.admin import _compare, _with_any_count, feedback_topics, joined_partitions, needed_topics
from stream.chunks import Plain, from_plain
from stream.cluster import TopicView
from stream.collector import Collector
from stream.config import Config, config_from
from stream.config_checks import check
from stream.config_errors import ConfigError
from stream.copied import originals
from stream.copier import Copier
from stream.copy_lag import CopyLag
from stream.copy_session import LogLost, Session, WholeTopics, _log_of
from stream.copying import copies_of
from stream.damage import Damage
from stream.decode import decode
from stream.engine import RoleLogs
from stream.metrics import Metrics
from stream.planning import collector_hash, collector_plan
from stream.rights import Operation, Use, rights
from stream.topics import TopicRole
from stream.watch import IdleRule, MarkerWatch


def config(labels: Any = "labels", predictions: Any = "predictions", **changes: Any) -> Config:
    model = {"reference": {"first": 5000}, "targets": {"amount": {"kind": "numeric"}}}
    return config_from(
        {
            "kafka": {"bootstrap_servers": "unused:9092"},
            "topics": {"predictions": predictions, "labels": labels},
            "models": {"fraud": model | {"performance": {"horizons": ["1m"], "metrics": ["accuracy"]}}},
        }
        | changes
    )


REKEYED = {"name": "chargebacks", "rekey": True}


def test_a_topic_is_read_as_its_copies_and_named_as_itself() -> None:
    found = config(REKEYED | {"mapping": {"prediction_id": "scored.id"}}, {"name": "scored", "rekey": "request.id"})
    assert found.rekeyed() == {TopicRole.PREDICTIONS: ("request", "id"), TopicRole.LABELS: ("scored", "id")}
    assert (found.topic(TopicRole.LABELS), found.source(TopicRole.LABELS)) == (
        "chargebacks", "driftline.rekeyed.chargebacks"
    )  # fmt: skip
    assert found.source(TopicRole.PREDICTIONS) == "driftline.rekeyed.scored"
    assert TopicRole.REKEYED not in found.roles()
    assert config().rekeyed() == {}
    assert config().source(TopicRole.LABELS) == "labels"


@pytest.mark.parametrize(
    ("labels", "code", "said"),
    [
        (REKEYED | {"rekey": "a..b"}, "DL-C026", "'a..b' is no path"),
        (REKEYED | {"rekey": ""}, "DL-C026", "is no path"),
        (REKEYED | {"rekey": "=constant"}, "DL-C026", "is no path"),
        (REKEYED | {"rekey": 3}, "DL-C011", ""),
    ],
)
def test_what_cannot_be_rekeyed_is_refused(labels: dict[str, Any], code: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config(labels, {"name": "predictions", "rekey": True})
    assert any(problem.code == code and said in problem.read for problem in refused.value.problems), refused.value


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("x" * 200, ("DL-C014", ("topics", "labels", "rekey"))),
        ("driftline.rekeyed.predictions", ("DL-C021", ("topics", "predictions", "rekey"))),
    ],
)
def test_names_of_copies_must_be_possible_and_free(name: str, found: tuple[str, tuple[str, ...]]) -> None:
    prefix = {"prefix": "p" * 100} if len(name) == 200 else {}
    own = config(REKEYED | {"name": name}, {"name": "predictions", "rekey": True}, **prefix)
    assert found in [problem[:2] for problem in check(own)]
    fits = config(REKEYED, {"name": "predictions", "rekey": True})
    assert not list(check(fits))


async def test_both_the_copies_and_their_topic_are_watched() -> None:
    own = config(REKEYED)
    asked = "chargebacks", "driftline.rekeyed.chargebacks", "predictions"

    class Brokers:
        async def topics(self, names: Any) -> dict[str, TopicView]:
            assert set(asked) < set(names)
            return {name: TopicView("id", 1) for name in names if name != self.gone}

    cluster: Any = Brokers()
    for gone, role in zip(asked, ("rekeyed.labels", "labels", "predictions"), strict=True):
        cluster.gone = gone
        logs = RoleLogs(cast(Any, None), cluster, own)
        assert set(own.watched()) - set(await logs.topics()) == {role}
    assert "rekeyed.labels" not in config().watched()


def test_turning_it_on_is_another_collector() -> None:
    def named(own: Config) -> str:
        return collector_hash(own, collector_plan(own, {"fraud": None})[0])

    topics = ("labels", {"name": "labels", "rekey": True}, {"name": "labels", "rekey": "a"})
    assert len({named(config(topic)) for topic in topics}) == 3
    assert named(config()) == named(config({"name": "labels", "rekey": False}))


def test_copies_have_topics_and_rights() -> None:
    own = config(REKEYED)
    (copies,) = [topic for topic in needed_topics(own, 6) if topic.role is TopicRole.REKEYED]
    assert (copies.name, copies.partitions) == ("driftline.rekeyed.chargebacks", 6)
    assert copies.settings["cleanup.policy"] == "delete"
    assert not [topic for topic in needed_topics(config(), 6) if topic.role is TopicRole.REKEYED]
    (labels,) = feedback_topics(own, 6)
    assert _compare(labels, 2, {}, 6).difference == "partitions"
    assert _with_any_count(_compare(labels, 2, {}, 6)).difference is None
    assert _with_any_count(_compare(labels, None, {}, 6)).difference == "missing"
    assert _compare(copies, 5, copies.settings, 6).difference == "partitions"
    assert _compare(copies, 6, copies.settings | {"max.message.bytes": "1048588"}, 6).difference == "policy"
    granted = {(right.resource, right.name): right.operations for right in rights(own, Use.RUN)}
    assert set(granted["topic", copies.name]) >= {Operation.READ, Operation.WRITE}
    assert granted["group", "driftline.rekey"] == (Operation.READ,)
    assert granted["topic", "chargebacks"] == (Operation.READ,)
    assert ("group", "driftline.rekey") not in {(right.resource, right.name) for right in rights(config(), Use.RUN)}


def test_partitions_are_those_of_the_copies_once_there_are_any() -> None:
    own = config(predictions={"name": "scored", "rekey": True})
    assert joined_partitions(own, {"scored": 3, "driftline.rekeyed.scored": None}) == 3
    assert joined_partitions(own, {"scored": 9, "driftline.rekeyed.scored": 3}) == 3
    assert joined_partitions(config(), {"predictions": 4}) == 4


def test_a_topic_goes_to_one_member_whole_and_topics_in_turn() -> None:
    cluster = SimpleNamespace(partitions_for_topic={"a": {0, 1, 2}, "b": {1, 0}}.get)
    members = {name: SimpleNamespace(subscription=["a", "b", "gone"]) for name in ("m2", "m1", "m3")}
    given = WholeTopics.assign(cluster, members)
    assert {name: own.assignment for name, own in given.items()} == {
        "m1": [("a", [0, 1, 2])], "m2": [("b", [0, 1])], "m3": []
    }  # fmt: skip


@pytest.mark.parametrize(("metadata", "told"), [('["id", 2]', ("id", 2)), ("", ("", 0)), ("somebody", ("", 0))])
def test_commits_of_others_tell_nothing(metadata: str, told: tuple[str, int]) -> None:
    assert _log_of(metadata) == told


def test_lag_is_since_when_everything_is_copied() -> None:
    lag = CopyLag()
    assert lag.is_behind(0.0, 10.0)
    lag.see({0: 5, 1: 5}, {0: 5, 1: 4}, 100.0)
    assert (lag.events, lag.as_of_s) == (1, None)
    lag.see({0: 9, 1: 9}, {0: 5, 1: 5}, 103.0)  # what was there at 100 is copied
    assert (lag.events, lag.as_of_s) == (8, 100.0)
    assert not lag.is_behind(109.0, 10.0)
    assert lag.is_behind(111.0, 10.0)
    lag.see({0: 9, 1: 9}, {0: 9, 1: 9}, 120.0)
    assert (lag.events, lag.as_of_s) == (0, 120.0)


def test_a_log_that_only_waits_for_its_copies_is_not_idle() -> None:
    watch = MarkerWatch(1, {0: 50_000}, {0: 50_000})
    rule = IdleRule(watch, 10.0, 0, 1_000)
    rule.see({0: 3}, 100.0)
    rule.see({0: 3}, 111.0, growing=True)
    assert rule.tick_ms(0, 3, 115.0) is None
    assert rule.tick_ms(0, 3, 121.5) == 60_000


def collector(own: Config) -> Collector:
    plan, _ = collector_plan(own, {"fraud": None})
    return Collector(
        0, plan, monitors=1, topic="predictions", config_hash="c", app_version="1",
        feedback_topics={"labels": "chargebacks"}, copied_to={"predictions": "p-copies", "labels": "l-copies"},
    )  # fmt: skip


def test_what_was_seen_is_in_the_state_and_repeats_are_in_no_other_counter() -> None:
    own = config(REKEYED, {"name": "predictions", "rekey": True})
    layout = collector_plan(own, {"fraud": None})[1]
    stamp = "2026-11-22T10:00:00Z"
    values = [
        json.dumps({"prediction_id": str(n), "model": "fraud", "timestamp": stamp, "features": {}}).encode()
        for n in range(6)
    ]
    source = from_plain([
        Plain(n, 1_795_342_503_120, b"customer", value, (), n, n + 1) for n, value in enumerate([*values, b"{torn"])
    ])  # fmt: skip
    copies = list(copies_of(source, np.arange(7), ("prediction_id",), 1, (4, 77)))
    internal = [
        Plain(at, 0, copy.key, copy.value, copy.headers, at, at + 1)
        for at, copy in enumerate([*copies[:5], *copies[2:]])
    ]

    def feed(state: Collector, part: list[Plain]) -> None:
        seen = state.copied.get("predictions")
        records, told = originals(from_plain(part), {} if seen is None else seen.marks)
        columns = decode(records, layout)
        state.apply("predictions", replace(columns, copies=told))

    first = collector(own)
    feed(first, internal[:6])
    state = collector(own)
    state.load(first.full_blobs())
    assert state.copied == first.copied
    feed(state, internal[6:])
    counters = state.accounting()
    assert (counters.consumed, counters.applied, counters.dead_letters, counters.duplicates) == (7, 6, 1, 0)
    assert state.copied["predictions"].repeats == 3
    assert state.copied["predictions"].marks == {(77, 4): 6}
    (letter,) = [dict(output.headers) for output in state.outbox if output.topic == TopicRole.DEAD_LETTERS]
    assert (letter["dlq.topic"], letter["dlq.partition"], letter["dlq.offset"]) == (b"predictions", b"4", b"6")


def test_a_state_of_before_has_seen_nothing() -> None:
    own = config()
    state = collector(own)
    state.saved.changed = True
    again = collector(own)
    again.load(state.full_blobs())
    assert again.copied == {}


@pytest.mark.parametrize(
    ("topic_id", "end", "said"), [("other", 90, "was deleted and made again"), ("id", 40, "has lost its end")]
)
def test_a_log_that_is_not_the_one_that_was_copied_is_refused_or_begun_anew(topic_id: str, end: int, said: str) -> None:
    place, committed = TopicPartition("chargebacks", 0), OffsetAndMetadata(50, '["id", 0]')
    for loss in ("refuse", "reset"):
        session = Session.__new__(Session)
        session._config, session._logs = config(REKEYED, on_data_loss=loss), {}
        if loss == "refuse":
            with pytest.raises(LogLost, match=said):
                session._position(place, committed, topic_id, (3, end))
        else:
            assert session._position(place, committed, topic_id, (3, end)) == 3
            assert session._logs[place] == (topic_id, 1)


class Group:
    """What a consumer group and one partition's log of 3 to `end` say; a client that begins is a Session."""

    def __init__(self, end: int) -> None:
        self.place, self.end, self.topic_id, self.fenced = TopicPartition("chargebacks", 0), end, "id", False
        self.committed = {self.place: OffsetAndMetadata(50, '["id", 0]')}
        self.position, self._coordinator = -1, self

    async def topics(self, names: Any) -> dict[str, TopicView]:
        return {name: TopicView(self.topic_id, 1) for name in names}

    async def beginning_offsets(self, places: Any) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 3)

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
        session._config, session._logs, session._waiting = config(REKEYED, on_data_loss="reset"), {}, {}
        session._cluster = session.consumer = self
        session._assigned = frozenset([self.place])
        await session._begin(session._assigned)
        return cast(Session, session)


async def test_that_a_log_was_begun_anew_is_known_to_whoever_comes_next() -> None:
    """Also where it has grown meanwhile beyond what was copied of the one before."""
    group = Group(end=40)
    first = await group.begin()
    assert (group.position, first._logs[group.place]) == (3, ("id", 1))
    group.end = 60
    second = await group.begin()  # nothing was copied
    assert (group.position, second._logs[group.place]) == (3, ("id", 1))
    assert first._place("chargebacks", 0) == second._place("chargebacks", 0)
    assert second._waiting["chargebacks"].positions == {0: 3}


async def test_nothing_of_a_log_that_was_begun_anew_is_copied_before_that_is_known() -> None:
    group = Group(end=40)
    group.fenced = True
    session = await group.begin()
    assert not session._waiting
    assert session._assigned == {group.place}


class Backlog(Group):
    """A log of `end` events, fetched at once; a step of copies takes `step_s`."""

    def __init__(self, end: int, step_s: float) -> None:
        super().__init__(end)
        self.step_s, self.now_s, self.copied = step_s, 0.0, 0
        self._subscription = SimpleNamespace(fetch_context=nullcontext)
        self.committed = {}

    def check_errors(self) -> None: ...

    async def getmany(self, *places: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[Plain]]:
        del timeout_ms
        return {place: [Plain(i, 1_000, None, b"{}", (), i, i + 1) for i in range(3, self.end)] for place in places}

    async def write(self, _topic: str, _partition: int, copies: Sequence[Any]) -> None:
        self.now_s += self.step_s
        self.copied += len(copies)

    async def session(self) -> Session:
        session: Any = await self.begin()
        session._keys = session._config.rekeyed()
        session._roles = {session._config.topic(role): role for role in session._keys}
        session._partitions, session._metrics, session._lock = 1, Metrics(), asyncio.Lock()
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


@pytest.mark.parametrize(("committed", "drained"), [(39, False), (40, True), (45, True), (46, False)])
async def test_a_drain_waits_for_copies_and_not_for_those_of_a_log_that_is_gone(committed: int, drained: bool) -> None:
    """There were 40 records at the first call, 45 at the second."""
    copier: Any = Copier.__new__(Copier)
    copier.roles, copier._goal, copier._session = {"chargebacks": TopicRole.LABELS}, None, object()
    place, ends = TopicPartition("chargebacks", 0), iter([40, 45])

    async def found() -> dict[TopicPartition, int]:
        return {place: next(ends)}

    async def known() -> dict[TopicPartition, int]:
        return {place: committed}

    copier._ends, copier._committed = found, known
    assert await copier.drained() is drained
