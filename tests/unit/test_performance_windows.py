"""Realised performance in the monitor: what is lost, what is new or gone after a restart, and what there is no room for."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import monitor_kit as kit
import performance_kit as world

from detectors.performance import PerformanceSums
from stream import container, performance_merging, performance_watch, performance_windows
from stream.claims import GAP
from stream.join_feedback import FeedbackKind
from stream.merging import UnknownSourceError
from stream.metrics import Metrics
from stream.monitor import Monitor
from stream.output_counts import count_output, count_performance
from stream.panes import EDGE_END, Marker
from stream.performance_detection import Chosen, PerformanceDetection, PerformanceLimit
from stream.performance_merging import Horizon, PerformanceMerger
from stream.performance_panes import PerformancePane, encode_performance_pane, series_name
from stream.performance_plan import StreamPerformance
from stream.stage import Decision
from stream.window_log import BLOCK, WindowLog
from stream.windows import Window

ROWS = 70  # of an edge: more than a window needs
CLICKS = ("clicks", 30)
UNJUDGED = {world.FRAUD: (StreamPerformance("clicks", FeedbackKind.CLICK, (30,), ("expected_ctr",), world.PROXIES),)}
LATER = {world.FRAUD: (StreamPerformance("clicks", FeedbackKind.CLICK, (300,), ("ctr",), world.PROXIES),)}
ONLY_CLICKS = {world.FRAUD: (StreamPerformance("clicks", FeedbackKind.CLICK, (30,), ("ctr",), world.PROXIES),)}


def clicks(edge, clicked, *, horizon=30, complete=True, model=world.FRAUD):
    sums, hit = PerformanceSums(world.PROXIES), np.arange(ROWS) < clicked
    sums.add_proxies(hit, np.zeros(ROWS, bool), np.zeros(ROWS), np.full(ROWS, 0.5))
    return PerformancePane(
        0, model, "1", "all", "clicks", "click", horizon, edge, ROWS, clicked, complete, (), sums
    )  # fmt: skip


def inputs(*edges):
    """Each edge with its marker; a window is two of them."""
    for edge in edges:
        yield kit.pane(0, edge, ROWS, None, model=world.FRAUD)
        yield world.marker(0, edge + world.RESOLUTION)


def passed(edge, counters=None, series=CLICKS, largest=None):
    plain = world.marker(0, edge, series_name(*series), counters)
    return plain if largest is None else Marker(0, plain.stream, edge, {}, plain.counters, {}, largest)


def log(*bodies):
    return kit.Log().add(*bodies)


def stage_of(streams=None):
    return world.stage_of(ONLY_CLICKS if streams is None else streams, sources=1)


def rates(stage):
    """(start of the window, ctr, incomplete) of each record."""
    return [
        (e["data"]["window"]["start_ms"], e["data"]["value"], e["data"]["incomplete"])
        for e in world.performance(stage.outbox)
    ]


def test_a_rate_stands_beside_what_the_scores_let_expect():
    stage = stage_of()
    kit.run(stage, log(*inputs(0, 10, 20, 30), clicks(0, 7), clicks(10, 14), clicks(20, 0), passed(20)))
    (event,) = world.performance(stage.outbox)
    assert (event["subject"], event["source"], event["time"]) == (
        "ctr/clicks",
        "driftline/fraud",
        "1970-01-01T00:00:00.020Z",
    )
    data = event["data"]
    assert data["counts"] == {"predictions": 140, "observed": 21, "used": 140}
    assert data["value"] == 0.15
    assert data["low"] < 0.15 < data["high"]
    assert data["expected"]["value"] == 0.5
    assert data["observed_over_expected"]["value"] == pytest.approx(0.3)
    assert (data["final"], data["revision"], data["horizon_ms"]) == (True, 1, 30)
    assert "undefined" not in data


def test_only_what_was_asked_for_is_written():
    bodies = (*inputs(0, 10, 20), clicks(0, 7), clicks(10, 7), passed(20))
    every = {world.FRAUD: (StreamPerformance("clicks", FeedbackKind.CLICK, (30,), (), world.PROXIES),)}
    for streams, expected in (
        (ONLY_CLICKS, ["ctr"]),
        (every, ["ctr", "expected_ctr", "clicks_over_expected"]),
        ({}, []),
    ):
        stage = stage_of(streams)
        kit.run(stage, log(*bodies))
        assert [event["data"]["metric"] for event in world.performance(stage.outbox)] == expected


def test_what_nobody_asked_for_is_passed_over():
    other = (clicks(0, 9, horizon=50), passed(500, series=("clicks", 50)), passed(500, series=("labels", 30)))
    stage = stage_of()
    kit.run(stage, log(*inputs(0, 10, 20), *other, clicks(0, 7), clicks(10, 7), passed(20)))
    assert rates(stage) == [(0, 0.1, False)]
    assert [name for name in stage.changed_blobs() if name.startswith("performance-panes")] == []


def test_what_a_dead_owner_left_in_the_pane_that_begins_where_the_last_mark_stands_is_forgotten():
    bodies = log(*inputs(0, 10, 20, 30, 40), clicks(0, 7), clicks(10, 7), passed(20), clicks(20, 70), clicks(30, 70))
    bodies.add(kit.Announcement(0), clicks(20, 7), clicks(30, 14), passed(40), epoch=2)
    stage = stage_of()
    kit.run(stage, bodies)
    assert rates(stage) == [(0, 0.1, False), (20, 0.15, False)]


def test_lost_panes_are_told_with_one_marker_before_and_after_a_restore():
    series = Horizon(*CLICKS)

    def restored(merger):
        other = PerformanceMerger(1, [series], world.RESOLUTION)
        other.load(merger.header(), {})
        return other

    def marked(merger, edge, **counters):
        merger.add(kit.PaneRecord(0, 0, 1, passed(edge, counters, largest=edge + 30)))
        return merger.losses[series]

    first = PerformanceMerger(1, [series], world.RESOLUTION)
    marked(first, 20)
    first.lose(3)
    second = restored(first)
    assert marked(second, 40) == [(20, 40)]
    third = restored(second)
    assert marked(third, 60) == [(20, 40)], "the same loss again"
    assert marked(third, 80, gap=1) == [(20, 40), (60, 110)]
    assert marked(restored(third), 90, gap=1) == [(20, 40), (60, 110)]


def test_a_partition_that_there_is_not_is_refused():
    with pytest.raises(UnknownSourceError, match="source partition 3"):
        kit.run(stage_of(), log(world.marker(3, 10, series_name(*CLICKS))))


def test_a_window_that_lacks_predictions_says_so():
    """A pane that never came, one that the cap cut, feedback that retention took, panes that retention took."""
    stage = stage_of()
    kit.run(stage, log(*inputs(0, 10, 20), clicks(0, 7), passed(20)))
    assert rates(stage) == [(0, 0.1, True)]
    stage = stage_of()
    kit.run(stage, log(*inputs(0, 10, 20), clicks(0, 7), clicks(10, 7, complete=False), passed(20)))
    assert rates(stage) == [(0, 0.1, True)]


@pytest.mark.parametrize("name", ["gap", "resets"])
def test_lost_feedback_marks_the_windows_that_it_can_touch(name):
    edges = range(0, 160, 10)
    stage = stage_of()
    before = [clicks(edge, 7) for edge in edges if edge < 40]
    after = [clicks(edge, 7) for edge in edges if edge >= 40]
    kit.run(stage, log(
        *inputs(*edges, 160), *before, passed(40, {name: 0}), *after[:2], passed(60, {name: 3}, largest=100), *after[2:],
        passed(160, {name: 3}),
    ))  # fmt: skip
    # lost between the markers at 40 and 60: of predictions from 40 on, until 2 · 100 - (60 + 30) = 110
    assert rates(stage) == [(start, 0.1, 40 <= start < 110) for start in range(0, 160, 20)]
    assert stage.performance.losses == {CLICKS: []}


def test_lost_panes_mark_the_windows_that_were_not_marked():
    edges = range(0, 80, 10)
    stage = stage_of()
    bodies = [
        *inputs(*edges, 80),
        clicks(0, 7),
        clicks(10, 7),
        passed(20),
        *(clicks(edge, 7) for edge in edges if edge >= 20),
    ]
    records = log(*bodies).records
    kit.run(stage, records)
    stage.decide(Decision(1, GAP, {}, {"panes": [len(records), len(records) + 5]}))
    stage.apply(
        "panes", [kit.PaneRecord(len(records) + 5 + i, 0, 1, body) for i, body in enumerate((passed(60), passed(80)))]
    )
    assert rates(stage) == [(0, 0.1, False), (20, 0.1, True), (40, 0.1, True), (60, 0.1, False)]


def test_feedback_that_brought_its_prediction_counts_by_when_it_became_known():
    """Horizon 0. What comes while no window is open counts in the next one, and no event of the window need be there."""
    streams = {world.FRAUD: (StreamPerformance("clicks", FeedbackKind.CLICK, (0,), ("ctr",), world.PROXIES),)}
    stage, series = stage_of(streams), ("clicks", 0)
    kit.run(stage, log(
        *inputs(0, 10), world.marker(0, 60), *inputs(100, 110, 120), clicks(10, 7, horizon=0), clicks(40, 14, horizon=0),
        clicks(110, 0, horizon=0), passed(120, series=series),
    ))  # fmt: skip
    assert rates(stage) == [(0, 0.1, False), (100, 0.1, False)]


def restored(stage, streams):
    again = stage_of(streams)
    again.load(kit.live({}, stage.changed_blobs()))
    return again


def test_a_state_from_before_there_was_performance_begins_with_the_open_window():
    stage = stage_of({})
    records = log(*inputs(0, 10, 20, 30, 40, 50, 60)).records
    stage.apply("panes", records[:6])  # the window from 20 to 40 is open
    blobs = kit.live({}, stage.changed_blobs())
    header = dict(container.decode(blobs["meta"]).header)
    del header["performance"]
    blobs["meta"] = container.encode("monitor", 1, header, {})
    again = stage_of()
    again.load(blobs)
    panes = [clicks(edge, 7) for edge in (0, 10, 20, 30, 40, 50)]
    tail = [kit.PaneRecord(len(records) + i, 0, 1, body) for i, body in enumerate((*panes, passed(60)))]
    again.apply("panes", [*records[6:], *tail])
    assert rates(again) == [(20, 0.1, False), (40, 0.1, False)]
    assert again.models[world.FRAUD].performance.rows_dropped == 2 * ROWS


def test_series_that_come_and_go_with_the_configuration():
    stage = stage_of()
    records = log(*inputs(0, 10, 20, 30, 40), clicks(0, 7), clicks(10, 7), clicks(20, 7), passed(30)).records
    stage.apply("panes", records)
    both = {world.FRAUD: (StreamPerformance("clicks", FeedbackKind.CLICK, (30, 50), ("ctr",), world.PROXIES),)}
    wider = restored(stage, both)
    later = [
        clicks(30, 7),
        passed(40),
        clicks(20, 7, horizon=50),
        clicks(30, 7, horizon=50),
        passed(40, series=("clicks", 50)),
    ]
    wider.apply("panes", [kit.PaneRecord(len(records) + i, 0, 1, body) for i, body in enumerate(later)])
    assert [(e["data"]["horizon_ms"], e["data"]["window"]["start_ms"]) for e in world.performance(wider.outbox)] == [
        (30, 20),
        (50, 20),
    ]
    fewer = restored(wider, {})
    assert fewer.performance.series == {}
    assert fewer.models[world.FRAUD].performance.series == {}
    left = kit.live({}, fewer.changed_blobs())
    assert not [name for name in left if "performance" in name]


def alerts(stage):
    found = [orjson.loads(output.value) for output in stage.outbox if output.topic == "alerts"]
    return [
        (e["type"].split(".")[2], e["data"]["target"], e["time"][-5:-1], e["data"].get("reason"))
        for e in found
        if e["data"]["kind"] == "performance"
    ]


def paging(streams):
    """A limit below which ctr pages; the same without it where nothing is judged."""
    plain = world.settings(streams)
    model = plain.models[world.FRAUD]
    if model.performance is not None and "ctr" in model.performance.streams[0].metrics:
        limits = PerformanceDetection(limits=(PerformanceLimit(Chosen("ctr"), None, 0.05),))
        model = replace(model, performance=replace(model.performance, detection=limits))
    settings = replace(plain, models={**plain.models, world.FRAUD: model})
    return Monitor(0, sources=1, settings=settings, profiles={}, app_version="1")


@pytest.mark.parametrize(
    "left", [{}, UNJUDGED, LATER], ids=["nothing", "a metric that is not judged", "a series whose windows come later"]
)
def test_an_incident_of_a_metric_that_is_gone_ends_once_with_the_models_next_window(left):
    stage = paging(ONLY_CLICKS)
    records = log(*inputs(0, 10, 20), clicks(0, 0), clicks(10, 0), passed(20)).records
    stage.apply("panes", records)
    assert alerts(stage) == [("opened", "ctr@30ms", ".020", None)]
    blobs = {}
    for _ in range(2):  # the incident outlives another restart before the next window
        blobs = kit.live(blobs, stage.changed_blobs())
        stage = paging(left)
        stage.load(blobs)
    stage.apply(
        "panes", [kit.PaneRecord(len(records) + i, 0, 1, body) for i, body in enumerate(inputs(30, 40, 50, 60))]
    )
    assert alerts(stage) == [("resolved", "ctr@30ms", ".040", "the target is no longer watched")]
    kept = kit.live(blobs, stage.changed_blobs())
    assert any("performance/watch" in name for name in kept) == (left is LATER)
    again = paging(ONLY_CLICKS)
    again.load(kept)
    assert not again.models[world.FRAUD].performance.watch.book.open


def test_more_windows_than_may_wait_are_counted(monkeypatch):
    monkeypatch.setattr(performance_windows, "WINDOWS_WAITING_MAX", 2)
    stage = stage_of()
    edges = range(0, 100, 10)
    kit.run(stage, log(*inputs(*edges, 100), *(clicks(edge, 7) for edge in edges), passed(100)))
    assert rates(stage) == [(60, 0.1, False), (80, 0.1, False)]
    found = stage.models[world.FRAUD].performance
    assert (found.windows_dropped, found.rows_dropped, len(found.log)) == (3, 6 * ROWS, 0)
    assert restored(stage, None).models[world.FRAUD].performance.windows_dropped == 3


def test_the_log_of_windows_keeps_what_is_awaited_in_blocks():
    windows = [Window(10 * i, 10 * i + 10, i, sufficient=True) for i in range(2 * BLOCK + 10)]
    first, stored = WindowLog(), {}
    for number, window in enumerate(windows):
        first.append(window, lost=number % 7 == 0)
        if number in (5, BLOCK + 3):
            stored |= first.blobs("w")
    assert set(first.blobs("w")) == {"w/1", "w/2"}
    first.drop(BLOCK + 1)
    assert (len(first), first.names("w")) == (BLOCK + 9, {"w/1", "w/2"})
    first.append(windows[0], lost=False)
    blobs = first.blobs("w")
    assert set(blobs) == {"w/2"}
    second = WindowLog()
    second.load("w", first.first, first.count - 1, {"w/1": stored["w/1"]} | blobs)
    assert second[2 * BLOCK + 9] == (windows[-1].start_ms, windows[-1].end_ms, 2 * BLOCK + 9, False)


def test_a_block_that_is_dropped_before_it_was_saved_is_not_saved_any_more():
    log_of = WindowLog(block=2)
    for at in range(5):
        log_of.append(Window(10 * at, 10 * at + 10, at, sufficient=True), lost=False)
    log_of.drop(3)
    assert set(log_of.blobs("w")) == log_of.names("w") == {"w/1", "w/2"}
    assert log_of.blobs("w") == {}


def test_at_the_end_of_a_bounded_input_everything_is_written():
    stage = stage_of()
    kit.run(
        stage,
        log(*inputs(0, 10, 20), world.marker(0, EDGE_END), *(clicks(e, 7) for e in (0, 10, 20)), passed(EDGE_END)),
    )
    assert rates(stage) == [(0, 0.1, False), (20, 0.1, False)]


def test_what_could_not_be_reported_is_in_the_metrics(monkeypatch):
    monkeypatch.setattr(performance_windows, "WINDOWS_WAITING_MAX", 2)
    stage, metrics = stage_of(), Metrics()
    edges = range(0, 100, 10)
    kit.run(stage, log(*inputs(*edges, 100), *(clicks(edge, 7) for edge in edges), passed(100)))
    for output in stage.outbox:
        count_output(metrics, 0, output)
    count_performance(metrics, stage)
    for name, number in (("records", 2), ("windows_dropped", 3), ("rows_dropped", 6 * ROWS)):
        assert metrics.get(f"performance_{name}_total", model="fraud") == number


@pytest.mark.parametrize("bytes_max", [0, 30_000])
def test_panes_that_were_read_before_they_are_complete_say_the_same(monkeypatch, bytes_max):
    """However many of them are kept decoded."""
    records, found = world.log_of(7), []
    for limit in (performance_merging.DECODED_BYTES_MAX, bytes_max):
        monkeypatch.setattr(performance_merging, "DECODED_BYTES_MAX", limit)
        stage = world.stage_of()
        stage.apply("panes", records)
        assert stage.performance._read_bytes <= limit
        assert stage.performance._read_bytes == sum(p.sums.layout.bytes for p in stage.performance._read.values())
        found.append([output.value for output in stage.outbox if output.topic == "performance"])
    assert len(found[0]) > 100
    assert found[0] == found[1]
    assert all(encode_performance_pane(record.body) == record.wire for record in records if record.wire)


def test_how_series_stand_is_in_the_metrics(monkeypatch):
    monkeypatch.setattr(performance_watch, "VERSIONS_FOLLOWED_MAX", 1)
    stage, metrics = paging(ONLY_CLICKS), Metrics()
    other = [replace(clicks(edge, 7), version="2") for edge in (0, 10)]
    more = [kit.pane(0, edge, ROWS, None, model=world.FRAUD, version="2") for edge in (0, 10, 20)]
    kit.run(stage, log(*more, *inputs(0, 10, 20), clicks(0, 0), clicks(10, 0), *other, passed(20)))
    count_performance(metrics, stage)
    assert [metrics.get("performance_series", model="fraud", state=s) for s in ("learning", "carried", "judged")] == [
        1,
        0,
        0,
    ]
    assert metrics.get("performance_open_incidents", model="fraud") == 1
    assert metrics.get("performance_windows_given_up_total", model="fraud") == 0
    assert metrics.get("performance_versions_not_followed", model="fraud") == 1
