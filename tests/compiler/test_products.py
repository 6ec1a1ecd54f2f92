"""Products of what learns, in integers: the playlist's int8 net on the device against float64, its limits of memory and
instructions, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from examples.playlist import network

import microtune as mt
from microtune.errors import PlanError
from microtune.ir import Graph, Tensor
from microtune.ops.evaluate import evaluate
from microtune.targets.arithmetic import floating_point_in
from microtune.targets.measure import CoreDevice

from .test_kalman import SMALL, parameters, songs

STRUCT, STEP = 512, 4000
"""Bytes of the whole device, and instructions of a step on a Cortex-M0: the playlist's limits."""
LEARNER = replace(SMALL, epochs=1)
LR = 0.5
X = songs(300, 7)


def planned(graph: Graph, optimizer: mt.SGD | None = None, learn: object = network.LEARN) -> mt.Plan:
    return mt.plan(
        graph, learn=learn, loss="binary_cross_entropy", optimizer=optimizer or mt.SGD(lr=LR), learner=LEARNER,
        precision="int8",
    )  # fmt: skip


def in_integers() -> Graph:
    """The playlist's net in int8, without the room to grow that the example gives it."""
    return mt.quantize(network.graph(parameters(0)), calibration=X, ranges="minmax", per_channel=False)


@pytest.fixture(scope="module")
def playlist(tmp_path_factory: pytest.TempPathFactory) -> tuple[mt.Plan, mt.Package]:
    made = planned(in_integers())
    return made, mt.build(made, tmp_path_factory.mktemp("products") / "playlist")


def scale(tensor: Tensor) -> float:
    assert tensor.quantization is not None
    return float(np.ravel(tensor.quantization.scale)[0])


class Real:
    """The stored net in float64: what its integers stand for."""

    def __init__(self, made: mt.Plan) -> None:
        self.tensors = {tensor.name: tensor for tensor in made.programs.trained}
        self.input = made.graph.tensor(made.graph.inputs[0])
        layers = {node.op: node for node in made.graph.nodes}
        self.offsets = []
        for op in ("gained_int8_logits", "dense_int8_logits"):
            bias = made.graph.tensor(layers[op].inputs[3 if op.startswith("gained") else 2])
            x = scale(self.input) * scale(made.graph.tensor(layers[op].inputs[1]))
            x *= scale(made.graph.tensor(layers[op].inputs[2])) if op.startswith("gained") else 1.0
            assert bias.data is not None
            self.offsets.append(float(bias.data[0]) * x)

    def inputs(self, x: np.ndarray) -> np.ndarray:
        assert self.input.quantization is not None
        zero = int(self.input.quantization.zero_point)
        return scale(self.input) * (np.clip(np.round(x / scale(self.input) + zero), -128, 127) - zero)

    def sums(self, stored: dict[str, np.ndarray], x: np.ndarray) -> tuple[float, float, dict[str, np.ndarray]]:
        """Score, gate, and the derivative of each to what learns."""
        real = {name: np.ravel(values) * scale(self.tensors[name]) for name, values in stored.items()}
        terms, slots = self.inputs(x)[: -network.SLOTS], self.inputs(x)[-network.SLOTS :]
        gains = real["mood_history_skip"]
        score = float(np.sum(real["scoring"] * gains * terms)) + self.offsets[0]
        gate = float(real["time"] @ slots) + self.offsets[1]
        found = {"scoring": gate * gains * terms, "mood_history_skip": gate * real["scoring"] * terms}
        return score, gate, {**found, "time": score * slots}


