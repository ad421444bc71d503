"""The default detector: window-rank e-SR and tolerance tube, over the bins of one target.

Guarantee: E[number of alarms in [0, T]] <= T / (budget x cells) for a target, so <= T / budget over all cells, when live
windows are exchangeable with the reference's (rank layer), or when each event's law is inside the tolerance tube (tube
layer): an alarm needs both layers, each of which crosses at most that often. Bonferroni over cells and statistics. With
`tolerance: auto`, also where the reference's days have effects of their own: tolerance_auto.py says under which assumptions.

Input     counts I64[binning.bins + 2] of a window: bins, missing, invalid; its weight (time since the previous window began
          x the series' share of the model's events)
State     explicit arrays, about 3 KB a numeric target, 300 bytes a category         Cost  about 90 us a window
Refuses   BadCounts, BadWeight; the state is as before
Differs   from detectors that watch one event after the other: those break their bound under autocorrelation
Source    Shin, Ramdas, Rinaldo 2023, "E-detectors"; each layer's module names its own
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.reference import fold
from detectors.sequential import default_kernel as kernel
from detectors.sequential.categories import RANK_BETS
from detectors.sequential.default_tables import DetectionSettings, Prepared, prepare
from detectors.sequential.rank_layer import ADAPTIVE_DECAY, KEPT_MAX, ROUND_DOWN
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

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U16 = NDArray[np.uint16]

VERSION = 2
VERSION_FLOAT64 = 1  # floats, `seen` among them, of 64 bits, and two totals that are made anew since
CHANGES_MAX = 5
LOG10_NOTHING = -300.0
THIN_FIRST_UNIFORM = 1 << 20  # of the window's seed; the tie-breaks have the numbers before it

NO_CARRY: U16 = np.zeros((0, 0), np.uint16)
CLOCK_START = (0, kernel.NEVER, kernel.NEVER, kernel.NEVER, 0)
RANK_ARRAYS = ("evidence", "adaptive", "share_evidence")
EVIDENCE = frozenset({*RANK_ARRAYS, "tube"})

_judge: Callable[..., None] = kernel.judge


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each array of a state lies in `floats` or `integers`: name -> (begin, end, shape). One for all equal shapes.

    s statistics (v of values, the others of shares), r + 1 rank bins, b bets of the tube, c core bins.

    floats    evidence, adaptive [v, 2], share_evidence: e-SR values of the rank bets; recent [v, 2, r + 1]: the adaptive
              bets' memory; tube, gain [b]: e-SR values of the tube's bets and their running log likelihood; plug: the
              plug-in's memory. All float32; evidence is rounded down (rank_layer.py)
    integers  clock [5]: windows judged, those at which the rank and the tube latch were set, start of the excursion in ms,
              settled; gain_start [b]: where the gain began; pending: a slow target's collected windows, pending_meta [2]:
              how many and their first start
    """

    floats: Mapping[str, tuple[int, int, tuple[int, ...]]]
    integers: Mapping[str, tuple[int, int, tuple[int, ...]]]


