"""How many events a lasting shift takes until both layers find it, by simulation on the reference: what a tolerance, a budget, a
window and a reference cost.

The reference's own windows, with their sizes, hours and whatever makes them depend on each other, go through the detector in their
order as a new stream would, in RUNS runs that begin at as many places (the last window is followed by the first), half of them
shifted up and half down:

    numeric       every value's normal score moves: of the events of a bin, those that a shift carries over a cut go to the bin
                  behind it; positions within a bin are an even grid with an offset drawn for each window and bin
    categorical   the share of the most frequent category moves, to and from all others in proportion

A delay is the median of the runs, so the number of events after which half of them have alarmed. A run ends undecided after
WINDOWS_MAX windows; a shift for which fewer runs than half alarm says how many events were looked at. Where the tolerance holds the
shifted law of a target whose windows have neither hours nor effects of days, the tube cannot grow, and nothing is simulated.

Assumes  that windows before the shift count for nothing (ranks that the stream has seen make later shifts no slower), and a shift
         of all hours alike. A window's place in its bin grid is less random than events are: of 38 bins that is some per cent of
         the variance
Cost     about .1 ms a window: .1 to .3 s a target for three shifts, .7 s for one that is hardly ever found
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from detectors.binning import Kind
from detectors.compiled import compiled
from detectors.normal import cdf, cdf_all, ppf, ppf_all
from detectors.reference import WindowInfo, fold
from detectors.sequential.default import start, update
from detectors.sequential.default_tables import Prepared
from detectors.sequential.scores import smoothed
from detectors.sequential.taut_string import taut_string
from detectors.sequential.tube import core_edges, share_edges
from detectors.sequential.uniforms import uniform
from detectors.verdict import Level

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

RUNS, RUNS_LEAST = 16, 4
WINDOWS_MAX = 2_000  # of a run
WORK_MAX = 8_000  # windows of all runs, after which RUNS_LEAST will do
GROWTH_MIN = 1e-9  # of the evidence an event: less is rounding
CERTAIN = 1.0 - 1e-12  # shares that are 1 but for rounding


@dataclass(frozen=True, slots=True)
class Delay:
    """Events until half of the runs alarm; inf = fewer do, in `looked_at` events each. looked_at 0: the tolerance holds the shift."""

    events: float
    looked_at: int = 0


@dataclass(frozen=True, slots=True)
class Past:
    """The reference's list windows in time order: counts I64[m, b + 2]; start, end, weight I64[m] in ms."""

    counts: I64
    start_ms: I64
    end_ms: I64
    weight_ms: I64

    @classmethod
    def of(cls, counts: I64, start_ms: I64 | None, info: WindowInfo) -> Past:
        """start_ms None: rows without time, whose windows are taken for as short as they may be."""
        pane_ms = max(info.resolution_ms, 1)
        every_ms = max(info.every_ms, pane_ms)
        if start_ms is None:
            start_ms = np.arange(len(counts), dtype=np.int64) * every_ms
        begun = start_ms // pane_ms * pane_ms
        weight = np.diff(begun, prepend=begun[:1] - every_ms)
        return cls(np.ascontiguousarray(counts), begun, begun + every_ms, weight)


def can_shift(prepared: Prepared) -> bool:
    """Whether the reference has more than one value: less has no deviation that a shift could be measured in."""
    counts = prepared.target.counts
    values = fold(prepared.target.binning, counts)[: prepared.core] if prepared.core else counts[:-2]
    return int(np.count_nonzero(values)) > 1


def expected_delay(prepared: Prepared, past: Past, shift: float) -> Delay:
    """Of a shift by +-`shift` probit units (of a category: of the most frequent one). Needs `can_shift`; the same every time."""
    both = [moves(prepared, by) for by in (shift, -shift)]
    effects = prepared.target.effects
    one_tube = prepared.strata is None or not prepared.strata.by_clock
    still = one_tube and (effects is None or max(effects.values, effects.absent) == 0.0)
    if still and max(_growth(prepared, by) for by in (shift, -shift)) <= GROWTH_MIN:
        return Delay(math.inf)
    found, looked, work = [], [], 0
    for run in range(RUNS):
        if run >= RUNS_LEAST and work > WORK_MAX:
            break
        events, windows, alarmed = _run(prepared, past, both[run % 2], f"{prepared.reference_id}/{shift}/{run}", run)
        found.append(float(events) if alarmed else math.inf)
        looked.append(events)
        work += windows
    median = (
        float(np.median(found)) if np.isfinite(found).mean() > 0.5 else math.inf
    )  # of an even number: never between two
    return Delay(median, int(np.median(looked)))


