"""Compiled counting: the rows of one pane into its bins, tallies, ordered sums, extremes and distinct registers.

Each target is one pass over the rows, in log order, value by value into the carried accumulators: so how the log was cut
into chunks cannot change a bit of a sum.

A value with a bin of its own says by its count that it was there, so only the others are entered into registers; and a
target has registers once it had such a value. A kernel cannot allocate: it asks, and `register` enters what it had to leave.
"""

# ruff: noqa: ANN001, ANN201, ANN202, PLR0917 - the compiler infers the types; the docstrings state them
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False
from __future__ import annotations

import numpy as np

from detectors.compiled import njit

# Columns of the table `shape`, one row per target.
COLUMN, TARGET_KIND, TABLE_START, TABLE_STOP, FIRST_BIN, REGISTER_ROW = range(6)
SHAPE_COLUMNS = 6
# TARGET_KIND
NUMERIC, CATEGORICAL, UNBINNED = 0, 1, 2
# Columns of `scale` and `tally`.
CENTRE, LOW, HIGH = range(3)
MISSING, INVALID, OUT_OF_RANGE = range(3)
# What stands in `register_row` instead of a row of `registers`.
NO_ROW, ASKED_FOR = -1, -2
BLOCK = 64  # values that descend the search together; the buffers stay in the first cache
# Columns.tag, as plain numbers for the compiler.
TAG_MISSING, TAG_NUMBER, TAG_TEXT, TAG_BOOL, TAG_INVALID = range(5)


@njit(nogil=True)
def _below(table, values, count, place):
    """place[i] = number of entries of sorted `table` that are <= values[i], for i < count.

    All values descend together, one level of the binary search after the other: there is no branch on data, which would be
    a coin toss (31 ns a value), and 32-bit places let the compiler use vector gathers (6 ns).
    """
    one = np.uint32(1)
    length = np.uint32(len(table))
    for i in range(count):
        place[i] = 0
    if length == 0:
        return
    while length > one:
        half = np.uint32(length >> one)
        for i in range(count):
            here = place[i]
            place[i] = np.uint32(here + half) if table[np.uint32(here + half - one)] <= values[i] else here
        length = np.uint32(length - half)
    for i in range(count):
        place[i] += np.uint32(table[place[i]] <= values[i])


@njit(nogil=True)
def _numeric(rows, number, tag, column, scale, cuts, bins, tally, sums, extremes, values, place):
    centre, low, high = scale[CENTRE], scale[LOW], scale[HIGH]
    total, squares, least, most = sums[0], sums[1], extremes[0], extremes[1]
    missing = invalid = outside = 0
    for first in range(0, len(rows), BLOCK):
        count = 0
        for i in range(first, min(first + BLOCK, len(rows))):
            row = rows[i]
            kind = tag[row, column]
            if kind != TAG_NUMBER:
                missing += kind == TAG_MISSING
                invalid += kind != TAG_MISSING
                continue
            x = number[row, column]
            if not np.isfinite(x):
                invalid += 1
                continue
            outside += x < low or x > high
            values[count] = x
            count += 1
            d = x - centre
            total += d
            squares += d * d
            least = min(least, x)
            most = max(most, x)
        _below(cuts, values, count, place)
        for i in range(count):
            bins[place[i]] += 1
    sums[0], sums[1], extremes[0], extremes[1] = total, squares, least, most
    tally[MISSING] += missing
    tally[INVALID] += invalid
    tally[OUT_OF_RANGE] += outside


@njit(nogil=True)
def _categorical(
    rows, category, tag, column, keys, codes, shared, bins, tally, registers, register_bits, values, place
):
    """Returns whether any value had no bin of its own. Those are entered into `registers`, if it has any length."""
    unseen = len(bins) - 1
    apart = False
    for first in range(0, len(rows), BLOCK):
        count = 0
        for i in range(first, min(first + BLOCK, len(rows))):
            row = rows[i]
            kind = tag[row, column]
            if kind == TAG_MISSING:
                tally[MISSING] += 1
            elif kind == TAG_INVALID:
                tally[INVALID] += 1
            else:
                values[count] = category[row, column]
                count += 1
        _below(keys, values, count, place)
        for i in range(count):
            found = np.int64(place[i]) - 1
            if found >= 0 and keys[found] == values[i]:
                bins[codes[found]] += 1
                if not shared[found]:
                    continue
            else:
                bins[unseen] += 1
            apart = True
            if len(registers):
                _register(registers, register_bits, values[i])
    return apart


