"""Every detector and every limit on a target that is an array: it says something of each window, or the configuration refuses it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from detectors import REGISTRY
from detectors.registry import Family
from stream.config_checks import check
from stream.config_detectors import ONLINE, SERIES, TYPES
from stream.config_errors import ConfigError
from stream.preflight import build_from_file, preflight
from stream.replay import replay
from stream.window_series import COMPARISONS, DISTINCT, OF_CATEGORIES, ROWS, VOLUME
from tests.unit.test_array_series import MODEL, config, embeddings, line, odd_value

ROWS_N, EVENTS_N = 8_000, 2_500
REFUSED = {*OF_CATEGORIES, VOLUME, "pca_reconstruction", "domain_classifier"}


def asked() -> Iterator[dict[str, Any]]:
    """Every type, online ones on every series, with every kind of limit."""
    for name in TYPES:
        if name in ONLINE:
            yield from ({"type": name, "series": series, "targets": ["query"]} for series in SERIES)
            continue
        p_value = name in REGISTRY and REGISTRY[name].family is Family.TEST
        for limit in (0.5, "1 per 30d") if p_value else (0.5, "3 std", "1 per 30d"):
            yield {"type": name, "below" if p_value else "threshold": limit, "targets": ["query"]}


def refusals(folder: Path, detector: dict[str, Any]) -> list[tuple[str, str]]:
    """(code, path) of what check-config says of it."""
    try:
        return [(code, ".".join(map(str, path))) for code, path, *_ in check(config(folder, [detector]))]
    except ConfigError as error:
        return [(problem.code, problem.path) for problem in error.problems]


def world(folder: Path, *, alike: bool) -> list[bytes]:
    """The reference's file, and events. `alike`: every array has length 1, as embeddings mostly have."""

    def arrays(n: int, seed: int) -> np.ndarray:
        values = embeddings(n, seed)
        return values / np.linalg.norm(values, axis=1, keepdims=True) if alike else values

    rows = [odd_value(i, each) for i, each in enumerate(arrays(ROWS_N, 1))]
    rows = [None if each is not None and "x" in each else each for each in rows]
    table = {"query": pa.array(rows, pa.list_(pa.float64())), "amount": [float(i % 7) for i in range(ROWS_N)]}
    parquet.write_table(pa.table(table), folder / "training.parquet")
    return [line(i, odd_value(i, each)) for i, each in enumerate(arrays(EVENTS_N, 2))]


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("checked")
    return [detector for detector in asked() if not refusals(folder, detector)]


def test_what_no_array_has_a_value_of_is_refused_with_code_and_place(tmp_path: Path) -> None:
    for detector in asked():
        found = refusals(tmp_path, detector)
        about = detector.get("series", detector["type"])
        made = isinstance(detector.get("threshold", detector.get("below")), str)
        assert bool(found) == (about in REFUSED or (made and about in {*ROWS, VOLUME, DISTINCT})), detector
        for code, path in found:
            assert (code, path.startswith(f"models.{MODEL}.detectors")) == ("DL-C020", True), detector


@pytest.mark.parametrize("alike", [False, True])
def test_what_is_accepted_says_something_of_every_window(
    tmp_path: Path, accepted: list[dict[str, Any]], *, alike: bool
) -> None:
    events = world(tmp_path, alike=alike)
    made = config(tmp_path, accepted)
    result = replay(made, events, references={MODEL: build_from_file(made, MODEL)})
    windows = [window for window in result.windows if "query" in window["targets"]]  # others are of outputs
    assert len(windows) == EVENTS_N // 500
    for window in windows:
        target, array = window["targets"]["query"], window["rows"]["mmd_random_features(query)"]
        for detector in accepted:
            name, series = detector["type"], detector.get("series", detector["type"])
            here = array if series in ROWS else target
            value = here["value"] if series in ROWS else target[series]
            if value is None:  # of arrays of one length distances in deviations have none
                assert alike, detector
                assert series in COMPARISONS, detector
                continue
            assert math.isfinite(value), detector
            if name in ONLINE:
                assert math.isfinite(here["online"][f"{name}({series})"]["statistic"]), detector


@pytest.mark.parametrize("settings", [{"dimension": 16}, {"kind": "numeric"}, {"range": [0, 9]}])
def test_numbers_have_no_categories_either(tmp_path: Path, settings: dict[str, Any]) -> None:
    for series in OF_CATEGORIES:
        for detector in ({"type": series, "threshold": 0.5}, {"type": "cusum", "series": series}):
            (found,) = check(config(tmp_path, [detector | {"targets": ["query"]}], settings))
            assert found[:2] == ("DL-C020", ("models", MODEL, "detectors", 0, "targets", 0))
            what = "arrays" if "dimension" in settings else "numbers"
            assert found[2] == f"{series} is of categories, and the values of query are {what}"
            assert list(check(config(tmp_path, [detector], settings))) == []  # on all targets: on those that have them


def test_what_the_file_shows_to_be_a_number_has_none(tmp_path: Path) -> None:
    world(tmp_path, alike=False)
    made = config(tmp_path, [{"type": "distinct", "threshold": 9, "targets": ["amount"]}])
    path = tmp_path / "driftline.yaml"
    path.write_text(json.dumps(made.model_dump(mode="json", exclude_unset=True), default=str))
    (problem,) = preflight(path, partitions=2, events_per_s=100).problems
    assert (problem.code, problem.path) == ("DL-C020", f"models.{MODEL}.detectors[0].targets[0]")
    assert problem.read == "distinct is of categories, and the values of amount are numbers"
    path.write_text(path.read_text().replace('"query": {', '"amount": {"kind": "categorical"}, "query": {'))
    assert preflight(path, partitions=2, events_per_s=100).problems == ()
