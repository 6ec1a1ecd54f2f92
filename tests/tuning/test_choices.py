"""How many numbers learn, and what is refused with a sentence."""

from __future__ import annotations

import re

import numpy as np
import pytest

import microtune as mt
from microtune.errors import ModelError, PlanError
from microtune.frontends.builder import Builder
from microtune.ir import Graph
from microtune.ops.evaluate import evaluate
from microtune.tuning.schemes import Scheme
from microtune.tuning.selection import select


def small_net(bias: bool = True) -> Graph:
    """(4, 4, 3) > convolution 5 > depthwise 5 > mean > dense 6 > dense 2."""
    r = np.random.default_rng(0)
    builder = Builder("small")

    def layer(x: object, op: str, shape: tuple[int, ...], outputs: int, **given: object) -> object:
        weight = builder.constant("w", r.normal(size=shape) / 4, "test")
        extra = [builder.constant("b", r.normal(size=outputs), "test")] if bias else []
        return builder.emit(op, [x, weight, *extra], op, "test", **given)

    same = {"stride": (1, 1), "padding": ((1, 1), (1, 1))}
    x = builder.input("x", (4, 4, 3))
    x = builder.emit("relu", [layer(x, "conv2d", (5, 3, 3, 3), 5, **same)], "relu", "test")
    x = builder.emit("relu", [layer(x, "depthwise_conv2d", (3, 3, 5), 5, **same)], "relu", "test")
    x = builder.emit("global_average", [x], "mean", "test")
    x = builder.emit("relu", [layer(x, "dense", (6, 5), 6)], "relu", "test")
    return builder.finish(layer(x, "dense", (2, 6), 2), "test")


def int8_net() -> Graph:
    r = np.random.default_rng(1)
    return mt.quantize(small_net(), r.normal(size=(20, 4, 4, 3)).astype(np.float32))


WEIGHTS, BIASES = (5 * 27, 9 * 5, 6 * 5, 2 * 6), (5, 5, 6, 2)
COUNTS: list[tuple[Scheme, int]] = [
    (mt.Full(), sum(WEIGHTS) + sum(BIASES)),
    (mt.Head(), 12 + 2),
    (mt.Head(3), sum(WEIGHTS[1:]) + sum(BIASES[1:])),
    (mt.Bias(), sum(BIASES)),
    (mt.NormAffine(), 2 * (5 + 5)),
    (mt.Adapter(3), 2 * 3 * 5 + 2 * 3 * 6),
    (mt.Adapter(3, layers=1), 2 * 3 * 6),
    (mt.LoRA(1), (27 + 5) + (5 + 6) + (6 + 2)),
    (mt.LoRA(1, layers=2), (5 + 6) + (6 + 2)),
    (mt.Sparse({0: 0.5}), 5 * 9 * 2),
    (mt.Sparse({"dense": slice(1, 4), "depthwise_conv2d": 1.0}), 6 * 3 + 45),
    (mt.Sparse({3: 1.0}, biases_from=2), 12 + 6 + 2),
    (mt.Sparse({}, biases_from="depthwise_conv2d"), 5 + 6 + 2),
]


@pytest.mark.parametrize(("scheme", "count"), COUNTS, ids=lambda each: str(each))
def test_as_many_numbers_learn_as_the_scheme_says(scheme: Scheme, count: int) -> None:
    for graph in (small_net(), int8_net()):
        selection = select(graph, scheme)
        assert sum(selection.graph.tensor(name).size for name in selection.trained) == count


def test_layers_without_a_bias_are_given_one() -> None:
    graph = small_net(bias=False)
    selection = select(graph, mt.Bias())
    assert [selection.graph.tensor(name).size for name in selection.trained] == list(BIASES)
    x = np.random.default_rng(2).normal(size=(4, 4, 3)).astype(np.float32)
    have, want = (evaluate(each, {"x": x})[each.outputs[0]] for each in (selection.graph, graph))
    assert np.array_equal(have, want)


