"""What a collector knows, as metrics."""

from __future__ import annotations

from stream.collector import Collector
from stream.feedback_counts import count_feedback
from stream.metrics import Metrics


def count_collector(metrics: Metrics, collector: Collector, partition: int) -> None:
    """Copy the counters of one partition."""
    counters = collector.accounting()
    metrics.set("consumed_events_total", counters.consumed, partition=partition)
    metrics.set("applied_events_total", counters.applied, partition=partition)
    metrics.set("dead_letter_events_total", counters.dead_letters, partition=partition)
    metrics.set("duplicate_events_total", counters.duplicates, partition=partition)
    metrics.set("late_events_total", counters.late, partition=partition)
    metrics.set("input_gap_events_total", counters.gap, partition=partition)
    metrics.set("tombstone_events_total", counters.tombstones, partition=partition)
    metrics.set("unknown_model_events_total", counters.unknown_model, partition=partition)
    for reason, number in counters.reasons.items():
        metrics.set("dead_letters_total", number, partition=partition, reason=reason)
    for source, seen in collector.copied.items():
        metrics.set("rekey_repeats_total", seen.repeats, partition=partition, input=source)
    metrics.set("event_time_seconds", collector.watermark_ms / 1000, partition=partition)
    count_feedback(metrics, collector.joining, partition)
