"""References from rows: kinds, cuts, atoms, windows, errors, ids, and learning from the stream."""

from __future__ import annotations

import math
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))
import detector_kits as kit

from detectors.binning import (
    FAR_CUTS,
    Kind,
    assign_bins,
    bin_labels,
    category_hash,
    category_text,
    numeric_binning,
)
from detectors.column_values import INVALID, MISSING, VALID, Cells, UnknownKind, read_cells, read_column
from detectors.reference import (
    CorruptReference,
    UnknownReferenceVersion,
    WindowRule,
    fold,
    from_sections,
    to_sections,
)
from detectors.reference_build import (
    BadTimes,
    EmptyColumn,
    TooFewRows,
    UnequalColumns,
    WindowCounts,
    build_reference,
    choose_binnings,
    choosing_rows,
    left_out,
    profile_from_windows,
)
from detectors.reference_targets import CATEGORIES_MAX
from detectors.reference_windows import bins_of, shuffled, windows_in_time
from detectors.sequential.default import DetectionSettings, prepare, start, update
from detectors.sequential.windows_auto import (
    DEPENDENCE_RESERVE,
    Ratio,
    choose_window,
    dependence,
    reserve,
    variance_ratio,
)
from detectors.verdict import IncompleteReference
from stream.category import category_hash as stream_hash
from stream.windows import Lengths, WindowList

RULE = WindowRule(auto=False, every_ms=50, min_events=50, resolution_ms=10)


def test_far_cuts_and_atoms_have_bins_of_their_own() -> None:
    values = np.concatenate([np.zeros(300), np.linspace(1.0, 2.0, 700)])
    binning = numeric_binning(values)
    first, stop = binning.core
    core = binning.cuts[first:stop]
    assert first == FAR_CUTS
    assert len(binning.cuts) - stop == FAR_CUTS
    assert (np.diff(binning.cuts) > 0).all()
    assert {0.0, math.nextafter(0.0, 1.0)} <= set(core.tolist())
    np.testing.assert_allclose(binning.cuts[stop:] - 2.0, 2.0 * 2.0 ** np.arange(FAR_CUTS))
    np.testing.assert_allclose(0.0 - binning.cuts[:first], 2.0 * 2.0 ** np.arange(FAR_CUTS)[::-1])
    counts = np.bincount(assign_bins(binning, values), minlength=binning.bins + 2).astype(np.int64)
    atom = int(assign_bins(binning, np.zeros(1))[0])
    assert counts[atom] == 300
    assert bin_labels(binning)[atom - first] == "0"
    far = counts.copy()
    far[0] += 5
    far[binning.bins - 1] += 7
    assert fold(binning, far)[0] == fold(binning, counts)[0] + 5
    assert fold(binning, far)[-3] == fold(binning, counts)[-3] + 7
    assert fold(binning, far).sum() == far.sum()


@pytest.mark.parametrize(
    "values",
    [
        np.full(50, 7.0),
        np.array([1e308, -1e308, 0.0] * 20),
        np.array([5e-324, 1e-320] * 20),
        np.full(30, np.finfo(float).max),
        np.full(30, -0.0),
        np.array([1e16, 1e16 + 2] * 30),
        np.array([3.0]),
    ],
)
def test_cuts_are_finite_and_increasing_for_extreme_values(values: np.ndarray) -> None:
    binning = numeric_binning(values)
    assert np.isfinite(binning.cuts).all()
    assert (np.diff(binning.cuts) > 0).all()
    first, stop = binning.core
    assert 0 <= first < stop <= len(binning.cuts)
    assert len(bin_labels(binning)) == stop - first + 1


