"""Update schemes: which tensors learn. What a scheme does not name stays frozen, in flash."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np

from microtune.errors import PlanError
from microtune.ir import Graph, Node, Tensor, constant


@dataclass(frozen=True)
class Full:
    """Every weight and bias learns."""


@dataclass(frozen=True)
class Head:
    """The last ``layers`` dense layers learn, weights and biases."""

    layers: int = 1


@dataclass(frozen=True)
class Bias:
    """The biases of all dense layers learn; the weights stay frozen (Ben Zaken et al. 2022, BitFit)."""


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters beside every dense layer: W x + (alpha / rank) B A x (Hu et al. 2022).

    A (rank, inputs) starts random, B (outputs, rank) at zero, so that the network starts as the base.
    ``alpha`` defaults to ``rank``.
    """

    rank: int = 4
    alpha: float | None = None


Scheme = Full | Head | Bias | LoRA


@dataclass(frozen=True)
class Selection:
    """The graph, adapters inserted where the scheme asks for them, and the names of what learns."""

    graph: Graph
    trained: tuple[str, ...]


def _dense_nodes(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op == "dense" and graph.tensor(node.inputs[1]).is_constant]


def _parameters(graph: Graph, nodes: list[Node]) -> tuple[str, ...]:
    names = dict.fromkeys(name for node in nodes for name in node.inputs if graph.tensor(name).is_constant)
    return tuple(names)


def _adapters(graph: Graph, scheme: LoRA) -> Selection:
    nodes: list[Node] = []
    tensors: list[Tensor] = []
    trained: list[str] = []
    factor = (scheme.alpha if scheme.alpha is not None else scheme.rank) / scheme.rank
    for node in graph.nodes:
        if node not in _dense_nodes(graph):
            nodes.append(node)
            continue
        x, weight = node.inputs[:2]
        outputs, inputs = graph.tensor(weight).shape
        if scheme.rank >= min(inputs, outputs) and min(inputs, outputs) > 1:
            raise PlanError(
                f"LoRA(rank={scheme.rank}) on '{weight}' ({outputs}, {inputs}): the rank must be below "
                f"{min(inputs, outputs)}, otherwise Head or Full learns more with less"
            )
        # seeded by the tensor's name: the same model always gets the same adapters
        generator = np.random.default_rng(zlib.crc32(weight.encode()))
        bound = math.sqrt(3.0 / inputs)
        down = generator.uniform(-bound, bound, (scheme.rank, inputs)).astype(np.float32)
        name = node.name
        tensors += [
            constant(f"{name}_lora_a", down),
            constant(f"{name}_lora_b", np.zeros((outputs, scheme.rank), np.float32)),
            Tensor(f"{name}_frozen", (outputs,)),
            Tensor(f"{name}_lora_down", (scheme.rank,)),
            Tensor(f"{name}_lora_scaled", (scheme.rank,)),
            Tensor(f"{name}_lora_up", (outputs,)),
        ]
        trained += [f"{name}_lora_a", f"{name}_lora_b"]
        nodes += [
            Node("dense", f"{name}_frozen", node.inputs, (f"{name}_frozen",)),
            Node("dense", f"{name}_lora_down", (x, f"{name}_lora_a"), (f"{name}_lora_down",)),
            Node(
                "scale",
                f"{name}_lora_scale",
                (f"{name}_lora_down",),
                (f"{name}_lora_scaled",),
                {"factor": factor},
            ),
            Node("dense", f"{name}_lora_up", (f"{name}_lora_scaled", f"{name}_lora_b"), (f"{name}_lora_up",)),
            Node("add", f"{name}_lora_add", (f"{name}_frozen", f"{name}_lora_up"), node.outputs),
        ]
    return Selection(graph.with_nodes(nodes, tensors), tuple(trained))


def select(graph: Graph, scheme: Scheme) -> Selection:
    """Apply a scheme to a graph. Raises PlanError when it does not fit the model."""
    dense = _dense_nodes(graph)
    if not dense:
        raise PlanError(f"graph '{graph.name}' has no dense layer with constant weights: nothing can learn")
    match scheme:
        case Full():
            return Selection(graph, tuple(tensor.name for tensor in graph.constants if tensor.dtype == "float32"))
        case Head(layers):
            if not 1 <= layers <= len(dense):
                raise PlanError(
                    f"Head(layers={layers}): '{graph.name}' has {len(dense)} dense layers; use 1 to {len(dense)}"
                )
            return Selection(graph, _parameters(graph, dense[-layers:]))
        case Bias():
            biases = tuple(dict.fromkeys(node.inputs[2] for node in dense if len(node.inputs) == 3))
            if not biases:
                raise PlanError(f"Bias(): no dense layer of '{graph.name}' has a bias; use Head or Full")
            return Selection(graph, biases)
        case LoRA(rank, alpha):
            if rank < 1 or (alpha is not None and not alpha > 0):
                raise PlanError(f"{scheme}: rank must be at least 1 and alpha above 0")
            return _adapters(graph, scheme)
        case _:
            raise PlanError(f"unknown update scheme {scheme!r}. Known: Full(), Head(layers), Bias(), LoRA(rank, alpha)")
