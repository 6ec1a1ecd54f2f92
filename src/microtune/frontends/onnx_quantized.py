"""Models with QuantizeLinear and DequantizeLinear pairs around float operators (QDQ), as int8 operators.

An int8 tensor stands for its real values, so DequantizeLinear adds no node. A layer between int8 tensors whose
result only a QuantizeLinear reads (behind a ReLU or ReLU6 or not) becomes the int8 operator that ends there;
what has no int8 form is computed on real values. uint8 activations are shifted by 128 to int8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from microtune.errors import ModelError
from microtune.frontends.onnx_values import Call, Constant, Stored, Target, Value, Variable
from microtune.ir import Quantization, Tensor
from microtune.ops.quantized_build import (
    ACTIVATIONS,
    activation_quantization,
    bias_quantization,
    channel_quantization,
    layer_attributes,
    layer_constants,
    lookup_table,
)

PASSED = frozenset(("Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"))
"""Operators that may stand between a layer and its QuantizeLinear: they do not change a number."""
MOST_PASSED = 16
LARGEST_FLOAT = float(np.finfo(np.float32).max)


def same(a: Quantization, b: Quantization) -> bool:
    return bool(a.scale == b.scale and a.zero_point == b.zero_point)


def _scale_and_zero(
    where: str, scale: Value | None, zero: Value | None, kind: Any = np.uint8
) -> tuple[np.ndarray, np.ndarray, int]:
    """Scales and zero points, both for signed integers, and what is to be taken off an unsigned one.

    kind: the type of the integers where no zero point tells it.
    """
    if not isinstance(scale, Constant) or not isinstance(zero, Constant | None):
        raise ModelError(f"{where}: its scale and zero point must be constant")
    scales = np.atleast_1d(np.asarray(scale.array, np.float32))
    points = np.zeros(scales.shape, kind) if zero is None else np.atleast_1d(zero.array)
    if points.dtype not in (np.int8, np.uint8, np.int32) or points.shape != scales.shape or scales.ndim > 1:
        raise ModelError(
            f"{where}: integers of the type {points.dtype} with scales {scales.shape} and zero points {points.shape} "
            "are not supported. Supported: int8, uint8 and int32 with a scale per tensor or per channel"
        )
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        raise ModelError(f"{where}: its scale must be above zero")
    shift = 128 if points.dtype == np.uint8 else 0
    return scales, points.astype(np.int32) - shift, shift


def _activation(where: str, scale: Value | None, zero: Value | None) -> Quantization:
    scales, points, _ = _scale_and_zero(where, scale, zero)
    if scales.size != 1 or (isinstance(zero, Constant) and zero.array.dtype == np.int32):
        raise ModelError(f"{where}: an activation takes one scale and a zero point of int8 or uint8")
    return activation_quantization(float(scales[0]), int(points[0]))


def clip_limits(attributes: Mapping[str, Any], inputs: Sequence[Value | None], where: str) -> tuple[float, float]:
    """The limits of Clip; attributes before opset 11 and inputs since; infinite where there is none."""
    limits = [float(attributes.get("min", -np.inf)), float(attributes.get("max", np.inf))]
    for index, value in enumerate(inputs[1:3]):
        if value is not None:
            if not isinstance(value, Constant) or value.array.size != 1:
                raise ModelError(f"{where}: its limits must be constant numbers")
            limits[index] = float(value.array.reshape(()))
    if not limits[0] <= limits[1]:
        raise ModelError(f"{where}: limits {limits[0]:g} and {limits[1]:g} leave no values between them")
    return limits[0], limits[1]


def clip_kind(low: float, high: float) -> str | None:
    """The activation that these limits are."""
    if low == 0 and (high == 6 or high >= LARGEST_FLOAT):
        return "relu6" if high == 6 else "relu"
    return "none" if low <= -LARGEST_FLOAT and high >= LARGEST_FLOAT else None


def target_of(
    name: str, readers: Mapping[str, Sequence[onnx.NodeProto]], values: Mapping[str, Value], outputs: Sequence[str]
) -> Target | None:
    """The QuantizeLinear that alone reads value ``name``, directly or behind one ReLU or ReLU6 and moves."""
    kind = "none"
    for _ in range(MOST_PASSED):
        nodes = readers.get(name, ())
        if len(nodes) != 1 or name in outputs or nodes[0].input[0] != name:
            return None
        node = nodes[0]
        given = [values.get(item) for item in node.input]
        if node.op_type == "QuantizeLinear" and len(node.input) > 1:
            try:
                return Target(_activation("", *[*given, None][1:3]), kind)
            except (ModelError, ValueError):
                return None  # QuantizeLinear itself says what is wrong
        if node.op_type in PASSED:
            name = node.output[0]
            continue
        if kind != "none" or node.op_type not in ("Relu", "Clip"):
            return None
        try:
            attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            found = "relu" if node.op_type == "Relu" else clip_kind(*clip_limits(attributes, given, ""))
        except (ModelError, ValueError):
            return None
        if found is None or any(item and item not in values for item in node.input[1:]):
            return None
        kind, name = found, node.output[0]
    return None


def lookup(call: Call, x: Variable, function: Callable[[np.ndarray], np.ndarray], target: Target, wish: str) -> Tensor:
    """An element-wise function of an int8 tensor, rounded once, into the target's quantisation."""
    low, high = ACTIVATIONS[target.kind]

    def limited(values: np.ndarray) -> np.ndarray:
        limits = (-np.inf if low is None else low, np.inf if high is None else high)
        return np.asarray(np.clip(function(values), *limits))

    with np.errstate(all="ignore"):
        table = np.asarray(lookup_table(limited, x.quantization, target.quantization))
    data = call.builder.quantized(f"{wish or call.output}.table", table, call.where, None)
    return call.emit("lookup_int8", x.tensor, data, wish=wish, quantization=target.quantization)


