"""One backlog, drained by driftline with all defaults on and by four others, in one run on one machine.

    python -m load_tests.throughput [--events N] [--plain-events N] [--json]

Events per wall second and per CPU second (all threads of the process that does the work, fetching included), from the first
event on: starting up and compiling are not in it. plain Faust drains the first part only; it is the slow one. Then the windows
that driftline closed are compared with an independent recount. Exit code 1 when a number differs or a condition fails.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from kafka.admin import KafkaAdminClient, NewTopic

from load_tests import harness
from load_tests.throughput import backlog, recount
from stream.broker import Broker

PARTITIONS = 8
TOPIC = "backlog"
PORT = 19_464
RESOLUTION_MS = 60_000
SPAN_MS = 130 * 60_000  # event time of the backlog: more than a hundred windows of the default, auto: here a minute
WINDOWS_MIN = 100
RECORDS_PER_WINDOW = 2  # one of the inputs, one of the version's outputs
SNAPSHOTS_MIN = 2
RSS_MB_MAX = 350
CONFIG = """\
kafka: {{bootstrap_servers: "{bootstrap}"}}
topics: {{predictions: backlog}}
metrics: {{port: 19464}}
models:
  fraud:
    reference: {{file: training.parquet, time: timestamp}}
"""


def training(folder: Path, rows: int = 200_000) -> None:
    """What the model was trained on: the same law as the backlog, another seed."""
    data: dict[str, Any] = backlog.columns(999, rows)
    data["prediction"] = [str(v) for v in data["prediction"]]
    data["timestamp"] = pa.array(
        [backlog.START_MS - 10**9 + i * SPAN_MS // rows for i in range(rows)], pa.timestamp("ms")
    )
    pq.write_table(pa.table(data), folder / "training.parquet")


def baseline(name: str, bootstrap: str, events: int) -> dict[str, Any]:
    """One of the others, in a process of its own."""
    command = [sys.executable, "-m", "load_tests.throughput.baselines", name, bootstrap, TOPIC, str(events)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=1800)
    rows = [line for line in done.stdout.splitlines() if line.startswith(b"{")]
    if not rows:
        raise RuntimeError(f"{name}: exit {done.returncode}\n{done.stderr.decode()[-2000:]}")
    row: dict[str, Any] = orjson.loads(rows[-1])
    return row


def driftline(folder: Path, bootstrap: str, events: int) -> dict[str, Any]:
    """One worker, defaults; the clock runs between two looks at its own counter and at the kernel's CPU time of its process."""
    config = folder / "monitor.yaml"
    config.write_text(CONFIG.format(bootstrap=bootstrap))
    harness.run("topics", "create", "--config", config, "--replication", "1")
    rss_mb, first, last = 0.0, None, (0.0, 0.0, 0.0)
    with harness.running(folder / "worker.log", "run", "--config", config, "--workers", "1") as process:
        while last[0] < events:
            if process.poll() is not None:
                raise RuntimeError((folder / "worker.log").read_text()[-3000:])
            seen = harness.metrics(PORT)
            consumed = seen.get("driftline_consumed_events_total", 0.0)
            if not consumed:
                time.sleep(0.05)
                continue
            worker = harness.workers(process)[0]
            rss_mb = max(rss_mb, worker.memory_info().rss / 1e6)
            last = (consumed, time.perf_counter(), harness.cpu_s(worker))
            if first is None:
                first, begin = last, seen
            time.sleep(0.2)
        assert first is not None
        harness.wait_until(lambda: harness.metrics(PORT).get("driftline_lag_events", 1) == 0, 60, "no lag")
        seen = harness.metrics(PORT)
    taken = seen["driftline_snapshots_total"] - begin.get("driftline_snapshots_total", 0)
    closed = seen["driftline_windows_total"] - begin.get("driftline_windows_total", 0)
    harness.run("run", "--config", config, "--workers", "1", "--drain")
    return {
        "name": "driftline, all defaults",
        "events": int(last[0] - first[0]),
        "wall_s": last[1] - first[1],
        "cpu_s": last[2] - first[2],
        "rss_mb_max": rss_mb,
        "windows_closed": int(closed / RECORDS_PER_WINDOW),
        "snapshots": int(taken / seen["driftline_owned_partitions"]),  # of every state, not of any
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=8_000_000)
    parser.add_argument("--plain-events", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, Broker(tuning="load") as broker:
        folder, bootstrap = Path(temporary), broker.bootstrap_servers
        admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])
        admin.close()
        training(folder)
        step_ms = SPAN_MS / arguments.events
        size = asyncio.run(
            backlog.publish(bootstrap, TOPIC, PARTITIONS, seed=arguments.seed, n=arguments.events, step_ms=step_ms)
        )
        rows = [baseline("bare", bootstrap, arguments.events), baseline("raw", bootstrap, arguments.events)]
        rows.insert(0, driftline(folder, bootstrap, arguments.events))
        rows += [baseline(name, bootstrap, arguments.plain_events) for name in ("adwin", "plain")]
        print(orjson.dumps(rows).decode(), file=sys.stderr)  # the recount takes a while
        windows = [orjson.loads(v or b"{}") for _, _, _, v in harness.read_topic(bootstrap, "driftline.windows")]
        wrong = recount.differences(
            [w for w in windows if w["segment"] == "all"], recount.panes(bootstrap, TOPIC, RESOLUTION_MS)
        )
    result = summary(rows, size / arguments.events, wrong)
    print(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode() if arguments.json else table(result))
    return 0 if all(result["holds"].values()) else 1


