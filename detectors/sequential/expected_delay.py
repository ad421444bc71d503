"""How many events a lasting shift takes until both layers find it: what a tolerance, a budget, a window and a reference cost.

    tube    l / KL(q | p*)          q the shifted law, p* the nearest law of the tube, l the evidence that is needed:
                                    log(budget x cells / (a window's time x the share of the bet on such a shift))
    ranks   rank_delay.py           of the location, or of the category's share, at a stream's start

Whole windows; the later layer counts, and where it is so much later that the other is forgotten, the next crossing of that. The
tube is the slower one where windows are small and the reference has many, the ranks where it has few: beside 24 windows the
largest shift takes more than twice as many windows as beside 400, and a small one may never be found. Within a factor of 1.5 of
simulation, shifts from .25 to 1, tolerances from .05 to .45, 24 to 4,000 reference windows (tests/unit/test_tolerance_auto.py).

The windows of a reference without a fixed length are taken for as short as they may be, which counts for some 10 %. Of a target
with strata: hours that all have as many windows as the median one; a shift that lasts is ranked among the next hour's in turn,
where it is new again.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from detectors.binning import Kind
from detectors.normal import cdf, cdf_all, ppf, ppf_all
from detectors.reference import fold
from detectors.sequential.categories import (
    BET_VALUES,
    PLUG_IN_PORTION,
    TUBE_PORTIONS,
    TUBE_SHIFTS,
    share_cdf,
    tube_weights,
)
from detectors.sequential.default_tables import VALUE_SHARE, Prepared, category_portions
from detectors.sequential.rank_delay import windows_until
from detectors.sequential.scores import smoothed
from detectors.sequential.strata import HOURS
from detectors.sequential.taut_string import taut_string
from detectors.sequential.tube import SHARE_SHIFTS, SHIFT_WEIGHTS, SHIFTS, core_edges, share_edges
from detectors.sequential.windows_auto import HOUR_MS

F64 = NDArray[np.float64]

GROWTH_MIN = 1e-9  # of the evidence an event: less is rounding
WIDTH_MIN = 1e-6  # of window statistics: less is a target of one value


def expected_events(prepared: Prepared, shift: float, window_ms: float) -> float:
    """Events until a shift by +-`shift` probit units is found, the mean of both directions; inf: it is within the tolerance, or
    there is nothing to see of it, or it becomes usual first. Of a categorical target: a shift of its most frequent category.
    Windows last window_ms. Cost: a ms, some 50 of a target with strata where a shift is never found.
    """
    numeric = prepared.core > 0
    growth, share = _numeric(prepared, shift) if numeric else _categorical(prepared, shift)
    settings = prepared.settings
    needed = max(math.log(settings.budget_ms * settings.cells / (window_ms * share)), 1.0)
    size = max(prepared.target.size_median, 1)
    found = []
    for by, nats in zip((shift, -shift), growth, strict=True):
        tube = math.ceil(needed / nats / size) if nats > GROWTH_MIN else math.inf
        found.append(_with_ranks(prepared, by, window_ms, tube) * size if tube < math.inf else math.inf)
    return float(np.mean(found))


def _with_ranks(prepared: Prepared, by: float, window_ms: float, tube: float) -> float:
    """Windows until both layers have found a shift that the tube finds every `tube` windows."""
    hour, hours, tables = 1, 1, prepared.tables
    if prepared.strata is not None and prepared.target.strata is not None:
        windows = prepared.target.strata.rank[:, -1]
        tables = prepared.strata.tables(prepared, int(np.argsort(windows, kind="stable")[len(windows) // 2]))
        hour, hours = max(round(HOUR_MS / window_ms), 1), HOURS[prepared.strata.season]
    order, _, alpha, bets, bet_start, share_bets, decay, adaptive_share, thresholds = tables.rank
    if prepared.core:
        statistic = 0
        q = _location_law(prepared, by, order[0].astype(np.float64), alpha)
        bets = bets[:, : bet_start[1]]
        shares = [(1.0 - adaptive_share) / bets.shape[1]] * bets.shape[1] + [adaptive_share / len(decay)] * len(decay)
    else:
        statistic = int(np.argmax(prepared.tube[5]))
        now = cdf(ppf(float(tables.tube[5][statistic])) + by)
        q = _share_law(prepared, float(tables.share_p[statistic]), now, order[statistic].astype(np.float64))
        bets, decay = BET_VALUES[share_bets[statistic]], np.zeros(0)
        shares = [1.0 / bets.shape[1]] * bets.shape[1]
    needed = float(thresholds[statistic]) / window_ms
    bets, latch = np.ascontiguousarray(bets), prepared.latch_windows
    return windows_until(q, alpha, bets, np.array(shares), decay, needed, hour, hours, latch, float(tube))


def _location_law(prepared: Prepared, by: float, order: F64, alpha: F64) -> F64:
    """Probability F64[r + 1] of each rank bin when values are shifted. Windows are normal, as wide as those that were ranked:
    their order statistics F64[r] on normal scores are a line.
    """
    masses = smoothed(fold(prepared.target.binning, prepared.target.counts)[: prepared.core])
    score = prepared.scores[0][:, 0]
    moved = float((_shifted(masses, by) - masses) @ score) * math.sqrt(max(prepared.target.size_median, 1))
    normal = ppf_all(np.cumsum(alpha)[:-1] / alpha.sum())
    centred, middle = normal - normal.mean(), float(order.mean())
    spread = float(centred @ centred)
    slope = float(centred @ order) / spread if spread > 0.0 else 0.0
    width = slope if slope > WIDTH_MIN else 1.0
    at = (order - (middle - width * float(normal.mean())) - moved) / width
    return np.diff(np.concatenate([[0.0], cdf_all(at), [1.0]]))


def _share_law(prepared: Prepared, p: float, now: float, order: F64) -> F64:
    """The same of a category's share that is `now`: binomial counts; order F64[r] of its statistic by share p (categories.py)."""
    below = np.where(order < 0.0, np.exp(np.minimum(order, 0.0)) / 2, 1.0 - np.exp(-np.maximum(order, 0.0)) / 2)
    at_most = np.empty(len(order))
    share_cdf(max(prepared.target.size_median, 1), p, now, np.clip(below, 1e-300, 1.0 - 1e-15), at_most)
    return np.diff(np.concatenate([[0.0], np.maximum.accumulate(at_most), [1.0]]))


