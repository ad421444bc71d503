# ruff: noqa: PLR1714, SIM109 - compiled: arguments are arrays, comparisons are machine code
"""JSON strings and white space in compiled code: where they end, and whether all of it is valid.

A string is read eight bytes at a time; every byte of it is checked: control characters, escapes (surrogates in pairs) and
UTF-8 (Unicode 15, table 3-7). Nothing is accepted that the strict tier would refuse. Places are addresses.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.memory import load8, load64, store8, trailing_zeros
from stream.kernels.jit import kernel

QUOTE, BACKSLASH = 34, 92
ONES = np.uint64(0x0101010101010101)
TOPS = np.uint64(0x8080808080808080)
QUOTES = np.uint64(0x2222222222222222)
BACKSLASHES = np.uint64(0x5C5C5C5C5C5C5C5C)
SPACES = np.uint64(0x2020202020202020)


@kernel
def skip_space(at: int, end: int) -> Any:
    """The next place that is no white space."""
    while at < end:
        byte = load8(at)
        if byte > 32 or (byte != 32 and byte != 10 and byte != 13 and byte != 9):
            return at
        at += 1
    return at


@kernel
def special_bytes(word: Any) -> Any:
    """Lowest set bit: the top bit of the first byte that is a quote, a backslash, below 32 or above 127; 0 = none.

    Borrows can set bits above a true one, never below it.
    """
    quotes, backslashes = word ^ QUOTES, word ^ BACKSLASHES
    found = (quotes - ONES) & ~quotes
    found |= (backslashes - ONES) & ~backslashes
    found |= (word - SPACES) & ~word
    return (found | word) & TOPS


@kernel
def string_end(at: int, end: int) -> Any:
    """(place of the closing quote, has escapes) of a string whose opening quote is before `at`; -1 = not valid."""
    escaped = False
    while True:
        if at + 8 <= end:
            found = special_bytes(load64(at))
            if found == 0:
                at += 8
                continue
            at += trailing_zeros(found) >> 3
        elif at >= end:
            return -1, escaped
        byte = load8(at)
        if byte == QUOTE:
            return at, escaped
        if byte == BACKSLASH:
            escaped = True
            at = escape_end(at + 1, end)
        elif byte >= 128:
            at = utf8_end(at, end)
        elif byte < 32:
            at = -1
        else:
            at += 1
        if at < 0:
            return -1, escaped


@kernel
def hex_value(at: int) -> Any:
    """Four hexadecimal digits, or -1."""
    value = 0
    for place in range(at, at + 4):
        digit: Any = np.int64(load8(place))
        if 48 <= digit <= 57:
            digit -= 48
        else:
            digit = (digit | 32) - 87
            if digit < 10 or digit > 15:
                return -1
        value = value * 16 + digit
    return value


@kernel
def escape_end(at: int, end: int) -> Any:
    """The place after an escape whose backslash is before `at`; -1 = not valid."""
    if at >= end:
        return -1
    byte = load8(at)
    if byte != 117:
        simple = byte == QUOTE or byte == BACKSLASH or byte == 47 or byte == 98
        simple = simple or byte == 102 or byte == 110 or byte == 114 or byte == 116
        return at + 1 if simple else -1
    if at + 5 > end:
        return -1
    unit = hex_value(at + 1)
    at += 5
    if unit < 0 or 0xDC00 <= unit < 0xE000:
        return -1
    if unit < 0xD800 or unit >= 0xE000:
        return at
    if at + 6 > end or load8(at) != BACKSLASH or load8(at + 1) != 117:
        return -1
    unit = hex_value(at + 2)
    return at + 6 if 0xDC00 <= unit < 0xE000 else -1


@kernel
def utf8_end(at: int, end: int) -> Any:
    """The place after a character of two to four bytes; -1 = not UTF-8."""
    first = load8(at)
    low, high = 0x80, 0xBF
    if 0xC2 <= first <= 0xDF:
        more = 1
    elif 0xE0 <= first <= 0xEF:
        more = 2
        if first == 0xE0:
            low = 0xA0
        elif first == 0xED:
            high = 0x9F
    elif 0xF0 <= first <= 0xF4:
        more = 3
        if first == 0xF0:
            low = 0x90
        elif first == 0xF4:
            high = 0x8F
    else:
        return -1
    if at + more >= end:
        return -1
    second = load8(at + 1)
    if second < low or second > high:
        return -1
    for place in range(at + 2, at + more + 1):
        if (load8(place) & 0xC0) != 0x80:
            return -1
    return at + more + 1


@kernel
def put_utf8(out: int, code: int) -> Any:
    """Write one character at an address; the address after it."""
    if code < 0x80:
        store8(out, code)
        return out + 1
    if code < 0x800:
        store8(out, 0xC0 | (code >> 6))
        store8(out + 1, 0x80 | (code & 0x3F))
        return out + 2
    if code < 0x10000:
        store8(out, 0xE0 | (code >> 12))
        store8(out + 1, 0x80 | ((code >> 6) & 0x3F))
        store8(out + 2, 0x80 | (code & 0x3F))
        return out + 3
    store8(out, 0xF0 | (code >> 18))
    store8(out + 1, 0x80 | ((code >> 12) & 0x3F))
    store8(out + 2, 0x80 | ((code >> 6) & 0x3F))
    store8(out + 3, 0x80 | (code & 0x3F))
    return out + 4


@kernel
def short_escape(byte: Any) -> Any:
    """The character of an escape of one letter; quote, backslash and slash are themselves."""
    if byte == 98:
        return 8
    if byte == 102:
        return 12
    if byte == 110:
        return 10
    if byte == 114:
        return 13
    if byte == 116:
        return 9
    return byte


@kernel
def unescape(at: int, stop: int, out: int, length_max: int) -> Any:
    """Length of the text at:stop, which string_end has found valid, written without escapes to `out`; -1 = above length_max.

    `out` has room for length_max bytes and four more.
    """
    first = out
    while at < stop:
        if out - first > length_max:
            return -1
        byte = np.int64(load8(at))
        if byte != BACKSLASH:
            store8(out, byte)
            out += 1
            at += 1
            continue
        kind = np.int64(load8(at + 1))
        if kind != 117:
            store8(out, short_escape(kind))
            out += 1
            at += 2
            continue
        code = hex_value(at + 2)
        at += 6
        if 0xD800 <= code < 0xE000:  # the upper half of a pair: the lower one follows
            code = 0x10000 + ((code - 0xD800) << 10) + hex_value(at + 2) - 0xDC00
            at += 6
        out = put_utf8(out, code)
    return out - first if out - first <= length_max else -1
