"""ONNX operators that move values: reshape, transpose, squeeze, slice, concatenate, pad, gather.

They work on real values, on int8 tensors and on indices alike. What only changes a shape adds no node where the
elements need not move; see ``onnx_layout``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from microtune.errors import ModelError
from microtune.frontends.builder import check_size
from microtune.frontends.onnx_constants import axes_of, reshaped, slice_ranges
from microtune.frontends.onnx_layout import arrange
from microtune.frontends.onnx_quantized import requantized, same
from microtune.frontends.onnx_values import Call, Constant, Value, Variable
from microtune.ir import Quantization, Tensor
from microtune.ops.quantized_build import quantize_array

MOST_PADDED = 3
"""Axes that the operator ``pad`` takes at once."""


def identity(call: Call) -> Value:
    return call.variable()


def flatten(call: Call) -> Value:
    x = call.variable()
    full, axis = call.full(x), call.attributes.get("axis", 1)
    if not -len(full) <= axis <= len(full):
        raise ModelError(f"{call.where}: axis {axis} does not fit {full}")
    axis = axis + len(full) if axis < 0 else axis
    return call.as_shape(x, (math.prod(full[:axis]), math.prod(full[axis:])))


def reshape(call: Call) -> Value:
    x, target = call.variable(0), call.array(1, "shape").array
    if target.ndim != 1 or target.size > 8 or target.dtype.kind != "i":
        raise ModelError(f"{call.where}: takes a list of at most 8 whole numbers as shape")
    allow_zero = bool(call.attributes.get("allowzero", 0))
    return call.as_shape(x, reshaped(call.full(x), target.tolist(), allow_zero, call.where))


def squeeze(call: Call) -> Value:
    x = call.variable()
    full = call.full(x)
    given = (None, call.array(1, "axes").array) if call.input(1) is not None else ()
    axes = axes_of(given, call.attributes, len(full), call.where)
    if axes is None:
        axes = tuple(axis for axis, size in enumerate(full) if size == 1)
    if any(full[axis] != 1 for axis in axes):
        raise ModelError(f"{call.where}: axes {axes} of {full} are not all of size 1")
    # at the very end nothing can mistake the next dimension for the batch
    kept = [size for axis, size in enumerate(full) if axis not in axes or (axis == 0 and call.is_output)]
    return call.as_shape(x, kept if 0 not in axes or call.is_output else kept[:0])


def unsqueeze(call: Call) -> Value:
    x = call.variable()
    full = list(call.full(x))
    given = call.attributes.get("axes")
    if given is None:
        given = call.array(1, "axes").array
    count = np.atleast_1d(given).size
    for axis in axes_of((), {"axes": given}, len(full) + count, call.where) or ():
        if axis == 0:
            raise ModelError(f"{call.where}: puts a dimension before the batch")
        full.insert(axis, 1)
    return call.as_shape(x, full)


def transpose(call: Call) -> Value:
    """No element moves: from here on the axes of the sample have other numbers."""
    x = call.variable()
    full = call.full(x)
    order = tuple(call.attributes.get("perm", tuple(reversed(range(len(full))))))
    if sorted(order) != list(range(len(full))):
        raise ModelError(f"{call.where}: perm {order} does not fit {full}")
    if order[0] != 0:
        raise ModelError(
            f"{call.where}: perm {order} moves the batch dimension of {full}, which removes or mixes the batch; "
            "a device sees one sample at a time"
        )
    moved = [axis - 1 for axis in order[1:]]
    have = x.arrangement.axes(x.shape)
    if have is None:
        x = call.listed(x)
        have = x.arrangement.axes(x.shape) or ()
    shape = tuple(x.shape[axis] for axis in moved)
    there = [moved.index(axis) for axis in have]
    ones = [axis for axis, size in enumerate(shape) if size == 1]
    return replace(x, shape=shape, arrangement=arrange(shape, (*there, *ones)))


def _sorted_out(call: Call, x: Variable) -> tuple[Variable, tuple[int, ...]]:
    """``x`` in a tensor that has all axes of its shape, and their order there."""
    have = x.arrangement.axes(x.shape)
    if have is None:
        x = call.listed(x)
        return x, tuple(range(len(x.shape)))
    ones = tuple(axis for axis, size in enumerate(x.shape) if size == 1)
    order = tuple(range(len(x.shape))) if x.arrangement.is_plain else (*ones, *have)
    return replace(x, tensor=call.arranged(x, order)), order


def _sliced(call: Call, x: Variable, axis: int, start: int, stop: int) -> Variable:
    """The elements ``start`` to ``stop`` along one axis of the sample."""
    if (start, stop) == (0, x.shape[axis]):
        return x
    x, order = _sorted_out(call, x)
    at = order.index(axis)
    q = x.tensor.quantization
    tensor = call.emit("slice", x.tensor, quantization=q, axis=at, start=start, stop=stop)
    shape = tuple(stop - start if index == axis else size for index, size in enumerate(x.shape))
    return replace(x, tensor=tensor, shape=shape, arrangement=arrange(shape, order))


def slice_(call: Call) -> Value:
    """Ranges known at import, in steps of one; the batch stays whole."""
    x = call.variable()
    full = call.full(x)
    given = [None if value is None else call.array(index, "range").array for index, value in enumerate(call.inputs)
             if index > 0]  # fmt: skip
    for axis, found in slice_ranges(given, call.attributes, full, call.where):
        if axis == 0 and found != slice(0, full[0], 1):
            raise ModelError(f"{call.where}: takes a part of the batch; a device sees one sample at a time")
        if found.step != 1:
            raise ModelError(f"{call.where}: steps of {found.step} are not supported; 1 is")
        if found.stop is None or found.stop <= found.start:
            raise ModelError(f"{call.where}: takes nothing of axis {axis} of {full}")
        if axis > 0:
            x = _sliced(call, x, axis - 1, found.start, found.stop)
    return x


def _axis(call: Call, axis: int, x: Variable) -> int:
    """An axis of the sample from one of the source model."""
    rank = len(x.shape) + 1
    if not -rank <= axis < rank:
        raise ModelError(f"{call.where}: axis {axis} does not fit {call.full(x)}")
    if axis % rank == 0:
        raise ModelError(f"{call.where}: works along the batch; a device sees one sample at a time")
    return axis % rank - 1


def gather(call: Call) -> Value:
    """Rows of a constant table by the indices that are the input (an embedding), or one place along an axis."""
    data, indices = call.input(0), call.input(1)
    if isinstance(data, Variable):
        place = call.array(1, "index")
        if place.array.size != 1 or place.array.dtype.kind != "i":
            raise ModelError(f"{call.where}: takes {place.array.size} places; one is supported, or Slice for a range")
        axis = _axis(call, int(call.attributes.get("axis", 0)), data)
        index = int(place.array.reshape(()))
        if not -data.shape[axis] <= index < data.shape[axis]:
            raise ModelError(f"{call.where}: place {index} is not in axis {axis + 1} of {call.full(data)}")
        index %= data.shape[axis]
        x = _sliced(call, data, axis, index, index + 1)
        shape = (*x.shape[:axis], *place.array.shape, *x.shape[axis + 1 :])
        return call.as_shape(x, (call.batch, *shape))
    table, x = call.array(0, "table"), call.variable(1)
    if x.kind == "stored" and table.array.shape == (256,) and call.target is not None and call.target.kind == "none":
        return _looked_up(call, x, table, call.target.quantization)
    if table.array.ndim != 2 or call.attributes.get("axis", 0) != 0:
        raise ModelError(f"{call.where}: an embedding takes rows of a table (V, D), not of {table.array.shape}")
    if not isinstance(indices, Variable) or indices.kind != "whole":
        raise ModelError(f"{call.where}: its indices must be the whole numbers of the input")
    x = call.listed(x)
    rows = call.builder.constant(table.name, table.array, call.where)
    tensor = call.emit("embedding", call.vector(x), rows)
    return call.result(tensor, (*x.shape, table.array.shape[1]))


def _looked_up(call: Call, x: Variable, table: Constant, q: Quantization) -> Variable:
    """Any function of an int8 value, by its stored integer, of which negative ones count from the table's end."""
    stored = np.roll(quantize_array(table.array, q), 128)
    data = call.builder.quantized(f"{call.output}.table", stored, call.where, None)
    y = call.emit("lookup_int8", x.tensor, data, quantization=q)
    return call.settled(replace(x, kind="real"), y)


