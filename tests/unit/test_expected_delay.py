"""Expected delays: simulated on the reference's windows, they are those of streams that are drawn anew from the same law."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
import detector_kits as kit

from detectors.normal import cdf, ppf
from detectors.reference import ReferenceProfile, WindowRule, fold
from detectors.reference_build import build_with_windows
from detectors.sequential.default import start, update
from detectors.sequential.default_tables import DetectionSettings, Prepared, prepare
from detectors.sequential.expected_delay import Delay, Past, can_shift, expected_delay, move, moves
from detectors.sequential.strata import Season
from detectors.verdict import Level

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
EVENT_MS = 18_000
MONTH = DetectionSettings(0.05, 30 * DAY_MS, 3)
I64 = NDArray[np.int64]


def built(
    values: NDArray, size: int, event_ms: int = EVENT_MS, season: Season = Season.NONE
) -> tuple[ReferenceProfile, Past]:
    """Windows of `size` events that come evenly."""
    time_ms = np.arange(len(values), dtype=np.int64) * event_ms
    rule = WindowRule(auto=False, every_ms=size * event_ms, min_events=size, resolution_ms=size * event_ms)
    profile, (counts,), start_ms = build_with_windows(
        "m", {"x": values}, {"x": "feature"}, time_ms=time_ms, window=rule, season=season
    )
    return profile, Past.of(counts, start_ms, profile.windows)


def first_alarm(prepared: Prepared, counts: I64, window_ms: int, begin: int = 0) -> float:
    """Windows; inf: none."""
    state = start(prepared)
    for i, row in enumerate(counts):
        if update(prepared, state, row, float(window_ms), (begin + i) * window_ms).level is Level.ALARM:
            return i + 1.0
    return np.inf


@pytest.mark.parametrize(("tolerance", "shift"), [(0.05, 0.25), (0.05, 0.5), (0.2, 0.5), (0.2, 1.0), (0.45, 0.8)])
def test_they_are_those_of_streams_drawn_anew(tolerance: float, shift: float) -> None:
    g, size = np.random.default_rng(1), 50
    profile, past = built(g.normal(size=200_000), size)
    prepared = prepare(profile.targets[0], DetectionSettings(tolerance, 3e7 * EVENT_MS), profile.id)
    found = [
        first_alarm(prepared, kit.windows(prepared.target, g.normal(size=20_000) + by, size), size * EVENT_MS) * size
        for by in [shift, -shift] * 10
    ]
    told = expected_delay(prepared, past, shift)
    assert np.median(found) / 1.3 <= told.events <= np.median(found) * 1.3, (told, np.median(found))
    assert expected_delay(prepared, past, shift) == told
    assert expected_delay(prepared, past, 0.9 * tolerance) == Delay(np.inf), "within the tolerance"


@pytest.mark.parametrize(
    ("windows", "size", "shift"),
    [(24, 400, 0.5), (24, 400, 1.0), (24, 50, 1.0), (100, 400, 0.25), (100, 20, 0.5), (400, 400, 0.5), (4000, 20, 1.0)],
)
def test_few_reference_windows_cost_time(windows: int, size: int, shift: float) -> None:
    """The median: of 24 windows now and then one lies so far out that little is beyond it."""
    told, found = [], []
    for seed in range(8):
        g = np.random.default_rng([seed, windows, size])
        profile, past = built(g.normal(size=round(windows * size / 0.85) + 2), size, 5_000)  # 15 % choose the cuts
        prepared = prepare(profile.targets[0], MONTH, profile.id)
        assert abs(prepared.target.windows - windows) <= 1
        told.append(expected_delay(prepared, past, shift).events)
        moved = shift if seed % 2 else -shift
        counts = kit.windows(prepared.target, g.normal(size=1_000 * size) + moved, size)
        found.append(first_alarm(prepared, counts, size * 5_000) * size)
    assert np.isfinite(told).all()
    assert np.median(found) / 1.5 <= np.median(told) <= np.median(found) * 1.5, (np.median(told), np.median(found))


def test_a_season_is_no_part_of_the_delay() -> None:
    """Windows of a quarter of an hour that are ranked within their hours."""
    g, size, days = np.random.default_rng(3), 50, 30
    event_ms = HOUR_MS // 200
    sine = 0.7 * np.sin(2 * np.pi * np.arange(days * 4_800) / 4_800)
    profile, past = built(g.normal(size=days * 4_800) + sine, size, event_ms, Season.HOUR_OF_DAY)
    prepared = prepare(profile.targets[0], MONTH, profile.id)
    assert prepared.strata is not None
    begins = range(0, 96, 6)
    found = []
    for i, begin in enumerate(begins):
        live = g.normal(size=9_600) + np.roll(sine, -begin * size)[:9_600] + (0.6 if i % 2 else -0.6)
        found.append(first_alarm(prepared, kit.windows(prepared.target, live, size), size * event_ms, begin) * size)
    told = expected_delay(prepared, past, 0.6 / np.sqrt(1.0 + 0.7**2 / 2))  # of the reference's deviation
    assert np.median(found) / 1.5 <= told.events <= np.median(found) * 1.5, (told, np.median(found))


def test_what_becomes_usual_before_it_is_certain_is_not_found() -> None:
    g = np.random.default_rng(1)
    profile, past = built(g.normal(size=1_420), 50, 5_000)
    prepared = prepare(profile.targets[0], DetectionSettings(0.05, 30e6 * DAY_MS, 3), profile.id)
    assert prepared.target.windows == 23
    told = expected_delay(prepared, past, 0.15)
    assert told.events == np.inf
    assert told.looked_at >= 50_000, "it was looked for, the tolerance does not hold it"
    alarms = [
        first_alarm(prepared, kit.windows(prepared.target, g.normal(size=50_000) + 0.15, 50), 250_000) for _ in range(4)
    ]
    assert alarms == [np.inf] * 4


def test_of_categories_the_most_frequent_one_moves() -> None:
    g, size = np.random.default_rng(2), 50
    profile, past = built(np.where(g.random(60_000) < 0.6, "a", "b").astype(object), size)
    wide, sharp = (prepare(profile.targets[0], replace(MONTH, tolerance=t), profile.id) for t in (0.4, 0.05))
    assert expected_delay(wide, past, 0.25) == Delay(np.inf)
    found = []
    for by in [0.5, -0.5] * 6:
        live = np.where(g.random(10_000) < cdf(ppf(0.6) + by), "a", "b").astype(object)
        found.append(first_alarm(sharp, kit.windows(sharp.target, live, size), size * EVENT_MS) * size)
    told = expected_delay(sharp, past, 0.5).events
    assert np.median(found) / 1.3 <= told <= np.median(found) * 1.3, (told, np.median(found))
    assert told < expected_delay(wide, past, 0.5).events


@pytest.mark.parametrize("law", ["normal", "lognormal", "poisson", "holes", "categories", "rare"])
@pytest.mark.parametrize("by", [-0.7, 0.4])
def test_events_move_and_none_is_lost(law: str, by: float) -> None:
    profile = kit.profile(law)
    prepared = prepare(profile.targets[0], MONTH, profile.id)
    counts = profile.targets[0].counts
    moved = np.empty_like(counts)
    for step in range(3):
        move(counts, moves(prepared, by), np.uint64(5), step, moved)
        assert moved.sum() == counts.sum()
        assert moved.min() >= 0
        assert (moved[-2:] == counts[-2:]).all(), "missing and invalid stay what they are"
        if prepared.core:
            core, before = (fold(profile.targets[0].binning, c)[: prepared.core] for c in (moved, counts))
            share, was = np.cumsum(core)[:-1] / core.sum(), np.cumsum(before)[:-1] / before.sum()
            for now, then in zip(share.tolist(), was.tolist(), strict=True):
                if 0.001 < then < 0.999:
                    assert now == pytest.approx(cdf(ppf(then) - by), abs=0.002)
        else:
            most = int(np.argmax(counts[:-2]))
            p = counts[most] / counts[:-2].sum()
            assert moved[most] / counts[:-2].sum() == pytest.approx(cdf(ppf(p) + by), abs=0.002)


def test_one_event_moves_as_often_as_it_should() -> None:
    """Small windows: an event is carried over a cut with its chance, whatever the others do."""
    profile = kit.profile("normal")
    prepared = prepare(profile.targets[0], MONTH, profile.id)
    cumulative, at = moves(prepared, 0.3), prepared.first + prepared.core // 2
    counts, moved = np.zeros_like(profile.targets[0].counts), np.empty(len(cumulative) + 2, np.int64)
    counts[at] = 1
    total = np.zeros(len(cumulative))
    for step in range(4_000):
        move(counts, cumulative, np.uint64(9), step, moved)
        total += moved[:-2]
    assert total / 4_000 == pytest.approx(np.diff(cumulative[at]), abs=0.03)


def test_one_value_alone_has_no_deviation_to_shift_by() -> None:
    def shifts(values: NDArray) -> bool:
        profile, _ = built(values, 50)
        return can_shift(prepare(profile.targets[0], MONTH, profile.id))

    assert not shifts(np.full(3_000, 7.0))
    assert not shifts(np.array([None, "a"], object)[(np.arange(3_000) % 10 > 0).astype(int)])
    assert shifts(np.arange(3_000) % 2.0)
    assert shifts(np.array(["a", "b"], object)[np.arange(3_000) % 2])


def test_windows_without_time_are_as_short_as_they_may_be() -> None:
    profile, (counts,), start_ms = build_with_windows(
        "m", {"x": np.random.default_rng(1).normal(size=40_000)}, {"x": "feature"}, window=WindowRule()
    )
    assert start_ms is None
    past = Past.of(counts, start_ms, profile.windows)
    assert (past.weight_ms == max(profile.windows.every_ms, profile.windows.resolution_ms)).all()
    told = expected_delay(prepare(profile.targets[0], MONTH, profile.id), past, 0.5)
    assert 0 < told.events < 40 * profile.windows.size_min
