"""Where int8 ends without floats: outputs and losses in Q16.16 (``mt_fixed.h``), the loss's gradient as a block.

Outputs, targets and losses are int32 tensors with 16 binary places. A last dense layer keeps its sums, which int8 would
round and limit; anything else is brought from int8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.blocks import HEAD, divided, write
from microtune.ops.fixed_point import rescale_once, saturate
from microtune.ops.op import Attributes, KernelCall, Op, Shape
from microtune.ops.quantized_layers import MOST_TERMS, check_types
from microtune.ops.scaled import (
    FIXED_ONE,
    LARGEST,
    fixed_exp,
    fixed_log,
    fixed_multiply,
    fixed_sigmoid,
    saturated,
)

LAYER_HEADER, LOSS_HEADER = "mt_kernels_block_layers.h", "mt_kernels_fixed_loss.h"
MOST_CLASSES = 32767
"""A class index has 16 binary places of 32."""


# From int8


def _logits_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    learnt = ("int8",) if len(inputs) == 6 else ()
    check_types(inputs, "int8", "int8", "int32", "int32", "int8", *learnt)
    x, weight, *rest = inputs
    if len(x.shape) != 1 or len(weight.shape) != 2 or weight.shape[1] != x.shape[0]:
        raise ValueError(f"takes x (inputs) and weight (outputs, inputs), not {x.shape} and {weight.shape}")
    if any(each.shape != weight.shape[:1] for each in rest[:3]):
        raise ValueError(f"takes a bias, a multiplier and a shift for each of {weight.shape[0]} outputs")
    if weight.shape[1] > MOST_TERMS:
        raise ValueError(f"sums {weight.shape[1]} products; 32 bits hold {MOST_TERMS}")
    if learnt and not 0 <= given["start"] <= weight.shape[1] - rest[3].shape[-1]:
        raise ValueError(f"cannot put learnt inputs {rest[3].shape} at {given['start']} of a weight {weight.shape}")
    return ((weight.shape[0],),)


def _logits(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    x, weight, bias, multiplier, shift, *learnt = inputs
    whole = weight.astype(np.int64)
    if learnt:
        whole[:, given["start"] : given["start"] + learnt[0].shape[-1]] = learnt[0]
    sums = whole @ (x.astype(np.int64) - given["x_zero"]) + bias
    scaled = rescale_once(np.clip(sums, -LARGEST, LARGEST), multiplier, shift)
    return (saturate(scaled).astype(np.int32),)


def _logits_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    outputs, inputs = tensors[node.inputs[1]].shape
    sizes, zero = (inputs, outputs), int(node.attributes["x_zero"])
    if len(node.inputs) == 6:
        learnt = (int(node.attributes["start"]), tensors[node.inputs[5]].shape[-1])
        return KernelCall("mt_dense_int8_learnt_logits", (*node.inputs, node.output, *sizes, *learnt, zero))
    return KernelCall("mt_dense_int8_logits", (*node.inputs, node.output, *sizes, zero))


def _from_int8(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    away = inputs[0].astype(np.int64) - given["zero_point"]
    return (saturate(rescale_once(away, given["multiplier"], given["shift"])).astype(np.int32),)


def _from_int8_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    check_types(inputs, "int8")
    return (inputs[0].shape,)


def _from_int8_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    numbers = (int(node.attributes[name]) for name in ("multiplier", "shift", "zero_point"))
    return KernelCall("mt_fixed_from_int8", (*node.inputs, node.output, *numbers, tensors[node.output].size))


dense_int8_logits = Op(
    name="dense_int8_logits",
    summary="int8 fully connected layer that keeps its sums, with 16 binary places",
    shape=_logits_shape,
    reference=_logits,
    kernel=_logits_kernel,
    header=LAYER_HEADER,
    multiply_adds=lambda inputs, outputs: inputs[1].size,
    dtypes=lambda inputs, _: ("int32",),
)

fixed_from_int8 = Op(
    name="fixed_from_int8",
    summary="(x - zero_point) times a scale, with 16 binary places; multiplier and shift hold the scale",
    shape=_from_int8_shape,
    reference=_from_int8,
    kernel=_from_int8_kernel,
    header=LAYER_HEADER,
    dtypes=lambda inputs, _: ("int32",),
)


# Losses


def _mean(losses: Sequence[int]) -> int:
    total = 0
    for each in losses:
        total = saturated(total + each)
    return total if len(losses) == 1 else (total + len(losses) // 2) // len(losses)


Losses = tuple[Sequence[int], Sequence[int], int]
"""Of each output: its loss and its gradient before the mean, in units of 2^exponent."""


def _squared_error(y: Sequence[int], t: Sequence[int], delta: int) -> Losses:
    errors = [saturated(a - b) for a, b in zip(y, t, strict=True)]
    return [fixed_multiply(each, each) for each in errors], errors, -15


def _huber(y: Sequence[int], t: Sequence[int], delta: int) -> Losses:
    errors = [saturated(a - b) for a, b in zip(y, t, strict=True)]
    clipped = [max(-delta, min(delta, each)) for each in errors]
    halves = [each // 2 if each >= 0 else -(-each // 2) for each in clipped]
    losses = [
        fixed_multiply(kept, saturated(error - half)) for error, kept, half in zip(errors, clipped, halves, strict=True)
    ]
    return losses, clipped, -16


def _binary_cross_entropy(y: Sequence[int], t: Sequence[int], delta: int) -> Losses:
    losses = []
    for logit, target in zip(y, t, strict=True):
        linear = saturated(max(logit, 0) - fixed_multiply(logit, target))
        losses.append(saturated(linear + fixed_log(FIXED_ONE + fixed_exp(-min(abs(logit), LARGEST)))))
    gradient = [saturated(fixed_sigmoid(a) - b) for a, b in zip(y, t, strict=True)]
    return losses, gradient, -16


def _whole_numbers(array: np.ndarray) -> list[int]:
    return [int(each) for each in array.ravel()]


Reference = Callable[[Sequence[np.ndarray], Attributes], tuple[np.ndarray, ...]]


def _mean_loss(function: Callable[[Sequence[int], Sequence[int], int], Losses]) -> Reference:
    def reference(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
        y, t = map(_whole_numbers, inputs)
        losses, gradient, exponent = function(y, t, int(given.get("delta", 0)))
        block = divided(write(np.array(gradient), exponent), len(losses))
        return np.array(_mean(losses), np.int32), block

    return reference


def _cross_entropy(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
    y, label = _whole_numbers(inputs[0]), int(inputs[1][0]) >> 16
    largest = max(y)
    powers = [fixed_exp(saturated(each - largest)) for each in y]
    half = (sum(powers) + 1) >> 1
    p = np.array([((e << 15) + (half >> 1)) // half for e in powers], np.int64)
    p[label] -= FIXED_ONE
    loss = saturated(fixed_log(sum(powers)) + saturated(largest - y[label]))
    return np.array(loss, np.int32), write(p, -16)


def _loss_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    check_types(inputs, "int32", "int32")
    return ((), (HEAD + inputs[0].size,))


def _loss(name: str, summary: str, reference: Reference, *attributes: str) -> Op:
    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        y, target = node.inputs
        extra = tuple(int(node.attributes[each]) for each in attributes)
        sizes = (*extra, tensors[y].size)
        return KernelCall(f"mt_{name}", (y, target, node.outputs[1], *sizes), result=node.outputs[0])

    return Op(
        name=name,
        summary=f"{summary}, with 16 binary places; its gradient is a block",
        shape=_loss_shape,
        reference=reference,
        kernel=kernel,
        header=LOSS_HEADER,
        dtypes=lambda inputs, _: ("int32", "int16"),
    )


OPS = (
    dense_int8_logits,
    fixed_from_int8,
    _loss("mse_fixed", "mean of (y - t)^2", _mean_loss(_squared_error)),
    _loss("huber_fixed", "mean of e^2 / 2 within delta, linear beyond (Huber 1964)", _mean_loss(_huber), "delta"),
    _loss("binary_cross_entropy_fixed", "mean over independent yes/no logits", _mean_loss(_binary_cross_entropy)),
    _loss("cross_entropy_fixed", "-ln softmax(y)[class]; the target is a class index", _cross_entropy),
)
