"""Tables of the default detector: everything that does not change while a reference and its settings are in force.

What equals another target's table is kept once in the process, and what a window's arithmetic can make anew from the
reference's counts in some 60 us (the tube's edges and bets, 9 KB a numeric target) is not kept at all.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from detectors.binning import Binning, Kind, bin_labels
from detectors.reference import TargetReference, fold
from detectors.reference_strata import Strata
from detectors.sequential.categories import (
    PLUG_IN_PORTION,
    RANK_PORTIONS,
    TUBE_PORTIONS,
    Portions,
    bet_codes,
    portions,
    share_rank_bets,
    share_tube_bets,
    tube_weights,
)
from detectors.sequential.rank_layer import ADAPTIVE_DECAY, ADAPTIVE_SHARE, BETS, rank_counts, shift_bets
from detectors.sequential.scores import STATISTICS, score_table, smoothed
from detectors.sequential.size_strata import size_stratum
from detectors.sequential.strata import WINDOWS_MIN as STRATUM_WINDOWS_MIN
from detectors.sequential.strata import Season, hour_of, within_hour
from detectors.sequential.tolerance_auto import Tolerances, tolerances
from detectors.sequential.tube import LAW_WEIGHTS, SHARE_PLUG_IN, core_edges, share_edges, tube_bets
from detectors.sequential.uniforms import seed_prefix
from detectors.verdict import TOLERANCE_MAX, BadSettings, IncompleteReference

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

MISSING, INVALID = "missing", "invalid"
NUMERIC_STATISTICS = (*STATISTICS, MISSING, INVALID)
# How a numeric target's false alarms are shared out: its values (location, scale, both tails, shape), missing, invalid.
VALUE_SHARE, MISSING_SHARE, INVALID_SHARE = 0.83, 0.15, 0.02
STATISTIC_SHARES = (0.35, 0.22, 0.14, 0.14, 0.15)
LATCH_EVENTS = 10_000  # what 200 windows of 50 events hold


@dataclass(frozen=True, slots=True)
class DetectionSettings:
    """tolerance: probit units, >= 0; `auto`: at least it, and as much as holds the reference's own block effects.
    budget_ms: A, the time in which one false alarm of the model is accepted. cells: d.
    latch_windows: windows, at least, for which a layer's crossing waits for the other's (Prepared.latch_windows).
    reserve: what the rank layer's thresholds are raised by, >= 1 (windows_auto.reserve).
    """

    tolerance: float
    budget_ms: float
    cells: int = 1
    latch_windows: int = 200
    auto: bool = False
    reserve: float = 1.0


class Tables(NamedTuple):
    """What differs between the strata of a target.

    rank   order, tie, alpha, bets, bet_start, share_bets, decay, adaptive_share, thresholds
    tube   threshold, tolerance, counts, share_in, share_out, share_masses, share_lo, share_hi, weight
    """

    score_mean: F64
    share_p: F64
    rank: tuple[Any, ...]
    tube: tuple[Any, ...]


class InForce:
    """The tables of a target's strata. Of hours only those of the one that was asked for last: bets and edges of 24 would take 60 KB
    a numeric target, and are made anew, about a ms, when their hour comes. Of sizes all that were asked for: each window may be of
    another, and the tube is the same in all of them.
    """

    __slots__ = ("_bounds", "_kept", "by_clock", "rows", "season")

    def __init__(self, strata: Strata) -> None:
        self.by_clock = strata.by_clock
        self.season = Season(strata.by) if strata.by_clock else Season.NONE
        judged = strata.windows >= STRATUM_WINDOWS_MIN
        self.rows = np.where(judged, np.cumsum(judged) - 1, -1).astype(np.int16)
        self._bounds: list[int] = strata.bounds.tolist()
        self._kept: dict[int, Tables] = {}

    def row(self, window_start_ms: int, window_end_ms: int | None, events: int) -> int:
        """Row of the window's stratum, -1 where the reference has too few windows of that hour, or the window is not within it.

        window_end_ms: None = it is.
        """
        if not self.by_clock:
            return size_stratum(self._bounds, events)
        if window_end_ms is not None and not within_hour(window_start_ms, window_end_ms):
            return -1
        return int(self.rows[hour_of(self.season, window_start_ms)])

    def tables(self, prepared: Prepared, row: int) -> Tables:
        kept = self._kept.get(row)
        if kept is None:
            kept = stratum_tables(prepared, row)
            if self.by_clock:
                self._kept.clear()
            self._kept[row] = kept
        return kept


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Everything that does not change while a reference and its settings are in force. Build with `prepare`.

    tables   of all windows; a target with `strata` has their ranks in `strata` alone, and of all windows the tube
    """

    target: TargetReference
    settings: DetectionSettings
    tolerances: Tolerances
    reference_id: str
    statistics: tuple[str, ...]
    prefix: bytes
    first: int
    core: int
    scores: tuple[F64, I64]  # score; counts of the rows that chose the cuts
    share_p: F64
    tables: Tables
    size_range: tuple[int, int]
    threshold_log10: float
    strata: InForce | None = None

    @property
    def latch_windows(self) -> int:
        """Windows for which a layer's crossing waits for the other's: those of the settings, and LATCH_EVENTS where windows are small.

        However long: alarms are at most as many as the crossings of either layer. A slow change has them thousands of events apart.
        """
        return max(self.settings.latch_windows, math.ceil(LATCH_EVENTS / max(self.target.size_median, 1)))

    @property
    def rank(self) -> tuple[Any, ...]:
        return self.tables.rank

    @property
    def tube(self) -> tuple[Any, ...]:
        return self.tables.tube

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the core bins, missing, invalid: made when an alert asks, 2 KB a target are better not kept."""
        return (*bin_labels(self.target.binning), MISSING, INVALID)


_SHARED: WeakValueDictionary[bytes, NDArray[Any]] = WeakValueDictionary()


def shared(array: NDArray[Any]) -> NDArray[Any]:
    """An equal array that is in use already, else this one, read-only from now on."""
    array = np.ascontiguousarray(array)
    name = hashlib.blake2b(f"{array.dtype.str}{array.shape}".encode() + array.tobytes(), digest_size=16).digest()
    kept = _SHARED.setdefault(name, array)
    kept.flags.writeable = False
    return kept


@lru_cache(maxsize=64)
def _value_bets(rank: bytes, windows: int) -> tuple[F64, I64]:
    """Bets of the five value statistics side by side; the same for all targets with as many reference windows."""
    tables = [shift_bets(np.frombuffer(rank, np.int64), windows, bets) for bets in BETS]
    starts = np.cumsum([0, *(table.shape[1] for table in tables)])
    return np.ascontiguousarray(np.concatenate(tables, axis=1)), starts.astype(np.int64)


def share_masses(binning: Binning, counts: I64) -> F64:
    """Masses of the shares that are tested one by one: all bins, missing, invalid; numeric targets: missing, invalid."""
    if binning.kind is Kind.CATEGORICAL:
        return smoothed(counts)
    raised = counts[-2:] + 0.5
    masses: F64 = raised / (counts.sum() + 1.0)
    return masses


def hour_shares(pooled: F64, first: NDArray[Any]) -> F64:
    """Shares F64[q] of an hour with rows `first` (Strata.first) among those that chose the cuts: (n + p) / (rows + 1), p those of all
    hours. A feature that is there by day only is scored as wholly missing by night, however many events a window has.
    """
    shares: F64 = (first[-len(pooled) :] + pooled) / (first.sum() + 1.0) if first.any() else pooled
    return shares


def statistic_names(target: TargetReference) -> tuple[str, ...]:
    """Order of the statistics in `order`, `tie`, and in the state."""
    if target.binning.kind is Kind.CATEGORICAL:
        return (*target.binning.labels, MISSING, INVALID)
    return NUMERIC_STATISTICS


def statistic_shares(target: TargetReference) -> F64:
    """Share of the target's false alarms that each statistic may use; sum 1."""
    if target.binning.kind is Kind.CATEGORICAL:
        return category_portions(target, share_masses(target.binning, target.first), RANK_PORTIONS)
    return np.array([*(VALUE_SHARE * v for v in STATISTIC_SHARES), MISSING_SHARE, INVALID_SHARE])


