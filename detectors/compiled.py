"""The one way in which functions are compiled here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Numba's njit, cached on disk, without the GIL; typed as the function it was. Exact IEEE arithmetic (no fastmath)."""
    kernel: F = numba.njit(cache=True, nogil=True)(function)
    return kernel
