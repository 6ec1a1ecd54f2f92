"""The order of nodes: topological, updates last, gradients freed at once, the same every time (SPEC B3)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings

from microtune.compiler.passes.schedule import reorder
from microtune.compiler.plan import plan
from microtune.ir import Graph
from microtune.tuning.optimizers import SGD
from microtune.tuning.schemes import Full

from .random_plans import random_plan, seeds


def steps_of(seed: int) -> Graph:
    step = random_plan(seed).programs.step
    assert step is not None
    return step.graph


@settings(max_examples=100, deadline=None)
@given(seed=seeds)
def test_everything_is_computed_before_it_is_read(seed: int) -> None:
    graph = steps_of(seed)
    known = {*graph.inputs, *(tensor.name for tensor in graph.constants)}
    for node in graph.nodes:
        assert known.issuperset(node.inputs)
        known.update(node.outputs)


@settings(max_examples=100, deadline=None)
@given(seed=seeds)
def test_parameters_are_overwritten_after_their_last_reader(seed: int) -> None:
    graph = steps_of(seed)
    overwritten: dict[str, str] = {}
    for node in graph.nodes:
        for name in node.inputs:
            assert name not in overwritten, f"'{node.name}' reads '{name}' after '{overwritten.get(name)}'"
        overwritten.update(dict.fromkeys(node.updates.values(), node.name))
    learnt = {old for node in graph.nodes for old in node.updates.values()}
    assert learnt.issuperset(name for name in overwritten)


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_keeps_every_node_and_is_repeatable(seed: int) -> None:
    graph = steps_of(seed)
    again = reorder(graph)
    assert Counter(node.name for node in again.nodes) == Counter(node.name for node in graph.nodes)
    assert [node.name for node in reorder(graph).nodes] == [node.name for node in again.nodes]
    assert [node.name for node in steps_of(seed).nodes] == [node.name for node in graph.nodes]


def test_each_gradient_is_used_as_soon_as_it_exists(net: Any) -> None:
    """In a chain, all that a layer's gradient is needed for comes before the next layer's gradient."""
    step = plan(net([4, 9, 8, 7, 2], "tanh"), Full(), "mse", SGD()).programs.step
    assert step is not None
    order = [node.name for node in step.graph.nodes]
    for layer in (3, 2, 1):
        assert order.index(f"w{layer}.update") < order.index(f"a{layer - 1}.grad") + 2
        assert order.index(f"b{layer}.update") < order.index(f"h{layer - 1}.grad")
