"""Bottlenecks row by row: the same bits, a lower peak, and only where it helps (SPEC B3)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from microtune.compiler.passes.fuse_rows import fuse_rows
from microtune.compiler.passes.schedule import peak_bytes, reorder
from microtune.frontends.builder import Builder
from microtune.ir import Graph, verify
from microtune.ops.evaluate import evaluate

from .random_images import _quantization, layer, random_images
from .random_plans import seeds


def fused(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes if node.op == "bottleneck_int8"]


def two_blocks(residual: bool = False) -> Graph:
    r = np.random.default_rng(0)
    builder = Builder("net")
    x = builder.input("x", (16, 16, 4), "int8", _quantization(r))
    for _ in range(2):
        wide = layer(builder, r, x, "conv2d_int8", 24, 1, 1)
        y = layer(builder, r, wide, "depthwise_conv2d_int8", 24, 3, 1)
        x = layer(builder, r, y, "conv2d_int8", 4, 1, 1)
        if residual:
            x = layer(builder, r, wide, "conv2d_int8", 4, 1, 1)
    return verify(builder.finish(x, "test"))


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_same_bits_and_no_higher_peak(seed: int) -> None:
    r = np.random.default_rng(seed)
    graph = random_images(r)
    for placed in ((), graph.inputs):
        rows = verify(reorder(fuse_rows(graph, placed), placed), "fusing rows")
        before = peak_bytes(reorder(graph, placed), placed)
        after = peak_bytes(rows, placed)
        assert after < before if fused(rows) else after == before
    x = r.integers(-128, 128, graph.tensor("x").shape).astype(np.int8)
    for name, want in evaluate(graph, {"x": x}).items():
        assert np.array_equal(evaluate(rows, {"x": x})[name], want)


def test_both_of_two_equal_bottlenecks_are_fused() -> None:
    graph = two_blocks()
    rows = fuse_rows(graph)
    assert len(fused(rows)) == 2 and len(rows.nodes) == 2
    # input and output of the first live in the arena or outside it; three rows of the middle and one beside
    assert peak_bytes(reorder(rows)) == 16 * 16 * 4 + 4 * 16 * 24


def test_a_peak_that_is_low_enough_is_left_alone() -> None:
    graph = two_blocks()
    assert fused(fuse_rows(graph, enough=peak_bytes(reorder(graph)))) == []


def test_a_middle_that_someone_else_reads_is_kept() -> None:
    graph = two_blocks(residual=True)
    middle = {name for node in graph.nodes if node.op == "depthwise_conv2d_int8" for name in node.inputs}
    rows = fuse_rows(graph)
    assert middle & set(graph.tensors) <= set(rows.tensors) | {"x"}


@pytest.mark.parametrize("index", [1, 2])
def test_an_output_of_the_graph_is_kept(index: int) -> None:
    graph = two_blocks()
    middle = graph.nodes[index - 1].output
    kept = Graph(graph.name, graph.tensors, graph.nodes, graph.inputs, (*graph.outputs, middle))
    assert middle in fuse_rows(kept).tensors