def category_portions(target: TargetReference, shares: F64, of: Portions) -> F64:
    """`portions` of a categorical target, whose shares are now F64[b + 2]. By the rows that chose the categories: no later one
    decides which are known.
    """
    return portions(shares, of, others=bool(target.first[-4] > 0))


def _check(target: TargetReference, settings: DetectionSettings) -> None:
    if target.windows < 1:
        raise IncompleteReference(f"{target.name}: the reference has no windows yet")
    statistics, ranks = len(statistic_names(target)), target.strata or target
    if not ranks.order.shape == ranks.tie.shape == (*ranks.rank.shape[:-1], statistics, ranks.rank.shape[-1]):
        raise IncompleteReference(f"{target.name}: ranks of {ranks.order.shape}, not of {statistics} statistics")
    if not 0.0 <= settings.tolerance <= TOLERANCE_MAX:
        raise BadSettings(f"tolerance {settings.tolerance!r} is not between 0 and {TOLERANCE_MAX}")
    if not (math.isfinite(settings.budget_ms) and settings.budget_ms > 0):
        raise BadSettings(f"budget {settings.budget_ms!r} ms is not positive")
    if not (math.isfinite(settings.reserve) and settings.reserve >= 1.0):
        raise BadSettings(f"reserve {settings.reserve!r} is not at least 1")
    if settings.cells < 1 or settings.latch_windows < 1:
        raise BadSettings("cells and latch_windows must be at least 1")


