"""Alerts on realised performance: limits, the default detector, its share of the budget, errors as a stream, restarts."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from detectors.performance import METRICS, Layout, Part, PerformanceSums
from detectors.performance.judged import COUNTED, NOT_JUDGED, errors_of, number_of
from detectors.performance.metric import MetricSettings
from detectors.sequential.rank_alone import NOT_COUNTED, Number
from stream import performance_cell
from stream.alerts import HISTORICAL_MS
from stream.config import Config, config_from
from stream.config_checks import check
from stream.config_errors import ConfigError
from stream.events import AlertEvent
from stream.feedback_planning import feedback_deciding
from stream.join_feedback import FeedbackKind
from stream.monitor_settings import DAY_MS, ModelSettings
from stream.performance_cells import cells_of, rank_settings
from stream.performance_detection import Chosen, PerformanceDetection, PerformanceLimit, PerformanceWatcher
from stream.performance_merging import Horizon
from stream.performance_plan import ModelPerformance, StreamPerformance
from stream.performance_records import Measured
from stream.performance_watch import PerformanceWatch
from stream.plan import ALL, SegmentPlan
from stream.planning import monitor_settings
from stream.watchers import Watcher
from stream.window_log import Closed
from stream.window_series import FromReference

MINUTE, ROWS, LEARNING = 60_000, 400, 60
TELL = MetricSettings(target=1.0, value=np.array([[0.0, -1.0], [-5.0, 3.0]]))
CLICKS = StreamPerformance("clicks", FeedbackKind.CLICK, (600_000,), ("ctr",), Layout(proxies=True))
LABELS = StreamPerformance(
    "labels", FeedbackKind.LABEL, (600_000,), ("accuracy", "recall"), Layout(classes=2, scores=True)
)
NUMBERS = StreamPerformance("labels", FeedbackKind.LABEL, (600_000,), ("mean_signed_error", "mae"), Layout(errors=True))
COUNTRY = SegmentPlan("country", 1, ("DE",), np.zeros(1, np.uint64))
AT = {"clicks": Horizon("clicks", 600_000), "labels": Horizon("labels", 600_000)}
RATE = FromReference(period_ms=100.0 * MINUTE, text="1 per 100m")
STD = FromReference(deviations=4.0, text="4 std")


def below(limit, metric="ctr", **chosen):
    return PerformanceLimit(Chosen(metric, **chosen), None, limit)


def watching(kind, metric, **parameters):
    return PerformanceWatcher(Chosen(metric), Watcher(kind, metric, (), tuple(sorted(parameters.items()))))


def settings_of(*streams, segments=(), budget_ms=30 * DAY_MS, **detection):
    own = PerformanceDetection(**{"learning": LEARNING, **detection})
    plan = ModelPerformance("m", ("0", "1"), 1, streams or (CLICKS,), segments, detection=own)
    return ModelSettings("m", budget_ms=budget_ms, performance=plan, resolve_after=3, owner="team")


def clicks(rate, rows=ROWS, g=None):
    """Sums of one window: exactly this share of clicks, or drawn."""
    sums, hits = PerformanceSums(CLICKS.layout), round(rate * rows) if g is None else int(g.binomial(rows, rate))
    sums.count(Part.PROXIES, "rows")[:] = (rows, hits, 0, 0, 0, 0)
    return sums


def labels(right, rows=ROWS, positive=0.5):
    """Labels of which a share is predicted right, of either class."""
    sums, yes = PerformanceSums(LABELS.layout), round(positive * rows)
    hit = round(right * yes), round(right * (rows - yes))
    sums.count(Part.CONFUSION, "matrix")[:] = [[hit[1], rows - yes - hit[1]], [yes - hit[0], hit[0]]]
    return sums


def measured(number, sums, version="1", segment=ALL, stream=CLICKS, whole=True, kept="k"):
    rows = int(sums.count(Part.PROXIES, "rows")[0]) if stream is CLICKS else ROWS
    window = Closed(number * MINUTE, (number + 1) * MINUTE, rows, lost=False)
    return Measured(
        "m", version, segment, stream.stream, 600_000, kept, window, stream.kind.value, rows, rows, whole, (), sums
    )


def feed(watch, number, *parts, whole=True):
    """One window; its states, and its alerts, each of which has the shape that the wire contract promises."""
    series = Horizon(parts[0].stream, 600_000) if parts else AT["clicks"]
    window = parts[0].window if parts else Closed(number * MINUTE, (number + 1) * MINUTE, 0, lost=False)
    states, outputs = watch.window(series, window, parts, whole=whole)
    for output in outputs:
        assert output.topic == "alerts"
        AlertEvent.model_validate_json(output.value)
    return states, [orjson.loads(output.value) for output in outputs]


def told(events):
    return [(e["type"].split(".")[2], e["data"]["target"], e["data"]["segment"], e["data"]["versions"]) for e in events]


def learn(watch, first=0, windows=LEARNING, rate=0.2, seed=1, **about):
    g, events = np.random.default_rng(seed), []
    for number in range(first, first + windows):
        events += feed(watch, number, measured(number, clicks(rate, g=g), **about))[1]
    return events


# ---- limits ---------------------------------------------------------------------------------------------------------


def test_a_constant_pages_from_the_first_window_on_and_ends_after_quiet_ones():
    watch = PerformanceWatch(settings_of(limits=(below(0.1),)))
    said = []
    for number, rate in enumerate([0.2, 0.1, 0.08, 0.07, 0.2, 0.2, 0.09, 0.2, 0.2, 0.2, 0.2]):
        states, events = feed(watch, number, measured(number, clicks(rate)))
        said += [(number, *each) for each in told(events)]
        assert states["1", ALL, "ctr"] == {"state": "learning", "learnt": number + 1, "of": LEARNING}
        if events and number == 2:
            data = events[0]["data"]
            assert (data["kind"], data["metric"], data["feedback"], data["horizon_ms"]) == (
                "performance",
                "ctr",
                "clicks",
                600_000,
            )
            assert data["evidence"]["promise"] == "none: an operator's threshold"
            assert data["evidence"]["thresholds"] == [{"type": "ctr", "value": 0.08, "threshold": 0.1}]
            assert data["summary"] == (
                "ctr 0.08 within 10m since 00:02; 400 events; ctr 0.08 is below the configured 0.1; nothing is promised about false "
                "alarms."
            )
            assert events[0]["subject"] == "performance/ctr%4010m"
    assert said == [(2, "opened", "ctr@10m", ALL, ["1"]), (9, "resolved", "ctr@10m", ALL, ["1"])]


def test_limits_hold_for_the_series_that_were_chosen():
    two = replace(CLICKS, horizons_ms=(600_000, 1_200_000))
    limits = (below(0.1, segments=("country=DE",)), below(0.1, "ctr", horizons_ms=(1_200_000,)))
    watch = PerformanceWatch(settings_of(two, segments=(COUNTRY,), limits=limits))
    window = [measured(0, clicks(0.05), segment=each) for each in (ALL, "country=DE", "country=__other__")]
    assert told(feed(watch, 0, *window)[1]) == [("opened", "ctr@10m", "country=DE", ["1"])]


@pytest.mark.parametrize("limit", [STD, RATE], ids=["std", "rate"])
def test_limits_of_the_learnt_windows_are_of_a_windows_size(limit):
    """A rate two thirds of the normal one is far in 4,000 rows, and what chance does in 40. Nothing pages before it has learnt."""
    watch = PerformanceWatch(settings_of(limits=(below(limit),)))
    assert learn(watch, windows=LEARNING - 1) == []
    assert feed(watch, LEARNING - 1, measured(LEARNING - 1, clicks(0.01)))[1] == []
    learn(watch, LEARNING, 5, seed=2)
    before = dict(watch.book.open)
    cell = next(iter(watch.followed[AT["clicks"]].cells.values()))
    cell.ranks.rows_min = 1
    sides = {}
    for rows in (40, 4000):
        judgement = cell.feed(measured(100 + rows, clicks(0.2, rows)))
        sides[rows] = cell.sides(below(limit), judgement, MINUTE, 1).below
    deviation = {rows: (0.2 * 0.8 / rows) ** 0.5 for rows in sides}
    far = {rows: (0.2 - found) / deviation[rows] for rows, found in sides.items()}
    assert 2.0 < far[4000] < 9.0
    assert far[40] == pytest.approx(far[4000], rel=0.1)
    assert before == {}


def test_a_made_limit_says_how_it_was_made():
    watch = PerformanceWatch(settings_of(limits=(below(STD),)))
    learn(watch)
    events = feed(watch, LEARNING, measured(LEARNING, clicks(0.05)))[1]
    assert told(events) == [("opened", "ctr@10m", ALL, ["1"])]
    assert events[0]["data"]["evidence"]["thresholds"][0]["made"] == f"4 std by {LEARNING - 9} learnt windows"


# ---- the default detector ----------------------------------------------------------------------------------------------


def test_a_drop_opens_one_alert_inside_the_promise_and_the_return_ends_it():
    watch = PerformanceWatch(settings_of())
    assert learn(watch, windows=150) == []
    events = learn(watch, 150, 60, rate=0.12, seed=2)
    assert told(events)[0] == ("opened", "ctr@10m", ALL, ["1"])
    assert {each["data"]["incident"] for each in events} == {events[0]["data"]["incident"]}
    data = events[0]["data"]
    assert data["evidence"]["promise"] == f"windows exchangeable with the first {LEARNING} of the series"
    assert data["evidence"]["statistic"] >= data["evidence"]["threshold"]
    assert data["evidence"]["threshold"] == pytest.approx(30 * DAY_MS / 0.2)
    assert data["consequence"]["verdict"] == "worse"
    assert data["effect"]["direction"] == "down"
    assert data["effect"]["reference"]["ctr"] == pytest.approx(0.2, abs=0.02)
    assert data["effect"]["now"]["ctr"] == pytest.approx(0.12, abs=0.02)
    assert 150 * MINUTE <= data["window"]["start_ms"] <= 165 * MINUTE
    assert data["since"].startswith("1970-01-01T02:")
    assert "one such alarm in 30 days is what chance may do" in data["summary"]
    back = learn(watch, 210, 80, seed=3)
    assert told(back) == [("resolved", "ctr@10m", ALL, ["1"])]
    assert watch.book.open == {}


def test_the_budget_is_shared_between_inputs_and_every_series_of_performance():
    settings = settings_of(replace(CLICKS, horizons_ms=(1, 2)), LABELS, segments=(COUNTRY,))
    assert len(cells_of(settings.performance)) == 2 * (2 + 2)
    assert settings.inputs_budget_ms == settings.budget_ms / 0.8
    assert rank_settings(settings.performance, settings.budget_ms).budget_ms == pytest.approx(
        settings.budget_ms * 8 / 0.2
    )
    nothing = replace(settings, performance=None)
    assert nothing.inputs_budget_ms == nothing.budget_ms
    assert nothing.detection_hash() != settings.detection_hash()


def test_versions_of_a_cell_spend_one_budget():
    """w_t: the time since the window before x the share of the version in that window; what was lost or carried is not forgotten."""
    watch = PerformanceWatch(settings_of(learning=10, least_rows=100))

    def weights():
        return {key.version: cell.weight_ms for key, cell in watch.followed[AT["clicks"]].cells.items()}

    feed(watch, 0, measured(0, clicks(0.2, 90)), measured(0, clicks(0.2, 10), "2"))
    assert weights() == pytest.approx({"1": 0.9 * MINUTE, "2": 0.1 * MINUTE})
    feed(watch, 1, measured(1, clicks(0.2, 50)), measured(1, clicks(0.2, 60), "2"))
    assert weights() == pytest.approx({"1": 0.0, "2": 0.2 * MINUTE})  # 140 rows were learnt, 70 wait
    feed(watch, 2, measured(2, clicks(0.2, 100)), measured(2, clicks(0.2, 100), "2"), whole=False)
    feed(watch, 4, measured(4, clicks(0.2, 10), "2"))
    assert weights() == pytest.approx({"1": 3 * MINUTE * 50 / 110, "2": 0.2 * MINUTE + 3 * MINUTE * 60 / 110})


def test_what_lacks_something_is_not_judged():
    watch = PerformanceWatch(settings_of(limits=(below(0.1),)))
    assert feed(watch, 0, measured(0, clicks(0.0)), whole=False) == ({}, [])
    assert feed(watch, 1, measured(1, clicks(0.0), whole=False)) == ({}, [])
    assert told(feed(watch, 2, measured(2, clicks(0.0)))[1]) == [("opened", "ctr@10m", ALL, ["1"])]


def test_small_windows_are_added_up():
    """Also where the metric has no value in one of them."""
    watch = PerformanceWatch(settings_of(LABELS, limits=(below(0.55, "recall"),), least_rows=30))
    said = []
    for number, (right, rows, positive) in enumerate([(0.5, 20, 0.0), (0.5, 40, 0.5), (0.5, 30, 0.5)]):
        states, events = feed(watch, number, measured(number, labels(right, rows, positive), stream=LABELS))
        said.append((states["1", ALL, "recall"]["state"], told(events)))
    assert said == [("carried", []), ("carried", []), ("learning", [("opened", "recall@10m", ALL, ["1"])])]


@pytest.mark.parametrize("stop", [None, 4])
def test_windows_that_never_have_a_value_are_given_up_and_counted(monkeypatch, stop):
    monkeypatch.setattr(performance_cell, "CARRIED_MAX", 3)
    settings = settings_of(replace(LABELS, metrics=("auroc",)))
    watch, said = PerformanceWatch(settings), []
    for number in range(9):
        if number == stop:
            stored = kept(watch, {})
            watch = PerformanceWatch(settings)
            watch.load("w", stored, same=True)
        sums, score = labels(0.5), np.linspace(0.1, 0.9, ROWS)
        sums.add_scores(score, (score > 0.5).astype(np.int64) * (number == 8))  # one class only, but for the last
        state = feed(watch, number, measured(number, sums, stream=LABELS))[0]["1", ALL, "auroc"]
        said.append((state["state"], state.get("carried_windows"), state.get("given_up_windows")))
    ups = [(None, 1), (None, 2), (None, 3), (3, 1), (3, 2), (3, 3), (6, 1), (6, 2)]
    assert said == [*(("carried", n, lost) for lost, n in ups), ("learning", None, 6)]
    assert watch.given_up == 6


def test_a_bias_is_found_where_the_absolute_error_sees_nothing():
    """1 % of the target's standard deviation, where the errors' is a tenth of it."""
    watch, g, first = PerformanceWatch(settings_of(NUMBERS)), np.random.default_rng(5), {}
    for number in range(200):
        sums, label = PerformanceSums(NUMBERS.layout), g.normal(size=ROWS)
        sums.add_errors(label + g.normal(0.01 if number >= 120 else 0.0, 0.1, ROWS), label)
        for event in feed(watch, number, measured(number, sums, stream=NUMBERS))[1]:
            first.setdefault(event["data"]["target"], (number, event["data"]["consequence"]["verdict"]))
    assert set(first) == {"mean_signed_error@10m"}
    assert 120 <= first["mean_signed_error@10m"][0] <= 140
    assert first["mean_signed_error@10m"][1] == "worse"


def test_history_is_counted_from_when_the_value_could_be_there():
    watch = PerformanceWatch(settings_of(limits=(below(0.1),)))
    hour = 3_600_000
    watch.log_ms = MINUTE + 600_000 + hour
    assert feed(watch, 0, measured(0, clicks(0.0)))[1][0]["data"]["historical"] is False
    late = PerformanceWatch(settings_of(limits=(below(0.1),)))
    late.log_ms = watch.log_ms + 1
    assert feed(late, 0, measured(0, clicks(0.0)))[1][0]["data"]["historical"] is True


def test_other_sums_are_learnt_anew():
    watch = PerformanceWatch(settings_of(limits=(below(0.1),)))
    learn(watch)
    feed(watch, 60, measured(60, clicks(0.0)))
    assert len(watch.book.open) == 1
    both = measured(61, clicks(0.0)), measured(61, clicks(0.0), kept="other")
    assert feed(watch, 61, *both) == ({}, [])
    states, events = feed(watch, 62, measured(62, clicks(0.2), kept="other"))
    assert states["1", ALL, "ctr"]["learnt"] == 1
    assert [event["data"]["reason"] for event in events] == ["a new reference is in force"]


def test_a_version_that_is_silent_for_a_month_is_forgotten():
    watch = PerformanceWatch(settings_of(limits=(below(0.1),)))
    feed(watch, 0, measured(0, clicks(0.0)))
    month = 30 * DAY_MS // MINUTE
    assert told(feed(watch, month, measured(month, clicks(0.2), "2"))[1]) == []
    events = feed(watch, month + 1, measured(month + 1, clicks(0.2), "2"))[1]
    assert [(*told([e])[0], e["data"]["reason"]) for e in events] == [
        ("resolved", "ctr@10m", ALL, ["1"], "the version has been silent for 30 days")
    ]
    assert {key.version for key in watch.followed[AT["clicks"]].cells} == {"2"}


# ---- online detectors ----------------------------------------------------------------------------------------------------


def test_errors_are_all_rows_in_an_order_that_the_window_draws():
    number = Number.share(300, 1000)
    for metric, bad in (("accuracy", 700), ("false_positive_rate", 300)):
        first, again, other = (errors_of(METRICS[metric], number, 5000, seed) for seed in (7, 7, 8))
        assert int(first.sum()) == int(other.sum()) == bad
        assert first.tolist() == again.tolist() != other.tolist()
        runs = int((np.diff(first.astype(int)) != 0).sum())
        assert abs(runs - 2 * 0.3 * 0.7 * 1000) < 60  # as of a random order
    some = errors_of(METRICS["accuracy"], number, 100, 3)
    assert len(some) == 100
    assert 50 <= some.sum() <= 90


@pytest.mark.parametrize("kind", ["ddm", "eddm", "hddm_a", "hddm_w", "fhddm"])
def test_error_streams_find_a_model_that_errs_more(kind):
    watch = PerformanceWatch(settings_of(LABELS, watchers=(watching(kind, "accuracy"),), budget_ms=10**15))
    fired, opened = [], []
    for number in range(60):
        states, events = feed(watch, number, measured(number, labels(0.9 if number < 40 else 0.6), stream=LABELS))
        opened += [event["data"] for event in events if event["type"].endswith("opened.v1")]
        (said,) = states["1", ALL, "accuracy"]["online"]
        assert said["detector"] == f"{kind}(accuracy)"
        fired += [number] * said["fired"]
    assert any(40 <= number <= 52 for number in fired)
    assert len(fired) <= 8
    assert {each["target"] for each in opened} == {"accuracy@10m"}
    assert opened[-1]["evidence"]["online"][0]["type"] == f"{kind}(accuracy)"


def test_a_detector_of_numbers_sees_the_values():
    watch = PerformanceWatch(settings_of(watchers=(watching("page_hinkley", "ctr", threshold=0.5, min_instances=5),)))
    said = []
    for number in range(40):
        _, events = feed(watch, number, measured(number, clicks(0.2 if number < 20 else 0.4)))
        said += [(number, each[0]) for each in told(events)]
    assert said[0][1] == "opened"
    assert 20 <= said[0][0] <= 25


# ---- snapshots -----------------------------------------------------------------------------------------------------------


DETECTION = {
    "limits": (below(0.16), below(STD)),
    "watchers": (watching("hddm_w", "ctr"), watching("adwin", "ctr")),
    "learning": 20,
    "budget_ms": DAY_MS,
}


def traffic(seed=4, windows=120):
    """Windows of two versions and a segment, some too small, one lost; the rate falls."""
    g = np.random.default_rng(seed)
    for number in range(windows):
        rate = 0.2 if number < 70 else 0.14
        parts = [measured(number, clicks(rate, g=g))]
        if number % 3:
            parts.append(measured(number, clicks(rate, 9, g=g), segment="country=DE"))
        if number > 15:
            parts.append(measured(number, clicks(rate, 100, g=g), "2"))
        yield number, parts, number != 40


def kept(watch, stored):
    for name, blob in watch.blobs("w").items():
        stored[name] = blob
    return {name: stored[name] for name in watch.names_of("w")}


@pytest.mark.parametrize("stops", [(5,), (19, 21), (41, 80), (75,)])
def test_a_restart_anywhere_changes_no_byte(stops):
    settings = settings_of(segments=(COUNTRY,), **DETECTION)
    whole, expected = PerformanceWatch(settings), []
    for number, parts, there in traffic():
        expected.append(feed(whole, number, *parts, whole=there))
    assert sum(len(events) for _, events in expected) > 3
    watch, stored = PerformanceWatch(settings), {}
    for number, parts, there in traffic():
        if number in stops:
            stored = kept(watch, stored)
            watch = PerformanceWatch(settings)
            watch.load("w", stored, same=True)
        assert feed(watch, number, *parts, whole=there) == expected[number]
    assert kept(watch, stored) == kept(whole, {})


def test_new_settings_begin_the_evidence_anew_and_keep_what_was_learnt():
    watch, stored = PerformanceWatch(settings_of()), {}
    learn(watch, windows=100)
    learn(watch, 100, 6, rate=0.16, seed=2)
    stored = kept(watch, stored)
    other = PerformanceWatch(settings_of(budget_ms=60 * DAY_MS, watchers=(watching("adwin", "ctr"),)))
    other.load("w", stored, same=False)
    old, new = (next(iter(each.followed[AT["clicks"]].cells.values())).ranks for each in (watch, other))
    assert np.array_equal(old.order, new.order)
    assert np.array_equal(old.seen, new.seen)
    assert old.evidence.max() > 0
    assert new.evidence.max() == 0
    assert feed(other, 106, measured(106, clicks(0.2)))[0]["1", ALL, "ctr"]["state"] == "judged"


def test_what_is_no_longer_asked_for_is_ended():
    watch = PerformanceWatch(settings_of(limits=(below(0.1),)))
    feed(watch, 0, measured(0, clicks(0.0)))
    stored = kept(watch, {})
    other = PerformanceWatch(settings_of(LABELS))
    other.load("w", stored, same=False)
    events = feed(other, 1, measured(1, labels(0.9), stream=LABELS))[1]
    assert [(*told([each])[0][:2], each["data"]["reason"]) for each in events] == [
        ("resolved", "ctr@10m", "the target is no longer watched")
    ]


def test_a_segment_that_is_no_longer_followed_is_ended():
    watch = PerformanceWatch(settings_of(segments=(COUNTRY,), limits=(below(0.1),)))
    both = [measured(0, clicks(0.0)), measured(0, clicks(0.0), segment="country=DE")]
    assert [each[2] for each in told(feed(watch, 0, *both)[1])] == [ALL, "country=DE"]
    other = PerformanceWatch(settings_of(limits=(below(0.1),)))
    other.load("w", kept(watch, {}), same=False)
    other.log_ms = 2 * MINUTE + 600_000 + HISTORICAL_MS  # not before can the value be there
    events = feed(other, 1, measured(1, clicks(0.0)))[1]
    assert [(*told([each])[0][:3], each["data"]["reason"], each["data"]["historical"]) for each in events] == [
        ("resolved", "ctr@10m", "country=DE", "the target is no longer watched", False)
    ]
    assert [each.segment for each in other.book.open.values()] == [ALL]


# ---- which metrics are what, and the configuration ------------------------------------------------------------------------


def test_shares_are_counts_of_rows_and_all_others_have_a_standard_error():
    g = np.random.default_rng(3)
    first, second, score = g.integers(0, 2, 300), g.integers(0, 2, 300), g.random(300)
    binary, numbers, proxies = (
        PerformanceSums(LABELS.layout),
        PerformanceSums(NUMBERS.layout),
        PerformanceSums(CLICKS.layout),
    )
    binary.add_classes(second, first)
    binary.add_scores(score, first)
    values = g.normal(5.0, 1.0, 300)
    numbers.add_errors(values + g.normal(0.1, 0.2, 300), values)
    proxies.add_proxies(score < 0.3, score < 0.1, np.where(score < 0.1, 9.0, 0.0), score)
    checked = set()
    for name, metric in METRICS.items():
        if name in NOT_JUDGED:
            continue
        sums = next((each for each in (binary, numbers, proxies) if metric.needs in each.layout.parts), None)
        if sums is None:
            continue
        found = metric.function(sums, TELL)
        number = number_of(name, found)
        assert number is not None, name
        assert (number.hits != NOT_COUNTED) == (name in COUNTED), name
        if name in COUNTED:
            assert number.hits == pytest.approx(found.value * found.events, abs=1e-9)
        else:
            assert number.unit > 0, name
        checked.add(name)
    assert checked >= COUNTED
    assert len(checked) > 25


def config(**performance) -> Config:
    own = {"horizons": ["2m", "4m"], "proxies": ["ctr"], "metrics": ["accuracy", "auroc"], **performance}
    model = {"reference": {"first": 5000}, "segments": {"country": ["DE"]}, "performance": own}
    topics = {"predictions": "predictions", "clicks": "clicks", "labels": "labels"}
    return config_from({"kafka": {"bootstrap_servers": "unused:9092"}, "topics": topics, "models": {"fraud": model}})


def test_what_may_be_configured_reaches_the_monitor():
    own = config(learning=90, tolerance=0.1, detectors=[
        {"type": "auroc", "below": 0.7, "horizons": ["4m"], "segments": ["all"]},
        {"type": "ctr", "threshold": "3 std", "below": "1 per 30d"},
        {"type": "ddm", "series": "accuracy", "parameters": {"warm_start": 50}},
    ])  # fmt: skip
    assert list(check(own)) == []
    plan = monitor_settings(own).models["fraud"].performance
    said = plan.detection
    assert (said.learning, said.tolerance) == (90, 0.1)
    assert said.limits[0] == PerformanceLimit(Chosen("auroc", (240_000,), ("all",)), None, 0.7)
    assert (said.limits[1].above.deviations, said.limits[1].below.period_ms) == (3.0, 30 * DAY_MS)
    assert said.watchers == (
        PerformanceWatcher(Chosen("accuracy"), Watcher("ddm", "accuracy", (), (("warm_start", 50),))),
    )
    assert len(cells_of(plan)) == 2 * 2 * 3


def test_limits_are_no_concern_of_the_collectors():
    plain, other = config(), config(learning=90, tolerance=0.1, detectors=[{"type": "auroc", "below": 0.7}])
    assert feedback_deciding(plain) == feedback_deciding(other)
    one, two = (monitor_settings(each).models["fraud"].detection_hash() for each in (plain, other))
    assert one != two


@pytest.mark.parametrize(("detector", "why"), [
    ({"type": "aurok", "below": 0.7}, "auroc"),
    ({"type": "auroc"}, "has no limit"),
    ({"type": "mae", "threshold": 3}, "mae is not asked for"),
    ({"type": "auroc", "below": 0.9, "threshold": 0.7}, "is always"),
    ({"type": "auroc", "below": 0.7, "horizons": ["3m"]}, "3m is no horizon"),
    ({"type": "ddm"}, "has no series"),
    ({"type": "ddm", "series": "auroc"}, "auroc is no share"),
    ({"type": "ddm", "series": "accuracy", "threshold": 3}, "among its parameters"),
    ({"type": "ddm", "series": "accuracy", "parameters": {"warm": 3}}, "warm"),
    ({"type": "auroc", "below": 0.7, "series": "ctr"}, "is a metric itself"),
    ({"type": "expected_ctr", "below": 0.7}, "expected_ctr"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(detector, why):
    with pytest.raises(ConfigError, match=why):
        config(detectors=[detector])


def test_a_segment_that_is_not_followed_is_refused():
    own = config(detectors=[{"type": "auroc", "below": 0.7, "segments": ["country=FR"]}])
    assert [(code, read) for code, _, read, _ in check(own)] == [("DL-C020", "country=FR is not followed")]


def test_cells_with_many_online_detectors_are_read_back() -> None:
    """A container holds 4096 sections: 25 detectors of each of 32 cells are more."""
    watchers = tuple(watching("adwin", metric) for metric in ("accuracy", "recall") for _ in range(25))
    settings = settings_of(LABELS, watchers=watchers)
    watch = PerformanceWatch(settings)
    feed(watch, 0, *[measured(0, labels(0.9), str(version), stream=LABELS) for version in range(16)])
    saved = {name: data for name, data in watch.blobs("w").items() if data is not None}
    assert set(saved) == watch.names_of("w")
    restored = PerformanceWatch(settings)
    restored.load("w", saved, same=True)
    cells = [len(own.cells) for own in watch.followed.values()]
    assert max(cells) == 32
    assert [len(own.cells) for own in restored.followed.values()] == cells
