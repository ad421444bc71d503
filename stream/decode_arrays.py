"""Arrays of numbers in an event (embeddings): read after both decoding tiers, which leave them INVALID.

What stands in the column itself is the array's norm, so that an array is a numeric target like any other: missing where it
is absent or null, invalid where it is anything but an array of as many finite numbers as its model declares. The numbers go to
`Columns.arrays`. Each event with an array is read once more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stream.columns import F64, ArrayCells, Records, Tag
from stream.decode_strict import lookup, read_again
from stream.kernels.rows import Rows
from stream.mapping import Keys, Layout
from stream.strict_json import RawNumber

NORM_DIGITS = 3  # arrays that are brought to length 1 are all of one value, whatever the last bits of their numbers say
Wanted = tuple[int, int, Keys]  # column, length, where the array stands


def read_arrays(records: Records, layout: Layout, rows: Rows) -> dict[tuple[int, int], ArrayCells]:
    """Put the norms of the accepted rows' arrays into their cells; the arrays by column and length, places by record."""
    wanted: dict[int, list[Wanted]] = {}
    for each in layout.arrays:
        lengths = np.array((*each.lengths, 0), np.int64)[rows.model]  # model -1: none that is known
        mine, tag = (rows.accepted == 1) & (lengths > 0), rows.tag[:, each.column].copy()
        other = mine & (tag != Tag.MISSING)
        rows.tag[other, each.column], rows.cell[other, each.column] = Tag.INVALID, 0
        for record in np.flatnonzero(mine & (tag == Tag.INVALID)).tolist():
            wanted.setdefault(record, []).append((each.column, int(lengths[record]), layout.keys[each.column]))
    found: dict[tuple[int, int], list[tuple[int, F64]]] = {}
    data = records.buffer.data
    for record, places in wanted.items():
        start = int(records.value_start[record])
        event = read_again(bytes(data[start : start + int(records.value_length[record])]))
        for column, length, keys in places:
            numbers = numbers_of(lookup(event, keys), length)
            if numbers is not None:
                found.setdefault((column, length), []).append((record, numbers))
    return {key: _put(rows, key[0], arrays) for key, arrays in sorted(found.items())}


def numbers_of(value: Any, length: int) -> F64 | None:
    """F64[length] of what a JSON parser made of an array; None if it is none of so many numbers. Some may be infinite."""
    if not isinstance(value, list) or len(value) != length:
        return None
    kinds = set(map(type, value))
    if kinds == {RawNumber}:
        value = [float(number) for number in value]
    elif not kinds <= {int, float}:
        return None
    return np.array(value, np.float64)


def norms(values: F64) -> F64:
    """Euclidean norm of each array F64[k, length], to NORM_DIGITS digits: +-inf and NaN where it is beyond float64."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.sqrt(np.square(np.ascontiguousarray(values)).sum(axis=1))
    return np.array([float(f"{norm:.{NORM_DIGITS}g}") for norm in squares.tolist()], np.float64)


def _put(rows: Rows, column: int, arrays: list[tuple[int, F64]]) -> ArrayCells:
    values = np.stack([numbers for _, numbers in arrays])
    norm = norms(values)
    good = np.isfinite(norm)
    chosen = np.array([record for record, _ in arrays], np.int64)[good]
    rows.cell[chosen, column], rows.tag[chosen, column] = norm[good].view(np.uint64), Tag.NUMBER
    place = np.full(len(rows.accepted), -1, np.int32)
    place[chosen] = np.arange(len(chosen))
    return ArrayCells(place, values[good])
