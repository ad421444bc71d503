"""What small panes of performance cost: a few predictions an hour, panes of an hour, several horizons, models and segments.

    python -m load_tests.small_panes [--hours 48] [--per-hour 70] [--values 20] [--against FOLDER] [--json] [--profile]

A collector and the monitor behind it, in one process, without Kafka: JSON becomes columns, is counted and joined, panes are closed,
encoded, decoded, merged, measured and judged. Two models, one of classes and one of numbers, labels half an hour to two days
late, three horizons, windows of a day, both stages saved every SAVE_HOURS. CPU time of the process, by stage; decoding of JSON is
not in it. `--against FOLDER`: another checkout does the same in turns, and every output and every blob must have the same bytes.
Exit code 1 where they differ.
"""

from __future__ import annotations

import argparse
import cProfile
import hashlib
import os
import pstats
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from detectors.reference import ReferenceProfile, WindowRule
from detectors.reference_build import build_reference
from stream.collector import Collector
from stream.config import Config, config_from
from stream.decode import decode, records_from_lines
from stream.decode_feedback import decode_feedback
from stream.feedback_planning import feedback_layouts
from stream.monitor import Monitor, PaneRecord
from stream.panes import decode_record
from stream.performance_panes import KIND
from stream.planning import collector_plan, monitor_settings
from stream.stage import Output
from stream.topics import TopicRole

HOUR_MS = 3_600_000
FIRST_MS = 1_356_998_400_000  # a midnight
MODELS = ("late-arrival", "elapsed-time")
CHUNK_HOURS, SAVE_HOURS = 6, 24
WARM_HOURS = 36  # compiles, and fills the horizons
TURNS = 2
LABELLED = 0.95


def config(values: int) -> Config:
    names = [f"v{place:02d}" for place in range(values)]
    common = {
        "reference": {"first": 5000},
        "targets": {"amount": {"kind": "numeric"}},
        "segments": {"origin": names},
        "window": {"every": "1d", "min_events": 1},
    }
    own: dict[str, dict[str, Any]] = {
        MODELS[0]: {
            "metrics": ["accuracy", "precision", "recall", "f1", "auroc", "average_precision", "brier", "log_loss"]
        },
        MODELS[1]: {"metrics": ["mae", "rmse", "r2", "mean_signed_error", "share_over_predicted", "mape"]},
    }
    models = {name: common | {"performance": more | {"horizons": ["2h", "5h", "1d"]}} for name, more in own.items()}
    labels = {"name": "labels", "range": [0, 1440], "lateness": "2h", "mapping": {"timestamp": "timestamp"}}
    return config_from({
        "kafka": {"bootstrap_servers": "unused:9092"},
        "topics": {"predictions": {"name": "predictions", "lateness": "1h"}, "labels": labels},
        "resolution": "1h",
        "monitors": 1,
        "models": models,
    })  # fmt: skip


def references() -> dict[str, ReferenceProfile]:
    rows = 20_000
    amount = np.random.default_rng(0).normal(size=rows)
    rule = WindowRule(False, 24 * HOUR_MS, 1, 0, HOUR_MS)
    time_ms = FIRST_MS - (rows - np.arange(rows)) * HOUR_MS // 20
    return {
        model: build_reference(model, {"amount": amount}, {"amount": "feature"}, time_ms=time_ms, window=rule)
        for model in MODELS
    }


class Traffic:
    """Both topics, chunk after chunk, as JSON; a share of the labels never comes."""

    def __init__(self, per_hour: int, values: int) -> None:
        self.random = np.random.default_rng(1)
        self.per_hour, self.values, self.made = per_hour, values, 0
        self.coming: list[tuple[int, bytes]] = []

    def chunk(self, first_hour: int) -> tuple[list[bytes], list[bytes], int]:
        """Lines of predictions and of labels, and the time at which they stand."""
        g, rows = self.random, self.per_hour * CHUNK_HOURS
        start_ms, stop_ms = (FIRST_MS + hour * HOUR_MS for hour in (first_hour, first_hour + CHUNK_HOURS))
        time_ms = np.sort(g.integers(start_ms, stop_ms, rows))
        score, minutes, place = (
            g.random(rows),
            np.round(g.normal(120, 30, rows), 3),
            g.zipf(1.3, rows) % (self.values + 2),
        )
        known_ms = time_ms + (g.lognormal(0.8, 1.0, rows) * HOUR_MS).astype(np.int64)
        predictions = []
        for i, at in enumerate(time_ms.tolist()):
            number = i % 2 == 1  # of the second model
            answer = (
                {"prediction": float(minutes[i])} if number else {"prediction": int(score[i] > 0.5), "score": score[i]}
            )
            body = {
                "prediction_id": f"{self.made + i}",
                "model": MODELS[number],
                "version": "1",
                "timestamp": instant(at),
                "features": {"amount": score[i]},
                "segments": {"origin": f"v{place[i]:02d}"},
            }
            predictions.append(orjson.dumps(body | answer, option=orjson.OPT_SERIALIZE_NUMPY))
            if g.random() < LABELLED:
                label = round(float(minutes[i] + g.normal(0, 10)), 1) if number else int(g.random() < score[i])
                told = {"prediction_id": body["prediction_id"], "timestamp": instant(known_ms[i]), "label": label}
                self.coming.append((int(known_ms[i]), orjson.dumps(told)))
        self.made += rows
        now = sorted(each for each in self.coming if each[0] < stop_ms)
        self.coming = [each for each in self.coming if each[0] >= stop_ms]
        return predictions, [line for _, line in now], stop_ms


def instant(time_ms: int) -> str:
    return f"{np.datetime_as_string(np.datetime64(int(time_ms), 'ms'), unit='ms')}Z"


