"""G-test of two samples: the likelihood ratio of one law against two [1].

g = 2 sum over cells of o ln(o / e), o the events of reference and window in a bin, e = what both together let expect; cells with
few are put together (detectors.distance.contingency). g / (2 events) is the Jensen-Shannon divergence in nats, weighted by n and m.

Reads      all bins; Output Outcome: g >= 0, cells - 1, p; NaN where either side has no event or one cell is left
Guarantee  p <= a in about a share a of the windows when every event is drawn independently from one law on both sides: between
           .5 a and 1.6 a for a >= .01 with expected_min 5. Not of autocorrelated events, and with many events any difference counts
Cost       O(bins), about 1 ms for 200 targets of 84 bins
Source     [1] Wilks 1938, Ann. Math. Stat. 9; scipy.stats.chi2_contingency(lambda_="log-likelihood")
"""

from __future__ import annotations

from functools import partial

import numpy as np

from detectors.distance.bins import Outcome, ReferenceBins, Traits, TwoSample, WindowBins
from detectors.distance.contingency import Parameters, outcome, table
from detectors.distance.ragged import F64

__all__ = ["Parameters", "prepare"]

TRAITS = Traits(symmetric=True, upper=np.inf)


def prepare(reference: ReferenceBins, parameters: Parameters) -> TwoSample:
    return partial(_test, reference, parameters)


def _test(reference: ReferenceBins, parameters: Parameters, window: WindowBins) -> Outcome:
    cells = table(reference, parameters, window)
    value = _cells(cells.reference, cells.reference_expected) + _cells(cells.window, cells.window_expected)
    return outcome(2.0 * value, cells, len(reference.start) - 1)


def _cells(observed: F64, expected: F64) -> F64:
    """0 where nothing was observed; NaN stays NaN."""
    ratio = np.divide(observed, expected, out=np.ones_like(expected), where=observed > 0)
    return np.where(np.isnan(expected), np.nan, observed * np.log(ratio))
