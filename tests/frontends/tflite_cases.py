"""Small TFLite models for the tests of the importer, and the one function that runs the imported graph.

A model is written as float or int8 from the same description (``Net``); int8 scales are chosen so that values use
their range and some saturate.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tests.ops.tflite_models import ACTIVATION, PADDING, ModelBuilder, run

from microtune.compiler.inference import compile_inference
from microtune.frontends import load
from microtune.ir import Graph
from microtune.ops.evaluate import evaluate

UNIT = 2.0**-24  # unit roundoff of float32
# of the operators that are not at their second version
VERSIONS = {
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "EXPAND_DIMS": 1,
    "FULLY_CONNECTED": 5,
    "HARD_SWISH": 1,
    "RELU_N1_TO_1": 1,
    "RESHAPE": 1,
    "SQUEEZE": 1,
}
SIGMOID, SOFTMAX, TANH = (1 / 256, -128), (1 / 256, -128), (1 / 128, 0)


def execute(graph: Graph, samples: np.ndarray) -> np.ndarray:
    """Outputs of samples (n, *input shape), by what the graph means; cheap enough for hundreds of small graphs."""
    return evaluate(graph, {graph.inputs[0]: samples})[graph.outputs[0]]


def execute_compiled(graph: Graph, samples: np.ndarray) -> np.ndarray:
    """The same by the generated C."""
    with tempfile.TemporaryDirectory() as folder:
        return compile_inference(graph, Path(folder) / "net").run(samples)


def load_bytes(model: bytes) -> Graph:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.tflite"
        path.write_bytes(model)
        return load(path)


class Net:
    """A model of one input in the making, each operator on what the last one gave. ``shape`` has the batch in front."""

    def __init__(self, shape: Sequence[int], dtype: str, random: np.random.Generator) -> None:
        self.builder = ModelBuilder()
        self.dtype, self.random, self.shape = dtype, random, tuple(shape)
        self.scale, self.zero = 0.05, int(random.integers(-128, 128))
        self.input_shape = self.shape
        self.at = self.builder.input("x", self.shape, dtype, *self._own())
        self.count = 0
        self.without_bias: list[int] = []

    def _own(self) -> tuple[Any, ...]:
        return (self.scale, self.zero) if self.dtype == "int8" else ()

    def _name(self, kind: str) -> str:
        self.count += 1
        return f"net/{kind}{self.count}"

    def sample(self, count: int = 2) -> np.ndarray:
        """Inputs (count, *input shape without batch)."""
        shape = (count, *self.input_shape[1:])
        if self.dtype == "int8":
            return self.random.integers(-128, 128, shape).astype(np.int8)
        return self.random.normal(size=shape).astype(np.float32)

    def constant(self, data: Any, **quantization: Any) -> int:
        return self.builder.constant(self._name("constant"), np.asarray(data), **quantization)

    def emit(
        self, code: str, others: Sequence[int], shape: Sequence[int], options: str | None = None,
        quantization: tuple[float, int] | None = None, first: bool = True, **values: Any,
    ) -> Net:  # fmt: skip
        """An operator on the last value and ``others``; its scale is ``quantization`` or that of the last value."""
        if quantization is not None:
            self.scale, self.zero = quantization
        self.shape = tuple(shape)
        inputs = [self.at, *others] if first else [*others, self.at]
        self.at = self.builder.tensor(self._name(code.lower()), self.shape, self.dtype, *self._own())
        self.builder.operator(code, inputs, [self.at], options, VERSIONS.get(code, 2), **values)
        return self

    def layer(
        self, code: str, weight_shape: Sequence[int], shape: Sequence[int], options: str, bias: bool = True,
        per_channel: bool = True, **values: Any,
    ) -> Net:  # fmt: skip
        """A layer with random weights; outputs are on the first axis of the weights, of a depthwise one on the last."""
        axis = 3 if code == "DEPTHWISE_CONV_2D" else 0
        outputs = weight_shape[axis]
        terms = math.prod(weight_shape) // outputs
        if self.dtype == "float32":
            weight = self.random.normal(size=weight_shape).astype(np.float32) / np.float32(terms**0.5)
            others = [self.constant(weight)]
            others.append(self.constant(self.random.normal(size=outputs).astype(np.float32) * bias))
            return self.emit(code, others, shape, options, **values)._optional_bias(bias)
        scales = np.exp(self.random.uniform(np.log(0.005), np.log(0.02), outputs if per_channel else 1))
        weight = self.random.integers(-127, 128, weight_shape).astype(np.int8)
        others = [self.constant(weight, scale=scales, axis=axis)]
        amounts = self.random.integers(-3000, 3000, outputs).astype(np.int32) * np.int32(bias)
        others.append(self.constant(amounts, scale=self.scale * scales))
        y_scale = self.scale * float(scales.mean()) * 73 * 73 * terms**0.5 / 60
        y_zero = int(self.random.integers(-100, 100))
        return self.emit(code, others, shape, options, (y_scale, y_zero), **values)._optional_bias(bias)

    def _optional_bias(self, bias: bool) -> Net:
        if not bias:
            self.without_bias.append(len(self.builder.graph.operators) - 1)
        return self

    def finish(self, with_all_biases: bool = False) -> bytes:
        """The file. LiteRT's convolutions want a bias: ``with_all_biases`` gives zeros where the model has none."""
        model = self.builder.finish([self.at])
        if with_all_biases:
            return model
        operators = self.builder.graph.operators
        for count, index in enumerate(self.without_bias):
            x, weight, _ = operators[index].inputs
            operators[index].inputs = [x, weight] if (index + count) % 2 == 0 else [x, weight, -1]
        return self.builder.finish([self.at])


