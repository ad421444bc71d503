"""What feedback costs the drift alerts: one topic of predictions, watched at the same time by three workers on a real Kafka.

    python -m load_tests.label_upload [--seconds 150] [--rate 3000] [--json] [--keep FOLDER]

`alone` has no feedback. `upload` has a topic of labels into which, like once a day, all labels since the last upload come at
once, unsorted. `stalled` has one that nothing comes in, and a cap of waiting predictions that the run exceeds. Features take turns
to move, so alerts come all the time. Windows and alerts of `upload` and `stalled` must be the same, byte for byte, and no alert
of `upload` written a second later (those of `alone` have other ids: its configuration is another one); every label of the uploads
must be joined; `stalled` may hold no more predictions than its cap and a chunk a partition, must count the others, and its memory
must not grow any more then than that of `alone` and 15 MB. Exit code 1 where one of them does not hold.
"""

from __future__ import annotations

import argparse
import datetime as dt
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic

from load_tests import harness
from stream.broker import Broker
from stream.join_index import CHUNK_ROWS
from stream.panes import Marker, decode_record

PARTITIONS, MONITORS = 2, 2
FEATURES = 24
SHIFT, SHIFTED_S = 1.5, 12  # deviations; how long each feature stays moved
WARM_S = 20  # before the first feature moves
UPLOADS = 3
CALM_S = 10.0  # after the last event
DELAY_MS = 1_000  # that no alert may have
CAP_ROWS = 2 * CHUNK_ROWS  # of waiting predictions in a partition: the least that may be configured
GROWTH_MB_MAX = 15.0  # of `stalled`, over that of `alone`, once its cap is reached
MB = 1 << 20
NAMES = [f"f{i:02d}" for i in range(FEATURES)]
CONFIG = """\
kafka: {{bootstrap_servers: "{bootstrap}"}}
topics:
  predictions: {{name: predictions, lateness: 1s}}
{topics}prefix: {name}.
resolution: 1s
monitors: 2
idle_timeout: 1h
metrics: {{port: {port}}}
{caps}models:
  m:
    reference: {{file: reference.parquet}}
    window: {{every: 2s, min_events: 500}}
{performance}"""


@dataclass
class Group:
    """One worker and what was seen of it. `samples`: (seconds, MB of RSS, predictions that wait, evicted)."""

    name: str
    port: int
    config: Path
    process: subprocess.Popen[bytes] | None = None
    samples: list[tuple[float, float, float, float]] = field(default_factory=list)

    def sample(self, start: float) -> None:
        assert self.process is not None
        found = harness.metrics(self.port)
        for worker in harness.workers(self.process)[:1]:
            rss = worker.memory_info().rss / MB
            waiting, evicted = (
                found.get(f"driftline_{n}", 0.0) for n in ("waiting_predictions", "evicted_predictions_total")
            )
            self.samples.append((time.monotonic() - start, rss, waiting, evicted))


def prepare(folder: Path, bootstrap: str, seconds: int) -> list[Group]:
    """Topics, the reference and the three configurations."""
    values = np.random.default_rng(1).normal(size=(40_000, FEATURES))
    pd.DataFrame(values, columns=NAMES).assign(score=0.5).to_parquet(folder / "reference.parquet", index=False)
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics(
        [NewTopic(topic, PARTITIONS, 1) for topic in ("predictions", "upload.labels", "stalled.labels")]
    )
    admin.close()
    lateness_s = seconds // (UPLOADS + 1) + 3  # an upload's labels are joined when the next one has moved the watermark
    groups = []
    for name in ("alone", "upload", "stalled"):
        topics = f"  labels: {{name: {name}.labels, lateness: {lateness_s}s, mapping: {{timestamp: timestamp}}}}\n"
        performance = "    performance: {horizons: [10s], metrics: [accuracy]}\n"
        caps = f"feedback: {{waiting_predictions_max: {CAP_ROWS}}}\n" if name == "stalled" else ""
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            port = listening.getsockname()[1]
        own = {} if name == "alone" else {"topics": topics, "performance": performance}
        text = CONFIG.format(
            **({"topics": "", "performance": ""} | own), bootstrap=bootstrap, name=name, port=port, caps=caps
        )
        config = folder / f"{name}.yaml"
        config.write_text(text)
        harness.run("topics", "create", "--config", config, "--replication", "1")
        groups.append(Group(name, port, config))
    return groups


