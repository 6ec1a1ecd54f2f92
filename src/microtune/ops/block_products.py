"""Products of what learns, where all is integers: a weighted sum of inputs each of which has a gain that learns too,
and a product of two sums. Neither is squeezed into a byte on the way.

The gradient of a gained layer's weight and gain is never formed: the update makes each element of both, from the old
values, in one pass over the inputs. ``mt_kernels_block_products.h`` gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.block_update import GOLDEN, MOVE_PLACES, dither_seed, moved
from microtune.ops.blocks import HEAD, ZERO, block_size, mantissas, write
from microtune.ops.fixed_point import rescale_once, saturate
from microtune.ops.op import Attributes, KernelCall, Op, Shape
from microtune.ops.quantized_layers import check_types
from microtune.ops.scaled import LARGEST, fixed_multiply

HEADER = "mt_kernels_block_products.h"
MOST_GAINED = 255
"""Inputs of a gained layer: their sums of three bytes' products stay within 31 bits."""
FACTOR_DIGITS, MOST_UNITS = 14, 2**30 - 1
"""Of what a product of two bytes is multiplied by, so that the move fits 30 bits."""
Arrays = Sequence[np.ndarray]


# Forward


def _gained_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    check_types(inputs, "int8", "int8", "int8", "int32", "int32", "int8")
    x, weight, gain, *rest = inputs
    _check_gained(x, weight, gain, given)
    if any(each.shape != (1,) for each in rest):
        raise ValueError(f"takes a bias, a multiplier and a shift of one output, not {[each.shape for each in rest]}")
    return ((1,),)


def _check_gained(x: Tensor, weight: Tensor, gain: Tensor, given: Attributes) -> None:
    size = gain.size
    if weight.shape != (1, size) or gain.shape != (size,):
        raise ValueError(f"takes a weight (1, inputs) and gains (inputs,), not {weight.shape} and {gain.shape}")
    if len(x.shape) != 1 or not 0 <= given["start"] <= x.size - size:
        raise ValueError(f"cannot take {size} inputs from {given['start']} on of {x.shape}")
    if size > MOST_GAINED:
        raise ValueError(f"sums {size} products of three bytes; 32 bits hold {MOST_GAINED}")


def _away(x: np.ndarray, size: int, given: Attributes) -> np.ndarray:
    """The inputs that have gains, less their zero point."""
    return np.asarray(x[given["start"] : given["start"] + size].astype(np.int64) - given["x_zero"])


def _gained(inputs: Arrays, given: Attributes) -> tuple[np.ndarray, ...]:
    x, weight, gain, bias, multiplier, shift = inputs
    sums = weight.astype(np.int64) @ (gain.astype(np.int64) * _away(x, gain.size, given)) + bias
    return (saturate(rescale_once(np.clip(sums, -LARGEST, LARGEST), multiplier, shift)).astype(np.int32),)


def _gained_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    numbers = (int(node.attributes["x_zero"]), int(node.attributes["start"]), tensors[node.inputs[2]].size)
    return KernelCall("mt_gained_int8_logits", (*node.inputs, node.output, *numbers))


