"""``mt.quantize_aware``: what is trained is what runs, and it is refused in a sentence where it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from tests.compress.random_networks import random_network  # noqa: E402
from tests.training.nets import digits  # noqa: E402
from torch import nn  # noqa: E402

import microtune as mt  # noqa: E402
from microtune.compress.batched import run  # noqa: E402
from microtune.compress.quantization import checked_graph, chosen_quantizations  # noqa: E402
from microtune.compress.quantized_weights import quantize_weights  # noqa: E402
from microtune.frontends.builder import Builder  # noqa: E402
from microtune.ir import Graph  # noqa: E402
from microtune.ops.quantized_build import quantize_array  # noqa: E402
from microtune.training.bridge import without_last_activation  # noqa: E402
from microtune.training.fake_quantization import FakeQuantized, weight_scales  # noqa: E402
from microtune.training.fit import fit  # noqa: E402
from microtune.training.quantization_aware import trainable  # noqa: E402
from microtune.training.samples import checked  # noqa: E402

APART = 0.002
"""Share of int8 outputs that may be a step or more apart: sums and factors are held in float32 while training, and a
value that lies within 2^-24 of itself from the middle of two steps may be rounded to the other."""


def stored(graph: Graph, x: np.ndarray) -> np.ndarray:
    q = graph.tensor(graph.inputs[0]).quantization
    assert q is not None
    return quantize_array(x, q)


def steps_of(net: FakeQuantized, graph: Graph, x: np.ndarray) -> np.ndarray:
    """What a fake-quantised net answers, as the integers it stands for."""
    q = graph.tensor(graph.outputs[0]).quantization
    assert q is not None
    with torch.no_grad():
        real = net(torch.from_numpy(x)).numpy()
    return np.rint(real / float(q.scale)).astype(int) + int(q.zero_point)


def fake(graph: Graph, x: np.ndarray, per_channel: bool) -> FakeQuantized:
    source = trainable(checked_graph(without_last_activation(graph)))
    return FakeQuantized(source, chosen_quantizations(source, x, "mse", 99.99), per_channel)


def test_random_nets_compute_what_their_int8_graph_does() -> None:
    """All operators, with weights that have moved since calibration; and every constant of a layer is reached."""
    apart, values, largest = 0, 0, 0
    for seed in range(60):
        r = np.random.default_rng(seed)
        graph = random_network(r)
        x = r.normal(size=(24, *graph.tensor(graph.inputs[0]).shape)).astype(np.float32)
        net = fake(graph, x, per_channel=seed % 4 > 0)
        with torch.no_grad():
            for each in net.constants:
                each.mul_(torch.from_numpy(r.uniform(0.9, 1.1, tuple(each.shape)).astype(np.float32)))
        written = net.written(net.source)
        difference = np.abs(steps_of(net, written, x) - run(written, stored(written, x)))
        apart, values, largest = apart + int((difference > 0).sum()), values + difference.size, max(
            largest, int(difference.max())
        )  # fmt: skip
        net(torch.from_numpy(x)).square().sum().backward()
        assert all(each.grad is not None and bool(each.grad.isfinite().all()) for each in net.constants), seed
    assert apart <= APART * values and largest <= 1, f"{apart} of {values} values, {largest} steps at most"


@pytest.mark.parametrize("per_channel", [False, True])
def test_scales_of_weights_are_those_of_the_int8_form(per_channel: bool) -> None:
    """Of usual weights, none but zeros, some below every step, and a bias that needs a coarser scale."""
    rows = np.array([[0.5, -2.0], [0.0, 0.0], [1e-40, 0.0], [1e-3, 1e-3]], np.float32)
    for bias in (np.zeros(4, np.float32), np.float32([1.0, 0.0, 0.0, -3e9])):
        for given in (rows, rows[1:3], rows[1:2]):
            wanted = quantize_weights(given, bias[-len(given) :], 0, 0.25, per_channel=per_channel).scale
            found = weight_scales(*map(torch.tensor, (given, bias[-len(given) :])), 0.25, per_channel)
            np.testing.assert_allclose(found, wanted, rtol=3e-7)


class Small(nn.Module):
    """A residual net with batch normalisation, on digits."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6())
        self.deep = nn.Sequential(nn.Conv2d(6, 6, 3, 1, 1, groups=6, bias=False), nn.BatchNorm2d(6), nn.Hardswish())
        self.last = nn.Linear(6, 10)

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        return self.last((x + self.deep(x)).mean((2, 3)))


