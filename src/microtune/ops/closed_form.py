"""Recursive least squares as an operator: a dense layer's weight, bias and covariance, updated in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.op import Attributes, KernelCall, Op, Shape


def _shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    weight, bias, covariance, x = inputs[:4]
    return weight.shape, bias.shape, covariance.shape, (x.size + 1,)


def _reference(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    weight, bias, packed, x, dy = inputs
    size = x.size + 1
    covariance = np.zeros((size, size), packed.dtype)
    covariance[np.tril_indices(size)] = packed
    covariance = covariance + np.tril(covariance, -1).T
    phi = np.append(x, 1.0).astype(packed.dtype)
    gain = covariance @ phi
    spread = given["forgetting"] + gain @ phi
    step = np.outer(dy * dy.size / 2 / spread, gain)
    covariance = covariance - np.outer(gain, gain) / spread
    if covariance.diagonal().max() < given["prior"] * given["forgetting"]:
        covariance = covariance / given["forgetting"]
    return weight - step[:, :-1], bias - step[:, -1], covariance[np.tril_indices(size)], gain


def _kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    outputs, inputs = tensors[node.inputs[0]].shape
    given = node.attributes
    return KernelCall(
        "mt_rls",
        (*node.inputs, node.outputs[-1], float(given["forgetting"]), float(given["prior"]), inputs, outputs),
    )


OPS = (
    Op(
        name="rls",
        summary="recursive least squares step of a dense layer",
        shape=_shape,
        reference=_reference,
        kernel=_kernel,
        header="mt_kernels_rls.h",
        multiply_adds=lambda inputs, outputs: inputs[0].size + 2 * (inputs[3].size + 1) ** 2,
    ),
)
