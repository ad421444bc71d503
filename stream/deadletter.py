"""Dead letters: every reason in one place, and the record that carries one."""

from __future__ import annotations

import hashlib

from stream.columns import Reject
from stream.limits import DEAD_LETTER_BYTES_MAX, DETAIL_BYTES_MAX
from stream.stage import Output
from stream.topics import TopicRole

REASONS: dict[str, str] = {
    "malformed_json": "not JSON (RFC 8259); the detail says where, and what it looks like instead",
    "trailing_data": "something follows the JSON object: several events in one record, or a cut and joined one",
    "empty_value": "no bytes, or white space only (a null value is a tombstone, not a dead letter)",
    "not_an_object": "JSON, but no object",
    "invalid_utf8": "not UTF-8",
    "invalid_unicode": "a \\u escape names half a surrogate pair",
    "bom": "starts with a UTF-8 byte order mark, which JSON forbids its writers",
    "encoding": "UTF-16 or UTF-32; JSON between systems is UTF-8",
    "looks_like_confluent": "starts with the schema registry's magic byte: Avro, Protobuf or JSON Schema framing",
    "too_deep": "nested deeper than depth_max",
    "too_many_keys": "more keys than keys_max",
    "too_large": "longer than event_bytes_max",
    "missing_field": "the event has no prediction_id, model, timestamp or features",
    "bad_id": "the prediction_id is null, empty, too long, a bool, an array or an object",
    "bad_name": "the model's or version's name is empty or longer than name_bytes_max",
    "type": "a field of the envelope, the prediction or a score has the wrong JSON type",
    "non_finite": "NaN or Infinity as id, name, timestamp, prediction or score",
    "number_out_of_range": "the prediction or a score is beyond float64",
    "timestamp_unit": "the number is no time in the declared unit, or no unit is declared; the detail guesses",
    "timestamp_range": "before event_time_ms_min or not before event_time_ms_max",
    "timestamp_format": "text that is not RFC 3339 with Z or an offset",
    "future_timestamp": "more than max_future_skew ahead of the record's own time",
}


def _header_text(text: str, bytes_max: int) -> bytes:
    """One line of UTF-8, cut at a character: control characters (they could forge log lines) become spaces."""
    line = "".join(ch if ch.isprintable() else " " for ch in text)
    return line.encode("utf-8", "replace")[:bytes_max].decode("utf-8", "ignore").encode()


def dead_letter_output(reject: Reject, *, topic: str, partition: int, config_hash: str, app_version: str) -> Output:
    """The dead-letters record of one refused event: value and key as they came, the reason in `dlq.` headers.

    A value above dead_letter_bytes_max is cut, and its sha256 and length are in the headers. The same event gives the
    same record, whoever writes it; (dlq.topic, dlq.partition, dlq.offset, dlq.row) identifies it.
    """
    if reject.code not in REASONS:
        raise ValueError(f"unknown dead letter reason {reject.code!r}")
    headers = [
        ("dlq.reason", reject.code.encode()),
        ("dlq.detail", _header_text(reject.detail, DETAIL_BYTES_MAX)),
        ("dlq.path", _header_text(reject.path, DETAIL_BYTES_MAX)),
        ("dlq.topic", topic.encode()),
        ("dlq.partition", str(partition).encode()),
        ("dlq.offset", str(reject.offset).encode()),
        ("dlq.row", str(reject.row).encode()),
        ("dlq.timestamp", str(reject.timestamp_ms).encode()),
        ("dlq.app_version", app_version.encode()),
        ("dlq.config_hash", config_hash.encode()),
        ("dlq.attempt", b"0"),
    ]
    value = reject.value
    if value is not None and len(value) > DEAD_LETTER_BYTES_MAX:
        headers.append(("dlq.value_sha256", hashlib.sha256(value).hexdigest().encode()))
        headers.append(("dlq.value_length", str(len(value)).encode()))
        value = value[:DEAD_LETTER_BYTES_MAX]
    return Output(TopicRole.DEAD_LETTERS, reject.key, value, partition, tuple(headers))
