"""The closed windows of a model that feedback has still to come for: the model's own list, kept in blocks of a snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from stream import container
from stream.columns import I64
from stream.windows import Window

KIND = "window-log"
VERSION = 1
BLOCK = 1024  # windows to a blob, unless said otherwise: what a snapshot writes anew for one more window


class Closed(NamedTuple):
    """One closed window. `lost`: events of it were lost before they were counted."""

    start_ms: int
    end_ms: int
    events: int
    lost: bool


class WindowLog:
    """Windows by running number: those in [first, count) are kept. 32 bytes each."""

    def __init__(self, block: int = BLOCK) -> None:
        self.first = self.count = 0
        self._block = block
        self._blocks: dict[int, I64] = {}
        self._dirty: set[int] = set()

    def __len__(self) -> int:
        return self.count - self.first

    def __getitem__(self, number: int) -> Closed:
        start_ms, end_ms, events, lost = self._blocks[number // self._block][number % self._block].tolist()
        return Closed(start_ms, end_ms, events, bool(lost))

    def between(self, first: int, stop: int) -> I64:
        """I64[stop - first, 4]: start, end, events, lost of each window, all of them kept; of none wherever they would stand."""
        numbers = range(first // self._block, -(-stop // self._block)) if first < stop else ()
        blocks = [self._blocks[block] for block in numbers]
        whole = np.concatenate([np.empty((0, 4), np.int64), *blocks])
        return whole[first % self._block :][: stop - first]

    def append(self, window: Window, *, lost: bool) -> None:
        block = self._blocks.setdefault(self.count // self._block, np.zeros((self._block, 4), np.int64))
        block[self.count % self._block] = window.start_ms, window.end_ms, window.events, lost
        self._dirty.add(self.count // self._block)
        self.count += 1

    def restart(self, number: int) -> None:
        """Forget everything; the next window has this number."""
        self.first = self.count = number
        self._blocks.clear()
        self._dirty.clear()

    def drop(self, before: int) -> None:
        """Forget the windows below this number."""
        self.first = max(self.first, min(before, self.count))
        for block in [block for block in self._blocks if (block + 1) * self._block <= self.first]:
            del self._blocks[block]
            self._dirty.discard(block)

    def blobs(self, prefix: str) -> dict[str, bytes | None]:
        """Blocks that changed since the last call, under f"{prefix}/{block}"."""
        changed: dict[str, bytes | None] = {
            f"{prefix}/{block}": container.encode(KIND, VERSION, {}, {"windows": self._blocks[block]})
            for block in sorted(self._dirty)
        }
        self._dirty.clear()
        return changed

    def names(self, prefix: str) -> set[str]:
        """Of all live blobs."""
        return {f"{prefix}/{block}" for block in self._blocks}

    def load(self, prefix: str, first: int, count: int, blobs: Mapping[str, bytes]) -> None:
        """Fill an empty log."""
        self.first, self.count = first, count
        for name, data in blobs.items():
            if name.startswith(f"{prefix}/"):
                sections = container.decode(data).expect(KIND, (VERSION,), ("windows",)).sections
                self._blocks[int(name.rpartition("/")[2])] = sections["windows"].astype(np.int64)
