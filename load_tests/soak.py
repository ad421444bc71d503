"""Hours in minutes: steady traffic, faults on a Poisson clock, and what the workers hold of the machine meanwhile (F35).

    python -m load_tests.soak [--minutes 30] [--seed S] [--rate 20000] [--workers 2] [--fault-every 45] [--json]

Events at twice the target rate (or what `--rate` says; `events_per_s` is what was reached), through a real Kafka. Faults, drawn
by the seed: kill -9, SIGTERM and a freeze of 2 to 14 s of a worker, a restart of the broker. Worker 0 is never ended, only frozen, and
lives through every rebalance and broker restart: a slope needs a life, and no life is long where everybody is killed. RSS,
file descriptors and threads are read from /proc each 2 s, the event loop's tasks from the worker's metrics; the slope is
fitted per process life, from WARM_S of the run on and over at least LIFE_S. At the end the faults stop, the backlog drains,
and the counters of the last markers are compared with what was sent. Exit code 1 when a condition fails; `--minutes 3` is a
smoke run, whose lives are too short for a slope.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil

from load_tests import harness
from load_tests.memory import slope, topics
from load_tests.wide_traffic import Shape, Traffic, config_text, write_references
from stream.broker import Broker, free_port
from stream.panes import Marker, decode_record

PARTITIONS = 8
SHAPE = Shape(models=5, features=20)
ROWS = 20_000
SAMPLE_S = 2.0
WARM_S = 600.0
LIFE_S = 300.0
QUIET_S = 20.0  # without faults at the beginning
FREEZE_S = (2.0, 14.0)  # the group gives a member up after 10
BROKER_AWAY_S = (1.0, 8.0)
KINDS = ("kill", "term", "freeze", "freeze", "broker")
SLOPE_MB_PER_MIN_MAX = 1.0
GROWTH_MAX = 5  # descriptors, threads and tasks, from the middle of a life to its end
LATE_SHARE_MAX = 0.001  # of traffic in the order of its times
MB = 1e6


@dataclass
class Lives:
    """Samples (s since the start, RSS MB, descriptors, threads, tasks) of every worker process; tasks are NaN while a worker
    does not answer at `port` + its index.
    """

    port: int
    samples: dict[tuple[int, int], list[tuple[float, float, int, int, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def look(self, at_s: float, process: Any) -> None:
        for index, worker in workers_by_index(process).items():
            tasks = harness.metrics(self.port + index).get("driftline_asyncio_tasks", np.nan)
            with suppress(psutil.Error), worker.oneshot():
                seen = (at_s, worker.memory_info().rss / MB, worker.num_fds(), worker.num_threads(), tasks)
                self.samples[index, worker.pid].append(seen)

    def report(self) -> list[dict[str, Any]]:
        """One row a process that lived long enough after the warm-up."""
        rows = []
        for (index, pid), seen in self.samples.items():
            late = [one for one in seen if one[0] >= WARM_S]
            if not late or late[-1][0] - late[0][0] < LIFE_S:
                continue
            half = late[: len(late) // 2], late[len(late) // 2 :]
            fds, threads, tasks = ([float(np.nanmedian([one[k] for one in part])) for part in half] for k in (2, 3, 4))
            rows.append({
                "worker": index, "pid": pid, "minutes": round((late[-1][0] - late[0][0]) / 60, 1),
                "rss_mb_max": round(max(one[1] for one in late), 1),
                "slope_mb_per_min": round(slope([one[:2] for one in late]), 3),
                "fds": fds, "threads": threads, "asyncio_tasks": tasks,
            })  # fmt: skip
        return rows


def workers_by_index(process: Any) -> dict[int, psutil.Process]:
    """The supervisor's workers by their --index; those that are starting or gone are left out."""
    found = {}
    for worker in harness.workers(process):
        with suppress(psutil.Error, ValueError):
            line = worker.cmdline()
            if "--prepare" not in line:
                found[int(line[line.index("--index") + 1])] = worker
    return found


async def one_fault(kind: str, chance: random.Random, process: Any, broker: Broker) -> str:
    """Cause it and, where it passes, undo it; what was done, "" if there was nobody to do it to."""
    if kind == "broker":
        await asyncio.to_thread(broker.kill if chance.random() < 0.5 else broker.stop)
        await asyncio.sleep(chance.uniform(*BROKER_AWAY_S))
        await asyncio.to_thread(broker.start)
        return kind
    living = workers_by_index(process)
    victims = sorted(living if kind == "freeze" else set(living) - {0})
    if not victims:
        return ""
    victim = living[chance.choice(victims)]
    with suppress(psutil.Error):
        if kind == "freeze":
            victim.suspend()
            await asyncio.sleep(chance.uniform(*FREEZE_S))
            victim.resume()
        else:
            victim.send_signal(signal.SIGKILL if kind == "kill" else signal.SIGTERM)
    return kind


