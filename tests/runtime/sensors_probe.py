"""The Python side of sensors_probe.c: streams of uses through the C of mt_sensors and mt_recognition."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import microtune.toolchain
from microtune.tuning.sensors import SensorModel

RUNTIME = Path(microtune.toolchain.__file__).parent / "runtime"
SOURCES = [RUNTIME / "mt_sensors.c", RUNTIME / "mt_recognition.c", Path(__file__).parent / "sensors_probe.c"]
RANGE, STUCK, DRIFT = 1, 2, 4
SANE = 4
Flags = NDArray[np.uint8]

MODEL = np.dtype(
    [
        *((name, "f4") for name in ("low", "high", "step", "mean_low", "mean_high", "common")),
        ("same", "u2"),
        ("window", "u2"),
    ]
)
SENSOR = np.dtype([("last", "f4"), ("mean", "f4"), ("same", "u1"), ("uses", "u1"), ("sane", "u1"), ("flags", "u1")])


def table(models: Sequence[SensorModel]) -> NDArray[Any]:
    """The rows of mt_sensor_model that the generated code would hold."""
    return np.array([tuple(model.constants.values()) for model in models], MODEL)


def floats(values: ArrayLike) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, np.float32)


def at(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


class Device:
    """A device's sensors: models in flash, state in RAM."""

    def __init__(self, library: ctypes.CDLL, models: NDArray[Any]) -> None:
        self.library, self.models, self.state = library, models, np.zeros(len(models), SENSOR)

    def check(self, uses: ArrayLike) -> Flags:
        """Inputs (uses, inputs) -> flags of each (uses, inputs)."""
        x = floats(uses)
        assert x.shape == (len(x), len(self.models))
        flags, every = np.zeros(x.shape, np.uint8), np.zeros(len(x), np.uint8)
        self.library.probe_stream(at(self.models), at(self.state), x.shape[1], len(x), at(x), at(flags), at(every))
        assert np.array_equal(every, np.bitwise_or.reduce(flags, axis=1))
        return flags


class Profiles:
    """The recognition of one device: what is saved of each profile."""

    def __init__(self, library: ctypes.CDLL, count: int, inputs: int) -> None:
        self.library, self.inputs = library, inputs
        self.memory = np.zeros((count, 2 * inputs + 1), np.float32)

    def learn(self, profile: int, uses: ArrayLike) -> None:
        x = floats(uses)
        self.library.probe_learn(at(self.memory[profile]), self.inputs, len(x), at(x))

    def choose(self, uses: ArrayLike, current: int = 0) -> NDArray[np.uint32]:
        x = floats(uses)
        chosen = np.zeros(len(x), np.uint32)
        self.library.probe_choose(at(self.memory), len(self.memory), self.inputs, len(x), at(x), current, at(chosen))
        return chosen
