"""Uniform numbers without a generator: SplitMix64 [1] over a seed that is the xxh3-64 of what the number is for.

The same window of the same target against the same reference draws the same numbers in every run, on every worker.
Source [1] Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from detectors.compiled import compiled
from detectors.memory import address_of, store_signed
from detectors.xxh3 import LENGTH_MAX, hash64

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
TIME_BYTES = 8  # of the start of a window, behind a prefix


def seed_prefix(target: str, reference_id: str) -> bytes:
    """What is common to all windows of a target; the names' lengths keep ("ab", "c") and ("a", "bc") apart."""
    name, reference = target.encode(), reference_id.encode()
    return struct.pack("<II", len(name), len(reference)) + name + reference


def window_seed(prefix: bytes, window_start_ms: int) -> int:
    """Seed of one window of one target, uint64."""
    return xxhash.xxh3_64_intdigest(prefix + struct.pack("<q", window_start_ms))


class WindowSeeds:
    """Seeds of windows of t targets, `window_seed` of each in one call. Memory: each prefix and 16 bytes."""

    def __init__(self, prefixes: Sequence[bytes]) -> None:
        self._prefixes = tuple(prefixes)
        texts = [prefix + bytes(TIME_BYTES) for prefix in prefixes]
        self._text = np.frombuffer(b"".join(texts), np.uint8).copy()
        self._start = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        self._long = [t for t, text in enumerate(texts) if len(text) > LENGTH_MAX]

    def of(self, window_start_ms: NDArray[np.int64]) -> NDArray[np.uint64]:
        """U64[t] of windows that begin at I64[t]. About 20 ns a target."""
        found = np.zeros(len(self._prefixes), np.uint64)
        _seeds(self._text, self._start, window_start_ms, found)
        for t in self._long:
            found[t] = window_seed(self._prefixes[t], int(window_start_ms[t]))
        return found


@compiled
def _seeds(
    text: NDArray[np.uint8], start: NDArray[np.int64], time_ms: NDArray[np.int64], out: NDArray[np.uint64]
) -> None:
    """The time is written behind each text, at [start[t], start[t + 1]), and both are hashed; those above LENGTH_MAX are left."""
    for t in range(len(out)):
        first, stop = address_of(text) + start[t], address_of(text) + start[t + 1]
        if stop - first <= LENGTH_MAX:
            store_signed(stop - TIME_BYTES, time_ms[t])
            out[t] = hash64(first, stop - first)


@compiled
def uniform(seed: np.uint64, index: int) -> float:
    """Number `index` >= 0 of the seed's stream: strictly inside (0, 1), 53 bits."""
    x = np.uint64(seed) + np.uint64(index + 1) * _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    x ^= x >> np.uint64(31)
    return (float(x >> np.uint64(11)) + 0.5) * 2.0**-53
