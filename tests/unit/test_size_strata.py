"""Strata by the number of events: when there are any, what a detector has of them, and what they are for."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from typer.testing import CliRunner

from detectors.exchangeability import check_target
from detectors.reference import ReferenceProfile, WindowRule, from_sections, slim, to_sections
from detectors.reference_build import WindowCounts, build_with_windows, choose_binnings, profile_from_windows
from detectors.reference_strata import Strata
from detectors.reference_versions import VERSION_SIZES
from detectors.sequential.default import (
    DetectionSettings,
    describe,
    prepare,
    start,
    state_from_sections,
    state_to_sections,
    update,
)
from detectors.sequential.expected_delay import Delay, Past, expected_delay
from detectors.sequential.size_strata import SHARE_MIN, WINDOW_SIZE, next_size, size_bounds, size_strata, size_stratum
from detectors.sequential.strata import WINDOWS_MIN, Season, hour_counts
from load_tests.detection.contenders import judge, live_judged
from load_tests.detection.streams import EVENT_MS, Rows, arrivals, bernoulli, lognormal
from stream.cli import app
from stream.preflight import preflight
from stream.reference_records import decode_reference, encode_reference

MINUTE_MS = 60_000
REFERENCE, LIVE, BUDGET = 100_000, 400_000, 10_000
RULE = WindowRule(False, 10 * MINUTE_MS, 10, 0, MINUTE_MS)


def swinging(smallest: float, largest: float, windows: int = 4_000, period: int = 300) -> np.ndarray:
    """Sizes that go up and down, with the chance of a Poisson number."""
    middle = 0.5 * np.log(largest / smallest) * np.sin(np.arange(windows) / period * 2 * np.pi)
    return np.random.default_rng(3).poisson(np.sqrt(smallest * largest) * np.exp(middle)) + 1


@cache
def swinging_rows() -> Rows:
    """Traffic that swings tenfold in 37 hours, rows of 2 %."""
    g = np.random.default_rng(11)
    time_ms = arrivals(g, REFERENCE + LIVE, 10.0, 37)
    return Rows(time_ms, bernoulli(g, time_ms))


@cache
def built(season: Season = Season.AUTO) -> tuple[ReferenceProfile, tuple[np.ndarray, ...], np.ndarray | None]:
    rows = swinging_rows().cut(0, REFERENCE)
    return build_with_windows(
        "m", {"x": rows.value}, {"x": "feature"}, time_ms=rows.time_ms, window=RULE, season=season
    )


def strata_of(profile: ReferenceProfile) -> Strata:
    found = profile.targets[0].strata
    assert found is not None
    return found


def test_sizes_that_differ_by_chance_or_hardly_have_no_strata() -> None:
    g = np.random.default_rng(1)
    for sizes in (np.full(4_000, 50), g.poisson(10, 4_000) + 1, g.permutation(swinging(10, 100))):
        assert not len(size_bounds(sizes))
    assert len(size_bounds(swinging(10, 100))) >= 6
    assert not len(size_bounds(swinging(1_000, 2_500)))  # as good as normal, all of them
    assert not len(size_bounds(swinging(50, 55)))
    assert not len(size_bounds(swinging(10, 100)[: 2 * WINDOWS_MIN - 1]))
    assert not len(size_bounds(np.empty(0, np.int64)))


@settings(max_examples=200)
@given(st.lists(st.integers(1, 10**6), min_size=40, max_size=400))
def test_every_stratum_has_enough_windows_of_its_own(sizes: list[int]) -> None:
    ordered = np.sort(np.array(sizes))
    bounds = size_bounds(ordered)  # ascending: as much of a run as there can be
    stratum = size_strata(bounds, ordered)
    assert stratum.tolist() == [size_stratum(bounds.tolist(), size) for size in ordered.tolist()]
    assert np.all(np.diff(bounds) > 0)
    if len(bounds):
        count = np.bincount(stratum, minlength=len(bounds) + 1)
        assert count.min() >= max(WINDOWS_MIN, SHARE_MIN * len(ordered))
        least = [int(ordered[stratum == each].min()) for each in range(len(bounds) + 1)]
        assert least[1:] == bounds.tolist()
        assert all(after >= next_size(before) for before, after in pairwise(least))


def test_ranks_are_of_the_strata_and_the_tube_is_of_all() -> None:
    profile, (windows,), _ = built()
    strata, target = strata_of(profile), profile.targets[0]
    sizes = windows.sum(axis=1)
    stratum = size_strata(strata.bounds, sizes)
    assert strata.by == WINDOW_SIZE
    assert strata.bounds.tolist() == size_bounds(sizes).tolist()
    assert strata.windows.tolist() == np.bincount(stratum).tolist()
    for row, counts in enumerate(strata.counts):
        assert counts.tolist() == windows[stratum == row].sum(axis=0).tolist()
        assert strata.rank[row, -1] == strata.windows[row]
    assert not strata.first.any()
    assert hour_counts(strata, 0) is None
    prepared = prepare(target, DetectionSettings(0.05, 1e9), profile.id)
    assert prepared.strata is not None
    tables = [prepared.strata.tables(prepared, row) for row in range(len(strata.windows))]
    assert tables[0] is prepared.tables
    assert all(each.tube is prepared.tube and each.score_mean is prepared.tables.score_mean for each in tables)
    assert len({each.rank[0].tobytes() for each in tables}) == len(tables)
    assert prepared.strata.tables(prepared, 1) is tables[1]  # all are kept: the next window may be of another
    assert describe(prepared, windows[0], [(0, int(sizes[0]))]) == describe(prepared, windows[0])


def test_a_window_below_the_smallest_waits_and_one_above_the_largest_is_of_the_last_stratum() -> None:
    profile, (windows,), _ = built()
    target, strata = profile.targets[0], strata_of(profile)
    prepared = prepare(target, DetectionSettings(0.05, 1e9), profile.id)
    state, whole = start(prepared), windows.sum(axis=0)
    update(prepared, state, whole, 1.0, 0)
    assert state.seen_low[-1].sum() == len(prepared.statistics)
    assert not state.seen_low[:-1].any()
    few = np.zeros_like(whole)
    few[0] = target.size_min - 1
    assert not update(prepared, state, few, 1.0, 1).judged
    for row, least in enumerate([target.size_min, *strata.bounds.tolist()]):
        few[0] = least
        assert update(prepared, state, few, 1.0, 2 + row).judged
        assert state.seen_low[row].sum() == len(prepared.statistics) * (1 + (row == len(strata.bounds)))


def test_a_reference_with_sizes_is_stored_and_older_programs_refuse_it_by_name() -> None:
    profile = built()[0]
    header, sections = to_sections(profile)
    assert header["version"] == VERSION_SIZES
    back = strata_of(from_sections(header, sections))
    stored = decode_reference(encode_reference(profile))
    assert stored.id == profile.id
    for name in ("windows", "counts", "rank", "order", "tie", "first", "bounds"):
        np.testing.assert_array_equal(getattr(back, name), getattr(strata_of(profile), name))
    assert back.by == strata_of(stored).by == WINDOW_SIZE


def test_a_state_with_sizes_goes_on_bit_for_bit() -> None:
    profile, (windows,), starts = built()
    assert starts is not None
    small = slim(profile)
    prepared = prepare(small.targets[0], DetectionSettings(0.05, 1e9), small.id)
    whole, first = start(prepared), start(prepared)
    for state, many in ((whole, 400), (first, 201)):
        for counts, at in zip(windows[:many], starts[:many].tolist(), strict=True):
            update(prepared, state, counts, 6e5, at)
    second = state_from_sections(
        prepare(small.targets[0], DetectionSettings(0.05, 1e9), small.id), *state_to_sections(prepared, first)
    )
    for counts, at in zip(windows[201:400], starts[201:400].tolist(), strict=True):
        update(prepared, second, counts, 6e5, at)
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(second.arrays()[name], array)


@pytest.mark.parametrize("law", [bernoulli, lognormal])
def test_ranks_among_all_sizes_cross_far_too_often_and_within_strata_they_do_not(law) -> None:
    """Forty crossings are promised at most, in expectation."""
    g = np.random.default_rng(5)
    time_ms = arrivals(g, REFERENCE + LIVE, 10.0, 37)
    rows = Rows(time_ms, law(g, time_ms))
    own = rows.cut(0, REFERENCE)
    profile, _, _ = build_with_windows("m", {"x": own.value}, {"x": "feature"}, time_ms=own.time_ms, window=RULE)
    without = replace(profile, targets=(replace(profile.targets[0], strata=None),))
    told = DetectionSettings(0.03, BUDGET * EVENT_MS)
    live = rows.cut(REFERENCE, REFERENCE + LIVE)
    found = [len(judge(each, live_judged(each, live), told).rank_crossings) for each in (profile, without)]
    assert found[0] <= 1.5 * LIVE / BUDGET
    assert found[1] >= 3.0 * LIVE / BUDGET


def test_where_traffic_follows_the_clock_hours_come_first() -> None:
    g = np.random.default_rng(6)
    time_ms = arrivals(g, 288_000, 10.0)
    columns, roles = {"x": lognormal(g, time_ms)}, {"x": "feature"}
    for season, by in ((Season.AUTO, "hour_of_day"), (Season.NONE, WINDOW_SIZE)):
        profile, _, _ = build_with_windows("m", columns, roles, time_ms=time_ms, window=RULE, season=season)
        assert strata_of(profile).by == by


def test_a_learnt_reference_has_sizes_too() -> None:
    g = np.random.default_rng(7)
    sizes = swinging(10, 100, 1_000)
    learning = choose_binnings("m", {"x": g.normal(size=5_000)}, {"x": "feature"})
    width = learning.targets[0].binning.bins + 2
    share = learning.targets[0].first / learning.targets[0].first.sum()
    made = [
        WindowCounts(i * 600_000, n, (g.multinomial(n, share).astype(np.int64),), np.zeros((1, 2)), np.zeros((1, 2)))
        for i, n in enumerate(sizes.tolist())
    ]
    profile = profile_from_windows(learning, made, window=RULE)
    assert strata_of(profile).bounds.tolist() == size_bounds(sizes).tolist()
    assert strata_of(profile).counts.shape[1] == width
    assert profile.id == learning.id


def test_exchangeability_is_judged_within_strata() -> None:
    """Windows of a rate of 2 % vary with their size, not with time."""
    profile, windows, starts = built()
    check = check_target(profile.targets[0], windows[0], profile.windows, starts)
    assert check.exchangeable.value == "yes"


def test_a_shift_that_the_tolerance_holds_is_not_simulated_and_a_larger_one_is_found() -> None:
    profile, (windows,), starts = built()
    prepared = prepare(profile.targets[0], DetectionSettings(0.3, 1e9), profile.id)
    past = Past.of(windows, starts, profile.windows)
    assert expected_delay(prepared, past, 0.2) == Delay(math.inf)
    found = expected_delay(prepared, past, 1.0)
    assert 0 < found.events < math.inf


def test_commands_say_sizes_and_count_their_memory(tmp_path: Path) -> None:
    rows = swinging_rows().cut(0, REFERENCE)
    table = {"timestamp": rows.time_ms.astype("datetime64[ms]"), "x": rows.value, "y": rows.value}
    parquet.write_table(pa.table(table), tmp_path / "rows.parquet")
    (tmp_path / "monitor.yaml").write_text(
        'kafka: {bootstrap_servers: "127.0.0.1:1"}\ntopics: {predictions: predictions}\nresolution: 1m\n'
        "defaults: {window: {every: 10m, min_events: 10}, season: none}\nmodels: {m: {reference: {file: rows.parquet}}}\n"
    )
    arguments = ["check-reference", "-c", str(tmp_path / "monitor.yaml")]
    told = CliRunner().invoke(app, arguments).stdout
    bounds = strata_of(built(Season.NONE)[0]).bounds.tolist()
    assert (
        "season none, as configured: windows of all hours are ranked together; windows of x, y are ranked among" in told
    )
    assert f"in {len(bounds) + 1} strata that begin at 10, {', '.join(map(str, bounds))})" in told
    (report,) = json.loads(CliRunner().invoke(app, [*arguments, "--output", "json"]).stdout)
    assert [target["size_bounds"] for target in report["targets"]] == [bounds, bounds]
    assert [target["season"] for target in report["targets"]] == ["none", "none"]
    estimate = preflight(tmp_path / "monitor.yaml", partitions=2, events_per_s=100).estimate
    assert estimate is not None
    assert estimate.strata_bytes >= 2 * (len(bounds) + 1) * 4_500
    assert estimate.auto_strata_bytes == 0
