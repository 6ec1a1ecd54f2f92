"""What learns in an ensemble of trees: what its leaves say. Where they part stays as it was."""

from __future__ import annotations

import numpy as np

from microtune.errors import PlanError
from microtune.ir import Graph, Node, constant
from microtune.ops import OPS
from microtune.ops.trees import trees_of
from microtune.tuning.schemes import Full, Head, Scheme

LOGITS = ("log_probabilities", "log_odds")


def choose_leaves(graph: Graph, scheme: Scheme) -> tuple[Graph, tuple[str, ...]]:
    """The graph of an ensemble and the values of its leaves, which learn.

    Leaves that count probabilities stay as they are, and leaves of the same trees that say nothing yet are added to
    the logits: that is where losses of classes are at home. Raises PlanError for a scheme that means layers.
    """
    if scheme not in (Full(), Head(1)):
        raise PlanError(
            f"{scheme} is for layers with weights, and '{graph.name}' has trees: Full() and Head(1) both mean what "
            "their leaves say"
        )
    (total,) = trees_of(graph)
    leaves, sizes, values = total.inputs
    logits = next((node for node in graph.nodes if node.op in LOGITS and node.inputs[0] == total.output), None)
    if logits is None:
        return graph, (values,)
    learnt = constant(graph.fresh_name(f"{values}.learnt"), np.zeros(graph.tensor(values).shape, np.float32))
    counted, moved = graph.fresh_name(f"{logits.output}.counted"), graph.fresh_name(f"{logits.output}.learnt")
    said = graph.tensor(logits.output)
    given = (graph.tensor(leaves), graph.tensor(sizes), learnt)
    tensors = [
        learnt,
        *OPS["log_odds"].results([counted], [said], {}),
        *OPS["tree_sum"].results([moved], given, total.attributes),
    ]
    written = [
        Node(logits.op, logits.name, logits.inputs, (counted,)),
        Node("tree_sum", moved, (leaves, sizes, learnt.name), (moved,), total.attributes),
        Node("add", said.name, (counted, moved), (said.name,)),
    ]
    at = graph.nodes.index(logits)
    return graph.with_nodes([*graph.nodes[:at], *written, *graph.nodes[at + 1 :]], tensors), (learnt.name,)
