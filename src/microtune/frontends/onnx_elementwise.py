"""Element-wise arithmetic and activations of ONNX, on real values and on int8 tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from microtune.errors import ModelError
from microtune.frontends.onnx_quantized import LARGEST_FLOAT, clip_kind, clip_limits, lookup, same
from microtune.frontends.onnx_values import Call, Constant, Converter, Stored, Value, Variable
from microtune.ir import Quantization, Tensor
from microtune.ops import OPS
from microtune.ops.quantized_build import (
    SOFTMAX_SCALE,
    SOFTMAX_ZERO,
    activation_quantization,
    add_attributes,
    multiply_attributes,
    softmax_table,
)

NUMPY = {"add": np.add, "multiply": np.multiply}


def channel_affine(
    call: Call, x: Variable, axis: int | None, gamma: Constant | Tensor, beta: Constant | Tensor, wish: str = ""
) -> Variable:
    """gamma x + beta with a number for each place along ``axis``; ``x`` is brought into an order that ends there.

    Without an axis the numbers are the same everywhere, and ``x`` stays as it is.
    """

    def tensor(given: Constant | Tensor) -> Tensor:
        return given if isinstance(given, Tensor) else call.builder.constant(given.name, given.array, call.where)

    numbers = (tensor(gamma), tensor(beta))
    x = x if axis is None else call.ending_in(x, (axis,))
    return replace(x, tensor=call.emit("channel_affine", x.tensor, *numbers, wish=wish))


def _varying_axes(array: np.ndarray) -> list[int]:
    """Axes along which an array, spread out or not, is not the same everywhere."""
    found = []
    for axis, size in enumerate(array.shape):
        if size > 1 and array.strides[axis] != 0 and not (array == array.take([0], axis)).all():
            found.append(axis)
    return found


def with_constant(call: Call, op: str, x: Variable, constant: Constant, wish: str = "") -> Variable:
    """``x`` + constant or ``x`` * constant, with as few numbers as the constant really has."""
    sample = call.per_sample(constant, call.full(x))
    axes = _varying_axes(sample)
    if x.is_int8:
        found = _int8_with_constant(call, op, x, constant, sample, axes)
        if found is not None:
            return found
        x = call.real(x)
    if sum(size > 1 for size in x.shape) < 2 or len(axes) > 1:
        data = x.arrangement.sort(np.asarray(sample).reshape(-1)).reshape(x.tensor.shape)
        return replace(
            x, tensor=call.emit(op, x.tensor, call.builder.constant(constant.name, data, call.where), wish=wish)
        )
    count = x.shape[axes[0]] if axes else x.tensor.shape[-1]
    index = tuple(slice(None) if other in axes else 0 for other in range(sample.ndim))
    numbers = Constant(constant.name, np.broadcast_to(sample[index], (count,)))
    neutral = np.full(count, 0.0 if op == "multiply" else 1.0)
    other = Constant(f"{wish or call.output}.{'shift' if op == 'multiply' else 'factor'}", neutral)
    return channel_affine(call, x, axes[0] if axes else None, *_gamma_beta(op, numbers, other), wish)


def _gamma_beta(op: str, numbers: Constant | Tensor, neutral: Constant) -> tuple[Constant | Tensor, Constant | Tensor]:
    return (numbers, neutral) if op == "multiply" else (neutral, numbers)


def _int8_with_constant(
    call: Call, op: str, x: Variable, constant: Constant, sample: np.ndarray, axes: Sequence[int]
) -> Variable | None:
    """A table for one number; an int8 operator for quantised constants of the size of ``x``; or None."""
    if call.target is None:
        return None
    if not axes:
        number = float(sample.reshape(-1)[0])
        y = lookup(call, x, lambda values: NUMPY[op](values, number), call.target, "")
        return call.settled(x, y)
    stored = constant.stored
    if stored is None or stored.quantization.axis is not None or stored.array.dtype != np.int8:
        return None
    if sum(size > 1 for size in x.shape) > 1 and len(axes) == 1 and stored.array.size < x.tensor.size:
        return None  # spread over an image, a number per channel would take a lot of flash
    q = activation_quantization(float(stored.quantization.scale[0]), int(stored.quantization.zero_point[0]))
    spread = np.asarray(call.per_sample(Constant(constant.name, stored.array), call.full(x)))
    data = x.arrangement.sort(spread.reshape(-1)).reshape(x.tensor.shape)
    other = call.builder.quantized(constant.name, data, call.where, q)
    return call.settled(x, _int8_pair(call, op, x.tensor, other))


def _int8_pair(call: Call, op: str, a: Tensor, b: Tensor) -> Tensor:
    assert call.target is not None and a.quantization is not None and b.quantization is not None
    attributes = add_attributes if op == "add" else multiply_attributes
    given: dict[str, Any] = attributes(a.quantization, b.quantization, call.target.quantization, call.target.kind)
    return call.emit(f"{op}_int8", a, b, quantization=call.target.quantization, **given)


def _together(call: Call, a: Variable, b: Variable) -> tuple[Variable, Tensor]:
    """Two values of one shape, the second in a tensor that lies like that of the first returned."""
    if a.arrangement.is_plain and not b.arrangement.is_plain:
        found, first = _together(call, b, a)
        return replace(found, tensor=first), found.tensor
    order = a.arrangement.axes(a.shape)
    if a.arrangement == b.arrangement:
        return a, call.builder.reshape(b.tensor, a.tensor.shape, f"{b.tensor.name}.reshaped", call.where)
    if order is None:
        a, order = call.listed(a), tuple(range(len(a.shape)))
    ones = [axis for axis, size in enumerate(a.shape) if size == 1]
    return a, call.arranged(b, (*order, *(axis for axis in ones if axis not in order)), a.tensor.shape)


def _channel_of(whole: Variable, part: Variable) -> int | None:
    """The axis of ``whole`` along which ``part``, of size 1 everywhere else, has a number for each place."""
    if len(whole.shape) != len(part.shape) or part.tensor.size == 1:
        return None
    axes = [axis for axis, size in enumerate(part.shape) if size != 1]
    return axes[0] if len(axes) == 1 and whole.shape[axes[0]] == part.shape[axes[0]] else None


def pair(call: Call, op: str, a: Variable, b: Variable) -> Variable:
    """Two values of one shape, or one of them with a number per channel (as in squeeze and excitation)."""
    if a.shape != b.shape:
        if a.tensor.size < b.tensor.size:
            a, b = b, a
        axis = _channel_of(a, b)
        if axis is None:
            raise ModelError(
                f"{call.where}: {call.full(a)} and {call.full(b)} are not of one shape, and neither has one number per "
                "channel of the other"
            )
        a, numbers = call.real(a), call.vector(call.real(b))
        name, count = f"{call.output}.{'shift' if op == 'multiply' else 'factor'}", a.shape[axis]
        other = Constant(name, np.full(count, 0.0 if op == "multiply" else 1.0))
        return channel_affine(call, a, axis, *_gamma_beta(op, numbers, other))
    if a.is_int8 and b.is_int8 and call.target is not None:
        a, tensor = _together(call, a, b)
        return call.settled(a, _int8_pair(call, op, a.tensor, tensor))
    a, tensor = _together(call, call.real(a), call.real(b))
    return replace(a, tensor=call.emit(op, a.tensor, tensor))


def commutative(op: str) -> Converter:
    """An element-wise operator of two values, or of a value and a constant in either order."""

    def convert(call: Call) -> Value:
        a, b = call.inputs
        if isinstance(a, Constant):
            a, b = b, a
        if isinstance(a, Variable) and isinstance(b, Constant):
            return with_constant(call, op, a, b)
        return pair(call, op, call.variable(0), call.variable(1))

    return convert


def _negated(call: Call, x: Variable, wish: str) -> Variable:
    return with_constant(call, "multiply", x, Constant(f"{call.name}.minus", np.array(-1.0)), wish)


def negate(call: Call) -> Value:
    return _negated(call, call.variable(), "")


def _changed(constant: Constant, function: Callable[[np.ndarray], np.ndarray]) -> Constant:
    with np.errstate(over="ignore"):
        return Constant(constant.name, function(constant.array.astype(np.float64)))


def subtract(call: Call) -> Value:
    a, b = call.inputs
    if isinstance(b, Constant):
        negative = _changed(b, np.negative)
        if b.stored is not None and b.stored.quantization.axis is None:
            q = b.stored.quantization  # -(s - z) = (-1 - s) - (-1 - z), which stays within int8
            turned = Quantization(q.scale, -1 - q.zero_point, None)
            negative = Constant(b.name, negative.array, Stored(-1 - b.stored.array, turned))
        return with_constant(call, "add", call.variable(0), negative)
    negated = _negated(replace(call, target=None), call.variable(1), f"{call.output}.negative")
    if isinstance(a, Constant):
        return with_constant(call, "add", negated, a)
    return pair(call, "add", call.variable(0), negated)


def divide(call: Call) -> Value:
    x, divisor = call.variable(0), call.array(1, "divisor")
    if not divisor.array.all():
        raise ModelError(f"{call.where}: '{divisor.name}' divides by zero")
    return with_constant(call, "multiply", x, _changed(divisor, np.reciprocal))


def activation(op: str, **defaults: float) -> Converter:
    """An operator of one value; ``defaults`` are its attributes in ONNX and here."""

    def convert(call: Call) -> Value:
        given = {name: float(call.attributes.get(name, value)) for name, value in defaults.items()}
        return _activated(call, op, **given)

    return convert


def _activated(call: Call, op: str, **given: Any) -> Variable:
    x = call.variable()
    if x.kind == "settled":  # the operator before has applied it already
        return x
    if x.is_int8 and call.target is not None:
        reference = OPS[op].reference
        return call.settled(x, lookup(call, x, lambda values: reference([values], given)[0], call.target, ""))
    x = call.real(x)
    return replace(x, tensor=call.emit(op, x.tensor, **given))


def clip(call: Call) -> Value:
    """ReLU, ReLU6, or other limits."""
    low, high = clip_limits(call.attributes, call.inputs, call.where)
    kind = clip_kind(low, high)
    if kind == "none":
        return call.variable()
    if kind is not None:
        return _activated(call, kind)
    limits = [float(np.float32(np.clip(limit, -LARGEST_FLOAT, LARGEST_FLOAT))) for limit in (low, high)]
    return _activated(call, "clamp", low=limits[0], high=limits[1])


def softmax(call: Call) -> Value:
    """Over the whole sample. Before opset 13 all dimensions from ``axis`` on count as one."""
    x = call.variable()
    full = call.full(x)
    axis = call.attributes.get("axis", 1 if call.opset < 13 else -1)
    if not -len(full) <= axis < len(full):
        raise ModelError(f"{call.where}: axis {axis} does not fit {full}")
    axis %= len(full)
    together = int(np.prod(full[axis:])) if call.opset < 13 else full[axis]
    if axis == 0 or together != x.tensor.size:
        raise ModelError(f"{call.where}: must span a whole sample; axis {axis} of {full} does not")
    q = activation_quantization(SOFTMAX_SCALE, SOFTMAX_ZERO)
    if x.is_int8 and call.target is not None and call.target.kind == "none" and same(call.target.quantization, q):
        table = call.builder.quantized(f"{call.output}.table", softmax_table(x.quantization), call.where, None)
        return call.settled(x, call.emit("softmax_int8", x.tensor, table, quantization=q))
    x = call.real(x)
    return replace(x, tensor=call.emit("softmax", x.tensor))


def dropout(call: Call) -> Value:
    training = call.input(2)
    if training is not None and (not isinstance(training, Constant) or training.array.any()):
        raise ModelError(f"{call.where}: is in training mode; export the model for inference")
    return call.variable()


def cast(call: Call) -> Value:
    """Nothing is done: all floating-point types become float32, indices are whole numbers in it, int8 stays that."""
    import onnx

    x, target = call.variable(), onnx.TensorProto.DataType.Name(call.attributes["to"])
    if target in ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16"):
        return replace(x, kind="real") if x.kind == "whole" else x
    if x.kind in ("whole", "stored") and target in ("INT32", "INT64"):
        return x
    raise ModelError(f"{call.where}: casts to {target}; only casts between floating-point types are supported")
