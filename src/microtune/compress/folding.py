"""Fold what needs no computing on the device: constants, scales and shifts, identities, dead nodes.

A scale or shift by a constant next to a layer becomes part of its weight and bias (``folding_layers``). This is
exact but for one rounding of each weight to float32; the sums are formed in float64.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from microtune.compress.folding_layers import (
    behind_move,
    into_layer_before,
    into_layers_behind,
    join_affines,
    pad_into_layer,
    split_constant,
)
from microtune.compress.rewriting import Rule, bypass, is_float_constant, swap
from microtune.ir import Graph, Node, constant, verify
from microtune.ops import OPS


def _evaluate(graph: Graph, node: Node) -> Graph | None:
    """A node that reads only constants is computed now."""
    inputs = [graph.tensor(name) for name in node.inputs]
    if node.updates or len(node.outputs) != 1 or not inputs or not all(map(is_float_constant, inputs)):
        return None
    with np.errstate(all="ignore"):
        (value,) = OPS[node.op].reference([t.data for t in inputs if t.data is not None], node.attributes)
    value = np.asarray(value, np.float32)
    return swap(graph, node, (), [constant(node.output, value)]) if np.isfinite(value).all() else None


def _drop_identity(graph: Graph, node: Node) -> Graph | None:
    """Reshape to the same shape, transposition to the same order, + 0, * 1."""
    x = node.inputs[0] if node.inputs else ""
    data = [graph.tensor(name).data for name in node.inputs[1:]]
    match node.op:
        case "reshape":
            is_identity = graph.tensor(x).shape == graph.tensor(node.output).shape
        case "transpose":
            order = tuple(node.attributes["permutation"])
            is_identity = order == tuple(range(len(order)))
        case "channel_affine" if all(map(is_float_constant, map(graph.tensor, node.inputs[1:]))):
            is_identity = bool(np.all(data[0] == 1.0) and np.all(data[1] == 0.0))
        case _:
            split = split_constant(graph, node)
            is_identity = split is not None and bool(np.all(split[1].data == (0.0 if node.op == "add" else 1.0)))
            x = split[0] if split else x
    return bypass(graph, node, x) if is_identity else None


def _join_moves(graph: Graph, node: Node) -> Graph | None:
    """Of two reshapes in a row the first is skipped; two transpositions become one."""
    before = graph.producer(node.inputs[0]) if node.op in ("reshape", "transpose") else None
    if before is None or before.op != node.op:
        return None
    if node.op == "reshape":
        return swap(graph, node, [replace(node, inputs=before.inputs)])
    order = tuple(before.attributes["permutation"][axis] for axis in node.attributes["permutation"])
    return swap(graph, node, [replace(node, inputs=before.inputs, attributes={"permutation": order})])


RULES: tuple[Rule, ...] = (
    _evaluate,
    _drop_identity,
    _join_moves,
    behind_move,
    into_layer_before,
    into_layers_behind,
    join_affines,
    pad_into_layer,
)
"""Tried in this order on each node; each makes the graph smaller or moves a reshape towards the input."""


def drop_dead(graph: Graph) -> Graph:
    """Without the nodes that no output needs. Parameter updates are always needed."""
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if node.updates or needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    return graph.with_nodes(reversed(kept))


def _step(graph: Graph) -> Graph | None:
    """The graph after the first rule that applies anywhere, or None when all is folded."""
    for node in graph.nodes:
        for rule in RULES:
            found = rule(graph, node)
            if found is not None:
                return found
    return None


def fold(graph: Graph) -> Graph:
    """An equivalent graph with nothing left to fold. Inputs and outputs keep their names and shapes."""
    graph = drop_dead(verify(graph, "what came before folding"))
    while (found := _step(graph)) is not None:
        graph = drop_dead(found)
    return verify(graph, "folding")
