"""What bad input costs, through a real broker and a real worker with all defaults on.

    python -m load_tests.bad_input [--events N] [--pairs N] [--json]

One run, one machine: a backlog of good events, the same with 1 % and with 50 % bad ones, and nothing but bad ones (far more than
100,000 in a row, with one good event behind them). Events per CPU second of the worker's process, all threads, fetching and
producing included; starting and compiling are not in it. Every dead letter must stand in Kafka, and every good event must be
applied. Then pairs of a bad and a good event on a quiet topic: the time from handing the good one to the producer until a
marker that counts it can be read from the panes topic. Exit code 1 when a number differs or a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic

from load_tests import harness
from load_tests.throughput import backlog
from load_tests.throughput.__main__ import training
from stream.broker import Broker
from stream.panes import Marker, decode_record

PARTITIONS = 4
PORT = 19_564
STEP_MS = 1.0
SHARES = {"clean": 0, "one per cent bad": 100, "half bad": 2, "nothing but bad": 1}  # every n-th event is bad; 0 = none
CLEAN_SHARE_MIN = 0.8  # of the clean rate, with 1 % bad
ALL_BAD_MIN = 30_000  # events per CPU second
NEXT_GOOD_MS_MAX = 100.0  # p99
CONFIG = """\
kafka: {{bootstrap_servers: "{bootstrap}"}}
topics: {{predictions: {{name: {name}, lateness: {lateness}}}}}
prefix: {name}-
resolution: {resolution}
metrics: {{port: {port}}}
models: {{fraud: {{reference: {{file: training.parquet, time: timestamp}}}}}}
"""


def spoilt(value: bytes, number: int) -> bytes:
    """One of nine kinds of bad event, in turn, each as long as a good one where its kind allows it."""
    kinds = (
        lambda v: v[:-1],
        lambda v: v.replace(b'"prediction_id"', b'"id"'),
        lambda v: v.replace(b'"timestamp":"', b'"timestamp":"on '),
        lambda v: v.replace(b"DE", b"\xe9t").replace(b"FR", b"\xe9t").replace(b"US", b"\xe9t"),
        lambda v: v + v[:40],
        lambda v: b"[" + v + b"]",
        lambda v: v.replace(b'"score":', b'"score":"high","was":'),
        lambda _: b"",
        lambda _: b"<html><body>502 Bad Gateway</body></html>",
    )
    return kinds[number % len(kinds)](value)


def values(events: int, every: int) -> Iterator[tuple[bytes, bytes]]:
    """(key, value): every `every`-th one bad; the very last one is good."""
    for number, (_, key, value) in enumerate(backlog.events(7, events, STEP_MS)):
        bad = every and number % every == 0 and number < events - 1
        yield key, spoilt(value, number // every) if bad else value


def bad_of(events: int, every: int) -> int:
    return -(-(events - 1) // every) if every else 0


async def publish(bootstrap: str, topic: str, rows: Iterator[tuple[bytes, bytes]]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=1 << 19)
    await producer.start()
    try:
        batches, sent = [producer.create_batch() for _ in range(PARTITIONS)], []
        for number, (key, value) in enumerate(rows):
            p = number // 64 % PARTITIONS  # stretches: bad and good ones in every partition, whatever the share
            if batches[p].append(key=key, value=value, timestamp=None) is None:
                sent.append(await producer.send_batch(batches[p], topic, partition=p))
                batches[p] = producer.create_batch()
                batches[p].append(key=key, value=value, timestamp=None)
        sent += [await producer.send_batch(batch, topic, partition=p) for p, batch in enumerate(batches)]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


def configured(folder: Path, bootstrap: str, name: str, **changes: str) -> Path:
    config = folder / f"{name}.yaml"
    settings = {"lateness": "1m", "resolution": "1m"} | changes
    config.write_text(CONFIG.format(bootstrap=bootstrap, name=name, port=PORT, **settings))
    harness.run("topics", "create", "--config", config, "--replication", "1")
    return config


def drained(folder: Path, bootstrap: str, name: str, events: int, every: int) -> dict[str, Any]:
    """One worker over one backlog; the clock runs from the first look that sees progress to the last event."""
    topic = name.replace(" ", "-")
    _topic(bootstrap, topic, PARTITIONS)
    asyncio.run(publish(bootstrap, topic, values(events, every)))
    config = configured(folder, bootstrap, topic)
    first, last, log = None, (0.0, 0.0, 0.0), folder / f"{topic}.log"
    with harness.running(log, "run", "--config", config, "--workers", "1") as process:
        while last[0] < events:
            if process.poll() is not None:
                raise RuntimeError(log.read_text()[-3000:])
            consumed = harness.metrics(PORT).get("driftline_consumed_events_total", 0.0)
            if consumed:
                worker = harness.workers(process)[0]
                last = (consumed, time.perf_counter(), harness.cpu_s(worker))
                first = first or last
            time.sleep(0.05)
        bad = bad_of(events, every)
        harness.wait_until(lambda: written(bootstrap, f"{topic}-dead-letters") >= bad, 60, "dead letters")
        # what was consumed and not yet written by then is CPU time of these events too
        worker = harness.workers(process)[0]
        last = (last[0], last[1], harness.cpu_s(worker))
        seen = harness.metrics(PORT)
    assert first is not None
    row = {
        "name": name,
        "events": int(last[0] - first[0]),
        "wall_s": last[1] - first[1],
        "cpu_s": last[2] - first[2],
        "bad": bad,
        "dead_letters_written": written(bootstrap, f"{topic}-dead-letters"),
        "applied": int(seen["driftline_applied_events_total"]),
        "good": events - bad,
    }
    print(orjson.dumps(row).decode(), file=sys.stderr)  # the rest takes a while
    return row


def written(bootstrap: str, topic: str) -> int:
    """Records in a topic that nobody deletes from: the sum of its ends."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    try:
        places = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
        return sum(consumer.end_offsets(places).values())
    finally:
        consumer.close()


