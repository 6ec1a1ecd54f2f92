"""Fold what needs no computing on the device: constants, scales and shifts, identities, dead nodes.

A scale or shift by a constant next to a dense layer becomes part of its weight and bias:
W (c * x) + b = (W c) x + b, W (x + c) + b = W x + (b + W c), and likewise behind the layer. This is exact but
for one rounding of each weight to float32; the sums are formed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from microtune.ir import Graph, Node, Tensor, constant, verify
from microtune.ops import OPS

Rule = Callable[[Graph, Node], Graph | None]


def _is_float_constant(tensor: Tensor) -> bool:
    return tensor.data is not None and tensor.dtype == "float32" and tensor.quantization is None


def _split_constant(graph: Graph, node: Node) -> tuple[str, Tensor] | None:
    """(variable input, constant input) of an add or multiply by a constant."""
    if node.op not in ("add", "multiply"):
        return None
    for x, other in (node.inputs, node.inputs[::-1]):
        if _is_float_constant(graph.tensor(other)) and not graph.tensor(x).is_constant:
            return x, graph.tensor(other)
    return None


def _is_private(graph: Graph, name: str) -> bool:
    """Read by one node once, and not an output: nobody misses it."""
    readers = [reader for node in graph.nodes for reader in node.inputs if reader == name]
    return len(readers) == 1 and name not in graph.outputs


def _swap(graph: Graph, node: Node, nodes: Sequence[Node], tensors: Sequence[Tensor] = ()) -> Graph:
    """The graph with ``nodes`` in the place of ``node``."""
    at = graph.nodes.index(node)
    return graph.with_nodes([*graph.nodes[:at], *nodes, *graph.nodes[at + 1 :]], tensors)


def _renamed(graph: Graph, old: str, new: str, without: Node) -> Graph:
    """The graph without one node, where every other node reads and writes ``new`` for ``old``."""

    def names(given: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(new if name == old else name for name in given)

    rest = [replace(n, inputs=names(n.inputs), outputs=names(n.outputs)) for n in graph.nodes if n is not without]
    return replace(graph, outputs=names(graph.outputs)).with_nodes(rest)


def _bypass(graph: Graph, node: Node, x: str) -> Graph | None:
    """Remove a node whose output equals ``x``, keeping the names of the graph's inputs and outputs."""
    y = node.output
    if y not in graph.outputs:
        return _renamed(graph, y, x, node)
    if x in graph.inputs or x in graph.outputs or graph.tensor(x).is_constant:
        return None
    return _renamed(graph, x, y, node)


def _evaluate(graph: Graph, node: Node) -> Graph | None:
    """A node that reads only constants is computed now."""
    inputs = [graph.tensor(name) for name in node.inputs]
    if node.updates or len(node.outputs) != 1 or not inputs or not all(map(_is_float_constant, inputs)):
        return None
    with np.errstate(all="ignore"):
        (value,) = OPS[node.op].reference([t.data for t in inputs if t.data is not None], node.attributes)
    value = np.asarray(value, np.float32)
    return _swap(graph, node, (), [constant(node.output, value)]) if np.isfinite(value).all() else None


def _drop_identity(graph: Graph, node: Node) -> Graph | None:
    """Reshape to the same shape, + 0, * 1."""
    if node.op == "reshape":
        x = node.inputs[0]
        return _bypass(graph, node, x) if graph.tensor(x).shape == graph.tensor(node.output).shape else None
    split = _split_constant(graph, node)
    if split is None or not np.all(split[1].data == (0.0 if node.op == "add" else 1.0)):
        return None
    return _bypass(graph, node, split[0])


def _join_reshapes(graph: Graph, node: Node) -> Graph | None:
    """Of two reshapes in a row the first is skipped."""
    before = graph.producer(node.inputs[0]) if node.op == "reshape" else None
    if before is None or before.op != "reshape":
        return None
    return _swap(graph, node, [replace(node, inputs=before.inputs)])


def _reshape_first(graph: Graph, node: Node) -> Graph | None:
    """A scale or shift before a reshape goes behind it, nearer to the dense layer it may fold into."""
    before = graph.producer(node.inputs[0]) if node.op == "reshape" else None
    split = _split_constant(graph, before) if before else None
    if before is None or split is None or not _is_private(graph, before.output):
        return None
    x, other = split
    shape = graph.tensor(node.output).shape
    moved = Tensor(graph.fresh_name(f"{x}.reshaped"), shape)
    turned = _owned(graph, other, np.asarray(other.data).reshape(shape))
    pair = [
        replace(node, inputs=(x,), outputs=(moved.name,)),
        replace(before, inputs=(moved.name, turned.name), outputs=node.outputs),
    ]
    swapped = _swap(graph, node, pair, [moved, turned])
    return swapped.with_nodes(n for n in swapped.nodes if n is not before)


