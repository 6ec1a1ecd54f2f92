"""Instructions of a package's calls on an emulated core, with the non-volatile memory in RAM."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from microtune.errors import EmulationError
from microtune.package import VERBS, Package
from microtune.targets.emulator import Emulator
from microtune.toolchain import compile_image

RESULT_BYTES = 32  # room for an mt_prediction or an mt_update


class CoreDevice:
    """A package running on an emulated Cortex-M: ``Device``'s loop, measured."""

    def __init__(self, package: Package, core: str) -> None:
        self._name = package.name
        with tempfile.TemporaryDirectory() as scratch:
            image = compile_image(
                package.sources, [package.directory], Path(scratch) / "device.elf", core,
                keep=[f"{self._name}_{verb}" for verb in VERBS],
            )  # fmt: skip
            self.machine = Emulator(image, core)
        layout = package.manifest["layout"]
        self._saved = int(layout["saved"])
        self.address = self.machine.allocate(4 + int(layout["bytes"]))
        self._input = self.machine.allocate(4 * package.input_size)
        self._dtype = "<f4" if package.manifest["input"]["dtype"] == "float32" else "i1"
        self._target = self.machine.allocate(4 * int(package.manifest["targets"]))
        self._output = self.machine.allocate(4 * int(package.manifest["outputs"]))
        self._result = self.machine.allocate(RESULT_BYTES)
        self._expect(self.machine.call(f"{self._name}_init", self.address, 0), "init")

    def _expect(self, status: int, verb: str) -> None:
        if status != 0:
            raise EmulationError(f"{self._name}_{verb} returned status {status} on the emulated core")

    def _run(self, verb: str, arguments: Sequence[int], count: bool) -> int:
        symbol = f"{self._name}_{verb}"
        if not count:
            self._expect(self.machine.call(symbol, self.address, *arguments), verb)
            return 0
        found = self.machine.measure(symbol, self.address, *arguments)
        self._expect(found.result, verb)
        return found.instructions

    def use(self, x: npt.ArrayLike, y: npt.ArrayLike, count: bool = False) -> dict[str, int]:
        """Predict, observe, idle; with ``count`` the instructions of the prediction and of the update.

        x: as the C takes it: of an int8 model, int8.
        """
        self.machine.write(self._input, np.asarray(x, self._dtype).tobytes())
        self.machine.write(self._target, np.asarray(y, "<f4").tobytes())
        predict = self._run("predict", (self._input, self._output, self._result), count)
        observe = self._run("observe", (self._target,), count)
        idle = self._run("idle", (self._result,), count)
        return {"predict": predict, "update": observe + idle}

    def step(self, x: npt.ArrayLike, y: npt.ArrayLike) -> int:
        """Instructions of one plain optimiser step; x as the C takes it."""
        self.machine.write(self._input, np.asarray(x, self._dtype).tobytes())
        self.machine.write(self._target, np.asarray(y, "<f4").tobytes())
        return self._run("step", (self._input, self._target, self._result), count=True)

    def state(self) -> bytes:
        """The saved part of the device struct, behind the port's address."""
        return self.machine.read(self.address + 4, self._saved)


def instructions(
    package: Package, core: str, uses: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]], last: int = 5
) -> dict[str, int]:
    """The most instructions of a prediction and of a whole update among the ``last`` of ``uses`` (input, target)."""
    device = CoreDevice(package, core)
    for x, y in uses[:-last]:
        device.use(x, y)
    counts = [device.use(x, y, count=True) for x, y in uses[-last:]]
    return {key: max(count[key] for count in counts) for key in ("predict", "update")}


def random_uses(package: Package, count: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Inputs within their declared ranges (-1 to 1 where there is none) and valid targets, reproducible."""
    rng = np.random.default_rng(seed)
    described = package.inputs
    low = np.array([-1.0 if each["low"] is None else each["low"] for each in described])
    high = np.array(
        [
            max(1.0, start + 1.0) if each["high"] is None else each["high"]
            for each, start in zip(described, low, strict=True)
        ]
    )
    outputs, targets = int(package.manifest["outputs"]), int(package.manifest["targets"])
    found = []
    for _ in range(count):
        x = rng.uniform(low, high)
        match package.manifest["task"]:
            case "MT_MULTICLASS":
                y = np.array([float(rng.integers(outputs))])
            case "MT_BINARY":
                y = rng.integers(0, 2, targets).astype(float)
            case _:
                y = rng.normal(size=targets)
        found.append((x, y))
    return found
