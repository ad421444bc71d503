"""Compiled judgement of time, grouping of rows, and counts as of given rows."""

# ruff: noqa: ANN001, ANN201, PLR0917 - the compiler infers the types; the docstrings state them
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False
from __future__ import annotations

import numpy as np

from detectors.compiled import njit

# What became of an event: values of `status`.
APPLIED, LATE, FUTURE, DUPLICATE, UNKNOWN = range(5)
STATUSES = 5


@njit(nogil=True)
def judge(
    event_time, record_time, largest, floor, marked, resolution, lateness, skew, status, edge, closing_row, closing_edge
):
    """Judge each event against its own log's running maximum before it. Returns (largest, number of closings).

    status[i] = APPLIED, LATE or FUTURE; edge[i] = start of the pane of an event that is APPLIED. An event is FUTURE when its
    time exceeds its record's by more than `skew` (it moves nothing), LATE below max(largest - lateness, floor).
    `marked` is EDGE_MIN or a multiple of `resolution`.
    closing_row, closing_edge: the rows after which this watermark lies in a later pane than `marked`, and that pane's start.
    All times in ms, I64; arrays have one entry per event.
    """
    closings = 0
    pane = (
        marked  # start of the pane of the last event: most events share it, and a division costs more than all the rest
    )
    watermark = max(largest - lateness, floor)
    for i in range(len(event_time)):
        time = event_time[i]
        if time > record_time[i] + skew:
            status[i] = FUTURE
            continue
        if time < watermark:
            status[i] = LATE
            continue
        status[i] = APPLIED
        if not pane <= time < pane + resolution:
            pane = (time // resolution) * resolution
        edge[i] = pane
        if time > largest:
            largest = time
            watermark = max(largest - lateness, floor)
            if watermark >= marked + resolution:
                marked = (watermark // resolution) * resolution
                closing_row[closings] = i
                closing_edge[closings] = marked
                closings += 1
    return largest, closings


@njit(nogil=True)
def group(rows, edge, model, version, table, group_of, first):
    """Number the rows by (edge, model, version) in order of first occurrence. Returns the number of groups.

    group_of[i] = group of rows[i]; first[g] = its first row. `table` I64: -1 everywhere, a power of two > 2 len(rows).
    """
    mask = np.uint64(len(table) - 1)
    groups = 0
    last = -1
    for i in range(len(rows)):
        row = rows[i]
        if last >= 0:
            seen = first[last]
            if edge[row] == edge[seen] and model[row] == model[seen] and version[row] == version[seen]:
                group_of[i] = last
                continue
        mixed = (np.uint64(edge[row]) ^ version[row]) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(model[row])
        mixed ^= mixed >> np.uint64(29)
        slot = (mixed * np.uint64(0xBF58476D1CE4E5B9) >> np.uint64(31)) & mask
        while True:
            last = table[slot]
            if last < 0:
                last = groups
                table[slot] = last
                first[last] = row
                groups += 1
                break
            seen = first[last]
            if edge[row] == edge[seen] and model[row] == model[seen] and version[row] == version[seen]:
                break
            slot = (slot + np.uint64(1)) & mask
        group_of[i] = last
    return groups


@njit(nogil=True)
def order(rows, slot_of, start, ordered):
    """Stable counting sort: ordered[start[s]:start[s + 1]] = the rows of slot s, ascending. `start` I64[slots + 1], zero."""
    for i in range(len(rows)):
        start[slot_of[i] + 1] += 1
    for s in range(1, len(start)):
        start[s] += start[s - 1]
    fill = start.copy()
    for i in range(len(rows)):
        s = slot_of[i]
        ordered[fill[s]] = rows[i]
        fill[s] += 1


@njit(nogil=True)
def tally(status, first, stops, counts):
    """counts[k, s] = events of status s in status[first:stops[k]]; `stops` ascending, counts I64[len(stops), STATUSES]."""
    running = np.zeros(STATUSES, np.int64)
    row = first
    for k in range(len(stops)):
        while row < stops[k]:
            running[status[row]] += 1
            row += 1
        counts[k] = running


@njit(nogil=True)
def segment_of(rows, category, tag, column, values, value_place, missing_tag, invalid_tag, slot_of):
    """slot_of[i] = place of rows[i]'s value among the configured ones, len(values) for any other, missing and invalid.

    values U64 sorted; value_place I64: the configured place of each.
    """
    for i in range(len(rows)):
        row = rows[i]
        slot_of[i] = len(values)
        if tag[row, column] == missing_tag or tag[row, column] == invalid_tag:
            continue
        place = np.searchsorted(values, category[row, column])
        if place < len(values) and values[place] == category[row, column]:
            slot_of[i] = value_place[place]
