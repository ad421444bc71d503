"""Pearson's chi-squared test of two samples [1].

x2 = sum over cells of (o - e)^2 / e, o the events of reference and window in a cell, e = what both together let expect; a cell is a bin,
or some of which few are expected (detectors.distance.contingency).

Reads      all bins; Output Outcome: x2 >= 0, cells - 1, p; NaN where either side has no event or one cell is all
Guarantee  p <= a in at most a share 1.3 a of the windows, for a >= .01 and expected_min 5 (.4 a where rare bins are judged
           alone), if every event is drawn independently from one law on both sides. Not of autocorrelated events; with many
           events any difference counts
Cost       O(bins), about .3 ms for 200 targets of 84 bins
Source     [1] Pearson 1911, Biometrika 8; Cochran 1954 (sparse cells); scipy.stats.chi2_contingency
"""

from __future__ import annotations

from functools import partial

import numpy as np

from detectors.distance.bins import ReferenceBins, Traits, TwoSample
from detectors.distance.contingency import Parameters, outcome

__all__ = ["Parameters", "prepare"]

TRAITS = Traits(symmetric=True, upper=np.inf)


def prepare(reference: ReferenceBins, parameters: Parameters) -> TwoSample:
    return partial(outcome, reference, parameters, ratio=False)
