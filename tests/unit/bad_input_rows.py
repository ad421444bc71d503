"""The bad-input table as bytes: one good event, spoilt in every way of stream/bad_input.py, and what must become of it.

`CASES`: id -> (value, outcome). The outcome is the reason of its one dead letter, or OK. Ids begin with the row's number.
`corpus()` is the same as small files, for fuzzers: tests/data/corpus, written by `python tests/unit/bad_input_rows.py`.
"""

from __future__ import annotations

import codecs
import gzip
import json
import pickle
from pathlib import Path

OK = "ok"
CORPUS = Path(__file__).resolve().parents[1] / "data" / "corpus"
CORPUS_BYTES_MAX = 2_000  # a longer case is cut: a fuzzer grows it again
GOOD = {
    "prediction_id": "7f3c",
    "model": "fraud",
    "version": "v1",
    "timestamp": "2026-11-22T10:15:03.120Z",
    "features": {"amount": 129.5, "country": "DE"},
    "prediction": 1,
    "score": 0.83,
    "segments": {"country": "DE"},
}
GOOD_MS = 1_795_342_503_120
GOOD_LINE = json.dumps(GOOD).encode()


def with_raw(path: str, raw: str) -> bytes:
    """The good event with raw JSON text at /path or /parent/path."""
    marker = "@@"
    event = json.loads(GOOD_LINE)
    *parents, name = path.split("/")
    place = event
    for parent in parents:
        place = place[parent]
    place[name] = marker
    return json.dumps(event).replace(f'"{marker}"', raw).encode()


def amount(raw: str) -> bytes:
    return with_raw("features/amount", raw)


def country(text: str) -> bytes:
    return with_raw("features/country", json.dumps(text, ensure_ascii=False))


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in GOOD.items() if key != name}).encode()


def feature(name: str) -> bytes:
    return json.dumps(GOOD | {"features": {"amount": 1, name: 2}}, ensure_ascii=False).encode()


