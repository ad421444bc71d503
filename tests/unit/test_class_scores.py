"""Scores of all classes: what may be configured, how they wait with their prediction, and what a state of before them has."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from told_kit import MODEL, records, settings, stamp

from detectors.performance import Part, PerformanceSums, measure, merged
from stream.collector import Collector
from stream.config import Config, config_from
from stream.config_checks import check
from stream.config_errors import ConfigError
from stream.decode import decode, records_from_lines
from stream.decode_feedback import decode_feedback
from stream.feedback_planning import feedback_deciding, feedback_layouts
from stream.join_index import CHUNK_ROWS, JoinIndex, Predictions
from stream.panes import EDGE_END, decode_record
from stream.performance_cells import cells_of
from stream.performance_panes import PerformancePane
from stream.planning import collector_hash, collector_plan, monitor_settings
from stream.preflight import build_from_file
from stream.replay import replay
from stream.sizing_feedback import saved_bytes_per_s, waits
from stream.stage import Decision
from stream.topics import TopicRole

CLASSES = ("cat", "dog", "owl")
SCORED = {"cat": "p_cat", "dog": "p_dog", "owl": "p_owl"}
OWN = {"metrics": ["class_log_loss", "macro_auroc", "accuracy"], "classes": list(CLASSES), "class_scores": SCORED}
PLAIN = {"metrics": ["accuracy"], "classes": list(CLASSES)}
PATHS = {"scores": {"p_cat": "shares.cat", "p_dog": "shares.dog", "p_owl": "shares.owl"}}
PREDICTIONS = {"predictions": {"name": "predictions", "mapping": PATHS}}


def config(own: dict[str, Any] = OWN, **more: Any) -> Config:
    return settings(own, topics=PREDICTIONS, **more)


def rows(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(scores [n, 3], labels of the class that each is drawn by)."""
    g = np.random.default_rng(seed)
    score = g.dirichlet(np.ones(3), n).round(6)
    score[:, 2] = 1.0 - score[:, 0] - score[:, 1]
    return score, (g.random((n, 1)) > score.cumsum(axis=1)[:, :2]).sum(axis=1)


def event(number: int, score: np.ndarray, model: str = MODEL, names: tuple[str, ...] = CLASSES) -> bytes:
    shares = {name: float(x) for name, x in zip(names, score, strict=True)}
    body = {"prediction_id": str(number), "model": model, "timestamp": stamp(number), "features": {}, "shares": shares}
    return json.dumps(body | {"prediction": names[int(score.argmax())]}).encode()


def collector(own: Config) -> Collector:
    plan, _ = collector_plan(own, dict.fromkeys(own.models))
    topics = {role.value: topic.name for role, topic in own.topics.feedback().items()}
    return Collector(0, plan, monitors=1, topic="predictions", config_hash="c", app_version="1", feedback_topics=topics)


def feed(state: Collector, own: Config, lines: list[bytes]) -> None:
    columns = decode(records_from_lines(lines, state.next_offset), collector_plan(own, dict.fromkeys(own.models))[1])
    state.apply("predictions", replace(columns, record_time_ms=columns.event_time_ms))


def label(state: Collector, own: Config, bodies: list[tuple[int, str]]) -> None:
    assert state.joining is not None
    lines = [json.dumps({"prediction_id": str(n), "timestamp": stamp(n + 1), "label": y}).encode() for n, y in bodies]
    columns = decode_feedback(
        records_from_lines(lines, state.joining.position["labels"]), feedback_layouts(own)["labels"]
    )
    state.apply("labels", replace(columns, feedback=replace(columns.feedback, record_time_ms=columns.event_time_ms)))


def ended(state: Collector) -> dict[str, PerformanceSums]:
    """The sums of each model, over all panes."""
    state.decide(Decision(1, "tick", {}, {"until_ms": EDGE_END}))
    state.decide(Decision(2, "tick", {}, {"until_ms": EDGE_END, "stream": "labels"}))
    bodies = [decode_record(output.value or b"") for output in state.outbox if output.topic == TopicRole.PANES]
    panes = [body for body in bodies if isinstance(body, PerformancePane)]
    own = {pane.model: [each.sums for each in panes if each.model == pane.model] for pane in panes}
    return {model: merged(parts[0].layout, parts) for model, parts in own.items()}


def direct(score: np.ndarray, labels: np.ndarray, like: PerformanceSums) -> PerformanceSums:
    sums = PerformanceSums(like.layout)
    sums.add_classes(score.argmax(axis=1), labels)
    sums.add_class_scores(np.ascontiguousarray(score), labels)
    return sums


def same(a: PerformanceSums, b: PerformanceSums) -> bool:
    one, other = a.to_sections(), b.to_sections()
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


