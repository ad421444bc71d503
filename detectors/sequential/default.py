"""The default detector: window-rank e-SR and tolerance tube, over the bins of one target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.reference import TargetReference
from detectors.verdict import Change, Verdict

I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DetectionSettings:
    """tolerance: probit units, >= 0. budget_ms: A, the time in which one false alarm of the model is accepted. cells: d."""

    tolerance: float
    budget_ms: float
    cells: int = 1
    latch_windows: int = 200


class Prepared:
    """Everything that does not change while a reference and its settings are in force. Build with `prepare`."""


class DetectorState:
    """What a target remembers. Build with `start` or `state_from_sections`."""


def prepare(target: TargetReference, settings: DetectionSettings, reference_id: str) -> Prepared:
    """Raises IncompleteReference, BadSettings. Some ms; about 30 KB a numeric target."""
    raise NotImplementedError


def start(prepared: Prepared) -> DetectorState:
    raise NotImplementedError


def update(prepared: Prepared, state: DetectorState, counts: I64, weight_ms: float, window_start_ms: int) -> Verdict:
    """Judge one window. counts I64[binning.bins + 2] (missing, invalid last); weight_ms = w_t (time since the previous
    window began times the series' share). Mutates `state`; raises BadCounts, BadWeight with the state untouched.
    Fewer events than target.size_min: INSUFFICIENT_DATA, state untouched (the caller carries).
    """
    raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Effect:
    """How a window, or several added up, differs from the reference. See Verdict for the units."""

    shift: float
    direction: str
    inside_tube: bool
    largest_changes: tuple[Change, ...]


def describe(prepared: Prepared, counts: I64) -> Effect:
    """The effect in any counts I64[binning.bins + 2], for instance all windows since the excursion began. No state."""
    raise NotImplementedError


def state_to_sections(prepared: Prepared, state: DetectorState) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """(header of JSON values, named arrays)."""
    raise NotImplementedError


def state_from_sections(
    prepared: Prepared, header: Mapping[str, Any], sections: Mapping[str, NDArray[Any]]
) -> DetectorState:
    """Inverse of `state_to_sections`. Raises BadState."""
    raise NotImplementedError
