"""What the tests of whole workers share: a small watched topic, its events, processes, and a recount in plain Python."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from stream.admin import create_topics
from stream.config_loader import load
from stream.panes import EDGE_END, Marker, Pane, decode_record

RESOLUTION_MS = 1_000
LATENESS_MS = 2_000
COUNTRIES = ("de", "fr", "it")
START_S = 300.0  # the first process of a machine compiles for one or two minutes, on a crowded one for longer
COMPRESSIONS = (None, "gzip", "snappy", "lz4", "zstd")


def vector(r: random.Random, length: int, *, turned: bool = False) -> list[float]:
    """Around one point; turned: around another, with numbers of the same sizes."""
    return [(-1 if turned and place % 2 else 1) * r.gauss(1, 1) for place in range(length)]


def reference_file(path: Path, *, rows: int = 12_000, seed: int = 1, dimension: int = 0) -> None:
    r = random.Random(seed)
    columns = {
        "amount": [r.gauss(50, 10) for _ in range(rows)],
        "country": [r.choice(COUNTRIES) for _ in range(rows)],
        "score": [r.random() for _ in range(rows)],
        "timestamp": [dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=12 * i) for i in range(rows)],
    }  # fmt: skip
    if dimension:
        columns["vector"] = [vector(r, dimension) for _ in range(rows)]
    pq.write_table(pa.table(columns), path)


def event(number: int, time_ms: int, r: random.Random, **changes) -> dict:
    stamp = dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC).isoformat(timespec="milliseconds")
    return {
        "prediction_id": f"id-{number}",
        "model": "m",
        "version": "1",
        "timestamp": stamp.replace("+00:00", "Z"),
        "features": {"amount": round(r.gauss(50, 10), 3), "country": r.choice(COUNTRIES)},
        "score": round(r.random(), 4),
    } | changes


@dataclass
class Bench:
    """One watched topic on a real broker. `clock_ms` is the event time of the next events. `dimension`: of a feature `vector`."""

    servers: str
    prefix: str
    folder: Path
    partitions: int = 4
    settings: str = ""
    dimension: int = 0
    clock_ms: int = field(default_factory=lambda: int(time.time()) * 1000 - 3_600_000)
    number: int = 0

    quiet = "metrics: {port: 0}\n"  # unless the settings name a port: tests run side by side

    def __post_init__(self) -> None:
        self.r = random.Random(5)
        self.topic = f"{self.prefix}predictions"
        reference_file(self.folder / "train.parquet", dimension=self.dimension)
        self.config_path = self.folder / "monitor.yaml"
        self.config_path.write_text(
            f"kafka: {{bootstrap_servers: '{self.servers}'}}\n"
            f"topics: {{predictions: {{name: {self.topic}, lateness: {LATENESS_MS}ms}}}}\n"
            f"prefix: {self.prefix}\nresolution: {RESOLUTION_MS}ms\nmonitors: 2\n"
            f"defaults: {{window: {{every: 5s, min_events: 200}}}}\n"
            f"models: {{m: {{reference: {{file: train.parquet, time: timestamp}}{self._arrays()}}}}}\n"
            + self.settings
            + ("" if "metrics:" in self.settings else self.quiet)
        )
        self.config = load(self.config_path).config
        create_topics(self.config, with_inputs=self.partitions)

    def _arrays(self) -> str:
        if not self.dimension:
            return ""
        detector = "{type: mmd_random_features, targets: [vector], threshold: 0.05}"
        return f", targets: {{vector: {{dimension: {self.dimension}}}}}, detectors: [{detector}]"

    # -- events

    def events(self, n: int) -> list[tuple[int, bytes | None]]:
        """n records with their partitions: events in nearly this order, some of them bad, late, twice."""
        records: list[tuple[int, bytes | None]] = []
        for _ in range(n):
            self.number += 1
            self.clock_ms += 2 + self.number % 2  # 400 a second
            at = self.clock_ms + self.r.randrange(-800, 800)
            value = event(self.number, at, self.r)
            kind = self.number % 200
            if kind == 1:
                value["timestamp"] = event(0, at - 60_000, self.r)["timestamp"]  # late
            elif kind == 2:
                del value["prediction_id"]
            elif kind == 3:
                value["model"] = "nobody"
            elif kind == 4:
                value["features"]["amount"] = "much"
            data: bytes | None = json.dumps(value).encode()
            if kind == 5:
                data = data[:40]
            elif kind == 6:
                data = None
            partition = self.number % self.partitions
            records.append((partition, data))
            if kind == 7:
                records.append((partition, data))
        return records

    def produce(self, records, *, compressions=COMPRESSIONS) -> None:
        asyncio.run(self._produce(records, compressions))

    async def _produce(self, records, compressions) -> None:
        size = -(-len(records) // len(compressions))
        for at, compression in enumerate(compressions):
            producer = AIOKafkaProducer(
                bootstrap_servers=self.servers, compression_type=compression, linger_ms=20, max_batch_size=1 << 15
            )
            await producer.start()
            for partition, value in records[at * size : (at + 1) * size]:
                await producer.send(self.topic, value, key=b"key", partition=partition)
            await producer.stop()

    # -- processes

    def command(self, *arguments: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "stream.worker_main",
            str(self.config_path),
            "--snapshot-seconds",
            "1",
            *arguments,
        ]

    @contextlib.contextmanager
    def running(self, *arguments: str, command: list[str] | None = None):
        log = self.folder / f"worker-{time.monotonic_ns()}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command or self.command(*arguments), stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        process.log = log
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            process.stdin.close()

    def drain(self, seconds: float = START_S) -> None:
        with self.running("--drain") as process:
            code = process.wait(seconds)
            assert code == 0, process.log.read_text()[-4000:]

    # -- what is in Kafka

    def committed(self, topic: str = "", group: str = "workers") -> int:
        """Sum of a group's committed offsets of a topic, the predictions' by default; 0 for a group that has none."""
        return asyncio.run(self._committed(topic or self.topic, f"{self.prefix}{group}"))

    async def _committed(self, topic: str, group: str) -> int:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.servers)
        await admin.start()
        try:
            known = await admin.list_consumer_group_offsets(group)
        finally:
            await admin.close()
        return sum(max(said.offset, 0) for place, said in known.items() if place.topic == topic)

    def read(self, topic: str) -> list:
        return asyncio.run(self._read(topic))

    async def _read(self, topic: str) -> list:
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=self.servers, auto_offset_reset="earliest")
        await consumer.start()
        try:
            places = sorted(consumer.assignment())
            records, ends = [], await consumer.end_offsets(places)
            while any([await consumer.position(place) < ends[place] for place in places]):
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    records += batch
            return records
        finally:
            await consumer.stop()

    def windows(self) -> list[dict]:
        """Windows records of input series, each id once: a worker that died may have written one twice."""
        found = {}
        for record in self.read(f"{self.prefix}windows"):
            body = orjson.loads(record.value)
            if body["series"].startswith("sha256:") and body["segment"] == "all":
                key = (body["model"], body["series"], body["window"]["start_ms"])
                assert found.setdefault(key, body) == body, "two different records of one window"
        return sorted(found.values(), key=lambda body: body["window"]["start_ms"])

    def markers(self) -> dict[int, Marker]:
        """The last marker of every source partition."""
        last: dict[int, Marker] = {}
        for record in self.read(f"{self.prefix}panes"):
            body = decode_record(record.value)
            if isinstance(body, Marker) and body.edge_ms >= last.get(body.partition, body).edge_ms:
                last[body.partition] = body
        return last

    def recount(self) -> Recount:
        return recount(self.read(self.topic))


@dataclass
class Recount:
    """What the source log says, event by event: counters by partition, amounts of accepted events by pane edge."""

    counters: dict[int, Counter]
    amounts: dict[int, list[float]]
    events: Counter
    consumed: Counter


def recount(records) -> Recount:
    """Plain Python, no code of the product. Rules: contracts.md, Time and Identity."""
    counters: dict[int, Counter] = defaultdict(Counter)
    amounts, events, consumed = defaultdict(list), Counter(), Counter()
    largest: dict[int, int] = {}
    seen: dict[int, set] = defaultdict(set)
    for record in sorted(records, key=lambda record: (record.partition, record.offset)):
        p = record.partition
        consumed[p] += 1
        if record.value is None:
            counters[p]["tombstones"] += 1
            continue
        try:
            body = json.loads(record.value)
            name = body["prediction_id"]
        except (ValueError, KeyError):
            counters[p]["dead_letters"] += 1
            continue
        at = round(dt.datetime.fromisoformat(body["timestamp"]).timestamp() * 1000)
        if at < largest.get(p, -(10**18)) - LATENESS_MS:
            counters[p]["late"] += 1
            continue
        largest[p] = max(largest.get(p, at), at)
        edge = at // RESOLUTION_MS * RESOLUTION_MS
        if (edge, name) in seen[p]:
            counters[p]["duplicates"] += 1
            continue
        seen[p].add((edge, name))
        counters[p]["applied"] += 1
        if body["model"] == "m":
            events[edge] += 1
            amount = body["features"]["amount"]
            if isinstance(amount, float):
                amounts[edge].append(amount)
    return Recount(counters, amounts, events, consumed)


def assert_equal_to_recount(bench: Bench) -> None:
    """Accounting against the broker's own offsets, panes and windows against the recount: nothing lost, nothing twice."""
    expected = bench.recount()
    markers = bench.markers()
    assert set(markers) == set(range(bench.partitions))
    for partition, marker in markers.items():
        assert marker.edge_ms == EDGE_END
        told = marker.counters
        for name in ("applied", "dead_letters", "duplicates", "late", "tombstones"):
            assert told[name] == expected.counters[partition][name], (partition, name, told)
        assert told["consumed"] == expected.consumed[partition]
        assert marker.next_offset == {"predictions": expected.consumed[partition]}
    windows = bench.windows()
    assert sum(window["events"] for window in windows) == sum(expected.events.values())
    for window, following in itertools.pairwise(windows):
        assert window["window"]["end_ms"] <= following["window"]["start_ms"]
    for window in windows:
        edges = range(window["window"]["start_ms"], window["window"]["end_ms"], RESOLUTION_MS)
        assert window["events"] == sum(expected.events[edge] for edge in edges)
        values = [value for edge in edges for value in expected.amounts[edge]]
        target = window["targets"]["amount"]
        assert sum(target["bins"]) == len(values)
        assert abs(target["mean"] - sum(values) / len(values)) < 1e-9 * abs(target["mean"])
        assert (target["min"], target["max"]) == (min(values), max(values))
    letters = bench.read(f"{bench.prefix}dead-letters")
    ids = {dict(letter.headers)["dlq.partition"] + b"/" + dict(letter.headers)["dlq.offset"] for letter in letters}
    assert len(ids) == sum(counters["dead_letters"] for counters in expected.counters.values())


def pane_events(records) -> int:
    return sum(body.events for record in records if isinstance(body := decode_record(record.value), Pane))


def children(process: subprocess.Popen) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def until(condition, seconds: float = START_S, why=lambda: ""):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"waited in vain: {why()}")