def prepare(target: TargetReference, settings: DetectionSettings, reference_id: str) -> Prepared:
    """Tables of one target. Raises IncompleteReference, BadSettings. A ms; about 3 KB a numeric target, .5 KB a category."""
    _check(target, settings)
    binning = target.binning
    numeric = binning.kind is Kind.NUMERIC
    first_core = fold(binning, target.first)
    core = len(first_core) - 2 if numeric else 0
    score = shared(score_table(first_core[:core]).score if numeric else np.zeros((0, 4)))
    share_p = shared(share_masses(binning, first_core))
    taken = tolerances_of(target, settings)
    return Prepared(
        target=target,
        settings=settings,
        tolerances=taken,
        reference_id=reference_id,
        statistics=statistic_names(target),
        prefix=seed_prefix(target.name, reference_id),
        first=binning.core[0] if numeric else 0,
        core=core,
        scores=(score, target.first),
        share_p=share_p,
        tables=Tables(
            _score_mean(target, target.counts, score),
            share_p,
            _rank_tables(target, settings, share_p, _first_yardstick(target)),
            _tube_tables(target, settings, taken, target.counts),
        ),
        size_range=(target.size_min, target.size_max),
        threshold_log10=math.log10(settings.budget_ms),
        strata=None if target.strata is None else InForce(target.strata),
    )


def _score_mean(target: TargetReference, counts: I64, score: F64) -> F64:
    """Expected scores F64[4] of an event, if events are as counts I64[b + 2]."""
    if target.binning.kind is Kind.CATEGORICAL:
        return shared(np.zeros(4))
    return shared(smoothed(fold(target.binning, counts)[:-2]) @ score)


class Yardstick(NamedTuple):
    """Ranks that a window is compared with: `rank` of `windows` windows of about `size` events, as in TargetReference."""

    rank: I64
    windows: int
    size: int
    order: NDArray[Any]
    tie: NDArray[Any]


def _first_yardstick(target: TargetReference) -> Yardstick:
    if target.strata is not None:
        return _yardstick(target.strata, 0)
    return Yardstick(target.rank, target.windows, target.size_median, target.order, target.tie)


