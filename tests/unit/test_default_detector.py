"""The default detector's rules one by one: latches, thinning, what it tells, what it refuses, how much it keeps."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import detector_kits as kit

from detectors.sequential import default_kernel as kernel
from detectors.sequential.default import (
    DetectionSettings,
    describe,
    prepare,
    start,
    state_from_sections,
    state_to_sections,
    update,
)
from detectors.sequential.default_kernel import SEEN_CARRY
from detectors.sequential.rank_layer import kept_ranks, order_statistics, rank_bin, rank_counts
from detectors.sequential.scores import score_table, window_statistics
from detectors.verdict import BadSettings, BadState, Level


def test_scores_by_hand() -> None:
    """Two bins of equal mass: z = -+ 2 phi(0), z2 = 0, no tail; ten events in the upper one."""
    table = score_table(np.array([10, 10]))
    np.testing.assert_allclose(table.nominal, [0.5])
    np.testing.assert_allclose(table.score[:, 0], [-0.7978845608, 0.7978845608], atol=1e-7)
    np.testing.assert_allclose(table.score[:, 1], [0.0, 0.0], atol=1e-7)
    out = np.empty(5)
    window_statistics(np.array([0.0, 10.0]), table.score, table.nominal, table.shape_scale, out)
    np.testing.assert_allclose(out[[0, 4]], [0.7978845608 * 10**0.5, 10**0.5], rtol=1e-7)
    window_statistics(np.array([0.0, 0.0]), table.score, table.nominal, table.shape_scale, out)
    assert not out.any()


def test_rank_bins_by_hand_with_ties() -> None:
    assert kept_ranks(1).tolist() == [1]
    assert kept_ranks(3).tolist() == [1, 2, 3]
    assert rank_counts(np.array([1, 2, 3]), 3).tolist() == [1, 1, 1, 1]
    rank = kept_ranks(1000)
    assert (rank[0], rank[-1]) == (1, 1000)
    assert rank_counts(rank, 1000).sum() == 1001
    order, tie = order_statistics(np.array([5.0, 5.0, 1.0]), np.array([0.9, 0.2, 0.5]), np.array([1, 2, 3]))
    assert (order.tolist(), tie.tolist()) == ([1.0, 5.0, 5.0], [0.5, 0.2, 0.9])
    placed = [
        rank_bin(x, u, order, tie) for x, u in ((0.0, 0.5), (1.0, 0.6), (5.0, 0.1), (5.0, 0.5), (5.0, 0.95), (9.0, 0.0))
    ]
    assert placed == [0, 1, 1, 2, 3, 3]


@pytest.mark.parametrize(
    ("crossings", "fires"),
    [
        ([(1, 0), (0, 1)], [0, 1]),
        ([(0, 1), (1, 0)], [0, 1]),
        ([(1, 1), (0, 1), (1, 0)], [1, 0, 1]),
        ([(1, 0), (0, 0), (0, 0), (0, 1)], [0, 0, 0, 0]),
        ([(1, 0), (1, 0), (0, 0), (0, 1)], [0, 0, 0, 1]),
    ],
)
def test_latches_meet_expire_and_clear(crossings: list[tuple[int, int]], fires: list[int]) -> None:
    """Expiry after 3 windows."""
    clock = np.array([0, kernel.NEVER, kernel.NEVER, kernel.NEVER, 0])
    out = np.zeros(kernel.FIELDS)
    found = []
    for rank, tube in crossings:
        out[kernel.RANK_CROSSED], out[kernel.TUBE_CROSSED] = rank, tube
        kernel.latch(clock, 3, out)
        found.append(int(out[kernel.FIRES]))
    assert found == fires


@pytest.mark.parametrize(("size", "wanted"), [(10, 1000), (20, 500), (50, 200), (100, 200)])
def test_a_latch_lasts_ten_thousand_events_where_windows_are_small(size: int, wanted: int) -> None:
    found = kit.profile("normal", 20_000, size)
    prepared = prepare(found.targets[0], DetectionSettings(0.03, 1e5), found.id)
    assert prepared.latch_windows == wanted


def test_a_crossing_waits_for_the_other_layers_as_long_as_its_latch_lasts() -> None:
    """Windows that are as ever, one layer's latch set beforehand: it is still there after latch_windows - 1 of them, then no more."""
    prepared, state = kit.ready(kit.profile("normal", 20_000), budget=1e12)
    state.clock[kernel.TUBE_LATCH] = 0
    quiet = kit.windows(prepared.target, np.random.default_rng(4).normal(size=20 * 501))
    levels = [verdict.level for verdict in kit.run(prepared, state, quiet)]
    assert levels.index(Level.OK) == prepared.latch_windows == 500
    assert set(levels[:500]) == {Level.CROSSED_TUBE}


