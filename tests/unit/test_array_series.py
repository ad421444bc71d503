"""Arrays (embeddings) through the whole pipeline: configuration, reference file, events, panes, windows, alerts, states."""

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

from detectors.binning import Kind
from detectors.multivariate import RowWindow, prepared
from detectors.reference import ReferenceProfile, from_sections, to_sections
from detectors.reference_versions import VERSION_ARRAYS, VERSION_ROWS
from stream import replay as replay_module
from stream.alerts import AlertBook
from stream.columns import Columns
from stream.config import Config, config_from
from stream.config_checks import check
from stream.config_errors import ConfigError
from stream.counting import prepare
from stream.decode import decode, records_from_lines
from stream.edge_state import EdgeState, decode_edge, encode_edge
from stream.events import AlertEvent
from stream.owner_record import counting_hash
from stream.pane_state import PaneState, tables_of
from stream.panes import decode_record, encode_pane
from stream.plan import ALL, ModelPlan, Role
from stream.plan_codec import decode_plan, encode_plan
from stream.planning import DeclaredTarget, PlanningError, collector_hash, collector_plan, monitor_settings
from stream.preflight import build_from_file, preflight
from stream.replay import ReplayResult, replay
from stream.row_series import RowSeries
from stream.row_watch import RowWatch
from stream.tables import TableError, reference_rows
from stream.tally import Tally
from stream.windows import Window

MODEL, LENGTH = "search", 16
START_MS, EVERY_MS = 1_763_806_500_000, 10
WINDOW_S = 5
PER_WINDOW = WINDOW_S * 1000 // EVERY_MS
WINDOWS, TURN_AT = 12, 6
SERIES = "mmd_random_features(query)"
OTHER = "mmd_random_features(query, frequencies=32)"
DETECTORS: list[dict[str, Any]] = [
    {"type": "mmd_random_features", "targets": ["query"], "threshold": 0.01},
    {"type": "mmd_random_features", "targets": ["query"], "threshold": 0.02, "parameters": {"frequencies": 32}},
    {
        "type": "page_hinkley",
        "series": "mmd_random_features",
        "targets": ["query"],
        "parameters": {"min_instances": 2, "threshold": 0.01},
    },
]
BOTH = [*DETECTORS, {"type": "mmd_random_features", "threshold": 0.5}]


