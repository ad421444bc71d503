"""What an array of numbers in an event costs: to be passed over, read, and counted with its detector.

    python -m load_tests.array_speed [--numbers 64 768]

Events with 20 numeric features and an array of single precision, decoded and counted as a collector does. Microseconds of CPU time
an event, the best of ROUNDS; beside them the same events without an array.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from stream.columns import I64
from stream.config import Config, config_from
from stream.counting import prepare
from stream.decode import decode, records_from_lines
from stream.pane_state import Chunk, PaneState, PlanTables, tables_of
from stream.plan import ALL
from stream.planning import collector_plan
from stream.preflight import build_from_file

MODEL, ARRAY = "search", "query"
EVENTS, TRAINING, FEATURES, ROUNDS = 400, 6000, 20, 9
DETECTOR = {"type": "mmd_random_features", "targets": [ARRAY], "threshold": 0.01}
FORMS: dict[str, tuple[bool, dict[str, Any], list[Any]]] = {
    "no array": (False, {"watch": False}, []),
    "not declared": (True, {"watch": False}, []),
    "dimension": (True, {}, []),
    "with mmd": (True, {}, [DETECTOR]),
}


def config(folder: Path, length: int, target: dict[str, Any], detectors: list[Any]) -> Config:
    model = {
        "reference": {"file": "training.parquet"},
        "targets": {ARRAY: target or {"dimension": length}},
        "detectors": detectors,
    }
    return config_from(
        {
            "kafka": {"bootstrap_servers": "unused:9092"},
            "topics": {"predictions": {"name": "predictions", "mapping": {"timestamp_unit": "ms"}}},
            "models": {MODEL: model},
        },
        base=folder,
    )


def best(call: Callable[[], object]) -> float:
    """us an event."""
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        call()
        found.append(time.process_time() - began)
    return min(found) / EVENTS * 1e6


def counted(tables: PlanTables, rows: I64, chunk: Chunk) -> None:
    PaneState(tables, MODEL, "", ALL).count(rows, chunk)


def measure(folder: Path, length: int) -> dict[str, tuple[float, float]]:
    """Form -> (us to decode, us to count)."""
    r = np.random.default_rng(1)
    columns: dict[str, Any] = {f"f{number}": r.standard_normal(TRAINING) for number in range(FEATURES)}
    columns[ARRAY] = list(r.standard_normal((TRAINING, length)).astype(np.float32))
    parquet.write_table(pa.table(columns), folder / "training.parquet")
    arrays, values = r.standard_normal((EVENTS, length)).astype(np.float32), r.standard_normal((EVENTS, FEATURES))
    found = {}
    for form, (carried, target, detectors) in FORMS.items():
        made = config(folder, length, target, detectors)
        plan, layout = collector_plan(made, {MODEL: build_from_file(made, MODEL)})
        lines = []
        for number in range(EVENTS):
            features = {f"f{place}": value for place, value in enumerate(values[number].tolist())}
            event = {"prediction_id": f"p{number}", "model": MODEL, "timestamp": 1_763_806_500_000 + number}
            own = {ARRAY: [float(str(each)) for each in arrays[number]]} if carried else {}
            lines.append(json.dumps(event | {"features": own | features}).encode())
        records, tables = records_from_lines(lines), tables_of(plan.models[0])
        chunk, rows = prepare(decode(records, layout), ()), np.arange(EVENTS)
        counted(tables, rows, chunk)  # compiled
        found[form] = best(partial(decode, records, layout)), best(partial(counted, tables, rows, chunk))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--numbers", type=int, nargs="+", default=[64, 768])
    args = parser.parse_args()
    for length in args.numbers:
        with tempfile.TemporaryDirectory() as name:
            found = measure(Path(name), length)
        for form, (read, counted) in found.items():
            print(f"{length:5} numbers, {form:14} decode {read:7.2f} us   count {counted:7.2f} us")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
