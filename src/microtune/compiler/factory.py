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
    x = _array(x)
    if x.ndim != len(tensor.shape) + 1 or x.shape[1:] != tensor.shape or len(x) == 0:
        wanted = ", ".join(map(str, ("samples", *tensor.shape)))
        raise PlanError(f"calibration has the shape {x.shape}; ({wanted}) is needed")
    if x.dtype.kind not in "fiu" or not np.isfinite(x).all():
        raise PlanError("calibration holds values that are no finite numbers")
    x = _as_taken(x, graph)
    if y is None:
        return Calibration(x, None)
    outputs = graph.tensor(graph.outputs[0]).size
    y = _array(y)
    if y.ndim == 0 or len(y) != len(x):
        raise PlanError(f"calibration has {len(x)} samples and {len(y) if y.ndim else 1} labels")
    if loss.task == "MT_MULTICLASS":
        whole = y.reshape(len(y), -1)
        if whole.shape[1] != 1 or not np.isin(whole, np.arange(outputs)).all():
            raise PlanError(f"calibration: labels must be class indices 0 to {outputs - 1}, one of each sample")
        return Calibration(x, whole[:, 0].astype(np.int64))
    if y.size != len(x) * outputs or y.dtype.kind not in "fiub" or not np.isfinite(y).all():
        raise PlanError(f"calibration: targets of the shape {y.shape}; ({len(x)}, {outputs}) finite numbers are needed")
    return Calibration(x, y.reshape(len(x), outputs).astype(np.float64))


def _array(values: Any) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError:
        what = "calibration is no array: give samples of one shape, x, or a tuple (x, y) with what is wanted of each"
        raise PlanError(what) from None


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


def second_moments(rows: Floats) -> Floats:
    """(n, H) to the mean of row row' (H, H), added up in order."""
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for row in rows:
        total += row[:, None] * row[None, :]
    return total / len(rows)


def inverse(matrix: Floats) -> Floats:
    """The inverse of a symmetric positive definite matrix, by elimination whose order is fixed."""
    size = len(matrix)
    left, right = matrix.copy(), np.eye(size)
    for k in range(size):
        pivot = left[k, k]
        left[k] /= pivot
        right[k] /= pivot
        factors = left[:, k].copy()
        factors[k] = 0.0
        left -= factors[:, None] * left[k]
        right -= factors[:, None] * right[k]
    return (right + right.T) / 2


def prior_covariance(samples: Samples, worth: float, ridge: float) -> NDArray[np.float32]:
    """What ``worth`` samples like the factory's leave open of the weights of one output, the bias last: the inverse of
    their Gram matrix, each sample at the most curvature of a logistic output, 1/4. (H + 1, H + 1)."""
    return left_open(np.column_stack([samples.features, np.ones(len(samples.features))]), worth, ridge)


def left_open(rows: Floats, worth: float, ridge: float) -> NDArray[np.float32]:
    """The same of parameters to which the gradient of the output is a row (n, H): (H, H)."""
    gram = second_moments(rows)
    gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    return inverse(gram * (worth / 4)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Discriminants:
    """Class means (C, H), samples each is worth (C,), the common precision (H, H), log prior of the classes (C,)."""

    means: NDArray[np.float32]
    worth: NDArray[np.float32]
    precision: NDArray[np.float32]
    log_prior: NDArray[np.float32]


def _certainty(scores: Floats, log_prior: Floats, label: NDArray[np.int64]) -> float:
    """The factor on the scores (n, C) under which the true classes are the most probable, 0.05 to 2."""
    best, least, factor = 1.0, np.inf, 0.05
    while factor < 2.0:
        logits = factor * scores + log_prior
        logits = logits - logits.max(axis=1, keepdims=True)
        loss = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(label)), label])
        if loss < least:
            best, least = factor, loss
        factor *= 1.1
    return best


def discriminants(samples: Samples, worth: float, shrinkage: float) -> Discriminants:
    """Linear discriminant analysis of the factory's samples. A class that has none begins at the mean of all, which
    then is worth nothing. The covariance is shrunk towards a sphere of the same trace, and scaled so that the
    probabilities are right on these samples: features are no Gaussians, and LDA is too sure of them."""
    features, outputs = samples.features, samples.outputs.shape[1]
    label = samples.outputs.argmax(axis=1) if samples.y is None else samples.y
    counts = np.zeros(outputs)
    sums = np.zeros((outputs, features.shape[1]))
    for row, each in zip(features, label, strict=True):
        counts[each] += 1
        sums[each] += row
    means = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], sums.sum(axis=0) / len(features))
    within = second_moments(features - means[label])
    sphere = max(float(np.trace(within)) / len(within), 1e-6)
    precision = inverse((1 - shrinkage) * within + shrinkage * sphere * np.eye(len(within)))
    log_prior = np.log((counts + 1) / (len(features) + outputs))
    weight = means @ precision
    scores = features @ weight.T - np.sum(weight * means, axis=1) / 2
    return Discriminants(
        means.astype(np.float32),
        np.minimum(counts, worth).astype(np.float32),
        (precision * _certainty(scores, log_prior, label)).astype(np.float32),
        log_prior.astype(np.float32),
    )
