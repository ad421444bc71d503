"""The compiled kernels of the collector against their twins in numpy and Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.dedup import IDS_MIN, IdSet
from stream.kernels import timeline
from stream.kernels.accumulate import BLOCK, _below


@pytest.mark.parametrize("cuts", [0, 1, 2, 3, 63, 80, 257])
@pytest.mark.parametrize("dtype", [np.float64, np.uint64])
def test_places_in_a_table_equal_searchsorted(cuts: int, dtype: type) -> None:
    g = np.random.default_rng(cuts)
    table = np.unique(g.integers(0, 500, cuts)).astype(dtype)
    values = np.concatenate([g.integers(0, 500, BLOCK - 2), [0, 999]]).astype(dtype)
    if len(table):
        values[: len(table[:20])] = table[:20]
    for count in (0, 1, BLOCK):
        place = np.full(BLOCK, 77, np.uint32)
        _below(table, values, count, place)
        np.testing.assert_array_equal(place[:count], np.searchsorted(table, values[:count], side="right"))
        assert (place[count:] == 77).all()


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(-200, 200), st.integers(-200, 200)), max_size=50),
    st.sampled_from([1, 7, 60]),
    st.integers(0, 50),
    st.integers(0, 50),
    st.sampled_from([-(1 << 62), -30, 20]),
)
def test_judgement_equals_the_running_maximum(
    times: list[tuple[int, int]], resolution: int, lateness: int, skew: int, floor: int
) -> None:
    event = np.array([t[0] for t in times], np.int64)
    record = np.array([t[1] for t in times], np.int64)
    n, marked = len(times), -210 // resolution * resolution
    status, edge = np.empty(n, np.uint8), np.zeros(n, np.int64)
    rows, edges = np.empty(n, np.int64), np.empty(n, np.int64)
    largest, closings = timeline.judge(
        event, record, -(1 << 62), floor, marked, resolution, lateness, skew, status, edge, rows, edges
    )
    future = event > record + skew
    candidates = np.concatenate([[-(1 << 62)], np.where(future, -(1 << 62), event)])
    before = np.maximum.accumulate(candidates)
    late = ~future & (event < np.maximum(before[:-1] - lateness, floor))
    np.testing.assert_array_equal(status == timeline.FUTURE, future)
    np.testing.assert_array_equal(status == timeline.LATE, late)
    applied = ~future & ~late
    np.testing.assert_array_equal(edge[applied], event[applied] // resolution * resolution)
    moved = np.concatenate([[-(1 << 62)], np.where(applied, event, -(1 << 62))])
    assert largest == moved.max()
    low = np.maximum(np.maximum.accumulate(moved)[1:] - lateness, floor) // resolution * resolution
    expected = []
    for i in np.flatnonzero(applied & (np.diff(np.maximum.accumulate(moved)) > 0)):
        if low[i] > marked:
            expected.append((i, low[i]))
            marked = low[i]
    assert list(zip(rows[:closings], edges[:closings], strict=True)) == expected


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2)), max_size=60), max_size=6))
def test_ids_equal_a_python_set_through_growth_and_reload(batches: list[list[tuple[int, int]]]) -> None:
    # ids whose lower bits agree all start at one slot; some agree in everything but the last 32 bits
    ids, seen = IdSet(), set()
    for batch in batches:
        high = np.array([h << 40 for h, _ in batch], np.uint64)
        low = np.array([x for _, x in batch], np.uint32)
        status = np.zeros(len(batch), np.uint8)
        ids.add(np.arange(len(batch)), high, low, status, 3)
        for i, pair in enumerate(batch):
            assert (status[i] == 3) == (pair in seen)
            seen.add(pair)
        fresh = IdSet()
        half = ids.count // 2
        fresh.extend(*(part[:half].copy() for part in ids.ids()))
        fresh.extend(*(part.copy() for part in ids.ids(half)))
        assert fresh.count == fresh.saved == ids.count == len(seen)
        ids = fresh


def test_the_id_set_stays_at_most_three_quarters_full_and_states_its_bytes() -> None:
    g = np.random.default_rng(5)
    ids = IdSet()
    for _ in range(40):
        high = g.integers(0, 1 << 63, 500).astype(np.uint64)
        ids.add(np.arange(500), high, np.zeros(500, np.uint32), np.zeros(500, np.uint8), 3)
    assert ids.count == 20_000
    assert 4 * ids.count <= 3 * len(ids._table) <= 1.3 * 4 * ids.count
    assert ids.nbytes == 12 * len(ids._high) + 8 * len(ids._table) <= 30 * ids.count
    assert IdSet().nbytes == 12 * IDS_MIN + 8 * -(-IDS_MIN * 4 // 3)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(-1, 1), st.integers(0, 2)), min_size=1, max_size=80))
def test_groups_and_order(keys: list[tuple[int, int, int]]) -> None:
    n = len(keys)
    edge = np.array([k[0] for k in keys], np.int64)
    model = np.array([k[1] for k in keys], np.int32)
    version = np.array([k[2] for k in keys], np.uint64)
    rows = np.arange(n)[np.arange(n) % 3 != 1]
    table = np.full(1 << (2 * len(rows)).bit_length(), -1, np.int64)
    group_of, first = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    groups = timeline.group(rows, edge, model, version, table, group_of, first)
    numbers: dict[tuple[int, int, int], int] = {}
    expected = [numbers.setdefault(keys[r], len(numbers)) for r in rows]
    assert group_of.tolist() == expected
    assert groups == len(numbers)
    assert [keys[r] for r in first[:groups]] == list(numbers)
    start, ordered = np.zeros(groups + 1, np.int64), np.empty(len(rows), np.int64)
    timeline.order(rows, group_of, start, ordered)
    for g in range(groups):
        assert ordered[start[g] : start[g + 1]].tolist() == [r for r, e in zip(rows, expected, strict=True) if e == g]


def test_tally_counts_up_to_each_stop() -> None:
    status = np.random.default_rng(2).integers(0, timeline.STATUSES, 50).astype(np.uint8)
    stops = np.array([7, 7, 20, 50])
    counts = np.zeros((4, timeline.STATUSES), np.int64)
    timeline.tally(status, 5, stops, counts)
    for stop, line in zip(stops, counts, strict=True):
        np.testing.assert_array_equal(line, np.bincount(status[5:stop], minlength=timeline.STATUSES))
