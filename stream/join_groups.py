"""Model, version and segments of waiting events as small codes: one table a log, kept while an event of the log has the code.

And what feedback that carries its prediction needs besides: a cap on versions, the last event of each id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stream import container
from stream.columns import I64, U32, U64
from stream.plan import OTHER

VERSION = 1
VERSIONS = (VERSION,)
NO_GROUP = 0xFFFFFFFF


class Group(NamedTuple):
    """What predictions are told apart by. `segments`: key=value of every configured key, "all" left out."""

    model: str
    version: str
    segments: tuple[str, ...] = ()


class Groups(Mapping[int, Group]):
    """Code -> group. Codes count up in order of first occurrence; that of a group which has gone is not given again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._of: dict[int, Group] = {}
        self._code: dict[Group, int] = {}
        self._last_chunk: dict[int, int] = {}
        self._next = 0
        self._changed = True

    def __getitem__(self, code: int) -> Group:
        return self._of[code]

    def __iter__(self) -> Iterator[int]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def code(self, group: Group, chunk: int) -> int:
        """The code, made on first sight; `chunk`: the one that the log is filling."""
        code = self._code.get(group)
        if code is None:
            code = self._code[group] = self._next
            self._of[code] = group
            self._next += 1
            self._changed = True
        self._last_chunk[code] = max(chunk, self._last_chunk.get(code, chunk))
        return code

    def touch(self, codes: U32, chunk: int) -> None:
        """These codes stand in the chunk; NO_GROUP is none."""
        for code in np.unique(codes).tolist():
            if code != NO_GROUP:
                self._last_chunk[code] = chunk

    def prune(self, tail_chunk: int) -> None:
        """Forget groups that no chunk from `tail_chunk` on has."""
        for code in [code for code, chunk in self._last_chunk.items() if chunk < tail_chunk]:
            del self._code[self._of.pop(code)], self._last_chunk[code]
            self._changed = True

    def changed_blobs(self) -> dict[str, bytes | None]:
        """The table, if it is another than at the last call."""
        blobs: dict[str, bytes | None] = dict(self.whole_blobs()) if self._changed else {}
        self._changed = False
        return blobs

    def whole_blobs(self) -> dict[str, bytes]:
        listing = [[code, group.model, group.version, list(group.segments)] for code, group in sorted(self._of.items())]
        header: dict[str, Any] = {"groups": listing, "next": self._next}
        return {self.name: container.encode("join-groups", VERSION, header, {})}

    def load(self, data: bytes, chunk: int) -> None:
        """Fill an empty table, all groups as if in `chunk`, the oldest; `touch` follows. Raises ContainerError."""
        header = container.decode(data).expect("join-groups", VERSIONS, ()).header
        for code, model, version, segments in header["groups"]:
            group = Group(model, version, tuple(segments))
            self._of[code], self._code[group], self._last_chunk[code] = group, code, chunk
        self._next = header["next"]
        self._changed = False


class Versions:
    """Codes of what feedback carries, with the first `versions_max` versions of each slice and model in its log told apart.

    Which they are stands in the log itself: `know` finds them again.
    """

    def __init__(self, groups: Groups, versions_max: int) -> None:
        self._groups = groups
        self._max = versions_max
        self._known: dict[tuple[int, str], set[str]] = {}

    def codes(self, groups: Sequence[Group], place: U32, slices: I64, chunk: int) -> U32:
        """Code of the group at each `place` among `groups`, NO_GROUP where it is that; rows in log order, of the slices I64[n]."""
        codes = np.full(len(place), NO_GROUP, np.uint32)
        own = np.flatnonzero(place != NO_GROUP)
        if not len(own):
            return codes
        pairs = (slices[own] - slices[own].min()) * len(groups) + place[own]
        _, first, pair = np.unique(pairs, return_index=True, return_inverse=True)
        found = np.empty(len(first), np.uint32)
        for each in np.argsort(first).tolist():  # in log order
            row = own[first[each]]
            group = groups[place[row]]
            told = group._replace(version=self._label(int(slices[row]), group))
            found[each] = self._groups.code(told, chunk)
        codes[own] = found[pair]
        return codes

    def _label(self, slice_: int, group: Group) -> str:
        known = self._known.setdefault((slice_, group.model), set())
        if group.version not in known:
            if len(known) >= self._max or group.version == OTHER:
                return OTHER
            known.add(group.version)
        return group.version

    def forget(self, before: int) -> None:
        """Slices before this one take no events any more."""
        self._known = {place: known for place, known in self._known.items() if place[0] >= before}

    def know(self, slices: I64, codes: U32) -> None:
        """Events that wait: their slices and codes."""
        own = codes != NO_GROUP
        for slice_, code in np.unique(np.stack([slices[own], codes[own].astype(np.int64)]), axis=1).T.tolist():
            group = self._groups[code]
            if group.version != OTHER:
                self._known.setdefault((slice_, group.model), set()).add(group.version)


def last_of_each(slice_end: I64, high: U64, low: U32) -> I64:
    """Places, ascending, of the last event of each id in each slice."""
    order = np.lexsort((np.arange(len(high)), low, high, slice_end))
    end, a, b = slice_end[order], high[order], low[order]
    last = np.ones(len(order), bool)
    last[:-1] = (end[1:] != end[:-1]) | (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    return np.sort(order[last])
