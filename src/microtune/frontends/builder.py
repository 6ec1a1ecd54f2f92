"""Write a graph node by node: shapes by the operators' own rules, names made safe, weights checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from microtune.errors import ModelError
from microtune.ir import Graph, Node, Quantization, Tensor, constant
from microtune.ops import OPS

LARGEST = 1 << 26
"""Most elements of a tensor, and of all constants together: 256 MB, beyond any target, below the absurd."""


def safe_name(wish: str) -> str:
    """A name of letters, digits, '_' and '.': it will stand in generated C and its comments."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", wish)[:80] or "tensor"


def check_size(shape: Sequence[int], where: str) -> None:
    """Raise ModelError for a shape with a dimension below 1 or an absurd number of elements."""
    if any(size < 1 for size in shape):
        raise ModelError(f"{where} has the shape {tuple(shape)}; every dimension must be at least 1")
    if math.prod(shape) > LARGEST:
        raise ModelError(f"{where} has the shape {tuple(shape)}, more than the {LARGEST} elements a tensor may have")


def as_float32(array: np.ndarray, where: str) -> np.ndarray:
    """Weights as float32; ModelError if one is not a finite number in that type."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.asarray(array).astype(np.float32)
    if not np.isfinite(found).all():
        raise ModelError(f"{where} holds numbers that are NaN, infinite or too large for float32")
    return found


class Builder:
    """A graph in the making. ``where`` arguments name the place in the source model for errors."""

    def __init__(self, name: str) -> None:
        self.name = safe_name(name)
        self._tensors: dict[str, Tensor] = {}
        self._nodes: list[Node] = []
        self._node_names: set[str] = set()
        self._input: Tensor | None = None
        self._elements = 0

    def _fresh(self, wish: str, taken: Mapping[str, Tensor] | set[str]) -> str:
        wish = safe_name(wish)
        name, count = wish, 1
        while name in taken:
            count += 1
            name = f"{wish}_{count}"
        return name

    def _register(self, tensor: Tensor) -> Tensor:
        self._tensors[tensor.name] = tensor
        return tensor

    def input(
        self, wish: str, shape: tuple[int, ...], dtype: str = "float32", quantization: Quantization | None = None
    ) -> Tensor:
        """The input of the graph; ``shape`` is that of one sample."""
        check_size(shape, f"input '{wish}'")
        self._input = self._register(Tensor(self._fresh(wish, self._tensors), shape, dtype, None, quantization))
        return self._input

    def constant(self, wish: str, array: np.ndarray, where: str) -> Tensor:
        """A float32 constant of its own: equal weights of two layers are not tied, each may learn."""
        return self.quantized(wish, as_float32(array, f"{where}: '{wish}'"), where, None)

    def quantized(self, wish: str, array: np.ndarray, where: str, quantization: Quantization | None) -> Tensor:
        """A constant of its own in the type of ``array``: int8 weights, int32 biases and multipliers."""
        self._elements += array.size
        if self._elements > LARGEST:
            raise ModelError(f"{where}: with '{wish}' the constants have more than {LARGEST} elements together")
        return self._register(constant(self._fresh(wish, self._tensors), array, quantization))

    def emit(
        self,
        op: str,
        inputs: Sequence[Tensor],
        wish: str,
        where: str,
        node: str = "",
        quantization: Quantization | None = None,
        **attributes: Any,
    ) -> Tensor:
        """Append a node and return its output, named ``wish`` if that is free; workspaces it needs come with it."""
        first = self._fresh(wish, self._tensors)
        try:
            workspaces = [
                self._fresh(f"{first}.{i}", self._tensors) for i in range(1, OPS[op].count(inputs, attributes))
            ]
            output, *rest = OPS[op].results([first, *workspaces], inputs, attributes)
        except ValueError as error:
            raise ModelError(f"{where}: {op} {error}") from error
        check_size(output.shape, where)
        for tensor in (replace(output, quantization=quantization), *rest):
            self._register(tensor)
        name = self._fresh(node or output.name, self._node_names)
        self._node_names.add(name)
        self._nodes.append(Node(op, name, tuple(tensor.name for tensor in inputs), (first, *workspaces), attributes))
        return self._tensors[first]

    def reshape(self, x: Tensor, shape: tuple[int, ...], wish: str, where: str) -> Tensor:
        """``x`` in another shape; ``x`` itself if it has that shape."""
        if x.shape == shape:
            return x
        return self.emit("reshape", (x,), wish, where, quantization=x.quantization, shape=shape)

    def finish(self, output: Tensor, source: str) -> Graph:
        """The graph that ends in ``output``; a scalar output becomes a vector of one."""
        if self._input is None or all(output.name not in node.outputs for node in self._nodes):
            raise ModelError(f"{source}: output '{output.name}' does not depend on the input through any operator")
        if output.shape == ():
            output = self.reshape(output, (1,), output.name, source)
        return Graph(self.name, dict(self._tensors), tuple(self._nodes), (self._input.name,), (output.name,))
