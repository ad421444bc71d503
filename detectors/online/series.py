"""What the online detectors share: which values they take, what they say of one, how a state is written and read back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.parameters import Base
from detectors.verdict import BadState, BadValue

F64 = NDArray[np.float64]
Sections = Mapping[str, NDArray[Any]]
Saved = tuple[dict[str, Any], dict[str, NDArray[Any]]]
"""Header of JSON values, named arrays."""

VALUE_MAX = 1e100
"""Beyond it squares and their sums over a series overflow, and what follows is NaN for good."""

VERSION = 1
"""Of the layout of all states of this family."""


class Step(NamedTuple):
    """After one value. `fired`: a change, the next value begins anew; `warning`: the weaker threshold of those that have one;
    `statistic`: what the detector compares, finite (its file says what it is).
    """

    fired: bool
    warning: bool
    statistic: float


def number(name: str, value: object, largest: float = VALUE_MAX) -> float:
    """The value as a float. Raises BadValue for what is no number, not finite or beyond +-largest."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise BadValue(f"{name}: {value!r} is no number")
    if not -largest <= value <= largest:  # NaN too
        what = f"is outside +-{largest:g}" if isinstance(value, int) or math.isfinite(value) else "is not finite"
        raise BadValue(f"{name}: {value!r} {what}")
    return float(value)


def error(name: str, value: object) -> int:
    """1 = the model was wrong, 0 = it was right; False and True as well. Raises BadValue for everything else."""
    if not isinstance(value, int | float | np.bool_ | np.integer | np.floating) or value not in (0, 1):
        raise BadValue(f"{name}: {value!r} is neither 0 nor 1")
    return int(value)


def header(name: str, parameters: Base) -> dict[str, Any]:
    """JSON values that say whose state it is."""
    return {"detector": name, "version": VERSION, "parameters": asdict(parameters)}


def check_header(name: str, parameters: Base, found: Mapping[str, Any]) -> None:
    """Raises BadState for a state of another detector, version or other parameters."""
    expected = header(name, parameters)
    if dict(found) != expected:
        raise BadState(f"state of {dict(found)}, expected {expected}")


def section(
    sections: Sections, name: str, length: int | None = None, dtype: type[np.generic] = np.float64
) -> NDArray[Any]:
    """A saved array of one dimension. Raises BadState if it is absent, of another dtype or length, or has NaN."""
    saved = sections.get(name)
    if saved is None or saved.dtype != dtype or saved.ndim != 1 or (length is not None and len(saved) != length):
        raise BadState(f"section {name}: {None if saved is None else (saved.dtype, saved.shape)}")
    if np.isnan(saved).any():
        raise BadState(f"section {name}: holds NaN")
    return saved


def flags(river: Any) -> NDArray[np.uint8]:
    """U8[2]: drift, warning, as a detector of river's has them."""
    return np.array([river.drift_detected, getattr(river, "warning_detected", False)], np.uint8)


def set_flags(river: Any, sections: Sections) -> None:
    """Inverse of `flags`: a detector that had fired starts anew with its next value. Raises BadState."""
    fired, warning = section(sections, "flags", 2, np.uint8)
    river._drift_detected = bool(fired)  # noqa: SLF001 - river has no way to put a state back
    if hasattr(river, "_warning_detected"):
        river._warning_detected = bool(warning)  # noqa: SLF001


def mean_to_array(*means: Any) -> F64:
    """F64[2 k]: weight and mean of k running means of river's."""
    return np.array([part for mean in means for part in (mean.n, mean.get())], np.float64)
