"""Strata by the clock: what is chosen, how it is stored, and a detector that has the ranks and the tube of each hour."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))
import detector_kits as kit

from detectors.reference import (
    CorruptReference,
    NotWritableError,
    ReferenceProfile,
    WindowRule,
    from_sections,
    slim,
    to_sections,
    with_id,
)
from detectors.reference_build import build_reference, build_with_windows
from detectors.reference_versions import VERSION_HOURS
from detectors.sequential.default import (
    DetectionSettings,
    Prepared,
    describe,
    prepare,
    start,
    state_from_sections,
    state_to_sections,
    update,
)
from detectors.sequential.default_tables import NUMERIC_STATISTICS
from detectors.sequential.reference_ranks import common_ranks
from detectors.sequential.strata import HOURS, WINDOWS_MIN, Season, differs, hour_of, hours_of
from detectors.sequential.tube_boost import REACH
from detectors.verdict import Level
from stream.reference_records import decode_reference, encode_reference
from stream.row_file import RowFile, StoredRows
from stream.sizing import SEEN_BYTES, STRATUM_COUNT_BYTES

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
MONDAY_MS = 4 * DAY_MS  # 5 January 1970
SIZE, PER_HOUR = 50, 4
RULE = WindowRule(False, HOUR_MS // PER_HOUR, SIZE, 0, 60_000)
SETTINGS = DetectionSettings(0.05, 1e9)


def rows(days: int, law: str, seed: int = 0, first_day: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """200 events an hour from a Monday on: windows of 50, four an hour."""
    g = np.random.default_rng([seed, first_day])
    n = days * 24 * PER_HOUR * SIZE
    time_ms = MONDAY_MS + first_day * DAY_MS + np.arange(n) * (HOUR_MS // (PER_HOUR * SIZE))
    x, day = g.normal(size=n), time_ms // DAY_MS
    if law == "daily":
        x += 0.7 * np.sin(2 * np.pi * time_ms / DAY_MS)
    elif law == "daily spread":
        x *= 1.0 + 0.3 * np.sin(2 * np.pi * time_ms / DAY_MS)
    elif law == "weekend":
        x += 0.5 * ((day - 4) % 7 >= 5)
    elif law == "days":
        x += 0.3 * np.random.default_rng(seed).normal(size=10_000)[day]
    return time_ms, x


@cache
def reference(law: str, days: int = 36, season: Season = Season.AUTO, seed: int = 0) -> ReferenceProfile:
    time_ms, x = rows(days, law, seed)
    return build_reference("m", {"x": x}, {"x": "feature"}, time_ms=time_ms, window=RULE, season=season)


def live(prepared: Prepared, law: str, days: int, seed: int = 1, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Counts and starts of windows."""
    time_ms, x = rows(days, law, seed, 70)
    return kit.windows(prepared.target, x + shift, SIZE), time_ms[::SIZE]


def chosen(law: str, days: int = 36, season: Season = Season.AUTO) -> str | None:
    strata = reference(law, days, season).targets[0].strata
    return None if strata is None else strata.by


def test_hours_are_of_the_week_from_monday_on_in_utc() -> None:
    assert hour_of(Season.HOUR_OF_WEEK, MONDAY_MS) == 0
    assert hour_of(Season.HOUR_OF_WEEK, MONDAY_MS - 1) == 167
    assert hour_of(Season.HOUR_OF_DAY, MONDAY_MS + 25 * HOUR_MS + HOUR_MS - 1) == 1
    assert hour_of(Season.HOUR_OF_DAY, -1) == 23
    at = np.arange(-DAY_MS, 9 * DAY_MS, 7 * 60_000)
    for season in HOURS:
        assert hours_of(season, at).tolist() == [hour_of(season, int(t)) for t in at]


def test_strata_are_what_the_stream_needs_and_the_reference_can_carry() -> None:
    assert chosen("normal") is None
    assert chosen("daily") == "hour_of_day"
    assert chosen("daily spread") == "hour_of_day"  # no mean differs
    assert chosen("weekend", 66) == "hour_of_week"
    assert chosen("days", 66) is None  # days that differ at random are no week
    assert chosen("weekend", 46) is None  # 39 days: 17 windows an hour
    assert chosen("daily", 5) is None  # 16 windows an hour
    assert chosen("daily", 36, Season.NONE) is None
    assert chosen("normal", 36, Season.HOUR_OF_DAY) == "hour_of_day"  # as configured, needed or not


