"""Dead letters: every reason in one place, and the record that carries one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from stream.columns import Reject
from stream.limits import (
    DEAD_LETTER_BYTES_MAX,
    DEAD_LETTER_CUT_BYTES,
    DEAD_LETTER_KEY_BYTES_MAX,
    DETAIL_BYTES_MAX,
    EVENT_BYTES_MAX,
)
from stream.original_headers import NONE, Header
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
    "too_large": "longer than event_bytes_max, or a batch that unpacks to more than batch_bytes_max",
    "damaged_batch": "a batch that could not be opened again and again (only with damaged_batches: skip)",
    "duplicate_key": "a key on the way to the id, model, version or time stands twice (only with strict_duplicate_keys)",
    "missing_field": "the event has no prediction_id, model, timestamp or features; feedback: no value",
    "bad_id": "the prediction_id is null, empty, too long, a bool, an array or an object",
    "bad_name": "the model's or version's name is empty or longer than name_bytes_max",
    "unknown_model": "the configuration does not name the model (only with unknown_models: dlq)",
    "type": "a field of the envelope, the prediction or a score has the wrong JSON type",
    "non_finite": "NaN or Infinity as id, name, timestamp, prediction or score",
    "number_out_of_range": "the prediction or a score is beyond float64",
    "timestamp_unit": "the number is no time in the declared unit, or no unit is declared; the detail guesses",
    "timestamp_range": "before event_time_ms_min or not before event_time_ms_max",
    "timestamp_format": "text that is not RFC 3339 with Z or an offset",
    "future_timestamp": "more than max_future_skew ahead of the record's own time",
    "negative_value": "a conversion or label below zero where the topic's range begins at zero or above",
    "unknown_label": "a label that is no class of any model: another number, or a text where labels are numbers",
    "foreign_record": "in a re-keyed topic, and not driftline's copy of anything: somebody else wrote it there",
    "value_out_of_range": "the value of a conversion or label outside the topic's range",
}

ORIGINAL_PREFIX = "orig."
REDACTED = "[redacted]"
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def _header_text(text: str, bytes_max: int) -> bytes:
    """One line of UTF-8, cut at a character: control characters (they could forge log lines) become spaces."""
    if text.isascii() and text.isprintable():  # nearly all of them
        return text[:bytes_max].encode()
    line = "".join(ch if ch.isprintable() else " " for ch in text)
    return line.encode("utf-8", "replace")[:bytes_max].decode("utf-8", "ignore").encode()


@dataclass(frozen=True, slots=True)
class Policy:
    """What of a refused event may be written down: config.DeadLetters."""

    payload: Literal["full", "truncated", "hash"] = "full"
    redact: tuple[str, ...] = ()


def letter_writer(
    *,
    topic: str,
    partition: int,
    config_hash: str,
    app_version: str,
    policy: Policy = Policy(),
    copied_to: str = "",
) -> Callable[[Reject], Output]:
    """What makes the dead-letters record of a refused event of one partition: value, key and headers as they came, the
    reason in `dlq.` headers. 3 us a record.

    What the policy or a limit keeps back is there as sha256 and length. The same event gives the same record under the
    same policy, whoever writes it; (dlq.topic, dlq.partition, dlq.offset, dlq.row) identifies it. `copied_to`: the internal topic
    that is read in place of `topic`; what it holds of `topic` has its place there.
    """
    reasons = {code: ("dlq.reason", code.encode()) for code in REASONS}
    here = (("dlq.topic", (copied_to or topic).encode()), ("dlq.partition", str(partition).encode()))
    clocks = (("dlq.timestamp_type", b"CreateTime"), ("dlq.timestamp_type", b"LogAppendTime"))
    writer = (("dlq.app_version", app_version.encode()), ("dlq.config_hash", config_hash.encode()))
    never_retried = ("dlq.attempt", b"0")

    def write(reject: Reject) -> Output:
        offset, row, code, detail, path, key, value, timestamp_ms, carried, log_append, origin = reject
        if code not in reasons:
            raise ValueError(f"unknown dead letter reason {code!r}")
        source = here
        if origin is not None and origin[0] >= 0:
            source = (("dlq.topic", topic.encode()), ("dlq.partition", b"%d" % origin[0]))
            offset = origin[1]
        original = carried or NONE
        written, kind = payload_of(value, policy)
        part = kind == "full" and _is_part(code, value)
        if part:
            kind = "truncated"
        headers: tuple[Header, ...] = (
            reasons[code],
            ("dlq.detail", _header_text(detail, DETAIL_BYTES_MAX)),
            ("dlq.path", _header_text(path, DETAIL_BYTES_MAX)),
            *source,
            ("dlq.offset", b"%d" % offset),
            ("dlq.row", b"%d" % row),
            ("dlq.timestamp", b"%d" % timestamp_ms),
            clocks[log_append],
            *writer,
            ("dlq.attempt", b"%d" % original.attempt) if original.attempt else never_retried,
            ("dlq.payload", kind.encode()),
        )
        if kind == "full" and original is NONE and (key is None or len(key) <= DEAD_LETTER_KEY_BYTES_MAX):
            return Output(TopicRole.DEAD_LETTERS, key, written, partition, headers)
        if kind != "full" and not part:  # of the whole of it nobody knows
            headers += _fingerprint("value", value)
        kept, dropped = original.kept, original.dropped
        if kind == "hash":
            key, kept, dropped = None, (), dropped + len(kept)
        elif key is not None:
            key = key[:DEAD_LETTER_KEY_BYTES_MAX]
        if key != reject.key:
            headers += _fingerprint("key", reject.key)
        if dropped:
            headers += (("dlq.headers_dropped", b"%d" % dropped),)
        headers += tuple((f"{ORIGINAL_PREFIX}{name}", content) for name, content in kept)
        return Output(TopicRole.DEAD_LETTERS, key, written, partition, headers)

    return write


def _is_part(code: str, value: bytes | None) -> bool:
    """Whether the value is no event, but the beginning of a batch that was not opened: nothing to publish again."""
    return code == "damaged_batch" or (code == "too_large" and len(value or b"") <= EVENT_BYTES_MAX)


def _fingerprint(what: str, data: bytes | None) -> tuple[Header, Header]:
    data = data or b""
    return (
        (f"dlq.{what}_sha256", hashlib.sha256(data).hexdigest().encode()),
        (f"dlq.{what}_length", str(len(data)).encode()),
    )


def payload_of(value: bytes | None, policy: Policy) -> tuple[bytes | None, str]:
    """What is written of a value, and what that is: full, truncated, redacted or hash (nothing)."""
    if policy.payload == "hash":
        return None, "hash"
    if value is None:
        return None, "full"
    kind = "full"
    if policy.redact:
        cleared = redacted(value, policy.redact)
        if cleared is None:
            return None, "hash"
        value, kind = cleared, "redacted"
    longest = DEAD_LETTER_BYTES_MAX if policy.payload == "full" else DEAD_LETTER_CUT_BYTES
    if len(value) > longest:
        return value[:longest], "truncated" if kind == "full" else kind
    return value, kind


def redacted(value: bytes, pointers: Sequence[str]) -> bytes | None:
    """The JSON object without what the pointers (RFC 6901) name, written anew: of a key that stands twice the last is left.

    None for anything but a JSON object of at most event_bytes_max: what is where in it cannot be known.
    """
    if len(value) > EVENT_BYTES_MAX:
        return None
    try:
        document = orjson.loads(value)
        if not isinstance(document, dict):
            return None
        for pointer in pointers:
            _redact(document, [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]])
        return orjson.dumps(document)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None


def _redact(document: Any, parts: Sequence[str]) -> None:
    for part in parts[:-1]:
        document = _child(document, part)
    last = parts[-1]
    if isinstance(document, dict) and last in document:
        document[last] = REDACTED
    elif isinstance(document, list) and _INDEX.fullmatch(last) and int(last) < len(document):
        document[int(last)] = REDACTED


def _child(document: Any, part: str) -> Any:
    if isinstance(document, dict):
        return document.get(part)
    if isinstance(document, list) and _INDEX.fullmatch(part) and int(part) < len(document):
        return document[int(part)]
    return None
