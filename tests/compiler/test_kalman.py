"""Logistic over everything that learns: the filter that a device runs, against one in float64 whose gradients are
central differences; what it begins from, what it takes; and that judgement, undo and saving are those of every learner.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from examples.playlist import network

import microtune as mt
from microtune.compiler.emit import emit
from microtune.errors import PlanError
from microtune.frontends.builder import Builder
from microtune.ir import Graph
from microtune.ops.closed_form import triangle, unpacked
from microtune.targets.measure import CoreDevice

SMALL = mt.Learner(buffer=1, every=1, folds=0, restart=False, in_place=True, changes=False, sensors=False)
STRUCT, STEP = 4608, 20_000
"""Bytes of the whole device, and instructions of a prediction and a step on a Cortex-M4F: the playlist's limits."""


def parameters(seed: int) -> dict[str, np.ndarray]:
    r = np.random.default_rng(seed)
    found = {name: r.normal(size=size) for name, size in network.SIZES.items()}
    return {**found, "time": 0.4 * found["time"]}


def songs(count: int, seed: int) -> np.ndarray:
    r = np.random.default_rng(seed)
    slots = np.eye(network.SLOTS)[r.integers(0, network.SLOTS, count)]
    return np.float32(np.column_stack([r.uniform(-1, 1, (count, network.INPUTS - network.SLOTS)), slots]))


class Filter:
    """An extended Kalman filter in float64; phi by central differences."""

    def __init__(self, logit: Callable[[np.ndarray, np.ndarray], float], start: np.ndarray, prior: np.ndarray) -> None:
        self.logit, self.weight, self.covariance, self.most = logit, start, prior.copy(), prior.diagonal().copy()

    def phi(self, x: np.ndarray) -> np.ndarray:
        steps = 1e-5 * np.eye(self.weight.size)
        return np.array([self.logit(self.weight + h, x) - self.logit(self.weight - h, x) for h in steps]) / 2e-5

    def learn(self, x: np.ndarray, y: float, walk: float = 0.005) -> None:
        np.fill_diagonal(self.covariance, np.minimum(self.covariance.diagonal() + walk * self.most, self.most))
        phi = self.phi(x)
        gain = self.covariance @ phi
        variance = gain @ phi
        p = 1 / (1 + np.exp(-self.logit(self.weight, x) / np.sqrt(1 + np.pi / 8 * variance)))
        spread = 1 + p * (1 - p) * variance
        self.weight = self.weight + (y - p) / spread * gain
        self.covariance = self.covariance - np.outer(gain, gain) * (p * (1 - p) / spread)


