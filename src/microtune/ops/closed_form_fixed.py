"""Closed-form heads in integers: the last layer on int8 features, and what updates it in place (``closed_form``).

Features count in steps of their scale, phi = [x - x_zero, 2^one], with 2^one the power of two nearest to 1 / scale:
the bias is a weight of about the size of the others. Weights have 24 binary places, biases, outputs and targets 16.
A covariance is normalised: its largest variance begins as 2^30. The references give the C's bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.closed_form import Arrays, unpacked
from microtune.ops.op import Attributes, KernelCall, Op, Shape
from microtune.ops.scaled import FIXED_ONE, LARGEST, ONE, Scaled, fixed_exp, fixed_sigmoid, saturated, scaled

WEIGHT_PLACES, WEIGHT_FINER = 24, 8  # MT_FIXED_WEIGHT_PLACES, MT_FIXED_WEIGHT_FINER
MEAN_PLACES, MEAN_COARSE, WORTH_PLACES = 22, 15, 8  # MT_FIXED_MEAN_PLACES, _COARSE, MT_FIXED_WORTH_PLACES
LEAST_CURVATURE = 214748365  # MT_FIXED_MAP_LEAST_CURVATURE: 0.05 with 32 places
PI_EIGHTHS = Scaled(1686629713, -32)
PRIOR = 1 << 30
"""What the largest variance begins as."""


def _clipped(x: np.ndarray) -> np.ndarray:
    """int32 of int64, saturated as ``mt_fixed`` is."""
    return np.asarray(np.clip(x, -LARGEST, LARGEST), np.int32)


def _products(factor: Scaled, values: np.ndarray) -> np.ndarray:
    """``mt_scaled_times`` of each."""
    return np.array([factor.times(int(each)) for each in values.ravel()], np.int64).reshape(values.shape)


def _packed(matrix: np.ndarray) -> np.ndarray:
    return np.asarray(matrix[np.tril_indices(len(matrix))])


def _phi(x: np.ndarray, given: Attributes) -> np.ndarray:
    return np.append(x.astype(np.int64) - given["x_zero"], 1 << given["one"])


@dataclass(frozen=True, eq=False)
class _Gain:
    """P phi = values 2^exponent; phi' P phi, no less than it is."""

    values: np.ndarray
    exponent: int
    variance: Scaled
    scratch: np.ndarray