def _topic(bootstrap: str, name: str, partitions: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic(name, partitions, 1)], wait_for_metadata=True)
    admin.close()


def next_good(folder: Path, bootstrap: str, pairs: int) -> list[float]:
    """ms from produce to a readable marker, of the good event right behind each of `pairs` bad ones. Each good event is
    a second of event time later than the one before, so that it closes a pane of a second: its marker tells its offset.
    """
    _topic(bootstrap, "pairs", 1)
    config = configured(folder, bootstrap, "pairs", lateness="1ms", resolution="1s")
    with harness.running(folder / "pairs.log", "run", "--config", config, "--workers", "1") as process:
        try:
            return asyncio.run(_pairs(bootstrap, pairs))
        except TimeoutError:
            raise RuntimeError((folder / "pairs.log").read_text()[-3000:]) from None
        finally:
            assert process.poll() is None


async def _pairs(bootstrap: str, pairs: int) -> list[float]:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    consumer = AIOKafkaConsumer("pairs-panes", bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await producer.start()
    await consumer.start()
    took = []
    try:
        rows = [(key, value) for _, key, value in backlog.events(9, pairs + 20, 1000.0)]
        for number, (key, value) in enumerate(rows):
            await producer.send("pairs", spoilt(value, number), key=key)
            began = time.perf_counter()
            sent = await producer.send_and_wait("pairs", value, key=key)
            await asyncio.wait_for(_counted(consumer, sent.offset), 120)
            took.append((time.perf_counter() - began) * 1e3)
            await asyncio.sleep(0.013 * (number % 7))  # not in step with anything that is periodic
    finally:
        await consumer.stop()
        await producer.stop()
    return took[20:]  # the first ones wait for the worker's start


async def _counted(consumer: AIOKafkaConsumer, offset: int) -> None:
    while True:
        for records in (await consumer.getmany(timeout_ms=1000)).values():
            for record in records:
                body = decode_record(record.value)
                if isinstance(body, Marker) and body.next_offset.get("predictions", 0) > offset:
                    return


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000, help="of the clean backlog; the others have fewer")
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    arguments = parser.parse_args()
    sizes = dict(zip(SHARES, (1.0, 1.0, 0.3, 0.3), strict=True))
    with tempfile.TemporaryDirectory() as temporary, Broker(tuning="load") as broker:
        folder, bootstrap = Path(temporary), broker.bootstrap_servers
        training(folder)
        rows = [
            drained(folder, bootstrap, name, int(arguments.events * sizes[name]), every)
            for name, every in SHARES.items()
        ]
        latency = next_good(folder, bootstrap, arguments.pairs)
    result = summary(rows, latency)
    print(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode() if arguments.json else table(result))
    return 0 if all(result["holds"].values()) else 1


def summary(rows: list[dict[str, Any]], latency_ms: list[float]) -> dict[str, Any]:
    for row in rows:
        row["events_per_cpu_s"] = round(row["events"] / row["cpu_s"])
        row["of_clean"] = round(row["events_per_cpu_s"] / rows[0]["events_per_cpu_s"], 3)
    _, little, _, all_bad = rows
    p99 = quantile(latency_ms, 0.99)
    holds = {
        "every bad event is one dead letter in Kafka": all(r["dead_letters_written"] == r["bad"] for r in rows),
        "every good event is applied": all(r["applied"] == r["good"] for r in rows),
        f"1 % bad: at least {CLEAN_SHARE_MIN:.0%} of the clean rate": little["of_clean"] >= CLEAN_SHARE_MIN,
        f"nothing but bad: at least {ALL_BAD_MIN:,} a CPU second": all_bad["events_per_cpu_s"] >= ALL_BAD_MIN,
        f"the next good event counts within {NEXT_GOOD_MS_MAX:g} ms (p99)": p99 <= NEXT_GOOD_MS_MAX,
    }
    milliseconds = {"p50": quantile(latency_ms, 0.5), "p99": p99, "max": max(latency_ms), "pairs": len(latency_ms)}
    return {"rows": rows, "next_good_ms": {k: round(v, 1) for k, v in milliseconds.items()}, "holds": holds}


def table(result: dict[str, Any]) -> str:
    lines = [f"{'':<18}{'events':>10}{'a CPU second':>14}{'of clean':>10}"]
    lines += [
        f"{r['name']:<18}{r['events']:>10,}{r['events_per_cpu_s']:>14,}{r['of_clean']:>10.2f}" for r in result["rows"]
    ]
    lines.append(f"next good event, ms: {result['next_good_ms']}")
    lines += [f"{'ok' if held else 'NOT MET':<8}{what}" for what, held in result["holds"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
