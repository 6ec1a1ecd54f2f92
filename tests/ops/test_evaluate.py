"""The reference evaluator: samples and batches, precisions, refusals."""

import numpy as np
import pytest

from microtune.errors import ModelError
from microtune.frontends.builder import Builder
from microtune.ir import Graph
from microtune.ops.evaluate import evaluate


@pytest.fixture
def graph() -> Graph:
    builder = Builder("net")
    weight = builder.constant("w", np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), "test")
    hidden = builder.emit("dense", (builder.input("x", (2,)), weight), "h", "test")
    return builder.finish(builder.emit("relu", (hidden,), "y", "test"), "test")


def test_a_sample_and_a_batch(graph: Graph) -> None:
    batch = np.array([[1.0, 1.0], [-1.0, 0.0]])
    np.testing.assert_array_equal(evaluate(graph, {"x": batch})["y"], [[3, 7, 11], [0, 0, 0]])
    np.testing.assert_array_equal(evaluate(graph, {"x": batch[0]})["y"], [3, 7, 11])
    assert evaluate(graph, {"x": np.zeros((0, 2))})["y"].shape == (0, 3)


def test_precision_is_that_of_the_graph_or_as_asked(graph: Graph) -> None:
    third = [1 / 3, 0.0]
    assert evaluate(graph, {"x": third})["y"].dtype == np.float32
    assert evaluate(graph, {"x": third}, np.float64)["y"][0] == 1 / 3


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input 'x' is missing; given: none"),
        ({"z": [0.0, 0.0]}, "input 'x' is missing; given: z"),
        ({"x": [0.0]}, r"input 'x' has the shape \(1,\); \(2,\) or \(samples, ...\) is needed"),
    ],
)
def test_refusals(graph: Graph, inputs: dict[str, list[float]], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        evaluate(graph, inputs)
