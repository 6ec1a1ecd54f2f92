"""How far a window lies from what is normal, as operators: the logit that it is a fault, and normal learnt again.

mean (H), precision: the inverse of the scatter of normal windows about their mean, packed, (H (H + 1) / 2,), and
limits (2,): the logit is limits[0] (x - mean)' precision (x - mean) - limits[1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.closed_form import packed, triangle, unpacked
from microtune.ops.op import Attributes, KernelCall, Op, Shape

HEADER = "mt_kernels_mahalanobis.h"
LARGE = 1e6  # MT_MAHALANOBIS_LARGE
CURVE = ("c0", "c1", "c2", "c3", "c4")
"""Attributes of the curve of the limit over one through the degrees of freedom."""


def _sizes(x: Tensor, mean: Tensor, precision: Tensor, limits: Tensor) -> int:
    size = x.size
    if mean.shape != (size,) or precision.shape != (triangle(size),) or limits.shape != (2,):
        raise ValueError(
            f"takes x ({size}), a mean ({size}), a triangle of {size} rows and two limits, not {mean.shape}, "
            f"{precision.shape} and {limits.shape}"
        )
    return size


def _logit_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    x, _, mean, precision, limits = inputs
    return (1,), (_sizes(x, mean, precision, limits),)


def _logit(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    x, _, mean, precision, limits = inputs
    gap = x - mean
    return np.minimum(limits[:1] * (gap @ unpacked(precision) @ gap) - limits[1:], LARGE), gap


def _logit_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    x, _, *rest = node.inputs
    return KernelCall("mt_mahalanobis", (x, *rest, *node.outputs, tensors[x].size))


def _learn_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    mean, precision, limits, state, x, _, target = inputs
    size = _sizes(x, mean, precision, limits)
    if state.shape != (1,) or target.size != 1:
        raise ValueError(f"takes a state (1,) and one target, not {state.shape} and {target.shape}")
    return mean.shape, precision.shape, limits.shape, state.shape, (2 * size,)


def _learn(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    mean, precision, limits, state, x, known, target = inputs
    scratch = np.zeros(2 * x.size, x.dtype)
    if known.item() > 0 or target.item() >= 0.5:
        return mean, precision, limits, state, scratch
    count, gap, matrix = state[0] + 1, x - mean, unpacked(precision)
    distance = limits[0] * (gap @ matrix @ gap)
    share = limits[1] / distance if state[0] > 0 and distance > limits[1] else 1.0
    moved = mean + share * gap / min(count, given["memory"])
    if count > given["memory"]:
        return moved, precision, limits, state, scratch
    scatter = np.linalg.inv(matrix) + share**2 * np.outer(gap, gap) * (count - 1) / count
    u = 1 / (given["worth"] + count - x.size)
    limit = np.exp(sum(given[each] * u**power for power, each in enumerate(CURVE))) * (1 + 1 / count)
    return (
        moved,
        packed(np.linalg.inv(scatter)),
        np.array([given["worth"] + count - 1, limit]) / 2,
        np.array([count]),
        scratch,
    )


def _learn_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    constants = (float(node.attributes[each]) for each in ("worth", "memory", *CURVE))
    size = tensors[node.inputs[0]].size
    return KernelCall("mt_mahalanobis_learn", (*node.inputs, node.outputs[4], *constants, size))


OPS = (
    Op(
        name="mahalanobis",
        summary="the logit that a window is a fault; what the guard says of it is kept for the step",
        shape=_logit_shape,
        reference=_logit,
        kernel=_logit_kernel,
        header=HEADER,
        multiply_adds=lambda inputs, outputs: inputs[3].size,
    ),
    Op(
        name="mahalanobis_learn",
        summary="a window that is well, learnt as normal unless it looks like a known fault",
        shape=_learn_shape,
        reference=_learn,
        kernel=_learn_kernel,
        header=HEADER,
        multiply_adds=lambda inputs, outputs: 3 * inputs[1].size,
    ),
)
