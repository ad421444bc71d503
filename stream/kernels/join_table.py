"""Compiled parts of the join: the table that finds predictions by id, and what feedback changes.

A table belongs to one chunk of predictions. A slot (U32) is 0 when empty, else TAG_BITS of the id's upper half and 1 + the
prediction's place in the chunk. An id's lower 32 bits times the length, over 2^32, are its first slot. One id may stand there
several times, for predictions of other event times, but REUSES_MAX times at most: an id that all predictions share would
make every insertion walk over all before it.
"""

# ruff: noqa: ANN001, ANN201, PLR0917 - the compiler infers the types; the docstrings state them
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False
from __future__ import annotations

import numpy as np

from detectors.compiled import njit

PLACE_BITS = 17
CHUNK_ROWS_MAX = (1 << PLACE_BITS) - 1
REUSES_MAX = 16

# What a stream's feedback is.
CLICK, CONVERSION, LABEL = range(3)
# What became of an event of feedback that has its prediction; REVISED is counted beside the others.
MATCHED, CONTRADICTORY, RETRACTED, DUPLICATE, REVISED = range(5)
CHANGES = 5


@njit(nogil=True)
def insert(table, log_high, log_low, first, stop):
    """Enter the places [first, stop) of a chunk's ids U64, U32. Returns how many were left out, their id being there
    REUSES_MAX times. `table` U32, at most three quarters full afterwards.
    """
    size = np.uint64(len(table))
    half = np.uint64(32)
    lower = np.uint64(0xFFFFFFFF)
    tag_shift = np.uint64(32 + PLACE_BITS)
    left_out = 0
    for place in range(first, stop):
        high = log_high[place]
        tag = np.uint32(high >> tag_shift)
        slot = ((high & lower) * size) >> half
        seen = 0
        while table[slot] != 0:
            entry = table[slot]
            if entry >> np.uint32(PLACE_BITS) == tag:
                other = np.int64(entry & np.uint32(CHUNK_ROWS_MAX)) - 1
                if log_high[other] == high and log_low[other] == log_low[place]:
                    seen += 1
                    if seen == REUSES_MAX:
                        break
            slot += np.uint64(1)
            if slot == size:
                slot = np.uint64(0)
        if seen == REUSES_MAX:
            left_out += 1
        else:
            table[slot] = (tag << np.uint32(PLACE_BITS)) | np.uint32(place + 1)
    return left_out


@njit(nogil=True)
def find(table, log_high, log_low, log_time, base, high, low, time, slice_end, reach, best_row, best_time, after):
    """Look one chunk's predictions up for q events of feedback; chunks are given in ascending order.

    Of the predictions of the same id at t, time - reach < t <= time, the newest is found, of equally new ones the first in the
    log: best_row, best_time I64[q] keep it. after[i] = 1 where one lies in (time, slice_end). `base`: row number of place 0.
    """
    size = np.uint64(len(table))
    half = np.uint64(32)
    lower = np.uint64(0xFFFFFFFF)
    tag_shift = np.uint64(32 + PLACE_BITS)
    for i in range(len(high)):
        wanted = high[i]
        tag = np.uint32(wanted >> tag_shift)
        slot = ((wanted & lower) * size) >> half
        while table[slot] != 0:
            entry = table[slot]
            if entry >> np.uint32(PLACE_BITS) == tag:
                place = np.int64(entry & np.uint32(CHUNK_ROWS_MAX)) - 1
                if log_high[place] == wanted and log_low[place] == low[i]:
                    t = log_time[place]
                    if t > time[i]:
                        if t < slice_end[i]:
                            after[i] = 1
                    elif t > time[i] - reach and (
                        best_row[i] < 0 or t > best_time[i] or (t == best_time[i] and base + place < best_row[i])
                    ):
                        best_time[i] = t
                        best_row[i] = base + place
            slot += np.uint64(1)
            if slot == size:
                slot = np.uint64(0)


@njit(nogil=True)
def resolve(
    kind, horizons, slot, delay, value, retracts,
    last_number, last_delay, last_present, last_value, next_number,
    made_slot, made_delay, made_present, made_value, made_previous, counts,
):  # fmt: skip
    """Apply n matched events in canonical order to the states of u predictions. Returns how many changed one.

    slot I64[n]: which prediction; delay I64[n]: ms after it; last_* [u]: number (-1 = none), delay, whether there is an
    outcome, and which: the state that the newest change left; brought up to date. made_* [n]: the changes, numbered from
    `next_number`. horizons I64, counts I64[CHANGES].
    Events of one prediction at the same ms stand in one call, or a repeated conversion would not be known.
    """
    made = 0
    amount = np.zeros(len(last_number), np.float64)  # of the newest conversion of this call
    for i in range(len(slot)):
        s = slot[i]
        present = last_number[s] >= 0 and last_present[s] == 1
        new_present, new_value = 1, value[i]
        if retracts[i]:
            what = RETRACTED if present else DUPLICATE
            new_present, new_value = 0, 0.0
        elif not present:
            what = MATCHED
            if kind == CLICK:
                new_value = 1.0
        elif kind == CLICK:
            what = DUPLICATE
        elif kind == LABEL:
            what = DUPLICATE if value[i] == last_value[s] else CONTRADICTORY
        elif last_delay[s] == delay[i]:
            counts[DUPLICATE if amount[s] == value[i] else CONTRADICTORY] += 1  # the first in the log counts
            continue
        else:
            what = MATCHED
            new_value = last_value[s] + value[i]
        counts[what] += 1
        if what == DUPLICATE:
            continue
        if what != MATCHED:
            for h in horizons:
                if last_delay[s] < h <= delay[i]:
                    counts[REVISED] += 1
                    break
        amount[s] = value[i]
        made_slot[made], made_delay[made] = s, delay[i]
        made_present[made], made_value[made] = new_present, new_value
        made_previous[made] = last_number[s]
        last_number[s], last_delay[s] = next_number + made, delay[i]
        last_present[s], last_value[s] = new_present, new_value
        made += 1
    return made
