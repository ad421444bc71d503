"""Every compiled piece of the fast tier against its plain twin."""

from __future__ import annotations

import json
import random
import struct
from fractions import Fraction

import numpy as np
import pytest
import xxhash

from detectors.xxh3 import LENGTH_MAX, hash64, hash96
from stream.category import category_hash, category_text, number_category_hash
from stream.decode_strict import _rfc3339
from stream.kernels.number import FIVES, number_end, powers_of_five, read_decimal, to_double
from stream.kernels.text import string_end, unescape
from stream.kernels.timestamp import decimal_time, read_rfc3339
from stream.limits import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN
from stream.strict_json import RefusedError


class Text:
    """Bytes at an address, between bytes that must not be read."""

    def __init__(self, data: bytes) -> None:
        self.held = np.frombuffer(b"9" + data + b"9999999999", np.uint8)
        self.at = self.held.ctypes.data + 1
        self.end = self.at + len(data)


def test_xxh3_at_every_length() -> None:
    rng = random.Random(1)
    for length in range(LENGTH_MAX + 1):
        data = rng.randbytes(length)
        text = Text(data)
        assert int(hash64(text.at, length)) == xxhash.xxh3_64_intdigest(data)
        high, low = hash96(text.at, length)
        assert int(high) << 32 | int(low) == xxhash.xxh3_128_intdigest(data) >> 32


def read(text: str) -> float | None:
    """The compiled reader on exactly `text`; None = refused."""
    data = Text(text.encode())
    end, mantissa, exponent, negative = read_decimal(data.at, data.end)
    if end != data.end:
        return None
    known, raw = to_double(np.uint64(mantissa), exponent, negative)
    return struct.unpack("<d", struct.pack("<Q", int(raw)))[0] if known else None


def test_numbers_are_correctly_rounded() -> None:
    rng = random.Random(2)
    refused = 0
    for _ in range(20_000):
        kind = rng.randrange(4)
        if kind == 0:
            text = repr(struct.unpack("<d", rng.randbytes(8))[0])
        elif kind == 1:
            text = f"{rng.getrandbits(rng.randrange(1, 63))}e{rng.randrange(-345, 310)}"
        elif kind == 2:
            text = f"{rng.uniform(-1e6, 1e6):.{rng.randrange(1, 12)}f}"
        else:
            text = str(2 * rng.getrandbits(53) + 1 | 1 << 53)  # exactly between two float64
        if "n" in text:
            continue
        value = read(text)
        refused += value is None
        assert value is None or value == float(text), text
    assert refused < 1000


@pytest.mark.parametrize("text", ["0", "-0", "-0.0", "0e5", "0.000"])
def test_zero_has_one_form(text: str) -> None:
    assert struct.pack("<d", read(text) or 0.0) == bytes(8)


@pytest.mark.parametrize(
    "text", ["", "-", "01", "-01", "1.", ".5", "1e", "1e+", "+1", "1..2", "1e5.5", "0x1", "--1", "1_0", "١"]
)
def test_what_is_no_number_is_refused(text: str) -> None:
    assert read(text) is None
    data = Text(text.encode())
    assert number_end(data.at, data.end) != data.end


@pytest.mark.parametrize("text", ["12345678901234567890", "0.12345678901234567891", "1e400", "5e-324", "1e12345"])
def test_what_is_unsure_is_refused_but_is_a_number(text: str) -> None:
    assert read(text) is None
    data = Text(text.encode())
    assert number_end(data.at, data.end) == data.end


def test_powers_of_five_are_within_one_unit() -> None:
    assert np.array_equal(powers_of_five(), FIVES)
    for q in (-342, -100, -28, -27, -1, 0, 1, 55, 56, 308):
        high, low = (int(half) for half in FIVES[q + 342])
        exact = Fraction(5) ** q
        scaled = exact / Fraction(2) ** (exact.numerator.bit_length() - exact.denominator.bit_length() - 128)
        while scaled >= 2**128:
            scaled /= 2
        while scaled < 2**127:
            scaled *= 2
        assert abs((high << 64 | low) - scaled) <= 1


def python_time(text: str) -> int:
    try:
        time_ms = _rfc3339(text, "")
    except RefusedError:
        return -1
    return time_ms if EVENT_TIME_MS_MIN <= time_ms < EVENT_TIME_MS_MAX else -1


