"""The module that ``to_torch`` makes: layers by name, calls in order, and where the axes of each value are.

A graph has its channels last, PyTorch's layers want them first. Each value is held as it came out of the last layer,
together with where its axes went, and is moved only where a layer or a reshape needs it otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from microtune.errors import ModelError
from microtune.ir import Graph, Node

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
"""Writes what one node computes, and keeps its output."""