def test_kinds_are_inferred_and_bad_values_are_told_apart() -> None:
    numbers = read_column("x", np.array([1.0, np.nan, np.inf]), "feature")
    assert (numbers.kind, numbers.state.tolist()) == (Kind.NUMERIC, [VALID, MISSING, INVALID])
    mixed = read_column("x", np.array([1, "a", None, 2.5, Decimal(3), [1], 10**400], object), "feature")
    assert mixed.kind is Kind.NUMERIC
    assert mixed.state.tolist() == [VALID, INVALID, MISSING, VALID, VALID, INVALID, INVALID]
    text = read_column("x", np.array(["a", "b", None, 3, True], object), "feature")
    assert text.kind is Kind.CATEGORICAL
    assert text.state.tolist() == [VALID, VALID, MISSING, VALID, VALID]
    assert [text.texts[h] for h in text.hash[[0, 3, 4]].tolist()] == ["a", "3", "true"]
    assert read_column("x", np.array([True, False]), "feature").kind is Kind.CATEGORICAL
    assert read_column("x", np.array(["a", "b"]), "feature").kind is Kind.CATEGORICAL
    assert read_column("x", np.arange(5), "feature").kind is Kind.NUMERIC
    assert read_column("x", np.arange(5), "feature", "categorical").kind is Kind.CATEGORICAL
    assert read_column("x", np.arange(20) % 20, "prediction").kind is Kind.CATEGORICAL
    assert read_column("x", np.arange(21), "prediction").kind is Kind.NUMERIC
    assert read_column("x", np.arange(5), "score").kind is Kind.NUMERIC
    for values, kind in ((np.zeros(2), "ordinal"), (np.zeros((2, 2)), None), (np.zeros(2, "M8[s]"), None)):
        with pytest.raises(UnknownKind):
            read_column("x", values, "feature", kind)


@pytest.mark.parametrize("value", ["", "a", "ä€", True, False, 0.0, -0.0, 1.5, 3, 1e300, 2.0**53, -7.0, 5e-324])
def test_categories_are_hashed_as_the_collector_hashes_them(value: str | bool | float) -> None:
    assert category_hash(value) == stream_hash(value)
    assert category_text(value) or value == ""


def test_cells_of_the_stream_give_the_column_of_the_file() -> None:
    values = np.array([1.0, 2.0, 2.0, np.nan, 7.0])
    tag = np.array([1, 1, 1, 0, 4], np.uint8)
    cells = Cells(values.view(np.uint64), tag)
    numbers = read_cells("x", cells, "feature", None, {})
    assert numbers.state.tolist() == [VALID, VALID, VALID, MISSING, INVALID]
    classes = read_cells("x", cells, "prediction", None, {})
    assert [classes.texts[h] for h in classes.hash[:3].tolist()] == ["1", "2", "2"]
    words = Cells(np.array([category_hash("a"), category_hash("b"), 1], np.uint64), np.array([2, 2, 3], np.uint8))
    column = read_cells("x", words, "feature", None, {category_hash("a"): "a"})
    assert [column.texts[h] for h in column.hash.tolist()] == ["a", f"#{category_hash('b'):016x}", "true"]


def test_many_categories_share_other_and_new_ones_are_unseen() -> None:
    g = np.random.default_rng(0)
    values = np.concatenate([g.integers(0, 60, 6000).astype(str), np.full(6000, "late")]).astype(object)
    values[7] = "once"
    found = kit.build(values, 50).targets[0]
    assert found.binning.bins == CATEGORIES_MAX + 2
    assert found.binning.labels[-2:] == ("__other__", "__unseen__")
    once, late = (
        bins_of(found.binning, read_column("x", np.array([t], object), "feature"))[0] for t in ("once", "late")
    )
    assert found.binning.labels[once] == "__other__"
    assert (
        found.binning.labels[late] == "__unseen__"
    )  # not among the rows that chose: windows meet it as live ones would
    assert found.first.sum() == 1800
    assert found.histogram.sum() == 1800 + found.windows * 50


