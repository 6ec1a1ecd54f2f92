"""An ONNX file in QDQ form in the making: its nodes, its arrays, and where the axes of each value are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from microtune.errors import ModelError
from microtune.ir import Graph, Node, Quantization

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
"""Writes what one node computes, and keeps its output."""
