"""The strata of a target's reference, and how they are stored: sections that a profile without strata does not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_SECTIONS = (("windows", "<i8"), ("counts", "<i8"), ("rank", "<i8"), ("order", "<f8"), ("tie", "<f8"))
_FIRST, _BOUNDS = "first", "bounds"  # written where any target has them, so that a file without keeps its id
_PREFIX = "strata_"


class Rows(Protocol):
    """An array, or what gives its rows one at a time."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, row: int, /) -> NDArray[Any]: ...


Put = Callable[[NDArray[Any]], Rows]


@dataclass(frozen=True, slots=True, eq=False)
class Strata:
    """A target whose windows are ranked among those of the same hour (sequential/strata.py), or of about the same number of events
    (sequential/size_strata.py). n strata have enough windows.

    by           "hour_of_day", "hour_of_week" or "window_size"
    windows      I64[24, 168 or n]: reference windows of each; the rows below are of those with enough of them, in their order
    counts       I64[n, b + 2]: events of their windows; in the fewest bits in a `slim` profile
    rank         I64[n, r]: which order statistics are kept, each row increasing from 1 to the hour's windows
    order, tie   F64[n, s, r]: value and tie-break of each statistic at those ranks; F32, and perhaps on disk, in a `slim` profile
    first        I64[n, k]: the rows of these hours among those that chose the cuts, by bin, missing, invalid; the bins of a numeric
                 target are one. Shares are scored by them. All 0 where shares are scored by the rows of all strata together
    bounds       I64[n - 1] of sizes: windows of fewer than bounds[i] events are of strata 0 .. i; empty of hours
    """

    by: str
    windows: I64
    counts: NDArray[Any]
    rank: I64
    order: Rows
    tie: Rows
    first: NDArray[Any]
    bounds: I64 = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def by_clock(self) -> bool:
        return not len(self.bounds)


def slim_strata(strata: Strata, equal: dict[bytes, I64], put: Put | None) -> Strata:
    """For detectors: compared in float32, read-only as all tables, counts in as few bits as hold them.

    `equal`: arrays by their bytes, which targets share. `put` says where order and tie are kept.
    """
    order, tie = (np.asarray(each, np.float32) for each in (strata.order, strata.tie))
    order.flags.writeable = tie.flags.writeable = False
    counts, first = (each.astype(np.min_scalar_type(int(each.max()))) for each in (strata.counts, strata.first))
    windows, rank = (equal.setdefault(each.tobytes(), each) for each in (strata.windows, strata.rank))
    put = put or _here
    return replace(strata, order=put(order), tie=put(tie), counts=counts, windows=windows, rank=rank, first=first)


def _here(array: NDArray[Any]) -> Rows:
    return array


def strata_sections(strata: Sequence[Strata | None]) -> dict[str, NDArray[Any]]:
    """One entry a target, one after the other under each name; "<name>.length" says where they are split. {} without any."""
    if not any(strata):
        return {}
    sections: dict[str, NDArray[Any]] = {}
    by_hour = any(one is not None and one.first.any() for one in strata)
    by_size = any(one is not None and not one.by_clock for one in strata)
    for name, dtype in _sections(by_hour=by_hour, by_size=by_size):
        empty = np.empty(0, dtype)
        parts = [empty if one is None else np.asarray(getattr(one, name), dtype).reshape(-1) for one in strata]
        sections[_PREFIX + name] = np.concatenate(parts)
        sections[f"{_PREFIX}{name}.length"] = np.array([len(part) for part in parts], "<i8")
    return sections


def _sections(*, by_hour: bool, by_size: bool) -> list[tuple[str, str]]:
    return [*_SECTIONS, *[(_FIRST, "<i8")][:by_hour], *[(_BOUNDS, "<i8")][:by_size]]


def kinds_of_strata(sections: Mapping[str, NDArray[Any]]) -> tuple[bool, bool]:
    """(whether shares are scored by the rows of their hour, whether targets have strata by size): older programs cannot read them."""
    return _PREFIX + _FIRST in sections, _PREFIX + _BOUNDS in sections


def strata_of(
    by: Sequence[str | None], sections: Mapping[str, NDArray[Any]], widths: Sequence[int]
) -> list[Strata | None]:
    """Inverse of `strata_sections`. by: of each target, None without strata; widths: b + 2 of each."""
    if not any(by):
        return [None] * len(by)
    parts = {}
    by_hour, by_size = kinds_of_strata(sections)
    for name, _ in _sections(by_hour=by_hour, by_size=by_size):
        ends = np.cumsum(sections[f"{_PREFIX}{name}.length"])
        parts[name] = np.split(sections[_PREFIX + name], ends[:-1])
    found: list[Strata | None] = []
    for i, (kind, width) in enumerate(zip(by, widths, strict=True)):
        if kind is None:
            found.append(None)
            continue
        counts = parts["counts"][i].astype(np.int64).reshape(-1, width)
        rank = parts["rank"][i].astype(np.int64).reshape(len(counts), -1)
        shape = (*rank.shape[:1], -1, rank.shape[1])
        order, tie = (parts[name][i].astype(np.float64).reshape(shape) for name in ("order", "tie"))
        rows = len(counts)
        first = parts[_FIRST][i].astype(np.int64).reshape(rows, -1) if by_hour else np.zeros((rows, 3), np.int64)
        bounds = parts[_BOUNDS][i].astype(np.int64) if by_size else np.empty(0, np.int64)
        found.append(Strata(kind, parts["windows"][i].astype(np.int64), counts, rank, order, tie, first, bounds))
    return found