def window(
    net: Net, code: str, taps: Sequence[int], stride: Sequence[int], padding: str, outputs: int = 0,
    activation: str = "none", **extra: Any,
) -> Net:  # fmt: skip
    """A convolution (``outputs`` channels), depthwise convolution (likewise) or pool over the last value."""
    batch, *size, channels = net.shape
    if padding == "SAME":
        spots = [-(-length // step) for length, step in zip(size, stride, strict=True)]
    else:
        spots = [(length - tap) // step + 1 for length, tap, step in zip(size, taps, stride, strict=True)]
    shape = (batch, *spots, outputs or channels)
    given: dict[str, Any] = {
        "padding": PADDING[padding],
        "strideH": stride[0],
        "strideW": stride[1],
        "fusedActivationFunction": ACTIVATION[activation],
    }
    if code == "CONV_2D":
        return net.layer(code, (outputs, *taps, channels), shape, "Conv2DOptions", **given, **extra)
    if code == "DEPTHWISE_CONV_2D":
        given["depthMultiplier"] = outputs // channels
        return net.layer(code, (1, *taps, outputs), shape, "DepthwiseConv2DOptions", **given, **extra)
    return net.emit(code, [], shape, "Pool2DOptions", filterHeight=taps[0], filterWidth=taps[1], **given)


def dense(net: Net, outputs: int, activation: str = "none", keep: bool = False, **extra: Any) -> Net:
    inputs = net.shape[-1] if keep else math.prod(net.shape[1:])
    shape = (*net.shape[:-1], outputs) if keep else (net.shape[0], outputs)
    return net.layer(
        "FULLY_CONNECTED", (outputs, inputs), shape, "FullyConnectedOptions",
        fusedActivationFunction=ACTIVATION[activation], keepNumDims=keep, **extra,
    )  # fmt: skip


def add_constant(net: Net, code: str, array: np.ndarray, activation: str = "none") -> Net:
    """ADD, SUB or MUL with a constant given as real numbers of magnitude 1."""
    options = f"{code.title()}Options"
    given = {"fusedActivationFunction": ACTIVATION[activation]}
    if net.dtype == "float32":
        return net.emit(code, [net.constant(array.astype(np.float32))], net.shape, options, **given)
    stored = np.clip(np.round(array * 60), -128, 127).astype(np.int8)
    other = net.constant(stored, scale=1 / 60)
    return net.emit(code, [other], net.shape, options, (net.scale * 1.5, net.zero), **given)


def every_kind(dtype: str) -> Net:
    """A model with an operator of every kind that float and int8 have in common."""
    net = Net((1, 6, 5, 2), dtype, np.random.default_rng(3))
    window(net, "CONV_2D", (3, 3), (2, 1), "SAME", 4, "relu6")
    window(net, "DEPTHWISE_CONV_2D", (3, 3), (1, 1), "VALID", 8)
    net.emit("PAD", [net.constant(np.array([[0, 0], [1, 0], [0, 1], [0, 0]], np.int32))], (1, 2, 4, 8), "PadOptions")
    net.emit("CONCATENATION", [net.at], (1, 2, 4, 16), "ConcatenationOptions", axis=3)
    net.emit("SLICE", [net.constant(np.array(each, np.int32)) for each in ([0, 0, 1, 0], [1, 2, 2, -1])], (1, 2, 2, 16))
    window(net, "MAX_POOL_2D", (2, 1), (1, 1), "VALID")
    net.emit("TRANSPOSE", [net.constant(np.array([0, 3, 1, 2], np.int32))], (1, 16, 1, 2), "TransposeOptions")
    net.emit("MEAN", [net.constant(np.array([2, 3], np.int32))], (1, 16), "ReducerOptions", (0.1, 3))
    net.emit("LEAKY_RELU", [], (1, 16), "LeakyReluOptions", alpha=0.1)
    dense(net, 3)
    net.emit("SOFTMAX", [], (1, 3), "SoftmaxOptions", (1 / 256, -128), beta=1.0)
    return net


def compare(
    net: Net, tolerance: float = 0.0, steps: int = 0, plain: bool = True,
    run_graph: Callable[[Graph, np.ndarray], np.ndarray] = execute,
) -> Graph:  # fmt: skip
    """The imported graph computes what LiteRT does: float to ``tolerance``, int8 to ``steps``."""
    model = net.finish(with_all_biases=True)
    graph = load_bytes(net.finish())
    samples = net.sample()
    expected = np.concatenate([run(model, [sample[None]], plain)[0] for sample in samples])
    found = run_graph(graph, samples)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape or (found.shape == (len(samples), 1) and expected.shape == (len(samples),))
    if net.dtype == "int8":
        assert np.abs(found.astype(int) - expected.reshape(found.shape)).max() <= steps
    else:
        np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=0, atol=tolerance)
    return graph
