"""``mt.save``: a graph as an .onnx file that ``mt.load`` and onnxruntime read; an int8 graph in QDQ form.

QDQ: each int8 tensor is a QuantizeLinear and a DequantizeLinear around float operators. ``mt.load`` makes of a float
operator between them the int8 operator that ends there, so what is read back predicts the same bits. Images lie
channels first, as ONNX has them; an axis moves only where an operator needs it elsewhere.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from microtune.errors import ModelError
from microtune.ir import Graph, Node, Quantization
from microtune.ops.quantized_build import ACTIVATIONS, activation_range, dequantize_array

if TYPE_CHECKING:
    import onnx

OPSET = 17
"""The newest that every onnxruntime since 1.12 reads."""

FIRST = (1, 2, 0)
"""Where rows, columns and channels of an image are in ONNX: (C, H, W)."""


@dataclass(frozen=True)
class Held:
    """A value of the file: axis i of the graph's tensor is axis ``axes[i]`` of a sample of it."""

    name: str
    axes: tuple[int, ...]


@dataclass(eq=False)
class Writer:
    """The file in the making."""

    graph: Graph
    nodes: list[Any] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def fresh(self, wish: str) -> str:
        name, count = wish, 1
        while name in self.names:
            count += 1
            name = f"{wish}_{count}"
        self.names.add(name)
        return name

    def array(self, wish: str, array: Any) -> str:
        name = self.fresh(wish)
        self.arrays[name] = np.asarray(array)
        return name

    def emit(self, op: str, inputs: Sequence[str], wish: str, **attributes: Any) -> str:
        from onnx import helper

        name = self.fresh(wish)
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def shape(self, name: str) -> tuple[int, ...]:
        return self.graph.tensor(name).shape

    def quantization(self, name: str) -> Quantization:
        found = self.graph.tensor(name).quantization
        if found is None:
            raise ModelError(f"tensor '{name}' is int8 without a scale; it cannot be written in QDQ form")
        return found

    def crossing(self, op: str, x: str, wish: str, q: Quantization, kind: type) -> str:
        """QuantizeLinear or DequantizeLinear."""
        scale = self.array(f"{wish}.scale", np.asarray(q.scale, np.float32))
        zero = self.array(f"{wish}.zero", np.asarray(q.zero_point).astype(kind))
        return self.emit(op, (x, scale, zero), wish, **({} if q.axis is None else {"axis": q.axis}))

    def keep(self, name: str, value: str, axes: tuple[int, ...] | None = None) -> None:
        """What stands for a tensor; without ``axes`` in the graph's order."""
        self.held[name] = Held(value, axes or tuple(range(len(self.shape(name)))))

    def quantized(self, name: str, value: str, axes: tuple[int, ...] | None = None) -> None:
        """Keep a real value as an int8 tensor."""
        q = self.quantization(name)
        stored = self.crossing("QuantizeLinear", value, f"{name}.stored", q, np.int8)
        self.keep(name, self.crossing("DequantizeLinear", stored, f"{name}.real", q, np.int8), axes)

    def constant(self, wish: str, stored: np.ndarray, q: Quantization) -> str:
        """The real values of a constant that is stored as integers."""
        integers = self.array(f"{wish}.stored", stored)
        return self.crossing("DequantizeLinear", integers, wish, q, stored.dtype.type)

    def place(self, name: str) -> Held:
        """A tensor that is computed, or a constant in its place."""
        if name not in self.held:
            axes = tuple(range(len(self.shape(name))))
            self.held[name] = Held(self.moved(name, axes), axes)
        return self.held[name]

    def moved(self, name: str, axes: tuple[int, ...]) -> str:
        """The value with its axes at these places; a constant is written like that."""
        tensor = self.graph.tensor(name)
        order = [axes.index(place) for place in range(len(axes))]
        if name not in self.held and tensor.data is not None:
            data = tensor.data.transpose(order)[None]
            return (
                self.array(name, data)
                if tensor.quantization is None
                else self.constant(name, data, tensor.quantization)
            )
        held = self.held[name]
        if held.axes == axes:
            return held.name
        perm = [0, *(held.axes[axis] + 1 for axis in order)]
        return self.emit("Transpose", (held.name,), f"{name}.moved", perm=perm)

    def plain(self, name: str) -> str:
        return self.moved(name, tuple(range(len(self.shape(name)))))


