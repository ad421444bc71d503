"""Faults of the broker and of its topics, on whole workers: gone, killed, emptied, made anew, grown, absent. Rows F4-F20."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import sys
import time
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from stream.broker import Broker, free_port
from stream.journal import fold

_spec = spec_from_file_location("fault_bench", Path(__file__).with_name("fault_bench.py"))
kit: Any = sys.modules.setdefault("fault_bench", module_from_spec(_spec))
if not hasattr(kit, "FaultBench"):
    _spec.loader.exec_module(kit)
assert_equal_to_recount, until = kit.bench_module.assert_equal_to_recount, kit.until

GONE_S = 15.0  # longer than a session; 30 s and 10 min: python -m load_tests.faults F4-30, F4
BACK_S = 5.0  # promises.md, F4
STALLED_S = 3.0
START_S = 150.0  # patience with a busy machine, no promise


@pytest.fixture(scope="module")
def broker():
    """One broker of this module's own: others must not see it die."""
    with Broker() as running:
        yield running


@pytest.fixture
def bench(broker, prefix, tmp_path):
    return lambda **changes: kit.FaultBench(broker.bootstrap_servers, prefix, tmp_path, **changes)


@contextlib.contextmanager
def admin(bench):
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=bench.servers)) as client:
        yield client


def make_anew(bench, topic: str, partitions: int) -> None:
    with admin(bench) as client:
        client.delete_topics([topic])
        until(lambda: topic not in client.list_topics())
        client.create_topics({topic: {"num_partitions": partitions, "replication_factor": 1}}, wait_for_metadata=True)


def decisions(bench, kind: str) -> list[dict]:
    folded = fold([record.value for record in bench.read(f"{bench.prefix}journal")])
    return [decision.body for found in folded.values() for decision in found if decision.kind == kind]


def per_second(lines: list[str]) -> Counter:
    """Log lines of each second, by their own stamps."""
    return Counter(line[:19] for line in lines)


def of_libraries(lines: list[str]) -> list[str]:
    """All but our own: of those a text that was not told for ten seconds passes whatever others say."""
    return [line for line in lines if not line.split(" ", 6)[5].startswith("stream.")]


def work_off(b) -> None:
    """A worker reads everything, saves it and is stopped: a kill would cost the next one a session of waiting."""
    with b.worker(free_port()) as worker:
        worker.until_ready(START_S)
        b.settle(worker)
        worker.send(signal.SIGTERM)
        assert worker.wait(30) == 0


