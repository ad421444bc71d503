"""What chance does to a share of a window, and how surprising a share is."""

from __future__ import annotations

import math

from detectors.compiled import compiled

SIGMAS_INSIDE = 3.5  # a window outside the tube by less than this can be chance (about one window in 100 over 40 cuts)


@compiled
def beyond(share: float, total: int, lo: float, hi: float) -> bool:
    """Further outside [lo, hi] than chance: 3.5 standard errors and one event."""
    if share < lo:
        return lo - share > SIGMAS_INSIDE * math.sqrt(lo * (1.0 - lo) / total) + 1.0 / total
    return share - hi > SIGMAS_INSIDE * math.sqrt(max(hi * (1.0 - hi), 0.0) / total) + 1.0 / total


@compiled
def surprise_of(c: int, n: int, p: float) -> float:
    """Signed root of the binomial deviance of c among n at share p: about standard normal, and honest for rare events."""
    q = c / n
    deviance = 0.0
    if c > 0:
        deviance += c * math.log(q / p)
    if c < n:
        deviance += (n - c) * math.log((1.0 - q) / (1.0 - p))
    root = math.sqrt(max(2.0 * deviance, 0.0))
    return root if q > p else -root
