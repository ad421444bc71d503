"""Model, version and segments of waiting events as small codes: one table a log, kept while an event of the log has the code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from stream import container
from stream.columns import U32

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
