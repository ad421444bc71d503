"""Record batches unpacked within a limit: some kB may say that they are gigabytes. Pure.

Each codec: (payload, bytes at most) -> the whole body. Raises TooLargeError with the body's first bytes as soon as the limit
is passed, having used no more memory than the limit; DamagedError for what is not of that codec.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import cramjam
import numpy as np

from stream.limits import limit

BATCH_BYTES_MAX = limit(
    "batch_bytes_max", 64 << 20, "unpacked; a producer's batch has at most some MB, and each fetch may hold several"
)
UNPACKED_BYTES_MAX = 32 << 20  # of one fetch: it may hold a hundred batches of which each unpacks to batch_bytes_max
HEAD_BYTES = 64 << 10  # of a batch that is too large: what its dead letter shows
FIRST_TRY_FACTOR = 12  # JSON events shrink about tenfold
FIRST_TRY_BYTES_MIN = 1 << 20
XERIAL = b"\x82SNAPPY\x00"
XERIAL_HEADER_BYTES = 16
GZIP_WINDOW = 31  # zlib's largest, with the gzip header
GZIP_MEMBERS_MAX = 1_000  # each costs a copy of what is left


class TooLargeError(Exception):
    """The body is longer than the limit; `head` is its beginning."""

    def __init__(self, head: bytes) -> None:
        super().__init__(f"unpacks to more than {BATCH_BYTES_MAX} bytes")
        self.head = head


class DamagedError(ValueError):
    """The payload is not of its codec."""


Unpack = Callable[[bytes, int], bytes]


def gzip(payload: bytes, bytes_max: int) -> bytes:
    """Some writers make members one after the other; they are one body."""
    parts: list[bytes] = []
    left = bytes_max
    for _ in range(GZIP_MEMBERS_MAX):
        stream = zlib.decompressobj(GZIP_WINDOW)
        try:
            parts.append(stream.decompress(payload, left + 1))
        except zlib.error as error:
            raise DamagedError(f"gzip: {error}") from None
        left -= len(parts[-1])
        if left < 0:
            raise TooLargeError(b"".join(parts)[:HEAD_BYTES])
        if not stream.eof:
            raise DamagedError("gzip: the end is missing")
        payload = stream.unused_data
        if not payload:
            return b"".join(parts) if len(parts) > 1 else parts[0]
    raise DamagedError(f"gzip: more than {GZIP_MEMBERS_MAX} members")


def _frames(name: str, into: Callable[[Any, Any], int]) -> Unpack:
    """A codec of cramjam that writes into given memory. Its length is not known before; the pages are taken on first touch."""

    def unpack(payload: bytes, bytes_max: int) -> bytes:
        size = min(max(FIRST_TRY_FACTOR * len(payload), FIRST_TRY_BYTES_MIN), bytes_max)
        while True:
            body = np.zeros(size, np.uint8)
            try:
                return body[: into(payload, body)].tobytes()
            except cramjam.DecompressionError as error:
                if "whole buffer" not in str(error):
                    raise DamagedError(f"{name}: {error}") from None
                if size == bytes_max:
                    raise TooLargeError(body[:HEAD_BYTES].tobytes()) from None
            size = min(8 * size, bytes_max)

    return unpack


def snappy(payload: bytes, bytes_max: int) -> bytes:
    """Raw, or in blocks as Java's xerial writes them; each says its length first."""
    parts: list[bytes] = []
    total = 0
    try:
        for block in _xerial_blocks(payload) if payload.startswith(XERIAL) else (payload,):
            size = int(cramjam.snappy.decompress_raw_len(block))
            if total + size > bytes_max:
                raise TooLargeError(b"".join(parts)[:HEAD_BYTES])
            total += size
            parts.append(bytes(cramjam.snappy.decompress_raw(block)))
    except (cramjam.DecompressionError, struct.error) as error:
        raise DamagedError(f"snappy: {error}") from None
    return b"".join(parts)


def _xerial_blocks(payload: bytes) -> list[bytes]:
    blocks, at = [], XERIAL_HEADER_BYTES
    while at < len(payload):
        (size,) = struct.unpack_from(">i", payload, at)
        if size < 0:
            raise DamagedError("snappy: a block of negative length")
        blocks.append(payload[at + 4 : at + 4 + size])
        at += 4 + size
    return blocks


UNPACK: dict[int, Unpack] = {
    1: gzip,
    2: snappy,
    3: _frames("lz4", cramjam.lz4.decompress_into),
    4: _frames("zstd", cramjam.zstd.decompress_into),
}
"""By the number in a batch's attributes."""
