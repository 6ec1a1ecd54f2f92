"""Attach a closed-form head: one node that rewrites the last dense layer and its own state, instead of gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from microtune.compiler.factory import discriminants, prior_covariance
from microtune.compiler.passes.closed_form_fixed import FIXED_UPDATES
from microtune.compiler.passes.closed_form_layer import (
    LOSSES,
    LastLayer,
    Sampled,
    Update,
    copied,
    map_needs,
    slda_needs,
)
from microtune.errors import PlanError
from microtune.ir import Graph, Node, Tensor, constant
from microtune.ops import OPS
from microtune.ops.closed_form import packed, triangle
from microtune.ops.op import KernelCall
from microtune.ops.trees import trees_of
from microtune.tuning.heads import MAP, RLS, SLDA, ClosedForm, Logistic


@dataclass(frozen=True, eq=False)
class Attached:
    """The training step; the names of what it remembers, the calls that begin it, and constants only they read."""

    graph: Graph
    state: tuple[str, ...]
    begin: tuple[KernelCall, ...]
    constants: tuple[Tensor, ...] = ()


def _independent(state: str, prior: float, inputs: int, outputs: int) -> KernelCall:
    """Begin covariances of weights that are independent of each other."""
    return KernelCall("mt_covariance_begin", (state, float(prior), inputs, outputs))


def _rls(layer: LastLayer, optimizer: RLS, sampled: Sampled | None) -> Update:
    return Update(
        "rls",
        (triangle(layer.inputs + 1),),
        (layer.x.name, layer.gradient),
        {"forgetting": float(np.float32(optimizer.forgetting)), "prior": float(optimizer.prior)},
        lambda state: _independent(state, optimizer.prior, layer.inputs, 1),
    )


def _logistic(layer: LastLayer, optimizer: Logistic, sampled: Sampled | None) -> Update:
    size = layer.inputs + 1
    if sampled is None:
        beginning, most = None, np.full(size, optimizer.independent_prior, np.float32)
    else:
        covariance = prior_covariance(sampled(layer.x.name, layer.y.name), optimizer.worth, optimizer.ridge)
        beginning, most = constant(layer.fresh("prior_covariance"), packed(covariance)), covariance.diagonal()

    def begin(state: str) -> KernelCall:
        if beginning is None:
            return _independent(state, float(most[0]), layer.inputs, layer.outputs)
        return KernelCall("mt_covariance_copy", (state, beginning.name, layer.inputs, layer.outputs))

    return Update(
        "logistic",
        (layer.outputs * triangle(size),),
        (layer.x.name, layer.y.name, layer.target),
        {"walk": float(optimizer.walk)},
        begin,
        (constant(layer.fresh("prior_variance"), most),),
        () if beginning is None else (beginning,),
    )


def _map(layer: LastLayer, optimizer: MAP, sampled: Sampled | None) -> Update:
    samples = map_needs(sampled)(layer.x.name, layer.y.name)
    covariance = prior_covariance(samples, optimizer.worth, optimizer.ridge)
    beginning = constant(layer.fresh("prior_covariance"), packed(covariance))
    return Update(
        "map",
        beginning.shape,
        (layer.x.name, layer.y.name, layer.target),
        {},
        lambda state: copied(state, beginning),
        begin_constants=(beginning,),
    )


def _slda(layer: LastLayer, optimizer: SLDA, sampled: Sampled | None) -> Update:
    samples = slda_needs(sampled)(layer.x.name, layer.y.name)
    found = discriminants(samples, optimizer.worth, optimizer.shrinkage)
    start = np.concatenate([found.means.ravel(), found.worth, np.zeros(1, np.float32)])
    beginning = constant(layer.fresh("class_means"), start)
    return Update(
        "slda",
        beginning.shape,
        (layer.x.name, layer.target),
        {"memory": float(optimizer.memory or MOST)},
        lambda state: copied(state, beginning),
        (
            constant(layer.fresh("precision"), packed(found.precision)),
            constant(layer.fresh("log_prior"), found.log_prior),
        ),
        (beginning,),
    )


MOST = float(2**24)
"""Samples that a float counts: one more is the same number."""
UPDATES: Mapping[type, Callable[[LastLayer, Any, Sampled | None], Update]] = {
    RLS: _rls, MAP: _map, SLDA: _slda, Logistic: _logistic,
}  # fmt: skip


def _last_layer(graph: Graph, loss: Node, trained: tuple[str, ...], optimizer: ClosedForm) -> LastLayer:
    name, wanted = type(optimizer).__name__, LOSSES[type(optimizer)]
    last = next((node for node in reversed(graph.nodes) if node.op in ("dense", "dense_fixed")), None)
    if trees_of(graph):
        raise PlanError(f"{name} learns a dense layer, and this model has trees: use Leaves(), or SGD()")
    fits = last is not None and tuple(last.inputs[1:]) == trained and last.output == loss.inputs[0]
    # that of integers was chosen with its loss: see closed_form_fixed
    if last is None or not fits or (last.op == "dense" and loss.op != wanted):
        more = "; a model with one output, a yes or no, may learn more by it: Full()" if name == "Logistic" else ""
        raise PlanError(
            f"{name} learns the last dense layer, weights and biases in float32, on {wanted}: use it with "
            f"learn=Head(1), loss='{wanted}' and precision='float32'{more}"
        )
    outputs, inputs = graph.tensor(last.inputs[1]).shape
    x, y = graph.tensor(last.inputs[0]), graph.tensor(last.output)
    return LastLayer(outputs, inputs, x, y, loss.inputs[1], loss.outputs[1], graph.fresh_name)


def attach_closed_form(
    graph: Graph, loss: Node, trained: tuple[str, ...], optimizer: ClosedForm, sampled: Sampled | None
) -> Attached:
    """The step of a closed-form head on a graph that ends in its loss. Raises PlanError where there is no such layer,
    or where the head needs samples of the factory's data and there are none."""
    layer = _last_layer(graph, loss, trained, optimizer)
    updates = UPDATES if layer.y.dtype == "float32" else FIXED_UPDATES
    update = updates[type(optimizer)](layer, optimizer, sampled)
    state = graph.fresh_name(f"{update.op}.state")
    old = (*trained, state)
    remembered = Tensor(state, update.state, layer.y.dtype)
    known = [*(graph.tensor(name) for name in trained), remembered, *update.constants]
    inputs = (*(each.name for each in known), *update.reads)
    given = [*known, *(graph.tensor(name) for name in update.reads)]
    new = [graph.fresh_name(f"{name}.next") for name in old]
    new += [graph.fresh_name(f"{update.op}.scratch")] * (OPS[update.op].count(given, update.attributes) - len(old))
    tensors = [*known[len(trained) :], *OPS[update.op].results(new, given, update.attributes)]
    node = Node(
        update.op, "head.update", inputs, tuple(new), update.attributes, dict(zip(new, old, strict=False))
    )  # fmt: skip
    result = graph.with_nodes([*graph.nodes, node], tensors)
    result = replace(result, inputs=(*graph.inputs, state))
    return Attached(result, (state,), (update.begin(state),), update.begin_constants)
