"""Many targets judged in one call: every verdict and every state is, bit for bit, that of the targets one by one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import detector_kits as kit

from detectors.reference import WindowRule, slim
from detectors.reference_build import build_reference
from detectors.sequential import batch as batches
from detectors.sequential import default_kernel as kernel
from detectors.sequential.batch import Batch, Room
from detectors.sequential.default import DetectionSettings, prepare, start, update
from detectors.sequential.strata import Season
from detectors.sequential.verdicts import Verdicts
from detectors.verdict import BadCounts, BadWeight, Level

HOUR_MS, SIZE = 3_600_000, 50
SETTINGS = DetectionSettings(0.05, 3e6)
ROOMY, NONE = 1 << 20, 0


def reference(season: Season = Season.NONE):
    """Numbers with atoms and without, categories, missing values; every quarter of an hour a window."""
    g = np.random.default_rng(7)
    n = 24 * 4 * SIZE * 40
    time_ms = np.arange(n) * (HOUR_MS // 4 // SIZE)
    swing = 0.6 * np.sin(2 * np.pi * time_ms / (24 * HOUR_MS))
    columns = {
        "normal": g.normal(size=n) + swing,
        "counts": g.poisson(3.0, n).astype(float),
        "holes": np.where(g.random(n) < 0.05, np.nan, g.exponential(size=n)),
        "words": np.array(list("abcdef"))[g.choice(6, n, p=[0.4, 0.3, 0.2, 0.05, 0.04, 0.01])].astype(object),
    }
    rule = WindowRule(False, HOUR_MS // 4, SIZE, 0, 60_000)
    roles = dict.fromkeys(columns, "feature")
    return slim(build_reference("m", columns, roles, time_ms=time_ms, window=rule, season=season))


def windows(profile, count: int, shift: float):
    """Counts of all targets, flat: of 20 (too few), 50, or 400 events (thinned), drifting from the middle on."""
    g = np.random.default_rng(8)
    found = []
    for index in range(count):
        n = (20, 50, 400, 50)[index % 4]
        x = g.normal(size=n) + (shift if index > count // 2 else 0.0)
        draws = {
            "normal": x,
            "counts": g.poisson(3.0, n).astype(float),
            "holes": np.where(g.random(n) < 0.05, np.nan, g.exponential(size=n)),
            "words": np.array(list("abcdefxy"))[g.choice(8, n)].astype(object),
        }
        parts = [kit.windows(target, draws[target.name], n)[0] for target in profile.targets]
        found.append(np.concatenate(parts))
    return found


def ready(profile, groups=None):
    targets = [replace(t, group=(groups or {}).get(t.name, 1)) for t in profile.targets]
    prepared = [prepare(target, SETTINGS, profile.id) for target in targets]
    return prepared, [start(each) for each in prepared]


@pytest.mark.parametrize("kept", [ROOMY, NONE])
@pytest.mark.parametrize(
    ("season", "groups"),
    [
        (Season.NONE, {}),
        (Season.NONE, {"counts": 3, "words": 2}),
        (Season.HOUR_OF_DAY, {}),
        (Season.HOUR_OF_DAY, {"normal": 2}),
    ],
)
def test_a_batch_is_its_targets_one_by_one(season: Season, groups: dict[str, int], kept: int) -> None:
    profile = reference(season)
    prepared, states = ready(profile, groups)
    _, alone = ready(profile, groups)
    batch = Batch(prepared, states, Room(kept))
    seen, thinned = set(), set()
    for index, counts in enumerate(windows(profile, 120, 1.5)):
        start_ms, before = index * 40 * 60_000, counts.copy()
        together = batch.update(counts, 2.4e6, start_ms)
        one_by_one = [
            update(each, state, counts[batch.start[t] : batch.start[t + 1]], 2.4e6, start_ms)
            for t, (each, state) in enumerate(zip(prepared, alone, strict=True))
        ]
        assert list(together) == one_by_one
        plain = Verdicts.of(one_by_one)
        assert together.levels == plain.levels
        assert together.rank_log10 == plain.rank_log10
        assert together.tube_log10 == plain.tube_log10
        np.testing.assert_array_equal(together.shift, plain.shift)
        np.testing.assert_array_equal(counts, before)
        seen |= {verdict.level for verdict in one_by_one}
        thinned |= {verdict.thinned for verdict in one_by_one}
        for state, other in zip(states, alone, strict=True):
            for name, array in state.arrays().items():
                np.testing.assert_array_equal(array, other.arrays()[name], err_msg=name)
    assert thinned == {True, False}
    assert {Level.ALARM, Level.OK} <= seen
    assert (Level.INSUFFICIENT_DATA in seen) or len(groups) == len(prepared)


def test_targets_that_share_the_bets_on_their_shares_are_as_when_alone() -> None:
    g, names = np.random.default_rng(3), [f"n{place}" for place in range(batches.DECODED_FOR)]
    n = SIZE * 200
    columns = {name: g.normal(size=n) for name in names} | {
        "holes": np.where(g.random(n) < 0.1, np.nan, g.normal(size=n))
    }
    rule = WindowRule(False, HOUR_MS // 4, SIZE, 0, 60_000)
    time_ms, roles = np.arange(n) * (HOUR_MS // 4 // SIZE), dict.fromkeys(columns, "feature")
    profile = slim(build_reference("m", columns, roles, time_ms=time_ms, window=rule))
    prepared, states = ready(profile)
    _, alone = ready(profile)
    batch = Batch(prepared, states)
    known = batch._place[:, batches.at.KNOWN] != 0
    assert known.sum() == len(names)
    for index in range(20):
        x = g.normal(size=SIZE) + (2.0 if index > 10 else 0.0)
        x[:index] = np.nan
        counts = np.concatenate([kit.windows(target, x, SIZE)[0] for target in profile.targets])
        together = batch.update(counts, 1e6, index)
        parts = [counts[batch.start[t] : batch.start[t + 1]] for t in range(len(prepared))]
        assert list(together) == [update(*each, 1e6, index) for each in zip(prepared, alone, parts, strict=True)]
    for state, other in zip(states, alone, strict=True):
        for name, array in state.arrays().items():
            np.testing.assert_array_equal(array, other.arrays()[name], err_msg=name)


def test_counts_of_live_ranks_pass_16_bits_together_as_alone() -> None:
    profile = reference()
    prepared, states = ready(profile)
    _, alone = ready(profile)
    for state in (*states, *alone):
        state.seen_low[:] = kernel.SEEN_CARRY - 3
        state.clock[kernel.INDEX] = kernel.SEEN_CARRY - 3
    batch = Batch(prepared, states)
    for index, counts in enumerate(windows(profile, 24, 0.0)):
        batch.update(counts, 1.0, index)
        for t, (each, state) in enumerate(zip(prepared, alone, strict=True)):
            update(each, state, counts[batch.start[t] : batch.start[t + 1]], 1.0, index)
    for state, other in zip(states, alone, strict=True):
        assert len(state.seen_high)
        assert state.seen_high.sum() > 0
        np.testing.assert_array_equal(state.seen, other.seen)


def test_a_batch_refuses_as_a_whole() -> None:
    profile = reference()
    prepared, states = ready(profile)
    batch = Batch(prepared, states)
    good = windows(profile, 2, 0.0)[1]
    bad = good.copy()
    bad[-1] = -1
    for counts in (bad, good[1:], good.astype(np.int32)):
        with pytest.raises(BadCounts):
            batch.update(counts, 1.0, 0)
    for weight_ms in (-1.0, np.nan):
        with pytest.raises(BadWeight):
            batch.update(good, weight_ms, 0)
    for each, state in zip(prepared, states, strict=True):
        for name, array in state.arrays().items():
            np.testing.assert_array_equal(array, start(each).arrays()[name])


def test_room_is_asked_for_and_given_back() -> None:
    profile, room = reference(), Room(60_000)
    first = Batch(*ready(profile), room)
    counts = windows(profile, 2, 0.0)[1]
    first.update(counts, 1.0, 0)
    assert first._work is not None
    others = [Batch(*ready(profile), room) for _ in range(5)]
    assert not room.there_is
    first.update(counts, 1.0, 1)
    assert first._work is None
    del others
    assert room.there_is
    first.update(counts, 1.0, 2)
    assert first._work is not None
    assert batches.KEPT_BYTES_MAX < 20e6
