"""Attach an extended Kalman filter over all that learns: ``Logistic`` where that is not the last dense layer alone.

phi is the gradient of the one logit to each trained parameter, by the same differentiation as for gradient steps, from
a 1 in place of the gradient of the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from microtune.compiler.factory import left_open
from microtune.compiler.passes.autodiff import differentiate
from microtune.compiler.passes.closed_form import Attached
from microtune.compiler.passes.closed_form_layer import LOSSES, copied
from microtune.errors import PlanError
from microtune.ir import Graph, Node, Tensor, constant, verify
from microtune.ops import OPS
from microtune.ops.closed_form import packed, triangle
from microtune.ops.evaluate import evaluate
from microtune.ops.kalman import MOST_GATHERED
from microtune.ops.op import Attributes, KernelCall
from microtune.tuning.heads import Logistic

MOST = 512
"""Parameters of one filter: their covariance takes half a megabyte."""
ROUNDING = 2.0**-20
"""Share of its prior that each variance gets back of a sample at the least, for each parameter: more than rounding can
take from the covariance, so that it stays one (Gershgorin)."""

Values = Callable[[tuple[str, ...]], Mapping[str, NDArray[np.float64]]]
"""Tensors at the factory's samples, by name: (n, *shape)."""


def filters_all(graph: Graph, loss: Node, trained: tuple[str, ...]) -> bool:
    """Whether more learns, or something else, than weight and bias of the last dense layer; in integers never."""
    if graph.tensor(loss.inputs[0]).dtype != "float32":
        return False
    last = graph.producer(loss.inputs[0])
    whole = last is not None and last.op == "dense" and len(last.inputs) == 3 and last.inputs[1:] == trained
    return loss.op == LOSSES[Logistic] and not whole


def _check(graph: Graph, loss: Node, trained: Sequence[str]) -> None:
    """Raise PlanError for what one filter cannot learn."""
    logit = graph.tensor(loss.inputs[0])
    if logit.size != 1:
        raise PlanError(
            "Logistic() over more than the last dense layer learns the answer to one question, and "
            f"'{logit.name}' has {logit.size}: use it with learn=Head(1), or SGD()"
        )
    integers = [name for name in trained if graph.tensor(name).dtype != "float32"]
    if integers:
        raise PlanError(f"Logistic() learns floats, and '{integers[0]}' is int8: use precision='float32'")
    size = sum(graph.tensor(name).size for name in trained)
    if size > MOST:
        raise PlanError(
            f"Logistic() over {size} parameters would keep {4 * triangle(size)} bytes of covariance; up to {MOST} can "
            "learn so: use learn=Head(1), Bias() or a Sparse(...) of fewer, or SGD()"
        )


class _Writer:
    """Nodes and tensors added to a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def emit(self, op: str, inputs: Sequence[str], wish: str, given: Attributes | None = None) -> str:
        """A node of one output."""
        name = self.graph.fresh_name(wish)
        results = OPS[op].results([name], [self.graph.tensor(each) for each in inputs], given or {})
        node = Node(op, name, tuple(inputs), (name,), given or {})
        self.graph = self.graph.with_nodes([*self.graph.nodes, node], results)
        return name

    def gathered(self, names: Sequence[str], wish: str) -> str:
        """All elements in one row."""
        while len(names) > 1:
            # the first ones are joined until one joint can take the rest
            count = min(MOST_GATHERED, len(names) if len(names) <= MOST_GATHERED else len(names) - MOST_GATHERED + 1)
            names = [self.emit("gathered", names[:count], wish), *names[count:]]
        return names[0]


def _prior(graph: Graph, phi: str, optimizer: Logistic, cut: tuple[str, ...], values: Values) -> NDArray[np.float32]:
    """What the factory's samples leave open: the gradients at each, in float64, rounded to float32 once."""
    needed, nodes = {phi}, list[Node]()
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            nodes.append(node)
            needed.update(node.inputs)
    forward = replace(graph, inputs=cut, outputs=(phi,)).with_nodes(reversed(nodes))
    given = {name: each.astype(_kind(graph, name)) for name, each in values(cut).items()}
    rows = evaluate(forward, given, np.float64)[phi].reshape(-1, graph.tensor(phi).size)
    return left_open(rows.astype(np.float32).astype(np.float64), optimizer.worth, optimizer.ridge)


def _kind(graph: Graph, name: str) -> str:
    """Floats are computed with in float64, integers as they are."""
    kind = graph.tensor(name).dtype
    return "float64" if kind == "float32" else kind


def attach_kalman(
    graph: Graph, loss: Node, trained: tuple[str, ...], optimizer: Logistic, values: Values | None
) -> Attached:
    """The step of the filter on a head that ends in its loss. Raises PlanError for several outputs, for integers, and
    for more than ``MOST`` parameters."""
    _check(graph, loss, trained)
    logit, target = loss.inputs
    cut = tuple(name for name in graph.inputs if name != target)
    seed = constant(graph.fresh_name("direction"), np.ones(1, np.float32))
    seeded = replace(graph, tensors={**graph.tensors, seed.name: seed})
    backward, gradients = differentiate(seeded, loss, trained, seed.name)
    verify(backward, "differentiation of the logit")
    writer = _Writer(backward)
    phi = writer.gathered([gradients[name] for name in trained], "phi")
    graph = writer.graph
    size = graph.tensor(phi).size
    if values is None:
        variances = np.full(size, optimizer.independent_prior, np.float32)
        beginning = None
    else:
        covariance = _prior(graph, phi, optimizer, cut, values)
        variances = np.ascontiguousarray(covariance.diagonal())
        beginning = constant(graph.fresh_name("prior_covariance"), packed(covariance))
    state = Tensor(graph.fresh_name("kalman.state"), (triangle(size),))
    prior = constant(graph.fresh_name("prior_variance"), variances)
    known = [state, prior, *(graph.tensor(name) for name in (phi, logit, target))]
    given = {"walk": max(float(optimizer.walk), ROUNDING * size)}
    new = [graph.fresh_name("kalman.state.next"), graph.fresh_name("gain")]
    results = OPS["kalman"].results(new, known, given)
    inputs = tuple(each.name for each in known)
    nodes = [*graph.nodes, Node("kalman", "filter", inputs, tuple(new), given, {new[0]: state.name})]
    tensors = [state, prior, *results]
    start = 0
    for name in trained:
        tensor = graph.tensor(name)
        moved = replace(tensor, name=graph.fresh_name(f"{name}.next"), data=None)
        nodes.append(
            Node("kalman_move", f"{name}.move", (name, new[1]), (moved.name,), {"start": start}, {moved.name: name})
        )
        tensors.append(moved)
        start += tensor.size
    result = graph.with_nodes(nodes, tensors)
    begin = (
        KernelCall("mt_kalman_begin", (state.name, prior.name, size))
        if beginning is None
        else copied(state.name, beginning)
    )
    return Attached(
        replace(result, inputs=(*graph.inputs, state.name)), (state.name,), (begin,),
        () if beginning is None else (beginning,),
    )  # fmt: skip
