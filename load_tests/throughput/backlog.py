"""The backlog that every contestant drains: about 650 bytes an event, 16 numeric and 4 categorical features, 8 partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
from aiokafka import AIOKafkaProducer

MODEL = "fraud"
VERSION = "2026-11-20"
NUMERIC = tuple(f"numeric_{i:02d}" for i in range(16))
CATEGORICAL = tuple(f"category_{i}" for i in range(4))
START_MS = 1_790_000_000_000
BLOCK = 20_000


def columns(seed: int, n: int) -> dict[str, Any]:
    """n rows: normal, lognormal and integer-valued numeric features in turn, categories with Zipf-like shares."""
    g = np.random.default_rng(seed)
    data: dict[str, Any] = {}
    for i, name in enumerate(NUMERIC):
        x = g.normal(size=n)
        data[name] = (
            np.round(np.exp(x) * 40, 4) if i % 4 == 1 else np.round(np.abs(x) * 9) if i % 4 == 2 else np.round(x, 5)
        )
    for i, name in enumerate(CATEGORICAL):
        size = (3, 8, 20, 60)[i]
        share = 1 / np.arange(1, size + 1)
        data[name] = np.array([f"{name[-1]}_value_{k:02d}" for k in range(size)])[
            g.choice(size, n, p=share / share.sum())
        ]
    score = 1 / (1 + np.exp(-g.normal(size=n) * 1.5))
    data["score"] = np.round(score, 6)
    data["prediction"] = (score > 0.5).astype(int)
    return data


def events(seed: int, n: int, step_ms: float) -> Iterator[tuple[int, bytes, bytes]]:
    """(event time ms, key, value), in event-time order, one every `step_ms`."""
    done = 0
    while done < n:
        size = min(BLOCK, n - done)
        data = columns(seed + done, size)
        lists = {name: data[name].tolist() for name in (*NUMERIC, *CATEGORICAL)}
        for i in range(size):
            number = done + i
            time_ms = START_MS + int(number * step_ms)
            key = f"{seed:08x}-{number:012x}-4b7e"
            value = {
                "prediction_id": key,
                "model": MODEL,
                "version": VERSION,
                "timestamp": _rfc3339(time_ms),
                "features": {name: values[i] for name, values in lists.items()},
                "prediction": int(data["prediction"][i]),
                "score": float(data["score"][i]),
                "segments": {"country": ("DE", "FR", "US")[number % 3]},
                "latency_ms": 12.5,
            }
            yield time_ms, key.encode(), orjson.dumps(value)
        done += size


def _rfc3339(time_ms: int) -> str:
    return np.datetime_as_string(np.datetime64(time_ms, "ms"), unit="ms") + "Z"


async def publish(bootstrap_servers: str, topic: str, partitions: int, *, seed: int, n: int, step_ms: float) -> int:
    """Writes the backlog in whole batches; returns the bytes of the values."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers, acks="all", max_batch_size=1 << 19, max_request_size=1 << 20
    )
    await producer.start()
    size = 0
    batches = [producer.create_batch() for _ in range(partitions)]
    pending: list[Any] = []
    try:
        for i, (_, key, value) in enumerate(events(seed, n, step_ms)):
            p = i % partitions
            size += len(value)
            if batches[p].append(key=key, value=value, timestamp=None) is None:
                pending.append(await _send(producer, batches, p, topic))
                batches[p].append(key=key, value=value, timestamp=None)
        pending += [await _send(producer, batches, p, topic) for p in range(partitions)]
        await asyncio.gather(*pending)
    finally:
        await producer.stop()
    return size


async def _send(producer: AIOKafkaProducer, batches: list[Any], p: int, topic: str) -> Any:
    batch, batches[p] = batches[p], producer.create_batch()
    batch.close()
    return await producer.send_batch(batch, topic, partition=p)
