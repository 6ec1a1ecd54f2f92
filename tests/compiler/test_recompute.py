"""Cheap tensors computed again: fewer bytes at the peak, the same numbers (SPEC B3)."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from microtune.compiler.passes.recompute import recompute
from microtune.compiler.passes.schedule import peak_bytes, reorder
from microtune.frontends.builder import Builder
from microtune.ir import Graph, verify
from microtune.ops.evaluate import evaluate

from .random_plans import random_graph, seeds


def wide_between(width: int = 64, middle: int = 256) -> Graph:
    """An int8 input, dequantised at the start, wanted again behind a wide layer."""
    r = np.random.default_rng(0)
    builder = Builder("net")
    x = builder.input("x", (width,), "int8")
    real = builder.emit("dequantize", [x], "real", "test", scale=0.5, zero_point=3)
    wide = builder.constant("w1", r.normal(size=(middle, width)), "test")
    narrow = builder.constant("w2", r.normal(size=(width, middle)), "test")
    h = builder.emit("dense", [real, wide], "h", "test")
    h = builder.emit("dense", [h, narrow], "back", "test")
    twice = builder.emit("scale", [real], "twice", "test", factor=2.0)
    return verify(builder.finish(builder.emit("multiply", [h, twice], "y", "test"), "test"))


def test_a_dequantised_input_is_computed_again() -> None:
    graph = wide_between()
    before, after = reorder(graph), verify(recompute(graph), "recomputation")
    # h and back alive together, and real beside them before but not after
    assert peak_bytes(before) == 4 * (256 + 64 + 64)
    assert peak_bytes(after) == 4 * (256 + 64)
    assert sum(node.op == "dequantize" for node in after.nodes) == 2
    x = np.random.default_rng(1).integers(-128, 128, 64).astype(np.int8)
    assert np.array_equal(evaluate(before, {"x": x})["y"], evaluate(after, {"x": x})["y"])


def test_a_peak_that_is_low_enough_is_left_alone() -> None:
    graph = wide_between()
    assert len(recompute(graph, enough=4 * 384).nodes) == len(graph.nodes)


def test_what_gains_nothing_is_not_computed_again() -> None:
    """To compute the ReLU again, its input would have to stay, which is as large as its output."""
    r = np.random.default_rng(0)
    builder = Builder("net")
    tensor = builder.input("x", (8,))
    weights = [builder.constant("w", r.normal(size=shape), "test") for shape in ((64, 8), (256, 64), (64, 256))]
    kept = builder.emit("relu", [builder.emit("dense", [tensor, weights[0]], "h", "test")], "kept", "test")
    wide = builder.emit("dense", [kept, weights[1]], "wide", "test")
    back = builder.emit("dense", [wide, weights[2]], "back", "test")
    graph = verify(builder.finish(builder.emit("multiply", [back, kept], "y", "test"), "test"))
    assert len(recompute(graph).nodes) == len(graph.nodes)


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_never_a_higher_peak_nor_other_numbers(seed: int) -> None:
    r = np.random.default_rng(seed)
    graph = random_graph(r)
    again = verify(recompute(graph), "recomputation")
    assert peak_bytes(again) <= peak_bytes(reorder(graph))
    x = r.normal(size=graph.tensor("x").shape).astype(np.float32)
    for name, want in evaluate(graph, {"x": x}).items():
        assert np.array_equal(evaluate(again, {"x": x})[name], want)
