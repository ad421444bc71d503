"""Streams of one model with feedback, replayed: what the records of each window say, and the rows that the window has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stream.config import Config, config_from
from stream.replay import ReplayResult, replay

MODEL, MINUTE_MS = "m", 60_000
START_S = 10 * 3600


def stamp(second: float) -> str:
    at = START_S + int(second)
    return f"2026-11-22T{at // 3600:02d}:{at // 60 % 60:02d}:{at % 60:02d}.{round(second % 1 * 1000):03d}Z"


def settings(performance: Mapping[str, Any], topic: str = "labels", **more: Any) -> Config:
    """One model whose windows are of five minutes, and one topic of feedback."""
    model = {
        "reference": {"first": 5000},
        "targets": {"amount": {"kind": "numeric"}},
        "window": {"every": "5m", "min_events": 1},
    }
    mapping = {"timestamp": "timestamp"}
    topics = {"predictions": "predictions", topic: {"name": topic, "mapping": mapping}} | more.pop("topics", {})
    own = {"horizons": ["2m"], "provisional": "none", **performance}
    models = {MODEL: {**model, **more.pop("model", {}), "performance": own}}
    return config_from({"kafka": {"bootstrap_servers": "unused:9092"}, "topics": topics, "models": models, **more})


@dataclass(frozen=True)
class Rows:
    """n predictions, one each `every_s` seconds, and their feedback, known a second later; None = no feedback.

    `more`: fields of each event of a prediction, beside its id, model and time.
    """

    more: Sequence[Mapping[str, Any]]
    outcome: Sequence[Any]
    field: str = "label"
    every_s: float = 0.5

    def predictions(self) -> Iterator[dict[str, Any]]:
        for number, own in enumerate(self.more):
            known = {"prediction_id": str(number), "model": MODEL, "timestamp": stamp(number * self.every_s)}
            yield {**known, "features": {"amount": 1.0}, **own}

    def feedback(self) -> Iterator[dict[str, Any]]:
        for number, outcome in enumerate(self.outcome):
            if outcome is not None:
                about = {"prediction_id": str(number), "timestamp": stamp(number * self.every_s + 1.0)}
                yield {**about, self.field: outcome}

    def of(self, window: Mapping[str, Any]) -> slice:
        """Rows of a record's window."""
        times = np.array([stamp(number * self.every_s) for number in range(len(self.more))])
        edges = [f"{window[end][:-1]}.000Z" if "." not in window[end] else window[end] for end in ("start", "end")]
        first, stop = (int(np.searchsorted(times, edge)) for edge in edges)
        return slice(first, stop)


def replayed(config: Config, rows: Rows, topic: str = "labels") -> ReplayResult:
    return replay(config, list(rows.predictions()), feedback={topic: list(rows.feedback())})


def records(result: ReplayResult, metric: str, kind: str = "performance") -> list[dict[str, Any]]:
    """Data of the records of one metric, in order; each can be written as JSON."""
    json.dumps(result.performance)
    own = [event["data"] for event in result.performance if event["type"] == f"driftline.{kind}.v1"]
    return [data for data in own if data["metric"] == metric]
