"""JSON numbers in compiled code, correctly rounded or refused.

A decimal is read as mantissa x 10^exponent with at most 19 significant digits. mantissa < 2^53 and |exponent| <= 22: one exact
multiplication or division (Clinger 1990). Otherwise Eisel-Lemire with a 128-bit table of powers of five [1]; what it cannot
decide (subnormals, overflow, the one ambiguous product) is refused and the strict tier reads it. Places are addresses.

[1] D. Lemire, Number parsing at a gigabyte per second, Software: Practice and Experience 51 (2021), section 5 and appendix B.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.memory import bits_of, leading_zeros, load8, load64, multiply_high
from stream.columns import F64, U64
from stream.kernels.jit import kernel

DIGITS_MAX = 19  # below 2^64
EXACT_MANTISSA = np.uint64(1 << 53)
EXACT_EXPONENT = 22
POWER_MIN, POWER_MAX = -342, 308
SIGN_BIT = np.uint64(1 << 63)


def powers_of_five() -> U64:
    """U64[651, 2]: the upper and lower half of 5^q normalised to 128 bits, truncated; for q < 0 rounded up."""
    table = np.empty((POWER_MAX - POWER_MIN + 1, 2), np.uint64)
    for q in range(POWER_MIN, POWER_MAX + 1):
        power = 5 ** abs(q)
        size = power.bit_length()
        if q >= 0:
            value = power << (128 - size) if size <= 128 else power >> (size - 128)
        elif q >= -27:
            value = (1 << (size + 127)) // power + 1
        else:
            value = (1 << (2 * size + 128)) // power + 1
            value >>= value.bit_length() - 128
        table[q - POWER_MIN] = value >> 64, value & (2**64 - 1)
    return table


def exact_powers() -> F64:
    """F64[23]: the powers of ten that float64 holds exactly."""
    return np.array([float(10**k) for k in range(EXACT_EXPONENT + 1)])


FIVES = powers_of_five()
TENS = exact_powers()


@kernel
def eight_digits(word: Any) -> Any:
    """All eight bytes are ASCII digits."""
    high = word & np.uint64(0xF0F0F0F0F0F0F0F0)
    carried = (word + np.uint64(0x0606060606060606)) & np.uint64(0xF0F0F0F0F0F0F0F0)
    return high == np.uint64(0x3030303030303030) and carried == np.uint64(0x3030303030303030)


@kernel
def eight_digits_value(word: Any) -> Any:
    """Their number: pairs, fours, eights, each by one multiplication."""
    word -= np.uint64(0x3030303030303030)
    word = (word * np.uint64(10)) + (word >> np.uint64(8))
    low = (word & np.uint64(0x000000FF000000FF)) * np.uint64(0x000F424000000064)
    high = ((word >> np.uint64(16)) & np.uint64(0x000000FF000000FF)) * np.uint64(0x0000271000000001)
    return (low + high) >> np.uint64(32)


@kernel
def read_digits(at: int, end: int, mantissa: Any) -> Any:
    """(next, mantissa with the digits appended, modulo 2^64)."""
    while at + 8 <= end:
        word = load64(at)
        if not eight_digits(word):
            break
        mantissa = mantissa * np.uint64(100_000_000) + eight_digits_value(word)
        at += 8
    while at < end:
        digit = load8(at) - 48
        if digit < 0 or digit > 9:
            break
        mantissa = mantissa * np.uint64(10) + np.uint64(digit)
        at += 1
    return at, mantissa


@kernel
def read_exponent(at: int, end: int) -> Any:
    """(next, value) after the e; next = -1: no digit, or more than four."""
    negative = False
    if at < end and (load8(at) == 43 or load8(at) == 45):
        negative = load8(at) == 45
        at += 1
    start = at
    at, value = read_digits(at, end, np.uint64(0))
    if at == start or at - start > 4:
        return -1, 0
    exponent = np.int64(value)
    return at, -exponent if negative else exponent


@kernel
def read_decimal(at: int, end: int) -> Any:
    """(next, mantissa, exponent, negative) of a JSON number; next = -1: none, or more than DIGITS_MAX digits."""
    nothing = (-1, np.uint64(0), 0, False)
    negative = at < end and load8(at) == 45
    if negative:
        at += 1
    start = at
    at, mantissa = read_digits(at, end, np.uint64(0))
    digits = at - start
    if digits == 0 or (digits > 1 and load8(start) == 48):
        return nothing
    exponent = 0
    if at < end and load8(at) == 46:
        point = at + 1
        at, mantissa = read_digits(point, end, mantissa)
        exponent = point - at
        if exponent == 0:
            return nothing
        digits -= exponent
        if digits > DIGITS_MAX and load8(start) == 48:  # zeros in front are no significant digits
            digits -= 1
            while point < at and load8(point) == 48:
                digits -= 1
                point += 1
    if digits > DIGITS_MAX:
        return nothing
    if at < end and (load8(at) | 32) == 101:
        at, written = read_exponent(at + 1, end)
        exponent += written
    return at, mantissa, exponent, negative


@kernel
def number_end(at: int, end: int) -> Any:
    """The place after a JSON number of any length, or -1: the grammar only."""
    if at < end and load8(at) == 45:
        at += 1
    start = at
    at, _ = read_digits(at, end, np.uint64(0))
    if at == start or (at > start + 1 and load8(start) == 48):
        return -1
    if at < end and load8(at) == 46:
        point = at + 1
        at, _ = read_digits(point, end, np.uint64(0))
        if at == point:
            return -1
    if at < end and (load8(at) | 32) == 101:
        at += 1
        if at < end and (load8(at) == 43 or load8(at) == 45):
            at += 1
        start = at
        at, _ = read_digits(at, end, np.uint64(0))
        if at == start:
            return -1
    return at


@kernel
def to_double(mantissa: Any, exponent: int, negative: Any) -> Any:
    """(known, bits of the nearest float64, ties to even); zero is +0.0 whatever its sign."""
    if mantissa == 0:
        return True, np.uint64(0)
    if mantissa < EXACT_MANTISSA and -EXACT_EXPONENT <= exponent <= EXACT_EXPONENT:
        value = np.float64(mantissa)
        value = value / TENS[-exponent] if exponent < 0 else value * TENS[exponent]
        return True, bits_of(-value if negative else value)
    known, bits = eisel_lemire(mantissa, exponent)
    return known, bits | SIGN_BIT if negative else bits


@kernel
def eisel_lemire(mantissa: Any, exponent: int) -> Any:
    """(known, bits) of mantissa x 10^exponent, mantissa > 0; the names are the paper's."""
    unknown = (False, np.uint64(0))
    if exponent < POWER_MIN or exponent > POWER_MAX:
        return unknown
    shift = leading_zeros(mantissa)
    w = mantissa << np.uint64(shift)
    high_five, low_five = FIVES[exponent - POWER_MIN, 0], FIVES[exponent - POWER_MIN, 1]
    upper, lower = multiply_high(w, high_five), w * high_five
    if (upper & np.uint64(0x1FF)) == np.uint64(0x1FF):
        second = multiply_high(w, low_five)
        lower += second
        if lower < second:
            upper += np.uint64(1)
    if lower == np.uint64(0xFFFFFFFFFFFFFFFF) and (exponent < -27 or exponent > 55):
        return unknown
    top = np.int64(upper >> np.uint64(63))
    kept = upper >> np.uint64(top + 9)
    power = ((217_706 * exponent) >> 16) + 63 + top - shift + 1023
    if power <= 0:  # subnormal
        return unknown
    halfway = lower <= np.uint64(1) and -4 <= exponent <= 23 and (kept & np.uint64(3)) == np.uint64(1)
    if halfway and (kept << np.uint64(top + 9)) == upper:
        kept &= ~np.uint64(1)
    kept = (kept + (kept & np.uint64(1))) >> np.uint64(1)
    if kept >= np.uint64(1 << 53):
        kept = np.uint64(1 << 52)
        power += 1
    if power >= 0x7FF:  # overflow
        return unknown
    return True, (kept & np.uint64((1 << 52) - 1)) | (np.uint64(power) << np.uint64(52))
