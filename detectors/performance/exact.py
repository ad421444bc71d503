"""Exact sums of float64: fixed point of 1,024 bits, so that no order of values, batches or partitions shows.

A sum is I64[LIMBS], base 2^32, least limb first, in units of 2^-256; all limbs but the last are in [0, 2^32), the last has the
sign. So a sum has one form only, and equal sums are equal bytes.

Guarantee  `number` is the correctly rounded sum of what was added (math.fsum's value), each value to 2^-257; merging is addition:
           commutative, associative, identity 0
Refuses    nothing: callers keep out what is not finite or above SUMMAND_MAX in size (detectors.performance.sums does)
Cost       about 5 ns a value; 256 bytes a sum, on the wire 16 to 40
Source     Neal 2015, Fast exact summation using small and large superaccumulators (arXiv:1505.05571), the small one
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import compiled
from detectors.verdict import BadState

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]

LIMBS = 32
LIMB_BITS = 32
LIMB_MASK = (1 << LIMB_BITS) - 1
UNIT_BITS = 256  # a unit is 2^-256: below any label's last digit that matters
MANTISSA_BITS = 53
SUMMAND_MAX = 1e201  # the fourth power of sums.VALUE_MAX; 2^63 of them still fit
ADDED_MAX = 1 << 28  # values between two carries: a limb takes less than 2^34 from each, and holds 2^63
WORD_BITS = 64
SPLIT = 134217729.0  # 2^27 + 1, Veltkamp's


@compiled
def carry(limbs: I64) -> None:
    """Bring I64[LIMBS] to its one form, in place."""
    above = np.int64(0)
    for i in range(LIMBS - 1):
        total = limbs[i] + above
        limbs[i] = total & LIMB_MASK
        above = total >> LIMB_BITS  # arithmetic: rounds down, so the rest is never negative
    limbs[LIMBS - 1] += above


@compiled
def _add_one(limbs: I64, value: float) -> None:
    mantissa, exponent = math.frexp(value)
    whole = np.int64(mantissa * 9007199254740992.0)  # 2^53
    sign = np.int64(1)
    if whole < 0:
        sign, whole = np.int64(-1), -whole
    place = exponent - MANTISSA_BITS + UNIT_BITS
    if place < 0:
        if place <= -MANTISSA_BITS:
            return
        whole, place = whole >> -place, 0
    limb, shift = place >> 5, place & 31
    low = (whole & LIMB_MASK) << shift
    high = (whole >> LIMB_BITS) << shift
    limbs[limb] += sign * (low & LIMB_MASK)
    limbs[limb + 1] += sign * ((low >> LIMB_BITS) + (high & LIMB_MASK))
    limbs[limb + 2] += sign * (high >> LIMB_BITS)


@compiled
def add(limbs: I64, values: F64) -> None:
    """Add values F64[n], finite and at most SUMMAND_MAX in size, to I64[LIMBS], in place."""
    for i in range(len(values)):
        _add_one(limbs, values[i])
        if i % ADDED_MAX == ADDED_MAX - 1:
            carry(limbs)
    carry(limbs)


@compiled
def add_squares(limbs: I64, values: F64) -> None:
    """Add the squares of values F64[n] without rounding them (Dekker 1971): what a variance subtracts is then exact."""
    for i in range(len(values)):
        x = values[i]
        square = x * x
        wide = SPLIT * x
        high = wide - (wide - x)
        low = x - high
        _add_one(limbs, square)
        _add_one(limbs, ((high * high - square) + 2.0 * high * low) + low * low)
        if i % ADDED_MAX == ADDED_MAX - 1:
            carry(limbs)
    carry(limbs)


@compiled
def add_by_group(limbs: I64, group: I64, values: F64) -> None:
    """Add values F64[n] to limbs I64[groups, LIMBS], each to the row that group I64[n] names."""
    for i in range(len(values)):
        _add_one(limbs[group[i]], values[i])
        if i % ADDED_MAX == ADDED_MAX - 1:
            for g in range(len(limbs)):
                carry(limbs[g])
    for g in range(len(limbs)):
        carry(limbs[g])


@compiled
def merge(into: I64, other: I64) -> None:
    """Into += other, both I64[k, LIMBS] in their one form."""
    for k in range(into.shape[0]):
        for i in range(LIMBS):
            into[k, i] += other[k, i]
        carry(into[k])


def _units(limbs: I64) -> int:
    low = int.from_bytes(limbs[:-1].astype("<u4").tobytes(), "little")
    return low + (int(limbs[-1]) << LIMB_BITS * (LIMBS - 1))


def fraction(limbs: I64) -> Fraction:
    """The sum, exactly."""
    return Fraction(_units(limbs), 1 << UNIT_BITS)


def number(limbs: I64) -> float:
    """The sum, correctly rounded."""
    return _units(limbs) / (1 << UNIT_BITS)


@compiled
def _words(limbs: I64) -> tuple[U64, int]:
    """What `pack` says, at the start of an array, and how much of it that is."""
    out, place = np.empty(limbs.shape[0] * (1 + LIMBS // 2), np.uint64), 0
    size = np.empty(LIMBS, np.int64)
    for k in range(limbs.shape[0]):
        negative = limbs[k, LIMBS - 1] < 0
        for i in range(LIMBS):
            size[i] = -limbs[k, i] if negative else limbs[k, i]
        if negative:
            carry(size)
        first, stop = 0, LIMBS // 2
        while stop and size[2 * stop - 1] == 0 and size[2 * stop - 2] == 0:
            stop -= 1
        while first < stop and size[2 * first] == 0 and size[2 * first + 1] == 0:
            first += 1
        first = first if stop else 0
        out[place] = np.uint64(first | (stop - first) << 8 | (1 << 16 if negative else 0))
        for i in range(first, stop):
            out[place + 1 + i - first] = np.uint64(size[2 * i] | size[2 * i + 1] << LIMB_BITS)
        place += 1 + stop - first
    return out, place


@compiled
def _limbs(words: U64, out: I64) -> tuple[int, int]:
    """Fill I64[count, LIMBS], zeros, from what `pack` wrote: (sums that were whole, words that they took)."""
    place = 0
    for k in range(out.shape[0]):
        if place >= len(words):
            return k, place
        head = words[place]
        first, length = np.int64(head & np.uint64(255)), np.int64(head >> np.uint64(8) & np.uint64(255))
        negative = head >> np.uint64(16)
        stop = int(place + 1 + length)
        if stop > len(words) or (first + length) * WORD_BITS >= LIMBS * LIMB_BITS or negative > np.uint64(1):
            return k, place
        for i in range(length):
            word = words[place + 1 + i]
            out[k, 2 * (first + i)] = np.int64(word & np.uint64(LIMB_MASK))
            out[k, 2 * (first + i) + 1] = np.int64(word >> np.uint64(LIMB_BITS))
        if negative:
            for i in range(LIMBS):
                out[k, i] = -out[k, i]
            carry(out[k])
        place = stop
    return out.shape[0], place


def pack(limbs: I64) -> I64:
    """I64[k, LIMBS] -> I64[w]. Each sum: a word (first word, 8 bits; how many, 8 bits; negative, 1 bit), then its words of 64 bits.

    Cost: 5 µs, and .1 µs a sum.
    """
    out, used = _words(np.ascontiguousarray(limbs))
    return out[:used].astype("<u8").view("<i8")


def unpack(packed: I64, count: int) -> I64:
    """The I64[count, LIMBS] that `pack` had. Raises BadState for anything that it cannot have written."""
    words, out = np.ascontiguousarray(packed, np.int64).view(np.uint64), np.zeros((count, LIMBS), np.int64)
    whole, used = _limbs(words, out)
    if whole < count:
        raise BadState(f"packed sums: sum {whole} of {count} is damaged")
    if used != len(words):
        raise BadState(f"packed sums: {len(words) - used} words too many")
    return out
