"""The C of gradients and updates of int8 layers against their numpy references in float64, under sanitizers.

Allowed errors as in ``test_kernels``: k roundings are off by at most k u / (1 - k u) of the sum of absolute values.
An update's random fraction is known, so what it may do is bounded by the moves that lie within that error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtune.ops import OPS, quantized_gradients, quantized_learnt, quantized_update
from microtune.ops.quantized_layers import window_output
from microtune.ops.quantized_update import LIMITS, grid_moves, noise_fractions, spread

from .sanitized_kernels import SanitizedKernels

U = 2.0**-24
OURS = [op.name for family in (quantized_gradients, quantized_learnt, quantized_update) for op in family.OPS]
UPDATES = [name for name in OURS if name.startswith("sgd_")]
Arrays = Sequence[np.ndarray]
Drawn = tuple[list[np.ndarray], dict[str, Any]]


def gamma(roundings: float) -> float:
    return roundings * U / (1 - roundings * U)


def _drawn(op: str, generator: np.random.Generator) -> Drawn:
    """Typed inputs and attributes of an operator, with odd sizes, strides, padding and values of mixed magnitude."""

    def pick(low: int, high: int) -> int:
        return int(generator.integers(low, high + 1))

    def floats(*shape: int) -> np.ndarray:
        values = 10.0 ** generator.uniform(-3, 1) * generator.normal(size=shape)
        return np.where(generator.random(shape) < 0.2, 0, values).astype(np.float32)

    def bytes_(*shape: int) -> np.ndarray:
        values = generator.integers(-128, 128, shape).astype(np.int8)
        return np.where(generator.random(shape) < 0.2, np.int8(generator.choice([-128, 127])), values)

    def scales(count: int) -> np.ndarray:
        return (10.0 ** generator.uniform(-3, -1, count)).astype(np.float32)

    n, m = pick(1, 19), pick(1, 11)
    low = pick(-128, 0)
    limits = {"low": low, "high": pick(low, 127)}
    if op == "saturation_mask":
        return [bytes_(n)], limits
    if op == "saturation_grad":
        return [floats(n), bytes_((n + 7) // 8)], {}
    if op == "multiply_int8_grad":
        return [floats(n), bytes_(n)], {"scale": float(scales(1)[0]), "zero_point": pick(-128, 127)}
    if op == "lookup_int8_grad":
        return [floats(n), bytes_(n), floats(256)], {}

    kernel = (pick(1, 4), pick(1, 4))
    window = {
        "stride": (pick(1, 3), pick(1, 3)),
        "padding": tuple((pick(0, k - 1), pick(0, k - 1)) for k in kernel),
        "kernel": kernel,
    }
    channels, outputs = pick(1, 10), pick(1, 10)
    height, width = (pick(max(1, k - sum(p)), 8) for k, p in zip(kernel, window["padding"], strict=True))
    multiplier = pick(1, 3)
    depthwise, dense = "depthwise" in op, "dense" in op
    if depthwise:
        outputs = channels * multiplier
    positions = window_output((height, width), kernel, window)
    x = bytes_(channels) if dense else bytes_(height, width, channels)
    if op == "max_pool2d_int8_grad":
        coarse = generator.integers(-3, 3, x.shape).astype(np.int8)  # many equal maxima
        return [floats(*positions, channels), x if n % 2 else coarse], {**window, **limits}
    dy = floats(outputs) if dense else floats(*positions, outputs)
    start = pick(0, channels - 1)
    taken = pick(1, channels - start)
    if op.endswith("learnt_grad_input"):
        rows = (outputs,) if dense else (outputs, *kernel)
        inputs = [dy, bytes_(*rows, channels), scales(outputs), bytes_(*rows, taken)]
        return inputs, {"start": start} if dense else {**window, "start": start, "input_shape": x.shape}
    update = {"clip": float(generator.choice([0.0, 0.25])), "salt": pick(0, 2**31 - 1)}
    scalars = [np.float32(2.0 ** generator.uniform(-9, 3)), np.array(generator.integers(-(2**31), 2**31), np.int32)]
    scalars = [np.asarray(each) for each in scalars]
    if op in ("sgd_int8", "sgd_int32"):
        shape, axis = ((n,), 0) if op == "sgd_int32" else ((m, *kernel, channels), pick(0, 3))
        stored = bytes_(*shape) if op == "sgd_int8" else generator.integers(-(2**31), 2**31, n).astype(np.int32)
        return [stored, *scalars, floats(*shape), scales(shape[axis])], {**update, "axis": axis}
    real = {"x_scale": float(scales(1)[0]), "x_zero": pick(-128, 127)}
    given = {**real, **({} if dense else window), **({} if depthwise else {"start": start, "channels": taken})}
    if op.endswith("grad_weight"):
        return [dy, x], given
    shape = (*kernel, outputs) if depthwise else (outputs, *(() if dense else kernel), taken)
    return [bytes_(*shape), *scalars, dy, x, scales(outputs)], {**given, **update}


def _magnitudes(dy: np.ndarray, x: np.ndarray, given: Mapping[str, Any]) -> Drawn:
    """The same gradient with absolute values everywhere: what its rounding errors are measured by."""
    size = np.abs(x.astype(np.int64) - given["x_zero"])
    return [np.abs(dy), size], {**given, "x_zero": 0}


def _weight_error(op: str, dy: np.ndarray, x: np.ndarray, given: Mapping[str, Any]) -> np.ndarray:
    """Allowed error of each element of a weight's gradient: product, one sum over positions, scale."""
    roundings = 2 + dy.size // dy.shape[-1]
    return gamma(roundings) * OPS[op].reference(*_magnitudes(dy, x, given))[0]


