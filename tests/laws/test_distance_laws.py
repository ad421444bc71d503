"""Laws of every registered distance and two-sample test, whichever they are: a new one is held to them by being registered."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import REGISTRY, load
from detectors.distance import Outcome, ReferenceBins, WindowBins, prepared_distance, prepared_test
from detectors.registry import Family, Reads
from detectors.verdict import BadCounts

DISTANCES = [name for name, entry in REGISTRY.items() if entry.family is Family.DISTANCE]
TESTS = [name for name, entry in REGISTRY.items() if entry.family is Family.TEST]
NAMES = DISTANCES + TESTS
every = pytest.mark.parametrize("name", NAMES)
laws = settings(max_examples=40, deadline=None)


class Pair:
    """Targets with counts on both sides. One target: (numeric, reference counts, window counts), missing and invalid last."""

    def __init__(self, parts):
        self.parts = parts
        self.start = np.cumsum([0, *(len(p) for _, p, _ in parts)]).astype(np.int64)
        self.ordered = np.concatenate([np.arange(len(p)) < (len(p) - 2 if numeric else 0) for numeric, p, _ in parts])
        ends = [np.array([-np.inf, *(np.arange(len(p) - 3) ** 1.5), np.inf]) for numeric, p, _ in parts if numeric]
        self.ends = np.concatenate(ends) if ends else np.zeros(0)
        self.p = np.concatenate([np.asarray(p, np.int64) for _, p, _ in parts])
        self.q = np.concatenate([np.asarray(q, np.int64) for _, _, q in parts])

    def extremes(self, counts):
        """A value in the middle of the first and the last ordered bin that hold something."""
        found = []
        for i, (numeric, part, _) in enumerate(self.parts):
            own = np.flatnonzero(counts[self.start[i] : self.start[i + 1] - 2]) if numeric else np.zeros(0, int)
            cuts = np.array([-1.0, *(np.arange(len(part) - 3) ** 1.5), (len(part) - 2) ** 1.5])
            found.append((cuts[own[[0, -1]]] + cuts[own[[0, -1]] + 1]) / 2 if len(own) else (np.nan, np.nan))
        return np.array(found).T

    def reference(self, counts=None):
        counts = self.p if counts is None else counts
        low, high = self.extremes(counts)
        return ReferenceBins(
            self.start, counts.astype(np.float64), self.ordered, self.ends, low, high, np.ones(len(self.parts))
        )

    def window(self, counts=None):
        counts = self.q if counts is None else counts
        return WindowBins(counts, *self.extremes(counts))

    def has(self, name):
        """Which targets have anything that this one reads, on both sides."""
        if REGISTRY[name].reads is Reads.BINS:
            return np.array([sum(p) > 0 and sum(q) > 0 for _, p, q in self.parts])
        return np.array([numeric and sum(p[:-2]) > 0 and sum(q[:-2]) > 0 for numeric, p, q in self.parts])


def value(name, reference, window):
    """F64[t]: the distance, or the statistic."""
    with np.errstate(all="raise", under="ignore"):
        if name in DISTANCES:
            return prepared_distance(name, reference)(window)
        return prepared_test(name, reference)(window).statistic


def outcome(name, reference, window) -> Outcome:
    with np.errstate(all="raise", under="ignore"):
        return prepared_test(name, reference)(window)


def side(width):
    some = st.lists(st.integers(0, 10_000), min_size=width, max_size=width)
    return st.one_of(some, some, some, st.just([0] * width))


part = st.tuples(st.booleans(), st.integers(3, 32)).flatmap(
    lambda kind: st.tuples(st.just(kind[0]), side(kind[1]), side(kind[1]))
)
pairs = st.lists(part, min_size=1, max_size=5).map(Pair)


@every
@given(pairs)
@laws
def test_equal_counts_are_at_distance_zero(name, pair):
    found = value(name, pair.reference(), pair.window(pair.p))
    finite = found[np.isfinite(found)]
    np.testing.assert_allclose(finite, 0, atol=1e-6)
    if name in DISTANCES:
        has = Pair([(numeric, p, p) for numeric, p, _ in pair.parts]).has(name)
        assert np.isfinite(found).tolist() == has.tolist()


@every
@given(pairs)
@laws
def test_bounds(name, pair):
    found = value(name, pair.reference(), pair.window())
    finite = found[np.isfinite(found)]
    assert not np.isinf(found).any()
    assert (finite >= 0).all()
    assert (finite <= load(name).TRAITS.upper).all()


@every
@given(pairs)
@laws
def test_nothing_counted_has_no_distance_and_never_zero(name, pair):
    found = value(name, pair.reference(), pair.window())
    if name in DISTANCES:
        assert np.isfinite(found).tolist() == pair.has(name).tolist()
    else:
        assert not np.isfinite(found[~pair.has(name)]).any()
    nothing = value(name, pair.reference(), pair.window(np.zeros_like(pair.q)))
    assert np.isnan(nothing).all()
    assert np.isnan(value(name, pair.reference(np.zeros_like(pair.p)), pair.window())).all()


@every
@given(pairs)
@laws
def test_symmetric_ones_are_symmetric(name, pair):
    there = value(name, pair.reference(), pair.window())
    back = value(name, pair.reference(pair.q), pair.window(pair.p))
    if load(name).TRAITS.symmetric:
        np.testing.assert_allclose(there, back, rtol=1e-9, atol=1e-7)
    assert np.isnan(there).tolist() == np.isnan(back).tolist()


@pytest.mark.parametrize("name", [name for name in NAMES if not load(name).TRAITS.symmetric])
def test_others_are_not(name):
    pair = Pair([(True, [50, 20, 10, 5, 0, 0], [0, 1, 10, 20, 1, 0])])
    there = value(name, pair.reference(), pair.window())
    assert there != pytest.approx(value(name, pair.reference(pair.q), pair.window(pair.p)))


@every
@given(pairs)
@laws
def test_a_target_does_not_depend_on_its_neighbours(name, pair):
    together = value(name, pair.reference(), pair.window())
    for index, one in enumerate(pair.parts):
        alone = Pair([one])
        np.testing.assert_allclose(
            together[index], value(name, alone.reference(), alone.window())[0], rtol=1e-9, atol=1e-7
        )


@every
@given(pairs, st.integers(0, 2**32 - 1))
@laws
def test_the_distance_of_merged_panes_is_the_distance_of_their_rows(name, pair, seed):
    """Rows are dealt out to three panes, counted there, and the counts added: bit for bit as if counted at once."""
    random = np.random.default_rng(seed)
    rows = np.repeat(np.arange(len(pair.q)), np.minimum(pair.q, 40))
    random.shuffle(rows)
    whole = np.bincount(rows, minlength=len(pair.q))
    panes = [np.bincount(dealt, minlength=len(pair.q)) for dealt in np.array_split(rows, 3)]
    extremes = [pair.extremes(pane) for pane in panes]
    low = np.fmin.reduce([low for low, _ in extremes])
    high = np.fmax.reduce([high for _, high in extremes])
    merged = value(name, pair.reference(), WindowBins(sum(panes), low, high))
    assert merged.tobytes() == value(name, pair.reference(), pair.window(whole)).tobytes()


@every
@given(pairs)
@laws
def test_one_reference_serves_many_windows(name, pair):
    """What is prepared has no memory."""
    measure = (prepared_distance if name in DISTANCES else prepared_test)(name, pair.reference())
    first = np.array(measure(pair.window()))
    measure(pair.window(pair.p))
    assert np.array(measure(pair.window())).tobytes() == first.tobytes()


@pytest.mark.parametrize("name", [name for name in NAMES if REGISTRY[name].reads is not Reads.BINS])
@given(pairs)
@laws
def test_those_of_values_do_not_see_missing_ones_and_have_nothing_to_say_of_categories(name, pair):
    gone = pair.q.copy()
    gone[np.concatenate((pair.start[1:] - 1, pair.start[1:] - 2))] = 0
    found = value(name, pair.reference(), pair.window())
    np.testing.assert_array_equal(found, value(name, pair.reference(), pair.window(gone)))
    assert np.isnan(found[[not numeric for numeric, _, _ in pair.parts]]).all()


@pytest.mark.parametrize("name", [name for name in NAMES if REGISTRY[name].reads is Reads.BINS])
def test_the_others_see_missing_values_and_new_categories(name):
    known = [4000, 3000, 2000, 0, 100, 0]
    for later in ([4000, 3000, 2000, 0, 900, 0], [4000, 3000, 2000, 800, 100, 0]):
        pair = Pair([(False, known, later)])
        same = value(name, pair.reference(), pair.window(pair.p))
        assert value(name, pair.reference(), pair.window())[0] > max(10 * same[0], 0.01)


@pytest.mark.parametrize("name", TESTS)
@given(pairs)
@laws
def test_p_values_are_shares_and_large_where_nothing_differs(name, pair):
    found = outcome(name, pair.reference(), pair.window())
    finite = np.isfinite(found.statistic)
    assert np.isfinite(found.p_value).tolist() == finite.tolist()
    assert ((found.p_value[finite] >= 0) & (found.p_value[finite] <= 1)).all()
    same = outcome(name, pair.reference(), pair.window(pair.p))
    assert (same.p_value[np.isfinite(same.statistic)] > 0.999).all()


@every
@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.array([1.0, np.nan, 2, 0, 0, 5, 5, 0, 0]), "count nan of target 0, bin 1"),
        (np.array([1, 1, 2, 0, 0, 5, np.inf, 0, 0]), "count inf of target 1, bin 1"),
        (np.array([1, 1, 2, 0, 0, 5, 5, 0, -1]), "count -1 of target 1, bin 3"),
        (np.array([1, 1, 2, 0, 0, 5, 5, 0]), "9 counts expected, got an array of shape (8,)"),
        (np.zeros((9, 1)), "9 counts expected, got an array of shape (9, 1)"),
        (np.zeros(9, bool), "counts are numbers, got bool"),
    ],
)  # fmt: skip
def test_counts_that_are_none_are_refused_by_name(name, counts, message):
    pair = Pair([(True, [5, 5, 5, 0, 0], [0] * 5), (False, [5, 5, 0, 0], [0] * 4)])
    measure = (prepared_distance if name in DISTANCES else prepared_test)(name, pair.reference())
    nothing = np.full(2, np.nan)
    with pytest.raises(BadCounts) as refused:
        measure(WindowBins(counts, nothing, nothing))
    assert str(refused.value) == f"{name}: {message}"
    with pytest.raises(BadCounts) as refused:
        ReferenceBins(pair.start, counts, pair.ordered, pair.ends, nothing, nothing, nothing)
    assert str(refused.value) == f"reference: {message}"
