"""Pooling over windows and over all positions, channels last, with gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.op import Attributes, KernelCall, Op, Shape, Tape
from microtune.ops.window import window_output, window_sizes, windows

HEADER = "mt_kernels_pool.h"


def _pooled(x: Shape, attributes: Attributes) -> Shape:
    if len(x) != 3:
        raise ValueError(f"takes an image (H, W, C), not {x}")
    return (*window_output(x[:2], attributes["kernel"], attributes), x[2])


def _taken_back(image: Shape, attributes: Attributes, share: Callable[[int, int], np.ndarray]) -> np.ndarray:
    """dL/dx, where ``share(row, column)`` of the window (rows, columns, C) goes to that place of each window."""
    (top, bottom), (left, right) = attributes["padding"]
    (sh, sw), (kh, kw) = attributes["stride"], attributes["kernel"]
    rows, columns, _ = _pooled(image, attributes)
    first = share(0, 0)
    padded = np.zeros((image[0] + top + bottom, image[1] + left + right, image[2]), first.dtype)
    for ky in range(kh):
        for kx in range(kw):
            seen = padded[ky : ky + sh * rows : sh, kx : kx + sw * columns : sw][:rows, :columns]
            seen += share(ky, kx)
    return padded[top : top + image[0], left : left + image[1]]


def _counts(image: Shape, attributes: Attributes) -> np.ndarray:
    """Elements that a mean is over, (rows, columns, 1)."""
    if attributes["include_padding"]:
        return np.array(math.prod(attributes["kernel"]))
    return np.asarray(windows(np.ones((*image[:2], 1)), attributes["kernel"], attributes, 0).sum((-2, -1)))


def _average(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    x = inputs[0]
    return ((windows(x, given["kernel"], given, 0).sum((-2, -1)) / _counts(x.shape, given)).astype(x.dtype),)


def _average_grad(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    image = tuple(given["input_shape"])
    share = (inputs[0] / _counts(image, given)).astype(inputs[0].dtype)
    return (_taken_back(image, given, lambda row, column: share),)


def _maximum(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    # what lies outside must not win: no finite value is below it
    x = inputs[0]
    padded = np.pad(x, (*given["padding"], (0, 0)), constant_values=-np.inf)
    unpadded = {**given, "padding": ((0, 0), (0, 0))}
    return (windows(padded, given["kernel"], unpadded, 0).max((-2, -1)),)


def _maximum_grad(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    dy, x, y = inputs
    padded = np.pad(x, (*given["padding"], (0, 0)), constant_values=-np.inf)
    seen = windows(padded, given["kernel"], {**given, "padding": ((0, 0), (0, 0))}, 0)
    first = (seen == y[..., None, None]).reshape(*y.shape, -1).argmax(-1)
    columns = given["kernel"][1]
    return (_taken_back(x.shape, given, lambda ky, kx: np.where(first == ky * columns + kx, dy, 0).astype(dy.dtype)),)


def _pool_kernel(function: str, image: int, whole: bool) -> Callable[[Node, Mapping[str, Tensor]], KernelCall]:
    """A call ``function(inputs..., output, sizes...)``; the image is the output where ``image`` is -1."""

    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        given = node.attributes
        x = tensors[node.output if image < 0 else node.inputs[image]].shape
        sizes = window_sizes(x, _pooled(x, given), given["kernel"], given)
        extra = (int(given["include_padding"]),) if whole else ()
        return KernelCall(function, (*node.inputs, node.output, *sizes, x[2], *extra))

    return kernel


def _average_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    x = node.inputs[0]
    given = {**node.attributes, "input_shape": tape.tensor(x).shape}
    return {x: tape.emit("average_pool2d_grad", (dy,), f"{x}.grad", given)} if tape.wants(x) else {}


def _maximum_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    x = node.inputs[0]
    found = tape.emit("max_pool2d_grad", (dy, x, node.output), f"{x}.grad", node.attributes) if tape.wants(x) else None
    return {x: found} if found else {}


def _global_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    x = node.inputs[0]
    given = {"input_shape": tape.tensor(x).shape}
    return {x: tape.emit("global_average_grad", (dy,), f"{x}.grad", given)} if tape.wants(x) else {}


def _global_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    if len(inputs[0].shape) < 2:
        raise ValueError(f"takes positions and channels (..., C), not {inputs[0].shape}")
    return (inputs[0].shape[-1:],)


def _global_kernel(function: str, image: int) -> Callable[[Node, Mapping[str, Tensor]], KernelCall]:
    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        x = tensors[node.output if image < 0 else node.inputs[image]]
        return KernelCall(function, (*node.inputs, node.output, x.size // x.shape[-1], x.shape[-1]))

    return kernel


def _back_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    image = tuple(attributes["input_shape"])
    if inputs[0].shape != _pooled(image, attributes):
        raise ValueError(f"takes dL/dy {_pooled(image, attributes)} for an input {image}, not {inputs[0].shape}")
    return (image,)


OPS = (
    Op(
        "average_pool2d",
        "mean of each window; include_padding: over the padding's zeros too",
        lambda inputs, given: (_pooled(inputs[0].shape, given),),
        _average,
        _pool_kernel("mt_average_pool2d", 0, whole=True),
        HEADER,
        _average_gradient,
    ),
    Op(
        "average_pool2d_grad",
        "dL/dx of average_pool2d, from dL/dy",
        _back_shape,
        _average_grad,
        _pool_kernel("mt_average_pool2d_grad", -1, whole=True),
        HEADER,
    ),
    Op(
        "max_pool2d",
        "maximum of each window",
        lambda inputs, given: (_pooled(inputs[0].shape, given),),
        _maximum,
        _pool_kernel("mt_max_pool2d", 0, whole=False),
        HEADER,
        _maximum_gradient,
    ),
    Op(
        "max_pool2d_grad",
        "dL/dy to the first maximum of each window, from dL/dy, x and y",
        lambda inputs, given: (inputs[1].shape,),
        _maximum_grad,
        _pool_kernel("mt_max_pool2d_grad", 1, whole=False),
        HEADER,
    ),
    Op(
        "global_average",
        "mean over all but the last axis",
        _global_shape,
        lambda inputs, _: (inputs[0].mean(axis=tuple(range(inputs[0].ndim - 1))),),
        _global_kernel("mt_global_average", 0),
        HEADER,
        _global_gradient,
    ),
    Op(
        "global_average_grad",
        "dL/dx of global_average, from dL/dy",
        lambda inputs, given: (tuple(given["input_shape"]),),
        lambda inputs, given: (
            np.broadcast_to(inputs[0] / math.prod(given["input_shape"][:-1]), given["input_shape"]).copy(),
        ),
        _global_kernel("mt_global_average_grad", -1),
        HEADER,
    ),
)
