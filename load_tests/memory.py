"""RSS of one worker that owns everything, at a steady rate, beside what `driftline check-config` said it would need.

    python -m load_tests.memory [--models 50 --features 100 --partitions 8 --rate 10000 --segments 0|10 --strata 0|24 --minutes 6] [--json]

A real Kafka, one worker with all defaults (deduplication on, resolution 60 s, lateness 60 s). First HISTORY_MINUTES of event
time, thinner, so that every window that a series keeps is there; then `rate` events a second by the wall clock, so that the
ids held are those of production: rate x 60 s in each open pane, and two panes open. With `--strata 24` the references have a
daily season and a hundred windows an hour, every target has the hours of the day, history begins with windows of all 24, and the
run fails if the references that the worker stored have other strata. RSS is read each second; `slope_mb_per_min` is fitted over
the second half. Exit code 1 when a condition fails.
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

import numpy as np
import orjson
from kafka.admin import KafkaAdminClient, NewTopic

from load_tests import harness
from load_tests.wide_traffic import (
    SEASON_MINUTES,
    SEASON_ROWS,
    Shape,
    Traffic,
    config_text,
    write_references,
)
from stream.broker import Broker, free_port
from stream.reference_records import ReferenceLog

ROWS = 60_000  # of each reference: some 84 windows of a minute
SEASON_DAYS = 30  # of a reference with a season: 25 in windows after the rows that choose cuts
ROWS_PER_MINUTE = 600
HISTORY_MINUTES = 10  # a series keeps its last 8 windows
HISTORY_EVENTS = 600  # of each model a minute
RSS_MB_MAX = 400.0  # without segments and strata
RATIO_MAX = 1.2  # of what was measured to the estimate, and the reverse
SLOPE_MB_PER_MIN_MAX = 1.0
KEEP_BYTES = 300 << 20  # of each source partition
MB = 1e6


def topics(bootstrap: str, partitions: int) -> None:
    """The source topic, of which the broker keeps only the newest part."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    keep = {"retention.bytes": str(KEEP_BYTES), "segment.bytes": str(KEEP_BYTES // 4)}
    admin.create_topics([NewTopic("predictions", partitions, 1, topic_configs=keep)])
    admin.close()


def strata_in_force(bootstrap: str, shape: Shape) -> dict[str, int]:
    """How many targets of the stored references, which the worker runs with, have how many hours. Raises if not all have all."""
    stored = ReferenceLog()
    for _, _, key, value in harness.read_topic(bootstrap, "driftline.references"):
        stored.add(key, value)
    profiles = [profile for name in stored.ids() if (profile := stored.get(name)) is not None]
    hours = [0 if t.strata is None else len(t.strata.rank) for profile in profiles for t in profile.targets]
    if len(profiles) != shape.models or set(hours) != {shape.strata}:
        raise RuntimeError(
            f"{len(profiles)} references whose targets have {sorted(set(hours))} hours, not {shape.strata}"
        )
    return {"targets": len(hours), "hours": shape.strata}


def said(config: Path, partitions: int, rate: int) -> dict[str, float]:
    """What check-config estimates, MB by term."""
    command = harness.driftline(
        "check-config", "--config", config, "--partitions", str(partitions), "--rate", str(rate), "--output", "json"
    )
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"check-config: {done.stdout.decode()}{done.stderr.decode()}")
    found: dict[str, Any] = orjson.loads(done.stdout)["estimate"]
    if found.pop("auto_strata_bytes"):
        raise RuntimeError("check-config takes the references to show a season without being told")
    return {name.removesuffix("_bytes"): round(value / MB, 1) for name, value in found.items()}


def slope(samples: list[tuple[float, float]]) -> float:
    """MB a minute, least squares over (s, MB)."""
    at, rss = np.array(samples).T
    return float(np.polyfit(at / 60, rss, 1)[0])


