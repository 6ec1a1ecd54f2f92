"""Samples that a user keeps in an .npz file."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from microtune.errors import PlanError


def read_npz(path: Path, *needed: str) -> dict[str, np.ndarray]:
    """All arrays of an .npz file. Raises PlanError for another file, and where one that is needed is missing."""
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile):
        found = None
    if not isinstance(found, np.lib.npyio.NpzFile):
        names = ", ".join(f"{name}={'inputs' if name == 'x' else 'wanted'}" for name in needed)
        raise PlanError(f"{path} is not an .npz file; write one with numpy.savez(path, {names})")
    with found:
        missing = [name for name in needed if name not in found.files]
        if missing:
            there = ", ".join(found.files) or "nothing"
            raise PlanError(
                f"{path} holds no {' and no '.join(missing)}, but {there}; needed: {', '.join(needed)}"
            )
        try:
            return {name: found[name] for name in found.files}
        except (ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise PlanError(f"{path} cannot be read: {error}") from None


def read_pair(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) of an .npz file. Raises PlanError for another file, and where one of them is missing."""
    found = read_npz(path, "x", "y")
    return found["x"], found["y"]
