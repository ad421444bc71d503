# ruff: noqa: PLR1714 - compiled: arguments are arrays, comparisons are machine code
"""Event times in compiled code: RFC 3339 texts and decimals in a unit, to milliseconds. Refused = the strict tier's.

Places are addresses.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.memory import load8
from stream.kernels.jit import kernel
from stream.limits import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN

INTEGER_TENS = np.array([10**k for k in range(20)], np.uint64)
MONTH_DAYS = np.array([0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])


@kernel
def in_range(time_ms: Any) -> Any:
    return EVENT_TIME_MS_MIN <= time_ms < EVENT_TIME_MS_MAX


@kernel
def two_digits(at: int) -> Any:
    """0 to 99, or -1."""
    tens, ones = np.int64(load8(at)) - 48, np.int64(load8(at + 1)) - 48
    if tens < 0 or tens > 9 or ones < 0 or ones > 9:
        return -1
    return tens * 10 + ones


@kernel
def day_number(year: int, month: int, day: int) -> Any:
    """Days since 1970-01-01 in the Gregorian calendar, or -1 for no such day; years from 1970."""
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if year < 1970 or month < 1 or month > 12 or day < 1 or day > MONTH_DAYS[month]:
        return -1
    if month == 2 and day == 29 and not leap:
        return -1
    shifted = year - 1 if month < 3 else year  # years begin in March, so that the leap day is the last
    months = (month + 9) % 12
    return 365 * shifted + shifted // 4 - shifted // 100 + shifted // 400 + (153 * months + 2) // 5 + day - 1 - 719_468


@kernel
def zone_minutes(at: int, end: int) -> Any:
    """(known, offset) of Z or +hh:mm that ends exactly at `end`."""
    if at + 1 == end and (load8(at) | 32) == 122:
        return True, 0
    if at + 6 != end or load8(at + 3) != 58:
        return False, 0
    sign = load8(at)
    hours, minutes = two_digits(at + 1), two_digits(at + 4)
    if (sign != 43 and sign != 45) or hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
        return False, 0
    offset = hours * 60 + minutes
    return True, -offset if sign == 45 else offset


@kernel
def read_rfc3339(at: int, end: int) -> Any:
    """Milliseconds since 1970 of the text at:end; -1 = refused. Fractions are cut to milliseconds, :60 is :59.999."""
    if end - at < 20:
        return -1
    century, years = two_digits(at), two_digits(at + 2)
    month, day = two_digits(at + 5), two_digits(at + 8)
    hour, minute, second = two_digits(at + 11), two_digits(at + 14), two_digits(at + 17)
    separator = load8(at + 10)
    if load8(at + 4) != 45 or load8(at + 7) != 45 or load8(at + 13) != 58 or load8(at + 16) != 58:
        return -1
    if (separator | 32) != 116 and separator != 32:
        return -1
    if century < 0 or years < 0 or hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 60:
        return -1
    days = day_number(century * 100 + years, month, day)
    if days < 0:
        return -1
    at += 19
    milli: Any = 0
    weight = 100
    if load8(at) == 46:
        at += 1
        first = at
        while at < end and 48 <= load8(at) <= 57:
            milli += weight * (np.int64(load8(at)) - 48)
            weight //= 10
            at += 1
        if at == first:
            return -1
    known, offset = zone_minutes(at, end)
    if not known:
        return -1
    if second == 60:
        second, milli = 59, 999
    time_ms = (((days * 24 + hour) * 60 + minute - offset) * 60 + second) * 1000 + milli
    return time_ms if in_range(time_ms) else -1


@kernel
def decimal_time(mantissa: Any, exponent: int) -> Any:
    """floor(mantissa x 10^exponent) as milliseconds; -1 = refused."""
    if exponent < -19 or exponent > 18:
        return -1
    if exponent < 0:
        scaled = mantissa // INTEGER_TENS[-exponent]
    else:
        if mantissa > np.uint64(EVENT_TIME_MS_MAX) // INTEGER_TENS[exponent]:
            return -1
        scaled = mantissa * INTEGER_TENS[exponent]
    if scaled >= np.uint64(EVENT_TIME_MS_MAX):
        return -1
    time_ms = np.int64(scaled)
    return time_ms if in_range(time_ms) else -1
