"""A1 for scikit-learn: every supported estimator against its own predict or predict_proba."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn")
from sklearn.ensemble import AdaBoostRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, StandardScaler

from microtune.errors import ModelError
from microtune.frontends import load
from microtune.frontends.sklearn import from_sklearn
from microtune.ops.evaluate import evaluate

GENERATOR = np.random.default_rng(11)
X = GENERATOR.normal([0, 5, -20, 300], [1, 2, 0.1, 50], size=(80, 4))
Z = (X - X.mean(0)) / X.std(0)
TARGETS = {
    "value": Z @ [1, -2, 0.5, 3] + 7,
    "values": np.stack([Z[:, 0] + Z[:, 1], Z[:, 2] * 3, Z[:, 3]], axis=1),
    "two": np.where(Z[:, 0] > 0.2, "yes", "no"),
    "three": np.digitize(Z[:, 1], [-0.5, 0.5]) * 10,
    "labels": (Z[:, :3] > 0).astype(int),
}


def fitted(estimator: Any, target: str, scaled: bool = True) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(Z if scaled else X, TARGETS[target])


def expected(estimator: Any, x: np.ndarray) -> np.ndarray:
    """What the estimator predicts, one row per sample; of two classes the probability of the second."""
    if not hasattr(estimator, "predict_proba"):
        return np.asarray(estimator.predict(x)).reshape(len(x), -1)
    probabilities = estimator.predict_proba(x)
    return (
        probabilities[:, 1:]
        if probabilities.shape[1] == 2 and estimator.classes_.ndim == 1 and len(estimator.classes_) == 2
        else probabilities
    )


def assert_same(estimator: Any, error_bound: Callable[..., np.ndarray], x: np.ndarray) -> None:
    unfolded, folded = from_sklearn(estimator), load(estimator)
    found = evaluate(folded, {"x": x}, np.float64)[folded.outputs[0]]
    for row, want, got in zip(x, expected(estimator, x), found, strict=True):
        bound = error_bound(unfolded, row)
        assert want.shape == got.shape
        assert (np.abs(want - got) <= bound).all(), (want - got, bound)


small = {"max_iter": 15, "random_state": 0}
ESTIMATORS: dict[str, tuple[Any, str]] = {
    "LinearRegression": (LinearRegression(), "value"),
    "LinearRegression several": (LinearRegression(), "values"),
    "LinearRegression without intercept": (LinearRegression(fit_intercept=False), "value"),
    "Ridge": (Ridge(), "value"),
    "Ridge several": (Ridge(), "values"),
    "LogisticRegression two": (LogisticRegression(), "two"),
    "LogisticRegression three": (LogisticRegression(), "three"),
    "LogisticRegression liblinear two": (LogisticRegression(solver="liblinear"), "two"),
    "MLPRegressor": (MLPRegressor(hidden_layer_sizes=(8, 5), **small), "value"),
    "MLPRegressor several": (MLPRegressor(hidden_layer_sizes=(8,), activation="identity", **small), "values"),
    "MLPClassifier two": (MLPClassifier(hidden_layer_sizes=(6,), activation="tanh", **small), "two"),
    "MLPClassifier three": (
        MLPClassifier(hidden_layer_sizes=(6, 6), activation="logistic", **small),
        "three",
    ),
    "MLPClassifier labels": (MLPClassifier(hidden_layer_sizes=(6,), **small), "labels"),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_agree_with_scikit_learn(name: str, error_bound: Any) -> None:
    assert_same(fitted(*ESTIMATORS[name]), error_bound, Z[:20])


@pytest.mark.parametrize(
    "scaler",
    [
        StandardScaler(),
        StandardScaler(with_mean=False),
        StandardScaler(with_std=False),
        MinMaxScaler((-1, 1)),
        "passthrough",
    ],
)
@pytest.mark.parametrize("name", ["MLPRegressor", "LogisticRegression three", "Ridge"])
def test_scalers_fold_into_the_first_layer(name: str, scaler: Any, error_bound: Any) -> None:
    estimator, target = ESTIMATORS[name]
    pipeline = fitted(Pipeline([("scaler", scaler), ("model", estimator)]), target, scaled=scaler == "passthrough")
    assert_same(pipeline, error_bound, (Z if scaler == "passthrough" else X)[:20])
    assert [node.op for node in load(pipeline).nodes] == [node.op for node in load(fitted(estimator, target)).nodes]


def test_pipelines_in_pipelines_and_two_scalers(error_bound: Any) -> None:
    pipeline = make_pipeline(make_pipeline(StandardScaler(), MinMaxScaler()), make_pipeline(LinearRegression()))
    assert_same(fitted(pipeline, "value", scaled=False), error_bound, X[:20])
    assert len(load(pipeline).nodes) == 1


def test_float32_evaluation_is_as_good_as_its_precision() -> None:
    estimator = fitted(MLPRegressor(hidden_layer_sizes=(8, 5), **small), "value")
    graph = load(estimator)
    found = evaluate(graph, {"x": Z.astype(np.float32)})[graph.outputs[0]]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0], estimator.predict(Z), rtol=1e-4, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=0, max_size=3),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from(["relu", "tanh", "logistic", "identity"]),
    st.integers(0, 2**31),
)
def test_random_perceptrons(
    error_bound: Any, hidden: list[int], inputs: int, outputs: int, activation: str, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(12, inputs)), generator.normal(size=(12, outputs))
    model = MLPRegressor(hidden_layer_sizes=tuple(hidden), activation=activation, max_iter=2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(model.fit(x, y.squeeze()), error_bound, x)


def test_strategies_of_logistic_regression_before_1_8() -> None:
    """The softmax over (-z, z) of a multinomial model of two classes is the sigmoid of 2 z."""
    two = fitted(LogisticRegression(), "two")
    two.multi_class = "multinomial"
    np.testing.assert_array_equal(np.asarray(load(two).constants[0].data), (2 * two.coef_).astype(np.float32))
    three = fitted(LogisticRegression(), "three")
    three.multi_class = "ovr"
    with pytest.raises(ModelError, match="one class against the rest has no softmax form; fit the multinomial"):
        load(three)


def test_names_say_which_layer() -> None:
    graph = load(fitted(*ESTIMATORS["MLPClassifier three"]))
    assert graph.name == "MLPClassifier"
    assert [tensor.name for tensor in graph.constants][:2] == ["hidden1.weight", "hidden1.bias"]
    assert [node.op for node in graph.nodes] == ["dense", "sigmoid", "dense", "sigmoid", "dense", "softmax"]


class Doubled(LinearRegression):
    """Predicts something else than its base class."""

    def predict(self, X: np.ndarray) -> np.ndarray:
        return 2 * super().predict(X)


def spoilt() -> LinearRegression:
    model = fitted(LinearRegression(), "value")
    model.coef_ = model.coef_ * np.nan
    return model


SUPPORTED = "Supported: LinearRegression, LogisticRegression, MLPClassifier, MLPRegressor, Ridge, .*, and a Pipeline of"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (LinearRegression, r"LinearRegression is not fitted; call its fit\(x, y\) first"),
        (MLPClassifier, "MLPClassifier is not fitted"),
        (lambda: make_pipeline(StandardScaler(), Ridge()), "StandardScaler is not fitted"),
        (
            lambda: fitted(AdaBoostRegressor(n_estimators=2), "value"),
            f"AdaBoostRegressor: not supported. {SUPPORTED}",
        ),
        (
            lambda: fitted(make_pipeline(PolynomialFeatures(), Ridge()), "value"),
            f"PolynomialFeatures: not supported. {SUPPORTED}",
        ),
        (
            lambda: fitted(make_pipeline(StandardScaler()), "value"),
            f"StandardScaler: not supported. {SUPPORTED}",
        ),
        (lambda: fitted(make_pipeline(MinMaxScaler(clip=True), Ridge()), "value"), "fit it with clip=False"),
        (lambda: fitted(Doubled(), "value"), f"cannot load 'Doubled'|Doubled: not supported. {SUPPORTED}"),
        (lambda: Pipeline([]), "the Pipeline has no steps|cannot read the Pipeline"),
        (spoilt, "'output.weight' holds numbers that are NaN"),
        (
            lambda: fitted(MLPRegressor(hidden_layer_sizes=(3,), loss="poisson", **small), "two_counts"),
            "activation 'exp' is not supported. Supported: identity, relu",
        ),
    ],
)
def test_refusals(make: Callable[[], Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "two_counts", np.abs(TARGETS["value"]).round())
    with pytest.raises(ModelError, match=message):
        load(make())
