"""Order the nodes so that as few bytes as possible are alive at once.

Which tensors are alive depends only on the set of nodes that have run, not on their order: a search over such sets
finds a best order. It is cut to a beam of the most promising sets of each size, which for training graphs is near
the optimum, and runs at once what can only help: a node that frees at least what it takes, such as an update.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from microtune.compiler.passes.memory import aligned, in_place_sources
from microtune.ir import Graph, Node

BEAMS = (1, 8, 48)
"""Sets of nodes kept of each size: more are tried only while the peak is above what some node needs by itself."""


@dataclass(frozen=True)
class _Step:
    """A node as the search sees it: nodes and tensors are bits of integers."""

    needs: int  # nodes that must have run
    outputs: int  # bytes of its outputs in the arena, workspaces included
    reads: tuple[tuple[int, int], ...]  # (readers, bytes) of each input in the arena
    takes: tuple[tuple[int, int], ...]  # the same of the inputs that the first output may lie over
    kept: int  # bytes that stay when it has run: outputs somebody reads


class _State(NamedTuple):
    """Nodes that have run, the bytes alive behind them, the most alive so far, and the order as a linked list."""

    done: int
    live: int
    peak: int
    node: int
    before: _State | None


def _bits(value: int) -> Iterator[int]:
    while value:
        low = value & -value
        yield low.bit_length() - 1
        value ^= low


class _Search:
    """The graph in bits, and what running a node does to a state."""

    def __init__(self, graph: Graph, placed_inputs: Sequence[str]) -> None:
        outside = {*graph.inputs, *graph.outputs, *(tensor.name for tensor in graph.constants)} - set(placed_inputs)
        size = {name: 0 if name in outside else aligned(tensor.bytes) for name, tensor in graph.tensors.items()}
        readers: dict[str, int] = dict.fromkeys(graph.tensors, 0)
        makers: dict[str, int] = dict.fromkeys(graph.tensors, 0)
        for index, node in enumerate(graph.nodes):
            for name in node.inputs:
                readers[name] |= 1 << index
            for name in node.outputs:
                makers[name] |= 1 << index
        self.steps = [
            _step(graph, node, index, size, readers, makers, outside) for index, node in enumerate(graph.nodes)
        ]
        self.updates = sum(1 << index for index, node in enumerate(graph.nodes) if node.updates)
        self.followers = [0] * len(graph.nodes)
        for index, step in enumerate(self.steps):
            for before in _bits(step.needs):
                self.followers[before] |= 1 << index
        self.start = sum(size[name] for name in placed_inputs if readers[name])
        # whatever the order, a node needs its own inputs and outputs
        alone = [step.outputs + sum(each for _, each in step.reads) - _taken(step) for step in self.steps]
        self.least = max([self.start, *alone])

    def cost(self, done: int, index: int) -> tuple[int, int]:
        """Bytes that running a node takes while it runs, and what it leaves alive; both as a difference."""
        step = self.steps[index]
        left = ~(done | 1 << index)
        over = 0
        for readers, size in step.takes:
            if not readers & left:
                over = size
                break
        kept = step.kept
        for readers, size in step.reads:
            if not readers & left:
                kept -= size
        return step.outputs - over, kept

    def run(self, state: _State, index: int) -> _State:
        """The state after one more node."""
        during, kept = self.cost(state.done, index)
        peak = max(state.peak, state.live + during)
        return _State(state.done | 1 << index, state.live + kept, peak, index, state)

    def settled(self, state: _State, ready: int) -> tuple[_State, int]:
        """The state after everything that can only help; waiting with it would gain nothing."""
        limit = max(state.peak, self.least)
        untried = ready
        while untried:
            # updates first: each gradient is used as soon as it exists
            index = next(_bits(untried & self.updates or untried))
            untried &= ~(1 << index)
            during, kept = self.cost(state.done, index)
            if kept <= 0 and state.live + during <= limit:
                state = self.run(state, index)
                ready = untried = self.ready_after(state, ready, index)
        return state, ready

    def ready_after(self, state: _State, ready: int, index: int) -> int:
        ready &= ~(1 << index)
        for follower in _bits(self.followers[index]):
            if not self.steps[follower].needs & ~state.done:
                ready |= 1 << follower
        return ready


def _taken(step: _Step) -> int:
    return max((size for _, size in step.takes), default=0)


def _step(
    graph: Graph, node: Node, index: int, size: dict[str, int], readers: dict[str, int], makers: dict[str, int],
    outside: set[str],
) -> _Step:  # fmt: skip
    needs = 0
    for name in node.inputs:
        needs |= makers[name]
    for old in node.updates.values():
        # everyone else reads the old value first
        needs |= readers[old] & ~(1 << index)
    made = [name for name in node.outputs if name not in node.updates]
    return _Step(
        needs=needs,
        outputs=sum(size[name] for name in made),
        reads=tuple((readers[name], size[name]) for name in dict.fromkeys(node.inputs) if size[name]),
        takes=tuple((readers[name], size[name]) for name in in_place_sources(graph, node) if name not in outside),
        kept=sum(size[name] for name in made if readers[name]),
    )


def _beam(search: _Search, width: int) -> _State:
    """The best order found with ``width`` sets kept of each size."""
    count = len(search.steps)
    first = sum(1 << index for index, step in enumerate(search.steps) if not step.needs)
    levels: list[dict[int, tuple[_State, int]]] = [{} for _ in range(count + 1)]

    def keep(state: _State, ready: int) -> None:
        state, ready = search.settled(state, ready)
        level = levels[state.done.bit_count()]
        known = level.get(state.done)
        if known is None or state.peak < known[0].peak:
            level[state.done] = state, ready

    keep(_State(0, search.start, search.start, -1, None), first)
    for number in range(count):
        # ties keep the order in which the states were found, so that the result is the same every time
        best = sorted(levels[number].values(), key=lambda each: (max(each[0].peak, search.least), each[0].live))
        levels[number] = {}
        for state, ready in best[:width]:
            for index in _bits(ready):
                after = search.run(state, index)
                keep(after, search.ready_after(after, ready, index))
    return next(iter(levels[count].values()))[0]


def _in_order(search: _Search, order: Sequence[int]) -> _State:
    state = _State(0, search.start, search.start, -1, None)
    for index in order:
        state = search.run(state, index)
    return state


def _valid(search: _Search, order: Sequence[int]) -> bool:
    done = 0
    for index in order:
        if search.steps[index].needs & ~done:
            return False
        done |= 1 << index
    return True


def live_bytes(graph: Graph, placed_inputs: Sequence[str] = ()) -> list[int]:
    """Bytes of the arena alive while each node runs, in the order of the graph."""
    search = _Search(graph, placed_inputs)
    state, found = _State(0, search.start, search.start, -1, None), []
    for index in range(len(graph.nodes)):
        found.append(state.live + search.cost(state.done, index)[0])
        state = search.run(state, index)
    return found


def peak_bytes(graph: Graph, placed_inputs: Sequence[str] = ()) -> int:
    """The most bytes of the arena alive at once when the nodes run in the order of the graph."""
    return max(live_bytes(graph, placed_inputs), default=0)


def reorder(graph: Graph, placed_inputs: Sequence[str] = (), widths: Sequence[int] = BEAMS) -> Graph:
    """The same nodes in an order with a low peak: the better of the beam search's and the graph's own.

    A node that updates a tensor in place runs after everyone else has read the old value. ``placed_inputs`` are
    inputs that lie in the arena until their last use.
    """
    if not graph.nodes:
        return graph
    search = _Search(graph, placed_inputs)
    best = _beam(search, widths[0])
    for width in widths[1:]:
        if best.peak == search.least:
            break
        best = min(best, _beam(search, width), key=lambda state: state.peak)
    own = range(len(graph.nodes))
    if _valid(search, own) and _in_order(search, own).peak < best.peak:
        return graph
    order: list[int] = []
    state: _State | None = best
    while state is not None and state.node >= 0:
        order.append(state.node)
        state = state.before
    return graph.with_nodes(graph.nodes[index] for index in reversed(order))
