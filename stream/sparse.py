"""Non-negative integers as sections: in the smallest dtype that holds them, and sparse where that is shorter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream import container
from stream.columns import I64

_LIMITS = ((np.uint8, 0xFF), (np.uint16, 0xFFFF), (np.uint32, 0xFFFF_FFFF))


def smallest(values: NDArray[Any]) -> NDArray[Any]:
    """Non-negative integers in the smallest of u1, u2, u4, i8 that holds them all."""
    largest = int(values.max()) if values.size else 0
    for dtype, limit in _LIMITS:
        if largest <= limit:
            return values.astype(dtype)
    return values.astype(np.int64)


def sparse(name: str, values: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """`values` flat, or the non-zero ones with their places when that is shorter."""
    places = np.flatnonzero(values)
    return sparse_from(name, places, values[places], len(values))


def sparse_from(name: str, places: I64, values: NDArray[Any], length: int) -> dict[str, NDArray[Any]]:
    """The same, of `length` numbers that are zero but for `values` at `places`."""
    at, some = smallest(places), smallest(values)
    if len(at) * (at.itemsize + some.itemsize) < length * some.itemsize:
        return {name: some, name + "_at": at}
    flat = np.zeros(length, some.dtype)
    flat[places] = some
    return {name: flat}


def dense(
    name: str, sections: Mapping[str, NDArray[Any]], length: int, dtype: type[np.generic] = np.int64
) -> NDArray[Any]:
    """What `sparse` was given. Raises Malformed."""
    values, at = sections[name], sections.get(name + "_at")
    if at is None:
        if len(values) != length:
            raise container.Malformed(f"pane: {len(values)} {name}, expected {length}")
        return values.astype(dtype)
    if len(at) != len(values) or (len(at) and int(at.max()) >= length):
        raise container.Malformed(f"pane: places of {name} beyond {length}")
    dense = np.zeros(length, dtype)
    dense[at] = values
    return dense
