"""Every row of the bad-input table has a test, and every case of it is one dead letter or one counted event in either tier."""

from __future__ import annotations

import ast
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from detectors.distance import jensen_shannon, kolmogorov_smirnov
from stream.bad_input import NOT_APPLICABLE, ROWS
from stream.chunks import Plain, from_plain
from stream.collector import Collector
from stream.columns import Columns
from stream.decode import NATIVE, Layout, Mapping, decode, decode_strict, records_from_lines
from stream.panes import Marker, Pane, decode_record
from tests.unit.bad_input_rows import CASES, CORPUS, GOOD_LINE, GOOD_MS, OK, amount, corpus, with_raw
from tests.unit.test_collector import collector, events, model, sent, tick

PATHS = ["features.amount", "features.country", "prediction", "score", "segments.country"]
LAYOUT = Layout.compile(NATIVE, ["fraud"], PATHS)
TESTS = Path(__file__).resolve().parents[1]
STREAM = TESTS.parent / "stream"


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    """Times below are of decoding, not of compiling."""
    decode(records_from_lines([GOOD_LINE]), LAYOUT)


def rows_with_a_test() -> Iterator[int]:
    """Rows that a test function or a literal id under tests/ names: `test_b8_...`, `test_b9_b44_...`, "B17-...", "B17 ..."."""
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from (int(n) for n in re.findall(r"(?<=_b)\d+(?=_)", node.name) if node.name.startswith("test_"))
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.param":
                ids = [ast.unparse(word.value) for word in node.keywords if word.arg == "id"]
                yield from (int(found[1]) for text in ids if (found := re.match(r"f?['\"]B(\d+)[- ]", text)))
    yield from (int(name[1:].partition("-")[0]) for name in CASES)


def test_every_row_has_a_test_or_a_reason() -> None:
    assert sorted(ROWS) == list(range(1, 73))
    tested = set(rows_with_a_test())
    assert not tested & set(NOT_APPLICABLE)
    assert sorted(tested | set(NOT_APPLICABLE)) == sorted(ROWS)
    assert all(outcome or number in NOT_APPLICABLE for number, (_, outcome) in ROWS.items())


def test_the_corpus_is_the_table() -> None:
    """If not: python tests/unit/bad_input_rows.py."""
    assert {path.name: path.read_bytes() for path in CORPUS.iterdir()} == corpus()


@pytest.mark.parametrize("case", CASES)
def test_one_dead_letter_or_one_event(case: str) -> None:
    value, outcome = CASES[case]
    records = records_from_lines([GOOD_LINE, value, GOOD_LINE.replace(b"7f3c", b"8a4d")], 40, GOOD_MS + 60_000)
    began = time.process_time()
    columns = decode(records, LAYOUT)
    took_s = time.process_time() - began
    strict = decode_strict(records, LAYOUT)
    assert columns.rejects == strict.rejects
    assert np.array_equal(columns.cell, strict.cell)
    assert np.array_equal(columns.tag, strict.tag)
    assert [(reject.offset, reject.code) for reject in columns.rejects] == ([] if outcome == OK else [(41, outcome)])
    assert {40, 42} <= set(columns.offset.tolist())
    assert took_s < 0.1  # the next good event counts soon
    state = collector()
    state.apply("predictions", columns)
    told = state.accounting()
    assert told.consumed == 3
    assert told.dead_letters == (outcome != OK)
    assert told.late == (case == "B52-leap-second")  # 57 s later than the good event behind it, which is late then
    assert told.applied + told.duplicates + told.late == 3 - told.dead_letters


@pytest.mark.parametrize("digits", [200_000, 1_000_000])
def test_b15_b16_digits_cost_linear_time(digits: int) -> None:
    for raw in ("7" * digits, "0." + "3" * digits, "1e" + "9" * digits):
        for name in ("features/amount", "prediction_id", "score", "timestamp"):
            records = records_from_lines([with_raw(name, raw)], 0, GOOD_MS)
            began = time.process_time()
            decode(records, LAYOUT)
            assert time.process_time() - began < 0.05


