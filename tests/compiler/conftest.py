"""Small networks by a few words, and devices built from plans and driven through the C interface."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from microtune.compiler.layout import lay_out
from microtune.compiler.planned import Plan
from microtune.compiler.sources import write_sources
from microtune.frontends.builder import Builder
from microtune.ir import Graph, verify
from microtune.targets.machine import HostMachine, Machine
from microtune.toolchain import compile_library

MakeNet = Callable[..., Graph]


def make_net(
    sizes: Sequence[int], activations: Sequence[str] | str = "relu", seed: int = 0, bias: bool = True
) -> Graph:
    """Dense layers of these sizes; an activation behind each but the last, or behind each that has one named."""
    r = np.random.default_rng(seed)
    builder = Builder("net")
    tensor = builder.input("x", (sizes[0],))
    if isinstance(activations, str):
        activations = [activations] * (len(sizes) - 2)
    for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        weight = builder.constant(f"w{index}", r.normal(size=(outputs, inputs)) / inputs**0.5, "test")
        rest = [builder.constant(f"b{index}", 0.3 * r.normal(size=outputs), "test")] if bias else []
        tensor = builder.emit("dense", [tensor, weight, *rest], f"h{index}", "test", f"dense{index}")
        if index < len(activations) and activations[index]:
            given = {"alpha": 0.125} if activations[index] == "leaky_relu" else {}
            tensor = builder.emit(activations[index], [tensor], f"a{index}", "test", f"act{index}", **given)
    return verify(builder.finish(tensor, "test"))


@pytest.fixture(scope="session")
def net() -> MakeNet:
    return make_net


@dataclass
class Driven:
    """One device on a machine: the C functions of NAME with numbers in and out."""

    plan: Plan
    name: str
    machine: Machine

    def __post_init__(self) -> None:
        layout = lay_out(self.plan)
        pointer = self.machine.pointer_size
        self.offsets = {field.name: pointer + field.offset for field in layout.fields}
        self.sizes = {field.name: field.bytes for field in layout.fields}
        self.device = self.machine.allocate(pointer + layout.bytes + pointer)
        self.x, self.y, self.result = (self.machine.allocate(4096) for _ in range(3))
        self.saved = layout.saved
        self.slices = layout.parameters
        assert self.call("init", 0) == 0

    def call(self, verb: str, *arguments: int) -> int:
        return self.machine.call(f"{self.name}_{verb}", self.device, *arguments)

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        """One plain step; the loss before it."""
        self.machine.write(self.x, x.astype("<f4").tobytes())
        self.machine.write(self.y, y.astype("<f4").tobytes())
        assert self.call("step", self.x, self.y, self.result) == 0
        return float(struct.unpack("<f", self.machine.read(self.result, 4))[0])

    def read(self, field: str) -> np.ndarray:
        data = self.machine.read(self.device + self.offsets[field], self.sizes[field])
        return np.frombuffer(data, "<f4").copy()

    def write(self, field: str, values: np.ndarray) -> None:
        self.machine.write(self.device + self.offsets[field], values.astype("<f4").tobytes())

    def parameters(self) -> dict[str, np.ndarray]:
        flat = self.read("parameters")
        return {
            each.tensor.name: flat[each.offset // 4 : each.offset // 4 + each.tensor.size].reshape(each.tensor.shape)
            for each in self.slices
        }


Drive = Callable[..., list[Driven]]


def on_host(plans: Sequence[Plan], folder: Path, edit: Callable[[Path], None] | None = None) -> list[Driven]:
    """All plans compiled into one host library; ``edit`` may change the sources before."""
    sources: set[Path] = set()
    for index, plan in enumerate(plans):
        sources.update(write_sources(plan, f"net{index}", folder))
    if edit is not None:
        edit(folder)
    machine = HostMachine(compile_library(sorted(sources), [folder], folder / "nets.so"))
    return [Driven(plan, f"net{index}", machine) for index, plan in enumerate(plans)]


@pytest.fixture(scope="session")
def drive() -> Drive:
    return on_host