def _run(prepared: Prepared, past: Past, cumulative: F64, name: str, run: int) -> tuple[int, int, bool]:
    """(events, windows, whether they ended in an alarm)."""
    state, m, events = start(prepared), len(past.counts), 0
    first = run * m // RUNS
    seed = np.uint64(xxhash.xxh3_64_intdigest(name.encode()))
    moved = np.empty(past.counts.shape[1], np.int64)
    for step in range(WINDOWS_MAX):
        at = (first + step) % m
        move(past.counts[at], cumulative, seed, step, moved)
        events += int(moved.sum())
        weight, begun, ended = float(past.weight_ms[at]), int(past.start_ms[at]), int(past.end_ms[at])
        if update(prepared, state, moved, weight, begun, ended).level is Level.ALARM:
            return events, step + 1, True
    return events, WINDOWS_MAX, False


@compiled
def move(counts: I64, cumulative: F64, seed: np.uint64, step: int, out: I64) -> None:
    """Fill out I64[b + 2] with counts I64[b + 2] moved: bin k's events go to the bins below l in the share cumulative[k, l]."""
    bins = len(cumulative)
    out[:bins] = 0
    out[bins:] = counts[bins:]
    for k in range(bins):
        count = counts[k]
        if count == 0:
            continue
        offset, before = uniform(seed, step * bins + k), 0
        for b in range(bins):
            share = cumulative[k, b + 1]
            below = count if share >= CERTAIN else min(max(math.ceil(share * count - offset), 0), count)
            out[b] += below - before
            before = below


def moves(prepared: Prepared, by: float) -> F64:
    """F64[b, b + 1]: the share of each bin's events that a shift leaves in or carries to the bins below each."""
    return _moves_of_values(prepared, by) if prepared.core else _moves_of_categories(prepared, by)


def _moves_of_values(prepared: Prepared, by: float) -> F64:
    first, core, bins = prepared.first, prepared.core, prepared.target.binning.bins
    masses = _masses(prepared)
    at = np.concatenate([[0.0], np.cumsum(masses)])
    came_from = np.concatenate([[0.0], np.cumsum(_shifted(masses, by))])
    of_core = np.clip((came_from[None, :] - at[:-1, None]) / masses[:, None], 0.0, 1.0)
    of_core[:, -1] = 1.0
    cumulative = np.ones((bins, bins + 1))
    cumulative[:, : first + 1] = 0.0
    cumulative[:, first : first + core + 1] = of_core[np.clip(np.arange(bins) - first, 0, core - 1)]
    return cumulative


def _moves_of_categories(prepared: Prepared, by: float) -> F64:
    counts = prepared.target.counts[:-2].astype(np.float64)
    most, p = _most_frequent(prepared)
    now = cdf(ppf(p) + by)
    share = np.eye(len(counts))
    if now > p:
        moved = (now - p) / (1.0 - p)
        share *= 1.0 - moved
        share[:, most] += moved
    else:
        moved = (p - now) / p
        others = np.where(np.arange(len(counts)) == most, 0.0, counts)
        share[most] *= 1.0 - moved
        share[most] += moved * others / others.sum()
    return np.concatenate([np.zeros((len(counts), 1)), np.cumsum(share, axis=1)], axis=1)


def _masses(prepared: Prepared) -> F64:
    return smoothed(fold(prepared.target.binning, prepared.target.counts)[: prepared.core])


def _shifted(masses: F64, by: float) -> F64:
    """Masses F64[K] of the bins when the values' normal scores move."""
    probit = ppf_all(np.cumsum(masses)[:-1])
    law: F64 = np.diff(np.concatenate([[0.0], cdf_all(probit - by), [1.0]]))
    return law


def _most_frequent(prepared: Prepared) -> tuple[int, float]:
    """(bin, share of the valid values) of the most frequent category."""
    counts = prepared.target.counts[:-2]
    most = int(np.argmax(counts))
    return most, float(counts[most] / counts.sum())


def _growth(prepared: Prepared, by: float) -> float:
    """Nats that an event adds to the tube's evidence where each is of the shifted law; 0 = the tolerance holds it."""
    tolerance = prepared.tolerances.values
    if prepared.target.binning.kind is Kind.CATEGORICAL:
        _, p = _most_frequent(prepared)
        lo, hi = share_edges(p, tolerance)
        now = cdf(ppf(p) + by)
        near = min(max(now, lo), hi)
        return now * math.log(now / near) + (1.0 - now) * math.log((1.0 - now) / (1.0 - near))
    masses = _masses(prepared)
    low, high, log_h = (np.empty(prepared.core) for _ in range(3))
    core_edges(masses, tolerance, low, high)
    law = _shifted(masses, by)
    taut_string(law, low, high, log_h)
    return float(law @ log_h)
