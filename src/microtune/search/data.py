"""The user's samples: checked, and split into a part to learn from and a part to judge by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from microtune.errors import PlanError
from microtune.ir import Graph
from microtune.samples import read_npz
from microtune.tuning.losses import Loss

FEWEST = 8


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs (samples, *input shape) and targets: class indices (samples,), or values (samples, outputs)."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: np.ndarray) -> Samples:
        return Samples(self.x[rows], self.y[rows])


def read_samples(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) of an .npz file. Raises PlanError for another file, and where one of them is missing."""
    found = read_npz(path, "x", "y")
    return found["x"], found["y"]


def check_samples(graph: Graph, loss: Loss, data: Any) -> Samples:
    """The samples as arrays. Raises PlanError, saying what is wrong, for data that do not fit the model."""
    try:
        given_x, given_y = data
    except (TypeError, ValueError):
        raise PlanError("data must be a pair (x, y): inputs and what the person wants") from None
    shape = graph.tensor(graph.inputs[0]).shape
    output = graph.tensor(graph.outputs[0])
    x, y = np.asarray(given_x), np.asarray(given_y)
    if x.shape[1:] != shape:
        raise PlanError(f"x has the shape {x.shape}; (samples, {', '.join(map(str, shape))}) is needed")
    if len(x) != len(y) or len(x) < FEWEST:
        raise PlanError(f"x holds {len(x)} samples and y {len(y)}; as many of each are needed, at least {FEWEST}")
    if x.dtype.kind not in "fiu" or y.dtype.kind not in "fiub" or not np.isfinite(x).all() or not np.isfinite(y).all():
        raise PlanError("x and y must hold finite numbers")
    if loss.task == "MT_MULTICLASS":
        classes = y.reshape(len(y), -1)
        if classes.shape[1] != 1 or (classes != np.round(classes)).any():
            raise PlanError(f"y must hold one class index per sample, not values of shape {y.shape[1:]}")
        if classes.min() < 0 or classes.max() >= output.size:
            raise PlanError(
                f"y holds classes {int(classes.min())} to {int(classes.max())}; the model has 0 to {output.size - 1}"
            )
        labels, counts = np.unique(classes[:, 0].astype(int), return_counts=True)
        if counts.min() < 2:
            few = int(labels[counts.argmin()])
            raise PlanError(f"y holds one sample of class {few}; two are needed, one to learn from and one to judge by")
        return Samples(x, classes[:, 0].astype(int))
    values = y.reshape(len(y), -1).astype(np.float32)
    if values.shape[1] != output.size:
        raise PlanError(f"y holds {values.shape[1]} values per sample; the model has {output.size} outputs")
    if loss.task == "MT_BINARY" and not np.isin(values, (0, 1)).all():
        raise PlanError("y must hold 0 and 1 for binary_cross_entropy")
    return Samples(x, values)


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
