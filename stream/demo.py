"""`driftline demo`: Apache Kafka, a simulated model with a scripted drift, one worker, and what they say, in one terminal.

Everything is real but the model: the broker, the topics, the worker process, the configuration file. It all lives in one
temporary folder and ends with this process, also when that one is killed (broker_guard.py).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import orjson

from stream.broker import Broker, free_port
from stream.broker_files import BrokerUnavailableError
from stream.broker_guard import Guarded
from stream.simulated_model import JITTER_MS, MODEL, NUMBERS, Drift, Simulation, json_lines, write_training_file
from stream.terminal import render_alert
from stream.topics import TopicRole, topic_name

RATE_PER_S = 250.0
WINDOW_S = 5
# 400 windows of 5 s: what is normal must be known well before little can be called abnormal
TRAINING_EVENTS = 500_000
DRIFT_AFTER_S = 20.0
FEATURE, SHIFT = "amount", 0.5
ALERT_WITHIN_S = 60.0  # of traffic; a demo that ran longer and saw none has failed
PARTITIONS = 4
READY_S = 240.0  # the very first start of a worker compiles its kernels
STILL_S = 15.0  # a silence longer than this makes people wonder
DAY_MS = 86_400_000
PACE_S = 0.02
PREFIX = "driftline."

CONFIGURATION = """\
kafka: {{bootstrap_servers: "{bootstrap_servers}"}}
topics:
  predictions: {{name: predictions, lateness: 2s}}    # by default 1m
resolution: 1s                                       # by default 1m
monitors: 2
defaults:
  window: {{every: {window_s}s, min_events: 100}}            # by default auto: as long as the reference calls for
models:
  {model}:
    reference: {{file: training.parquet}}
    owner: payments-ml
