"""How ``to_torch`` writes activations and arithmetic, which take values with their axes wherever they are."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from torch import fx, nn

from microtune.ir import Node
from microtune.training.bridge_writer import Rule, Writer


def two(function: Callable[[Any, Any], Any]) -> Rule:
    """add and multiply."""

    def rule(writer: Writer, node: Node) -> None:
        first, second = (writer.read(name) for name in node.inputs)
        axes = first.axes if not writer.graph.tensor(node.inputs[0]).is_constant else second.axes
        values = tuple(writer.moved(held, axes) for held in (first, second))
        writer.keep(node, writer.calls.call_function(function, values), axes)

    return rule


def _elementwise(make: Callable[[Mapping[str, Any]], Any]) -> Rule:
    def rule(writer: Writer, node: Node) -> None:
        held = writer.read(node.inputs[0])
        writer.keep(node, writer.layer(node, make(node.attributes), held.value), held.axes)

    return rule


def activation(name: str, *attributes: str) -> Rule:
    """A layer of ``torch.nn`` that takes these attributes in order."""

    def make(given: Mapping[str, Any]) -> Any:
        return getattr(nn, name)(*(float(given[key]) for key in attributes))

    return _elementwise(make)


def hard_sigmoid(writer: Writer, node: Node) -> None:
    held = writer.read(node.inputs[0])
    alpha, beta = float(node.attributes["alpha"]), float(node.attributes["beta"])
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        value = writer.layer(node, nn.Hardsigmoid(), held.value)
    else:
        line = writer.calls.call_function(operator.add, (_times(writer, held.value, alpha), beta))
        value = writer.layer(node, nn.Hardtanh(0.0, 1.0), line)
    writer.keep(node, value, held.axes)


def _times(writer: Writer, x: fx.Node, factor: float) -> fx.Node:
    return writer.calls.call_function(operator.mul, (x, factor))


def scale(writer: Writer, node: Node) -> None:
    held = writer.read(node.inputs[0])
    writer.keep(node, _times(writer, held.value, float(node.attributes["factor"])), held.axes)


def softmax(writer: Writer, node: Node) -> None:
    """Over all elements of a sample."""
    flat = writer.layer(node, nn.Softmax(1), writer.method("flatten", writer.plain(node.inputs[0]), 1))
    shape = writer.shape(node.output)
    writer.keep(node, flat if len(shape) == 1 else writer.method("unflatten", flat, 1, shape))
