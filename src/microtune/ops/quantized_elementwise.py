"""int8 arithmetic element by element, tables of 256 values, softmax, and the doors between float32 and int8."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.fixed_point import INT8, rescale, round_half_away
from microtune.ops.op import Attributes, KernelCall, Op, Shape
from microtune.ops.quantized_gradients import (
    add_gradient,
    channel_scale_gradient,
    dequantize_gradient,
    lookup_gradient,
    multiply_gradient,
    quantize_gradient,
    softmax_gradient,
)
from microtune.ops.quantized_layers import check_types, int8_outputs

HEADER = "mt_kernels_int8_elementwise.h"


def _same_shape(*dtypes: str) -> Callable[[Sequence[Tensor], Attributes], tuple[Shape, ...]]:
    """The shape rule of operators that take tensors of these types and of one shape."""

    def shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
        check_types(inputs, *dtypes)
        if len({tensor.shape for tensor in inputs}) != 1:
            raise ValueError(f"takes tensors of one shape, not {', '.join(str(tensor.shape) for tensor in inputs)}")
        return (inputs[0].shape,)

    return shape


def _with_table(dtype: str) -> Callable[[Sequence[Tensor], Attributes], tuple[Shape, ...]]:
    """The shape rule of operators that take an int8 tensor and a table."""

    def shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
        check_types(inputs, "int8", dtype)
        if inputs[1].shape != (256,):
            raise ValueError(f"takes a table (256,), not {inputs[1].shape}")
        return (inputs[0].shape,)

    return shape


def _kernel(function: str, *names: str) -> Callable[[Node, Mapping[str, Tensor]], KernelCall]:
    """A call ``function(inputs..., output, integer attributes named here..., size)``."""

    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        extra = tuple(int(node.attributes[name]) for name in names)
        return KernelCall(function, (*node.inputs, node.output, *extra, tensors[node.output].size))

    return kernel


def _crossing(function: str) -> Callable[[Node, Mapping[str, Tensor]], KernelCall]:
    """A call ``function(input, output, scale, zero point, size)``."""

    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        scale, zero_point = float(node.attributes["scale"]), int(node.attributes["zero_point"])
        return KernelCall(function, (*node.inputs, node.output, scale, zero_point, tensors[node.output].size))

    return kernel


def _quantize(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    x = inputs[0].astype(np.float32)
    with np.errstate(over="ignore"):
        # beyond 512 steps all is saturated; NaN counts as zero
        steps = np.clip(np.where(np.isnan(x), np.float32(0), x) / np.float32(given["scale"]), -512, 512)
    stored = round_half_away(steps).astype(np.int64) + given["zero_point"]
    return (np.clip(stored, INT8.min, INT8.max).astype(np.int8),)


def _dequantize(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    return (np.float32(given["scale"]) * (inputs[0].astype(np.int32) - given["zero_point"]).astype(np.float32),)


quantize = Op(
    name="quantize",
    summary="int8 of float32: x / scale rounded half away from zero, plus zero_point, saturated; NaN as zero",
    shape=_same_shape("float32"),
    reference=_quantize,
    kernel=_crossing("mt_quantize_int8"),
    header=HEADER,
    gradient=quantize_gradient,
    dtypes=int8_outputs,
)

dequantize = Op(
    name="dequantize",
    summary="float32 of int8: scale * (x - zero_point)",
    shape=_same_shape("int8"),
    reference=_dequantize,
    kernel=_crossing("mt_dequantize_int8"),
    header=HEADER,
    gradient=dequantize_gradient,
)


def _clamped(y: np.ndarray, given: Attributes) -> np.ndarray:
    return np.asarray(np.clip(given["y_zero"] + y, given["low"], given["high"]), np.int8)


def _add_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    # then each scaled input is below 2^29 and so their sum in 32 bits
    if not 0 <= given["left_shift"] <= 21 or max(given["a_shift"], given["b_shift"]) > 0:
        raise ValueError(
            f"takes a left_shift of 0 to 21 and input factors below 1, not {given['left_shift']} and shifts of "
            f"{given['a_shift']} and {given['b_shift']}"
        )
    return _same_shape("int8", "int8")(inputs, given)


def _add(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    a, b = (
        rescale(
            (array.astype(np.int64) - given[f"{name}_zero"]) << given["left_shift"],
            given[f"{name}_multiplier"],
            given[f"{name}_shift"],
        )
        for name, array in zip("ab", inputs, strict=True)
    )
    return (_clamped(rescale(a + b, given["y_multiplier"], given["y_shift"]), given),)


def _multiply(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    product = (inputs[0].astype(np.int64) - given["a_zero"]) * (inputs[1].astype(np.int64) - given["b_zero"])
    return (_clamped(rescale(product, given["y_multiplier"], given["y_shift"]), given),)


add_int8 = Op(
    name="add_int8",
    summary="a + b, each brought to the scale of the larger one times 2^left_shift",
    shape=_add_shape,
    reference=_add,
    kernel=_kernel(
        "mt_add_int8", "a_zero", "b_zero", "y_zero", "left_shift", "a_multiplier", "a_shift", "b_multiplier", "b_shift",
        "y_multiplier", "y_shift", "low", "high",
    ),
    header=HEADER,
    gradient=add_gradient,
    in_place=(0, 1),
    dtypes=int8_outputs,
)  # fmt: skip

multiply_int8 = Op(
    name="multiply_int8",
    summary="a * b",
    shape=_same_shape("int8", "int8"),
    reference=_multiply,
    kernel=_kernel("mt_multiply_int8", "a_zero", "b_zero", "y_zero", "y_multiplier", "y_shift", "low", "high"),
    header=HEADER,
    gradient=multiply_gradient,
    in_place=(0, 1),
    multiply_adds=lambda inputs, outputs: inputs[0].size,
    dtypes=int8_outputs,
)

channel_scale_int8 = replace(
    multiply_int8,
    name="channel_scale_int8",
    summary="gamma x, a gain of each input",
    gradient=channel_scale_gradient,
    in_place=(0,),
)


def _softmax(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    x, table = inputs[0].astype(np.int64), inputs[1].astype(np.float32)
    powers = table[x.max() - x]
    # one after the other, as in C: numpy's own sum adds in pairs
    total = np.add.accumulate(powers.ravel(), dtype=np.float32)[-1]
    inverse = np.float32(1) / (total * np.float32(1 / 256))
    steps = round_half_away(powers * inverse).astype(np.int64)
    return (np.clip(steps - 128, INT8.min, INT8.max).astype(np.int8),)


softmax_int8 = Op(
    name="softmax_int8",
    summary="softmax over all elements, in steps of 1 / 256 from -128; table[i] is exp(-i x_scale beta)",
    shape=_with_table("float32"),
    reference=_softmax,
    kernel=_kernel("mt_softmax_int8"),
    header=HEADER,
    gradient=softmax_gradient,
    in_place=(0,),
    dtypes=int8_outputs,
)

lookup_int8 = Op(
    name="lookup_int8",
    summary="table[x + 128], for any function of one value",
    shape=_with_table("int8"),
    reference=lambda inputs, _: (inputs[1][inputs[0].astype(np.int64) + 128],),
    kernel=_kernel("mt_lookup_int8"),
    header=HEADER,
    gradient=lookup_gradient,
    in_place=(0,),
    dtypes=int8_outputs,
)

OPS = (quantize, dequantize, add_int8, multiply_int8, channel_scale_int8, softmax_int8, lookup_int8)