def _yardstick(strata: Strata, row: int) -> Yardstick:
    rank = strata.rank[row]
    windows = int(rank[-1])
    return Yardstick(rank, windows, int(strata.counts[row].sum()) // windows, strata.order[row], strata.tie[row])


def stratum_tables(prepared: Prepared, row: int) -> Tables:
    """Of one stratum. The weights of the tube's bets are those of all windows: no process may change its weights as it goes. Strata by
    size have ranks of their own, and nothing else.
    """
    target, settings = prepared.target, prepared.settings
    assert target.strata is not None
    if not target.strata.by_clock:
        if row == 0:
            return prepared.tables
        ranks = _rank_tables(target, settings, prepared.share_p, _yardstick(target.strata, row))
        return prepared.tables._replace(rank=ranks)
    counts = target.strata.counts[row].astype(np.int64)
    tube = _tube_tables(target, settings, prepared.tolerances, counts)
    share_p = shared(hour_shares(prepared.share_p, target.strata.first[row]))
    ranks = _rank_tables(target, settings, share_p, _yardstick(target.strata, row))
    return Tables(_score_mean(target, counts, prepared.scores[0]), share_p, ranks, (*tube[:-1], prepared.tube[-1]))


def expected(prepared: Prepared, windows: Sequence[tuple[int, int]]) -> Tables:
    """What the reference expects of windows (start in ms, events) together: the tables of all, or without hours the target's.

    Their strata are mixed as the windows mix them. The ranks are of no use.
    """
    target = prepared.target
    if prepared.strata is None or target.strata is None or not target.strata.by_clock:
        return prepared.tables
    events = np.zeros(len(target.strata.counts))
    for start_ms, count in windows:
        row = prepared.strata.row(start_ms, None, count)
        if row >= 0:
            events[row] += count
    used = np.flatnonzero(events)
    if not len(used):
        return prepared.tables
    parts = target.strata.counts[used].astype(np.float64)
    share = events[used] / events.sum() / parts.sum(axis=1)
    counts = np.round(share @ parts * parts.sum()).astype(np.int64)
    tube = _tube_tables(target, prepared.settings, prepared.tolerances, counts)
    return Tables(_score_mean(target, counts, prepared.scores[0]), prepared.share_p, prepared.rank, tube)


@lru_cache(maxsize=256)
def _share_bets(p: float, size: int, rank: bytes, windows: int) -> NDArray[np.uint8]:
    """Bets of one share, coded; most numeric targets have the same two, of a few missing values and no invalid one."""
    return bet_codes(share_rank_bets(p, size, np.frombuffer(rank, np.int64), windows))


def _rank_tables(
    target: TargetReference, settings: DetectionSettings, share_p: F64, yardstick: Yardstick
) -> tuple[Any, ...]:
    windows, size = yardstick.windows, max(yardstick.size, 1)
    ranks = yardstick.rank.tobytes()
    bets, bet_start = _value_bets(ranks, windows)
    if target.binning.kind is Kind.CATEGORICAL:
        bets = bets[:0]
    share_bets = shared(np.stack([_share_bets(float(p), size, ranks, windows) for p in share_p]))
    alpha = shared(rank_counts(yardstick.rank, windows))
    thresholds = shared(settings.budget_ms * settings.cells * settings.reserve / statistic_shares(target))
    whole = yardstick.order.dtype == np.float64  # of a profile that is not `slim`
    order, tie = (shared(each.astype(np.float32)) if whole else each for each in (yardstick.order, yardstick.tie))
    return order, tie, alpha, bets, bet_start, share_bets, ADAPTIVE_DECAY, ADAPTIVE_SHARE, thresholds


def tolerances_of(target: TargetReference, settings: DetectionSettings) -> Tolerances:
    """What is in force for a target."""
    effects = target.effects if settings.auto else None
    return tolerances(settings.tolerance, effects, settings.budget_ms, settings.cells, most=TOLERANCE_MAX)


def _tube_tables(
    target: TargetReference, settings: DetectionSettings, taken: Tolerances, counts: I64
) -> tuple[Any, ...]:
    """Of events with counts I64[b + 2]."""
    tolerance, core = taken.values, fold(target.binning, counts)
    shares = share_masses(target.binning, core)
    if target.binning.kind is Kind.NUMERIC:
        masses = smoothed(core[:-2])
        lo, hi = np.empty(len(masses)), np.empty(len(masses))
        core_edges(masses, tolerance, lo, hi)
        log_h, weights = tube_bets(masses, lo, hi), VALUE_SHARE * LAW_WEIGHTS
        share_weight, plug_weight = np.array([MISSING_SHARE, INVALID_SHARE]), VALUE_SHARE * SHARE_PLUG_IN
    else:
        log_h, weights = np.zeros((0, 0)), np.zeros(0)
        share_weight = category_portions(target, shares, TUBE_PORTIONS) * (1.0 - PLUG_IN_PORTION)
        plug_weight = PLUG_IN_PORTION
    edges = np.array([share_edges(float(p), taken.absent) for p in shares])
    tables = [share_tube_bets(float(p), taken.absent) for p in shares]
    share_in, share_out = np.array([t[0] for t in tables]), np.array([t[1] for t in tables])
    weight = np.concatenate(
        [weights, *(w * tube_weights(float(p)) for w, p in zip(share_weight, shares, strict=True)), [plug_weight]]
    )
    # A target inside the tube has h = 1: its evidence is the mere passing of time. Its weight goes to the others.
    idle = np.concatenate([np.abs(log_h).max(axis=1, initial=0.0) < 1e-9, (np.abs(share_in) < 1e-12).ravel(), [False]])
    weight[idle] = 0.0
    weight /= weight.sum()
    threshold = float(settings.budget_ms * settings.cells)  # a whole number would compile the kernel once more
    arrays = (share_in, share_out, shares, edges[:, 0], edges[:, 1], weight)
    return threshold, tolerance, counts, *(shared(array) for array in arrays)