def owns_all(group: Group) -> bool:
    return harness.metrics(group.port).get("driftline_owned_partitions", 0) == PARTITIONS + MONITORS


class Traffic:
    """Predictions at a steady rate, in real time; remembers the labels that are still to come."""

    def __init__(self, bootstrap: str, rate: int, seed: int) -> None:
        self.rate, self.sent = rate, 0
        self.pending: list[tuple[bytes, bytes]] = []
        self.uploaded = 0
        self._random = np.random.default_rng(seed)
        self._chance = random.Random(seed)
        self._producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, batch_size=1 << 18)

    def second(self, number: int, at_s: float) -> None:
        """The events of one second of event time."""
        values = self._random.normal(size=(self.rate, FEATURES))
        if number >= WARM_S:
            values[:, (number - WARM_S) // SHIFTED_S % FEATURES] += SHIFT
        for row, features in enumerate(np.round(values, 3).tolist()):
            key, at = f"id-{self.sent}", at_s + row / self.rate
            yes = self._chance.random() < 0.5
            body = {
                "prediction_id": key, "model": "m", "version": "1", "timestamp": instant(at),
                "features": dict(zip(NAMES, features, strict=True)), "prediction": int(yes), "score": 0.5,
            }  # fmt: skip
            self._producer.send("predictions", key=key.encode(), value=orjson.dumps(body))
            known = instant(at + self._chance.random())
            label = {"prediction_id": key, "timestamp": known, "label": int(yes == (self._chance.random() < 0.9))}
            self.pending.append((key.encode(), orjson.dumps(label)))
            self.sent += 1

    def upload(self) -> None:
        """All labels since the last upload, in any order."""
        self._chance.shuffle(self.pending)
        for key, value in self.pending:
            self._producer.send("upload.labels", key=key, value=value)
        self.uploaded += len(self.pending)
        self.pending = []

    def close(self) -> None:
        self._producer.flush()
        self._producer.close()


def instant(at_s: float) -> str:
    return dt.datetime.fromtimestamp(at_s, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def run(groups: list[Group], traffic: Traffic, seconds: int) -> list[float]:
    """Publish in real time, upload now and then, look at the workers; returns when the uploads were."""
    start, uploads = time.monotonic(), []
    first_s = time.time()
    due = {round(seconds * (k + 1) / (UPLOADS + 1)) for k in range(UPLOADS)}
    for number in range(seconds):
        time.sleep(max(0.0, start + number - time.monotonic()))
        traffic.second(number, first_s + number)
        if number in due:
            uploads.append(time.time())
            traffic.upload()
        if number % 5 == 0:
            for group in groups:
                group.sample(start)
    traffic.upload()
    traffic.close()
    return uploads


def values(bootstrap: str, group: str, topic: str) -> dict[bytes, tuple[bytes, int]]:
    """What a group wrote: its identity -> (the bytes, when the broker wrote them, ms)."""
    found: dict[bytes, tuple[bytes, int]] = {}
    for record in harness.records(bootstrap, f"{group}.{topic}"):
        body = orjson.loads(record.value)
        if topic == "alerts":
            body["data"].pop("historical", None)
            key = body["id"].encode()
        else:
            key = orjson.dumps([body["series"], body["segment"], body["window"]["start"], body.get("part")])
        found.setdefault(key, (orjson.dumps(body, option=orjson.OPT_SORT_KEYS), record.timestamp))
    return found


def labels_joined(bootstrap: str, group: str) -> Counter[str]:
    """Outcomes of the labels by the last marker of each partition."""
    last: dict[int, Marker] = {}
    for record in harness.records(bootstrap, f"{group}.panes"):
        body = decode_record(record.value)
        if isinstance(body, Marker) and body.stream.startswith("labels@"):
            last[body.partition] = body
    return sum((Counter(marker.counters) for marker in last.values()), Counter())


def verdict(
    bootstrap: str, groups: list[Group], traffic: Traffic, uploads: list[float], ended_ms: int
) -> dict[str, Any]:
    """Everything that was promised, with its figures."""
    stalled = {topic: values(bootstrap, "stalled", topic) for topic in ("windows", "alerts")}
    found: dict[str, Any] = {"predictions": traffic.sent, "labels": traffic.uploaded, "wrong": []}
    found["alerts"], found["windows"] = len(stalled["alerts"]), len(stalled["windows"])
    for topic, expected in stalled.items():
        own = values(bootstrap, "upload", topic)
        if {key: value for key, (value, _) in own.items()} != {key: value for key, (value, _) in expected.items()}:
            found["wrong"].append(f"{topic} of upload are not those of stalled")
    own, expected = values(bootstrap, "upload", "alerts"), stalled["alerts"]
    later = {key: own[key][1] - at for key, (_, at) in expected.items() if key in own and at < ended_ms}
    near = [ms for key, ms in later.items() if any(0 <= expected[key][1] / 1000 - at < 15 for at in uploads)]
    found["upload: ms later than stalled"] = spread(list(later.values()))
    found["alerts within 15 s of an upload, ms later"] = spread(near)
    if not near or not found["windows"]:
        found["wrong"].append("no window, or no alert within 15 s of an upload")
    if later and max(later.values()) >= DELAY_MS:
        found["wrong"].append(f"an alert of upload came {max(later.values())} ms later")
    outcomes = labels_joined(bootstrap, "upload")
    found["labels matched"] = outcomes["matched"]
    if outcomes["matched"] != traffic.uploaded or outcomes["late"] or outcomes["overflow"]:
        found["wrong"].append(f"labels: {dict(outcomes)}")
    found |= memory(groups, found["wrong"])
    return found


def spread(later: list[int]) -> dict[str, float]:
    if not later:
        return {"alerts": 0}
    return {
        "alerts": len(later), "least": min(later), "median": float(np.median(later)), "most": max(later),
    }  # fmt: skip


def memory(groups: list[Group], wrong: list[str]) -> dict[str, Any]:
    """RSS in MB at the end, and how `stalled` stands to its cap."""
    alone, upload, stalled = groups
    cap = PARTITIONS * (CAP_ROWS + CHUNK_ROWS)
    full = [sample for sample in stalled.samples if sample[3] > 0]
    found: dict[str, Any] = {
        f"{group.name}: RSS in MB at most": round(max(sample[1] for sample in group.samples)) for group in groups
    }
    found["upload: waiting predictions at most"] = max(sample[2] for sample in upload.samples)
    found["stalled: waiting predictions at most"] = max(sample[2] for sample in stalled.samples)
    found["stalled: evicted"] = full[-1][3] if full else 0.0
    if not CAP_ROWS <= found["stalled: waiting predictions at most"] <= cap or len(full) < 4:
        wrong.append(f"stalled: not {CAP_ROWS} to {cap} waited, or the cap was not reached for 20 s")
        return found
    since = full[0][0]
    grown = {group.name: _growth(group, since) for group in (alone, stalled)}
    found["RSS in MB, growth since the cap was reached"] = grown
    if grown["stalled"] > max(grown["alone"], 0.0) + GROWTH_MB_MAX:
        wrong.append(f"the memory of stalled went on growing: {grown}")
    return found


def _growth(group: Group, since: float) -> float:
    late = [sample[1] for sample in group.samples if sample[0] >= since]
    half = len(late) // 2
    return round(float(np.mean(late[half:]) - np.mean(late[: max(half, 1)])), 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=150)
    parser.add_argument("--rate", type=int, default=3000, help="predictions a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="the result as one JSON object")
    parser.add_argument("--keep", type=Path, help="keep logs and configurations in this folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, Broker() as broker, ExitStack() as stack:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        bootstrap = broker.bootstrap_servers
        groups = prepare(folder, bootstrap, arguments.seconds)
        for group in groups:
            own = ("run", "--config", group.config, "--workers", "1")
            group.process = stack.enter_context(harness.running(folder / f"{group.name}.log", *own))
        for group in groups:
            harness.wait_until(partial(owns_all, group), 600, group.name)
        traffic = Traffic(bootstrap, arguments.rate, arguments.seed)
        uploads = run(groups, traffic, arguments.seconds)
        time.sleep(CALM_S)
        ended_ms = round(time.time() * 1000)  # what is written later comes of the drain
        for group in groups:
            assert group.process is not None
            group.process.terminate()
            group.process.wait(60)
        for group in groups:
            harness.run("run", "--config", group.config, "--drain")
        found = verdict(bootstrap, groups, traffic, uploads, ended_ms)
    text = orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()
    print(text if arguments.json else "\n".join(f"{name}: {value}" for name, value in found.items()))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
