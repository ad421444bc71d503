"""Laws of the default detector: what its guarantee rests on, exactly where it can be computed, by seeded runs elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent))
import detector_kits as kit

from detectors.sequential.categories import RANK_BETS, bet_codes, decode_bets, share_rank_bets
from detectors.sequential.default import state_from_sections, state_to_sections, update
from detectors.sequential.rank_layer import (
    ADAPTIVE_DECAY,
    BETS,
    BOOST_REACH,
    bet,
    bet_adaptively,
    boost,
    kept_ranks,
    rank_counts,
    shift_bets,
)
from detectors.verdict import BadCounts, BadWeight, Level

LAWS = sorted(kit.DRAWS)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**32 - 1))
def test_no_rank_bet_gains_or_loses_on_average_under_exchangeable_windows(reference_windows: int, seed: int) -> None:
    """E[L | past] = 1, summed over the rank bins by their exact conditional probabilities, for every bet."""
    g = np.random.default_rng(seed)
    rank = kept_ranks(reference_windows)
    present = rank_counts(rank, reference_windows) + g.integers(0, 50, len(rank) + 1)
    probability = present / present.sum()
    p, events = 10 ** g.uniform(-6, -0.01), int(g.integers(1, 5000))
    coded = np.empty((len(present), RANK_BETS))
    decode_bets(bet_codes(share_rank_bets(p, events, rank, reference_windows)), coded)
    for bets in (*(shift_bets(rank, reference_windows, kind) for kind in BETS), coded):
        mean, kept = np.zeros(bets.shape[1]), np.zeros(bets.shape[1])
        for k in range(len(present)):
            for i in range(bets.shape[1]):
                evidence = np.zeros(1, np.float32)
                mean[i] += probability[k] * bet(
                    k, 1.0, present, present.sum(), bets[:, i : i + 1], 1.0, evidence, np.empty(64)
                )
                kept[i] += probability[k] * evidence[0]
        np.testing.assert_allclose(mean, 1.0, rtol=1e-9)
        assert (kept <= mean).all()  # float32, rounded down
        np.testing.assert_allclose(kept, 1.0, rtol=3e-7)
    mean = np.zeros(len(ADAPTIVE_DECAY))
    recent = g.exponential(3.0, (len(ADAPTIVE_DECAY), len(present))).astype(np.float32)
    for k in range(len(present)):
        for i in range(len(ADAPTIVE_DECAY)):
            one, evidence = slice(i, i + 1), np.zeros(1, np.float32)
            mean[i] += probability[k] * bet_adaptively(
                k,
                1.0,
                probability[k],
                recent[one].copy(),
                recent[one].sum(axis=1, dtype=np.float64),
                ADAPTIVE_DECAY[one],
                1.0,
                evidence,
            )
    np.testing.assert_allclose(mean, 1.0, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**32 - 1), st.booleans())
def test_raised_evidence_is_worth_no_more_than_it_was_and_near_a_threshold_no_less(
    reference_windows: int, seed: int, adaptive: bool
) -> None:
    """E[min(evidence after, threshold) | past] <= evidence before + weight, summed over the rank bins; equal where a bin passes it."""
    g = np.random.default_rng(seed)
    rank = kept_ranks(reference_windows)
    present = rank_counts(rank, reference_windows) + g.integers(0, 50, len(rank) + 1)
    probability = present / present.sum()
    bets = shift_bets(rank, reference_windows, BETS[int(g.integers(len(BETS)))])
    count = bets.shape[1]
    memory = g.exponential(3.0, (2 * adaptive, len(present))).astype(np.float32)
    fixed, other = g.exponential(1.0, count).astype(np.float32), g.exponential(1.0, 2 * adaptive).astype(np.float32)
    weight, share, each = float(g.exponential(0.3)), 0.92 / count, 0.04
    before = share * float((fixed.astype(float) + weight).sum()) + each * float((other.astype(float) + weight).sum())
    threshold = before * float(10.0 ** g.uniform(-0.5, 3.5))
    plain = 0.0
    for boosted in (False, True):
        staked = (fixed.copy(), other.copy())
        raised = (
            boost(weight, present, bets, share, staked[0], memory, each, staked[1], threshold) if boosted else weight
        )
        mean = 0.0
        for k in range(len(present)):
            left = tuple(part.copy() for part in staked)
            total = bet(k, raised, present, present.sum(), bets, share, left[0], np.empty(64))
            if adaptive:
                null, kept_sums = probability[k], memory.sum(axis=1, dtype=np.float64)
                total += bet_adaptively(k, raised, null, memory.copy(), kept_sums, ADAPTIVE_DECAY, each, left[1])
            mean += probability[k] * min(total, threshold)
        assert mean <= before * (1.0 + 1e-12)
        if boosted and before * BOOST_REACH > threshold * 1.001 and before < threshold * 0.999:
            assert mean >= plain
            assert mean >= before * (1.0 - 3e-7)
        plain = mean


@pytest.mark.parametrize("law", LAWS)
def test_ranks_of_live_windows_are_uniform_even_where_everything_ties(law: str) -> None:
    """Rank bins over many windows of many references follow alpha / (m + 1): chi-squared, each statistic by itself."""
    found: np.ndarray | None = None
    expected: np.ndarray | None = None
    for seed in range(8):
        prepared, state = kit.ready(kit.profile(law, 12_000, 20, seed))
        live = kit.windows(prepared.target, kit.DRAWS[law](np.random.default_rng([seed, 9]), 6_000))
        kit.run(prepared, state, live)
        alpha = rank_counts(prepared.target.rank, prepared.target.windows)
        middle = np.array([part.sum() for part in np.array_split(alpha, 6)]) / alpha.sum() * len(live)
        seen = np.array([[part.sum() for part in np.array_split(row, 6)] for row in state.seen[:7]])
        found = seen if found is None else found + seen
        expected = middle if expected is None else expected + middle
    chi = ((found - expected) ** 2 / expected).sum(axis=1)
    # 5 degrees of freedom; the references' own error doubles the variance at most
    assert (chi < 2 * 27.0).all(), chi


@pytest.mark.parametrize(
    ("law", "size"),
    [("normal", 20), ("lognormal", 20), ("poisson", 20), ("holes", 20), ("categories", 20), ("rare", 20), ("ar", 50)],
)
def test_each_layer_crosses_no_more_often_than_the_budget_allows(law: str, size: int) -> None:
    """A = 1000 events, 12 streams of 30,000: at most 360 crossings of either layer are expected; alarms are fewer. The ranks spend
    nearly all of it, so what is counted may be beyond by chance.

    Autocorrelated events are no law of the tube (it conditions on the past): there the ranks of long windows keep the bound.
    """
    rank, tube, alarms, streams, events = 0, 0, 0, 12, 30_000
    for seed in range(streams):
        g = np.random.default_rng([seed, 3])
        draw = (lambda n, g=g: kit.autoregressive(g, n, 0.5)) if law == "ar" else (lambda n, g=g: kit.DRAWS[law](g, n))
        prepared, state = kit.ready(kit.build(draw(15_000), size), budget=1000.0, tolerance=0.03)
        verdicts = kit.run(prepared, state, kit.windows(prepared.target, draw(events), size))
        rank += sum(v.rank_crossed for v in verdicts)
        tube += sum(v.tube_crossed for v in verdicts)
        alarms += sum(v.level is Level.ALARM for v in verdicts)
    bound = streams * events / 1000.0
    assert rank < bound + 2.0 * bound**0.5
    assert tube < bound or law == "ar"
    assert alarms <= min(rank, tube)
    assert rank > 0.01 * bound  # a bound that is never approached would hide a dead layer


def test_drift_inside_the_tolerance_stays_silent_and_beyond_it_does_not() -> None:
    prepared, state = kit.ready(kit.profile("normal", 60_000), budget=1e5, tolerance=0.2)
    g = np.random.default_rng(5)
    inside = kit.run(prepared, state, kit.windows(prepared.target, g.normal(0.1, 1.0, 60_000)))
    assert not [v for v in inside if v.level is Level.ALARM]
    assert any(v.rank_crossed for v in inside)  # the rank layer sees it: the tube is what keeps it silent
    outside = kit.run(prepared, state, kit.windows(prepared.target, g.normal(0.5, 1.0, 4_000)), len(inside))
    assert any(v.level is Level.ALARM for v in outside)


@pytest.mark.parametrize(
    ("law", "change", "events_max"),
    [
        ("normal", lambda g, n: g.normal(0.5, 1.0, n), 400),
        ("normal", lambda g, n: g.normal(1.0, 1.0, n), 120),
        ("normal", lambda g, n: g.normal(0.0, 1.5**0.5, n), 900),
        ("holes", lambda g, n: np.where(g.random(n) < 0.25, np.nan, g.normal(size=n)), 600),
        ("normal", lambda g, n: np.where(g.random(n) < 0.02, np.inf, g.normal(size=n)), 1200),
        ("normal", lambda g, n: g.normal(size=n) * 1000.0, 60),
        ("constant", lambda _, n: np.full(n, 8.0), 60),
        ("categories", lambda g, n: g.choice(np.array(["a", "new"], object), n, p=[0.97, 0.03]), 300),
        (
            "categories",
            lambda g, n: g.choice(np.array(["a", "b", "c", "d"], object), n, p=[0.45, 0.3, 0.15, 0.1]),
            2000,
        ),
    ],
)
def test_drift_is_found_in_time(law: str, change, events_max: int) -> None:
    """Mean delay over 8 streams, from a change after 2,000 quiet events; limits are about twice what was measured."""
    delays = []
    for seed in range(8):
        prepared, state = kit.ready(kit.profile(law, 40_000, 20, seed % 2))
        g = np.random.default_rng([seed, 11])
        kit.run(prepared, state, kit.windows(prepared.target, kit.DRAWS[law](g, 2_000)))
        verdicts = kit.run(prepared, state, kit.windows(prepared.target, change(g, 8_000)), 100)
        delays.append(20 * (1 + next(i for i, v in enumerate(verdicts) if v.level is Level.ALARM)))
    assert np.mean(delays) < events_max


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(st.sampled_from(LAWS), st.integers(0, 120), st.integers(0, 2**32 - 1))
def test_resuming_at_any_cut_equals_the_uninterrupted_run_bit_for_bit(law: str, cut: int, seed: int) -> None:
    prepared, whole = kit.ready(kit.profile(law))
    g = np.random.default_rng(seed)
    values = np.concatenate([kit.DRAWS[law](g, 1_200), kit.DRAWS["normal"](g, 1_200) + 1]) if law == "normal" else (
        kit.DRAWS[law](g, 2_400)
    )  # fmt: skip
    counts = kit.windows(prepared.target, values)
    expected = kit.run(prepared, whole, counts)
    _, halved = kit.ready(kit.profile(law))
    first = kit.run(prepared, halved, counts[:cut])
    header, sections = state_to_sections(prepared, halved)
    resumed = state_from_sections(prepared, header, sections)
    assert first + kit.run(prepared, resumed, counts[cut:], cut) == expected
    ours, theirs = (state_to_sections(prepared, state)[1] for state in (resumed, whole))
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)


@pytest.mark.parametrize("law", ["normal", "categories"])
def test_refused_input_leaves_the_state_untouched(law: str) -> None:
    prepared, state = kit.ready(kit.profile(law))
    counts = kit.windows(prepared.target, kit.DRAWS[law](np.random.default_rng(1), 200))
    kit.run(prepared, state, counts)
    before = {name: part.copy() for name, part in state_to_sections(prepared, state)[1].items()}
    bad = counts[0].copy()
    bad[0] -= 100
    refused = [(bad, 1.0, BadCounts), (counts[0][:-1], 1.0, BadCounts), (counts[0].astype(float), 1.0, BadCounts)]
    refused += [(counts[0], weight, BadWeight) for weight in (-1.0, np.nan, np.inf)]
    for row, weight, error in refused:
        with pytest.raises(error):
            update(prepared, state, row, weight, 99_000)
    small = np.zeros_like(counts[0])
    small[prepared.first] = 3
    assert update(prepared, state, small, 1.0, 99_000).level is Level.INSUFFICIENT_DATA
    after = state_to_sections(prepared, state)[1]
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(st.sampled_from(LAWS), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 10**9)), min_size=1, max_size=30))
def test_everything_stays_finite_whatever_comes(law: str, windows: list[tuple[int, int]]) -> None:
    prepared, state = kit.ready(kit.profile(law), budget=1e12, tolerance=0.0)
    bins = prepared.target.binning.bins + 2
    for i, (place, events) in enumerate(windows):
        row = np.zeros(bins, np.int64)
        row[place % bins] = events
        verdict = update(prepared, state, row, 1e15, i)
        assert np.isfinite([verdict.rank_log10, verdict.tube_log10, verdict.shift]).all()
    assert all(np.isfinite(part).all() for part in state_to_sections(prepared, state)[1].values())
