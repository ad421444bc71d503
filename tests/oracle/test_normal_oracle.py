"""detectors.normal against scipy.stats.norm."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from detectors.normal import cdf_all, log_cdf, pdf_all, ppf, ppf_all


def test_cdf_and_pdf_are_scipys() -> None:
    x = np.linspace(-37.0, 37.0, 20_001)
    np.testing.assert_allclose(cdf_all(x), norm.cdf(x), rtol=2e-13)
    np.testing.assert_allclose(pdf_all(x), norm.pdf(x), rtol=2e-13)


def test_ppf_is_scipys_in_the_middle_and_in_both_tails() -> None:
    p = np.concatenate(
        [np.linspace(1e-6, 1 - 1e-6, 20_001), 10.0 ** -np.arange(1.0, 300.0), 1 - 10.0 ** -np.arange(1.0, 16.0)]
    )
    np.testing.assert_allclose(ppf_all(p), norm.ppf(p), rtol=4e-15, atol=4e-15)


def test_ppf_is_finite_at_the_ends() -> None:
    assert ppf(0.0) < -37
    assert 8.2 < ppf(1.0) < 8.3


def test_log_cdf_is_scipys_and_continuous_at_the_switch() -> None:
    for x in (-1e8, -1000.0, -40.0, -30.0 - 1e-9, -30.0 + 1e-9, -5.0, 0.0, 3.0, 10.0):
        np.testing.assert_allclose(log_cdf(x), norm.logcdf(x), rtol=1e-9)
