"""The flights of 2013 through a real Kafka and two workers, once left alone and once with a worker killed on the way.

    python -m load_tests.real [--seed N] [--plot FILE] [--keep FOLDER]

January is the reference; February to December are published in time order. Prints what was found, and whether the run
with a kill -9 gave the same windows and alerts and lost nothing. Exit code 1 when it did not.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic

from load_tests import harness
from load_tests.real import flights
from stream.broker import Broker

PARTITIONS = 4
CONFIG = """\
kafka: {{bootstrap_servers: "{bootstrap}"}}
topics: {{predictions: {{name: {name}.predictions, lateness: 1h}}}}
prefix: {name}.driftline.
resolution: 1h
monitors: 4
metrics: {{port: 0}}
models:
  late-arrival:
    owner: flight-desk
    reference: {{file: january.parquet, time: timestamp}}
    window: {{every: 1d, min_events: 300}}
"""


@dataclass(frozen=True)
class Outcome:
    """What a run left in its topics. `events` = those in the output windows of segment `all`."""

    windows: dict[str, dict[str, Any]]
    alerts: dict[str, dict[str, Any]]
    dead_letters: int
    events: int
    killed: int
    seconds: float


def prepare(folder: Path, january: Any) -> None:
    """January as the reference's file."""
    names = [*flights.NUMERIC, *flights.CATEGORIES, "prediction", "score"]
    table = january[names].copy()
    table["prediction"] = table.prediction.astype(str)
    table.insert(0, "timestamp", january.timestamp_ms.astype("datetime64[ms]"))
    table.to_parquet(folder / "january.parquet", index=False)


def one_run(folder: Path, name: str, bootstrap: str, events: Sequence[bytes], kill_seed: int | None) -> Outcome:
    """Publish everything while two workers run; at the end let them finish with `--drain`."""
    config = folder / f"{name}.yaml"
    config.write_text(CONFIG.format(bootstrap=bootstrap, name=name))
    topic = f"{name}.predictions"
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    admin.close()
    harness.run("topics", "create", "--config", config, "--replication", "1")
    start, killed = time.monotonic(), 0
    with harness.running(folder / f"{name}.log", "run", "--config", config, "--workers", "2") as process:
        harness.wait_until(lambda: len(harness.workers(process)) == 2, 600, "two workers")
        chance = random.Random(kill_seed)
        at = chance.randrange(len(events) // 4, 3 * len(events) // 4) if kill_seed is not None else -1
        producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, batch_size=1 << 18)
        for i, value in enumerate(events):
            producer.send(topic, key=value[18 : value.index(b'"', 18)], value=value)
            if i == at:
                victim = chance.choice(harness.workers(process))
                victim.send_signal(signal.SIGKILL)
                killed += 1
        producer.flush()
        producer.close()
    harness.run("run", "--config", config, "--workers", "2", "--drain")
    return outcome(bootstrap, name, killed, time.monotonic() - start)


def outcome(bootstrap: str, name: str, killed: int, seconds: float) -> Outcome:
    """Windows by (series, segment, window), alerts by id, both without what the wall clock decides."""
    windows: dict[str, dict[str, Any]] = {}
    for _, _, _, value in harness.read_topic(bootstrap, f"{name}.driftline.windows"):
        body = orjson.loads(value or b"{}")
        key = orjson.dumps(
            [body["model"], body["series"], body["segment"], body["window"]["start"], body.get("part")]
        ).decode()
        assert windows.setdefault(key, body) == body, f"two different records of window {key}"
    alerts: dict[str, dict[str, Any]] = {}
    for _, _, _, value in harness.read_topic(bootstrap, f"{name}.driftline.alerts"):
        body = orjson.loads(value or b"{}")
        body["data"].pop("historical", None)
        assert alerts.setdefault(body["id"], body) == body, f"two different bodies of alert {body['id']}"
    dead = sum(1 for _ in harness.read_topic(bootstrap, f"{name}.driftline.dead-letters"))
    events = sum(w["events"] for w in windows.values() if w["segment"] == "all" and "score" in w["targets"])
    return Outcome(windows, alerts, dead, events, killed, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="which worker is killed, and when")
    parser.add_argument("--plot", type=Path, help="write the picture of the README here")
    parser.add_argument("--keep", type=Path, help="keep logs and configurations in this folder")
    arguments = parser.parse_args()
    data = flights.load()
    published = flights.events(data.later)
    with tempfile.TemporaryDirectory() as temporary, Broker() as broker:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        prepare(folder, data.january)
        calm = one_run(folder, "calm", broker.bootstrap_servers, published, None)
        report(calm, len(published))
        shaken = one_run(folder, "shaken", broker.bootstrap_servers, published, arguments.seed)
    same = calm.windows == shaken.windows and calm.alerts == shaken.alerts
    lost = len(published) - shaken.events - shaken.dead_letters
    print(
        f"with {shaken.killed} worker killed: events lost {lost}, windows and alerts {'equal' if same else 'DIFFERENT'}"
    )
    if arguments.plot:
        from load_tests.real.plot import draw

        draw(arguments.plot, calm.windows.values(), calm.alerts.values())
    return 0 if holds(calm, shaken, len(published)) else 1


def holds(calm: Outcome, shaken: Outcome, published: int) -> bool:
    """Whether the run with a kill says what the other one does, nothing is lost, and there is something that both say."""
    same = calm.windows == shaken.windows and calm.alerts == shaken.alerts
    whole = published == calm.events == shaken.events + shaken.dead_letters
    return same and whole and bool(calm.alerts) and (calm.killed, shaken.killed) == (0, 1)


def report(run: Outcome, published: int) -> None:
    """What the README says of this run."""
    judged = [w for w in run.windows.values() if w["segment"] == "all" and "score" in w["targets"]]
    print(
        f"{published} flights published, {run.events} in {len(judged)} windows, {run.dead_letters} dead letters, {run.seconds:.0f} s"
    )
    for body in sorted(run.alerts.values(), key=lambda b: (b["time"], b["id"])):
        print(f"{body['time']}  {body['type'].split('.')[-2]:<9} {body['data']['summary']}")


if __name__ == "__main__":
    sys.exit(main())