metrics: {{port: {metrics_port}}}
"""


@dataclass
class Demo:
    """One run. `stop` is set by Ctrl-C, SIGTERM and the end of `duration`."""

    folder: Path
    bootstrap_servers: str
    duration: float | None
    seed: int
    stop: threading.Event
    metrics_port: int = field(default_factory=free_port)
    alerts: int = 0
    published: int = 0
    failure: str = ""

    @property
    def config_file(self) -> Path:
        return self.folder / "monitor.yaml"

    def run(self) -> int:
        """0; 1 when a part failed or no alert came within a minute of traffic."""
        self.prepare()
        if self.stop.is_set():
            return 0
        command = [sys.executable, "-m", "stream.cli", "run", "--config", str(self.config_file), "--workers", "1"]
        worker = Guarded(command, self.folder / "worker.log")
        try:
            if not self.await_ready(worker):
                return self.ended(worker)
            return self.traffic(worker)
        finally:
            worker.stop()

    def prepare(self) -> None:
        """The configuration, the training rows it names, the topics."""
        from stream.admin import create_topics
        from stream.config_loader import load

        settings = {"bootstrap_servers": self.bootstrap_servers, "window_s": WINDOW_S, "model": MODEL}
        self.config_file.write_text(CONFIGURATION.format(metrics_port=self.metrics_port, **settings))
        say(
            f"configuration {self.config_file}: resolution 1 s, lateness 2 s and windows of {WINDOW_S} s, so that a demo is short;"
        )
        more("the defaults are a minute, a minute, and as long as the reference calls for")
        training = Simulation(self.seed, RATE_PER_S, now_ms() - 30 * DAY_MS)
        write_training_file(self.folder / "training.parquet", training, TRAINING_EVENTS)
        features = len(NUMBERS) + 4
        say(
            f"simulated model {MODEL}: {features} features, a score, a decision; {TRAINING_EVENTS:,} rows of training data"
        )
        create_topics(load(self.config_file).config, with_inputs=PARTITIONS)

    def await_ready(self, worker: Guarded) -> bool:
        """Until /ready says 200; what is normal is learnt from the training rows meanwhile."""
        say("the worker starts: it builds its reference from the training data (the first time ever it also compiles)")
        began = said = time.monotonic()
        while worker.running and not self.stop.wait(0.2):
            if self.answers_ready():
                return True
            now = time.monotonic()
            if now > said + STILL_S:
                more(f"… {now - began:.0f} s")
                said = now
            if now > began + READY_S:
                self.failure = f"the worker was not ready after {READY_S:.0f} s"
                return False
        if not self.stop.is_set():
            self.failure = f"the worker ended with exit code {worker.exit_code}"
        return False

    def answers_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/ready", timeout=2):
                return True
        except OSError:  # not listening yet, or 503: urllib's errors are of this kind
            return False

    def traffic(self, worker: Guarded) -> int:
        """Publishes and listens until told to stop."""
        from kafka import KafkaConsumer, TopicPartition

        start_ms = now_ms()
        drift_ms = start_ms + round(DRIFT_AFTER_S * 1000)
        say(
            f"{RATE_PER_S:.0f} predictions a second from now on. In {DRIFT_AFTER_S:.0f} s, at {clock(drift_ms)}, {FEATURE}"
        )
        more(f"moves up by {SHIFT:.1g} of its standard deviations, and nothing else changes.")
        simulation = Simulation(self.seed + 1, RATE_PER_S, start_ms - JITTER_MS, Drift(drift_ms, FEATURE, SHIFT))
        publisher = threading.Thread(target=self.publish, args=(simulation,), name="publisher", daemon=True)
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap_servers, auto_offset_reset="earliest")
        with contextlib.closing(consumer):
            names = [topic_name(PREFIX, role) for role in (TopicRole.ALERTS, TopicRole.WINDOWS)]
            parts = [TopicPartition(name, part) for name in names for part in consumer.partitions_for_topic(name) or ()]
            consumer.assign(parts)
            publisher.start()
            began = time.monotonic()
            while not self.stop.is_set():
                elapsed = time.monotonic() - began
                if self.duration is not None and elapsed >= self.duration:
                    break
                if not worker.running:
                    self.failure = f"the worker ended with exit code {worker.exit_code}"
                if self.failure:
                    break
                for records in consumer.poll(200).values():
                    for record in records:
                        self.heard(record.topic, orjson.loads(record.value), elapsed)
            told = self.stop.is_set()
            self.stop.set()
        publisher.join(10)
        if not told and not self.alerts and (self.duration or 0) >= ALERT_WITHIN_S:
            self.failure = self.failure or f"no alert in {self.duration:.0f} s of traffic"
        say(
            f"{self.published:,} predictions published, {self.alerts} alert{'s' if self.alerts != 1 else ''}. The end: all of it is gone."
        )
        return self.ended(worker)

    def publish(self, simulation: Simulation) -> None:
        """Every event at its time, on the wall clock."""
        from kafka import KafkaProducer
        from kafka.errors import KafkaError

        started = time.monotonic()
        try:
            with contextlib.closing(KafkaProducer(bootstrap_servers=self.bootstrap_servers, linger_ms=20)) as producer:
                for block in simulation.blocks():
                    lines = json_lines(block)
                    keys = block.ids.to_pylist()
                    sent = 0
                    while sent < len(lines):
                        due = int((time.monotonic() - started) * simulation.rate_per_s) - block.first
                        for place in range(sent, min(max(due, sent), len(lines))):
                            producer.send("predictions", lines[place], key=keys[place].encode())
                            sent += 1
                            self.published += 1
                        if self.stop.wait(PACE_S):
                            return
        except KafkaError as error:
            self.failure = f"publishing failed: {error}"

    def heard(self, topic: str, body: Mapping[str, Any], elapsed_s: float) -> None:
        """One line for a window, a few for an alert; after the first alert what to try next."""
        if topic == topic_name(PREFIX, TopicRole.WINDOWS):
            if (line := window_line(body)) is not None:
                print(line, flush=True)
            return
        print(f"\n{render_alert(body)}\n", flush=True)
        self.alerts += 1
        if self.alerts == 1:
            print(next_steps(self, elapsed_s), flush=True)

    def ended(self, worker: Guarded) -> int:
        if not self.failure:
            return 0
        print(f"{self.failure}; the end of {self.folder / 'worker.log'}:", file=sys.stderr)
        worker.stop()
        with contextlib.suppress(OSError):
            lines = (self.folder / "worker.log").read_text(errors="replace").splitlines()
            print("\n".join(lines[-20:]), file=sys.stderr)
        return 1


def run_demo(duration: float | None = None, seed: int = 1) -> int:
    """Body of `driftline demo`. `duration`: seconds of traffic, None = until Ctrl-C.

    Returns 0, also after Ctrl-C and SIGTERM; 1 = a part failed, or no alert in a minute of traffic; 3 = no broker.
    """
    with told_to_stop() as stop:
        say("Apache Kafka starts (the first time ever it is fetched: 44 MB)")
        try:
            with Broker() as broker:
                if stop.is_set():
                    return 0
                say(f"Apache Kafka answers on {broker.bootstrap_servers}; its data and all else are in {broker.folder}")
                folder = broker.folder / "demo"
                folder.mkdir()
                return Demo(folder, broker.bootstrap_servers, duration, seed, stop).run()
        except BrokerUnavailableError as error:
            print(error, file=sys.stderr)
            return 3


@contextlib.contextmanager
def told_to_stop() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set. A second Ctrl-C interrupts at once; the guards clean up after that too."""
    event = threading.Event()

    def handle(number: int, _frame: FrameType | None) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def window_line(body: Mapping[str, Any]) -> str | None:
    """A window in one line: how many events, and the feature that differs most. None for other series and segments."""
    targets = body.get("targets") or {}
    if body.get("segment") != "all" or FEATURE not in targets:
        return None
    furthest = max(targets, key=lambda name: targets[name].get("psi") or 0.0)
    now = targets[furthest]
    drifting = [name for name, target in targets.items() if target.get("level") == "drift"]
    verdict = f"drift: {', '.join(drifting)}" if drifting else "no drift"
    end = clock(body["window"]["end_ms"])
    return f"{end}  {body['events']:>6,} events  {verdict:<16}  most different: {furthest}, psi {now.get('psi') or 0.0:.3f}"


def next_steps(demo: Demo, elapsed_s: float) -> str:
    after_s = elapsed_s - DRIFT_AFTER_S
    driftline = own_command()
    return f"""\
That was {after_s:.0f} s after the drift began, {elapsed_s:.0f} s after traffic began. What to try next:
  {driftline} explain --config {demo.config_file}      every setting, and where it comes from
  curl http://127.0.0.1:{demo.metrics_port}/metrics          what Prometheus would see
  {driftline} topics list --config {demo.config_file}  the topics and what they are for
  On your own topic: ten lines of YAML, driftline check-config, driftline topics create, driftline run (README.md).
  On a file, without any broker: {driftline} replay --config monitor.yaml events.jsonl
{"Ctrl-C ends everything and leaves nothing behind." if demo.duration is None else ""}"""


def own_command() -> str:
    """How to call driftline from here: `make demo` runs it from an environment that is not on the path."""
    called = Path(sys.argv[0])
    if shutil.which("driftline") is not None or called.name != "driftline":
        return "driftline"
    return os.path.relpath(called)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def clock(time_ms: int) -> str:
    """As alerts show times: UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%H:%M:%S")


def say(text: str) -> None:
    print(f"{clock(now_ms())}  {text}", flush=True)


def more(text: str) -> None:
    print(f"          {text}", flush=True)