def test_a_statistic_that_only_spreads_differently_needs_strata() -> None:
    """As those of windows whose size follows the clock: their ranks are not exchangeable, though no mean differs."""
    g = np.random.default_rng(4)
    stratum = np.arange(2_400) % 24
    same, ties = g.normal(size=(2_400, 1)), g.random((2_400, 1))
    assert not differs(same, ties, stratum, None)
    assert differs(same * (1.0 + 0.5 * (stratum % 2))[:, None], ties, stratum, None)
    assert differs(same + 0.3 * (stratum % 2)[:, None], ties, stratum, None)
    assert not differs(
        same + 0.3 * (stratum % 2)[:, None], ties, stratum, stratum % 2
    )  # nothing beyond the coarser ones


@pytest.mark.parametrize("law", ["daily", "weekend"])
def test_hours_take_the_memory_that_check_config_counts(law: str) -> None:
    found = slim(reference(law, 66))
    strata = found.targets[0].strata
    assert strata is not None
    state = start(prepare(found.targets[0], SETTINGS, found.id))
    hours, ranks = strata.rank.shape
    assert state.seen_low.nbytes == hours * len(NUMERIC_STATISTICS) * (ranks + 1) * SEEN_BYTES
    counted = strata.counts.size * STRATUM_COUNT_BYTES
    assert counted // 2 <= strata.counts.nbytes <= counted


@pytest.mark.parametrize("law", ["daily", "weekend"])
def test_a_reference_with_hours_goes_through_its_records(law: str) -> None:
    """What the worker does with it: without the season as plain text no record can be written."""
    found = reference(law, 66)
    stored = decode_reference(encode_reference(found))
    assert stored.id == found.id
    there, back = found.targets[0].strata, stored.targets[0].strata
    assert there is not None
    assert back is not None
    assert type(there.by) is type(back.by) is str
    for name in ("windows", "counts", "rank", "order", "tie", "first"):
        np.testing.assert_array_equal(getattr(back, name), getattr(there, name))
    assert there.first.sum() == found.targets[0].first.sum()


def test_shares_are_scored_by_their_hour_and_of_an_older_reference_by_the_whole_day() -> None:
    found = reference("daily", 36)
    target = found.targets[0]
    assert target.strata is not None
    pooled = prepare(target, SETTINGS, found.id)
    assert pooled.strata is not None
    own = pooled.strata.tables(pooled, 3).share_p
    np.testing.assert_allclose(own, (target.strata.first[3, -2:] + pooled.share_p) / (target.strata.first[3].sum() + 1))
    assert to_sections(found)[0]["version"] == VERSION_HOURS
    before = replace(target, strata=replace(target.strata, first=np.zeros_like(target.strata.first)))
    header, sections = to_sections(with_id(replace(found, targets=(before,))))
    assert header["version"] < VERSION_HOURS
    assert "strata_first" not in sections
    for read in (from_sections(header, sections), slim(from_sections(header, sections))):
        old = prepare(read.targets[0], SETTINGS, read.id)
        assert old.strata is not None
        np.testing.assert_array_equal(old.strata.tables(old, 3).share_p, old.share_p)


def test_ranks_on_disk_judge_alike() -> None:
    found, file = reference("daily", 36), RowFile()
    counts, starts = live(prepare(found.targets[0], SETTINGS, found.id), "daily", 1)
    verdicts, tables = [], []
    for profile in (slim(found), slim(found, file.put)):
        prepared = prepare(profile.targets[0], SETTINGS, profile.id)
        state = start(prepared)
        verdicts.append([update(prepared, state, c, 1.0, int(ms)) for c, ms in zip(counts, starts, strict=True)])
        assert profile.targets[0].strata is not None
        tables.append(profile.targets[0].strata.order)
    assert verdicts[0] == verdicts[1]
    assert len({verdict.rank_log10 for verdict in verdicts[0]}) > len(verdicts[0]) // 2
    assert isinstance(tables[0], np.ndarray)
    assert isinstance(tables[1], StoredRows)


