"""The windows of a reference: cut in time by the rule of live windows, or a seeded shuffle cut into equal parts."""

# ruff: noqa: PLR0917 - compiled kernels take their arrays one by one

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.binning import Binning, Kind, assign_bins, assign_categories
from detectors.column_values import INVALID, VALID, Column
from detectors.compiled import compiled
from detectors.reference import WindowRule
from detectors.sequential.uniforms import uniform

I64 = NDArray[np.int64]
I32 = NDArray[np.int32]

SHUFFLE_SEED = 0x64726966746C696E  # any constant: the same rows always make the same windows
EVENTS_MIN = 50  # of rows without time: nothing shows that short windows are independent, and they tell little of tails
EVENTS_DEFAULT = 500  # of rows without time, where nobody said otherwise: more would only be slower
WINDOWS_WANTED = 400  # the yardstick is the rank among them: 1 in 400 is the rarest that a window can be


@compiled
def _cut(
    edge: I64, events: I64, every_ms: int, min_events: int, longest_ms: int, resolution_ms: int, window: I32
) -> int:
    """Fill window I32[panes] with the number of each pane's window, -1 = in none that closed with enough. Returns how many there are.

    stream.windows.WindowList in one pass: close at max(start + every, end of the last pane) with min_events in it, or
    unjudged at start + longest (0 = never).
    """
    count, first, total, start, last = 0, -1, 0, 0, 0
    for i in range(len(edge) + 1):
        until = edge[i] if i < len(edge) else last  # what is open at the end closes only if it could
        if first >= 0:
            enough = total >= min_events
            end = max(start + every_ms, last) if enough else start + longest_ms
            if (enough or longest_ms > 0) and end <= until:
                for j in range(first, i):
                    window[j] = count if enough else -1
                count += enough
                first = -1
        if i == len(edge):
            break
        if first < 0:
            first, total, start = i, 0, edge[i]
        last = edge[i] + resolution_ms
        total += events[i]
    if first >= 0:
        window[first:] = -1
    return count


def windows_in_time(time_ms: I64, rule: WindowRule, every_ms: int) -> tuple[I32, int]:
    """(window of every row, -1 = none; number of windows). time_ms I64[n] ascending. O(n)."""
    resolution = rule.resolution_ms
    edge, first, events = np.unique(time_ms // resolution * resolution, return_index=True, return_counts=True)
    every = max(1, -(-every_ms // resolution)) * resolution
    longest = -(-rule.max_duration_ms // resolution) * resolution
    of_pane = np.full(len(edge), -1, np.int32)
    longest = max(every, longest) if longest else 0
    count = _cut(
        edge.astype(np.int64), events.astype(np.int64), every, max(1, rule.min_events), longest, resolution, of_pane
    )
    return np.repeat(of_pane, np.diff(np.append(first, len(time_ms)))), count


def window_starts(time_ms: I64, of_row: I32, count: int) -> I64:
    """Time I64[count] of the first row of each window."""
    inside = np.flatnonzero(of_row >= 0)
    found: I64 = time_ms[inside[np.searchsorted(of_row[inside], np.arange(count))]]
    return found


def window_ends(time_ms: I64, of_row: I32, count: int, every_ms: int, resolution_ms: int) -> I64:
    """End I64[count] of each window, as `stream.windows.WindowList` says it: after every_ms, else with its last pane."""
    inside = np.flatnonzero(of_row >= 0)
    last = time_ms[inside[np.searchsorted(of_row[inside], np.arange(count), side="right") - 1]]
    start = window_starts(time_ms, of_row, count) // resolution_ms * resolution_ms
    every = max(1, -(-every_ms // resolution_ms)) * resolution_ms
    found: I64 = np.maximum(start + every, (last // resolution_ms + 1) * resolution_ms)
    return found


def equal_windows(rows: int, size: int) -> tuple[I32, int]:
    """Rows one after the other into windows of `size`; what is left over is in none."""
    count = rows // size
    window = (np.arange(rows) // size).astype(np.int32)
    window[count * size :] = -1
    return window, count


def window_size(rows: int, min_events: int) -> int:
    """Events of a window of `rows` rows without time: for 400 windows if the rows allow, but not under 50."""
    return max(EVENTS_MIN, min(rows // WINDOWS_WANTED, min_events or EVENTS_DEFAULT))


@compiled
def _keys(rows: int, seed: np.uint64) -> NDArray[np.float64]:
    out = np.empty(rows)
    for i in range(rows):
        out[i] = uniform(seed, i)
    return out


def shuffled(rows: int) -> I64:
    """An order of `rows` rows that is the same everywhere: by a hash of their number."""
    return np.argsort(_keys(rows, np.uint64(SHUFFLE_SEED)), kind="stable").astype(np.int64)


def bins_of(binning: Binning, column: Column) -> I64:
    """Bin of every row: 0 .. b - 1, b = missing, b + 1 = invalid."""
    b = binning.bins
    out = np.full(len(column), b, np.int64)
    out[column.state == INVALID] = b + 1
    valid = column.state == VALID
    if binning.kind is Kind.NUMERIC:
        out[valid] = assign_bins(binning, column.value[valid])
    else:
        out[valid] = assign_categories(binning, column.hash[valid])
    return out


def count_windows(bins: I64, width: int, window: I32, count: int) -> I64:
    """Counts I64[count, width] of the rows that are in a window."""
    inside = window >= 0
    flat = np.bincount(window[inside].astype(np.int64) * width + bins[inside], minlength=count * width)
    return flat.reshape(count, width).astype(np.int64)
