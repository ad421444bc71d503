"""Sums of weighted rows with several columns in registers at once, which the compiler does not make of the loops by itself.

Every column is summed on its own, row after row, without fused or reordered operations: bit for bit what the plain loops give.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from detectors.compiled import compiled
from detectors.memory import intrinsic

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


def _summing(lanes: int) -> Any:
    """The intrinsic (weights F64[n], rows F64[n, m], first, out F64[m]): `lanes` columns of `weighted` from column `first` on.

    Columns of a row must lie next to each other. Nothing is checked against the lengths.
    """

    def add(_context: Any, weights: Any, rows: Any, first: Any, out: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            def array(place: int) -> Any:
                return context.make_array(signature.args[place])(context, builder, arguments[place])

            many, integer = ir.VectorType(ir.DoubleType(), lanes), ir.IntType(64)
            weight, row, filled, at = array(0), array(1), array(3), arguments[2]
            (count,) = cgutils.unpack_tuple(builder, weight.shape)
            stride, _ = cgutils.unpack_tuple(builder, row.strides)
            begin = builder.ptrtoint(builder.gep(row.data, [at]), integer)
            total = cgutils.alloca_once_value(builder, ir.Constant(many, [0.0] * lanes))
            with cgutils.for_range(builder, count) as loop:
                place = builder.add(begin, builder.mul(stride, loop.index))
                columns = builder.load(builder.inttoptr(place, many.as_pointer()), align=8)
                factor = builder.insert_element(
                    ir.Constant(many, ir.Undefined),
                    builder.load(builder.gep(weight.data, [loop.index])),
                    ir.IntType(32)(0),
                )
                factors = builder.shuffle_vector(
                    factor,
                    ir.Constant(many, ir.Undefined),
                    ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes),
                )
                builder.store(builder.fadd(builder.load(total), builder.fmul(factors, columns)), total)
            place = builder.ptrtoint(builder.gep(filled.data, [at]), integer)
            builder.store(builder.load(total), builder.inttoptr(place, many.as_pointer()), align=8)
            return context.get_dummy_value()

        return types.void(weights, rows, first, out), code

    return intrinsic(add)


_four, _five, _eight, _twelve, _sixteen, _laws = map(_summing, (4, 5, 8, 12, 16, 21))


@compiled
def weighted(weights: F64, rows: F64, out: F64) -> None:
    """Fill out F64[>= m]: sum over l of weights[l] rows[l, i], for l ascending. weights F64[n], rows F64[n, m]. O(n m)."""
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
