"""Message sets to chunks to records, with aiokafka's own builders and readers as the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.chunks import (
    Chunk,
    CorruptBatchError,
    Plain,
    chunks,
    is_current_format,
    read_batches,
    records_of,
    split,
)
from stream.unpack import UNPACK


def batch(base: int, rows: list[tuple[bytes | None, bytes | None]], *, codec: int = 0, first_ms: int = 1_000) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 20)
    for i, (key, value) in enumerate(rows):
        assert builder.append(i, first_ms + i, key, value, [("h", b"x")]) is not None
    data = bytearray(builder.build())
    data[0:8] = base.to_bytes(8, "big")  # the broker writes the base offset; the checksum does not cover it
    return bytes(data)


def texts(records) -> list[tuple[int, int, bytes | None, bytes | None]]:
    raw = records.buffer.tobytes()

    def cut(start: int, length: int) -> bytes | None:
        return None if length < 0 else raw[start : start + length]

    return [
        (int(o), int(t), cut(int(ks), int(kl)), cut(int(vs), int(vl)))
        for o, t, ks, kl, vs, vl in zip(
            records.offset, records.timestamp_ms, records.key_start, records.key_length, records.value_start,
            records.value_length, strict=True,
        )
    ]  # fmt: skip


def oracle(data: bytes, position: int) -> list[tuple[int, int, bytes | None, bytes | None]]:
    memory, rows = MemoryRecords(data), []
    while memory.has_next():
        rows += [(r.offset, r.timestamp, r.key, r.value) for r in memory.next_batch() if r.offset >= position]
    return rows


def raw(data: bytes, position: int = 0) -> Chunk:
    pieces = list(read_batches(data, position, UNPACK, check_crc=True))
    (chunk,) = chunks("t", 0, pieces, 1_000_000, 0)
    return chunk


field = st.none() | st.binary(max_size=12)
logs = st.lists(
    st.tuples(st.integers(0, 4), st.lists(st.tuples(field, field), min_size=1, max_size=5)), min_size=1, max_size=4
)


@settings(deadline=None)  # the first call compiles
@given(logs, st.integers(0, 20))
def test_records_are_those_of_the_clients_own_reader(log, position):
    data, base = b"", 0
    for codec, rows in log:
        data += batch(base, rows, codec=codec)
        base += len(rows)
    position = min(position, base - 1)
    chunk = raw(data, position)
    assert (chunk.first_offset, chunk.next_offset) == (position, base)
    assert texts(records_of(chunk, position)) == oracle(data, position)


def test_a_position_inside_the_chunk_drops_what_was_applied():
    chunk = raw(batch(0, [(None, b"a")]) + batch(1, [(None, b"b"), (None, b"c")]))
    assert [row[3] for row in texts(records_of(chunk, 2))] == [b"c"]
    assert len(records_of(chunk, 3)) == 0
    assert records_of(chunk, 3).next_offset == 3


def test_a_batch_cut_short_by_the_fetch_is_left_for_the_next_one():
    whole = batch(0, [(None, b"a")])
    assert raw(whole + batch(1, [(None, b"b")])[:-1]).next_offset == 1


@pytest.mark.parametrize("at", [21, 40, 61, -1])
def test_a_flipped_bit_is_found(at):
    data = bytearray(batch(0, [(b"key", b"value")]))
    data[at] ^= 1
    with pytest.raises(CorruptBatchError):
        list(read_batches(bytes(data), 0, UNPACK, check_crc=True))


def test_hostile_lengths_are_refused():
    data = bytearray(batch(0, [(b"key", b"value")]))
    data[8:12] = (3).to_bytes(4, "big")
    with pytest.raises(CorruptBatchError):
        list(read_batches(bytes(data), 0, UNPACK, check_crc=True))


def test_a_control_batch_only_moves_the_position():
    control = bytearray(batch(5, [(b"\0\0\0\1", b"")]))
    control[21:23] = (0x20).to_bytes(2, "big")
    (hole,) = read_batches(bytes(control), 5, UNPACK, check_crc=False)
    assert (hole.start_offset, hole.next_offset, hole.count) == (5, 6, 0)


def test_log_append_time_is_the_batchs_latest():
    data = bytearray(batch(0, [(None, b"a"), (None, b"b")], first_ms=10))
    data[21:23] = (0x08).to_bytes(2, "big")
    (piece,) = read_batches(bytes(data), 0, UNPACK, check_crc=False)
    records = records_of(Chunk("t", 0, (piece,), 0), 0)
    assert records.timestamp_ms.tolist() == [11, 11]


def test_old_formats_are_told_apart():
    old = LegacyRecordBatchBuilder(1, 0, 1 << 16)
    old.append(0, 1, b"k", b"v")
    assert not is_current_format(bytes(old.build()))
    assert is_current_format(batch(0, [(None, b"a")]) + batch(1, [(None, b"a")]))


def test_chunks_hold_whole_batches_up_to_a_limit():
    pieces = list(read_batches(b"".join(batch(3 * i, [(None, b"x")] * 3) for i in range(5)), 0, UNPACK, check_crc=True))
    found = list(chunks("t", 0, pieces, 7, 0))
    assert [(c.first_offset, c.next_offset, c.count) for c in found] == [(0, 6, 6), (6, 12, 6), (12, 15, 3)]


def test_plain_records_and_batches_mix_in_order():
    plain = tuple(Plain(i, 7, None if i else b"k", b"p%d" % i, (), i, i + 1) for i in range(2))
    (after,) = read_batches(batch(2, [(b"q", None)]), 2, UNPACK, check_crc=True)
    records = records_of(Chunk("t", 0, (*plain, after), 0), 0)
    assert texts(records) == [(0, 7, b"k", b"p0"), (1, 7, None, b"p1"), (2, 1000, b"q", None)]


@settings(deadline=None)
@given(st.integers(0, 9), st.integers(1, 4))
def test_split_keeps_every_record_and_says_where_each_part_ends(n, events_max):
    rows = [(None, b"%d" % i) for i in range(n)] or [(None, b"x")]
    records = records_of(raw(batch(0, rows)), 0)
    parts = list(split(records, events_max))
    assert np.concatenate([part.offset for part in parts]).tolist() == records.offset.tolist()
    ends = [part.next_offset for part in parts]
    assert ends[-1] == records.next_offset
    for part, end, following in zip(parts, ends, parts[1:], strict=False):
        assert len(part) == events_max
        assert end == following.offset[0]
