"""How two models' scores go together, kept in 32 knots: variances of differences are those of the raw rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, rankdata, t
from sklearn.metrics import average_precision_score

from detectors.performance import Layout, joint
from detectors.performance.layout import default_score_cuts, score_cuts
from detectors.performance.paired import PairedSums, paired_from_sections
from detectors.performance.ranking import auroc_of
from detectors.verdict import BadState
from stream import container
from stream.panes import decode_record
from stream.performance_panes import PerformancePane, encode_performance_pane
from stream.sparse import sparse

LAYOUT, NUMBERS = Layout(classes=2, scores=True), Layout(errors=True)
Rows = tuple[Any, Any, Any]


def sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


def rows(seed: int, n: int, mean: float, deviation: float, noise: float, shrunk: float = 1.0) -> Rows:
    g = np.random.default_rng(seed)
    x = g.normal(mean, deviation, n)
    a, b = sigmoid(x + g.normal(0.0, noise, n)), sigmoid(shrunk * x + g.normal(0.0, 1.5 * noise, n))
    return a, b, (g.random(n) < sigmoid(x)).astype(np.int64)


def summed(of: Rows, layout: Layout = LAYOUT) -> PairedSums:
    sums = PairedSums(layout, layout)
    sums.add_scores(*of)
    return sums


def delong(of: Rows) -> float:
    """Variance of the difference of two areas, from the ranks of all rows: DeLong et al. 1988."""
    *scores, label = of
    placed = []
    for score in scores:
        yes, no = score[label == 1], score[label == 0]
        rank = rankdata(np.concatenate([yes, no]))
        placed.append(((rank[: len(yes)] - rankdata(yes)) / len(no), (rank[len(yes) :] - rankdata(no)) / len(yes)))
    (yes_a, no_a), (yes_b, no_b) = placed
    return float(np.var(yes_a - yes_b, ddof=1) / len(yes_a) + np.var(no_a - no_b, ddof=1) / len(no_a))


def deviation(sums: PairedSums, metric: str, events: int) -> float:
    found = sums.compare(metric)
    assert found.low is not None
    assert found.high is not None
    return float((found.high - found.low) / 2 / t.ppf(0.975, events - 1))


COMMON, RARE, RARER = (-0.5, 1.2), (-3.2, 1.2), (-6.5, 1.5)


@pytest.mark.parametrize(
    ("law", "noise", "allowed"),
    [
        (COMMON, 0.4, 0.01),
        (RARE, 0.4, 0.03),
        (RARER, 0.4, 0.06),
        ((-3.0, 0.5), 0.2, 0.04),  # most scores in a dozen bins
        (COMMON, 0.05, 0.05),
        (RARE, 0.1, 0.12),  # the models differ by a part of a bin: what the 256 bins of either hide
    ],
)
def test_areas_differ_by_delongs_deviation_of_the_raw_rows(
    law: tuple[float, float], noise: float, allowed: float
) -> None:
    of = rows(5, 60_000, *law, noise)
    sums, few = summed(of), int(of[2].sum())
    exact = math.sqrt(delong(of))
    assert deviation(sums, "auroc", few) == pytest.approx(exact, rel=allowed)
    assert deviation(sums, "gini", few) == pytest.approx(2 * exact, rel=allowed)


@pytest.mark.parametrize("noise", [0.4, 0.1])
def test_a_small_window_of_rare_labels_has_delongs_deviation(noise: float) -> None:
    ratios = []
    for seed in range(40):
        of = rows(seed, 1000, *RARE, noise)
        ratios.append(deviation(summed(of), "auroc", int(of[2].sum())) / math.sqrt(delong(of)))
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.03 if noise > 0.1 else 0.12)
    assert max(ratios) < 1.4  # of single windows, whose positive labels are some 60


@pytest.mark.parametrize(("law", "n"), [(COMMON, 2000), (RARE, 8000)])
def test_average_precisions_differ_by_the_bootstrapped_deviation(law: tuple[float, float], n: int) -> None:
    a, b, label = rows(6, n, *law, 0.3)
    g = np.random.default_rng(7)
    drawn = []
    for _ in range(300):
        at = g.integers(0, n, n)
        drawn.append(average_precision_score(label[at], a[at]) - average_precision_score(label[at], b[at]))
    found = deviation(summed((a, b, label)), "average_precision", int(label.sum()))
    assert found == pytest.approx(float(np.std(drawn, ddof=1)), rel=0.12)  # three standard errors of 300 draws


MEANS: dict[str, Callable[[Any, Any], Any]] = {
    "brier": lambda p, y: (p - y) ** 2,
    "log_loss": lambda p, y: -np.where(y == 1, np.log(p), np.log(1 - p)),
    "calibration_gap": lambda p, y: p - y,
    "mean_signed_error": lambda p, y: p - y,
    "mae": lambda p, y: abs(p - y),
    "mse": lambda p, y: (p - y) ** 2,
}


@pytest.mark.parametrize("metric", MEANS)
def test_means_have_students_paired_interval(metric: str) -> None:
    a, b, label = rows(8, 500, *RARE, 0.2, 0.9)
    if metric in ("mean_signed_error", "mae", "mse"):
        sums = PairedSums(NUMBERS, NUMBERS)
        sums.add_errors(a, b, label.astype(np.float64))
    else:
        sums = summed((a, b, label))
    d = MEANS[metric](a, label) - MEANS[metric](b, label)
    found, half = sums.compare(metric), t.ppf(0.975, 499) * d.std(ddof=1) / math.sqrt(500)
    assert found.low == pytest.approx(d.mean() - half, rel=1e-4)
    assert found.high == pytest.approx(d.mean() + half, rel=1e-4)


def test_roots_of_means_have_the_delta_methods_and_equal_rows_none() -> None:
    g = np.random.default_rng(9)
    label, error = g.normal(size=3000), g.standard_t(8, 3000)
    a, b = label + error, label + 0.8 * error + g.normal(0.0, 0.2, 3000)
    sums, same = PairedSums(NUMBERS, NUMBERS), PairedSums(NUMBERS, NUMBERS)
    sums.add_errors(a, b, label)
    drawn = []
    for _ in range(1000):
        at = g.integers(0, 3000, 3000)
        roots = [math.sqrt(np.mean((x[at] - label[at]) ** 2)) for x in (a, b)]
        drawn.append(roots[0] - roots[1])
    assert deviation(sums, "rmse", 3000) == pytest.approx(float(np.std(drawn)), rel=0.08)
    same.add_errors(a, a, label)
    for metric in ("rmse", "mse", "mae", "mean_signed_error"):
        assert (same.compare(metric).low, same.compare(metric).high) == (0.0, 0.0)
    perfect = PairedSums(NUMBERS, NUMBERS)
    perfect.add_errors(label, a, label)
    assert deviation(perfect, "rmse", 3000) == pytest.approx(
        np.std(error**2) / np.sqrt(3000 * np.mean(error**2)) / 2, rel=0.01
    )


def test_of_a_perfect_order_and_another_the_interval_is_as_of_different_rows() -> None:
    label = np.repeat([0, 1], [200, 40])
    perfect = np.where(label == 1, 0.9, 0.1)
    found = summed((perfect, np.roll(perfect, 5), label)).compare("auroc")
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low > 0.1
    assert found.low < found.value < found.high <= 1.0


def test_few_rows_that_tell_two_models_apart_leave_an_interval() -> None:
    label, yes = np.repeat([1, 0], [200, 800]), np.ones(1000, np.int64)
    yes[100:] = 0
    for apart in (0, 3):
        other, sums = yes.copy(), PairedSums(LAYOUT, LAYOUT)
        other[:apart] = 0
        sums.add_classes(yes, other, label)
        found = sums.compare("recall")
        assert found.low is not None
        assert found.high is not None
        # Newcombe's method 10, by hand: both, a alone, b alone, neither
        e, f, g, h = 100 - apart, apart, 0, 100
        phi = max(e * h - f * g - 200 / 2, 0) / math.sqrt((e + f) * (g + h) * (e + g) * (f + h))
        sides = [binomtest(k, 200).proportion_ci(method="wilson") for k in (100, 100 - apart)]
        (below, above), (under, over) = sides
        p, q = 0.5, (100 - apart) / 200
        low = (p - below) ** 2 - 2 * phi * (p - below) * (over - q) + (over - q) ** 2
        high = (above - p) ** 2 - 2 * phi * (above - p) * (q - under) + (q - under) ** 2
        assert found.low == pytest.approx(p - q - math.sqrt(low))
        assert found.high == pytest.approx(p - q + math.sqrt(high))
        assert found.high - found.low > 0.018


def test_with_no_more_bins_than_knots_nothing_is_lost() -> None:
    a, b, label = rows(10, 5000, *COMMON, 0.4)
    for cuts in (score_cuts(a, 20), np.array([0.5]), np.empty(0)):
        layout = Layout(classes=2, scores=True, cuts=cuts)
        sums = summed((a, b, label), layout)
        p, q = (np.searchsorted(cuts, score, side="right") for score in (a, b))
        for y in (0, 1):
            whole = np.zeros((32, 32), np.int64)
            np.add.at(whole, (p[label == y], q[label == y]), joint.SHARES**2)
            assert (sums.counts["joint"][y] == whole).all()
        assert len(cuts) == 0 or deviation(sums, "auroc", int(label.sum())) == pytest.approx(
            math.sqrt(delong((p.astype(float), q.astype(float), label))), rel=1e-3
        )


def test_every_row_is_shared_out_and_lines_are_what_the_shares_say() -> None:
    for cuts in (
        default_score_cuts(),
        score_cuts(np.linspace(0, 1, 999), 256),
        np.linspace(0.01, 0.99, 40),
        np.array([0.3]),
    ):
        hats = joint.hats_of(cuts)
        bins = np.arange(len(cuts) + 1)
        shares = hats.shares(bins)
        assert (shares >= 0).all()
        assert (shares.sum(axis=1) == joint.SHARES).all()
        assert (np.diff(hats.knots) > 0).all()
        values = np.random.default_rng(1).normal(size=len(bins))
        assert hats.lines(values) == pytest.approx(shares @ hats.at_knots(values) / joint.SHARES)
        assert hats.lines(values)[hats.knots] == pytest.approx(values[hats.knots])
    a, b, label = rows(11, 700, *RARE, 0.4)
    usual = joint.hats_of(default_score_cuts())
    shares = [usual.shares(np.searchsorted(default_score_cuts(), score, side="right")) for score in (a, b)]
    expected = [np.einsum("ni,nj->ij", shares[0][label == y], shares[1][label == y]) for y in (0, 1)]
    assert (joint.products(usual, usual, a, b, label) == np.array(expected)).all()


def older(of: Rows) -> dict[str, Any]:
    """Sections as they were when whole rows were counted in 32 x 32 boxes."""
    a, b, label = of
    sections = summed(of).to_sections()
    p, q = (np.searchsorted(default_score_cuts(), score, side="right") * 32 // 256 for score in (a, b))
    boxes = np.bincount((label * 32 + p) * 32 + q, minlength=2048)
    return {name: each for name, each in sections.items() if name != "paired.joint"} | {"paired.scores": boxes}


def test_sums_of_an_older_form_are_read_and_go_on() -> None:
    of, more = rows(12, 20_000, *COMMON, 0.4), rows(13, 20_000, *COMMON, 0.4)
    old = paired_from_sections(LAYOUT, LAYOUT, older(of))
    exact = math.sqrt(delong(of))
    assert old.compare("auroc").value == summed(of).compare("auroc").value
    assert exact < deviation(old, "auroc", int(of[2].sum())) < 1.1 * exact
    assert set(old.to_sections()) == set(summed(of).to_sections())
    assert old.counts["joint"].sum() == 20_000 * joint.SHARES**2
    old.merge(summed(more))
    again = paired_from_sections(LAYOUT, LAYOUT, old.to_sections())
    assert again.compare("auroc") == old.compare("auroc")
    for changed in ({"paired.scores": np.zeros(9, np.int64)}, {"paired.joint": np.zeros(2048, np.int64)}):
        with pytest.raises(BadState):
            paired_from_sections(LAYOUT, LAYOUT, older(of) | changed)


def test_a_pane_of_an_older_form_is_read() -> None:
    of = rows(15, 400, *COMMON, 0.4)
    said = PerformancePane(
        0, "m", "1", "all", "labels", "label", 60, 0, 400, 400, True, ("0", "1"), summed(of), ("n", "2")
    )
    now = container.decode(encode_performance_pane(said))
    sections = {name: each for name, each in now.sections.items() if not name.startswith("paired.joint")}
    boxes = sparse("paired.scores", older(of)["paired.scores"])
    assert set(boxes) == {"paired.scores", "paired.scores_at"}
    found = decode_record(container.encode(now.kind, now.version, now.header, sections | boxes))
    assert isinstance(found, PerformancePane)
    assert found.kept == said.kept, "panes of both forms are added up"
    assert isinstance(found.sums, PairedSums)
    assert found.sums.compare("auroc") == paired_from_sections(LAYOUT, LAYOUT, older(of)).compare("auroc")
    assert set(container.decode(encode_performance_pane(found)).sections) == set(now.sections)
    for wrong in (boxes | {"paired.joint": np.zeros(2048, np.uint8)}, {"paired.scores": np.zeros(9, np.uint8)}):
        with pytest.raises(container.ContainerError):
            decode_record(container.encode(now.kind, now.version, now.header, sections | wrong))


def test_influences_as_lines_correlate_as_those_of_every_bin() -> None:
    a, b, label = rows(14, 100_000, *RARE, 0.4)
    sums = summed((a, b, label))
    bins = sums.a.count("scores", "bins"), sums.b.count("scores", "bins")
    rankings = tuple(auroc_of(*each.astype(float)) for each in bins)
    p, q = (np.searchsorted(default_score_cuts(), score, side="right") for score in (a, b))
    moments = np.zeros(3)
    for y, part in enumerate(("by_negative", "by_positive")):
        u, v = (getattr(each, part)[at[label == y]] for each, at in zip(rankings, (p, q), strict=True))
        moments += (u @ u, v @ v, u @ v)
    expected = joint.of_moments(*moments)
    found = joint.correlation(sums.counts["joint"], sums.hats, rankings, bins)
    assert found == pytest.approx(expected, abs=2e-3)
    assert joint.of_moments(0.0, 1.0, 0.0) == 0.0
