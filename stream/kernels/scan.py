# ruff: noqa: PLR0917, PLR1714 - compiled: arguments are arrays, comparisons are machine code
"""One pass over an event's JSON, straight into its row of cells: the compiled fast tier's parser.

The wanted paths form a tree; a node is one key at its place. The whole grammar is checked, wanted or not, and anything that
the scan is not sure of makes it refuse the record, never guess:
  - escapes in an id, a name or a time; a wanted text, or a key beside a wanted one, above 240 bytes; more than 19 digits
  - a wanted key seen twice (last wins: the strict tier knows), something else than an object where wanted keys should be
  - depth, number of keys, everything that is not valid
Producers write their keys in one order, so each object remembers which wanted key came next the last time and compares that
first; only on a miss is the key hashed. The memory is a guess that is always verified: it changes no result.
Places and tables are addresses (memory.py says why).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.memory import load8, load64, load_signed, store8, store64, store_signed
from detectors.xxh3 import LENGTH_MAX, hash64
from stream.columns import Tag
from stream.kernels.jit import kernel
from stream.kernels.number import number_end, read_decimal, to_double
from stream.kernels.text import QUOTE, skip_space, string_end, unescape
from stream.limits import DEPTH_MAX, KEYS_MAX

# columns of the node table. PLAIN: the key may stand in JSON without escapes. FIRST to SEEN are the scan's memory
COLUMN, ROLE, INNER, PARENT, KEY_START, KEY_LENGTH, FIRST, NEXT, SUCCESSOR, LAST, SEEN, PLAIN, NODE_WIDTH = range(13)
# columns of a token: an envelope field as it was found
KIND, START, STOP = range(3)
TEXT, NUMBER = int(Tag.TEXT), int(Tag.NUMBER)
BOOL, INVALID = int(Tag.BOOL), int(Tag.INVALID)
ARRAY = -2  # on the stack: an array; -1 is an object without wanted keys
NONE = -1
# what became of a text: not begun; one whole event; one whole array; JSON with something behind it; refused, in an object or
# an array (+ IN_ARRAY), before its first element or after a whole one (+ AFTER_ONE)
UNREAD, WHOLE, WHOLE_ARRAY, TRAILING, REFUSED = range(5)
AFTER_ONE, IN_ARRAY = 1, 2


@kernel
def field(nodes: int, node: int, which: int) -> Any:
    return load_signed(nodes + 8 * (node * NODE_WIDTH + which))


@kernel
def set_field(nodes: int, node: int, which: int, value: int) -> Any:
    store_signed(nodes + 8 * (node * NODE_WIDTH + which), value)


@kernel
def same_key(at: int, end: int, key: int, length: int) -> Any:
    """The bytes at `at` are the key and its closing quote; the key is padded with eight bytes, the text ends at `end`."""
    if at + length > end:
        return False
    place = 0
    while length - place >= 8:
        if load64(at + place) != load64(key + place):
            return False
        place += 8
    if at + place + 8 <= end:
        mask = (np.uint64(1) << np.uint64(8 * (length - place))) - np.uint64(1)
        return ((load64(at + place) ^ load64(key + place)) & mask) == np.uint64(0)
    while place < length:
        if load8(at + place) != load8(key + place):
            return False
        place += 1
    return True


@kernel
def lookup_key(at: int, stop: int, here: int, nodes: int, keys: int, slots: int, slot_mask: int) -> Any:
    """The wanted node under `here` of the key at:stop, whose closing quote is at `stop`; NONE = not wanted."""
    slot = (np.int64(hash64(at, stop - at)) + here) & slot_mask
    while True:
        node = load_signed(slots + 8 * slot)
        if node < 0:
            return NONE
        length = field(nodes, node, KEY_LENGTH)
        alike = field(nodes, node, PARENT) == here and length == stop + 1 - at
        if alike and same_key(at, stop + 1, keys + field(nodes, node, KEY_START), length):
            return node
        slot = (slot + 1) & slot_mask


@kernel
def find_key(at: int, end: int, here: int, nodes: int, keys: int, slots: int, slot_mask: int, scratch: int) -> Any:
    """(place after the closing quote, node or NONE) by hash; the node is remembered as the one that follows the last."""
    stop, escaped = string_end(at, end)
    if stop < 0 or (not escaped and stop - at > LENGTH_MAX):
        return -1, NONE
    if escaped:
        length = unescape(at, stop, scratch, LENGTH_MAX)
        if length < 0:
            return -1, NONE
        store8(scratch + length, QUOTE)
        node = lookup_key(scratch, scratch + length, here, nodes, keys, slots, slot_mask)
    else:
        node = lookup_key(at, stop, here, nodes, keys, slots, slot_mask)
    if node >= 0 and field(nodes, node, PLAIN):
        last = field(nodes, here, LAST)
        if last >= 0:
            set_field(nodes, last, SUCCESSOR, node)
        else:
            set_field(nodes, here, FIRST, node)
    return stop + 1, node


@kernel
def read_key(
    at: int, end: int, here: int, generation: int, nodes: int, keys: int, slots: int, slot_mask: int, scratch: int
) -> Any:
    """(place after the closing quote, wanted node or NONE) of a key whose opening quote is before `at`; -1 = refused."""
    if here < 0:
        stop, _ = string_end(at, end)
        return (stop + 1, NONE) if stop >= 0 else (-1, NONE)
    node = field(nodes, here, NEXT)
    if node >= 0 and same_key(at, end, keys + field(nodes, node, KEY_START), field(nodes, node, KEY_LENGTH)):
        at += field(nodes, node, KEY_LENGTH)
    else:
        at, node = find_key(at, end, here, nodes, keys, slots, slot_mask, scratch)
        if node < 0:
            return at, NONE
    if field(nodes, node, SEEN) == generation:
        return -1, NONE
    set_field(nodes, node, SEEN, generation)
    set_field(nodes, here, LAST, node)
    set_field(nodes, here, NEXT, field(nodes, node, SUCCESSOR))
    return at, node


@kernel
def read_word(at: int, end: int) -> Any:
    """(next, tag, cell) of true, false, null (MISSING = 0), NaN, Infinity; next = -1: none of them."""
    if at + 4 <= end:
        byte = load8(at)
        first, second, third = load8(at + 1), load8(at + 2), load8(at + 3)
        if byte == 116 and first == 114 and second == 117 and third == 101:
            return at + 4, BOOL, 1
        if byte == 110 and first == 117 and second == 108 and third == 108:
            return at + 4, 0, 0
        if byte == 102 and first == 97 and second == 108 and third == 115 and at + 5 <= end and load8(at + 4) == 101:
            return at + 5, BOOL, 0
    if at + 3 <= end and load8(at) == 78 and load8(at + 1) == 97 and load8(at + 2) == 78:
        return at + 3, INVALID, 0
    if at + 8 <= end and load64(at) == np.uint64(0x7974696E69666E49):  # Infinity
        return at + 8, INVALID, 0
    return -1, 0, 0


@kernel
def put_token(token: int, role: int, kind: int, start: int, stop: int) -> Any:
    """Remember an envelope field; `role` is a set of bits, one per row of the tokens (I64[fields, 3])."""
    while role > 0:
        if role & 1:
            store_signed(token + 8 * KIND, kind)
            store_signed(token + 8 * START, start)
            store_signed(token + 8 * STOP, stop)
        role >>= 1
        token += 24


@kernel
def put_cell(column: int, value: Any, kind: int, cell: int, tag: int) -> Any:
    if column >= 0:
        store64(cell + 8 * column, value)
        store8(tag + column, kind)


@kernel
def read_text(at: int, end: int, column: int, role: int, token: int, cell: int, tag: int, scratch: int) -> Any:
    """Read a text whose opening quote is before `at`; the place after it, or -1 = refused."""
    stop, escaped = string_end(at, end)
    if stop < 0 or (escaped and role > 0) or (not escaped and stop - at > LENGTH_MAX):
        return -1
    if column >= 0:
        start, length = at, stop - at
        if escaped:
            start, length = scratch, unescape(at, stop, scratch, LENGTH_MAX)
            if length < 0:
                return -1
        put_cell(column, hash64(start, length), TEXT, cell, tag)
    put_token(token, role, TEXT, at, stop)
    return stop + 1


@kernel
def skip_scalar(at: int, end: int) -> Any:
    """The place after a text, number or word that nobody wants, or -1 = not valid."""
    byte = load8(at)
    if byte == QUOTE:
        stop, _ = string_end(at + 1, end)
        return stop + 1 if stop >= 0 else -1
    if byte == 45 and at + 1 < end and load8(at + 1) == 73:
        at += 1
    elif byte == 45 or 48 <= byte <= 57:
        return number_end(at, end)
    at, _, _ = read_word(at, end)
    return at


@kernel
def read_scalar(at: int, end: int, node: int, nodes: int, token: int, cell: int, tag: int, scratch: int) -> Any:
    """Read a text, number or word at `at` into node's column and role; the place after it, or -1 = refused."""
    if node < 0:
        return skip_scalar(at, end)
    column, role = field(nodes, node, COLUMN), field(nodes, node, ROLE)
    if field(nodes, node, INNER):
        return -1
    byte = load8(at)
    if byte == QUOTE:
        return read_text(at + 1, end, column, role, token, cell, tag, scratch)
    if (48 <= byte <= 57) or (byte == 45 and at + 1 < end and load8(at + 1) != 73):
        if column < 0:
            stop = number_end(at, end)
        else:
            stop, mantissa, exponent, negative = read_decimal(at, end)
            known, bits = to_double(mantissa, exponent, negative)
            if stop < 0 or not known:
                return -1
            put_cell(column, bits, NUMBER, cell, tag)
        if stop >= 0:
            put_token(token, role, NUMBER, at, stop)
        return stop
    at, kind, value = read_word(at + 1 if byte == 45 else at, end)
    if role > 0 and kind > 0:
        return -1
    put_cell(column, np.uint64(value), kind, cell, tag)
    return at