Rule = Callable[[Writer, Node], None]


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


def _dense(writer: Writer, node: Node) -> None:
    inputs = (writer.plain(node.inputs[0]), *_constants(writer, node, lambda weight: weight))
    _limited(writer, node, writer.emit("Gemm", inputs, f"{node.output}.sum", transB=1))


def _convolution(writer: Writer, node: Node) -> None:
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


def _pool(writer: Writer, node: Node) -> None:
    op = "MaxPool" if node.op == "max_pool2d_int8" else "AveragePool"
    kernel = list(map(int, node.attributes["kernel"]))
    inputs = (writer.moved(node.inputs[0], FIRST),)
    value = writer.emit(op, inputs, f"{node.output}.pool", kernel_shape=kernel, **_geometry(node))
    _limited(writer, node, value, FIRST)


def _global_average(writer: Writer, node: Node) -> None:
    held = writer.place(node.inputs[0])
    axes = sorted(axis + 1 for axis in held.axes[:-1])
    _limited(writer, node, writer.emit("ReduceMean", (held.name,), f"{node.output}.mean", axes=axes, keepdims=0))


def _two(op: str) -> Rule:
    def rule(writer: Writer, node: Node) -> None:
        first = next(name for name in node.inputs if not writer.graph.tensor(name).is_constant)
        axes = writer.place(first).axes
        value = writer.emit(op, [writer.moved(name, axes) for name in node.inputs], f"{node.output}.{op.lower()}")
        _limited(writer, node, value, axes)

    return rule


def _reshape(writer: Writer, node: Node) -> None:
    shape = writer.array(f"{node.output}.shape", np.array([0, *node.attributes["shape"]], np.int64))
    writer.keep(node.output, writer.emit("Reshape", (writer.plain(node.inputs[0]), shape), f"{node.output}.reshaped"))


def _transpose(writer: Writer, node: Node) -> None:
    held = writer.place(node.inputs[0])
    writer.keep(node.output, held.name, tuple(held.axes[axis] for axis in node.attributes["permutation"]))


def _pad(writer: Writer, node: Node) -> None:
    held, q = writer.place(node.inputs[0]), writer.quantization(node.output)
    edges = np.zeros((2, len(held.axes) + 1), np.int64)
    for axis, pair in zip(held.axes, node.attributes["padding"], strict=True):
        edges[:, axis + 1] = pair
    value = np.float32(q.scale) * np.float32(int(node.attributes["value"]) - int(q.zero_point))
    given = writer.array(f"{node.output}.pads", edges.ravel()), writer.array(f"{node.output}.value", value)
    writer.quantized(node.output, writer.emit("Pad", (held.name, *given), f"{node.output}.padded"), held.axes)


def _slice(writer: Writer, node: Node) -> None:
    held = writer.place(node.inputs[0])
    axis = held.axes[node.attributes["axis"]] + 1
    numbers = (("start", node.attributes["start"]), ("stop", node.attributes["stop"]), ("axis", axis))
    given = [writer.array(f"{node.output}.{key}", np.array([value], np.int64)) for key, value in numbers]
    writer.keep(node.output, writer.emit("Slice", (held.name, *given), f"{node.output}.part"), held.axes)


def _concat(writer: Writer, node: Node) -> None:
    axes = writer.place(node.inputs[0]).axes
    parts = [writer.moved(name, axes) for name in node.inputs]
    axis = axes[node.attributes["axis"]] + 1
    writer.quantized(node.output, writer.emit("Concat", parts, f"{node.output}.joined", axis=axis), axes)


def _lookup(writer: Writer, node: Node) -> None:
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


def _softmax(writer: Writer, node: Node) -> None:
    x = writer.plain(node.inputs[0])
    shape = writer.shape(node.output)
    if len(shape) != 1:
        raise ModelError(f"node '{node.name}' ({node.op}): its input has the shape {shape}; a vector can be written")
    writer.quantized(node.output, writer.emit("Softmax", (x,), f"{node.output}.softmax", axis=-1))


