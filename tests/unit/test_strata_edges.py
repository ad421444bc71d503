"""Windows that reach into another hour: of no stratum in the reference, and live nothing is judged by them."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.column_values import read_column
from detectors.reference import ReferenceProfile, WindowRule
from detectors.reference_build import build_reference
from detectors.reference_windows import bins_of, count_windows, window_ends, window_starts, windows_in_time
from detectors.sequential.batch import Batch
from detectors.sequential.default import DetectionSettings, prepare, start, update
from detectors.sequential.strata import LENGTH_MAX_MS, WINDOWS_MIN, Season, choose, within_hour, within_hours
from detectors.verdict import Level
from stream.windows import Lengths, WindowList

DAY_MS, HOUR_MS, MINUTE_MS = 86_400_000, 3_600_000, 60_000
RULE = WindowRule(False, 10 * MINUTE_MS, 30, 120 * MINUTE_MS, 5 * MINUTE_MS)
BUDGET_MS = 30.0 * DAY_MS
A_DAY = 7_500  # about 52 events a window


def nightly(days: int, first_ms: int, seed: int, a_day: int = A_DAY) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Times of events, and two features of one law each: `sun` only between 6:00 and 22:00, `lamp` only outside of it."""
    g = np.random.default_rng(seed)
    time_ms = np.sort(g.integers(0, days * DAY_MS, days * a_day)) + first_ms
    day = (time_ms // HOUR_MS % 24 >= 6) & (time_ms // HOUR_MS % 24 < 22)
    sun, lamp = g.normal(size=(2, len(time_ms)))
    return time_ms, {"sun": np.where(day, sun, np.nan), "lamp": np.where(day, np.nan, lamp)}


def night_reference(first_ms: int, seed: int, season: Season = Season.AUTO) -> ReferenceProfile:
    time_ms, columns = nightly(8, first_ms, seed)
    roles = dict.fromkeys(columns, "feature")
    return build_reference("m", columns, roles, time_ms=time_ms, window=RULE, season=season)


def alarms(profile: ReferenceProfile, a_day: int, seed: int) -> tuple[int, int]:
    """(alarms, windows judged) of both features, of three days of the same law."""
    time_ms, columns = nightly(3, 40 * DAY_MS, 100 + seed, a_day)
    of_row, count = windows_in_time(time_ms, RULE, RULE.every_ms)
    starts = window_starts(time_ms, of_row, count) // RULE.resolution_ms * RULE.resolution_ms
    ends = window_ends(time_ms, of_row, count, RULE.every_ms, RULE.resolution_ms)
    fired = judged = 0
    for target in profile.targets:
        bins = bins_of(target.binning, read_column(target.name, columns[target.name], "feature", None))
        counts = count_windows(bins, target.binning.bins + 2, of_row, count)
        prepared = prepare(target, DetectionSettings(0.05, BUDGET_MS, cells=2), profile.id)
        state = start(prepared)
        weight_ms = np.diff(starts, prepend=starts[0]).tolist()
        for row, weight, first, end in zip(counts, weight_ms, starts.tolist(), ends.tolist(), strict=True):
            verdict = update(prepared, state, row, weight, first, end)
            fired += verdict.level is Level.ALARM
            judged += verdict.judged
    return fired, judged


def test_a_feature_that_is_missing_by_night_is_no_drift_whenever_windows_begin() -> None:
    """The reference's windows begin five minutes beside live ones. At the same rate, and with a tenth more traffic: scored by the share
    of the whole day, more of the same is news (5 alarms), and where hours hold windows of two laws the tube lets it pass (30).
    """
    seeds = (1, 2, 4, 5)
    same = [alarms(night_reference(8 * DAY_MS, seed), A_DAY, seed) for seed in seeds[:3]]
    more = [alarms(night_reference(8 * DAY_MS, seed), A_DAY * 11 // 10, seed) for seed in seeds]
    assert sum(fired for fired, _ in same) <= 1, same
    assert sum(fired for fired, _ in more) <= 1, more
    assert min(judged for _, judged in same + more) > 2 * 3 * 24 * 4, "five of six windows lie within an hour"


def test_what_reaches_into_another_hour_counts_its_time_and_nothing_else() -> None:
    profile = night_reference(8 * DAY_MS, 0)
    target = profile.targets[1]
    assert target.name == "sun"
    assert target.strata is not None
    prepared = prepare(target, DetectionSettings(0.05, BUDGET_MS), profile.id)
    counts = np.zeros(target.binning.bins + 2, np.int64)
    counts[0] = 50  # as far from the reference as can be
    at = 40 * DAY_MS + 12 * HOUR_MS
    edge, inside = (at - 5 * MINUTE_MS, at + 5 * MINUTE_MS), (at + 5 * MINUTE_MS, at + 15 * MINUTE_MS)
    one, other = start(prepared), start(prepared)
    first = update(prepared, one, counts, 6e5, *edge)
    assert (first.judged, first.events, first.level) == (False, 50, Level.OK)
    assert update(prepared, one, counts, 5e5, *inside).judged
    update(prepared, other, counts, 11e5, *inside)
    for name, array in other.arrays().items():
        np.testing.assert_array_equal(one.arrays()[name], array)
    states = [start(prepared)]
    many = Batch([prepared], states)
    assert not many.update(counts, 6e5, *edge)[0].judged
    assert many.update(counts, 5e5, *inside)[0].judged
    np.testing.assert_array_equal(states[0].real("evidence"), one.real("evidence"))


def test_hours_hold_only_windows_within_them() -> None:
    target = night_reference(8 * DAY_MS, 1).targets[1]
    assert target.strata is not None
    missing = target.strata.counts[:, -2] / target.strata.counts.sum(axis=1)
    assert set(missing.tolist()) == {0.0, 1.0}, "no hour is half dark"
    assert target.strata.windows.min() >= WINDOWS_MIN


@pytest.mark.parametrize(
    ("start_min", "end_min", "inside"), [(0, 60, True), (50, 60, True), (55, 65, False), (59, 120, False)]
)
def test_an_hour_ends_before_the_next(start_min: int, end_min: int, inside: bool) -> None:
    at = 7 * DAY_MS
    assert within_hour(at + start_min * MINUTE_MS, at + end_min * MINUTE_MS) is inside
    found = within_hours(np.array([at + start_min * MINUTE_MS]), np.array([at + end_min * MINUTE_MS]))
    assert found.tolist() == [inside]


def test_windows_longer_than_half_an_hour_have_no_strata() -> None:
    """Of windows of an hour that begin at five past, none would ever be judged."""
    starts = np.arange(40 * 48, dtype=np.int64) * (HOUR_MS // 2)
    swing = np.sin(2 * np.pi * starts / DAY_MS)[:, None]
    ties = np.random.default_rng(0).random(swing.shape)
    for wanted in (Season.AUTO, Season.HOUR_OF_DAY):
        assert choose(wanted, starts, swing, ties, LENGTH_MAX_MS).season is Season.HOUR_OF_DAY
        assert choose(wanted, starts, swing, ties, LENGTH_MAX_MS + 1).season is Season.NONE


def test_a_references_windows_end_as_live_ones_do() -> None:
    """Sparse traffic, so that many are carried over their length."""
    g = np.random.default_rng(3)
    time_ms = np.sort(g.integers(0, 3 * DAY_MS, 6_000))
    of_row, count = windows_in_time(time_ms, RULE, RULE.every_ms)
    ends = window_ends(time_ms, of_row, count, RULE.every_ms, RULE.resolution_ms)
    windows, lengths, live = WindowList(), Lengths.of(RULE, RULE.resolution_ms), []
    edge, events = np.unique(time_ms // RULE.resolution_ms * RULE.resolution_ms, return_counts=True)
    for at, n in zip(edge.tolist(), events.tolist(), strict=True):
        live += [window.end_ms for window in windows.due(at, lengths) if window.sufficient]
        windows.add(at, RULE.resolution_ms, n)
    assert len(set(np.diff(ends).tolist())) > 2
    assert ends.tolist()[: len(live)] == live
