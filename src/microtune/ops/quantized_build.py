"""Where real scales become the integers of the int8 operators: one place for every frontend and scheme.

The factors follow the TFLite kernels to the last bit, single precision included where they use it, so that the
same file gives the same outputs. Every function takes the ``Quantization`` of whole tensors (one scale, one
zero point) unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from microtune.ir.tensor import Quantization
from microtune.ops.fixed_point import (
    INT8,
    quantize_multiplier,
    quantize_multipliers,
    rescale,
    round_half_away,
    rounding_divide,
)

ADD_LEFT_SHIFT = 20
# real values an activation lies between; None is no limit
ACTIVATIONS: dict[str, tuple[float | None, float | None]] = {
    "none": (None, None),
    "relu": (0.0, None),
    "relu6": (0.0, 6.0),
    "relu_n1_to_1": (-1.0, 1.0),
}
SOFTMAX_SCALE, SOFTMAX_ZERO = 1 / 256, -128


def activation_quantization(scale: float, zero_point: int) -> Quantization:
    """The quantisation of an int8 activation. Raises ValueError for what int8 arithmetic cannot use."""
    if not (np.isfinite(np.float32(scale)) and np.float32(scale) > 0 and INT8.min <= zero_point <= INT8.max):
        raise ValueError(
            f"an int8 tensor needs a scale above zero and a zero point of -128 to 127, not {scale} and {zero_point}"
        )
    return Quantization(np.array(scale, np.float32), np.array(zero_point, np.int32))


def channel_quantization(scales: ArrayLike, axis: int = 0) -> Quantization:
    """The quantisation of int8 weights and int32 biases: a scale per channel along ``axis``, zero points zero."""
    array = np.array(scales, np.float32)
    return Quantization(array, np.zeros(array.shape, np.int32), axis)


def bias_quantization(x_q: Quantization, weight_scales: ArrayLike) -> Quantization:
    """The quantisation of an int32 bias: scale of the input times scale of each output's weights."""
    return channel_quantization(np.float64(x_q.scale) * np.asarray(weight_scales, np.float64))


def quantize_array(values: ArrayLike, quantization: Quantization, dtype: str = "int8") -> np.ndarray:
    """Stored integers of real values: nearest (half away from zero), saturated; int8 weights to -127..127."""
    scale, zero = _along_axis(values, quantization)
    limits = np.iinfo(dtype)
    lowest = -limits.max if quantization.axis is not None else limits.min
    stored = round_half_away(np.asarray(values, np.float64) / scale) + zero
    return np.asarray(np.clip(stored, lowest, limits.max), dtype)


def dequantize_array(stored: ArrayLike, quantization: Quantization) -> np.ndarray:
    """Real values (float32) of stored integers."""
    scale, zero = _along_axis(stored, quantization)
    return np.asarray((np.asarray(stored, np.float64) - zero) * scale, np.float32)


def _along_axis(values: ArrayLike, quantization: Quantization) -> tuple[np.ndarray, np.ndarray]:
    """Scale (float64) and zero point, shaped to spread over ``values``."""
    shape = [1] * np.ndim(values)
    if quantization.axis is None:
        return np.asarray(quantization.scale, np.float64), np.asarray(quantization.zero_point)
    shape[quantization.axis] = -1
    return np.asarray(quantization.scale, np.float64).reshape(shape), quantization.zero_point.reshape(shape)


def activation_range(kind: str, y_q: Quantization) -> tuple[int, int]:
    """The stored values ``(low, high)`` a fused activation (a key of ``ACTIVATIONS``) lets through."""
    if kind not in ACTIVATIONS:
        raise ValueError(f"'{kind}' is no activation an int8 operator can apply; it takes {', '.join(ACTIVATIONS)}")

    def stored(real: float | None, otherwise: int) -> int:
        if real is None:
            return otherwise
        steps = float(round_half_away(np.float32(real) / np.float32(y_q.scale)))
        return int(np.clip(steps + int(y_q.zero_point), INT8.min, INT8.max))

    low, high = ACTIVATIONS[kind]
    return stored(low, int(INT8.min)), stored(high, int(INT8.max))


