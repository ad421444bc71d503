"""Multivariate detectors: one number for a window, of all numeric features together. They see what no feature shows alone.

A row is the numeric features of one event, or the numbers of an array in it; what is missing or invalid in it is the
reference's mean, and a row without any valid value does not count. What a window needs is kept while it is counted, in two
forms that merge exactly, in any order: sums of integers over its rows (fixed point, so that no order shows), and the
bottom-k sample of its rows. Each file holds one detector:

    Parameters                                   frozen, with limits
    CARRIED                                      names of the tables that `add` reads; none: it reads the sample alone
    ARRAYS                                       whether its rows may be the numbers of one array in each event
    prepare(reference, parameters) -> Tables     from the reference's own rows, the same on every machine
    width(tables) -> int                         length of the sums; 0 = none
    sample_rows(parameters) -> int               rows wanted of the window's sample; 0 = none
    add(tables, values F64[n, f], sums)          adds n rows to sums I64[width]; values NaN where there is none
    measure(tables, window) -> float             NaN where the window has too few rows

`prepared` is how one is used by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from detectors.multivariate.rows import F64, I64, RowWindow, Tables
from detectors.parameters import Base, read
from detectors.reference_rows import ReferenceRows
from detectors.registry import Family
from detectors.verdict import BadSettings

__all__ = ["ReferenceRows", "RowDetector", "RowWindow", "Tables", "prepared", "reads_arrays", "sample_rows", "summing"]


@dataclass(frozen=True, slots=True, eq=False)
class RowDetector:
    """A detector with the tables of one reference."""

    module: ModuleType
    tables: Tables

    @property
    def width(self) -> int:
        """Length of its sums."""
        found: int = self.module.width(self.tables)
        return found

    def carried(self) -> Tables:
        """What is needed to add rows, and nothing else."""
        return {name: self.tables[name] for name in self.module.CARRIED}

    def summed(self, values: F64) -> I64:
        """Sums I64[width] of rows F64[n, f]."""
        sums = np.zeros(self.width, np.int64)
        if self.width:
            self.module.add(self.tables, values, sums)
        return sums

    def measure(self, window: RowWindow) -> float:
        """The window's number; NaN where it has too few rows."""
        return float(self.module.measure(self.tables, window))


def prepared(name: str, reference: ReferenceRows, parameters: Mapping[str, Any] | None = None) -> RowDetector:
    """The registered detector of this name for a reference. Raises BadSettings, BadRows."""
    module, settings = _known(name, parameters)
    return RowDetector(module, module.prepare(reference, settings))


def summing(name: str, carried: Tables) -> RowDetector:
    """A detector that can add rows, of what `carried` gave; it measures nothing. Raises BadSettings."""
    return RowDetector(_known(name, None)[0], carried)


def sample_rows(name: str, parameters: Mapping[str, Any] | None = None) -> int:
    """Rows that a detector wants of each window. Raises BadSettings."""
    module, settings = _known(name, parameters)
    found: int = module.sample_rows(settings)
    return found


def reads_arrays(name: str) -> bool:
    """Whether this detector's rows may be the numbers of one array in each event. Raises BadSettings."""
    found: bool = _known(name, None)[0].ARRAYS
    return found


def _known(name: str, parameters: Mapping[str, Any] | None) -> tuple[ModuleType, Base]:
    from detectors import REGISTRY, load

    if name not in REGISTRY or REGISTRY[name].family is not Family.MULTIVARIATE:
        known = ", ".join(sorted(other for other, entry in REGISTRY.items() if entry.family is Family.MULTIVARIATE))
        raise BadSettings(f"{name!r} is no {Family.MULTIVARIATE} detector; known here: {known}")
    module = load(name)
    return module, read(module.Parameters, parameters or {})
