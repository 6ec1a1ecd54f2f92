"""Packages and their exports, made once per session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import microtune as mt
from microtune.export import FORMATS
from microtune.ir import Graph, Node, Tensor, constant


@dataclass(frozen=True)
class Exported:
    """A package and its export in every format."""

    package: mt.Package
    folder: Path

    def __getitem__(self, format: str) -> Path:
        return self.folder / format


def network(name: str, sizes: tuple[int, int, int]) -> Graph:
    """A dense net with one hidden layer."""
    rng = np.random.default_rng(0)
    inputs, hidden, outputs = sizes
    shapes = {"w1": (hidden, inputs), "b1": (hidden,), "w2": (outputs, hidden), "b2": (outputs,)}
    weights = [constant(each, rng.normal(size=shape).astype(np.float32)) for each, shape in shapes.items()]
    nodes = [
        Node("dense", "a", ("x", "w1", "b1"), ("a",)),
        Node("relu", "h", ("a",), ("h",)),
        Node("dense", "y", ("h", "w2", "b2"), ("y",)),
    ]
    sized = {"x": inputs, "a": hidden, "h": hidden, "y": outputs}
    tensors = [*(Tensor(each, (size,)) for each, size in sized.items()), *weights]
    return Graph(name, {each.name: each for each in tensors}, tuple(nodes), ("x",), ("y",))


def plan_of(name: str) -> mt.Plan:
    """toaster: sensors of all kinds, a log. camera: bytes to classes, more than are listed. blinds: yes or no.
    meter: integers only."""
    rng = np.random.default_rng(1)
    learner = mt.Learner(buffer=20, every=5)
    if name == "toaster":
        inputs = [mt.Input("bread", -10, 60, "°C"), mt.Input("slices", 1, 4), mt.Input("room */", unit="*/")]
        usual = np.stack([rng.uniform(-5, 30, 200), rng.integers(1, 5, 200), rng.normal(size=200)], 1)
        sensors = mt.Learner(buffer=20, every=5, log=16, tolerance=0.25, sensors=mt.Sensors())
        graph = network(name, (3, 4, 1))
        return mt.plan(graph, mt.Head(1), "mse", mt.SGD(0.001), sensors, inputs=inputs, calibration=usual)
    if name == "camera":
        graph = mt.quantize(network(name, (40, 8, 3)), calibration=rng.uniform(-1, 1, (100, 40)).astype(np.float32))
        return mt.plan(graph, mt.Head(1), "cross_entropy", mt.SGD(0.05), learner, precision="mixed")
    if name == "meter":
        graph = mt.quantize(network(name, (2, 8, 1)), calibration=rng.uniform(-1, 1, (100, 2)).astype(np.float32))
        inputs = [mt.Input("a", -1, 1, "V"), mt.Input("b", -1, 1)]
        return mt.plan(graph, mt.Full(), "mse", mt.SGD(0.003), learner, precision="int8", inputs=inputs)
    graph = network(name, (2, 4, 1))
    return mt.plan(graph, mt.Full(), "binary_cross_entropy", mt.SGD(0.05), learner)


NAMES = ("toaster", "camera", "blinds", "meter")


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    folder = tmp_path_factory.mktemp("export")
    found = {}
    for name in NAMES:
        package = mt.build(plan_of(name), folder / "packages" / name, targets=())
        found[name] = Exported(package, folder / name)
        for each in FORMATS:
            mt.export(package, each.name, found[name][each.name])
    return found
