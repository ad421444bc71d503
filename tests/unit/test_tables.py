"""Parquet and CSV as rows of a reference, and as events of a replay."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from stream.config import Config, config_from
from stream.tables import TableError, read_table, reference_rows, table_events

AT = [dt.datetime(2026, 11, 22, 10, 15, second, tzinfo=dt.UTC) for second in range(3)]


def config(reference: dict[str, Any] | None = None, **model: Any) -> Config:
    return config_from(
        {
            "kafka": {"bootstrap_servers": "a:1"},
            "topics": {"predictions": "p"},
            "models": {"fraud": {"reference": {"file": "x.parquet"} | (reference or {})} | model},
        }
    )


def table(**columns: Any) -> pa.Table:
    return pa.table({"amount": [1.5, None, 3.0]} | columns)


def test_columns_become_targets_with_roles_kinds_and_ranges() -> None:
    rows = reference_rows(
        config(
            {"label": "is_fraud", "prediction": "decision", "ignore": ["row"]},
            targets={"amount": {"range": [0, 9]}, "country": {"kind": "categorical"}, "noise": {"watch": False}},
        ),
        "fraud",
        table(
            country=pa.array(["DE", None, "FR"]).dictionary_encode(),
            count=[1, 2, 3],
            new=[True, False, True],
            decision=[0, 1, 0],
            score=[0.1, 0.9, 0.2],
            is_fraud=[0, 1, 0],
            row=[1, 2, 3],
            noise=[1.0, 2.0, 3.0],
            timestamp=AT,
            prediction_id=["a", "b", "c"],
        ),
    )
    assert rows.roles == {
        "amount": "feature", "country": "feature", "count": "feature", "new": "feature", "prediction": "prediction", "score": "score",
    }  # fmt: skip
    np.testing.assert_array_equal(rows.columns["amount"], [1.5, np.nan, 3.0])
    assert rows.columns["country"].tolist() == ["DE", None, "FR"]
    assert rows.columns["count"].dtype == np.float64
    assert rows.columns["new"].dtype == bool
    assert rows.kinds == {"country": "categorical"}
    assert rows.ranges == {"amount": (0.0, 9.0)}
    assert rows.time_ms is not None
    assert rows.time_ms.tolist() == [int(at.timestamp() * 1000) for at in AT]
    assert rows.rows == 3


def test_rows_without_time_have_none() -> None:
    assert reference_rows(config(), "fraud", table()).time_ms is None


@pytest.mark.parametrize(
    "values",
    [
        [1763806500000, 1763806501000, 1763806502000],
        ["2025-11-22T10:15:00Z", "2025-11-22T10:15:01Z", "2025-11-22T10:15:02Z"],
        pa.array([1763806500000000, 1763806501000000, 1763806502000000]).cast(pa.timestamp("us")),
    ],
)
def test_times_in_three_shapes(values: Any) -> None:
    rows = reference_rows(config({"time": "at"}), "fraud", table(at=values))
    assert rows.time_ms is not None
    assert rows.time_ms.tolist() == [1763806500000, 1763806501000, 1763806502000]


BAD = {
    "missing column": (
        {"label": "is_fruad"},
        {"is_fraud": [0, 1, 0]},
        "there is no column is_fruad.  did you mean `is_fraud`?",
    ),
    "nested column": (
        {},
        {"items": [[1], [2], [3]]},
        "the column items is of type list<.*>: no number, text or bool. Name it in reference.ignore",
    ),
    "time with holes": ({"time": "at"}, {"at": [1, None, 3]}, "the time column at has 1 rows without time"),
    "time as float": (
        {"time": "at"},
        {"at": [1.0, 2.0, 3.0]},
        "of type double: neither a timestamp nor whole milliseconds",
    ),
    "time as words": ({"time": "at"}, {"at": ["a", "b", "c"]}, "the time column at cannot be read"),
    "two of a name": (
        {"score": "s"},
        {"s": [1.0, 2.0, 3.0], "score": [1.0, 2.0, 3.0]},
        "both called score; rename one",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_column_is_named(name: str) -> None:
    reference, columns, message = BAD[name]
    with pytest.raises(TableError, match=message):
        reference_rows(config(reference), "fraud", table(**columns))


def test_a_file_without_features_is_refused() -> None:
    with pytest.raises(TableError, match="no column to watch"):
        reference_rows(config({"ignore": ["amount"]}), "fraud", table())


def test_files(tmp_path: Path) -> None:
    parquet.write_table(table(), tmp_path / "x.parquet")
    csv.write_csv(table(), tmp_path / "x.csv")
    assert read_table(tmp_path / "x.parquet").num_rows == 3
    assert read_table(tmp_path / "x.csv").column_names == ["amount"]
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    (tmp_path / "x.xlsx").write_bytes(b"")
    for name, message in [
        ("nowhere.parquet", "nowhere.parquet is not there"),
        ("x.xlsx", r"\.xlsx is not known; known: \.parquet"),
        ("broken.parquet", "broken.parquet: "),
    ]:
        with pytest.raises(TableError, match=message):
            read_table(tmp_path / name)


def test_rows_become_native_events(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(
        table(decision=[0, 1, 0], score=[0.1, 0.9, 0.2], country=["DE", "FR", "DE"], at=AT, is_fraud=[0, 1, 0]), path
    )
    made = config({"time": "at", "prediction": "decision", "label": "is_fraud"}, segments={"country": ["DE"]})
    events = [orjson.loads(line) for line in table_events(made, path)]
    assert events[1] == {
        "prediction_id": "row-1",
        "model": "fraud",
        "timestamp": "2026-11-22T10:15:01Z",
        "features": {"amount": None, "country": "FR"},
        "prediction": 1,
        "score": 0.9,
        "segments": {"country": "FR"},
    }


def test_nested_columns_and_an_envelope_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    rows = [
        {
            "prediction_id": 7,
            "model": "churn",
            "timestamp": "2026-11-22T10:15:01Z",
            "features": {"a": 1},
            "segments.c": "DE",
        }
    ]
    parquet.write_table(pa.Table.from_pylist(rows), path)
    (event,) = (orjson.loads(line) for line in table_events(config(), path))
    assert event == {
        "prediction_id": "7", "model": "churn", "timestamp": "2026-11-22T10:15:01Z", "features": {"a": 1}, "segments": {"c": "DE"},
    }  # fmt: skip
