"""Sums and exponentials of several numbers at once, which the compiler does not make of the loops by itself.

Nothing is fused or left to the machine: columns are summed each on its own, row after row, bit for bit what the plain loops give;
`total` has the same eight sums everywhere, and `exponentials` is ours, for every libm has its own last digit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numpy.typing import NDArray

from detectors.compiled import compiled
from detectors.memory import address_of, intrinsic, pointer

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

LANE_BYTES = 8
LANES = 8  # of `total`
EXPONENT_MIN = -700.0  # of `exponentials`: below it e to it is as good as 0
EXPONENT_MAX = 500.0  # of one window's growth: with EVIDENCE_MAX above it, nothing overflows
LOG_2 = math.log(2.0)
LOG_2_HIGH, LOG_2_LOW = float.fromhex("0x1.62e42feep-1"), 1.9082149292705877e-10  # together log 2 to 1e-26
TO_WHOLE = 1.5 * 2.0**52  # a number added to it is rounded to a whole one, which stands in its lowest bits
TERMS = tuple(1.0 / math.factorial(power) for power in range(13, -1, -1))  # what they leave out is below 5e-18


def _doubles(array: Any) -> bool:
    """Whether a type is that of arrays whose numbers the vectors here can be read from."""
    return isinstance(array, types.Array) and array.dtype == types.float64


def _summing(*lanes: int) -> Any:
    """The intrinsic (weights F64[n], rows F64[n, m], first, out F64[m]): as many columns of `weighted` from column `first` on as
    `lanes` has together, in vectors of so many each. Of 12 or 21 lanes a vector would be put together from the stack.

    Columns of a row must lie next to each other. Rows may be of float32, each number of which is a double. Nothing is checked
    against the lengths.
    """

    def add(_context: Any, weights: Any, rows: Any, first: Any, out: Any) -> Any:
        narrow = isinstance(rows, types.Array) and rows.dtype == types.float32
        if not all(map(_doubles, (weights, out))) or not (narrow or _doubles(rows)):
            return None  # no such function: numba says so
        bytes_of_rows = LANE_BYTES // 2 if narrow else LANE_BYTES

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            def array(place: int) -> Any:
                return context.make_array(signature.args[place])(context, builder, arguments[place])

            def part(address: Any, which: int, kind: Any, width: int) -> Any:
                place = builder.add(address, ir.Constant(integer, width * sum(lanes[:which])))
                return builder.inttoptr(place, kind.as_pointer())

            def columns(address: Any, which: int) -> Any:
                kind = ir.VectorType(ir.FloatType() if narrow else ir.DoubleType(), lanes[which])
                read = builder.load(part(address, which, kind, bytes_of_rows), align=bytes_of_rows)
                return builder.fpext(read, kinds[which]) if narrow else read

            integer, kinds = ir.IntType(64), [ir.VectorType(ir.DoubleType(), each) for each in lanes]
            weight, row, filled, at = array(0), array(1), array(3), arguments[2]
            (count,) = cgutils.unpack_tuple(builder, weight.shape)
            stride, _ = cgutils.unpack_tuple(builder, row.strides)
            begin = builder.ptrtoint(builder.gep(row.data, [at]), integer)
            totals = [cgutils.alloca_once_value(builder, ir.Constant(kind, [0.0] * kind.count)) for kind in kinds]
            with cgutils.for_range(builder, count) as loop:
                place = builder.add(begin, builder.mul(stride, loop.index))
                factor = builder.load(builder.gep(weight.data, [loop.index]))
                for which, total in enumerate(totals):
                    product = builder.fmul(_filled(builder, kinds[which], factor), columns(place, which))
                    builder.store(builder.fadd(builder.load(total), product), total)
            place = builder.ptrtoint(builder.gep(filled.data, [at]), integer)
            for which, total in enumerate(totals):
                builder.store(builder.load(total), part(place, which, kinds[which], LANE_BYTES), align=LANE_BYTES)
            return context.get_dummy_value()

        return types.void(weights, rows, first, out), code

    return intrinsic(add)


def _filled(builder: Any, kind: Any, value: Any) -> Any:
    """A vector of nothing but `value`."""
    undefined, place = ir.Constant(kind, ir.Undefined), ir.IntType(32)
    first = builder.insert_element(undefined, value, place(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(place, kind.count), [0] * kind.count))


_four, _five, _eight, _twelve = _summing(4), _summing(4, 1), _summing(8), _summing(8, 4)
_sixteen, _laws = _summing(8, 8), _summing(8, 8, 4, 1)


@compiled
def weighted(weights: F64, rows: F64 | F32, out: F64) -> None:
    """Fill out F64[>= m]: sum over l of weights[l] rows[l, i], for l ascending. weights F64[n], rows [n, m]. O(n m)."""
    columns, at = rows.shape[1], 0
    # As many as the detector most often has are done in one pass, which takes as long as one column alone.
    if columns == 5:
        _five(weights, rows, 0, out)
        return
    if columns == 12:
        _twelve(weights, rows, 0, out)
        return
    if columns == 21:
        _laws(weights, rows, 0, out)
        return
    while columns - at >= 16:
        _sixteen(weights, rows, at, out)
        at += 16
    if columns - at >= 8:
        _eight(weights, rows, at, out)
        at += 8
    if columns - at >= 4:
        _four(weights, rows, at, out)
        at += 4
    for i in range(at, columns):
        total = 0.0
        for l in range(len(weights)):
            total += weights[l] * rows[l, i]
        out[i] = total


def _exponential(builder: Any, exponent: Any) -> Any:
    """E to each of a vector's numbers: 2^k e^r, |r| <= log(2) / 2."""

    def every(value: float) -> Any:
        return ir.Constant(exponent.type, [value] * exponent.type.count)

    low = builder.fcmp_ordered("<", exponent, every(EXPONENT_MIN))
    high = builder.fcmp_ordered(">", exponent, every(EXPONENT_MAX))
    exponent = builder.select(low, every(EXPONENT_MIN), builder.select(high, every(EXPONENT_MAX), exponent))
    whole = ir.VectorType(ir.IntType(64), exponent.type.count)
    shifted = builder.fadd(builder.fmul(exponent, every(1.0 / LOG_2)), every(TO_WHOLE))  # k in its lowest bits
    k = builder.fsub(shifted, every(TO_WHOLE))
    rest = builder.fsub(exponent, builder.fmul(k, every(LOG_2_HIGH)))  # exact: k has 10 bits, this one 32
    rest = builder.fsub(rest, builder.fmul(k, every(LOG_2_LOW)))
    series = every(TERMS[0])
    for term in TERMS[1:]:
        series = builder.fadd(builder.fmul(series, rest), every(term))
    power = builder.shl(builder.bitcast(shifted, whole), ir.Constant(whole, [52] * whole.count))
    found = builder.bitcast(builder.add(builder.bitcast(series, whole), power), exponent.type)
    return builder.select(low, every(0.0), found)


