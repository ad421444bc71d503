"""Fast drift detection with Hoeffding's bound on the last values [1], river's.

u = share of successes among the last `sliding_window_size` values; it fires when u is more than sqrt(ln(1 / confidence_level) /
(2 sliding_window_size)) below its largest so far; with `short_window_size` also on that many values. Rises of errors only.

Reads      errors, 0 or 1; Output largest u so far - u, 0 until the window is full
State      the last values, two maxima, a flag; a byte a value and 18
Differs    river's reads successes, though it says 1 = error: it is given 1 - value
Guarantee  none over a series: the bound is of one comparison of two independent means, and every value makes another one.
           Seen at the defaults: no alarm in 120,000 independent values with 10 % errors
Cost       O(1), about 2 us an error; O(short_window_size) with one
Source     [1] Pesaranghader, Viktor 2016, ECML-PKDD; river.drift.binary.FHDDM
"""

# ruff: noqa: SLF001 - river has no way to take a state out or put it back

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river.drift.binary import FHDDM

from detectors.online.series import Saved, Sections, Step, check_header, error, flags, header, section, set_flags
from detectors.parameters import Base, number, whole
from detectors.verdict import BadState

NAME = "fhddm"


@dataclass(frozen=True)
class Parameters(Base):
    sliding_window_size: int = whole(100, 50, 100_000, "values in the window")
    confidence_level: float = number(1e-6, 1e-15, 0.5, "chance that Hoeffding's bound leaves to one comparison")
    short_window_size: int = whole(0, 0, 50, "values in a second, shorter window; 0 = none")


def start(parameters: Parameters) -> Any:
    return FHDDM(parameters.sliding_window_size, parameters.confidence_level, parameters.short_window_size or None)


def update(state: Any, value: float) -> Step:
    held = state.n_one + (success := 1 - error(NAME, value))
    full = len(state._sliding_window) == state.sliding_window_size - 1 and not state.drift_detected
    state.update(success)
    return Step(
        state.drift_detected,
        warning=False,
        statistic=float(state._u_max - held / state.sliding_window_size) if full else 0.0,
    )


def state_to_sections(parameters: Parameters, state: Any) -> Saved:
    short = getattr(state, "_u_short_max", 0)
    arrays: dict[str, NDArray[Any]] = {
        "window": np.array(state._sliding_window, np.uint8),
        "largest": np.array([state._u_max, short], np.float64),
        "flags": flags(state),
    }
    return header(NAME, parameters), arrays


def state_from_sections(parameters: Parameters, saved: Mapping[str, Any], sections: Sections) -> Any:
    check_header(NAME, parameters, saved)
    state = start(parameters)
    window = section(sections, "window", None, np.uint8)
    if len(window) >= parameters.sliding_window_size or (len(window) and window.max() > 1):
        raise BadState(f"section window: {len(window)} values, up to {window.max()}")
    state._sliding_window.extend(window.tolist())
    state.n_one = int(window.sum(dtype=np.int64))
    state._u_max, short = section(sections, "largest", 2).tolist()
    if parameters.short_window_size:
        state._u_short_max = short
    set_flags(state, sections)
    return state
