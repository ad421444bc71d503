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
from detectors.sequential import batch_kernel as at
from detectors.sequential import default_kernel as kernel
from detectors.sequential.batch import Batch, Room
from detectors.sequential.default import DetectionSettings, prepare, start, update
from detectors.sequential.strata import Season
from detectors.sequential.verdicts import Verdicts
from detectors.verdict import BadCounts, BadWeight, Level

HOUR_MS, SIZE = 3_600_000, 50
SETTINGS = DetectionSettings(0.05, 3e6)
ROOMY, NONE = 1 << 20, 0


def reference(season: Season = Season.NONE, *, swings: bool = False):
    """Numbers with atoms and without, categories, missing values; every quarter of an hour a window. `swings`: of 20 to 80 events."""
    g = np.random.default_rng(7)
    sizes = SIZE + (30 * np.sin(np.arange(24 * 4 * 40) / 25)).astype(int) * swings
    time_ms = np.concatenate(
        [i * HOUR_MS // 4 + np.arange(n) * (HOUR_MS // 4) // n for i, n in enumerate(sizes.tolist())]
    )
    n = len(time_ms)
    swing = 0.6 * np.sin(2 * np.pi * time_ms / (24 * HOUR_MS))
    columns = {
        "normal": g.normal(size=n) + swing,
        "counts": g.poisson(3.0, n).astype(float),
        "holes": np.where(g.random(n) < 0.05, np.nan, g.exponential(size=n)),
        "words": np.array(list("abcdef"))[g.choice(6, n, p=[0.4, 0.3, 0.2, 0.05, 0.04, 0.01])].astype(object),
    }
    rule = WindowRule(False, HOUR_MS // 4, 20 if swings else SIZE, 0, 60_000)
    roles = dict.fromkeys(columns, "feature")
    return slim(build_reference("m", columns, roles, time_ms=time_ms, window=rule, season=season))


def windows(profile, count: int, shift: float, sizes: tuple[int, ...] = (20, 50, 400, 50)):
    """Counts of all targets, flat: of 20 (too few), 50, or 400 events (thinned), drifting from the middle on."""
    g = np.random.default_rng(8)
    found = []
    for index in range(count):
        n = sizes[index % len(sizes)]
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


def test_counts_that_have_passed_16_bits_cost_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, not with each window from the 65,535th on."""
    profile = reference()
    prepared, states = ready(profile)
    late = len(states) - 1
    for t, state in enumerate(states):
        state.clock[kernel.INDEX] = kernel.SEEN_CARRY - (10 if t < late else 15)
    batch, filled = Batch(prepared, states, Room(ROOMY)), []
    inner = batch._fill
    monkeypatch.setattr(batch, "_fill", lambda t: (filled.append((index, t)), inner(t)))
    for index, counts in enumerate(windows(profile, 30, 0.0, (50,))):
        batch.update(counts, 9e5, index * 900_000)
    assert filled == [(9, t) for t in range(late)] + [(14, late)]
    assert all(len(state.seen_high) for state in states)


class Crowd:
    """Others that want room."""


@pytest.mark.parametrize("kept", [ROOMY, NONE])
@pytest.mark.parametrize("groups", [{}, {"counts": 3, "words": 2}])
def test_a_batch_with_strata_by_size_is_its_targets_one_by_one(groups: dict[str, int], kept: int) -> None:
    """Each window of another stratum; counts of live ranks pass 16 bits on the way, and from the middle on no work is kept."""
    profile = reference(swings=True)
    strata = profile.targets[0].strata
    assert strata is not None
    assert not strata.by_clock
    prepared, states = ready(profile, groups)
    _, alone = ready(profile, groups)
    for state in (*states, *alone):
        state.clock[kernel.INDEX] = kernel.SEEN_CARRY - 10
        state.seen_low[...] = kernel.SEEN_CARRY - 10
    room, crowd = Room(kept), Crowd()
    batch = Batch(prepared, states, room)
    rows = set()
    for index, counts in enumerate(windows(profile, 150, 1.5, (22, 45, 10, 200))):
        start_ms = index * HOUR_MS // 4
        together = batch.update(counts, HOUR_MS / 4, start_ms, start_ms + HOUR_MS // 4)
        one_by_one = [
            update(each, state, counts[batch.start[t] : batch.start[t + 1]], HOUR_MS / 4, start_ms)
            for t, (each, state) in enumerate(zip(prepared, alone, strict=True))
        ]
        assert list(together) == one_by_one
        for state, other in zip(states, alone, strict=True):
            for name, array in state.arrays().items():
                np.testing.assert_array_equal(array, other.arrays()[name], err_msg=name)
        if index == 45:
            room.ask(crowd, 2 * ROOMY)
        assert batch._place[:, at.WORK].any() == (kept == ROOMY and index <= 45)  # else it is of memory that is gone
        in_force = prepared[0].strata
        assert in_force is not None
        rows.add(in_force.row(start_ms, None, int(counts[: batch.start[1]].sum())))
    assert len(rows) >= 3
    assert any(state.seen_high.any() for state in states), (
        "some bins passed them, in strata that had been in force before"
    )
