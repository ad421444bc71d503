"""Loads and bit operations that numpy has no word for. No bounds check: every caller proves its place first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic as numba_intrinsic


def intrinsic(function: Callable[..., Any]) -> Any:
    """The decorator of numba, typed: what is called takes one argument less than what is written."""
    return numba_intrinsic(function)


def _load(width: int, result: Any) -> Any:
    def declare(_context: Any, buffer: Any, _index: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            byte = builder.gep(builder.bitcast(array.data, ir.IntType(8).as_pointer()), [arguments[1]])
            return builder.load(builder.bitcast(byte, ir.IntType(width).as_pointer()), align=1)

        return result(buffer, types.int64), code

    return declare


@intrinsic
def load8(context: Any, buffer: Any, index: Any) -> Any:
    """uint8 at a place of a U8 array."""
    return _load(8, types.uint8)(context, buffer, index)


@intrinsic
def load32(context: Any, buffer: Any, index: Any) -> Any:
    """uint32, little-endian, unaligned."""
    return _load(32, types.uint32)(context, buffer, index)


@intrinsic
def load64(context: Any, buffer: Any, index: Any) -> Any:
    """uint64, little-endian, unaligned."""
    return _load(64, types.uint64)(context, buffer, index)


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
