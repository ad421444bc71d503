"""JSON as it was written, or the name of what is wrong with it: the parser of the strict tier (decode_strict.py).

The standard library's C scanner with hooks, not orjson, for three reasons: numbers stay as they were written (an id of 30
digits, a version 1.10, a decimal timestamp in seconds are exact), NaN and Infinity literals are seen (Python's json.dumps
writes them), and a number beyond float64 is told from malformed text. What orjson would refuse besides (bytes that are not
UTF-8, half surrogate pairs, depth) is refused here by name; tests/laws compares the two.
"""

from __future__ import annotations

import json
import re
from typing import Any

from stream.limits import DEPTH_MAX, EVENT_BYTES_MAX, KEYS_MAX


class RefusedError(Exception):
    """The event is a dead letter: a code of deadletter.REASONS, a detail without payload, a JSON pointer."""

    def __init__(self, code: str, detail: str, path: str = "") -> None:
        self.code, self.detail, self.path = code, detail, path


class RawNumber(str):
    """A JSON number as it was written."""

    __slots__ = ()


class _Other:
    """What JSON has no word for."""


ABSENT = _Other()


NON_FINITE = _Other()


BLOCKED = _Other()  # the way to it leads through a scalar or an array


_WHITE = b" \t\n\r"


_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)


_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


_FORMATS = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\xff\x06\x00\x00sNaPpY", "snappy"),
    (b"\x82SNAPPY\x00", "snappy"),
    (b"PK\x03\x04", "a zip file"),
    (b"Obj\x01", "an Avro file"),
    (b"PAR1", "Parquet"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x03", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x80\x05", "a Python pickle"),
    (b"<", "HTML or XML"),
)


_MAGIC = tuple(magic for magic, _ in _FORMATS)


class Doubled(dict[str, Any]):
    """An object of an event in which some keys stand more than once; the last ones have won."""

    __slots__ = ("twice",)
    twice: frozenset[str]