def _aligned(call: Call, values: Sequence[Variable | Constant]) -> tuple[list[Tensor], tuple[int, ...]]:
    """Tensors of several values with their axes in one order, and that order."""
    variables = [value for value in values if isinstance(value, Variable)]
    # an order that is not the source model's is there for a layer to come
    first = next((x for x in variables if not x.arrangement.is_plain), variables[0])
    _, order = _sorted_out(call, first)
    found = []
    for value in values:
        if isinstance(value, Variable):
            found.append(call.arranged(value, order))
        else:
            sample = call.per_sample(value, (call.batch, *value.array.shape[1:]))
            found.append(call.builder.constant(value.name, sample.transpose(order), call.where))
    return found, order


def concat(call: Call) -> Value:
    values = [value for value in call.inputs if value is not None]
    variables = [value for value in values if isinstance(value, Variable)]
    first = variables[0]
    shapes = [x.shape if isinstance(x, Variable) else x.array.shape[1:] for x in values]
    if len({len(shape) for shape in shapes}) != 1:
        raise ModelError(f"{call.where}: joins values of different ranks: {', '.join(map(str, shapes))}")
    axis = _axis(call, call.attributes["axis"], first)
    settled = None
    if all(isinstance(x, Variable) and x.is_int8 for x in values):
        q = variables[0].quantization
        if call.target is not None:
            settled = call.target
            values = [replace(x, tensor=requantized(call, x, settled, f"{x.tensor.name}.rescaled")) for x in variables]
        elif not all(same(x.quantization, q) for x in variables):
            values = [call.real(x) for x in variables]
    else:
        values = [call.real(x) if isinstance(x, Variable) else x for x in values]
    if len(values) == 1:
        assert isinstance(values[0], Variable)
        return call.settled(values[0], values[0].tensor) if settled else values[0]
    tensors, order = _aligned(call, values)
    tensor = call.emit("concat", *tensors, quantization=tensors[0].quantization, axis=order.index(axis))
    shape = list(first.shape)
    shape[axis] = sum(each[axis] for each in shapes)
    result = call.result(tensor, shape, order)
    return call.settled(result, tensor) if settled else result


