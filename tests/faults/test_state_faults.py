"""Faults of state, disk, limits and ownership, on whole workers and a real broker: a name, an exit code, nothing overwritten."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import sys
import time
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import crc32c
import libfaketime
import pytest
from aiokafka import AIOKafkaProducer

from stream.broker import _free_ports
from stream.owner_record import OwnerRecord
from stream.references import read_control, write_control
from stream.snapshot_format import decode_manifest, encode_manifest, parse_key

_spec = spec_from_file_location("fault_bench", Path(__file__).with_name("fault_bench.py"))
kit: Any = sys.modules.setdefault("fault_bench", module_from_spec(_spec))
if not hasattr(kit, "FaultBench"):
    _spec.loader.exec_module(kit)
assert_equal_to_recount, until = kit.bench_module.assert_equal_to_recount, kit.until


@pytest.fixture
def bench(kafka, prefix, tmp_path):
    return lambda **changes: kit.FaultBench(kafka.bootstrap_servers, prefix, tmp_path, **changes)


def state_topic(b: Any) -> str:
    return f"{b.prefix}state.collector"


def append(b: Any, topic: str, partition: int, key: bytes, value: bytes) -> None:
    async def send() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=b.servers)
        await producer.start()
        try:
            await producer.send_and_wait(topic, value, key=key, partition=partition)
        finally:
            await producer.stop()

    asyncio.run(send())


def newest_manifest(b: Any, partition: int) -> Any:
    """The newest manifest of one collector: of the highest epoch, the highest sequence."""
    found = []
    for record in b.read(state_topic(b)):
        key = parse_key(record.key)
        if record.partition == partition and record.value is not None and key is not None and key.kind == "m":
            found.append(((key.epoch, key.sequence), record.value))
    return decode_manifest(max(found)[1])


def version_99(data: bytes) -> bytes:
    """The same container in a format to come, with a right checksum."""
    start = data[:4] + struct.pack("<H", 99)
    return start + struct.pack("<I", crc32c.crc32c(start + data[10:])) + data[10:]


@pytest.mark.kafka
@pytest.mark.parametrize("row", [pytest.param("F22-F23-F24", id="F22-F23-F24-damaged-then-newer-state")])
def test_a_damaged_snapshot_is_passed_over_and_a_newer_one_is_refused(bench, row: str) -> None:
    assert row
    b = bench(partitions=2)
    ports = _free_ports(2, None)
    b.produce(b.events(3_000))
    with b.worker(ports[0]) as worker:
        worker.until_ready()
        b.settle(worker)
        worker.send(signal.SIGTERM)
        assert worker.wait(12) == 0
    manifest = newest_manifest(b, 0)
    following = replace(manifest, sequence=manifest.sequence + 1)
    damaged = bytearray(encode_manifest(following))
    damaged[4] ^= 0x40  # a flipped version byte is damage, not a newer version
    append(b, state_topic(b), 0, following.key, bytes(damaged))
    with b.worker(ports[0]) as worker:
        worker.until_ready()
        assert worker.metric("state_corruptions_total", stage="collector", partition=0) == 1
        assert worker.metric("state_corruptions_total") == 1
        b.produce(b.events(1_000))
        b.settle(worker)
        # F24: a worker of the next version joins, and has written a state that this one cannot read; then the states move
        manifest = newest_manifest(b, 0)
        following = replace(manifest, epoch=manifest.epoch + 1, sequence=0, writer="next.0", base=manifest.name)
        newer = version_99(encode_manifest(following))
        append(b, state_topic(b), 0, following.key, newer)
        with b.worker(ports[1]) as joins:  # its join makes the group assign anew: everything is restored
            until(lambda: worker.process.poll() is not None or joins.process.poll() is not None, 60, why=worker.log)
            refused = worker if worker.process.poll() is not None else joins
            assert refused.wait(12) == 1, refused.log()[-3000:]
            text = "NewerState: state of collector 0: container version 99 is not known here (known: 1)"
            assert text in refused.log()
            other = joins if refused is worker else worker
            assert other.wait(60) == 1, "the partition goes to the other one, which refuses it too"
            assert text in other.log()
    written = [r for r in b.read(state_topic(b)) if r.partition == 0]
    assert (written[-1].key, written[-1].value) == (following.key, newer), "nothing was written after it"
    started = time.monotonic()
    with b.worker(ports[0]) as worker:  # F23: the same at a start
        assert worker.wait(60) == 1
        assert text in worker.log()
    assert time.monotonic() - started < 60


@pytest.mark.kafka
@pytest.mark.parametrize("row", [pytest.param("F34", id="F34-two-deployments-one-prefix")])
def test_two_deployments_with_one_prefix_are_told_apart(bench, row: str) -> None:
    assert row
    b = bench(partitions=2)
    ports = _free_ports(2, None)
    b.produce(b.events(1_000))
    with b.worker(ports[0]) as worker:
        worker.until_ready()
        mine = OwnerRecord.decode(read_control(b.config).owner or b"")
        original = b.config_path.read_text()
        b.config_path.write_text(original.replace("monitors: 2", "monitors: 2\ndedup: false"))
        with b.worker(ports[1]) as stranger:
            assert stranger.wait(60) == 1, stranger.log()[-3000:]
            said = stranger.log()
        b.config_path.write_text(original)
        assert "at work with configuration " + mine.counting in said
        assert mine.cluster in said
        assert worker.process.poll() is None
        assert OwnerRecord.decode(read_control(b.config).owner or b"") == mine
        # the other way round: both started at once and the other one's record stands last
        write_control(b.config, "owner/workers", OwnerRecord(mine.cluster, "f" * 32).encode())
        assert worker.wait(30) == 1
        assert "configuration " + "f" * 32 in worker.log()
        assert mine.counting in worker.log()
    write_control(b.config, "owner/workers", OwnerRecord("another-cluster", mine.counting).encode())
    with b.worker(ports[0]) as worker:
        assert worker.wait(60) == 1
        assert f"made for cluster another-cluster, this is cluster {mine.cluster}" in worker.log()


def stamped(worker: Any) -> float:
    """When the worker's wall clock says that it has saved its first collector."""
    return float(worker.metric("snapshot_timestamp_seconds", stage="collector", partition=0))


