"""Samples of a user: rows of inputs and targets, their parts, and the .npz files that hold them."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from microtune.errors import PlanError


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs x (samples, *input shape) and targets y, row by row: class indices (samples,), or values (samples,
    outputs)."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: np.ndarray) -> Samples:
        """These rows, in this order."""
        return Samples(self.x[rows], self.y[rows])


def split_samples(samples: Samples, held_out: float, seed: int) -> tuple[Samples, Samples]:
    """A part to learn from, in random order, and a held-out part; each class in both where it has two samples."""
    rng = np.random.default_rng(seed)
    groups = [np.arange(len(samples))]
    if samples.y.ndim == 1:
        groups = [np.flatnonzero(samples.y == label) for label in np.unique(samples.y)]
    learn: list[np.ndarray] = []
    judge: list[np.ndarray] = []
    for group in groups:
        order = rng.permutation(group)
        count = min(max(round(held_out * len(order)), 1), len(order) - 1) if len(order) > 1 else 0
        judge.append(order[:count])
        learn.append(order[count:])
    return samples.take(rng.permutation(np.concatenate(learn))), samples.take(np.concatenate(judge))


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
            raise PlanError(f"{path} holds no {' and no '.join(missing)}, but {there}; needed: {', '.join(needed)}")
        try:
            return {name: found[name] for name in found.files}
        except (ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise PlanError(f"{path} cannot be read: {error}") from None


def read_pair(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) of an .npz file. Raises PlanError for another file, and where one of them is missing."""
    found = read_npz(path, "x", "y")
    return found["x"], found["y"]