@pytest.fixture(scope="module", params=[False, True], ids=["independent", "calibrated"])
def playlist(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[mt.Plan, mt.Package]:
    made = mt.plan(
        network.graph(parameters(0)), learn=mt.Full(), loss="binary_cross_entropy", optimizer=mt.Logistic(),
        learner=SMALL, calibration=songs(300, 5) if request.param else None,
    )  # fmt: skip
    return made, mt.build(made, tmp_path_factory.mktemp("playlist") / "playlist")


def test_the_device_is_the_filter(playlist: tuple[mt.Plan, mt.Package]) -> None:
    """Sixty songs. Each of the sums that make a step is off by some fifty roundings of numbers of about 1."""
    made, package = playlist
    names = [tensor.name for tensor in made.programs.trained]
    assert sum(tensor.size for tensor in made.programs.trained) == sum(network.SIZES.values()) == 42
    assert set(names) == set(network.SIZES)
    ends = np.cumsum([0, *(network.SIZES[name] for name in names)])

    def split(weight: np.ndarray) -> dict[str, np.ndarray]:
        return {name: weight[ends[i] : ends[i + 1]] for i, name in enumerate(names)}

    start = np.concatenate([parameters(0)[name] for name in names])
    size = start.size
    known = Filter(lambda weight, x: float(network.logits(split(weight), x)), start, np.eye(size))
    if made.calibration is None:
        prior = 4 / (5 * (1 + 1)) * np.eye(size)
    else:
        # worth=5 samples of curvature 1/4, ridge=1
        rows = np.array([known.phi(x) for x in made.calibration.x])
        gram = rows.T @ rows / len(rows)
        prior = np.linalg.inv(5 / 4 * (gram + np.trace(gram) / size * np.eye(size)))
        stored = next(each for each in made.programs.constants if each.data is not None)
        np.testing.assert_allclose(unpacked(np.asarray(stored.data)), prior, rtol=1e-4, atol=1e-6)
    filtered = Filter(known.logit, start, prior)
    device = mt.Device(package)
    for x, y in zip(songs(60, 1), np.random.default_rng(2).integers(0, 2, 60), strict=True):
        chance = float(np.ravel(device.predict(x).value)[0])
        assert chance == pytest.approx(1 / (1 + np.exp(-known.logit(filtered.weight, x))), abs=1e-3)
        device.observe([float(y)])
        update = device.idle()
        assert update is not None and update.accepted and update.steps == 1
        filtered.learn(x, float(y))
    found = device.parameters()
    for name, values in split(filtered.weight).items():
        np.testing.assert_allclose(np.ravel(found[name]), values, atol=60 * 50 * 2.0**-23, err_msg=name)


def test_what_it_takes(playlist: tuple[mt.Plan, mt.Package]) -> None:
    """The whole device, everything it keeps; and a prediction with a step."""
    made, package = playlist
    assert made.memory.optimizer == 4 * triangle(42)
    assert 4 + int(package.manifest["layout"]["bytes"]) <= STRUCT
    core = CoreDevice(package, "cortex-m4")
    x = songs(6, 3)
    counts = [core.use(each, [1.0], count=True)["predict"] + core.step(each, [0.0]) for each in x]
    assert max(counts) <= STEP
    assert emit(made, "playlist") == emit(made, "playlist")


def dense_net(outputs: int = 1, wide: int = 5) -> Graph:
    r = np.random.default_rng(4)
    builder = Builder("net")
    x = builder.input("x", (4,))
    layers = [(wide, 4), (outputs, wide)]
    for index, shape in enumerate(layers):
        weight = builder.constant(f"w{index}", r.normal(size=shape), "test")
        x = builder.emit("dense", [x, weight, builder.constant(f"b{index}", np.zeros(shape[0]), "test")], "y", "test")
        x = builder.emit("tanh", [x], "a", "test") if index == 0 else x
    return builder.finish(x, "test")


def test_judged_undone_and_saved(tmp_path: Path) -> None:
    """With the learner's own settings: updates are judged and can be dropped, what is learnt survives power loss, and
    forgetting goes back."""
    made = mt.plan(dense_net(), learn=mt.Full(), loss="binary_cross_entropy", optimizer=mt.Logistic(),
                   learner=mt.Learner(buffer=40, every=5))  # fmt: skip
    package = mt.build(made, tmp_path / "net")
    device = mt.Device(package, state=tmp_path / "flash.bin")
    r = np.random.default_rng(0)
    x = np.float32(r.normal(size=(120, 4)))
    likes = (x @ [1.0, -1.0, 0.5, 0.0] > 0).astype(float)

    def right() -> float:
        said = [float(np.ravel(device.predict(each).value)[0]) > 0.5 for each in x[:60]]
        return float(np.mean(np.array(said) == likes[:60]))

    before, taken = right(), 0
    for sample, like in zip(x, likes, strict=True):
        device.predict(sample)
        device.observe([like])
        update = device.idle()
        taken += update is not None and update.accepted
    assert taken >= 3 and right() > before + 0.1
    device.save()
    again = mt.Device(package, state=tmp_path / "flash.bin")
    np.testing.assert_array_equal(again.parameters()["w0"], device.parameters()["w0"])
    device.forget()
    assert not np.array_equal(again.parameters()["w0"], device.parameters()["w0"])
    device.reset()
    np.testing.assert_array_equal(device.parameters()["w0"], dense_net().tensor("w0").data)


def test_variances_come_back_by_more_than_rounding_takes() -> None:
    made = mt.plan(
        network.graph(parameters(0)), learn=mt.Full(), loss="binary_cross_entropy", optimizer=mt.Logistic(walk=0.0)
    )
    (walk,) = {node.attributes["walk"] for node in made.programs.step.graph.nodes if node.op == "kalman"}
    assert walk == 42 * 2.0**-20


def test_refused_with_what_would_do() -> None:
    def planned(graph: Graph, learn: object = None, **given: object) -> None:
        settings = {"loss": "binary_cross_entropy", "optimizer": mt.Logistic(), **given}
        mt.plan(graph, learn=learn or mt.Full(), **settings)

    with pytest.raises(PlanError, match=r"answer to one question, and 'y\w*' has 2: use it with learn=Head\(1\)"):
        planned(dense_net(outputs=2))
    with pytest.raises(PlanError, match=r"over 601 parameters would keep 723604 bytes .* up to 512"):
        planned(dense_net(wide=100))
    planned(dense_net(wide=100), mt.Bias())
    stored = mt.quantize(network.graph(parameters(0)), calibration=songs(50, 0))
    with pytest.raises(PlanError, match="precision='float32'"):
        planned(stored, precision="mixed")
    with pytest.raises(PlanError, match=r"learn=Head\(1\)"):
        planned(stored, precision="int8")
    # the last layer alone is the head that it was
    head = mt.plan(dense_net(), learn=mt.Head(1), loss="binary_cross_entropy", optimizer=mt.Logistic())
    assert {node.op for node in head.programs.step.graph.nodes} >= {"logistic"}
