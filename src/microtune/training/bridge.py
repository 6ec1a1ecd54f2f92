"""``mt.to_torch``: a float graph as a PyTorch module of standard layers, to be pruned, taught and trained further."""

from __future__ import annotations

import re
from typing import Any

from microtune.compress.folding import drop_dead
from microtune.errors import ModelError
from microtune.ir import Graph
from microtune.ops.trees import trees_of
from microtune.training import require


def without_last_activation(graph: Graph) -> Graph:
    """The graph without the softmax or sigmoid it ends in: its output is then logits, which every loss takes."""
    (output,) = graph.outputs
    last = graph.producer(output)
    if last is None or last.op not in ("softmax", "sigmoid") or last.inputs[0] in graph.inputs:
        return graph
    return drop_dead(Graph(graph.name, graph.tensors, graph.nodes, graph.inputs, last.inputs[:1]))


def to_torch(graph: Graph, *, logits: bool = True) -> Any:
    """A float graph as a ``torch.fx.GraphModule`` of standard layers, with the graph's weights, ready to be trained.

    The module takes a batch (n, *input shape) with the axes in the graph's order, so (n, H, W, C) for what came from
    TensorFlow; within, images lie channels first, as PyTorch has them. ``load(module, example=...)`` gives a graph of
    the same outputs. ``logits``: a softmax or sigmoid at the very end is left out, since the losses of training take
    what comes before it.

    Raises ModelError for what is no graph, for one that is int8 already or has trees, and for an operator no layer
    stands for, naming its node.
    """
    if not isinstance(graph, Graph):
        raise ModelError(f"to_torch takes a graph, and this is {type(graph).__name__}: mt.load makes one of a model")
    if trees_of(graph):
        raise ModelError(
            f"'{graph.name}' has trees, for which PyTorch has no layers: they are compiled as they are, and their "
            "leaves learn on the device"
        )
    require("to_torch")
    from torch import fx

    from microtune.training.bridge_operators import RULES
    from microtune.training.bridge_writer import Held, Writer

    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        counts = f"{len(graph.inputs)} inputs and {len(graph.outputs)} outputs"
        raise ModelError(f"graph '{graph.name}' has {counts}; to_torch takes one of each")
    graph = drop_dead(without_last_activation(graph) if logits else graph)
    for node in graph.nodes:
        if node.op not in RULES:
            is_int8 = any(graph.tensor(name).dtype != "float32" for name in node.outputs)
            advice = "; give the float graph" if is_int8 else f". Supported: {', '.join(sorted(RULES))}"
            raise ModelError(f"node '{node.name}' ({node.op}): no PyTorch layer stands for it{advice}")
    writer = Writer(graph)
    rank = len(writer.shape(graph.inputs[0]))
    writer.held[graph.inputs[0]] = Held(writer.calls.placeholder("x"), tuple(range(rank)))
    for node in graph.nodes:
        RULES[node.op](writer, node)
    writer.calls.output(writer.plain(graph.outputs[0]))
    name = re.sub(r"\W", "_", graph.name)
    module = fx.GraphModule(writer.root, writer.calls, name if name[:1].isalpha() else f"net_{name}")
    return module.float().train()
