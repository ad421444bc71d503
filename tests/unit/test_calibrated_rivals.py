"""The calibrated rivals are what their definitions say, and their thresholds hold the rate that they are set to."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from river import drift
from scipy import stats

from detectors.online import started
from load_tests.detection import __main__ as command
from load_tests.detection import calibrated as rivals
from load_tests.detection import figures, report
from load_tests.detection.contenders import SETTINGS, Ours
from load_tests.detection.streams import CASES, SIX, Rows
from tests.inline_pool import Inline

F64 = NDArray[np.float64]


def statistics(rival: rivals.Rival, reference: F64, live: F64, first: int = 0) -> F64:
    rival.fit(reference)
    out = np.zeros(len(live))
    rival.statistics(rival.prepare(live), first, out)
    return out


@pytest.fixture
def g() -> np.random.Generator:
    return np.random.default_rng(1)


def test_page_hinkley_is_its_definition_and_alarms_where_our_cusum_does(g: np.random.Generator) -> None:
    reference, live = g.normal(5.0, 2.0, 1000), g.normal(5.5, 2.0, 300)
    found = statistics(rivals.PageHinkley(0.125), reference, live)
    z = (live - reference.mean()) / reference.std()
    for i in (0, 1, 17, 299):
        up, down = np.cumsum(z[: i + 1] - 0.125), np.cumsum(z[: i + 1] + 0.125)
        assert found[i] == pytest.approx(max(up[-1] - min(0.0, up.min()), max(0.0, down.max()) - down[-1]))
    cusum = started(
        "cusum",
        {"mean": float(reference.mean()), "deviation": float(reference.std()), "slack": 0.125, "threshold": 5.0},
    )
    at = next(i for i, x in enumerate(live.tolist()) if cusum.update(x).fired)
    assert at == int(np.argmax(found > 5.0)) > 5


def test_sliding_ks_is_scipys_distance_of_the_last_values(g: np.random.Generator) -> None:
    reference, live = g.normal(size=997), g.normal(0.3, 1.0, 400)
    for first in (0, 37):
        found = statistics(rivals.SlidingKS(50), reference, live, first)
        assert not found[: first + 49].any(), "no alarm before the window is full"
        for i in (first + 49, first + 50, first + 111, 399):
            expected = stats.ks_2samp(live[i - 49 : i + 1], reference).statistic
            assert found[i] == pytest.approx(expected, abs=1 / 997 + 1e-12)
    for shift in (-2.0, 0.0, 2.0):  # far below, the largest value decides; far above, the smallest
        found = statistics(rivals.SlidingKS(20), reference, live + shift)
        u = np.searchsorted(np.sort(reference), live + shift, side="right") / 997
        steps = np.arange(20)
        for i in range(19, 400):
            ordered = np.sort(u[i - 19 : i + 1])
            assert found[i] == pytest.approx(max(((steps + 1) / 20 - ordered).max(), (ordered - steps / 20).max()))
    ties = statistics(rivals.SlidingKS(20), np.round(reference), np.round(live))
    assert np.isfinite(ties).all()


def test_qt_ewma_is_its_definition_over_equal_parts_of_the_reference(g: np.random.Generator) -> None:
    reference, live = g.normal(size=3200), g.normal(0.2, 1.0, 90_000)
    found = statistics(rivals.QTEWMA(0.01, parts=16), reference, live, 3)
    part = np.searchsorted(np.quantile(reference, np.arange(1, 16) / 16), live)
    share = np.full(16, 1 / 16)
    for i in range(3, len(live)):  # long enough for what decays to be scaled again
        share = 0.99 * share + 0.01 * (np.arange(16) == part[i])
        if i % 997 == 0 or i < 6:
            assert found[i] == pytest.approx(16 * ((share - 1 / 16) ** 2).sum(), rel=1e-6, abs=1e-9), i


def test_an_alarm_starts_afresh_and_missing_values_are_left_out(g: np.random.Generator) -> None:
    made = rivals.Calibrated(rivals.PageHinkley(0.0), 3.5)
    made.fit(Rows(np.arange(1000), g.normal(size=1000)))
    made.rival.mean, made.rival.std = 0.0, 1.0  # type: ignore[attr-defined]
    live = Rows(np.arange(12), np.array([1.0, math.nan, 1, 1, 1, 1, math.nan, 1, 1, 1, 1, 1]))
    assert made.alarms(live).tolist() == [4, 9], "the fourth value, then the fourth after it"
    assert made.alarms(live, 4).tolist() == [4]
    assert made.alarms(live, 5).tolist() == [4, 9]


def test_adwin_is_rivers(g: np.random.Generator) -> None:
    live = np.concatenate([g.normal(size=1000), g.normal(1.0, 1.0, 1000)])
    detector, expected = drift.ADWIN(0.02), []
    for i, x in enumerate(live.tolist()):
        detector.update(x)
        if detector.drift_detected:
            expected.append(i)
    assert expected
    assert rivals.adwin(0.02).alarms(Rows(np.arange(2000), live)).tolist() == expected


def test_thresholds_by_hand_and_at_the_rate_that_is_asked_for(g: np.random.Generator) -> None:
    values, at = rivals.records(np.array([0.0, 2.0, 1.0, 2.0, 5.0, 3.0]))
    assert (values.tolist(), at.tolist()) == ([0.0, 2.0, 5.0], [0, 1, 4])
    # above 2: alarms at event 5 of 6 and never in the other run of 6: one in 11
    runs = [(values, at), rivals.records(np.array([1.0, 0, 0, 0, 0, 0]))]
    threshold, alarms = rivals.threshold_of(runs, 6, 11.0)
    assert (threshold, alarms) == (pytest.approx(2.0), 1)
    assert rivals.threshold_of(runs, 6, 12.0)[0] == pytest.approx(5.0)
    # events of which each alone is the statistic: 1 in 1000 is above -log(.001)
    clean = [rivals.records(g.exponential(size=2000)) for _ in range(400)]
    assert rivals.threshold_of(clean, 2000, 1000.0)[0] == pytest.approx(math.log(1000), abs=0.2)
    assert rivals.delta_of([[1, 10, 100, 1000]], 1_000_000, 1e5) == pytest.approx(0.02)
    assert rivals.delta_of([[1, 10, 100, 1000]], 1_000_000, 31_622.8) == pytest.approx(math.sqrt(0.02 * 0.06), rel=1e-4)


@pytest.mark.parametrize("name", ["Page-Hinkley delta=0.25", "QT-EWMA lambda=0.01", "sliding KS W=200"])
def test_a_calibrated_rival_alarms_at_its_rate_on_other_streams(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "ADWIN_RUNS", 0)
    budget, events = 2_000.0, 4_000
    runs = [rivals.clean_task(5_000, 3, n, events) for n in range(60)]
    threshold, _ = rivals.threshold_of([run[name] for run in runs], events, budget)
    other = np.random.default_rng(9)
    count = 0
    for _ in range(20):
        made = rivals.Calibrated(next(rival for make in rivals.RIVALS if (rival := make()).name == name), threshold)
        made.fit(Rows(np.arange(5_000), other.normal(size=5_000)))
        count += len(made.alarms(Rows(np.arange(10_000), other.normal(size=10_000))))
    assert 60 < count < 150, "a hundred, known to a fifth: threshold from some fifty alarms, counts of their own"


def test_the_ratio_is_to_the_best_on_the_same_streams() -> None:
    g = np.random.default_rng(5)
    hard = [g.exponential(size=64) + 0.5 for _ in SIX]  # streams are hard or easy for all alike
    ours, good, bad = ([d * f for d in hard] for f in (40.0, 100.0, 300.0))
    bad = [bad[0] * 0.3, *bad[1:]]  # best in one place is not best
    got = figures.ratio_to_best(ours, bad, good, penalty=[1e4] * 6, seed=1)
    assert got["best"] == 1
    assert got["ratio"] == pytest.approx(0.4)
    assert got["interval_95"] == pytest.approx([0.4, 0.4])
    missed = [np.where(np.arange(64) < 32, np.nan, d) for d in good]
    assert figures.ratio_to_best(ours, missed, penalty=[1e4] * 6, seed=1)["ratio"] < 0.05


def test_the_claim_is_checked_where_enough_was_measured() -> None:
    def of(factor: float, seeds: int) -> Any:
        names = {Ours(SETTINGS[0]).name: factor, "calibrated a": 100.0, "calibrated b": 200.0, "river ADWIN": 1.0}
        g = np.random.default_rng(2)
        tasks = {
            case: [{n: f * (1 + 0.1 * g.random()) for n, f in names.items()} for _ in range(seeds)] for case in SIX
        }
        found = report.against_calibrated(tasks, 1)
        return found, report.rival_conditions(found, seeds)[0]

    found, condition = of(45.0, 64)
    assert found["best"] == "calibrated a"
    low, high = found["interval_95"]
    assert low < found["ratio"] < high < 0.5
    assert condition["holds"]
    assert condition["enough"]
    assert not of(55.0, 64)[1]["holds"]
    assert not of(45.0, 10)[1]["enough"]
    assert report.against_calibrated({SIX[0]: []}, 1) == {}
    assert report.rival_conditions({}, 64) == []


def test_the_command_prints_and_checks_the_ratio(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With tasks that say what they would: what they do is tested above."""
    delays = {Ours(SETTINGS[0]).name: 70.0, "calibrated a": 100.0}
    monkeypatch.setattr(command, "ProcessPoolExecutor", Inline)
    monkeypatch.setattr(command, "clean_task", lambda *_: {})
    monkeypatch.setattr(command, "thresholds", lambda *_: {"a": 3.0})
    monkeypatch.setattr(command, "delay_task", lambda *_: delays)
    assert command.main(["--six", "--json"]) == 1
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["thresholds"] == {"a": 3.0}
    assert list(result["delays"]) == list(SIX)
    assert result["conditions"] == [
        {
            "against": "calibrated a",
            "ratio": pytest.approx(0.7),
            "interval_95": [pytest.approx(0.7)] * 2,
            "enough": True,
            "holds": False,
        }
    ]
    assert "takes 0.70 (0.70 to 0.70) of the events that the best rival takes, calibrated a" in err
    delays[Ours(SETTINGS[0]).name] = 40.0
    assert command.main(["--six", "--json"]) == 0
    assert {case.name for case in CASES} > set(SIX)
