"""``float_tail``: the last part of an int8 graph in float32."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.compress.random_networks import error_bounds, float_values, random_network

import microtune as mt
from microtune.compress.dequantization import float_tail
from microtune.frontends.builder import Builder
from microtune.ir import Graph, Quantization, verify
from microtune.ops.evaluate import evaluate
from microtune.ops.quantized_build import (
    activation_quantization,
    channel_quantization,
    layer_attributes,
    layer_constants,
    rescale_table,
)
from microtune.tuning.layers import layers_of

X = activation_quantization(0.05, 3)


def one_layer(r: np.random.Generator, y_q: Quantization, kind: str = "none") -> tuple[Builder, Any]:
    """A dense layer from ``x`` (4,) to ``h`` (6,)."""
    builder = Builder("net")
    x = builder.input("x", (4,), "int8", X)
    scales = np.full(6, 0.01, np.float32)
    weight = builder.quantized("w", r.integers(-127, 128, (6, 4)).astype(np.int8), "test", channel_quantization(scales))
    bias_q = channel_quantization(scales * np.float32(0.05))
    bias = builder.quantized("b", r.integers(-1000, 1000, 6).astype(np.int32), "test", bias_q)
    multiplier, shift = (builder.quantized("m", a, "test", None) for a in layer_constants(X, scales, y_q))
    given = layer_attributes(X, y_q, kind)
    return builder, builder.emit("dense_int8", [x, weight, bias, multiplier, shift], "h", "test", "h", y_q, **given)


def tail(graph: Graph, whole: bool = False) -> Graph:
    names = [node.name for node in layers_of(graph)]
    return verify(float_tail(graph, names, names if whole else []), "float_tail")


def sums(graph: Graph, x: np.ndarray) -> np.ndarray:
    """The real sums of the layer ``h``."""
    weight, bias = (graph.tensor(name).data for name in ("w", "b"))
    assert weight is not None and bias is not None
    return np.asarray(0.01 * weight @ (0.05 * (x.astype(np.float64) - 3)) + 0.0005 * bias)


def given_x(r: np.random.Generator) -> np.ndarray:
    return r.integers(-128, 128, 4).astype(np.int8)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), whole=st.booleans())
def test_a_whole_network_in_float_is_nearer_to_the_original_than_its_int8(seed: int, whole: bool) -> None:
    """Weights alone are rounded, so the worst case of int8 arithmetic bounds it. Were an activation lost or a scale
    wrong, it would not."""
    r = np.random.default_rng(seed)
    graph = random_network(r)
    # how a clamp's own limits are lost where int8 ends with them: test_limits_that_a_range_does_not_show
    assume(all(node.op != "clamp" for node in graph.nodes))
    samples = r.normal(size=(8, *graph.tensor("x").shape)).astype(np.float32)
    int8 = mt.quantize(graph, samples, ranges="minmax", correct_bias=False)
    found = tail(int8, whole)
    q = int8.tensor("x").quantization
    assert q is not None
    values = float_values(graph, samples[0])
    bound = error_bounds(graph, int8, values)[graph.outputs[0]]
    stored = np.clip(np.round(samples[0] / q.scale) + q.zero_point, -128, 127).astype(np.int8)
    y = evaluate(found, {"x": stored}, np.float64)[found.outputs[0]]
    assert np.all(np.abs(y - values[graph.outputs[0]]) <= bound + 1e-6)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("y_q", "kind", "low", "high"),
    [
        (activation_quantization(0.02, 5), "none", None, None),
        (activation_quantization(0.02, 5), "relu", 0.0, None),
        (activation_quantization(0.02, -128), "relu", 0.0, None),
        (activation_quantization(6 / 255, -128), "relu6", 0.0, 6.0),
        (activation_quantization(0.05, -100), "relu6", 0.0, 6.0),
        (activation_quantization(0.05, 0), "relu_n1_to_1", -1.0, 1.0),
        (activation_quantization(2 / 255, -1), "relu_n1_to_1", -1.0, 1.0),
    ],
)
def test_fused_activations_limit_and_the_ends_of_int8_do_not(
    y_q: Quantization, kind: str, low: float | None, high: float | None, whole: bool
) -> None:
    r = np.random.default_rng(0)
    builder, h = one_layer(r, y_q, kind)
    graph = verify(builder.finish(h, "test"))
    seen = set()
    for _ in range(50):
        x = given_x(r)
        exact = sums(graph, x)
        want = np.clip(exact, -np.inf if low is None else low, np.inf if high is None else high)
        y = evaluate(tail(graph, whole), {"x": x}, np.float64)["h"]
        np.testing.assert_allclose(y, want, rtol=1e-6, atol=1e-6)
        seen.update(np.sign(want - exact))
    assert len(seen) == 1 + (low is not None) + (high is not None)


@pytest.mark.parametrize(
    ("kind", "y_q", "ops", "low", "high"),
    [
        ("none", activation_quantization(0.08, 7), [], None, None),
        ("relu", activation_quantization(0.05, -128), ["relu"], 0.0, None),
        ("relu", activation_quantization(0.05, -10), ["relu"], 0.0, None),
        ("relu6", activation_quantization(6 / 255, -128), ["relu6"], 0.0, 6.0),
        ("relu6", activation_quantization(0.05, -128), ["relu6"], 0.0, 6.0),
    ],
)
def test_tables_between_scales_become_what_they_stand_for(
    kind: str, y_q: Quantization, ops: list[str], low: float | None, high: float | None
) -> None:
    """A ReLU's table is that of the identity where int8 ends at zero: it must stay a ReLU."""
    r = np.random.default_rng(0)
    h_q = activation_quantization(0.06, 11)
    builder, h = one_layer(r, h_q)
    table = builder.quantized("t", rescale_table(h_q, y_q, kind), "test", None)
    graph = verify(builder.finish(builder.emit("lookup_int8", [h, table], "y", "test", quantization=y_q), "test"))
    found = tail(graph)
    assert [node.op for node in found.nodes] == ["dequantize", "dense_weight8", *ops]
    for _ in range(20):
        x = given_x(r)
        want = np.clip(sums(graph, x), -np.inf if low is None else low, np.inf if high is None else high)
        np.testing.assert_allclose(evaluate(found, {"x": x}, np.float64)["y"], want, rtol=1e-6, atol=1e-6)