def test_errors_have_names() -> None:
    good, role = np.random.default_rng(0).normal(size=5000), {"x": "feature"}
    times = np.arange(5000)
    cases = [
        (TooFewRows, {"x": good[:900]}, role, {}),
        (TooFewRows, {"x": good}, role, {"window": WindowRule(auto=False, every_ms=1, min_events=1000)}),
        (
            TooFewRows,
            {"x": good},
            role,
            {"time_ms": times, "window": WindowRule(auto=False, every_ms=1000, min_events=50)},
        ),
        (EmptyColumn, {"x": np.full(5000, np.nan)}, role, {}),
        (UnequalColumns, {"x": good, "y": good[1:]}, {"x": "feature", "y": "feature"}, {}),
        (UnequalColumns, {"x": good}, {}, {}),
        (UnequalColumns, {}, {}, {}),
        (BadTimes, {"x": good}, role, {"time_ms": times[1:]}),
        (BadTimes, {"x": good}, role, {"time_ms": times + (1 << 60)}),
    ]
    for error, columns, roles, more in cases:
        with pytest.raises(error):
            build_reference("m", columns, roles, **more)


@pytest.mark.parametrize("timed", [True, False])
def test_a_column_without_a_value_where_bins_are_chosen_is_left_out_and_named(timed: bool) -> None:
    g = np.random.default_rng(0)
    times = g.permutation(4000) if timed else None
    late, known = np.full(4000, np.nan), np.full(4000, np.nan)
    first = choosing_rows(4000, times)
    assert len(first) == 600
    assert not timed or set(times[first]) == set(range(600))
    rest = np.setdiff1d(np.arange(4000), first)
    late[rest], known[first[:1]] = 1.0, 2.0
    x, role = g.normal(size=4000), dict.fromkeys(("late", "known", "x"), "feature")
    found = build_reference("m", {"late": late, "known": known, "x": x}, role, time_ms=times, window=RULE)
    assert [target.name for target in found.targets] == ["known", "x"]
    assert left_out(found) == {
        "late": "late: not watched, for none of the 600 rows that choose its bins has a valid value"
    }
    assert found.target("x").histogram.tolist() == (
        build_reference("m", {"x": x}, role, time_ms=times, window=RULE).target("x").histogram.tolist()
    )
    learnt = choose_binnings("m", {"late": late[first], "x": x[first]}, role)
    assert left_out(learnt) == left_out(found)  # both kinds of references say the same


def test_the_id_depends_on_the_content_alone() -> None:
    g = np.random.default_rng(0)
    columns = {"b": g.normal(size=3000), "a": g.integers(0, 3, 3000).astype(str).astype(object)}
    roles = {"a": "feature", "b": "score"}
    found = build_reference("m", columns, roles)
    assert found.id == build_reference("m", dict(reversed(columns.items())), dict(reversed(roles.items()))).id
    assert found.id != build_reference("n", columns, roles).id
    assert [t.name for t in found.targets] == ["a", "b"]
    assert not found.windows.checked
    assert "not checkable" in found.notes[0]
    assert found.windows.size_min == found.windows.size_max == 50
    # Pinned: the same rows must give this id on every machine and in every later version with this format.
    whole = np.arange(4000.0)
    pinned = build_reference(
        "m", {"x": (whole * 7919) % 1009, "c": np.where(whole % 3, "u", "v")}, {"x": "feature", "c": "feature"}
    )
    assert pinned.id == "sha256:76f6e8663e956940585776e955d3989e9eea9a17f32863fb4b1a3a5bcd031e1a"


