"""An int8 graph as one without floats: its input is int8, its output Q16.16 (``precision="int8"``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from microtune.errors import PlanError
from microtune.ir import Graph, Node, Tensor, constant
from microtune.ops.block_update import MOST_BIAS
from microtune.ops.fixed_point import quantize_multipliers, round_half_away
from microtune.ops.scaled import FIXED_ONE, LARGEST_WHOLE
from microtune.tuning.products import product_of_sums

INSTEAD = "use precision='mixed', which computes gradients in float32"
LAYERS = ("dense_int8", "dense_int8_logits", "conv2d_int8", "depthwise_conv2d_int8")
MOST_PLACES = 30  # a shift to the left, of mt_rescale
ROOM = 63
"""Largest weight, stored, of a channel that has room to grow to twice as much."""
FLOATS_WITHIN = ("softmax_int8",)
"""Operators whose tensors are int8 and whose arithmetic is not."""


def without_floats(graph: Graph, trained: Sequence[str]) -> Graph:
    """The graph with an int8 input and an int32 output of 16 binary places, all between them in integers.

    A quantisation of the input is dropped: the device takes int8. A dense layer at the end keeps its sums. Raises
    PlanError, naming the node, for what computes in float32, and for what cannot learn in integers.
    """
    graph = _fixed_output(_int8_input(graph))
    for node in graph.nodes:
        kinds = {graph.tensor(name).dtype for name in (*node.inputs, *node.outputs)}
        if node.op in FLOATS_WITHIN:
            raise PlanError(
                f"precision='int8': node '{node.name}' ({node.op}) of '{graph.name}' needs exponentials in float32; a "
                f"softmax may only be the end, with loss='cross_entropy', which takes it in; or {INSTEAD}"
            )
        if "float32" in kinds:
            raise PlanError(
                f"precision='int8': node '{node.name}' ({node.op}) of '{graph.name}' computes in float32; quantise all "
                f"of the model, or {INSTEAD}"
            )
    uses = Counter(name for node in graph.nodes for name in node.inputs)
    for name in trained:
        tensor = graph.tensor(name)
        if uses[name] > 1:
            raise PlanError(
                f"precision='int8': '{name}' learns and is shared by {uses[name]} layers, whose gradients would have "
                f"to be summed; {INSTEAD}"
            )
        if tensor.quantization is None:
            raise PlanError(f"'{name}' is {tensor.dtype} without a scale: what one step of it means is not known")
        data = tensor.data
        if tensor.dtype == "int32" and data is not None and np.max(np.abs(data.astype(np.int64))) > MOST_BIAS:
            raise PlanError(f"precision='int8': bias '{name}' is beyond 2^30, the most that learns; {INSTEAD}")
    for node in graph.nodes:
        if node.op in LAYERS and len(node.inputs) == 5 and node.inputs[1] in trained:
            graph = _with_room(graph, node)
    return graph


def _with_room(graph: Graph, layer: Node) -> Graph:
    """The graph in which weights of this layer can grow to twice the largest of their channel: where that is stored as
    127 already, a step counts twice and there are half as many."""
    _, weight, bias, _, shift = (graph.tensor(name) for name in layer.inputs)
    q, steps, offsets, places = weight.quantization, weight.data, bias.data, shift.data
    if q is None or bias.quantization is None or steps is None or offsets is None or places is None:
        return graph
    # constants that another layer reads too stay as they are, and so do factors at the end of their range
    if any(len(graph.consumers(each.name)) > 1 for each in (bias, shift)) or places.max() >= MOST_PLACES:
        return graph
    axis = q.axis or 0
    others = tuple(each for each in range(len(weight.shape)) if each != axis)
    twice = np.abs(steps.astype(np.int16)).max(axis=others) > ROOM
    wide = np.where(twice, 2, 1).reshape([-1 if each == axis else 1 for each in range(len(weight.shape))])
    scale = np.asarray(q.scale * np.where(twice, 2, 1), np.float32)
    found = (
        replace(weight, data=round_half_away(steps / wide).astype(np.int8), quantization=replace(q, scale=scale)),
        replace(
            bias,
            data=round_half_away(offsets / np.where(twice, 2, 1)).astype(np.int32),
            quantization=replace(bias.quantization, scale=np.asarray(bias.quantization.scale * np.where(twice, 2, 1))),
        ),
        replace(shift, data=(places + twice).astype(np.int8)),
    )
    return replace(graph, tensors={**graph.tensors, **{each.name: each for each in found}})


def _int8_input(graph: Graph) -> Graph:
    """The graph without the quantisation of its input."""
    first = graph.consumers(graph.inputs[0])
    if graph.tensor(graph.inputs[0]).dtype == "int8" or len(first) != 1 or first[0].op != "quantize":
        return graph
    quantize = first[0]
    stored = graph.tensor(quantize.output)
    return replace(graph, inputs=(stored.name,)).with_nodes(node for node in graph.nodes if node is not quantize)


def _fixed_output(graph: Graph) -> Graph:
    """The graph whose last node, a dequantisation, gives Q16.16 instead."""
    last = graph.producer(graph.outputs[0])
    if last is None or last.op != "dequantize":
        return graph
    stored = graph.tensor(last.inputs[0])
    zero = int(last.attributes["zero_point"])
    if float(last.attributes["scale"]) * max(127 - zero, 128 + zero) > LARGEST_WHOLE:
        raise PlanError(
            f"the outputs of '{graph.name}' go beyond {LARGEST_WHOLE}, the most that precision='int8' can represent: "
            f"scale them down (kilometres for metres), or {INSTEAD}"
        )
    before = graph.producer(stored.name)
    output = replace(graph.tensor(last.output), dtype="int32")
    whole = before is not None and (before.attributes.get("low"), before.attributes.get("high")) == (-128, 127)
    if before is not None and before.op == "dense_int8" and whole and graph.consumers(stored.name) == (last,):
        return _logits(graph, before, last, output)
    if before is not None and before.op == "multiply_int8" and whole and graph.consumers(stored.name) == (last,):
        product = product_of_sums(graph, before, last)
        if product is not None:
            return product
    multiplier, shift = _multipliers(graph, float(last.attributes["scale"]) * FIXED_ONE)
    given = {"multiplier": int(multiplier), "shift": int(shift), "zero_point": int(last.attributes["zero_point"])}
    node = Node("fixed_from_int8", last.name, last.inputs, last.outputs, given)
    return graph.with_nodes([node if each is last else each for each in graph.nodes], [output])


def _logits(graph: Graph, layer: Node, last: Node, output: Tensor) -> Graph:
    """The graph that ends in the sums of a dense layer, scaled."""
    x, weight = (graph.tensor(name) for name in layer.inputs[:2])
    if x.quantization is None or weight.quantization is None:
        raise PlanError(f"layer '{layer.name}' has no scales: what its output means is not known")
    scales = np.broadcast_to(np.asarray(weight.quantization.scale, np.float64).reshape(-1), weight.shape[:1])
    multiplier, shift = _multipliers(graph, float(x.quantization.scale) * scales * FIXED_ONE)
    added = (
        constant(graph.fresh_name(f"{weight.name}.output_multiplier"), multiplier),
        constant(graph.fresh_name(f"{weight.name}.output_shift"), shift),
    )
    inputs = (*layer.inputs[:3], *(each.name for each in added), *layer.inputs[5:])
    given = {name: layer.attributes[name] for name in ("x_zero", "start") if name in layer.attributes}
    node = Node("dense_int8_logits", layer.name, inputs, (output.name,), given)
    nodes = [node if each is layer else each for each in graph.nodes if each is not last]
    return graph.with_nodes(nodes, [*added, output])


def _multipliers(graph: Graph, factors: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    try:
        return quantize_multipliers(factors)
    except ValueError as error:
        raise PlanError(f"precision='int8': the outputs of '{graph.name}' do not fit 16 places: {error}") from error
