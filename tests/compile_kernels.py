"""Compiles what a worker needs before any test starts one: python tests/compile_kernels.py. Seconds once they are cached.

Without it the first tests compile, every process of pytest the same kernels, and a worker that waits for a compiler on a busy
machine is late for what its test expects of it.
"""

from __future__ import annotations

import datetime as dt
import random
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stream.config_loader import load
from stream.preflight import build_from_file
from stream.references import Known, for_use
from stream.warm_up import warm_up
from stream.worker import Setup

ROWS = 12_000
SETTINGS = """
kafka: {bootstrap_servers: 'localhost:1'}
topics:
  predictions: {name: predictions, lateness: 2s}
  clicks: {name: clicks, lateness: 60s}
  labels: {name: labels, lateness: 60s, mapping: {timestamp: timestamp}}
prefix: kernels.
resolution: 1s
monitors: 2
defaults: {window: {every: 5s, min_events: 200}}
models:
  m:
    reference: {file: train.parquet, time: timestamp}
    segments: {country: [de]}
    targets: {vector: {dimension: 8}}
    detectors: [{type: mmd_random_features, targets: [vector], threshold: 0.05}]
    performance: {horizons: [3s, 10s], proxies: [ctr], metrics: [accuracy, auroc]}
"""


def main() -> None:
    r = random.Random(1)
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    columns = {
        "amount": [r.gauss(50, 10) for _ in range(ROWS)],
        "country": [r.choice(("de", "fr", "it")) for _ in range(ROWS)],
        "score": [r.random() for _ in range(ROWS)],
        "timestamp": [start + dt.timedelta(milliseconds=12 * i) for i in range(ROWS)],
        "vector": [[r.gauss(1, 1) for _ in range(8)] for _ in range(ROWS)],
    }
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.table(columns), Path(folder) / "train.parquet")
        path = Path(folder) / "monitor.yaml"
        path.write_text(SETTINGS)
        config = load(path).config
        profile = for_use(config, build_from_file(config, "m"))
    setup = Setup.of(config, 1, Known({"m": profile}, {}, {profile.id: profile}))
    warm_up(setup.plan, setup.layout, setup.collector(0), setup.monitor(0), setup.profiles.values())


if __name__ == "__main__":
    main()