def requantized(call: Call, x: Variable, target: Target, wish: str) -> Tensor:
    """``x``, an int8 tensor, with another scale."""
    if target.kind == "none" and same(x.quantization, target.quantization):
        return x.tensor
    return lookup(call, x, lambda values: values, target, wish)


def quantize_linear(call: Call) -> Value:
    value = call.input(0)
    if isinstance(value, Constant):
        return _quantized_constant(call, value)
    q = _activation(call.where, call.input(1), call.input(2))
    x = call.variable()
    if x.is_int8:
        return replace(x, tensor=requantized(call, x, Target(q, "none"), ""), kind="stored")
    scale, zero_point = float(q.scale), int(q.zero_point)
    tensor = call.emit("quantize", x.tensor, quantization=q, scale=scale, zero_point=zero_point)
    return replace(x, tensor=tensor, kind="stored")


def _quantized_constant(call: Call, value: Constant) -> Constant:
    scales, points, shift = _scale_and_zero(call.where, call.input(1), call.input(2))
    shape = _spread(call, scales, value.array.ndim)
    zero = call.input(2)
    kind = zero.array.dtype if isinstance(zero, Constant) else np.dtype(np.uint8)
    steps = np.rint(value.array.astype(np.float32) / scales.reshape(shape)) + points.reshape(shape) + shift
    limits = np.iinfo(kind)
    return Constant(value.name, np.clip(steps, limits.min, limits.max).astype(kind))


def _spread(call: Call, scales: np.ndarray, rank: int) -> tuple[int, ...]:
    """The shape in which scales spread over an array: one for all, or along the attribute ``axis``."""
    if call.attributes.get("block_size"):
        raise ModelError(f"{call.where}: scales per block are not supported")
    if scales.size == 1:
        return ()
    axis = int(call.attributes.get("axis", 1))
    if not -rank <= axis < rank:
        raise ModelError(f"{call.where}: axis {axis} does not fit a tensor of {rank} dimensions")
    return tuple(-1 if index == axis % rank else 1 for index in range(rank))


