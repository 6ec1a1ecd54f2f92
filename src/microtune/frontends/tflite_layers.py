"""TFLite's convolutions, dense layers, pools and means, in float and int8."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tflite

from microtune.frontends.tflite_values import Call, Constant, Variable, channel_scales
from microtune.ir import Tensor
from microtune.ops.quantized_build import (
    average_attributes,
    bias_quantization,
    channel_quantization,
    layer_attributes,
    layer_constants,
    pool_attributes,
)

MOST_STRIDE = 1 << 16


def _same(size: int, taps: int, stride: int) -> tuple[int, int]:
    """Padding before and after one axis so that there are ceil(size / stride) windows; the odd one goes behind."""
    total = max((-(-size // stride) - 1) * stride + taps - size, 0)
    return total // 2, total - total // 2


def _geometry(call: Call, kind: str, size: tuple[int, ...], kernel: tuple[int, ...]) -> dict[str, Any]:
    """Attributes ``stride`` and ``padding`` of a window of ``kernel`` over an image of ``size``."""
    stride = (int(call.option(kind, "StrideH")), int(call.option(kind, "StrideW")))
    if any(not 1 <= step <= MOST_STRIDE for step in stride):
        raise call.error(f"has the stride {stride}; steps of 1 and more are needed")
    rule = call.option(kind, "Padding")
    if rule == tflite.Padding.VALID:
        return {"stride": stride, "padding": ((0, 0), (0, 0))}
    if rule != tflite.Padding.SAME:
        raise call.error(f"has padding of the unknown kind {rule}; SAME and VALID are read")
    padding = tuple(_same(*each) for each in zip(size[:2], kernel, stride, strict=True))
    return {"stride": stride, "padding": padding}


def _image(call: Call) -> Tensor:
    x = call.tensor()
    if len(x.shape) != 3:
        raise call.error(f"takes images (height, width, channels) of a batch, not {(call.batch, *x.shape)}")
    return x


def _undilated(call: Call, kind: str) -> None:
    dilation = tuple(call.option(kind, f"Dilation{axis}Factor") for axis in "HW")
    if any(step not in (0, 1) for step in dilation):
        raise call.error(f"has the dilation {dilation}; only 1 is supported. A larger kernel or pooling reaches as far")


def _bias(call: Call, dtype: str, outputs: int) -> np.ndarray | None:
    if call.input(2) is None:
        return None
    bias = call.constant(2, "bias").array
    if str(bias.dtype) != dtype or bias.size != outputs:
        raise call.error(f"its bias must hold {outputs} numbers of {dtype}, not {bias.dtype}{bias.shape}")
    return bias.reshape(-1)


def _layer(
    call: Call, op: str, x: Tensor, weight: Constant, laid_out: tuple[int, ...], axes: tuple[int, int], kind: str,
    **geometry: Any,
) -> Tensor:  # fmt: skip
    """A layer with its weight seen as ``laid_out``. ``axes``: that of the outputs, in the file and in the layout."""
    stored, ours = axes
    outputs, name = laid_out[ours], call.layer_name(weight.stored)
    if x.dtype == "float32":
        # int8 weights under a float layer ("dynamic range") become the real numbers they stand for
        parameters = [call.builder.constant(f"{name}.weight", call.real(weight, stored).reshape(laid_out), call.where)]
        if (bias := _bias(call, "float32", outputs)) is not None:
            parameters.append(call.builder.constant(f"{name}.bias", bias, call.where))
        return call.activated(op, (x, *parameters), kind, name, **geometry)
    if weight.array.dtype != np.int8:
        raise call.error(f"has int8 values but weights of {weight.array.dtype}; convert the whole model to int8")
    return _layer_int8(call, op, x, weight, laid_out, axes, kind, geometry)


def _layer_int8(
    call: Call, op: str, x: Tensor, weight: Constant, laid_out: tuple[int, ...], axes: tuple[int, int], kind: str,
    geometry: dict[str, Any],
) -> Tensor:  # fmt: skip
    stored, ours = axes
    outputs, name = laid_out[ours], call.layer_name(weight.stored)
    scales = channel_scales(weight.stored, stored, outputs, call.where)
    x_q, y_q = x.quantization, call.quantization(call.y)
    assert x_q is not None  # every int8 tensor of the graph came through Call.quantization
    multiplier, shift = layer_constants(x_q, scales, y_q)
    found = _bias(call, "int32", outputs)
    bias = np.zeros(outputs, np.int32) if found is None else found
    build = call.builder
    parameters = (
        build.quantized(
            f"{name}.weight", weight.array.reshape(laid_out), call.where, channel_quantization(scales, ours)
        ),
        build.quantized(f"{name}.bias", bias, call.where, bias_quantization(x_q, scales)),
        build.quantized(f"{name}.multiplier", multiplier, call.where, None),
        build.quantized(f"{name}.shift", shift, call.where, None),
    )
    attributes = {**geometry, **layer_attributes(x_q, y_q, kind)}
    return call.emit(f"{op}_int8", x, *parameters, node=name, quantization=y_q, **attributes)


def convolution(call: Call) -> Variable:
    """CONV_2D: weights (outputs, height, width, channels)."""
    kind = "Conv2DOptions"
    x, weight = _image(call), call.constant(1, "weights")
    if weight.array.ndim != 4:
        raise call.error(f"takes weights (outputs, height, width, channels), not {weight.array.shape}")
    channels = weight.array.shape[3]
    if channels != x.shape[2]:
        if channels and x.shape[2] % channels == 0:
            raise call.error(
                f"is a grouped convolution, {x.shape[2]} channels in groups of {channels}; supported are one group "
                "(CONV_2D) and a group for each channel (DEPTHWISE_CONV_2D)"
            )
        raise call.error(f"has weights of {channels} channels for an input of {x.shape[2]}")
    _undilated(call, kind)
    geometry = _geometry(call, kind, x.shape, weight.array.shape[1:3])
    return Variable(_layer(call, "conv2d", x, weight, weight.array.shape, (0, 0), call.activation(kind), **geometry))


def depthwise(call: Call) -> Variable:
    """DEPTHWISE_CONV_2D: weights (1, height, width, channels * multiplier)."""
    kind = "DepthwiseConv2DOptions"
    x, weight = _image(call), call.constant(1, "weights")
    shape = weight.array.shape
    if len(shape) != 4 or shape[0] != 1 or shape[3] % x.shape[2]:
        raise call.error(f"takes weights (1, height, width, a multiple of {x.shape[2]} channels), not {shape}")
    _undilated(call, kind)
    geometry = _geometry(call, kind, x.shape, shape[1:3])
    return Variable(_layer(call, "depthwise_conv2d", x, weight, shape[1:], (3, 2), call.activation(kind), **geometry))


def dense(call: Call) -> Variable:
    """FULLY_CONNECTED: weights (outputs, inputs), on all of a sample or on each of its positions."""
    kind = "FullyConnectedOptions"
    x, weight = call.tensor(), call.constant(1, "weights")
    if weight.array.ndim != 2:
        raise call.error(f"takes weights (outputs, inputs), not {weight.array.shape}")
    if call.option(kind, "WeightsFormat") != tflite.FullyConnectedOptionsWeightsFormat.DEFAULT:
        raise call.error("has shuffled weights; the default format is supported")
    outputs, inputs = weight.array.shape
    activation, shape = call.activation(kind), call.sample_shape(call.y)
    if x.size == inputs:
        x = call.builder.reshape(x, (inputs,), f"{x.name}.vector", call.where)
        found = _layer(call, "dense", x, weight, (outputs, inputs), (0, 0), activation)
    elif x.shape and x.shape[-1] == inputs:
        # the same layer at every position is a convolution of one tap
        x = call.builder.reshape(x, (1, x.size // inputs, inputs), f"{x.name}.positions", call.where)
        layout, unit = (outputs, 1, 1, inputs), {"stride": (1, 1), "padding": ((0, 0), (0, 0))}
        found = _layer(call, "conv2d", x, weight, layout, (0, 0), activation, **unit)
    else:
        raise call.error(f"has weights for {inputs} inputs, which do not fit {(call.batch, *x.shape)}")
    return Variable(call.builder.reshape(found, shape, found.name, call.where))


def _pool(call: Call, op: str, **extra: Any) -> Variable:
    kind = "Pool2DOptions"
    x = _image(call)
    kernel = (int(call.option(kind, "FilterHeight")), int(call.option(kind, "FilterWidth")))
    if min(kernel) < 1 or max(kernel) > MOST_STRIDE:
        raise call.error(f"has the window {kernel}")
    geometry, activation = _geometry(call, kind, x.shape, kernel), call.activation(kind)
    if x.dtype == "float32":
        return Variable(call.activated(op, (x,), activation, kernel=kernel, **geometry, **extra))
    y_q = call.quantization(call.y)
    if x.quantization is None or (x.quantization.scale, x.quantization.zero_point) != (y_q.scale, y_q.zero_point):
        raise call.error("its input and output have different scales; a pool of int8 must keep the scale")
    limits: dict[str, Any] = pool_attributes(y_q, activation)
    return Variable(call.emit(f"{op}_int8", x, quantization=y_q, kernel=kernel, **geometry, **limits))


def average_pool(call: Call) -> Variable:
    """AVERAGE_POOL_2D; padding does not count."""
    extra = {"include_padding": False} if call.tensor().dtype == "float32" else {}
    return _pool(call, "average_pool2d", **extra)


def max_pool(call: Call) -> Variable:
    """MAX_POOL_2D."""
    return _pool(call, "max_pool2d")


def _without(shape: tuple[int, ...], axes: list[int]) -> list[int]:
    return [axis for axis in range(len(shape)) if axis not in axes]


def mean(call: Call) -> Variable:
    """MEAN over any axes of a sample: they are moved to the front and averaged away."""
    x = call.tensor()
    rank = len(x.shape) + 1
    reduced = sorted({call.sample_axis(axis, rank) for axis in call.integers(1, "axes")})
    kept = _without(x.shape, reduced)
    many = math.prod(x.shape[axis] for axis in reduced)
    shape = call.sample_shape(call.y)
    order = tuple(reduced + kept)
    moved = x
    if [axis for axis in order if x.shape[axis] != 1] != [axis for axis in range(rank - 1) if x.shape[axis] != 1]:
        moved = call.emit("transpose", x, wish=f"{x.name}.turned", quantization=x.quantization, permutation=order)
    moved = call.builder.reshape(moved, (many, x.size // many), f"{x.name}.positions", call.where)
    if x.dtype == "float32":
        found = call.emit("global_average", moved)
    else:
        assert x.quantization is not None
        y_q = call.quantization(call.y)
        attributes: dict[str, Any] = average_attributes(x.quantization, y_q, many)
        found = call.emit("global_average_int8", moved, quantization=y_q, **attributes)
    return Variable(call.builder.reshape(found, shape, found.name, call.where))
