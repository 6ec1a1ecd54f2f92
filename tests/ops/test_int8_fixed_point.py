"""Fixed point against rational arithmetic, real scales turned into integers, and what int8 operators refuse."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtune.ir import Tensor
from microtune.ops import OPS
from microtune.ops import quantized_build as build
from microtune.ops.fixed_point import quantize_multiplier, rescale, rescale_once, round_half_away

INT32 = st.integers(-(2**31), 2**31 - 1)
MULTIPLIERS = st.just(0) | st.integers(2**30, 2**31 - 1)
SHIFTS = st.integers(-31, 30)


def half_up(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))


def half_away(x: Fraction) -> int:
    return half_up(x) if x >= 0 else -half_up(-x)


@given(real=st.floats(0, 2**30 - 1) | st.floats(0, 1e-9))
def test_a_factor_keeps_31_bits(real: float) -> None:
    multiplier, shift = quantize_multiplier(real)
    held = Fraction(multiplier) * Fraction(2) ** (shift - 31)
    if real < 2.0**-33:
        assert held == 0
    elif multiplier == 0:
        assert real < 2.0**-32 * 2
    else:
        assert 2**30 <= multiplier < 2**31
        assert abs(held - Fraction(real)) <= Fraction(real) / 2**31


@given(x=INT32, multiplier=MULTIPLIERS, shift=SHIFTS)
def test_rescale_rounds_twice(x: int, multiplier: int, shift: int) -> None:
    moved = min(max(x * 2 ** max(shift, 0), -(2**31)), 2**31 - 1)
    once = half_up(Fraction(moved * multiplier, 2**31))
    assert rescale(x, multiplier, shift) == half_away(Fraction(once, 2 ** max(-shift, 0)))


@given(x=INT32, multiplier=MULTIPLIERS, shift=SHIFTS)
def test_rescale_once_rounds_half_up(x: int, multiplier: int, shift: int) -> None:
    assert rescale_once(x, multiplier, shift) == half_up(Fraction(x * multiplier, 2 ** (31 - shift)))


@given(x=st.floats(-1000, 1000, width=32))
def test_rounding_of_floats(x: float) -> None:
    assert round_half_away(np.float32(x)) == half_away(Fraction(x))


@pytest.mark.parametrize("real", [-0.1, math.nan, math.inf, 2.0**30])
def test_factors_that_are_refused(real: float) -> None:
    with pytest.raises(ValueError, match="a scale factor must be"):
        quantize_multiplier(real)


@pytest.mark.parametrize(("scale", "zero_point"), [(0.0, 0), (-1.0, 0), (math.nan, 0), (1e-60, 0), (1.0, 128)])
def test_quantisations_that_are_refused(scale: float, zero_point: int) -> None:
    with pytest.raises(ValueError, match="an int8 tensor needs a scale above zero and a zero point of -128 to 127"):
        build.activation_quantization(scale, zero_point)


def test_activation_ranges() -> None:
    quantization = build.activation_quantization(0.1, -20)
    assert build.activation_range("none", quantization) == (-128, 127)
    assert build.activation_range("relu", quantization) == (-20, 127)
    assert build.activation_range("relu6", quantization) == (-20, 40)
    assert build.activation_range("relu_n1_to_1", quantization) == (-30, -10)
    with pytest.raises(ValueError, match="'tanh' is no activation an int8 operator can apply; it takes none, relu"):
        build.activation_range("tanh", quantization)


@given(seed=st.integers(0, 2**32 - 1))
def test_arrays_come_back_within_half_a_step(seed: int) -> None:
    random = np.random.default_rng(seed)
    scales = np.exp(random.uniform(-6, 2, 5)).astype(np.float32)
    quantization = build.channel_quantization(scales, axis=1)
    real = random.uniform(-127, 127, (3, 5, 2)) * scales[:, None]
    back = build.dequantize_array(build.quantize_array(real, quantization), quantization)
    assert np.all(np.abs(back - real) <= scales[:, None] * (0.5 + 1e-5))
    # weights are symmetric: -128 is not used, activations use all
    assert build.quantize_array(np.full((1, 5), -1e9), quantization).min() == -127
    assert build.quantize_array(-1e9, build.activation_quantization(1, 0)) == -128


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 5000))
def test_a_mean_is_within_one_step(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    x_q = build.activation_quantization(0.05, int(random.integers(-128, 128)))
    y_q = build.activation_quantization(0.05, int(random.integers(-128, 128)))
    x = random.integers(-128, 128, (count, 3)).astype(np.int8)
    attributes = build.average_attributes(x_q, y_q, count)
    y = OPS["global_average_int8"].reference([x], attributes)[0]
    exact = build.dequantize_array(x, x_q).astype(np.float64).mean(0) / 0.05 + int(y_q.zero_point)
    # half a step by the last rounding, half a unit before the last shift by the first, and the factor's own error
    allowed = 0.5 + 0.5 * 2.0 ** attributes["y_shift"] + 255 * 2.0**-28
    assert np.all(np.abs(y - np.clip(exact, -128, 127)) <= allowed)


def tensors(*given: tuple[tuple[int, ...], str]) -> list[Tensor]:
    return [Tensor(f"in{index}", shape, dtype) for index, (shape, dtype) in enumerate(given)]


LAYER = [((4,), "int32"), ((4,), "int32"), ((4,), "int8")]
GEOMETRY: dict[str, Any] = {"stride": (1, 1), "padding": ((0, 0), (0, 0))}
IMAGE = ((5, 5, 3), "int8")


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "message"),
    [
        ("conv2d_int8", [((5, 5, 3), "float32"), ((4, 1, 1, 3), "int8"), *LAYER], GEOMETRY, "not float32, int8"),
        ("conv2d_int8", [IMAGE, ((4, 1, 1, 2), "int8"), *LAYER], GEOMETRY, r"weight \(O, kh, kw, C\), not"),
        ("conv2d_int8", [IMAGE, ((5, 1, 1, 3), "int8"), *LAYER], GEOMETRY, r"takes a bias of shape \(5,\), not"),
        ("conv2d_int8", [IMAGE, ((4, 6, 1, 3), "int8"), *LAYER], GEOMETRY, "a window of 6 over 5 elements"),
        ("conv2d_int8", [IMAGE, ((4, 1, 1, 3), "int8"), *LAYER], {**GEOMETRY, "stride": (0, 1)}, "strides of at least"),
        (
            "conv2d_int8", [IMAGE, ((4, 1, 1, 3), "int8"), *LAYER], {**GEOMETRY, "padding": ((1, 0), (0, 0))},
            "a padding of 0 to 0, not 1",
        ),
        (
            "conv2d_int8", [IMAGE, ((4, 1, 1, 3), "int8"), *LAYER, ((4, 1, 1, 2), "int8")], {**GEOMETRY, "start": 2},
            "cannot put learnt channels",
        ),
        ("depthwise_conv2d_int8", [IMAGE, ((1, 1, 4), "int8"), *LAYER], GEOMETRY, r"weight \(kh, kw, C \* m\), not"),
        ("dense_int8", [((70000,), "int8"), ((4, 70000), "int8"), *LAYER], {}, "sums 70000 products; 32 bits hold"),
        ("add_int8", [IMAGE, IMAGE], {"left_shift": 20, "a_shift": 1, "b_shift": 0}, "input factors below 1"),
        ("add_int8", [IMAGE, ((5, 5, 4), "int8")], {"left_shift": 20, "a_shift": 0, "b_shift": 0}, "of one shape"),
        ("lookup_int8", [IMAGE, ((255,), "int8")], {}, r"takes a table \(256,\), not \(255,\)"),
        ("softmax_int8", [IMAGE, ((256,), "int8")], {}, "takes int8, float32, not int8, int8"),
        ("average_pool2d_int8", [((5, 5), "int8")], {**GEOMETRY, "kernel": (2, 2)}, r"takes an image \(H, W, C\)"),
        ("global_average_int8", [((5,), "int8")], {}, r"takes positions and channels \(..., C\), not"),
    ],
)  # fmt: skip
def test_operators_say_what_does_not_fit(op: str, inputs: list[Any], attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OPS[op].shape(tensors(*inputs), attributes)
