"""Statistics of a window, against numpy on the raw values."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.binning import Binning, Kind
from detectors.reference import ReferenceProfile, TargetReference, WindowInfo
from stream.panes import Pane
from stream.registers import Registers
from stream.schema_sample import SchemaSample
from stream.tally import PlanMismatchError, Tally
from stream.window_statistics import QUANTILES, Lens


def binning(cuts=(), labels=(), centre=0.0):
    kind = Kind.CATEGORICAL if labels else Kind.NUMERIC
    nothing = np.empty(0)
    return Binning(kind, np.array(cuts, float), (0, len(cuts)), centre, -np.inf, np.inf, nothing.astype(np.uint64),
                   nothing.astype(np.int32), tuple(labels))  # fmt: skip


def target(name, bins, counts, role="feature", **fields):
    values = {
        "rank": np.empty(0, np.int64), "order": np.empty((0, 0)), "tie": np.empty((0, 0)), "windows": 50,
        "size_min": 10, "size_max": 1000, "size_median": 100, "group": 1, "summary": {}, "minimum": 0.0, "maximum": 1.0,
    } | fields  # fmt: skip
    counts = np.array(counts, np.int64)
    return TargetReference(name=name, role=role, binning=bins, first=counts // 2, counts=counts - counts // 2, **values)


def profile(*targets, **fields):
    info = WindowInfo(50, 10, 20, 100, 10, 20, 1000, checked=True)
    return ReferenceProfile(
        "sha256:aa", "m", targets, fields.pop("windows", info), 1000, {"file": "t.parquet"}, **fields
    )


def counted(names, parts, *, events, sums, extremes, missing=None, invalid=None, out_of_range=None):
    zero = np.zeros(len(names), np.int64)
    start = np.concatenate(([0], np.cumsum([len(part) for part in parts]))).astype(np.int64)
    return Tally.of([Pane(
        partition=0, edge_ms=0, model="m", version="1", segment="all", plan="p", reference="sha256:aa", events=events,
        names=tuple(names), first_target=0, last_block=True, bin_start=start,
        bins=np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64),
        sums=np.array(sums, float).reshape(-1, 2),
        extremes=np.array(extremes, float).reshape(-1, 2), missing=zero if missing is None else np.array(missing),
        invalid=zero if invalid is None else np.array(invalid),
        out_of_range=zero if out_of_range is None else np.array(out_of_range), distinct=Registers.none(),
    )])  # fmt: skip


def numeric(name, cuts, x, centre):
    bins = np.bincount(np.searchsorted(cuts, x, side="right"), minlength=len(cuts) + 1)
    y = x - centre
    return bins, (y.sum(), (y * y).sum()), (x.min(), x.max())


def test_moments_quantiles_and_rates_against_numpy():
    random = np.random.default_rng(1)
    x, z = random.normal(100, 3, 5000), random.lognormal(0, 1, 5000)
    cuts = (np.linspace(90, 110, 81), np.geomspace(0.05, 20, 81))
    a, b = numeric("a", cuts[0], x, 99.0), numeric("b", cuts[1], z, 1.0)
    shape = profile(
        target("a", binning(cuts[0], centre=99.0), [1] * 84), target("b", binning(cuts[1], centre=1.0), [1] * 84),
        target("c", binning(labels=("DE", "__other__", "__unseen__")), [60, 30, 0, 5, 5]),
    )  # fmt: skip
    tally = counted(
        "abc", [a[0], b[0], np.array([4000, 500, 250])], events=5000,
        sums=[a[1], b[1], (0, 0)], extremes=[a[2], b[2], (np.nan, np.nan)], missing=[0, 0, 200], invalid=[0, 0, 50],
        out_of_range=[25, 0, 0],
    )  # fmt: skip
    found = Lens("abc", shape).statistics(tally)
    for index, values in enumerate((x, z)):
        assert found.mean[index] == pytest.approx(values.mean())
        assert found.std[index] == pytest.approx(values.std())
        for name, share in QUANTILES.items():
            exact = np.quantile(values, share)
            rank = (values <= found.quantiles[name][index]).mean()
            assert abs(rank - share) < 0.03, (name, exact)
    assert np.isnan(found.mean[2])
    assert np.isnan(found.quantiles["p50"][2])
    assert found.missing.tolist() == [0, 0, 0.04]
    assert found.invalid.tolist() == [0, 0, 0.01]
    assert found.out_of_range[0] == 0.005
    assert found.unseen[2] == 0.05
    assert np.isnan(found.unseen[0])
    assert np.isnan(found.kolmogorov_smirnov[2])
    assert found.psi[2] > 0.01
    assert found.jensen_shannon[2] > 0.01


def test_outer_quantiles_lie_between_the_exact_extremes():
    shape = profile(target("a", binning((10.0,)), [50, 50, 0, 0]))
    tally = counted("a", [np.array([10, 0])], events=10, sums=[(0, 0)], extremes=[(4, 8)])
    found = Lens("a", shape).statistics(tally)
    assert found.quantiles["p01"][0] == pytest.approx(4.04)
    assert found.quantiles["p99"][0] == pytest.approx(7.96)


def test_a_window_without_events_has_no_statistics_and_no_warnings():
    shape = profile(
        target("a", binning((0.0, 1.0)), [5, 5, 5, 0, 0]), target("b", binning(labels=("x", "y")), [1, 1, 0, 0])
    )
    none = [(np.nan, np.nan)] * 2
    tally = counted("ab", [np.zeros(3), np.zeros(2)], events=0, sums=[(0, 0)] * 2, extremes=none)
    found = Lens("ab", shape).statistics(tally)
    for values in (found.mean, found.std, found.psi, found.missing, found.unseen, found.quantiles["p50"]):
        assert np.isnan(values).all()


def test_all_missing_has_rates_and_distances_only():
    shape = profile(target("a", binning((0.0, 1.0)), [5, 5, 5, 0, 0]))
    tally = counted("a", [np.zeros(3)], events=7, sums=[(0, 0)], extremes=[(np.nan, np.nan)], missing=[7])
    found = Lens("a", shape).statistics(tally)
    assert found.missing[0] == 1
    assert np.isnan(found.mean[0])
    assert np.isnan(found.kolmogorov_smirnov[0])
    assert found.jensen_shannon[0] == pytest.approx(1)


def test_counts_of_other_bins_are_refused():
    lens = Lens("a", profile(target("a", binning((0.0, 1.0)), [5, 5, 5, 0, 0])))
    with pytest.raises(PlanMismatchError, match="do not fit"):
        lens.statistics(counted("a", [np.zeros(4)], events=0, sums=[(0, 0)], extremes=[(0, 0)]))
    with pytest.raises(PlanMismatchError, match="no target 'b'"):
        Lens("ab", profile(target("a", binning((0.0,)), [5, 5, 0, 0])))


def test_what_is_said_of_a_target_is_a_function_of_its_own_numbers_bit_for_bit():
    random = np.random.default_rng(3)
    cuts = [np.sort(random.normal(100, 3, 40)) for _ in "abd"]
    values = [random.normal(100, 3, size) for size in (997, 13, 50_021)]
    a, b, d = (numeric("", cut, x, 99.0) for cut, x in zip(cuts, values, strict=True))
    named = {
        name: target(name, binning(cut, centre=99.0), random.integers(0, 90, 43))
        for name, cut in zip("abd", cuts, strict=True)
    }
    shape = profile(named["a"], named["b"], target("c", binning(labels=("x", "y")), [6, 3, 1, 1]), named["d"])
    bins, none = np.array([7, 2]), (np.nan, np.nan)
    events, out_of_range = 50_100, [3, 0, 0, 5]
    together = Lens("abcd", shape).statistics(counted(
        "abcd", [a[0], b[0], bins, d[0]], events=events, sums=[a[1], b[1], (0, 0), d[1]], extremes=[a[2], b[2], none, d[2]],
        out_of_range=out_of_range,
    ))  # fmt: skip
    for place, (name, part) in enumerate(zip("abcd", (a, b, (bins, (0, 0), none), d), strict=True)):
        alone = Lens(name, shape).statistics(counted(
            name, [part[0]], events=events, sums=[part[1]], extremes=[part[2]], out_of_range=out_of_range[place : place + 1],
        ))  # fmt: skip
        for series, found in alone.named().items():
            assert found.tobytes() == together.series(series)[place : place + 1].tobytes(), (name, series)


def test_quantiles_are_interpolated_in_the_bin_that_reaches_them():
    cuts, counts = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 40, 0, 60, 0])
    shape = profile(target("a", binning(cuts), [1] * 7))
    found = (
        Lens("a", shape).statistics(counted("a", [counts], events=100, sums=[(0, 0)], extremes=[(0.1, 2.9)])).quantiles
    )
    expected = {
        "p01": 0.1 + 0.9 * 1 / 40,
        "p25": 0.1 + 0.9 * 25 / 40,
        "p50": 2 + 0.9 * 10 / 60,
        "p99": 2 + 0.9 * 59 / 60,
    }
    assert {name: found[name][0] for name in expected} == pytest.approx(expected, rel=1e-12)


def test_what_is_only_read_is_what_is_selected_and_copied_only_where_targets_are_left_out():
    random = np.random.default_rng(3)
    parts = [random.integers(0, 9, bins) for bins in (4, 2, 7)]
    sums, extremes = random.normal(size=(3, 2)), np.sort(random.normal(size=(3, 2)))
    whole = counted(("a", "b", "c"), parts, events=30, sums=sums, extremes=extremes)
    whole.schema = SchemaSample(looked=1)
    before = {name: whole.to_sections("")[1][name].copy() for name in whole.to_sections("")[1]}
    for targets in ([0, 1, 2], [1, 2], [0, 1], [2, 1, 0], []):
        chosen = np.array(targets, np.int64)
        (header, sections), (wanted, expected) = (
            each.to_sections("") for each in (whole.only(chosen), whole.select(chosen))
        )
        assert header == wanted
        assert {name: (each.dtype, each.tolist()) for name, each in sections.items()} == {
            name: (each.dtype, each.tolist()) for name, each in expected.items()
        }
        assert np.shares_memory(whole.only(chosen).counts, whole.counts) is (targets == [0, 1, 2])
        assert not np.shares_memory(whole.select(chosen).counts, whole.counts)
    assert whole.schema is not None
    assert {name: each.tolist() for name, each in whole.to_sections("")[1].items()} == {
        name: each.tolist() for name, each in before.items()
    }
