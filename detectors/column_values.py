"""A column's values as the collector would see them: numbers, category hashes, missing, invalid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.binning import Kind, category_hash, category_text
from detectors.reference import BadReference

F64 = NDArray[np.float64]
U64 = NDArray[np.uint64]
U8 = NDArray[np.uint8]

VALID, MISSING, INVALID = 0, 1, 2
# stream.columns.Tag: what a collector's cell holds
TAG_MISSING, TAG_NUMBER, TAG_TEXT, TAG_BOOL = 0, 1, 2, 3
PREDICTION = "prediction"
CLASSES_MAX = 20  # a prediction with more distinct values is a regression's, not a class


class UnknownKind(BadReference):
    """A column's kind is neither "numeric" nor "categorical", or its dtype cannot be watched."""


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """A column as the collector has it: cell U64[n] (float64 bits | xxh3-64 of a text | 0/1), tag U8[n] (stream.columns.Tag)."""

    cell: U64
    tag: U8


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """n rows. state U8[n]: VALID, MISSING, INVALID. numeric: value F64[n]; categorical: hash U64[n], `texts` hash -> text."""

    kind: Kind
    state: U8
    value: F64
    hash: U64
    texts: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.state)

    def take(self, rows: NDArray[Any] | slice) -> Column:
        value = self.value[rows] if self.kind is Kind.NUMERIC else self.value
        hashes = self.hash[rows] if self.kind is Kind.CATEGORICAL else self.hash
        return Column(self.kind, self.state[rows], value, hashes, self.texts)


def wanted_kind(name: str, kind: str | None) -> Kind | None:
    if kind is None or kind == "auto":
        return None
    try:
        return Kind(kind)
    except ValueError:
        raise UnknownKind(f"{name}: kind {kind!r} is not known; known: numeric, categorical, auto") from None


def read_column(name: str, values: NDArray[Any], role: str, kind: str | None = None) -> Column:
    """A file's column. float64 (NaN = missing, infinite = invalid), int, bool, text, or object of these (None = missing).

    Without a kind: text and bool are categorical, a prediction of at most CLASSES_MAX distinct values too, numbers numeric;
    a mixed column is what most of its values are, the others are invalid.
    """
    wanted = wanted_kind(name, kind)
    values = np.asarray(values)
    if values.ndim != 1:
        raise UnknownKind(f"{name}: {values.ndim} dimensions")
    if values.dtype.kind in "iuf":
        return _from_numbers(values.astype(np.float64), role, wanted)
    if values.dtype.kind in "bUO":
        return _from_objects(values.tolist(), role, wanted)
    raise UnknownKind(f"{name}: values of dtype {values.dtype} are neither numbers, texts nor bools")


def read_cells(name: str, cells: Cells, role: str, kind: str | None, texts: Mapping[int, str]) -> Column:
    """A sampled column of the stream. The text of a hash that is not in `texts` is not known: it is named by its hash."""
    wanted = wanted_kind(name, kind)
    numbers, texts_at, bools = (cells.tag == tag for tag in (TAG_NUMBER, TAG_TEXT, TAG_BOOL))
    state = np.full(len(cells.tag), INVALID, np.uint8)
    state[cells.tag == TAG_MISSING] = MISSING
    value = np.where(numbers, cells.cell.view(np.float64), np.nan)
    if wanted is None:
        mostly_text = np.count_nonzero(texts_at | bools) > np.count_nonzero(numbers)
        wanted = Kind.CATEGORICAL if mostly_text or _is_class(value[numbers], role) else Kind.NUMERIC
    if wanted is Kind.NUMERIC:
        state[numbers & np.isfinite(value)] = VALID
        return Column(wanted, state, value, np.empty(0, np.uint64))
    state[numbers | texts_at | bools] = VALID
    hashes, known = _hashes(value)
    for flag, text in ((0, "false"), (1, "true")):
        chosen = bools & (cells.cell == flag)
        hashes[chosen] = category_hash(text)
        known[category_hash(text)] = text
    hashes[texts_at] = cells.cell[texts_at]
    named = {h: texts.get(h, f"#{h:016x}") for h in np.unique(cells.cell[texts_at]).tolist()}
    return Column(wanted, state, np.empty(0), hashes, known | named)


def _is_class(numbers: F64, role: str) -> bool:
    if role != PREDICTION:
        return False
    finite = numbers[np.isfinite(numbers)]
    return 0 < len(np.unique(finite)) <= CLASSES_MAX


def _hashes(value: F64) -> tuple[U64, dict[int, str]]:
    """Category hash of every finite number, 0 for the others; and their texts."""
    hashes = np.zeros(len(value), np.uint64)
    at = np.flatnonzero(np.isfinite(value))
    distinct, inverse = np.unique(value[at], return_inverse=True)
    texts = [category_text(number) for number in distinct.tolist()]
    table = np.array([category_hash(text) for text in texts], np.uint64)
    hashes[at] = table[inverse]
    return hashes, dict(zip(table.tolist(), texts, strict=True))


def _from_numbers(value: F64, role: str, wanted: Kind | None) -> Column:
    state = np.where(np.isnan(value), MISSING, np.where(np.isfinite(value), VALID, INVALID)).astype(np.uint8)
    if wanted is None:
        wanted = Kind.CATEGORICAL if _is_class(value, role) else Kind.NUMERIC
    if wanted is Kind.NUMERIC:
        return Column(wanted, state, value, np.empty(0, np.uint64))
    hashes, texts = _hashes(value)
    return Column(wanted, state, np.empty(0), hashes, texts)


def _from_objects(values: list[Any], role: str, wanted: Kind | None) -> Column:
    number = np.full(len(values), np.nan)
    state = np.full(len(values), INVALID, np.uint8)
    hashes = np.zeros(len(values), np.uint64)
    texts: dict[str, int] = {}
    words, numbers = 0, 0
    for i, x in enumerate(values):
        if x is None:
            state[i] = MISSING
        elif isinstance(x, str | bool | np.bool_):
            text = category_text(x if isinstance(x, str) else bool(x))
            found = texts.get(text)
            if found is None:
                found = texts[text] = category_hash(text)
            hashes[i] = found
            state[i] = VALID
            words += 1
        elif isinstance(x, Real | Decimal):
            number[i] = _float(x)
            state[i] = MISSING if math.isnan(number[i]) else VALID if math.isfinite(number[i]) else INVALID
            numbers += state[i] == VALID
    if wanted is None:
        wanted = Kind.CATEGORICAL if words > numbers or _is_class(number, role) else Kind.NUMERIC
    is_number = np.isfinite(number)
    if wanted is Kind.NUMERIC:
        state[(state == VALID) & ~is_number] = INVALID
        return Column(wanted, state, number, np.empty(0, np.uint64))
    of_numbers, number_texts = _hashes(number)
    hashes[is_number] = of_numbers[is_number]
    return Column(wanted, state, np.empty(0), hashes, {h: text for text, h in texts.items()} | number_texts)


def _float(x: Any) -> float:
    try:
        return float(x)
    except OverflowError:  # an integer beyond float64: invalid, as the decoder says of it
        return math.inf
