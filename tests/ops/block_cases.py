"""Random inputs of every operator on blocks, of losses and of updates in integers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from microtune.ops import OPS, block_gradients, block_layers, block_output, block_products, block_update
from microtune.ops.block_layers import average_divisors, fold_for
from microtune.ops.blocks import HEAD, ZERO, block_of, factors_of, write
from microtune.ops.fixed_point import quantize_multipliers
from microtune.ops.window import window_output

FAMILIES = (block_output, block_gradients, block_layers, block_update, block_products)
BLOCK_OPS = {op.name: op for family in FAMILIES for op in family.OPS}
Case = tuple[list[np.ndarray], dict[str, Any]]
Random = np.random.Generator


def int8(random: Random, *shape: int) -> np.ndarray:
    """Of any value, extremes often."""
    values = random.integers(-128, 128, shape)
    return np.where(random.random(shape) < 0.2, random.choice([-128, -1, 0, 127], shape), values).astype(np.int8)


def block(random: Random, size: int, exponent: int | None = None) -> np.ndarray:
    """With its largest mantissa at the top or not, zeros often, all zero at times."""
    kind = random.integers(0, 8)
    if kind == 0:
        return write(np.zeros(size), 0)
    values = random.integers(-32768, 32768, size) >> random.integers(0, 14, size)
    values = np.where(random.random(size) < 0.3, 0, values)
    found = np.zeros(HEAD + size, np.int16)
    found[0] = random.integers(-60, 20) if exponent is None else exponent
    found[HEAD:] = np.where(random.random(size) < 0.05, random.choice([-32768, 32767], size), values)
    if not found[HEAD:].any():
        found[0] = ZERO
    return found


def fixed(random: Random, *shape: int) -> np.ndarray:
    """Q16.16 of every size."""
    values = random.integers(-(2**31), 2**31, shape) >> random.integers(0, 31, shape)
    return np.where(random.random(shape) < 0.05, random.choice([-(2**31), 2**31 - 1], shape), values).astype(np.int32)


def window(random: Random) -> tuple[tuple[int, int], tuple[int, int], dict[str, Any]]:
    """Image, window, and attributes stride and padding that fit them."""
    size, taps, stride, padding = [], [], [], []
    for _ in range(2):
        taps.append(int(random.integers(1, 5)))
        before, after = (int(random.integers(0, taps[-1])) for _ in range(2))
        size.append(int(random.integers(max(1, taps[-1] - before - after), 10)))
        stride.append(int(random.choice([1, 1, 2, 3])))
        padding.append((before, after))
    return (size[0], size[1]), (taps[0], taps[1]), {"stride": tuple(stride), "padding": tuple(padding)}


def limits(random: Random) -> dict[str, int]:
    low, high = sorted(int(each) for each in random.integers(-128, 128, 2))
    return {"low": low, "high": high} if random.integers(0, 2) else {"low": -128, "high": 127}


def _logits(random: Random) -> Case:
    inputs, outputs = int(random.integers(1, 40)), int(random.integers(1, 7))
    multiplier, shift = quantize_multipliers(2.0 ** random.uniform(-12, 8, outputs))
    bias = (random.integers(-(2**31), 2**31, outputs) >> random.integers(0, 30, outputs)).astype(np.int32)
    arrays = [int8(random, inputs), int8(random, outputs, inputs), bias, multiplier, shift]
    given = {"x_zero": int(random.integers(-128, 128))}
    if random.integers(0, 2):
        taken = int(random.integers(1, inputs + 1))
        arrays.append(int8(random, outputs, taken))
        given["start"] = int(random.integers(0, inputs - taken + 1))
    return arrays, given


def _from_int8(random: Random) -> Case:
    multiplier, shift = quantize_multipliers(2.0 ** random.uniform(-10, 28))
    given = {"multiplier": int(multiplier), "shift": int(shift), "zero_point": int(random.integers(-128, 128))}
    return [int8(random, 3, int(random.integers(1, 9)))], given


def _loss(random: Random, name: str) -> Case:
    size = int(random.integers(1, 40))
    y = fixed(random, size) if random.integers(0, 3) else random.integers(-(2**19), 2**19, size).astype(np.int32)
    if name.startswith("cross"):
        return [y, np.array([random.integers(0, size) << 16], np.int32)], {}
    if name.startswith("binary"):
        return [y, random.choice([0, 65536, 30000], size).astype(np.int32)], {}
    t = fixed(random, size) if random.integers(0, 3) else y + random.integers(-1000, 1000, size).astype(np.int32)
    return [y, t], {"delta": int(random.choice([1, 65536, 2**20]))} if name.startswith("huber") else {}


def _elementwise(random: Random, name: str) -> Case:
    size = int(random.integers(1, 70))
    dy, x = block(random, size), int8(random, size)
    match name:
        case "block_inside_grad":
            return [dy, x], limits(random)
        case "block_saturation_grad":
            return [dy, np.packbits(random.integers(0, 2, size).astype(bool), bitorder="little").view(np.int8)], {}
        case "block_add":
            return [dy, block(random, size)], {}
        case "block_scale":
            return [dy, np.int32(random.integers(2, 65537))], {}
        case "block_lookup_grad":
            return [dy, x, block(random, 256)], {}
        case _:
            exponent, _, factor = (int(each) for each in block_of([2.0 ** random.uniform(-12, 2)]))
            return [dy, x], {"factor": factor, "exponent": exponent, "zero_point": int(random.integers(-128, 128))}


def _rows(random: Random) -> Case:
    rows, width, taken = (int(each) for each in random.integers(1, 9, 3))
    return [block(random, rows * width)], {
        "rows": rows, "given": width, "taken": taken, "start": int(random.integers(-taken, width + 1)),
    }  # fmt: skip


def _transpose(random: Random) -> Case:
    shape = tuple(int(each) for each in random.integers(1, 5, random.integers(1, 5)))
    order = tuple(int(each) for each in random.permutation(len(shape)))
    return [block(random, math.prod(shape))], {"shape": shape, "permutation": order}


def _layer(random: Random, name: str) -> Case:
    channels = int(random.integers(1, 20))
    given: dict[str, Any] = {}
    positions = 1
    if name.startswith("dense"):
        outputs = int(random.integers(1, 40)) if random.integers(0, 3) else 1
        weight, terms = int8(random, outputs, channels), outputs
    else:
        size, taps, given = window(random)
        given["input_shape"] = (*size, channels)
        positions = math.prod(window_output(size, taps, given))
        if name.startswith("conv2d"):
            outputs = int(random.integers(1, 9))
            weight, terms = int8(random, outputs, *taps, channels), outputs * math.prod(taps)
        else:
            each = int(random.integers(1, 4))
            outputs = channels * each
            weight, terms = int8(random, *taps, outputs), each * math.prod(taps)
    given["fold"] = fold_for(terms)
    arrays = [block(random, positions * outputs), weight, block_of(random.uniform(0.1, 1, outputs))]
    if "inside" in name:
        arrays.append(int8(random, channels))
        given |= limits(random)
    if "learnt" in name:
        taken = int(random.integers(1, channels + 1))
        given["start"] = int(random.integers(0, channels - taken + 1))
        arrays.append(int8(random, *weight.shape[:-1], taken))
    return arrays, given


def _pool(random: Random, name: str) -> Case:
    channels = int(random.integers(1, 6))
    if name.startswith("global"):
        return [block(random, channels)], {"positions": int(random.integers(1, 50)), "channels": channels}
    size, taps, given = window(random)
    given |= {"kernel": taps, "input_shape": (*size, channels)}
    dy = block(random, math.prod(window_output(size, taps, given)) * channels)
    if name.startswith("average"):
        return [dy, average_divisors(taps)], given
    return [dy, int8(random, *size, channels)], given | limits(random)


def _update(random: Random, name: str) -> Case:
    rule, _, layer = name.partition("_block_")
    given: dict[str, Any] = {"salt": int(random.integers(0, 2**31))}
    if rule == "momentum":
        given["momentum"] = int(random.integers(0, 32768))
    noise = np.array(random.integers(-(2**31), 2**31), np.int32)
    # from moves of nearly nothing to moves beyond all limits
    size, exponent = random.uniform(-30, 30), int(random.integers(-40, 0))

    def factors(outputs: int) -> np.ndarray:
        return factors_of(2.0 ** (size + random.uniform(-4, 4, outputs)))

    def bias(outputs: int) -> list[np.ndarray]:
        """With a velocity where there is one."""
        found = [(random.integers(-(2**30) + 1, 2**30, outputs) >> random.integers(0, 25)).astype(np.int32)]
        if rule == "momentum":
            found.append((random.integers(-(2**29) + 1, 2**29, outputs) >> random.integers(0, 29)).astype(np.int32))
        return found

    if layer == "bias":
        positions, outputs = int(random.choice([1, 1, 30])), int(random.integers(1, 9))
        dy = block(random, positions * outputs, exponent)
        return [*bias(outputs), noise, dy, factors(outputs)], given | {"positions": positions}
    channels = int(random.integers(1, 20))
    given["x_zero"] = int(random.integers(-128, 128))
    taken = int(random.integers(1, channels + 1))
    part = {"taken": taken, "start": int(random.integers(0, channels - taken + 1))}
    if layer.startswith("dense"):
        outputs, positions = int(random.integers(1, 9)), 1
        x, weight = int8(random, channels), (outputs, taken)
        given |= part
    else:
        image, taps, geometry = window(random)
        if random.integers(0, 6) == 0:
            # so many positions that their gradients lose digits before they are summed
            image, taps, geometry = (15, 14), (2, 1), {"stride": (1, 1), "padding": ((1, 0), (0, 0))}
        given |= geometry
        positions = math.prod(window_output(image, taps, geometry))
        x = int8(random, *image, channels)
        if layer == "conv2d":
            outputs = int(random.integers(1, 6))
            weight = (outputs, *taps, taken)
            given |= part
        else:
            outputs = channels * int(random.integers(1, 3))
            weight = (*taps, outputs)
    memory = [int8(random, *weight), int8(random, *weight)]
    if rule == "momentum":
        memory.append((random.integers(-32768, 32768, weight) >> random.integers(0, 15)).astype(np.int16))
    all_factors = [factors(outputs)]
    if layer == "dense_bias":
        memory += bias(outputs)
        all_factors.append(factors(outputs))
    return [*memory, noise, block(random, positions * outputs, exponent), x, *all_factors], given


def _product(random: Random, name: str) -> Case:
    """Products of two sums, and of gains and weights: any bytes, gradients of nearly nothing to beyond all limits."""
    if name == "multiply_fixed":
        return [fixed(random, 2, 3), fixed(random, 2, 3)], {}
    if name == "block_multiply_fixed_grad":
        size = int(random.integers(1, 9))
        return [block(random, size), fixed(random, size) * (random.integers(0, 4) > 0)], {}
    size, start, behind = int(random.integers(1, 40)), int(random.integers(0, 4)), int(random.integers(0, 4))
    given: dict[str, Any] = {"x_zero": int(random.integers(-128, 128)), "start": start}
    x, weight, gain = int8(random, start + size + behind), int8(random, 1, size), int8(random, size)
    if name == "gained_int8_logits":
        multiplier, shift = quantize_multipliers(2.0 ** random.uniform(-20, 4, 1))
        bias = (random.integers(-(2**31), 2**31, 1) >> random.integers(0, 30)).astype(np.int32)
        return [x, weight, gain, bias, multiplier, shift], given
    given["salt"] = int(random.integers(0, 2**31))
    states = [[weight, int8(random, 1, size)], [gain, int8(random, size)]]
    if name.startswith("momentum"):
        given["momentum"] = int(random.integers(0, 32768))
        for each in states:
            each.append((random.integers(-32768, 32768, each[0].shape) >> random.integers(0, 15)).astype(np.int16))
    noise = np.array(random.integers(-(2**31), 2**31), np.int32)
    dy = block(random, 1, int(random.integers(-40, 0)))
    factors = [factors_of([2.0 ** random.uniform(-30, 30)]) for _ in range(2)]
    return [*states[0], *states[1], noise, dy, x, *factors], given


def case(name: str, seed: int) -> Case:
    """Inputs and attributes of an operator."""
    random = np.random.default_rng(seed)
    op = OPS[name]
    builders: list[tuple[bool, Callable[[], Case]]] = [
        (name == "dense_int8_logits", lambda: _logits(random)),
        (name == "fixed_from_int8", lambda: _from_int8(random)),
        (op in block_output.OPS, lambda: _loss(random, name)),
        (name == "block_rows", lambda: _rows(random)),
        (name == "block_transpose", lambda: _transpose(random)),
        (op in block_gradients.OPS, lambda: _elementwise(random, name)),
        (op in block_products.OPS, lambda: _product(random, name)),
        (op in block_update.OPS, lambda: _update(random, name)),
        ("pool" in name or "global" in name, lambda: _pool(random, name)),
    ]
    return next((build() for fits, build in builders if fits), None) or _layer(random, name)
