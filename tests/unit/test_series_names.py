"""Names that driftline makes, beside features that happen to be called so: refused where two would be one, else told apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from stream.config_checks import check
from stream.planning import PlanningError, collector_plan
from stream.preflight import build_from_file, preflight
from stream.replay import replay
from stream.row_series import ALL_FEATURES, NoRowsError
from stream.window_series import Threshold
from tests.unit.test_array_series import LENGTH, MODEL, PER_WINDOW, config, embeddings, line, training

ARRAY: dict[str, Any] = {"type": "mmd_random_features", "targets": ["query"], "threshold": 0.01}
WHOLE: dict[str, Any] = {"type": "mmd_random_features", "threshold": 0.01}
PLACES = [("query[]", ARRAY, "mmd_random_features(query)"), (ALL_FEATURES, WHOLE, "mmd_random_features")]
FEATURES = st.text(st.sampled_from('ab,= ()"\\'), min_size=1, max_size=8) | st.text(min_size=1, max_size=5)
PARAMETERS = st.dictionaries(
    st.sampled_from(("bandwidth", "frequencies")), st.integers(8, 12) | st.floats(0.1, 9.0), max_size=2
)
ASKED = st.tuples(st.none() | FEATURES | st.just("frequencies=8") | st.just("a, frequencies=8"), PARAMETERS)


@given(ASKED, ASKED)
def test_no_two_series_have_one_name(one: tuple[str | None, dict[str, Any]], other: tuple[Any, dict[str, Any]]) -> None:
    names = {
        Threshold("mmd_random_features", 1.0, targets=(of,) if of else (), parameters=tuple(sorted(own.items()))).series
        for of, own in (one, other)
    }
    assert len(names) == 1 + ((one[0], sorted(one[1].items())) != (other[0], sorted(other[1].items())))


def test_plain_names_are_as_they_were() -> None:
    def name(of: str, **parameters: float) -> str:
        return Threshold("mmd_random_features", 1.0, targets=(of,), parameters=tuple(parameters.items())).series

    assert name("query", frequencies=32) == "mmd_random_features(query, frequencies=32)"
    assert name("user (old) embedding") == "mmd_random_features(user (old) embedding)"
    assert name("query, frequencies=32") == 'mmd_random_features("query, frequencies=32")'


def test_arrays_whose_names_read_as_parameters_have_series_of_their_own(tmp_path: Path) -> None:
    """All three were one series before, whose sums were those of the last."""
    odd, values = "frequencies=32", embeddings(6_000, 2)
    arrays = pa.array([each.tolist() for each in values], pa.list_(pa.float64()))
    table = {"query": arrays, odd: arrays, "amount": [float(i % 7) for i in range(6_000)]}
    parquet.write_table(pa.table(table), tmp_path / "training.parquet")
    detectors = [WHOLE | {"parameters": {"frequencies": 32}}, WHOLE | {"targets": [odd]}, ARRAY]
    made = config(tmp_path, detectors, targets={name: {"dimension": LENGTH} for name in ("query", odd)})
    (plan,) = collector_plan(made, {MODEL: build_from_file(made, MODEL)})[0].models
    assert {each.series: each.length for each in plan.row_sums} == {
        "mmd_random_features(frequencies=32)": 0,
        'mmd_random_features("frequencies=32")': LENGTH,
        "mmd_random_features(query)": LENGTH,
    }


@pytest.mark.parametrize(("name", "detector", "series"), PLACES)
def test_a_target_that_is_called_as_alerts_are_is_refused(
    tmp_path: Path, name: str, detector: dict[str, Any], series: str
) -> None:
    """In the configuration with its place, in the reference file, and in a reference that somebody promoted."""
    own = {"query": {"dimension": LENGTH}}
    (found,) = check(
        config(tmp_path, [{"type": "psi", "threshold": 1}, detector], targets=own | {name: {"kind": "numeric"}})
    )
    assert found[:2] == ("DL-C020", ("models", MODEL, "detectors", 1))
    assert found[2] == f"a target is called {name}, as alerts about {series} are"
    assert not list(check(config(tmp_path, [detector], targets=own | {name: {"watch": False}})))

    table = training(6_000)
    parquet.write_table(table.append_column(name, table["amount"]), tmp_path / "training.parquet")
    made = config(tmp_path, [detector])
    path = tmp_path / "driftline.yaml"
    path.write_text(json.dumps(made.model_dump(mode="json", exclude_unset=True), default=str))
    (problem,) = preflight(path, partitions=2, events_per_s=100).problems
    assert (problem.code, problem.path) == ("DL-C020", f"models.{MODEL}.detectors[0]")
    with pytest.raises(
        NoRowsError, match=rf"models.{MODEL}: .*: reference .* has a target .*, as alerts about this series"
    ):
        build_from_file(made, MODEL)
    promoted = build_from_file(config(tmp_path, []), MODEL)
    with pytest.raises(PlanningError, match="rename that feature, set watch: false for it, or leave this detector out"):
        collector_plan(made, {MODEL: promoted})
    unwatched = config(tmp_path, [detector], targets=own | {name: {"watch": False}})
    assert build_from_file(unwatched, MODEL).row_sample is not None


def test_features_that_turn_up_later_under_these_names_have_incidents_of_their_own(tmp_path: Path) -> None:
    parquet.write_table(training(6_000), tmp_path / "training.parquet")
    made = config(tmp_path, [ARRAY, WHOLE | {"threshold": 0.5}])
    lines, turn = [], 4 * PER_WINDOW
    same, turned = embeddings(8 * PER_WINDOW, 5), embeddings(8 * PER_WINDOW, 5, turned=True)
    for index in range(8 * PER_WINDOW):
        event = orjson.loads(line(index, (same if index < turn else turned)[index].tolist()))
        if index >= turn:
            event["features"] |= {"query[]": 1.0, ALL_FEATURES: "x", "mmd_random_features(query)": 2}
        lines.append(orjson.dumps(event))
    result = replay(made, lines, references={MODEL: build_from_file(made, MODEL)})
    opened = [alert["data"] for alert in result.alerts if alert["type"].endswith("opened.v1")]
    about = {(each["kind"], each["target"]): each["incident"] for each in opened}
    new = ("query[]", ALL_FEATURES, "mmd_random_features(query)")
    assert set(about) == {("feature_drift", "query[]"), *(("data_quality", name) for name in new)}
    assert len(set(about.values())) == 4


def test_a_segment_has_one_key(tmp_path: Path) -> None:
    (found,) = check(config(tmp_path, [], segments={"a": ["b=c"], "a=b": ["c"]}))
    assert found[:2] == ("DL-C014", ("models", MODEL, "segments", "a=b"))