def pad(call: Call) -> Value:
    """With a constant; pads are an attribute before opset 11 and an input since."""
    x = call.variable()
    full, mode = call.full(x), call.attributes.get("mode", b"constant").decode()
    if mode != "constant":
        raise ModelError(f"{call.where}: mode '{mode}' is not supported; 'constant' is")
    value = float(call.attributes.get("value", 0.0))
    if call.input(2) is not None:
        given = call.array(2, "value").array
        if given.size != 1:
            raise ModelError(f"{call.where}: pads with {given.size} values; one is needed")
        value = float(given.reshape(()))
    pads = call.attributes.get("pads")
    pads = [int(size) for size in (call.array(1, "pads").array.reshape(-1) if pads is None else pads)]
    axes: Sequence[int] = range(len(full))
    if call.input(3) is not None:
        listed = call.array(3, "axes").array
        axes_of((), {"axes": listed}, len(full), call.where)
        axes = [int(axis) % len(full) for axis in np.atleast_1d(listed)]
    if len(pads) != 2 * len(axes) or min(pads, default=0) < 0:
        raise ModelError(f"{call.where}: pads {tuple(pads)} must be {2 * len(axes)} numbers of at least 0")
    sizes = dict.fromkeys(range(len(full)), (0, 0))
    sizes |= dict(zip(axes, zip(pads[: len(axes)], pads[len(axes) :], strict=True), strict=True))
    if sizes[0] != (0, 0):
        raise ModelError(f"{call.where}: pads the batch; a device sees one sample at a time")
    if not any(pads):
        return x
    if not np.isfinite(np.float32(value)):
        raise ModelError(f"{call.where}: pads with {value}; a finite number is needed")
    if len(x.shape) == 3 and x.arrangement.is_plain and sizes[1] == (0, 0):
        x = call.ending_in(x, (0,))  # around an image: for the convolution that follows
    x, order = _sorted_out(call, x)
    padding = tuple(sizes[axis + 1] for axis in order)
    shape = tuple(size + sum(sizes[axis + 1]) for axis, size in enumerate(x.shape))
    check_size(shape, call.where)
    q = x.tensor.quantization
    stored: float | int = float(np.float32(value)) if q is None else int(quantize_array(value, q))
    tensor = x.tensor
    if len(padding) <= MOST_PADDED:
        tensor = call.emit("pad", tensor, quantization=q, padding=padding, value=stored)
    else:  # one axis after the other, all before it and all behind it being one each
        for axis, sides in enumerate(padding):
            if any(sides):
                sizes_now = tensor.shape
                around = (math.prod(sizes_now[:axis]), sizes_now[axis], math.prod(sizes_now[axis + 1 :]))
                tensor = call.seen_as(tensor, around, f"{tensor.name}.around")
                tensor = call.emit("pad", tensor, quantization=q, padding=((0, 0), sides, (0, 0)), value=stored)
                grown = (*sizes_now[:axis], sizes_now[axis] + sum(sides), *sizes_now[axis + 1 :])
                tensor = call.seen_as(tensor, grown, f"{tensor.name}.grown")
    return replace(x, tensor=tensor, shape=shape, arrangement=arrange(shape, order))


def shape_(call: Call) -> Value:
    full = call.full(call.variable())
    return Constant(call.output, np.array(full[call.attributes.get("start", 0) : call.attributes.get("end")], np.int64))