class DetectorState:
    """What a target remembers. Build with `start` or `state_from_sections`. Three arrays, of which the others are views.

    seen_low U16[s, r + 1], seen_high the same, or empty while no bin can need it: live rank bins so far, in two halves.
    `pending` is empty for a target that judges every window, pending_weight the time of those collected, ms.
    """

    __slots__ = ("_floats", "_integers", "_layout", "pending_weight", "seen_high", "seen_low")

    def __init__(self, layout: Layout, seen_shape: tuple[int, int]) -> None:
        self._layout = layout
        self._floats = np.zeros(_size(layout.floats), np.float32)
        self._integers = np.zeros(_size(layout.integers), np.int64)
        self.seen_low: U16 = np.zeros(seen_shape, np.uint16)
        self.seen_high = NO_CARRY
        self.pending_weight = 0.0
        self.clock[:] = CLOCK_START

    @property
    def seen(self) -> NDArray[np.uint32]:
        """U32[s, r + 1]: live rank bins so far. A copy."""
        low = self.seen_low.astype(np.uint32)
        return low + self.seen_high.astype(np.uint32) * np.uint32(kernel.SEEN_CARRY) if len(self.seen_high) else low

    @seen.setter
    def seen(self, counts: NDArray[Any]) -> None:
        whole = counts.astype(np.uint32)
        self.seen_low[...] = whole % kernel.SEEN_CARRY
        if self.clock[kernel.INDEX] >= kernel.SEEN_CARRY - 1:
            self.seen_high = (whole // kernel.SEEN_CARRY).astype(np.uint16)

    def real(self, name: str) -> F32:
        """One of `floats`: a view."""
        begin, end, shape = self._layout.floats[name]
        return self._floats[begin:end].reshape(shape)

    def whole(self, name: str) -> I64:
        """One of `integers`: a view."""
        begin, end, shape = self._layout.integers[name]
        return self._integers[begin:end].reshape(shape)

    @property
    def clock(self) -> I64:
        return self._integers[: len(CLOCK_START)]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All by name: views, and copies of `seen` U32 and pending_weight F64[1]."""
        reals = {name: self.real(name) for name in self._layout.floats}
        apart = {"seen": self.seen, "pending_weight": np.array([self.pending_weight])}
        return reals | {name: self.whole(name) for name in self._layout.integers} | apart


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


def _size(parts: Mapping[str, tuple[int, int, tuple[int, ...]]]) -> int:
    return max((end for _, end, _ in parts.values()), default=0)


def _placed(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, int, tuple[int, ...]]]:
    placed, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape)
        placed[name] = (begin, end, shape)
    return placed


@lru_cache(maxsize=1024)
def _layout(bins: int, values: int, shares: int, *, evidence: int, tube: int, plug: int, pending: int) -> Layout:
    adaptive = len(ADAPTIVE_DECAY)
    floats = {
        "evidence": (evidence,), "adaptive": (values, adaptive), "share_evidence": (shares, RANK_BETS),
        "recent": (values, adaptive, bins), "tube": (tube,), "gain": (tube,), "plug": (plug,),
    }  # fmt: skip
    integers = {"clock": (len(CLOCK_START),), "gain_start": (tube,), "pending_meta": (2,), "pending": (pending,)}
    return Layout(_placed(floats), _placed(integers))


def start(prepared: Prepared) -> DetectorState:
    """State before the first window."""
    target = prepared.target
    bins, count = len(target.rank) + 1, len(prepared.statistics)
    shares, values = len(prepared.share_p), count - len(prepared.share_p)
    layout = _layout(
        bins, values, shares,
        evidence=int(prepared.rank[4][-1]) if values else 0,
        tube=len(prepared.tube[-1]),
        plug=prepared.core or shares,
        pending=_pending(prepared) if target.group > 1 else 0,
    )  # fmt: skip
    return DetectorState(layout, (count, bins))


def _pending(prepared: Prepared) -> int:
    return prepared.target.binning.bins + 2


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
        pending, meta = state.whole("pending"), state.whole("pending_meta")
        meta[1] = window_start_ms if meta[0] == 0 else meta[1]
        meta[0] += 1
        pending += counts
        state.pending_weight += weight_ms
        total = int(pending.sum())
        if meta[0] < group or total < size_min:
            return _waiting(prepared, state, Level.OK, total)
        counts, weight_ms, window_start_ms = pending.copy(), state.pending_weight, int(meta[1])
        pending[:] = 0
        meta[:] = 0
        state.pending_weight = 0.0
    elif total < size_min:
        return _waiting(prepared, state, Level.INSUFFICIENT_DATA, total)
    seed = np.uint64(window_seed(prepared.prefix, window_start_ms))
    thinned = total > size_max
    if thinned:
        whole, counts = counts, np.empty_like(counts)
        thin(whole, size_max, seed, THIN_FIRST_UNIFORM, counts)
    clock = state.clock
    if clock[kernel.INDEX] == kernel.SEEN_CARRY - 1:  # so many windows may all be in one bin
        state.seen_high = np.zeros_like(state.seen_low)
    out, effect = np.empty(kernel.FIELDS), np.empty(kernel.EFFECT_FIELDS)
    _judge(
        counts, seed, float(weight_ms), window_start_ms, prepared.settings.latch_windows, prepared.first, prepared.core,
        *prepared.scores, prepared.score_mean, prepared.share_p, *prepared.rank, *prepared.tube,
        clock, *map(state.real, RANK_ARRAYS), state.seen_low, state.seen_high, state.real("recent"),
        state.real("tube"), state.real("gain"), state.whole("gain_start"), state.real("plug"), out, effect,
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
    """(header of JSON values, named arrays): as they are in the state, so that a restored one goes on bit for bit."""
    header = {"version": VERSION, "reference": prepared.reference_id, "target": prepared.target.name}
    return header, {name: array.copy() for name, array in _saved(prepared, state).items()}


def _saved(prepared: Prepared, state: DetectorState) -> dict[str, NDArray[Any]]:
    """The arrays of a snapshot, which has `pending` of every target."""
    arrays = state.arrays()
    if not len(arrays["pending"]):
        arrays["pending"] = np.zeros(_pending(prepared), np.int64)
    return arrays


def state_from_sections(
    prepared: Prepared, header: Mapping[str, Any], sections: Mapping[str, NDArray[Any]]
) -> DetectorState:
    """Inverse of `state_to_sections`; converts states of VERSION_FLOAT64. Raises BadState."""
    expected = {"version": VERSION, "reference": prepared.reference_id, "target": prepared.target.name}
    converts = dict(header) == expected | {"version": VERSION_FLOAT64}
    if not converts and dict(header) != expected:
        raise BadState(f"state of {dict(header)}, expected {expected}")
    fresh = start(prepared)
    places = fresh.arrays()
    for name, empty in _saved(prepared, fresh).items():
        saved = sections.get(name)
        if converts and saved is not None and saved.dtype == np.float64 and empty.dtype != np.float64:
            saved = _converted(name, saved, empty.dtype)
        if saved is None or saved.shape != empty.shape or saved.dtype != empty.dtype:
            raise BadState(f"section {name}: {None if saved is None else (saved.dtype, saved.shape)}")
        if len(places[name]) == len(saved):
            places[name][...] = saved
    fresh.pending_weight = float(sections["pending_weight"][0])
    fresh.seen = sections["seen"]
    return fresh


def _converted(name: str, saved: F64, dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array of VERSION_FLOAT64 in today's precision."""
    lower = np.minimum(saved, KEPT_MAX) * ROUND_DOWN if name in EVIDENCE else saved
    return lower.astype(dtype)
