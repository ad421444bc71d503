from __future__ import annotations

import struct

import crc32c
import hypothesis.extra.numpy as hnp
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import container
from stream.container import (
    BadChecksum,
    BadMagic,
    ContainerError,
    Malformed,
    NotStorable,
    Truncated,
    UnknownSection,
    UnknownVersion,
    WrongKind,
)

SAMPLE = {
    "header": {"b": 1, "a": [None, True, -(1 << 63), 2.5, "é", b"\x00"], "m": {"z": 1, "y": 2}},
    "sections": {"x": np.arange(5, dtype=np.int32), "empty": np.empty((0, 3), np.uint64), "one": np.array(7, np.int64)},
}


def sample() -> bytes:
    return container.encode("pane", 3, SAMPLE["header"], SAMPLE["sections"])


def seal(body: object, tail: bytes = b"") -> bytes:
    packed = msgpack.packb(body)
    rest = struct.pack("<HI", 0, len(packed)) + packed + bytes(-len(packed) % 8) + tail
    return checked(1, rest)


def checked(version: int, rest: bytes) -> bytes:
    start = struct.pack("<4sH", b"DRFT", version)
    return start + struct.pack("<I", crc32c.crc32c(start + rest)) + rest


def test_round_trip_keeps_everything() -> None:
    got = container.decode(sample())
    assert (got.kind, got.version, got.header) == ("pane", 3, SAMPLE["header"])
    assert list(got.sections) == ["empty", "one", "x"]
    for name, array in SAMPLE["sections"].items():
        assert got.sections[name].dtype == array.dtype
        assert got.sections[name].shape == array.shape
        np.testing.assert_array_equal(got.sections[name], array)
        assert not got.sections[name].flags.writeable


def test_equal_content_gives_equal_bytes_whatever_the_order() -> None:
    turned = {name: SAMPLE["sections"][name] for name in reversed(SAMPLE["sections"])}
    header = {"m": {"y": 2, "z": 1}, "a": SAMPLE["header"]["a"], "b": 1}
    assert container.encode("pane", 3, header, turned) == sample()


def test_big_endian_and_strided_arrays_are_stored_little_endian_and_contiguous() -> None:
    array = np.arange(12, dtype=">i4").reshape(3, 4)[:, ::2]
    got = container.decode(container.encode("k", 1, {}, {"a": array})).sections["a"]
    assert got.dtype.str == "<i4"
    np.testing.assert_array_equal(got, [[0, 2], [4, 6], [8, 10]])


def test_every_single_byte_damage_and_every_cut_is_refused() -> None:
    data = sample()
    for i in range(len(data)):
        broken = bytearray(data)
        broken[i] ^= 0x41
        with pytest.raises(ContainerError):
            container.decode(bytes(broken))
        with pytest.raises(ContainerError):
            container.decode(data[:i])
    with pytest.raises(ContainerError):
        container.decode(data + b"\x00")


def test_errors_are_named() -> None:
    data = sample()
    with pytest.raises(BadMagic):
        container.decode(b"PK\x03\x04" + data[4:])
    with pytest.raises(BadMagic):
        container.decode(b"")
    with pytest.raises(Truncated):
        container.decode(b"DRFT\x01")
    with pytest.raises(BadChecksum):
        container.decode(data[:-1])
    flipped = bytearray(data)
    flipped[4] = 9
    with pytest.raises(BadChecksum):  # damage is no newer version
        container.decode(bytes(flipped))
    with pytest.raises(UnknownVersion, match="container version 9 is not known here"):
        container.decode(checked(9, data[10:]))


@pytest.mark.parametrize(
    "body",
    [
        [1, 2],
        {"kind": "k"},
        {"kind": 1, "version": 1, "header": {}, "sections": []},
        {"kind": "k", "version": True, "header": {}, "sections": []},
        {"kind": "k", "version": 1, "header": {}, "sections": [["a"]]},
        {"kind": "k", "version": 1, "header": {}, "sections": [["a", "|O", [1]]]},
        {"kind": "k", "version": 1, "header": {}, "sections": [["a", "<i4", [-1]]]},
        {"kind": "k", "version": 1, "header": {}, "sections": [["a", "<i4", [0, 0, 0, 0, 0]]]},
        {"kind": "k", "version": 1, "header": {}, "sections": [["a", "<i4", [0]], ["a", "<i4", [0]]]},
        {"kind": "k", "version": 1, "header": {}, "sections": [["a", "<i4", [0, 1 << 47, 1 << 47]]]},
        {"kind": "k", "version": 1, "header": {"t": msgpack.Timestamp(1)}, "sections": []},
        {"kind": "k", "version": 1, "header": {"t": msgpack.ExtType(3, b"x")}, "sections": []},
        {"kind": "k", "version": 1, "header": {}, "sections": [["a", "<i4", [0]]] * 5000},
    ],
)
def test_a_right_checksum_does_not_excuse_a_wrong_structure(body: object) -> None:
    with pytest.raises(Malformed):
        container.decode(seal(body))


def test_a_shape_larger_than_the_bytes_is_truncated_not_allocated() -> None:
    body = {"kind": "k", "version": 1, "header": {}, "sections": [["a", "<i8", [1 << 40, 1 << 40]]]}
    with pytest.raises(Truncated):
        container.decode(seal(body))


@pytest.mark.parametrize("header", [{"a": {1: 2}}, {"a": np.int64(1)}, {"a": {1, 2}}, {"a": 1 << 70}])
def test_headers_hold_only_plain_values(header: dict[str, object]) -> None:
    with pytest.raises(NotStorable):
        container.encode("k", 1, header, {})


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([None]), np.array([1j]), np.empty((1, 1, 1, 1, 1))])
def test_sections_hold_only_plain_numbers(array: np.ndarray) -> None:
    with pytest.raises(NotStorable):
        container.encode("k", 1, {}, {"a": array})


def test_expect_refuses_by_name() -> None:
    got = container.decode(sample())
    assert got.expect("pane", (2, 3), ("x", "empty"), optional=("one",)) is got
    with pytest.raises(WrongKind, match="holds 'pane', expected 'marker'"):
        got.expect("marker", (3,))
    with pytest.raises(UnknownVersion, match="pane version 3 is not known here \\(known: 1, 2\\)"):
        got.expect("pane", (1, 2))
    with pytest.raises(UnknownSection, match="pane: unknown section 'one'"):
        got.expect("pane", (3,), ("x", "empty"))
    with pytest.raises(UnknownSection, match="pane: missing section 'y'"):
        got.expect("pane", (3,), ("x", "empty", "one", "y"))


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
ARRAYS = hnp.arrays(
    st.sampled_from([np.dtype(d) for d in container.DTYPES]), hnp.array_shapes(min_dims=1, max_dims=3, min_side=0)
)


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(st.text(max_size=5), PLAIN, max_size=4), st.dictionaries(st.text(max_size=5), ARRAYS, max_size=4)
)
def test_any_content_survives(header: dict[str, object], sections: dict[str, np.ndarray]) -> None:
    got = container.decode(container.encode("k", 1, header, sections))
    assert got.header == header
    assert set(got.sections) == set(sections)
    for name, array in sections.items():
        assert got.sections[name].dtype == array.dtype
        assert got.sections[name].tobytes() == array.tobytes()


def test_more_sections_than_are_read_are_not_written() -> None:
    sections = {f"s{number}": np.zeros(1, np.int64) for number in range(4097)}
    with pytest.raises(NotStorable, match="4097 sections, at most 4096"):
        container.encode("kind", 1, {}, sections)