def test_answers_and_steps_are_those_of_real_numbers(playlist: tuple[mt.Plan, mt.Package]) -> None:
    """A chance: two sums of 16 places, their product and the sigmoid round to 2^-16 each. A step: the gradient of a
    sum keeps 10 digits and more of the error and of the other sum; what is left of a weight between two grid points is
    not seen, half a grid step at either end. No weight moves by more than some 32 grid steps."""
    made, package = playlist
    assert sorted(tensor.size for tensor in made.programs.trained) == [6, 18, 18]
    real, device = Real(made), mt.Device(package)
    base = device.parameters()
    assert real.offsets[1] == pytest.approx(1, abs=0.05)
    moved = 0
    for x, y in zip(songs(40, 1), np.random.default_rng(1).integers(0, 2, 40), strict=True):
        device.reset()
        score, gate, slopes = real.sums(base, x)
        chance = 1 / (1 + np.exp(-score * gate))
        said = float(np.ravel(device.predict(x).value)[0])
        assert said == pytest.approx(chance, abs=(abs(score) + abs(gate) + 4) * 2.0**-16)
        loss = device.step(x, [float(y)])
        assert loss == pytest.approx(-np.log(chance if y else 1 - chance), abs=1e-3)
        for name, after in device.parameters().items():
            exact = np.ravel(base[name]) - LR * (chance - y) * slopes[name] / scale(real.tensors[name])
            moves = np.abs(exact - np.ravel(base[name]))
            inside = (np.abs(exact) < 126) & (moves < 31)
            off = np.abs(np.ravel(after) - exact)
            assert np.all((off <= 1 + moves * 2.0**-8)[inside]), name
            moved = max(moved, int(np.abs(np.ravel(after) - np.ravel(base[name])).max()))
    assert moved >= 10


def test_what_it_takes(playlist: tuple[mt.Plan, mt.Package]) -> None:
    """The whole device, everything it keeps; a step; and no float."""
    made, package = playlist
    assert 4 + int(package.manifest["layout"]["bytes"]) <= STRUCT
    core = CoreDevice(package, "cortex-m0")
    real = Real(made)
    steps = []
    for index, x in enumerate(songs(12, 3)):
        stored = np.round(real.inputs(x) / scale(real.input)).astype(np.int8)
        steps.append(core.step(stored, [float(index % 2)]))
    assert max(steps) <= STEP
    assert floating_point_in(core.machine.image) == ()


def test_the_quantised_net_is_near_the_real_one() -> None:
    """mt.quantize alone, gains of the inputs and a product of two sums: within a few steps of its output's scale."""
    graph = network.graph(parameters(3))
    logits = replace(graph, outputs=("logit",)).with_nodes(graph.nodes[:-1])
    stored = mt.quantize(logits, calibration=X, ranges="minmax", output="float32")
    found = evaluate(stored, {"input": real_input(stored)})[stored.outputs[0]].ravel()
    wanted = network.logits(parameters(3), X[:100])
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


def real_input(stored: Graph) -> np.ndarray:
    tensor = stored.tensor(stored.inputs[0])
    assert tensor.quantization is not None
    steps = np.round(X[:100] / scale(tensor)) + int(tensor.quantization.zero_point)
    return np.clip(steps, -128, 127).astype(np.int8)


def test_momentum_and_float_learn_the_same_net(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A listener of other tastes: integers with momentum, and the int8 base with floats behind it, come nearer."""
    stored = in_integers()
    truth = 1 / (1 + np.exp(-network.logits(parameters(1), X)))
    heard = np.random.default_rng(5).random(len(X)) < truth
    plans = {
        "momentum": planned(stored, mt.SGD(lr=0.03, momentum=0.8)),
        "floats": mt.plan(stored, learn=network.LEARN, loss="binary_cross_entropy", optimizer=mt.SGD(lr=0.15),
                          learner=LEARNER),
    }  # fmt: skip
    for name, made in plans.items():
        device = mt.Device(mt.build(made, tmp_path_factory.mktemp(name) / "playlist"))

        def error(device: mt.Device = device) -> float:
            said = np.array([float(np.ravel(device.predict(x).value)[0]) for x in X[:100]])
            return float(np.mean((said - truth[:100]) ** 2))

        before = error()
        for x, y in zip(X, heard, strict=True):
            device.step(x, [float(y)])
        assert error() < 0.7 * before, name


def test_gains_elsewhere_are_refused() -> None:
    stored = in_integers()
    with pytest.raises(PlanError, match=r"'mood' of node 'mood\.terms' learns only together with the weight"):
        planned(stored, learn=mt.Sparse({"mood": 1.0, "time": 1.0}))
    for precision in ("mixed",):
        with pytest.raises(PlanError, match="gains learn with precision='float32' or 'int8'"):
            mt.plan(stored, learn=network.LEARN, loss="binary_cross_entropy", precision=precision)
