"""Panes and markers: what a collector sends to the monitors. Types and wire format.

Every record is one container of kind "pane", "performance" (performance_panes.py), "marker" or "announcement". A pane that
would exceed RECORD_BYTES_MAX is sent as blocks of consecutive targets. On the wire integers have the smallest dtype that holds
them, and bins and distinct registers are written sparse (places and values) where that is shorter; decoding gives the dtypes
documented below.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream import container
from stream.columns import F64, I64, U8, U64
from stream.limits import NAME_BYTES_MAX, RECORD_BYTES_MAX
from stream.performance_panes import KIND as PERFORMANCE
from stream.performance_panes import PerformancePane, performance_pane_of
from stream.registers import Registers
from stream.row_sums import SECTION as ROW_SUMS
from stream.row_sums import RowSums, from_section, to_section
from stream.sample_texts import SECTIONS, Texts, carried, pack, unpack, wanted
from stream.schema_sample import SchemaSample, joined
from stream.sparse import dense, smallest, sparse


@dataclass(frozen=True, slots=True)
class Sample:
    """The rows with the smallest hash_high (ties: hash_low) of one pane: hash U64[k] ascending, cell U64[k, t], tag U8[k, t].

    `texts`: hash -> text of TEXT cells, as many as stream.sample_texts says. `limit`: k, which merging must know; 0 = all rows.
    `sums`: over all rows of the pane (stream.row_sums), in the first block alone.
    """

    hash: U64
    cell: U64
    tag: U8
    texts: Texts = field(default_factory=dict)
    limit: int = 0
    sums: RowSums = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pane:
    """Statistics of one (source partition, model, version, segment) over [edge_ms, edge_ms + resolution).

    t = number of targets of the model's plan, in its order; a record may hold a block of them: `first_target`.
    bins       I64, flat: target i's bins at [bin_start[i], bin_start[i+1])       bin_start I64[t+1]
    sums       F64[t, 2]: ordered sums of (x - centre) and (x - centre)^2          extremes F64[t, 2]: minimum, maximum (NaN = none)
    missing, invalid, out_of_range   I64[t]; a categorical target's sums and extremes are 0 and NaN
    distinct   of the categorical targets of segment "all"
    schema     what was seen of the events' schema, only in segment "all"
    `last_block` says that the pane is complete with this record; `events` is the pane's, in every block.
    """

    partition: int
    edge_ms: int
    model: str
    version: str
    segment: str
    plan: str
    reference: str
    events: int
    names: tuple[str, ...]
    first_target: int
    last_block: bool
    bin_start: I64
    bins: I64
    sums: F64
    extremes: F64
    missing: I64
    invalid: I64
    out_of_range: I64
    distinct: Registers
    sample: Sample | None = None
    schema: SchemaSample | None = None


@dataclass(frozen=True, slots=True)
class Marker:
    """`partition` has sent everything of `stream` before `edge_ms` (exclusive). Counters are as of the record that passed it.

    `counters`: those of Counters by name, and the dead letters by reason, each under REASON_PREFIX + its code.
    `plans`: model -> plan hash in force for its next unopened pane. `largest_ms`: the largest accepted event time.
    """

    partition: int
    stream: str
    edge_ms: int
    next_offset: dict[str, int]
    counters: dict[str, int]
    plans: dict[str, str]
    largest_ms: int
    idle: bool = False


@dataclass(frozen=True, slots=True)
class Announcement:
    """A new owner of `partition` works from here on; lower epochs are void (the epoch is in the record's header)."""

    partition: int


Body = Pane | PerformancePane | Marker | Announcement
INPUTS = "inputs"
REASON_PREFIX = "reason:"  # no name of a counter has a colon
EPOCH_HEADER = "epoch"
EDGE_MIN = -(1 << 62)
EDGE_END = 1 << 62  # the edge of a bounded input's end (T = infinity)


@dataclass(slots=True)
class Counters:
    """The accounting identity of one source partition: consumed = applied + dead_letters + duplicates + late + tombstones.

    consumed + gap = offsets passed: `gap` are those that the broker had deleted before they were read. (Offsets that no
    event ever had, of transactions and compaction, are in neither.) `resets`: logs that were given up for another of the
    same name (on_data_loss: reset); how many events that cost nobody knows, and offsets are counted anew from there.
    """

    consumed: int = 0
    applied: int = 0
    dead_letters: int = 0
    duplicates: int = 0
    late: int = 0
    tombstones: int = 0
    unknown_model: int = 0
    gap: int = 0
    resets: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


BODY_BYTES_MAX = (
    RECORD_BYTES_MAX - 64_000
)  # the header (names of 10,000 targets are split with their targets) and padding
TEXT_HEAD_BYTES = 12  # hash and length
HEADER_BYTES_PER_TARGET = 96  # name (up to 256 bytes is added), width, tallies, sums, extremes
VERSION = 1
VERSIONS = (VERSION,)


class PaneTooLargeError(ValueError):
    """One target alone does not fit a record."""


class BlockMismatchError(ValueError):
    """Blocks that are not the consecutive parts of one pane."""


def encode_pane(pane: Pane) -> list[bytes]:
    """The records of one pane, each below RECORD_BYTES_MAX, in target order; exactly the last has `last_block`.

    Raises PaneTooLargeError naming the target that alone is too large.
    """
    return [
        _encode_block(pane, first, stop, last=pane.last_block and stop == len(pane.names))
        for first, stop in _blocks(pane)
    ]


def encode_marker(marker: Marker) -> bytes:
    """The record of one marker."""
    header = {
        "partition": marker.partition,
        "stream": marker.stream,
        "edge_ms": marker.edge_ms,
        "next_offset": marker.next_offset,
        "counters": marker.counters,
        "plans": marker.plans,
        "largest_ms": marker.largest_ms,
        "idle": marker.idle,
    }
    return container.encode("marker", VERSION, header, {})


def encode_announcement(announcement: Announcement) -> bytes:
    """The record by which a new owner makes lower epochs void."""
    return container.encode("announcement", VERSION, {"partition": announcement.partition}, {})


def decode_record(data: bytes) -> Body:
    """Any record of the panes topic. Raises ContainerError; an unknown kind, version or section is named."""
    record = container.decode(data)
    if record.kind == "marker":
        return Marker(**record.expect("marker", VERSIONS, ()).header)
    if record.kind == "announcement":
        return Announcement(record.expect("announcement", VERSIONS, ()).header["partition"])
    if record.kind == PERFORMANCE:
        return performance_pane_of(record)
    return _decode_pane(record.expect("pane", VERSIONS, _SECTIONS, _OPTIONAL))


def merge_blocks(blocks: Sequence[Pane]) -> Pane:
    """The whole pane out of all its blocks in target order. Raises BlockMismatchError."""
    first = blocks[0]
    expected = 0
    for block in blocks:
        if _identity(block) != _identity(first) or block.first_target != expected:
            raise BlockMismatchError(
                f"pane {_identity(first)}: target {expected} expected, got {block.first_target} of {_identity(block)}"
            )
        expected += len(block.names)
    if not blocks[-1].last_block:
        raise BlockMismatchError(f"pane {_identity(first)}: the last block is missing after target {expected}")
    if len(blocks) == 1:
        return first
    width = np.concatenate([np.diff(block.bin_start) for block in blocks])
    samples = [block.sample for block in blocks if block.sample is not None]
    sample = None
    if samples:
        if len(samples) != len(blocks) or any(not np.array_equal(s.hash, samples[0].hash) for s in samples):
            raise BlockMismatchError(f"pane {_identity(first)}: the blocks carry different sample rows")
        cells, tags = [s.cell for s in samples], [s.tag for s in samples]
        texts = {key: text for s in samples for key, text in s.texts.items()}
        cell, tag = np.concatenate(cells, axis=1), np.concatenate(tags, axis=1)
        sample = replace(samples[0], cell=cell, tag=tag, texts=carried(texts, cell, tag))
    return Pane(
        **_identity_fields(first),
        events=first.events,
        names=tuple(name for block in blocks for name in block.names),
        first_target=0,
        last_block=True,
        bin_start=_starts(width),
        bins=np.concatenate([block.bins for block in blocks]),
        sums=np.concatenate([block.sums for block in blocks]),
        extremes=np.concatenate([block.extremes for block in blocks]),
        missing=np.concatenate([block.missing for block in blocks]),
        invalid=np.concatenate([block.invalid for block in blocks]),
        out_of_range=np.concatenate([block.out_of_range for block in blocks]),
        distinct=Registers.joined([block.distinct for block in blocks], [len(block.names) for block in blocks]),
        sample=sample,
        schema=joined([block.schema for block in blocks], [len(block.names) for block in blocks]),
    )


_SECTIONS = ("width", "sums", "extremes", "tally")
_OPTIONAL = (
    "bins",
    "bins_at",
    "distinct",
    "distinct_at",
    "sample_hash",
    "sample_cell",
    "sample_tag",
    *SECTIONS,
    ROW_SUMS,
)
_IDENTITY = ("partition", "edge_ms", "model", "version", "segment", "plan", "reference")


def _identity(pane: Pane) -> tuple[Any, ...]:
    return tuple(getattr(pane, name) for name in _IDENTITY)


def _identity_fields(pane: Pane) -> dict[str, Any]:
    return {name: getattr(pane, name) for name in _IDENTITY}


def _blocks(pane: Pane) -> Iterator[tuple[int, int]]:
    """Ranges of targets, each within BODY_BYTES_MAX. At least one range, also without targets."""
    rows = 0 if pane.sample is None else len(pane.sample.hash)
    texts = _text_bytes(pane)
    every = rows * 8 + (0 if pane.sample is None else sum(sums.nbytes for sums in pane.sample.sums.values()))
    targets = len(pane.names)
    largest = targets * (HEADER_BYTES_PER_TARGET + 4 * NAME_BYTES_MAX + pane.distinct.width + rows * 9)
    if (
        every + largest + sum(texts) + 8 * len(pane.bins) <= BODY_BYTES_MAX
        and max(map(len, pane.names), default=0) <= NAME_BYTES_MAX
    ):
        yield 0, targets  # nearly always
        return
    width = np.diff(pane.bin_start)
    first = 0
    used = base = every
    for i, name in enumerate(pane.names):
        size = HEADER_BYTES_PER_TARGET + 4 * len(name) + 8 * int(width[i]) + pane.distinct.width + rows * 9
        size += texts[i]
        if base + size > BODY_BYTES_MAX:
            raise PaneTooLargeError(
                f"model {pane.model!r}: target {name!r} needs {size} bytes, at most {BODY_BYTES_MAX}"
            )
        if used + size > BODY_BYTES_MAX:
            yield first, i
            first, used = i, base
        used += size
    yield first, len(pane.names)


def _text_bytes(pane: Pane) -> list[int]:
    """What each target's texts need, as if no other target had them."""
    sample = pane.sample
    if sample is None or not sample.texts:
        return [0] * len(pane.names)
    size = {key: TEXT_HEAD_BYTES + len(text.encode()) for key, text in sample.texts.items()}
    columns = range(len(pane.names))
    return [sum(size.get(key, 0) for key in wanted(sample.cell[:, [i]], sample.tag[:, [i]])) for i in columns]


def _encode_block(pane: Pane, first: int, stop: int, *, last: bool) -> bytes:
    bins = pane.bins[pane.bin_start[first] : pane.bin_start[stop]]
    distinct = pane.distinct.between(first, stop)
    tally = np.stack([pane.missing[first:stop], pane.invalid[first:stop], pane.out_of_range[first:stop]], axis=1)
    header = _identity_fields(pane) | {
        "events": pane.events,
        "names": list(pane.names[first:stop]),
        "first_target": pane.first_target + first,
        "last_block": last,
        "registers": distinct.width,
        "tracked": distinct.targets.tolist(),
    }
    if pane.schema is not None:
        header["schema"] = pane.schema.between(first, stop).header()
    sections: dict[str, NDArray[Any]] = {
        "width": smallest(np.diff(pane.bin_start[first : stop + 1])),
        "sums": pane.sums[first:stop],
        "extremes": pane.extremes[first:stop],
        "tally": smallest(tally),
        **sparse("bins", bins),
        **sparse("distinct", distinct.rows.reshape(-1)),
    }
    if pane.sample is not None:
        sections["sample_hash"] = pane.sample.hash
        sections["sample_cell"] = pane.sample.cell[:, first:stop]
        sections["sample_tag"] = pane.sample.tag[:, first:stop]
        if pane.sample.limit:
            header["sample_rows"] = pane.sample.limit
        if pane.sample.sums and first == 0:
            header[ROW_SUMS], sections[ROW_SUMS] = to_section(pane.sample.sums)
        texts = carried(pane.sample.texts, sections["sample_cell"], sections["sample_tag"])
        if texts:
            sections |= pack(texts)
    return container.encode("pane", VERSION, header, sections)


def _decode_pane(record: container.Container) -> Pane:
    header, sections = record.header, record.sections
    width = sections["width"].astype(np.int64)
    tally = sections["tally"].astype(np.int64)
    bin_start = _starts(width)
    registers, tracked = header.pop("registers"), np.array(header.pop("tracked"), np.int64)
    if len(tracked) and (tracked[0] < 0 or tracked[-1] >= len(width) or (np.diff(tracked) <= 0).any()):
        raise container.Malformed(f"pane: {tracked.tolist()} are no ascending places of {len(width)} targets")
    rows = dense("distinct", sections, len(tracked) * registers, np.uint8)
    limit, row_sums = header.pop("sample_rows", 0), from_section(header.pop(ROW_SUMS, ()), sections)
    sample = None
    if "sample_hash" in sections:
        texts: Texts = {}
        if "text_hash" in sections:
            try:
                texts = unpack(*(sections[name] for name in SECTIONS))
            except ValueError as error:
                raise container.Malformed(f"pane: {error}") from None
        cells = (sections["sample_cell"], sections["sample_tag"])
        sample = Sample(sections["sample_hash"], *cells, texts, limit, row_sums)
    schema = header.pop("schema", None)
    return Pane(
        **{**header, "names": tuple(header["names"])},
        bin_start=bin_start,
        bins=dense("bins", sections, int(bin_start[-1])),
        sums=sections["sums"],
        extremes=sections["extremes"],
        missing=tally[:, 0],
        invalid=tally[:, 1],
        out_of_range=tally[:, 2],
        distinct=Registers(tracked, rows.reshape(len(tracked), registers)),
        sample=sample,
        schema=None if schema is None else SchemaSample.of(schema),
    )


def _starts(width: I64) -> I64:
    starts = np.zeros(len(width) + 1, np.int64)
    np.cumsum(width, out=starts[1:])
    return starts
