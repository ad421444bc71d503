"""Drift detection method on the rate of errors [1], river's.

p = share of errors since the start, s = sqrt(p (1 - p) / n); it fires when p + s is above p_min + `drift_threshold` s_min, both
of when p + s was smallest. Rises only.

Reads      errors, 0 or 1; Output p + s
State      mean and count, the smallest p and s, flags; 42 bytes
Guarantee  none. Seen at the defaults: one or two alarms, early, in 120,000 independent values with 10 % errors; but where no error
           comes within `warm_start`, both minima are 0 and the first error is an alarm
Cost       O(1), about 2.5 us an error
Source     [1] Gama, Medas, Castillo, Rodrigues 2004, SBIA; river.drift.binary.DDM
"""

# ruff: noqa: SLF001 - river has no way to take a state out or put it back

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river.drift.binary import DDM
from river.stats import Mean

from detectors.online.series import (
    Saved,
    Sections,
    Step,
    check_header,
    error,
    flags,
    header,
    mean_to_array,
    section,
    set_flags,
)
from detectors.parameters import Base, number, whole

NAME = "ddm"


@dataclass(frozen=True)
class Parameters(Base):
    warm_start: int = whole(30, 1, 1_000_000, "errors and successes before the first alarm")
    warning_threshold: float = number(2.0, 0.1, 100.0, "deviations above the smallest rate: warning")
    drift_threshold: float = number(3.0, 0.1, 100.0, "deviations above the smallest rate: alarm")


def start(parameters: Parameters) -> Any:
    return DDM(parameters.warm_start, parameters.warning_threshold, parameters.drift_threshold)


def update(state: Any, value: float) -> Step:
    state.update(error(NAME, value))
    p = state._p.get()
    return Step(state.drift_detected, state.warning_detected, float(p + math.sqrt(p * (1 - p) / state._p.n)))


def state_to_sections(parameters: Parameters, state: Any) -> Saved:
    smallest = (np.inf, np.inf) if state._p_min is None else (state._p_min, state._s_min)  # inf = none yet
    arrays: dict[str, NDArray[Any]] = {
        "mean": mean_to_array(state._p),
        "smallest": np.array(smallest, np.float64),
        "flags": flags(state),
    }
    return header(NAME, parameters), arrays


def state_from_sections(parameters: Parameters, saved: Mapping[str, Any], sections: Sections) -> Any:
    check_header(NAME, parameters, saved)
    state = start(parameters)
    state._p = Mean._from_state(*section(sections, "mean", 2).tolist())
    p_min, s_min = section(sections, "smallest", 2).tolist()
    if math.isfinite(p_min):
        state._p_min, state._s_min, state._ps_min = p_min, s_min, p_min + s_min
    set_flags(state, sections)
    return state
