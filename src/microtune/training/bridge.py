"""``mt.to_torch``: a float graph as a PyTorch module of standard layers, to be pruned, distilled and trained further.

A graph has its channels last, PyTorch's layers want them first. Each value is held as it came out of the last layer,
together with where its axes went, and is moved only where a layer or a reshape needs it otherwise.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from microtune.compress.folding import drop_dead
from microtune.errors import ModelError
from microtune.ir import Graph, Node
from microtune.ops.quantized_build import channel_quantization, dequantize_array
from microtune.training import require

if TYPE_CHECKING:
    from torch import fx, nn

LOWEST = -1e30
"""Pads a maximum: below every value, and finite, since files of weights hold finite numbers."""

FIRST = (1, 2, 0)
"""The axes of an image of PyTorch, (C, H, W), at which rows, columns and channels of ours are."""


@dataclass(frozen=True)
class Held:
    """A value: axis i of the graph's tensor is axis ``axes[i]`` of a sample of it, which PyTorch counts from 1."""

    value: fx.Node
    axes: tuple[int, ...]


class Writer:
    """The module in the making: its layers by name, and the calls of them in order."""

    def __init__(self, graph: Graph) -> None:
        from torch import fx, nn

        self.graph = graph
        self.calls = fx.Graph()
        self.root = nn.Module()
        self.held: dict[str, Held] = {}

    def shape(self, name: str) -> tuple[int, ...]:
        return self.graph.tensor(name).shape

    def constant(self, node: Node, position: int) -> np.ndarray:
        """The weights a node reads; ModelError where the graph computes them."""
        tensor = self.graph.tensor(node.inputs[position])
        if tensor.data is None:
            raise ModelError(
                f"node '{node.name}' ({node.op}): '{tensor.name}' is computed by the graph;"
                " a PyTorch layer needs it as a constant"
            )
        return tensor.data

    def method(self, name: str, *arguments: Any) -> fx.Node:
        return self.calls.call_method(name, arguments)

    def layer(self, node: Node, layer: nn.Module, x: fx.Node, suffix: str = "") -> fx.Node:
        """Call a layer, named after its node."""
        wish = re.sub(r"\W", "_", node.name + suffix)
        name, count = wish if wish[:1].isalpha() else f"layer_{wish}", 1
        while hasattr(self.root, name):
            count += 1
            name = f"{wish}_{count}"
        self.root.add_module(name, layer)
        return self.calls.call_module(name, (x,))

    def moved(self, held: Held, axes: tuple[int, ...]) -> fx.Node:
        """The value with its axes at these places."""
        if held.axes == axes:
            return held.value
        order = [held.axes[axes.index(place)] + 1 for place in range(len(axes))]
        return self.method("permute", held.value, 0, *order)

    def read(self, name: str) -> Held:
        """A tensor that is computed; a constant that stands in its place becomes a buffer."""
        import torch

        data = self.graph.tensor(name).data
        if name not in self.held and data is not None:
            buffer = f"constant_{len(dict(self.root.named_buffers()))}"
            self.root.register_buffer(buffer, torch.tensor(data[None]))
            self.held[name] = Held(self.calls.get_attr(buffer), tuple(range(data.ndim)))
        return self.held[name]

    def plain(self, name: str) -> fx.Node:
        """The tensor with its axes in the graph's order."""
        held = self.read(name)
        return self.moved(held, tuple(range(len(held.axes))))

    def image(self, name: str) -> fx.Node:
        """A tensor (H, W, C) as PyTorch's layers take it."""
        held = self.read(name)
        if self.shape(name)[-1] == 1 and held.axes == (0, 1, 2):
            # a permuted axis of 1 keeps strides that PyTorch 2.13 takes for channels last, and its convolutions then
            # read outside of some tensors
            return self.method("unsqueeze", self.method("squeeze", held.value, -1), 1)
        return self.moved(held, FIRST)

    def keep(self, node: Node, value: fx.Node, axes: tuple[int, ...] | None = None) -> None:
        """What a node computes; without ``axes`` in the graph's order."""
        self.held[node.output] = Held(value, axes or tuple(range(len(self.shape(node.output)))))


Rule = Callable[[Writer, Node], None]


def _fill(layer: Any, weight: np.ndarray, bias: np.ndarray | None) -> Any:
    import torch

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


def _dense(writer: Writer, node: Node) -> None:
    from torch import nn

    weight, bias = _weights(writer, node, 0)
    outputs, inputs = weight.shape
    layer = _fill(nn.Linear(inputs, outputs, bias is not None), weight, bias)
    writer.keep(node, writer.layer(node, layer, writer.plain(node.inputs[0])))


