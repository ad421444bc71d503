"""The independent recount: plain Python over the input log, no product code. Windows must say the same."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any

import orjson

from load_tests import harness
from load_tests.throughput.backlog import CATEGORICAL, NUMERIC

FEATURE = NUMERIC[1]
CATEGORY = CATEGORICAL[0]


def panes(bootstrap: str, topic: str, resolution_ms: int) -> dict[int, dict[str, Any]]:
    """Per pane edge: events, the sum of one feature, the counts of one feature's categories, the decisions for class 1."""
    out: dict[int, dict[str, Any]] = defaultdict(
        lambda: {"events": 0, "sum": 0.0, "ones": 0, "categories": defaultdict(int)}
    )
    for _, _, _, value in harness.read_topic(bootstrap, topic):
        event = orjson.loads(value or b"{}")
        time_ms = round(datetime.fromisoformat(event["timestamp"]).timestamp() * 1000)
        pane = out[time_ms // resolution_ms * resolution_ms]
        pane["events"] += 1
        pane["sum"] += event["features"][FEATURE]
        pane["ones"] += event["prediction"]
        pane["categories"][event["features"][CATEGORY]] += 1
    return out


def differences(windows: list[dict[str, Any]], counted: dict[int, dict[str, Any]]) -> list[str]:
    """What the windows (segment all) say otherwise than the recount; also panes that are in no window or in two."""
    wrong: list[str] = []
    used: dict[int, int] = defaultdict(int)
    for window in windows:
        start, end = (round(datetime.fromisoformat(window["window"][k]).timestamp() * 1000) for k in ("start", "end"))
        inside = [edge for edge in counted if start <= edge < end]
        for edge in inside:
            used[edge] += 1
        events = sum(counted[e]["events"] for e in inside)
        if events != window["events"]:
            wrong.append(f"{window['window']['start']}: {window['events']} events, recounted {events}")
        mean = sum(counted[e]["sum"] for e in inside) / max(events, 1)
        said = window["targets"][FEATURE]["mean"]
        if abs(said - mean) > 1e-9 * max(1.0, abs(mean)):
            wrong.append(f"{window['window']['start']}: mean of {FEATURE} {said}, recounted {mean}")
        for target, ones in ((CATEGORY, None), ("prediction", sum(counted[e]["ones"] for e in inside))):
            total = sum(window["targets"][target]["bins"])
            if total != events:
                wrong.append(f"{window['window']['start']}: bins of {target} hold {total} of {events}")
            if ones is not None and ones not in window["targets"][target]["bins"]:
                wrong.append(
                    f"{window['window']['start']}: {ones} decisions for 1 recounted, bins {window['targets'][target]['bins']}"
                )
    wrong += [f"pane {edge}: in {used[edge]} windows" for edge in counted if used[edge] != 1]
    return wrong
