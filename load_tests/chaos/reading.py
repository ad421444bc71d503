"""What an event says, or why it is a dead letter: the rules of README's table and of contracts.md, in plain Python.

Shares no code with the product. The first rule that fails names the reason: bytes, structure, envelope, container, outputs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_FLOOR, Context, Decimal
from typing import Any

import xxhash

BYTES_MAX, DEPTH_MAX, KEYS_MAX, ID_BYTES_MAX, NAME_BYTES_MAX = 1 << 20, 32, 10_000, 512, 256
TIME_MIN, TIME_MAX = 315_532_800_000, 7_258_118_400_000  # 1980, 2200
UNITS = {"s": 3, "ms": 0, "us": -3, "ns": -6}
FORMATS = (
    b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"\xff\x06\x00\x00sNaPpY", b"\x82SNAPPY\x00", b"PK\x03\x04",
    b"Obj\x01", b"PAR1", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"<",
)  # fmt: skip
STAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)  # RFC 3339
FLOOR = Context(prec=60, rounding=ROUND_FLOOR, traps=[])

Keys = tuple[str, ...]


class Refused(Exception):  # noqa: N818 - an outcome, not an error
    """The event is a dead letter; args[0] is the reason's code."""


class Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


class _Word:
    """What JSON has no word for."""


ABSENT, NON_FINITE, BLOCKED = _Word(), _Word(), _Word()
DECODER = json.JSONDecoder(parse_float=Number, parse_int=Number, parse_constant=lambda _: NON_FINITE)
_days: dict[str, int] = {}


@dataclass(slots=True)
class Event:
    """One accepted event. `ident` is the 96 bits by which it is known."""

    time_ms: int
    ident: int
    model: str
    version: str
    body: dict[str, Any]


@dataclass
class Shape:
    """Where things stand. outputs: (keys, must be a number) of the watched prediction and scores, in order.

    with_features: models whose events must carry the container.
    """

    mapping: dict[str, Any]
    models: Sequence[str]
    outputs: list[tuple[Keys, bool]]
    with_features: set[str]

    def keys(self, name: str, role: str) -> Keys:
        """The way to a target's value; a feature's name is one key, dots and all."""
        if role == "score":
            return split(self.mapping["scores"][name])
        if role == "prediction":
            return split(self.mapping["prediction"])
        return (*split(self.mapping["features" if role == "feature" else "segments"]), name)


def split(path: str) -> Keys:
    return tuple(path.split(".")) if path else ()


def read(value: bytes, record_ms: int, shape: Shape) -> Event:
    """Raises Refused."""
    body, mapping = parse(value), shape.mapping
    ident = _ident(lookup(body, split(mapping["prediction_id"])))
    model = _name(body, mapping["model"], required=True)
    version = _name(body, mapping["version"], required=False)
    time_ms = _time(body, mapping, record_ms)
    if model not in shape.models and mapping.get("unknown_models") == "dlq":
        raise Refused("unknown_model")
    if model in shape.with_features:
        features = lookup(body, split(mapping["features"]))
        if features is ABSENT:
            raise Refused("missing_field")
        if features is not None and type(features) is not dict:
            raise Refused("type")
    for keys, number in shape.outputs:
        _check_output(lookup(body, keys), number=number)
    return Event(time_ms, xxhash.xxh3_128_intdigest(ident.encode()) >> 32, model, version, body)