def test_an_alarm_needs_both_layers_and_tells_what_moved() -> None:
    prepared, state = kit.ready(kit.profile("normal", 40_000))
    g = np.random.default_rng(1)
    quiet = kit.run(prepared, state, kit.windows(prepared.target, g.normal(size=4_000)))
    assert {v.level for v in quiet} <= {Level.OK, Level.CROSSED_RANK, Level.CROSSED_TUBE}
    verdicts = kit.run(prepared, state, kit.windows(prepared.target, g.normal(0.8, 1.0, 2_000)), 200)
    alarm = next(i for i, v in enumerate(verdicts) if v.level is Level.ALARM)
    told = verdicts[alarm]
    assert told.direction in {"up", "none"}
    assert told.since_ms is not None
    assert abs(told.since_ms - 200_000) <= 4_000
    assert max(told.rank_log10, told.tube_log10) >= told.threshold_log10 == 5.0
    assert len(told.largest_changes) == 5
    changes = [abs(c.now - c.reference) for c in told.largest_changes]
    assert changes == sorted(changes, reverse=True)
    assert not any(v.largest_changes for v in quiet if v.level is Level.OK)
    assert np.mean([v.shift for v in verdicts]) == pytest.approx(0.8, abs=0.08)
    assert not all(v.inside_tube for v in verdicts)
    assert np.mean([v.inside_tube for v in quiet]) > 0.97


@pytest.mark.parametrize(
    ("law", "change", "direction", "share", "size"),
    [
        ("normal", lambda g, n: g.normal(-0.5, 1.0, n), "down", "", 0.5),
        ("normal", lambda g, n: g.normal(0.0, 1.5, n), "spread", "", 0.5),
        ("normal", lambda g, n: g.normal(0.0, 0.5, n), "narrow", "", 0.5),
        ("holes", lambda g, n: np.where(g.random(n) < 0.2, np.nan, g.normal(size=n)), "up", "missing", 0.8),
        ("normal", lambda g, n: np.where(g.random(n) < 0.01, np.inf, g.normal(size=n)), "up", "invalid", 1.7),
        ("categories", lambda g, n: g.choice(np.array(["a", "new"], object), n, p=[0.5, 0.5]), "up", "__unseen__", 4.0),
    ],
)
def test_effects_are_described_in_probit_units(law: str, change, direction: str, share: str, size: float) -> None:
    prepared, _ = kit.ready(kit.profile(law, 40_000))
    counts = kit.windows(prepared.target, change(np.random.default_rng(2), 20_000), 20_000)[0]
    found = describe(prepared, counts)
    assert (found.direction, found.share) == (direction, share)
    assert found.size == pytest.approx(size, rel=0.25)
    assert found.size == abs(found.shift)
    assert not found.inside_tube
    same = describe(prepared, kit.windows(prepared.target, kit.DRAWS[law](np.random.default_rng(3), 5_000), 5_000)[0])
    assert same.inside_tube
    nothing = describe(prepared, np.zeros_like(counts))
    assert (nothing.direction, nothing.size, nothing.inside_tube) == ("none", 0.0, True)


def test_larger_windows_are_thinned_the_same_way_every_time() -> None:
    prepared, state = kit.ready(kit.profile("normal"))
    big = kit.windows(prepared.target, np.random.default_rng(1).normal(size=1000), 1000)[0]
    verdict = update(prepared, state, big, 20.0, 7)
    assert (verdict.thinned, verdict.events) == (True, 20)
    again = start(prepared)
    assert update(prepared, again, big, 20.0, 7) == verdict
    other = start(prepared)
    assert update(prepared, other, big, 20.0, 8).rank_log10 != verdict.rank_log10
    assert big.sum() == 1000


