"""The taut string and the projection of shares against scipy's general optimiser, and the laws that make them e-values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from detectors.sequential.categories import project_shares, share_tube_bets
from detectors.sequential.taut_string import taut_string
from detectors.sequential.tube import LAW_WEIGHTS, core_edges, share_edges, tube_bets

BINS = 7


def divergence(q: np.ndarray, p: np.ndarray) -> float:
    return float(np.sum(q * np.log(q / np.maximum(p, 1e-300))))


def nearest(q: np.ndarray, lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    log_h = np.empty(len(q))
    taut_string(q, lo, hi, log_h)
    return q / q.sum() / np.exp(log_h)


def random_tube(g: np.random.Generator, bins: int, tolerance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    masses = g.dirichlet(np.full(bins, 2.0)) + 1e-4
    masses /= masses.sum()
    lo, hi = np.empty(bins), np.empty(bins)
    core_edges(masses, tolerance, lo, hi)
    return masses, lo, hi


@pytest.mark.parametrize("seed", range(12))
def test_the_string_is_the_nearest_law(seed: int) -> None:
    g = np.random.default_rng(seed)
    masses, lo, hi = random_tube(g, BINS, 0.15)
    q = g.dirichlet(np.full(BINS, 1.5)) + 1e-3
    q /= q.sum()
    found = nearest(q, lo, hi)
    sums = np.tril(np.ones((BINS - 1, BINS)))
    best = minimize(
        lambda p: divergence(q, p),
        masses,
        jac=lambda p: -q / np.maximum(p, 1e-300),
        bounds=[(1e-9, 1)] * BINS,
        constraints=[
            {"type": "eq", "fun": lambda p: p.sum() - 1, "jac": lambda p: np.ones(BINS)},
            {"type": "ineq", "fun": lambda p: sums @ p - lo[:-1], "jac": lambda p: sums},
            {"type": "ineq", "fun": lambda p: hi[:-1] - sums @ p, "jac": lambda p: -sums},
        ],
        options={"ftol": 1e-12, "maxiter": 500},
    )
    cumulative = np.cumsum(found)
    assert abs(cumulative[-1] - 1) < 1e-9
    assert (cumulative[:-1] >= lo[:-1] - 1e-9).all()
    assert (cumulative[:-1] <= hi[:-1] + 1e-9).all()
    assert divergence(q, found) <= best.fun + 1e-6


def law_inside(g: np.random.Generator, lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """Any increasing function between the gates, its corners often on them."""
    at = g.choice([0.0, 1.0, g.random()], len(lo) - 1) if g.random() < 0.5 else g.random(len(lo) - 1)
    cumulative = np.maximum.accumulate(lo[:-1] + at * (hi[:-1] - lo[:-1]))
    return np.diff(np.concatenate([[0.0], cumulative, [1.0]]))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.01, 0.05, 0.3]))
def test_no_law_of_the_tube_gains_by_any_bet(seed: int, tolerance: float) -> None:
    g = np.random.default_rng(seed)
    masses, lo, hi = random_tube(g, int(g.integers(2, 40)), tolerance)
    q = g.dirichlet(np.full(len(masses), g.choice([0.05, 0.5, 5.0]))) + 1e-15
    log_h = np.empty(len(masses))
    taut_string(q, lo, hi, log_h)
    fixed = tube_bets(masses, lo, hi).T
    assert abs(LAW_WEIGHTS.sum() - 0.92) < 1e-12
    for _ in range(20):
        p = law_inside(g, lo, hi)
        assert p @ np.exp(log_h) <= 1 + 1e-9
        assert (p @ np.exp(fixed) <= 1 + 1e-9).all()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.02, 0.1, 0.5]))
def test_no_shares_of_the_tube_gain_by_any_bet(seed: int, tolerance: float) -> None:
    g = np.random.default_rng(seed)
    bins = int(g.integers(2, 30))
    p0 = g.dirichlet(np.full(bins, 0.5)) + 1e-5
    p0 /= p0.sum()
    edges = np.array([share_edges(p, tolerance) for p in p0])
    lo, hi = np.ascontiguousarray(edges[:, 0]), np.ascontiguousarray(edges[:, 1])
    q = g.dirichlet(np.full(bins, 0.5)) + 1e-6
    q /= q.sum()
    p = np.empty(bins)
    project_shares(q, lo, hi, p)
    assert abs(p.sum() - 1) < 1e-9
    # First-order condition at a vertex of the tube in a random direction.
    inside = np.clip(p0 + 0.01 * g.normal(size=bins), lo, hi)
    other = np.empty(bins)
    project_shares(np.maximum(inside, 1e-12), lo, hi, other)
    assert other @ (q / p) <= 1 + 1e-9
    for mass, low, high in zip(p0, lo, hi, strict=True):
        inside_h, outside_h = share_tube_bets(float(mass), tolerance)
        for share in (low, mass, high):
            assert (share * np.exp(inside_h) + (1 - share) * np.exp(outside_h) <= 1 + 1e-9).all()
