"""Exponentially weighted moving average [1].

e_t = (1 - weight) e_(t-1) + weight z_t, e_0 = 0, z = (value - mean) / deviation; it fires when |e_t| is above
`limit` sqrt(weight / (2 - weight)), its deviation in the long run. `mean` and `deviation` are those of the series without any
drift; they are told, not learnt.

Reads      numbers; Output |e_t| in its own deviations, comparable with `limit`
State      the average and whether it fired; 9 bytes
Guarantee  one alarm in 500 values on average with weight .1 and limit 2.814 [2], if values are independent, normal and of the
           mean and deviation given. Not otherwise: one in 20 was seen of an autocorrelation of .9
Cost       O(1), about 2 us a value
Source     [1] Roberts 1959, Technometrics 1; [2] Lucas, Saccucci 1990, Technometrics 32, table 3
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.online.series import Saved, Sections, Step, check_header, header, section
from detectors.online.series import number as value_of
from detectors.parameters import Base, number
from detectors.verdict import BadState

NAME = "ewma"


@dataclass(frozen=True)
class Parameters(Base):
    mean: float = number(0.0, -1e100, 1e100, "of the series without drift")
    deviation: float = number(1.0, 1e-100, 1e100, "standard deviation of the series without drift")
    weight: float = number(0.1, 1e-4, 1.0, "of the newest value")
    limit: float = number(2.814, 0.1, 1000.0, "deviations of the average")


@dataclass(slots=True)
class State:
    parameters: Parameters
    average: float = 0.0
    fired: bool = False


def start(parameters: Parameters) -> State:
    return State(parameters)


def update(state: State, value: float) -> Step:
    told = state.parameters
    z = (value_of(NAME, value) - told.mean) / told.deviation
    average = 0.0 if state.fired else state.average
    state.average = (1.0 - told.weight) * average + told.weight * z
    statistic = abs(state.average) / math.sqrt(told.weight / (2.0 - told.weight))
    state.fired = statistic > told.limit
    return Step(state.fired, warning=False, statistic=statistic)


def state_to_sections(parameters: Parameters, state: State) -> Saved:
    arrays: dict[str, NDArray[Any]] = {"average": np.array([state.average]), "fired": np.array([state.fired], np.uint8)}
    return header(NAME, parameters), arrays


def state_from_sections(parameters: Parameters, saved: Mapping[str, Any], sections: Sections) -> State:
    check_header(NAME, parameters, saved)
    average = float(section(sections, "average", 1)[0])
    if not math.isfinite(average):
        raise BadState(f"section average: {average}")
    return State(parameters, average, bool(section(sections, "fired", 1, np.uint8)[0]))
