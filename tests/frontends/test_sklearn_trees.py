"""B7 for scikit-learn: every supported ensemble of trees goes to the leaves that scikit-learn goes to, answers as it
does, and learns on the device from there."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

import microtune as mt
from microtune.choices import optimizer
from microtune.compiler.passes.fuse_trees import fuse_trees
from microtune.errors import DeviceError, ModelError, PlanError
from microtune.frontends.sklearn_trees import TREES
from microtune.frontends.tree_tables import Tree, walked
from microtune.ir import Graph
from microtune.ops.evaluate import evaluate
from microtune.ops.trees import entries

U = 2.0**-24
R = np.random.default_rng(3)
X = R.normal([0, 5, -20, 300], [1, 2, 0.1, 50], size=(150, 4)).astype(np.float32)
X[:, 1] = X[:, 1].round()  # so that many samples are alike
Z = (X - X.mean(0)) / X.std(0)
Y = {
    "value": Z @ [1, -2, 0.5, 3] + 7,
    "values": np.stack([Z[:, 0] + Z[:, 1], Z[:, 2] * 3, Z[:, 3]], axis=1),
    "two": np.where(Z[:, 0] + 0.5 * R.normal(size=150) > 0.2, "yes", "no"),
    "three": np.array(["low", "middle", "high"])[np.digitize(Z[:, 1] + 0.4 * R.normal(size=150), [-0.5, 0.5])],
}
SEED = {"random_state": 0}
MODELS: dict[str, tuple[Any, str]] = {
    "a tree": (DecisionTreeRegressor(max_depth=5, **SEED), "value"),
    "a whole tree of several outputs": (DecisionTreeRegressor(**SEED), "values"),
    "one leaf": (DecisionTreeRegressor(min_samples_leaf=100, **SEED), "value"),
    "one leaf of classes": (DecisionTreeClassifier(min_samples_leaf=100, **SEED), "three"),
    "a tree of classes": (DecisionTreeClassifier(max_leaf_nodes=9, **SEED), "three"),
    "an extra tree": (ExtraTreeRegressor(max_depth=4, **SEED), "value"),
    "an extra tree of classes": (ExtraTreeClassifier(**SEED), "two"),
    "forest": (RandomForestRegressor(7, max_depth=6, max_features=2, **SEED), "value"),
    "forest of several outputs": (RandomForestRegressor(4, **SEED), "values"),
    "forest of classes": (RandomForestClassifier(8, max_depth=6, **SEED), "three"),
    "forest of two": (RandomForestClassifier(6, max_depth=3, class_weight="balanced", **SEED), "two"),
    "stumps": (RandomForestClassifier(4, max_depth=1, **SEED), "three"),
    "extra trees": (ExtraTreesRegressor(5, max_depth=4, **SEED), "value"),
    "extra trees of classes": (ExtraTreesClassifier(5, **SEED), "three"),
    "boosting": (GradientBoostingRegressor(n_estimators=15, **SEED), "value"),
    "boosting on Huber's loss from zero": (
        GradientBoostingRegressor(n_estimators=5, loss="huber", init="zero", max_depth=2, **SEED), "value",
    ),
    "boosting of two": (GradientBoostingClassifier(n_estimators=9, subsample=0.7, **SEED), "two"),
    "boosting of two, AdaBoost's loss": (
        GradientBoostingClassifier(n_estimators=5, loss="exponential", max_depth=2, **SEED), "two",
    ),
    "boosting of three": (GradientBoostingClassifier(n_estimators=6, max_depth=2, **SEED), "three"),
    "histogram boosting": (HistGradientBoostingRegressor(max_iter=6, **SEED), "value"),
    "histogram boosting of two": (HistGradientBoostingClassifier(max_iter=5, **SEED), "two"),
    "histogram boosting of three": (HistGradientBoostingClassifier(max_iter=4, **SEED), "three"),
}  # fmt: skip
IN_C = ("forest of classes", "forest of several outputs", "boosting of three", "boosting of two", "one leaf")


def fitted(name: str) -> Any:
    model, target = MODELS[name]
    return model.fit(X, Y[target])


def trees_of(model: Any) -> list[Tree]:
    """scikit-learn's own arrays of each tree, in the order in which it adds them."""
    if hasattr(model, "_predictors"):
        nodes = [each.nodes for stage in model._predictors for each in stage]
        return [
            Tree(
                np.where(each["is_leaf"], -1, each["left"].astype(int)), each["right"], each["feature_idx"],
                each["num_threshold"], each["value"],
            )
            for each in nodes
        ]  # fmt: skip
    parts = np.ravel(getattr(model, "estimators_", [model]))
    found = [each.tree_ for each in parts]
    return [Tree(each.children_left, each.children_right, each.feature, each.threshold, each.value) for each in found]