def _raising(lanes: int) -> Any:
    """The intrinsic (numbers F64[n], first): e to so many from `first` on, in their place."""

    def exp(_context: Any, numbers: Any, first: Any) -> Any:
        if not _doubles(numbers):
            return None

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = ir.VectorType(ir.DoubleType(), lanes)
            held = context.make_array(signature.args[0])(context, builder, arguments[0])
            place = builder.bitcast(builder.gep(held.data, [arguments[1]]), kind.as_pointer())
            builder.store(_exponential(builder, builder.load(place, align=8)), place, align=8)
            return context.get_dummy_value()

        return types.void(numbers, first), code

    return intrinsic(exp)


_raise_eight, _raise_four, _raise_one = map(_raising, (8, 4, 1))


@compiled
def exponentials(numbers: F64) -> None:
    """E to each of F64[n], C-contiguous, in their place, wrong by at most 1.1 units of the last digit; below EXPONENT_MIN 0, beyond
    EXPONENT_MAX that of EXPONENT_MAX. NaN is not asked for. O(n).
    """
    count, at = len(numbers), 0
    while count - at >= 8:
        _raise_eight(numbers, at)
        at += 8
    if count - at >= 4:
        _raise_four(numbers, at)
        at += 4
    while at < count:
        _raise_one(numbers, at)
        at += 1


