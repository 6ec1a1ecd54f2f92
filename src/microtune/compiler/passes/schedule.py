"""Order the nodes so that every gradient is used and freed as soon as it exists."""

from __future__ import annotations

from microtune.ir import Graph, Node


def _freed(graph: Graph, node: Node, waiting: dict[str, int], fixed: set[str]) -> int:
    """Bytes that running ``node`` now frees, less those it takes."""
    taken = sum(graph.tensor(name).bytes for name in node.outputs if name not in node.updates)
    done = sum(graph.tensor(name).bytes for name in set(node.inputs) if waiting[name] == 1 and name not in fixed)
    return done - taken


def reorder(graph: Graph) -> Graph:
    """The same nodes in the order that frees most at each step (greedy list scheduling).

    A node that updates a tensor in place waits until everyone else has read the old value.
    """
    fixed = {*graph.inputs, *graph.outputs, *(tensor.name for tensor in graph.constants)}
    waiting = {name: sum(name in node.inputs for node in graph.nodes) for name in graph.tensors}
    ready = {*graph.inputs, *(tensor.name for tensor in graph.constants)}
    left = list(graph.nodes)
    order: list[Node] = []
    while left:
        able = [
            node
            for node in left
            if ready.issuperset(node.inputs) and all(waiting[old] == 1 for old in node.updates.values())
        ]
        # ties keep the order of the graph, so that the result is the same every time
        node = max(able, key=lambda each: (_freed(graph, each, waiting, fixed), -left.index(each)))
        order.append(node)
        left.remove(node)
        ready.update(node.outputs)
        for name in set(node.inputs):
            waiting[name] -= 1
    return graph.with_nodes(order)
