"""The QDQ form of what computes: float operators between the roundings of their inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from microtune.compress.qdq_writer import FIRST, Rule, Writer
from microtune.errors import ModelError
from microtune.ir import Node, Quantization
from microtune.ops.quantized_build import ACTIVATIONS, activation_range, dequantize_array


def _limited(writer: Writer, node: Node, value: str, axes: tuple[int, ...] | None = None) -> None:
    """Keep the output of an operator with limits: of a ReLU or ReLU6, or any, which then are a Clip on the int8."""
    q, limits = writer.quantization(node.output), (int(node.attributes["low"]), int(node.attributes["high"]))
    kind = next((kind for kind in ACTIVATIONS if activation_range(kind, q) == limits), None)
    if kind == "relu":
        value = writer.emit("Relu", (value,), f"{node.output}.relu")
    elif kind == "relu6":
        value = _clip(writer, value, f"{node.output}.relu6", 0.0, 6.0)
    writer.quantized(node.output, value, axes)
    if kind not in ("none", "relu", "relu6"):
        low, high = (float(q.scale) * (limit - int(q.zero_point)) for limit in limits)
        clipped = _clip(writer, writer.held[node.output].name, f"{node.output}.limited", low, high)
        writer.quantized(node.output, clipped, axes)


def _clip(writer: Writer, x: str, wish: str, low: float, high: float) -> str:
    limits = (writer.array(f"{wish}.{end}", np.float32(limit)) for end, limit in (("low", low), ("high", high)))
    return writer.emit("Clip", (x, *limits), wish)


def _constants(writer: Writer, node: Node, turn: Callable[[np.ndarray], np.ndarray]) -> tuple[str, str]:
    """Weight, its outputs first, and bias."""
    if len(node.inputs) != 5:
        raise ModelError(f"node '{node.name}' ({node.op}): has parts that learn; save the graph before it is planned")
    weight, bias = (writer.graph.tensor(name) for name in node.inputs[1:3])
    if weight.data is None or bias.data is None or weight.quantization is None or bias.quantization is None:
        raise ModelError(f"node '{node.name}' ({node.op}): its weight and bias must be constants with scales")
    outputs = len(bias.data)
    scales = np.broadcast_to(weight.quantization.scale, (outputs,))
    along = Quantization(scales, np.zeros(outputs, np.int32), 0)
    # the product in single precision, as ONNX has it: mt.load takes the nearest step of its own
    step = Quantization(np.broadcast_to(bias.quantization.scale, (outputs,)), np.zeros(outputs, np.int32), 0)
    return writer.constant(weight.name, turn(weight.data), along), writer.constant(bias.name, bias.data, step)


def dense(writer: Writer, node: Node) -> None:
    inputs = (writer.plain(node.inputs[0]), *_constants(writer, node, lambda weight: weight))
    _limited(writer, node, writer.emit("Gemm", inputs, f"{node.output}.sum", transB=1))


def convolution(writer: Writer, node: Node) -> None:
    depthwise = node.op.startswith("depthwise")

    def turn(weight: np.ndarray) -> np.ndarray:
        return weight.transpose(2, 0, 1)[:, None] if depthwise else weight.transpose(0, 3, 1, 2)

    inputs = (writer.moved(node.inputs[0], FIRST), *_constants(writer, node, turn))
    group = writer.shape(node.inputs[0])[-1] if depthwise else 1
    value = writer.emit("Conv", inputs, f"{node.output}.sum", group=group, **_geometry(node))
    _limited(writer, node, value, FIRST)


def _geometry(node: Node) -> dict[str, list[int]]:
    (top, bottom), (left, right) = node.attributes["padding"]
    return {"strides": list(map(int, node.attributes["stride"])), "pads": [top, left, bottom, right]}


def pool(writer: Writer, node: Node) -> None:
    op = "MaxPool" if node.op == "max_pool2d_int8" else "AveragePool"
    kernel = list(map(int, node.attributes["kernel"]))
    inputs = (writer.moved(node.inputs[0], FIRST),)
    value = writer.emit(op, inputs, f"{node.output}.pool", kernel_shape=kernel, **_geometry(node))
    _limited(writer, node, value, FIRST)


def global_average(writer: Writer, node: Node) -> None:
    held = writer.place(node.inputs[0])
    axes = sorted(axis + 1 for axis in held.axes[:-1])
    _limited(writer, node, writer.emit("ReduceMean", (held.name,), f"{node.output}.mean", axes=axes, keepdims=0))


def two(op: str) -> Rule:
    def rule(writer: Writer, node: Node) -> None:
        first = next(name for name in node.inputs if not writer.graph.tensor(name).is_constant)
        axes = writer.place(first).axes
        value = writer.emit(op, [writer.moved(name, axes) for name in node.inputs], f"{node.output}.{op.lower()}")
        _limited(writer, node, value, axes)

    return rule


def lookup(writer: Writer, node: Node) -> None:
    """The table itself, by a Gather: the stored value counts its rows, negative ones from the end."""
    from onnx import TensorProto

    held, table = writer.place(node.inputs[0]), writer.graph.tensor(node.inputs[1]).data
    if table is None:
        raise ModelError(f"node '{node.name}' ({node.op}): its table must be a constant")
    real = np.roll(dequantize_array(table, writer.quantization(node.output)), 128)
    x = writer.quantization(node.inputs[0])
    stored = writer.crossing("QuantizeLinear", held.name, f"{node.output}.index", x, np.int8)
    place = writer.emit("Cast", (stored,), f"{node.output}.place", to=TensorProto.INT32)
    found = writer.emit("Gather", (writer.array(f"{node.output}.table", real), place), f"{node.output}.found", axis=0)
    writer.quantized(node.output, found, held.axes)


def softmax(writer: Writer, node: Node) -> None:
    x = writer.plain(node.inputs[0])
    shape = writer.shape(node.output)
    if len(shape) != 1:
        raise ModelError(f"node '{node.name}' ({node.op}): its input has the shape {shape}; a vector can be written")
    writer.quantized(node.output, writer.emit("Softmax", (x,), f"{node.output}.softmax", axis=-1))


def embedding(writer: Writer, node: Node) -> None:
    table = writer.array(node.inputs[1], writer.graph.tensor(node.inputs[1]).data)
    writer.keep(node.output, writer.emit("Gather", (table, writer.plain(node.inputs[0])), node.output, axis=0))


def quantize(writer: Writer, node: Node) -> None:
    held = writer.place(node.inputs[0])
    writer.quantized(node.output, held.name, held.axes)


def dequantize(writer: Writer, node: Node) -> None:
    held = writer.place(node.inputs[0])
    writer.keep(node.output, held.name, held.axes)