def test_windows_longer_than_an_hour_have_no_strata() -> None:
    time_ms, x = rows(100, "daily")
    rule = replace(RULE, every_ms=3 * HOUR_MS, min_events=3 * PER_HOUR * SIZE)
    found = build_reference("m", {"x": x}, {"x": "feature"}, time_ms=time_ms, window=rule, season=Season.HOUR_OF_DAY)
    assert found.targets[0].strata is None


def test_window_auto_sees_through_a_season() -> None:
    """Within strata windows of a daily season follow each other as if independent, without them they do not."""
    time_ms, x = rows(36, "daily")
    rule = WindowRule(True, 0, SIZE, 0, 60_000)
    with_strata, without = (
        build_reference("m", {"x": x}, {"x": "feature"}, time_ms=time_ms, window=rule, season=season)
        for season in (Season.AUTO, Season.NONE)
    )
    assert with_strata.windows.auto["holds"]
    assert with_strata.windows.every_ms < HOUR_MS
    assert without.windows.every_ms > HOUR_MS
    assert with_strata.targets[0].group == 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(WINDOWS_MIN, 5000), min_size=1, max_size=168))
def test_all_strata_have_as_many_ranks_and_both_records(windows: list[int]) -> None:
    count = np.array(windows)
    rank = common_ranks(count)
    assert (np.diff(rank, axis=1) >= 1).all()
    assert (rank[:, 0] == 1).all()
    assert (rank[:, -1] == count).all()
    first = np.argmin(count)  # the others' are at the same probabilities, but for the records
    same = (rank[first] / (count[first] + 1))[1:-1]
    np.testing.assert_allclose((rank / (count[:, None] + 1))[:, 1:-1], [same] * len(count), atol=0.025)


def test_order_statistics_are_of_the_hours_own_windows() -> None:
    time_ms, x = rows(36, "daily")
    found, (windows,), start_ms = build_with_windows("m", {"x": x}, {"x": "feature"}, time_ms=time_ms, window=RULE)
    strata = found.targets[0].strata
    assert strata is not None
    assert start_ms is not None
    hours = hours_of(Season.HOUR_OF_DAY, start_ms)
    hours[start_ms % HOUR_MS > HOUR_MS - RULE.every_ms] = -1  # they end in the next hour
    assert (hours == -1).mean() == pytest.approx(0.25, abs=0.001)
    for hour in (0, 7, 23):
        assert strata.windows[hour] == (hours == hour).sum()
        np.testing.assert_array_equal(strata.counts[hour], windows[hours == hour].sum(axis=0))
    # 06:00 is the crest of the sine, 18:00 its trough
    assert strata.order[6, 0, 0] > strata.order[18, 0, -1]
    assert strata.counts.sum() == windows[hours >= 0].sum()


def _without_windows(profile: ReferenceProfile) -> ReferenceProfile:
    """As it was stored before references kept their windows."""
    return replace(profile, targets=tuple(replace(target, kept=None) for target in profile.targets))


def test_a_profile_with_strata_is_stored_and_one_without_is_as_it_was() -> None:
    found = reference("daily")
    header, sections = to_sections(found)
    back = from_sections(header, sections)
    assert back.id == found.id
    for name in ("windows", "counts", "rank", "order", "tie"):
        np.testing.assert_array_equal(getattr(back.targets[0].strata, name), getattr(found.targets[0].strata, name))
    changed = sections | {"strata_order": sections["strata_order"] + 1.0}
    with pytest.raises(CorruptReference):
        from_sections(header, changed)
    with pytest.raises(NotWritableError):
        to_sections(slim(found))
    bare, _ = to_sections(_without_windows(found))
    plain, parts = to_sections(_without_windows(reference("normal")))
    assert bare["version"] == VERSION_HOURS  # a program that does not know strata refuses it by name
    assert plain["version"] == 1
    assert not [name for name in parts if name.startswith("strata")]
    assert "season" not in plain["targets"][0]