# ---- configuration ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "why"), [
    ({"class_scores": {}}, "class_log_loss, and no class_scores"),
    ({"metrics": ["accuracy"]}, "class_scores, and no metric of them"),
    ({"classes": ["cat", "dog"], "class_scores": {"cat": "p_cat", "dog": "p_dog"}}, "of 3 to 32 classes, there are 2"),
    ({"class_scores": SCORED | {"emu": "p_emu"}}, "emu is none of the classes"),
    ({"class_scores": {"cat": "p_cat", "dog": "p_dog"}}, "owl is not there"),
    ({"class_scores": SCORED | {"owl": "p_dog"}}, "two classes have one score"),
    ({"class_scores": SCORED | {"owl": "p_ow"}}, "no score is called p_ow"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], why: str) -> None:
    try:
        found = [read for _, _, read, _ in check(config(OWN | changes))]
    except ConfigError as error:
        found = [str(error)]
    assert len(found) == 1
    assert why in found[0]


def test_they_are_the_collectors_concern_only_where_they_are_asked_for() -> None:
    own, plain = config(), config(PLAIN)
    assert list(check(own)) == []
    said = feedback_deciding(plain)["models"][MODEL]
    assert "class_scores" not in said
    assert feedback_deciding(own)["models"][MODEL]["class_scores"] == SCORED
    swapped = config(OWN | {"class_scores": {"cat": "p_dog", "dog": "p_cat", "owl": "p_owl"}})
    plans = [collector_plan(each, {MODEL: None})[0] for each in (own, swapped)]
    assert collector_hash(own, plans[0]) != collector_hash(swapped, plans[1])
    plan = monitor_settings(own).models[MODEL].performance
    assert [cell.metric for cell in cells_of(plan)] == ["accuracy", "macro_auroc", "class_log_loss"]


def test_they_cost_eight_bytes_a_class_of_a_waiting_prediction_and_nothing_where_nobody_asks() -> None:
    own, plain = (collector_plan(config(each), {MODEL: None})[0] for each in (OWN, PLAIN))
    first, second = next(waits(own, 1, 100)), next(waits(plain, 1, 100))
    assert first.bytes_each - second.bytes_each == pytest.approx(24)
    assert saved_bytes_per_s(own, 100) - saved_bytes_per_s(plain, 100) == pytest.approx(2400)
    indices = [JoinIndex(1), JoinIndex(1, class_scores=(3, "a"))]
    nothing = np.zeros(1, np.int64)
    for index, scores in zip(indices, (None, np.zeros((1, 3))), strict=True):
        index.add(
            Predictions(
                nothing, nothing.astype("u8"), nothing.astype("u4"), np.zeros((1, 1)), np.zeros(1), nothing.astype("u4"),
                class_scores=scores,
            )
        )  # fmt: skip
    assert indices[1].nbytes - indices[0].nbytes == 24 * CHUNK_ROWS
    assert indices[0].class_scores(nothing) is None


# ---- the join -----------------------------------------------------------------------------------------------------------


def test_two_models_of_one_topic_have_their_own_classes() -> None:
    four = ("w", "x", "y", "z")
    paths = {"scores": PATHS["scores"] | {f"p_{name}": f"shares.{name}" for name in four}}
    both = settings(
        OWN, topics={"predictions": {"name": "predictions", "mapping": paths}}
    ).model_dump(mode="json", exclude_unset=True)  # fmt: skip
    other = OWN | {
        "classes": list(four),
        "class_scores": {name: f"p_{name}" for name in four},
        "horizons": ["2m"],
        "provisional": "none",
    }
    both["models"]["n"] = both["models"][MODEL] | {"performance": other}
    own = config_from(both)
    score, labels = rows(1, 60)
    g = np.random.default_rng(2)
    score_4, labels_4 = g.dirichlet(np.ones(4), 60), g.integers(0, 4, 60)
    state = collector(own)
    lines = [event(i, score[i]) for i in range(60)] + [event(60 + i, score_4[i], "n", four) for i in range(60)]
    order = np.random.default_rng(3).permutation(120)
    feed(state, own, [lines[i] for i in sorted(order.tolist())])
    names = [CLASSES[y] for y in labels] + [four[y] for y in labels_4]
    label(state, own, list(enumerate(names)))
    found = ended(state)
    assert same(found[MODEL], direct(score, labels, found[MODEL]))
    assert same(found["n"], direct(score_4, labels_4, found["n"]))


def test_a_restart_anywhere_changes_nothing() -> None:
    own = config()
    score, labels = rows(4, 90)
    state = collector(own)
    for i in range(0, 90, 15):
        feed(state, own, [event(j, score[j]) for j in range(i, i + 15)])
        label(state, own, [(j, CLASSES[labels[j]]) for j in range(i, i + 15)])
        later = collector(own)
        later.load(state.full_blobs())
        assert later.full_blobs() == state.full_blobs()
        state = later
    found = ended(state)[MODEL]
    assert same(found, direct(score, labels, found))


