"""The int8 operators against LiteRT, operator by operator (TFLite quantisation specification).

LiteRT's plain kernels (BUILTIN_REF) are the specification's own arithmetic, and are equalled everywhere, but for
sigmoid, tanh and softmax: there the specification leaves the method open; ours is the tables of LiteRT's usual
kernels, which are equalled (but at ties), and the plain ones compute in fixed point, at most one step away.

Where a product is shifted to the right, the usual kernels of layers, sums and requantisation round halves up or round
once, and the plain ones round halves away from zero: they differ among themselves by at most one step, and so from us.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.tflite_models import ACTIVATION, PADDING, ModelBuilder, run, same_padding

from microtune.ir import Quantization
from microtune.ops import OPS
from microtune.ops import quantized_build as build

EXAMPLES = 60
KINDS = st.sampled_from(["none", "relu", "relu6"])
SIDES = st.integers(1, 9)
DECIMALS = (0.001, 0.005, 0.01, 0.02, 0.03, 0.05, 0.06, 0.07, 0.1, 0.14, 0.15, 0.2, 0.3)
CHANNELS = st.integers(1, 20)


def reals(low: float, high: float) -> st.SearchStrategy[float]:
    """Scales, spread evenly over the orders of magnitude."""
    return st.floats(np.log(low), np.log(high)).map(lambda x: float(np.float32(np.exp(x))))


def quantizations(low: float = 0.01, high: float = 0.3) -> st.SearchStrategy[Quantization]:
    """Also scales of few decimals, whose ratios make ties: they show in which precision a factor was formed."""
    zeros = st.sampled_from([-128, 127, 0]) | st.integers(-128, 127)
    round_scales = st.sampled_from([each for each in DECIMALS if low <= each <= high])
    return st.builds(build.activation_quantization, reals(low, high) | round_scales, zeros)


def generators() -> st.SearchStrategy[np.random.Generator]:
    return st.integers(0, 2**32 - 1).map(np.random.default_rng)


def of(quantization: Quantization) -> tuple[float, int]:
    return float(quantization.scale), int(quantization.zero_point)


def values(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.integers(-128, 128, shape).astype(np.int8)


def reference(op: str, inputs: list[np.ndarray], attributes: dict[str, Any]) -> np.ndarray:
    return OPS[op].reference(inputs, attributes)[0]


def one_operator(
    code: str,
    inputs: list[tuple[np.ndarray, Quantization | None]],
    y_shape: tuple[int, ...],
    y_q: Quantization | None,
    options: str | None = None,
    constants: tuple[np.ndarray, ...] = (),
    plain: bool = True,
    version: int = 2,
    **given: Any,
) -> np.ndarray:
    """LiteRT's output, without the batch dimension that this adds to inputs and output."""
    builder = ModelBuilder()
    names = [
        builder.input(f"x{index}", (1, *array.shape), str(array.dtype), *(of(q) if q else ()))
        for index, (array, q) in enumerate(inputs)
    ]
    names += [builder.constant(f"c{index}", array) for index, array in enumerate(constants)]
    y = builder.tensor("y", (1, *y_shape), "int8" if y_q else "float32", *(of(y_q) if y_q else ()))
    builder.operator(code, names, [y], options, version, **given)
    return run(builder.finish([y]), [array for array, _ in inputs], plain)[0][0]


def same(mine: np.ndarray, theirs: np.ndarray, plain: bool) -> None:
    """Equal to the plain kernels; one step from the usual ones, which round the last shift in another way."""
    if plain:
        np.testing.assert_array_equal(mine, theirs)
    assert np.abs(mine.astype(int) - theirs).max() <= 1


def same_but_for_ties(mine: np.ndarray, theirs: np.ndarray, exact: np.ndarray, roundings: int) -> None:
    """Equal, but where ``exact`` (in steps) is so near a tie that single precision cannot tell: one step there."""
    to_tie = np.abs(np.abs(exact - np.trunc(exact)) - 0.5)
    allowed = to_tie <= np.abs(exact) * roundings * 2.0**-24
    assert np.all(np.abs(mine.astype(int) - theirs) <= allowed)


def geometry(data: st.DataObject, most: int = 4) -> tuple[tuple[int, int], tuple[int, int], str, dict[str, Any]]:
    """Image and window sizes, the file's padding, and the attributes that say the same."""
    kind = data.draw(st.sampled_from(["SAME", "VALID"]))
    taps = data.draw(st.tuples(st.integers(1, most), st.integers(1, most)))
    size = tuple(data.draw(SIDES) + (each if kind == "VALID" else 0) for each in taps)
    stride = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = tuple(same_padding(*each) if kind == "SAME" else (0, 0) for each in zip(size, taps, stride, strict=True))
    return (size[0], size[1]), taps, kind, {"stride": stride, "padding": padding}


