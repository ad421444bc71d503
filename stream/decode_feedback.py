"""Bytes of a topic of feedback to columns: by the predictions' decoder, with the value as its only cell.

A feedback event has an id, a time, and for conversions and labels a value: a number; of a label also a bool (1 or 0) or a
text, which becomes a number by label_values.text_value. `null` as the value retracts what was said before of this id, and
so does a record without a value at all (a tombstone), whose key is the id and whose time is the record's.

Where the mapping says where they stand, a label may bring its model, version, prediction and score with it: one does that has a
value, a model that is configured, and a prediction. A click or a conversion cannot: those that bring theirs do not tell how
many predictions had none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import xxhash
from numpy.typing import NDArray

from stream.accounting import reject_of
from stream.columns import F64, I32, I64, U32, U64, Columns, Copies, Records, Reject, Tag
from stream.decode import decode
from stream.join_feedback import Feedback, FeedbackKind
from stream.join_groups import NO_GROUP, Group
from stream.label_values import text_value
from stream.limits import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN, ID_BYTES_MAX
from stream.mapping import CONSTANT, OUTCOME, PREDICTION, Keys, Layout, Mapping, pointer
from stream.strict_json import parse

VALUE = "value"
SCORE = "score"


@dataclass(frozen=True, slots=True)
class FeedbackPaths:
    """Where things stand in the events of one topic, as in a Mapping. `value` is not looked at of clicks; from `model` on None =
    events do not bring it.
    """

    prediction_id: str
    timestamp: str
    timestamp_unit: str
    value: str
    model: str | None = None
    version: str | None = None
    prediction: str | None = None
    score: str | None = None


@dataclass(frozen=True, slots=True)
class FeedbackColumns:
    """n events of one topic of feedback, in log order. `feedback`: as the join takes them; `rejects`: what is none.

    offset I64[n], row I32[n]; event_time_ms, record_time_ms: those of `feedback`. `records`: what was decoded. `copies`: of a
    re-keyed topic.
    """

    next_offset: int
    offset: I64
    row: I32
    feedback: Feedback
    rejects: tuple[Reject, ...]
    records: Records | None
    copies: Copies | None = None

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def event_time_ms(self) -> I64:
        return self.feedback.event_time_ms

    @property
    def record_time_ms(self) -> I64:
        return self.feedback.record_time_ms


def feedback_layout(kind: FeedbackKind, where: FeedbackPaths, models: Sequence[str] = ()) -> Layout:
    """How events of one topic are read; the value is the first column. Raises MappingError."""
    brings = where.model is not None and kind is FeedbackKind.LABEL
    scores = {VALUE: where.value} if kind is FeedbackKind.CONVERSION else {}
    if brings and where.score is not None:
        scores = {SCORE: where.score}
    mapping = Mapping(
        prediction_id=where.prediction_id,
        model=(where.model if brings else None) or CONSTANT,
        version=(where.version if brings else None) or CONSTANT,
        timestamp=where.timestamp,
        timestamp_unit=where.timestamp_unit,
        prediction=where.prediction or PREDICTION,
        scores=scores,
        outcome=where.value if kind is FeedbackKind.LABEL else "",
        model_optional=True,
    )
    paths = {FeedbackKind.CLICK: [], FeedbackKind.CONVERSION: [VALUE], FeedbackKind.LABEL: [OUTCOME]}[kind]
    more = [PREDICTION, *scores] if brings else []
    return Layout.compile(mapping, models if brings else (), [*paths, *more])


def decode_feedback(records: Records, layout: Layout) -> FeedbackColumns:
    """Records to columns. About .5 us an event, 5 us a retraction, more a refused one."""
    columns = decode(records, layout)
    rows = len(columns)
    group, predicted, score, groups = _brought(columns, layout)
    value, retracts, absent = np.ones(rows), np.zeros(rows, bool), np.zeros(rows, bool)
    if layout.paths:
        value, missing = _values(columns)
        absent[missing] = [not _said(records, int(columns.offset[row]), layout.keys[0]) for row in missing.tolist()]
        retracts[missing] = ~absent[missing]
        group[missing] = NO_GROUP
    kept = np.flatnonzero(~absent)
    rejects = list(columns.rejects)
    for row in np.flatnonzero(absent).tolist():
        where = (int(columns.offset[row]), 0, "missing_field", "no value", pointer(layout.keys[0]))
        rejects.append(reject_of(records, where, int(columns.record_time_ms[row])))
    found: list[NDArray[Any]] = [
        columns.offset[kept], columns.event_time_ms[kept], columns.record_time_ms[kept], columns.id_high[kept],
        columns.id_low[kept], value[kept], retracts[kept], group[kept], predicted[kept], score[kept],
    ]  # fmt: skip
    if len(columns.tombstone_offset):
        found = _with_tombstones(records, columns.tombstone_offset, found, rejects)
    offset, time, recorded, high, low, value, retracts, group, predicted, score = found
    feedback = Feedback(time, recorded, high, low, value, retracts, group, predicted, score.reshape(-1, 1), groups)
    rejects.sort(key=lambda reject: reject.offset)
    no_row = np.zeros(len(feedback), np.int32)
    return FeedbackColumns(columns.next_offset, offset, no_row, feedback, tuple(rejects), records)


def _brought(columns: Columns, layout: Layout) -> tuple[U32, F64, F64, tuple[Group, ...]]:
    """Group, prediction and score that each row brings with it, and the groups; a row that has a model and a prediction brings."""
    rows = len(columns)
    group, predicted, score = np.full(rows, NO_GROUP, np.uint32), np.full(rows, np.nan), np.full(rows, np.nan)
    if PREDICTION not in layout.paths:
        return group, predicted, score, ()
    predicted = _numbers(columns, layout.paths.index(PREDICTION))
    if SCORE in layout.paths:
        score = _numbers(columns, layout.paths.index(SCORE))
    brings = np.flatnonzero((columns.model >= 0) & (columns.tag[:, layout.paths.index(PREDICTION)] != Tag.MISSING))
    versions, version = np.unique(columns.version[brings], return_inverse=True)
    pairs, place = np.unique(columns.model[brings].astype(np.int64) * len(versions) + version, return_inverse=True)
    group[brings] = place
    names = [columns.version_names.get(each, "") for each in versions.tolist()]
    groups = tuple(Group(layout.models[pair // len(names)], names[pair % len(names)]) for pair in pairs.tolist())
    return group, predicted, score, groups


def _values(columns: Columns) -> tuple[F64, I64]:
    """The value of each row, and the rows that have none."""
    return _numbers(columns, 0), np.flatnonzero(columns.tag[:, 0] == Tag.MISSING)


def _numbers(columns: Columns, column: int) -> F64:
    return values_of(np.ascontiguousarray(columns.cell[:, column]), columns.tag[:, column])


def values_of(cell: U64, tag: NDArray[np.uint8]) -> F64:
    """Cells as one float64 each: numbers, bools as 1 and 0, texts as text_value; NaN where there is neither."""
    value = np.full(len(cell), np.nan)
    number, text, boolean = (np.flatnonzero(tag == each) for each in (Tag.NUMBER, Tag.TEXT, Tag.BOOL))
    value[number] = cell.view(np.float64)[number]
    value[text] = text_value(cell[text])
    value[boolean] = cell[boolean].astype(np.float64)
    return value


def _said(records: Records, offset: int, keys: Keys) -> bool:
    """Whether the event has the key of its value, which is null then; one without it says nothing."""
    place = int(np.searchsorted(records.offset, offset))
    start = int(records.value_start[place])
    data = bytes(records.buffer.data[start : start + int(records.value_length[place])])
    try:
        here: Any = orjson.loads(data)
    except orjson.JSONDecodeError:
        here = parse(data)
    for key in keys[:-1]:
        here = here.get(key) if isinstance(here, dict) else None
    return isinstance(here, dict) and keys[-1] in here


def _with_tombstones(
    records: Records, tombstones: I64, found: list[NDArray[Any]], rejects: list[Reject]
) -> list[NDArray[Any]]:
    """The retractions that stand in records without a value, among the others in log order."""
    rows: list[tuple[int, int, int, int]] = []
    for offset in tombstones.tolist():
        place = int(np.searchsorted(records.offset, offset))
        start, length = int(records.key_start[place]), int(records.key_length[place])
        key = bytes(records.buffer.data[start : start + length]) if length > 0 else b""
        recorded = int(records.timestamp_ms[place])
        if not 0 < len(key) <= ID_BYTES_MAX:
            detail = (
                f"a record without a value retracts the prediction that its key names, and the key has {len(key)} bytes"
            )
            rejects.append(reject_of(records, (offset, 0, "bad_id", detail, ""), recorded))
            continue
        if not EVENT_TIME_MS_MIN <= recorded < EVENT_TIME_MS_MAX:  # it would be all feedback's watermark
            where = (offset, 0, "timestamp_range", "the record's time is not between 1980 and 2200", "")
            rejects.append(reject_of(records, where, recorded))
            continue
        ident = xxhash.xxh3_128_intdigest(key) >> 32
        rows.append((offset, recorded, ident >> 32, ident & 0xFFFFFFFF))
    if not rows:
        return found
    offset_, recorded_, high, low = (list(column) for column in zip(*rows, strict=True))
    times = np.array(recorded_, np.int64)
    more: list[NDArray[Any]] = [
        np.array(offset_, np.int64), times, times, np.array(high, np.uint64), np.array(low, np.uint32),
        np.full(len(rows), np.nan), np.ones(len(rows), bool), np.full(len(rows), NO_GROUP, np.uint32),
        np.full(len(rows), np.nan), np.full(len(rows), np.nan),
    ]  # fmt: skip
    order = np.argsort(np.concatenate([found[0], more[0]]), kind="stable")
    return [np.concatenate(pair)[order] for pair in zip(found, more, strict=True)]