@pytest.mark.kafka
@pytest.mark.parametrize("row", [pytest.param("F16", id="F16-wall-clock-jumps")])
def test_results_do_not_depend_on_the_wall_clock(bench, row: str, tmp_path) -> None:
    """The worker's wall clock jumps by three days, back and forth; the monotonic one is the machine's."""
    assert row
    b = bench()  # idle after a minute: a jump of the clock is none
    (port,) = _free_ports(1, None)
    clock = tmp_path / "clock"
    clock.write_text("+0d")
    environment = {
        "LD_PRELOAD": str(Path(libfaketime.__file__).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with b.worker(port, **environment) as worker:
        worker.until_ready()
        for jump in ("+3d", "-3d", "+1h", "+0d"):
            clock.write_text(jump)
            b.produce(b.events(1_500))
            b.settle(worker)
            assert worker.get("/live")[0] == worker.get("/ready")[0] == 200
            days = {"+3d": 3, "-3d": -3, "+1h": 1 / 24, "+0d": 0}[jump]
            until(lambda days=days: abs(stamped(worker) - time.time() - days * 86_400) < 600, 20, why=worker.log)
        assert worker.metric("decisions_total", kind="tick") == 0
        worker.send(signal.SIGTERM)
        assert worker.wait(12) == 0
        assert worker.log().count("again in") == 0
    b.drain()
    assert_equal_to_recount(b)
    assert not b.alerts()


LIMITS = {
    "disk": pytest.param("disk", id="F21-no-file-can-be-written"),
    "files": pytest.param("files", id="F32-64-file-descriptors"),
}


@pytest.mark.kafka
@pytest.mark.parametrize("row", LIMITS.values())
def test_a_worker_under_a_limit_counts_or_says_why(bench, row: str) -> None:
    """Without a file that can be written it works; with too few descriptors it works or says so, and never loops in silence."""
    b = bench(partitions=2)
    (port,) = _free_ports(1, None)
    b.produce(b.events(1_000))
    limit = "--fsize=0" if row == "disk" else "--nofile=64"
    through_a_pipe = (
        "bash",
        "-o",
        "pipefail",
        "-c",
        f'prlimit {limit} "$@" 2>&1 | cat; exit ${{PIPESTATUS[0]}}',
        "limited",
    )
    with b.worker(port, under=through_a_pipe) as worker:
        until(lambda: worker.get("/ready")[0] == 200 or worker.process.poll() is not None, 90, why=worker.log)
        assert worker.process.poll() is None, worker.log()[-3000:]
        b.settle(worker)
        for pid in kit.bench_module.children(worker.process):
            os.kill(pid, signal.SIGTERM)
        assert worker.wait(15) == 0, worker.log()[-3000:]
    b.drain()
    assert_equal_to_recount(b)


@pytest.mark.kafka
@pytest.mark.parametrize("row", [pytest.param("F32", id="F32-metrics-port-taken")])
def test_a_metrics_port_that_is_taken_is_named(bench, row: str) -> None:
    assert row
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with bench(partitions=1).worker(port) as worker:
            assert worker.wait(60) == 1
            assert f"metrics.port: nothing can listen on port {port}: Address already in use" in worker.log()
            assert "Traceback" not in worker.log()


@pytest.mark.parametrize(
    ("servers", "said"),
    [
        pytest.param("no-such-host.invalid:9092", "no-such-host.invalid", id="F32-name-not-known"),
        pytest.param("[::1]:1", "::1", id="F32-ipv6-only-refused"),
    ],
)
def test_a_broker_that_cannot_be_found_is_named(servers: str, said: str, tmp_path, run_cli) -> None:
    kit.bench_module.reference_file(tmp_path / "train.parquet", rows=2_000)
    (tmp_path / "monitor.yaml").write_text(
        f"kafka: {{bootstrap_servers: '{servers}'}}\ntopics: {{predictions: {{name: p}}}}\n"
        "models: {m: {reference: {file: train.parquet, time: timestamp}}}\n"
    )
    started = time.monotonic()
    done = run_cli("topics", "list", "--config", "monitor.yaml", cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - started < 30
