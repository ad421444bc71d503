"""Memory by address, and bit operations that numpy has no word for. No bounds check: every caller proves its place first.

The scan passes addresses, not arrays: an array is seven arguments and two atomic reference counts a call, which cost more
than the parsing itself (2.9 us an event against .8).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic


def intrinsic(function: Callable[..., Any]) -> Any:
    """The decorator of numba, typed: what is called takes one argument less than what is written."""
    return numba_intrinsic(function)


def _load(width: int, result: Any) -> Any:
    def code(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], ir.IntType(width).as_pointer()), align=1)

    return result(types.int64), code


def _store(width: int, value: Any) -> Any:
    def code(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        narrow = ir.IntType(width)
        held = arguments[1] if width == 64 else builder.trunc(arguments[1], narrow)
        builder.store(held, builder.inttoptr(arguments[0], narrow.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, value), code


@intrinsic
def address_of(_context: Any, array: Any) -> Any:
    """Where an array's data begins, int64.

    For arguments and module constants only: numba frees a local array after the last use that it sees, and an address is none.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        held = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(held.data, ir.IntType(64))

    return types.int64(array), code


@intrinsic
def pointer(_context: Any, _address: Any) -> Any:
    """An address, int64, for `carray`."""

    def code(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), code


@intrinsic
def load8(_context: Any, _address: Any) -> Any:
    """uint8 at an address."""
    return _load(8, types.uint8)


@intrinsic
def load32(_context: Any, _address: Any) -> Any:
    """uint32, little-endian, unaligned."""
    return _load(32, types.uint32)


@intrinsic
def load64(_context: Any, _address: Any) -> Any:
    """uint64, little-endian, unaligned."""
    return _load(64, types.uint64)


@intrinsic
def load_signed(_context: Any, _address: Any) -> Any:
    """int64, little-endian, unaligned."""
    return _load(64, types.int64)


@intrinsic
def store8(_context: Any, _address: Any, _value: Any) -> Any:
    """Write the lowest byte of an int64."""
    return _store(8, types.int64)


@intrinsic
def store64(_context: Any, _address: Any, _value: Any) -> Any:
    """Write a uint64."""
    return _store(64, types.uint64)


@intrinsic
def store_signed(_context: Any, _address: Any, _value: Any) -> Any:
    """Write an int64."""
    return _store(64, types.int64)


@intrinsic
def multiply_high(_context: Any, _a: Any, _b: Any) -> Any:
    """Upper 64 bits of the 128-bit product of two uint64."""

    def code(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(arguments[0], wide), builder.zext(arguments[1], wide))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), code


@intrinsic
def leading_zeros(_context: Any, _value: Any) -> Any:
    """Number of leading zero bits of a uint64; 64 for 0."""

    def code(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), code


@intrinsic
def trailing_zeros(_context: Any, _value: Any) -> Any:
    """Number of trailing zero bits of a uint64; 64 for 0."""

    def code(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), code


@intrinsic
def swap_bytes(_context: Any, _value: Any) -> Any:
    """uint64 with its bytes reversed."""

    def code(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bswap(arguments[0])

    return types.uint64(types.uint64), code


@intrinsic
def bits_of(_context: Any, _value: Any) -> Any:
    """The bits of a float64 as uint64."""

    def code(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.uint64(types.float64), code
