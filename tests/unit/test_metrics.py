from __future__ import annotations

import http.client

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stream.metrics import LABEL_VALUES_MAX, METRICS, OTHER_LABEL, Endpoint, Metrics, clean_label


def scrape(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_every_metric_is_named_once_by_the_rules():
    names = [spec.name for spec in METRICS]
    assert len(names) == len(set(names))
    for spec in METRICS:
        assert spec.name.startswith("driftline_")
        assert (spec.kind == "counter") == spec.name.endswith("_total")
        assert spec.meaning


def test_set_add_and_scrape():
    metrics = Metrics()
    metrics.set("applied_events_total", 7, partition=3)
    metrics.set("applied_events_total", 5, partition=3)  # a restored state shows its own, smaller number
    metrics.add("rebalances_total")
    metrics.add("rebalances_total")
    metrics.raise_to("step_seconds_max", 0.2, stage="collector")
    metrics.raise_to("step_seconds_max", 0.1, stage="collector")
    seen = scrape(metrics)
    assert seen[("driftline_applied_events_total", (("partition", "3"),))] == 5
    assert seen[("driftline_rebalances_total", ())] == 2
    assert seen[("driftline_step_seconds_max", (("stage", "collector"),))] == 0.2


def test_unknown_names_and_labels_are_errors():
    metrics = Metrics()
    with pytest.raises(KeyError):
        metrics.add("no_such_total")
    with pytest.raises(KeyError):
        metrics.add("rebalances_total", partition=1)


def test_hostile_label_values_do_not_break_the_scrape():
    metrics = Metrics()
    metrics.add("windows_total", model='a\ud800"\n\\')
    assert any(name == "driftline_windows_total" for name, _ in scrape(metrics))
    assert clean_label("x" * 10_000) == "x" * 200
    assert clean_label("a\x1b[31m\nb") == "a\\x1b[31m\\x0ab"


def test_labels_are_capped_and_the_rest_is_counted():
    metrics = Metrics()
    cap = LABEL_VALUES_MAX["model"]
    for i in range(cap + 3):
        metrics.add("windows_total", model=f"m{i}")
    seen = scrape(metrics)
    assert seen[("driftline_windows_total", (("model", OTHER_LABEL),))] == 3
    assert seen[("driftline_label_overflow_total", (("label", "model"),))] == 3


def test_forget_drops_a_partition():
    metrics = Metrics()
    for partition in (1, 2):
        metrics.set("late_events_total", 1, partition=partition)
        metrics.set("position", 1, stage="collector", partition=partition)
        metrics.set("position", 1, stage="monitor", partition=partition)
    metrics.forget(stage="collector", partition=1)
    assert metrics.get("position", stage="collector", partition=1) is None
    assert metrics.get("position", stage="monitor", partition=1) == 1
    assert metrics.get("position", stage="collector", partition=2) == 1


def test_endpoint_serves_probes_and_metrics_on_loopback_only():
    metrics = Metrics()
    state = {"ready": False}
    endpoint = Endpoint(
        metrics, 0, live=lambda: (True, "live"), ready=lambda: (state["ready"], "restoring partitions 1, 2")
    )
    endpoint.start()
    try:
        assert endpoint._server.server_address[0] == "127.0.0.1"

        def get(path: str) -> tuple[int, str]:
            connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=5)
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read().decode()
            connection.close()
            return response.status, body

        assert get("/live") == (200, "live\n")
        assert get("/ready") == (503, "restoring partitions 1, 2\n")
        state["ready"] = True
        assert get("/ready")[0] == 200
        metrics.add("rebalances_total")
        status, body = get("/metrics")
        assert status == 200
        assert "driftline_rebalances_total 1.0" in body
        assert get("/secrets")[0] == 404
    finally:
        endpoint.stop()
