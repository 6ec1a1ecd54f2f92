"""Where training starts: the cut between the frozen backbone, run once, and the head, run at every step.

What crosses is kept of every sample. The first place where something learns is not always the best: a frozen layer
just before it may blow up what crosses, and a ``dequantize`` makes it four times as large. Such nodes are taken into
the head as long as that costs little.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from microtune.ir import Graph, Node
from microtune.ops import OPS

MOST_OF_STEP, MOST_OF_PREDICTION = 1.0, 0.25
"""Multiply-adds of frozen layers that may be taken into the head: as many as lie behind the cut anyway, of which a step
makes two to three times the number, or a quarter of a whole prediction's. RAM is scarcer than time."""


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
    behind, before = (sum(work(graph, node) for node in nodes) for nodes in (tail, front))
    limit = max(MOST_OF_STEP * behind, MOST_OF_PREDICTION * (behind + before))
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
