"""Four pixels of a triangle at once, in vector instructions: what numba has no words for."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 4
unpack: Any = cgutils.unpack_tuple


def _cover(
    typing: Any,
    near: Any,
    seen: Any,
    cell: Any,
    t: Any,
    x: Any,
    ends: Any,
    slopes: Any,
    rows: Any,
    depths: Any,
) -> Any:
    """Write `w` and `t` to those of the cells from `cell` on that the triangle covers and where it is the nearest.

    LLVM's vectors, because rows of a few pixels each are too short for a compiled loop's own, and their branches are
    mispredicted: this takes half the time. Each lane computes, in float64 and unfused, e_i = slopes_i x + rows_i and
    w = ((e_0 depths_0 + e_1 depths_1) + e_2 depths_2) depths_3; x grows by 1 from lane to lane, and must lie within
    `ends`.
    """
    pair, triple, four = (types.UniTuple(types.float64, n) for n in (2, 3, 4))  # type: ignore[no-untyped-call]
    signature = types.void(near, seen, types.uintp, types.int32, types.float64, pair, triple, triple, four)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        near, seen, cell, t, x, ends, slopes, rows, depths = arguments
        real, whole = ir.VectorType(ir.DoubleType(), LANES), ir.VectorType(ir.IntType(32), LANES)

        def spread(value: Any, kind: Any) -> Any:
            first = builder.insert_element(
                ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
            )
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)

        def each(values: Any) -> list[Any]:
            return [spread(value, real) for value in unpack(builder, values)]

        def place(array: Any, kind: Any, index: int) -> Any:
            data = context.make_array(signature.args[index])(context, builder, array).data
            return builder.bitcast(builder.gep(data, [cell]), kind.as_pointer())

        columns = builder.fadd(spread(x, real), ir.Constant(real, [float(k) for k in range(LANES)]))
        low, high = each(ends)
        w0, w1, w2, scale = each(depths)
        e = [
            builder.fadd(builder.fmul(slope, columns), row)
            for slope, row in zip(each(slopes), each(rows), strict=True)
        ]
        total = builder.fadd(
            builder.fadd(builder.fmul(e[0], w0), builder.fmul(e[1], w1)), builder.fmul(e[2], w2)
        )
        w = builder.fmul(total, scale)
        near_place, seen_place = place(near, real, 0), place(seen, whole, 1)
        before = builder.load(near_place, align=8)
        ids = builder.load(seen_place, align=4)
        zero = ir.Constant(real, [0.0] * LANES)
        wins = builder.fcmp_ordered(">", w, before)
        for value in e:
            wins = builder.and_(wins, builder.fcmp_ordered(">=", value, zero))
        wins = builder.and_(wins, builder.fcmp_ordered(">=", columns, low))
        wins = builder.and_(wins, builder.fcmp_ordered("<=", columns, high))
        builder.store(builder.select(wins, w, before), near_place, align=8)
        builder.store(builder.select(wins, spread(t, whole), ids), seen_place, align=4)
        return context.get_dummy_value()

    return signature, codegen


# An intrinsic is called without the typing context; its type does not say so.
cover: Any = intrinsic(_cover)
