"""An int8 graph whose last part computes in float32: what lies behind the first layer that learns.

Frozen layers keep their int8 weights (``*_weight8``), layers that learn get float32 weights of the same value. A range
that an int8 operator clamps to is a clamp only where it stands for an activation; that int8 ends somewhere is an
artefact of storage and is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np

from microtune.compress.rewriting import bypass
from microtune.ir import Graph, Node, Quantization, Tensor, constant
from microtune.ops import OPS
from microtune.ops.quantized_functions import recognised

FEW_ENTRIES = 8
MOVES = ("reshape", "transpose", "concat", "slice")


class _Writer:
    """Nodes of the new graph, and the tensors that differ from the old one's."""

    def __init__(self, graph: Graph, float_weights: Collection[str]) -> None:
        self.graph, self.float_weights = graph, float_weights
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = dict(graph.tensors)
        self.real: dict[str, str] = {}
        self.copies: dict[str, None] = {}

    def fresh(self, wish: str) -> str:
        name, count = wish, 1
        while name in self.tensors:
            count += 1
            name = f"{wish}_{count}"
        return name

    def constant(self, wish: str, data: np.ndarray) -> str:
        tensor = constant(self.fresh(wish), data.astype(np.float32))
        self.tensors[tensor.name] = tensor
        return tensor.name

    def emit(self, op: str, name: str, inputs: tuple[str, ...], output: str, **attributes: Any) -> str:
        """A node with a float32 output, which keeps its name from the int8 graph."""
        results = OPS[op].results([output], [self.tensors[each] for each in inputs], attributes)
        self.tensors[output] = results[0]
        self.nodes.append(Node(op, name, inputs, (output,), attributes))
        return output

    def same(self, name: str, x: str, output: str) -> str:
        """The output is the value ``x``; ``float_tail`` removes such nodes in the end."""
        self.copies[output] = None
        return self.emit("reshape", name, (x,), output, shape=self.tensors[x].shape)

    def quantization(self, name: str) -> Quantization:
        found = self.graph.tensor(name).quantization
        if found is None:
            raise ValueError(f"'{name}' is int8 without a scale")
        return found

    def value(self, name: str) -> str:
        """The float32 tensor of a value: dequantised at the border to what stays int8."""
        if self.graph.tensor(name).dtype != "int8" or self.tensors[name].dtype == "float32":
            return name
        if name not in self.real:
            q = self.quantization(name)
            given = {"scale": float(q.scale), "zero_point": int(q.zero_point)}
            output = self.fresh(f"{name}.real")
            self.real[name] = self.emit("dequantize", output, (name,), output, **given)
        return self.real[name]


def _limits(q: Quantization, low: int, high: int) -> tuple[float | None, float | None]:
    """The real limits of a fused activation; None where int8 merely ends.

    Where an activation's limit is where int8 ends, only its value tells: zero, 6, or -1 together with 1.
    """
    scale, zero = float(q.scale), int(q.zero_point)
    start, end = scale * (low - zero), scale * (high - zero)
    half = scale / 2
    if abs(start + 1) <= half and abs(end - 1) <= half:
        return -1.0, 1.0
    below = 0.0 if low == zero else (start if low > -128 else None)
    above = 6.0 if abs(end - 6) <= half else (end if high < 127 else None)
    return below, above


def _activated(
    writer: _Writer, node: Node, emit: Callable[[str], str], limits: tuple[float | None, float | None] | None = None
) -> None:
    """What ``emit(output)`` writes, then the activation that was fused into the node."""
    given = node.attributes
    low, high = limits or _limits(writer.quantization(node.output), given["low"], given["high"])
    if low is None and high is None:
        emit(node.output)
        return
    inner = emit(writer.fresh(f"{node.output}.sum"))
    if low == 0.0 and high in (None, 6.0):
        writer.emit("relu" if high is None else "relu6", f"{node.name}.activation", (inner,), node.output)
    else:
        bounds = {"low": -3.0e38 if low is None else low, "high": 3.0e38 if high is None else high}
        writer.emit("clamp", f"{node.name}.activation", (inner,), node.output, **bounds)


