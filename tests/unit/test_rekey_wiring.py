"""Re-keying around its core: what may be configured, which topics and rights it needs, who copies, and what the state keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from stream.admin import _compare, _with_any_count, feedback_topics, joined_partitions, needed_topics
from stream.chunks import Plain, from_plain
from stream.cluster import TopicView
from stream.collector import Collector
from stream.config import Config, config_from
from stream.config_checks import check
from stream.config_errors import ConfigError
from stream.copied import originals
from stream.copy_lag import CopyLag
from stream.copy_session import WholeTopics
from stream.copying import copies_of
from stream.decode import decode
from stream.engine import RoleLogs
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
