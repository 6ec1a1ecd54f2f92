"""Instructions of a package's calls on an emulated core without non-volatile memory, and the time and energy they
take."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from microtune.errors import EmulationError
from microtune.interface import interface_of
from microtune.package import Package, open_package
from microtune.targets.catalogue import Target, target
from microtune.targets.emulator import Emulator
from microtune.targets.power import parse_clock, parse_energy
from microtune.toolchain import compile_image

RESULT_BYTES = 32  # room for an mt_prediction or an mt_update
PORT_BYTES = 64  # room for an mt_port
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Work:
    """What a piece of work takes: instructions as counted, seconds and joules as estimated from them."""

    instructions: int
    seconds: float
    joules: float


@dataclass(frozen=True)
class Cost:
    """What a package takes on a core.

    predict, observe: the longest of each measured. update: the longest learning from one use: observe, and the whole
    update in idle. slices: into which the last update falls. slice: the longest of them, in a call of idle by itself:
    with ``Learner(slice=1)``, the longest the device is busy with an update in one piece. clock: hertz. energy: joules
    per instruction.
    """

    predict: Work
    observe: Work
    update: Work
    slice: Work
    slices: int
    clock: float
    energy: float


class CoreDevice:
    """A package running on an emulated Cortex-M: ``Device``'s loop, measured."""

    def __init__(self, package: Package, core: str | Target) -> None:
        self._name = package.name
        with tempfile.TemporaryDirectory() as scratch:
            image = compile_image(
                [*package.sources, HERE / "slice_port.c"], [package.directory, HERE], Path(scratch) / "device.elf",
                core, keep=[*(f"{self._name}_{verb}" for verb in package.verbs), "mt_slice_port_create"],
            )  # fmt: skip
            self.machine = Emulator(image, core)
        layout = package.manifest["layout"]
        self._saved = int(layout["saved"])
        self._bytes = 4 + int(layout["bytes"])
        self.address = self.machine.allocate(self._bytes)
        self._input = self.machine.allocate(4 * package.input_size)
        self._dtype = "<f4" if package.manifest["input"]["dtype"] == "float32" else "i1"
        self._written = interface_of(package.fixed).written
        self._target = self.machine.allocate(4 * int(package.manifest["targets"]))
        self._output = self.machine.allocate(4 * int(package.manifest["outputs"]))
        self._result = self.machine.allocate(RESULT_BYTES)
        self._port, self._left = self.machine.allocate(PORT_BYTES), self.machine.allocate(4)
        self.machine.call("mt_slice_port_create", self._port, self._left)
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

    def _predict_and_observe(self, x: npt.ArrayLike, y: npt.ArrayLike, count: bool) -> tuple[int, int]:
        self.machine.write(self._input, np.asarray(x, self._dtype).tobytes())
        self.machine.write(self._target, self._written(np.asarray(y, "<f4")).tobytes())
        predict = self._run("predict", (self._input, self._output, self._result), count)
        return predict, self._run("observe", (self._target,), count)

    def _idle(self, count: bool) -> tuple[list[int], bool]:
        """Calls of idle until the update that is due, if any, is finished: instructions of each; was there one?"""
        found, ran, more = [], 0, 1
        while more and not ran:
            self.machine.write(self._left, (1).to_bytes(4, "little"))
            found.append(self._run("idle", (self._result,), count))
            ran, _, more = self.machine.read(self._result, 3)
        return found, bool(ran)

    def use(self, x: npt.ArrayLike, y: npt.ArrayLike, count: bool = False) -> dict[str, int]:
        """Predict, observe, idle; with ``count`` the instructions of the prediction and of the update.

        x: as the C takes it: of an int8 model, int8.
        """
        predict, observe = self._predict_and_observe(x, y, count)
        return {"predict": predict, "update": observe + sum(self._idle(count)[0])}

    def measure(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[dict[str, int], bytes]:
        """Like ``use`` with ``count``, the observation by itself too; and the device as it was before idle, nothing
        where no update was due."""
        predict, observe = self._predict_and_observe(x, y, count=True)
        before = self.machine.read(self.address, self._bytes)
        idle, ran = self._idle(count=True)
        counts = {"predict": predict, "observe": observe, "update": observe + sum(idle)}
        return counts, before if ran else b""

    def slices(self, before: bytes) -> list[int]:
        """From ``before`` on, the same update with one slice in each call of idle: the instructions of each."""
        self.machine.write(self.address, self._port.to_bytes(4, "little") + before[4:])  # the port's address is first
        found, _ = self._idle(count=True)
        self.machine.write(self.address, before[:4])
        return found

    def step(self, x: npt.ArrayLike, y: npt.ArrayLike) -> int:
        """Instructions of one plain optimiser step; x as the C takes it."""
        self.machine.write(self._input, np.asarray(x, self._dtype).tobytes())
        self.machine.write(self._target, self._written(np.asarray(y, "<f4")).tobytes())
        return self._run("step", (self._input, self._target, self._result), count=True)

    @property
    def ram(self) -> int:
        """RAM of the device struct: all that it keeps and works with, but for the stack."""
        return self._bytes

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


def micro_updates(package: Package, core: str, uses: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]]) -> dict[str, int]:
    """The most instructions of a prediction, of a plain step on a sample (which runs the net too), and of observe with
    the whole update in idle, of ``uses`` (input as the C takes it, target); and bytes: RAM of the device, and stack."""
    device = CoreDevice(package, core)
    counts = [{**device.use(x, y, count=True), "step": device.step(x, y)} for x, y in uses]
    found = {key: max(each[key] for each in counts) for key in ("predict", "step", "update")}
    return {**found, "ram": device.ram, "stack": int(package.manifest["memory"]["stack"])}


