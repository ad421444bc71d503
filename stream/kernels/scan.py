# ruff: noqa: PLR0917, PLR1714 - compiled: arguments are arrays, comparisons are machine code
"""One pass over an event's JSON, straight into its row of cells: the compiled fast tier's parser.

The wanted paths form a tree; a node is one key at its place. The whole grammar is checked, wanted or not, and anything that
the scan is not sure of makes it refuse the record, never guess:
  - escapes in an id, a name or a time; a wanted text, or a key beside a wanted one, above 240 bytes; more than 19 digits
  - a wanted key seen twice (last wins: the strict tier knows), something else than an object where wanted keys should be
  - depth, number of keys, everything that is not valid
Producers write their keys in one order, so each object remembers which wanted key came next the last time and compares that
first; only on a miss is the key hashed. The memory is a guess that is always verified: it changes no result.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stream.columns import I64, U8, U64, Tag
from stream.kernels.jit import kernel
from stream.kernels.memory import load8, load64
from stream.kernels.number import number_end, read_decimal, to_double
from stream.kernels.text import QUOTE, skip_space, string_end, unescape
from stream.kernels.xxh3 import LENGTH_MAX, hash64
from stream.limits import DEPTH_MAX, KEYS_MAX

# columns of the node table. PLAIN: the key may stand in JSON without escapes. FIRST to SEEN are the scan's memory
COLUMN, ROLE, INNER, PARENT, KEY_START, KEY_LENGTH, FIRST, NEXT, SUCCESSOR, LAST, SEEN, PLAIN, NODE_WIDTH = range(13)
# columns of a token: an envelope field as it was found
KIND, START, STOP = range(3)
TEXT, NUMBER = int(Tag.TEXT), int(Tag.NUMBER)
BOOL, INVALID = int(Tag.BOOL), int(Tag.INVALID)
ARRAY = -2  # on the stack: an array; -1 is an object without wanted keys
NONE = -1


@kernel
def same_key(buffer: U8, at: int, end: int, keys: U8, start: int, length: int) -> Any:
    """buffer[at:] begins with the key and its closing quote; `keys` is padded with eight bytes."""
    if at + length > end:
        return False
    place = 0
    while length - place >= 8:
        if load64(buffer, at + place) != load64(keys, start + place):
            return False
        place += 8
    if at + place + 8 <= len(buffer):
        mask = (np.uint64(1) << np.uint64(8 * (length - place))) - np.uint64(1)
        return ((load64(buffer, at + place) ^ load64(keys, start + place)) & mask) == np.uint64(0)
    while place < length:
        if load8(buffer, at + place) != load8(keys, start + place):
            return False
        place += 1
    return True


@kernel
def lookup_key(buffer: U8, at: int, stop: int, here: int, nodes: I64, keys: U8, slots: I64) -> Any:
    """The wanted node of the key buffer[at:stop] under `here`, or NONE."""
    mask = len(slots) - 1
    slot = (np.int64(hash64(buffer, at, stop - at)) + here) & mask
    while slots[slot] >= 0:
        node = slots[slot]
        length = nodes[node, KEY_LENGTH]
        if (
            nodes[node, PARENT] == here
            and length == stop + 1 - at
            and same_key(buffer, at, stop + 1, keys, nodes[node, KEY_START], length)
        ):
            return node
        slot = (slot + 1) & mask
    return NONE


@kernel
def read_key(
    buffer: U8, at: int, end: int, here: int, generation: int, nodes: I64, keys: U8, slots: I64, scratch: U8, text: U8
) -> Any:
    """(place after the closing quote, wanted node or NONE) of a key whose opening quote is before `at`; -1 = refused.

    `text` is `scratch`, read only: one type for what is hashed and compared.
    """
    if here < 0:
        stop, _ = string_end(buffer, at, end)
        return (stop + 1, NONE) if stop >= 0 else (-1, NONE)
    node = nodes[here, NEXT]
    if node >= 0 and same_key(buffer, at, end, keys, nodes[node, KEY_START], nodes[node, KEY_LENGTH]):
        at += nodes[node, KEY_LENGTH]
    else:
        stop, escaped = string_end(buffer, at, end)
        if stop < 0:
            return -1, NONE
        if escaped:
            length = unescape(buffer, at, stop, scratch, LENGTH_MAX)
            if length < 0:
                return -1, NONE
            scratch[length] = QUOTE
            node = lookup_key(text, 0, length, here, nodes, keys, slots)
        else:
            if stop - at > LENGTH_MAX:
                return -1, NONE
            node = lookup_key(buffer, at, stop, here, nodes, keys, slots)
        at = stop + 1
        if node < 0:
            return at, NONE
        if nodes[node, PLAIN]:
            last = nodes[here, LAST]
            if last >= 0:
                nodes[last, SUCCESSOR] = node
            else:
                nodes[here, FIRST] = node
    if nodes[node, SEEN] == generation:
        return -1, NONE
    nodes[node, SEEN] = generation
    nodes[here, LAST] = node
    nodes[here, NEXT] = nodes[node, SUCCESSOR]
    return at, node


@kernel
def read_word(buffer: U8, at: int, end: int) -> Any:
    """(next, tag, cell) of true, false, null (MISSING = 0), NaN, Infinity; next = -1: none of them."""
    if at + 4 <= end:
        byte = load8(buffer, at)
        first, second, third = load8(buffer, at + 1), load8(buffer, at + 2), load8(buffer, at + 3)
        if byte == 116 and first == 114 and second == 117 and third == 101:
            return at + 4, BOOL, 1
        if byte == 110 and first == 117 and second == 108 and third == 108:
            return at + 4, 0, 0
        if (
            byte == 102
            and first == 97
            and second == 108
            and third == 115
            and at + 5 <= end
            and load8(buffer, at + 4) == 101
        ):
            return at + 5, BOOL, 0
    if at + 3 <= end and load8(buffer, at) == 78 and load8(buffer, at + 1) == 97 and load8(buffer, at + 2) == 78:
        return at + 3, INVALID, 0
    if at + 8 <= end and load64(buffer, at) == np.uint64(0x7974696E69666E49):  # Infinity
        return at + 8, INVALID, 0
    return -1, 0, 0


@kernel
def put_token(token: I64, role: int, kind: int, start: int, stop: int) -> Any:
    """Remember an envelope field; `role` is a set of bits, one per row of `token`."""
    index = 0
    while role > 0:
        if role & 1:
            token[index, KIND], token[index, START], token[index, STOP] = kind, start, stop
        role >>= 1
        index += 1


@kernel
def read_text(
    buffer: U8, at: int, end: int, column: int, role: int, token: I64, cell: U64, tag: U8, scratch: U8, text: U8
) -> Any:
    """Read a text whose opening quote is before `at`; the place after it, or -1 = refused."""
    stop, escaped = string_end(buffer, at, end)
    if stop < 0 or (escaped and role > 0) or (not escaped and stop - at > LENGTH_MAX):
        return -1
    if column >= 0:
        if escaped:
            length = unescape(buffer, at, stop, scratch, LENGTH_MAX)
            if length < 0:
                return -1
            cell[column] = hash64(text, 0, length)
        else:
            cell[column] = hash64(buffer, at, stop - at)
        tag[column] = TEXT
    put_token(token, role, TEXT, at, stop)
    return stop + 1


@kernel
def skip_scalar(buffer: U8, at: int, end: int) -> Any:
    """The place after a text, number or word that nobody wants, or -1 = not valid."""
    byte = load8(buffer, at)
    if byte == QUOTE:
        stop, _ = string_end(buffer, at + 1, end)
        return stop + 1 if stop >= 0 else -1
    if byte == 45 and at + 1 < end and load8(buffer, at + 1) == 73:
        at += 1
    elif byte == 45 or 48 <= byte <= 57:
        return number_end(buffer, at, end)
    at, _, _ = read_word(buffer, at, end)
    return at


@kernel
def read_scalar(
    buffer: U8, at: int, end: int, node: int, nodes: I64, token: I64, cell: U64, tag: U8, scratch: U8, text: U8
) -> Any:
    """Read a text, number or word at `at` into node's column and role; the place after it, or -1 = refused."""
    if node < 0:
        return skip_scalar(buffer, at, end)
    column, role = nodes[node, COLUMN], nodes[node, ROLE]
    if nodes[node, INNER]:
        return -1
    byte = load8(buffer, at)
    if byte == QUOTE:
        return read_text(buffer, at + 1, end, column, role, token, cell, tag, scratch, text)
    if (48 <= byte <= 57) or (byte == 45 and at + 1 < end and load8(buffer, at + 1) != 73):
        if column < 0:
            stop = number_end(buffer, at, end)
        else:
            stop, mantissa, exponent, negative = read_decimal(buffer, at, end)
            known, bits = to_double(mantissa, exponent, negative)
            if stop < 0 or not known:
                return -1
            cell[column] = bits
            tag[column] = NUMBER
        if stop >= 0:
            put_token(token, role, NUMBER, at, stop)
        return stop
    at, kind, value = read_word(buffer, at + 1 if byte == 45 else at, end)
    if role > 0 and kind > 0:
        return -1
    if column >= 0:
        cell[column] = value
        tag[column] = kind
    return at


