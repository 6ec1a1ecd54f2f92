"""A joined net computes the head on the backbone's features: in numpy on random nets, and in C on the keyword net."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import microtune as mt
from microtune.errors import ModelError
from microtune.frontends.builder import Builder
from microtune.ir import Graph, Tensor, verify
from microtune.ops.evaluate import evaluate

KEYWORD_NET = Path(__file__).parents[3] / "shared" / "data" / "models" / "mlperf_tiny" / "kws_ref_model.tflite"


def chain(widths: list[int], seed: int, name: str = "net", image: bool = False) -> Graph:
    """Dense layers with ReLU between them; ``image``: a 1 x 1 convolution on (2, 3, widths[0]) in front."""
    r = np.random.default_rng(seed)
    builder = Builder(name)
    value = builder.input("x", (2, 3, widths[0]) if image else (widths[0],))
    if image:
        kernel = builder.constant("kernel", r.normal(size=(widths[1], 1, 1, widths[0])), "test")
        geometry = {"stride": (1, 1), "padding": ((0, 0), (0, 0))}
        value = builder.emit("conv2d", (value, kernel), "image", "test", "conv", **geometry)
        value = builder.emit("global_average", (value,), "average", "test")
        widths = widths[1:]
    for before, after in pairwise(widths):
        weight = builder.constant("weight", r.normal(size=(after, before)), "test")
        bias = builder.constant("bias", r.normal(size=after), "test")
        value = builder.emit("dense", (value, weight, bias), "sum", "test", "layer")
        value = builder.emit("relu", (value,), "out", "test", "bend")
    return builder.finish(value, "test")


def value(graph: Graph, x: np.ndarray) -> np.ndarray:
    return evaluate(graph, {graph.inputs[0]: x})[graph.outputs[0]]


widths = st.lists(st.integers(1, 6), min_size=3, max_size=5)


@settings(deadline=None, max_examples=60)
@given(net=widths, head=widths, drop=st.integers(0, 3), image=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_is_the_head_on_the_features(net: list[int], head: list[int], drop: int, image: bool, seed: int) -> None:
    drop = min(drop, len(net) - 2)
    kept = net[: len(net) - drop]
    backbone, top = chain(net, seed, image=image), chain([kept[-1], *head], seed + 1)
    joined = verify(mt.join(backbone, top, drop))
    x = np.random.default_rng(seed).normal(size=(4, *backbone.tensor("x").shape)).astype(np.float32)
    middle = value(mt.features(backbone, drop), x)
    np.testing.assert_array_equal(value(joined, x), value(top, middle))
    # nothing is lost and nothing is left over: the nets share all their names, and each weight stands once
    assert len(joined.nodes) == len(mt.features(backbone, drop).nodes) + len(top.nodes)
    assert len({node.name for node in joined.nodes}) == len(joined.nodes)
    assert len(joined.constants) == len(mt.features(backbone, drop).constants) + len(top.constants)
    # the features are those of the net cut short by hand: the same seed draws the same first weights
    np.testing.assert_array_equal(middle, value(chain(kept, seed, image=image), x))


def test_dropped_layers_take_with_them_what_follows() -> None:
    backbone = chain([3, 4, 5, 6], 0)
    assert [node.op for node in mt.features(backbone, 2).nodes] == ["dense", "relu"]
    assert mt.features(backbone, 0).outputs == backbone.outputs
    assert mt.join(backbone, chain([5, 2, 2], 1, "other")).name == "net"


def test_names_are_distinct_also_from_numbered_ones() -> None:
    """The head's own 'weight_2' keeps its name; what makes room for it does not take it."""
    joined = mt.join(chain([3, 4, 4, 4], 0), chain([4, 4, 4], 1))
    assert len(set(joined.tensors)) == len(joined.tensors)
    plain = mt.join(chain([3, 4, 4], 0), with_one_layer())
    assert {"w", "b", "y"} <= set(plain.tensors)  # free names stay


def with_one_layer() -> Graph:
    builder = Builder("head")
    x = builder.input("x", (4,))
    w, b = (builder.constant(name, np.ones(shape), "test") for name, shape in (("w", (2, 4)), ("b", (2,))))
    return builder.finish(builder.emit("dense", (x, w, b), "y", "test"), "test")


def test_a_head_of_another_shape_gets_its_own() -> None:
    """Six features as the image (1, 3, 2) that a head reads."""
    builder = Builder("head")
    x = builder.input("x", (1, 3, 2))
    window = {"kernel": (1, 3), "stride": (1, 1), "padding": ((0, 0), (0, 0)), "include_padding": False}
    mean = builder.emit("average_pool2d", (x,), "mean", "test", **window)
    head = builder.finish(builder.reshape(mean, (2,), "flat", "test"), "test")
    given_ = np.arange(3, dtype=np.float32)
    backbone = chain([3, 6, 1], 0)
    found = value(mt.join(backbone, head), given_)
    np.testing.assert_allclose(found, value(mt.features(backbone), given_).reshape(3, 2).mean(axis=0), rtol=1e-6)


def branched(residual: bool) -> Graph:
    """Two layers side by side: y = c(a(x) + b(x)), or with ``residual`` y = b(a(x)) + a(x)."""
    r = np.random.default_rng(0)
    builder = Builder("branched")

    def dense(x: Tensor, name: str) -> Tensor:
        return builder.emit("dense", (x, builder.constant("w", r.normal(size=(3, 3)), "test")), name, "test", name)

    x = builder.input("x", (3,))
    a = dense(x, "a")
    b = dense(a if residual else x, "b")
    total = builder.emit("add", (a, b), "total", "test")
    return builder.finish(total if residual else dense(total, "c"), "test")