class Bench:
    """One collector and one monitor. `spent`: CPU seconds by stage; `digest`: of every output and blob, in order."""

    def __init__(self, values: int) -> None:
        self.own = config(values)
        profiles = references()
        plan, self.layout = collector_plan(self.own, dict(profiles))
        self.labels = feedback_layouts(self.own)["labels"]
        self.collector = Collector(
            0,
            plan,
            monitors=1,
            topic="predictions",
            config_hash="c",
            app_version="1",
            feedback_topics={"labels": "labels"},
        )
        known = {profile.id: profile for profile in profiles.values()}
        settings = replace(monitor_settings(self.own, {}), partitions=1)
        self.monitor = Monitor(0, sources=1, settings=settings, profiles=known, app_version="1")
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.counts: Counter[str] = Counter()
        self.digest = hashlib.blake2b(digest_size=16)
        self.offset = 0

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        begun = time.process_time()
        yield
        self.spent[what] += time.process_time() - begun

    def chunk(self, predictions: list[bytes], labels: list[bytes], now_ms: int) -> None:
        assert self.collector.joining is not None
        columns = decode(records_from_lines(predictions, self.collector.next_offset), self.layout)
        columns = replace(columns, record_time_ms=columns.event_time_ms)
        told = decode_feedback(records_from_lines(labels, self.collector.joining.position["labels"]), self.labels)
        told = replace(told, feedback=replace(told.feedback, record_time_ms=told.feedback.event_time_ms))
        with self.timed("collector"):
            self.collector.apply("predictions", columns)
            self.collector.apply("labels", told)
        panes, self.collector.outbox = self.collector.outbox, []
        self.counts["predictions"] += len(columns)
        self.counts["dead letters"] += sum(output.topic != TopicRole.PANES for output in panes)
        with self.timed("monitor"):
            records = [self._record(output, now_ms) for output in panes if output.topic == TopicRole.PANES]
            self.monitor.apply("panes", records)
        written, self.monitor.outbox = self.monitor.outbox, []
        self.counts["records"] += len(written)
        for output in (*panes, *written):
            self.digest.update(f"{output.topic} {output.key!r}".encode())
            self.digest.update(output.value or b"")

    def _record(self, output: Output, now_ms: int) -> PaneRecord:
        assert output.value is not None
        body = decode_record(output.value)
        self.counts["panes of performance"] += type(body).__module__.endswith(f"{KIND}_panes")
        self.offset += 1
        return PaneRecord(self.offset - 1, now_ms, 1, body, output.value)

    def save(self) -> None:
        with self.timed("snapshots"):
            blobs = self.collector.changed_blobs() | {f"m/{n}": b for n, b in self.monitor.changed_blobs().items()}
        for name in sorted(blobs):
            self.digest.update(name.encode())
            self.digest.update(blobs[name] or b"")

    def run(self, traffic: Traffic, first_hour: int, hours: int) -> None:
        for hour in range(first_hour, first_hour + hours, CHUNK_HOURS):
            self.chunk(*traffic.chunk(hour))
            if hour % SAVE_HOURS == 0:
                self.save()


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    bench, traffic, profiler = Bench(chosen.values), Traffic(chosen.per_hour, chosen.values), cProfile.Profile()
    bench.run(traffic, 0, WARM_HOURS)
    bench.spent.clear()
    bench.counts.clear()
    if chosen.profile:
        profiler.enable()
    bench.run(traffic, WARM_HOURS, chosen.hours)
    profiler.disable()
    if chosen.profile:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(45)
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("cumulative").print_stats("stream|detectors", 60)
    total = sum(bench.spent.values())
    return {
        "cpu_s": {name: round(value, 3) for name, value in bench.spent.items()},
        "cpu_s_total": total,
        "counts": dict(bench.counts),
        "predictions_per_cpu_s": bench.counts["predictions"] / total,
        "us_per_pane": 1e6 * total / max(1, bench.counts["panes of performance"]),
        "digest": bench.digest.hexdigest(),
    }


def in_turns(chosen: argparse.Namespace) -> dict[str, Any]:
    """Both checkouts, TURNS times each, the least CPU time of each."""
    here = Path(__file__).resolve().parents[1]
    found: dict[str, list[dict[str, Any]]] = {"this": [], "other": []}
    arguments = [
        "--hours",
        str(chosen.hours),
        "--per-hour",
        str(chosen.per_hour),
        "--values",
        str(chosen.values),
        "--json",
    ]
    for _ in range(TURNS):
        for name, folder in (("this", here), ("other", chosen.against.resolve())):
            done = subprocess.run(
                [sys.executable, str(Path(__file__).resolve()), *arguments],
                env=os.environ | {"PYTHONPATH": str(folder)}, cwd=folder, capture_output=True, check=True,
            )  # fmt: skip
            found[name].append(orjson.loads(done.stdout))
    this, other = (min(each, key=lambda one: float(one["cpu_s_total"])) for each in found.values())
    same = len({one["digest"] for each in found.values() for one in each}) == 1
    return {
        "this": this,
        "other": other,
        "times as fast": other["cpu_s_total"] / this["cpu_s_total"],
        "same bytes": same,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("hours", 48), ("per-hour", 70), ("values", 20)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--against", type=Path, help="folder of another checkout to compare with")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    chosen = parser.parse_args()
    result = measure(chosen) if chosen.against is None else in_turns(chosen)
    print(orjson.dumps(result, option=0 if chosen.json else orjson.OPT_INDENT_2).decode())
    return 0 if result.get("same bytes", True) else 1


if __name__ == "__main__":
    sys.exit(main())
