"""Share statistics, thinning and uniforms against scipy's exact laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from detectors.sequential.categories import (
    EMPTY_PORTION,
    RANK_BETS,
    Portions,
    count_score,
    portions,
    share_rank_bets,
)
from detectors.sequential.rank_layer import bet, kept_ranks, rank_counts
from detectors.sequential.thinning import hypergeometric, thin
from detectors.sequential.uniforms import TIME_BYTES, WindowSeeds, seed_prefix, uniform, window_seed
from detectors.xxh3 import LENGTH_MAX


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 3000), st.floats(1e-7, 1 - 1e-7), st.floats(0.001, 0.999), st.floats(0, 1))
def test_count_score_is_the_randomised_distribution_value(n: int, p: float, u: float, where: float) -> None:
    c = int(stats.binom.ppf(where, n, p)) if n else 0
    exact = stats.binom.cdf(c - 1, n, p) + u * stats.binom.pmf(c, n, p)
    score = count_score(c, n, p, u)
    found = 0.5 * math.exp(score) if score < 0 else 1 - 0.5 * math.exp(-score)
    assert found == pytest.approx(exact, abs=2e-6 if n * p * (1 - p) < 1000 else 6e-3)


def test_count_score_is_finite_and_increasing_far_in_the_tails() -> None:
    for n, p in ((20, 1e-9), (20, 1 - 1e-9), (10**6, 0.5), (10**6, 1e-7), (2000, 0.3)):
        scores = [count_score(c, n, p, 0.5) for c in np.unique(np.linspace(0, n, 200).astype(int))]
        assert np.isfinite(scores).all()
        assert (np.diff(scores) > 0).all()


def test_rank_bets_of_a_share_follow_the_binomial_law() -> None:
    """h x null mass is the probability of the rank bin under the other share: by brute force over all counts."""
    n, p, windows = 20, 0.02, 500
    rank = kept_ranks(windows)
    bets = share_rank_bets(p, n, rank, windows)
    assert bets.shape == (len(rank) + 1, RANK_BETS)
    null = np.diff(np.concatenate([[0], rank, [windows + 1]])) / (windows + 1)
    np.testing.assert_allclose(null @ bets, 1.0, rtol=1e-5)
    other = p + 3.0 * math.sqrt(p * (1 - p) / n)
    u = np.linspace(0, 1, 4001)[1:] - 1 / 8000
    masses = np.zeros(len(null))
    for c in range(n + 1):
        value = stats.binom.cdf(c - 1, n, p) + u * stats.binom.pmf(c, n, p)
        place = np.searchsorted(rank / (windows + 1), value)
        masses += stats.binom.pmf(c, n, other) * np.bincount(place, minlength=len(null)) / len(u)
    np.testing.assert_allclose(null * bets[:, 4], masses, atol=2e-3)


def test_one_event_of_a_share_that_was_never_seen_is_worth_all_time_so_far() -> None:
    """Whatever rate a spike is made for: (1 - rate) / rate windows of evidence, times rate x the windows there were."""
    windows, quiet, n = 11_000, 500, 21
    rank = kept_ranks(windows)
    bets = np.ascontiguousarray(share_rank_bets(0.5 / 40_000, n, rank, windows), np.float64)
    present, evidence = rank_counts(rank, windows), np.zeros(RANK_BETS, np.float32)
    g = np.random.default_rng(1)
    usual = g.choice(len(rank), p=present[:-1] / present[:-1].sum(), size=quiet)
    for k in (*usual, len(rank)):
        worth = bet(int(k), 1.0, present, float(present.sum()), bets, 1.0 / RANK_BETS, evidence, np.empty(64))
        present[k] += 1.0
    assert 0.85 * (windows + quiet) < worth < 1.01 * (windows + quiet)


def test_portions_favour_what_was_never_seen_and_what_is_slow_to_show() -> None:
    shares = np.array([0.6, 0.3, 0.05, 0.04, 1e-6, 0.01, 1e-6])
    part = portions(shares, Portions(0.4, 0.2), others=True)
    assert part.sum() == pytest.approx(1.0)
    assert part[4:].tolist() == pytest.approx([0.4, 0.2, EMPTY_PORTION])
    assert part[0] < part[1] < part[2] < part[3] < 3 * part[0]
    information = stats.norm.pdf(stats.norm.ppf(shares[:4])) ** 2 / shares[:4] / (1 - shares[:4])
    np.testing.assert_allclose(part[:4] * np.sqrt(information), part[0] * math.sqrt(information[0]))
    assert portions(shares, Portions(0.4, 0.2), others=False)[3] == EMPTY_PORTION
    nothing = portions(np.full(4, 0.25), Portions(0.4, 0.2), others=False)  # no category at all: these have everything
    assert nothing.sum() == pytest.approx(1.0)
    assert nothing[1] == pytest.approx(2 * nothing[2])


@pytest.mark.parametrize(
    ("good", "bad", "draws"), [(5, 7, 6), (30, 1000, 100), (1, 1, 1), (4000, 9000, 500), (50, 3, 40)]
)
def test_hypergeometric_is_exact(good: int, bad: int, draws: int) -> None:
    """Inverted at equally spaced uniforms: every value gets its probability to within one of them."""
    spaced = (np.arange(20_000) + 0.5) / 20_000
    found = np.bincount([hypergeometric(good, bad, draws, u) for u in spaced], minlength=draws + 1) / len(spaced)
    exact = stats.hypergeom.pmf(np.arange(draws + 1), good + bad, good, draws)
    np.testing.assert_allclose(found, exact, atol=1.5e-4)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=30), st.integers(0, 2**64 - 1), st.floats(0, 1))
def test_thinning_keeps_the_size_and_no_more_than_there_was(counts: list[int], seed: int, share: float) -> None:
    whole = np.array(counts)
    size = int(share * whole.sum())
    out, again = np.empty_like(whole), np.empty_like(whole)
    thin(whole, size, np.uint64(seed), 0, out)
    thin(whole, size, np.uint64(seed), 0, again)
    assert out.sum() == size
    assert (out >= 0).all()
    assert (out <= whole).all()
    assert (out == again).all()


def test_thinning_is_unbiased_bin_by_bin() -> None:
    whole = np.array([1000, 10, 0, 290, 700])
    out = np.empty_like(whole)
    total = np.zeros(5)
    for seed in range(3000):
        thin(whole, 100, np.uint64(window_seed(b"t", seed)), 0, out)
        total += out
    mean = 100 * whole / whole.sum()
    sd = np.sqrt(mean * (1 - whole / whole.sum()) * 0.95 / 3000)
    assert (np.abs(total / 3000 - mean) < 4.5 * sd + 1e-12).all()


def test_the_seeds_of_many_targets_are_those_of_each() -> None:
    prefixes = [seed_prefix("n" * length, "sha256:1") for length in (0, 1, 9, 100, 111, 200, 215, 216, 217, 300)]
    lengths = [len(prefix) + TIME_BYTES for prefix in prefixes]
    assert min(lengths) < LENGTH_MAX < max(lengths)
    assert LENGTH_MAX in lengths
    seeds = WindowSeeds(prefixes)
    for first in (0, 1_700_000_000_000, -(1 << 60)):
        starts = first + np.arange(len(prefixes), dtype=np.int64)
        wanted = [window_seed(prefix, at) for prefix, at in zip(prefixes, starts.tolist(), strict=True)]
        assert seeds.of(starts).tolist() == wanted
    assert len(WindowSeeds([]).of(np.empty(0, np.int64))) == 0


def test_uniforms_are_uniform_and_named_by_window_target_and_reference() -> None:
    seed = np.uint64(window_seed(seed_prefix("amount", "sha256:1"), 1_700_000_000_000))
    draws = np.array([uniform(seed, i) for i in range(5000)])
    assert stats.kstest(draws, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.06
    seeds = {window_seed(seed_prefix(t, r), s) for t in ("a", "ab") for r in ("bc", "c") for s in (0, 1)}
    assert len(seeds) == 8