@pytest.mark.kafka
def test_f4_f5_the_broker_is_killed_while_panes_snapshots_and_alerts_are_written_and_stays_away(bench, broker):
    """F4: 1 s and 15 s; F5: SIGKILL in the middle of production. Also the truth of lag_events (F13)."""
    b = bench()
    with b.worker(free_port()) as worker:
        worker.until_ready(START_S)
        b.produce(b.shifted(6_000, 40.0))
        b.settle(worker)
        assert until(lambda: worker.metric("lag_events") == 0, 8)
        seen = {}
        for gone_s in (1.0, GONE_S):
            b.produce(b.shifted(4_000, 40.0))
            until(lambda: worker.metric("snapshots_total") > 0, 20)
            broker.kill()
            before, began, probes = len(worker.log()), time.monotonic(), []
            while time.monotonic() - began < gone_s:
                probes.append((time.monotonic() - began, worker.get("/ready")[0], worker.get("/live")[0]))
                time.sleep(0.5)
            lines = worker.log()[before:].splitlines()
            broker.start()
            back = time.monotonic()
            b.produce(b.shifted(500, 40.0))  # new ones: all others may have been read before it went
            ends = b.ends()
            until(
                lambda e=ends: worker.metric("position", stage="collector") == sum(e.values()),
                30,
                why=lambda: worker.log()[-3000:],
            )
            drained_s = time.monotonic() - back
            until(lambda: worker.get("/ready")[0] == 200, 10)
            most = max(per_second(of_libraries(lines)).values(), default=0)
            seen[gone_s] = (len(lines), most, drained_s)
            assert all(live == 200 for _, _, live in probes)
            own = {line.split(" ", 6)[5] for line in lines} - {line.split(" ", 6)[5] for line in of_libraries(lines)}
            assert len(lines) <= gone_s + 1 + 2 * len(own), lines
            assert most <= 2  # two within one calendar second are a second apart
            assert drained_s <= BACK_S, seen
            late = [ready for at, ready, _ in probes if at > 12]
            assert all(ready == 503 for ready in late)
            assert bool(late) == (gone_s == GONE_S)
        b.produce(b.shifted(4_000, 40.0))
        b.settle(worker)
        worker.send(signal.SIGTERM)
        assert worker.wait(30) == 0, worker.log()[-3000:]
        assert "Traceback" not in worker.log()
    alerts_before = b.alerts()
    b.drain()
    assert_equal_to_recount(b)
    alerts = b.alerts()
    assert alerts, "the shift must have been found"
    assert all(len(set(bodies)) == 1 for bodies in alerts.values())
    assert set(alerts_before) <= set(alerts)
    for record in b.read(f"{b.prefix}journal"):
        assert json.loads(record.value)["number"] >= 1
    print(seen)


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("refilled", "running"),
    [
        pytest.param(0, False, id="F6-made-anew-empty-at-start"),
        pytest.param(3_000, False, id="F6-made-anew-and-grown-past-the-position"),
        pytest.param(3_000, True, id="F6-made-anew-while-running"),
    ],
)
def test_f6_a_topic_made_anew_is_refused_by_name_and_with_reset_gone_on_with(bench, refilled, running):
    b = bench(partitions=2)
    old = b.events(1_000)
    b.produce(old, compressions=(None,))
    with b.worker(free_port()) as worker:
        worker.until_ready(START_S)
        b.settle(worker)
        counted = worker.metric("consumed_events_total")
        if not running:
            worker.send(signal.SIGTERM)
            assert worker.wait(30) == 0
        make_anew(b, b.topic, 2)
        fresh = b.events(refilled)
        b.produce([*old, *fresh] if refilled else [], compressions=(None,))
        if running:
            assert worker.wait(START_S) == 1, worker.log()[-2000:]
            text = worker.log()
    if not running:
        with b.worker() as worker:
            assert worker.wait(START_S) == 1
            text = worker.log()
    (reason,) = [line for line in text.splitlines() if "stopping:" in line][:1]
    assert "InputLost" in reason
    assert f"{b.topic}-" in reason
    assert "made again: its id was " in reason
    assert "on_data_loss: reset" in reason
    assert "Traceback" not in text
    with b.config_path.open("a") as file:
        file.write("on_data_loss: reset\n")
    with b.worker(free_port()) as worker:
        worker.until_ready(START_S)
        ends = b.ends()
        until(lambda: worker.metric("position", stage="collector") == sum(ends.values()), 60, why=worker.log)
        assert worker.metric("input_resets_total", stage="collector") == 2
        until(lambda: worker.metric("consumed_events_total") == counted + sum(ends.values()), 60, why=worker.log)
        names = ("applied", "dead_letter", "duplicate", "late", "tombstone")
        expected = {name: worker.metric(f"{name}_events_total") for name in names}
        assert sum(expected.values()) == worker.metric("consumed_events_total")
        if refilled:  # what was sent again is late or twice, and says so; what is new counts
            assert expected["late"] + expected["duplicate"] >= 0.9 * len(old)
            assert expected["applied"] >= 0.9 * (len(old) + len(fresh))
        worker.send(signal.SIGTERM)
        assert worker.wait(30) == 0
    resets = decisions(b, "reset")
    assert len(resets) == 2
    for body in resets:
        entry = body["predictions"]
        assert entry["to"] == 0
        assert entry["was"] != entry["is"]
        assert entry["end"] in {0, *ends.values()}