def test_thinned_windows_keep_the_bound() -> None:
    """Windows of 20 to 400 events against a reference of 20: ranks stay uniform."""
    prepared, state = kit.ready(kit.profile("poisson", 40_000), budget=2000.0)
    g = np.random.default_rng(1)
    crossings = 0
    for i in range(3000):
        row = kit.windows(prepared.target, g.poisson(3.0, (n := int(g.integers(20, 400)))).astype(float), n)[0]
        crossings += update(prepared, state, row, 20.0, i).rank_crossed
    assert crossings <= 30 + 4 * 30**0.5


def test_settings_and_states_that_do_not_fit_are_refused() -> None:
    found = kit.profile("normal")
    for settings in (
        DetectionSettings(-0.1, 1e5),
        DetectionSettings(float("nan"), 1e5),
        DetectionSettings(0.05, 0.0),
        DetectionSettings(0.05, float("inf")),
        DetectionSettings(0.05, 1e5, cells=0),
        DetectionSettings(0.05, 1e5, latch_windows=0),
        DetectionSettings(0.05, 1e5, reserve=0.9),
        DetectionSettings(0.05, 1e5, reserve=float("nan")),
    ):
        with pytest.raises(BadSettings):
            prepare(found.targets[0], settings, found.id)
    prepared, state = kit.ready(found)
    header, sections = state_to_sections(prepared, state)
    other = prepare(found.targets[0], prepared.settings, "sha256:other")
    for target, head, parts in (
        (other, header, sections),
        (prepared, header | {"version": 99}, sections),
        (prepared, header, {k: v for k, v in sections.items() if k != "seen"}),
        (prepared, header, sections | {"seen": sections["seen"][:-1]}),
    ):
        with pytest.raises(BadState):
            state_from_sections(target, head, parts)


@pytest.mark.parametrize("law", ["normal", "categories"])
def test_a_state_of_64_bits_is_read_with_evidence_rounded_down(law: str) -> None:
    prepared, state = kit.ready(kit.profile(law))
    counts = kit.windows(prepared.target, kit.DRAWS[law](np.random.default_rng(2), 1_200))
    kit.run(prepared, state, counts)
    header, sections = state_to_sections(prepared, state)
    wide = {name: part.astype(np.float64) for name, part in sections.items() if part.dtype.kind in "fu"}
    for name in ("evidence", "adaptive", "share_evidence", "tube"):
        wide[name] *= 1.0 + 2.0**-25  # nearer to what was saved than to the next float32
    wide["recent_total"], wide["plug_total"] = np.zeros((2, 2)), np.zeros(1)
    resumed = state_from_sections(prepared, header | {"version": 1}, sections | wide)
    for name, part in state_to_sections(prepared, resumed)[1].items():
        assert part.dtype == sections[name].dtype
        np.testing.assert_allclose(part, sections[name], rtol=3e-7)
        assert (part <= wide.get(name, part)).all()
    for verdict, was in zip(*(kit.run(prepared, each, counts, 60) for each in (resumed, state)), strict=True):
        assert verdict.rank_log10 == pytest.approx(was.rank_log10, abs=1e-5)
    with pytest.raises(BadState):
        state_from_sections(prepared, header, sections | wide)


def test_a_rank_bin_counts_beyond_65535_windows_through_a_restart() -> None:
    prepared, state = kit.ready(kit.profile("constant"))
    row = kit.windows(prepared.target, np.full(20, 7.0))[0]
    state.clock[0] = SEEN_CARRY - 3
    state.seen_low[:] = SEEN_CARRY - 3
    assert not len(state.seen_high)
    for i in range(4):
        update(prepared, state, row, 1.0, i)
    restored = state_from_sections(prepared, *state_to_sections(prepared, state))
    np.testing.assert_array_equal(restored.seen, state.seen)
    assert restored.seen.sum() == state.seen_low.size * (SEEN_CARRY - 3) + 4 * len(state.seen)
    after = [update(prepared, each, row, 1.0, 9) for each in (state, restored)]
    assert after[0] == after[1]


