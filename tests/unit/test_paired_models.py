"""Champion and challenger on the same requests, from events to records: each pair once, as a recount in plain Python says."""

from __future__ import annotations

import json
import random
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import monitor_kit as kit
import performance_kit as world

from detectors.performance import Layout, PerformanceSums, measure
from detectors.performance.paired import COMPARED, PairedSums
from stream import container, join_pairs, joining
from stream.collector import Collector
from stream.column_log import ColumnLog
from stream.columns import Tag
from stream.config import Config, config_from
from stream.config_checks import check
from stream.decode import decode, records_from_lines
from stream.decode_feedback import decode_feedback
from stream.feedback_planning import feedback_deciding, feedback_layouts
from stream.owner_record import counting_hash
from stream.panes import EDGE_END, decode_record
from stream.performance_panes import PerformancePane, encode_performance_pane, sums_sections
from stream.planning import collector_plan
from stream.sizing_feedback import waits
from stream.stage import Decision
from stream.topics import TopicRole

PERFORMANCE = {"horizons": ["2m"], "metrics": ["accuracy", "auroc"]}
MAPPED = {"name": "predictions", "mapping": {"request_id": "trace.request"}}
LABELS = {"name": "labels", "mapping": {"timestamp": "timestamp"}, "range": [0, 1]}
MINUTE_MS = 60_000


def config(**changes: Any) -> Config:
    model = {
        "reference": {"first": 5000},
        "targets": {"amount": {"kind": "numeric"}},
        "performance": PERFORMANCE,
        "segments": {"country": ["DE", "FR"]},
    }
    champion = model | {"performance": PERFORMANCE | {"challengers": ["new", "ensemble"]} | changes.pop("champion", {})}
    challenger = model | {"performance": PERFORMANCE | changes.pop("challenger", {})}
    ensemble = model | {"performance": PERFORMANCE | changes.pop("ensemble", {})}
    models = {"old": champion, "new": challenger, "ensemble": ensemble, "plain": model | {"performance": None}}
    topics = {"predictions": changes.pop("predictions", MAPPED), "labels": LABELS}
    return config_from({"kafka": {"bootstrap_servers": "unused:9092"}, "topics": topics, "models": models})


def stamp(second: int) -> str:
    return f"2026-11-22T10:{second // 60:02d}:{second % 60:02d}Z"


