"""What the events' features look like beside what is counted of them: names that no plan has, types that are none of a feature's.

It is looked at in a sample: the events whose prediction_id's hash ends in zeros, one in 256. The same events are looked at
however the log is batched, cut into partitions or read again, so a sample is a function of the events, and samples add up.
Samples say how many events were looked at, so shares stay right where some of a window were taken at one in 64, as at first.

Names come from events, so they are bounded: of the names that no plan has, those NAMES_MAX with the smallest hashes are
kept, with exact counts: one that is kept in the end was never dropped on the way. The others are counted together. Of
values only their JSON types are kept: values may be private. Cost: about 5 us an event looked at, .03 us an event.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from stream.columns import I64, U8, U32
from stream.limits import NAME_BYTES_MAX, limit
from stream.strict_json import NON_FINITE, RawNumber

LOOKED_AT_MASK = 255  # of the hash's last bits: one event in 256
NAMES_MAX = limit(
    "schema_names_max",
    16,
    "names of features that no plan has, kept of one pane or window; others are counted together",
)
HEADER_BYTES = 400  # of an empty one, its dictionaries with it
NAME_BYTES = 250  # of a name's entry, its counts with it


class JsonType(IntEnum):
    """Of a feature's value. NOT_FINITE: NaN, Infinity, or beyond float64."""

    NUMBER = 0
    TEXT = 1
    BOOL = 2
    NULL = 3
    ARRAY = 4
    OBJECT = 5
    NOT_FINITE = 6


Key = TypeVar("Key", str, int)
Counts = list[int]  # by JsonType
Features = Mapping[str, Any]
FeaturesOf = Callable[[int], Features | None]  # of one row; None = not to be had


def nothing(_row: int) -> None:
    """Features of rows that were not read from records."""
    return


@dataclass(slots=True)
class SchemaSample:
    """`looked`: events of the sample. `names`: counts by type of names that no plan has; `crowd`: occurrences of all other such
    names. `odd`: place of a feature among the plan's targets -> counts by type of values that are not of its kind.
    """

    looked: int = 0
    crowd: int = 0
    names: dict[str, Counts] = field(default_factory=dict)
    odd: dict[int, Counts] = field(default_factory=dict)

    def look(self, rows: I64, tag: U8, id_low: U32, features_of: FeaturesOf, expected: Expected) -> None:
        """Look at those of `rows` that are in the sample. tag U8[n, c], id_low U32[n]: the chunk's."""
        chosen = rows[(id_low[rows] & np.uint32(LOOKED_AT_MASK)) == 0]
        if not len(chosen):
            return
        wrong = ~expected.allowed[expected.index, tag[chosen[:, None], expected.column]]
        odd = set(np.flatnonzero(wrong.any(axis=1)).tolist())  # mostly none
        for at, row in enumerate(chosen.tolist()):
            features = features_of(row)
            if features is None:
                continue
            self.looked += 1
            if not expected.known.issuperset(features):
                self._meet({name: features[name] for name in features.keys() - expected.known})
            if at not in odd:
                continue
            for index in np.flatnonzero(wrong[at]).tolist():
                if expected.names[index] in features:
                    counts = self.odd.setdefault(expected.places[index], [0] * len(JsonType))
                    counts[json_type(features[expected.names[index]])] += 1

    def _meet(self, strange: Features) -> None:
        for name, value in strange.items():
            if not name or len(name) > NAME_BYTES_MAX or len(name.encode()) > NAME_BYTES_MAX:
                self.crowd += 1
                continue
            self.names.setdefault(name, [0] * len(JsonType))[json_type(value)] += 1
        self._bound()

    def _bound(self) -> None:
        if len(self.names) > NAMES_MAX:
            for name in sorted(self.names, key=_rank)[NAMES_MAX:]:
                self.crowd += sum(self.names.pop(name))

    def copy(self) -> SchemaSample:
        return SchemaSample(
            self.looked,
            self.crowd,
            {name: list(counts) for name, counts in self.names.items()},
            {place: list(counts) for place, counts in self.odd.items()},
        )

    def add(self, other: SchemaSample) -> None:
        """Of the same plan."""
        self.looked += other.looked
        self.crowd += other.crowd
        _add(self.names, other.names)
        _add(self.odd, other.odd)
        self._bound()

    def between(self, first: int, stop: int) -> SchemaSample:
        """Of the targets [first, stop), places counted from `first`; everything else with the first of all blocks."""
        odd = {place - first: counts for place, counts in self.odd.items() if first <= place < stop}
        return SchemaSample(self.looked, self.crowd, self.names, odd) if first == 0 else SchemaSample(odd=odd)

    @property
    def nbytes(self) -> int:
        return HEADER_BYTES + sum(NAME_BYTES + len(name) for name in self.names) + NAME_BYTES * len(self.odd)

    def header(self) -> list[Any]:
        """For a container: equal content gives equal bytes."""
        odd = [[place, *counts] for place, counts in sorted(self.odd.items())]
        return [self.looked, self.crowd, dict(sorted(self.names.items())), odd]

    @classmethod
    def of(cls, header: Sequence[Any]) -> SchemaSample:
        """Inverse of `header`."""
        looked, crowd, names, odd = header
        return cls(looked, crowd, {name: list(counts) for name, counts in names.items()}, {p: c for p, *c in odd})


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """What a plan expects of f features: places among its targets, `names`, column I64[f] of the chunk, allowed bool[f, 5] by Tag.

    `known`: names of features that it does not follow, these ones among them.
    """

    places: tuple[int, ...]
    names: tuple[str, ...]
    column: I64
    allowed: NDArray[np.bool_]
    known: frozenset[str]

    @property
    def index(self) -> I64:
        return np.arange(len(self.places))


def joined(blocks: Sequence[SchemaSample | None], targets: Sequence[int]) -> SchemaSample | None:
    """Inverse of `between` for blocks of so many targets each; None where none has any."""
    whole, first = SchemaSample(), 0
    for block, width in zip(blocks, targets, strict=True):
        if block is not None:
            odd = {place + first: counts for place, counts in block.odd.items()}
            whole.add(SchemaSample(block.looked, block.crowd, block.names, odd))
        first += width
    return whole if any(block is not None for block in blocks) else None


def json_type(value: Any) -> JsonType:
    """Of a value as orjson or the strict parser reads it."""
    if value is NON_FINITE:
        return JsonType.NOT_FINITE
    if isinstance(value, bool):
        return JsonType.BOOL
    if isinstance(value, RawNumber | int | float):
        return JsonType.NUMBER if _finite(value) else JsonType.NOT_FINITE
    if isinstance(value, str):
        return JsonType.TEXT
    if value is None:
        return JsonType.NULL
    return JsonType.ARRAY if isinstance(value, list) else JsonType.OBJECT


def _finite(value: RawNumber | float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _rank(name: str) -> tuple[int, str]:
    return xxh3_64_intdigest(name.encode()), name


def _add(into: dict[Key, Counts], more: Mapping[Key, Counts]) -> None:
    for key, counts in more.items():
        have = into.get(key)
        into[key] = list(counts) if have is None else [a + b for a, b in zip(have, counts, strict=True)]


def known_types(labels: Collection[str]) -> set[JsonType]:
    """JSON types that categories of these texts can have had; a category is its text, whatever its type."""
    return {_type_of(label) for label in labels}


def _type_of(label: str) -> JsonType:
    if label in {"true", "false"}:
        return JsonType.BOOL
    try:
        float(label)
    except ValueError:
        return JsonType.TEXT
    return JsonType.NUMBER
