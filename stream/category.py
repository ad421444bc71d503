"""How a value becomes a category where events are decoded and counted: the reference's own text and hash."""

from __future__ import annotations

from functools import lru_cache

from detectors.binning import category_hash, category_text

__all__ = ["category_hash", "category_text", "number_category_hash"]


@lru_cache(maxsize=1 << 16)
def number_category_hash(number: float) -> int:
    """`category_hash` of one float64, remembered: categorical numbers repeat."""
    return category_hash(number)
