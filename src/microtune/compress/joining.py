"""``features`` and ``join``: a new head on what a network that was trained for something else computes inside.

The way to a head of one's own: compile ``features(net)``, run it over the samples, train the head on the outcome, and
``join`` the two into the network that the device gets.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from microtune.errors import ModelError
from microtune.ir import Graph, Node, Tensor, constant, verify
from microtune.ops.quantized_build import rescale_table

LAYERS = ("dense", "conv2d", "depthwise_conv2d")
KINDS = frozenset(f"{layer}{suffix}" for layer in LAYERS for suffix in ("", "_int8", "_weight8"))
"""Operators that count as a layer with weights."""


def _layers(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op in KINDS and graph.tensor(node.inputs[1]).is_constant]


def _up_to(graph: Graph, name: str) -> Graph:
    """What of the graph it takes to compute one tensor."""
    needed, kept = {name}, []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    return replace(graph, outputs=(name,)).with_nodes(reversed(kept))


def _without_last(graph: Graph, drop: int) -> Graph:
    """The graph up to the input of its last ``drop`` layers; the others must lie before them."""
    layers = _layers(graph)
    if not 0 <= drop < len(layers):
        raise ModelError(
            f"drop={drop}: '{graph.name}' has {len(layers)} layers with weights, so that drop is 0 to "
            f"{max(len(layers) - 1, 0)}"
        )
    if drop == 0:
        return _up_to(graph, graph.outputs[0])
    first = layers[-drop]
    left = _up_to(graph, first.inputs[0])
    kept = {node.name for node in left.nodes}
    lost = [node.name for node in layers[:-drop] if node.name not in kept]
    if lost:
        raise ModelError(
            f"drop={drop}: '{graph.name}' branches: what '{first.name}' reads does not depend on "
            f"{', '.join(map(repr, lost))}, which would be lost with it. Drop up to where the branches begin or end"
        )
    return left


def _ends(graph: Graph, what: str) -> tuple[Tensor, Tensor]:
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ModelError(
            f"the {what} '{graph.name}' has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; "
            "one of each is needed"
        )
    return graph.tensor(graph.inputs[0]), graph.tensor(graph.outputs[0])


def _appended(
    graph: Graph,
    op: str,
    shape: tuple[int, ...],
    attributes: Mapping[str, Any],
    like: Tensor | None = None,
    table: Tensor | None = None,
) -> Graph:
    """The graph with one more node behind its output; the new output is float32, or of the type of ``like``."""
    x = graph.outputs[0]
    name = graph.fresh_name(f"{x}.{op}")
    node = Node(op, name, (x, *(() if table is None else (table.name,))), (name,), attributes)
    result = Tensor(name, shape) if like is None else replace(like, name=name, shape=shape)
    return replace(graph, outputs=(name,)).with_nodes(
        [*graph.nodes, node], [result, *(() if table is None else (table,))]
    )  # fmt: skip


def _reshaped(graph: Graph, shape: tuple[int, ...]) -> Graph:
    return _appended(graph, "reshape", shape, {"shape": shape}, like=graph.tensor(graph.outputs[0]))


def _as_int8(graph: Graph, wanted: Tensor) -> Graph:
    """The graph with its output in the quantisation that an int8 head wants."""
    output, q = graph.tensor(graph.outputs[0]), wanted.quantization
    if q is None:
        raise ModelError(f"join: the head takes int8, and its input '{wanted.name}' has no scale")
    if output.dtype == "float32":
        given = {"scale": float(q.scale), "zero_point": int(q.zero_point)}
        return _appended(graph, "quantize", output.shape, given, like=wanted)
    if output.dtype != "int8" or output.quantization is None:
        return _as_int8(_as_floats(graph), wanted)  # which says what is wrong with it
    if (output.quantization.scale, output.quantization.zero_point) == (q.scale, q.zero_point):
        return graph
    table = constant(graph.fresh_name(f"{output.name}.table"), rescale_table(output.quantization, q))
    return _appended(graph, "lookup_int8", output.shape, {}, like=wanted, table=table)


def _as_floats(graph: Graph) -> Graph:
    output = graph.tensor(graph.outputs[0])
    if output.dtype == "float32":
        return graph
    if output.dtype != "int8" or output.quantization is None:
        raise ModelError(
            f"what is left of '{graph.name}' ends in '{output.name}' of type {output.dtype}, without a scale; "
            "a head reads float32, or int8 with one"
        )
    given = {"scale": float(output.quantization.scale), "zero_point": int(output.quantization.zero_point)}
    return _appended(graph, "dequantize", output.shape, given)


def _distinct(wishes: Collection[str], taken: Collection[str]) -> dict[str, str]:
    """{wish: itself, or where that is taken, with a number behind it}."""
    found: dict[str, str] = {}
    for wish in wishes:
        name, number = wish, 1
        while name in taken or (number > 1 and (name in wishes or name in found.values())):
            number += 1
            name = f"{wish}_{number}"
        found[wish] = name
    return found


def _behind(graph: Graph, head: Graph) -> Graph:
    """The head's nodes behind the graph's output, which they read in place of the head's input."""
    names = _distinct([name for name in head.tensors if name not in head.inputs], graph.tensors)
    tensors = [replace(head.tensor(name), name=new) for name, new in names.items()]
    names[head.inputs[0]] = graph.outputs[0]
    node_names = _distinct([node.name for node in head.nodes], {node.name for node in graph.nodes})
    nodes = [
        replace(
            node,
            name=node_names[node.name],
            inputs=tuple(names[name] for name in node.inputs),
            outputs=tuple(names[name] for name in node.outputs),
        )
        for node in head.nodes
    ]
    return replace(graph, outputs=(names[head.outputs[0]],)).with_nodes([*graph.nodes, *nodes], tensors)


