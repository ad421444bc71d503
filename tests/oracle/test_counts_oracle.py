"""Share statistics, thinning and uniforms against scipy's exact laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from detectors.sequential.categories import RANK_BETS, count_score, share_rank_bets
from detectors.sequential.rank_layer import kept_ranks
from detectors.sequential.thinning import hypergeometric, thin
from detectors.sequential.uniforms import seed_prefix, uniform, window_seed


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


def test_uniforms_are_uniform_and_named_by_window_target_and_reference() -> None:
    seed = np.uint64(window_seed(seed_prefix("amount", "sha256:1"), 1_700_000_000_000))
    draws = np.array([uniform(seed, i) for i in range(5000)])
    assert stats.kstest(draws, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.06
    seeds = {window_seed(seed_prefix(t, r), s) for t in ("a", "ab") for r in ("bc", "c") for s in (0, 1)}
    assert len(seeds) == 8
