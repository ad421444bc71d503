"""Bytes to columns. `decode` = the compiled fast tier, then the strict tier for the rows that it refused: the same result.

The fast tier (kernels/scan.py) accepts only what it has read completely and is sure of; everything else, and every dead
letter, is the strict tier's (decode_strict.py). `decode_strict` is the whole thing in the strict tier alone: the oracle.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import numpy as np
import xxhash

from stream.accounting import origin_of
from stream.category import category_hash, category_text, number_category_hash
from stream.columns import I64, ArrayCells, Columns, Records, Reject, Tag
from stream.decode_arrays import read_arrays
from stream.decode_fast import FastTier
from stream.decode_refusals import refuser
from stream.decode_strict import Row, decode_event, event_features, event_texts
from stream.kernels.framing import FramingError, frame, join_records, read_only, records_from_lines
from stream.kernels.rows import FIELDS, SCRATCH_BYTES, Found, Rows, Scratch, scan_chunk
from stream.limits import DEPTH_MAX
from stream.mapping import NATIVE, Layout, Mapping, MappingError
from stream.original_headers import NONE, read_headers
from stream.strict_json import RefusedError

__all__ = [
    "NATIVE",
    "FramingError",
    "Layout",
    "Mapping",
    "MappingError",
    "category_hash",
    "category_text",
    "decode",
    "decode_strict",
    "frame",
    "join_records",
    "number_category_hash",
    "records_from_lines",
]


def empty_rows(rows: int, columns: int) -> Rows:
    return Rows(
        accepted=np.zeros(rows, np.uint8),
        event_time_ms=np.zeros(rows, np.int64),
        id_high=np.zeros(rows, np.uint64),
        id_low=np.zeros(rows, np.uint32),
        model=np.zeros(rows, np.int32),
        version=np.zeros(rows, np.uint64),
        cell=np.zeros((rows, columns), np.uint64),
        tag=np.zeros((rows, columns), np.uint8),
    )


def nothing_found(rows: int) -> Found:
    return Found(
        state=np.zeros(rows, np.uint8), place=np.zeros(rows, np.int64), token=np.zeros((rows, FIELDS, 3), np.int64)
    )


def new_scratch() -> Scratch:
    return Scratch(
        stack=np.zeros(DEPTH_MAX, np.int64),
        text=np.zeros(SCRATCH_BYTES, np.uint8),
    )


def decode(records: Records, layout: Layout) -> Columns:
    """Records to columns. About .8 us for an event of 690 bytes and 23 cells; a refused one costs 5 to 40 us more."""
    tier = _fast_tier(layout)
    rows, found = empty_rows(len(records), len(layout.paths)), nothing_found(len(records))
    version_place = np.empty((len(records), 2), np.int64)
    versions = scan_chunk(
        read_only(records.buffer),
        np.ascontiguousarray(records.value_start),
        np.ascontiguousarray(records.value_length),
        np.ascontiguousarray(records.timestamp_ms),
        tier.tables._replace(nodes=tier.tables.nodes.copy()),
        rows,
        found,
        version_place,
        new_scratch(),
    )
    data = records.buffer.data
    texts = {bytes(data[start : start + length]) for start, length in version_place[:versions].tolist()}
    names = {xxhash.xxh3_64_intdigest(text): text.decode() for text in texts}
    if tier.version_text and rows.accepted.any():
        names[int(tier.tables.version_constant)] = tier.version_text
    for offset in records.refused:
        rows.accepted[records.offset == offset] = 0
    if _leave_to_the_strict_tier(rows, layout):
        kept = set(np.unique(rows.version[rows.accepted == 1]).tolist())
        names = {version: text for version, text in names.items() if version in kept}
    return _finish(records, layout, rows, names, found=found)


def _leave_to_the_strict_tier(rows: Rows, layout: Layout) -> bool:
    """Give back what the scan has read well and options that are off by default judge otherwise; whether any of them is on.

    20 us for each such event.
    """
    columns = np.flatnonzero(layout.coerce)
    if layout.mapping.unknown_models == "dlq":
        rows.accepted[rows.model < 0] = 0
    elif not len(columns):
        return False
    rows.accepted[(rows.tag[:, columns] == Tag.TEXT).any(axis=1)] = 0
    return True


@lru_cache(maxsize=16)
def _fast_tier(layout: Layout) -> FastTier:
    return FastTier.build(layout)


def decode_strict(records: Records, layout: Layout) -> Columns:
    """The same in the strict tier alone."""
    rows = empty_rows(len(records), len(layout.paths))
    return _finish(records, layout, rows, {}, found=None)


def _finish(records: Records, layout: Layout, rows: Rows, names: dict[int, str], *, found: Found | None) -> Columns:
    """Judge the records that no row was accepted of, in the strict tier where `found` does not tell why, and gather every
    accepted row, in log order.
    """
    refused = np.flatnonzero((records.value_length >= 0) & (rows.accepted == 0))
    rejects = _judge(records, layout, rows, names, refused, found) if len(refused) else []
    arrays = read_arrays(records, layout, rows) if layout.arrays else {}
    tombstones = records.offset[records.value_length < 0]
    keep = np.flatnonzero(rows.accepted) if len(rejects) + len(tombstones) else None

    def kept(array: Any) -> Any:
        """One bad event makes all the others move: 5 us for 1,000 rows of 22 cells, of which array[keep] would make 13."""
        return array if keep is None else array.take(keep, axis=0)

    return Columns(
        next_offset=records.next_offset,
        offset=kept(records.offset),
        row=np.zeros(len(records) - len(rejects) - len(tombstones), np.int32),
        event_time_ms=kept(rows.event_time_ms),
        record_time_ms=kept(records.timestamp_ms),
        id_high=kept(rows.id_high),
        id_low=kept(rows.id_low),
        model=kept(rows.model),
        version=kept(rows.version),
        cell=kept(rows.cell),
        tag=kept(rows.tag),
        version_names=names,
        rejects=tuple(rejects),
        tombstone_offset=tombstones,
        records=records,
        texts=partial(_texts, records, layout),
        features=partial(_features, records, layout),
        arrays={key: ArrayCells(kept(each.place), each.values) for key, each in arrays.items()},
    )


def _judge(  # noqa: PLR0917
    records: Records, layout: Layout, rows: Rows, names: dict[int, str], refused: I64, found: Found | None
) -> list[Reject]:
    """Refuse or accept each of the `refused`. As there may be nothing but them, whatever numpy holds is read for all at once."""
    refuse = refuser(found, rows, records, layout, refused) if found is not None else None
    data, rejects, unopened, copied = records.buffer.data, [], records.refused, records.origin is not None
    arrays = (
        records.offset, records.timestamp_ms, records.key_start, records.key_length, records.value_start, records.value_length
    )  # fmt: skip
    append = records.log_append[refused].tolist() if records.log_append is not None else [False] * len(refused)
    columns = zip(*(array[refused].tolist() for array in arrays), append, strict=True)
    for number, (offset, time_ms, key_start, key_length, start, length, log_append) in enumerate(columns):
        value = bytes(data[start : start + length])
        try:
            if unopened and offset in unopened:
                raise RefusedError(*unopened[offset])  # noqa: TRY301
            if refuse is not None:
                refuse(number, value)
            _put(rows, int(refused[number]), decode_event(value, time_ms, layout), names)
        except RefusedError as why:
            key = bytes(data[key_start : key_start + key_length]) if key_length >= 0 else None
            headers = read_headers(data, start + length) if records.framed else NONE
            origin = origin_of(records, int(refused[number])) if copied else None
            where = (offset, 0, why.code, why.detail, why.path)
            rejects.append(Reject(*where, key, value, time_ms, headers, log_append, origin))
    return rejects


def _texts(records: Records, layout: Layout, offset: int, row: int) -> dict[int, str]:
    """Texts of one event's TEXT cells by hash: the record is read once more. One event a record: `row` is 0."""
    del row
    return event_texts(_value(records, offset), layout)


def _features(records: Records, layout: Layout, offset: int, row: int) -> dict[str, Any]:
    """The features of one event, likewise."""
    del row
    return event_features(_value(records, offset), layout)


def _value(records: Records, offset: int) -> bytes:
    record = offset - int(records.offset[0])  # where no offset is missing
    if record >= len(records) or records.offset[record] != offset:
        record = int(np.searchsorted(records.offset, offset))
    start = int(records.value_start[record])
    return bytes(records.buffer.data[start : start + int(records.value_length[record])])


def _put(rows: Rows, at: int, row: Row, names: dict[int, str]) -> None:
    rows.accepted[at] = 1
    rows.event_time_ms[at] = row.event_time_ms
    rows.id_high[at] = row.id_hash >> 32
    rows.id_low[at] = row.id_hash & 0xFFFFFFFF
    rows.model[at] = row.model
    rows.version[at] = 0
    if row.version:
        rows.version[at] = version = xxhash.xxh3_64_intdigest(row.version.encode())
        names[version] = row.version
    rows.cell[at] = row.cells
    rows.tag[at] = row.tags
