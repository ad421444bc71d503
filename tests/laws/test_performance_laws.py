"""Sums of performance: equal rows give equal bytes in any order and cut, exact sums are exact, what is refused changes nothing."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.performance import (
    METRICS,
    Layout,
    MetricSettings,
    PerformanceSums,
    exact,
    from_sections,
    kept,
    measure,
    merged,
)
from detectors.performance.paired import PairedSums, paired_from_sections
from detectors.verdict import BadCounts, BadState

ROWS = 150
LAYOUTS = {
    "binary": Layout(classes=2, scores=True, proxies=True),
    "classes": Layout(classes=4, class_scores=True),
    "numbers": Layout(errors=True, centre=20.0),
}
TELL = MetricSettings(target=3.0, value=np.eye(2))


def rows(name: str, seed: int) -> dict[str, np.ndarray]:
    """Rows with everything in them that may come: no label, unknown classes, no score, scores that are none, huge values."""
    g = np.random.default_rng(seed)
    scores = g.choice([0.0, 1.0, -0.5, 1.5, np.nan, np.inf, 0.3, 1e-9], ROWS)
    scores = np.where(g.random(ROWS) < 0.7, g.random(ROWS), scores)
    values = g.normal(size=ROWS) * 10.0 ** g.integers(-20, 20, ROWS)
    values = np.where(g.random(ROWS) < 0.1, g.choice([np.nan, np.inf, -np.inf, 1e60, 0.0, 5e-324, 1e50], ROWS), values)
    class_scores = g.dirichlet(np.ones(4), ROWS)
    class_scores[g.random(ROWS) < 0.1, 1] = np.nan
    return {
        "predicted": g.integers(-1, 5, ROWS), "label": g.integers(-1, 5, ROWS), "score": scores, "value": values,
        "clicked": g.random(ROWS) < 0.2, "class_scores": class_scores, "other": values[::-1].copy(),
    }  # fmt: skip


def summed(name: str, r: dict[str, np.ndarray], which: np.ndarray) -> PerformanceSums:
    sums = PerformanceSums(LAYOUTS[name])
    r = {key: each[which] for key, each in r.items()}
    if name == "numbers":
        sums.add_errors(r["value"], r["other"])
        return sums
    sums.add_classes(r["predicted"], r["label"])
    if name == "classes":
        sums.add_class_scores(r["class_scores"], r["label"])
        return sums
    sums.add_scores(r["score"], r["label"])
    sums.add_proxies(r["clicked"], r["clicked"], r["value"], r["score"])
    return sums


def as_bytes(sums: PerformanceSums | PairedSums) -> bytes:
    return b"".join(name.encode() + each.tobytes() for name, each in sorted(sums.to_sections().items()))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(LAYOUTS)), st.integers(0, 1 << 30), st.lists(st.integers(0, ROWS), max_size=5))
def test_any_order_cut_and_merge_gives_the_same_bytes(name: str, seed: int, cuts: list[int]) -> None:
    r = rows(name, seed)
    whole = summed(name, r, np.arange(ROWS))
    g = np.random.default_rng(seed)
    parts = [summed(name, r, part) for part in np.split(g.permutation(ROWS), sorted(cuts))]
    left = merged(LAYOUTS[name], parts)
    right = PerformanceSums(LAYOUTS[name])
    for part in reversed(parts):  # nested the other way, and through bytes
        nested = from_sections(LAYOUTS[name], part.to_sections())
        nested.merge(right)
        right = nested
    assert as_bytes(left) == as_bytes(right) == as_bytes(whole)
    np.testing.assert_array_equal(left.sums, whole.sums)  # in their one form before they are packed, too
    whole.merge(PerformanceSums(LAYOUTS[name]))
    assert as_bytes(whole) == as_bytes(left)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(LAYOUTS)), st.integers(0, 1 << 30), st.integers(0, ROWS))
def test_no_metric_is_ever_less_than_a_number_or_without_a_reason(name: str, seed: int, size: int) -> None:
    sums = summed(name, rows(name, seed), np.arange(size))
    for metric in kept(sums.layout):
        found = measure(metric, sums, MetricSettings(target=3.0, value=np.eye(sums.layout.classes)))
        numbers = [x for x in (found.value, found.low, found.high) if x is not None]
        assert all(math.isfinite(x) for x in (*numbers, found.error)), metric
        assert bool(found.reason) == (len(numbers) < 3), metric
        if len(numbers) == 3:
            assert found.low <= found.value <= found.high, (metric, found)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.floats(-exact.SUMMAND_MAX, exact.SUMMAND_MAX).filter(lambda x: x == 0 or abs(x) > 1e-60), max_size=40)
)
def test_an_exact_sum_is_the_correctly_rounded_one(values: list[float]) -> None:
    limbs = np.zeros(exact.LIMBS, np.int64)
    exact.add(limbs, np.array(values, np.float64))
    assert exact.fraction(limbs) == sum(map(Fraction, values), Fraction(0))
    assert exact.number(limbs) == math.fsum(values)
    assert (limbs[:-1] >= 0).all()
    assert (limbs[:-1] <= exact.LIMB_MASK).all()
    both = np.stack([limbs, limbs])
    packed = exact.pack(both)
    assert packed.tobytes() == 2 * packed_number(int(exact.fraction(limbs) * 2**exact.UNIT_BITS))
    np.testing.assert_array_equal(exact.unpack(packed, 2), both)


def packed_number(units: int) -> bytes:
    """One packed sum, by arithmetic of whole numbers."""
    size, first = abs(units), 0
    while size and size % 2**64 == 0:
        size, first = size >> 64, first + 1
    count = -(-size.bit_length() // 64)
    return (first | count << 8 | (units < 0) << 16).to_bytes(8, "little") + size.to_bytes(8 * count, "little")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1e50, 1e50).filter(lambda x: x == 0 or abs(x) > 1e-25), max_size=30))
def test_squares_are_not_rounded(values: list[float]) -> None:
    limbs = np.zeros(exact.LIMBS, np.int64)
    exact.add_squares(limbs, np.array(values, np.float64))
    assert exact.fraction(limbs) == sum((Fraction(x) ** 2 for x in values), Fraction(0))


def test_values_below_the_unit_count_as_nothing_and_break_nothing() -> None:
    limbs = np.zeros(exact.LIMBS, np.int64)
    exact.add(limbs, np.array([5e-324, -5e-324, 2.0**-256, 2.0**-300, 1.5 * 2.0**-256]))
    assert exact.fraction(limbs) == Fraction(2, 1 << 256)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_state_is_as_large_as_stated_and_small_on_the_wire(name: str) -> None:
    sums = summed(name, rows(name, 1), np.arange(ROWS))
    assert sum(each.nbytes for each in sums.counts.values()) + sums.sums.nbytes == sums.layout.bytes
    assert sums.layout.bytes < {"binary": 11_000, "classes": 18_500, "numbers": 6_500}[name]
    assert sum(each.nbytes for each in sums.to_sections().values()) < sums.layout.bytes + 32 * len(sums.sums)


def test_damage_is_refused_by_name() -> None:
    layout = LAYOUTS["numbers"]
    good = summed("numbers", rows("numbers", 1), np.arange(ROWS)).to_sections()
    broken = {
        "version 2": {**good, "head": good["head"] + np.array([1, 0, 0])},
        "of layout": {**good, "head": good["head"] + np.array([0, 1, 0])},
        "unknown": {**good, "more": good["head"]},
        "missing": {name: each for name, each in good.items() if name != "errors.over"},
        "damaged": {**good, "sums": good["sums"][:-1]},
        "words too many": {**good, "sums": np.append(good["sums"], 0)},
        "2 expected": {**good, "errors.over": good["errors.over"][:1]},
        "none negative": {**good, "errors.over": -1 - good["errors.over"]},
        "flat arrays of int64": {**good, "errors.over": good["errors.over"].astype(np.float64)},
    }
    for reason, sections in broken.items():
        with pytest.raises(BadState, match=reason):
            from_sections(layout, sections)
    with pytest.raises(BadState, match="cannot be merged"):
        PerformanceSums(layout).merge(PerformanceSums(Layout(errors=True)))


def test_what_is_refused_changes_nothing() -> None:
    sums = summed("binary", rows("binary", 1), np.arange(ROWS))
    before = as_bytes(sums)
    codes, numbers = np.zeros(3, np.int64), np.zeros(3)
    refused = (
        lambda: sums.add_classes(codes, codes[:2]),
        lambda: sums.add_classes(numbers, codes),
        lambda: sums.add_scores(codes, codes),
        lambda: sums.add_scores(numbers[:2], codes),
        lambda: sums.add_errors(numbers, numbers),
        lambda: sums.add_class_scores(numbers, codes),
        lambda: sums.add_proxies(codes, codes, numbers, numbers),
    )
    for call in refused:
        with pytest.raises(BadCounts):
            call()
    assert as_bytes(sums) == before


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(0, ROWS))
def test_paired_sums_merge_in_any_order_too(seed: int, cut: int) -> None:
    r, layout = rows("binary", seed), LAYOUTS["binary"]
    numbers = LAYOUTS["numbers"]

    def paired(which: np.ndarray) -> tuple[PairedSums, PairedSums]:
        classes, values = PairedSums(layout, layout), PairedSums(numbers, numbers)
        part = {key: each[which] for key, each in r.items()}
        classes.add_classes(part["predicted"], part["label"][::-1].copy(), part["label"])
        classes.add_scores(part["score"], 1.0 - part["score"], part["label"])
        values.add_errors(part["value"], part["other"], part["score"])
        return classes, values

    r["label"] = np.repeat(r["label"][0], ROWS)  # so that reversing within a part is the same as in the whole
    order = np.random.default_rng(seed).permutation(ROWS)
    first, second, whole = paired(order[cut:]), paired(order[:cut]), paired(np.arange(ROWS))
    for a, b, c, kind in zip(first, second, whole, (layout, numbers), strict=True):
        back = paired_from_sections(kind, kind, a.to_sections())
        back.merge(b)
        assert as_bytes(back) == as_bytes(c)


def test_every_metric_is_measured_by_some_layout_here() -> None:
    assert {metric for layout in LAYOUTS.values() for metric in kept(layout)} == set(METRICS)
