"""Models that onnxruntime's static quantisation made, as int8 graphs, against onnxruntime itself.

Values are at most one quantisation step apart on 99 % and more. Not on all: onnxruntime computes these nodes in
float32 and rounds half to even, the graph in integers and half away from zero. A value midway between two steps
falls to either side (after an average of four, one in four is midway), and where a layer's scale is finer than
that of its input, one step there becomes several here.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from microtune.errors import ModelError
from microtune.frontends import load
from microtune.ir import Graph
from microtune.ops.evaluate import evaluate

from .onnx_models import Arrays, model_of, node, normal, runtime

logging.disable(logging.WARNING)
NETS = 40


class Samples(CalibrationDataReader):
    def __init__(self, x: np.ndarray) -> None:
        self.rest = [{"x": row[None]} for row in x]

    def get_next(self) -> Any:
        return self.rest.pop() if self.rest else None


def quantized(model: onnx.ModelProto, x: np.ndarray, folder: Path, **options: Any) -> onnx.ModelProto:
    onnx.save(model, folder / "float.onnx")
    given: dict[str, Any] = {
        "quant_format": QuantFormat.QDQ,
        "activation_type": QuantType.QInt8,
        "weight_type": QuantType.QInt8,
        "per_channel": True,
        **options,
    }
    quantize_static(folder / "float.onnx", folder / "int8.onnx", Samples(x), **given)
    return onnx.load(folder / "int8.onnx")


def steps_apart(model: onnx.ModelProto, graph: Graph, x: np.ndarray) -> np.ndarray:
    """Differences of the outputs in quantisation steps of the output."""
    expected = np.concatenate([runtime(model, row[None]) for row in x])
    found = evaluate(graph, {graph.inputs[0]: x})[graph.outputs[0]]
    assert found.shape == expected.shape
    last = next(item for item in graph.nodes if item.op == "dequantize" and item.output == graph.outputs[0])
    return np.abs(found - expected) / last.attributes["scale"]


def random_net(seed: int) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """A small convolutional net as one would quantise: images or sequences, residual or not."""
    generator = np.random.default_rng(seed)

    def whole(low: int, high: int) -> int:
        return int(generator.integers(low, high + 1))

    def one_of(choices: list[Any]) -> Any:
        return choices[whole(0, len(choices) - 1)]

    rank = one_of([1, 2, 2])
    channels, sizes = whole(1, 4), [whole(5, 9) for _ in range(rank)]
    weights: Arrays = {}
    nodes: list[onnx.NodeProto] = []
    shape = (channels, *sizes)

    def weight(*size: int, scale: float = 1.0) -> str:
        name = f"w{len(weights)}"
        weights[name] = normal(*size, seed=len(weights)) * np.float32(scale / np.sqrt(np.prod(size[1:]) or 1))
        return name

    def step(op: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(node(op, *inputs, output=f"t{len(nodes)}", **attributes))
        return f"t{len(nodes) - 1}"

    def conv(x: str, inputs: int, outputs: int, depthwise: bool = False) -> str:
        taps = [one_of([1, 3]) for _ in range(rank)]
        pads = [taps[i % rank] // 2 for i in range(2 * rank)]
        names = [weight(outputs, 1 if depthwise else inputs, *taps, scale=2.0), weight(outputs)]
        return step("Conv", x, *names, group=inputs if depthwise else 1, pads=pads)

    def activated(x: str) -> str:
        kind = one_of(["Relu", "Relu6", "HardSwish", "LeakyRelu", "Sigmoid", "none"])
        if kind == "Relu6":
            weights["zero"], weights["six"] = np.float32(0), np.float32(6)
            return step("Clip", x, "zero", "six")
        return x if kind == "none" else step(kind, x)

    current = "x"
    for _ in range(whole(1, 4)):
        kind = one_of(["conv", "depthwise", "residual", "pool", "join"])
        if kind == "conv":
            outputs = whole(2, 6)
            current, channels = activated(conv(current, channels, outputs)), outputs
        elif kind == "depthwise":
            outputs = channels * whole(1, 2)
            current, channels = activated(conv(current, channels, outputs, True)), outputs
        elif kind == "residual":
            current = activated(step("Add", activated(conv(current, channels, channels)), current))
        elif kind == "join":
            current, channels = step("Concat", current, conv(current, channels, 3), axis=1), channels + 3
        elif min(sizes) >= 4:
            current = step(one_of(["MaxPool", "AveragePool"]), current, kernel_shape=[2] * rank, strides=[2] * rank)
            sizes = [size // 2 for size in sizes]
    if whole(0, 1):
        current = step("GlobalAveragePool", current)
        sizes = [1] * rank
    count = channels * int(np.prod(sizes))
    current = step("Flatten", current)
    if whole(0, 1):
        current = step("Gemm", current, weight(5, count), weight(5), transB=1)
    else:
        current = step("Add", step("MatMul", current, weight(count, 5)), weight(5))
    nodes[-1].output[0] = "y"
    return model_of(nodes, weights, (1, *shape)), shape


def apart_everywhere(model: onnx.ModelProto, graph: Graph, x: np.ndarray) -> np.ndarray:
    """Differences in steps of every int8 value on the way, wherever onnxruntime quantises one."""
    nodes = [item for item in model.graph.node if item.op_type == "QuantizeLinear"]
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    whole.graph.output.extend(onnx.helper.make_empty_tensor_value_info(item.output[0]) for item in nodes)
    named = {item.output[0]: item.output[0] if item.output[0] in graph.tensors else item.input[0] for item in nodes}
    known = {key: name for key, name in named.items() if name in graph.tensors and graph.tensor(name).dtype == "int8"}
    assert len(known) >= len(nodes) - 1, "a flattened value has the name of what it was"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(whole.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = evaluate(replace(graph, outputs=tuple(known.values())), {graph.inputs[0]: x})
    apart = []
    for index, row in enumerate(x):
        for key, want in zip(known, session.run(list(known), {"x": row[None]}), strict=True):
            (want,) = want.astype(np.int32) - (128 if want.dtype == np.uint8 else 0)
            got = found[known[key]][index].astype(np.int32)
            # the input is quantised as it comes, everything else is kept channels last
            turned = np.moveaxis(want, 0, -1)
            if graph.inputs[0] in graph.producer(known[key]).inputs:  # type: ignore[union-attr]
                turned = want
            apart.append(np.abs(turned.reshape(-1) - got.reshape(-1)))
    return np.concatenate(apart)


def test_random_nets_agree(tmp_path: Path) -> None:
    last, inner = [], []
    for seed in range(NETS):
        model, shape = random_net(seed)
        x = normal(12, *shape, seed=5)
        kind = [QuantType.QInt8, QuantType.QUInt8][seed % 2]
        model = quantized(model, x, tmp_path, activation_type=kind, per_channel=seed % 3 > 0)
        graph = load(model)
        ops = [item.op for item in graph.nodes]
        assert not {"conv2d", "depthwise_conv2d", "dense", "add"} & set(ops), ops
        last.append(steps_apart(model, graph, x))
        inner.append(apart_everywhere(model, graph, x))
        # what differs is scattered; a wrong scale, zero point or order would change most values of a net
        assert np.mean(inner[-1] <= 1) >= 0.95, (seed, np.mean(inner[-1] <= 1))
    everywhere, outputs = (np.concatenate([item.reshape(-1) for item in items]) for items in (inner, last))
    assert np.mean(everywhere <= 1) >= 0.99, np.mean(everywhere <= 1)
    # behind the last layer, where all of that has come together
    assert np.mean(outputs <= 1.001) >= 0.97, np.mean(outputs <= 1.001)


def test_a_residual_net_is_all_integers(tmp_path: Path) -> None:
    weights = {"a": normal(4, 3, 3, 3), "b": normal(4), "d": normal(4, 1, 3, 3), "f": normal(4, 2)}
    nodes = [
        node("Conv", "x", "a", "b", output="c", pads=[1] * 4, strides=[2, 2]),
        node("Relu", "c", output="r"),
        node("Conv", "r", "d", "b", output="e", pads=[1] * 4, group=4),
        node("Add", "e", "r", output="s"),
        node("GlobalAveragePool", "s", output="g"),
        node("Flatten", "g", output="h"),
        node("MatMul", "h", "f"),
    ]
    x = normal(20, 3, 9, 9)
    model = quantized(model_of(nodes, weights, (1, 3, 9, 9)), x, tmp_path)
    graph = load(model)
    assert np.mean(apart_everywhere(model, graph, x) <= 1) >= 0.99
    assert [item.op for item in graph.nodes] == [
        "quantize", "transpose", "conv2d_int8", "depthwise_conv2d_int8", "add_int8", "global_average_int8",
        "dense_int8", "dequantize",
    ]  # fmt: skip
    conv = graph.nodes[2]
    weight, bias = (graph.tensor(name) for name in conv.inputs[1:3])
    assert (weight.shape, weight.dtype, weight.quantization.axis) == ((4, 3, 3, 3), "int8", 0)  # type: ignore[union-attr]
    assert (bias.shape, bias.dtype) == ((4,), "int32")
    x_scale = graph.tensor(conv.inputs[0]).quantization.scale  # type: ignore[union-attr]
    np.testing.assert_allclose(bias.quantization.scale, x_scale * weight.quantization.scale, rtol=1e-6)  # type: ignore[union-attr]
    assert conv.attributes["low"] == conv.attributes["y_zero"], "the ReLU is part of the convolution"


def pair(name: str, *, scale: float = 0.1, zero: int = 0, kind: Any = np.int8) -> tuple[list[onnx.NodeProto], Arrays]:
    """QuantizeLinear and DequantizeLinear of value ``name``, giving ``name``q."""
    nodes = [
        node("QuantizeLinear", name, f"{name}s", f"{name}z", output=f"{name}i"),
        node("DequantizeLinear", f"{name}i", f"{name}s", f"{name}z", output=f"{name}q"),
    ]
    return nodes, {f"{name}s": np.float32(scale), f"{name}z": np.array(zero, kind)}


def test_a_layer_without_quantisation_behind_it_is_computed_on_real_values() -> None:
    nodes, weights = pair("x", scale=0.03)
    weights |= {"w": np.random.default_rng(0).integers(-127, 128, (3, 4)).astype(np.int8), "k": np.float32(0.01)}
    nodes += [node("DequantizeLinear", "w", "k", output="r"), node("Gemm", "xq", "r", transB=1)]
    model, x = model_of(nodes, weights, (1, 4)), normal(1, 4)
    graph = load(model)
    assert [item.op for item in graph.nodes] == ["quantize", "dequantize", "dense"]
    np.testing.assert_allclose(evaluate(graph, {"x": x})["y"], runtime(model, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op", ["Add", "Mul", "Sub", "Div"])
@pytest.mark.parametrize("stored", [True, False])
def test_constants_beside_int8_values(op: str, stored: bool) -> None:
    nodes, weights = pair("x", scale=0.03)
    more, others = pair("h", scale=0.05, zero=3)
    weights |= others | {"k": np.array([20, -90, 126, -128], np.int8), "l": np.float32(0.02), "m": np.float32(1.7)}
    constant = "k" if stored else "m"
    if stored:
        nodes.append(node("DequantizeLinear", "k", "l", output="c"))
        constant = "c"
    nodes += [node(op, "xq", constant, output="h"), *more, node("Identity", "hq")]
    model, x = model_of(nodes, weights, (1, 4)), normal(1, 4)
    graph = load(model)
    ops = {item.op for item in graph.nodes}
    assert ops & {"lookup_int8", "add_int8", "multiply_int8"} or op == "Div"
    assert (np.abs(evaluate(graph, {"x": x})["y"] - runtime(model, x)) <= 0.0501).all()


def test_other_scales_on_both_sides_of_a_move_are_adjusted() -> None:
    nodes, weights = pair("x", scale=0.03)
    more, others = pair("h", scale=0.05, zero=3)
    weights |= others
    nodes += [node("Transpose", "xq", output="h", perm=[0, 2, 1]), *more, node("Identity", "hq")]
    model, x = model_of(nodes, weights, (1, 4, 3)), normal(1, 4, 3)
    graph = load(model)
    assert [item.op for item in graph.nodes][:2] == ["quantize", "lookup_int8"]
    assert (np.abs(evaluate(graph, {"x": x})["y"] - runtime(model, x)) <= 0.0501).all()


def layer(**changes: Any) -> onnx.ModelProto:
    """x, quantised, times a quantised weight, quantised."""
    nodes, weights = pair("x", scale=0.03)
    more, others = pair("h", scale=0.05, zero=3)
    weights |= others | {"w": np.ones((3, 4), np.int8), "k": np.float32(0.01), "z": np.int8(0), **changes}
    nodes += [node("DequantizeLinear", "w", "k", "z", output="r"), node("Gemm", "xq", "r", output="h", transB=1)]
    return model_of([*nodes, *more, node("Identity", "hq")], weights, (1, 4))


REFUSED = [
    (layer(z=np.int8(3)), "the weight 'w' has zero points other than 0; quantise weights symmetrically"),
    (layer(xs=np.float32(0)), "its scale must be above zero"),
    (layer(xs=np.float32(np.nan)), "its scale must be above zero"),
    (layer(hz=np.array(3, np.int16)), "integers of the type int16"),
    (layer(xs=np.ones(4, np.float32), xz=np.zeros(4, np.int8)), "an activation takes one scale"),
    (layer(k=np.ones(2, np.float32), z=np.zeros(2, np.int8)), "2 scales do not fit 'w'"),
    (layer(xs=np.float32(1e30), k=np.float32(1e30)), r"a scale factor must be|finite"),
]


@pytest.mark.parametrize("index", range(len(REFUSED)), ids=lambda index: REFUSED[index][1][:40])
def test_refusals(index: int) -> None:
    model, message = REFUSED[index]
    with pytest.raises(ModelError, match=message):
        load(model)


def test_stored_integers_are_not_taken_for_real_numbers() -> None:
    nodes, weights = pair("x")
    model = model_of([*nodes[:1], node("Relu", "xi")], weights, (1, 4), kind=TensorProto.FLOAT)
    with pytest.raises(ModelError, match="works on stored integers"):
        load(model)
