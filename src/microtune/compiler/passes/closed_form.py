"""Attach a closed-form head: one node that rewrites the last dense layer and its own state, instead of gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from microtune.compiler.factory import Samples
from microtune.errors import PlanError
from microtune.ir import Graph, Node, Tensor
from microtune.ops.op import Attributes, KernelCall
from microtune.tuning.heads import RLS, ClosedForm

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
    """The last layer as (C, H), and the names of its input, of its output and of the loss."""

    outputs: int
    inputs: int
    x: str
    y: str
    target: str
    gradient: str


@dataclass(frozen=True, eq=False)
class _Update:
    """What the node of a head is: its operator, the shape of its state and of its scratch, what else it reads."""

    op: str
    state: tuple[int, ...]
    scratch: tuple[int, ...]
    reads: tuple[str, ...]
    attributes: Attributes
    begin: Callable[[str], KernelCall]
    constants: tuple[Tensor, ...] = ()
    begin_constants: tuple[Tensor, ...] = ()


def _independent(state: str, prior: float, bias_prior: float, inputs: int, outputs: int) -> KernelCall:
    """Begin covariances of weights that are independent of each other."""
    return KernelCall("mt_covariance_begin", (state, float(prior), float(bias_prior), inputs, outputs))


def _rls(head: _Head, optimizer: RLS, sampled: Sampled | None) -> _Update:
    size = head.inputs + 1
    return _Update(
        "rls",
        (size * (size + 1) // 2,),
        (size,),
        (head.x, head.gradient),
        {"forgetting": float(np.float32(optimizer.forgetting)), "prior": optimizer.prior},
        lambda state: _independent(state, optimizer.prior, optimizer.prior, head.inputs, 1),
    )


LOSSES = {RLS: "mse"}
"""The loss that each head is the closed form of."""
UPDATES = {RLS: _rls}


def _last_layer(graph: Graph, loss: Node, trained: tuple[str, ...], optimizer: ClosedForm) -> _Head:
    name, wanted = type(optimizer).__name__, LOSSES[type(optimizer)]
    last = next((node for node in reversed(graph.nodes) if node.op == "dense"), None)
    if last is None or loss.op != wanted or tuple(last.inputs[1:]) != trained or last.output != loss.inputs[0]:
        raise PlanError(
            f"{name} learns the last dense layer, weights and biases in float32, on {wanted}: use it with "
            f"learn=Head(1), loss='{wanted}' and precision='float32'"
        )
    outputs, inputs = graph.tensor(last.inputs[1]).shape
    return _Head(outputs, inputs, last.inputs[0], last.output, loss.inputs[1], loss.outputs[1])


def attach_closed_form(
    graph: Graph, loss: Node, trained: tuple[str, ...], optimizer: ClosedForm, sampled: Sampled | None
) -> Attached:
    """The step of a closed-form head on a graph that ends in its loss. Raises PlanError where there is no such layer,
    or where the head needs samples of the factory's data and there are none."""
    head = _last_layer(graph, loss, trained, optimizer)
    update = UPDATES[type(optimizer)](head, optimizer, sampled)
    state, scratch = graph.fresh_name(f"{update.op}.state"), graph.fresh_name(f"{update.op}.scratch")
    old = (*trained, state)
    new = tuple(graph.fresh_name(f"{name}.next") for name in old)
    shapes = [*(graph.tensor(name).shape for name in trained), update.state]
    tensors = [Tensor(state, update.state), Tensor(scratch, update.scratch), *update.constants]
    tensors += [Tensor(name, shape) for name, shape in zip(new, shapes, strict=True)]
    node = Node(
        update.op,
        "head.update",
        (*old, *(each.name for each in update.constants), *update.reads),
        (*new, scratch),
        update.attributes,
        dict(zip(new, old, strict=True)),
    )
    result = graph.with_nodes([*graph.nodes, node], tensors)
    result = replace(result, inputs=(*graph.inputs, state))
    return Attached(result, (state,), (update.begin(state),), update.begin_constants)
