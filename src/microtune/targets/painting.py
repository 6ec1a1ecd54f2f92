"""The worst stack of a package's functions on an emulated core, measured by painting and bounded from the image."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from microtune.errors import EmulationError
from microtune.interface import interface_of
from microtune.package import Package
from microtune.targets.catalogue import Target
from microtune.targets.emulator import Emulator
from microtune.targets.stack import stack_bounds
from microtune.toolchain import compile_image

HERE = Path(__file__).parent
SECTOR = 256
ROOM = 4096  # bytes for outputs, results and ports: more than any takes


@dataclass(frozen=True)
class Stack:
    """Bytes of stack. measured: the most that was written, by function; bound: what no call of it can exceed."""

    measured: dict[str, int]
    bound: dict[str, int]

    @property
    def worst_measured(self) -> int:
        """Of all functions."""
        return max(self.measured.values())

    @property
    def worst_bound(self) -> int:
        """Of all functions."""
        return max(self.bound.values())


class PaintedDevice:
    """A package with a storage in memory on an emulated core; each call of one of its functions is painted."""

    def __init__(self, package: Package, core: str | Target) -> None:
        self.package, layout = package, package.manifest["layout"]
        verbs = [f"{package.name}_{verb}" for verb in package.verbs]
        with tempfile.TemporaryDirectory() as scratch:
            image = compile_image(
                [*package.sources, HERE / "memory_port.c"], [package.directory, HERE], Path(scratch) / "device.elf",
                core, keep=[*verbs, "mt_memory_port_create"],
            )  # fmt: skip
            self.machine = Emulator(image, core)
        bounds = stack_bounds(self.machine.image, verbs)
        self.bound = {verb: bounds[f"{package.name}_{verb}"].size for verb in package.verbs}
        self.measured = dict.fromkeys(package.verbs, 0)
        machine, saved = self.machine, int(layout["saved"])
        self._device = machine.allocate(8 + int(layout["bytes"]))
        self._dtype = "<f4" if package.manifest["input"]["dtype"] == "float32" else "i1"
        self._input = machine.allocate(4 * package.input_size)
        self._target = machine.allocate(4 * int(package.manifest["targets"]))
        self._output = machine.allocate(4 * int(package.manifest["outputs"]))
        self._result, self._port = machine.allocate(ROOM), machine.allocate(ROOM)
        storage_size = 4 * ((saved + ROOM) // SECTOR + 1) * SECTOR
        storage = machine.allocate(storage_size)
        machine.call("mt_memory_port_create", self._port, storage, storage_size, SECTOR)
        self._do("init", self._port)

    def call(self, verb: str, *arguments: int) -> int:
        """Paint one call; what it returns."""
        found, stack = self.machine.paint(f"{self.package.name}_{verb}", self._device, *arguments)
        self.measured[verb] = max(self.measured[verb], stack)
        return found

    def _do(self, verb: str, *arguments: int) -> None:
        if status := self.call(verb, *arguments):
            raise EmulationError(f"{self.package.name}_{verb} returned status {status} on the emulated core")

    def use(self, x: npt.ArrayLike, y: npt.ArrayLike) -> None:
        """Predict, observe, and idle until nothing is left to do."""
        written = interface_of(self.package.fixed).written
        self.machine.write(self._input, np.asarray(x, self._dtype).tobytes())
        self.machine.write(self._target, written(np.asarray(y, "<f4")).tobytes())
        self._do("predict", self._input, self._output, self._result)
        self._do("observe", self._target)
        more = 1
        while more:
            self._do("idle", self._result)
            _, _, more = self.machine.read(self._result, 3)

    def everything_else(self) -> None:
        """Each of the other functions, with the last sample seen; some refuse it, which takes stack too: the step of a
        closed form, times without a clock. The power goes off in between."""
        calls: dict[str, tuple[int, ...]] = {
            "step": (self._input, self._target, self._result),
            "learning_mode": (3,),
            "select_profile": (1,),
            "sensor": (0, self._result),
            "save": (),
            "status": (self._result,),
            "metrics": (self._result,),
            "forget_last": (2,),
            "forget_since": (1,),
            "forget": (),
            "init": (self._port,),
            "reset": (),
        }
        for verb, arguments in calls.items():
            if verb in self.package.verbs:
                self.call(verb, *arguments)


def stacks(package: Package, core: str | Target, uses: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]]) -> Stack:
    """Live through uses (input, target) and call each function once, with a port whose storage is memory.

    Both figures are of the image with that port: its functions take some bytes too, as the firmware's own will.
    """
    device = PaintedDevice(package, core)
    for x, y in uses:
        device.use(x, y)
    device.everything_else()
    return Stack(device.measured, device.bound)
