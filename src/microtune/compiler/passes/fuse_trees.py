"""Trees that only predict: leaves and their sum in one, what leaves say as integers, each different row kept once.

A sum of integers is exact, in any order, and needs no floating-point unit. They have as many binary places as the
largest sum there can be leaves room for, so that their rounding is below that of float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from microtune.ir import Graph, Node, Tensor, constant
from microtune.ops.trees import entries, table_of

MOST_PLACES = 120
"""Binary places up to which the smallest number there is stays a normal float32."""
BACK = {"log_probabilities": "softmax", "log_odds": "sigmoid"}
"""What makes logits of probabilities, and what makes probabilities of them again."""


def binary_places(values: np.ndarray, sizes: np.ndarray) -> int:
    """How many binary places values (leaves, width) may have so that no sum over trees leaves 32 bits. sizes: the
    comparisons of each tree (trees,)."""
    starts = np.cumsum(sizes + 1) - (sizes + 1)
    most = float(np.maximum.reduceat(np.abs(values).max(axis=1), starts).sum())
    if most == 0:
        return 0
    # half a unit of rounding from each tree
    return min(MOST_PLACES, math.floor(math.log2((2**31 - 1 - len(sizes)) / most)))


def _rows(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The rows to keep, the table of which row a leaf has, and its bytes an entry; 0 where that saves nothing."""
    kept, which = np.unique(values, axis=0, return_inverse=True)
    width = 1 if len(kept) <= 256 else 2
    if len(kept) > 65536 or kept.nbytes + width * len(values) >= values.nbytes:
        return values, np.zeros(1, np.int8), 0
    return kept, table_of(which.reshape(-1), width), width


def _fused(graph: Graph, leaves: Node, total: Node) -> tuple[Node, list[Tensor]]:
    sizes = entries(np.asarray(graph.tensor(leaves.inputs[1]).data), leaves.attributes["size_bytes"])
    values = np.asarray(graph.tensor(total.inputs[2]).data, np.float64)
    places = binary_places(values, sizes)
    kept, rows, row_bytes = _rows(np.rint(np.ldexp(values, places)).astype(np.int32))
    row_table = constant(graph.fresh_name("trees.rows"), rows)
    value_table = constant(graph.fresh_name("trees.values"), kept)
    given = {**leaves.attributes, "row_bytes": row_bytes, "outputs": total.attributes["outputs"], "places": places}
    inputs = (*leaves.inputs, row_table.name, value_table.name)
    return Node("forest", total.name, inputs, total.outputs, given), [row_table, value_table]


def _alone(graph: Graph, name: str) -> Node | None:
    """The one node that reads a tensor, if there is one and it is no output."""
    readers = graph.consumers(name)
    return readers[0] if len(readers) == 1 and name not in graph.outputs else None


def _answer(graph: Graph, total: Node) -> Sequence[Node]:
    """The nodes behind a sum of probabilities that only give the probabilities again."""
    logits = _alone(graph, total.output)
    again = None if logits is None or logits.op not in BACK else _alone(graph, logits.output)
    return () if logits is None or again is None or again.op != BACK[logits.op] else (logits, again)


def fuse_trees(graph: Graph) -> Graph:
    """The graph with ``forest`` for each pair of ``tree_leaves`` and ``tree_sum`` whose leaves nothing else reads."""
    for total in [node for node in graph.nodes if node.op == "tree_sum"]:
        leaves = graph.producer(total.inputs[0])
        if leaves is None or leaves.op != "tree_leaves" or _alone(graph, leaves.output) is not total:
            continue
        node, tables = _fused(graph, leaves, total)
        ending = _answer(graph, total)
        if ending:
            node = Node(node.op, node.name, node.inputs, ending[-1].outputs, node.attributes)
        gone = {id(each) for each in (leaves, *ending)}
        nodes = [node if each is total else each for each in graph.nodes if id(each) not in gone]
        graph = graph.with_nodes(nodes, tables)
    return graph
