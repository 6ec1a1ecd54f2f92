"""SGD and momentum on int8 weights and int32 biases, in integers alone, from gradients as blocks (see ``blocks``).

An int8 weight learns in steps of 1/256 of its grid; what is left of it between two grid points is kept beside it, its
``rest`` (error feedback). What is smaller than such a step is handed on to the next weight of the same output channel,
and so no move is lost, however small: its mean over the steps is exact. ``factors`` (channels, 2) bring a product of
gradient and int8 input into steps, learning rate and scales and all: what quantisation-aware scaling (Lin et al.,
On-Device Training Under 256KB Memory, 2022) amounts to. Momentum keeps a velocity in steps for each weight.

Inputs of a weight's update: weight, rest, [velocity,] noise, dL/dy, x, factors; of a bias's: bias, [velocity,] noise,
dL/dy, factors. ``mt_kernels_block_update.h`` gives the same bits.
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

HEADER = "mt_kernels_block_update.h"
STEPS = 256
"""Steps of a weight from one grid point to the next."""
MOST_WEIGHT, MOST_BIAS, MOST_VELOCITY = 127, 2**30 - 1, 2**29 - 1
MOST_MOVE, MOST_FACTOR = 2**30 - 1, 2**22 - 1
MOST_POSITIONS = 2**15
GOLDEN = 0x9E3779B9
MOVE_PLACES, MOMENTUM_PLACES = 16, 15
Arrays = Sequence[np.ndarray]


# Rounding


def dither_seed(noise: int, salt: int) -> int:
    """Where the dither of a tensor begins in this step: ``mt_dither_begin``."""
    h = (noise + salt * GOLDEN) % 2**32
    h ^= h >> 16
    h = h * 0x85EBCA6B % 2**32
    h ^= h >> 13
    h = h * 0xC2B2AE35 % 2**32
    return h ^ (h >> 16)


def _units(factor: np.ndarray, exponent: int, most: int) -> np.ndarray:
    """``mt_block_units``: factor 2^exponent in units of 2^-16."""
    up = exponent + MOVE_PLACES
    if up < 0:
        return np.clip(((factor >> (-up - 1)) + 1) >> 1, -most, most) if up > -31 else np.zeros_like(factor)
    limit = most >> min(up, 31)
    moved = np.clip(factor, -limit, limit) << min(up, 31)
    return np.where(factor > limit, most, np.where(factor < -limit, -most, moved))


def _rounded(moves: np.ndarray, places: int, start: int) -> np.ndarray:
    """moves / 2^places rounded down one after the other, each with what those before it have left of ``start``."""
    sums = start + np.cumsum(moves)
    before = np.concatenate([[start], sums[:-1]])
    return np.asarray((sums >> places) - (before >> places))


def _bias_move(factor: int, exponent: int, seed: int) -> int:
    """``mt_block_bias_move``."""
    if exponent > 0:
        limit = MOST_BIAS >> min(exponent, 30)
        return MOST_BIAS if factor > limit else -MOST_BIAS if factor < -limit else factor << min(exponent, 30)
    if exponent < -30:
        factor, exponent = factor >> (-30 - exponent) if exponent > -60 else 0, -30
    return (factor + ((seed >> 1) >> (31 + exponent))) >> -exponent


def _product(sums: np.ndarray, factor: int) -> np.ndarray:
    return np.asarray((sums >> 15) * factor + (((sums & 0x7FFF) * factor) >> 15))


def _step(
    weight: np.ndarray, rest: np.ndarray, velocity: np.ndarray | None, moves: np.ndarray, seed: int, momentum: int
) -> tuple[np.ndarray, ...]:
    """Weights (flat), rests and velocities of one channel after their moves."""
    if velocity is not None:
        # the clamp of a velocity changes nothing that is handed on
        kept = _rounded(velocity.astype(np.int64) * momentum, MOMENTUM_PLACES, seed & 0x7FFF)
        moves = np.clip(moves + kept, -32767, 32767)
    left = rest.astype(np.int64) - moves
    stays = (left >= -128) & (left <= 127)
    total = np.clip(weight.astype(np.int64) * STEPS + left, -MOST_WEIGHT * STEPS - 128, MOST_WEIGHT * STEPS + 127)
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
    memory, (noise, dy, x, factors) = [each.copy() for each in arrays[: 1 + states]], arrays[1 + states :]
    momentum = given.get("momentum", 0) if states == 2 else 0
    away = _input(x, given)
    seed = dither_seed(int(noise), given["salt"])
    for o, g in enumerate(mantissas(dy)):
        if dy[0] == ZERO and states == 1:
            break
        if g or states == 2:
            mantissa, exponent = (int(each) for each in factors[o])
            factor = _units(np.array([int(g) * mantissa]), int(dy[0]) + exponent, MOST_FACTOR)
            moves = _rounded(factor * away, MOVE_PLACES, seed >> 16)
            rows = [each[o] for each in memory]
            new = _step(rows[0], rows[1], rows[2] if states == 2 else None, moves, seed, momentum)
            for each, row in zip(memory, new, strict=True):
                each[o] = row
        seed = (seed + GOLDEN) % 2**32
    return tuple(memory)


def _conv2d(arrays: Arrays, states: int, given: Attributes) -> tuple[np.ndarray, ...]:
    memory, (noise, dy, x, factors) = [each.copy() for each in arrays[: 1 + states]], arrays[1 + states :]
    if dy[0] == ZERO and states == 1:
        return tuple(memory)
    outputs, *kernel, _ = memory[0].shape
    taps = windows(_input(x, given), kernel, given, 0)
    down = down_for(math.prod(taps.shape[:2]))
    g = mantissas(dy).reshape(*taps.shape[:2], outputs) >> down
    seed = dither_seed(int(noise), given["salt"])
    for o in range(outputs):
        mantissa, exponent = (int(each) for each in factors[o])
        sums = np.einsum("yx,yxcij->ijc", g[..., o], taps).ravel()
        moves = _units(_product(sums, mantissa), int(dy[0]) + exponent + down + 15, MOST_MOVE)
        moves = _rounded(moves, MOVE_PLACES, seed >> 16)
        rows = [each[o].ravel() for each in memory]
        new = _step(rows[0], rows[1], rows[2] if states == 2 else None, moves, seed, given.get("momentum", 0))
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
    g = mantissas(dy).reshape(*taps.shape[:2], outputs) >> down
    sums = np.einsum("yxc,yxcij->ijc", g, taps).ravel()
    seed = dither_seed(int(noise), given["salt"])
    flat = [each.reshape(-1) for each in memory]
    for e, total in enumerate(sums):
        mantissa, exponent = (int(each) for each in factors[e % outputs])
        product = _product(np.array([total]), mantissa)
        moves = _units(product, int(dy[0]) + exponent + down + 15, MOST_MOVE)
        moves = _rounded(moves, MOVE_PLACES, seed >> 16)
        if total or states == 2:
            rows = [each[e : e + 1] for each in flat]
            new = _step(rows[0], rows[1], rows[2] if states == 2 else None, moves, seed, given.get("momentum", 0))
            for each, row in zip(flat, new, strict=True):
                each[e : e + 1] = row
        seed = (seed + GOLDEN) % 2**32
    return tuple(memory)


Reference = Callable[[Arrays, int, Attributes], tuple[np.ndarray, ...]]


def _weight_shape(layer: str, states: int) -> Callable[[Sequence[Tensor], Attributes], tuple[Shape, ...]]:
    def shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
        memory, (_, dy, x, factors) = inputs[: 1 + states], inputs[1 + states :]
        weight = memory[0].shape
        outputs = weight[-1] if layer == "depthwise_conv2d" else weight[0]
        positions = 1
        if layer != "dense":
            kernel = weight[1:3] if layer == "conv2d" else weight[:2]
            positions = math.prod(window_output(x.shape[:2], kernel, given))
        kinds = tuple(each.dtype for each in memory)
        if kinds != ("int8", "int8", "int16")[: 1 + states] or len({each.shape for each in memory}) != 1:
            raise ValueError(f"steps an int8 weight with states of its shape, not {kinds}")
        if block_size(dy) != positions * outputs or factors.shape != (outputs, 2):
            raise ValueError(f"takes {positions * outputs} gradients and {outputs} factors, not {dy.shape}")
        if "taken" in given and not 0 <= given["start"] <= x.shape[-1] - given["taken"]:
            raise ValueError(f"cannot take {given['taken']} channels from {given['start']} on of an input {x.shape}")
        return tuple(each.shape for each in memory)

    return shape


def _weight_kernel(layer: str, rule: str, states: int) -> Callable[[Node, Mapping[str, Tensor]], KernelCall]:
    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        memory, (noise, dy, x, factors) = node.inputs[: 1 + states], node.inputs[1 + states :]
        weight, given = tensors[memory[0]].shape, node.attributes
        outputs = weight[-1] if layer == "depthwise_conv2d" else weight[0]
        momentum = (int(given["momentum"]),) if states == 2 else ()
        taken = () if layer == "depthwise_conv2d" else (int(given["start"]), int(given["taken"]))
        sizes: tuple[int, ...] = (outputs, *taken)
        if layer != "dense":
            shape = tensors[x].shape
            taps = weight[1:3] if layer == "conv2d" else weight[:2]
            y = (*window_output(shape[:2], taps, given), outputs)
            sizes = (*window_sizes(shape, y, taps, given), shape[2], *sizes, down_for(y[0] * y[1]))
        arguments = (*memory, dy, x, factors, noise, int(given["salt"]), *momentum, int(given["x_zero"]), *sizes)
        return KernelCall(f"mt_{rule}_block_{layer}", arguments)

    return kernel


def _weight(layer: str, rule: str, reference: Reference) -> Op:
    states = 2 if rule == "momentum" else 1
    return Op(
        name=f"{rule}_block_{layer}",
        summary=f"{rule} step of an int8 weight of a {layer} layer in integers, from a block dL/dy and int8 x",
        shape=_weight_shape(layer, states),
        reference=lambda inputs, given: reference(inputs, states, given),
        kernel=_weight_kernel(layer, rule, states),
        header=HEADER,
        dtypes=lambda inputs, _: ("int8", "int8", "int16")[: 1 + states],
        multiply_adds=lambda inputs, outputs: (
            inputs[0].size * (block_size(inputs[2 + states]) // inputs[4 + states].shape[0])
        ),
    )


# Biases


def _bias_reference(arrays: Arrays, states: int, given: Attributes) -> tuple[np.ndarray, ...]:
    memory, (noise, dy, factors) = [each.astype(np.int64) for each in arrays[: 1 + states]], arrays[1 + states :]
    positions = given["positions"]
    sums = mantissas(dy).reshape(positions, -1).sum(0)
    seed = dither_seed(int(noise), given["salt"])
    for o, total in enumerate(sums):
        mantissa, exponent = (int(each) for each in factors[o])
        if positions == 1:
            away = _bias_move(int(total) * mantissa, int(dy[0]) + exponent, seed)
        else:
            away = _bias_move(int(_product(np.array([total]), mantissa)[0]), int(dy[0]) + exponent + 15, seed)
        if states:
            old = int(memory[1][o])
            low = (old & 0x7FFF) * given["momentum"] + (seed & 0x7FFF)
            away += (old >> 15) * given["momentum"] + (low >> 15)
            away = max(-MOST_VELOCITY, min(MOST_VELOCITY, away))
            memory[1][o] = away
        if total or states:
            memory[0][o] = max(-MOST_BIAS, min(MOST_BIAS, int(memory[0][o]) - away))
        seed = (seed + GOLDEN) % 2**32
    return tuple(each.astype(np.int32) for each in memory)


def _bias_shape(states: int) -> Callable[[Sequence[Tensor], Attributes], tuple[Shape, ...]]:
    def shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
        memory, (_, dy, factors) = inputs[: 1 + states], inputs[1 + states :]
        if any(each.dtype != "int32" for each in memory) or len({each.shape for each in memory}) != 1:
            raise ValueError("steps an int32 bias with a velocity of its shape")
        if block_size(dy) != given["positions"] * memory[0].size or factors.shape != (memory[0].size, 2):
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


_LAYERS: Mapping[str, Reference] = {"dense": _dense, "conv2d": _conv2d, "depthwise_conv2d": _depthwise}
RULES = ("sgd", "momentum")
OPS = tuple(
    op
    for rule in RULES
    for op in (*(_weight(layer, rule, reference) for layer, reference in _LAYERS.items()), _bias(rule))
)
