"""Small edits of a graph that the rewrites are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from microtune.ir import Graph, Node, Tensor, constant

Rule = Callable[[Graph, Node], Graph | None]
"""What becomes of a graph at one node; None where the rule does not apply."""


def is_float_constant(tensor: Tensor) -> bool:
    return tensor.data is not None and tensor.dtype == "float32" and tensor.quantization is None


def is_private(graph: Graph, name: str) -> bool:
    """Read by one node once, and not an output: nobody misses it."""
    readers = [reader for node in graph.nodes for reader in node.inputs if reader == name]
    return len(readers) == 1 and name not in graph.outputs


def swap(graph: Graph, node: Node, nodes: Sequence[Node], tensors: Sequence[Tensor] = ()) -> Graph:
    """The graph with ``nodes`` in the place of ``node``."""
    at = graph.nodes.index(node)
    return graph.with_nodes([*graph.nodes[:at], *nodes, *graph.nodes[at + 1 :]], tensors)


def renamed(graph: Graph, old: str, new: str, without: Node) -> Graph:
    """The graph without one node, where every other node reads and writes ``new`` for ``old``."""

    def names(given: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(new if name == old else name for name in given)

    rest = [replace(n, inputs=names(n.inputs), outputs=names(n.outputs)) for n in graph.nodes if n is not without]
    return replace(graph, outputs=names(graph.outputs)).with_nodes(rest)


def bypass(graph: Graph, node: Node, x: str) -> Graph | None:
    """Remove a node whose output equals ``x``, keeping the names of the graph's inputs and outputs."""
    y = node.output
    if y not in graph.outputs:
        return renamed(graph, y, x, node)
    if x in graph.inputs or x in graph.outputs or graph.tensor(x).is_constant:
        return None
    return renamed(graph, x, y, node)


def owned(graph: Graph, old: Tensor, data: np.ndarray) -> Tensor:
    """A new value for a constant: under its name if one node reads it, else beside it."""
    return constant(old.name if is_private(graph, old.name) else graph.fresh_name(old.name), data)
