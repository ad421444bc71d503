"""Values of feedback as numbers: what texts become, and which values an event of a topic may have. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream.columns import F64, U8, U64
from stream.kernels import timeline

TEXT_VALUE_MIN, TEXT_VALUE_END = 2.0**52, 2.0**53
NEGATIVE, ABSURD, UNKNOWN_LABEL = range(timeline.STATUSES, timeline.STATUSES + 3)
"""What a value may be, beside timeline.APPLIED."""


def text_value(hashes: U64) -> F64:
    """Texts as numbers, by their xxh3-64: whole numbers of 52 bits from 2^52 on, which no class that is a number reaches."""
    return TEXT_VALUE_MIN + (hashes >> np.uint64(12)).astype(np.float64)


def is_text(values: F64) -> NDArray[np.bool_]:
    """Whether values stand for texts; a number so large cannot be told from one."""
    return (values >= TEXT_VALUE_MIN) & (values < TEXT_VALUE_END)


def numbers_of(values: F64) -> F64:
    """The values, NaN where they stand for texts, which are no numbers to compute with."""
    return np.where(is_text(values), np.nan, values)


def value_status(values: F64, low: float, high: float, classes: tuple[float, ...] | None, *, numbers: bool) -> U8:
    """APPLIED, or what is wrong with each of the values F64[n].

    They are finite and in [low, high]. `classes`: what labels that are no numbers are; None = values are not looked at further.
    `numbers`: whether there are labels that are numbers, of any size.
    """
    finite = np.isfinite(values)
    outside = ~(finite & (values >= low) & (values <= high))
    status = np.full(len(values), timeline.APPLIED, np.uint8)
    if classes is not None:
        wrong = ~np.isin(values, np.array(classes, np.float64))
        status[wrong & is_text(values) if numbers else wrong] = UNKNOWN_LABEL
    status[outside] = ABSURD
    if low >= 0:
        status[outside & finite & (values < 0)] = NEGATIVE
    return status