STRICT_KEYS = Layout.compile(Mapping(strict_duplicate_keys=True), ["fraud"], PATHS)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        pytest.param(with_raw("prediction_id", '"a", "prediction_id": "b"'), "/prediction_id", id="B18-id"),
        pytest.param(with_raw("model", '"fraud", "model": "fraud"'), "/model", id="B18-model"),
        pytest.param(with_raw("version", '"1", "\\u0076ersion": "2"'), "/version", id="B18-spelt-with-an-escape"),
        pytest.param(with_raw("timestamp", '1, "timestamp": 2'), "/timestamp", id="B18-timestamp"),
        pytest.param(amount('1, "amount": 2'), None, id="B18-a-feature-is-no-envelope"),
        pytest.param(GOOD_LINE, None, id="B18-once"),
    ],
)
def test_strict_duplicate_keys(value: bytes, path: str | None) -> None:
    records = records_from_lines([value], 0, GOOD_MS)
    for tier in (decode, decode_strict):
        found = [(reject.code, reject.path) for reject in tier(records, STRICT_KEYS).rejects]
        assert found == ([] if path is None else [("duplicate_key", path)])


def test_b18_an_object_with_a_key_twice_is_named_like_any_object() -> None:
    """Found by load_tests.fuzz."""
    records = records_from_lines(
        [with_raw(name, '{"a": 1, "a": 2}') for name in ("version", "score", "prediction_id")], 0, GOOD_MS
    )
    for tier in (decode, decode_strict):
        assert [reject.code for reject in tier(records, STRICT_KEYS).rejects] == ["type", "type", "bad_id"]


def test_b40_unknown_models_may_be_dead_letters() -> None:
    layout = Layout.compile(Mapping(unknown_models="dlq"), ["fraud"], PATHS)
    records = records_from_lines([GOOD_LINE, with_raw("model", '"nobody"'), amount("NaN")], 0, GOOD_MS)
    for tier in (decode, decode_strict):
        columns = tier(records, layout)
        assert [(r.offset, r.code, r.path) for r in columns.rejects] == [(1, "unknown_model", "/model")]
        assert columns.model.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("raw", "number"),
    [
        pytest.param('"12.5"', 12.5, id="B44-number"),
        pytest.param('"-1e3"', -1000.0, id="B44-exponent"),
        pytest.param('"-0.0"', 0.0, id="B44-minus-zero"),
        *(
            pytest.param(f'"{text}"', None, id=f"B44-{at}-no-number")
            for at, text in enumerate(("1,5", "1 000", "١٢", "1_000", "+1", "01", " 1", "1 ", "NaN", "Infinity", "", "0x1"))
        ),
        pytest.param('"1e400"', "invalid", id="B44-beyond-float64"),
    ],
)  # fmt: skip
def test_b44_coerce_takes_numbers_by_jsons_own_grammar(raw: str, number: float | str | None) -> None:
    layout = Layout.compile(NATIVE, ["fraud"], PATHS, coerce={"features.amount"})
    records = records_from_lines([amount(raw), amount("7")], 0, GOOD_MS)
    for tier in (decode, decode_strict):
        columns = tier(records, layout)
        cell, tag = columns.cell[:, 0], columns.tag[:, 0].tolist()
        assert (tag[1], cell[1:].view(np.float64)[0]) == (1, 7.0)
        if isinstance(number, float):
            assert (tag[0], cell[:1].view(np.float64)[0]) == (1, number)
        else:
            assert tag[0] == (4 if number == "invalid" else 2)


def counted(state: Collector, columns: Columns) -> list[Pane]:
    """The panes of everything, closed."""
    state.apply("predictions", columns)
    tick(state, 1 << 50)
    return [body for body in sent(state) if isinstance(body, Pane)]


