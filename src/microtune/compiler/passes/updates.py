"""Attach the optimiser: one in-place update per trained tensor, fused with the gradient where it can be."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from microtune.compiler.passes.integer_updates import attach_in_integers
from microtune.errors import PlanError
from microtune.ir import Graph, Node, Tensor, constant
from microtune.ops import quantized_update, update
from microtune.ops.update import RULES
from microtune.tuning.optimizers import Gradient

GEOMETRY = ("stride", "padding")
SPARSE = {("sgd", "tree_sum_grad"): "sgd_tree_sum"}
"""{(rule, gradient): the step that touches only where the gradient is not zero}; the rule leaves the rest as it is."""


def _integer_update(
    graph: Graph, nodes: list[Node], parameter: str, gradient: str, scalars: tuple[str, ...], optimizer: Gradient
) -> tuple[Node, list[Tensor]]:
    """The step of an int8 weight or int32 bias, rounded at random, and the tensors it brings.

    A weight's gradient that only the step reads is taken out of ``nodes``: the step forms it element by element.
    """
    tensor = graph.tensor(parameter)
    if optimizer.rule != "sgd":
        raise PlanError(
            f"'{parameter}' is {tensor.dtype}: integers learn by SGD without momentum (precision='mixed'), "
            f"not by {optimizer.rule}"
        )
    if tensor.quantization is None:
        raise PlanError(f"'{parameter}' is {tensor.dtype} without a scale: what one step of it means is not known")
    scales = np.asarray(tensor.quantization.scale, np.float32).reshape(-1)
    name = f"{parameter}.scale"
    known = graph.tensors.get(name)
    if known is None or known.data is None or not np.array_equal(known.data, scales):
        name = graph.fresh_name(name)
    # different for each tensor, the same for each build
    given = {**optimizer.constants, "salt": zlib.crc32(parameter.encode()) >> 1}
    producer = next(node for node in nodes if gradient in node.outputs)
    op = f"sgd_{tensor.dtype}"
    factors: tuple[str, ...] = (gradient,)
    if producer.op in quantized_update.FUSED and not any(gradient in node.inputs for node in nodes):
        nodes.remove(producer)
        op, factors = quantized_update.FUSED[producer.op], producer.inputs
        given |= producer.attributes
    elif tensor.quantization.axis:
        given["axis"] = tensor.quantization.axis
    new = replace(tensor, name=graph.fresh_name(f"{parameter}.next"), data=None)
    inputs = (parameter, *scalars, *factors, name)
    return Node(op, f"{parameter}.update", inputs, (new.name,), given, {new.name: parameter}), [
        new,
        constant(name, scales),
    ]


def attach_updates(graph: Graph, gradients: Mapping[str, str], optimizer: Gradient) -> tuple[Graph, tuple[str, ...]]:
    """The training graph and the names of its optimiser state tensors, in order.

    Scalar inputs ``rate`` (``correction`` for Adam, ``noise`` where integers learn) are added to the graph's
    inputs. The gradient of a layer's weight is not computed: the update takes its two factors (see ``ops.update``).
    """
    if any(graph.tensor(gradient).dtype == "int16" for gradient in gradients.values()):
        return attach_in_integers(graph, gradients, optimizer)
    states, roles, _ = RULES[optimizer.rule]
    integers = [name for name in gradients if graph.tensor(name).dtype != "float32"]
    scalars = tuple(graph.fresh_name(role) for role in roles)
    noise = (graph.fresh_name("noise"),) if integers else ()
    nodes = list(graph.nodes)
    tensors = [Tensor(name, ()) for name in scalars] + [Tensor(name, (), "int32") for name in noise]
    memory: list[str] = []
    for parameter, gradient in gradients.items():
        if parameter in integers:
            node, added = _integer_update(graph, nodes, parameter, gradient, (*scalars, *noise), optimizer)
            nodes.append(node)
            tensors += added
            continue
        shape = graph.tensor(parameter).shape
        state = [graph.fresh_name(f"{parameter}.{optimizer.rule}{index}") for index in range(states)]
        memory += state
        tensors += [Tensor(name, shape) for name in state]
        producer = next(node for node in nodes if gradient in node.outputs)
        factors: tuple[str, ...] = (gradient,)
        op, given = optimizer.rule, dict(optimizer.constants)
        if producer.op in update.FUSED and not any(gradient in node.inputs for node in nodes):
            nodes.remove(producer)
            op, factors = f"{op}_{update.FUSED[producer.op]}", producer.inputs
            given |= {name: value for name, value in producer.attributes.items() if name in GEOMETRY}
        elif (op, producer.op) in SPARSE and not any(gradient in node.inputs for node in nodes):
            nodes.remove(producer)
            op, factors, given = SPARSE[op, producer.op], producer.inputs, given | dict(producer.attributes)
        old = (parameter, *state)
        new = tuple(graph.fresh_name(f"{name}.next") for name in old)
        tensors += [Tensor(name, shape) for name in new]
        inputs = (*old, *scalars, *factors)
        updates = dict(zip(new, old, strict=True))
        nodes.append(Node(op, f"{parameter}.update", inputs, new, given, updates))
    result = graph.with_nodes(nodes, tensors)
    result = Graph(
        result.name, {**result.tensors}, result.nodes, (*graph.inputs, *scalars, *noise, *memory), graph.outputs
    )
    return result, tuple(memory)
