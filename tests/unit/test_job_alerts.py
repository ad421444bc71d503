"""Job alerts and incomplete windows: when they open and end, what they say, and that they follow from the panes log alone."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))

import monitor_kit as kit

from stream.claims import GAP
from stream.monitor import Monitor
from stream.monitor_settings import JobSettings
from stream.panes import EDGE_END, EDGE_MIN
from stream.stage import Decision

PROFILE = kit.reference()
JOB = JobSettings(min_events=100, every_ms=20, resolve_after=2)


@pytest.fixture
def scripted(monkeypatch):
    kit.scripted(monkeypatch)


def monitor(sources=1, partition=0, job=JOB, **fields):
    chosen = replace(kit.settings(), job=job, **fields)
    profiles = {PROFILE.id: PROFILE}
    return Monitor(partition, sources=sources, settings=chosen, profiles=profiles, app_version="1")


def marked(log, edge, counters, *, partition=0, largest=None):
    body = kit.marker(partition, edge, counters=dict(counters))
    return log.add(replace(body, largest_ms=edge if largest is None else largest))


def counted(steps, *, each=60, log=None, partition=0):
    """A log of one marker an edge; `steps`: what each adds to the counters beside `each` consumed events."""
    log, counters = log or kit.Log(), {"consumed": 0}
    for number, step in enumerate(steps):
        counters["consumed"] += each
        for name, count in step.items():
            counters[name] = counters.get(name, 0) + count
        marked(log, 10 * (number + 1), counters, partition=partition)
    return log


def letters(count, reason="malformed_json"):
    return {"dead_letters": count, f"reason:{reason}": count}


def told(outputs):
    return [(a["type"].split(".")[2], a["subject"], a["data"]["window"]["end_ms"]) for a in kit.alerts(outputs)]


def test_dead_letters_open_one_incident_that_names_their_reason_and_is_resolved():
    bad = {**letters(9), "reason:bad_id": 2}
    log = counted([{}] * 4 + [bad] * 8 + [letters(1)] * 8)
    found = kit.alerts(kit.run(monitor(), log))
    assert told(kit.run(monitor(), log)) == [
        ("opened", "job/dead_letters", 60),
        ("resolved", "job/dead_letters", 160),  # two stretches of two edges after the last that was bad
    ]
    opened, resolved = found
    assert opened["source"] == "driftline/topic/predictions"
    data = opened["data"]
    assert "model" not in data
    assert (data["topic"], data["kind"], data["target"]) == ("predictions", "job", "dead_letters")
    assert data["reasons"] == {"malformed_json": 18, "bad_id": 4}
    assert data["evidence"] == {
        "statistic": 0.15, "threshold": 0.05, "false_alarms": "not limited", "promise": "none: a fixed limit", "tolerance": 0.0,
    }  # fmt: skip
    assert data["summary"] == (
        "15 % of the events of predictions could not be read since 1970-01-01 00:00; 120 events, 18 of them are in the dead "
        "letters, most often malformed_json; dlq.reason says why."
    ).replace("1970-01-01 ", "")
    assert resolved["data"]["incident"] == data["incident"]
    assert resolved["id"] != opened["id"]
    assert resolved["data"]["reason"] == "within its limit again"


@pytest.mark.parametrize(
    ("step", "target"),
    [
        pytest.param(letters(4), "dead_letters", id="B68-dead-letters"),
        pytest.param({"late": 1}, "late_events", id="late"),
        pytest.param(letters(1, "future_timestamp"), "future_timestamps", id="F17-clock-in-the-future"),
        pytest.param({"gap": 1}, "data_loss", id="F7-gap"),
    ],
)
def test_each_kind_opens_its_own_alert(step, target):
    assert {subject for _, subject, _ in told(kit.run(monitor(), counted([{}] * 4 + [step] * 4)))} == {f"job/{target}"}
    below = dict.fromkeys(step, 0)
    assert told(kit.run(monitor(), counted([{}] * 4 + [below] * 4))) == []


def test_a_limit_is_a_limit_of_the_settings():
    log = counted([letters(9)] * 8)
    assert told(kit.run(monitor(job=replace(JOB, dead_letter_share=0.2)), log)) == []


def test_few_events_are_judged_only_once_they_are_enough():
    log = counted([letters(9)] * 20, each=9)
    assert told(kit.run(monitor(), log)) == [("opened", "job/dead_letters", 120)]
    assert told(kit.run(monitor(job=replace(JOB, min_events=1000)), log)) == []


def test_what_comes_and_goes_is_one_incident():
    log = counted(([letters(9)] * 2 + [{}] * 2) * 5 + [{}] * 8)
    assert [what for what, _, _ in told(kit.run(monitor(), log))] == ["opened", "resolved"]


def test_a_loss_is_told_at_once_and_by_number():
    log = counted([{}] * 3 + [{"gap": 1234}] + [{}] * 12, each=1)
    (opened,) = kit.alerts(kit.run(monitor(), log))
    assert opened["data"]["lost"] == {"events": 1234, "pane_records": 0}
    assert opened["data"]["summary"].startswith("1,234 events were deleted by the broker before they were read")


def test_exactly_one_monitor_speaks():
    log = counted([letters(9)] * 8)
    for topic in ("predictions", "scored", "fraud.scored"):
        speaking = [p for p in range(8) if kit.alerts(kit.run(monitor(partition=p, partitions=8, topic=topic), log))]
        assert speaking == [xxhash.xxh3_64_intdigest(topic.encode()) % 8]


def test_an_input_that_ended_before_anybody_marked_anything_is_judged():
    log = marked(kit.Log(), EDGE_END, {"consumed": 1000, **letters(999)}, largest=50)
    assert told(kit.run(monitor(), log)) == [("opened", "job/dead_letters", 60)]
    log = marked(kit.Log(), EDGE_END, {"consumed": 1000, **letters(1000)}, largest=EDGE_MIN)
    assert told(kit.run(monitor(), log)) == [("opened", "job/dead_letters", 20)]


def steps_of(seed):
    """Three source partitions with bad stretches, gaps, and marks that jump."""
    r = random.Random(seed)
    logs = []
    for partition in range(3):
        counters, edge, log = {"consumed": 0, "gap": 0, "late": 0, **letters(0)}, 0, []
        while edge < 600:
            step = r.choice((10, 10, 10, 30, 70))
            bad = 150 <= edge < 300
            for _ in range(step // 10):
                counters["consumed"] += 40
                counters["late"] += r.random() < 0.3
                for name in letters(0):
                    counters[name] += 8 if bad else 0
            counters["gap"] += r.choice((0, 0, 0, 0, 0, 0, 7))
            body = replace(kit.pane(partition, edge, 30, PROFILE), model=kit.MODEL)
            edge += step
            log += [
                body,
                replace(kit.marker(partition, edge, counters=dict(counters)), largest_ms=edge + r.randrange(15)),
            ]
        log.append(kit.marker(partition, EDGE_END, counters=dict(counters)))
        logs.append(log)
    return logs


def merged(seed, order):
    """The logs of all partitions in one order of many."""
    r, rest, records = random.Random(order), [list(log) for log in steps_of(seed)], []
    while any(rest):
        body = r.choice([log for log in rest if log]).pop(0)
        records.append(kit.PaneRecord(len(records), 10, 1, body))
    return records


@given(st.integers(0, 30), st.integers(0, 50), st.integers(51, 99))
@hypothesis_settings(max_examples=12, deadline=None)
def test_the_order_in_which_partitions_mark_changes_nothing(seed, first, second):
    one, other = (kit.run(monitor(sources=3), merged(seed, order)) for order in (first, second))
    said, again = ([a for a in kit.alerts(o) if a["data"]["kind"] == "job"] for o in (one, other))
    assert said == again
    assert said, "something is wrong in every world"
    assert kit.windows(one) == kit.windows(other)


@given(st.integers(0, 30), st.lists(st.integers(0, 400), max_size=8), st.booleans())
@hypothesis_settings(max_examples=12, deadline=None)
def test_batches_and_restores_change_no_byte(seed, cuts, restored):
    records = merged(seed, seed)
    whole = monitor(sources=3)
    expected = kit.run(whole, records)
    stage, stored, outputs = monitor(sources=3), {}, []
    for start, stop in pairwise(sorted({0, len(records), *(cut % len(records) for cut in cuts)})):
        stage.apply("panes", records[start:stop])
        outputs += stage.outbox
        stage.outbox.clear()
        kit.live(stored, stage.changed_blobs())
        if restored:
            stage = monitor(sources=3)
            stage.load(stored)
    assert outputs == expected
    assert stored == kit.live({}, whole.changed_blobs())


# ---- incomplete windows ---------------------------------------------------------------------------------------------


def windows_with(steps, *, largest=0, events=40):
    """One pane and one marker an edge; `steps`: gap events lost before each marker. State of each 20 ms window by start."""
    log, counters = kit.Log(), {"consumed": 0, "gap": 0}
    for number, (lost, shifted) in enumerate(steps):
        counters["consumed"] += events
        counters["gap"] += lost
        log.add(kit.pane(0, 10 * number, events, PROFILE, shifted=shifted))
        marked(log, 10 * (number + 1), counters, largest=10 * (number + 1) + largest)
    stage = kit.monitor([PROFILE])
    outputs = kit.run(stage, log)
    inputs = [window for window in kit.windows(outputs) if window["series"] == PROFILE.id]
    return stage, outputs, {window["window"]["start_ms"]: window for window in inputs}


@pytest.mark.usefixtures("scripted")
def test_a_window_that_lost_events_is_flagged_with_their_number_and_not_judged():
    _, _, windows = windows_with([(0, 0.1)] * 4 + [(9, 0.1)] + [(0, 0.1)] * 4)
    assert {start: window["state"] for start, window in windows.items()} == {
        0: "judged",
        20: "judged",
        40: "incomplete",
        60: "judged",
    }
    assert [start for start, window in windows.items() if window["incomplete"]] == [40]
    assert windows[40]["lost"] == {"events": 9, "pane_records": 0, "source_partitions": [0]}
    assert "lost" not in windows[60]
    assert "evidence" not in windows[40]["targets"]["amount"]


@pytest.mark.usefixtures("scripted")
def test_what_lateness_allows_behind_a_gap_is_incomplete_too():
    """A lost event may belong to every edge from the one marked before up to the newest time plus lateness."""
    _, _, windows = windows_with([(0, 0.1)] * 4 + [(9, 0.1)] + [(0, 0.1)] * 8, largest=25)
    assert [start for start, window in windows.items() if window["incomplete"]] == [40, 60, 80]  # [40, 75 + 25)


@pytest.mark.usefixtures("scripted")
def test_a_gap_of_many_windows_marks_them_all():
    log = kit.Log()
    for edge in range(0, 200, 10):
        log.add(kit.pane(1, edge, 40, PROFILE))
        log.add(kit.marker(1, edge + 10, counters={"gap": 0}))
        if edge < 40 or edge >= 130:
            log.add(kit.pane(0, edge, 40, PROFILE), kit.marker(0, edge + 10, counters={"gap": 500 * (edge > 40)}))
    windows = [w for w in kit.windows(kit.run(kit.monitor([PROFILE], sources=2), log)) if w["series"] == PROFILE.id]
    assert [w["window"]["start_ms"] for w in windows if w["incomplete"]] == [40, 60, 80, 100, 120]
    assert {w["lost"]["events"] for w in windows if w["incomplete"]} == {500}


@pytest.mark.usefixtures("scripted")
def test_the_detectors_are_as_if_an_incomplete_window_had_not_been():
    """A loud window with a hole neither opens an alert nor moves a detector; its time is in the next one's weight."""
    quiet, loud = (0, 0.1), (0, 0.9)
    holed, outputs, _ = windows_with([quiet] * 4 + [(9, 0.9), loud] + [loud] * 2 + [quiet] * 4)
    assert kit.alerts(outputs) == []  # two loud windows in a row would have opened one
    states = {key.name: series.states[0] for key, series in holed.models[kit.MODEL].series.items()}
    assert states[PROFILE.id]["row"][2] == 5  # of six windows closed
    full, _, _ = windows_with([quiet] * 4 + [quiet] * 2 + [loud] * 2 + [quiet] * 4)
    others = {key.name: series.states[0] for key, series in full.models[kit.MODEL].series.items()}
    assert states[PROFILE.id]["weight"] == others[PROFILE.id]["weight"]
    assert kit.alerts(windows_with([quiet] * 4 + [loud] * 4 + [quiet] * 4)[1]) != []


