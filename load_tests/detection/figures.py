"""What counts and delays say, with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv
from scipy.stats import t as student

F64 = NDArray[np.float64]

CONFIDENCE = 0.95
BOOTSTRAPS = 2_000
DECILES = 10


def poisson_interval(count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact (Garwood) interval of the mean of a Poisson count."""
    beyond = 0.5 * (1.0 - confidence)
    low = float(gammaincinv(count, beyond)) if count else 0.0
    return low, float(gammaincinv(count + 1.0, 1.0 - beyond))


def pairs_interval(counts: Sequence[int], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Of the sum over pairs: it sees that alarms of one pair come together, which a Poisson interval does not."""
    x = np.asarray(counts, float)
    if len(x) < 2:
        return 0.0, math.inf
    half = float(student.ppf(0.5 + 0.5 * confidence, len(x) - 1)) * float(x.std(ddof=1)) * math.sqrt(len(x))
    return max(0.0, float(x.sum()) - half), float(x.sum()) + half


def alarm_figures(counts: Sequence[int], events_per_pair: int, budget: float, cells: int) -> dict[str, Any]:
    """False alarms of `cells` equal features, of which each pair watched one, against the bound T / A of the whole model.

    The upper limit is the larger of the Poisson and the pairs' one: few alarms make the second too small, clustered ones the first.
    """
    events, alarms = events_per_pair * len(counts), int(sum(counts))
    low, high = poisson_interval(alarms)
    pairs_low, pairs_high = pairs_interval(counts)
    bound = events / budget
    return {
        "pairs": len(counts),
        "events": events,
        "alarms": alarms,
        "cells": cells,
        "per_million": alarms * cells * 1e6 / events,
        "poisson_95": [low * cells * 1e6 / events, high * cells * 1e6 / events],
        "pairs_95": [pairs_low * cells * 1e6 / events, pairs_high * cells * 1e6 / events],
        "bound_per_million": 1e6 / budget,
        "ratio": alarms * cells / bound,
        "ratio_upper": max(high, pairs_high) * cells / bound,
    }


def delay_figures(delays: Sequence[float], seed: int) -> dict[str, Any]:
    """delays in events, NaN = not found. Mean, its bootstrap interval over seeds, and p95 are of those that were found."""
    x = np.asarray(delays, float)
    found = x[~np.isnan(x)]
    figures: dict[str, Any] = {"seeds": len(x), "misses": int(np.isnan(x).sum())}
    if not len(found):
        return figures | {"mean": None, "mean_95": None, "p95": None}
    g = np.random.default_rng([seed, 77])
    means = found[g.integers(0, len(found), (BOOTSTRAPS, len(found)))].mean(axis=1)
    low, high = np.quantile(means, [0.5 - 0.5 * CONFIDENCE, 0.5 + 0.5 * CONFIDENCE])
    return figures | {
        "mean": float(found.mean()),
        "mean_95": [float(low), float(high)],
        "p95": float(np.quantile(found, 0.95)),
    }


def geometric_mean(delays: Sequence[Sequence[float]], penalty: Sequence[float], seed: int) -> dict[str, Any]:
    """Of the mean delays of several changes, seeds resampled for its interval; a miss counts as the whole stretch `penalty`."""
    filled = [
        np.where(np.isnan(np.asarray(d, float)), p, np.asarray(d, float)) for d, p in zip(delays, penalty, strict=True)
    ]
    g = np.random.default_rng([seed, 78])
    logs = np.zeros(BOOTSTRAPS)
    for d in filled:
        logs += np.log(d[g.integers(0, len(d), (BOOTSTRAPS, len(d)))].mean(axis=1))
    low, high = np.exp(np.quantile(logs / len(filled), [0.5 - 0.5 * CONFIDENCE, 0.5 + 0.5 * CONFIDENCE]))
    value = math.exp(float(np.mean([math.log(d.mean()) for d in filled])))
    return {"value": value, "interval_95": [float(low), float(high)]}


def ratio_to_best(ours: Sequence[F64], *rivals: Sequence[F64], penalty: Sequence[float], seed: int) -> dict[str, Any]:
    """Geometric means over changes of mean delays F64[seeds], ours over the smallest of the rivals'; a miss counts as `penalty`.

    Whatever is resampled is resampled for all alike: they saw the same streams. The smallest is found anew each time, so that
    the choice is in the interval.
    """
    g = np.random.default_rng([seed, 79])
    rows = [g.integers(0, len(d), (BOOTSTRAPS, len(d))) for d in ours]
    means, resampled = [], []
    for delays in (ours, *rivals):
        filled = [np.where(np.isnan(d), p, d) for d, p in zip(delays, penalty, strict=True)]
        means.append(np.mean([math.log(d.mean()) for d in filled]))
        resampled.append(np.mean([np.log(d[r].mean(axis=1)) for d, r in zip(filled, rows, strict=True)], axis=0))
    best = int(np.argmin(means[1:]))
    logs = resampled[0] - np.min(resampled[1:], axis=0)
    low, high = np.exp(np.quantile(logs, [0.5 - 0.5 * CONFIDENCE, 0.5 + 0.5 * CONFIDENCE]))
    return {"ratio": math.exp(means[0] - means[1 + best]), "interval_95": [float(low), float(high)], "best": best}


def factor_figures(before: Sequence[F64], factor: Sequence[F64]) -> dict[str, Any]:
    """Mean of the one-step factor L, overall and per decile of the evidence before it; one pair of arrays for each pair.

    Errors are between pairs: the steps of one pair share a reference.
    """
    cuts = np.quantile(np.concatenate(before), np.linspace(0, 1, DECILES + 1)[1:-1])
    sums, counts = np.zeros((len(before), DECILES)), np.zeros((len(before), DECILES))
    for i, (b, f) in enumerate(zip(before, factor, strict=True)):
        decile = np.searchsorted(cuts, b, side="right")
        sums[i] = np.bincount(decile, weights=f, minlength=DECILES)
        counts[i] = np.bincount(decile, minlength=DECILES)
    whole = _ratio(sums.sum(axis=1, keepdims=True), counts.sum(axis=1, keepdims=True))
    return {
        "steps": int(counts.sum()),
        "mean": whole[0][0],
        "error": whole[1][0],
        "deciles": [[m, e] for m, e in zip(*_ratio(sums, counts), strict=True)],
    }


def _ratio(sums: F64, counts: F64) -> tuple[list[float], list[float]]:
    """Ratio of the columns' totals, and its standard error with rows as clusters."""
    n = len(sums)
    total = counts.sum(axis=0)
    mean = sums.sum(axis=0) / np.maximum(total, 1.0)
    residual = sums - mean * counts
    error = np.sqrt((residual**2).sum(axis=0) * n / max(n - 1, 1)) / np.maximum(total, 1.0)
    return mean.tolist(), error.tolist()
