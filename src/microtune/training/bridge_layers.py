"""How ``to_torch`` writes layers that have weights, and windows that slide over an image."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from microtune.errors import ModelError
from microtune.ir import Node
from microtune.ops.quantized_build import channel_quantization, dequantize_array
from microtune.training.bridge_writer import FIRST, Writer

LOWEST = -1e30
"""Pads a maximum: below every value, and finite, since files of weights hold finite numbers."""


def _fill(layer: Any, weight: np.ndarray, bias: np.ndarray | None) -> Any:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(np.ascontiguousarray(weight)))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


def _weights(writer: Writer, node: Node, axis: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Weight and bias of a layer; an int8 weight in real numbers."""
    arrays = [writer.constant(node, position) for position in range(1, len(node.inputs))]
    if node.op.endswith("_weight8"):
        return dequantize_array(arrays[0], channel_quantization(arrays[1], axis)), arrays[2]
    return arrays[0], arrays[1] if len(arrays) == 2 else None


def dense(writer: Writer, node: Node) -> None:
    weight, bias = _weights(writer, node, 0)
    outputs, inputs = weight.shape
    layer = _fill(nn.Linear(inputs, outputs, bias is not None), weight, bias)
    writer.keep(node, writer.layer(node, layer, writer.plain(node.inputs[0])))


def _padded(writer: Writer, node: Node, x: fx.Node, value: float) -> tuple[fx.Node, tuple[int, int]]:
    """The image, and the padding left to the layer: PyTorch's layers pad both ends of an axis alike."""
    (top, bottom), (left, right) = node.attributes["padding"]
    rows, columns = node.attributes.get("kernel", (2 * top, 2 * left))  # a pool pads by half its window at most
    if top == bottom <= rows // 2 and left == right <= columns // 2:
        return x, (top, left)
    return writer.layer(node, nn.ConstantPad2d((left, right, top, bottom), value), x, "_pad"), (0, 0)


def convolution(writer: Writer, node: Node) -> None:
    depthwise = node.op.startswith("depthwise")
    weight, bias = _weights(writer, node, 2 if depthwise else 0)
    shaped = weight.transpose(2, 0, 1)[:, None] if depthwise else weight.transpose(0, 3, 1, 2)
    x, padding = _padded(writer, node, writer.image(node.inputs[0]), 0.0)
    channels = writer.shape(node.inputs[0])[-1]
    layer = nn.Conv2d(
        channels,
        len(shaped),
        shaped.shape[2:],
        stride=tuple(node.attributes["stride"]),
        padding=padding,
        groups=channels if depthwise else 1,
        bias=bias is not None,
    )
    writer.keep(node, writer.layer(node, _fill(layer, shaped, bias), x), FIRST)


def channel_affine(writer: Writer, node: Node) -> None:
    """A depthwise convolution of one element per channel."""
    if any(not writer.graph.tensor(name).is_constant for name in node.inputs[1:]):
        _computed_affine(writer, node)
        return
    gamma, beta = writer.constant(node, 1), writer.constant(node, 2)
    layer = _fill(nn.Conv2d(len(gamma), len(gamma), 1, groups=len(gamma)), gamma.reshape(-1, 1, 1, 1), beta)
    rank = len(writer.shape(node.inputs[0]))
    if rank == 3:
        writer.keep(node, writer.layer(node, layer, writer.image(node.inputs[0])), FIRST)
        return
    if rank > 3:
        raise ModelError(f"node '{node.name}' (channel_affine): has {rank} axes; to_torch takes 1 to 3")
    x = writer.plain(node.inputs[0])
    x = writer.method("permute", x, 0, 2, 1) if rank == 2 else writer.method("unsqueeze", x, -1)
    y = writer.method("squeeze", writer.layer(node, layer, writer.method("unsqueeze", x, -1)), -1)
    writer.keep(node, *((y, (1, 0)) if rank == 2 else (writer.method("squeeze", y, -1),)))


def _computed_affine(writer: Writer, node: Node) -> None:
    """A factor or shift for each channel that the graph computes, as in squeeze and excitation."""
    rank = len(writer.shape(node.inputs[0]))
    axes = FIRST if rank == 3 else tuple(range(rank))
    y = writer.moved(writer.read(node.inputs[0]), axes)
    for name, neutral, function in zip(node.inputs[1:], (1.0, 0.0), (operator.mul, operator.add), strict=True):
        data = writer.graph.tensor(name).data
        if data is not None and (data == neutral).all():
            continue
        numbers = writer.plain(name)
        for place in range(rank):
            if place != axes[-1]:
                numbers = writer.method("unsqueeze", numbers, place + 1)
        y = writer.calls.call_function(function, (y, numbers))
    writer.keep(node, y, axes)


def max_pool(writer: Writer, node: Node) -> None:
    x, padding = _padded(writer, node, writer.image(node.inputs[0]), LOWEST)
    layer = nn.MaxPool2d(tuple(node.attributes["kernel"]), tuple(node.attributes["stride"]), padding)
    writer.keep(node, writer.layer(node, layer, x), FIRST)


def average_pool(writer: Writer, node: Node) -> None:
    counted = bool(node.attributes["include_padding"])
    kernel, stride = tuple(node.attributes["kernel"]), tuple(node.attributes["stride"])
    x, padding = _padded(writer, node, writer.image(node.inputs[0]), 0.0)
    if not counted and padding == (0, 0) and np.any(node.attributes["padding"]):
        # the mean over what lies inside: that over all, times the share of the window that lies inside
        inside = np.pad(np.ones(writer.shape(node.inputs[0])[:2], np.float32), node.attributes["padding"])
        seen = np.lib.stride_tricks.sliding_window_view(inside, kernel)[:: stride[0], :: stride[1]]
        share = f"share_{len(dict(writer.root.named_buffers()))}"
        writer.root.register_buffer(share, torch.tensor((1.0 / seen.mean((-2, -1)))[None, None]).float())
        y = writer.layer(node, nn.AvgPool2d(kernel, stride), x)
        writer.keep(node, writer.calls.call_function(operator.mul, (y, writer.calls.get_attr(share))), FIRST)
        return
    layer = nn.AvgPool2d(kernel, stride, padding, count_include_pad=counted)
    writer.keep(node, writer.layer(node, layer, x), FIRST)


def global_average(writer: Writer, node: Node) -> None:
    writer.keep(node, writer.method("mean", writer.image(node.inputs[0]), (2, 3)))


def embedding(writer: Writer, node: Node) -> None:
    table = writer.constant(node, 1)
    layer = _fill(nn.Embedding(*table.shape), table, None)
    writer.keep(node, writer.layer(node, layer, writer.method("long", writer.plain(node.inputs[0]))))