def test_a_profile_survives_its_sections_and_damage_is_refused() -> None:
    found = build_reference(
        "m", {"x": np.random.default_rng(0).normal(size=3000)}, {"x": "feature"}, origin={"file": "f"}
    )
    header, sections = to_sections(found)
    again = from_sections(header, sections)
    assert again.id == found.id
    assert to_sections(again)[0] == header
    assert all(to_sections(again)[1][name].tobytes() == part.tobytes() for name, part in sections.items())
    with pytest.raises(CorruptReference):
        from_sections(header, sections | {"counts": sections["counts"] + 1})
    with pytest.raises(CorruptReference):
        from_sections(header | {"id": "sha256:0"}, sections)
    with pytest.raises(UnknownReferenceVersion):
        from_sections(header | {"version": 99}, sections)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(1, 30)), min_size=1, max_size=80),
    st.integers(1, 300),
    st.integers(1, 100),
    st.sampled_from([0, 150, 1000]),
)
def test_reference_windows_are_cut_as_live_ones_are(
    panes: list[tuple[int, int]], every_ms: int, min_events: int, longest_ms: int
) -> None:
    rule = WindowRule(
        auto=False, every_ms=every_ms, min_events=min_events, max_duration_ms=longest_ms, resolution_ms=10
    )
    events = dict(sorted({10 * edge: count for edge, count in panes}.items()))
    times = np.concatenate([np.full(count, edge + 3) for edge, count in events.items()]).astype(np.int64)
    of_row, count = windows_in_time(times, rule, every_ms)
    lengths, live, closed = Lengths.of(rule, 10), WindowList(), []
    for edge, number in events.items():
        closed += live.due(edge, lengths)
        live.add(edge, 10, number)
    closed += live.due(live.last_ms, lengths)
    expected = [(w.start_ms, w.events) for w in closed if w.sufficient]
    assert count == len(expected)
    first = [int(times[of_row == w].min() // 10 * 10) for w in range(count)]
    assert list(zip(first, np.bincount(of_row[of_row >= 0], minlength=count).tolist(), strict=True)) == expected


def test_without_time_the_same_shuffle_everywhere() -> None:
    order = shuffled(1000)
    assert sorted(order.tolist()) == list(range(1000))
    assert order[:5].tolist() == shuffled(1000)[:5].tolist()
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.1


def test_variance_ratio_by_hand_and_on_known_processes() -> None:
    x = np.random.default_rng(0).normal(size=20_000)
    for q in (2, 8, 64):
        ratio, limit = variance_ratio(x, q)
        assert ratio == pytest.approx(1.0, abs=0.25)
        assert limit > ratio
    y = kit.autoregressive(np.random.default_rng(1), 20_000, 0.5)
    assert variance_ratio(y, 2)[0] == pytest.approx(1.5, abs=0.05)
    assert variance_ratio(np.tile([1.0, -1.0], 50), 2)[0] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("phi", "longest_ms"), [(0.0, 1000), (0.95, 10_000)])
def test_auto_takes_the_shortest_window_that_holds(phi: float, longest_ms: int) -> None:
    """One event in 20 ms; panes of a second hold 50. Independent events: the shortest; AR(.95): no longer than needed."""
    values = kit.autoregressive(np.random.default_rng(2), 120_000, phi)
    rule = WindowRule(auto=True, min_events=50, resolution_ms=1000)
    found = build_reference("m", {"x": values}, {"x": "feature"}, time_ms=np.arange(120_000) * 20, window=rule)
    assert found.windows.auto["holds"]
    assert (1000 if phi == 0 else 2000) <= found.windows.every_ms <= longest_ms
    holding = [entry["every_ms"] for entry in found.windows.auto["tried"] if entry["targets_that_hold"] >= 0.8]
    assert found.windows.every_ms == holding[-1]
    assert min(holding) > 1000 or phi == 0
    assert reserve(found.windows.auto, 1) == (1.0 if phi == 0 else DEPENDENCE_RESERVE)
    assert reserve(found.windows.auto, 2) == DEPENDENCE_RESERVE


def test_auto_takes_windows_of_ten_events_where_panes_hold_fewer() -> None:
    """Three events a pane of a minute: four panes to a window."""
    values, time_ms = np.random.default_rng(6).normal(size=20_000), np.arange(20_000) * 20_000
    found = build_reference("m", {"x": values}, {"x": "feature"}, time_ms=time_ms, window=WindowRule())
    assert found.windows.min_events == 10
    assert (found.windows.size_min, found.windows.size_max) == (12, 12)
    assert found.windows.every_ms == 60_000
    of_panes = build_reference(
        "m", {"x": values}, {"x": "feature"}, time_ms=np.arange(20_000) * 500, window=WindowRule()
    )
    assert of_panes.windows.size_max == 120, "no window is shorter than a pane"


def test_auto_takes_longer_windows_where_they_show_a_little_dependence() -> None:
    """Within the upper limit, but a long reference shows lag 1 of .06: the shortest length that does not, else the longest."""
    for m, lag, shown in ((7_000, 0.0, False), (7_000, 0.06, True), (300, 0.06, False)):
        x = kit.autoregressive(np.random.default_rng(8), m, lag)[:, None]
        ratio = dependence(x, np.random.default_rng(9).random((m, 1)), 60_000)
        assert ratio.excess <= 1.0
        assert (ratio.seen > 1.0) is shown
    for seen, length in (((1.1, 0.9, 0.8), 2), ((1.1, 1.1, 1.1), 3), ((0.9, 0.8, 0.8), 1)):
        ratios = dict(zip((1, 2, 3), (Ratio(0.9, 1.0, each) for each in seen), strict=True))
        chosen = choose_window((1, 2, 3), lambda each, ratios=ratios: (1000, [ratios[each]]))
        assert (chosen.length_ms, chosen.holds) == (length, True)


def test_a_slow_target_takes_several_windows_as_one() -> None:
    g, rows = np.random.default_rng(4), 160_000
    columns = {f"x{i}": g.normal(size=rows) for i in range(4)}
    columns["slow"] = kit.autoregressive(g, rows, 0.96)
    rule = WindowRule(auto=True, min_events=50, resolution_ms=1000)
    found = build_reference("m", columns, dict.fromkeys(columns, "feature"), time_ms=np.arange(rows) * 20, window=rule)
    slow = found.target("slow")
    assert found.windows.every_ms == 1000
    assert slow.group > 1
    assert slow.windows == found.windows.count // slow.group
    prepared = prepare(slow, DetectionSettings(0.05, 1e9), found.id)
    state = start(prepared)
    counts = kit.windows(slow, columns["slow"][:10_000], 50)
    judged = [update(prepared, state, row, 1000.0, i * 1000).judged for i, row in enumerate(counts)]
    assert judged == [(i + 1) % slow.group == 0 for i in range(len(counts))]


def test_learning_from_the_stream_completes_the_same_reference() -> None:
    g = np.random.default_rng(5)
    sample = g.normal(size=5000)
    learning = choose_binnings(
        "m", {"x": sample, "gone": np.full(5000, np.nan)}, {"x": "feature", "gone": "feature"}, origin={"first": 40_000}
    )
    assert not learning.complete
    assert [t.name for t in learning.targets] == ["x"]
    assert "gone" in learning.notes[0]
    with pytest.raises(IncompleteReference):
        prepare(learning.targets[0], DetectionSettings(0.05, 1e9), learning.id)
    assert from_sections(*to_sections(learning)).id == learning.id
    values = g.normal(size=40_000)
    centre = learning.targets[0].binning.centre
    windows = [
        WindowCounts(
            i * 1000,
            100,
            (row,),
            np.array([[(x - centre).sum(), ((x - centre) ** 2).sum()]]),
            np.array([[x.min(), x.max()]]),
        )
        for i, (row, x) in enumerate(
            zip(kit.windows(learning.targets[0], values, 100), values.reshape(-1, 100), strict=True)
        )
    ]
    done = profile_from_windows(learning, windows, window=RULE)
    assert done.complete
    assert done.id == learning.id
    assert from_sections(*to_sections(done)).id == done.id
    target = done.targets[0]
    assert target.windows == 400
    assert target.summary["mean"] == pytest.approx(values.mean(), abs=1e-6)
    assert target.summary["std"] == pytest.approx(values.std(), abs=1e-6)
    assert target.summary["median"] == pytest.approx(0.0, abs=0.1)
    assert (target.minimum, target.maximum) == (values.min(), values.max())
    with pytest.raises(TooFewRows):
        profile_from_windows(learning, windows[:10])
