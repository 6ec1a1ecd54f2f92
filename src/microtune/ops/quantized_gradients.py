"""Gradients through int8 operators: the rules, and the operators they emit beside the float ones.

The gradient of an int8 tensor is a float32 tensor of its shape, in units of the real value it stands for. Rounding
counts as the identity (straight-through: Bengio, Leonard and Courville 2013). Where an output sits on a limit of its
clamp, nothing passes: a mask of one bit per element, made from the output, so that the output need not be kept.

``quantized_layers``, ``quantized_elementwise`` and ``quantized_pooling`` name these rules in their declarations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Quantization, Tensor
from microtune.ops.op import Attributes, KernelCall, Op, Shape, Tape
from microtune.ops.quantized_functions import lookup_slopes

HEADER = "mt_kernels_int8_grad.h"
GEOMETRY = ("stride", "padding")

# {layer: (gradient to its input, the same with learnt channels, gradient to its weight)}
LAYERS: Mapping[str, tuple[str, str | None, str]] = {
    "conv2d_int8": ("conv2d_weight8_grad_input", "conv2d_int8_learnt_grad_input", "conv2d_int8_grad_weight"),
    "depthwise_conv2d_int8": ("depthwise_conv2d_weight8_grad_input", None, "depthwise_conv2d_int8_grad_weight"),
    "dense_int8": ("dense_weight8_grad_input", "dense_int8_learnt_grad_input", "dense_int8_grad_weight"),
}


def quantization_of(tape: Tape, name: str) -> Quantization:
    """The scale and zero point a rule needs. Raises ValueError if the tensor has none."""
    found = tape.tensor(name).quantization
    if found is None:
        raise ValueError(f"'{name}' has no quantisation: its real value, and so its gradient, is not known")
    return found


def _masked(tape: Tape, node: Node, dy: str) -> str:
    """The gradient of the output, zero where the output sits on a limit."""
    limits = {name: int(node.attributes.get(name, beyond)) for name, beyond in (("low", -128), ("high", 127))}
    mask = tape.emit("saturation_mask", (node.output,), f"{node.output}.mask", limits)
    return tape.emit("saturation_grad", (dy, mask), f"{node.output}.inner_grad")


def layer_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    """Of conv2d_int8, depthwise_conv2d_int8 and dense_int8; a sixth input is the learnt part of the weight."""
    x, weight, bias = node.inputs[:3]
    to_input, to_input_learnt, to_weight = LAYERS[node.op]
    geometry: dict[str, Any] = {name: node.attributes[name] for name in GEOMETRY if name in node.attributes}
    g = _masked(tape, node, dy)
    found: dict[str, str] = {}
    if tape.wants(x):
        scale = tape.constant(f"{weight}.scale", np.asarray(quantization_of(tape, weight).scale, np.float32))
        sizes = {**geometry, "input_shape": tape.tensor(x).shape} if geometry else {}
        learnt = node.inputs[5:]
        if learnt:
            sizes["start"] = node.attributes["start"]
        op = to_input_learnt if learnt and to_input_learnt else to_input
        found[x] = tape.emit(op, (g, weight, scale, *learnt), f"{x}.grad", sizes)
    for trained in (weight, *node.inputs[5:]):
        if tape.wants(trained):
            shape = tape.tensor(trained).shape
            given: dict[str, Any] = {"x_scale": float(quantization_of(tape, x).scale)}
            given["x_zero"] = int(node.attributes["x_zero"])
            if node.op == "conv2d_int8":
                given |= {"kernel": shape[1:3]}
            if node.op == "depthwise_conv2d_int8":
                given |= {"kernel": shape[:2]}
            else:
                start = node.attributes["start"] if trained != weight else 0
                given |= {"start": start, "channels": shape[-1]}
            found[trained] = tape.emit(to_weight, (g, x), f"{trained}.grad", {**given, **geometry})
    if tape.wants(bias):
        found[bias] = g if node.op == "dense_int8" else tape.emit("channel_sum", (g,), f"{bias}.grad")
    return found


def add_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    """Of add_int8: both inputs get the gradient of the output."""
    a, b = node.inputs
    g = _masked(tape, node, dy)
    if a == b:
        return {a: tape.emit("add", (g, g), f"{a}.grad")}
    return {name: g for name in node.inputs if tape.wants(name)}


def multiply_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    """Of multiply_int8: each input gets the gradient times the real value of the other."""
    a, b = node.inputs
    g = _masked(tape, node, dy)

    def times(other: str, zero: str, wish: str) -> str:
        real = {"scale": float(quantization_of(tape, other).scale), "zero_point": int(node.attributes[zero])}
        return tape.emit("multiply_int8_grad", (g, other), wish, real)

    if a == b:
        half = times(a, "a_zero", f"{a}.half_grad")
        return {a: tape.emit("add", (half, half), f"{a}.grad")}
    found = {}
    if tape.wants(a):
        found[a] = times(b, "b_zero", f"{a}.grad")
    if tape.wants(b):
        found[b] = times(a, "a_zero", f"{b}.grad")
    return found


def channel_scale_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    """Of channel_scale_int8, whose gains are constants here."""
    if tape.wants(node.inputs[1]):
        raise ValueError("int8 gains learn with precision='float32' or 'int8'")
    return multiply_gradient(tape, node, dy)


def average_pool_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    """Of average_pool2d_int8, whose input and output share a scale."""
    x = node.inputs[0]
    geometry = {name: node.attributes[name] for name in ("kernel", *GEOMETRY)}
    given = {**geometry, "include_padding": False, "input_shape": tape.tensor(x).shape}
    return {x: tape.emit("average_pool2d_grad", (_masked(tape, node, dy),), f"{x}.grad", given)}


def max_pool_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    """Of max_pool2d_int8: to the first maximum, found again in the input; nothing from a limit."""
    x = node.inputs[0]
    return {x: tape.emit("max_pool2d_int8_grad", (dy, x), f"{x}.grad", node.attributes)}


def global_average_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    """Of global_average_int8."""
    x = node.inputs[0]
    given = {"input_shape": tape.tensor(x).shape}
    return {x: tape.emit("global_average_grad", (_masked(tape, node, dy),), f"{x}.grad", given)}


def softmax_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    """Of softmax_int8, through the real value of its output."""
    x = node.inputs[0]
    y = tape.emit("dequantize", (node.output,), f"{node.output}.real", {"scale": 1 / 256, "zero_point": -128})
    return {x: tape.emit("softmax_grad", (dy, y), f"{x}.grad")}


def lookup_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    """Of lookup_int8: the derivative of its function at each of the 256 values (see ``lookup_slopes``)."""
    x, table = node.inputs
    x_q, y_q = quantization_of(tape, x), quantization_of(tape, node.output)
    data = tape.tensor(table).data
    if data is None:
        raise ValueError(f"the table '{table}' is not a constant: its slopes are not known")
    slopes = tape.constant(f"{node.output}.slopes", lookup_slopes(data, x_q, y_q))
    return {x: tape.emit("lookup_int8_grad", (dy, x, slopes), f"{x}.grad")}


def quantize_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    """Of quantize: straight through, but for what saturates."""
    return {node.inputs[0]: _masked(tape, node, dy)}


def dequantize_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    """Of dequantize: gradients are in real units on both sides."""
    return {node.inputs[0]: dy}


# Operators


def _as_first(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    return (inputs[0].shape,)


def _as_second(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    return (inputs[1].shape,)


def _call(function: str, *names: str, by_input: bool = False) -> Callable[[Node, Mapping[str, Tensor]], KernelCall]:
    """A call ``function(inputs..., output, attributes named here..., size)``; size of the input or the output."""

    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        size = tensors[node.inputs[0] if by_input else node.output].size
        return KernelCall(function, (*node.inputs, node.output, *(node.attributes[name] for name in names), size))

    return kernel


def _same_size(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    dy, other = inputs[:2]
    if dy.shape != other.shape:
        raise ValueError(f"takes a gradient of the shape {other.shape}, not {dy.shape}")
    return (dy.shape,)


def _mask(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    inside = (inputs[0] > given["low"]) & (inputs[0] < given["high"])
    return (np.packbits(inside.ravel(), bitorder="little").view(np.int8),)


def _mask_gradient(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    dy, mask = inputs
    inside = np.unpackbits(mask.view(np.uint8), count=dy.size, bitorder="little").reshape(dy.shape)
    return (np.where(inside, dy, np.zeros_like(dy)),)


saturation_mask = Op(
    name="saturation_mask",
    summary="one bit per element, eight to a byte: set where y lies strictly between low and high",
    shape=lambda inputs, _: (((inputs[0].size + 7) // 8,),),
    reference=_mask,
    kernel=_call("mt_saturation_mask", "low", "high", by_input=True),
    header=HEADER,
    dtypes=lambda inputs, _: ("int8",),
)

saturation_grad = Op(
    name="saturation_grad",
    summary="dL/dy where the mask lets it pass, else 0",
    shape=_as_first,
    reference=_mask_gradient,
    kernel=_call("mt_saturation_grad"),
    header=HEADER,
    in_place=(0,),
)

multiply_int8_grad = Op(
    name="multiply_int8_grad",
    summary="dL/dy times the real value of the other factor, scale (q - zero_point)",
    shape=_same_size,
    reference=lambda inputs, given: (
        inputs[0] * (given["scale"] * (inputs[1].astype(inputs[0].dtype) - given["zero_point"])),
    ),
    kernel=_call("mt_multiply_int8_grad", "scale", "zero_point"),
    header=HEADER,
    in_place=(0,),
    multiply_adds=lambda inputs, outputs: inputs[0].size,
)

lookup_int8_grad = Op(
    name="lookup_int8_grad",
    summary="dL/dy slopes[x + 128]",
    shape=_same_size,
    reference=lambda inputs, _: (inputs[0] * inputs[2][inputs[1].astype(np.int64) + 128],),
    kernel=_call("mt_lookup_int8_grad"),
    header=HEADER,
    in_place=(0,),
    multiply_adds=lambda inputs, outputs: inputs[0].size,
)


def _max_pool(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    dy, x = inputs
    dx = np.zeros(x.shape, dy.dtype)
    (kh, kw), (sh, sw), ((top, _), (left, _)) = given["kernel"], given["stride"], given["padding"]
    for row, column, channel in np.ndindex(dy.shape):
        y, across = row * sh - top, column * sw - left
        window = x[max(y, 0) : y + kh, max(across, 0) : across + kw, channel]
        first = np.unravel_index(window.argmax(), window.shape)
        if given["low"] < window[first] < given["high"]:
            dx[max(y, 0) + first[0], max(across, 0) + first[1], channel] += dy[row, column, channel]
    return (dx,)


def _max_pool_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    dy, x, given = tensors[node.inputs[0]].shape, tensors[node.inputs[1]].shape, node.attributes
    (top, _), (left, _) = given["padding"]
    sizes = (*x[:2], *dy[:2], *given["kernel"], *given["stride"], top, left, x[2])
    return KernelCall("mt_max_pool2d_int8_grad", (*node.inputs, node.output, given["low"], given["high"], *sizes))


max_pool2d_int8_grad = Op(
    name="max_pool2d_int8_grad",
    summary="dL/dy to the first maximum of each window of x, unless the maximum sits on a limit",
    shape=_as_second,
    reference=_max_pool,
    kernel=_max_pool_kernel,
    header=HEADER,
)

OPS = (saturation_mask, saturation_grad, multiply_int8_grad, lookup_int8_grad, max_pool2d_int8_grad)
