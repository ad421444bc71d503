"""Many models with many features: references, and events at a steady rate that cost their maker next to nothing.

Every event is a JSON object of its own id and time and of a body that was encoded beforehand: BODIES distinct ones a model.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from aiokafka import AIOKafkaProducer

BODIES = 60
BATCH_BYTES_MAX = 900_000
DAY_AT_ONCE = 1_000
CATEGORICAL_SHARE = 0.2
CATEGORIES = (3, 8, 20, 30)
SEGMENT_KEY = "region"
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
SEASON_ROWS, SEASON_MINUTES = 25, 4  # of a minute of a reference with a season; such minutes an hour
SEASON_SIGMA = 0.5


@dataclass(frozen=True, slots=True)
class Shape:
    """How many models, features of each, values of one segment key (0: none), and hours of a daily season (0 or 24)."""

    models: int
    features: int
    segments: int = 0
    strata: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"model_{i:02d}" for i in range(self.models))

    @property
    def regions(self) -> tuple[str, ...]:
        return tuple(f"region_{i}" for i in range(self.segments))

    @property
    def categorical(self) -> int:
        return int(self.features * CATEGORICAL_SHARE)


def columns(shape: Shape, seed: int, rows: int) -> dict[str, Any]:
    """`rows` rows of one model: normal and lognormal features, categories, a decision, a score."""
    g = np.random.default_rng(seed)
    data: dict[str, Any] = {}
    for i in range(shape.features - shape.categorical):
        x = g.normal(size=rows)
        data[f"numeric_{i:03d}"] = np.round(np.exp(x) * 40, 3) if i % 4 == 1 else np.round(x, 5)
    for i in range(shape.categorical):
        size = CATEGORIES[i % len(CATEGORIES)]
        share = 1 / np.arange(1, size + 1)
        labels = np.array([f"category_{k:02d}" for k in range(size)])
        data[f"category_{i:03d}"] = labels[g.choice(size, rows, p=share / share.sum())]
    score = 1 / (1 + np.exp(-g.normal(size=rows) * 1.5))
    data["score"] = np.round(score, 6)
    data["prediction"] = np.where(score > 0.5, "1", "0")
    return data


def write_references(folder: Path, shape: Shape, rows: int, *, per_minute: int, end_ms: int) -> None:
    """One Parquet file a model, `per_minute` rows a minute of its time, the last one at `end_ms`.

    With strata the rows are minutes of SEASON_ROWS, SEASON_MINUTES an hour, and numeric features follow the clock.
    """
    times = end_ms - (np.arange(rows)[::-1] * (60_000 / per_minute)).astype(np.int64)
    if shape.strata:
        minute = np.arange(rows)[::-1] // SEASON_ROWS * (60 // SEASON_MINUTES)
        times = end_ms // HOUR_MS * HOUR_MS - minute * 60_000 + np.arange(rows)[::-1] % SEASON_ROWS
    swing = SEASON_SIGMA * np.sin(2 * np.pi * (times // HOUR_MS) / 24) * bool(shape.strata)
    for number, name in enumerate(shape.names):
        data = columns(shape, 1_000 + number, rows)
        data |= {key: np.round(x + swing, 5) for key, x in data.items() if key.startswith("numeric_")}
        data["timestamp"] = pa.array(times, pa.timestamp("ms"))
        pq.write_table(pa.table(data), folder / f"{name}.parquet")


def config_text(shape: Shape, bootstrap: str, *, port: int, extra: str = "") -> str:
    """monitor.yaml: the defaults, windows of a minute, the segments and strata of the shape."""
    segments = f", segments: {{{SEGMENT_KEY}: [{', '.join(shape.regions)}]}}" if shape.segments else ""
    models = "".join(
        f"  {name}: {{reference: {{file: {name}.parquet, time: timestamp}}{segments}}}\n" for name in shape.names
    )
    least, season = (SEASON_ROWS, ", season: hour_of_day") if shape.strata else (500, "")
    return (
        f'kafka: {{bootstrap_servers: "{bootstrap}"}}\ntopics: {{predictions: predictions}}\n'
        f"metrics: {{port: {port}}}\nmemory_budget: 8 GB\ndefaults: {{window: {{every: 1m, min_events: {least}}}{season}}}\n"
        f"{extra}models:\n{models}"
    )


@dataclass
class Traffic:
    """Events of all models in turn. `sent` counts what the broker has acknowledged."""

    shape: Shape
    bootstrap: str
    partitions: int
    topic: str = "predictions"
    sent: int = 0
    _bodies: list[bytes] = field(default_factory=list)
    _number: Iterator[int] = field(default_factory=count)
    _run: str = field(default_factory=lambda: f"{time.time_ns():x}")

    def __post_init__(self) -> None:
        made = [columns(self.shape, 7_000 + number, BODIES) for number in range(self.shape.models)]
        for i in range(BODIES):
            for name, data in zip(self.shape.names, made, strict=True):
                body: dict[str, Any] = {"model": name, "version": "1"}
                body["features"] = {key: _plain(data[key][i]) for key in data if key not in {"score", "prediction"}}
                body |= {"prediction": int(data["prediction"][i]), "score": float(data["score"][i])}
                if self.shape.segments:
                    body["segments"] = {SEGMENT_KEY: self.shape.regions[i % self.shape.segments]}
                self._bodies.append(b"," + orjson.dumps(body)[1:])

    @property
    def event_bytes(self) -> float:
        return float(np.mean([len(body) for body in self._bodies])) + 80

    def producer(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            bootstrap_servers=self.bootstrap, acks="all", max_batch_size=1 << 20, max_request_size=1 << 20
        )

    async def publish(self, producer: AIOKafkaProducer, n: int, first_ms: int, last_ms: int) -> None:
        """n events with times from `first_ms` to before `last_ms`; returns once all are acknowledged."""
        start = [producer.create_batch() for _ in range(self.partitions)]
        waiting: list[Any] = []
        seconds: dict[int, bytes] = {}
        bodies, partitions = self._bodies, self.partitions
        for i in range(n):
            number = next(self._number)
            second, ms = divmod(first_ms + (last_ms - first_ms) * i // n, 1000)
            if second not in seconds:
                seconds[second] = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
            value = b'{"prediction_id":"%s-%d","timestamp":"%s.%03dZ"%s' % (
                self._run.encode(), number, seconds[second], ms, bodies[number % len(bodies)],
            )  # fmt: skip
            p = number % partitions
            if start[p].append(key=None, value=value, timestamp=None) is None or start[p].size() > BATCH_BYTES_MAX:
                raise ValueError("a batch is full: publish fewer events at once")
        for p, batch in enumerate(start):
            batch.close()
            waiting.append(await producer.send_batch(batch, self.topic, partition=p))
        await asyncio.gather(*waiting)
        self.sent += n

    async def history(self, minutes: int, per_minute: int, end_ms: int, at_once: int = 1_000) -> None:
        """Events of the minutes before `end_ms`, as fast as the broker takes them."""
        producer = self.producer()
        await producer.start()
        try:
            total = minutes * per_minute
            begin = end_ms - minutes * 60_000
            for done in range(0, total, at_once):
                n = min(at_once, total - done)
                edges = (begin + 60_000 * at // per_minute for at in (done, done + n))
                await self.publish(producer, n, *edges)
        finally:
            await producer.stop()

    async def day(self, per_minute: int, end_ms: int) -> None:
        """One minute of each of the 24 hours before the one of `end_ms`."""
        producer = self.producer()
        await producer.start()
        try:
            for hour in range(end_ms // HOUR_MS - 24, end_ms // HOUR_MS):
                for first in range(0, per_minute, DAY_AT_ONCE):
                    n = min(DAY_AT_ONCE, per_minute - first)
                    edges = (hour * HOUR_MS + 60_000 * at // per_minute for at in (first, first + n))
                    await self.publish(producer, n, *edges)
        finally:
            await producer.stop()

    async def live(self, rate: int, stop: asyncio.Event, *, tick_s: float = 0.1) -> None:
        """`rate` events a second with the time of now, until `stop`. What a slow broker delays is sent later, none is left out."""
        producer = self.producer()
        await producer.start()
        try:
            begin, done = time.time(), 0
            while not stop.is_set():
                due = int((time.time() - begin) * rate)
                n = min(due - done, max(int(rate * tick_s), 1))
                if n <= 0:
                    await asyncio.sleep(tick_s / 4)
                    continue
                first_ms = int((begin + done / rate) * 1000)
                await self.publish(producer, n, first_ms, int((begin + (done + n) / rate) * 1000))
                done += n
                if due - done < rate * tick_s:
                    await asyncio.sleep(tick_s / 2)
        finally:
            await producer.stop()


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
