"""int8 pooling: average and maximum over windows (input and output share a scale), and the mean over positions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.fixed_point import rescale
from microtune.ops.op import Attributes, KernelCall, Op, Shape
from microtune.ops.quantized_gradients import average_pool_gradient, global_average_gradient, max_pool_gradient
from microtune.ops.quantized_layers import MOST_TERMS, check_types, int8_outputs
from microtune.ops.window import window_output, window_sizes, windows

HEADER = "mt_kernels_int8_pool.h"


def _pool_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    check_types(inputs, "int8")
    x = inputs[0].shape
    if len(x) != 3:
        raise ValueError(f"takes an image (H, W, C), not {x}")
    if math.prod(attributes["kernel"]) > MOST_TERMS:
        raise ValueError(f"sums {math.prod(attributes['kernel'])} elements; 32 bits hold {MOST_TERMS}")
    return ((*window_output(x[:2], attributes["kernel"], attributes), x[2]),)


def _pool_kernel(function: str) -> Callable[[Node, Mapping[str, Tensor]], KernelCall]:
    """A call ``function(x, y, window sizes..., channels, low, high)``."""

    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        x, y, given = tensors[node.inputs[0]].shape, tensors[node.output].shape, node.attributes
        sizes = window_sizes(x, y, given["kernel"], given)
        return KernelCall(function, (*node.inputs, node.output, *sizes, x[2], int(given["low"]), int(given["high"])))

    return kernel


def _average(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    x = inputs[0].astype(np.int64)
    sums = windows(x, given["kernel"], given, 0).sum((-2, -1))
    counts = windows(np.ones_like(x), given["kernel"], given, 0).sum((-2, -1))
    # the nearest integer, half away from zero: TFLite adds half of the count, rounded down, to the magnitude
    mean = np.sign(sums) * ((np.abs(sums) + counts // 2) // counts)
    return (np.clip(mean, given["low"], given["high"]).astype(np.int8),)


def _maximum(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    largest = windows(inputs[0].astype(np.int64), given["kernel"], given, -128).max((-2, -1))
    return (np.clip(largest, given["low"], given["high"]).astype(np.int8),)


average_pool2d_int8 = Op(
    name="average_pool2d_int8",
    summary="mean over each window's elements that are no padding, rounded half away from zero",
    shape=_pool_shape,
    reference=_average,
    kernel=_pool_kernel("mt_average_pool2d_int8"),
    header=HEADER,
    gradient=average_pool_gradient,
    dtypes=int8_outputs,
)

max_pool2d_int8 = Op(
    name="max_pool2d_int8",
    summary="largest element of each window",
    shape=_pool_shape,
    reference=_maximum,
    kernel=_pool_kernel("mt_max_pool2d_int8"),
    header=HEADER,
    gradient=max_pool_gradient,
    dtypes=int8_outputs,
)


def _global_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    check_types(inputs, "int8")
    x = inputs[0]
    if len(x.shape) < 2:
        raise ValueError(f"takes positions and channels (..., C), not {x.shape}")
    if x.size // x.shape[-1] > MOST_TERMS:
        raise ValueError(f"sums {x.size // x.shape[-1]} elements; 32 bits hold {MOST_TERMS}")
    return (x.shape[-1:],)


def _global_average(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    sums = (inputs[0].astype(np.int64) - given["x_zero"]).reshape(-1, inputs[0].shape[-1]).sum(0)
    y = given["y_zero"] + rescale(sums, given["y_multiplier"], given["y_shift"])
    return (np.clip(y, given["low"], given["high"]).astype(np.int8),)


def _global_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    x, given = tensors[node.inputs[0]], node.attributes
    channels = x.shape[-1]
    numbers = (int(given[name]) for name in ("x_zero", "y_zero", "y_multiplier", "y_shift", "low", "high"))
    return KernelCall("mt_global_average_int8", (*node.inputs, node.output, x.size // channels, channels, *numbers))


global_average_int8 = Op(
    name="global_average_int8",
    summary="mean over all but the last axis, rescaled; y_multiplier holds 1 / positions",
    shape=_global_shape,
    reference=_global_average,
    kernel=_global_kernel,
    header=HEADER,
    gradient=global_average_gradient,
    dtypes=int8_outputs,
)

OPS = (average_pool2d_int8, max_pool2d_int8, global_average_int8)
