"""Tables of the default detector: everything that does not change while a reference and its settings are in force."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.binning import Binning, Kind, bin_labels
from detectors.reference import TargetReference, fold
from detectors.sequential.categories import TUBE_SHIFTS, share_rank_bets, share_tube_bets
from detectors.sequential.rank_layer import ADAPTIVE_DECAY, ADAPTIVE_SHARE, SHIFTS, rank_counts, shift_bets
from detectors.sequential.scores import STATISTICS, score_table, smoothed
from detectors.sequential.tube import SHARE_PLUG_IN, share_edges, tube_bets, tube_edges
from detectors.sequential.uniforms import seed_prefix
from detectors.verdict import BadSettings, IncompleteReference

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

MISSING, INVALID = "missing", "invalid"
# How a numeric target's false alarms are shared out: its values (location, scale, both tails, shape), missing, invalid.
VALUE_SHARE, MISSING_SHARE, INVALID_SHARE = 0.85, 0.10, 0.05
STATISTIC_SHARES = (0.35, 0.22, 0.14, 0.14, 0.15)
TOLERANCE_MAX = 3.0  # beyond it the tube holds every law that a detector could tell apart


@dataclass(frozen=True, slots=True)
class DetectionSettings:
    """tolerance: probit units, >= 0. budget_ms: A, the time in which one false alarm of the model is accepted. cells: d."""

    tolerance: float
    budget_ms: float
    cells: int = 1
    latch_windows: int = 200


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Everything that does not change while a reference and its settings are in force. Build with `prepare`."""

    target: TargetReference
    settings: DetectionSettings
    reference_id: str
    statistics: tuple[str, ...]
    prefix: bytes
    first: int
    core: int
    scores: tuple[F64, F64, F64]  # score, nominal, shape_scale
    score_mean: F64
    share_p: F64
    rank: tuple[Any, ...]  # order, tie, alpha, bets, bet_start, share_bets, decay, adaptive_share, thresholds
    tube: tuple[
        Any, ...
    ]  # threshold, log_h, masses, lo, hi, share_in, share_out, share_masses, share_lo, share_hi, weight
    size_range: tuple[int, int]
    threshold_log10: float
    masses: F64  # of the core bins, missing, invalid

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the core bins, missing, invalid: made when an alert asks, 2 KB a target are better not kept."""
        return (*bin_labels(self.target.binning), MISSING, INVALID)


@lru_cache(maxsize=64)
def _value_bets(rank: bytes, windows: int) -> tuple[F64, I64]:
    """Bets of the five value statistics side by side; the same for all targets with as many reference windows."""
    tables = [shift_bets(np.frombuffer(rank, np.int64), windows, shifts) for shifts in SHIFTS]
    starts = np.cumsum([0, *(table.shape[1] for table in tables)])
    return np.ascontiguousarray(np.concatenate(tables, axis=1)), starts.astype(np.int64)


def share_masses(binning: Binning, counts: I64) -> F64:
    """Masses of the shares that are tested one by one: all bins, missing, invalid; numeric targets: missing, invalid."""
    if binning.kind is Kind.CATEGORICAL:
        return smoothed(counts)
    raised = counts[-2:] + 0.5
    masses: F64 = raised / (counts.sum() + 1.0)
    return masses


def statistic_names(target: TargetReference) -> tuple[str, ...]:
    """Order of the statistics in `order`, `tie`, and in the state."""
    if target.binning.kind is Kind.CATEGORICAL:
        return (*target.binning.labels, MISSING, INVALID)
    return (*STATISTICS, MISSING, INVALID)


def statistic_shares(target: TargetReference) -> F64:
    """Share of the target's false alarms that each statistic may use; sum 1."""
    if target.binning.kind is Kind.CATEGORICAL:
        count = target.binning.bins + 2
        return np.full(count, 1.0 / count)
    return np.array([*(VALUE_SHARE * v for v in STATISTIC_SHARES), MISSING_SHARE, INVALID_SHARE])


