"""A scale or shift by constants next to a layer becomes part of its weight and bias.

W (c * x) + b = (W c) x + b, W (x + c) + b = W x + (b + W c), and likewise behind the layer, for dense layers and
convolutions alike. A shift before a padded convolution stays: the padding is not shifted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from microtune.compress.rewriting import is_float_constant, is_private, owned, swap
from microtune.ir import Graph, Node, Tensor, constant

LAYERS = ("dense", "conv2d", "depthwise_conv2d")


@dataclass(frozen=True, eq=False)
class Affine:
    """factor * x + shift with constants (float64) per channel, the last axis. ``named``: the tensor of the shift."""

    x: str
    factor: np.ndarray
    shift: np.ndarray
    named: Tensor | None


def split_constant(graph: Graph, node: Node) -> tuple[str, Tensor] | None:
    """(variable input, constant input) of an add or multiply by a constant."""
    if node.op not in ("add", "multiply"):
        return None
    for x, other in (node.inputs, node.inputs[::-1]):
        if is_float_constant(graph.tensor(other)) and not graph.tensor(x).is_constant:
            return x, graph.tensor(other)
    return None


def affine(graph: Graph, node: Node) -> Affine | None:
    """What a node does, if it is an add, multiply or channel_affine with constants that are per channel."""
    if node.op == "channel_affine":
        x, *others = node.inputs
        gamma, beta = (graph.tensor(name) for name in others)
        if graph.tensor(x).is_constant or not (is_float_constant(gamma) and is_float_constant(beta)):
            return None
        factor, shift = (np.asarray(item.data, np.float64) for item in (gamma, beta))
        return Affine(x, factor, shift, beta if np.any(shift) else None)
    split = split_constant(graph, node)
    if split is None or split[1].shape == ():
        return None
    x, other = split
    whole = np.asarray(other.data, np.float64)
    numbers = whole[(0,) * (whole.ndim - 1)]
    if not (whole == numbers).all():
        return None
    if node.op == "multiply":
        return Affine(x, numbers, np.zeros_like(numbers), None)
    return Affine(x, np.ones_like(numbers), numbers, other)


def _parameters(graph: Graph, node: Node | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Weight and bias of a layer in float64, if they are constant floats."""
    if (
        node is None
        or node.op not in LAYERS
        or not all(is_float_constant(graph.tensor(name)) for name in node.inputs[1:])
    ):
        return None
    weight, *bias = (np.asarray(graph.tensor(name).data, np.float64) for name in node.inputs[1:])
    return weight, bias[0] if bias else np.zeros(weight.shape[2 if node.op == "depthwise_conv2d" else 0])


def _scaled_outputs(op: str, weight: np.ndarray, c: np.ndarray) -> np.ndarray:
    return np.asarray(weight * (c if op == "depthwise_conv2d" else c.reshape(-1, *[1] * (weight.ndim - 1))))