CASES: dict[str, tuple[bytes, str]] = {
    "B1-truncated": (GOOD_LINE[:-1], "malformed_json"),
    "B1-cut-in-a-number": (b'{"a":12', "malformed_json"),
    "B1-cut-in-a-text": (b'{"a":"12', "malformed_json"),
    "B1-cut-in-an-escape": (b'{"a":"\\u12', "malformed_json"),
    "B2-empty": (b"", "empty_value"),
    "B3-white-space": (b" \r\n\t ", "empty_value"),
    "B5-null": (b"null", "not_an_object"),
    "B5-number": (b"3", "not_an_object"),
    "B5-text": (b'"x"', "not_an_object"),
    "B5-bool": (b"true", "not_an_object"),
    "B5-array": (b"[1]", "not_an_object"),
    "B5-array-of-an-event": (b"[" + GOOD_LINE + b"]", "not_an_object"),
    "B5-NaN": (b"NaN", "not_an_object"),
    "B6-two-documents": (GOOD_LINE + b"\n" + GOOD_LINE, "trailing_data"),
    "B6-a-stray-byte": (GOOD_LINE + b"x", "trailing_data"),
    "B7-trailing-comma": (GOOD_LINE[:-1] + b",}", "malformed_json"),
    "B7-comment": (GOOD_LINE[:-1] + b"/* */}", "malformed_json"),
    "B7-single-quotes": (b"{'a': 1}", "malformed_json"),
    "B7-hex": (amount("0x10"), "malformed_json"),
    "B7-plus": (amount("+1"), "malformed_json"),
    "B7-leading-zero": (amount("01"), "malformed_json"),
    "B7-leading-zero-unwanted": (with_raw("latency_ms", "01"), "malformed_json"),
    "B8-NaN-feature": (amount("NaN"), OK),
    "B8-Infinity-feature": (amount("-Infinity"), OK),
    "B8-NaN-id": (with_raw("prediction_id", "NaN"), "non_finite"),
    "B8-NaN-time": (with_raw("timestamp", "NaN"), "non_finite"),
    "B8-Infinity-score": (with_raw("score", "Infinity"), "non_finite"),
    "B9-text-NaN-feature": (amount('"NaN"'), OK),
    "B9-text-inf-score": (with_raw("score", '"inf"'), "type"),
    "B9-empty-text-score": (with_raw("score", '""'), "type"),
    "B10-1e400-feature": (amount("1e400"), OK),
    "B10-minus-1e400-score": (with_raw("score", "-1e400"), "number_out_of_range"),
    "B11-1e308": (amount("1e308"), OK),
    "B12-1e-400": (amount("1e-400"), OK),
    "B12-minus-zero": (amount("-0.0"), OK),
    "B12-subnormal": (amount("5e-324"), OK),
    "B13-id-2-53-plus-1": (with_raw("prediction_id", "9007199254740993"), OK),
    "B13-feature-2-53-plus-1": (amount("9007199254740993"), OK),
    "B14-id-10-30": (with_raw("prediction_id", "1" + "0" * 30), OK),
    "B14-feature-2-64": (amount("18446744073709551616"), OK),
    "B15-feature-5000-digits": (amount("9" * 5000), OK),
    "B15-id-5000-digits": (with_raw("prediction_id", "9" * 5000), "bad_id"),
    "B15-score-5000-digits": (with_raw("score", "9" * 5000), "number_out_of_range"),
    "B15-10M-digits": (amount("7" * 10_000_000), "too_large"),
    "B16-float-of-5000-digits": (amount("0." + "3" * 5000), OK),
    "B17-nesting-100000-arrays": (b"[" * 100_000, "too_deep"),
    "B17-nesting-100000-objects": (b'{"a":' * 100_000, "too_deep"),
    "B17-nesting-1000-closed": (with_raw("extra", "[" * 1000 + "]" * 1000), "too_deep"),
    "B17-nesting-one-too-many": (with_raw("extra", "[" * 32 + "]" * 32), "too_deep"),
    "B18-feature-twice": (amount('1, "amount": 2'), OK),
    "B18-id-twice": (with_raw("prediction_id", '"a", "prediction_id": "b"'), OK),
    "B18-last-id-is-null": (with_raw("prediction_id", '"a", "prediction_id": null'), "bad_id"),
    **{f"B19-{name}": (feature(name), OK) for name in ("__proto__", "constructor", "__class__", "{0.__class__}")},
    "B20-case": (feature("Amount"), OK),
    "B20-trailing-space": (feature("amount "), OK),
    "B20-zero-width": (feature("amo\u200bunt"), OK),
    "B20-NFD": (feature("e\u0301"), OK),
    "B21-lone-surrogate": (with_raw("features/country", '"\\ud800"'), "invalid_unicode"),
    "B21-lone-surrogate-unwanted": (with_raw("note", '"\\udfff"'), "invalid_unicode"),
    "B21-in-a-key": (GOOD_LINE[:-1] + b',"\\ud83d":1}', "invalid_unicode"),
    "B22-latin-1": (GOOD_LINE.replace(b"DE", b"\xe9t\xe9"), "invalid_utf8"),
    "B22-surrogate-bytes": (GOOD_LINE.replace(b"DE", b"\xed\xa0\x80"), "invalid_utf8"),
    "B22-unwanted": (with_raw("note", '"@"').replace(b"@", b"\xff"), "invalid_utf8"),
    "B23-byte-order-mark": (codecs.BOM_UTF8 + GOOD_LINE, "bom"),
    "B23-UTF-16": (GOOD_LINE.decode().encode("utf-16"), "encoding"),
    "B23-UTF-16-big-endian": (GOOD_LINE.decode().encode("utf-16-be"), "encoding"),
    "B23-UTF-16-little-endian": (GOOD_LINE.decode().encode("utf-16-le"), "encoding"),
    "B23-UTF-32": (GOOD_LINE.decode().encode("utf-32"), "encoding"),
    "B23-UTF-32-big-endian": (GOOD_LINE.decode().encode("utf-32-be"), "encoding"),
    "B24-raw-control": (GOOD_LINE.replace(b"DE", b"D\x00E"), "malformed_json"),
    "B24-escaped-controls": (with_raw("features/country", '"\\u0000\\r\\n\\u001b[2J"'), OK),
    "B25-right-to-left": (country("\u202egnp.exe"), OK),
    "B25-combining-marks": (country("e" + "\u0301" * 100), OK),
    "B25-emoji": (country("👩‍👩‍👧"), OK),
    "B26-script": (country("<script>alert(1)</script>"), OK),
    "B26-templates": (country("{{7*7}}${jndi:ldap://x}%s%n"), OK),
    "B30-text-of-200-kB": (country("x" * 200_000), OK),
    "B30-beyond-a-record": (country("x" * (1 << 20)), "too_large"),
    "B31-one-byte-too-many": (GOOD_LINE + b" " * ((1 << 20) + 1 - len(GOOD_LINE)), "too_large"),
    "B31-just-fits": (GOOD_LINE + b" " * ((1 << 20) - len(GOOD_LINE)), OK),
    "B31-10-MB": (b"x" * 10_000_000, "too_large"),
    "B34-Confluent": (b"\x00\x00\x00\x00\x07\x02rest of Avro", "looks_like_confluent"),
    "B34-Confluent-JSON-Schema": (b"\x00\x00\x00\x00\x7b" + GOOD_LINE, "looks_like_confluent"),
    "B35-gzip": (gzip.compress(GOOD_LINE, mtime=0), "malformed_json"),
    "B35-zstd": (b"\x28\xb5\x2f\xfd\x04\x00", "malformed_json"),
    "B35-pickle": (pickle.dumps(GOOD, protocol=4), "malformed_json"),
    "B35-plain-text": (b"hello", "malformed_json"),
    "B35-HTML": (b"<html><body>502</body></html>", "malformed_json"),
    "B37-no-id": (without("prediction_id"), "missing_field"),
    "B37-no-model": (without("model"), "missing_field"),
    "B37-no-timestamp": (without("timestamp"), "missing_field"),
    "B37-no-features": (without("features"), "missing_field"),
    "B38-id-null": (with_raw("prediction_id", "null"), "bad_id"),
    "B38-id-empty": (with_raw("prediction_id", '""'), "bad_id"),
    "B38-id-bool": (with_raw("prediction_id", "true"), "bad_id"),
    "B38-id-object": (with_raw("prediction_id", "{}"), "bad_id"),
    "B38-id-10-kB": (with_raw("prediction_id", '"' + "x" * 10_000 + '"'), "bad_id"),
    "B38-id-number": (with_raw("prediction_id", "12"), OK),
    "B40-unknown-model": (with_raw("model", '"nobody"'), OK),
    "B40-unknown-version": (with_raw("version", '"v2"'), OK),
    "B42-9000-features": (
        json.dumps(GOOD | {"features": {"amount": 1} | {f"f{i}": i for i in range(9_000)}}).encode(),
        OK,
    ),
    "B43-renamed": (json.dumps(GOOD | {"features": {"betrag": 1.0}}).encode(), OK),
    "B43-number-becomes-text": (amount('"129.5"'), OK),
    "B43-all-null": (with_raw("features", "null"), OK),
    **{
        f"B44-{name}": (amount(raw), OK)
        for name, raw in {"bool": "true", "text-number": '"1.0"', "comma": '"1,5"', "arabic": '"١٢"'}.items()
    },
    "B44-underscore-score": (with_raw("score", '"1_000"'), "type"),
    "B45-feature-array": (amount("[1, [2, 3]]"), OK),
    "B45-features-array": (with_raw("features", "[1]"), "type"),
    "B47-score-above-one": (with_raw("score", "1.0000001"), OK),
    "B47-score-42": (with_raw("score", "42"), OK),
    "B47-score-vector": (with_raw("score", "[0.2, 0.3]"), "type"),
    "B50-milliseconds": (with_raw("timestamp", "1763806503120"), "timestamp_unit"),
    "B50-seconds": (with_raw("timestamp", "1763806503"), "timestamp_unit"),
    "B51-1969": (with_raw("timestamp", '"1969-12-31T23:59:59Z"'), "timestamp_range"),
    "B51-9999": (with_raw("timestamp", '"9999-12-31T23:59:59Z"'), "timestamp_range"),
    "B51-zero": (with_raw("timestamp", "0"), "timestamp_unit"),
    "B51-1e20": (with_raw("timestamp", "1e20"), "timestamp_unit"),
    "B52-no-zone": (with_raw("timestamp", '"2026-11-22T10:15:03"'), "timestamp_format"),
    "B52-24-00": (with_raw("timestamp", '"2026-11-22T24:00:00Z"'), "timestamp_format"),
    "B52-week-date": (with_raw("timestamp", '"2026-W47-7"'), "timestamp_format"),
    "B52-leap-second": (with_raw("timestamp", '"2026-11-22T10:15:60Z"'), OK),
    "B52-nine-digits": (with_raw("timestamp", '"2026-11-22T10:15:03.123456789Z"'), OK),
    "B67-with-a-mark": (codecs.BOM_UTF8 + GOOD_LINE, "bom"),
    "B70-90000-keys": (b"{" + b",".join(b'"%d":1' % at for at in range(90_000)) + b"}", "too_many_keys"),
}


def corpus() -> dict[str, bytes]:
    """File name -> content."""
    return {f"{name}.bin": value[:CORPUS_BYTES_MAX] for name, (value, _) in CASES.items()}


def write_corpus() -> None:
    CORPUS.mkdir(parents=True, exist_ok=True)
    for old in CORPUS.glob("B*.bin"):
        old.unlink()
    for name, value in corpus().items():
        (CORPUS / name).write_bytes(value)


if __name__ == "__main__":
    write_corpus()
