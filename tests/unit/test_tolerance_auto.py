"""Block effects: known ones are recovered, sampling noise is none, too few blocks say nothing; and what they do to the tube."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
import detector_kits as kit

from detectors.normal import cdf
from detectors.reference import BlockEffects, ReferenceProfile, WindowRule, from_sections, to_sections, with_id
from detectors.reference_build import build_reference
from detectors.sequential.default_tables import DetectionSettings, prepare
from detectors.sequential.strata import Season
from detectors.sequential.tolerance_auto import (
    BLOCKS_MIN,
    DAY_MS,
    HOUR_MS,
    block_effects,
    chi_squared_limit,
    tolerances,
)

A_DAY = 4_800
HOURLY = WindowRule(auto=False, every_ms=HOUR_MS, min_events=1, resolution_ms=60_000)
F64 = NDArray[np.float64]


def built(
    values: NDArray[Any], rule: WindowRule = HOURLY, *, start_ms: int = 0, timed: bool = True
) -> ReferenceProfile:
    """Of rows that come evenly, A_DAY a day."""
    time_ms = start_ms + np.arange(len(values), dtype=np.int64) * (DAY_MS // A_DAY)
    return build_reference("m", {"x": values}, {"x": "feature"}, time_ms=time_ms if timed else None, window=rule)


def effects_of(values: NDArray[Any], rule: WindowRule = HOURLY, *, start_ms: int = 0) -> BlockEffects | None:
    return built(values, rule, start_ms=start_ms).targets[0].effects


def days(g: np.random.Generator, count: int = 60) -> tuple[F64, F64]:
    """(standard normal effect of each row's day, noise of each row)."""
    return np.repeat(g.normal(size=count), A_DAY), g.normal(size=count * A_DAY)


def close_to(size: float, effects: BlockEffects | None) -> None:
    """51 days know a standard deviation to a tenth; the largest of some thirty cuts lies a little above it."""
    assert effects is not None
    assert 0.8 * size < effects.values < 1.4 * size
    assert effects.length_ms == DAY_MS
    assert effects.blocks in (51, 52)
    assert effects.absent == 0.0


@pytest.mark.parametrize("size", [0.05, 0.1, 0.2, 0.6])
def test_shifts_of_days_are_recovered(size: float) -> None:
    day, noise = days(np.random.default_rng(1))
    close_to(size, effects_of(noise + size * day))
    close_to(size, effects_of(noise + size * day, WindowRule()))
    # in probit units, so whatever the values' own law is
    close_to(size / (1 + size**2) ** 0.5, effects_of(np.exp(noise + size * day)))


def test_a_trend_is_no_effect_of_blocks_and_widens_nothing() -> None:
    """Half a standard deviation over the reference: as day effects it would be one of .14, and a tube that holds its going on."""
    day, noise = days(np.random.default_rng(11))
    trend = np.linspace(0.0, 0.5, len(noise))
    alone = effects_of(noise + trend)
    assert alone is not None, "its windows do not follow each other as if independent"
    assert alone.values < 0.03
    close_to(0.1, effects_of(noise + trend + 0.1 * day))
    steps = np.repeat(np.sin(np.arange(60) * 2 * np.pi / 15), A_DAY)
    back = effects_of(noise + 0.2 * steps)
    assert back is not None
    assert back.values > 0.12, "what comes and goes stays an effect"


def test_days_that_begin_at_another_hour_are_recovered() -> None:
    day, noise = days(np.random.default_rng(2))
    found = effects_of(noise + 0.2 * day, start_ms=12 * HOUR_MS)
    assert found is not None
    assert 0.16 < found.values < 0.26
    assert found.length_ms == DAY_MS // 2, "a whole clock day holds two halves, whose effects average out"
    assert found.blocks <= 52, "of which no more are independent than there are days"


def test_effects_on_the_scale_alone_count_at_the_cuts_that_they_move() -> None:
    day, noise = days(np.random.default_rng(3))
    found = effects_of(noise * np.exp(0.1 * day))
    assert found is not None
    assert 0.1 < found.values < 0.3  # .1 x 1.64 at the cut of 5 %


def test_categories_and_missing_values_have_effects_of_their_own() -> None:
    g = np.random.default_rng(4)
    day, _ = days(g)
    common = np.where(g.random(len(day)) < [cdf(-0.5 + 0.2 * e) for e in day], "a", "b")
    found = effects_of(common.astype(object))
    assert found is not None
    assert 0.15 < found.values < 0.27
    assert found.absent == found.values
    gaps = np.where(g.random(len(day)) < [cdf(-1.6 + 0.3 * e) for e in day], np.nan, g.normal(size=len(day)))
    found = effects_of(gaps)
    assert found is not None
    assert found.values == 0.0
    assert 0.24 < found.absent < 0.4


def test_without_effects_there_is_nothing_to_hold() -> None:
    g = np.random.default_rng(5)
    seen = 0
    for _ in range(20):
        profile = built(g.normal(size=60 * A_DAY))
        assert profile.targets[0].effects is None, "its windows follow each other as if independent"
        # and where somebody asks all the same, sampling noise is told from effects
        windows = np.stack([g.multinomial(200, [0.2, 0.3, 0.5, 0.0, 0.0]) for _ in range(60 * 24)]).astype(np.int64)
        binning = kit.profile("normal", 20_000).targets[0].binning
        padded = np.zeros((len(windows), binning.bins + 2), np.int64)
        padded[:, binning.core[0] + 3 : binning.core[0] + 6] = windows[:, :3]
        found = block_effects(binning, padded, np.arange(60 * 24, dtype=np.int64) * HOUR_MS, HOUR_MS)
        assert found is not None
        seen += found.values > 0.0
    assert seen <= 3  # 5 % each


def test_short_memory_is_left_to_longer_windows() -> None:
    g = np.random.default_rng(6)
    assert effects_of(kit.autoregressive(g, 60 * A_DAY, 0.9), WindowRule()) is None


def test_a_season_that_strata_hold_is_no_effect_of_blocks() -> None:
    half_hourly = WindowRule(auto=False, every_ms=HOUR_MS // 2, min_events=1, resolution_ms=60_000)
    day, noise = days(np.random.default_rng(10))
    season = 0.5 * np.sin(2 * np.pi * np.arange(len(noise)) / A_DAY)
    time_ms = np.arange(len(noise), dtype=np.int64) * (DAY_MS // A_DAY)
    columns = {"season": noise + season, "both": noise + season + 0.1 * day}

    def effects(season: Season) -> dict[str, BlockEffects | None]:
        found = build_reference(
            "m", columns, dict.fromkeys(columns, "feature"), time_ms=time_ms, window=half_hourly, season=season
        )
        return {target.name: target.effects for target in found.targets}

    by_hours = effects(Season.AUTO)
    assert by_hours["season"] is None
    close_to(0.1, by_hours["both"])
    unknown = effects(Season.NONE)["season"]
    assert unknown is not None
    assert unknown.values > 0.3, "without strata it is what blocks of some hours do"
    assert unknown.length_ms < DAY_MS


def test_too_few_blocks_say_nothing_and_short_references_have_short_blocks() -> None:
    g = np.random.default_rng(7)
    hours = 36
    short = g.normal(size=hours * 200) + 0.3 * np.repeat(g.normal(size=hours), 200)
    assert effects_of(short) is None, "30 hours in windows of one: not 20 blocks of two"
    found = effects_of(short, WindowRule(auto=False, every_ms=HOUR_MS // 4, min_events=1, resolution_ms=60_000))
    assert found is not None
    assert found.length_ms == HOUR_MS
    assert found.blocks >= BLOCKS_MIN
    assert 0.2 < found.values < 0.45
    day, noise = days(g)
    assert built(noise + 0.3 * day, timed=False).targets[0].effects is None, "without time there are no days"


def test_the_same_rows_give_the_same_effects_and_only_those_change_an_id() -> None:
    day, noise = days(np.random.default_rng(8))
    first, again = built(noise + 0.1 * day), built(noise + 0.1 * day)
    assert first.targets[0].effects == again.targets[0].effects is not None
    assert first.id == again.id
    header, sections = to_sections(first)
    assert from_sections(header, sections).targets[0].effects == first.targets[0].effects
    without = with_id(replace(first, targets=(replace(first.targets[0], effects=None),)))
    assert without.id != first.id
    assert "effects" not in to_sections(without)[0]["targets"][0], (
        "stored before there were any: the same bytes, the same id"
    )


# ---- limits -------------------------------------------------------------------------------------------------------------


def test_quantiles_agree_with_tables() -> None:
    # scipy.stats.chi2.isf
    for chance, freedom, exact in [(0.05, 50, 67.5048), (0.001, 50, 86.6608), (0.05, 19, 30.1435), (0.001, 203, 270.0)]:
        assert chi_squared_limit(chance, freedom) == pytest.approx(exact, rel=1e-2)


@pytest.mark.parametrize(("size", "blocks", "cells"), [(0.2, 25, 1), (0.2, 25, 20), (0.1, 600, 1), (0.4, 25, 20)])
def test_the_tube_leaves_half_of_the_alarms_that_the_budget_has(size: float, blocks: int, cells: int) -> None:
    effects = BlockEffects(DAY_MS, A_DAY, 96, 51, values=size, absent=0.0)
    tube = tolerances(0.01, effects, blocks * DAY_MS, cells, most=3.0).values
    assert tube > 2.0 * size
    g = np.random.default_rng(1)
    beyond = np.abs(g.standard_t(50, size=4_000_000)) * size * (1 + 1 / 51) ** 0.5 - tube
    x = beyond[beyond > 0.0] * A_DAY**0.5
    grown, crossing = x * x / 2 + 1.645 * x, np.log(blocks * cells)
    alarms = np.minimum(grown[grown >= crossing] / crossing, 96).sum() / 4_000_000
    assert alarms == pytest.approx(0.5 / (blocks * cells), rel=0.12)


def test_the_tube_is_widened_by_what_the_budget_leaves_and_never_narrowed() -> None:
    day = BlockEffects(DAY_MS, A_DAY, 96, 51, values=0.1, absent=0.0)

    def taken(least: float, effects: BlockEffects | None, days: float, cells: int = 1) -> tuple[float, float]:
        return tuple(tolerances(least, effects, days * DAY_MS, cells, most=3.0))  # type: ignore[return-value]

    assert taken(0.05, None, 30) == (0.05, 0.05)
    assert taken(0.05, replace(day, values=0.0), 30) == (0.05, 0.05)
    assert taken(0.05, replace(day, events=400), 1) == (0.2, 0.05)  # 2 s in any case
    assert taken(0.5, day, 20) == (0.5, 0.5)
    month, cells, budget = taken(0.05, day, 30)[0], taken(0.05, day, 30, 200)[0], taken(0.05, day, 6250, 200)[0]
    assert 0.2 < month < cells < budget < 0.6
    assert taken(0.05, day, 30 * 200)[0] == cells
    assert taken(0.05, replace(day, blocks=20), 30, 200)[0] > cells, "fewer blocks know the size less well"
    busy = taken(0.05, replace(day, events=10**6), 30, 200)[0]
    assert busy > cells, "a busier day needs to lie less far outside, and alarms more often"
    assert taken(0.05, replace(day, events=10**6, windows=10_000), 30, 200)[0] > busy
    assert taken(0.05, replace(day, values=2.0), 6250, 200) == (3.0, 0.05)


def test_auto_widens_the_tube_that_judges() -> None:
    day, noise = days(np.random.default_rng(9))
    day[: A_DAY // 2] = 0.0
    values = noise + 0.2 * day
    values[np.random.default_rng(1).random(len(values)) < 0.05] = np.nan
    profile = built(values, WindowRule())
    target = profile.targets[0]
    fixed = prepare(target, DetectionSettings(0.03, 20 * DAY_MS), profile.id)
    wide = prepare(target, DetectionSettings(0.03, 20 * DAY_MS, auto=True), profile.id)
    assert (fixed.tolerances.values, fixed.tolerances.absent) == (0.03, 0.03)
    assert target.effects is not None
    assert 2 * target.effects.values < wide.tolerances.values < 3.5 * target.effects.values
    assert wide.tolerances.absent == 0.03, "missing values have no effects of their own, so they stay as sharp"
    assert wide.tube[1] == wide.tolerances.values
    assert (wide.tube[6] == fixed.tube[6]).all()
