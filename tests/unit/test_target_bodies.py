"""Targets of a windows record as text, against orjson on the same members as dicts."""

from __future__ import annotations

import math

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.verdict import BadCounts
from stream.target_bodies import EVIDENCE, target_bodies
from stream.window_records import EVIDENCE_LOG10_MAX, _evidence, evidence

NUMBERS = st.one_of(
    st.floats(), st.sampled_from((0.0, -0.0, 1.0, 1e16, 1e-7, 5e-324, 1.7976931348623157e308, math.nan))
)
COUNTS = st.lists(st.one_of(st.integers(0, 120), st.integers(0, 2**63 - 1)), max_size=6)
NAMES = st.lists(st.text(st.characters(codec="utf-8"), max_size=6), unique=True, max_size=6)
KEYS = st.lists(st.sampled_from(("mean", "p01", "a", "unseen", "wasserstein(x=1)", "ké")), unique=True, max_size=4)
LEVELS = st.sampled_from(("ok", "crossed_rank", "drift"))


@st.composite
def records(draw):
    """(names, columns, counts of each, members of some, levels)."""
    names, keys = tuple(draw(NAMES)), draw(KEYS)
    judged = draw(st.booleans())
    columns = {key: [draw(NUMBERS) for _ in names] for key in (*keys, *(EVIDENCE if judged else ()))}
    counts = [[*draw(COUNTS), 7, 8] for _ in names]
    places = st.integers(0, max(len(names) - 1, 0))
    some = st.dictionaries(
        places, st.one_of(st.floats(0, 9), st.lists(st.text(max_size=3), max_size=3)), max_size=len(names)
    )
    members = {key: draw(some) for key in draw(st.sets(st.sampled_from(("labels", "distinct", "online", "zz"))))}
    return names, columns, counts, members, [draw(LEVELS) for _ in names] if judged else None


def plain(names, columns, counts, members, levels):
    bodies = {}
    for place, name in enumerate(names):
        body = {key: values[place] for key, values in columns.items()}
        if levels is not None:
            body["evidence"] = {"rank": body.pop(EVIDENCE[0]), "tube": body.pop(EVIDENCE[1])}
            body["level"] = levels[place]
        bodies[name] = body | {"bins": counts[place][:-2]}
        bodies[name] |= {key: own[place] for key, own in members.items() if place in own}
    return bodies


def dumped(value):
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def made(names, columns, counts, members, levels):
    start = np.cumsum([0, *map(len, counts)], dtype=np.int64)
    arrays = {key: np.array(values, np.float64) for key, values in columns.items()}
    flat = np.array([count for own in counts for count in own], np.int64)
    return target_bodies(names, arrays, flat, start, members | ({} if levels is None else {"level": levels}))


@given(records(), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_the_text_is_that_of_the_members_as_dicts_whole_and_in_parts(record, parts):
    names = record[0]
    expected, found = plain(*record), made(*record)
    assert len(found) == len(names)
    assert bytes(found.json()) == dumped(expected)
    for part in range(min(parts, len(names))):
        own = {name: expected[name] for name in names[part::parts]}
        assert found.part(part, parts) == dumped(own)


def test_every_small_count_and_those_around_the_powers_of_ten_are_written_as_orjson_writes_them():
    edges = [10**k + near for k in range(1, 19) for near in (-1, 0, 1)]
    counts = [*range(1_005), *edges, 2**53 + 1, 2**63 - 1]
    record = (("a", "b", "none"), {"mean": [1.0, 2.0, 3.0]}, [[*counts, 7, 8], [*counts[::-1], 7, 8], [7, 8]], {}, None)
    assert bytes(made(*record).json()) == dumped(plain(*record))


def test_negative_counts_are_refused():
    with pytest.raises(BadCounts):
        made(("a",), {"mean": [1.0]}, [[3, -1, 0, 0]], {}, None)


def test_the_evidence_of_a_record_is_the_number_that_alerts_say():
    random = np.random.default_rng(2)
    logs = [*random.uniform(-40, EVIDENCE_LOG10_MAX + 20, 20_000).tolist(), -math.inf, 0.0, 1.0]
    both = _evidence(logs, logs[::-1]).tolist()
    assert both == [[evidence(log10) for log10 in own] for own in (logs, logs[::-1])]
