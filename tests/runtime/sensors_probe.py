"""The Python side of sensors_probe.c: streams of uses through mt_sensors.c and mt_recognition.c, under sanitizers."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import microtune.toolchain
from microtune.toolchain import compile_program
from microtune.tuning.sensors import SensorModel

HERE = Path(__file__).parent
RUNTIME = Path(microtune.toolchain.__file__).parent / "runtime"
SOURCES = [RUNTIME / "mt_sensors.c", RUNTIME / "mt_recognition.c"]
RANGE, STUCK, DRIFT = 1, 2, 4
SANE = 4
LEAST = 3

MODEL = np.dtype(
    [
        *((name, "f4") for name in ("low", "high", "step", "mean_low", "mean_high", "common")),
        *((name, "u2") for name in ("same", "window")),
    ]
)
SENSOR = np.dtype([("last", "f4"), ("mean", "f4"), *((name, "u1") for name in ("same", "uses", "sane", "flags"))])

Flags = NDArray[np.uint8]
Table = NDArray[Any]


def table(models: Sequence[SensorModel]) -> Table:
    """The rows of mt_sensor_model that generated code holds."""
    return np.array([tuple(model.constants.values()) for model in models], MODEL)


class Probe:
    """The running program."""

    def __init__(self, folder: Path) -> None:
        program = compile_program([HERE / "sensors_main.c", *SOURCES], [RUNTIME], folder / "sensors", sanitize=True)
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def call(self, *numbers: int, data: Sequence[NDArray[Any]], answers: Sequence[tuple[Any, Any]]) -> list[Any]:
        """Answers are (dtype, shape); the arrays come back in that order."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(np.array(numbers, np.uint32).tobytes() + b"".join(each.tobytes() for each in data))
        self.process.stdin.flush()
        found = []
        for kind, shape in answers:
            size = int(np.prod(shape)) * np.dtype(kind).itemsize
            raw = self.process.stdout.read(size)
            assert len(raw) == size, "the sanitizers stopped the program: see its standard error"
            found.append(np.frombuffer(raw, kind).reshape(shape).copy())
        return found

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        assert self.process.wait(10) == 0


class Device:
    """A device's sensors: models in flash, state in RAM."""

    def __init__(self, probe: Probe, models: Table) -> None:
        self.probe, self.models, self.state = probe, models, np.zeros(len(models), SENSOR)

    def check(self, uses: ArrayLike) -> Flags:
        """Inputs (uses, inputs) -> flags of each after each use (uses, inputs)."""
        x = np.asarray(uses, np.float32).reshape(-1, len(self.models))
        self.state, flags, every = self.probe.call(
            0, x.shape[1], len(x), 0, 0,
            data=(self.models, self.state, x),
            answers=((SENSOR, len(self.models)), (np.uint8, x.shape), (np.uint8, len(x))),
        )  # fmt: skip
        assert np.array_equal(every, np.bitwise_or.reduce(flags, axis=1))
        return np.asarray(flags)


class Profiles:
    """Who a device knows: what it saves of each profile."""

    def __init__(self, probe: Probe, count: int, inputs: int) -> None:
        self.probe, self.inputs = probe, inputs
        self.memory = np.zeros((count, 2 * inputs + 1), np.float32)

    def learn(self, profile: int, uses: ArrayLike) -> None:
        x = np.asarray(uses, np.float32).reshape(-1, self.inputs)
        (self.memory[profile],) = self.probe.call(
            1, self.inputs, len(x), 1, 0,
            data=(self.memory[profile], x), answers=((np.float32, 2 * self.inputs + 1),),
        )  # fmt: skip

    def choose(self, uses: ArrayLike, current: int = 0) -> NDArray[np.uint32]:
        """Contexts (uses, inputs) -> who is chosen at each (uses), the choice before being current."""
        x = np.asarray(uses, np.float32).reshape(-1, self.inputs)
        (chosen,) = self.probe.call(
            2, self.inputs, len(x), len(self.memory), current,
            data=(self.memory, x), answers=((np.uint32, len(x)),),
        )  # fmt: skip
        return np.asarray(chosen)