def embeddings(n: int, seed: int, *, turned: bool = False) -> np.ndarray:
    """Around one point; turned: half of the numbers have the other sign, so that every norm stays what it was."""
    values = 1.0 + np.random.default_rng(seed).standard_normal((n, LENGTH))
    return values * np.repeat((-1.0, 1.0), LENGTH // 2) if turned else values


def line(index: int, value: Any) -> bytes:
    event = {"prediction_id": f"p{index}", "model": MODEL, "version": "1", "timestamp": START_MS + index * EVERY_MS}
    return json.dumps(event | {"features": {"query": value, "amount": index % 7}}).encode()


def odd_value(index: int, values: np.ndarray) -> Any:
    """What stands in an event: one in 50 is missing, in 100 of a wrong length, in 100 with a number that is none."""
    if index % 50 == 3:
        return None
    if index % 100 == 7:
        return [1.0, 2.0]
    return [*values.tolist()[:-1], "x"] if index % 100 == 11 else values.tolist()


def events(*, turned: bool) -> list[bytes]:
    same, other = (embeddings(WINDOWS * PER_WINDOW, 5, turned=each) for each in (False, True))
    first = TURN_AT * PER_WINDOW if turned else len(same)
    return [line(index, odd_value(index, (same if index < first else other)[index])) for index in range(len(same))]


def config(folder: Path, detectors: Any = DETECTORS, target: Any = None, **model: Any) -> Config:
    data = {
        "kafka": {"bootstrap_servers": "unused:9092"},
        "topics": {"predictions": {"name": "predictions", "lateness": "2s", "mapping": {"timestamp_unit": "ms"}}},
        "resolution": "1s",
        "defaults": {"window": {"every": f"{WINDOW_S}s", "min_events": 100}},
        "models": {
            MODEL: {
                "reference": {"file": "training.parquet"},
                "targets": {"query": {"dimension": LENGTH} if target is None else target},
                "detectors": detectors,
            }
            | model
        },
    }
    return config_from(data, base=folder)


def training(n: int = 20_000) -> pa.Table:
    values = [odd_value(index, row) for index, row in enumerate(embeddings(n, 1))]
    values = [value if value is None or "x" not in value else [1.0] for value in values]
    return pa.table({"query": pa.array(values, pa.list_(pa.float32())), "amount": [float(i % 7) for i in range(n)]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("arrays")
    parquet.write_table(training(), path / "training.parquet")
    return path


@pytest.fixture(scope="module")
def profile(folder: Path) -> ReferenceProfile:
    return build_from_file(config(folder), MODEL)


@pytest.fixture(scope="module")
def turned(folder: Path, profile: ReferenceProfile) -> ReplayResult:
    return replay(config(folder), events(turned=True), references={MODEL: profile})


def records(result: ReplayResult) -> list[dict[str, Any]]:
    return [window for window in result.windows if "rows" in window]


def test_arrays_that_turn_alarm_where_their_norm_does_not(turned: ReplayResult) -> None:
    assert {alert["data"]["target"] for alert in turned.alerts} == {"query[]"}
    opened = turned.alerts[0]
    assert opened["type"] == "driftline.alert.opened.v1"
    assert opened["data"]["window"] == records(turned)[TURN_AT]["window"]
    assert {each["type"] for each in opened["data"]["evidence"]["thresholds"]} == {SERIES, OTHER}
    assert opened["data"]["evidence"]["online"][0]["type"].startswith("page_hinkley(mmd_random_features")
    assert opened["data"]["summary"].startswith("All numbers of query together: ")
    for alert in turned.alerts:
        AlertEvent.model_validate(alert)


def test_arrays_that_stay_alarm_about_nothing(folder: Path, profile: ReferenceProfile) -> None:
    result = replay(config(folder), events(turned=False), references={MODEL: profile})
    assert result.alerts == ()
    assert len(records(result)) == WINDOWS


def test_records_say_the_numbers_of_the_arrays_that_were_valid(turned: ReplayResult, profile: ReferenceProfile) -> None:
    """What replay found of a window, and what the detector finds of the same arrays at once; the others are counted."""
    assert profile.row_sample is not None
    rows, values = profile.row_sample.of_array("query"), embeddings(WINDOWS * PER_WINDOW, 5)
    for number, record in enumerate(records(turned)[:TURN_AT]):
        span = range(number * PER_WINDOW, (number + 1) * PER_WINDOW)
        valid = [index for index in span if index % 50 != 3 and index % 100 not in {7, 11}]
        for series, parameters in ((SERIES, {}), (OTHER, {"frequencies": 32})):
            detector = prepared("mmd_random_features", rows, parameters)
            expected = detector.measure(RowWindow(detector.summed(values[valid]), values[:0]))
            assert record["rows"][series]["value"] == expected
        assert record["events"] == PER_WINDOW
        said = record["targets"]["query"]
        assert (said["missing"], said["invalid"]) == (0.02, 0.02)


def test_the_same_events_give_the_same_numbers_however_they_are_cut(
    folder: Path, profile: ReferenceProfile, turned: ReplayResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "CHUNK_EVENTS", 313)
    again = replay(config(folder), events(turned=True), references={MODEL: profile})
    assert again.as_json() == turned.as_json()


def test_arrays_of_another_length_are_said_to_be_so(folder: Path, profile: ReferenceProfile) -> None:
    lines = events(turned=False)[: TURN_AT * PER_WINDOW]
    lines += [line(index, [1.0] * 8) for index in range(len(lines), len(lines) + 2 * PER_WINDOW)]
    result = replay(config(folder), lines, references={MODEL: profile})
    (schema, *_) = result.alerts
    assert schema["data"]["schema_change"]["change"] == "retyped"
    assert schema["data"]["summary"].startswith(
        f"query is no array of {LENGTH} numbers: 100 % of its values are none, most often another array, since"
    )
    assert records(result)[-1]["rows"][SERIES]["value"] is None


# ---- the reference --------------------------------------------------------------------------------------------------


def test_a_reference_keeps_arrays_where_they_are_asked_for(folder: Path, profile: ReferenceProfile) -> None:
    bare = build_from_file(config(folder, []), MODEL)
    assert bare.row_sample is None
    assert {target.name: target.binning.kind for target in bare.targets} == {
        "query": Kind.NUMERIC, "amount": Kind.NUMERIC,
    }  # fmt: skip
    rows = build_from_file(config(folder, BOTH[3:]), MODEL)
    assert to_sections(rows)[0]["version"] == VERSION_ROWS
    assert profile.row_sample is not None
    assert to_sections(profile)[0]["version"] == VERSION_ARRAYS
    kept = profile.row_sample.arrays["query"]
    assert kept.dtype == np.float32
    assert kept.shape[1] == LENGTH
    assert len(kept) == 2000  # one row in 25 has none: others stand in for them
    assert {tuple(row) for row in kept.tolist()} <= {
        tuple(r) for r in embeddings(20_000, 1).astype(np.float32).tolist()
    }
    again = from_sections(*to_sections(profile))
    assert again.row_sample is not None
    assert again.row_sample.arrays["query"].tobytes() == kept.tobytes()
    assert len({bare.id, rows.id, profile.id}) == 3


@pytest.mark.parametrize("width", [pa.float16(), pa.float64(), pa.int32()])
@pytest.mark.parametrize("form", ["list", "large_list", "fixed"])
def test_lists_of_any_width_are_read(folder: Path, form: str, width: pa.DataType) -> None:
    values = [[3, 4, 0], None, [0, 5, 12], [1, None, 1]]
    if form != "fixed":
        values += [[1, 2]]
    numbers = [None if v is None else [None if x is None else width.to_pandas_dtype()(x) for x in v] for v in values]
    kind = {"list": pa.list_(width), "large_list": pa.large_list(width), "fixed": pa.list_(width, 3)}[form]
    table = pa.table({"query": pa.chunked_array([pa.array(numbers[:2], kind), pa.array(numbers[2:], kind)])})
    rows = reference_rows(config(folder, target={"dimension": 3}), MODEL, table.slice(0))
    assert rows.columns["query"][:4].tolist() == pytest.approx([5.0, np.nan, 13.0, np.inf], nan_ok=True)
    assert rows.columns["query"][4:].tolist() == [np.inf] * (form != "fixed")
    found = rows.arrays["query"](np.array([3, 2, 1, 0]))
    assert found.tolist() == [[0, 5, 12], [3, 4, 0]]
    later = reference_rows(config(folder, target={"dimension": 3}), MODEL, table.slice(1))
    assert later.arrays["query"](np.array([0, 1])).tolist() == [[0, 5, 12]]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (pa.array([1.0, 2.0]), "the column query is of type double: no lists of numbers"),
        (pa.array([["a"], ["b"]]), "the column query is of type list<.*string>: no lists of numbers"),
        (pa.array([[True], [False]]), "bool>: no lists of numbers"),
        (pa.array([[1.0], [2.0, 3.0]]), "the column query has no list of 16 finite numbers"),
    ],
)
def test_a_column_that_is_no_such_array_is_refused(folder: Path, values: pa.Array, said: str) -> None:
    with pytest.raises(TableError, match=said):
        reference_rows(config(folder), MODEL, pa.table({"query": values}))


def test_a_column_of_lists_says_how_it_may_be_watched(folder: Path) -> None:
    with pytest.raises(TableError, match=r"list<.*: no number, text or bool.*set targets.query.dimension"):
        reference_rows(config(folder, [], {}), MODEL, pa.table({"query": pa.array([[1.0]])}))


@pytest.mark.parametrize(
    ("detectors", "dimension", "said"),
    [
        (BOTH[3:], LENGTH, r"was built without a sample of the arrays of query; build it anew"),
        ([], LENGTH, r"was built without a sample of the arrays of query; build it anew"),
        (DETECTORS, 8, r"targets.query.dimension is 8, reference \S+ has arrays of 16 numbers; build it anew"),
    ],
)
def test_a_reference_of_other_arrays_is_refused_with_what_to_do(
    folder: Path, detectors: Any, dimension: int, said: str
) -> None:
    built = build_from_file(config(folder, detectors), MODEL)
    with pytest.raises(PlanningError, match=rf"models.{MODEL}: .*{said}"):
        collector_plan(config(folder, target={"dimension": dimension}), {MODEL: built})


# ---- what is counted ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan(folder: Path, profile: ReferenceProfile) -> ModelPlan:
    return collector_plan(config(folder), {MODEL: profile})[0].models[0]


def decoded(folder: Path, profile: ReferenceProfile, lines: list[bytes]) -> Columns:
    _, layout = collector_plan(config(folder), {MODEL: profile})
    return decode(records_from_lines(lines), layout)


def counted(
    folder: Path, profile: ReferenceProfile, plan: ModelPlan, lines: list[bytes], segment: str = ALL
) -> PaneState:
    state = PaneState(tables_of(plan), MODEL, "1", segment)
    state.count(np.arange(len(lines)), prepare(decoded(folder, profile, lines), ()))
    return state


def lines_of(n: int, seed: int, *, turned: bool = False) -> list[bytes]:
    return [line(index, value.tolist()) for index, value in enumerate(embeddings(n, seed, turned=turned))]


def measured(tally: Tally, profile: ReferenceProfile, folder: Path) -> dict[str, float]:
    return RowSeries(monitor_settings(config(folder)).models[MODEL].rows, profile, tally.names).values(tally)


def test_partitions_merge_to_the_whole_and_segments_have_none(
    folder: Path, profile: ReferenceProfile, plan: ModelPlan
) -> None:
    lines = lines_of(900, 3)
    whole = Tally.of([counted(folder, profile, plan, lines).to_pane(0, 0)])
    parts = [counted(folder, profile, plan, lines[first::3]) for first in (2, 0, 1)]
    merged = Tally.of([parts[0].to_pane(0, 0)])
    for place, part in enumerate(parts[1:], 1):
        merged.add(Tally.of([part.to_pane(place, 0)]))
    assert measured(merged, profile, folder) == measured(whole, profile, folder)
    assert set(measured(whole, profile, folder)) == {SERIES, OTHER}
    assert whole.sample is not None
    assert whole.sample.sums[SERIES][0] == 900
    assert counted(folder, profile, plan, lines, "country=DE").row_sums == {}


def test_states_come_back_from_their_bytes(folder: Path, profile: ReferenceProfile, plan: ModelPlan) -> None:
    """An edge is saved in the middle, and goes on bit for bit as the one that was not."""
    lines = [line(index, odd_value(index, value)) for index, value in enumerate(embeddings(600, 4))]
    chunk = prepare(decoded(folder, profile, lines), ())
    whole, first = (PaneState(tables_of(plan), MODEL, "1", ALL) for _ in range(2))
    whole.count(np.arange(600), chunk)
    first.count(np.arange(250), chunk)
    edge = EdgeState(0)
    edge.panes[MODEL, "1", ALL] = first
    stored = decode_plan(encode_plan(plan))
    assert stored.hash == plan.hash
    assert [each.length for each in stored.row_sums] == [LENGTH, LENGTH]
    again = decode_edge(encode_edge(edge), {plan.hash: tables_of(plan)}.__getitem__).panes[MODEL, "1", ALL]
    again.count(np.arange(250, 600), chunk)
    assert encode_pane(again.to_pane(0, 0)) == encode_pane(whole.to_pane(0, 0))
    blocks = [decode_record(record) for record in encode_pane(whole.to_pane(0, 0))]
    assert measured(Tally.of(blocks), profile, folder) == measured(Tally.of([whole.to_pane(0, 0)]), profile, folder)
    assert again.row_sums[SERIES][0] == 600 - 12 - 6 - 6


def test_a_stored_plan_of_another_length_counts_none_of_these_arrays(
    folder: Path, profile: ReferenceProfile, plan: ModelPlan
) -> None:
    other = replace(plan, row_sums=tuple(replace(each, length=LENGTH - 1) for each in plan.row_sums), hash="other")
    state = counted(folder, profile, other, lines_of(20, 3))
    assert state.row_sums[SERIES].tolist() == [0] * 129
    assert state.events == 20


@pytest.mark.parametrize("cut", [1, 7, 9, 14])
def test_a_restored_watch_goes_on_as_if_nothing_had_happened(folder: Path, cut: int) -> None:
    """Arrays and all features together, each with an incident of its own."""
    made = config(folder, BOTH)
    built = build_from_file(made, MODEL)
    (plan,) = collector_plan(made, {MODEL: built})[0].models
    settings = monitor_settings(made).models[MODEL]
    tallies = [
        Tally.of([counted(folder, built, plan, lines_of(300, 40 + n, turned=5 < n < 10)).to_pane(0, 0)])
        for n in range(16)
    ]

    def observe(watch: RowWatch, numbers: range) -> list[Any]:
        return [
            watch.observe(
                Window(n * 10, n * 10 + 10, 300, sufficient=True), tallies[n], built, ("1",), historical=False
            )
            for n in numbers
        ]

    book = AlertBook(settings)
    whole = observe(RowWatch(book), range(16))
    assert [key[2] for key in book.open] == ["query[]"]
    assert set(whole[0][0]) == {"mmd_random_features", SERIES, OTHER}
    first_book, second_book = AlertBook(settings), AlertBook(settings)
    first = RowWatch(first_book)
    before = observe(first, range(cut))
    second_book.load(orjson.loads(orjson.dumps(first_book.to_header())))
    second = RowWatch(second_book)
    second.load("model/x/rows", first.blobs("model/x/rows"))
    assert before + observe(second, range(cut, 16)) == whole
    assert second.blobs("model/x/rows").keys() == first.blobs("model/x/rows").keys()


def test_windows_of_a_reference_from_before_say_why_they_have_none(
    folder: Path, profile: ReferenceProfile, plan: ModelPlan
) -> None:
    watch = RowWatch(AlertBook(monitor_settings(config(folder)).models[MODEL]))
    tally = Tally.of([counted(folder, profile, plan, lines_of(100, 3)).to_pane(0, 0)])
    window = Window(0, 10, 100, sufficient=True)
    assert profile.row_sample is not None
    bare = replace(profile, row_sample=replace(profile.row_sample, arrays={}), id="old")
    body, alerts = watch.observe(window, tally, bare, ("1",), historical=False)
    assert alerts == []
    assert all(
        "reference old was built without a sample of the arrays of query" in each["refused"] for each in body.values()
    )
    body, _ = watch.observe(window, tally, profile, ("1",), historical=False)
    assert all("value" in each for each in body.values())


# ---- what is configured ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("detectors", "target", "said"),
    [
        ([], {"dimension": 0}, "DL-C014"),
        ([], {"dimension": 4097}, "DL-C014"),
        ([], {"dimension": "many"}, "DL-C011"),
        ([], {"dimension": 3, "kind": "categorical"}, "an array is no number and no text"),
        ([], {"dimension": 3, "range": [0, 1]}, "an array is no number and no text"),
        ([], {"dimension": 3, "coerce": True}, "an array is no number and no text"),
        ([{"type": "pca_reconstruction", "targets": ["query"], "threshold": 1}], None, "about all numeric features"),
        ([{"type": "domain_classifier", "targets": ["query"], "threshold": 1}], None, "about all numeric features"),
        ([{"type": "cusum", "series": "pca_reconstruction", "targets": ["query"]}], None, "about all numeric features"),
        (
            [{"type": "mmd_random_features", "targets": ["query", "amount"], "threshold": 1}],
            None,
            "is about the arrays of one target",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(folder: Path, detectors: Any, target: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(folder, detectors, target)


def test_what_settings_contradict_is_found(folder: Path) -> None:
    assert list(check(config(folder, BOTH))) == []
    (found,) = check(config(folder, [DETECTORS[0]], {}))
    assert found[:3] == ("DL-C020", ("models", MODEL, "detectors", 0, "targets", 0), "query is not said to be an array")
    (found,) = check(config(folder, [DETECTORS[0]], {"dimension": 3, "watch": False}))
    assert found[2] == "query is not watched"
    (found,) = check(config(folder, [DETECTORS[0]], reference={"first": 10_000}))
    assert "needs rows of the reference" in found[2]
    outputs = {name: {"dimension": 3} for name in ("prediction", "score", "segment:country")}
    assert [path[3] for _, path, *_ in check(config(folder, [], targets=outputs))] == list(outputs)


def test_arrays_are_in_the_hashes_and_configurations_without_keep_theirs(folder: Path) -> None:
    learnt = {"reference": {"first": 10_000}}
    plain, one, other = (
        config(folder, [], target, **learnt) for target in ({"kind": "numeric"}, None, {"dimension": 3})
    )
    hashes = [counting_hash(each) for each in (plain, one, other)]
    assert len(set(hashes)) == 3
    assert hashes[0] == "89b5853647ee0ae8dbe4ca9831d916b7"  # as before there were arrays: a rolling upgrade goes on
    found = [collector_hash(each, collector_plan(each, {MODEL: None})[0]) for each in (plain, one, other)]
    assert len(set(found)) == 3
    assert found[0] == "e4051a203c034a103eb851c86e67a061"


def test_a_model_that_learns_watches_the_norm_of_its_arrays(folder: Path) -> None:
    made = config(folder, [], reference={"first": 10_000})
    discovered = {MODEL: (DeclaredTarget("amount", Role.FEATURE, Kind.NUMERIC),)}
    plan, layout = collector_plan(made, {MODEL: None}, discovered)
    assert [target.name for target in plan.models[0].targets] == ["amount", "query"]
    columns = decode(records_from_lines([line(0, [0.0] * 14 + [3, 4])]), layout)
    assert columns.cell[0].view(np.float64).tolist() == [0.0, 5.0]


def test_check_config_counts_what_references_keep_of_arrays(folder: Path) -> None:
    sizes = []
    for detectors in (BOTH[3:], BOTH):
        made = config(folder, detectors)
        (folder / "driftline.yaml").write_text(
            json.dumps(made.model_dump(mode="json", exclude_unset=True), default=str)
        )
        found = preflight(folder / "driftline.yaml", partitions=2, events_per_s=1000)
        assert found.problems == ()
        assert found.estimate is not None
        sizes.append(found.estimate.references_bytes)
    assert sizes[1] - sizes[0] == LENGTH * 42_000
