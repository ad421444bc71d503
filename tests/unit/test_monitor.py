"""The monitor, event by event: windows, which version feeds, weights, carrying, alerts and their words, transitions."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import monitor_kit as kit

from detectors.reference import BlockEffects, with_id
from stream.monitor import MissingReference, Threshold, UnknownDecisionError, UnknownSourceError
from stream.panes import EDGE_END
from stream.stage import Decision


@pytest.fixture(autouse=True)
def _scripted(monkeypatch):
    kit.scripted(monkeypatch)


PROFILE = kit.reference()
drifting = kit.drifting


def spans(records, segment="all"):
    return [(r["window"]["start_ms"], r["window"]["end_ms"], r["events"], r["state"], r["series"][:7]) for r in records
            if r["segment"] == segment]  # fmt: skip


def test_a_window_closes_once_every_has_passed_and_min_events_are_in():
    stage = kit.monitor([PROFILE])
    log = (
        kit.Log().edge(0, 5, PROFILE).edge(10, 5, PROFILE).edge(20, 15, PROFILE).edge(30, 30, PROFILE).edge(40, 0, None)
    )
    log.add(kit.marker(0, 50))
    found = spans(kit.run(stage, log) and kit.windows(stage.outbox))
    assert [span[:3] for span in found if span[4] == "version"] == [(0, 30, 25), (30, 50, 30)]


def test_at_max_duration_a_window_is_insufficient_data_and_its_events_are_carried():
    stage = kit.monitor([PROFILE])
    log = kit.Log().edge(0, 5, PROFILE).add(kit.marker(0, 200)).edge(200, 40, PROFILE).add(kit.marker(0, 300))
    records = [r for r in kit.windows(kit.run(stage, log)) if r["series"] == PROFILE.id]
    assert [(r["window"]["start_ms"], r["window"]["end_ms"], r["state"], r["events"]) for r in records] == [
        (0, 100, "insufficient_data", 5), (200, 220, "judged", 40)
    ]  # fmt: skip
    series = stage.models[kit.MODEL].series
    inputs = next(each for key, each in series.items() if not key.outputs)
    assert inputs.history.events.tolist() == [45]
    assert inputs.history.starts.tolist() == [0]
    assert inputs.states[0]["weight"] == 20 + 200  # the first window's own length, then the time since it began


def test_a_gap_that_becomes_complete_at_once_still_ends_the_window_before_it():
    stage = kit.monitor([PROFILE])
    log = kit.Log().add(kit.pane(0, 0, 30, PROFILE), kit.pane(0, 200, 40, PROFILE), kit.marker(0, 300))
    records = [r for r in kit.windows(kit.run(stage, log)) if r["series"] == PROFILE.id]
    assert [(r["window"]["start_ms"], r["window"]["end_ms"], r["events"]) for r in records] == [
        (0, 20, 30),
        (200, 220, 40),
    ]


def test_the_end_of_a_bounded_input_closes_what_is_open():
    stage = kit.monitor([PROFILE])
    log = kit.Log().edge(0, 30, PROFILE).add(kit.marker(0, EDGE_END))
    assert [span[:3] for span in spans(kit.windows(kit.run(stage, log)))] == [(0, 20, 30), (0, 20, 30)]


def test_records_hold_counts_statistics_distances_and_evidence():
    stage = kit.monitor([PROFILE])
    record = next(r for r in kit.windows(kit.run(stage, drifting([0.25] * 2))) if r["series"] == PROFILE.id)
    target = record["targets"]["amount"]
    assert set(record["targets"]) == {"amount"}
    assert sum(target["bins"]) == 80 == record["events"]
    assert target["bins"][-1] == 20
    for name in ("mean", "std", "p50", "p99", "missing", "invalid", "out_of_range", "psi", "kolmogorov_smirnov",
                 "jensen_shannon", "shift"):  # fmt: skip
        assert isinstance(target[name], float), name
    assert target["unseen"] is None
    assert target["level"] == "ok"
    assert set(target["evidence"]) == {"rank", "tube"}
    assert record["versions"] == ["1"]
    assert record["collector"] == "p"
    assert record["detection"] == kit.model_settings().detection_hash()
    assert record["window"]["start"] == "1970-01-01T00:00:00Z"


def test_partitions_and_panes_are_added():
    stage = kit.monitor([PROFILE], sources=3)
    log = kit.Log().edge(0, 30, PROFILE, sources=3).edge(10, 10, PROFILE, sources=3)
    records = kit.windows(kit.run(stage, log))
    assert [r["events"] for r in records] == [120, 120]
    assert sum(records[0]["targets"]["amount"]["bins"]) == 120


def test_a_record_that_no_topic_would_take_is_split_by_targets(monkeypatch):
    from stream import window_records

    profile = kit.reference(*(kit.reference_target(f"x{place}") for place in range(9)))
    whole = kit.windows(kit.run(kit.monitor([profile]), drifting([0.1] * 2, profile)))[0]
    monkeypatch.setattr(window_records, "RECORD_BYTES_MAX", 2500)
    outputs = [o for o in kit.run(kit.monitor([profile]), drifting([0.1] * 2, profile)) if o.topic == "windows"]
    assert max(len(output.value) for output in outputs) <= 2500
    parts = [record for record in kit.windows(outputs) if record["series"] == profile.id]
    assert [record["part"] for record in parts] == list(range(parts[0]["parts"]))
    assert {name: target for record in parts for name, target in record["targets"].items()} == whole["targets"]


# ---- which version feeds, and what it spends ------------------------------------------------------------------------


def two_versions(counts):
    """Windows of one edge each pair: counts of versions a and b."""
    log = kit.Log()
    for index, (a, b) in enumerate(counts):
        edge = index * 20
        for version, events in (("a", a), ("b", b)):
            if events:
                log.add(kit.pane(0, edge, events, PROFILE, version=version))
        log.add(kit.marker(0, edge + 20))
    return log


def test_inputs_are_fed_by_the_version_that_had_most_events_before():
    stage = kit.monitor([PROFILE])
    records = kit.windows(kit.run(stage, two_versions([(30, 20), (10, 50), (10, 50)])))
    fed = [(r["versions"], r["events"]) for r in records if r["series"] == PROFILE.id]
    assert fed == [(["a"], 30), (["a"], 10), (["b"], 50)]


def test_split_traffic_pools_the_versions():
    stage = kit.monitor([PROFILE], traffic="split")
    records = kit.windows(kit.run(stage, two_versions([(30, 20), (10, 50)])))
    assert [(r["versions"], r["events"]) for r in records if r["series"] == PROFILE.id] == [
        (["a", "b"], 50),
        (["a", "b"], 60),
    ]


def test_outputs_are_judged_for_each_version_and_share_one_budget():
    stage = kit.monitor([PROFILE])
    kit.run(stage, two_versions([(30, 10), (20, 20), (20, 20), (40, 0), (20, 20)]))
    series = {key.version: each for key, each in stage.models[kit.MODEL].series.items() if key.outputs}
    spent = {version: float(each.states[0]["weight"][0]) for version, each in series.items()}
    assert spent == {"a": 15 + 15 + 10 + 10 + 20, "b": 5 + 5 + 10 + 10 + 0}
    assert sum(spent.values()) == 100
    assert {each.promise.cells for each in series.values()} == {2}


def test_every_event_is_in_exactly_one_version_record():
    stage = kit.monitor([PROFILE])
    records = kit.windows(kit.run(stage, two_versions([(30, 10), (20, 25)])))
    assert sum(r["events"] for r in records if r["series"].startswith("version:") and r["segment"] == "all") == 85


def test_segments_are_recorded_and_never_page_unless_asked_to():
    def log():
        made = kit.Log()
        for edge in range(0, 100, 20):
            made.add(kit.pane(0, edge, 40, PROFILE), kit.pane(0, edge, 30, PROFILE, segment="c=DE", shifted=0.9))
            made.add(kit.marker(0, edge + 20))
        return made

    stage = kit.monitor([PROFILE])
    outputs = kit.run(stage, log())
    states = {(r["segment"], r["state"]) for r in kit.windows(outputs)}
    assert states == {("all", "judged"), ("c=DE", "recorded")}
    assert kit.alerts(outputs) == []
    paging = kit.monitor([PROFILE], segments=("c=DE",))
    opened = kit.alerts(kit.run(paging, log()))
    assert [(a["data"]["segment"], a["data"]["target"]) for a in opened] == [("c=DE", "amount")]
    assert {each.promise.cells for each in paging.models[kit.MODEL].series.values()} == {3}


# ---- alerts ---------------------------------------------------------------------------------------------------------

QUIET, LOUD = [0.1] * 2, [0.8] * 2


def test_an_alert_opens_once_updates_silently_and_resolves_after_r_quiet_windows():
    log = drifting(QUIET * 4 + LOUD * 5 + QUIET * 3)
    outputs = kit.run(kit.monitor([PROFILE]), log)
    found = kit.alerts(outputs)
    assert [(a["type"], a["subject"]) for a in found] == [
        ("driftline.alert.opened.v1", "feature_drift/amount"),
        ("driftline.alert.opened.v1", "score_drift/score"),
        ("driftline.alert.resolved.v1", "feature_drift/amount"),
        ("driftline.alert.resolved.v1", "score_drift/score"),
    ]
    opened, resolved = found[0], found[2]
    assert opened["data"]["incident"] == resolved["data"]["incident"]
    assert opened["id"] != resolved["id"]
    assert opened["time"] == "1970-01-01T00:00:00.120Z"
    assert resolved["time"] == "1970-01-01T00:00:00.220Z"
    assert resolved["data"]["reason"] == "inside the tolerance again"
    levels = [r["targets"]["amount"]["level"] for r in kit.windows(outputs) if r["series"] == PROFILE.id]
    assert levels == ["ok"] * 4 + ["crossed_tube"] + ["drift"] * 5 + ["ok"] * 2


def test_what_an_opened_alert_says():
    opened = kit.alerts(kit.run(kit.monitor([PROFILE]), drifting(QUIET * 4 + LOUD * 2)))[0]
    assert set(opened) == {"specversion", "type", "source", "id", "time", "subject", "datacontenttype", "data"}
    assert opened["specversion"] == "1.0"
    assert opened["source"] == "driftline/fraud"
    data = opened["data"]
    assert data["summary"] == (
        "amount moved up by about 1.6 reference standard deviations since 00:00; 160 events; "
        "one such alarm in 30 days is what chance may do."
    )
    assert data["since"] == "1970-01-01T00:00:00.080Z"
    assert (data["onset"], data["severity"], data["versions"], data["segment"]) == ("sudden", "warning", ["1"], "all")
    assert data["historical"] is False
    assert data["evidence"]["false_alarms"] == "1 per 30d"
    assert data["evidence"]["promise"] == "windows exchangeable"
    assert data["evidence"]["tolerance"] == 0.05
    assert data["effect"]["unit"] == "reference standard deviations"
    assert data["effect"]["reference"]["p50"] == 1.0
    assert data["largest_changes"] == [{"bin": "2 and above", "reference": 0.2, "now": 0.8}]
    assert data["consequence"] == {"verdict": "unknown", "why": "no labels yet"}
    assert data["window"]["events"] == 80
    assert data["owner"] == "payments-ml"
    assert "runbook" not in data
    assert data["reference"] == PROFILE.id


def test_an_alert_states_the_tolerance_in_force_and_what_it_holds():
    day = BlockEffects(86_400_000, 4_800, 96, 51, values=0.1, absent=0.0)
    widened = with_id(replace(PROFILE, targets=tuple(replace(target, effects=day) for target in PROFILE.targets)))
    log = drifting(QUIET * 4 + LOUD * 2, widened)
    evidence = kit.alerts(kit.run(kit.monitor([widened]), log))[0]["data"]["evidence"]
    assert 0.25 < evidence["tolerance"] < 0.5
    assert evidence["tolerance_of_missing"] == 0.05
    assert evidence["promise"] == "what blocks of 1d do is like the reference's"
    fixed = kit.alerts(kit.run(kit.monitor([widened], auto=False), log))[0]
    evidence = fixed["data"]["evidence"]
    assert (evidence["tolerance"], evidence["promise"]) == (0.05, "windows exchangeable")
    assert "tolerance_of_missing" not in evidence


def test_an_old_window_is_historical():
    log = drifting(QUIET * 4 + LOUD * 2)
    late = [kit.PaneRecord(r.offset, 120 + 3_600_001, r.epoch, r.body) for r in log.records]
    on_time = [kit.PaneRecord(r.offset, 120 + 3_600_000, r.epoch, r.body) for r in log.records]
    assert kit.alerts(kit.run(kit.monitor([PROFILE]), late))[0]["data"]["historical"] is True
    assert kit.alerts(kit.run(kit.monitor([PROFILE]), on_time))[0]["data"]["historical"] is False


def test_escalation_needs_two_windows_past_the_next_step():
    rising = [0.55] * 4 + [0.9] * 2 + [0.55] * 2 + [0.9] * 4
    outputs = kit.run(kit.monitor([PROFILE], tolerance=0.1, criticality="high"), drifting(QUIET * 4 + rising))
    found = [a for a in kit.alerts(outputs) if a["data"]["target"] == "amount"]
    assert [a["type"].split(".")[2] for a in found] == ["opened"]
    outputs = kit.run(kit.monitor([PROFILE], tolerance=0.043, criticality="high"), drifting(QUIET * 4 + rising))
    found = [a for a in kit.alerts(outputs) if a["data"]["target"] == "amount"]
    assert [(a["type"].split(".")[2], a["data"]["severity"], a["time"]) for a in found] == [
        ("opened", "warning", "1970-01-01T00:00:00.120Z"), ("escalated", "critical", "1970-01-01T00:00:00.200Z")
    ]  # fmt: skip


def test_a_gradual_onset():
    rising = [share for share in np.linspace(0.51, 1.0, 8) for _ in range(2)]
    profile = kit.reference(kit.reference_target("amount"))
    # the scripted detector's shift is 2 x share: nearly flat. Alarms come at the second window of an excursion anyway
    opened = kit.alerts(kit.run(kit.monitor([profile]), drifting(QUIET * 4 + rising, profile)))[0]
    assert opened["data"]["onset"] == "sudden"
    from stream.series import _onset

    assert _onset(np.linspace(0, 1, 16)) == "gradual"
    assert _onset(np.full(16, -0.4)) == "sudden"
    assert _onset(np.array([0.5])) == "sudden"


def test_thresholds_of_an_operator_page_outside_the_promise():
    limits = (Threshold("psi", 0.25, None, ("amount",)),)
    outputs = kit.run(kit.monitor([PROFILE], thresholds=limits), drifting([0.1] * 2 + [0.49] * 2))
    found = kit.alerts(outputs)
    assert [a["subject"] for a in found] == ["feature_drift/amount"]
    data = found[0]["data"]
    assert data["evidence"]["promise"] == "none: an operator's threshold"
    assert data["evidence"]["thresholds"][0]["type"] == "psi"
    assert "above the configured 0.25; nothing is promised about false alarms." in data["summary"]


def test_differing_from_training_data_from_the_start_is_skew_with_its_likely_cause():
    target = kit.reference_target("amount", summary={"mean": 1500.0, "std": 1000.0, "median": 1500.0})
    profile = kit.reference(target)
    opened = kit.alerts(kit.run(kit.monitor([profile]), drifting(LOUD * 2, profile)))[0]
    assert opened["subject"] == "skew/amount"
    assert "against its training data, from the first window on" in opened["data"]["summary"]
    assert opened["data"]["likely_cause"] == "standardised values live, raw values in the reference"
    later = kit.alerts(kit.run(kit.monitor([profile]), drifting(QUIET * 4 + LOUD * 2, profile)))[0]
    assert later["subject"] == "feature_drift/amount"


def test_ids_are_functions_of_what_happened():
    log = drifting(QUIET * 4 + LOUD * 2)
    first = kit.alerts(kit.run(kit.monitor([PROFILE]), log))[0]
    again = kit.alerts(kit.run(kit.monitor([PROFILE], owner="others"), log))[0]
    other = kit.alerts(kit.run(kit.monitor([PROFILE], tolerance=0.06), log))[0]
    assert first["id"] == again["id"]
    assert first["data"]["incident"] == other["data"]["incident"]
    assert first["id"] != other["id"]


# ---- transitions ----------------------------------------------------------------------------------------------------


def test_a_new_reference_cuts_the_window_resolves_and_starts_afresh():
    other = kit.reference(rows=2000)
    log = kit.Log()
    for edge in range(0, 130, 10):
        log.edge(edge, 40, PROFILE, sources=2, shifted=0.8 if edge >= 80 else 0.1)
    # partition 0 switches at 130, partition 1 at 150
    for edge in (130, 140):
        log.add(kit.pane(0, edge, 40, other, plan="q"), kit.pane(1, edge, 40, PROFILE))
        log.add(kit.marker(0, edge + 10, "q"), kit.marker(1, edge + 10, "q" if edge == 140 else "p"))
    for edge in range(150, 200, 10):
        log.edge(edge, 40, other, sources=2, plan="q")
    outputs = kit.run(kit.monitor([PROFILE, other], sources=2), log)
    records = [r for r in kit.windows(outputs) if r["series"] in (PROFILE.id, other.id)]
    shown = [(r["window"]["start_ms"], r["window"]["end_ms"], r["state"], r["reference"] == other.id) for r in records]
    assert shown[5:] == [
        (100, 120, "judged", False), (120, 130, "insufficient_data", False), (130, 150, "transition", False),
        (130, 150, "transition", True), (150, 170, "judged", True), (170, 190, "judged", True),
    ]  # fmt: skip
    ended = [a for a in kit.alerts(outputs) if ".resolved." in a["type"]]
    assert [(a["data"]["target"], a["data"]["reason"]) for a in ended] == [
        ("amount", "a new reference is in force"), ("score", "a new reference is in force")
    ]  # fmt: skip
    assert sum(r["events"] for r in kit.windows(outputs) if r["series"][:7] == "version") == 19 * 80


def test_a_transition_lasts_until_the_markers_of_silent_partitions_agree():
    other = kit.reference(rows=2000)
    log = kit.Log().edge(0, 40, PROFILE, sources=2).edge(10, 40, PROFILE, sources=2)
    for edge in (20, 30, 40, 50):  # partition 1 is silent, and switches at 40
        log.add(kit.pane(0, edge, 40, other, plan="q"))
        log.add(kit.marker(0, edge + 10, "q"), kit.marker(1, edge + 10, "q" if edge >= 40 else "p"))
    outputs = kit.run(kit.monitor([PROFILE, other], sources=2), log)
    records = [r for r in kit.windows(outputs) if r["series"] in (PROFILE.id, other.id)]
    assert [(r["window"]["start_ms"], r["window"]["end_ms"], r["state"]) for r in records] == [
        (0, 20, "judged"), (20, 40, "transition"), (40, 60, "judged")
    ]  # fmt: skip


def test_a_target_that_is_no_longer_watched_resolves_its_alert():
    two = kit.reference(kit.reference_target("amount"), kit.reference_target("age"))
    fewer = kit.reference(kit.reference_target("amount"))
    log = drifting(QUIET * 4 + LOUD * 2, two)
    for edge in range(120, 160, 10):
        body = kit.pane(0, edge, 40, fewer, plan="q", shifted=0.8)
        log.add(kit.replace_reference(body, two.id), kit.marker(0, edge + 10, "q"))
    ended = [a for a in kit.alerts(kit.run(kit.monitor([two]), log)) if ".resolved." in a["type"]]
    assert [(a["data"]["target"], a["data"]["reason"]) for a in ended] == [("age", "the target is no longer watched")]


def test_a_version_that_is_silent_for_30_days_is_retired():
    stage = kit.monitor([PROFILE])
    log = two_versions([(40, 20)] * 2)
    month = 31 * 86_400_000
    log.add(kit.pane(0, month, 40, PROFILE, version="a"), kit.marker(0, month + 20))
    kit.run(stage, log)
    assert sorted(key.version for key in stage.models[kit.MODEL].series if key.outputs) == ["a"]


# ---- what is refused, and what is asked for -------------------------------------------------------------------------


def test_a_missing_reference_is_asked_for_before_anything_changes():
    profiles = {}
    stage = kit.Monitor(0, sources=1, settings=kit.settings(), profiles=profiles, app_version="1")
    log = drifting(QUIET)
    with pytest.raises(MissingReference) as missing:
        stage.apply("panes", log.records)
    assert missing.value.reference == PROFILE.id
    assert stage.position == 0
    profiles[PROFILE.id] = PROFILE
    stage.apply("panes", log.records)
    assert len(kit.windows(stage.outbox)) == 2
    assert stage.position == len(log.records)


def test_records_below_the_position_are_passed_over():
    stage = kit.monitor([PROFILE])
    log = kit.Log().add(kit.marker(0, 10), kit.marker(0, 20))
    stage.apply("panes", log.records)
    stage.apply(
        "panes", [kit.PaneRecord(1, 0, 1, kit.pane(0, 30, 40, PROFILE)), kit.PaneRecord(2, 0, 1, kit.marker(0, 90))]
    )
    assert stage.position == 3
    assert kit.windows(stage.outbox) == []


def test_a_restored_monitor_asks_for_its_references_first():
    stage = kit.monitor([PROFILE])
    log = drifting(QUIET * 2)
    stage.apply("panes", log.records)
    saved = kit.live({}, stage.changed_blobs())
    again = kit.monitor()
    again.load(saved)
    with pytest.raises(MissingReference):
        again.apply("panes", [kit.PaneRecord(len(log.records), 0, 1, kit.marker(0, 1000))])


def test_an_unknown_model_is_counted_and_not_judged():
    stage = kit.monitor([PROFILE])
    log = kit.Log().add(kit.pane(0, 0, 7, None, model="__unknown__", plan=""), kit.marker(0, 3_600_000))
    records = kit.windows(kit.run(stage, log))
    assert [(r["model"], r["events"], r["state"], r["targets"]) for r in records] == [
        ("__unknown__", 7, "recorded", {})
    ]


def test_decisions_and_foreign_topics_are_refused():
    stage = kit.monitor()
    with pytest.raises(UnknownDecisionError):
        stage.decide(Decision(1, "tick", {}, {}))
    with pytest.raises(ValueError, match="reads panes"):
        stage.apply("predictions", [])
    with pytest.raises(UnknownSourceError):
        stage.apply("panes", [kit.PaneRecord(0, 0, 1, kit.marker(3, 10))])
