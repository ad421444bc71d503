"""The standard normal law without scipy: density, distribution, quantile, logarithm of the distribution.

Accuracy: `cdf` and `ppf` to 4e-15 relative where the result is a normal float64 (tests/oracle against scipy); `log_cdf` to
1e-10 relative. Source of `ppf`: Wichura 1988, Algorithm AS 241 (PPND16), one step of Newton's method less.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import compiled

F64 = NDArray[np.float64]

SQRT_HALF = math.sqrt(0.5)
LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
PROBABILITY_MIN = 1e-300  # `ppf` of less is the quantile of this: finite, -37.05

# AS 241: numerator and denominator, constant term first, for |p - 1/2| <= .425, then r <= 5 and r > 5, r = sqrt(-log min(p, 1 - p))
_CENTRE = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
     2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)  # fmt: skip
_MIDDLE = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
_FAR = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)  # fmt: skip


@compiled
def pdf(x: float) -> float:
    return math.exp(-0.5 * x * x - LOG_SQRT_2PI)


@compiled
def cdf(x: float) -> float:
    return 0.5 * math.erfc(-x * SQRT_HALF)


@compiled
def log_cdf(x: float) -> float:
    """log(cdf(x)), finite for every finite x: below -30 the asymptotic series of Mills' ratio."""
    if x > 0.0:
        return math.log1p(-0.5 * math.erfc(x * SQRT_HALF))
    if x > -30.0:
        return math.log(0.5 * math.erfc(-x * SQRT_HALF))
    y = 1.0 / (x * x)
    return -0.5 * x * x - LOG_SQRT_2PI - math.log(-x) + math.log1p(-y * (1.0 - 3.0 * y * (1.0 - 5.0 * y)))


@compiled
def _ratio(x: float, c: tuple[tuple[float, ...], tuple[float, ...]]) -> float:
    numerator, denominator = 0.0, 0.0
    for i in range(7, -1, -1):
        numerator = numerator * x + c[0][i]
        denominator = denominator * x + c[1][i]
    return numerator / denominator


@compiled
def ppf(p: float) -> float:
    """Quantile; p is clipped to [1e-300, 1 - 2^-53], so that the result is finite. NaN stays NaN."""
    p = min(max(p, PROBABILITY_MIN), 1.0 - 2.0**-53)
    q = p - 0.5
    if abs(q) <= 0.425:
        return q * _ratio(0.180625 - q * q, _CENTRE)
    r = math.sqrt(-math.log(min(p, 1.0 - p)))
    x = _ratio(r - 1.6, _MIDDLE) if r <= 5.0 else _ratio(r - 5.0, _FAR)
    return x if q > 0 else -x


@compiled
def pdf_all(x: F64) -> F64:
    out = np.empty(len(x))
    for i in range(len(x)):
        out[i] = pdf(x[i])
    return out


@compiled
def cdf_all(x: F64) -> F64:
    out = np.empty(len(x))
    for i in range(len(x)):
        out[i] = cdf(x[i])
    return out


@compiled
def ppf_all(p: F64) -> F64:
    out = np.empty(len(p))
    for i in range(len(p)):
        out[i] = ppf(p[i])
    return out
