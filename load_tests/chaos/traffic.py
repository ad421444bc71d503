"""The events of a chaos run: a function of the seed and the step alone, good and bad, with partitions that fall silent."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from load_tests.chaos.cluster import COUNTRIES, IDLE_TIMEOUT_S, MODELS, PARTITIONS

STEP_S = 0.05
RETRY_S = 0.2
EVENTS_PER_STEP = 16  # 320 a second
SPEED = 2.0  # event time runs so much faster than the wall clock, from BEHIND_S before it until it has caught up
BEHIND_S = 7_200
DRIFT_S = 60  # of event time: `moving` drifts for so long, and then not for as long
DRIFT_SIZE = 30.0
JITTER_MS = 800
LATE_MS = 60_000
AGAIN = 400  # a second copy may follow so many records later
ACTIVE_S, SILENT_S = (5.0, 20.0), (IDLE_TIMEOUT_S + 5.0, IDLE_TIMEOUT_S + 22.0)

Record = tuple[int, bytes | None]  # partition, value


def stamp(time_ms: int) -> str:
    text = dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


@dataclass
class Source:
    """Seeded events. `step()` gives those of the next STEP_S; nothing here looks at a clock."""

    seed: int
    start_ms: int
    number: int = 0
    steps: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.r = random.Random(f"traffic {self.seed}")
        self._recent: deque[Record] = deque(maxlen=AGAIN)
        self._silent = [False] * PARTITIONS
        self._until = [self.r.uniform(*ACTIVE_S) for _ in range(PARTITIONS)]

    def clock_ms(self) -> int:
        """Event time of this step: faster than the wall, and never ahead of where the wall then is."""
        elapsed_ms = self.steps * STEP_S * 1000
        return self.start_ms + int(min(elapsed_ms * SPEED, elapsed_ms + BEHIND_S * 1000))

    def step(self) -> list[Record]:
        self.steps += 1
        active = self._active(self.steps * STEP_S)
        if not active:
            return []
        found: list[Record] = []
        for _ in range(EVENTS_PER_STEP):
            found += self._event(self.r.choice(active))
        self._recent.extend(found)
        return found

    def _active(self, now_s: float) -> list[int]:
        for partition in range(PARTITIONS):
            if now_s >= self._until[partition]:
                self._silent[partition] = not self._silent[partition]
                self._until[partition] = now_s + self.r.uniform(*(SILENT_S if self._silent[partition] else ACTIVE_S))
        return [partition for partition in range(PARTITIONS) if not self._silent[partition]]

    def _event(self, partition: int) -> list[Record]:
        self.number += 1
        clock_ms = self.clock_ms()
        body = self._body(clock_ms + self.r.randrange(-JITTER_MS, JITTER_MS))
        if self.r.random() > 0.08:
            self.kinds["good"] += 1
            return [(partition, json.dumps(body).encode())]
        kind = self.r.choice([*SPOILT, "cut", "tombstone", "empty", "twice", "again"])
        self.kinds[kind] += 1
        if kind == "again":
            return [self.r.choice(self._recent)] if self._recent else []
        if kind in SPOILT:
            SPOILT[kind](body, clock_ms)
        data = json.dumps(body).encode()
        match kind:
            case "cut":
                return [(partition, data[: self.r.randrange(1, len(data))])]
            case "tombstone":
                return [(partition, None)]
            case "empty":
                return [(partition, b"")]
            case "twice":
                return [(partition, data), (partition, data)]
        return [(partition, data)]

    def _body(self, time_ms: int) -> dict[str, Any]:
        model = MODELS[self.r.random() < 0.5]
        drifts = model == "moving" and time_ms // 1000 // DRIFT_S % 2 == 1
        return {
            "prediction_id": f"{self.seed}-{self.number}",
            "model": model,
            "version": "1",
            "timestamp": stamp(time_ms),
            "features": {
                "amount": round(self.r.gauss(50, 10) + (DRIFT_SIZE if drifts else 0.0), 3),
                "country": self.r.choice(COUNTRIES),
            },
            "score": round(self.r.random(), 4),
        }


Spoiler = Callable[[dict[str, Any], int], None]
SPOILT: dict[str, Spoiler] = {
    "late": lambda body, clock_ms: body.update(timestamp=stamp(clock_ms - LATE_MS)),
    "no id": lambda body, _: body.pop("prediction_id"),
    "no model": lambda body, _: body.pop("model"),
    "unknown model": lambda body, _: body.update(model="nobody"),
    "bad time": lambda body, _: body.update(timestamp="yesterday"),
    "text feature": lambda body, _: body["features"].update(amount="much"),
    "no feature": lambda body, _: body["features"].pop("amount"),
    "not finite": lambda body, _: body["features"].update(amount=float("nan")),
    "new country": lambda body, _: body["features"].update(country="xx"),
}


class Traffic:
    """Publishes a source at the pace of the wall clock; what the broker's absence has held up follows at once."""

    def __init__(self, servers: str, topic: str, source: Source) -> None:
        self.source = source
        self.published = 0
        self.unacknowledged = 0  # the log decides whether they are there
        self._servers = servers
        self._topic = topic
        self._ending = asyncio.Event()

    def stop(self) -> None:
        self._ending.set()

    async def run(self) -> None:
        began = time.monotonic()
        producer = await self._connected()
        try:
            while not self._ending.is_set():
                ahead = began + self.source.steps * STEP_S - time.monotonic()
                if ahead > 0:
                    await asyncio.sleep(ahead)
                for partition, value in self.source.step():
                    await self._send(producer, partition, value)
        finally:
            await producer.stop()

    async def _connected(self) -> AIOKafkaProducer:
        """A producer that has met the broker, which the first fault may have taken away before it did."""
        while True:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._servers, compression_type="lz4", linger_ms=20, request_timeout_ms=20_000
            )
            try:
                await producer.start()
            except KafkaError:
                await producer.stop()
                await asyncio.sleep(RETRY_S)
                continue
            return producer

    async def _send(self, producer: AIOKafkaProducer, partition: int, value: bytes | None) -> None:
        while True:
            try:
                sent = await producer.send(self._topic, value, key=b"key", partition=partition)
            except KafkaError:
                await asyncio.sleep(RETRY_S)
                continue
            sent.add_done_callback(self._note)
            self.published += 1
            return

    def _note(self, sent: asyncio.Future[Any]) -> None:
        if sent.cancelled() or sent.exception() is not None:
            self.unacknowledged += 1
