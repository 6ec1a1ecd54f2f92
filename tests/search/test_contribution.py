"""Contributions are read off gradients, and these are PyTorch's: float layers and, dequantised, int8 ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtune as mt
from microtune.frontends.builder import Builder
from microtune.ir import Graph, Node
from microtune.samples import Samples
from microtune.search.candidates import deepest, grown
from microtune.search.contribution import Contribution, contributions, gradients
from microtune.tuning.layers import layers_of
from microtune.tuning.losses import loss_of

RNG = np.random.default_rng(0)
SAMPLES = Samples(RNG.normal(size=(24, 6, 6, 3)).astype("f4"), RNG.integers(0, 4, 24))


def conv_net() -> Graph:
    """(6, 6, 3) > convolution 10, stride 2 > ReLU > depthwise > ReLU > mean > dense 4."""
    builder = Builder("small")
    x = builder.input("x", (6, 6, 3))

    def layer(x: object, op: str, shape: tuple[int, ...], outputs: int, **given: object) -> object:
        weight = builder.constant("w", RNG.normal(size=shape) / 3, "test")
        bias = builder.constant("b", RNG.normal(size=outputs) / 3, "test")
        return builder.emit(op, [x, weight, bias], op, "test", **given)

    padding = ((1, 1), (1, 1))
    x = layer(x, "conv2d", (10, 3, 3, 3), 10, stride=(2, 2), padding=padding)
    x = builder.emit("relu", [x], "relu", "test")
    x = layer(x, "depthwise_conv2d", (3, 3, 10), 10, stride=(1, 1), padding=padding)
    x = builder.emit("global_average", [builder.emit("relu", [x], "relu", "test")], "mean", "test")
    return builder.finish(layer(x, "dense", (4, 10), 4), "test")


def real(graph: Graph, name: str) -> torch.Tensor:
    """A constant in real units."""
    tensor = graph.tensor(name)
    data = np.asarray(tensor.data, np.float64)
    if (q := tensor.quantization) is not None:
        along = [-1 if axis == (q.axis or 0) else 1 for axis in range(data.ndim)]
        data = data * np.asarray(q.scale, np.float64).reshape(along)
    return torch.tensor(data, requires_grad=True)


def torch_gradients(graph: Graph, samples: Samples) -> dict[str, np.ndarray]:
    """{tensor: gradients of each sample (samples, *shape)} of the net above in float64."""
    convolution, depthwise, dense = layers_of(graph)
    held = {node.inputs[at]: real(graph, node.inputs[at]) for node in (convolution, depthwise, dense) for at in (1, 2)}

    def of(node: Node, at: int) -> torch.Tensor:
        return held[node.inputs[at]]

    q = graph.tensor(graph.inputs[0]).quantization
    found: dict[str, list[np.ndarray]] = {name: [] for name in held}
    for image, label in zip(samples.x.astype(np.float64), samples.y, strict=True):
        if q is not None:
            stored = np.clip(np.round(image / float(q.scale)) + int(q.zero_point), -128, 127)
            image = (stored - int(q.zero_point)) * float(q.scale)
        x = torch.tensor(image).permute(2, 0, 1)[None]
        weight = of(convolution, 1).permute(0, 3, 1, 2)
        x = torch.relu(torch.nn.functional.conv2d(x, weight, of(convolution, 2), stride=2, padding=1))
        weight = of(depthwise, 1).permute(2, 0, 1)[:, None]
        x = torch.relu(torch.nn.functional.conv2d(x, weight, of(depthwise, 2), padding=1, groups=10))
        logits = x.mean((2, 3)) @ of(dense, 1).T + of(dense, 2)
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([int(label)]))
        for name, gradient in zip(held, torch.autograd.grad(loss, list(held.values())), strict=True):
            found[name].append(gradient.numpy())
    return {name: np.stack(each) for name, each in found.items()}


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_gradients_are_those_of_pytorch(kind: str) -> None:
    """Tolerance: a weight of size below 2 that takes a gradient times 256 is rounded to 2^-24 of it and of the step;
    sums of some hundred terms in float32 lose less than 1e-5 of the largest gradient."""
    graph = conv_net()
    if kind == "int8":
        graph = mt.quantize(graph, SAMPLES.x)
    sums, seconds = gradients(graph, SAMPLES, loss_of("cross_entropy"))
    expected = torch_gradients(graph, SAMPLES)
    assert seconds > 0 and len(sums) == len(expected) == 6
    for name, each in expected.items():
        mean, square = sums[name if kind == "float" else f"{name}.real"]
        scale = np.abs(each).max()
        assert np.abs(mean - each.mean(0)).max() < 1e-5 * scale + 1e-8, name
        assert np.abs(square - (each**2).mean(0)).max() < 2e-5 * scale**2 + 1e-8, name
    measured, _ = contributions(graph, SAMPLES, loss_of("cross_entropy"))
    for node, found in zip(layers_of(graph), measured, strict=True):
        each = expected[node.inputs[1]]
        # the squared mean less its noise is, without bias, the mean product of two different samples' gradients
        total = each.sum(0) ** 2 - (each**2).sum(0)
        pairs = total / (len(each) * (len(each) - 1))
        depthwise = node.op.startswith("depthwise")
        channels = [pairs.sum()] if depthwise else pairs.reshape(-1, pairs.shape[-1]).sum(0)
        parts = np.array_split(channels, 1 if depthwise else min(8, len(channels)))
        tolerance = 1e-4 * float((each.mean(0) ** 2).sum() + (each**2).sum() / len(each) ** 2)
        assert np.allclose(found.groups, [max(part.sum(), 0.0) for part in parts], rtol=0, atol=tolerance), node.name
        assert found.weights == each[0].size and found.edges[-1] == found.channels == each.shape[-1]


LAYERS = [
    Contribution("a", 80, 8, (0, 0, 0, 0, 9.0, 8.0, 0, 0), 1.0, 1.0),
    Contribution("b", 400, 10, (1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0), 1.0, 1.0),
    Contribution("c", 100, 4, (4.0, 0, 0, 0), 1.0, 1.0),
]


@pytest.mark.parametrize(
    ("weights", "first", "expected"),
    [
        (9, 0, None),
        (12, 0, mt.Sparse({0: slice(4, 5)}, biases_from=3)),
        (40, 0, mt.Sparse({0: slice(4, 6)}, biases_from=3)),  # 8 more for 10 more; the best of c are 25
        (45, 0, mt.Sparse({0: slice(4, 6), 2: slice(0, 1)}, biases_from=3)),
        (45, 1, mt.Sparse({2: slice(0, 1)}, biases_from=1)),
        # ten channels in eight parts: the first two parts have two
        (85, 0, mt.Sparse({0: slice(4, 6), 1: slice(4, 5), 2: slice(0, 1)}, biases_from=3)),
    ],
)
def test_sparse_updates_take_what_gains_most_per_weight(weights: int, first: int, expected: mt.Sparse | None) -> None:
    assert grown(LAYERS, weights / 580, first) == expected


def test_sparse_updates_reach_back_as_far_as_the_budget_lets_them() -> None:
    for least in range(3):
        found = deepest(LAYERS, 0.3, lambda scheme, least=least: min(scheme.tensors) >= least)
        assert found is not None and min(found.tensors) == least
    assert deepest(LAYERS, 0.3, lambda scheme: False) is not None
