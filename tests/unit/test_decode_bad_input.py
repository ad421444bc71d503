# ruff: noqa: SIM905 - a list of words is read as words
"""The bad-input table, row by row, at the level of decoding. Both tiers; a good event before and after each."""

from __future__ import annotations

import gzip
import json
import pickle
import random
import time

import numpy as np
import pytest
import xxhash

from stream.columns import Columns, Records, Tag
from stream.deadletter import REASONS
from stream.decode import NATIVE, Layout, Mapping, category_hash, decode, decode_strict, records_from_lines
from tests.unit.bad_input_rows import CASES, GOOD, GOOD_LINE, GOOD_MS, with_raw, without

PATHS = ["features.amount", "features.country", "prediction", "score", "segments.country"]
LAYOUT = Layout.compile(NATIVE, ["fraud"], PATHS)


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    """Times below are of decoding, not of compiling."""
    decode(records_from_lines([GOOD_LINE]), LAYOUT)


def decoded(value: bytes, layout: Layout = LAYOUT) -> Columns:
    """`value` between two good events, by both tiers; they agree, and the good ones are untouched. Times are bounded."""
    good = (
        json.dumps(GOOD | {"timestamp": 1_763_806_503}).encode() if layout.mapping.timestamp_unit == "s" else GOOD_LINE
    )
    records = records_from_lines([good, value, good], 40, GOOD_MS)
    began = time.process_time()
    columns = decode(records, layout)
    assert time.process_time() - began < 1.0
    strict = decode_strict(records, layout)
    assert columns.rejects == strict.rejects
    assert np.array_equal(columns.cell, strict.cell)
    assert np.array_equal(columns.tag, strict.tag)
    assert {40, 42} <= set(columns.offset.tolist())
    return columns


def refused(value: bytes, layout: Layout = LAYOUT) -> tuple[str, str, str]:
    """(code, path, detail) of the one dead letter."""
    columns = decoded(value, layout)
    (reject,) = columns.rejects
    assert (reject.offset, reject.row, reject.value) == (41, 0, value)
    assert reject.code in REASONS
    assert len(columns) == 2
    return reject.code, reject.path, reject.detail


def accepted(value: bytes, layout: Layout = LAYOUT) -> dict[str, tuple[int, int]]:
    """path -> (tag, cell) of the event."""
    columns = decoded(value, layout)
    assert not columns.rejects
    return {path: (int(columns.tag[1, at]), int(columns.cell[1, at])) for at, path in enumerate(layout.paths)}


def bits(number: float) -> int:
    return int(np.float64(number).view(np.uint64))


#: Reasons of what is no event at all: there is no field to point to.
NO_EVENT = {
    "malformed_json", "trailing_data", "empty_value", "not_an_object", "invalid_utf8", "invalid_unicode", "bom", "encoding",
    "looks_like_confluent", "too_deep", "too_many_keys", "too_large",
}  # fmt: skip
BROKEN = {row: case for row, case in CASES.items() if case[1] in NO_EVENT}


@pytest.mark.parametrize("row", BROKEN)
def test_what_is_no_event_is_one_dead_letter(row: str) -> None:
    value, code = BROKEN[row]
    assert refused(value)[:2] == (code, "")


def test_details_say_where_and_what() -> None:
    assert "byte 211 of 211" in refused(GOOD_LINE[:-1])[2]
    assert "gzip" in refused(gzip.compress(b"{}"))[2]
    assert "pickle" in refused(pickle.dumps({}, protocol=4))[2]
    assert "HTML" in refused(b"<html>")[2]
    assert "schema id 7" in refused(b"\x00\x00\x00\x00\x07\x02Avro")[2]
    assert "byte 11 " in refused('{"é": "b"'.encode() + b",,}")[2]


@pytest.mark.parametrize("length", [1000, 200_000])
def test_b15_b16_endless_numbers_cost_no_time(length: int) -> None:
    digits = "9" * length
    assert accepted(with_raw("features/amount", digits))["features.amount"] == (Tag.INVALID, 0)
    assert accepted(with_raw("features/amount", "0." + digits))["features.amount"] == (Tag.NUMBER, bits(1.0))
    assert refused(with_raw("prediction_id", digits))[:2] == ("bad_id", "/prediction_id")
    assert refused(with_raw("timestamp", digits))[0] == "timestamp_unit"
    assert refused(with_raw("score", digits))[:2] == ("number_out_of_range", "/score")


