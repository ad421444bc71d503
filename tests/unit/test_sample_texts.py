"""Texts of samples: how many, how long, and that the largest still fit their records."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash

from stream.columns import Tag
from stream.limits import RECORD_BYTES_MAX, SAMPLE_TEXT_CHARACTERS_MAX, SAMPLE_TEXTS_MAX
from stream.panes import Pane, Sample, decode_record, encode_pane, merge_blocks
from stream.registers import Registers
from stream.sample_texts import SECTIONS, carried, pack, shown, unpack
from stream.tally import merged_sample

ROWS, TARGETS = 20_000, 3


def sample() -> Sample:
    """Every text another one of the longest and widest kind."""
    cell = np.arange(ROWS * TARGETS, dtype=np.uint64).reshape(ROWS, TARGETS)
    tag = np.full((ROWS, TARGETS), Tag.TEXT, np.uint8)
    known = {key: f"{key:06d}" + "𝄞" * (SAMPLE_TEXT_CHARACTERS_MAX - 6) for key in range(ROWS * TARGETS)}
    return Sample(np.arange(ROWS, dtype=np.uint64), cell, tag, carried(known, cell, tag))


def test_the_largest_texts_fit_records_and_come_back() -> None:
    whole = sample()
    assert len(whole.texts) == TARGETS * SAMPLE_TEXTS_MAX
    zero = np.zeros(TARGETS, np.int64)
    pane = Pane(
        partition=0, edge_ms=0, model="m", version="1", segment="all", plan="p", reference="", events=ROWS,
        names=("a", "b", "c"), first_target=0, last_block=True, bin_start=np.zeros(TARGETS + 1, np.int64),
        bins=np.empty(0, np.int64), sums=np.zeros((TARGETS, 2)), extremes=np.full((TARGETS, 2), np.nan),
        missing=zero, invalid=zero, out_of_range=zero, distinct=Registers.none(), sample=whole,
    )  # fmt: skip
    records = encode_pane(pane)
    assert len(records) == TARGETS
    assert max(map(len, records)) <= RECORD_BYTES_MAX
    blocks = [block for record in records if isinstance(block := decode_record(record), Pane)]
    found = merge_blocks(blocks).sample
    assert found is not None
    assert found.texts == whole.texts


def test_merging_keeps_what_the_merged_rows_carry() -> None:
    whole = sample()
    halves = []
    for half in (slice(0, None, 2), slice(1, None, 2)):
        cell, tag = whole.cell[half], whole.tag[half]
        known = {int(key): f"{key:06d}" for key in cell.ravel()}
        halves.append(Sample(whole.hash[half], cell, tag, carried(known, cell, tag)))
    merged = merged_sample(halves[0], halves[1], ROWS)
    assert merged.texts.keys() == whole.texts.keys()


def test_long_texts_are_cut_and_stay_apart() -> None:
    left, right = shown("x" * 300 + "a"), shown("x" * 300 + "b")
    assert len(left) == len(right) == SAMPLE_TEXT_CHARACTERS_MAX
    assert left != right
    assert shown("x" * SAMPLE_TEXT_CHARACTERS_MAX) == "x" * SAMPLE_TEXT_CHARACTERS_MAX


def test_what_does_not_fit_is_refused() -> None:
    packed = pack({xxhash.xxh3_64_intdigest(b"DE"): "DE", 2: "Österreich"})
    parts = [packed[name] for name in SECTIONS]
    assert list(unpack(*parts).values()) == ["DE", "Österreich"]
    with pytest.raises(ValueError, match="2 hashes, 2 lengths, 12 bytes"):
        unpack(parts[0], parts[1], parts[2][:-1])
