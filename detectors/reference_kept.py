"""What a reference keeps of its windows, so that any series of theirs can be computed later, at any size of window.

Up to KEPT_MAX list windows, all of them or RUNS stretches of neighbours spread evenly over the reference; in the order of time.
Windows of another size are made of them without a model of the data [1]:

    smaller   events drawn without replacement: exactly a window of that many of the same events
    larger    neighbours put together, then cut down: what moves slowly stays in; as far as POOLS_MIN of them can be made

Bins are exact. Sums move by what the drawn bins say (a value stands in the middle of its bin): their mean is exact, what the
cutting adds to their spread lacks the spread within bins. Minimum and maximum are those of all events, so too wide for a
smaller window.

Cost    some 40 to 50 KB a numeric target, stored; c bins that have events: 2c bytes a window and 34 for sums and extremes
Source  [1] Politis, Romano, Wolf 1999, Subsampling, ch. 2 and 3
"""

# ruff: noqa: PLR0917 - compiled kernels take their arrays one by one

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.binning import Binning, Kind
from detectors.compiled import compiled
from detectors.sequential.thinning import hypergeometric, thin
from detectors.sequential.uniforms import seed_prefix, uniform, window_seed

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

KEPT_MAX = 400  # the yardstick everywhere: 1 in 400 is the rarest that a window can be
RUNS = 20  # stretches of neighbours of a longer reference: they show how a slow series moves, and lie over all of it
POOLS_MIN = 20  # windows put together: below it their spread says next to nothing
_SECTIONS = (("bin", "<i4"), ("counts", "<u4"), ("sums", "<f8"), ("extremes", "<f8"), ("out_of_range", "<i4"))
_PREFIX = "kept_"


@dataclass(frozen=True, slots=True, eq=False)
class KeptWindows:
    """w windows of one target: those of `kept_places`.

    bin            I64[c], ascending: bins, missing and invalid included, in which any of the windows has an event
    counts         [w, c] of those, unsigned, in the fewest bits that hold them
    sums           F64[w, 2] of (x - centre) and its square      extremes  F64[w, 2]: minimum, maximum, NaN = no value
    out_of_range   I64[w]
    """

    bin: I64
    counts: NDArray[Any]
    sums: F64
    extremes: F64
    out_of_range: I64


@dataclass(frozen=True, slots=True, eq=False)
class Resized:
    """g windows of one target, of equal size: counts I64[g, b + 2], the others as in KeptWindows."""

    counts: I64
    sums: F64
    extremes: F64
    out_of_range: I64


def kept_places(count: int) -> I64:
    """Numbers of the windows that are kept of `count` ones."""
    if count <= KEPT_MAX:
        return np.arange(count, dtype=np.int64)
    length = KEPT_MAX // RUNS
    first = np.linspace(0, count - length, RUNS).astype(np.int64)
    return (first[:, None] + np.arange(length)).reshape(-1)


def kept(counts: I64, sums: F64, extremes: F64, out_of_range: I64) -> KeptWindows:
    """Of windows I64[w, b + 2] that are to be kept."""
    some = np.flatnonzero(counts.any(axis=0))
    chosen = counts[:, some]
    narrow = np.min_scalar_type(int(chosen.max())) if chosen.size else np.uint8
    return KeptWindows(some, chosen.astype(narrow), sums, extremes, out_of_range)


def kept_of_values(
    binning: Binning, windows: I64, value: F64, window: NDArray[np.int32], valid: NDArray[np.bool_]
) -> KeptWindows:
    """Of a file's rows: windows I64[m, b + 2]; value F64[n], its window (-1 = none) and whether there is one. O(n).

    Sums are taken row by row, in order: the same rows give the same bits everywhere.
    """
    places = kept_places(len(windows))
    w = len(places)
    sums, extremes, out = np.zeros((w, 2)), np.full((w, 2), np.nan), np.zeros(w, np.int64)
    if binning.kind is Kind.NUMERIC:
        row_of = np.full(len(windows) + 1, -1, np.int64)  # the last place is for rows without a window
        row_of[places] = np.arange(w)
        chosen = row_of[window]
        use = valid & (chosen >= 0)
        row, x = chosen[use], value[use]
        moved = x - binning.centre
        sums = np.stack([np.bincount(row, part, minlength=w) for part in (moved, moved * moved)], axis=1)
        np.fmin.at(extremes[:, 0], row, x)
        np.fmax.at(extremes[:, 1], row, x)
        out = np.bincount(row[(x < binning.low) | (x > binning.high)], minlength=w).astype(np.int64)
    return kept(windows[places], sums, extremes, out)


def sizes(windows: KeptWindows, count: int) -> tuple[int, int]:
    """(smallest, largest) size to which windows can be brought; `count`: of the reference's windows. O(windows)."""
    events = windows.counts.sum(axis=1, dtype=np.int64)
    places = kept_places(count)
    low, high = int(events.min()), int(events.sum()) // POOLS_MIN
    while high > low and len(_pools(events, places, high)[0]) < POOLS_MIN:
        high = max(low, int(high * 0.9))
    return low, high


def resize_seed(target: str, reference_id: str, size: int) -> np.uint64:
    """What windows of a target are cut to `size` with."""
    return np.uint64(window_seed(seed_prefix(target, reference_id), size))