def _same_fixed(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    check_types(inputs, "int32", "int32")
    if inputs[0].shape != inputs[1].shape:
        raise ValueError(f"takes tensors of one shape, not {inputs[0].shape} and {inputs[1].shape}")
    return (inputs[0].shape,)


def _multiply(inputs: Arrays, given: Attributes) -> tuple[np.ndarray, ...]:
    a, b = (array.ravel() for array in inputs)
    found = [fixed_multiply(int(p), int(q)) for p, q in zip(a, b, strict=True)]
    return (np.array(found, np.int32).reshape(inputs[0].shape),)


def _sized(function: str) -> Callable[[Node, Mapping[str, Tensor]], KernelCall]:
    """A call ``function(inputs..., output, elements of the second input)``."""

    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        return KernelCall(function, (*node.inputs, node.output, tensors[node.inputs[1]].size))

    return kernel


# Backward


def _factor_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    dy, other = inputs
    if other.dtype != "int32" or block_size(dy) != other.size:
        raise ValueError(f"takes a gradient for each of {other.size} numbers of 16 binary places, not {block_size(dy)}")
    return (dy.shape,)


def _factor(inputs: Arrays, given: Attributes) -> tuple[np.ndarray, ...]:
    dy, other = inputs[0], inputs[1].ravel().astype(np.int64)
    length = max(int(each ^ (each >> 63)).bit_length() for each in other)
    down = max(length - 15, 0)
    return (write(mantissas(dy) * (other >> down), int(dy[0]) + down - 16),)


# Updates


def _update_shape(states: int) -> Callable[[Sequence[Tensor], Attributes], tuple[Shape, ...]]:
    def shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
        memory, (_, dy, x, *factors) = inputs[: 2 * states], inputs[2 * states :]
        _check_gained(x, memory[0], memory[states], given)
        if any(block_size(each) != 1 for each in (dy, *factors)):
            raise ValueError("takes one gradient, one factor for the weight and one for the gains")
        return tuple(each.shape for each in memory)

    return shape


def _units(dy: np.ndarray, factors: np.ndarray, products: np.ndarray) -> np.ndarray:
    """``mt_gained_units`` of products of two bytes."""
    exponent = int(dy[0]) + int(factors[0]) + MOVE_PLACES
    factor = int(dy[HEAD]) * int(factors[HEAD]) >> min(max(-exponent, 0), 31)
    more = max((factor ^ (factor >> 63)).bit_length() - FACTOR_DIGITS, 0)
    up = more + min(max(exponent, 0), 8)
    most = MOST_UNITS >> up
    units = (factor >> more) * products
    return np.asarray(np.clip(units, -most, most) << up if up else units)


def _update(inputs: Arrays, states: int, given: Attributes) -> tuple[np.ndarray, ...]:
    memory, (noise, dy, x, *factors) = [each.copy() for each in inputs[: 2 * states]], inputs[2 * states :]
    if dy[0] == ZERO and states == 2:
        return tuple(memory)
    seed = dither_seed(int(noise), given["salt"])
    away = _away(x, memory[states].size, given)
    weight, gain = memory[0][0].astype(np.int64), memory[states].astype(np.int64)
    for first, other, each in ((0, gain, factors[0]), (states, weight, factors[1])):
        moves = (_units(dy, each, other * away) + (seed >> 16)) >> MOVE_PLACES
        rows = [array.reshape(-1) for array in memory[first : first + states]]
        new = moved(rows[0], rows[1], rows[2] if states == 3 else None, moves, seed, given.get("momentum", 0))
        for array, values in zip(memory[first : first + states], new, strict=True):
            array[...] = values.reshape(array.shape)
        seed = (seed + GOLDEN) % 2**32
    return tuple(memory)


def _update_op(rule: str) -> Op:
    states = 3 if rule == "momentum" else 2

    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        memory, (noise, dy, x, *factors) = node.inputs[: 2 * states], node.inputs[2 * states :]
        given = node.attributes
        momentum = (int(given["momentum"]),) if rule == "momentum" else ()
        where = (int(given["x_zero"]), int(given["start"]), tensors[memory[states]].size)
        numbers = (int(given["salt"]), *momentum, *where)
        return KernelCall(f"mt_{node.op}", (*memory, dy, x, *factors, noise, *numbers))

    return Op(
        name=f"{rule}_block_gained",
        summary=f"{rule} step of the int8 weight and gains of a gained layer in integers, from dL/dy and int8 x",
        shape=_update_shape(states),
        reference=lambda inputs, given: _update(inputs, states, given),
        kernel=kernel,
        header=HEADER,
        dtypes=lambda inputs, _: ("int8", "int8", "int16")[:states] * 2,
        multiply_adds=lambda inputs, outputs: 4 * inputs[0].size,
    )


UPDATES = tuple(_update_op(rule) for rule in ("sgd", "momentum"))
OPS = (
    Op(
        name="gained_int8_logits",
        summary="sum of w g (x - x_zero), int8 each: a dense layer of one output behind a gain of each input",
        shape=_gained_shape,
        reference=_gained,
        kernel=_gained_kernel,
        header=HEADER,
        multiply_adds=lambda inputs, outputs: 2 * inputs[0].size,
        dtypes=lambda inputs, _: ("int32",),
    ),
    Op(
        name="multiply_fixed",
        summary="a * b, of 16 binary places each",
        shape=_same_fixed,
        reference=_multiply,
        kernel=_sized("mt_multiply_fixed"),
        header=HEADER,
        multiply_adds=lambda inputs, outputs: inputs[0].size,
        dtypes=lambda inputs, _: ("int32",),
    ),
    Op(
        name="block_multiply_fixed_grad",
        summary="dL/dy times the other factor, of 16 binary places",
        shape=_factor_shape,
        reference=_factor,
        kernel=_sized("mt_block_multiply_fixed_grad"),
        header=HEADER,
        multiply_adds=lambda inputs, outputs: inputs[1].size,
        dtypes=lambda inputs, _: ("int16",),
    ),
    *UPDATES,
)