def test_each_window_moves_the_counts_of_its_own_stratum() -> None:
    found = reference("daily")
    prepared = prepare(found.targets[0], SETTINGS, found.id)
    state = start(prepared)
    counts, starts = live(prepared, "daily", 1)
    for i, (row, at) in enumerate(zip(counts, starts.tolist(), strict=True), 1):
        before = state.seen
        update(prepared, state, row, 1.0, at)
        moved = np.flatnonzero((state.seen != before).any(axis=(1, 2)))
        assert moved.tolist() == [(at // HOUR_MS) % 24]
        assert state.seen.sum() == i * len(prepared.statistics)


def test_within_one_hour_it_is_the_detector_of_that_hours_reference() -> None:
    """Bit for bit, but for the weights of the tube's bets, which are the same at every hour."""
    found = slim(reference("daily"))
    strata = found.targets[0].strata
    assert strata is not None
    strata = replace(
        strata, first=np.zeros_like(strata.first)
    )  # shares of the whole day, as that hour's reference has them
    target, hour = replace(found.targets[0], strata=strata), 6
    alone = replace(
        target, strata=None, rank=strata.rank[hour], order=strata.order[hour], tie=strata.tie[hour],
        windows=int(strata.windows[hour]), counts=strata.counts[hour].astype(np.int64),
        size_median=int(strata.counts[hour].sum() // strata.windows[hour]),
    )  # fmt: skip
    both = [prepare(each, SETTINGS, found.id) for each in (target, alone)]
    states = [start(prepared) for prepared in both]
    counts, starts = live(both[0], "daily", 30, shift=0.1)
    inside = hours_of(Season.HOUR_OF_DAY, starts) == hour
    crossed, compared, apart = 0, 0, False
    weighted = (both[0].tube[-1] > 0.0) & (both[1].tube[-1] > 0.0)  # a bet of weight 0 stands still
    assert weighted.mean() > 0.5
    for row, at in zip(counts[inside], starts[inside].tolist(), strict=True):
        one, other = (update(p, s, row, 900_000.0, at) for p, s in zip(both, states, strict=True))
        assert (one.rank_log10, one.shift, one.inside_tube) == (other.rank_log10, other.shift, other.inside_tube)
        crossed += one.rank_crossed
        near = one.threshold_log10 - math.log10(REACH)
        # near the threshold they are raised, and at it they reset themselves, by weighted sums
        apart = apart or max(one.tube_log10, other.tube_log10) > near - 0.1
        for name in ("evidence", "adaptive", "recent", "plug"):
            np.testing.assert_array_equal(states[0].real(name), states[1].real(name))
        if not apart:
            np.testing.assert_array_equal(states[0].real("tube")[weighted], states[1].real("tube")[weighted])
            compared += 1
    assert crossed > 0
    assert compared > 20
    np.testing.assert_array_equal(states[0].seen[hour], states[1].seen)


def test_a_stratum_without_enough_windows_counts_the_time_and_nothing_else() -> None:
    time_ms, x = rows(36, "daily")
    day = time_ms // DAY_MS
    kept = (hours_of(Season.HOUR_OF_DAY, time_ms) != 3) | (day % 9 == 0)  # 4 days of that hour: 16 windows
    found = build_reference("m", {"x": x[kept]}, {"x": "feature"}, time_ms=time_ms[kept], window=RULE)
    strata = found.targets[0].strata
    assert strata is not None
    assert 0 < strata.windows[3] < WINDOWS_MIN
    assert len(strata.rank) == 23
    prepared = prepare(found.targets[0], SETTINGS, found.id)
    one, other = start(prepared), start(prepared)
    counts, _ = live(prepared, "daily", 1)
    at = MONDAY_MS + 80 * DAY_MS
    verdict = update(prepared, one, counts[12], 900_000.0, at + 3 * HOUR_MS)
    assert not verdict.judged
    assert verdict.level is Level.OK
    assert verdict.events == SIZE
    assert one.pending_weight == 900_000.0
    assert not one.seen.any()
    assert not one.real("evidence").any()
    update(prepared, one, counts[16], 800_000.0, at + 4 * HOUR_MS)
    update(prepared, other, counts[16], 1_700_000.0, at + 4 * HOUR_MS)
    for name, array in other.arrays().items():
        np.testing.assert_array_equal(one.arrays()[name], array)


@pytest.mark.parametrize("season", [Season.AUTO, Season.NONE])
def test_at_every_hour_ranks_are_uniform_within_strata_and_only_there(season: Season) -> None:
    """E[L | past] = 1 rests on it. Mean rank, 0 to 1, of each statistic of the values in each quarter of the day, 60 days."""
    total, windows = np.zeros((4, 5)), np.zeros((4, 1))
    for seed in range(3):
        profile = reference("daily", 36, season, seed)
        prepared = prepare(profile.targets[0], SETTINGS, profile.id)
        state = start(prepared)
        counts, starts = live(prepared, "daily", 20, 100 + seed)
        for row, at in zip(counts, starts.tolist(), strict=True):
            before = state.seen
            update(prepared, state, row, 900_000.0, at)
            tables = prepared.tables
            moved = (state.seen - before)[..., :5, :]
            if prepared.strata is not None:
                tables = prepared.strata.tables(prepared, prepared.strata.row(at, None, 0))
                moved = moved.sum(axis=0)
            alpha = tables.rank[2]
            middle = (np.cumsum(alpha) - 0.5 * alpha) / alpha.sum()
            quarter = at // (6 * HOUR_MS) % 4
            total[quarter] += moved @ middle
            windows[quarter] += 1
    off = np.abs(total / windows - 0.5)  # standard error .013, the references' own among it
    if season is Season.NONE:
        assert off[:, 0].max() > 0.25, off
    else:
        assert off.max() < 0.055, off


def test_a_season_costs_no_alarm_and_a_shift_within_it_is_found() -> None:
    profile = reference("daily")
    alarms = {}
    for shift in (0.0, 0.5):
        prepared = prepare(profile.targets[0], DetectionSettings(0.05, 1e5 * 18_000), profile.id)
        state = start(prepared)
        counts, starts = live(prepared, "daily", 10, shift=shift)
        verdicts = [
            update(prepared, state, row, 900_000.0, at) for row, at in zip(counts, starts.tolist(), strict=True)
        ]
        alarms[shift] = [i for i, verdict in enumerate(verdicts) if verdict.level is Level.ALARM]
    assert alarms[0.0] == []
    assert alarms[0.5][0] < 10


def test_a_state_with_strata_goes_on_bit_for_bit() -> None:
    profile = slim(reference("daily"))
    prepared = prepare(profile.targets[0], SETTINGS, profile.id)
    whole, first = start(prepared), start(prepared)
    counts, starts = live(prepared, "daily", 4, shift=0.2)
    half = len(counts) // 2 + 1  # within an hour
    for state, many in ((whole, len(counts)), (first, half)):
        for row, at in zip(counts[:many], starts[:many].tolist(), strict=True):
            update(prepared, state, row, 900_000.0, at)
    header, sections = state_to_sections(prepared, first)
    assert sections["seen"].dtype == np.uint8
    second = state_from_sections(prepare(profile.targets[0], SETTINGS, profile.id), header, sections)
    for row, at in zip(counts[half:], starts[half:].tolist(), strict=True):
        update(prepared, second, row, 900_000.0, at)
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(second.arrays()[name], array)
    many = sections | {"seen": sections["seen"].astype(np.uint32) + 70_000}
    assert (
        state_from_sections(prepared, header, many).seen_low == many["seen"]
    ).mean() < 1  # only where the clock says so
    first.clock[0] = 70_000
    carried = state_from_sections(prepared, *state_to_sections(prepared, first))
    carried.seen = many["seen"]
    again = state_from_sections(prepared, *state_to_sections(prepared, carried))
    np.testing.assert_array_equal(again.seen, many["seen"])


def test_windows_are_described_against_their_own_hours() -> None:
    profile = reference("daily")
    prepared = prepare(profile.targets[0], SETTINGS, profile.id)
    counts, starts = live(prepared, "daily", 3)
    crest = hours_of(Season.HOUR_OF_DAY, starts) == 6
    parts = [(at, SIZE) for at in starts[crest].tolist()]
    together = counts[crest].sum(axis=0)
    assert describe(prepared, together).shift > 0.4  # the season, against the whole day
    told = describe(prepared, together, parts)
    assert abs(told.shift) < 0.15
    assert told.inside_tube
    day = describe(prepared, counts.sum(axis=0), [(at, SIZE) for at in starts.tolist()])
    assert abs(day.shift - describe(prepared, counts.sum(axis=0)).shift) < 0.02