def test_every_day_is_where_the_calendar_puts_it() -> None:
    for year in (1980, 1999, 2000, 2023, 2024, 2100, 2199):
        for month in range(14):
            for day in range(33):
                text = f"{year:04}-{month:02}-{day:02}T23:59:59.5+00:00"
                data = Text(text.encode())
                assert read_rfc3339(data.at, data.end) == python_time(text), text


def test_damaged_times_agree_with_python() -> None:
    rng = random.Random(3)
    for _ in range(5000):
        text = list(
            f"2026-{rng.randrange(14):02}-{rng.randrange(33):02}T{rng.randrange(26):02}:{rng.randrange(62):02}:03.12+05:30"
        )
        for _ in range(rng.randrange(3)):
            text[rng.randrange(len(text))] = rng.choice("0123456789-:.TZtz +x")
        written = "".join(text[: rng.choice((len(text), len(text), 19, 22, 10))]) + rng.choice(("", "Z"))
        data = Text(written.encode())
        assert read_rfc3339(data.at, data.end) == python_time(written), written


def test_decimal_times_are_rounded_down() -> None:
    assert decimal_time(np.uint64(176380650312), 1) == 1_763_806_503_120
    assert decimal_time(np.uint64(1763806503129), -1) == -1  # 1975
    assert decimal_time(np.uint64(17638065031299), -1) == 1_763_806_503_129
    assert decimal_time(np.uint64(2**64 - 1), 18) == -1
    assert decimal_time(np.uint64(2**64 - 1), -19) == -1
    assert decimal_time(np.uint64(1), 19) == -1
    assert decimal_time(np.uint64(EVENT_TIME_MS_MAX), 0) == -1
    assert decimal_time(np.uint64(EVENT_TIME_MS_MAX - 1), 0) == EVENT_TIME_MS_MAX - 1


def python_text(data: bytes) -> bool:
    """Whether `data` is the valid inside of a JSON string, by the standard library's parts."""
    try:
        text = json.loads(b'"' + data + b'"')
        return isinstance(text, str) and text.encode() is not None
    except ValueError:
        return False


def test_strings_are_valid_where_python_says_so() -> None:
    rng = random.Random(4)
    pieces = [
        b"a",
        b"0123456789",
        b"\\n",
        b"\\u00e9",
        b"\\ud83d\\ude00",
        b"\\ud83d",
        b"\\ude00",
        b"\\uD8",
        b"\\x",
        b"\\",
        b"\x1f",
        b"\x7f",
    ]
    pieces += [
        "é€😀".encode(),
        b"\xc3",
        b"\xe2\x82",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xc0\x80",
        b"\xf0\x8f\xbf\xbf",
        b"\xff",
        b'\\"',
        b"/",
    ]
    for _ in range(20_000):
        inside = b"".join(rng.choice(pieces) for _ in range(rng.randrange(6)))
        closed = Text(inside + b'"')
        end, escaped = string_end(closed.at, closed.end)
        valid = python_text(inside)
        assert (end == closed.end - 1) == valid, inside
        cut, _ = string_end(closed.at, closed.end - 1)  # the quote lies beyond the value's end
        assert cut < closed.end - 1
        if valid:
            assert escaped == (b"\\" in inside)
            written = json.loads(b'"' + inside + b'"').encode()
            out = np.zeros(64, np.uint8)
            length = unescape(closed.at, end, out.ctypes.data, 60)
            assert out.tobytes()[:length] == written, inside
            assert unescape(closed.at, end, out.ctypes.data, len(written)) == len(written)
            assert unescape(closed.at, end, out.ctypes.data, len(written) - 1) == -1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("DE", "DE"),
        (True, "true"),
        (False, "false"),
        (1, "1"),
        (1.0, "1"),
        (-0.0, "0"),
        (-3.0, "-3"),
        (0.1, "0.1"),
        (2.0**53 - 1, "9007199254740991"),
        (2.0**53, "9007199254740992.0"),
        (1e300, "1e+300"),
    ],
)
def test_one_value_is_one_category(value: str | bool | float, text: str) -> None:
    assert category_text(value) == text
    assert category_hash(value) == xxhash.xxh3_64_intdigest(text.encode())
    if isinstance(value, float):
        assert number_category_hash(value) == category_hash(value)
