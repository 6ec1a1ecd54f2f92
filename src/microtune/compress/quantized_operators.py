"""How each float operator becomes int8 operators: one short rule for each, in one table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from microtune.compress.batched import FLOAT_LAYERS
from microtune.compress.calibration import range_quantization
from microtune.compress.quantized_weights import quantize_weights
from microtune.errors import ModelError
from microtune.ir import Graph, Node, Quantization, Tensor, constant
from microtune.ops import OPS
from microtune.ops import quantized_build as build

INFINITE = 1e30
"""A padding of this size stands for infinity: it becomes the end of int8 rather than a value to be represented."""

SOFTMAX = build.activation_quantization(build.SOFTMAX_SCALE, build.SOFTMAX_ZERO)
TANH = build.activation_quantization(1 / 128, 0)


@dataclass(eq=False)
class Int8Writer:
    """The int8 graph in the making.

    ``chosen``: the quantisation that suits the values of each float tensor. ``fused``: the activations
    that become limits of what they read, by its name.
    """

    source: Graph
    chosen: Mapping[str, Quantization]
    fused: Mapping[str, Node]
    per_channel: bool
    tensors: dict[str, Tensor] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    activations: dict[str, Tensor] = field(default_factory=dict)

    def fresh(self, wish: str) -> str:
        """``wish``, or with a number behind it if either graph has that name."""
        name, count = wish, 1
        while name in self.tensors or name in self.source.tensors:
            count += 1
            name = f"{wish}_{count}"
        return name

    def add(self, tensor: Tensor) -> Tensor:
        """Declare a tensor."""
        self.tensors[tensor.name] = tensor
        return tensor

    def constant(
        self, wish: str, data: np.ndarray, quantization: Quantization | None = None, original: bool = False
    ) -> Tensor:
        """A constant. ``original``: it stands for the source's of that name, and has it if no other reader took it."""
        name = wish if original and wish not in self.tensors else self.fresh(wish)
        return self.add(constant(name, data, quantization))

    def values(self, node: Node, position: int) -> np.ndarray:
        """The float constant a node reads; ModelError where it is computed: int8 needs it beforehand."""
        tensor = self.source.tensor(node.inputs[position])
        if tensor.data is None:
            raise ModelError(
                f"node '{node.name}' ({node.op}): '{tensor.name}' is computed by the graph; int8 needs it as a constant"
            )
        return tensor.data

    def int8(self, name: str) -> tuple[Tensor, Quantization]:
        """The int8 tensor that stands for a float one; a constant is quantised here, over its own range."""
        values = self.source.tensor(name).data
        if name not in self.activations and values is not None:
            q = range_quantization(min(0.0, float(values.min())), max(0.0, float(values.max())) or 1e-30)
            self.activations[name] = self.constant(name, build.quantize_array(values, q), q, original=True)
        tensor = self.activations[name]
        if tensor.quantization is None:
            raise ModelError(f"'{name}' stays float32: only an embedding may read it")
        return tensor, tensor.quantization

    def emit(
        self, op: str, node: str, inputs: tuple[Tensor, ...], wish: str, quantization: Quantization, **attributes: Any
    ) -> Tensor:
        """Append a node; its first output is named ``wish``, and workspaces after it."""
        count = OPS[op].count(inputs, attributes)
        names = (wish, *(self.fresh(f"{wish}.workspace") for _ in range(count - 1)))
        first, *workspaces = OPS[op].results(names, inputs, attributes)
        self.nodes.append(Node(op, node, tuple(tensor.name for tensor in inputs), names, attributes))
        for workspace in workspaces:
            self.add(workspace)
        self.activations[wish] = self.add(Tensor(first.name, first.shape, first.dtype, None, quantization))
        return self.activations[wish]

    def between(self, op: str, x: Tensor, wish: str, quantization: Quantization, *more: Tensor, **given: Any) -> Tensor:
        """Append a node that the source does not have."""
        name = self.fresh(wish)
        return self.emit(op, name, (x, *more), name, quantization, **given)


Rule = Callable[[Int8Writer, Node], None]


