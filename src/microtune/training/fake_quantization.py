"""A float graph as its int8 form computes it, differentiable: what quantisation-aware training trains.

The int8 graph itself is walked, operator by operator, so that exactly what ``mt.quantize`` rounds is rounded here.
A tensor of int8 is held in float32 as its whole number of steps from zero, stored - zero_point: sums of products
are exact up to 2^24, and a layer rounds where the C rounds. Rounding lets the gradient through as it is, and a limit
stops it (the straight-through estimator: Bengio et al. 2013, Jacob et al., CVPR 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from microtune.compress.quantization import int8_graph
from microtune.compress.quantized_operators import fused_activations, limits_of
from microtune.compress.quantized_weights import LARGEST_BIAS, LEAST_STEP
from microtune.errors import ModelError
from microtune.ir import Graph, Node, Quantization, constant

TRAINED = ("dense", "conv2d", "depthwise_conv2d", "channel_affine", "embedding")
"""Float operators whose constants are trained."""

SEVERAL = ("add_int8", "multiply_int8", "concat")
"""int8 operators that read more than one value; what else others read are their own constants."""


def rounded(x: Tensor) -> Tensor:
    """The nearest whole number, of two that farther from zero; the gradient passes as it is."""
    whole = torch.trunc(x.detach())
    return x + (whole + torch.trunc(2.0 * (x.detach() - whole)) - x).detach()


def rescaled(sums: Tensor, factor: float | Tensor, count: int = 1) -> Tensor:
    """sums * factor / count as ``fixed_point.rescale`` rounds it: first to as many places as its shift will drop.

    The result has yet to be rounded itself. factor: one, or one for each channel (the last axis).
    """
    size = torch.as_tensor(factor).detach()
    shift = torch.frexp(size).exponent - (count.bit_length() - 1)  # see ``quantized_build.average_attributes``
    places = torch.exp2(torch.clamp(-shift, min=0).to(sums.dtype))
    return rounded(sums * (factor / count * places)) / places


class FakeQuantized(nn.Module):
    """``source``, whose layers each have a bias and constants of their own, in the arithmetic of its int8 form.

    Takes real inputs (n, *input shape), returns real outputs. ``chosen``: the quantisation of each float tensor, which
    stays; the scales of weights follow the weights.
    """

    def __init__(self, source: Graph, chosen: Mapping[str, Quantization], per_channel: bool) -> None:
        super().__init__()
        self.source, self.chosen, self.per_channel = source, chosen, per_channel
        self.graph = int8_graph(source, chosen, per_channel)
        for node in self.graph.nodes:
            if node.op not in RULES:
                raise ModelError(f"node '{node.name}' ({node.op}): cannot be trained quantised")
        self.layers = {node.name: node for node in source.nodes}
        fused = fused_activations(source)
        self.limits = {node.name: limits_of(fused.get(node.output)) for node in source.nodes}
        names = [name for node in source.nodes if node.op in TRAINED for name in node.inputs[1:]]
        self.place = {name: index for index, name in enumerate(names)}
        self.constants = nn.ParameterList(torch.tensor(source.tensor(name).data) for name in names)

    def trained(self, name: str) -> Tensor:
        """A constant of the source."""
        found: Tensor = self.constants[self.place[name]]
        return found

    def scale(self, name: str) -> float:
        """The real size of a step of an int8 tensor."""
        return float(self.quantization(name).scale)

    def quantization(self, name: str) -> Quantization:
        found = self.graph.tensor(name).quantization
        assert found is not None
        return found

    def stored(self, steps: Tensor, name: str, limits: tuple[float | None, float | None] | None = None) -> Tensor:
        """Steps from zero as int8 holds them in tensor ``name``. limits: of real values, of a fused activation."""
        q = self.quantization(name)
        if limits is not None:
            low, high = (None if limit is None else limit / self.scale(name) for limit in limits)
            steps = torch.clamp(steps, low, high)
        zero = int(q.zero_point)
        return rounded(torch.clamp(steps, -128.0 - zero, 127.0 - zero))

    def real(self, name: str, value: Tensor) -> Tensor:
        """Real values of a tensor, int8 or not."""
        return value if self.graph.tensor(name).quantization is None else value * self.scale(name)

    def forward(self, x: Tensor) -> Tensor:
        (source,) = self.graph.inputs
        is_int8 = self.graph.tensor(source).quantization is not None
        values = {source: self.stored(x / self.scale(source), source) if is_int8 else x}
        for node in self.graph.nodes:
            names = node.inputs if node.op in SEVERAL else node.inputs[:1]
            values[node.output] = RULES[node.op](self, node, [self._read(values, name) for name in names])
        (output,) = self.graph.outputs
        return self.real(output, values[output])

    def _read(self, values: Mapping[str, Tensor], name: str) -> Tensor:
        """A value, or a constant in its place: int8 in steps from zero."""
        if name in values:
            return values[name]
        tensor = self.graph.tensor(name)
        zero = 0 if tensor.quantization is None else np.atleast_1d(tensor.quantization.zero_point)[0]
        return torch.from_numpy((np.asarray(tensor.data, np.float32) - np.float32(zero))[None])

    def written(self, graph: Graph) -> Graph:
        """The int8 graph of ``graph``, which has the nodes of the source and perhaps more, with what was trained."""
        found = [constant(name, self.trained(name).detach().cpu().numpy().astype(np.float32)) for name in self.place]
        return int8_graph(graph.with_nodes(graph.nodes, found), self.chosen, self.per_channel)


Rule = Callable[[FakeQuantized, Node, list[Tensor]], Tensor]


def _image(x: Tensor) -> Tensor:
    """(n, H, W, C) as (n, C, H, W); see ``bridge_writer.Writer.image`` for the single channel."""
    return x.squeeze(-1).unsqueeze(1) if x.shape[-1] == 1 else x.permute(0, 3, 1, 2)


def _edges(node: Node) -> tuple[int, ...]:
    (top, bottom), (left, right) = node.attributes["padding"]
    return left, right, top, bottom


def _dense(x: Tensor, weight: Tensor, node: Node) -> Tensor:
    return functional.linear(x, weight)


def _convolution(x: Tensor, weight: Tensor, node: Node) -> Tensor:
    depthwise = node.op.startswith("depthwise")
    turned = weight.permute(2, 0, 1).unsqueeze(1) if depthwise else weight.permute(0, 3, 1, 2)
    padded = functional.pad(_image(x), _edges(node))
    groups = x.shape[-1] if depthwise else 1
    return functional.conv2d(padded, turned, stride=node.attributes["stride"], groups=groups).permute(0, 2, 3, 1)


def weight_scales(rows: Tensor, bias: Tensor, x_scale: float, per_channel: bool) -> Tensor:
    """The real size of a step of each output's weights (O,): ``quantized_weights.quantize_weights`` in PyTorch."""
    largest = rows.abs().amax(1)
    scale = (largest if per_channel else largest.max().expand_as(largest)) / 127.0
    scale = torch.maximum(scale, bias.abs() / (LARGEST_BIAS * x_scale))
    scale = torch.where(scale > 0.0, scale, scale.max() if bool(scale.max() > 0.0) else torch.ones_like(scale))
    return scale.clamp_min(LEAST_STEP / x_scale)


