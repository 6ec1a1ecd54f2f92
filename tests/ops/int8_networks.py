"""Random int8 networks layer by layer, each with its real-valued twin in PyTorch for gradients.

Every layer is run at once by its numpy reference, so that scales can be chosen with some outputs saturated. The twin
computes in float64 on dequantised numbers; after each layer its value is replaced by the one the int8 layer gave
(rounding is straight through) and saturated elements are cut off: PyTorch's autograd then does the rest.

``magnitude`` makes the twin's backward pass add up absolute values: what rounding errors are measured by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from microtune.ir import Graph, Node, Quantization, Tensor, constant, verify
from microtune.ops import OPS
from microtune.ops import quantized_build as build
from microtune.ops.evaluate import evaluate

F = torch.nn.functional
Values = dict[str, torch.Tensor]
Twin = Callable[[Values, Callable[[torch.Tensor], torch.Tensor]], torch.Tensor]


def real(stored: np.ndarray, q: Quantization) -> np.ndarray:
    """Real values in float64."""
    shape = [1] * stored.ndim
    if q.axis is not None:
        shape[q.axis] = -1
    scale, zero = np.asarray(q.scale, np.float64).reshape(shape), np.asarray(q.zero_point).reshape(shape)
    return np.asarray(scale * (stored.astype(np.int64) - zero))


class Network:
    """A graph under construction. ``values`` holds what every tensor has for the one input."""

    def __init__(self, generator: np.random.Generator, shape: tuple[int, ...]) -> None:
        self.generator = generator
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.values: dict[str, np.ndarray] = {}
        self.twins: list[tuple[str, Twin, np.ndarray]] = []
        self.trained: list[str] = ["x"]
        x = generator.integers(-128, 128, shape).astype(np.int8)
        self.add_tensor(Tensor("x", shape, "int8", None, build.activation_quantization(0.02, int(x.flat[0]))), x)

    def add_tensor(self, tensor: Tensor, value: np.ndarray) -> str:
        self.tensors[tensor.name], self.values[tensor.name] = tensor, value
        return tensor.name

    def constant(self, wish: str, data: np.ndarray, q: Quantization | None = None) -> str:
        return self.add_tensor(constant(f"{wish}{len(self.nodes)}", data, q), data)

    def q(self, name: str) -> Quantization:
        found = self.tensors[name].quantization
        assert found is not None
        return found

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def real_values(self, magnitude: bool = False) -> Values:
        """Dequantised tensors; those of constants and the input are leaves that ask for a gradient."""
        found = {}
        for name, tensor in self.tensors.items():
            if tensor.quantization is not None:
                value = real(self.values[name], tensor.quantization)
                found[name] = torch.tensor(np.abs(value) if magnitude else value, requires_grad=name in self.trained)
        return found

    def output_quantization(self, values: np.ndarray) -> Quantization:
        """A range that cuts off the outermost fifth of the values, or so."""
        low, high = np.quantile(np.append(values, 0.0), [0.1, 0.9])
        scale = max(high - low, 1e-3) / 255
        return build.activation_quantization(scale, int(np.clip(round(-128 - low / scale), -128, 127)))

    def layer(
        self, op: str, inputs: Sequence[str], given: Mapping[str, Any], y_q: Quantization, twin: Twin,
        inside: np.ndarray | None = None,
    ) -> str:  # fmt: skip
        """Append a node, run it, and keep its twin. ``inside``: what passes a gradient; None: what lies between
        ``low`` and ``high``."""
        y = f"y{len(self.nodes)}"
        tensors = [self.tensors[name] for name in inputs]
        names = [y, *(f"{y}.{index}" for index in range(1, OPS[op].count(tensors, given)))]
        outputs = OPS[op].results(names, tensors, given)
        results = OPS[op].reference([self.values[name] for name in inputs], given)
        for tensor, value in zip(outputs, results, strict=True):
            self.add_tensor(Tensor(tensor.name, tensor.shape, tensor.dtype, None, y_q), value)
        self.nodes.append(Node(op, y, tuple(inputs), tuple(names), given))
        if inside is None:
            inside = (results[0] > given["low"]) & (results[0] < given["high"])
        self.twins.append((y, twin, inside))
        return y

    def fused(self) -> str:
        return str(self.generator.choice(["none", "relu", "relu6"]))

    def _weights(self, x: str, shape: tuple[int, ...], axis: int) -> tuple[str, str, np.ndarray]:
        channels = shape[axis]
        scales = (10.0 ** self.generator.uniform(-2.5, -2, channels)).astype(np.float32)
        weight = self.generator.integers(-127, 128, shape).astype(np.int8)
        w = self.constant("w", weight, build.channel_quantization(scales, axis))
        bias = self.generator.integers(-3000, 3000, channels).astype(np.int32)
        b = self.constant("b", bias, build.bias_quantization(self.q(x), scales))
        self.trained += [w, b]
        return w, b, scales

    def _linear(self, op: str, x: str, weight: tuple[int, ...], given: dict[str, Any], twin: Any, part: bool) -> str:
        """A convolution or dense layer; ``part``: some input channels come from a tensor of their own."""
        axis = 2 if op == "depthwise_conv2d_int8" else 0
        w, b, scales = self._weights(x, weight, axis)
        learnt: tuple[str, ...] = ()
        if part:
            given["start"] = int(self.generator.integers(0, weight[-1]))
            count = int(self.generator.integers(1, weight[-1] - given["start"] + 1))
            data = self.generator.integers(-127, 128, (*weight[:-1], count)).astype(np.int8)
            learnt = (self.constant("l", data, self.q(w)),)
            self.trained = [*(name for name in self.trained if name != w), *learnt]

        def compute(v: Values, size: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
            whole = v[w]
            if learnt:
                end = given["start"] + v[learnt[0]].shape[-1]
                whole = torch.cat([whole[..., : given["start"]], v[learnt[0]], whole[..., end:]], -1)
            return twin(v[x], whole, v[b])

        exact = compute(self.real_values(), lambda t: t).detach().numpy()
        y_q = self.output_quantization(exact)
        multiplier, shift = build.layer_constants(self.q(x), scales, y_q)
        constants = (self.constant("m", multiplier), self.constant("s", shift))
        given |= build.layer_attributes(self.q(x), y_q, self.fused())
        return self.layer(op, (x, w, b, *constants, *learnt), given, y_q, compute)

    def _window(self, x: str, most: int = 3) -> tuple[tuple[int, int], dict[str, Any]]:
        g, (height, width, _) = self.generator, self.shape(x)
        kernel = tuple(int(g.integers(1, most + 1)) for _ in range(2))
        padding = tuple((int(g.integers(0, k)), int(g.integers(0, k))) for k in kernel)
        given = zip(padding, (height, width), kernel, strict=True)
        padding = tuple(p if size + sum(p) >= k else (k - 1, k - 1) for p, size, k in given)
        return kernel, {"stride": (int(g.integers(1, 3)), int(g.integers(1, 3))), "padding": padding}

    @staticmethod
    def _image(x: torch.Tensor, given: Mapping[str, Any], value: float = 0.0) -> torch.Tensor:
        (top, bottom), (left, right) = given["padding"]
        return F.pad(x.permute(2, 0, 1)[None], (left, right, top, bottom), value=value)

    def conv(self, x: str, outputs: int, part: bool = False) -> str:
        kernel, given = self._window(x)

        def twin(v: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            y = F.conv2d(self._image(v, given), w.permute(0, 3, 1, 2), b, stride=given["stride"])
            return y[0].permute(1, 2, 0)

        return self._linear("conv2d_int8", x, (outputs, *kernel, self.shape(x)[2]), given, twin, part)

    def depthwise(self, x: str, multiplier: int = 1) -> str:
        kernel, given = self._window(x)
        channels = self.shape(x)[2]

        def twin(v: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            weight = w.permute(2, 0, 1)[:, None]
            y = F.conv2d(self._image(v, given), weight, b, stride=given["stride"], groups=channels)
            return y[0].permute(1, 2, 0)

        return self._linear("depthwise_conv2d_int8", x, (*kernel, channels * multiplier), given, twin, False)

    def dense(self, x: str, outputs: int, part: bool = False) -> str:
        weight = (outputs, self.shape(x)[0])
        return self._linear("dense_int8", x, weight, {}, lambda v, w, b: w @ v + b, part)

    def two(self, op: str, a: str, b: str) -> str:
        """add_int8 or multiply_int8."""
        twin: Twin = lambda v, size: v[a] + v[b] if op == "add_int8" else v[a] * v[b]  # noqa: E731
        y_q = self.output_quantization(twin(self.real_values(), lambda t: t).detach().numpy())
        make = build.add_attributes if op == "add_int8" else build.multiply_attributes
        return self.layer(op, (a, b), make(self.q(a), self.q(b), y_q, self.fused()), y_q, twin)

    def average_pool(self, x: str) -> str:
        kernel, given = self._window(x)
        q = self.q(x)
        given |= {"kernel": kernel, **build.pool_attributes(q, self.fused())}

        def twin(v: Values, size: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
            counts = F.avg_pool2d(self._image(torch.ones_like(v[x]), given), kernel, given["stride"])
            y = F.avg_pool2d(self._image(v[x], given), kernel, given["stride"]) / counts
            return y[0].permute(1, 2, 0)

        return self.layer("average_pool2d_int8", (x,), given, q, twin)

    def max_pool(self, x: str) -> str:
        kernel, given = self._window(x)
        q = self.q(x)
        given |= {"kernel": kernel, **build.pool_attributes(q, self.fused())}
        # which element is the largest is known from the values; the twin then only picks
        numbered = torch.tensor(self.values[x].astype(np.float64))
        padded = self._image(numbered, given, -np.inf)
        _, places = F.max_pool2d(padded, kernel, given["stride"], return_indices=True)

        def twin(v: Values, size: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
            flat = self._image(v[x], given)[0].flatten(1)
            return flat.gather(1, places[0].flatten(1)).reshape(places[0].shape).permute(1, 2, 0)

        return self.layer("max_pool2d_int8", (x,), given, q, twin)

    def global_average(self, x: str) -> str:
        shape = self.shape(x)
        count = int(np.prod(shape[:-1]))
        twin: Twin = lambda v, size: v[x].reshape(count, -1).mean(0)  # noqa: E731
        y_q = self.output_quantization(twin(self.real_values(), lambda t: t).detach().numpy())
        given = build.average_attributes(self.q(x), y_q, count, self.fused())
        return self.layer("global_average_int8", (x,), given, y_q, twin)

    def lookup(self, x: str, function: Callable[[torch.Tensor], torch.Tensor], y_q: Quantization | None = None) -> str:
        """A function of one value, PyTorch's."""
        at = torch.tensor(real(self.values[x], self.q(x)), requires_grad=True)
        exact = function(at)
        exact.sum().backward()
        slopes = at.grad
        assert slopes is not None
        exact_values = exact.detach().numpy()
        everything = np.float64(self.q(x).scale) * (np.arange(-128, 128) - int(self.q(x).zero_point))
        all_values = function(torch.tensor(everything)).numpy()
        y_q = y_q or self.output_quantization(all_values)
        table = build.lookup_table(lambda v: function(torch.tensor(v)).numpy(), self.q(x), y_q)
        stored = exact_values / np.float64(y_q.scale) + int(y_q.zero_point)
        inside = (stored > -128.5) & (stored < 127.5)
        twin: Twin = lambda v, size: v[x] * size(slopes)  # noqa: E731
        return self.layer("lookup_int8", (x, self.constant("t", table)), {}, y_q, twin, inside)

    def softmax(self, x: str) -> str:
        """Its gradient is that of softmax at the output as stored: the twin is the linear map with that Jacobian."""
        y_q = build.activation_quantization(build.SOFTMAX_SCALE, build.SOFTMAX_ZERO)
        table = self.constant("t", build.softmax_table(self.q(x)))
        (stored,) = OPS["softmax_int8"].reference([self.values[x], self.values[table]], {})
        p = torch.tensor(real(stored, y_q).ravel())

        def twin(v: Values, size: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
            jacobian = size(torch.diag(p)) + (size(-torch.outer(p, p)))
            return (jacobian @ v[x].flatten()).reshape(v[x].shape)

        return self.layer("softmax_int8", (x, table), {}, y_q, twin, np.ones(stored.shape, bool))

    def moved(self, op: str, inputs: Sequence[str], given: Mapping[str, Any], twin: Twin) -> str:
        """reshape, pad, slice, concat, transpose: integers elsewhere; all of them pass."""
        shape = OPS[op].shape([self.tensors[name] for name in inputs], given)[0]
        return self.layer(op, inputs, given, self.q(inputs[0]), twin, np.ones(shape, bool))

    def finish(self, y: str) -> tuple[Graph, Node]:
        """A graph of what ``y`` needs, ending in the mean squared error of its real value; and its loss node."""
        q = self.q(y)
        crossing = {"scale": float(q.scale), "zero_point": int(q.zero_point)}
        used, kept = {y}, []
        for node in reversed(self.nodes):
            if node.output in used:
                used.update(node.inputs)
                kept.append(node)
        self.trained = [name for name in self.trained if name in used]
        self.output = y
        shape = self.shape(y)
        loss = Node("mse", "loss", ("real", "target"), ("loss", "dy"))
        nodes = [*reversed(kept), Node("dequantize", "out", (y,), ("real",), crossing), loss]
        extra = [Tensor("real", shape), Tensor("target", shape), Tensor("loss", ()), Tensor("dy", shape)]
        names = {name for node in nodes for name in (*node.inputs, *node.outputs)} | {"x"}
        tensors = {name: tensor for name, tensor in self.tensors.items() if name in names}
        tensors |= {tensor.name: tensor for tensor in extra}
        return verify(Graph("net", tensors, tuple(nodes), ("x", "target"), ("loss",))), loss

    def torch_gradients(self, target: np.ndarray, magnitude: bool = False) -> dict[str, np.ndarray]:
        """dL/d(real value) of everything trained, by autograd."""
        size: Callable[[torch.Tensor], torch.Tensor] = torch.abs if magnitude else lambda t: t
        values = self.real_values(magnitude)
        for y, twin, inside in self.twins:
            value = values[y]
            approximate = twin(values, size)
            straight = approximate + (value - approximate).detach()
            values[y] = torch.where(torch.tensor(inside), straight, value)
        q = self.q(self.output)
        (shown,) = OPS["dequantize"].reference(
            [self.values[self.output]], {"scale": float(q.scale), "zero_point": int(q.zero_point)}
        )
        error = torch.tensor(2 * (shown.astype(np.float64) - target) / target.size)
        leaves = [values[name] for name in self.trained]
        found = torch.autograd.grad(values[self.output], leaves, size(error), allow_unused=True)
        return {
            name: np.zeros(self.shape(name)) if gradient is None else gradient.numpy()
            for name, gradient in zip(self.trained, found, strict=True)
        }


def run(graph: Graph, outputs: Sequence[str], inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors of a graph in float64."""
    asked = Graph(graph.name, graph.tensors, graph.nodes, graph.inputs, tuple(dict.fromkeys(outputs)))
    return evaluate(asked, inputs, np.float64)
