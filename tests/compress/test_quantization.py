"""Post-training quantisation: how far int8 is from float, what is fused and shared, and every refusal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compress.random_networks import error_bounds, float_values, random_network

import microtune as mt
from microtune.compress.batched import run, walk
from microtune.errors import ModelError
from microtune.frontends.builder import Builder
from microtune.ir import Graph, Tensor, verify
from microtune.ops.evaluate import evaluate
from microtune.ops.quantized_build import channel_quantization, dequantize_array, quantize_array


def real_values(graph: Graph, x: np.ndarray) -> dict[str, np.ndarray]:
    """Every activation of an int8 graph as real numbers, for a batch of real inputs."""
    source = graph.tensor(graph.inputs[0])
    stored = quantize_array(x, source.quantization) if source.quantization else x
    found = {source.name: stored}
    for node, values in walk(graph, stored):
        found[node.output] = values[node.output]
    quantizations = {name: graph.tensor(name).quantization for name in found}
    return {name: dequantize_array(v, q) if (q := quantizations[name]) else v for name, v in found.items()}


def predicted(graph: Graph, x: np.ndarray) -> np.ndarray:
    """The real outputs of an int8 graph for a batch of real inputs."""
    return real_values(graph, x)[graph.outputs[0]]


def net_of(*steps: tuple[str, dict[str, Any]], shape: tuple[int, ...] = (4,), seed: int = 0) -> Graph:
    """A chain of operators; layers get random weights. Attributes: outputs, kernel, gamma."""
    r = np.random.default_rng(seed)
    builder = Builder("net")
    x = builder.input("x", shape)
    for index, (op, options) in enumerate(steps):
        inputs, attributes = [x], dict(options)
        if op == "dense":
            outputs = attributes.pop("outputs")
            inputs += [builder.constant("w", r.normal(size=(outputs, x.shape[0])), "test")]
            inputs += [builder.constant("b", r.normal(size=outputs), "test")]
        elif op == "conv2d":
            outputs, kernel = attributes.pop("outputs"), attributes.pop("kernel")
            inputs += [builder.constant("w", r.normal(size=(outputs, kernel, kernel, x.shape[2])), "test")]
            attributes = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), **attributes}
        elif op == "channel_affine":
            inputs += [builder.constant(name, r.normal(size=x.shape[-1]), "test") for name in ("gamma", "beta")]
        elif op in ("add", "multiply") and attributes.pop("constant", False):
            inputs += [builder.constant("c", r.normal(size=x.shape), "test")]
        x = builder.emit(op, inputs, f"{op}_{index}", "test", **attributes)
    return builder.finish(x, "test")


def normal(shape: tuple[int, ...], samples: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(samples, *shape)).astype(np.float32)


def shares_scale(graph: Graph, *names: str) -> bool:
    found = [graph.tensor(name).quantization for name in names]
    return len({(float(q.scale), int(q.zero_point)) for q in found if q is not None}) == 1


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_int8_stays_within_the_worst_case_of_its_roundings(seed: int) -> None:
    """In every tensor, on samples that lie inside the calibrated ranges; and types, names and shapes are right."""
    r = np.random.default_rng(seed)
    graph = random_network(r)
    x = r.normal(size=(12, *graph.tensor("x").shape)).astype(np.float32)
    int8_graph = mt.quantize(graph, x, ranges="minmax", correct_bias=False)
    verify(int8_graph)
    assert (int8_graph.inputs, int8_graph.outputs) == (graph.inputs, graph.outputs)
    found = real_values(int8_graph, x)
    sample = int(r.integers(len(x)))
    values = float_values(graph, x[sample])
    bounds = error_bounds(graph, int8_graph, values)
    compared = 0
    for name, tensor in int8_graph.tensors.items():
        if name in graph.tensors and not tensor.is_constant:
            assert tensor.dtype == "int8"
            assert tensor.shape == graph.tensor(name).shape
            if name in bounds:
                off = np.abs(found[name][sample] - values[name])
                assert (off <= bounds[name] + 1e-6).all(), f"{name} is off by {off.max()}"
                compared += 1
    assert compared >= 2


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), ranges=st.sampled_from(["mse", "percentile", "minmax"]), channel=st.booleans())
def test_the_batch_runner_is_the_meaning_of_the_graph(seed: int, ranges: str, channel: bool) -> None:
    """Calibration runs batches: to rounding what float operators mean, and exactly what int8 operators do."""
    r = np.random.default_rng(seed)
    graph = random_network(r)
    x = r.normal(size=(9, *graph.tensor("x").shape)).astype(np.float32)
    exact = evaluate(graph, {"x": x.astype(np.float64)}, np.float64)[graph.outputs[0]]
    scale = max(1.0, *(float(np.abs(v).max()) for v in float_values(graph, x[0]).values()))
    np.testing.assert_allclose(run(graph, x), exact, atol=1e-4 * scale, rtol=1e-4)
    int8_graph = mt.quantize(graph, x, ranges=ranges, per_channel=channel)
    stored = quantize_array(x, int8_graph.tensor("x").quantization)
    np.testing.assert_array_equal(run(int8_graph, stored), evaluate(int8_graph, {"x": stored})[graph.outputs[0]])


@pytest.mark.parametrize("seed", range(8))
def test_the_c_computes_what_was_calibrated(seed: int, tmp_path: Path) -> None:
    """A quantised random network, compiled, gives the bits that the report and bias correction saw."""
    r = np.random.default_rng(seed)
    graph = random_network(r)
    x = r.normal(size=(20, *graph.tensor("x").shape)).astype(np.float32)
    int8_graph = mt.quantize(graph, x)
    network = mt.compile_inference(int8_graph, tmp_path / "net")
    np.testing.assert_array_equal(
        network.run(x), run(int8_graph, quantize_array(x, int8_graph.tensor("x").quantization))
    )


@pytest.mark.parametrize("ranges", ["mse", "percentile", "minmax"])
def test_the_noise_is_that_of_eight_bits(ranges: str) -> None:
    """Three layers on normal values: a range of +-4 deviations in 255 steps has 39 dB, and each layer adds its share.

    Per layer: input, weights and output are rounded, each 39 dB or better below its signal; nine such noises are at
    29.5 dB. Calibrated and tested on different samples.
    """
    graph = net_of(
        ("conv2d", {"outputs": 16, "kernel": 3}), ("relu", {}), ("conv2d", {"outputs": 16, "kernel": 3}), ("relu", {}),
        ("conv2d", {"outputs": 8, "kernel": 3}), shape=(9, 9, 4),
    )  # fmt: skip
    int8_graph = mt.quantize(graph, normal((9, 9, 4), 64), ranges=ranges)
    report = mt.quantization_report(graph, int8_graph, normal((9, 9, 4), 64, seed=1))
    assert report.output_sqnr > 29.5


def test_weights_and_biases_are_those_of_the_specification() -> None:
    graph = net_of(("conv2d", {"outputs": 5, "kernel": 2}), ("reshape", {"shape": (45,)}), ("dense", {"outputs": 3}),
                   shape=(4, 4, 2))  # fmt: skip
    int8_graph = mt.quantize(graph, normal((4, 4, 2)))
    assert [node.op for node in int8_graph.nodes] == ["conv2d_int8", "reshape", "dense_int8"]
    for node in (int8_graph.nodes[0], int8_graph.nodes[2]):
        x, weight, bias = (int8_graph.tensor(name) for name in node.inputs[:3])
        assert (weight.dtype, bias.dtype) == ("int8", "int32")
        assert weight.quantization.axis == bias.quantization.axis == 0
        assert not weight.quantization.zero_point.any()
        rows = weight.data.reshape(len(weight.data), -1)
        np.testing.assert_array_equal(np.abs(rows.astype(int)).max(axis=1), 127)
        scale = weight.quantization.scale.astype(np.float64)
        np.testing.assert_allclose(bias.quantization.scale, float(x.quantization.scale) * scale, rtol=1e-6)
        original = graph.tensor(weight.name).data.reshape(rows.shape)
        assert (np.abs(rows * scale[:, None] - original) <= scale[:, None] * 0.5001).all()


def test_one_scale_per_channel_is_better_where_channels_differ() -> None:
    """Channels 1000 times smaller than the largest vanish under one scale for all."""
    graph = net_of(("dense", {"outputs": 6}), shape=(16,))
    weight, bias = (graph.tensor(name).data for name in graph.nodes[0].inputs[1:])
    size = np.logspace(0, -3, 6, dtype=np.float32)
    graph = graph.with_nodes(
        graph.nodes,
        [Tensor("w", weight.shape, "float32", weight * size[:, None]), Tensor("b", (6,), "float32", bias * 0)],
    )
    x = normal((16,), 100)
    fine, coarse = (
        mt.quantize(graph, x, ranges="minmax", per_channel=per_channel).tensor("w") for per_channel in (True, False)
    )
    original = graph.tensor("w").data
    worst = [np.abs(dequantize_array(w.data, w.quantization) - original).max(axis=1) / size for w in (fine, coarse)]
    assert (worst[0] < 0.02).all()
    assert worst[1][-1] > 0.5
    assert len(set(coarse.quantization.scale.tolist())) == 1


@pytest.mark.parametrize(
    ("activation", "attributes", "limits"),
    [("relu", {}, (0, None)), ("relu6", {}, (0, 6)), ("clamp", {"low": -0.5, "high": 0.25}, (-0.5, 0.25))],
)
@pytest.mark.parametrize("layer", [("dense", {"outputs": 4}), ("add", {"constant": True}), ("channel_affine", {})])
def test_an_activation_becomes_the_limits_of_what_it_alone_follows(
    layer: tuple[str, dict[str, Any]], activation: str, attributes: dict[str, Any], limits: tuple[Any, Any]
) -> None:
    graph = net_of(layer, (activation, attributes), ("dense", {"outputs": 2}))
    int8_graph = mt.quantize(graph, 4 * normal((4,)))
    assert not any(node.op in ("lookup_int8", activation) for node in int8_graph.nodes)
    name = f"{activation}_1"
    assert name in int8_graph.tensors
    node = next(node for node in int8_graph.nodes if "low" in node.attributes)
    quantization = int8_graph.tensor(name).quantization
    for key, real, end in zip(("low", "high"), limits, (-128, 127), strict=True):
        expected = end if real is None else int(quantize_array(np.float64(real), quantization))
        assert node.attributes[key] == expected


def test_an_activation_stays_where_another_reads_its_input() -> None:
    builder = Builder("net")
    weight = builder.constant("w", np.eye(3), "test")
    before = builder.emit("dense", [builder.input("x", (3,)), weight], "before", "test")
    after = builder.emit("relu", [before], "after", "test")
    graph = builder.finish(builder.emit("add", [before, after], "y", "test"), "test")
    int8_graph = mt.quantize(graph, normal((3,)))
    assert [node.op for node in int8_graph.nodes] == ["dense_int8", "lookup_int8", "add_int8"]
    x = normal((3,), 20, seed=5) / 2
    step = float(int8_graph.tensor("y").quantization.scale)
    np.testing.assert_allclose(predicted(int8_graph, x), x + np.maximum(x, 0), atol=3 * step)


def test_fixed_scales_of_sigmoid_tanh_and_softmax() -> None:
    graph = net_of(("sigmoid", {}), ("tanh", {}), ("softmax", {}))
    int8_graph = mt.quantize(graph, normal((4,)))
    for name, scale, zero in (("sigmoid_0", 1 / 256, -128), ("tanh_1", 1 / 128, 0), ("softmax_2", 1 / 256, -128)):
        quantization = int8_graph.tensor(name).quantization
        assert (float(quantization.scale), int(quantization.zero_point)) == (scale, zero)


def test_pools_pads_and_moves_keep_the_scale() -> None:
    pool = {"kernel": (2, 2), "stride": (1, 1), "padding": ((1, 0), (0, 1))}
    graph = net_of(
        ("max_pool2d", pool), ("average_pool2d", {**pool, "include_padding": True}),
        ("pad", {"padding": ((1, 1), (0, 0), (0, 0)), "value": 0.0}), ("transpose", {"permutation": (2, 0, 1)}),
        ("slice", {"axis": 1, "start": 1, "stop": 3}), ("reshape", {"shape": (16,)}), shape=(4, 4, 2),
    )  # fmt: skip
    int8_graph = mt.quantize(graph, normal((4, 4, 2)) + 1)
    names = [node.output for node in int8_graph.nodes]
    assert shares_scale(int8_graph, "x", *names)
    padding = next(node for node in int8_graph.nodes if node.name == "pad_2")
    assert padding.attributes["value"] == int(int8_graph.tensor("x").quantization.zero_point)


def test_a_padding_beyond_the_values_gets_its_place() -> None:
    graph = net_of(("pad", {"padding": ((1, 0),), "value": 20.0}))
    x = np.clip(normal((4,)), -2, 2)
    found = predicted(mt.quantize(graph, x), x)
    step = 22 / 255
    np.testing.assert_allclose(found[:, 0], 20.0, atol=step)
    np.testing.assert_allclose(found[:, 1:], x, atol=step)
    ends = mt.quantize(net_of(("pad", {"padding": ((1, 0),), "value": -3e38})), x)
    assert [node.attributes["value"] for node in ends.nodes] == [-128]


def test_what_is_joined_is_computed_in_the_joint_scale() -> None:
    """The branches of a concatenation take its scale; what another reads as well is brought to it by a table."""
    builder = Builder("net")
    x = builder.input("x", (3, 3, 2))
    small, large = (
        builder.emit("conv2d", [x, builder.constant("w", size * np.ones((2, 1, 1, 2)), "test")], "c", "test",
                     stride=(1, 1), padding=((0, 0), (0, 0)))
        for size in (0.5, 3.0)
    )  # fmt: skip
    relu = builder.emit("relu", [large], "relu", "test")
    pooled = builder.emit("max_pool2d", [relu], "p", "test", kernel=(1, 1), stride=(1, 1), padding=((0, 0), (0, 0)))
    joined = builder.emit("concat", [small, pooled, x], "joined", "test", axis=2)
    graph = builder.finish(joined, "test")
    int8_graph = mt.quantize(graph, normal((3, 3, 2)))
    assert shares_scale(int8_graph, small.name, "relu", "p", "joined")
    assert [node.op for node in int8_graph.nodes].count("lookup_int8") == 1
    values = normal((3, 3, 2), 8, seed=3) / 2
    step = float(int8_graph.tensor("joined").quantization.scale)
    np.testing.assert_allclose(predicted(int8_graph, values), run(graph, values), atol=4 * step)


def test_scales_that_differ_under_one_zero_point_are_brought_together() -> None:
    """Rectified tensors all have the zero point -128; one that is read twice keeps its own, finer scale."""
    builder = Builder("net")
    x = builder.input("x", (4,))
    fine = builder.emit("relu", [x], "fine", "test")
    coarse = builder.emit("relu", [builder.emit("scale", [x], "s", "test", factor=5.0)], "coarse", "test")
    pair = builder.emit("concat", [fine, coarse], "pair", "test", axis=0)
    graph = builder.finish(builder.emit("concat", [pair, fine], "y", "test", axis=0), "test")
    int8_graph = mt.quantize(graph, normal((4,)))
    assert int8_graph.tensor("fine").quantization.zero_point == int8_graph.tensor("y").quantization.zero_point == -128
    assert not shares_scale(int8_graph, "fine", "y")
    values = normal((4,), 8, seed=3) / 2
    step = float(int8_graph.tensor("y").quantization.scale)
    np.testing.assert_allclose(predicted(int8_graph, values), run(graph, values), atol=2 * step)


def test_a_layer_that_is_an_output_itself_is_not_cut_by_what_follows() -> None:
    graph = replace(net_of(("dense", {"outputs": 3}), ("relu", {})), outputs=("dense_0", "relu_1"))
    int8_graph = mt.quantize(graph, normal((4,)))
    assert int8_graph.outputs == ("dense_0", "relu_1")
    assert real_values(int8_graph, normal((4,)))["dense_0"].min() < -1


def test_bias_correction_takes_out_the_mean_error() -> None:
    """Inputs that are all positive turn the rounding of weights into an offset; here it is 4 steps of the bias."""
    graph = net_of(("dense", {"outputs": 12}), shape=(64,))
    x = normal((64,), 64) * 0.1 + 5
    off = []
    for correct in (False, True):
        int8_graph = mt.quantize(graph, x, ranges="minmax", correct_bias=correct)
        off.append(np.abs((predicted(int8_graph, x) - run(graph, x)).mean(axis=0)))
    # what is left: half a step of the bias, and the mean of 64 roundings to int8 (deviation step / sqrt(12 * 64))
    step = float(int8_graph.tensor(graph.outputs[0]).quantization.scale)
    bias_step = int8_graph.tensor("b").quantization.scale.max()
    assert off[1].max() < 0.5 * bias_step + 5 * step / (12 * 64) ** 0.5
    assert off[0].max() > 2 * off[1].max()


def test_frozen_int8_weights_stay_as_they_are() -> None:
    """A dynamic-range model has int8 weights under float activations; its weights are taken over to the bit."""
    r = np.random.default_rng(2)
    builder = Builder("net")
    steps, scale = r.integers(-127, 128, (5, 8)).astype(np.int8), np.full(5, 0.01, np.float32)
    inputs = [
        builder.input("x", (8,)),
        builder.quantized("w", steps, "test", channel_quantization(scale)),
        builder.constant("s", scale, "test"),
        builder.constant("b", r.normal(size=5), "test"),
    ]
    graph = builder.finish(builder.emit("dense_weight8", inputs, "y", "test"), "test")
    x = normal((8,), 100)
    int8_graph = mt.quantize(graph, x)
    np.testing.assert_array_equal(int8_graph.tensor("w").data, steps)
    np.testing.assert_array_equal(int8_graph.tensor("w").quantization.scale, scale)
    assert mt.quantization_report(graph, int8_graph, x).output_sqnr > 35


def test_an_embedding_stays_float_in_front_of_int8() -> None:
    builder = Builder("net")
    table = builder.constant("table", np.random.default_rng(0).normal(size=(7, 4)), "test")
    rows = builder.emit("embedding", [builder.input("x", (3,)), table], "rows", "test")
    flat = builder.reshape(rows, (12,), "flat", "test")
    graph = builder.finish(builder.emit("relu", [flat], "y", "test"), "test")
    x = np.random.default_rng(1).integers(0, 7, (20, 3)).astype(np.float32)
    int8_graph = mt.quantize(graph, x)
    assert int8_graph.tensor("x").dtype == "float32"
    assert [node.op for node in int8_graph.nodes] == ["embedding", "quantize", "reshape", "lookup_int8"]
    np.testing.assert_allclose(predicted(int8_graph, x), run(graph, x), atol=0.05)


@pytest.mark.parametrize("output", ["int8", "float32"])
def test_the_output_is_int8_or_float_as_asked(output: str) -> None:
    graph = net_of(("dense", {"outputs": 3}))
    int8_graph = mt.quantize(graph, normal((4,)), output=output)
    assert int8_graph.tensor(graph.outputs[0]).dtype == output
    assert [node.op for node in int8_graph.nodes] == ["dense_int8", "dequantize"][: 1 + (output == "float32")]
    np.testing.assert_allclose(predicted(int8_graph, normal((4,))), run(graph, normal((4,))), atol=0.2)


def test_layers_that_share_a_weight_each_get_their_own() -> None:
    builder = Builder("net")
    x, weight = builder.input("x", (3,)), builder.constant("w", np.diag([1.0, 2.0, 3.0]), "test")
    bias = builder.constant("b", [1.0, -1.0, 0.5], "test")
    first = builder.emit("dense", [x, weight, bias], "first", "test")
    graph = builder.finish(builder.emit("dense", [first, weight, bias], "y", "test"), "test")
    int8_graph = mt.quantize(graph, normal((3,)))
    assert len({node.inputs[2] for node in int8_graph.nodes}) == 2
    np.testing.assert_allclose(predicted(int8_graph, normal((3,))), run(graph, normal((3,))), atol=0.4)


@pytest.mark.parametrize("extreme", ["dead channel", "huge bias", "tiny weights", "dead layer", "huge values"])
def test_extreme_numbers_stay_within_int8_arithmetic(extreme: str) -> None:
    graph = net_of(("dense", {"outputs": 4}), ("relu", {}), ("dense", {"outputs": 3}))
    weight, bias = graph.tensor("w").data.copy(), graph.tensor("b").data.copy()
    x = normal((4,))
    if extreme == "dead channel":
        weight[1] = bias[1] = 0
    elif extreme == "huge bias":
        weight[2] *= 1e-9
        bias[2] = 1e6
    elif extreme == "tiny weights":
        weight *= 1e-20
        bias *= 1e-20
    elif extreme == "dead layer":
        weight[:], bias[:] = 0, -1
    else:
        x = x * np.float32(1e15)
    tensors = [Tensor("w", weight.shape, "float32", weight), Tensor("b", bias.shape, "float32", bias)]
    graph = graph.with_nodes(graph.nodes, tensors)
    int8_graph = mt.quantize(graph, x, ranges="minmax")
    exact = run(graph, x)
    np.testing.assert_allclose(predicted(int8_graph, x), exact, atol=0.06 * np.abs(exact).max())


def test_only_so_many_samples_are_run_and_all_parts_of_the_set_count() -> None:
    graph = net_of(("relu", {}))
    x = normal((4,), 300)
    x[-1] = 50  # the last sample is among the picked ones
    few = mt.quantize(graph, x, ranges="minmax", samples=10)
    assert float(few.tensor("x").quantization.scale) * 255 >= 50


@pytest.mark.parametrize(
    ("calibration", "said"),
    [
        (np.zeros((3, 4)), "calibration has 3 samples; at least 8 are needed"),
        (np.zeros((20, 5)), r"calibration has the shape \(20, 5\); \(samples, 4\) is needed"),
        (np.zeros(4), r"shape \(4,\).*for one sample put an axis"),
        (np.full((20, 4), 2.5), "calibration: every value is 2.5"),
        (np.where(np.arange(80).reshape(20, 4) == 13, np.nan, 1.0), "sample 3 holds NaN or infinity .1 of 20"),
        (np.where(np.arange(80).reshape(20, 4) > 70, np.inf, 1.0), "sample 17 holds NaN or infinity .3 of 20"),
        ([["a"] * 4] * 20, "cannot be read as an array of numbers"),
        ([[1.0]] * 19 + [[1.0, 2.0]], "cannot be read as an array of numbers"),
    ],
)
def test_calibration_that_does_not_fit_is_refused(calibration: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        mt.quantize(net_of(("relu", {})), calibration)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ranges": "entropy"}, "ranges must be one of percentile, mse, minmax, not 'entropy'"),
        ({"percentile": 0.9999}, "percentile must be above 50 and at most 100, not 0.9999"),
        ({"output": "uint8"}, "output must be 'int8' or 'float32', not 'uint8'"),
        ({"samples": 2}, "samples must be at least 8, not 2"),
    ],
)
def test_settings_that_do_not_exist_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        mt.quantize(net_of(("relu", {})), normal((4,)), **settings)


def test_an_operator_without_an_int8_form_is_named_with_its_place() -> None:
    builder = Builder("net")
    x = builder.input("x", (4,))
    graph = builder.finish(builder.emit("relu_grad", [x, x], "strange", "test", node="here"), "test")
    with pytest.raises(ModelError, match=r"node 'here' \(relu_grad\): not supported in int8. Supported: add, "):
        mt.quantize(graph, normal((4,)))


def test_an_int8_graph_is_not_quantised_again() -> None:
    int8_graph = mt.quantize(net_of(("dense", {"outputs": 2})), normal((4,)))
    with pytest.raises(ModelError, match=r"already quantised: node 'dense_0' \(dense_int8\) has 'x' in int8"):
        mt.quantize(int8_graph, normal((4,)))


def test_a_weight_that_is_computed_is_named() -> None:
    builder = Builder("net")
    x = builder.input("x", (2, 3))
    flat = builder.reshape(x, (6,), "flat", "test")
    square = builder.emit("reshape", [builder.emit("relu", [flat], "r", "test")], "m", "test", shape=(1, 6))
    graph = builder.finish(builder.emit("dense", [flat, square], "y", "test", node="fc"), "test")
    with pytest.raises(ModelError, match=r"node 'fc' \(dense\): 'm' is computed by the graph"):
        mt.quantize(graph, normal((2, 3)))


def test_a_float_graph_that_overflows_is_named() -> None:
    builder = Builder("net")
    x = builder.input("x", (4,))
    graph = builder.finish(builder.emit("multiply", [x, x], "square", "test"), "test")
    with pytest.raises(ModelError, match="computes NaN or infinity in 'square' on the calibration"):
        mt.quantize(graph, np.float32(1e30) * normal((4,)))
