"""Online detectors at the same index as river itself, used directly; cusum and ewma against a plain re-computation."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from river import drift

import detectors
from detectors.online import restored, started
from detectors.registry import Family, Reads
from detectors.verdict import BadState, BadValue

# name, what ours is told, river's own with the same
RIVERS = [
    ("adwin", {}, drift.ADWIN),
    ("adwin", {"delta": 0.05, "clock": 1, "max_buckets": 3}, lambda: drift.ADWIN(delta=0.05, clock=1, max_buckets=3)),
    ("adwin", {"min_window_length": 20, "grace_period": 50}, lambda: drift.ADWIN(min_window_length=20, grace_period=50)),
    ("page_hinkley", {}, drift.PageHinkley),
    ("page_hinkley", {"mode": "up", "threshold": 10.0}, lambda: drift.PageHinkley(mode="up", threshold=10.0)),
    ("page_hinkley", {"mode": "down", "alpha": 0.99, "threshold": 5.0, "delta": 0.1, "min_instances": 3},
     lambda: drift.PageHinkley(mode="down", alpha=0.99, threshold=5.0, delta=0.1, min_instances=3)),
    ("kswin", {"seed": 3}, lambda: drift.KSWIN(seed=3)),
    ("kswin", {"alpha": 0.05, "window_size": 120, "stat_size": 50}, lambda: drift.KSWIN(0.05, 120, 50, seed=0)),
    ("ddm", {}, drift.binary.DDM),
    ("ddm", {"warm_start": 5, "warning_threshold": 1.0, "drift_threshold": 2.0}, lambda: drift.binary.DDM(5, 1.0, 2.0)),
    ("eddm", {}, drift.binary.EDDM),
    ("eddm", {"warm_start": 5, "alpha": 0.97, "beta": 0.7}, lambda: drift.binary.EDDM(5, 0.97, 0.7)),
    ("hddm_a", {}, drift.binary.HDDMA),
    ("hddm_a", {"drift_confidence": 0.01, "warning_confidence": 0.1, "sides": "both"},
     lambda: drift.binary.HDDMA(0.01, 0.1, two_sided_test=True)),
    ("hddm_w", {}, drift.binary.HDDMW),
    ("hddm_w", {"drift_confidence": 0.01, "lambda_val": 0.2, "sides": "both"},
     lambda: drift.binary.HDDMW(0.01, lambda_val=0.2, two_sided_test=True)),
    ("fhddm", {}, drift.binary.FHDDM),
    ("fhddm", {"sliding_window_size": 60, "confidence_level": 0.01, "short_window_size": 20},
     lambda: drift.binary.FHDDM(60, 0.01, 20)),
]  # fmt: skip


def stream(name, seed):
    """Ten stretches of 250, each of another level: rises and falls, small and large."""
    rng = np.random.default_rng(seed)
    levels = np.repeat(rng.random(10), 250)
    if detectors.REGISTRY[name].reads is Reads.ERRORS:
        return (rng.random(len(levels)) < levels).astype(int).tolist()
    return (rng.normal(size=len(levels)) * 0.3 + 4 * levels).tolist()


def alarms_of_river(detector, values):
    found = []
    for i, value in enumerate(values):
        detector.update(value)
        if detector.drift_detected or getattr(detector, "warning_detected", False):
            found.append((i, bool(detector.drift_detected), bool(getattr(detector, "warning_detected", False))))
    return found


def alarms(detector, values):
    steps = [detector.update(value) for value in values]
    return [(i, step.fired, step.warning) for i, step in enumerate(steps) if step.fired or step.warning]


@pytest.mark.parametrize(("name", "told", "river"), RIVERS)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_index_as_river(name: str, told, river, seed: int) -> None:
    values = stream(name, seed)
    theirs = alarms_of_river(river(), [1 - x for x in values] if name == "fhddm" else values)
    assert sum(fired for _, fired, _ in theirs) > 0
    assert alarms(started(name, told), values) == theirs


def test_every_one_that_is_rivers_is_held_to_river() -> None:
    online = [name for name, entry in detectors.REGISTRY.items() if entry.family is Family.ONLINE]
    rivers = {name for name in online if "river." in detectors.card(name).source}
    assert {name for name, _, _ in RIVERS} == rivers
    assert len(rivers) >= 8


# ---- known differences ----------------------------------------------------------------------------------------------


def test_rivers_fhddm_fires_when_errors_become_fewer() -> None:
    rng = random.Random(1)
    rising = [int(rng.random() < p) for p in [0.1] * 500 + [0.7] * 500]
    falling = [1 - x for x in rising]
    assert not alarms_of_river(drift.binary.FHDDM(), rising)
    assert alarms_of_river(drift.binary.FHDDM(), falling)
    assert alarms(started("fhddm"), rising)
    assert not alarms(started("fhddm"), falling)


@pytest.mark.parametrize("name", ["adwin", "page_hinkley"])
def test_one_nan_silences_river_for_good(name: str) -> None:
    rng = np.random.default_rng(2)
    calm, moved = rng.normal(size=500).tolist(), (rng.normal(size=2000) + 5).tolist()
    theirs = {"adwin": drift.ADWIN, "page_hinkley": drift.PageHinkley}[name]
    assert alarms_of_river(theirs(), calm + moved)
    assert not alarms_of_river(theirs(), [*calm, math.nan, *moved])
    ours = started(name)
    assert not alarms(ours, calm)
    with pytest.raises(BadValue):
        ours.update(math.nan)
    assert alarms(ours, moved)


def test_rivers_kswin_draws_otherwise_each_time_unless_it_is_told_a_seed() -> None:
    values = stream("kswin", 3)[:400]

    def p_values(detector):
        found = []
        for value in values:
            detector.update(value)
            found.append(float(detector.p_value))
        return found

    assert p_values(drift.KSWIN()) != p_values(drift.KSWIN())
    steps = [[step.statistic for step in map(started("kswin").update, values)] for _ in range(2)]
    assert steps[0] == steps[1]


# ---- charts ---------------------------------------------------------------------------------------------------------


def test_cusum_is_the_largest_sum_since_the_last_alarm() -> None:
    """The sums as Page defined them: how far the random walk stands above its smallest value, and below its largest."""
    values = np.random.default_rng(4).normal(0.2, 1.0, 3000)
    told = {"mean": 0.1, "deviation": 1.2, "slack": 0.5, "threshold": 3.0}
    detector = started("cusum", told)
    begin = fired = 0
    for i, value in enumerate(values.tolist()):
        z = (values[begin : i + 1] - 0.1) / 1.2
        up, down = (np.concatenate([[0.0], np.cumsum(sign * z - 0.5)]) for sign in (1, -1))
        expected = max(up[-1] - up.min(), down[-1] - down.min())
        step = detector.update(value)
        assert step.statistic == pytest.approx(expected, abs=1e-9)
        assert step.fired == (expected > 3.0)
        if step.fired:
            begin, fired = i + 1, fired + 1
    assert fired > 5


def test_ewma_is_the_weighted_sum_since_the_last_alarm() -> None:
    values = np.random.default_rng(5).normal(0.2, 1.0, 3000)
    detector = started("ewma", {"mean": 0.1, "deviation": 1.2, "weight": 0.2, "limit": 2.5})
    begin = fired = 0
    for i, value in enumerate(values.tolist()):
        z = (values[begin : i + 1] - 0.1) / 1.2
        average = float(np.sum(z * 0.2 * 0.8 ** np.arange(len(z))[::-1]))
        expected = abs(average) / math.sqrt(0.2 / 1.8)
        step = detector.update(value)
        assert step.statistic == pytest.approx(expected, abs=1e-9)
        assert step.fired == (expected > 2.5)
        if step.fired:
            begin, fired = i + 1, fired + 1
    assert fired > 5


def test_adwins_plain_values_are_what_river_says_of_itself() -> None:
    """The layout of river's compiled state is read right: its sums are those of its properties and of its buckets."""
    detector = started("adwin", {"delta": 0.05})
    values = stream("adwin", 6)
    for i, value in enumerate(values):
        detector.update(value)
        if detector.state.width % 97 == 1:
            header, arrays = detector.sections()
            total, variance, width, _ = arrays["sums"].tolist()
            assert (total, variance, width) == (
                detector.state.total, detector.state.variance, detector.state.width,
            )  # fmt: skip
            newest = values[i + 1 - int(width) : i + 1]
            assert total == pytest.approx(sum(newest))
            assert variance == pytest.approx(np.var(newest) * width)
            totals = arrays["totals"].reshape(len(arrays["held"]), -1)
            inside = np.arange(totals.shape[1]) < arrays["held"][:, None]
            assert totals[inside].sum() == pytest.approx(total)
            assert int(np.sum(arrays["held"] * 2 ** np.arange(len(arrays["held"])))) == width
            assert arrays["counters"][3] == detector.state.n_detections
            assert restored("adwin", header, arrays, {"delta": 0.05}).state.variance == detector.state.variance


def test_an_adwin_of_another_layout_is_not_saved() -> None:
    detector = started("adwin")
    with pytest.raises(BadState, match="another layout"):
        detectors.load("adwin").state_to_sections(type(detector.parameters)(grace_period=11), detector.state)
