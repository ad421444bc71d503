"""The default detector: window-rank e-SR and tolerance tube, over the bins of one target.

Guarantee: E[number of alarms in [0, T]] <= T / (budget x cells) for a target, so <= T / budget over all cells, when live
windows are exchangeable with the reference's (rank layer), or when each event's law is inside the tolerance tube (tube
layer): an alarm needs both layers, each of which crosses at most that often. Bonferroni over cells and statistics.

Input     counts I64[binning.bins + 2] of a window: bins, missing, invalid; its weight (time since the previous window began
          x the series' share of the model's events)
State     explicit arrays, about 8 KB a numeric target, 700 bytes a category         Cost  about 90 us a window
Refuses   BadCounts, BadWeight; the state is as before
Differs   from detectors that watch one event after the other: those break their bound under autocorrelation
Source    Shin, Ramdas, Rinaldo 2023, "E-detectors"; each layer's module names its own
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.reference import fold
from detectors.sequential import default_kernel as kernel
from detectors.sequential.categories import RANK_BETS
from detectors.sequential.default_tables import DetectionSettings, Prepared, prepare
from detectors.sequential.rank_layer import ADAPTIVE_DECAY
from detectors.sequential.thinning import thin
from detectors.sequential.tube import core_edges
from detectors.sequential.uniforms import window_seed
from detectors.verdict import BadCounts, BadState, BadWeight, Change, Level, Verdict

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

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

VERSION = 1
CHANGES_MAX = 5
LOG10_NOTHING = -300.0
THIN_FIRST_UNIFORM = 1 << 20  # of the window's seed; the tie-breaks have the numbers before it

_judge: Callable[..., None] = kernel.judge


@dataclass(slots=True, eq=False)
class DetectorState:
    """What a target remembers. Build with `start` or `state_from_sections`. s statistics, r + 1 rank bins, b bets.

    clock I64[5]: windows judged, those at which the rank and the tube latch were set, start of the excursion in ms, settled
    evidence, adaptive F64[5, 2], share_evidence: e-SR values of the rank bets; seen F64[s, r + 1]: live rank bins so far;
    recent, recent_total: the adaptive bets' memory; tube, gain F64[b], gain_start I64[b]: e-SR values of the tube's bets, their
    running log likelihood and where it began; plug, plug_total: the plug-in's memory; pending: a slow target's collected
    windows, pending_meta I64[2]: how many and their first start, pending_weight F64[1]
    """

    clock: I64
    evidence: F64
    adaptive: F64
    share_evidence: F64
    seen: F64
    recent: F64
    recent_total: F64
    tube: F64
    gain: F64
    gain_start: I64
    plug: F64
    plug_total: F64
    pending: I64
    pending_meta: I64
    pending_weight: F64


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


def start(prepared: Prepared) -> DetectorState:
    """State before the first window."""
    bins, count = len(prepared.target.rank) + 1, len(prepared.statistics)
    shares, values = len(prepared.share_p), count - len(prepared.share_p)
    adaptive, tube_count = len(ADAPTIVE_DECAY), len(prepared.tube[-1])
    return DetectorState(
        clock=np.array([0, kernel.NEVER, kernel.NEVER, kernel.NEVER, 0], np.int64),
        evidence=np.zeros(int(prepared.rank[4][-1]) if values else 0),
        adaptive=np.zeros((values, adaptive)),
        share_evidence=np.zeros((shares, RANK_BETS)),
        seen=np.zeros((count, bins)),
        recent=np.zeros((values, adaptive, bins)),
        recent_total=np.zeros((values, adaptive)),
        tube=np.zeros(tube_count),
        gain=np.zeros(tube_count),
        gain_start=np.zeros(tube_count, np.int64),
        plug=np.zeros(prepared.core or shares),
        plug_total=np.zeros(1),
        pending=np.zeros(prepared.target.binning.bins + 2, np.int64),
        pending_meta=np.zeros(2, np.int64),
        pending_weight=np.zeros(1),
    )


def update(prepared: Prepared, state: DetectorState, counts: I64, weight_ms: float, window_start_ms: int) -> Verdict:
    """Judge one window. counts I64[binning.bins + 2] (missing, invalid last); weight_ms = w_t (time since the previous
    window began times the series' share). Mutates `state`; raises BadCounts, BadWeight with the state untouched.
    Fewer events than target.size_min: INSUFFICIENT_DATA, state untouched (the caller carries).
    """
    total = _checked(prepared, counts)
    if not (weight_ms >= 0.0 and math.isfinite(weight_ms)):
        raise BadWeight(f"weight {weight_ms!r} ms")
    group = prepared.target.group
    size_min, size_max = prepared.size_range
    if group > 1:
        state.pending_meta[1] = window_start_ms if state.pending_meta[0] == 0 else state.pending_meta[1]
        state.pending_meta[0] += 1
        state.pending += counts
        state.pending_weight += weight_ms
        total = int(state.pending.sum())
        if state.pending_meta[0] < group or total < size_min:
            return _waiting(prepared, state, Level.OK, total)
        counts, weight_ms, window_start_ms = (
            state.pending.copy(),
            float(state.pending_weight[0]),
            int(state.pending_meta[1]),
        )
        state.pending[:] = 0
        state.pending_meta[:] = 0
        state.pending_weight[:] = 0.0
    elif total < size_min:
        return _waiting(prepared, state, Level.INSUFFICIENT_DATA, total)
    seed = np.uint64(window_seed(prepared.prefix, window_start_ms))
    thinned = total > size_max
    if thinned:
        whole, counts = counts, np.empty_like(counts)
        thin(whole, size_max, seed, THIN_FIRST_UNIFORM, counts)
    out, effect = np.empty(kernel.FIELDS), np.empty(kernel.EFFECT_FIELDS)
    _judge(
        counts, seed, float(weight_ms), window_start_ms, prepared.settings.latch_windows, prepared.first, prepared.core,
        *prepared.scores, prepared.score_mean, prepared.share_p, *prepared.rank, *prepared.tube,
        state.clock, state.evidence, state.adaptive, state.share_evidence, state.seen, state.recent, state.recent_total,
        state.tube, state.gain, state.gain_start, state.plug, state.plug_total, out, effect,
    )  # fmt: skip
    events = size_max if thinned else total
    return _verdict(prepared, state, counts, events=events, thinned=thinned, told=(out.tolist(), effect.tolist()))


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


def _log10(ratio: float, threshold: float) -> float:
    return max(math.log10(ratio) + threshold, LOG10_NOTHING) if ratio > 0.0 else LOG10_NOTHING


def _verdict(
    prepared: Prepared,
    state: DetectorState,
    counts: I64,
    *,
    events: int,
    thinned: bool,
    told: tuple[list[float], list[float]],
) -> Verdict:
    out, effect = told
    threshold = prepared.threshold_log10
    level = Level.ALARM if out[kernel.FIRES] else _latched(state)
    return Verdict(
        level=level,
        rank_log10=_log10(out[kernel.RANK], threshold),
        tube_log10=_log10(out[kernel.TUBE], threshold),
        threshold_log10=threshold,
        rank_crossed=out[kernel.RANK_CROSSED] > 0.0,
        tube_crossed=out[kernel.TUBE_CROSSED] > 0.0,
        inside_tube=effect[kernel.INSIDE] > 0.0,
        shift=effect[kernel.SHIFT],
        direction=_direction(effect),
        statistic=prepared.statistics[int(out[kernel.LEADING])],
        since_ms=_since(state),
        events=events,
        thinned=thinned,
        largest_changes=() if level is Level.OK else _largest_changes(prepared, counts),
    )


def _direction(effect: list[float]) -> str:
    form, shift = effect[kernel.FORM], effect[kernel.SHIFT]
    if form == kernel.FORM_NONE:
        return "none"
    names = ("spread", "narrow") if form == kernel.FORM_SCALE else ("up", "down")
    return names[0] if shift > 0 else names[1]


def _core_counts(prepared: Prepared, counts: I64) -> tuple[I64, I64]:
    """(core bins of the values, shares) of counts I64[binning.bins + 2]."""
    folded = fold(prepared.target.binning, counts)
    return np.ascontiguousarray(folded[: prepared.core]), np.ascontiguousarray(folded[prepared.core :])


def _largest_changes(prepared: Prepared, counts: I64) -> tuple[Change, ...]:
    now = fold(prepared.target.binning, counts)
    before, share = prepared.masses, now / max(int(now.sum()), 1)
    largest = np.abs(share - before).argsort(kind="stable")[: -CHANGES_MAX - 1 : -1]
    labels = prepared.labels
    return tuple(Change(labels[i], float(before[i]), float(share[i])) for i in largest.tolist())


def describe(prepared: Prepared, counts: I64) -> Effect:
    """The effect in any counts I64[binning.bins + 2], for instance all windows since the excursion began. No state."""
    _checked(prepared, counts)
    core, shares = _core_counts(prepared, counts)
    filled = np.empty(kernel.EFFECT_FIELDS)
    _, tolerance, reference, _, _, masses, share_lo, share_hi, _ = prepared.tube
    lo, hi = np.empty(prepared.core), np.empty(prepared.core)
    if prepared.core:
        bins = prepared.target.binning.bins
        core_edges(kernel.core_masses(reference, prepared.first, prepared.core, bins), tolerance, lo, hi)
    kernel.effect(core, shares, prepared.scores[0], prepared.score_mean, lo, hi, masses, share_lo, share_hi, filled)
    effect: list[float] = filled.tolist()
    names = prepared.statistics[len(prepared.statistics) - len(shares) :]
    return Effect(
        shift=effect[kernel.SHIFT],
        size=effect[kernel.SIZE],
        direction=_direction(effect),
        share=names[int(effect[kernel.SHARE])] if effect[kernel.FORM] == kernel.FORM_SHARE else "",
        inside_tube=effect[kernel.INSIDE] > 0.0,
        largest_changes=_largest_changes(prepared, counts),
    )


def state_to_sections(prepared: Prepared, state: DetectorState) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """(header of JSON values, named arrays)."""
    header = {"version": VERSION, "reference": prepared.reference_id, "target": prepared.target.name}
    return header, {field.name: getattr(state, field.name).copy() for field in fields(DetectorState)}


def state_from_sections(
    prepared: Prepared, header: Mapping[str, Any], sections: Mapping[str, NDArray[Any]]
) -> DetectorState:
    """Inverse of `state_to_sections`. Raises BadState."""
    expected = {"version": VERSION, "reference": prepared.reference_id, "target": prepared.target.name}
    if dict(header) != expected:
        raise BadState(f"state of {dict(header)}, expected {expected}")
    fresh = start(prepared)
    for field in fields(DetectorState):
        empty: NDArray[Any] = getattr(fresh, field.name)
        saved = sections.get(field.name)
        if saved is None or saved.shape != empty.shape or saved.dtype != empty.dtype:
            raise BadState(f"section {field.name}: {None if saved is None else (saved.dtype, saved.shape)}")
        empty[...] = saved
    return fresh
