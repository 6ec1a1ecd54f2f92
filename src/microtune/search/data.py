"""The user's samples, checked against the model that is searched."""

from __future__ import annotations

from typing import Any

import numpy as np

from microtune.errors import PlanError
from microtune.ir import Graph
from microtune.samples import Samples
from microtune.tuning.losses import Loss

FEWEST = 8
"""Samples that are split into a learnt and a judged part at least."""


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
