"""Read scikit-learn's trees: decision trees, forests, extra trees and gradient boosting, scalers before them too.

A scaler costs nothing: it is monotone, so a comparison of the scaled feature is one of the feature itself, with the
threshold that lets the same float32 numbers to the left.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microtune.errors import ModelError
from microtune.frontends.builder import Builder
from microtune.frontends.tree_tables import Tree, put
from microtune.ir import Tensor

CHUNK = 4096
"""Comparisons that scalers are asked about at once."""
IDENTITY_LINK = ("squared_error", "absolute_error", "huber", "quantile")
"""Losses of boosting whose predictions are the sum itself."""


@dataclass(frozen=True, eq=False)
class Ensemble:
    """``trees`` whose leaves add up to ``outputs`` numbers; ``finish``: the operators that make the answer of them.
    ``single``: features are compared as float32 numbers, as they are after scalers."""

    trees: tuple[Tree, ...]
    outputs: int
    finish: tuple[str, ...] = ()
    single: bool = True


def _where(model: object) -> str:
    return type(model).__name__


def _tree(tree: Any, values: np.ndarray) -> Tree:
    """One of scikit-learn's ``Tree`` objects, with what its nodes say."""
    return Tree(tree.children_left, tree.children_right, tree.feature, tree.threshold, values)


def _averaged(model: Any) -> Ensemble:
    """Trees that are averaged: regression, one value an output; classes, what share of a leaf's samples each has."""
    parts = getattr(model, "estimators_", None)
    trees = [each.tree_ for each in ([model] if parts is None else parts)]
    if not hasattr(model, "classes_"):
        found = tuple(_tree(each, each.value[:, :, 0] / len(trees)) for each in trees)
        return Ensemble(found, trees[0].value.shape[1])
    if model.n_outputs_ > 1:
        raise ModelError(
            f"{_where(model)} answers {model.n_outputs_} questions at once; fit one {_where(model)} for each of them"
        )
    if len(model.classes_) < 2:
        raise ModelError(f"{_where(model)} was fitted on one class only; there is nothing to tell apart")
    shares = [each.value[:, 0, :] / each.value[:, 0, :].sum(axis=1, keepdims=True) / len(trees) for each in trees]
    if len(model.classes_) == 2:
        second = tuple(_tree(each, share[:, 1:]) for each, share in zip(trees, shares, strict=True))
        return Ensemble(second, 1, ("log_odds", "sigmoid"))
    found = tuple(_tree(each, share) for each, share in zip(trees, shares, strict=True))
    return Ensemble(found, len(model.classes_), ("log_probabilities", "softmax"))


def _started(trees: Sequence[Tree], start: np.ndarray) -> tuple[Tree, ...]:
    """Boosted trees, stage by stage and one for each output, with the start (outputs,) in the first stage's leaves."""
    first = tuple(
        Tree(each.left, each.right, each.feature, each.threshold, each.values + begin)
        for each, begin in zip(trees, start, strict=False)
    )
    return (*first, *trees[len(first) :])


def _endings(model: Any, outputs: int) -> tuple[str, ...]:
    if not hasattr(model, "classes_"):
        return ()
    return ("sigmoid",) if outputs == 1 else ("softmax",)


def _boosted(model: Any) -> Ensemble:
    """GradientBoosting: the start is that of the prior, or zero."""
    if model.init_ != "zero" and _where(model.init_) not in ("DummyClassifier", "DummyRegressor"):
        raise ModelError(f"{_where(model)} starts from init={_where(model.init_)}; fit it with init=None or 'zero'")
    classes = hasattr(model, "classes_")
    # AdaBoost's loss has the odds of twice the sum
    factor = 2.0 if classes and model.loss == "exponential" else 1.0
    stages = model.estimators_
    outputs = stages.shape[1]
    row = np.zeros((1, model.n_features_in_))
    # what the sum begins with is what it is beyond the trees, at any sample
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names of features
        whole = np.reshape(model.decision_function(row) if classes else model.predict(row), outputs)
    single = row.astype(np.float32)
    added = [[each.tree_.predict(single)[0, 0] for each in stage] for stage in stages]
    start = factor * (whole - model.learning_rate * np.sum(added, axis=0))
    trees = [
        _tree(each.tree_, factor * model.learning_rate * each.tree_.value[:, :, 0])
        for stage in stages
        for each in stage
    ]
    return Ensemble(_started(trees, start), outputs, _endings(model, outputs))


def _histogram(model: Any) -> Ensemble:
    """HistGradientBoosting: compares float64 numbers, which the device's float32 are too."""
    if not hasattr(model, "classes_") and model.loss not in IDENTITY_LINK:
        raise ModelError(
            f"{_where(model)}(loss='{model.loss}') predicts exp of its sum; supported: {', '.join(IDENTITY_LINK)}"
        )
    trees = []
    for stage in model._predictors:
        for predictor in stage:
            nodes = predictor.nodes
            if nodes["is_categorical"].any():
                raise ModelError(
                    f"{_where(model)}: splits by category are not supported; encode categories as numbers (one-hot)"
                )
            leaf = nodes["is_leaf"].astype(bool)
            left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
            values = nodes["value"][:, None]
            trees.append(Tree(left, right, nodes["feature_idx"], nodes["num_threshold"], values))
    outputs = len(model._predictors[0])
    start = np.reshape(model._baseline_prediction, outputs)
    return Ensemble(_started(trees, start), outputs, _endings(model, outputs), single=False)


TREES: Mapping[str, Callable[[Any], Ensemble]] = {
    "DecisionTreeClassifier": _averaged,
    "DecisionTreeRegressor": _averaged,
    "ExtraTreeClassifier": _averaged,
    "ExtraTreeRegressor": _averaged,
    "ExtraTreesClassifier": _averaged,
    "ExtraTreesRegressor": _averaged,
    "GradientBoostingClassifier": _boosted,
    "GradientBoostingRegressor": _boosted,
    "HistGradientBoostingClassifier": _histogram,
    "HistGradientBoostingRegressor": _histogram,
    "RandomForestClassifier": _averaged,
    "RandomForestRegressor": _averaged,
}


def _goes_left(
    scalers: Sequence[Any], size: int, single: bool
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """The comparison as the pipeline makes it of a feature given as float32."""

    def scaled(x: np.ndarray, features: np.ndarray) -> np.ndarray:
        rows = np.zeros((len(x), size))
        at = np.arange(len(x))
        rows[at, features] = x
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # names of features
            for scaler in scalers:
                rows = scaler.transform(rows)
        return np.asarray(rows[at, features])

    def goes_left(x: np.ndarray, features: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        found = x.astype(np.float64)
        finite = np.flatnonzero(np.isfinite(x)) if scalers else ()
        for first in range(0, len(finite), CHUNK):
            part = finite[first : first + CHUNK]
            found[part] = scaled(x[part], features[part])
        if single:
            with np.errstate(over="ignore"):
                found = found.astype(np.float32)
        return np.asarray(found.astype(np.float64) <= thresholds)

    return goes_left


def trees(builder: Builder, x: Tensor, model: Any, scalers: Sequence[Any]) -> Tensor:
    """What an ensemble of trees answers to x, scaled before by ``scalers``."""
    found = TREES[_where(model)](model)
    if not all(np.isfinite(tree.values).all() for tree in found.trees):
        raise ModelError(f"{_where(model)} has leaves that are no finite numbers")
    value = put(builder, x, found.trees, found.outputs, _goes_left(scalers, x.size, found.single), _where(model))
    for op in found.finish:
        value = builder.emit(op, (value,), f"{op}_out", _where(model))
    return value