def summary(rows: list[dict[str, Any]], event_bytes: float, wrong: list[str]) -> dict[str, Any]:
    """Rates, ratios of driftline to each of the others, and whether each condition holds."""
    for row in rows:
        row["events_per_wall_s"] = round(row["events"] / row["wall_s"])
        row["events_per_cpu_s"] = round(row["events"] / row["cpu_s"])
    ours, (bare, raw, adwin, plain) = rows[0], rows[1:]
    ratios = {
        name: round(ours["events_per_cpu_s"] / row["events_per_cpu_s"], 2)
        for name, row in (("bare", bare), ("raw", raw), ("adwin", adwin), ("plain", plain))
    }
    holds = {
        "at least 15 times plain Faust + ADWIN per CPU second": ratios["adwin"] >= 15,
        "at least the bare consumer per CPU second": ratios["bare"] >= 1,
        f"the worker below {RSS_MB_MAX} MB": ours["rss_mb_max"] < RSS_MB_MAX,
        f"at least {WINDOWS_MIN} windows closed in the timed part": ours["windows_closed"] >= WINDOWS_MIN,
        f"at least {SNAPSHOTS_MIN} snapshots in the timed part": ours["snapshots"] >= SNAPSHOTS_MIN,
        "counts equal the recount": not wrong,
    }
    return {
        "event_bytes": round(event_bytes),
        "rows": rows,
        "ratios_per_cpu_s": ratios,
        "wrong": wrong[:20],
        "holds": holds,
    }


def table(result: dict[str, Any]) -> str:
    lines = [f"{'':<42}{'events':>10}{'per wall s':>12}{'per CPU s':>12}"]
    lines += [
        f"{r['name']:<42}{r['events']:>10}{r['events_per_wall_s']:>12}{r['events_per_cpu_s']:>12}"
        for r in result["rows"]
    ]
    lines.append(
        "driftline per CPU second, times: " + ", ".join(f"{k} {v}" for k, v in result["ratios_per_cpu_s"].items())
    )
    ours = result["rows"][0]
    lines.append(
        f"{ours['rss_mb_max']:.0f} MB, {ours['windows_closed']} windows, {ours['snapshots']} snapshots of every state"
    )
    lines.append(f"{result['event_bytes']} bytes an event")
    lines += [f"{'ok ' if held else 'NOT'} {what}" for what, held in result["holds"].items()] + result["wrong"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