def _noting_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    doubled = Doubled(found)
    seen: set[str] = set()
    doubled.twice = frozenset(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return doubled


_HOOKS: dict[str, Any] = {
    "parse_float": RawNumber,
    "parse_int": RawNumber,
    "parse_constant": lambda _name: NON_FINITE,
}


_DECODER = json.JSONDecoder(**_HOOKS)


_DOUBLES_DECODER = json.JSONDecoder(**_HOOKS, object_pairs_hook=_noting_doubles)


_NUMBER_DECODER = json.JSONDecoder(**_HOOKS | {"parse_constant": lambda _name: None})


def parse(value: bytes, *, note_doubles: bool = False) -> dict[str, Any]:
    """The JSON object in `value`: numbers as RawNumber, NaN and Infinity as NON_FINITE. Raises RefusedError.

    `note_doubles`: an object with a key that stands twice is a `Doubled`, at twice the cost.
    """
    text = readable(value)
    start = len(text) - len(text.lstrip(" \t\n\r"))
    try:
        document, end = (_DOUBLES_DECODER if note_doubles else _DECODER).raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise _malformed(error, len(text[: error.pos].encode()), len(value)) from None
    rest = text[end:].lstrip(" \t\n\r")
    if rest:
        place = len(value) - len(rest.encode())
        if isinstance(document, dict | list):
            raise trailing(len(value), place)
        raise RefusedError("malformed_json", f"no JSON at byte {place} of {len(value)}")
    if not isinstance(document, dict):
        raise not_an_object(document)
    if _SURROGATE.search(text):
        _check_surrogates(document)
    return document


def readable(value: bytes) -> str:
    """The value as text that the parser may see. Raises RefusedError."""
    _check_bytes(value)
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RefusedError("invalid_utf8", f"byte {error.start} is not UTF-8: {error.reason}") from None
    _check_outline(value)
    return text


def malformed_in(text: str, shift: int, start: int, length: int) -> None:
    """Raise RefusedError where `text` is malformed at all; from character `start` on it is a value's last bytes, byte `shift`
    of the value would be its first one. length: of the value, bytes.
    """
    try:
        _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        place = shift + start + len(text[start : error.pos].encode())
        raise _malformed(error, place, length) from None


def _malformed(error: json.JSONDecodeError, place: int, length: int) -> RefusedError:
    return RefusedError("malformed_json", f"{error.msg.removesuffix(' at')} at byte {place} of {length}")


def trailing(length: int, place: int) -> RefusedError:
    """Something follows the JSON at byte `place`."""
    return RefusedError("trailing_data", f"the JSON ends before byte {place} of {length}; one event per record")


def not_an_object(document: object) -> RefusedError:
    return RefusedError("not_an_object", f"the event is {type_name(document)}, expected an object")


def _check_bytes(value: bytes) -> None:
    if len(value) > EVENT_BYTES_MAX:
        raise RefusedError("too_large", f"{len(value)} bytes; at most {EVENT_BYTES_MAX} are read")
    if value.startswith((b'{"', b"[{")):  # nearly all of them: none of what follows
        return
    if not value.strip(_WHITE):
        raise RefusedError("empty_value", f"{len(value)} bytes of white space" if value else "no bytes")
    if value.startswith(b"\xef\xbb\xbf"):
        raise RefusedError("bom", "starts with a UTF-8 byte order mark")
    head = value[:4]
    if head[:2] in {b"\xff\xfe", b"\xfe\xff"} or head == b"\x00\x00\xfe\xff":
        raise RefusedError("encoding", "starts with a byte order mark of UTF-16 or UTF-32")
    wide = (head[:1] in b"{[" and head[1:2] == b"\x00", head[:1] == b"\x00" and head[1:2] in b"{[")
    if len(head) == 4 and (any(wide) or (head[:3] == b"\x00\x00\x00" and head[3:] in b"{[")):
        raise RefusedError("encoding", "zero bytes between the characters: UTF-16 or UTF-32")
    if head[:1] == b"\x00" and len(value) >= 5:
        schema = int.from_bytes(value[1:5], "big")
        raise RefusedError(
            "looks_like_confluent", f"magic byte 0, schema id {schema}: Avro, Protobuf or JSON Schema framing"
        )
    kind = _kind(value)
    if kind:
        raise RefusedError("malformed_json", f"not JSON{kind}")


def _kind(value: bytes) -> str:
    head = value[:64].lstrip(_WHITE)
    if not head.startswith(_MAGIC):
        return ""
    return f"; looks like {next(name for magic, name in _FORMATS if head.startswith(magic))}"


def _check_outline(value: bytes) -> None:
    """Refuse depth and numbers of keys before the recursive scanner sees them; linear, and skipped for plain events."""
    many_keys = len(value) > KEYS_MAX and value.count(b":") > KEYS_MAX
    deep = len(value) > DEPTH_MAX and value.count(b"{") + value.count(b"[") > DEPTH_MAX
    if not many_keys and not deep:
        return
    outside = _STRING.sub(b"", value)
    depth = 0
    for bracket in outside.translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > DEPTH_MAX:
            raise RefusedError("too_deep", f"nested deeper than {DEPTH_MAX}")
    if outside.count(b":") > KEYS_MAX:
        raise RefusedError("too_many_keys", f"more than {KEYS_MAX} keys")


def _check_surrogates(document: dict[str, Any]) -> None:
    """Half a surrogate pair anywhere is no text: it could neither be hashed nor stored."""
    todo: list[Any] = [document]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            todo += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            todo += item
        elif isinstance(item, str) and not item.isascii():
            try:
                item.encode()
            except UnicodeEncodeError:
                raise RefusedError("invalid_unicode", "a \\u escape names half a surrogate pair") from None


def type_name(value: object) -> str:
    if value is NON_FINITE:
        return "NaN or Infinity"
    if isinstance(value, RawNumber):
        return "a number"
    if value is BLOCKED:
        return "behind something that is no object"
    if isinstance(value, dict):
        return "an object"
    names = {list: "an array", str: "a text", bool: "a bool", type(None): "null"}
    return names[type(value)]


def number_in(text: str) -> Any:
    """The number that a text is, by JSON's own grammar and nothing else around it; the text itself where it is none."""
    if text[:1] not in "-0123456789" or not text:
        return text
    try:
        found, end = _NUMBER_DECODER.raw_decode(text)
    except json.JSONDecodeError:
        return text
    return found if end == len(text) and isinstance(found, RawNumber) else text
