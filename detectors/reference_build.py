"""References from rows: of a file, or of a sample of the stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.reference import ReferenceProfile, WindowRule


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """A column as the collector has it: cell U64[n] (float64 bits | xxh3-64 of a text | 0/1), tag U8[n] (stream.columns.Tag)."""

    cell: NDArray[np.uint64]
    tag: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class WindowCounts:
    """One closed window of merged panes: counts[i] is I64[bins + 2] of target i (missing, invalid last), sums F64[t, 2] of
    (x - centre) and its square, extremes F64[t, 2].
    """

    start_ms: int
    events: int
    counts: tuple[NDArray[np.int64], ...]
    sums: NDArray[np.float64]
    extremes: NDArray[np.float64]


def build_reference(
    model: str,
    columns: Mapping[str, NDArray[Any]],
    roles: Mapping[str, str],
    *,
    kinds: Mapping[str, str] | None = None,
    time_ms: NDArray[np.int64] | None = None,
    window: WindowRule | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> ReferenceProfile:
    """Profile of a file's rows; float64/int/bool/object/str columns, roles name -> "feature"|"prediction"|"score"."""
    raise NotImplementedError


def choose_binnings(
    model: str,
    columns: Mapping[str, Cells | NDArray[Any]],
    roles: Mapping[str, str],
    *,
    kinds: Mapping[str, str] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    texts: Mapping[int, str] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> ReferenceProfile:
    """An incomplete profile (`complete` is False, windows.count 0) whose id covers the binnings: the cut points of a learnt
    reference, from the bottom-k rows of the first stretch. `texts`: hash -> category text where known.
    """
    raise NotImplementedError


def profile_from_windows(
    learning: ReferenceProfile, windows: Sequence[WindowCounts], *, window: WindowRule | None = None
) -> ReferenceProfile:
    """Complete a learnt profile from the windows counted with its binnings; the id stays the same."""
    raise NotImplementedError