def at_thresholds(trees: Sequence[Tree]) -> np.ndarray:
    """Samples, each with one feature at a threshold as float32 or at the float next to it."""
    rows = []
    for tree in trees:
        for node in walked(tree).comparisons:
            at = np.float32(tree.threshold[node])
            for value in (np.nextafter(at, np.float32(-np.inf)), at, np.nextafter(at, np.float32(np.inf))):
                if np.isfinite(value):
                    row = X[len(rows) % len(X)].copy()
                    row[tree.feature[node]] = value
                    rows.append(row)
    return np.array(rows if len(rows) < 400 else rows[:: len(rows) // 300], np.float32).reshape(-1, X.shape[1])


def answers(model: Any, x: np.ndarray) -> np.ndarray:
    """What scikit-learn says, as the graph does: of two classes the probability of the second."""
    if not hasattr(model, "predict_proba"):
        return np.asarray(model.predict(x)).reshape(len(x), -1)
    found = model.predict_proba(x)
    return np.asarray(found[:, 1:] if found.shape[1] == 2 else found)


def leaves_of(graph: Graph, x: np.ndarray) -> np.ndarray:
    """The leaf of each tree from the left, (samples, trees), by the graph."""
    node = next(node for node in graph.nodes if node.op == "tree_leaves")
    only = Graph(graph.name, graph.tensors, (node,), graph.inputs, (node.output,))
    found = evaluate(only, {"x": x})[node.output]
    return np.array([entries(row, node.attributes["leaf_bytes"]) for row in found])


def bound(graph: Graph) -> float:
    """Of the sum in float32: a rounding for each leaf and each addition, of at most all that trees can add up to; as
    much again for a sigmoid or softmax behind, whose slope is at most one, and a few roundings of its own."""
    node = next(node for node in graph.nodes if node.op == "tree_sum")
    values = np.abs(np.asarray(graph.tensor(node.inputs[2]).data))
    counts = entries(np.asarray(graph.tensor(node.inputs[1]).data), node.attributes["size_bytes"]) + 1
    most = np.maximum.reduceat(values.max(axis=1), np.cumsum(counts) - counts).sum()
    return float((2 * len(counts) + 16) * U * max(1.0, most))


def test_every_kind_is_tried() -> None:
    assert {type(model).__name__ for model, _ in MODELS.values()} == set(TREES)


@pytest.mark.parametrize("name", MODELS)
def test_leaf_for_leaf_and_number_for_number(name: str) -> None:
    """Also where a feature is a threshold, or the float next to one, from either side."""
    model = fitted(name)
    graph = mt.load(model)
    trees = trees_of(model)
    x = np.concatenate([X[:20], at_thresholds(trees)])
    order = [walked(tree).leaves.tolist() for tree in trees]
    if hasattr(model, "apply"):
        wanted = np.array([row.ravel() for row in np.asarray(model.apply(x)).reshape(len(x), -1)])
        wanted = np.array([[leaves.index(int(at)) for leaves, at in zip(order, row, strict=True)] for row in wanted])
        np.testing.assert_array_equal(leaves_of(graph, x), wanted)
    exact = answers(model, x.astype(np.float64))
    # leaves are float32 numbers; what is added to them here is float64
    found = evaluate(graph, {"x": x}, np.float64)[graph.outputs[0]]
    assert np.abs(found - exact).max() <= bound(graph)
    fused = evaluate(fuse_trees(graph), {"x": x})[graph.outputs[0]]
    assert np.abs(fused - exact).max() <= bound(graph)
    if exact.shape[1] > 1 and hasattr(model, "classes_"):
        assert (model.classes_[fused.argmax(axis=1)] == model.predict(x)).all()


@pytest.mark.parametrize("name", IN_C)
def test_the_c_answers_the_same(name: str, tmp_path: Path) -> None:
    """Without RAM; labels, names of classes among them, by their index; ties go to the first, as argmax has it."""
    model = fitted(name)
    graph = mt.load(model)
    network = mt.compile_inference(graph, tmp_path / "trees")
    x = np.concatenate([X, at_thresholds(trees_of(model))[:200]])
    found = network.run(x)
    assert np.abs(found - answers(model, x.astype(np.float64))).max() <= bound(graph)
    assert network.description["arena"] == (0 if "boosting" not in name else network.description["arena"])
    if name == "forest of classes":
        assert (model.classes_[found.argmax(axis=1)] == model.predict(x)).all()
        np.testing.assert_array_equal(found, evaluate(fuse_trees(graph), {"x": x})[graph.outputs[0]])
    with pytest.raises(DeviceError, match="NaN or infinity"):
        network.run(X[0] * np.nan)


def test_ties_are_ties() -> None:
    """Eight pure leaves, four for each of two classes, say one half each; and a leaf of even shares its first class."""
    x = np.array([[0.0], [0.0], [1.0], [1.0], [2.0], [2.0]], np.float32)
    model = DecisionTreeClassifier().fit(x, ["a", "b", "b", "c", "c", "a"])
    found = evaluate(fuse_trees(mt.load(model)), {"x": x})
    (p,) = found.values()
    np.testing.assert_array_equal(p, model.predict_proba(x).astype(np.float32))
    assert (model.classes_[p.argmax(axis=1)] == model.predict(x)).all()


@pytest.mark.parametrize(
    "scalers",
    [(StandardScaler(),), (MinMaxScaler((-3, 5)), StandardScaler(with_std=False)), (MinMaxScaler(clip=True),)],
    ids=str,
)
@pytest.mark.parametrize("name", ["forest", "histogram boosting of two"])
def test_scalers_are_in_the_thresholds(name: str, scalers: tuple[Any, ...]) -> None:
    """A float32 number on either side of each new threshold goes where the pipeline sends it."""
    model, target = MODELS[name]
    pipeline = make_pipeline(*scalers, model).fit(X, Y[target])
    graph = mt.load(pipeline)
    assert [node.op for node in graph.nodes][:2] == ["tree_leaves", "tree_sum"]
    features, keys = (np.asarray(graph.tensor(name).data) for name in ("trees.features", "trees.keys"))
    rows = X[np.arange(3 * len(keys)) % len(X)].copy()
    for index, (feature, key) in enumerate(zip(features, keys, strict=True)):
        edge = np.array([key], np.int32)
        for step in (-1, 0, 1):
            bits = edge + step
            rows[3 * index + step + 1, feature] = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits).view(np.float32)[0]
    exact = answers(pipeline, rows.astype(np.float64))
    assert np.abs(evaluate(graph, {"x": rows}, np.float64)[graph.outputs[0]] - exact).max() <= bound(graph)


def categories() -> Any:
    kinds = np.column_stack([X[:, 0], R.integers(0, 4, len(X))])
    return HistGradientBoostingRegressor(max_iter=3, categorical_features=[1], **SEED).fit(kinds, kinds[:, 1] % 2 * 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomForestRegressor(), r"RandomForestRegressor is not fitted; call its fit\(x, y\) first"),
        (
            lambda: RandomForestClassifier(2).fit(X, np.stack([Y["two"], Y["three"]], axis=1)),
            "answers 2 questions at once; fit one RandomForestClassifier for each",
        ),
        (lambda: DecisionTreeClassifier().fit(X, np.ones(len(X))), "one class only; there is nothing to tell apart"),
        (
            lambda: GradientBoostingRegressor(n_estimators=2, init=LinearRegression()).fit(X, Y["value"]),
            "starts from init=LinearRegression; fit it with init=None or 'zero'",
        ),
        (categories, "splits by category are not supported; encode categories as numbers"),
        (
            lambda: HistGradientBoostingRegressor(max_iter=2, loss="poisson").fit(X, np.abs(Y["value"])),
            r"\(loss='poisson'\) predicts exp of its sum; supported: squared_error",
        ),
    ],
)
def test_what_cannot_be_read_is_named(make: Callable[[], Any], message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make()
    with pytest.raises(ModelError, match=message):
        mt.load(model)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("forest", {"learn": mt.LoRA(2)}, r"trees: Full\(\) and Head\(1\) both mean what their leaves say"),
        ("forest", {"precision": "int8"}, "trees learn in float32"),
        ("forest", {"optimizer": mt.RLS()}, r"RLS learns a dense layer, and this model has trees: use Leaves"),
        ("forest", {"optimizer": mt.Leaves(), "loss": "huber"}, "has no formula for huber; it learns on mse, binary"),
        ("boosting of three", {"optimizer": mt.Leaves(), "loss": "cross_entropy"}, r"each of these speaks of one of 3"),
        ("boosting of two", {"loss": "cross_entropy"}, "ends in sigmoid, which goes with binary_cross_entropy"),
    ],
)
def test_what_cannot_learn_is_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        mt.plan(mt.load(fitted(name)), **options)


