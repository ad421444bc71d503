"""Realised performance of a year of real flights through a real Kafka, two workers and kills -9, against scikit-learn.

    python -m load_tests.real_feedback [--share .05] [--seed N] [--kills K] [--json] [--keep FOLDER]

Two models (one of classes, one of minutes), each flight one prediction of each, each arrival one label of each, known when the
aeroplane had arrived; both topics shuffled, with repeated, corrected, retracted, orphaned, late, absurd and unreadable labels. Every
record of the performance topic, running values and the share of their labels that is in among them, is compared with a recount
of the two logs by scikit-learn, and every counter of the join with one in plain Python. `--share 1` is the whole year. Exit code
1 when anything is missing, extra or different.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

from load_tests import harness
from load_tests.real import feedback_logs as logs
from load_tests.real import feedback_recount as recount
from load_tests.real import flights
from stream.broker import Broker
from stream.panes import Marker, decode_record

PARTITIONS = 4
PREFIX = "driftline."
PREDICTIONS, LABELS = "predictions", "labels"
HORIZONS_MS = (2 * logs.HOUR_MS, 5 * logs.HOUR_MS, 24 * logs.HOUR_MS)
AGES_MS = tuple(
    (h * logs.HOUR_MS, age * logs.HOUR_MS) for h, age in ((2, 1), (5, 1), (5, 2), (24, 1), (24, 2), (24, 12))
)
POINTS_MS = (*((horizon, None) for horizon in HORIZONS_MS), *AGES_MS)
SERIES = len({age or horizon for horizon, age in POINTS_MS})
SHARES_OF = 50  # windows, at most
DAYS_APART = 4  # how far one topic may run ahead of the other
EXACT = 1e-9
STATED_MAX = {"auroc": 0.01, "gini": 0.02, "ks_of_classes": 0.05, "average_precision": 0.05, "lift_at_top_decile": 0.5}
"""Of the `error` that a metric states, on average: some five times what 256 bins hide. One that states anything is always right."""
RULES = recount.Rules(
    logs.HOUR_MS, logs.PREDICTIONS_LATENESS_MS, logs.LABELS_LATENESS_MS, HORIZONS_MS, logs.LABELS_RANGE, AGES_MS
)
TYPE = "driftline.performance.v1"
WAIT_S = 120.0
CONFIG = """\
kafka: {{bootstrap_servers: "{bootstrap}"}}
topics:
  predictions: {{name: predictions, lateness: 1h}}
  labels: {{name: labels, lateness: 2h, range: [0, 1440], mapping: {{timestamp: timestamp}}}}
resolution: 1h
monitors: 4
idle_timeout: 1h
metrics: {{port: 0}}
defaults: {{window: {{every: 1d, min_events: 1}}}}
models:
  late-arrival:
    reference: {{file: late-arrival.parquet, time: timestamp}}
    segments: {{origin: [EWR, JFK]}}
    performance: {{horizons: [2h, 5h, 1d], provisional: [1h, 2h, 12h], metrics: [{classification}]}}
  elapsed-time:
    reference: {{file: elapsed-time.parquet, time: timestamp}}
    segments: {{origin: [EWR, JFK]}}
    performance: {{horizons: [2h, 5h, 1d], provisional: [1h, 2h, 12h], metrics: [{regression}]}}
"""


def prepare(folder: Path, bootstrap: str, year: pd.DataFrame) -> Path:
    """References, configuration, topics."""
    for name, reference in logs.references(year).items():
        reference.to_parquet(folder / f"{name}.parquet", index=False)
    none = np.empty(0)
    names = [", ".join(each) for each in (recount.classification(none, none, none), recount.regression(none, none))]
    config = folder / "monitor.yaml"
    config.write_text(CONFIG.format(bootstrap=bootstrap, classification=names[0], regression=names[1]))
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    for_ever = {"retention.ms": "-1"}  # the records' own times are of 2013
    admin.create_topics([NewTopic(topic, PARTITIONS, 1, topic_configs=for_ever) for topic in (PREDICTIONS, LABELS)])
    admin.close()
    harness.run("topics", "create", "--config", config, "--replication", "1")
    return config


def committed(bootstrap: str) -> int:
    """Offsets of both topics that the workers have saved, summed."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=f"{PREFIX}workers", enable_auto_commit=False)
    try:
        places = [TopicPartition(topic, p) for topic in (PREDICTIONS, LABELS) for p in range(PARTITIONS)]
        return sum(consumer.committed(place) or 0 for place in places)
    finally:
        consumer.close()


def _progress(process: Any, bootstrap: str, before: int) -> bool:
    if process.poll() is not None:
        raise RuntimeError("the workers have ended: see workers.log")
    return committed(bootstrap) > before


