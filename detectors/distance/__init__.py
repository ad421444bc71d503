"""Distances between the bins of a window and the bins of its reference.

All are computed for all targets at once over one flat ("ragged") array: the bins of target i are
`bins[start[i]:start[i + 1]]`, start I64[t + 1] ascending from 0. A target without any count on either side has no
distance: NaN, never 0. Each file holds one distance, with its definition, its error and its source.
"""

from __future__ import annotations

from detectors.distance.jensen_shannon import jensen_shannon
from detectors.distance.kolmogorov_smirnov import kolmogorov_smirnov
from detectors.distance.psi import population_groups, psi

DISTANCES = ("psi", "kolmogorov_smirnov", "jensen_shannon")

__all__ = ["DISTANCES", "jensen_shannon", "kolmogorov_smirnov", "population_groups", "psi"]
