"""The strict tier: one record at a time, and the only judge of what is a dead letter.

The parser is strict_json.py.

Rules, in the order in which an event is judged (the first that fails names the dead letter):
  1. bytes: too large, empty, byte order mark, other encodings, other formats, UTF-8
  2. structure: depth, keys, grammar (NaN and Infinity literals allowed), trailing data, object, surrogates. Last key wins.
  3. prediction_id, model, version, timestamp
  4. the features' container, for models that are known
  5. the prediction and the scores; a bad feature never refuses an event: it is an INVALID cell
About 40 us an event.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_FLOOR, Context, Decimal
from typing import Any

import orjson
import xxhash

from stream.columns import Tag
from stream.limits import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN, ID_BYTES_MAX, NAME_BYTES_MAX
from stream.mapping import UNIT_EXPONENT, Keys, Layout, Source, pointer
from stream.strict_json import (
    ABSENT,
    BLOCKED,
    NON_FINITE,
    Doubled,
    RawNumber,
    RefusedError,
    number_in,
    parse,
    type_name,
)


@dataclass(frozen=True, slots=True)
class Row:
    """One accepted event; cells and tags in Layout order."""

    event_time_ms: int
    id_hash: int  # the upper 96 bits of xxh3-128
    model: int
    version: str  # "" = none
    cells: list[int]
    tags: list[int]


_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_DAY_MS = 86_400_000
_FLOOR = Context(prec=60, rounding=ROUND_FLOOR, traps=[])
_UNIT_NAME = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_UNIT_BELOW = (("s", 1e11), ("ms", 1e14), ("us", 1e17), ("ns", float("inf")))


def decode_event(value: bytes, record_time_ms: int, layout: Layout) -> Row:
    """Decode one record's value. Raises RefusedError, never anything else."""
    event = parse(value, note_doubles=layout.mapping.strict_duplicate_keys)
    if layout.mapping.strict_duplicate_keys:
        for source in (layout.prediction_id, layout.model, layout.version, layout.timestamp):
            _check_once(event, source.keys)
    sources = (layout.prediction_id, layout.model, layout.version, layout.timestamp)
    id_text, model, version, time_ms = envelope(
        [lookup(event, source.keys) for source in sources], layout, record_time_ms
    )
    if model >= 0 and layout.features_of[model]:
        _check_container(event, layout)
    cells, tags = [], []
    for keys, output, score, coerce in zip(layout.keys, layout.output, layout.score, layout.coerce, strict=True):
        found = lookup(event, keys)
        if coerce and isinstance(found, str):
            found = number_in(found)
        cell, tag = _cell(found)
        if output:
            check_output(found, tag, keys, number=score)
        cells.append(cell)
        tags.append(tag)
    return Row(time_ms, xxhash.xxh3_128_intdigest(id_text.encode()) >> 32, model, version, cells, tags)


def envelope(fields: Sequence[Any], layout: Layout, record_time_ms: int) -> tuple[str, int, str, int]:
    """Id, model's index, version and time in ms, of what stands at the paths of the four; a source without keys asks for
    nothing. Raises RefusedError.
    """
    id_value, model_value, version_value, time_value = fields
    id_text = _id_text(id_value, layout.prediction_id.keys)
    model_name = _name(model_value, layout.model, required=not layout.mapping.model_optional)
    model = layout.models.index(model_name) if model_name in layout.models else -1
    if model < 0 and layout.mapping.unknown_models == "dlq":
        raise RefusedError("unknown_model", "the configuration names no such model", pointer(layout.model.keys))
    version = _name(version_value, layout.version, required=False)
    return id_text, model, version, _event_time(time_value, layout, record_time_ms)


def event_texts(value: bytes, layout: Layout) -> dict[int, str]:
    """Hash -> text of the TEXT cells of an event that was accepted. Raises RefusedError for one that could not have been."""
    event = parse(value)
    found = [lookup(event, keys) for keys in layout.keys]
    texts = [text for text in found if isinstance(text, str) and not isinstance(text, RawNumber)]
    return {xxhash.xxh3_64_intdigest(text.encode()): text for text in texts}


