"""Schema changes and volume through whole workers and a real Kafka."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import orjson
import pytest

_spec = spec_from_file_location("worker_bench", Path(__file__).with_name("worker_bench.py"))
bench_module = sys.modules["worker_bench"] = module_from_spec(_spec)
_spec.loader.exec_module(bench_module)

CONFIG = "models: {m: {reference: {file: train.parquet, time: timestamp}}}"
WITH_VOLUME = (
    "models: {m: {reference: {file: train.parquet, time: timestamp}, detectors: [{type: volume, threshold: 100000}]}}"
)


def features(records, change):
    """The same records with other features."""
    edited = []
    for partition, data in records:
        if data is not None and data.endswith(b"}"):
            event = json.loads(data)
            if "features" in event:
                change(event["features"])
            edited.append((partition, json.dumps(event).encode()))
    return edited


def rename(found):
    found["town"] = found.pop("country")
    found["amount"] = str(found["amount"])


@pytest.mark.kafka
def test_features_that_come_go_and_change_their_type_are_alerts(kafka, prefix, tmp_path):
    b = bench_module.Bench(kafka.bootstrap_servers, prefix, tmp_path)
    b.config_path.write_text(b.config_path.read_text().replace(CONFIG, WITH_VOLUME))
    calm = b.events(12_000)  # 30 s: six windows
    changed = features(b.events(8_000), rename)
    b.produce(calm)
    b.produce(changed)
    b.drain(400)
    alerts = [orjson.loads(record.value) for record in b.read(f"{b.prefix}alerts")]
    opened = [alert["data"] for alert in alerts if ".opened." in alert["type"] and alert["data"].get("model") == "m"]
    found = {(body["schema_change"]["change"], body["target"]) for body in opened if "schema_change" in body}
    assert found == {("new", "town"), ("lost", "country"), ("retyped", "amount")}
    assert all(body["kind"] == "data_quality" for body in opened if "schema_change" in body)
    assert not [body for body in opened if body["target"] == "volume"]  # 24,000 a minute
    assert all(20_000 < window["volume"] < 28_000 for window in b.windows()[1:-1])
