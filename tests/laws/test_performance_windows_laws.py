"""Laws of realised performance in the monitor: what is written is a function of the rows, once, whatever died and however it came."""

from __future__ import annotations

import math
import random
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))

import monitor_kit as kit
import performance_kit as world

from stream.panes import Marker

SEEDS = range(3)


@cache
def uninterrupted(seed, order=0):
    stage = world.stage_of()
    stage.apply("panes", world.log_of(seed, order))
    return tuple(stage.outbox), kit.live({}, stage.changed_blobs())


def windows_of(seed, model):
    """Of the model's list, as the windows topic shows it."""
    found = {
        (w["window"]["start_ms"], w["window"]["end_ms"], w["window"]["events"])
        for w in kit.windows(uninterrupted(seed)[0])
        if w["model"] == model and w["segment"] == "all"
    }
    return sorted(found)


def recounted(part, stream, horizon):
    """Metrics of some rows in plain Python: name -> value; and how many were observed."""
    n, seen = len(part), [row for row in part if world.within(getattr(row, world.DELAYS[stream]), horizon)]
    if stream == "clicks":
        scores = math.fsum(row.score for row in part)
        expected = {"ctr": len(seen) / n, "expected_ctr": scores / n, "clicks_over_expected": len(seen) / scores}
        return expected, len(seen)
    if stream == "conversions":
        return {"cvr": len(seen) / n, "value_per_prediction": math.fsum(row.amount for row in seen) / n}, len(seen)
    if part[0].model == world.PRICE:
        errors = [row.predicted - row.label for row in seen]
        if not errors:
            return {"mae": None, "mean_signed_error": None}, 0
        return {
            "mae": math.fsum(map(abs, errors)) / len(errors),
            "mean_signed_error": math.fsum(errors) / len(errors),
        }, len(seen)
    cells = {(y, p): sum(row.label == y and row.predicted == p for row in seen) for y in (0, 1) for p in (0, 1)}
    positive, selected = cells[1, 0] + cells[1, 1], cells[0, 1] + cells[1, 1]
    pairs = [(a.score, b.score) for a in seen if a.label for b in seen if not b.label]
    return {
        "confusion_matrix": [[cells[0, 0], cells[0, 1]], [cells[1, 0], cells[1, 1]]],
        "accuracy": (cells[0, 0] + cells[1, 1]) / len(seen) if seen else None,
        "recall": cells[1, 1] / positive if positive else None,
        "precision": cells[1, 1] / selected if selected else None,
        "prevalence": positive / len(seen) if seen else None,
        "selection_rate": sum(row.predicted for row in part) / n,
        "brier": math.fsum((row.score - row.label) ** 2 for row in seen) / len(seen) if seen else None,
        "auroc": sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs) if pairs else None,
    }, len(seen)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_window_is_what_its_rows_say_once(seed):
    written = {}
    for event in world.performance(uninterrupted(seed)[0]):
        data = event["data"]
        series = (data["model"], data["feedback"], data["horizon_ms"])
        key = (
            *series,
            data["window"]["start_ms"],
            data["version"],
            data["segment"],
            data["metric"],
            data.get("quantile"),
        )
        assert key not in written
        written[key] = data
    checked = 0
    for model, streams in world.STREAMS.items():
        for start, end, events in windows_of(seed, model):
            own = [row for row in world.rows(seed) if row.model == model and start <= row.time_ms < end]
            assert len(own) == events
            for (version, segment), part in world.groups_of(own).items():
                for plan in streams:
                    for horizon in plan.horizons_ms:
                        expected, observed = recounted(part, plan.stream, horizon)
                        for metric, value in expected.items():
                            data = written.pop((model, plan.stream, horizon, start, version, segment, metric, None))
                            assert data["window"]["end_ms"] == end
                            assert data["counts"]["predictions"] == len(part)
                            assert data["counts"]["observed"] == observed
                            assert data["incomplete"] is False
                            if metric == "confusion_matrix":
                                assert data["matrix"] == value
                            elif value is None:
                                assert data["value"] is None
                                assert data["undefined"]
                            else:
                                assert abs(data["value"] - value) <= data["error"] + 1e-12 * abs(value), (metric, data)
                            checked += 1
    assert checked > 1200
    known = {"confusion_matrix", "accuracy", "recall", "precision", "prevalence", "selection_rate", "brier", "auroc"}
    assert not [key for key in written if key[1] != "labels" or key[6] in known or key[0] == world.PRICE]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("order", [1, 2])