def layer_case(data: st.DataObject, outputs: int, terms: int) -> tuple[Any, ...]:
    """Quantisations, scales and biases that use the whole range of the output."""
    random = data.draw(generators())
    x_q = data.draw(quantizations())
    scales = np.exp(random.uniform(np.log(1e-3), np.log(0.02), outputs)).astype(np.float32)
    # down to factors near 1, where most results saturate but the roundings differ most
    y_scale = float(x_q.scale) * 0.005 * 73 * 73 * terms**0.5 / 60 * data.draw(reals(0.3, 3) | reals(0.01, 1))
    y_q = build.activation_quantization(y_scale, data.draw(st.sampled_from([-128, 127]) | st.integers(-128, 127)))
    bias = random.integers(-3000, 3000, outputs).astype(np.int32)
    return random, x_q, y_q, scales, bias, data.draw(KINDS)


def bias_scales(x_q: Quantization, scales: np.ndarray) -> np.ndarray:
    return build.bias_quantization(x_q, scales).scale


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), plain=st.booleans())
def test_conv2d(data: st.DataObject, plain: bool) -> None:
    size, taps, padding, attributes = geometry(data)
    channels, outputs = data.draw(CHANNELS), data.draw(st.integers(1, 9))
    random, x_q, y_q, scales, bias, kind = layer_case(data, outputs, taps[0] * taps[1] * channels)
    x = values(random, *size, channels)
    weight = random.integers(-127, 128, (outputs, *taps, channels)).astype(np.int8)
    attributes |= build.layer_attributes(x_q, y_q, kind)
    mine = reference("conv2d_int8", [x, weight, bias, *build.layer_constants(x_q, scales, y_q)], attributes)
    builder = ModelBuilder()
    names = [
        builder.input("x", (1, *x.shape), "int8", *of(x_q)),
        builder.constant("w", weight, scales),
        builder.constant("b", bias, bias_scales(x_q, scales)),
    ]
    y = builder.tensor("y", (1, *mine.shape), "int8", *of(y_q))
    stride = attributes["stride"]
    builder.operator(
        "CONV_2D", names, [y], "Conv2DOptions", 3, padding=PADDING[padding], strideH=stride[0], strideW=stride[1],
        fusedActivationFunction=ACTIVATION[kind],
    )  # fmt: skip
    same(mine, run(builder.finish([y]), [x], plain)[0][0], plain)


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), plain=st.booleans())
def test_depthwise_conv2d(data: st.DataObject, plain: bool) -> None:
    size, taps, padding, attributes = geometry(data)
    channels, times = data.draw(CHANNELS), data.draw(st.sampled_from([1, 1, 2, 5]))
    random, x_q, y_q, scales, bias, kind = layer_case(data, channels * times, taps[0] * taps[1])
    x = values(random, *size, channels)
    weight = random.integers(-127, 128, (*taps, channels * times)).astype(np.int8)
    attributes |= build.layer_attributes(x_q, y_q, kind)
    mine = reference("depthwise_conv2d_int8", [x, weight, bias, *build.layer_constants(x_q, scales, y_q)], attributes)
    builder = ModelBuilder()
    names = [
        builder.input("x", (1, *x.shape), "int8", *of(x_q)),
        builder.constant("w", weight[None], scales, axis=3),
        builder.constant("b", bias, bias_scales(x_q, scales)),
    ]
    y = builder.tensor("y", (1, *mine.shape), "int8", *of(y_q))
    stride = attributes["stride"]
    builder.operator(
        "DEPTHWISE_CONV_2D", names, [y], "DepthwiseConv2DOptions", 3, padding=PADDING[padding], strideH=stride[0],
        strideW=stride[1], depthMultiplier=times, fusedActivationFunction=ACTIVATION[kind],
    )  # fmt: skip
    same(mine, run(builder.finish([y]), [x], plain)[0][0], plain)


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), plain=st.booleans(), per_channel=st.booleans())
def test_dense(data: st.DataObject, plain: bool, per_channel: bool) -> None:
    inputs, outputs = data.draw(st.integers(1, 200)), data.draw(st.integers(2, 20))
    random, x_q, y_q, scales, bias, kind = layer_case(data, outputs, inputs)
    x = values(random, inputs)
    weight = random.integers(-127, 128, (outputs, inputs)).astype(np.int8)
    scales = scales if per_channel else np.repeat(scales[:1], outputs)
    constants = build.layer_constants(x_q, scales, y_q)
    mine = reference("dense_int8", [x, weight, bias, *constants], build.layer_attributes(x_q, y_q, kind))
    written = scales if per_channel else scales[:1]
    builder = ModelBuilder()
    names = [
        builder.input("x", (1, inputs), "int8", *of(x_q)),
        builder.constant("w", weight, written),
        builder.constant("b", bias, bias_scales(x_q, written)),
    ]
    y = builder.tensor("y", (1, outputs), "int8", *of(y_q))
    version = 12 if per_channel else 4
    activation = ACTIVATION[kind]
    builder.operator(
        "FULLY_CONNECTED", names, [y], "FullyConnectedOptions", version, fusedActivationFunction=activation
    )
    same(mine, run(builder.finish([y]), [x], plain)[0][0], plain)