def cost(
    package: str | os.PathLike[str] | Package,
    core: str | Target,
    uses: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]] | None = None,
    *,
    energy: str | float | None = None,
    clock: str | float | None = None,
) -> Cost:
    """Instructions, time and energy of a prediction, of a whole update and of its longest slice on an emulated core.

    uses: (input, target) in order, as many as fill the buffer; the last are measured, one update at the least. None:
        ``random_uses``. energy: joules per instruction, or text such as ``"150pJ"``; None: the catalogue's. clock:
        hertz, or text such as ``"64MHz"``; None: the board's, or the one of the catalogue's figure. Raises PlanError
        for what cannot be read, EmulationError for what is no emulated core and for uses in which nothing is learnt.
    """
    joules = None if energy is None else parse_energy(energy)
    hertz = None if clock is None else parse_clock(clock)
    package = open_package(package)
    uses = random_uses(package, 120) if uses is None else uses
    device, power = CoreDevice(package, core), target(core).power
    if power is None:
        raise EmulationError(f"target {target(core).name} has no figure of its energy; give it one: Target(power=...)")
    board = target(core).board
    joules, hertz = joules or power.joules, hertz or (board.hertz if board else power.hertz)
    last = max(5, int(package.manifest["learner"]["every"]))
    for x, y in uses[:-last]:
        device.use(x, y)
    measured = [device.measure(x, y) for x, y in uses[-last:]]
    due = [before for _, before in measured if before]
    if not due:
        raise EmulationError(f"{package.name}: nothing was learnt in the last of {len(uses)} uses; give more")
    slices = device.slices(due[-1])

    def work(instructions: int) -> Work:
        return Work(instructions, instructions * power.cycles / hertz, instructions * joules)

    return Cost(
        **{key: work(max(counts[key] for counts, _ in measured)) for key in ("predict", "observe", "update")},
        slice=work(max(slices)),
        slices=len(slices),
        clock=hertz,
        energy=joules,
    )


def random_uses(package: Package, count: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Inputs within their declared ranges (-1 to 1 where there is none), as believed sensors tell them, and valid
    targets, reproducible. Inputs of an int8 model are any int8, as its C takes them."""
    rng = np.random.default_rng(seed)
    stored = package.manifest["input"]["dtype"] == "int8"
    described = package.usual_inputs
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
        if stored:
            x = rng.integers(-128, 128, package.input_size, dtype=np.int8)
        else:
            x = package.told(rng.uniform(low, high)[None])[0]
        match package.manifest["task"]:
            case "MT_MULTICLASS":
                y = np.array([float(rng.integers(outputs))])
            case "MT_BINARY":
                y = rng.integers(0, 2, targets).astype(float)
            case _:
                y = rng.normal(size=targets)
        found.append((x, y))
    return found