def test_how_partitions_are_mixed_changes_no_byte(seed, order):
    assert world.log_of(seed, order) != world.log_of(seed, 0)
    assert world.by_series(uninterrupted(seed, order)[0]) == world.by_series(uninterrupted(seed)[0])


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2), st.lists(st.integers(0, 1 << 20), max_size=8))
def test_batching_changes_no_byte(seed, cuts):
    records = world.log_of(seed)
    stage = world.stage_of()
    for start, stop in pairwise(sorted({0, len(records), *(cut % len(records) for cut in cuts)})):
        stage.apply("panes", records[start:stop])
    outputs, blobs = uninterrupted(seed)
    assert tuple(stage.outbox) == outputs
    assert kit.live({}, stage.changed_blobs()) == blobs


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2), st.lists(st.integers(0, 1 << 20), min_size=1, max_size=5), st.integers(0, 60))
def test_a_restart_anywhere_changes_no_byte(seed, cuts, replayed):
    records = world.log_of(seed)
    stage, stored, outputs = world.stage_of(), {}, []
    for start, stop in pairwise(sorted({0, len(records), *(cut % len(records) for cut in cuts)})):
        stage.apply("panes", records[max(0, start - replayed) : stop])
        outputs += stage.outbox
        kit.live(stored, stage.changed_blobs())
        stage = world.stage_of()
        stage.load(stored)
    expected, blobs = uninterrupted(seed)
    assert tuple(outputs) == expected
    assert stored == blobs


@pytest.mark.parametrize("seed", SEEDS)
def test_repeated_records_change_no_byte(seed):
    records, r, repeated = world.log_of(seed), random.Random(seed), []
    for record in records:
        repeated.append(record)
        if not isinstance(record.body, kit.Announcement) and r.random() < 0.3:
            repeated.append(r.choice(records[max(0, record.offset - 40) : record.offset + 1]))
    again = [kit.PaneRecord(i, each.timestamp_ms, each.epoch, each.body, each.wire) for i, each in enumerate(repeated)]
    stage = world.stage_of()
    stage.apply("panes", again)
    assert world.by_series(stage.outbox) == world.by_series(uninterrupted(seed)[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_input_windows_do_not_wait_for_feedback(seed):
    """Without one marker of feedback the windows topic is the same, and nothing of performance is written."""
    stage = world.stage_of()
    silent = [r for r in world.log_of(seed) if not (isinstance(r.body, Marker) and r.body.stream != "inputs")]
    stage.apply("panes", silent)
    assert kit.windows(stage.outbox) == kit.windows(uninterrupted(seed)[0])
    assert not [output for output in stage.outbox if output.topic == "performance"]


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_written_before_all_partitions_have_passed(seed):
    stage, marked = world.stage_of(), {}
    written = 0
    for record in world.log_of(seed):
        stage.apply("panes", [record])
        if isinstance(record.body, Marker):
            key = record.body.stream, record.body.partition
            marked[key] = max(marked.get(key, 0), record.body.edge_ms)
        for event in world.performance(stage.outbox):
            data = event["data"]
            for stream in ("inputs", f"{data['feedback']}@{data['horizon_ms']}"):
                assert all(marked[stream, p] >= data["window"]["end_ms"] for p in range(world.SOURCES))
            written += 1
        stage.outbox.clear()
    assert written == len(world.performance(uninterrupted(seed)[0]))


def test_ids_tell_records_apart_and_stay():
    kinds = ("performance", "disparity", "comparison")
    events = [event for seed in SEEDS for kind in kinds for event in world.performance(uninterrupted(seed)[0], kind)]
    about = {}
    for event in events:
        data = event["data"]
        what = tuple(data[name] for name in ("model", "version", "segment", "metric", "feedback", "horizon_ms"))
        key = (event["type"], *what, data.get("quantile"), data["window"]["start_ms"], data["window"]["end_ms"])
        assert about.setdefault(event["id"], key) == key
    assert len(set(about.values())) == len(about)
