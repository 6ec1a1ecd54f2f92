"""What the update schemes mean, in PyTorch and float64: the oracle.

It reads the graph as it was *before* a scheme was applied, and adds to each layer what the scheme's definition says,
by the names that learn. Nothing of ``tuning.selection`` or ``compress.dequantization`` is used.

An int8 graph has two meanings. ``mixed``: values are those of the int8 operators, gradients pass rounding straight
through and stop where an output sits on a limit. Otherwise: what depends on a layer that learns computes with real
numbers, on dequantised weights, and stored ranges end nowhere but at an activation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from microtune.ir import Graph, Node, Quantization
from microtune.ops.evaluate import evaluate

F = torch.nn.functional
LAYERS = ("dense", "conv2d", "depthwise_conv2d")
ADDED = (".learnt", ".bias", "_gamma", "_lora_a", "_adapter_down", "_delta")
"""How the names of what schemes add to a layer go on behind the layer's."""
FUNCTIONS = {"hard_swish": F.hardswish, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}


def real(stored: np.ndarray, q: Quantization) -> np.ndarray:
    """Real values in float64."""
    shape = [1] * stored.ndim
    if q.axis is not None:
        shape[q.axis] = -1
    scale, zero = np.asarray(q.scale, np.float64).reshape(shape), np.asarray(q.zero_point, np.int64).reshape(shape)
    return np.asarray(scale * (stored.astype(np.int64) - zero))


def image(x: torch.Tensor, padding: tuple[tuple[int, int], tuple[int, int]], value: float = 0.0) -> torch.Tensor:
    (top, bottom), (left, right) = padding
    return F.pad(x.permute(2, 0, 1)[None], (left, right, top, bottom), value=value)


def linear(kind: str, x: torch.Tensor, w: torch.Tensor, given: Mapping[str, object]) -> torch.Tensor:
    """A layer without its bias."""
    if kind == "dense":
        return w @ x
    if kind == "conv2d":
        y = F.conv2d(image(x, given["padding"]), w.permute(0, 3, 1, 2), stride=given["stride"])
    else:
        weight = w.permute(2, 0, 1)[:, None]
        y = F.conv2d(image(x, given["padding"]), weight, stride=given["stride"], groups=x.shape[2])
    return y[0].permute(1, 2, 0)


