"""Tally: the mergeable statistics of all targets of one plan, over any number of panes.

Adding is exact for counts; float sums are added in the order in which `add` is called, which is (edge, partition): so the
same panes give the same bits, however they arrived. Memory: 8 bytes a bin, about 20 KB per 30 numeric targets; 2 KiB for
each categorical target of segment "all".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.columns import F64, I64
from stream.panes import Pane, Sample, merge_blocks
from stream.registers import Registers
from stream.row_sums import SECTION as ROW_SUMS
from stream.row_sums import added, from_section, to_section
from stream.sample_texts import SECTIONS, carried, pack, unpack
from stream.schema_sample import SchemaSample
from stream.sparse import dense, smallest, sparse

Sections = dict[str, NDArray[Any]]
NO_START: I64 = np.zeros(1, np.int64)  # of no targets; never written
APART = 2  # after a target's bins come its missing and its invalid count


class PlanMismatchError(Exception):
    """Panes of different plans cannot be added: their bins mean different things."""


@dataclass(slots=True)
class Tally:
    """Statistics of t targets.

    counts        I64, flat: target i's bins, then missing, then invalid, at [start[i], start[i+1])      start I64[t+1]
    sums          F64[t, 2]: of (x - centre) and (x - centre)^2        extremes F64[t, 2]: minimum, maximum; NaN = no value
    out_of_range  I64[t]                                              distinct of the targets that have any
    sample        the rows with the smallest hashes, and sums over rows, only of plans that have any; never written in place
    schema        what was seen of the events' schema, only of segment "all"; not of a selection
    """

    names: tuple[str, ...]
    events: int
    start: I64
    counts: I64
    sums: F64
    extremes: F64
    out_of_range: I64
    distinct: Registers
    sample: Sample | None = None
    schema: SchemaSample | None = None

    @classmethod
    def of(cls, blocks: Sequence[Pane]) -> Tally:
        """All blocks of one pane, in any order. Raises BlockMismatchError."""
        return _of_pane(merge_blocks(sorted(blocks, key=lambda block: block.first_target)))

    def copy(self) -> Tally:
        """A Tally of its own; `start` and `distinct` are shared and never written."""
        return Tally(
            self.names,
            self.events,
            self.start,
            self.counts.copy(),
            self.sums.copy(),
            self.extremes.copy(),
            self.out_of_range.copy(),
            self.distinct,
            self.sample,
            None if self.schema is None else self.schema.copy(),
        )

    def add(self, other: Tally, sample_rows: int = 0) -> None:
        """Add `other` to this. Raises PlanMismatchError."""
        if self.names != other.names or len(self.counts) != len(other.counts):
            raise PlanMismatchError(
                f"{len(self.names)} targets, {len(self.counts)} counts; got {len(other.names)}, {len(other.counts)}"
            )
        self.events += other.events
        self.counts += other.counts
        self.sums += other.sums
        np.fmin(self.extremes[:, 0], other.extremes[:, 0], out=self.extremes[:, 0])
        np.fmax(self.extremes[:, 1], other.extremes[:, 1], out=self.extremes[:, 1])
        self.out_of_range += other.out_of_range
        self.distinct = self.distinct.union(other.distinct)
        if other.schema is not None:
            self.schema = self.schema or SchemaSample()
            self.schema.add(other.schema)
        if other.sample is not None:
            self.sample = other.sample if self.sample is None else merged_sample(self.sample, other.sample, sample_rows)

    def reset(self, targets: NDArray[np.bool_]) -> None:
        """Forget everything of these targets (bool[t]); events and distinct counts are kept."""
        self.counts[np.repeat(targets, np.diff(self.start))] = 0
        self.sums[targets] = 0.0
        self.extremes[targets] = np.nan
        self.out_of_range[targets] = 0

    def select(self, targets: I64, *, rows: bool = False) -> Tally:
        """These targets only, in this order: a copy. `rows`: with the sample of rows, of these targets."""
        begin, count = int(targets[0]) if len(targets) else 0, len(targets)
        if not rows and np.array_equal(targets, np.arange(begin, begin + count)):
            return self._neighbours(begin, begin + count)
        width = np.diff(self.start)[targets]
        start = np.concatenate(([0], np.cumsum(width))).astype(np.int64)
        places = np.arange(int(start[-1])) + np.repeat(self.start[targets] - start[:-1], width)
        names = tuple(self.names[target] for target in targets)
        counts = self.counts[places].astype(np.int64, copy=False)
        sample = self.sample if rows else None
        if sample is not None:
            sample = replace(sample, cell=sample.cell[:, targets], tag=sample.tag[:, targets], texts={})
        return Tally(
            names, self.events, start, counts, self.sums[targets], self.extremes[targets],
            self.out_of_range[targets], self.distinct.select(targets), sample,
        )  # fmt: skip

    def only(self, targets: I64) -> Tally:
        """`select` without rows, to be read only: where that is all targets in their order, or none, nothing is copied."""
        if len(targets) == len(self.names) and bool((targets == np.arange(len(targets))).all()):
            return Tally(
                self.names, self.events, self.start, self.counts, self.sums, self.extremes, self.out_of_range, self.distinct
            )  # fmt: skip
        if len(targets):
            return self.select(targets)
        return Tally(
            (), self.events, NO_START, self.counts[:0], self.sums[:0], self.extremes[:0], self.out_of_range[:0], Registers.none()
        )  # fmt: skip

    def _neighbours(self, begin: int, stop: int) -> Tally:
        """Targets [begin, stop), which lie side by side: a copy."""
        first, last = self.start[begin], self.start[stop]
        return Tally(
            self.names[begin:stop], self.events, self.start[begin : stop + 1] - first,
            self.counts[first:last].astype(np.int64), self.sums[begin:stop].copy(), self.extremes[begin:stop].copy(),
            self.out_of_range[begin:stop].copy(), self.distinct.between(begin, stop),
        )  # fmt: skip

    def remembered(self) -> Tally:
        """For `select` later, nothing else: without distinct counts, and with counts of 32 bits where they fit."""
        return Tally(
            self.names, self.events, self.start, smallest(self.counts), self.sums, self.extremes, self.out_of_range, Registers.none()
        )  # fmt: skip

    def counts_of(self, target: int) -> I64:
        """I64[bins + 2]: bins, missing, invalid. A view."""
        return self.counts[self.start[target] : self.start[target + 1]]

    def empty(self) -> Tally:
        """The same targets without any event."""
        tally = self.copy()
        tally.events = 0
        tally.reset(np.ones(len(self.names), np.bool_))
        tally.distinct = Registers.none()
        tally.sample = tally.schema = None
        return tally

    def to_sections(self, prefix: str) -> tuple[dict[str, Any], Sections]:
        """(header, sections) for a snapshot; section names start with `prefix`."""
        sections: Sections = {
            f"{prefix}start": self.start,
            f"{prefix}counts": smallest(self.counts),
            f"{prefix}sums": self.sums,
            f"{prefix}extremes": self.extremes,
            f"{prefix}out_of_range": self.out_of_range,
            **sparse(f"{prefix}distinct", self.distinct.rows.reshape(-1)),
        }
        if self.sample is not None:
            sections |= {
                f"{prefix}sample.hash": self.sample.hash,
                f"{prefix}sample.cell": self.sample.cell,
                f"{prefix}sample.tag": self.sample.tag,
                **{f"{prefix}sample.{name}": part for name, part in pack(self.sample.texts).items()},
            }
        header: dict[str, Any] = {
            "names": list(self.names),
            "events": self.events,
            "registers": self.distinct.width,
            "tracked": self.distinct.targets.tolist(),
        }
        if self.schema is not None:
            header["schema"] = self.schema.header()
        if self.sample is not None and self.sample.limit:
            header["sample_rows"] = self.sample.limit
            header[ROW_SUMS], sections[prefix + ROW_SUMS] = to_section(self.sample.sums)
        return header, sections

    @classmethod
    def from_sections(cls, header: Mapping[str, Any], sections: Mapping[str, NDArray[Any]], prefix: str) -> Tally:
        """Inverse of `to_sections`; arrays are copied, so that they can be added to. Raises Malformed.

        The first version had no "tracked" and a row of registers for every target.
        """
        sample = None
        if f"{prefix}sample.hash" in sections:
            texts = unpack(*(sections[f"{prefix}sample.{part}"] for part in SECTIONS))
            hashes, cell, tag = (sections[f"{prefix}sample.{part}"].copy() for part in ("hash", "cell", "tag"))
            row_sums = from_section(header.get(ROW_SUMS, ()), sections, prefix + ROW_SUMS)
            sample = Sample(hashes, cell, tag, texts, header.get("sample_rows", 0), row_sums)
        start, counts, sums, extremes, out_of_range = (
            sections[prefix + name].copy() for name in ("start", "counts", "sums", "extremes", "out_of_range")
        )
        names = tuple(header["names"])
        schema = SchemaSample.of(header["schema"]) if "schema" in header else None
        if "tracked" in header:
            tracked, width = np.array(header["tracked"], np.int64), header["registers"]
            rows = dense(f"{prefix}distinct", sections, len(tracked) * width, np.uint8)
            distinct = Registers(tracked, rows.reshape(len(tracked), width))
        else:
            distinct = Registers.of(np.arange(len(names)), sections[f"{prefix}distinct"])
        return cls(
            names,
            header["events"],
            start,
            counts.astype(np.int64),
            sums,
            extremes,
            out_of_range,
            distinct,
            sample,
            schema,
        )


def pooled(tallies: Sequence[Tally]) -> Tally:
    """The sum, in this order; a single one as it is."""
    if len(tallies) == 1:
        return tallies[0]
    whole = tallies[0].copy()
    for tally in tallies[1:]:
        whole.add(tally)
    return whole


def merged_sample(left: Sample, right: Sample, rows: int) -> Sample:
    """The `rows` rows (0: the samples' own limit, else all) with the smallest hashes of both; `left` first where they are equal."""
    rows = rows or left.limit
    hashes = np.concatenate((left.hash, right.hash))
    order = np.argsort(hashes, kind="stable")[: rows or None]
    cell, tag = np.concatenate((left.cell, right.cell))[order], np.concatenate((left.tag, right.tag))[order]
    texts = carried(left.texts | right.texts, cell, tag)
    return Sample(hashes[order], cell, tag, texts, left.limit, added(left.sums, right.sums))


def _of_pane(pane: Pane) -> Tally:
    targets = len(pane.names)
    width = np.diff(pane.bin_start)
    start = pane.bin_start.astype(np.int64) + APART * np.arange(targets + 1)
    counts = np.zeros(int(start[-1]), np.int64)
    counts[np.arange(len(pane.bins)) + np.repeat(APART * np.arange(targets), width)] = pane.bins
    counts[start[1:] - 2] = pane.missing
    counts[start[1:] - 1] = pane.invalid
    return Tally(
        pane.names,
        pane.events,
        start,
        counts,
        pane.sums.astype(np.float64),
        pane.extremes.astype(np.float64),
        pane.out_of_range.astype(np.int64),
        pane.distinct,
        pane.sample,
        None if pane.schema is None else pane.schema.copy(),
    )
