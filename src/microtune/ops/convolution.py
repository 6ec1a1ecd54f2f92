"""Convolution and depthwise convolution in two dimensions, channels last, with their gradients.

x (H, W, C); weight (O, kh, kw, C), depthwise (kh, kw, C * m), whose output channel c * m + j reads channel c.
A ``*_weight8`` operator computes in float32 with a frozen int8 weight: y = scale * (weight x) + bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.op import Attributes, KernelCall, Op, Shape, Tape
from microtune.ops.window import convolution_multiply_adds, window_output, window_sizes, windows

HEADER = "mt_kernels_conv.h"
DEPTHWISE_HEADER = "mt_kernels_depthwise.h"
BLOCK = 16  # MT_DEPTHWISE_BLOCK of runtime/mt_kernels_depthwise.h
GEOMETRY = ("stride", "padding")


def _kernel_of(weight: Tensor, depthwise: bool) -> Shape:
    return weight.shape[:2] if depthwise else weight.shape[1:3]


def _outputs_of(weight: Tensor, depthwise: bool) -> int:
    return weight.shape[-1] if depthwise else weight.shape[0]


def _check_weight(x: Shape, weight: Tensor, depthwise: bool) -> None:
    wanted = "(kh, kw, C * m)" if depthwise else "(O, kh, kw, C)"
    rank = 3 if depthwise else 4
    fits = len(x) == 3 and len(weight.shape) == rank
    fits = fits and (weight.shape[-1] % x[-1] == 0 if depthwise else weight.shape[-1] == x[-1])
    if not fits:
        raise ValueError(f"takes x (H, W, C) and a weight {wanted}, not {x} and {weight.shape}")


def _shape(depthwise: bool) -> Callable[[Sequence[Tensor], Attributes], tuple[Shape, ...]]:
    def shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
        x, weight, *vectors = inputs
        _check_weight(x.shape, weight, depthwise)
        outputs = _outputs_of(weight, depthwise)
        for vector in vectors:
            if vector.shape != (outputs,):
                raise ValueError(f"takes vectors ({outputs},) beside the weight, not {vector.shape}")
        size = window_output(x.shape[:2], _kernel_of(weight, depthwise), attributes)
        return ((*size, outputs),)

    return shape


def _forward(inputs: Sequence[np.ndarray], attributes: Attributes, depthwise: bool) -> np.ndarray:
    x, weight = inputs
    kernel = weight.shape[:2] if depthwise else weight.shape[1:3]
    seen = windows(x, kernel, attributes, 0)  # (rows, columns, C, kh, kw)
    if depthwise:
        each = np.repeat(seen, weight.shape[-1] // x.shape[-1], axis=2)
        return np.asarray(np.einsum("yxckl,klc->yxc", each, weight, optimize=True))
    return np.asarray(np.tensordot(seen, weight, axes=((2, 3, 4), (3, 1, 2))))


def _sizes(x: Shape, y: Shape, kernel: Shape, attributes: Attributes) -> tuple[int, ...]:
    return (*window_sizes(x, y, kernel, attributes), x[2], y[2])


def _layer(name: str, depthwise: bool, weight8: bool) -> Op:
    def reference(inputs: Sequence[np.ndarray], attributes: Attributes) -> tuple[np.ndarray, ...]:
        x, weight, *vectors = inputs
        if not weight8:
            return (_forward((x, weight), attributes, depthwise) + (vectors[0] if vectors else 0),)
        scale, bias = vectors
        return (scale * _forward((x, weight.astype(x.dtype)), attributes, depthwise) + bias,)

    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        x, weight, y = (tensors[each] for each in (*node.inputs[:2], node.output))
        function = f"mt_{name}" if len(node.inputs) > 2 else f"mt_{name}_linear"
        sizes = _sizes(x.shape, y.shape, _kernel_of(weight, depthwise), node.attributes)
        return KernelCall(function, (*node.inputs, node.output, *sizes))

    def gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
        x, weight, *vectors = node.inputs
        given = {key: node.attributes[key] for key in GEOMETRY}
        found: dict[str, str] = {}
        if tape.wants(x):
            scale = vectors[:1] if weight8 else []
            sizes = {**given, "input_shape": tape.tensor(x).shape}
            found[x] = tape.emit(f"{name}_grad_input", (dy, weight, *scale), f"{x}.grad", sizes)
        if not weight8 and tape.wants(weight):
            taps = {**given, "kernel": _kernel_of(tape.tensor(weight), depthwise)}
            found[weight] = tape.emit(f"{name}_grad_weight", (dy, x), f"{weight}.grad", taps)
        bias = vectors[1:] if weight8 else vectors
        if bias and tape.wants(bias[0]):
            found[bias[0]] = tape.emit("channel_sum", (dy,), f"{bias[0]}.grad")
        return found

    what = "y = scale * (W x) + b with an int8 W" if weight8 else "y = W x + b; without the third input, y = W x"
    return Op(
        name=name,
        summary=f"{'depthwise ' if depthwise else ''}convolution, {what}",
        shape=_shape(depthwise),
        reference=reference,
        kernel=kernel,
        header=DEPTHWISE_HEADER if depthwise else HEADER,
        gradient=gradient,
        multiply_adds=lambda inputs, outputs: convolution_multiply_adds(inputs[1], outputs[0], depthwise),
    )


def _taken_back(dy: np.ndarray, weight: np.ndarray, given: Attributes, depthwise: bool) -> np.ndarray:
    """dL/dx: what each output gives back to the inputs in its window."""
    height, width, channels = given["input_shape"]
    (top, bottom), (left, right) = given["padding"]
    sh, sw = given["stride"]
    padded = np.zeros((height + top + bottom, width + left + right, channels), np.result_type(dy, weight))
    rows, columns = dy.shape[:2]
    kernel = weight.shape[:2] if depthwise else weight.shape[1:3]
    for ky in range(kernel[0]):
        for kx in range(kernel[1]):
            if depthwise:
                part = (dy * weight[ky, kx]).reshape(rows, columns, channels, -1).sum(-1)
            else:
                part = dy @ weight[:, ky, kx]
            padded[ky : ky + sh * rows : sh, kx : kx + sw * columns : sw][:rows, :columns] += part
    return padded[top : top + height, left : left + width]


def _grad_input(name: str, depthwise: bool, weight8: bool) -> Op:
    def workspace(dy: Shape, weight: Tensor, attributes: Attributes) -> Shape | None:
        """Depthwise, and as many elements in as out: the gradient may be written over dy."""
        shape = tuple(attributes["input_shape"])
        if not depthwise or math.prod(dy) != math.prod(shape):
            return None
        if dy == shape and tuple(attributes["stride"]) == (1, 1):
            (top, _), _ = attributes["padding"]
            return (weight.shape[0] - top, shape[1], min(BLOCK, shape[2]))
        return dy

    def shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
        dy, weight, *scale = inputs
        given = tuple(attributes["input_shape"])
        _check_weight(given, weight, depthwise)
        outputs = _outputs_of(weight, depthwise)
        wanted = (*window_output(given[:2], _kernel_of(weight, depthwise), attributes), outputs)
        if dy.shape != wanted or (scale and scale[0].shape != (outputs,)):
            raise ValueError(f"takes dL/dy {wanted} for an input {given}, not {dy.shape}")
        extra = workspace(dy.shape, weight, attributes)
        return (given,) if extra is None else (given, extra)

    def reference(inputs: Sequence[np.ndarray], attributes: Attributes) -> tuple[np.ndarray, ...]:
        dy, weight, *scale = inputs
        real = weight.astype(dy.dtype) if weight8 else weight
        found = _taken_back(dy * scale[0] if scale else dy, real, attributes, depthwise)
        extra = workspace(dy.shape, Tensor("", weight.shape), attributes)
        return (found,) if extra is None else (found, np.zeros(extra, dy.dtype))

    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        dy, weight = (tensors[each] for each in node.inputs[:2])
        given = tuple(node.attributes["input_shape"])
        sizes = _sizes(given, dy.shape, _kernel_of(weight, depthwise), node.attributes)
        function = f"mt_{name}"
        if len(node.outputs) == 2:
            function += "_copied" if tensors[node.outputs[1]].shape == dy.shape != given else "_rows"
            if tuple(node.attributes["stride"]) != (1, 1):
                function = f"mt_{name}_copied"
        return KernelCall(function, (*node.inputs, *node.outputs, *sizes))

    return Op(
        name=name,
        summary="dL/dx of a convolution, from dL/dy",
        shape=shape,
        reference=reference,
        kernel=kernel,
        header=DEPTHWISE_HEADER if depthwise else HEADER,
        in_place=(0,) if depthwise else (),
        multiply_adds=lambda inputs, outputs: convolution_multiply_adds(inputs[1], inputs[0], depthwise),
    )


def _grad_weight(name: str, depthwise: bool) -> Op:
    def shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
        dy, x = inputs
        size = window_output(x.shape[:2], attributes["kernel"], attributes)
        if dy.shape[:2] != size:
            raise ValueError(f"takes dL/dy {size} for an input {x.shape}, not {dy.shape}")
        outputs = dy.shape[2]
        return ((*attributes["kernel"], outputs) if depthwise else (outputs, *attributes["kernel"], x.shape[2]),)

    def reference(inputs: Sequence[np.ndarray], attributes: Attributes) -> tuple[np.ndarray, ...]:
        dy, x = inputs
        return (weight_gradient(dy, x, attributes, depthwise),)

    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        dy, x = (tensors[each] for each in node.inputs)
        sizes = _sizes(x.shape, dy.shape, tuple(node.attributes["kernel"]), node.attributes)
        return KernelCall(f"mt_{name}", (*node.inputs, node.output, *sizes))

    return Op(
        name=name,
        summary="dL/dW of a convolution, from dL/dy and x",
        shape=shape,
        reference=reference,
        kernel=kernel,
        header=DEPTHWISE_HEADER if depthwise else HEADER,
        multiply_adds=lambda inputs, outputs: convolution_multiply_adds(outputs[0], inputs[0], depthwise),
    )


def weight_gradient(dy: np.ndarray, x: np.ndarray, attributes: Attributes, depthwise: bool) -> np.ndarray:
    """dL/dW (O, kh, kw, C), depthwise (kh, kw, C * m)."""
    seen = windows(x, attributes["kernel"], attributes, 0)
    if depthwise:
        each = np.repeat(seen, dy.shape[2] // x.shape[2], axis=2)
        return np.asarray(np.einsum("yxckl,yxc->klc", each, dy, optimize=True))
    return np.asarray(np.tensordot(dy, seen, axes=((0, 1), (0, 1))).transpose(0, 2, 3, 1))


channel_sum = Op(
    name="channel_sum",
    summary="sum over all but the last axis: the gradient of a bias",
    shape=lambda inputs, _: (inputs[0].shape[-1:],),
    reference=lambda inputs, _: (inputs[0].sum(axis=tuple(range(inputs[0].ndim - 1))),),
    kernel=lambda node, tensors: KernelCall(
        "mt_channel_sum",
        (
            *node.inputs,
            node.output,
            tensors[node.inputs[0]].size // tensors[node.output].size,
            tensors[node.output].size,
        ),
    ),
    header=HEADER,
)

OPS = (
    _layer("conv2d", depthwise=False, weight8=False),
    _layer("depthwise_conv2d", depthwise=True, weight8=False),
    _layer("conv2d_weight8", depthwise=False, weight8=True),
    _layer("depthwise_conv2d_weight8", depthwise=True, weight8=True),
    _grad_input("conv2d_grad_input", depthwise=False, weight8=False),
    _grad_input("depthwise_conv2d_grad_input", depthwise=True, weight8=False),
    _grad_input("conv2d_weight8_grad_input", depthwise=False, weight8=True),
    _grad_input("depthwise_conv2d_weight8_grad_input", depthwise=True, weight8=True),
    _grad_weight("conv2d_grad_weight", depthwise=False),
    _grad_weight("depthwise_conv2d_grad_weight", depthwise=True),
    channel_sum,
)
