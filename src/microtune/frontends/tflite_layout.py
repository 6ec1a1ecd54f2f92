"""TFLite operators that move values, and those that compute shapes: the same for float and int8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from microtune.frontends.tflite_values import Call, Constant, Value, Variable, tensor_name
from microtune.ir import Quantization, Tensor


def _moved(call: Call, op: str, *inputs: Tensor, **attributes: Any) -> Tensor:
    """A node whose output has the type and quantisation of its first input."""
    return call.emit(op, *inputs, quantization=inputs[0].quantization, **attributes)


def reshape(call: Call) -> Variable:
    """RESHAPE, SQUEEZE, EXPAND_DIMS: the shape is the one the file declares for the output."""
    value = call.input(0)
    if not isinstance(value, Variable):
        raise call.error("input 0 must depend on the input of the model")
    shape = call.sample_shape(call.y)
    return Variable(call.builder.reshape(value.tensor, shape, tensor_name(call.y), call.where), value.whole)


def transpose(call: Call) -> Variable:
    x = call.tensor()
    rank = len(x.shape) + 1
    order = call.integers(1, "permutation", rank)
    if sorted(axis % rank for axis in order) != list(range(rank)):
        raise call.error(f"{order} is no order of {rank} axes")
    if order[0] % rank:
        raise call.error("moves the batch dimension (axis 0); a device sees one sample at a time")
    return Variable(_moved(call, "transpose", x, permutation=tuple(axis % rank - 1 for axis in order[1:])))


def concatenate(call: Call) -> Variable:
    kind = "ConcatenationOptions"
    if call.activation(kind) != "none":
        raise call.error("has a fused activation; only the plain operator is supported")
    rank = len(call.y.shape)
    shape = call.sample_shape(call.y)
    axis = call.sample_axis(int(call.option(kind, "Axis")), rank)
    y_q = call.quantization(call.y) if call.y.dtype == "int8" else None
    parts = [_part(call, index, y_q, axis, shape) for index in range(len(call.inputs))]
    if len(parts) == 1:
        return Variable(call.builder.reshape(parts[0], shape, tensor_name(call.y), call.where))
    return Variable(_moved(call, "concat", *parts, axis=axis))


def _part(call: Call, index: int, y_q: Quantization | None, axis: int, shape: Sequence[int]) -> Tensor:
    """One input of CONCATENATION; int8 inputs have the output's scale."""
    value = call.input(index)
    if isinstance(value, Constant):
        q = call.quantization(value.stored) if y_q is not None else None
        own = list(shape)
        own[axis] = value.array.shape[axis + 1] if value.array.ndim == len(shape) + 1 else 0
        array = call.per_sample(value.array if y_q is not None else call.real(value), own)
        wish = tensor_name(value.stored)
        tensor = (
            call.builder.constant(wish, array, call.where)
            if q is None
            else call.builder.quantized(wish, array, call.where, q)
        )
    else:
        tensor = call.tensor(index)
    q = tensor.quantization
    if y_q is not None and (q is None or (q.scale, q.zero_point) != (y_q.scale, y_q.zero_point)):
        raise call.error(f"its input '{tensor.name}' and its output have different scales; int8 values must share one")
    return tensor


def pad(call: Call) -> Variable:
    """PAD with zero, PADV2 with a given number."""
    x = call.tensor()
    amounts = call.constant(1, "amounts of padding").array
    if amounts.dtype.kind != "i" or amounts.shape != (len(x.shape) + 1, 2):
        raise call.error(f"takes two amounts of padding for each of {len(x.shape) + 1} axes, not {amounts.shape}")
    if amounts[0].any():
        raise call.error("pads the batch dimension (axis 0); a device sees one sample at a time")
    value: float | int = 0.0 if x.quantization is None else int(x.quantization.zero_point)
    if call.input(2) is not None:
        given = call.constant(2, "padding value")
        if given.array.size != 1 or str(given.array.dtype) != x.dtype:
            raise call.error(f"its padding value must be one number of {x.dtype}")
        value = given.array.reshape(-1)[0].item()
    padding = tuple((int(before), int(after)) for before, after in amounts[1:])
    return Variable(_moved(call, "pad", x, padding=padding, value=value))


def _cut(call: Call, x: Tensor, bounds: Sequence[tuple[int, int]]) -> Tensor:
    """``x`` from start to stop along each axis of the sample; the last cut has the output's name."""
    needed = [axis for axis, (start, stop) in enumerate(bounds) if (start, stop) != (0, x.shape[axis])]
    for axis in needed:
        start, stop = bounds[axis]
        if not 0 <= start < stop <= x.shape[axis]:
            raise call.error(f"takes {start} to {stop} of {x.shape[axis]} elements; at least one must remain")
        wish = "" if axis == needed[-1] else f"{x.name}.cut"
        x = _moved(call, "slice", x, wish=wish, axis=axis, start=start, stop=stop)
    return x


def slice_of(call: Call) -> Variable:
    """SLICE: a start and a size for each axis; -1 is all the rest."""
    x = call.tensor()
    full = (call.batch, *x.shape)
    starts, sizes = (call.integers(index, what, len(full)) for index, what in ((1, "starts"), (2, "sizes")))
    stops = [length if size == -1 else start + size for start, size, length in zip(starts, sizes, full, strict=True)]
    if (starts[0], stops[0]) != (0, call.batch):
        raise call.error("cuts the batch dimension (axis 0); a device sees one sample at a time")
    return Variable(_cut(call, x, list(zip(starts[1:], stops[1:], strict=True))))