def limits_of(node: Node | None) -> tuple[float | None, float | None] | None:
    """The real values between which relu, relu6 or clamp keeps its input; None for anything else."""
    if node is not None and node.op == "clamp":
        return float(node.attributes["low"]), float(node.attributes["high"])
    return build.ACTIVATIONS.get(node.op) if node is not None and node.op in ("relu", "relu6") else None


def _output(writer: Int8Writer, node: Node) -> tuple[str, Quantization, dict[str, int]]:
    """Name and quantisation of what a node computes, and low and high of the activation fused into it."""
    activation = writer.fused.get(node.output)
    name = activation.output if activation else node.output
    quantization = writer.chosen[name]
    stored: dict[str, int] = {}
    for key, real in zip(("low", "high"), limits_of(activation) or (None, None), strict=True):
        if real is not None:
            stored[key] = int(build.quantize_array(np.float64(real), quantization))
    return name, quantization, stored


def _emit_layer(
    writer: Int8Writer, node: Node, op: str, x: Tensor, x_q: Quantization, weight: np.ndarray, bias: np.ndarray,
    axis: int, wish: str, attributes: Mapping[str, Any], own_scale: np.ndarray | None = None,
) -> Tensor:  # fmt: skip
    """A layer with its constants, of which weight and bias keep their names."""
    _, y_q, limits = _output(writer, node)
    found = quantize_weights(weight, bias, axis, float(x_q.scale), per_channel=writer.per_channel, own_scale=own_scale)
    multiplier, shift = build.layer_constants(x_q, found.scale, y_q)
    weight_name = node.inputs[1]
    biased = len(node.inputs) > 2
    bias_name = node.inputs[-1] if biased else f"{weight_name}.bias"
    constants = (
        writer.constant(weight_name, found.weight, build.channel_quantization(found.scale, axis), original=True),
        writer.constant(bias_name, found.bias, build.bias_quantization(x_q, found.scale), original=biased),
        writer.constant(f"{weight_name}.multiplier", multiplier),
        writer.constant(f"{weight_name}.shift", shift),
    )
    return writer.emit(
        op, node.name, (x, *constants), wish, y_q, **{**build.layer_attributes(x_q, y_q), **limits, **attributes}
    )


def _layer(axis: int) -> Rule:
    """dense, conv2d, depthwise_conv2d; ``axis`` of the weight counts the outputs."""

    def rule(writer: Int8Writer, node: Node) -> None:
        x, x_q = writer.int8(node.inputs[0])
        weight = writer.values(node, 1)
        bias = writer.values(node, 2) if len(node.inputs) == 3 else np.zeros(weight.shape[axis], np.float32)
        wish = _output(writer, node)[0]
        _emit_layer(writer, node, f"{node.op}_int8", x, x_q, weight, bias, axis, wish, node.attributes)

    return rule


def _layer_weight8(axis: int) -> Rule:
    """The layers that have int8 weights and float activations: the weights stay as they are."""

    def rule(writer: Int8Writer, node: Node) -> None:
        x, x_q = writer.int8(node.inputs[0])
        steps, scale, bias = (writer.values(node, position) for position in (1, 2, 3))
        weight = build.dequantize_array(steps, build.channel_quantization(scale, axis))
        op, wish = f"{node.op.removesuffix('_weight8')}_int8", _output(writer, node)[0]
        _emit_layer(writer, node, op, x, x_q, weight, bias, axis, wish, node.attributes, own_scale=scale)

    return rule


def _channel_affine(writer: Int8Writer, node: Node) -> None:
    _as_image(writer, node, *writer.int8(node.inputs[0]), writer.values(node, 1), writer.values(node, 2))


def _as_image(
    writer: Int8Writer, node: Node, x: Tensor, x_q: Quantization, gamma: np.ndarray, beta: np.ndarray
) -> None:
    """A depthwise convolution of one element per channel, on the tensor seen as an image."""
    name, y_q, _ = _output(writer, node)
    shape = x.shape
    weight, geometry = gamma.reshape(1, 1, -1), {"stride": (1, 1), "padding": ((0, 0), (0, 0))}
    if len(shape) != 3:
        image = (math.prod(shape[:-2]), shape[-2], shape[-1]) if len(shape) > 1 else (1, 1, shape[0])
        x = writer.between("reshape", x, f"{name}.image", x_q, shape=image)
    wish = name if len(shape) == 3 else writer.fresh(f"{name}.scaled")
    arguments = (weight, beta, 2, wish, geometry)
    y = _emit_layer(writer, node, "depthwise_conv2d_int8", x, x_q, *arguments)
    if len(shape) != 3:
        writer.emit("reshape", f"{node.name}.shape", (y,), name, y_q, shape=shape)


