"""The binary container of everything that driftline writes for itself: panes, markers, snapshot blobs, references.

Guarantee: `decode(encode(x)) == x`, equal content gives equal bytes (maps and sections are sorted), and bytes that are not
a whole container of a known format are refused by name, never half read. No code is ever loaded (no pickle).

    offset  bytes
    0       4      magic b"DRFT"
    4       2      format version, u16
    6       4      crc32c of all other bytes, u32
    10      2      zero
    12      4      length h of the header, u32
    16      h      msgpack: {"kind", "version", "header", "sections": [[name, dtype, shape], ...]}
    ..             sections in that order, C-contiguous, each starting at a multiple of 8, gaps zero, nothing after the last

The checksum is judged before the version is believed: a flipped version byte is damage, never "written by a newer one".
So these 16 bytes and their checksum are the same in every version to come.
All integers are little-endian. The header is strict msgpack: nil, bool, int, float, str, bin, array, map with str keys;
no extension types. Cost: one copy of the arrays, about 1 µs per section and 0.2 ns per byte for the checksum.
"""

# ruff: noqa: N818 - the errors are named after what is wrong
from __future__ import annotations

import math
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import crc32c
import msgpack
import numpy as np
from numpy.typing import NDArray

Sections = dict[str, NDArray[Any]]

MAGIC = b"DRFT"
FORMAT = 1
FORMATS = (FORMAT,)
PREFIX = struct.Struct("<4sHIHI")
CRC_START, CRC_STOP = 6, 10  # where the checksum stands; it covers what lies before and after
ALIGNMENT = 8  # sections can be read in place by compiled kernels
SECTIONS_MAX = 4096  # a header that names more is not ours
DIMENSIONS_MAX = 4
DEPTH_MAX = 16  # of the header; deeper is not ours
_SCALARS = frozenset((type(None), bool, int, float, str, bytes))
DTYPES = {
    name: np.dtype(name) for name in ("|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f4", "<f8")
}


class ContainerError(Exception):
    """Bytes that are not a readable container, or content that a container cannot hold."""


class BadMagic(ContainerError):
    """The bytes do not start as a container."""


class BadChecksum(ContainerError):
    """The bytes differ from those written."""


class Truncated(ContainerError):
    """The bytes end before what the header promises."""


class Malformed(ContainerError):
    """The checksum is right and the structure is not."""


class NotStorable(ContainerError):
    """A header value or dtype that the format does not have."""


class WrongKind(ContainerError):
    """A whole container, of something else."""

    def __init__(self, kind: str, wanted: str) -> None:
        super().__init__(f"container holds {kind!r}, expected {wanted!r}")
        self.kind = kind
        self.wanted = wanted


class UnknownVersion(ContainerError):
    """Written by a newer (or removed) version; `kind` "container" is the format itself."""

    def __init__(self, kind: str, version: int, known: tuple[int, ...]) -> None:
        listed = ", ".join(map(str, known))
        super().__init__(f"{kind} version {version} is not known here (known: {listed})")
        self.kind = kind
        self.version = version
        self.known = known


class UnknownSection(ContainerError):
    """A section that this version of `kind` does not have, or lacks."""

    def __init__(self, kind: str, section: str, what: str) -> None:
        super().__init__(f"{kind}: {what} section {section!r}")
        self.kind = kind
        self.section = section


@dataclass(frozen=True, slots=True)
class Container:
    """One decoded container. The arrays of `sections` are read-only views of the bytes it came from."""

    kind: str
    version: int
    header: dict[str, Any]
    sections: Sections

    def expect(
        self,
        kind: str,
        versions: Collection[int],
        sections: Collection[str] | None = None,
        optional: Collection[str] = (),
    ) -> Container:
        """Return self if it is a `kind` of one of `versions` with exactly these sections (`optional` ones may lack).

        Raises WrongKind, UnknownVersion, UnknownSection. `sections` None = any.
        """
        if self.kind != kind:
            raise WrongKind(self.kind, kind)
        if self.version not in versions:
            raise UnknownVersion(kind, self.version, tuple(sorted(versions)))
        if sections is not None:
            for name in self.sections:
                if name not in sections and name not in optional:
                    raise UnknownSection(kind, name, "unknown")
            for name in sections:
                if name not in self.sections:
                    raise UnknownSection(kind, name, "missing")
        return self