def test_what_is_trained_is_what_the_c_computes(tmp_path: Path) -> None:
    """From a module to C: trained, better for it, repeatable, and the module as it was."""
    x, y = digits()
    x = x.reshape(-1, 1, 8, 8).astype(np.float32)
    learnt, judged = (x[:600], y[:600]), (x[600:], y[600:])
    torch.manual_seed(0)
    module = Small()
    fit(module, checked(*learnt), epochs=4, lr=2e-2)
    before = {name: each.clone() for name, each in module.state_dict().items()}
    told: list[str] = []
    given: dict[str, Any] = {"epochs": 3, "lr": 5e-3}
    graph = mt.quantize_aware(module, learnt, **given, progress=lambda text, epoch: told.append(text))
    assert len(told) == 3 and all(torch.equal(each, before[name]) for name, each in module.state_dict().items())

    base = mt.load(module, example=x[:1])
    plain = mt.quantize(base, learnt[0])
    assert [node.op for node in graph.nodes] == [node.op for node in plain.nodes]
    for name in (*graph.inputs, *(node.output for node in graph.nodes)):  # the ranges are those of calibration
        ours, theirs = graph.tensor(name).quantization, plain.tensor(name).quantization
        assert ours is not None and theirs is not None and ours.scale == theirs.scale
    right = [float((run(each, stored(each, judged[0])).argmax(1) == judged[1]).mean()) for each in (plain, graph)]
    assert right[1] > right[0]

    net = fake(base, learnt[0], per_channel=True)
    fit(net, checked(*learnt), epochs=1, lr=5e-3)
    written = net.written(net.source)
    compiled = mt.compile_inference(written, tmp_path / "aware", targets=["host"])
    apart = steps_of(net, written, judged[0]) != compiled.run(judged[0])
    assert apart.mean() <= APART

    again = mt.quantize_aware(base, learnt, **given)  # the same seed and net, the same integers
    same = [np.array_equal(each.data, again.tensor(each.name).data) for each in graph.constants]
    assert all(same) and len(same) == len(again.constants)


def test_a_last_softmax_stays_and_outputs_can_be_real() -> None:
    r = np.random.default_rng(0)
    builder = Builder("net")
    x = builder.input("x", (3,))
    y = builder.emit("dense", [x, builder.constant("w", r.normal(size=(2, 3)), "test")], "sum", "test")
    graph = builder.finish(builder.emit("softmax", [y], "answer", "test"), "test")
    given = r.normal(size=(40, 3)).astype(np.float32)
    labels = (given[:, 0] > 0).astype(int)
    found = mt.quantize_aware(graph, (given, labels), epochs=60, lr=0.02, output="float32")
    assert [node.op for node in found.nodes] == ["dense_int8", "softmax_int8", "dequantize"]
    assert found.tensor(found.outputs[0]).name == graph.outputs[0]
    answers = run(found, stored(found, given))
    assert np.abs(answers.sum(1) - 1).max() < 0.02 and (answers.argmax(1) == labels).mean() > 0.9


def test_refusals() -> None:
    graph = random_network(np.random.default_rng(0))
    x = np.random.default_rng(1).normal(size=(20, *graph.tensor(graph.inputs[0]).shape)).astype(np.float32)
    outputs = graph.tensor(graph.outputs[0]).size
    y = np.arange(20) % outputs
    with pytest.raises(mt.MicrotuneError, match=rf"y holds classes 0 to {outputs}; the module has 0 to {outputs - 1}"):
        mt.quantize_aware(graph, (x, np.arange(20) % (outputs + 1)))
    with pytest.raises(mt.MicrotuneError, match="x holds 3 samples; at least 8 are needed"):
        mt.quantize_aware(graph, (x[:3], y[:3]))
    with pytest.raises(mt.MicrotuneError, match=r"x has the shape \(20, 2\); \(samples, .*\) is needed"):
        mt.quantize_aware(graph, (x.reshape(20, -1)[:, :2], y))
    with pytest.raises(mt.MicrotuneError, match="calibration has 3 samples"):
        mt.quantize_aware(graph, (x, y), calibration=x[:3])
    with pytest.raises(mt.MicrotuneError, match="ranges must be one of"):
        mt.quantize_aware(graph, (x, y), ranges="widest")
    with pytest.raises(mt.ModelError, match="already quantised"):
        mt.quantize_aware(mt.quantize(graph, x), (x, y))
    builder = Builder("gated")
    source = builder.input("x", (2, 2, 2))
    gate = builder.emit("global_average", [source], "mean", "test")
    zeros = builder.constant("zeros", np.zeros(2), "test")
    gated = builder.emit("channel_affine", [source, gate, zeros], "gated", "test")
    graph = builder.finish(builder.reshape(gated, (8,), "flat", "test"), "test")
    with pytest.raises(mt.ModelError, match=r"node '.*' \(channel_affine\): '.*' is computed; int8 needs it"):
        mt.quantize_aware(graph, (np.zeros((20, 2, 2, 2)), np.zeros(20, int)))
