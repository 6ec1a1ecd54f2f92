"""The cut: what is kept of a sample is as small as little work in the head makes it, and nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np

import microtune as mt
from microtune.compiler.passes.autodiff import dependents
from microtune.compiler.passes.cut import choose_cut, crossing, work
from microtune.compiler.program import split
from microtune.frontends.builder import Builder
from microtune.ir import Graph
from microtune.ops.evaluate import evaluate


def widening() -> Graph:
    """A small image, blown up by a frozen layer just before the one that learns."""
    random = np.random.default_rng(0)
    b = Builder("widening")
    plain = {"stride": (1, 1), "padding": ((0, 0), (0, 0))}
    x = b.input("image", (6, 6, 2))
    weights = {
        name: b.constant(f"{name}.weight", random.normal(size=shape), "")
        for name, shape in (("first", (4, 5, 5, 2)), ("wide", (32, 1, 1, 4)), ("last", (8, 1, 1, 32)))
    }
    first = b.emit("conv2d", (x, weights["first"]), "first", "", stride=(1, 1), padding=((2, 2), (2, 2)))
    wide = b.emit("conv2d", (first, weights["wide"]), "wide", "", **plain)
    last = b.emit("conv2d", (wide, weights["last"]), "last", "", **plain)
    mean = b.emit("global_average", (last,), "mean", "")
    y = b.emit("dense", (mean, b.constant("head.weight", random.normal(size=(3, 8)), "")), "y", "")
    return b.finish(y, "test")


def test_a_frozen_layer_that_widens_the_cut_moves_behind_it() -> None:
    graph = widening()
    backbone, head = split(graph, ["last.weight", "head.weight"])
    # 'wide' makes 6 * 6 * 32 numbers of 6 * 6 * 4 and costs half of what 'last' does
    assert head.inputs == ("first",)
    assert [node.name for node in head.nodes] == ["wide", "last", "mean", "y"]
    assert [node.name for node in backbone.nodes] == ["first"]


def test_costly_layers_stay_before_the_cut() -> None:
    graph = widening()
    backbone, head = split(graph, ["head.weight"])
    # nothing is smaller than the eight means
    assert head.inputs == ("mean",) and len(backbone.nodes) == 4
    front, tail = choose_cut(graph, dependents(graph, ["last.weight"]))
    moved = [node for node in tail if node.name in ("wide", "first")]
    learning = sum(work(graph, node) for node in tail if node not in moved)
    assert sum(work(graph, node) for node in moved) <= learning
    assert crossing(graph, front, tail) == ("first",)


def test_the_parts_compute_what_the_whole_does() -> None:
    graph = widening()
    x = np.random.default_rng(1).normal(size=(6, 6, 2))
    whole = evaluate(graph, {"image": x}, np.float64)["y"]
    for trained in (["head.weight"], ["last.weight"], ["wide.weight"], ["first.weight"]):
        backbone, head = split(graph, trained)
        kept: dict[str, Any] = evaluate(backbone, {"image": x}, np.float64) if backbone.nodes else {"image": x}
        np.testing.assert_array_equal(evaluate(head, kept, np.float64)["y"], whole)


def test_int8_crosses_as_int8() -> None:
    graph = widening()
    images = np.random.default_rng(2).normal(size=(16, 6, 6, 2)).astype(np.float32)
    stored = mt.quantize(graph, images)
    plan = mt.plan(stored, mt.Head(1), "cross_entropy")
    assert [tensor.dtype for tensor in plan.programs.cut] == ["int8"]
    assert sum(tensor.bytes for tensor in plan.programs.cut) == 8
