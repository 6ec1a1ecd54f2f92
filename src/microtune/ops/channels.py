"""Per-channel operators over the last axis: an affine map, and rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.op import Attributes, KernelCall, Op, Shape, Tape

HEADER = "mt_kernels_piecewise.h"


def _affine_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    x, *vectors = inputs
    if not x.shape or any(vector.shape != x.shape[-1:] for vector in vectors):
        raise ValueError(f"takes x (..., C) and vectors (C,), not {', '.join(str(each.shape) for each in inputs)}")
    return (x.shape,)


def _kernel(function: str) -> Callable[[Node, Mapping[str, Tensor]], KernelCall]:
    """A call ``function(inputs..., output, count, channels)``."""

    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        x = tensors[node.inputs[0]]
        return KernelCall(function, (*node.inputs, node.output, x.size // x.shape[-1], x.shape[-1]))

    return kernel


def _affine_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    x, gamma, beta = node.inputs
    found: dict[str, str] = {}
    if tape.wants(x):
        found[x] = tape.emit("channel_scale", (dy, gamma), f"{x}.grad")
    if tape.wants(gamma):
        found[gamma] = tape.emit("channel_dot", (dy, x), f"{gamma}.grad")
    if tape.wants(beta):
        found[beta] = tape.emit("channel_sum", (dy,), f"{beta}.grad")
    return found


def _scale_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    x, gamma = node.inputs
    found: dict[str, str] = {}
    if tape.wants(x):
        found[x] = tape.emit("channel_scale", (dy, gamma), f"{x}.grad")
    if tape.wants(gamma):
        found[gamma] = tape.emit("channel_dot", (dy, x), f"{gamma}.grad")
    return found


def _rows(indices: np.ndarray, table: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(np.nan_to_num(indices), 0, len(table) - 1).astype(int))


def _embedding_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    indices, table = inputs
    if len(indices.shape) != 1 or len(table.shape) != 2:
        raise ValueError(f"takes indices (n,) and a table (V, D), not {indices.shape} and {table.shape}")
    return ((indices.shape[0], table.shape[1]),)


def _embedding_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    indices, table = (tensors[name] for name in node.inputs)
    return KernelCall("mt_embedding", (*node.inputs, node.output, indices.size, *table.shape))


def _embedding_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    indices, table = node.inputs
    if not tape.wants(table):
        return {}
    rows = {"rows": tape.tensor(table).shape[0]}
    return {table: tape.emit("embedding_grad", (dy, indices), f"{table}.grad", rows)}


def _embedding_grad(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    dy, indices = inputs
    table = np.zeros((given["rows"], dy.shape[1]), dy.dtype)
    np.add.at(table, _rows(indices, table), dy)
    return (table,)


OPS = (
    Op(
        "channel_affine", "gamma x + beta, for each channel", _affine_shape,
        lambda inputs, _: (inputs[1] * inputs[0] + inputs[2],), _kernel("mt_channel_affine"), HEADER,
        _affine_gradient, in_place=(0,),
    ),
    Op(
        "channel_scale", "gamma x, for each channel", _affine_shape,
        lambda inputs, _: (inputs[1] * inputs[0],), _kernel("mt_channel_scale"), HEADER,
        _scale_gradient, in_place=(0,),
    ),
    Op(
        "channel_dot", "sum of a b over all but the last axis",
        lambda inputs, _: (inputs[0].shape[-1:],),
        lambda inputs, _: ((inputs[0] * inputs[1]).sum(axis=tuple(range(inputs[0].ndim - 1))),),
        _kernel("mt_channel_dot"), HEADER,
    ),
    Op(
        "embedding", "rows of a table; an index outside takes the nearest row", _embedding_shape,
        lambda inputs, _: (inputs[1][_rows(*inputs)],), _embedding_kernel, HEADER, _embedding_gradient,
    ),
    Op(
        "embedding_grad", "dL/dtable of embedding, from dL/dy and the indices",
        lambda inputs, given: ((given["rows"], inputs[0].shape[1]),),
        _embedding_grad,
        lambda node, tensors: KernelCall(
            "mt_embedding_grad",
            (*node.inputs, node.output, tensors[node.inputs[1]].size, *tensors[node.output].shape),
        ),
        HEADER,
    ),
)  # fmt: skip
