"""Kolmogorov-Smirnov test between the newest values and as many drawn from the older ones [1], river's.

Of the last `window_size` values the newest `stat_size` against `stat_size` drawn from the others without replacement; it fires when
p <= alpha and the distance is above .1.

Reads      numbers; Output p of the last test, 1 until the window is full
State      the window, the generator's 625 words, p, a count and a flag; 3.3 kB at the defaults
Guarantee  none over a series: alpha is of one test of independent values, and every value makes another one. Seen at the
           defaults: an alarm in some 900 independent values; in 120 of an autocorrelation of .9
Cost       a draw and a test of two samples of stat_size for every value: about 300 us
Source     [1] Raab, Heusinger, Schleif 2020, Neurocomputing 416; river.drift.KSWIN

What it draws follows from `seed`, which is a parameter and never the clock: the same values have the same alarms. After an
alarm river begins with the seed again.
"""

# ruff: noqa: SLF001 - river has no way to take a state out or put it back

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river.drift import KSWIN

from detectors.online.series import Saved, Sections, Step, check_header, flags, header, section, set_flags
from detectors.online.series import number as value_of
from detectors.parameters import Base, number, whole
from detectors.verdict import BadState

NAME = "kswin"
GENERATOR_VERSION = 3  # of the Mersenne Twister's state in Python
GENERATOR_WORDS = 625


@dataclass(frozen=True)
class Parameters(Base):
    alpha: float = number(0.005, 1e-12, 0.5, "p at which it fires")
    window_size: int = whole(100, 100, 10_000, "values in the window")
    stat_size: int = whole(30, 5, 50, "newest values, and as many older ones, that are compared")
    seed: int = whole(0, 0, 2**31 - 1, "of what is drawn from the older values")


def start(parameters: Parameters) -> Any:
    return KSWIN(parameters.alpha, parameters.window_size, parameters.stat_size, parameters.seed)


def update(state: Any, value: float) -> Step:
    full = len(state.window) >= state.window_size - 1 and not state.drift_detected
    state.update(value_of(NAME, value))
    return Step(bool(state.drift_detected), warning=False, statistic=float(state.p_value) if full else 1.0)


def state_to_sections(parameters: Parameters, state: Any) -> Saved:
    arrays: dict[str, NDArray[Any]] = {
        "window": np.array(state.window, np.float64),
        "generator": np.array(state._rng.getstate()[1], np.uint32),
        "p": np.array([state.p_value], np.float64),
        "count": np.array([state.n], np.int64),
        "flags": flags(state),
    }
    return header(NAME, parameters), arrays


def state_from_sections(parameters: Parameters, saved: Mapping[str, Any], sections: Sections) -> Any:
    check_header(NAME, parameters, saved)
    state = start(parameters)
    window = section(sections, "window")
    if len(window) > parameters.window_size:
        raise BadState(f"section window: {len(window)} values")
    words = section(sections, "generator", GENERATOR_WORDS, np.uint32).tolist()
    if words[-1] >= GENERATOR_WORDS:
        raise BadState(f"section generator: at word {words[-1]}")
    state.window.extend(window.tolist())
    state._rng.setstate((GENERATOR_VERSION, tuple(words), None))
    state.p_value = float(section(sections, "p", 1)[0])
    state.n = int(section(sections, "count", 1, np.int64)[0])
    set_flags(state, sections)
    return state
