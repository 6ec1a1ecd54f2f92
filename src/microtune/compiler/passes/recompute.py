"""Cheap tensors that are kept for the backward pass through the peak are computed again instead, where that helps.

The idea of Chen et al., Training Deep Nets with Sublinear Memory Cost (2016), kept to what costs next to nothing:
nodes that move values, look them up or compare them, at most one multiplication for an element.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from microtune.compiler.passes.memory import aligned
from microtune.compiler.passes.schedule import live_bytes, reorder
from microtune.ir import Graph, Node, Tensor
from microtune.ops import OPS

CHEAP = frozenset({
    "clamp", "concat", "dequantize", "leaky_relu", "lookup_int8", "pad", "quantize", "relu", "relu6", "reshape",
    "saturation_mask", "scale", "slice", "transpose",
})  # fmt: skip
LONGEST = 3
"""Nodes in a row that may be computed again for one tensor, such as dequantize > pad > reshape."""
TRIALS = 6
"""Tensors tried for each peak, those that promise most first."""


@dataclass(frozen=True)
class _Trial:
    """``nodes`` (in order) compute ``tensor`` again; ``gain``: bytes no longer alive at the peak."""

    tensor: str
    nodes: tuple[Node, ...]
    gain: int


def _is_cheap(graph: Graph, node: Node | None) -> bool:
    if node is None or node.op not in CHEAP or node.updates:
        return False
    inputs, outputs = ([graph.tensor(name) for name in names] for names in (node.inputs, node.outputs))
    return OPS[node.op].multiply_adds(inputs, outputs) <= graph.tensor(node.output).size


def _chains(graph: Graph, producers: dict[str, Node], name: str) -> Iterator[tuple[Node, ...]]:
    """The last one, two, ... cheap nodes that lead to a tensor by their first inputs, in order."""
    chain: tuple[Node, ...] = ()
    node = producers.get(name)
    while len(chain) < LONGEST and node is not None and node.output == name and _is_cheap(graph, node):
        chain = (node, *chain)
        yield chain
        name = node.inputs[0]
        node = producers.get(name)


def _trials(graph: Graph, peak: int, outside: set[str]) -> list[_Trial]:
    """What could be computed again after the node number ``peak``, best first."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    producers: dict[str, Node] = {}
    for position, node in enumerate(graph.nodes):
        for name in node.outputs:
            first[name], producers[name] = position, node
        for name in node.inputs:
            last[name] = position
    found = []
    for name, made in first.items():
        if name in outside or made >= peak or last.get(name, made) <= peak or name in graph.nodes[peak].inputs:
            continue
        for chain in _chains(graph, producers, name):
            sources = {each for node in chain for each in node.inputs} - {node.output for node in chain}
            kept = sum(aligned(graph.tensor(each).bytes) for each in sources - outside if last.get(each, 0) <= peak)
            gain = aligned(graph.tensor(name).bytes) - kept
            if gain > 0:
                found.append(_Trial(name, chain, gain))
    # ties keep the order of the graph
    return sorted(found, key=lambda trial: -trial.gain)[:TRIALS]


def _again(graph: Graph, trial: _Trial, peak: int) -> Graph:
    """The graph in which everyone after the node number ``peak`` reads the tensor computed again."""
    new: dict[str, str] = {}
    copies: list[Node] = []
    tensors: list[Tensor] = []
    for node in trial.nodes:
        outputs = tuple(graph.fresh_name(f"{name}.again") for name in node.outputs)
        tensors += [replace(graph.tensor(old), name=name) for old, name in zip(node.outputs, outputs, strict=True)]
        inputs = tuple(new.get(name, name) for name in node.inputs)
        copies.append(replace(node, name=outputs[0], inputs=inputs, outputs=outputs))
        new.update(zip(node.outputs, outputs, strict=True))
    late = {trial.tensor: new[trial.tensor]}
    after = [
        replace(node, inputs=tuple(late.get(name, name) for name in node.inputs)) for node in graph.nodes[peak + 1 :]
    ]
    return graph.with_nodes([*graph.nodes[: peak + 1], *copies, *after], tensors)


def recompute(graph: Graph, placed_inputs: Sequence[str] = (), enough: int = 0) -> Graph:
    """The graph, in an order of low peak, with cheap tensors computed again as long as that lowers the peak.

    ``enough``: a peak, in bytes, that need not be lowered, since other programs take as much of the arena.
    """
    outside = {*graph.inputs, *graph.outputs, *(tensor.name for tensor in graph.constants)} - set(placed_inputs)
    graph = reorder(graph, placed_inputs)
    live = live_bytes(graph, placed_inputs)
    while live and max(live) > enough:
        peak = live.index(max(live))
        trials = [reorder(_again(graph, trial, peak), placed_inputs) for trial in _trials(graph, peak, outside)]
        if not trials:
            break
        best = min(trials, key=lambda each: max(live_bytes(each, placed_inputs)))
        if max(live_bytes(best, placed_inputs)) >= max(live):
            break
        graph, live = best, live_bytes(best, placed_inputs)
    return graph