def _layer(writer: _Writer, node: Node) -> None:
    graph = writer.graph
    x, weight, bias = node.inputs[:3]
    stored, addend = graph.tensor(weight), graph.tensor(bias)
    q, bias_q = stored.quantization, addend.quantization
    if q is None or stored.data is None or addend.data is None:
        raise ValueError(f"layer '{node.name}' has no constant weights with scales")
    scale = np.asarray(q.scale, np.float32).reshape(-1)
    bias_scale = bias_q.scale if bias_q is not None else writer.quantization(x).scale * q.scale
    kind = node.op.removesuffix("_int8")
    given = {key: node.attributes[key] for key in ("stride", "padding") if key in node.attributes}
    real_bias = writer.constant(f"{bias}.real", addend.data * np.asarray(bias_scale, np.float64))
    if node.name in writer.float_weights:
        along = scale if kind == "depthwise_conv2d" else scale.reshape(-1, *[1] * (stored.data.ndim - 1))
        factors: tuple[str, ...] = (writer.constant(f"{weight}.real", stored.data * along), real_bias)
        op = kind
    else:
        factors = (weight, writer.constant(f"{weight}.scale", scale), real_bias)
        op = f"{kind}_weight8"
    value = writer.value(x)
    _activated(writer, node, lambda output: writer.emit(op, node.name, (value, *factors), output, **given))


def _channel_scale(writer: _Writer, node: Node) -> None:
    x, gain = node.inputs
    stored = writer.graph.tensor(gain)
    if stored.data is None:
        raise ValueError(f"'{node.name}' has gains that are not constant")
    real = writer.constant(f"{gain}.real", stored.data * float(writer.quantization(gain).scale))
    value = writer.value(x)
    _activated(writer, node, lambda output: writer.emit("channel_scale", node.name, (value, real), output))


def _pairwise(op: str) -> Callable[[_Writer, Node], None]:
    def convert(writer: _Writer, node: Node) -> None:
        a, b = (writer.value(name) for name in node.inputs)
        _activated(writer, node, lambda output: writer.emit(op, node.name, (a, b), output))

    return convert


def _pool(op: str, *names: str, **extra: Any) -> Callable[[_Writer, Node], None]:
    def convert(writer: _Writer, node: Node) -> None:
        given = {**{name: node.attributes[name] for name in names}, **extra}
        before = writer.quantization(node.inputs[0])
        low, high = _limits(writer.quantization(node.output), node.attributes["low"], node.attributes["high"])
        # means and maxima of what is limited already stay within these limits
        given_low, given_high = _limits(before, -128, 127)
        limits = (None if low == given_low else low, None if high == given_high else high)
        x = writer.value(node.inputs[0])
        _activated(writer, node, lambda output: writer.emit(op, node.name, (x,), output, **given), limits)

    return convert


def _limited_identity(
    table: np.ndarray, x_q: Quantization, y_q: Quantization
) -> tuple[float | None, float | None] | None:
    """The limits of a table that moves values to another scale, within limits; None for a table of anything else."""
    steps = np.arange(-128, 128) - int(x_q.zero_point)
    stored = float(x_q.scale) / float(y_q.scale) * steps + int(y_q.zero_point)
    lowest, highest = int(table.min()), int(table.max())
    inside = (stored > lowest) & (stored < highest)
    # rounded twice, a table is within one step; a few entries prove nothing
    if inside.sum() < FEW_ENTRIES or np.abs(np.clip(stored, lowest, highest) - table).max() > 1.0:
        return None
    low, high = _limits(y_q, lowest, highest)
    # where the values end as well, the table does not limit them
    return low if stored[0] < lowest - 1 else None, high if stored[-1] > highest + 1 else None


def _lookup(writer: _Writer, node: Node) -> None:
    """The function that a table holds; a table of another function stays one, between quantize and dequantize."""
    x, table = node.inputs
    x_q, y_q = writer.quantization(x), writer.quantization(node.output)
    data = writer.graph.tensor(table).data
    if data is None:
        raise ValueError(f"'{node.name}' looks up in a table that is not constant")
    value = writer.value(x)
    limits = _limited_identity(data, x_q, y_q)
    name = recognised(data, x_q, y_q)
    if limits is not None:
        _activated(writer, node, lambda output: writer.same(node.name, value, output), limits)
    elif name in ("sigmoid", "tanh", "hard_swish"):
        writer.emit(name, node.name, (value,), node.output)
    elif name is not None and name.startswith("hard_sigmoid"):
        alpha = 0.2 if "ONNX" in name else 1 / 6
        writer.emit("hard_sigmoid", node.name, (value,), node.output, alpha=alpha, beta=0.5)
    else:
        _between(writer, node)