def test_leaves_belong_to_trees_and_trees_are_integers_already() -> None:
    with pytest.raises(PlanError, match=r"Leaves\(\) learns the leaves of trees, and this model has none: use RLS"):
        mt.plan(mt.load(LinearRegression().fit(X, Y["value"])), optimizer=mt.Leaves())
    with pytest.raises(ModelError, match="has trees, whose comparisons are integers already"):
        mt.quantize(mt.load(fitted("forest")), calibration=X)
    with pytest.raises(PlanError, match="worth must be above 0 and finite"):
        mt.Leaves(worth=0.0)
    assert optimizer("leaves:0.3") == mt.Leaves(worth=0.3) and optimizer("leaves") == mt.Leaves()


EVERY = mt.Learner(buffer=20, every=1)


def test_classes_learn_by_gradient(tmp_path: Path) -> None:
    """Untouched, the device answers as scikit-learn; a step moves the leaves the sample is in, and no others, by the
    rate times what is wrong with each probability."""
    model, rate = fitted("forest of classes"), 0.25
    plan = mt.plan(mt.load(model), learn=mt.Full(), loss="cross_entropy", optimizer=mt.SGD(lr=rate), learner=EVERY)
    assert [(each.dtype, each.bytes) for each in plan.programs.cut] == [("int8", 8)]  # a byte for each tree
    device = mt.Device(mt.build(plan, tmp_path / "classes"))
    found = np.array([device.predict(x).value for x in X])
    # the logarithm of a share and back: a few roundings of a logit of up to 17, and what stands for zero
    assert np.abs(found - answers(model, X)).max() <= 3 * 2.0**-24 + 8 * 17 * U
    assert (model.classes_[found.argmax(axis=1)] == model.predict(X)).all()

    x, wanted = X[3], 1
    device.step(x, wanted)
    ((_, moved),) = device.parameters().items()
    rows = np.flatnonzero(np.abs(moved).sum(axis=1))
    at = leaves_of(mt.load(model), x[None])[0]
    counts = np.array([len(walked(tree).leaves) for tree in trees_of(model)])
    np.testing.assert_array_equal(rows, np.cumsum(counts) - counts + at)
    step = rate * (np.eye(3)[wanted] - found[3])
    np.testing.assert_allclose(moved[rows], np.tile(step, (len(rows), 1)), atol=1e-6)

    device.reset()
    for _ in range(8):
        device.predict(x)
        device.observe(wanted)
        device.idle()
    assert device.predict(x).value.argmax() == wanted


def test_boosted_stumps_learn_in_closed_form(tmp_path: Path) -> None:
    """Untouched as scikit-learn; then what a household wants otherwise is learnt from few samples, also where it was
    never seen: half of the samples, judged on the others."""
    model = GradientBoostingRegressor(n_estimators=20, max_depth=1, learning_rate=0.4, **SEED).fit(Z, Y["value"])
    graph = mt.load(model)
    device = mt.Device(mt.build(mt.plan(graph, optimizer=mt.Leaves(), learner=EVERY), tmp_path / "stumps"))
    before = np.array([device.predict(z).value for z in Z])
    assert np.abs(before - answers(model, Z.astype(np.float64))).max() <= bound(graph)
    own = before[:, 0] + 2.0 + 1.5 * (Z[:, 1] > 0)
    for z, wanted in zip(Z[:40], own[:40], strict=True):
        device.predict(z)
        device.observe([wanted])
        device.idle()
    after = np.array([device.predict(z).value[0] for z in Z[40:]])
    assert np.abs(after - own[40:]).mean() < 0.2 * np.abs(before[40:, 0] - own[40:]).mean()
    device.forget()
    device.reset()
    np.testing.assert_array_equal(device.predict(Z[0]).value, before[0])
