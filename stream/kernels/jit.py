"""The one decorator of compiled functions: cached on disk, and without the GIL, which Faust's consumer thread needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba as nb

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """`numba.njit(cache=True, nogil=True)` that keeps the function's type."""
    return cast("F", nb.njit(cache=True, nogil=True)(function))
