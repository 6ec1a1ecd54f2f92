"""Compiled int8 kernels called from Python, and random inputs of every int8 operator."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from microtune.compiler.sources import runtime_directory
from microtune.ir import Node, Tensor
from microtune.ops import OPS, quantized_elementwise, quantized_layers, quantized_pooling
from microtune.ops.quantized_build import activation_quantization, softmax_table
from microtune.toolchain import compile_library

INT8_OPS = {op.name: op for family in (quantized_layers, quantized_elementwise, quantized_pooling) for op in family.OPS}
Inputs = list[np.ndarray]
Attributes = dict[str, Any]
EXTREMES = (-128, -1, 0, 127)


def node_of(op: str, inputs: Sequence[np.ndarray], attributes: Mapping[str, Any]) -> tuple[Node, dict[str, Tensor]]:
    """A node of this operator over inputs of these shapes and types, and its tensors."""
    names = tuple(f"in{index}" for index in range(len(inputs)))
    tensors = {name: Tensor(name, array.shape, str(array.dtype)) for name, array in zip(names, inputs, strict=True)}
    given = list(tensors.values())
    outputs = tuple(f"out{index}" for index in range(OPS[op].count(given, attributes)))
    tensors |= {tensor.name: tensor for tensor in OPS[op].results(outputs, given, attributes)}
    return Node(op, op, names, outputs, attributes), tensors


def _entry(op: str, inputs: Sequence[np.ndarray], attributes: Mapping[str, Any]) -> tuple[str, str]:
    """The kernel's name, and C that calls it with pointers, integers and floats from three arrays."""
    call = OPS[op].kernel(*node_of(op, inputs, attributes))
    assert call is not None
    counts = {str: 0, int: 0, float: 0}
    arguments = []
    for argument in call.arguments:
        kind = type(argument)
        arguments.append({str: "p[{}]", int: "n[{}]", float: "f[{}]"}[kind].format(counts[kind]))
        counts[kind] += 1
    text = (
        f"void call_{call.function}(void **p, const int32_t *n, const float *f);\n"
        f"void call_{call.function}(void **p, const int32_t *n, const float *f)\n"
        f"{{\n    (void)n, (void)f;\n    {call.function}({', '.join(arguments)});\n}}\n"
    )
    return call.function, text


def write_entries(folder: Path) -> Path:
    """A C source with all int8 kernels behind entries of one type."""
    entries = dict(_entry(op, *example) for op in INT8_OPS for example in examples(op))
    headers = sorted({op.header for op in INT8_OPS.values()})
    source = folder / "int8_entries.c"
    source.write_text("".join(f'#include "{header}"\n' for header in headers) + "\n".join(entries.values()))
    return source


def compile_kernels(folder: Path, sanitize: bool) -> ctypes.CDLL:
    """All int8 kernels in one library, under the address and undefined-behaviour sanitizers if wanted."""
    source = write_entries(folder)
    return ctypes.CDLL(str(compile_library([source], [runtime_directory()], folder / "int8.so", sanitize=sanitize)))


def run_kernel(
    library: ctypes.CDLL, op: str, inputs: Sequence[np.ndarray], attributes: Mapping[str, Any], over: int | None = None
) -> np.ndarray:
    """The first output of the compiled kernel. ``over`` is the input whose memory it takes."""
    node, tensors = node_of(op, inputs, attributes)
    call = OPS[op].kernel(node, tensors)
    assert call is not None
    memory = {name: np.array(array, order="C") for name, array in zip(node.inputs, inputs, strict=True)}
    for name in node.outputs:
        memory[name] = np.full(tensors[name].shape, 85, tensors[name].dtype)
    if over is not None:
        memory[node.output] = memory[node.inputs[over]].reshape(tensors[node.output].shape)
    names = [each for each in call.arguments if isinstance(each, str)]
    pointers = (ctypes.c_void_p * len(names))(*(memory[name].ctypes.data for name in names))
    integers = np.array([each for each in call.arguments if isinstance(each, int)], np.int32)
    floats = np.array([each for each in call.arguments if isinstance(each, float)], np.float32)
    function = library[f"call_{call.function}"]
    function.argtypes = [ctypes.c_void_p] * 3
    function.restype = None
    function(ctypes.addressof(pointers), integers.ctypes.data, floats.ctypes.data)
    return memory[node.output]


def sanitized() -> bool:
    """Whether this Python was started to test under the sanitizers."""
    return os.environ.get("MICROTUNE_SANITIZED") == "1"


# --- random inputs -----------------------------------------------------------------------------------------------

Draw = Callable[[Any], Any]


def _numbers(draw: Draw) -> np.random.Generator:
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


def _values(random: np.random.Generator, *shape: int) -> np.ndarray:
    """int8 of any value, extremes often."""
    values = random.integers(-128, 128, shape)
    return np.where(random.random(shape) < 0.2, random.choice(EXTREMES, shape), values).astype(np.int8)


