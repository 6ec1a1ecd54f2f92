"""The order of nodes: topological, updates last, gradients freed at once, the same every time (SPEC B3)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import assume, given, settings

from microtune.compiler.passes.memory import aligned, plan_arena
from microtune.compiler.passes.schedule import live_bytes, peak_bytes, reorder
from microtune.compiler.plan import plan
from microtune.ir import Graph
from microtune.ops import OPS
from microtune.tuning.optimizers import SGD
from microtune.tuning.schemes import Full

from .random_plans import fresh_plan, plan_seeds, random_plan


def steps_of(seed: int) -> Graph:
    step = random_plan(seed).programs.step
    assert step is not None
    return step.graph


@settings(max_examples=50, deadline=None)
@given(seed=plan_seeds)
def test_everything_is_computed_before_it_is_read(seed: int) -> None:
    graph = steps_of(seed)
    known = {*graph.inputs, *(tensor.name for tensor in graph.constants)}
    for node in graph.nodes:
        assert known.issuperset(node.inputs)
        known.update(node.outputs)


@settings(max_examples=50, deadline=None)
@given(seed=plan_seeds)
def test_parameters_are_overwritten_after_their_last_reader(seed: int) -> None:
    graph = steps_of(seed)
    overwritten: dict[str, str] = {}
    for node in graph.nodes:
        for name in node.inputs:
            assert name not in overwritten, f"'{node.name}' reads '{name}' after '{overwritten.get(name)}'"
        overwritten.update(dict.fromkeys(node.updates.values(), node.name))
    learnt = {old for node in graph.nodes for old in node.updates.values()}
    assert learnt.issuperset(name for name in overwritten)


@settings(max_examples=25, deadline=None)
@given(seed=plan_seeds)
def test_keeps_every_node_and_is_repeatable(seed: int) -> None:
    graph = steps_of(seed)
    again = reorder(graph)
    assert Counter(node.name for node in again.nodes) == Counter(node.name for node in graph.nodes)
    assert [node.name for node in reorder(graph).nodes] == [node.name for node in again.nodes]
    made_again = fresh_plan(seed).programs.step
    assert made_again is not None
    assert [node.name for node in made_again.graph.nodes] == [node.name for node in graph.nodes]


def test_each_gradient_is_used_as_soon_as_it_exists(net: Any) -> None:
    """In a chain, all that a layer's gradient is needed for comes before the next layer's gradient."""
    step = plan(net([4, 9, 8, 7, 2], "tanh"), Full(), "mse", SGD()).programs.step
    assert step is not None
    order = [node.name for node in step.graph.nodes]
    for layer in (3, 2, 1):
        assert order.index(f"w{layer}.update") < order.index(f"a{layer - 1}.grad") + 2
        assert order.index(f"b{layer}.update") < order.index(f"h{layer - 1}.grad")


MOST_SETS = 4000


def outside_of(graph: Graph) -> frozenset[str]:
    return frozenset([*graph.inputs, *graph.outputs, *(tensor.name for tensor in graph.constants)])


def least_peak(graph: Graph) -> int | None:
    """The lowest peak of any order, by trying every set of nodes that can have run; None if they are too many."""
    outside = outside_of(graph)
    readers = {name: {i for i, node in enumerate(graph.nodes) if name in node.inputs} for name in graph.tensors}
    makers = {name: i for i, node in enumerate(graph.nodes) for name in node.outputs}

    def bytes_of(name: str) -> int:
        return 0 if name in outside else aligned(graph.tensor(name).bytes)

    def may_run(index: int, done: frozenset[int]) -> bool:
        node = graph.nodes[index]
        before = {makers[name] for name in node.inputs if name in makers}
        before |= {each for old in node.updates.values() for each in readers[old]} - {index}
        return before <= done

    def alive(done: frozenset[int]) -> int:
        made = {name for name, index in makers.items() if index in done}
        kept = (name for name in made if not readers[name] <= done)
        return sum(bytes_of(name) for name in kept if not any(name in node.updates for node in graph.nodes))

    def while_running(index: int, done: frozenset[int]) -> int:
        node = graph.nodes[index]
        taken = sum(bytes_of(name) for name in node.outputs if name not in node.updates)
        for position in OPS[node.op].in_place:
            source = node.inputs[position]
            same = source not in outside and graph.tensor(source).bytes == graph.tensor(node.output).bytes
            if same and node.output not in outside and readers[source] <= done | {index}:
                return alive(done) + taken - bytes_of(source)
        return alive(done) + taken

    peaks: dict[frozenset[int], int] = {frozenset(): 0}
    for _ in graph.nodes:
        longer: dict[frozenset[int], int] = {}
        for done, peak in peaks.items():
            for index in range(len(graph.nodes)):
                if index not in done and may_run(index, done):
                    after = done | {index}
                    longer[after] = min(longer.get(after, 1 << 60), max(peak, while_running(index, done)))
        peaks = longer
        if len(peaks) > MOST_SETS // 10:
            return None
    return min(peaks.values(), default=0)


@settings(max_examples=20, deadline=None)
@given(seed=plan_seeds)
def test_no_order_has_a_lower_peak(seed: int) -> None:
    """On graphs so small that every order can be tried, the beam loses nothing."""
    graph = steps_of(seed)
    least = least_peak(graph)
    assume(least is not None)
    assert peak_bytes(reorder(graph)) == least


@settings(max_examples=40, deadline=None)
@given(seed=plan_seeds)
def test_the_peak_it_counts_is_that_of_the_memory_plan(seed: int) -> None:
    graph = steps_of(seed)
    outside = outside_of(graph)
    assert max(live_bytes(graph)) == plan_arena(graph, outside).bound
    # an input in the arena is alive from the start to its last use
    placed = tuple(name for name in graph.inputs if name in ("x", "target"))
    again = reorder(graph, placed)
    assert peak_bytes(again, placed) == plan_arena(again, outside - set(placed), placed).bound


def test_an_order_that_cannot_be_better_is_left_alone(net: Any) -> None:
    step = plan(net([4, 9, 8, 7, 2], "tanh"), Full(), "mse", SGD()).programs.step
    assert step is not None
    assert peak_bytes(reorder(step.graph)) == peak_bytes(step.graph)