def world_of(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Predictions in the order of their times, and labels of some of them, of one source partition."""
    r = random.Random(seed)
    predictions, labels, number = [], [], 0
    for request in range(300):
        second = request * 2
        name = {0: None, 1: request}.get(request % 20, f"req-{request}")  # one of none, one that is a number
        country = r.choice(["DE", "FR", "XX"])
        for model in r.sample(["old", "new", "ensemble", "plain"], r.randrange(1, 5)):
            for _ in range(2 if r.random() < 0.05 else 1):  # the same request again
                number += 1
                at = second + (1 if r.random() < 0.3 else 0)
                event = {
                    "prediction_id": str(number), "model": model, "version": r.choice("12"), "timestamp": stamp(at),
                    "features": {"amount": 1.0}, "segments": {"country": country}, "score": round(r.random(), 3),
                    "trace": {} if name is None else {"request": name},
                }  # fmt: skip
                event["prediction"] = int(event["score"] > 0.5)
                predictions.append(event)
                if r.random() < 0.7:
                    label = {"prediction_id": str(number), "timestamp": stamp(at + r.randrange(1, 240))}
                    labels.append(label | {"label": int(r.random() < 0.4)})
    predictions.sort(key=lambda event: event["timestamp"])
    labels.sort(key=lambda event: event["timestamp"])
    return predictions, labels


def seconds(event: dict[str, Any]) -> int:
    return int(event["timestamp"][14:16]) * 60 + int(event["timestamp"][17:19])


def recounted(seed: int) -> dict[Any, list[tuple[Any, ...]]]:
    """(challenger, its version, version, segment, minute) -> (scores, label or None) of each pair, in plain Python."""
    predictions, labels = world_of(seed)
    label_of: dict[str, int] = {}
    at = {event["prediction_id"]: seconds(event) for event in predictions}
    for event in labels:
        if seconds(event) - at[event["prediction_id"]] < 120:
            label_of[event["prediction_id"]] = event["label"]
    first: dict[Any, dict[str, Any]] = {}
    for event in predictions:
        request = event["trace"].get("request")
        if request is not None:
            first.setdefault((seconds(event) // 60, event["model"], request), event)
    found = defaultdict(list)
    for (minute, model, request), own in first.items():
        for other in ("new", "ensemble"):
            theirs = first.get((minute, other, request))
            if model != "old" or theirs is None:
                continue
            label = label_of.get(own["prediction_id"], label_of.get(theirs["prediction_id"]))
            country = own["segments"]["country"]
            segments = ("all", f"country={country if country != 'XX' else '__other__'}")
            for segment in segments:
                key = (other, theirs["version"], own["version"], segment, minute)
                found[key].append((theirs["score"], own["score"], label))
    return dict(found)


def collected(own: Config, seed: int, restarts: int = 0) -> list[PerformancePane]:
    """Pairs that a collector sends for the world, cut into batches, restarted from its snapshot in between."""
    r, (predictions, labels) = random.Random(seed), world_of(seed)
    plan, layout = collector_plan(own, dict.fromkeys(own.models))

    def fresh() -> Collector:
        return Collector(
            0, plan, monitors=1, topic="predictions", config_hash="c", app_version="1", feedback_topics={"labels": "labels"}
        )  # fmt: skip

    state, outputs, first, back = fresh(), [], 0, 0
    cuts = sorted(r.sample(range(len(predictions)), 8))
    for place, stop in enumerate([*cuts, len(predictions)]):
        lines = [json.dumps(event).encode() for event in predictions[first:stop]]
        columns = decode(records_from_lines(lines, state.next_offset), layout)
        assert not columns.rejects
        state.apply("predictions", replace(columns, record_time_ms=columns.event_time_ms))
        until = seconds(predictions[stop - 1]) if stop < len(predictions) else 10**9
        ready = [event for event in labels[back:] if seconds(event) <= until]
        lines = [json.dumps(event).encode() for event in ready]
        assert state.joining is not None
        told = decode_feedback(
            records_from_lines(lines, state.joining.position["labels"]), feedback_layouts(own)["labels"]
        )
        times = replace(told.feedback, record_time_ms=told.feedback.event_time_ms)
        state.apply("labels", replace(told, feedback=times))
        first, back = stop, back + len(ready)
        if place < restarts:
            outputs += state.outbox
            again = fresh()
            again.load(state.full_blobs())
            state = again
    state.decide(Decision(1, "tick", {}, {"until_ms": EDGE_END}))
    state.decide(Decision(2, "tick", {}, {"until_ms": EDGE_END, "stream": "labels"}))
    bodies = [decode_record(each.value or b"") for each in [*outputs, *state.outbox] if each.topic == TopicRole.PANES]
    return [body for body in bodies if isinstance(body, PerformancePane)]


def summed(pairs: list[tuple[Any, ...]]) -> PairedSums:
    layout = Layout(classes=2, positive=1, scores=True)
    sums = PairedSums(layout, layout)
    label = np.array([-1 if y is None else y for *_, y in pairs], np.int64)
    a, b = (np.array([pair[i] for pair in pairs], np.float64) for i in (0, 1))
    sums.add_classes((a > 0.5).astype(np.int64), (b > 0.5).astype(np.int64), label)
    sums.add_scores(a, b, label)
    return sums


@pytest.mark.parametrize("restarts", [0, 5])
@pytest.mark.parametrize("seed", range(3))
def test_every_pair_of_a_pane_counts_once_whatever_was_restarted(seed: int, restarts: int) -> None:
    panes = collected(config(), seed, restarts)
    start_ms = min(pane.edge_ms for pane in panes)
    said = {
        (*pane.against, pane.version, pane.segment, (pane.edge_ms - start_ms) // MINUTE_MS): pane
        for pane in panes
        if pane.against
    }
    expected = recounted(seed)
    assert len(said) == sum(bool(pane.against) for pane in panes)
    assert said.keys() == expected.keys()
    for key, pairs in expected.items():
        pane = said[key]
        assert (pane.model, pane.stream, pane.horizon_ms, pane.rows) == ("old", "labels", 120_000, len(pairs))
        assert pane.observed == sum(label is not None for *_, label in pairs)
        own = summed(pairs).to_sections()
        assert {name: each.tobytes() for name, each in pane.sums.to_sections().items()} == {
            name: each.tobytes() for name, each in own.items()
        }
    assert sum(len(pairs) for key, pairs in expected.items() if key[3] == "all") > 100
    assert any(label is None for pairs in expected.values() for *_, label in pairs)


def test_nobody_is_paired_unasked() -> None:
    alone = config(champion={"challengers": []})
    panes = collected(alone, 1)
    assert panes
    assert not [pane for pane in panes if pane.against]
    assert [encode_performance_pane(pane) for pane in panes] == [
        encode_performance_pane(pane) for pane in collected(config(), 1) if not pane.against
    ], "what is said of each model alone stays the same bytes"


def test_a_state_without_requests_goes_on_and_one_with_them_forgets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = ColumnLog._empty  # memory that is not written yet holds anything

    def dirty(log: ColumnLog) -> dict[str, Any]:
        return {name: np.full_like(array, 1) for name, array in fresh(log).items()}

    monkeypatch.setattr(ColumnLog, "_empty", dirty)
    before, after = config(champion={"challengers": []}), config()
    for first, second in ((before, after), (after, before)):
        plans = [collector_plan(own, dict.fromkeys(own.models)) for own in (first, second)]
        states = [
            Collector(
                0, plan, monitors=1, topic="predictions", config_hash="c", app_version="1", feedback_topics={"labels": "l"}
            )
            for plan, _ in plans
        ]  # fmt: skip
        lines = [json.dumps(event).encode() for event in world_of(0)[0][:50]]
        columns = decode(records_from_lines(lines, 0), plans[0][1])
        states[0].apply("predictions", replace(columns, record_time_ms=columns.event_time_ms))
        states[1].load(states[0].full_blobs())
        assert states[1].joining is not None
        index = states[1].joining.join.index
        assert len(index) > 30
        assert ("request" in index.log.columns) == (second is after)
        if second is after:
            assert not index.log.chunks[0]["request"][: len(index)].any()
        again = Collector(
            0, plans[1][0], monitors=1, topic="predictions", config_hash="c", app_version="1", feedback_topics={"labels": "l"}
        )  # fmt: skip
        again.load(states[1].full_blobs())
        assert again.full_blobs() == states[1].full_blobs()


# ---- panes and records --------------------------------------------------------------------------------------------------

BIG = [
    (round(0.1 + 0.8 * ((i * 37) % 101) / 101, 3), round(((i * 53) % 97) / 97, 3), (i * 7) % 3 % 2) for i in range(400)
]


def pane(edge: int, pairs: list[tuple[Any, ...]], version: str = "1", **more: Any) -> PerformancePane:
    fields = {"segment": "all", "against": ("new", "5")} | more
    return PerformancePane(
        0, world.FRAUD, version, fields["segment"], "labels", "label", 30, edge, len(pairs), len(pairs), True,
        world.CLASSES, summed(pairs), fields["against"],
    )  # fmt: skip


def test_a_pane_of_pairs_comes_back_and_a_damaged_one_is_refused() -> None:
    record = encode_performance_pane(pane(0, BIG))
    assert len(record) < 30_000
    found = decode_record(record)
    assert isinstance(found, PerformancePane)
    assert (found.against, found.rows) == (("new", "5"), 400)
    assert encode_performance_pane(found) == record
    assert found.kept != pane(0, BIG, against=("new", "6")).kept != pane(0, BIG, against=("ne", "w6")).kept
    whole = container.decode(record)
    for name in ("paired.sums", "a.head", "paired.cells"):
        less = {each: values for each, values in whole.sections.items() if each != name}
        with pytest.raises(container.ContainerError, match=name):
            decode_record(container.encode(whole.kind, whole.version, whole.header, less))
    plain = {name: values for name, values in whole.header.items() if name != "against"}
    with pytest.raises(container.ContainerError):
        decode_record(container.encode(whole.kind, whole.version, plain, whole.sections))
    sums = found.sums
    assert sums_sections(sums).keys() == whole.sections.keys()


def single(edge: int, rows: list[tuple[Any, ...]], version: str = "1") -> PerformancePane:
    sums = PerformanceSums(world.BINARY)
    label = np.array([y for *_, y in rows], np.int64)
    score = np.array([own for _, own, _ in rows])
    sums.add_classes((score > 0.5).astype(np.int64), label)
    sums.add_scores(score, label)
    return PerformancePane(
        0, world.FRAUD, version, "all", "labels", "label", 30, edge, len(rows), len(rows), True, world.CLASSES, sums
    )  # fmt: skip


def test_records_of_a_window_are_what_all_its_pairs_say_whatever_was_restarted() -> None:
    streams = {world.FRAUD: (replace(world.STREAMS[world.FRAUD][2], horizons_ms=(30,)),)}
    log = kit.Log()
    for edge in range(0, 40, 10):
        log.add(kit.pane(0, edge, 100, None, model=world.FRAUD), world.marker(0, edge + 10))
    for edge in range(0, 40, 10):
        part = BIG[edge * 10 : edge * 10 + 100]
        few = () if edge != 20 else (pane(edge, part[:3], against=("new", "6")),)
        log.add(single(edge, part), pane(edge, part[:60]), *few)
        log.add(world.marker(0, edge + 10, "labels@30"))
    found: dict[Any, Any] = {}
    singles, stored, stage = [], {}, world.stage_of(streams, sources=1)
    for record in log.records:
        stage.apply("panes", [record])
        kit.live(stored, stage.changed_blobs())
        singles += world.performance(stage.outbox)
        for event in world.performance(stage.outbox, "comparison"):
            data = event["data"]
            key = data["challenger_version"], data["window"]["start_ms"], data["metric"]
            assert key not in found
            found[key] = data
        stage = world.stage_of(streams, sources=1)
        stage.load(stored)
    for start in (0, 20):
        pairs = [*BIG[start * 10 : start * 10 + 60], *BIG[start * 10 + 100 : start * 10 + 160]]
        for metric in ("accuracy", "recall", "auroc", "brier", "calibration_gap"):
            data, expected = found["5", start, metric], summed(pairs).compare(metric)
            assert (data["difference"]["value"], data["difference"]["low"]) == (expected.value, expected.low)
            assert (data["pairs"], data["paired_share"], data["samples"]) == (120, 0.6, "paired")
            assert (data["challenger_model"], data["champion_version"], data["incomplete"]) == ("new", "1", False)
            assert data["challenger"]["value"] - data["champion"]["value"] == pytest.approx(expected.value)
    assert {metric for _, _, metric in found} <= set(COMPARED)
    assert found["6", 20, "accuracy"]["difference"]["undefined"] == "challenger: 3 events, at least 5 are needed"
    assert not [event for event in singles if event["data"]["incomplete"]], "pairs are no predictions of the window"
    assert {event["data"]["counts"]["predictions"] for event in singles} == {200}


def test_a_decision_that_is_a_text_is_no_number_of_a_pair() -> None:
    decisions = np.array([0.25, 0.75, 0.25, 2.0**52 + 17])  # the last one stands for a text
    matured: Any = SimpleNamespace(predicted=decisions, score=np.full((4, 1), np.nan))
    stream: Any = SimpleNamespace(layout=Layout(errors=True))
    rows, labels = np.array([[1, 0], [3, 2]]), np.array([0.5, 0.5])
    sums = join_pairs._sums(None, stream, matured, rows, labels)  # type: ignore[arg-type]
    found = [measure("mae", each) for each in (sums.a, sums.b)]
    assert [(each.value, each.events) for each in found] == [(0.25, 1), (0.25, 1)]


def test_requests_that_are_numbers_too_large_to_tell_apart_are_none() -> None:
    numbers = np.array([[1.0], [2.0**53 - 1], [2.0**53], [2.0**60], [-(2.0**53)]])
    tag = np.full((5, 1), int(Tag.NUMBER), np.uint8)
    chunk: Any = SimpleNamespace(cell=numbers.view(np.uint64), number=numbers, tag=tag)
    found = joining._requests(chunk, np.arange(5), 0)
    assert len(set(found[:2].tolist())) == 2
    assert found.astype(bool).tolist() == [True, True, False, False, False]


# ---- configuration ------------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no request id": ({"predictions": "predictions"}, "predictions of one request are not told"),
    "itself": ({"champion": {"challengers": ["old"]}}, "old is no other model"),
    "twice": ({"champion": {"challengers": ["new", "new"]}}, "new is no other model, once"),
    "unknown": ({"champion": {"challengers": ["newer"]}}, "newer is no other model"),
    "without labels": ({"champion": {"challengers": ["plain"]}}, "plain has no labels"),
    "other classes": ({"challenger": {"classes": ["no", "yes"]}}, "labels of new mean something else"),
    "other positive": ({"challenger": {"positive": "0"}}, "labels of new mean something else"),
    "numbers": ({"challenger": {"metrics": ["mae"]}}, "labels of new mean something else"),
    "three classes": (
        {
            name: {"metrics": ["accuracy"], "classes": ["0", "1", "2"]}
            for name in ("champion", "challenger", "ensemble")
        },
        "pairs are of two classes or of numbers, there are 3 classes",
    ),
    "not in pairs": ({"champion": {"metrics": ["ks_of_classes"]}}, "no metric that can be compared in pairs"),
}


def test_challengers_without_metrics_of_labels_are_refused() -> None:
    own = config(champion={"metrics": [], "proxies": ["ctr"], "challengers": ["new"]})
    assert [read for _, _, read, _ in check(own) if "no metric that can be compared in pairs" in read]


@pytest.mark.parametrize("name", BAD)
def test_pairs_that_cannot_be_are_refused(name: str) -> None:
    changes, said = BAD[name]
    found = [read for _, _, read, _ in check(config(**changes))]
    assert found
    assert all(said in read for read in found)


def test_a_configuration_with_pairs_is_in_order_and_one_without_keeps_its_hashes() -> None:
    assert not list(check(config()))
    alone = config(champion={"challengers": []}, predictions="predictions")
    assert "challengers" not in json.dumps(feedback_deciding(alone))
    assert counting_hash(alone) != counting_hash(config())
    plans = [collector_plan(own, dict.fromkeys(own.models))[0] for own in (alone, config())]
    without, paired = (next(waits(plan, 4, 100.0)).bytes_each for plan in plans)
    assert paired == without + 8
