from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from stream.decode import NATIVE, Layout, decode
from stream.kernels.framing import FramingError, frame, frame_records, join_records, records_from_lines
from stream.kernels.rows import scan_chunk

RECORDS = [(b"k1", b"value"), (None, b""), (b"", None), (b"key" * 50, b"v" * 3000), (None, None)]
HEADER_BYTES = 61


def batch_body(records: list[tuple[bytes | None, bytes | None]], first_ms: int = 1_700_000_000_000) -> bytes:
    """An uncompressed body as aiokafka's builder writes it, headers on every second record."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 24)
    for index, (key, value) in enumerate(records):
        headers = [("trace", b"x" * index)] if index % 2 else []
        builder.append(index, first_ms + 300 * index * (-1) ** index, key, value, headers)
    return bytes(builder.build())[HEADER_BYTES:]


def framed(body: bytes, count: int, **changes):
    arguments = {
        "base_offset": 100,
        "count": count,
        "first_timestamp_ms": 1_700_000_000_000,
        "max_timestamp_ms": 1_800_000_000_000,
        "log_append": False,
        "start_offset": 0,
    }
    return frame(body, **(arguments | changes))


def content(records):
    data = records.buffer.tobytes()

    def cut(start, length):
        return None if length < 0 else data[start : start + length]

    return [
        (cut(*key), cut(*value))
        for key, value in zip(
            zip(records.key_start.tolist(), records.key_length.tolist(), strict=True),
            zip(records.value_start.tolist(), records.value_length.tolist(), strict=True),
            strict=True,
        )
    ]


def test_framing_reads_what_the_client_wrote() -> None:
    records = framed(batch_body(RECORDS), len(RECORDS))
    assert content(records) == RECORDS
    assert records.offset.tolist() == [100, 101, 102, 103, 104]
    assert records.timestamp_ms.tolist() == [1_700_000_000_000 + d for d in (0, -300, 600, -900, 1200)]
    assert records.next_offset == 105


def test_framing_agrees_with_the_client_s_own_reader() -> None:
    rng = random.Random(7)
    wanted = [
        (None if rng.random() < 0.2 else rng.randbytes(rng.randrange(300)), rng.randbytes(rng.randrange(2000)))
        for _ in range(500)
    ]
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 24)
    for index, (key, value) in enumerate(wanted):
        builder.append(index, 1_700_000_000_000 + rng.randrange(-(10**9), 10**9), key, value, [])
    whole = bytes(builder.build())
    batch = DefaultRecordBatch(whole)
    first_ms = batch.first_timestamp
    seen = [(r.offset, r.timestamp, r.key, r.value) for r in batch]
    records = framed(whole[HEADER_BYTES:], 500, base_offset=0, first_timestamp_ms=first_ms)
    ours = [
        (o, t, k, v)
        for o, t, (k, v) in zip(records.offset.tolist(), records.timestamp_ms.tolist(), content(records), strict=True)
    ]
    assert ours == seen


def test_a_seek_into_a_batch_drops_what_was_applied() -> None:
    body = batch_body(RECORDS)
    assert framed(body, 5, start_offset=103).offset.tolist() == [103, 104]
    beyond = framed(body, 5, start_offset=110)
    assert len(beyond) == 0
    assert beyond.next_offset == 110
    assert framed(body, 5, next_offset=120).next_offset == 120


def test_log_append_time_is_the_batch_s() -> None:
    assert set(framed(batch_body(RECORDS), 5, log_append=True).timestamp_ms.tolist()) == {1_800_000_000_000}


def test_empty_batch() -> None:
    assert len(framed(b"", 0)) == 0


@pytest.mark.parametrize(
    ("body", "count", "fault"),
    [
        (b"", 1, "cannot fit"),
        (b"\x0e" + b"\0" * 5, -1, "cannot fit"),
        (b"\xff" * 7, 1, "varint runs past"),
        (b"\xff" * 20, 1, "longer than ten"),
        (b"\x0e\0\0\0\0\0\0", 1, "record runs past"),
        (b"\x0d\0\0\0\0\0\0", 1, "record runs past"),  # negative length
        (b"\x0c\0\0\0\x01\x02\0", 1, "varint runs past"),  # no count of headers
        (b"\x0c\0\0\0\x01\x04\0", 1, "key or value runs past"),
        (b"\x0c\0\0\0\x01\x03\0", 1, "below -1"),
        (b"\x0c\0\0\0\x01\xfe\xff", 1, "varint runs past"),
        (b"\x0c\0\0\x01\x01\x01\0", 1, "do not increase"),  # offset delta -1
        (b"\x0c\0\0\0\x01\x01\0" * 2, 2, "do not increase"),
        (b"\x0c\0\0\0\x01\x01\0\0", 1, "bytes are left"),
        (b"\0\0\0\0\0\0\0", 1, "varint runs past"),  # a record of no bytes
    ],
)
def test_malformed_frames_are_named(body: bytes, count: int, fault: str) -> None:
    with pytest.raises(FramingError, match=fault):
        framed(body, count)


def test_every_truncation_is_refused_and_every_flip_stays_inside() -> None:
    body = batch_body(RECORDS)
    for cut in range(len(body)):
        with pytest.raises(FramingError):
            framed(body[:cut], len(RECORDS))
    rng = random.Random(11)
    for _ in range(5000):
        changed = bytearray(body)
        for _ in range(rng.randrange(1, 4)):
            changed[rng.randrange(min(len(body), 180))] = rng.randrange(256)
        try:
            records = framed(bytes(changed), len(RECORDS))
        except FramingError:
            continue
        for start, length in ((records.key_start, records.key_length), (records.value_start, records.value_length)):
            assert np.all(start >= 0)
            assert np.all(length >= -1)
            assert np.all(start + np.maximum(length, 0) <= len(body))


def test_join_equals_the_parts() -> None:
    first, second = records_from_lines([b"a", b"", b"bc"], 5, 10), framed(batch_body(RECORDS), 5)
    joined = join_records([first, second])
    assert content(joined) == content(first) + content(second)
    assert joined.offset.tolist() == [5, 6, 7, 100, 101, 102, 103, 104]
    assert joined.next_offset == second.next_offset
    assert join_records([first]) is first
    with pytest.raises(ValueError, match="log order"):
        join_records([second, first])


def test_kernels_are_compiled_for_one_type_of_argument() -> None:
    """A second type (writable bytes, strided places) would be compiled in mid-stream, for seconds."""
    layout = Layout.compile(NATIVE, [], [])
    body = batch_body(RECORDS)
    framed(body, 5)
    one = records_from_lines([b"{}"])
    decode(one, layout)
    known = len(frame_records.signatures), len(scan_chunk.signatures)
    framed(memoryview(bytearray(body)), 5)
    places = np.repeat(one.value_start, 2)[::2], np.repeat(one.value_length, 2)[::2]
    decode(replace(one, buffer=one.buffer.copy(), value_start=places[0], value_length=places[1]), layout)
    decode(join_records([one, replace(one, offset=one.offset + 1)]), layout)
    assert (len(frame_records.signatures), len(scan_chunk.signatures)) == known
