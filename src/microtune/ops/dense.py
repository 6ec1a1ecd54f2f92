"""The fully connected layer: y = W x + b with W stored (outputs, inputs)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.op import Attributes, KernelCall, Op, Shape, Tape

HEADER = "mt_kernels_dense.h"


def _dense_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    x, weight, *bias = inputs
    if len(x.shape) != 1 or len(weight.shape) != 2 or weight.shape[1] != x.shape[0]:
        raise ValueError(f"takes x (inputs) and weight (outputs, inputs), not {x.shape} and {weight.shape}")
    if bias and bias[0].shape != (weight.shape[0],):
        raise ValueError(f"takes a bias ({weight.shape[0]},), not {bias[0].shape}")
    return ((weight.shape[0],),)


def _sizes(weight: Tensor) -> tuple[int, int]:
    outputs, inputs = weight.shape
    return inputs, outputs


def _dense_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    function = "mt_dense" if len(node.inputs) == 3 else "mt_linear"
    return KernelCall(function, (*node.inputs, node.output, *_sizes(tensors[node.inputs[1]])))


def _dense_gradient(tape: Tape, node: Node, gradient: str) -> dict[str, str]:
    x, weight, *bias = node.inputs
    found: dict[str, str] = {}
    if tape.wants(x):
        found[x] = tape.emit("dense_grad_input", (gradient, weight), f"{x}.grad")
    if tape.wants(weight):
        found[weight] = tape.emit("dense_grad_weight", (gradient, x), f"{weight}.grad")
    if bias and tape.wants(bias[0]):
        found[bias[0]] = gradient
    return found


dense = Op(
    name="dense",
    summary="y = W x + b; without the third input, y = W x",
    shape=_dense_shape,
    reference=lambda inputs, _: (inputs[1] @ inputs[0] + (inputs[2] if len(inputs) == 3 else 0),),
    kernel=_dense_kernel,
    header=HEADER,
    gradient=_dense_gradient,
    multiply_adds=lambda inputs, outputs: inputs[1].size,
)

dense_grad_input = Op(
    name="dense_grad_input",
    summary="dL/dx = W' dL/dy",
    shape=lambda inputs, _: ((inputs[1].shape[1],),),
    reference=lambda inputs, _: (inputs[1].T @ inputs[0],),
    kernel=lambda node, tensors: KernelCall(
        "mt_dense_grad_input", (*node.inputs, node.output, *_sizes(tensors[node.inputs[1]]))
    ),
    header=HEADER,
    multiply_adds=lambda inputs, outputs: inputs[1].size,
)

dense_grad_weight = Op(
    name="dense_grad_weight",
    summary="dL/dW = dL/dy x'",
    shape=lambda inputs, _: ((inputs[0].shape[0], inputs[1].shape[0]),),
    reference=lambda inputs, _: (np.outer(inputs[0], inputs[1]),),
    kernel=lambda node, tensors: KernelCall(
        "mt_dense_grad_weight", (*node.inputs, node.output, *_sizes(tensors[node.output]))
    ),
    header=HEADER,
    multiply_adds=lambda inputs, outputs: inputs[0].size * inputs[1].size,
)


def _dense_weight8_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    x, weight, *vectors = inputs
    found = _dense_shape((x, weight), attributes)
    if any(vector.shape != found[0] for vector in vectors):
        raise ValueError(f"takes a scale and a bias {found[0]}")
    return found


def _dense_weight8_gradient(tape: Tape, node: Node, gradient: str) -> dict[str, str]:
    x, weight, scale, bias = node.inputs
    found: dict[str, str] = {}
    if tape.wants(x):
        found[x] = tape.emit("dense_weight8_grad_input", (gradient, weight, scale), f"{x}.grad")
    if tape.wants(bias):
        found[bias] = gradient
    return found


dense_weight8 = Op(
    name="dense_weight8",
    summary="y = scale * (W x) + b with a frozen int8 W",
    shape=_dense_weight8_shape,
    reference=lambda inputs, _: (inputs[2] * (inputs[1].astype(inputs[0].dtype) @ inputs[0]) + inputs[3],),
    kernel=lambda node, tensors: KernelCall(
        "mt_dense_weight8", (*node.inputs, node.output, *_sizes(tensors[node.inputs[1]]))
    ),
    header=HEADER,
    gradient=_dense_weight8_gradient,
    multiply_adds=lambda inputs, outputs: inputs[1].size,
)

dense_weight8_grad_input = Op(
    name="dense_weight8_grad_input",
    summary="dL/dx = W' (scale * dL/dy)",
    shape=lambda inputs, _: ((inputs[1].shape[1],),),
    reference=lambda inputs, _: (inputs[1].T.astype(inputs[0].dtype) @ (inputs[2] * inputs[0]),),
    kernel=lambda node, tensors: KernelCall(
        "mt_dense_weight8_grad_input", (*node.inputs, node.output, *_sizes(tensors[node.inputs[1]]))
    ),
    header=HEADER,
    multiply_adds=lambda inputs, outputs: inputs[1].size,
)

OPS = (dense, dense_grad_input, dense_grad_weight, dense_weight8, dense_weight8_grad_input)
