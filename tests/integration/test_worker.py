"""Whole workers on the real broker: exact under compressions, bad input and kill -9; stops, ticks and switches."""

from __future__ import annotations

import http.client
import signal
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import orjson
import psutil
import pytest
from kafka.admin import KafkaAdminClient, NewTopic

from stream.broker import _free_ports
from stream.journal import fold
from stream.preflight import build_from_file
from stream.references import active_references, promote, rollback, store

_spec = spec_from_file_location("worker_bench", Path(__file__).with_name("worker_bench.py"))
bench_module = sys.modules["worker_bench"] = module_from_spec(_spec)
_spec.loader.exec_module(bench_module)
Bench, assert_equal_to_recount = bench_module.Bench, bench_module.assert_equal_to_recount
children, kill, until = bench_module.children, bench_module.kill, bench_module.until


@pytest.fixture
def bench(kafka, prefix, tmp_path):
    return lambda **changes: Bench(kafka.bootstrap_servers, prefix, tmp_path, **changes)


def supervised(bench, workers: int) -> list[str]:
    text = (
        "import sys\nfrom stream.supervisor import Supervisor, worker_command\n"
        f"base = worker_command({str(bench.config_path)!r})\n"
        f"command = lambda i: [*base(i), '--snapshot-seconds', '1']\n"
        f"sys.exit(Supervisor(command, {workers}, backoff_first_s=.2).run())"
    )
    return [sys.executable, "-c", text]


@pytest.mark.kafka
def test_a_killed_worker_loses_nothing_and_counts_nothing_twice(bench):
    b = bench(settings="idle_timeout: 10m\n")  # the recount knows no ticks
    b.produce(b.events(12_000))
    with b.running(command=supervised(b, 2)) as supervisor:
        until(lambda: b.committed() > 0, why=lambda: supervisor.log.read_text()[-3000:])
        first = children(supervisor)
        assert len(first) == 2
        b.produce(b.events(4_000))
        kill(first[0])
        records = b.events(4_000)
        b.produce(records)
        total = len(b.read(b.topic))
        until(lambda: b.committed() == total, why=lambda: (b.committed(), total, supervisor.log.read_text()[-3000:]))
        assert set(children(supervisor)) != set(first)
        assert "CRASHED" not in supervisor.log.read_text()  # as a worker does that is kept out of the group
        supervisor.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert supervisor.wait(15) == 0, supervisor.log.read_text()[-3000:]
        assert time.monotonic() - started < 13
    b.produce(b.events(2_000))
    b.drain()
    assert_equal_to_recount(b)


@pytest.mark.kafka
def test_a_worker_shows_itself_on_loopback_only_and_stops_in_order(bench):
    (port,) = _free_ports(1, None)
    b = bench(settings=f"metrics: {{port: {port}}}\n")
    b.produce(b.events(3_000))
    with b.running() as process:

        def get(path: str) -> tuple[int, str]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                return response.status, response.read().decode()
            except OSError:
                return 0, ""
            finally:
                connection.close()

        total = len(b.read(b.topic))

        def consumed() -> int:
            lines = get("/metrics")[1].splitlines()
            return sum(int(float(x.split()[-1])) for x in lines if x.startswith("driftline_consumed_events_total{"))

        until(lambda: consumed() == total, why=lambda: (consumed(), total, process.log.read_text()[-3000:]))
        assert get("/live")[0] == 200
        assert get("/ready")[0] == 200
        listening = [c.laddr for c in psutil.Process(process.pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", port)]
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(12) == 0, process.log.read_text()[-3000:]
        assert time.monotonic() - started < 10
    assert b.committed() == total  # the last snapshot was taken
    with b.running() as process:
        until(lambda: get("/ready")[0] == 200, why=lambda: process.log.read_text()[-3000:])
        while process.poll() is None:  # the first is taken in order, the next ends it at once
            process.send_signal(signal.SIGINT)
            time.sleep(0.005)
        assert process.returncode == 128 + signal.SIGINT, process.log.read_text()[-3000:]


@pytest.mark.kafka
def test_an_idle_partition_ticks_and_another_reference_comes_into_force_at_an_edge(bench):
    b = bench(partitions=2, settings="idle_timeout: 1s\n")
    with b.running() as process:
        log = lambda: process.log.read_text()[-3000:]  # noqa: E731
        b.produce([(0, value) for _, value in b.events(3_000) if value], compressions=(None,))
        # partition 1 is empty: without its ticks no window would ever close
        until(lambda: len(b.windows()) >= 1, why=log)
        old = active_references(b.config)["m"]
        bench_module.reference_file(b.folder / "train.parquet", seed=2)
        profile = build_from_file(b.config, "m")
        store(b.config, profile)
        assert promote(b.config, "m", profile.id).history == (old.reference,)
        plans = lambda: [  # noqa: E731
            d
            for decisions in fold([r.value for r in b.read(f"{b.prefix}journal")]).values()
            for d in decisions
            if d.kind == "plan"
        ]
        until(lambda: len(plans()) == 2 * b.partitions, why=log)  # the first and the new one, of every partition
        b.clock_ms += 600_000  # far above the floor that ticking by the wall clock has reached
        b.produce([(0, value) for _, value in b.events(3_000) if value], compressions=(None,))
        until(lambda: profile.id in {window["series"] for window in b.windows()}, why=log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(12) == 0
    assert [window["series"] for window in b.windows()] == sorted(
        (window["series"] for window in b.windows()), key=[old.reference, profile.id].index
    )
    assert rollback(b.config, "m").reference == old.reference


@pytest.mark.kafka
def test_a_topic_that_was_made_anew_is_refused_by_name(bench, kafka):
    b = bench(partitions=1)
    b.produce(b.events(500), compressions=(None,))
    b.drain()
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    admin.delete_topics([b.topic])
    until(lambda: b.topic not in admin.list_topics())
    admin.create_topics([NewTopic(b.topic, 1, 1)])
    admin.close()
    with b.running() as process:
        assert process.wait(150) == 1
        text = process.log.read_text()
    assert "InputLost" in text
    assert "Traceback" not in text


@pytest.mark.kafka
def test_topics_that_are_missing_are_named_before_anything_starts(bench, kafka):
    b = bench(partitions=1)
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    admin.delete_topics([f"{b.prefix}windows"])
    until(lambda: f"{b.prefix}windows" not in admin.list_topics())
    admin.close()
    with b.running() as process:
        assert process.wait(150) == 1
        assert f"{b.prefix}windows: driftline topics create" in process.log.read_text()


def test_alerts_and_windows_are_counted_as_they_are_acknowledged():
    from stream.metrics import Metrics
    from stream.output_counts import count_output
    from stream.stage import Output

    metrics = Metrics()
    alert = orjson.dumps({"type": "driftline.alert.opened.v1", "data": {"model": "m", "kind": "feature_drift"}})
    for output in (
        Output("windows", b"m", b"{}"),
        Output("alerts", b"m", alert),
        Output("panes", b"m", b""),
        Output("panes", None, b"", barrier=True),
    ):
        count_output(metrics, 3, output)
    assert metrics.get("windows_total", model="m") == 1
    assert metrics.get("alerts_total", model="m", kind="feature_drift", transition="opened") == 1
    assert metrics.get("panes_total", partition=3) == metrics.get("markers_total", partition=3) == 1