def _channel_scale(writer: Int8Writer, node: Node) -> None:
    """A product with a constant of one scale whose zero is 0. Of an image, a depthwise convolution."""
    x, x_q = writer.int8(node.inputs[0])
    values = writer.values(node, 1)
    if len(x.shape) > 1:
        _as_image(writer, node, x, x_q, values, np.zeros_like(values))
        return
    name, y_q, limits = _output(writer, node)
    gain_q = build.activation_quantization(max(float(np.abs(values).max()), 1e-30) / 127, 0)
    gain = writer.constant(node.inputs[1], build.quantize_array(values, gain_q), gain_q, original=True)
    attributes = {**build.multiply_attributes(x_q, gain_q, y_q), **limits}
    writer.emit("channel_scale_int8", node.name, (x, gain), name, y_q, **attributes)


def _two(attributes: Callable[[Quantization, Quantization, Quantization], dict[str, int]]) -> Rule:
    """add and multiply."""

    def rule(writer: Int8Writer, node: Node) -> None:
        (a, a_q), (b, b_q) = (writer.int8(name) for name in node.inputs)
        name, y_q, limits = _output(writer, node)
        writer.emit(f"{node.op}_int8", node.name, (a, b), name, y_q, **{**attributes(a_q, b_q, y_q), **limits})

    return rule