def test_b15_a_million_digits_are_too_large() -> None:
    assert refused(with_raw("features/amount", "1" * 10_000_000))[0] == "too_large"


def test_b4_a_null_value_is_a_tombstone() -> None:
    records = records_from_lines([GOOD_LINE, b"", GOOD_LINE], 7)
    records.value_length[1] = -1
    for tier in (decode, decode_strict):
        columns = tier(records, LAYOUT)
        assert columns.tombstone_offset.tolist() == [8]
        assert columns.offset.tolist() == [7, 9]
        assert columns.rejects == ()


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity"])
def test_b8_not_finite(literal: str) -> None:
    assert accepted(with_raw("features/amount", literal))["features.amount"] == (Tag.INVALID, 0)
    assert accepted(with_raw("unwanted", literal))["features.amount"] == (Tag.NUMBER, bits(129.5))
    for name in ("prediction_id", "timestamp", "prediction", "score", "model", "version"):
        assert refused(with_raw(name, literal))[:2] == ("non_finite", f"/{name}")


@pytest.mark.parametrize("text", ["NaN", "inf", "null", "", "1.0", "1,5", "1 000", "١٢", "1_000"])
def test_b9_b44_text_is_no_number(text: str) -> None:
    """A cell says what it holds; a numeric target counts TEXT as invalid, a categorical one as a category."""
    assert accepted(with_raw("features/amount", json.dumps(text)))["features.amount"] == (Tag.TEXT, category_hash(text))
    assert refused(with_raw("score", json.dumps(text)))[:2] == ("type", "/score")
    assert accepted(with_raw("prediction", json.dumps(text)))["prediction"][0] == Tag.TEXT


@pytest.mark.parametrize("literal", ["1e400", "-1e400", "1e99999", "1" + "0" * 400])
def test_b10_beyond_float64(literal: str) -> None:
    assert accepted(with_raw("features/amount", literal))["features.amount"] == (Tag.INVALID, 0)
    assert refused(with_raw("score", literal))[:2] == ("number_out_of_range", "/score")


@pytest.mark.parametrize(
    "literal", ["1e308", "1e-400", "-0.0", "-0", "5e-324", "9007199254740993", "18446744073709551616", "1" + "0" * 30]
)
def test_b11_b12_b13_b14_numbers_at_the_edge(literal: str) -> None:
    assert accepted(with_raw("features/amount", literal))["features.amount"] == (Tag.NUMBER, bits(float(literal) + 0.0))


@pytest.mark.parametrize("literal", ["9007199254740993", "18446744073709551616", "1" + "0" * 30, "-0.0", "1.50"])
def test_b13_b14_b38_numeric_ids_keep_their_digits(literal: str) -> None:
    columns = decoded(with_raw("prediction_id", literal))
    expected = xxhash.xxh3_128_intdigest(literal.encode())
    assert (int(columns.id_high[1]), int(columns.id_low[1])) == (expected >> 64, (expected >> 32) & 0xFFFFFFFF)
    text = decoded(with_raw("prediction_id", f'"{literal}"'))
    assert text.id_high[1] == columns.id_high[1]


def test_b18_the_last_of_two_equal_keys_wins() -> None:
    assert accepted(with_raw("features/amount", '1, "amount": 2'))["features.amount"] == (Tag.NUMBER, bits(2.0))
    cells = accepted(with_raw("features", '{"amount": 1, "country": "FR"}, "features": {"amount": 5}'))
    assert cells["features.amount"] == (Tag.NUMBER, bits(5.0))
    assert cells["features.country"] == (Tag.MISSING, 0)
    assert refused(with_raw("prediction_id", '"a", "prediction_id": null'))[0] == "bad_id"


NAMES = [
    "__proto__",
    "__class__",
    "{0.__class__}",
    "Amount",
    "amount ",
    "e\u0301",
    "\u00e9",
    "a\u200bb",
    "\u202egnp",
    "a.b",
    "a/b~c",
]


