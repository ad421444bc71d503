"""Tail probabilities of test statistics without scipy: chi-squared, Kolmogorov, and Smirnov's two-sample law exactly.

Accuracy (tests/oracle against scipy): `chi_squared_tails` 1e-11 relative for 1 to 5,000 degrees of freedom and results above
1e-290; `kolmogorov_tail` 1e-14 relative above 1e-290; `smirnov_tail` 1e-12 relative.
Source: Press et al. 2007, Numerical Recipes, 6.2 (incomplete gamma); Smirnov 1948; Hodges 1958, Ark. Mat. 3 (lattice paths).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import compiled

F64 = NDArray[np.float64]

EPSILON = 2.0**-54
TINY = 1e-300


@compiled
def _gamma_tail(a: float, x: float) -> float:
    """Q(a, x), the upper regularised incomplete gamma function, a > 0, x >= 0: a series below the mean, else Lentz's fraction."""
    if x <= 0.0:
        return 1.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    limit = 200 + 20 * int(math.sqrt(a))
    if x < a + 1.0:
        term = 1.0 / a
        total = term
        for k in range(1, limit):
            term *= x / (a + k)
            total += term
            if term < total * EPSILON:
                break
        return max(1.0 - front * total, 0.0)
    b = x + 1.0 - a
    c = 1.0 / TINY
    d = 1.0 / b
    fraction = d
    for k in range(1, limit):
        numerator = -k * (k - a)
        b += 2.0
        d = numerator * d + b
        d = 1.0 / (d if abs(d) > TINY else TINY)
        c = b + numerator / c
        c = c if abs(c) > TINY else TINY
        change = c * d
        fraction *= change
        if abs(change - 1.0) < EPSILON * 8.0:
            break
    return min(front * fraction, 1.0)


@compiled
def chi_squared_tails(x: F64, degrees: F64) -> F64:
    """P(chi-squared with `degrees` > x) for every pair; NaN for degrees below 1 or NaN."""
    out = np.empty(len(x))
    for i in range(len(x)):
        out[i] = _gamma_tail(0.5 * degrees[i], 0.5 * x[i]) if degrees[i] >= 1.0 and x[i] >= 0.0 else np.nan
    return out


@compiled
def kolmogorov_tail(x: float) -> float:
    """P(K > x), K the limit of sqrt(n) D_n. NaN stays NaN."""
    if not x > 0.0:
        return 1.0 if x <= 0.0 else np.nan
    if x < 1.0:
        y = math.exp(-(math.pi**2) / (8.0 * x * x))
        return 1.0 - math.sqrt(2.0 * math.pi) / x * (y + y**9 + y**25 + y**49)
    y = math.exp(-2.0 * x * x)
    return 2.0 * (y - y**4 + y**9 - y**16)


@compiled
def smirnov_tail(n: int, m: int, distance: float) -> float:
    """P(D >= distance) of two samples of n and m values without ties: the share of lattice paths that leave the band. O(n m)."""
    limit = math.floor(distance * n * m + 0.5)  # D n m is a whole number
    row = np.zeros(m + 1)
    for i in range(n + 1):
        for j in range(m + 1):
            if abs(i * m - j * n) >= limit:
                row[j] = 1.0
            elif j > 0:
                row[j] = (i * row[j] + j * row[j - 1]) / (i + j)
    tail: float = row[m]
    return tail
