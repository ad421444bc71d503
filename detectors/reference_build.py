"""References from rows: of a file, or of a sample of the stream.

The first 15 % of the rows choose cut points and scores; the others make the windows that live windows are ranked among. So
neither the choice of cuts nor the error of a quantile enters the guarantee. For the same reason a category counts as known
only when those first rows have it: the reference's own windows must meet new ones as often as live windows do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.column_values import VALID, Cells, read_cells, read_column
from detectors.reference import (
    COVERS_BINNINGS,
    COVERS_CONTENT,
    BadReference,
    ReferenceProfile,
    TargetReference,
    WindowInfo,
    WindowRule,
    with_id,
)
from detectors.reference_kept import KeptWindows, kept, kept_of_values, kept_places
from detectors.reference_summary import column_summary, counts_summary
from detectors.reference_targets import WINDOWS_MIN, first_rows, ranked_target, target_dependence
from detectors.reference_windows import (
    EVENTS_MIN,
    bins_of,
    count_windows,
    equal_windows,
    shuffled,
    window_ends,
    window_size,
    window_starts,
    windows_in_time,
)
from detectors.sequential.strata import Season
from detectors.sequential.windows_auto import LENGTHS_MS, Choice, Ratio, choose_window
from detectors.sequential.windows_auto import WINDOWS_MIN as AUTO_WINDOWS_MIN
from detectors.verdict import AUTO_EVENTS_MIN

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]

__all__ = [
    "Cells",
    "WindowCounts",
    "build_reference",
    "build_with_windows",
    "choose_binnings",
    "choosing_rows",
    "left_out",
    "profile_from_windows",
]

FIRST_SHARE = 0.15  # of the rows chooses cuts and scores
NOT_WATCHED = ": not watched, for none of the "
NO_BINS = "rows that choose its bins has a valid value"
TIME_MS_MAX = 1 << 52  # beyond it, window arithmetic in ms would leave int64's comfortable half


class TooFewRows(BadReference):
    """Not enough rows for cut points and the smallest number of windows."""


class EmptyColumn(BadReference):
    """No column has a valid value among the rows that choose the bins."""


class UnequalColumns(BadReference):
    """Columns of different lengths, or a column without a role."""


class BadTimes(BadReference):
    """Times that are not int64 milliseconds, one for each row."""


@dataclass(frozen=True, slots=True, eq=False)
class WindowCounts:
    """One closed window of merged panes: counts[i] is I64[bins + 2] of target i (missing, invalid last), sums F64[t, 2] of
    (x - centre) and its square, extremes F64[t, 2], out_of_range I64[t]; None: not known of a window that an earlier version counted.
    """

    start_ms: int
    events: int
    counts: tuple[I64, ...]
    sums: F64
    extremes: F64
    out_of_range: I64 | None = None


def build_reference(
    model: str,
    columns: Mapping[str, NDArray[Any]],
    roles: Mapping[str, str],
    *,
    kinds: Mapping[str, str] | None = None,
    time_ms: I64 | None = None,
    window: WindowRule | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    origin: Mapping[str, Any] | None = None,
    season: Season = Season.AUTO,
) -> ReferenceProfile:
    """Profile of a file's rows; float64/int/bool/object/str columns, roles name -> "feature"|"prediction"|"score".

    Without `time_ms` the rows are shuffled (by a hash of their number) into equal windows: exchangeability with live windows
    cannot be checked then. Raises TooFewRows, EmptyColumn, UnequalColumns, BadTimes, UnknownKind. Memory: about 8 bytes a
    value besides the columns.

    A column without a valid value among the rows that choose its bins is left out, and a note says so, as `choose_binnings`
    does; EmptyColumn where that leaves none.
    """
    return build_with_windows(
        model, columns, roles, kinds=kinds, time_ms=time_ms, window=window, ranges=ranges, origin=origin, season=season
    )[0]


def build_with_windows(
    model: str,
    columns: Mapping[str, NDArray[Any]],
    roles: Mapping[str, str],
    *,
    kinds: Mapping[str, str] | None = None,
    time_ms: I64 | None = None,
    window: WindowRule | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    origin: Mapping[str, Any] | None = None,
    season: Season = Season.AUTO,
) -> tuple[ReferenceProfile, tuple[I64, ...], I64 | None]:
    """`build_reference`, and what a profile does not keep of its list windows, in time order: for each of its targets the counts
    I64[windows, b + 2], and their starts in ms (None: without time).
    """
    rule, kinds, ranges = window or WindowRule(), kinds or {}, ranges or {}
    rows = _rows(columns, roles, time_ms)
    order = _in_order(rows, time_ms)
    rows_first = int(FIRST_SHARE * rows)
    _enough_rows(rows, rows_first, rule)
    notes: list[str] = []
    first: list[TargetReference] = []
    bins: list[I64] = []
    first_bins: list[I64] = []
    summaries = []
    for name in sorted(columns):
        column = read_column(name, columns[name], roles[name], kinds.get(name)).take(order)
        start = column.take(slice(0, rows_first))
        if not np.any(start.state == VALID):
            notes.append(_without_bins(name, rows_first))
            continue
        first.append(first_rows(name, roles[name], start, ranges.get(name), notes))
        first_bins.append(bins_of(first[-1].binning, start))
        bins.append(bins_of(first[-1].binning, column.take(slice(rows_first, rows))).astype(np.int32))
        summaries.append(column_summary(column))
    if not first:
        raise EmptyColumn(f"no column has a valid value in the first {rows_first} rows, which choose the bins")
    first_ms, row_ms = (None, None) if time_ms is None else np.split(time_ms[order], [rows_first])
    info, cut = _file_windows(first, bins, row_ms, rule, season=season, notes=notes)
    of_row, count = cut
    if count < WINDOWS_MIN:
        raise TooFewRows(
            f"{count} windows in {rows - rows_first} rows; {WINDOWS_MIN} are needed: more rows, or shorter windows"
        )
    targets, windows = [], []
    start_ms = end_ms = None
    if row_ms is not None:
        start_ms = window_starts(row_ms, of_row, count)
        end_ms = window_ends(row_ms, of_row, count, info.every_ms, rule.resolution_ms)
    for target, row_bins, chose, (summary, extremes) in zip(first, bins, first_bins, summaries, strict=True):
        counts = count_windows(row_bins, target.binning.bins + 2, of_row, count)
        own = None if first_ms is None else (chose, first_ms)
        done = ranked_target(target, counts, rule, info.every_ms, start_ms, end_ms, own, notes=notes, season=season)
        column = read_column(target.name, columns[target.name], target.role, kinds.get(target.name))
        column = column.take(order).take(slice(rows_first, rows))  # read twice: all at once would cost 8 bytes a value
        keep = kept_of_values(target.binning, counts, column.value, of_row, column.state == VALID)
        targets.append(replace(done, summary=summary, minimum=extremes[0], maximum=extremes[1], kept=keep))
        windows.append(counts)
    profile = ReferenceProfile(
        id="",
        model=model,
        targets=tuple(targets),
        windows=info,
        rows=rows,
        origin=dict(origin or {}),
        notes=tuple(notes),
        covers=COVERS_CONTENT,
    )
    return with_id(profile), tuple(windows), start_ms


def choosing_rows(rows: int, time_ms: I64 | None) -> I64:
    """Numbers of the rows of a file that choose the bins: the first by time, or of the shuffled ones."""
    return _in_order(rows, time_ms)[: int(FIRST_SHARE * rows)]


def left_out(profile: ReferenceProfile) -> dict[str, str]:
    """Columns that it lacks because no row that chooses their bins has a valid value: name -> its note."""
    return {note.rpartition(NOT_WATCHED)[0]: note for note in profile.notes if note.endswith(NO_BINS)}


def _in_order(rows: int, time_ms: I64 | None) -> I64:
    return shuffled(rows) if time_ms is None else np.argsort(time_ms, kind="stable")


def _without_bins(name: str, rows: int) -> str:
    return f"{name}{NOT_WATCHED}{rows} {NO_BINS}"


def _rows(columns: Mapping[str, NDArray[Any]], roles: Mapping[str, str], time_ms: I64 | None) -> int:
    lengths = {name: len(values) for name, values in columns.items()}
    if not lengths:
        raise UnequalColumns("no columns")
    rows = next(iter(lengths.values()))
    for name, length in lengths.items():
        if length != rows:
            raise UnequalColumns(f"{name} has {length} rows, {next(iter(lengths))} has {rows}")
        if name not in roles:
            raise UnequalColumns(f"{name} has no role")
    if time_ms is not None:
        if time_ms.dtype != np.int64 or time_ms.shape != (rows,):
            raise BadTimes(f"times are {time_ms.dtype}{time_ms.shape}, not int64[{rows}]")
        if rows and int(np.abs(time_ms).max()) > TIME_MS_MAX:
            raise BadTimes("a time is not in milliseconds since 1970")
    return rows


def _enough_rows(rows: int, rows_first: int, rule: WindowRule) -> None:
    size = max(rule.min_events if not rule.auto else 0, EVENTS_MIN)
    if (rows - rows_first) // size < WINDOWS_MIN:
        needed = math.ceil(WINDOWS_MIN * size / (1.0 - FIRST_SHARE))
        raise TooFewRows(f"{rows} rows; {WINDOWS_MIN} windows of {size} events and the cut points need {needed}")


def _file_windows(
    first: Sequence[TargetReference],
    bins: Sequence[I64],
    time_ms: I64 | None,
    rule: WindowRule,
    *,
    season: Season,
    notes: list[str],
) -> tuple[WindowInfo, tuple[I32, int]]:
    """The windows of a file's rows, and which window each row is in."""
    every, auto, min_events = rule.every_ms, {}, rule.min_events
    if time_ms is None:
        notes.append(
            "exchangeability not checkable: the rows have no time; they were shuffled into windows of equal size"
        )
        rows = len(bins[0])
        size = window_size(rows, rule.min_events)
        cut, min_events = equal_windows(rows, size), size
    else:
        if rule.auto:
            rule = replace(rule, min_events=rule.min_events or AUTO_EVENTS_MIN)
            choice = _auto(first, bins, time_ms, rule, season)
            every, auto, min_events = choice.length_ms, _auto_info(choice), rule.min_events
            if not choice.holds:
                notes.append(
                    "window auto: at no length do the reference's windows follow each other as if independent; "
                    "the promise then rests on the tolerance alone"
                )
        cut = windows_in_time(time_ms, rule, every)
    size_of = np.bincount(cut[0][cut[0] >= 0], minlength=1)
    info = WindowInfo(
        count=cut[1],
        every_ms=every,
        min_events=min_events,
        max_duration_ms=rule.max_duration_ms,
        resolution_ms=rule.resolution_ms,
        size_min=int(size_of.min()),
        size_max=int(size_of.max()),
        checked=time_ms is not None,
        auto=auto,
    )
    return info, cut