@pytest.mark.kafka
def test_f7_what_was_deleted_while_we_were_down_is_a_gap_measured_exactly(bench):
    b = bench(partitions=2)
    b.produce(b.events(2_000), compressions=(None,))
    work_off(b)
    position = b.committed()
    b.produce(b.events(3_000), compressions=(None,))
    cut = {0: position[0] + 700, 1: position[1] - 5}  # partition 1 has lost nothing that was not read
    with admin(b) as client:
        client.delete_records({TopicPartition(b.topic, p): offset for p, offset in cut.items()})
    with b.worker(free_port()) as worker:
        worker.until_ready(START_S)
        b.settle(worker)
        assert worker.metric("input_gap_events_total", partition=0) == 700
        assert worker.metric("input_gap_events_total", partition=1) == 0
        assert "collector 0: retention took 700 records of predictions" in worker.log()
        ends = b.ends()
        assert worker.metric("consumed_events_total", partition=0) == ends[0] - 700
        assert worker.metric("consumed_events_total", partition=1) == ends[1]
        worker.send(signal.SIGTERM)
        assert worker.wait(30) == 0
    assert decisions(b, "gap") == [{"predictions": [position[0], cut[0]]}]


@pytest.mark.kafka
@pytest.mark.parametrize(
    "role",
    [
        pytest.param("state.collector", id="F8-state-made-anew"),
        pytest.param("panes", id="F8-panes-made-anew"),
        pytest.param("alerts", id="F8-outputs-made-anew"),
    ],
)
def test_f8_an_internal_topic_that_was_made_anew_is_refused_or_goes_on_and_never_hangs(bench, role):
    b = bench(partitions=2)
    b.produce(b.events(1_500), compressions=(None,))
    work_off(b)
    with admin(b) as client:
        client.delete_topics([f"{b.prefix}{role}"])
        until(lambda: f"{b.prefix}{role}" not in client.list_topics())
    kit.bench_module.create_topics(b.config)
    b.produce(b.events(500), compressions=(None,))
    with b.worker(free_port()) as worker:
        if role == "alerts":
            worker.until_ready(START_S)
            b.settle(worker)
            return
        assert worker.wait(START_S) == 1
        reason = next(line for line in worker.log().splitlines() if "stopping:" in line)
        assert ("StateLost" if role == "state.collector" else "InputLost") in reason, reason
        assert "Traceback" not in worker.log()


@pytest.mark.kafka
def test_f8_a_state_log_trimmed_behind_a_snapshot_is_refused(bench):
    b = bench(partitions=1)
    b.produce(b.events(1_500), compressions=(None,))
    work_off(b)
    place = TopicPartition(f"{b.prefix}state.collector", 0)
    with admin(b) as client:
        _policy(client, place.topic, "compact,delete")
        client.delete_records({place: len(b.read(place.topic)) - 1})
        _policy(client, place.topic, "compact")
    with b.worker(free_port()) as worker:
        assert worker.wait(START_S) == 1
        assert "StateLost" in worker.log()


def _policy(client, topic: str, policy: str) -> None:
    """Records of a compacted topic can only be deleted while its policy allows deletion."""
    from kafka.admin import ConfigResource, ConfigResourceType

    client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"cleanup.policy": policy})])


@pytest.mark.kafka
def test_f11_f12_a_topic_that_grew_and_counts_that_differ_are_refused_with_the_way_out(bench):
    b = bench(partitions=2)
    b.produce(b.events(1_000), compressions=(None,))
    with b.worker(free_port()) as worker, admin(b) as client:
        worker.until_ready(START_S)
        b.settle(worker)
        client.create_partitions({b.topic: 4})
        assert worker.wait(START_S) == 1, worker.log()[-2000:]
        reason = next(line for line in worker.log().splitlines() if "stopping:" in line)
        assert f"{b.topic} had 2 partitions and has 4 now" in reason or "has 3 now" in reason
        assert "another prefix" in reason
    with b.worker() as worker:
        assert worker.wait(START_S) == 1
        text = worker.log()
    assert f"{b.prefix}state.collector: has 2 partitions, must have 4" in text
    assert f"kafka-topics.sh --alter --topic {b.prefix}dead-letters --partitions 4" in text
    assert "another prefix" in text
    assert "Traceback" not in text


