"""The detection load test measures what it says: intervals, laws of the streams, and detectors whose figures are known."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from load_tests.detection import __main__ as command
from load_tests.detection import figures, measure, report
from load_tests.detection.contenders import (
    SETTINGS,
    AlwaysFires,
    Ours,
    River,
    delay,
    live_windows,
    reference_of,
    settings_of,
)
from load_tests.detection.streams import (
    BY_NAME,
    CASES,
    DAY_MS,
    EVENT_MS,
    STREAMS,
    Rows,
    arrivals,
    flights,
)
from tests.inline_pool import Inline

SMALL = measure.Size(
    pairs=2, live=4_000, reference=20_000, delays=2, slow_pairs=2, kswin_events=100, kswin_delays=0, clean_runs=2,
    clean_events=2_000, longer=((1, 1), (20, 1), (200, 2)),
)  # fmt: skip


class NeverFires:
    name = "never fires"
    numeric_only = False

    def fit(self, reference):
        pass

    def alarms(self, live, after=None):
        return np.empty(0, np.int64)


class FiresAt:
    """Alarms at fixed events, whatever the data."""

    name = "fires at"
    numeric_only = False

    def __init__(self, *events):
        self.events = np.array(events, np.int64)

    def fit(self, reference):
        pass

    def alarms(self, live, after=None):
        return self.events


def draw(name, rows=100_000, seed=3):
    return BY_NAME[name].draw(np.random.default_rng(seed), rows)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 50, 1000])
def test_poisson_interval_is_the_exact_one(count):
    low, high = figures.poisson_interval(count)
    assert stats.poisson.cdf(count, high) == pytest.approx(0.025)
    assert stats.poisson.sf(count - 1, low) == pytest.approx(0.025 if count else 1.0)


def test_alarms_that_come_together_widen_the_limit():
    spread = figures.alarm_figures([1] * 100, 1_000, 1e5, 1)
    together = figures.alarm_figures([100] + [0] * 99, 1_000, 1e5, 1)
    assert spread["alarms"] == together["alarms"] == 100
    assert spread["ratio"] == together["ratio"] == 100.0
    assert together["ratio_upper"] > 2 * spread["ratio_upper"]
    assert spread["ratio_upper"] == pytest.approx(figures.poisson_interval(100)[1])


def test_alarms_of_one_feature_count_for_every_cell():
    one, many = (figures.alarm_figures([3, 1], 50_000, 1e5, cells) for cells in (1, 200))
    assert one["per_million"] == 40.0
    assert many["per_million"] == 8_000.0
    assert many["ratio_upper"] == pytest.approx(200 * one["ratio_upper"])


MOMENTS = [
    ("normal", 0.0, 1.0),
    ("lognormal", math.exp(0.5), math.sqrt((math.e - 1) * math.e)),
    ("t 2.5", 0.0, None),  # its variance is 5, of a law without a fourth moment
    ("Bernoulli 2 %", 0.02, math.sqrt(0.02 * 0.98)),
    ("Poisson 3", 3.0, math.sqrt(3.0)),
    ("zero-inflated", 0.3 * math.exp(0.5), math.sqrt(0.3 * math.exp(2.0) - 0.09 * math.e)),
    ("AR .9", 0.0, 1.0),
]


@pytest.mark.parametrize(("name", "mean", "deviation"), MOMENTS)
def test_moments(name, mean, deviation):
    x = draw(name, 400_000).value
    memory = math.sqrt(19.0) if name == "AR .9" else 1.0
    assert abs(x.mean() - mean) < 4.5 * memory * x.std() / math.sqrt(len(x))
    if deviation is not None:
        assert x.std() == pytest.approx(deviation, rel=0.05)


def test_student_has_its_quantiles():
    x = draw("t 2.5", 400_000).value
    np.testing.assert_allclose(np.quantile(x, [0.05, 0.5, 0.99]), stats.t(2.5).ppf([0.05, 0.5, 0.99]), atol=0.06)


@pytest.mark.parametrize("coefficient", [0.3, 0.5, 0.9])
def test_autocorrelation(coefficient):
    x = draw(f"AR .{round(10 * coefficient)}", 200_000).value
    for lag in (1, 2, 5):
        assert np.corrcoef(x[lag:], x[:-lag])[0, 1] == pytest.approx(coefficient**lag, abs=0.02)
    starts = [draw("AR .9", 2, seed).value[0] for seed in range(400)]
    assert np.std(starts) == pytest.approx(1.0, abs=0.15)  # stationary from the first event


def test_season_and_traffic_follow_the_day():
    rows = draw("season 1 sd, traffic x10", 480_000)
    hour = rows.time_ms % DAY_MS * 24 // DAY_MS
    events = np.bincount(hour, minlength=24)
    assert 8.5 < events.max() / events.min() < 10.5
    assert rows.value[hour == 6].mean() == pytest.approx(1.0, abs=0.05)
    assert rows.value[hour == 18].mean() == pytest.approx(-1.0, abs=0.05)
    assert np.all(np.diff(rows.time_ms) >= 0)
    assert rows.time_ms[-1] == pytest.approx(100 * DAY_MS, rel=1e-3)


def test_traffic_that_swings_off_the_clock_has_its_own_day():
    rows = draw("normal, traffic x10 in 37 hours", 370_000)
    swing = rows.time_ms % (37 * DAY_MS // 24) * 24 // (37 * DAY_MS // 24)
    events = np.bincount(swing, minlength=24)
    assert 8.5 < events.max() / events.min() < 10.5
    hours = np.bincount(rows.time_ms % DAY_MS * 24 // DAY_MS, minlength=24)
    assert hours.max() / hours.min() < 1.4
    assert rows.time_ms[-1] == pytest.approx(370_000 / 4_800 * DAY_MS, rel=1e-2)


def test_events_come_at_random_at_the_stated_rate():
    gaps = np.diff(arrivals(np.random.default_rng(1), 100_000))
    assert gaps.mean() == pytest.approx(EVENT_MS, rel=0.01)
    assert gaps.std() == pytest.approx(EVENT_MS, rel=0.02)


def test_day_effects_are_of_whole_days():
    rows = draw("day effects 0.2 sd", 480_000)
    day = rows.time_ms // DAY_MS
    means = np.bincount(day, rows.value) / np.bincount(day)
    within = rows.value - means[day]
    assert means.std() == pytest.approx(0.2, abs=0.05)
    assert within.std() == pytest.approx(1.0, abs=0.01)


def test_categories_and_missing_values_have_their_shares():
    texts = draw("categories").value
    assert np.mean(texts == "a") == pytest.approx(0.5, abs=0.01)
    assert np.mean(texts == "e") == pytest.approx(0.02, abs=0.002)
    assert np.mean([t is None for t in texts]) == pytest.approx(0.001, abs=0.0005)
    assert np.isnan(draw("missing .1 %").value).mean() == pytest.approx(0.001, abs=0.0005)


def test_real_rows_are_all_there_once_in_random_order():
    stream = BY_NAME["flights: distance, shuffled"]
    table = flights("distance")
    assert len(table) == stream.rows_max
    x = draw(stream.name, stream.rows_max).value
    assert not np.array_equal(x, table)
    np.testing.assert_array_equal(np.sort(x), np.sort(table))
    assert abs(np.corrcoef(x[1:], x[:-1])[0, 1]) < 0.01


CHANGED = {
    ".5 sd": lambda x: x.mean() == pytest.approx(0.5, abs=0.03),
    "variance x1.5": lambda x: x.var() == pytest.approx(1.5, abs=0.06),
    "2 % tail": lambda x: np.mean(x > 4.0) == pytest.approx(0.01, abs=0.003),
    "ramp 0 to 1 sd over 20k": lambda x: x[:2_000].mean() < 0.15 and x[-5_000:].mean() == pytest.approx(1.0, abs=0.06),
    "rate 2 to 3 %": lambda x: x.mean() == pytest.approx(0.03, abs=0.003),
    "missing .1 to 1 %": lambda x: np.isnan(x).mean() == pytest.approx(0.01, abs=0.002),
    "category 2 to 3 %": lambda x: np.mean(x == "e") == pytest.approx(0.03, abs=0.003),
    "unseen 0 to .5 %": lambda x: np.mean(x == "f") == pytest.approx(0.005, abs=0.0015),
    "missing category 1 %": lambda x: np.mean([v is None for v in x]) == pytest.approx(0.01, abs=0.002),
    "two categories swap": lambda x: np.mean(x == "b") == pytest.approx(0.5, abs=0.01),
}


@pytest.mark.parametrize("name", CHANGED)
def test_changes(name):
    case = next(c for c in CASES if c.name == name)
    _, live = measure.changed(case, SMALL, 5, 0)
    assert CHANGED[name](live.value[measure.QUIET_EVENTS :])
    assert not CHANGED[name](live.value[: measure.QUIET_EVENTS])


def test_rows_are_the_same_for_every_detector_and_in_every_process():
    stream = BY_NAME["AR .5"]
    (_, one), (_, other) = (measure.pair(stream, SMALL, 1, 7, live) for live in (4_000, 4_000))
    np.testing.assert_array_equal(one.value, other.value)
    assert not np.array_equal(one.value, measure.pair(stream, SMALL, 1, 8, 4_000)[1].value)


def test_half_the_tolerance_is_all_that_drifts():
    stream = next(s for s in STREAMS if s.inside)
    live = Rows(np.arange(3), np.array([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(measure.inside(stream, live, 0.03).value, [0.015, 1.015, 2.015])
    assert measure.inside(BY_NAME["normal"], live, 0.03) is live


def test_always_firing_is_reported_as_terrible():
    tasks = [measure.other_alarms([AlwaysFires()], BY_NAME["normal"], SMALL, 1, n) for n in range(2)]
    steps = {"before": np.arange(20.0), "factor": np.ones(20), "set_back": 0, "every_ms": 60_000}
    got = report.alarm_report("normal", [task | {"factor": steps} for task in tasks])["contenders"]["always fires"]
    assert got["per_million"] == 1_000_000.0
    assert got["ratio_upper"] > 90_000
    found = [measure.delays(CASES[0], [AlwaysFires()], SMALL, 1, n) for n in range(2)]
    assert report.delay_report(found, 1)["always fires"]["mean"] == 1.0


def test_never_firing_misses_all():
    found = [measure.delays(CASES[0], [NeverFires()], SMALL, 1, n) for n in range(3)]
    got = report.delay_report(found, 1)["never fires"]
    assert (got["misses"], got["seeds"], got["mean"], got["p95"]) == (3, 3, None, None)


def test_a_miss_costs_the_whole_stretch_in_the_geometric_mean():
    got = figures.geometric_mean([[100.0, 100.0], [math.nan, math.nan]], [30_000.0, 10_000.0], 1)
    assert got["value"] == pytest.approx(1_000.0)


def test_delay_counts_from_the_changed_event():
    change = measure.QUIET_EVENTS
    found = measure.delays(CASES[0], [FiresAt(5, change - 1, change + 41, change + 99)], SMALL, 1, 0)
    assert found["fires at"] == 42.0
    assert delay(np.array([change]), change) == 1.0
    assert math.isnan(delay(np.array([change - 1]), change))


def test_kswin_sees_the_end_of_what_is_quiet_and_the_start_of_what_is_not():
    kswin = FiresAt(5, SMALL.kswin_quiet + 41)
    kswin.name = "fires KSWIN"
    lengths = []
    kswin.alarms = lambda live, after=None: lengths.append((len(live), after)) or kswin.events
    size = replace(SMALL, kswin_delays=1)
    found = [measure.delays(CASES[0], [kswin], size, 1, number) for number in range(2)]
    assert found == [{"fires KSWIN": 42.0}, {}]
    assert lengths == [(size.kswin_quiet + size.kswin_changed, size.kswin_quiet)]


def test_ours_is_quiet_and_then_finds_a_clear_shift_within_its_window():
    case = next(c for c in CASES if c.name == "1 sd")
    reference, live = measure.changed(case, SMALL, 1, 0)
    ours = Ours(SETTINGS[0])
    ours.fit(reference)
    alarms = ours.alarms(live, measure.QUIET_EVENTS)
    assert len(alarms) == 1
    assert 1 <= alarms[0] - measure.QUIET_EVENTS + 1 <= 250


def test_windows_end_with_their_last_event():
    reference, live = measure.pair(BY_NAME["normal"], SMALL, 1, 0, 4_000)
    windows = live_windows(reference_of(reference), live)
    np.testing.assert_array_equal(np.cumsum(windows.counts.sum(axis=1)) - 1, windows.last)
    assert np.all(live.time_ms[windows.last] >= windows.start_ms)
    assert np.all(np.diff(windows.start_ms) > 0)


def test_factor_figures_see_evidence_that_grows_by_itself():
    g = np.random.default_rng(0)
    before = [g.random(5_000) for _ in range(20)]
    fair = [g.exponential(size=5_000) for _ in range(20)]
    unfair = [f * np.where(b > 0.9, 1.1, 1.0) for f, b in zip(fair, before, strict=True)]
    got, bad = figures.factor_figures(before, fair), figures.factor_figures(before, unfair)
    assert got["mean"] == pytest.approx(1.0, abs=0.01)
    assert all(abs(mean - 1.0) < 4.5 * error for mean, error in got["deciles"])
    mean, error = bad["deciles"][-1]
    assert mean - 1.0 > 4 * error


def test_river_leaves_missing_values_out():
    class Counts:
        def __init__(self):
            self.seen, self.drift_detected = [], False

        def update(self, value):
            self.seen.append(value)
            self.drift_detected = value > 1

    made = Counts()
    got = River("x", lambda: made).alarms(Rows(np.arange(4), np.array([0.0, math.nan, 2.0, 0.5])))
    assert made.seen == [0.0, 2.0, 0.5]
    assert got.tolist() == [2]


def test_a_finite_table_gets_more_pairs_instead_of_longer_ones():
    assert measure.FULL.pairs_of(BY_NAME["normal"]) == 200
    table = BY_NAME["flights: delay, shuffled"]
    events = measure.FULL.events(200, table)
    assert measure.FULL.reference_rows(table) + events == table.rows_max
    assert measure.FULL.pairs_of(table) * events >= 200 * measure.FULL.events(200, BY_NAME["normal"])
    more = measure.alarm_task(table.name, SMALL, 1, SMALL.pairs, {})  # one that `pairs` does not count
    assert list(more) == [Ours(SETTINGS[0], 200).name]


def test_too_few_events_for_two_hundred_cells_are_told_apart_from_too_many_alarms():
    def of(events):
        task = {Ours(SETTINGS[0], 200).name: {"count": 0, "events": events, "budget": 1e5, "cells": 200}}
        task |= {"factor": {"before": np.arange(20.0), "factor": np.ones(20), "set_back": 0, "every_ms": 60_000}}
        return report.conditions({"normal": report.alarm_report("normal", [task] * 200)})[0]

    assert not of(100_000)["enough"]
    assert of(400_000)["enough"]
    assert of(400_000)["holds"]


def test_conditions_fail_where_alarms_are_too_many():
    def of(count):
        tasks = [
            {
                Ours(SETTINGS[0]).name: {"count": count, "events": 100_000, "budget": 1e5, "cells": 1},
                "factor": {"before": np.arange(20.0), "factor": np.ones(20), "set_back": 0, "every_ms": 60_000},
            }
        ] * 200
        return report.conditions({"normal": report.alarm_report("normal", tasks)})[0]

    assert of(0)["holds"]
    assert of(0)["enough"]
    assert not of(2)["holds"]


@pytest.mark.parametrize("stream", [stream.name for stream in STREAMS])
def test_a_factor_of_one_is_asked_where_the_rank_layer_carries_the_bound(stream):
    """An e-process that gains 5 % a window by itself: a fault of the rank layer, and none where days differ or drift is tolerated."""

    def of(factor):
        task = {
            Ours(SETTINGS[0]).name: {"count": 0, "events": 100_000, "budget": 1e5, "cells": 1},
            "factor": {"before": np.arange(20.0), "factor": np.full(20, factor), "set_back": 0, "every_ms": 60_000},
        }
        return report.conditions({stream: report.alarm_report(stream, [task] * 200)})

    tube = BY_NAME[stream].name.startswith(("day effects", "normal, drift"))
    alarms, factor = of(1.05)
    assert alarms["holds"], "the bound is asked of all"
    assert factor["holds"] is (None if tube else False)
    assert of(1.005)[1]["holds"] is (None if tube else True)
    assert alarms["because"] == factor["because"]
    assert factor["because"].startswith("tube" if tube else "rank layer")


def test_a_shorter_reference_and_another_budget_are_what_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(command, "QUICK", SMALL)
    monkeypatch.setattr(command, "ProcessPoolExecutor", Inline)
    rows = []

    def seen(reference):
        rows.append(len(reference))
        return reference_of(reference)

    monkeypatch.setattr(measure, "reference_of", seen)
    asked = ["--quick", "--json", "--no-calibration", "--stream", "normal", "--case", "1 sd"]
    command.main([*asked, "--reference", "12000", "--budget", "10000"])
    result = json.loads(capsys.readouterr().out)
    assert set(rows) == {12_000}
    small, large = settings_of(1e4)
    assert (small.name, small.budget, small.tolerance) == ("A=1e4 tau=.03", 1e4, 0.03)
    assert result["false_alarms"]["normal"]["contenders"][Ours(small).name]["bound_per_million"] == 100.0
    judged = {one["setting"] for one in result["conditions"] if "setting" in one}
    assert judged == {small.name, large.name}
    found = result["delays"]["1 sd"]
    assert found[Ours(small).name]["mean"] <= found[Ours(large).name]["mean"]
    assert Ours(SETTINGS[0]).name not in found
    with pytest.raises(SystemExit):
        command.main(["--budget", "10000"])
    assert "needs --no-calibration" in capsys.readouterr().err
    assert settings_of(1e5) == SETTINGS


def test_the_command_gives_json_and_a_table(monkeypatch, capsys):
    monkeypatch.setattr(command, "QUICK", SMALL)
    monkeypatch.setattr(command, "ProcessPoolExecutor", Inline)
    assert command.main(["--quick", "--json", "--stream", "normal", "--case", "1 sd"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert len(result["commit"]["id"]) == 40
    assert result["false_alarms"]["normal"]["contenders"]["always fires"]["per_million"] == 1e6
    assert result["delays"]["1 sd"]["always fires"]["mean"] == 1.0
    assert result["delays"]["1 sd"][Ours(SETTINGS[0]).name]["misses"] == 0
    calibrated = {name for name in result["delays"]["1 sd"] if name.startswith("calibrated")}
    assert calibrated == {f"calibrated {name}" for name in result["thresholds"]} != set()
    assert calibrated < set(result["false_alarms"]["normal"]["contenders"])
    assert "delay in events" in err
