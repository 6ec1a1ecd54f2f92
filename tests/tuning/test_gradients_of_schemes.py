"""Gradients of every update scheme on random small convolutional networks agree with PyTorch (issue 3: must hold).

Both sides compute in float64 from the same stored numbers. The tolerance is measured conditioning: the twin runs
again with every parameter moved at random by a relative ``SIZE``, far more than the rounding of float64 sums of a few
hundred terms; the gradients may differ by what that changes, and by ``SIZE`` of the largest gradient. In mixed
precision the slopes of tables are float32, one rounding each: U of the gradient's size for each table on the path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import microtune as mt
from microtune.ir import Graph
from microtune.tuning.schemes import Scheme
from microtune.tuning.selection import Selection, float_output, select

from .networks import gradients, moved, random_int8_net, random_net, random_sample
from .twin import LAYERS, Twin

U = 2.0**-24
SIZE = 1e-11


@dataclass(frozen=True)
class Choice:
    """A scheme, and what of it the oracle must be told."""

    scheme: Scheme
    starts: Mapping[str, int] | None = None
    alpha: float | None = None


def layer_nodes(graph: Graph) -> list:
    return [node for node in graph.nodes if node.op.removesuffix("_int8") in LAYERS]


def sparse(r: np.random.Generator, graph: Graph) -> Choice:
    """Some layers by name, by weight or by number; parts as fractions or slices; biases by name or by number."""
    layers = layer_nodes(graph)
    tensors: dict[str | int, float | slice] = {}
    starts = {}
    for index in r.permutation(len(layers))[: int(r.integers(1, 4))]:
        node = layers[index]
        name = [node.name, node.inputs[1], int(index)][r.integers(3)]
        size = graph.tensor(node.inputs[1]).shape[-1]
        starts[node.name] = 0
        if node.op.startswith("depthwise"):
            tensors[name] = 1.0
        elif r.uniform() < 0.5:
            tensors[name] = float(r.uniform(0.01, 1))
        else:
            start = int(r.integers(0, size))
            starts[node.name] = start
            tensors[name] = slice(start, int(r.integers(start, size)) + 1)
    count = int(r.integers(0, len(layers)))
    biases = [None, count, layers[-count].name if count else None][r.integers(3)]
    return Choice(mt.Sparse(tensors, biases_from=biases), starts)


def low_rank(r: np.random.Generator, graph: Graph) -> Choice:
    alpha = float(r.choice([1.0, 3.0])) if r.uniform() < 0.5 else None
    inner = sum(not node.op.startswith("depthwise") for node in layer_nodes(graph))
    return Choice(mt.LoRA(1, alpha, [None, int(r.integers(1, inner + 1))][r.integers(2)]), alpha=alpha)


def adapter(r: np.random.Generator, graph: Graph) -> Choice:
    inner = sum(not node.op.startswith("depthwise") for node in layer_nodes(graph)) - 1
    return Choice(mt.Adapter(int(r.integers(1, 5)), [None, int(r.integers(1, inner + 1))][r.integers(2)]))


SCHEMES: Mapping[str, Callable[[np.random.Generator, Graph], Choice]] = {
    "Full": lambda r, graph: Choice(mt.Full()),
    "Head": lambda r, graph: Choice(mt.Head(int(r.integers(1, len(layer_nodes(graph)) + 1)))),
    "Bias": lambda r, graph: Choice(mt.Bias()),
    "NormAffine": lambda r, graph: Choice(mt.NormAffine()),
    "Adapter": adapter,
    "LoRA": low_rank,
    "Sparse": sparse,
}
IN_INTEGERS = ("Full", "Head", "Bias", "Sparse")


def twin_of(graph: Graph, selection: Selection, choice: Choice, mixed: bool = False) -> Twin:
    return Twin(graph, selection.graph, selection.trained, mixed, choice.starts, choice.alpha)


def compare(r: np.random.Generator, graph: Graph, name: str, precision: str = "float32") -> None:
    choice = SCHEMES[name](r, graph)
    selection = moved(r, select(graph, choice.scheme, precision))
    mixed = precision == "mixed"
    x, target = random_sample(r, graph)
    have, twin = gradients(selection, x, target), twin_of(graph, selection, choice, mixed)
    want = twin.gradients(x, target)
    near = [twin.gradients(x, target, r, SIZE) for _ in range(2)]
    assert set(have) == set(want) and have
    tables = sum(node.op == "lookup_int8" for node in graph.nodes) if mixed else 0
    for tensor, gradient in have.items():
        largest = np.abs(want[tensor]).max()
        cost = max(np.abs(other[tensor] - want[tensor]).max() for other in near)
        error = np.abs(gradient - want[tensor]).max()
        assert error <= cost + (SIZE + 8 * tables * U) * largest, (tensor, error, cost, largest)


seeds = given(seed=st.integers(0, 2**32 - 1))


@pytest.mark.parametrize("name", SCHEMES)
@settings(max_examples=6, deadline=None)
@seeds
def test_of_float_networks(name: str, seed: int) -> None:
    r = np.random.default_rng(seed)
    compare(r, random_net(r), name)


@pytest.mark.parametrize("name", SCHEMES)
@settings(max_examples=5, deadline=None)
@seeds
def test_of_frozen_int8_networks(name: str, seed: int) -> None:
    """Frozen layers keep int8 weights; PyTorch has them dequantised."""
    r = np.random.default_rng(seed)
    compare(r, float_output(random_int8_net(r)), name)


@pytest.mark.parametrize("name", IN_INTEGERS)
@settings(max_examples=5, deadline=None)
@seeds
def test_of_integers_that_learn(name: str, seed: int) -> None:
    """Mixed precision: gradients pass rounding straight through, and stop where an output is saturated."""
    r = np.random.default_rng(seed)
    compare(r, float_output(random_int8_net(r)), name, "mixed")


def test_fractions_are_rounded_up(net_of: Callable[[int], Graph]) -> None:
    """At least one channel learns of what is named, and never more than the layer has."""
    graph = net_of(0)
    for index, node in enumerate(layer_nodes(graph)):
        if node.op.startswith("depthwise"):
            continue
        shape = graph.tensor(node.inputs[1]).shape
        for fraction in (0.01, 0.34, 0.5, 0.99):
            (name,) = (selection := select(graph, mt.Sparse({index: fraction}))).trained
            kept = math.ceil(fraction * shape[-1])
            expected = shape if kept == shape[-1] else (*shape[:-1], kept)
            assert selection.graph.tensor(name).shape == expected