@pytest.mark.kafka
def test_f17_a_clock_a_year_ahead_is_a_dead_letter_and_moves_no_watermark(bench):
    b = bench(partitions=2)
    records = b.events(2_000)
    ahead = kit.bench_module.event(10**9, b.clock_ms + 365 * 86_400_000, b.r)
    b.produce([*records, (0, json.dumps(ahead).encode()), *b.events(2_000)], compressions=(None,))
    with b.worker(free_port()) as worker:
        worker.until_ready(START_S)
        b.settle(worker)
        until(lambda: worker.metric("event_time_seconds", partition=0) > 0, 10)
        assert worker.metric("dead_letters_total", partition=0, reason="future_timestamp") == 1
        assert worker.metric("event_time_seconds", partition=0) < b.clock_ms / 1000 + 1
        lost = worker.metric("late_events_total") / worker.metric("consumed_events_total")
        assert lost < 0.01
        worker.send(signal.SIGTERM)
        assert worker.wait(30) == 0
    letters = b.read(f"{b.prefix}dead-letters")
    reasons = [dict(letter.headers)["dlq.reason"] for letter in letters]
    assert reasons.count(b"future_timestamp") == 1


@pytest.mark.kafka
def test_f20_a_topic_that_is_absent_is_waited_for_and_an_empty_one_holds_nobody_up(bench):
    b = bench(partitions=2, settings="idle_timeout: 1s\n")
    with admin(b) as client:
        client.delete_topics([b.topic])
        until(lambda: b.topic not in client.list_topics())
        with b.worker(free_port()) as worker:
            until(lambda: "waiting for the topic" in worker.log(), START_S, why=worker.log)
            time.sleep(3)
            assert worker.log().count("waiting for the topic") == 1
            assert worker.process.poll() is None
            client.create_topics({b.topic: {"num_partitions": 2, "replication_factor": 1}}, wait_for_metadata=True)
            worker.until_ready(START_S)
            assert worker.metric("lag_events") == 0
            b.produce([(0, value) for _, value in b.events(3_000) if value], compressions=(None,))
            until(b.windows, 40, why=worker.log)  # partition 1 is empty and ticks
            b.produce([(1, value) for _, value in b.events(1_000) if value], compressions=(None,))
            b.settle(worker)  # it appears later and is counted
            until(lambda: worker.metric("consumed_events_total", partition=1) == b.ends()[1], 30, why=worker.log)


STUCK = """
import sys
from stream import transport
from stream.app import run_worker
from stream.config_loader import load
from stream.upkeep import Rhythm
from pathlib import Path
flag, topic = Path(sys.argv[2]), sys.argv[3]
through = transport.RawConsumer.getmany

async def stuck(self, timeout):
    async for tp, message in through(self, timeout):
        if not (flag.exists() and tp.topic == topic):
            yield tp, message

transport.RawConsumer.getmany = stuck
import logging
logging.basicConfig(level=logging.INFO)
sys.exit(run_worker(load(Path(sys.argv[1])).config, rhythm=Rhythm(snapshot_s=1, idle_max_s=0.5, stalled_s=float(sys.argv[4]))))
"""


@pytest.mark.kafka
@pytest.mark.parametrize("stage", ["collector", "monitor"])
def test_a_fetcher_that_is_stuck_while_the_loop_is_alive_ends_the_worker_with_the_reason(bench, stage):
    port = free_port()
    b = bench(partitions=1, settings=f"metrics: {{port: {port}}}\n")
    flag = b.folder / "stuck"
    topic = b.topic if stage == "collector" else f"{b.prefix}panes"
    command = [sys.executable, "-c", STUCK, str(b.config_path), str(flag), topic, str(STALLED_S)]
    with b.running(command=command) as process:
        worker = kit.Worker(process, port).until_ready(START_S)
        b.produce(b.events(1_000), compressions=(None,))
        b.settle(worker)
        time.sleep(2 * STALLED_S)
        assert process.poll() is None  # nothing to read is no stall
        flag.touch()
        b.produce(b.events(2_000), compressions=(None,))
        until(lambda: worker.metric("lag_events", stage=stage) > 0, 10, why=worker.log)
        assert worker.wait(START_S) == 70, worker.log()[-2000:]
        reason = next(line for line in worker.log().splitlines() if "stopping:" in line)
        assert "stands at" in reason
        assert f"{topic}-" in reason
    assert list(itertools.islice(b.committed().values(), 1))
