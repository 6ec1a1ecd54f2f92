"""Attach ``Leaves``: one node that rewrites the leaves of trees and their covariance, instead of gradients."""

from __future__ import annotations

from dataclasses import replace

from microtune.compiler.passes.closed_form import Attached
from microtune.errors import PlanError
from microtune.ir import Graph, Node, Tensor
from microtune.ops import OPS
from microtune.ops.closed_form import triangle
from microtune.ops.leaves import LOSSES
from microtune.ops.op import KernelCall
from microtune.tuning.heads import Leaves

MOST = 1024
"""Leaves up to which their covariance is kept: 2 MB."""


def attach_leaves(graph: Graph, loss: Node, trained: tuple[str, ...], optimizer: Leaves) -> Attached:
    """The step of ``Leaves`` on a graph that ends in its loss. Raises PlanError where no trees learn, for a loss that
    has no such formula, and for trees of which each has its own output."""
    total = next((node for node in graph.nodes if node.op == "tree_sum" and node.inputs[2] in trained), None)
    if total is None:
        raise PlanError("Leaves() learns the leaves of trees, and this model has none: use RLS(), MAP() or Logistic()")
    if loss.op not in LOSSES:
        raise PlanError(f"Leaves() has no formula for {loss.op}; it learns on {', '.join(LOSSES)}")
    leaves, sizes, name = total.inputs
    values, y = graph.tensor(name), graph.tensor(loss.inputs[0])
    count, width = values.shape
    if width != y.size or (loss.op == "binary_cross_entropy" and width > 1):
        raise PlanError(
            f"Leaves() learns trees whose leaves speak of all outputs, and each of these speaks of one of {y.size}: "
            "use SGD(), or a forest"
        )
    if count > MOST:
        raise PlanError(f"Leaves() keeps a covariance of all leaves, and {count} are more than {MOST}: use SGD()")
    prior = optimizer.prior(loss.op, graph.tensor(leaves).shape[0])
    state = Tensor(graph.fresh_name("leaves.covariance"), (triangle(count),))
    given = {"prior": prior, "walk": float(optimizer.walk)}
    given |= {key: total.attributes[key] for key in ("size_bytes", "leaf_bytes")}
    op = f"leaves_{loss.op}"
    inputs = (name, state.name, leaves, sizes, y.name, loss.inputs[1])
    known = [state if each == state.name else graph.tensor(each) for each in inputs]
    new = [graph.fresh_name(f"{each}.next") for each in (name, state.name)] + [graph.fresh_name("leaves.scratch")]
    node = Node(op, "leaves.update", inputs, tuple(new), given, {new[0]: name, new[1]: state.name})
    result = graph.with_nodes([*graph.nodes, node], [state, *OPS[op].results(new, known, given)])
    begin = KernelCall("mt_covariance_begin", (state.name, prior, count - 1, 1))
    return Attached(replace(result, inputs=(*graph.inputs, state.name)), (state.name,), (begin,))