def _check(target: TargetReference, settings: DetectionSettings) -> None:
    if target.windows < 1:
        raise IncompleteReference(f"{target.name}: the reference has no windows yet")
    if not 0.0 <= settings.tolerance <= TOLERANCE_MAX:
        raise BadSettings(f"tolerance {settings.tolerance!r} is not between 0 and {TOLERANCE_MAX}")
    if not (math.isfinite(settings.budget_ms) and settings.budget_ms > 0):
        raise BadSettings(f"budget {settings.budget_ms!r} ms is not positive")
    if settings.cells < 1 or settings.latch_windows < 1:
        raise BadSettings("cells and latch_windows must be at least 1")


def prepare(target: TargetReference, settings: DetectionSettings, reference_id: str) -> Prepared:
    """Tables of one target. Raises IncompleteReference, BadSettings. Some ms; about 30 KB a numeric target, 3 KB a category."""
    _check(target, settings)
    binning = target.binning
    numeric = binning.kind is Kind.NUMERIC
    first_core, core_counts = fold(binning, target.first), fold(binning, target.counts)
    core = len(core_counts) - 2 if numeric else 0
    table = score_table(first_core[:core]) if numeric else None
    scores = (table.score, table.nominal, table.shape_scale) if table else (np.zeros((0, 4)), np.zeros(0), np.zeros(0))
    masses = smoothed(core_counts[:core]) if numeric else np.zeros(0)
    share_p = share_masses(binning, first_core)
    return Prepared(
        target=target,
        settings=settings,
        reference_id=reference_id,
        statistics=statistic_names(target),
        prefix=seed_prefix(target.name, reference_id),
        first=binning.core[0] if numeric else 0,
        core=core,
        scores=scores,
        score_mean=masses @ scores[0] if numeric else np.zeros(4),
        share_p=share_p,
        rank=_rank_tables(target, settings, share_p),
        tube=_tube_tables(settings, masses, share_masses(binning, core_counts)),
        size_range=(target.size_min, target.size_max),
        threshold_log10=math.log10(settings.budget_ms),
        masses=target.masses,
    )


def _rank_tables(target: TargetReference, settings: DetectionSettings, share_p: F64) -> tuple[Any, ...]:
    bets, bet_start = _value_bets(target.rank.tobytes(), target.windows)
    if target.binning.kind is Kind.CATEGORICAL:
        bets = bets[:0]
    size = max(target.size_median, 1)
    share_bets = np.stack([share_rank_bets(float(p), size, target.rank, target.windows) for p in share_p])
    alpha = rank_counts(target.rank, target.windows)
    thresholds = settings.budget_ms * settings.cells / statistic_shares(target)
    return target.order, target.tie, alpha, bets, bet_start, share_bets, ADAPTIVE_DECAY, ADAPTIVE_SHARE, thresholds


def _tube_tables(settings: DetectionSettings, masses: F64, shares: F64) -> tuple[Any, ...]:
    tolerance = settings.tolerance
    if len(masses):
        lo, hi = tube_edges(np.cumsum(masses)[:-1], tolerance)
        log_h, weights = tube_bets(masses, lo, hi)
        share_weight, weights = np.array([MISSING_SHARE, INVALID_SHARE]), VALUE_SHARE * weights
        plug_weight = VALUE_SHARE * SHARE_PLUG_IN
    else:
        lo, hi, log_h, weights = np.zeros(0), np.zeros(0), np.zeros((0, 0)), np.zeros(0)
        share_weight, plug_weight = np.full(len(shares), (1.0 - SHARE_PLUG_IN) / len(shares)), SHARE_PLUG_IN
    edges = np.array([share_edges(float(p), tolerance) for p in shares])
    tables = [share_tube_bets(float(p), tolerance) for p in shares]
    share_in, share_out = np.array([t[0] for t in tables]), np.array([t[1] for t in tables])
    weight = np.concatenate([weights, np.repeat(share_weight / len(TUBE_SHIFTS), len(TUBE_SHIFTS)), [plug_weight]])
    # A target inside the tube has h = 1: its evidence is the mere passing of time. Its weight goes to the others.
    idle = np.concatenate([np.abs(log_h).max(axis=0, initial=0.0) < 1e-9, (np.abs(share_in) < 1e-12).ravel(), [False]])
    weight[idle] = 0.0
    weight /= weight.sum()
    threshold = settings.budget_ms * settings.cells
    share_lo, share_hi = np.ascontiguousarray(edges[:, 0]), np.ascontiguousarray(edges[:, 1])
    return threshold, log_h, masses, lo, hi, share_in, share_out, shares, share_lo, share_hi, weight
