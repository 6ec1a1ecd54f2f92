"""Check that a graph is well formed. Every compiler pass is followed by this check."""

from __future__ import annotations

from microtune.errors import ModelError
from microtune.ir.graph import Graph


def verify(graph: Graph, after: str = "import") -> Graph:
    """Return ``graph`` unchanged, or raise ModelError naming the node and the step that broke it.

    Holds afterwards: every name is known, every tensor is computed exactly once and before its first use,
    constants are not written, shapes are static and positive, data has the declared shape and type.
    """

    def broken(what: str) -> ModelError:
        return ModelError(f"graph '{graph.name}' is not valid after {after}: {what}")

    for name, tensor in graph.tensors.items():
        if name != tensor.name:
            raise broken(f"tensor '{tensor.name}' is registered as '{name}'")
        if any(not isinstance(size, int) or size < 1 for size in tensor.shape):
            raise broken(
                f"tensor '{name}' has the shape {tensor.shape}; every dimension must be a fixed size of at least 1"
            )
        if tensor.data is not None and (tensor.data.shape != tensor.shape or str(tensor.data.dtype) != tensor.dtype):
            raise broken(
                f"constant '{name}' holds {tensor.data.dtype}{tensor.data.shape}, not {tensor.dtype}{tensor.shape}"
            )
    for name in (*graph.inputs, *graph.outputs):
        if name not in graph.tensors:
            raise broken(f"'{name}' is an input or output of the graph but is not a tensor of it")
    ready = {*graph.inputs, *(name for name, tensor in graph.tensors.items() if tensor.is_constant)}
    for node in graph.nodes:
        for name in node.inputs:
            if name not in graph.tensors:
                raise broken(f"node '{node.name}' ({node.op}) reads '{name}', which does not exist")
            if name not in ready:
                raise broken(f"node '{node.name}' ({node.op}) reads '{name}' before it is computed (a cycle?)")
        for name in node.outputs:
            if name in ready:
                raise broken(f"node '{node.name}' ({node.op}) computes '{name}' a second time")
            if name not in graph.tensors:
                raise broken(f"node '{node.name}' ({node.op}) computes '{name}', which is not declared")
            ready.add(name)
        for new, old in node.updates.items():
            if new not in node.outputs or old not in node.inputs:
                raise broken(
                    f"node '{node.name}' ({node.op}) updates '{old}' as '{new}', but does not read and write them"
                )
    for name in graph.outputs:
        if name not in ready:
            raise broken(f"output '{name}' is never computed")
    return graph