@intrinsic
def _eight_totals(_context: Any, numbers: Any, _count: Any) -> Any:
    """Sum of the first `count` of F64[n], a multiple of LANES, in as many lanes, halves of which are added until one is left.

    Two vectors of half the lanes: numbers that were just written by fours are at hand for a read of four, not for one of eight.
    """
    if not _doubles(numbers):
        return None

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        half, place = LANES // 2, ir.IntType(32)
        kind = ir.VectorType(ir.DoubleType(), half)
        held = context.make_array(signature.args[0])(context, builder, arguments[0])
        totals = [cgutils.alloca_once_value(builder, ir.Constant(kind, [0.0] * half)) for _ in range(2)]
        blocks = builder.udiv(arguments[1], ir.IntType(64)(LANES))
        with cgutils.for_range(builder, blocks) as loop:
            begin = builder.mul(loop.index, ir.IntType(64)(LANES))
            for which, total in enumerate(totals):
                at = builder.gep(held.data, [builder.add(begin, ir.IntType(64)(half * which))])
                block = builder.load(builder.bitcast(at, kind.as_pointer()), align=8)
                builder.store(builder.fadd(builder.load(total), block), total)
        lanes, width = builder.fadd(*map(builder.load, totals)), half
        while width > 1:
            width //= 2
            undefined = ir.Constant(lanes.type, ir.Undefined)
            low, high = (
                ir.Constant(ir.VectorType(place, width), list(range(first, first + width))) for first in (0, width)
            )
            lanes = builder.fadd(
                builder.shuffle_vector(lanes, undefined, low), builder.shuffle_vector(lanes, undefined, high)
            )
        return builder.extract_element(lanes, place(0))

    return types.float64(numbers, types.int64), code


@compiled
def total(numbers: F64) -> float:
    """Sum of F64[n], C-contiguous: of eight lanes, then what is left, one after the other. O(n)."""
    whole = len(numbers) - len(numbers) % LANES
    found: float = _eight_totals(numbers, whole)
    for i in range(whole, len(numbers)):
        found += numbers[i]
    return found


@compiled
def row_of(rows: F64, l: int) -> F64:
    """Row l of F64[n, m] whose columns lie side by side, as an array of which that is known: loops over it take several at once."""
    row: F64 = carray(pointer(address_of(rows) + l * rows.strides[0]), (rows.shape[1],), np.float64)
    return row


@compiled
def row_totals(rows: F32, out: F64) -> None:
    """Fill out F64[>= n q] with the sums of rows F32[n, q, m], each from its first number to its last, five at once. O(n q m)."""
    count, each, columns = rows.shape
    for i in range(each):
        at = 0
        while count - at >= 5:
            a, b, c, d, e = 0.0, 0.0, 0.0, 0.0, 0.0
            for l in range(columns):
                a += rows[at, i, l]
                b += rows[at + 1, i, l]
                c += rows[at + 2, i, l]
                d += rows[at + 3, i, l]
                e += rows[at + 4, i, l]
            to = at * each + i
            out[to], out[to + each], out[to + 2 * each], out[to + 3 * each], out[to + 4 * each] = a, b, c, d, e
            at += 5
        for j in range(at, count):
            total = 0.0
            for l in range(columns):
                total += rows[j, i, l]
            out[j * each + i] = total