def _between(writer: _Writer, node: Node) -> None:
    """Any int8 operator as it is, between quantize and dequantize."""
    inputs = []
    for name in node.inputs:
        tensor = writer.graph.tensor(name)
        if tensor.dtype != "int8" or tensor.is_constant or writer.tensors[name].dtype == "int8":
            inputs.append(name)
            continue
        q = writer.quantization(name)
        stored = writer.fresh(f"{name}.stored")
        writer.tensors[stored] = Tensor(stored, tensor.shape, "int8", None, q)
        given = {"scale": float(q.scale), "zero_point": int(q.zero_point)}
        writer.nodes.append(Node("quantize", stored, (name,), (stored,), given))
        inputs.append(stored)
    q = writer.quantization(node.output)
    result = writer.fresh(f"{node.output}.stored")
    writer.tensors[result] = replace(writer.graph.tensor(node.output), name=result)
    writer.nodes.append(replace(node, inputs=tuple(inputs), outputs=(result, *node.outputs[1:])))
    given = {"scale": float(q.scale), "zero_point": int(q.zero_point)}
    writer.emit("dequantize", f"{node.name}.real", (result,), node.output, **given)


def _pad(writer: _Writer, node: Node) -> None:
    q = writer.quantization(node.output)
    value = float(q.scale) * (node.attributes["value"] - int(q.zero_point))
    given = {**node.attributes, "value": value}
    writer.emit("pad", node.name, (writer.value(node.inputs[0]),), node.output, **given)


def _softmax(writer: _Writer, node: Node) -> None:
    writer.emit("softmax", node.name, (writer.value(node.inputs[0]),), node.output)


def _same(writer: _Writer, node: Node) -> None:
    inputs = tuple(writer.value(name) for name in node.inputs)
    writer.emit(node.op, node.name, inputs, node.output, **node.attributes)


RULES: dict[str, Callable[[_Writer, Node], None]] = {
    **dict.fromkeys(("conv2d_int8", "depthwise_conv2d_int8", "dense_int8"), _layer),
    "channel_scale_int8": _channel_scale,
    "add_int8": _pairwise("add"),
    "multiply_int8": _pairwise("multiply"),
    "average_pool2d_int8": _pool("average_pool2d", "kernel", "stride", "padding", include_padding=False),
    "max_pool2d_int8": _pool("max_pool2d", "kernel", "stride", "padding"),
    "global_average_int8": _pool("global_average"),
    "softmax_int8": _softmax,
    "lookup_int8": _lookup,
    "pad": _pad,
    **dict.fromkeys(MOVES, _same),
}


def float_tail(graph: Graph, touched: Collection[str], float_weights: Collection[str]) -> Graph:
    """The graph with everything that depends on the layers ``touched`` (node names) in float32.

    ``float_weights``: those layers whose weights become float32; the others keep int8 weights. Tensor and node names
    stay; a constant that became float32 is called NAME.real.
    """
    behind: set[str] = set()
    writer = _Writer(graph, float_weights)
    for node in graph.nodes:
        if node.name not in touched and not behind.intersection(node.inputs):
            writer.nodes.append(node)
            continue
        behind.update(node.outputs)
        if node.op in ("dequantize", "quantize"):
            writer.same(node.name, writer.value(node.inputs[0]), node.output)
        elif graph.tensor(node.output).dtype != "int8":
            writer.nodes.append(node)
        else:
            RULES.get(node.op, _between)(writer, node)
    found = Graph(graph.name, writer.tensors, tuple(writer.nodes), graph.inputs, graph.outputs)
    return _without_copies(found.with_nodes(writer.nodes), writer.copies)


def _without_copies(graph: Graph, copies: Collection[str]) -> Graph:
    for name in copies:
        node = graph.producer(name)
        if node is not None:
            graph = bypass(graph, node, node.inputs[0]) or graph
    return graph
