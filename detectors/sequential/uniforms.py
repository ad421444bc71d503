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

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def seed_prefix(target: str, reference_id: str) -> bytes:
    """What is common to all windows of a target; the names' lengths keep ("ab", "c") and ("a", "bc") apart."""
    name, reference = target.encode(), reference_id.encode()
    return struct.pack("<II", len(name), len(reference)) + name + reference


def window_seed(prefix: bytes, window_start_ms: int) -> int:
    """Seed of one window of one target, uint64."""
    return xxhash.xxh3_64_intdigest(prefix + struct.pack("<q", window_start_ms))


def window_seeds(prefixes: Sequence[bytes], window_start_ms: Sequence[int]) -> NDArray[np.uint64]:
    """Of a window of each of several targets, U64[t]; most often the same one."""
    packed = {ms: struct.pack("<q", ms) for ms in set(window_start_ms)}
    digest = xxhash.xxh3_64_intdigest
    return np.array(
        [digest(prefix + packed[ms]) for prefix, ms in zip(prefixes, window_start_ms, strict=True)], np.uint64
    )


@compiled
def uniform(seed: np.uint64, index: int) -> float:
    """Number `index` >= 0 of the seed's stream: strictly inside (0, 1), 53 bits."""
    x = np.uint64(seed) + np.uint64(index + 1) * _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    x ^= x >> np.uint64(31)
    return (float(x >> np.uint64(11)) + 0.5) * 2.0**-53
