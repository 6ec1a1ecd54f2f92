"""Many uses of a device in one C call: what `Device` does use by use, bit for bit the same and much faster.

`driver.c` calls the functions of the package's own host library. It is compiled once against the package's headers
(toolchain.py keeps what was compiled).
"""

from __future__ import annotations

import ctypes
import math
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtune import toolchain
from microtune.device import Device
from microtune.errors import DeviceError, MicrotuneError
from microtune.interface import Metrics, interface_of, load_library, quantized
from microtune.package import Package
from microtune.simulation.life import Uses
from microtune.simulation.people import FEEDBACKS, Feedback
from microtune.simulation.world import Array, Mask, World

PREDICTED, FELL_BACK, LEFT_ALONE, OBSERVED, UPDATED, TAKEN = (1 << bit for bit in range(6))  # of driver.c
TASKS = ("MT_REGRESSION", "MT_BINARY", "MT_MULTICLASS")
_WATCHES = len(FEEDBACKS)
_SOURCE = Path(__file__).parent / "driver.c"


class _Driven(ctypes.Structure):
    _fields_ = [
        ("device", ctypes.c_void_p),
        ("predict", ctypes.c_void_p),
        ("observe", ctypes.c_void_p),
        ("idle", ctypes.c_void_p),
        ("task", ctypes.c_uint32),
        ("outputs", ctypes.c_uint32),
        ("input_bytes", ctypes.c_uint32),
        ("output", ctypes.c_void_p),
    ]


class _Uses(ctypes.Structure):
    _fields_ = [
        ("count", ctypes.c_uint32),
        ("feedback", ctypes.c_uint32),
        ("inputs", ctypes.c_void_p),
        ("seconds", ctypes.c_void_p),
        ("sets", ctypes.c_void_p),
        ("lowest", ctypes.c_void_p),
        ("highest", ctypes.c_void_p),
        ("answers", ctypes.c_void_p),
        ("confidences", ctypes.c_void_p),
        ("events", ctypes.c_void_p),
    ]


@dataclass(frozen=True)
class Record:
    """What a device did at each use, (n,) each.

    answers: the value suggested, the class, or 0 or 1. events: bits PREDICTED (else the input was refused),
    FELL_BACK, LEFT_ALONE (by a person who leaves good suggestions alone), OBSERVED, UPDATED and TAKEN.
    """

    answers: NDArray[np.float32]
    confidences: NDArray[np.float32]
    events: NDArray[np.uint8]

    def count(self, event: int) -> int:
        """At how many uses this happened."""
        return int(np.count_nonzero(self.events & event))

    def accepted(self, world: World, prefers: Array) -> Mask:
        """Where (n,) the suggestion was good enough for what was truly wanted."""
        predicted = (self.events & PREDICTED) != 0
        return np.asarray(predicted & world.accepts(self.answers.astype(float), prefers))


class Driver:
    """One device of a package that is run through whole stretches of a life; ``device`` is the same, use by use."""

    def __init__(self, package: Package) -> None:
        manifest = package.manifest
        if manifest["targets"] != 1:
            raise MicrotuneError(
                f"simulated people set one value, one class or one yes/no; '{package.name}' takes "
                f"{manifest['targets']} targets at a time"
            )
        self.package, self.device = package, Device(package)
        self._seconds: int | None = None  # what the clock showed last
        self._library = _compiled(package.directory)
        self._input, self._inputs = manifest["input"], math.prod(manifest["input"]["shape"])
        size = self._inputs * np.dtype(self._input["dtype"]).itemsize
        self._c = interface_of(package.fixed)
        self._output = np.zeros(manifest["outputs"], self._c.dtype)
        address, entries = self.device.address, [self.device.entry(verb) for verb in ("predict", "observe", "idle")]
        self._driven = _Driven(
            address, *entries, TASKS.index(manifest["task"]), manifest["outputs"], size, self._output.ctypes.data
        )

    def live(self, uses: Uses, world: World, feedback: Feedback) -> Record:
        """Run the device through these uses, learning. Its clock shows their days."""
        lowest = highest = None
        if feedback != "sets":
            lowest, highest = world.accepted_range(uses.prefers)
            lowest[uses.wild], highest[uses.wild] = np.inf, -np.inf  # a wild value is set whatever was suggested
        seconds = seconds_of(uses.day)
        self._seconds = int(seconds[-1]) if len(seconds) else self._seconds
        return self._run(uses.context, uses.sets, FEEDBACKS.index(feedback), lowest, highest, seconds)

    def watch(self, contexts: Array, day: float | None = None) -> Record:
        """Predict for contexts (n, inputs), learning nothing. The clock stands still, or goes on to this day."""
        if day is not None:
            self._seconds = int(seconds_of(np.array([day]))[0])
        seconds = None if self._seconds is None else np.full(len(contexts), self._seconds, np.uint32)
        return self._run(contexts, np.zeros(len(contexts)), _WATCHES, None, None, seconds)

    def metrics(self) -> Metrics:
        """The device's own counters."""
        return self.device.metrics()

    def state(self) -> bytes:
        """The bytes that the device would save."""
        return self.device.state()

    def _run(
        self,
        contexts: Array,
        sets: Array,
        feedback: int,
        lowest: NDArray[np.float32] | None,
        highest: NDArray[np.float32] | None,
        seconds: NDArray[np.uint32] | None = None,
    ) -> Record:
        count = len(contexts)
        if contexts.shape != (count, self._inputs):
            raise DeviceError(
                f"contexts have the shape {contexts.shape}; '{self.package.name}' takes {self._inputs} inputs",
                "MT_INVALID_ARGUMENT",
            )
        inputs = np.ascontiguousarray(contexts, np.float32)
        if self._input["dtype"] != "float32":
            inputs = quantized(inputs, self._input["scale"], self._input["zero_point"])
        numbers = [None if each is None else self._c.written(np.ascontiguousarray(each, np.float32))
                   for each in (sets, lowest, highest)]  # fmt: skip
        answers, confidences = np.empty(count, self._c.dtype), np.empty(count, self._c.dtype)
        events = np.empty(count, np.uint8)
        arrays = [inputs, seconds, *numbers, answers, confidences, events]
        uses = _Uses(count, feedback, *(None if each is None else each.ctypes.data for each in arrays))
        finished = self._library.mt_drive(ctypes.byref(self._driven), ctypes.byref(uses))
        if finished != count:
            raise DeviceError(f"the device failed at use {finished} of {count}")
        return Record(self._c.read_all(answers), self._c.read_all(confidences), events)


def seconds_of(days: Array) -> NDArray[np.uint32]:
    """What the clock of a device shows so many days after it was first switched on."""
    return (1.0 + 86400.0 * days).astype(np.uint32)


@cache
def _compiled(directory: Path) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        library = load_library(
            toolchain.compile_library([_SOURCE], [directory], Path(folder) / "driver.so", strict=True)
        )
    library.mt_drive.restype = ctypes.c_uint32
    return library
