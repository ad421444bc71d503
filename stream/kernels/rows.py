# ruff: noqa: PLR0917, SIM110 - compiled: arguments are arrays, comparisons are machine code
"""The fast tier over a chunk: scan every record, judge its envelope, fill its row; refused rows are left to the strict tier."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from detectors.memory import address_of
from detectors.xxh3 import LENGTH_MAX, hash64, hash96
from stream.columns import I32, I64, U8, U32, U64
from stream.kernels.jit import kernel
from stream.kernels.number import read_decimal
from stream.kernels.scan import KIND, NUMBER, SEEN, START, STOP, TEXT, WHOLE, scan_event
from stream.kernels.timestamp import decimal_time, in_range, read_rfc3339
from stream.limits import EVENT_BYTES_MAX

# envelope fields: rows of the tokens, and bits of a node's role
PREDICTION_ID, MODEL, VERSION, TIMESTAMP, FIELDS = range(5)
# settings, one int64 each: constants of the mapping
MODEL_CONSTANT, VERSION_CONSTANT, RECORD_TIME, UNIT_EXPONENT, FEATURES_NODE, ID_NODE, MODEL_OPTIONAL, SETTINGS = range(
    8
)
FROM_EVENT = -2  # MODEL_CONSTANT: the model stands in the event
ID_SEEN, FEATURES_SEEN = 16, 32  # bits of a state, where the event is WHOLE
NO_UNIT = 99  # UNIT_EXPONENT: numbers are refused
VERSION_SLOTS = 64
SCRATCH_BYTES = LENGTH_MAX + 16  # an unescaped text, its quote, and what eight-byte loads may touch


@kernel
def find_model(name: Any, models: U64) -> Any:
    for index in range(len(models)):
        if models[index] == name:
            return index
    return -1


@kernel
def event_time(token: I64, record_time_ms: int, settings: I64) -> Any:
    """Milliseconds, or -1 = refused."""
    if settings[RECORD_TIME]:
        return record_time_ms if in_range(record_time_ms) else -1
    start, stop = token[TIMESTAMP, START], token[TIMESTAMP, STOP]
    if token[TIMESTAMP, KIND] == TEXT:
        return read_rfc3339(start, stop)
    if token[TIMESTAMP, KIND] != NUMBER or settings[UNIT_EXPONENT] == NO_UNIT:
        return -1
    place, mantissa, exponent, negative = read_decimal(start, stop)
    if place < 0 or negative:
        return -1
    return decimal_time(mantissa, exponent + settings[UNIT_EXPONENT])


@kernel
def name_hash(token: I64, field: int) -> Any:
    """(known, xxh3-64) of a name; absent and empty give 0."""
    if token[field, KIND] == 0:
        return True, np.uint64(0)
    length = token[field, STOP] - token[field, START]
    if length > LENGTH_MAX:
        return False, np.uint64(0)
    if length == 0:
        return True, np.uint64(0)
    return True, hash64(token[field, START], length)


@kernel
def good_outputs(tag: U8, record: int, outputs: I64) -> Any:
    """Every prediction and score has a tag that it may have: outputs I64[k, 2] = column, bits of allowed tags."""
    for index in range(len(outputs)):
        if not (outputs[index, 1] >> np.int64(tag[record, outputs[index, 0]])) & 1:
            return False
    return True


@kernel
def copy_columns(cell: U64, tag: U8, record: int, copies: I64) -> Any:
    for index in range(len(copies)):
        column, source = copies[index, 0], copies[index, 1]
        cell[record, column], tag[record, column] = cell[record, source], tag[record, source]


class ScanTables(NamedTuple):
    """A layout for the scan. m nodes of the tree of wanted keys, c columns.

    nodes I64[m, NODE_WIDTH]; keys U8: each node's key, its quote and padding; slots I64: open addressing, node or -1
    outputs I64[k, 2]: column, bits of allowed tags; copies I64[k, 2]: a column with the same path as an earlier one, that one
    models U64: hashes of the names; features_of U8, same length: the features' object must be there
    settings I64[SETTINGS]; version_constant: hash, 0 = none
    """

    nodes: I64
    keys: U8
    slots: I64
    outputs: I64
    copies: I64
    models: U64
    features_of: U8
    settings: I64
    version_constant: np.uint64


class Rows(NamedTuple):
    """n rows while they are filled, as in Columns; accepted U8[n]: 1 = the row is a whole event."""

    accepted: U8
    event_time_ms: I64
    id_high: U64
    id_low: U32
    model: I32
    version: U64
    cell: U64
    tag: U8


class Scratch(NamedTuple):
    """Memory that the scan works in. It comes from outside: a local array would be freed once its address is taken.

    stack I64[DEPTH_MAX]; text U8[SCRATCH_BYTES]
    """

    stack: I64
    text: U8


class Found(NamedTuple):
    """What the scan knows of n records, for those that it has refused.

    state U8[n]: scan.UNREAD and what follows it, with ID_SEEN and FEATURES_SEEN; place I64[n]: where it stopped, from the
    value's start on; token I64[n, FIELDS, 3]: the envelope's fields as they were found; start and stop are addresses
    """

    state: U8
    place: I64
    token: I64


@kernel
def scan_chunk(
    buffer: U8,
    value_start: I64,
    value_length: I64,
    record_time_ms: I64,
    tables: ScanTables,
    rows: Rows,
    found: Found,
    version_place: I64,
    scratch: Scratch,
) -> Any:
    """Fill the rows of n records that the scan is sure of. tables.nodes is changed (the scan's memory).

    found: zeros. version_place I64[n, 2]: start and length of texts that cover every version of the accepted rows; their number is
    returned. Addresses are taken of arguments only, which the caller keeps alive.
    """
    base, keys = address_of(buffer), address_of(tables.keys)
    nodes, slots = address_of(tables.nodes), address_of(tables.slots)
    cells, tags, columns = address_of(rows.cell), address_of(rows.tag), rows.cell.shape[1]
    settings, slot_mask = tables.settings, len(tables.slots) - 1
    stack_at, tokens_at, text_at = address_of(scratch.stack), address_of(found.token), address_of(scratch.text)
    known_version, places = np.zeros(VERSION_SLOTS, np.uint64), 0
    for record in range(len(value_length)):
        at, length = base + value_start[record], value_length[record]
        if length < 2 or length > EVENT_BYTES_MAX:
            continue
        cell, tag = cells + 8 * columns * record, tags + columns * record
        token, token_at = found.token[record], tokens_at + 24 * FIELDS * record
        state, place = scan_event(
            at, at + length, record + 1, nodes, keys, slots, slot_mask, stack_at, token_at, cell, tag, text_at
        )
        if state != WHOLE:
            found.state[record], found.place[record] = state, place - at
            continue
        copy_columns(rows.cell, rows.tag, record, tables.copies)
        if tables.nodes[settings[ID_NODE], SEEN] == record + 1:
            state |= ID_SEEN
        if tables.nodes[settings[FEATURES_NODE], SEEN] == record + 1:
            state |= FEATURES_SEEN
        found.state[record] = state
        id_length = token[PREDICTION_ID, STOP] - token[PREDICTION_ID, START]
        if token[PREDICTION_ID, KIND] == 0 or id_length == 0 or id_length > LENGTH_MAX:
            continue
        model = settings[MODEL_CONSTANT]
        if model == FROM_EVENT:
            known, name = name_hash(token, MODEL)
            if not known or (name == 0 and not settings[MODEL_OPTIONAL]):
                continue
            model = find_model(name, tables.models)
        if model >= 0 and tables.features_of[model] and not state & FEATURES_SEEN:
            continue
        time_ms = event_time(token, record_time_ms[record], settings)
        if time_ms < 0 or not good_outputs(rows.tag, record, tables.outputs):
            continue
        version = tables.version_constant
        if not settings[VERSION_CONSTANT]:
            known, version = name_hash(token, VERSION)
            if not known:
                continue
            slot = np.int64(version) & (VERSION_SLOTS - 1)
            if version != 0 and version != known_version[slot]:
                known_version[slot] = version
                version_place[places, 0] = token[VERSION, START] - base
                version_place[places, 1] = token[VERSION, STOP] - token[VERSION, START]
                places += 1
        rows.id_high[record], rows.id_low[record] = hash96(token[PREDICTION_ID, START], id_length)
        rows.event_time_ms[record], rows.model[record], rows.version[record] = time_ms, model, version
        rows.accepted[record] = 1
    return places
