"""What feedback changes of the windows of the inputs: the thresholds, for a fifth of the false alarms goes to performance."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np

from detectors.reference import WindowRule
from detectors.reference_build import build_reference
from stream.collector import Collector
from stream.config import config_from
from stream.decode import decode, records_from_lines
from stream.monitor import Monitor, PaneRecord
from stream.panes import EDGE_END, Pane, decode_record
from stream.planning import collector_plan, monitor_settings
from stream.stage import Decision
from stream.topics import TopicRole

MODEL, ROWS, SHIFTED = "m", 6_000, 4_000
SECOND_MS = 1_000
FIRST_MS = 1_767_225_600_000
EVIDENCE = {"rank", "tube"}
SETTINGS = "detection"  # their hash


def lines() -> list[bytes]:
    g = np.random.default_rng(3)
    found = []
    for row in range(ROWS):
        at = np.datetime_as_string(np.datetime64(FIRST_MS + row * 20, "ms"), unit="ms") + "Z"
        amount = float(np.round(g.normal() + (0.8 if row > SHIFTED else 0.0), 4))
        body = {"prediction_id": str(row), "model": MODEL, "timestamp": at, "features": {"amount": amount}}
        found.append(json.dumps(body | {"prediction": row % 2, "score": 0.5}).encode())
    return found


def run(false_alarms: str, *, feedback: bool) -> tuple[list[bytes], list[dict[str, Any]]]:
    """Input panes, and records of windows."""
    model: dict[str, Any] = {"reference": {"file": "unused.parquet"}, "window": {"every": "2s", "min_events": 1}}
    topics: dict[str, Any] = {"predictions": "predictions"}
    if feedback:
        model["performance"] = {"horizons": ["10s"], "metrics": ["accuracy"]}
        topics["labels"] = {"name": "labels", "mapping": {"timestamp": "timestamp"}}
    own = config_from({
        "kafka": {"bootstrap_servers": "unused:9092"}, "resolution": "1s", "topics": topics, "models": {MODEL: model},
        "monitors": 1, "defaults": {"false_alarms": false_alarms},
    })  # fmt: skip
    amount = np.random.default_rng(0).normal(size=20_000)
    rule = WindowRule(False, 2 * SECOND_MS, 1, 0, SECOND_MS)
    profile = build_reference(
        MODEL, {"amount": amount}, {"amount": "feature"}, time_ms=FIRST_MS - 10**6 + np.arange(20_000) * 20, window=rule
    )
    plan, layout = collector_plan(own, {MODEL: profile})
    named = {"labels": "labels"} if feedback else {}
    collector = Collector(
        0, plan, monitors=1, topic="predictions", config_hash="c", app_version="1", feedback_topics=named
    )
    columns = decode(records_from_lines(lines(), 0), layout)
    collector.apply("predictions", replace(columns, record_time_ms=columns.event_time_ms))
    collector.decide(Decision(1, "tick", {}, {"until_ms": EDGE_END}))
    wires = [out.value for out in collector.outbox if out.topic == TopicRole.PANES and out.value is not None]
    monitor = Monitor(0, sources=1, settings=monitor_settings(own, {}), profiles={profile.id: profile}, app_version="1")
    bodies = [decode_record(wire) for wire in wires]
    monitor.apply("panes", [PaneRecord(i, FIRST_MS, 1, body, wires[i]) for i, body in enumerate(bodies)])
    windows = [json.loads(out.value or b"") for out in monitor.outbox if out.topic == "windows"]
    return [wire for wire, body in zip(wires, bodies, strict=True) if isinstance(body, Pane)], windows


def differing(one: Any, other: Any, path: str = "") -> set[str]:
    """Names of fields that differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return set().union(*(differing(one.get(k), other.get(k), k) for k in one.keys() | other.keys()))
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return set().union(*(differing(a, b, path) for a, b in zip(one, other, strict=True)))
    return set() if one == other else {path}


def test_windows_beside_feedback_differ_in_what_the_budget_decides_alone() -> None:
    """Four fifths of one false alarm in 24 days are one in 30: with as much for the inputs, nothing differs."""
    panes, windows = run("1 per 30d", feedback=False)
    assert any("crossed" in json.dumps(window) for window in windows)
    for false_alarms, fields in (("1 per 30d", {SETTINGS, *EVIDENCE}), ("1 per 24d", {SETTINGS})):
        panes_beside, windows_beside = run(false_alarms, feedback=True)
        assert panes == panes_beside
        assert len(windows) == len(windows_beside) > 40
        assert differing(windows, windows_beside) == fields
