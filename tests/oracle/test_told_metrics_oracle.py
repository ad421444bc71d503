"""Metrics that need more than their name, from the configuration to the records: against scikit-learn on the rows of each window."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from detectors.performance import Layout, MetricSettings, PerformanceSums, measure
from detectors.verdict import BadSettings
from tests.told_kit import Rows, records, replayed, settings

N = 2_400  # four windows of five minutes


def test_a_quantile_loss_is_scikit_learns_in_every_window() -> None:
    g = np.random.default_rng(1)
    quantiles = [0.05, 0.5, 0.9]
    label = g.gamma(2.0, 5.0, N)
    predicted = np.quantile(label, 0.9) + g.normal(0.0, 1.0, N)
    rows = Rows([{"prediction": float(p)} for p in predicted], label.tolist())
    own = settings({"metrics": ["quantile_loss", "mae"], "quantiles": quantiles})
    found = records(replayed(own, rows), "quantile_loss")
    assert [data["quantile"] for data in found] == quantiles * 4
    for data in found:
        here = rows.of(data["window"])
        assert data["counts"]["used"] == here.stop - here.start
        loss = sk.mean_pinball_loss(label[here], predicted[here], alpha=data["quantile"])
        assert data["value"] == pytest.approx(loss, rel=1e-12)
        assert data["low"] < data["value"] < data["high"]
        assert data["judged"]["state"] == "learning"


@pytest.mark.parametrize("kept", [(0.1, 0.5, 0.9), (0.3, 0.4)])
@pytest.mark.parametrize("sign", [-1.0, 0.0, 1.0])
def test_the_loss_of_any_quantile_follows_from_what_is_kept(kept: tuple[float, ...], sign: float) -> None:
    """Value and variance, of errors on both sides and on one alone."""
    g = np.random.default_rng(2)
    label = g.normal(1e3, 30.0, 5_000)
    error = g.standard_t(5, 5_000)
    predicted = label + (error if not sign else sign * np.abs(error))
    sums = PerformanceSums(Layout(errors=True, quantiles=kept))
    sums.add_errors(predicted, label)
    e = predicted - label
    for q in (0.001, 0.25, 0.7, 0.999):
        loss = np.where(e < 0, -q * e, (1 - q) * e)
        found = measure("quantile_loss", sums, MetricSettings(quantile=q))
        assert found.value == pytest.approx(sk.mean_pinball_loss(label, predicted, alpha=q), rel=1e-12)
        assert found.value == pytest.approx(loss.mean(), rel=1e-12)
        deviation = loss.std(ddof=1) / len(loss) ** 0.5 / loss.mean()  # on the logarithm
        assert np.log(found.high / found.low) == pytest.approx(2 * 1.959964 * deviation, rel=1e-6)


def test_losses_that_do_not_tell_the_sides_apart_are_refused() -> None:
    sums = PerformanceSums(Layout(errors=True, quantiles=(0.5,)))
    sums.add_errors(np.array([1.0, 2.0]), np.array([2.0, 1.0]))
    with pytest.raises(BadSettings, match="two quantiles"):
        measure("quantile_loss", sums, MetricSettings(quantile=0.25))