def test_branches_are_kept_or_refused() -> None:
    assert [node.name for node in mt.features(branched(residual=True)).nodes] == ["a"]
    assert [node.name for node in mt.features(branched(residual=False)).nodes] == ["a", "b", "total"]
    with pytest.raises(ModelError, match=r"branches: what 'b' reads does not depend on 'a', which would be lost"):
        mt.features(branched(residual=False), 2)


def test_errors_name_the_sizes() -> None:
    backbone = chain([3, 4, 5], 0)
    with pytest.raises(ModelError, match=r"join\(drop=1\): 'net' then ends in 4 values, 'out'; the head 'net' takes 7"):
        mt.join(backbone, chain([7, 2, 2], 0))
    for drop in (-1, 2):
        with pytest.raises(ModelError, match=rf"drop={drop}: 'net' has 2 layers with weights, so that drop is 0 to 1"):
            mt.join(backbone, chain([4, 2, 2], 0), drop)
    with pytest.raises(ModelError, match="the head 'net' has 1 inputs and 0 outputs; one of each is needed"):
        mt.join(backbone, replace(chain([4, 2, 2], 0), outputs=()))


def test_features_are_a_vector() -> None:
    image = chain([3, 4, 5, 6], 0, image=True)
    assert mt.features(image, 2).tensor(mt.features(image, 2).outputs[0]).shape == (4,)
    builder = Builder("net")
    x = builder.input("x", (2, 3, 1))
    kernel = builder.constant("k", np.ones((4, 1, 1, 1)), "test")
    given_ = {"stride": (1, 1), "padding": ((0, 0), (0, 0))}
    net = builder.finish(builder.emit("conv2d", (x, kernel), "y", "test", **given_), "test")
    found = value(mt.features(net, 0), np.arange(6, dtype=np.float32).reshape(2, 3, 1))
    np.testing.assert_array_equal(found, np.repeat(np.arange(6), 4))


needs_net = pytest.mark.skipif(not KEYWORD_NET.exists(), reason="needs ../shared/data")


@needs_net
def test_an_int8_head_reads_int8_features() -> None:
    net = mt.load(str(KEYWORD_NET))
    r = np.random.default_rng(3)
    x = r.integers(-128, 128, (40, *net.tensor(net.inputs[0]).shape)).astype(np.int8)
    read = value(mt.features(net), x)
    head = mt.quantize(chain([read.shape[-1], 8, 3], 5), calibration=read)
    joined = mt.join(net, head)
    assert all(tensor.dtype != "float32" for tensor in joined.tensors.values() if not tensor.is_constant)
    q = head.tensor(head.inputs[0]).quantization
    assert q is not None
    stored = np.clip(np.round(read / q.scale) + q.zero_point, -128, 127).astype(np.int8)
    # in fixed point a value half way between two steps may round the other way
    moved = value(mt.join(net, replace(head, outputs=head.inputs).with_nodes(())), x)
    halfway = np.abs((read / q.scale) % 1 - 0.5) < 1e-4
    np.testing.assert_array_equal(moved[~halfway], stored[~halfway])
    np.testing.assert_array_equal(value(joined, x), value(head, moved))


@needs_net
def test_an_int8_head_behind_floats_is_quantised_in_between() -> None:
    net = chain([4, 5, 6], 1)
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    head = mt.quantize(chain([5, 3], 2), calibration=value(mt.features(net), x))
    joined = mt.join(net, head)
    assert "quantize" in [node.op for node in joined.nodes]
    assert np.abs(value(joined, x).astype(int)).max() > 0


@needs_net
def test_the_keyword_net_stays_int8_up_to_its_features_in_c(tmp_path: Path) -> None:
    """Backbone, head and joined net compiled on their own: the same bits; the device that learns, too."""
    net, head = mt.load(str(KEYWORD_NET)), chain([64, 8, 3], 5)
    joined = mt.join(net, head)
    kinds = [node.op for node in joined.nodes]
    assert kinds[kinds.index("dequantize") :] == ["dequantize", "dense", "relu", "dense", "relu"]
    assert all("int8" in kind or kind == "reshape" for kind in kinds[: kinds.index("dequantize")])
    sound = np.random.default_rng(0).normal(0, 20, (3, 49, 10, 1)).astype(np.float32)
    middle = mt.compile_inference(mt.features(net), tmp_path / "ear").run(sound)
    assert middle.shape == (3, 64) and middle.dtype == np.float32 and np.ptp(middle) > 0
    wanted = mt.compile_inference(head, tmp_path / "top").run(middle)
    np.testing.assert_array_equal(mt.compile_inference(joined, tmp_path / "whole").run(sound), wanted)
    plan = mt.plan(joined, mt.Head(2), learner=mt.Learner(buffer=5))
    assert [tensor.shape for tensor in plan.programs.cut] == [(64,)]
    assert {tensor.shape for tensor in plan.programs.trained} == {(8, 64), (8,), (3, 8), (3,)}
    device = mt.Device(mt.build(plan, tmp_path / "ears"))
    np.testing.assert_array_equal([device.predict(each).value for each in sound], wanted)
