"""Inverted bottlenecks that set the peak are computed row by row, see ``ops.bottleneck``.

A convolution, a depthwise convolution and a 1 x 1 convolution whose intermediate images nobody else reads become one
node. It computes the same bits with nothing computed twice; what it saves is the wide middle. Only bottlenecks that
lower the peak are fused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from microtune.compiler.passes.schedule import live_bytes, reorder
from microtune.ir import Graph, Node
from microtune.ops import OPS

LAYER_INPUTS = 5  # with a sixth, some of the weight learns and is handled by another kernel


def _fused(graph: Graph, nodes: Sequence[Node]) -> Graph:
    """The graph with one node in the place of the last of ``nodes``."""
    arrays = [name for node in nodes for name in node.inputs[1:]]
    layers = tuple((node.op, dict(node.attributes)) for node in nodes)
    inputs, attributes = (nodes[0].inputs[0], *arrays), {"layers": layers}
    last = nodes[-1]
    outputs = (last.output, graph.fresh_name(f"{last.output}.rows"))
    given = [graph.tensor(name) for name in inputs]
    workspace = OPS["bottleneck_int8"].results(outputs, given, attributes)[1]
    made = Node("bottleneck_int8", last.name, inputs, outputs, attributes)
    kept = [made if node is last else node for node in graph.nodes if node is last or node not in nodes]
    return graph.with_nodes(kept, [workspace])


def _is_projection(graph: Graph, node: Node) -> bool:
    window = graph.tensor(node.inputs[1]).shape[1:3]
    return window == (1, 1) and tuple(node.attributes["stride"]) == (1, 1)


def _bottlenecks(graph: Graph) -> list[tuple[Node, ...]]:
    """Every run of nodes that one operator can stand for; the longest for each depthwise convolution first."""
    consumers: dict[str, list[Node]] = {}
    producers: Mapping[str, Node] = {name: node for node in graph.nodes for name in node.outputs}
    for node in graph.nodes:
        for name in dict.fromkeys(node.inputs):
            consumers.setdefault(name, []).append(node)

    def private(name: str) -> bool:
        return len(consumers.get(name, ())) == 1 and name not in graph.outputs

    def layer(node: Node | None) -> Node | None:
        return node if node is not None and node.op == "conv2d_int8" and len(node.inputs) == LAYER_INPUTS else None

    found: list[tuple[Node, ...]] = []
    for middle in graph.nodes:
        if middle.op != "depthwise_conv2d_int8":
            continue
        x = middle.inputs[0]
        before = layer(producers.get(x)) if private(x) else None
        after = layer(consumers[middle.output][0]) if private(middle.output) else None
        if after is not None and not _is_projection(graph, after):
            after = None
        expand, project = [before] if before else [], [after] if after else []
        if expand and project:
            found.append((*expand, middle, *project))
        if project:
            found.append((middle, *project))
        if expand:
            found.append((*expand, middle))
    return found


def fuse_rows(graph: Graph, placed_inputs: Sequence[str] = (), enough: int = 0) -> Graph:
    """The graph with its bottlenecks fused one after the other, as long as that lowers its peak.

    ``enough``: a peak, in bytes, that need not be lowered, since other programs take as much of the arena.
    """

    def height(given: Graph) -> tuple[int, int]:
        """The peak, and how many nodes reach it: two bottlenecks of one size are fused one after the other."""
        live = live_bytes(reorder(given, placed_inputs), placed_inputs)
        return max(live, default=0), live.count(max(live, default=0))

    if not _bottlenecks(graph):
        return graph
    best, kept = height(graph), graph
    while best[0] > enough:
        ordered = reorder(graph, placed_inputs)
        live = live_bytes(ordered, placed_inputs)
        at_peak = {node.name for node, size in zip(ordered.nodes, live, strict=True) if size == best[0]}
        trials = [_fused(graph, nodes) for nodes in _bottlenecks(graph) if any(node.name in at_peak for node in nodes)]
        graph = min(trials, key=height, default=graph)
        if height(graph) >= best:
            break
        if height(graph)[0] < best[0]:
            kept = graph
        best = height(graph)
    # without those that only made a peak rarer
    return kept
