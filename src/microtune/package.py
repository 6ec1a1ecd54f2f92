"""A built package directory: its manifest, its sources. Whoever uses a package needs nothing of the compiler."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from microtune.errors import BuildError

FORMAT = 3
MOST_SAID = 1e38
"""A sensor whose limit is above it is not tested for its range."""
VERBS = (
    "init", "predict", "observe", "idle", "step", "learning_mode", "forget", "forget_last", "forget_since", "reset",
    "save", "status", "metrics",
)  # fmt: skip
"""The C functions of every device, behind its name."""


def verbs_of(profiles: int, sensors: bool) -> tuple[str, ...]:
    """The C functions of one device."""
    return (*VERBS, *(["select_profile"] if profiles > 1 else []), *(["sensor"] if sensors else []))


@dataclass(frozen=True)
class Package:
    """A built package directory and its manifest."""

    directory: Path
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def fixed(self) -> bool:
        """Whether it computes in integers only: outputs, targets and confidences are fixed-point."""
        return bool(self.manifest["precision"] == "int8")

    @property
    def input_size(self) -> int:
        """Values of one input."""
        return math.prod(self.manifest["input"]["shape"])

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """Name, range and unit of each input; the manifest leaves out a long list in which none is described."""
        known: list[dict[str, Any]] = self.manifest["inputs"]
        plain = {"low": None, "high": None, "unit": ""}
        return known or [{"name": f"input {index}", **plain} for index in range(self.input_size)]

    @property
    def usual_inputs(self) -> list[dict[str, Any]]:
        """``inputs``, their ranges narrowed to what sensors that are believed mostly say."""
        found = [dict(each) for each in self.inputs]
        for each, sensor in zip(found, self.manifest["sensors"], strict=False):
            if sensor["high"] > MOST_SAID:
                continue
            # the samples' own range lies in the middle half of what one value may be; of few values, all of it counts
            room = 0.0 if sensor["step"] > 0 else (sensor["high"] - sensor["low"]) / 4
            low, high = sensor["low"] + room, sensor["high"] - room
            low = low if each["low"] is None else max(low, each["low"])
            high = high if each["high"] is None else min(high, each["high"])
            if low < high:
                each |= {"low": low, "high": high}
        return found

    def told(self, x: np.ndarray) -> np.ndarray:
        """Inputs (n, inputs) as sensors that are believed tell them: those of few values say the nearest of them."""
        x = np.array(x, float)
        for index, sensor in enumerate(self.manifest["sensors"]):
            if sensor["step"] > 0:
                # values lie half of what is left for rounding, 1/64 of a step, above the lowest allowed one
                first = sensor["low"] + sensor["step"] / 128
                most = np.floor((sensor["high"] - first) / sensor["step"])
                x[:, index] = first + sensor["step"] * np.clip(np.rint((x[:, index] - first) / sensor["step"]), 0, most)
        low = [-np.inf if each["low"] is None else each["low"] for each in self.inputs]
        high = [np.inf if each["high"] is None else each["high"] for each in self.inputs]
        return np.asarray(np.clip(x, low, high))

    @property
    def verbs(self) -> tuple[str, ...]:
        """Its C functions."""
        return verbs_of(self.manifest["learner"]["profiles"], bool(self.manifest["sensors"]))

    @property
    def sources(self) -> list[Path]:
        """All C sources of the package."""
        return sorted(self.directory.glob("*.c"))


def open_package(directory: str | os.PathLike[str] | Package) -> Package:
    """Read a package directory; one that was opened is given back. Raises BuildError when it is none, or was built by
    another format."""
    if isinstance(directory, Package):
        return directory
    try:
        path = Path(directory)
    except TypeError:
        kind = type(directory).__name__
        raise BuildError(
            f"a {kind} is no package: give the directory that microtune.build wrote, or what it returned"
        ) from None
    try:
        manifest = json.loads((path / "manifest.json").read_text())
    except FileNotFoundError:
        if (path / "network.json").exists():
            raise BuildError(
                f"{path} holds a network that only predicts, of microtune compile; a package that learns is wanted, of "
                "microtune build"
            ) from None
        raise BuildError(
            f"{path} is not a package directory: it has no manifest.json. Make one with microtune.build"
        ) from None
    except (OSError, ValueError) as error:
        raise BuildError(f"{path}/manifest.json cannot be read: {error}") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise BuildError(
            f"{path}/manifest.json has the format {found}, this version reads {FORMAT}; build the package again"
        )
    return Package(path, manifest)
