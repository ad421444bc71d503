"""What bad input costs, through a real broker and a real worker with all defaults on.

    python -m load_tests.bad_input [--events N] [--rounds N] [--pairs N] [--json]

One topic, one worker, one machine, one backlog after the other: rounds of good events and the same with 1 % bad ones, then
50 % bad ones, then nothing but bad ones (more than 100,000 in a row, with one good event behind them). Each is published in
a transaction, so that the worker, which is running, sees all of it at once: what is measured is the CPU time of the worker's
process, all threads, from the commit until every event is counted and every dead letter stands in Kafka; so fetching,
decoding, making, producing and acknowledging dead letters is in it, starting and compiling is not.

A backlog alone says little where others use the machine: a second of CPU time does less work while its core is shared, and a
snapshot falls into one backlog and not into the next. So good and 1 % bad are compared in rounds, every other one the other
way round, by the sums of all rounds, with the standard error of that share. The first bad event that the worker ever sees
is in the first round: what it cost once is in the sums, and said alone as `once_cpu_s`, which may come out below nothing,
as it has the noise of one round.

The bad ones are of nine kinds in turn: JSON that lacks its last byte; no prediction_id; a timestamp with text before it; bytes
that are not UTF-8; two events joined; an array with one event; a text as score; no bytes; an HTML page of an error. The first
seven are as long as a good event (650 bytes).

Then pairs of a bad and a good event on a quiet topic: the time from handing the good one to the producer until a marker that
counts it can be read from the panes topic. Exit code 1 when a number differs or a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

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
TOPIC = "mixed"
STEP_MS = 1.0
CLEAN, LITTLE, HALF, ALL = "clean", "one per cent bad", "half bad", "nothing but bad"
EVERY = {CLEAN: 0, LITTLE: 100, HALF: 2, ALL: 1}  # every n-th event is bad, 0 = none
POLL_S = 0.4  # a look at the worker's metrics costs it 4 ms
WAIT_S = 180.0  # patience with a busy machine, no promise
CLEAN_SHARE_MIN = 0.8  # of the clean rate, with 1 % bad
ERROR_MAX = 0.03  # standard error of that share
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


def values(rows: list[tuple[bytes, bytes]], every: int) -> Iterator[tuple[bytes, bytes]]:
    """(key, value): every `every`-th one bad; the very last one is good."""
    for number, (key, value) in enumerate(rows):
        bad = every and number % every == 0 and number < len(rows) - 1
        yield key, spoilt(value, number // every) if bad else value


def backlogs(events: int, rounds: int) -> list[tuple[str, int]]:
    """(name, events) of each backlog in order; the first is the warm-up, without a bad event."""
    pairs = [(CLEAN, LITTLE) if number % 2 == 0 else (LITTLE, CLEAN) for number in range(rounds)]
    return [
        (CLEAN, events // 5),
        *((name, events) for pair in pairs for name in pair),
        (HALF, events // 2),
        (ALL, events),
    ]


def bad_of(events: int, every: int) -> int:
    return -(-(events - 1) // every) if every else 0


async def publish(bootstrap: str, rows: Iterator[tuple[bytes, bytes]]) -> None:
    """All rows in one transaction."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id="bad-input", max_batch_size=1 << 19)
    await producer.start()
    try:
        async with producer.transaction():
            batches, sent = [producer.create_batch() for _ in range(PARTITIONS)], []
            for number, (key, value) in enumerate(rows):
                p = number // 64 % PARTITIONS  # stretches: bad and good ones in every partition, whatever the share
                if batches[p].append(key=key, value=value, timestamp=None) is None:
                    sent.append(await producer.send_batch(batches[p], TOPIC, partition=p))
                    batches[p] = producer.create_batch()
                    batches[p].append(key=key, value=value, timestamp=None)
            sent += [await producer.send_batch(batch, TOPIC, partition=p) for p, batch in enumerate(batches)]
            await asyncio.gather(*sent)
    finally:
        await producer.stop()


