"""Columns in order of arrival, in chunks that are dropped whole; a snapshot writes only what is new.

Entries have consecutive numbers from 0 on; chunk c holds [c * chunk_rows, (c + 1) * chunk_rows), and no blob reaches over a
chunk's end, so that a chunk goes with its blobs. A snapshot writes the entries since the one before as one blob. MERGED_BLOBS
of about the same size are written again as one, or a day of snapshots would name thousands: an entry is written at most
log(chunk_rows) / log(MERGED_BLOBS) times more, and only where snapshots are small.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream import container
from stream.columns import I64

VERSION = 1
VERSIONS = (VERSION,)
MERGED_BLOBS = 8

Array = NDArray[Any]
Chunk = dict[str, Array]


class ColumnLog:
    """`columns`: name -> dtype, or (dtype, width) of a column with rows of its own. `derived`: names that snapshots leave out.
    `optional`: those that a stored state may lack, and what they are then; or may have without `columns` having them. A name that
    ends in a dot stands for all that begin so: columns whose names say what they mean, of which an older state has others.

    `prefix` begins the names of the blobs.
    """

    def __init__(
        self,
        prefix: str,
        columns: Mapping[str, Any],
        chunk_rows: int,
        *,
        derived: frozenset[str] = frozenset(),
        optional: Mapping[str, float] | None = None,
    ) -> None:
        self.prefix = prefix
        self.chunk_rows = chunk_rows
        self.columns = dict(columns)
        self.stored = tuple(sorted(set(columns) - derived))
        self.optional = dict(optional or {})
        self.chunks: dict[int, Chunk] = {}
        self.count = 0  # number of the next entry
        self._blobs: dict[int, int] = {}  # first -> stop of what snapshots hold, ascending
        self._gone: set[str] = set()
        self._saved = 0

    @property
    def tail(self) -> int:
        """Number of the first entry that is held."""
        return min(self.chunks) * self.chunk_rows if self.chunks else self.count

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for chunk in self.chunks.values() for array in chunk.values())

    def append(self, arrays: Mapping[str, Array]) -> list[tuple[int, int, int]]:
        """Append entries; `arrays` has every column. Returns (chunk, first, stop) of the places that were filled."""
        entries = len(next(iter(arrays.values())))
        done = 0
        filled = []
        while done < entries:
            index, place = divmod(self.count, self.chunk_rows)
            chunk = self.chunks.get(index)
            if chunk is None:
                chunk = self.chunks[index] = self._empty()
            some = min(entries - done, self.chunk_rows - place)
            for name, array in arrays.items():
                chunk[name][place : place + some] = array[done : done + some]
            done += some
            self.count += some
            filled.append((index, place, place + some))
        return filled

    def _empty(self) -> Chunk:
        shapes = {name: spec if isinstance(spec, tuple) else (spec, None) for name, spec in self.columns.items()}
        rows = self.chunk_rows
        return {
            name: np.empty(rows if width is None else (rows, width), dtype) for name, (dtype, width) in shapes.items()
        }

    def filled(self, index: int) -> int:
        """Entries of one chunk."""
        return min(self.chunk_rows, self.count - index * self.chunk_rows)

    def gather(self, numbers: I64, *names: str) -> tuple[Array, ...]:
        """The columns of these entries, which are held."""
        index, place = np.divmod(numbers, self.chunk_rows)
        if not len(numbers):
            return tuple(array[:0] for array in (self._empty()[name] for name in names))
        if (index == index[0]).all():
            chunk = self.chunks[int(index[0])]
            return tuple(chunk[name][place] for name in names)
        first = self.chunks[int(index[0])]
        out = tuple(np.empty((len(numbers), *first[name].shape[1:]), first[name].dtype) for name in names)
        for each in np.unique(index).tolist():
            here = np.flatnonzero(index == each)
            for array, name in zip(out, names, strict=True):
                array[here] = self.chunks[each][name][place[here]]
        return out

    def drop(self, index: int) -> None:
        """Forget a chunk and its blobs."""
        del self.chunks[index]
        first, stop = index * self.chunk_rows, (index + 1) * self.chunk_rows
        for blob in [blob for blob in self._blobs if first <= blob < stop]:
            del self._blobs[blob]
            self._gone.add(self._name(blob))
        self._saved = max(self._saved, min(stop, self.count))

    def is_full(self, index: int) -> bool:
        return self.count >= (index + 1) * self.chunk_rows

    # -- snapshots

    def changed_blobs(self) -> dict[str, bytes | None]:
        """Blobs of what is new since the last call, None for those that are gone."""
        blobs: dict[str, bytes | None] = dict.fromkeys(sorted(self._gone))
        self._gone = set()
        for first, stop in self._parts(self._saved):
            start = first
            while merged := self._to_merge(start, stop - start):
                for blob in merged:
                    del self._blobs[blob]
                    blobs[self._name(blob)] = None
                start = merged[0]
            self._blobs[start] = stop
            blobs[self._name(start)] = self._encode(start, stop)
        self._saved = self.count
        return blobs

    def whole_blobs(self) -> dict[str, bytes]:
        """One blob a chunk: the same for the same entries, whatever snapshots were made. Leaves no trace."""
        return {self._name(first): self._encode(first, stop) for first, stop in self._parts(self.tail)}

    def _parts(self, first: int) -> Iterator[tuple[int, int]]:
        """[first, count) cut at chunk ends."""
        while first < self.count:
            stop = min(self.count, (first // self.chunk_rows + 1) * self.chunk_rows)
            yield first, stop
            first = stop

    def _to_merge(self, first: int, size: int) -> list[int]:
        """The blobs before `first` that are to be written again together with `size` entries from there on."""
        chunk = first // self.chunk_rows * self.chunk_rows
        found: list[int] = []
        for blob in reversed(self._blobs):
            if blob < chunk or blob >= first or self._blobs[blob] - blob >= MERGED_BLOBS * size:
                break
            found.append(blob)
        return found[::-1] if len(found) >= MERGED_BLOBS - 1 else []

    def _name(self, first: int) -> str:
        return f"{self.prefix}/{first}"

    def _encode(self, first: int, stop: int) -> bytes:
        index, place = divmod(first, self.chunk_rows)
        places = slice(place, place + stop - first)
        sections = {name: self.chunks[index][name][places] for name in self.stored}
        return container.encode(self.prefix, VERSION, {"first": first}, sections)

    def _where_lacking(self, column: str) -> float | None:
        """What an optional column is where a state lacks it; None: it is not optional."""
        begins = f"{column.partition('.')[0]}."
        return self.optional.get(column, self.optional.get(begins))

    def _lacking(self, column: str, entries: int) -> Array:
        spec = self.columns[column]
        dtype, shape = (spec[0], (entries, spec[1])) if isinstance(spec, tuple) else (spec, (entries,))
        return np.full(shape, self._where_lacking(column), dtype)

    def load(self, blobs: Mapping[str, bytes], tail: int, count: int) -> list[tuple[int, int, int]]:
        """Fill an empty log with its blobs of `blobs`: the entries [tail, count). Returns as `append`; derived columns stay
        empty. Raises ContainerError, also where a blob is missing or of entries that are not wanted.
        """
        filled = []
        mine = sorted((int(name.rpartition("/")[2]), name) for name in blobs if name.rpartition("/")[0] == self.prefix)
        self.count = self._saved = tail
        for first, name in mine:
            required = [column for column in self.stored if self._where_lacking(column) is None]
            read = container.decode(blobs[name])
            others = [column for column in read.sections if self._where_lacking(column) is not None]
            stored = read.expect(self.prefix, VERSIONS, required, others).sections
            entries = len(stored[required[0]])
            lacking = {column: self._lacking(column, entries) for column in self.stored if column not in stored}
            sections = {column: stored[column] for column in self.stored if column in stored} | lacking
            if first != self.count:
                raise container.Malformed(f"{name}: entry {self.count} expected")
            try:
                filled += self.append(sections)
            except ValueError as error:  # a column of another width
                raise container.Malformed(f"{name}: {error}") from None
            self._blobs[first] = self.count
        self._saved = self.count
        if self.count != count:
            raise container.Malformed(f"{self.prefix}: {self.count} entries, expected {count}")
        return filled
