"""What a collector's join knows, copied into the metrics."""

from __future__ import annotations

from dataclasses import asdict

from stream.joining import Joining
from stream.metrics import Metrics


def count_feedback(metrics: Metrics, joining: Joining | None, partition: int) -> None:
    """Of one source partition; nothing where no feedback is configured."""
    if joining is None:
        return
    metrics.set("waiting_predictions", len(joining.join.index), partition=partition)
    metrics.set("evicted_predictions_total", joining.join.evicted, partition=partition)
    for stream, state in joining.join.streams.items():
        labels: dict[str, object] = {"partition": partition, "feedback": stream}
        metrics.set("feedback_waiting_events", state.waiting, **labels)
        counters = asdict(state.counters)
        metrics.set("feedback_events_total", counters.pop("consumed"), **labels)
        for outcome, number in counters.items():
            metrics.set("feedback_outcomes_total", number, **labels, outcome=outcome)
        for reason, number in joining.rejects[stream].items():
            metrics.set("feedback_dead_letters_total", number, **labels, reason=reason)
