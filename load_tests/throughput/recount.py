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


def differences(records: list[dict[str, Any]], counted: dict[int, dict[str, Any]]) -> list[str]:
    """What the windows records (segment all) say otherwise than the recount; also panes that are in no window or in two.

    A window has two records: one of the inputs, shared by the versions with one reference, one of the version's outputs.
    """
    wrong: list[str] = []
    for target in (FEATURE, CATEGORY, "prediction"):
        used: dict[int, int] = defaultdict(int)
        for window in (w for w in records if target in w["targets"]):
            start, end = (
                round(datetime.fromisoformat(window["window"][k]).timestamp() * 1000) for k in ("start", "end")
            )
            inside = [edge for edge in counted if start <= edge < end]
            for edge in inside:
                used[edge] += 1
            wrong += [
                f"{window['window']['start']} {text}"
                for text in _differences(window, target, [counted[e] for e in inside])
            ]
        wrong += [f"pane {edge}: in {used[edge]} windows of {target}" for edge in counted if used[edge] != 1]
    return wrong


def _differences(window: dict[str, Any], target: str, inside: list[dict[str, Any]]) -> list[str]:
    events, said = sum(pane["events"] for pane in inside), window["targets"][target]
    wrong = [] if events == window["events"] else [f"{window['events']} events, recounted {events}"]
    if sum(said["bins"]) != events:
        wrong.append(f"bins of {target} hold {sum(said['bins'])} of {events}")
    if target == FEATURE:
        mean = sum(pane["sum"] for pane in inside) / max(events, 1)
        if abs(said["mean"] - mean) > 1e-9 * max(1.0, abs(mean)):
            wrong.append(f"mean of {target} {said['mean']}, recounted {mean}")
    else:
        shares = sorted(_classes(inside, target))
        bins = sorted(n for n in said["bins"] if n)
        if shares != bins:
            wrong.append(f"bins of {target} {bins}, recounted {shares}")
    return wrong


def _classes(inside: list[dict[str, Any]], target: str) -> list[int]:
    """Counts of the classes that occur, in no order: the bins' labels are the reference's business."""
    if target == "prediction":
        ones, events = sum(pane["ones"] for pane in inside), sum(pane["events"] for pane in inside)
        return [n for n in (ones, events - ones) if n]
    total: dict[str, int] = defaultdict(int)
    for pane in inside:
        for name, count in pane["categories"].items():
            total[name] += count
    return list(total.values())
