"""Every metric of a worker, named once with its meaning, and the loopback endpoint that serves them.

Values are stored by (name, labels) and rendered at the scrape: the accounting counters live in partition state and are
copied as they are, so a restored state shows its own numbers and not those of the process. Cost: one dictionary entry per
series; label values come from configured names, are sanitised and capped, so the endpoint stays under 20k series.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

PREFIX = "driftline_"
OTHER_LABEL = "__other__"
LABEL_LENGTH_MAX = 200
REQUEST_TIMEOUT_S = 5.0  # a client that never finishes its request holds a thread no longer

# distinct values a label may take in one process; what comes later is counted under `__other__`
LABEL_VALUES_MAX = {"model": 50, "kind": 20, "reason": 60, "partition": 2000}
LABEL_VALUES_DEFAULT_MAX = 50


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric. Counters end in _total; base units, named in the name."""

    name: str
    kind: Literal["counter", "gauge"]
    labels: tuple[str, ...]
    meaning: str


def _counter(name: str, labels: tuple[str, ...], meaning: str) -> MetricSpec:
    return MetricSpec(PREFIX + name, "counter", labels, meaning)


def _gauge(name: str, labels: tuple[str, ...], meaning: str) -> MetricSpec:
    return MetricSpec(PREFIX + name, "gauge", labels, meaning)


PART = ("partition",)
OWNER = ("stage", "partition")
FEEDBACK = ("partition", "feedback")
INPUT = ("input",)

