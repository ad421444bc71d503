"""The others: what the same backlog costs without driftline. Each runs in a process of its own and prints one JSON line.

    python -m load_tests.throughput.baselines NAME BOOTSTRAP TOPIC EVENTS

The timed part begins with the first event and ends with the last one: imports, joins and compilation are not in it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from typing import Any

import orjson

from load_tests.throughput.backlog import CATEGORICAL, NUMERIC


class Clock:
    """CPU (all threads) and wall time between the first event and the last."""

    def __init__(self, events: int) -> None:
        self.goal, self.seen = events, 0
        self.first = 0

    def count(self, n: int) -> bool:
        """True when the last event has been seen."""
        if self.seen == 0:
            self.first, self.wall, self.cpu = n, time.perf_counter(), time.process_time()
        self.seen += n
        return self.seen >= self.goal

    def report(self, name: str) -> None:
        events = self.seen - self.first  # the first delivery was fetched before the clock started
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        row = {"name": name, "events": events, "wall_s": wall, "cpu_s": cpu}
        os.write(1, orjson.dumps(row) + b"\n")  # Faust replaces sys.stdout


async def bare(bootstrap: str, topic: str, events: int) -> None:
    """aiokafka, no group, orjson.loads of every value, the result thrown away."""
    from aiokafka import AIOKafkaConsumer

    clock = Clock(events)
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=4 << 20,
    )
    await consumer.start()
    try:
        done = False
        while not done:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                for record in records:
                    orjson.loads(record.value)
                done = clock.count(len(records)) or done
    finally:
        clock.report("bare consumer + orjson.loads")
        await consumer.stop()


async def raw(bootstrap: str, topic: str, events: int) -> None:
    """driftline's transport of raw batches, framed by its kernel; orjson.loads of every value."""
    from load_tests.throughput.raw import raw_batches

    clock = Clock(events)
    async for records in raw_batches(bootstrap, topic):
        buffer = memoryview(records.buffer)
        for start, length in zip(records.value_start.tolist(), records.value_length.tolist(), strict=True):
            orjson.loads(buffer[start : start + length])
        if clock.count(len(records)):
            break
    clock.report("raw batches + orjson.loads")


def plain_faust(bootstrap: str, topic: str, events: int, *, adwin: bool) -> None:
    """One Faust agent, one Python object per event; with `adwin` one river ADWIN per numeric feature and category code."""
    import faust

    clock = Clock(events)
    name = "plain Faust + river ADWIN per feature" if adwin else "plain Faust, doing nothing"
    app = faust.App(
        f"plain-{os.getpid()}", broker=f"kafka://{bootstrap}", datadir=tempfile.mkdtemp(), web_enabled=False, topic_disable_leader=True,
        consumer_auto_offset_reset="earliest", broker_max_poll_records=5000, stream_wait_empty=False, autodiscover=False,
    )  # fmt: skip
    source = app.topic(topic, value_serializer="raw", key_serializer="raw")
    detectors: dict[str, Any] = {}
    codes: dict[str, dict[str, int]] = {c: {} for c in CATEGORICAL}
    if adwin:
        from river.drift import ADWIN

        detectors = {feature: ADWIN() for feature in (*NUMERIC, *CATEGORICAL)}

    @app.agent(source)
    async def watch(stream: Any) -> None:
        async for value in stream:
            if adwin:
                features = orjson.loads(value)["features"]
                for feature in NUMERIC:
                    detectors[feature].update(features[feature])
                for feature in CATEGORICAL:
                    table = codes[feature]
                    detectors[feature].update(table.setdefault(features[feature], len(table)))
            if clock.count(1):
                clock.report(name)
                os._exit(0)

    worker = faust.Worker(app, loglevel="ERROR")
    worker.execute_from_commandline()


def main() -> None:
    name, bootstrap, topic, events = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    if name == "bare":
        asyncio.run(bare(bootstrap, topic, events))
    elif name == "raw":
        asyncio.run(raw(bootstrap, topic, events))
    else:
        plain_faust(bootstrap, topic, events, adwin=name == "adwin")


if __name__ == "__main__":
    main()
