"""What every load test needs: driftline's command as real processes, its CPU time and memory, and topics read whole."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from kafka import KafkaConsumer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families


def driftline(*arguments: str | Path) -> list[str]:
    """The command line of `driftline` in this environment."""
    return [sys.executable, "-m", "stream.cli", *map(str, arguments)]


def run(*arguments: str | Path) -> None:
    """Run a `driftline` command to its end; its output is shown where it fails."""
    done = subprocess.run(driftline(*arguments), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"driftline {' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        )


@contextmanager
def running(log: Path, *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A `driftline` process in the background, its output in `log`; ended, with its children, on the way out."""
    with log.open("wb") as output:
        process = subprocess.Popen(driftline(*arguments), stdout=output, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()


def workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The worker processes below a supervisor: those that take part in the work, none of their helpers."""
    with suppress(psutil.NoSuchProcess):
        children: list[psutil.Process] = psutil.Process(process.pid).children()
        return children
    return []


def cpu_s(process: psutil.Process) -> float:
    """User and system time of one process, all threads."""
    times = process.cpu_times()
    return float(times.user + times.system)


def metrics(port: int) -> dict[str, float]:
    """Each metric of a worker, summed over its labels; empty while the endpoint does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    return totals


def records(bootstrap_servers: str, topic: str) -> Iterator[Any]:
    """Every record that stands in the topic now, as kafka-python gives it; each partition's in order. Raises LookupError where
    there is no such topic: what a misspelt name leaves out must not look like nothing.
    """
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest", enable_auto_commit=False
    )
    try:
        places = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic) or ())]
        if not places:
            raise LookupError(f"no topic {topic}")
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        ends = consumer.end_offsets(places)
        while any(consumer.position(place) < ends[place] for place in places):
            for found in consumer.poll(timeout_ms=1000).values():
                yield from found
    finally:
        consumer.close()


def read_topic(bootstrap_servers: str, topic: str) -> Iterator[tuple[int, int, bytes | None, bytes | None]]:
    """(partition, offset, key, value) of every record that stands in the topic now."""
    return ((r.partition, r.offset, r.key, r.value) for r in records(bootstrap_servers, topic))


def wait_until(condition: object, timeout_s: float, what: str, pause_s: float = 0.1) -> None:
    """Ask `condition()` every `pause_s`. Raises TimeoutError that says what did not happen."""
    assert callable(condition)
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(pause_s)
