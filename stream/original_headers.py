r"""The Kafka headers of a record that was refused, read from where the log's bytes have them: right after its value.

Good records never come here: `Records` keeps no place for headers, it only says whether they follow the values.
Carried are at most original_headers_max of them and original_headers_bytes_max of names and values, from the first on; what
does not fit, or cannot be read, is counted. A name that is not UTF-8 has its bytes written as \xNN: no client could
send it again as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from stream.columns import Records
from stream.limits import limit

ORIGINAL_HEADERS_MAX = limit(
    "original_headers_max", 100, "of a refused record; tracing and routing take a dozen, more is an attack or a mistake"
)
ORIGINAL_HEADERS_BYTES_MAX = limit(
    "original_headers_bytes_max", 16 << 10, "names and values; a dead letter must stay far below any topic's limit"
)
ATTEMPT_HEADER = "driftline.attempt"
"""On a record that `dlq retry` published: which retry it is, counted from 1."""
LETTER_HEADER = "driftline.dead_letter"
"""On the same record: the dead letter that it comes from, TOPIC/PARTITION/OFFSET/ROW."""
ORIGIN_HEADER = "driftline.origin"
"""On a copy of a record in a re-keyed topic, first of all: where the original stands (copied.ORIGIN)."""
REFUSED_HEADER = "driftline.refused"
"""On a copy of what is no event any more: why, as code and detail with a line feed between them."""
_OURS = frozenset({LETTER_HEADER, ORIGIN_HEADER, REFUSED_HEADER})
DROPPED_BYTES = 2  # the last ones of the origin say how many headers were left out already
_ATTEMPT = re.compile(rb"[1-9][0-9]{0,2}")

Header = tuple[str, bytes | None]


@dataclass(frozen=True, slots=True)
class OriginalHeaders:
    """kept: in their order, driftline's own left out; dropped: how many more there were; attempt: 0 = never retried."""

    kept: tuple[Header, ...] = ()
    dropped: int = 0
    attempt: int = 0


NONE = OriginalHeaders()


def original_headers(records: Records, place: int) -> OriginalHeaders:
    """Headers of the record at `place`. Never raises: what is malformed counts as dropped."""
    if not records.framed:
        return NONE
    position = int(records.value_start[place]) + max(int(records.value_length[place]), 0)
    return read_headers(records.buffer.data, position)


def read_headers(buffer: memoryview, position: int) -> OriginalHeaders:
    """Headers from their count on. Cost: 1 us each, at most original_headers_max of them."""
    kept: list[Header] = []
    size, attempt, read, count, before = 0, 0, 0, 0, 0
    try:
        if buffer[position] == 0:  # none: nearly all of them
            return NONE
        count, position = _varint(buffer, position)
        while read < count and len(kept) < ORIGINAL_HEADERS_MAX:
            name, position = _bytes(buffer, position)
            value, position = _bytes(buffer, position)
            text = (name or b"").decode("utf-8", "backslashreplace")
            if text == ATTEMPT_HEADER:
                attempt = int(value) if value is not None and _ATTEMPT.fullmatch(value) else 0
            elif text == ORIGIN_HEADER and read == 0:
                before = int.from_bytes((value or b"")[-DROPPED_BYTES:], "big")
            elif text not in _OURS:
                size += len(text.encode()) + len(value or b"")
                if size > ORIGINAL_HEADERS_BYTES_MAX:
                    break
                kept.append((text, value))
            read += 1
    except IndexError:
        pass
    return OriginalHeaders(tuple(kept), max(count - read, 0) + before, attempt)


def header_value(buffer: memoryview, position: int, wanted: str) -> bytes | None:
    """Value of the first header with this name, of the headers from their count on; None = there is none."""
    try:
        count, position = _varint(buffer, position)
        for _ in range(count):
            name, position = _bytes(buffer, position)
            value, position = _bytes(buffer, position)
            if name == wanted.encode():
                return value
    except IndexError:
        pass
    return None


def frame_headers(headers: Iterable[Header]) -> bytes:
    """The headers as a record carries them: count, then names and values with their lengths."""
    listed = list(headers)
    out = bytearray(_encoded(len(listed)))
    for name, value in listed:
        data = name.encode("utf-8", "replace")
        out += _encoded(len(data)) + data
        out += _encoded(-1) if value is None else _encoded(len(value)) + value
    return bytes(out)


def _bytes(buffer: memoryview, position: int) -> tuple[bytes | None, int]:
    length, position = _varint(buffer, position)
    if length < 0:
        return None, position
    if position + length > len(buffer):
        raise IndexError
    return bytes(buffer[position : position + length]), position + length


def _varint(buffer: memoryview, position: int) -> tuple[int, int]:
    """A zigzag varint and the place after it. Raises IndexError at the buffer's end and for more than ten bytes."""
    value = 0
    for shift in range(0, 70, 7):
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), position
    raise IndexError


def _encoded(number: int) -> bytes:
    value, out = (number << 1) ^ (number >> 63), bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
