"""Which layers a scheme finds, what of an int8 graph stays int8, and tensors that layers share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import microtune as mt
from microtune.errors import PlanError
from microtune.frontends.builder import Builder
from microtune.ir import Graph, verify
from microtune.tuning.layers import layers_of
from microtune.tuning.schemes import Scheme
from microtune.tuning.selection import select

PLAIN = {"stride": (1, 1), "padding": ((0, 0), (0, 0))}


def known_net() -> Graph:
    """first: conv 3x3, 2 -> 8; middle: depthwise 3x3 of 8, without bias; wide: conv 1x1, 8 -> 10; last: dense 10 -> 4.

    Parameters: 144 + 8, 72, 80 + 10, 40 + 4.
    """
    r = np.random.default_rng(0)
    builder = Builder("known")

    def constant(name: str, *shape: int) -> Any:
        return builder.constant(name, 0.3 * r.normal(size=shape), "test")

    x = builder.input("x", (6, 6, 2))
    h = builder.emit("conv2d", [x, constant("w0", 8, 3, 3, 2), constant("b0", 8)], "c0", "test", "first", **PLAIN)
    h = builder.emit("relu", [h], "a0", "test")
    h = builder.emit("depthwise_conv2d", [h, constant("w1", 3, 3, 8)], "c1", "test", "middle", **PLAIN)
    h = builder.emit("relu6", [h], "a1", "test")
    h = builder.emit("conv2d", [h, constant("w2", 10, 1, 1, 8), constant("b2", 10)], "c2", "test", "wide", **PLAIN)
    h = builder.emit("global_average", [builder.emit("relu", [h], "a2", "test")], "m", "test")
    h = builder.emit("dense", [h, constant("w3", 4, 10), constant("b3", 4)], "y", "test", "last")
    return verify(builder.finish(h, "test"))


def known_int8() -> Graph:
    r = np.random.default_rng(1)
    return mt.quantize(known_net(), r.normal(size=(8, 6, 6, 2)).astype(np.float32))


def count(graph: Graph, scheme: Scheme, precision: str = "float32") -> int:
    selection = select(graph, scheme, precision)
    verify(selection.graph, f"{scheme}")
    return sum(selection.graph.tensor(name).size for name in selection.trained)


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (mt.LoRA(1, tensors=("first", "w3")), 18 + 8 + 10 + 4),
        (mt.LoRA(1, tensors=(2,)), 8 + 10),
        (mt.Sparse({"wide": 0.25}), 10 * 2),
        (mt.Sparse({"wide": 0.26}), 10 * 3),
        # 0.7 * 10 is 7.000000000000001 in floating point
        (mt.Sparse({"last": 0.7}), 4 * 7),
    ],
    ids=str,
)
def test_named_layers_and_fractions(scheme: Scheme, expected: int) -> None:
    assert count(known_net(), scheme) == count(known_int8(), scheme) == expected


def test_everything_is_what_the_network_has() -> None:
    """A layer without a bias is given none by Full and Head; in int8 every layer has one."""
    assert count(known_net(), mt.Full()) == 152 + 72 + 90 + 44
    assert count(known_int8(), mt.Full()) == count(known_int8(), mt.Full(), "mixed") == 152 + 80 + 90 + 44


@pytest.mark.parametrize("scheme", [mt.Bias(), mt.NormAffine(), mt.Adapter(2), mt.LoRA(1), mt.Sparse({"w2": 0.25})])
def test_frozen_weights_of_an_int8_network_stay_int8(scheme: Scheme) -> None:
    graph = select(known_int8(), scheme).graph
    for node in layers_of(graph):
        weight = graph.tensor(node.inputs[1])
        if "_lora_" not in node.name and "_adapter_" not in node.name and "_learnt" not in node.name:
            assert weight.dtype == "int8", node.name
    assert graph.tensor(graph.outputs[0]).dtype == "float32"


def test_only_what_learns_whole_has_float_weights() -> None:
    selection = select(known_int8(), mt.Sparse({"wide": 1.0, "last": 0.5}))
    ops = {node.name: node.op for node in selection.graph.nodes}
    assert [ops[name] for name in ("first", "middle", "wide", "last")] == [
        *("conv2d_int8", "depthwise_conv2d_int8", "conv2d", "dense_weight8")
    ]


def shared_biases() -> Graph:
    """Two dense layers with one bias, as files with equal constants merged have it."""
    r = np.random.default_rng(0)
    builder = Builder("shared")
    x = builder.input("x", (3,))
    zero = builder.constant("zero", np.zeros(3), "test")
    for index in range(3):
        weight = builder.constant(f"w{index}", r.normal(size=(3, 3)), "test")
        x = builder.emit("dense", [x, weight, zero], f"y{index}", "test", f"d{index}")
    return verify(builder.finish(x, "test"))


def test_what_frozen_layers_share_with_one_that_learns_stays_frozen_there() -> None:
    selection = select(shared_biases(), mt.Head(1))
    first, second, third = selection.graph.nodes
    assert first.inputs[2] == second.inputs[2] == "zero" != third.inputs[2]
    assert selection.trained == ("w2", third.inputs[2])
    made = mt.plan(shared_biases(), mt.Head(1))
    assert [tensor.name for tensor in made.programs.cut] == ["y1"]


def test_what_all_learn_together_stays_one() -> None:
    assert select(shared_biases(), mt.Bias()).trained == ("zero",)
    tied = select(shared_biases(), mt.Head(2))
    assert tied.graph.nodes[1].inputs[2] == tied.graph.nodes[2].inputs[2] != tied.graph.nodes[0].inputs[2]
    assert count(shared_biases(), mt.Head(2)) == 9 + 9 + 3


def test_a_float_head_behind_int8_layers_learns_in_float_in_mixed_precision() -> None:
    graph = mt.replace_head(known_int8(), 5)
    selection = select(graph, mt.Head(2), "mixed")
    kinds = [selection.graph.tensor(name).dtype for name in selection.trained]
    assert sorted(kinds) == ["float32", "float32", "int32", "int8"]
    adapted = select(graph, mt.LoRA(1, layers=1), "mixed")
    assert [adapted.graph.tensor(name).dtype for name in adapted.trained] == ["float32", "float32"]


@pytest.mark.parametrize("precision", ["float32", "mixed"])
def test_a_final_int8_softmax_is_left_to_the_loss(precision: str) -> None:
    graph = known_net()
    probabilities = replace(graph.tensor("y"), name="p")
    node = replace(graph.nodes[-1], op="softmax", name="p", inputs=("y",), outputs=("p",), attributes={})
    ends = replace(graph, outputs=("p",)).with_nodes([*graph.nodes, node], [probabilities])
    int8 = mt.quantize(ends, np.random.default_rng(1).normal(size=(8, 6, 6, 2)).astype(np.float32))
    made = mt.plan(int8, mt.Head(1), "cross_entropy", precision=precision)
    assert made.programs.step is not None
    assert not [node for node in made.programs.step.graph.nodes if node.op.startswith("softmax")]
    last = made.programs.head.graph
    assert last.tensor(last.outputs[0]).dtype == "float32"


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (mt.LoRA(1, tensors=("middle",)), r"'middle' is a depthwise convolution, which has no low rank"),
        (mt.LoRA(1, layers=1, tensors=("last",)), r"name some layers in tensors, or give the number of the last ones"),
        (mt.LoRA(1, tensors=()), r"name some layers in tensors"),
        (mt.LoRA(1, alpha=0), r"rank must be at least 1 and alpha above 0"),
        (mt.Adapter(1, layers=3), r"has 2 such layers"),
        (mt.Sparse({"wide": float("nan")}), r"the fraction nan of layer 'wide' must be 0 to 1"),
        (mt.Sparse({"wide": slice(0, 8, 2)}), r"is no range within its 8 input channels"),
        (mt.Sparse({"wide": 0.5, "w2": 0.25}), r"layer 'wide' is chosen twice, the second time as 'w2'"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_explained(scheme: Scheme, message: str) -> None:
    for graph in (known_net(), known_int8()):
        with pytest.raises(PlanError, match=message):
            select(graph, scheme)


def test_a_network_without_layers_cannot_learn() -> None:
    builder = Builder("empty")
    empty = verify(builder.finish(builder.emit("relu", [builder.input("x", (3,))], "y", "test"), "test"))
    with pytest.raises(PlanError, match="'empty' has no layer with constant weights: nothing can learn"):
        select(empty, mt.Full())