def _padded(writer: Writer, node: Node, x: fx.Node, value: float) -> tuple[fx.Node, tuple[int, int]]:
    """The image, and the padding left to the layer: PyTorch's layers pad both ends of an axis alike."""
    from torch import nn

    (top, bottom), (left, right) = node.attributes["padding"]
    rows, columns = node.attributes.get("kernel", (2 * top, 2 * left))  # a pool pads by half its window at most
    if top == bottom <= rows // 2 and left == right <= columns // 2:
        return x, (top, left)
    return writer.layer(node, nn.ConstantPad2d((left, right, top, bottom), value), x, "_pad"), (0, 0)


def _convolution(writer: Writer, node: Node) -> None:
    from torch import nn

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


def _channel_affine(writer: Writer, node: Node) -> None:
    """A depthwise convolution of one element per channel."""
    from torch import nn

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


def _max_pool(writer: Writer, node: Node) -> None:
    from torch import nn

    x, padding = _padded(writer, node, writer.image(node.inputs[0]), LOWEST)
    layer = nn.MaxPool2d(tuple(node.attributes["kernel"]), tuple(node.attributes["stride"]), padding)
    writer.keep(node, writer.layer(node, layer, x), FIRST)


def _average_pool(writer: Writer, node: Node) -> None:
    import torch
    from torch import nn

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


def _global_average(writer: Writer, node: Node) -> None:
    writer.keep(node, writer.method("mean", writer.image(node.inputs[0]), (2, 3)))


def _reshape(writer: Writer, node: Node) -> None:
    """The channels are counted where they stay the last axis, so that fewer of them pass too."""
    old, new = writer.shape(node.inputs[0]), tuple(node.attributes["shape"])
    if len(new) == 1:
        single = len(old) == 3 and old[:2] == (1, 1)
        x = writer.read(node.inputs[0]).value if single else writer.plain(node.inputs[0])
        writer.keep(node, writer.method("flatten", x, 1))
        return
    x = writer.plain(node.inputs[0])
    sizes = (*new[:-1], -1) if old[-1:] == new[-1:] else new
    writer.keep(node, writer.method("reshape", x, writer.method("size", x, 0), *sizes))


def _transpose(writer: Writer, node: Node) -> None:
    held = writer.read(node.inputs[0])
    writer.keep(node, held.value, tuple(held.axes[axis] for axis in node.attributes["permutation"]))


def _pad(writer: Writer, node: Node) -> None:
    from torch.nn import functional

    held = writer.read(node.inputs[0])
    edges = [0] * (2 * len(held.axes))
    for axis, pair in zip(held.axes, node.attributes["padding"], strict=True):
        place = 2 * (len(held.axes) - 1 - axis)  # PyTorch begins with the last axis
        edges[place : place + 2] = map(int, pair)
    given = (held.value, tuple(edges), "constant", float(node.attributes["value"]))
    writer.keep(node, writer.calls.call_function(functional.pad, given), held.axes)


def _slice(writer: Writer, node: Node) -> None:
    held = writer.read(node.inputs[0])
    axis, start, stop = (node.attributes[key] for key in ("axis", "start", "stop"))
    writer.keep(node, writer.method("narrow", held.value, held.axes[axis] + 1, start, stop - start), held.axes)


def _concat(writer: Writer, node: Node) -> None:
    import torch

    axes = writer.read(node.inputs[0]).axes
    parts = [writer.moved(writer.read(name), axes) for name in node.inputs]
    axis = axes[node.attributes["axis"]] + 1
    writer.keep(node, writer.calls.call_function(torch.cat, (parts, axis)), axes)


def _two(function: Callable[[Any, Any], Any]) -> Rule:
    """add and multiply."""

    def rule(writer: Writer, node: Node) -> None:
        first, second = (writer.read(name) for name in node.inputs)
        axes = first.axes if not writer.graph.tensor(node.inputs[0]).is_constant else second.axes
        values = tuple(writer.moved(held, axes) for held in (first, second))
        writer.keep(node, writer.calls.call_function(function, values), axes)

    return rule


def _elementwise(make: Callable[[Mapping[str, Any]], Any]) -> Rule:
    def rule(writer: Writer, node: Node) -> None:
        held = writer.read(node.inputs[0])
        writer.keep(node, writer.layer(node, make(node.attributes), held.value), held.axes)

    return rule


def _activation(name: str, *attributes: str) -> Rule:
    """A layer of ``torch.nn`` that takes these attributes in order."""

    def make(given: Mapping[str, Any]) -> Any:
        from torch import nn

        return getattr(nn, name)(*(float(given[key]) for key in attributes))

    return _elementwise(make)


