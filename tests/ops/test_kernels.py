"""Each operator's compiled C kernel against its numpy reference in float64 (SPEC A5, B5).

The allowed error of every output is derived by standard rounding analysis (Higham, Accuracy and Stability of
Numerical Algorithms, ch. 3): a quantity that goes through k roundings is off by at most k u / (1 - k u) of the
sum of the absolute values it is made of. The functions of mt_math.h count with their documented bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.layer_cases import CASES

from microtune.ops import OPS, closed_form
from microtune.ops.update import RULES

# kernels on integers are held to their references bit by bit elsewhere, those of images in test_layer_kernels.py, and
# those of the anomaly detector in test_mahalanobis.py, those of trees in test_trees.py
TREES = ("mt_kernels_trees.h", "mt_kernels_update_trees.h", "mt_kernels_leaves.h")
ELSEWHERE = ("mt_kernels_kalman.h", "mt_kernels_mahalanobis.h", *TREES)
INTEGERS = ("mt_kernels_int8", "mt_kernels_fixed", "mt_kernels_block", "mt_kernels_packed", "mt_cmsis_nn")
IMAGE_UPDATES = {f"{rule}_{conv}" for rule in RULES for conv in ("conv2d", "depthwise_conv2d")}
FLOAT_OPS = {
    name: op
    for name, op in OPS.items()
    if name not in CASES and name not in IMAGE_UPDATES and not op.header.startswith((*INTEGERS, *ELSEWHERE))
}

U = 2.0**-24  # unit roundoff of float32
Arrays = Sequence[np.ndarray]
Given = Mapping[str, Any]


def gamma(roundings: float) -> float:
    return roundings * U / (1 - roundings * U)


def lanes(size: int) -> int:
    """Roundings of one term of ``mt_dot``: its product, its lane, and the two sums over lanes."""
    return 1 + math.ceil(size / 4) + 2


def _exp_terms(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """softmax(x), and the relative error of each exp(x - max) and of their sum in C.

    x - max is rounded (its error is the exponential's relative error), mt_exp is within 2 ulp = 4 u.
    """
    shifted = np.abs(x - x.max())
    e = np.exp(-shifted)
    single = gamma(4 + shifted)
    return e / e.sum(), single + gamma(x.size) + single.max()


# {operator: bound(inputs, attributes, float64 results) -> allowed error of each output}
Bound = Callable[[Arrays, Given, Arrays], tuple[np.ndarray | float, ...]]
BOUNDS: dict[str, Bound] = {}


def bound(*names: str) -> Callable[[Bound], Bound]:
    def register(function: Bound) -> Bound:
        BOUNDS.update(dict.fromkeys(names, function))
        return function

    return register


@bound("relu", "relu6", "relu_grad", "relu6_grad")
def _exact(inputs: Arrays, given: Given, results: Arrays) -> tuple[float, ...]:
    return (0.0,)


@bound("leaky_relu", "leaky_relu_grad", "add", "multiply", "scale", "dense_grad_weight")
def _one_rounding(inputs: Arrays, given: Given, results: Arrays) -> tuple[np.ndarray, ...]:
    return (U * np.abs(results[0]),)


@bound("sigmoid", "tanh")
def _four_ulp(inputs: Arrays, given: Given, results: Arrays) -> tuple[np.ndarray, ...]:
    return (8 * U * np.abs(results[0]),)


@bound("sigmoid_grad")
def _three_roundings(inputs: Arrays, given: Given, results: Arrays) -> tuple[np.ndarray, ...]:
    return (gamma(3) * np.abs(results[0]),)


@bound("tanh_grad")
def _tanh_grad(inputs: Arrays, given: Given, results: Arrays) -> tuple[np.ndarray, ...]:
    dy, y = inputs  # the error of y y stays when it is subtracted from 1
    return (np.abs(dy) * U * y * y * (1 + 3 * U) + gamma(2) * np.abs(results[0]),)


@bound("softmax")
def _softmax(inputs: Arrays, given: Given, results: Arrays) -> tuple[np.ndarray, ...]:
    return (results[0] * (_exp_terms(inputs[0])[1] + 2 * U),)


@bound("softmax_grad")
def _softmax_grad(inputs: Arrays, given: Given, results: Arrays) -> tuple[np.ndarray, ...]:
    dy, y = inputs
    mean = gamma(lanes(y.size)) * (np.abs(dy) @ np.abs(y))
    return (np.abs(y) * mean + gamma(2) * np.abs(results[0]),)


@bound("dense")
def _dense(inputs: Arrays, given: Given, results: Arrays) -> tuple[np.ndarray, ...]:
    x, weight, *bias = inputs
    size = np.abs(weight) @ np.abs(x) + (np.abs(bias[0]) if bias else 0)
    return (gamma(lanes(x.size) + len(bias)) * size,)


@bound("dense_grad_input")
def _dense_grad_input(inputs: Arrays, given: Given, results: Arrays) -> tuple[np.ndarray, ...]:
    dy, weight = inputs
    return (gamma(dy.size) * (np.abs(weight).T @ np.abs(dy)),)


@bound("mse")
def _mse(inputs: Arrays, given: Given, results: Arrays) -> tuple[np.ndarray | float, ...]:
    loss, dy = results  # every term is positive: y - t counts twice, then square, sum, 1 / n and its product
    return gamma(5 + dy.size) * loss, gamma(3) * np.abs(dy)


@bound("huber")
def _huber(inputs: Arrays, given: Given, results: Arrays) -> tuple[np.ndarray | float, ...]:
    loss, dy = results  # |e| - delta / 2 is at least |e| / 2, so the error of e counts twice
    return gamma(7 + dy.size) * loss, gamma(3) * np.abs(dy)


@bound("binary_cross_entropy")
def _binary_cross_entropy(inputs: Arrays, given: Given, results: Arrays) -> tuple[np.ndarray | float, ...]:
    y, t = inputs
    # ln(1 + e): e is off by 4 u e, the sum by u (1 + e), both at most as much in the logarithm, itself 2 ulp
    logarithm = np.logaddexp(0, -np.abs(y))
    term = 3 * U * np.abs(y) * (1 + t) + 6 * U + 4 * U * logarithm
    loss = np.mean(term) + gamma(y.size + 2) * np.mean(np.abs(y) * (1 + t) + logarithm)
    sigmoid = np.exp(-np.logaddexp(0, -y))
    return loss * (1 + 1e-5), 8 * U * sigmoid / y.size + gamma(4) * np.abs(results[1])


@bound("cross_entropy")
def _cross_entropy(inputs: Arrays, given: Given, results: Arrays) -> tuple[np.ndarray | float, ...]:
    y, t = inputs
    softmax, relative = _exp_terms(y)
    shift = abs(y[int(t[0])] - y.max())
    spread = abs(float(results[0]) - shift)  # ln of the sum: off by the sum's relative error, and 2 ulp
    loss = relative.max() + gamma(4) * spread + U * shift + 2 * U * (shift + spread)
    return loss, softmax * (relative + 2 * U) + 2 * U * np.abs(results[1])


def _optimiser(inputs: Arrays, given: Given, results: Arrays, rule: str) -> tuple[np.ndarray, ...]:
    states, scalars, _ = RULES[rule]
    parameter, rest = inputs[0], inputs[1 + states + len(scalars) :]
    gradient = np.abs(np.outer(*rest) if len(rest) == 2 else rest[0])
    if given["clip"]:
        gradient = np.minimum(gradient, given["clip"])
    rate = inputs[len(inputs) - len(rest) - 1]
    if rule == "sgd":  # rate dy, times x, subtract
        return (gamma(3) * (np.abs(parameter) + rate * gradient),)
    if rule == "momentum":  # g, momentum v, their sum; then rate v, subtract
        velocity = given["momentum"] * np.abs(inputs[1]) + gradient
        return gamma(6) * (np.abs(parameter) + rate * velocity), gamma(3) * velocity
    if rule == "rmsprop":
        # second: 6 roundings of positive terms; its root halves them and adds 1 ulp
        step = np.abs(parameter - results[0])
        return U * np.abs(results[0]) + gamma(1 + 3 + 2 + 1 + 3) * step, gamma(6) * results[1]
    correction = inputs[3]
    first = given["beta1"] * np.abs(inputs[1]) + (1 - given["beta1"]) * gradient
    # first: 5 roundings; root of second 5; both corrections are inputs; two divisions, sum, product, rate / correction
    size = rate / correction[0] * first / (np.sqrt(results[2]) / correction[1] + given["epsilon"])
    return U * np.abs(results[0]) + gamma(16) * size, gamma(5) * first, gamma(7) * results[2]


for _rule in RULES:
    for _name in (_rule, f"{_rule}_dense"):
        BOUNDS[_name] = lambda inputs, given, results, rule=_rule: _optimiser(inputs, given, results, rule)


def _gain(inputs: Arrays) -> tuple[np.ndarray, float, np.ndarray, float, np.ndarray]:
    """gain = P phi and variance = phi' P phi with what each is off by, and |P|."""
    covariance, x = closed_form.unpacked(inputs[2]), inputs[3]
    phi = np.append(x, 1.0)
    gain, reach = covariance @ phi, np.abs(covariance) @ np.abs(phi)
    gain_error = gamma(x.size + 4) * reach
    variance_error = np.abs(phi) @ gain_error + gamma(lanes(x.size) + 2) * (np.abs(phi) @ reach)
    return gain, float(gain @ phi), gain_error, float(variance_error), np.abs(covariance)


def _moved(error: np.ndarray, wrong: np.ndarray, gain: np.ndarray, gain_error: np.ndarray) -> np.ndarray:
    """What error gain' is off by when error is off by ``wrong`` and gain by ``gain_error``."""
    found = np.outer(np.abs(error) + wrong, np.abs(gain) + gain_error) - np.outer(np.abs(error), np.abs(gain))
    return np.asarray(found + gamma(3) * np.outer(np.abs(error) + wrong, np.abs(gain) + gain_error))


def _shrunk(
    covariance: np.ndarray, gain: np.ndarray, gain_error: np.ndarray, factor: float, relative: float
) -> np.ndarray:
    """What P - factor gain gain' is off by, factor by the share ``relative``. Packed."""
    product = np.outer(np.abs(gain) + gain_error, np.abs(gain) + gain_error)
    off = product * (1 + relative + gamma(4)) - np.outer(np.abs(gain), np.abs(gain))
    return closed_form.packed(factor * off + gamma(2) * (covariance + factor * product))


@bound("rls")
def _rls(inputs: Arrays, given: Given, results: Arrays) -> tuple[np.ndarray, ...]:
    gain, variance, gain_error, variance_error, covariance = _gain(inputs)
    dy = inputs[4]
    spread = given["forgetting"] + variance
    relative = variance_error / (spread - variance_error) + gamma(2)
    error = dy * dy.size / 2 / spread
    move = _moved(error, np.abs(error) * (relative + gamma(4)), gain, gain_error)
    matrix = _shrunk(covariance, gain, gain_error, 1 / spread, relative)
    grown = closed_form.packed(covariance) + matrix
    return (
        move[:, :-1] + 2 * U * np.abs(results[0]),
        move[:, -1] + 2 * U * np.abs(results[1]),
        matrix / given["forgetting"] * (1 + gamma(4)) + gamma(3) * grown / given["forgetting"],
        gain_error,
    )


def _moderated(y: np.ndarray, variance: float, variance_error: float) -> tuple[np.ndarray, np.ndarray]:
    """y / sqrt(1 + pi / 8 variance) and what it is off by: the root halves a relative error, and adds 1 ulp."""
    moderated = y / np.sqrt(1 + np.pi / 8 * variance)
    relative = np.pi / 16 * variance_error / (1 + np.pi / 8 * (variance - variance_error)) + gamma(7)
    return moderated, np.abs(moderated) * relative * (1 + relative)


@bound("map")
def _map(inputs: Arrays, given: Given, results: Arrays) -> tuple[np.ndarray, ...]:
    gain, variance, gain_error, variance_error, covariance = _gain(inputs)
    y, label = inputs[4], int(inputs[5][0])
    moderated, off = _moderated(y - y.max(), variance, variance_error)
    softmax, relative = _exp_terms(moderated)
    # an error of the exponent is a relative error of the exponential, and of their sum at most the largest
    relative = relative + np.expm1(off) + np.expm1(off.max()) + U
    wrong = softmax * relative
    each = softmax * (1 - softmax)
    # p (1 - p) is off by no more than p; which class is the least certain one matters as little
    curvature = max(float(each.max()), closed_form.LEAST_CURVATURE)
    curvature_error = float(wrong.max()) + gamma(3) * curvature
    spread = 1 + curvature * variance
    spread_error = curvature_error * (variance + variance_error) + curvature * variance_error + gamma(2) * spread
    loose = spread_error / (spread - spread_error)
    error = -softmax
    error[label] += 1
    error, wrong = (
        error / spread,
        (wrong + U * np.abs(error)) / spread * (1 + loose) + np.abs(error) / spread * (loose + U),
    )
    move = _moved(error, wrong, gain, gain_error)
    factor = curvature / spread
    share = (1 + curvature_error / curvature) * (1 + loose) * (1 + gamma(1)) - 1
    return (
        move[:, :-1] + U * np.abs(results[0]),
        move[:, -1] + U * np.abs(results[1]),
        _shrunk(covariance, gain, gain_error, factor, share),
        np.append(gain_error, softmax * (relative + U)),
    )


@bound("logistic")
def _logistic(inputs: Arrays, given: Given, results: Arrays) -> tuple[np.ndarray, ...]:
    weight, bias, rows, most, x, y, target = inputs
    found: list[list[np.ndarray]] = [[], [], []]
    for output, packed in enumerate(rows.reshape(bias.size, -1)):
        walked = closed_form.unpacked(packed)
        np.fill_diagonal(walked, np.minimum(walked.diagonal() + given["walk"] * most, most))
        gain, variance, gain_error, variance_error, covariance = _gain([weight, bias, closed_form.packed(walked), x])
        # the walk rounds twice on the diagonal
        gain_error = gain_error + gamma(2) * walked.diagonal() * np.append(np.abs(x), 1.0)
        variance_error += gamma(2) * float(walked.diagonal() @ np.append(x, 1.0) ** 2)
        moderated, off = _moderated(y[output : output + 1], variance, variance_error)
        p = float(1 / (1 + np.exp(-moderated[0])))
        wrong = 8 * U * p + float(off[0]) / 4  # the slope of a sigmoid is at most 1/4
        curvature, curvature_error = p * (1 - p), wrong + gamma(2) * p
        spread = 1 + curvature * variance
        spread_error = curvature_error * (variance + variance_error) + curvature * variance_error + gamma(2) * spread
        loose = spread_error / (spread - spread_error)
        error = abs(target[output] - p)
        step = np.array([error / spread])
        inexact = (wrong + U * error) / spread * (1 + loose) + step * (loose + U)
        move = _moved(step, inexact, gain, gain_error)[0]
        factor = (curvature + curvature_error) / spread * (1 + loose) * (1 + U)
        lost = np.outer(np.abs(gain), np.abs(gain)) * (factor - curvature / spread)
        matrix = _shrunk(covariance, gain, gain_error, factor, 0.0) + closed_form.packed(lost)
        found[0].append(move[:-1] + U * np.abs(results[0][output]))
        found[1].append(move[-1:] + U * np.abs(results[1][output]))
        found[2].append(matrix + gamma(2) * closed_form.packed(np.diag(walked.diagonal())))
        last = gain_error
    return np.array(found[0]), np.concatenate(found[1]), np.concatenate(found[2]), last


@bound("slda")
def _slda(inputs: Arrays, given: Given, results: Arrays) -> tuple[np.ndarray, ...]:
    weight, _, state, precision, prior, x, target = inputs
    label, (outputs, size) = int(target[0]), weight.shape
    old, means = (each[: outputs * size].reshape(outputs, size) for each in (state, results[2]))
    means_error = np.zeros_like(means)
    # the share: two roundings; the difference, its product, the sum
    share = 1 / (state[outputs * size + label] + 1)
    means_error[label] = gamma(5) * share * (np.abs(x) + np.abs(old[label])) + U * np.abs(means[label])
    reach = np.abs(closed_form.unpacked(precision))
    found_error = means_error @ reach + gamma(size + 3) * ((np.abs(means) + means_error) @ reach)
    found = np.abs(results[0])
    offset_error = np.sum(found_error * (np.abs(means) + means_error) + found * means_error, axis=1) / 2
    offset_error += gamma(lanes(size)) * np.sum((found + found_error) * (np.abs(means) + means_error), axis=1) / 2
    offset_error += 2 * U * (np.abs(prior) + np.abs(results[1]) + offset_error)
    stays = (np.arange(outputs) != label) & (state[-1] != 0)
    found_error[stays], offset_error[stays] = 0, 0
    worth_error = U * np.abs(results[2][outputs * size : -1])
    return found_error, offset_error, np.concatenate([means_error.ravel(), worth_error, [0.0]])


def _draw_head(
    op: str, n: int, m: int, scale: float, generator: np.random.Generator, data: st.DataObject, given: dict[str, Any]
) -> tuple[list[np.ndarray], dict[str, Any]]:
    """A dense layer (m, n) with what a closed-form head remembers of it."""

    def values(*shape: int) -> np.ndarray:
        return np.float32(scale * generator.normal(size=shape)).astype(np.float64)

    def covariance(size: int) -> np.ndarray:
        root = generator.normal(size=(size, size)) * 0.2
        return closed_form.packed(np.float32(root @ root.T + 0.01 * np.eye(size)).astype(np.float64))

    given |= {"walk": data.draw(st.sampled_from([0.0, 0.0625]), label="walk"), "memory": 5.0}
    given["forgetting"] = data.draw(st.sampled_from([1.0, 0.984375]), label="forgetting")
    layer, label = [values(m, n), values(m)], np.array([float(generator.integers(m))])
    if op == "rls":
        return [*layer, covariance(n + 1), values(n), values(m)], given
    if op == "map":
        return [*layer, covariance(n + 1), values(n), values(m), label], given
    if op == "logistic":
        each = [covariance(n + 1) for _ in range(m)]
        target = np.float32(generator.uniform(size=m)).astype(np.float64)
        # a variance is never above its prior: cut down to less, the matrix would be no covariance any more
        known = np.max([closed_form.unpacked(rows).diagonal() for rows in each], axis=0)
        most = np.float32(known * generator.uniform(1, 1.5, n + 1) + 1e-6).astype(np.float64)
        return [*layer, np.concatenate(each), most, values(n), values(m), target], given
    state = [values(m * n), generator.integers(0, 8, m).astype(np.float64), generator.integers(0, 2, 1) * 1.0]
    return [*layer, np.concatenate(state), covariance(n), -np.abs(values(m)), values(n), label], given


def _draw(op: str, data: st.DataObject) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Inputs of odd and even sizes with values of mixed magnitude, all of them float32 numbers."""
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))
    sizes = st.integers(1, 19)
    n, m = data.draw(sizes, label="n"), data.draw(sizes, label="m")
    scale = data.draw(st.sampled_from([0.01, 1.0, 8.0]), label="scale")

    def values(*shape: int) -> np.ndarray:
        return np.float32(scale * generator.normal(size=shape)).astype(np.float64)

    def unit(*shape: int) -> np.ndarray:
        return np.float32(generator.uniform(size=shape)).astype(np.float64)

    given: dict[str, Any] = {"clip": data.draw(st.sampled_from([0.0, 0.25]), label="clip")}
    # constants are multiples of a power of two: the C literal is the same number, and so is 1 - constant
    given |= {"alpha": 0.125, "factor": 1.375, "delta": 0.75, "momentum": 0.875, "smoothing": 0.984375}
    given |= {"epsilon": 2.0**-20, "beta1": 0.90625, "beta2": 0.9990234375, "prior": 1.0}
    rule = op.removesuffix("_dense")
    if rule in RULES:
        states, scalars, _ = RULES[rule]
        shape = (m, n) if op.endswith("_dense") else (n,)
        memory = [values(*shape)] + [unit(*shape) + 0.001 if rule != "momentum" else values(*shape)] * min(states, 1)
        memory += [np.float32(unit(*shape) + 0.001).astype(np.float64)] * (states == 2)
        memory = [np.float32(each).astype(np.float64) for each in memory]
        steps = data.draw(st.integers(1, 50), label="step")
        numbers = {
            "rate": np.array(2.0**-6),
            "correction": np.float32([1 - given["beta1"] ** steps, math.sqrt(1 - given["beta2"] ** steps)]).astype(
                float
            ),
        }
        return [
            *memory,
            *(numbers[name] for name in scalars),
            *((values(m), values(n)) if len(shape) == 2 else (values(n),)),
        ], given
    if OPS[op] in closed_form.OPS:
        return _draw_head(op, n, m, scale, generator, data, given)
    if op == "dense":
        return [values(n), values(m, n), values(m)][: data.draw(st.sampled_from([2, 3]), label="inputs")], given
    if op in ("dense_grad_input", "dense_grad_weight"):
        return [values(m), values(m, n) if op == "dense_grad_input" else values(n)], given
    if op == "cross_entropy":
        return [values(n), np.array([float(generator.integers(n))])], given
    if op == "binary_cross_entropy":
        return [values(n), unit(n)], given
    if op.endswith("_grad"):  # the second input is what the activation gave
        forward = OPS[op.removesuffix("_grad")].reference([values(n)], given)[0]
        return [values(n), np.float32(forward).astype(np.float64)], given
    return [values(n) for _ in range(2 if op in ("add", "multiply", "mse", "huber") else 1)], given


def test_every_operator_has_a_bound() -> None:
    assert set(BOUNDS) == set(FLOAT_OPS)


@pytest.mark.parametrize("op", FLOAT_OPS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_kernel_computes_its_reference(op: str, kernel: Any, data: st.DataObject) -> None:
    inputs, given = _draw(op, data)
    expected = [np.asarray(each, np.float64) for each in OPS[op].reference(inputs, given)]
    found = kernel(op, inputs, given)
    bounds = BOUNDS[op](inputs, given, expected)
    assert len(found) == len(expected) == len(bounds)
    for index, (have, want, allowed) in enumerate(zip(found, expected, bounds, strict=True)):
        assert have.shape == want.shape
        # numbers below the smallest normal one have an absolute error instead
        excess = np.abs(have.astype(np.float64) - want) - np.maximum(allowed, 2.0**-140)
        assert np.all(excess <= 0), f"output {index} of {op} is off by up to {excess.max():g} too much"


@pytest.mark.parametrize(("op", "over"), [(name, index) for name, op in FLOAT_OPS.items() for index in op.in_place])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_result_in_the_memory_of_an_input_is_the_same(op: str, over: int, kernel: Any, data: st.DataObject) -> None:
    """The memory plan relies on it for every input an operator names in ``in_place``."""
    inputs, given = _draw(op, data)
    for beside, within in zip(kernel(op, inputs, given), kernel(op, inputs, given, over), strict=True):
        np.testing.assert_array_equal(within, beside)