def _shifted(masses: F64, by: float) -> F64:
    """Masses F64[K] of the bins when the values' normal scores move."""
    probit = ppf_all(np.cumsum(masses)[:-1])
    law: F64 = np.diff(np.concatenate([[0.0], cdf_all(probit - by), [1.0]]))
    return law


def _numeric(prepared: Prepared, shift: float) -> tuple[list[float], float]:
    """(growth of the evidence an event, up and down; share of a bet)."""
    masses = smoothed(fold(prepared.target.binning, prepared.target.counts)[: prepared.core])
    lo, hi, log_h = (np.empty(prepared.core) for _ in range(3))
    core_edges(masses, prepared.tolerances.values, lo, hi)
    growth = []
    for by in (shift, -shift):
        law = _shifted(masses, by)
        taut_string(law, lo, hi, log_h)
        growth.append(float(law @ log_h))
    nearest = min(range(len(SHIFTS)), key=lambda i: abs(SHIFTS[i] - shift))
    return growth, VALUE_SHARE * SHARE_SHIFTS * SHIFT_WEIGHTS[nearest] / 2


def _categorical(prepared: Prepared, shift: float) -> tuple[list[float], float]:
    assert prepared.target.binning.kind is Kind.CATEGORICAL
    shares = prepared.tube[5]
    p = float(shares.max())
    lo, hi = share_edges(p, prepared.tolerances.values)
    growth = []
    for by in (shift, -shift):
        now = cdf(ppf(p) + by)
        near = min(max(now, lo), hi)
        growth.append(now * math.log(now / near) + (1.0 - now) * math.log((1.0 - now) / (1.0 - near)))
    weights, nearest = tube_weights(p), min(abs(s - shift) for s in TUBE_SHIFTS)
    share = float(weights[[i for i, s in enumerate(TUBE_SHIFTS) if abs(s - shift) == nearest]].sum())
    portion = float(category_portions(prepared.target, shares, TUBE_PORTIONS)[np.argmax(shares)])
    return growth, (1.0 - PLUG_IN_PORTION) * portion * share