@pytest.mark.parametrize(
    "name", [*NAMES, "<script>", "${jndi:x}", "%s%n", "\x1b[31m", "a\x00b", 'quo"te', "k" * 300, ""]
)
def test_b19_b20_b24_b25_b26_names_are_only_names(name: str) -> None:
    if not name:
        with pytest.raises(ValueError, match="no feature"):
            Layout.compile(NATIVE, ["fraud"], ["features."])
        return
    layout = Layout.compile(NATIVE, ["fraud"], [f"features.{name}", "features.amount"])
    event = GOOD | {"features": {"amount": 1, name: 2, "a": {"b": 3}, name + "x": 4}}
    for ascii_only in (True, False):
        line = json.dumps(event, ensure_ascii=ascii_only).encode()
        assert accepted(line, layout) == {
            f"features.{name}": (Tag.NUMBER, bits(2.0)),
            "features.amount": (Tag.NUMBER, bits(1.0)),
        }


@pytest.mark.parametrize(
    "text",
    [
        "\u0000",
        "\r\n\x1b",
        "\u202e",
        "😀",
        "e" + "\u0301" * 100,
        "<img onerror=x>",
        "{{7*7}}",
        "x" * 100_000,
        "w " * 10_000,
    ],
)
def test_b24_b25_b26_b30_texts_are_hashed_whole(text: str) -> None:
    for ascii_only in (True, False):
        line = json.dumps(GOOD | {"features": {"country": text}}, ensure_ascii=ascii_only).encode()
        cells = accepted(line)
        assert cells["features.country"] == (Tag.TEXT, xxhash.xxh3_64_intdigest(text.encode()))
        assert cells["features.amount"] == (Tag.MISSING, 0)


@pytest.mark.parametrize("name", ["prediction_id", "model", "timestamp", "features"])
def test_b37_missing_fields_are_named(name: str) -> None:
    assert refused(without(name))[:2] == ("missing_field", f"/{name}")


def test_b37_what_is_not_needed_may_be_missing() -> None:
    for name in ("version", "prediction", "score", "segments"):
        assert len(decoded(without(name))) == 3
    elsewhere = json.dumps(
        {key: value for key, value in GOOD.items() if key != "features"} | {"model": "other"}
    ).encode()
    columns = decoded(elsewhere)
    assert columns.model.tolist() == [0, -1, 0]
    assert refused(with_raw("features", "[1]"))[:2] == ("type", "/features")
    assert accepted(with_raw("features", "null"))["features.amount"] == (Tag.MISSING, 0)
    no_features = Layout.compile(NATIVE, ["fraud"], PATHS, with_features=[])
    assert accepted(without("features"), no_features)["features.amount"] == (Tag.MISSING, 0)
    constant = Layout.compile(Mapping(model="=fraud", version="=v7"), ["fraud"], PATHS)
    columns = decoded(without("model"), constant)
    assert columns.model.tolist() == [0, 0, 0]
    assert columns.version_names == {xxhash.xxh3_64_intdigest(b"v7"): "v7"}


@pytest.mark.parametrize("raw", ["null", '""', "true", "{}", "[]", '"' + "x" * 513 + '"', '"' + "x" * 10_000 + '"'])
def test_b38_ids(raw: str) -> None:
    assert refused(with_raw("prediction_id", raw))[:2] == ("bad_id", "/prediction_id")


@pytest.mark.parametrize("length", [1, 3, 4, 8, 9, 16, 17, 128, 129, 240, 241, 512])
def test_b38_ids_of_every_length_are_hashed_alike(length: int) -> None:
    text = ("é" + "x" * 600)[: length - 1] if length > 1 else "y"
    expected = xxhash.xxh3_128_intdigest(text.encode()) >> 32
    columns = decoded(with_raw("prediction_id", json.dumps(text, ensure_ascii=False)))
    assert int(columns.id_high[1]) << 32 | int(columns.id_low[1]) == expected


def test_b40_unknown_models_are_kept_for_counting() -> None:
    columns = decoded(with_raw("model", '"who"'))
    assert columns.model.tolist() == [0, -1, 0]


