"""TFLite's arithmetic element by element, activations, softmax, and the doors between float and int8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from microtune.frontends.tflite_values import Call, Constant, Converter, Value, Variable, tensor_name
from microtune.ir import Quantization, Tensor
from microtune.ops.quantized_build import (
    SOFTMAX_SCALE,
    SOFTMAX_ZERO,
    add_attributes,
    hard_swish_table,
    lookup_table,
    multiply_attributes,
    rescale_table,
    softmax_table,
)

MOST_BETA = 1e6
"""Softmax of larger multiples of its input is a maximum, and overflows."""


def _quantization(x: Tensor) -> Quantization:
    assert x.quantization is not None  # every int8 tensor of the graph came through Call.quantization
    return x.quantization


def _with_constant(call: Call, op: str, x: Tensor, array: np.ndarray, kind: str) -> Tensor:
    """x + c or x * c: a scale and shift of each channel where c is one number per channel, or one in all."""
    where, name = call.where, tensor_name(call.y)
    small = call.per_sample(array, x.shape, spread=False)
    if len(x.shape) > 1 and small.shape[:-1] in ((), (1,) * (small.ndim - 1)):
        channels = np.broadcast_to(small.reshape(-1), x.shape[-1:])
        gamma, beta = (np.ones_like(channels), channels) if op == "add" else (channels, np.zeros_like(channels))
        constants = (
            call.builder.constant(f"{name}.gamma", gamma, where),
            call.builder.constant(f"{name}.beta", beta, where),
        )
        return call.activated("channel_affine", (x, *constants), kind)
    other = call.builder.constant(f"{name}.{op}", call.per_sample(array, x.shape), where)
    return call.activated(op, (x, other), kind)


def _with_variable(call: Call, op: str, a: Tensor, b: Tensor, kind: str) -> Tensor:
    """a + b or a * b of one shape, or with one number per channel (as a squeeze-and-excitation block has it)."""
    if a.shape == b.shape:
        return call.activated(op, (a, b), kind)
    x, small = (a, b) if a.size > b.size else (b, a)
    if small.size != small.shape[-1] or small.shape[-1:] != x.shape[-1:]:
        raise call.error(
            f"of {(call.batch, *a.shape)} and {(call.batch, *b.shape)} is not supported: supported are equal shapes, "
            "constants, and one number per channel"
        )
    channels = small.shape[-1:]
    row = call.builder.reshape(small, channels, f"{small.name}.vector", call.where)
    name = tensor_name(call.y)
    fill = call.builder.constant(f"{name}.fill", np.full(channels, 1.0 if op == "add" else 0.0), call.where)
    pair = (fill, row) if op == "add" else (row, fill)
    return call.activated("channel_affine", (x, *pair), kind)


def _float_pair(call: Call, op: str, kind: str) -> Tensor:
    a, b = call.input(0), call.input(1)
    if isinstance(a, Constant):
        return _with_constant(call, op, call.tensor(1), call.real(a), kind)
    if isinstance(b, Constant):
        return _with_constant(call, op, call.tensor(0), call.real(b), kind)
    return _with_variable(call, op, call.tensor(0), call.tensor(1), kind)


def _int8_operands(call: Call) -> list[Tensor]:
    """Both operands as int8 tensors of the output's shape; constants are spread to it."""
    shape = call.sample_shape(call.y)
    found = []
    for index in (0, 1):
        value = call.input(index)
        if isinstance(value, Constant):
            q = call.quantization(value.stored)
            array = np.ascontiguousarray(call.per_sample(value.array, shape))
            found.append(call.builder.quantized(tensor_name(value.stored), array, call.where, q))
            continue
        tensor = call.tensor(index)
        if tensor.dtype != "int8" or tensor.shape != shape:
            raise call.error(
                f"of int8 takes values of one shape {(call.batch, *shape)}, not {tensor.dtype}"
                f"{(call.batch, *tensor.shape)}; only constants are spread over channels"
            )
        found.append(tensor)
    return found


def _pair(op: str, kind: str, attributes: Callable[..., dict[str, int]]) -> Converter:
    def convert(call: Call) -> Variable:
        activation = call.activation(kind)
        if call.y.dtype != "int8":
            return Variable(_float_pair(call, op, activation))
        a, b = _int8_operands(call)
        y_q = call.quantization(call.y)
        given: dict[str, Any] = attributes(_quantization(a), _quantization(b), y_q, activation)
        return Variable(call.emit(f"{op}_int8", a, b, quantization=y_q, **given))

    return convert


add = _pair("add", "AddOptions", add_attributes)
multiply = _pair("multiply", "MulOptions", multiply_attributes)


def subtract(call: Call) -> Variable:
    """SUB of float values: adding what is negated."""
    if call.y.dtype == "int8":
        raise call.error("of int8 values is not supported; ADD of the negated value is, and SUB in float")
    activation = call.activation("SubOptions")
    a, b = call.input(0), call.input(1)
    if isinstance(b, Constant):
        return Variable(_with_constant(call, "add", call.tensor(0), -call.real(b), activation))
    negative = call.emit("scale", call.tensor(1), wish=f"{tensor_name(call.y)}.negative", factor=-1.0)
    if isinstance(a, Constant):
        return Variable(_with_constant(call, "add", negative, call.real(a), activation))
    return Variable(_with_variable(call, "add", call.tensor(0), negative, activation))


