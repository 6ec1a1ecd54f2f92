"""Reverse-mode automatic differentiation at compile time: a forward graph with a loss becomes a training graph.

Only gradients on a path from the loss to a trained tensor are written; there is nothing to remove later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from microtune.errors import PlanError
from microtune.ir import Graph, Node, Tensor, constant
from microtune.ops import OPS, block_rules
from microtune.ops.op import Attributes, GradientRule


@dataclass
class _Tape:
    graph: Graph
    needed: frozenset[str]
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)

    def wants(self, name: str) -> bool:
        return name in self.needed

    def keeps(self, name: str) -> bool:
        return any(
            node.op in block_rules.LAYERS and node.inputs[0] == name and any(map(self.wants, node.inputs[1:]))
            for node in self.graph.nodes
        )

    def tensor(self, name: str) -> Tensor:
        return self.tensors.get(name) or self.graph.tensor(name)

    def emit(self, op: str, inputs: Sequence[str], wish: str, attributes: Attributes | None = None) -> str:
        given = [self.tensor(each) for each in inputs]
        name = self._fresh(wish)
        extra = [self._fresh(f"{name}.{index}") for index in range(1, OPS[op].count(given, attributes or {}))]
        results = OPS[op].results([name, *extra], given, attributes or {})
        self.tensors.update({tensor.name: tensor for tensor in results})
        self.nodes.append(Node(op, name, tuple(inputs), (name, *extra), attributes or {}))
        return name

    def constant(self, wish: str, data: np.ndarray) -> str:
        if wish not in self.constants:
            tensor = constant(self._fresh(wish), data)
            self.tensors[tensor.name] = tensor
            self.constants[wish] = tensor.name
        return self.constants[wish]

    def _fresh(self, wish: str) -> str:
        name, count = wish, 1
        while name in self.tensors or name in self.graph.tensors:
            count += 1
            name = f"{wish}_{count}"
        return name


def dependents(graph: Graph, roots: Sequence[str]) -> frozenset[str]:
    """All tensors that are, or are computed from, one of ``roots``."""
    found = set(roots)
    for node in graph.nodes:
        if found.intersection(node.inputs):
            found.update(node.outputs)
    return frozenset(found)


def _rule(node: Node, gradient: Tensor) -> GradientRule:
    """The gradient rule of a node: gradients are float32, or blocks where all is integers (``ops.blocks``)."""
    if gradient.dtype == "int16":
        rule = block_rules.RULES.get(node.op)
        if rule is None:
            raise PlanError(
                f"node '{node.name}' ({node.op}) has no gradient in integers, but a trained tensor lies before it: use "
                "precision='mixed'"
            )
        return rule
    rule = OPS[node.op].gradient
    if rule is None:
        raise PlanError(f"node '{node.name}' ({node.op}) has no gradient, but a trained tensor lies before it")
    return rule


def differentiate(
    graph: Graph, loss: Node, trained: Sequence[str], arriving: str | None = None
) -> tuple[Graph, dict[str, str]]:
    """The graph with its backward nodes, and {trained tensor: its gradient}.

    ``loss`` is a node of the graph with outputs (loss, gradient of its first input); ``arriving``: what counts as that
    gradient instead. Where a tensor is used more than once, the gradients of its uses are summed.
    """
    needed = dependents(graph, trained)
    tape = _Tape(graph, needed)
    gradients: dict[str, str] = {loss.inputs[0]: arriving or loss.outputs[1]}
    for node in reversed([node for node in graph.nodes if node is not loss]):
        given = gradients.get(node.output)
        if given is None or node.output not in needed:
            continue
        try:
            found = _rule(node, tape.tensor(given))(tape, node, given)
        except ValueError as error:
            raise PlanError(f"the gradient of node '{node.name}' ({node.op}): {error}") from error
        for name, gradient in found.items():
            if name in gradients:
                add = "block_add" if tape.tensor(gradient).dtype == "int16" else "add"
                gradient = tape.emit(add, (gradients[name], gradient), f"{name}.grad")
            gradients[name] = gradient
    missing = [name for name in trained if name not in gradients]
    if missing:
        raise PlanError(f"the loss does not depend on {', '.join(missing)}: nothing to learn there")
    result = graph.with_nodes([*graph.nodes, *tape.nodes], tape.tensors.values())
    return replace(result), {name: gradients[name] for name in trained}
