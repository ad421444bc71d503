"""One window of many targets through the default detector in one call: tables and states by address.

An array costs numba a quarter of a microsecond for each argument of a call, 45 of them for each target; an address in a table costs
nothing. Whoever fills the table holds the arrays (batch.py); nothing here is checked against their lengths.
"""
# ruff: noqa: PLR0917 - compiled kernels take their arrays one by one

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numpy.typing import NDArray

from detectors.compiled import compiled
from detectors.memory import intrinsic, pointer
from detectors.sequential import default_kernel as kernel
from detectors.sequential.categories import RANK_BETS
from detectors.sequential.default_kernel import decide, room_of
from detectors.sequential.rank_layer import ADAPTIVE_DECAY, ADAPTIVE_SHARE
from detectors.sequential.target_work import WORK_HEAD, fill_work, work_size
from detectors.sequential.thinning import thin
from detectors.sequential.tube import LAWS

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
U8 = NDArray[np.uint8]

# Columns of `place` I64[t, PLACES]: addresses, then sizes.
(
    SCORE, CHOSE, SCORE_MEAN, SHARE_P, ORDER, TIE, ALPHA, BETS, BET_START, SHARE_BETS, THRESHOLDS, REFERENCE, SHARE_IN, SHARE_OUT,
    SHARE_MASSES, SHARE_LO, SHARE_HI, BET_WEIGHT, FLOATS, INTEGERS, SEEN, SEEN_HIGH, WORK, KNOWN,
    FIRST, CORE, STATISTICS, SHARES, RANK_BINS, VALUE_BETS, TUBE_BETS, SHARE_TUBE_BETS, HIGH, SIZE_MAX, EXPIRY, PLACES,
) = range(36)  # fmt: skip
THRESHOLD, TOLERANCE, THRESHOLD_LOG10, NUMBERS = 0, 1, 2, 3  # columns of `number`
SINCE, EVENTS, THINNED, LATCHED, FOUND = 0, 1, 2, 3, 4  # columns of `found`
SKIP, JUDGE = 0, 1  # of `act`
THIN_FIRST_UNIFORM = 1 << 20  # of the window's seed; the tie-breaks have the numbers before it
CLOCK = 5
LINE_BYTES = 64
SECOND_LEVEL = (
    2  # the cache that lines are fetched into: the first one is full of what the target in hand and all others share
)
F32_TYPE, F64_TYPE, I64_TYPE, U16_TYPE, U8_TYPE = np.float32, np.float64, np.int64, np.uint16, np.uint8


