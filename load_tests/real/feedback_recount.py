"""A recount of realised performance from the logs alone: plain Python, pandas and scikit-learn; no code of the product.

The rules are those of README, "Performance from feedback": an event is late by its own log; of equal prediction ids of a pane the
first counts; a label belongs to its prediction if it became known not before it and less than the last horizon after it; the last
one by (time, offset) counts, one without a value retracts; what is known within a horizon is that horizon's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import orjson
import pandas as pd
from numpy.typing import NDArray
from sklearn import metrics as sk

F64 = NDArray[np.float64]
COUNTED = (
    "consumed", "late", "negative", "absurd", "matched", "contradictory", "retracted", "duplicate", "orphan", "before_prediction",
    "revised",
)  # fmt: skip
"""Counters that are recounted; all others must be 0."""


@dataclass(frozen=True)
class Rules:
    """What the configuration says. Times in ms; `horizons` ascending; `limits`: the range of labels; `ages`: (horizon, age)."""

    resolution: int
    predictions_lateness: int
    labels_lateness: int
    horizons: tuple[int, ...]
    limits: tuple[float, float]
    ages: tuple[tuple[int, int], ...] = ()


@dataclass
class Log:
    """Events of one topic that counted, in (partition, offset) order, and what became of the others."""

    rows: pd.DataFrame
    counters: dict[int, Counter[str]]


def time_of(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def predictions(records: Iterable[Any], rules: Rules) -> Log:
    """Records of the predictions topic, each partition's in order; counters: read, late, duplicate."""
    counters: dict[int, Counter[str]] = {}
    largest: dict[int, int] = {}
    seen: set[tuple[int, int, str]] = set()
    rows = []
    for record in records:
        p, counted = record.partition, counters.setdefault(record.partition, Counter())
        body = orjson.loads(record.value)
        at = time_of(body["timestamp"])
        counted["read"] += 1
        if at < largest.get(p, at) - rules.predictions_lateness:
            counted["late"] += 1
            continue
        largest[p] = max(largest.get(p, at), at)
        edge = at // rules.resolution * rules.resolution
        if (p, edge, body["prediction_id"]) in seen:
            counted["duplicate"] += 1
            continue
        seen.add((p, edge, body["prediction_id"]))
        segment = body["segments"]["origin"]
        rows.append(
            (p, body["prediction_id"], at, edge, body["model"], body["version"], segment, body["prediction"], body.get("score"))
        )  # fmt: skip
    columns = ["partition", "id", "at", "edge", "model", "version", "origin", "prediction", "score"]
    return Log(pd.DataFrame(rows, columns=columns), counters)


def labels(records: Iterable[Any], rules: Rules) -> Log:
    """Records of the labels topic. A retraction has NaN as its label; `dead` counts dead letters of every reason."""
    counters: dict[int, Counter[str]] = {}
    largest: dict[int, int] = {}
    rows = []
    for record in records:
        p, counted = record.partition, counters.setdefault(record.partition, Counter())
        key, at, value = (record.key or b"").decode(), record.timestamp, math.nan
        if record.value is not None:
            try:
                body = orjson.loads(record.value)
            except orjson.JSONDecodeError:
                counted["dead"] += 1
                continue
            key, at = body["prediction_id"], time_of(body["timestamp"])
            value = math.nan if body["label"] is None else float(body["label"])
        counted["consumed"] += 1
        if at < largest.get(p, at) - rules.labels_lateness:
            counted["late"] += 1
            continue
        largest[p] = max(largest.get(p, at), at)
        low, high = rules.limits
        if value < low or value > high:
            counted["dead"] += 1
            counted["negative" if low >= 0 > value else "absurd"] += 1
            continue
        rows.append((p, record.offset, key, at, value))
    return Log(pd.DataFrame(rows, columns=["partition", "offset", "id", "known", "label"]), counters)


