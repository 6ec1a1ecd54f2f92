"""Devices of many plans in one library, one plain step at a time."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from microtune.compiler.layout import lay_out
from microtune.compiler.planned import Plan
from microtune.compiler.sources import write_sources
from microtune.targets.machine import HostMachine
from microtune.toolchain import compile_library


class Built:
    """The C of one plan. ``values``: what its parameters hold."""

    def __init__(self, plan: Plan, name: str, machine: HostMachine) -> None:
        self.name, self.machine = name, machine
        layout = lay_out(plan)
        pointer = machine.pointer_size
        self.slices = layout.parameters
        self.device = machine.allocate(pointer + layout.bytes + pointer)
        self.parameters = self.device + pointer + layout.field("parameters").offset
        self.scratch = machine.allocate(1 << 16)
        assert self.call("init", 0) == 0

    def call(self, verb: str, *arguments: int) -> int:
        return self.machine.call(f"{self.name}_{verb}", self.device, *arguments)

    @property
    def values(self) -> dict[str, np.ndarray]:
        found = {}
        for each in self.slices:
            data = self.machine.read(self.parameters + each.offset, each.tensor.bytes)
            found[each.tensor.name] = np.frombuffer(data, each.tensor.dtype).reshape(each.tensor.shape).copy()
        return found

    def load(self, values: dict[str, np.ndarray]) -> None:
        for each in self.slices:
            data = values[each.tensor.name].astype(each.tensor.dtype).tobytes()
            self.machine.write(self.parameters + each.offset, data)

    def step(self, x: np.ndarray, target: np.ndarray) -> float:
        """One plain step; the loss before it."""
        y, result = self.scratch + x.nbytes + (-x.nbytes) % 8, self.scratch + (1 << 15)
        self.machine.write(self.scratch, x.tobytes())
        self.machine.write(y, target.astype("<f4").tobytes())
        assert self.call("step", self.scratch, y, result) == 0
        return float(struct.unpack("<f", self.machine.read(result, 4))[0])

    def predict(self, x: np.ndarray, outputs: int) -> np.ndarray:
        result, more = self.scratch + (1 << 15), self.scratch + (3 << 14)
        self.machine.write(self.scratch, x.tobytes())
        assert self.call("predict", self.scratch, result, more) == 0
        return np.frombuffer(self.machine.read(result, 4 * outputs), "<f4").copy()


def built(plans: Sequence[Plan], folder: Path) -> list[Built]:
    """All plans compiled into one host library."""
    sources: set[Path] = set()
    for index, plan in enumerate(plans):
        sources.update(write_sources(plan, f"net{index}", folder))
    machine = HostMachine(compile_library(sorted(sources), [folder], folder / "nets.so"))
    return [Built(plan, f"net{index}", machine) for index, plan in enumerate(plans)]
