"""The one decorator of compiled functions here: cached on disk, and without the GIL, which Faust's consumer thread needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from detectors.compiled import njit

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compiled without the GIL; keeps the function's type."""
    compiled: Any = njit(nogil=True)(function)
    return cast("F", compiled)