def _embedding(writer: Writer, node: Node) -> None:
    table = writer.array(node.inputs[1], writer.graph.tensor(node.inputs[1]).data)
    writer.keep(node.output, writer.emit("Gather", (table, writer.plain(node.inputs[0])), node.output, axis=0))


def _quantize(writer: Writer, node: Node) -> None:
    held = writer.place(node.inputs[0])
    writer.quantized(node.output, held.name, held.axes)


def _dequantize(writer: Writer, node: Node) -> None:
    held = writer.place(node.inputs[0])
    writer.keep(node.output, held.name, held.axes)


RULES: dict[str, Rule] = {
    "dense_int8": _dense,
    "conv2d_int8": _convolution,
    "depthwise_conv2d_int8": _convolution,
    "max_pool2d_int8": _pool,
    "average_pool2d_int8": _pool,
    "global_average_int8": _global_average,
    "add_int8": _two("Add"),
    "multiply_int8": _two("Mul"),
    "reshape": _reshape,
    "transpose": _transpose,
    "pad": _pad,
    "slice": _slice,
    "concat": _concat,
    "lookup_int8": _lookup,
    "softmax_int8": _softmax,
    "embedding": _embedding,
    "quantize": _quantize,
    "dequantize": _dequantize,
}
"""By operator of an int8 graph."""


def is_int8(graph: Graph) -> bool:
    return any(tensor.dtype == "int8" and not tensor.is_constant for tensor in graph.tensors.values())


def to_onnx(graph: Graph) -> onnx.ModelProto:
    """An int8 graph as an ONNX model in QDQ form, real numbers in and out, any batch.

    Raises ModelError for a node that has no such form, naming it.
    """
    from onnx import TensorProto, helper, numpy_helper

    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ModelError(f"graph '{graph.name}' has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; "
                         "a file has one of each")  # fmt: skip
    (source,), (result,) = graph.inputs, graph.outputs
    writer = Writer(graph, names={source, result})
    indices = any(node.op == "embedding" for node in graph.consumers(source))
    if graph.tensor(source).quantization is None:
        writer.keep(source, source)
    else:
        writer.quantized(source, source)
    for node in graph.nodes:
        if node.op not in RULES:
            raise ModelError(f"node '{node.name}' ({node.op}): has no QDQ form. Supported: {', '.join(sorted(RULES))}")
        RULES[node.op](writer, node)
    writer.nodes.append(helper.make_node("Identity", [writer.plain(result)], [result], name=result))
    kinds = TensorProto.INT64 if indices else TensorProto.FLOAT, TensorProto.FLOAT
    ends = [
        helper.make_tensor_value_info(name, kind, ["batch", *graph.tensor(name).shape])
        for name, kind in zip((source, result), kinds, strict=True)
    ]
    arrays = [numpy_helper.from_array(np.asarray(array, order="C"), name) for name, array in writer.arrays.items()]
    made = helper.make_graph(writer.nodes, graph.name, ends[:1], ends[1:], arrays)
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="microtune"
    )


def save(graph: Graph, path: str | os.PathLike[str]) -> Path:
    """Write a graph as an .onnx file: an int8 graph in QDQ form, a float one by PyTorch's exporter.

    ``mt.load`` reads it back as a graph that takes and gives real numbers and predicts the same: an int8 one to the
    last bit. The file appears whole or not at all.

    Raises ModelError for a path that does not end in .onnx, a node that has no form in the file, and for a float graph
    where PyTorch is missing.
    """
    goal = Path(path)
    if goal.suffix.lower() != ".onnx":
        raise ModelError(f"{goal}: graphs are saved as .onnx files")
    if is_int8(graph):
        model = to_onnx(graph)
    else:
        from microtune.frontends.torch import onnx_of
        from microtune.training.bridge import to_torch

        module = to_torch(graph, logits=False)
        indices = any(node.op == "embedding" for node in graph.consumers(graph.inputs[0]))
        shape = (1, *graph.tensor(graph.inputs[0]).shape)
        model = onnx_of(module, np.zeros(shape, np.int64 if indices else np.float32))
    goal.parent.mkdir(parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(dir=goal.parent, prefix=f".{goal.name}-", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(model.SerializeToString(deterministic=True))
        Path(part).replace(goal)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    return goal