def test_a_table_of_any_function_stays_one() -> None:
    r = np.random.default_rng(0)
    h_q, y_q = activation_quantization(0.06, 11), activation_quantization(0.01, 0)
    builder, h = one_layer(r, h_q)
    data = np.round(60 * np.sin(np.arange(256) / 20)).astype(np.int8)
    table = builder.quantized("t", data, "test", None)
    graph = verify(builder.finish(builder.emit("lookup_int8", [h, table], "y", "test", quantization=y_q), "test"))
    found = tail(graph)
    assert [node.op for node in found.nodes] == ["dequantize", "dense_weight8", "quantize", "lookup_int8", "dequantize"]
    for _ in range(20):
        x = given_x(r)
        h_real = evaluate(replace(found, outputs=("h",)), {"x": x}, np.float64)["h"]
        stored = np.clip(np.round(h_real / 0.06) + 11, -128, 127).astype(int)
        np.testing.assert_allclose(evaluate(found, {"x": x}, np.float64)["y"], 0.01 * data[stored + 128], atol=1e-6)


def test_crossings_into_and_out_of_int8_disappear() -> None:
    r = np.random.default_rng(0)
    q = activation_quantization(0.06, 11)
    crossing = {"scale": 0.06, "zero_point": 11}
    builder, h = one_layer(r, q)
    real = builder.emit("dequantize", [h], "real", "test", **crossing)
    again = builder.emit("quantize", [real], "again", "test", quantization=q, **crossing)
    graph = verify(builder.finish(builder.emit("dequantize", [again], "y", "test", **crossing), "test"))
    found = tail(graph)
    assert [node.op for node in found.nodes] == ["dequantize", "dense_weight8"] and found.outputs == ("y",)


def test_what_is_limited_already_is_not_limited_again() -> None:
    """Means and maxima of a ReLU's outputs."""
    r = np.random.default_rng(0)
    builder = Builder("net")
    x = builder.input("x", (6, 6, 2))
    weight = builder.constant("w", r.normal(size=(3, 3, 3, 2)), "test")
    plain = {"stride": (1, 1), "padding": ((0, 0), (0, 0))}
    h = builder.emit("relu", [builder.emit("conv2d", [x, weight], "c", "test", **plain)], "r", "test")
    pooled = builder.emit("max_pool2d", [h], "p", "test", kernel=(2, 2), **plain)
    mean = builder.emit("global_average", [pooled], "g", "test")
    dense = builder.constant("d", r.normal(size=(2, 3)), "test")
    graph = verify(builder.finish(builder.emit("dense", [mean, dense], "y", "test"), "test"))
    found = tail(mt.quantize(graph, r.normal(size=(8, 6, 6, 2)).astype(np.float32)))
    ops = ["dequantize", "conv2d_weight8", "relu", "max_pool2d", "global_average", "dense_weight8"]
    assert [node.op for node in found.nodes] == ops


def test_what_lies_before_stays_int8() -> None:
    r = np.random.default_rng(0)
    network = random_network(r)
    graph = mt.quantize(network, r.normal(size=(8, *network.tensor("x").shape)))
    last = layers_of(graph)[-1]
    found = verify(float_tail(graph, [last.name], [last.name]))
    at = graph.nodes.index(last)
    assert [(node.op, node.name) for node in found.nodes[:at]] == [(node.op, node.name) for node in graph.nodes[:at]]
    assert found.tensor(last.inputs[0]).dtype == "int8"
    assert found.nodes[at].op == "dequantize"


def test_limits_that_a_range_does_not_show() -> None:
    """A clamp to anything but 0, 6 and -1 to 1 that ends where int8 does is taken for the end of int8."""
    r = np.random.default_rng(0)
    builder, h = one_layer(r, activation_quantization(0.01, -28))
    graph = verify(builder.finish(h, "test"))
    assert [node.op for node in tail(graph).nodes] == ["dequantize", "dense_weight8"]
