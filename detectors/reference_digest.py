"""The hash that names a reference, and that guards what is stored of it; numbers rounded so that it is the same everywhere."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIGITS = 10


def rounded(x: float) -> float:
    """`x` to 10 significant digits; beyond float64 the largest float64, so that it can be written as JSON."""
    if not math.isfinite(x):
        return math.copysign(float(np.finfo(np.float64).max), x)
    return float(f"{x:.{DIGITS}g}")


def digest(header: Mapping[str, Any], sections: Mapping[str, NDArray[Any]]) -> str:
    """Hash "sha256:<hex>" over the header as sorted JSON and the sections in name order: independent of machine and dict order."""
    h = hashlib.sha256(json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())
    for name in sorted(sections):
        array = np.ascontiguousarray(sections[name])
        h.update(f"\x00{name}\x00{array.dtype.str}\x00{array.shape}\x00".encode())
        h.update(array.tobytes())
    return "sha256:" + h.hexdigest()
