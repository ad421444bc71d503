"""Where the catalogue says something else than the library that its users know, how much, and the test that shows it.

One table, for every family; the README renders it, and a test holds each row to a test that there is.
"""

from __future__ import annotations

from typing import NamedTuple


class Difference(NamedTuple):
    """`ours` is a name of the registry; `shown_by` is FILE::TEST under tests/."""

    ours: str
    other: str
    there: str
    here: str
    size: str
    shown_by: str


_CATALOGUE = "oracle/test_catalogue_oracle.py"
_ONLINE = "oracle/test_online_oracle.py"

DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "psi",
        "the textbook's formula",
        "an epsilon of somebody's choice in empty groups; edges of their own at each call where the library cuts both samples anew",
        "`epsilon_count` events in every group; groups are the reference's, ten of equal mass, and what stands apart one by one",
        "without bound: an empty group counts -ln(epsilon) times its share",
        f"{_CATALOGUE}::test_the_epsilon_is_part_of_psi",
    ),
    Difference(
        "kolmogorov_smirnov",
        "scipy.stats.ks_2samp",
        "the largest gap over all values",
        "the largest gap over the cuts",
        "lower, by at most the largest min(p, q) of any bin",
        f"{_CATALOGUE}::test_kolmogorov_smirnov_is_below_the_raw_one_by_at_most_a_bins_smaller_share",
    ),
    Difference(
        "jensen_shannon",
        "scipy.spatial.distance.jensenshannon",
        "natural logarithms unless `base` says otherwise: at most sqrt(ln 2) = .833",
        "base 2: at most 1",
        "a factor of sqrt(ln 2)",
        f"{_CATALOGUE}::test_distances_of_shares_equal_scipy_and_numpy",
    ),
    Difference(
        "wasserstein",
        "scipy.stats.wasserstein_distance",
        "raw values; NaN if one is missing",
        "both laws uniform within a bin; missing values have their own rate",
        "at most `error_bound`; on the test's samples 1 to 5 % (normal, lognormal, t, Poisson), 15 % (lognormal, sigma 3), half "
        "(all in one far bin)",
        f"{_CATALOGUE}::test_wasserstein_is_within_its_error_of_scipy_on_raw_rows",
    ),
    Difference(
        "energy",
        "scipy.stats.energy_distance",
        "raw values; NaN if one is missing",
        "both laws uniform within a bin; missing values have their own rate",
        "at most `error_bound`; on the test's samples 1 to 2 % (normal, lognormal, t, Poisson), 40 % (all in one far bin)",
        f"{_CATALOGUE}::test_energy_is_within_its_error_of_scipy_on_raw_rows",
    ),
    Difference(
        "chi_squared",
        "scipy.stats.chi2_contingency",
        "Yates' correction for two bins; sparse bins as they are; an error if a bin is empty on both sides",
        "no correction; sparse bins together, and a sparse rest apart; empty bins are left out",
        "none with `expected_min: 0` and `correction=False`",
        f"{_CATALOGUE}::test_contingency_tests_equal_scipy_where_nothing_is_put_together",
    ),
    Difference(
        "g_test",
        'scipy.stats.chi2_contingency(lambda_="log-likelihood")',
        "as for chi_squared",
        "as for chi_squared",
        "none with `expected_min: 0` and `correction=False`",
        f"{_CATALOGUE}::test_contingency_tests_equal_scipy_where_nothing_is_put_together",
    ),
    Difference(
        "kolmogorov_smirnov_test",
        "scipy.stats.ks_2samp",
        "exact up to samples of 10,000, then the law of one sample of round(n m / (n + m)) values",
        "exact up to `exact_pairs`, then the limit with Stephens' correction",
        "equal where exact and every value has a bin; else p within a fifth for p >= 1e-4 and 20 values",
        f"{_CATALOGUE}::test_kolmogorovs_limit_is_within_a_fifth_of_the_exact_law",
    ),
    Difference(
        "fhddm",
        "river.drift.binary.FHDDM",
        "fires when the share of ones falls, while its documentation calls a one an error",
        "fires when errors rise",
        "none if river is given 1 - value",
        f"{_ONLINE}::test_rivers_fhddm_fires_when_errors_become_fewer",
    ),
    Difference(
        "adwin",
        "river.drift.ADWIN",
        "takes NaN, and never fires again",
        "refuses what is not finite, and what is beyond +-1e9",
        "none on other values: the same index",
        f"{_ONLINE}::test_one_nan_silences_river_for_good",
    ),
    Difference(
        "page_hinkley",
        "river.drift.PageHinkley",
        "takes NaN, and never fires again",
        "refuses what is not finite, and what is beyond +-1e100, as all of this family do",
        "none on other values: the same index",
        f"{_ONLINE}::test_one_nan_silences_river_for_good",
    ),
    Difference(
        "kswin",
        "river.drift.KSWIN",
        "draws otherwise on each run unless it is told a seed",
        "`seed`, 0 unless it is configured; the generator is part of the state",
        "none with the same seed: the same index",
        f"{_ONLINE}::test_rivers_kswin_draws_otherwise_each_time_unless_it_is_told_a_seed",
    ),
)
