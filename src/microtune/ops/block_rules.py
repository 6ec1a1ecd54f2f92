"""Which gradient each int8 operator has when gradients are blocks (precision="int8").

As ``quantized_gradients`` has them for float gradients. The gradient of a layer's weight is never formed: a rule gives
the block at the layer's output for its weight and bias, and the update makes each element of it (see ``block_update``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from microtune.ir.graph import Node
from microtune.ops.block_layers import average_divisors, fold_for
from microtune.ops.blocks import block_of
from microtune.ops.op import GradientRule, Tape
from microtune.ops.quantized_functions import lookup_slopes
from microtune.ops.quantized_gradients import quantization_of

LAYERS: Mapping[str, str] = {
    "conv2d_int8": "conv2d",
    "depthwise_conv2d_int8": "depthwise_conv2d",
    "dense_int8": "dense",
    "dense_int8_logits": "dense",
}
"""{layer: its kind}"""
GEOMETRY = ("stride", "padding")
Found = dict[str, str]


def masked(tape: Tape, node: Node, dy: str) -> str:
    """The gradient of the output, zero where the output sits on a limit of its clamp."""
    limits = {name: int(node.attributes.get(name, beyond)) for name, beyond in (("low", -128), ("high", 127))}
    wish = f"{node.output}.inner_grad"
    if tape.keeps(node.output):
        return tape.emit("block_inside_grad", (dy, node.output), wish, limits)
    mask = tape.emit("saturation_mask", (node.output,), f"{node.output}.mask", limits)
    return tape.emit("block_saturation_grad", (dy, mask), wish)


def _layer(tape: Tape, node: Node, dy: str) -> Found:
    x, weight, bias = node.inputs[:3]
    learnt = node.inputs[5:]
    g = dy if node.op == "dense_int8_logits" else masked(tape, node, dy)
    found: Found = {}
    if tape.wants(x):
        scales = np.asarray(quantization_of(tape, weight).scale, np.float64).reshape(-1)
        shape = tape.tensor(weight).shape
        kind = LAYERS[node.op]
        outputs = shape[-1] if kind == "depthwise_conv2d" else shape[0]
        scale = tape.constant(f"{weight}.scale_block", block_of(np.broadcast_to(scales, (outputs,))))
        terms = math.prod(shape[:-1]) if kind != "depthwise_conv2d" else math.prod(shape) // tape.tensor(x).shape[-1]
        given: dict[str, Any] = {name: node.attributes[name] for name in GEOMETRY if name in node.attributes}
        if given:
            given["input_shape"] = tape.tensor(x).shape
        given["fold"] = fold_for(terms)
        part = ""
        if learnt:
            part, given["start"] = "_learnt", node.attributes["start"]
        found[x] = tape.emit(f"{kind}_int8{part}_block_grad", (g, weight, scale, *learnt), f"{x}.grad", given)
    for trained in (weight, bias, *learnt):
        if tape.wants(trained):
            found[trained] = g
    return found


def _add(tape: Tape, node: Node, dy: str) -> Found:
    a, b = node.inputs
    g = masked(tape, node, dy)
    if a == b:
        return {a: tape.emit("block_add", (g, g), f"{a}.grad")}
    return {name: g for name in node.inputs if tape.wants(name)}


def _multiply(tape: Tape, node: Node, dy: str) -> Found:
    a, b = node.inputs
    g = masked(tape, node, dy)

    def times(other: str, zero: str, wish: str) -> str:
        exponent, _, factor = (int(each) for each in block_of([float(quantization_of(tape, other).scale)]))
        given = {"factor": factor, "exponent": exponent, "zero_point": int(node.attributes[zero])}
        return tape.emit("block_multiply_grad", (g, other), wish, given)

    if a == b:
        half = times(a, "a_zero", f"{a}.half_grad")
        return {a: tape.emit("block_add", (half, half), f"{a}.grad")}
    found: Found = {}
    if tape.wants(a):
        found[a] = times(b, "b_zero", f"{a}.grad")
    if tape.wants(b):
        found[b] = times(a, "a_zero", f"{b}.grad")
    return found


def _channel_scale(tape: Tape, node: Node, dy: str) -> Found:
    if tape.wants(node.inputs[1]):
        raise ValueError("gains learn in integers in front of a last dense layer of one output only")
    return _multiply(tape, node, dy)


def _average_pool(tape: Tape, node: Node, dy: str) -> Found:
    x = node.inputs[0]
    given = {name: node.attributes[name] for name in ("kernel", *GEOMETRY)} | {"input_shape": tape.tensor(x).shape}
    divisors = tape.constant(f"{node.output}.divisors", average_divisors(node.attributes["kernel"]))
    return {x: tape.emit("average_pool2d_block_grad", (masked(tape, node, dy), divisors), f"{x}.grad", given)}


def _max_pool(tape: Tape, node: Node, dy: str) -> Found:
    x = node.inputs[0]
    given = {**node.attributes, "input_shape": tape.tensor(x).shape}
    return {x: tape.emit("max_pool2d_block_grad", (dy, x), f"{x}.grad", given)}


def _global_average(tape: Tape, node: Node, dy: str) -> Found:
    x = node.inputs[0]
    *positions, channels = tape.tensor(x).shape
    given = {"positions": math.prod(positions), "channels": channels}
    return {x: tape.emit("global_average_block_grad", (masked(tape, node, dy),), f"{x}.grad", given)}


def _lookup(tape: Tape, node: Node, dy: str) -> Found:
    x, table = node.inputs
    data = tape.tensor(table).data
    if data is None:
        raise ValueError(f"the table '{table}' is not a constant: its slopes are not known")
    real = lookup_slopes(data, quantization_of(tape, x), quantization_of(tape, node.output))
    slopes = tape.constant(f"{node.output}.slopes", block_of(real))
    return {x: tape.emit("block_lookup_grad", (dy, x, slopes), f"{x}.grad")}


def _same(tape: Tape, node: Node, dy: str) -> Found:
    """Gradients are in real units on both sides, and a block does not know the shape."""
    return {node.inputs[0]: dy}


def _transpose(tape: Tape, node: Node, dy: str) -> Found:
    x, order = node.inputs[0], node.attributes["permutation"]
    shape = tuple(tape.tensor(x).shape[axis] for axis in order)
    back = tuple(int(axis) for axis in np.argsort(order))
    return {x: tape.emit("block_transpose", (dy,), f"{x}.grad", {"shape": shape, "permutation": back})}


def _rows(tape: Tape, dy: str, x: str, whole: tuple[int, ...], axis: int, start: int) -> str:
    """The gradient of ``x``, which is part of a tensor of the shape ``whole``, or the other way round, from ``start``
    along ``axis`` on."""
    shape = tape.tensor(x).shape
    inner = math.prod(shape[axis + 1 :])
    given = {
        "rows": math.prod(shape[:axis]),
        "given": whole[axis] * inner,
        "taken": shape[axis] * inner,
        "start": start * inner,
    }
    return tape.emit("block_rows", (dy,), f"{x}.grad", given)


def _concat(tape: Tape, node: Node, dy: str) -> Found:
    found: Found = {}
    start, axis = 0, node.attributes["axis"]
    whole = tape.tensor(node.output).shape
    for name in node.inputs:
        if tape.wants(name):
            part = _rows(tape, dy, name, whole, axis, start)
            found[name] = tape.emit("block_add", (found[name], part), f"{name}.grad") if name in found else part
        start += tape.tensor(name).shape[axis]
    return found


def _slice(tape: Tape, node: Node, dy: str) -> Found:
    x, given = node.inputs[0], node.attributes
    return {x: _rows(tape, dy, x, tape.tensor(node.output).shape, given["axis"], -given["start"])}


def _pad(tape: Tape, node: Node, dy: str) -> Found:
    x = node.inputs[0]
    gradient, shape = dy, list(tape.tensor(node.output).shape)
    for axis, ((before, after), size) in enumerate(zip(node.attributes["padding"], tape.tensor(x).shape, strict=True)):
        if before or after:
            inner = math.prod(shape[axis + 1 :])
            given = {
                "rows": math.prod(shape[:axis]),
                "given": shape[axis] * inner,
                "taken": size * inner,
                "start": int(before) * inner,
            }
            gradient = tape.emit("block_rows", (gradient,), f"{x}.grad", given)
        shape[axis] = size
    return {x: gradient}


def _gained(tape: Tape, node: Node, dy: str) -> Found:
    if tape.wants(node.inputs[0]):
        raise ValueError("nothing can learn in front of a layer whose inputs have gains that learn")
    return {name: dy for name in node.inputs[1:4] if tape.wants(name)}


def _multiply_fixed(tape: Tape, node: Node, dy: str) -> Found:
    a, b = node.inputs
    found: Found = {}
    for name, other in ((a, b), (b, a)):
        if tape.wants(name):
            found[name] = tape.emit("block_multiply_fixed_grad", (dy, other), f"{name}.grad")
    if a == b and found:
        return {a: tape.emit("block_add", (found[a], found[a]), f"{a}.grad")}
    return found


RULES: Mapping[str, GradientRule] = {
    **dict.fromkeys(LAYERS, _layer),
    "add_int8": _add,
    "multiply_int8": _multiply,
    "channel_scale_int8": _channel_scale,
    "gained_int8_logits": _gained,
    "multiply_fixed": _multiply_fixed,
    "average_pool2d_int8": _average_pool,
    "max_pool2d_int8": _max_pool,
    "global_average_int8": _global_average,
    "lookup_int8": _lookup,
    "fixed_from_int8": _same,
    "reshape": _same,
    "transpose": _transpose,
    "concat": _concat,
    "slice": _slice,
    "pad": _pad,
}
"""{operator: its gradient rule for blocks}"""


def fused(nodes: Sequence[Node]) -> list[Node]:
    """The nodes with each gradient to the input of a dense layer that is masked next masked at once."""
    readers = Counter(name for node in nodes for name in node.inputs)
    inner = {node.output: node for node in nodes if node.op == "dense_int8_block_grad" and readers[node.output] == 1}
    found: list[Node] = []
    for node in nodes:
        before = inner.get(node.inputs[0]) if node.op == "block_inside_grad" else None
        if before is not None:
            found.remove(before)
            given = {**before.attributes, **node.attributes}
            inputs = (*before.inputs, node.inputs[1])
            node = Node("dense_int8_inside_block_grad", node.name, inputs, node.outputs, given)
        found.append(node)
    return found