def test_the_upper_half_of_a_rank_bin_is_in_the_evidence() -> None:
    """A bin that had most windows so far is no surprise: the same counts, one carried and one not, give other evidence."""
    found = []
    for high in (0, 3):
        prepared, state = kit.ready(kit.profile("constant"))
        state.seen_high = np.zeros_like(state.seen_low)
        state.seen_high[:, 0] = high
        verdict = update(prepared, state, kit.windows(prepared.target, np.full(20, 7.0))[0], 1.0, 0)
        found.append(verdict.rank_log10)
    assert found[1] > found[0] + 1  # the other bins have become rare


@pytest.mark.parametrize("law", sorted(kit.DRAWS))
def test_state_stays_under_its_declared_bytes(law: str) -> None:
    prepared, state = kit.ready(kit.profile(law))
    kit.run(prepared, state, kit.windows(prepared.target, kit.DRAWS[law](np.random.default_rng(0), 2_000)))
    size = sum(part.nbytes for part in state_to_sections(prepared, state)[1].values())
    categories = prepared.target.binning.bins + 2
    assert size <= (5_000 if prepared.core else 450 * categories + 200)


def test_a_tighter_budget_and_more_cells_never_alarm_earlier() -> None:
    found = kit.profile("normal", 40_000)
    counts = kit.windows(found.targets[0], np.random.default_rng(3).normal(0.4, 1.0, 6_000))
    first = []
    for budget, cells in ((1e4, 1), (1e5, 1), (1e5, 20), (1e8, 20)):
        prepared, state = kit.ready(found, budget, 0.03, cells)
        first.append(next(i for i, v in enumerate(kit.run(prepared, state, counts)) if v.level is Level.ALARM))
    assert first == sorted(first)


def test_a_reserve_raises_the_thresholds_of_the_ranks_alone() -> None:
    found = kit.profile("normal")
    plain, reserved = (prepare(found.targets[0], DetectionSettings(0.05, 1e5, reserve=r), found.id) for r in (1.0, 1.3))
    assert reserved.rank[-1] == pytest.approx(1.3 * plain.rank[-1])
    assert reserved.tube[0] == plain.tube[0]
    assert reserved.threshold_log10 == plain.threshold_log10


def test_targets_inside_the_tube_have_no_weight() -> None:
    wide = prepare(kit.profile("normal").targets[0], DetectionSettings(0.5, 1e5), "r")
    weight = wide.tube[-1]
    assert weight.sum() == pytest.approx(1.0)
    assert (weight[:6] == 0).all()  # shifts of .15, .25, .45 are inside a tolerance of .5
    assert (weight[6:10] > 0).all()


def test_memories_of_bins_that_are_not_hit_again_end_at_0():
    """Float32 numbers below 1.2e-38 cost a seventh of a window's time, and 1e-45 x .9 is 1e-45 again."""
    prepared, state = kit.ready(kit.profile("normal"))
    counts = kit.windows(prepared.target, np.random.default_rng(3).normal(size=4_000), 200)
    kit.run(prepared, state, counts)
    state.real("recent")[:] = 1e-29
    kit.run(prepared, state, np.repeat(counts[:1], 300, axis=0))
    assert (state.real("recent")[:, 0] == 0.0).any()
    for name in ("recent", "plug", "evidence", "adaptive", "share_evidence", "tube"):
        memory = state.real(name)
        assert not ((memory > 0.0) & (memory < np.finfo(np.float32).tiny)).any(), name


def test_each_reference_breaks_its_ties_in_its_own_way() -> None:
    """Values without a gap have no missing in any window: all of that series' ranks come from the ties."""
    draws = [kit.build(kit.DRAWS["normal"](np.random.default_rng(seed), 20_000)) for seed in (1, 1, 2)]
    missing = [found.targets[0].tie[-1] for found in draws]
    assert np.array_equal(missing[0], missing[1])
    assert not np.isclose(missing[0], missing[2]).any()
