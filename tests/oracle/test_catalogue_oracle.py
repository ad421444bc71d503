"""The catalogue against scipy: on raw rows within the error that each states, on bins exactly, and its p-values by simulation."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import special, stats
from scipy.spatial.distance import chebyshev, cityblock, jensenshannon

from detectors.binning import numeric_binning
from detectors.distance import ReferenceBins, WindowBins, prepared_distance, prepared_test
from detectors.distance import energy as energy_module
from detectors.distance import wasserstein as wasserstein_module
from detectors.distributions import chi_squared_tail, kolmogorov_tail, poisson_tail, smirnov_tail


def one_target(counts, ends=None, extremes=(np.nan, np.nan), std=np.nan):
    """A categorical target, or with `ends` a numeric one; missing and invalid are the last two counts."""
    counts = np.asarray(counts, np.float64)
    ordered = np.arange(len(counts)) < (0 if ends is None else len(counts) - 2)
    return ReferenceBins(
        np.array([0, len(counts)]), counts, ordered, np.zeros(0) if ends is None else np.asarray(ends),
        np.array([extremes[0]]), np.array([extremes[1]]), np.array([std]),
    )  # fmt: skip


def window_of(counts, extremes=(np.nan, np.nan)):
    return WindowBins(np.asarray(counts), np.array([extremes[0]]), np.array([extremes[1]]))


def binned(x, y):
    """(reference, window) of raw values, cut as a reference built from x cuts them."""
    cuts = numeric_binning(x).cuts
    p, q = (
        np.append(np.bincount(np.searchsorted(cuts, v, side="right"), minlength=len(cuts) + 1), [0, 0]) for v in (x, y)
    )
    ends = np.concatenate(([-np.inf], cuts, [np.inf]))
    return one_target(p, ends, (x.min(), x.max()), x.std()), window_of(q, (y.min(), y.max()))


def samples():
    random = np.random.default_rng(20)
    return {
        "normal": (random.normal(size=9000), random.normal(0.2, 1.1, 1500)),
        "same law": (random.normal(size=9000), random.normal(size=700)),
        "lognormal": (random.lognormal(0, 1, 9000), random.lognormal(0.1, 1, 2000)),
        "heavy": (random.lognormal(0, 3, 9000), random.lognormal(0.5, 3, 2000)),
        "t2.5": (random.standard_t(2.5, 9000), random.standard_t(2.5, 2000) * 1.2),
        "poisson": (random.poisson(3, 9000).astype(float), random.poisson(4, 1000).astype(float)),
        "zero inflated": (
            np.where(random.random(9000) < 0.6, 0, random.gamma(2, 5, 9000)),
            np.where(random.random(900) < 0.5, 0, random.gamma(2, 5, 900)),
        ),
        "far away": (random.normal(size=9000), random.normal(300, 40, 500)),
        "beyond every cut": (random.normal(size=9000), random.normal(3e9, 1e8, 500)),
        "one value": (np.full(100, 7.0), np.full(50, 9.0)),
    }


SAMPLES = samples()
each_sample = pytest.mark.parametrize("kind", SAMPLES)


# ---- distances along the values -------------------------------------------------------------------------------------


@each_sample
def test_wasserstein_is_within_its_error_of_scipy_on_raw_rows(kind):
    x, y = SAMPLES[kind]
    reference, window = binned(x, y)
    got = prepared_distance("wasserstein", reference)(window)[0]
    bound = wasserstein_module.error_bound(reference, window)[0]
    exact = stats.wasserstein_distance(x, y)
    assert abs(got - exact) <= bound * (1 + 1e-9) + 1e-9 * exact
    if kind in {"normal", "lognormal", "poisson", "t2.5", "zero inflated"}:
        assert bound < 0.3 * x.std()  # the bound says something
        assert got == pytest.approx(exact, rel=0.05)


@each_sample
def test_energy_is_within_its_error_of_scipy_on_raw_rows(kind):
    x, y = SAMPLES[kind]
    reference, window = binned(x, y)
    got = prepared_distance("energy", reference)(window)[0]
    bound = energy_module.error_bound(reference, window)[0]
    exact = stats.energy_distance(x, y)
    assert abs(got - exact) <= bound * (1 + 1e-9) + 1e-9 * exact
    if kind in {"normal", "lognormal", "poisson", "t2.5", "zero inflated"}:
        assert bound < 0.2 * math.sqrt(x.std())
        assert got == pytest.approx(exact, rel=0.05)


def fine_gap(reference, window, points=4001):
    """(x, F - G) on a fine grid inside every bin, both laws uniform in each."""
    p, q = reference.counts[:-2], window.counts[:-2]
    low = min(reference.minimum[0], window.minimum[0])
    high = max(reference.maximum[0], window.maximum[0])
    ends = np.clip(reference.ends, low, high)
    x = np.concatenate([np.linspace(a, b, points) for a, b in pairwise(ends)])
    knots = np.concatenate(([0.0], np.cumsum(p / p.sum() - q / q.sum())))
    gap = np.concatenate([np.linspace(a, b, points) for a, b in pairwise(knots)])
    return x, gap


@pytest.mark.parametrize("kind", ["normal", "lognormal", "poisson", "far away"])
def test_both_are_the_integrals_that_they_say_on_bins(kind):
    reference, window = binned(*SAMPLES[kind])
    x, gap = fine_gap(reference, window)
    assert prepared_distance("wasserstein", reference)(window)[0] == pytest.approx(
        np.trapezoid(np.abs(gap), x), rel=1e-6
    )
    assert prepared_distance("energy", reference)(window)[0] == pytest.approx(
        math.sqrt(2 * np.trapezoid(gap**2, x)), rel=1e-6
    )


def test_scaled_distances_do_not_change_with_the_unit():
    x, y = SAMPLES["normal"]
    for name, unit in (("wasserstein", x.std()), ("energy", math.sqrt(x.std()))):
        found = [
            prepared_distance(name, reference, {"scale": "reference_std"})(window)[0]
            for reference, window in (binned(x, y), binned(x * 1024, y * 1024))
        ]
        assert found[0] == pytest.approx(found[1], rel=1e-9)
        reference, window = binned(x, y)
        assert found[0] == pytest.approx(prepared_distance(name, reference)(window)[0] / unit)
    reference, window = binned(*SAMPLES["one value"])
    assert np.isnan(prepared_distance("wasserstein", reference, {"scale": "reference_std"})(window)[0])


@each_sample
def test_kolmogorov_smirnov_is_below_the_raw_one_by_at_most_a_bins_smaller_share(kind):
    x, y = SAMPLES[kind]
    reference, window = binned(x, y)
    got = prepared_distance("kolmogorov_smirnov", reference)(window)[0]
    exact = stats.ks_2samp(x, y, method="asymp").statistic
    p, q = reference.counts / reference.counts.sum(), window.counts / window.counts.sum()
    assert exact - np.minimum(p, q).max() - 1e-12 <= got <= exact + 1e-12


# ---- distances of shares --------------------------------------------------------------------------------------------


def random_counts(seed):
    random = np.random.default_rng(seed)
    width = int(random.integers(3, 90))
    return random.poisson(random.uniform(0, 30, width)), random.poisson(random.uniform(0, 6, width)) + (seed % 2)


@pytest.mark.parametrize("seed", range(20))
def test_distances_of_shares_equal_scipy_and_numpy(seed):
    p, q = random_counts(seed)
    reference, window = one_target(p), window_of(q)
    a, b = p / p.sum(), q / q.sum()
    expected = {
        "hellinger": np.linalg.norm(np.sqrt(a) - np.sqrt(b)) / math.sqrt(2),
        "total_variation": cityblock(a, b) / 2,
        "l_infinity": chebyshev(a, b),
        "jensen_shannon": jensenshannon(a, b) / math.sqrt(math.log(2)),  # scipy's default base is e
    }
    for name, exact in expected.items():
        assert prepared_distance(name, reference)(window)[0] == pytest.approx(exact, abs=1e-9), name


def chance(name, n=3000, m=9000, bins=60):
    """Distances of windows without any drift."""
    random = np.random.default_rng(5)
    law = random.dirichlet(np.full(bins, 20.0))
    return np.array(
        [
            prepared_distance(name, one_target(random.multinomial(m, law)))(window_of(random.multinomial(n, law)))[0]
            for _ in range(400)
        ]
    )


def test_chance_levels_are_what_the_docstrings_say():
    noise, bins = 1 / 3000 + 1 / 9000, 60
    assert np.sqrt(np.mean(chance("hellinger") ** 2)) == pytest.approx(math.sqrt((bins - 1) * noise / 8), rel=0.05)
    found, bound = chance("total_variation").mean(), math.sqrt((bins - 1) * noise) / 2
    assert 0.5 * bound < found < bound
    share = 0.05
    limit = math.sqrt(math.log(2 * bins / share) / 2) * (1 / math.sqrt(3000) + 1 / math.sqrt(9000))
    assert (chance("l_infinity") > limit).mean() <= 2 * share


def test_the_epsilon_is_part_of_psi():
    p, q = np.array([5000, 4990, 10, 0, 0]), np.array([500, 500, 0, 0, 0])
    found = {
        epsilon: prepared_distance("psi", one_target(p), {"epsilon_count": epsilon})(window_of(q))[0]
        for epsilon in (0.5, 1e-9)
    }
    assert found[0.5] < 0.005
    assert found[1e-9] > 0.01


# ---- tests ----------------------------------------------------------------------------------------------------------

LAMBDA = {"chi_squared": "pearson", "g_test": "log-likelihood"}
AT_MOST = {"chi_squared": 1.3, "g_test": 1.6}
contingency = pytest.mark.parametrize("name", LAMBDA)


@contingency
@pytest.mark.parametrize("seed", range(20))
def test_contingency_tests_equal_scipy_where_nothing_is_put_together(name, seed):
    p, q = random_counts(seed)
    got = prepared_test(name, one_target(p), {"expected_min": 0})(window_of(q))
    held = p + q > 0
    exact = stats.chi2_contingency(np.array([p[held], q[held]]), correction=False, lambda_=LAMBDA[name])
    assert got.statistic[0] == pytest.approx(exact.statistic, rel=1e-9)
    assert got.degrees[0] == exact.dof
    assert got.p_value[0] == pytest.approx(exact.pvalue, rel=1e-8, abs=1e-290)


def put_together(p, q, ordered, expected_min):
    """Cells and the sparse rest by the rule, written out."""
    share = min(p.sum(), q.sum()) / (p.sum() + q.sum())
    enough = lambda cell: sum(cell) > 0 and sum(cell) * share >= expected_min  # noqa: E731
    cells, open_cell = [], [0, 0]
    for a, b in zip(p[ordered], q[ordered], strict=True):
        open_cell = [open_cell[0] + a, open_cell[1] + b]
        if enough(open_cell):
            cells.append(open_cell)
            open_cell = [0, 0]
    if cells:
        cells[-1] = [cells[-1][0] + open_cell[0], cells[-1][1] + open_cell[1]]
        open_cell = [0, 0]
    apart = list(zip(p[~ordered], q[~ordered], strict=True))
    sparse = [open_cell, *(cell for cell in apart if not enough(cell))]
    cells += [cell for cell in apart if enough(cell)]
    rest = [sum(a for a, _ in sparse), sum(b for _, b in sparse)]
    if enough(rest):
        return [*cells, rest], [0, 0]
    return cells, rest


@contingency
@pytest.mark.parametrize("numeric", [True, False])
@pytest.mark.parametrize("seed", range(30))
def test_sparse_bins_are_put_together_by_the_rule(name, seed, numeric):
    random = np.random.default_rng(seed)
    law = random.dirichlet(np.full(int(random.integers(4, 60)), 0.3))
    p, q = random.multinomial(5000, law), random.multinomial(int(random.integers(8, 800)), law)
    reference = one_target(p, np.arange(len(p) - 1.0) if numeric else None)
    got = prepared_test(name, reference)(window_of(q))
    cells, rest = put_together(p, q, reference.ordered, 5.0)
    if len(cells) + (sum(rest) > 0) < 2:
        assert np.isnan([got.statistic[0], got.degrees[0], got.p_value[0]]).all()
        return
    statistic, p_value = 0.0, 1.0
    if len(cells) > 1:
        exact = stats.chi2_contingency(np.array(cells).T, correction=False, lambda_=LAMBDA[name])
        statistic, p_value = exact.statistic, exact.pvalue
    if sum(rest):
        rare = stats.poisson.sf(rest[1] - 1, sum(rest) * q.sum() / (p.sum() + q.sum()))
        p_value = min(1.0, 2 * min(p_value, rare))
    assert got.statistic[0] == pytest.approx(statistic, rel=1e-9, abs=1e-9)
    assert got.degrees[0] == len(cells) - 1
    assert got.p_value[0] == pytest.approx(p_value, rel=1e-8)


@contingency
def test_a_category_that_the_reference_never_had_is_not_put_away(name):
    p = np.array([60_000, 39_990, 10, 0, 0, 0])
    q = np.array([588, 400, 0, 12, 0, 0])  # .1 is expected of the new one, going by both samples together
    found = prepared_test(name, one_target(p))(window_of(q))
    assert found.p_value[0] < 1e-9


NULLS = {
    "80 bins, 2000 events of a number": (np.full(80, 1 / 80), 2000),
    "80 bins, 200 events of a number": (np.full(80, 1 / 80), 200),
    "80 bins, 1000 events, some missing, of a number": (np.append(np.full(80, 1 / 80) * 0.998, [0.002, 0]), 1000),
    "3 categories, 100 events": (np.array([0.9, 0.06, 0.04]), 100),
    "long tail, 500 events": (1 / np.arange(1, 60) / (1 / np.arange(1, 60)).sum(), 500),
    "rare only, 1000 events": (np.array([0.995, 0.004, 0.001]), 1000),
}


@contingency
@pytest.mark.parametrize("null", NULLS)
def test_without_drift_p_values_are_as_small_as_they_say(name, null):
    law, n = NULLS[null]
    random = np.random.default_rng(11)
    runs = 3000
    p = random.multinomial(20_000, law, runs)
    q = random.multinomial(n, law, runs)
    width = len(law)
    numeric = null.endswith("of a number")
    ordered = np.tile(np.arange(width) < width - 2, runs) if numeric else np.zeros(runs * width, bool)
    reference = ReferenceBins(
        np.arange(runs + 1) * width, p.ravel().astype(np.float64), ordered, np.zeros(0),
        *(np.full(runs, np.nan) for _ in range(3)),
    )  # fmt: skip
    nothing = np.full(runs, np.nan)
    found = prepared_test(name, reference)(WindowBins(q.ravel(), nothing, nothing)).p_value
    assert np.isfinite(found).mean() > 0.5
    for size in (0.01, 0.05, 0.1):
        rate = (found <= size).mean()
        noise = 3 * math.sqrt(size / runs)
        assert 0.4 * size - noise <= rate <= AT_MOST[name] * size + noise, (size, rate)


@pytest.mark.parametrize(("n", "m"), [(7, 20), (30, 40), (100, 200)])
def test_smirnov_on_raw_rows_equals_scipys_exact_one(n, m):
    """One bin for each value: nothing is lost, and few values are judged exactly."""
    random = np.random.default_rng(n)
    for shift in (0.0, 0.5, 1.5):
        values = np.concatenate((random.normal(size=m), random.normal(shift, 1, n)))
        rank = values.argsort().argsort()
        p, q = np.bincount(rank[:m], minlength=n + m + 2), np.bincount(rank[m:], minlength=n + m + 2)
        got = prepared_test("kolmogorov_smirnov_test", one_target(p, np.arange(n + m + 1.0)))(window_of(q))
        exact = stats.ks_2samp(values[:m], values[m:], method="exact")
        assert got.statistic[0] == pytest.approx(exact.statistic, abs=1e-12)
        assert got.p_value[0] == pytest.approx(exact.pvalue, rel=1e-9)
        assert np.isnan(got.degrees[0])


@pytest.mark.parametrize(("n", "m"), [(20, 5000), (50, 1000), (200, 5000), (500, 500), (1000, 2000)])
def test_kolmogorovs_limit_is_within_a_fifth_of_the_exact_law(n, m):
    for quantile in (0.8, 1.0, 1.36, 1.63, 1.95, 2.15):
        places = round(quantile / math.sqrt(n * m / (n + m)) * n * m)
        distance = places / (n * m)
        # the reference's values all in two bins, so that D is what we want it to be
        p = np.array([m, 0, 0, 0])
        exact = smirnov_tail(n, m, distance)
        if exact < 1e-4:
            continue
        root = math.sqrt(n * m / (n + m))
        assert kolmogorov_tail((root + 0.12 + 0.11 / root) * distance) == pytest.approx(exact, rel=0.2)
        near = round(distance * n)
        got = prepared_test("kolmogorov_smirnov_test", one_target(p, [-np.inf, 0, np.inf]))(
            window_of([n - near, near, 0, 0])
        )
        assert got.p_value[0] == pytest.approx(smirnov_tail(n, m, near / n), rel=0.2, abs=1e-4)


@pytest.mark.parametrize("n", [100, 1000])
def test_without_drift_smirnovs_p_values_are_never_too_small(n):
    random = np.random.default_rng(3)
    found = []
    for _ in range(800):
        reference, window = binned(random.normal(size=4000), random.normal(size=n))
        found.append(prepared_test("kolmogorov_smirnov_test", reference)(window).p_value[0])
    for size in (0.01, 0.05, 0.1, 0.3):
        assert np.mean(np.array(found) <= size) <= 1.2 * size + 3 * math.sqrt(size / 800)
    assert np.mean(np.array(found) <= 0.3) > 0.1  # careful, not deaf


# ---- distributions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [1, 2, 3, 10, 83, 500, 5000])
def test_chi_squared_tail_equals_scipy(degrees):
    spread = math.sqrt(2 * degrees)
    x = np.concatenate(([0.0], np.linspace(1e-3, 3, 60) * degrees, degrees + np.linspace(0, 30, 60) * spread))
    exact = stats.chi2.sf(x, degrees)
    for value, tail in zip(x[exact > 1e-290], exact[exact > 1e-290], strict=True):
        assert chi_squared_tail(value, float(degrees)) == pytest.approx(tail, rel=1e-11)


def test_chi_squared_tail_of_nothing_is_nan_and_of_very_much_zero():
    assert np.isnan([chi_squared_tail(1.0, 0.0), chi_squared_tail(np.nan, 1.0), chi_squared_tail(1.0, np.nan)]).all()
    assert (chi_squared_tail(1e9, 3.0), chi_squared_tail(1e300, 3.0)) == (0.0, 0.0)


@pytest.mark.parametrize("mean", [1e-6, 0.1, 1.0, 4.9, 30.0, 900.0])
def test_poisson_tail_equals_scipy(mean):
    for k in (0, 1, 2, 5, 20, 40, 100, 1000):
        exact = stats.poisson.sf(k - 1, mean)
        if exact > 1e-290:
            assert poisson_tail(float(k), mean) == pytest.approx(exact, rel=1e-11)


def test_kolmogorov_tail_equals_scipy():
    for x in (1e-3, 0.1, 0.3, 0.7, 0.9999999, 1.0, 1.3, 2.0, 5.0, 15.0):
        assert kolmogorov_tail(x) == pytest.approx(special.kolmogorov(x), rel=1e-13)
    assert kolmogorov_tail(0.0) == 1.0
    assert np.isnan(kolmogorov_tail(np.nan))
