"""Memory that a process has but does not need: freed blocks of the allocator, pages of programs that have done their work.

Linux with glibc; elsewhere nothing happens. What is still needed comes back by itself, from the allocator or from the file.
"""

from __future__ import annotations

import ctypes
import gc
import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from detectors import compiled

log = logging.getLogger(__name__)

MAPS = Path("/proc/self/smaps")
MADV_DONTNEED = 4
YOUNG = 1  # generations 0 and 1: what is older has outlived ten collections
COMPILER = "libllvmlite"  # 70 MB after the kernels are loaded, and unused from then on


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def trim() -> None:
    """Young garbage in cycles, and freed blocks to the system: what one close of windows or one snapshot took, the next one
    asks for again.

    The collector counts objects, not bytes: a client that has read a log leaves a cycle of a few objects around a MB of
    fetched records, and by the time it has made enough of them they held 110 MB.
    """
    gc.collect(YOUNG)
    with suppress(OSError, AttributeError):
        _library().malloc_trim(0)


def clean_parts(maps: Iterable[str], name: str) -> Iterator[tuple[int, int]]:
    """(address, bytes) of the mappings of the file `name` in the lines of an smaps that hold no page of this process alone
    that was written: code and constants, which the file still has.
    """
    place: tuple[int, int] | None = None
    for line in maps:
        first, *rest = line.split()
        if not first.endswith(":"):
            begin, end = (int(part, 16) for part in first.split("-"))
            place = (begin, end - begin) if name in line and "w" not in rest[0] else None
        elif first == "Anonymous:" and place is not None and rest[0] == "0":
            yield place


@cache
def _compiler_parts() -> tuple[tuple[int, int], ...]:
    """Where LLVM's code and constants lie; they do not move."""
    try:
        return tuple(clean_parts(MAPS.read_text().splitlines(), COMPILER))
    except OSError:
        return ()


def compiler() -> None:
    """What LLVM keeps of each kernel, and its pages that are mapped here; the next kernel that is loaded or compiled maps them
    again.
    """
    compiled.pack()
    with suppress(OSError, AttributeError):
        advise = _library().madvise
        advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for address, size in _compiler_parts():
            if advise(address, size, MADV_DONTNEED):
                log.debug("madvise: errno %d", ctypes.get_errno())