async def measure(process: Any, traffic: Traffic, port: int, rate: int, minutes: float) -> dict[str, Any]:
    """Traffic and samples side by side, from the moment at which the worker has caught up with the history."""
    await asyncio.to_thread(
        harness.wait_until, lambda: harness.metrics(port).get("driftline_applied_events_total", 0) >= traffic.sent,
        600, "the history applied",
    )  # fmt: skip
    worker = harness.workers(process)[0]
    stop = asyncio.Event()
    sending = asyncio.create_task(traffic.live(rate, stop))
    begin, cpu = time.monotonic(), harness.cpu_s(worker)
    before = traffic.sent
    samples: list[tuple[float, float]] = []
    lags: list[float] = []
    while (at := time.monotonic() - begin) < minutes * 60:
        if sending.done():
            sending.result()
        samples.append((at, worker.memory_info().rss / MB))
        if int(at) % 10 == 0:
            seen = await asyncio.to_thread(harness.metrics, port)
            lags.append(
                seen["driftline_lag_events"] if seen else np.inf
            )  # a worker that does not answer is no quick one
        await asyncio.sleep(1.0)
    took, used = time.monotonic() - begin, harness.cpu_s(worker) - cpu
    last = await asyncio.to_thread(harness.metrics, port)
    maps = worker.memory_full_info()
    stop.set()
    await sending
    late = samples[len(samples) // 2 :]
    return {
        "events_per_s": round((traffic.sent - before) / took),
        "cpu_share": round(used / took, 3),
        "lag_events_max": max(lags),
        "lag_events_end": lags[-1],
        "consumed_events": int(last["driftline_consumed_events_total"]),
        "sent_events": traffic.sent,
        "windows": int(last["driftline_windows_total"]),
        "snapshot_mb_per_s": round(last["driftline_snapshot_bytes_total"] / MB / took, 2),
        "state_mb": round(last["driftline_state_bytes"] / MB, 1),
        "rss_mb_max": round(max(rss for _, rss in samples), 1),
        "rss_mb_end": round(samples[-1][1], 1),
        "rss_mb_mean": round(float(np.mean([rss for _, rss in late])), 1),
        "uss_mb_end": round(maps.uss / MB, 1),
        "slope_mb_per_min": round(slope(late), 2),
        "rss_mb": [round(rss) for _, rss in samples[::10]],
    }


def conditions(result: dict[str, Any], *, plain: bool) -> dict[str, bool]:
    """What must hold of the figures."""
    ratio = result["measured_to_estimate"]
    holds = {
        "within 20 % of what check-config said": 1 / RATIO_MAX <= ratio <= RATIO_MAX,
        "the worker keeps up": max(result["lag_events_max"], result["sent_events"] - result["consumed_events"])
        < 10 * result["rate"],
        f"slope at most {SLOPE_MB_PER_MIN_MAX:g} MB a minute": result["slope_mb_per_min"] <= SLOPE_MB_PER_MIN_MAX,
    }
    if plain:
        holds[f"RSS at most {RSS_MB_MAX:g} MB"] = result["rss_mb_max"] <= RSS_MB_MAX
    return holds


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    shape = Shape(arguments.models, arguments.features, arguments.segments, arguments.strata)
    rows = SEASON_DAYS * 24 * SEASON_MINUTES * SEASON_ROWS if shape.strata else arguments.rows
    port = free_port()
    with tempfile.TemporaryDirectory() as temporary, Broker(tuning="load") as broker:
        folder, bootstrap = Path(temporary), broker.bootstrap_servers
        topics(bootstrap, arguments.partitions)
        config = folder / "monitor.yaml"
        config.write_text(config_text(shape, bootstrap, port=port))
        end_ms = int(time.time() * 1000) - 86_400_000
        write_references(folder, shape, rows, per_minute=ROWS_PER_MINUTE, end_ms=end_ms)
        estimate = said(config, arguments.partitions, arguments.rate)
        print(orjson.dumps(estimate).decode(), file=sys.stderr)
        harness.run("topics", "create", "--config", config, "--replication", "1")
        traffic = Traffic(shape, bootstrap, arguments.partitions)
        with harness.running(folder / "worker.log", "run", "--config", config, "--workers", "1") as process:
            # metrics answer once the references are built and stored, which takes minutes for many models
            harness.wait_until(lambda: _ready(process, folder, port), 1_200, "a worker")
            strata = strata_in_force(bootstrap, shape)
            now_ms = int(time.time() * 1000)
            if shape.strata:
                asyncio.run(traffic.day(shape.models * HISTORY_EVENTS, now_ms - HISTORY_MINUTES * 60_000))
            asyncio.run(traffic.history(HISTORY_MINUTES, shape.models * HISTORY_EVENTS, now_ms))
            try:
                measured = asyncio.run(measure(process, traffic, port, arguments.rate, arguments.minutes))
            except Exception as error:
                raise RuntimeError((folder / "worker.log").read_text()[-4000:]) from error
    result = {
        "models": shape.models,
        "features": shape.features,
        "partitions": arguments.partitions,
        "segments": shape.segments,
        "strata": strata,
        "rate": arguments.rate,
        "event_bytes": round(traffic.event_bytes),
        **measured,
        "estimate_mb": estimate,
        "measured_to_estimate": round(measured["rss_mb_max"] / estimate["total"], 3),
    }
    return result | {"holds": conditions(result, plain=not (shape.segments or shape.strata))}


def _ready(process: Any, folder: Path, port: int) -> bool:
    if process.poll() is not None:
        raise RuntimeError((folder / "worker.log").read_text()[-4000:])
    return harness.metrics(port).get("driftline_owned_partitions", 0) > 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (
        ("models", 50),
        ("features", 100),
        ("partitions", 8),
        ("rate", 10_000),
        ("segments", 0),
        ("strata", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--rows", type=int, default=ROWS, help="of each model's reference, without strata")
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    result = run(parser.parse_args())
    print(orjson.dumps(result).decode() if "--json" in sys.argv else _table(result))
    return 0 if all(result["holds"].values()) else 1


def _table(result: dict[str, Any]) -> str:
    lines = [f"{name:<24}{value}" for name, value in result.items() if name not in {"holds", "estimate_mb"}]
    lines += [f"  estimated {name:<14}{value} MB" for name, value in result["estimate_mb"].items()]
    return "\n".join(lines + [f"{'ok ' if held else 'NOT'} {what}" for what, held in result["holds"].items()])


if __name__ == "__main__":
    sys.exit(main())