def _clamped(y_q: Quantization, kind: str) -> dict[str, int]:
    low, high = activation_range(kind, y_q)
    return {"y_zero": int(y_q.zero_point), "low": low, "high": high}


def layer_constants(x_q: Quantization, weight_scales: ArrayLike, y_q: Quantization) -> tuple[np.ndarray, np.ndarray]:
    """``multiplier`` (O,) int32 and ``shift`` (O,) int8 of a convolution or dense layer."""
    scales = np.asarray(weight_scales, np.float32).reshape(-1).astype(np.float64)
    return quantize_multipliers(np.float64(x_q.scale) * scales / np.float64(y_q.scale))


def layer_attributes(x_q: Quantization, y_q: Quantization, kind: str = "none") -> dict[str, int]:
    """Attributes of conv2d_int8, depthwise_conv2d_int8 and dense_int8, but for stride and padding."""
    return {"x_zero": int(x_q.zero_point), **_clamped(y_q, kind)}


def add_attributes(a_q: Quantization, b_q: Quantization, y_q: Quantization, kind: str = "none") -> dict[str, int]:
    """Attributes of add_int8."""
    a, b, y = (float(each.scale) for each in (a_q, b_q, y_q))
    twice = 2 * max(a, b)
    factors = {"a": a / twice, "b": b / twice, "y": twice / (2**ADD_LEFT_SHIFT * y)}
    found = {"a_zero": int(a_q.zero_point), "b_zero": int(b_q.zero_point), "left_shift": ADD_LEFT_SHIFT}
    for name, factor in factors.items():
        found[f"{name}_multiplier"], found[f"{name}_shift"] = quantize_multiplier(factor)
    return {**found, **_clamped(y_q, kind)}


def multiply_attributes(a_q: Quantization, b_q: Quantization, y_q: Quantization, kind: str = "none") -> dict[str, int]:
    """Attributes of multiply_int8."""
    factor = np.float32(a_q.scale) * np.float32(b_q.scale) / np.float32(y_q.scale)
    multiplier, shift = quantize_multiplier(float(factor))
    zeros = {"a_zero": int(a_q.zero_point), "b_zero": int(b_q.zero_point)}
    return {**zeros, "y_multiplier": multiplier, "y_shift": shift, **_clamped(y_q, kind)}


def average_attributes(x_q: Quantization, y_q: Quantization, count: int, kind: str = "none") -> dict[str, int]:
    """Attributes of global_average_int8 over ``count`` positions: 1 / count is part of the multiplier."""
    multiplier, shift = quantize_multiplier(float(x_q.scale) / float(y_q.scale))
    # as many bits as the count has, so that the quotient keeps 30; no further than a shift can reach
    extra = min(count.bit_length() - 1, 32, 31 + shift)
    quotient = (multiplier << extra) // count
    found = {"x_zero": int(x_q.zero_point), "y_multiplier": quotient, "y_shift": shift - extra}
    return {**found, **_clamped(y_q, kind)}


def pool_attributes(y_q: Quantization, kind: str = "none") -> dict[str, int]:
    """Attributes of average_pool2d_int8 and max_pool2d_int8, but for geometry; input and output share a scale."""
    low, high = activation_range(kind, y_q)
    return {"low": low, "high": high}


def softmax_table(x_q: Quantization, beta: float = 1.0) -> np.ndarray:
    """The table (256,) float32 of softmax_int8: exp(-i * x_scale * beta)."""
    step = -np.float32(x_q.scale) * np.float32(beta)
    return np.exp((step * np.arange(256, dtype=np.float32)).astype(np.float64)).astype(np.float32)


