"""A built package directory: its manifest, its sources. Whoever uses a package needs nothing of the compiler."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microtune.errors import BuildError

FORMAT = 3
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
    def verbs(self) -> tuple[str, ...]:
        """Its C functions."""
        return verbs_of(self.manifest["learner"]["profiles"], bool(self.manifest["sensors"]))

    @property
    def sources(self) -> list[Path]:
        """All C sources of the package."""
        return sorted(self.directory.glob("*.c"))


def open_package(directory: str | os.PathLike[str]) -> Package:
    """Read a package directory. Raises BuildError when it is not one, or was built by another format."""
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
