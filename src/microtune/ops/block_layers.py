"""Gradients as blocks (see ``blocks``) to the inputs of int8 layers and pools.

A layer's scales, one to an output channel, are folded into the gradient first. ``fold`` is how many digits the product
of the two mantissas loses, so that the longest sum of the layer stays within 2^30.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.block_gradients import block_output
from microtune.ops.blocks import DIGITS, HEAD, ZERO, block_size, divided, mantissas, write
from microtune.ops.op import Attributes, KernelCall, Op, Shape
from microtune.ops.window import window_output, window_sizes, windows

HEADER = "mt_kernels_block_layers.h"
MOST_WINDOWS = 64
Arrays = Sequence[np.ndarray]


def fold_for(terms: int) -> int:
    """Digits that a product of gradient and scale loses where ``terms`` of them times int8 weights are summed."""
    return 2 * DIGITS - min(DIGITS, 23 - math.ceil(math.log2(max(terms, 1))))


def _folded(dy: np.ndarray, scale: np.ndarray, fold: int) -> np.ndarray:
    product = mantissas(dy).reshape(-1, scale.size - HEAD) * mantissas(scale)
    return np.asarray((product + (1 << (fold - 1))) >> fold)


def _exponent(dy: np.ndarray, scale: np.ndarray, fold: int) -> int:
    return int(dy[0]) + int(scale[0]) + fold


def _check(inputs: Sequence[Tensor], outputs: int, positions: int) -> None:
    dy, _, scale = inputs[:3]
    if block_size(scale) != outputs or block_size(dy) != positions * outputs:
        raise ValueError(
            f"takes {positions * outputs} gradients and {outputs} scales, not {block_size(dy)} and {block_size(scale)}"
        )


def _whole_weight(inputs: Arrays, given: Attributes) -> np.ndarray:
    """As int64; a fourth input stands for its channels from ``start`` on, where that is given."""
    weight = inputs[1].astype(np.int64)
    if "start" in given:
        weight[..., given["start"] : given["start"] + inputs[3].shape[-1]] = inputs[3]
    return weight


def _check_learnt(inputs: Sequence[Tensor], given: Attributes) -> None:
    if "start" not in given:
        return
    weight, learnt = inputs[1].shape, inputs[3].shape
    if learnt[:-1] != weight[:-1] or not 0 <= given["start"] <= weight[-1] - learnt[-1]:
        raise ValueError(f"cannot put learnt channels {learnt} at {given['start']} of a weight {weight}")


def _learnt_sizes(node: Node, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """First learnt channel and their number, where there are some."""
    given = node.attributes
    return (int(given["start"]), tensors[node.inputs[3]].shape[-1]) if "start" in given else ()


def _dense_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    _check(inputs, inputs[1].shape[0], 1)
    _check_learnt(inputs, given)
    return ((HEAD + inputs[1].shape[1],),)


def _dense(inputs: Arrays, given: Attributes) -> tuple[np.ndarray, ...]:
    dy, _, scale, *more = inputs
    g = _folded(dy, scale, given["fold"])[0]
    sums, exponent = g @ _whole_weight(inputs, given), _exponent(dy, scale, given["fold"])
    if "low" in given:
        sums = np.where((more[0] > given["low"]) & (more[0] < given["high"]), sums, 0)
    if g.size > 1 or dy[0] == ZERO:
        return (write(sums, exponent),)
    # of a single output the largest is known beforehand, give or take the weights
    return (np.concatenate([[exponent + 7, 0], sums >> 7]).astype(np.int16),)


def _dense_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    outputs, inputs = tensors[node.inputs[1]].shape
    limits = tuple(int(node.attributes[name]) for name in ("low", "high") if name in node.attributes)
    sizes = (*limits, inputs, outputs, int(node.attributes["fold"]), *_learnt_sizes(node, tensors))
    return KernelCall(f"mt_{node.op}", (*node.inputs, node.output, *sizes))


def _kernel_size(weight: Shape) -> Shape:
    """Of a convolution (outputs, kh, kw, channels) or a depthwise one (kh, kw, outputs)."""
    return weight[1:3] if len(weight) == 4 else weight[:2]


def _window_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    weight, x = inputs[1].shape, given["input_shape"]
    size = window_output(x[:2], _kernel_size(weight), given)
    _check(inputs, weight[0] if len(weight) == 4 else weight[2], math.prod(size))
    _check_learnt(inputs, given)
    return ((HEAD + math.prod(x),),)


def _scattered(parts: Callable[[int, int], np.ndarray], kernel: Shape, size: Shape, given: Attributes) -> np.ndarray:
    """dx as the sum of what each tap (i, j) gives: (rows, columns, channels), at the place that the tap reads."""
    (sh, sw), ((top, bottom), (left, right)) = given["stride"], given["padding"]
    height, width, channels = given["input_shape"]
    padded = np.zeros((height + top + bottom, width + left + right, channels), np.int64)
    for i, j in np.ndindex(*kernel):
        padded[i : i + sh * size[0] : sh, j : j + sw * size[1] : sw][: size[0], : size[1]] += parts(i, j)
    return padded[top : top + height, left : left + width]


def _conv2d(inputs: Arrays, given: Attributes) -> tuple[np.ndarray, ...]:
    dy, _, scale = inputs[:3]
    weight = _whole_weight(inputs, given)
    kernel = _kernel_size(weight.shape)
    size = window_output(given["input_shape"][:2], kernel, given)
    g = _folded(dy, scale, given["fold"]).reshape(*size, -1)
    sums = _scattered(lambda i, j: g @ weight[:, i, j], kernel, size, given)
    return (write(sums, _exponent(dy, scale, given["fold"])),)


def _depthwise(inputs: Arrays, given: Attributes) -> tuple[np.ndarray, ...]:
    dy, weight, scale = inputs
    kernel, channels = _kernel_size(weight.shape), given["input_shape"][2]
    size = window_output(given["input_shape"][:2], kernel, given)
    g = _folded(dy, scale, given["fold"]).reshape(*size, -1)
    each = weight.shape[2] // channels
    sums = _scattered(
        lambda i, j: (g * weight[i, j].astype(np.int64)).reshape(*size, channels, each).sum(-1), kernel, size, given
    )
    return (write(sums, _exponent(dy, scale, given["fold"])),)


def _window_kernel(function: str) -> Callable[[Node, Mapping[str, Tensor]], KernelCall]:
    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        weight, given = tensors[node.inputs[1]].shape, node.attributes
        x, taps = given["input_shape"], _kernel_size(weight)
        outputs = weight[0] if len(weight) == 4 else weight[2]
        y = (*window_output(x[:2], taps, given), outputs)
        numbers = (*window_sizes(x, y, taps, given), x[2], outputs, int(given["fold"]))
        return KernelCall(function, (*node.inputs, node.output, *numbers, *_learnt_sizes(node, tensors)))

    return kernel


# Pools


def _global_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    if block_size(inputs[0]) != given["channels"]:
        raise ValueError(f"takes {given['channels']} gradients, not {block_size(inputs[0])}")
    return ((HEAD + given["positions"] * given["channels"],),)


def _global(inputs: Arrays, given: Attributes) -> tuple[np.ndarray, ...]:
    dy, positions = inputs[0], given["positions"]
    return (divided(np.concatenate([dy[:HEAD], np.tile(dy[HEAD:], positions)]), positions),)


def _global_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    numbers = (int(node.attributes["positions"]), int(node.attributes["channels"]))
    return KernelCall("mt_global_average_block_grad", (*node.inputs, node.output, *numbers))


def overlapping(kernel: Sequence[int], stride: Sequence[int]) -> int:
    """How many windows an element can lie in."""
    return math.prod(-(-taps // step) for taps, step in zip(kernel, stride, strict=True))


def average_divisors(kernel: Sequence[int]) -> np.ndarray:
    """2^14 / n for windows of n elements, int16."""
    counts = np.arange(1, math.prod(kernel) + 1)
    return np.concatenate([[0], np.rint(2**14 / counts)]).astype(np.int16)


def _pool_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    x = given["input_shape"]
    size = window_output(x[:2], given["kernel"], given)
    if block_size(inputs[0]) != math.prod(size) * x[2]:
        raise ValueError(f"takes {math.prod(size) * x[2]} gradients, not {block_size(inputs[0])}")
    if overlapping(given["kernel"], given["stride"]) > MOST_WINDOWS:
        raise ValueError(f"adds up {MOST_WINDOWS} windows at most that overlap")
    return ((HEAD + math.prod(x),),)


def _average(inputs: Arrays, given: Attributes) -> tuple[np.ndarray, ...]:
    dy, divisors = inputs
    x = given["input_shape"]
    size = window_output(x[:2], given["kernel"], given)
    counts = windows(np.ones((*x[:2], 1), np.int64), given["kernel"], given, 0).sum((-2, -1))
    parts = (mantissas(dy).reshape(*size, x[2]) * divisors[counts].astype(np.int64) + 16) >> 5
    return (write(_scattered(lambda i, j: parts, given["kernel"], size, given), int(dy[0]) - 9),)


def _maximum(inputs: Arrays, given: Attributes) -> tuple[np.ndarray, ...]:
    dy, x = inputs
    (kh, kw), (sh, sw), ((top, _), (left, _)) = given["kernel"], given["stride"], given["padding"]
    size = window_output(x.shape[:2], given["kernel"], given)
    down = math.ceil(math.log2(overlapping(given["kernel"], given["stride"])))
    g = mantissas(dy).reshape(*size, x.shape[2]) >> down
    dx = np.zeros(x.shape, np.int64)
    for row, column, channel in np.ndindex(g.shape):
        y, across = row * sh - top, column * sw - left
        window = x[max(y, 0) : y + kh, max(across, 0) : across + kw, channel]
        first = np.unravel_index(window.argmax(), window.shape)
        if given["low"] < window[first] < given["high"]:
            dx[max(y, 0) + first[0], max(across, 0) + first[1], channel] += g[row, column, channel]
    return (write(dx, int(dy[0]) + down),)


def _pool_sizes(node: Node) -> tuple[int, ...]:
    given = node.attributes
    x = given["input_shape"]
    y = window_output(x[:2], given["kernel"], given)
    return (*window_sizes(x, y, given["kernel"], given), x[2])


def _average_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    return KernelCall("mt_average_pool2d_block_grad", (*node.inputs, node.output, *_pool_sizes(node)))


def _maximum_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    given = node.attributes
    down = math.ceil(math.log2(overlapping(given["kernel"], given["stride"])))
    limits = (int(given["low"]), int(given["high"]))
    return KernelCall("mt_max_pool2d_block_grad", (*node.inputs, node.output, *limits, *_pool_sizes(node), down))


def _dense_op(name: str, summary: str) -> Op:
    return Op(
        name=name,
        summary=f"dL/dx of dense_int8{summary}",
        shape=_dense_shape,
        reference=_dense,
        kernel=_dense_kernel,
        header=HEADER,
        multiply_adds=lambda inputs, outputs: inputs[1].size,
        dtypes=block_output,
    )


def _conv2d_op(name: str, summary: str) -> Op:
    return Op(
        name=name,
        summary=f"dL/dx of conv2d_int8{summary}",
        shape=_window_shape,
        reference=_conv2d,
        kernel=_window_kernel(f"mt_{name}"),
        header=HEADER,
        multiply_adds=lambda inputs, outputs: inputs[1].size * (block_size(inputs[0]) // inputs[1].shape[0]),
        dtypes=block_output,
    )


OPS = (
    _dense_op("dense_int8_block_grad", ", from a block and the weight's scales"),
    _dense_op("dense_int8_inside_block_grad", " where x, a fourth input, lies strictly between low and high, else 0"),
    _dense_op("dense_int8_learnt_block_grad", " with learnt inputs start.. of the weight"),
    _conv2d_op("conv2d_int8_learnt_block_grad", " with learnt input channels start.. of the weight"),
    _conv2d_op("conv2d_int8_block_grad", ", from a block and the weight's scales"),
    Op(
        name="depthwise_conv2d_int8_block_grad",
        summary="dL/dx of depthwise_conv2d_int8, from a block and the weight's scales",
        shape=_window_shape,
        reference=_depthwise,
        kernel=_window_kernel("mt_depthwise_conv2d_int8_block_grad"),
        header=HEADER,
        multiply_adds=lambda inputs, outputs: block_size(inputs[0]) * math.prod(inputs[1].shape[:2]),
        dtypes=block_output,
    ),
    Op(
        name="global_average_block_grad",
        summary="dL/dx of the mean over positions",
        shape=_global_shape,
        reference=_global,
        kernel=_global_kernel,
        header=HEADER,
        dtypes=block_output,
    ),
    Op(
        name="average_pool2d_block_grad",
        summary="dL/dx of the mean over each window's elements that are no padding; divisors are 2^14 / n",
        shape=_pool_shape,
        reference=_average,
        kernel=_average_kernel,
        header=HEADER,
        dtypes=block_output,
    ),
    Op(
        name="max_pool2d_block_grad",
        summary="dL/dy to the first maximum of each window of x, unless the maximum sits on a limit",
        shape=_pool_shape,
        reference=_maximum,
        kernel=_maximum_kernel,
        header=HEADER,
        dtypes=block_output,
    ),
)
