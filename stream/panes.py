"""Panes and markers: what a collector sends to the monitors."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stream.columns import F64, I64, U8, U64


@dataclass(frozen=True, slots=True)
class Sample:
    """The rows with the smallest hash_high (ties: hash_low) of one pane: hash U64[k] ascending, cell U64[k, t], tag U8[k, t]."""

    hash: U64
    cell: U64
    tag: U8


@dataclass(frozen=True, slots=True)
class Pane:
    """Statistics of one (source partition, model, version, segment) over [edge_ms, edge_ms + resolution).

    t = number of targets of the model's plan, in its order; a record may hold a block of them: `first_target`.
    bins       I64, flat: target i's bins at [bin_start[i], bin_start[i+1])       bin_start I64[t+1]
    sums       F64[t, 2]: ordered sums of (x - centre) and (x - centre)^2          extremes F64[t, 2]: minimum, maximum (NaN = none)
    missing, invalid, out_of_range   I64[t]; a categorical target's sums and extremes are 0 and NaN
    distinct   U8[t, registers] for categorical targets of segment "all", else U8[t, 0]
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
    distinct: U8
    sample: Sample | None = None


@dataclass(frozen=True, slots=True)
class Marker:
    """`partition` has sent everything of `stream` before `edge_ms` (exclusive). Counters are as of the record that passed it.

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


INPUTS = "inputs"
EPOCH_HEADER = "epoch"
EDGE_MIN = -(1 << 62)
EDGE_END = 1 << 62  # the edge of a bounded input's end (T = infinity)


def no_panes() -> I64:
    return np.empty(0, np.int64)


@dataclass(slots=True)
class Counters:
    """The accounting identity of one source partition: consumed = applied + dead_letters + duplicates + late + tombstones."""

    consumed: int = 0
    applied: int = 0
    dead_letters: int = 0
    duplicates: int = 0
    late: int = 0
    tombstones: int = 0
    unknown_model: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