def read_again(value: bytes) -> dict[str, Any]:
    """An event that was accepted, as orjson or, where that refuses NaN, the strict parser reads it. About 3 us."""
    try:
        event: dict[str, Any] = orjson.loads(value)
    except orjson.JSONDecodeError:
        return parse(value)
    return event


def event_features(value: bytes, layout: Layout) -> dict[str, Any]:
    """The features of an event that was accepted; {} where there is no such object. About 3 us."""
    event = read_again(value)
    found = lookup(event, layout.features)
    if not isinstance(found, dict):
        return {}
    return found if layout.features else {name: found[name] for name in found.keys() - layout.envelope_keys}


def lookup(event: dict[str, Any], keys: Keys) -> Any:
    """The value at `keys`: ABSENT also where the way leads through null, BLOCKED through anything else but objects."""
    here: Any = event
    for key in keys:
        if not isinstance(here, dict):
            return ABSENT if here is None or here is ABSENT else BLOCKED
        here = here.get(key, ABSENT)
    return here


def _check_once(event: dict[str, Any], keys: Keys) -> None:
    """Refuse an event in which a key of this path stands twice: which of the two was meant is not known."""
    here: Any = event
    for depth, key in enumerate(keys):
        if isinstance(here, Doubled) and key in here.twice:
            raise RefusedError("duplicate_key", "the key stands more than once", pointer(keys[: depth + 1]))
        here = here.get(key) if isinstance(here, dict) else None


def _cell(value: Any) -> tuple[int, int]:
    if isinstance(value, RawNumber):
        number = float(value) + 0.0  # -0.0 becomes 0.0: one category, one bin
        if number - number != 0.0:
            return 0, Tag.INVALID
        return int.from_bytes(struct.pack("<d", number), "little"), Tag.NUMBER
    if isinstance(value, str):
        return xxhash.xxh3_64_intdigest(value.encode()), Tag.TEXT
    if isinstance(value, bool):
        return int(value), Tag.BOOL
    if value is None or value is ABSENT:
        return 0, Tag.MISSING
    return 0, Tag.INVALID


def check_output(value: Any, tag: int, keys: Keys, *, number: bool) -> None:
    """A prediction is a scalar, a score a number; absent is allowed and counted as missing."""
    if tag == Tag.INVALID and value is NON_FINITE:
        raise RefusedError("non_finite", "NaN or Infinity", pointer(keys))
    if tag == Tag.INVALID and isinstance(value, RawNumber):
        raise RefusedError("number_out_of_range", "beyond float64", pointer(keys))
    if tag == Tag.INVALID or (number and tag in {Tag.TEXT, Tag.BOOL}):
        expected = "a number" if number else "a number, a text or a bool"
        raise RefusedError("type", f"{type_name(value)}, expected {expected}", pointer(keys))


def no_features(layout: Layout) -> RefusedError:
    return RefusedError("missing_field", "the event carries no features", pointer(layout.features))


def _check_container(event: dict[str, Any], layout: Layout) -> None:
    value = lookup(event, layout.features)
    if value is ABSENT:
        raise no_features(layout)
    if value is not None and not isinstance(value, dict):
        raise RefusedError("type", f"{type_name(value)}, expected an object", pointer(layout.features))


def _id_text(value: Any, keys: Keys) -> str:
    """An id is text, or a number exactly as it was written."""
    path = pointer(keys)
    if value is ABSENT:
        raise RefusedError("missing_field", "no prediction_id", path)
    if value is NON_FINITE:
        raise RefusedError("non_finite", "the prediction_id is NaN or Infinity", path)
    if not isinstance(value, str):
        raise RefusedError("bad_id", f"the prediction_id is {type_name(value)}, expected a text or a number", path)
    length = len(value.encode())
    if not 0 < length <= ID_BYTES_MAX:
        raise RefusedError("bad_id", f"the prediction_id has {length} bytes, expected 1 to {ID_BYTES_MAX}", path)
    return str(value)