def resized(windows: KeptWindows, binning: Binning, count: int, size: int, seed: np.uint64) -> Resized:
    """Windows of exactly `size` events each; the same in every run. `count`: of the reference's windows. About 15 us a window."""
    events = windows.counts.sum(axis=1, dtype=np.int64)
    first, stop = _pools(events, kept_places(count), size)
    width = binning.bins + 2
    whole = np.zeros((len(first), width), np.int64)
    whole[:, windows.bin] = _pooled(windows.counts.astype(np.int64), first, stop)
    out_of_range = _pooled(windows.out_of_range, first, stop)
    cut, cut_out = np.empty_like(whole), np.empty_like(out_of_range)
    _cut_all(whole, out_of_range, size, seed, cut, cut_out)
    extremes = np.full((len(first), 2), np.nan)
    sums = np.zeros((len(first), 2))
    if binning.kind is Kind.NUMERIC:
        for row, (a, b) in enumerate(zip(first.tolist(), stop.tolist(), strict=True)):
            extremes[row] = np.fmin.reduce(windows.extremes[a:b, 0]), np.fmax.reduce(windows.extremes[a:b, 1])
        sums = _cut_sums(binning, whole, cut, _pooled(windows.sums, first, stop), extremes)
    return Resized(cut, sums, extremes, cut_out)


def _pools(events: I64, places: I64, size: int) -> tuple[I64, I64]:
    """First and last + 1 of the neighbours that are put together until they have `size` events, one after the other."""
    firsts, stops = [], []
    first, total = 0, 0
    for i, (now, place) in enumerate(zip(events.tolist(), places.tolist(), strict=True)):
        if i and place != places[i - 1] + 1:
            first, total = i, 0
        total += now
        if total >= size:
            firsts.append(first)
            stops.append(i + 1)
            first, total = i + 1, 0
    return np.array(firsts, np.int64), np.array(stops, np.int64)


def _pooled(parts: NDArray[Any], first: I64, stop: I64) -> NDArray[Any]:
    """Sums of parts[first:stop]; nothing is subtracted, so that a window that stands alone keeps its bits."""
    chosen = np.stack([first, stop], axis=1).reshape(-1)
    padded = np.concatenate([parts, np.zeros((1, *parts.shape[1:]), parts.dtype)])
    found: NDArray[Any] = np.add.reduceat(padded, chosen, axis=0)[::2] if len(first) else parts[:0]
    return found


@compiled
def _cut_all(whole: I64, out_of_range: I64, size: int, seed: np.uint64, cut: I64, cut_out: I64) -> None:
    """Every row cut to `size` events; those out of range on their own, for no bin says which they are."""
    rows, width = whole.shape
    for row in range(rows):
        index = row * (width + 1)
        thin(whole[row], size, seed, index, cut[row])
        total = 0
        for k in range(width):
            total += whole[row, k]
        some = out_of_range[row]
        cut_out[row] = hypergeometric(some, total - some, size, uniform(seed, index + width))


def _cut_sums(binning: Binning, whole: I64, cut: I64, sums: F64, extremes: F64) -> F64:
    """Sums of the drawn values: the mean of all of them, moved as the middles of the drawn bins say."""
    b = binning.bins
    low, high = extremes[:, :1], extremes[:, 1:]
    ends = np.concatenate(([-np.inf], binning.cuts, [np.inf]))
    lower, upper = np.fmax(ends[:-1], low), np.fmin(ends[1:], high)
    middle = np.nan_to_num((lower + upper) / 2) - binning.centre
    moved = []
    for part, x in ((0, middle), (1, middle * middle)):
        n, n_cut = whole[:, :b].sum(axis=1), cut[:, :b].sum(axis=1)
        mean = (sums[:, part] - (whole[:, :b] * x).sum(axis=1)) / np.maximum(n, 1)
        exact = n == n_cut  # nothing was drawn: not one bit changes
        moved.append(np.where(exact, sums[:, part], n_cut * mean + (cut[:, :b] * x).sum(axis=1)))
    return np.stack(moved, axis=1)


# ---- codec ----------------------------------------------------------------------------------------------------------


def kept_sections(parts: Sequence[KeptWindows | None]) -> dict[str, NDArray[Any]]:
    """One entry a target, one after the other under each name; {} unless all targets have them."""
    windows = [each for each in parts if each is not None]
    if not windows or len(windows) < len(parts):
        return {}
    sections: dict[str, NDArray[Any]] = {}
    for name, dtype in _SECTIONS:
        flat = [getattr(each, name).reshape(-1) for each in windows]
        joined = np.concatenate(flat)
        fewest = joined.dtype.newbyteorder("<") if name == "counts" else dtype  # by far the largest part
        sections[_PREFIX + name] = joined.astype(fewest)
        sections[f"{_PREFIX}{name}.length"] = np.array([len(part) for part in flat], "<i8")
    return sections


def kept_from(sections: Mapping[str, NDArray[Any]], targets: int) -> list[KeptWindows | None]:
    """Inverse of `kept_sections`; None each of a reference that was stored without."""
    if _PREFIX + "bin" not in sections:
        return [None] * targets
    parts = {}
    for name, _ in _SECTIONS:
        ends = np.cumsum(sections[f"{_PREFIX}{name}.length"])
        parts[name] = np.split(sections[_PREFIX + name], ends[:-1])
    found: list[KeptWindows | None] = []
    for i in range(targets):
        columns = parts["bin"][i].astype(np.int64)
        counts = parts["counts"][i].reshape(-1, max(len(columns), 1))
        found.append(
            KeptWindows(
                columns,
                counts.astype(np.min_scalar_type(int(counts.max(initial=0)))),
                parts["sums"][i].astype(np.float64).reshape(-1, 2),
                parts["extremes"][i].astype(np.float64).reshape(-1, 2),
                parts["out_of_range"][i].astype(np.int64),
            )
        )
    return found
