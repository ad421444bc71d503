"""Bottom-k samples of whole rows: the k rows with the smallest id hashes.

Guarantee: a uniform sample without replacement of the distinct ids, the same whatever the order, the batching or the
partitions, since the hash alone decides; merging is taking the bottom k of the union. Memory: k rows.
Source: E. Cohen, H. Kaplan 2007, Summarizing data using bottom-k sketches.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
U32 = NDArray[np.uint32]


def bottom(k: int, high: U64, low: U32 | None = None) -> I64:
    """Indices of the k smallest (high, low), ascending; equal ones keep their order. O(n log n), less when n >> k."""
    if k <= 0:
        return np.empty(0, np.int64)
    candidates = np.arange(len(high))
    if len(high) > 4 * k:  # the k-th smallest bounds the rest: sorting everything would cost more
        candidates = np.flatnonzero(high <= np.partition(high, k - 1)[k - 1])
    keys = (high[candidates],) if low is None else (low[candidates], high[candidates])
    return candidates[np.lexsort(keys)[:k]]