def _allowed(op: str, inputs: Arrays, given: Mapping[str, Any], result: np.ndarray) -> np.ndarray | float:
    if op.startswith("saturation"):
        return 0.0
    if op == "lookup_int8_grad":
        return U * np.abs(result)
    if op == "multiply_int8_grad":
        return gamma(2) * np.abs(result)
    if op == "max_pool2d_int8_grad":
        return gamma(np.prod(given["kernel"])) * OPS[op].reference([np.abs(inputs[0]), inputs[1]], given)[0]
    if op.endswith("learnt_grad_input"):
        dy, weight, scale, learnt = inputs
        sizes = [np.abs(dy), np.abs(weight.astype(np.int64)), scale, np.abs(learnt.astype(np.int64))]
        return gamma(2 + weight.size // weight.shape[-1]) * OPS[op].reference(sizes, given)[0]
    return _weight_error(op, *inputs, given)


def _float64(inputs: Arrays) -> list[np.ndarray]:
    return [each.astype(np.float64) if each.dtype == np.float32 else each for each in inputs]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SanitizedKernels]:
    generator = np.random.default_rng(0)
    found = SanitizedKernels(tmp_path_factory.mktemp("kernels"), {op: _drawn(op, generator) for op in OURS})
    yield found
    found.close()


seeds = given(seed=st.integers(0, 2**32 - 1))


@pytest.mark.parametrize("op", [op for op in OURS if op not in UPDATES])
@settings(max_examples=100, deadline=None)
@seeds
def test_gradient_computes_its_reference(op: str, kernels: SanitizedKernels, seed: int) -> None:
    inputs, given = _drawn(op, np.random.default_rng(seed))
    wide = _float64(inputs)
    (expected,) = OPS[op].reference(wide, given)
    (found,) = kernels.run(op, inputs, given)
    assert found.shape == expected.shape
    excess = np.abs(found.astype(np.float64) - expected) - np.maximum(_allowed(op, wide, given, expected), 2.0**-140)
    assert np.all(excess <= 0), f"off by up to {excess.max():g} too much"
    for over in OPS[op].in_place:
        np.testing.assert_array_equal(kernels.run(op, inputs, given, over)[0], found)


