"""Adaptive window: forgets what is older than the last change of the mean [1], river's.

The window is kept as exponential buckets; every `clock` values each border between buckets is tried, and it fires when the
means of both sides differ by more than a bound of their variance, with `delta` over all borders. The older side is dropped.

Reads      numbers up to +-1e9, best in [0, 1]; Output mean of the window
State      sums and variances of some max_buckets log2(values) buckets; 2 kB after 1,000 values
Guarantee  none: the bound is of independent values in [0, 1] [1, theorem 3.1], and is used with the window's variance in place
           of its worst case. Seen at the defaults: no alarm in 120,000 independent normal values; one in 160 values of an
           autocorrelation of .9. Rounding ends long constant series: one of 3e8 fires after 41,000 values, of 3e5 after 1.3e6
Cost       O(log values) every `clock` values, about 1.5 us a value
Source     [1] Bifet, Gavalda 2007, SDM; river.drift.ADWIN
"""

# ruff: noqa: SLF001 - river has no way to take a state out or put it back

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN

from detectors.online.series import Saved, Sections, Step, check_header, flags, header, section, set_flags
from detectors.online.series import number as value_of
from detectors.parameters import Base, number, whole
from detectors.verdict import BadState

NAME = "adwin"
VALUE_MAX = 1e9
"""The bound has a part in the unit of the values, made for [0, 1]: beyond, rounding passes it on constant series too soon."""

ROWS_MAX = 64  # of buckets of 1, 2, 4, ... values

# What river 0.26's compiled part gives for its state, little-endian: parameters; total, variance, width, width accumulated;
# four counters, the last of them detections; the rows, each with max_buckets, how many buckets it has, and their totals and
# variances (max_buckets + 1 of each, after their number); the parameters again.
_TOLD, _SUMS, _COUNTERS, _LENGTH, _TOLD_AGAIN = "<dIQdd", "<4d", "<4I", "<Q", "<dIQII"


@dataclass(frozen=True)
class Parameters(Base):
    delta: float = number(0.002, 1e-15, 0.5, "confidence: smaller = fewer alarms")
    clock: int = whole(32, 1, 1_000_000, "values between two looks")
    max_buckets: int = whole(5, 2, 100, "buckets of one size")
    min_window_length: int = whole(5, 1, 1_000_000, "values that a side must have")
    grace_period: int = whole(10, 1, 1_000_000, "values before the first look")


def start(parameters: Parameters) -> Any:
    told = parameters
    return ADWIN(told.delta, told.clock, told.max_buckets, told.min_window_length, told.grace_period)


def update(state: Any, value: float) -> Step:
    state.update(value_of(NAME, value, VALUE_MAX))
    return Step(bool(state.drift_detected), warning=False, statistic=float(state.estimation))


def state_to_sections(parameters: Parameters, state: Any) -> Saved:
    raw: bytes = state._helper.__getstate__()
    size = parameters.max_buckets + 1
    at = struct.calcsize(_TOLD)
    sums = np.frombuffer(raw, "<f8", 4, at).astype(np.float64)
    at += struct.calcsize(_SUMS)
    counters = np.frombuffer(raw, "<u4", 4, at).astype(np.uint32)
    at += struct.calcsize(_COUNTERS)
    (rows,) = struct.unpack_from(_LENGTH, raw, at)
    at += struct.calcsize(_LENGTH)
    # a row: three lengths, totals, one length, variances; all of eight bytes
    words = np.frombuffer(raw, "<u8", rows * (4 + 2 * size), at).reshape(rows, 4 + 2 * size)
    arrays: dict[str, NDArray[Any]] = {
        "sums": sums,
        "counters": counters,
        "held": words[:, 1].astype(np.int64),
        "totals": words[:, 3 : 3 + size].copy().view(np.float64).ravel(),
        "variances": words[:, 4 + size :].copy().view(np.float64).ravel(),
        "flags": flags(state),
    }
    if _packed(parameters, arrays) != raw:
        raise BadState("river's ADWIN has another layout than this was written for")
    return header(NAME, parameters), arrays


def _packed(told: Parameters, arrays: Sections) -> bytes:
    size = told.max_buckets + 1
    held = arrays["held"]
    words = np.empty((len(held), 4 + 2 * size), "<u8")
    words[:, 0], words[:, 1], words[:, 2], words[:, 3 + size] = told.max_buckets, held, size, size
    words[:, 3 : 3 + size] = arrays["totals"].reshape(-1, size).view(np.uint64)
    words[:, 4 + size :] = arrays["variances"].reshape(-1, size).view(np.uint64)
    rest = (told.min_window_length, told.grace_period)
    return b"".join((
        struct.pack(_TOLD, told.delta, told.clock, told.max_buckets, *map(float, rest)),
        struct.pack(_SUMS, *arrays["sums"].tolist()),
        struct.pack(_COUNTERS, *arrays["counters"].tolist()),
        struct.pack(_LENGTH, len(held)),
        words.tobytes(),
        struct.pack(_TOLD_AGAIN, told.delta, told.clock, told.max_buckets, *rest),
    ))  # fmt: skip


def state_from_sections(parameters: Parameters, saved: Mapping[str, Any], sections: Sections) -> Any:
    check_header(NAME, parameters, saved)
    held = section(sections, "held", None, np.int64)
    if not 1 <= len(held) <= ROWS_MAX or held.min() < 0 or held.max() > parameters.max_buckets + 1:
        raise BadState(f"section held: {held.tolist()[:ROWS_MAX]}")
    size = len(held) * (parameters.max_buckets + 1)
    arrays = {
        "sums": section(sections, "sums", 4),
        "counters": section(sections, "counters", 4, np.uint32),
        "held": held,
        "totals": section(sections, "totals", size),
        "variances": section(sections, "variances", size),
    }
    state = start(parameters)
    state._helper.__setstate__(_packed(parameters, arrays))
    set_flags(state, sections)
    return state