def test_b41_names_without_end_are_counted_under_others() -> None:
    """A hundred thousand models, versions and segment values, each new: the panes are those of the caps."""
    n = 100_000
    state = collector(model(), resolution_ms=1_000)
    unknown = events([10] * n, model=np.full(n, -1, np.int32), version=np.arange(1, n + 1).astype(np.uint64))
    panes = counted(state, unknown)
    assert [(pane.model, pane.version, pane.events) for pane in panes] == [("__unknown__", "", n)]
    names = {at: f"v{at}" for at in range(1, n + 1)}
    state = collector(model(), resolution_ms=1_000)
    panes = counted(state, events([10] * n, version=np.arange(1, n + 1).astype(np.uint64), version_names=names))
    assert len(panes) == 21
    assert sum(pane.events for pane in panes if pane.version == "__other__") == n - 20
    assert state.memory_bytes() < 8_000_000


def test_b66_a_million_distinct_texts_take_no_more_room_than_one() -> None:
    n, sizes = 250_000, []
    for distinct in (1, n):
        state = collector(dedup=False, resolution_ms=1_000)
        cell = events([10] * n).cell.copy()
        cell[:, 1] = np.random.default_rng(1).integers(1, 1 << 63, n) if distinct > 1 else 1
        for _ in range(4):
            state.apply("predictions", events([10] * n, first=state.next_offset, cell=cell))
        sizes.append(state.memory_bytes())
        tick(state, 1 << 50)
        (pane,) = [body for body in sent(state) if isinstance(body, Pane)]
        assert pane.events == 4 * n
        assert pane.bins[-4:].tolist() == [0, 0, 0, 4 * n]  # unseen, all of them
    assert sizes[0] == sizes[1]


def test_b42_features_that_nobody_asked_for_are_not_read() -> None:
    lines = [amount(f'1, "new-{at}": {at}') for at in range(3000)]
    columns = decode(records_from_lines(lines, 0, GOOD_MS), LAYOUT)
    assert columns.cell.shape == (3000, len(PATHS))
    assert (columns.cell[:, 0].view(np.float64) == 1.0).all()


def test_b43_a_feature_that_changes_its_type_is_never_mixed_into_one_histogram() -> None:
    lines = [
        amount(raw).replace(b"7f3c", b"id-%d" % at) for at, raw in enumerate(('"0.5"', "0.5", "null", "true", "[]"))
    ]
    (pane,) = counted(collector(), decode(records_from_lines(lines, 0, GOOD_MS), LAYOUT))
    assert (int(pane.bins[:4].sum()), int(pane.missing[0]), int(pane.invalid[0]), pane.events) == (1, 1, 3, 5)


@pytest.mark.parametrize(
    "counts",
    [
        pytest.param((0, 0, 0), id="B49-no-event"),
        pytest.param((9, 0, 0), id="B49-one-bin"),
        pytest.param((0, 0, 9), id="B49-never-seen-in-the-reference"),
    ],
)  # fmt: skip
def test_distances_of_degenerate_windows_are_finite(counts: tuple[int, ...]) -> None:
    reference = np.array([[5, 4, 0]])
    for distance in (jensen_shannon, kolmogorov_smirnov):
        with np.errstate(all="raise"):
            found = np.asarray(distance(reference.ravel(), np.array(counts), np.array([0, 3])))
        assert (np.isfinite(found) | np.isnan(found)).all()
        assert np.isfinite(found).all() or sum(counts) == 0  # nothing counted = nothing to say, written as null