@pytest.mark.parametrize(
    ("raw", "code"), [("null", "missing_field"), ('""', "bad_name"), ("{}", "type"), ("true", "type")]
)
def test_models_are_names(raw: str, code: str) -> None:
    assert refused(with_raw("model", raw))[:2] == (code, "/model")


def test_versions_are_names() -> None:
    columns = decoded(with_raw("version", "1.10"))
    assert columns.version_names[int(columns.version[1])] == "1.10"
    assert decoded(with_raw("version", "null")).version[1] == 0
    assert decoded(with_raw("version", '""')).version[1] == 0
    assert refused(with_raw("version", "[]"))[:2] == ("type", "/version")
    assert refused(with_raw("version", '"' + "v" * 257 + '"'))[:2] == ("bad_name", "/version")
    assert (
        decoded(with_raw("version", '"' + "v" * 250 + '"')).version_names[xxhash.xxh3_64_intdigest(b"v" * 250)]
        == "v" * 250
    )


@pytest.mark.parametrize(
    ("raw", "tag"),
    [
        ("true", Tag.BOOL),
        ("false", Tag.BOOL),
        ("[1, [2]]", Tag.INVALID),
        ('{"a": 1}', Tag.INVALID),
        ("[]", Tag.INVALID),
        ("null", Tag.MISSING),
    ],
)
def test_b44_b45_other_types_cost_a_feature_only(raw: str, tag: Tag) -> None:
    cells = accepted(with_raw("features/amount", raw))
    assert cells["features.amount"] == (tag, 1 if raw == "true" else 0)
    assert cells["features.country"] == (Tag.TEXT, category_hash("DE"))


@pytest.mark.parametrize("raw", ["[1]", "{}"])
def test_b45_outputs_are_scalars(raw: str) -> None:
    assert refused(with_raw("prediction", raw))[:2] == ("type", "/prediction")
    assert refused(with_raw("score", raw))[:2] == ("type", "/score")
    assert refused(with_raw("score", "true"))[0] == "type"


UNITS = {"s": 1_763_806_503, "ms": 1_763_806_503_120, "us": 1_763_806_503_120_000, "ns": 1_763_806_503_120_000_000}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("sent", UNITS)
def test_b50_units_are_declared_not_guessed(unit: str, sent: str) -> None:
    layout = Layout.compile(Mapping(timestamp_unit=unit), ["fraud"], PATHS)
    records = records_from_lines([with_raw("timestamp", str(UNITS[sent]))])
    for tier in (decode, decode_strict):
        columns = tier(records, layout)
        if unit == sent:
            assert columns.event_time_ms.tolist() == [1_763_806_503_000 if unit == "s" else 1_763_806_503_120]
        else:
            (reject,) = columns.rejects
            names = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
            assert (reject.code, reject.path) == ("timestamp_unit", "/timestamp")
            assert reject.detail == f"the timestamp looks like {names[sent]}; the mapping says {names[unit]}"


def test_b50_a_number_without_a_unit_is_refused_with_a_guess() -> None:
    code, path, detail = refused(with_raw("timestamp", "1763806503120"))
    assert (code, path) == ("timestamp_unit", "/timestamp")
    assert detail.startswith("the timestamp looks like milliseconds; the mapping declares no unit")


SECONDS = Layout.compile(Mapping(timestamp_unit="s"), ["fraud"], PATHS)


@pytest.mark.parametrize("raw", ["0", "-1", "-31536000", "315532799", "1e20", "1e400", "-1e400", "7258118400"])
def test_b51_times_outside_the_range(raw: str) -> None:
    assert refused(with_raw("timestamp", raw), SECONDS)[:2] == ("timestamp_range", "/timestamp")