def lookup_table(
    function: Callable[[np.ndarray], np.ndarray], x_quantization: Quantization, y_quantization: Quantization
) -> np.ndarray:
    """The table (256,) int8 of lookup_int8 for an element-wise real ``function`` (called once, with float64)."""
    steps = np.arange(INT8.min, INT8.max + 1) - int(x_quantization.zero_point)
    real = np.float32(x_quantization.scale) * steps.astype(np.float32)
    values = np.asarray(function(real.astype(np.float64)), np.float32)
    stored = round_half_away(values * (np.float32(1) / np.float32(y_quantization.scale)))
    return np.asarray(np.clip(stored + int(y_quantization.zero_point), INT8.min, INT8.max), np.int8)


def rescale_table(
    x_q: Quantization, y_q: Quantization, kind: str = "none", negative_slope: float | None = None
) -> np.ndarray:
    """The table of lookup_int8 that moves values to another quantisation, in TFLite's integer arithmetic.

    For requantisation, ReLU and ReLU6 between different scales (``kind``), leaky ReLU (``negative_slope``). Factors
    are those of TFLite's QUANTIZE in the first case, and of its activations, in single precision, in the others.
    """
    x_scale, y_scale = np.float32(x_q.scale), np.float32(y_q.scale)
    steps = np.arange(INT8.min, INT8.max + 1) - int(x_q.zero_point)
    plain = kind == "none" and negative_slope is None
    moved = rescale(steps, *quantize_multiplier(float(x_scale) / float(y_scale) if plain else float(x_scale / y_scale)))
    if negative_slope is not None:
        slope = np.float32(negative_slope)
        below = rescale(steps, *quantize_multiplier(abs(float(x_scale * slope / y_scale))))
        moved = np.where(steps >= 0, moved, below if slope >= 0 else -below)
    low, high = activation_range(kind, y_q)
    return np.asarray(np.clip(moved + int(y_q.zero_point), low, high), np.int8)


def hard_swish_table(x_q: Quantization, y_q: Quantization) -> np.ndarray:
    """The table of lookup_int8 for hard swish, x relu6(x + 3) / 6, in TFLite's 16-bit fixed-point arithmetic."""

    def multiply(a: np.ndarray, b: int) -> np.ndarray:
        return (a * b + 2**14) >> 15

    def limited(a: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip(a, -(2**15), 2**15 - 1))

    def factor(real: np.float32) -> tuple[int, int]:
        multiplier, shift = quantize_multiplier(float(real))
        return min((multiplier + 2**15) >> 16, 2**15 - 1), shift

    # the input in steps of x_scale / 128, which uses all of 16 bits
    fine_scale = np.float32(1 / 128) * np.float32(x_q.scale)
    fine = (np.arange(INT8.min, INT8.max + 1) - int(x_q.zero_point)) << 7
    y_factor, y_shift = factor(fine_scale / np.float32(y_q.scale))
    gate_factor, gate_shift = factor(fine_scale / np.float32(3 / 32768))
    if y_shift > 0:
        raise ValueError(f"a hard swish from scale {x_q.scale} to {y_q.scale} is beyond TFLite's fixed point")
    # the gate, relu6(x + 3) / 6, saturates where it is 0 or 1; its last bit of a left shift comes after the product
    gate = limited(fine << max(gate_shift - 1, 0))
    gate = multiply(gate, gate_factor)
    gate = limited(gate << 1) if gate_shift > 0 else rounding_divide(gate, -gate_shift)
    gate = (gate + 2**15) >> 1
    product = gate * multiply(fine, y_factor)
    moved = rounding_divide(np.sign(product) * (np.abs(product) >> 15), -y_shift)
    return np.asarray(np.clip(moved + int(y_q.zero_point), INT8.min, INT8.max), np.int8)


__all__ = [
    "ACTIVATIONS", "ADD_LEFT_SHIFT", "SOFTMAX_SCALE", "SOFTMAX_ZERO", "activation_quantization", "activation_range",
    "add_attributes", "average_attributes", "bias_quantization", "channel_quantization", "dequantize_array",
    "hard_swish_table", "layer_attributes", "layer_constants", "lookup_table", "multiply_attributes", "pool_attributes",
    "quantize_array", "rescale_table", "softmax_table",
]  # fmt: skip