def _strided(call: Call, full: Sequence[int]) -> tuple[list[slice], list[int]]:
    """For each axis the slice (start, stop, step), and the axes of which one element is taken and which vanish."""
    kind = "StridedSliceOptions"
    for mask in ("EllipsisMask", "NewAxisMask", "Offset"):
        if call.option(kind, mask):
            raise call.error(f"uses {mask}; begin, end and shrink masks are supported")
    begins = call.integers(1, "starts")
    ends, steps = (call.integers(index, what, len(begins)) for index, what in ((2, "stops"), (3, "steps")))
    begin_mask, end_mask, shrink = (int(call.option(kind, f"{name}Mask")) for name in ("Begin", "End", "ShrinkAxis"))
    if len(begins) > len(full):
        raise call.error(f"cuts {len(begins)} axes of {len(full)}")
    found, gone = [slice(0, length, 1) for length in full], []
    for axis, (begin, end, step) in enumerate(zip(begins, ends, steps, strict=True)):
        if step != 1:
            raise call.error(f"takes every {step}th element of axis {axis}; only steps of 1 are supported")
        if shrink >> axis & 1:
            start = begin + full[axis] if begin < 0 else begin
            found[axis] = slice(start, start + 1, 1)
            gone.append(axis)
            continue
        start, stop, _ = slice(
            None if begin_mask >> axis & 1 else begin, None if end_mask >> axis & 1 else end
        ).indices(full[axis])  # fmt: skip
        found[axis] = slice(start, stop, 1)
    return found, gone


def strided_slice(call: Call) -> Value:
    """STRIDED_SLICE with steps of 1, on values and on shapes computed in the model."""
    value = call.input(0)
    if isinstance(value, Constant):
        bounds, gone = _strided(call, value.array.shape)
        index = tuple(bound.start if axis in gone else bound for axis, bound in enumerate(bounds))
        return Constant(np.asarray(value.array[index]), call.y)
    x = call.tensor()
    bounds, gone = _strided(call, (call.batch, *x.shape))
    if 0 in gone or (bounds[0].start, bounds[0].stop) != (0, call.batch):
        raise call.error("cuts the batch dimension (axis 0); a device sees one sample at a time")
    cut = _cut(call, x, [(bound.start, bound.stop) for bound in bounds[1:]])
    shape = tuple(size for axis, size in enumerate(cut.shape, 1) if axis not in gone)
    return Variable(call.builder.reshape(cut, shape, tensor_name(call.y), call.where))


def split(call: Call) -> tuple[Variable, ...]:
    """SPLIT into equal parts."""
    (number,) = call.integers(0, "axis", 1)
    x = call.tensor(1)
    axis = call.sample_axis(number, len(x.shape) + 1)
    parts = len(call.outputs)
    if x.shape[axis] % parts or parts != call.option("SplitOptions", "NumSplits"):
        raise call.error(f"splits {x.shape[axis]} elements into {parts} parts")
    size = x.shape[axis] // parts
    if parts == 1:
        return (Variable(x),)
    return tuple(
        Variable(_moved(call, "slice", x, wish=tensor_name(stored), axis=axis, start=at * size, stop=(at + 1) * size))
        for at, stored in enumerate(call.outputs)
    )


def gather(call: Call) -> Variable:
    """GATHER of rows of a constant table by integers: an embedding."""
    kind = "GatherOptions"
    table, indices = call.input(0), call.input(1)
    if not isinstance(table, Constant) or not isinstance(indices, Variable) or not indices.whole:
        raise call.error("supported as an embedding only: rows of a constant table by integers of the input")
    if table.array.ndim != 2 or call.option(kind, "Axis") or call.option(kind, "BatchDims"):
        raise call.error(f"takes rows (axis 0) of a table (entries, width), not of {table.array.shape}")
    name = call.layer_name(table.stored)
    row = call.builder.reshape(indices.tensor, (indices.tensor.size,), f"{indices.tensor.name}.vector", call.where)
    weight = call.builder.constant(f"{name}.weight", call.real(table), call.where)
    shape = (*indices.tensor.shape, table.array.shape[1])
    if call.y.dtype != "int8":
        found = call.emit("embedding", row, weight, node=name)
        return Variable(call.builder.reshape(found, shape, found.name, call.where))
    y_q = call.quantization(call.y)
    real = call.emit("embedding", row, weight, wish=f"{name}.real", node=name)
    stored = call.emit("quantize", real, quantization=y_q, scale=float(y_q.scale), zero_point=int(y_q.zero_point))
    return Variable(call.builder.reshape(stored, shape, stored.name, call.where))


def cast(call: Call) -> Value:
    """CAST between numbers and integers that index a table; a constant is computed now."""
    value, target = call.input(0), call.y.dtype
    if target not in ("float32", "int32", "int64"):
        raise call.error(f"to {target} is not supported; float32, int32 and int64 are")
    if isinstance(value, Constant):
        return Constant(value.array.astype(target), call.y)
    if not isinstance(value, Variable) or value.tensor.dtype != "float32":
        raise call.error("of int8 values is not supported; DEQUANTIZE gives the numbers they stand for")
    return Variable(value.tensor, whole=target != "float32")


def shape_of(call: Call) -> Constant:
    """SHAPE: known at import."""
    value = call.input(0)
    if isinstance(value, Constant):
        return Constant(np.array(value.array.shape, np.int32), call.y)
    if not isinstance(value, Variable):
        raise call.error("its input is missing")
    return Constant(np.array((call.batch, *value.tensor.shape), np.int32), call.y)


def pack(call: Call) -> Constant:
    """PACK of constants, as shapes are put together."""
    arrays = [call.constant(index, "inputs").array for index in range(len(call.inputs))]
    if not arrays or any(array.shape != () for array in arrays):
        raise call.error("supported on constant numbers only; CONCATENATION joins values")
    return Constant(np.stack(arrays), call.y)
