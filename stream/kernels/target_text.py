"""The targets of a windows record as JSON text, compiled: keys, numbers and counts put together in one pass."""
# ruff: noqa: PLR0917 - compiled kernels take their arrays one by one

from __future__ import annotations

import numpy as np

from detectors.compiled import compiled
from detectors.memory import address_of, load64, store64, trailing_zeros
from stream.columns import F64, I64, U8, U64

NUMBER, COUNTS, TEXT = 0, 1, 2  # kinds of slots
COMMA, OPEN, CLOSE, OPEN_LIST, CLOSE_LIST, ZERO = (np.uint8(ord(sign)) for sign in ",{}[]0")
TEN = np.uint64(10)
WORD = 8  # what is copied at a time: so many bytes behind every text may be read, and behind `out` written
COMMAS, ONES, HIGHS = (np.uint64(int.from_bytes(bytes([byte]) * WORD, "little")) for byte in (ord(","), 0x01, 0x80))
SMALL = 1_000
SMALL_TEXT: U64 = np.array([int.from_bytes(f"{n},".encode(), "little") for n in range(SMALL)], np.uint64)
SMALL_LENGTH: I64 = np.array([len(f"{n},") for n in range(SMALL)], np.int64)


@compiled
def write(
    order: I64, name: U8, name_start: I64, kind: I64, key: U8, key_start: I64, after: I64, numbers: U8, text: U8, text_start: I64,
    text_of: I64, counts: I64, start: I64, out: U8, out_start: I64,
) -> None:  # fmt: skip
    """Every target in `order` I64[t] as name, slots and a comma; that of the i-th is at out[out_start[i]:out_start[i + 1] - 1].

    A slot writes its key and then, by its kind I64[s]: the next of `numbers` (JSON texts, target by target, a comma behind each)
    and so many more closing braces as `after` I64[s] says; the target's counts, without the last two; or nothing but one of the
    texts, a whole member with its comma: text_of I64[t, text slots]. name, key, text: flat. Behind each of them and of `numbers`
    WORD bytes can be read, and `out` has room for all and so many more.
    """
    at, read = 0, 0
    for i in range(len(order)):
        t = order[i]
        out_start[i] = at
        at = _copy(name, name_start[t], name_start[t + 1], out, at)
        out[at] = OPEN
        at += 1
        texts = 0
        for s in range(len(kind)):
            if kind[s] == TEXT:
                which = text_of[t, texts]
                texts += 1
                at = _copy(text, text_start[which], text_start[which + 1], out, at)
                continue
            at = _copy(key, key_start[s], key_start[s + 1], out, at)
            if kind[s] == NUMBER:
                length = _until_comma(address_of(numbers) + read, address_of(out) + at)
                at += length
                read += length + 1
                for _ in range(after[s]):
                    out[at] = CLOSE
                    at += 1
            else:
                at = _list(counts[start[t] : start[t + 1] - 2], out, at)
            out[at] = COMMA
            at += 1
        out[at - 1] = CLOSE  # in the place of the last comma
        out[at] = COMMA
        at += 1
    out_start[len(order)] = at


@compiled
def powers(base: float, exponents: F64) -> F64:
    """F64[t], `base` to each of the exponents F64[t], as the same power of one number, bit for bit: numpy's may differ in the last one."""
    found = np.empty(len(exponents))
    for t in range(len(exponents)):
        found[t] = base ** exponents[t]
    return found


@compiled
def _copy(flat: U8, first: int, stop: int, out: U8, at: int) -> int:
    source, target = address_of(flat) + first, address_of(out) + at
    for place in range(0, stop - first, WORD):
        store64(target + place, load64(source + place))
    return at + stop - first


@compiled
def _until_comma(source: int, target: int) -> int:
    """Copy from one address to the other up to the next comma; bytes up to it."""
    place = 0
    while True:
        word = load64(source + place)
        store64(target + place, word)
        odd = word ^ COMMAS  # the first byte that is 0 is the lowest whose high bit is left over
        found = (odd - ONES) & ~odd & HIGHS
        if found != np.uint64(0):
            bits: int = trailing_zeros(found)
            return place + bits // 8
        place += WORD


@compiled
def _list(counts: I64, out: U8, at: int) -> int:
    """A list of numbers >= 0: small ones, which nearly all are, from a table, as how many digits they have is a guess."""
    out[at] = OPEN_LIST
    at += 1
    target = address_of(out)
    for c in counts:
        if c < SMALL:
            store64(target + at, SMALL_TEXT[c])
            at += SMALL_LENGTH[c]
            continue
        digits, rest = 1, np.uint64(c)
        while rest >= TEN:
            digits += 1
            rest //= TEN
        rest = np.uint64(c)
        for place in range(at + digits - 1, at - 1, -1):
            out[place] = ZERO + np.uint8(rest % TEN)
            rest //= TEN
        at += digits + 1
        out[at - 1] = COMMA
    if len(counts) > 0:
        at -= 1  # the last comma
    out[at] = CLOSE_LIST
    return at + 1
