"""How many events a lasting shift takes until the tolerance tube finds it: what a tolerance, a budget and a window cost.

    events = l / KL(q | p*), whole windows        q the shifted law, p* the nearest law of the tube, l the evidence that is needed:
                                                  log(budget x cells / (a window's time x the share of the bet on such a shift))

The tube is the slower layer once a stream is longer than some windows. Within a factor of 1.5 of simulation, shifts from
.25 to 1 and tolerances from .05 to .45 (tests/unit/test_tolerance_auto.py). The windows of a reference without a fixed length
are taken for as short as they may be, which counts for some 10 %.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from detectors.binning import Kind
from detectors.normal import cdf, cdf_all, ppf, ppf_all
from detectors.reference import fold
from detectors.sequential.categories import TUBE_SHIFTS, tube_weights
from detectors.sequential.default_tables import VALUE_SHARE, Prepared
from detectors.sequential.scores import smoothed
from detectors.sequential.taut_string import taut_string
from detectors.sequential.tube import SHARE_PLUG_IN, SHARE_SHIFTS, SHIFT_WEIGHTS, SHIFTS, core_edges, share_edges

F64 = NDArray[np.float64]

GROWTH_MIN = 1e-9  # of the evidence an event: less is rounding


def expected_events(prepared: Prepared, shift: float, window_ms: float) -> float:
    """Events until a shift by +-`shift` probit units is found, the mean of both directions; inf: it is within the tolerance, or
    there is nothing to see of it. Of a categorical target: a shift of its most frequent category. Windows last window_ms.
    """
    growth, share = _numeric(prepared, shift) if prepared.core else _categorical(prepared, shift)
    settings = prepared.settings
    needed = max(math.log(settings.budget_ms * settings.cells / (window_ms * share)), 1.0)
    size = max(prepared.target.size_median, 1)
    found = [math.ceil(needed / g / size) * size if g > GROWTH_MIN else math.inf for g in growth]
    return float(np.mean(found))


def _numeric(prepared: Prepared, shift: float) -> tuple[list[float], float]:
    """(growth of the evidence an event, up and down; share of a bet)."""
    masses = smoothed(fold(prepared.target.binning, prepared.target.counts)[: prepared.core])
    lo, hi, log_h = (np.empty(prepared.core) for _ in range(3))
    core_edges(masses, prepared.tolerances.values, lo, hi)
    probit = ppf_all(np.cumsum(masses)[:-1])
    growth = []
    for by in (shift, -shift):
        law = np.diff(np.concatenate([[0.0], cdf_all(probit - by), [1.0]]))
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
    return growth, (1.0 - SHARE_PLUG_IN) / len(shares) * share
