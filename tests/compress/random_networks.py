"""Random small convolutional networks, and how far int8 can be from float in each of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from microtune.compress.folding import drop_dead
from microtune.frontends.builder import Builder
from microtune.ir import Graph, Node, Tensor
from microtune.ops import OPS

GAINS = {"leaky_relu": 1.0, "hard_swish": 1.5, "hard_sigmoid": 0.25, "sigmoid": 0.25, "tanh": 1.0}
"""Largest slope of each activation that becomes a table."""

ACTIVATIONS = {
    **{"relu": {}, "relu6": {}, "clamp": {"low": -0.5, "high": 1.25}, "leaky_relu": {"alpha": 0.1}},
    **{"hard_swish": {}, "hard_sigmoid": {"alpha": 0.2, "beta": 0.5}, "sigmoid": {}, "tanh": {}},
}
STEPS = (
    *("conv2d", "conv2d", "depthwise_conv2d", "activation", "activation", "max_pool2d", "average_pool2d", "add"),
    *("multiply", "constant", "concat", "pad", "slice", "transpose", "channel_affine"),
)


class Network:
    """Writes one operator after the other on images that exist already."""

    def __init__(self, r: np.random.Generator) -> None:
        self.r = r
        self.builder = Builder("net")
        shape = (int(r.integers(4, 9)), int(r.integers(4, 9)), int(r.integers(1, 4)))
        self.images = [self.builder.input("x", shape)]

    def emit(self, op: str, inputs: list[Tensor], **attributes: object) -> Tensor:
        return self.builder.emit(op, inputs, op, "test", **attributes)

    def weights(self, *shape: int, fan: int) -> Tensor:
        return self.builder.constant("w", self.r.normal(size=shape) / fan**0.5, "test")

    def bias(self, size: int) -> list[Tensor]:
        return [self.builder.constant("b", 0.3 * self.r.normal(size=size), "test")] if self.r.uniform() < 0.7 else []

    def window(self, x: Tensor) -> tuple[tuple[int, int], dict[str, tuple[object, object]]]:
        kernel = tuple(int(self.r.integers(1, 1 + min(3, size))) for size in x.shape[:2])
        padding = tuple((int(self.r.integers(0, taps)), int(self.r.integers(0, taps))) for taps in kernel)
        return (kernel[0], kernel[1]), {
            "stride": (int(self.r.integers(1, 3)), int(self.r.integers(1, 3))),
            "padding": (padding[0], padding[1]),
        }

    def step(self, kind: str) -> Tensor | None:
        r = self.r
        x = self.images[r.integers(len(self.images))]
        channels = x.shape[2]
        if kind == "conv2d":
            (rows, columns), geometry = self.window(x)
            outputs = int(r.integers(1, 7))
            weight = self.weights(outputs, rows, columns, channels, fan=rows * columns * channels)
            return self.emit("conv2d", [x, weight, *self.bias(outputs)], **geometry)
        if kind == "depthwise_conv2d":
            (rows, columns), geometry = self.window(x)
            outputs = channels * int(r.integers(1, 3))
            weight = self.weights(rows, columns, outputs, fan=rows * columns)
            return self.emit("depthwise_conv2d", [x, weight, *self.bias(outputs)], **geometry)
        if kind == "activation":
            name = str(r.choice(list(ACTIVATIONS)))
            return self.emit(name, [x], **ACTIVATIONS[name])
        if kind in ("max_pool2d", "average_pool2d"):
            kernel, geometry = self.window(x)
            more = {"include_padding": bool(r.integers(2))} if kind == "average_pool2d" else {}
            return self.emit(kind, [x], kernel=kernel, **geometry, **more)
        if kind in ("add", "multiply"):
            alike = [other for other in self.images if other.shape == x.shape]
            return self.emit(kind, [x, alike[r.integers(len(alike))]])
        if kind == "constant":
            return self.emit("add", [x, self.builder.constant("c", r.normal(size=x.shape), "test")])
        if kind == "concat":
            alike = [other for other in self.images if other.shape[:2] == x.shape[:2]]
            return self.emit("concat", [x, alike[r.integers(len(alike))]], axis=2)
        if kind == "pad":
            edges = tuple((int(a), int(b)) for a, b in r.integers(0, 2, (3, 2)))
            return self.emit("pad", [x], padding=edges, value=0.0)
        if kind == "slice":
            axis = int(r.integers(3))
            start = int(r.integers(x.shape[axis]))
            return self.emit("slice", [x], axis=axis, start=start, stop=int(r.integers(start, x.shape[axis])) + 1)
        if kind == "transpose":
            return self.emit("transpose", [x], permutation=(1, 0, 2))
        gamma = self.builder.constant("gamma", r.normal(size=channels), "test")
        return self.emit("channel_affine", [x, gamma, self.builder.constant("beta", r.normal(size=channels), "test")])

    def finish(self) -> Graph:
        x = self.images[-1]
        if self.r.uniform() < 0.5:
            x = self.emit("global_average", [x])
        x = self.builder.reshape(x, (x.size,), "flat", "test")
        outputs = int(self.r.integers(2, 6))
        x = self.emit("dense", [x, self.weights(outputs, x.size, fan=x.size), *self.bias(outputs)])
        if self.r.uniform() < 0.5:
            x = self.emit("softmax", [x])
        return drop_dead(self.builder.finish(x, "test"))


def random_network(r: np.random.Generator) -> Graph:
    """Two to eight operators on images, then a dense layer, perhaps with a softmax."""
    network = Network(r)
    for _ in range(int(r.integers(2, 9))):
        found = network.step(str(r.choice(STEPS)))
        if found is not None and found.size <= 2000:
            network.images.append(found)
    return network.finish()


def float_values(graph: Graph, sample: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor for one sample in float64, constants among them."""
    found = {tensor.name: tensor.data.astype(np.float64) for tensor in graph.constants if tensor.data is not None}
    found[graph.inputs[0]] = sample.astype(np.float64)
    for node in graph.nodes:
        found[node.output] = OPS[node.op].reference([found[name] for name in node.inputs], node.attributes)[0]
    return found