def _hard_sigmoid(writer: Writer, node: Node) -> None:
    from torch import nn

    held = writer.read(node.inputs[0])
    alpha, beta = float(node.attributes["alpha"]), float(node.attributes["beta"])
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        value = writer.layer(node, nn.Hardsigmoid(), held.value)
    else:
        line = writer.calls.call_function(operator.add, (_times(writer, held.value, alpha), beta))
        value = writer.layer(node, nn.Hardtanh(0.0, 1.0), line)
    writer.keep(node, value, held.axes)


def _times(writer: Writer, x: fx.Node, factor: float) -> fx.Node:
    return writer.calls.call_function(operator.mul, (x, factor))


def _scale(writer: Writer, node: Node) -> None:
    held = writer.read(node.inputs[0])
    writer.keep(node, _times(writer, held.value, float(node.attributes["factor"])), held.axes)


def _softmax(writer: Writer, node: Node) -> None:
    """Over all elements of a sample."""
    from torch import nn

    flat = writer.layer(node, nn.Softmax(1), writer.method("flatten", writer.plain(node.inputs[0]), 1))
    shape = writer.shape(node.output)
    writer.keep(node, flat if len(shape) == 1 else writer.method("unflatten", flat, 1, shape))


def _embedding(writer: Writer, node: Node) -> None:
    from torch import nn

    table = writer.constant(node, 1)
    layer = _fill(nn.Embedding(*table.shape), table, None)
    writer.keep(node, writer.layer(node, layer, writer.method("long", writer.plain(node.inputs[0]))))


RULES: dict[str, Rule] = {
    **dict.fromkeys(("dense", "dense_weight8"), _dense),
    **dict.fromkeys(("conv2d", "depthwise_conv2d", "conv2d_weight8", "depthwise_conv2d_weight8"), _convolution),
    "channel_affine": _channel_affine,
    "max_pool2d": _max_pool,
    "average_pool2d": _average_pool,
    "global_average": _global_average,
    "reshape": _reshape,
    "transpose": _transpose,
    "pad": _pad,
    "slice": _slice,
    "concat": _concat,
    "add": _two(operator.add),
    "multiply": _two(operator.mul),
    "scale": _scale,
    "relu": _activation("ReLU"),
    "relu6": _activation("ReLU6"),
    "clamp": _activation("Hardtanh", "low", "high"),
    "leaky_relu": _activation("LeakyReLU", "alpha"),
    "hard_swish": _activation("Hardswish"),
    "hard_sigmoid": _hard_sigmoid,
    "sigmoid": _activation("Sigmoid"),
    "tanh": _activation("Tanh"),
    "softmax": _softmax,
    "embedding": _embedding,
}
"""By float operator."""


def without_last_activation(graph: Graph) -> Graph:
    """The graph without the softmax or sigmoid it ends in: its output is then logits, which every loss takes."""
    (output,) = graph.outputs
    last = graph.producer(output)
    if last is None or last.op not in ("softmax", "sigmoid") or last.inputs[0] in graph.inputs:
        return graph
    return drop_dead(Graph(graph.name, graph.tensors, graph.nodes, graph.inputs, last.inputs[:1]))


def to_torch(graph: Graph, *, logits: bool = True) -> Any:
    """A float graph as a ``torch.fx.GraphModule`` of standard layers, with the graph's weights, ready to be trained.

    The module takes a batch (n, *input shape) with the axes in the graph's order, so (n, H, W, C) for what came from
    TensorFlow; within, images lie channels first, as PyTorch has them. ``load(module, example=...)`` gives a graph of
    the same outputs. ``logits``: a softmax or sigmoid at the very end is left out, since the losses of training take
    what comes before it.

    Raises ModelError for a graph that is int8 already, and for an operator no layer stands for, naming its node.
    """
    require("to_torch")
    from torch import fx

    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        counts = f"{len(graph.inputs)} inputs and {len(graph.outputs)} outputs"
        raise ModelError(f"graph '{graph.name}' has {counts}; to_torch takes one of each")
    graph = drop_dead(without_last_activation(graph) if logits else graph)
    for node in graph.nodes:
        if node.op not in RULES:
            is_int8 = any(graph.tensor(name).dtype != "float32" for name in node.outputs)
            advice = "; give the float graph" if is_int8 else f". Supported: {', '.join(sorted(RULES))}"
            raise ModelError(f"node '{node.name}' ({node.op}): no PyTorch layer stands for it{advice}")
    writer = Writer(graph)
    rank = len(writer.shape(graph.inputs[0]))
    writer.held[graph.inputs[0]] = Held(writer.calls.placeholder("x"), tuple(range(rank)))
    for node in graph.nodes:
        RULES[node.op](writer, node)
    writer.calls.output(writer.plain(graph.outputs[0]))
    name = re.sub(r"\W", "_", graph.name)
    module = fx.GraphModule(writer.root, writer.calls, name if name[:1].isalpha() else f"net_{name}")
    return module.train()