@kernel
def open_container(node: int, is_object: bool, nodes: I64, tag: U8) -> Any:
    """What goes on the stack for a container at `node`; ARRAY - 1 = refused."""
    if node >= 0:
        if nodes[node, COLUMN] >= 0:
            tag[nodes[node, COLUMN]] = INVALID
        if nodes[node, ROLE] > 0 or (nodes[node, INNER] and not is_object):
            return ARRAY - 1
        if nodes[node, INNER]:
            nodes[node, LAST] = NONE
            nodes[node, NEXT] = nodes[node, FIRST]
            return node
    return NONE if is_object else ARRAY


@kernel
def scan_event(
    buffer: U8,
    at: int,
    end: int,
    generation: int,
    nodes: I64,
    keys: U8,
    slots: I64,
    stack: I64,
    token: I64,
    cell: U64,
    tag: U8,
    scratch: U8,
    text: U8,
) -> Any:
    """Scan buffer[at:end] as one event. True: all of it is valid JSON, and every wanted value is in its place."""
    at = skip_space(buffer, at, end)
    if at >= end or load8(buffer, at) != 123:
        return False
    depth, keys_seen = 0, 0
    stack[0] = open_container(0, True, nodes, tag)
    fresh = True  # the container has just been opened: it may close at once
    at += 1
    while True:
        at = skip_space(buffer, at, end)
        if at >= end:
            return False
        here = stack[depth]
        byte = load8(buffer, at)
        if byte == (93 if here == ARRAY else 125):
            if depth == 0:
                return skip_space(buffer, at + 1, end) == end
            depth -= 1
            fresh = False
            at += 1
            continue
        if not fresh:
            if byte != 44:
                return False
            at = skip_space(buffer, at + 1, end)
        fresh = False
        node = NONE
        if here != ARRAY:
            keys_seen += 1
            if at >= end or load8(buffer, at) != QUOTE or keys_seen > KEYS_MAX:
                return False
            at, node = read_key(buffer, at + 1, end, here, generation, nodes, keys, slots, scratch, text)
            if at < 0:
                return False
            at = skip_space(buffer, at, end)
            if at >= end or load8(buffer, at) != 58:
                return False
            at = skip_space(buffer, at + 1, end)
        if at >= end:
            return False
        byte = load8(buffer, at)
        if byte == 123 or byte == 91:
            depth += 1
            opened = open_container(node, byte == 123, nodes, tag)
            if depth >= DEPTH_MAX or opened < ARRAY:
                return False
            stack[depth] = opened
            fresh = True
            at += 1
            continue
        at = read_scalar(buffer, at, end, node, nodes, token, cell, tag, scratch, text)
        if at < 0:
            return False
