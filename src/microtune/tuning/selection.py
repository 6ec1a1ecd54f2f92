"""Apply an update scheme to a graph: what learns becomes tensors of its own, adapters are inserted."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from microtune.compress.dequantization import float_tail
from microtune.errors import PlanError
from microtune.ir import Graph, Node, Quantization, Tensor, constant
from microtune.ops import OPS
from microtune.ops.trees import trees_of
from microtune.tuning.integers import without_floats
from microtune.tuning.layers import INT8, Change, bias_position, changes, is_depthwise, layers_of
from microtune.tuning.leaves import choose_leaves
from microtune.tuning.products import with_gains
from microtune.tuning.schemes import Full, LoRA, Scheme
from microtune.tuning.splitting import split_outputs


@dataclass(frozen=True)
class Selection:
    """The graph, adapters inserted where the scheme asks for them, and the names of what learns."""

    graph: Graph
    trained: tuple[str, ...]


class _Writer:
    """A graph in the making, node by node, and what of it learns."""

    def __init__(self, graph: Graph) -> None:
        self.tensors = dict(graph.tensors)
        self.nodes: list[Node] = []
        self.trained: list[str] = []

    def fresh(self, wish: str) -> str:
        name, count = wish, 1
        while name in self.tensors:
            count += 1
            name = f"{wish}_{count}"
        return name

    def constant(self, wish: str, data: np.ndarray, learns: bool = False, q: Quantization | None = None) -> str:
        tensor = constant(self.fresh(wish), data if q is not None else data.astype(np.float32), q)
        self.tensors[tensor.name] = tensor
        if learns:
            self.trained.append(tensor.name)
        return tensor.name

    def emit(self, op: str, wish: str, inputs: tuple[str, ...], output: str | None = None, **attributes: Any) -> str:
        name = output or self.fresh(wish)
        known = self.tensors.get(name)
        results = OPS[op].results([name], [self.tensors[each] for each in inputs], attributes)
        self.tensors[name] = known if known is not None else results[0]
        self.nodes.append(Node(op, wish, inputs, (name,), attributes))
        return name


def _random(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform with variance 1 / inputs, seeded by the name: the same model always gets the same adapters."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    bound = math.sqrt(3.0 / math.prod(shape[1:]))
    return generator.uniform(-bound, bound, shape)


def _projection(writer: _Writer, wish: str, x: str, weight: str, output: str | None = None) -> str:
    """A dense layer, or a 1 x 1 convolution, without bias."""
    if len(writer.tensors[x].shape) == 1:
        return writer.emit("dense", wish, (x, weight), output)
    plain = {"stride": (1, 1), "padding": ((0, 0), (0, 0))}
    return writer.emit("conv2d", wish, (x, weight), output, **plain)


def _as_weight(matrix: np.ndarray, rank: int) -> np.ndarray:
    """(O, I) as the weight of a dense layer on vectors, or of a 1 x 1 convolution on images."""
    return matrix if rank == 1 else matrix[:, None, None, :]


def _low_rank(writer: _Writer, node: Node, x: str, y: str, scheme: LoRA) -> str:
    weight = writer.tensors[node.inputs[1]].shape
    most = min(weight[0], math.prod(weight[1:]))
    if scheme.rank >= most and most > 1:
        raise PlanError(
            f"LoRA(rank={scheme.rank}) on '{node.inputs[1]}' {weight}: the rank must be below {most}, otherwise Head "
            "or Full learns more with less"
        )
    name = node.name
    down = writer.constant(f"{name}_lora_a", _random(node.inputs[1], (scheme.rank, *weight[1:])), learns=True)
    images = len(writer.tensors[y].shape)
    up = writer.constant(f"{name}_lora_b", _as_weight(np.zeros((weight[0], scheme.rank)), images), learns=True)
    given = {key: node.attributes[key] for key in ("stride", "padding") if key in node.attributes}
    inner = writer.emit("dense" if images == 1 else "conv2d", f"{name}_lora_down", (x, down), **given)
    factor = (scheme.alpha if scheme.alpha is not None else scheme.rank) / scheme.rank
    scaled = writer.emit("scale", f"{name}_lora_scaled", (inner,), factor=factor)
    return _projection(writer, f"{name}_lora_up", scaled, up)


def _adapter(writer: _Writer, node: Node, y: str, width: int) -> str:
    shape = writer.tensors[y].shape
    name, channels = node.name, shape[-1]
    first = _as_weight(_random(f"{name}_adapter", (width, channels)), len(shape))
    down = writer.constant(f"{name}_adapter_down", first, learns=True)
    up = writer.constant(f"{name}_adapter_up", _as_weight(np.zeros((channels, width)), len(shape)), learns=True)
    inner = _projection(writer, f"{name}_adapter_inner", y, down)
    active = writer.emit("relu", f"{name}_adapter_active", (inner,))
    return _projection(writer, f"{name}_adapter_outer", active, up)


def _partial(writer: _Writer, node: Node, x: str, start: int, stop: int) -> str:
    """What the learnt part of some input channels adds: it starts at zero, beside the frozen weight."""
    weight = writer.tensors[node.inputs[1]].shape
    delta = writer.constant(f"{node.name}_delta", np.zeros((*weight[:-1], stop - start)), learns=True)
    axis = len(writer.tensors[x].shape) - 1
    part = writer.emit("slice", f"{node.name}_learnt_channels", (x,), axis=axis, start=start, stop=stop)
    given = {key: node.attributes[key] for key in ("stride", "padding") if key in node.attributes}
    op = "dense" if axis == 0 else "conv2d"
    return writer.emit(op, f"{node.name}_learnt", (part, delta), **given)


def _bias(writer: _Writer, node: Node) -> Node:
    """The node with a bias that learns; a layer without one is given zeros."""
    at = bias_position(node)
    if len(node.inputs) > at:
        writer.trained.append(node.inputs[at])
        return node
    weight = writer.tensors[node.inputs[1]].shape
    outputs = weight[-1] if is_depthwise(node) else weight[0]
    return replace(node, inputs=(*node.inputs, writer.constant(f"{node.name}.bias", np.zeros(outputs), learns=True)))


def _changed(writer: _Writer, node: Node, change: Change, scheme: Scheme) -> None:
    """Write one float layer with what the scheme adds to it."""
    x = node.inputs[0]
    size = writer.tensors[node.inputs[1]].shape[-1]
    whole = change.weight == (0, size)
    if whole:
        writer.trained.append(node.inputs[1])
    if change.bias:
        node = _bias(writer, node)
    beside = [change.weight is not None and not whole, change.rank > 0, change.width > 0, change.affine]
    if not any(beside):
        writer.nodes.append(node)
        return
    frozen = writer.fresh(f"{node.name}_frozen")
    writer.tensors[frozen] = replace(writer.tensors[node.output], name=frozen)
    writer.nodes.append(replace(node, outputs=(frozen,)))
    if change.affine:
        channels = writer.tensors[frozen].shape[-1]
        gamma = writer.constant(f"{node.name}_gamma", np.ones(channels), learns=True)
        beta = writer.constant(f"{node.name}_beta", np.zeros(channels), learns=True)
        writer.emit("channel_affine", f"{node.name}_affine", (frozen, gamma, beta), node.output)
        return
    if change.weight is not None:
        added = _partial(writer, node, x, *change.weight)
    elif isinstance(scheme, LoRA):
        added = _low_rank(writer, node, x, frozen, scheme)
    else:
        added = _adapter(writer, node, frozen, change.width)
    writer.emit("add", f"{node.name}_added", (frozen, added), node.output)


def _untied(graph: Graph, wanted: Mapping[str, Change]) -> Graph:
    """The graph where a weight or bias that learns is no longer that of a frozen layer as well: the layers that learn
    get a copy, which they still share among themselves."""
    roles: dict[str, set[str]] = {}
    for node in layers_of(graph):
        change = wanted.get(node.name, Change())
        whole = change.weight == (0, graph.tensor(node.inputs[1]).shape[-1])
        for position, learns in ((1, whole), (bias_position(node), change.bias)):
            if learns and position < len(node.inputs):
                roles.setdefault(node.inputs[position], set()).add(node.name)
    shared = {
        name: learners for name, learners in roles.items() if {node.name for node in graph.consumers(name)} != learners
    }
    copies = {name: replace(graph.tensor(name), name=graph.fresh_name(f"{name}.learnt")) for name in shared}
    nodes = [
        replace(node, inputs=tuple(copies[x].name if node.name in shared.get(x, ()) else x for x in node.inputs))
        for node in graph.nodes
    ]
    return graph.with_nodes(nodes, copies.values())


def _in_float(graph: Graph, scheme: Scheme, wanted: Mapping[str, Change]) -> Selection:
    writer = _Writer(graph)
    for node in graph.nodes:
        if node.name in wanted:
            _changed(writer, node, wanted[node.name], scheme)
        else:
            writer.nodes.append(node)
    changed = Graph(graph.name, writer.tensors, tuple(writer.nodes), graph.inputs, graph.outputs)
    trained = dict.fromkeys(writer.trained)
    if isinstance(scheme, Full):
        # what learns beside layers: tables, affine maps
        trained |= dict.fromkeys(
            name
            for node in graph.nodes
            if node.op in ("channel_affine", "channel_scale", "embedding")
            for name in node.inputs
            if graph.tensor(name).is_constant and graph.tensor(name).dtype == "float32"
        )
    result = changed.with_nodes(writer.nodes)
    return Selection(result, tuple(name for name in trained if name in result.tensors))


def _mixed(graph: Graph, scheme: Scheme, wanted: Mapping[str, Change]) -> Selection:
    """int8 weights and int32 biases learn where they are; float layers behind them learn as floats do."""
    nodes, tensors, trained = [], list[Tensor](), dict[str, None]()
    rest = {}
    for node in graph.nodes:
        change = wanted.get(node.name)
        if change is None or node.op not in INT8:
            if change is not None:
                rest[node.name] = change
            nodes.append(node)
            continue
        if change.rank or change.width or change.affine:
            raise PlanError(
                f"{scheme} inserts float layers into '{graph.name}', whose layers are int8: use precision='float32'"
            )
        weight = graph.tensor(node.inputs[1])
        if change.weight == (0, weight.shape[-1]):
            trained[weight.name] = None
        elif change.weight is not None and weight.data is not None:
            start, stop = change.weight
            learnt = constant(
                graph.fresh_name(f"{node.name}.learnt"), weight.data[..., start:stop], weight.quantization
            )
            tensors.append(learnt)
            trained[learnt.name] = None
            node = replace(node, inputs=(*node.inputs, learnt.name), attributes={**node.attributes, "start": start})
        if change.bias:
            trained[node.inputs[2]] = None
        nodes.append(node)
    changed = graph.with_nodes(nodes, tensors)
    if not rest:
        return Selection(changed, tuple(trained))
    found = _in_float(changed, scheme, rest)
    return Selection(found.graph, (*trained, *found.trained))


def _split(graph: Graph, wanted: Mapping[str, Change]) -> tuple[Graph, dict[str, Change]]:
    """Layers of which some output channels learn, in parts that learn whole or not at all."""
    found: dict[str, Change] = {}
    for name, change in wanted.items():
        if change.outputs is None:
            found[name] = change
            continue
        node = next(node for node in graph.nodes if node.name == name)
        if change.bias and len(node.inputs) <= bias_position(node):
            graph, node = _with_bias(graph, node)
        parts = split_outputs(graph, node, *change.outputs)
        graph = parts.graph
        chosen = next(node for node in graph.nodes if node.name == parts.chosen)
        found[parts.chosen] = Change(weight=(0, graph.tensor(chosen.inputs[1]).shape[-1]), bias=change.bias)
        found |= {other: Change(bias=True) for other in parts.others if change.bias}
    return graph, found


def _with_bias(graph: Graph, node: Node) -> tuple[Graph, Node]:
    """A float layer with a bias of zeros, which has none."""
    bias = constant(graph.fresh_name(f"{node.name}.bias"), np.zeros(graph.tensor(node.output).shape[-1], np.float32))
    biased = replace(node, inputs=(*node.inputs, bias.name))
    return graph.with_nodes([biased if each is node else each for each in graph.nodes], [bias]), biased


def float_output(graph: Graph) -> Graph:
    """The graph with a float32 output: an int8 one is dequantised."""
    output = graph.tensor(graph.outputs[0])
    if output.dtype != "int8" or output.quantization is None:
        return graph
    q = output.quantization
    real = Tensor(graph.fresh_name(f"{output.name}.real"), output.shape)
    given = {"scale": float(q.scale), "zero_point": int(q.zero_point)}
    node = Node("dequantize", real.name, (output.name,), (real.name,), given)
    return replace(graph, outputs=(real.name,), tensors={**graph.tensors, real.name: real}).with_nodes(
        [*graph.nodes, node]
    )


def select(graph: Graph, scheme: Scheme, precision: str = "float32") -> Selection:
    """Apply a scheme to a graph with a float32 output. Raises PlanError when it does not fit the model.

    precision, of an int8 graph: ``"float32"`` turns what lies behind the first layer that learns into float
    operators (see ``compress.dequantization``); ``"mixed"`` leaves all int8; ``"int8"`` does away with the floats of
    its input and output too (see ``integers``): the output is then int32, of 16 binary places.
    """
    graph = float_output(graph)
    if trees_of(graph):
        return Selection(*choose_leaves(graph, scheme))
    graph, wanted = _split(graph, changes(graph, scheme))
    graph = _untied(graph, wanted)
    integers = {node.name for node in layers_of(graph) if node.op in INT8}
    if precision == "int8":
        selection = _mixed(graph, scheme, wanted)
        return Selection(*with_gains(without_floats(selection.graph, selection.trained), selection.trained))
    if not integers.intersection(wanted):
        return _in_float(graph, scheme, wanted)
    if precision == "mixed":
        return _mixed(graph, scheme, wanted)
    whole = _float_weights(graph, wanted)
    return _in_float(float_tail(graph, wanted, whole), scheme, wanted)


def _float_weights(graph: Graph, wanted: Mapping[str, Change]) -> Sequence[str]:
    """Layers all of whose weight learns: it becomes float32. The others keep int8 weights."""
    found = []
    for node in layers_of(graph):
        change = wanted.get(node.name)
        if change is not None and change.weight == (0, graph.tensor(node.inputs[1]).shape[-1]):
            found.append(node.name)
    return found
