"""CPU time of the collector per decoded event, against orjson.loads of the same events in the same run.

    python -m load_tests.collector_speed [--events 300000] [--json]

Events: 16 numeric and 4 categorical features, a prediction and a score, about 650 bytes of JSON; deduplication on, 80 cuts a
numeric target, two models of two versions, 10,000 events a second of event time, resolution 60 s, lateness 60 s.
`sparse`: the same events one to an edge, each closing a pane. The features of an event that the schema's sample looks at are
read from JSON, as decode does: of one event for all.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import orjson
import xxhash

from detectors.binning import Binning, Kind
from stream.collector import Collector
from stream.columns import Columns, Tag
from stream.decode_strict import event_features
from stream.mapping import Layout, Mapping
from stream.panes import EDGE_END
from stream.plan import CollectorPlan, ModelPlan, Role, TargetPlan
from stream.stage import Decision

NUMERIC, CATEGORICAL, CATEGORIES = 16, 4, 30
MODELS = ("fraud", "churn")
EVENT_BYTES = 650
PER_SECOND = 10_000
COLUMNS = NUMERIC + CATEGORICAL + 2
FIRST_MS = 1_767_225_600_000
LAYOUT = Layout.compile(Mapping(), list(MODELS), [f"features.feature_{i}" for i in range(NUMERIC + CATEGORICAL)])


def hashed(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())


def binning(kind: Kind, g: np.random.Generator) -> Binning:
    none = np.empty(0)
    if kind is Kind.NUMERIC:
        core = np.sort(g.normal(size=40))
        far = 8.0 * 2.0 ** np.arange(20)
        cuts = np.concatenate([-far[::-1], core, far])
        return Binning(kind, cuts, (20, 60), 0.0, -4.0, 4.0, none.astype(np.uint64), none.astype(np.int32), ())
    labels = tuple(f"category-{i}" for i in range(CATEGORIES))
    known = sorted((hashed(label), i) for i, label in enumerate(labels))
    keys, codes = np.array([k for k, _ in known], np.uint64), np.array([c for _, c in known], np.int32)
    return Binning(kind, none, (0, 0), 0.0, -np.inf, np.inf, keys, codes, (*labels, "__other__", "__unseen__"))


def collector(*, dedup: bool = True) -> Collector:
    g = np.random.default_rng(1)
    targets = []
    for i in range(COLUMNS):
        categorical = NUMERIC <= i < NUMERIC + CATEGORICAL
        role = Role.FEATURE if i < NUMERIC + CATEGORICAL else (Role.PREDICTION, Role.SCORE)[i - NUMERIC - CATEGORICAL]
        kind = Kind.CATEGORICAL if categorical else Kind.NUMERIC
        targets.append(TargetPlan(f"feature_{i}", role, i, binning(kind, g)))
    plans = tuple(ModelPlan(model, "reference", tuple(targets)) for model in MODELS)
    plan = CollectorPlan(plans, resolution_ms=60_000, lateness_ms=60_000, max_future_skew_ms=300_000, dedup=dedup)
    return Collector(0, plan, monitors=8, topic="predictions", config_hash="c", app_version="1")


def columns(first: int, n: int, g: np.random.Generator, spacing_ms: float, looked_at: bytes | None = None) -> Columns:
    """`looked_at`: JSON of the event that all features are read from; None = they are not to be had."""
    place = np.arange(first, first + n)
    event_time = (FIRST_MS + place * spacing_ms).astype(np.int64)
    if spacing_ms < 1_000:
        event_time -= g.exponential(200, n).astype(np.int64)
    cell = g.normal(size=(n, COLUMNS)).view(np.uint64)
    tag = np.full((n, COLUMNS), Tag.NUMBER, np.uint8)
    words = np.array([hashed(f"category-{i}") for i in range(CATEGORIES)], np.uint64)
    for i in range(NUMERIC, NUMERIC + CATEGORICAL):
        cell[:, i] = words[g.integers(0, CATEGORIES, n)]
        tag[:, i] = Tag.TEXT
    versions = {hashed(v): v for v in ("v1", "v2")}
    return Columns(
        next_offset=first + n,
        offset=place,
        row=np.zeros(n, np.int32),
        event_time_ms=event_time,
        record_time_ms=event_time + 50,
        id_high=g.integers(0, 1 << 63, n).astype(np.uint64) * np.uint64(2),
        id_low=g.integers(0, 1 << 32, n).astype(np.uint32),
        model=g.integers(0, len(MODELS), n).astype(np.int32),
        version=np.array(list(versions), np.uint64)[g.integers(0, 2, n)],
        cell=cell,
        tag=tag,
        version_names=versions,
        features=None if looked_at is None else lambda _offset, _row: event_features(looked_at, LAYOUT),
    )


def as_json(part: Columns) -> list[bytes]:
    """The events as they stand on the topic, about EVENT_BYTES each."""
    lines = []
    numbers = part.cell.view(np.float64)
    for i in range(len(part)):
        features: dict[str, object] = {f"feature_{j}": round(float(numbers[i, j]), 6) for j in range(NUMERIC)}
        features |= {f"feature_{j}": f"category-{i % CATEGORIES}" for j in range(NUMERIC, NUMERIC + CATEGORICAL)}
        event = {
            "prediction_id": f"{int(part.id_high[i]):016x}-{int(part.id_low[i]):08x}-0000",
            "model": MODELS[int(part.model[i])],
            "version": part.version_names[int(part.version[i])],
            "timestamp": "2026-01-01T00:00:00.123Z",
            "features": features,
            "prediction": round(float(numbers[i, NUMERIC + CATEGORICAL]), 6),
            "score": round(float(numbers[i, NUMERIC + CATEGORICAL + 1]), 6),
        }
        lines.append(orjson.dumps(event))
    return lines


def measure(events: int, chunk: int, *, spacing_ms: float, dedup: bool = True) -> dict[str, float]:
    """CPU µs an event of applying, closing and encoding panes; the columns are made outside of the clock."""
    looked_at = as_json(columns(0, 1, np.random.default_rng(0), spacing_ms))[0]
    state = collector(dedup=dedup)
    state.apply("predictions", columns(0, min(chunk, 100), np.random.default_rng(0), spacing_ms))  # compiles
    g = np.random.default_rng(2)
    first, used, outputs, memory = 100, 0.0, 0, 0
    while first < events:
        part = columns(first, min(chunk, events - first), g, spacing_ms, looked_at)
        start = time.process_time()
        state.apply("predictions", part)
        used += time.process_time() - start
        first += len(part)
        memory = max(memory, state.memory_bytes())
        outputs += len(state.outbox)
        state.outbox.clear()
    start = time.process_time()
    state.decide(Decision(1, "tick", {}, {"until_ms": EDGE_END}))
    used += time.process_time() - start
    counters = state.accounting()
    assert counters.consumed == counters.applied + counters.late == events
    return {
        "chunk": chunk,
        "us_per_event": 1e6 * used / events,
        "outputs": outputs + len(state.outbox),
        "memory_mb": memory / 1e6,
    }


def snapshot_cost(events: int) -> dict[str, float]:
    """ms and bytes of a snapshot after 10 s of traffic, open panes and new ids."""
    state = collector()
    g = np.random.default_rng(3)
    state.apply("predictions", columns(0, events, g, 1_000 / PER_SECOND))
    state.changed_blobs()
    state.apply("predictions", columns(events, 10 * PER_SECOND, g, 1_000 / PER_SECOND))
    start = time.process_time()
    blobs = state.changed_blobs()
    return {"ms": 1e3 * (time.process_time() - start), "bytes": sum(len(blob) for blob in blobs.values() if blob)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    lines = as_json(columns(0, 2_000, np.random.default_rng(4), 1.0))
    start = time.process_time()
    for _ in range(20):
        for line in lines:
            orjson.loads(line)
    loads_us = 1e6 * (time.process_time() - start) / (20 * len(lines))
    spacing = 1_000 / PER_SECOND
    dense = [measure(options.events, chunk, spacing_ms=spacing) for chunk in (500, 1_500, 5_000)]
    result = {
        "event_bytes": float(np.mean([len(line) for line in lines])),
        "orjson_loads_us": loads_us,
        "dense": dense,
        "dense_without_dedup": measure(options.events, 5_000, spacing_ms=spacing, dedup=False),
        "sparse": measure(5_000, 5_000, spacing_ms=60_000.0),
        "snapshot": snapshot_cost(options.events),
        "ratio_to_orjson": [case["us_per_event"] / loads_us for case in dense],
    }
    print(json.dumps(result, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
