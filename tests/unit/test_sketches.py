from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.sketches import distinct
from detectors.sketches.sample import bottom


def registers_of(hashes: np.ndarray) -> np.ndarray:
    registers = np.zeros(distinct.REGISTERS, np.uint8)
    distinct.add(registers, hashes)
    return registers


def test_nothing_counted_is_zero() -> None:
    assert distinct.estimate(np.zeros(distinct.REGISTERS, np.uint8)) == 0.0


@pytest.mark.parametrize("n", [1, 2, 10, 100, 1_000, 5_000, 20_000, 200_000])
def test_the_stated_error_holds_at_every_cardinality(n: int) -> None:
    errors = []
    for seed in range(40):
        hashes = np.random.default_rng((n, seed)).integers(0, 1 << 63, n).astype(np.uint64) * np.uint64(2)
        errors.append(distinct.estimate(registers_of(hashes)) / n - 1.0)
    stated = 1.04 / math.sqrt(distinct.REGISTERS)
    assert np.std(errors) < 1.35 * stated
    assert abs(np.mean(errors)) < 4 * stated / math.sqrt(40)


def test_extreme_hashes() -> None:
    registers = registers_of(np.array([0, (1 << 64) - 1], np.uint64))
    assert registers[0] == distinct.RANK_MAX
    assert registers[-1] == 1
    saturated = np.full(distinct.REGISTERS, distinct.RANK_MAX, np.uint8)
    assert distinct.estimate(saturated) > 1e18


def test_merging_is_a_union_and_refuses_other_sizes() -> None:
    g = np.random.default_rng(3)
    a, b = (g.integers(0, 1 << 63, 3_000).astype(np.uint64) for _ in range(2))
    merged = registers_of(a)
    distinct.merge(merged, registers_of(b))
    np.testing.assert_array_equal(merged, registers_of(np.concatenate([b, a, a])))
    with pytest.raises(ValueError, match="cannot be merged"):
        distinct.merge(merged, np.zeros(16, np.uint8))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=60), st.integers(0, 12))
def test_bottom_k_is_the_sorted_head(rows: list[tuple[int, int]], k: int) -> None:
    high, low = (np.array([r[i] for r in rows], d) for i, d in ((0, np.uint64), (1, np.uint32)))
    assert bottom(k, high, low).tolist() == sorted(range(len(rows)), key=lambda i: rows[i])[:k]
    assert bottom(k, high).tolist() == sorted(range(len(rows)), key=lambda i: rows[i][0])[:k]


def test_bottom_k_of_parts_is_bottom_k_of_the_whole() -> None:
    high = np.random.default_rng(1).integers(0, 1 << 63, 5_000).astype(np.uint64)
    parts = np.concatenate([p[bottom(50, p)] for p in np.array_split(high, 7)])
    np.testing.assert_array_equal(parts[bottom(50, parts)], np.sort(high)[:50])
