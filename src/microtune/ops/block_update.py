"""SGD and momentum on int8 weights and int32 biases, in integers alone, from gradients as blocks (see ``blocks``).

An int8 weight learns in steps of 1/256 of its grid; what is left of it between two grid points is kept beside it, its
``rest`` (error feedback). What is smaller than such a step is rounded with a dither that walks by the golden ratio, so
that no move is lost, however small: its mean over the steps is kept. ``factors``, a block with a number for each
channel, bring a product of gradient and int8 input into steps, learning rate and scales and all: what
quantisation-aware scaling (Lin et al., On-Device Training Under 256KB Memory, 2022) amounts to. Momentum keeps a
velocity in steps for each weight.

Inputs of a weight's update: weight, rest, [velocity,] noise, dL/dy, x, factors; of a bias's: bias, [velocity,] noise,
dL/dy, factors; of a dense layer's both: weight, rest, [velocity,] bias, [velocity,] noise, dL/dy, x, factors, the
bias's factors. ``mt_kernels_block_move.h`` gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.blocks import HEAD, ZERO, block_size, mantissas
from microtune.ops.op import Attributes, KernelCall, Op, Shape
from microtune.ops.window import window_output, window_sizes, windows

HEADER, WINDOW_HEADER = "mt_kernels_block_update.h", "mt_kernels_block_update_conv.h"
STEPS = 256
"""Steps of a weight from one grid point to the next."""
MOST_BIAS, MOST_VELOCITY = 2**30 - 1, 2**29 - 1
MOST_POSITIONS, MOST_FACTOR = 2**15, 2**22
GOLDEN = 0x9E3779B9
MOVE_PLACES, MOMENTUM_PLACES = 16, 15
Arrays = Sequence[np.ndarray]


# Rounding


def dither_seed(noise: int, salt: int) -> int:
    """Where the dither of a tensor begins in this step: ``mt_dither_begin``."""
    return (noise + salt) * GOLDEN % 2**32


def _units(product: np.ndarray, exponent: int, digits: int) -> np.ndarray:
    """``mt_block_units``: product 2^exponent rounded to nearest; within 2^(30 - digits)."""
    down, up = min(max(-exponent, 0), 31), min(max(exponent, 0), 30)
    units = (product + (1 << down >> 1)) >> down
    if exponent < -digits:
        return np.asarray(units)
    limit = (2 ** (30 - digits) - 1) >> up
    return np.asarray(np.clip(units, -limit, limit) << up)


def _bias_move(product: int, exponent: int, seed: int) -> int:
    """``mt_block_bias_move``."""
    if exponent > 0:
        return int(_units(np.array(product, np.int64), exponent, 0))
    if exponent < -30:
        product, exponent = product >> min(-30 - exponent, 30), -30
    return (product + ((seed >> 1) >> (31 + exponent))) >> -exponent


def _bias_step(bias: int, velocity: int | None, move: int, momentum: int, seed: int) -> tuple[int, ...]:
    """``mt_block_bias_step``."""
    if velocity is not None:
        low = (velocity & 0x7FFF) * momentum + (seed & 0x7FFF)
        move = max(-MOST_VELOCITY, min(MOST_VELOCITY, move + (velocity >> 15) * momentum + (low >> 15)))
    moved = bias - move
    if not -(2**30) <= moved < 2**30:
        moved = MOST_BIAS if moved > 0 else -MOST_BIAS
    return (moved,) if velocity is None else (moved, move)


def _product(sums: np.ndarray, factor: int) -> np.ndarray:
    return np.asarray((sums >> 15) * factor + (((sums & 0x7FFF) * factor) >> 15))


def moved(
    weight: np.ndarray, rest: np.ndarray, velocity: np.ndarray | None, moves: np.ndarray, seed: int, momentum: int
) -> tuple[np.ndarray, ...]:
    """Weights (flat), rests and velocities of one channel after their moves."""
    if velocity is not None:
        kept = (velocity.astype(np.int64) * momentum + (seed & 0x7FFF)) >> MOMENTUM_PLACES
        moves = np.clip(moves + kept, -32767, 32767)
    left = rest.astype(np.int64) - moves
    stays = (left >= -128) & (left <= 127)
    total = np.clip(weight.astype(np.int64) * STEPS + left, -128 * STEPS - 128, 127 * STEPS + 127)
    whole = (total + 128) >> 8
    found = (
        np.where(stays, weight, whole).astype(np.int8),
        np.where(stays, left, total - whole * STEPS).astype(np.int8),
    )
    return found if velocity is None else (*found, moves.astype(np.int16))


# Weights


def _input(x: np.ndarray, given: Attributes) -> np.ndarray:
    start = given.get("start", 0)
    taken = x[..., start : start + given["taken"]] if "taken" in given else x
    return np.asarray(taken.astype(np.int64) - given["x_zero"])


def down_for(positions: int) -> int:
    """Digits that a gradient loses before products with int8 inputs are summed over so many positions."""
    return max(0, math.ceil(math.log2(positions)) - 7)


def _dense(arrays: Arrays, states: int, given: Attributes) -> tuple[np.ndarray, ...]:
    """Of the weight; of the bias too where there are factors for it."""
    velocities = "momentum" in given
    own = 3 if velocities else 2
    memory, (noise, dy, x, *factors) = [each.copy() for each in arrays[: 1 + states]], arrays[1 + states :]
    away = _input(x, given)
    seed = dither_seed(int(noise), given["salt"])
    for o, g in enumerate(mantissas(dy)):
        if dy[0] == ZERO and not velocities:
            break
        if g or velocities:
            weights = [int(each[HEAD + o]) for each in factors]
            down = min(max(-(int(dy[0]) + int(factors[0][0]) + MOVE_PLACES), 0), 31)
            factor = max(-MOST_FACTOR, min(MOST_FACTOR - 1, int(g) * weights[0] >> down))
            moves = (factor * away + (seed >> 16)) >> MOVE_PLACES
            rows = [each[o] for each in memory[:own]]
            new = moved(rows[0], rows[1], rows[2] if velocities else None, moves, seed, given.get("momentum", 0))
            if len(factors) > 1:
                move = _bias_move(int(g) * weights[1], min(int(dy[0]) + int(factors[1][0]), 0), seed)
                bias, *velocity = (int(each[o]) for each in memory[own:])
                step = _bias_step(bias, velocity[0] if velocity else None, move, given.get("momentum", 0), seed)
                new = (*new, *(np.array(each) for each in step))
            for each, row in zip(memory, new, strict=True):
                each[o] = row
        seed = (seed + GOLDEN) % 2**32
    return tuple(memory)


def _sum_up(dy: np.ndarray, factors: np.ndarray, down: int) -> int:
    """The exponent of a product of a sum over positions and a factor, in units of a move."""
    return int(dy[0]) + int(factors[0]) + down + 15 + MOVE_PLACES


def _conv2d(arrays: Arrays, states: int, given: Attributes) -> tuple[np.ndarray, ...]:
    memory, (noise, dy, x, factors) = [each.copy() for each in arrays[: 1 + states]], arrays[1 + states :]
    if dy[0] == ZERO and states == 1:
        return tuple(memory)
    outputs, *kernel, _ = memory[0].shape
    taps = windows(_input(x, given), kernel, given, 0)
    down = down_for(math.prod(taps.shape[:2]))
    g = (mantissas(dy).reshape(*taps.shape[:2], outputs) + (1 << down >> 1)) >> down
    seed = dither_seed(int(noise), given["salt"])
    for o in range(outputs):
        sums = np.einsum("yx,yxcij->ijc", g[..., o], taps).ravel()
        moves = _units(_product(sums, int(factors[HEAD + o])), _sum_up(dy, factors, down), 0)
        moves = (moves + (seed >> 16)) >> MOVE_PLACES
        rows = [each[o].ravel() for each in memory]
        new = moved(rows[0], rows[1], rows[2] if states == 2 else None, moves, seed, given.get("momentum", 0))
        for each, row in zip(memory, new, strict=True):
            each[o] = row.reshape(each[o].shape)
        seed = (seed + GOLDEN) % 2**32
    return tuple(memory)


def _depthwise(arrays: Arrays, states: int, given: Attributes) -> tuple[np.ndarray, ...]:
    memory, (noise, dy, x, factors) = [each.copy() for each in arrays[: 1 + states]], arrays[1 + states :]
    if dy[0] == ZERO and states == 1:
        return tuple(memory)
    *kernel, outputs = memory[0].shape
    taps = np.repeat(windows(_input(x, given), kernel, given, 0), outputs // x.shape[2], axis=2)
    down = down_for(math.prod(taps.shape[:2]))
    g = (mantissas(dy).reshape(*taps.shape[:2], outputs) + (1 << down >> 1)) >> down
    sums = np.einsum("yxc,yxcij->ijc", g, taps).ravel()
    seed = dither_seed(int(noise), given["salt"])
    flat = [each.reshape(-1) for each in memory]
    for e, total in enumerate(sums):
        product = _product(np.array([total]), int(factors[HEAD + e % outputs]))
        moves = _units(product, _sum_up(dy, factors, down), 0)
        moves = (moves + (seed >> 16)) >> MOVE_PLACES
        if total or states == 2:
            rows = [each[e : e + 1] for each in flat]
            new = moved(rows[0], rows[1], rows[2] if states == 2 else None, moves, seed, given.get("momentum", 0))
            for each, row in zip(flat, new, strict=True):
                each[e : e + 1] = row
        seed = (seed + GOLDEN) % 2**32
    return tuple(memory)


Reference = Callable[[Arrays, int, Attributes], tuple[np.ndarray, ...]]
# {layer: whether its bias goes with the weight, reference}
_LAYERS: Mapping[str, tuple[bool, Reference]] = {
    "dense": (False, _dense),
    "dense_bias": (True, _dense),
    "conv2d": (False, _conv2d),
    "depthwise_conv2d": (False, _depthwise),
}


def _kinds(rule: str, biased: bool) -> tuple[str, ...]:
    """Types of what is updated: weight, rest, velocity, bias, its velocity."""
    if rule == "momentum":
        return ("int8", "int8", "int16", "int32", "int32") if biased else ("int8", "int8", "int16")
    return ("int8", "int8", "int32") if biased else ("int8", "int8")


def _outputs(weight: Shape, layer: str) -> int:
    return weight[-1] if layer == "depthwise_conv2d" else weight[0]


def _weight_shape(layer: str, kinds: tuple[str, ...]) -> Callable[[Sequence[Tensor], Attributes], tuple[Shape, ...]]:
    def shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
        memory, (_, dy, x, *factors) = inputs[: len(kinds)], inputs[len(kinds) :]
        weight = memory[0].shape
        outputs, positions = _outputs(weight, layer), 1
        if "conv2d" in layer:
            kernel = weight[1:3] if layer == "conv2d" else weight[:2]
            positions = math.prod(window_output(x.shape[:2], kernel, given))
        wanted = tuple((weight if kind != "int32" else (outputs,), kind) for kind in kinds)
        if tuple((each.shape, each.dtype) for each in memory) != wanted:
            raise ValueError(f"steps a weight with states of its shape, {wanted}")
        if block_size(dy) != positions * outputs or any(block_size(each) != outputs for each in factors):
            raise ValueError(f"takes {positions * outputs} gradients and {outputs} factors, not {block_size(dy)}")
        if "taken" in given and not 0 <= given["start"] <= x.shape[-1] - given["taken"]:
            raise ValueError(f"cannot take {given['taken']} channels from {given['start']} on of an input {x.shape}")
        return tuple(each.shape for each in memory)

    return shape


def _weight_kernel(layer: str, kinds: tuple[str, ...]) -> Callable[[Node, Mapping[str, Tensor]], KernelCall]:
    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        memory, (noise, dy, x, *factors) = node.inputs[: len(kinds)], node.inputs[len(kinds) :]
        weight, given = tensors[memory[0]].shape, node.attributes
        momentum = tuple(int(given[name]) for name in ("momentum",) if name in given)
        taken = tuple(int(given[name]) for name in ("start", "taken") if name in given)
        sizes: tuple[int, ...] = (_outputs(weight, layer), *taken)
        if "conv2d" in layer:
            shape = tensors[x].shape
            taps = weight[1:3] if layer == "conv2d" else weight[:2]
            y = (*window_output(shape[:2], taps, given), sizes[0])
            sizes = (*window_sizes(shape, y, taps, given), shape[2], *sizes, down_for(y[0] * y[1]))
        numbers = (int(given["salt"]), *momentum, int(given["x_zero"]), *sizes)
        return KernelCall(f"mt_{node.op}", (*memory, dy, x, *factors, noise, *numbers))

    return kernel


def _weight(layer: str, rule: str) -> Op:
    biased, reference = _LAYERS[layer]
    kinds = _kinds(rule, biased)
    return Op(
        name=f"{rule}_block_{layer}",
        summary=f"{rule} step of the int8 weight of a {layer} layer in integers, from a block dL/dy and int8 x",
        shape=_weight_shape(layer, kinds),
        reference=lambda inputs, given: reference(inputs, len(kinds) - 1, given),
        kernel=_weight_kernel(layer, kinds),
        header=WINDOW_HEADER if "conv2d" in layer else HEADER,
        dtypes=lambda inputs, _: kinds,
        multiply_adds=lambda inputs, outputs: (
            inputs[0].size * (block_size(inputs[len(kinds) + 1]) // _outputs(inputs[0].shape, layer))
        ),
    )


# Biases


def _bias_reference(arrays: Arrays, states: int, given: Attributes) -> tuple[np.ndarray, ...]:
    memory, (noise, dy, factors) = [each.astype(np.int64) for each in arrays[: 1 + states]], arrays[1 + states :]
    positions = given["positions"]
    sums = mantissas(dy).reshape(positions, -1).sum(0)
    seed = dither_seed(int(noise), given["salt"])
    for o, total in enumerate(sums):
        factor, exponent = int(factors[HEAD + o]), int(dy[0]) + int(factors[0])
        if positions == 1:
            move = _bias_move(int(total) * factor, exponent, seed)
        else:
            move = _bias_move(int(_product(np.array([total]), factor)[0]), exponent + 15, seed)
        if total or states:
            bias, *velocity = (int(each[o]) for each in memory)
            step = _bias_step(bias, velocity[0] if velocity else None, move, given.get("momentum", 0), seed)
            for each, new in zip(memory, step, strict=True):
                each[o] = new
        seed = (seed + GOLDEN) % 2**32
    return tuple(each.astype(np.int32) for each in memory)


def _bias_shape(states: int) -> Callable[[Sequence[Tensor], Attributes], tuple[Shape, ...]]:
    def shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
        memory, (_, dy, factors) = inputs[: 1 + states], inputs[1 + states :]
        if any(each.dtype != "int32" for each in memory) or len({each.shape for each in memory}) != 1:
            raise ValueError("steps an int32 bias with a velocity of its shape")
        if block_size(dy) != given["positions"] * memory[0].size or block_size(factors) != memory[0].size:
            raise ValueError(f"takes {given['positions'] * memory[0].size} gradients, not {dy.shape}")
        if given["positions"] > MOST_POSITIONS:
            raise ValueError(f"sums {given['positions']} positions; 32 bits hold {MOST_POSITIONS}")
        return tuple(each.shape for each in memory)

    return shape


def _bias(rule: str) -> Op:
    states = 1 if rule == "momentum" else 0

    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        memory, (noise, dy, factors) = node.inputs[: 1 + states], node.inputs[1 + states :]
        given = node.attributes
        momentum = (int(given["momentum"]),) if states else ()
        sizes = (int(given["positions"]), tensors[memory[0]].size)
        return KernelCall(f"mt_{rule}_block_bias", (*memory, dy, factors, noise, int(given["salt"]), *momentum, *sizes))

    return Op(
        name=f"{rule}_block_bias",
        summary=f"{rule} step of an int32 bias in integers, from a block dL/dy (positions, channels)",
        shape=_bias_shape(states),
        reference=lambda inputs, given: _bias_reference(inputs, states, given),
        kernel=kernel,
        header=HEADER,
        dtypes=lambda inputs, _: ("int32",) * (1 + states),
        multiply_adds=lambda inputs, outputs: inputs[2 + states].shape[0] - HEAD,
    )


RULES = ("sgd", "momentum")
OPS = tuple(op for rule in RULES for op in (*(_weight(layer, rule) for layer in _LAYERS), _bias(rule)))
