"""Attach the optimiser where gradients are blocks and nothing is a float: SGD, with momentum or without."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from microtune.errors import PlanError
from microtune.ir import Graph, Node, Tensor, constant
from microtune.ops import block_rules
from microtune.ops.block_update import MOMENTUM_PLACES, MOST_POSITIONS, STEPS
from microtune.ops.blocks import HEAD, factors_of
from microtune.tuning.optimizers import SGD, Gradient

GEOMETRY = ("stride", "padding")
GAINED = "gained_int8_logits"


@dataclass(frozen=True)
class _Step:
    """How one parameter learns. ``read``: what the update takes beside the factors."""

    layer: Node
    kind: str
    parameter: Tensor
    states: tuple[Tensor, ...]
    read: tuple[str, ...]
    factors: Tensor
    given: Mapping[str, Any]

    @property
    def memory(self) -> tuple[Tensor, ...]:
        return (self.parameter, *self.states)


def _step(graph: Graph, parameter: str, gradient: str, optimizer: SGD) -> _Step:
    tensor = graph.tensor(parameter)
    layer = next(node for node in graph.nodes if parameter in node.inputs and node.op in (*block_rules.LAYERS, GAINED))
    x = graph.tensor(layer.inputs[0])
    if tensor.quantization is None or x.quantization is None:
        raise PlanError(f"layer '{layer.name}' has no scales: what one step of '{parameter}' means is not known")
    # different for each tensor, the same for each build
    given: dict[str, Any] = {"salt": zlib.crc32(parameter.encode()) >> 1}
    if optimizer.momentum:
        given["momentum"] = min(round(optimizer.momentum * 2**MOMENTUM_PLACES), 2**MOMENTUM_PLACES - 1)
    steps = optimizer.lr / np.asarray(tensor.quantization.scale, np.float64).reshape(-1)
    read: tuple[str, ...] = (gradient,)
    if tensor.dtype == "int32":
        kind, channels = "bias", tensor.size
        kinds = {"velocity": "int32"}
        given["positions"] = (graph.tensor(gradient).size - HEAD) // tensor.size
        if given["positions"] > MOST_POSITIONS:
            raise PlanError(
                f"'{parameter}' learns from {given['positions']} positions, whose gradients 32 bits cannot sum; let "
                f"layers of at most {MOST_POSITIONS} learn, or use precision='mixed'"
            )
    else:
        kind, read = block_rules.LAYERS[layer.op], (gradient, x.name)
        channels = tensor.shape[-1] if kind == "depthwise_conv2d" else tensor.shape[0]
        kinds = {"rest": "int8", "velocity": "int16"}
        steps = steps * float(x.quantization.scale) * STEPS
        given |= {name: layer.attributes[name] for name in ("x_zero", *GEOMETRY) if name in layer.attributes}
        if kind != "depthwise_conv2d":
            start = layer.attributes["start"] if parameter in layer.inputs[5:] else 0
            given |= {"start": start, "taken": tensor.shape[-1]}
    kept = {name: dtype for name, dtype in kinds.items() if name != "velocity" or optimizer.momentum}
    states = tuple(Tensor(graph.fresh_name(f"{parameter}.{name}"), tensor.shape, kept[name]) for name in kept)
    factors = constant(graph.fresh_name(f"{parameter}.factors"), factors_of(np.broadcast_to(steps, (channels,))))
    return _Step(layer, kind, tensor, states, read, factors, given)


@dataclass(frozen=True)
class _Pair:
    """The update of a gained layer: weight and gains learn in one node."""

    node: Node
    states: tuple[Tensor, ...]
    tensors: tuple[Tensor, ...]


def _gained(graph: Graph, layer: Node, gradient: str, optimizer: SGD, noise: str) -> _Pair:
    x, weight, gain = (graph.tensor(name) for name in layer.inputs[:3])
    if x.quantization is None or weight.quantization is None or gain.quantization is None:
        raise PlanError(f"layer '{layer.name}' has no scales: what one step of '{weight.name}' means is not known")
    given: dict[str, Any] = {"salt": zlib.crc32(weight.name.encode()) >> 1, **layer.attributes}
    if optimizer.momentum:
        given["momentum"] = min(round(optimizer.momentum * 2**MOMENTUM_PLACES), 2**MOMENTUM_PLACES - 1)
    ratio = float(gain.quantization.scale) / float(np.asarray(weight.quantization.scale).reshape(-1)[0])
    steps = optimizer.lr * float(x.quantization.scale) * STEPS
    memory: list[Tensor] = []
    states: list[Tensor] = []
    factors: list[Tensor] = []
    for tensor, factor in ((weight, steps * ratio), (gain, steps / ratio)):
        kinds = {"rest": "int8", "velocity": "int16"} if optimizer.momentum else {"rest": "int8"}
        kept = [Tensor(graph.fresh_name(f"{tensor.name}.{kind}"), tensor.shape, kinds[kind]) for kind in kinds]
        states += kept
        memory += [tensor, *kept]
        factors.append(constant(graph.fresh_name(f"{tensor.name}.factors"), factors_of([factor])))
    new = [replace(tensor, name=graph.fresh_name(f"{tensor.name}.next"), data=None) for tensor in memory]
    updates = {after.name: before.name for after, before in zip(new, memory, strict=True)}
    inputs = (*updates.values(), noise, gradient, x.name, *(each.name for each in factors))
    node = Node(f"{optimizer.rule}_block_gained", f"{weight.name}.update", inputs, tuple(updates), given, updates)
    return _Pair(node, tuple(states), (*memory, *new, *factors))


def attach_in_integers(
    graph: Graph, gradients: Mapping[str, str], optimizer: Gradient
) -> tuple[Graph, tuple[str, ...]]:
    """``attach_updates`` where all gradients are blocks (``ops.block_update``).

    The scalar input ``noise`` is added to the graph's. State: ``NAME.rest`` (int8, like the weight) of each int8
    weight, with momentum ``NAME.velocity`` (int16 of a weight, int32 of a bias). A dense layer's weight and bias learn
    in one node.
    """
    if not isinstance(optimizer, SGD) or optimizer.clip or optimizer.decay >= 1:
        raise PlanError(
            f"{optimizer}: with precision='int8' learning is by SGD(lr, momentum, decay), decay below 1, without clip; "
            "or use precision='mixed'"
        )
    gained = [node for node in graph.nodes if node.op == GAINED and node.inputs[1] in gradients]
    together = {name for node in gained for name in node.inputs[1:3]}
    steps = [
        _step(graph, parameter, gradient, optimizer)
        for parameter, gradient in gradients.items()
        if parameter not in together
    ]
    noise = graph.fresh_name("noise")
    nodes, tensors = block_rules.fused(graph.nodes), [Tensor(noise, (), "int32")]
    biases = {id(each.layer): each for each in steps if each.kind == "bias" and each.layer.op.startswith("dense")}
    weights = [each for each in steps if each.kind == "dense" and id(each.layer) in biases]
    joined = {id(biases[id(each.layer)]) for each in weights}
    for each in steps:
        if id(each) in joined:
            continue
        kind, parts = each.kind, [each]
        if each in weights:
            kind, parts = "dense_bias", [each, biases[id(each.layer)]]
        memory = [tensor for part in parts for tensor in part.memory]
        new = [replace(tensor, name=graph.fresh_name(f"{tensor.name}.next"), data=None) for tensor in memory]
        updates = {after.name: before.name for after, before in zip(new, memory, strict=True)}
        inputs = (*updates.values(), noise, *each.read, *(part.factors.name for part in parts))
        name = f"{each.parameter.name}.update"
        nodes.append(Node(f"{optimizer.rule}_block_{kind}", name, inputs, tuple(updates), each.given, updates))
        tensors += [*memory, *new, *(part.factors for part in parts)]
    pairs = [_gained(graph, node, gradients[node.inputs[1]], optimizer, noise) for node in gained]
    nodes += [each.node for each in pairs]
    tensors += [tensor for each in pairs for tensor in each.tensors]
    kept = [tensor for each in steps for tensor in each.states] + [tensor for each in pairs for tensor in each.states]
    states = tuple(tensor.name for tensor in kept)
    result = graph.with_nodes(nodes, tensors)
    return replace(result, inputs=(*graph.inputs, noise, *states)), states
