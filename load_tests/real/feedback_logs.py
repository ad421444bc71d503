"""The flights as two logs: predictions of two models, and what became of them, known when the aeroplane had arrived.

`late-arrival` says whether a flight will be more than 15 minutes late; `elapsed-time` how many minutes it will take from its
real departure to its real arrival. Each flight is one prediction of each, and each arrival one label of each, as late after the
prediction as it really was. Both logs are shuffled within their lateness, some of them beyond it, and hold what real ones hold:
repetitions, corrections, retractions, labels of unknown predictions, labels before their time, absurd and unreadable ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pandas as pd

from load_tests.real import flights

ELAPSED = "elapsed-time"
MODELS = (flights.MODEL, ELAPSED)
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
PREDICTIONS_LATENESS_MS = HOUR_MS
LABELS_LATENESS_MS = 2 * HOUR_MS
LABELS_RANGE = (0.0, 1440.0)
RETRAINED_MS = 1_374_000_000_000  # 2013-07-16 18:40 UTC: a new version of both models, in the middle of a day
# Shares of the labels, for each kind of trouble
REPEATED, CORRECTED, RETRACTED, RESTORED, UNKNOWN, EARLY, ABSURD, UNREADABLE, BEYOND = (
    0.01, 0.01, 0.006, 0.003, 0.004, 0.001, 0.001, 0.0005, 0.004,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Record:
    """One record to publish. `at_ms`: where it stands in its log, an event time; `time_ms`: the record's own time."""

    at_ms: float
    key: bytes
    value: bytes | None
    time_ms: int


def answered(data: flights.Flights) -> pd.DataFrame:
    """The year's flights with both models' answers; `elapsed` is the regression's, out of fold in January."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.model_selection import cross_val_predict

    january, later = data.january.copy(), data.later.copy()
    model = HistGradientBoostingRegressor(max_iter=60, random_state=0)
    x, target = flights.matrix(january), january.elapsed_minutes.fillna(january.elapsed_minutes.mean())
    january["elapsed"] = cross_val_predict(model, x, target, cv=flights.FOLDS)
    later["elapsed"] = model.fit(x, target).predict(flights.matrix(later))
    table = pd.concat([january, later], ignore_index=True)
    table["score"] = table.score.clip(1e-6, 1 - 1e-6)
    table["elapsed"] = table.elapsed.clip(1.0).round(3)
    return table


def share_of(table: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    chosen = np.random.default_rng(seed).random(len(table)) < share
    return table[chosen].reset_index(drop=True)


def references(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """January as each model's reference."""
    january = table[table.month == 1]
    own = january[[*flights.NUMERIC, *flights.CATEGORIES]].copy()
    own.insert(0, "timestamp", january.timestamp_ms.astype("datetime64[ms]"))
    return {
        flights.MODEL: own.assign(prediction=january.prediction.astype(str), score=january.score),
        ELAPSED: own.assign(prediction=january.elapsed),
    }


def predictions(table: pd.DataFrame, seed: int) -> list[Record]:
    """The log of both models, in the order in which it is published."""
    chance, found = random.Random(seed), []
    names = [*flights.NUMERIC, *flights.CATEGORIES]
    for row in table.itertuples():
        features = {name: _json(getattr(row, name)) for name in names}
        for model in MODELS:
            key = prediction_id(model, row.prediction_id)
            body: dict[str, Any] = {
                "prediction_id": key,
                "model": model,
                "version": "2013-07" if row.timestamp_ms >= RETRAINED_MS else "2013-01",
                "timestamp": instant(row.timestamp_ms),
                "features": features,
                "segments": {"origin": row.origin},
            }
            answer = {"prediction": row.elapsed}
            if model == flights.MODEL:
                answer = {"prediction": int(row.prediction), "score": float(row.score)}
            value = orjson.dumps(body | answer)
            for _ in range(2 if chance.random() < REPEATED else 1):
                at = _place(row.timestamp_ms, PREDICTIONS_LATENESS_MS, chance)
                found.append(Record(at, key.encode(), value, row.timestamp_ms))
    return sorted(found, key=lambda record: record.at_ms)


