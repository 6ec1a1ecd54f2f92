"""Ensembles of decision trees: which leaf of each tree a sample falls into, and the sum of what these leaves say.

Tables are unsigned integers of one or two bytes in ``int8`` tensors, laid out as ``runtime/mt_kernels_trees.h`` says:
``sizes`` (comparisons of each tree), ``nodes`` (comparisons on the left of each, and its split), ``features`` and
``keys`` (of each split). Values of all leaves lie in a row, tree by tree, from the left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from microtune.ir.graph import Graph, Node
from microtune.ir.tensor import Tensor
from microtune.ops.op import Attributes, KernelCall, Op, Shape, Tape

HEADER = "mt_kernels_trees.h"
LEAST = 2.0**-24
"""MT_TREES_LEAST: probabilities below count as this."""


def trees_of(graph: Graph) -> list[Node]:
    """The sums of trees of a graph."""
    return [node for node in graph.nodes if node.op == "tree_sum"]


def table_of(values: np.ndarray, width: int) -> np.ndarray:
    """Whole numbers from 0 on as a table (n * width,) of ``width`` bytes each."""
    return np.asarray(values).astype(f"<u{width}").view(np.int8).reshape(-1)


def entries(table: np.ndarray, width: int) -> np.ndarray:
    """The numbers (n,) of a table."""
    return np.ascontiguousarray(table).reshape(-1).view(f"<u{width}").astype(np.int64)


def keys_of(x: np.ndarray) -> np.ndarray:
    """float32 as int32 in the same order."""
    bits = np.ascontiguousarray(x, np.float32).view(np.int32)
    return np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)


def floats_of(keys: np.ndarray) -> np.ndarray:
    """The float32 that keys stand for."""
    keys = np.asarray(keys, np.int32)
    return np.where(keys < 0, keys ^ np.int32(0x7FFFFFFF), keys).astype(np.int32).view(np.float32)


def _leaves(inputs: Sequence[np.ndarray], given: Attributes) -> np.ndarray:
    """The leaf of each tree (trees,): all trees go down a step at a time."""
    x, sizes, nodes, features, keys = inputs
    size_bytes, split_bytes, feature_bytes = (given[name] for name in ("size_bytes", "split_bytes", "feature_bytes"))
    rows = np.ascontiguousarray(nodes).reshape(-1, size_bytes + split_bytes)
    lefts = entries(rows[:, :size_bytes], size_bytes)
    splits = entries(rows[:, size_bytes:], split_bytes) if split_bytes else np.arange(len(rows))
    read = entries(features, feature_bytes)
    size = entries(sizes, size_bytes)
    node, leaf = np.cumsum(size) - size, np.zeros(len(size), np.int64)
    given_keys = keys_of(x)
    while (size > 0).any():
        at = np.flatnonzero(size > 0)
        left, split = lefts[node[at]], splits[node[at]]
        goes_left = given_keys[read[split]] <= keys[split]
        node[at] += np.where(goes_left, 1, left + 1)
        leaf[at] += np.where(goes_left, 0, left + 1)
        size[at] = np.where(goes_left, left, size[at] - left - 1)
    return leaf


def _leaves_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    if len(inputs[0].shape) != 1:
        raise ValueError(f"takes the features of one sample, not {inputs[0].shape}")
    return ((inputs[1].size // given["size_bytes"], given["leaf_bytes"]),)


def _leaves_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    given = node.attributes
    widths = (given[name] for name in ("size_bytes", "split_bytes", "feature_bytes", "leaf_bytes"))
    return KernelCall("mt_tree_leaves", (*node.inputs, node.output, tensors[node.output].shape[0], *widths))


def _comparisons(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> int:
    """Of balanced trees of as many comparisons as there are splits; a table of sizes has a byte or two for each."""
    return int(np.ceil(inputs[1].size * np.log2(inputs[4].size / inputs[1].size + 2)))


def rows_of(leaves: np.ndarray, sizes: np.ndarray, given: Attributes) -> np.ndarray:
    """The row among all leaves of each tree's leaf (trees,)."""
    size = entries(sizes, given["size_bytes"]) + 1
    return np.asarray(np.cumsum(size) - size + entries(leaves, given["leaf_bytes"]))


def _first_outputs(trees: int, width: int, outputs: int) -> np.ndarray:
    """Where the outputs of each tree begin."""
    return np.asarray(np.arange(trees) * width % outputs)


def _sum_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    leaves, sizes, values = inputs
    if leaves.shape[0] * given["size_bytes"] != sizes.size or given["outputs"] % values.shape[1]:
        raise ValueError(f"takes a leaf of each tree and values whose width divides {given['outputs']} outputs")
    return ((given["outputs"],),)


