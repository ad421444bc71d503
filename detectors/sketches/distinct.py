"""Distinct counts: HyperLogLog registers over 64-bit hashes, with Ertl's estimator.

Guarantee: standard error 1.04 / sqrt(REGISTERS) = 2.3 % at any cardinality (counts below about 100 are nearly exact), without
the bias of the original estimator at small and middle counts. Merging is the maximum per register: commutative, associative,
idempotent, so partitions and panes may come in any order. Memory: REGISTERS bytes per target.
Source: P. Flajolet et al. 2007, HyperLogLog; O. Ertl 2017, New cardinality estimation algorithms for HyperLogLog sketches
(arXiv:1702.01284), algorithm 6 ("improved raw estimator").
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
U64 = NDArray[np.uint64]

REGISTER_BITS = 11
REGISTERS = 1 << REGISTER_BITS
RANK_MAX = 64 - REGISTER_BITS + 1


def add(registers: U8, hashes: U64) -> None:
    """Count hashes (xxh3-64 or as good) into registers U8[REGISTERS], in place. The compiled twin is kernels.accumulate."""
    place, rank = place_and_rank(hashes)
    np.maximum.at(registers, place, rank)


def place_and_rank(hashes: U64) -> tuple[NDArray[np.int64], U8]:
    """Which register each hash counts in, and with what."""
    place = (hashes >> np.uint64(64 - REGISTER_BITS)).astype(np.int64)
    rest = hashes << np.uint64(REGISTER_BITS)
    rank = np.ones(len(hashes), np.uint8)
    for step in range(1, RANK_MAX):
        rank += (rest >> np.uint64(64 - step)) == 0  # the first `step` bits are all zero
    return place, rank


def merge(into: U8, other: U8) -> None:
    """Union, in place. Raises ValueError for different sizes."""
    if into.shape != other.shape:
        raise ValueError(f"registers of shape {into.shape} and {other.shape} cannot be merged")
    np.maximum(into, other, out=into)


def estimate(registers: U8) -> float:
    """Estimated number of distinct hashes in registers U8[m], m a power of two. 0.0 when none was counted."""
    m = len(registers)
    rank_max = 64 - (m.bit_length() - 1) + 1
    counts = np.bincount(registers, minlength=rank_max + 1)
    if counts[0] == m:
        return 0.0
    z = m * _tau(1.0 - counts[rank_max] / m)
    for k in range(rank_max - 1, 0, -1):
        z = 0.5 * (z + float(counts[k]))
    z += m * _sigma(counts[0] / m)
    if z == 0.0:
        return math.inf  # every register saturated: more than any stream holds
    return m * m / (2.0 * math.log(2.0)) / float(z)


def _sigma(x: float) -> float:
    """The sum x + x^2 + 2 x^4 + 4 x^8 + ...: the share of empty registers (Ertl, eq. 13)."""
    y, z = 1.0, x
    while True:
        x *= x
        previous = z
        z += x * y
        y += y
        if z == previous:
            return z


def _tau(x: float) -> float:
    """The sum (1 - x - (1 - x^(1/2))^2 / 2 - (1 - x^(1/4))^2 / 4 - ...) / 3: the share of saturated registers (Ertl, eq. 17)."""
    if x in (0.0, 1.0):
        return 0.0
    y, z = 1.0, 1.0 - x
    while True:
        x = math.sqrt(x)
        previous = z
        y *= 0.5
        z -= (1.0 - x) ** 2 * y
        if z == previous:
            return z / 3.0