def _update_range(op: str, inputs: Arrays, given: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest weights an update may leave, its arithmetic being off by what is allowed."""
    stored, rate, noise, *factors, scale = _float64(inputs)
    if op in ("sgd_int8", "sgd_int32"):
        gradient, error = factors[0], np.zeros(stored.shape)
        axis = given["axis"]
    else:
        name = op.removeprefix("sgd_") + "_grad_weight"
        gradient, error = OPS[name].reference(factors, given)[0], _weight_error(name, *factors, given)
        axis = 2 if "depthwise" in op else 0
    steps = rate / spread(scale, stored.shape, axis)
    dtype = str(stored.dtype)
    fractions = noise_fractions(int(noise), given["salt"], stored.size).reshape(stored.shape)
    found = []
    for side in (1, -1):
        move = grid_moves(gradient + side * error, steps, given, dtype)
        # two roundings of the move; and its fraction is a difference
        move = move + side * (gamma(2) * np.abs(move) + U)
        limit = LIMITS[dtype]
        down = np.ceil(move - fractions).astype(np.int64)
        old = stored.astype(np.int64) if dtype == "int8" else np.clip(stored.astype(np.int64), -limit, limit)
        found.append(np.where(down == 0, stored, np.clip(old - down, -limit, limit)))
    return np.minimum(*found), np.maximum(*found)


@pytest.mark.parametrize("op", UPDATES)
@settings(max_examples=100, deadline=None)
@seeds
def test_update_computes_its_reference(op: str, kernels: SanitizedKernels, seed: int) -> None:
    inputs, given = _drawn(op, np.random.default_rng(seed))
    (found,) = kernels.run(op, inputs, given)
    lowest, highest = _update_range(op, inputs, given)
    assert found.dtype == inputs[0].dtype and found.shape == inputs[0].shape
    assert np.all((found >= lowest) & (found <= highest))
    (expected,) = OPS[op].reference(_float64(inputs), given)
    sure = lowest == highest
    np.testing.assert_array_equal(found[sure], expected[sure])
    np.testing.assert_array_equal(kernels.run(op, inputs, given)[0], found)  # the same bits again


def _sure(op: str, seed: int) -> float:
    inputs, given = _drawn(op, np.random.default_rng(seed))
    lowest, highest = _update_range(op, inputs, given)
    return float(np.mean(lowest == highest))


@pytest.mark.parametrize("op", [op for op in UPDATES if op != "sgd_int32"])
def test_updates_are_nearly_all_decided(op: str) -> None:
    """Guards the test above: were the allowed error wide, it would accept anything."""
    assert np.mean([_sure(op, seed) for seed in range(50)]) > 0.99


@pytest.mark.parametrize("op", UPDATES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("clip", [0.0, 0.25])
def test_a_gradient_that_is_not_finite_leaves_the_weights(
    op: str, bad: float, clip: float, kernels: SanitizedKernels
) -> None:
    inputs, given = _drawn(op, np.random.default_rng(11))
    gradient = 3  # dL/dy or the gradient itself
    inputs[gradient] = np.full_like(inputs[gradient], bad)
    for run in (kernels.run, lambda op, inputs, given: OPS[op].reference(inputs, given)):
        with np.errstate(invalid="ignore"):
            (found,) = run(op, inputs, {**given, "clip": clip})
        np.testing.assert_array_equal(found, inputs[0])


def _shared(found: Callable[..., Any], weight: np.ndarray, dy: np.ndarray, x: np.ndarray) -> Any:
    given = {"x_scale": 0.125, "x_zero": 3, "start": 0, "channels": x.size, "clip": 0.0, "salt": 7}
    scale = np.full(len(weight), 0.03125, np.float32)
    return found("sgd_dense_int8", [weight, np.float32(0.25), np.array(99, np.int32), dy, x, scale], given)[0]


def test_steps_are_clamped(kernels: SanitizedKernels) -> None:
    r = np.random.default_rng(5)
    weight, x = r.integers(-127, 128, (6, 9)).astype(np.int8), r.integers(-128, 128, 9).astype(np.int8)
    found = _shared(kernels.run, weight, np.full(6, 1e30, np.float32), x)
    np.testing.assert_array_equal(found, np.where(x > 3, -127, np.where(x < 3, 127, weight)))
