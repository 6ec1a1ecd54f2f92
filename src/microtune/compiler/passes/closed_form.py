"""Attach a closed-form head: one node that rewrites the last dense layer and its own state, instead of gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from microtune.compiler.factory import Samples, discriminants, prior_covariance
from microtune.errors import PlanError
from microtune.ir import Graph, Node, Tensor, constant
from microtune.ops import OPS
from microtune.ops.closed_form import packed, triangle
from microtune.ops.op import Attributes, KernelCall
from microtune.tuning.heads import MAP, RLS, SLDA, ClosedForm, Logistic

Sampled = Callable[[str, str], Samples]
"""The factory's samples at (the input of the last layer, its output)."""


@dataclass(frozen=True, eq=False)
class Attached:
    """The training step; the names of what it remembers, the calls that begin it, and constants only they read."""

    graph: Graph
    state: tuple[str, ...]
    begin: tuple[KernelCall, ...]
    constants: tuple[Tensor, ...] = ()


@dataclass(frozen=True, eq=False)
class _Head:
    """The last layer as (C, H), the names of its input, of its output and of the loss, and how others are found."""

    outputs: int
    inputs: int
    x: str
    y: str
    target: str
    gradient: str
    fresh: Callable[[str], str]


@dataclass(frozen=True, eq=False)
class _Update:
    """What the node of a head is: its operator, the shape of its state, what else it reads, how its state begins."""

    op: str
    state: tuple[int, ...]
    reads: tuple[str, ...]
    attributes: Attributes
    begin: Callable[[str], KernelCall]
    constants: tuple[Tensor, ...] = ()
    begin_constants: tuple[Tensor, ...] = ()


def _independent(state: str, prior: float, inputs: int, outputs: int) -> KernelCall:
    """Begin covariances of weights that are independent of each other."""
    return KernelCall("mt_covariance_begin", (state, float(prior), inputs, outputs))


def _rls(head: _Head, optimizer: RLS, sampled: Sampled | None) -> _Update:
    return _Update(
        "rls",
        (triangle(head.inputs + 1),),
        (head.x, head.gradient),
        {"forgetting": float(np.float32(optimizer.forgetting)), "prior": float(optimizer.prior)},
        lambda state: _independent(state, optimizer.prior, head.inputs, 1),
    )


def _logistic(head: _Head, optimizer: Logistic, sampled: Sampled | None) -> _Update:
    size = head.inputs + 1
    if sampled is None:
        variance = 4 / (optimizer.worth * (1 + optimizer.ridge))  # that of inputs of size 1 which do not correlate
        beginning, most = None, np.full(size, variance, np.float32)
    else:
        covariance = prior_covariance(sampled(head.x, head.y), optimizer.worth, optimizer.ridge)
        beginning, most = constant(head.fresh("prior_covariance"), packed(covariance)), covariance.diagonal()

    def begin(state: str) -> KernelCall:
        if beginning is None:
            return _independent(state, float(most[0]), head.inputs, head.outputs)
        return KernelCall("mt_covariance_copy", (state, beginning.name, head.inputs, head.outputs))

    return _Update(
        "logistic",
        (head.outputs * triangle(size),),
        (head.x, head.y, head.target),
        {"walk": float(optimizer.walk)},
        begin,
        (constant(head.fresh("prior_variance"), most),),
        () if beginning is None else (beginning,),
    )


def _copy(state: str, beginning: Tensor) -> KernelCall:
    return KernelCall("MT_COPY", (state, beginning.name, beginning.bytes))


def _needed(sampled: Sampled | None, head: _Head, wanted: str, why: str) -> Samples:
    if sampled is None:
        raise PlanError(
            f"{why}: pass plan(..., calibration={wanted}), or --calibration FILE.npz, some hundred samples that the "
            "base learnt from"
        )
    return sampled(head.x, head.y)


def _map(head: _Head, optimizer: MAP, sampled: Sampled | None) -> _Update:
    samples = _needed(sampled, head, "x", "MAP() begins with the factory's samples as its prior")
    covariance = prior_covariance(samples, optimizer.worth, optimizer.ridge)
    beginning = constant(head.fresh("prior_covariance"), packed(covariance))
    return _Update(
        "map",
        beginning.shape,
        (head.x, head.y, head.target),
        {},
        lambda state: _copy(state, beginning),
        begin_constants=(beginning,),
    )


def _slda(head: _Head, optimizer: SLDA, sampled: Sampled | None) -> _Update:
    samples = _needed(sampled, head, "(x, y)", "SLDA() begins with the factory's mean of each class")
    found = discriminants(samples, optimizer.worth, optimizer.shrinkage)
    start = np.concatenate([found.means.ravel(), found.worth, np.zeros(1, np.float32)])
    beginning = constant(head.fresh("class_means"), start)
    return _Update(
        "slda",
        beginning.shape,
        (head.x, head.target),
        {"memory": float(optimizer.memory or MOST)},
        lambda state: _copy(state, beginning),
        (
            constant(head.fresh("precision"), packed(found.precision)),
            constant(head.fresh("log_prior"), found.log_prior),
        ),
        (beginning,),
    )


MOST = float(2**24)
"""Samples that a float counts: one more is the same number."""
LOSSES = {RLS: "mse", MAP: "cross_entropy", SLDA: "cross_entropy", Logistic: "binary_cross_entropy"}
"""The loss that each head is the closed form of."""
UPDATES: dict[type, Callable[[_Head, Any, Sampled | None], _Update]] = {
    RLS: _rls, MAP: _map, SLDA: _slda, Logistic: _logistic,
}  # fmt: skip


def _last_layer(graph: Graph, loss: Node, trained: tuple[str, ...], optimizer: ClosedForm) -> _Head:
    name, wanted = type(optimizer).__name__, LOSSES[type(optimizer)]
    last = next((node for node in reversed(graph.nodes) if node.op == "dense"), None)
    if last is None or loss.op != wanted or tuple(last.inputs[1:]) != trained or last.output != loss.inputs[0]:
        raise PlanError(
            f"{name} learns the last dense layer, weights and biases in float32, on {wanted}: use it with "
            f"learn=Head(1), loss='{wanted}' and precision='float32'"
        )
    outputs, inputs = graph.tensor(last.inputs[1]).shape
    return _Head(outputs, inputs, last.inputs[0], last.output, loss.inputs[1], loss.outputs[1], graph.fresh_name)


def attach_closed_form(
    graph: Graph, loss: Node, trained: tuple[str, ...], optimizer: ClosedForm, sampled: Sampled | None
) -> Attached:
    """The step of a closed-form head on a graph that ends in its loss. Raises PlanError where there is no such layer,
    or where the head needs samples of the factory's data and there are none."""
    head = _last_layer(graph, loss, trained, optimizer)
    update = UPDATES[type(optimizer)](head, optimizer, sampled)
    state = graph.fresh_name(f"{update.op}.state")
    old = (*trained, state)
    known = [*(graph.tensor(name) for name in trained), Tensor(state, update.state), *update.constants]
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
