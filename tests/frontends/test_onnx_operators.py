"""Every ONNX operator of images and sequences against onnxruntime, over shapes, strides, paddings and odd sizes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from microtune.errors import ModelError
from microtune.frontends import load
from microtune.frontends.onnx import from_onnx
from microtune.frontends.onnx_layout import arrange, channels_last, plain
from microtune.ops.evaluate import evaluate

from .onnx_models import Arrays, model_of, node, normal, runtime

Bound = Callable[..., np.ndarray]
SETTINGS = settings(max_examples=60, deadline=None)


def assert_same(model: onnx.ModelProto, error_bound: Bound, x: np.ndarray) -> list[str]:
    """Unfolded and folded, with the shape that the model gives. The operators of the folded graph."""
    expected = runtime(model, x)
    unfolded, folded = from_onnx(model), load(model)
    for row, want in zip(x.astype(np.float32), expected, strict=True):
        bound = error_bound(unfolded, row)
        for graph in (unfolded, folded):
            got = evaluate(graph, {graph.inputs[0]: row}, np.float64)[graph.outputs[0]]
            assert got.shape == want.shape, (graph.tensor(graph.outputs[0]), want.shape)
            assert (np.abs(want - got) <= bound + 1e-30).all(), (np.abs(want - got).max(), bound.max())
    assert folded.outputs == ("y",)
    return [item.op for item in folded.nodes]


@st.composite
def windows(draw: st.DrawFn, rank: int, sizes: tuple[int, ...], is_pool: bool) -> dict[str, Any]:
    """Attributes of a convolution or pool that fits an image of these sizes."""
    kernel = [draw(st.integers(1, 4)) for _ in range(rank)]
    found: dict[str, Any] = {"kernel_shape": kernel}
    if draw(st.booleans()):
        found["strides"] = [draw(st.integers(1, 3)) for _ in range(rank)]
    mode = draw(st.sampled_from(["NOTSET", "pads", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if mode == "pads":
        # beyond the window too, which a convolution may have
        most = [taps - 1 if is_pool else taps + 1 for taps in kernel]
        found["pads"] = [draw(st.integers(0, most[i % rank])) for i in range(2 * rank)]
    elif mode != "NOTSET":
        found["auto_pad"] = mode
        if is_pool:  # onnxruntime makes negative paddings of strides that skip elements, and refuses them
            found["strides"] = [
                min(step, taps) for step, taps in zip(found.get("strides", kernel), kernel, strict=True)
            ]
    pads = found.get("pads", [0] * 2 * rank)
    if not mode.startswith("SAME"):
        for i in range(rank):
            kernel[i] = min(kernel[i], sizes[i] + pads[i] + pads[rank + i])
            if is_pool:
                for side in (i, rank + i):
                    if "pads" in found:
                        found["pads"][side] = min(pads[side], kernel[i] - 1)
    return found


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    rank = draw(st.sampled_from([1, 2]))
    sizes = tuple(draw(st.integers(1, 9)) for _ in range(rank))
    channels = draw(st.integers(1, 5))
    is_depthwise = draw(st.booleans())
    outputs = channels * draw(st.integers(1, 3)) if is_depthwise else draw(st.integers(1, 5))
    attributes = draw(windows(rank, sizes, False))
    if is_depthwise:
        attributes["group"] = channels
    weights = {"w": normal(outputs, 1 if is_depthwise else channels, *attributes["kernel_shape"], seed=channels)}
    names = ["x", "w"]
    if draw(st.booleans()):
        weights["b"] = normal(outputs, seed=outputs)
        names.append("b")
    nodes = [node("Conv", *names, output="c", **attributes)]
    last = draw(st.sampled_from(["none", "norm", "scale", "relu"]))
    if last == "norm":
        # of opposite signs, so that shift - mean * factor, which both compute, does not cancel
        mean = normal(outputs, seed=3)
        weights |= {"s": np.abs(normal(outputs)) + 0.1, "m": mean, "h": -mean}
        nodes.append(node("BatchNormalization", "c", "s", "h", "m", "s"))
    elif last == "scale":
        weights["f"] = normal(outputs, *[1] * rank)
        nodes.append(node("Mul", "c", "f"))
    else:
        nodes.append(node("Relu" if last == "relu" else "Identity", "c"))
    batch = draw(st.sampled_from([1, "N"]))
    return model_of(nodes, weights, (batch, channels, *sizes)), (1 if batch == 1 else 2, channels, *sizes)


@SETTINGS
@given(convolutions(), st.integers(0, 2**32 - 1))
def test_convolutions(error_bound: Bound, case: tuple[onnx.ModelProto, tuple[int, ...]], seed: int) -> None:
    model, shape = case
    ops = assert_same(model, error_bound, normal(*shape, seed=seed))
    assert sum(op.endswith("conv2d") for op in ops) == 1
    assert not {"channel_affine", "multiply", "add"} & set(ops), "norms and scales behind a convolution are folded"


@SETTINGS
@given(st.data(), st.sampled_from(["AveragePool", "MaxPool"]), st.integers(0, 2**32 - 1))
def test_pools(error_bound: Bound, data: st.DataObject, op: str, seed: int) -> None:
    rank = data.draw(st.sampled_from([1, 2]))
    sizes = tuple(data.draw(st.integers(1, 9)) for _ in range(rank))
    attributes = data.draw(windows(rank, sizes, True))
    is_rounded_up = data.draw(st.booleans()) and "auto_pad" not in attributes
    if is_rounded_up:
        attributes["ceil_mode"] = 1
    elif op == "AveragePool":
        attributes["count_include_pad"] = data.draw(st.integers(0, 1))
    shape = (2, data.draw(st.integers(1, 4)), *sizes)
    assert_same(model_of([node(op, "x", **attributes)], {}, shape), error_bound, normal(*shape, seed=seed))


@SETTINGS
@given(
    st.lists(st.integers(1, 5), min_size=2, max_size=4),
    st.sampled_from(["GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "attribute"]),
    st.data(),
)
def test_global_pools_and_means(error_bound: Bound, sizes: list[int], op: str, data: st.DataObject) -> None:
    shape = (2, *sizes)
    if op.startswith("Global"):
        sizes, shape = sizes[:3], (2, *sizes[:3])
        model = model_of([node("Relu", "x", output="r"), node(op, "r")], {}, shape)
    else:
        axes = data.draw(st.lists(st.integers(1, len(sizes)), min_size=1, unique=True))
        keep = {"keepdims": data.draw(st.integers(0, 1))}
        if op == "ReduceMean":
            nodes = [node("Relu", "x", output="r"), node(op, "r", "a", **keep)]
            model = model_of(nodes, {"a": np.array(axes)}, shape)
        else:
            nodes = [node("Relu", "x", output="r"), node("ReduceMean", "r", axes=axes, **keep)]
            model = model_of(nodes, {}, shape, opset=17)
        if not keep["keepdims"] and len(axes) == len(sizes):
            return  # a number per sample: the graph has a vector of one
    assert_same(model, error_bound, normal(*shape, seed=len(sizes)))


@st.composite
def tangles(draw: st.DrawFn) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """Moves of all kinds around a convolution, so that every order of memory meets every operator."""
    rank = draw(st.integers(2, 3))
    shape = [draw(st.integers(1, 4)) for _ in range(rank)]
    start = tuple(shape)
    weights: Arrays = {}
    nodes: list[onnx.NodeProto] = []
    current = "x"

    def step(op: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(node(op, *inputs, output=f"t{len(nodes)}", **attributes))
        return f"t{len(nodes) - 1}"

    def constant(values: Any, kind: Any = np.int64) -> str:
        weights[name := f"k{len(weights)}"] = np.array(values, kind)
        return name

    kinds = ["conv", "transpose", "merge", "split", "slice", "concat", "pad", "skip", "channel", "full", "one",
             "gate", "mean", "index", "activation"]  # fmt: skip
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=7)):
        rank, axis = len(shape), draw(st.integers(0, len(shape) - 1))
        if kind == "conv" and rank in (2, 3):
            outputs = draw(st.integers(1, 4))
            weight = constant(normal(outputs, shape[0], *[1] * (rank - 1), seed=len(nodes)), np.float32)
            current, shape = step("Conv", current, weight), [outputs, *shape[1:]]
        elif kind == "transpose":
            order = draw(st.permutations(range(rank)))
            current = step("Transpose", current, perm=[0, *(i + 1 for i in order)])
            shape = [shape[i] for i in order]
        elif kind == "merge" and axis + 1 < rank:
            shape[axis : axis + 2] = [shape[axis] * shape[axis + 1]]
            current = step("Reshape", current, constant([0, *shape]))
        elif kind == "split" and rank < 4:
            parts = next((n for n in (2, 3) if shape[axis] % n == 0), 1)
            shape[axis : axis + 1] = [parts, shape[axis] // parts]
            current = step("Reshape", current, constant([-1, *shape]))
        elif kind == "slice":
            stop = draw(st.integers(1, shape[axis]))
            first = draw(st.integers(0, stop - 1))
            current = step("Slice", current, constant([first]), constant([stop]), constant([axis + 1]))
            shape[axis] = stop - first
        elif kind == "concat":
            other = step("Neg", current)
            if draw(st.booleans()):  # one of the two is kept another way
                order = [0, *range(2, rank + 1), 1]
                other = step("Transpose", step("Relu", step("Transpose", other, perm=order)),
                             perm=[order.index(i) for i in range(rank + 1)])  # fmt: skip
            current = step("Concat", current, other, axis=draw(st.sampled_from([axis + 1, axis - rank])))
            shape[axis] *= 2
        elif kind == "pad":
            pads = [0] * (2 * rank + 2)
            pads[axis + 1], pads[axis + rank + 2] = 1, 2
            current, shape[axis] = step("Pad", current, constant(pads), constant(0.5, np.float32)), shape[axis] + 3
        elif kind == "skip":
            current = step(draw(st.sampled_from(["Add", "Mul", "Sub"])), current, step("Tanh", current))
        elif kind in ("channel", "full", "one"):
            sizes = [size if kind == "full" or (kind == "channel" and i == axis) else 1 for i, size in enumerate(shape)]
            values = np.abs(normal(1, *sizes, seed=len(nodes))) + 0.5
            name = constant(values, np.float32)
            current = step(draw(st.sampled_from(["Add", "Mul", "Sub", "Div"])), current, name)
        elif kind == "gate" and shape[axis] > 1 and rank > 1:
            axes = constant([i + 1 for i in range(rank) if i != axis])
            current = step("Mul", current, step("Sigmoid", step("ReduceMean", current, axes)))
        elif kind == "mean" and rank > 1:
            current = step("ReduceMean", current, constant([axis + 1]), keepdims=0)
            del shape[axis]
        elif kind == "index" and rank > 1:
            current = step("Gather", current, constant(shape[axis] - 1), axis=axis + 1)
            del shape[axis]
        elif kind == "activation":
            op, given = draw(st.sampled_from([
                ("HardSwish", {}), ("HardSigmoid", {}), ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.4}),
                ("LeakyRelu", {"alpha": 0.1}), ("Sigmoid", {}), ("Tanh", {}), ("Relu", {}), ("clamp", {}),
            ]))  # fmt: skip
            limits = (constant(-0.7, np.float32), constant(0.9, np.float32))
            current = step("Clip", current, *limits) if op == "clamp" else step(op, current, **given)
    nodes.append(node("Relu", current))
    return model_of(nodes, weights, (draw(st.sampled_from([2, "N"])), *start)), (2, *start)


@settings(max_examples=300, deadline=None)
@given(tangles(), st.integers(0, 2**32 - 1))
def test_moves_of_all_kinds(error_bound: Bound, case: tuple[onnx.ModelProto, tuple[int, ...]], seed: int) -> None:
    model, shape = case
    assert_same(model, error_bound, normal(*shape, seed=seed))


@given(st.lists(st.integers(1, 4), max_size=4).flatmap(lambda s: st.tuples(st.just(s), st.permutations(range(len(s))))))
def test_an_arrangement_knows_where_elements_lie(case: tuple[list[int], list[int]]) -> None:
    shape, order = tuple(case[0]), case[1]
    values = np.arange(int(np.prod(shape))).reshape(shape)
    found = arrange(shape, order)
    np.testing.assert_array_equal(found.sort(values.reshape(-1)), values.transpose(order).reshape(-1))
    assert found.axes(shape) == tuple(axis for axis in order if shape[axis] != 1)
    assert found.is_plain == np.array_equal(values.reshape(-1), values.transpose(order).reshape(-1))
    assert plain(shape).is_plain


def test_an_arrangement_is_kept_through_shapes_that_do_not_tear_it() -> None:
    found = arrange((3, 4, 5), channels_last(3))
    assert found.axes((3, 20)) == (1, 0)
    assert found.axes((3, 1, 2, 10)) == (2, 3, 0)
    assert found.axes((60,)) is None
    assert found.axes((12, 5)) is None


def small_net() -> onnx.ModelProto:
    weights = {"w": normal(4, 2, 3, 3), "d": normal(4, 1, 3, 3), "f": normal(4 * 25, 3), "b": normal(3)}
    nodes = [
        node("Conv", "x", "w", output="a", pads=[1] * 4),
        node("Relu", "a", output="r"),
        node("Conv", "r", "d", output="c", group=4, pads=[1] * 4),
        node("Add", "c", "r", output="s"),
        node("Flatten", "s", output="g"),
        node("Gemm", "g", "f", "b"),
    ]
    return model_of(nodes, weights, ("N", 2, 5, 5))


def test_nothing_is_transposed_but_the_input(error_bound: Bound) -> None:
    ops = assert_same(small_net(), error_bound, normal(2, 2, 5, 5))
    assert ops == ["transpose", "conv2d", "relu", "depthwise_conv2d", "add", "reshape", "dense"]


def test_an_image_of_one_channel_is_only_reshaped(error_bound: Bound) -> None:
    model = model_of([node("Conv", "x", "w")], {"w": normal(1, 1, 3, 3)}, (1, 1, 5, 6))
    assert assert_same(model, error_bound, normal(1, 1, 5, 6)) == ["reshape", "conv2d", "reshape"]


def test_transposes_of_a_model_that_was_channels_last_vanish(error_bound: Bound) -> None:
    nodes = [
        node("Transpose", "x", perm=[0, 3, 1, 2], output="t"),
        node("Conv", "t", "w", output="c"),
        node("Transpose", "c", perm=[0, 2, 3, 1], output="u"),
        node("Add", "u", "b"),
    ]
    model = model_of(nodes, {"w": normal(4, 2, 3, 3), "b": normal(4)}, (1, 5, 6, 2))
    assert assert_same(model, error_bound, normal(1, 5, 6, 2)) == ["conv2d"]


def test_input_scaling_folds_into_the_first_convolution(error_bound: Bound) -> None:
    nodes = [
        node("Div", "x", "k", output="a"),
        node("Sub", "a", "m", output="b"),
        node("Div", "b", "s", output="c"),
        node("Conv", "c", "w"),
    ]
    weights = {
        "k": np.float32(255),
        "m": normal(1, 3, 1, 1),
        "s": np.abs(normal(1, 3, 1, 1)) + 1,
        "w": normal(4, 3, 2, 2),
    }
    x = np.abs(normal(1, 3, 5, 6)) * 100
    assert assert_same(model_of(nodes, weights, (1, 3, 5, 6)), error_bound, x) == ["transpose", "conv2d", "transpose"]


def test_a_norm_before_a_padded_convolution_stays(error_bound: Bound) -> None:
    mean = normal(3, seed=1)
    weights = {"s": np.abs(normal(3)) + 0.5, "m": mean, "h": -mean, "w": normal(4, 3, 3, 3)}
    nodes = [
        node("BatchNormalization", "x", "s", "h", "m", "s", output="n"),
        node("Conv", "n", "w", output="c", pads=[1] * 4),
        node("GlobalAveragePool", "c"),
    ]
    ops = assert_same(model_of(nodes, weights, (1, 3, 5, 6)), error_bound, normal(1, 3, 5, 6))
    assert ops == ["transpose", "channel_affine", "conv2d", "global_average", "reshape"]


def test_a_pad_of_zeros_becomes_the_padding_of_the_convolution(error_bound: Bound) -> None:
    weights = {"p": np.array([0, 0, 0, 0, 0, 0, 1, 1]), "w": normal(4, 3, 3, 3)}
    nodes = [node("Pad", "x", "p", output="q"), node("Conv", "q", "w", output="c", strides=[2, 2]), node("Relu", "c")]
    ops = assert_same(model_of(nodes, weights, (1, 3, 6, 6)), error_bound, normal(1, 3, 6, 6))
    assert ops == ["transpose", "conv2d", "relu", "transpose"]


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32])
def test_an_embedding(error_bound: Bound, kind: int) -> None:
    nodes = [
        node("Gather", "table", "x", output="e"),
        node("Flatten", "e", output="f"),
        node("Gemm", "f", "w"),
    ]
    model = model_of(nodes, {"table": normal(7, 3), "w": normal(12, 2)}, ("N", 4), kind=kind)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    x = np.random.default_rng(0).integers(0, 7, (3, 4)).astype(np.int64 if kind == TensorProto.INT64 else np.int32)
    ops = assert_same(model, error_bound, x)
    assert ops == ["embedding", "reshape", "dense"]


IMAGE, KERNEL = (1, 4, 6, 6), {"w": normal(4, 4, 3, 3), "g": normal(4, 2, 3, 3), "v": normal(3, 4, 1, 1, 1)}
REFUSED: list[tuple[onnx.ModelProto, str]] = [
    (
        model_of([node("Conv", "x", "w", dilations=[2, 2])], KERNEL, IMAGE),
        r"'conv_of_y' \(Conv\): dilations \(2, 2\) are not supported; 1 is",
    ),
    (model_of([node("Conv", "x", "g", group=2)], KERNEL, IMAGE), "2 groups of 4 channels are not supported"),
    (model_of([node("Conv", "x", "v")], KERNEL, (1, 4, 3, 3, 3)), "sequences .* and images .* are supported"),
    (model_of([node("Conv", "x", "g")], KERNEL, IMAGE), r"\(4, 2, 3, 3\) in 1 groups does not fit \(1, 4, 6, 6\)"),
    (model_of([node("Conv", "x", "x")], KERNEL, IMAGE), "its weight must be constant"),
    (model_of([node("Conv", "x", "w", strides=[0, 1])], KERNEL, IMAGE), r"strides \(0, 1\) must be 2 numbers of 1 to"),
    (model_of([node("Conv", "x", "w", pads=[-1, 0, 0, 0])], KERNEL, IMAGE), r"pads \(-1, 0, 0, 0\) must be 4 numbers"),
    (model_of([node("Conv", "x", "w", kernel_shape=[2, 2])], KERNEL, IMAGE), "is not that of the weight"),
    (model_of([node("Conv", "x", "w", auto_pad="HALF")], KERNEL, IMAGE), "auto_pad 'HALF' is unknown"),
    (model_of([node("MaxPool", "x", kernel_shape=[9, 9])], {}, IMAGE), "has a window of|larger than|fit"),
    (model_of([node("MaxPool", "x", kernel_shape=[2, 2], pads=[2] * 4)], {}, IMAGE), "is no pool"),
    (model_of([node("PRelu", "x", "s")], {"s": normal(4, 1, 1)}, IMAGE), "not supported; its slopes are weights"),
    (
        model_of([node("QLinearConv", *["x"] * 8)], {}, IMAGE),
        r"\(QLinearConv\): not supported; export it with QuantizeLinear and DequantizeLinear .*QuantFormat.QDQ",
    ),
    (
        model_of([node("Transpose", "x", perm=[1, 0, 2, 3])], {}, IMAGE),
        "removes or mixes the batch",
    ),
    (model_of([node("ReduceMean", "x", "a")], {"a": np.array([0, 2])}, IMAGE), "takes the mean over the batch"),
    (model_of([node("Slice", "x", "a", "b")], {"a": np.array([0]), "b": np.array([0])}, IMAGE), "a part of the batch"),
    (
        model_of([node("Slice", "x", "a", "b", "c", "c")], {"a": np.array([0]), "b": np.array([4]), "c": np.array([2])},
                 IMAGE),
        "steps of 2 are not supported; 1 is",
    ),
    (model_of([node("Pad", "x", "p", mode="reflect")], {"p": np.zeros(8, np.int64)}, IMAGE), "mode 'reflect'"),
    (model_of([node("Pad", "x", "p")], {"p": np.full(8, 1)}, IMAGE), "pads the batch"),
    (model_of([node("Pad", "x", "p")], {"p": np.array([0] * 7 + [2**40])}, IMAGE), "more than the 67108864 elements"),
    (
        model_of([node("ReduceMean", "x", "a", output="r"), node("Add", "x", "r")],
                 {"a": np.array([1, 2, 3])}, IMAGE),
        "are not of one shape, and neither has one number per channel",
    ),
    (model_of([node("Gather", "x", "i", axis=1)], {"i": np.array([0, 2])}, IMAGE), "takes 2 places; one is supported"),
    (
        model_of([node("Gather", "w", "x")], KERNEL, (1, 4)),
        "an embedding takes rows of a table|its indices must be the whole numbers",
    ),
]  # fmt: skip


@pytest.mark.parametrize("index", range(len(REFUSED)), ids=lambda index: REFUSED[index][1][:40])
def test_refusals_name_the_place_and_what_would_work(index: int) -> None:
    model, message = REFUSED[index]
    with pytest.raises(ModelError, match=message):
        load(model)
