"""Gradient rules and their composition against central differences, in float64 (SPEC B3).

A central difference with step h is off by h^2 / 6 of the third derivative and by about u64 / h of the values;
h = 1e-5 leaves both near 1e-10 for the values drawn here. Points next to a kink are avoided.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from microtune.compiler.passes.autodiff import differentiate
from microtune.ir import Graph, Node, Tensor, verify
from microtune.ops import OPS
from microtune.ops.evaluate import evaluate

STEP = 1e-5
TOLERANCE = 2e-8
ATTRIBUTES = {"alpha": 0.2, "factor": -1.7}
ONE_TO_ONE = ("relu", "relu6", "leaky_relu", "sigmoid", "tanh", "softmax", "scale")
KINKS = {"relu": (0.0,), "leaky_relu": (0.0,), "relu6": (0.0, 6.0)}


def with_loss(nodes: Sequence[Node], inputs: dict[str, tuple[int, ...]], output: str) -> tuple[Graph, Node]:
    """A graph of ``nodes`` that ends in the mean squared error of ``output``, and its loss node."""
    tensors = {name: Tensor(name, shape) for name, shape in inputs.items()}
    for node in nodes:
        shape = OPS[node.op].shape([tensors[name] for name in node.inputs], node.attributes)[0]
        tensors[node.output] = Tensor(node.output, shape)
    shape = tensors[output].shape
    tensors |= {"t": Tensor("t", shape), "L": Tensor("L", ()), "dy": Tensor("dy", shape)}
    loss = Node("mse", "loss", (output, "t"), ("L", "dy"))
    return verify(Graph("g", tensors, (*nodes, loss), (*inputs, "t"), ("L",))), loss


def check(nodes: Sequence[Node], values: dict[str, np.ndarray], output: str) -> None:
    """Every input's gradient equals its central difference."""
    graph, loss = with_loss(nodes, {name: value.shape for name, value in values.items()}, output)
    target = np.random.default_rng(0).normal(size=graph.tensor(output).shape)
    seen = evaluate(
        Graph("g", graph.tensors, graph.nodes, graph.inputs, tuple(n.output for n in nodes)),
        {**values, "t": target},
        np.float64,
    )
    for node in (node for node in nodes if node.op in KINKS):
        x = seen.get(node.inputs[0], values.get(node.inputs[0]))
        assume(not any(np.any(np.abs(x - kink) < 1e-3) for kink in KINKS[node.op]))

    reached = [name for name in values if any(name in node.inputs for node in nodes)]
    trained, gradients = differentiate(graph, loss, reached)
    verify(trained, "differentiation")
    names = tuple(dict.fromkeys(gradients.values()))
    backward = Graph("g", trained.tensors, trained.nodes, trained.inputs, names)
    found = evaluate(backward, {**values, "t": target}, np.float64)

    def loss_at(name: str, value: np.ndarray) -> float:
        return float(evaluate(graph, {**values, "t": target, name: value}, np.float64)["L"])

    for name, gradient in gradients.items():
        assert found[gradient].shape == values[name].shape
        for index in np.ndindex(values[name].shape):
            moved = np.zeros(values[name].shape)
            moved[index] = STEP
            slope = (loss_at(name, values[name] + moved) - loss_at(name, values[name] - moved)) / (2 * STEP)
            allowed = TOLERANCE * (1 + abs(slope))
            assert found[gradient][index] == pytest.approx(slope, abs=allowed), f"{name}{index}"


@pytest.mark.parametrize("op", ONE_TO_ONE)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 9))
def test_of_one_input(op: str, seed: int, size: int) -> None:
    x = 2 * np.random.default_rng(seed).normal(size=size)
    check([Node(op, op, ("x",), ("y",), ATTRIBUTES)], {"x": x}, "y")


@pytest.mark.parametrize("op", ["add", "multiply"])
@pytest.mark.parametrize("same", [False, True], ids=["of two tensors", "of a tensor with itself"])
def test_of_two_inputs(op: str, same: bool) -> None:
    r = np.random.default_rng(3)
    values = {"a": r.normal(size=5)} if same else {"a": r.normal(size=5), "b": r.normal(size=5)}
    check([Node(op, op, ("a", "a" if same else "b"), ("y",))], values, "y")


@pytest.mark.parametrize("bias", [True, False])
def test_of_dense(bias: bool) -> None:
    r = np.random.default_rng(4)
    values = {"x": r.normal(size=3), "w": r.normal(size=(5, 3)), "b": r.normal(size=5)}
    check([Node("dense", "dense", ("x", "w", "b")[: 2 + bias], ("y",))], values, "y")


def test_of_reshape() -> None:
    values = {"x": np.random.default_rng(5).normal(size=(2, 3))}
    nodes = [
        Node("tanh", "tanh", ("x",), ("h",)),
        Node("reshape", "flat", ("h",), ("y",), {"shape": (6,)}),
    ]
    check(nodes, values, "y")


def test_of_a_weight_shared_by_two_layers() -> None:
    r = np.random.default_rng(6)
    nodes = [
        Node("dense", "first", ("x", "w", "b"), ("h",)),
        Node("tanh", "tanh", ("h",), ("a",)),
        Node("dense", "second", ("a", "w", "b"), ("y",)),
    ]
    check(nodes, {"x": r.normal(size=4), "w": r.normal(size=(4, 4)), "b": r.normal(size=4)}, "y")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), data=st.data())
def test_of_random_graphs_with_fan_out(seed: int, data: st.DataObject) -> None:
    """Tensors used any number of times, residual additions, gates: gradients of all uses are summed."""
    r = np.random.default_rng(seed)
    size = data.draw(st.integers(1, 5))
    values = {"x": r.normal(size=size)}
    names, nodes = ["x"], []
    for index in range(data.draw(st.integers(1, 6))):
        op = data.draw(
            st.sampled_from(["dense", "add", "multiply", "tanh", "sigmoid", "softmax", "leaky_relu", "scale"])
        )
        first, second = (data.draw(st.sampled_from(names)) for _ in range(2))
        inputs: tuple[str, ...] = (first, second) if op in ("add", "multiply") else (first,)
        if op == "dense":
            values |= {f"w{index}": r.normal(size=(size, size)) / size**0.5, f"b{index}": r.normal(size=size)}
            inputs = (first, f"w{index}", f"b{index}")
        nodes.append(Node(op, f"n{index}", inputs, (f"h{index}",), ATTRIBUTES))
        names.append(f"h{index}")
    output = names[-1]
    used: set[str] = {output}
    for node in reversed(nodes):
        if node.output in used:
            used.update(node.inputs)
    kept = [node for node in nodes if node.output in used]
    check(kept, {name: value for name, value in values.items() if name in used}, output)