CHANGES: dict[str, dict[str, Any]] = {
    "nobody asked for them": PLAIN,
    "classes in another order": OWN | {"classes": ["owl", "dog", "cat"]},
    "one class fewer": OWN | {"classes": ["cat", "dog", "emu", "owl"], "class_scores": SCORED | {"emu": "p_emu"}},
}


@pytest.mark.parametrize("name", CHANGES)
def test_predictions_that_waited_under_other_classes_have_no_scores(name: str) -> None:
    """They are counted as rows without, never under the wrong class; a second restart reads the same."""
    paths = {"scores": PATHS["scores"] | {"p_emu": "shares.emu"}}
    topics = {"predictions": {"name": "predictions", "mapping": paths}}
    before, own = settings(CHANGES[name], topics=topics), settings(OWN, topics=topics)
    score, labels = rows(5, 60)
    old = collector(before)
    feed(old, before, [event(i, score[i]) for i in range(30)])
    state = collector(own)
    state.load(old.full_blobs())
    feed(state, own, [event(i, score[i]) for i in range(30, 60)])
    again = collector(own)
    again.load(state.full_blobs())
    assert again.full_blobs() == state.full_blobs()
    label(again, own, [(i, CLASSES[labels[i]]) for i in range(60)])
    found = ended(again)[MODEL]
    assert found.count(Part.CLASS_SCORES, "left_out").tolist() == [30, 0]
    assert found.count(Part.CLASS_SCORES, "rows").tolist() == [30]
    assert measure("class_log_loss", found) == measure("class_log_loss", direct(score[30:], labels[30:], found))
    assert measure("accuracy", found).events == 60


def test_a_state_with_them_is_read_where_nobody_asks_any_more() -> None:
    own, plain = config(), config(PLAIN)
    score, labels = rows(6, 30)
    old = collector(own)
    feed(old, own, [event(i, score[i]) for i in range(30)])
    state = collector(plain)
    state.load(old.full_blobs())
    label(state, plain, [(i, CLASSES[labels[i]]) for i in range(30)])
    found = ended(state)[MODEL]
    assert Part.CLASS_SCORES not in found.layout.parts
    assert measure("accuracy", found).value == (score.argmax(axis=1) == labels).mean()


# ---- what is said -------------------------------------------------------------------------------------------------------


def test_labels_that_bring_their_prediction_bring_no_scores_of_classes() -> None:
    mapping = {"timestamp": "timestamp", "model": "model", "prediction": "decision"}
    own = settings(OWN, topics=PREDICTIONS | {"labels": {"name": "labels", "mapping": mapping}})
    score, labels = rows(7, 900)
    events = [json.loads(event(i, each)) for i, each in enumerate(score)]
    known = [
        {
            "prediction_id": str(i),
            "timestamp": stamp(i + 1),
            "label": CLASSES[y],
            "model": MODEL,
            "decision": CLASSES[y],
        }
        for i, y in enumerate(labels)
    ]
    result = replay(own, events, feedback={"labels": known})
    said = records(result, "class_log_loss")
    assert {data["horizon_ms"] for data in said if data["value"] is not None} == {120_000}
    brought = [data for data in said if data["horizon_ms"] == 0]
    assert brought
    assert {data["undefined"] for data in brought} == {"no labelled rows with a score of each class"}
    right = [data for data in records(result, "accuracy") if data["horizon_ms"] == 0]
    assert {data["value"] for data in right} == {1.0}


def test_a_reference_file_with_the_columns_has_their_test_metrics(tmp_path: Path) -> None:
    score, labels = rows(8, 6_000)
    columns = {f"p_{name}": score[:, i] for i, name in enumerate(CLASSES)}
    decided = [CLASSES[i] for i in score.argmax(axis=1)]
    table = {"amount": np.arange(6_000.0), "prediction": decided, "y": [CLASSES[y] for y in labels], **columns}
    found = {}
    for left_out in ("", "p_owl"):
        path = tmp_path / f"rows{left_out}.parquet"
        parquet.write_table(pa.table({name: each for name, each in table.items() if name != left_out}), path)
        model = {"reference": {"file": str(path), "label": "y"}, "targets": {}, "window": "auto"}
        found[left_out] = build_from_file(config(model=model), MODEL).performance
    own = found[""]
    assert own is not None
    for name in ("class_log_loss", "class_brier", "macro_auroc"):
        plan = monitor_settings(config()).models[MODEL].performance
        assert plan is not None
        expected = measure(name, direct(score, labels, PerformanceSums(plan.streams[0].layout)))
        said = own.estimate("all", name)
        assert said is not None
        assert said.value == pytest.approx(expected.value, rel=1e-9)
    assert found["p_owl"] is not None
    assert found["p_owl"].estimate("all", "class_log_loss") is None
    assert found["p_owl"].estimate("all", "accuracy") is not None
