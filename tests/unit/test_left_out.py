"""A column of a reference file without a valid value where bins are chosen: left out, and said everywhere with the way out."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from detectors.reference_build import EmptyColumn, left_out
from stream.cli import app
from stream.config_errors import Problem, Severity
from stream.config_loader import load_config
from stream.preflight import build_from_file, preflight
from stream.references import for_use
from stream.replay import replay

ROWS, FIRST = 6_000, 900
WAY_OUT = "models.m.targets.late.watch: false"
NOTE = "late: not watched, for none of the 900 rows that choose its bins has a valid value"


def written(folder: Path, columns: dict[str, Any], *, timed: bool = True, **model: Any) -> Path:
    at = {"at": pa.array(np.arange(ROWS) * 600, pa.timestamp("ms", "UTC"))} if timed else {}
    parquet.write_table(pa.table(at | columns), folder / "rows.parquet")
    reference = {"file": "rows.parquet"} | ({"time": "at"} if timed else {})
    settings = {
        "kafka": {"bootstrap_servers": "localhost:9092"},
        "topics": {"predictions": "p"},
        "models": {"m": {"reference": reference} | model},
        "defaults": {"window": {"every": "1m", "min_events": 50}},
    }
    path = folder / "monitor.yaml"
    path.write_text(json.dumps(settings, indent=1))
    return path


def late(value: Any = 1.0) -> list[Any]:
    return [None] * FIRST + [value] * (ROWS - FIRST)


def amounts() -> np.ndarray:
    return np.random.default_rng(1).normal(size=ROWS)


def problems(path: Path) -> tuple[Problem, ...]:
    return preflight(path, partitions=2, events_per_s=100).problems


def test_check_config_warns_with_place_and_way_out_and_the_reference_is_built(tmp_path: Path) -> None:
    path = written(tmp_path, {"amount": amounts(), "late": late()})
    (found,) = problems(path)
    line = 1 + next(n for n, text in enumerate(path.read_text().splitlines()) if '"file"' in text)
    assert (found.code, found.path, found.line) == ("DL-C023", "models.m.reference.file", line)
    assert found.severity is Severity.WARNING
    assert found.read.startswith("late will not be watched, for none of the 900 rows that choose its bins")
    assert found.expected.startswith(WAY_OUT)
    ran = CliRunner().invoke(app, ["check-config", "--config", str(path)])
    assert ran.exit_code == 0
    assert WAY_OUT in ran.stderr
    assert "ok" not in ran.stdout.split()
    assert [target.name for target in build_from_file(load_config(path), "m").targets] == ["amount"]


@pytest.mark.parametrize("timed", [True, False])
def test_check_config_names_what_the_reference_leaves_out(tmp_path: Path, timed: bool) -> None:
    """Every type of column, with kinds that fit it and one that does not."""
    columns = {
        "amount": amounts(), "nothing": [None] * ROWS, "late": late(), "words": late("DE"), "truth": late(True),
        "infinite": [np.inf] * ROWS, "early": [1.0] + [None] * (ROWS - 1), "text": ["DE", "FR"] * (ROWS // 2),
        "classes": [0, 1] * (ROWS // 2), "prediction": late(1), "wrong": ["DE", "FR"] * (ROWS // 2),
    }  # fmt: skip
    path = written(tmp_path, columns, timed=timed, targets={"wrong": {"kind": "numeric"}})
    found = {problem.read.split(" ", 1)[0]: problem.severity for problem in problems(path)}
    expected = set(left_out(build_from_file(load_config(path), "m")))
    assert set(found) == expected
    assert {"nothing", "infinite", "wrong"} <= expected
    assert {"amount", "text", "classes"}.isdisjoint(expected)
    assert not timed or {"late", "words", "truth", "prediction"} <= expected
    assert not timed or "early" not in expected
    assert found["wrong"] is Severity.ERROR
    assert {severity for name, severity in found.items() if name != "wrong"} == {Severity.WARNING}


def test_what_the_configuration_asks_for_by_name_is_an_error_where_it_asks(tmp_path: Path) -> None:
    detectors = [{"type": "mean", "threshold": 5, "targets": ["amount", "late"]}]
    path = written(
        tmp_path, {"amount": amounts(), "late": late()}, targets={"late": {"tolerance": 0.5}}, detectors=detectors
    )
    found = problems(path)
    assert [(each.path, each.severity, each.code) for each in found] == [
        ("models.m.targets.late", Severity.ERROR, "DL-C023"),
        ("models.m.detectors[0].targets[1]", Severity.ERROR, "DL-C023"),
    ]
    assert len({each.line for each in found}) == 2


def test_the_way_out_silences_everything(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with_it = build_from_file(load_config(written(tmp_path, {"amount": amounts(), "late": late()})), "m")
    path = written(tmp_path, {"amount": amounts(), "late": late()}, targets={"late": {"watch": False}})
    config = load_config(path)
    assert problems(path) == ()
    assert not left_out(build_from_file(config, "m"))
    for_use(config, with_it)  # stored before the setting was made
    assert not caplog.records


def test_the_worker_and_a_replay_say_it_with_the_setting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    detectors = [{"type": "mean", "threshold": 5, "targets": ["late"]}]
    config = load_config(written(tmp_path, {"amount": amounts(), "late": late()}, detectors=detectors))
    said = f"models.m: {NOTE}; {WAY_OUT} leaves it out on purpose"
    for_use(config, build_from_file(config, "m"))
    line = '{"prediction_id": "%d", "model": "m", "timestamp": "2026-11-22T10:%02d:00Z", "features": {"amount": %d, "late": 1}}'
    events = [(line % (i, i // 100, i % 7)).encode() for i in range(400)]
    windows = replay(config, events).windows
    assert {name for window in windows for name in window["targets"]} == {"amount"}
    assert [(each.levelno, each.getMessage()) for each in caplog.records] == [(logging.WARNING, said)] * 2


def test_check_reference_and_reference_build_say_it_with_the_setting(tmp_path: Path) -> None:
    path = str(written(tmp_path, {"amount": amounts(), "late": late()}))
    told = f"{NOTE}; {WAY_OUT} leaves it out on purpose"
    assert f"  {told}\n" in CliRunner().invoke(app, ["check-reference", "--config", path]).stdout
    (report,) = json.loads(CliRunner().invoke(app, ["check-reference", "--config", path, "--output", "json"]).stdout)
    assert report["not_watched"] == [told]
    built = CliRunner().invoke(app, ["reference", "build", "--dry-run", "--config", path]).stdout
    assert built.count("late: not watched") == built.count(f"  {told}\n") == 1


def test_a_file_of_nothing_is_refused_by_both(tmp_path: Path) -> None:
    path = written(tmp_path, {"late": late(), "nothing": [None] * ROWS})
    (found,) = problems(path)
    assert (found.code, found.path, found.severity) == ("DL-C023", "models.m.reference.file", Severity.ERROR)
    assert found.read.startswith("no column has a valid value in the 900 rows")
    with pytest.raises(EmptyColumn, match=r"^no column has a valid value in the first 900 rows"):
        build_from_file(load_config(path), "m")


def test_the_estimate_and_the_sample_of_rows_are_without_it(tmp_path: Path) -> None:
    without = preflight(written(tmp_path, {"amount": amounts()}), partitions=2, events_per_s=100).estimate
    detectors = [{"type": "pca_reconstruction", "threshold": 5}]
    columns = {"amount": amounts(), "other": amounts()[::-1], "late": late()}
    found = preflight(written(tmp_path, columns | {"other": late()}), partitions=2, events_per_s=100).estimate
    assert found == without
    sample = build_from_file(load_config(written(tmp_path, columns, detectors=detectors)), "m").row_sample
    assert sample is not None
    assert sample.names == ("amount", "other")
