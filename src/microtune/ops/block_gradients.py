"""Gradients of int8 operators as blocks (see ``blocks``), in integers alone: operators element by element.

In units of the real value, as the float gradients of ``quantized_gradients`` are; rounding of the forward pass counts
as the identity, and a value on a limit of its clamp passes nothing. ``block_layers`` has those of layers and pools,
``block_rules`` says which operator's gradient is made of which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.blocks import HEAD, ZERO, block_size, mantissas, write
from microtune.ops.op import Attributes, KernelCall, Op, Shape

HEADER = "mt_kernels_block.h"
Arrays = Sequence[np.ndarray]


def block_output(inputs: Sequence[Tensor], given: Attributes) -> tuple[str, ...]:
    """For operators whose one output is a block."""
    return ("int16",)


def _same_size(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    """A block, and a tensor of as many elements."""
    dy, other = inputs[:2]
    size = block_size(dy)
    if (block_size(other) if other.dtype == "int16" else other.size) != size:
        raise ValueError(f"takes a gradient of {other.size} elements, not of {size}")
    return (dy.shape,)


def _call(function: str, *names: str) -> Callable[[Node, Mapping[str, Tensor]], KernelCall]:
    """A call ``function(inputs..., output, integer attributes named here..., elements)``."""

    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        extra = tuple(int(node.attributes[name]) for name in names)
        return KernelCall(function, (*node.inputs, node.output, *extra, block_size(tensors[node.output])))

    return kernel


def _inside(inputs: Arrays, given: Attributes) -> tuple[np.ndarray, ...]:
    dy, y = inputs
    inside = (y.ravel() > given["low"]) & (y.ravel() < given["high"])
    return (write(np.where(inside, mantissas(dy), 0), int(dy[0])),)


def _masked_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    dy, mask = inputs
    if mask.dtype != "int8" or mask.size != (block_size(dy) + 7) // 8:
        raise ValueError(f"takes a bit for each of {block_size(dy)} elements, not {mask.size} bytes")
    return (dy.shape,)


def _masked(inputs: Arrays, given: Attributes) -> tuple[np.ndarray, ...]:
    dy, mask = inputs
    inside = np.unpackbits(mask.view(np.uint8), count=dy.size - HEAD, bitorder="little")
    return (write(np.where(inside, mantissas(dy), 0), int(dy[0])),)


def _add(inputs: Arrays, given: Attributes) -> tuple[np.ndarray, ...]:
    larger = max(int(each[0]) for each in inputs)
    if larger == ZERO:
        return (write(np.zeros(inputs[0].size - HEAD), 0),)
    total = np.zeros(inputs[0].size - HEAD, np.int64)
    for each in inputs:
        total += mantissas(each) << 14 >> min(larger - int(each[0]), 45)
    return (write(total, larger - 14),)


def _scale(inputs: Arrays, given: Attributes) -> tuple[np.ndarray, ...]:
    dy, rate = inputs
    return (write(mantissas(dy) * int(rate), int(dy[0]) - 16),)


def _scale_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    dy, rate = inputs
    block_size(dy)
    if rate.dtype != "int32" or rate.shape != ():
        raise ValueError(f"takes a rate of 16 binary places, int32 (), not {rate.dtype} {rate.shape}")
    return (dy.shape,)


def _lookup(inputs: Arrays, given: Attributes) -> tuple[np.ndarray, ...]:
    dy, x, slopes = inputs
    return (write(mantissas(dy) * mantissas(slopes)[x.ravel().astype(int) + 128], int(dy[0]) + int(slopes[0])),)


def _lookup_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    if block_size(inputs[2]) != 256:
        raise ValueError(f"takes 256 slopes, not {inputs[2].shape}")
    return _same_size(inputs, given)


def _multiply(inputs: Arrays, given: Attributes) -> tuple[np.ndarray, ...]:
    dy, other = inputs
    scaled = (mantissas(dy) * given["factor"] + 128) >> 8
    exponent = int(dy[0]) + given["exponent"] + 8
    return (write(scaled * (other.ravel().astype(np.int64) - given["zero_point"]), exponent),)


def _rows_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    if block_size(inputs[0]) != given["rows"] * given["given"]:
        raise ValueError(f"takes {given['rows']} rows of {given['given']}, not {block_size(inputs[0])} elements")
    return ((HEAD + given["rows"] * given["taken"],),)


def _rows(inputs: Arrays, given: Attributes) -> tuple[np.ndarray, ...]:
    dy = inputs[0]
    start, taken, width = given["start"], given["taken"], given["given"]
    rows = np.zeros((given["rows"], taken), np.int64)
    first, last = max(0, -start), min(taken, width - start)
    rows[:, first:last] = mantissas(dy).reshape(given["rows"], width)[:, start + first : start + last]
    return (write(rows, int(dy[0])),)


def _rows_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    numbers = (int(node.attributes[name]) for name in ("rows", "given", "taken", "start"))
    return KernelCall("mt_block_rows", (*node.inputs, node.output, *numbers))


def _transpose(inputs: Arrays, given: Attributes) -> tuple[np.ndarray, ...]:
    dy = inputs[0].copy()
    dy[HEAD:] = dy[HEAD:].reshape(given["shape"]).transpose(given["permutation"]).ravel()
    return (dy,)


def _transpose_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    shape, order = node.attributes["shape"], node.attributes["permutation"]
    strides = [int(np.prod(shape[axis + 1 :], dtype=int)) for axis in range(len(shape))]
    missing = (1,) * (4 - len(shape))
    sizes, steps = (*missing, *(shape[axis] for axis in order)), (*missing, *(strides[axis] for axis in order))
    return KernelCall("mt_block_transpose", (*node.inputs, node.output, *sizes, *steps))


OPS = (
    Op(
        name="block_inside_grad",
        summary="dL/dy where y lies strictly between low and high, else 0",
        shape=_same_size,
        reference=_inside,
        kernel=_call("mt_block_inside_grad", "low", "high"),
        header=HEADER,
        in_place=(0,),
        dtypes=block_output,
    ),
    Op(
        name="block_saturation_grad",
        summary="dL/dy where the mask (saturation_mask) lets it pass, else 0",
        shape=_masked_shape,
        reference=_masked,
        kernel=_call("mt_block_saturation_grad"),
        header=HEADER,
        in_place=(0,),
        dtypes=block_output,
    ),
    Op(
        name="block_add",
        summary="a + b, of blocks",
        shape=_same_size,
        reference=_add,
        kernel=_call("mt_block_add"),
        header=HEADER,
        in_place=(0, 1),
        dtypes=block_output,
    ),
    Op(
        name="block_scale",
        summary="rate dL/dy, rate of 16 binary places and at most 1: a learning rate that decays",
        shape=_scale_shape,
        reference=_scale,
        kernel=lambda node, tensors: KernelCall(
            "mt_block_scale", (node.inputs[0], node.output, node.inputs[1], block_size(tensors[node.output]))
        ),
        header=HEADER,
        in_place=(0,),
        multiply_adds=lambda inputs, outputs: block_size(inputs[0]),
        dtypes=block_output,
    ),
    Op(
        name="block_lookup_grad",
        summary="dL/dy slopes[x + 128], slopes a block of 256",
        shape=_lookup_shape,
        reference=_lookup,
        kernel=_call("mt_block_lookup_grad"),
        header=HEADER,
        in_place=(0,),
        multiply_adds=lambda inputs, outputs: inputs[1].size,
        dtypes=block_output,
    ),
    Op(
        name="block_multiply_grad",
        summary="dL/dy times the real value of the other factor, factor 2^exponent (q - zero_point)",
        shape=_same_size,
        reference=_multiply,
        kernel=_call("mt_block_multiply_grad", "factor", "exponent", "zero_point"),
        header=HEADER,
        in_place=(0,),
        multiply_adds=lambda inputs, outputs: inputs[1].size,
        dtypes=block_output,
    ),
    Op(
        name="block_rows",
        summary="elements start.. of each row of dL/dy, taken of them; 0 where there is none",
        shape=_rows_shape,
        reference=_rows,
        kernel=_rows_kernel,
        header=HEADER,
        dtypes=block_output,
    ),
    Op(
        name="block_transpose",
        summary="a block with the axes of what it belongs to in another order",
        shape=lambda inputs, given: (inputs[0].shape,),
        reference=_transpose,
        kernel=_transpose_kernel,
        header=HEADER,
        dtypes=block_output,
    ),
)
