"""Products of what learns, in an int8 graph that does without floats: each is made of whole sums, never of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from microtune.errors import PlanError
from microtune.ir import Graph, Node, Tensor, constant
from microtune.ops.block_products import MOST_GAINED
from microtune.ops.fixed_point import quantize_multipliers, round_half_away
from microtune.ops.quantized_build import activation_quantization, bias_quantization
from microtune.ops.scaled import FIXED_ONE

ROOM = 63
"""Largest gain, stored: it can grow to twice as much."""
MOST_BIAS = 2**30 - 1


def _scale(tensor: Tensor) -> float:
    if tensor.quantization is None:
        raise PlanError(f"'{tensor.name}' is int8 without a scale; use precision='float32'")
    return float(np.asarray(tensor.quantization.scale).reshape(-1)[0])


def _whole(node: Node) -> bool:
    """Whether nothing but the end of int8 limits what a node computes."""
    return (node.attributes.get("low"), node.attributes.get("high")) == (-128, 127)


def _factor(name: str, real: float) -> tuple[Tensor, Tensor]:
    """Multiplier and shift of one output, as constants."""
    try:
        multiplier, shift = quantize_multipliers(np.array([real]))
    except ValueError as error:
        raise PlanError(f"precision='int8': the sums of '{name}' do not fit 16 places: {error}") from error
    return constant(f"{name}.sum_multiplier", multiplier), constant(f"{name}.sum_shift", shift)


# A product at the end


def product_of_sums(graph: Graph, product: Node, last: Node) -> Graph | None:
    """The graph whose last product, of two dense layers of one output each, is made of their sums in Q16.16. A constant
    that is added to a layer goes into its bias. None where the product is of anything else."""
    factors = [_sum_of(graph, name) for name in product.inputs]
    if product.inputs[0] == product.inputs[1] or any(each is None for each in factors):
        return None
    taken, added, tensors, names = {product.name, last.name}, dict[str, Node](), list[Tensor](), list[str]()
    for layer, constants in (each for each in factors if each is not None):
        x, weight, bias = (graph.tensor(name) for name in layer.inputs[:3])
        step = _scale(x) * _scale(weight)
        if bias.data is None:
            return None
        offset = round(sum(real for _, real in constants) / step)
        shifted = np.clip(bias.data.astype(np.int64) + offset, -MOST_BIAS, MOST_BIAS).astype(np.int32)
        sum_name = graph.fresh_name(f"{layer.output}.sum")
        pair = _factor(weight.name, step * FIXED_ONE)
        tensors += [replace(bias, data=shifted), *pair, Tensor(sum_name, (1,), "int32")]
        inputs = (x.name, weight.name, bias.name, *(each.name for each in pair))
        given = {"x_zero": layer.attributes["x_zero"]}
        added[layer.name] = Node("dense_int8_logits", layer.name, inputs, (sum_name,), given)
        taken.update(name for name, _ in constants)
        names.append(sum_name)
    output = replace(graph.tensor(last.output), dtype="int32")
    nodes = [added.get(node.name, node) for node in graph.nodes if node.name not in taken]
    nodes.append(Node("multiply_fixed", product.name, tuple(names), (output.name,)))
    return graph.with_nodes(nodes, [*tensors, output])


def _sum_of(graph: Graph, name: str) -> tuple[Node, list[tuple[str, float]]] | None:
    """The dense layer of one output that computes an int8 tensor for one reader, and the constants added to it: the
    names of the nodes that add, and what."""
    node = graph.producer(name)
    if node is None or not _whole(node) or len(graph.consumers(name)) != 1:
        return None
    if node.op == "dense_int8" and len(node.inputs) == 5 and graph.tensor(node.output).size == 1:
        return node, []
    if node.op != "add_int8" or len(set(node.inputs)) != 2:
        return None
    for one, other in (node.inputs, node.inputs[::-1]):
        known = graph.tensor(other)
        if known.data is None or known.size != 1 or known.quantization is None:
            continue
        if (found := _sum_of(graph, one)) is not None:
            steps = int(known.data.reshape(-1)[0]) - int(known.quantization.zero_point)
            return found[0], [*found[1], (node.name, _scale(known) * steps)]
    return None


# Gains in front of a layer


def with_gains(graph: Graph, trained: Sequence[str]) -> tuple[Graph, tuple[str, ...]]:
    """The graph where a last layer that learns, of one output, takes the gains in front of it that learn into its sum:
    ``gained_int8_logits``; and what learns then. Gains of several parts of the input become one tensor, of one scale.

    Raises PlanError for gains that learn anywhere else.
    """
    for layer in [node for node in graph.nodes if node.op == "dense_int8_logits"]:
        parts = _gains(graph, layer, trained)
        if parts:
            graph, trained = _joined(graph, layer, parts, trained)
    left = [node for node in graph.nodes if node.op == "channel_scale_int8" and node.inputs[1] in trained]
    if left:
        raise PlanError(
            f"precision='int8': '{left[0].inputs[1]}' of node '{left[0].name}' learns only together with the weight of "
            f"a last dense layer of one output and at most {MOST_GAINED} inputs behind it; use precision='float32'"
        )
    return graph, tuple(trained)


def _gains(graph: Graph, layer: Node, trained: Sequence[str]) -> list[Node]:
    """The gains that make the input of a layer, in order, if that is all there is to it and all of it learns."""
    x = graph.tensor(layer.inputs[0])
    before = graph.producer(x.name)
    if before is None or layer.inputs[1] not in trained or graph.tensor(layer.output).size != 1 or x.size > MOST_GAINED:
        return []
    names = before.inputs if before.op == "concat" else (x.name,)
    found = [graph.producer(name) for name in names]
    parts = [node for node in found if node is not None and node.op == "channel_scale_int8" and _whole(node)]
    if len(parts) != len(names) or any(node.inputs[1] not in trained for node in parts):
        return []
    inner = [x.name, *names]
    return parts if all(len(graph.consumers(name)) == 1 for name in inner) else []


def _joined(graph: Graph, layer: Node, parts: Sequence[Node], trained: Sequence[str]) -> tuple[Graph, tuple[str, ...]]:
    _, weight, bias, _, _ = (graph.tensor(name) for name in layer.inputs[:5])
    gains = [graph.tensor(node.inputs[1]) for node in parts]
    reals = np.concatenate([np.asarray(each.data, np.float64) * _scale(each) for each in gains])
    scale = max(float(np.abs(reals).max()), 1e-30) / ROOM
    name = "_".join(each.name for each in gains)
    gain = constant(
        name if len(gains) == 1 else graph.fresh_name(name),
        round_half_away(reals / scale).astype(np.int8),
        activation_quantization(scale, 0),
    )
    x, start = _input(graph, parts)
    step = _scale(x) * _scale(gain)
    old = _scale(graph.tensor(layer.inputs[0]))
    data = np.clip(round_half_away(np.asarray(bias.data, np.float64) * (old / step)), -MOST_BIAS, MOST_BIAS)
    q = bias_quantization(activation_quantization(step, 0), np.array([_scale(weight)]))
    offset = replace(bias, data=data.astype(np.int32), quantization=q)
    pair = _factor(f"{weight.name}.gained", step * _scale(weight) * FIXED_ONE)
    zero = 0 if x.quantization is None else int(x.quantization.zero_point)
    inputs = (x.name, weight.name, gain.name, offset.name, *(each.name for each in pair))
    gained = Node("gained_int8_logits", layer.name, inputs, layer.outputs, {"x_zero": zero, "start": start})
    gone = {node.name for node in parts}
    before = graph.producer(layer.inputs[0])
    if before is not None:
        gone.add(before.name)
    kept = [gained if node is layer else node for node in graph.nodes if node.name not in gone]
    # slices that nobody reads any more
    read = {each for node in kept for each in node.inputs} | set(graph.outputs)
    kept = [node for node in kept if read.intersection(node.outputs)]
    result = graph.with_nodes(kept, [gain, offset, *pair])
    taken = {each.name for each in gains}
    first = next(each for each in trained if each in taken)
    learns = tuple(gain.name if each == first else each for each in trained if each == first or each not in taken)
    return result, learns


def _input(graph: Graph, parts: Sequence[Node]) -> tuple[Tensor, int]:
    """What all gains read, and from where on."""
    slices = [graph.producer(node.inputs[0]) for node in parts]
    known = [node for node in slices if node is not None and node.op == "slice" and node.attributes["axis"] == 0]
    ends = [(int(node.attributes["start"]), int(node.attributes["stop"])) for node in known]
    follow = all(before[1] == after[0] for before, after in pairwise(ends))
    if len(known) == len(parts) and follow and len({node.inputs[0] for node in known}) == 1:
        return graph.tensor(known[0].inputs[0]), ends[0][0]
    if len(parts) == 1:
        return graph.tensor(parts[0].inputs[0]), 0
    raise PlanError(
        f"precision='int8': the gains {', '.join(node.inputs[1] for node in parts)} must follow one another in one "
        "input; use precision='float32'"
    )
