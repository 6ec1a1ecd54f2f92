"""Attach the optimiser: one in-place update per trained tensor, fused with the gradient where it can be."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from microtune.errors import PlanError
from microtune.ir import Graph, Node, Tensor
from microtune.ops.update import RULES
from microtune.tuning.optimizers import Gradient


def attach_updates(graph: Graph, gradients: Mapping[str, str], optimizer: Gradient) -> tuple[Graph, tuple[str, ...]]:
    """The training graph and the names of its optimiser state tensors, in order.

    Scalar inputs ``rate`` (and ``correction`` for Adam) are added to the graph's inputs. The gradient of a
    dense weight is not computed: the update takes its two factors (see ``ops.update``).
    """
    states, roles, _ = RULES[optimizer.rule]
    scalars = tuple(graph.fresh_name(role) for role in roles)
    nodes = list(graph.nodes)
    tensors = [Tensor(name, ()) for name in scalars]
    memory: list[str] = []
    for parameter, gradient in gradients.items():
        shape = graph.tensor(parameter).shape
        state = [graph.fresh_name(f"{parameter}.{optimizer.rule}{index}") for index in range(states)]
        memory += state
        tensors += [Tensor(name, shape) for name in state]
        producer = next(node for node in nodes if gradient in node.outputs)
        factors: tuple[str, ...] = (gradient,)
        op = optimizer.rule
        if producer.op == "dense_grad_weight" and not any(gradient in node.inputs for node in nodes):
            nodes.remove(producer)
            op, factors = f"{op}_dense", producer.inputs
        old = (parameter, *state)
        new = tuple(graph.fresh_name(f"{name}.next") for name in old)
        tensors += [Tensor(name, shape) for name in new]
        inputs = (*old, *scalars, *factors)
        updates = dict(zip(new, old, strict=True))
        nodes.append(Node(op, f"{parameter}.update", inputs, new, optimizer.constants, updates))
    result = graph.with_nodes(nodes, tensors)
    result = Graph(result.name, {**result.tensors}, result.nodes, (*graph.inputs, *scalars, *memory), graph.outputs)
    return result, tuple(memory)


def attach_least_squares(
    graph: Graph, trained: tuple[str, ...], loss: Node, forgetting: float, prior: float
) -> tuple[Graph, tuple[str, ...]]:
    """Recursive least squares on the last dense layer instead of a gradient step; see ``runtime/mt_kernels_rls.h``."""
    head = next(node for node in reversed(graph.nodes) if node.op == "dense")
    if loss.op != "mse" or tuple(head.inputs[1:]) != trained or head.output != loss.inputs[0]:
        raise PlanError("RLS learns the last dense layer on squared error: use it with learn=Head(1) and loss='mse'")
    outputs, inputs = graph.tensor(head.inputs[1]).shape
    size = (inputs + 1) * (inputs + 2) // 2
    covariance, gain = graph.fresh_name("covariance"), graph.fresh_name("gain")
    new = tuple(graph.fresh_name(f"{name}.next") for name in (*trained, covariance))
    tensors = [
        Tensor(covariance, (size,)),
        Tensor(gain, (inputs + 1,)),
        Tensor(new[0], (outputs, inputs)),
        Tensor(new[1], (outputs,)),
        Tensor(new[2], (size,)),
    ]
    node = Node(
        "rls", "head.update", (*trained, covariance, head.inputs[0], loss.inputs[0], loss.outputs[1]),
        (*new, gain), {"forgetting": float(np.float32(forgetting)), "prior": prior},
        dict(zip(new, (*trained, covariance), strict=True)),
    )  # fmt: skip
    result = graph.with_nodes([*graph.nodes, node], tensors)
    return Graph(result.name, result.tensors, result.nodes, (*graph.inputs, covariance), graph.outputs), (covariance,)
