"""Domain classifier: how well a classifier tells the window's rows from the reference's.

A ridge classifier (least squares on the labels: Fisher's discriminant) on every numeric feature, its square and whether
it is missing. Each fold of the rows is scored by the classifier of the other folds; the output is the area under the ROC curve
of these scores. It finds what is a combination of features, and of how they spread.

Reads      numeric features of the window's bottom-k sample of rows
Output     AUROC: about .5 without drift, 1 = always told apart
Guarantee  without drift, for rows that are independent, its mean is .5 and its deviation at most twice that of a fixed
           score, sqrt((n + m + 1) / (12 n m)) for n and m rows: measured .022 at 500 and 2000; what a threshold needs
Cost       9 bytes a sampled cell of a pane (100 KB at 500 rows of 21 targets); 6 ms a window of 20 features against 2000 rows
Differs    linear in features and squares: no interactions, which trees would find (nannyml: gradient boosting)
Source     Lopez-Paz, Oquab 2017, Revisiting classifier two-sample tests; Hand, Till 2001 for the area
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.multivariate.rows import F64, I64, RowWindow, Tables, scaling, standardised
from detectors.parameters import Base, number, whole
from detectors.reference_rows import ReferenceRows

CARRIED = ()
ARRAYS = False  # a window would have to carry the arrays of its sample
ROWS_MIN = 20  # of a window; below them a fold has no direction
FEATURE_MAX = 5.0  # deviations, so that a square is at most 25: least squares follow what is far out


@dataclass(frozen=True)
class Parameters(Base):
    rows: int = whole(500, 50, 2000, "of each window: those with the smallest id hashes")
    folds: int = whole(5, 2, 10, "the rows of each are scored by a classifier of the others")
    ridge: float = number(1.0, 1e-6, 1e6, "penalty of a squared weight, in rows")


def prepare(reference: ReferenceRows, parameters: Parameters) -> Tables:
    """Tables: scaling, "inputs" F64[m, 3f] of the reference's rows, "settings" F64[2]: folds, ridge."""
    tables = scaling(reference)
    tables["inputs"] = _inputs(tables, reference.values)
    tables["settings"] = np.array([float(parameters.folds), parameters.ridge])
    return tables


def width(tables: Tables) -> int:  # noqa: ARG001 - it is asked of all
    return 0


def sample_rows(parameters: Parameters) -> int:
    return parameters.rows


def measure(tables: Tables, window: RowWindow) -> float:
    """Cross-validated AUROC; NaN for fewer than ROWS_MIN rows."""
    now, then = _inputs(tables, window.rows), tables["inputs"]
    if len(now) < ROWS_MIN:
        return math.nan
    folds, ridge = int(tables["settings"][0]), float(tables["settings"][1])
    inputs = np.concatenate((then, now))
    label = np.repeat((0.0, 1.0), (len(then), len(now)))
    # rows come in the order of their hashes, so that every n-th is a random part
    fold = np.concatenate((np.arange(len(then)) % folds, np.arange(len(now)) % folds))
    areas = [_area_of_fold(inputs, label, fold == each, ridge) for each in range(folds)]
    return float(np.mean(areas))


def _area_of_fold(inputs: F64, label: F64, held: NDArray[np.bool_], ridge: float) -> float:
    """Scores of different folds are of different classifiers: only those of one are compared."""
    weights = fitted(inputs[~held], label[~held], ridge)
    return area(inputs[held] @ weights, label[held] > 0)


def fitted(inputs: F64, label: F64, ridge: float) -> F64:
    """Weights F64[w] of the ridge regression with an intercept (which no order of scores depends on); both labels weigh the same."""
    positive = label > 0
    weight = np.where(positive, 0.5 / positive.sum(), 0.5 / (~positive).sum()) * len(label)
    centred = inputs - np.average(inputs, axis=0, weights=weight)
    target = label - 0.5
    gram = centred.T @ (centred * weight[:, None]) + ridge * np.eye(inputs.shape[1])
    found: F64 = np.linalg.solve(gram, centred.T @ (target * weight))
    return found


def area(score: F64, positive: NDArray[np.bool_]) -> float:
    """Share of the pairs in which the positive has the higher score, ties half: Mann-Whitney's U over n m."""
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2.0)[place]
    n, m = int(positive.sum()), int((~positive).sum())
    return float((rank[positive].sum() - n * (n + 1) / 2.0) / (n * m))


def add(tables: Tables, values: F64, sums: I64) -> None:
    """It has no sums."""


def _inputs(tables: Tables, values: F64) -> F64:
    """F64[m, 3f] of the rows that have any valid value: features in standard units, their squares, which are missing."""
    some = values[np.isfinite(values).any(axis=1)]
    rows, _ = standardised(some, tables["centre"], tables["inverse"])
    inside = np.clip(rows, -FEATURE_MAX, FEATURE_MAX)
    return np.concatenate((inside, inside**2, (~np.isfinite(some)).astype(np.float64)), axis=1)