def _layer(sums: Callable[[Tensor, Tensor, Node], Tensor], axis: int) -> Rule:
    """dense_int8, conv2d_int8, depthwise_conv2d_int8; ``axis`` of the weight counts the outputs."""

    def rule(net: FakeQuantized, node: Node, given: list[Tensor]) -> Tensor:
        source = net.layers[node.name]
        weight, bias = (net.trained(name) for name in source.inputs[1:])
        if source.op == "channel_affine":
            weight = weight.reshape(1, 1, -1)
        x_scale, y_scale = net.scale(node.inputs[0]), net.scale(node.output)
        with torch.no_grad():
            rows = weight.movedim(axis, 0).flatten(1)
            scale = weight_scales(rows, bias, x_scale, net.per_channel)
        spread = [1] * weight.ndim
        spread[axis] = -1
        step = x_scale * scale
        found = sums(given[0], rounded(weight / scale.reshape(spread)), node) + rounded(bias / step)
        factor = step / y_scale
        scaled = found * factor if source.op == "dense" else rescaled(found, factor)
        return net.stored(scaled, node.output, net.limits[source.name])

    return rule


def _add(net: FakeQuantized, node: Node, given: list[Tensor]) -> Tensor:
    a, b = (net.real(name, value) for name, value in zip(node.inputs, given, strict=True))
    return net.stored((a + b) / net.scale(node.output), node.output, net.limits[node.name])


def _multiply(net: FakeQuantized, node: Node, given: list[Tensor]) -> Tensor:
    a, b, y = (net.scale(name) for name in (*node.inputs, node.output))
    return net.stored(rescaled(given[0] * given[1], a * b / y), node.output, net.limits[node.name])


def _global_average(net: FakeQuantized, node: Node, given: list[Tensor]) -> Tensor:
    x, y = (net.scale(name) for name in (node.inputs[0], node.output))
    positions = given[0][0, ..., 0].numel()
    sums = given[0].flatten(1, -2).sum(1)
    return net.stored(rescaled(sums, x / y, positions), node.output, net.limits[node.name])


