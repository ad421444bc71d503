"""Faults of processes, on whole workers and a real broker: frozen, stalled, stopped, restarted; always the recount's numbers."""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from load_tests.faults.restarts import rolling
from load_tests.faults.stage import Stage
from stream.broker import _free_ports

_spec = spec_from_file_location("fault_bench", Path(__file__).with_name("fault_bench.py"))
kit: Any = sys.modules.setdefault("fault_bench", module_from_spec(_spec))
_spec.loader.exec_module(kit)
assert_equal_to_recount, until = kit.bench_module.assert_equal_to_recount, kit.until

FROZEN_S = 30.0  # three sessions
STALL_S = 12.0  # one session and a bit


@pytest.fixture
def bench(kafka, prefix, tmp_path):
    return lambda **changes: kit.FaultBench(kafka.bootstrap_servers, prefix, tmp_path, **changes)


@pytest.fixture(scope="module")
def storm(kafka, tmp_path_factory) -> Iterator[dict[str, Any]]:
    """Three workers: one whose loop stalls, one that is frozen for three sessions and then for half a one, one to stop."""
    b = kit.FaultBench(kafka.bootstrap_servers, f"storm-{time.time_ns()}.", tmp_path_factory.mktemp("storm"))
    ports = _free_ports(3, None)
    seen: dict[str, Any] = {}
    b.produce(b.events(4_000))
    with (
        b.worker(ports[0]) as frozen,
        b.worker(ports[1], DRIFTLINE_FAILPOINTS=f"ingest.applied@3=stall:{STALL_S}") as stalled,
        b.worker(ports[2]) as third,
    ):
        workers = (frozen, stalled, third)
        for worker in workers:
            worker.until_ready()
        until(lambda: frozen.metric("owned_partitions") > 0, why=lambda: frozen.log()[-2000:])
        b.produce(b.events(3_000))
        b.settle(*workers)
        frozen.send(signal.SIGSTOP)
        began = time.monotonic()
        # Shifted, with the next: 10 windows. Beside a reference of 24 the ranks say enough after some 6 or 8.
        b.produce(b.shifted(12_000, 40.0))
        seen["taken over in s"] = b.settle(stalled, third)
        time.sleep(max(FROZEN_S - (time.monotonic() - began), 0))
        frozen.send(signal.SIGCONT)
        b.produce(b.shifted(8_000, 40.0))
        b.settle(*workers)
        until(lambda: frozen.metric("owned_partitions") > 0, why=lambda: frozen.log()[-2000:])
        seen["rejoined"] = True
        frozen.send(signal.SIGSTOP)
        b.produce(b.events(1_000))
        time.sleep(5)
        frozen.send(signal.SIGCONT)
        b.settle(*workers)
        seen["stall"] = stalled.metric("loop_stall_seconds_max")
        seen["frozen"] = frozen.metric("loop_stall_seconds_max")
        b.produce(b.events(2_000))  # the stop comes in the middle of work
        seen["stops"] = []
        for worker, number in zip(workers, (signal.SIGTERM, signal.SIGINT, signal.SIGTERM), strict=True):
            started = time.monotonic()
            worker.send(number)
            seen["stops"].append((worker.wait(15), time.monotonic() - started))
        seen["logs"] = [worker.log() for worker in workers]
    with b.worker(ports[0]) as worker:
        worker.until_ready()
        b.produce(b.events(2_000))
        worker.send(signal.SIGTERM)
        worker.send(signal.SIGINT)
        started = time.monotonic()
        seen["second"] = (worker.wait(10), time.monotonic() - started)
    b.drain()
    seen["bench"] = b
    return seen


@pytest.mark.kafka
@pytest.mark.parametrize(
    "row",
    [
        pytest.param("stop", id="F2-stop-drains-and-leaves"),
        pytest.param("second", id="F2-second-signal-is-a-crash"),
        pytest.param("frozen", id="F3-frozen-5s-and-30s"),
        pytest.param("stall", id="F33-loop-stalls"),
        pytest.param("exact", id="F2-F3-F33-exact"),
    ],
)
def test_storm(storm, row: str) -> None:
    if row == "stop":
        assert [code for code, _ in storm["stops"]] == [0, 0, 0], storm["logs"]
        assert max(seconds for _, seconds in storm["stops"]) <= 10.0
        assert all("Traceback" not in log for log in storm["logs"])
    elif row == "second":
        code, seconds = storm["second"]
        assert code in (128 + signal.SIGTERM, 128 + signal.SIGINT)
        assert seconds <= 1.0
    elif row == "frozen":
        assert storm["taken over in s"] <= 25.0
        assert storm["rejoined"]
        assert storm["frozen"] >= FROZEN_S - 2
    elif row == "stall":
        assert STALL_S - 1 <= storm["stall"] <= STALL_S + 10
    else:
        assert_equal_to_recount(storm["bench"])
        alerts = storm["bench"].alerts()
        assert alerts, "the shift was found"
        assert all(len(set(bodies)) == 1 for bodies in alerts.values()), "one id, two bodies"


