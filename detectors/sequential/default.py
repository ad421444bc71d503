"""The default detector: window-rank e-SR and tolerance tube, over the bins of one target.

Guarantee: E[number of alarms in [0, T]] <= T / (budget x cells) for a target, so <= T / budget over all cells, when live
windows are exchangeable with the reference's (rank layer), or when each event's law, given the events before it and how many
values are missing or invalid in its window, is inside the tolerance tube (tube layer): an alarm needs both layers, each of
which crosses at most that often. Bonferroni over cells and statistics. With `tolerance: auto`, also where the reference's days
have effects of their own: tolerance_auto.py says under which assumptions.

Input     counts I64[binning.bins + 2] of a window: bins, missing, invalid; its weight (time since the previous window began
          x the series' share of the model's events)
State     explicit arrays, about 3 KB a numeric target, 300 bytes a category         Cost  about 90 us a window
Refuses   BadCounts, BadWeight; the state is as before
Differs   from detectors that watch one event after the other: those break their bound under autocorrelation
Source    Shin, Ramdas, Rinaldo 2023, "E-detectors"; each layer's module names its own
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.reference import fold, masses
from detectors.sequential import default_kernel as kernel
from detectors.sequential.default_state import (
    NO_CARRY,
    RANK_ARRAYS,
    DetectorState,
    start,
    state_from_sections,
    state_to_sections,
)
from detectors.sequential.default_tables import DetectionSettings, Prepared, expected, prepare
from detectors.sequential.scores import core_masses
from detectors.sequential.thinning import thin
from detectors.sequential.tube import core_edges
from detectors.sequential.uniforms import window_seed
from detectors.verdict import BadCounts, BadWeight, Change, Level, Verdict

__all__ = [
    "DetectionSettings",
    "DetectorState",
    "Effect",
    "Prepared",
    "describe",
    "prepare",
    "start",
    "state_from_sections",
    "state_to_sections",
    "update",
]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U16 = NDArray[np.uint16]

CHANGES_MAX = 5
LOG10_NOTHING = -300.0
THIN_FIRST_UNIFORM = 1 << 20  # of the window's seed; the tie-breaks have the numbers before it

_judge: Callable[..., None] = kernel.judge


@dataclass(frozen=True, slots=True)
class Effect:
    """How a window, or several added up, differs from the reference: the most significant of location, scale, any share.

    shift, direction, inside_tube, largest_changes as in Verdict; size = |shift| (escalation goes by it), at least 0;
    share: "missing", "invalid" or the category that changed, "" = the values did.
    """

    shift: float
    size: float
    direction: str
    share: str
    inside_tube: bool
    largest_changes: tuple[Change, ...]


def update(  # noqa: PLR0917 - as Batch.update, with what it is of
    prepared: Prepared,
    state: DetectorState,
    counts: I64,
    weight_ms: float,
    window_start_ms: int,
    window_end_ms: int | None = None,
) -> Verdict:
    """Judge one window. counts I64[binning.bins + 2] (missing, invalid last); weight_ms = w_t (time since the previous
    window began times the series' share). Mutates `state`; raises BadCounts, BadWeight with the state untouched.
    Fewer events than target.size_min: INSUFFICIENT_DATA, state untouched (the caller carries). A target with hours judges what is
    within one; window_end_ms: None = this window is.
    """
    total = _checked(prepared, counts)
    if not (weight_ms >= 0.0 and math.isfinite(weight_ms)):
        raise BadWeight(f"weight {weight_ms!r} ms")
    group = prepared.target.group
    size_min, size_max = prepared.size_range
    if group > 1:
        pending, meta = state.whole("pending"), state.whole("pending_meta")
        meta[1] = window_start_ms if meta[0] == 0 else meta[1]
        meta[0] += 1
        pending += counts
        total = int(pending.sum())
        if meta[0] < group or total < size_min:
            state.pending_weight += weight_ms
            return _waiting(prepared, state, Level.OK, total)
        counts, window_start_ms = pending.copy(), int(meta[1])
        pending[:] = 0
        meta[:] = 0
    elif total < size_min:
        return _waiting(prepared, state, Level.INSUFFICIENT_DATA, total)
    row = 0 if prepared.strata is None else prepared.strata.row(window_start_ms, window_end_ms, total)
    if row < 0:  # L = 1: (R + w) 1, then (R + w + w') L
        state.pending_weight += weight_ms
        return _waiting(prepared, state, Level.OK, total)
    weight_ms, state.pending_weight = weight_ms + state.pending_weight, 0.0
    seed = np.uint64(window_seed(prepared.prefix, window_start_ms))
    thinned = total > size_max
    if thinned:
        whole, counts = counts, np.empty_like(counts)
        thin(whole, size_max, seed, THIN_FIRST_UNIFORM, counts)
    return _judged(prepared, state, counts, weight_ms, window_start_ms, row=row, seed=seed, thinned=thinned)


def _judged(
    prepared: Prepared,
    state: DetectorState,
    counts: I64,
    weight_ms: float,
    window_start_ms: int,
    *,
    row: int,
    seed: np.uint64,
    thinned: bool,
) -> Verdict:
    """Both layers, with the tables of the stratum in force."""
    clock, tables = state.clock, prepared.tables
    if clock[kernel.INDEX] == kernel.SEEN_CARRY - 1:  # so many windows may all be in one bin
        state.seen_high = np.zeros_like(state.seen_low)
    seen = state.seen_low, state.seen_high
    if prepared.strata is not None:
        tables = prepared.strata.tables(prepared, row)
        seen = state.seen_low[row], state.seen_high[row] if len(state.seen_high) else NO_CARRY
    out, effect = np.empty(kernel.FIELDS), np.empty(kernel.EFFECT_FIELDS)
    _judge(
        counts, seed, float(weight_ms), window_start_ms, prepared.latch_windows, prepared.first, prepared.core,
        *prepared.scores, tables.score_mean, tables.share_p, *tables.rank, *tables.tube,
        clock, *map(state.real, RANK_ARRAYS), *seen, state.real("recent"),
        state.real("tube"), state.real("gain"), state.whole("gain_start"), state.real("plug"), out, effect,
    )  # fmt: skip
    told = out.tolist(), effect.tolist()
    return _verdict(prepared, state, counts, reference=tables.tube[2], thinned=thinned, told=told)


def _checked(prepared: Prepared, counts: I64) -> int:
    if counts.dtype != np.int64 or counts.shape != (prepared.target.binning.bins + 2,):
        raise BadCounts(
            f"{prepared.target.name}: {counts.dtype}{counts.shape}, not int64[{prepared.target.binning.bins + 2}]"
        )
    total: int = kernel.checked_total(counts)
    if total < 0:
        raise BadCounts(f"{prepared.target.name}: negative counts")
    return total


def _latched(state: DetectorState) -> Level:
    """Level between windows: which latch is set."""
    if state.clock[kernel.RANK_LATCH] != kernel.NEVER:
        return Level.CROSSED_RANK
    return Level.CROSSED_TUBE if state.clock[kernel.TUBE_LATCH] != kernel.NEVER else Level.OK


def _waiting(prepared: Prepared, state: DetectorState, level: Level, events: int) -> Verdict:
    """The window was carried or collected: nothing was judged."""
    level = _latched(state) if level is Level.OK else level
    nothing = LOG10_NOTHING
    return Verdict(
        level, nothing, nothing, prepared.threshold_log10, since_ms=_since(state), events=events, judged=False
    )


def _since(state: DetectorState) -> int | None:
    start = int(state.clock[kernel.EXCURSION])
    return None if start == kernel.NEVER else start


def log10_of(ratio: float, threshold: float) -> float:
    return max(math.log10(ratio) + threshold, LOG10_NOTHING) if ratio > 0.0 else LOG10_NOTHING


def _verdict(
    prepared: Prepared,
    state: DetectorState,
    counts: I64,
    *,
    reference: I64,
    thinned: bool,
    told: tuple[list[float], list[float]],
) -> Verdict:
    out, effect = told
    threshold = prepared.threshold_log10
    level = Level.ALARM if out[kernel.FIRES] else _latched(state)
    return Verdict(
        level=level,
        rank_log10=log10_of(out[kernel.RANK], threshold),
        tube_log10=log10_of(out[kernel.TUBE], threshold),
        threshold_log10=threshold,
        rank_crossed=out[kernel.RANK_CROSSED] > 0.0,
        tube_crossed=out[kernel.TUBE_CROSSED] > 0.0,
        inside_tube=effect[kernel.INSIDE] > 0.0,
        shift=effect[kernel.SHIFT],
        direction=direction(effect),
        statistic=prepared.statistics[int(out[kernel.LEADING])],
        since_ms=_since(state),
        events=int(counts.sum()),
        thinned=thinned,
        largest_changes=() if level is Level.OK else largest_changes(prepared, counts, reference),
    )


def direction(effect: list[float]) -> str:
    form, shift = effect[kernel.FORM], effect[kernel.SHIFT]
    if form == kernel.FORM_NONE:
        return "none"
    names = ("spread", "narrow") if form == kernel.FORM_SCALE else ("up", "down")
    return names[0] if shift > 0 else names[1]


def _core_counts(prepared: Prepared, counts: I64) -> tuple[I64, I64]:
    """(core bins of the values, shares) of counts I64[binning.bins + 2]."""
    folded = fold(prepared.target.binning, counts)
    return np.ascontiguousarray(folded[: prepared.core]), np.ascontiguousarray(folded[prepared.core :])


def largest_changes(prepared: Prepared, counts: I64, reference: I64) -> tuple[Change, ...]:
    now = fold(prepared.target.binning, counts)
    before, share = masses(prepared.target.binning, reference), now / max(int(now.sum()), 1)
    largest = np.abs(share - before).argsort(kind="stable")[: -CHANGES_MAX - 1 : -1]
    labels = prepared.labels
    return tuple(Change(labels[i], float(before[i]), float(share[i])) for i in largest.tolist())


def describe(prepared: Prepared, counts: I64, windows: Sequence[tuple[int, int]] = ()) -> Effect:
    """The effect in any counts I64[binning.bins + 2], for instance all windows since the excursion began. No state.

    `windows`: (start in ms, events) of each, so that a target with strata is compared with what those hours are in the reference.
    """
    _checked(prepared, counts)
    tables = expected(prepared, windows)
    core, shares = _core_counts(prepared, counts)
    filled = np.empty(kernel.EFFECT_FIELDS)
    _, tolerance, reference, _, _, before, share_lo, share_hi, _ = tables.tube
    lo, hi = np.empty(prepared.core), np.empty(prepared.core)
    if prepared.core:
        bins = prepared.target.binning.bins
        core_edges(core_masses(reference, prepared.first, prepared.core, bins), tolerance, lo, hi)
    kernel.effect(
        core.astype(np.float64),
        shares,
        prepared.scores[0],
        tables.score_mean,
        lo,
        hi,
        before,
        share_lo,
        share_hi,
        filled,
    )
    effect: list[float] = filled.tolist()
    names = prepared.statistics[len(prepared.statistics) - len(shares) :]
    return Effect(
        shift=effect[kernel.SHIFT],
        size=effect[kernel.SIZE],
        direction=direction(effect),
        share=names[int(effect[kernel.SHARE])] if effect[kernel.FORM] == kernel.FORM_SHARE else "",
        inside_tube=effect[kernel.INSIDE] > 0.0,
        largest_changes=largest_changes(prepared, counts, reference),
    )
