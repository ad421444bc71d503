from __future__ import annotations

import cloudevents.core.v1.event
import jsonschema
import orjson
import pytest
from pydantic import ValidationError

from stream.columns import Reject
from stream.deadletter import REASONS, letter_writer
from stream.decode import NATIVE, Layout, decode, records_from_lines
from stream.events import AlertEvent, DeadLetterHeaders, PredictionEvent, json_schemas
from stream.limits import LIMITS, limit

PREDICTION = {
    "prediction_id": "7f3c",
    "model": "fraud",
    "version": "2026-11-20",
    "timestamp": "2026-11-22T10:15:03.120Z",
    "features": {"amount": 129.5, "country": "DE", "age_days": None},
    "prediction": 1,
    "score": 0.83,
    "segments": {"country": "DE"},
    "latency_ms": 12.4,
}
SUMMARY = {"mean": 88.1, "p50": 41.0, "p99": 640.0, "missing": 0.001}
ALERT = {
    "specversion": "1.0",
    "type": "driftline.alert.opened.v1",
    "source": "driftline/fraud",
    "id": "9d41",
    "time": "2026-11-22T10:20:00Z",
    "subject": "feature_drift/amount",
    "datacontenttype": "application/json",
    "data": {
        "incident": "51ac",
        "kind": "feature_drift",
        "severity": "warning",
        "model": "fraud",
        "versions": ["2026-11-20"],
        "segment": "all",
        "target": "amount",
        "summary": "amount moved up by about 0.6 reference standard deviations since 10:05",
        "since": "2026-11-22T10:05:00Z",
        "onset": "sudden",
        "historical": False,
        "evidence": {
            "statistic": 1.9e7,
            "threshold": 4.3e6,
            "false_alarms": "1 per 30d",
            "promise": "windows exchangeable",
            "tolerance": 0.05,
        },
        "effect": {"shift": 0.61, "unit": "reference standard deviations", "reference": SUMMARY, "now": SUMMARY},
        "largest_changes": [{"bin": "200 to 350", "reference": 0.04, "now": 0.11}],
        "consequence": {"verdict": "unknown", "why": "no labels yet"},
        "window": {"start": "2026-11-22T10:15:00Z", "end": "2026-11-22T10:20:00Z", "events": 1704},
        "owner": "payments-ml",
        "runbook": "https://wiki/fraud-model",
        "reference": "sha256:03fe",
        "detection": "b71c",
    },
}


@pytest.mark.parametrize(("name", "example"), [("prediction", PREDICTION), ("alert", ALERT)])
def test_schemas_accept_the_documented_examples(name: str, example: dict) -> None:
    schema = json_schemas()[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(example, schema)


def test_models_accept_the_documented_examples_unchanged() -> None:
    assert AlertEvent.model_validate(ALERT).model_dump(exclude_none=True) == ALERT
    assert PredictionEvent.model_validate(PREDICTION).model_dump(exclude_unset=True) == PREDICTION


def test_an_alert_is_a_cloud_event() -> None:
    attributes = {key: value for key, value in ALERT.items() if key not in {"data", "time"}}
    assert cloudevents.core.v1.event.CloudEvent(attributes, ALERT["data"]).get_type() == ALERT["type"]


@pytest.mark.parametrize("field", ["prediction_id", "model", "timestamp", "features"])
def test_schema_and_decoder_refuse_the_same_missing_field(field: str) -> None:
    event = {key: value for key, value in PREDICTION.items() if key != field}
    with pytest.raises(ValidationError):
        PredictionEvent.model_validate(event)
    layout = Layout.compile(NATIVE, ["fraud"], ["features.amount"])
    (reject,) = decode(records_from_lines([orjson.dumps(event)]), layout).rejects
    assert (reject.code, reject.path) == ("missing_field", f"/{field}")


@pytest.mark.parametrize(
    ("field", "value"),
    [("type", "drift"), ("source", "fraud"), ("specversion", "0.3"), ("time", "2026-11-22"), ("subject", "amount")],
)
def test_an_alert_with_a_wrong_envelope_is_refused(field: str, value: str) -> None:
    with pytest.raises(ValidationError):
        AlertEvent.model_validate(ALERT | {field: value})


def rejected(**changes) -> Reject:
    fields = {
        "offset": 17,
        "row": 0,
        "code": "timestamp_unit",
        "detail": "the timestamp looks like milliseconds; the mapping says seconds",
        "path": "/timestamp",
        "key": b"\xffkey",
        "value": b'{"a":1}',
        "timestamp_ms": 1_763_806_503_120,
    }
    return Reject(**(fields | changes))


def output_of(reject: Reject):
    return letter_writer(topic="fraud.scored", partition=3, config_hash="c0ffee", app_version="0.1.0")(reject)


def test_a_dead_letter_is_the_original_with_the_reason_in_headers() -> None:
    output = output_of(rejected())
    assert (output.topic, output.partition, output.key, output.value) == ("dead-letters", 3, b"\xffkey", b'{"a":1}')
    headers = {name: value.decode() for name, value in output.headers}
    parsed = DeadLetterHeaders.model_validate(headers)
    assert (parsed.reason, parsed.path, parsed.topic, parsed.offset, parsed.row) == (
        "timestamp_unit",
        "/timestamp",
        "fraud.scored",
        "17",
        "0",
    )
    jsonschema.validate(headers, json_schemas()["dead-letter-headers"])
    assert output == output_of(rejected())


def test_a_large_value_is_cut_and_named() -> None:
    output = output_of(rejected(code="too_large", value=b"x" * 2_000_000))
    headers = dict(output.headers)
    assert len(output.value or b"") == 64 << 10
    assert headers["dlq.value_length"] == b"2000000"
    assert len(headers["dlq.value_sha256"]) == 64
    assert "dlq.value_length" not in dict(output_of(rejected(value=b"x" * (64 << 10))).headers)


def test_details_are_one_line_and_bounded() -> None:
    headers = dict(output_of(rejected(detail="a\n\x1b[31mb" + "é" * 2000, path="/x\r\ny")).headers)
    assert headers["dlq.detail"].startswith(b"a  [31mb")
    assert len(headers["dlq.detail"]) <= 1024
    headers["dlq.detail"].decode()
    assert headers["dlq.path"] == b"/x  y"


def test_an_unknown_reason_is_a_bug() -> None:
    with pytest.raises(ValueError, match="unknown dead letter reason"):
        output_of(rejected(code="whatever"))
    assert all(REASONS.values())


def test_limits_are_declared_once_with_a_reason() -> None:
    assert all(row.why and row.name == name for name, row in LIMITS.items())
    with pytest.raises(ValueError, match="declared twice"):
        limit("depth_max", 1, "again")
