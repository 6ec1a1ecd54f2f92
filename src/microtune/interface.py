"""What the C of a device takes and gives: statuses, structs, and what they become in Python; its library."""

from __future__ import annotations

import ctypes
import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from microtune.errors import BuildError, DeviceError

STATUS = (
    "MT_OK", "MT_INVALID_ARGUMENT", "MT_INPUT_NOT_FINITE", "MT_INPUT_OUT_OF_RANGE", "MT_TARGET_INVALID",
    "MT_NO_PREDICTION", "MT_STORAGE_FAILED", "MT_STATE_CORRUPT", "MT_STATE_FOREIGN", "MT_STATE_MIGRATED",
)  # fmt: skip
MESSAGES = {
    "MT_INVALID_ARGUMENT": "the storage is too small for two states",
    "MT_INPUT_NOT_FINITE": "an input is NaN or infinite",
    "MT_INPUT_OUT_OF_RANGE": "an input is outside its declared range",
    "MT_TARGET_INVALID": "the target cannot be learnt",
    "MT_NO_PREDICTION": "there is no prediction to pair this observation with: call predict first",
    "MT_STORAGE_FAILED": "the storage reported a failure",
}
ORIGINS = {
    "MT_STORAGE_FAILED": "base: the storage failed",
    "MT_STATE_CORRUPT": "base: no whole state in the storage",
    "MT_STATE_FOREIGN": "base: the state is of another build",
    "MT_STATE_MIGRATED": "saved state of another build",
}
STAGES = ("stranger", "getting to know", "acquainted")
"""``mt_stage`` of ``runtime/mt_learner.h``."""
RECOGNISE = 0xFFFF
SENSOR_FLAGS = {1: "range", 2: "stuck", 4: "drift"}
"""Flags of ``runtime/mt_sensors.h``."""
LAST = 30  # offset of `last` in mt_state of runtime/mt_learner.h
SENSOR_WORDS = 3  # of mt_sensor in runtime/mt_sensors.h; its flags are the last byte
DAY = 86400


@dataclass(frozen=True)
class Metrics:
    """Counters since the factory, and one mean (``mt_metrics`` in ``mt_learner.h`` says of what); no raw data.

    accepted, rolled_back: updates taken, and dropped. suspect: observations not learnt, as a sensor was not believed,
    or as they look like a known fault and were said to be well (``Mahalanobis``). changes: of habits, found.
    mean_error: of the model's own answers, absolute in output units, or the share of wrong ones.
    """

    predictions: int
    fallbacks: int
    observations: int
    overrides: int
    refused: int
    accepted: int
    rolled_back: int
    forgets: int
    resets: int
    saves: int
    recoveries: int
    suspect: int
    changes: int
    mean_error: float


@dataclass(frozen=True)
class Interface:
    """``mt_number`` of a package's C, and the structs of ``runtime/mt_learner.h`` made of it."""

    dtype: type[np.float32] | type[np.int32]
    number: type[ctypes.c_float] | type[ctypes.c_int32]
    one: int  # what stands for 1
    prediction: type[ctypes.Structure]
    update: type[ctypes.Structure]
    report: type[ctypes.Structure]
    metrics: type[ctypes.Structure]

    def read(self, number: float) -> float:
        """What a number of the C stands for."""
        return number / self.one

    def read_all(self, numbers: np.ndarray) -> np.ndarray:
        """The same of an array, as float32 (a copy)."""
        return np.asarray(numbers / self.one, np.float32)

    def written(self, values: np.ndarray) -> np.ndarray:
        """Finite float32 values as the C takes them: fixed-point ones to the nearest, saturated."""
        if self.dtype is np.float32:
            return values
        scaled = np.rint(values.astype(float) * self.one)
        return np.asarray(np.clip(scaled, 1 - 2**31, 2**31 - 1), np.int32)


def _struct(name: str, **members: Any) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": list(members.items())})


@cache
def interface_of(fixed: bool) -> Interface:
    """What the C of a package takes and gives: with floats, or with fixed-point numbers."""
    number: Any = ctypes.c_int32 if fixed else ctypes.c_float
    u8, u16, u32 = ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32
    metrics = {each.name: number if each.name == "mean_error" else u32 for each in fields(Metrics)}
    return Interface(
        np.int32 if fixed else np.float32,
        number,
        2**16 if fixed else 1,
        _struct("CPrediction", confidence=number, fallback=u8, suspect=u8, best=u16, profile=u16),
        _struct("CUpdate", ran=u8, accepted=u8, more=u8, refused=u8, loss_before=number, loss_after=number, steps=u32),
        _struct(
            "CReport", learnt=number, sure=number, uses=u32, samples=u16, waiting=u16, profile=u16, stage=u16,
            teaching=u32, suspect=u32,
        ),
        _struct("CMetrics", **metrics),
    )  # fmt: skip


@dataclass(frozen=True)
class Prediction:
    """``value``: outputs (regression) or probabilities. ``confidence``: 0 to 1, how likely it is right (regression:
    within the tolerance). ``fallback``: it was below the threshold, and the safe default is given; ask the person.
    ``suspect``: a sensor is not believed, and what is observed will not be learnt. ``profile``: whose it is."""

    value: np.ndarray
    confidence: float
    fallback: bool
    suspect: bool = False
    profile: int = 0


@dataclass(frozen=True)
class Update:
    """What ``idle`` did. Losses are held-out means: of the base model, and of the candidate; 0 when unjudged.
    ``steps``: of the optimiser. ``refused``: not even tried, for too much of it looks like a known fault
    (``Mahalanobis``)."""

    accepted: bool
    loss_before: float
    loss_after: float
    steps: int
    refused: bool = False


@dataclass(frozen=True)
class Status:
    """Getting to know you, of the person and context of the last prediction.

    learnt: share, 0 to 1, of the last 32 uses answered right; uses not yet made count as wrong. sure: running mean of
    the confidence, 0 to 1. uses: observations so far. samples: kept. waiting: samples not yet learnt.
    stage: "stranger" (nothing observed yet), "getting to know" or "acquainted" (8 of 10 answers were right).
    teaching: observations left of the learning mode. sensors: names of the inputs that are not believed, each
    with what is wrong. origin: where the state came from. erases: of the storage's most worn sector, which flash
    is rated for; 0 without storage.
    """

    learnt: float
    sure: float
    uses: int
    samples: int
    waiting: int
    origin: str
    erases: int = 0
    stage: str = STAGES[0]
    profile: int = 0
    teaching: int = 0
    sensors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def quantized(values: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """Real values as int8: round(value / scale) + zero_point, saturated. Raises DeviceError for NaN and infinity."""
    if not np.isfinite(values).all():
        raise DeviceError(f"{MESSAGES['MT_INPUT_NOT_FINITE']} (MT_INPUT_NOT_FINITE)", "MT_INPUT_NOT_FINITE")
    found = np.round(values.astype(np.float64) / scale) + zero_point
    return np.clip(found, -128, 127).astype(np.int8)


@cache
def _loaded(content: bytes, suffix: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"library{suffix}"
        copy.write_bytes(content)
        return ctypes.CDLL(str(copy))


def load_library(path: Path, digest: str | None = None) -> ctypes.CDLL:
    """The library in a file, of this SHA-256 if one is given. Loaded from a copy: a loader that knows the path
    would not look again at a library that was built anew in the same place."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error.strerror}; build the package again") from error
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        raise BuildError(f"{path} is not the library its manifest describes; build the package again")
    return _loaded(content, path.suffix)
