"""Early drift detection method: the distance between errors [1], river's.

d = mean + 2 deviations of the number of values between two errors; it fires when d / (its largest so far) is below `beta`.
Errors that come closer together only.

Reads      errors, 0 or 1; Output d / (its largest so far), 1 until there is one
State      moments of the distances, counts, the largest, flags; 58 bytes
Guarantee  none: the largest d of a long series is a high extreme. Seen at the defaults: an alarm in 300 to 2,000 values with
           10 % errors and no drift
Cost       O(1), about 2 us an error
Source     [1] Baena-Garcia et al. 2006, IWKDDS; river.drift.binary.EDDM
"""

# ruff: noqa: SLF001 - river has no way to take a state out or put it back

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river.drift.binary import EDDM
from river.stats import Mean

from detectors.online.series import Saved, Sections, Step, check_header, error, flags, header, section, set_flags
from detectors.parameters import Base, number, whole

NAME = "eddm"


@dataclass(frozen=True)
class Parameters(Base):
    warm_start: int = whole(30, 1, 1_000_000, "errors before the first alarm")
    alpha: float = number(0.95, 0.9, 1.0, "share of the largest distance: warning")
    beta: float = number(0.9, 0.01, 0.9, "share of the largest distance: alarm")


def start(parameters: Parameters) -> Any:
    return EDDM(parameters.warm_start, parameters.alpha, parameters.beta)


def update(state: Any, value: float) -> Step:
    state.update(error(NAME, value))
    distances, largest = state._error_distances, state._p2s_prime_max
    level = (distances.mean.get() + 2 * distances.get() ** 0.5) / largest if largest > 0 else 1.0
    return Step(state.drift_detected, state.warning_detected, float(level))


def state_to_sections(parameters: Parameters, state: Any) -> Saved:
    distances = state._error_distances
    moments = (distances.n, distances.mean.get(), distances._S, state._p2s_prime_max)
    arrays: dict[str, NDArray[Any]] = {
        "moments": np.array(moments, np.float64),
        "counts": np.array([state._n, state._last_error, state._n_errors], np.int64),
        "flags": flags(state),
    }
    return header(NAME, parameters), arrays


def state_from_sections(parameters: Parameters, saved: Mapping[str, Any], sections: Sections) -> Any:
    check_header(NAME, parameters, saved)
    state = start(parameters)
    n, mean, squares, state._p2s_prime_max = section(sections, "moments", 4).tolist()
    state._error_distances.mean = Mean._from_state(n, mean)
    state._error_distances._S = squares
    state._n, state._last_error, state._n_errors = section(sections, "counts", 3, np.int64).tolist()
    set_flags(state, sections)
    return state
