"""From a reference profile and a window's counts to distances by name: the same numbers as in the windows record."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.binning import numeric_binning
from detectors.distance import ReferenceBins, WindowBins, prepared_distance, prepared_test
from detectors.verdict import BadSettings
from stream.window_statistics import Lens
from tests.unit.test_window_statistics import binning, counted, numeric, profile, target


def two_targets():
    """A number with far cuts and a category, in a reference; and the tally of a window that differs in both."""
    random = np.random.default_rng(2)
    x, y = random.normal(10, 2, 4000), random.normal(11, 2, 900)
    cut = numeric_binning(x)
    p, _, ends = numeric("a", cut.cuts, x, cut.centre)
    q, sums, extremes = numeric("a", cut.cuts, y, cut.centre)
    shape = profile(
        target("c", binning(labels=("DE", "FR", "__other__", "__unseen__")), [3000, 900, 60, 0, 40, 0]),
        target("a", cut, [*p, 30, 2], minimum=ends[0], maximum=ends[1], summary={"std": float(x.std())}),
    )
    tally = counted(
        "ca", [np.array([600, 250, 30, 15]), q], events=905, sums=[(0, 0), sums], extremes=[(np.nan, np.nan), extremes],
        missing=[10, 5], invalid=[0, 0],
    )  # fmt: skip
    return shape, tally, (x, y)


def test_distances_by_name_are_those_of_the_windows_record() -> None:
    shape, tally, _ = two_targets()
    statistics = Lens("ca", shape).statistics(tally)
    reference = ReferenceBins.of(shape.targets)
    window = WindowBins(tally.counts, *tally.extremes.T)
    for name in ("psi", "kolmogorov_smirnov", "jensen_shannon"):
        np.testing.assert_array_equal(prepared_distance(name, reference)(window), getattr(statistics, name))


def test_a_profile_gives_all_that_distances_along_values_need() -> None:
    shape, tally, (x, y) = two_targets()
    reference = ReferenceBins.of(shape.targets)
    assert reference.ordered_start.tolist() == [0, 0, shape.targets[1].binning.bins]
    window = WindowBins(tally.counts, *tally.extremes.T)
    moved = prepared_distance("wasserstein", reference)(window)
    assert np.isnan(moved[0])
    assert moved[1] == pytest.approx(y.mean() - x.mean(), rel=0.05)  # of a shift, the shift
    scaled = prepared_distance("wasserstein", reference, {"scale": "reference_std"})(window)
    assert scaled[1] == pytest.approx(moved[1] / x.std())


def test_unless_both_extremes_are_known_open_bins_have_no_width() -> None:
    unknown, before, now = np.full(1, np.nan), np.array([0, 10.0, 0, 0, 0]), np.array([0, 0, 10, 0, 0])
    ends = np.array([-np.inf, 0.0, 1.0, np.inf])
    one, three, zero = np.array([1.0]), np.array([3.0]), np.array([0.0])
    for known in (False, True):
        low, high = (zero, one) if known else (unknown, unknown)
        reference = ReferenceBins(np.array([0, 5]), before, np.arange(5) < 3, ends, low, high, unknown)
        measure = prepared_distance("wasserstein", reference)
        assert measure(WindowBins(now, unknown, unknown))[0] == pytest.approx(0.5)  # uniform on [0, 1], and at 1
        assert measure(WindowBins(now, one, three))[0] == pytest.approx(1.5 if known else 0.5)  # uniform on [1, 3]


def test_no_target_at_all() -> None:
    empty = np.zeros(0)
    reference = ReferenceBins.of(())
    window = WindowBins(np.zeros(0, np.int64), empty, empty)
    for name in ("psi", "kolmogorov_smirnov", "jensen_shannon", "hellinger", "l_infinity", "wasserstein", "energy"):
        assert prepared_distance(name, reference)(window).shape == (0,)
    for name in ("chi_squared", "g_test", "kolmogorov_smirnov_test"):
        assert prepared_test(name, reference)(window).p_value.shape == (0,)


@pytest.mark.parametrize(
    ("prepared", "name", "message"),
    [
        (prepared_distance, "chi_squared", "'chi_squared' is no distance; known here: energy, hellinger, jensen_shannon"),
        (prepared_distance, "helinger", "'helinger' is no distance; known here: energy, hellinger"),
        (prepared_test, "psi", "'psi' is no test; known here: chi_squared, g_test, kolmogorov_smirnov_test"),
        (prepared_test, "default", "'default' is no test"),
    ],
)  # fmt: skip
def test_a_name_that_is_none_of_the_family_is_refused_with_those_that_are(prepared, name, message) -> None:
    with pytest.raises(BadSettings) as refused:
        prepared(name, ReferenceBins.of(()))
    assert str(refused.value).startswith(message)