def dequantize_linear(call: Call) -> Value:
    value = call.input(0)
    if isinstance(value, Constant):
        return _dequantized_constant(call, value)
    x = call.variable()
    q = _activation(call.where, call.input(1), call.input(2))
    if x.kind != "stored" or call.input(2) is None or not same(q, x.quantization):
        raise ModelError(f"{call.where}: reads what no QuantizeLinear with the same scale and zero point wrote")
    x = replace(x, kind="real")
    if not call.is_output:
        return x
    return replace(x, tensor=call.emit("dequantize", x.tensor, scale=float(q.scale), zero_point=int(q.zero_point)))


def _dequantized_constant(call: Call, value: Constant) -> Constant:
    """Real values in float64, which holds the product of a 32-bit integer and a scale to the last step."""
    scales, points, shift = _scale_and_zero(call.where, call.input(1), call.input(2), value.array.dtype)
    if value.array.dtype not in (np.int8, np.uint8, np.int32):
        raise ModelError(f"{call.where}: '{value.name}' is of the type {value.array.dtype}, not int8, uint8 or int32")
    shape = _spread(call, scales, value.array.ndim)
    if shape and value.array.shape[shape.index(-1)] != scales.size:
        raise ModelError(f"{call.where}: {scales.size} scales do not fit '{value.name}' {value.array.shape}")
    integers = value.array.astype(np.int32) - (shift if value.array.dtype == np.uint8 else 0)
    real = (integers.astype(np.float64) - points.reshape(shape)) * scales.reshape(shape).astype(np.float64)
    kept = integers.astype(np.int8) if value.array.dtype != np.int32 else integers
    axis = shape.index(-1) if shape else None
    return Constant(value.name, real, Stored(kept, Quantization(scales.reshape(-1), points.reshape(-1), axis)))


def int8_layer(
    call: Call,
    op: str,
    x: Variable,
    tensor: Tensor,
    weight: Constant,
    channel_axis: int,
    turn: Callable[[np.ndarray], np.ndarray],
    turned_axis: int,
    bias: Constant | None,
    **geometry: Any,
) -> Tensor | None:
    """conv2d_int8 and its like, or None where the node is to be computed on real values.

    ``tensor`` is ``x`` as the operator takes it. ``turn`` brings the weight into the form of the operator, its
    output channels from ``channel_axis`` to ``turned_axis``. bias: (O,).
    """
    target, stored = call.target, weight.stored
    if not x.is_int8 or target is None or stored is None or stored.array.dtype != np.int8:
        return None
    q = stored.quantization
    if q.zero_point.any():
        raise ModelError(
            f"{call.where}: the weight '{weight.name}' has zero points other than 0; quantise weights symmetrically "
            "(onnxruntime: weight_type=QuantType.QInt8)"
        )
    if q.axis is not None and q.axis != channel_axis:
        return None
    outputs = weight.array.shape[channel_axis]
    scales = np.broadcast_to(q.scale, (outputs,)).astype(np.float32)
    step = bias_quantization(x.quantization, scales)
    real = np.zeros(outputs) if bias is None else bias.array.astype(np.float64)
    limits = np.iinfo(np.int32)
    with np.errstate(all="ignore"):
        steps = np.nan_to_num(np.rint(real / step.scale.astype(np.float64)))
    integers = np.clip(steps, limits.min, limits.max).astype(np.int32)
    multiplier, shift = layer_constants(x.quantization, scales, target.quantization)
    make = call.builder.quantized
    constants = (
        make(
            weight.name, np.ascontiguousarray(turn(stored.array)), call.where, channel_quantization(scales, turned_axis)
        ),
        make(f"{weight.name}.bias" if bias is None else bias.name, integers, call.where, step),
        make(f"{weight.name}.multiplier", multiplier, call.where, None),
        make(f"{weight.name}.shift", shift, call.where, None),
    )
    limits_of_y: dict[str, Any] = layer_attributes(x.quantization, target.quantization, target.kind)
    return call.emit(op, tensor, *constants, quantization=target.quantization, **geometry, **limits_of_y)
