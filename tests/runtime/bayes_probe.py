"""The Python side of bayes_probe.c: the same struct, and a handle that drives it on any machine."""

import ctypes
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtune.targets.machine import Machine

Floats = NDArray[np.float32]

RUNTIME = Path(__file__).parents[2] / "src" / "microtune" / "runtime"
SOURCES = (
    *(RUNTIME / f"mt_bayes{part}.c" for part in ("", "_change", "_features", "_refit")),
    Path(__file__).parent / "bayes_probe.c",
)
HIDDEN, INPUTS, BUFFER, BUMPS = 16, 5, 64, 2
FEATURES = HIDDEN + INPUTS + BUMPS + 2
RUN, JUDGED = 4, 16

TOASTER: dict[str, float] = {
    "hidden": HIDDEN,
    "inputs": INPUTS,
    "buffer": BUFFER,
    "bumps": BUMPS,
    "hidden_variance": 0.01,
    "input_variance": 0.015,
    "bias_variance": 0.8,
    "bump_variance": 1.0,
    "trend_variance": 0.006,
    "trend_unit": 20.0,
    "trend_reach": 30.0,
    "bump_width_squared": 0.4,
    "noise": 0.035,
    "noise_uses": 4.0,
    "noise_floor": 0.003,
    "outlier_squared": 6.25,
    "wild_share": 0.15,
    "wild_density": 0.2,
    "surprise": 3.0,
    "jump_evidence": 7.0,
    "probation": 0.3,
    "apart_squared": 1.2,
    "affected_squared": 0.887,
    "crowded_squared": 0.25,
}
"""The constants of docs/bayes.md, in the order of mt_bayes_settings."""


class Settings(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint16 if index < 4 else ctypes.c_float) for index, name in enumerate(TOASTER)]


class State(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint16) for name in ("count", "run", "bump", "standing")),
        ("jumps", ctypes.c_uint32),
        ("noise", ctypes.c_float),
        ("stranger", ctypes.c_float),
        ("base_loss", ctypes.c_float),
        ("surprises", ctypes.c_float * RUN),
        ("evidence", ctypes.c_float * RUN),
    ]


class Network(ctypes.Structure):
    _fields_ = [
        ("inputs", ctypes.c_uint32),
        ("hidden", ctypes.c_uint32),
        ("weight", ctypes.c_float * (HIDDEN * INPUTS)),
        ("bias", ctypes.c_float * HIDDEN),
        ("output_weight", ctypes.c_float * HIDDEN),
        ("output_bias", ctypes.c_float),
    ]