def pointwise(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """(rank, I) dense or (O, 1, 1, I) convolution, on the last axis."""
    return x @ w.reshape(w.shape[0], -1).T


def pooled(kind: str, x: torch.Tensor, given: Mapping[str, object], at: torch.Tensor) -> torch.Tensor:
    """``at``: the values that decide which element is the largest."""
    kernel, stride, padding = given["kernel"], given["stride"], given["padding"]
    if kind == "max_pool2d":
        _, places = F.max_pool2d(image(at, padding, -np.inf), kernel, stride, return_indices=True)
        flat = image(x, padding)[0].flatten(1)
        return flat.gather(1, places[0].flatten(1)).reshape(places[0].shape).permute(1, 2, 0)
    counts = F.avg_pool2d(image(torch.ones_like(x), padding), kernel, stride)
    return (F.avg_pool2d(image(x, padding), kernel, stride) / counts)[0].permute(1, 2, 0)


@dataclass
class Twin:
    """``graph``: before the scheme, with a float32 output. ``learnt``: the graph after it, for what the tensors that
    learn hold. ``starts``: Sparse: {layer: first input channel that learns}. ``alpha``: of LoRA."""

    graph: Graph
    learnt: Graph
    trained: tuple[str, ...]
    mixed: bool = False
    starts: Mapping[str, int] | None = None
    alpha: float | None = None

    def leaf(self, name: str) -> torch.Tensor:
        tensor = self.learnt.tensor(name)
        assert tensor.data is not None
        q = tensor.quantization
        return torch.tensor(tensor.data.astype(np.float64) if q is None else real(tensor.data, q))

    def constant(self, name: str, kept_in_float: bool) -> torch.Tensor:
        """A frozen constant; ``kept_in_float``: it is stored in float32, of the same value but for its rounding."""
        tensor = self.graph.tensor(name)
        assert tensor.data is not None
        q = tensor.quantization
        value = tensor.data.astype(np.float64) if q is None else real(tensor.data, q)
        return torch.tensor(value.astype(np.float32).astype(np.float64) if kept_in_float else value)

    def layer(self, node: Node, x: torch.Tensor) -> torch.Tensor:
        """A layer with what the scheme adds to it."""
        kind, leaves, name = node.op.removesuffix("_int8"), self.leaves, node.name
        stored = node.op.endswith("_int8")
        w = next((leaves[n] for n in (f"{node.inputs[1]}.real", node.inputs[1]) if n in leaves), None)
        if w is None:
            w = self.constant(node.inputs[1], False)
        if f"{name}.learnt" in leaves:
            start = (self.starts or {})[name]
            part = leaves[f"{name}.learnt"]
            w = torch.cat([w[..., :start], part, w[..., start + part.shape[-1] :]], -1)
        y = linear(kind, x, w, node.attributes)
        has_bias = len(node.inputs) > 2
        names = (f"{node.inputs[2]}.real", node.inputs[2]) if has_bias else ()
        b = next((leaves[n] for n in (*names, f"{name}.bias") if n in leaves), None)
        if b is None and has_bias:
            b = self.constant(node.inputs[2], stored and not self.mixed)
        y = y if b is None else y + b
        if f"{name}_gamma" in leaves:
            return leaves[f"{name}_gamma"] * y + leaves[f"{name}_beta"]
        if f"{name}_lora_a" in leaves:
            a = leaves[f"{name}_lora_a"]
            factor = (a.shape[0] if self.alpha is None else self.alpha) / a.shape[0]
            return y + factor * pointwise(linear(kind, x, a, node.attributes), leaves[f"{name}_lora_b"])
        if f"{name}_adapter_down" in leaves:
            inner = torch.relu(pointwise(y, leaves[f"{name}_adapter_down"]))
            return y + pointwise(inner, leaves[f"{name}_adapter_up"])
        if f"{name}_delta" in leaves:
            start, part = (self.starts or {})[name], leaves[f"{name}_delta"]
            return y + linear(kind, x[..., start : start + part.shape[-1]], part, node.attributes)
        return y

    def activated(self, node: Node, y: torch.Tensor) -> torch.Tensor:
        """Real numbers: what was fused into an int8 operator."""
        q = self.graph.tensor(node.output).quantization
        if "low" not in node.attributes or q is None or node.op == "clamp" or "pool" in node.op:
            return y
        low, high, scale, zero = node.attributes["low"], node.attributes["high"], float(q.scale), int(q.zero_point)
        if low == zero or low > -128:
            y = torch.clamp(y, min=scale * (low - zero))
        end = scale * (high - zero)
        if abs(end - 6) <= scale / 2:
            return torch.clamp(y, max=6.0)
        return torch.clamp(y, max=end) if high < 127 else y

    def function(self, node: Node) -> str:
        """What a table holds, by trying: within a step everywhere; ``identity`` where it only requantises."""
        x_q, y_q = (self.graph.tensor(name).quantization for name in (node.inputs[0], node.output))
        table = self.graph.tensor(node.inputs[1]).data
        assert x_q is not None and y_q is not None and table is not None
        x = torch.tensor(real(np.arange(-128, 128), x_q))
        for name, function in (("identity", lambda v: v), *FUNCTIONS.items()):
            stored = function(x) / float(y_q.scale) + int(y_q.zero_point)
            if np.abs(np.clip(stored.numpy(), table.min(), table.max()) - table).max() <= 1:
                return str(name)
        raise AssertionError(f"{node.name}: unknown table")

    def slopes(self, node: Node) -> torch.Tensor:
        """Mixed: the derivative of a table at the stored input; zero where the output is saturated."""
        x_q, y_q = (self.graph.tensor(name).quantization for name in (node.inputs[0], node.output))
        table = self.graph.tensor(node.inputs[1]).data
        assert x_q is not None and y_q is not None and table is not None
        name = self.function(node)
        at = torch.tensor(real(self.stored[node.inputs[0]], x_q), requires_grad=True)
        y = at * 1.0 if name == "identity" else FUNCTIONS[name](at)
        (found,) = torch.autograd.grad(y.sum(), at)
        exact = y.detach().numpy() / float(y_q.scale) + int(y_q.zero_point)
        inside = (exact > int(table.min()) - 0.5) & (exact < int(table.max()) + 0.5)
        return torch.where(torch.tensor(inside), found, 0.0)

    def compute(self, node: Node) -> torch.Tensor:
        """One node on real numbers, before what int8 does to the result."""
        xs = [self.values.get(name) for name in node.inputs]
        x = xs[0]
        assert x is not None
        given, kind = node.attributes, node.op.removesuffix("_int8")
        if kind in LAYERS:
            return self.layer(node, x)
        if kind in ("add", "multiply"):
            assert xs[1] is not None
            return x + xs[1] if kind == "add" else x * xs[1]
        if kind in ("average_pool2d", "max_pool2d"):
            q = self.graph.tensor(node.inputs[0]).quantization
            at = x.detach() if q is None or not self.mixed else torch.tensor(real(self.stored[node.inputs[0]], q))
            return pooled(kind, x, given, at)
        if kind == "global_average":
            return x.reshape(-1, x.shape[-1]).mean(0)
        if kind == "lookup":
            if self.mixed:
                return x * self.slopes(node)
            name = self.function(node)
            return x if name == "identity" else FUNCTIONS[name](x)
        if kind == "concat":
            return torch.cat([each for each in xs if each is not None], given["axis"])
        simple = {
            "reshape": lambda: x.reshape(given["shape"]), "dequantize": lambda: x, "relu": lambda: torch.relu(x),
            "relu6": lambda: F.relu6(x), "hard_swish": lambda: F.hardswish(x),
            "clamp": lambda: torch.clamp(x, given["low"], given["high"]),
        }  # fmt: skip
        return simple[kind]()

    def behind(self) -> set[str]:
        """Tensors that depend on a layer that learns."""
        found: set[str] = set()
        for node in self.graph.nodes:
            kind = node.op.removesuffix("_int8")
            own = [n for n in self.trained if n.startswith(node.name) and n.removeprefix(node.name) in ADDED]
            own += [n for n in self.trained if n.removesuffix(".real") in node.inputs[1:]]
            if (kind in LAYERS and own) or found.intersection(node.inputs):
                found.update(node.outputs)
        return found

    def output(self, x: np.ndarray, noise: np.random.Generator | None = None, size: float = 0.0) -> torch.Tensor:
        """The output; ``noise`` moves every leaf at random by up to ``size`` of itself."""
        graph = self.graph
        everything = Graph(graph.name, graph.tensors, graph.nodes, graph.inputs, tuple(
            name for node in graph.nodes for name in node.outputs))  # fmt: skip
        self.stored = {**evaluate(everything, {graph.inputs[0]: x}, np.float64), graph.inputs[0]: x}
        self.leaves = {name: self.leaf(name) for name in self.trained}
        if noise is not None:
            for name, value in self.leaves.items():
                self.leaves[name] = value * torch.tensor(1 + size * noise.uniform(-1, 1, tuple(value.shape)))
        for value in self.leaves.values():
            value.requires_grad_()
        behind = self.behind()
        self.values: dict[str, torch.Tensor] = {}
        for name, stored in self.stored.items():
            q = graph.tensor(name).quantization
            if name not in behind:
                value = (
                    stored.astype(np.float64) if q is None else real(stored, q).astype(np.float32).astype(np.float64)
                )
                self.values[name] = torch.tensor(real(stored, q) if self.mixed and q is not None else value)
        for node in graph.nodes:
            if node.output not in behind:
                continue
            y, q = self.compute(node), graph.tensor(node.output).quantization
            if q is None:
                if self.mixed and node.op == "dequantize":
                    y = y + (torch.tensor(self.stored[node.output].astype(np.float64)) - y).detach()
                self.values[node.output] = y
            elif not self.mixed:
                self.values[node.output] = self.activated(node, y)
            else:
                value = torch.tensor(real(self.stored[node.output], q))
                straight = y + (value - y).detach()
                if "low" in node.attributes:
                    kept = self.stored[node.output]
                    inside = (kept > node.attributes["low"]) & (kept < node.attributes["high"])
                    straight = torch.where(torch.tensor(inside), straight, value)
                self.values[node.output] = straight
        return self.values[graph.outputs[0]]

    def gradients(
        self, x: np.ndarray, target: np.ndarray, noise: np.random.Generator | None = None, size: float = 0.0
    ) -> dict[str, np.ndarray]:
        """{name: gradient of the mean squared error}, in real units."""
        y = self.output(x, noise, size)
        loss = ((y - torch.tensor(target.astype(np.float64))) ** 2).mean()
        found = torch.autograd.grad(loss, list(self.leaves.values()), allow_unused=True)
        return {
            name: np.zeros(tuple(leaf.shape)) if gradient is None else gradient.numpy()
            for (name, leaf), gradient in zip(self.leaves.items(), found, strict=True)
        }
