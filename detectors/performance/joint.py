"""How the scores of two models go together, by label: what the covariance of two rankings needs.

A covariance of functions u and v of two scores needs their joint law; over the bins of both it would take 1 MB. Here a row's score
is shared by the two nearest of 32 knots, in eighths: the sums are those of products of hat functions, and the covariance is that of
u and v as straight lines between knots. What is lost is of second order in the distance of knots. Counting whole rows in 32 boxes
loses the first order: of models that hardly differ, rows beside an edge seem to differ by a whole box.

State      16 kB; integers, which merge in any order
Cost       .1 us a row; a correlation .1 ms
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.performance import terms
from detectors.performance.layout import default_score_cuts
from detectors.performance.ranking import Ranking

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

KNOTS = 32
SHAPE = (2, KNOTS, KNOTS)  # negative and positive labels; knots of a's scores, of b's
SHARES = 8  # of a row, between two knots
TABLES_CACHED = 64
# bins of the usual cuts, whose logits are about evenly spaced after asinh(x / 2): close where scores of rare events lie
_HALF = (0, 13, 26, 38, 47, 55, 62, 65, 67, 70, 75, 82, 90, 100, 111, 122)
_USUAL = (*_HALF, *(255 - knot for knot in reversed(_HALF)))


class Hats(NamedTuple):
    """Where the bins of one model's scores lie between its knots. `knots`: their bins, I64[k <= KNOTS]; `low` I64[b]: the knot at or
    below each bin; `upper` I64[b]: shares of SHARES that the next knot has.
    """

    cuts: F64
    knots: I64
    low: I64
    upper: I64

    def lines(self, values: F64) -> F64:
        """F64[b] of bins, as straight lines between the knots."""
        at = values[self.knots]
        after = np.append(at[1:], at[-1])
        found: F64 = at[self.low] + self.upper / SHARES * (after - at)[self.low]
        return found

    def at_knots(self, values: F64) -> F64:
        """F64[KNOTS] of bins F64[b]; 0 of knots that there are not."""
        return np.pad(values[self.knots], (0, KNOTS - len(self.knots)))

    def shares(self, bins: I64) -> I64:
        """I64[n, KNOTS] of rows in these bins; each sums up to SHARES."""
        found = np.zeros((len(bins), KNOTS + 1), np.int64)
        rows = np.arange(len(bins))
        found[rows, self.low[bins]] = SHARES - self.upper[bins]
        found[rows, self.low[bins] + 1] += self.upper[bins]
        return found[:, :KNOTS]


def hats_of(cuts: F64) -> Hats:
    """Of scores with these cuts F64[b - 1]. The usual ones have knots of their own; others, which lie at equal masses, even ones."""
    return _hats(cuts.tobytes())


@lru_cache(TABLES_CACHED)
def _hats(raw: bytes) -> Hats:
    cuts = np.frombuffer(raw, np.float64)
    bins = len(cuts) + 1
    even = np.unique(np.rint(np.linspace(0, bins - 1, min(KNOTS, bins))).astype(np.int64))
    knots = np.array(_USUAL, np.int64) if np.array_equal(cuts, default_score_cuts()) else even
    places = np.arange(bins)
    low = np.searchsorted(knots, places, side="right") - 1
    after = knots[np.minimum(low + 1, len(knots) - 1)]
    gap = np.maximum(after - knots[low], 1)
    upper = (2 * SHARES * (places - knots[low]) + gap) // (2 * gap)  # rounded, in integers: the same everywhere
    return Hats(cuts, knots, low.astype(np.int64), upper.astype(np.int64))


def products(a: Hats, b: Hats, score_a: F64, score_b: F64, positive: I64) -> I64:
    """I64 of SHAPE of rows: scores F64[n] of either model, `positive` I64[n] 0 or 1."""
    p, q = terms.places(a.cuts, score_a), terms.places(b.cuts, score_b)
    found = np.zeros((2, KNOTS + 1, KNOTS + 1), np.int64)  # the last knot has a neighbour that gets nothing
    code = (positive * (KNOTS + 1) + a.low[p]) * (KNOTS + 1) + b.low[q]
    for i, share_a in enumerate((SHARES - a.upper[p], a.upper[p])):
        for j, share_b in enumerate((SHARES - b.upper[q], b.upper[q])):
            counted = np.bincount(code + i * (KNOTS + 1) + j, weights=share_a * share_b, minlength=found.size)
            found += counted.astype(np.int64).reshape(found.shape)  # whole numbers below 2^53
    return found[:, :KNOTS, :KNOTS].copy()


def products_of_boxes(a: Hats, b: Hats, boxes: I64) -> I64:
    """The same of an older form, rows counted in KNOTS x KNOTS boxes of equally many bins: each as in the middle of its box."""
    sides = []
    for hats in (a, b):
        bins = len(hats.low)
        sides.append(hats.shares((2 * np.arange(KNOTS) + 1) * bins // (2 * KNOTS)))
    found: I64 = np.einsum("ik,lij,jm->lkm", sides[0], boxes, sides[1])
    return found


def correlation(joint: I64, hats: tuple[Hats, Hats], rankings: tuple[Ranking, Ranking], bins: tuple[I64, I64]) -> float:
    """Of two rankings of the same rows, estimators over windows: DeLong's, with influences as lines between knots.

    `bins` I64[2, b]: rows of negative and positive labels, of either model. 0 where one does not vary.
    """
    moments = np.zeros(3)
    for label, part in enumerate(("by_negative", "by_positive")):
        u, v = (getattr(ranking, part) for ranking in rankings)
        moments[0] += bins[0][label] @ hats[0].lines(u) ** 2
        moments[1] += bins[1][label] @ hats[1].lines(v) ** 2
        moments[2] += hats[0].at_knots(u) @ joint[label] @ hats[1].at_knots(v) / SHARES**2
    return of_moments(*moments.tolist())


def of_moments(aa: float, bb: float, ab: float) -> float:
    """The correlation that these second moments have; 0 where one is 0."""
    if aa <= 0.0 or bb <= 0.0:
        return 0.0
    return max(-1.0, min(1.0, ab / math.sqrt(aa * bb)))
