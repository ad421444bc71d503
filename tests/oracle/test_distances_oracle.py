"""Distances against scipy and plain numpy, target by target."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp

from detectors.distance import jensen_shannon, kolmogorov_smirnov, population_groups, psi
from detectors.distance.psi import EPSILON_COUNT, GROUPS


def ragged(parts):
    start = np.concatenate(([0], np.cumsum([len(part) for part in parts]))).astype(np.int64)
    return np.concatenate([np.asarray(part) for part in parts]).astype(np.int64), start


def random_parts(seed):
    random = np.random.default_rng(seed)
    widths = random.integers(1, 90, 7)
    reference = [random.poisson(random.uniform(0, 30, width)) for width in widths]
    window = [random.poisson(random.uniform(0, 5, width)) for width in widths]
    reference[2][:] = 0
    window[3][:] = 0
    return reference, window


@pytest.mark.parametrize("seed", range(20))
def test_jensen_shannon_equals_scipy(seed):
    reference, window = random_parts(seed)
    flat, start = ragged(reference)
    got = jensen_shannon(flat, ragged(window)[0], start)
    for value, p, q in zip(got, reference, window, strict=True):
        if p.sum() == 0 or q.sum() == 0:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(jensenshannon(p, q, base=2), abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_kolmogorov_smirnov_equals_scipy_on_the_binned_values(seed):
    reference, window = random_parts(seed)
    flat, start = ragged(reference)
    got = kolmogorov_smirnov(flat, ragged(window)[0], start)
    for value, p, q in zip(got, reference, window, strict=True):
        if p.sum() == 0 or q.sum() == 0:
            assert np.isnan(value)
            continue
        values = np.arange(len(p))
        expected = ks_2samp(np.repeat(values, p), np.repeat(values, q), method="asymp").statistic
        assert value == pytest.approx(expected, abs=1e-12)


def test_kolmogorov_smirnov_of_raw_values_differs_by_at_most_a_bin():
    random = np.random.default_rng(3)
    x, y = random.normal(size=4000), random.normal(0.3, 1, 3000)
    cuts = np.quantile(x, np.linspace(0, 1, 41)[1:-1])
    p = np.bincount(np.searchsorted(cuts, x, side="right"), minlength=40)
    q = np.bincount(np.searchsorted(cuts, y, side="right"), minlength=40)
    exact = ks_2samp(x, y).statistic
    binned = kolmogorov_smirnov(p, q, np.array([0, 40]))[0]
    assert exact - (q / q.sum()).max() - (p / p.sum()).max() <= binned <= exact + 1e-12


@pytest.mark.parametrize("seed", range(20))
def test_psi_equals_its_definition_on_the_groups(seed):
    reference, window = random_parts(seed)
    flat, start = ragged(reference)
    random = np.random.default_rng(seed)
    ordered = random.random(len(flat)) < 0.9
    group, group_start = population_groups(flat, ordered, start)
    got = psi(flat, ragged(window)[0], group, group_start)
    for target, (value, p, q) in enumerate(zip(got, reference, window, strict=True)):
        groups = group[start[target] : start[target + 1]] - group_start[target]
        size = group_start[target + 1] - group_start[target]
        a = np.array([p[groups == g].sum() for g in range(size)]) + EPSILON_COUNT
        b = np.array([q[groups == g].sum() for g in range(size)]) + EPSILON_COUNT
        a, b = a / a.sum(), b / b.sum()
        if p.sum() == 0 or q.sum() == 0:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(sum((y - x) * np.log(y / x) for x, y in zip(a, b, strict=True)))


def test_ordered_bins_make_ten_groups_of_a_tenth_each():
    counts = np.full(100, 7)
    group, start = population_groups(counts, np.ones(100, bool), np.array([0, 100]))
    assert start.tolist() == [0, GROUPS]
    assert np.bincount(group).tolist() == [10] * GROUPS


def test_bins_that_stand_apart_keep_groups_of_their_own():
    counts = np.array([5, 5, 5, 5, 1, 2])
    ordered = np.array([True, True, True, True, False, False])
    group, start = population_groups(counts, ordered, np.array([0, 6]))
    assert group.tolist() == [0, 1, 2, 3, 4, 5]
    assert start.tolist() == [0, 6]


def test_chance_level_of_psi_is_what_the_docstring_says():
    random = np.random.default_rng(0)
    n, m = 2000, 5000
    values = []
    for _ in range(400):
        p = random.multinomial(m, np.full(80, 1 / 80))
        q = random.multinomial(n, np.full(80, 1 / 80))
        group, start = population_groups(p, np.ones(80, bool), np.array([0, 80]))
        values.append(psi(p, q, group, start)[0])
    assert np.mean(values) == pytest.approx((GROUPS - 1) * (1 / n + 1 / m), rel=0.1)


def test_chance_level_of_jensen_shannon_is_what_the_docstring_says():
    random = np.random.default_rng(0)
    n, m = 20_000, 50_000
    start = np.array([0, 80])
    values = [
        jensen_shannon(random.multinomial(m, np.full(80, 1 / 80)), random.multinomial(n, np.full(80, 1 / 80)), start)[0]
        for _ in range(400)
    ]
    assert np.sqrt(np.mean(np.square(values))) == pytest.approx(
        np.sqrt(79 * (1 / n + 1 / m) / (8 * np.log(2))), rel=0.05
    )


@pytest.mark.parametrize("moved", [1, 30, 1_000, 30_000, 99_999])
def test_jensen_shannon_has_its_last_digits_where_little_moved(moved):
    reference = np.array([100_000, 100_000, 0, 50])
    window = reference + np.array([moved, -moved, 0, 0])
    start = np.array([0, 4])
    p, q = ([Fraction(int(x), int(side.sum())) for x in side] for side in (reference, window))
    with localcontext(prec=50):
        total = Decimal(0)
        for a, b in zip(p, q, strict=True):
            for share in (a, b):
                if share:
                    ratio = 2 * share / (a + b)
                    term = (Decimal(ratio.numerator) / ratio.denominator).ln() * share.numerator / share.denominator
                    total += term
        exact = float((total / 2 / Decimal(2).ln()).sqrt())
    (got,) = jensen_shannon(reference, window, start)
    assert got == pytest.approx(exact, rel=1e-14)
