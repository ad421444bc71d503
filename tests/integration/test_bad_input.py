"""Bad input through a real broker and a whole worker: one dead letter each with its reason, and nothing else is lost."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest
from aiokafka import AIOKafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from stream.admin import admin_client
from stream.panes import EDGE_END
from tests.integration.worker_bench import Bench, event

GOOD = 400
BAD: dict[str, tuple[object, str]] = {
    "truncated": (b'{"prediction_id": "x", "model": "m", "time', "malformed_json"),
    "no id": ({"prediction_id": None}, "bad_id"),
    "id left out": (lambda e: e.pop("prediction_id"), "missing_field"),
    "model left out": (lambda e: e.pop("model"), "missing_field"),
    "empty value": (b"", "empty_value"),
    "latin-1": ('{"prediction_id": "x", "model": "é"}'.encode("latin-1"), "invalid_utf8"),
    "2 MB": (lambda e: e.update(padding="x" * (2 << 20)), "too_large"),
    "milliseconds where text or a declared unit is expected": ({"timestamp": 1_763_806_503_120}, "timestamp_unit"),
    "an hour ahead": (lambda e: e.update(timestamp="2190-01-01T00:00:00Z"), "future_timestamp"),
    "an array": (b"[1]", "not_an_object"),
}
COSTS_ONLY_THE_FEATURE = (
    b'{"amount": NaN, "country": "de"}',
    b'{"amount": -Infinity, "country": "de"}',
    b'{"amount": 1e400, "country": "de"}',
    b'{"amount": "much", "country": "de"}',
    b'{"amount": true, "country": ["de"]}',
    b'{"country": "de"}',
    b'{"amount": null, "country": "de"}',
    b'{"amount": {"value": 3}, "country": null}',
)


def spoilt(bench: Bench, how: object) -> bytes:
    if isinstance(how, bytes):
        return how
    bench.number += 1
    value = event(bench.number, bench.clock_ms, bench.r)
    if callable(how):
        how(value)
    else:
        value |= how  # type: ignore[arg-type]
    return json.dumps(value).encode()


def large_records(bench: Bench) -> None:
    wanted = ConfigResource(ConfigResourceType.TOPIC, bench.topic, {"max.message.bytes": str(4 << 20)})
    with admin_client(bench.config.kafka) as admin:
        admin.alter_configs([wanted])


async def produce(bench: Bench, values: list[bytes | None]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bench.servers, max_request_size=4 << 20)
    await producer.start()
    for value in values:
        await producer.send_and_wait(bench.topic, value, key=b"key", partition=0)
    await producer.stop()


@pytest.mark.kafka
def test_each_bad_record_is_one_dead_letter_with_its_reason_and_costs_nothing_else(kafka, prefix, tmp_path):
    bench = Bench(kafka.bootstrap_servers, prefix, tmp_path, partitions=1)
    large_records(bench)
    values: list[bytes | None] = []
    for i in range(GOOD):
        bench.number, bench.clock_ms = bench.number + 1, bench.clock_ms + 25
        values.append(json.dumps(event(bench.number, bench.clock_ms, bench.r)).encode())
        if i == GOOD // 2:
            values += [spoilt(bench, how) for how, _ in BAD.values()]
            values += [None, spoilt(bench, {"model": "nobody"})]
            for features in COSTS_ONLY_THE_FEATURE:
                values.append(spoilt(bench, {"features": 0}).replace(b'"features": 0', b'"features": ' + features))
    asyncio.run(produce(bench, values))
    bench.drain()

    letters = bench.read(f"{prefix}dead-letters")
    reasons = Counter(dict(record.headers)["dlq.reason"].decode() for record in letters)
    assert reasons == Counter(reason for _, reason in BAD.values())
    assert len({dict(record.headers)["dlq.offset"] for record in letters}) == len(BAD)

    marker = bench.markers()[0]
    assert marker.edge_ms == EDGE_END
    told = marker.counters
    assert told["consumed"] == len(values)
    assert told["dead_letters"] == len(BAD)
    assert told["tombstones"] == 1
    assert told["unknown_model"] == 1
    assert told["applied"] == GOOD + 1 + len(COSTS_ONLY_THE_FEATURE)

    windows = bench.windows()
    events = sum(window["events"] for window in windows)
    assert events == GOOD + len(COSTS_ONLY_THE_FEATURE)

    def total(target: str, rate: str) -> int:
        return round(sum(window["targets"][target][rate] * window["events"] for window in windows))

    assert total("amount", "invalid") == 6
    assert total("amount", "missing") == 2
    assert total("country", "invalid") == 1
    assert total("country", "missing") == 1