def test_b53_b54_times_ahead_of_their_record_and_records_without_time() -> None:
    year_ms = 365 * 86_400_000
    now = GOOD_MS
    columns = events(
        [now, now + 3_600_000, now + year_ms, now - year_ms, now + 1, now + 2],
        record_time_ms=np.array([now] * 5 + [-1]),
    )
    state = collector()
    state.apply("predictions", columns)
    told = state.accounting()
    assert told.reasons == {"future_timestamp": 3}
    assert (told.applied, told.late, told.dead_letters) == (2, 1, 3)
    assert state.largest_ms == now + 1  # nobody's clock but the log's own moves the watermark
    details = [dict(o.headers)["dlq.detail"] for o in state.outbox if o.topic == "dead-letters"]
    assert b"no time of its own" in details[-1]
    later = collector()
    later.apply("predictions", events([now, now + 1], record_time_ms=np.array([now + 9_000, now - 500])))
    assert later.accounting().applied == 2  # record times may fall


KEYS = {"none": None, "empty": b"", "other": b"somebody", "not-utf-8": b"\xff\xfe", "a-megabyte": b"k" * (1 << 20)}
HEADERS = {
    "thousand": tuple((f"h{at}", b"x") for at in range(1000)),
    "twice": (("a", b"1"), ("a", b"2")),
    "null": (("a", None),),
    "no-name": (("", b""),),
    "traceparent": (("traceparent", b"00-zz-\xff"),),
}


@pytest.mark.parametrize(
    ("key", "headers"),
    [pytest.param(key, (), id=f"B55-{name}") for name, key in KEYS.items()]
    + [pytest.param(b"k", headers, id=f"B56-{name}") for name, headers in HEADERS.items()],
)
def test_b55_b56_keys_and_headers_cost_nothing(key: bytes | None, headers: tuple) -> None:
    values = (GOOD_LINE, b"{", GOOD_LINE.replace(b"7f3c", b"8a4d"))
    run = [Plain(at, GOOD_MS, key, value, headers, at, at + 1) for at, value in enumerate(values)]
    columns = decode(from_plain(run), LAYOUT)
    assert columns.offset.tolist() == [0, 2]
    state = collector()
    state.apply("predictions", columns)
    (letter,) = [output for output in state.outbox if output.topic == "dead-letters"]
    size = len(letter.key or b"") + sum(len(name.encode()) + len(value or b"") for name, value in letter.headers)
    assert size < 64 << 10
    assert letter.value == b"{"


def test_b62_holes_between_offsets_are_no_loss() -> None:
    state = collector()
    state.apply("predictions", events([10, 20, 30], offset=np.array([0, 7, 900]), next_offset=1000))
    assert (state.accounting().consumed, state.next_offset) == (3, 1000)


def test_b63_an_edge_belongs_to_the_later_pane_and_what_is_behind_it_is_late() -> None:
    state = collector()  # panes of 100 ms, 50 ms of lateness
    state.apply("predictions", events([99, 100, 149, 100, 199, 150, 149, 148]))
    panes = {(body.edge_ms, body.events) for body in sent(state) if isinstance(body, Pane)}
    assert panes == {(0, 1)}
    assert state.accounting().late == 1  # 148 < 199 - 50; 149 is not


def test_b67_duplicates_are_judged_by_the_id_alone() -> None:
    """B39 too: of two contents with one id the first in the log counts, and the other is a duplicate like any."""
    lines = [GOOD_LINE, b"\xef\xbb\xbf" + GOOD_LINE, GOOD_LINE, amount("3")]
    state = collector()
    state.apply("predictions", decode(records_from_lines(lines, 0, GOOD_MS), LAYOUT))
    told = state.accounting()
    assert (told.applied, told.duplicates, told.reasons) == (1, 2, {"bom": 1})


def test_b39_the_first_of_two_contents_with_one_id_counts() -> None:
    lines = [amount("0.5"), amount("1.5")]
    for order, place in ((lines, 1), (lines[::-1], 2)):
        (pane,) = counted(collector(), decode(records_from_lines(order, 0, GOOD_MS), LAYOUT))
        assert pane.events == 1
        assert pane.bins[place] == 1