def _average_pool(net: FakeQuantized, node: Node, given: list[Tensor]) -> Tensor:
    """The mean of stored values, over those that are no padding, rounded as such."""
    zero, (kernel, stride) = int(net.quantization(node.output).zero_point), _window(node)
    stored = _image(given[0] + zero)
    sums, counts = (
        functional.avg_pool2d(functional.pad(each, _edges(node)), kernel, stride, divisor_override=1)
        for each in (stored, torch.ones_like(stored[:1, :1]))
    )
    return rounded(sums / counts).permute(0, 2, 3, 1) - zero


def _window(node: Node) -> tuple[tuple[int, int], tuple[int, int]]:
    (height, width), (rows, columns) = node.attributes["kernel"], node.attributes["stride"]
    return (height, width), (rows, columns)


def _max_pool(net: FakeQuantized, node: Node, given: list[Tensor]) -> Tensor:
    lowest = -128.0 - int(net.quantization(node.output).zero_point)
    padded = functional.pad(_image(given[0]), _edges(node), value=lowest)
    return functional.max_pool2d(padded, *_window(node)).permute(0, 2, 3, 1)


def _pad(net: FakeQuantized, node: Node, given: list[Tensor]) -> Tensor:
    edges = [int(size) for pair in reversed(node.attributes["padding"]) for size in pair]
    value = float(node.attributes["value"] - int(net.quantization(node.output).zero_point))
    return functional.pad(given[0], edges, value=value)


def _slice(net: FakeQuantized, node: Node, given: list[Tensor]) -> Tensor:
    axis, start, stop = (node.attributes[key] for key in ("axis", "start", "stop"))
    return given[0].narrow(axis + 1, start, stop - start)


def _transpose(net: FakeQuantized, node: Node, given: list[Tensor]) -> Tensor:
    return given[0].permute(0, *(axis + 1 for axis in node.attributes["permutation"]))


def _lookup(net: FakeQuantized, node: Node, given: list[Tensor]) -> Tensor:
    """A function of the source, or another quantisation of the same values."""
    x, y = (net.scale(name) for name in (node.inputs[0], node.output))
    source = net.layers.get(node.name)
    if source is None or source.op not in FUNCTIONS:
        return net.stored(rescaled(given[0], x / y), node.output)
    attributes = {key: float(value) for key, value in source.attributes.items()}
    return net.stored(FUNCTIONS[source.op](given[0] * x, attributes) / y, node.output)


def _softmax(net: FakeQuantized, node: Node, given: list[Tensor]) -> Tensor:
    real = functional.softmax(net.real(node.inputs[0], given[0]).flatten(1), 1).reshape(given[0].shape)
    return net.stored(real / net.scale(node.output), node.output)


def _embedding(net: FakeQuantized, node: Node, given: list[Tensor]) -> Tensor:
    return functional.embedding(given[0].long(), net.trained(net.layers[node.name].inputs[1]))


FUNCTIONS: dict[str, Callable[[Tensor, Mapping[str, float]], Tensor]] = {
    "relu": lambda x, _: functional.relu(x),
    "relu6": lambda x, _: functional.relu6(x),
    "clamp": lambda x, given: torch.clamp(x, given["low"], given["high"]),
    "leaky_relu": lambda x, given: functional.leaky_relu(x, given["alpha"]),
    "hard_swish": lambda x, _: functional.hardswish(x),
    "hard_sigmoid": lambda x, given: torch.clamp(given["alpha"] * x + given["beta"], 0.0, 1.0),
    "sigmoid": lambda x, _: torch.sigmoid(x),
    "tanh": lambda x, _: torch.tanh(x),
    "scale": lambda x, given: given["factor"] * x,
}
"""Functions of one value, which int8 has as tables."""

RULES: dict[str, Rule] = {
    "dense_int8": _layer(_dense, 0),
    "conv2d_int8": _layer(_convolution, 0),
    "depthwise_conv2d_int8": _layer(_convolution, 2),
    "add_int8": _add,
    "multiply_int8": _multiply,
    "global_average_int8": _global_average,
    "average_pool2d_int8": _average_pool,
    "max_pool2d_int8": _max_pool,
    "reshape": lambda net, node, given: given[0].reshape(len(given[0]), *node.attributes["shape"]),
    "transpose": _transpose,
    "pad": _pad,
    "slice": _slice,
    "concat": lambda net, node, given: torch.cat(given, node.attributes["axis"] + 1),
    "lookup_int8": _lookup,
    "softmax_int8": _softmax,
    "embedding": _embedding,
    "quantize": lambda net, node, given: net.stored(given[0] / net.scale(node.output), node.output),
}
"""By int8 operator."""
