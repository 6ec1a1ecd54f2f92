"""Where training starts: the cut between the frozen backbone, run once, and the head, run at every step.

What crosses is kept of every sample. The first place where something learns is not always the best: a frozen layer
just before it may blow up what crosses, and a ``dequantize`` makes it four times as large. Such nodes are taken into
the head as long as that costs little.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from microtune.ir import Graph, Node
from microtune.ops import OPS

MOST_WORK = 1.0
"""Multiply-adds of frozen layers taken into the head, as a share of those behind the cut. A step makes these two to
three times, forward and for one or two gradients, so that it grows by half at most; RAM is scarcer than time."""


def work(graph: Graph, node: Node) -> int:
    """Multiply-adds of a node."""
    return OPS[node.op].multiply_adds(
        [graph.tensor(name) for name in node.inputs], [graph.tensor(name) for name in node.outputs]
    )


def crossing(graph: Graph, front: Sequence[Node], tail: Sequence[Node]) -> tuple[str, ...]:
    """What the nodes behind a cut read from before it, in the order of first use."""
    known = {*graph.inputs, *(name for node in front for name in node.outputs)}
    return tuple(dict.fromkeys(name for node in tail for name in node.inputs if name in known))


def _bytes(graph: Graph, names: Sequence[str]) -> int:
    """As they lie in a sample: each begun at a whole word."""
    return sum((graph.tensor(name).bytes + 3) // 4 * 4 for name in names)


def choose_cut(graph: Graph, learning: Collection[str]) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """The nodes before the cut and those behind it. ``learning``: every tensor that depends on what learns.

    Of all places along the order of the nodes the one where fewest bytes cross; the last of them where several tie.
    """
    tail = [node for node in graph.nodes if any(name in learning for name in node.outputs)]
    front = [node for node in graph.nodes if not any(name in learning for name in node.outputs)]
    limit = MOST_WORK * sum(work(graph, node) for node in tail)
    best, fewest, taken = len(front), _bytes(graph, crossing(graph, front, tail)), 0
    for place in range(len(front) - 1, -1, -1):
        taken += work(graph, front[place])
        if taken > limit:
            break
        size = _bytes(graph, crossing(graph, front[:place], [*front[place:], *tail]))
        if size < fewest:
            best, fewest = place, size
    moved = {id(node) for node in (*front[best:], *tail)}
    return tuple(front[:best]), tuple(node for node in graph.nodes if id(node) in moved)