@pytest.mark.parametrize(
    "text", ["1969-12-31T23:59:59Z", "1900-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0000-01-01T00:00:00Z"]
)
def test_b51_texts_outside_the_range(text: str) -> None:
    assert refused(with_raw("timestamp", f'"{text}"'))[:2] == ("timestamp_range", "/timestamp")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("1763806503.12", 1_763_806_503_120),  # 1763806503.12 has no exact float64: the decimal counts
        ("1763806503.1239999999999999999999", 1_763_806_503_123),
        ("1.763806503e9", 1_763_806_503_000),
        ("1763806503", 1_763_806_503_000),
        ('"2026-11-22T10:15:03Z"', GOOD_MS - 120),
    ],
)
def test_b51_decimal_seconds_are_exact(raw: str, expected: int) -> None:
    assert decoded(with_raw("timestamp", raw), SECONDS).event_time_ms[1] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22T10:15:03.120Z", GOOD_MS),
        ("2026-11-22t10:15:03.120z", GOOD_MS),
        ("2026-11-22 10:15:03.120+00:00", GOOD_MS),
        ("2026-11-22T15:45:03.120+05:30", GOOD_MS),
        ("2026-11-22T09:45:03.120-00:30", GOOD_MS),
        ("2026-11-22T10:15:03.120999999Z", GOOD_MS),
        ("2026-11-22T10:15:03.12Z", GOOD_MS),
        ("2026-11-22T10:15:60Z", GOOD_MS - 3120 + 59_999),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000),
    ],
)
def test_b52_rfc3339(text: str, expected: int) -> None:
    assert decoded(with_raw("timestamp", f'"{text}"')).event_time_ms[1] == expected


@pytest.mark.parametrize(
    "text",
    "2026-11-22T10:15:03 2026-11-22T24:00:00Z 2026-11-22T10:60:00Z 2026-11-22T10:15:61Z 2026-W47-7 2026-W47-7T10:15:03Z 2026-11-22 "
    "2026-11-22T10:15:03+0530 2026-11-22T10:15:03+24:00 2026-11-22T10:15Z 2026-02-29T00:00:00Z 2026-13-01T00:00:00Z 1763806503 now "
    "2026-11-22T10:15:03.Z 2026-11-22T10:15:03,5Z 20261122T101503Z ٢٠٢٦-11-22T10:15:03Z".split(),
)
def test_b52_what_is_not_rfc3339(text: str) -> None:
    assert refused(with_raw("timestamp", f'"{text}"'))[:2] == ("timestamp_format", "/timestamp")


@pytest.mark.parametrize(
    ("raw", "code"), [("null", "missing_field"), ("true", "type"), ("{}", "type"), ('""', "timestamp_format")]
)
def test_timestamps_of_other_types(raw: str, code: str) -> None:
    assert refused(with_raw("timestamp", raw))[:2] == (code, "/timestamp")


def test_b54_record_time_is_used_only_where_it_is_asked_for() -> None:
    layout = Layout.compile(Mapping(timestamp="$record"), ["fraud"], PATHS)
    records: Records = records_from_lines([without("timestamp")] * 2, 0, [-1, GOOD_MS])
    for tier in (decode, decode_strict):
        columns = tier(records, layout)
        assert columns.event_time_ms.tolist() == [GOOD_MS]
        assert [(reject.offset, reject.code) for reject in columns.rejects] == [(0, "timestamp_range")]


def test_the_next_good_event_is_quick() -> None:
    """Every broken row at once: each costs well under 100 ms."""
    lines = [value for value, _ in BROKEN.values()] + [GOOD_LINE]
    began = time.process_time()
    columns = decode(records_from_lines(lines), LAYOUT)
    assert time.process_time() - began < 0.1 * len(lines)
    assert len(columns) == 1


def test_many_versions_and_none_are_all_named() -> None:
    """More versions than the scan remembers, mixed with events that have none: names of all, and of no others."""
    rng = random.Random(8)
    lines = []
    for _ in range(3000):
        version = rng.choice((None, "", *range(300)))
        lines.append(json.dumps(GOOD | {"version": version, "features": {"country": f"c{rng.random()}"}}).encode())
    columns, strict = decode(records_from_lines(lines), LAYOUT), decode_strict(records_from_lines(lines), LAYOUT)
    assert set(columns.version_names) == set(columns.version[columns.version > 0].tolist())
    assert columns.version_names == strict.version_names
    assert len(columns.version_names) == 300


def test_no_records_are_no_columns() -> None:
    columns = decode(records_from_lines([], 9), LAYOUT)
    assert (len(columns), columns.next_offset, columns.cell.shape) == (0, 9, (0, len(PATHS)))
