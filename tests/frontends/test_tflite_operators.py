"""Must hold: element-wise operators, activations and layout of a .tflite file compute what LiteRT computes.

int8 results equal LiteRT's usual kernels. Float: two roundings of numbers below 32 for arithmetic, a few units of the
last place for functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.frontends.tflite_cases import (
    SIGMOID,
    SOFTMAX,
    TANH,
    UNIT,
    Net,
    add_constant,
    compare,
    dense,
    every_kind,
    execute,
    execute_compiled,
    load_bytes,
    window,
)
from tests.ops.tflite_models import ACTIVATION, ModelBuilder, run

SETTINGS = settings(max_examples=25, deadline=None)
DTYPES = st.sampled_from(["float32", "int8"])
KINDS = st.sampled_from(["none", "relu", "relu6", "relu_n1_to_1"])
GENERATORS = st.integers(0, 2**32 - 1).map(np.random.default_rng)
SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(lambda sample: (1, *sample))
ARITHMETIC = 4 * UNIT * 32
FUNCTION = 2e-6  # LiteRT's own exp and tanh are approximations good to a few units


@SETTINGS
@given(SHAPES, DTYPES, GENERATORS, KINDS, st.sampled_from(["all", "channels", "one"]))
@pytest.mark.parametrize("code", ["ADD", "MUL", "SUB"])
def test_arithmetic_with_a_constant(
    code: str, shape: tuple[int, ...], dtype: str, random: np.random.Generator, kind: str, spread: str
) -> None:
    if code == "SUB":
        dtype = "float32"
    net = Net(shape, dtype, random)
    sizes = {"all": shape, "channels": shape[-1:], "one": ()}[spread]
    add_constant(net, code, np.clip(random.normal(size=sizes), -2, 2), kind)
    compare(net, ARITHMETIC)


@SETTINGS
@given(SHAPES, DTYPES, GENERATORS, KINDS, st.booleans())
@pytest.mark.parametrize("code", ["ADD", "MUL", "SUB"])
def test_arithmetic_of_two_values(
    code: str, shape: tuple[int, ...], dtype: str, random: np.random.Generator, kind: str, first: bool
) -> None:
    """The input with itself, clipped."""
    if code == "SUB":
        dtype = "float32"
    net = Net(shape, dtype, random)
    x = net.at
    net.emit("RELU6", [], shape, quantization=(0.03, -5))
    net.emit(
        code, [x], shape, f"{code.title()}Options", (0.08, 7), first, fusedActivationFunction=ACTIVATION[kind]
    )  # fmt: skip
    compare(net, ARITHMETIC)


@pytest.mark.parametrize("code", ["ADD", "MUL", "SUB"])
def test_one_number_per_channel_of_a_float_value(code: str) -> None:
    """A squeeze-and-excitation block scales channels."""
    net = Net((1, 5, 4, 6), "float32", np.random.default_rng(1))
    x = net.at
    axes = net.constant(np.array([1, 2], np.int32))
    net.emit("MEAN", [axes], (1, 1, 1, 6), "ReducerOptions", keepDims=True)
    net.emit(code, [x], (1, 5, 4, 6), f"{code.title()}Options", first=False)
    compare(net, ARITHMETIC)


@SETTINGS
@given(SHAPES, GENERATORS, st.sampled_from([0.01, 0.05, 0.2]), st.integers(-128, 127))
@pytest.mark.parametrize(
    ("code", "options", "given"),
    [
        ("RELU", None, {}),
        ("RELU6", None, {}),
        ("RELU_N1_TO_1", None, {}),
        ("LEAKY_RELU", "LeakyReluOptions", {"alpha": 0.25}),
        ("HARD_SWISH", None, {}),
        ("LOGISTIC", None, {}),
        ("TANH", None, {}),
        ("QUANTIZE", None, {}),
    ],
)
def test_activations(
    code: str, options: str | None, given: dict[str, Any], shape: tuple[int, ...], random: np.random.Generator,
    scale: float, zero: int,
) -> None:  # fmt: skip
    for dtype in ("int8",) if code == "QUANTIZE" else ("float32", "int8"):
        net = Net(shape, dtype, random)
        fixed = {"LOGISTIC": SIGMOID, "TANH": TANH}
        if code == "RELU_N1_TO_1" and dtype == "int8":
            fixed[code] = (net.scale, net.zero)  # LiteRT's kernel keeps the scale
        net.emit(code, [], shape, options, fixed.get(code, (scale, zero)), **given)
        # QUANTIZE rounds once in the usual kernels, twice in the plain ones, which we follow
        compare(net, FUNCTION, plain=code == "QUANTIZE")


@SETTINGS
@given(st.integers(1, 20), DTYPES, GENERATORS, st.sampled_from([0.5, 1.0, 2.0]), st.booleans())
def test_softmax(size: int, dtype: str, random: np.random.Generator, beta: float, deep: bool) -> None:
    shape = (1, 1, 1, size) if deep else (1, size)
    net = Net(shape, dtype, random)
    compare(net.emit("SOFTMAX", [], shape, "SoftmaxOptions", SOFTMAX, beta=beta), FUNCTION, plain=False)


def test_quantize_and_dequantize_at_the_doors() -> None:
    """The usual int8 file: float input and output, int8 between."""
    net = Net((1, 6), "float32", np.random.default_rng(2))
    net.dtype = "int8"
    net.emit("QUANTIZE", [], (1, 6))
    dense(net, 4, "relu")
    net.dtype = "float32"
    net.emit("DEQUANTIZE", [], (1, 4))
    model = net.finish()
    graph, x = load_bytes(model), net.sample(20)
    assert [node.op for node in graph.nodes] == ["quantize", "dense_int8", "dequantize"]
    expected = np.concatenate([run(model, [row[None]])[0] for row in x])
    np.testing.assert_array_equal(execute(graph, x), expected)


@SETTINGS
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), DTYPES, GENERATORS, st.data())
def test_transpose(sample: list[int], dtype: str, random: np.random.Generator, data: st.DataObject) -> None:
    order = [0, *data.draw(st.permutations(range(1, len(sample) + 1)))]
    net = Net((1, *sample), dtype, random)
    shape = [net.shape[axis] for axis in order]
    compare(net.emit("TRANSPOSE", [net.constant(np.array(order, np.int32))], shape, "TransposeOptions"))


@SETTINGS
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=3), DTYPES,
    GENERATORS, st.booleans(),
)  # fmt: skip
def test_pad(axes: list[tuple[int, int, int]], dtype: str, random: np.random.Generator, own_value: bool) -> None:
    net = Net((1, *(size for size, _, _ in axes)), dtype, random)
    amounts = np.array([(0, 0), *((before, after) for _, before, after in axes)], np.int32)
    shape = [int(size + pair.sum()) for size, pair in zip(net.shape, amounts, strict=True)]
    others = [net.constant(amounts)]
    if own_value:
        quantization = {"scale": net.scale, "zero_point": net.zero} if dtype == "int8" else {}
        others.append(net.constant(np.array([-3], dtype), **quantization))
    compare(net.emit("PADV2" if own_value else "PAD", others, shape, "PadV2Options" if own_value else "PadOptions"))


@SETTINGS
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), DTYPES, GENERATORS, st.data())
def test_concatenation(sample: list[int], dtype: str, random: np.random.Generator, data: st.DataObject) -> None:
    """The input, the input and a constant, along any axis but the first."""
    net = Net((1, *sample), dtype, random)
    axis, third = data.draw(st.integers(1, len(sample))), data.draw(st.integers(1, 3))
    size = list(net.shape)
    size[axis] = third
    quantization = {"scale": net.scale, "zero_point": net.zero} if dtype == "int8" else {}
    other = net.constant(random.integers(-128, 128, size).astype(dtype), **quantization)
    size[axis] = 2 * net.shape[axis] + third
    signed = axis - len(size) if data.draw(st.booleans()) else axis
    compare(net.emit("CONCATENATION", [net.at, other], size, "ConcatenationOptions", axis=signed))


@SETTINGS
@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), DTYPES, GENERATORS, st.data())
def test_slice(sample: list[int], dtype: str, random: np.random.Generator, data: st.DataObject) -> None:
    net = Net((1, *sample), dtype, random).emit("RELU", [], (1, *sample))
    starts = [0, *(data.draw(st.integers(0, length - 1)) for length in sample)]
    stops = [1, *(data.draw(st.integers(start + 1, length)) for start, length in zip(starts[1:], sample, strict=True))]
    shape = [stop - start for start, stop in zip(starts, stops, strict=True)]
    if data.draw(st.booleans()):
        rest = [-1 if stop == length else size for stop, length, size in zip(stops, net.shape, shape, strict=True)]
        constants = [net.constant(np.array(each, np.int32)) for each in (starts, rest)]
        compare(net.emit("SLICE", constants, shape, "SliceOptions"))
        return
    shrink = data.draw(st.lists(st.integers(1, len(sample)), unique=True, max_size=len(sample) - 1))
    stops = [
        start + 1 if axis in shrink else stop for axis, (start, stop) in enumerate(zip(starts, stops, strict=True))
    ]
    shape = [stop - start for axis, (start, stop) in enumerate(zip(starts, stops, strict=True)) if axis not in shrink]
    begin_mask = sum(1 << axis for axis, start in enumerate(starts) if start == 0 and axis not in shrink)
    end_mask = sum(
        1 << axis for axis, (stop, size) in enumerate(zip(stops, net.shape, strict=True))
        if stop == size and axis not in shrink
    )  # fmt: skip
    negative = [start - size if axis not in shrink and start else start
                for axis, (start, size) in enumerate(zip(starts, net.shape, strict=True))]  # fmt: skip
    constants = [net.constant(np.array(each, np.int32)) for each in (negative, stops, [1] * len(starts))]
    net.emit(
        "STRIDED_SLICE", constants, shape, "StridedSliceOptions", beginMask=begin_mask, endMask=end_mask,
        shrinkAxisMask=sum(1 << axis for axis in shrink),
    )  # fmt: skip
    compare(net)


@SETTINGS
@given(st.integers(1, 3), st.integers(1, 3), DTYPES, GENERATORS)
def test_split(parts: int, size: int, dtype: str, random: np.random.Generator) -> None:
    """Channels in equal parts, put together the other way round."""
    net = Net((1, 3, parts * size), dtype, random).emit("RELU", [], (1, 3, parts * size))
    found = [net.builder.tensor(f"part{i}", (1, 3, size), dtype, *net._own()) for i in range(parts)]
    net.builder.operator("SPLIT", [net.constant(np.array(2, np.int32)), net.at], found, "SplitOptions", numSplits=parts)
    net.at = found[-1]
    compare(net.emit("CONCATENATION", found[-2::-1], (1, 3, parts * size), "ConcatenationOptions", axis=2))


@pytest.mark.parametrize("index_type", ["int32", "float32"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_embedding(index_type: str, dtype: str) -> None:
    """Integers, or float numbers cast to them, pick rows of a table; their mean is classified."""
    random = np.random.default_rng(6)
    net = Net((1, 5), "float32", random)
    net.builder = ModelBuilder()
    net.at = net.builder.input("words", (1, 5), index_type)
    if index_type == "float32":
        cast = net.builder.tensor("cast", (1, 5), "int32")
        net.builder.operator("CAST", [net.at], [cast], "CastOptions", inDataType=0, outDataType=2)
        net.at = cast
    net.dtype = dtype
    table = random.integers(-127, 128, (7, 3)).astype(np.int8)
    quantization = {"scale": net.scale, "zero_point": net.zero} if dtype == "int8" else {}
    given = net.constant(table if dtype == "int8" else table.astype(np.float32), **quantization)
    net.emit("GATHER", [given], (1, 5, 3), "GatherOptions", first=False, axis=0)
    net.emit("RESHAPE", [net.constant(np.array([1, 15], np.int32))], (1, 15), "ReshapeOptions")
    model = net.finish()
    graph = load_bytes(model)
    words = random.integers(0, 7, (4, 5))
    expected = np.concatenate([run(model, [row[None]])[0] for row in words])
    np.testing.assert_array_equal(execute(graph, words.astype(np.float32)), expected)


def test_a_shape_computed_in_the_model() -> None:
    """Keras writes SHAPE, STRIDED_SLICE and PACK before a RESHAPE where the batch size is open."""
    net = Net((1, 4, 6), "float32", np.random.default_rng(7))
    build = net.builder
    shape, batch, packed = (
        build.tensor("s", (3,), "int32"),
        build.tensor("b", (), "int32"),
        build.tensor("p", (2,), "int32"),
    )
    build.operator("SHAPE", [net.at], [shape], "ShapeOptions", outType=2)
    bounds = [net.constant(np.array([value], np.int32)) for value in (0, 1, 1)]
    build.operator("STRIDED_SLICE", [shape, *bounds], [batch], "StridedSliceOptions", shrinkAxisMask=1)
    build.operator("PACK", [batch, net.constant(np.array(24, np.int32))], [packed], "PackOptions", valuesCount=2)
    net.emit("RESHAPE", [packed], (1, 24), "ReshapeOptions")
    assert [node.op for node in compare(net).nodes] == ["reshape"]


def test_batches_in_the_file() -> None:
    """A file made for four samples at once serves a device that sees one."""
    net = Net((4, 6, 5, 2), "float32", np.random.default_rng(8))
    window(net, "CONV_2D", (3, 3), (1, 1), "SAME", 3)
    net.emit("RESHAPE", [net.constant(np.array([4, 90], np.int32))], (4, 90), "ReshapeOptions")
    dense(net, 2)
    model, x = net.finish(), net.sample(4)
    np.testing.assert_allclose(execute(load_bytes(model), x), run(model, [x])[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_every_kind_of_operator_in_c(dtype: str) -> None:
    """Values stay below 32; five layers, of which the dense ones and convolutions may each double an error."""
    compare(every_kind(dtype), 4 * ARITHMETIC, steps=1, run_graph=execute_compiled)
