"""The rank layer of one number a window: learning, the bound, what is found, sizes of windows, snapshots."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detectors.sequential.rank_alone import BadNumber, Level, Number, RankAlone, Settings
from detectors.sequential.uniforms import seed_prefix, window_seed
from detectors.verdict import BadSettings, BadState, BadWeight

PREFIX = seed_prefix("ctr", "kept")
ROWS, RATE = 500, 0.1


def seed(number):
    return window_seed(PREFIX, number)


def shares(g, windows, rate=RATE, rows=ROWS):
    sizes = np.full(windows, rows) if np.isscalar(rows) else g.integers(*rows, windows)
    return [Number.share(int(g.binomial(n, rate)), int(n)) for n in sizes]


def means(g, windows, mean=0.0, rows=50):
    x = g.normal(mean, 1.0, (windows, rows))
    return [Number(float(v.mean()), rows, float(v.std(ddof=1)) / math.sqrt(rows)) for v in x]


def run(ranks, numbers, first=0, weight=1.0):
    return [ranks.update(each, weight, first + place, seed(first + place)) for place, each in enumerate(numbers)]


def alarms(verdicts):
    return [place for place, each in enumerate(verdicts) if each.alarm]


def test_first_it_learns_then_it_judges():
    g, ranks = np.random.default_rng(1), RankAlone(Settings(1e6, learning=100))
    said = run(ranks, shares(g, 120))
    assert [each.level for each in said] == [Level.LEARNING] * 100 + [Level.JUDGED] * 20
    assert (ranks.windows, ranks.progress, ranks.rows_min, ranks.rows_max) == (85, 100, ROWS, ROWS)
    assert abs(ranks.centre - RATE) < 0.02
    assert int(ranks.seen.sum()) == 20
    assert not alarms(said)


@pytest.mark.parametrize("rows", [ROWS, (200, 900)], ids=["equal", "of all sizes"])
@pytest.mark.parametrize("kind", [shares, means], ids=["share", "mean"])
def test_without_a_change_it_alarms_within_its_budget(kind, rows):
    g, budget, windows, found = np.random.default_rng(2), 500, 5000, 0
    for _ in range(3):
        numbers = kind(g, windows + 100, rows=rows if kind is shares else 50)
        found += len(alarms(run(RankAlone(Settings(budget, learning=100)), numbers)))
    assert 3 <= found <= 3 * windows / budget


def test_a_series_that_never_changes_never_alarms():
    ranks = RankAlone(Settings(1000, learning=50))
    assert not alarms(run(ranks, [Number(3.0, 100, 0.0)] * 2000))


@pytest.mark.parametrize("rate", [0.07, 0.13])
def test_a_rate_that_changes_is_found_and_the_return_is_seen(rate):
    g, ranks = np.random.default_rng(3), RankAlone(Settings(1e6, learning=200))
    run(ranks, shares(g, 300))
    changed = run(ranks, shares(g, 100, rate), 300)
    first = alarms(changed)[0]
    said = changed[first]
    assert first < 30
    assert said.crossed
    assert not said.quiet
    assert said.log10 >= said.threshold_log10 == 6.0
    assert (said.shift > 0) == (rate > RATE)
    assert said.now == pytest.approx(rate, abs=0.02)
    assert 300 - 10 <= said.since_ms <= 300 + first
    assert not any(each.quiet for each in changed[first + 1 :])
    back = run(ranks, shares(g, 120), 400)
    assert back[-1].quiet


def test_what_is_within_the_tolerance_removes_the_alarm_and_nothing_else():
    g = np.random.default_rng(4)
    numbers = means(g, 200) + means(g, 60, 0.8)
    plain, wide = RankAlone(Settings(1e5, learning=100)), RankAlone(Settings(1e5, learning=100, tolerance=2.0))
    said, gated = run(plain, numbers), run(wide, numbers)
    assert alarms(said)
    assert alarms(gated) == []
    assert [each.crossed for each in said] == [each.crossed for each in gated]


def test_small_windows_are_left_to_the_caller():
    g, ranks = np.random.default_rng(5), RankAlone(Settings(1e6, learning=50))
    assert ranks.update(Number.share(2, 19), 1.0, 0, 0).level is Level.CARRIED
    run(ranks, shares(g, 50))
    before = ranks.to_sections()[1]
    assert ranks.update(Number.share(2, ROWS - 1), 1.0, 60, 0).level is Level.CARRIED
    assert all(np.array_equal(each, ranks.to_sections()[1][name], equal_nan=True) for name, each in before.items())


def test_windows_above_the_largest_learnt_one_are_thinned():
    """Otherwise ten times the rows of a rate that is a little higher would be a sure alarm."""
    g, found = np.random.default_rng(6), []
    for rows in (ROWS, 40 * ROWS):
        ranks = RankAlone(Settings(1e4, learning=200))
        run(ranks, shares(g, 200))
        rate = ranks.centre + 0.1 * math.sqrt(RATE * (1 - RATE) / ROWS)
        found.append(len(alarms(run(ranks, shares(g, 60, rate, rows), 200))))
    assert found == [0, 0]


@pytest.mark.parametrize("stop", [3, 30, 99, 100, 150, 190])
@pytest.mark.parametrize("kind", [shares, means], ids=["share", "mean"])
def test_a_restored_one_goes_on_bit_for_bit(stop, kind):
    numbers = kind(np.random.default_rng(7), 150) + kind(np.random.default_rng(8), 60, 0.13)
    settings = Settings(1e5, learning=100)
    whole = RankAlone(settings)
    expected = run(whole, numbers)
    first = RankAlone(settings)
    run(first, numbers[:stop])
    second = RankAlone.from_sections(settings, *first.to_sections())
    assert run(second, numbers[stop:], stop) == expected[stop:]
    head, arrays = whole.to_sections()
    again, others = second.to_sections()
    assert again == head
    assert all(each.tobytes() == others[name].tobytes() for name, each in arrays.items())


def test_new_settings_keep_what_was_learnt_and_begin_the_evidence_anew():
    g, ranks = np.random.default_rng(9), RankAlone(Settings(1e9, learning=100))
    said = run(ranks, means(g, 130) + means(g, 10, 0.5))
    seen, order = ranks.seen.copy(), ranks.order.copy()
    assert said[-1].log10 > 2.0
    ranks.restart(Settings(1e3, learning=400))
    assert np.array_equal(ranks.seen, seen)
    assert np.array_equal(ranks.order, order)
    assert ranks.update(Number(0.0, 50, 0.1), 1.0, 140, seed(140)).log10 < 1.0


@pytest.mark.parametrize("learnt", [8, 20, 25, 31])
def test_another_number_of_windows_to_learn_from_makes_no_series_blind(learnt):
    """Also where exactly the windows are there that choose the centre: 20 of 133, of which the state knew none."""
    numbers = shares(np.random.default_rng(12), 200)
    before = RankAlone(Settings(1e6, learning=200))
    run(before, numbers[:learnt])
    after = RankAlone.from_sections(Settings(1e6, learning=133), *before.to_sections())
    said = run(after, numbers, learnt)
    assert abs(after.centre - RATE) < 0.02
    assert np.isfinite(after.order).all()
    assert said[-1].level is Level.JUDGED
    assert math.isfinite(said[-1].shift)


def test_what_cannot_be_judged_is_refused_and_changes_nothing():
    g, ranks = np.random.default_rng(10), RankAlone(Settings(1e6, learning=50))
    run(ranks, means(g, 60))
    before = ranks.to_sections()[1]
    for number in (
        Number(math.nan, 50, 0.1),
        Number(0.0, 50, math.nan),
        Number(0.0, 50, -1.0),
        Number(0.0, 50, 0.1, 51),
    ):
        with pytest.raises(BadNumber):
            ranks.update(number, 1.0, 60, 0)
    with pytest.raises(BadWeight):
        ranks.update(Number(0.0, 50, 0.1), math.inf, 60, 0)
    assert all(np.array_equal(each, ranks.to_sections()[1][name]) for name, each in before.items())
    for wrong in ({"budget_ms": 0.0}, {"learning": 4}, {"tolerance": -1.0}):
        with pytest.raises(BadSettings):
            Settings(**{"budget_ms": 1e6, **wrong})


def test_a_state_that_does_not_fit_is_refused():
    g, settings = np.random.default_rng(11), Settings(1e6, learning=50)
    ranks = RankAlone(settings)
    run(ranks, means(g, 60))
    head, arrays = ranks.to_sections()
    with pytest.raises(BadState):
        RankAlone.from_sections(settings, head | {"version": 2}, arrays)
    with pytest.raises(BadState):
        RankAlone.from_sections(settings, head, {name: each for name, each in arrays.items() if name != "gains"})
    with pytest.raises(BadState):
        RankAlone.from_sections(settings, head, arrays | {"floats": arrays["floats"][1:]})