def dense_net() -> Graph:
    builder = Builder("dense")
    x = builder.input("x", (4,))
    weight = builder.constant("w", np.ones((3, 4)), "test")
    return builder.finish(builder.emit("dense", [x, weight], "y", "test"), "test")


IMAGES = np.random.default_rng(3).normal(size=(10, 4, 4, 3)).astype(np.float32)
REFUSED = {
    "no convolution": (lambda: mt.plan(dense_net(), mt.NormAffine()), "has no layer that it applies to"),
    "nothing chosen": (lambda: mt.plan(small_net(), mt.Sparse({})), "no tensor and no bias is chosen"),
    "a part of nothing": (lambda: mt.plan(small_net(), mt.Sparse({0: 0.0})), "nothing would learn"),
    "more than all": (lambda: mt.plan(small_net(), mt.Sparse({0: 1.5})), "must be 0 to 1"),
    "no range": (lambda: mt.plan(small_net(), mt.Sparse({0: slice(2, 2)})), "is no range within its 3"),
    "no range of outputs": (lambda: mt.plan(small_net(), mt.Sparse({0: mt.Outputs(1.5)})), "must be 0 to 1"),
    "no such name": (lambda: mt.plan(small_net(), mt.Sparse({"c": 1.0})), "Its layers: 0 conv2d, 1 depthwise_conv2d"),
    "no such number": (lambda: mt.plan(small_net(), mt.Sparse({9: 1.0})), "has the layers 0 to 3"),
    "biases": (lambda: mt.plan(small_net(), mt.Sparse({}, biases_from=5)), "has 4 layers"),
    "layers": (lambda: mt.plan(small_net(), mt.LoRA(1, layers=4)), "has 3 such layers; use 1 to 3"),
    "width": (lambda: mt.plan(small_net(), mt.Adapter(0)), "width must be 1 to 1024"),
    "rank": (lambda: mt.plan(small_net(), mt.LoRA(9)), "the rank must be below"),
    "floats in mixed": (lambda: mt.plan(int8_net(), mt.LoRA(1), precision="mixed"), "use precision='float32'"),
    "momentum in mixed": (
        lambda: mt.plan(int8_net(), mt.Head(), optimizer=mt.SGD(0.1, momentum=0.9), precision="mixed"),
        "integers learn by SGD without momentum",
    ),
    "Adam in mixed": (
        lambda: mt.plan(int8_net(), mt.Head(), optimizer=mt.Adam(), precision="mixed"),
        "integers learn by SGD without momentum",
    ),
    "RLS in mixed": (lambda: mt.plan(int8_net(), mt.Head(), optimizer=mt.RLS(), precision="mixed"), "RLS"),
    "MAP in mixed": (
        lambda: mt.plan(int8_net(), mt.Head(), "cross_entropy", mt.MAP(), precision="mixed", calibration=IMAGES),
        "MAP learns the last dense layer",
    ),
    "MAP on two layers": (
        lambda: mt.plan(small_net(), mt.Head(2), "cross_entropy", mt.MAP(), calibration=IMAGES),
        "use it with learn=Head(1), loss='cross_entropy'",
    ),
    "Logistic on classes": (
        lambda: mt.plan(small_net(), loss="cross_entropy", optimizer=mt.Logistic()),
        "on binary_cross_entropy: use it with learn=Head(1), loss='binary_cross_entropy'",
    ),
    "MAP without samples": (
        lambda: mt.plan(small_net(), loss="cross_entropy", optimizer=mt.MAP()),
        "MAP() begins with the factory's samples as its prior: pass plan(..., calibration=x)",
    ),
    "SLDA without samples": (
        lambda: mt.plan(small_net(), loss="cross_entropy", optimizer=mt.SLDA()),
        "SLDA() begins with the factory's mean of each class: pass plan(..., calibration=(x, y))",
    ),
    "samples of another shape": (
        lambda: mt.plan(small_net(), calibration=np.zeros((5, 4, 4))),
        "calibration has the shape (5, 4, 4); (samples, 4, 4, 3) is needed",
    ),
    "no samples": (lambda: mt.plan(small_net(), calibration=np.zeros((0, 4, 4, 3))), "(samples, 4, 4, 3) is needed"),
    "samples that are no numbers": (
        lambda: mt.plan(small_net(), calibration=np.full((2, 4, 4, 3), np.nan)), "no finite numbers"
    ),
    "fewer labels than samples": (
        lambda: mt.plan(small_net(), loss="cross_entropy", calibration=(IMAGES, [0, 1])), "10 samples and 2 labels"
    ),
    "a label that is none": (
        lambda: mt.plan(small_net(), loss="cross_entropy", calibration=(IMAGES, [2] * 10)), "class indices 0 to 1"
    ),
    "targets of another shape": (
        lambda: mt.plan(small_net(), calibration=(IMAGES, np.zeros((10, 3)))), "(10, 2) finite numbers are needed"
    ),
    "no worth": (lambda: mt.MAP(worth=0), "worth must be above 0"),
    "no ridge": (lambda: mt.MAP(ridge=0), "ridge must be above 0"),
    "too much shrinkage": (lambda: mt.SLDA(shrinkage=1.5), "shrinkage must be above 0 and at most 1"),
    "a short memory": (lambda: mt.SLDA(worth=4, memory=3), "memory must be 0 or at least 1"),
    "no worth of a prior": (lambda: mt.Logistic(worth=0), "worth must be above 0"),
    "an endless ridge": (lambda: mt.Logistic(ridge=float("inf")), "ridge must be above 0 and finite"),
    "a wild walk": (lambda: mt.Logistic(walk=1.0), "walk must be in 0 to 1"),
    "Bayes over int8": (lambda: mt.plan(int8_net(), optimizer=mt.Bayes()), "Bayes()"),
    "Bayes behind an int8 net": (
        lambda: mt.plan(mt.replace_head(int8_net(), 1), optimizer=mt.Bayes()),
        "takes them as int8",
    ),
    "pull in mixed": (
        lambda: mt.plan(int8_net(), mt.Head(), learner=mt.Learner(pull=0.1), precision="mixed"),
        "integers are not pulled",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_with_a_sentence(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises((PlanError, ModelError), match=re.escape(message)):
        make()


def test_closed_form_heads_learn_behind_an_int8_net() -> None:
    """In float32 the head is a float layer behind dequantize. The factory's samples run through the int8 net."""
    for graph in (int8_net(), mt.replace_head(int8_net(), 2)):
        for loss, head in (("mse", mt.RLS()), ("cross_entropy", mt.MAP()), ("cross_entropy", mt.SLDA())):
            made = mt.plan(graph, mt.Head(), loss, head, calibration=IMAGES)
            assert made.programs.step is not None
            assert any(node.op == head.rule for node in made.programs.step.graph.nodes)


@pytest.mark.parametrize("stored", [False, True], ids=["float", "int8"])
def test_a_new_head_replaces_the_last_layer(stored: bool) -> None:
    graph = int8_net() if stored else small_net()
    joined = mt.replace_head(graph, 7, seed=3)
    assert joined.tensor(joined.outputs[0]).shape == (7,)
    made = mt.plan(joined, mt.Head(1), "cross_entropy")
    assert sum(tensor.size for tensor in made.programs.trained) == 7 * 6 + 7
    again = mt.replace_head(graph, 7, seed=3)
    weight = [node.inputs[1] for node in joined.nodes if node.op == "dense"][-1]
    assert np.array_equal(joined.tensor(weight).data, again.tensor(weight).data)
    other = mt.replace_head(graph, 7, seed=4)
    assert not np.array_equal(joined.tensor(weight).data, other.tensor(weight).data)
    with pytest.raises(ModelError, match="classes"):
        mt.replace_head(graph, 0)
