"""Print a graph so that it reads like code."""

from __future__ import annotations

from microtune.ir.graph import Graph, Node
from microtune.ir.tensor import Tensor


def _typed(tensor: Tensor) -> str:
    shape = "x".join(map(str, tensor.shape)) or "scalar"
    return f"{tensor.name}: {tensor.dtype}[{shape}]"


def _statement(graph: Graph, node: Node) -> str:
    outputs = ", ".join(_typed(graph.tensors[name]) for name in node.outputs)
    attributes = "".join(f", {key}={value}" for key, value in node.attributes.items())
    placed = "".join(f"  # in place of {old}" for old in node.updates.values())
    return f"  {outputs} = {node.op}({', '.join(node.inputs)}{attributes}){placed}"


def format_graph(graph: Graph) -> str:
    """The graph as text: inputs, one line per node, outputs."""
    inputs = ", ".join(_typed(graph.tensors[name]) for name in graph.inputs)
    lines = [f"graph {graph.name}({inputs}):"]
    lines += [f"  {_typed(tensor)} = constant" for tensor in graph.constants]
    lines += [_statement(graph, node) for node in graph.nodes]
    lines.append(f"  return {', '.join(graph.outputs)}")
    return "\n".join(lines)