def _zero(draw: Draw) -> int:
    return int(draw(st.sampled_from(EXTREMES) | st.integers(-128, 127)))


def _limits(draw: Draw) -> Attributes:
    low, high = sorted((draw(st.integers(-128, 127)), draw(st.integers(-128, 127))))
    low, high = draw(st.sampled_from([(-128, 127), (low, high)]))
    return {"low": low, "high": high}


def _factors(random: np.random.Generator, draw: Draw, size: int, usual: int) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers and shifts: near ``usual``, where results are neither all zero nor all saturated, or any."""
    multiplier = random.integers(2**30, 2**31, size)
    multiplier = np.where(random.random(size) < 0.1, random.choice([0, 2**30, 2**31 - 1], size), multiplier)
    if draw(st.integers(0, 3)):
        return multiplier.astype(np.int32), random.integers(usual - 3, usual + 3, size).astype(np.int8)
    return multiplier.astype(np.int32), random.integers(-31, 31, size).astype(np.int8)


def _window(draw: Draw, most: int = 4) -> tuple[tuple[int, int], tuple[int, int], Attributes]:
    """Image, window, and attributes stride and padding that fit them."""
    size, taps, stride, padding = [], [], [], []
    for _ in range(2):
        taps.append(draw(st.integers(1, most)))
        before, after = draw(st.integers(0, taps[-1] - 1)), draw(st.integers(0, taps[-1] - 1))
        size.append(draw(st.integers(max(1, taps[-1] - before - after), 9)))
        stride.append(draw(st.sampled_from([1, 1, 2, 3])))
        padding.append((before, after))
    geometry = {"stride": tuple(stride), "padding": tuple(padding)}
    return (size[0], size[1]), (taps[0], taps[1]), geometry


def _layer(draw: Draw, random: np.random.Generator, outputs: int, terms: int) -> tuple[Inputs, Attributes]:
    """Bias, multiplier, shift and attributes."""
    reach = draw(st.sampled_from([1000, 1000, 2**31 - 1]))
    bias = random.integers(-reach - 1, reach + 1, outputs).astype(np.int32)
    usual = -7 - int(np.log2(terms) / 2)
    constants = [bias, *_factors(random, draw, outputs, usual)]
    return constants, {"x_zero": _zero(draw), "y_zero": _zero(draw), **_limits(draw)}


def _learnt(draw: Draw, random: np.random.Generator, weight: np.ndarray, given: Attributes) -> Inputs:
    """Sometimes a sixth input for some of the input channels."""
    channels = weight.shape[-1]
    if not draw(st.booleans()):
        return []
    count = draw(st.integers(1, channels))
    given["start"] = draw(st.integers(0, channels - count))
    return [_values(random, *weight.shape[:-1], count)]


def draw_inputs(op: str, draw: Draw) -> tuple[Inputs, Attributes]:
    """Inputs and attributes of an int8 operator: odd sizes, uneven strides and paddings, extreme numbers."""
    random = _numbers(draw)
    channels = draw(st.sampled_from([1, 3, 4, 15, 16, 17, 35]) | st.integers(1, 40))
    if op in ("conv2d_int8", "depthwise_conv2d_int8"):
        size, taps, geometry = _window(draw, draw(st.sampled_from([4, 4, 4, 9])))
        if op == "conv2d_int8":
            outputs = draw(st.integers(1, 9) | st.sampled_from([17, 34]))
            weight = _values(random, outputs, *taps, channels)
            terms = taps[0] * taps[1] * channels
        else:
            if draw(st.booleans()):  # a geometry that keeps the size
                geometry = {"stride": (1, 1), "padding": tuple(((n - 1) // 2, n // 2) for n in taps)}
            elif draw(st.booleans()):  # another that keeps the number of bytes
                size, taps = (2 * size[0], 2 * size[1]), (2, 2)
                geometry = {"stride": (2, 2), "padding": ((0, 0), (0, 0))}
            outputs = channels * draw(st.sampled_from([1, 2, 3, 4]))
            weight, terms = _values(random, *taps, outputs), taps[0] * taps[1]
        constants, given = _layer(draw, random, outputs, terms)
        given |= geometry
        learnt = _learnt(draw, random, weight, given) if op == "conv2d_int8" else []
        return [_values(random, *size, channels), weight, *constants, *learnt], given
    if op == "dense_int8":
        weight = _values(random, draw(st.integers(1, 9)), draw(st.integers(1, 300)))
        constants, given = _layer(draw, random, *weight.shape)
        return [_values(random, weight.shape[1]), weight, *constants, *_learnt(draw, random, weight, given)], given
    if op in ("average_pool2d_int8", "max_pool2d_int8"):
        size, taps, geometry = _window(draw, 5)
        return [_values(random, *size, channels)], {"kernel": taps, **geometry, **_limits(draw)}
    if op == "global_average_int8":
        shape = draw(st.sampled_from([(1,), (7,), (3, 5), (9, 9), (200,)]))
        multiplier, shift = _factors(random, draw, 1, -int(np.log2(np.prod(shape))))
        given = {"x_zero": _zero(draw), "y_zero": _zero(draw), **_limits(draw)}
        return [_values(random, *shape, channels)], {
            **given, "y_multiplier": int(multiplier[0]), "y_shift": int(shift[0])
        }  # fmt: skip
    shape = draw(st.sampled_from([(channels,), (3, channels), (2, 5, channels)]))
    if op == "quantize":
        scale = float(np.float32(draw(st.sampled_from([0.25, 0.1, 3.7e-5, 911.0]))))
        # halves and their neighbours, where roundings differ
        x = (random.integers(-300, 300, shape) / 2 * scale).astype(np.float32)
        x = np.nextafter(x, random.choice([-np.inf, 0, np.inf], shape).astype(np.float32))
        special = random.choice([np.nan, np.inf, -np.inf, -0.0, 3e38, 1e-40], shape)
        x = np.where(random.random(shape) < 0.1, special, x).astype(np.float32)
        return [x], {"scale": scale, "zero_point": _zero(draw)}
    x = _values(random, *shape)
    if op == "dequantize":
        return [x], {"scale": float(np.float32(random.uniform(1e-3, 1))), "zero_point": _zero(draw)}
    if op == "softmax_int8":
        scale = draw(st.sampled_from([1e-4, 0.004, 0.1, 2.0, 1e4]))
        return [x, softmax_table(activation_quantization(scale, 0))], {}
    if op == "lookup_int8":
        return [x, _values(random, 256)], {}
    zeros = {name: _zero(draw) for name in ("a_zero", "b_zero", "y_zero")}
    y_multiplier, y_shift = _factors(random, draw, 1, -7 if op == "multiply_int8" else -19)
    given = {**zeros, "y_multiplier": int(y_multiplier[0]), "y_shift": int(y_shift[0]), **_limits(draw)}
    if op == "add_int8":
        given["left_shift"] = draw(st.sampled_from([20, 20, 0, 21]))
        for name in "ab":
            multiplier, _ = _factors(random, draw, 1, -2)
            given |= {f"{name}_multiplier": int(multiplier[0]), f"{name}_shift": draw(st.integers(-5, 0))}
    return [x, _values(random, *shape)], given


def examples(op: str) -> list[tuple[Inputs, Attributes]]:
    """Inputs that reach every kernel of an operator."""
    i8, i32 = np.int8, np.int32
    limits = {"x_zero": 0, "y_zero": 0, "low": -128, "high": 127}
    geometry = {"stride": (1, 1), "padding": ((0, 0), (0, 0))}
    layer = [np.zeros(1, i32), np.zeros(1, i32), np.zeros(1, i8)]
    if op == "conv2d_int8":
        given = {**limits, **geometry, "start": 0}
        inputs = [np.zeros((1, 1, 1), i8), np.zeros((1, 1, 1, 1), i8), *layer]
        return [(inputs, given), ([*inputs, inputs[1]], given)]
    if op == "dense_int8":
        inputs = [np.zeros(1, i8), np.zeros((1, 1), i8), *layer]
        return [(inputs, limits), ([*inputs, inputs[1]], {**limits, "start": 0})]
    if op == "depthwise_conv2d_int8":
        weight = np.zeros((1, 1, 1), i8)
        wide = [np.zeros(4, i32), np.zeros(4, i32), np.zeros(4, i8)]
        halved = {**limits, **geometry, "stride": (2, 2)}
        return [
            ([np.zeros((3, 3, 1), i8), weight, *layer], {**limits, **geometry}),
            ([np.zeros((3, 3, 1), i8), weight, *layer], halved),
            ([np.zeros((2, 2, 1), i8), np.zeros((1, 1, 4), i8), *wide], halved),
        ]
    image = np.zeros((1, 1, 1), i8)
    if op in ("average_pool2d_int8", "max_pool2d_int8"):
        return [([image], {**limits, **geometry, "kernel": (1, 1)})]
    numbers = dict.fromkeys(
        [
            "a_zero", "b_zero", "left_shift", "a_multiplier", "a_shift", "b_multiplier", "b_shift", "y_multiplier",
            "y_shift", "zero_point",
        ],
        0,
    )  # fmt: skip
    given = {**limits, **numbers, "scale": 1.0}
    inputs = {
        "quantize": [np.zeros(1, np.float32)], "dequantize": [image], "global_average_int8": [image],
        "softmax_int8": [image, np.zeros(256, np.float32)], "lookup_int8": [image, np.zeros(256, i8)],
    }  # fmt: skip
    return [(inputs.get(op, [image, image]), given)]
