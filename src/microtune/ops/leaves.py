"""Leaves of trees learnt by a formula, one sample at a time: a Kalman filter over the indicators of all leaves.

Inputs of each: values (leaves of all trees, outputs), the packed covariance, the leaves of a sample, sizes, y, target.
Outputs: the first two anew, and scratch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.closed_form import LEAST_CURVATURE, moderation, packed, triangle, unpacked
from microtune.ops.op import Attributes, KernelCall, Op, Shape
from microtune.ops.trees import rows_of

HEADER = "mt_kernels_leaves.h"
LOSSES = ("mse", "binary_cross_entropy", "cross_entropy")


def _shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    values, covariance = inputs[:2]
    leaves, outputs = values.shape
    if covariance.shape != (triangle(leaves),) or inputs[4].shape != (outputs,):
        raise ValueError(f"takes a covariance of {leaves} leaves, and as many outputs as a leaf has values, {outputs}")
    return values.shape, covariance.shape, (leaves + outputs,)


def _errors(loss: str, y: np.ndarray, target: np.ndarray, variance: float) -> tuple[np.ndarray, float]:
    """What is wrong with each output, and the curvature of the loss."""
    if loss == "mse":
        return target - y, 1.0
    if loss == "binary_cross_entropy":
        p = 1 / (1 + np.exp(-y * moderation(variance)))
        return target - p, float((p * (1 - p))[0])
    scores = np.exp((y - y.max()) * moderation(variance))
    p = scores / scores.sum()
    wrong = -p
    wrong[int(target[0])] += 1
    return wrong, max(LEAST_CURVATURE, float((p * (1 - p)).max()))


def _reference(loss: str) -> Callable[[Sequence[np.ndarray], Attributes], tuple[np.ndarray, ...]]:
    def reference(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
        values, rows, leaves, sizes, y, target = inputs
        covariance = unpacked(rows)
        prior, walk = given["prior"], given["walk"]
        np.fill_diagonal(covariance, np.minimum(covariance.diagonal() + walk * prior, prior))
        phi = np.zeros(len(values), values.dtype)
        phi[rows_of(leaves, sizes, given)] = 1
        gain = covariance @ phi
        variance = float(gain @ phi)
        wrong, curvature = _errors(loss, y, target, variance)
        spread = 1 + curvature * variance
        moved = values + np.outer(gain, wrong) / spread
        covariance = covariance - np.outer(gain, gain) * (curvature / spread)
        return moved, packed(covariance), np.zeros(len(values) + y.size, values.dtype)

    return reference


def _kernel(loss: str) -> Callable[[Node, Mapping[str, Tensor]], KernelCall]:
    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        given = node.attributes
        size, outputs = tensors[node.inputs[0]].shape
        numbers = (float(given["prior"]), float(given["walk"]), tensors[node.inputs[2]].shape[0])
        widths = (given["size_bytes"], given["leaf_bytes"])
        return KernelCall(f"mt_leaves_{loss}", (*node.inputs, node.outputs[2], *numbers, *widths, size, outputs))

    return kernel


OPS = tuple(
    Op(
        name=f"leaves_{loss}",
        summary=f"a sample learnt by the leaves of trees in closed form, on {loss}",
        shape=_shape,
        reference=_reference(loss),
        kernel=_kernel(loss),
        header=HEADER,
        multiply_adds=lambda inputs, outputs: inputs[0].size + 2 * inputs[1].size,
    )
    for loss in LOSSES
)