async def soak(
    arguments: argparse.Namespace, process: Any, broker: Broker, traffic: Traffic, port: int
) -> dict[str, Any]:
    """Traffic, faults and samples until the time is over."""
    chance, lives, done, stop = random.Random(arguments.seed), Lives(port), Counter[str](), asyncio.Event()
    begin = time.monotonic()
    sending = asyncio.create_task(traffic.live(arguments.rate, stop))

    async def faults() -> None:
        await asyncio.sleep(QUIET_S)
        while not stop.is_set():
            await asyncio.sleep(chance.expovariate(1 / arguments.fault_every))
            if not stop.is_set():
                done[await one_fault(chance.choice(KINDS), chance, process, broker)] += 1

    causing = asyncio.create_task(faults())
    while time.monotonic() - begin < arguments.minutes * 60:
        if process.poll() is not None or sending.done() or causing.done():
            raise RuntimeError(f"ended early: supervisor {process.poll()}, {sending}, {causing}")
        await asyncio.to_thread(lives.look, time.monotonic() - begin, process)
        await asyncio.sleep(SAMPLE_S)
    took = time.monotonic() - begin
    stop.set()
    await asyncio.gather(sending, causing)  # a fault under way is undone
    done.pop("", None)
    return {
        "minutes": round(took / 60, 1),
        "events_per_s": round(traffic.sent / took),
        "faults": dict(sorted(done.items())),
        "processes": len(lives.samples),
        "rss_mb_max": round(max(one[1] for seen in lives.samples.values() for one in seen), 1),
        "lives": lives.report(),
    }


def counted(bootstrap: str) -> dict[str, int]:
    """Sums over the source partitions of the counters in their last markers."""
    last: dict[int, Marker] = {}
    for _, _, key, value in harness.read_topic(bootstrap, "driftline.panes"):
        body = decode_record(value or b"") if key is None else None
        if isinstance(body, Marker) and body.edge_ms >= last.get(body.partition, body).edge_ms:
            last[body.partition] = body
    names = ("consumed", "applied", "dead_letters", "duplicates", "late", "tombstones")
    return {name: sum(int(marker.counters[name]) for marker in last.values()) for name in names}


def conditions(result: dict[str, Any]) -> dict[str, bool]:
    counts, lives = result["counted"], result["lives"]
    rest = sum(counts[name] for name in ("applied", "dead_letters", "duplicates", "late", "tombstones"))
    holds = {
        "every event that was sent is applied or late, once": counts["applied"] + counts["late"] == result["sent"],
        "consumed = applied + dead letters + duplicates + late + tombstones": counts["consumed"] == rest,
        "no dead letter": counts["dead_letters"] == 0,
        "next to nothing is late": counts["late"] <= LATE_SHARE_MAX * result["sent"],
    }
    if result["minutes"] * 60 >= WARM_S + LIFE_S:
        holds |= {
            "every kind of fault came": set(result["faults"]) == set(KINDS),
            "a worker lived long enough to have a slope": bool(lives),
            f"slope at most {SLOPE_MB_PER_MIN_MAX:g} MB a minute": all(
                one["slope_mb_per_min"] <= SLOPE_MB_PER_MIN_MAX for one in lives
            ),
            "descriptors, threads and tasks flat": all(
                one[what][1] - one[what][0] <= GROWTH_MAX
                for one in lives
                for what in ("fds", "threads", "asyncio_tasks")
            ),
        }
    return holds


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary, Broker(tuning="load") as broker:
        folder, bootstrap, port = Path(temporary), broker.bootstrap_servers, free_port()
        topics(bootstrap, PARTITIONS)
        config = folder / "monitor.yaml"
        config.write_text(config_text(SHAPE, bootstrap, port=port))
        write_references(folder, SHAPE, ROWS, per_minute=600, end_ms=int(time.time() * 1000) - 86_400_000)
        harness.run("topics", "create", "--config", config, "--replication", "1")
        traffic = Traffic(SHAPE, bootstrap, PARTITIONS)
        command = ("run", "--config", config, "--workers", str(arguments.workers))
        try:
            with harness.running(folder / "workers.log", *command) as process:
                harness.wait_until(lambda: len(workers_by_index(process)) == arguments.workers, 300, "workers")
                result = asyncio.run(soak(arguments, process, broker, traffic, port))
            harness.run("run", "--config", config, "--workers", "1", "--drain")
        except Exception as error:
            raise RuntimeError((folder / "workers.log").read_text()[-4000:]) from error
        result |= {"seed": arguments.seed, "rate": arguments.rate, "sent": traffic.sent, "counted": counted(bootstrap)}
    return result | {"holds": conditions(result)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--fault-every", type=float, default=45.0, help="mean seconds between two faults")
    parser.add_argument("--json", action="store_true", help="one line instead of indented JSON")
    arguments = parser.parse_args()
    result = run(arguments)
    print(orjson.dumps(result, option=0 if arguments.json else orjson.OPT_INDENT_2).decode())
    return 0 if all(result["holds"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
