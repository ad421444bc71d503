"""What was seen of the events' schema adds up: in any order, however the events were cut, and within its bounds."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.columns import Tag
from stream.schema_sample import NAMES_MAX, Expected, JsonType, SchemaSample, joined, json_type

NAMES = [f"n{i}" for i in range(3 * NAMES_MAX)]
EXPECTED = Expected(
    places=(0, 2),
    names=("amount", "country"),
    column=np.array([0, 1]),
    allowed=np.array([[True, True, False, False, False], [True, False, True, False, False]]),
    known=frozenset({"amount", "country", "known"}),
)
TAGS = {JsonType.NUMBER: Tag.NUMBER, JsonType.TEXT: Tag.TEXT, JsonType.BOOL: Tag.BOOL, JsonType.NULL: Tag.MISSING}
values = st.sampled_from([1.5, "x", True, None, [1], {"a": 1}, float("nan")])
events = st.fixed_dictionaries(
    {}, optional={"amount": values, "country": values, "known": values} | dict.fromkeys(NAMES, values)
)


def tags(rows: list[dict[str, Any]]) -> Any:
    columns = [[TAGS.get(json_type(row.get(name)), Tag.INVALID) for name in EXPECTED.names] for row in rows]
    return np.array(columns, np.uint8).reshape(len(rows), 2)


def seen(rows: list[dict[str, Any]], hashes: list[int], cuts: list[int]) -> SchemaSample:
    sample = SchemaSample()
    tag, low = tags(rows), np.array(hashes, np.uint32)
    for part in np.split(np.arange(len(rows)), sorted(cut for cut in cuts if cut < len(rows))):
        sample.look(part, tag, low, rows.__getitem__, EXPECTED)
    return sample


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[int]]:
    rows = draw(st.lists(events, max_size=12))
    return rows, draw(st.lists(st.sampled_from([0, 256, 2_560, 1, 64, 255]), min_size=len(rows), max_size=len(rows)))


@given(logs(), st.lists(st.integers(0, 12), max_size=3), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=150)
def test_a_sample_is_a_function_of_the_events_not_of_their_order_or_cuts(log: Any, cuts: list[int], r: Any) -> None:
    rows, hashes = log
    whole = seen(rows, hashes, [])
    assert seen(rows, hashes, cuts).header() == whole.header()
    order = list(range(len(rows)))
    r.shuffle(order)
    assert seen([rows[i] for i in order], [hashes[i] for i in order], cuts).header() == whole.header()


@given(logs(), logs(), logs())
@settings(deadline=None, max_examples=100)
def test_samples_add_up_in_any_order_and_grouping(a: Any, b: Any, c: Any) -> None:
    parts = [seen(log[0], log[1], []) for log in (a, b, c)]
    before = [part.header() for part in parts]
    left, right = parts[0].copy(), parts[2].copy()
    left.add(parts[1])
    left.add(parts[2])
    right.add(parts[1])
    right.add(parts[0])
    together = seen([*a[0], *b[0], *c[0]], [*a[1], *b[1], *c[1]], [])
    assert left.header() == right.header() == together.header()
    assert [part.header() for part in parts] == before


@given(logs())
@settings(deadline=None, max_examples=150)
def test_counts_are_exact_and_bounded(log: Any) -> None:
    rows, hashes = log
    looked = [row for row, low in zip(rows, hashes, strict=True) if low % 256 == 0]
    sample = seen(rows, hashes, [])
    truth = Counter((name, json_type(value)) for row in looked for name, value in row.items())
    strange = sum(count for (name, _), count in truth.items() if name not in EXPECTED.known)
    assert sample.looked == len(looked)
    assert len(sample.names) <= NAMES_MAX
    assert all(counts == [truth[name, JsonType(kind)] for kind in JsonType] for name, counts in sample.names.items())
    assert sample.crowd + sum(map(sum, sample.names.values())) == strange
    for place, name, good in ((0, "amount", JsonType.NUMBER), (2, "country", JsonType.TEXT)):
        wrong = [0 if kind in (good, JsonType.NULL) else truth[name, kind] for kind in JsonType]
        assert sample.odd.get(place, [0] * len(JsonType)) == wrong


@given(logs())
@settings(deadline=None, max_examples=50)
def test_blocks_and_headers_lose_nothing(log: Any) -> None:
    sample = seen(log[0], log[1], [])
    blocks = [SchemaSample.of(sample.between(first, stop).header()) for first, stop in ((0, 1), (1, 2), (2, 3))]
    whole = joined(blocks, [1, 1, 1])
    assert whole is not None
    assert whole.header() == sample.header() == SchemaSample.of(sample.header()).header()
