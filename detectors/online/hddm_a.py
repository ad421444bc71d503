"""Drift detection with Hoeffding's bound on averages [1], river's.

The average of all values against that up to the cut, the value at which average + bound was smallest; it fires when the difference is
above sqrt((1/n_cut - 1/n) / 2 ln(2 / drift_confidence)).

Reads      errors, 0 or 1; Output average - average up to the cut; with sides "both" the larger of both sides
State      three means and counts, flags; 50 bytes
Guarantee  none over a series: the bound is of one comparison at a cut chosen beforehand, and every value makes another one.
           Seen at the defaults: no alarm in 120,000 independent values with 10 % errors
Cost       O(1), about 6 us an error
Source     [1] Frias-Blanco et al. 2014, IEEE TKDE 27, A-test; river.drift.binary.HDDMA
"""

# ruff: noqa: SLF001 - river has no way to take a state out or put it back

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from river.drift.binary import HDDMA
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
from detectors.parameters import Base, choice, number

NAME = "hddm_a"


@dataclass(frozen=True)
class Parameters(Base):
    drift_confidence: float = number(0.001, 1e-15, 0.5, "chance that Hoeffding's bound leaves to one comparison: alarm")
    warning_confidence: float = number(0.005, 1e-15, 0.5, "the same: warning")
    sides: str = choice("up", ("up", "both"), "rises only, or falls too")


def start(parameters: Parameters) -> Any:
    return HDDMA(parameters.drift_confidence, parameters.warning_confidence, parameters.sides == "both")


def update(state: Any, value: float) -> Step:
    state.update(error(NAME, value))
    average = state._z.get()
    rise, fall = average - state._x_min.get(), state._x_max.get() - average
    statistic = max(rise, fall) if state.two_sided_test else rise
    return Step(state.drift_detected, state.warning_detected, float(statistic))


def state_to_sections(parameters: Parameters, state: Any) -> Saved:
    arrays: dict[str, NDArray[Any]] = {
        "means": mean_to_array(state._z, state._x_min, state._x_max),
        "flags": flags(state),
    }
    return header(NAME, parameters), arrays


def state_from_sections(parameters: Parameters, saved: Mapping[str, Any], sections: Sections) -> Any:
    check_header(NAME, parameters, saved)
    state = start(parameters)
    means = section(sections, "means", 6).tolist()
    state._z, state._x_min, state._x_max = (Mean._from_state(*means[i : i + 2]) for i in (0, 2, 4))
    set_flags(state, sections)
    return state
