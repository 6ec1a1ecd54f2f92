"""Read fitted scikit-learn estimators: perceptrons, linear models and trees, with scalers before them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from microtune.errors import ModelError
from microtune.frontends.builder import Builder
from microtune.frontends.sklearn_trees import TREES, trees
from microtune.ir import Graph, Tensor

_ACTIVATIONS = {"identity": None, "relu": "relu", "logistic": "sigmoid", "tanh": "tanh", "softmax": "softmax"}


def _where(estimator: object) -> str:
    return type(estimator).__name__


def _layer(
    builder: Builder, x: Tensor, weight: np.ndarray, bias: np.ndarray, activation: str, name: str, where: str
) -> Tensor:
    """One dense layer, ``weight`` as (outputs, inputs), and its activation by scikit-learn's name."""
    if activation not in _ACTIVATIONS:
        raise ModelError(f"{where}: activation '{activation}' is not supported. Supported: {', '.join(_ACTIVATIONS)}")
    parameters = (
        builder.constant(f"{name}.weight", weight, where),
        builder.constant(f"{name}.bias", bias, where),
    )
    found = builder.emit("dense", (x, *parameters), f"{name}_sum", where, name)
    op = _ACTIVATIONS[activation]
    return builder.emit(op, (found,), f"{name}_out", where) if op else found


def _perceptron(builder: Builder, x: Tensor, model: Any) -> Tensor:
    """MLPClassifier and MLPRegressor. One output for two classes; one per label for several labels."""
    last = len(model.coefs_) - 1
    for index, (weight, bias) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        activation = model.out_activation_ if index == last else model.activation
        name = "output" if index == last else f"hidden{index + 1}"
        x = _layer(builder, x, weight.T, bias, activation, name, _where(model))
    return x


def _affine(builder: Builder, x: Tensor, model: Any, activation: str, factor: float = 1.0) -> Tensor:
    weight = np.atleast_2d(model.coef_)
    bias = np.broadcast_to(model.intercept_, len(weight))
    return _layer(builder, x, factor * weight, factor * bias, activation, "output", _where(model))


def _linear(builder: Builder, x: Tensor, model: Any) -> Tensor:
    return _affine(builder, x, model, "identity")


def _logistic(builder: Builder, x: Tensor, model: Any) -> Tensor:
    """Two classes: one logit and a sigmoid. More: softmax, as the multinomial model has it."""
    strategy = getattr(model, "multi_class", "auto")  # scikit-learn before 1.8
    if len(model.classes_) == 2:
        # the multinomial model of two classes is softmax((-z, z)), which is sigmoid(2 z)
        return _affine(builder, x, model, "logistic", 2.0 if strategy == "multinomial" else 1.0)
    if strategy == "ovr" or model.solver == "liblinear":
        raise ModelError(
            "LogisticRegression fitted one class against the rest has no softmax form; "
            "fit the multinomial model (solver='lbfgs'), or one estimator of two classes"
        )
    return _affine(builder, x, model, "softmax")


def _step(builder: Builder, op: str, x: Tensor, values: np.ndarray, model: Any) -> Tensor:
    """A shift ("add") or scale ("multiply") of the features; ``fold`` moves it into the next layer."""
    where = _where(model)
    return builder.emit(op, (x, builder.constant(f"{where}.{op}", values, where)), f"{x.name}_{op}", where)


def _standard_scaler(builder: Builder, x: Tensor, model: Any) -> Tensor:
    if model.with_mean:
        x = _step(builder, "add", x, -model.mean_, model)
    return _step(builder, "multiply", x, 1.0 / model.scale_, model) if model.with_std else x


def _min_max_scaler(builder: Builder, x: Tensor, model: Any) -> Tensor:
    if model.clip:
        raise ModelError("MinMaxScaler(clip=True): clipping is not supported; fit it with clip=False")
    return _step(builder, "add", _step(builder, "multiply", x, model.scale_, model), model.min_, model)


Converter = Callable[[Builder, Tensor, Any], Tensor]
SCALERS: Mapping[str, Converter] = {"MinMaxScaler": _min_max_scaler, "StandardScaler": _standard_scaler}
MODELS: Mapping[str, Converter] = {
    "LinearRegression": _linear,
    "LogisticRegression": _logistic,
    "MLPClassifier": _perceptron,
    "MLPRegressor": _perceptron,
    "Ridge": _linear,
}


def _not_supported(estimator: object) -> ModelError:
    return ModelError(
        f"scikit-learn {_where(estimator)}: not supported. Supported: {', '.join([*MODELS, *TREES])}, "
        f"and a Pipeline of {' or '.join(SCALERS)} and one of them"
    )


def _is_own(estimator: object) -> bool:
    """A class of scikit-learn itself; a class derived from one may predict in another way."""
    return type(estimator).__module__.startswith("sklearn.")


def _steps(estimator: Any) -> Sequence[Any]:
    """The stages of a pipeline in order, pipelines within it laid out; a single estimator is one stage."""
    if not (_is_own(estimator) and _where(estimator) == "Pipeline"):
        return [estimator]
    return [inner for _, step in estimator.steps if step not in (None, "passthrough") for inner in _steps(step)]


def from_sklearn(estimator: Any, name: str | None = None) -> Graph:
    """The graph of a fitted estimator, from its features to what it predicts.

    Regression: the predicted values. Classification: the probability of the second class (two classes), of
    each class in the order of ``classes_``, or of each label. Raises ModelError for an estimator that is not
    fitted, not supported, or whose parameters are not finite.
    """
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    stages = _steps(estimator)
    if not stages:
        raise ModelError("the Pipeline has no steps")
    *scalers, model = stages
    for stage, table in (*((scaler, SCALERS) for scaler in scalers), (model, {**MODELS, **TREES})):
        if not _is_own(stage) or _where(stage) not in table:
            raise _not_supported(stage)
        try:
            check_is_fitted(stage)
        except NotFittedError as error:
            raise ModelError(f"{_where(stage)} is not fitted; call its fit(x, y) first") from error
    builder = Builder(name or _where(model))
    value = builder.input("x", (int(stages[0].n_features_in_),))
    if _where(model) in TREES:
        return builder.finish(trees(builder, value, model, scalers), _where(model))
    for scaler in scalers:
        value = SCALERS[_where(scaler)](builder, value, scaler)
    return builder.finish(MODELS[_where(model)](builder, value, model), _where(model))
