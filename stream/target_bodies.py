"""The members of "targets" in a windows record: as `orjson.dumps` with sorted keys would write them, byte for byte, at a fraction of
its cost. Pure.

Numbers are orjson's, all in one call; the rest is text that is the same in every window (stream/kernels/target_text.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import orjson

from detectors.verdict import BadCounts
from stream.columns import F64, I64, U8
from stream.kernels import target_text as at

BINS = "bins"
EVIDENCE = ("evidence.rank", "evidence.tube")  # columns that are members of "evidence"
LAYOUTS_KEPT = 256
BEHIND = 2  # zeros after the numbers, so that a comma stands behind the last one and at.WORD bytes can be read behind that: "0.0,0.0]"


class Targets:
    """The bodies of t targets, in the order of their names as they sort: the i-th is at text[start[i]:start[i + 1] - 1], all of them
    are one JSON object.
    """

    def __init__(self, text: U8, start: I64, rank: I64) -> None:
        self._text, self._start, self._rank = text, start, rank

    @classmethod
    def none(cls) -> Targets:
        return cls(np.frombuffer(b"{}", np.uint8), np.array([2]), np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self._rank)

    def json(self) -> memoryview:
        """All of them, as a JSON object. Not copied."""
        return self._text[: int(self._start[-1])].data

    def part(self, part: int, parts: int) -> bytes:
        """Those at places part, part + parts, ... of the plan, as a JSON object."""
        bounds = [self._start[place : place + 2] for place in sorted(self._rank[part::parts].tolist())]
        return b"{%b}" % b",".join(self._text[first : stop - 1].tobytes() for first, stop in bounds)


class _Flat(NamedTuple):
    """Texts end to end, and a word behind them: the i-th is at [start[i], start[i + 1])."""

    text: U8
    start: I64

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> _Flat:
        start = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(texts) + bytes(at.WORD), np.uint8), start)


class _Names(NamedTuple):
    """order I64[t]: places of the names as they sort; rank I64[t]: its inverse; in_order: both are 0 .. t - 1."""

    order: I64
    rank: I64
    flat: _Flat
    in_order: bool


class _Slots(NamedTuple):
    """What every target's body has, in order; `columns`: its numbers, `texts`: members that not every target has."""

    kind: I64
    keys: _Flat
    after: I64
    columns: tuple[str, ...]
    texts: tuple[str, ...]


@lru_cache(LAYOUTS_KEPT)
def _names(names: tuple[str, ...]) -> _Names:
    order = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)
    in_order = bool((order == np.arange(len(order))).all())
    return _Names(order, np.argsort(order), _Flat.of([orjson.dumps(name) + b":" for name in names]), in_order)


@lru_cache(LAYOUTS_KEPT)
def _slots(columns: tuple[str, ...], texts: tuple[str, ...]) -> _Slots:
    members = sorted((*columns, *texts, BINS))
    kind = [at.COUNTS if name == BINS else at.TEXT if name in texts else at.NUMBER for name in members]
    keys = [b"" if name in texts else orjson.dumps(name) + b":" for name in members]
    after = np.zeros(len(members), np.int64)
    if EVIDENCE[0] in columns:
        place = members.index(EVIDENCE[0])
        keys[place : place + 2] = [b'"evidence":{"rank":', b'"tube":']
        after[place + 1] = 1
    numbers = tuple(name for name in members if name in columns)
    return _Slots(np.array(kind, np.int64), _Flat.of(keys), after, numbers, tuple(filter(texts.__contains__, members)))


def _by_target(columns: Sequence[F64], order: I64 | None) -> F64:
    """Columns F64[t] as numbers target by target, targets in this order (None: as they stand), and BEHIND zeros."""
    targets = len(columns[0]) if columns else 0
    numbers = np.zeros(len(columns) * targets + BEHIND)
    if targets:
        table = np.concatenate(columns).reshape(len(columns), targets).T
        numbers[: table.size].reshape(table.shape)[:] = table if order is None else table[order]
    return numbers


def target_bodies(
    names: tuple[str, ...],
    columns: Mapping[str, F64],
    counts: I64,
    start: I64,
    members: Mapping[str, Mapping[int, Any] | Sequence[Any]],
) -> Targets:
    """Targets with columns F64[t] (NaN = null) by their keys, counts of each in the layout of Tally, and `members`: more of some
    targets, by key and by place of the target, or of each of them. Raises BadCounts. O(bytes).
    """
    if counts.min(initial=0) < 0:
        raise BadCounts("negative counts")
    order, rank, name, in_order = _names(names)
    slots = _slots(tuple(columns), tuple(members))
    text_of = np.zeros((len(names), len(slots.texts)), np.int64)
    known: dict[bytes, int] = {b"": 0}
    for slot, key in enumerate(slots.texts):
        own = members[key]
        head = orjson.dumps(key)
        if isinstance(own, Mapping):
            for place, value in own.items():
                entry = b"%b:%b," % (head, orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
                text_of[place, slot] = known.setdefault(entry, len(known))
        else:
            said = {value: b"%b:%b," % (head, orjson.dumps(value)) for value in set(own)}
            which = {value: known.setdefault(entry, len(known)) for value, entry in said.items()}
            text_of[:, slot] = [which[value] for value in own]
    text = _Flat.of(list(known))
    numbers = _by_target([columns[key] for key in slots.columns], None if in_order else order)
    digits = orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)
    longest = len(slots.keys.text) + int(slots.after.sum()) + len(slots.kind) + 4
    texts = int(np.diff(text.start)[text_of].sum())
    count_chars = len(str(int(counts.max(initial=0)))) + 1
    room = len(names) * longest + len(name.text) + texts + len(digits) + count_chars * len(counts)
    out, out_start = np.empty(len(b"{}") + room + at.WORD, np.uint8), np.empty(len(names) + 1, np.int64)
    at.write(
        order, name.text, name.start, slots.kind, slots.keys.text, slots.keys.start, slots.after,
        np.frombuffer(digits, np.uint8, offset=1), text.text, text.start, text_of, counts, start, out[1:], out_start,
    )  # fmt: skip
    out_start += 1
    out[0], out[max(int(out_start[-1]) - 1, 1)] = at.OPEN, at.CLOSE  # in the place of the last comma
    return Targets(out, out_start, rank) if names else Targets.none()