def encode(kind: str, version: int, header: Mapping[str, Any], sections: Mapping[str, NDArray[Any]]) -> bytes:
    """Bytes of one container. Raises NotStorable for a type that the format does not have, and for what `decode` would refuse."""
    if len(sections) > SECTIONS_MAX:
        raise NotStorable(f"{kind}: {len(sections)} sections, at most {SECTIONS_MAX}")
    listing = []
    parts: list[bytes] = []
    for name in sorted(sections):
        array, dtype = _stored(name, sections[name])
        listing.append([name, dtype, list(array.shape)])
        data = array.tobytes()
        parts.append(data)
        parts.append(bytes(-len(data) % ALIGNMENT))
    if parts:
        parts.pop()  # nothing after the last section
    body = {"kind": kind, "version": version, "header": _canonical(header, 0), "sections": listing}
    try:
        packed = msgpack.packb(body, use_bin_type=True, strict_types=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise NotStorable(f"{kind}: header: {error}") from error
    pad = bytes(-(PREFIX.size + len(packed)) % ALIGNMENT) if parts else b""
    tail = b"".join((struct.pack("<HI", 0, len(packed)), packed, pad, *parts))
    start = struct.pack("<4sH", MAGIC, FORMAT)
    return b"".join((start, struct.pack("<I", crc32c.crc32c(tail, crc32c.crc32c(start))), tail))


def decode(data: bytes | memoryview) -> Container:
    """The container in `data`, all of it. Raises BadMagic, BadChecksum, UnknownVersion, Truncated, Malformed."""
    view = memoryview(data).cast("B")
    if bytes(view[:4]) != MAGIC:
        raise BadMagic(f"starts with {bytes(view[:4])!r}, expected {MAGIC!r}")
    if len(view) < PREFIX.size:
        raise Truncated(f"{len(view)} bytes, the prefix alone has {PREFIX.size}")
    _, form, crc, zero, length = PREFIX.unpack_from(view)
    if crc32c.crc32c(view[CRC_STOP:], crc32c.crc32c(view[:CRC_START])) != crc:
        raise BadChecksum(f"crc32c of {len(view)} bytes differs from the stored {crc:#010x}")
    if form not in FORMATS:
        raise UnknownVersion("container", form, FORMATS)
    if zero:
        raise Malformed("reserved field is not zero")
    stop = PREFIX.size + length
    if stop > len(view):
        raise Truncated(f"header of {length} bytes in {len(view)} bytes")
    kind, version, header, listing = _parse(bytes(view[PREFIX.size : stop]))
    sections: Sections = {}
    for entry in listing:
        name, dtype, shape = _entry(entry)
        if name in sections:
            raise Malformed(f"{kind}: section {name!r} twice")
        start = stop + (-stop % ALIGNMENT)
        count = math.prod(shape)
        stop = start + count * dtype.itemsize
        if stop > len(view):
            raise Truncated(f"{kind}: section {name!r} ends at {stop}, the bytes at {len(view)}")
        try:
            sections[name] = np.frombuffer(view, dtype, count, start).reshape(shape)
        except ValueError as error:  # empty, with other dimensions too large for any array
            raise Malformed(f"{kind}: section {name!r}: shape {shape}") from error
    if stop != len(view):
        raise Malformed(f"{kind}: {len(view) - stop} bytes after the last section")
    return Container(kind, version, header, sections)


def _stored(name: str, array: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """`array` C-contiguous and little-endian, and the name of its dtype."""
    little = array.dtype.newbyteorder("<")
    if little.str not in DTYPES or array.ndim > DIMENSIONS_MAX:
        raise NotStorable(f"section {name!r}: dtype {array.dtype} with {array.ndim} dimensions")
    return np.asarray(array, little, order="C"), little.str


def _canonical(value: Any, depth: int) -> Any:
    """`value` with the keys of every map sorted. Raises NotStorable for keys that are not str and for too much depth."""
    if type(value) in _SCALARS:  # nearly always: headers are mostly lists of names
        return value
    if depth > DEPTH_MAX:
        raise NotStorable(f"header deeper than {DEPTH_MAX}")
    if isinstance(value, Mapping):
        if not all(type(key) is str for key in value):
            raise NotStorable("header: map keys must be str")
        return {key: _canonical(value[key], depth + 1) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [item if type(item) in _SCALARS else _canonical(item, depth + 1) for item in value]
    return value


def _parse(packed: bytes) -> tuple[str, int, dict[str, Any], list[Any]]:
    try:
        body = msgpack.unpackb(packed, raw=False, strict_map_key=True)
    except Exception as error:  # msgpack raises many kinds, bare ValueError among them; all mean the same here
        raise Malformed(f"header is not msgpack: {error}") from error
    if not isinstance(body, dict) or set(body) != {"kind", "version", "header", "sections"}:
        raise Malformed("header lacks kind, version, header or sections")
    kind, version, header, listing = body["kind"], body["version"], body["header"], body["sections"]
    if not (isinstance(kind, str) and type(version) is int and isinstance(header, dict) and isinstance(listing, list)):
        raise Malformed("kind, version, header or sections has the wrong type")
    if len(listing) > SECTIONS_MAX:
        raise Malformed(f"{len(listing)} sections, at most {SECTIONS_MAX}")
    _refuse_extensions(header, 0)
    return kind, version, header, listing


def _refuse_extensions(value: Any, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise Malformed(f"header deeper than {DEPTH_MAX}")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise Malformed("header: map keys must be str")
            if type(item) not in _SCALARS:  # nearly always one
                _refuse_extensions(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            if type(item) not in _SCALARS:
                _refuse_extensions(item, depth + 1)
    elif type(value) not in _SCALARS:
        raise Malformed(f"header: {type(value).__name__} is no type of this format")


def _entry(entry: Any) -> tuple[str, np.dtype[Any], tuple[int, ...]]:
    if not (isinstance(entry, list) and len(entry) == 3):
        raise Malformed("a section is [name, dtype, shape]")
    name, dtype, shape = entry
    if not isinstance(name, str) or not isinstance(dtype, str) or dtype not in DTYPES:
        raise Malformed(f"section {name!r}: dtype {dtype!r} is no type of this format")
    if not isinstance(shape, list) or len(shape) > DIMENSIONS_MAX:
        raise Malformed(f"section {name!r}: shape {shape!r}")
    if not all(type(size) is int and 0 <= size < 1 << 48 for size in shape):
        raise Malformed(f"section {name!r}: shape {shape!r}")
    return name, DTYPES[dtype], tuple(shape)