@settings(max_examples=EXAMPLES, deadline=None)
@given(random=generators(), a_q=quantizations(), b_q=quantizations(), y_q=quantizations(), kind=KINDS, plain=...)
def test_add(
    random: np.random.Generator, a_q: Quantization, b_q: Quantization, y_q: Quantization, kind: str, plain: bool
) -> None:
    a, b = values(random, 3, 5, 17), values(random, 3, 5, 17)
    theirs = one_operator(
        "ADD", [(a, a_q), (b, b_q)], a.shape, y_q, "AddOptions", plain=plain, fusedActivationFunction=ACTIVATION[kind]
    )
    same(reference("add_int8", [a, b], build.add_attributes(a_q, b_q, y_q, kind)), theirs, plain)


@settings(max_examples=EXAMPLES, deadline=None)
@given(random=generators(), a_q=quantizations(), b_q=quantizations(), y_q=quantizations(0.01, 3), kind=KINDS)
def test_multiply(
    random: np.random.Generator, a_q: Quantization, b_q: Quantization, y_q: Quantization, kind: str
) -> None:
    """Plain kernels only: the usual ones wrap at 16 bits where they should saturate (seen at a factor of 1)."""
    a, b = values(random, 3, 5, 17), values(random, 3, 5, 17)
    theirs = one_operator(
        "MUL", [(a, a_q), (b, b_q)], a.shape, y_q, "MulOptions", fusedActivationFunction=ACTIVATION[kind]
    )
    attributes = build.multiply_attributes(a_q, b_q, y_q, kind)
    np.testing.assert_array_equal(reference("multiply_int8", [a, b], attributes), theirs)


@pytest.mark.parametrize(
    ("op", "code"), [("average_pool2d_int8", "AVERAGE_POOL_2D"), ("max_pool2d_int8", "MAX_POOL_2D")]
)
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), q=quantizations(), kind=KINDS, plain=st.booleans())
def test_pool(op: str, code: str, data: st.DataObject, q: Quantization, kind: str, plain: bool) -> None:
    size, taps, padding, attributes = geometry(data, 5)
    x = values(data.draw(generators()), *size, data.draw(CHANNELS))
    mine = reference(op, [x], {**attributes, "kernel": taps, **build.pool_attributes(q, kind)})
    stride = attributes["stride"]
    theirs = one_operator(
        code, [(x, q)], mine.shape, q, "Pool2DOptions", plain=plain, padding=PADDING[padding], strideH=stride[0],
        strideW=stride[1], filterHeight=taps[0], filterWidth=taps[1], fusedActivationFunction=ACTIVATION[kind],
    )  # fmt: skip
    np.testing.assert_array_equal(mine, theirs)


@settings(max_examples=EXAMPLES, deadline=None)
@given(random=generators(), x_q=quantizations(), y_q=quantizations(), data=st.data())
def test_global_average(random: np.random.Generator, x_q: Quantization, y_q: Quantization, data: st.DataObject) -> None:
    x = values(random, data.draw(SIDES), data.draw(SIDES), data.draw(CHANNELS))
    attributes = build.average_attributes(x_q, y_q, x.shape[0] * x.shape[1])
    mine = reference("global_average_int8", [x], attributes)
    axes = (np.array([1, 2], np.int32),)
    theirs = one_operator("MEAN", [(x, x_q)], mine.shape, y_q, "ReducerOptions", axes, keepDims=False)
    np.testing.assert_array_equal(mine, theirs)


@settings(max_examples=EXAMPLES, deadline=None)
@given(random=generators(), x_q=quantizations(0.001, 0.5), beta=st.sampled_from([1.0, 0.5]), size=st.integers(2, 40))
def test_softmax(random: np.random.Generator, x_q: Quantization, beta: float, size: int) -> None:
    x = values(random, size)
    mine = reference("softmax_int8", [x, build.softmax_table(x_q, beta)], {})
    y_q = build.activation_quantization(build.SOFTMAX_SCALE, build.SOFTMAX_ZERO)

    def theirs(plain: bool) -> np.ndarray:
        return one_operator("SOFTMAX", [(x, x_q)], x.shape, y_q, "SoftmaxOptions", plain=plain, beta=beta)

    powers = np.exp((x.astype(np.float64) - x.max()) * np.float64(x_q.scale) * beta)
    # the exponent's product rounded, at most 128 long; the exponential; the sum of `size` terms; three more
    exact, roundings = 256 * powers / powers.sum(), 128 + 2 + size + 3
    same_but_for_ties(mine, theirs(False), exact, roundings)
    assert np.abs(mine.astype(int) - theirs(True)).max() <= 1