def test_b68_nothing_but_bad_events() -> None:
    """As many dead letters, no state grows, and the good one behind them counts."""
    bad = [value for value, outcome in CASES.values() if outcome != OK and len(value) < 10_000]
    state, sizes = collector(), []
    for first in range(0, 20_000, 4_000):
        lines = [bad[at % len(bad)] for at in range(4_000)]
        state.apply("predictions", decode(records_from_lines(lines, first, GOOD_MS), LAYOUT))
        assert len(state.outbox) == 4_000
        state.outbox.clear()
        sizes.append(state.memory_bytes())
    state.apply("predictions", decode(records_from_lines([GOOD_LINE], 20_000, GOOD_MS), LAYOUT))
    assert (state.accounting().dead_letters, state.accounting().applied) == (20_000, 1)
    assert sizes[0] == sizes[-1]


def test_b47_scores_outside_their_range_are_counted_apart() -> None:
    layout = Layout.compile(NATIVE, ["fraud"], ["score", "features.country"])
    lines = [
        with_raw("score", raw).replace(b"7f3c", b"%d" % at) for at, raw in enumerate(("0.5", "3.0000001", "-1.1", "42"))
    ]
    (pane,) = counted(collector(), decode(records_from_lines(lines, 0, GOOD_MS), layout))
    assert int(pane.out_of_range[0]) == 3  # of the plan's range, -1 to 3
    assert int(pane.bins[:4].sum()) == 4


def decoding_modules() -> list[Path]:
    names = ("strict_json", "decode_strict", "decode", "mapping", "deadletter", "original_headers", "category")
    return [STREAM / f"{name}.py" for name in names]


def unbounded(parsed: object) -> Iterator[tuple[str, bool]]:
    """(kind, nested) of every repeat without a small limit in a parsed pattern."""
    todo = [(parsed, False)]
    while todo:
        item, inside = todo.pop()
        for operation, argument in item:  # type: ignore[attr-defined]
            kind, parts, repeats = str(operation), [], False
            if "REPEAT" in kind:
                repeats = argument[1] > 100
                parts = [argument[2]]
                if repeats:
                    yield kind, inside
            elif kind == "SUBPATTERN":
                parts = [argument[3]]
            elif kind == "BRANCH":
                parts = argument[1]
            elif kind == "ATOMIC_GROUP":
                parts = [argument]
            todo += [(part, inside or repeats) for part in parts]


@pytest.mark.parametrize("path", decoding_modules(), ids=lambda path: path.stem)
def test_b71_no_pattern_that_reads_event_data_can_backtrack(path: Path) -> None:
    """Patterns are literals at module level. A repeat without limit is possessive, or the only one and not inside another."""
    parser = sys.modules["re"]._parser  # type: ignore[attr-defined]
    tree = ast.parse(path.read_text())
    used = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func).startswith("re.")]
    assert all(ast.unparse(call.func) == "re.compile" for call in used)
    assert len(used) == sum(isinstance(n, ast.Assign) and n.value in used for n in tree.body)
    for call in used:
        pattern = ast.literal_eval(call.args[0])
        greedy = [nested for kind, nested in unbounded(parser.parse(pattern)) if not kind.startswith("POSSESSIVE")]
        assert len(greedy) <= 1, pattern
        assert not any(greedy), pattern


def test_the_search_for_backtracking_finds_it() -> None:
    parser = sys.modules["re"]._parser  # type: ignore[attr-defined]
    assert [nested for _, nested in unbounded(parser.parse(r"(?:a+)+b"))] == [False, True]
    assert [kind for kind, _ in unbounded(parser.parse(r"(?:a++)*+b"))] == ["POSSESSIVE_REPEAT"] * 2


def test_a_marker_counts_dead_letters() -> None:
    state = collector()
    state.apply("predictions", decode(records_from_lines([b"{", GOOD_LINE], 0, GOOD_MS), LAYOUT))
    tick(state, 1 << 50)
    marker = [decode_record(o.value or b"") for o in state.outbox if o.barrier][-1]
    assert isinstance(marker, Marker)
    assert (marker.counters["consumed"], marker.counters["dead_letters"]) == (2, 1)