def joined(predicted: Log, told: Log, rules: Rules) -> pd.DataFrame:
    """Predictions with one column a horizon or age, NaN = no label; adds what became of the labels to `told.counters`.

    Ids are unique in the log of predictions but for repetitions, which are gone here.
    """
    table = predicted.rows.copy()
    assert not table.duplicated(["partition", "id"]).any()
    pairs = told.rows.merge(table[["partition", "id", "at"]], on=["partition", "id"], how="left")
    delay = pairs.known - pairs["at"]
    near = (delay >= 0) & (delay < rules.horizons[-1])
    slice_end = (pairs.known // rules.resolution + 1) * rules.resolution
    before = (delay < 0) & (pairs["at"] < slice_end)
    for name, which in (("before_prediction", before), ("orphan", ~near & ~before)):
        for p, number in pairs.partition[which].value_counts().items():
            told.counters[p][name] += number  # type: ignore[index]
    hits = pairs.assign(delay=delay)[near].sort_values(["id", "known", "offset"], kind="stable")
    _count_changes(hits, told.counters, rules.horizons)
    for horizon in sorted({*rules.horizons, *(age for _, age in rules.ages)}):
        within = hits[hits.delay < horizon].drop_duplicates("id", keep="last").set_index("id").label
        table[horizon] = table.id.map(within).astype(float)
    return table


def shares_in(
    table: pd.DataFrame, rules: Rules, length_ms: int, most: int
) -> dict[tuple[str, int, int, int], tuple[int, int]]:
    """(model, horizon, age, start of a window `day`) -> labels at the age and at the horizon in the `most` windows that were finished
    last when this one was as old as the age. `table`: with `day`, as `windows` says.
    """
    found = {}
    for model, own in table.groupby("model"):
        came = own.groupby("day")[sorted({*rules.horizons, *(age for _, age in rules.ages)})].count()
        for horizon, age in rules.ages:
            for day in came.index:
                finished = came[came.index + length_ms + horizon < day + length_ms + age].iloc[-most:]
                at_age, at_horizon = (finished[each].sum() for each in (age, horizon))
                found[model, horizon, age, day] = int(at_age), int(at_horizon)
    return found


def windows(table: pd.DataFrame, length_ms: int) -> pd.Series:
    """Where the window of each prediction begins: at its model's first pane with events after the end of the one before."""
    found = {}
    for model, edges in table.groupby("model").edge:
        end_ms = start_ms = -1
        for edge in sorted(edges.unique()):
            if edge >= end_ms:
                start_ms, end_ms = edge, edge + length_ms
            found[model, edge] = start_ms
    return pd.Series([found[place] for place in zip(table.model, table.edge, strict=True)], index=table.index)


def _count_changes(hits: pd.DataFrame, counters: Mapping[int, Counter[str]], horizons: tuple[int, ...]) -> None:
    """Each label in turn: the first of its prediction, the same again, another one, or a retraction."""
    last, now, since = None, math.nan, 0
    for p, key, delay, label in zip(hits.partition, hits.id, hits.delay, hits.label, strict=True):
        if key != last:
            last, now = key, math.nan
        there, counted = not math.isnan(now), counters[p]
        if label == now or (math.isnan(label) and not there):
            counted["duplicate"] += 1
            continue
        name = "retracted" if math.isnan(label) else "contradictory" if there else "matched"
        counted[name] += 1
        if name != "matched" and any(since < horizon <= delay for horizon in horizons):
            counted["revised"] += 1
        now, since = label, delay


# -- metrics: name -> (value or None, whether it is a histogram's)


def classification(predicted: F64, score: F64, label: F64) -> dict[str, float | None]:
    """Of all predictions of a window; label NaN where none is known."""
    known = ~np.isnan(label)
    y, d, s = label[known].astype(int), predicted[known].astype(int), score[known]
    n, classes = len(y), sorted(set(y.tolist()))
    both = len(classes) == 2
    precision, recall, f1, support = (
        sk.precision_recall_fscore_support(y, d, labels=[0, 1], zero_division=0) if n else np.zeros((4, 2))
    )
    there = support > 0
    found: dict[str, float | None] = {
        "accuracy": _if(n, lambda: sk.accuracy_score(y, d)),
        "precision": _if(d.any(), lambda: precision[1]),
        "recall": _if(y.any(), lambda: recall[1]),
        "specificity": _if((y == 0).any(), lambda: recall[0]),
        "false_positive_rate": _if((y == 0).any(), lambda: float((d[y == 0] == 1).mean())),
        "f1": _if(y.any() or d.any(), lambda: f1[1]),
        "selection_rate": _if(len(predicted), lambda: float(predicted.mean())),
        "prevalence": _if(n, lambda: float(y.mean())),
        "macro_precision": _if(n, precision[there].mean),
        "macro_recall": _if(n, recall[there].mean),
        "macro_f1": _if(n, f1[there].mean),
        "auroc": _if(both, lambda: sk.roc_auc_score(y, s)),
        "gini": _if(both, lambda: 2 * sk.roc_auc_score(y, s) - 1),
        "average_precision": _if(both, lambda: sk.average_precision_score(y, s)),
        "ks_of_classes": _if(both, lambda: _ks(s, y)),
        "lift_at_top_decile": _if(both, lambda: _lift(s, y)),
        "log_loss": _if(n, lambda: sk.log_loss(y, s, labels=[0, 1])),
        "brier": _if(n, lambda: sk.brier_score_loss(y, s, labels=[0, 1])),
        "calibration_error": _if(n, lambda: _ece(s, y)),
        "calibration_gap": _if(n, lambda: float(s.mean() - y.mean())),
        "expected_rate": _if(n, lambda: float(s.mean())),
        "observed_over_expected": _if(n, lambda: float(y.sum() / s.sum())),
    }
    return found


def confusion(predicted: F64, label: F64) -> list[list[int]]:
    known = ~np.isnan(label)
    matrix: list[list[int]] = np.asarray(
        sk.confusion_matrix(label[known], predicted[known], labels=[0, 1]) if known.any() else np.zeros((2, 2), int)
    ).tolist()
    return matrix


def _ks(score: F64, label: NDArray[Any]) -> float:
    false_positives, true_positives, _ = sk.roc_curve(label, score, drop_intermediate=False)
    return float(np.abs(true_positives - false_positives).max())


def _lift(score: F64, label: NDArray[Any]) -> float:
    """Positives in the tenth with the highest scores over a tenth of all; equal scores at its edge count in part."""
    wanted = 0.1 * len(score)
    edge = np.sort(score)[::-1][math.ceil(wanted) - 1]
    above, tied = score > edge, score == edge
    return float((label[above].sum() + (wanted - above.sum()) * label[tied].mean()) / label.sum() / 0.1)


def _ece(score: F64, label: NDArray[Any]) -> float:
    place = np.minimum((score * 10).astype(int), 9)
    return float(sum(abs((score - label)[place == b].sum()) for b in range(10)) / len(score))


def regression(predicted: F64, label: F64) -> dict[str, float | None]:
    known = ~np.isnan(label)
    y, d = label[known], predicted[known]
    n = len(y)
    varied = n > 0 and y.min() < y.max()
    return {
        "mae": _if(n, lambda: sk.mean_absolute_error(y, d)),
        "mse": _if(n, lambda: sk.mean_squared_error(y, d)),
        "rmse": _if(n, lambda: sk.root_mean_squared_error(y, d)),
        "mape": _if(n and (y != 0).all(), lambda: sk.mean_absolute_percentage_error(y, d)),
        "wape": _if(n, lambda: float(np.abs(d - y).sum() / np.abs(y).sum())),
        "rmsle": _if(n, lambda: sk.root_mean_squared_log_error(y, d)),
        "r2": _if(varied, lambda: sk.r2_score(y, d)),
        "mean_signed_error": _if(n, lambda: float((d - y).mean())),
        "mean_signed_percentage_error": _if(n and (y != 0).all(), lambda: float(((d - y) / y).mean())),
        "share_over_predicted": _if(n, lambda: float((d > y).mean())),
    }


def _if(condition: Any, value: Callable[[], Any]) -> float | None:
    return float(value()) if condition else None


HISTOGRAMS = frozenset({"auroc", "gini", "average_precision", "ks_of_classes", "lift_at_top_decile"})