def features(backbone: Graph, drop: int = 1) -> Graph:
    """The backbone without its last ``drop`` layers and what follows them; its output is one float32 vector.

    A layer is a dense, convolution or depthwise convolution with constant weights; 0 drops nothing. Features of an int8
    backbone are dequantised. Raises ModelError where ``drop`` leaves no layer, or dropping would cut a branch.
    """
    return verify(_as_floats(vector(backbone, drop)), "dropping layers")


def vector(backbone: Graph, drop: int = 1) -> Graph:
    """What is left without the last ``drop`` layers, its output a vector of the type it is computed in."""
    _ends(backbone, "backbone")
    left = _without_last(verify(backbone), drop)
    found = left.tensor(left.outputs[0])
    return left if len(found.shape) == 1 else _reshaped(left, (found.size,))


def join(backbone: Graph, head: Graph, drop: int = 1) -> Graph:
    """One graph: ``features(backbone, drop)``, then the head, which takes these features: as float32 or, where the head
    was quantised, as int8, to whose scale those of an int8 backbone are brought without floats.

    Names of the head that the backbone has as well get a number. Raises ModelError where ``features`` does, and where
    the head takes another number of values or another type.
    """
    wanted, _ = _ends(head, "head")
    if wanted.dtype not in ("float32", "int8"):
        raise ModelError(f"join: the head '{head.name}' takes {wanted.dtype}; it must take float32 or int8")
    left = vector(backbone, drop)
    joined = _as_floats(left) if wanted.dtype == "float32" else _as_int8(left, wanted)
    found = joined.tensor(joined.outputs[0])
    if found.size != wanted.size:
        raise ModelError(
            f"join(drop={drop}): '{backbone.name}' then ends in {found.size} values, '{found.name}'; "
            f"the head '{head.name}' takes {wanted.size}"
        )
    if found.shape != wanted.shape:
        joined = _reshaped(joined, wanted.shape)
    return verify(_behind(joined, verify(head)), "joining")