@pytest.mark.kafka
@pytest.mark.parametrize("workers", [pytest.param(1, id="F10-restart-beside-another")])
def test_a_rolling_restart_costs_one_rebalance_beyond_join_and_leave(kafka, tmp_path, workers: int) -> None:
    """Three in turn: python -m load_tests.faults F10."""
    assert rolling(Stage(kafka, tmp_path, seed=10), workers)["ok"]


@pytest.mark.kafka
@pytest.mark.parametrize("share", [pytest.param(0.9, id="F13-hot-partition")])
def test_a_hot_partition_does_not_delay_the_others(bench, share: float) -> None:
    b = bench()
    (port,) = _free_ports(1, None)
    b.produce(b.events(2_000))
    with b.worker(port) as worker:
        worker.until_ready()
        b.settle(worker)
        calm = [timed(b, worker, b.events(2_000)) for _ in range(2)]
        rss = memory_bytes(worker)
        records, hot = b.events(30_000), 0
        for place, (_, value) in enumerate(records):
            cold = place % round(1 / (1 - share)) == 0
            records[place] = (1 + place % (b.partitions - 1) if cold else 0, value)
            hot += not cold
        assert hot >= share * len(records) - 1
        taken = timed(b, worker, records)
        until(lambda: worker.metric("lag_events", stage="collector") == 0, why=worker.log)
        grown = memory_bytes(worker) - rss
    cold = max(taken[p] for p in range(1, b.partitions))
    assert cold <= max(2 * max(max(times.values()) for times in calm), 4.0), (taken, calm)
    assert grown < 150 << 20
    b.drain()
    assert_equal_to_recount(b)


def timed(b: Any, worker: Any, records: list[tuple[int, bytes | None]]) -> dict[int, float]:
    """Seconds from the last record's acknowledgement until each partition's position is its end; the lag is true on the way."""
    b.produce(records)
    ends, started, taken = b.ends(), time.monotonic(), {}
    lags: Counter[int] = Counter()
    while len(taken) < b.partitions:
        for p in set(ends) - set(taken):
            position = worker.metric("position", stage="collector", partition=p)
            lags[p] = max(lags[p], int(worker.metric("lag_events", stage="collector", partition=p)))
            if position >= ends[p]:
                taken[p] = time.monotonic() - started
        assert time.monotonic() - started < 60, worker.log()[-3000:]
        time.sleep(0.1)
    assert all(lags[p] <= ends[p] for p in ends)
    return taken


def memory_bytes(worker: Any) -> int:
    import psutil

    return int(psutil.Process(worker.process.pid).memory_info().rss)


def told(window: dict[str, Any]) -> dict[str, Any]:
    """What a window says of its events, without the ordered float sums."""
    targets = {
        name: {key: target.get(key) for key in ("bins", "min", "max", "missing", "invalid")}
        for name, target in window["targets"].items()
    }
    return {"window": window["window"], "events": window["events"], "targets": targets}


@pytest.mark.kafka
@pytest.mark.parametrize("seed", [pytest.param(18, id="F18-permuted-duplicated-replayed")])
def test_order_within_the_lateness_duplicates_and_a_replay_change_nothing(bench, kafka, tmp_path, seed: int) -> None:
    r = random.Random(seed)
    tidy = bench(partitions=2)
    stamped = []
    for _ in range(4_000):
        tidy.number += 1
        tidy.clock_ms += 2
        event = kit.bench_module.event(tidy.number, tidy.clock_ms, tidy.r)
        stamped.append((tidy.clock_ms, tidy.number % 2, json.dumps(event).encode()))
    tidy.produce([(p, value) for _, p, value in stamped])
    (tmp_path / "other").mkdir()
    wild = kit.FaultBench(kafka.bootstrap_servers, f"wild-{tidy.prefix}", tmp_path / "other", partitions=2)
    half = kit.bench_module.LATENESS_MS // 2
    shuffled = sorted(stamped, key=lambda item: item[0] + r.uniform(-half, half))
    records = []
    for place, (_, p, value) in enumerate(shuffled):
        records.append((p, value))
        if r.random() < 0.05:
            records.append((p, value))  # twice, at once: while its pane is open
        if place > 3_000:
            records.append(shuffled[place - 3_000][1:])  # what was long ago, once more: late
    wild.produce(records)
    replayed = len(stamped) - 3_001
    for b in (tidy, wild):
        b.drain()
        assert_equal_to_recount(b)
    assert [told(window) for window in wild.windows()] == [told(window) for window in tidy.windows()]
    assert sum(marker.counters["late"] for marker in wild.markers().values()) == replayed
