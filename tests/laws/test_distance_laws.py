"""Laws of every distance: d(p, p) = 0, bounds, symmetry, and independence of the other targets in the array."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import RECORDED as DISTANCES
from detectors.distance import jensen_shannon, kolmogorov_smirnov, population_groups, psi

counts = st.integers(1, 30).flatmap(
    lambda width: st.tuples(
        st.lists(st.integers(0, 10_000), min_size=width, max_size=width),
        st.lists(st.integers(0, 10_000), min_size=width, max_size=width),
    )
)
parts = st.lists(counts, min_size=1, max_size=5)


def all_distances(pairs):
    start = np.concatenate(([0], np.cumsum([len(p) for p, _ in pairs]))).astype(np.int64)
    p = np.concatenate([np.array(p) for p, _ in pairs])
    q = np.concatenate([np.array(q) for _, q in pairs])
    group, group_start = population_groups(p, np.ones(len(p), bool), start)
    return {
        "psi": psi(p, q, group, group_start),
        "kolmogorov_smirnov": kolmogorov_smirnov(p, q, start),
        "jensen_shannon": jensen_shannon(p, q, start),
    }


def test_every_distance_is_named():
    assert tuple(all_distances([([1, 2], [3, 4])])) == DISTANCES


@given(parts)
@settings(max_examples=100, deadline=None)
def test_equal_counts_are_at_distance_zero(pairs):
    for values in all_distances([(p, p) for p, _ in pairs]).values():
        for value, (p, _) in zip(values, pairs, strict=True):
            assert np.isnan(value) if sum(p) == 0 else value == pytest.approx(0, abs=1e-7)


@given(parts)
@settings(max_examples=100, deadline=None)
def test_distances_are_not_negative_and_the_bounded_ones_at_most_one(pairs):
    values = all_distances(pairs)
    for name in DISTANCES:
        finite = values[name][~np.isnan(values[name])]
        assert (finite >= -1e-12).all()
        if name != "psi":
            assert (finite <= 1 + 1e-12).all()


@given(parts)
@settings(max_examples=60, deadline=None)
def test_a_target_does_not_depend_on_its_neighbours(pairs):
    together = all_distances(pairs)
    for index, pair in enumerate(pairs):
        alone = all_distances([pair])
        for name in DISTANCES:
            np.testing.assert_allclose(together[name][index], alone[name][0], rtol=1e-9, atol=1e-9)


@given(parts)
@settings(max_examples=60, deadline=None)
def test_symmetric_distances_are_symmetric(pairs):
    swapped = all_distances([(q, p) for p, q in pairs])
    for name in ("kolmogorov_smirnov", "jensen_shannon"):
        np.testing.assert_allclose(all_distances(pairs)[name], swapped[name], atol=1e-7)
