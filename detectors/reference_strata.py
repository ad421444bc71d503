"""The strata of a target's reference, and how they are stored: sections that a profile without strata does not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_SECTIONS = (("windows", "<i8"), ("counts", "<i8"), ("rank", "<i8"), ("order", "<f8"), ("tie", "<f8"))
_FIRST = "first"  # written where any target has it, so that a file without keeps its id
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
    """A target whose windows are ranked among those of the same hour (sequential/strata.py). n strata have enough windows.

    season       "hour_of_day" or "hour_of_week"
    windows      I64[24 or 168]: reference windows of each hour; the rows below are of those with enough of them, in their order
    counts       I64[n, b + 2]: events of their windows; in the fewest bits in a `slim` profile
    rank         I64[n, r]: which order statistics are kept, each row increasing from 1 to the hour's windows
    order, tie   F64[n, s, r]: value and tie-break of each statistic at those ranks; F32, and perhaps on disk, in a `slim` profile
    first        I64[n, k]: the rows of these hours among those that chose the cuts, by bin, missing, invalid; the bins of a numeric
                 target are one. Shares are scored by them. All 0 where shares are scored by the rows of all hours together
    """

    season: str
    windows: I64
    counts: NDArray[Any]
    rank: I64
    order: Rows
    tie: Rows
    first: NDArray[Any]


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
    for name, dtype in (*_SECTIONS, (_FIRST, "<i8")) if by_hour else _SECTIONS:
        empty = np.empty(0, dtype)
        parts = [empty if one is None else np.asarray(getattr(one, name), dtype).reshape(-1) for one in strata]
        sections[_PREFIX + name] = np.concatenate(parts)
        sections[f"{_PREFIX}{name}.length"] = np.array([len(part) for part in parts], "<i8")
    return sections


def shares_by_hour(sections: Mapping[str, NDArray[Any]]) -> bool:
    """Whether shares are scored by the rows of their hour, which older programs cannot read."""
    return _PREFIX + _FIRST in sections


def strata_of(
    seasons: Sequence[str | None], sections: Mapping[str, NDArray[Any]], widths: Sequence[int]
) -> list[Strata | None]:
    """Inverse of `strata_sections`. seasons: of each target, None without strata; widths: b + 2 of each."""
    if not any(seasons):
        return [None] * len(seasons)
    parts = {}
    by_hour = shares_by_hour(sections)
    for name in (*(name for name, _ in _SECTIONS), _FIRST) if by_hour else (name for name, _ in _SECTIONS):
        ends = np.cumsum(sections[f"{_PREFIX}{name}.length"])
        parts[name] = np.split(sections[_PREFIX + name], ends[:-1])
    found: list[Strata | None] = []
    for i, (season, width) in enumerate(zip(seasons, widths, strict=True)):
        if season is None:
            found.append(None)
            continue
        counts = parts["counts"][i].astype(np.int64).reshape(-1, width)
        rank = parts["rank"][i].astype(np.int64).reshape(len(counts), -1)
        shape = (*rank.shape[:1], -1, rank.shape[1])
        order, tie = (parts[name][i].astype(np.float64).reshape(shape) for name in ("order", "tie"))
        rows = len(counts)
        first = parts[_FIRST][i].astype(np.int64).reshape(rows, -1) if by_hour else np.zeros((rows, 3), np.int64)
        found.append(Strata(season, parts["windows"][i].astype(np.int64), counts, rank, order, tie, first))
    return found
