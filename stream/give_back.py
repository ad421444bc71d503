"""Memory that a process has but does not need: freed blocks of the allocator, pages of programs that have done their work.

Linux with glibc; elsewhere nothing happens. What is still needed comes back by itself, from the allocator or from the file.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

MAPS = Path("/proc/self/smaps")
MADV_DONTNEED = 4
COMPILER = "libllvmlite"  # 70 MB after the kernels are loaded, and unused from then on


def trim() -> None:
    """Freed blocks to the system: what one close of windows or one snapshot took, the next one asks for again."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


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
    """The pages of LLVM that are mapped here; the next kernel that is loaded or compiled maps them again."""
    with suppress(OSError, AttributeError):
        advise = ctypes.CDLL(None, use_errno=True).madvise
        advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for address, size in _compiler_parts():
            if advise(address, size, MADV_DONTNEED):
                log.debug("madvise: errno %d", ctypes.get_errno())
