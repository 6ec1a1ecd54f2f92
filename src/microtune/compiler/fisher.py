"""How much each parameter matters to what the base knows: the diagonal of its Fisher information.

Elastic weight consolidation (Kirkpatrick et al. 2017) holds a parameter the harder, the more the base's answers on the
factory's data depend on it. The information is the expected square of d log p(answer) / d parameter, over the answers
that the model itself gives (Martens 2014; Kunstner et al. 2019: with the labels of the data in their place it is
another matrix, and no curvature). The expectation over answers is exact, so no labels are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from microtune.compiler.factory import values_at
from microtune.compiler.passes.autodiff import differentiate
from microtune.compiler.program import Programs, split
from microtune.ir import Graph, Node, Tensor
from microtune.ops.evaluate import evaluate
from microtune.tuning.losses import LOSSES

MOST = 200
"""Samples that are used, evenly out of those given: an average over more changes little, and takes as much longer."""
RARE = 1e-6
"""Probability of a class whose share of the expectation is left out."""


def _jacobian_graph(head: Graph, trained: Sequence[str]) -> tuple[Graph, str, list[str]]:
    """The head backwards from an input, its output's gradient: (graph, that input's name, names of gradients)."""
    output = head.outputs[0]
    seed = head.fresh_name("direction")
    graph = replace(head, tensors={**head.tensors, seed: Tensor(seed, head.tensor(output).shape)})
    direction = Node("seed", "seed", (output,), ("", seed))  # stands for a loss with this gradient; never computed
    backward, gradients = differentiate(graph, direction, trained)
    names = [gradients[name] for name in trained]
    return replace(backward, inputs=(*head.inputs, seed), outputs=tuple(dict.fromkeys(names))), seed, names


def _kind(graph: Graph, name: str) -> str:
    """Floats are computed with in float64, integers as they are."""
    kind = graph.tensor(name).dtype
    return "float64" if kind == "float32" else kind


def _answers(task: str, output: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (outputs,) of squared derivatives of the outputs, and weights of their mean, which is taken off first.

    Of a choice of one: sum_c p_c (J_c - sum_k p_k J_k)^2. Of yes or no: sum_c p_c (1 - p_c) J_c^2. Of values with unit
    noise: sum_c J_c^2.
    """
    if task == "MT_MULTICLASS":
        shares = np.exp(output - output.max())
        shares /= shares.sum()
        return shares, shares
    if task == "MT_BINARY":
        half = np.tanh(output / 2)
        return (1 - half * half) / 4, np.zeros_like(output)
    return np.ones_like(output), np.zeros_like(output)


def fisher(programs: Programs, graph: Graph, x: np.ndarray) -> dict[str, NDArray[np.float32]]:
    """``information`` of what a plan learns, by name; ``graph`` is that of the plan. Empty without training steps."""
    if programs.step is None:
        return {}
    operators = {node.op for node in programs.step.graph.nodes}
    task = next(loss.task for loss in LOSSES.values() if loss.operator in operators)
    return information(graph, [tensor.name for tensor in programs.trained], task, x)


def information(graph: Graph, trained: Sequence[str], task: str, x: np.ndarray) -> dict[str, NDArray[np.float32]]:
    """Mean Fisher information of each trained float tensor, of its shape, over samples x (n, *input shape).

    ``graph`` ends in logits where the task is a classification, as in ``Plan.graph``; a regression's noise counts as
    1 in output units. Integers that learn have none.
    """
    floats = [name for name in trained if graph.tensor(name).dtype == "float32"]
    sums = {name: np.zeros(graph.tensor(name).shape) for name in floats}
    if not floats:
        return {}
    chosen = x[np.linspace(0, len(x) - 1, min(len(x), MOST)).astype(int)]
    backbone, head = split(graph, trained)
    found = values_at(backbone, head.inputs, chosen.astype(_kind(graph, graph.inputs[0])))
    cuts = {name: values.astype(_kind(head, name)) for name, values in found.items()}
    outputs = evaluate(head, cuts, np.float64)[head.outputs[0]]
    backward, seed, names = _jacobian_graph(head, floats)
    for sample, output in enumerate(outputs):
        weights, shares = _answers(task, output)
        rows = np.flatnonzero(weights >= RARE) if task == "MT_MULTICLASS" else np.arange(len(output))
        given = {name: np.repeat(values[sample][None], len(rows), axis=0) for name, values in cuts.items()}
        jacobian = evaluate(backward, {**given, seed: np.eye(len(output))[rows]}, np.float64)
        for name, gradient in zip(floats, names, strict=True):
            rates = jacobian[gradient]
            rates = rates - np.tensordot(shares[rows], rates, 1)
            sums[name] += np.tensordot(weights[rows], rates * rates, 1)
    return {name: (total / len(chosen)).astype(np.float32) for name, total in sums.items()}
