"""How ``to_torch`` writes what moves values and computes none."""

from __future__ import annotations

import torch
from torch.nn import functional

from microtune.ir import Node
from microtune.training.bridge_writer import Writer


def reshape(writer: Writer, node: Node) -> None:
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


def transpose(writer: Writer, node: Node) -> None:
    held = writer.read(node.inputs[0])
    writer.keep(node, held.value, tuple(held.axes[axis] for axis in node.attributes["permutation"]))


def pad(writer: Writer, node: Node) -> None:
    held = writer.read(node.inputs[0])
    edges = [0] * (2 * len(held.axes))
    for axis, pair in zip(held.axes, node.attributes["padding"], strict=True):
        place = 2 * (len(held.axes) - 1 - axis)  # PyTorch begins with the last axis
        edges[place : place + 2] = map(int, pair)
    given = (held.value, tuple(edges), "constant", float(node.attributes["value"]))
    writer.keep(node, writer.calls.call_function(functional.pad, given), held.axes)


def take_slice(writer: Writer, node: Node) -> None:
    held = writer.read(node.inputs[0])
    axis, start, stop = (node.attributes[key] for key in ("axis", "start", "stop"))
    writer.keep(node, writer.method("narrow", held.value, held.axes[axis] + 1, start, stop - start), held.axes)


def concat(writer: Writer, node: Node) -> None:
    axes = writer.read(node.inputs[0]).axes
    parts = [writer.moved(writer.read(name), axes) for name in node.inputs]
    axis = axes[node.attributes["axis"]] + 1
    writer.keep(node, writer.calls.call_function(torch.cat, (parts, axis)), axes)
