"""Folding changes nothing that a graph computes: not a bit where float32 holds all numbers exactly."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from microtune.compress.folding import drop_dead, fold
from microtune.errors import ModelError
from microtune.frontends.builder import Builder
from microtune.ir import Graph, Tensor, format_graph, verify
from microtune.ops.evaluate import evaluate

STEPS = (
    "dense",
    "shift",
    "scale",
    "relu",
    "reshape",
    "flatten",
    "identity",
    "constants",
    "skip",
    "branch",
    "dead",
)


def small(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """Small multiples of 1/4: sums and products of a few of them are exact in float32."""
    return generator.integers(-8, 9, size=shape).astype(np.float32) / 4


class Writer:
    """A graph under construction, with one method per step of the strategy."""

    def __init__(self, width: int, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        self.builder = Builder("net")
        self.value = self.builder.input("x", (width,))

    def emit(self, op: str, *inputs: Tensor, **attributes: object) -> Tensor:
        return self.builder.emit(op, inputs, op, "test", **attributes)

    def constant(self, *shape: int) -> Tensor:
        return self.builder.constant("c", small(self.generator, *shape), "test")

    def vector(self) -> Tensor:
        return self.builder.reshape(self.value, (self.value.size,), "flat", "test")

    def with_constant(self, op: str, constant: Tensor) -> Tensor:
        pair = (self.value, constant) if self.generator.integers(2) else (constant, self.value)
        return self.emit(op, *pair)

    def dense(self, x: Tensor) -> Tensor:
        out = int(self.generator.integers(1, 5))
        bias = (self.constant(out),) if self.generator.integers(2) else ()
        return self.emit("dense", x, self.constant(out, x.size), *bias)

    def step(self, kind: str) -> None:
        shape = self.value.shape
        match kind:
            case "dense":
                self.value = self.dense(self.vector())
            case "shift":
                self.value = self.with_constant("add", self.constant(*shape))
            case "scale":
                self.value = self.with_constant("multiply", self.constant(*shape))
            case "relu":
                self.value = self.emit("relu", self.value)
            case "reshape":
                self.value = self.emit("reshape", self.value, shape=(1, self.value.size))
            case "flatten":
                self.value = self.emit("reshape", self.value, shape=(self.value.size,))
            case "identity":
                op, number = [("add", 0.0), ("multiply", 1.0)][int(self.generator.integers(2))]
                self.value = self.with_constant(op, self.builder.constant("c", np.full(shape, number), "test"))
            case "constants":
                self.value = self.emit(
                    "add", self.value, self.emit("multiply", self.constant(*shape), self.constant(*shape))
                )
            case "skip":
                self.value = self.emit("add", self.value, self.emit("relu", self.value))
            case "branch":
                start = self.vector()
                left, right = self.dense(start), self.dense(start)
                if left.size == right.size:
                    self.value = self.emit("add", left, right)
            case "dead":
                self.dense(self.vector())

    def finish(self) -> Graph:
        return self.builder.finish(self.emit("relu", self.value), "test")


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    writer = Writer(draw(st.integers(1, 5)), draw(st.integers(0, 2**32 - 1)))
    for kind in draw(st.lists(st.sampled_from(STEPS), max_size=9)):
        writer.step(kind)
    return writer.finish()


def outputs(graph: Graph, x: np.ndarray) -> np.ndarray:
    return evaluate(graph, {graph.inputs[0]: x}, np.float64)[graph.outputs[0]]


def is_exact(graph: Graph) -> bool:
    """Constants made of at most nine factors, all multiples of 1/4, and below 64 need at most 24 bits."""
    return all(np.all(np.abs(np.asarray(item.data)) < 64) for item in graph.constants)


@settings(max_examples=400, deadline=None)
@given(graphs(), st.integers(0, 2**32 - 1))
def test_random_graphs_compute_the_same(graph: Graph, seed: int) -> None:
    folded = verify(fold(graph))
    x = small(np.random.default_rng(seed), 3, graph.tensor(graph.inputs[0]).size)
    expected, found = outputs(graph, x), outputs(folded, x)
    if is_exact(folded):
        event("exact")
        np.testing.assert_array_equal(found, expected)
    assert (folded.inputs, folded.outputs) == (graph.inputs, graph.outputs)
    assert folded.tensor(folded.outputs[0]).shape == graph.tensor(graph.outputs[0]).shape
    assert len(folded.nodes) <= len(graph.nodes)
    assert format_graph(fold(folded)) == format_graph(folded), "folding twice changes nothing more"


@settings(max_examples=100, deadline=None)
@given(graphs())
def test_nothing_is_left_to_fold_beside_a_dense_layer(graph: Graph) -> None:
    folded = fold(graph)
    for node in folded.nodes:
        inputs = [folded.tensor(name) for name in node.inputs]
        assert not all(item.is_constant for item in inputs)
        assert not (node.op == "reshape" and inputs[0].shape == folded.tensor(node.output).shape)
        if node.op in ("add", "multiply") and any(item.is_constant for item in inputs):
            readers = folded.consumers(node.output)
            assert any(item.op != "dense" for item in readers) or node.output in folded.outputs
            (x,) = (item.name for item in inputs if not item.is_constant)
            producer = folded.producer(x)
            assert producer is None or producer.op != "dense" or len(folded.consumers(x)) > 1


def folded_ops(*kinds: str) -> list[str]:
    writer = Writer(4, 0)
    for kind in kinds:
        writer.step(kind)
    return [node.op for node in fold(writer.finish()).nodes]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (("shift", "scale", "dense"), ["dense", "relu"]),
        (("dense", "scale", "shift"), ["dense", "relu"]),
        (("scale", "reshape", "flatten", "dense"), ["dense", "relu"]),
        (("scale", "reshape", "shift", "dense"), ["dense", "relu"]),
        (("dense", "reshape", "flatten", "shift"), ["dense", "relu"]),
        (("identity", "dense", "identity"), ["dense", "relu"]),
        (("dense", "constants"), ["dense", "relu"]),
        (("dead", "relu", "dead"), ["relu", "relu"]),
        (("relu", "scale"), ["relu", "multiply", "relu"]),
        (("dense", "dense"), ["dense", "dense", "relu"]),
    ],
)
def test_what_folds(kinds: tuple[str, ...], expected: list[str]) -> None:
    assert folded_ops(*kinds) == expected


def test_a_scale_that_others_read_too_stays() -> None:
    builder = Builder("net")
    x = builder.input("x", (2,))
    scaled = builder.emit("multiply", (x, builder.constant("c", np.array([2.0, 3.0]), "test")), "scaled", "test")
    dense = builder.emit("dense", (scaled, builder.constant("w", np.eye(2), "test")), "dense", "test")
    graph = fold(builder.finish(builder.emit("add", (dense, scaled), "y", "test"), "test"))
    assert [node.op for node in graph.nodes] == ["multiply", "dense", "add"]


def test_a_layer_that_others_read_too_keeps_its_output() -> None:
    builder = Builder("net")
    x = builder.input("x", (2,))
    dense = builder.emit("dense", (x, builder.constant("w", np.eye(2), "test")), "dense", "test")
    scaled = builder.emit("multiply", (dense, builder.constant("c", np.full(2, 3.0), "test")), "scaled", "test")
    graph = fold(builder.finish(builder.emit("add", (dense, scaled), "y", "test"), "test"))
    assert [node.op for node in graph.nodes] == ["dense", "multiply", "add"]
    np.testing.assert_array_equal(outputs(graph, np.array([1.0, 2.0])), [4, 8])


def test_a_scale_that_is_an_output_too_stays() -> None:
    builder = Builder("net")
    x = builder.input("x", (2,))
    scaled = builder.emit("multiply", (x, builder.constant("c", np.array([2.0, 3.0]), "test")), "scaled", "test")
    dense = builder.emit("dense", (scaled, builder.constant("w", np.eye(2), "test")), "y", "test")
    graph = fold(replace(builder.finish(dense, "test"), outputs=("y", "scaled")))
    assert [node.op for node in graph.nodes] == ["multiply", "dense"]


def test_a_scale_read_by_two_layers_folds_into_both() -> None:
    builder = Builder("net")
    x = builder.input("x", (2,))
    scaled = builder.emit("multiply", (x, builder.constant("c", np.array([2.0, 3.0]), "test")), "scaled", "test")
    weight = builder.constant("w", np.eye(2), "test")
    left, right = (builder.emit("dense", (scaled, weight), name, "test") for name in ("left", "right"))
    graph = fold(builder.finish(builder.emit("add", (left, right), "y", "test"), "test"))
    assert [node.op for node in graph.nodes] == ["dense", "dense", "add"]
    np.testing.assert_array_equal(outputs(graph, np.array([1.0, 1.0])), [4, 6])


def test_shared_constants_are_not_overwritten() -> None:
    """One weight read by two layers, a scale behind one of them: the other keeps its weight."""
    builder = Builder("net")
    x = builder.input("x", (2,))
    weight, bias = builder.constant("w", np.eye(2), "test"), builder.constant("b", np.ones(2), "test")
    first = builder.emit("dense", (x, weight, bias), "first", "test")
    scaled = builder.emit("multiply", (first, builder.constant("c", np.array([2.0, 3.0]), "test")), "scaled", "test")
    second = builder.emit("dense", (scaled, weight, bias), "second", "test")
    last = builder.emit("tanh", (second,), "y", "test")
    graph = builder.finish(builder.emit("add", (last, scaled), "z", "test"), "test")
    folded = fold(graph)
    assert [node.op for node in folded.nodes] == ["dense", "dense", "tanh", "add"]
    x_values = np.array([[0.5, -1.0], [1.0, 2.0]])
    np.testing.assert_array_equal(outputs(folded, x_values), outputs(graph, x_values))


def test_a_fold_that_overflows_float32_is_left_alone() -> None:
    builder = Builder("net")
    x = builder.input("x", (1,))
    scaled = builder.emit("multiply", (x, builder.constant("c", np.array([1e30]), "test")), "scaled", "test")
    dense = builder.emit("dense", (scaled, builder.constant("w", np.array([[1e30]]), "test")), "y", "test")
    assert [node.op for node in fold(builder.finish(dense, "test")).nodes] == ["multiply", "dense"]


def test_standardisation_cancels_as_well_as_the_original() -> None:
    """The bias is made from the rounded weights: at x = mean only the rounding of the bias is left."""
    builder = Builder("net")
    mean, deviation, weight = np.array([3e3, -5e4]), np.array([0.3, 7.0]), np.array([[0.1, 0.7]])
    x = builder.input("x", (2,))
    shifted = builder.emit("add", (x, builder.constant("m", -mean, "test")), "shifted", "test")
    scaled = builder.emit("multiply", (shifted, builder.constant("s", 1 / deviation, "test")), "scaled", "test")
    graph = fold(
        builder.finish(builder.emit("dense", (scaled, builder.constant("w", weight, "test")), "y", "test"), "test")
    )
    bias = np.asarray(graph.tensor(graph.nodes[0].inputs[2]).data)
    assert np.abs(outputs(graph, mean)) <= 2.0**-24 * np.abs(bias)


def test_inputs_and_outputs_survive() -> None:
    builder = Builder("net")
    x = builder.input("x", (3,))
    graph = builder.finish(builder.emit("add", (x, builder.constant("c", np.zeros(3), "test")), "y", "test"), "test")
    folded = fold(graph)
    assert (folded.inputs, folded.outputs) == (("x",), ("y",))
    np.testing.assert_array_equal(outputs(folded, np.arange(3.0)), np.arange(3.0))


def test_dead_nodes_go_and_inputs_stay() -> None:
    writer = Writer(3, 1)
    writer.step("dead")
    graph = drop_dead(writer.finish())
    assert [node.op for node in graph.nodes] == ["relu"]
    assert set(graph.tensors) == {"x", "relu"}


def test_a_broken_graph_is_refused() -> None:
    graph = Writer(3, 1).finish()
    with pytest.raises(ModelError, match="before folding"):
        fold(Graph("net", graph.tensors, graph.nodes[::-1] + graph.nodes, graph.inputs, graph.outputs))
