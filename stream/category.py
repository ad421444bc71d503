"""How a value becomes a category: one text, one hash, in the reference's builder, the decoder and the collector alike."""

from __future__ import annotations

from functools import lru_cache

import xxhash

INTEGER_BELOW = 2.0**53  # below it every integral float64 is one integer


def category_text(value: str | bool | float) -> str:
    """The text of a categorical value: text as it is, bools as JSON writes them, integral numbers below 2**53 without a
    fraction (so 1, 1.0 and an int column's 1 are one category; -0.0 is "0"), other numbers as Python's repr of the float64.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    number = float(value)
    if number.is_integer() and abs(number) < INTEGER_BELOW:
        return str(int(number))
    return repr(number)


def category_hash(value: str | bool | float) -> int:
    """xxh3-64 of the category's text: what a TEXT cell holds, and what a NUMBER or BOOL cell of a categorical target is
    looked up by.
    """
    return xxhash.xxh3_64_intdigest(category_text(value).encode())


@lru_cache(maxsize=1 << 16)
def number_category_hash(number: float) -> int:
    """`category_hash` of one float64, remembered: categorical numbers repeat."""
    return category_hash(number)
