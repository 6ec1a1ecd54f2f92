"""A small device that learns quickly, built once per session."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import microtune as mt
from microtune.frontends.builder import Builder
from microtune.ir import Graph, verify


def make_net(sizes: list[int], seed: int = 0) -> Graph:
    """Dense layers of these sizes with tanh between them."""
    r = np.random.default_rng(seed)
    builder = Builder("net")
    tensor = builder.input("x", (sizes[0],))
    for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        weight = builder.constant(f"w{index}", r.normal(size=(outputs, inputs)) / inputs**0.5, "test")
        bias = builder.constant(f"b{index}", np.zeros(outputs), "test")
        tensor = builder.emit("dense", [tensor, weight, bias], f"h{index}", "test")
        if index < len(sizes) - 2:
            tensor = builder.emit("tanh", [tensor], f"a{index}", "test")
    return verify(builder.finish(tensor, "test"))


INPUTS = [mt.Input("dial", -1, 1), mt.Input("hour", -2, 2, "h"), mt.Input("free")]


def make_plan(buffer: int = 20, seed: int = 0) -> mt.Plan:
    learner = mt.Learner(buffer=buffer, every=5, epochs=4, folds=2)
    return mt.plan(make_net([3, 6, 1], seed), mt.Head(1), "mse", mt.SGD(0.1), learner, inputs=INPUTS)


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> mt.Package:
    return mt.build(make_plan(), tmp_path_factory.mktemp("device") / "lamp")


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> mt.Package:
    """The same device with other weights: what it learnt means nothing here, though it is of the same size."""
    return mt.build(make_plan(seed=1), tmp_path_factory.mktemp("other") / "lamp")


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory) -> mt.Package:
    """The same model with other settings."""
    return mt.build(make_plan(buffer=25), tmp_path_factory.mktemp("newer") / "lamp")


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> mt.Package:
    plan = mt.plan(make_net([3, 5, 4]), mt.Head(1), "cross_entropy", mt.Adam(), mt.Learner(buffer=20, every=5))
    return mt.build(plan, tmp_path_factory.mktemp("classes") / "sorter")


HOUR, WEEKEND, LIGHT = range(3)
HOUSE_INPUTS = [mt.Input("hour", 0, 24, "h"), mt.Input("weekend", 0, 1), mt.Input("light")]
HOUSE_LEARNER = mt.Learner(
    buffer=20, replay=6, every=5, epochs=5, folds=2, slice=40, disuse=30, sensors=True, log=8,
    profiles=3, recognise=True, contexts=(mt.Context("weekend", (0.5,)),),
)  # fmt: skip


def factory(samples: int = 400, seed: int = 0) -> np.ndarray:
    """Contexts as they come: (samples, 3)."""
    r = np.random.default_rng(seed)
    return np.stack([r.uniform(0, 24, samples), r.integers(0, 2, samples), r.normal(0, 1, samples)], axis=1)


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> mt.Package:
    """A classifier that three people share, weekends apart, with all that goes with it."""
    plan = mt.plan(
        make_net([3, 6, 3]), mt.Head(1), "cross_entropy", mt.SGD(0.05, momentum=0.5), HOUSE_LEARNER,
        inputs=HOUSE_INPUTS, calibration=factory(),
    )  # fmt: skip
    return mt.build(plan, tmp_path_factory.mktemp("house") / "house")


def use_it(device: mt.Device, uses: int, seed: int = 0) -> list[mt.Update]:
    """So many uses by a person with a simple wish; what the updates did."""
    r = np.random.default_rng(seed)
    found = []
    for _ in range(uses):
        x = r.uniform(-1, 1, 3)
        device.predict(x)
        device.observe([2.0 * x[0] + 1.0])
        update = device.idle()
        if update is not None:
            found.append(update)
    return found


@pytest.fixture(scope="session")
def use() -> Callable[..., list[mt.Update]]:
    return use_it


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "lamp.state"
