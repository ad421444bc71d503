"""xxh3 of up to 240 bytes in compiled code, seed 0: 64 bits for texts and keys, the upper 96 of 128 for ids.

Source: XXH3 of xxHash 0.8 (Y. Collet), the paths for 0, 1-3, 4-8, 9-16, 17-128 and 129-240 bytes. Longer texts are the
strict tier's. Oracle in the tests: the xxhash package, at every length.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.compiled import compiled
from detectors.memory import address_of, load8, load32, load64, multiply_high, swap_bytes

LENGTH_MAX = 240
SECRET = np.frombuffer(
    bytes.fromhex(
        "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248e"
        "e03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8fa763fe39c343ff9dcbbc7c70b4f1d8a"
        "51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8f"
        "f8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
    ),
    np.uint8,
)
P32_2 = np.uint64(0x85EBCA77)
P1 = np.uint64(0x9E3779B185EBCA87)
P2 = np.uint64(0xC2B2AE3D27D4EB4F)
P3 = np.uint64(0x165667B19E3779F9)
P4 = np.uint64(0x85EBCA77C2B2AE63)
MX1 = np.uint64(0x165667919E3779F9)
MX2 = np.uint64(0x9FB21C651E98DF25)
LOW32 = np.uint64(0xFFFFFFFF)
LAST = 136 - 17  # place in the secret of the last 16 bytes of a long text


@compiled
def shift_xor(x: Any, bits: int) -> Any:
    return x ^ (x >> np.uint64(bits))


@compiled
def avalanche(x: Any) -> Any:
    return shift_xor(shift_xor(x, 37) * MX1, 32)


@compiled
def avalanche_xxh64(x: Any) -> Any:
    return shift_xor(shift_xor(shift_xor(x, 33) * P2, 29) * P3, 32)


@compiled
def rotate(x: Any, bits: int) -> Any:
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


@compiled
def fold(a: Any, b: Any) -> Any:
    """The two halves of the 128-bit product, xored."""
    return (a * b) ^ multiply_high(a, b)


@compiled
def secret(place: int) -> Any:
    return load64(address_of(SECRET) + place)


@compiled
def mix16(at: int, place: int) -> Any:
    return fold(load64(at) ^ secret(place), load64(at + 8) ^ secret(place + 8))


@compiled
def tiny(start: int, length: int) -> Any:
    """1 to 3 bytes and the length as 32 bits."""
    first = np.uint64(load8(start)) << np.uint64(16)
    middle = np.uint64(load8(start + (length >> 1))) << np.uint64(24)
    return first | middle | np.uint64(load8(start + length - 1)) | (np.uint64(length) << np.uint64(8))


@compiled
def hash64(start: int, length: int) -> Any:
    """xxh3-64 of `length` bytes at an address, length at most LENGTH_MAX."""
    size = np.uint64(length)
    if length > 16:
        return hash64_long(start, length)
    if length > 8:
        low = load64(start) ^ (secret(24) ^ secret(32))
        high = load64(start + length - 8) ^ (secret(40) ^ secret(48))
        return avalanche(size + swap_bytes(low) + high + fold(low, high))
    if length > 3:
        first, second = np.uint64(load32(start)), np.uint64(load32(start + length - 4))
        keyed = (second + (first << np.uint64(32))) ^ (secret(8) ^ secret(16))
        keyed = (keyed ^ rotate(keyed, 49) ^ rotate(keyed, 24)) * MX2
        keyed = (keyed ^ ((keyed >> np.uint64(35)) + size)) * MX2
        return shift_xor(keyed, 28)
    if length > 0:
        flip = np.uint64(load32(address_of(SECRET)) ^ load32(address_of(SECRET) + 4))
        return avalanche_xxh64(tiny(start, length) ^ flip)
    return avalanche_xxh64(secret(56) ^ secret(64))


@compiled
def hash64_long(start: int, length: int) -> Any:
    """xxh3-64 of 17 to 240 bytes."""
    total = np.uint64(length) * P1
    end = start + length
    if length <= 128:
        for step in range((length - 1) // 32, -1, -1):
            total += mix16(start + 16 * step, 32 * step)
            total += mix16(end - 16 * (step + 1), 32 * step + 16)
        return avalanche(total)
    for step in range(8):
        total += mix16(start + 16 * step, 16 * step)
    total = avalanche(total)
    for step in range(8, length // 16):
        total += mix16(start + 16 * step, 16 * (step - 8) + 3)
    return avalanche(total + mix16(end - 16, LAST))


@compiled
def hash96(start: int, length: int) -> Any:
    """(upper 64, next 32) bits of xxh3-128 of `length` bytes at an address, length at most LENGTH_MAX."""
    if length > 16:
        return hash96_long(start, length)
    if length > 8:
        low, high = load64(start), load64(start + length - 8)
        mixed = low ^ high ^ (secret(32) ^ secret(40))
        product, upper = mixed * P1, multiply_high(mixed, P1)
        product += np.uint64(length - 1) << np.uint64(54)
        high ^= secret(48) ^ secret(56)
        upper += high + (high & LOW32) * (P32_2 - np.uint64(1))
        product ^= swap_bytes(upper)
        return avalanche(multiply_high(product, P2) + upper * P2), avalanche(product * P2) >> np.uint64(32)
    if length > 3:
        low, high = np.uint64(load32(start)), np.uint64(load32(start + length - 4))
        keyed = (low + (high << np.uint64(32))) ^ (secret(16) ^ secret(24))
        factor = P1 + (np.uint64(length) << np.uint64(2))
        product, upper = keyed * factor, multiply_high(keyed, factor)
        upper += product << np.uint64(1)
        product ^= upper >> np.uint64(3)
        product = shift_xor(shift_xor(product, 35) * MX2, 28)
        return avalanche(upper), product >> np.uint64(32)
    if length > 0:
        low = tiny(start, length)
        swapped = swap_bytes(low) >> np.uint64(32)
        high = ((swapped << np.uint64(13)) | (swapped >> np.uint64(19))) & LOW32
        low ^= np.uint64(load32(address_of(SECRET)) ^ load32(address_of(SECRET) + 4))
        high ^= np.uint64(load32(address_of(SECRET) + 8) ^ load32(address_of(SECRET) + 12))
        return avalanche_xxh64(high), avalanche_xxh64(low) >> np.uint64(32)
    return avalanche_xxh64(secret(80) ^ secret(88)), avalanche_xxh64(secret(64) ^ secret(72)) >> np.uint64(32)


@compiled
def mix32(low: Any, high: Any, first: int, second: int, place: int) -> Any:
    low = (low + mix16(first, place)) ^ (load64(second) + load64(second + 8))
    high = (high + mix16(second, place + 16)) ^ (load64(first) + load64(first + 8))
    return low, high


@compiled
def hash96_long(start: int, length: int) -> Any:
    """The same of 17 to 240 bytes."""
    end = start + length
    low, high = np.uint64(length) * P1, np.uint64(0)
    if length <= 128:
        for step in range((length - 1) // 32, -1, -1):
            low, high = mix32(low, high, start + 16 * step, end - 16 * (step + 1), 32 * step)
    else:
        for at in range(0, 128, 32):
            low, high = mix32(low, high, start + at, start + at + 16, at)
        low, high = avalanche(low), avalanche(high)
        for at in range(128, length - 31, 32):
            low, high = mix32(low, high, start + at, start + at + 16, at - 128 + 3)
        low, high = mix32(low, high, end - 16, end - 32, LAST - 16)
    upper = low * P1 + high * P4 + np.uint64(length) * P2
    return np.uint64(0) - avalanche(upper), avalanche(low + high) >> np.uint64(32)
