"""Multivariate detectors against exact values: the kernel two-sample statistic, scikit-learn's PCA, its ridge, SciPy's U."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from detectors.multivariate import ReferenceRows, RowWindow, prepared
from detectors.multivariate import domain_classifier as domain
from detectors.multivariate import mmd_random_features as mmd
from detectors.multivariate.rows import standardised

NAMES = tuple("abcde")


def rows(n: int, seed: int, *, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 5)) @ np.random.default_rng(0).standard_normal((5, 5)) + shift


def gaussian(x: np.ndarray, y: np.ndarray, bandwidth: float) -> np.ndarray:
    square = ((x[:, None, :] - y[None, :, :]) ** 2).sum(axis=2)
    return np.exp(-square / (2.0 * bandwidth**2))


def exact_mmd(x: np.ndarray, y: np.ndarray, bandwidth: float) -> float:
    """Gretton et al. 2012, equation 3: unbiased."""
    n, m = len(x), len(y)
    xx, yy, xy = gaussian(x, x, bandwidth), gaussian(y, y, bandwidth), gaussian(x, y, bandwidth)
    return (xx.sum() - n) / (n * (n - 1)) + (yy.sum() - m) / (m * (m - 1)) - 2.0 * xy.mean()


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0, 3.0])
def test_mmd_is_the_exact_one_within_its_stated_deviation(shift: float) -> None:
    """Over draws of the frequencies (another name is another draw): its deviation, and no bias."""
    then, now = rows(400, 1), rows(300, 2, shift=shift)
    frequencies, draws = 128, 60
    found = []
    for draw in range(draws):
        reference = ReferenceRows(tuple(f"{name}{draw}" for name in NAMES), then)
        ready = prepared("mmd_random_features", reference, {"frequencies": frequencies})
        found.append(ready.measure(RowWindow(ready.summed(now), now)))
    tables = ready.tables
    x, y = (standardised(part, tables["centre"], tables["inverse"])[0] for part in (now, then))
    bandwidth = mmd.median_distance(y)
    exact = exact_mmd(x, y, bandwidth)
    biased = gaussian(x, x, bandwidth).mean() + gaussian(y, y, bandwidth).mean() - 2 * gaussian(x, y, bandwidth).mean()
    bound = 2.0 * math.sqrt(biased / frequencies)
    assert np.std(found) <= bound
    assert abs(np.mean(found) - exact) <= 4.0 * bound / math.sqrt(draws)


def test_mean_embeddings_are_cosines_and_sines_to_fixed_point() -> None:
    then = rows(300, 3)
    ready = prepared("mmd_random_features", ReferenceRows(NAMES, then), {"frequencies": 32})
    x, _ = standardised(then, ready.tables["centre"], ready.tables["inverse"])
    phase = 2 * np.pi * x @ ready.tables["frequency"]
    found = ready.summed(then)[1:] / 2**20 / 300
    assert np.abs(found - np.concatenate((np.cos(phase).mean(0), np.sin(phase).mean(0)))).max() < 2**-21 + 1e-7


def test_frequencies_are_normal_with_the_inverse_bandwidth() -> None:
    ready = prepared("mmd_random_features", ReferenceRows(NAMES, rows(300, 4)), {"frequencies": 512, "bandwidth": 0.5})
    x, _ = standardised(rows(300, 4), ready.tables["centre"], ready.tables["inverse"])
    z = np.sort((ready.tables["frequency"] * 2 * np.pi * 0.5 * mmd.median_distance(x)).reshape(-1))
    distance = np.abs(norm.cdf(z) - (np.arange(len(z)) + 0.5) / len(z)).max()
    assert distance < 1.63 / math.sqrt(len(z))  # Kolmogorov, 1 %


def test_quiet_windows_have_an_mmd_around_zero() -> None:
    ready = prepared("mmd_random_features", ReferenceRows(NAMES, rows(4000, 5)))
    found = [ready.measure(RowWindow(ready.summed(rows(400, seed)), np.empty((0, 5)))) for seed in range(100, 160)]
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(60) + 1 / 4000


@pytest.mark.parametrize("explained", [0.3, 0.65, 0.9])
def test_reconstruction_error_is_that_of_scikit_learn(explained: float) -> None:
    then, now = rows(1000, 6), rows(500, 7, shift=0.4)
    ready = prepared("pca_reconstruction", ReferenceRows(NAMES, then), {"explained": explained, "unit": "deviation"})
    scaler = StandardScaler().fit(then)
    pca = PCA(n_components=explained, svd_solver="full").fit(scaler.transform(then))
    assert len(ready.tables["component"]) == pca.n_components_
    x = scaler.transform(now)
    back = (x @ pca.components_.T) @ pca.components_  # about the reference's mean, which is 0 in its deviations
    exact = np.linalg.norm(x - back, axis=1).mean()
    assert ready.measure(RowWindow(ready.summed(now), now)) == pytest.approx(exact, abs=1e-5)


def test_the_reference_has_one_unit_of_reconstruction_error() -> None:
    then = rows(1000, 8)
    ready = prepared("pca_reconstruction", ReferenceRows(NAMES, then))
    assert ready.measure(RowWindow(ready.summed(then), then)) == pytest.approx(1.0, abs=1e-9)


def test_area_is_that_of_scikit_learn_and_mann_whitney() -> None:
    rng = np.random.default_rng(9)
    for ties in (2, 10, 1000):
        score = rng.integers(0, ties, 400).astype(float)
        positive = rng.random(400) < 0.3
        found = domain.area(score, positive)
        assert found == pytest.approx(roc_auc_score(positive, score), abs=1e-12)
        u = mannwhitneyu(score[positive], score[~positive]).statistic
        assert found == pytest.approx(u / (positive.sum() * (~positive).sum()), abs=1e-12)


def test_weights_are_those_of_a_ridge_with_balanced_rows() -> None:
    inputs = np.concatenate((rows(300, 10), rows(100, 11, shift=0.5)))
    label = np.repeat((0.0, 1.0), (300, 100))
    weight = np.where(label > 0, 0.5 / 100, 0.5 / 300) * 400
    exact = Ridge(alpha=2.0).fit(inputs, label, sample_weight=weight)
    assert domain.fitted(inputs, label, 2.0) == pytest.approx(exact.coef_, rel=1e-9)


def test_the_classifier_has_half_the_area_without_drift_and_its_stated_deviation() -> None:
    ready = prepared("domain_classifier", ReferenceRows(NAMES, rows(2000, 12)))
    found = [ready.measure(RowWindow(np.empty(0, np.int64), rows(500, seed))) for seed in range(200, 260)]
    fixed = math.sqrt((500 + 2000 + 1) / (12 * 500 * 2000))
    assert abs(np.mean(found) - 0.5) < 0.005
    assert fixed < np.std(found) < 2.0 * fixed


@pytest.mark.parametrize("shift", [0.5, 1.0])
def test_the_classifier_finds_what_the_best_direction_finds(shift: float) -> None:
    """Two normals that differ by a shift: no classifier has more than Phi(Mahalanobis / sqrt 2)."""
    then, now = rows(2000, 13), rows(2000, 14, shift=shift)
    mixing = np.random.default_rng(0).standard_normal((5, 5))
    distance = np.linalg.norm(np.linalg.solve(mixing.T, np.full(5, shift)))
    ready = prepared("domain_classifier", ReferenceRows(NAMES, then), {"rows": 2000})
    found = ready.measure(RowWindow(np.empty(0, np.int64), now))
    assert found == pytest.approx(norm.cdf(distance / math.sqrt(2)), abs=0.02)