def labels(table: pd.DataFrame, seed: int) -> list[Record]:
    """The log of labels, in the order in which it is published."""
    chance, found = random.Random(seed), []
    for row in table.itertuples():
        if row.elapsed_minutes != row.elapsed_minutes:
            continue
        arrived = row.timestamp_ms + round((row.departure_delay + row.elapsed_minutes) * MINUTE_MS)
        for model, truth in zip(MODELS, (int(row.late), row.elapsed_minutes), strict=True):
            key = prediction_id(model, row.prediction_id)
            for time_ms, value in _told(arrived, row.timestamp_ms, truth, model, chance):
                found.append(_label(key, time_ms, value, chance))
        if chance.random() < UNKNOWN:
            found.append(_label(f"unknown-{row.prediction_id}", arrived, 1, chance))
    return sorted(found, key=lambda record: record.at_ms)


def _told(arrived: int, predicted: int, truth: float, model: str, chance: random.Random) -> Iterator[tuple[int, Any]]:
    """(time, label) of everything that is said of one prediction; "" as the label stands for an unreadable event."""
    kind, step = chance.random(), 0.0
    yield arrived, bool(truth) if model == flights.MODEL and chance.random() < 0.5 else truth
    after = arrived + chance.randrange(1, 2 * DAY_MS)
    for share, more in (
        (REPEATED, [(chance.choice((arrived, after)), truth)]),
        (CORRECTED, [(chance.choice((arrived, after)), _wrong(truth, model)), (arrived - 1, _wrong(truth, model))]),
        (RETRACTED, [(after, None)]),
        (RESTORED, [(after, None), (after + HOUR_MS, truth)]),
        (EARLY, [(predicted - chance.randrange(1, 2 * HOUR_MS), truth)]),
        (ABSURD, [(arrived, chance.choice((-5.0, 1e9)))]),
        (UNREADABLE, [(arrived, "")]),
    ):
        if step <= kind < step + share:
            yield from more
        step += share


def _wrong(truth: float, model: str) -> float:
    return 1 - truth if model == flights.MODEL else truth + 30


def _label(key: str, time_ms: int, value: Any, chance: random.Random) -> Record:
    at = _place(time_ms, LABELS_LATENESS_MS, chance)
    if value is None and chance.random() < 0.5:  # a tombstone: its key is the id, its record's time the time
        return Record(at, key.encode(), None, time_ms)
    body = orjson.dumps({"prediction_id": key, "timestamp": instant(time_ms), "label": value})
    return Record(at, key.encode(), body[:-9] if value == "" else body, time_ms)


def _place(time_ms: int, lateness_ms: int, chance: random.Random) -> float:
    """Anywhere within the lateness; a few beyond it."""
    stretch = 1.5 + 5 * chance.random() if chance.random() < BEYOND else 0.9 * chance.random()
    return time_ms + stretch * lateness_ms


def interleaved(first: list[Record], second: list[Record], seed: int, days_apart: int) -> Iterator[tuple[int, Record]]:
    """(log, record): both in their own order, now one ahead and now the other, by so many days at most."""
    chance, logs, at = random.Random(seed), (first, second), [0, 0]
    until = [0.0, 0.0]
    while at[0] < len(first) or at[1] < len(second):
        heads = [log[k].at_ms if k < len(log) else float("inf") for log, k in zip(logs, at, strict=True)]
        which = chance.randrange(2)
        if at[which] == len(logs[which]) or heads[which] > heads[1 - which] + days_apart * DAY_MS:
            which = 1 - which
        until[which] = heads[which] + chance.random() * DAY_MS
        while at[which] < len(logs[which]) and logs[which][at[which]].at_ms <= until[which]:
            yield which, logs[which][at[which]]
            at[which] += 1


def prediction_id(model: str, flight: str) -> str:
    return f"{model[0]}/{flight}"


def instant(time_ms: int) -> str:
    return f"{np.datetime_as_string(np.datetime64(int(time_ms), 'ms'), unit='ms')}Z"


def _json(value: Any) -> Any:
    return None if value != value else value  # noqa: PLR0124
