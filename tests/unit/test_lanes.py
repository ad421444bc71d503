"""Sums of several columns or rows at once are those of one after the other, bit for bit; exponentials are exact to the last digit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba.core.errors import TypingError
from numpy.typing import NDArray

from detectors.lanes import (
    EXPONENT_MAX,
    EXPONENT_MIN,
    LANES,
    exponentials,
    row_of,
    row_totals,
    total,
    weighted,
)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("columns", [0, 1, 3, 4, 5, 8, 12, 16, 21, 35, 47])
def test_columns_at_once_are_columns_one_by_one(columns: int, narrow: bool) -> None:
    g = np.random.default_rng(columns)
    wide = np.exp(g.normal(0.0, 9.0, (36, columns + 7)))
    every: NDArray[np.float32] | NDArray[np.float64] = wide.astype(np.float32) if narrow else wide
    rows, weights = every[:, 3 : 3 + columns], np.asarray(g.integers(0, 9, 36) * 1.1, np.float64)
    out = np.full(columns + 1, -1.0)
    weighted(weights, rows, out)
    plain = np.zeros(columns)
    for weight, row in zip(weights, rows, strict=True):
        plain += weight * row.astype(np.float64)
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


@pytest.mark.parametrize("count", [1, 3, 4, 7, 8, 12, 44, 1001])
def test_exponentials_are_exact_to_the_last_digit(count: int) -> None:
    g = np.random.default_rng(count)
    exponents = np.concatenate([g.uniform(EXPONENT_MIN, EXPONENT_MAX, count), g.normal(0.0, 0.01, count)])[
        g.permutation(2 * count)
    ]
    exponents = exponents[:count]
    found = exponents.copy()
    exponentials(found)
    exact = np.exp(exponents.astype(np.longdouble))
    assert float(np.abs((found - exact) / np.spacing(exact.astype(float))).max()) < 1.1
    alone = exponents[-1:].copy()
    exponentials(alone)
    assert alone[0] == found[-1]  # whichever stand beside it


def test_exponentials_at_their_ends() -> None:
    found = np.array([0.0, -0.0, EXPONENT_MIN, np.nextafter(EXPONENT_MIN, -np.inf), -np.inf, EXPONENT_MAX, 1e9, np.inf])
    exponentials(found)
    low, high = np.exp(EXPONENT_MIN), np.exp(EXPONENT_MAX)
    np.testing.assert_allclose(found, [1.0, 1.0, low, 0.0, 0.0, high, high, high], rtol=3e-16, atol=0.0)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 30, 44, 64])
def test_the_total_is_that_of_eight_lanes(count: int) -> None:
    numbers = np.exp(np.random.default_rng(count).normal(0.0, 9.0, count))
    whole = count - count % LANES
    lanes = np.zeros(LANES)
    for row in numbers[:whole].reshape(-1, LANES):
        lanes += row
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    expected = float(lanes[0])
    for number in numbers[whole:].tolist():
        expected += number
    assert total(numbers) == expected
    assert expected == pytest.approx(float(numbers.sum()), rel=1e-14)


def test_a_row_of_chosen_columns() -> None:
    wide = np.arange(40.0).reshape(4, 10)
    np.testing.assert_array_equal(row_of(wide[:, 3:8], 2), wide[2, 3:8])


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (total, (np.arange(9),)),
        (exponentials, (np.zeros(9, np.float32),)),
        (weighted, (np.arange(5), np.zeros((5, 5)), np.zeros(5))),
    ],
)
def test_other_numbers_than_doubles_are_refused(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Their bytes would be read as doubles."""
    with pytest.raises(TypingError):
        function(*arguments)
