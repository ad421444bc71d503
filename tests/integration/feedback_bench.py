"""What the tests of feedback on the real broker share: a watched topic with clicks and labels, and a recount of performance."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from stream.admin import create_topics
from stream.config_loader import load

_spec = spec_from_file_location("worker_bench", Path(__file__).with_name("worker_bench.py"))
bench_module = sys.modules["worker_bench"] = module_from_spec(_spec)
_spec.loader.exec_module(bench_module)

HORIZONS_MS = (3_000, 10_000)
AGES_MS = ((3_000, 1_000), (3_000, 2_000), (10_000, 2_000), (10_000, 5_000))  # an eighth and a half, in whole panes
LATENESS_MS = 60_000
BAD_EVERY = 50  # clicks without an id


@dataclass
class FeedbackBench(bench_module.Bench):
    """The same watched topic, with clicks and labels. `lateness_ms`: of feedback."""

    idle: str = "5m"
    lateness_ms: int = LATENESS_MS
    port: int = 0

    def __post_init__(self) -> None:
        self.topic = f"{self.prefix}in.predictions"
        bench_module.reference_file(self.folder / "train.parquet")
        self.r = bench_module.random.Random(7)
        self.config_path = self.folder / "monitor.yaml"
        self.config_path.write_text(
            f"kafka: {{bootstrap_servers: '{self.servers}'}}\n"
            "topics:\n"
            f"  predictions: {{name: {self.topic}, lateness: {bench_module.LATENESS_MS}ms}}\n"
            f"  clicks: {{name: {self.prefix}in.clicks, lateness: {self.lateness_ms}ms}}\n"
            f"  labels: {{name: {self.prefix}in.labels, lateness: {self.lateness_ms}ms, mapping: {{timestamp: timestamp}}}}\n"
            f"prefix: {self.prefix}\nresolution: {bench_module.RESOLUTION_MS}ms\nmonitors: 2\nmetrics: {{port: {self.port}}}\n"
            f"idle_timeout: {self.idle}\n"
            "defaults: {window: {every: 5s, min_events: 200}}\n"
            "models:\n  m:\n    reference: {file: train.parquet, time: timestamp}\n"
            "    segments: {country: [de]}\n"
            "    performance: {horizons: [3s, 10s], proxies: [ctr], metrics: [accuracy, auroc]}\n" + self.settings
        )
        self.config = load(self.config_path).config
        create_topics(self.config, with_inputs=self.partitions)

    def made(self, n: int) -> list[tuple[str, int, int, bytes]]:
        """(topic, time, partition, value) of n predictions and what becomes of them, feedback by when it was known."""
        found = []
        for _ in range(n):
            self.number += 1
            self.clock_ms += 3
            at = self.clock_ms + self.r.randrange(-800, 800)
            country = self.r.choice(bench_module.COUNTRIES)
            outcome = self.r.random() < 0.5
            value = bench_module.event(
                self.number, at, self.r, prediction=self.r.random() < 0.5, segments={"country": country}
            )
            partition = self.number % self.partitions
            found.append((self.topic, at, partition, json.dumps(value).encode()))
            for name, chance, longest, more in (
                ("clicks", 0.2, 15_000, {}),
                ("labels", 0.9, 12_000, {"label": outcome}),
            ):
                if self.r.random() < chance:
                    known = at + self.r.randrange(longest)
                    event = {"prediction_id": value["prediction_id"], "timestamp": stamp(known)} | more
                    if name == "clicks" and self.number % BAD_EVERY == 0:
                        del event["prediction_id"]
                    found.append((f"{self.prefix}in.{name}", known, partition, json.dumps(event).encode()))
        return found

    def send(self, records: list[tuple[str, int, int, bytes]]) -> None:
        asyncio.run(self._send(sorted(records, key=lambda record: (record[0] != self.topic, record[1]))))

    async def _send(self, records) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.servers, linger_ms=20)
        await producer.start()
        for topic, _, partition, value in records:
            await producer.send(topic, value, key=b"key", partition=partition)
        await producer.stop()

    def performance(self) -> dict[str, dict]:
        """Records by id; one that was written twice is the same."""
        found: dict[str, dict] = {}
        for record in self.read(f"{self.prefix}performance"):
            body = orjson.loads(record.value)
            assert found.setdefault(body["id"], body) == body
        return found


def stamp(time_ms: int) -> str:
    text = dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def time_of(body: dict) -> int:
    return round(dt.datetime.fromisoformat(body["timestamp"]).timestamp() * 1000)


def assert_performance(bench: FeedbackBench) -> None:
    """Every record of performance against predictions, clicks and labels as they stand in their topics."""
    predictions = [json.loads(record.value) for record in bench.read(bench.topic)]
    clicked: dict[str, int] = {}
    labelled: dict[str, tuple[int, bool]] = {}
    bad = 0
    for record in bench.read(f"{bench.prefix}in.clicks"):
        body = json.loads(record.value)
        if "prediction_id" not in body:
            bad += 1
            continue
        clicked[body["prediction_id"]] = time_of(body)
    for record in bench.read(f"{bench.prefix}in.labels"):
        body = json.loads(record.value)
        labelled[body["prediction_id"]] = time_of(body), body["label"]
    totals: Counter[tuple[str, int, int | None]] = Counter()
    by_edge: dict[int, list[dict]] = defaultdict(list)
    for body in predictions:
        by_edge[time_of(body) // bench_module.RESOLUTION_MS * bench_module.RESOLUTION_MS].append(body)
    records = bench.performance()
    for record in records.values():
        data = record["data"]
        window, horizon = data["window"], data.get("age_ms", data["horizon_ms"])
        assert data["final"] == ("age_ms" not in data)
        rows = [
            body
            for edge in range(window["start_ms"], window["end_ms"], bench_module.RESOLUTION_MS)
            for body in by_edge[edge]
            if data["segment"] == "all" or (data["segment"] == "country=de") == (body["segments"]["country"] == "de")
        ]
        if data["segment"] == "all":
            totals[data["metric"], data["horizon_ms"], data.get("age_ms")] += len(rows)
        assert data["counts"]["predictions"] == len(rows)
        assert not data["incomplete"]
        if data["metric"] == "ctr":
            hits = [0 <= clicked.get(body["prediction_id"], 1 << 60) - time_of(body) < horizon for body in rows]
            assert data["counts"]["observed"] == sum(hits)
            assert data["value"] == pytest.approx(sum(hits) / len(rows), abs=1e-12)
        elif data["metric"] == "accuracy":
            known = [(body, labelled[body["prediction_id"]]) for body in rows if body["prediction_id"] in labelled]
            right = [label == body["prediction"] for body, (at, label) in known if at - time_of(body) < horizon]
            assert data["counts"]["observed"] == len(right)
            assert data["value"] == (pytest.approx(sum(right) / len(right), abs=1e-12) if right else None)
    for metric in ("ctr", "accuracy", "auroc"):
        for horizon, age in (*((horizon, None) for horizon in HORIZONS_MS), *AGES_MS):
            assert totals[metric, horizon, age] == len(predictions), totals
    assert_letters(bench, bad)


def assert_letters(bench: FeedbackBench, bad: int) -> None:
    """One dead letter of each click that could not be read."""
    letters = [dict(letter.headers) for letter in bench.read(f"{bench.prefix}dead-letters")]
    mine = {(h["dlq.partition"], h["dlq.offset"]) for h in letters if h["dlq.topic"].decode().endswith("in.clicks")}
    assert len(mine) == bad > 0
