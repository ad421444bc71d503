"""Page-Hinkley test of the mean [1], river's.

m_t = sum of alpha^(t-i) (x_i - mean_i -+ delta), mean_i of the values up to i; it fires when m_t is more than `threshold` above
its smallest value so far (up), or below its largest (down).

Reads      numbers; Output how far the sums are from their extremes, the larger of the sides watched, in the unit of the values
State      mean and count, two sums, their extremes, a flag; 50 bytes
Guarantee  none: `threshold` is in the unit of the values, and how often it is passed without drift depends on their deviation.
           Seen at the defaults: an alarm in some 1,500 independent values of deviation 1; in 160 of an autocorrelation of .9
Cost       O(1), about 2.5 us a value
Source     [1] Page 1954, Biometrika 41; Hinkley 1971, Biometrika 58; river.drift.PageHinkley
"""

# ruff: noqa: SLF001 - river has no way to take a state out or put it back

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river.drift import PageHinkley
from river.stats import Mean

from detectors.online.series import (
    Saved,
    Sections,
    Step,
    check_header,
    flags,
    header,
    mean_to_array,
    section,
    set_flags,
)
from detectors.online.series import number as value_of
from detectors.parameters import Base, choice, number, whole

NAME = "page_hinkley"


@dataclass(frozen=True)
class Parameters(Base):
    min_instances: int = whole(30, 1, 1_000_000, "values before the first alarm")
    delta: float = number(0.005, 0.0, 1e6, "change that is tolerated, in the unit of the values")
    threshold: float = number(50.0, 1e-6, 1e12, "in the unit of the values")
    alpha: float = number(0.9999, 0.5, 1.0, "what is left of the sums with each value")
    mode: str = choice("both", ("up", "down", "both"), "sides that are watched")


def start(parameters: Parameters) -> Any:
    return PageHinkley(
        parameters.min_instances, parameters.delta, parameters.threshold, parameters.alpha, parameters.mode
    )


def update(state: Any, value: float) -> Step:
    state.update(value_of(NAME, value))
    up = state._sum_increase - state._min_increase
    down = state._max_decrease - state._sum_decrease
    statistic = {"up": up, "down": down, "both": max(up, down)}[state.mode]
    return Step(state.drift_detected, warning=False, statistic=float(statistic))


def state_to_sections(parameters: Parameters, state: Any) -> Saved:
    sums = (state._sum_increase, state._sum_decrease, state._min_increase, state._max_decrease)
    arrays: dict[str, NDArray[Any]] = {
        "mean": mean_to_array(state._x_mean),
        "sums": np.array(sums, np.float64),
        "flags": flags(state),
    }
    return header(NAME, parameters), arrays


def state_from_sections(parameters: Parameters, saved: Mapping[str, Any], sections: Sections) -> Any:
    check_header(NAME, parameters, saved)
    state = start(parameters)
    state._x_mean = Mean._from_state(*section(sections, "mean", 2).tolist())
    sums = section(sections, "sums", 4).tolist()
    state._sum_increase, state._sum_decrease, state._min_increase, state._max_decrease = sums
    set_flags(state, sections)
    return state
