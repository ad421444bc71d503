"""The one way in which functions are compiled here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Numba's njit, cached on disk, without the GIL; typed as the function it was. IEEE arithmetic: no fastmath, x / 0 is not an error."""
    kernel: F = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    return kernel
