"""Disparity, comparison of versions, promotion and the reference's test metrics in the records of performance."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

sys.path.insert(0, str(Path(__file__).parents[1]))

import monitor_kit as kit
import performance_kit as world

from detectors.binning import Kind
from detectors.performance import PerformanceSums, measure, ratio
from detectors.performance.disparity import DISPARITIES, disparity
from detectors.reference import from_sections, to_sections, with_id
from detectors.reference_performance import ReferencePerformance, reference_performance
from stream import container
from stream.config import Config, config_from
from stream.join_feedback import FeedbackKind
from stream.monitor import Monitor
from stream.performance_contrasts import contrast_outputs, serving_version
from stream.performance_panes import kept_name
from stream.performance_plan import ModelPerformance, StreamPerformance
from stream.performance_records import Measured, ReferenceTest, performance_outputs
from stream.plan import Role
from stream.planning import DeclaredTarget, collector_hash, collector_plan
from stream.preflight import build_from_file
from stream.reference_performance import measured_rows, values_of_file
from stream.tables import read_table
from stream.window_log import Closed

WINDOW = Closed(0, 60_000, 900, lost=False)
KEPT = kept_name(world.BINARY, world.CLASSES)
PLAN = ModelPerformance("fraud", world.CLASSES, 1, (), disparity=(("country", "DE"),))


def sums_of(seed: int, rows: int, shift: float = 0.0) -> PerformanceSums:
    g = np.random.default_rng(seed)
    score = g.random(rows)
    label = (g.random(rows) < np.clip(score + shift, 0, 1)).astype(np.int64)
    sums = PerformanceSums(world.BINARY)
    sums.add_classes((score > 0.5).astype(np.int64), label)
    sums.add_scores(score, label)
    return sums


def measured(segment: str, sums: PerformanceSums, version: str = "7", **more: Any) -> Measured:
    rows = int(sums.counts["confusion.matrix"].sum())
    plain = Measured(
        "fraud", version, segment, "labels", 60_000, KEPT, WINDOW, "label", rows, rows, True, world.CLASSES, sums, "7"
    )  # fmt: skip
    return replace(plain, **more)


def contrasts(found: list[Measured], kind: str, plan: ModelPerformance = PLAN, **more: Any) -> list[dict[str, Any]]:
    return [event["data"] for event in world.performance(contrast_outputs(found, plan, (), **more), kind)]


GROUP, REFERENCE = sums_of(1, 400, -0.2), sums_of(2, 500)


def test_a_group_is_set_against_the_reference_group_of_its_key() -> None:
    found = [measured("all", sums_of(3, 900)), measured("country=DE", REFERENCE), measured("country=FR", GROUP)]
    said = contrasts(found, "disparity")
    assert [data["metric"] for data in said] == list(DISPARITIES)
    for data in said:
        expected = disparity(data["metric"], GROUP, REFERENCE)
        for name in ("group", "reference", "difference", "ratio"):
            estimate = getattr(expected, name)
            assert (data[name]["value"], data[name]["low"], data[name]["high"]) == (
                estimate.value, estimate.low, estimate.high,
            )  # fmt: skip
        assert (data["segment"], data["reference_segment"], data["incomplete"]) == ("country=FR", "country=DE", False)
        assert (data["group"]["predictions"], data["reference"]["predictions"]) == (400, 500)


def test_too_few_rows_and_a_group_that_is_not_there_are_said() -> None:
    found = [measured("country=FR", GROUP), measured("country=IT", sums_of(4, 20)), measured("country=DE", REFERENCE)]
    said = {(data["segment"], data["metric"]): data for data in contrasts(found, "disparity")}
    assert said["country=FR", "recall"]["difference"]["value"] is not None
    data = said["country=IT", "selection_rate"]
    for name in ("difference", "ratio"):
        assert data[name]["value"] is None
        assert data[name]["undefined"] == "group: 20 events, at least 30 are needed"
    assert data["group"]["value"] is not None
    fewer = replace(PLAN, least_events=20)
    (data,) = [each for each in contrasts(found[1:], "disparity", fewer) if each["metric"] == "selection_rate"]
    assert data["difference"]["value"] is not None
    alone = contrasts(found[:1], "disparity")
    assert {data["difference"]["undefined"] for data in alone} == {"reference group: no predictions"}
    assert {data["reference"]["predictions"] for data in alone} == {0}


def test_what_is_of_no_two_classes_or_of_another_version_has_no_disparity() -> None:
    assert not contrasts([measured("all", GROUP), measured("country=DE", REFERENCE)], "disparity")
    assert not contrasts([measured("channel=web", GROUP), measured("channel=app", REFERENCE)], "disparity")
    clicks = PerformanceSums(world.PROXIES)
    clicked = [replace(measured(f"country={c}", GROUP), kind="click", sums=clicks) for c in ("DE", "FR")]
    assert not contrasts(clicked, "disparity")
    other = [measured("country=FR", GROUP), measured("country=DE", REFERENCE, "8")]
    assert {data["difference"]["value"] for data in contrasts(other, "disparity")} == {None}
    lacking = [measured("country=FR", GROUP), measured("country=DE", REFERENCE, whole=False)]
    assert all(data["incomplete"] for data in contrasts(lacking, "disparity"))


def test_the_champion_is_the_one_configured_else_the_one_that_serves() -> None:
    found = [
        measured("all", sums, version) for sums, version in ((GROUP, "6"), (REFERENCE, "7"), (sums_of(5, 300), "8"))
    ]
    assert {(d["version"], d["champion_version"]) for d in contrasts(found, "comparison")} == {("6", "7"), ("8", "7")}
    named = replace(PLAN, champion="8")
    said = contrasts(found, "comparison", named)
    assert {(d["version"], d["champion_version"]) for d in said} == {("6", "8"), ("7", "8")}
    assert not contrasts(found, "comparison", replace(PLAN, champion="9"))
    (data,) = [each for each in said if (each["version"], each["metric"]) == ("6", "auroc")]
    values = [measure("auroc", sums).value or 0.0 for sums in (GROUP, found[2].sums)]
    assert data["difference"]["value"] == values[0] - values[1]
    assert data["difference"]["low"] < values[0] - values[1] < data["difference"]["high"]
    assert (data["challenger"]["value"], data["champion"]["value"], data["samples"]) == (*values, "independent")
    few = [measured("all", GROUP), measured("all", sums_of(6, 12), "8")]
    assert contrasts(few, "comparison")[0]["difference"]["undefined"] == "version: 12 events, at least 30 are needed"


@pytest.mark.parametrize(
    ("before", "now", "serves"),
    [
        ("", {"7": 5, "8": 9}, "8"),
        ("", {"8": 5, "7": 5}, "7"),
        ("7", {"7": 50, "8": 99}, "7"),
        ("7", {"7": 50, "8": 100}, "8"),
        ("7", {"8": 2}, "8"),
        ("7", {"8": 1}, "7"),
        ("7", {}, "7"),
        ("", {}, ""),
    ],
)
def test_another_version_serves_once_it_has_twice_the_predictions(
    before: str, now: dict[str, int], serves: str
) -> None:
    assert serving_version(before, now) == serves


CLICKS = {world.FRAUD: (StreamPerformance("clicks", FeedbackKind.CLICK, (30,), ("ctr",), world.PROXIES),)}


def click_panes(edge: int, counts: dict[str, int]) -> list[Any]:
    found = []
    for version, rows in counts.items():
        sums = PerformanceSums(world.PROXIES)
        sums.add_proxies(np.arange(rows) < 5, np.zeros(rows, bool), np.zeros(rows), np.full(rows, 0.5))
        found.append(world.PerformancePane(
            0, world.FRAUD, version, "all", "clicks", "click", 30, edge, rows, 5, True, (), sums
        ))  # fmt: skip
    return found


def test_a_promotion_is_marked_once_and_survives_a_restart() -> None:
    stage, log = world.stage_of(CLICKS, sources=1), kit.Log()
    for edge in range(0, 80, 10):
        log.add(kit.pane(0, edge, 70, None, model=world.FRAUD), world.marker(0, edge + 10))
    for edge in range(0, 80, 10):
        old, new = ((60, 10), (60, 10), (10, 60), (0, 70))[edge // 20]
        log.add(*click_panes(edge, {v: n for v, n in (("7", old), ("8", new)) if n}))
        if edge % 20 == 10:
            log.add(world.marker(0, edge + 10, "clicks@30"))
    said, stored = [], {}
    for record in log.records:
        stage.apply("panes", [record])
        said += [event["data"] for event in world.performance(stage.outbox)]
        kit.live(stored, stage.changed_blobs())
        stage = world.stage_of(CLICKS, sources=1)
        stage.load(stored)
    marks = [(d["window"]["start_ms"], d["version"], d["serving"], d.get("promoted_from")) for d in said]
    assert marks == [
        (0, "7", "7", None), (0, "8", "7", None), (20, "7", "7", None), (20, "8", "7", None),
        (40, "7", "8", "7"), (40, "8", "8", "7"), (60, "8", "8", None),
    ]  # fmt: skip


def test_a_state_that_does_not_say_who_served_begins_with_the_next_window() -> None:
    stage = world.stage_of(CLICKS, sources=1)
    stage.apply("panes", kit.Log().add(kit.pane(0, 0, 70, None, model=world.FRAUD), world.marker(0, 10)).records)
    blobs = kit.live({}, stage.changed_blobs())
    (name,) = [name for name in blobs if name.endswith("/performance")]
    header = dict(container.decode(blobs[name]).header)
    header["series"] = [each[:3] for each in header["series"]]
    blobs[name] = container.encode("performance-windows", 1, header, {})
    again = world.stage_of(CLICKS, sources=1)
    again.load(blobs)
    (at,) = again.models[world.FRAUD].performance.series.values()
    assert (at.window, at.serving) == (0, "")


# ---- test metrics -------------------------------------------------------------------------------------------------------

ROWS = 12_000


def table(**columns: Any) -> pa.Table:
    g = np.random.default_rng(7)
    score = g.random(ROWS)
    own = {
        "amount": g.normal(size=ROWS), "score": score, "prediction": np.where(score > 0.5, "yes", "no"),
        "fraud": np.where(g.random(ROWS) < score, "yes", "no"), "country": g.choice(["DE", "FR", "XX"], ROWS),
    } | columns  # fmt: skip
    return pa.table({name: values for name, values in own.items() if values is not None})


def config(folder: Path, **performance: Any) -> Config:
    own = {"horizons": ["1h"], "metrics": ["recall", "auroc"], "classes": ["no", "yes"], "disparity": {"country": "DE"}}
    model = {
        "reference": {"file": "rows.parquet", "label": "fraud", "ignore": ["country"]},
        "segments": {"country": ["DE", "FR"]},
        "performance": own | performance,
    }
    plain = {"kafka": {"bootstrap_servers": "unused:9092"}, "topics": {"predictions": "p", "labels": "l"}}
    return config_from(plain | {"models": {"fraud": model}}, folder)


def recounted(rows: Any) -> PerformanceSums:
    """The sums of some rows of the table."""
    sums = PerformanceSums(world.BINARY)
    predicted, label = ((rows[name] == "yes").astype(np.int64) for name in ("prediction", "fraud"))
    sums.add_classes(predicted, label)
    sums.add_scores(rows["score"], label)
    return sums


def columns_of(own: pa.Table, country: str | None) -> Any:
    chosen = np.array(own["country"].to_pylist(), object)
    rows = np.ones(ROWS, bool) if country is None else chosen == country
    return {name: np.array(own[name].to_pylist())[rows] for name in ("prediction", "fraud", "score")}


def test_a_reference_has_the_test_metrics_of_every_segment_and_keeps_them(tmp_path: Path) -> None:
    own = table()
    parquet.write_table(own, tmp_path / "rows.parquet")
    profile = build_from_file(config(tmp_path), "fraud")
    found = profile.performance
    assert found is not None
    assert set(found.segments) == {"all", "country=DE", "country=FR", "country=__other__"}
    for segment, country in (("all", None), ("country=DE", "DE"), ("country=FR", "FR"), ("country=__other__", "XX")):
        sums = recounted(columns_of(own, country))
        for metric in ("recall", "auroc", "selection_rate", "brier"):
            said, expected = found.estimate(segment, metric), measure(metric, sums)
            assert said is not None
            assert said.value == pytest.approx(expected.value, rel=1e-9)
            assert (said.low, said.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
            assert said.events == expected.events
    assert found.estimate("country=IT", "recall") is None
    assert found.estimate("all", "ctr") is None
    header, sections = to_sections(profile)
    assert header["version"] == 5
    read = from_sections(header, sections).performance
    assert read is not None
    assert (read.kept, read.segments, read.metrics) == (found.kept, found.segments, found.metrics)
    assert read.values.tobytes() == found.values.tobytes()
    parquet.write_table(table(fraud=np.array(["no", "yes"] * (ROWS // 2))), tmp_path / "rows.parquet")
    assert build_from_file(config(tmp_path), "fraud").id != profile.id


def test_files_that_say_nothing_of_performance_give_a_reference_without(tmp_path: Path) -> None:
    own = config(tmp_path)
    assert measured_rows(own, "fraud", table(prediction=None))[0] is None
    parquet.write_table(table(prediction=None), tmp_path / "rows.parquet")
    profile = build_from_file(own, "fraud")
    assert "no test metrics: the file has no column of predictions (reference.prediction)" in profile.notes
    assert (profile.performance, to_sections(profile)[0]["version"]) == (None, 3)
    scoreless, why = measured_rows(own, "fraud", table(score=None))
    assert (scoreless is not None, why) == (True, "")
    assert scoreless is not None
    assert scoreless.estimate("all", "recall") is not None
    assert scoreless.estimate("all", "auroc") is None
    without = measured_rows(own, "fraud", table(country=None))[0]
    assert without is not None
    assert without.segments == ("all",)


def test_decisions_of_a_file_that_are_texts_are_no_numbers(tmp_path: Path) -> None:
    own = config(tmp_path, metrics=["mae"], disparity={})
    found = measured_rows(own, "fraud", table(prediction=["none"] * ROWS, fraud=np.ones(ROWS)))[0]
    assert found is not None
    assert found.estimate("all", "mae") is None


def test_cells_of_a_file_are_read_as_those_of_an_event(tmp_path: Path) -> None:
    """A decision that is a bool in the file and 1 in events, a label that is a number: one class."""
    own = config(tmp_path, classes=["0", "1"])
    label = np.arange(ROWS) % 3 == 0
    as_bools = measured_rows(own, "fraud", table(prediction=label, fraud=label.astype(np.int64)))[0]
    as_texts = measured_rows(own, "fraud", table(prediction=np.where(label, "1", "0"), fraud=label))[0]
    assert as_bools is not None
    assert as_texts is not None
    assert as_bools.values.tobytes() == as_texts.values.tobytes()
    recall = as_bools.estimate("all", "recall")
    assert recall is not None
    assert (recall.value, recall.events) == (1.0, int(label.sum()))
    parquet.write_table(table(prediction=[None, True, False] * (ROWS // 3)), tmp_path / "rows.parquet")
    values = values_of_file(np.array(read_table(tmp_path / "rows.parquet")["prediction"].to_pylist()[:3], object))
    assert np.isnan(values[0])
    assert values[1:].tolist() == [1.0, 0.0]


def reference_test(kept: str = KEPT) -> ReferenceTest:
    sides = {"all": sums_of(8, 900), "country=DE": sums_of(9, 500), "country=FR": sums_of(10, 400, -0.1)}
    found = reference_performance(kept, ("recall", "auroc", "selection_rate"), sides)
    return ReferenceTest("sha256:r", found)


def test_live_stands_beside_test() -> None:
    live = measured("country=FR", GROUP)
    (event,) = world.performance(performance_outputs(live, ("recall",), reference_test()), "performance")[1:]
    data, then = event["data"], reference_test().performance.estimate("country=FR", "recall")
    assert then is not None
    assert (data["test"]["value"], data["test"]["low"], data["test"]["used"]) == (then.value, then.low, then.events)
    assert data["test"]["reference_id"] == "sha256:r"
    expected = ratio(measure("recall", GROUP), then)
    assert (data["live_over_test"]["value"], data["live_over_test"]["high"]) == (expected.value, expected.high)
    for other in (reference_test("another layout"), None):
        (event,) = world.performance(performance_outputs(live, ("recall",), other), "performance")[1:]
        assert "test" not in event["data"]
    clicked = replace(live, kind="click", sums=PerformanceSums(world.PROXIES))
    assert not [e for e in world.performance(performance_outputs(clicked, (), reference_test())) if "test" in e["data"]]


def test_a_disparity_stands_beside_that_of_the_test() -> None:
    found = [measured("country=DE", REFERENCE), measured("country=FR", GROUP)]
    said = {data["metric"]: data for data in contrasts(found, "disparity", test=reference_test())}
    data = said["recall"]["test"]
    expected = disparity("recall", sums_of(10, 400, -0.1), sums_of(9, 500))
    assert data["difference"]["value"] == pytest.approx(expected.difference.value)
    assert data["ratio"]["high"] == pytest.approx(expected.ratio.high)
    assert data["reference_id"] == "sha256:r"
    assert "test" not in said["precision"], "the reference does not have it"


def test_the_monitor_shows_the_test_of_the_reference_in_force() -> None:
    plain = kit.reference(kit.reference_target("amount"), model=world.FRAUD)
    profile = with_id(replace(plain, performance=reference_test().performance))
    labels = {world.FRAUD: (StreamPerformance("labels", FeedbackKind.LABEL, (30,), ("recall",), world.BINARY),)}
    for known, value in ((profile, reference_test().performance.estimate("all", "recall")), (plain, None)):
        stage = Monitor(
            0, sources=1, settings=world.settings(labels), profiles={known.id: known}, app_version="1"
        )  # fmt: skip
        log = kit.Log()
        for edge in (0, 10, 20):
            log.add(kit.pane(0, edge, 70, known, model=world.FRAUD), world.marker(0, edge + 10))
        for edge in (0, 10):
            log.add(world.PerformancePane(
                0, world.FRAUD, "1", "all", "labels", "label", 30, edge, 70, 70, True, world.CLASSES, sums_of(edge, 70)
            ))  # fmt: skip
        stage.apply("panes", log.add(world.marker(0, 20, "labels@30")).records)
        (data,) = [e["data"] for e in world.performance(stage.outbox) if e["data"]["metric"] == "recall"]
        assert data.get("test", {}).get("value") == (value.value if value is not None else None)
        assert data.get("test", {}).get("reference_id") == (profile.id if value is not None else None)


# ---- configuration ------------------------------------------------------------------------------------------------------


def test_what_is_said_of_performance_is_no_switch_of_collectors(tmp_path: Path) -> None:
    def named(**more: Any) -> str:
        own, amount = config(tmp_path, **more), DeclaredTarget("amount", Role.FEATURE, Kind.NUMERIC)
        return collector_hash(own, collector_plan(own, {"fraud": None}, {"fraud": (amount,)})[0])

    assert named() == named(disparity={}) == named(champion=7) == named(least_events=100)
    assert named() != named(metrics=["recall"])


def test_sizes_of_what_is_kept() -> None:
    found = reference_test().performance
    assert isinstance(found, ReferencePerformance)
    assert found.values.nbytes + found.events.nbytes == 40 * len(found.segments) * len(found.metrics)
