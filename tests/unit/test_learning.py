"""`{first: N}`: from sampled rows to cut points, from counted windows to a pinned reference, and what is said on the way."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import orjson
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import monitor_kit as kit

from detectors.binning import assign_bins
from detectors.reference import WindowRule
from stream import learning
from stream.columns import Tag
from stream.learning_log import LearningLog
from stream.panes import Pane, Sample
from stream.reference_records import ReferenceLog
from stream.registers import Registers
from stream.windows import Window

NAMES = ("amount", "score")
WINDOW = WindowRule(False, 20, 60, 200, kit.RESOLUTION)
FIRST = 20_000


@pytest.fixture(autouse=True)
def _few_windows(monkeypatch):
    monkeypatch.setattr(learning, "WINDOWS_MIN", 60)
    monkeypatch.setattr(learning, "CUTS_EVENTS_MIN", 1500)


def settings(**fields):
    return kit.model_settings(window=WINDOW, learn_first=FIRST, **fields)


def values(edge, drift=0.0, events=100):
    r = np.random.default_rng(edge)
    return np.column_stack((r.normal(size=events) + drift, r.random(events)))


def sampling_pane(edge, events=100):
    x = values(edge, events=events)
    r = np.random.default_rng(edge + 1)
    hashes = np.sort(r.integers(0, 1 << 63, events, dtype=np.uint64))
    zero = np.zeros(2, np.int64)
    return Pane(
        partition=0, edge_ms=edge, model=kit.MODEL, version="1", segment="all", plan="learning", reference="",
        events=events, names=NAMES, first_target=0, last_block=True, bin_start=np.zeros(3, np.int64),
        bins=np.empty(0, np.int64), sums=np.zeros((2, 2)), extremes=np.full((2, 2), np.nan), missing=zero, invalid=zero,
        out_of_range=zero, distinct=Registers.none(),
        sample=Sample(hashes, x.view(np.uint64), np.full((events, 2), Tag.NUMBER, np.uint8)),
    )  # fmt: skip


def counted_pane(edge, profile, drift=0.0):
    body = kit.pane(0, edge, 100, profile, plan="cuts")
    x = values(edge, drift)
    bins, sums, extremes = [], [], []
    for place, target in enumerate(profile.targets):
        bins.append(np.bincount(assign_bins(target.binning, x[:, place]), minlength=target.binning.bins))
        y = x[:, place] - target.binning.centre
        sums.append((y.sum(), (y * y).sum()))
        extremes.append((x[:, place].min(), x[:, place].max()))
    return kit.replace(body, bins=np.concatenate(bins), sums=np.array(sums), extremes=np.array(extremes))


def monitor():
    made = kit.MonitorSettings({kit.MODEL: settings()}, kit.RESOLUTION)
    return kit.Monitor(0, sources=1, settings=made, profiles={}, app_version="1")


def references(outputs):
    log = ReferenceLog()
    written = [output for output in outputs if output.topic == "references"]
    return [log.get(name) for output in written if (name := log.add(output.key, output.value))]


def learn(stage):
    """Feed a stage until it has pinned; returns (cuts, pinned, edge of the first window after)."""
    log, edge = kit.Log(), 0
    for _ in range(40):
        log.add(sampling_pane(edge), kit.marker(0, edge + 10, "learning"))
        edge += 10
    stage.apply("panes", log.records)
    (cuts,) = references(stage.outbox)
    for _ in range(300):
        log.add(counted_pane(edge, cuts), kit.marker(0, edge + 10, "cuts"))
        edge += 10
    stage.apply("panes", log.records)
    return log, cuts, edge


def test_sampling_counting_pinned():
    stage = monitor()
    log, cuts, edge = learn(stage)
    assert not cuts.complete
    assert [target.name for target in cuts.targets] == list(NAMES)
    assert [target.role for target in cuts.targets] == ["feature", "score"]
    found = references(stage.outbox)
    assert len(found) == 2
    pinned = found[1]
    assert pinned.id == cuts.id
    assert pinned.complete
    assert pinned.windows.count == 100  # N events in windows of 200
    assert pinned.windows.every_ms == 20
    control = [orjson.loads(o.value) for o in stage.outbox if o.topic == "control"]
    assert [(c["state"], c["revision"], c["reference"] == cuts.id) for c in control] == [
        ("learning", 1, True),
        ("pinned", 2, True),
    ]
    assert {o.key for o in stage.outbox if o.topic == "control"} == {b"learnt/fraud"}
    states = [(r["window"]["start_ms"], r["state"]) for r in kit.windows(stage.outbox) if r["series"] == "version:1"]
    assert {state for start, state in states if start < 2400} == {"learning"}
    assert {state for start, state in states if start >= 2400} == {"judged"}
    assert kit.alerts(stage.outbox) == []
    for _ in range(20):
        log.add(counted_pane(edge, cuts, drift=2.0), kit.marker(0, edge + 10, "cuts"))
        edge += 10
    stage.outbox.clear()
    stage.apply("panes", log.records)
    opened = kit.alerts(stage.outbox)
    assert [(a["subject"], a["data"]["onset"]) for a in opened] == [("feature_drift/amount", "sudden")]


def test_the_events_that_chose_the_cuts_are_no_part_of_the_windows():
    stage = monitor()
    learn(stage)
    pinned = references(stage.outbox)[1]
    assert pinned.targets[0].counts.sum() == FIRST
    assert pinned.rows > FIRST


def test_a_restart_at_any_phase_learns_the_same_reference():
    whole = monitor()
    log, _, _ = learn(whole)
    stage, stored, outputs = monitor(), {}, []
    for start in range(0, len(log.records), 97):
        stage.apply("panes", log.records[start : start + 97])
        outputs += stage.outbox
        kit.live(stored, stage.changed_blobs())
        stage = monitor()
        stage.load(stored)
    assert outputs == whole.outbox


def test_a_monitor_that_finds_cuts_already_in_use_goes_on_counting():
    stage = monitor()
    log, cuts, _ = learn(stage)
    late = [
        record
        for record in log.records
        if getattr(record.body, "plan", "") == "cuts" or not hasattr(record.body, "plan")
    ]
    other = monitor()
    other.profiles[cuts.id] = cuts
    other.apply("panes", late)
    assert [profile.complete for profile in references(other.outbox)] == [True]
    assert (
        references(other.outbox)[0].targets[0].counts.tolist() == references(stage.outbox)[1].targets[0].counts.tolist()
    )


def test_insufficient_windows_are_not_learnt_from():
    _, cuts, _ = learn(monitor())
    learner = learning.Learner(settings(), profile=cuts)
    assert learner.count(Window(0, 200, 5, sufficient=False), None, WINDOW) is None
    assert learner.windows == []


def test_the_log_says_how_far_learning_has_come(caplog):
    caplog.set_level("INFO")
    said = LearningLog()
    whole = monitor()
    log, _, _ = learn(whole)
    stage = monitor()
    for start in range(0, len(log.records), 20):
        stage.apply("panes", log.records[start : start + 20])
        said.say(stage)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "models.fraud: learning its reference: 1,000 of 3,000 events for the cut points"
    assert lines[-2] == "models.fraud: learning its reference: 18,000 of 20,000 events, 90 windows of at least 60"
    assert lines[-1] == "models.fraud: its reference is complete; from now on windows are judged"
    assert len(lines) < 20