def _per_input(op: str, weight: np.ndarray, c: np.ndarray) -> np.ndarray:
    """A number for each input channel, spread over the last axis of the weight."""
    return np.repeat(c, weight.shape[-1] // len(c)) if op == "depthwise_conv2d" else c


def _sums(op: str, weight: np.ndarray, c: np.ndarray) -> np.ndarray:
    """What the layer makes of an input that is ``c`` everywhere."""
    if op == "depthwise_conv2d":
        return np.asarray(weight.sum((0, 1)) * _per_input(op, weight, c))
    return np.asarray(weight.reshape(len(weight), -1, len(c)).sum(1) @ c)


def _folded(
    graph: Graph, layer: Node, weight: np.ndarray, bias: np.ndarray, named: Tensor | None
) -> tuple[Node, list[Tensor]] | None:
    """The layer with another weight and bias (float64), or None where float32 cannot hold them.

    ``named``: the constant that was added; its name goes to the bias if there was none.
    """
    with np.errstate(over="ignore"):
        arrays = [weight.astype(np.float32), bias.astype(np.float32)]
    if not all(np.isfinite(array).all() for array in arrays):
        return None
    old_weight, *old_bias = (graph.tensor(name) for name in layer.inputs[1:])
    tensors = [owned(graph, old_weight, arrays[0]) if (arrays[0] != old_weight.data).any() else old_weight]
    if old_bias and (named is None or np.any(old_bias[0].data)):
        tensors.append(owned(graph, old_bias[0], arrays[1]))
    else:  # a bias that the source model did not have takes the name of what becomes it
        wish = named.name if named is not None else f"{layer.name}.bias"
        free = wish not in graph.tensors or (named is not None and is_private(graph, wish))
        tensors.append(constant(wish if free else graph.fresh_name(wish), arrays[1]))
    return replace(layer, inputs=(layer.inputs[0], *(tensor.name for tensor in tensors))), tensors


def into_layer_before(graph: Graph, node: Node) -> Graph | None:
    """A layer, then a scale or shift that alone reads it."""
    step = affine(graph, node)
    layer = graph.producer(step.x) if step else None
    parameters = _parameters(graph, layer)
    if step is None or layer is None or parameters is None or not is_private(graph, layer.output):
        return None
    weight, bias = parameters
    found = _folded(
        graph, layer, _scaled_outputs(layer.op, weight, step.factor), bias * step.factor + step.shift, step.named
    )
    if found is None:
        return None
    merged, tensors = found
    outputs = (*node.outputs, *layer.outputs[1:])
    nodes = [replace(merged, outputs=outputs) if n is layer else n for n in graph.nodes if n is not node]
    return graph.with_nodes(nodes, tensors)


def into_layers_behind(graph: Graph, node: Node) -> Graph | None:
    """A scale or shift that only layers read as their x."""
    step = affine(graph, node)
    readers = graph.consumers(node.output)
    if step is None or node.output in graph.outputs or not readers:
        return None
    result = graph
    for layer in readers:
        parameters = _parameters(graph, layer)
        is_padded = any(map(any, layer.attributes.get("padding", ())))
        if parameters is None or node.output in layer.inputs[1:] or (is_padded and np.any(step.shift)):
            return None
        weight, bias = parameters
        scaled = weight * _per_input(layer.op, weight, step.factor)
        found = _folded(result, layer, scaled, bias + _sums(layer.op, weight, step.shift), step.named)
        if found is None:
            return None
        merged, tensors = found
        result = swap(result, layer, [replace(merged, inputs=(step.x, *merged.inputs[1:]))], tensors)
    return result.with_nodes(n for n in result.nodes if n is not node)


def join_affines(graph: Graph, node: Node) -> Graph | None:
    """Of two channel_affine in a row the second does the work of both."""
    second = affine(graph, node) if node.op == "channel_affine" else None
    before = graph.producer(second.x) if second else None
    first = affine(graph, before) if before is not None and before.op == "channel_affine" else None
    if second is None or before is None or first is None or not is_private(graph, before.output):
        return None
    with np.errstate(over="ignore"):
        arrays = [
            (first.factor * second.factor).astype(np.float32),
            (first.shift * second.factor + second.shift).astype(np.float32),
        ]
    if not all(np.isfinite(array).all() for array in arrays):
        return None
    gamma, beta = (owned(graph, graph.tensor(name), array) for name, array in zip(node.inputs[1:], arrays, strict=True))
    joined = replace(node, inputs=(first.x, gamma.name, beta.name))
    return _without(swap(graph, node, [joined], [gamma, beta]), before)


def _without(graph: Graph, node: Node) -> Graph:
    return graph.with_nodes(n for n in graph.nodes if n is not node)


def pad_into_layer(graph: Graph, node: Node) -> Graph | None:
    """A pad with zeros around an image that one convolution reads becomes the padding of that convolution."""
    readers = graph.consumers(node.output)
    if node.op != "pad" or not is_private(graph, node.output) or readers[0].inputs[0] != node.output:
        return None
    (layer,) = readers
    if layer.op.removesuffix("_int8") not in LAYERS[1:]:
        return None
    if node.attributes["value"] != (layer.attributes["x_zero"] if layer.op.endswith("_int8") else 0):
        return None
    *spatial, channels = node.attributes["padding"]
    shape = graph.tensor(layer.inputs[1]).shape
    kernel = shape[:2] if layer.op.startswith("depthwise") else shape[1:3]
    padding = tuple(
        (before + more[0], after + more[1])
        for (before, after), more in zip(layer.attributes["padding"], spatial, strict=True)
    )
    if any(channels) or any(max(pair) >= taps for pair, taps in zip(padding, kernel, strict=True)):
        return None
    merged = replace(
        layer, inputs=(node.inputs[0], *layer.inputs[1:]), attributes={**layer.attributes, "padding": padding}
    )
    return _without(swap(graph, layer, [merged]), node)


def behind_move(graph: Graph, node: Node) -> Graph | None:
    """A scale or shift before a reshape or transposition goes behind it, nearer to the layer it may fold into."""
    before = graph.producer(node.inputs[0]) if node.op in ("reshape", "transpose") else None
    if before is None or not is_private(graph, before.output):
        return None
    x_shape, shape = graph.tensor(node.inputs[0]).shape, graph.tensor(node.output).shape
    split = split_constant(graph, before)
    if split is not None:
        x, other = split
        data = np.asarray(other.data)
        constants = [data.reshape(shape) if node.op == "reshape" else data.transpose(node.attributes["permutation"])]
        old = [other]
    elif before.op == "channel_affine" and affine(graph, before) is not None:
        x = before.inputs[0]
        old = [graph.tensor(name) for name in before.inputs[1:]]
        rank = len(shape)
        stays = shape[-1:] == x_shape[-1:] and (
            node.op == "reshape" or node.attributes["permutation"][rank - 1] == rank - 1
        )
        constants = [np.asarray(item.data) for item in old]
        if not stays:
            if not shape or any((array != array[0]).any() for array in constants):
                return None
            constants = [np.full(shape[-1], array[0], array.dtype) for array in constants]
    else:
        return None
    moved = Tensor(graph.fresh_name(f"{x}.moved"), shape)
    turned = [owned(graph, item, array) for item, array in zip(old, constants, strict=True)]
    pair = [
        replace(node, inputs=(x,), outputs=(moved.name,)),
        replace(before, inputs=(moved.name, *(item.name for item in turned)), outputs=node.outputs),
    ]
    return _without(swap(graph, node, pair, [moved, *turned]), before)
