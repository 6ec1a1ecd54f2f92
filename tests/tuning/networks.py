"""Random small convolutional networks, as floats and as int8, and the gradients of what a scheme makes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import microtune as mt
from microtune.compiler.passes.autodiff import differentiate
from microtune.frontends.builder import Builder
from microtune.ir import Graph, Node, Tensor, constant, verify
from microtune.ops.evaluate import evaluate
from microtune.tuning.selection import Selection

ACTIVATIONS = (("relu", {}), ("relu6", {}), ("hard_swish", {}), ("clamp", {"low": -0.75, "high": 1.5}), ("", {}))
BLOCKS = ("conv", "depthwise", "residual", "max_pool", "average_pool", "concat")


class _Writer:
    def __init__(self, r: np.random.Generator) -> None:
        self.r, self.builder = r, Builder("net")

    def emit(self, op: str, inputs: list[Tensor], **attributes: object) -> Tensor:
        return self.builder.emit(op, inputs, op, "test", **attributes)

    def layer(self, op: str, x: Tensor, shape: tuple[int, ...], outputs: int, **geometry: object) -> Tensor:
        r = self.r
        fan = int(np.prod(shape)) // outputs
        weight = self.builder.constant("w", r.normal(size=shape) / fan**0.5, "test")
        bias = [self.builder.constant("b", 0.3 * r.normal(size=outputs), "test")] if r.uniform() < 0.7 else []
        return self.emit(op, [x, weight, *bias], **geometry)

    def active(self, x: Tensor) -> Tensor:
        name, given = ACTIVATIONS[self.r.integers(len(ACTIVATIONS))]
        return self.emit(name, [x], **given) if name else x

    def conv(self, x: Tensor, outputs: int, same: bool = False) -> Tensor:
        r = self.r
        taps = int(r.choice([1, 2, 3]))
        before = (taps - 1) // 2
        stride = 1 if same else int(r.integers(1, 3))
        padding = ((before, taps - 1 - before),) * 2
        shape = (outputs, taps, taps, x.shape[2])
        return self.layer("conv2d", x, shape, outputs, stride=(stride, stride), padding=padding)

    def depthwise(self, x: Tensor) -> Tensor:
        outputs = x.shape[2] * int(self.r.integers(1, 3))
        geometry = {"stride": (1, int(self.r.integers(1, 3))), "padding": ((1, 1), (1, 0))}
        return self.layer("depthwise_conv2d", x, (3, 2, outputs), outputs, **geometry)

    def block(self, kind: str, x: Tensor) -> Tensor:
        if kind == "conv":
            return self.active(self.conv(x, int(self.r.integers(2, 7))))
        if kind == "depthwise":
            return self.active(self.depthwise(x))
        if kind == "residual":
            return self.active(self.emit("add", [x, self.active(self.conv(x, x.shape[2], same=True))]))
        if kind == "concat":
            parts = [self.active(self.conv(x, int(self.r.integers(1, 4)), same=True)) for _ in range(2)]
            return self.emit("concat", parts, axis=2)
        given = {"kernel": (2, 2), "stride": (1, 1), "padding": ((0, 1), (1, 0))}
        more = {"include_padding": False} if kind == "average_pool" else {}
        return self.emit(f"{kind}2d", [x], **given, **more)


def random_net(r: np.random.Generator) -> Graph:
    """A convolution, up to four more blocks with a depthwise convolution among them, and two dense layers."""
    writer = _Writer(r)
    x = writer.builder.input("x", (int(r.integers(4, 8)), int(r.integers(4, 8)), int(r.integers(1, 4))))
    x = writer.active(writer.conv(x, int(r.integers(2, 6))))
    kinds = ["depthwise", *(str(kind) for kind in r.choice(BLOCKS, int(r.integers(1, 4))))]
    for kind in r.permutation(kinds):
        x = writer.block(str(kind), x)
    x = writer.emit("global_average", [x]) if r.uniform() < 0.5 else x
    x = writer.builder.reshape(x, (x.size,), "flat", "test")
    hidden, outputs = int(r.integers(4, 8)), int(r.integers(3, 5))
    x = writer.active(writer.layer("dense", x, (hidden, x.size), hidden))
    return verify(writer.builder.finish(writer.layer("dense", x, (outputs, hidden), outputs), "test"))


def random_int8_net(r: np.random.Generator) -> Graph:
    """The same, quantised on random samples."""
    net = random_net(r)
    return mt.quantize(net, r.normal(size=(24, *net.tensor("x").shape)).astype(np.float32))


def random_sample(r: np.random.Generator, graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    """An input in the type that the graph takes, and a target."""
    tensor, outputs = graph.tensor(graph.inputs[0]), graph.tensor(graph.outputs[0]).shape
    if tensor.dtype == "int8":
        return r.integers(-100, 100, tensor.shape).astype(np.int8), r.normal(size=outputs).astype(np.float32)
    return r.normal(size=tensor.shape).astype(np.float32), r.normal(size=outputs).astype(np.float32)


def moved(r: np.random.Generator, selection: Selection) -> Selection:
    """The selection with other values in the float tensors that learn: at a start of zeros gradients vanish."""
    graph = selection.graph
    tensors = dict(graph.tensors)
    for name in selection.trained:
        tensor = tensors[name]
        if tensor.dtype == "float32" and tensor.data is not None:
            size = 0.3 / max(np.prod(tensor.shape[1:]), 1) ** 0.5
            data = tensor.data + size * r.normal(size=tensor.shape)
            tensors[name] = constant(name, data.astype(np.float32))
    return replace(selection, graph=replace(graph, tensors=tensors))


def gradients(
    selection: Selection, x: np.ndarray, target: np.ndarray, dtype: type[np.floating] = np.float64
) -> dict[str, np.ndarray]:
    """{name: gradient of the mean squared error} by the compiler's backward graph and the operators' references."""
    graph = selection.graph
    output = graph.outputs[0]
    shape = graph.tensor(output).shape
    loss = Node("mse", "loss", (output, "target"), ("loss", "loss.grad"))
    tensors = [Tensor("target", shape), Tensor("loss", ()), Tensor("loss.grad", shape)]
    known = {**graph.tensors, **{tensor.name: tensor for tensor in tensors}}
    whole = replace(graph, tensors=known, inputs=(*graph.inputs, "target"), outputs=("loss",))
    backward, names = differentiate(verify(whole.with_nodes([*graph.nodes, loss])), loss, selection.trained)
    asked = replace(verify(backward), outputs=tuple(dict.fromkeys(names.values())))
    values = {graph.inputs[0]: x if x.dtype == np.int8 else x.astype(dtype), "target": target.astype(dtype)}
    found = evaluate(asked, values, dtype)
    return {name: found[gradient] for name, gradient in names.items()}
