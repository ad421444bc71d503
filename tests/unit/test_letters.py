"""Dead letters as people handle them: identity, choice, counts, refusals, marks; and the headers that a letter keeps."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import orjson
import pytest

from stream.chunks import Plain, from_plain
from stream.columns import Records, Reject
from stream.config import config_from
from stream.config_errors import ConfigError
from stream.deadletter import Policy, letter_writer, payload_of, redacted
from stream.decode import decode
from stream.events import DeadLetterHeaders
from stream.kernels.framing import frame
from stream.letters import (
    MARK_HEADER,
    RETRIED,
    RETRIES_MAX,
    RETRYING,
    Book,
    Mark,
    Wanted,
    escaped,
    letter_of,
    mark_of,
    retried_letter,
    retry_headers,
    shown,
    wanted_one,
    why_not,
)
from stream.limits import DEAD_LETTER_BYTES_MAX, DEAD_LETTER_CUT_BYTES, DEAD_LETTER_KEY_BYTES_MAX, EVENT_BYTES_MAX
from stream.mapping import NATIVE, Layout
from stream.original_headers import (
    ORIGINAL_HEADERS_BYTES_MAX,
    ORIGINAL_HEADERS_MAX,
    OriginalHeaders,
    frame_headers,
    read_headers,
)

LAYOUT = Layout.compile(NATIVE, ("m",), ("features.a",))


FULL = Policy()


def output_of(reject: Reject, policy: Policy = FULL):
    return letter_writer(
        topic="in", partition=3, config_hash="c0ffee", app_version="0.1.0", policy=policy
    )(reject)  # fmt: skip


def reject(**changes) -> Reject:
    fields = {
        "offset": 17, "row": 0, "code": "missing_field", "detail": "no model", "path": "/model",
        "key": b"k", "value": b'{"a":1}', "timestamp_ms": 1_763_806_503_120,
    }  # fmt: skip
    return Reject(**(fields | changes))


def record(output, place: int, written_ms: int = 1000) -> SimpleNamespace:
    return SimpleNamespace(
        partition=3, offset=place, timestamp=written_ms, key=output.key, value=output.value, headers=output.headers
    )


def marked(letter: str, state: str, **changes) -> SimpleNamespace:
    mark = Mark(letter, state, "ada@host", "2026-11-22T10:00:00Z", 1, "in", 3, 99)
    fields = {"partition": 3, "offset": 9, "timestamp": 1, "key": None, "value": mark.encode()} | changes
    return SimpleNamespace(**fields, headers=[(MARK_HEADER, state.encode())])


# -- the headers of a record


HEADERS = [
    pytest.param([(f"n{i}", b"v") for i in range(1000)], ORIGINAL_HEADERS_MAX, id="B56-a-thousand"),
    pytest.param([("n", b"1"), ("n", b"2"), ("n", b"1")], 3, id="B56-duplicate-names"),
    pytest.param([("n", None), ("", b"")], 2, id="B56-null-value"),
    pytest.param([("n", b"x" * ORIGINAL_HEADERS_BYTES_MAX), ("m", b"")], 0, id="B56-large-value"),
    pytest.param([("traceparent", b"\xff malformed")], 1, id="B56-traceparent"),
]


@pytest.mark.parametrize(("headers", "kept"), HEADERS)
def test_the_first_headers_are_kept_and_the_rest_counted(headers, kept) -> None:
    read = read_headers(memoryview(frame_headers(headers)), 0)
    assert read == OriginalHeaders(tuple(headers[:kept]), len(headers) - kept, 0)


def test_a_name_that_is_no_utf8_is_escaped() -> None:  # B56
    assert read_headers(memoryview(b"\x02\x06a\xff\x80\x02v"), 0).kept == ((r"a\xff\x80", b"v"),)


@pytest.mark.parametrize("cut", range(len(frame_headers([("name", b"value"), ("other", None)]))))
def test_headers_that_are_cut_short_are_dropped_and_never_raise(cut: int) -> None:
    whole = frame_headers([("name", b"value"), ("other", None)])
    read = read_headers(memoryview(whole[:cut]), 0)
    assert len(read.kept) + read.dropped == (2 if cut else 0)


def test_a_length_beyond_everything_is_malformed_not_memory() -> None:
    assert read_headers(memoryview(b"\x02" + b"\xff" * 9 + b"\x01"), 0) == OriginalHeaders((), 1, 0)
    assert read_headers(memoryview(b"\xff" * 20), 0) == OriginalHeaders()


@pytest.mark.parametrize(
    ("value", "attempt"), [(b"3", 3), (b"0", 0), (b"-1", 0), (b"9999", 0), (b"\xd9\xa1", 0), (None, 0)]
)
def test_the_attempt_is_read_and_is_no_original_header(value, attempt) -> None:
    headers = [("driftline.attempt", value), ("driftline.dead_letter", b"in/0/1/0"), ("a", b"b")]
    assert read_headers(memoryview(frame_headers(headers)), 0) == OriginalHeaders((("a", b"b"),), 0, attempt)


def batch(headers) -> bytes:
    body = b"\x00\x00\x00" + b"\x02k" + b"\x02{" + frame_headers(headers)
    return bytes([2 * len(body)]) + body


@pytest.mark.parametrize("append", [False, True])
def test_both_ways_of_reading_give_the_same_dead_letter(append: bool) -> None:
    headers = [("trace", b"1"), ("driftline.attempt", b"2"), ("gone", None)]
    raw = frame(
        batch(headers),
        base_offset=5,
        count=1,
        first_timestamp_ms=7,
        max_timestamp_ms=7,
        log_append=append,
        start_offset=0,
    )
    plain = from_plain([Plain(5, 7, b"k", b"{", tuple(headers), 5, 6, append)])
    letters = [output_of(decode(records, LAYOUT).rejects[0]) for records in (raw, plain)]
    assert letters[0] == letters[1]
    facts = DeadLetterHeaders.model_validate({n: v.decode() for n, v in letters[0].headers if n.startswith("dlq.")})
    assert facts.timestamp_type == ("LogAppendTime" if append else "CreateTime")
    assert (facts.attempt, facts.payload, facts.headers_dropped) == ("2", "full", None)
    assert letters[0].headers[-2:] == (("orig.trace", b"1"), ("orig.gone", None))


def test_records_without_headers_are_not_searched_for_them() -> None:
    one = np.array([0]), np.array([0]), np.array([0]), np.array([-1]), np.array([0]), np.array([1])
    records = Records(np.frombuffer(b"{\xff\xff", np.uint8), *one, 1)
    assert decode(records, LAYOUT).rejects[0].headers == OriginalHeaders()


# -- policy


SECRET = b'{"features": {"email": "ada@example.org", "a": 1}, "list": [{"x": "ada@example.org"}], "e/m~l": "ada@example.org"}'


def test_what_the_pointers_name_is_gone() -> None:
    cleared = redacted(SECRET, ("/features/email", "/list/0/x", "/e~1m~0l", "/nothing/there", "/list/7/x", "/list/x"))
    assert cleared is not None
    assert b"ada" not in cleared
    assert orjson.loads(cleared)["features"] == {"email": "[redacted]", "a": 1}


@pytest.mark.parametrize(
    "value",
    [SECRET[:-1], SECRET * 2, b"[" + SECRET + b"]", b'"ada@example.org"', b"\xef\xbb\xbf" + SECRET, SECRET + b"\xff",
     b'{"a":' * 2000, b"{" + b" " * EVENT_BYTES_MAX + b"}", b""],
    ids=["cut", "two", "array", "text", "bom", "utf8", "deep", "large", "empty"],
)  # fmt: skip
def test_what_is_no_json_object_is_kept_as_hash_where_something_is_redacted(value: bytes) -> None:
    assert payload_of(value, Policy(redact=("/features/email",))) == (None, "hash")


def test_of_a_key_that_stands_twice_neither_value_is_left() -> None:
    assert b"ada" not in (redacted(b'{"s": "ada", "s": "adam"}', ("/s",)) or b"")


def test_lengths() -> None:
    long = b"x" * (DEAD_LETTER_BYTES_MAX + 1)
    assert payload_of(long, Policy()) == (long[:-1], "truncated")
    assert payload_of(long[:-1], Policy()) == (long[:-1], "full")
    assert payload_of(long, Policy("truncated")) == (long[:DEAD_LETTER_CUT_BYTES], "truncated")
    assert payload_of(b"short", Policy("truncated")) == (b"short", "full")


def test_a_hash_has_neither_key_nor_headers_but_says_so() -> None:
    headers = OriginalHeaders((("secret", b"s3cret"),), 2)
    output = output_of(reject(value=b"s3cret", key=b"s3cret", headers=headers), Policy("hash"))
    assert b"s3cret" not in b"".join([output.key or b"", output.value or b"", *(v or b"" for _, v in output.headers)])
    facts = dict(output.headers)
    assert (facts["dlq.headers_dropped"], facts["dlq.key_length"], facts["dlq.value_length"]) == (b"3", b"6", b"6")


def test_a_key_of_a_megabyte_makes_no_dead_letter_of_a_megabyte() -> None:  # B55
    output = output_of(reject(key=b"k" * (1 << 20)))
    assert len(output.key) == DEAD_LETTER_KEY_BYTES_MAX
    assert dict(output.headers)["dlq.key_length"] == b"1048576"


BASE = {
    "kafka": {"bootstrap_servers": "h:1"}, "topics": {"predictions": "p"}, "models": {"m": {"reference": {"first": 5000}}}
}  # fmt: skip


@pytest.mark.parametrize(
    "settings", [{"payload": "some"}, {"redact": ["email"]}, {"redact": ["/a~2"]}, {"redact": [""]}]
)
def test_a_policy_that_means_nothing_is_refused(settings) -> None:
    with pytest.raises(ConfigError):
        config_from(BASE | {"dead_letters": settings})
    assert config_from(BASE | {"dead_letters": {"redact": ["/a/b~1c"]}}).dead_letters.redact == ("/a/b~1c",)


# -- what people do with them


def test_a_letter_is_read_back_and_a_repeated_one_counts_once() -> None:
    output = output_of(reject(headers=OriginalHeaders((("trace", None),), 0, 2)))
    letter = letter_of(record(output, 8))
    assert letter is not None
    assert (letter.id, letter.place, letter.attempt) == ("in/3/17/0", (3, 8), 2)
    assert (letter.key, letter.value, letter.headers) == (b"k", b'{"a":1}', (("trace", None),))
    book = Book()
    for found in (record(output, 8), record(output, 9), SimpleNamespace(**vars(record(output, 10)) | {"headers": []})):
        book.add(found)
    assert (len(book.letters), book.repeats, book.foreign) == (1, 1, 1)
    assert book.letters["in/3/17/0"].place == (3, 8)


def test_counts_and_choice() -> None:
    outputs = [output_of(reject(offset=i, code="malformed_json" if i else "missing_field")) for i in range(4)]
    book = Book()
    for i, output in enumerate(outputs):
        book.add(record(output, i, written_ms=i))
    book.add(marked("in/3/1/0", RETRYING))
    assert [(r["reason"], r["letters"], r["retried"], r["first_ms"], r["last_ms"]) for r in book.counted()] == [
        ("malformed_json", 3, 0, 1, 3), ("missing_field", 1, 0, 0, 0),
    ]  # fmt: skip
    book.add(marked("in/3/1/0", RETRIED))
    book.add(marked("in/3/1/0", RETRYING))  # an older intent that is read later changes nothing
    assert book.counted()[0]["retried"] == 1
    letters = list(book.letters.values())
    for wanted, count in (
        (Wanted(), 4), (Wanted(reasons=("missing_field",)), 1), (Wanted(since_ms=2), 2), (Wanted(partition=3), 4),
        (Wanted(partition=0), 0), (wanted_one("in/3/2"), 1), (wanted_one("in/3/2/0"), 1), (wanted_one("in/3/2/1"), 0),
        (wanted_one("3/2"), 1), (wanted_one("4/2"), 0),
    ):  # fmt: skip
        assert sum(map(wanted.takes, letters)) == count, wanted


@pytest.mark.parametrize("text", ["", "3", "a/b", "in/3/x", "in/3/2/0/0", "/3/2/0", "in/-3/2", "in/3/²"])
def test_what_names_no_letter_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no letter"):
        wanted_one(text)


@pytest.mark.parametrize(
    ("changes", "policy", "why"),
    [
        ({}, Policy(), None),
        ({"headers": OriginalHeaders(attempt=RETRIES_MAX - 1)}, Policy(), None),
        ({"headers": OriginalHeaders(attempt=RETRIES_MAX)}, Policy(), "attempt 5"),
        ({}, Policy("hash"), "payload hash"),
        ({}, Policy(redact=("/a",)), "payload redacted"),
        ({"value": b"x" * 70_000}, Policy(), "payload truncated"),
        ({"key": b"x" * 70_000}, Policy(), "key was cut"),
        ({"headers": OriginalHeaders(dropped=3)}, Policy(), "3 of its headers"),
    ],
)
def test_what_is_not_whole_is_not_retried(changes, policy, why) -> None:
    letter = letter_of(record(output_of(reject(**changes), policy), 1))
    assert letter is not None
    found = why_not(letter, {"in": 4})
    assert found is None if why is None else why in found


def test_a_letter_from_elsewhere_is_not_retried() -> None:
    letter = letter_of(record(output_of(reject()), 1))
    assert letter is not None
    assert "came from in, the configuration reads other, clicks" in (why_not(letter, {"other": 4, "clicks": 4}) or "")
    assert "in has no partition 3" in (why_not(letter, {"other": 4, "in": 3}) or "")
    assert why_not(letter, {"other": 3, "in": 4}) is None


def test_a_retry_carries_its_number_its_letter_and_the_original_headers_and_the_next_letter_says_so() -> None:
    letter = letter_of(record(output_of(reject(headers=OriginalHeaders((("a", None),), 0, 1))), 1))
    assert letter is not None
    headers = retry_headers(letter)
    assert headers == [("driftline.attempt", b"2"), ("driftline.dead_letter", b"in/3/17/0"), ("a", None)]
    assert retried_letter(headers) == "in/3/17/0"
    again = output_of(reject(offset=40, headers=read_headers(memoryview(frame_headers(headers)), 0)))
    assert dict(again.headers)["dlq.attempt"] == b"2"
    assert again.headers[-1] == ("orig.a", None)


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b'{"letter": "x"}', b'{"letter":1}', None])
def test_a_mark_that_cannot_be_read_is_none(value) -> None:
    assert mark_of(marked("x", RETRIED, value=value)) is None


def test_nothing_that_a_terminal_obeys_is_shown() -> None:  # B24
    cursed = "\x1b]0;x\x07\x9b31m\u202e\u2066\r\n\x00"
    output = output_of(
        reject(value=cursed.encode() + b"\xff", key=b"\x1b", headers=OriginalHeaders((("\x1bn", b"\x1b"), ("z", None))))
    )
    letter = letter_of(record(output, 1))
    assert letter is not None
    lines = list(shown(letter, Mark("\x1b", RETRIED, "\x1b", "t", 1, "in", 3, 9)))
    assert all(line.isprintable() for line in lines)
    assert r"orig.\x1bn: \x1b" in lines
    assert escaped(b"caf\xc3\xa9 \xff") == r"café \xff"
