"""The factory's data: samples of what the base was trained on, and what a head's prior needs to know of them.

Sums run in float64 in the order of the samples, elementwise, and a statistic is rounded to float32 once: the same
samples make the same package on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtune.compress.batched import walk
from microtune.errors import PlanError
from microtune.ir import Graph
from microtune.tuning.losses import Loss

CHUNK = 256
"""Samples that run through the net at once: more take much memory in a convolution."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Samples of the factory's data: ``x`` (n, *input shape) as the graph takes them; ``y`` class indices (n,), or
    targets (n, outputs), None where they are not known."""

    x: np.ndarray
    y: np.ndarray | None


def calibration_of(given: Any, graph: Graph, loss: Loss) -> Calibration | None:
    """What ``plan(..., calibration=x)`` or ``calibration=(x, y)`` means. Raises PlanError for what does not fit."""
    if given is None or isinstance(given, Calibration):
        return given
    x, y = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    tensor = graph.tensor(graph.inputs[0])
    x = np.asarray(x)
    if x.ndim != len(tensor.shape) + 1 or x.shape[1:] != tensor.shape or len(x) == 0:
        wanted = ", ".join(map(str, ("samples", *tensor.shape)))
        raise PlanError(f"calibration has the shape {x.shape}; ({wanted}) is needed")
    if x.dtype.kind not in "fiu" or not np.isfinite(x).all():
        raise PlanError("calibration holds values that are no finite numbers")
    x = _as_taken(x, graph)
    if y is None:
        return Calibration(x, None)
    outputs = graph.tensor(graph.outputs[0]).size
    y = np.asarray(y)
    if len(y) != len(x):
        raise PlanError(f"calibration has {len(x)} samples and {len(y)} labels")
    if loss.task == "MT_MULTICLASS":
        whole = y.reshape(len(y), -1)
        if whole.shape[1] != 1 or not np.isin(whole, np.arange(outputs)).all():
            raise PlanError(f"calibration: labels must be class indices 0 to {outputs - 1}, one of each sample")
        return Calibration(x, whole[:, 0].astype(np.int64))
    if y.size != len(x) * outputs or not np.isfinite(y).all():
        raise PlanError(f"calibration: targets of the shape {y.shape}; ({len(x)}, {outputs}) finite numbers are needed")
    return Calibration(x, y.reshape(len(x), outputs).astype(np.float64))


def _as_taken(x: np.ndarray, graph: Graph) -> np.ndarray:
    """Real numbers as the int8 of a graph that takes int8; float64 else."""
    tensor = graph.tensor(graph.inputs[0])
    if tensor.dtype == "float32":
        return x.astype(np.float64)
    if x.dtype == np.int8 or tensor.quantization is None:
        return x.astype(np.int8)
    steps = np.round(x / np.float64(tensor.quantization.scale)) + np.float64(tensor.quantization.zero_point)
    return np.clip(steps, -128, 127).astype(np.int8)


def values_at(graph: Graph, names: tuple[str, ...], x: np.ndarray) -> dict[str, Floats]:
    """Tensors of a graph for x (n, *input shape), as float64 (n, *shape)."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for start in range(0, len(x), CHUNK):
        part = x[start : start + CHUNK]
        if graph.inputs[0] in found:
            found[graph.inputs[0]].append(part)
        for node, values in walk(graph, part):
            for name in node.outputs:
                if name in found:
                    found[name].append(np.array(values[name]))
    return {name: np.concatenate(parts).astype(np.float64) for name, parts in found.items()}


@dataclass(frozen=True, eq=False)
class Samples:
    """The factory's samples at the last layer: its input (n, H), its output (n, C), and ``y`` of the calibration."""

    features: Floats
    outputs: Floats
    y: np.ndarray | None


def samples_at(graph: Graph, calibration: Calibration, features: str, outputs: str) -> Samples:
    """The factory's samples at a layer, by running the net on them; what it computes is rounded to float32 once."""
    found = values_at(graph, (features, outputs), calibration.x)
    single = {name: each.astype(np.float32).astype(np.float64) for name, each in found.items()}
    return Samples(single[features], single[outputs], calibration.y)