def _looked_up(call: Call, x: Tensor, table: np.ndarray, y_q: Quantization) -> Variable:
    constant = call.builder.quantized(f"{tensor_name(call.y)}.table", table, call.where, None)
    return Variable(call.emit("lookup_int8", x, constant, quantization=y_q))


def _rectifier(kind: str) -> Converter:
    """RELU, RELU6 and RELU_N1_TO_1."""

    def convert(call: Call) -> Variable:
        x = call.tensor()
        if x.dtype == "float32":
            return Variable(call.emit("clamp", x, low=-1.0, high=1.0) if kind == "relu_n1_to_1" else call.emit(kind, x))
        y_q = call.quantization(call.y)
        return _looked_up(call, x, rescale_table(_quantization(x), y_q, kind), y_q)

    return convert


relu, relu6, relu_n1_to_1 = (_rectifier(kind) for kind in ("relu", "relu6", "relu_n1_to_1"))


def leaky_relu(call: Call) -> Variable:
    x, alpha = call.tensor(), float(call.option("LeakyReluOptions", "Alpha"))
    if not np.isfinite(alpha):
        raise call.error(f"has the slope {alpha}")
    if x.dtype == "float32":
        return Variable(call.emit("leaky_relu", x, alpha=alpha))
    y_q = call.quantization(call.y)
    table = rescale_table(_quantization(x), y_q, negative_slope=alpha)
    return _looked_up(call, x, table, y_q)


Table = Callable[[Quantization, Quantization], np.ndarray]


def _real_table(function: Callable[[np.ndarray], np.ndarray]) -> Table:
    return lambda x_q, y_q: lookup_table(function, x_q, y_q)


def _curve(op: str, int8_table: Table, y_scale: float | None = None, y_zero: int = 0) -> Converter:
    """An activation that int8 takes from a table; ``y_scale``: the scale of the output that TFLite demands."""

    def convert(call: Call) -> Variable:
        x = call.tensor()
        if x.dtype == "float32":
            return Variable(call.emit(op, x))
        y_q = call.quantization(call.y)
        if y_scale is not None and (float(y_q.scale), int(y_q.zero_point)) != (y_scale, y_zero):
            raise call.error(f"its int8 output must have the scale {y_scale} and the zero point {y_zero}")
        return _looked_up(call, x, int8_table(_quantization(x), y_q), y_q)

    return convert


sigmoid = _curve("sigmoid", _real_table(lambda x: np.exp(-np.logaddexp(0, -x))), 1 / 256, -128)
tanh = _curve("tanh", _real_table(np.tanh), 1 / 128)
hard_swish = _curve("hard_swish", hard_swish_table)


def softmax(call: Call) -> Variable:
    """SOFTMAX over the last axis, which must be all of a sample."""
    x, beta = call.tensor(), float(call.option("SoftmaxOptions", "Beta"))
    if not 0 < beta <= MOST_BETA:
        raise call.error(f"has the factor beta {beta}; it must be above 0 and at most {MOST_BETA:g}")
    if not x.shape or x.size != x.shape[-1]:
        raise call.error(f"over the last axis of {(call.batch, *x.shape)} is not supported; over all of a sample it is")
    if x.dtype == "float32":
        if beta != 1.0:
            x = call.emit("scale", x, wish=f"{x.name}.beta", factor=beta)
        return Variable(call.emit("softmax", x))
    y_q = call.quantization(call.y)
    if (float(y_q.scale), int(y_q.zero_point)) != (SOFTMAX_SCALE, SOFTMAX_ZERO):
        raise call.error(f"its int8 output must have the scale {SOFTMAX_SCALE} and the zero point {SOFTMAX_ZERO}")
    table = call.builder.quantized(
        f"{tensor_name(call.y)}.table", softmax_table(_quantization(x), beta), call.where, None
    )
    return Variable(call.emit("softmax_int8", x, table, quantization=y_q))


def quantize(call: Call) -> Variable:
    """QUANTIZE: float to int8, or int8 to another scale."""
    x, y_q = call.tensor(), call.quantization(call.y)
    if x.dtype == "float32":
        stored = call.emit("quantize", x, quantization=y_q, scale=float(y_q.scale), zero_point=int(y_q.zero_point))
        return Variable(stored)
    return _looked_up(call, x, rescale_table(_quantization(x), y_q), y_q)


def dequantize(call: Call) -> Value:
    """DEQUANTIZE of int8 values; of constants (float16 or int8 weights) it is computed now."""
    value = call.input(0)
    if isinstance(value, Constant):
        return Constant(call.real(value, value.stored.axis if value.array.ndim else None), call.y)
    x = call.tensor()
    if x.dtype != "int8":
        raise call.error("of float values is not supported; it takes int8")
    q = _quantization(x)
    return Variable(call.emit("dequantize", x, scale=float(q.scale), zero_point=int(q.zero_point)))