@njit(nogil=True, inline="always")
def _register(registers, register_bits, value):
    """HyperLogLog: the first `register_bits` bits choose, the place of the first 1 after them counts."""
    place = np.int64(value >> np.uint64(64 - register_bits))
    rest = value << np.uint64(register_bits)
    rank = 1
    limit = 64 - register_bits + 1
    while rank < limit and not rest >> np.uint64(63):
        rest = rest << np.uint64(1)
        rank += 1
    registers[place] = max(registers[place], rank)


@njit(nogil=True)
def _unbinned(rows, tag, column, tally):
    for i in range(len(rows)):
        kind = tag[rows[i], column]
        if kind == TAG_MISSING:
            tally[MISSING] += 1
        elif kind == TAG_INVALID:
            tally[INVALID] += 1


@njit(nogil=True)
def accumulate(
    rows, number, category, tag, shape, scale, cuts, keys, codes, shared,
    bins, tally, sums, extremes, register_row, registers, register_bits,
):  # fmt: skip
    """Count `rows` (I64, ascending) of one chunk into one pane. Returns how many targets ask for a row of registers.

    number F64[n, c], category U64[n, c], tag U8[n, c]   the chunk's cells: float bits; category hashes; Tag
    shape I64[t, 6], scale F64[t, 3]                     targets: see the constants above; column -1 is not counted
    cuts F64; keys U64, codes I32, shared U8             tables of all targets, [TABLE_START:TABLE_STOP] is a target's;
                                                         shared: 1 where the code is not this key's alone
    bins U16, I32 or I64, tally same[t, 3], sums F64[t, 2], extremes F64[t, 2] (+inf, -inf when empty)
    register_row I32[tracked] (or [0])                   REGISTER_ROW -> row of registers U8[k, 2^bits], NO_ROW or ASKED_FOR
    """
    numbers = np.empty(BLOCK, np.float64)
    hashes = np.empty(BLOCK, np.uint64)
    place = np.empty(BLOCK, np.uint32)
    none = np.empty(0, np.uint8)
    asking = 0
    for t in range(len(shape)):
        column, kind, start, stop = shape[t, COLUMN], shape[t, TARGET_KIND], shape[t, TABLE_START], shape[t, TABLE_STOP]
        if column < 0:
            continue
        last = shape[t + 1, FIRST_BIN] if t + 1 < len(shape) else len(bins)
        mine = bins[shape[t, FIRST_BIN] : last]
        if kind == NUMERIC:
            table = cuts[start:stop]
            _numeric(rows, number, tag, column, scale[t], table, mine, tally[t], sums[t], extremes[t], numbers, place)
        elif kind == CATEGORICAL:
            known, code, others = keys[start:stop], codes[start:stop], shared[start:stop]
            at = shape[t, REGISTER_ROW]
            row = np.int64(register_row[at]) if len(register_row) else NO_ROW
            chosen = none if row < 0 else registers[row]
            apart = _categorical(
                rows, category, tag, column, known, code, others, mine, tally[t], chosen, register_bits, hashes, place
            )
            if apart and row < 0 and len(register_row):
                register_row[at] = ASKED_FOR
                asking += 1
        else:
            _unbinned(rows, tag, column, tally[t])
    return asking


@njit(nogil=True)
def register(rows, category, tag, shape, keys, codes, shared, targets, register_row, registers, register_bits):
    """Enter what `accumulate` left, of the same rows, for `targets` (I64) that have got a row since: nothing is counted."""
    hashes = np.empty(BLOCK, np.uint64)
    place = np.empty(BLOCK, np.uint32)
    for t in targets:
        start, stop = shape[t, TABLE_START], shape[t, TABLE_STOP]
        known, code, others = keys[start:stop], codes[start:stop], shared[start:stop]
        spare = np.zeros(code.max() + 2 if len(code) else 1, np.int32)
        own = registers[register_row[shape[t, REGISTER_ROW]]]
        _categorical(
            rows, category, tag, shape[t, COLUMN], known, code, others, spare, np.zeros(3, np.int32), own,
            register_bits, hashes, place,
        )  # fmt: skip
