"""Values moved and not computed: transpose, pad, concat, slice, of any type. Gradients are float32."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import DTYPE_BYTES, Tensor
from microtune.ops.op import Attributes, KernelCall, Op, Shape, Tape, same_dtype

HEADER = "mt_kernels_layout.h"
CONCAT = {2: "mt_concat", 3: "mt_concat_three", 4: "mt_concat_four"}
"""Number of inputs: the kernel that joins them."""


def _transpose_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    x, order = inputs[0].shape, tuple(attributes["permutation"])
    if sorted(order) != list(range(len(x))) or len(x) > 4:
        raise ValueError(f"takes a permutation of the axes of {x}, at most 4, not {order}")
    return (tuple(x[axis] for axis in order),)


def _transpose_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    x, order = tensors[node.inputs[0]], node.attributes["permutation"]
    strides = [math.prod(x.shape[axis + 1 :]) for axis in range(len(x.shape))]
    missing = (1,) * (4 - len(x.shape))
    sizes = (*missing, *(x.shape[axis] for axis in order))
    steps = (*missing, *(strides[axis] for axis in order))
    return KernelCall("mt_transpose", (node.inputs[0], node.output, DTYPE_BYTES[x.dtype], *sizes, *steps))


def _transpose_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    x = node.inputs[0]
    if not tape.wants(x):
        return {}
    back = tuple(int(axis) for axis in np.argsort(node.attributes["permutation"]))
    return {x: tape.emit("transpose", (dy,), f"{x}.grad", {"permutation": back})}


def _pad_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    x, padding = inputs[0].shape, attributes["padding"]
    if len(padding) != len(x) or not 1 <= len(x) <= 3 or min(min(pair) for pair in padding) < 0:
        raise ValueError(f"takes 1 to 3 axes and (before, after) of at least 0 for each, not {x} and {padding}")
    return (tuple(size + before + after for size, (before, after) in zip(x, padding, strict=True)),)


def _pad_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    x, y = tensors[node.inputs[0]], tensors[node.output]
    missing = 3 - len(x.shape)
    sizes, goal = (1,) * missing + x.shape, (1,) * missing + y.shape
    before = (0,) * missing + tuple(int(pair[0]) for pair in node.attributes["padding"])
    value = node.attributes["value"]
    function, written = ("mt_pad", float(value)) if x.dtype == "float32" else ("mt_pad_int8", int(value))
    return KernelCall(function, (node.inputs[0], node.output, written, y.size, *sizes, *goal[1:], *before))


def _pad_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    x = node.inputs[0]
    if not tape.wants(x):
        return {}
    gradient = dy
    for axis, ((before, after), size) in enumerate(zip(node.attributes["padding"], tape.tensor(x).shape, strict=True)):
        if before or after:
            given = {"axis": axis, "start": int(before), "stop": int(before) + size}
            gradient = tape.emit("slice", (gradient,), f"{x}.grad", given)
    return {x: gradient}


def _concat_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    first, axis = inputs[0].shape, attributes["axis"]
    rests = {tensor.shape[:axis] + tensor.shape[axis + 1 :] for tensor in inputs}
    if len(inputs) not in CONCAT or not 0 <= axis < len(first) or len(rests) != 1:
        shapes = ", ".join(str(tensor.shape) for tensor in inputs)
        raise ValueError(f"joins 2 to {max(CONCAT)} tensors that differ along axis {axis} only, not {shapes}")
    if len({tensor.dtype for tensor in inputs}) != 1:
        raise ValueError(f"joins tensors of one type, not {', '.join(tensor.dtype for tensor in inputs)}")
    return ((*first[:axis], sum(tensor.shape[axis] for tensor in inputs), *first[axis + 1 :]),)


def _row_bytes(tensor: Tensor, axis: int) -> int:
    """Bytes of all that lies behind ``axis``, it included."""
    return math.prod(tensor.shape[axis:]) * DTYPE_BYTES[tensor.dtype]


def _concat_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    axis = node.attributes["axis"]
    parts = [tensors[name] for name in node.inputs]
    rows = math.prod(parts[0].shape[:axis])
    sizes = (_row_bytes(part, axis) for part in parts)
    return KernelCall(CONCAT[len(parts)], (*node.inputs, node.output, rows, *sizes))


def _concat_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    found: dict[str, str] = {}
    start, axis = 0, node.attributes["axis"]
    for name in node.inputs:
        stop = start + tape.tensor(name).shape[axis]
        if tape.wants(name):
            part = tape.emit("slice", (dy,), f"{name}.grad", {"axis": axis, "start": start, "stop": stop})
            found[name] = tape.emit("add", (found[name], part), f"{name}.grad") if name in found else part
        start = stop
    return found


def _slice_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    x, axis, start, stop = inputs[0].shape, attributes["axis"], attributes["start"], attributes["stop"]
    if not (0 <= axis < len(x) and 0 <= start < stop <= x[axis]):
        raise ValueError(f"cannot take {start} to {stop} along axis {axis} of {x}")
    return ((*x[:axis], stop - start, *x[axis + 1 :]),)


def _slice_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    x, y, axis = tensors[node.inputs[0]], tensors[node.output], node.attributes["axis"]
    rows, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :]) * DTYPE_BYTES[x.dtype]
    count = _row_bytes(y, axis)
    sizes = (rows, count, _row_bytes(x, axis), count, node.attributes["start"] * inner, 0)
    return KernelCall("mt_copy_rows", (node.inputs[0], node.output, *sizes))


def _slice_reference(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    return (inputs[0].take(np.arange(given["start"], given["stop"]), given["axis"]),)


def _slice_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    x, given = node.inputs[0], node.attributes
    if not tape.wants(x):
        return {}
    shape = tape.tensor(x).shape
    padding = [(0, 0)] * len(shape)
    padding[given["axis"]] = (given["start"], shape[given["axis"]] - given["stop"])
    if len(shape) > 3:
        raise ValueError(f"the gradient of a slice of {shape} takes at most 3 axes")
    return {x: tape.emit("pad", (dy,), f"{x}.grad", {"padding": tuple(padding), "value": 0.0})}


OPS = (
    Op(
        "transpose", "the axes in another order", _transpose_shape,
        lambda inputs, given: (np.transpose(inputs[0], given["permutation"]),),
        _transpose_kernel, HEADER, _transpose_gradient, dtypes=same_dtype,
    ),
    Op(
        "pad", "a margin of one value, (before, after) along each axis", _pad_shape,
        lambda inputs, given: (np.pad(inputs[0], given["padding"], constant_values=given["value"]),),
        _pad_kernel, HEADER, _pad_gradient, dtypes=same_dtype,
    ),
    Op(
        "concat", "tensors joined along an axis", _concat_shape,
        lambda inputs, given: (np.concatenate(inputs, given["axis"]),),
        _concat_kernel, HEADER, _concat_gradient, dtypes=same_dtype,
    ),
    Op(
        "slice", "start to stop along an axis", _slice_shape, _slice_reference,
        _slice_kernel, HEADER, _slice_gradient, dtypes=same_dtype,
    ),
)  # fmt: skip
