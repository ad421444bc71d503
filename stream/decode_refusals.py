"""Why the scan has refused a record, from what the scan knows of it: the strict tier's verdict without its parsing.

A stream of nothing but bad events costs what its verdicts cost. Most of them need no second look at the whole text:
  - it is a whole event, and a field of the envelope, the features or a score is wrong: the scan has found where they stand
  - it breaks off, or is no JSON, at a place up to which the scan has read it well: only what follows is parsed, behind a
    beginning that leaves the parser in the same state
  - something follows the event; it is an array
Whatever is not certain is left to decode_strict.py, whose verdict this must be byte for byte: tests/laws/test_decode_tiers.py.
3 to 6 us an event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from stream.columns import I64, Records
from stream.decode_strict import check_output, envelope, no_features
from stream.kernels.rows import FEATURES_SEEN, ID_SEEN, PREDICTION_ID, TIMESTAMP, Found, Rows
from stream.kernels.scan import AFTER_ONE, BOOL, IN_ARRAY, INVALID, REFUSED, TEXT, TRAILING, UNREAD, WHOLE, WHOLE_ARRAY
from stream.mapping import Layout
from stream.strict_json import ABSENT, RawNumber, malformed_in, not_an_object, readable, trailing

#: What stands for everything before the place, by state: the innermost container, with an element before it or without. The
#: element is a text, which nothing that follows can lengthen.
_BEGINNING = {
    REFUSED: "{",
    REFUSED + AFTER_ONE: '{"":""',
    REFUSED + IN_ARRAY: "[",
    REFUSED + IN_ARRAY + AFTER_ONE: '[""',
}


def refuser(found: Found, rows: Rows, records: Records, layout: Layout, refused: I64) -> Callable[[int, bytes], None]:
    """What raises RefusedError for one of the `refused` records (its number among them, its value), where the scan's
    findings tell why; where it returns, the strict tier must read the event.
    """
    base = records.buffer.ctypes.data
    states, places = found.state[refused].tolist(), found.place[refused].tolist()
    tokens = found.token[refused, PREDICTION_ID : TIMESTAMP + 1].reshape(len(refused), -1).tolist()
    starts, times_ms = (records.value_start[refused] + base).tolist(), records.timestamp_ms[refused].tolist()
    outputs = [column for column, output in enumerate(layout.output) if output]
    tags = rows.tag[refused[:, None], np.array(outputs, np.int64)].tolist()

    def refuse(number: int, value: bytes) -> None:
        state = states[number]
        if state & ~(ID_SEEN | FEATURES_SEEN) != WHOLE:
            _refuse_text(value, state, places[number])
            return
        start, token = starts[number], tokens[number]  # of each field: kind, first byte, the one after its last
        fields: list[Any] = [
            _field(token[i], value[token[i + 1] - start : token[i + 2] - start]) if token[i] else ABSENT
            for i in range(0, len(token), 3)
        ]
        if fields[0] is ABSENT and state & ID_SEEN:
            fields[0] = None  # the one value that leaves no token
        _, model, _, _ = envelope(fields, layout, times_ms[number])
        if model >= 0 and layout.features_of[model] and not state & FEATURES_SEEN:
            raise no_features(layout)
        for column, tag in zip(outputs, tags[number], strict=True):
            if tag == INVALID or (tag == TEXT and layout.coerce[column]):
                return  # which of several reasons the scan has not kept
            value_like: str | bool = "" if tag == TEXT else tag == BOOL
            check_output(value_like, tag, layout.keys[column], number=layout.score[column])

    return refuse


def _field(kind: int, text: bytes) -> str:
    return text.decode() if kind == TEXT else RawNumber(text, "ascii")


def _refuse_text(value: bytes, state: int, place: int) -> None:
    """Raise RefusedError for a text that is no event, where that is certain."""
    text = readable(value)
    if state == UNREAD:
        return
    if state == TRAILING:
        raise trailing(len(value), place)
    if state == WHOLE_ARRAY:
        raise not_an_object([])
    beginning = _BEGINNING[state]
    rest = text[place:] if text.isascii() else value[place:].decode()
    malformed_in(beginning + rest, place - len(beginning), len(beginning), len(value))