@kernel
def open_container(node: int, is_object: bool, nodes: int, tag: int) -> Any:
    """What goes on the stack for a container at `node`; ARRAY - 1 = refused."""
    if node >= 0:
        if field(nodes, node, COLUMN) >= 0:
            store8(tag + field(nodes, node, COLUMN), INVALID)
        if field(nodes, node, ROLE) > 0 or (field(nodes, node, INNER) and not is_object):
            return ARRAY - 1
        if field(nodes, node, INNER):
            set_field(nodes, node, LAST, NONE)
            set_field(nodes, node, NEXT, field(nodes, node, FIRST))
            return node
    return NONE if is_object else ARRAY


@kernel
def scan_event(
    at: int,
    end: int,
    generation: int,
    nodes: int,
    keys: int,
    slots: int,
    slot_mask: int,
    stack: int,
    token: int,
    cell: int,
    tag: int,
    scratch: int,
) -> Any:
    """Scan the text at:end as one event: (what became of it, place). WHOLE: all of it is valid JSON, and every wanted value
    is in its place. TRAILING: the place of what follows. REFUSED and above: everything before the place is valid.

    Addresses: the tables of rows.ScanTables; stack I64[DEPTH_MAX]; the tokens; the row's cells and tags; scratch bytes.
    """
    at = skip_space(at, end)
    if at >= end or (load8(at) != 123 and load8(at) != 91):
        return UNREAD, at
    depth, keys_seen, whole = 0, 0, WHOLE_ARRAY if load8(at) == 91 else WHOLE
    store_signed(stack, ARRAY if whole == WHOLE_ARRAY else open_container(0, True, nodes, tag))
    fresh = True  # the container has just been opened: it may close at once
    at += 1
    while True:
        place = at
        here = load_signed(stack + 8 * depth)
        refused = REFUSED + (0 if fresh else AFTER_ONE) + (IN_ARRAY if here == ARRAY else 0)
        at = skip_space(at, end)
        if at >= end:
            return refused, place
        byte = load8(at)
        if byte == (93 if here == ARRAY else 125):
            at += 1
            if depth == 0:
                at = skip_space(at, end)
                return whole if at == end else TRAILING, at
            depth -= 1
            fresh = False
            continue
        if not fresh:
            if byte != 44:
                return refused, place
            at = skip_space(at + 1, end)
        fresh = False
        node = NONE
        if here != ARRAY:
            keys_seen += 1
            if at >= end or load8(at) != QUOTE or keys_seen > KEYS_MAX:
                return refused, place
            at, node = read_key(at + 1, end, here, generation, nodes, keys, slots, slot_mask, scratch)
            if at < 0:
                return refused, place
            at = skip_space(at, end)
            if at >= end or load8(at) != 58:
                return refused, place
            at = skip_space(at + 1, end)
        if at >= end:
            return refused, place
        byte = load8(at)
        if byte == 123 or byte == 91:
            depth += 1
            opened = open_container(node, byte == 123, nodes, tag)
            if depth >= DEPTH_MAX or opened < ARRAY:
                return refused, place
            store_signed(stack + 8 * depth, opened)
            fresh = True
            at += 1
            continue
        at = read_scalar(at, end, node, nodes, token, cell, tag, scratch)
        if at < 0:
            return refused, place