class Probe(ctypes.Structure):
    _fields_ = [
        ("settings", Settings),
        ("base", Network),
        ("state", State),
        ("samples", ctypes.c_float * (BUFFER * (INPUTS + 5))),
        ("centres", ctypes.c_float * (BUMPS * INPUTS)),
        ("precision", ctypes.c_float * FEATURES),
        ("mean", ctypes.c_float * FEATURES),
        ("covariance", ctypes.c_float * (FEATURES * (FEATURES + 1) // 2)),
        ("former", ctypes.c_float * FEATURES),
        ("workspace", ctypes.c_float * ((RUN + 2) * FEATURES + FEATURES * (FEATURES + 1) // 2 + 2 * JUDGED)),
        ("active", ctypes.c_uint16 * (FEATURES + 1)),
        ("cursor", ctypes.c_uint16 * 4),
        ("losses", ctypes.c_float * 4),
        ("time", ctypes.c_uint32),
        ("evidence", ctypes.c_float),
    ]


class Judgement(ctypes.Structure):
    _fields_ = [("personal", ctypes.c_float), ("base", ctypes.c_float), ("samples", ctypes.c_uint32)]


@dataclass(frozen=True)
class Snapshot:
    """What a head knows at one moment, as plain numbers; shapes by its settings."""

    settings: dict[str, float]
    state: dict[str, Any]
    contexts: NDArray[np.float64]  # (count, inputs)
    targets: NDArray[np.float64]  # (count,), as are these three
    ages: NDArray[np.float64]
    change_weights: NDArray[np.float64]
    robust_weights: NDArray[np.float64]
    times: NDArray[np.uint32]
    centres: NDArray[np.float64]  # (placed bumps, inputs)
    precision: NDArray[np.float64]  # (features,)
    mean: NDArray[np.float64]  # (features,)
    former: NDArray[np.float64]  # (features,)


@dataclass
class Head:
    """One device with a base network and settings on one machine."""

    machine: Machine
    settings: dict[str, float]
    layer: Floats  # (hidden, inputs)
    bias: Floats  # (hidden,)
    output: Floats  # (hidden,)
    address: int = field(init=False)
    room: int = field(init=False)

    def __post_init__(self) -> None:
        assert self.machine.call("probe_size") == ctypes.sizeof(Probe)
        self.address = self.machine.allocate(ctypes.sizeof(Probe))
        self.room = self.machine.allocate(256)
        probe = Probe()
        probe.settings = Settings(**{k: int(v) if i < 4 else v for i, (k, v) in enumerate(self.settings.items())})
        probe.base.inputs, probe.base.hidden = self.layer.shape[1], self.layer.shape[0]
        for name, values in (("weight", self.layer), ("bias", self.bias), ("output_weight", self.output)):
            getattr(probe.base, name)[: values.size] = values.ravel().tolist()
        self.machine.write(self.address, bytes(probe))
        self.machine.call("probe_init", self.address)

    def _put(self, values: Any, offset: int = 0) -> int:
        self.machine.write(self.room + offset, np.asarray(values, np.float32).tobytes())
        return self.room + offset

    def _get(self, offset: int, count: int) -> NDArray[np.float64]:
        found = np.frombuffer(self.machine.read(self.room + offset, 4 * count), np.float32)
        return found.astype(np.float64)

    def features(self, context: Any) -> tuple[NDArray[np.float64], float]:
        """The base network's hidden layer and output, as the head is given them."""
        self.machine.call("probe_features", self.address, self._put(context), self.room + 64, self.room + 192)
        return self._get(64, self.layer.shape[0]), float(self._get(192, 1)[0])

    def predict(self, context: Any) -> tuple[float, float]:
        self.machine.call("probe_predict", self.address, self._put(context), self.room + 64)
        value, variance = self._get(64, 2)
        return float(value), float(variance)

    def observe(self, context: Any, target: float) -> None:
        self.machine.call("probe_observe", self.address, self._put(context), self._put([target], 64))

    def refit(self) -> Judgement:
        self.machine.call("probe_refit", self.address, self.room)
        return Judgement.from_buffer_copy(self.machine.read(self.room, ctypes.sizeof(Judgement)))

    def slice(self) -> Judgement | None:
        """One piece of a refit; the judgement after the last."""
        if not self.machine.call("probe_slice", self.address, self.room):
            return None
        return Judgement.from_buffer_copy(self.machine.read(self.room, ctypes.sizeof(Judgement)))

    def restart(self) -> None:
        """Give up a refit under way."""
        self.machine.write(self.address + Probe.cursor.offset, bytes(24))

    @property
    def size(self) -> int:
        return ctypes.sizeof(Probe)

    def settle(self, time: int = 0, evidence: float = 1.0) -> None:
        """The stamp of the next observations, and what factor of evidence they need."""
        values = np.uint32(time).tobytes() + np.float32(evidence).tobytes()
        self.machine.write(self.address + Probe.time.offset, values)

    def since(self, time: int, now: int = 0xFFFFFFFF) -> int:
        return self.machine.call("probe_since", self.address, time, now)

    def drop_newest(self, count: int) -> None:
        self.machine.call("probe_drop_newest", self.address, count)

    def fade(self, share: float) -> None:
        self.machine.call("probe_fade", self.address, self._put([share]))

    def memory(self) -> Probe:
        return Probe.from_buffer_copy(self.machine.read(self.address, ctypes.sizeof(Probe)))

    def saved(self) -> bytes:
        """What a device keeps in storage: from the state up to the workspace."""
        raw = self.machine.read(self.address, ctypes.sizeof(Probe))
        return raw[Probe.state.offset : Probe.workspace.offset]

    def snapshot(self) -> Snapshot:
        probe = self.memory()
        inputs, bumps = int(self.settings["inputs"]), int(self.settings["bumps"])
        size = int(self.settings["hidden"]) + inputs + bumps + 2
        # as bits: time stamps are no floats
        rows = np.frombuffer(bytes(probe.samples), np.float32)[: probe.state.count * (inputs + 5)]
        rows = rows.reshape(-1, inputs + 5)
        state = {
            name: getattr(probe.state, name)
            if isinstance(getattr(probe.state, name), (int, float))
            else np.array(getattr(probe.state, name)[:])
            for name, _ in State._fields_
        }
        return Snapshot(
            {name: float(getattr(probe.settings, name)) for name in TOASTER},
            state,
            rows[:, :inputs].astype(float),
            *rows[:, inputs:-1].T.astype(float),
            np.ascontiguousarray(rows[:, -1]).view(np.uint32),
            np.array(probe.centres[: bumps * inputs], float).reshape(-1, inputs)[: min(probe.state.bump, bumps)],
            np.array(probe.precision[:size], float),
            np.array(probe.mean[:size], float),
            np.array(probe.former[:size], float),
        )
