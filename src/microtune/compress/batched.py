"""Run a graph on many samples at once in numpy: for calibration, for which one sample after the other is too slow.

The heavy operators are done for the whole batch; what is left goes sample by sample through the operators' own
references. Integer sums are exact: in float32 as long as they are below 2^24, else in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from microtune.ir import Graph, Node
from microtune.ops import OPS
from microtune.ops.fixed_point import rescale, rescale_once, saturate

FLOAT_ELEMENTWISE = (
    *("relu", "relu6", "clamp", "leaky_relu", "hard_swish", "hard_sigmoid", "sigmoid", "tanh"),
    *("scale", "add", "multiply", "channel_affine", "channel_scale", "quantize"),
)
INT8_ELEMENTWISE = ("dequantize", "add_int8", "multiply_int8", "channel_scale_int8", "lookup_int8")
ELEMENTWISE = frozenset((*FLOAT_ELEMENTWISE, *INT8_ELEMENTWISE))
"""Their references take arrays of any shape, so of a batch as well."""

EXACT_IN_FLOAT32 = (1 << 24) // (255 * 127)
"""Products of int8 (less a zero point) by int8 whose sum, in any order, float32 holds exactly."""

Arrays = Sequence[np.ndarray]
Sums = Callable[[np.ndarray, np.ndarray, Mapping[str, Any]], np.ndarray]


def _dense(x: np.ndarray, weight: np.ndarray, attributes: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(x @ weight.T)


def _windows(x: np.ndarray, kernel: tuple[int, int], attributes: Mapping[str, Any]) -> Iterator[tuple[int, int, Any]]:
    """(row, column, x seen by that element of the kernel (n, out H, out W, C)) of x (n, H, W, C), padded with 0."""
    stride_y, stride_x = attributes["stride"]
    padded = np.pad(x, ((0, 0), *attributes["padding"], (0, 0)))
    height = (padded.shape[1] - kernel[0]) // stride_y + 1
    width = (padded.shape[2] - kernel[1]) // stride_x + 1
    for i in range(kernel[0]):
        rows = slice(i, i + stride_y * (height - 1) + 1, stride_y)
        for j in range(kernel[1]):
            yield i, j, padded[:, rows, j : j + stride_x * (width - 1) + 1 : stride_x, :]


def _conv2d(x: np.ndarray, weight: np.ndarray, attributes: Mapping[str, Any]) -> np.ndarray:
    _, height, width, _ = weight.shape
    return np.asarray(sum(seen @ weight[:, i, j, :].T for i, j, seen in _windows(x, (height, width), attributes)))


def _depthwise(x: np.ndarray, weight: np.ndarray, attributes: Mapping[str, Any]) -> np.ndarray:
    height, width, channels = weight.shape
    spread = np.repeat(x, channels // x.shape[-1], axis=-1)
    return np.asarray(sum(seen * weight[i, j] for i, j, seen in _windows(spread, (height, width), attributes)))


LAYERS: dict[str, Sums] = {"dense": _dense, "conv2d": _conv2d, "depthwise_conv2d": _depthwise}
"""Weighted sums without the bias, of x (n, *shape of a sample)."""

FLOAT_LAYERS = frozenset((*LAYERS, *(f"{name}_weight8" for name in LAYERS)))
"""Layers on float activations; ``_weight8`` are those with int8 weights, whose sums are multiplied by their scales."""


def integer_sums(node: Node, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """sum (x - x_zero) w of an int8 layer on x (n, *shape of a sample), without its bias, in int64."""
    layer = node.op.removesuffix("_int8")
    products = weight[..., 0].size if layer == "depthwise_conv2d" else weight[0].size
    exact = np.dtype(np.float32 if products <= EXACT_IN_FLOAT32 else np.float64)
    centred = (x.astype(np.int16) - np.int16(node.attributes["x_zero"])).astype(exact)
    sums = LAYERS[layer](centred, weight.astype(exact), node.attributes)
    return np.asarray(sums.astype(np.int64))


def finish_int8(
    node: Node, sums: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """The int8 output of a layer from its sums (n, ..., O)."""
    given = node.attributes
    scaled = rescale_once if node.op == "dense_int8" else rescale
    y = given["y_zero"] + scaled(saturate(sums + bias.astype(np.int64)), multiplier, shift)
    return np.asarray(np.clip(y, given["low"], given["high"]), np.int8)


def _pool(node: Node, x: np.ndarray) -> np.ndarray | None:
    """Pools as one window element after the other, where nothing is padded; else None."""
    if node.op not in ("average_pool2d", "max_pool2d", "max_pool2d_int8") or np.any(node.attributes["padding"]):
        return None
    seen = [part for _, _, part in _windows(x, node.attributes["kernel"], node.attributes)]
    if node.op == "average_pool2d":
        return np.asarray(sum(seen) / np.float32(len(seen)))
    largest: np.ndarray = np.maximum.reduce(seen)
    return largest if node.op == "max_pool2d" else np.clip(largest, node.attributes["low"], node.attributes["high"])


def _compute(node: Node, arrays: Arrays, constant: Sequence[bool]) -> tuple[np.ndarray, ...]:
    """The outputs of a node, (n, *shape) each; ``constant`` says which inputs have no samples in front."""
    if not constant[0] and all(constant[1:]):
        x, *rest = arrays
        if node.op in LAYERS:
            sums = LAYERS[node.op](x, rest[0], node.attributes)
            return (sums + rest[1] if len(rest) == 2 else sums,)
        if node.op in FLOAT_LAYERS:
            weight, scale, bias = rest
            return (
                LAYERS[node.op.removesuffix("_weight8")](x, weight.astype(x.dtype), node.attributes) * scale + bias,
            )
        if node.op.removesuffix("_int8") in LAYERS and len(rest) == 4:
            return (finish_int8(node, integer_sums(node, x, rest[0]), *rest[1:]),)
        pooled = _pool(node, x)
        if pooled is not None:
            return (pooled,)
        if node.op == "reshape":
            return (x.reshape(len(x), *node.attributes["shape"]),)
    if node.op in ELEMENTWISE and (node.op != "channel_affine" or all(constant[1:])):
        return OPS[node.op].reference(arrays, node.attributes)
    samples = max(len(array) for array, fixed in zip(arrays, constant, strict=True) if not fixed)
    rows = [
        OPS[node.op].reference(
            [a if fixed else a[i] for a, fixed in zip(arrays, constant, strict=True)], node.attributes
        )
        for i in range(samples)
    ]
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


def walk(
    graph: Graph, x: np.ndarray, before: Callable[[Node, list[np.ndarray]], None] | None = None
) -> Iterator[tuple[Node, Mapping[str, np.ndarray]]]:
    """Run a graph of one input on x (n, *input shape), yielding each node with the values there are, by name.

    A value is dropped after its last reader was yielded. ``before`` is called ahead of each node and may replace the
    arrays that it reads.
    """
    last = {name: node for node in graph.nodes for name in node.inputs}
    values = {graph.inputs[0]: x}
    for node in graph.nodes:
        fixed = [graph.tensor(name).is_constant for name in node.inputs]
        arrays = [np.asarray(graph.tensor(name).data if name not in values else values[name]) for name in node.inputs]
        if before is not None:
            before(node, arrays)
        values.update(zip(node.outputs, _compute(node, arrays, fixed), strict=False))
        yield node, values
        for name in node.inputs:
            if last[name] is node and name not in graph.outputs:
                values.pop(name, None)


def run(graph: Graph, x: np.ndarray) -> np.ndarray:
    """The first output of a graph of one input for x (n, *input shape)."""
    values: Mapping[str, np.ndarray] = {graph.inputs[0]: x}
    for _, present in walk(graph, x):
        values = present
    return values[graph.outputs[0]]