@intrinsic
def fetch_line(_context: Any, _address: Any) -> Any:
    """Have the cache line at an address, int64, on its way before it is read."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], cgutils.voidptr_t)
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(fetch, [place, number(0), number(SECOND_LEVEL), number(1)])
        return _context.get_dummy_value()

    return types.void(types.int64), code


@compiled
def fetch(address: int, size: int) -> None:
    """Have so many bytes on their way."""
    if address != 0:
        for place in range(0, size, LINE_BYTES):
            fetch_line(address + place)


@compiled
def _fetch(row: I64) -> None:
    """What `decide` will read of a target. A window is closed long after the last one: nothing of it is near."""
    core, statistics, ranks = row[CORE], row[STATISTICS], row[RANK_BINS]
    values = statistics - row[SHARES]
    floats = (
        row[VALUE_BETS]
        + row[SHARES] * RANK_BETS
        + 2 * row[TUBE_BETS]
        + values * len(ADAPTIVE_DECAY) * (ranks + 1)
        + core
    )
    fetch(row[FLOATS], 4 * floats)
    fetch(row[INTEGERS], 8 * (CLOCK + row[TUBE_BETS]))
    fetch(row[ORDER], 4 * statistics * ranks)
    fetch(row[TIE], 4 * statistics * ranks)
    fetch(row[SEEN], 2 * statistics * ranks)
    fetch(row[SCORE], 8 * 4 * core)
    fetch(row[WORK], 8 * work_size(core))


@compiled
def totals(counts: I64, start: I64, out: I64) -> int:
    """Events I64[t] of every target; the first one with a negative count, -1 if there is none."""
    for t in range(len(out)):
        total, signs = 0, 0
        for c in counts[start[t] : start[t + 1]]:  # without a branch, so that several are read at once
            total += c
            signs |= c
        if signs < 0:
            return t
        out[t] = total
    return -1


@compiled
def decide_all(
    counts: I64, start: I64, act: U8, seed: U64, weight: F64, start_ms: I64, place: I64, number: F64, ready: U8,
    scratch: I64, out: F64, told: F64, found: I64, log10: F64,
) -> None:  # fmt: skip
    """Every target whose `act` is JUDGE: `thin` and `judge` of its counts I64[start[t]:start[t + 1]], which are thinned in place.

    ready U8[t]: 1 = the work at its address is filled; set. Without an address (0) that of `scratch` is filled anew each time.
    scratch I64[3]: addresses for the work, the core counts and the room of any target.
    out F64[t, FIELDS], told F64[t, EFFECT_FIELDS], found I64[t, FOUND]; log10 F64[2, t]: evidence of the rank layer and of the tube on
    the scale of number[:, THRESHOLD_LOG10]. Those of targets that are not judged stay, but their latch and excursion are found.
    """
    for t in range(len(act)):
        if t + 1 < len(act):
            _fetch(place[t + 1])
        row = place[t]
        clock = carray(pointer(row[INTEGERS]), (CLOCK,), I64_TYPE)
        if act[t] == JUDGE:
            own = counts[start[t] : start[t + 1]]
            total = 0
            for c in own:
                total += c
            found[t, THINNED] = 0
            if total > row[SIZE_MAX]:
                thinned = np.empty(len(own), np.int64)
                thin(own, row[SIZE_MAX], seed[t], THIN_FIRST_UNIFORM, thinned)
                own[:] = thinned
                found[t, THINNED] = 1
                total = row[SIZE_MAX]
            found[t, EVENTS] = total
            _decide(
                own, seed[t], weight[t], start_ms[t], row, number[t], ready[t : t + 1], scratch, clock, out[t], told[t]
            )
            for layer in range(2):  # RANK and TUBE of `out`
                ratio = out[t, layer]
                if ratio > 0.0:
                    log10[layer, t] = max(math.log10(ratio) + number[t, THRESHOLD_LOG10], log10[layer, t])
        found[t, SINCE] = clock[kernel.EXCURSION]
        found[t, LATCHED] = 0
        if clock[kernel.RANK_LATCH] != kernel.NEVER:
            found[t, LATCHED] = 1
        elif clock[kernel.TUBE_LATCH] != kernel.NEVER:
            found[t, LATCHED] = 2


@compiled
def _decide(
    own: I64, seed: np.uint64, weight: float, start_ms: int, row: I64, number: F64, ready: U8, scratch: I64, clock: I64,
    out: F64, told: F64,
) -> None:  # fmt: skip
    core, statistics, shares, ranks = row[CORE], row[STATISTICS], row[SHARES], row[RANK_BINS]
    values, count, tube, each = statistics - shares, row[VALUE_BETS], row[TUBE_BETS], row[SHARE_TUBE_BETS]
    reference = carray(pointer(row[REFERENCE]), (len(own),), I64_TYPE)
    chose = carray(pointer(row[CHOSE]), (len(own),), I64_TYPE)
    work_at = row[WORK] if row[WORK] != 0 else scratch[0]
    if row[WORK] == 0 or ready[0] == 0:
        work = carray(pointer(work_at), (work_size(core),), F64_TYPE)
        fill_work(chose, reference, row[FIRST], core, len(own) - shares, number[TOLERANCE], work)
        ready[0] = row[WORK] != 0
    # floats and integers of a state, as default_state.Layout has them
    adaptive_at = count
    share_at = adaptive_at + values * len(ADAPTIVE_DECAY)
    recent_at = share_at + shares * RANK_BETS
    tube_at = recent_at + values * len(ADAPTIVE_DECAY) * ranks
    gain_at = tube_at + tube
    plug_at = gain_at + tube
    plug = core if core > 0 else shares
    known = shares if row[KNOWN] != 0 else 0
    value_ranks = ranks if values > 0 else 0
    floats_at, log_h_at = row[FLOATS], work_at + 8 * WORK_HEAD * core
    floats = carray(pointer(floats_at), (plug_at + plug,), F32_TYPE)
    integers = carray(pointer(row[INTEGERS]), (CLOCK + tube,), I64_TYPE)
    decide(
        own, seed, weight, start_ms, row[EXPIRY], row[FIRST],
        carray(pointer(work_at), (WORK_HEAD, core), F64_TYPE),
        carray(pointer(log_h_at), (core, LAWS), F32_TYPE),
        carray(pointer(scratch[1]), (core,), F64_TYPE),
        carray(pointer(scratch[2]), (room_of(core, statistics, ranks, RANK_BETS, tube),), F64_TYPE),
        carray(pointer(row[SCORE]), (core, 4), F64_TYPE),
        carray(pointer(row[SCORE_MEAN]), (4,), F64_TYPE),
        carray(pointer(row[SHARE_P]), (shares,), F64_TYPE),
        carray(pointer(row[ORDER]), (statistics, ranks - 1), F32_TYPE),
        carray(pointer(row[TIE]), (statistics, ranks - 1), F32_TYPE),
        carray(pointer(row[ALPHA]), (ranks,), F64_TYPE),
        carray(pointer(row[BETS]), (value_ranks, count), F64_TYPE),
        carray(pointer(row[BET_START]), (values + 1,), I64_TYPE),
        carray(pointer(row[SHARE_BETS]), (shares, ranks, RANK_BETS), U8_TYPE),
        carray(pointer(row[KNOWN]), (known, ranks, RANK_BETS), F64_TYPE),
        ADAPTIVE_DECAY, ADAPTIVE_SHARE,
        carray(pointer(row[THRESHOLDS]), (statistics,), F64_TYPE),
        number[THRESHOLD],
        carray(pointer(row[SHARE_IN]), (shares, each), F64_TYPE),
        carray(pointer(row[SHARE_OUT]), (shares, each), F64_TYPE),
        carray(pointer(row[SHARE_MASSES]), (shares,), F64_TYPE),
        carray(pointer(row[SHARE_LO]), (shares,), F64_TYPE),
        carray(pointer(row[SHARE_HI]), (shares,), F64_TYPE),
        carray(pointer(row[BET_WEIGHT]), (tube,), F64_TYPE),
        clock, floats[:adaptive_at],
        carray(pointer(floats_at + 4 * adaptive_at), (values, len(ADAPTIVE_DECAY)), F32_TYPE),
        carray(pointer(floats_at + 4 * share_at), (shares, RANK_BETS), F32_TYPE),
        carray(pointer(row[SEEN]), (statistics, ranks), U16_TYPE),
        carray(pointer(row[SEEN_HIGH]), (row[HIGH] * statistics, row[HIGH] * ranks), U16_TYPE),
        carray(pointer(floats_at + 4 * recent_at), (values, len(ADAPTIVE_DECAY), ranks), F32_TYPE),
        floats[tube_at:gain_at], floats[gain_at:plug_at], integers[CLOCK : CLOCK + tube], floats[plug_at : plug_at + plug],
        out, told,
    )  # fmt: skip
