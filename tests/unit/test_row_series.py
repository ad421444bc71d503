"""Multivariate detectors through the whole pipeline: from configuration and reference to panes, windows and alerts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from pyarrow import parquet

from detectors.multivariate import RowWindow, prepared
from detectors.reference import (
    CorruptReference,
    ReferenceProfile,
    UnknownReferenceVersion,
    from_sections,
    slim,
    to_sections,
)
from detectors.reference_versions import VERSION_NEWEST
from stream import replay as replay_module
from stream.alerts import AlertBook
from stream.columns import Tag
from stream.config import Config, config_from
from stream.config_checks import check
from stream.config_errors import ConfigError
from stream.edge_state import EdgeState, decode_edge, encode_edge
from stream.events import AlertEvent
from stream.pane_state import Chunk, PaneState, PlanTables, tables_of
from stream.panes import decode_record, encode_pane
from stream.plan import ALL, ModelPlan
from stream.plan_codec import decode_plan, encode_plan, plan_hash
from stream.planning import PlanningError, collector_plan, monitor_settings
from stream.preflight import build_from_file, preflight
from stream.replay import ReplayResult, replay
from stream.row_series import ALL_FEATURES, RowSeries
from stream.row_watch import RowWatch
from stream.tally import Tally
from stream.windows import Window

MODEL = "orders"
FEATURES = ("a", "b", "c", "d")
START_MS = 1_763_806_500_000
EVERY_MS = 10
WINDOW_S = 5
PER_WINDOW = WINDOW_S * 1000 // EVERY_MS
WINDOWS = 12
BREAK_AT = 6  # from this window on the features are independent, each with the law that it had
DETECTORS = [
    {"type": "mmd_random_features", "threshold": 0.01},
    {"type": "pca_reconstruction", "threshold": 1.3, "parameters": {"explained": 0.5}},
    {"type": "domain_classifier", "threshold": 0.6, "parameters": {"rows": 300}},
    {"type": "page_hinkley", "series": "mmd_random_features", "parameters": {"min_instances": 2, "threshold": 0.01}},
]

SUMS = ("mmd_random_features", "pca_reconstruction(explained=0.5)")


def rows(n: int, seed: int, *, independent: bool = False) -> np.ndarray:
    """Four normals, a with b and c with d correlated by .95; or the same marginals without."""
    rng = np.random.default_rng(seed)
    common, own = rng.standard_normal((n, 2)), rng.standard_normal((n, 4))
    if independent:
        return own
    return np.sqrt(0.95) * common[:, [0, 0, 1, 1]] + np.sqrt(0.05) * own


def line(index: int, values: np.ndarray) -> bytes:
    features: dict[str, Any] = dict(zip(FEATURES, values.tolist(), strict=True)) | {"kind": "xy"[index % 2]}
    if index % 50 == 3:
        features["c"] = None
    event = {"prediction_id": f"p{index}", "model": MODEL, "version": "1", "timestamp": START_MS + index * EVERY_MS}
    return json.dumps(event | {"prediction": index % 3 == 0, "features": features}).encode()


def events(*, broken: bool) -> list[bytes]:
    quiet, loud = rows(WINDOWS * PER_WINDOW, 5), rows(WINDOWS * PER_WINDOW, 6, independent=True)
    first = BREAK_AT * PER_WINDOW if broken else len(quiet)
    return [line(index, (quiet if index < first else loud)[index]) for index in range(len(quiet))]


def config(folder: Path, detectors: Any = DETECTORS, **model: Any) -> Config:
    data = {
        "kafka": {"bootstrap_servers": "unused:9092"},
        "topics": {"predictions": {"name": "predictions", "lateness": "2s", "mapping": {"timestamp_unit": "ms"}}},
        "resolution": "1s",
        "defaults": {"window": {"every": f"{WINDOW_S}s", "min_events": 100}},
        "models": {
            MODEL: {"reference": {"file": "training.parquet", "prediction": "prediction"}, "detectors": detectors}
            | model
        },
    }
    return config_from(data, base=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows")
    values = rows(60_000, 1)
    values[3::50, 2] = np.nan
    columns: dict[str, Any] = {name: values[:, place] for place, name in enumerate(FEATURES)}
    columns |= {"kind": ["x", "y"] * 30_000, "prediction": [True, False, False] * 20_000}
    parquet.write_table(pa.table(columns), path / "training.parquet")
    return path


@pytest.fixture(scope="module")
def profile(folder: Path) -> ReferenceProfile:
    return build_from_file(config(folder), MODEL)


@pytest.fixture(scope="module")
def broken(folder: Path, profile: ReferenceProfile) -> ReplayResult:
    return replay(config(folder), events(broken=True), references={MODEL: profile})


def row_records(result: ReplayResult) -> list[dict[str, Any]]:
    return [window for window in result.windows if "rows" in window]


def row_alerts(result: ReplayResult) -> list[dict[str, Any]]:
    return [alert for alert in result.alerts if alert["data"]["target"] == ALL_FEATURES]


def test_a_broken_correlation_alarms_where_no_feature_does(broken: ReplayResult) -> None:
    assert {alert["data"]["target"] for alert in broken.alerts} == {ALL_FEATURES}
    opened = row_alerts(broken)[0]
    assert opened["type"] == "driftline.alert.opened.v1"
    records = row_records(broken)
    assert opened["data"]["window"] == records[BREAK_AT]["window"]
    limits = {each["type"]: each for each in opened["data"]["evidence"]["thresholds"]}
    assert set(limits) == {"mmd_random_features", "pca_reconstruction(explained=0.5)"}
    assert opened["data"]["evidence"]["online"][0]["type"].startswith("page_hinkley(mmd_random_features")
    assert "nothing is promised about false alarms" in opened["data"]["summary"]
    for alert in row_alerts(broken):
        AlertEvent.model_validate(alert)


def test_records_say_the_numbers_of_the_rows_that_were_counted(broken: ReplayResult, profile: ReferenceProfile) -> None:
    """What replay found of a window, and what the detector finds of the same rows at once."""
    assert profile.row_sample is not None
    values = rows(WINDOWS * PER_WINDOW, 5)
    values[3::50, 2] = np.nan
    records = row_records(broken)
    assert len(records) == WINDOWS
    for number, record in enumerate(records[:BREAK_AT]):
        own = values[number * PER_WINDOW : (number + 1) * PER_WINDOW]
        for name, parameters in (("mmd_random_features", {}), ("pca_reconstruction", {"explained": 0.5})):
            detector = prepared(name, profile.row_sample, parameters)
            said = next(value for series, value in record["rows"].items() if series.startswith(name))
            assert said["value"] == detector.measure(RowWindow(detector.summed(own), own[:0]))
        assert 0.4 < record["rows"]["domain_classifier(rows=300)"]["value"] < 0.6
    inputs = [window for window in broken.windows if window["series"] == profile.id]
    assert inputs == records


def test_quiet_rows_alarm_about_nothing(folder: Path, profile: ReferenceProfile) -> None:
    result = replay(config(folder), events(broken=False), references={MODEL: profile})
    assert row_alerts(result) == []
    assert len(row_records(result)) == WINDOWS


def test_the_same_events_give_the_same_numbers_however_they_are_cut(
    folder: Path, profile: ReferenceProfile, broken: ReplayResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "CHUNK_EVENTS", 313)
    again = replay(config(folder), events(broken=True), references={MODEL: profile})
    assert again.as_json() == broken.as_json()


def test_an_incident_ends_when_the_rows_are_quiet_again(folder: Path, profile: ReferenceProfile) -> None:
    """The last events are as the first, for more windows than `resolve_after`."""
    windows = 20
    quiet, loud = rows(windows * PER_WINDOW, 5), rows(windows * PER_WINDOW, 6, independent=True)
    span = range(2 * PER_WINDOW, 4 * PER_WINDOW)
    lines = [line(index, (loud if index in span else quiet)[index]) for index in range(len(quiet))]
    thresholds = [DETECTORS[0]]
    result = replay(config(folder, thresholds), lines, references={MODEL: profile})
    assert [alert["type"].split(".")[2] for alert in row_alerts(result)] == ["opened", "resolved"]
    for alert in row_alerts(result):
        AlertEvent.model_validate(alert)


def test_without_such_detectors_nothing_is_kept_counted_or_said(folder: Path) -> None:
    plain = config(folder, [{"type": "mean", "threshold": 100.0}])
    bare = build_from_file(plain, MODEL)
    assert bare.row_sample is None
    (model,) = collector_plan(plain, {MODEL: bare})[0].models
    assert (model.sample_rows, model.row_sums) == (0, ())
    assert b"row_sums" not in encode_plan(model)
    assert not len(PlanTables(model).row_sums)
    assert monitor_settings(plain).models[MODEL].rows == ()
    result = replay(plain, events(broken=False)[:PER_WINDOW], references={MODEL: bare})
    assert not row_records(result)


# ---- the reference --------------------------------------------------------------------------------------------------


def test_a_reference_keeps_rows_where_they_are_asked_for_under_another_id(
    folder: Path, profile: ReferenceProfile
) -> None:
    bare = build_from_file(config(folder, []), MODEL)
    assert bare.id != profile.id
    assert profile.row_sample is not None
    assert profile.row_sample.names == FEATURES  # of "kind" and of the prediction there are no numbers
    assert profile.row_sample.values.shape == (2000, 4)
    training, kept = rows(60_000, 1), profile.row_sample.values
    assert set(kept[:, 0].tolist()) <= set(training[:, 0].tolist())
    place = np.flatnonzero(training[:, 0] == kept[0, 0])[0]
    assert kept[0].tolist() == training[place].tolist()
    assert 0.01 < np.isnan(kept[:, 2]).mean() < 0.03
    again = from_sections(*to_sections(profile))
    assert again.row_sample is not None
    assert again.row_sample.values.tobytes() == profile.row_sample.values.tobytes()
    assert slim(profile).row_sample is profile.row_sample
    assert to_sections(bare)[0]["version"] < to_sections(profile)[0]["version"]


def test_rows_are_guarded_by_the_id(profile: ReferenceProfile) -> None:
    header, sections = to_sections(profile)
    changed = sections["row_sample"].copy()
    changed[0, 0] += 1e-9
    with pytest.raises(CorruptReference):
        from_sections(header, sections | {"row_sample": changed})
    with pytest.raises(UnknownReferenceVersion, match=f"reads up to {VERSION_NEWEST}"):
        from_sections(header | {"version": VERSION_NEWEST + 1}, sections)


def test_a_reference_without_rows_is_refused_with_what_to_do(folder: Path) -> None:
    bare = build_from_file(config(folder, []), MODEL)
    with pytest.raises(
        PlanningError, match=rf"models.{MODEL}: .*{bare.id} was built without a sample of rows; build it anew"
    ):
        collector_plan(config(folder), {MODEL: bare})


def test_features_that_are_not_watched_are_in_no_row(folder: Path, profile: ReferenceProfile) -> None:
    made = config(folder, DETECTORS, targets={"b": {"watch": False}})
    (model,) = collector_plan(made, {MODEL: profile})[0].models
    names = [target.name for target in model.targets]
    assert [names[place] for place in model.row_sums[0].places] == ["a", "c", "d"]


# ---- what is counted -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan(folder: Path, profile: ReferenceProfile) -> ModelPlan:
    return collector_plan(config(folder), {MODEL: profile})[0].models[0]


def chunk(plan: ModelPlan, values: np.ndarray, first_id: int = 0) -> Chunk:
    """Cells of these rows, in the plan's columns; NaN is a text, and 999 is missing."""
    n, columns = len(values), 1 + max(target.column for target in plan.targets)
    number, tag = np.zeros((n, columns)), np.zeros((n, columns), np.uint8)
    for place, name in enumerate(FEATURES):
        (column,) = (target.column for target in plan.targets if target.name == name)
        number[:, column] = np.nan_to_num(values[:, place])
        tag[:, column] = np.where(
            values[:, place] == 999, Tag.MISSING, np.where(np.isnan(values[:, place]), Tag.TEXT, Tag.NUMBER)
        )
    ids = np.arange(first_id, first_id + n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    cell = number.view(np.uint64)
    return Chunk(
        number,
        cell,
        cell,
        tag,
        ids,
        np.zeros(n, np.uint32),
        np.zeros(n, np.int32),
        np.zeros(n, np.uint64),
        {},
        lambda _: {},
    )


def counted(plan: ModelPlan, values: np.ndarray, first_id: int = 0, segment: str = ALL) -> PaneState:
    state = PaneState(tables_of(plan), MODEL, "1", segment)
    state.count(np.arange(len(values)), chunk(plan, values, first_id))
    return state


def measured(tally: Tally, profile: ReferenceProfile, folder: Path) -> dict[str, float]:
    return RowSeries(monitor_settings(config(folder)).models[MODEL].rows, profile, list(tally.names)).values(tally)


def test_what_is_no_number_is_the_references_mean_and_an_empty_row_is_none(plan: ModelPlan) -> None:
    values = rows(40, 9)
    values[3, 0], values[4, 1] = np.nan, 999
    values[5] = np.nan
    (rows_mmd, *_), (rows_pca, _) = (counted(plan, values).row_sums[series] for series in SUMS)
    assert rows_mmd == rows_pca == 39
    assert not counted(plan, values, segment="country=DE").row_sums
    assert counted(plan, values, segment="country=DE").sample is None


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_partitions_merge_to_the_whole_in_any_order(
    plan: ModelPlan, profile: ReferenceProfile, folder: Path, order: tuple[int, ...]
) -> None:
    values = rows(1200, 10)
    whole = Tally.of([counted(plan, values).to_pane(0, 0)])
    parts = [counted(plan, values[first : first + 300], first) for first in range(0, 1200, 300)]
    merged = Tally.of([parts[order[0]].to_pane(0, 0)])
    for place in order[1:]:
        merged.add(Tally.of([parts[place].to_pane(place, 0)]))
    assert whole.sample is not None
    assert merged.sample is not None
    assert len(merged.sample.hash) == 300
    for name in ("hash", "cell", "tag"):
        assert getattr(merged.sample, name).tolist() == getattr(whole.sample, name).tolist()
    assert {name: sums.tolist() for name, sums in merged.sample.sums.items()} == {
        name: sums.tolist() for name, sums in whole.sample.sums.items()
    }
    assert measured(merged, profile, folder) == measured(whole, profile, folder)
    assert sorted(whole.sample.sums) == sorted(SUMS)


def test_panes_edges_and_tallies_come_back_from_their_bytes(
    plan: ModelPlan, profile: ReferenceProfile, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = counted(plan, rows(700, 11))
    whole = Tally.of([state.to_pane(0, 0)])
    expected = measured(whole, profile, folder)
    assert all(np.isfinite(list(expected.values())))
    monkeypatch.setattr("stream.panes.BODY_BYTES_MAX", 12_000)
    records = encode_pane(state.to_pane(0, 0))
    assert len(records) > 1
    blocks = [decode_record(record) for record in records]
    assert [bool(block.sample.sums) for block in blocks] == [True] + [False] * (len(blocks) - 1)
    assert measured(Tally.of(blocks), profile, folder) == expected
    edge = EdgeState(0)
    edge.panes[MODEL, "1", ALL] = state
    again = decode_edge(encode_edge(edge), {plan.hash: tables_of(plan)}.__getitem__)
    assert encode_edge(again) == encode_edge(edge)
    assert encode_pane(again.panes[MODEL, "1", ALL].to_pane(0, 0)) == records
    header, sections = whole.to_sections("7.")
    assert (
        measured(Tally.from_sections(orjson.loads(orjson.dumps(header)), sections, "7."), profile, folder) == expected
    )
    kept = whole.select(np.array([1, 0]), rows=True)
    assert kept.sample is not None
    assert kept.sample.cell.tolist() == whole.sample.cell[:, [1, 0]].tolist()  # type: ignore[union-attr]
    assert whole.select(np.array([1, 0])).sample is None
    assert whole.remembered().sample is None


def test_a_plan_comes_back_from_its_bytes_and_its_hash_covers_what_is_summed(plan: ModelPlan) -> None:
    again = decode_plan(encode_plan(plan))
    assert again.hash == plan.hash == plan_hash(again)
    assert [(each.detector, each.series, each.places) for each in again.row_sums] == [
        (each.detector, each.series, each.places) for each in plan.row_sums
    ]
    for one, other in zip(again.row_sums, plan.row_sums, strict=True):
        assert {name: table.tolist() for name, table in one.tables.items()} == {
            name: table.tolist() for name, table in other.tables.items()
        }
    changed = dict(plan.row_sums[0].tables)
    changed["centre"] = changed["centre"] + 2.0**-20
    assert (
        plan_hash(replace(plan, row_sums=(replace(plan.row_sums[0], tables=changed), *plan.row_sums[1:]))) != plan.hash
    )


def test_a_window_that_was_counted_without_has_no_value(
    plan: ModelPlan, profile: ReferenceProfile, folder: Path
) -> None:
    bare = PaneState(PlanTables(replace(plan, row_sums=(), sample_rows=0, hash="")), MODEL, "1", ALL)
    values = rows(100, 12)
    bare.count(np.arange(100), chunk(plan, values))
    found = measured(Tally.of([bare.to_pane(0, 0)]), profile, folder)
    assert len(found) == 3
    assert np.isnan(list(found.values())).all()


# ---- alerts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 7, 9, 14])
def test_a_restored_watch_goes_on_as_if_nothing_had_happened(
    folder: Path, plan: ModelPlan, profile: ReferenceProfile, cut: int
) -> None:
    settings = monitor_settings(config(folder)).models[MODEL]
    tallies = [Tally.of([counted(plan, rows(500, 40 + n, independent=5 < n < 10)).to_pane(0, 0)]) for n in range(16)]

    def observe(watch: RowWatch, numbers: range) -> list[Any]:
        found = []
        for n in numbers:
            window = Window(n * 10, n * 10 + 10, 500, sufficient=True)
            found.append(watch.observe(window, tallies[n], profile, ("1",), historical=False))
        return found

    book = AlertBook(settings)
    whole = observe(RowWatch(book), range(16))
    assert len([output for _, outputs in whole for output in outputs]) == 1
    first_book, second_book = AlertBook(settings), AlertBook(settings)
    first = RowWatch(first_book)
    before = observe(first, range(cut))
    second_book.load(orjson.loads(orjson.dumps(first_book.to_header())))
    second = RowWatch(second_book)
    second.load("model/x/rows", first.blobs("model/x/rows"))
    assert before + observe(second, range(cut, 16)) == whole


# ---- what is configured ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("detector", "said"),
    [
        ({"type": "mmd_random_features"}, "mmd_random_features has no limit"),
        (
            {"type": "domain_classifier", "threshold": 0.6, "targets": ["a"]},
            "domain_classifier is about all numeric features",
        ),
        (
            {"type": "cusum", "series": "domain_classifier", "targets": ["a"]},
            "domain_classifier is about all numeric features",
        ),
        (
            {"type": "pca_reconstruction", "threshold": "3 std"},
            "a reference keeps no pca_reconstruction of its windows",
        ),
        ({"type": "pca_reconstruction", "threshold": 1.1, "parameters": {"explained": 2}}, "explained: 2 is outside"),
    ],
)
def test_what_makes_no_sense_is_refused(folder: Path, detector: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(folder, [detector])


@pytest.mark.parametrize("detector", [DETECTORS[0], DETECTORS[3]])
def test_a_reference_that_is_learnt_keeps_no_rows(folder: Path, detector: dict[str, Any]) -> None:
    found = list(check(config(folder, [detector], reference={"first": 10_000})))
    assert [(code, path) for code, path, *_ in found] == [("DL-C020", ("models", MODEL, "detectors", 0))]
    assert "needs rows of the reference" in found[0][2]
    assert list(check(config(folder, [detector]))) == []


def test_settings_decide_about_ids_of_alerts_and_plans(folder: Path, profile: ReferenceProfile) -> None:
    whole, less = config(folder), config(folder, DETECTORS[1:])
    hashes = {monitor_settings(each).models[MODEL].detection_hash() for each in (whole, less)}
    plans = {collector_plan(each, {MODEL: profile})[0].models[0].hash for each in (whole, less)}
    assert len(hashes) == 2
    assert len(plans) == 1  # page_hinkley sees the same series: the same is counted


def test_windows_of_a_reference_from_before_say_why_they_have_none(
    folder: Path, plan: ModelPlan, profile: ReferenceProfile
) -> None:
    watch = RowWatch(AlertBook(monitor_settings(config(folder)).models[MODEL]))
    tally = Tally.of([counted(plan, rows(100, 3)).to_pane(0, 0)])
    window = Window(0, 10, 100, sufficient=True)
    body, alerts = watch.observe(window, tally, replace(profile, row_sample=None, id="old"), ("1",), historical=False)
    assert alerts == []
    assert len(body) == 3
    assert all("reference old was built without a sample of rows" in each["refused"] for each in body.values())
    body, _ = watch.observe(window, tally, profile, ("1",), historical=False)
    assert all("value" in each for each in body.values())


def test_check_config_counts_rows_in_panes_and_references(folder: Path) -> None:
    plain, rows_too = config(folder, []), config(folder)
    sizes = []
    for made in (plain, rows_too):
        (folder / "driftline.yaml").write_text(
            json.dumps(made.model_dump(mode="json", exclude_unset=True), default=str)
        )
        found = preflight(folder / "driftline.yaml", partitions=2, events_per_s=1000).estimate
        assert found is not None
        sizes.append(found)
    bare, more = sizes
    targets = len(FEATURES) + 2
    edges = 1 + 2  # lateness 2 s, panes of 1 s
    assert bare.sample_bytes == 0
    assert more.sample_bytes == 2 * edges * 300 * targets * 9
    assert more.references_bytes - bare.references_bytes == targets * 70_000
