"""Arrays in events: both tiers read them as json does, whatever stands there; an event is never lost by one."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.multivariate import ReferenceRows, RowWindow, prepared
from stream.chunks import split
from stream.columns import Columns, Tag
from stream.decode import decode, decode_strict, records_from_lines
from stream.decode_arrays import NORM_DIGITS
from stream.mapping import NATIVE, Layout
from stream.sizing import STEP_EVENTS, step_events

LENGTH = 3
PATHS = ("features.amount", "features.v", "score")
LAYOUT = Layout.compile(NATIVE, ["m", "plain", "wide"], PATHS, arrays={"features.v": {"m": LENGTH, "wide": 5}})
V = PATHS.index("features.v")

finite = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**25), 10**25)
odd = st.sampled_from((math.nan, math.inf, -math.inf, None, True, "1", [1.0], {"a": 1}, 1e200))
arrays = st.lists(finite, min_size=LENGTH, max_size=LENGTH) | st.lists(finite | odd, max_size=6)
values = arrays | finite | odd | st.text(max_size=3)


def line(number: int, model: str, value: Any, *, absent: bool = False) -> bytes:
    features = {"amount": 1.5} | ({} if absent else {"v": value})
    event = {"prediction_id": f"p{number}", "model": model, "timestamp": "2026-11-22T10:15:03Z", "score": 0.5}
    return json.dumps(event | {"features": features}).encode()


def expected(text: bytes, length: int) -> tuple[Tag, list[float] | None]:
    """By the plain parser: the tag, and the numbers of a valid array."""
    value = json.loads(text)["features"].get("v")
    if value is None:
        return Tag.MISSING, None
    if not isinstance(value, list) or len(value) != length:
        return Tag.INVALID, None
    if not all(type(each) in {int, float} for each in value):
        return Tag.INVALID, None
    numbers = [float(each) for each in value]
    square = sum(each * each for each in numbers) if all(map(math.isfinite, numbers)) else math.inf
    return (Tag.NUMBER, numbers) if math.isfinite(square) else (Tag.INVALID, None)


def numbers_at(columns: Columns, row: int, length: int = LENGTH) -> list[float] | None:
    cells = columns.arrays.get((V, length))
    if cells is None or cells.place[row] < 0:
        return None
    found: list[float] = cells.values[cells.place[row]].tolist()
    return found


def both(lines: list[bytes]) -> Columns:
    records = records_from_lines(lines)
    fast, strict = decode(records, LAYOUT), decode_strict(records, LAYOUT)
    assert fast.tag.tolist() == strict.tag.tolist()
    assert fast.cell.tolist() == strict.cell.tolist()
    assert fast.arrays.keys() == strict.arrays.keys()
    for key, cells in fast.arrays.items():
        assert cells.place.tolist() == strict.arrays[key].place.tolist()
        assert cells.values.tobytes() == strict.arrays[key].values.tobytes()
    return fast


@settings(max_examples=300, deadline=None)
@given(st.lists(values, min_size=1, max_size=6))
def test_both_tiers_read_arrays_as_json_does(given_values: list[Any]) -> None:
    lines = [line(number, "m", value) for number, value in enumerate(given_values)]
    columns = both(lines)
    assert len(columns) == len(lines)
    for row, text in enumerate(lines):
        tag, numbers = expected(text, LENGTH)
        assert (columns.tag[row, V], numbers_at(columns, row)) == (tag, numbers)
        assert columns.cell[row, 0].view(np.float64) == 1.5  # the rest of the event is as ever
        if numbers is not None:
            norm = columns.cell[row, [V]].view(np.float64)[0]
            assert norm == pytest.approx(math.sqrt(sum(each * each for each in numbers)), rel=10.0**-NORM_DIGITS * 5)


def test_each_model_has_a_length_of_its_own_and_a_model_without_has_no_arrays() -> None:
    lines = [
        line(0, "m", [3, 4, 0]),
        line(1, "wide", [1, 1, 1, 1, 0]),
        line(2, "wide", [1, 2, 3]),
        line(3, "plain", [3, 4, 0]),
    ]
    lines += [line(4, "plain", 7), line(5, "stranger", [3, 4, 0]), line(6, "m", 7), line(7, "m", None, absent=True)]
    columns = both(lines)
    tags = [Tag.NUMBER, Tag.NUMBER, Tag.INVALID, Tag.INVALID, Tag.NUMBER, Tag.INVALID, Tag.INVALID, Tag.MISSING]
    assert columns.tag[:, V].tolist() == tags
    assert columns.cell[[0, 1, 4], V].view(np.float64).tolist() == [5.0, 2.0, 7.0]
    assert columns.arrays[V, 3].place.tolist() == [0] + [-1] * 7
    assert columns.arrays[V, 5].place.tolist() == [-1, 0] + [-1] * 6
    assert numbers_at(columns, 1, 5) == [1.0, 1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("strange", ["true", "null", '"2"', "NaN", "Infinity", "1e400", "[2]", "{}", "1e200"])
def test_one_value_that_is_no_number_makes_the_array_invalid(strange: str) -> None:
    """NaN and 1e400 elsewhere in the event do not: the strict parser reads it then, and its numbers are the same."""
    whole = line(0, "m", [1, 2.5, 3])
    lines = [whole.replace(b"2.5", strange.encode()), whole.replace(b"1.5", strange.encode()).replace(b"p0", b"p1")]
    columns = both(lines)
    assert columns.tag[:, V].tolist() == [Tag.INVALID, Tag.NUMBER]
    assert [numbers_at(columns, row) for row in range(2)] == [None, [1.0, 2.5, 3.0]]


def test_places_follow_the_events_that_are_left() -> None:
    lines = [b"{", line(0, "m", [1, 2, 2]), b"[]", line(1, "m", "x"), line(2, "m", [2, 1, 2])]
    columns = both(lines)
    assert len(columns.rejects) == 2
    assert [numbers_at(columns, row) for row in range(3)] == [[1.0, 2.0, 2.0], None, [2.0, 1.0, 2.0]]


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=40).filter(lambda each: sum(x * x for x in each) > 1e-3)
)
def test_arrays_brought_to_length_one_are_all_of_one_value(direction: list[float]) -> None:
    """Else what the last bits do would be watched as if it were the data."""
    layout = Layout.compile(NATIVE, ["m"], ["features.v"], arrays={"features.v": {"m": len(direction)}})
    unit = (np.array(direction) / np.linalg.norm(direction)).astype(np.float32)
    columns = decode(records_from_lines([line(0, "m", unit.tolist())]), layout)
    assert columns.cell[:, 0].view(np.float64).tolist() == [1.0]


def test_a_shift_of_768_numbers_is_far_from_what_chance_does() -> None:
    """Correlated numbers, brought to length 1, in windows of 500: the README's figures."""
    length = 768
    mix = np.random.default_rng(1).standard_normal((length, length)) * (np.arange(1, length + 1) ** -0.5)[:, None]

    def drawn(n: int, seed: int) -> np.ndarray:
        found = np.random.default_rng(seed).standard_normal((n, length)) @ mix + 1
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    reference = drawn(2000, 2)
    names = tuple(map(str, range(length)))
    detector = prepared("mmd_random_features", ReferenceRows(names, reference))
    side = reference.std(axis=0) * np.random.default_rng(3).choice((-1, 1), length)

    def measured(seed: int, moved: float = 0.0, share: float = 1.0) -> float:
        rows = drawn(500, seed)
        rows[: int(share * len(rows))] += moved * side
        return detector.measure(RowWindow(detector.summed(rows), rows[:0]))

    still = [measured(seed) for seed in range(10, 20)]
    assert max(map(abs, still)) < 0.0007
    assert np.std(still) < 0.0003
    found = [measured(30, moved) for moved in (0.1, 0.25, 0.5)]
    assert found == pytest.approx([0.003, 0.017, 0.065], rel=0.25)
    assert measured(31, 1.0, 0.1) == pytest.approx(0.002, rel=0.4)


def test_a_layout_without_arrays_reads_none() -> None:
    layout = Layout.compile(NATIVE, ["m"], PATHS)
    columns = decode(records_from_lines([line(0, "m", [1, 2, 2])]), layout)
    assert columns.tag[:, V].tolist() == [Tag.INVALID]
    assert columns.arrays == {}


def test_a_step_of_long_arrays_is_of_fewer_events_and_little_memory() -> None:
    """4,000 events of a fetch with 4,096 short numbers each would take 400 MB and seconds, in which no heartbeat is sent."""
    length = 4096
    layout = Layout.compile(NATIVE, ["m", "n"], ["features.v"], arrays={"features.v": {"m": length, "n": 8}})
    assert step_events(Layout.compile(NATIVE, ["m"], ["features.v"])) == STEP_EVENTS
    records = records_from_lines([line(number, "m", [0] * length) for number in range(300)])
    decode(next(split(records, 1)), layout)
    tracemalloc.start()
    try:
        found = sum(len(decode(part, layout)) for part in split(records, step_events(layout)))
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
    assert found == 300
