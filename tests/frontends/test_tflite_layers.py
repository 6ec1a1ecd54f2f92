"""Must hold: convolutions, dense layers, pools and means of a .tflite file compute what LiteRT computes.

int8 results are equal to LiteRT's plain kernels. Float: layers sum at most n products of magnitudes that are known
here, inputs below 5 and weights below 5 / sqrt(n), each sum with an error of at most (n + 2) u times that of the
magnitudes; twice that, as both sides round.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.frontends.tflite_cases import UNIT, Net, compare, dense, execute, execute_compiled, load_bytes, window

from microtune.ir import Graph

SETTINGS = settings(max_examples=40, deadline=None)
DTYPES = st.sampled_from(["float32", "int8"])
KINDS = st.sampled_from(["none", "relu", "relu6", "relu_n1_to_1"])
GENERATORS = st.integers(0, 2**32 - 1).map(np.random.default_rng)
SIDES = st.integers(1, 9)
CHANNELS = st.integers(1, 9)
PAIRS = st.tuples(st.integers(1, 4), st.integers(1, 4))


def tolerance(terms: int) -> float:
    return 2 * (terms + 2) * UNIT * (terms**0.5 * 5 * 5 + 5)


def image(data: st.DataObject, taps: tuple[int, int], padding: str) -> Net:
    least = taps if padding == "VALID" else (1, 1)
    size = [data.draw(SIDES) + each - 1 for each in least]
    return Net((1, *size, data.draw(CHANNELS)), data.draw(DTYPES), data.draw(GENERATORS))


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


@SETTINGS
@given(st.data(), PAIRS, PAIRS, st.sampled_from(["SAME", "VALID"]), KINDS, st.booleans(), st.booleans(), CHANNELS)
def test_convolution(
    data: st.DataObject, taps: tuple[int, int], stride: tuple[int, int], padding: str, kind: str, bias: bool,
    per_channel: bool, outputs: int,
) -> None:  # fmt: skip
    net = image(data, taps, padding)
    terms = taps[0] * taps[1] * net.shape[-1]
    window(net, "CONV_2D", taps, stride, padding, outputs, kind, bias=bias, per_channel=per_channel)
    compare(net, tolerance(terms))


@SETTINGS
@given(st.data(), PAIRS, PAIRS, st.sampled_from(["SAME", "VALID"]), KINDS, st.booleans(), st.integers(1, 3))
def test_depthwise(
    data: st.DataObject, taps: tuple[int, int], stride: tuple[int, int], padding: str, kind: str, bias: bool, many: int
) -> None:
    net = image(data, taps, padding)
    # LiteRT's depthwise kernels take only equal strides
    window(
        net, "DEPTHWISE_CONV_2D", taps, (stride[0],) * 2, padding, net.shape[-1] * many, kind, bias=bias,
        per_channel=data.draw(st.booleans()),
    )  # fmt: skip
    compare(net, tolerance(taps[0] * taps[1]))


@SETTINGS
@given(st.data(), PAIRS, PAIRS, st.sampled_from(["SAME", "VALID"]), KINDS)
@pytest.mark.parametrize("code", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
def test_pools(
    code: str, data: st.DataObject, taps: tuple[int, int], stride: tuple[int, int], padding: str, kind: str
) -> None:
    net = image(data, taps, padding)
    compare(window(net, code, taps, stride, padding, 0, kind), tolerance(taps[0] * taps[1]))


@SETTINGS
@given(
    st.lists(SIDES, min_size=1, max_size=3), DTYPES, GENERATORS, CHANNELS, KINDS, st.booleans(), st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_dense(
    size: list[int], dtype: str, random: np.random.Generator, outputs: int, kind: str, keep: bool, bias: bool,
    per_channel: bool,
) -> None:  # fmt: skip
    """On all of a sample, and on each of its positions (keep_num_dims)."""
    net = Net((1, *size), dtype, random)
    dense(net, outputs, kind, keep, bias=bias, per_channel=per_channel)
    # at each position it is a convolution here, which rounds twice where LiteRT's dense layer rounds once
    compare(net, tolerance(int(np.prod(size))), steps=int(keep))


@SETTINGS
@given(st.lists(SIDES, min_size=2, max_size=3), DTYPES, GENERATORS, st.booleans(), st.data())
def test_mean(size: list[int], dtype: str, random: np.random.Generator, keep: bool, data: st.DataObject) -> None:
    net = Net((1, *size), dtype, random)
    axes = data.draw(st.lists(st.integers(1, len(size)), min_size=1, max_size=len(size), unique=True))
    shape = [1 if axis in axes else length for axis, length in enumerate(net.shape)]
    if not keep:
        shape = [length for axis, length in enumerate(net.shape) if axis not in axes]
    signed = [axis - len(net.shape) if data.draw(st.booleans()) else axis for axis in axes]
    net.emit("MEAN", [net.constant(np.array(signed, np.int32))], shape, "ReducerOptions", (0.04, 3), keepDims=keep)
    # LiteRT rounds the mean over some axes in another way than that over height and width
    compare(net, tolerance(int(np.prod(size))), steps=1)


def test_a_mean_over_the_image_is_one_node() -> None:
    net = Net((1, 5, 4, 3), "float32", np.random.default_rng(0))
    net.emit("MEAN", [net.constant(np.array([1, 2], np.int32))], (1, 3), "ReducerOptions", keepDims=False)
    assert "transpose" not in ops(compare(net, tolerance(20)))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_convolution_of_a_sequence(dtype: str) -> None:
    """Conv1D of Keras: EXPAND_DIMS to one row, CONV_2D, SQUEEZE."""
    net = Net((1, 11, 4), dtype, np.random.default_rng(1))
    net.emit("EXPAND_DIMS", [net.constant(np.array(1, np.int32))], (1, 1, 11, 4), "ExpandDimsOptions")
    window(net, "CONV_2D", (1, 3), (1, 2), "SAME", 6, "relu")
    net.emit("SQUEEZE", [], (1, 6, 6), "SqueezeOptions", squeezeDims=[1])
    graph = compare(net, tolerance(12))
    assert graph.tensor(graph.inputs[0]).shape == (11, 4)
    assert graph.tensor(graph.outputs[0]).shape == (6, 6)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_residual_network(dtype: str) -> None:
    """Two convolutions beside a shortcut, pooled, flattened, classified."""
    net = Net((1, 9, 7, 3), dtype, np.random.default_rng(2))
    window(net, "CONV_2D", (3, 3), (2, 2), "SAME", 8, "relu6")
    shortcut, scale = net.at, net.scale
    window(net, "DEPTHWISE_CONV_2D", (3, 3), (1, 1), "SAME", 8, "relu")
    window(net, "CONV_2D", (1, 1), (1, 1), "SAME", 8)
    net.emit("ADD", [shortcut], net.shape, "AddOptions", (max(net.scale, scale) * 1.2, 4), fusedActivationFunction=1)
    window(net, "AVERAGE_POOL_2D", (5, 4), (1, 1), "VALID")
    net.emit("RESHAPE", [net.constant(np.array([-1, 8], np.int32))], (1, 8), "ReshapeOptions")
    dense(net, 5)
    net.emit("SOFTMAX", [], net.shape, "SoftmaxOptions", (1 / 256, -128), beta=1.0)
    # values are of magnitude 10 at most; four layers of at most 27 products, each of gain below 4
    graph = compare(net, 4**4 * tolerance(27), steps=1, run_graph=execute_compiled)
    if dtype == "int8":
        assert {graph.tensor(name).dtype for name in (*graph.inputs, *graph.outputs)} == {"int8"}
        q = graph.tensor(graph.outputs[0]).quantization
        assert q is not None and (float(q.scale), int(q.zero_point), q.axis) == (1 / 256, -128, None)


def test_names_scales_and_layout_of_int8_layers() -> None:
    """Weights: a scale per channel on the axis of the outputs; a single scale is repeated; bias: the product."""
    net = Net((1, 6, 6, 4), "int8", np.random.default_rng(3))
    x_scale = net.scale
    window(net, "CONV_2D", (3, 3), (1, 1), "SAME", 8, bias=False, per_channel=False)
    stored = net.builder.graph.tensors[net.builder.graph.operators[0].inputs[1]]
    stored.name = "model/bn/FusedBatchNormV3;model/stem/Conv2D"
    window(net, "DEPTHWISE_CONV_2D", (3, 3), (1, 1), "SAME", 8)
    graph = compare(net)
    stem, deep = graph.nodes
    assert stem.inputs[1:] == ("model.stem.weight", "model.stem.bias", "model.stem.multiplier", "model.stem.shift")
    first, bias, second = (graph.tensor(name) for name in (*stem.inputs[1:3], deep.inputs[1]))
    for tensor, shape, axis in ((first, (8, 3, 3, 4), 0), (bias, (8,), 0), (second, (3, 3, 8), 2)):
        q = tensor.quantization
        assert q is not None and (tensor.shape, q.axis, q.scale.shape) == (shape, axis, (8,))
        assert not q.zero_point.any()
    assert bias.dtype == "int32" and not np.any(bias.data)
    assert bias.quantization is not None
    np.testing.assert_allclose(bias.quantization.scale, np.full(8, x_scale * stored.quantization.scale[0]), rtol=1e-6)


def test_weights_of_int8_under_float_layers_become_float() -> None:
    """ "Dynamic range" models. LiteRT quantises the activations too, so the oracle is the float layer itself."""
    net = Net((1, 4), "float32", np.random.default_rng(4))
    stored = net.random.integers(-127, 128, (3, 4)).astype(np.int8)
    net.emit("FULLY_CONNECTED", [net.constant(stored, scale=0.125)], (1, 3), "FullyConnectedOptions")
    x = net.sample()
    expected = x.astype(np.float64) @ (stored * 0.125).T
    np.testing.assert_allclose(execute(load_bytes(net.finish()), x), expected, rtol=0, atol=6 * UNIT * 4 * 16 * 5)


def test_weights_of_float16() -> None:
    """Stored as float16 with DEQUANTIZE before the layer."""
    net = Net((1, 4), "float32", np.random.default_rng(5))
    half = net.random.normal(size=(3, 4)).astype(np.float16)
    whole = net.builder.tensor("weight", (3, 4))
    net.builder.operator("DEQUANTIZE", [net.constant(half)], [whole], "DequantizeOptions")
    net.emit("FULLY_CONNECTED", [whole], (1, 3), "FullyConnectedOptions")
    assert ops(compare(net, tolerance(4) * 2)) == ["dense"]
