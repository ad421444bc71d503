"""A limit on a target that can have no value of it is refused with its place; what is meant by a name of elsewhere is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from detectors import REGISTRY
from detectors.registry import Family, Reads
from stream.config_errors import ConfigError, Problem
from stream.config_loader import load_config
from stream.preflight import build_from_file, preflight
from stream.replay import replay
from stream.window_series import NAMES, OF_CATEGORIES, OF_NUMBERS

ROWS = 6_000
TARGETS = ("amount", "country", "prediction")
CATEGORIES = ("country", "prediction")


def written(folder: Path, detectors: list[dict[str, Any]], targets: dict[str, Any] | None = None) -> Path:
    path = folder / "monitor.yaml"
    model = {"reference": {"file": "rows.parquet", "time": "at"}, "detectors": detectors, "targets": targets or {}}
    settings = {
        "kafka": {"bootstrap_servers": "localhost:9092"},
        "topics": {"predictions": "p"},
        "models": {"m": model},
    }
    path.write_text(json.dumps(settings | {"defaults": {"window": {"every": "1m", "min_events": 50}}}))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    g = np.random.default_rng(1)
    table = {
        "at": pa.array(np.arange(ROWS) * 600, pa.timestamp("ms", "UTC")),
        "amount": g.normal(size=ROWS),
        "country": g.choice(["DE", "FR"], ROWS),
        "prediction": (g.random(ROWS) < 0.3).astype(float),
    }
    parquet.write_table(pa.table(table), tmp_path / "rows.parquet")
    return tmp_path


def problems(
    folder: Path, detectors: list[dict[str, Any]], targets: dict[str, Any] | None = None
) -> tuple[Problem, ...]:
    return preflight(written(folder, detectors, targets), partitions=2, events_per_s=100).problems


def limit(series: str, target: str) -> dict[str, Any]:
    side = "below" if series in REGISTRY and REGISTRY[series].family is Family.TEST else "threshold"
    return {"type": series, side: 0.5, "targets": [target]}


def test_what_is_accepted_has_a_value_in_every_window_and_what_is_refused_has_none(folder: Path) -> None:
    """Every series on a number, on a text, and on a prediction of two classes, as the file shows them to be."""
    asked = [limit(series, target) for series in NAMES for target in TARGETS]
    asked += [{"type": "cusum", "series": series, "targets": [target]} for series in NAMES for target in TARGETS]
    refused = {p.path: p for p in problems(folder, asked)}
    assert {p.code for p in refused.values()} == {"DL-C020"}
    kept = []
    for place, detector in enumerate(asked):
        series, (target,) = detector.get("series", detector["type"]), detector["targets"]
        here = f"models.m.detectors[{place}].targets[0]"
        assert (here in refused) == (series in (OF_NUMBERS if target in CATEGORIES else OF_CATEGORIES)), detector
        kept += [] if here in refused else [detector]
    assert "mean is of numbers, and the values of country are categories" in {p.read for p in refused.values()}
    config = load_config(written(folder, kept))
    line = '{"prediction_id": "%d", "model": "m", "timestamp": "2026-11-22T10:%02d:00Z", '
    line += '"features": {"amount": %d, "country": "DE"}, "prediction": 1}'
    events = [(line % (i, i // 100, i % 7)).encode() for i in range(400)]
    found = replay(config, events, references={"m": build_from_file(config, "m")}).windows
    for target in TARGETS:
        (records, *_) = [[w["targets"][target] for w in found if target in w["targets"]]]
        assert records
        series = {d.get("series", d["type"]) for d in kept if d["targets"] == [target]}
        assert all(record[name] is not None for record in records for name in series)


def test_what_the_configuration_says_to_be_categories_needs_no_file(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(folder, [limit("mean", "zip"), limit("psi", "zip")], {"zip": {"kind": "categorical"}}))
    (found,) = caught.value.problems
    assert (found.code, found.path) == ("DL-C020", "models.m.detectors[0].targets[0]")
    assert found.read == "mean is of numbers, and the values of zip are categories"


def test_a_name_of_elsewhere_says_where_it_belongs(folder: Path) -> None:
    errors = [name for name, entry in REGISTRY.items() if entry.reads is Reads.ERRORS]
    assert len(errors) == 5
    for name in errors:
        with pytest.raises(ConfigError) as caught:
            load_config(written(folder, [{"type": name}]))
        (problem,) = caught.value.problems
        assert (problem.code, problem.read) == ("DL-C013", f"'{name}' is not known")
        assert problem.expected.startswith(
            "expected: performance: {detectors: [...]} of the model, with `series: accuracy`"
        )
    for detector in ({"type": "median", "threshold": 1}, {"type": "cusum", "series": "median"}):
        with pytest.raises(ConfigError) as caught:
            load_config(written(folder, [detector]))
        assert [problem.expected for problem in caught.value.problems] == ["expected: p50"]
