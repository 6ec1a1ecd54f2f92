"""The QDQ form of what moves values and computes none."""

from __future__ import annotations

import numpy as np

from microtune.compress.qdq_writer import Writer
from microtune.ir import Node


def reshape(writer: Writer, node: Node) -> None:
    shape = writer.array(f"{node.output}.shape", np.array([0, *node.attributes["shape"]], np.int64))
    writer.keep(node.output, writer.emit("Reshape", (writer.plain(node.inputs[0]), shape), f"{node.output}.reshaped"))


def transpose(writer: Writer, node: Node) -> None:
    held = writer.place(node.inputs[0])
    writer.keep(node.output, held.name, tuple(held.axes[axis] for axis in node.attributes["permutation"]))


def pad(writer: Writer, node: Node) -> None:
    held, q = writer.place(node.inputs[0]), writer.quantization(node.output)
    edges = np.zeros((2, len(held.axes) + 1), np.int64)
    for axis, pair in zip(held.axes, node.attributes["padding"], strict=True):
        edges[:, axis + 1] = pair
    value = np.float32(q.scale) * np.float32(int(node.attributes["value"]) - int(q.zero_point))
    given = writer.array(f"{node.output}.pads", edges.ravel()), writer.array(f"{node.output}.value", value)
    writer.quantized(node.output, writer.emit("Pad", (held.name, *given), f"{node.output}.padded"), held.axes)


def take_slice(writer: Writer, node: Node) -> None:
    held = writer.place(node.inputs[0])
    axis = held.axes[node.attributes["axis"]] + 1
    numbers = (("start", node.attributes["start"]), ("stop", node.attributes["stop"]), ("axis", axis))
    given = [writer.array(f"{node.output}.{key}", np.array([value], np.int64)) for key, value in numbers]
    writer.keep(node.output, writer.emit("Slice", (held.name, *given), f"{node.output}.part"), held.axes)


def concat(writer: Writer, node: Node) -> None:
    axes = writer.place(node.inputs[0]).axes
    parts = [writer.moved(name, axes) for name in node.inputs]
    axis = axes[node.attributes["axis"]] + 1
    writer.quantized(node.output, writer.emit("Concat", parts, f"{node.output}.joined", axis=axis), axes)
