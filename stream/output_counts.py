"""What an acknowledged output adds to the metrics. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import orjson

from detectors.sequential.rank_alone import Level
from stream.stage import Output
from stream.topics import TopicRole

if TYPE_CHECKING:
    from stream.metrics import Metrics
    from stream.monitor import Monitor
    from stream.performance_watch import PerformanceWatch


def count_output(metrics: Metrics, partition: int, output: Output) -> None:
    """Count one record that the broker has acknowledged. `partition` is the owner's."""
    if output.topic == TopicRole.DEAD_LETTERS:  # as many as events, at worst; the collector counts them
        return
    model = (output.key or b"").decode("utf-8", "replace")
    if output.topic == TopicRole.WINDOWS:
        metrics.add("windows_total", model=model)
    elif output.topic == TopicRole.PERFORMANCE:
        metrics.add("performance_records_total", model=model)
    elif output.topic == TopicRole.PANES:
        metrics.add("markers_total" if output.barrier else "panes_total", partition=partition)
    elif output.topic == TopicRole.ALERTS:
        event = orjson.loads(output.value or b"{}")
        model = str(event.get("data", {}).get("model", ""))  # none where the job is meant
        # type: io.driftline.alert.<transition>.v1
        transition = str(event.get("type", "")).rpartition(".v")[0].rpartition(".")[2]
        metrics.add("alerts_total", model=model, kind=event.get("data", {}).get("kind", ""), transition=transition)


def count_performance(metrics: Metrics, monitor: Monitor) -> None:
    """Copy what the monitor could not report of its models' performance, and how their series stand."""
    for name, model in monitor.models.items():
        if model.performance.series:
            metrics.set("performance_windows_dropped_total", model.performance.windows_dropped, model=name)
            metrics.set("performance_rows_dropped_total", model.performance.rows_dropped, model=name)
        if model.performance.watch is not None:
            _count_watch(metrics, name, model.performance.watch)


def _count_watch(metrics: Metrics, model: str, watch: PerformanceWatch) -> None:
    metrics.set("performance_open_incidents", len(watch.book.open), model=model)
    if not watch.names:
        return
    cells = [cell for own in watch.followed.values() for cell in own.cells.values()]
    levels = Counter(cell.level for cell in cells)
    for level in Level:
        metrics.set("performance_series", levels[level], model=model, state=level.value)
    metrics.set("performance_windows_given_up_total", watch.given_up, model=model)
    not_followed = max((own.not_followed for own in watch.followed.values()), default=0)
    metrics.set("performance_versions_not_followed", not_followed, model=model)
