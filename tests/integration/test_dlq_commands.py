"""Dead letters end to end on a real broker: written by a worker, counted, shown, retried once, refused again, mended."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from contextlib import closing

import pytest
from aiokafka import AIOKafkaProducer
from kafka import KafkaConsumer, TopicPartition
from typer.testing import CliRunner

from stream.admin import create_topics
from stream.cli import app
from stream.columns import Reject
from stream.config import Config
from stream.config_loader import load
from stream.deadletter import letter_writer
from stream.letters import RETRIES_MAX
from tests.integration.worker_bench import Bench, event

pytestmark = pytest.mark.kafka
CURSED = b'\x1b]0;owned\x07{"prediction_id": "\xc2\x9b31m"'
MANY = [(f"n{i % 7}", None if i % 5 == 0 else b"v%d" % i) for i in range(1000)]
"""B56: a thousand headers, names that repeat, null values."""


def produce(bench: Bench, records) -> None:
    """(value, key, headers) to partition 0, in order."""

    async def run() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=bench.servers)
        await producer.start()
        for value, key, headers in records:
            await producer.send_and_wait(bench.topic, value, key=key, headers=headers, partition=0)
        await producer.stop()

    asyncio.run(run())


@pytest.fixture
def cli(tmp_path, monkeypatch):
    monkeypatch.setenv("DRIFTLINE_CONFIG", str(tmp_path / "monitor.yaml"))
    return lambda *arguments: CliRunner().invoke(app, ["dlq", *arguments])


def letters(bench: Bench) -> list:
    records = [r for r in bench.read(f"{bench.prefix}dead-letters") if dict(r.headers).get("dlq.reason")]
    return sorted(records, key=lambda record: record.offset)


def good(bench: Bench, **changes) -> bytes:
    bench.number, bench.clock_ms = bench.number + 1, bench.clock_ms + 25
    return json.dumps(event(bench.number, bench.clock_ms, bench.r, **changes)).encode()


def test_letters_are_counted_shown_and_retried_once(kafka, prefix, tmp_path, cli):
    bench = Bench(kafka.bootstrap_servers, prefix, tmp_path, partitions=1)
    lost = json.loads(good(bench))
    del lost["prediction_id"]
    produce(bench, [(good(bench), b"k", []) for _ in range(300)])
    offset = 300
    produce(bench, [
        (json.dumps(lost).encode(), b"\xff\x00", [("trace", b"00-ab"), ("trace", b"\x1b[31m"), ("empty", None)]),
        (CURSED, None, []),
        (b"{", b"k", MANY),
        (b"[" + b" " * (70 << 10), b"k", []),
        (b"{", b"K" * (40 << 10), []),
        (b"{", b"k", [("driftline.attempt", b"%d" % RETRIES_MAX)]),
    ])  # fmt: skip
    bench.drain()
    first = letters(bench)
    assert [dict(r.headers)["dlq.offset"] for r in first] == [b"%d" % (offset + i) for i in range(6)]

    # headers as promised; B56 bounded and counted
    headers = first[0].headers
    facts = dict(headers)
    assert (facts["dlq.timestamp_type"], facts["dlq.attempt"], facts["dlq.payload"]) == (b"CreateTime", b"0", b"full")
    assert [h for h in headers if h[0].startswith("orig.")] == [
        ("orig.trace", b"00-ab"), ("orig.trace", b"\x1b[31m"), ("orig.empty", None),
    ]  # fmt: skip
    assert [h for h in first[2].headers if h[0].startswith("orig.")] == [(f"orig.{n}", v) for n, v in MANY[:100]]
    assert dict(first[2].headers)["dlq.headers_dropped"] == b"900"
    assert len(first[3].value) == 64 << 10
    assert len(first[4].key) == 16 << 10
    assert dict(first[5].headers)["dlq.attempt"] == b"%d" % RETRIES_MAX

    # ls
    listed = cli("ls", "-o", "json")
    assert listed.exit_code == 0, listed.stderr
    body = json.loads(listed.stdout)
    assert {(row["reason"], row["topic"], row["partition"], row["letters"]) for row in body["rows"]} == {
        ("malformed_json", bench.topic, 0, 5), ("missing_field", bench.topic, 0, 1),
    }  # fmt: skip
    assert json.loads(cli("ls", "--reason", "missing_field", "-o", "json").stdout)["letters"] == 1
    assert json.loads(cli("ls", "--partition", "1", "-o", "json").stdout)["letters"] == 0
    assert json.loads(cli("ls", "--since", "1h", "-o", "json").stdout)["letters"] == 6
    assert json.loads(cli("ls", "--since", "2190-01-01T00:00:00Z", "-o", "json").stdout)["letters"] == 0
    assert len(json.loads(cli("ls", "--limit", "1", "-o", "json").stdout)["rows"]) == 1
    assert "missing_field" in cli("ls").stdout
    for wrong in (
        ("ls", "--since", "soon"),
        ("ls", "--reason", "nothing"),
        ("show", "x"),
        ("retry",),
        ("retry", "0/1", "--all"),
    ):
        assert cli(*wrong).exit_code == 2, wrong

    # show: B24, nothing that a terminal obeys
    text = cli("show", f"{bench.topic}/0/{offset + 1}/0").stdout
    assert r"\x1b]0;owned\x07" in text
    assert r"\x9b31m" in text
    assert "\x1b" not in text + cli("show", f"0/{first[0].offset}").stdout
    assert cli("show", "0/99999999").exit_code == 1

    # retry: what is not whole is refused by name, what is goes out once
    one = f"{bench.topic}/0/{offset}/0"
    dry = cli("retry", one, "--dry-run")
    assert dry.exit_code == 0
    assert "would retry" in dry.stdout
    assert len(bench.read(bench.topic)) == offset + 6
    done = cli("retry", "--all")
    assert done.exit_code == 1  # some are refused
    assert f"retried {one} as attempt 1 to {bench.topic}/0/{offset + 6}" in done.stdout
    assert "payload truncated" in done.stdout
    assert "900 of its headers" in done.stdout
    assert "key was cut" in done.stdout
    assert f"attempt {RETRIES_MAX}: refused" in done.stdout
    assert "2 retried, 0 were before, 4 refused" in done.stdout
    again = cli("retry", "--all")
    assert "0 retried, 2 were before, 4 refused" in again.stdout
    assert cli("retry", one).exit_code == 0
    published = sorted(bench.read(bench.topic), key=lambda r: r.offset)[offset + 6 :]
    assert [(r.value, r.key) for r in published] == [(r.value, r.key) for r in first[:2]]
    assert published[0].headers == (
        ("driftline.attempt", b"1"), ("driftline.dead_letter", one.encode()),
        ("trace", b"00-ab"), ("trace", b"\x1b[31m"), ("empty", None),
    )  # fmt: skip
    assert published[0].timestamp == int(facts["dlq.timestamp"])
    marks = [json.loads(r.value) for r in bench.read(f"{prefix}dead-letters") if "dlq.mark" in dict(r.headers)]
    assert Counter(mark["state"] for mark in marks) == {"retrying": 2, "retried": 2}
    assert all("@" in mark["by"] and mark["at"].endswith("Z") for mark in marks)

    # refused again: the next attempt, and the same original headers
    bench.drain()
    second = letters(bench)[6:]
    assert [dict(r.headers)["dlq.attempt"] for r in second] == [b"1", b"1"]
    assert [h for h in second[0].headers if h[0].startswith("orig.")] == [
        h for h in headers if h[0].startswith("orig.")
    ]


def test_a_retry_that_was_cut_off_is_finished_not_repeated(kafka, prefix, tmp_path, cli, monkeypatch):
    from stream import letter_desk

    bench = Bench(kafka.bootstrap_servers, prefix, tmp_path, partitions=1)
    produce(bench, [(good(bench), b"k", []) for _ in range(5)] + [(b"{", b"k", []), (b"{2", b"k", [])])
    bench.drain()
    real = letter_desk._Desk._mark

    def cut(self, wanted, marks):
        if marks and marks[0].state == "retried":
            raise KeyboardInterrupt
        real(self, wanted, marks)

    with monkeypatch.context() as patch:
        patch.setattr(letter_desk._Desk, "_mark", cut)
        assert cli("retry", f"{bench.topic}/0/5/0").exit_code != 0  # published, and nobody wrote it down
    assert len(bench.read(bench.topic)) == 8
    assert "retried 1" not in cli("ls").stdout
    done = cli("retry", "--all")
    assert done.exit_code == 0, done.stdout
    assert "2 retried, 0 were before" in done.stdout
    assert f"to {bench.topic}/0/7" in done.stdout
    assert [r.value for r in sorted(bench.read(bench.topic), key=lambda r: r.offset)[7:]] == [b"{", b"{2"]


def refused_feedback(servers: str, prefix: str, tmp_path) -> tuple[Config, list[str]]:
    """Topics with feedback, and a letter of one record of predictions, of two of labels (one a retraction) and of a topic that is
    configured no more. Returns their ids, too.
    """
    path = tmp_path / "monitor.yaml"
    path.write_text(
        f"kafka: {{bootstrap_servers: '{servers}'}}\nprefix: {prefix}\n"
        f"topics: {{predictions: {prefix}in, labels: {prefix}labels}}\n"
        "models: {m: {reference: {first: 5000}, targets: {x: {kind: numeric}}, "
        "performance: {horizons: [1h], metrics: [accuracy]}}}\n"
    )
    config = load(path).config
    create_topics(config, with_inputs=2)
    places = [(f"{prefix}in", 0, b"{"), (f"{prefix}labels", 1, b"["), (f"{prefix}labels", 1, None), ("clicks", 1, b"[")]

    async def run() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=servers)
        await producer.start()
        for at, (topic, partition, value) in enumerate(places):
            write = letter_writer(topic=topic, partition=partition, config_hash="c", app_version="1")
            letter = write(Reject(at, 0, "bad_id", "", "", b"k%d" % at, value, 1_795_342_503_120 + at))
            await producer.send_and_wait(
                f"{prefix}dead-letters", letter.value, key=letter.key, headers=list(letter.headers), partition=partition
            )
        await producer.stop()

    asyncio.run(run())
    return config, [f"{topic}/{partition}/{at}/0" for at, (topic, partition, _) in enumerate(places)]


def records_of(config: Config, topic: str) -> list:
    consumer = KafkaConsumer(bootstrap_servers=config.kafka.bootstrap_servers, auto_offset_reset="earliest")
    with closing(consumer):
        places = [TopicPartition(topic, p) for p in range(2)]
        consumer.assign(places)
        consumer.seek_to_beginning()
        found: list = []
        while any(consumer.position(place) < end for place, end in consumer.end_offsets(places).items()):
            found += [record for records in consumer.poll(500).values() for record in records]
    return found


def test_letters_of_feedback_go_back_to_their_own_topics(kafka, prefix, tmp_path, cli):
    config, ids = refused_feedback(kafka.bootstrap_servers, prefix, tmp_path)
    dry = cli("retry", ids[1], "--dry-run")
    assert f"as attempt 1 to {prefix}labels/1" in dry.stdout
    assert records_of(config, f"{prefix}labels") == []
    done = cli("retry", "--all")
    assert done.exit_code == 1
    assert f"came from clicks, the configuration reads {prefix}in, {prefix}labels" in done.stdout
    assert "3 retried, 0 were before, 1 refused" in done.stdout
    labels = records_of(config, f"{prefix}labels")
    wanted = [(1, at, b"k%d" % at, value, 1_795_342_503_120 + at) for at, value in ((1, b"["), (2, None))]
    assert [(r.partition, int(dict(r.headers)["driftline.dead_letter"].split(b"/")[2]), r.key, r.value, r.timestamp)
            for r in labels] == wanted  # fmt: skip
    assert [(r.partition, r.value) for r in records_of(config, f"{prefix}in")] == [(0, b"{")]
    assert "0 retried, 3 were before, 1 refused" in cli("retry", "--all").stdout
    assert len(records_of(config, f"{prefix}labels")) == 2


def test_a_retry_of_feedback_that_was_cut_off_is_finished_not_repeated(kafka, prefix, tmp_path, cli, monkeypatch):
    from stream import letter_desk

    config, _ = refused_feedback(kafka.bootstrap_servers, prefix, tmp_path)
    real = letter_desk._Desk._mark

    def cut(self, wanted, marks):
        if marks and marks[0].state == "retried":
            raise KeyboardInterrupt
        real(self, wanted, marks)

    with monkeypatch.context() as patch:
        patch.setattr(letter_desk._Desk, "_mark", cut)
        assert cli("retry", "--all").exit_code != 0
    assert "3 retried, 0 were before" in cli("retry", "--all").stdout
    assert len(records_of(config, f"{prefix}labels")) == 2
    assert len(records_of(config, f"{prefix}in")) == 1


@pytest.mark.parametrize(
    ("policy", "kinds"),
    [
        pytest.param("{payload: hash}", ["hash", "hash"], id="B69-hash"),
        pytest.param("{redact: [/features/email]}", ["redacted", "hash"], id="B69-redact"),
    ],
)
def test_a_secret_does_not_get_into_the_topic(kafka, prefix, tmp_path, cli, policy, kinds):
    bench = Bench(kafka.bootstrap_servers, prefix, tmp_path, partitions=1, settings=f"dead_letters: {policy}\n")
    secret = f"ada-{os.getpid()}@example.org".encode()
    spoilt = good(bench, features={"email": secret.decode(), "amount": 1.5}, prediction_id=None)
    produce(bench, [(good(bench), b"k", []) for _ in range(5)] + [(spoilt, b"k", []), (spoilt[:-9], b"k", [])])
    bench.drain()
    found = letters(bench)
    assert [dict(r.headers)["dlq.payload"].decode() for r in found] == kinds
    for record in found:
        everything = (record.value or b"") + b"".join(value or b"" for _, value in record.headers)
        assert secret not in everything
        assert dict(record.headers)["dlq.value_length"].isdigit()
    refused = cli("retry", "--all")
    assert refused.exit_code == 1
    assert "0 retried, 0 were before, 2 refused" in refused.stdout