@pytest.mark.usefixtures("scripted")
def test_an_open_alert_is_neither_resolved_nor_escalated_by_an_incomplete_window():
    loud, quiet, holed = (0, 0.9), (0, 0.1), (9, 0.1)
    _, outputs, _ = windows_with([quiet] * 4 + [loud] * 6 + [quiet] * 2 + [holed, quiet] + [(0, 0.1)] * 1)
    assert [a["type"].split(".")[2] for a in kit.alerts(outputs) if a["data"]["target"] == "amount"] == ["opened"]
    _, outputs, _ = windows_with([quiet] * 4 + [loud] * 6 + [quiet] * 5)
    assert [a["type"].split(".")[2] for a in kit.alerts(outputs) if a["data"]["target"] == "amount"][-1] == "resolved"


@pytest.mark.usefixtures("scripted")
def test_panes_that_were_deleted_make_windows_incomplete_and_are_told():
    log = kit.Log()
    for edge in range(0, 120, 10):
        log.edge(edge, 40, PROFILE)
    stage = monitor()
    stage.apply("panes", log.records[:8])
    stage.decide(Decision(1, GAP, {"panes": 8}, {"panes": [8, 12]}))
    assert stage.position == 12
    stored = kit.live({}, stage.changed_blobs())
    again = monitor()
    again.load(stored)
    for each in (stage, again):
        each.apply("panes", log.records[12:])
    windows = [window for window in kit.windows(stage.outbox) if window["series"] == PROFILE.id]
    assert [w["window"]["start_ms"] for w in windows if w["incomplete"]] == [60]
    assert windows[-1]["state"] == "judged"
    (alert,) = kit.alerts(stage.outbox)
    assert alert["data"]["lost"] == {"events": 0, "pane_records": 4}
    assert [o for o in stage.outbox if o in again.outbox] == again.outbox != []