def _auto(
    first: Sequence[TargetReference], bins: Sequence[I64], time_ms: I64, rule: WindowRule, season: Season
) -> Choice:
    lengths = sorted({rule.resolution_ms, *(ms for ms in LENGTHS_MS if ms % rule.resolution_ms == 0)})

    def judge(length: int) -> tuple[int, list[Ratio]]:
        of_row, count = windows_in_time(time_ms, rule, length)
        if count < AUTO_WINDOWS_MIN:
            return count, [Ratio(math.inf, math.nan)]
        starts = window_starts(time_ms, of_row, count)
        return count, [
            target_dependence(t, count_windows(b, t.binning.bins + 2, of_row, count), length, starts, season)
            for t, b in zip(first, bins, strict=True)
        ]

    return choose_window(lengths, judge)


def _auto_info(choice: Choice) -> dict[str, Any]:
    tried = [{"every_ms": ms, "windows": count, "targets_that_hold": share} for ms, count, share in choice.tried]
    return {"holds": choice.holds, "tried": tried}


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

    A column without a valid value is left out, and a note says so: a stream must not stop for it.
    """
    kinds, ranges, texts = kinds or {}, ranges or {}, texts or {}
    notes: list[str] = []
    targets = []
    rows = 0
    for name in sorted(columns):
        raw = columns[name]
        if isinstance(raw, Cells):
            column = read_cells(name, raw, roles[name], kinds.get(name), texts)
        else:
            column = read_column(name, raw, roles[name], kinds.get(name))
        rows = len(column)
        if not np.any(column.state == VALID):
            notes.append(_without_bins(name, rows))
            continue
        targets.append(first_rows(name, roles[name], column, ranges.get(name), notes))
    profile = ReferenceProfile(
        id="",
        model=model,
        targets=tuple(targets),
        windows=WindowInfo(0, 0, 0, 0, 0, 0, 0, checked=True),
        rows=rows,
        origin=dict(origin or {}),
        notes=tuple(notes),
        covers=COVERS_BINNINGS,
    )
    return with_id(profile)


def profile_from_windows(
    learning: ReferenceProfile, windows: Sequence[WindowCounts], *, window: WindowRule | None = None
) -> ReferenceProfile:
    """Complete a learnt profile from the windows counted with its binnings; the id stays the same.

    `window`: the rule by which the windows were cut. Raises TooFewRows.
    """
    rule = window or WindowRule()
    if len(windows) < WINDOWS_MIN:
        raise TooFewRows(f"{len(windows)} windows; {WINDOWS_MIN} are needed")
    ordered = sorted(windows, key=lambda w: w.start_ms)
    notes = list(learning.notes)
    start_ms = np.array([w.start_ms for w in ordered], np.int64)
    every = rule.every_ms or int(np.median(np.diff(start_ms)))
    events = [w.events for w in ordered]
    targets = []
    for i, target in enumerate(learning.targets):
        counts = np.stack([w.counts[i] for w in ordered]).astype(np.int64)
        done = ranked_target(target, counts, rule, every, start_ms, notes=notes)
        sums = np.cumsum(np.stack([w.sums[i] for w in ordered]), axis=0)[-1]  # strictly in window order
        extremes = np.stack([w.extremes[i] for w in ordered])
        summary, (low, high) = counts_summary(target.binning, done.counts, sums, extremes)
        keep = _kept_of_windows(counts, i, ordered)
        targets.append(replace(done, summary=summary, minimum=low, maximum=high, kept=keep))
    info = WindowInfo(
        count=len(ordered),
        every_ms=every,
        min_events=rule.min_events,
        max_duration_ms=rule.max_duration_ms,
        resolution_ms=rule.resolution_ms,
        size_min=min(events),
        size_max=max(events),
        checked=True,
    )
    return replace(learning, targets=tuple(targets), windows=info, rows=learning.rows + sum(events), notes=tuple(notes))


def _kept_of_windows(counts: I64, target: int, windows: Sequence[WindowCounts]) -> KeptWindows | None:
    """Of learnt windows in time order, with counts I64[m, b + 2] of the target; None where what is out of range is not known."""
    places = kept_places(len(windows))
    chosen = [windows[place] for place in places]
    out = [each.out_of_range[target] for each in chosen if each.out_of_range is not None]
    if len(out) < len(chosen):
        return None
    sums, extremes = (np.stack([getattr(w, name)[target] for w in chosen]) for name in ("sums", "extremes"))
    return kept(counts[places], sums, extremes, np.array(out, np.int64))
