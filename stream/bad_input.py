"""What can come in wrong, and what becomes of it: the README's table, and the list that the tests are held to.

A row's number is its name in test ids (`B17-...`, `test_b17_...`); tests/unit/test_bad_input_rows.py fails for a row without
a test. A row of `NOT_APPLICABLE` speaks of something that driftline does not have.
"""

from __future__ import annotations

ROWS: dict[int, tuple[str, str]] = {
    1: ("truncated or malformed JSON", "dead letter `malformed_json`, with the byte"),
    2: ("no bytes", "dead letter `empty_value`"),
    3: ("white space only", "dead letter `empty_value`"),
    4: ("null value", "tombstone, counted; of feedback: retracts what was said of the id that is its key"),
    5: ("`null`, `3`, `true`, `[…]` as the whole event", "dead letter `not_an_object`"),
    6: ("two events in one record", "dead letter `trailing_data`"),
    7: ("trailing comma, comment, single quotes, hex, `+1`, `01`", "dead letter `malformed_json`"),
    8: ("NaN, Infinity", "feature: invalid. Id, name, time, prediction, score: dead letter `non_finite`"),
    9: ('"NaN", "inf", "" for a number', "feature: invalid. Score: dead letter `type`"),
    10: ("`1e400`", "feature: invalid. Prediction, score: dead letter `number_out_of_range`"),
    11: ("many values of 1e308", "counted; no figure that is published is infinite or NaN, it is left out"),
    12: ("`1e-400`, `-0.0`, subnormal numbers", "counted; -0.0 is 0.0, as a category too"),
    13: ("2^53 + 1", "id: every digit counts. Feature: the nearest float64"),
    14: ("2^64, 10^30", "id: every digit counts. Feature: the nearest float64"),
    15: (
        "an integer of 5,000 or 10 million digits",
        "feature: invalid. Id: `bad_id`. Above event_bytes_max: `too_large`",
    ),
    16: ("a fraction of 5,000 digits", "counted"),
    17: ("nesting deeper than depth_max", "dead letter `too_deep`"),
    18: (
        "a key twice",
        "the last counts; with `mapping.strict_duplicate_keys` in an envelope: dead letter `duplicate_key`",
    ),
    19: ("`__proto__`, `{0.__class__}` as names", "names like others"),
    20: (
        "names that differ by case, accents' spelling, blanks, invisible characters",
        "different names; `driftline explain` warns",
    ),
    21: ("half a surrogate pair", "dead letter `invalid_unicode`"),
    22: ("not UTF-8", "dead letter `invalid_utf8`"),
    23: ("byte order mark; UTF-16, UTF-32", "dead letter `bom`; `encoding`"),
    24: ("control characters in names and texts", "data; escaped in logs, headers, labels and on the terminal"),
    25: ("right-to-left marks, emoji, piles of accents", "data"),
    26: ("markup, templates, format strings", "data: nothing evaluates it"),
    27: ("chat markup in names", ""),
    28: ("formulas for spreadsheets", ""),
    29: ("hostile metric labels", "escaped, cut at 200 characters"),
    30: ("a very long text", "a category by its hash; above event_bytes_max: `too_large`"),
    31: (
        "a record above event_bytes_max; a batch that unpacks to more than batch_bytes_max",
        "dead letter `too_large`, cut. The batch is never unpacked further and counts as one event: one dead letter for its offsets",
    ),
    32: ("compressed data inside a field", ""),
    33: (
        "a batch with a wrong checksum or an unknown compression",
        "its partition waits and tries again; with `damaged_batches: skip`, after some tries, a dead letter `damaged_batch`",
    ),
    34: ("schema registry framing", "dead letter `looks_like_confluent`"),
    35: ("gzip, zstd, pickle, HTML, text", "dead letter `malformed_json` that says which; never unpickled"),
    36: ("Avro of any kind", ""),
    37: ("no prediction_id, model, timestamp or features", "dead letter `missing_field`"),
    38: ("id null, empty, bool, object, too long", "dead letter `bad_id`; a number counts as its text"),
    39: (
        "one id, two contents",
        "the first in the log counts, the other is a duplicate like any: contents are not compared",
    ),
    40: (
        "unknown model; unknown version",
        "counted under `__unknown__`, or `unknown_models: dlq`; a version is followed",
    ),
    41: ("a million models, versions, segment values", "`__unknown__`, `__other__`: caps, counted"),
    42: (
        "thousands of features, or a new one per event",
        "what is not configured or in the reference is not read; an alert names what is new, eight by name and one for the rest",
    ),
    43: (
        "a feature renamed, null, of changing type",
        "missing and invalid are counted apart from the bins; an alert says what is lost, new or of another type",
    ),
    44: (
        '"1.0", "1,5", "١٢", "1_000", true for a number',
        "feature: invalid; `coerce: true` takes texts that are JSON numbers",
    ),
    45: (
        "array or object for a scalar; an embedding of another length, or with null in it",
        "feature: invalid. Prediction, score: dead letter `type`",
    ),
    46: ("a batch of rows in one event", ""),
    47: (
        "score 1.0000001, -1e-9, 42; a vector",
        "outside `range`: counted as out of range. A vector: dead letter `type`",
    ),
    48: (
        "labels outside the classes, of unknown ids, null, missing",
        "dead letter `unknown_label`; counted as orphan; retracts; dead letter `missing_field`",
    ),
    49: (
        "a class never seen, a constant feature, an empty reference",
        "finite figures, or a named error when the reference is built",
    ),
    50: ("a time in another unit", "dead letter `timestamp_unit`, with a guess; nothing is converted by guess"),
    51: ("times before 1980 or from 2200 on", "dead letter `timestamp_range`"),
    52: ("no zone, 24:00, week dates, other formats", "dead letter `timestamp_format`; a leap second is :59.999"),
    53: ("an hour ahead; a year old", "dead letter `future_timestamp`; late"),
    54: (
        "a record without a time of its own (-1)",
        "dead letter: `future_timestamp`, or `timestamp_range` with `timestamp: $record`. Falling record times are no matter",
    ),
    55: (
        "no key, a wrong one, not UTF-8, a megabyte",
        "keys are not read, but of feedback without a value: feedback in another partition than its prediction is counted as orphan",
    ),
    56: ("a thousand headers, twice, null, malformed", "not read; a dead letter carries some of them"),
    57: ("CloudEvents", ""),
    58: ("control batches, aborted transactions", "never seen"),
    59: ("forged alerts", ""),
    60: ("driftline's own topic as input", "refused before the start"),
    61: ("a pattern as the input's name", "refused before the start: a topic has one name"),
    62: ("holes between offsets", "no loss"),
    63: ("exactly on a pane's edge; behind it", "the later pane; late"),
    64: (
        "amounts below zero, of 1e18, with a currency",
        "outside the topic's `range`: dead letter `negative_value`, `value_out_of_range`. A text: `type`. 0 is an amount",
    ),
    65: (
        "a thousand clicks for one impression; amounts in another unit",
        "one click counts, the others are counted as duplicates; amounts add up within the `range`",
    ),
    66: (
        "a million distinct texts; feedback of a million unknown ids",
        "a register sketch and the reference's categories: memory stays. Counted as orphans, and forgotten",
    ),
    67: ("the same bytes with a byte order mark", "dead letter `bom`; duplicates are judged by prediction_id alone"),
    68: ("a stream of nothing but bad events", "`python -m load_tests.bad_input`"),
    69: ("personal data in refused events", "`dead_letters: {payload, redact}`"),
    70: ("a million keys", "dead letter `too_many_keys`"),
    71: (
        "text that makes patterns backtrack",
        "no pattern that could read event data has a nested or second unbounded repeat",
    ),
    72: ("YAML traps", "one error each, with line and column; secrets are never shown"),
}
"""number -> what comes in, what becomes of it."""

NOT_APPLICABLE: dict[int, str] = {
    27: "driftline sends no chat messages; alerts are records",
    28: "driftline writes no CSV",
    32: "fields are never unpacked: a text is a text",
    36: "events are JSON; what carries a schema id is row 34",
    46: "one record is one event",
    57: "events in CloudEvents' envelope need a mapping like any other shape",
    59: "nothing reads the alerts topic but its users",
}


def rows() -> list[tuple[str, str, str]]:
    """(number, what comes in, what becomes of it) for the documentation."""
    return [
        (f"B{number}", what, outcome or f"(does not apply: {NOT_APPLICABLE[number]})")
        for number, (what, outcome) in ROWS.items()
    ]