METRICS: tuple[MetricSpec, ...] = (
    _gauge("build_info", ("version", "config_hash"), "always 1; the labels say what runs"),
    # the accounting identity: consumed = applied + dead letters + duplicates + late + tombstones
    _counter("consumed_events_total", PART, "events read from the predictions partition"),
    _counter("applied_events_total", PART, "events counted into a pane"),
    _counter("dead_letter_events_total", PART, "events sent to the dead letters"),
    _counter("duplicate_events_total", PART, "events whose prediction_id was already in the open pane"),
    _counter("late_events_total", PART, "events behind the watermark of their own log"),
    _counter("tombstone_events_total", PART, "records with a null value"),
    _counter("unknown_model_events_total", PART, "applied events of a model that the configuration does not name"),
    _counter("dead_letters_total", ("partition", "reason"), "dead letters by reason"),
    _counter("damaged_batches_total", OWNER, "tries to open a batch with a wrong checksum or unknown compression"),
    _counter("input_gap_events_total", PART, "offsets that retention took before they were read"),
    _counter("input_resets_total", OWNER, "logs that were given up for another of the same name (on_data_loss: reset)"),
    _counter("feedback_events_total", FEEDBACK, "events of clicks, conversions or labels that were decoded"),
    _counter(
        "feedback_outcomes_total",
        (*FEEDBACK, "outcome"),
        "what became of them: fields of feedback_outcomes.FeedbackCounters",
    ),
    _counter("feedback_dead_letters_total", (*FEEDBACK, "reason"), "dead letters of feedback by reason"),
    _gauge("feedback_waiting_events", FEEDBACK, "events that wait for the watermarks"),
    _gauge("feedback_lag_events", FEEDBACK, "end of the partition of a topic of feedback minus position"),
    _gauge("waiting_predictions", PART, "predictions that wait for feedback"),
    _counter("evicted_predictions_total", PART, "predictions that went before their feedback: more than may wait"),
    _counter("rekey_copied_events_total", INPUT, "records copied to a re-keyed topic, by this worker"),
    _counter(
        "rekey_repeats_total", ("partition", *INPUT), "copies that were read before and left out: in no other counter"
    ),
    _gauge("rekey_lag_events", INPUT, "records of a topic that is re-keyed that are not copied yet, by any worker"),
    _gauge(
        "rekey_held_partitions", INPUT, "its partitions of which records wait for those of the others, by record time"
    ),
    _counter("rekey_gap_events_total", INPUT, "offsets that retention took before they were copied"),
    _counter("rekey_failures_total", (), "times that copying had to begin again from its commits"),
    _gauge("position", OWNER, "next offset that the state will apply"),
    _gauge("lag_events", OWNER, "end of the partition minus position"),
    _gauge("event_time_seconds", PART, "watermark of the partition, Unix time"),
    _gauge("owned_partitions", ("stage",), "partitions that this worker owns"),
    _gauge("state_bytes", OWNER, "memory of the partition's state, as it estimates it"),
    _gauge(
        "blocked",
        OWNER,
        "1 while the broker does not take the partition's outputs: it is held back, nothing is skipped",
    ),
    _gauge("outbox_records", OWNER, "outputs held back until a decision is durable"),
    _counter("steps_total", ("stage",), "batches applied"),
    _counter("step_seconds_total", ("stage",), "time spent in applying, decoding included"),
    _gauge("step_seconds_max", ("stage",), "longest single step since the start"),
    _counter("snapshots_total", OWNER, "snapshots acknowledged by the broker"),
    _counter("snapshot_failures_total", OWNER, "snapshots that could not be completed"),
    _counter("snapshot_bytes_total", OWNER, "bytes written to the state topic"),
    _gauge("snapshot_seconds", OWNER, "duration of the last snapshot"),
    _gauge("snapshot_timestamp_seconds", OWNER, "time of the last acknowledged snapshot"),
    _counter("fenced_total", ("stage",), "snapshots refused because another worker owns the partition"),
    _counter("restores_total", ("stage",), "states restored from the state topic"),
    _gauge("restore_seconds", ("stage",), "duration of the last restore"),
    _counter("state_corruptions_total", OWNER, "damaged or foreign records of a state log that a restore passed over"),
    _gauge("loop_stall_seconds_max", (), "longest time since the start that the event loop did nothing"),
    _gauge("asyncio_tasks", (), "tasks of the event loop that are not done"),
    _counter("reloads_total", ("stage",), "states thrown away after an error and loaded again"),
    _counter("rewinds_total", ("stage",), "partitions read again because chunks did not follow each other"),
    _counter("decisions_total", ("stage", "kind"), "ticks and switches taken"),
    _counter("rebalances_total", (), "assignments received from the group coordinator"),
    _counter("windows_total", ("model",), "windows records written"),
    _counter("performance_records_total", ("model",), "performance records written"),
    _counter(
        "performance_windows_dropped_total",
        ("model",),
        "windows whose performance was never reported: more waited for feedback than performance_windows_waiting_max",
    ),
    _counter(
        "performance_rows_dropped_total",
        ("model",),
        "predictions whose feedback belonged to a window dropped so, or from before the monitor knew the windows",
    ),
    _gauge("performance_open_incidents", ("model",), "alerts on performance that are open"),
    _gauge(
        "performance_series",
        ("model", "state"),
        "series (version, segment, metric, horizon) by how their last window was taken: learning, judged, or carried into the next "
        "(too few rows, or no value)",
    ),
    _counter(
        "performance_windows_given_up_total",
        ("model",),
        "windows of a series that were carried and never judged: its rows never sufficed for a value",
    ),
    _gauge(
        "performance_versions_not_followed",
        ("model",),
        "versions in the last window that are not judged: 100 are followed already",
    ),
    _counter("alerts_total", ("model", "kind", "transition"), "alert events written"),
    _counter("panes_total", ("partition",), "pane records written"),
    _counter("markers_total", ("partition",), "markers written"),
    _counter("label_overflow_total", ("label",), "values counted under __other__ because the label was full"),
)
BY_NAME = {spec.name: spec for spec in METRICS}


