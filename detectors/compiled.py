"""The one way in which functions are compiled here: cached on disk where that is possible, without the GIL.

A folder that cannot be written (read-only, full, not ours) costs the cache, never the function: numba alone would refuse to
compile, or fail after it has. What happened is in UNCACHED, for whoever logs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])

UNCACHED: list[str] = []
"""Why functions were not cached, in words; a restart compiles them again."""


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        UNCACHED.append(str(error))


def njit(**options: Any) -> Callable[[Any], Any]:
    """numba.njit, cached if a folder for that can be found and written."""

    def decorate(function: Any) -> Any:
        try:
            kernel: Any = numba.njit(cache=True, **options)(function)
        except RuntimeError as error:  # "no locator available"
            UNCACHED.append(str(error))
            return numba.njit(**options)(function)
        kernel._cache._guard_against_spurious_io_errors = _without_cache  # noqa: SLF001 - it forgives only Windows
        return kernel

    return decorate


def compiled(function: F) -> F:
    """Numba's njit, cached on disk, without the GIL; typed as the function it was. IEEE arithmetic: no fastmath, x / 0 is not an error."""
    kernel: F = njit(nogil=True, error_model="numpy")(function)
    return kernel