def configured(folder: Path, bootstrap: str, name: str, partitions: int, **changes: str) -> Path:
    config = folder / f"{name}.yaml"
    settings = {"lateness": "1m", "resolution": "1m"} | changes
    config.write_text(CONFIG.format(bootstrap=bootstrap, name=name, port=PORT, **settings))
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic(name, partitions, 1)], wait_for_metadata=True)
    admin.close()
    harness.run("topics", "create", "--config", config, "--replication", "1")
    return config


def drained(folder: Path, bootstrap: str, plan: list[tuple[str, int]]) -> list[dict[str, Any]]:
    """One worker over all backlogs, one after the other; one row each, the first left out."""
    config, log = configured(folder, bootstrap, TOPIC, PARTITIONS), folder / "worker.log"
    source = ((key, value) for _, key, value in backlog.events(7, sum(size for _, size in plan), STEP_MS))
    done, rows = Counts(), []
    with harness.running(log, "run", "--config", config, "--workers", "1") as process:
        try:
            harness.wait_until(lambda: harness.workers(process) and harness.metrics(PORT), WAIT_S, "a worker")
            for name, size in plan:
                bad, mixed = bad_of(size, EVERY[name]), values(list(islice(source, size)), EVERY[name])
                asyncio.run(publish(bootstrap, mixed))
                began, cpu_s = time.perf_counter(), harness.cpu_s(harness.workers(process)[0])
                wanted = Counts(done.events + size, done.letters + bad)
                harness.wait_until(
                    lambda wanted=wanted: finished(bootstrap, wanted), WAIT_S, f"{name}: {wanted}", POLL_S
                )
                row: dict[str, Any] = {
                    "name": name,
                    "events": size,
                    "bad": bad,
                    "cpu_s": harness.cpu_s(harness.workers(process)[0]) - cpu_s,
                    "wall_s": time.perf_counter() - began,
                }
                seen = harness.metrics(PORT)
                now = Counts(size + done.events, written(bootstrap, f"{TOPIC}-dead-letters"))
                row |= {"dead_letters_written": now.letters - done.letters, "good": size - bad}
                row["applied"] = int(seen["driftline_applied_events_total"]) - done.applied
                done = now._replace(applied=done.applied + row["applied"])
                print(orjson.dumps(row).decode(), file=sys.stderr)  # the rest takes a while
                rows.append(row)
        except (TimeoutError, IndexError) as error:
            raise RuntimeError(f"{error}\n{log.read_text()[-3000:]}") from error
    return rows[1:]


class Counts(NamedTuple):
    """So far, over all backlogs."""

    events: int = 0
    letters: int = 0
    applied: int = 0


def finished(bootstrap: str, wanted: Counts) -> bool:
    consumed = harness.metrics(PORT).get("driftline_consumed_events_total", 0.0)
    return consumed >= wanted.events and written(bootstrap, f"{TOPIC}-dead-letters") >= wanted.letters