def error_bounds(graph: Graph, int8_graph: Graph, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How far each tensor of ``int8_graph`` can be from that of ``graph`` in ``values``, by worst case at every step.

    Holds for a sample inside every tensor's range. Each rounding to int8 costs 0.75 steps (gemmlowp rounds twice) and
    0.5 where the range's end was moved so that zero is a step; 1.3 covers the float32 of scales and tables too.
    """
    bounds: dict[str, np.ndarray] = {}

    def scale(name: str) -> float:
        quantization = int8_graph.tensors[name].quantization if name in int8_graph.tensors else None
        return 0.0 if quantization is None or quantization.axis is not None else float(quantization.scale)

    def error(name: str) -> np.ndarray:
        if name not in bounds:  # the input, or a constant that is added
            bounds[name] = np.full(values[name].shape, 1.3 * scale(name))
        return bounds[name]

    for node in graph.nodes:
        bounds[node.output] = _propagated(node, int8_graph, values, error) + 1.3 * scale(node.output)
    return bounds


def _propagated(
    node: Node,
    int8_graph: Graph,
    values: Mapping[str, np.ndarray],
    error: Callable[[str], np.ndarray],
) -> np.ndarray:
    """The bound of a node's output before it is rounded, from those of its inputs."""

    def reference(*arrays: np.ndarray) -> np.ndarray:
        return np.asarray(OPS[node.op].reference(arrays, node.attributes)[0])

    x = values[node.inputs[0]]
    e = error(node.inputs[0])
    if node.op in ("dense", "conv2d", "depthwise_conv2d", "channel_affine"):
        weight = values[node.inputs[1]]
        quantized = int8_graph.tensors[node.inputs[1]].quantization
        step = quantized.scale.astype(np.float64)
        shape = [1] * weight.ndim
        shape[2 if node.op == "depthwise_conv2d" else 0] = -1
        half = np.broadcast_to(step.reshape(shape) / 2, weight.shape)
        none = np.zeros(values[node.output].shape[-1])
        bias = next(other.inputs[2] for other in int8_graph.nodes if node.inputs[1] in other.inputs)
        bias_step = int8_graph.tensors[bias].quantization.scale.astype(np.float64)
        return reference(e, np.abs(weight), none) + reference(np.abs(x) + e, half, none) + bias_step / 2
    if node.op in ("add", "multiply"):
        y, f = values[node.inputs[1]], error(node.inputs[1])
        return e + f if node.op == "add" else np.abs(x) * f + np.abs(y) * e + e * f
    if node.op == "concat":
        return np.concatenate([error(name) for name in node.inputs], axis=node.attributes["axis"])
    if node.op in GAINS:
        return GAINS[node.op] * e
    if node.op in ("relu", "relu6", "clamp"):
        return e
    if node.op == "softmax":
        return values[node.output] * np.expm1(2 * e.max()) + 1e-6
    return reference(e)  # means, maxima and moves of the errors
