"""``mt.to_torch``: a module computes what its graph computes, and ``mt.load`` takes it back."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from tests.compress.random_networks import random_network  # noqa: E402
from torch import nn  # noqa: E402

import microtune as mt  # noqa: E402
from microtune.compress.batched import run, walk  # noqa: E402
from microtune.frontends.builder import Builder  # noqa: E402
from microtune.ir import Graph  # noqa: E402
from microtune.training.bridge import without_last_activation  # noqa: E402

MODELS = Path(__file__).parents[3] / "shared/data/models/mlperf_tiny"
PUBLISHED = ("kws_ref_model_float32", "pretrainedResnet", "vww_96_float", "ad01_fp32")


def inputs(graph: Graph, count: int = 3) -> np.ndarray:
    shape = graph.tensor(graph.inputs[0]).shape
    return np.random.default_rng(1).normal(size=(count, *shape)).astype(np.float32)


def outputs(module: Any, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = module.eval()(torch.from_numpy(x)).numpy()
    return found


def bound(graph: Graph, x: np.ndarray) -> float:
    """How far two orders of summation may be apart: in each layer terms * 2^-24 of the largest value there is.

    Errors of layers add up, grown or shrunk by the layers behind them; that the largest value is taken instead of that
    of each sum leaves room for this.
    """
    largest = max(float(np.abs(values[node.output]).max()) for node, values in walk(graph, x))
    terms = sum(graph.tensor(node.inputs[1]).size for node in graph.nodes if len(node.inputs) > 1)
    layers = sum(len(node.inputs) > 1 for node in graph.nodes)
    return 2.0**-24 * largest * (layers + terms**0.5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_nets(name: str) -> None:
    path = MODELS / f"{name}.tflite"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    graph = mt.load(path)
    x = inputs(graph)
    expected = run(without_last_activation(graph), x)
    module = mt.to_torch(graph)
    tolerance = bound(graph, x)
    assert tolerance < 2e-3 * np.abs(expected).max()
    assert np.abs(outputs(module, x) - expected).max() <= tolerance
    assert {type(part) for part in module.children()} <= {nn.Conv2d, nn.Linear, nn.ReLU, nn.AvgPool2d, nn.ConstantPad2d}
    if name == "kws_ref_model_float32":  # export takes seconds; padding on one side of an image is in this one
        again = mt.load(module, example=x)
        assert [node.op for node in again.nodes] == [node.op for node in without_last_activation(graph).nodes]
        assert np.abs(run(again, x) - expected).max() <= tolerance


def test_random_nets() -> None:
    """Every operator on images, in every order; a few of them all the way round through PyTorch's exporter."""
    for seed in range(60):
        graph = random_network(np.random.default_rng(seed))
        x = inputs(graph)
        expected, tolerance = run(graph, x), max(1e-6, bound(graph, x))
        module = mt.to_torch(graph, logits=False)
        assert np.abs(outputs(module, x) - expected).max() <= tolerance, f"seed {seed}"
        if seed < 3:
            again = mt.load(module, example=x)
            assert np.abs(run(again, x) - expected).max() <= tolerance, f"seed {seed}, loaded"


def test_a_module_is_trained_copied_and_pickled() -> None:
    graph = random_network(np.random.default_rng(5))
    x = inputs(graph, 8)
    module = mt.to_torch(graph)
    assert module.training
    other = pickle.loads(pickle.dumps(copy.deepcopy(module)))
    assert np.array_equal(outputs(module, x), outputs(other, x))
    other(torch.from_numpy(x)).square().sum().backward()
    assert all(each.grad is not None for each in other.parameters())
    assert all(each.grad is None for each in module.parameters())


def test_gates_and_rows_of_a_table() -> None:
    """Squeeze and excitation, whose factors per channel are computed; an embedding, whose input are whole numbers."""
    builder = Builder("gated")
    r = np.random.default_rng(0)
    x = builder.input("x", (4, 5, 3))
    gate = builder.emit("sigmoid", [builder.emit("global_average", [x], "mean", "test")], "gate", "test")
    zeros = builder.constant("zeros", np.zeros(3), "test")
    y = builder.emit("channel_affine", [x, gate, zeros], "gated", "test")
    graph = builder.finish(builder.reshape(y, (60,), "flat", "test"), "test")
    given = inputs(graph)
    mean = given.mean((1, 2), keepdims=True)
    expected = (given / (1 + np.exp(-mean))).reshape(3, -1)
    assert np.abs(outputs(mt.to_torch(graph), given) - expected).max() <= 2.0**-20

    builder = Builder("rows")
    table = builder.constant("table", r.normal(size=(7, 2)), "test")
    found = builder.emit("embedding", [builder.input("x", (3,)), table], "rows", "test")
    graph = builder.finish(builder.reshape(found, (6,), "flat", "test"), "test")
    places = np.array([[0, 6, 2], [1, 1, 5]], np.float32)
    assert np.array_equal(outputs(mt.to_torch(graph), places), np.asarray(table.data)[places.astype(int)].reshape(2, 6))


def test_refusals() -> None:
    float_graph = random_network(np.random.default_rng(0))
    stored = mt.quantize(float_graph, inputs(float_graph, 20))
    first = next(node for node in stored.nodes if node.op.endswith("_int8"))
    with pytest.raises(mt.ModelError, match=rf"node '.*' \({first.op}\): no PyTorch layer .*float graph"):
        mt.to_torch(stored)
    builder = Builder("square")
    x = builder.input("x", (4,))
    weight = builder.emit("multiply", [x, x], "squared", "test")
    matrix = builder.reshape(weight, (1, 4), "row", "test")
    graph = builder.finish(builder.emit("dense", [x, matrix], "sum", "test"), "test")
    with pytest.raises(mt.ModelError, match=r"\(dense\): '.*' is computed by the graph"):
        mt.to_torch(graph)


def test_trees_are_refused_by_what_writes_layers(tmp_path: Path) -> None:
    from sklearn.tree import DecisionTreeRegressor

    x = np.arange(8, dtype=np.float32)[:, None]
    tree = mt.load(DecisionTreeRegressor().fit(x, x[:, 0]))
    with pytest.raises(mt.ModelError, match="has trees, for which PyTorch has no layers: they are compiled"):
        mt.to_torch(tree)
    with pytest.raises(mt.ModelError, match=r"has trees, which save does not write: keep the estimator, mt\.load"):
        mt.save(tree, tmp_path / "tree.onnx")
    assert not list(tmp_path.iterdir())


def test_without_pytorch_it_is_said_what_a_float_graph_is_written_by(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(mt.MicrotuneError, match=r"^writing a float graph as \.onnx needs torch: pip install"):
        mt.save(mt.load(nn.Linear(3, 2), example=x), tmp_path / "net.onnx")