def publish(bootstrap: str, table: pd.DataFrame, process: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """Send both logs, killing a worker each time another share of them is out and something of it was saved."""
    chance, seed = random.Random(arguments.seed), arguments.seed
    sent: Counter[str] = Counter()
    first, second = logs.predictions(table, seed), logs.labels(table, seed)
    total, killed, saved = len(first) + len(second), 0, 0
    kills = sorted(chance.randrange(total // 20, total) for _ in range(arguments.kills))
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, batch_size=1 << 18)
    for number, (which, record) in enumerate(logs.interleaved(first, second, seed, DAYS_APART)):
        topic = (PREDICTIONS, LABELS)[which]
        producer.send(topic, key=record.key, value=record.value, timestamp_ms=record.time_ms)
        sent[topic] += 1
        while killed < len(kills) and number >= kills[killed]:
            producer.flush()
            before = saved
            progress = partial(_progress, process, bootstrap, before)
            harness.wait_until(progress, WAIT_S, "progress", 0.5)
            time.sleep(chance.random() * 3)  # somewhere within its work
            saved = committed(bootstrap)
            victim = chance.choice(harness.workers(process))
            victim.send_signal(signal.SIGKILL)
            killed += 1
    producer.flush()
    producer.close()
    return {"sent": dict(sent), "killed": killed}


def read(bootstrap: str, topic: str) -> list[Any]:
    """Records in (partition, offset) order."""
    return sorted(harness.records(bootstrap, topic), key=lambda record: (record.partition, record.offset))


def found_performance(bootstrap: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    """(model, version, segment, metric, horizon, age or None, start, end) -> data; one that was written twice must be the same bytes."""
    wires: dict[str, bytes] = {}
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in harness.records(bootstrap, f"{PREFIX}performance"):
        body = orjson.loads(record.value)
        assert wires.setdefault(body["id"], record.value) == record.value, f"two different records {body['id']}"
        data = body["data"]
        if body["type"] != TYPE:
            continue
        window = data["window"]
        about = (data[name] for name in ("model", "version", "segment", "metric", "horizon_ms"))
        key = (*about, data.get("age_ms"), window["start_ms"], window["end_ms"])
        assert found.setdefault(key, data) == data, f"two ids for {key}"
    return found


def expected_performance(table: pd.DataFrame) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The same keys -> what the recount says: value, predictions, observed, and of running values what share of labels is in."""
    table = table.assign(day=recount.windows(table, logs.DAY_MS))
    shares = recount.shares_in(table, RULES, logs.DAY_MS, SHARES_OF)
    own = table.origin.where(table.origin.isin(["EWR", "JFK"]), "__other__")
    both = pd.concat([table.assign(segment="all"), table.assign(segment="origin=" + own)])
    for (model, version, segment, day), rows in both.groupby(["model", "version", "segment", "day"]):
        predicted = rows.prediction.to_numpy(float)
        for horizon, age in POINTS_MS:
            label = rows[age or horizon].to_numpy(float)
            counts: dict[str, Any] = {"predictions": len(rows), "observed": int((~np.isnan(label)).sum())}
            counts["share_in"] = None if age is None else shares[model, horizon, age, day]
            if model == flights.MODEL:
                values = recount.classification(predicted, rows.score.to_numpy(float), label)
            else:
                values = recount.regression(predicted, label)
            place = (horizon, age, day, day + logs.DAY_MS)
            for metric, value in values.items():
                yield (model, version, segment, metric, *place), {"value": value, **counts}
            if model == flights.MODEL:
                matrix = recount.confusion(predicted, label)
                yield (model, version, segment, "confusion_matrix", *place), {"matrix": matrix, **counts}


def differences(found: dict[tuple[Any, ...], dict[str, Any]], table: pd.DataFrame) -> tuple[list[str], dict[str, Any]]:
    """Everything in which the records differ from the recount, and how near they are."""
    wrong, compared, undefined = [], 0, 0
    worst: dict[str, float] = {"sums": 0.0, "histograms, in shares of their error": 0.0, "largest error stated": 0.0}
    rest, stated = set(found), defaultdict[str, list[float]](list)
    for key, expected in expected_performance(table):
        rest.discard(key)
        data = found.get(key)
        if data is None:
            wrong.append(f"missing: {key}")
            continue
        compared += 1
        counts = {name: data["counts"][name] for name in ("predictions", "observed")}
        share = data.get("share_in")
        counts["share_in"] = None if share is None else (share["observed"], share["observed_finally"])
        kind = (data["final"], data["provisional"]) == (key[5] is None, key[5] is not None)
        if counts != {name: expected[name] for name in counts} or data["incomplete"] or not kind:
            wrong.append(f"{key}: {data['counts']}, incomplete {data['incomplete']}, expected {expected}")
        if "matrix" in expected:
            if data["matrix"] != expected["matrix"]:
                wrong.append(f"{key}: {data['matrix']}, expected {expected['matrix']}")
            continue
        value, wanted = data["value"], expected["value"]
        if value is None or wanted is None:
            undefined += 1
            if value is not wanted or not data.get("undefined"):
                wrong.append(f"{key}: {value} ({data.get('undefined')}), expected {wanted}")
            continue
        off = abs(value - wanted)
        if key[3] in recount.HISTOGRAMS:
            limit = data["error"] + EXACT
            stated[key[3]].append(data["error"])
            worst["largest error stated"] = max(worst["largest error stated"], data["error"])
            worst["histograms, in shares of their error"] = max(
                worst["histograms, in shares of their error"], off / limit
            )
        else:
            off, limit = off / max(1.0, abs(wanted)), EXACT
            worst["sums"] = max(worst["sums"], off)
        if not off <= limit:
            wrong.append(f"{key}: {value}, expected {wanted}, allowed {limit:g}")
    wrong += [f"extra: {key}" for key in sorted(rest, key=str)]
    means = {metric: float(np.mean(errors)) for metric, errors in stated.items()}
    wrong += [f"{metric} states errors of {mean:.3g}" for metric, mean in means.items() if mean > STATED_MAX[metric]]
    worst |= {f"{metric}, error stated on average": mean for metric, mean in means.items()}
    return wrong, {"records compared": compared, "of them without a value": undefined, "largest difference": worst}


def counter_differences(bootstrap: str, told: recount.Log) -> list[str]:
    """What the last markers count of the labels, against the recount."""
    last: dict[tuple[int, str], Marker] = {}
    for record in harness.records(bootstrap, f"{PREFIX}panes"):
        if record.key is not None:  # a pane: markers have no model's name
            continue
        body = decode_record(record.value)
        if isinstance(body, Marker) and body.stream.startswith("labels@"):
            place = body.partition, body.stream
            if place not in last or body.edge_ms >= last[place].edge_ms:
                last[place] = body
    wrong = [] if len(last) == PARTITIONS * SERIES else [f"markers of {len(last)} series and partitions"]
    for (partition, stream), marker in sorted(last.items()):
        own = told.counters[partition]
        names = (*recount.COUNTED, "future", "overflow", "carried", "waiting", "gap", "resets")
        wrong += [
            f"{stream}, partition {partition}, {name}: {marker.counters[name]}, expected {own[name]}"
            for name in names
            if marker.counters[name] != own[name]
        ]
    return wrong


def dead_letter_differences(bootstrap: str, told: recount.Log) -> list[str]:
    """Dead letters of the labels topic, each once, against the recount."""
    headers = [dict(record.headers) for record in harness.records(bootstrap, f"{PREFIX}dead-letters")]
    places = {(h["dlq.partition"], h["dlq.offset"]) for h in headers if h["dlq.topic"] == LABELS.encode()}
    others = [h for h in headers if h["dlq.topic"] != LABELS.encode()]
    expected = sum(counted["dead"] for counted in told.counters.values())
    wrong = [] if len(places) == expected else [f"{len(places)} dead letters of labels, expected {expected}"]
    return wrong + [f"a dead letter of {h['dlq.topic']!r}" for h in others]


def verdict(bootstrap: str, published: dict[str, Any]) -> dict[str, Any]:
    """The logs as they stand in Kafka, against everything that was said of them."""
    predicted = recount.predictions(read(bootstrap, PREDICTIONS), RULES)
    told = recount.labels(read(bootstrap, LABELS), RULES)
    table = recount.joined(predicted, told, RULES)
    wrong, compared = differences(found_performance(bootstrap), table)
    wrong += counter_differences(bootstrap, told)
    wrong += dead_letter_differences(bootstrap, told)
    if not all(sum(told.counters[p][name] for p in told.counters) for name in recount.COUNTED):
        wrong.append(f"the run has shown too little: {told.counters}")
    return {
        **published,
        "predictions": dict(sum(predicted.counters.values(), Counter())),
        "labels": dict(sum(told.counters.values(), Counter())),
        **compared,
        "differences": len(wrong),
        "first differences": wrong[:20],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of the shuffling, the troubles and the kills")
    parser.add_argument("--share", type=float, default=0.05, help="of the year's flights; 1 = all")
    parser.add_argument("--kills", type=int, default=3, help="workers that are killed with -9 on the way")
    parser.add_argument("--json", action="store_true", help="the result as one JSON object")
    parser.add_argument("--keep", type=Path, help="keep logs and configuration in this folder")
    arguments = parser.parse_args()
    year = logs.answered(flights.load())
    table = logs.share_of(year, arguments.share, arguments.seed)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary, Broker() as broker:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        bootstrap = broker.bootstrap_servers
        config = prepare(folder, bootstrap, year)
        with harness.running(folder / "workers.log", "run", "--config", config, "--workers", "2") as process:
            harness.wait_until(lambda: len(harness.workers(process)) == 2, 600, "two workers")
            published = publish(bootstrap, table, process, arguments)
        harness.run("run", "--config", config, "--workers", "2", "--drain")
        found = {"flights": len(table), "seconds": round(time.monotonic() - start), **verdict(bootstrap, published)}
    text = orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()
    print(text if arguments.json else "\n".join(f"{name}: {value}" for name, value in found.items()))
    return 0 if not found["differences"] and found["killed"] == arguments.kills else 1


if __name__ == "__main__":
    sys.exit(main())