ALL = np.arange(-128, 128).astype(np.int8)


@pytest.mark.parametrize(
    ("code", "function", "y_q"),
    [
        ("LOGISTIC", lambda x: 1 / (1 + np.exp(-x)), build.activation_quantization(1 / 256, -128)),
        ("TANH", np.tanh, build.activation_quantization(1 / 128, 0)),
    ],
)
@settings(max_examples=EXAMPLES, deadline=None)
@given(x_q=quantizations(0.001, 0.3))
def test_functions_of_one_value(
    code: str, function: Callable[[np.ndarray], np.ndarray], y_q: Quantization, x_q: Quantization
) -> None:
    mine = reference("lookup_int8", [ALL, build.lookup_table(function, x_q, y_q)], {})
    real = float(x_q.scale) * (ALL.astype(np.float64) - int(x_q.zero_point))
    # the input's product moves the result by at most one rounding of it times |x f'| / |f| < 40; exp, sum, quotient
    exact, roundings = function(real) / float(y_q.scale), 40 + 6
    same_but_for_ties(mine, one_operator(code, [(ALL, x_q)], ALL.shape, y_q, plain=False), exact, roundings)
    assert np.abs(mine.astype(int) - one_operator(code, [(ALL, x_q)], ALL.shape, y_q)).max() <= 1


@settings(max_examples=EXAMPLES, deadline=None)
@given(x_q=quantizations(), y_q=quantizations(), slope=st.sampled_from([0.1, 0.3, -0.2, -0.5, 1.5]), plain=...)
def test_leaky_relu(x_q: Quantization, y_q: Quantization, slope: float, plain: bool) -> None:
    mine = build.rescale_table(x_q, y_q, negative_slope=slope)
    theirs = one_operator("LEAKY_RELU", [(ALL, x_q)], ALL.shape, y_q, "LeakyReluOptions", plain=plain, alpha=slope)
    np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(("code", "kind"), [("RELU", "relu"), ("RELU6", "relu6")])
@settings(max_examples=EXAMPLES, deadline=None)
@given(x_q=quantizations(), y_q=quantizations(), plain=...)
def test_relu_between_scales(code: str, kind: str, x_q: Quantization, y_q: Quantization, plain: bool) -> None:
    theirs = one_operator(code, [(ALL, x_q)], ALL.shape, y_q, plain=plain)
    np.testing.assert_array_equal(build.rescale_table(x_q, y_q, kind), theirs)


@settings(max_examples=EXAMPLES, deadline=None)
@given(x_q=quantizations(), y_q=quantizations(), plain=...)
def test_requantise(x_q: Quantization, y_q: Quantization, plain: bool) -> None:
    theirs = one_operator("QUANTIZE", [(ALL, x_q)], ALL.shape, y_q, plain=plain)
    same(build.rescale_table(x_q, y_q), theirs, plain)


@settings(max_examples=EXAMPLES, deadline=None)
@given(x_q=quantizations(), y_q=quantizations(), plain=...)
def test_hard_swish(x_q: Quantization, y_q: Quantization, plain: bool) -> None:
    theirs = one_operator("HARD_SWISH", [(ALL, x_q)], ALL.shape, y_q, plain=plain, version=1)
    np.testing.assert_array_equal(build.hard_swish_table(x_q, y_q), theirs)


@settings(max_examples=EXAMPLES, deadline=None)
@given(random=generators(), q=quantizations(1e-3, 10))
def test_quantize_and_dequantize(random: np.random.Generator, q: Quantization) -> None:
    scale, zero_point = of(q)
    # halves, where the rounding shows, and their neighbours
    x = (random.integers(-300, 300, 500) / 2 * scale).astype(np.float32)
    x = np.nextafter(x, random.choice([-np.inf, 0, np.inf], 500).astype(np.float32))
    attributes = {"scale": scale, "zero_point": zero_point}
    stored = one_operator("QUANTIZE", [(x, None)], x.shape, q)
    np.testing.assert_array_equal(reference("quantize", [x], attributes), stored)
    real = one_operator("DEQUANTIZE", [(ALL, q)], ALL.shape, None)
    np.testing.assert_array_equal(reference("dequantize", [ALL], attributes), real)
