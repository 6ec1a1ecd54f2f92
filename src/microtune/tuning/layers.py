"""The layers of a graph, and what an update scheme does to each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from microtune.errors import PlanError
from microtune.ir import Graph, Node
from microtune.tuning.schemes import Adapter, Bias, Full, Head, LayerName, LoRA, NormAffine, Outputs, Scheme, Sparse

WIDEST = 1024
"""Channels between the two projections of an adapter: more than any layer it should be small beside."""
KINDS = ("dense", "conv2d", "depthwise_conv2d")
FLOAT, WEIGHT8 = KINDS, tuple(f"{kind}_weight8" for kind in KINDS)
INT8 = (*(f"{kind}_int8" for kind in KINDS), "channel_scale_int8")


@dataclass(frozen=True)
class Change:
    """What is done to one layer. ``weight``: the input channels that learn, start and stop; ``outputs``: the output
    channels that do."""

    weight: tuple[int, int] | None = None
    outputs: tuple[int, int] | None = None
    bias: bool = False
    rank: int = 0
    width: int = 0
    affine: bool = False


def layers_of(graph: Graph) -> list[Node]:
    """Layers with constant weights, in order."""
    return [
        node
        for node in graph.nodes
        if node.op in (*FLOAT, *INT8, *WEIGHT8) and graph.tensor(node.inputs[1]).is_constant
    ]


def is_depthwise(node: Node) -> bool:
    return node.op.startswith("depthwise")


def input_channels(graph: Graph, node: Node) -> int:
    """Channels that a layer's weight reads; a depthwise one is counted as a whole."""
    return graph.tensor(node.inputs[1]).shape[-1]


def bias_position(node: Node) -> int:
    """Where among a layer's inputs its bias stands, if it has one."""
    return 3 if node.op in WEIGHT8 else 2


def _whole(graph: Graph, nodes: Sequence[Node]) -> dict[str, Change]:
    """Weights, and the biases that are there."""
    return {
        node.name: Change(weight=(0, input_channels(graph, node)), bias=len(node.inputs) > bias_position(node))
        for node in nodes
    }


def _last(found: Sequence[Node], layers: int | None, scheme: Scheme, graph: Graph) -> Sequence[Node]:
    if not found:
        raise PlanError(f"{scheme}: '{graph.name}' has no layer that it applies to")
    if layers is None:
        return found
    if not 1 <= layers <= len(found):
        raise PlanError(f"{scheme}: '{graph.name}' has {len(found)} such layers; use 1 to {len(found)}")
    return found[-layers:]


def find_layer(graph: Graph, name: LayerName) -> Node:
    """A layer by its node's name, its weight's name, or its number. Raises PlanError with those there are."""
    layers = layers_of(graph)
    if isinstance(name, int) and not isinstance(name, bool):
        if 0 <= name < len(layers):
            return layers[name]
        raise PlanError(f"layer {name}: '{graph.name}' has the layers 0 to {len(layers) - 1}")
    for node in layers:
        if name in (node.name, node.inputs[1]):
            return node
    known = ", ".join(f"{index} {node.name}" for index, node in enumerate(layers))
    raise PlanError(f"'{graph.name}' has no layer '{name}'. Its layers: {known}")


def _range(node: Node, part: float | slice, size: int, what: str) -> tuple[int, int] | None:
    """The channels that a fraction or a slice means; None for none."""
    if isinstance(part, slice):
        start, stop, step = part.indices(size)
        if step != 1 or start >= stop:
            raise PlanError(f"Sparse: {part} of layer '{node.name}' is no range within its {size} {what} channels")
        return start, stop
    if not 0 <= part <= 1:
        raise PlanError(f"Sparse: the fraction {part} of layer '{node.name}' must be 0 to 1")
    # 0.7 * 10 is 7.000000000000001, which is meant as 7
    stop = math.ceil(part * size - 1e-9)
    return (0, stop) if stop else None


