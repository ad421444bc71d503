"""Small cases by hand, of what the oracles' random ones do not tell from its neighbour."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import kolmogorov

from detectors.distance.kolmogorov_smirnov_test import _tail
from detectors.distance.psi import population_groups
from detectors.multivariate.mmd_random_features import median_distance
from detectors.multivariate.pca_reconstruction import components
from detectors.online import page_hinkley


def test_a_bin_is_in_the_group_in_which_its_middle_lies() -> None:
    group, start = population_groups(np.array([30, 70]), np.array([True, True]), np.array([0, 2]), groups=2)
    assert (group.tolist(), start.tolist()) == ([0, 1], [0, 2])


def test_the_limit_of_the_smirnov_test_has_both_corrections() -> None:
    root = np.sqrt(5.0)
    assert _tail(10.0, 10.0, 0.4, exact_pairs=0) == pytest.approx(
        kolmogorov((root + 0.12 + 0.11 / root) * 0.4), abs=1e-9
    )


def test_a_fall_is_as_far_for_both_sides_as_for_the_lower_one() -> None:
    both, down = (page_hinkley.start(page_hinkley.Parameters(mode=mode)) for mode in ("both", "down"))
    for value in [0.0] * 50 + [-1.0] * 20:
        told = page_hinkley.update(both, value), page_hinkley.update(down, value)
    assert told[0].statistic == told[1].statistic > 5.0


def test_the_bandwidth_is_the_median_of_the_distances_and_not_their_mean() -> None:
    assert median_distance(np.array([[0.0], [1.0], [10.0]])) == 9.0


def test_components_pass_more_than_the_share_that_is_asked_for() -> None:
    rows = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert len(components(rows, 0.5)) == 2
    assert len(components(rows, 0.49)) == 1
