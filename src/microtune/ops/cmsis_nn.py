"""int8 operators that Arm's CMSIS-NN computes, for networks compiled with ``cmsis_nn=PATH``.

Each stands for one of ours and takes the same inputs, but for shifts, which are int32 there, and the table of a
softmax. ``workspace`` is what the library asked for, in bytes; see ``compiler.cmsis_nn``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops import quantized_elementwise, quantized_layers, quantized_pooling
from microtune.ops.op import Attributes, KernelCall, Op, Shape

HEADER = "mt_cmsis_nn.h"
PREFIX = "cmsis_"
SHIFT = 4  # the place of the shifts among a layer's inputs


def _as_ours(inputs: Sequence[Tensor]) -> list[Tensor]:
    """The inputs as our operator takes them: shifts as int8."""
    return [Tensor(each.name, each.shape, "int8") if place == SHIFT else each for place, each in enumerate(inputs)]


def _layer(op: Op, *first: str) -> Op:
    """A layer or pool by the library; ``first`` are attributes that go before the sizes."""

    def shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
        return op.shape(_as_ours(inputs), given)[0], (int(given["workspace"]),)

    def reference(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
        return op.reference(inputs, given)[0], np.zeros(given["workspace"], np.int8)

    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        ours = op.kernel(replace(node, outputs=node.outputs[:1]), tensors)
        assert ours is not None
        numbers = (each for each in ours.arguments if not isinstance(each, str))
        extra = (int(node.attributes[name]) for name in ("workspace", *first))
        return KernelCall(f"mt_{PREFIX}{op.name}", (*node.inputs, *node.outputs, *extra, *numbers))

    return _by_library(op, shape, reference, kernel, ("int8", "int8"))


def _by_library(
    op: Op,
    shape: Callable[[Sequence[Tensor], Attributes], tuple[Shape, ...]],
    reference: Callable[[Sequence[np.ndarray], Attributes], tuple[np.ndarray, ...]],
    kernel: Callable[[Node, Mapping[str, Tensor]], KernelCall],
    dtypes: tuple[str, ...] = ("int8",),
    in_place: tuple[int, ...] = (),
) -> Op:
    return Op(
        name=PREFIX + op.name,
        summary=f"{op.name} by CMSIS-NN",
        shape=shape,
        reference=reference,
        kernel=kernel,
        header=HEADER,
        in_place=in_place,
        multiply_adds=op.multiply_adds,
        dtypes=lambda inputs, given: dtypes,
    )


def _elementwise(op: Op) -> Op:
    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        ours = op.kernel(node, tensors)
        assert ours is not None
        return replace(ours, function=f"mt_{PREFIX}{op.name}")

    return _by_library(op, op.shape, op.reference, kernel, in_place=op.in_place)


def _softmax_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    numbers = (int(node.attributes[name]) for name in ("multiplier", "shift", "lowest"))
    return KernelCall("mt_cmsis_softmax_int8", (*node.inputs, node.output, tensors[node.output].size, *numbers))


def _softmax(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    """By floating-point numbers; the library's own, in integers, may be one step away."""
    table = np.exp(-np.float64(given["step"]) * np.arange(256)).astype(np.float32)
    return quantized_elementwise.softmax_int8.reference([inputs[0], table], {})


OPS = (
    _layer(quantized_layers.conv2d_int8),
    _layer(quantized_layers.depthwise_conv2d_int8),
    _layer(quantized_layers.dense_int8, "alike"),
    _layer(quantized_pooling.average_pool2d_int8),
    _layer(quantized_pooling.max_pool2d_int8),
    _elementwise(quantized_elementwise.add_int8),
    _elementwise(quantized_elementwise.multiply_int8),
    _by_library(
        quantized_elementwise.softmax_int8, lambda inputs, given: (inputs[0].shape,), _softmax, _softmax_kernel
    ),
)
