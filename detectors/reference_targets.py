"""One target of a reference: bins from the rows that choose them, ranks from the windows of the others."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from detectors.binning import OTHER_LABEL, UNSEEN_LABEL, Binning, Kind, numeric_binning
from detectors.column_values import VALID, Column
from detectors.reference import TargetReference, WindowRule
from detectors.reference_strata import Strata
from detectors.reference_windows import bins_of
from detectors.sequential.reference_ranks import first_by_hour, grouped, ranked, ranked_strata, window_statistics
from detectors.sequential.size_strata import WINDOW_SIZE, size_bounds, size_strata
from detectors.sequential.strata import HOURS, Season, choose, hours_of, within_hours
from detectors.sequential.strata import WINDOWS_MIN as STRATUM_WINDOWS_MIN
from detectors.sequential.tolerance_auto import block_effects
from detectors.sequential.windows_auto import SHARES_TESTED, Ratio, choose_group, dependence

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

WINDOWS_MIN = 20  # below it a window's rank says next to nothing
CATEGORIES_MAX = 30  # with a bin of their own: each costs 1 KB a series, and the false alarms are shared among them
CATEGORY_ROWS_MIN = 5  # of the first rows: the share of a rarer category is not known to a factor of two
KNOWN_MAX = 100_000  # categories that are told from unseen ones, 12 bytes each in every collector


def tested_statistics(target: TargetReference, windows: I64) -> tuple[F64, F64]:
    """(statistic, tie-break) F64[m, s] of the series by which windows I64[m, b + 2] are tested for independence; the first one
    is the mean score of a numeric target, the most frequent share of a categorical one.
    """
    statistics, ties = window_statistics(target.binning, target.name, target.first, windows)
    if target.binning.kind is Kind.CATEGORICAL:
        frequent = np.argsort(-target.first, kind="stable")[:SHARES_TESTED]
        statistics, ties = statistics[:, frequent], ties[:, frequent]
    return statistics, ties


def target_dependence(
    target: TargetReference, windows: I64, length_ms: int, start_ms: I64 | None = None, season: Season = Season.NONE
) -> Ratio:
    """Of windows I64[m, b + 2], starting at start_ms I64[m], within the strata that they would be given."""
    statistics, ties = tested_statistics(target, windows)
    stratum = choose(season, start_ms, statistics, ties, length_ms).stratum
    if stratum is None:
        sizes = windows.sum(axis=1)
        bounds = size_bounds(sizes)
        stratum = size_strata(bounds, sizes) if len(bounds) else None
    return dependence(statistics, ties, length_ms, stratum)


def group_starts(start_ms: I64, group: int) -> I64:
    """Starts of `grouped` windows."""
    return start_ms[: len(start_ms) // group * group : group]


def group_ends(end_ms: I64, group: int) -> I64:
    """Ends of `grouped` windows."""
    return end_ms[group - 1 :: group]


def first_rows(
    name: str, role: str, column: Column, limits: tuple[float, float] | None, notes: list[str]
) -> TargetReference:
    """Binning and counts of the rows that choose it; everything else is still empty."""
    valid = column.state == VALID
    numeric = column.kind is Kind.NUMERIC
    binning = numeric_binning(column.value[valid], limits) if numeric else categories(name, column, valid, notes)
    width = binning.bins + 2
    counts = np.bincount(bins_of(binning, column), minlength=width).astype(np.int64)
    return TargetReference(
        name=name,
        role=role,
        binning=binning,
        first=counts,
        counts=np.zeros(width, np.int64),
        rank=np.empty(0, np.int64),
        order=np.empty((0, 0)),
        tie=np.empty((0, 0)),
        windows=0,
        size_min=0,
        size_max=0,
        size_median=0,
        group=1,
        summary={},
        minimum=math.nan,
        maximum=math.nan,
    )


def categories(name: str, column: Column, valid: NDArray[np.bool_], notes: list[str]) -> Binning:
    """The most frequent categories get bins, other known ones share "__other__", all others are "__unseen__"."""
    hashes, count = np.unique(column.hash[valid], return_counts=True)
    texts = [column.texts[h] for h in hashes.tolist()]
    by_frequency = sorted(range(len(hashes)), key=lambda i: (-int(count[i]), texts[i]))
    if len(by_frequency) > KNOWN_MAX:
        notes.append(
            f"{name}: {len(by_frequency)} categories, the rarest count as unseen beyond {KNOWN_MAX}; is it an identifier?"
        )
        by_frequency = by_frequency[:KNOWN_MAX]
    reserved = {OTHER_LABEL, UNSEEN_LABEL}
    own = [i for i in by_frequency if count[i] >= CATEGORY_ROWS_MIN and texts[i] not in reserved][:CATEGORIES_MAX]
    code = {i: bin_ for bin_, i in enumerate(own)}
    known = sorted(by_frequency)  # hashes ascend with i
    return Binning(
        kind=Kind.CATEGORICAL,
        cuts=np.empty(0),
        core=(0, 0),
        centre=0.0,
        low=0.0,
        high=0.0,
        key=hashes[known],
        code=np.array([code.get(i, len(own)) for i in known], np.int32),
        labels=(*(texts[i] for i in own), OTHER_LABEL, UNSEEN_LABEL),
    )


def ranked_target(  # noqa: PLR0917 - a reference's windows, and when they and its first rows were
    target: TargetReference,
    windows: I64,
    rule: WindowRule,
    every_ms: int,
    start_ms: I64 | None,
    end_ms: I64 | None = None,
    chose: tuple[I64, I64] | None = None,
    *,
    notes: list[str],
    season: Season = Season.NONE,
) -> TargetReference:
    """The target with the counts, ranks, strata and sizes of its windows I64[m, b + 2], which began at start_ms I64[m] (None:
    without time). Where they depend on each other, with the effects of blocks. end_ms I64[m]: None = each within its hour.
    chose: bins and times in ms I64[rows] of the rows that chose the cuts; None: shares are scored by those of all hours together.
    """
    group, effects = 1, None
    if start_ms is not None and every_ms > 0:
        group, holds = _group(target, windows, rule, every_ms, strata=(start_ms, season))
        if not holds:
            stratum = choose(season, start_ms, *tested_statistics(target, windows), every_ms).stratum
            effects = block_effects(target.binning, windows, start_ms, every_ms, stratum)
            if effects is not None and max(effects.values, effects.absent) > 0.0:
                group = 1  # the tube carries the promise then, and longer windows would only be slower
            if rule.auto:
                notes.append(
                    f"{target.name}: its windows depend on each other at every length; its promise rests on the tolerance"
                )
    judged = grouped(windows, group)
    if len(judged) < WINDOWS_MIN:
        group, judged = 1, windows
    statistics, ties = window_statistics(target.binning, target.name, target.first, judged)
    rank, order, tie = ranked(statistics, ties)
    strata = None
    if start_ms is not None and season is not Season.NONE:
        times = group_starts(start_ms, group), None if end_ms is None else group_ends(end_ms, group)
        strata = _by_clock(target, judged, (statistics, ties), times, season, group * every_ms, chose)
    sizes = judged.sum(axis=1)
    if strata is None and len(bounds := size_bounds(sizes)):
        stratum, first = size_strata(bounds, sizes), np.zeros((len(bounds) + 1, 3), np.int64)
        strata = ranked_strata(WINDOW_SIZE, first, statistics, ties, stratum, judged, STRATUM_WINDOWS_MIN, bounds)
    return replace(
        target,
        counts=windows.sum(axis=0),
        rank=rank,
        order=order,
        tie=tie,
        windows=len(judged),
        size_min=int(sizes.min()),
        size_max=int(sizes.max()),
        size_median=int(np.sort(sizes)[len(sizes) // 2]),
        group=group,
        effects=effects,
        strata=strata,
    )


def _by_clock(  # noqa: PLR0917 - windows, what is known of them, and how they are wanted
    target: TargetReference,
    judged: I64,
    statistics: tuple[F64, F64],
    times: tuple[I64, I64 | None],
    season: Season,
    length_ms: int,
    chose: tuple[I64, I64] | None,
) -> Strata | None:
    """Strata of windows I64[m, b + 2] with these statistics and ties; times: their starts and ends. chose: as in `ranked_target`."""
    starts, ends = times
    inside = np.ones(len(starts), np.bool_) if ends is None else within_hours(starts, ends)
    tested, tested_ties = tested_statistics(target, judged)
    chosen = choose(season, starts[inside], tested[inside], tested_ties[inside], length_ms)
    if chosen.stratum is None:
        return None
    hours, first = HOURS[chosen.season], np.zeros((HOURS[chosen.season], 3), np.int64)
    if chose is not None:
        first = first_by_hour(target.binning, chose[0], hours_of(chosen.season, chose[1]), hours)
        by_hour = first, hours_of(chosen.season, starts)
        statistics = window_statistics(target.binning, target.name, target.first, judged, by_hour)
    values, ties = statistics
    by = chosen.season.value
    return ranked_strata(by, first, values[inside], ties[inside], chosen.stratum, judged[inside], STRATUM_WINDOWS_MIN)


def _group(
    target: TargetReference, windows: I64, rule: WindowRule, every_ms: int, *, strata: tuple[I64, Season]
) -> tuple[int, bool]:
    """(list windows that the target takes as one, whether they follow each other as if independent)."""
    start_ms, season = strata

    def ratio(group: int) -> Ratio:
        starts = group_starts(start_ms, group)
        return target_dependence(target, grouped(windows, group), group * every_ms, starts, season)

    if rule.auto:
        return choose_group(ratio)
    return 1, ratio(1).excess <= 1.0