def _gain(covariance: np.ndarray, phi: np.ndarray, one: int) -> _Gain:
    """covariance (n, n) in int64; ``mt_fixed_covariance_gain``."""
    sums = covariance @ phi
    bits = int(np.bitwise_or.reduce(np.where(sums < 0, ~sums, sums))).bit_length()
    low = (sums & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
    scratch = np.concatenate([(sums >> 32).astype(np.int32), low])
    exponent = bits - 31
    if bits == 0:
        return _Gain(sums, exponent, Scaled(0, 0), scratch)
    values = sums >> exponent if exponent > 0 else sums << -exponent
    variance = int(values @ phi) + 255 * (len(phi) - 1) + (1 << one)
    return _Gain(
        values, exponent, scaled(max(variance, 0), exponent),
        np.concatenate([values.astype(np.int32), low]),
    )  # fmt: skip


def _learn(covariance: np.ndarray, gain: _Gain, factor: Scaled) -> np.ndarray:
    factor = Scaled(factor.mantissa, factor.exponent + 2 * gain.exponent + 30)
    rounding = (2 + (factor.times(LARGEST) >> 27)) * len(covariance)
    less = np.outer(_products(factor, gain.values), gain.values) >> 30
    less = np.tril(less) + np.tril(less, -1).T  # each is computed once, below the diagonal
    found: np.ndarray = (covariance - less).astype(np.uint32).view(np.int32).astype(np.int64)
    diagonal = np.clip((covariance - less).diagonal() + rounding, 0, LARGEST)
    np.fill_diagonal(found, diagonal)
    return found


def _step(weight: np.ndarray, bias: np.ndarray, gain: _Gain, step: Scaled, one: int) -> None:
    """One row of weights and its bias move, in place."""
    step = Scaled(step.mantissa, step.exponent + gain.exponent + WEIGHT_PLACES)
    places = -(step.exponent + 31)
    if places < 1:
        moves = _products(step, gain.values[:-1])
    else:
        moves = ((((step.mantissa >> 1) * gain.values[:-1]) >> 30 >> min(places - 1, 31)) + 1) >> 1
        moves = moves if places < 32 else np.zeros_like(moves)
    weight[:] = _clipped(weight + moves)
    step = Scaled(step.mantissa, step.exponent + one - WEIGHT_FINER)
    bias[:] = _clipped(bias + np.int64(step.times(int(gain.values[-1]))))


def _moderation(variance: Scaled) -> Scaled:
    return (ONE / (ONE + PI_EIGHTHS * variance)).root()


def _unit(given: Attributes) -> Scaled:
    return Scaled(given["unit"], given["unit_exponent"])


def _forget(covariance: np.ndarray, given: Attributes) -> np.ndarray:
    most = np.full(len(covariance), given["most_weight"])
    most[-1] = given["most_bias"]
    if np.any(covariance.diagonal() >= most):
        return covariance
    found = (covariance * given["grow"] + (1 << 29)) >> 30
    np.fill_diagonal(found, np.minimum(found.diagonal() + len(found), LARGEST))
    return np.asarray(found)


def _rls(inputs: Sequence[np.ndarray], given: Attributes) -> Arrays:
    weight, bias, rows, x, y, target = inputs
    weight, bias, covariance = weight.copy(), bias.copy(), unpacked(rows.astype(np.int64))
    gain = _gain(covariance, _phi(x, given), given["one"])
    if gain.variance.mantissa == 0:
        return weight, bias, rows, gain.scratch
    unit = _unit(given)
    factor = unit / (scaled(given["forgetting"], -30) + unit * gain.variance)
    for o in range(len(bias)):
        step = factor * scaled(saturated(int(target[o]) - int(y[o])), -16)
        _step(weight[o], bias[o : o + 1], gain, step, given["one"])
    covariance = _forget(_learn(covariance, gain, factor), given)
    return weight, bias, _packed(covariance).astype(np.int32), gain.scratch


def _map(inputs: Sequence[np.ndarray], given: Attributes) -> Arrays:
    weight, bias, rows, x, y, target = inputs
    weight, bias, covariance = weight.copy(), bias.copy(), unpacked(rows.astype(np.int64))
    label = int(target[0]) >> 16
    gain = _gain(covariance, _phi(x, given), given["one"])
    if gain.variance.mantissa == 0:
        return weight, bias, rows, np.append(gain.scratch, np.zeros_like(bias))
    unit = _unit(given)
    variance = unit * gain.variance
    moderation, largest = _moderation(variance), int(y.max())
    p = [fixed_exp(moderation.times(saturated(int(each) - largest))) for each in y]
    one_of_sum = scaled(FIXED_ONE, 0) / scaled(sum(p), 0)
    p = [one_of_sum.times(each) for each in p]
    curved = scaled(max(LEAST_CURVATURE, *(each * (FIXED_ONE - each) for each in p)), -32)
    factor = unit / (ONE + curved * variance)
    for o, each in enumerate(p):
        step = factor * scaled((FIXED_ONE if o == label else 0) - each, -16)
        _step(weight[o], bias[o : o + 1], gain, step, given["one"])
    covariance = _learn(covariance, gain, curved * factor)
    return weight, bias, _packed(covariance).astype(np.int32), np.append(gain.scratch, np.array(p, np.int32))


def _logistic(inputs: Sequence[np.ndarray], given: Attributes) -> Arrays:
    weight, bias, rows, prior, x, y, target = inputs
    weight, bias, found = weight.copy(), bias.copy(), []
    scratch = np.zeros(2 * (x.size + 1), np.int32)
    unit, phi, most = _unit(given), _phi(x, given), prior.astype(np.int64)
    for o, each in enumerate(rows.reshape(bias.size, -1)):
        covariance = unpacked(each.astype(np.int64))
        variances = covariance.diagonal()
        more = np.minimum(variances + ((most * given["walk"] + (1 << 30)) >> 31), most)
        np.fill_diagonal(covariance, np.where(variances < most, more, variances))
        gain = _gain(covariance, phi, given["one"])
        scratch = gain.scratch
        if gain.variance.mantissa:
            variance = unit * gain.variance
            p = fixed_sigmoid(_moderation(variance).times(int(y[o])))
            curved = scaled(p * (FIXED_ONE - p), -32)
            factor = unit / (ONE + curved * variance)
            step = factor * scaled(saturated(int(target[o]) - p), -16)
            _step(weight[o], bias[o : o + 1], gain, step, given["one"])
            covariance = _learn(covariance, gain, curved * factor)
        found.append(_packed(covariance).astype(np.int32))
    return weight, bias, np.concatenate(found), scratch


def _slda(inputs: Sequence[np.ndarray], given: Attributes) -> Arrays:
    weight, bias, state, precision, prior, x, target = inputs
    label, (outputs, size) = int(target[0]) >> 16, weight.shape
    means = state[: outputs * size].reshape(outputs, size).astype(np.int64)
    worth = state[outputs * size : -1].copy()
    more = int(worth[label]) + (1 << WORTH_PLACES)
    share = scaled(1 << WORTH_PLACES, 0) / scaled(more, 0)
    off = ((x.astype(np.int64) - given["x_zero"]) << MEAN_PLACES) - means[label]
    means[label] += _products(share, off)
    worth[label] = min(more, given["memory"])
    places, short = given["places"], means >> MEAN_COARSE
    sums = short @ unpacked(precision.astype(np.int64))
    found = _clipped((sums + (1 << (places - 1))) >> places)
    halved = WEIGHT_FINER + MEAN_PLACES - MEAN_COARSE + 1
    reach = np.sum(found * short, axis=1)
    offsets = _clipped(prior - ((reach + (1 << (halved - 1))) >> halved))
    stays = (np.arange(outputs) != label) & (state[-1] >= FIXED_ONE)
    found[stays], offsets[stays] = weight[stays], bias[stays]
    return found, offsets, np.concatenate([means.ravel(), worth, [FIXED_ONE]]).astype(np.int32)


def _shapes(scratch: Callable[[int, int], int] | None) -> Callable[[Sequence[Tensor], Attributes], tuple[Shape, ...]]:
    """Weight, bias and state as they were, and scratch of so many words for H inputs and C outputs."""

    def shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
        weight, bias, state = (each.shape for each in inputs[:3])
        kept = (weight, bias, state)
        return kept if scratch is None else (*kept, (scratch(weight[1], weight[0]),))

    return shape


def _kernel(name: str, *constants: str) -> Callable[[Node, Mapping[str, Tensor]], KernelCall]:
    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        outputs, inputs = tensors[node.inputs[0]].shape
        given = (int(node.attributes[each]) for each in constants)
        return KernelCall(f"mt_{name}", (*node.inputs, *node.outputs[3:], *given, inputs, outputs))

    return kernel


def _integers(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[str, ...]:
    return ("int32",) * 4


def _dense_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    x, weight, bias = inputs
    if x.dtype != "int8" or len(x.shape) != 1 or weight.shape[1:] != x.shape or bias.shape != weight.shape[:1]:
        raise ValueError(f"takes int8 x (inputs), weight (outputs, inputs) and a bias, not {x.shape}, {weight.shape}")
    return (bias.shape,)


def _dense(inputs: Sequence[np.ndarray], given: Attributes) -> Arrays:
    x, weight, bias = inputs
    sums = weight.astype(np.int64) @ (x.astype(np.int64) - given["x_zero"])
    return (_clipped(((sums + (1 << (WEIGHT_FINER - 1))) >> WEIGHT_FINER) + bias),)


def _dense_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    outputs, inputs = tensors[node.inputs[1]].shape
    return KernelCall("mt_dense_fixed", (*node.inputs, node.output, int(node.attributes["x_zero"]), inputs, outputs))


COVARIANCE = ("x_zero", "one", "unit", "unit_exponent")
OPS = (
    Op(
        name="dense_fixed",
        summary="y = W (x - x_zero) + b of an int8 x, with weights of 24 binary places and outputs of 16",
        shape=_dense_shape,
        reference=_dense,
        kernel=_dense_kernel,
        header="mt_kernels_fixed_dense.h",
        multiply_adds=lambda inputs, outputs: inputs[1].size,
        dtypes=lambda inputs, attributes: ("int32",),
    ),
    Op(
        name="fixed_rls",
        summary="recursive least squares step of a dense layer, in integers",
        shape=_shapes(lambda inputs, outputs: 2 * (inputs + 1)),
        reference=_rls,
        kernel=_kernel("fixed_rls", *COVARIANCE, "forgetting", "grow", "most_weight", "most_bias"),
        header="mt_kernels_fixed_rls.h",
        multiply_adds=lambda inputs, outputs: inputs[0].size + 2 * (inputs[3].size + 1) ** 2,
        dtypes=_integers,
    ),
    Op(
        name="fixed_map",
        summary="maximum a posteriori step of a dense layer under a softmax, in integers",
        shape=_shapes(lambda inputs, outputs: 2 * (inputs + 1) + outputs),
        reference=_map,
        kernel=_kernel("fixed_map", *COVARIANCE),
        header="mt_kernels_fixed_map.h",
        multiply_adds=lambda inputs, outputs: inputs[0].size + 2 * (inputs[3].size + 1) ** 2,
        dtypes=_integers,
    ),
    Op(
        name="fixed_logistic",
        summary="Bayesian logistic step of a dense layer, each output for itself, in integers",
        shape=_shapes(lambda inputs, outputs: 2 * (inputs + 1)),
        reference=_logistic,
        kernel=_kernel("fixed_logistic", *COVARIANCE, "walk"),
        header="mt_kernels_fixed_logistic.h",
        multiply_adds=lambda inputs, outputs: inputs[0].size + 2 * inputs[1].size * inputs[3].size ** 2,
        dtypes=_integers,
    ),
    Op(
        name="fixed_slda",
        summary="step of streaming linear discriminant analysis in place of a dense layer, in integers",
        shape=_shapes(None),
        reference=_slda,
        kernel=_kernel("fixed_slda", "x_zero", "places", "memory"),
        header="mt_kernels_fixed_slda.h",
        multiply_adds=lambda inputs, outputs: inputs[5].size ** 2,
        dtypes=lambda inputs, attributes: ("int32",) * 3,
    ),
)
