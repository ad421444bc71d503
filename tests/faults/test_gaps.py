"""Lost input and bad input on a real broker: a window that lacks events says so, and the topic raises one alert."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

sys.path.insert(0, str(Path(__file__).parent))

from fault_bench import FaultBench

JOB = "job_alerts: {min_events: 400, every: 5s, resolve_after: 2}\n"


def delete_records(servers: str, topic: str, offsets: dict[int, int]) -> None:
    """What retention does, now."""
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=servers)) as admin:
        admin.delete_records({TopicPartition(topic, partition): offset for partition, offset in offsets.items()})


def job_alerts(bench: FaultBench) -> list[tuple[str, str]]:
    """Transition and target of every job alert, each id once, in order of time."""
    events = {body["id"]: body for body in (json.loads(r.value) for r in bench.read(f"{bench.prefix}alerts"))}
    job = [event for event in events.values() if event["data"]["kind"] == "job"]
    return [(e["type"].split(".")[2], e["data"]["target"]) for e in sorted(job, key=lambda e: e["time"])]


def clean(bench: FaultBench, n: int) -> list[tuple[int, bytes | None]]:
    """Events without a fault: n records that all count."""
    return [(p, value) for p, value in bench.events(n * 2) if value is not None and sound(value)][:n]


def sound(value: bytes) -> bool:
    with contextlib.suppress(ValueError):
        body = json.loads(value)
        return "prediction_id" in body and body["model"] == "m" and isinstance(body["features"]["amount"], float)
    return False


def test_deleted_records_make_one_incomplete_stretch_and_one_alert(kafka, prefix, tmp_path) -> None:
    """F7: DeleteRecords while nobody reads. What is lost is counted exactly, in the partition that lost it."""
    late = "job_alerts: {min_events: 400, every: 5s, resolve_after: 2, late_share: 1, dead_letter_share: 1}\n"
    bench = FaultBench(kafka.bootstrap_servers, prefix, tmp_path, settings=late)
    bench.produce(clean(bench, 8_000))
    with bench.worker() as worker:
        bench.settle(worker)
    before = bench.ends()
    bench.produce(clean(bench, 8_000))
    lost = 1_000
    delete_records(bench.servers, bench.topic, {1: before[1] + lost})
    bench.drain()
    markers = bench.markers()
    committed = bench.ends()
    for partition, marker in markers.items():
        assert marker.counters["gap"] == (lost if partition == 1 else 0)
        assert marker.counters["consumed"] + marker.counters["gap"] == committed[partition]
    windows = bench.windows()
    holed = [window for window in windows if window["incomplete"]]
    assert holed
    assert len(holed) < len(windows) / 2
    for window in holed:
        assert window["state"] == "incomplete"
        assert window["lost"] == {"events": lost, "pane_records": 0, "source_partitions": [1]}
        assert "evidence" not in window["targets"]["amount"]
    at = [windows.index(window) for window in holed]
    assert at == list(range(at[0], at[0] + len(at))), "one stretch"
    assert sum(window["events"] for window in windows) == sum(m.counters["applied"] for m in markers.values())
    assert job_alerts(bench) == [("opened", "data_loss"), ("resolved", "data_loss")]


def test_a_fifth_of_bad_messages_is_one_alert_and_is_resolved_when_they_end(kafka, prefix, tmp_path) -> None:
    """B68: the share of dead letters, with the most frequent reason; one incident while it lasts."""
    bench = FaultBench(kafka.bootstrap_servers, prefix, tmp_path, settings=JOB)
    records = clean(bench, 4_000)
    for number, (partition, value) in enumerate(clean(bench, 6_000)):
        records.append((partition, value[:30] if number % 5 == 0 and value else value))
    records += clean(bench, 10_000)
    bench.produce(records)
    bench.drain()
    assert job_alerts(bench) == [("opened", "dead_letters"), ("resolved", "dead_letters")]
    opened = next(json.loads(r.value) for r in bench.read(f"{prefix}alerts") if b'"job"' in r.value)
    assert next(iter(opened["data"]["reasons"])) == "malformed_json"
    assert opened["data"]["topic"] == bench.topic
