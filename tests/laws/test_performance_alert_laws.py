"""Laws of alerts on performance in the monitor: a function of the rows, however logs mix, whatever is saved and loaded again."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))

import monitor_kit as kit
import performance_kit as world

from stream.monitor import Monitor
from stream.performance_detection import Chosen, PerformanceDetection, PerformanceLimit, PerformanceWatcher
from stream.watchers import Watcher
from stream.window_series import FromReference

SEEDS = range(3)
DETECTION = PerformanceDetection(
    learning=5,
    least_rows=8,
    limits=(
        PerformanceLimit(Chosen("ctr"), None, 0.15),
        PerformanceLimit(Chosen("mean_signed_error"), 4.0, -4.0),
        PerformanceLimit(Chosen("accuracy"), None, FromReference(deviations=0.5, text="0.5 std")),
    ),
    watchers=(
        PerformanceWatcher(Chosen("accuracy"), Watcher("hddm_w", "accuracy", (), (("drift_confidence", 0.2),))),
        PerformanceWatcher(Chosen("ctr"), Watcher("adwin", "ctr")),
    ),
)


def stage_of():
    """Every window counts: a budget of a few windows, so that the default detector alarms, too."""
    plain = world.settings()
    models = {
        name: replace(
            each, budget_ms=0.001, resolve_after=2, performance=replace(each.performance, detection=DETECTION)
        )
        for name, each in plain.models.items()
    }
    return Monitor(0, sources=world.SOURCES, settings=replace(plain, models=models), profiles={}, app_version="1")


@cache
def uninterrupted(seed, order=0):
    stage = stage_of()
    stage.apply("panes", world.log_of(seed, order))
    return tuple(stage.outbox), kit.live({}, stage.changed_blobs())


def by_series(outputs):
    """Model, topic and horizon -> alerts in order of output."""
    found = {}
    for output in outputs:
        if output.topic == "alerts":
            data = orjson.loads(output.value)["data"]
            found.setdefault((data["model"], data["feedback"], data["horizon_ms"]), []).append(output.value)
    return found


def test_there_are_alerts_of_every_sort():
    outputs = [each for seed in SEEDS for each in uninterrupted(seed)[0]]
    alerts = [orjson.loads(each.value)["data"] for each in outputs if each.topic == "alerts"]
    assert {each["kind"] for each in alerts} == {"performance"}
    assert len(by_series(outputs)) >= 3
    assert {each["segment"] for each in alerts} == {"all"}
    promised = {each["evidence"]["promise"].startswith("windows exchangeable") for each in alerts}
    assert promised == {True, False}
    assert any("online" in each["evidence"] for each in alerts)
    assert any(limit.get("made") for each in alerts for limit in each["evidence"].get("thresholds", ()))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("order", [1, 2])
def test_how_partitions_are_mixed_changes_no_alert(seed, order):
    expected, found = uninterrupted(seed)[0], uninterrupted(seed, order)[0]
    assert by_series(found) == by_series(expected)
    assert world.by_series(found) == world.by_series(expected)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2), st.lists(st.integers(0, 1 << 20), min_size=1, max_size=5), st.integers(0, 60))
def test_a_restart_anywhere_changes_no_byte(seed, cuts, replayed):
    records = world.log_of(seed)
    stage, stored, outputs = stage_of(), {}, []
    for start, stop in pairwise(sorted({0, len(records), *(cut % len(records) for cut in cuts)})):
        stage.apply("panes", records[max(0, start - replayed) : stop])
        outputs += stage.outbox
        kit.live(stored, stage.changed_blobs())
        stage = stage_of()
        stage.load(stored)
    expected, blobs = uninterrupted(seed)
    assert tuple(outputs) == expected
    assert stored == blobs
