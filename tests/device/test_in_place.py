"""Learning in place: no copies, no judgement; the base is what there is to go back to. And the input's own place."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

import microtune as mt
from microtune.frontends.builder import Builder
from microtune.ir import Graph

IN_PLACE = mt.Learner(buffer=3, every=1, epochs=2, folds=0, restart=False, in_place=True)
IMAGES = np.random.default_rng(1).normal(size=(40, 8, 8, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def stored() -> Graph:
    """An int8 net of a convolution, a mean and a dense layer."""
    random = np.random.default_rng(0)
    b = Builder("small")
    x = b.input("x", (8, 8, 2))
    weights = b.constant("conv.weight", random.normal(size=(6, 3, 3, 2)) / 4, "")
    x = b.emit("conv2d", (x, weights), "conv", "", stride=(2, 2), padding=((1, 1), (1, 1)))
    x = b.emit("global_average", (b.emit("relu", (x,), "relu", ""),), "mean", "")
    head = (b.constant("head.weight", random.normal(size=(3, 6)), ""), b.constant("head.bias", np.zeros(3), ""))
    return mt.quantize(b.finish(b.emit("dense", (x, *head), "y", ""), "test"), IMAGES)


def built(graph: Graph, folder: Path, precision: str, rate: float = 0.05, learner: mt.Learner = IN_PLACE) -> mt.Package:
    plan = mt.plan(graph, mt.Full(), "cross_entropy", mt.SGD(lr=rate), learner, precision)
    return mt.build(plan, folder / "small")


def live(device: mt.Device, uses: int) -> mt.Update | None:
    update = None
    for index in range(uses):
        device.predict(IMAGES[index])
        device.observe(index % 3)
        update = device.idle()
    return update


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return all((a[name] == b[name]).all() for name in a)


@pytest.mark.parametrize("precision", ["float32", "mixed"])
def test_learns_forgets_and_survives_a_restart(stored: Graph, precision: str, tmp_path: Path) -> None:
    package = built(stored, tmp_path, precision)
    fields = {field["name"] for field in package.manifest["layout"]["fields"]}
    assert fields.isdisjoint({"previous", "candidate", "candidate_optimizer"})
    device = mt.Device(package, state=tmp_path / "state")
    base = device.parameters()
    update = live(device, 6)
    assert update is not None and update.accepted and update.steps == 2 * 3
    learnt = device.parameters()
    assert not same(learnt, base)
    again = mt.Device(package, state=tmp_path / "state")
    assert again.state() == device.state() and same(again.parameters(), learnt)
    again.forget()
    assert same(again.parameters(), base) and again.status().samples < 3


def test_numbers_that_are_not_finite_give_the_base_back(stored: Graph, tmp_path: Path) -> None:
    device = mt.Device(built(stored, tmp_path, "float32", rate=1e30))
    base = device.parameters()
    update = live(device, 6)
    assert update is not None and not update.accepted
    assert same(device.parameters(), base)
    assert np.isfinite(device.predict(IMAGES[0]).value).all()


def test_the_same_as_learning_beside_unjudged(stored: Graph, tmp_path: Path) -> None:
    """Without judgement the copies change nothing but what there is to go back to."""
    beside = mt.Learner(buffer=3, every=1, epochs=2, folds=0, restart=False)
    devices = [
        mt.Device(built(stored, tmp_path / name, "mixed", learner=learner))
        for name, learner in (("in", IN_PLACE), ("beside", beside))
    ]
    found = []
    for device in devices:
        live(device, 1)
        found.append(device.parameters())
    assert same(*found)


def test_the_input_may_lie_in_the_arena(stored: Graph, tmp_path: Path) -> None:
    """As a camera writes it: into the device's own RAM, where prediction and training overwrite it."""
    plan = mt.plan(stored, mt.Head(1), "cross_entropy", mt.SGD(lr=0.05), IN_PLACE, "mixed")
    package = mt.build(plan, tmp_path / "small")
    place = package.manifest["input"]["place"]
    inside, outside = mt.Device(package), mt.Device(package)
    image = inside.stored_input(IMAGES[0])
    step, at = inside.entry("step"), inside.address
    where = inside.entry("input")
    arena = next(field["offset"] for field in package.manifest["layout"]["fields"] if field["name"] == "arena")
    function = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(where)
    slot = function(at)
    assert slot == at + ctypes.sizeof(ctypes.c_void_p) + arena + place
    loss, target = ctypes.c_float(), (ctypes.c_float * 1)(1.0)
    call = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 4)(step)
    for _ in range(3):
        ctypes.memmove(slot, image.ctypes.data, image.nbytes)
        assert call(at, slot, ctypes.addressof(target), ctypes.addressof(loss)) == 0
        assert loss.value == outside.step(image, 1)
    assert same(inside.parameters(), outside.parameters())


def test_thousands_of_unnamed_inputs_are_not_listed(stored: Graph, tmp_path: Path) -> None:
    package = built(stored, tmp_path, "mixed")
    assert package.manifest["inputs"] == []
    assert package.input_size == len(package.inputs) == 8 * 8 * 2
    assert package.inputs[5] == {"name": "input 5", "low": None, "high": None, "unit": ""}
