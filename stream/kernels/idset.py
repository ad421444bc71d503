"""A set of 96-bit ids by open addressing, over an append-only log of the ids in order of arrival.

A slot of `table` (U64 of any length below 2^32) is 0 when empty, else the id's upper 32 bits and 1 + its place in the log:
so a lookup reads the log only when 32 bits agree, and new ids are appended where a snapshot finds them. An id's lower 32 bits
times the length, over 2^32, are its first slot, so that the table can grow by a quarter. The caller keeps it at most three
quarters full; a miss then costs 8 probes at worst and 4 on average, of neighbours: one or two cache misses.
"""

# ruff: noqa: ANN001, ANN201, PLR0917 - the compiler infers the types; the docstrings state them
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False
from __future__ import annotations

import numpy as np

from detectors.compiled import njit

PLACE_BITS = 32


@njit(nogil=True)
def insert(rows, high, low, table, log_high, log_low, count, status, duplicate):
    """Add the ids of `rows` (I64) in order; `status[row] = duplicate` where the id was there. Returns the new count.

    high U64[n], low U32[n]: the chunk's ids. log_high, log_low have room for `count + len(rows)`; the table for 4/3 of that.
    """
    size = np.uint64(len(table))
    lower = np.uint64(0xFFFFFFFF)
    bits = np.uint64(PLACE_BITS)
    one = np.uint64(1)
    for i in range(len(rows)):
        row = rows[i]
        h = high[row]
        tag = h >> bits
        slot = ((h & lower) * size) >> bits
        while True:
            entry = table[slot]
            if entry == 0:
                log_high[count] = h
                log_low[count] = low[row]
                count += 1
                table[slot] = (tag << bits) | np.uint64(count)
                break
            if entry >> bits == tag:
                place = (entry & lower) - one
                if log_high[place] == h and log_low[place] == low[row]:
                    status[row] = duplicate
                    break
            slot += one
            if slot == size:
                slot = np.uint64(0)
    return count


@njit(nogil=True)
def rebuild(table, log_high, count):
    """Fill an empty `table` with the first `count` ids of the log, which are distinct."""
    size = np.uint64(len(table))
    lower = np.uint64(0xFFFFFFFF)
    bits = np.uint64(PLACE_BITS)
    one = np.uint64(1)
    for i in range(count):
        h = log_high[i]
        slot = ((h & lower) * size) >> bits
        while table[slot] != 0:
            slot += one
            if slot == size:
                slot = np.uint64(0)
        table[slot] = ((h >> bits) << bits) | np.uint64(i + 1)
