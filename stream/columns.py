"""What one chunk of a source partition's log becomes: records as bytes, then columns. The input of the collector's step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from stream.original_headers import OriginalHeaders

I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
U64 = NDArray[np.uint64]
U32 = NDArray[np.uint32]
U8 = NDArray[np.uint8]
F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Origins:
    """Where copies stand in the user's own topic (copied.py): partition I64[n], -1 = not driftline's copy; offset I64[n]."""

    partition: I64
    offset: I64


@dataclass(frozen=True, slots=True)
class Copies:
    """What a chunk of copies tells beside its events. marks: (log, source partition) -> the last offset of it that the state
    has seen afterwards; repeats: records that were left out, because it had seen them before.
    """

    marks: Mapping[tuple[int, int], int]
    repeats: int


@dataclass(frozen=True, slots=True)
class Records:
    """n Kafka records in log order, undecoded: one buffer and the places in it.

    A null value or key has length -1. `timestamp_ms` is Kafka's record time. `next_offset` is the position after the
    chunk; it may lie beyond the last record's offset (control records, compaction). `framed`: each record's headers follow
    its value in the buffer, as Kafka's format has them (original_headers.py). `log_append`: whether the broker set the
    record's time; None = it set none. `refused`: offset -> (reason, detail) of batches that were not opened; each is one
    record whose value is the beginning of what the batch held. `origin`: of the records of a re-keyed topic, whose times are
    the originals'.
    """

    buffer: U8
    offset: I64
    timestamp_ms: I64
    key_start: I64
    key_length: I64
    value_start: I64
    value_length: I64
    next_offset: int
    framed: bool = False
    log_append: NDArray[np.bool_] | None = None
    refused: dict[int, tuple[str, str]] = field(default_factory=dict)
    origin: Origins | None = None

    def __len__(self) -> int:
        return len(self.offset)


class Tag(IntEnum):
    """What a cell holds. `MISSING` is absent or null; `INVALID` is present and no scalar of JSON that float64 can hold."""

    MISSING = 0
    NUMBER = 1
    TEXT = 2
    BOOL = 3
    INVALID = 4


@dataclass(frozen=True, slots=True)
class ArrayCells:
    """Arrays of numbers in one column of n events: place I32[n] of an event's among values F64[k, length], -1 = it has none."""

    place: I32
    values: F64


class Reject(NamedTuple):
    """An event that cannot be counted; a tuple, because a frozen dataclass takes 3 us to make.

    `code` is a key of deadletter.REASONS; `path` is a JSON pointer ("" = the whole). `origin`: partition and offset of the
    record that this one is a copy of.
    """

    offset: int
    row: int
    code: str
    detail: str
    path: str
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: OriginalHeaders | None = None
    log_append: bool = False
    origin: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """n events in log order, ready to be counted.

    offset, row          I64[n], I32[n]: where the event stands in its log; row > 0 only where a record carries many
    event_time_ms        I64[n]; record_time_ms I64[n] (Kafka's)
    id_high, id_low      U64[n], U32[n]: the upper 64 and the next 32 bits of xxh3-128 of the prediction_id's UTF-8 text
    model                I32[n]: index into Layout.models, -1 = none of them
    version              U64[n]: xxh3-64 of the version's text, 0 = no version given; texts in `version_names`
    cell                 U64[n, c]: a number's float64 bits, a text's xxh3-64, 0/1 of a bool; c = len(Layout.paths)
    tag                  U8[n, c]: Tag
    version_names        text of every version hash that occurs in this chunk
    rejects              in log order
    tombstone_offset     I64[k]: records with a null value
    records              what the chunk was decoded from: the collector's dead letters (future_timestamp) quote it
    texts                (offset, row) -> hash -> text of the event's TEXT cells; None = not to be had
    features             (offset, row) -> the event's features as they came, by name; None = not to be had
    copies               of a re-keyed topic
    arrays               (column, length) -> the valid arrays of that length; the column's cell is the array's norm
    Every event of the chunk is in exactly one of: the n rows, rejects, tombstones.
    """

    next_offset: int
    offset: I64
    row: I32
    event_time_ms: I64
    record_time_ms: I64
    id_high: U64
    id_low: U32
    model: I32
    version: U64
    cell: U64
    tag: U8
    version_names: dict[int, str] = field(default_factory=dict)
    rejects: tuple[Reject, ...] = ()
    tombstone_offset: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    records: Records | None = None
    texts: Callable[[int, int], dict[int, str]] | None = None
    features: Callable[[int, int], Mapping[str, Any]] | None = None
    copies: Copies | None = None
    arrays: Mapping[tuple[int, int], ArrayCells] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offset)
