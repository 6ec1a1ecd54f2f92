"""Binary trees of any source as the tables of ``ops.trees``: preorder, leaves numbered from the left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microtune.errors import ModelError
from microtune.frontends.builder import Builder
from microtune.ir import Tensor
from microtune.ops.trees import floats_of, keys_of, table_of

MOST = 65535
"""Comparisons of one tree, features, and splits that are shared: what two bytes count."""
LARGEST = np.finfo(np.float32).max

Compare = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(x as float32 (n,), which feature each is (n,), threshold each is held against (n,)) to whether it goes left."""


@dataclass(frozen=True, eq=False)
class Tree:
    """Nodes in any order, the root first. ``left`` and ``right``: children, below 0 at a leaf; ``values`` (nodes,
    width): what the leaves say."""

    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class Walked:
    """A tree's comparisons in preorder, how many stand on the left of each, and its leaves from the left."""

    comparisons: np.ndarray
    lefts: np.ndarray
    leaves: np.ndarray


def walked(tree: Tree) -> Walked:
    """The tree in the order of the tables; without recursion, for a tree may be as deep as it has samples."""
    order: list[int] = []
    leaves: list[int] = []
    waiting = [0]
    while waiting:
        node = waiting.pop()
        if tree.left[node] < 0:
            leaves.append(node)
            continue
        order.append(node)
        waiting += [int(tree.right[node]), int(tree.left[node])]
    inside = np.zeros(len(tree.left), np.int64)
    for node in reversed(order):
        inside[node] = 1 + inside[tree.left[node]] + inside[tree.right[node]]
    comparisons = np.array(order, np.int64)
    return Walked(comparisons, inside[tree.left[comparisons]], np.array(leaves, np.int64))


def largest_on_the_left(features: np.ndarray, thresholds: np.ndarray, goes_left: Compare) -> np.ndarray:
    """The key (n,) of the largest float32 that goes left at each comparison, found by bisection over all floats: what
    goes left, and whatever monotone arithmetic comes before, is asked of ``goes_left`` alone."""
    low = np.full(len(features), int(keys_of(np.array([-np.inf]))[0]), np.int64)
    high = np.full(len(features), int(keys_of(np.array([LARGEST]))[0]), np.int64)
    while (low < high).any():
        middle = (low + high + 1) >> 1
        # zero and minus zero compare alike, and the larger key stands for both
        left = goes_left(floats_of(middle), features, thresholds)
        low, high = np.where(left, middle, low), np.where(left, high, middle - 1)
    return low.astype(np.int32)


def _narrowest(largest: int) -> int:
    return 1 if largest < 256 else 2


def put(builder: Builder, x: Tensor, trees: Sequence[Tree], outputs: int, goes_left: Compare, where: str) -> Tensor:
    """The sum (outputs,) of what the trees say of x. Raises ModelError for trees beyond what two bytes count."""
    found = [walked(tree) for tree in trees]
    sizes = np.array([len(each.comparisons) for each in found], np.int64)
    features = np.concatenate([tree.feature[each.comparisons] for tree, each in zip(trees, found, strict=True)])
    thresholds = np.concatenate([tree.threshold[each.comparisons] for tree, each in zip(trees, found, strict=True)])
    lefts = np.concatenate([each.lefts for each in found])
    if sizes.max() > MOST or x.size > MOST + 1:
        raise ModelError(
            f"{where}: a tree of {sizes.max()} comparisons over {x.size} features; up to {MOST} of each are supported"
        )
    if not len(features):  # C has no empty arrays
        features, thresholds, lefts = np.zeros(1, np.int64), np.zeros(1), np.zeros(1, np.int64)
    keys = largest_on_the_left(features.astype(np.int64), thresholds.astype(np.float64), goes_left)
    size_bytes, feature_bytes = _narrowest(int(sizes.max())), _narrowest(int(features.max()))
    pairs, which = np.unique(np.stack([features, keys], axis=1), axis=0, return_inverse=True)
    shared = _narrowest(len(pairs) - 1)
    each = 4 + feature_bytes
    split_bytes = 0
    nodes = table_of(lefts, size_bytes)
    if len(pairs) <= MOST and len(keys) * shared + len(pairs) * each < len(keys) * each:
        split_bytes, features, keys = shared, pairs[:, 0], pairs[:, 1]
        splits = table_of(which.reshape(-1), shared)
        nodes = np.column_stack([nodes.reshape(-1, size_bytes), splits.reshape(-1, shared)]).reshape(-1)
    widths: dict[str, Any] = {"size_bytes": size_bytes, "leaf_bytes": _narrowest(int(sizes.max()))}
    tables = [
        builder.quantized(name, table, where, None)
        for name, table in (
            ("trees.sizes", table_of(sizes, size_bytes)),
            ("trees.nodes", nodes),
            ("trees.features", table_of(features, feature_bytes)),
            ("trees.keys", keys.astype(np.int32)),
        )
    ]
    values = np.concatenate([tree.values[each.leaves] for tree, each in zip(trees, found, strict=True)])
    leaves = builder.emit(
        "tree_leaves", (x, *tables), "leaves", where, split_bytes=split_bytes, feature_bytes=feature_bytes, **widths
    )
    said = builder.constant("trees.leaves", values, where)
    return builder.emit("tree_sum", (leaves, tables[0], said), "trees", where, outputs=outputs, **widths)
