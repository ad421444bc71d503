"""Sums of several columns or rows at once are those of one after the other, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.sequential.lanes import row_totals, weighted


@pytest.mark.parametrize("columns", [0, 1, 3, 4, 5, 8, 12, 16, 21, 35, 47])
def test_columns_at_once_are_columns_one_by_one(columns: int) -> None:
    g = np.random.default_rng(columns)
    wide = np.exp(g.normal(0.0, 9.0, (36, columns + 7)))
    rows, weights = wide[:, 3 : 3 + columns], g.integers(0, 9, 36) * 1.1
    out = np.full(columns + 1, -1.0)
    weighted(weights, rows, out)
    plain = np.zeros(columns)
    for weight, row in zip(weights, rows, strict=True):
        plain += weight * row
    np.testing.assert_array_equal(out[:-1], plain)
    assert out[-1] == -1.0  # nothing behind the last one is written


@pytest.mark.parametrize("each", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 4, 5, 9, 10, 12])
def test_rows_at_once_are_rows_one_by_one(count: int, each: int) -> None:
    rows = np.exp(np.random.default_rng(count).normal(0.0, 9.0, (count, each, 36))).astype(np.float32)
    out = np.full(count * each + 1, -1.0)
    row_totals(rows, out)
    plain = np.zeros((count, each))
    for column in np.moveaxis(rows, 2, 0):
        plain += column.astype(np.float64)
    np.testing.assert_array_equal(out[:-1], plain.reshape(-1))
    assert out[-1] == -1.0
