"""Samples to train and judge a module by: checked once, at the border."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from microtune.errors import TrainingError
from microtune.samples import Samples
from microtune.tuning.losses import Loss, loss_of

FEWEST = 8
"""Samples that are trained on or judged by at least."""


def array_of(given: Any, name: str) -> np.ndarray:
    """Finite numbers as an array, from an array, a list or a tensor. Raises TrainingError for anything else."""
    try:
        found = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
    except (TypeError, ValueError) as error:
        raise TrainingError(f"{name} cannot be made an array of numbers: {error}") from error
    if found.dtype.kind in "US" and found.ndim:
        first = str(found.flat[0]) if found.size else ""
        raise TrainingError(
            f"{name} holds text, such as {first!r}; numbers are needed, of classes their "
            "indices: names, y = numpy.unique(labels, return_inverse=True)"
        )
    if found.dtype.kind not in "fiub" or found.ndim == 0:
        raise TrainingError(f"{name} must be an array of numbers, one row a sample, not {type(given).__name__}")
    if bad := int(found.size - np.isfinite(found).sum()):
        raise TrainingError(f"{name} holds {bad} values that are not finite numbers")
    return found


def checked(
    x: Any,
    y: Any,
    input_shape: Sequence[int] | None = None,
    outputs: int | None = None,
    loss: str | Loss = "cross_entropy",
    *,
    indices: bool = False,
    fewest: int = FEWEST,
) -> Samples:
    """Samples that a module of this input shape and so many outputs can be trained on with a loss.

    input_shape and outputs: of the module, None where not known. x becomes float32, or int64 with ``indices``, where
    the module looks its inputs up in a table. y becomes class indices (samples,), int64, or values (samples, outputs),
    float32. Raises TrainingError, in a sentence, for whatever does not fit: labels out of range, too few samples,
    shapes that do not match, numbers that are not finite.
    """
    task = loss_of(loss).task
    found, target = array_of(x, "x"), array_of(y, "y")
    if input_shape is not None and found.shape[1:] != tuple(input_shape):
        wanted = ", ".join(["samples", *map(str, input_shape)])
        raise TrainingError(f"x has the shape {found.shape}; ({wanted}) is needed")
    if len(found) != len(target):
        raise TrainingError(f"x holds {len(found)} samples and y {len(target)}; as many of each are needed")
    if len(found) < fewest:
        raise TrainingError(f"x holds {len(found)} samples; at least {fewest} are needed")
    if indices and (found != np.round(found)).any():
        raise TrainingError("x must hold whole numbers: the module looks them up in a table")
    with np.errstate(over="ignore"):
        inputs = found.astype(np.int64 if indices else np.float32)
    if not np.isfinite(inputs).all():
        raise TrainingError("x holds numbers that are too large for float32")
    rows = target.reshape(len(target), -1)
    if task == "MT_MULTICLASS":
        return Samples(inputs, _classes(target, rows, outputs))
    if outputs is not None and rows.shape[1] != outputs:
        raise TrainingError(f"y holds {rows.shape[1]} values per sample; the module has {outputs} outputs")
    if task == "MT_BINARY" and not np.isin(rows, (0, 1)).all():
        raise TrainingError("y must hold 0 and 1 for binary_cross_entropy")
    return Samples(inputs, rows.astype(np.float32))


def _classes(target: np.ndarray, rows: np.ndarray, outputs: int | None) -> np.ndarray:
    """(n,) class indices from whatever holds one number a row."""
    if rows.shape[1] != 1:
        raise TrainingError(f"y must hold one class index per sample, not values of shape {target.shape[1:]}")
    if (broken := rows[rows != np.round(rows)]).size:
        raise TrainingError(f"y must hold class indices, which are whole numbers, not {broken[0]:g}")
    lowest, highest = int(rows.min()), int(rows.max())
    if lowest < 0 or (outputs is not None and highest >= outputs):
        known = "0 and above" if outputs is None else f"0 to {outputs - 1}"
        raise TrainingError(f"y holds classes {lowest} to {highest}; the module has {known}")
    return rows[:, 0].astype(np.int64)
