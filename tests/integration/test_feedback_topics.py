"""Topics of feedback on the real broker: how many partitions they must have, one that is far ahead, and ones that are silent."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient

from load_tests import harness
from stream.panes import Marker, decode_record
from stream.supervisor import Exit

_spec = spec_from_file_location("feedback_bench", Path(__file__).with_name("feedback_bench.py"))
feedback_bench = sys.modules["feedback_bench"] = module_from_spec(_spec)
_spec.loader.exec_module(feedback_bench)
FeedbackBench, assert_performance = feedback_bench.FeedbackBench, feedback_bench.assert_performance
until, kill = feedback_bench.bench_module.until, feedback_bench.bench_module.kill
CAP = 10_000


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def outcomes(bench: FeedbackBench, stream: str) -> Counter[str]:
    """What the last marker of every source partition counts of one stream."""
    last: dict[int, Marker] = {}
    for record in bench.read(f"{bench.prefix}panes"):
        body = decode_record(record.value)
        if (
            isinstance(body, Marker)
            and body.stream.startswith(f"{stream}@")
            and body.edge_ms >= last.get(body.partition, body).edge_ms
        ):
            last[body.partition] = body
    assert len(last) == bench.partitions
    return sum((Counter(marker.counters) for marker in last.values()), Counter())


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("partitions", "command"),
    [
        (2, "kafka-topics.sh --alter --topic {} --partitions 4"),
        (6, "kafka-topics.sh --create --topic NAME --partitions 4"),
    ],
)
def test_other_partition_counts_are_refused_with_the_command_that_mends_them(
    kafka, prefix, tmp_path, partitions, command
):
    labels = kafka.create_topic(f"{prefix}in.labels", partitions)
    b = FeedbackBench(kafka.bootstrap_servers, prefix, tmp_path)
    b.send([each for each in b.made(500) if each[0] != labels])
    with b.running() as process:
        assert process.wait(90) == Exit.REFUSED
        said = process.log.read_text()
    assert f"topic {labels}: has {partitions} partitions, must have 4, as many as the predictions topic" in said
    assert command.format(labels) in said
    assert b.committed() == 0
    assert not b.read(f"{b.prefix}panes")
    if partitions > b.partitions:
        return
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=b.servers)) as admin:
        admin.create_partitions({labels: b.partitions})
    with b.running() as process:
        until(lambda: b.committed() == 500, why=lambda: process.log.read_text()[-3000:])


@pytest.mark.kafka
def test_feedback_that_is_far_ahead_is_held_back_and_none_of_it_is_lost(kafka, prefix, tmp_path):
    """Labels of 25,000 predictions are there before the predictions: more than twice the cap in each of two partitions' half."""
    settings = f"feedback: {{waiting_events_max: {CAP}}}\n"
    b = FeedbackBench(
        kafka.bootstrap_servers,
        prefix,
        tmp_path,
        partitions=2,
        settings=settings,
        port=free_port(),
        lateness_ms=20_000,
    )
    first, rest = b.made(1_000), b.made(25_000)
    b.send(first)
    b.send([each for each in rest if each[0] != b.topic])

    def held() -> bool:
        found = harness.metrics(b.port)
        waiting, lag = found.get("driftline_feedback_waiting_events", 0), found.get("driftline_feedback_lag_events", 0)
        assert waiting <= 4 * CAP
        return waiting > CAP and lag > 1_000

    for _ in range(2):  # the second starts from the state of the first, which is killed while it holds back
        with b.running() as process:
            until(held, why=lambda: (harness.metrics(b.port), process.log.read_text()[-3000:]))
            until(lambda: b.committed() == 1_000, why=lambda: process.log.read_text()[-3000:])
            kill(process.pid)
            process.wait(10)
    with b.running() as process:
        b.send([each for each in rest if each[0] == b.topic])
        until(
            lambda: b.committed(f"{b.prefix}in.labels") == len(b.read(f"{b.prefix}in.labels")),
            why=lambda: process.log.read_text()[-3000:],
        )
    b.drain()
    for stream in ("clicks", "labels"):
        found = outcomes(b, stream)
        assert found["overflow"] == found["late"] == found["waiting"] == 0
        assert found["consumed"] == found["matched"] + found["orphan"]
    assert_performance(b)


@pytest.mark.kafka
def test_silent_topics_of_feedback_hold_up_nothing_for_long(kafka, prefix, tmp_path):
    """No label at all, no click in one partition: values come while the workers run; what comes behind the ticks is late."""
    b = FeedbackBench(kafka.bootstrap_servers, prefix, tmp_path, idle="2s", lateness_ms=3_000)
    labels = f"{b.prefix}in.labels"
    made = b.made(6_000)
    silenced = [each for each in made if each[0] != labels and not (each[0] != b.topic and each[2] == 3)]
    late = [each for each in made if each[0] == labels]
    b.send(silenced)
    clicked = {
        json.loads(value)["prediction_id"] for topic, _, _, value in silenced if topic != b.topic and b"id-" in value
    }
    with b.running() as process:
        why = lambda: process.log.read_text()[-3000:]  # noqa: E731

        def counted(metric: str) -> int:
            own = (each["data"] for each in b.performance().values())
            return sum(
                each["counts"]["predictions"]
                for each in own
                if each["final"] and (each["metric"], each["horizon_ms"], each["segment"]) == (metric, 10_000, "all")
            )

        until(lambda: min(counted("ctr"), counted("accuracy")) > 3_000, why=why)
        before = b.performance()
        b.send(late)
        until(lambda: b.committed(labels) == len(late), why=why)
    b.drain()
    after = b.performance()
    assert before.items() <= after.items()
    assert counted("ctr") == counted("accuracy") == 6_000
    for body in before.values():
        data = body["data"]
        assert not data["incomplete"]
        if data["metric"] == "accuracy":
            assert data["counts"]["observed"] == 0
            assert data["undefined"]
    observed = sum(
        each["data"]["counts"]["observed"]
        for each in after.values()
        if each["data"]["final"]
        and (each["data"]["metric"], each["data"]["horizon_ms"], each["data"]["segment"]) == ("ctr", 10_000, "all")
    )
    assert 0 < observed <= len(clicked)
    found = outcomes(b, "labels")
    assert found["consumed"] == len(late)
    assert found["late"] > len(late) // 2
    assert found["waiting"] == 0
