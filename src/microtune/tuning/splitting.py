"""A layer in parts by its output channels, so that some of them can learn and the others stay frozen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from microtune.errors import PlanError
from microtune.ir import Graph, Node, Quantization, Tensor, constant
from microtune.ops import OPS
from microtune.tuning.layers import is_depthwise


@dataclass(frozen=True)
class Parts:
    """The graph with the parts for the layer. ``chosen`` names the node of the chosen channels, ``others`` the rest."""

    graph: Graph
    chosen: str
    others: tuple[str, ...]


def _taken(tensor: Tensor, axis: int, start: int, stop: int, name: str) -> Tensor:
    """Channels ``start`` to ``stop`` of a constant, and of its scales."""
    q = tensor.quantization
    assert tensor.data is not None
    if q is not None and q.axis is not None:
        q = Quantization(q.scale[start:stop], q.zero_point[start:stop], q.axis)
    return constant(name, np.take(tensor.data, np.arange(start, stop), axis), q)


def split_outputs(graph: Graph, node: Node, start: int, stop: int) -> Parts:
    """The layer as up to three layers beside each other, joined again: the output channels before ``start``, those up
    to ``stop``, and those behind. Raises PlanError where a depthwise layer's channels cannot be told apart so."""
    x, weight = (graph.tensor(name) for name in node.inputs[:2])
    depthwise = is_depthwise(node)
    outputs = weight.shape[-1] if depthwise else weight.shape[0]
    multiplier = outputs // x.shape[-1] if depthwise else 1
    if start % multiplier or stop % multiplier:
        raise PlanError(
            f"Sparse: layer '{node.name}' has {multiplier} outputs for each input channel; choose multiples of that"
        )
    ranges = [(low, high) for low, high in ((0, start), (start, stop), (stop, outputs)) if low < high]
    tensors: dict[str, Tensor] = {}
    nodes: list[Node] = []
    names: list[str] = []

    def fresh(wish: str) -> str:
        name, count = wish, 1
        while name in graph.tensors or name in tensors:
            count += 1
            name = f"{wish}_{count}"
        return name

    def add(tensor: Tensor) -> str:
        tensors[tensor.name] = tensor
        return tensor.name

    y = graph.tensor(node.output)
    for low, high in ranges:
        part = fresh(f"{node.name}.{low}to{high}")
        source = x.name
        if depthwise:
            first, last = low // multiplier, high // multiplier
            source = add(replace(x, name=fresh(f"{part}.channels"), shape=(*x.shape[:-1], last - first)))
            given = {"axis": len(x.shape) - 1, "start": first, "stop": last}
            nodes.append(Node("slice", source, (x.name,), (source,), given))
        axis = len(weight.shape) - 1 if depthwise else 0
        taken = [
            add(_taken(graph.tensor(name), axis if at == 0 else 0, low, high, fresh(f"{name}.{low}to{high}")))
            for at, name in enumerate(node.inputs[1:])
        ]
        known = {**graph.tensors, **tensors}
        inputs = (source, *taken)
        given_inputs = [known[name] for name in inputs]
        # a depthwise part may take a workspace of its own
        more = OPS[node.op].count(given_inputs, node.attributes) - 1
        results = OPS[node.op].results(
            [part, *(fresh(f"{part}.rows") for _ in range(more))], given_inputs, node.attributes
        )
        add(replace(results[0], quantization=y.quantization))
        nodes.append(replace(node, name=part, inputs=inputs, outputs=(part, *(add(each) for each in results[1:]))))
        names.append(part)
    nodes.append(Node("concat", node.name, tuple(names), (node.output,), {"axis": len(y.shape) - 1}))
    at = graph.nodes.index(node)
    whole = graph.with_nodes([*graph.nodes[:at], *nodes, *graph.nodes[at + 1 :]], tensors.values())
    chosen = names[[low for low, _ in ranges].index(start)]
    return Parts(whole, chosen, tuple(name for name in names if name != chosen))
