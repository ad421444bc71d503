"""Metrics that need more than their name, from the configuration to the records: against scikit-learn on the rows of each window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
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


@pytest.mark.parametrize("positive", ["0", "1"])
def test_a_business_value_is_the_mean_of_what_rows_are_worth(positive: str) -> None:
    g = np.random.default_rng(3)
    label = (g.random(N) < 0.3).astype(int)
    predicted = np.where(g.random(N) < 0.8, label, 1 - label)
    worth = {"true_positive": 40.0, "false_positive": -3.5, "false_negative": -25.0, "true_negative": 0.25}
    own = settings({
        "metrics": ["business_value"], "positive": positive, "business_value": {"unit": "EUR", "values": worth},
    })  # fmt: skip
    rows = Rows([{"prediction": int(p), "score": 0.5} for p in predicted], label.tolist())
    found = records(replayed(own, rows), "business_value")
    yes = int(positive)
    assert len(found) == 4
    for data in found:
        here = rows.of(data["window"])
        matrix = sk.confusion_matrix(label[here], predicted[here], labels=[1 - yes, yes])
        (tn, fp), (fn, tp) = matrix.tolist()
        total = 40.0 * tp - 3.5 * fp - 25.0 * fn + 0.25 * tn
        assert data["value"] == pytest.approx(total / matrix.sum(), rel=1e-12)
        each = np.repeat([40.0, -3.5, -25.0, 0.25], [tp, fp, fn, tn])
        half = stats.t.ppf(0.975, len(each) - 1) * each.std(ddof=1) / len(each) ** 0.5
        assert (data["low"], data["high"]) == pytest.approx((each.mean() - half, each.mean() + half), rel=1e-5)
        assert data["unit"] == "EUR"
        assert data["judged"]["state"] == "learning"


def test_a_business_value_of_several_classes() -> None:
    g = np.random.default_rng(4)
    classes = ["cat", "dog", "owl"]
    amounts = g.normal(0.0, 10.0, (3, 3)).round(2)
    label, predicted = g.integers(0, 3, N), g.integers(0, 3, N)
    matrix = {a: {b: float(amounts[i, j]) for j, b in enumerate(classes)} for i, a in enumerate(classes)}
    own = settings({"metrics": ["business_value"], "classes": classes, "business_value": {"matrix": matrix}})
    rows = Rows([{"prediction": classes[p]} for p in predicted], [classes[y] for y in label])
    found = records(replayed(own, rows), "business_value")
    assert len(found) == 4
    for data in found:
        here = rows.of(data["window"])
        weight = sk.confusion_matrix(label[here], predicted[here])
        assert data["value"] == pytest.approx((weight * amounts).sum() / weight.sum(), rel=1e-12)
        assert "unit" not in data


@pytest.mark.parametrize("per", ["prediction", "conversion"])
def test_a_kpi_is_the_mean_of_what_conversions_bring(per: str) -> None:
    """With negative amounts, too, where the topic's range allows them."""
    g = np.random.default_rng(5)
    bought = g.random(N) < 0.2
    amount = np.where(bought, g.normal(10.0, 25.0, N), 0.0)
    kpi = {"name": "revenue per visit", "target": 1.25, "per": per, "unit": "EUR"}
    topics = {"conversions": {"name": "sales", "mapping": {"timestamp": "timestamp"}, "range": [-1e6, 1e6]}}
    own = settings(
        {"proxies": ["kpi", "kpi_to_target", "value_per_prediction"], "kpi": kpi}, "conversions", topics=topics
    )
    outcome = [float(each) if hit else None for each, hit in zip(amount, bought, strict=True)]
    rows = Rows([{"prediction": 1, "score": 0.5}] * N, outcome, "value")
    result = replayed(own, rows, "conversions")
    found = [records(result, name) for name in ("kpi", "kpi_to_target", "value_per_prediction")]
    assert [len(each) for each in found] == [4, 4, 4]
    for value, gap, plain in zip(*found, strict=True):
        here = rows.of(value["window"])
        values = amount[here] if per == "prediction" else amount[here][bought[here]]
        mean, paid = values.mean(), amount[here][bought[here]]
        log_ends = stats.t.interval(0.95, len(paid) - 1, 0.0, stats.sem(paid) / paid.mean())
        if per == "prediction":
            rate = stats.binomtest(len(paid), len(values)).proportion_ci(method="wilson")
            shares = [np.log(end / len(paid) * len(values)) for end in rate]
            log_ends = [np.sign(a) * np.hypot(a, b) for a, b in zip(log_ends, shares, strict=True)]
        assert (value["low"], value["high"]) == pytest.approx(tuple(mean * np.exp(log_ends)), rel=1e-5)
        assert value["value"] == pytest.approx(mean, rel=1e-12)
        assert value["counts"]["used"] == len(values)
        assert gap["value"] == pytest.approx(mean - 1.25, rel=1e-12, abs=1e-13)
        assert gap["high"] - gap["low"] == pytest.approx(value["high"] - value["low"], rel=1e-9)
        assert (gap["kpi"], gap["target_value"], gap["unit"]) == ("revenue per visit", 1.25, "EUR")
        assert (plain["value"] == value["value"]) == (per == "prediction")
        assert value["judged"]["state"] == gap["judged"]["state"] == "learning"


