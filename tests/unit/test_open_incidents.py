"""Open incidents by series and segment: the same as a look at each of them, at a cost that does not grow with the others."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))

import monitor_kit as kit

from stream.alerts import NO_TARGET, AlertBook, Kind, Observation, Transition


def seen(series, segment, target, *, kind=Kind.FEATURE_DRIFT, alarm=True, end_ms=20):
    return Observation(kind, series, segment, target, end_ms, 0, alarm, quiet=not alarm, effect=1.0)


SERIES, SEGMENTS, TARGETS = ("inputs", "version:1"), ("all", "c=DE"), ("amount", "score")
KINDS = (Kind.FEATURE_DRIFT, Kind.DATA_QUALITY)
WHERE = st.tuples(*map(st.sampled_from, (SERIES, SEGMENTS, TARGETS, KINDS)))
STEPS = st.one_of(
    st.tuples(st.just("observe"), WHERE, st.booleans()),
    st.tuples(st.just("end"), st.sampled_from((None, *SERIES)), st.sampled_from((None, *TARGETS))),
    st.tuples(st.just("delete"), WHERE),
    st.tuples(st.just("restore")),
)


@given(st.lists(STEPS, max_size=30))
def test_what_is_open_in_a_place_is_what_a_look_at_every_incident_finds(steps):
    book, model = AlertBook(kit.model_settings(resolve_after=1)), {}
    for what, *told in steps:
        match what:
            case "observe":
                (series, segment, target, kind), alarm = told
                change = book.observe(seen(series, segment, target, kind=kind, alarm=alarm))
                if change is not None and change[0] is Transition.OPENED:
                    model[change[1].key] = change[1].id
                elif change is not None and change[0] is Transition.RESOLVED:
                    del model[change[1].key]
            case "end":
                series, target = told
                ended = {key for key in model if series in (None, key[0]) and target in (None, key[2])}
                assert len(book.end(NO_TARGET, 40, historical=False, series=series, target=target)) == len(ended)
                model = {key: own for key, own in model.items() if key not in ended}
            case "delete":  # as the watch of the realised performance does
                (series, segment, target, kind) = told[0]
                key = (series, segment, target, kind is Kind.DATA_QUALITY)
                if key in book.open:
                    del book.open[key]
                    del model[key]
                with pytest.raises(KeyError):
                    del book.open[key]
            case "restore":
                header, book = book.to_header(), AlertBook(book.settings)
                book.load(header)
                assert book.to_header() == header
        assert {key: each.id for key, each in book.open.items()} == model
        assert (len(book.open), bool(book.open)) == (len(model), bool(model))
        for series in SERIES:
            for segment in SEGMENTS:
                here = {key for key in model if key[:2] == (series, segment)}
                assert book.targets(series, segment) == {key[2] for key in here}
                assert book.targets(series, segment, quality=False) == {key[2] for key in here if not key[3]}


def test_what_is_no_key_is_not_open():
    book = AlertBook(kit.model_settings())
    book.observe(seen("inputs", "all", "amount"))
    assert ("inputs", "all", "amount", False) in book.open
    for other in (None, "inputs", (), ("inputs",), ("inputs", "all"), ("inputs", "all", "amount")):
        assert other not in book.open


def test_a_place_is_looked_up_in_the_same_time_however_many_others_have_incidents():
    """A look at each of them took a hundred times as long with a hundred times as many."""

    def least_s(segments):
        book = AlertBook(kit.model_settings())
        for index in range(segments):
            book.observe(seen("inputs", f"merchant=m{index}", "amount"))
        assert len(book.open) == segments
        took_s = []
        for _ in range(20):
            start_s = time.perf_counter()
            for _ in range(50):
                book.targets("inputs", "merchant=m7")
            took_s.append(time.perf_counter() - start_s)
        return min(took_s)

    assert least_s(3000) < 10 * least_s(30)
