"""The one decorator of compiled functions: cached on disk, and without the GIL, which Faust's consumer thread needs.

numba's cache looks at the file of a function alone. A kernel has its callees and the limits that it names compiled into it,
so after an update of one file the others would go on with the old code. Here the cache is valid for all of these files
together: any change compiles all of them again (some 15 s, once).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from detectors.compiled import njit

F = TypeVar("F", bound=Callable[..., object])


def source_stamp() -> tuple[tuple[str, int, int], ...]:
    """(name, time of change, size) of every file that is compiled into kernels."""
    kernels = Path(__file__).parent
    files = [*sorted(kernels.glob("*.py")), kernels.parent / "limits.py", kernels.parent / "columns.py"]
    return tuple((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files)


STAMP = source_stamp()


def kernel(function: F) -> F:
    """Compiled without the GIL; keeps the function's type, and has a cache that sees all sources."""
    compiled: Any = njit(nogil=True)(function)
    if hasattr(compiled._cache, "_cache_file"):  # noqa: SLF001 - numba has no word for it; tests hold it to this
        compiled._cache._cache_file._source_stamp = STAMP  # noqa: SLF001
    return cast("F", compiled)
