"""The law of the tube's raised evidence, by every way in which a few events can fall: never worth more than it was, whatever the laws."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors.sequential.taut_string import taut_string
from detectors.sequential.tube_boost import largest_law, order_of, raising, tube_factor

F64 = NDArray[np.float64]


def tube(g: np.random.Generator, bins: int) -> tuple[F64, F64]:
    """Gates lo, hi F64[bins] around a random law."""
    below = np.cumsum(g.dirichlet(np.ones(bins)))[:-1]
    width = g.uniform(0.0, 0.1)
    lo, hi = np.clip(below - width, 0.0, 1.0), np.clip(below + width, 0.0, 1.0)
    return np.append(lo, 1.0), np.append(hi, 1.0)


def law_inside(g: np.random.Generator, lo: F64, hi: F64) -> F64:
    """A law of the tube, most often at its edges; a bin's place in the order of gates decides which edge can be reached."""
    at = np.where(g.random(len(lo)) < 0.5, lo, hi) if g.random() < 0.8 else g.uniform(lo, hi)
    at = np.clip(np.maximum.accumulate(at), lo, hi)
    at[-1] = 1.0
    return np.diff(np.concatenate([[0.0], np.maximum.accumulate(at)]))


def bets_on(g: np.random.Generator, lo: F64, hi: F64, count: int) -> F64:
    """Log bets F64[bins, count] against the tube; the first three of them are of different sizes on one side."""
    bins = len(lo)
    middle = np.diff(np.concatenate([[0.0], 0.5 * (lo + hi)]))
    found = np.empty((bins, count))
    for i in range(count):
        tilt = np.exp(0.6 * (i + 1) * np.arange(bins)) if i < 3 else g.exponential(1.0, bins)
        law = np.maximum(middle * tilt, 1e-12)
        taut_string(law / law.sum(), lo, hi, found[:, i])
    return found


def cut_mean(
    g: np.random.Generator, lo: F64, hi: F64, log_h: F64, stakes: F64, events: int, threshold: float, worst: F64 | None
) -> float:
    """E[min(evidence after, threshold)]: every event's law is chosen anew in the tube when those before it are known, or is `worst`."""
    chosen: dict[tuple[int, ...], F64] = {}
    mean = 0.0
    for path in itertools.product(range(len(lo)), repeat=events):
        chance = 1.0
        for e in range(events):
            if path[:e] not in chosen:
                chosen[path[:e]] = law_inside(g, lo, hi) if worst is None else worst
            chance *= chosen[path[:e]][path[e]]
        mean += chance * min(float(stakes @ np.exp(log_h[list(path)].sum(axis=0))), threshold)
    return mean


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.integers(1, 4))
def test_raised_evidence_is_never_worth_more_than_before(seed: int, bins: int, events: int) -> None:
    g = np.random.default_rng(seed)
    lo, hi = tube(g, bins)
    log_h = bets_on(g, lo, hi, 6)
    stakes = g.exponential(1.0, 6) ** 3
    rest, before = float(g.exponential(0.3)), 0.0
    before = float(stakes.sum()) + rest
    threshold = before * float(10.0 ** g.uniform(0.01, 2.0))
    factor = raising(events, log_h, stakes, int(np.argmax(stakes)), lo, hi, rest, threshold)
    assert factor >= 1.0
    # the others' evidence does not grow on average: a bet of h = 1
    every, all_stakes = np.column_stack([log_h, np.zeros(bins)]), factor * np.append(stakes, rest)
    masses = largest_law(order_of(log_h[:, int(np.argmax(stakes))]), lo, hi)
    worst = np.zeros(bins)
    worst[order_of(log_h[:, int(np.argmax(stakes))])] = masses
    for one in (None, None, law_inside(g, lo, hi), law_inside(g, lo, hi)):
        assert cut_mean(g, lo, hi, every, all_stakes, events, threshold, one) <= before * (1.0 + 1e-12)
    if np.all(np.cumsum(worst) >= lo - 1e-12) and np.all(np.cumsum(worst) <= hi + 1e-12):
        assert cut_mean(g, lo, hi, every, all_stakes, events, threshold, worst) <= before * (1.0 + 1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 3), st.integers(2, 6))
def test_where_levels_lose_nothing_all_of_it_is_given_back(seed: int, bins: int, events: int) -> None:
    """One bet on one side, as many bins as levels: E[min(b after, threshold)] is what there was before, for the worst law."""
    g = np.random.default_rng(seed)
    lo, hi = tube(g, bins)
    lo, hi = np.maximum(lo, 1e-3), np.maximum(hi, 2e-3)
    log_h = bets_on(g, lo, hi, 1)
    worst = np.diff(np.concatenate([[0.0], lo]))
    most = float(np.exp(events * log_h[-1, 0]))
    if np.any(worst <= 0.0) or abs(worst @ np.exp(log_h[:, 0]) - 1.0) > 1e-9 or most < 1.1:
        return
    threshold = 1.0 + 0.5 * (most - 1.0)  # some windows pass it
    factor = raising(events, log_h, np.ones(1), 0, lo, hi, 0.0, threshold)
    mean = cut_mean(g, lo, hi, log_h, factor * np.ones(1), events, threshold, worst)
    assert factor > 1.0
    np.testing.assert_allclose(mean, 1.0, rtol=1e-8)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_a_share_that_leads_is_given_back_what_is_beyond(seed: int, events: int) -> None:
    """Bets on a rise of one share and bets on values beside it, by every number of events that fall into the share."""
    g = np.random.default_rng(seed)
    p_lo, p_hi = sorted(g.uniform(0.01, 0.3, 2))
    targets = g.uniform(p_hi, 1.0, 4)
    share_in, share_out = np.log(targets / p_hi)[None, :], np.log((1.0 - targets) / (1.0 - p_hi))[None, :]
    evidence = np.array([0.0, *g.uniform(2.0, 5.0, 4), g.uniform(0.0, 1.0)], np.float32)
    weights = np.full(6, 1.0 / 6.0)
    before = float(weights @ (evidence.astype(float) + 0.1))
    threshold = before * float(g.uniform(1.1, 60.0))
    core, none = np.array([events - 1.0, 0.0]), np.zeros((2, 1))
    factor = tube_factor(
        core, np.ones(1, np.int64), threshold, np.array([0.4, 1.0]), np.array([0.6, 1.0]), none, share_in, share_out,
        np.array([p_lo]), np.array([p_hi]), weights * (evidence.astype(float) + 0.1), np.zeros(6),
    )  # fmt: skip
    stakes = factor * weights * (evidence.astype(float) + 0.1)
    rest = stakes[0] + stakes[-1]
    gates = np.array([1.0 - p_hi, 1.0]), np.array([1.0 - p_lo, 1.0])
    log_h = np.column_stack([np.vstack([share_out[0], share_in[0]]), np.zeros(2)])
    every = np.append(stakes[1:-1], rest)
    for _ in range(4):
        assert cut_mean(g, *gates, log_h, every, events, threshold, None) <= before * (1.0 + 1e-12)
    most = cut_mean(g, *gates, log_h, every, events, threshold, np.array([1.0 - p_hi, p_hi]))
    assert most <= before * (1.0 + 1e-12)
    own = cut_mean(g, *gates, log_h[:, :4], every[:4], events, threshold, np.array([1.0 - p_hi, p_hi]))
    if every[:4] @ np.exp(events * log_h[1, :4]) > 1.001 * threshold:  # some windows pass it
        assert factor > 1.0
        np.testing.assert_allclose(own + rest, before, rtol=1e-6)
