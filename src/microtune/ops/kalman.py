"""An extended Kalman filter on one logit as operators: what it learns from a sample, and the parameters moved by it.

The covariance of all that learns is a packed triangle; ``phi``, the gradient of the logit, is gathered from the
gradients of the tensors. (Logistic regression by an extended Kalman filter: Penny and Roberts, "Dynamic logistic
regression", 1999; of all weights of a net: Singhal and Wu, "Training multilayer perceptrons with the extended Kalman
algorithm", 1989.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.closed_form import moderation, packed, triangle, unpacked
from microtune.ops.layout import CONCAT
from microtune.ops.op import Attributes, KernelCall, Op, Shape

HEADER = "mt_kernels_kalman.h"
MOST_GATHERED = max(CONCAT)
Arrays = tuple[np.ndarray, ...]


def _gathered_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    if len(inputs) not in CONCAT:
        raise ValueError(f"gathers 2 to {MOST_GATHERED} tensors, not {len(inputs)}")
    return ((sum(each.size for each in inputs),),)


def _gathered_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    sizes = (tensors[name].bytes for name in node.inputs)
    return KernelCall(CONCAT[len(node.inputs)], (*node.inputs, node.output, 1, *sizes))


def _kalman_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    state, prior, phi, y, target = inputs
    if state.size != triangle(phi.size) or prior.size != phi.size or y.size != 1 or target.size != 1:
        raise ValueError(
            f"takes a triangle of {phi.size} rows, as many prior variances, a logit and its target, not {state.shape}, "
            f"{prior.shape}, {y.shape} and {target.shape}"
        )
    return state.shape, (phi.size + 1,)


def _kalman(inputs: Sequence[np.ndarray], given: Attributes) -> Arrays:
    rows, prior, phi, y, target = (each.ravel() for each in inputs)
    covariance = unpacked(rows)
    np.fill_diagonal(covariance, np.minimum(covariance.diagonal() + given["walk"] * prior, prior))
    gain = covariance @ phi
    variance = float(gain @ phi)
    p = 1 / (1 + np.exp(-y[0] * moderation(variance)))
    curvature = p * (1 - p)
    spread = 1 + curvature * variance
    left = packed(covariance - np.outer(gain, gain) * (curvature / spread))
    return left, np.append(gain, (target[0] - p) / spread)


def _kalman_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    size = tensors[node.inputs[2]].size
    return KernelCall("mt_kalman", (*node.inputs, node.outputs[1], float(node.attributes["walk"]), size))


def _move_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    parameter, gain = inputs
    if not 0 <= given["start"] <= gain.size - 1 - parameter.size:
        raise ValueError(f"cannot move {parameter.shape} by {gain.size - 1} numbers from {given['start']} on")
    return (parameter.shape,)


def _move(inputs: Sequence[np.ndarray], given: Attributes) -> Arrays:
    parameter, gain = inputs
    part = gain[given["start"] : given["start"] + parameter.size]
    return (parameter + gain[-1] * part.reshape(parameter.shape),)


def _move_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    parameter, gain = (tensors[name].size for name in node.inputs)
    return KernelCall("mt_kalman_move", (*node.inputs, int(node.attributes["start"]), parameter, gain - 1))


OPS = (
    Op(
        name="gathered",
        summary="the elements of tensors of any shape, one tensor behind the other",
        shape=_gathered_shape,
        reference=lambda inputs, given: (np.concatenate([each.ravel() for each in inputs]),),
        kernel=_gathered_kernel,
        header=HEADER,
    ),
    Op(
        name="kalman",
        summary="what a sample says of all that learns: the covariance anew, the gain of each parameter, and the step",
        shape=_kalman_shape,
        reference=_kalman,
        kernel=_kalman_kernel,
        header=HEADER,
        multiply_adds=lambda inputs, outputs: 3 * inputs[0].size,
    ),
    Op(
        name="kalman_move",
        summary="a parameter moved by its part of a gain, from start on, times the step behind it",
        shape=_move_shape,
        reference=_move,
        kernel=_move_kernel,
        header=HEADER,
    ),
)
