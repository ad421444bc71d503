"""The one way in which functions are compiled here: cached on disk where that is possible, without the GIL.

A folder that cannot be written (read-only, full, not ours) costs the cache, never the function: numba alone would refuse to
compile, or fail after it has. What happened is in UNCACHED, for whoever logs.

Numba takes a cached kernel for valid while the file that defines it is unchanged, but constants and kernels of other modules
are compiled into it. So what a kernel reads of them is part of its stamp: an upgrade in place never runs yesterday's constant.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeVar

import llvmlite.binding as llvm
import numba
import numpy as np

F = TypeVar("F", bound=Callable[..., Any])

UNCACHED: list[str] = []
"""Why functions were not cached, in words; a restart compiles them again."""


_STAMPS: dict[Any, tuple[Any, str]] = {}  # of every kernel, by its dispatcher
_KERNELS: dict[str, list[tuple[Any, Any, Any]]] = {}  # of every module: kernel, its function, the stamp of its file
OURS = ("detectors", "stream")
ROUNDS_MAX = 5  # how deep kernels of one module that call such as stand below them are followed


def _names(code: CodeType) -> set[str]:
    """Globals and attributes that a function mentions, its inner ones included."""
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)


def _compiled_in(function: Any, own: Mapping[str, Any]) -> str:
    """Digest of the constants and the kernels that `function` mentions by name, as they are now; `own`: those of its module."""
    names, scope = sorted(_names(function.__code__)), {**function.__globals__, **own}
    found = [scope[name] for name in names if name in scope]
    for module in [value for value in found if isinstance(value, ModuleType) and value not in (np, numba)]:
        found += [getattr(module, name) for name in names if hasattr(module, name)]
    digest = hashlib.blake2b(digest_size=16)
    for value in found:
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype.str}{value.shape}".encode() + value.tobytes())
        elif isinstance(value, bool | int | float | str | tuple | np.generic):
            digest.update(repr(value).encode())
        elif callable(value):
            digest.update(repr(_STAMPS[value]).encode() if value in _STAMPS else _source(value))
    return digest.hexdigest()


def _source(value: Any) -> bytes:
    """The file of something else of ours that is compiled in: an intrinsic, a function to be inlined. Libraries have versions."""
    module = str(getattr(value, "__module__", ""))
    path = getattr(sys.modules.get(module), "__file__", None)
    return _content(path) if path and module.partition(".")[0] in OURS else b""


@cache
def _content(path: str) -> bytes:
    return Path(path).read_bytes()


def _stamp(kernel: Any, function: Any) -> None:
    """Stamp a new kernel and, where it stands below one that calls it, all of its module once more."""
    file = kernel._cache._cache_file  # noqa: SLF001 - numba has no public way
    siblings = _KERNELS.setdefault(function.__module__, [])
    called_above = any(function.__name__ in _names(its.__code__) for _, its, _ in siblings)
    siblings.append((kernel, function, file._source_stamp))  # noqa: SLF001
    own = {its.__name__: each for each, its, _ in siblings}
    for _ in range(ROUNDS_MAX if called_above else 1):
        before = dict(_STAMPS)
        for each, its, source in siblings if called_above else siblings[-1:]:
            stamp = _STAMPS[each] = (source, _compiled_in(its, own))
            each._cache._cache_file._source_stamp = stamp  # noqa: SLF001
        if before == _STAMPS:
            return


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
        cache = kernel._cache  # noqa: SLF001 - numba has no public way to either
        cache._guard_against_spurious_io_errors = _without_cache  # noqa: SLF001 - it forgives only Windows
        _stamp(kernel, function)
        return kernel

    return decorate


def compiled(function: F) -> F:
    """Numba's njit, cached on disk, without the GIL; typed as the function it was. IEEE arithmetic: no fastmath, x / 0 is not an error."""
    kernel: F = njit(nogil=True, error_model="numpy")(function)
    return kernel


def inlined(function: F) -> F:
    """`compiled`, and written out where it is called: for what is called at one place with so many arrays that passing them shows."""
    kernel: F = njit(nogil=True, error_model="numpy", forceinline=True)(function)
    return kernel


def pack() -> int:
    """How many loaded kernels now have their intermediate code packed: some 22 MB less in a worker, the machine code stays.

    Numba keeps it as objects of the compiler, for other kernels that are compiled later and call these. It is taken up again
    when there is such a one. Cheap where nothing was loaded since the last call.
    """
    packed = 0
    for kernel in list(_STAMPS):
        # dict's values: an OrderedDict's own iterator hashes keys, and a thread that compiles may add one meanwhile
        for overload in list(dict.values(kernel.overloads)):
            library = overload.library
            module = library._shared_module  # noqa: SLF001 - numba has no public way
            if module is not None:
                library._get_module_for_linking = partial(_unpacked, library, module.as_bitcode())  # noqa: SLF001
                library._shared_module = None  # noqa: SLF001
                packed += 1
    return packed


def _unpacked(library: Any, bitcode: bytes) -> Any:
    """In place of numba's method until it is asked for: what a kernel that is being compiled links."""
    library._shared_module = module = llvm.parse_bitcode(bitcode)  # noqa: SLF001
    vars(library).pop("_get_module_for_linking", None)
    return module
