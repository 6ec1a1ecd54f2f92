"""Closed-form heads as operators: a dense layer's weight and bias, and what the head remembers, updated in place.

The inputs of each: weight (C, H), bias (C), its state, constants of the factory, x (H), then what it learns from. The
outputs: the first three anew, and scratch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.op import Attributes, KernelCall, Op, Shape

LEAST_CURVATURE = 0.05  # MT_MAP_LEAST_CURVATURE
Arrays = tuple[np.ndarray, ...]


def triangle(size: int) -> int:
    """Elements of a symmetric matrix, packed."""
    return size * (size + 1) // 2


def packed(matrix: np.ndarray) -> np.ndarray:
    """The lower triangle of a matrix, row by row."""
    return np.asarray(matrix[np.tril_indices(len(matrix))])


def unpacked(rows: np.ndarray) -> np.ndarray:
    """The symmetric matrix of a packed lower triangle."""
    size = int((np.sqrt(8 * len(rows) + 1) - 1) / 2)
    matrix = np.zeros((size, size), rows.dtype)
    matrix[np.tril_indices(size)] = rows
    return np.asarray(matrix + np.tril(matrix, -1).T)


def _gain(covariance: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, float]:
    """P phi and phi' P phi, phi = [x, 1]."""
    phi = np.append(x, 1.0).astype(covariance.dtype)
    gain = covariance @ phi
    return gain, float(gain @ phi)


def moderation(variance: float) -> float:
    """How much smaller logits say what these say that are uncertain by a variance (MacKay 1992; mt_moderation)."""
    return float(1.0 / np.sqrt(1.0 + np.pi / 8 * variance))


def _rls_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    weight, bias, covariance, x = inputs[:4]
    return weight.shape, bias.shape, covariance.shape, (x.size + 1,)


def _rls(inputs: Sequence[np.ndarray], given: Attributes) -> Arrays:
    weight, bias, rows, x, dy = inputs
    covariance = unpacked(rows)
    gain, variance = _gain(covariance, x)
    spread = given["forgetting"] + variance
    step = np.outer(dy * dy.size / 2 / spread, gain)
    covariance = covariance - np.outer(gain, gain) / spread
    if covariance.diagonal().max() < given["prior"] * given["forgetting"]:
        covariance = covariance / given["forgetting"]
    return weight - step[:, :-1], bias - step[:, -1], packed(covariance), gain


def _map_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    weight, bias, covariance, x = inputs[:4]
    return weight.shape, bias.shape, covariance.shape, (x.size + 1 + bias.size,)


def _map(inputs: Sequence[np.ndarray], given: Attributes) -> Arrays:
    weight, bias, rows, x, y, target = inputs
    covariance = unpacked(rows)
    gain, variance = _gain(covariance, x)
    p = np.exp((y - y.max()) * moderation(variance))
    p = p / p.sum()
    curvature = max(LEAST_CURVATURE, float((p * (1 - p)).max()))
    error = -p
    error[int(target[0])] += 1
    step = np.outer(error / (1 + curvature * variance), gain)
    covariance = covariance - np.outer(gain, gain) * (curvature / (1 + curvature * variance))
    return weight + step[:, :-1], bias + step[:, -1], packed(covariance), np.append(gain, p)


def _logistic_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    weight, bias, covariance, prior = inputs[:4]
    return weight.shape, bias.shape, covariance.shape, prior.shape


def _logistic(inputs: Sequence[np.ndarray], given: Attributes) -> Arrays:
    weight, bias, rows, most, x, y, target = inputs
    moved, shifted, found, gain = weight.copy(), bias.copy(), [], np.zeros(0)
    for output, each in enumerate(rows.reshape(bias.size, -1)):
        covariance = unpacked(each)
        np.fill_diagonal(covariance, np.minimum(covariance.diagonal() + given["walk"] * most, most))
        gain, variance = _gain(covariance, x)
        p = 1 / (1 + np.exp(-y[output] * moderation(variance)))
        spread = 1 + p * (1 - p) * variance
        step = (target[output] - p) / spread * gain
        moved[output] += step[:-1]
        shifted[output] += step[-1]
        found.append(packed(covariance - np.outer(gain, gain) * (p * (1 - p) / spread)))
    return moved, shifted, np.concatenate(found), gain


def _slda_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    weight, bias, state = inputs[:3]
    return weight.shape, bias.shape, state.shape


def _slda(inputs: Sequence[np.ndarray], given: Attributes) -> Arrays:
    weight, bias, state, precision, prior, x, target = inputs
    label, (outputs, size) = int(target[0]), weight.shape
    means, worth = state[: outputs * size].reshape(outputs, size).copy(), state[outputs * size : -1].copy()
    means[label] += (x - means[label]) / (worth[label] + 1)
    worth[label] = min(worth[label] + 1, given["memory"])
    found = means @ unpacked(precision)
    offsets = prior - np.sum(found * means, axis=1) / 2
    stays = (np.arange(outputs) != label) & (state[-1] != 0)
    found[stays], offsets[stays] = weight[stays], bias[stays]
    return found, offsets, np.concatenate([means.ravel(), worth, [1.0]]).astype(state.dtype)


def _kernel(name: str, *constants: str, scratch: bool = True) -> Callable[[Node, Mapping[str, Tensor]], KernelCall]:
    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        outputs, inputs = tensors[node.inputs[0]].shape
        given = (float(node.attributes[each]) for each in constants)
        pointers = (*node.inputs, *node.outputs[3:]) if scratch else node.inputs
        return KernelCall(f"mt_{name}", (*pointers, *given, inputs, outputs))

    return kernel


OPS = (
    Op(
        name="rls",
        summary="recursive least squares step of a dense layer",
        shape=_rls_shape,
        reference=_rls,
        kernel=_kernel("rls", "forgetting", "prior"),
        header="mt_kernels_rls.h",
        multiply_adds=lambda inputs, outputs: inputs[0].size + 2 * (inputs[3].size + 1) ** 2,
    ),
    Op(
        name="map",
        summary="maximum a posteriori step of a dense layer under a softmax",
        shape=_map_shape,
        reference=_map,
        kernel=_kernel("map"),
        header="mt_kernels_map.h",
        multiply_adds=lambda inputs, outputs: inputs[0].size + 2 * (inputs[3].size + 1) ** 2,
    ),
    Op(
        name="logistic",
        summary="Bayesian logistic step of a dense layer, each output for itself",
        shape=_logistic_shape,
        reference=_logistic,
        kernel=_kernel("logistic", "walk"),
        header="mt_kernels_logistic.h",
        multiply_adds=lambda inputs, outputs: inputs[0].size + 2 * inputs[1].size * inputs[3].size ** 2,
    ),
    Op(
        name="slda",
        summary="step of streaming linear discriminant analysis in place of a dense layer",
        shape=_slda_shape,
        reference=_slda,
        kernel=_kernel("slda", "memory", scratch=False),
        header="mt_kernels_slda.h",
        multiply_adds=lambda inputs, outputs: inputs[5].size ** 2,
    ),
)
