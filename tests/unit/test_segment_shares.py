"""The shares of a segment key's values are a target like any other: a group that grows in the traffic is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from pyarrow import parquet

from detectors.binning import Kind
from stream.config import Config, config_from
from stream.plan import Role
from stream.planning import DeclaredTarget, collector_plan, monitor_settings
from stream.preflight import build_from_file, rows_of
from stream.replay import replay
from stream.tables import TableError
from stream.wording import instant

START_MS = 1_763_806_500_000
ROWS = 40_000
COUNTRIES = ("DE", "FR", "US")
SHARES = (0.5, 0.3, 0.2)


def config(folder: Path, **model: Any) -> Config:
    return config_from(
        {
            "kafka": {"bootstrap_servers": "unused:9092"},
            "topics": {"predictions": {"name": "p", "lateness": "1s"}},
            "resolution": "1s",
            "defaults": {"window": {"every": "5s", "min_events": 100}},
            "models": {
                "fraud": {"reference": {"file": "training.parquet"}, "segments": {"country": ["DE", "FR"]}} | model
            },
        },
        base=folder,
    )


def countries(r: np.random.Generator, count: int, shares: tuple[float, ...] = SHARES) -> list[str]:
    return [COUNTRIES[place] for place in r.choice(len(shares), count, p=shares)]


def write(folder: Path, **columns: Any) -> Path:
    parquet.write_table(pa.table(columns), folder / "training.parquet")
    return folder


@pytest.fixture
def rows() -> dict[str, Any]:
    r = np.random.default_rng(1)
    return {"amount": r.normal(size=ROWS), "country": countries(r, ROWS)}


def targets(config: Config) -> dict[str, str]:
    return {target.name: target.role for target in build_from_file(config, "fraud").targets}


def test_a_column_of_its_own_makes_a_target_and_no_feature(tmp_path: Path, rows: dict[str, Any]) -> None:
    write(tmp_path, amount=rows["amount"], **{"segments.country": rows["country"]})
    assert targets(config(tmp_path)) == {"amount": "feature", "segment:country": "segment_share"}


def test_a_key_that_is_a_watched_feature_is_watched_once(tmp_path: Path, rows: dict[str, Any]) -> None:
    write(tmp_path, **rows)
    assert targets(config(tmp_path)) == {"amount": "feature", "country": "feature"}


@pytest.mark.parametrize(
    "model",
    [
        {"targets": {"country": {"watch": False}}},
        {"reference": {"file": "training.parquet", "ignore": ["country"]}},
    ],
)
def test_a_key_that_is_no_watched_feature_has_its_shares_watched(
    tmp_path: Path, rows: dict[str, Any], model: dict[str, Any]
) -> None:
    write(tmp_path, **rows)
    assert targets(config(tmp_path, **model)) == {"amount": "feature", "segment:country": "segment_share"}
    off = model.get("targets", {}) | {"segment:country": {"watch": False}}
    assert targets(config(tmp_path, **model | {"targets": off})) == {"amount": "feature"}


def test_a_key_without_a_column_is_not_watched_and_a_feature_of_its_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path, amount=[1.0], age=[2.0])
    assert rows_of(config(tmp_path), "fraud").roles == {"amount": "feature", "age": "feature"}
    write(tmp_path, **{"segment:country": [1.0], "segments.country": ["DE"]})
    with pytest.raises(TableError, match="which is the name of the shares of the segment country"):
        rows_of(config(tmp_path), "fraud")


def test_a_model_that_learns_watches_them_too(tmp_path: Path) -> None:
    amount = DeclaredTarget("amount", Role.FEATURE, Kind.NUMERIC)
    country = DeclaredTarget("country", Role.FEATURE, Kind.CATEGORICAL)
    learning = config(tmp_path, reference={"first": 10_000})
    plan, layout = collector_plan(learning, {"fraud": None}, {"fraud": (amount,)})
    (model,) = plan.models
    assert [(target.name, layout.paths[target.column]) for target in model.targets] == [
        ("amount", "features.amount"),
        ("segment:country", "segments.country"),
    ]
    settings = monitor_settings(learning, {"fraud": (amount,)}).model("fraud")
    assert settings.role_of("segment:country") is Role.SHARE
    assert settings.kinds["segment:country"] == "categorical"
    (model,) = collector_plan(learning, {"fraud": None}, {"fraud": (amount, country)})[0].models
    assert [target.name for target in model.targets] == ["amount", "country"]


def lines(r: np.random.Generator, count: int, shares: tuple[float, ...], first: int) -> list[bytes]:
    return [
        orjson.dumps(
            {
                "prediction_id": f"{first + place}",
                "model": "fraud",
                "timestamp": instant(START_MS + (first + place) * 10),
                "features": {"amount": amount},
                "segments": {"country": country},
            }
        )
        for place, (amount, country) in enumerate(
            zip(r.normal(size=count).tolist(), countries(r, count, shares), strict=True)
        )
    ]


def test_a_group_that_grows_is_found_and_nothing_else(tmp_path: Path, rows: dict[str, Any]) -> None:
    write(tmp_path, amount=rows["amount"], **{"segments.country": rows["country"]})
    r = np.random.default_rng(2)
    calm = replay(config(tmp_path), lines(r, 20_000, SHARES, 0))
    assert calm.alerts == ()
    found = replay(config(tmp_path), lines(r, 10_000, SHARES, 0) + lines(r, 10_000, (0.7, 0.18, 0.12), 10_000))
    opened = [alert for alert in found.alerts if ".opened." in alert["type"]]
    assert [alert["subject"] for alert in opened] == ["feature_drift/segment%3Acountry"]
    assert "share of 'DE' in segment:country rose from 50 % to" in opened[0]["data"]["summary"]
    inputs = [w for w in found.windows if w["segment"] == "all" and "amount" in w["targets"]]
    shares = inputs[0]["targets"]["segment:country"]
    assert shares["labels"][:3] == ["DE", "FR", "US"]
    assert sum(shares["bins"]) == inputs[0]["events"]


def test_a_table_that_is_replayed_carries_segments_of_columns_that_are_no_features(
    tmp_path: Path, rows: dict[str, Any]
) -> None:
    times = np.array(START_MS + np.arange(ROWS) * 10).astype("M8[ms]")
    write(tmp_path, timestamp=times, **rows)
    settings = config(tmp_path, reference={"file": "training.parquet", "ignore": ["country"]})
    found = replay(settings, tmp_path / "training.parquet")
    some = next(w for w in found.windows if w["segment"] == "all" and w["state"] == "judged")
    assert some["targets"]["segment:country"]["missing"] == 0
    assert {w["segment"] for w in found.windows} == {"all", "country=DE", "country=FR", "country=__other__"}