def _chosen(graph: Graph, node: Node, part: float | slice | Outputs) -> Change | None:
    """What ``Sparse`` does to the weight of a layer; None for nothing."""
    shape = graph.tensor(node.inputs[1]).shape
    by_output = isinstance(part, Outputs) or is_depthwise(node)
    size = shape[0] if by_output and not is_depthwise(node) else shape[-1]
    channels = _range(node, part.part if isinstance(part, Outputs) else part, size, "output" if by_output else "input")
    if channels is None:
        return None
    if channels == (0, size):
        return Change(weight=(0, shape[-1]))
    return Change(outputs=channels) if by_output else Change(weight=channels)


def _sparse(graph: Graph, scheme: Sparse) -> dict[str, Change]:
    layers = layers_of(graph)
    weights: dict[str, Change] = {}
    for name, part in scheme.tensors.items():
        node = find_layer(graph, name)
        if node.name in weights:
            raise PlanError(f"Sparse: layer '{node.name}' is chosen twice, the second time as {name!r}")
        if (change := _chosen(graph, node, part)) is not None:
            weights[node.name] = change
    first, where = len(layers), scheme.biases_from
    if isinstance(where, int):
        if not 0 <= where <= len(layers):
            raise PlanError(f"Sparse(biases_from={where}): '{graph.name}' has {len(layers)} layers")
        first = len(layers) - where
    elif where is not None:
        first = layers.index(find_layer(graph, where))
    biased = {node.name for node in layers[first:]}
    found = {
        node.name: replace(weights.get(node.name, Change()), bias=node.name in biased)
        for node in layers
        if node.name in weights or node.name in biased
    }
    if not found:
        raise PlanError("Sparse: no tensor and no bias is chosen, nothing would learn")
    return found


def changes(graph: Graph, scheme: Scheme) -> dict[str, Change]:
    """{node name: what the scheme does to that layer}. Raises PlanError when the scheme does not fit the graph."""
    layers = layers_of(graph)
    if not layers:
        raise PlanError(f"graph '{graph.name}' has no layer with constant weights: nothing can learn")
    joints = [node for node in layers if not is_depthwise(node)]
    match scheme:
        case Full():
            return _whole(graph, layers)
        case Head(count):
            return _whole(graph, _last(layers, count, scheme, graph))
        case Bias():
            return {node.name: Change(bias=True) for node in layers}
        case NormAffine():
            convolutions = [node for node in layers if not node.op.startswith("dense")]
            return {node.name: Change(affine=True) for node in _last(convolutions, None, scheme, graph)}
        case Adapter(width, count):
            if not 1 <= width <= WIDEST:
                raise PlanError(f"{scheme}: width must be 1 to {WIDEST}")
            inner = [node for node in joints if node is not layers[-1]]
            return {node.name: Change(width=width) for node in _last(inner, count, scheme, graph)}
        case LoRA(rank, alpha, count, tensors):
            if rank < 1 or (alpha is not None and not alpha > 0):
                raise PlanError(f"{scheme}: rank must be at least 1 and alpha above 0")
            if tensors is None:
                return {node.name: Change(rank=rank) for node in _last(joints, count, scheme, graph)}
            if count is not None or not tensors:
                raise PlanError(f"{scheme}: name some layers in tensors, or give the number of the last ones, not both")
            found = [find_layer(graph, name) for name in tensors]
            if depthwise := [node.name for node in found if is_depthwise(node)]:
                raise PlanError(f"{scheme}: '{depthwise[0]}' is a depthwise convolution, which has no low rank")
            return {node.name: Change(rank=rank) for node in found}
        case Sparse():
            return _sparse(graph, scheme)
        case _:
            raise PlanError(
                f"unknown update scheme {scheme!r}. Known: Full(), Head(layers), Bias(), NormAffine(), Adapter(width), "
                "LoRA(rank, alpha, layers), Sparse(tensors, biases_from)"
            )
