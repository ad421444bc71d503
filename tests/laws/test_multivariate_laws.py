"""Multivariate detectors: their sums merge exactly, however rows are cut and ordered, and quiet rows stay quiet."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import detectors
from detectors.multivariate import ReferenceRows, RowWindow, prepared, sample_rows, summing
from detectors.multivariate.rows import BadRows
from detectors.registry import Family
from detectors.verdict import BadSettings

NAMES = [name for name, entry in detectors.REGISTRY.items() if entry.family is Family.MULTIVARIATE]
SUMMING = ("mmd_random_features", "pca_reconstruction")
F = 6


def rows(n: int, seed: int, *, missing: float = 0.0) -> np.ndarray:
    """Correlated normals in units of their own, some of them missing."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((n, 3)) @ np.random.default_rng(1).standard_normal((3, F))
    found = (mixed + 0.3 * rng.standard_normal((n, F))) * np.array([1, 10, 1e-3, 1e6, 1, 5]) + 7.0
    found[rng.random((n, F)) < missing] = np.nan
    return found


REFERENCE = ReferenceRows(tuple("abcdef"), rows(2000, 2, missing=0.02))
READY = {name: prepared(name, REFERENCE) for name in NAMES}


def window(name: str, values: np.ndarray) -> RowWindow:
    return RowWindow(READY[name].summed(values), values[: sample_rows(name)])


@settings(max_examples=40)
@given(st.integers(0, 1 << 30), st.lists(st.integers(0, 120), min_size=1, max_size=6), st.sampled_from(SUMMING))
def test_sums_merge_exactly_in_any_cut_and_order(seed: int, cuts: list[int], name: str) -> None:
    values = rows(120, seed, missing=0.1)
    whole = READY[name].summed(values)
    rng = np.random.default_rng(seed)
    parts = np.split(values[rng.permutation(120)], sorted(cuts))
    rng.shuffle(parts)
    merged = sum((READY[name].summed(part) for part in parts), np.zeros_like(whole))
    assert merged.tolist() == whole.tolist()
    assert whole[0] == 120


@pytest.mark.parametrize("name", SUMMING)
def test_what_is_carried_is_enough_to_add(name: str) -> None:
    values = rows(50, 3)
    carried = READY[name].carried()
    assert summing(name, carried).summed(values).tolist() == READY[name].summed(values).tolist()
    assert set(carried) < set(READY[name].tables)


@pytest.mark.parametrize("name", NAMES)
def test_broken_values_neither_raise_nor_make_it_less_than_a_number(name: str) -> None:
    values = rows(100, 4)
    values[0, 0], values[1, 1], values[2, 2] = np.inf, -1e308, 1e308
    values[3] = np.nan
    found = window(name, values)
    assert math.isfinite(READY[name].measure(found))
    if len(found.sums):
        assert found.sums[0] == 99  # a row without any value is none


def test_one_value_far_out_counts_as_so_far_and_no_further() -> None:
    for name in SUMMING:
        centre, inverse = (READY[name].tables[table][0] for table in ("centre", "inverse"))
        row = REFERENCE.values[:1].copy()
        found = []
        for far in (100.0, 1e30):
            row[0, 0] = centre + far / inverse
            found.append(READY[name].summed(row).tolist())
        assert found[0] == pytest.approx(found[1], abs=30)


@pytest.mark.parametrize("name", NAMES)
def test_a_window_without_rows_has_no_value(name: str) -> None:
    assert math.isnan(READY[name].measure(window(name, np.empty((0, F)))))


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_correlation_is_found_that_no_feature_shows_alone(name: str) -> None:
    """Every column is shuffled by itself: the marginal laws are those of the quiet rows exactly."""
    quiet, broken = rows(1500, 5), rows(1500, 5)
    rng = np.random.default_rng(6)
    for place in range(F):
        broken[:, place] = rng.permutation(broken[:, place])
    still = [READY[name].measure(window(name, rows(1500, seed))) for seed in range(10, 22)]
    if name == "domain_classifier":  # linear in features and squares: it says of itself that it does not see this
        assert READY[name].measure(window(name, broken)) < 0.58
        return
    assert READY[name].measure(window(name, broken)) > max(still) + 5 * np.std(still)
    assert READY[name].measure(window(name, quiet)) < max(still) + 5 * np.std(still)


@pytest.mark.parametrize("name", NAMES)
def test_a_shift_of_half_a_deviation_in_two_features_is_found(name: str) -> None:
    still = [READY[name].measure(window(name, rows(500, seed))) for seed in range(30, 42)]
    moved = rows(500, 7)
    moved[:, [0, 4]] += 0.5 * np.nanstd(REFERENCE.values[:, [0, 4]], axis=0) * [1, -1]
    assert READY[name].measure(window(name, moved)) > max(still) + 3 * np.std(still)


@pytest.mark.parametrize("name", NAMES)
def test_a_reference_that_shows_nothing_is_refused(name: str) -> None:
    with pytest.raises(BadRows, match="10 rows of the reference are kept; 50 are needed"):
        prepared(name, ReferenceRows(("a",), np.arange(10.0)[:, None]))
    with pytest.raises(BadRows, match="no numeric feature of the reference varies"):
        prepared(name, ReferenceRows(("a", "b"), np.array([[1.0, np.nan]] * 60)))
    with pytest.raises(BadSettings, match="'psi' is no multivariate detector"):
        prepared("psi", REFERENCE)


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_feature_changes_nothing(name: str) -> None:
    """It has no deviation to be measured in, and must not become a division by zero."""
    values = REFERENCE.values.copy()
    values[:, 5] = 3.0
    with_constant = prepared(name, ReferenceRows(REFERENCE.names, values))
    now = rows(300, 8)
    now[:, 5] = 3.0
    found = with_constant.measure(RowWindow(with_constant.summed(now), now))
    now[:, 5] = 4.0
    assert with_constant.measure(RowWindow(with_constant.summed(now), now)) == found
    assert math.isfinite(found)


def test_rows_that_components_pass_whole_have_no_unit() -> None:
    line = np.arange(100.0)[:, None] * np.array([[1.0, 2.0]])
    exact = prepared("pca_reconstruction", ReferenceRows(("a", "b"), line))
    found = exact.measure(RowWindow(exact.summed(line), line))
    assert math.isnan(found) or abs(found - 1.0) < 1e-9
    deviation = prepared("pca_reconstruction", ReferenceRows(("a", "b"), line), {"unit": "deviation"})
    assert deviation.measure(RowWindow(deviation.summed(line), line)) < 1e-5