def parse(value: bytes) -> dict[str, Any]:
    _check_bytes(value)
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise Refused("invalid_utf8") from None
    if value.count(b"{") + value.count(b"[") > DEPTH_MAX or value.count(b":") > KEYS_MAX:
        _check_outline(text)
    try:
        document, end = DECODER.raw_decode(text, len(text) - len(text.lstrip(" \t\n\r")))
    except json.JSONDecodeError:
        raise Refused("malformed_json") from None
    if text[end:].strip(" \t\n\r"):
        raise Refused("trailing_data" if isinstance(document, dict | list) else "malformed_json")
    if type(document) is not dict:
        raise Refused("not_an_object")
    if "\\u" in text:
        try:
            json.dumps(document, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError:
            raise Refused("invalid_unicode") from None
    return document


def _check_bytes(value: bytes) -> None:
    if len(value) > BYTES_MAX:
        raise Refused("too_large")
    if not value.strip(b" \t\n\r"):
        raise Refused("empty_value")
    if value.startswith(b"\xef\xbb\xbf"):
        raise Refused("bom")
    if value[0] in b"{[" and value[1:2] != b"\0":
        return  # by far the most
    head = value[:4]
    wide = (head[:1] in b"{[" and head[1:2] == b"\0", head[:1] == b"\0" and head[1:2] in b"{[", head[:3] == b"\0\0\0")
    wide = (*wide[:2], wide[2] and head[3:] in b"{[")
    if head[:2] in {b"\xff\xfe", b"\xfe\xff"} or head == b"\0\0\xfe\xff" or (len(head) == 4 and any(wide)):
        raise Refused("encoding")
    if head[:1] == b"\0" and len(value) >= 5:
        raise Refused("looks_like_confluent")
    if value[:64].lstrip(b" \t\n\r").startswith(FORMATS):
        raise Refused("malformed_json")


def _check_outline(text: str) -> None:
    """Depth and keys outside of texts, before anything recursive sees them."""
    depth = keys = 0
    inside = False
    place = 0
    while place < len(text):
        letter = text[place]
        if inside:
            place += letter == "\\"
            inside = letter != '"'
        elif letter == '"':
            inside = True
        elif letter in "{[":
            depth += 1
            if depth > DEPTH_MAX:
                raise Refused("too_deep")
        elif letter in "]}":
            depth -= 1
        keys += letter == ":" and not inside
        place += 1
    if keys > KEYS_MAX:
        raise Refused("too_many_keys")


def lookup(body: Any, keys: Keys) -> Any:
    """The value there; ABSENT also where the way leads through null, BLOCKED where it leads through anything else."""
    here = body
    for key in keys:
        if type(here) is not dict:
            return ABSENT if here is None or here is ABSENT else BLOCKED
        here = here.get(key, ABSENT)
    return here


def _ident(value: Any) -> str:
    if value is ABSENT:
        raise Refused("missing_field")
    if value is NON_FINITE:
        raise Refused("non_finite")
    if not isinstance(value, str) or not 0 < len(value.encode()) <= ID_BYTES_MAX:
        raise Refused("bad_id")
    return value


def _name(body: Any, path: str, *, required: bool) -> str:
    if path.startswith("="):
        return path[1:]
    value = lookup(body, split(path))
    if value is ABSENT or value is None:
        if required:
            raise Refused("missing_field")
        return ""
    if value is NON_FINITE:
        raise Refused("non_finite")
    if not isinstance(value, str):
        raise Refused("type")
    if len(value.encode()) > NAME_BYTES_MAX or (required and not value):
        raise Refused("bad_name")
    return str(value)


def _check_output(value: Any, *, number: bool) -> None:
    if value is ABSENT or value is None:
        return
    if value is NON_FINITE:
        raise Refused("non_finite")
    if type(value) is Number:
        if as_float(value) is None:
            raise Refused("number_out_of_range")
    elif number or not isinstance(value, str | bool):
        raise Refused("type")


def as_float(value: str) -> float | None:
    """None = beyond float64."""
    number = float(value) + 0.0
    return None if number in {float("inf"), float("-inf")} else number


def _time(body: Any, mapping: dict[str, Any], record_ms: int) -> int:
    if mapping["timestamp"] == "$record":
        return _ranged(record_ms)
    value = lookup(body, split(mapping["timestamp"]))
    if value is ABSENT or value is None:
        raise Refused("missing_field")
    if value is NON_FINITE:
        raise Refused("non_finite")
    if type(value) is Number:
        return _counted(value, mapping["timestamp_unit"])
    if isinstance(value, str):
        return _ranged(_stamp(value))
    raise Refused("type")


def _counted(raw: str, unit: str) -> int:
    """A number in the declared unit, rounded down to milliseconds; one that only fits another unit says so."""
    number = FLOOR.create_decimal(raw)
    if unit not in UNITS:
        raise Refused("timestamp_unit")
    scaled = number.scaleb(UNITS[unit], FLOOR)
    if TIME_MIN <= scaled < TIME_MAX:
        return int(scaled.to_integral_value(ROUND_FLOOR))
    sizes = (("s", "1e11"), ("ms", "1e14"), ("us", "1e17"), ("ns", "inf"))
    guess = next(name for name, below in sizes if number < Decimal(below) or name == "ns")
    plausible = TIME_MIN <= number.scaleb(UNITS[guess], FLOOR) < TIME_MAX
    raise Refused("timestamp_unit" if plausible else "timestamp_range")


def _stamp(text: str) -> int:
    match = STAMP.fullmatch(text)
    if match is None:
        raise Refused("timestamp_format")
    day, hour, minute, second, fraction, sign, zone_hour, zone_minute = match.groups("0")
    days = _days.get(day)
    if days is None:
        try:
            days = date.fromisoformat(day).toordinal() - 719_163
        except ValueError:
            if day[:4] != "0000":
                raise Refused("timestamp_format") from None
            days = _days_of_year_zero(day)
        _days[day] = days
    if int(hour) > 23 or int(minute) > 59 or int(second) > 60 or int(zone_hour) > 23 or int(zone_minute) > 59:
        raise Refused("timestamp_format")
    milli = 999 if second == "60" else int((fraction + "00")[:3])
    zone = int(zone_hour) * 60 + int(zone_minute)
    minutes = int(hour) * 60 + int(minute) - (-zone if sign == "-" else zone)
    return days * 86_400_000 + (minutes * 60 + min(int(second), 59)) * 1000 + milli


def _days_of_year_zero(day: str) -> int:
    """Year 0 is a leap year that Python does not know; whatever the day, it is far out of range."""
    try:
        date.fromisoformat("0004" + day[4:])
    except ValueError:
        raise Refused("timestamp_format") from None
    return -(1 << 20)


def _ranged(time_ms: int) -> int:
    if not TIME_MIN <= time_ms < TIME_MAX:
        raise Refused("timestamp_range")
    return time_ms