def _owned(graph: Graph, old: Tensor, data: np.ndarray) -> Tensor:
    """A new value for a constant: under its name if one node reads it, else beside it."""
    return constant(old.name if _is_private(graph, old.name) else graph.fresh_name(old.name), data)


def _folded_dense(
    graph: Graph, dense: Node, weight: np.ndarray, bias: np.ndarray, named: Tensor | None
) -> tuple[Node, list[Tensor]] | None:
    """The dense node with another weight and bias (float64), or None where float32 cannot hold them.

    ``named``: the constant that was added; its name goes to the bias if there was none.
    """
    with np.errstate(over="ignore"):
        arrays = [weight.astype(np.float32), bias.astype(np.float32)]
    if not all(np.isfinite(array).all() for array in arrays):
        return None
    old_weight, *old_bias = (graph.tensor(name) for name in dense.inputs[1:])
    tensors = [_owned(graph, old_weight, arrays[0]) if (arrays[0] != old_weight.data).any() else old_weight]
    if old_bias and (named is None or np.any(old_bias[0].data)):
        tensors.append(_owned(graph, old_bias[0], arrays[1]))
    else:  # a bias that the source model did not have takes the name of what becomes it
        wish = named.name if named is not None else f"{dense.name}.bias"
        free = wish not in graph.tensors or (named is not None and _is_private(graph, wish))
        tensors.append(constant(wish if free else graph.fresh_name(wish), arrays[1]))
    return replace(dense, inputs=(dense.inputs[0], *(tensor.name for tensor in tensors))), tensors


def _parameters(graph: Graph, node: Node | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Weight and bias of a dense layer in float64, if they are constant floats."""
    if (
        node is None
        or node.op != "dense"
        or not all(_is_float_constant(graph.tensor(name)) for name in node.inputs[1:])
    ):
        return None
    weight, *bias = (np.asarray(graph.tensor(name).data, np.float64) for name in node.inputs[1:])
    return weight, bias[0] if bias else np.zeros(len(weight))


def _into_layer_before(graph: Graph, node: Node) -> Graph | None:
    """dense, then a scale or shift that alone reads it."""
    split = _split_constant(graph, node)
    dense = graph.producer(split[0]) if split else None
    parameters = _parameters(graph, dense)
    if split is None or dense is None or parameters is None or not _is_private(graph, dense.output):
        return None
    weight, bias = parameters
    c = np.asarray(split[1].data, np.float64)
    if node.op == "multiply":
        found = _folded_dense(graph, dense, weight * c[:, None], bias * c, None)
    else:
        found = _folded_dense(graph, dense, weight, bias + c, split[1])
    if found is None:
        return None
    merged, tensors = found
    nodes = [replace(merged, outputs=node.outputs) if n is dense else n for n in graph.nodes if n is not node]
    return graph.with_nodes(nodes, tensors)


def _into_layers_behind(graph: Graph, node: Node) -> Graph | None:
    """A scale or shift that only dense layers read as their x."""
    split = _split_constant(graph, node)
    readers = graph.consumers(node.output)
    if split is None or node.output in graph.outputs or not readers:
        return None
    x, other = split
    c = np.asarray(other.data, np.float64)
    result = graph
    for dense in readers:
        parameters = _parameters(graph, dense)
        if parameters is None or node.output in dense.inputs[1:]:
            return None
        weight, bias = parameters
        if node.op == "multiply":
            found = _folded_dense(result, dense, weight * c, bias, None)
        else:
            found = _folded_dense(result, dense, weight, bias + weight @ c, None)
        if found is None:
            return None
        merged, tensors = found
        result = _swap(result, dense, [replace(merged, inputs=(x, *merged.inputs[1:]))], tensors)
    return result.with_nodes(n for n in result.nodes if n is not node)


RULES: tuple[Rule, ...] = (
    _evaluate,
    _drop_identity,
    _join_reshapes,
    _reshape_first,
    _into_layer_before,
    _into_layers_behind,
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