def _name(value: Any, source: Source, *, required: bool) -> str:
    """Text of the model or version; numbers as written; "" where a version is absent."""
    if source.constant is not None:
        return source.constant
    path = pointer(source.keys)
    if value is ABSENT or value is None:
        if required:
            raise RefusedError("missing_field", "no model", path)
        return ""
    if value is NON_FINITE:
        raise RefusedError("non_finite", "NaN or Infinity, expected a text or a number", path)
    if not isinstance(value, str):
        raise RefusedError("type", f"{type_name(value)}, expected a text or a number", path)
    length = len(value.encode())
    if length > NAME_BYTES_MAX or (required and not length):
        raise RefusedError("bad_name", f"{length} bytes, expected 1 to {NAME_BYTES_MAX}", path)
    return str(value)


def _event_time(value: Any, layout: Layout, record_time_ms: int) -> int:
    keys = layout.timestamp.keys
    path = pointer(keys)
    if not keys:
        return _in_range(record_time_ms, "the record's time", path)
    if value is ABSENT or value is None:
        raise RefusedError("missing_field", "no timestamp", path)
    if value is NON_FINITE:
        raise RefusedError("non_finite", "the timestamp is NaN or Infinity", path)
    if isinstance(value, RawNumber):
        return _number_time(value, layout.mapping.timestamp_unit, path)
    if isinstance(value, str):
        return _in_range(_rfc3339(value, path), "the timestamp", path)
    raise RefusedError("type", f"the timestamp is {type_name(value)}, expected a text or a number", path)


def _number_time(raw: RawNumber, unit: str, path: str) -> int:
    """Milliseconds of a number in the declared unit, rounded down from the exact decimal."""
    number = _FLOOR.create_decimal(raw)
    guess = next(name for name, below in _UNIT_BELOW if number < Decimal(below))
    plausible = EVENT_TIME_MS_MIN <= number.scaleb(UNIT_EXPONENT[guess], _FLOOR) < EVENT_TIME_MS_MAX
    if unit not in UNIT_EXPONENT:
        looks = f"looks like {_UNIT_NAME[guess]}" if plausible else "has no unit"
        raise RefusedError(
            "timestamp_unit",
            f"the timestamp {looks}; the mapping declares no unit (timestamp_unit: s, ms, us or ns)",
            path,
        )
    scaled = number.scaleb(UNIT_EXPONENT[unit], _FLOOR)
    if EVENT_TIME_MS_MIN <= scaled < EVENT_TIME_MS_MAX:
        return int(scaled.to_integral_value(ROUND_FLOOR))
    if plausible:
        declared = _UNIT_NAME[unit]
        raise RefusedError(
            "timestamp_unit", f"the timestamp looks like {_UNIT_NAME[guess]}; the mapping says {declared}", path
        )
    raise RefusedError("timestamp_range", f"the timestamp is not between 1980 and 2200 in {_UNIT_NAME[unit]}", path)


def _rfc3339(text: str, path: str) -> int:
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise RefusedError(
            "timestamp_format", "expected RFC 3339 with Z or an offset, as 2026-11-22T10:15:03.120Z", path
        )
    year, month, day, hour, minute, second = (int(group) for group in match.groups()[:6])
    fraction, sign, zone_hour, zone_minute = match.groups()[6:]
    zone = int(zone_hour or 0) * 60 + int(zone_minute or 0)
    try:
        days = date(year or 4, month, day).toordinal() - _EPOCH_DAY if year else -(1 << 20)
    except ValueError:
        raise RefusedError("timestamp_format", "no such day", path) from None
    if hour > 23 or minute > 59 or second > 60 or int(zone_hour or 0) > 23 or int(zone_minute or 0) > 59:
        raise RefusedError("timestamp_format", "no such time of day or offset", path)
    milli = 999 if second == 60 else int(((fraction or "") + "000")[:3])
    seconds = (hour * 60 + minute) * 60 + min(second, 59)
    return days * _DAY_MS + seconds * 1000 + milli - (-zone if sign == "-" else zone) * 60_000


def _in_range(time_ms: int, what: str, path: str) -> int:
    if not EVENT_TIME_MS_MIN <= time_ms < EVENT_TIME_MS_MAX:
        raise RefusedError("timestamp_range", f"{what} is not between 1980 and 2200", path)
    return time_ms
