"""What is kept of predictions and their feedback: which arrays, of which shapes, decided before the first row."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from detectors.performance.exact import LIMBS
from detectors.verdict import BadSettings

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

VERSION = 1
SCORE_BINS = 256
SCORE_BINS_MAX = 4096
CALIBRATION_BINS = 10  # of equal width in [0, 1]: the usual definition of the calibration error
CLASSES_MAX = 128  # a confusion matrix of 131 kB
CLASSES_SCORED_MAX = 32  # two histograms each: 131 kB
QUANTILES_MAX = 9
_LINEAR, _TAIL, _TAIL_STEP = 128, 64, 0.25  # the default cuts: see default_score_cuts


class Part(StrEnum):
    """What a metric needs to be kept."""

    CONFUSION = "confusion"  # counts of (label, predicted class)
    SCORES = "scores"  # of the positive class, with labels
    CLASS_SCORES = "class_scores"  # of every class, with labels
    ERRORS = "errors"  # of a numeric prediction against a numeric label
    PROXIES = "proxies"  # clicks, conversions and their value, scores


def default_score_cuts() -> F64:
    """255 cuts: 1/128 apart, and within 1/128 of 0 and 1 in steps of a quarter of a doubling, down to 2^-23: rare events, whose
    scores are all small, keep their order.
    """
    tail = 2.0 ** (-7.0 - _TAIL_STEP * np.arange(_TAIL, 0, -1))
    middle = np.arange(1, _LINEAR) / _LINEAR
    return np.concatenate([tail, middle, 1.0 - tail[::-1]])


def score_cuts(scores: F64, bins: int = SCORE_BINS) -> F64:
    """Cuts at equal masses of a reference's scores F64[n], ascending, each once; the default ones where no score is finite."""
    if not 2 <= bins <= SCORE_BINS_MAX:
        raise BadSettings(f"bins of scores: {bins} is outside 2 to {SCORE_BINS_MAX}")
    ordered = np.sort(scores[np.isfinite(scores)])
    if not len(ordered):
        return default_score_cuts()
    return np.unique(ordered[(np.arange(1, bins) * len(ordered)) // bins])


@dataclass(frozen=True, slots=True)
class Shape:
    """The arrays of a layout: integer counts by name and shape, and the names of exact sums, in order."""

    counts: dict[str, tuple[int, ...]]
    sums: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Layout:
    """What is kept. Two layouts merge if they have one `identity`.

    classes     number of classes, 0 for none; `positive`: the code of the positive one where there are two
    cuts        F64[b - 1], ascending: a score s is in bin #(cuts <= s)
    class_scores  every row has a score for each class
    errors      numeric predictions and labels; `quantiles`: of their pinball losses; `centre`: near the labels' mean, so that the
                interval of r2 keeps its digits (no value depends on it)
    proxies     clicks, conversions, their value
    """

    classes: int = 0
    positive: int = 1
    scores: bool = False
    class_scores: bool = False
    errors: bool = False
    proxies: bool = False
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)
    centre: float = 0.0
    cuts: F64 = field(default_factory=default_score_cuts)

    def __post_init__(self) -> None:
        """Raises BadSettings, naming the field."""
        if self.classes and not 2 <= self.classes <= CLASSES_MAX:
            raise BadSettings(f"classes: {self.classes} is outside 2 to {CLASSES_MAX}")
        if self.scores and self.classes != 2:
            raise BadSettings("scores: of one class only where there are two; class_scores for more")
        if self.scores and self.positive not in (0, 1):
            raise BadSettings(f"positive: {self.positive} is neither 0 nor 1")
        if self.class_scores and not 2 <= self.classes <= CLASSES_SCORED_MAX:
            raise BadSettings(f"class_scores: of 2 to {CLASSES_SCORED_MAX} classes, not {self.classes}")
        if not (len(self.cuts) < SCORE_BINS_MAX and np.isfinite(self.cuts).all() and (np.diff(self.cuts) > 0).all()):
            raise BadSettings(f"cuts: finite, ascending and fewer than {SCORE_BINS_MAX}")
        if len(self.quantiles) > QUANTILES_MAX or not all(0.0 < q < 1.0 for q in self.quantiles):
            raise BadSettings(f"quantiles: at most {QUANTILES_MAX}, each between 0 and 1")
        if not math.isfinite(self.centre):
            raise BadSettings("centre: not finite")
        if not self.parts:
            raise BadSettings("a layout that keeps nothing")

    @cached_property
    def parts(self) -> frozenset[Part]:
        there = {
            Part.CONFUSION: bool(self.classes),
            Part.SCORES: self.scores,
            Part.CLASS_SCORES: self.class_scores,
            Part.ERRORS: self.errors,
            Part.PROXIES: self.proxies,
        }
        return frozenset(part for part, kept in there.items() if kept)

    @cached_property
    def bins(self) -> int:
        return len(self.cuts) + 1

    @cached_property
    def has_usual_cuts(self) -> bool:
        return np.array_equal(self.cuts, default_score_cuts())

    @cached_property
    def shape(self) -> Shape:
        counts: dict[str, tuple[int, ...]] = {}
        sums: list[str] = []
        for part in Part:
            if part in self.parts:
                more, names = _arrays(part, self)
                counts |= {f"{part}.{name}": shape for name, shape in more.items()}
                sums += [f"{part}.{name}" for name in names]
        return Shape(counts, tuple(sums))

    @cached_property
    def identity(self) -> str:
        """16 bytes in hex: equal if and only if what is kept means the same."""
        words = (VERSION, self.classes, self.positive, sorted(self.parts), self.quantiles, self.centre)
        return hashlib.blake2b(repr(words).encode() + self.cuts.astype("<f8").tobytes(), digest_size=16).hexdigest()

    @cached_property
    def bytes(self) -> int:
        """In memory, one set of sums."""
        return 8 * (sum(math.prod(shape) for shape in self.shape.counts.values()) + LIMBS * len(self.shape.sums))


def loss_names(quantiles: Sequence[float]) -> list[str]:
    return [f"pinball_{q:g}" for q in quantiles]


def _arrays(part: Part, layout: Layout) -> tuple[dict[str, tuple[int, ...]], Sequence[str]]:
    """Counts and sums of one part. `x_2`: the sum of squares of what `x` sums. Labels are centred in label_3, label_4 and after
    error_2, and nowhere else.
    """
    k, b = layout.classes, layout.bins
    if part is Part.CONFUSION:
        # left_out: no label, a label that is no class, a label whose prediction is no class; predicted: of all rows
        return {"matrix": (k, k), "predicted": (k,), "left_out": (3,)}, ()
    if part is Part.SCORES:
        # left_out: labelled without a finite score, with a score outside 0 to 1
        counts = {"bins": (2, b), "left_out": (2,), "calibration": (CALIBRATION_BINS, 2)}
        losses = ("squared_error", "squared_error_2", "log_loss", "log_loss_2")
        return counts, ("score", "score_2", "score_positive", *losses, *(f"calibration_{i}" for i in range(10)))
    if part is Part.CLASS_SCORES:
        # left_out: labelled without all scores, with scores that are no probabilities
        counts = {"bins": (k, 2, b), "left_out": (2,), "rows": (1,)}
        return counts, ("log_loss", "log_loss_2", "squared_error", "squared_error_2")
    if part is Part.ERRORS:
        # left_out: no label, values not usable; negative: label or prediction; over: over-predicted, under-predicted
        names = [
            "label",
            "label_2",
            "label_3",
            "label_4",
            "error",
            "error_2",
            "error_4",
            "error_2_label",
            "error_2_label_2",
        ]
        names += ["absolute_error", "absolute_label", "absolute_error_label"]
        names += ["relative", "relative_2", "absolute_relative", "log_2", "log_4"]
        names += [name + square for name in loss_names(layout.quantiles) for square in ("", "_2")]
        return {"rows": (1,), "left_out": (2,), "zero": (1,), "negative": (1,), "over": (2,)}, names
    # predictions, clicks, conversions, with a score in 0 to 1, clicks of those, values not usable
    return {"rows": (6,)}, ("value", "value_2", "score", "score_2", "score_clicked")