def test_scores_of_classes_are_scikit_learns_in_every_window() -> None:
    """Every twentieth prediction lacks a score: it counts in accuracy alone."""
    g = np.random.default_rng(6)
    classes = ["cat", "dog", "owl", "emu"]
    score = g.dirichlet([2.0, 1.0, 1.0, 0.5], N)
    label = (g.random((N, 1)) > score.cumsum(axis=1)[:, :3]).sum(axis=1)
    predicted = score.argmax(axis=1)
    lacking = np.arange(N) % 20 == 7
    more = [
        {
            "prediction": classes[p],
            "shares": {name: float(x) for name, x in zip(classes, row, strict=True) if not (hole and name == "owl")},
        }
        for p, row, hole in zip(predicted, score, lacking, strict=True)
    ]
    metrics = ["class_log_loss", "class_brier", "macro_auroc", "accuracy"]
    mapping = {"scores": {f"p_{name}": f"shares.{name}" for name in classes}}
    own = settings(
        {"metrics": metrics, "classes": classes, "class_scores": {name: f"p_{name}" for name in classes}},
        topics={"predictions": {"name": "predictions", "mapping": mapping}},
    )
    result = replayed(own, Rows(more, [classes[y] for y in label]))
    found = {name: records(result, name) for name in metrics}
    assert {len(each) for each in found.values()} == {4}
    for at, data in enumerate(found["accuracy"]):
        here = rows_of(data, N)
        whole = here & ~lacking
        y, s = label[whole], score[whole]
        assert data["value"] == pytest.approx(sk.accuracy_score(label[here], predicted[here]), rel=1e-12)
        loss, brier, auroc = (found[name][at] for name in ("class_log_loss", "class_brier", "macro_auroc"))
        assert loss["value"] == pytest.approx(sk.log_loss(y, s, labels=[0, 1, 2, 3]), rel=1e-9)
        assert brier["value"] == pytest.approx(((s - np.eye(4)[y]) ** 2).sum(axis=1).mean(), rel=1e-9)
        assert abs(auroc["value"] - sk.roc_auc_score(y, s, multi_class="ovr")) <= auroc["error"] < 0.01
        assert {each["counts"]["used"] for each in (loss, brier, auroc)} == {whole.sum()}
        assert all(each["judged"]["state"] == "learning" for each in (loss, brier, auroc))


def rows_of(data: dict[str, Any], n: int) -> np.ndarray:
    """bool[n]: rows of a record's window."""
    found = np.zeros(n, bool)
    found[Rows([{}] * n, []).of(data["window"])] = True
    return found


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
        assert np.log(found.high / found.low) == pytest.approx(
            2 * stats.t.ppf(0.975, len(loss) - 1) * deviation, rel=1e-5
        )


def test_losses_that_do_not_tell_the_sides_apart_are_refused() -> None:
    sums = PerformanceSums(Layout(errors=True, quantiles=(0.5,)))
    sums.add_errors(np.array([1.0, 2.0]), np.array([2.0, 1.0]))
    with pytest.raises(BadSettings, match="two quantiles"):
        measure("quantile_loss", sums, MetricSettings(quantile=0.25))