def _sum(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    leaves, sizes, values = inputs
    y = np.zeros(given["outputs"], values.dtype)
    width = values.shape[1]
    for row, first in zip(rows_of(leaves, sizes, given), _first_outputs(len(leaves), width, y.size), strict=True):
        y[first : first + width] += values[row]
    return (y,)


def _sum_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    leaves, _, values = (tensors[name] for name in node.inputs)
    given = node.attributes
    sizes = (leaves.shape[0], given["size_bytes"], given["leaf_bytes"], values.shape[1], given["outputs"])
    return KernelCall("mt_tree_sum", (*node.inputs, node.output, *sizes))


def _sum_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    leaves, sizes, values = node.inputs
    if not tape.wants(values):
        return {}
    given = {**node.attributes, "shape": tape.tensor(values).shape}
    return {values: tape.emit("tree_sum_grad", (dy, leaves, sizes), f"{values}.grad", given)}


def _sum_grad(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    dy, leaves, sizes = inputs
    gradient = np.zeros(given["shape"], dy.dtype)
    width = gradient.shape[1]
    for row, first in zip(rows_of(leaves, sizes, given), _first_outputs(len(leaves), width, dy.size), strict=True):
        gradient[row] = dy[first : first + width]
    return (gradient,)


def _sum_grad_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    given, gradient = node.attributes, tensors[node.output]
    sizes = (given["size_bytes"], given["leaf_bytes"], gradient.shape[1], given["outputs"], gradient.size)
    return KernelCall("mt_tree_sum_grad", (*node.inputs, node.output, tensors[node.inputs[1]].shape[0], *sizes))


def _sgd(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    values, rate, *factors = inputs
    (gradient,) = _sum_grad(factors, given)
    if given["clip"] > 0:
        gradient = np.clip(gradient, -given["clip"], given["clip"])
    return (values - rate * gradient,)


def _sgd_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    given, (values, rate, *factors) = node.attributes, node.inputs
    sizes = (given["size_bytes"], given["leaf_bytes"], tensors[values].shape[1], given["outputs"])
    trees = tensors[factors[1]].shape[0]
    return KernelCall("mt_sgd_tree_sum", (values, *factors, rate, float(given["clip"]), trees, *sizes))


def _logits_kernel(function: str) -> Callable[[Node, Mapping[str, Tensor]], KernelCall]:
    return lambda node, tensors: KernelCall(function, (*node.inputs, node.output, tensors[node.output].size))


def _log_odds(p: np.ndarray) -> np.ndarray:
    yes = np.clip(p, LEAST, 1 - LEAST)
    return np.asarray(np.log(yes) - np.log(1 - yes))


def _forest(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    *tables, rows, values = inputs
    found = _leaves(tables, given)
    size = entries(tables[1], given["size_bytes"]) + 1
    leaf = np.cumsum(size) - size + found
    at = entries(rows, given["row_bytes"])[leaf] if given["row_bytes"] else leaf
    sums = np.zeros(given["outputs"], np.int64)
    width = values.shape[1]
    for row, first in zip(at, _first_outputs(len(at), width, sums.size), strict=True):
        sums[first : first + width] += values[row]
    return (np.ldexp(sums.astype(np.float32), -given["places"]).astype(np.float32),)


def _forest_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    given = node.attributes
    trees = tensors[node.inputs[1]].size // given["size_bytes"]
    widths = (given[name] for name in ("size_bytes", "split_bytes", "feature_bytes", "row_bytes"))
    width = tensors[node.inputs[6]].shape[1]
    numbers = (trees, *widths, width, given["outputs"], given["places"])
    return KernelCall("mt_forest", (*node.inputs, node.output, *numbers))


OPS = (
    Op(
        "tree_leaves", "the leaf of each tree, from the left, that x falls into", _leaves_shape,
        lambda inputs, given: (table_of(_leaves(inputs, given), given["leaf_bytes"]).reshape(-1, given["leaf_bytes"]),),
        _leaves_kernel, HEADER, multiply_adds=_comparisons, dtypes=lambda inputs, given: ("int8",),
    ),
    Op(
        "tree_sum", "sum of what the leaves say", _sum_shape, _sum, _sum_kernel, HEADER, _sum_gradient,
        multiply_adds=lambda inputs, outputs: inputs[0].shape[0] * inputs[2].shape[1],
    ),
    Op(
        "tree_sum_grad", "dL/dvalues of tree_sum, from dL/dy and the leaves",
        lambda inputs, given: (tuple(given["shape"]),), _sum_grad, _sum_grad_kernel, HEADER,
    ),
    Op(
        "sgd_tree_sum", "sgd step of the leaves a sample is in, from dL/dy and these leaves",
        lambda inputs, _: (inputs[0].shape,), _sgd, _sgd_kernel, "mt_kernels_update_trees.h",
        multiply_adds=lambda inputs, outputs: inputs[3].shape[0] * inputs[0].shape[1],
    ),
    Op(
        "log_probabilities", "ln max(p, 2^-24)", lambda inputs, _: (inputs[0].shape,),
        lambda inputs, _: (np.log(np.maximum(inputs[0], inputs[0].dtype.type(LEAST))),),
        _logits_kernel("mt_log_probabilities"), HEADER, in_place=(0,),
    ),
    Op(
        "log_odds", "ln (p / (1 - p)), p at least 2^-24 from 0 and 1", lambda inputs, _: (inputs[0].shape,),
        lambda inputs, _: (_log_odds(inputs[0]),), _logits_kernel("mt_log_odds"), HEADER, in_place=(0,),
    ),
    Op(
        "forest", "leaves and their sum in one, values as integers with binary places",
        lambda inputs, given: ((given["outputs"],),), _forest, _forest_kernel, HEADER, multiply_adds=_comparisons,
    ),
)  # fmt: skip