def clean_label(value: object) -> str:
    """Text that an exposition can carry: a lone surrogate would make the whole scrape fail; control characters escape."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[:LABEL_LENGTH_MAX])
    return shown[:LABEL_LENGTH_MAX]


class Metrics:
    """The values of one worker. Thread-safe; unknown names and wrong labels are errors at the call."""

    def __init__(self) -> None:
        self._values: dict[str, dict[tuple[str, ...], float]] = {spec.name: {} for spec in METRICS}
        self._seen: dict[str, set[str]] = {}
        self._lock = threading.Lock()
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)  # a collector is anything with collect()

    def set(self, name: str, value: float, /, **labels: object) -> None:
        with self._lock:
            self._series(name)[self._key(name, labels)] = float(value)

    def add(self, name: str, amount: float = 1, /, **labels: object) -> None:
        with self._lock:
            series, key = self._series(name), self._key(name, labels)
            series[key] = series.get(key, 0.0) + amount

    def raise_to(self, name: str, value: float, /, **labels: object) -> None:
        """Keep the largest value."""
        with self._lock:
            series, key = self._series(name), self._key(name, labels)
            series[key] = max(series.get(key, value), value)

    def forget(self, **labels: object) -> None:
        """Drop every series with these labels: a partition that this worker owns no more is another's to report."""
        with self._lock:
            for spec in METRICS:
                if set(labels) <= set(spec.labels):
                    places = [(spec.labels.index(name), clean_label(value)) for name, value in labels.items()]
                    series = self._values[spec.name]
                    for key in [key for key in series if all(key[at] == value for at, value in places)]:
                        del series[key]

    def get(self, name: str, /, **labels: object) -> float | None:
        with self._lock:
            return self._series(name).get(self._key(name, labels))

    def total(self, name: str) -> float:
        with self._lock:
            return sum(self._series(name).values())

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            snapshot = {name: dict(series) for name, series in self._values.items()}
        for spec in METRICS:
            family: Any = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
            metric = family(spec.name, spec.meaning, labels=spec.labels)
            for key, value in snapshot[spec.name].items():
                metric.add_metric(key, value)
            yield metric

    def exposition(self) -> bytes:
        return generate_latest(self.registry)

    def _series(self, name: str) -> dict[tuple[str, ...], float]:
        return self._values[PREFIX + name]

    def _key(self, name: str, labels: dict[str, object]) -> tuple[str, ...]:
        expected = BY_NAME[PREFIX + name].labels
        if set(labels) != set(expected):
            raise KeyError(f"{name} has labels {expected}, not {tuple(labels)}")
        return tuple(self._capped(label, clean_label(labels[label])) for label in expected)

    def _capped(self, label: str, value: str) -> str:
        seen = self._seen.setdefault(label, set())
        if value in seen:
            return value
        if len(seen) >= LABEL_VALUES_MAX.get(label, LABEL_VALUES_DEFAULT_MAX):
            overflow = self._series("label_overflow_total")
            overflow[(label,)] = overflow.get((label,), 0.0) + 1
            return OTHER_LABEL
        seen.add(value)
        return value


Answer = Callable[[], tuple[bool, str]]


class Endpoint:
    """GET /metrics /live /ready on loopback, in a daemon thread. Port 0 = a free one; `port` says which.

    A probe answers 200 or 503 with one line that says why.
    """

    def __init__(self, metrics: Metrics, port: int, *, live: Answer, ready: Answer, host: str = "127.0.0.1") -> None:
        handler = _handler(metrics, {"/live": live, "/ready": ready})
        self._server = ThreadingHTTPServer((host, port), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(metrics: Metrics, probes: dict[str, Answer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_TIMEOUT_S
        server_version = "driftline"
        sys_version = ""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._send(200, CONTENT_TYPE_LATEST, metrics.exposition())
            elif path in probes:
                good, why = probes[path]()
                self._send(200 if good else 503, "text/plain; charset=utf-8", f"{why}\n".encode())
            else:
                self._send(404, "text/plain; charset=utf-8", b"/metrics /live /ready\n")

        def _send(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Scrapes are not news."""

    return Handler


def metrics_table() -> Iterable[tuple[str, str, str, str]]:
    """Rows for the documentation: name, kind, labels, meaning."""
    return ((spec.name, spec.kind, ", ".join(spec.labels), spec.meaning) for spec in METRICS)
