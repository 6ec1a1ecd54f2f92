"""The one intermediate representation: nodes over named tensors, in execution order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from microtune.ir.tensor import Tensor


@dataclass(frozen=True, eq=False)
class Node:
    """One operation. ``op`` is a key of ``microtune.ops.OPS``; inputs and outputs are tensor names.

    ``updates`` maps an output to the input whose memory it must take (an in-place parameter update).
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    updates: Mapping[str, str] = field(default_factory=dict)

    @property
    def output(self) -> str:
        """The first output; most nodes have only one."""
        return self.outputs[0]


@dataclass(frozen=True, eq=False)
class Graph:
    """A directed acyclic graph of nodes listed in execution order.

    ``tensors`` holds every tensor by name; ``inputs`` and ``outputs`` are names. Transformations return
    a new graph and never change one in place.
    """

    name: str
    tensors: Mapping[str, Tensor]
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def tensor(self, name: str) -> Tensor:
        return self.tensors[name]

    @property
    def constants(self) -> tuple[Tensor, ...]:
        """Constant tensors in the order of their first use, so that the same graph prints the same way."""
        used = dict.fromkeys(name for node in self.nodes for name in node.inputs)
        return tuple(self.tensors[name] for name in used if self.tensors[name].is_constant)

    @property
    def is_int8(self) -> bool:
        """Whether anything is computed in int8."""
        return any(tensor.dtype == "int8" and not tensor.is_constant for tensor in self.tensors.values())

    def producer(self, name: str) -> Node | None:
        """The node that computes a tensor, or None for inputs and constants."""
        return next((node for node in self.nodes if name in node.outputs), None)

    def consumers(self, name: str) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if name in node.inputs)

    def with_nodes(self, nodes: Iterable[Node], tensors: Iterable[Tensor] = ()) -> Graph:
        """This graph with other nodes and some tensors added or replaced; unused tensors are dropped."""
        nodes = tuple(nodes)
        known = {**self.tensors, **{tensor.name: tensor for tensor in tensors}}
        used = dict.fromkeys([*self.inputs, *self.outputs])
        for node in nodes:
            used.update(dict.fromkeys([*node.inputs, *node.outputs]))
        return replace(self, nodes=nodes, tensors={name: known[name] for name in used})

    def fresh_name(self, wish: str) -> str:
        """``wish``, or with a number behind it if that name is taken."""
        name, count = wish, 1
        while name in self.tensors:
            count += 1
            name = f"{wish}_{count}"
        return name