def _global_average(writer: Int8Writer, node: Node) -> None:
    x, x_q = writer.int8(node.inputs[0])
    name, y_q, limits = _output(writer, node)
    attributes = {**build.average_attributes(x_q, y_q, x.size // x.shape[-1]), **limits}
    writer.emit("global_average_int8", node.name, (x,), name, y_q, **attributes)


def _pool(writer: Int8Writer, node: Node) -> None:
    """Input and output share a scale. Zeros that count in an average are put there first."""
    x, q = writer.int8(node.inputs[0])
    given = {key: node.attributes[key] for key in ("kernel", "stride", "padding")}
    if node.attributes.get("include_padding") and np.any(given["padding"]):
        edges = (*given["padding"], (0, 0))
        x = writer.between("pad", x, f"{node.output}.padded", q, padding=edges, value=int(q.zero_point))
        given["padding"] = ((0, 0), (0, 0))
    writer.emit(f"{node.op}_int8", node.name, (x,), node.output, q, **given, **build.pool_attributes(q))


def _moved(writer: Int8Writer, node: Node) -> None:
    """reshape, transpose, slice: the same integers elsewhere."""
    x, q = writer.int8(node.inputs[0])
    writer.emit(node.op, node.name, (x,), node.output, q, **node.attributes)


def _requantized(writer: Int8Writer, name: str, wanted: Quantization, wish: str) -> Tensor:
    """The tensor in another quantisation; itself if it has that one."""
    x, q = writer.int8(name)
    if q.scale == wanted.scale and q.zero_point == wanted.zero_point:
        return x
    table = writer.constant(f"{wish}.table", build.rescale_table(q, wanted))
    return writer.between("lookup_int8", x, wish, wanted, table)


def _pad(writer: Int8Writer, node: Node) -> None:
    x, q = writer.int8(node.inputs[0])
    value = float(node.attributes["value"])
    stored = int(build.quantize_array(np.float64(value), q))
    if abs(float(q.scale) * (stored - int(q.zero_point)) - value) > float(q.scale) and abs(value) < INFINITE:
        q = writer.chosen[node.output]  # the values alone do not reach as far as the padding
        x = _requantized(writer, node.inputs[0], q, f"{node.output}.wider")
        stored = int(build.quantize_array(np.float64(value), q))
    writer.emit("pad", node.name, (x,), node.output, q, **{**node.attributes, "value": stored})


def _concat(writer: Int8Writer, node: Node) -> None:
    q = writer.chosen[node.output]
    parts = tuple(_requantized(writer, name, q, f"{name}.in_{node.output}") for name in node.inputs)
    writer.emit("concat", node.name, parts, node.output, q, **node.attributes)


def _lookup(writer: Int8Writer, node: Node) -> None:
    """Any function of one value, as a table of its 256 results."""
    x, x_q = writer.int8(node.inputs[0])
    y_q = {"sigmoid": SOFTMAX, "tanh": TANH}.get(node.op, writer.chosen[node.output])

    def function(real: np.ndarray) -> np.ndarray:
        return OPS[node.op].reference([real], node.attributes)[0]

    table = writer.constant(f"{node.output}.table", build.lookup_table(function, x_q, y_q))
    writer.emit("lookup_int8", node.name, (x, table), node.output, y_q)


def _softmax(writer: Int8Writer, node: Node) -> None:
    x, x_q = writer.int8(node.inputs[0])
    table = writer.constant(f"{node.output}.table", build.softmax_table(x_q))
    writer.emit("softmax_int8", node.name, (x, table), node.output, SOFTMAX)


def _embedding(writer: Int8Writer, node: Node) -> None:
    """Stays float, since its input are row numbers; what it finds is quantised."""
    indices, table = (writer.source.tensor(name) for name in node.inputs)
    if indices.name not in writer.source.inputs:
        raise ModelError(f"node '{node.name}' (embedding): it must read the graph's input itself to be kept in float32")
    rows = writer.fresh(f"{node.output}.rows")
    (found,) = OPS["embedding"].results((rows,), (indices, table), node.attributes)
    for tensor in (indices, table, found):
        writer.add(tensor)
    writer.activations[indices.name] = indices
    writer.nodes.append(Node("embedding", node.name, node.inputs, (rows,), node.attributes))
    q = writer.chosen[node.output]
    crossing = {"scale": float(q.scale), "zero_point": int(q.zero_point)}
    writer.emit("quantize", f"{node.name}.quantize", (found,), node.output, q, **crossing)


RULES: dict[str, Rule] = {
    "dense": _layer(0),
    "conv2d": _layer(0),
    "depthwise_conv2d": _layer(2),
    "dense_weight8": _layer_weight8(0),
    "conv2d_weight8": _layer_weight8(0),
    "depthwise_conv2d_weight8": _layer_weight8(2),
    "channel_affine": _channel_affine,
    "channel_scale": _channel_scale,
    "add": _two(build.add_attributes),
    "multiply": _two(build.multiply_attributes),
    "global_average": _global_average,
    "average_pool2d": _pool,
    "max_pool2d": _pool,
    "reshape": _moved,
    "transpose": _moved,
    "slice": _moved,
    "pad": _pad,
    "concat": _concat,
    **dict.fromkeys(
        ("relu", "relu6", "clamp", "leaky_relu", "hard_swish", "hard_sigmoid", "sigmoid", "tanh", "scale"), _lookup
    ),
    "softmax": _softmax,
    "embedding": _embedding,
}
"""By float operator; an activation fused into its producer never gets here."""

LIMITED = (*FLOAT_LAYERS, "channel_affine", "add", "multiply", "global_average")
"""Operators whose int8 form takes limits: a relu, relu6 or clamp that alone reads one becomes those."""

SAME_SCALE = ("average_pool2d", "max_pool2d", "reshape", "transpose", "slice", "pad")
"""Operators whose int8 output has the scale of the input."""


def sole_reader(graph: Graph, name: str) -> Node | None:
    """The one node that reads a tensor, once, if the tensor is not an output as well."""
    readers = [node for node in graph.nodes for other in node.inputs if other == name]
    return readers[0] if len(readers) == 1 and name not in graph.outputs else None


def fused_activations(graph: Graph) -> dict[str, Node]:
    """relu, relu6 and clamp nodes that alone read the output of an operator of LIMITED, by that output's name."""
    readers = {node.output: sole_reader(graph, node.output) for node in graph.nodes if node.op in LIMITED}
    return {name: reader for name, reader in readers.items() if reader is not None and limits_of(reader) is not None}
