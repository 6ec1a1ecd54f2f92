"""Gradients to the input of int8 layers of which some input channels learn.

Such a layer has a sixth input, ``learnt``, in RAM; it stands for the channels ``start`` to ``start`` + its own of the
weight, which stays whole in flash. The gradient must meet the weights that the forward pass met.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.op import Attributes, KernelCall, Op, Shape
from microtune.ops.window import window_sizes

HEADER = "mt_kernels_int8_grad.h"


def _check(inputs: Sequence[Tensor], given: Attributes) -> None:
    dy, weight, scale, learnt = inputs
    *rows, channels = weight.shape
    start, taken = given["start"], learnt.shape[-1]
    if learnt.shape[:-1] != tuple(rows) or start < 0 or start + taken > channels:
        raise ValueError(f"cannot put learnt channels {learnt.shape} at {start} of a weight {weight.shape}")
    if scale.shape != weight.shape[:1] or dy.shape[-1:] != scale.shape:
        raise ValueError(f"takes {weight.shape[0]} gradients and scales, not {dy.shape} and {scale.shape}")


def _real_weight(inputs: Sequence[np.ndarray], given: Attributes) -> np.ndarray:
    """The weight in real units, with the learnt channels in their place."""
    dy, weight, scale, learnt = inputs
    whole = weight.astype(dy.dtype)
    whole[..., given["start"] : given["start"] + learnt.shape[-1]] = learnt
    return np.asarray(whole * scale.reshape(-1, *[1] * (weight.ndim - 1)))


def _dense_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    _check(inputs, given)
    return ((inputs[1].shape[1],),)


def _conv2d_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    _check(inputs, given)
    return (tuple(given["input_shape"]),)


def _conv2d_reference(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    dy, weight = inputs[0], _real_weight(inputs, given)
    (sh, sw), ((top, bottom), (left, right)) = given["stride"], given["padding"]
    height, width, channels = given["input_shape"]
    padded = np.zeros((height + top + bottom, width + left + right, channels), dy.dtype)
    rows, columns = dy.shape[:2]
    for i, j in np.ndindex(weight.shape[1:3]):
        padded[i : i + sh * rows : sh, j : j + sw * columns : sw][:rows, :columns] += dy @ weight[:, i, j]
    return (padded[top : top + height, left : left + width],)


def _dense_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    weight, learnt = tensors[node.inputs[1]].shape, tensors[node.inputs[3]].shape
    sizes = (weight[1], weight[0], node.attributes["start"], learnt[-1])
    return KernelCall("mt_dense_int8_learnt_grad_input", (*node.inputs, node.output, *sizes))


def _conv2d_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    dy, weight, _, learnt = (tensors[name].shape for name in node.inputs)
    given = node.attributes
    sizes = (*window_sizes(given["input_shape"], dy, weight[1:3], given), weight[3], weight[0])
    arguments = (*node.inputs, node.output, *sizes, given["start"], learnt[-1])
    return KernelCall("mt_conv2d_int8_learnt_grad_input", arguments)


dense_int8_learnt_grad_input = Op(
    name="dense_int8_learnt_grad_input",
    summary="dL/dx of dense_int8 with learnt inputs start.. of the weight",
    shape=_dense_shape,
    reference=lambda inputs, given: (inputs[0] @ _real_weight(inputs, given),),
    kernel=_dense_kernel,
    header=HEADER,
    multiply_adds=lambda inputs, outputs: inputs[1].size,
)

conv2d_int8_learnt_grad_input = Op(
    name="conv2d_int8_learnt_grad_input",
    summary="dL/dx of conv2d_int8 with learnt input channels start.. of the weight",
    shape=_conv2d_shape,
    reference=_conv2d_reference,
    kernel=_conv2d_kernel,
    header=HEADER,
    multiply_adds=lambda inputs, outputs: inputs[1].size * (inputs[0].size // inputs[0].shape[-1]),
)

OPS = (dense_int8_learnt_grad_input, conv2d_int8_learnt_grad_input)
