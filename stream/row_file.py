"""Tables of which one row is in use at a time, on disk: the ranks of a target's hours, which the detector reads once an hour.

24 hours of a target with 7 statistics are 40 kB, of 50 models with 100 targets some 300 MB, of which 23 hours wait. They are in one
unlinked file for each process; what was read lately stays in the page cache, which the kernel takes back when it needs it.

Where nothing can be written (no directory for temporary files, a full disk), tables stay in memory, and a warning says so once.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from functools import cache
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

PAGE_BYTES = 4096


class _Descriptor:
    """An open file, closed with the last of those that read it."""

    __slots__ = ("number",)

    def __init__(self, file: BinaryIO) -> None:
        with file:
            self.number = os.dup(file.fileno())

    def __del__(self) -> None:
        os.close(self.number)


class StoredRows:
    """An array [n, ...] of which only single rows can be had, each read anew. OSError where the file cannot be read."""

    __slots__ = ("_begin", "_file", "dtype", "shape")

    def __init__(self, file: _Descriptor, begin: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._file = file
        self._begin = begin
        self.shape = shape
        self.dtype = dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: int) -> NDArray[Any]:
        """A row, 0 <= row < n, read-only. Some 10 us."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        size = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        data = os.pread(self._file.number, size, self._begin + row * size)
        if len(data) != size:
            raise OSError(f"a row of {size} bytes ends after {len(data)}")
        return np.frombuffer(data, self.dtype).reshape(self.shape[1:])


class RowFile:
    """Where arrays are put. `opened` makes the file with the first of them."""

    def __init__(self, opened: Callable[[], BinaryIO] = tempfile.TemporaryFile) -> None:
        self._opened = opened
        self._file: _Descriptor | None = None
        self._end = 0
        self._writable = True

    def put(self, array: NDArray[Any]) -> NDArray[Any] | StoredRows:
        """The same rows on disk; the array itself if it is smaller than a page, or cannot be written."""
        if not self._writable or array.nbytes < PAGE_BYTES:
            return array
        try:
            if self._file is None:
                self._file = _Descriptor(self._opened())
            begin = self._end
            view = array.tobytes()
            while self._end - begin < len(view):
                self._end += os.pwrite(self._file.number, view[self._end - begin :], self._end)
        except OSError as error:
            self._writable = False
            log.warning("tables of hours stay in memory, for they cannot be written to disk: %s", error)
            return array
        return StoredRows(self._file, begin, array.shape, array.dtype)


@cache
def row_file() -> RowFile:
    """The one of this process. What is put there stays until the process ends."""
    return RowFile()