def written(bootstrap: str, topic: str) -> int:
    """Records in a topic that nobody deletes from: the sum of its ends."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    try:
        places = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
        return sum(consumer.end_offsets(places).values())
    finally:
        consumer.close()


def next_good(folder: Path, bootstrap: str, pairs: int) -> list[float]:
    """ms from produce to a readable marker, of the good event right behind each of `pairs` bad ones. Each good event is
    a second of event time later than the one before, so that it closes a pane of a second: its marker tells its offset.
    """
    config = configured(folder, bootstrap, "pairs", 1, lateness="1ms", resolution="1s")
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
    parser.add_argument("--events", type=int, default=120_000, help="of a backlog; half of that where half is bad")
    parser.add_argument(
        "--rounds", type=int, default=40, help="of a clean backlog and one with 1 %% bad events; at least 2"
    )
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error("--rounds: one round has no error")
    with tempfile.TemporaryDirectory() as temporary, Broker(tuning="load") as broker:
        folder, bootstrap = Path(temporary), broker.bootstrap_servers
        training(folder)
        rows = drained(folder, bootstrap, backlogs(arguments.events, arguments.rounds))
        latency = next_good(folder, bootstrap, arguments.pairs)
    result = summary(rows, latency)
    print(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode() if arguments.json else table(result))
    return 0 if all(result["holds"].values()) else 1


def merged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each name: the sums of all its backlogs, the rate, and its share of the clean rate."""
    sums: dict[str, dict[str, Any]] = {}
    for row in rows:
        total = sums.setdefault(row["name"], dict.fromkeys(row, 0))
        total |= {key: value if key == "name" else round(total[key] + value, 3) for key, value in row.items()}
    for total in sums.values():
        total["events_per_cpu_s"] = round(total["events"] / total["cpu_s"])
        total["of_clean"] = round(total["events_per_cpu_s"] / sums[CLEAN]["events_per_cpu_s"], 3)
    return list(sums.values())


def rounds_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Share of the clean rate in each round, the standard error of their mean, and CPU seconds that the first round's bad
    events cost more than those of the median round.
    """
    clean, little = ([row["cpu_s"] for row in rows if row["name"] == name] for name in (CLEAN, LITTLE))
    shares = [a / b for a, b in zip(clean, little, strict=True)]
    more = [b - a for a, b in zip(clean, little, strict=True)]
    return {
        "of_clean": [round(share, 3) for share in shares],
        "error": round(statistics.stdev(shares) / len(shares) ** 0.5, 4),
        "once_cpu_s": round(more[0] - statistics.median(more[1:]), 3),
    }


def summary(backlog_rows: list[dict[str, Any]], latency_ms: list[float]) -> dict[str, Any]:
    rows, rounds = merged(backlog_rows), rounds_of(backlog_rows)
    by_name = {row["name"]: row for row in rows}
    little, all_bad = by_name[LITTLE], by_name[ALL]
    p99 = quantile(latency_ms, 0.99)
    holds = {
        "every bad event is one dead letter in Kafka": all(r["dead_letters_written"] == r["bad"] for r in backlog_rows),
        "every good event is applied": all(r["applied"] == r["good"] for r in backlog_rows),
        f"1 % bad: at least {CLEAN_SHARE_MIN:.0%} of the clean rate": little["of_clean"] >= CLEAN_SHARE_MIN,
        f"the standard error of that share is at most {ERROR_MAX:.0%}": rounds["error"] <= ERROR_MAX,
        f"nothing but bad: at least {ALL_BAD_MIN:,} a CPU second": all_bad["events_per_cpu_s"] >= ALL_BAD_MIN,
        f"the next good event counts within {NEXT_GOOD_MS_MAX:g} ms (p99)": p99 <= NEXT_GOOD_MS_MAX,
    }
    milliseconds = {"p50": quantile(latency_ms, 0.5), "p99": p99, "max": max(latency_ms), "pairs": len(latency_ms)}
    return {
        "rows": rows,
        "rounds": rounds,
        "next_good_ms": {k: round(v, 1) for k, v in milliseconds.items()},
        "load": round(os.getloadavg()[0], 1),
        "holds": holds,
    }


def table(result: dict[str, Any]) -> str:
    lines = [f"{'':<18}{'events':>10}{'a CPU second':>14}{'of clean':>10}"]
    lines += [
        f"{r['name']:<18}{r['events']:>10,}{r['events_per_cpu_s']:>14,}{r['of_clean']:>10.2f}" for r in result["rows"]
    ]
    lines.append(f"1 % bad, of clean, by round: {result['rounds']}; load {result['load']}")
    lines.append(f"next good event, ms: {result['next_good_ms']}")
    lines += [f"{'ok' if held else 'NOT MET':<8}{what}" for what, held in result["holds"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
